//! Losses: what training makes small.
//!
//! [`Loss`] has those of Keras as data; [`CustomLoss`] is for losses of one's own, [`Ctc`] for labels without times. A model takes any of
//! them, as a [`LossFunction`].

pub mod ctc;
mod element;
mod own;
mod quantiles;
mod row;

pub use ctc::{Ctc, CtcDecoded, CtcStrategy, ctc_decode};
pub(crate) use own::Batch;
pub use own::{CustomLoss, ElementLoss, LossFunction, LossUnit, Observation};
pub use quantiles::Quantiles;

use serde::{Deserialize, Serialize};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// A loss function of targets and predictions, `[rows, columns]` each. Means are over all elements of a batch; over its rows for the
/// categorical ones, the divergence, the cosine similarity and several quantiles. Probabilities are clipped to `1e-7..=1 - 1e-7`, as Keras
/// does; where that changes one, its gradient is zero.
///
/// On a GPU the squared and the absolute error, Huber's loss and the three cross-entropies have kernels. A model computes the others on the
/// host: each batch copies its predictions there and its gradient back, and is waited for.
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
    /// `100 mean(|target - prediction| / max(|target|, 1e-7))`, Keras's
    /// [`MeanAbsolutePercentageError`](https://keras.io/api/losses/regression_losses/#meanabsolutepercentageerror-class).
    MeanAbsolutePercentageError,
    /// `mean((ln(prediction + 1) - ln(target + 1))²)`, both no less than 1e-7, Keras's
    /// [`MeanSquaredLogarithmicError`](https://keras.io/api/losses/regression_losses/#meansquaredlogarithmicerror-class).
    MeanSquaredLogarithmicError,
    /// `mean(ln cosh(prediction - target))`, Keras's
    /// [`LogCosh`](https://keras.io/api/losses/regression_losses/#logcosh-class).
    LogCosh,
    /// `mean(prediction - target ln(prediction + 1e-7))`, for counts, Keras's
    /// [`Poisson`](https://keras.io/api/losses/probabilistic_losses/#poisson-class).
    Poisson,
    /// `sum(t ln(t / p))` of a row, both within `1e-7..=1`, Keras's
    /// [`KLDivergence`](https://keras.io/api/losses/probabilistic_losses/#kldivergence-class).
    KlDivergence,
    /// `-sum(t p)` of a row, both divided by their norms: from -1, alike, to 1. Keras's
    /// [`CosineSimilarity`](https://keras.io/api/losses/regression_losses/#cosinesimilarity-class).
    CosineSimilarity,
    /// `mean(max(1 - t p, 0))` of targets -1 and 1 (0 counts as -1), Keras's
    /// [`Hinge`](https://keras.io/api/losses/hinge_losses/#hinge-class).
    Hinge,
    /// `mean(max(1 - t p, 0)²)` of the same, Keras's
    /// [`SquaredHinge`](https://keras.io/api/losses/hinge_losses/#squaredhinge-class).
    SquaredHinge,
    /// `max(max((1 - t) p) - sum(t p) + 1, 0)` of a row whose targets are a one at the class, Keras's
    /// [`CategoricalHinge`](https://keras.io/api/losses/hinge_losses/#categoricalhinge-class).
    CategoricalHinge,
    /// The pinball loss, `max(q (t - p), (q - 1)(t - p))`, whose least mean is at the quantile q
    /// ([Koenker and Bassett 1978](https://doi.org/10.2307/1913643)). Of one quantile it is the mean over elements, of several over rows:
    /// a row then has a prediction for each quantile, in their order, and one target, see [`has_one_target_a_row`](Loss::has_one_target_a_row).
    Quantile {
        /// Which.
        quantiles: Quantiles,
    },
    /// [`BinaryCrossentropy`](Loss::BinaryCrossentropy) of targets `t (1 - label_smoothing) + label_smoothing / 2`;
    /// made by [`label_smoothing`](Loss::label_smoothing).
    SmoothedBinaryCrossentropy {
        /// As there.
        from_logits: bool,
        /// 0 to 1.
        label_smoothing: f64,
    },
    /// [`CategoricalCrossentropy`](Loss::CategoricalCrossentropy) of targets `t (1 - label_smoothing) + label_smoothing / columns`;
    /// made by [`label_smoothing`](Loss::label_smoothing).
    SmoothedCategoricalCrossentropy {
        /// As there.
        from_logits: bool,
        /// 0 to 1.
        label_smoothing: f64,
    },
    /// The binary cross-entropy, of which what is already right counts less: times `(1 - p_t)^gamma`, `p_t` being the probability of the
    /// target. Keras's [`BinaryFocalCrossentropy`](https://keras.io/api/losses/probabilistic_losses/#binaryfocalcrossentropy-class)
    /// ([Lin et al. 2017](https://arxiv.org/abs/1708.02002)).
    BinaryFocalCrossentropy {
        /// As for the binary cross-entropy.
        from_logits: bool,
        /// The weight of targets 1, those of 0 having 1 less it: Keras's `apply_class_balancing` with its `alpha`. None: both count alike.
        alpha: Option<f64>,
        /// The power; 2 in Keras, 0 or above.
        gamma: f64,
    },
    /// `-sum(alpha (1 - p)^gamma t ln p)` of a row, Keras's
    /// [`CategoricalFocalCrossentropy`](https://keras.io/api/losses/probabilistic_losses/#categoricalfocalcrossentropy-class).
    CategoricalFocalCrossentropy {
        /// As for the categorical cross-entropy.
        from_logits: bool,
        /// 0.25 in Keras.
        alpha: f64,
        /// The power; 2 in Keras, 0 or above.
        gamma: f64,
    },
}

/// What probabilities keep clear of 0 and 1 by.
pub(crate) const PROBABILITY_MARGIN: f64 = 1e-7;

impl Loss {
    /// Huber's loss with Keras's default, 1.
    pub const HUBER: Loss = Loss::Huber { delta: 1.0 };

    /// The pinball loss of these quantiles.
    ///
    /// # Errors
    ///
    /// As [`Quantiles::new`].
    pub fn quantiles(levels: &[f64]) -> Result<Loss> {
        Ok(Loss::Quantile { quantiles: Quantiles::new(levels)? })
    }

    /// The cross-entropy of softer targets: Keras's `label_smoothing`.
    ///
    /// ```
    /// use fused_rnn::nn::Loss;
    /// let loss = Loss::CategoricalCrossentropy { from_logits: true }.label_smoothing(0.1)?;
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a number outside `0..=1`; [`Error::Unsupported`] for a loss that is no binary or categorical
    /// cross-entropy.
    pub fn label_smoothing(self, label_smoothing: f64) -> Result<Loss> {
        let smoothed = match self {
            Loss::BinaryCrossentropy { from_logits } | Loss::SmoothedBinaryCrossentropy { from_logits, .. } => {
                Loss::SmoothedBinaryCrossentropy { from_logits, label_smoothing }
            }
            Loss::CategoricalCrossentropy { from_logits }
            | Loss::SmoothedCategoricalCrossentropy { from_logits, .. } => {
                Loss::SmoothedCategoricalCrossentropy { from_logits, label_smoothing }
            }
            _ => {
                return Err(Error::unsupported(
                    format!("label smoothing of {}", self.name()),
                    "binary and categorical cross-entropies have it; make targets of classes one-hot (data::one_hot) for them",
                ));
            }
        };
        smoothed.validate()?;
        Ok(smoothed)
    }

    /// Keras's name: `"mean_squared_error"`, ….
    pub fn name(self) -> &'static str {
        match self {
            Loss::MeanSquaredError => "mean_squared_error",
            Loss::MeanAbsoluteError => "mean_absolute_error",
            Loss::Huber { .. } => "huber_loss",
            Loss::BinaryCrossentropy { .. } | Loss::SmoothedBinaryCrossentropy { .. } => "binary_crossentropy",
            Loss::CategoricalCrossentropy { .. } | Loss::SmoothedCategoricalCrossentropy { .. } => {
                "categorical_crossentropy"
            }
            Loss::SparseCategoricalCrossentropy { .. } => "sparse_categorical_crossentropy",
            Loss::MeanAbsolutePercentageError => "mean_absolute_percentage_error",
            Loss::MeanSquaredLogarithmicError => "mean_squared_logarithmic_error",
            Loss::LogCosh => "log_cosh",
            Loss::Poisson => "poisson",
            Loss::KlDivergence => "kl_divergence",
            Loss::CosineSimilarity => "cosine_similarity",
            Loss::Hinge => "hinge",
            Loss::SquaredHinge => "squared_hinge",
            Loss::CategoricalHinge => "categorical_hinge",
            Loss::Quantile { .. } => "quantile",
            Loss::BinaryFocalCrossentropy { .. } => "binary_focal_crossentropy",
            Loss::CategoricalFocalCrossentropy { .. } => "categorical_focal_crossentropy",
        }
    }

    /// Whether a row is one observation, rather than each element.
    pub(crate) fn is_by_row(self) -> bool {
        match self {
            Loss::CategoricalCrossentropy { .. }
            | Loss::SparseCategoricalCrossentropy { .. }
            | Loss::SmoothedCategoricalCrossentropy { .. }
            | Loss::CategoricalFocalCrossentropy { .. }
            | Loss::CategoricalHinge
            | Loss::KlDivergence
            | Loss::CosineSimilarity => true,
            Loss::Quantile { quantiles } => quantiles.levels().len() > 1,
            _ => false,
        }
    }

    /// Whether a target is the number of a class, one for each row of predictions.
    pub fn is_sparse(self) -> bool {
        matches!(self, Loss::SparseCategoricalCrossentropy { .. })
    }

    /// Whether a row has one target, rather than one for each prediction: the number of a class, or what several quantiles are of.
    pub fn has_one_target_a_row(self) -> bool {
        self.is_sparse() || matches!(self, Loss::Quantile { quantiles } if quantiles.levels().len() > 1)
    }

    /// Targets of a row of so many predictions.
    fn target_columns(self, columns: usize) -> usize {
        if self.has_one_target_a_row() { 1 } else { columns }
    }

    /// Whether devices that are not the host compute it.
    pub(crate) fn has_kernel(self) -> bool {
        matches!(
            self,
            Loss::MeanSquaredError
                | Loss::MeanAbsoluteError
                | Loss::Huber { .. }
                | Loss::BinaryCrossentropy { .. }
                | Loss::CategoricalCrossentropy { .. }
                | Loss::SparseCategoricalCrossentropy { .. }
        )
    }

    /// Checks its constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a `delta` that is not finite and above zero, a `label_smoothing` or an `alpha` outside `0..=1`, or a
    /// `gamma` that is not finite or below zero.
    pub fn validate(self) -> Result<()> {
        let fraction = |name: &str, value: f64| {
            if (0.0..=1.0).contains(&value) { Ok(()) } else { Err(Error::option(name, "a number from 0 to 1", value)) }
        };
        match self {
            Loss::Huber { delta } if !(delta.is_finite() && delta > 0.0) => {
                Err(Error::option("delta of the Huber loss", "a finite number above zero", delta))
            }
            Loss::SmoothedBinaryCrossentropy { label_smoothing, .. }
            | Loss::SmoothedCategoricalCrossentropy { label_smoothing, .. } => {
                fraction("label_smoothing", label_smoothing)
            }
            Loss::BinaryFocalCrossentropy { gamma, .. } | Loss::CategoricalFocalCrossentropy { gamma, .. }
                if !(gamma.is_finite() && gamma >= 0.0) =>
            {
                Err(Error::option("gamma of the focal loss", "a finite number, 0 or above", gamma))
            }
            Loss::BinaryFocalCrossentropy { alpha: Some(alpha), .. }
            | Loss::CategoricalFocalCrossentropy { alpha, .. } => fraction("alpha of the focal loss", alpha),
            _ => Ok(()),
        }
    }

    /// Whether it is known of targets alone that some cannot be.
    pub(crate) fn has_bounded_targets(self) -> bool {
        self.is_sparse() || self.refuses(f64::INFINITY).is_some()
    }

    /// What targets must be, where that is known, and whether this one is not. A NaN is left to the loss, which becomes one.
    pub(crate) fn refuses(self, target: f64) -> Option<&'static str> {
        match self {
            Loss::BinaryCrossentropy { .. }
            | Loss::SmoothedBinaryCrossentropy { .. }
            | Loss::BinaryFocalCrossentropy { .. }
                if !(0.0..=1.0).contains(&target) && !target.is_nan() =>
            {
                Some("a probability, 0 to 1")
            }
            Loss::Hinge | Loss::SquaredHinge if ![-1.0, 0.0, 1.0].contains(&target) && !target.is_nan() => {
                Some("-1 or 1, or 0 or 1")
            }
            _ => None,
        }
    }

    /// Lengths of targets and predictions, and what else of them is checked before a loss is computed; the rows.
    pub(crate) fn check_lengths(self, columns: usize, targets: usize, predictions: usize) -> Result<usize> {
        if columns == 0 {
            return Err(Error::ZeroSize { name: "columns" });
        }
        if predictions == 0 {
            return Err(Error::ZeroSize { name: "number of targets" });
        }
        if !predictions.is_multiple_of(columns) {
            let expected = format!("a multiple of {columns} elements");
            return Err(Error::shape("predictions", expected, format!("{predictions} elements")));
        }
        self.check_columns(columns)?;
        let rows = predictions / columns;
        check_len("targets", &[rows * self.target_columns(columns)], targets)?;
        Ok(rows)
    }

    /// Whether a row of so many predictions can be.
    pub(crate) fn check_columns(self, columns: usize) -> Result<()> {
        match self {
            Loss::Quantile { quantiles } if quantiles.levels().len() > 1 && quantiles.levels().len() != columns => {
                let expected = format!("{} columns, one for each quantile of {quantiles:?}", quantiles.levels().len());
                Err(Error::shape("predictions", expected, format!("{columns} columns")))
            }
            _ => Ok(()),
        }
    }

    /// What a target that names a class must be, where this one does not.
    pub(crate) fn refuses_class(self, columns: usize, target: f64) -> Option<String> {
        let is_class = target >= 0.0 && target < columns as f64 && target.fract() == 0.0;
        (self.is_sparse() && !is_class).then(|| format!("a class, a whole number below the {columns} of the output"))
    }

    /// Classes must be whole numbers below the columns.
    pub(crate) fn check_classes<E: Scalar>(self, columns: usize, targets: &[E]) -> Result<()> {
        if !self.is_sparse() {
            return Ok(());
        }
        let refused = |(i, t): (usize, &E)| self.refuses_class(columns, t.wide()).map(|expected| (i, *t, expected));
        match targets.iter().enumerate().find_map(refused) {
            None => Ok(()),
            Some((i, target, expected)) => Err(Error::option(format!("target {i} of the batch"), expected, target)),
        }
    }

    /// [`gradient`](Self::gradient) or [`value`](Self::value) with a weight for each row.
    ///
    /// # Errors
    ///
    /// As there; [`Error::Shape`] for another number of weights than rows.
    pub fn weighted<E: Scalar>(
        self,
        columns: usize,
        targets: &[E],
        predictions: &[E],
        weights: &[E],
        gradient: Option<&mut [E]>,
    ) -> Result<f64> {
        let count = self.check_lengths(columns, targets.len(), predictions.len())?;
        check_len("weights", &[count], weights.len())?;
        self.check_classes(columns, targets)?;
        if let Some(gradient) = &gradient {
            check_len("gradient", &[predictions.len()], gradient.len())?;
        }
        let (rows, width) = (count as f64, self.target_columns(columns));
        let mut sum = 0.0;
        let mut gradients = gradient.map(|gradient| gradient.chunks_mut(columns));
        for ((weight, t), p) in weights.iter().zip(targets.chunks(width)).zip(predictions.chunks(columns)) {
            sum += weight.wide()
                * match gradients.as_mut().and_then(Iterator::next) {
                    None => self.value_of(columns, t, p),
                    Some(slopes) => {
                        let value = self.gradient_of(columns, t, p, slopes);
                        let factor = E::of(weight.wide() / rows);
                        slopes.iter_mut().for_each(|slope| *slope *= factor);
                        value
                    }
                };
        }
        Ok(sum / rows)
    }

    /// The loss of a batch, summed in `f64`, and its gradient by the predictions, set (`=`) in `gradient`. Predictions are rows of
    /// `columns`; targets are as many, or [one a row](Self::has_one_target_a_row).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for slices of other lengths, or other columns than quantiles; [`Error::ZeroSize`] without columns or elements;
    /// [`Error::InvalidOption`] naming a target that is no class.
    pub fn gradient<E: Scalar>(
        self,
        columns: usize,
        targets: &[E],
        predictions: &[E],
        gradient: &mut [E],
    ) -> Result<f64> {
        self.check_lengths(columns, targets.len(), predictions.len())?;
        check_len("gradient", &[predictions.len()], gradient.len())?;
        self.check_classes(columns, targets)?;
        Ok(self.gradient_of(columns, targets, predictions, gradient))
    }

    /// The same after the checks.
    fn gradient_of<E: Scalar>(self, columns: usize, targets: &[E], predictions: &[E], gradient: &mut [E]) -> f64 {
        if self.is_by_row() {
            let rows = (predictions.len() / columns) as f64;
            let mut sum = 0.0;
            let targets = targets.chunks(self.target_columns(columns));
            for ((t, p), g) in targets.zip(predictions.chunks(columns)).zip(gradient.chunks_mut(columns)) {
                sum += row::row(self, t, p, |c, slope| {
                    if let Some(to) = g.get_mut(c) {
                        *to = E::of(slope / rows);
                    }
                });
            }
            return sum / rows;
        }
        let count = targets.len() as f64;
        if self == Loss::MeanSquaredError {
            let factor = E::of(2.0 / count);
            for ((slope, p), t) in gradient.iter_mut().zip(predictions).zip(targets) {
                *slope = factor * (*p - *t);
            }
            return self.value_of(columns, targets, predictions);
        }
        let mut sum = 0.0;
        for ((g, p), t) in gradient.iter_mut().zip(predictions).zip(targets) {
            let (value, slope) = self.element(t.wide(), p.wide());
            sum += value;
            *g = E::of(slope / count);
        }
        sum / count
    }

    /// The loss of a batch, summed in `f64`.
    ///
    /// # Errors
    ///
    /// As [`gradient`](Self::gradient).
    pub fn value<E: Scalar>(self, columns: usize, targets: &[E], predictions: &[E]) -> Result<f64> {
        self.check_lengths(columns, targets.len(), predictions.len())?;
        self.check_classes(columns, targets)?;
        Ok(self.value_of(columns, targets, predictions))
    }

    /// The same after the checks.
    fn value_of<E: Scalar>(self, columns: usize, targets: &[E], predictions: &[E]) -> f64 {
        if self.is_by_row() {
            let pairs = targets.chunks(self.target_columns(columns)).zip(predictions.chunks(columns));
            let sum: f64 = pairs.map(|(t, p)| row::row(self, t, p, |_, _| ())).sum();
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
            other => element::element(other, t, p),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_squared_error_and_its_gradient() {
        let (targets, predictions) = ([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]);
        let mut gradient = [f64::NAN; 4];
        assert_eq!(Loss::MeanSquaredError.gradient(1, &targets, &predictions, &mut gradient).unwrap(), 0.5);
        assert_eq!(gradient, [0.5, 0.0, 0.5, 0.0]);
    }

    /// Values that Keras 3 documents for these losses.
    #[test]
    fn values_from_kerass_documentation() {
        let (t, p) = ([0.0, 1.0, 0.0, 0.0], [0.6, 0.4, 0.4, 0.6]);
        let close = |got: f64, expected: f64| assert!((got - expected).abs() < 2e-3 * expected, "{got} {expected}");
        close(Loss::MeanAbsoluteError.value(2, &t, &p).unwrap(), 0.55);
        close(Loss::HUBER.value(2, &t, &p).unwrap(), 0.155);
        close(Loss::BinaryCrossentropy { from_logits: false }.value(2, &t, &p).unwrap(), 0.815);
        let logits = [-18.6, 0.51, 2.94, -12.8];
        close(Loss::BinaryCrossentropy { from_logits: true }.value(4, &t, &logits).unwrap(), 0.865);
        let (t, p) = ([0.0, 1.0, 0.0, 0.0, 0.0, 1.0], [0.05, 0.95, 0.0, 0.1, 0.8, 0.1]);
        close(Loss::CategoricalCrossentropy { from_logits: false }.value(3, &t, &p).unwrap(), 1.177);
    }
}
