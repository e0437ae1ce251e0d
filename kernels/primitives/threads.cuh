// primitives/threads.cuh - what threads do together: sums of a warp, barriers of a block, bounded waits.
#pragma once
#include "primitives/memory.cuh"
#include "primitives/target.cuh"

// ---- warps ----------------------------------------------------------------------------------------------------------

// Sum over the warp in a fixed order (lanes 16 apart first), the same bits in every lane.
template <class T> DEVICE T warp_sum(T x) {
#if ON_DEVICE
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x += __shfl_xor_sync(FULL_WARP, x, d);
    return x;
#else
    host::collective(
        FULL_WARP, &x,
        [](void* const (&lanes)[32]) {
            T v[32], w[32];
            for (int i = 0; i < 32; ++i) {
                if (!lanes[i]) host::fail("warp_sum: lane %d is missing", i);
                v[i] = *static_cast<T*>(lanes[i]);
            }
            for (int d = 16; d > 0; d >>= 1) {
                for (int i = 0; i < 32; ++i) w[i] = v[i] + v[i ^ d];
                for (int i = 0; i < 32; ++i) v[i] = w[i];
            }
            for (int i = 0; i < 32; ++i) *static_cast<T*>(lanes[i]) = v[i];
        },
        host::Place{"warp_sum", __FILE__, __LINE__});
    return x;
#endif
}

// Maximum over the warp, in every lane.
template <class T> DEVICE T warp_max(T x) {
#pragma unroll
    for (int d = 16; d > 0; d >>= 1) x = max(x, __shfl_xor_sync(FULL_WARP, x, d));
    return x;
}

// Barrier `id` (1..15; 0 is that of __syncthreads) among `threads` threads of the block, whole warps.
// block_barrier_arrive counts for it without waiting.
#if ON_DEVICE
DEVICE void block_barrier(u32 id, u32 threads) {
    asm volatile("barrier.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
DEVICE void block_barrier_arrive(u32 id, u32 threads) {
    asm volatile("barrier.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
#else
DEVICE void block_barrier(u32 id, u32 threads, HOST_AT) {
    host::block_barrier(id, threads, HOST_PLACE("block_barrier"));
}
DEVICE void block_barrier_arrive(u32 id, u32 threads, HOST_AT) {
    host::block_barrier_arrive(id, threads, HOST_PLACE("block_barrier_arrive"));
}
#endif

// ---- waiting --------------------------------------------------------------------------------------------------------

// A turn of a wait loop. Every wait loop has one, and every wait is bounded: use `Spin`.
#if ON_DEVICE
#define AND_PLACE
DEVICE void spin_pause(u32 nanoseconds) {
    if (nanoseconds) __nanosleep(nanoseconds);
}
#else
#define AND_PLACE , HOST_AT  // a last argument that messages name
DEVICE void spin_pause(u32, HOST_AT) { host::spin(HOST_PLACE("a wait loop")); }
#endif

// A clock for waits, in units of 2^WAIT_UNIT_BITS clocks of the multiprocessor. The host has none, and takes the number of the reading.
constexpr u32 WAIT_UNIT_BITS = 12;
DEVICE u32 wait_clock([[maybe_unused]] u32 reading) {
#if ON_DEVICE
    u64 clocks;
    asm volatile("mov.u64 %0, %%clock64;" : "=l"(clocks));
    return u32(clocks >> WAIT_UNIT_BITS);
#else
    return reading;
#endif
}

// Bounded waits. One for each thread of a kernel, for all its waits: once one of them gave up, the later ones return at
// once, so that the kernel ends soon, with garbage, and says so in `error`. The bound is a time, because a poll may take long: the
// hardware may suspend a thread that tests an mbarrier.
struct Spin {
    u32* error;      // in global memory, 0 before the launch; the code of a wait that gave up. Null: nobody is told
    u32 patience;    // of one wait before it gives up, in units of 2^WAIT_UNIT_BITS clocks: 2 to 3 microseconds each
    bool failed;

    DEVICE Spin(u32* error, u32 patience) : error(error), patience(patience), failed(false) {}

    // Waits until `condition()`; polls at least once. False: gave up, and `code` (not 0) is in `error`; or another
    // thread has given up, which is looked for now and then.
    template <class Condition> DEVICE bool until(Condition condition, u32 code AND_PLACE) {
        constexpr u32 LOOK = 64;  // polls from one look at the clock, and at what others say, to the next
        u32 since = 0;
        for (u32 poll = 0; !condition(); ++poll) {
            if (failed) return false;
            if (poll % LOOK == LOOK - 1) {
                const u32 now = wait_clock(poll / LOOK);
                if (poll == LOOK - 1) since = now;
                if (now - since >= patience) {
                    if (error) st_relaxed(error, code);
                    failed = true;
                    return false;
                }
                if (error && ld_relaxed(error)) {
                    failed = true;
                    return false;
                }
            }
#if ON_DEVICE
            spin_pause(poll < 16384u ? 0 : 64);
#else
            spin_pause(0, file, line);
#endif
        }
        return true;
    }
};
