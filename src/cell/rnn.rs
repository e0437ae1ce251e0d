//! The simple recurrence.
//!
//! ```text
//! a = W x + b_ih + R h_prev + b_hh
//! h = state(a)
//! ```
//!
//! with `state = tanh` by default, and `a` clamped to `±gate_clip` on its way into it. Sources:
//! [Elman 1990](https://doi.org/10.1207/s15516709cog1402_1),
//! [`torch.nn.RNN`](https://docs.pytorch.org/docs/stable/generated/torch.nn.RNN.html),
//! [ONNX `RNN`](https://onnx.ai/onnx/operators/onnx__RNN.html).
//!
//! # Derivative
//!
//! ```text
//! da      = dh * state'(a)        (zero where a was clamped)
//! dx      = W^T da
//! dh_prev = R^T da
//! dW += da x^T    dR += da h_prev^T    db_ih += da    db_hh += da
//! ```

use super::{Layer, SavedStep, State, StepGradient};
use crate::dtype::Scalar;
use crate::rnn::LayerWeights;

pub(super) fn forward<E: Scalar>(layer: &Layer<'_, E>, x: &[E], prev: &State<'_, E>, step: &mut SavedStep<'_, E>) {
    for j in 0..layer.hidden_size() {
        step.a[j] = layer.input_term(0, j, x) + layer.state_term(0, j, prev.h);
        step.h[j] = layer.activate(layer.activations.state, step.a[j]);
    }
}

pub(super) fn backward<E: Scalar>(
    layer: &Layer<'_, E>,
    _: &State<'_, E>,
    step: &mut SavedStep<'_, E>,
    _: &[E],
    gradient: &mut StepGradient<'_, E>,
) {
    for j in 0..layer.hidden_size() {
        let slope = layer.activate_derivative(layer.activations.state, step.a[j], step.h[j]);
        step.da[j] = step.dh[j] * slope;
    }
    layer.add_input_gradient(0, step.da, gradient.dx);
    layer.add_state_gradient(0, step.da, gradient.dh);
}

pub(super) fn add_weight_gradient<E: Scalar>(
    layer: &Layer<'_, E>,
    x: &[E],
    prev: &State<'_, E>,
    step: &SavedStep<'_, E>,
    gradient: &mut LayerWeights<&mut [E]>,
) {
    layer.add_input_weights(0, step.da, x, gradient);
    layer.add_state_weights(0, step.da, prev.h, gradient);
}
