//! Losses: what training makes small.

use serde::{Deserialize, Serialize};

use crate::dtype::Scalar;

/// A loss function of targets and predictions, `[rows, columns]` each. Means are over all elements of a batch, for the categorical
/// one over its rows. Probabilities are clipped to `1e-7..=1 - 1e-7`, as Keras does; where that changes one, its gradient is zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Loss {
    /// `mean((prediction - target)²)`, Keras's
    /// [`MeanSquaredError`](https://keras.io/api/losses/regression_losses/#meansquarederror-class).
    #[default]
    MeanSquaredError,
    /// `mean(|prediction - target|)`, Keras's
    /// [`MeanAbsoluteError`](https://keras.io/api/losses/regression_losses/#meanabsoluteerror-class). Its gradient is zero where they
    /// are equal.
    MeanAbsoluteError,
    /// The mean of `d²/2` where `|d| <= delta`, else of `delta |d| - delta²/2`, with `d = prediction - target`: Keras's
    /// [`Huber`](https://keras.io/api/losses/regression_losses/#huber-class) ([Huber 1964](https://doi.org/10.1214/aoms/1177703732)).
    Huber {
        /// Where it turns from a square into a line; above zero.
        delta: f64,
    },
    /// `-mean(t ln p + (1 - t) ln(1 - p))`, Keras's
    /// [`BinaryCrossentropy`](https://keras.io/api/losses/probabilistic_losses/#binarycrossentropy-class).
    BinaryCrossentropy {
        /// Whether predictions are the logits `ln(p / (1 - p))` rather than p.
        from_logits: bool,
    },
    /// `-sum(t ln p)` of a row, p being the row's predictions over their sum; Keras's
    /// [`CategoricalCrossentropy`](https://keras.io/api/losses/probabilistic_losses/#categoricalcrossentropy-class). Targets are
    /// probabilities, such as a one at the class.
    CategoricalCrossentropy {
        /// Whether p is the softmax of the predictions instead.
        from_logits: bool,
    },
    /// The same for targets that are the classes themselves, whole numbers counted from 0, one a row; Keras's
    /// [`SparseCategoricalCrossentropy`](https://keras.io/api/losses/probabilistic_losses/#sparsecategoricalcrossentropy-class).
    SparseCategoricalCrossentropy {
        /// Whether p is the softmax of the predictions instead.
        from_logits: bool,
    },
}

/// What probabilities keep clear of 0 and 1 by.
pub(crate) const PROBABILITY_MARGIN: f64 = 1e-7;

impl Loss {
    /// Huber's loss with Keras's default, 1.
    pub const HUBER: Loss = Loss::Huber { delta: 1.0 };

    /// Whether a row is one observation, rather than each element.
    #[cfg(feature = "cuda")]
    pub(crate) fn is_by_row(self) -> bool {
        matches!(self, Loss::CategoricalCrossentropy { .. } | Loss::SparseCategoricalCrossentropy { .. })
    }

    /// Whether a target is the number of a class, one for each row of predictions.
    pub fn is_sparse(self) -> bool {
        matches!(self, Loss::SparseCategoricalCrossentropy { .. })
    }

    /// Checks its constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `delta` that is not finite and above zero.
    pub fn validate(self) -> crate::Result<()> {
        match self {
            Loss::Huber { delta } if !(delta.is_finite() && delta > 0.0) => {
                Err(crate::Error::option("delta of the Huber loss", "a finite number above zero", delta))
            }
            _ => Ok(()),
        }
    }

    /// [`gradient`](Self::gradient) or [`value`](Self::value) with a weight for each row.
    pub fn weighted<E: Scalar>(
        self,
        columns: usize,
        targets: &[E],
        predictions: &[E],
        weights: &[E],
        mut gradient: Option<&mut [E]>,
    ) -> f64 {
        let width = if self.is_sparse() { 1 } else { columns };
        let rows = weights.len() as f64;
        let mut sum = 0.0;
        for (row, weight) in weights.iter().enumerate() {
            let (t, p) = (&targets[row * width..][..width], &predictions[row * columns..][..columns]);
            sum += weight.wide()
                * match gradient.as_deref_mut() {
                    None => self.value(columns, t, p),
                    Some(gradient) => {
                        let slopes = &mut gradient[row * columns..][..columns];
                        let value = self.gradient(columns, t, p, slopes);
                        let factor = E::of(weight.wide() / rows);
                        slopes.iter_mut().for_each(|slope| *slope *= factor);
                        value
                    }
                };
        }
        sum / rows
    }

    /// The loss of a batch, summed in `f64`, and its gradient by the predictions, set (`=`) in `gradient`. The three slices have one
    /// length, a multiple of `columns`.
    pub fn gradient<E: Scalar>(self, columns: usize, targets: &[E], predictions: &[E], gradient: &mut [E]) -> f64 {
        match self {
            Loss::MeanSquaredError => {
                let factor = E::of(2.0 / targets.len() as f64);
                for ((slope, p), t) in gradient.iter_mut().zip(predictions).zip(targets) {
                    *slope = factor * (*p - *t);
                }
                self.value(columns, targets, predictions)
            }
            Loss::CategoricalCrossentropy { from_logits } | Loss::SparseCategoricalCrossentropy { from_logits } => {
                let rows = (predictions.len() / columns) as f64;
                let width = if self.is_sparse() { 1 } else { columns };
                let mut sum = 0.0;
                for ((t, p), g) in
                    targets.chunks(width).zip(predictions.chunks(columns)).zip(gradient.chunks_mut(columns))
                {
                    sum += categorical(from_logits, self.is_sparse(), t, p, |c, slope| g[c] = E::of(slope / rows));
                }
                sum / rows
            }
            _ => {
                let count = targets.len() as f64;
                let mut sum = 0.0;
                for ((g, p), t) in gradient.iter_mut().zip(predictions).zip(targets) {
                    let (value, slope) = self.element(t.wide(), p.wide());
                    sum += value;
                    *g = E::of(slope / count);
                }
                sum / count
            }
        }
    }

    /// The loss of a batch, summed in `f64`.
    pub fn value<E: Scalar>(self, columns: usize, targets: &[E], predictions: &[E]) -> f64 {
        if let Loss::CategoricalCrossentropy { from_logits } | Loss::SparseCategoricalCrossentropy { from_logits } =
            self
        {
            let width = if self.is_sparse() { 1 } else { columns };
            let rows = targets.chunks(width).zip(predictions.chunks(columns));
            let sum: f64 = rows.map(|(t, p)| categorical(from_logits, self.is_sparse(), t, p, |_, _| ())).sum();
            return sum / (predictions.len() / columns) as f64;
        }
        let sum: f64 = predictions.iter().zip(targets).map(|(p, t)| self.element(t.wide(), p.wide()).0).sum();
        sum / targets.len() as f64
    }

    /// What one element adds to the sum, and the derivative of that by the prediction. Comparisons are written so that NaN stays NaN.
    #[inline(always)]
    fn element(self, t: f64, p: f64) -> (f64, f64) {
        let d = p - t;
        match self {
            Loss::MeanSquaredError => (d.powi(2), 2.0 * d),
            Loss::MeanAbsoluteError => (d.abs(), sign(d)),
            Loss::Huber { delta } => {
                if d.abs() > delta {
                    (delta * d.abs() - 0.5 * delta * delta, delta * sign(d))
                } else {
                    (0.5 * d * d, d)
                }
            }
            Loss::BinaryCrossentropy { from_logits: true } => {
                let value = (if p > 0.0 { p * (1.0 - t) } else { -p * t }) + (-p.abs()).exp().ln_1p();
                (value, 1.0 / (1.0 + (-p).exp()) - t)
            }
            Loss::BinaryCrossentropy { from_logits: false } => {
                let (q, inside) = clipped(p);
                let value = -(t * q.ln() + (1.0 - t) * (-q).ln_1p());
                (value, if inside { (q - t) / (q * (1.0 - q)) } else { 0.0 })
            }
            // By rows, never here.
            Loss::CategoricalCrossentropy { .. } | Loss::SparseCategoricalCrossentropy { .. } => (f64::NAN, f64::NAN),
        }
    }
}

/// -1, 0 or 1; of NaN, NaN.
fn sign(d: f64) -> f64 {
    if d > 0.0 {
        1.0
    } else if d < 0.0 {
        -1.0
    } else {
        d
    }
}

/// A probability kept clear of 0 and 1, and whether it was so before (NaN counts as such, so that it goes on).
fn clipped(p: f64) -> (f64, bool) {
    let (low, high) = (PROBABILITY_MARGIN, 1.0 - PROBABILITY_MARGIN);
    if p < low {
        (low, false)
    } else if p > high {
        (high, false)
    } else {
        (p, true)
    }
}

/// The loss of a row; its derivatives by the predictions go to `slope`. Targets are a probability for each column, or the number of the
/// class alone.
fn categorical<E: Scalar>(
    from_logits: bool,
    sparse: bool,
    targets: &[E],
    predictions: &[E],
    mut slope: impl FnMut(usize, f64),
) -> f64 {
    let target = |c: usize| match sparse {
        true => f64::from(targets[0].wide() == c as f64),
        false => targets[c].wide(),
    };
    if from_logits {
        let largest = predictions.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.wide()));
        let total: f64 = predictions.iter().map(|p| (p.wide() - largest).exp()).sum();
        let weight: f64 = (0..predictions.len()).map(target).sum();
        let mut value = 0.0;
        for (c, p) in predictions.iter().enumerate() {
            let shifted = p.wide() - largest;
            value += target(c) * (total.ln() - shifted);
            slope(c, weight * shifted.exp() / total - target(c));
        }
        return value;
    }
    // q = p / total; d(-sum t ln q)/dq = -t / q = g, and dq_i/dp_j = (i == j) / total - p_i / total².
    let total: f64 = predictions.iter().map(|p| p.wide()).sum();
    let by_quotient = |c: usize, p: &E| {
        let (q, inside) = clipped(p.wide() / total);
        (q, if inside { -target(c) / q } else { 0.0 })
    };
    let (mut value, mut mean) = (0.0, 0.0);
    for (c, p) in predictions.iter().enumerate() {
        let (q, g) = by_quotient(c, p);
        value -= target(c) * q.ln();
        mean += g * q;
    }
    for (c, p) in predictions.iter().enumerate() {
        slope(c, (by_quotient(c, p).1 - mean) / total);
    }
    value
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_squared_error_and_its_gradient() {
        let (targets, predictions) = ([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]);
        let mut gradient = [f64::NAN; 4];
        assert_eq!(Loss::MeanSquaredError.gradient(1, &targets, &predictions, &mut gradient), 0.5);
        assert_eq!(gradient, [0.5, 0.0, 0.5, 0.0]);
    }

    /// Values that Keras 3 documents for these losses.
    #[test]
    fn values_from_kerass_documentation() {
        let (t, p) = ([0.0, 1.0, 0.0, 0.0], [0.6, 0.4, 0.4, 0.6]);
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 2e-3 * expected, "{got} {expected}");
        close(Loss::MeanAbsoluteError.value(2, &t, &p), 0.55);
        close(Loss::HUBER.value(2, &t, &p), 0.155);
        close(Loss::BinaryCrossentropy { from_logits: false }.value(2, &t, &p), 0.815);
        let logits = [-18.6, 0.51, 2.94, -12.8];
        close(Loss::BinaryCrossentropy { from_logits: true }.value(4, &t, &logits), 0.865);
        let (t, p) = ([0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.05, 0.95, 0.0, 0.1, 0.8, 0.1]);
        close(Loss::CategoricalCrossentropy { from_logits: false }.value(3, &t, &p), 1.177);
    }
}
