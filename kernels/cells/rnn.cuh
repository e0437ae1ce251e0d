// rnn.cuh - one unit of the simple recurrence, in registers. Equations and derivative: src/cell/rnn.rs (the oracle).
#pragma once
#include "activations.cuh"

struct Rnn {
    static constexpr int GATES = 1;         // rows of the weights, times H
    static constexpr int GRADIENT_SLOTS = 1;  // of dgates, times H
    static constexpr bool CELL_STATE = false;
};

// h = state(a)
template <class F, class V> DEVICE V rnn_forward(const F& functions, V a) { return functions.state(a); }

// da = dh * state'(a)
template <class F, class V> DEVICE V rnn_backward(const F& functions, V saved, V dh) {
    V value, slope;
    functions.saved_state(saved, value, slope);
    return dh * slope;
}
