//! Where weights start, as an option of a layer: [`Initializer`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::Random;
use crate::nn::init;

/// Where a weight tensor of a layer starts: Keras's [initializers](https://keras.io/api/layers/initializers/), with its defaults where
/// [`Default`] or a function gives them; constants are at most 1e30 in size. "Inputs" and "outputs" are those of a unit, as Keras counts them by the shape of its kernel.
///
/// ```
/// use fused_rnn::nn::{Dense, Initializer, Lstm};
/// let layer = Dense::new(10).kernel_initializer(Initializer::HeNormal);
/// let layer = Lstm::new(10).recurrent_initializer(Initializer::GlorotUniform).bias_initializer(Initializer::Zeros);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Initializer {
    /// All 0.
    Zeros,
    /// All 1.
    Ones,
    /// All this.
    Constant {
        /// The value.
        value: f64,
    },
    /// Normal; Keras's defaults are [`Initializer::RANDOM_NORMAL`].
    RandomNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation.
        stddev: f64,
    },
    /// Uniform; Keras's defaults are [`Initializer::RANDOM_UNIFORM`].
    RandomUniform {
        /// The least value.
        minval: f64,
        /// The largest.
        maxval: f64,
    },
    /// Normal, drawn again where it is more than two standard deviations away; Keras's defaults are [`Initializer::TRUNCATED_NORMAL`].
    TruncatedNormal {
        /// Mean.
        mean: f64,
        /// Standard deviation of what is cut off.
        stddev: f64,
    },
    /// Uniform in `±sqrt(6 / (inputs + outputs))` ([Glorot and Bengio 2010](https://proceedings.mlr.press/v9/glorot10a.html)).
    GlorotUniform,
    /// Truncated normal of standard deviation `sqrt(2 / (inputs + outputs))`.
    GlorotNormal,
    /// Uniform in `±sqrt(6 / inputs)` ([He et al. 2015](https://arxiv.org/abs/1502.01852)).
    HeUniform,
    /// Truncated normal of standard deviation `sqrt(2 / inputs)`.
    HeNormal,
    /// Uniform in `±sqrt(3 / inputs)` ([Klambauer et al. 2017](https://arxiv.org/abs/1706.02515)).
    LecunUniform,
    /// Truncated normal of standard deviation `sqrt(1 / inputs)`.
    LecunNormal,
    /// A matrix with orthonormal columns, or rows where those are fewer, times `gain`
    /// ([Saxe et al. 2014](https://arxiv.org/abs/1312.6120)). Axes before the last count as one.
    Orthogonal {
        /// What it is multiplied with; 1.
        gain: f64,
    },
    /// `gain` on the diagonal of a matrix, 0 elsewhere: with it and relu, a SimpleRNN remembers
    /// ([Le et al. 2015](https://arxiv.org/abs/1504.00941)).
    Identity {
        /// What stands on the diagonal; 1.
        gain: f64,
    },
}

/// Largest constant in size.
const LARGEST: f64 = 1e30;

/// Standard deviation of a normal distribution cut off at two of its own.
const TRUNCATED: f64 = 0.879_625_661_034_239_8;

impl Initializer {
    /// [`RandomNormal`](Self::RandomNormal) with mean 0 and standard deviation 0.05.
    pub const RANDOM_NORMAL: Initializer = Initializer::RandomNormal { mean: 0.0, stddev: 0.05 };
    /// [`RandomUniform`](Self::RandomUniform) in ±0.05.
    pub const RANDOM_UNIFORM: Initializer = Initializer::RandomUniform { minval: -0.05, maxval: 0.05 };
    /// [`TruncatedNormal`](Self::TruncatedNormal) with mean 0 and standard deviation 0.05.
    pub const TRUNCATED_NORMAL: Initializer = Initializer::TruncatedNormal { mean: 0.0, stddev: 0.05 };
    /// [`Orthogonal`](Self::Orthogonal) with gain 1.
    pub const ORTHOGONAL: Initializer = Initializer::Orthogonal { gain: 1.0 };
    /// [`Identity`](Self::Identity) with gain 1.
    pub const IDENTITY: Initializer = Initializer::Identity { gain: 1.0 };

    /// Refuses constants that it cannot have, and tensors that it cannot fill.
    pub(super) fn validate(self, option: &str, shape: &[usize]) -> Result<()> {
        let (constants, ordered) = match self {
            Initializer::Constant { value } => ([value, 0.0], true),
            Initializer::RandomNormal { mean, stddev } | Initializer::TruncatedNormal { mean, stddev } => {
                ([mean, stddev], stddev >= 0.0)
            }
            Initializer::RandomUniform { minval, maxval } => ([minval, maxval], minval <= maxval),
            Initializer::Orthogonal { gain } | Initializer::Identity { gain } => ([gain, 0.0], true),
            _ => ([0.0; 2], true),
        };
        // What is drawn must be a number of f32 too, and a comparison refuses NaN.
        if !(ordered && constants.iter().all(|constant| constant.abs() <= LARGEST)) {
            let expected =
                format!("constants from -{LARGEST:e} to {LARGEST:e}, no deviation below zero, the lower bound first");
            return Err(Error::option(option, expected, format!("{self:?}")));
        }
        let fits = match self {
            Initializer::Orthogonal { .. } => shape.len() >= 2,
            Initializer::Identity { .. } => shape.len() == 2,
            _ => true,
        };
        if fits {
            return Ok(());
        }
        let expected = format!("one that fills a tensor of shape {shape:?}");
        Err(Error::option(option, expected, format!("{self:?}, which needs a matrix")))
    }

    /// Draws a tensor of this shape, of a layer whose units have so many inputs and outputs.
    pub(super) fn fill(
        self,
        shape: &[usize],
        [inputs, outputs]: [usize; 2],
        weights: &mut [f64],
        random: &mut Random,
    ) -> Result<()> {
        let (inputs, outputs) = (inputs.max(1) as f64, outputs as f64);
        let mean = ((inputs + outputs) / 2.0).max(1.0);
        match self {
            Initializer::Zeros => weights.fill(0.0),
            Initializer::Ones => weights.fill(1.0),
            Initializer::Constant { value } => weights.fill(value),
            Initializer::RandomNormal { mean, stddev } => {
                weights.iter_mut().for_each(|w| *w = mean + stddev * random.normal());
            }
            Initializer::RandomUniform { minval, maxval } => {
                weights.iter_mut().for_each(|w| *w = minval + (maxval - minval) * random.uniform());
            }
            Initializer::TruncatedNormal { mean, stddev } => truncated_normal(mean, stddev, weights, random),
            Initializer::GlorotUniform => uniform(3.0 / mean, weights, random),
            Initializer::GlorotNormal => normal(1.0 / mean, weights, random),
            Initializer::HeUniform => uniform(6.0 / inputs, weights, random),
            Initializer::HeNormal => normal(2.0 / inputs, weights, random),
            Initializer::LecunUniform => uniform(3.0 / inputs, weights, random),
            Initializer::LecunNormal => normal(1.0 / inputs, weights, random),
            Initializer::Orthogonal { gain } => {
                let columns = shape.last().copied().unwrap_or(1).max(1);
                init::orthogonal(weights, weights.len() / columns, columns, random)?;
                weights.iter_mut().for_each(|w| *w *= gain);
            }
            Initializer::Identity { gain } => {
                let columns = shape.last().copied().unwrap_or(1).max(1);
                for (i, weight) in weights.iter_mut().enumerate() {
                    *weight = if i / columns == i % columns { gain } else { 0.0 };
                }
            }
        }
        Ok(())
    }
}

/// Uniform in plus or minus the root of `square`.
fn uniform(square: f64, weights: &mut [f64], random: &mut Random) {
    let limit = square.sqrt();
    weights.iter_mut().for_each(|w| *w = (2.0 * random.uniform() - 1.0) * limit);
}

/// Truncated normal of this variance.
fn normal(variance: f64, weights: &mut [f64], random: &mut Random) {
    truncated_normal(0.0, variance.sqrt() / TRUNCATED, weights, random);
}

fn truncated_normal(mean: f64, stddev: f64, weights: &mut [f64], random: &mut Random) {
    for weight in weights {
        // Once in 22 draws it is drawn again.
        let drawn = loop {
            let drawn = random.normal();
            if drawn.abs() <= 2.0 {
                break drawn;
            }
        };
        *weight = mean + stddev * drawn;
    }
}
