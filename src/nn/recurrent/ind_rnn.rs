//! [`IndRnn`].

use serde::{Deserialize, Serialize};

use crate::cell::CellKind;
use crate::error::{Error, Result};
use crate::interop::keras::bias_of;
use crate::nn::ActivationFunction;
use crate::nn::recurrent::{RecurrentOptions, recurrent_layer};
use crate::rnn::{Bias, RnnDescriptor};

/// An independently recurrent network ([Li et al. 2018](https://arxiv.org/abs/1803.04831)): `h = f(W x + u * h + b)`, a
/// [`SimpleRnn`](crate::nn::SimpleRnn) whose units see no other's state; `weight_hh` is `[1, units, 1, 1]` and starts uniform in ±1. Shapes
/// and masks are as [`SimpleRnn`](crate::nn::SimpleRnn) has them.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{ActivationFunction, IndRnn}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(IndRnn::new(16).activation(ActivationFunction::Relu))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IndRnn {
    /// Width of the state and the output.
    pub units: usize,
    /// f; tanh. The paper's is relu.
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    pub use_bias: bool,
    /// Further options. As many heads as units are what the layer is; set none.
    #[serde(default)]
    pub options: RecurrentOptions,
}

recurrent_layer!(IndRnn of Rnn {});

impl IndRnn {
    fn operator_bias(&self) -> Bias {
        bias_of(CellKind::Rnn, self.use_bias, false)
    }

    fn configure(&self, layer: &str, descriptor: &mut RnnDescriptor) -> Result<bool> {
        if self.options.heads != 1 {
            let expected = "1, since an IndRNN's units have one each anyway";
            return Err(Error::option(format!("heads of {layer}"), expected, self.options.heads));
        }
        descriptor.heads = self.units;
        descriptor.activations.state = self.activation.of_elements(layer, "activation")?;
        Ok(false)
    }
}
