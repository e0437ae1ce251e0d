//! Minimal gated unit.
//!
//! ```text
//! a_f = W_f x + b_if + R_f h_prev + b_hf                f = gate(a_f)
//! a_n = W_n x + b_in + R_n q + b_hn,  q = f * h_prev    n = state(a_n)
//! h   = (1 - f) * h_prev + f * n
//! ```
//!
//! with `gate = sigmoid` and `state = tanh` by default; every `a` is clamped to `±gate_clip` on its way into its
//! activation. Source: [Zhou et al. 2016](https://arxiv.org/abs/1603.09420).
//!
//! # Derivative
//!
//! ```text
//! da_n    = dh * f * state'(a_n)
//! dq      = R_n^T da_n
//! da_f    = (dh * (n - h_prev) + dq * h_prev) * gate'(a_f)
//! dx      = W^T da
//! dh_prev = dh * (1 - f) + f * dq + R_f^T da_f
//! dW += da x^T    db_ih += da    dR_f += da_f h_prev^T    dR_n += da_n q^T    db_hh += da
//! ```
//!
//! Every `gate'` and `state'` is zero where its `a` was clamped.

use super::{Layer, SavedStep, State, StepGradient};
use crate::dtype::Scalar;
use crate::rnn::LayerWeights;

// Positions in `CellSpec::gates`, which are those in `CellSpec::saved` as well; `q` follows them there.
const F: usize = 0;
const N: usize = 1;
const Q: usize = 2;

pub(super) fn forward<E: Scalar>(layer: &Layer<'_, E>, x: &[E], prev: &State<'_, E>, step: &mut SavedStep<'_, E>) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let at = |block: usize, j: usize| block * hidden + j;
    for j in 0..hidden {
        let a_f = layer.input_term(F, j, x) + layer.state_term(F, j, prev.h);
        let f = layer.activate(act.gate, a_f);
        step.a[at(F, j)] = a_f;
        step.saved[at(F, j)] = f;
        step.saved[at(Q, j)] = f * prev.h[j];
    }
    // A loop of its own, because `R_n (f * h_prev)` needs f of every unit.
    for j in 0..hidden {
        let a_n = layer.input_term(N, j, x) + layer.state_term(N, j, &step.saved[layer.rows(Q)]);
        let (f, n) = (step.saved[at(F, j)], layer.activate(act.state, a_n));
        step.a[at(N, j)] = a_n;
        step.saved[at(N, j)] = n;
        step.h[j] = (E::one() - f) * prev.h[j] + f * n;
    }
}

pub(super) fn backward<E: Scalar>(
    layer: &Layer<'_, E>,
    prev: &State<'_, E>,
    step: &mut SavedStep<'_, E>,
    _: &[E],
    gradient: &mut StepGradient<'_, E>,
) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let at = |block: usize, j: usize| block * hidden + j;
    let slope = |step: &SavedStep<'_, E>, activation, gate: usize, j: usize| {
        layer.activate_derivative(activation, step.a[at(gate, j)], step.saved[at(gate, j)])
    };
    for j in 0..hidden {
        step.da[at(N, j)] = step.dh[j] * step.saved[at(F, j)] * slope(step, act.state, N, j);
    }
    let mut dq = vec![E::zero(); hidden];
    layer.add_state_gradient(N, &step.da[layer.rows(N)], &mut dq);
    for j in 0..hidden {
        let (f, n) = (step.saved[at(F, j)], step.saved[at(N, j)]);
        let df = step.dh[j] * (n - prev.h[j]) + dq[j] * prev.h[j];
        step.da[at(F, j)] = df * slope(step, act.gate, F, j);
        gradient.dh[j] = step.dh[j] * (E::one() - f) + f * dq[j];
    }
    layer.add_state_gradient(F, &step.da[layer.rows(F)], gradient.dh);
    for gate in [F, N] {
        layer.add_input_gradient(gate, &step.da[layer.rows(gate)], gradient.dx);
    }
}

pub(super) fn add_weight_gradient<E: Scalar>(
    layer: &Layer<'_, E>,
    x: &[E],
    prev: &State<'_, E>,
    step: &SavedStep<'_, E>,
    gradient: &mut LayerWeights<&mut [E]>,
) {
    for gate in [F, N] {
        layer.add_input_weights(gate, &step.da[layer.rows(gate)], x, gradient);
    }
    layer.add_state_weights(F, &step.da[layer.rows(F)], prev.h, gradient);
    layer.add_state_weights(N, &step.da[layer.rows(N)], &step.saved[layer.rows(Q)], gradient);
}
