// primitives/tensor_cores.cuh - how fragments are loaded from shared memory, and products of fragments.
//
// Numerics  Operands of 16 bits or TF32, products and sums in f32; the order of sums inside an mma is the hardware's, on the host that
//           of k.
#pragma once
#include "primitives/memory.cuh"
#include "primitives/numbers.cuh"
#include "primitives/target.cuh"

// ---- fragments ------------------------------------------------------------------------------------------------------

#if !ON_DEVICE
namespace host {
// Four 8x8 matrices for the whole warp; `element` says which element of a matrix, row * 8 + column, is half `h` of lane l's register.
template <class Element> inline void load_matrices(u32 (&r)[4], const void* row, Place place, Element) {
    struct Operand { const void* row; u32* r; } mine{row, r};
    collective(
        FULL_WARP, &mine,
        [](void* const (&lanes)[32]) {
            for (int i = 0; i < 32; ++i) {
                if (!lanes[i]) fail("ldmatrix: lane %d is missing", i);
                const auto address = reinterpret_cast<uintptr_t>(static_cast<Operand*>(lanes[i])->row);
                if (address % 16) fail("ldmatrix: lane %d's row is not aligned to 16 bytes", i);
            }
            for (int i = 0; i < 32; ++i)
                for (int j = 0; j < 4; ++j)
                    for (int h = 0; h < 2; ++h) {
                        const int element = Element::of(i, h);
                        const auto* row = static_cast<const u8*>(static_cast<Operand*>(lanes[j * 8 + element / 8])->row);
                        memcpy(reinterpret_cast<u8*>(static_cast<Operand*>(lanes[i])->r + j) + 2 * h, row + element % 8 * 2, 2);
                    }
        },
        place);
}
struct AsStored {
    static int of(int lane, int half) { return lane / 4 * 8 + lane % 4 * 2 + half; }
};
struct Transposed {
    static int of(int lane, int half) { return (lane % 4 * 2 + half) * 8 + lane / 4; }
};
}  // namespace host
#endif

// Four 8x8 matrices of 16-bit elements: lane i gives the address of row i % 8 of matrix i / 8, 16 bytes in shared
// memory; register j of lane l becomes elements 2 * (l % 4) and the next of row l / 4 of matrix j.
DEVICE void ldmatrix_x4(u32 (&r)[4], const void* row) {
#if ON_DEVICE
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
#else
    host::load_matrices(r, row, host::Place{"ldmatrix_x4", __FILE__, __LINE__}, host::AsStored{});
#endif
}
// The same of the transposed matrices: elements of column l / 4, rows 2 * (l % 4) and the next.
DEVICE void ldmatrix_x4_transposed(u32 (&r)[4], const void* row) {
#if ON_DEVICE
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(shared_address(row)) : "memory");
#else
    host::load_matrices(r, row, host::Place{"ldmatrix_x4_transposed", __FILE__, __LINE__}, host::Transposed{});
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
