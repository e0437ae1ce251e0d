// What the kernels stand on: types, conversions, and every instruction that needs PTX, each beside its host version.
//
// Kernels use no CUDA header and no inline PTX of their own; with NVRTC this file needs nothing else, and any C++17
// compiler takes it together with `host/cuda_host.h`. The host versions compute the same bits, but for the
// approximations (`ex2_approx`, `rcp_approx`, `tanh_approx`), the `…_accurate` functions, and the order of sums inside
// an mma.
#pragma once

#if defined(__CUDACC_RTC__) || defined(__CUDACC__)
#define ON_DEVICE 1
#define ARCH __CUDA_ARCH__
#else
#define ON_DEVICE 0
#include "host/cuda_host.h"
// Which compute capability's code path the host version takes, times ten.
#ifndef FUSED_RNN_HOST_COMPUTE
#define FUSED_RNN_HOST_COMPUTE 90
#endif
#define ARCH (FUSED_RNN_HOST_COMPUTE * 10)
#endif

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef int i32;
typedef long long i64;
static_assert(sizeof(u16) == 2 && sizeof(u32) == 4 && sizeof(u64) == 8 && sizeof(void*) == 8, "mirrored sizes");

#define DEVICE __device__ __forceinline__

// An entry point: KERNEL(name, type of its parameter `p`, threads of a block, statement).
// SHARED(T, name): the block's dynamic shared memory, aligned to 128 bytes. All of it is one array: give every part its
// own offset.
#if ON_DEVICE
#define KERNEL(name, Params, threads, ...) \
    extern "C" __global__ void __launch_bounds__(threads, 1) name(const __grid_constant__ Params p) { __VA_ARGS__; }
#define SHARED(T, name)                                                 \
    extern __shared__ __align__(128) unsigned char fused_rnn_shared[];  \
    T* const name = reinterpret_cast<T*>(fused_rnn_shared)
#else
#define KERNEL(name, Params, threads, ...)                                           \
    extern "C" __attribute__((visibility("default"))) void name(const void* bytes) { \
        [[maybe_unused]] const Params& p = *static_cast<const Params*>(bytes);       \
        __VA_ARGS__;                                                                 \
    }
#define SHARED(T, name) T* const name = reinterpret_cast<T*>(host::block().shared)
#endif

// What the target has: mma.sync with 16-bit and TF32 operands, cp.async from sm_80; clusters, st.async, mbarriers over
// clusters from sm_90. For `#if` and `if constexpr`. What a target lacks is declared here but not defined, so using it
// does not link.
#define HAS_MMA_16BIT (ARCH >= 800)
#define HAS_MMA_TF32 (ARCH >= 800)
#define HAS_CP_ASYNC (ARCH >= 800)
#define HAS_CLUSTER (ARCH >= 900)

constexpr u32 FULL_WARP = 0xffffffffu;

DEVICE u32 lane_id() { return threadIdx.x & 31; }
DEVICE u32 warp_id() { return threadIdx.x >> 5; }

// ---- storage types and their arithmetic -----------------------------------------------------------------------------

typedef float f32;
typedef double f64;
struct f16 { u16 bits; };
struct bf16 { u16 bits; };

// What sums and gate arithmetic of an element type are done in.
template <class E> struct Accumulator { typedef float type; };
template <> struct Accumulator<f64> { typedef double type; };
template <class E> using accumulator_t = typename Accumulator<E>::type;

template <class A, class B> struct is_same { static constexpr bool value = false; };
template <class A> struct is_same<A, A> { static constexpr bool value = true; };
template <class E> constexpr bool is_16bit = is_same<E, f16>::value || is_same<E, bf16>::value;

DEVICE float to_float(f32 x) { return x; }
DEVICE double to_float(f64 x) { return x; }
DEVICE float to_float(bf16 x) { return __uint_as_float(u32(x.bits) << 16); }
DEVICE float to_float(f16 x) {
#if ON_DEVICE
    float r;
    asm("cvt.f32.f16 %0, %1;" : "=f"(r) : "h"(x.bits));
    return r;
#else
    // The exponent is rebiased by an exact multiplication, which also makes subnormal numbers normal.
    u32 bits = u32(x.bits & 0x7fff) << 13;
    const float scaled = __uint_as_float(bits) * 0x1p112f;
    bits = (x.bits & 0x7c00) == 0x7c00 ? bits | 0x7f800000u : __float_as_uint(scaled);
    return __uint_as_float(bits | u32(x.bits & 0x8000) << 16);
#endif
}

// Rounds to nearest, ties to even. A NaN becomes 0x7fff in 16 bits.
template <class E> DEVICE E round_to(accumulator_t<E> x);
template <> DEVICE f32 round_to<f32>(float x) { return x; }
template <> DEVICE f64 round_to<f64>(double x) { return x; }
template <> DEVICE bf16 round_to<bf16>(float x) {
#if ON_DEVICE && ARCH >= 800
    u16 r;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return bf16{r};
#else
    const u32 u = __float_as_uint(x);
    if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{0x7fff};
    return bf16{u16((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
#endif
}
template <> DEVICE f16 round_to<f16>(float x) {
#if ON_DEVICE
    u16 r;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(r) : "f"(x));
    return f16{r};
#else
    const u32 u = __float_as_uint(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffffu;
    if (magnitude > 0x7f800000u) return f16{0x7fff};
    if (magnitude >= 0x477ff000u) return f16{u16(sign | 0x7c00)};  // 65520 and above round to infinity
    if (magnitude < 0x38800000u) {                                 // below 2^-14: subnormal; the addition rounds
        const float shifted = __uint_as_float(magnitude) + 0.5f;
        return f16{u16(sign | (__float_as_uint(shifted) - 0x3f000000u))};
    }
    return f16{u16(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13))};
#endif
}

template <class E> DEVICE accumulator_t<E> load(const void* p, u64 i) { return to_float(static_cast<const E*>(p)[i]); }
template <class E> DEVICE void store(void* p, u64 i, accumulator_t<E> x) { static_cast<E*>(p)[i] = round_to<E>(x); }

// Two 16-bit elements in a register; `low` has the lower address.
template <class E> DEVICE u32 pack(float low, float high) {
    static_assert(is_16bit<E>, "two 16-bit elements");
    return u32(round_to<E>(low).bits) | u32(round_to<E>(high).bits) << 16;
}
template <class E> DEVICE float unpack_low(u32 v) { return to_float(E{u16(v)}); }
template <class E> DEVICE float unpack_high(u32 v) { return to_float(E{u16(v >> 16)}); }

template <class E> DEVICE E zero() { return round_to<E>(accumulator_t<E>(0)); }

// TF32: the bits of an f32 rounded to 10 bits of mantissa, to nearest, ties away from zero.
DEVICE u32 round_tf32(u32 bits) {
#if ON_DEVICE && ARCH >= 800
    u32 r;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(__uint_as_float(bits)));
    return r;
#else
    if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffffffu;
    return (bits & 0x7f800000u) == 0x7f800000u ? bits : (bits + 0x1000u) & 0xffffe000u;
#endif
}

// ---- arithmetic -----------------------------------------------------------------------------------------------------

// CUDA's own functions without fast-math (1 to 2 ulp), libm on the host.
DEVICE float exp_accurate(float x) { return expf(x); }
DEVICE double exp_accurate(double x) { return exp(x); }
DEVICE float expm1_accurate(float x) { return expm1f(x); }
DEVICE double expm1_accurate(double x) { return expm1(x); }
DEVICE float log_accurate(float x) { return logf(x); }
DEVICE double log_accurate(double x) { return log(x); }
DEVICE float log1p_accurate(float x) { return log1pf(x); }
DEVICE double log1p_accurate(double x) { return log1p(x); }
DEVICE float tanh_accurate(float x) { return tanhf(x); }
DEVICE double tanh_accurate(double x) { return tanh(x); }
DEVICE float square_root(float x) { return sqrtf(x); }
DEVICE double square_root(double x) { return sqrt(x); }
DEVICE float absolute(float x) { return fabsf(x); }
DEVICE double absolute(double x) { return fabs(x); }
DEVICE bool is_infinite(float x) { return absolute(x) == __uint_as_float(0x7f800000u); }
DEVICE bool is_infinite(double x) { return absolute(x) > 1.7976931348623157e308; }

// a * b + c, rounded once where the machine can: always on the device; on the host where it was built for such a
// machine.
DEVICE float fused_multiply_add(float a, float b, float c) {
#if ON_DEVICE || defined(__FMA__) || defined(__aarch64__)
    return fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
DEVICE double fused_multiply_add(double a, double b, double c) {
#if ON_DEVICE || defined(__FMA__) || defined(__aarch64__)
    return fma(a, b, c);
#else
    return a * b + c;
#endif
}

// 2^x, 1/x, tanh on the special-function unit; subnormal numbers count as zero. Relative errors at most 2^-22, 1 ulp,
// 2^-10.9 (PTX ISA); the host's are correctly rounded or nearly so.
DEVICE float ex2_approx(float x) {
#if ON_DEVICE
    float r;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
#else
    const float r = exp2f(x);
    return r < 0x1p-126f ? 0.0f : r;
#endif
}
DEVICE float rcp_approx(float x) {
#if ON_DEVICE
    float r;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
#else
    const float r = 1.0f / (fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x);
    return fabsf(r) < 0x1p-126f ? copysignf(0.0f, r) : r;
#endif
}
DEVICE float tanh_approx(float x) {
#if ON_DEVICE
    float r;
    asm("tanh.approx.f32 %0, %1;" : "=f"(r) : "f"(x));
    return r;
#else
    return tanhf(x);
#endif
}

// One block of Philox4x32-10 in place: a counter becomes 128 random bits, those of `philox4x32` in src/rnn/dropout.rs.
DEVICE void philox4x32(u32 (&counter)[4], u64 key) {
    u32 k0 = u32(key), k1 = u32(key >> 32);
#pragma unroll
    for (int round = 0; round < 10; ++round) {
        if (round > 0) {
            k0 += 0x9E3779B9u;
            k1 += 0xBB67AE85u;
        }
        const u32 a_high = __umulhi(counter[0], 0xD2511F53u), a_low = counter[0] * 0xD2511F53u;
        const u32 b_high = __umulhi(counter[2], 0xCD9E8D57u), b_low = counter[2] * 0xCD9E8D57u;
        counter[0] = b_high ^ counter[1] ^ k0;
        counter[1] = b_low;
        counter[2] = a_high ^ counter[3] ^ k1;
        counter[3] = a_low;
    }
}

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

DEVICE u32 ld_relaxed(const u32* p);
DEVICE void st_relaxed(u32* p, u32 value);

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

// ---- global memory --------------------------------------------------------------------------------------------------

// Loads that happen where they stand, through the read-only path and not kept in L1: weights that are read once, before
// a loop. Addresses aligned to the size.
DEVICE uint4 ldg_once16(const void* p) {
    uint4 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p));
#else
    v = *static_cast<const uint4*>(p);
#endif
    return v;
}
DEVICE u32 ldg_once4(const void* p) {
    u32 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p));
#else
    v = *static_cast<const u32*>(p);
#endif
    return v;
}
DEVICE u16 ldg_once2(const void* p) {
    u16 v;
#if ON_DEVICE
    asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(p));
#else
    v = *static_cast<const u16*>(p);
#endif
    return v;
}

// The same where `inside`, elsewhere zero, without a branch.
DEVICE u32 ldg_once4_if(const void* p, bool inside) {
    u32 v = 0;
#if ON_DEVICE
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.nc.u32 %0, [%1]; }" : "+r"(v) : "l"(p), "r"(u32(inside)));
#else
    if (inside) v = *static_cast<const u32*>(p);
#endif
    return v;
}
DEVICE u16 ldg_once2_if(const void* p, bool inside) {
    u16 v = 0;
#if ON_DEVICE
    asm volatile("{ .reg .pred p; setp.ne.u32 p, %2, 0; @p ld.global.nc.u16 %0, [%1]; }" : "+h"(v) : "l"(p), "r"(u32(inside)));
#else
    if (inside) v = *static_cast<const u16*>(p);
#endif
    return v;
}

// Memory that other blocks of the launch read or write meanwhile: relaxed (the value alone), acquire and release (what was
// written before a release is seen after the acquire that reads it), all at the scope of the GPU.
DEVICE u32 ld_relaxed(const u32* p) {
#if ON_DEVICE
    u32 v;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#else
    return *static_cast<const volatile u32*>(p);
#endif
}
DEVICE void st_relaxed(u32* p, u32 value) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
#else
    *static_cast<volatile u32*>(p) = value;
#endif
}
// Not one access of 16 bytes but four of 4, as far as other threads can tell: compare every part with the sentinel.
DEVICE uint4 ld_relaxed16(const void* p) {
    uint4 v;
#if ON_DEVICE
    asm volatile("ld.relaxed.gpu.global.v4.u32 {%0,%1,%2,%3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p) : "memory");
#else
    v = *static_cast<const uint4*>(p);
    asm volatile("" ::: "memory");
#endif
    return v;
}
DEVICE uint2 ld_relaxed8(const void* p) {
    uint2 v;
#if ON_DEVICE
    asm volatile("ld.relaxed.gpu.global.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p) : "memory");
#else
    v = *static_cast<const uint2*>(p);
    asm volatile("" ::: "memory");
#endif
    return v;
}
DEVICE void st_relaxed8(void* p, uint2 v) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.v2.u32 [%0], {%1,%2};" ::"l"(p), "r"(v.x), "r"(v.y) : "memory");
#else
    *static_cast<uint2*>(p) = v;
    asm volatile("" ::: "memory");
#endif
}
DEVICE void st_relaxed16(void* p, uint4 v) {
#if ON_DEVICE
    asm volatile("st.relaxed.gpu.global.v4.u32 [%0], {%1,%2,%3,%4};" ::"l"(p), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w)
                 : "memory");
#else
    *static_cast<uint4*>(p) = v;
    asm volatile("" ::: "memory");
#endif
}
DEVICE u32 ld_acquire(const u32* p) {
#if ON_DEVICE
    u32 v;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(v) : "l"(p) : "memory");
    return v;
#else
    return *static_cast<const volatile u32*>(p);
#endif
}
DEVICE void st_release(u32* p, u32 value) {
#if ON_DEVICE
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(p), "r"(value) : "memory");
#else
    *static_cast<volatile u32*>(p) = value;
#endif
}
// Adds and returns what was there; acquires and releases.
DEVICE u32 atomic_add_acq_rel(u32* p, u32 value) {
#if ON_DEVICE
    u32 old;
    asm volatile("atom.add.acq_rel.gpu.global.u32 %0, [%1], %2;" : "=r"(old) : "l"(p), "r"(value) : "memory");
    return old;
#else
    return atomicAdd(p, value);
#endif
}

// The sentinel of buffers that are polled until every word has been written: 0xffffffff is no value that a store makes,
// because 16-bit NaNs are stored as 0x7fff and f32 ones go through `canonical_nan`.
constexpr u32 SENTINEL = 0xffffffffu;
DEVICE bool has_sentinel(uint4 v) { return v.x == SENTINEL || v.y == SENTINEL || v.z == SENTINEL || v.w == SENTINEL; }
DEVICE float canonical_nan(float x) { return x == x ? x : __uint_as_float(0x7fffffffu); }

// ---- shared memory --------------------------------------------------------------------------------------------------

#if ON_DEVICE
DEVICE u32 shared_address(const void* p) { return u32(__cvta_generic_to_shared(p)); }
#endif

// Copies from global to shared memory in the background. `bytes` of the 16 (or of the 4) are copied, the rest become
// zeros. A thread's copies belong to the group that its next commit closes; `cp_async_wait<N>` waits until at most N of
// its groups are under way; other threads see the data after a barrier. sm_75: copied at once.
DEVICE void cp_async16(void* to, const void* from, u32 bytes = 16) {
#if !ON_DEVICE
    host::copy_async(to, from, 16, bytes);
#elif ARCH >= 800
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    if (bytes == 16) {
        *static_cast<uint4*>(to) = *static_cast<const uint4*>(from);
    } else {
        for (u32 i = 0; i < 16; ++i) static_cast<u8*>(to)[i] = i < bytes ? static_cast<const u8*>(from)[i] : 0;
    }
#endif
}
DEVICE void cp_async4(void* to, const void* from, u32 bytes = 4) {
#if !ON_DEVICE
    host::copy_async(to, from, 4, bytes);
#elif ARCH >= 800
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(to)), "l"(from), "r"(bytes)
                 : "memory");
#else
    for (u32 i = 0; i < 4; ++i) static_cast<u8*>(to)[i] = i < bytes ? static_cast<const u8*>(from)[i] : 0;
#endif
}
DEVICE void cp_async_commit() {
#if !ON_DEVICE
    host::copy_async_commit();
#elif ARCH >= 800
    asm volatile("cp.async.commit_group;" ::: "memory");
#endif
}
template <int N> DEVICE void cp_async_wait() {
#if !ON_DEVICE
    host::copy_async_wait(N);
#elif ARCH >= 800
    asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#endif
}

// Four 8x8 matrices of 16-bit elements: lane i gives the address of row i % 8 of matrix i / 8, 16 bytes in shared
// memory; register j of lane l becomes elements 2 * (l % 4) and the next of row l / 4 of matrix j.
DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
#if ON_DEVICE
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
#else
    struct Operand { const void* row; u32* r; } mine{row, r};
    host::collective(
        FULL_WARP, &mine,
        [](void* const (&lanes)[32]) {
            for (int i = 0; i < 32; ++i)
                if (!lanes[i]) host::fail("ldmatrix_x4: lane %d is missing", i);
            for (int i = 0; i < 32; ++i)
                for (int j = 0; j < 4; ++j) {
                    const auto* row = static_cast<const u8*>(static_cast<Operand*>(lanes[j * 8 + i / 4])->row);
                    memcpy(static_cast<Operand*>(lanes[i])->r + j, row + i % 4 * 4, 4);
                }
        },
        host::Place{"ldmatrix_x4", __FILE__, __LINE__});
#endif
}

// ---- tensor cores ---------------------------------------------------------------------------------------------------
//
// D += A B with f32 sums, for the whole warp. g = lane / 4, t = lane % 4; D[16][8]: d[0] (g, 2t), d[1] (g, 2t+1),
// d[2] (g+8, 2t), d[3] (g+8, 2t+1). None is volatile, so that the compiler may move loads between them.

#if !ON_DEVICE
namespace host {
struct MmaOperand {
    float* d;
    u32 a[4], b[2];
};

typedef float Four __attribute__((vector_size(16)));  // adds and multiplies as four floats

// d[16][8] += a[16][K] b[K][8], with the fragments spread over the lanes.
template <int K, class Unpack>
inline void mma(void* const (&lanes)[32], Unpack unpack) {
    constexpr int E = K / 8;  // elements in a register: 2 of 16 bits, 1 of 32
    float a[16][K];
    alignas(16) float b[K][8], d[16][8];
    for (int lane = 0; lane < 32; ++lane) {
        if (!lanes[lane]) fail("mma: lane %d is missing", lane);
        const auto& o = *static_cast<const MmaOperand*>(lanes[lane]);
        const int g = lane >> 2, t = lane & 3;
        for (int e = 0; e < E; ++e) {
            for (int r = 0; r < 4; ++r) a[g + (r & 1) * 8][t * E + e + (r >> 1) * (K / 2)] = unpack(o.a[r], e);
            for (int r = 0; r < 2; ++r) b[t * E + e + r * (K / 2)][g] = unpack(o.b[r], e);
        }
    }
    for (int m = 0; m < 16; ++m) {
        Four low = {}, high = {};
        for (int k = 0; k < K; ++k) {
            low += a[m][k] * *reinterpret_cast<const Four*>(b[k]);
            high += a[m][k] * *reinterpret_cast<const Four*>(b[k] + 4);
        }
        memcpy(d[m], &low, 16);
        memcpy(d[m] + 4, &high, 16);
    }
    for (int lane = 0; lane < 32; ++lane) {
        float* out = static_cast<const MmaOperand*>(lanes[lane])->d;
        const int g = lane >> 2, t = lane & 3;
        for (int j = 0; j < 4; ++j) out[j] += d[g + (j >> 1) * 8][2 * t + (j & 1)];
    }
}
}  // namespace host
#endif

// A[16][16]: a0 (g, 2t..), a1 (g+8, 2t..), a2 (g, 2t+8..), a3 (g+8, 2t+8..); B[16][8]: b0 (2t.., g), b1 (2t+8.., g);
// each register two elements of E, the lower index in the lower half.
#if !ON_DEVICE
template <class E> DEVICE void mma_m16n8k16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    static_assert(is_16bit<E>, "operands of 16 bits");
    host::MmaOperand mine{d, {a0, a1, a2, a3}, {b0, b1}};
    host::collective(
        FULL_WARP, &mine,
        [](void* const (&lanes)[32]) {
            host::mma<16>(lanes, [](u32 v, int i) { return to_float(E{u16(v >> 16 * i)}); });
        },
        host::Place{"mma_m16n8k16", __FILE__, __LINE__});
}
#elif ARCH >= 800
template <class E> DEVICE void mma_m16n8k16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    static_assert(is_16bit<E>, "operands of 16 bits");
    if constexpr (is_same<E, bf16>::value) {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    } else {
        asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
            : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
            : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
    }
}
#else
template <class E> __device__ void mma_m16n8k16(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1);
#endif

// A[16][8]: a0 (g, t), a1 (g+8, t), a2 (g, t+4), a3 (g+8, t+4); B[8][8]: b0 (t, g), b1 (t+4, g); values from
// `round_tf32`.
#if !ON_DEVICE
DEVICE void mma_m16n8k8_tf32(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    host::MmaOperand mine{d, {a0, a1, a2, a3}, {b0, b1}};
    host::collective(
        FULL_WARP, &mine,
        [](void* const (&lanes)[32]) {
            host::mma<8>(lanes, [](u32 v, int) { return __uint_as_float(v & 0xffffe000u); });
        },
        host::Place{"mma_m16n8k8_tf32", __FILE__, __LINE__});
}
#elif ARCH >= 800
DEVICE void mma_m16n8k8_tf32(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1) {
    asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a0), "r"(a1), "r"(a2), "r"(a3), "r"(b0), "r"(b1));
}
#else
__device__ void mma_m16n8k8_tf32(float (&d)[4], u32 a0, u32 a1, u32 a2, u32 a3, u32 b0, u32 b1);
#endif

// The same with the fragment of A in an array.
DEVICE void mma_f16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16<f16>(d, a[0], a[1], a[2], a[3], b0, b1);
}
DEVICE void mma_bf16(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16<bf16>(d, a[0], a[1], a[2], a[3], b0, b1);
}
DEVICE void mma_tf32(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k8_tf32(d, a[0], a[1], a[2], a[3], b0, b1);
}

// ---- clusters (sm_90 up) --------------------------------------------------------------------------------------------

// A place in the shared memory of a block of this cluster.
#if ON_DEVICE
struct ClusterAddress {
    u32 address;
    DEVICE ClusterAddress operator+(u32 bytes) const { return ClusterAddress{address + bytes}; }
};
#else
struct ClusterAddress {
    u8* address;
    ClusterAddress operator+(u32 bytes) const { return ClusterAddress{address + bytes}; }
};
#endif

#if !ON_DEVICE
DEVICE u32 cluster_rank() { return host::block().cluster_rank; }
DEVICE u32 cluster_size() { return host::block().cluster_size; }
DEVICE void cluster_arrive(HOST_AT) { host::cluster_arrive(HOST_PLACE("cluster_arrive")); }
DEVICE void cluster_arrive_relaxed(HOST_AT) { host::cluster_arrive(HOST_PLACE("cluster_arrive_relaxed")); }
DEVICE void cluster_wait(HOST_AT) { host::cluster_wait(HOST_PLACE("cluster_wait")); }
DEVICE ClusterAddress map_cluster(const void* p, u32 rank) { return ClusterAddress{host::cluster_map(p, rank)}; }
DEVICE float ld_cluster(ClusterAddress at) {
    host::cluster_check(at.address, 4, "ld.shared::cluster");
    float v;
    memcpy(&v, at.address, 4);
    return v;
}
DEVICE void st_cluster(ClusterAddress at, float v) {
    host::cluster_check(at.address, 4, "st.shared::cluster");
    memcpy(at.address, &v, 4);
}
DEVICE void mbarrier_init(u64* barrier, u32 count) { host::mbarrier_init(barrier, count); }
DEVICE void mbarrier_init_fence() {}
DEVICE void mbarrier_arrive(u64* barrier, HOST_AT) {
    host::mbarrier_arrive(barrier, 1, 0, HOST_PLACE("mbarrier_arrive"));
}
DEVICE void mbarrier_arrive_cluster(ClusterAddress barrier, HOST_AT) {
    host::mbarrier_arrive(barrier.address, 1, 0, HOST_PLACE("mbarrier_arrive_cluster"));
}
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes, HOST_AT) {
    host::mbarrier_arrive(barrier, 1, bytes, HOST_PLACE("mbarrier_arrive_expect"));
}
DEVICE bool mbarrier_test(u64* barrier, u32 parity, HOST_AT) {
    return host::mbarrier_test(barrier, parity, HOST_PLACE("mbarrier_test"));
}
DEVICE bool mbarrier_test_cluster(u64* barrier, u32 parity, HOST_AT) {
    return host::mbarrier_test(barrier, parity, HOST_PLACE("mbarrier_test_cluster"));
}
DEVICE void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 4, barrier.address);
}
DEVICE void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 8, barrier.address);
}
DEVICE void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier) {
    host::store_async(to.address, &v, 16, barrier.address);
}
#elif ARCH >= 900
DEVICE u32 cluster_rank() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(r));
    return r;
}
DEVICE u32 cluster_size() {
    u32 r;
    asm volatile("mov.u32 %0, %%cluster_nctarank;" : "=r"(r));
    return r;
}
// All threads of the cluster, whole warps: arrive, then wait. Orders what was written before with what is read after;
// the relaxed form orders nothing, but costs no fence of the whole GPU.
DEVICE void cluster_arrive() { asm volatile("barrier.cluster.arrive.release.aligned;" ::: "memory"); }
DEVICE void cluster_arrive_relaxed() { asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory"); }
DEVICE void cluster_wait() { asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory"); }
// The place in block `rank` that corresponds to `p` in this block's shared memory.
DEVICE ClusterAddress map_cluster(const void* p, u32 rank) {
    u32 r;
    asm volatile("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(r) : "r"(shared_address(p)), "r"(rank));
    return ClusterAddress{r};
}
DEVICE float ld_cluster(ClusterAddress at) {
    float v;
    asm volatile("ld.shared::cluster.f32 %0, [%1];" : "=f"(v) : "r"(at.address) : "memory");
    return v;
}
DEVICE void st_cluster(ClusterAddress at, float v) {
    asm volatile("st.shared::cluster.f32 [%0], %1;" ::"r"(at.address), "f"(v) : "memory");
}
// A barrier in 8 bytes of shared memory. A phase completes when `count` threads have arrived and as many bytes as they
// announced have been stored by `st_async`; then the next begins. The phases' parities are 0, 1, 0, …
DEVICE void mbarrier_init(u64* barrier, u32 count) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(count) : "memory");
}
// Makes initialised barriers visible to the cluster; a cluster barrier must follow.
DEVICE void mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
DEVICE void mbarrier_arrive(u64* barrier) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
DEVICE void mbarrier_arrive_cluster(ClusterAddress barrier) {
    asm volatile("mbarrier.arrive.release.cluster.shared::cluster.b64 _, [%0];" ::"r"(barrier.address) : "memory");
}
// Arrives and announces `bytes` bytes for this phase.
DEVICE void mbarrier_arrive_expect(u64* barrier, u32 bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
                 : "memory");
}
// Whether the phase with this parity is complete; may wait for a while in hardware. The plain form orders what st_async
// and threads of this block wrote; the other one also orders plain stores of other blocks, for an L1 invalidate.
DEVICE bool mbarrier_test(u64* barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    return done != 0;
}
DEVICE bool mbarrier_test_cluster(u64* barrier, u32 parity) {
    u32 done;
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.acquire.cluster.shared::cta.b64 p, [%1], %2; "
                 "selp.u32 %0, 1, 0, p; }"
                 : "=r"(done) : "r"(shared_address(barrier)), "r"(parity) : "memory");
    return done != 0;
}
// Stores into another block's shared memory, counted by a barrier of that same block. Aligned to the size.
DEVICE void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(to.address), "r"(v),
                 "r"(barrier.address) : "memory");
}
DEVICE void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v2.b32 [%0], {%1,%2}, [%3];" ::"r"(to.address),
                 "r"(v.x), "r"(v.y), "r"(barrier.address) : "memory");
}
DEVICE void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier) {
    asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32 [%0], {%1,%2,%3,%4}, [%5];"
                 ::"r"(to.address), "r"(v.x), "r"(v.y), "r"(v.z), "r"(v.w), "r"(barrier.address) : "memory");
}
#else
__device__ u32 cluster_rank();
__device__ u32 cluster_size();
__device__ void cluster_arrive();
__device__ void cluster_arrive_relaxed();
__device__ void cluster_wait();
__device__ ClusterAddress map_cluster(const void* p, u32 rank);
__device__ float ld_cluster(ClusterAddress at);
__device__ void st_cluster(ClusterAddress at, float v);
__device__ void mbarrier_init(u64* barrier, u32 count);
__device__ void mbarrier_init_fence();
__device__ void mbarrier_arrive(u64* barrier);
__device__ void mbarrier_arrive_cluster(ClusterAddress barrier);
__device__ void mbarrier_arrive_expect(u64* barrier, u32 bytes);
__device__ bool mbarrier_test(u64* barrier, u32 parity);
__device__ bool mbarrier_test_cluster(u64* barrier, u32 parity);
__device__ void st_async4(ClusterAddress to, u32 v, ClusterAddress barrier);
__device__ void st_async8(ClusterAddress to, uint2 v, ClusterAddress barrier);
__device__ void st_async16(ClusterAddress to, uint4 v, ClusterAddress barrier);
#endif
