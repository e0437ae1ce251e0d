// gru.cuh - one unit of the GRU, in registers. Equations and derivative: src/cell/gru.rs (the oracle).
#pragma once
#include "activations.cuh"

struct Gru {
    static constexpr int GATES = 3;
    static constexpr int GRADIENT_SLOTS = 4;
    static constexpr bool CELL_STATE = false;
    enum { R, Z, N };  // in the order of the weights' rows
    enum { SLOT_N, SLOT_R, SLOT_Z, SLOT_Q };  // in the order of dgates, see params.cuh
};

// n and h, given r, z and the candidate's pre-activation.
// h = (1 - z) * n + z * h_prev
template <class V> DEVICE V gru_output(V z, V n, V h_prev) { return (V(1) - z) * n + z * h_prev; }

// What backward gives of a unit before the reset gate's part is known.
template <class V> struct GruGradient {
    V da_n, da_z;
    V dh_prev;  // the part that goes straight to the previous output: z * dh
};

template <class F, class V>
DEVICE GruGradient<V> gru_backward(const F& functions, V saved_z, V saved_n, V h_prev, V dh) {
    V z, n, slope_z, slope_n;
    functions.saved_gate(saved_z, z, slope_z);
    functions.saved_state(saved_n, n, slope_n);
    return {dh * (V(1) - z) * slope_n, dh * (h_prev - n) * slope_z, dh * z};
}
