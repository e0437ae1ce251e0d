// gemm_sum.cu - what products with more than one piece of k come to: sums over the pieces, in a fixed order.
//
// Math       c (+)= alpha times the sum over s of partial[s], in the order of s, and the bias.
// Reads      partial A [count, splits, m, n], as the kernels of products leave it; the bias.
// Writes     c as Rows, elements or accumulators.
// Launch     grid (min(ceil(m n / 256), 65535), 1, min(count, 65535)), block 256; a thread has one number of c at a time, adjacent
//            threads adjacent ones.
// Numerics   Sums in the accumulator type, one rounding to c's: the same bits every time.
// Oracle     A product in double: tests of src/backend/cuda/kernel/gemm.rs; tests/operator/operations/products.rs.
#pragma once
#include "gemm.cuh"

template <class E> DEVICE void sum_pieces(const GemmParams& p) {
    using V = accumulator_t<E>;
    for (u32 z = blockIdx.z; z < p.count; z += gridDim.z) {
        const GemmPiece<E> piece(p, z * p.splits);
        const GemmProblem& problem = piece.problem;
        const Rows c = piece.c();
        void* const to = const_cast<void*>(c.data);
        const V* const partial = static_cast<const V*>(piece.result().data);
        const V alpha = V(p.alpha);
        for (u32 i = blockIdx.x * blockDim.x + threadIdx.x; i < problem.m * problem.n; i += gridDim.x * blockDim.x) {
            V sum = V(0);
#pragma unroll 4
            for (u32 s = 0; s < p.splits; ++s) sum += partial[s * p.partial_apart + i];
            const u32 m = i / problem.n, n = i % problem.n;
            const u64 at = row_offset(c, m) + n;
            const V result = fused_multiply_add(alpha, sum, piece.bias_of_c(n));
            if (p.wide) {
                store_or_add<V>(to, at, result, p.accumulate);
            } else {
                store_or_add<E>(to, at, result, p.accumulate);
            }
        }
    }
}
