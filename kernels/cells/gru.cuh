// gru.cuh - one unit of the GRU, in registers. Equations and derivative: src/cell/gru.rs (the oracle).
#pragma once
#include "cell.cuh"

struct Gru : CellBase<3, 0> {
    static constexpr int GRADIENT_SLOTS = 4;
    static constexpr bool SPLIT = true, READS_H = true;
    enum { R, Z, N };  // in the order of the weights' rows
    enum { SLOT_N, SLOT_R, SLOT_Z, SLOT_Q };  // in the order of dgates, see params.cuh

    template <class F, class V> static DEVICE void first(const F& functions, UnitForward<V>& u);
    template <class F, class V> static DEVICE void rest(const F& functions, UnitForward<V>& u);
    template <class F, class V> static DEVICE V candidate_gradient(const F& functions, const UnitBackward<V>& u);
    template <class F, class V> static DEVICE void backward(const F& functions, UnitBackward<V>& u);
};

// n and h, given r, z and the candidate's pre-activation.
// h = (1 - z) * n + z * h_prev
template <class V> DEVICE V gru_output(V z, V n, V h_prev) { return (V(1) - z) * n + z * h_prev; }

// What backward gives of a unit before the reset gate's part is known.
template <class V> struct GruGradient {
    V da_n, da_z;
    V dh_prev;  // the part that goes straight to the previous output: z * dh
};

// The same by dh: what the forward pass alone determines, so that it can be computed before the gradient arrives.
template <class F, class V>
DEVICE GruGradient<V> gru_factors(const F& functions, V saved_z, V saved_n, V h_prev) {
    V z, n, slope_z, slope_n;
    functions.saved_gate(saved_z, z, slope_z);
    functions.saved_state(saved_n, n, slope_n);
    return {(V(1) - z) * slope_n, (h_prev - n) * slope_z, z};
}

template <class V> DEVICE GruGradient<V> gru_backward(const GruGradient<V>& factors, V dh) {
    return {dh * factors.da_n, dh * factors.da_z, dh * factors.dh_prev};
}

template <class F, class V> DEVICE void Gru::first(const F& functions, UnitForward<V>& u) {
    u.gate[R] = functions.gate(u.a[R]);
    u.gate[Z] = functions.gate(u.a[Z]);
    if (!u.apart) u.q = u.gate[R] * u.h;
}

template <class F, class V> DEVICE void Gru::rest(const F& functions, UnitForward<V>& u) {
    if (u.apart) u.a[N] += u.gate[R] * u.q;
    u.gate[N] = functions.state(u.a[N]);
    u.h = gru_output(u.gate[Z], u.gate[N], u.h);
}

template <class F, class V> DEVICE V Gru::candidate_gradient(const F& functions, const UnitBackward<V>& u) {
    return gru_backward(gru_factors(functions, u.saved[Z], u.saved[N], u.h_prev), u.dh).da_n;
}

template <class F, class V> DEVICE void Gru::backward(const F& functions, UnitBackward<V>& u) {
    V r, slope_r;
    functions.saved_gate(u.saved[R], r, slope_r);
    const GruGradient<V> g = gru_backward(gru_factors(functions, u.saved[Z], u.saved[N], u.h_prev), u.dh);
    u.da[N] = g.da_n;
    u.da[Z] = g.da_z;
    u.dh = g.dh_prev;
    if (u.apart) {
        u.dq = r * g.da_n;
        u.da[R] = u.q * g.da_n * slope_r;
    } else {
        u.da[R] = u.h_prev * u.dq * slope_r;
        u.dh += r * u.dq;
    }
}
