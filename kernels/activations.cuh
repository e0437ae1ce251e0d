// activations.cuh - activation functions and their derivatives, with constants chosen at run time.
//
// A second writing of src/cell/activation.rs, on purpose: comparing the two can find a mistake in either. Kinds are numbered in
// the order of `Activation::ALL` there (params.rs holds the same numbers). V is float or double.
#pragma once
#include "params.cuh"

enum ActivationKind : u32 {
    ACT_TANH,
    ACT_RELU,
    ACT_SIGMOID,
    ACT_HARD_SIGMOID,
    ACT_SOFTSIGN,
    ACT_SOFTPLUS,
    ACT_ELU,
    ACT_SELU,
    ACT_LEAKY_RELU,
    ACT_THRESHOLDED_RELU,
    ACT_SCALED_TANH,
    ACT_AFFINE,
    ACT_LINEAR,
};

constexpr double SELU_ALPHA = 1.6732632423543772;
constexpr double SELU_GAMMA = 1.0507009873554805;

template <class V> DEVICE V sigmoid(V x) { return V(1) / (V(1) + exp_accurate(-x)); }

// f(x). Comparisons are written so that NaN stays NaN.
template <class V> DEVICE V activate(const Activation& f, V x) {
    const V alpha = V(f.alpha), beta = V(f.beta);
    switch (f.kind) {
        case ACT_TANH: return tanh_accurate(x);
        case ACT_RELU: return x <= V(0) ? V(0) : x;
        case ACT_SIGMOID: return sigmoid(x);
        case ACT_HARD_SIGMOID: {
            const V line = alpha * x + beta;
            return line < V(0) ? V(0) : line > V(1) ? V(1) : line;
        }
        case ACT_SOFTSIGN: return is_infinite(x) ? (x > V(0) ? V(1) : V(-1)) : x / (V(1) + absolute(x));
        case ACT_SOFTPLUS: return x > V(0) ? x + log1p_accurate(exp_accurate(-x)) : log1p_accurate(exp_accurate(x));
        case ACT_ELU: return x > V(0) ? x : alpha * expm1_accurate(x);
        case ACT_SELU: return x > V(0) ? V(SELU_GAMMA) * x : V(SELU_GAMMA * SELU_ALPHA) * expm1_accurate(x);
        case ACT_LEAKY_RELU: return x > V(0) ? x : alpha * x;
        case ACT_THRESHOLDED_RELU: return x <= alpha ? V(0) : x;
        case ACT_SCALED_TANH: return alpha * tanh_accurate(beta * x);
        case ACT_AFFINE: return alpha * x + beta;
        default: return x;  // ACT_LINEAR
    }
}

// f'(x), where y = f(x); at a kink the derivative of the left side. Kinds that have an inverse easily had from y ignore x.
template <class V> DEVICE V activation_slope(const Activation& f, V x, V y) {
    const V alpha = V(f.alpha), beta = V(f.beta);
    switch (f.kind) {
        case ACT_TANH: return V(1) - y * y;
        case ACT_RELU: return y > V(0) ? V(1) : V(0);
        case ACT_SIGMOID: return y * (V(1) - y);
        case ACT_HARD_SIGMOID: return y > V(0) && y < V(1) ? alpha : V(0);
        case ACT_SOFTSIGN: return (V(1) - absolute(y)) * (V(1) - absolute(y));
        case ACT_SOFTPLUS: return sigmoid(x);
        case ACT_ELU: return x > V(0) ? V(1) : alpha * exp_accurate(x);
        case ACT_SELU: return x > V(0) ? V(SELU_GAMMA) : V(SELU_GAMMA * SELU_ALPHA) * exp_accurate(x);
        case ACT_LEAKY_RELU: return x > V(0) ? V(1) : alpha;
        case ACT_THRESHOLDED_RELU: return x > alpha ? V(1) : V(0);
        case ACT_SCALED_TANH: {
            const V t = tanh_accurate(beta * x);
            return alpha * beta * (V(1) - t * t);
        }
        case ACT_AFFINE: return alpha;
        default: return V(1);  // ACT_LINEAR
    }
}

// a clamped to +-bound; NaN stays NaN.
template <class V> DEVICE V clamp(V a, V bound) { return a > bound ? bound : a < -bound ? -bound : a; }
// The derivative of clamp: zero where it changed a, one elsewhere and at the bound.
template <class V> DEVICE V clamp_slope(V a, V bound) { return absolute(a) > bound ? V(0) : V(1); }

// The functions of a cell as its options say: what cells/*.cuh are written in terms of. V is float or double.
template <class V> struct GeneralFunctions {
    const CellOptions& options;
    u32 saved;  // SavedGates: what a saved gate is, for backward

    DEVICE V gate(V a) const { return activate(options.gate, clamp(a, V(options.gate_clip))); }
    DEVICE V state(V a) const { return activate(options.state, clamp(a, V(options.gate_clip))); }
    DEVICE V output(V c) const { return activate(options.output, c); }
    DEVICE V clip_cell(V s) const { return clamp(s, V(options.cell_clip)); }
    DEVICE bool coupled() const { return options.coupled_input_forget; }
    DEVICE bool exponential_forget() const { return options.exponential_forget; }

    // A pre-activation as its function takes it, and the derivative of that.
    DEVICE V clamped(V a) const { return clamp(a, V(options.gate_clip)); }
    DEVICE V clamped_slope(V a) const { return clamp_slope(a, V(options.gate_clip)); }

    // A gate's value and slope, from what was saved of it.
    DEVICE void saved_gate(V saved_value, V& value, V& slope) const { restore(options.gate, saved_value, value, slope); }
    DEVICE void saved_state(V saved_value, V& value, V& slope) const {
        restore(options.state, saved_value, value, slope);
    }
    DEVICE V output_slope(V c, V value) const { return activation_slope(options.output, c, value); }
    DEVICE V clip_cell_slope(V s) const { return clamp_slope(s, V(options.cell_clip)); }

  private:
    DEVICE void restore(const Activation& f, V saved_value, V& value, V& slope) const {
        if (saved == SAVE_PRE_ACTIVATIONS) {
            const V bound = V(options.gate_clip), a = clamp(saved_value, bound);
            value = activate(f, a);
            slope = activation_slope(f, a, value) * clamp_slope(saved_value, bound);
        } else {
            value = saved_value;
            slope = activation_slope(f, V(0), value);
        }
    }
};
