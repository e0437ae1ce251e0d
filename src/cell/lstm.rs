//! Long short-term memory.
//!
//! ```text
//! a_i = W_i x + b_ii + R_i h_prev + b_hi + p_i * c_prev        i = gate(a_i)
//! a_f = W_f x + b_if + R_f h_prev + b_hf + p_f * c_prev        f = gate(a_f)    or f = 1 - i when coupled
//! a_g = W_g x + b_ig + R_g h_prev + b_hg                       g = state(a_g)
//! s   = f * c_prev + i * g                                     c = clamp(s, ±cell_clip)
//! a_o = W_o x + b_io + R_o h_prev + b_ho + p_o * c             o = gate(a_o)
//! u   = o * output(c)                                          h = u            or h = W_hr u with a projection
//! ```
//!
//! with `gate = sigmoid`, `state = tanh` and `output = tanh` by default; every
//! `a` is clamped to `±gate_clip` on its way into its activation (ONNX's `clip`, which in ONNX Runtime acts on these and not on
//! `c`). The peepholes `p` are zero unless there are some. Sources:
//! [Hochreiter & Schmidhuber 1997](https://doi.org/10.1162/neco.1997.9.8.1735); the forget gate,
//! [Gers, Schmidhuber & Cummins 2000](https://doi.org/10.1162/089976600300015015); the peepholes,
//! [Gers & Schmidhuber 2000](https://doi.org/10.1109/IJCNN.2000.861302); the projection,
//! [Sak et al. 2014](https://arxiv.org/abs/1402.1128);
//! [`torch.nn.LSTM`](https://docs.pytorch.org/docs/stable/generated/torch.nn.LSTM.html);
//! peepholes, clip and `input_forget` as in [ONNX `LSTM`](https://onnx.ai/onnx/operators/onnx__LSTM.html).
//!
//! # Derivative
//!
//! ```text
//! du      = dh                                                 or W_hr^T dh
//! da_o    = du * output(c) * gate'(a_o)
//! dc     += du * o * output'(c) + p_o * da_o
//! ds      = dc                                                 (zero where s was clamped)
//! di      = ds * g                                             minus ds * c_prev when coupled
//! da_i    = di * gate'(a_i)
//! da_f    = ds * c_prev * gate'(a_f)                           zero when coupled
//! da_g    = ds * i * state'(a_g)
//! dc_prev = ds * f + p_i * da_i + p_f * da_f
//! dx      = W^T da
//! dh_prev = R^T da
//! dW += da x^T    dR += da h_prev^T    db_ih += da    db_hh += da    dW_hr += dh u^T
//! dp_i += da_i * c_prev    dp_f += da_f * c_prev    dp_o += da_o * c
//! ```
//!
//! Every `gate'` and `state'` is zero where its `a` was clamped.

use super::{Layer, SavedStep, State, StepGradient, add_outer, add_transposed, clamp, clamp_derivative, dot, row};
use crate::dtype::Scalar;
use crate::rnn::LayerWeights;

// Positions in `CellSpec::gates`, which are those in `CellSpec::saved` as well; `c` follows them there.
const I: usize = 0;
const F: usize = 1;
const G: usize = 2;
const O: usize = 3;
const C: usize = 4;

/// `p * v` for unit `j`, zero without peepholes; `peephole` counts in `CellSpec::peepholes`: i, f, o.
fn peephole<E: Scalar>(layer: &Layer<'_, E>, peephole: usize, j: usize, v: E) -> E {
    if layer.descriptor.peepholes { layer.weights.peephole[peephole * layer.hidden_size() + j] * v } else { E::zero() }
}

/// The gates whose rows of the weights are used: all, but not f when it is coupled to i.
fn used_gates<E: Scalar>(layer: &Layer<'_, E>) -> &'static [usize] {
    if layer.descriptor.coupled_input_forget { &[I, G, O] } else { &[I, F, G, O] }
}

pub(super) fn forward<E: Scalar>(layer: &Layer<'_, E>, x: &[E], prev: &State<'_, E>, step: &mut SavedStep<'_, E>) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let at = |gate: usize, j: usize| gate * hidden + j;
    let mut u = vec![E::zero(); hidden];
    for j in 0..hidden {
        let a_i = layer.input_term(I, j, x) + layer.state_term(I, j, prev.h) + peephole(layer, 0, j, prev.c[j]);
        let i = layer.activate(act.gate, a_i);
        let (a_f, f) = if layer.descriptor.coupled_input_forget {
            (E::zero(), E::one() - i)
        } else {
            let a_f = layer.input_term(F, j, x) + layer.state_term(F, j, prev.h) + peephole(layer, 1, j, prev.c[j]);
            (a_f, layer.activate(act.gate, a_f))
        };
        let a_g = layer.input_term(G, j, x) + layer.state_term(G, j, prev.h);
        let g = layer.activate(act.state, a_g);
        let c = clamp(f * prev.c[j] + i * g, layer.descriptor.cell_clip);
        let a_o = layer.input_term(O, j, x) + layer.state_term(O, j, prev.h) + peephole(layer, 2, j, c);
        let o = layer.activate(act.gate, a_o);
        u[j] = o * act.output.apply(c);
        for (gate, a, value) in [(I, a_i, i), (F, a_f, f), (G, a_g, g), (O, a_o, o)] {
            step.a[at(gate, j)] = a;
            step.saved[at(gate, j)] = value;
        }
        step.saved[at(C, j)] = c;
    }
    if layer.descriptor.proj_size.is_some() {
        for p in 0..step.h.len() {
            step.h[p] = dot(row(layer.weights.projection, p, hidden), &u);
        }
    } else {
        step.h.copy_from_slice(&u);
    }
}

pub(super) fn backward<E: Scalar>(
    layer: &Layer<'_, E>,
    prev: &State<'_, E>,
    step: &mut SavedStep<'_, E>,
    dc: &[E],
    gradient: &mut StepGradient<'_, E>,
) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let coupled = layer.descriptor.coupled_input_forget;
    let at = |gate: usize, j: usize| gate * hidden + j;
    let mut du = vec![E::zero(); hidden];
    if layer.descriptor.proj_size.is_some() {
        add_transposed(&mut du, layer.weights.projection, 0, step.dh);
    } else {
        du.copy_from_slice(step.dh);
    }
    for j in 0..hidden {
        let a = |gate: usize| step.a[at(gate, j)];
        let value = |gate: usize| step.saved[at(gate, j)];
        let slope = |activation, gate: usize| layer.activate_derivative(activation, a(gate), value(gate));
        let (i, f, g, o, c) = (value(I), value(F), value(G), value(O), value(C));

        let out = act.output.apply(c);
        let da_o = du[j] * out * slope(act.gate, O);
        let dc = dc[j] + du[j] * o * act.output.derivative(c, out) + peephole(layer, 2, j, da_o);
        let ds = dc * clamp_derivative(f * prev.c[j] + i * g, layer.descriptor.cell_clip);
        let df = ds * prev.c[j];
        let di = if coupled { ds * g - df } else { ds * g };
        let da_i = di * slope(act.gate, I);
        let da_f = if coupled { E::zero() } else { df * slope(act.gate, F) };
        let da_g = ds * i * slope(act.state, G);

        gradient.dc[j] = ds * f + peephole(layer, 0, j, da_i);
        if !coupled {
            gradient.dc[j] += peephole(layer, 1, j, da_f);
        }
        for (gate, da) in [(I, da_i), (F, da_f), (G, da_g), (O, da_o)] {
            step.da[at(gate, j)] = da;
        }
    }
    for &gate in used_gates(layer) {
        let da = &step.da[layer.rows(gate)];
        layer.add_input_gradient(gate, da, gradient.dx);
        layer.add_state_gradient(gate, da, gradient.dh);
    }
}

pub(super) fn add_weight_gradient<E: Scalar>(
    layer: &Layer<'_, E>,
    x: &[E],
    prev: &State<'_, E>,
    step: &SavedStep<'_, E>,
    gradient: &mut LayerWeights<&mut [E]>,
) {
    let hidden = layer.hidden_size();
    for &gate in used_gates(layer) {
        let da = &step.da[layer.rows(gate)];
        layer.add_input_weights(gate, da, x, gradient);
        layer.add_state_weights(gate, da, prev.h, gradient);
    }
    let c = &step.saved[C * hidden..];
    if layer.descriptor.peepholes {
        for j in 0..hidden {
            gradient.peephole[j] += step.da[I * hidden + j] * prev.c[j];
            gradient.peephole[hidden + j] += step.da[F * hidden + j] * prev.c[j];
            gradient.peephole[2 * hidden + j] += step.da[O * hidden + j] * c[j];
        }
    }
    if layer.descriptor.proj_size.is_some() {
        let o = &step.saved[O * hidden..(O + 1) * hidden];
        let u: Vec<E> = (0..hidden).map(|j| o[j] * layer.activations.output.apply(c[j])).collect();
        add_outer(gradient.projection, 0, step.dh, &u);
    }
}
