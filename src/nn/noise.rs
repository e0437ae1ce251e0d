//! Noise in training: [`GaussianNoise`], [`GaussianDropout`], [`SpatialDropout1D`].

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::dropout::check_rate;
use crate::nn::elementwise::typed;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::pooling::steps_and_features;
use crate::nn::recurrent::StepDropout;
use crate::nn::{Random, Scratch, one_input};

/// In training, normal noise added to every element: Keras's
/// [`GaussianNoise`](https://keras.io/api/layers/regularization_layers/gaussian_noise/). It is drawn on the host from the model's seed and the
/// number of the batch, the same for every device. Shapes and the sequence's mask pass through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{GaussianNoise, Lstm}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(GaussianNoise::new(0.1))?.add(Lstm::new(16))?; // against learning the training data by heart
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianNoise {
    /// Its standard deviation.
    pub stddev: f64,
}

impl GaussianNoise {
    /// A layer that adds noise of this standard deviation.
    pub fn new(stddev: f64) -> Self {
        GaussianNoise { stddev }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        if !(self.stddev.is_finite() && self.stddev >= 0.0) {
            let option = format!("stddev of {}", builder.name());
            return Err(Error::option(option, "a finite number, 0 or above", self.stddev));
        }
        Ok(vec![noisy(builder, one_input(builder, inputs)?, self.stddev, false)?])
    }
}

/// In training, every element multiplied with normal noise of mean 1 and variance `rate / (1 - rate)`, that of
/// [`Dropout`](crate::nn::Dropout): Keras's
/// [`GaussianDropout`](https://keras.io/api/layers/regularization_layers/gaussian_dropout/). It is drawn as by [`GaussianNoise`]. Shapes and the
/// sequence's mask pass through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{GaussianDropout, Lstm}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20, 3], 1)?;
/// model.add(Lstm::new(16))?.add(GaussianDropout::new(0.2))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GaussianDropout {
    /// The probability of dropping that it stands for.
    pub rate: f64,
}

impl GaussianDropout {
    /// A layer with the noise of a dropout with probability `rate`.
    pub fn new(rate: f64) -> Self {
        GaussianDropout { rate }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        check_rate(builder, "rate", self.rate)?;
        let stddev = (self.rate / (1.0 - self.rate)).sqrt();
        Ok(vec![noisy(builder, one_input(builder, inputs)?, stddev, true)?])
    }
}

/// `x` with noise in training, which is a factor or is added.
fn noisy(builder: &mut Builder, x: &Value, stddev: f64, factor: bool) -> Result<Value> {
    if stddev == 0.0 {
        return Ok(x.clone());
    }
    let number = builder.op_number();
    let shape = x.shape().to_vec();
    let op = Noise { stddev, factor, number, noise: Scratch::new() };
    Ok(builder.op1(op, &[x], &shape, 0..0)?.with_mask(x.mask()))
}

struct Noise {
    stddev: f64,
    /// Whether it is multiplied with rather than added.
    factor: bool,
    number: u32,
    /// The factors of a pass, for backward.
    noise: Scratch,
}

impl Noise {
    /// Draws as many numbers as `to` has.
    fn draw(&self, device: &Device, seed: u64, to: TensorMut<'_>) -> Result<()> {
        fn run<E: Scalar>(noise: &Noise, seed: u64, to: TensorMut<'_>) -> Result<()> {
            let (mean, mut random) = (f64::from(u8::from(noise.factor)), Random::new(seed, noise.number));
            to.host::<E>()?.iter_mut().for_each(|value| *value = E::of(mean + noise.stddev * random.normal()));
            Ok(())
        }
        if device.is_host() {
            return typed!(device, run(self, seed, to));
        }
        let mut drawn = Tensor::on_host("noise", device.dtype(), to.len())?;
        typed!(device, run(self, seed, drawn.view_mut()))?;
        device.upload_tensor(drawn.view(), to)
    }
}

impl Op for Noise {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (x, mut y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        if !pass.training {
            return device.copy(x, y);
        }
        if self.factor {
            self.noise.grow(device, "noise", x.len())?;
            let mut noise = std::mem::replace(&mut self.noise, Scratch::new());
            self.draw(device, pass.seed, noise.get_mut(x.len())?)?;
            self.noise = noise;
            return device.multiply(x, self.noise.get(x.len())?, y);
        }
        self.draw(device, pass.seed, y.reborrow())?;
        device.scale_add(1.0, x, 1.0, y)
    }

    fn passes_on(&self) -> Option<usize> {
        if self.factor { None } else { Some(0) }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (dy, dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        if self.factor { device.multiply(dy, self.noise.get(dy.len())?, dx) } else { device.copy(dy, dx) }
    }
}

/// In training, whole features of a sequence zeroed at random, at all steps alike, and the others scaled up: Keras's
/// [`SpatialDropout1D`](https://keras.io/api/layers/regularization_layers/spatial_dropout1d/)
/// ([Tompson et al. 2015](https://arxiv.org/abs/1411.4280)), for inputs `[steps, features]` whose neighbouring steps are alike. Drawn as by
/// [`Dropout`](crate::nn::Dropout). Shapes and the sequence's mask pass through.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Embedding, Lstm, SpatialDropout1D}};
///
/// let mut model = Sequential::new(Device::cpu(), &[20], 1)?;
/// model.add(Embedding::new(1000, 32))?.add(SpatialDropout1D::new(0.2))?.add(Lstm::new(16))?;
/// assert_eq!(model.output_shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SpatialDropout1D {
    /// Probability of zeroing a feature.
    pub rate: f64,
}

impl SpatialDropout1D {
    /// A layer that zeroes features with probability `rate`.
    pub fn new(rate: f64) -> Self {
        SpatialDropout1D { rate }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        check_rate(builder, "rate", self.rate)?;
        let (steps, features) = steps_and_features(builder, x)?;
        if self.rate == 0.0 {
            return Ok(vec![x.clone()]);
        }
        let op = StepDropout::new(self.rate, builder.op_number(), steps, features);
        Ok(vec![builder.op1(op, &[x], &[steps, features], 0..0)?.with_mask(x.mask())])
    }
}
