//! Losses of one's own: [`CustomLoss`], and what a model takes, [`LossFunction`].

use std::fmt;
use std::sync::Arc;

use super::{Ctc, Loss};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// What a loss is computed of at a time. The loss of a batch is the mean over all of them, each times its weight.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LossUnit {
    /// The last axis of an output: each step of a sequence has a loss of its own, and a weight where a mask or the caller gives it one.
    #[default]
    Row,
    /// A whole sample, as where a loss compares sequences. Weights are those of samples; the mask of the output's rows is the loss's to
    /// heed ([`Observation::mask`]).
    Sample,
}

/// What a loss is computed of.
#[derive(Clone, Copy, Debug)]
pub struct Observation<'a> {
    /// Targets, as many as [`CustomLoss::target_shape`] says: of a row, or of a sample.
    pub targets: &'a [f64],
    /// Predictions of a row, or all of a sample, row-major.
    pub predictions: &'a [f64],
    /// Predictions in a row.
    pub columns: usize,
    /// Which rows of a sample count, where its output has a mask; none for a [row](LossUnit::Row).
    pub mask: Option<&'a [bool]>,
}

/// A loss of one's own, for [`compile`](crate::model::Model::compile). Numbers are `f64` whatever the model computes in.
///
/// It is computed on the host: on a GPU each batch copies its predictions there and its gradient back, and is waited for. A model file
/// holds its name alone; [`Model::load_with_losses`](crate::model::Model::load_with_losses) takes the loss again.
/// Its gradient is not checked: compare it with finite differences in a test. Errors of your own come through by [`Error::other`].
///
/// ```
/// use fused_rnn::Result;
/// use fused_rnn::loss::{CustomLoss, LossFunction, Observation};
///
/// /// The fourth power of what a prediction is off by.
/// struct FourthPower;
///
/// impl CustomLoss for FourthPower {
///     fn name(&self) -> &str {
///         "fourth_power"
///     }
///     fn value(&self, of: &Observation<'_>) -> Result<f64> {
///         let pairs = of.predictions.iter().zip(of.targets);
///         Ok(pairs.map(|(p, t)| (p - t).powi(4)).sum::<f64>() / of.columns as f64)
///     }
///     fn gradient(&self, of: &Observation<'_>, gradient: &mut [f64]) -> Result<f64> {
///         for ((g, p), t) in gradient.iter_mut().zip(of.predictions).zip(of.targets) {
///             *g = 4.0 * (p - t).powi(3) / of.columns as f64;
///         }
///         self.value(of)
///     }
/// }
///
/// let mut model = fused_rnn::model::Sequential::new(fused_rnn::Device::cpu(), &[3], 1)?;
/// model.add(fused_rnn::nn::Dense::new(1))?;
/// model.compile(fused_rnn::optim::Adam::default(), LossFunction::own(FourthPower))?;
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub trait CustomLoss: Send + Sync {
    /// What it is called in messages and in model files.
    fn name(&self) -> &str;

    /// Whether it is of rows or of samples.
    fn unit(&self) -> LossUnit {
        LossUnit::Row
    }

    /// Checks its constants; called when a model is compiled with it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for constants that it cannot have.
    fn validate(&self) -> Result<()> {
        Ok(())
    }

    /// Shape of the targets of a sample, given that of the output; the same.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for an output that it cannot be of.
    fn target_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        Ok(output.to_vec())
    }

    /// Checks the targets of a sample against the shape of its output, `[.., columns]`: before anything is trained, so that the error can
    /// say which sample of the data it is. Every target will do by itself.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the target, to which the sample is added.
    fn check_targets(&self, targets: &[f64], output: &[usize]) -> Result<()> {
        let _ = (targets, output);
        Ok(())
    }

    /// The loss.
    ///
    /// # Errors
    ///
    /// Whatever makes it impossible, which ends training.
    fn value(&self, of: &Observation<'_>) -> Result<f64>;

    /// The loss, and its derivative by each prediction, set in `gradient`, which holds zeros.
    ///
    /// # Errors
    ///
    /// As for [`value`](Self::value).
    fn gradient(&self, of: &Observation<'_>, gradient: &mut [f64]) -> Result<f64>;
}

/// A [`CustomLoss`] by elements: the mean of a function of a target and a prediction. Made by [`LossFunction::of_elements`].
pub struct ElementLoss<F> {
    name: String,
    function: F,
}

impl<F: Fn(f64, f64) -> (f64, f64) + Send + Sync> CustomLoss for ElementLoss<F> {
    fn name(&self) -> &str {
        &self.name
    }

    fn value(&self, of: &Observation<'_>) -> Result<f64> {
        let pairs = of.targets.iter().zip(of.predictions);
        Ok(pairs.map(|(t, p)| (self.function)(*t, *p).0).sum::<f64>() / of.columns as f64)
    }

    fn gradient(&self, of: &Observation<'_>, gradient: &mut [f64]) -> Result<f64> {
        let (mut sum, count) = (0.0, of.columns as f64);
        for ((g, t), p) in gradient.iter_mut().zip(of.targets).zip(of.predictions) {
            let (value, slope) = (self.function)(*t, *p);
            sum += value;
            *g = slope / count;
        }
        Ok(sum / count)
    }
}

/// Any loss that a model can be [compiled](crate::model::Model::compile) with: a [`Loss`] or [`Ctc`], which become one by `into()`, or one
/// [of one's own](Self::own).
#[derive(Clone)]
#[non_exhaustive]
pub enum LossFunction {
    /// One of Keras's.
    BuiltIn(Loss),
    /// Connectionist temporal classification.
    Ctc(Ctc),
    /// One's own.
    Own(Arc<dyn CustomLoss>),
}

impl Default for LossFunction {
    fn default() -> Self {
        LossFunction::BuiltIn(Loss::default())
    }
}

impl From<Loss> for LossFunction {
    fn from(loss: Loss) -> Self {
        LossFunction::BuiltIn(loss)
    }
}

impl From<Ctc> for LossFunction {
    fn from(loss: Ctc) -> Self {
        LossFunction::Ctc(loss)
    }
}

impl fmt::Debug for LossFunction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LossFunction::BuiltIn(loss) => loss.fmt(f),
            LossFunction::Ctc(loss) => loss.fmt(f),
            LossFunction::Own(loss) => f.debug_tuple("Own").field(&loss.name()).finish(),
        }
    }
}

impl LossFunction {
    /// A loss of one's own.
    pub fn own(loss: impl CustomLoss + 'static) -> Self {
        LossFunction::Own(Arc::new(loss))
    }

    /// The mean of a function of each target and its prediction, which gives the value and its derivative by the prediction.
    ///
    /// ```
    /// use fused_rnn::loss::LossFunction;
    /// let squares = LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)));
    /// ```
    pub fn of_elements(
        name: impl Into<String>,
        function: impl Fn(f64, f64) -> (f64, f64) + Send + Sync + 'static,
    ) -> Self {
        LossFunction::own(ElementLoss { name: name.into(), function })
    }

    /// What it is called.
    pub fn name(&self) -> &str {
        match self {
            LossFunction::BuiltIn(loss) => loss.name(),
            LossFunction::Ctc(loss) => loss.name(),
            LossFunction::Own(loss) => loss.name(),
        }
    }

    /// The same, where it is none of Keras's.
    fn custom(&self) -> Option<&dyn CustomLoss> {
        match self {
            LossFunction::BuiltIn(_) => None,
            LossFunction::Ctc(loss) => Some(loss),
            LossFunction::Own(loss) => Some(&**loss),
        }
    }

    /// One of Keras's, if it is one.
    pub fn built_in(&self) -> Option<Loss> {
        match self {
            LossFunction::BuiltIn(loss) => Some(*loss),
            _ => None,
        }
    }

    /// What it is computed of at a time.
    pub fn unit(&self) -> LossUnit {
        self.custom().map_or(LossUnit::Row, CustomLoss::unit)
    }

    /// Checks its constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for constants that it cannot have.
    pub fn validate(&self) -> Result<()> {
        match (self, self.custom()) {
            (LossFunction::BuiltIn(loss), _) => loss.validate(),
            (_, Some(loss)) => loss.validate(),
            _ => Ok(()),
        }
    }

    /// Shape of the targets of a sample, given that of the output.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for an output that it cannot be of.
    pub fn target_shape(&self, output: &[usize]) -> Result<Vec<usize>> {
        match (self, self.custom()) {
            (LossFunction::BuiltIn(loss), _) => {
                loss.check_columns(output.last().copied().unwrap_or(1))?;
                let columns = usize::from(loss.has_one_target_a_row());
                Ok(output.iter().take(output.len().saturating_sub(columns)).copied().collect())
            }
            (_, Some(loss)) => {
                let shape = loss.target_shape(output)?;
                let rows: usize = output.iter().rev().skip(1).fold(1, |rows, n| rows.saturating_mul(*n));
                let size = shape.iter().try_fold(1usize, |size, n| size.checked_mul(*n));
                match size {
                    Some(size) if loss.unit() == LossUnit::Sample || size.is_multiple_of(rows.max(1)) => Ok(shape),
                    _ => {
                        let expected = format!("as many for each of the {rows} rows of the output, {output:?}");
                        Err(Error::shape(format!("targets of {}", loss.name()), expected, format!("{shape:?}")))
                    }
                }
            }
            _ => Ok(output.to_vec()),
        }
    }

    /// Checks the targets of a sample, where its loss is a custom one.
    pub(crate) fn check_targets(&self, targets: &[f64], output: &[usize]) -> Result<()> {
        self.custom().map_or(Ok(()), |loss| loss.check_targets(targets, output))
    }

    /// The loss of a batch: the mean over its units, each times its weight, and the gradient by all predictions, set.
    pub(crate) fn of_batch(&self, batch: &Batch<'_>, mut gradient: Option<&mut [f64]>) -> Result<f64> {
        let Batch { samples, rows, columns, targets, predictions, weights, mask } = *batch;
        let loss = match (self, self.custom()) {
            (LossFunction::BuiltIn(loss), _) => {
                return match (weights, gradient) {
                    (Some(weights), gradient) => loss.weighted(columns, targets, predictions, weights, gradient),
                    (None, Some(gradient)) => loss.gradient(columns, targets, predictions, gradient),
                    (None, None) => loss.value(columns, targets, predictions),
                };
            }
            (_, Some(loss)) => loss,
            // Every other loss is a custom one.
            _ => return Ok(f64::NAN),
        };
        let (units, in_unit) = match loss.unit() {
            LossUnit::Row => (samples * rows, columns),
            LossUnit::Sample => (samples, rows * columns),
        };
        if units == 0 || in_unit == 0 {
            return Err(Error::ZeroSize { name: "number of targets" });
        }
        check_len("predictions", &[units, in_unit], predictions.len())?;
        let in_target = targets.len() / units;
        check_len("targets", &[units, in_target], targets.len())?;
        if let Some(weights) = weights {
            check_len("weights", &[units], weights.len())?;
        }
        if let Some(gradient) = &mut gradient {
            check_len("gradient", &[predictions.len()], gradient.len())?;
            gradient.fill(0.0);
        }
        // Rows have none of their own.
        let mask = mask.filter(|_| loss.unit() == LossUnit::Sample);
        if let Some(mask) = mask {
            check_len("mask", &[samples, rows], mask.len())?;
        }
        let part = |len: usize, unit: usize| unit * len..(unit + 1) * len;
        let mut slopes_of = gradient.as_mut().map(|gradient| gradient.chunks_mut(in_unit));
        let mut valid = Vec::new();
        let mut sum = 0.0;
        for (unit, predictions) in predictions.chunks(in_unit).enumerate() {
            let weight = weights.and_then(|weights| weights.get(unit)).copied().unwrap_or(1.0);
            if let Some(mask) = mask.and_then(|mask| mask.get(part(rows, unit))) {
                valid.clear();
                valid.extend(mask.iter().map(|valid| *valid != 0.0));
            }
            let of = Observation {
                targets: targets.get(part(in_target, unit)).unwrap_or_default(),
                predictions,
                columns,
                mask: mask.map(|_| valid.as_slice()),
            };
            let value = match slopes_of.as_mut().and_then(Iterator::next) {
                None => loss.value(&of),
                Some(slopes) => {
                    let value = loss.gradient(&of, slopes);
                    slopes.iter_mut().for_each(|slope| *slope *= weight / units as f64);
                    value
                }
            };
            sum += weight * value.map_err(|error| in_batch(error, loss, unit))?;
        }
        Ok(sum / units as f64)
    }
}

/// Says where in the batch an option is wrong.
fn in_batch(error: Error, loss: &dyn CustomLoss, unit: usize) -> Error {
    let name = if loss.unit() == LossUnit::Sample { "sample" } else { "row" };
    error.of_option(&format!(" of {name} {unit} of the batch"))
}

/// The numbers of a batch.
pub(crate) struct Batch<'a> {
    pub samples: usize,
    /// Of a sample.
    pub rows: usize,
    pub columns: usize,
    pub targets: &'a [f64],
    pub predictions: &'a [f64],
    /// One for each unit.
    pub weights: Option<&'a [f64]>,
    /// One for each row, not zero where it counts; for losses of samples only.
    pub mask: Option<&'a [f64]>,
}
