// lstm.cuh - one unit of the LSTM, in registers. Equations and derivative: src/cell/lstm.rs (the oracle).
#pragma once
#include "cell.cuh"

struct Lstm : CellBase<4, 1> {
    static constexpr bool PROJECTION = true, PEEPHOLES = true;
    enum { I, F, G, O };  // in the order of the weights' rows

    template <class Fs, class V> static DEVICE void rest(const Fs& functions, UnitForward<V>& u);
    template <class Fs, class V> static DEVICE void backward(const Fs& functions, UnitBackward<V>& u);
};

// The peepholes of a unit: what they add to a sum. Where there are none nothing is added, rather than zero times a state, which may be
// infinite.
template <class V> struct Peepholes {
    V weight_i, weight_f, weight_o;
    bool present;
    DEVICE V i(V sum, V v) const { return present ? sum + weight_i * v : sum; }
    DEVICE V f(V sum, V v) const { return present ? sum + weight_f * v : sum; }
    DEVICE V o(V sum, V v) const { return present ? sum + weight_o * v : sum; }
};

// A unit that has none, known when it is compiled.
template <class V> struct NoPeepholes {
    DEVICE V i(V sum, V) const { return sum; }
    DEVICE V f(V sum, V) const { return sum; }
    DEVICE V o(V sum, V) const { return sum; }
};

// What a step of a unit gives.
template <class V> struct LstmUnit {
    V a[4];     // pre-activations, peepholes included
    V gate[4];  // their activations
    V c, u;     // cell state, output before the projection
};

// a: W x + R h + biases of the four gates.
template <class F, class P, class V>
DEVICE LstmUnit<V> lstm_forward(const F& functions, const V (&a)[4], const P& peepholes, V c_prev) {
    LstmUnit<V> r;
    r.a[Lstm::I] = peepholes.i(a[Lstm::I], c_prev);
    r.a[Lstm::F] = peepholes.f(a[Lstm::F], c_prev);
    r.a[Lstm::G] = a[Lstm::G];
    r.gate[Lstm::I] = functions.gate(r.a[Lstm::I]);
    r.gate[Lstm::F] = functions.coupled() ? V(1) - r.gate[Lstm::I] : functions.gate(r.a[Lstm::F]);
    r.gate[Lstm::G] = functions.state(r.a[Lstm::G]);
    r.c = functions.clip_cell(r.gate[Lstm::F] * c_prev + r.gate[Lstm::I] * r.gate[Lstm::G]);
    r.a[Lstm::O] = peepholes.o(a[Lstm::O], r.c);
    r.gate[Lstm::O] = functions.gate(r.a[Lstm::O]);
    r.u = r.gate[Lstm::O] * functions.output(r.c);
    return r;
}

// What the derivative of a unit takes from the forward pass alone, so that it can be computed before the gradients arrive.
template <class V> struct LstmFactors {
    V a[4];    // of the pre-activations: O's by du, the others' by ds
    V output;  // of c by du, through the output
    V clip;    // of s = f c_prev + i g by c
    V forget;  // of c_prev by s
};

template <class F, class V>
DEVICE LstmFactors<V> lstm_factors(const F& functions, const V (&saved)[4], V c_prev, V c) {
    V i, f, g, o, slope_i, slope_f, slope_g, slope_o;
    functions.saved_gate(saved[Lstm::I], i, slope_i);
    functions.saved_state(saved[Lstm::G], g, slope_g);
    functions.saved_gate(saved[Lstm::O], o, slope_o);
    if (functions.coupled()) {
        f = V(1) - i;
        slope_f = V(0);
    } else {
        functions.saved_gate(saved[Lstm::F], f, slope_f);
    }
    const V out = functions.output(c);
    LstmFactors<V> r;
    r.a[Lstm::I] = (functions.coupled() ? g - c_prev : g) * slope_i;
    r.a[Lstm::F] = c_prev * slope_f;
    r.a[Lstm::G] = i * slope_g;
    r.a[Lstm::O] = out * slope_o;
    r.output = o * functions.output_slope(c, out);
    r.clip = functions.clip_cell_slope(f * c_prev + i * g);
    r.forget = f;
    return r;
}

// Gradients of the pre-activations into da, of c_prev into dc, which holds that of c before.
template <class P, class V>
DEVICE void lstm_backward(const LstmFactors<V>& factors, const P& peepholes, V du, V& dc, V (&da)[4]) {
    da[Lstm::O] = du * factors.a[Lstm::O];
    const V ds = peepholes.o(dc + du * factors.output, da[Lstm::O]) * factors.clip;
    da[Lstm::I] = ds * factors.a[Lstm::I];
    da[Lstm::F] = ds * factors.a[Lstm::F];
    da[Lstm::G] = ds * factors.a[Lstm::G];
    dc = peepholes.f(peepholes.i(ds * factors.forget, da[Lstm::I]), da[Lstm::F]);
}

// Those that the step kernels loaded, for either pass.
template <class V, template <class> class Unit> DEVICE Peepholes<V> peepholes_of(const Unit<V>& u) {
    return {u.peephole[0], u.peephole[1], u.peephole[2], u.peepholes};
}

template <class Fs, class V> DEVICE void Lstm::rest(const Fs& functions, UnitForward<V>& u) {
    const LstmUnit<V> r = lstm_forward(functions, u.a, peepholes_of(u), u.state[0]);
#pragma unroll
    for (int k = 0; k < 4; ++k) {
        u.a[k] = r.a[k];
        u.gate[k] = r.gate[k];
    }
    u.state[0] = r.c;
    u.h = r.u;
}

template <class Fs, class V> DEVICE void Lstm::backward(const Fs& functions, UnitBackward<V>& u) {
    lstm_backward(lstm_factors(functions, u.saved, u.state_prev[0], u.state[0]), peepholes_of(u), u.dh, u.dstate[0], u.da);
}
