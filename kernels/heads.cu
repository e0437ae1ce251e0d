// heads.cu - products with recurrent weights in heads: R is block-diagonal, [gates, heads, N, N] with N = H / heads (step family).
//
// Math       forward:  out[b, g*H + k*N + i] = sum_m R[g, k, i, m] v[b, k*N + m]
//            backward: out[b, k*N + m] (+)= sum_g sum_i R[g, k, i, m] d[b, g*H + k*N + i]
//            weights:  partial[piece, g, k, i, m] = sum over rows r of the piece of d[r, g*H + k*N + i] v[r, k*N + m]
// Reads      v: h_prev, reset_h; d: gradients of gates, in dgates; R: weight_hh. In `weights`, rows at times past a sequence's length
//            count as zero whatever they hold.
// Writes     forward, backward: A [B, ..]; weights: A [pieces, gates * H * N], for sum_partials.
// Launch     forward, backward: grid (ceil(gates * H / 128) or ceil(H / 128), ceil(B / 4) up to 65535, D), block 128: a thread owns a row
//            (or column) of R, for four sequences at a time, so that R is read once for four; weights: grid (ceil(gates * H * N / 128),
//            pieces), block 128: a thread owns an element.
// Numerics   Sums in the accumulator type, in the order of the indices: the same bits every time.
// Oracle     src/backend/reference/, tests/operator/backends/.
#include "sequence.cuh"

constexpr u32 HEAD_SEQUENCES = 4;

template <class E> DEVICE void head_product(const HeadProductParams& p) {
    using V = typename Accumulator<E>::type;
    const HeadProduct& d = p.direction[blockIdx.z];
    const u32 r = blockIdx.x * blockDim.x + threadIdx.x, N = p.head_size;
    if (r >= p.gates * p.hidden_size) return;
    const u32 first = r % p.hidden_size / N * N;  // of the head, in a vector
    for (u32 b = blockIdx.y * HEAD_SEQUENCES; b < p.batch; b += gridDim.y * HEAD_SEQUENCES) {
        const u32 count = min(HEAD_SEQUENCES, p.batch - b);
        V sums[HEAD_SEQUENCES] = {};
        for (u32 m = 0; m < N; ++m) {
            const V weight = load<E>(d.weights, u64(r) * N + m);
#pragma unroll
            for (u32 s = 0; s < HEAD_SEQUENCES; ++s) {
                if (s < count) sums[s] += weight * load<E>(d.vector, u64(b + s) * p.vector_stride + first + m);
            }
        }
#pragma unroll
        for (u32 s = 0; s < HEAD_SEQUENCES; ++s) {
            if (s < count) static_cast<V*>(d.out)[u64(b + s) * p.out_stride + r] = sums[s];
        }
    }
}

template <class E> DEVICE void head_product_transposed(const HeadProductParams& p) {
    using V = typename Accumulator<E>::type;
    const HeadProduct& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x, N = p.head_size, H = p.hidden_size;
    if (j >= H) return;
    const u32 first = j / N * N, column = j % N;
    for (u32 b = blockIdx.y * HEAD_SEQUENCES; b < p.batch; b += gridDim.y * HEAD_SEQUENCES) {
        const u32 count = min(HEAD_SEQUENCES, p.batch - b);
        V sums[HEAD_SEQUENCES] = {};
        for (u32 g = 0; g < p.gates; ++g) {
            for (u32 i = 0; i < N; ++i) {
                const V weight = load<E>(d.weights, (u64(g) * H + first + i) * N + column);
#pragma unroll
                for (u32 s = 0; s < HEAD_SEQUENCES; ++s) {
                    if (s < count) sums[s] += weight * load<E>(d.vector, u64(b + s) * p.vector_stride + g * H + first + i);
                }
            }
        }
#pragma unroll
        for (u32 s = 0; s < HEAD_SEQUENCES; ++s) {
            if (s >= count) continue;
            V& out = static_cast<V*>(d.out)[u64(b + s) * p.out_stride + j];
            out = p.accumulate ? out + sums[s] : sums[s];
        }
    }
}

template <class E> DEVICE void head_weights(const HeadWeightsParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 N = p.head_size;
    const u64 elements = u64(p.gates) * p.hidden_size * N, element = u64(blockIdx.x) * blockDim.x + threadIdx.x;
    if (element >= elements) return;
    const u32 row = u32(element / N), column = row % p.hidden_size / N * N + u32(element % N);
    const u32 begin = u32(u64(p.rows) * blockIdx.y / p.pieces), end = u32(u64(p.rows) * (blockIdx.y + 1) / p.pieces);
    V sum = V(0);
    for (u32 r = begin; r < end; ++r) {
        if (!is_valid(p.lengths, r / p.batch, r % p.batch)) continue;
        sum += load<E>(p.gradients.data, row_offset(p.gradients, r) + row) *
               load<E>(p.vector.data, row_offset(p.vector, r) + column);
    }
    static_cast<V*>(p.partial)[u64(blockIdx.y) * elements + element] = sum;
}
