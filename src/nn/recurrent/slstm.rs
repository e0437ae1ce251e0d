//! [`Slstm`].

use serde::{Deserialize, Serialize};

use crate::cell::CellKind;
use crate::error::Result;
use crate::interop::keras::bias_of;
use crate::nn::ActivationFunction;
use crate::nn::recurrent::{RecurrentOptions, recurrent_layer};
use crate::rnn::{Bias, ForgetGate, RnnDescriptor};

/// Long short-term memory with exponential gates ([Beck et al. 2024](https://arxiv.org/abs/2405.04517)), see [`crate::cell::slstm`].
/// Shapes, weights and masks are as [`SimpleRnn`](crate::nn::SimpleRnn) has them; its states are h, and c, n and m side by side,
/// `[3 * units]`. With `heads` it is the paper's.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Slstm};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Slstm::new(16).heads(4))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slstm {
    /// Width of h, c, n and m, and of the output.
    pub units: usize,
    /// Of the cell input z; tanh.
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    pub use_bias: bool,
    /// Of the output gate; sigmoid.
    pub recurrent_activation: ActivationFunction,
    /// Whether the forget gate is exponential rather than a sigmoid; no.
    pub exponential_forget_gate: bool,
    /// Whether the bias of the forget gate starts at 1 rather than 0; yes.
    pub unit_forget_bias: bool,
    /// Further options.
    #[serde(default)]
    pub options: RecurrentOptions,
}

recurrent_layer!(Slstm of Slstm {
    recurrent_activation: ActivationFunction::Sigmoid,
    exponential_forget_gate: false,
    unit_forget_bias: true
});

impl Slstm {
    /// Sets the function of the output gate.
    #[must_use]
    pub fn recurrent_activation(self, recurrent_activation: ActivationFunction) -> Self {
        Slstm { recurrent_activation, ..self }
    }

    /// Sets whether the forget gate is exponential.
    #[must_use]
    pub fn exponential_forget_gate(self, exponential_forget_gate: bool) -> Self {
        Slstm { exponential_forget_gate, ..self }
    }

    /// Sets whether the bias of the forget gate starts at 1.
    #[must_use]
    pub fn with_unit_forget_bias(self, unit_forget_bias: bool) -> Self {
        Slstm { unit_forget_bias, ..self }
    }

    fn operator_bias(&self) -> Bias {
        bias_of(CellKind::Slstm, self.use_bias, false)
    }

    fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
        descriptor.forget_gate =
            if self.exponential_forget_gate { ForgetGate::Exponential } else { ForgetGate::Sigmoid };
        descriptor.activations.state = self.activation.of_elements(layer, "activation")?;
        descriptor.activations.gate = self.recurrent_activation.of_elements(layer, "recurrent_activation")?;
        Ok(self.unit_forget_bias)
    }
}
