// ended.cu - what the steps leave in which a tile of a persistent kernel takes no part: no sequence of it has begun yet, or all have ended.
//
// Math       The states stay as they are, y is zero or, in the forward direction under `hold`, the last output; backward the gradients of the
//            gates are zero, those of states stay, with dy of outputs that hold. As step_forward.cu and step_backward.cu at such steps.
// Reads      lengths. ended_forward: of the time before y, cell_state and of the first ended one h_prev; in a direction that has not begun h_prev of
//            its first step and c0. ended_backward: dy.
// Writes     For the times of a tile (`tile` sequences, as many as the persistent kernel's) from its longest length on: y; in training cell_state;
//            h_prev of the step that follows, where every time has a slot. ended_backward: dgates; dh += dy.
// Launch     grid (ceil(columns / 128), min(B, 65535), D), block 128. Columns: h_prev_stride forward, H backward. ended_forward after the time loop
//            of a forward direction, before that of a reverse one; ended_backward before either.
// Numerics   dh in float, dy added from the last time to the first.
// Saved      As step_forward.cu leaves it.
// Oracle     src/backend/reference/ through tests/operator/lengths.rs.
#include "sequence.cuh"

// The times that count of the tile that sequence b is in: those below the longest of its lengths.
DEVICE u32 longest_of_tile(const u32* lengths, u32 b, u32 tile, u32 batch, u32 seq_len) {
    const u32 first = b / tile * tile, end = min(first + tile, batch);
    u32 longest = 0;
    for (u32 other = first; other < end; ++other) longest = max(longest, lengths[other]);
    return min(longest, seq_len);
}

template <class E> DEVICE void ended_forward(const EndedForwardParams& e) {
    const ForwardParams& p = e.layer;
    const ForwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x, T = p.seq_len, H = p.hidden_size;
    if (d.reverse != e.reverse || j >= p.h_prev_stride) return;
    const bool real = j < H, every_step = p.slots == T;
    E* const h_prev = static_cast<E*>(d.h_prev);
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const u32 ended = longest_of_tile(p.lengths, b, e.tile, p.batch, T);
        if (ended == T) continue;
        const auto slot = [&](u32 t) { return (u64(t % p.slots) * p.rows + b) * p.h_prev_stride + j; };
        const auto output = [&](u32 t) { return t * p.y_time_stride + b * p.y_batch_stride + j; };
        const auto state = [&](u32 t) { return (u64(t) * p.batch + b) * H + j; };
        // The last output, which is what an ended step starts from; of sequences that have not begun, the initial state.
        E h = h_prev[slot(d.reverse ? T - 1 : every_step ? ended : 0)];
        if (real && !d.reverse && !every_step && p.hold && ended > 0) h = static_cast<const E*>(d.y)[output(ended - 1)];
        const bool with_c = real && p.save != SAVE_NOTHING && d.cell_state != nullptr;
        float c = 0.0f;
        if (with_c) {
            if (d.reverse || ended == 0) c = load_or_zero<E>(d.c0, u64(b) * H + j);
            else c = static_cast<const float*>(d.cell_state)[state(ended - 1)];
        }
        for (u32 t = ended; t < T; ++t) {
            if (real) static_cast<E*>(d.y)[output(t)] = p.hold && !d.reverse ? h : zero<E>();
            if (with_c) static_cast<float*>(d.cell_state)[state(t)] = c;
            const u32 following = d.reverse ? t - 1 : t + 1;  // beyond the last step there is none
            if (every_step && following < T) h_prev[slot(following)] = h;
        }
    }
}

template <class E> DEVICE void ended_backward(const EndedBackwardParams& e) {
    const BackwardParams& p = e.layer;
    const BackwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x, T = p.seq_len, H = p.hidden_size;
    if (j >= H) return;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        const u32 ended = longest_of_tile(p.lengths, b, e.tile, p.batch, T);
        if (ended == T) continue;
        for (u32 t = ended; t < T; ++t) {
            E* const dgates = static_cast<E*>(d.dgates) + (u64(t) * p.batch + b) * e.slots * H + j;
            for (u32 k = 0; k < e.slots; ++k) dgates[k * H] = zero<E>();
        }
        if (!p.hold || d.reverse || d.dy == nullptr) continue;
        float* const dh = static_cast<float*>(d.dh) + u64(b) * H + j;
        float sum = *dh;
        for (u32 t = T; t-- > ended;) sum += load<E>(d.dy, t * p.dy_time_stride + b * p.dy_batch_stride + j);
        *dh = sum;
    }
}
