// Compiles the kernels of this folder as C++17 and runs them on the CPU: what `prims.cuh` and the kernels use of CUDA's
// language. The engine that schedules the threads is `engine.cpp`; its rules and limits are described there.
//
// Everything here lives on one OS thread a launch; several launches may run on several OS threads at once.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>

// ---- language -------------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) __attribute__((aligned(n)))

struct uint2 { unsigned x, y; };
struct uint3 { unsigned x, y, z; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
struct int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline int2 make_int2(int x, int y) { return {x, y}; }
inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
inline double2 make_double2(double x, double y) { return {x, y}; }

// ---- the engine's side ----------------------------------------------------------------------------------------------

namespace host {

struct Block;
struct Warp;

// What a running kernel may read of its thread; the engine's own part is in `engine.h`.
struct Thread {
    uint3 index;       // threadIdx
    unsigned lane;     // within its warp
    Block* block;
    Warp* warp;
};

struct BlockView {
    uint3 index;       // blockIdx
    uint3 threads;     // blockDim
    uint3 grid;        // gridDim
    unsigned char* shared;
    unsigned shared_bytes;
    unsigned cluster_rank, cluster_size;
};

// The thread that runs now on this OS thread. Every use in a kernel comes after a switch only through a call into the
// engine, so the compiler reads it anew.
extern __thread Thread* current __attribute__((tls_model("initial-exec")));

inline const BlockView& block() { return *reinterpret_cast<const BlockView*>(current->block); }

// Where in a kernel a thread waits, for messages.
struct Place {
    const char* what;
    const char* file;
    int line;
};

// Ends the launch with an error. Does not return.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));

// Barrier `id` of the block (0..15) for `threads` threads; 0 for all that have not returned.
void block_barrier(unsigned id, unsigned threads, Place place);
// Arrives at a barrier without waiting.
void block_barrier_arrive(unsigned id, unsigned threads, Place place);

// One warp-wide operation: each lane of `mask` gives a pointer to its operand; the lane that comes last runs `compute`
// on all of them (absent lanes are null) while the others wait.
typedef void (*Compute)(void* const (&operands)[32]);
void collective(unsigned mask, void* operand, Compute compute, Place place);

// A turn of a wait loop: lets the others run.
void spin(Place place);

void cluster_arrive(Place place);
void cluster_wait(Place place);
// The place in block `rank` of this cluster that corresponds to `pointer` in this block's shared memory.
unsigned char* cluster_map(const void* pointer, unsigned rank);
// Ends the launch with an error where `bytes` bytes at `pointer` are not shared memory of a block of this cluster that
// still runs.
void cluster_check(const void* pointer, unsigned bytes, const char* what);

// cp.async: the copy happens at the wait, so that a missing wait shows.
void copy_async(void* to, const void* from, unsigned bytes, unsigned copied);
void copy_async_commit();
void copy_async_wait(unsigned groups_left);

// st.async: may happen at any time until the barrier's phase completes.
void store_async(unsigned char* to, const void* from, unsigned bytes, unsigned char* barrier);

void mbarrier_init(void* barrier, unsigned count);
// `transactions` bytes are expected in this phase, then `arrivals` threads arrive.
void mbarrier_arrive(void* barrier, unsigned arrivals, unsigned transactions, Place place);
bool mbarrier_test(const void* barrier, unsigned parity, Place place);

}  // namespace host

#define HOST_PLACE(what) (host::Place{what, file, line})
#define HOST_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()

// ---- CUDA's built-ins -----------------------------------------------------------------------------------------------

#define threadIdx (host::current->index)
#define blockIdx (host::block().index)
#define blockDim (host::block().threads)
#define gridDim (host::block().grid)
constexpr int warpSize = 32;

inline void __syncthreads(HOST_AT) { host::block_barrier(0, 0, HOST_PLACE("__syncthreads")); }
inline void __syncwarp(unsigned mask = ~0u, HOST_AT) {
    unsigned char none = 0;
    host::collective(mask, &none, [](void* const (&)[32]) {}, HOST_PLACE("__syncwarp"));
}
inline void __threadfence() {}
inline void __threadfence_block() {}

namespace host {

template <class T>
struct Shuffle {
    T value, result;
    unsigned source;  // lane, or ~0 for the own value
};

template <class T>
inline T shuffle(unsigned mask, T value, unsigned source, Place place) {
    Shuffle<T> mine{value, value, source};
    collective(
        mask, &mine,
        [](void* const (&lanes)[32]) {
            for (unsigned i = 0; i < 32; ++i) {
                auto* lane = static_cast<Shuffle<T>*>(lanes[i]);
                if (!lane || lane->source > 31) continue;
                if (!lanes[lane->source])
                    fail("a shuffle reads lane %u, which does not take part in it", lane->source);
                lane->result = static_cast<Shuffle<T>*>(lanes[lane->source])->value;
            }
        },
        place);
    return mine.result;
}

}  // namespace host

template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, HOST_AT) {
    const unsigned lane = host::current->lane, base = lane & ~unsigned(width - 1);
    return host::shuffle(mask, value, base | (unsigned(source) & unsigned(width - 1)), HOST_PLACE("__shfl_sync"));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, HOST_AT) {
    const unsigned lane = host::current->lane, source = lane ^ unsigned(lanes);
    const bool outside = (source & ~unsigned(width - 1)) > (lane & ~unsigned(width - 1));
    return host::shuffle(mask, value, outside ? ~0u : source, HOST_PLACE("__shfl_xor_sync"));
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, HOST_AT) {
    const unsigned lane = host::current->lane, within = lane & unsigned(width - 1);
    return host::shuffle(mask, value, within + lanes < unsigned(width) ? lane + lanes : ~0u,
                         HOST_PLACE("__shfl_down_sync"));
}
template <class T>
inline T __shfl_up_sync(unsigned mask, T value, unsigned lanes, int width = 32, HOST_AT) {
    const unsigned lane = host::current->lane, within = lane & unsigned(width - 1);
    return host::shuffle(mask, value, within >= lanes ? lane - lanes : ~0u, HOST_PLACE("__shfl_up_sync"));
}
inline unsigned __ballot_sync(unsigned mask, int predicate, HOST_AT) {
    unsigned vote = predicate != 0;
    host::collective(
        mask, &vote,
        [](void* const (&lanes)[32]) {
            unsigned votes = 0;
            for (unsigned i = 0; i < 32; ++i)
                if (lanes[i] && *static_cast<unsigned*>(lanes[i])) votes |= 1u << i;
            for (void* lane : lanes)
                if (lane) *static_cast<unsigned*>(lane) = votes;
        },
        HOST_PLACE("__ballot_sync"));
    return vote;
}
inline int __any_sync(unsigned mask, int predicate, HOST_AT) { return __ballot_sync(mask, predicate, file, line) != 0; }
inline int __all_sync(unsigned mask, int predicate, HOST_AT) {
    return __ballot_sync(mask, !predicate, file, line) == 0;
}

template <class T, class U>
inline T atomicAdd(T* at, U value) { const T old = *at; *at = T(old + T(value)); return old; }
template <class T, class U>
inline T atomicExch(T* at, U value) { const T old = *at; *at = T(value); return old; }
template <class T, class U>
inline T atomicMax(T* at, U value) { const T old = *at; if (T(value) > old) *at = T(value); return old; }
template <class T, class U>
inline T atomicOr(T* at, U value) { const T old = *at; *at = T(old | T(value)); return old; }
template <class T>
inline T atomicCAS(T* at, T expected, T value) { const T old = *at; if (old == expected) *at = value; return old; }

template <class T>
inline T __ldg(const T* p) { return *p; }
inline unsigned __float_as_uint(float x) { unsigned u; memcpy(&u, &x, 4); return u; }
inline float __uint_as_float(unsigned u) { float x; memcpy(&x, &u, 4); return x; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(unsigned x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((unsigned long long)(a) * b >> 32); }

#define HOST_MIN_MAX(T)                                        \
    inline T min(T a, T b) { return b < a ? b : a; }           \
    inline T max(T a, T b) { return a < b ? b : a; }
HOST_MIN_MAX(int)
HOST_MIN_MAX(unsigned)
HOST_MIN_MAX(long long)
HOST_MIN_MAX(unsigned long long)
#undef HOST_MIN_MAX
// As on the device, a NaN loses against a number.
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
