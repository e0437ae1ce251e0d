// step_forward.cu - the elementwise half of a forward step (step family).
//
// Math       Each cell's equations as in src/cell/*.rs. The products W x (all steps) and R h (this step) come from gemm.cu.
// Reads      wx [T, B, G*H] (W x of this time), recurrent [B, G*H] (R h), biases, peepholes, h_prev, cell_state, c0,
//            h0, start_h, start_c, lengths, resets; with a projection, in its second phase, projected [B, P].
// Writes     y, h_prev of the next step, hn and cn after the last one; cell_state; in training gates as SavedGates says,
//            q, reset_h, u; see ForwardDirection and saved.cuh.
// Launch     begin_forward once, then step_forward for every step; grid (ceil(columns / 128), min(B, 65535), D), block 128.
//            A thread owns (unit or output j, sequence b) and loops over sequences b, b + gridDim.y, ...
// Numerics   Sums and functions in the accumulator type (float; double for f64); stored outputs round once to E.
// Backward   step_backward.cu reads what is saved here.
// Oracle     src/backend/reference/.
#include "saved.cuh"
#include "sequence.cuh"

// h_prev of the first step: start_h, h0 or zeros; rows and columns beyond the batch and the output size are zero.
template <class E> DEVICE void begin_forward(const ForwardParams& p) {
    const ForwardDirection& d = p.direction[blockIdx.z];
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= p.h_prev_stride) return;
    const u32 first = time_of(d.reverse, p.seq_len, 0);
    for (u32 b = blockIdx.y; b < p.rows; b += gridDim.y) {
        const bool inside = b < p.batch && j < p.output_size;
        store<E>(d.h_prev, (u64(first % p.slots) * p.rows + b) * p.h_prev_stride + j,
                 inside ? load_or_zero<E>(d.start_h != nullptr ? d.start_h : d.h0, u64(b) * p.output_size + j)
                        : typename Accumulator<E>::type(0));
    }
}

// Both biases of a row of the weights.
template <class E> DEVICE typename Accumulator<E>::type bias_of(const ForwardDirection& d, u32 row) {
    return load_or_zero<E>(d.bias_ih, row) + load_or_zero<E>(d.bias_hh, row);
}

// Row (time or 0, b) of a tensor that training keeps of every step and inference of the last one only.
DEVICE u64 kept_row(const ForwardParams& p, u32 t, u32 b) { return (p.save == SAVE_NOTHING ? 0 : u64(t) * p.batch) + b; }

// The step of unit j (or output j, where a projection comes second) of sequence b. What a step past the sequence's length would
// compute is not computed: the states stay as they are.
template <class Cell, class E> DEVICE void step_unit(const StepForwardParams& s, const ForwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    constexpr int G = Cell::GATES, S = Cell::STATES, N = G - 1;
    const ForwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    if (Cell::PROJECTION && s.phase == PHASE_SECOND) {
        store_output<E>(p, d, s.step, t, b, j, static_cast<const V*>(d.projected)[u64(b) * p.output_size + j]);
        return;
    }
    const u64 row = u64(t) * p.batch + b;
    const V* const wx = static_cast<const V*>(d.wx) + row * G * H + j;
    V* const gates = static_cast<V*>(d.gates) + row * G * H + j;
    const V* const recurrent = static_cast<const V*>(d.recurrent) + u64(b) * G * H + j;
    V* const states = static_cast<V*>(d.cell_state);
    const GeneralFunctions<V> functions{d.cell, p.save};
    UnitForward<V> u{};
    u.apart = Cell::SPLIT && s.phase == PHASE_WHOLE;
    if (S > 0) {
        const bool anew = starts_anew(p.lengths, p.resets, p.batch, s.step, t, b);
        const u32 before = anew ? 0 : time_of(d.reverse, p.seq_len, s.step - 1);
#pragma unroll
        for (int k = 0; k < S; ++k) {
            const u64 own = (u64(b) * S + k) * H + j;
            u.state[k] = s.step == 0 ? load_start_c<E>(d, own)
                         : anew      ? load_or_zero<E>(d.c0, own)
                                     : states[(kept_row(p, before, b) * S + k) * H + j];
        }
    }
    const bool valid = is_valid(p.lengths, t, b);
    if (valid) {
        if (Cell::READS_H) u.h = load_h_prev<E>(p, d, t, b, j);
        load_peepholes<Cell, E>(d.peephole, H, j, u);
#pragma unroll
        for (int k = 0; k < G; ++k) {
            if (Cell::SPLIT && k == N) continue;
            u.a[k] = wx[k * H] + recurrent[k * H] + bias_of<E>(d, k * H + j);
        }
        if (Cell::SPLIT && s.phase != PHASE_FIRST) {
            const V input = wx[N * H] + load_or_zero<E>(d.bias_ih, N * H + j);
            const V product = recurrent[N * H] + load_or_zero<E>(d.bias_hh, N * H + j);
            u.a[N] = u.apart ? input : input + product;
            u.q = product;
        }
        Cell::first(functions, u);
        if (Cell::SPLIT && s.phase == PHASE_FIRST) {
            store<E>(d.reset_h, kept_row(p, t, b) * H + j, u.q);
            return;
        }
        if (Cell::SPLIT && u.apart && p.save != SAVE_NOTHING && p.save != SAVE_PACKED) static_cast<V*>(d.q)[row * H + j] = u.q;
        Cell::rest(functions, u);
        if (p.save == SAVE_PACKED) {
            if constexpr (PACKED<Cell, E>) {
                static_cast<uint2*>(d.gates)[row * H + j] = SavedPiece<Cell>::pack(u.gate, u.apart ? u.q : V(0));
            }
        } else if (p.save != SAVE_NOTHING) {
#pragma unroll
            for (int k = 0; k < G; ++k) gates[k * H] = p.save == SAVE_ACTIVATED ? u.gate[k] : u.a[k];
        }
    }
#pragma unroll
    for (int k = 0; k < S; ++k) {
        states[(kept_row(p, t, b) * S + k) * H + j] = u.state[k];
        if (s.step + 1 == p.seq_len && d.cn != nullptr) store<E>(d.cn, (u64(b) * S + k) * H + j, u.state[k]);
    }
    if (Cell::PROJECTION && s.phase == PHASE_FIRST) {
        store<E>(d.u, kept_row(p, t, b) * H + j, u.h);
    } else if (!(Cell::SPLIT && s.phase == PHASE_FIRST)) {
        store_output<E>(p, d, s.step, t, b, j, u.h);
    }
}

template <class Cell, class E> DEVICE void step_forward(const StepForwardParams& s) {
    const ForwardParams& p = s.layer;
    const ForwardDirection& d = p.direction[blockIdx.z];
    const u32 columns = Cell::PROJECTION && s.phase == PHASE_SECOND ? p.output_size : p.hidden_size;
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    const u32 t = time_of(d.reverse, p.seq_len, s.step);
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) step_unit<Cell, E>(s, d, t, b, j);
}
