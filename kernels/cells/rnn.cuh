// rnn.cuh - one unit of the simple recurrence, in registers. Equations and derivative: src/cell/rnn.rs (the oracle).
#pragma once
#include "cell.cuh"

// h = state(a)
template <class F, class V> DEVICE V rnn_forward(const F& functions, V a) { return functions.state(a); }

// da = dh * state'(a)
// Gradient of the pre-activation by dh.
template <class F, class V> DEVICE V rnn_factor(const F& functions, V saved) {
    V value, slope;
    functions.saved_state(saved, value, slope);
    return slope;
}

struct Rnn : CellBase<1, 0> {
    template <class F, class V> static DEVICE void rest(const F& functions, UnitForward<V>& u) {
        u.h = u.gate[0] = rnn_forward(functions, u.a[0]);
    }
    template <class F, class V> static DEVICE void backward(const F& functions, UnitBackward<V>& u) {
        u.da[0] = u.dh * rnn_factor(functions, u.saved[0]);
    }
};
