//! Gated recurrent unit.
//!
//! ```text
//! a_r = W_r x + b_ir + R_r h_prev + b_hr                       r = gate(a_r)
//! a_z = W_z x + b_iz + R_z h_prev + b_hz                       z = gate(a_z)
//! a_n = W_n x + b_in + r * q,  q = R_n h_prev + b_hn           n = state(a_n)   reset after the product
//! a_n = W_n x + b_in + R_n q + b_hn,  q = r * h_prev           n = state(a_n)   reset before it
//! h   = (1 - z) * n + z * h_prev
//! ```
//!
//! with `gate = sigmoid` and `state = tanh` by default; every `a` is clamped to
//! `±gate_clip` on its way into its activation (ONNX's `clip`; for `a_n`, in ONNX Runtime too, that is the whole sum). Sources:
//! [Cho et al. 2014](https://arxiv.org/abs/1406.1078) (reset before);
//! [`torch.nn.GRU`](https://docs.pytorch.org/docs/stable/generated/torch.nn.GRU.html) (reset after);
//! [ONNX `GRU`](https://onnx.ai/onnx/operators/onnx__GRU.html), `linear_before_reset` 0 (before) and 1 (after).
//!
//! # Derivative
//!
//! ```text
//! da_n    = dh * (1 - z) * state'(a_n)
//! da_z    = dh * (h_prev - n) * gate'(a_z)
//! da_r    = dr * gate'(a_r)
//! dx      = W^T da
//! dh_prev = dh * z + R_r^T da_r + R_z^T da_z + ...
//!   after:  dq = r * da_n        dr = q * da_n         ... = R_n^T dq    dR_n += dq h_prev^T    db_hn += dq
//!   before: dq = R_n^T da_n      dr = h_prev * dq      ... = r * dq      dR_n += da_n q^T       db_hn += da_n
//! dW += da x^T    db_ih += da    dR_r,z += da_r,z h_prev^T    db_hr,hz += da_r,z
//! ```
//!
//! Every `gate'` and `state'` is zero where its `a` was clamped.

use super::{Layer, SavedStep, State, StepGradient};
use crate::dtype::Scalar;
use crate::rnn::{GruReset, LayerWeights};

// Positions in `CellSpec::gates`, which are those in `CellSpec::saved` as well; `q` follows them there.
const R: usize = 0;
const Z: usize = 1;
const N: usize = 2;
const Q: usize = 3;

pub(super) fn forward<E: Scalar>(layer: &Layer<'_, E>, x: &[E], prev: &State<'_, E>, step: &mut SavedStep<'_, E>) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let at = |gate: usize, j: usize| gate * hidden + j;
    for j in 0..hidden {
        for gate in [R, Z] {
            let a = layer.input_term(gate, j, x) + layer.state_term(gate, j, prev.h);
            step.a[at(gate, j)] = a;
            step.saved[at(gate, j)] = layer.activate(act.gate, a);
        }
    }
    // A loop of its own, because `R_n (r * h_prev)` needs r of every unit.
    for j in 0..hidden {
        let r = step.saved[at(R, j)];
        step.saved[at(Q, j)] = match layer.descriptor.reset {
            GruReset::After => layer.state_term(N, j, prev.h),
            GruReset::Before => r * prev.h[j],
        };
    }
    for j in 0..hidden {
        let (r, z) = (step.saved[at(R, j)], step.saved[at(Z, j)]);
        let state_term = match layer.descriptor.reset {
            GruReset::After => r * step.saved[at(Q, j)],
            GruReset::Before => layer.state_term(N, j, &step.saved[layer.rows(Q)]),
        };
        let a_n = layer.input_term(N, j, x) + state_term;
        let n = layer.activate(act.state, a_n);
        step.a[at(N, j)] = a_n;
        step.saved[at(N, j)] = n;
        step.h[j] = (E::one() - z) * n + z * prev.h[j];
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
    let at = |gate: usize, j: usize| gate * hidden + j;
    let slope = |step: &SavedStep<'_, E>, activation, gate: usize, j: usize| {
        layer.activate_derivative(activation, step.a[at(gate, j)], step.saved[at(gate, j)])
    };
    for j in 0..hidden {
        let (z, n) = (step.saved[at(Z, j)], step.saved[at(N, j)]);
        step.da[at(N, j)] = step.dh[j] * (E::one() - z) * slope(step, act.state, N, j);
        step.da[at(Z, j)] = step.dh[j] * (prev.h[j] - n) * slope(step, act.gate, Z, j);
        gradient.dh[j] = step.dh[j] * z;
    }
    let da_n = &step.da[layer.rows(N)];
    let mut dq = vec![E::zero(); hidden];
    let mut dr = vec![E::zero(); hidden];
    match layer.descriptor.reset {
        GruReset::After => {
            for j in 0..hidden {
                dq[j] = step.saved[at(R, j)] * da_n[j];
                dr[j] = step.saved[at(Q, j)] * da_n[j];
            }
            layer.add_state_gradient(N, &dq, gradient.dh);
        }
        GruReset::Before => {
            layer.add_state_gradient(N, da_n, &mut dq);
            for j in 0..hidden {
                dr[j] = prev.h[j] * dq[j];
                gradient.dh[j] += step.saved[at(R, j)] * dq[j];
            }
        }
    }
    for j in 0..hidden {
        step.da[at(R, j)] = dr[j] * slope(step, act.gate, R, j);
    }
    for gate in [R, Z] {
        layer.add_state_gradient(gate, &step.da[layer.rows(gate)], gradient.dh);
    }
    for gate in [R, Z, N] {
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
    for gate in [R, Z, N] {
        layer.add_input_weights(gate, &step.da[layer.rows(gate)], x, gradient);
    }
    for gate in [R, Z] {
        layer.add_state_weights(gate, &step.da[layer.rows(gate)], prev.h, gradient);
    }
    let (da_n, q) = (&step.da[layer.rows(N)], &step.saved[layer.rows(Q)]);
    match layer.descriptor.reset {
        GruReset::After => {
            let r = &step.saved[layer.rows(R)];
            let dq: Vec<E> = r.iter().zip(da_n).map(|(r, da_n)| *r * *da_n).collect();
            layer.add_state_weights(N, &dq, prev.h, gradient);
        }
        GruReset::Before => layer.add_state_weights(N, da_n, q, gradient),
    }
}
