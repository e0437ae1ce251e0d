//! sLSTM: long short-term memory with exponential gates, a normaliser and a stabiliser.
//!
//! ```text
//! a_i = W_i x + b_ii + R_i h_prev + b_hi
//! a_f = W_f x + b_if + R_f h_prev + b_hf                l = ln(sigmoid(a_f))    or l = a_f where the forget gate is exponential
//! a_z = W_z x + b_iz + R_z h_prev + b_hz                z = state(a_z)
//! a_o = W_o x + b_io + R_o h_prev + b_ho                o = gate(a_o)
//! m   = max(l + m_prev, a_i)                            stabiliser: no exponent below is above zero
//! i   = exp(a_i - m)
//! f   = exp(l + m_prev - m)
//! c   = f * c_prev + i * z                              cell state
//! n   = f * n_prev + i                                  normaliser
//! u   = c / n  where n > 0, else 0
//! h   = o * u
//! ```
//!
//! with `state = tanh` and `gate = sigmoid` by default; every `a` is clamped to `±gate_clip` before it is used. With
//! `exp(a_i)` as the input gate and `exp(l)` as the forget gate, `c` and `n` are those of the recurrence without a stabiliser times
//! `exp(-m)`, so that `h` does not depend on m but for rounding. Source: [Beck et al. 2024](https://arxiv.org/abs/2405.04517),
//! section 2.2 and appendix A.2; order of the gates as in its authors' code.
//!
//! # States
//!
//! `c0`, `cn` and their gradients hold `c`, `n` and `m` side by side: `[L * D, B, 3 * H]`. Where they are absent, and after resets
//! then, all three are zero: nothing is remembered, and the first step gives `h = o * z` whatever m is, unless `exp(a_i - m)`
//! rounds to zero (an `a_i` below about -87 in f32). Then n stays zero until something is let in, and h is zero with it. An `n0` that a
//! run of the operator has left is above zero, as one that is given should be; a number counts as above zero from the smallest
//! normal one on. (The authors' code takes `m = a_i` where n is zero everywhere, which gives the same h.)
//!
//! # Derivative
//!
//! The maximum is differentiated as it stands, so that the gradients of `cn` are those of what `cn` holds; where both sides are equal,
//! the gradient goes to `l + m_prev`. What it contributes to the gradient of `h` cancels but for rounding.
//!
//! ```text
//! da_o    = dh * u * gate'(a_o)
//! dc     += dh * o / n                                  both nothing where n is not above zero
//! dn     += -dh * o * u / n
//! di      = (dc * z + dn) * i
//! df      = (dc * c_prev + dn * n_prev) * f
//! dm     += -di - df
//! dl      = df + dm where l + m_prev >= a_i             else df
//! da_i    = di      where l + m_prev >= a_i             else di + dm
//! da_f    = dl * (1 - sigmoid(a_f))                     or dl
//! da_z    = dc * i * state'(a_z)
//! dc_prev = dc * f        dn_prev = dn * f        dm_prev = dl
//! dx      = W^T da
//! dh_prev = R^T da
//! dW += da x^T    dR += da h_prev^T    db_ih += da    db_hh += da
//! ```
//!
//! Every `da` is zero where its `a` was clamped.

use super::{Activation, Layer, SavedStep, State, StepGradient, clamp, clamp_derivative};
use crate::dtype::Scalar;
use crate::rnn::{ForgetGate, LayerWeights};

// Positions in `CellSpec::gates`, which are those in `CellSpec::saved` as well; the states follow them there.
const I: usize = 0;
const F: usize = 1;
const Z: usize = 2;
const O: usize = 3;
// Positions among the states beside h.
const C: usize = 0;
const N: usize = 1;
const M: usize = 2;
/// States after the gates in `CellSpec::saved`.
const STATES: usize = 4;

impl<E: Scalar> Layer<'_, E> {
    /// The logarithm of the forget gate, and its derivative.
    fn log_forget(&self, a: E) -> (E, E) {
        let (one, clamped) = (E::one(), clamp(a, self.descriptor.gate_clip));
        let (value, slope) = match self.descriptor.forget_gate {
            ForgetGate::Sigmoid => (-Activation::Softplus.apply(-clamped), one - Activation::Sigmoid.apply(clamped)),
            ForgetGate::Exponential => (clamped, one),
        };
        (value, slope * clamp_derivative(a, self.descriptor.gate_clip))
    }
}

/// `v / n` where n is above zero, else zero; what is not a number stays so.
fn over<E: Scalar>(v: E, n: E) -> E {
    if n < E::min_positive_value() { E::zero() } else { v / n }
}

pub(super) fn forward<E: Scalar>(layer: &Layer<'_, E>, x: &[E], prev: &State<'_, E>, step: &mut SavedStep<'_, E>) {
    let hidden = layer.hidden_size();
    let act = layer.activations;
    let at = |block: usize, j: usize| block * hidden + j;
    for j in 0..hidden {
        let mut a = [E::zero(); 4];
        for gate in [I, F, Z, O] {
            a[gate] = layer.input_term(gate, j, x) + layer.state_term(gate, j, prev.h);
            step.a[at(gate, j)] = a[gate];
        }
        let (c_prev, n_prev, m_prev) = (prev.c[at(C, j)], prev.c[at(N, j)], prev.c[at(M, j)]);
        let kept = layer.log_forget(a[F]).0 + m_prev;
        let new = clamp(a[I], layer.descriptor.gate_clip);
        let m = if kept >= new { kept } else { new };
        let (i, f) = ((new - m).exp(), (kept - m).exp());
        let z = layer.activate(act.state, a[Z]);
        let o = layer.activate(act.gate, a[O]);
        let (c, n) = (f * c_prev + i * z, f * n_prev + i);
        step.h[j] = o * over(c, n);
        for (block, value) in [(I, i), (F, f), (Z, z), (O, o), (STATES + C, c), (STATES + N, n), (STATES + M, m)] {
            step.saved[at(block, j)] = value;
        }
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
    let clip = layer.descriptor.gate_clip;
    let at = |block: usize, j: usize| block * hidden + j;
    for j in 0..hidden {
        let a = |gate: usize| step.a[at(gate, j)];
        let value = |block: usize| step.saved[at(block, j)];
        let (i, f, z, o) = (value(I), value(F), value(Z), value(O));
        let (c, n) = (value(STATES + C), value(STATES + N));
        let (c_prev, n_prev, m_prev) = (prev.c[at(C, j)], prev.c[at(N, j)], prev.c[at(M, j)]);

        let (u, dh) = (over(c, n), step.dh[j]);
        let da_o = dh * u * layer.activate_derivative(act.gate, a(O), o);
        let du = over(dh * o, n);
        let dc_now = dc[at(C, j)] + du;
        let dn = dc[at(N, j)] - du * u;
        let di = (dc_now * z + dn) * i;
        let df = (dc_now * c_prev + dn * n_prev) * f;
        let dm = dc[at(M, j)] - di - df;
        let (log_f, slope) = layer.log_forget(a(F));
        let (dl, da_i) = if log_f + m_prev >= clamp(a(I), clip) { (df + dm, di) } else { (df, di + dm) };

        step.da[at(I, j)] = da_i * clamp_derivative(a(I), clip);
        step.da[at(F, j)] = dl * slope;
        step.da[at(Z, j)] = dc_now * i * layer.activate_derivative(act.state, a(Z), z);
        step.da[at(O, j)] = da_o;
        gradient.dc[at(C, j)] = dc_now * f;
        gradient.dc[at(N, j)] = dn * f;
        gradient.dc[at(M, j)] = dl;
    }
    for gate in [I, F, Z, O] {
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
    for gate in [I, F, Z, O] {
        let da = &step.da[layer.rows(gate)];
        layer.add_input_weights(gate, da, x, gradient);
        layer.add_state_weights(gate, da, prev.h, gradient);
    }
}
