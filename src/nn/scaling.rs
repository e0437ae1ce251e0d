//! Layers that bring features to a common scale without weights that training changes: [`Normalization`], [`UnitNormalization`].

use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::defaults;
use crate::nn::dot::axis_of;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::reduce::{Reduce, Reduction};
use crate::nn::repeat::broadcast;
use crate::nn::{Elementwise, Function, Scratch, merge, one_input};

/// What Keras adds to nothing but takes at least for a deviation, 1e-7, squared.
const LEAST_VARIANCE: f64 = 1e-14;

/// `(x - mean) / sqrt(variance)` with a mean and a variance that stay as they are, Keras's
/// [`Normalization`](https://keras.io/api/layers/preprocessing_layers/numerical/normalization/). Tensors `mean` (zeros) and `variance` (ones),
/// `[features]`, or `[1]` for all alike, which training does not change:
/// [`Model::set_weight`](crate::model::Model::set_weight) gives them the data's. A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Normalization};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
/// let features = array![[1.0f32, 10.0], [3.0, 30.0]];
/// let (mean, variance) = (vec![2.0f32, 20.0], vec![1.0f32, 100.0]);
/// model.add(Normalization::new())?;
/// model.set_weight("normalization.mean", &mean)?;
/// model.set_weight("normalization.variance", &variance)?;
/// assert_eq!(model.predict(&features)?, array![[-1.0f32, -1.0], [1.0, 1.0]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Normalization {
    /// Whether each feature, the last axis, has a mean and a variance of its own; yes. Keras's `axis=-1`, otherwise `axis=None`.
    #[serde(default = "defaults::yes")]
    pub by_feature: bool,
}

impl Default for Normalization {
    fn default() -> Self {
        Normalization { by_feature: true }
    }
}

impl Normalization {
    /// Each feature by itself.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets whether each feature has a mean and a variance of its own.
    #[must_use]
    pub fn by_feature(self, by_feature: bool) -> Self {
        Normalization { by_feature }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let Some(&features) = x.shape().last() else {
            return Err(Error::shape(builder.name(), "inputs of at least one axis", "none"));
        };
        let columns = if self.by_feature { features } else { 1 };
        let mean = builder.statistic("mean", &[columns], Init::Constant(0.0))?;
        let variance = builder.variance("variance", &[columns])?;
        let op = Standardize { columns, kept: Scratch::new() };
        let y = builder.op(op, &[Some(x)], &[x.shape()], 0..0, mean.start..variance.end)?.remove(0);
        Ok(vec![y.with_mask(x.mask())])
    }
}

struct Standardize {
    columns: usize,
    /// Zeros for a mean.
    kept: Scratch,
}

impl Op for Standardize {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let n = self.columns;
        let statistics = pass.statistics.into_view();
        let (mean, variance) = (statistics.part(0..n)?, statistics.part(n..2 * n)?);
        device.batch_norm(n, LEAST_VARIANCE, pass.inputs.get(0)?, mean, variance, None, None, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let n = self.columns;
        let Some(dx) = pass.dinputs.optional(0) else { return Ok(()) };
        self.kept.grow(device, "zeros", n)?;
        device.fill(self.kept.get_mut(n)?, 0.0)?;
        let (zeros, variance) = (self.kept.get(n)?, pass.statistics.part(n..2 * n)?);
        device.batch_norm(n, LEAST_VARIANCE, pass.doutputs.get(0)?, zeros, variance, None, None, dx)
    }
}

/// Vectors along axes brought to length 1, Keras's
/// [`UnitNormalization`](https://keras.io/api/layers/normalization_layers/unit_normalization/): `x / sqrt(Σ x²)`, and zeros stay zeros. On
/// the host alone. A mask passes through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::UnitNormalization};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
/// model.add(UnitNormalization::new())?;
/// let y = model.predict(&array![[3.0f32, 4.0]])?;
/// assert!((y[[0, 0]] - 0.6).abs() < 1e-6 && (y[[0, 1]] - 0.8).abs() < 1e-6);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UnitNormalization {
    /// The axes, counted from 1 as the batch is axis 0, or from -1 backwards; -1, the last.
    pub axes: Vec<i64>,
}

impl Default for UnitNormalization {
    fn default() -> Self {
        UnitNormalization { axes: vec![-1] }
    }
}

impl UnitNormalization {
    /// Along the last axis.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the axes.
    #[must_use]
    pub fn axes(self, axes: &[i64]) -> Self {
        UnitNormalization { axes: axes.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let axes = self.axes.iter().map(|axis| axis_of(builder, "axes", *axis, x.shape().len()));
        let mut axes = axes.collect::<Result<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        Ok(vec![unit(builder, x, &axes)?.with_mask(x.mask())])
    }
}

/// `x` with vectors along these axes, counted from 0 and in rising order, of length 1; without mask.
pub(super) fn unit(builder: &mut Builder, x: &Value, axes: &[usize]) -> Result<Value> {
    // The root of the smallest sum is what Keras takes for nothing, 1e-12.
    const LEAST: f64 = 1e-24;
    let from_one: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
    let squares = merge::product(builder, x, x)?;
    let mut value = Reduce::new(Reduction::Sum, &from_one).build(builder, &[squares])?;
    for function in [Function::Clip { low: LEAST, high: f64::MAX }, Function::Power { exponent: -0.5 }] {
        value = Elementwise::new(function).build(builder, &value)?;
    }
    let kept: Vec<usize> =
        x.shape().iter().enumerate().map(|(axis, n)| if axes.contains(&axis) { 1 } else { *n }).collect();
    let factor = builder.reshaped(&value.remove(0), &kept)?;
    let factor = broadcast(builder, &factor, x.shape())?;
    merge::product(builder, x, &factor)
}
