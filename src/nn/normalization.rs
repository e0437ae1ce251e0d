//! Layers that even out scales: [`LayerNormalization`], [`BatchNormalization`].

use serde::{Deserialize, Serialize};

use crate::backend::DenseBackend;
use crate::backend::dense::DenseCall;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

fn check_epsilon<B: DenseBackend + 'static>(builder: &Builder<B>, epsilon: f64) -> Result<()> {
    if epsilon.is_finite() && epsilon > 0.0 {
        return Ok(());
    }
    Err(Error::option(format!("epsilon of {}", builder.name()), "a finite number above zero", epsilon))
}

/// Width of the last axis.
fn width<B: DenseBackend + 'static>(builder: &Builder<B>, x: &Value) -> Result<usize> {
    x.shape().last().copied().ok_or_else(|| Error::shape(builder.name(), "inputs of at least one axis", "none"))
}

/// Each row, the last axis, brought to mean 0 and variance 1, then scaled and shifted by `gamma` and `beta` `[features]`:
/// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta`, Keras's
/// [`LayerNormalization`](https://keras.io/api/layers/normalization_layers/layer_normalization/) ([Ba et al. 2016](https://arxiv.org/abs/1607.06450)).
/// A mask passes through.
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

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![self.apply(builder, x)?])
    }

    /// The layer's output for `x`, as a part of a layer too.
    pub(super) fn apply<B: DenseBackend + 'static>(&self, builder: &mut Builder<B>, x: &Value) -> Result<Value> {
        check_epsilon(builder, self.epsilon)?;
        let columns = width(builder, x)?;
        let (gamma, beta) = (self.scale, self.center);
        let weights = scale_and_shift(builder, columns, gamma, beta)?;
        let shape = x.shape().to_vec();
        let op = LayerNorm::<B> {
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

fn scale_and_shift<B: DenseBackend + 'static>(
    builder: &mut Builder<B>,
    columns: usize,
    gamma: bool,
    beta: bool,
) -> Result<std::ops::Range<usize>> {
    let gamma = gamma.then(|| builder.parameter("gamma", &[columns], Init::Constant(1.0))).transpose()?;
    let beta = beta.then(|| builder.parameter("beta", &[columns], Init::Constant(0.0))).transpose()?;
    Ok(match (gamma, beta) {
        (Some(gamma), Some(beta)) => gamma.start..beta.end,
        (Some(only), None) | (None, Some(only)) => only,
        (None, None) => 0..0,
    })
}

/// Gamma and beta, or their gradients, of an operation's weights.
macro_rules! gamma_and_beta {
    ($backend:expr, $op:expr, $view:ident, $weights:expr) => {{
        let (columns, gamma, beta) = ($op.columns, $op.gamma, $op.beta);
        let (first, second) = $backend.$view($weights, if gamma { columns } else { 0 })?;
        (gamma.then_some(first), beta.then_some(second))
    }};
}

struct LayerNorm<B: DenseBackend> {
    columns: usize,
    /// Rows of a sample.
    rows: usize,
    epsilon: f64,
    gamma: bool,
    beta: bool,
    /// Mean and inverse deviation of each row.
    statistics: Scratch<B>,
    workspace: Scratch<B>,
}

impl<B: DenseBackend> Op<B> for LayerNorm<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let len = 2 * self.rows * pass.batch;
        self.statistics.grow(backend, "statistics of rows", len)?;
        let (gamma, beta) = gamma_and_beta!(backend, self, split, pass.parameters);
        backend.layer_norm(
            self.columns,
            self.epsilon,
            pass.inputs.get(0)?,
            gamma.as_deref(),
            beta.as_deref(),
            pass.outputs.get(0)?,
            &mut *self.statistics.get_mut(backend, len)?,
        )
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let rows = self.rows * pass.batch;
        let call = DenseCall::Normalization { rows, columns: self.columns };
        self.workspace.grow(backend, "workspace", backend.dense_workspace(call))?;
        let (gamma, _) = gamma_and_beta!(backend, self, split, pass.parameters);
        let (mut dgamma, mut dbeta) = gamma_and_beta!(backend, self, split_mut, pass.dparameters);
        backend.layer_norm_gradient(
            self.columns,
            pass.inputs.get(0)?,
            gamma.as_deref(),
            &*self.statistics.get(backend, 2 * rows)?,
            pass.doutputs.get(0)?,
            pass.dinputs.optional(0),
            dgamma.as_deref_mut(),
            dbeta.as_deref_mut(),
            pass.grad,
            self.workspace.all()?,
        )
    }
}

/// Each feature, the last axis, brought to mean 0 and variance 1 over the batch, then scaled and shifted by `gamma` and `beta`
/// `[features]`, Keras's [`BatchNormalization`](https://keras.io/api/layers/normalization_layers/batch_normalization/)
/// ([Ioffe and Szegedy 2015](https://arxiv.org/abs/1502.03167)).
///
/// In training mean and variance are those of the batch (of its valid steps, where there is a mask), and `moving_mean`,
/// `moving_variance` follow them: `moving = momentum moving + (1 - momentum) batch`. Without training those are used. A mask passes
/// through.
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

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        check_epsilon(builder, self.epsilon)?;
        if !(0.0..=1.0).contains(&self.momentum) {
            let option = format!("momentum of {}", builder.name());
            return Err(Error::option(option, "at least 0 and at most 1", self.momentum));
        }
        let columns = width(builder, x)?;
        let weights = scale_and_shift(builder, columns, self.scale, self.center)?;
        let mean = builder.statistic("moving_mean", &[columns], Init::Constant(0.0))?;
        let variance = builder.statistic("moving_variance", &[columns], Init::Constant(1.0))?;
        let op = BatchNorm::<B> {
            columns,
            rows: x.size() / columns,
            momentum: self.momentum,
            epsilon: self.epsilon,
            gamma: self.scale,
            beta: self.center,
            moments: Scratch::new(),
            workspace: Scratch::new(),
        };
        let shape = x.shape().to_vec();
        let mask = x.mask().filter(|mask| mask.size() == x.size() / columns);
        let y = builder.op(op, &[Some(x), mask], &[&shape], weights, mean.start..variance.end)?.remove(0);
        Ok(vec![y.with_mask(x.mask())])
    }
}

struct BatchNorm<B: DenseBackend> {
    columns: usize,
    /// Rows of a sample.
    rows: usize,
    momentum: f64,
    epsilon: f64,
    gamma: bool,
    beta: bool,
    /// Mean and variance of the batch.
    moments: Scratch<B>,
    workspace: Scratch<B>,
}

impl<B: DenseBackend> Op<B> for BatchNorm<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let columns = self.columns;
        let (gamma, beta) = gamma_and_beta!(backend, self, split, pass.parameters);
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        if pass.training {
            self.moments.grow(backend, "moments", 2 * columns)?;
            let mut moments = self.moments.get_mut(backend, 2 * columns)?;
            let (mut mean, mut variance) = backend.split_mut(&mut moments, columns)?;
            backend.column_moments(columns, x, pass.inputs.optional(1), &mut mean, &mut variance)?;
            drop((mean, variance));
            drop(moments);
            let moments = self.moments.get(backend, 2 * columns)?;
            backend.scale_add(1.0 - self.momentum, &moments, self.momentum, pass.statistics)?;
            let (mean, variance) = backend.split(&moments, columns)?;
            backend.batch_norm(columns, self.epsilon, x, &mean, &variance, gamma.as_deref(), beta.as_deref(), y)
        } else {
            let (mean, variance) = backend.split(pass.statistics, columns)?;
            backend.batch_norm(columns, self.epsilon, x, &mean, &variance, gamma.as_deref(), beta.as_deref(), y)
        }
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let columns = self.columns;
        let call = DenseCall::Normalization { rows: self.rows * pass.batch, columns };
        self.workspace.grow(backend, "workspace", backend.dense_workspace(call))?;
        let (gamma, _) = gamma_and_beta!(backend, self, split, pass.parameters);
        let (mut dgamma, mut dbeta) = gamma_and_beta!(backend, self, split_mut, pass.dparameters);
        let moments = self.moments.get(backend, 2 * columns)?;
        let (mean, variance) = backend.split(&moments, columns)?;
        backend.batch_norm_gradient(
            columns,
            self.epsilon,
            pass.inputs.get(0)?,
            pass.inputs.optional(1),
            &mean,
            &variance,
            gamma.as_deref(),
            pass.doutputs.get(0)?,
            pass.dinputs.optional(0),
            dgamma.as_deref_mut(),
            dbeta.as_deref_mut(),
            pass.grad,
            self.workspace.all()?,
        )
    }
}
