// mgu.cuh - one unit of the minimal gated unit, in registers. Equations and derivative: src/cell/mgu.rs (the oracle).
#pragma once
#include "cell.cuh"

struct Mgu : CellBase<2, 0> {
    static constexpr bool SPLIT = true, READS_H = true;
    enum { F, N };  // in the order of the weights' rows

    template <class Fs, class V> static DEVICE void first(const Fs& functions, UnitForward<V>& u) {
        u.gate[F] = functions.gate(u.a[F]);
        u.q = u.gate[F] * u.h;
    }

    template <class Fs, class V> static DEVICE void rest(const Fs& functions, UnitForward<V>& u) {
        u.gate[N] = functions.state(u.a[N]);
        u.h = (V(1) - u.gate[F]) * u.h + u.gate[F] * u.gate[N];
    }

    template <class Fs, class V> static DEVICE V candidate_gradient(const Fs& functions, const UnitBackward<V>& u) {
        V f, n, slope_f, slope_n;
        functions.saved_gate(u.saved[F], f, slope_f);
        functions.saved_state(u.saved[N], n, slope_n);
        return u.dh * f * slope_n;
    }

    template <class Fs, class V> static DEVICE void backward(const Fs& functions, UnitBackward<V>& u) {
        V f, n, slope_f, slope_n;
        functions.saved_gate(u.saved[F], f, slope_f);
        functions.saved_state(u.saved[N], n, slope_n);
        u.da[N] = u.dh * f * slope_n;
        u.da[F] = (u.dh * (n - u.h_prev) + u.dq * u.h_prev) * slope_f;
        u.dh = u.dh * (V(1) - f) + f * u.dq;
    }
};
