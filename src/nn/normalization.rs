//! Normalization layers: [`LayerNormalization`], [`BatchNormalization`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::Workspace;
use crate::backend::{Device, TensorMut, TensorRef};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::masking::row_mask;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

fn check_epsilon(builder: &Builder, epsilon: f64) -> Result<()> {
    if epsilon.is_finite() && epsilon > 0.0 {
        return Ok(());
    }
    Err(Error::option(format!("epsilon of {}", builder.name()), "a finite number above zero", epsilon))
}

/// Width of the last axis.
fn width(builder: &Builder, x: &Value) -> Result<usize> {
    x.shape().last().copied().ok_or_else(|| Error::shape(builder.name(), "inputs of at least one axis", "none"))
}

/// Each row, the last axis, brought to mean 0 and variance 1, then scaled and shifted by `gamma` and `beta` `[features]`:
/// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta`, Keras's
/// [`LayerNormalization`](https://keras.io/api/layers/normalization_layers/layer_normalization/) ([Ba et al. 2016](https://arxiv.org/abs/1607.06450)).
/// A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::LayerNormalization};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[3], 1)?;
/// model.add(LayerNormalization::new().epsilon(1e-6))?;
/// let y = model.predict(&array![[1.0f32, 2.0, 3.0]])?;
/// assert!(y[[0, 1]].abs() < 1e-6 && (y[[0, 2]] - 1.5f32.sqrt()).abs() < 1e-5);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LayerNormalization {
    /// Added to the variance; 0.001.
    pub epsilon: f64,
    /// Whether there is a `beta`; yes.
    pub center: bool,
    /// Whether there is a `gamma`; yes.
    pub scale: bool,
}

impl Default for LayerNormalization {
    fn default() -> Self {
        LayerNormalization { epsilon: 1e-3, center: true, scale: true }
    }
}

impl LayerNormalization {
    /// With Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what is added to the variance.
    #[must_use]
    pub fn epsilon(self, epsilon: f64) -> Self {
        LayerNormalization { epsilon, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![self.apply(builder, x)?])
    }

    /// The layer's output for `x`, as a part of a layer too.
    pub(super) fn apply(&self, builder: &mut Builder, x: &Value) -> Result<Value> {
        check_epsilon(builder, self.epsilon)?;
        let columns = width(builder, x)?;
        let (gamma, beta) = (self.scale, self.center);
        let weights = scale_and_shift(builder, columns, gamma, beta)?;
        let shape = x.shape().to_vec();
        let op = LayerNorm {
            columns,
            rows: x.size() / columns,
            epsilon: self.epsilon,
            gamma,
            beta,
            statistics: Scratch::new(),
            workspace: Scratch::new(),
        };
        Ok(builder.op1(op, &[x], &shape, weights)?.with_mask(x.mask()))
    }
}

fn scale_and_shift(builder: &mut Builder, columns: usize, gamma: bool, beta: bool) -> Result<std::ops::Range<usize>> {
    let gamma = gamma.then(|| builder.parameter("gamma", &[columns], Init::Constant(1.0))).transpose()?;
    let beta = beta.then(|| builder.parameter("beta", &[columns], Init::Constant(0.0))).transpose()?;
    Ok(match (gamma, beta) {
        (Some(gamma), Some(beta)) => gamma.start..beta.end,
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 0..0,
    })
}

/// Gamma and beta of an operation's weights, where it has them.
fn gamma_and_beta(
    weights: TensorRef<'_>,
    columns: usize,
    gamma: bool,
    beta: bool,
) -> Result<(Option<TensorRef<'_>>, Option<TensorRef<'_>>)> {
    let split = if gamma { columns } else { 0 };
    let (first, second) = (weights.part(0..split)?, weights.part(split..weights.len())?);
    Ok((gamma.then_some(first), beta.then_some(second)))
}

/// Gradients of gamma and beta, where there are these.
fn of_gamma_and_beta(
    gradients: TensorMut<'_>,
    columns: usize,
    gamma: bool,
    beta: bool,
) -> Result<(Option<TensorMut<'_>>, Option<TensorMut<'_>>)> {
    let (first, second) = gradients.split_at(if gamma { columns } else { 0 })?;
    Ok((gamma.then_some(first), beta.then_some(second)))
}

struct LayerNorm {
    columns: usize,
    /// Rows of a sample.
    rows: usize,
    epsilon: f64,
    gamma: bool,
    beta: bool,
    /// Mean and inverse deviation of each row.
    statistics: Scratch,
    workspace: Scratch,
}

impl Op for LayerNorm {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let len = 2 * self.rows * pass.batch;
        self.statistics.grow(device, "statistics of rows", len)?;
        let (gamma, beta) = gamma_and_beta(pass.parameters, self.columns, self.gamma, self.beta)?;
        let statistics = self.statistics.get_mut(len)?;
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        device.layer_norm(self.columns, self.epsilon, x, gamma, beta, y, statistics)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (rows, columns) = (self.rows * pass.batch, self.columns);
        let (gamma, _) = gamma_and_beta(pass.parameters, columns, self.gamma, self.beta)?;
        let (dgamma, dbeta) = of_gamma_and_beta(pass.dparameters, columns, self.gamma, self.beta)?;
        device.layer_norm_gradient(
            columns,
            pass.inputs.get(0)?,
            gamma,
            self.statistics.get(2 * rows)?,
            pass.doutputs.get(0)?,
            pass.dinputs.optional(0),
            dgamma,
            dbeta,
            pass.grad,
            self.workspace.for_call(device, Workspace::Normalization { rows, columns })?,
        )
    }
}

/// Each feature, the last axis, brought to mean 0 and variance 1 over the batch, then scaled and shifted by `gamma` and `beta`
/// `[features]`, Keras's [`BatchNormalization`](https://keras.io/api/layers/normalization_layers/batch_normalization/)
/// ([Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167)).
///
/// In training mean and variance are those of the batch (of its valid steps, where there is a mask), and `moving_mean`,
/// `moving_variance` follow them: `moving = momentum moving + (1 - momentum) batch`. Without training those are used, and by a
/// [frozen](crate::model::Model::set_trainable) layer in training too. A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{BatchNormalization, Lstm}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Lstm::new(16).return_sequences(true))?.add(BatchNormalization::new().momentum(0.9))?.add(Lstm::new(16))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BatchNormalization {
    /// What moving averages keep of themselves in a step; 0.99.
    pub momentum: f64,
    /// Added to the variance; 0.001.
    pub epsilon: f64,
    /// Whether there is a `beta`; yes.
    pub center: bool,
    /// Whether there is a `gamma`; yes.
    pub scale: bool,
}

impl Default for BatchNormalization {
    fn default() -> Self {
        BatchNormalization { momentum: 0.99, epsilon: 1e-3, center: true, scale: true }
    }
}

impl BatchNormalization {
    /// With Keras's defaults.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what moving averages keep of themselves in a step.
    #[must_use]
    pub fn momentum(self, momentum: f64) -> Self {
        BatchNormalization { momentum, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        check_epsilon(builder, self.epsilon)?;
        if !(0.0..=1.0).contains(&self.momentum) {
            let option = format!("momentum of {}", builder.name());
            return Err(Error::option(option, "at least 0 and at most 1", self.momentum));
        }
        let columns = width(builder, x)?;
        let weights = scale_and_shift(builder, columns, self.scale, self.center)?;
        let mean = builder.statistic("moving_mean", &[columns], Init::Constant(0.0))?;
        let variance = builder.variance("moving_variance", &[columns])?;
        let op = BatchNorm {
            columns,
            rows: x.size() / columns,
            momentum: self.momentum,
            epsilon: self.epsilon,
            gamma: self.scale,
            beta: self.center,
            frozen: builder.is_frozen(),
            zeros: Scratch::new(),
            moments: Scratch::new(),
            workspace: Scratch::new(),
        };
        let shape = x.shape().to_vec();
        let mask = row_mask(builder, x)?;
        let y = builder.op(op, &[Some(x), mask], &[&shape], weights, mean.start..variance.end)?.remove(0);
        Ok(vec![y.with_mask(x.mask())])
    }
}

struct BatchNorm {
    columns: usize,
    /// Rows of a sample.
    rows: usize,
    momentum: f64,
    epsilon: f64,
    gamma: bool,
    beta: bool,
    /// Whether the moving averages are used in training too.
    frozen: bool,
    zeros: Scratch,
    /// Mean and variance of the batch.
    moments: Scratch,
    workspace: Scratch,
}

impl Op for BatchNorm {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let columns = self.columns;
        let (gamma, beta) = gamma_and_beta(pass.parameters, columns, self.gamma, self.beta)?;
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        let moments = if pass.training && !self.frozen {
            self.moments.grow(device, "moments", 2 * columns)?;
            let (mean, variance) = self.moments.get_mut(2 * columns)?.split_at(columns)?;
            device.column_moments(columns, x, pass.inputs.optional(1), mean, variance)?;
            let moments = self.moments.get(2 * columns)?;
            device.scale_add(1.0 - self.momentum, moments, self.momentum, pass.statistics)?;
            moments
        } else {
            pass.statistics.into_view()
        };
        let (mean, variance) = (moments.part(0..columns)?, moments.part(columns..2 * columns)?);
        device.batch_norm(columns, self.epsilon, x, mean, variance, gamma, beta, y)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (rows, columns) = (self.rows * pass.batch, self.columns);
        let (gamma, _) = gamma_and_beta(pass.parameters, columns, self.gamma, self.beta)?;
        if self.frozen {
            // What is wanted is `dx = dy gamma / sqrt(variance + epsilon)`, which is the layer itself with a mean of zero.
            let (dy, Some(dx)) = (pass.doutputs.get(0)?, pass.dinputs.optional(0)) else { return Ok(()) };
            self.zeros.grow(device, "a mean of zero", columns)?;
            device.fill(self.zeros.get_mut(columns)?, 0.0)?;
            let (mean, variance) = (self.zeros.get(columns)?, pass.statistics.part(columns..2 * columns)?);
            return device.batch_norm(columns, self.epsilon, dy, mean, variance, gamma, None, dx);
        }
        let (dgamma, dbeta) = of_gamma_and_beta(pass.dparameters, columns, self.gamma, self.beta)?;
        let moments = self.moments.get(2 * columns)?;
        device.batch_norm_gradient(
            columns,
            self.epsilon,
            pass.inputs.get(0)?,
            pass.inputs.optional(1),
            moments.part(0..columns)?,
            moments.part(columns..2 * columns)?,
            gamma,
            pass.doutputs.get(0)?,
            pass.dinputs.optional(0),
            dgamma,
            dbeta,
            pass.grad,
            self.workspace.for_call(device, Workspace::Normalization { rows, columns })?,
        )
    }
}
