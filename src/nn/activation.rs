//! Activation functions with Keras's names and constants: [`ActivationFunction`], and the layers [`ActivationLayer`] and [`Softmax`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::SoftmaxMask;
use crate::backend::{Device, TensorMut, TensorRef};
use crate::cell;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::elementwise::{host_only, mapped, typed};
use crate::nn::function::Function;
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::shape::permuted;

/// A function of the elements of a tensor, or of its rows, by [Keras's names and constants](https://keras.io/api/layers/activations/).
///
/// ```
/// use fused_rnn::nn::{ActivationFunction, Dense, Lstm};
/// let layer = Dense::new(10).activation(ActivationFunction::Softmax);
/// let layer = Lstm::new(10).activation(ActivationFunction::Relu).recurrent_activation(ActivationFunction::HardSigmoid);
/// ```
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
    /// `min(max(x, 0), 6)`
    Relu6,
    /// `x Φ(x)`, [Hendrycks and Gimpel 2016](https://arxiv.org/abs/1606.08415): Keras's `gelu(x, approximate=False)`, its default.
    Gelu,
    /// The same with Φ approximated by a tanh, Keras's `gelu(x, approximate=True)`.
    GeluTanh,
    /// `x / (1 + exp(-x))`, also called swish.
    #[serde(alias = "swish")]
    Silu,
    /// `x clamp(x / 6 + 1/2, 0, 1)`, also called hard swish.
    #[serde(alias = "hard_swish")]
    HardSilu,
    /// `x tanh(ln(1 + exp(x)))` ([Misra 2019](https://arxiv.org/abs/1908.08681)).
    Mish,
    /// `exp(x)`
    Exponential,
    /// `exp(x)` over the sum of those of its row, the last axis.
    Softmax,
    /// The logarithm of that. On the host alone.
    LogSoftmax,
}

impl ActivationFunction {
    /// The function of each element, unless it is one of rows.
    pub fn function(self) -> Option<Function> {
        Some(match self {
            ActivationFunction::Linear => Function::Affine { alpha: 1.0, beta: 0.0 },
            ActivationFunction::Tanh => Function::Tanh,
            ActivationFunction::Relu => Function::Relu,
            ActivationFunction::Sigmoid => Function::Sigmoid,
            ActivationFunction::HardSigmoid => Function::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 },
            ActivationFunction::Softsign => Function::Softsign,
            ActivationFunction::Softplus => Function::Softplus,
            ActivationFunction::Elu => Function::Elu { alpha: 1.0 },
            ActivationFunction::Selu => Function::Selu,
            ActivationFunction::LeakyRelu => Function::LeakyRelu { alpha: 0.2 },
            ActivationFunction::Relu6 => Function::Clip { low: 0.0, high: 6.0 },
            ActivationFunction::Gelu => Function::Gelu { approximate: false },
            ActivationFunction::GeluTanh => Function::Gelu { approximate: true },
            ActivationFunction::Silu => Function::Silu,
            ActivationFunction::HardSilu => Function::HardSwish,
            ActivationFunction::Mish => Function::Mish,
            ActivationFunction::Exponential => Function::Exp,
            ActivationFunction::Softmax | ActivationFunction::LogSoftmax => return None,
        })
    }

    /// The function of each element, where recurrent cells have it too: then it needs no operation of its own.
    pub fn elementwise(self) -> Option<cell::Activation> {
        match self {
            ActivationFunction::Linear => Some(cell::Activation::Linear),
            _ => self.function()?.activation(),
        }
    }

    /// The function of each element, where a layer takes no other.
    pub(super) fn of_elements(self, layer: &str, option: &str) -> Result<cell::Activation> {
        self.elementwise().ok_or_else(|| {
            let got = match self.function() {
                Some(_) => format!("{self:?}, which recurrent cells have not"),
                None => format!("{self:?}, one of rows"),
            };
            let expected = "linear, tanh, relu, sigmoid, hard_sigmoid, softsign, softplus, elu, selu or leaky_relu";
            Error::option(format!("{option} of {layer}"), expected, got)
        })
    }

    /// Puts it behind a value; the mask stays.
    pub(super) fn apply(self, builder: &mut Builder, value: Value) -> Result<Value> {
        if self == ActivationFunction::Linear {
            return Ok(value);
        }
        let shape = value.shape().to_vec();
        let activated = match self.function() {
            Some(function) => mapped(builder, &value, function)?,
            None => {
                let Some(&columns) = shape.last() else {
                    return Err(Error::shape(builder.name(), "inputs of at least one axis for a softmax", "none"));
                };
                match self {
                    ActivationFunction::LogSoftmax => {
                        let name = builder.name();
                        builder.op1(LogSoftmax { columns, name }, &[&value], &shape, 0..0)?
                    }
                    _ => builder.op1(SoftmaxOp { columns }, &[&value], &shape, 0..0)?,
                }
            }
        };
        Ok(activated.with_mask(value.mask()))
    }
}

/// An activation function as a layer, Keras's [`Activation`](https://keras.io/api/layers/core_layers/activation/). Shapes and masks
/// pass through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{ActivationFunction, ActivationLayer}};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
/// model.add(ActivationLayer::new(ActivationFunction::Relu))?;
/// assert_eq!(model.predict(&array![[-1.0f32, 2.0]])?, array![[0.0f32, 2.0]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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

/// The softmax along an axis, Keras's [`Softmax`](https://keras.io/api/layers/activation_layers/softmax/). Shapes and masks pass through.
/// (Of a mask that says which steps are absent nothing is taken, where Keras has no way to apply one that is shorter than the input.)
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Softmax};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[3, 2], 1)?;
/// model.add(Softmax::new().axis(1))?; // over the 3 steps; axis 0 is that of the samples
/// let y = model.predict(&array![[[0.0f32, 1.0], [0.0, 1.0], [0.0, 1.0]]])?;
/// assert!(y.iter().all(|p| (p - 1.0 / 3.0).abs() < 1e-6));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Softmax {
    /// The axis, counted from 1 as the batch is axis 0, or from -1 backwards; -1, the last.
    #[serde(default = "last")]
    pub axis: i64,
}

fn last() -> i64 {
    -1
}

impl Default for Softmax {
    fn default() -> Self {
        Softmax { axis: last() }
    }
}

impl Softmax {
    /// Along the last axis.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the axis, counted from 1 as the batch is axis 0, or from -1 backwards.
    #[must_use]
    pub fn axis(self, axis: i64) -> Self {
        Softmax { axis }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let axes = x.shape().len();
        let axis = sample_axis(builder, "axis", self.axis, axes)?;
        if axis + 1 == axes {
            return Ok(vec![ActivationFunction::Softmax.apply(builder, x.clone())?]);
        }
        // The axis changes places with the last one, and back.
        let mut order: Vec<usize> = (0..axes).collect();
        order.swap(axis, axes - 1);
        let turned = permuted(builder, x, &order)?;
        let y = ActivationFunction::Softmax.apply(builder, turned)?;
        Ok(vec![permuted(builder, &y, &order)?.with_mask(x.mask())])
    }
}

/// An axis of a sample, counted from 0, where Keras counts the batch as axis 0, and from -1 backwards.
pub(super) fn sample_axis(builder: &Builder, option: &str, axis: i64, axes: usize) -> Result<usize> {
    let found = match usize::try_from(axis) {
        Ok(axis) => axis.checked_sub(1),
        Err(_) => usize::try_from(axis.unsigned_abs()).ok().and_then(|back| axes.checked_sub(back)),
    };
    found.filter(|axis| *axis < axes).ok_or_else(|| {
        let expected = format!("1 to {axes}, the axes behind the batch, or -1 to -{axes}");
        Error::option(format!("{option} of {}", builder.name()), expected, axis)
    })
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
struct SoftmaxOp {
    columns: usize,
}

impl Op for SoftmaxOp {
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
