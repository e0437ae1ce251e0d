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

// Bounded waits. One for each thread of a kernel, for all its waits: once one of them gave up, the later ones return at
// once, so that the kernel ends soon, with garbage, and says so in `error`.
struct Spin {
    u32* error;        // in global memory, 0 before the launch; the code of a wait that gave up. Null: nobody is told
    u32 polls;         // of one wait before it gives up; a poll of global memory takes about a microsecond
    bool failed;

    DEVICE Spin(u32* error, u32 polls) : error(error), polls(polls), failed(false) {}

    // Waits until `condition()`; polls at least once. False: gave up, and `code` (not 0) is in `error`; or another
    // thread has given up, which is looked for now and then.
    template <class Condition> DEVICE bool until(Condition condition, u32 code AND_PLACE) {
        for (u32 poll = 0; !condition(); ++poll) {
            if (failed) return false;
            if (poll >= polls) {
                if (error) st_relaxed(error, code);
                failed = true;
                return false;
            }
            if ((poll & 1023u) == 1023u && error && ld_relaxed(error)) {
                failed = true;
                return false;
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
