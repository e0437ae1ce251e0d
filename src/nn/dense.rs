//! The fully connected layer.

use serde::{Deserialize, Serialize};

use crate::backend::ops::{MatMul, Orientation, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::cell;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::defaults;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::weight_options::{KerasShape, activity_word, regularize, weight_words};
use crate::nn::{ActivationFunction, Regularizer, Scratch, WeightOptions, one_input};

/// `y = f(x Wᵀ + b)` along the last axis, Keras's [`Dense`](https://keras.io/api/layers/core_layers/dense/): `[…, features]` to
/// `[…, units]`. Weights `weight` `[units, features]` (Glorot uniform) and `bias` `[units]` (zeros). A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{ActivationFunction, Dense}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// model.add(Dense::new(4).activation(ActivationFunction::Relu))?; // of every step
/// assert_eq!(model.output_shape(), [10, 4]);
/// assert_eq!(model.count_params(), 3 * 4 + 4);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dense {
    /// Width of the output.
    pub units: usize,
    /// f; linear.
    #[serde(default)]
    pub activation: ActivationFunction,
    /// Whether there is a bias; yes.
    #[serde(default = "defaults::yes")]
    pub use_bias: bool,
    /// Initializer, regularizer and constraint of the weights.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub kernel: WeightOptions,
    /// The same of the bias.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub bias: WeightOptions,
    /// What the output adds to the loss; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity_regularizer: Option<Regularizer>,
}

impl Dense {
    /// A layer with `units` outputs.
    pub fn new(units: usize) -> Self {
        Dense {
            units,
            activation: ActivationFunction::Linear,
            use_bias: true,
            kernel: WeightOptions::default(),
            bias: WeightOptions::default(),
            activity_regularizer: None,
        }
    }

    weight_words! {
        [kernel] kernel_initializer kernel_regularizer kernel_constraint, "the weight";
        [bias] bias_initializer bias_regularizer bias_constraint, "the bias";
    }

    activity_word!(activity_regularizer);

    /// Sets the activation function.
    #[must_use]
    pub fn activation(self, activation: ActivationFunction) -> Self {
        Dense { activation, ..self }
    }

    /// Sets whether there is a bias.
    #[must_use]
    pub fn use_bias(self, use_bias: bool) -> Self {
        Dense { use_bias, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![self.apply(builder, x)?])
    }

    /// The layer's output for `x`, as a part of a layer too.
    pub(super) fn apply(&self, builder: &mut Builder, x: &Value) -> Result<Value> {
        let Some((&features, leading)) = x.shape().split_last() else {
            return Err(Error::shape(builder.name(), "inputs of at least one axis", "none"));
        };
        if self.units == 0 {
            return Err(Error::ZeroSize { name: "units" });
        }
        let shape: Vec<usize> = leading.iter().copied().chain([self.units]).collect();
        let init = Init::GlorotUniform { fan_in: features, fan_out: self.units };
        let (name, shape_of) = (("weight", "kernel"), [self.units, features]);
        let weight = self.kernel.declare(builder, name, &shape_of, init, KerasShape::Transposed, None)?;
        let (name, zeros) = (("bias", "bias"), Init::Constant(0.0));
        let end = match self.use_bias {
            true => self.bias.declare(builder, name, &[self.units], zeros, KerasShape::Same, None)?.end,
            false => weight.end,
        };
        // The functions of elements that can be undone from their output need no operation, and no tensor, of their own.
        let inside = self.activation.elementwise().filter(|f| !f.derivative_needs_input());
        let op = DenseOp {
            features,
            units: self.units,
            rows: leading.iter().product(),
            use_bias: self.use_bias,
            activation: inside.unwrap_or(cell::Activation::Linear),
            dz: Scratch::new(),
            workspace: Scratch::new(),
        };
        let y = builder.op1(op, &[x], &shape, weight.start..end)?.with_mask(x.mask());
        let y = if inside.is_some() { y } else { self.activation.apply(builder, y)? };
        regularize(builder, std::slice::from_ref(&y), self.activity_regularizer)?;
        Ok(y)
    }
}

/// `x Wᵀ`, with a bias where the weights `[units, features]` are followed by one.
pub(super) fn linear(builder: &mut Builder, x: &Value, units: usize, weights: std::ops::Range<usize>) -> Result<Value> {
    let (features, leading) = match x.shape().split_last() {
        Some((&features, leading)) => (features, leading),
        None => return Err(Error::shape(builder.name(), "inputs of at least one axis", "none")),
    };
    let op = DenseOp {
        features,
        units,
        rows: leading.iter().product(),
        use_bias: weights.len() > units * features,
        activation: cell::Activation::Linear,
        dz: Scratch::new(),
        workspace: Scratch::new(),
    };
    let shape: Vec<usize> = leading.iter().copied().chain([units]).collect();
    Ok(builder.op1(op, &[x], &shape, weights)?.with_mask(x.mask()))
}

struct DenseOp {
    features: usize,
    units: usize,
    /// Rows of `features` in one sample.
    rows: usize,
    use_bias: bool,
    activation: cell::Activation,
    /// Gradient of what goes into the activation.
    dz: Scratch,
    workspace: Scratch,
}

impl DenseOp {
    fn product(&self, orientation: Orientation, batch: usize) -> MatMul {
        let (rows, units, features) = (self.rows * batch, self.units, self.features);
        let (m, n, k) = match orientation {
            Orientation::Nt => (rows, units, features),
            Orientation::Nn => (rows, features, units),
            Orientation::Tn => (units, features, rows),
        };
        MatMul::single(orientation, m, n, k)
    }
}

impl Op for DenseOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let split = self.units * self.features;
        let product = self.product(Orientation::Nt, pass.batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(product))?;
        let weight = pass.parameters.part(0..split)?;
        let mut y = pass.outputs.get(0)?;
        let linear = self.activation == cell::Activation::Linear;
        if self.use_bias && linear {
            let bias = pass.parameters.part(split..split + self.units)?;
            return device.matmul_bias(product, pass.inputs.get(0)?, weight, bias, y, workspace);
        }
        device.matmul(product, 1.0, pass.inputs.get(0)?, weight, y.reborrow(), WeightGrad::Set, workspace)?;
        if self.use_bias {
            let bias = pass.parameters.part(split..split + self.units)?;
            device.add_bias_activate(self.activation, Some(bias), y, None)
        } else if !linear {
            device.add_bias_activate(self.activation, None, y, None)
        } else {
            Ok(())
        }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let split = self.units * self.features;
        let rows = self.rows * pass.batch;
        let dy = if self.activation == cell::Activation::Linear {
            pass.doutputs.get(0)?
        } else {
            self.dz.grow(device, "dz", rows * self.units)?;
            let dz = self.dz.get_mut(rows * self.units)?;
            device.activation_gradient(self.activation, pass.doutputs.get(0)?, pass.outputs.get(0)?, dz)?;
            self.dz.get(rows * self.units)?
        };
        let (dweight, dbias) = pass.dparameters.split_at(split)?;
        if self.use_bias {
            let sizes = [1, rows, self.units];
            let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
            device.sum_axis(sizes, 1.0, dy, dbias, pass.grad, workspace)?;
        }
        let of_weight = self.product(Orientation::Tn, pass.batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_weight))?;
        device.matmul(of_weight, 1.0, dy, pass.inputs.get(0)?, dweight, pass.grad, workspace)?;
        let Some(dx) = pass.dinputs.optional(0) else { return Ok(()) };
        let of_input = self.product(Orientation::Nn, pass.batch);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_input))?;
        let weight = pass.parameters.part(0..split)?;
        device.matmul(of_input, 1.0, dy, weight, dx, WeightGrad::Set, workspace)
    }
}
