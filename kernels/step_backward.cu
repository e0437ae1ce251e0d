// step_backward.cu - the elementwise half of a backward step (step family).
//
// Math       Each cell's derivative as in src/cell/*.rs. Steps run from the last to the first. A step starts with dh, the gradient
//            of the output it leaves behind as far as later steps contribute, adds dy, and ends with the gradients of its gates and
//            with the part of the gradient of h_prev that needs no product; gemm.cu adds R^T da to that before the step before.
// Reads      what forward saved (gates and q, see saved.cuh, cell_state, h_prev), dy, dhn, dcn, c0, start_c, peepholes, lengths, resets; in second phases
//            du (projection) or dq (GRU, reset before).
// Writes     dgates (zero at steps past a sequence's length), dh, dc, dh_reset, dc_reset; dh_step with a projection; at the end dh0, dc0.
// Launch     begin_backward, step_backward for every step, finish_backward; grid (ceil(columns / 128), min(B, 65535), D), block 128.
//            A thread owns (unit or output j, sequence b) and loops over sequences b, b + gridDim.y, ...
// Numerics   The accumulator type throughout; dgates and dh_step, which are operands of products, round once to E.
// Oracle     src/backend/reference/.
#include "saved.cuh"
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
        for (u32 k = 0; j < p.hidden_size && k < p.other_states; ++k) {
            const u64 i = (u64(b) * p.other_states + k) * p.hidden_size + j;
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
        for (u32 k = 0; j < p.hidden_size && d.dc0 != nullptr && k < p.other_states; ++k) {
            const u64 i = (u64(b) * p.other_states + k) * p.hidden_size + j;
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

// The step of unit j (or output j, where a projection comes first) of sequence b. At a step past the sequence's length gradients of
// gates are zero, and those of states pass on.
template <class Cell, class E> DEVICE void step_unit(const StepBackwardParams& s, const BackwardDirection& d, u32 t, u32 b, u32 j) {
    using V = typename Accumulator<E>::type;
    constexpr int G = Cell::GATES, S = Cell::STATES, SLOTS = Cell::GRADIENT_SLOTS, N = G - 1;
    const BackwardParams& p = s.layer;
    const u32 H = p.hidden_size;
    const u64 row = u64(t) * p.batch + b, own = u64(b) * H + j;
    const bool valid = is_valid(p.lengths, t, b);
    if (Cell::PROJECTION && s.phase == PHASE_FIRST) {  // j is an output; u comes after the product with W_hr
        const V dh = take_dh<E>(p, d, s.step, t, b, j);
        store<E>(d.dh_step, row * p.output_size + j, valid ? dh : V(0));
        static_cast<V*>(d.dh)[u64(b) * p.output_size + j] = valid ? V(0) : dh;
        return;
    }
    const u64 dgates = row * SLOTS * H + j;
    const GeneralFunctions<V> functions{d.cell, p.save};
    UnitBackward<V> u{};
    u.apart = Cell::SPLIT && s.phase == PHASE_WHOLE;
    if (Cell::PROJECTION && s.phase == PHASE_SECOND) {
        u.dh = static_cast<const V*>(d.du)[own];
    } else if (Cell::SPLIT && s.phase == PHASE_SECOND) {
        u.dh = static_cast<const V*>(d.dh)[own];  // the first phase has left it there
        u.dq = static_cast<const V*>(d.dq)[own];
    } else {
        u.dh = take_dh<E>(p, d, s.step, t, b, j);
    }
    if (valid) {
        if (p.save == SAVE_PACKED) {
            if constexpr (PACKED<Cell, E>) SavedPiece<Cell>::unpack(static_cast<const uint2*>(d.gates)[row * H + j], u.saved, u.q);
        } else {
#pragma unroll
            for (int k = 0; k < G; ++k) u.saved[k] = static_cast<const V*>(d.gates)[(row * G + k) * H + j];
            if (Cell::SPLIT && u.apart) u.q = static_cast<const V*>(d.q)[row * H + j];
        }
        if (Cell::READS_H) u.h_prev = load<E>(d.h_prev, (u64(t) * p.rows + b) * p.h_prev_stride + j);
    }
    if (Cell::SPLIT && s.phase == PHASE_FIRST) {
        store<E>(d.dgates, dgates + gradient_slot<Cell>(N) * H, valid ? Cell::candidate_gradient(functions, u) : V(0));
        static_cast<V*>(d.dh)[own] = u.dh;
        return;
    }
    if (S > 0) {
        const bool anew = starts_anew(p.lengths, p.resets, p.batch, s.step, t, b);
        const u64 before = anew ? 0 : u64(time_of(d.reverse, p.seq_len, s.step - 1)) * p.batch + b;
        const V* const states = static_cast<const V*>(d.cell_state);
#pragma unroll
        for (int k = 0; k < S; ++k) {
            u.dstate[k] = take_carried<V>(p, d, s.step, b, d.dc, d.dc_reset, (u64(b) * S + k) * H + j);
            if (!valid) continue;
            u.state[k] = states[(row * S + k) * H + j];
            u.state_prev[k] =
                s.step == 0 ? load_start_c<E>(d, (u64(b) * S + k) * H + j)
                : anew      ? load_or_zero<E>(d.c0, (u64(b) * S + k) * H + j)
                            : states[(before * S + k) * H + j];
        }
    }
    const V dh = u.dh;
    if (valid) {
        load_peepholes<Cell, E>(d.peephole, H, j, u);
        Cell::backward(functions, u);
    }
#pragma unroll
    for (int k = 0; k < G; ++k) store<E>(d.dgates, dgates + gradient_slot<Cell>(k) * H, u.da[k]);
    if (Cell::SPLIT && u.apart) store<E>(d.dgates, dgates + u64(G) * H, valid ? u.dq : V(0));
    if (!(Cell::PROJECTION && s.phase == PHASE_SECOND)) {
        static_cast<V*>(d.dh)[own] = !valid ? dh : Cell::READS_H ? u.dh : V(0);
    }
#pragma unroll
    for (int k = 0; k < S; ++k) static_cast<V*>(d.dc)[(u64(b) * S + k) * H + j] = u.dstate[k];
}

template <class Cell, class E> DEVICE void step_backward(const StepBackwardParams& s) {
    const BackwardParams& p = s.layer;
    const BackwardDirection& d = p.direction[blockIdx.z];
    const u32 columns = Cell::PROJECTION && s.phase == PHASE_FIRST ? p.output_size : p.hidden_size;
    const u32 j = blockIdx.x * blockDim.x + threadIdx.x;
    if (j >= columns) return;
    const u32 t = time_of(d.reverse, p.seq_len, s.step);
    for (u32 b = blockIdx.y; b < p.batch; b += gridDim.y) step_unit<Cell, E>(s, d, t, b, j);
}
