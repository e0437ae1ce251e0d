// segments.cu - what is done between the segments of a sequence whose training keeps checkpoints over time.
//
// Math       copy_rows: to = from, or += ; zeros where from is null. segment_lengths: out = clamp(length - first, 0, steps).
//            hold_state: rows = state at steps past the lengths; add_held: state += those rows, from the last step to the first.
//            Where a step is reset, restart_states: to = from, or zero where that is null; restart_gradients: to += from, from = 0.
// Reads      from E, of restart_gradients A; lengths u32 [B]; resets u8 [steps, B]; state E [B, columns]; of add_held rows
//            E [steps, B, columns].
// Writes     to E, of restart_states where `wide` and of restart_gradients A; out u32 [B]; of hold_state rows E, of add_held state A.
// Launch     copy_rows: grid (ceil(columns / 128), min(rows, 65535)), block 128. segment_lengths: grid (ceil(B / 128)), block 128.
//            The others: grid (ceil(columns / 128), min(B, 65535)), block 128; a thread owns a column of a sequence.
// Numerics   Sums in the accumulator type, rounded to E once.
// Saved      Nothing.
// Oracle     src/backend/checkpoints/host.rs, tests/operator/backends/memory.rs.
#include "sequence.cuh"

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
        V* const own = static_cast<V*>(p.state) + (u64(b) * p.columns + column);
        V sum = *own;
        for (u32 t = p.steps; t > p.lengths[b]; --t) sum += load<E>(p.rows, (u64(t - 1) * p.batch + b) * p.columns + column);
        *own = sum;
    }
}

template <class E> DEVICE void restart_states(const RestartParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        if (!is_reset(p.resets, p.batch, p.step, b) || !is_valid(p.lengths, p.step, b)) continue;
        const u64 own = u64(b) * p.columns + column;
        const V value = load_or_zero<E>(p.from, own);
        if (p.wide) static_cast<V*>(p.to)[own] = value;
        else store<E>(p.to, own, value);
    }
}

template <class E> DEVICE void restart_gradients(const RestartParams& p) {
    using V = typename Accumulator<E>::type;
    const u32 column = blockIdx.x * blockDim.x + threadIdx.x;
    if (column >= p.columns) return;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        if (!is_reset(p.resets, p.batch, p.step, b) || !is_valid(p.lengths, p.step, b)) continue;
        const u64 own = u64(b) * p.columns + column;
        static_cast<V*>(p.to)[own] += static_cast<V*>(p.from)[own];
        static_cast<V*>(p.from)[own] = V(0);
    }
}
