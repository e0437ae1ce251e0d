// step_forward.cu - the elementwise half of a forward step (step family).
//
// Math       Each cell's equations as in src/cell/*.rs. The products W x (all steps) and R h (this step) come from gemm.cu.
// Reads      gates [T, B, G*H] (W x of this time), recurrent [B, G*H] (R h), biases, peepholes, h_prev, cell_state, c0,
//            h0, lengths, resets; with a projection, in its second phase, projected [B, P].
// Writes     y, h_prev of the next step, hn and cn after the last one; cell_state; in training what SavedGates says over
//            `gates`, and q, reset_h, u; see ForwardDirection.
// Launch     begin_forward once, then step_forward for every step; grid (ceil(columns / 128), min(B, 65535), D), block 128.
//            A thread owns (unit or output j, sequence b) and loops over sequences b, b + gridDim.y, ...
// Numerics   Sums and functions in the accumulator type (float; double for f64); stored outputs round once to E.
// Backward   step_backward.cu reads what is saved here.
// Oracle     src/backend/reference.rs.
#include "cells/gru.cuh"
#include "cells/lstm.cuh"
#include "cells/rnn.cuh"
#include "sequence.cuh"

// h_prev of the first step: h0 or zeros; rows and columns beyond the batch and the output size are zero.
template <class E> DEVICE void begin_forward(const ForwardParams& p) {
    const ForwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= p.h_prev_stride) return;
    const u32 first = time_of(d.reverse, p.seq_len, 0);
    for (u32 b = blockIdx.y; b < p.rows; b += gridDim.y) {
        const bool inside = b < p.batch && j < p.output_size;
        store<E>(d.h_prev, (u64(first % p.slots) * p.rows + b) * p.h_prev_stride + j,
                 inside ? load_or_zero<E>(d.h0, u64(b) * p.output_size + j) : typename Accumulator<E>::type(0));
    }
}

// Both biases of a row of the weights.
template <class E> DEVICE typename Accumulator<E>::type bias_of(const ForwardDirection& d, u32 row) {
    return load_or_zero<E>(d.bias_ih, row) + load_or_zero<E>(d.bias_hh, row);
}

// Index of (time or 0, b, unit) in a tensor that training keeps of every step and inference of the last one only.
DEVICE u64 kept_index(const ForwardParams& p, u32 t, u32 b, u32 j) {
    return ((p.save == SAVE_NOTHING ? 0 : u64(t) * p.batch) + b) * p.hidden_size + j;
}

template <class E> DEVICE void step_cell(Rnn, const StepForwardParams& s, const ForwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const ForwardParams& p = s.layer;
    const u64 gate = (u64(t) * p.batch + b) * p.hidden_size + j;
    V* const gates = static_cast<V*>(d.gates);
    const V recurrent = static_cast<const V*>(d.recurrent)[u64(b) * p.hidden_size + j];
    const V a = gates[gate] + recurrent + bias_of<E>(d, j);
    const V h = rnn_forward(GeneralFunctions<V>{d.cell, p.save}, a);
    if (p.save != SAVE_NOTHING) gates[gate] = p.save == SAVE_ACTIVATED ? h : a;
    store_output<E>(p, d, s.step, t, b, j, h);
}

template <class E> DEVICE void step_cell(Lstm, const StepForwardParams& s, const ForwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const ForwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    if (s.phase == PHASE_SECOND) {
        store_output<E>(p, d, s.step, t, b, j, static_cast<const V*>(d.projected)[u64(b) * p.output_size + j]);
        return;
    }
    const u64 row = u64(t) * p.batch + b;
    V* const gates = static_cast<V*>(d.gates) + row * 4 * H;
    const V* const recurrent = static_cast<const V*>(d.recurrent) + u64(b) * 4 * H;
    V* const cell_state = static_cast<V*>(d.cell_state);
    V c_prev;
    if (starts_anew(p.lengths, p.resets, p.batch, s.step, t, b)) {
        c_prev = load_or_zero<E>(d.c0, u64(b) * H + j);
    } else {
        c_prev = cell_state[kept_index(p, time_of(d.reverse, p.seq_len, s.step - 1), b, j)];
    }
    const bool valid = is_valid(p.lengths, t, b);
    LstmUnit<V> unit{};
    unit.c = c_prev;
    if (valid) {
        V a[4];
#pragma unroll
        for (u32 k = 0; k < 4; ++k) a[k] = gates[k * H + j] + recurrent[k * H + j] + bias_of<E>(d, k * H + j);
        unit = lstm_forward(GeneralFunctions<V>{d.cell, p.save}, a, load_peephole<E, V>(d.peephole, H, j), c_prev);
        if (p.save != SAVE_NOTHING) {
#pragma unroll
            for (u32 k = 0; k < 4; ++k) gates[k * H + j] = p.save == SAVE_ACTIVATED ? unit.gate[k] : unit.a[k];
        }
    }
    cell_state[kept_index(p, t, b, j)] = unit.c;
    if (s.step + 1 == p.seq_len && d.cn != nullptr) store<E>(d.cn, u64(b) * H + j, unit.c);
    if (s.phase == PHASE_FIRST) {
        store<E>(d.u, kept_index(p, t, b, j), unit.u);
    } else {
        store_output<E>(p, d, s.step, t, b, j, unit.u);
    }
}

template <class E> DEVICE void step_cell(Gru, const StepForwardParams& s, const ForwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    const ForwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    const u64 row = u64(t) * p.batch + b;
    V* const gates = static_cast<V*>(d.gates) + row * 3 * H;
    const V* const recurrent = static_cast<const V*>(d.recurrent) + u64(b) * 3 * H;
    const GeneralFunctions<V> functions{d.cell, p.save};
    const V h_prev = load_h_prev<E>(p, d, t, b, j);
    const V a_z = gates[Gru::Z * H + j] + recurrent[Gru::Z * H + j] + bias_of<E>(d, Gru::Z * H + j);
    V a_r = gates[Gru::R * H + j];  // in a second phase r itself, which the first one left there
    if (s.phase != PHASE_SECOND) a_r += recurrent[Gru::R * H + j] + bias_of<E>(d, Gru::R * H + j);
    if (s.phase == PHASE_FIRST) {
        const V r = functions.gate(a_r);
        gates[Gru::R * H + j] = p.save == SAVE_PRE_ACTIVATIONS ? a_r : r;
        store<E>(d.reset_h, kept_index(p, t, b, j), r * h_prev);
        return;
    }
    const V product = recurrent[Gru::N * H + j] + load_or_zero<E>(d.bias_hh, Gru::N * H + j);
    V r = V(0), state_term = product;
    if (s.phase == PHASE_WHOLE) {
        r = functions.gate(a_r);
        state_term = r * product;
    }
    const V a_n = gates[Gru::N * H + j] + load_or_zero<E>(d.bias_ih, Gru::N * H + j) + state_term;
    const V z = functions.gate(a_z), n = functions.state(a_n);
    if (p.save != SAVE_NOTHING) {
        const bool activated = p.save == SAVE_ACTIVATED;
        gates[Gru::Z * H + j] = activated ? z : a_z;
        gates[Gru::N * H + j] = activated ? n : a_n;
        if (s.phase == PHASE_WHOLE) {
            gates[Gru::R * H + j] = activated ? r : a_r;
            static_cast<V*>(d.q)[row * H + j] = product;
        }
    }
    store_output<E>(p, d, s.step, t, b, j, gru_output(z, n, h_prev));
}

template <class Cell, class E> DEVICE void step_forward(const StepForwardParams& s) {
    const ForwardParams& p = s.layer;
    const ForwardDirection& d = p.direction[blockIdx.z];
    const u32 columns = Cell::CELL_STATE && s.phase == PHASE_SECOND ? p.output_size : p.hidden_size;
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    const u32 t = time_of(d.reverse, p.seq_len, s.step);
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) step_cell<E>(Cell{}, s, d, t, b, j);
}
