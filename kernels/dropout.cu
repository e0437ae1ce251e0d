// dropout.cu - the inter-layer dropout: masks from counters, the same bits as on every other backend.
//
// Math       out = x * scale where the element's 32 random bits are at or above `threshold`, else 0; bits from Philox4x32-10 keyed by
//            the call's seed and counted by (feature / 4, sequence, time, layer): src/rnn/dropout.rs.
// Launch     grid (ceil(features / 4 / 128), min(rows, 65535)), block 128; a thread owns four features of a row.
// Numerics   One multiplication in the accumulator type, rounded to E.
// Oracle     src/rnn/dropout.rs.
#include "sequence.cuh"

template <class E> DEVICE void dropout(const DropoutParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 block = blockIdx.x * blockDim.x + threadIdx.x;
    if (block * 4 >= p.features) return;
    for (u32 r = blockIdx.y; r < p.rows; r += gridDim.y) {
        u32 bits[4] = {block, r % p.batch, r / p.batch, p.layer};
        philox4x32(bits, p.seed);
        const u64 from = row_offset(p.x, r), to = u64(r) * p.features;
        for (u32 k = 0; k < 4 && block * 4 + k < p.features; ++k) {
            const u32 f = block * 4 + k;
            const bool keep = bits[k] >= p.threshold;
            store<E>(p.out, to + f, keep ? load<E>(p.x.data, from + f) * V(p.scale) : V(0));
        }
    }
}
