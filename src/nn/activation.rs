//! Activation functions with Keras's names and constants: [`ActivationFunction`], and the layer [`ActivationLayer`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::SoftmaxMask;
use crate::backend::{Device, TensorMut, TensorRef};
use crate::cell;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::elementwise::{host_only, typed};
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};

/// A function of the elements of a tensor, or of its rows, by [Keras's names and constants](https://keras.io/api/layers/activations/).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ActivationFunction {
    /// `x`
    #[default]
    Linear,
    /// `tanh(x)`
    Tanh,
    /// `max(x, 0)`
    Relu,
    /// `1 / (1 + exp(-x))`
    Sigmoid,
    /// `clamp(x / 6 + 1/2, 0, 1)`
    HardSigmoid,
    /// `x / (1 + |x|)`
    Softsign,
    /// `ln(1 + exp(x))`
    Softplus,
    /// `x` above zero, `exp(x) - 1` below.
    Elu,
    /// [Klambauer et al. 2017](https://arxiv.org/abs/1706.02515).
    Selu,
    /// `x` above zero, `0.2 x` below.
    LeakyRelu,
    /// `exp(x)` over the sum of those of its row, the last axis.
    Softmax,
    /// The logarithm of that. On the host alone.
    LogSoftmax,
}

impl ActivationFunction {
    /// The function of each element, unless it is one of rows.
    pub fn elementwise(self) -> Option<cell::Activation> {
        Some(match self {
            ActivationFunction::Linear => cell::Activation::Linear,
            ActivationFunction::Tanh => cell::Activation::Tanh,
            ActivationFunction::Relu => cell::Activation::Relu,
            ActivationFunction::Sigmoid => cell::Activation::Sigmoid,
            ActivationFunction::HardSigmoid => cell::Activation::KERAS_HARD_SIGMOID,
            ActivationFunction::Softsign => cell::Activation::Softsign,
            ActivationFunction::Softplus => cell::Activation::Softplus,
            ActivationFunction::Elu => cell::Activation::Elu { alpha: 1.0 },
            ActivationFunction::Selu => cell::Activation::Selu,
            ActivationFunction::LeakyRelu => cell::Activation::LeakyRelu { alpha: 0.2 },
            ActivationFunction::Softmax | ActivationFunction::LogSoftmax => return None,
        })
    }

    /// The function of each element, where a layer takes no other.
    pub(super) fn of_elements(self, layer: &str, option: &str) -> Result<cell::Activation> {
        self.elementwise().ok_or_else(|| {
            Error::option(
                format!("{option} of {layer}"),
                "a function of each element",
                format!("{self:?}, one of rows"),
            )
        })
    }

    /// Puts it behind a value; the mask stays.
    pub(super) fn apply(self, builder: &mut Builder, value: Value) -> Result<Value> {
        if self == ActivationFunction::Linear {
            return Ok(value);
        }
        let shape = value.shape().to_vec();
        let activated = match self.elementwise() {
            Some(function) => elementwise(builder, &value, function)?,
            None => {
                let Some(&columns) = shape.last() else {
                    return Err(Error::shape(builder.name(), "inputs of at least one axis for a softmax", "none"));
                };
                match self {
                    ActivationFunction::LogSoftmax => {
                        let name = builder.name();
                        builder.op1(LogSoftmax { columns, name }, &[&value], &shape, 0..0)?
                    }
                    _ => builder.op1(Softmax { columns }, &[&value], &shape, 0..0)?,
                }
            }
        };
        Ok(activated.with_mask(value.mask()))
    }
}

/// An activation function as a layer, Keras's [`Activation`](https://keras.io/api/layers/core_layers/activation/). Shapes and masks
/// pass through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ActivationLayer {
    /// The function.
    pub activation: ActivationFunction,
}

impl ActivationLayer {
    /// A layer that applies `activation`.
    pub fn new(activation: ActivationFunction) -> Self {
        ActivationLayer { activation }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![self.activation.apply(builder, x.clone())?])
    }
}

/// `f(x)`, without mask.
pub(super) fn elementwise(builder: &mut Builder, x: &Value, function: cell::Activation) -> Result<Value> {
    builder.op1(Elementwise { function }, &[x], x.shape(), 0..0)
}

/// `y = f(x)`, element by element.
struct Elementwise {
    function: cell::Activation,
}

impl Op for Elementwise {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let mut y = pass.outputs.get(0)?;
        device.copy(pass.inputs.get(0)?, y.reborrow())?;
        device.add_bias_activate(self.function, None, y, None)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let from_input = self.function.derivative_needs_input();
        let values = if from_input { pass.inputs.get(0)? } else { pass.outputs.get(0)? };
        device.activation_gradient(self.function, pass.doutputs.get(0)?, values, pass.dinputs.get(0)?)
    }
}

/// The softmax of each row.
struct Softmax {
    columns: usize,
}

impl Op for Softmax {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let valid = SoftmaxMask { keys: None, causal: None };
        device.softmax(self.columns, pass.inputs.get(0)?, valid, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.softmax_gradient(self.columns, pass.outputs.get(0)?, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// The logarithm of the softmax of each row.
struct LogSoftmax {
    columns: usize,
    name: String,
}

impl Op for LogSoftmax {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        fn run<E: Scalar>(columns: usize, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
            let (x, y) = (x.host::<E>()?, y.host::<E>()?);
            for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
                let largest = x.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.wide()));
                let sum: f64 = x.iter().map(|x| (x.wide() - largest).exp()).sum();
                let shift = largest + sum.ln();
                x.iter().zip(y).for_each(|(x, y)| *y = E::of(x.wide() - shift));
            }
            Ok(())
        }
        host_only(device, &format!("the logarithm of a softmax in {}", self.name))?;
        typed!(device, run(self.columns, pass.inputs.get(0)?, pass.outputs.get(0)?))
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        fn run<E: Scalar>(columns: usize, y: TensorRef<'_>, dy: TensorRef<'_>, dx: TensorMut<'_>) -> Result<()> {
            let rows = y.host::<E>()?.chunks_exact(columns).zip(dy.host::<E>()?.chunks_exact(columns));
            for ((y, dy), dx) in rows.zip(dx.host::<E>()?.chunks_exact_mut(columns)) {
                let sum: f64 = dy.iter().map(|dy| dy.wide()).sum();
                for ((y, dy), dx) in y.iter().zip(dy).zip(dx) {
                    *dx = E::of(dy.wide() - y.wide().exp() * sum);
                }
            }
            Ok(())
        }
        typed!(device, run(self.columns, pass.outputs.get(0)?, pass.doutputs.get(0)?, pass.dinputs.get(0)?))
    }
}
