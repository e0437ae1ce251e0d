//! What weights are brought back to after every step of training, as an option of a layer: [`Constraint`].
#![expect(clippy::indexing_slicing, reason = "groups are counted along the shape's own axes, a factor each")]

use serde::{Deserialize, Serialize};

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// What a weight tensor must be, which it is brought back to after every step of training: Keras's
/// [constraints](https://keras.io/api/layers/constraints/). `axes` are those over which a norm is taken, counted from 0 in the shape that
/// Keras gives the weights: 0 of the kernel `[features, units]` of a Dense or recurrent layer, for the weights that come into a unit; 0 and
/// 1 of the kernel `[kernel_size, features, filters]` of a convolution; 1 of the table of an embedding for each vector.
///
/// [`NonNegative`](Self::NonNegative) works on every device, the others, which have no kernel, on the host.
///
/// ```
/// use fused_rnn::nn::{Constraint, Dense, Lstm};
/// let layer = Dense::new(10).kernel_constraint(Constraint::NonNegative);
/// let layer = Lstm::new(10).kernel_constraint(Constraint::max_norm(2.0));
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Constraint {
    /// No element below zero, Keras's `NonNeg`.
    NonNegative,
    /// No norm above `max_value`, Keras's `MaxNorm`, whose default is 2.
    MaxNorm {
        /// The largest norm.
        max_value: f64,
        /// Axes of a norm.
        axes: Vec<usize>,
    },
    /// Every norm 1, Keras's `UnitNorm`.
    UnitNorm {
        /// Axes of a norm.
        axes: Vec<usize>,
    },
    /// Norms brought by `rate` of the way into bounds, Keras's `MinMaxNorm`, whose defaults are 0, 1 and a rate of 1.
    MinMaxNorm {
        /// The smallest norm.
        min_value: f64,
        /// The largest.
        max_value: f64,
        /// How much of the way each step goes.
        rate: f64,
        /// Axes of a norm.
        axes: Vec<usize>,
    },
}

/// What Keras adds to norms before it divides by them.
const EPSILON: f64 = 1e-7;

impl Constraint {
    /// [`MaxNorm`](Self::MaxNorm) of the weights that come into each unit of a Dense or recurrent layer.
    pub fn max_norm(max_value: f64) -> Self {
        Constraint::MaxNorm { max_value, axes: vec![0] }
    }

    /// [`UnitNorm`](Self::UnitNorm) of the weights that come into each unit of a Dense or recurrent layer.
    pub fn unit_norm() -> Self {
        Constraint::UnitNorm { axes: vec![0] }
    }

    /// [`MinMaxNorm`](Self::MinMaxNorm) of the weights that come into each unit of a Dense or recurrent layer, at once.
    pub fn min_max_norm(min_value: f64, max_value: f64) -> Self {
        Constraint::MinMaxNorm { min_value, max_value, rate: 1.0, axes: vec![0] }
    }

    /// Axes of a norm, where there are norms.
    pub(super) fn axes(&self) -> Option<&[usize]> {
        match self {
            Constraint::NonNegative => None,
            Constraint::MaxNorm { axes, .. } | Constraint::UnitNorm { axes } | Constraint::MinMaxNorm { axes, .. } => {
                Some(axes)
            }
        }
    }

    /// The same with other axes.
    pub(super) fn with_axes(mut self, new: Vec<usize>) -> Self {
        match &mut self {
            Constraint::NonNegative => {}
            Constraint::MaxNorm { axes, .. } | Constraint::UnitNorm { axes } | Constraint::MinMaxNorm { axes, .. } => {
                *axes = new;
            }
        }
        self
    }

    /// Refuses constants that it cannot have, and axes that a tensor of so many has not.
    pub(super) fn validate(&self, option: &str, count: usize) -> Result<()> {
        let (least, most, rate) = match *self {
            Constraint::NonNegative | Constraint::UnitNorm { .. } => (0.0, 1.0, 1.0),
            Constraint::MaxNorm { max_value, .. } => (0.0, max_value, 1.0),
            Constraint::MinMaxNorm { min_value, max_value, rate, .. } => (min_value, max_value, rate),
        };
        if !(0.0 <= least && least <= most && most.is_finite() && (0.0..=1.0).contains(&rate)) {
            let expected = "finite bounds from 0 up, the lower first, and a rate from 0 to 1";
            return Err(Error::option(option, expected, format!("{self:?}")));
        }
        let axes = self.axes().unwrap_or(&[0]);
        let mut seen = std::collections::BTreeSet::new();
        let twice = axes.iter().any(|axis| !seen.insert(axis));
        if axes.is_empty() || twice || axes.iter().any(|axis| *axis >= count) {
            let expected = format!("some of the axes 0 to {}, each once", count.saturating_sub(1));
            return Err(Error::option(option, expected, format!("{axes:?}")));
        }
        Ok(())
    }

    /// Brings a tensor of this shape, whose axes are as the constraint counts them, back to what it must be.
    pub(crate) fn apply<E: Scalar>(&self, shape: &[usize], weights: &mut [E]) {
        let Some(axes) = self.axes() else {
            // Comparisons are written so that NaN stays NaN.
            weights.iter_mut().filter(|w| **w < E::zero()).for_each(|w| *w = E::zero());
            return;
        };
        // One sum for each place along the other axes.
        let kept: Vec<bool> = (0..shape.len()).map(|axis| !axes.contains(&axis)).collect();
        let group = |mut element: usize| {
            let (mut group, mut stride) = (0, 1);
            for (n, kept) in shape.iter().zip(&kept).rev() {
                if *kept {
                    group += element % n * stride;
                    stride *= n;
                }
                element /= n;
            }
            group
        };
        let groups: usize = shape.iter().zip(&kept).filter(|(_, kept)| **kept).map(|(n, _)| *n).product();
        let mut factors = vec![0.0; groups];
        for (i, weight) in weights.iter().enumerate() {
            factors[group(i)] += weight.wide() * weight.wide();
        }
        for factor in &mut factors {
            let norm = factor.sqrt();
            let desired = match *self {
                Constraint::MaxNorm { max_value, .. } => norm.min(max_value),
                Constraint::MinMaxNorm { min_value, max_value, rate, .. } => {
                    rate * norm.clamp(min_value, max_value) + (1.0 - rate) * norm
                }
                _ => 1.0,
            };
            *factor = desired / (EPSILON + norm);
        }
        for (i, weight) in weights.iter_mut().enumerate() {
            *weight = E::of(weight.wide() * factors[group(i)]);
        }
    }
}
