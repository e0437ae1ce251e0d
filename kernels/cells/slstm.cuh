// slstm.cuh - one unit of the sLSTM, in registers. Equations and derivative: src/cell/slstm.rs (the oracle).
#pragma once
#include "cell.cuh"

struct Slstm : CellBase<4, 3> {
    enum { I, F, Z, O };  // in the order of the weights' rows
    enum { C, N, M };     // the states beside h

    // What of both sides of the maximum is needed.
    template <class V> struct Exponents {
        V kept, fresh;  // l + m_prev, a_i
        V slope_f;      // of l
        V slope_i;      // of the clamp around a_i
    };
    template <class Fs, class V> static DEVICE Exponents<V> exponents(const Fs& functions, V a_i, V a_f, V m_prev) {
        const V a = functions.clamped(a_f);
        if (functions.exponential_forget()) {
            return {a + m_prev, functions.clamped(a_i), functions.clamped_slope(a_f), functions.clamped_slope(a_i)};
        }
        // ln(sigmoid(a)) = -softplus(-a)
        const V tail = log1p_accurate(exp_accurate(-absolute(a)));
        const V log_f = (a < V(0) ? a : V(0)) - tail;
        return {log_f + m_prev, functions.clamped(a_i), (V(1) - sigmoid(a)) * functions.clamped_slope(a_f),
                functions.clamped_slope(a_i)};
    }

    // v / n where n is above zero, else zero.
    static DEVICE float over(float v, float n) { return n < 1.17549435e-38f ? 0.0f : v / n; }
    static DEVICE double over(double v, double n) { return n < 2.2250738585072014e-308 ? 0.0 : v / n; }

    template <class Fs, class V> static DEVICE void rest(const Fs& functions, UnitForward<V>& u) {
        const Exponents<V> e = exponents(functions, u.a[I], u.a[F], u.state[M]);
        const V m = e.kept >= e.fresh ? e.kept : e.fresh;
        const V i = exp_accurate(e.fresh - m), f = exp_accurate(e.kept - m);
        const V z = functions.state(u.a[Z]), o = functions.gate(u.a[O]);
        u.gate[I] = i;
        u.gate[F] = f;
        u.gate[Z] = z;
        u.gate[O] = o;
        u.state[C] = f * u.state[C] + i * z;
        u.state[N] = f * u.state[N] + i;
        u.state[M] = m;
        u.h = o * over(u.state[C], u.state[N]);
    }

    template <class Fs, class V> static DEVICE void backward(const Fs& functions, UnitBackward<V>& u) {
        V z, slope_z, o, slope_o;
        functions.saved_state(u.saved[Z], z, slope_z);
        functions.saved_gate(u.saved[O], o, slope_o);
        const Exponents<V> e = exponents(functions, u.saved[I], u.saved[F], u.state_prev[M]);
        const V i = exp_accurate(e.fresh - u.state[M]), f = exp_accurate(e.kept - u.state[M]);
        const V ratio = over(u.state[C], u.state[N]), du = over(u.dh * o, u.state[N]);
        const V dc = u.dstate[C] + du, dn = u.dstate[N] - du * ratio;
        const V di = (dc * z + dn) * i, df = (dc * u.state_prev[C] + dn * u.state_prev[N]) * f;
        const V dm = u.dstate[M] - di - df;
        // Where both sides of the maximum are equal the gradient goes to what is kept.
        const bool kept = e.kept >= e.fresh;
        const V dl = kept ? df + dm : df;
        u.da[I] = (kept ? di : di + dm) * e.slope_i;
        u.da[F] = dl * e.slope_f;
        u.da[Z] = dc * i * slope_z;
        u.da[O] = u.dh * ratio * slope_o;
        u.dstate[C] = dc * f;
        u.dstate[N] = dn * f;
        u.dstate[M] = dl;
    }
};
