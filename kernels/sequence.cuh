// sequence.cuh - which steps of which sequence count, and what state they start from: lengths, resets, directions.
//
// Shared by the step kernels and the persistent ones, so that these rules stand once on the device. The oracle has them a second
// time in src/backend/reference/.
#pragma once
#include "cell.cuh"

// Time of a step.
DEVICE u32 time_of(u32 reverse, u32 seq_len, u32 step) { return reverse ? seq_len - 1 - step : step; }

// Whether time t of sequence b is within its length.
DEVICE bool is_valid(const u32* lengths, u32 t, u32 b) { return lengths == nullptr || t < lengths[b]; }

// Whether time t of sequence b, which is valid, starts from the initial state because of a reset.
DEVICE bool is_reset(const u8* resets, u32 batch, u32 t, u32 b) {
    return resets != nullptr && resets[u64(t) * batch + b] != 0;
}

// Whether the state that time t starts from is the initial one: at the first step, and at resets of valid steps.
DEVICE bool starts_anew(const u32* lengths, const u8* resets, u32 batch, u32 step, u32 t, u32 b) {
    return step == 0 || (is_reset(resets, batch, t, b) && is_valid(lengths, t, b));
}

// Element i of a tensor that may be absent, then zero.
template <class E> DEVICE typename Accumulator<E>::type load_or_zero(const void* tensor, u64 i) {
    return tensor == nullptr ? typename Accumulator<E>::type(0) : load<E>(tensor, i);
}

// Element i of the states beside h that the first step starts from.
template <class E, class Direction> DEVICE typename Accumulator<E>::type load_start_c(const Direction& d, u64 i) {
    using V = typename Accumulator<E>::type;
    return d.start_c != nullptr ? static_cast<const V*>(d.start_c)[i] : load_or_zero<E>(d.c0, i);
}

// The peepholes of unit j, if there are some, to where either pass of the step kernels has them.
template <class Cell, class E, class Unit>
DEVICE void load_peepholes(const void* peephole, u32 hidden_size, u32 j, Unit& unit) {
    unit.peepholes = Cell::PEEPHOLES && peephole != nullptr;
    if (!unit.peepholes) return;
#pragma unroll
    for (u32 k = 0; k < MOST_PEEPHOLES; ++k) unit.peephole[k] = load<E>(peephole, u64(hidden_size) * k + j);
}

// Element j of the output that time t of sequence b starts from.
template <class E>
DEVICE typename Accumulator<E>::type load_h_prev(const ForwardParams& p, const ForwardDirection& d, u32 t, u32 b,
                                                 u32 j) {
    return load<E>(d.h_prev, (u64(t % p.slots) * p.rows + b) * p.h_prev_stride + j);
}

// Writes output j of a step of sequence b everywhere it goes: y, and what the next step starts from, or hn after the last.
// `h` is what the cell gave; at a step past the sequence's length it is ignored and the state stays as it was.
template <class E>
DEVICE void store_output(const ForwardParams& p, const ForwardDirection& d, u32 step, u32 t, u32 b, u32 j,
                         typename Accumulator<E>::type h) {
    using V = typename Accumulator<E>::type;
    const bool valid = is_valid(p.lengths, t, b);
    const V before = load_h_prev<E>(p, d, t, b, j);
    const V after = valid ? h : before;
    const V padded = p.hold && !d.reverse ? before : V(0);
    store<E>(d.y, t * p.y_time_stride + b * p.y_batch_stride + j, valid ? h : padded);
    if (step + 1 == p.seq_len) {
        if (d.hn != nullptr) store<E>(d.hn, u64(b) * p.output_size + j, after);
        return;
    }
    const u32 next = time_of(d.reverse, p.seq_len, step + 1);
    const bool anew = starts_anew(p.lengths, p.resets, p.batch, step + 1, next, b);
    const V start = anew ? load_or_zero<E>(d.h0, u64(b) * p.output_size + j) : after;
    store<E>(d.h_prev, (u64(next % p.slots) * p.rows + b) * p.h_prev_stride + j, start);
}
