// reduce.cu - gradients of biases and peepholes: sums over all steps and sequences, in a fixed order.
//
// Math       bias: out[j] (+)= sum over rows r of da[r, j]; peepholes: sums of da_i * c_prev, da_f * c_prev, da_o * c.
// Stages     The rows fall into `pieces` equal runs. A block sums one run for 32 columns: warp w takes rows w, w + 8, ... of the run,
//            lane l column l (so that reads are of whole lines), and the eight partial sums are added in the order of the warps.
//            sum_partials then adds the runs in their order. No thread adds more than rows / (8 * pieces) numbers one by one.
// Launch     bias_gradient, peephole_gradient: grid (ceil(columns / 32), pieces), block 256, 1024 * sizeof(A) / 4 bytes of shared
//            memory; sum_partials: grid (min(ceil(len / 256), 65535)), block 256.
// Reads      Gates' gradients, which are zero past a sequence's length; what a reset there would say does not matter then.
// Numerics   Sums in the accumulator type; one rounding to E at the end.
// Oracle     src/backend/reference/, tests of the whole pass.
#include "cells/lstm.cuh"
#include "sequence.cuh"

// Adds `value` of the eight warps of a block in the order of the warps, lane by lane; the sum is warp 0's.
template <class V> DEVICE V sum_over_warps(V value) {
    SHARED(V, sums);
    sums[threadIdx.x] = value;
    __syncthreads();
    V total = sums[threadIdx.x % 32];
    for (u32 w = 1; w < 8; ++w) total += sums[w * 32 + threadIdx.x % 32];
    return total;
}

DEVICE u32 piece_begin(u32 rows, u32 pieces, u32 piece) { return u32(u64(rows) * piece / pieces); }

template <class E> DEVICE void bias_gradient(const BiasGradientParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * 32 + threadIdx.x % 32;
    const u32 end = piece_begin(p.row_count, p.pieces, blockIdx.y + 1);
    V sum = V(0);
    if (column < p.columns) {
        for (u32 r = piece_begin(p.row_count, p.pieces, blockIdx.y) + threadIdx.x / 32; r < end; r += 8) {
            sum += load<E>(p.rows.data, row_offset(p.rows, r) + column);
        }
    }
    const V total = sum_over_warps(sum);
    if (threadIdx.x < 32 && column < p.columns) {
        static_cast<V*>(p.partial)[u64(blockIdx.y) * p.columns + column] = total;
    }
}

template <class E> DEVICE void peephole_gradient(const PeepholeGradientParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 H = p.hidden_size, rows = p.seq_len * p.batch;
    const u32 column = blockIdx.x * 32 + threadIdx.x % 32;  // of [3, H]: peephole, unit
    const u32 end = piece_begin(rows, p.pieces, blockIdx.y + 1);
    V sum = V(0);
    if (column < 3 * H) {
        const u32 peephole = column / H, j = column % H;
        const u32 gate = peephole == 0 ? Lstm::I : peephole == 1 ? Lstm::F : Lstm::O;
        for (u32 r = piece_begin(rows, p.pieces, blockIdx.y) + threadIdx.x / 32; r < end; r += 8) {
            const u32 t = r / p.batch, b = r % p.batch, step = p.reverse ? p.seq_len - 1 - t : t;
            const V* const cell_state = static_cast<const V*>(p.cell_state);
            V c;
            if (gate == Lstm::O) {
                c = cell_state[u64(r) * H + j];
            } else if (step == 0) {
                c = load_start_c<E>(p, u64(b) * H + j);
            } else if (starts_anew(nullptr, p.resets, p.batch, step, t, b)) {
                c = load_or_zero<E>(p.c0, u64(b) * H + j);
            } else {
                c = cell_state[(u64(time_of(p.reverse, p.seq_len, step - 1)) * p.batch + b) * H + j];
            }
            sum += load<E>(p.dgates, (u64(r) * 4 + gate) * H + j) * c;
        }
    }
    const V total = sum_over_warps(sum);
    if (threadIdx.x < 32 && column < 3 * H) static_cast<V*>(p.partial)[u64(blockIdx.y) * 3 * H + column] = total;
}

template <class E> DEVICE void sum_partials(const SumPartialsParams& p) {
    using V = typename Accumulator<E>::type;
    for (u64 i = u64(blockIdx.x) * blockDim.x + threadIdx.x; i < p.len; i += u64(gridDim.x) * blockDim.x) {
        V sum = V(0);
        for (u32 s = 0; s < p.count; ++s) sum += static_cast<const V*>(p.partial)[s * p.stride + i];
        const V scaled = V(p.alpha) * sum;
        store<E>(p.out, i, p.accumulate ? load<E>(p.out, i) + scaled : scaled);
    }
}
