// primitives/numbers.cuh - storage types, conversions between them, and functions of numbers.
//
// Elements are f32, f64, f16 and bf16; TF32 is an f32 that was rounded. Conversions give the same bits on the device and on the host,
// as do random bits; functions are within the errors that stand beside them.
#pragma once
#include "primitives/target.cuh"

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
