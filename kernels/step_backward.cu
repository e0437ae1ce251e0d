// step_backward.cu - the elementwise half of a backward step (step family).
//
// Math       Each cell's derivative as in src/cell/*.rs. Steps run from the last to the first. A step starts with dh, the gradient
//            of the output it leaves behind as far as later steps contribute, adds dy, and ends with the gradients of its gates and
//            with the part of the gradient of h_prev that needs no product; gemm.cu adds R^T da to that before the step before.
// Reads      what forward saved (gates, cell_state, q, h_prev), dy, dhn, dcn, c0, peepholes, lengths, resets; in second phases
//            du (projection) or dq (GRU, reset before).
// Writes     dgates (zero at steps past a sequence's length), dh, dc, dh_reset, dc_reset; dh_step with a projection; at the end dh0, dc0.
// Launch     begin_backward, step_backward for every step, finish_backward; grid (ceil(columns / 128), min(B, 65535), D), block 128.
//            A thread owns (unit or output j, sequence b) and loops over sequences b, b + gridDim.y, ...
// Numerics   The accumulator type throughout; dgates and dh_step, which are operands of products, round once to E.
// Oracle     src/backend/reference.rs.
#include "cells/gru.cuh"
#include "cells/lstm.cuh"
#include "cells/rnn.cuh"
#include "sequence.cuh"

// dh, dc from the gradients of the final states; nothing has been sent to the initial ones yet.
template <class E> DEVICE void begin_backward(const BackwardParams& p) {
    using V = typename Accumulator<E>::type;
    const BackwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        if (j < p.output_size) {
            const u64 i = u64(b) * p.output_size + j;
            static_cast<V*>(d.dh)[i] = load_or_zero<E>(d.dhn, i);
            static_cast<V*>(d.dh_reset)[i] = V(0);
        }
        if (j < p.hidden_size && d.dc != nullptr) {
            const u64 i = u64(b) * p.hidden_size + j;
            static_cast<V*>(d.dc)[i] = load_or_zero<E>(d.dcn, i);
            static_cast<V*>(d.dc_reset)[i] = V(0);
        }
    }
}

// dh0, dc0: what is left after the first step, and what resets sent there.
template <class E> DEVICE void finish_backward(const BackwardParams& p) {
    using V = typename Accumulator<E>::type;
    const BackwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) {
        // A reset at the first step changes nothing: it starts from the initial state anyway.
        if (j < p.output_size && d.dh0 != nullptr) {
            const u64 i = u64(b) * p.output_size + j;
            store<E>(d.dh0, i, static_cast<const V*>(d.dh)[i] + static_cast<const V*>(d.dh_reset)[i]);
        }
        if (j < p.hidden_size && d.dc0 != nullptr) {
            const u64 i = u64(b) * p.hidden_size + j;
            store<E>(d.dc0, i, static_cast<const V*>(d.dc)[i] + static_cast<const V*>(d.dc_reset)[i]);
        }
    }
}

// Element i of a carried gradient, `carry`, at the step that left it behind: if the step after started anew, it belongs to the
// initial state, and nothing of it reaches this step.
template <class V>
DEVICE V take_carried(const BackwardParams& p, const BackwardDirection& d, u32 step, u32 b, const void* carry,
                      void* reset, u64 i) {
    const V carried = static_cast<const V*>(carry)[i];
    if (step + 1 == p.seq_len) return carried;
    const u32 next = time_of(d.reverse, p.seq_len, step + 1);
    if (!starts_anew(p.lengths, p.resets, p.batch, step + 1, next, b)) return carried;
    static_cast<V*>(reset)[i] += carried;
    return V(0);
}

// Gradient of output j of this step, dy included; where the step is past the sequence's length, that of the state it passes on.
template <class E>
DEVICE typename Accumulator<E>::type take_dh(const BackwardParams& p, const BackwardDirection& d, u32 step, u32 t,
                                             u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const V carried = take_carried<V>(p, d, step, b, d.dh, d.dh_reset, u64(b) * p.output_size + j);
    // Past the length y is zero, or in the forward direction under `hold` the last valid output again.
    const bool counts = is_valid(p.lengths, t, b) || (p.hold && !d.reverse);
    return counts ? carried + load_or_zero<E>(d.dy, t * p.dy_time_stride + b * p.dy_batch_stride + j) : carried;
}

template <class E>
DEVICE void step_cell(Rnn, const StepBackwardParams& s, const BackwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const BackwardParams& p = s.layer;
    const u64 row = u64(t) * p.batch + b, own = u64(b) * p.hidden_size + j;
    const V dh = take_dh<E>(p, d, s.step, t, b, j);
    const bool valid = is_valid(p.lengths, t, b);
    V da = V(0);
    if (valid) {
        const V saved = static_cast<const V*>(d.gates)[row * p.hidden_size + j];
        da = rnn_backward(GeneralFunctions<V>{d.cell, p.save}, saved, dh);
    }
    store<E>(d.dgates, row * p.hidden_size + j, da);
    static_cast<V*>(d.dh)[own] = valid ? V(0) : dh;
}

template <class E>
DEVICE void step_cell(Lstm, const StepBackwardParams& s, const BackwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const BackwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    const u64 row = u64(t) * p.batch + b, own = u64(b) * H + j;
    const bool valid = is_valid(p.lengths, t, b);
    if (s.phase == PHASE_FIRST) {  // j is an output; u comes after the product with W_hr
        const V dh = take_dh<E>(p, d, s.step, t, b, j);
        store<E>(d.dh_step, row * p.output_size + j, valid ? dh : V(0));
        static_cast<V*>(d.dh)[u64(b) * p.output_size + j] = valid ? V(0) : dh;
        return;
    }
    V du;
    if (s.phase == PHASE_SECOND) {
        du = static_cast<const V*>(d.du)[own];
    } else {
        du = take_dh<E>(p, d, s.step, t, b, j);
        static_cast<V*>(d.dh)[own] = valid ? V(0) : du;
    }
    V dc = take_carried<V>(p, d, s.step, b, d.dc, d.dc_reset, own);
    V da[4] = {V(0), V(0), V(0), V(0)};
    if (valid) {
        const V* const cell_state = static_cast<const V*>(d.cell_state);
        V saved[4], c_prev;
#pragma unroll
        for (u32 k = 0; k < 4; ++k) saved[k] = static_cast<const V*>(d.gates)[(row * 4 + k) * H + j];
        if (starts_anew(p.lengths, p.resets, p.batch, s.step, t, b)) {
            c_prev = load_or_zero<E>(d.c0, own);
        } else {
            c_prev = cell_state[(u64(time_of(d.reverse, p.seq_len, s.step - 1)) * p.batch + b) * H + j];
        }
        lstm_backward(GeneralFunctions<V>{d.cell, p.save}, saved, load_peephole<E, V>(d.peephole, H, j), c_prev,
                      cell_state[row * H + j], du, dc, da);
    }
#pragma unroll
    for (u32 k = 0; k < 4; ++k) store<E>(d.dgates, (row * 4 + k) * H + j, da[k]);
    static_cast<V*>(d.dc)[own] = dc;
}

template <class E>
DEVICE void step_cell(Gru, const StepBackwardParams& s, const BackwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const BackwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    const u64 row = u64(t) * p.batch + b, own = u64(b) * H + j;
    const V* const gates = static_cast<const V*>(d.gates) + row * 3 * H;
    const u64 dgates = row * 4 * H + j;
    const bool valid = is_valid(p.lengths, t, b);
    const GeneralFunctions<V> functions{d.cell, p.save};
    const V h_prev = load<E>(d.h_prev, (u64(t) * p.rows + b) * p.h_prev_stride + j);
    V r = V(0), slope_r = V(0);
    if (valid) functions.saved_gate(gates[Gru::R * H + j], r, slope_r);
    if (s.phase == PHASE_SECOND) {  // reset before: dq = R_n^T da_n is known now
        const V dq = valid ? static_cast<const V*>(d.dq)[own] : V(0);
        store<E>(d.dgates, dgates + Gru::SLOT_R * H, valid ? h_prev * dq * slope_r : V(0));
        static_cast<V*>(d.dh)[own] += r * dq;
        return;
    }
    const V dh = take_dh<E>(p, d, s.step, t, b, j);
    GruGradient<V> g{V(0), V(0), dh};
    V dq = V(0), da_r = V(0);
    if (valid) {
        g = gru_backward(functions, gates[Gru::Z * H + j], gates[Gru::N * H + j], h_prev, dh);
        if (s.phase == PHASE_WHOLE) {
            dq = r * g.da_n;
            da_r = static_cast<const V*>(d.q)[row * H + j] * g.da_n * slope_r;
        }
    }
    store<E>(d.dgates, dgates + Gru::SLOT_N * H, g.da_n);
    store<E>(d.dgates, dgates + Gru::SLOT_Z * H, g.da_z);
    if (s.phase == PHASE_WHOLE) {
        store<E>(d.dgates, dgates + Gru::SLOT_R * H, da_r);
        store<E>(d.dgates, dgates + Gru::SLOT_Q * H, dq);
    }
    static_cast<V*>(d.dh)[own] = g.dh_prev;
}

template <class Cell, class E> DEVICE void step_backward(const StepBackwardParams& s) {
    const BackwardParams& p = s.layer;
    const BackwardDirection& d = p.direction[blockIdx.z];
    const u32 columns = Cell::CELL_STATE && s.phase == PHASE_FIRST ? p.output_size : p.hidden_size;
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    const u32 t = time_of(d.reverse, p.seq_len, s.step);
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) step_cell<E>(Cell{}, s, d, t, b, j);
}
