// segments.cu - what is done between the segments of a sequence whose training keeps checkpoints over time.
//
// Math       copy_rows: to = from, or += ; zeros where from is null. segment_lengths: out = clamp(length - first, 0, steps).
//            hold_state: rows = state at steps past the lengths; add_held: state += those rows, summed over the steps in their order.
// Reads      from E; lengths u32 [B]; state E [B, columns], of add_held rows E [steps, B, columns].
// Writes     to E; out u32 [B]; of hold_state rows, of add_held state.
// Launch     copy_rows: grid (ceil(columns / 128), min(rows, 65535)), block 128. segment_lengths: grid (ceil(B / 128)), block 128.
//            The others: grid (ceil(columns / 128), min(B, 65535)), block 128; a thread owns a column of a sequence.
// Numerics   Sums in the accumulator type, rounded to E once.
// Saved      Nothing.
// Oracle     src/backend/checkpoints/host.rs, tests/operator/backends/memory.rs.
#include "params.cuh"

template <class E> DEVICE void copy_rows(const CopyRowsParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    void* const out = const_cast<void*>(p.to.data);
    for (u32 r = blockIdx.y; r < p.row_count; r += gridDim.y) {
        const V value = p.from.data == nullptr ? V(0) : load<E>(p.from.data, row_offset(p.from, r) + column);
        const u64 to = row_offset(p.to, r) + column;
        store<E>(out, to, p.accumulate ? load<E>(out, to) + value : value);
    }
}

// The same for every E, which only names the entry point.
template <class E> DEVICE void segment_lengths(const SegmentLengthsParams& p) {
    const u32 b = blockIdx.x * blockDim.x + threadIdx.x;
    if (b >= p.batch) return;
    const u32 left = p.lengths[b] > p.first ? p.lengths[b] - p.first : 0;
    p.out[b] = left < p.steps ? left : p.steps;
}

template <class E> DEVICE void hold_state(const HeldRowsParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const V state = load<E>(p.state, u64(b) * p.columns + column);
        for (u32 t = p.lengths[b]; t < p.steps; ++t) store<E>(p.rows, (u64(t) * p.batch + b) * p.columns + column, state);
    }
}

template <class E> DEVICE void add_held(const HeldRowsParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const u64 own = u64(b) * p.columns + column;
        V sum = load<E>(p.state, own);
        for (u32 t = p.lengths[b]; t < p.steps; ++t) sum += load<E>(p.rows, (u64(t) * p.batch + b) * p.columns + column);
        store<E>(p.state, own, sum);
    }
}
