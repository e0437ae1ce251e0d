//! What a metric is of one row: [`Row`].

use crate::dtype::Scalar;
use crate::error::{Error, Result};

use crate::loss::Loss;
use crate::metrics::auc::{self, Bucket};
use crate::metrics::classification::{Tally, above, argmax, is_binary_hit, is_in_top_k};
use crate::metrics::streaming::Metric;

/// A row of a batch.
pub(super) struct Row<'a, E> {
    pub index: usize,
    /// One for each prediction, or a class.
    pub targets: &'a [E],
    pub predictions: &'a [E],
    pub sparse: bool,
}

impl<E: Scalar> Row<'_, E> {
    /// The class that a sparse target names.
    pub(super) fn class(&self) -> Result<usize> {
        let target = self.targets.first().map_or(f64::NAN, |target| target.wide());
        let columns = self.predictions.len();
        if target.fract() == 0.0 && (0.0..columns as f64).contains(&target) {
            return Ok(target as usize);
        }
        let expected = format!("a class, a whole number from 0 to {}", columns - 1);
        Err(Error::option(format!("target of row {}", self.index), expected, target))
    }

    pub(super) fn largest_target(&self) -> Result<usize> {
        argmax(self.targets.iter().map(|t| t.wide()), "targets", self.index)
    }

    pub(super) fn largest_prediction(&self) -> Result<usize> {
        argmax(self.predictions.iter().map(|p| p.wide()), "predictions", self.index)
    }

    pub(super) fn is_above(&self, column: usize, threshold: f64) -> Result<bool> {
        let position = || format!("row {}, column {column} (from 0)", self.index);
        above(self.predictions.get(column).map_or(f64::NAN, |p| p.wide()), threshold, position)
    }

    /// The mean of `f(target, prediction)`.
    pub(super) fn mean(&self, f: impl Fn(f64, f64) -> f64) -> f64 {
        let pairs = self.targets.iter().zip(self.predictions);
        pairs.map(|(t, p)| f(t.wide(), p.wide())).sum::<f64>() / self.predictions.len() as f64
    }

    /// What the row adds to a mean.
    pub(super) fn value(&self, metric: Metric) -> Result<f64> {
        let in_top_k = |class, k| {
            is_in_top_k(class, self.predictions.iter().map(|p| p.wide()), k, self.index)
                .map(|hit| f64::from(u8::from(hit)))
        };
        Ok(match metric {
            Metric::BinaryAccuracy { threshold } => {
                let mut hits = 0usize;
                for (column, t) in self.targets.iter().enumerate() {
                    hits += usize::from(is_binary_hit(t.wide(), self.is_above(column, threshold)?));
                }
                hits as f64 / self.predictions.len() as f64
            }
            Metric::CategoricalAccuracy => f64::from(u8::from(self.largest_target()? == self.largest_prediction()?)),
            Metric::SparseCategoricalAccuracy => f64::from(u8::from(self.class()? == self.largest_prediction()?)),
            Metric::TopKCategoricalAccuracy { k } => in_top_k(self.largest_target()?, k)?,
            Metric::SparseTopKCategoricalAccuracy { k } => in_top_k(self.class()?, k)?,
            Metric::MeanAbsoluteError => self.mean(|t, p| (t - p).abs()),
            Metric::MeanAbsolutePercentageError => self.mean(|t, p| 100.0 * (t - p).abs() / t.abs().max(1e-7)),
            Metric::CosineSimilarity => {
                -Loss::CosineSimilarity.value(self.predictions.len(), self.targets, self.predictions)?
            }
            Metric::Loss(loss) => {
                if loss.is_sparse() {
                    self.class()?;
                }
                loss.value(self.predictions.len(), self.targets, self.predictions)?
            }
            _ => self.mean(|t, p| (t - p) * (t - p)),
        })
    }

    /// Whether each element is true: 1, or in the column of the row's class.
    pub(super) fn truth(&self, metric: Metric, class: Option<usize>, column: usize) -> Result<bool> {
        match class {
            Some(class) => Ok(class == column),
            None => match self.targets.get(column).map_or(f64::NAN, |target| target.wide()) {
                0.0 => Ok(false),
                1.0 => Ok(true),
                other => {
                    let name = format!("target of row {}, column {column} (from 0), for {metric}", self.index);
                    Err(Error::option(name, "0 or 1", other))
                }
            },
        }
    }

    /// Counts the row's elements between thresholds.
    pub(super) fn count_by_thresholds(&self, metric: Metric, weight: f64, buckets: &mut [Bucket]) -> Result<()> {
        let class = if self.sparse { Some(self.class()?) } else { None };
        for (column, p) in self.predictions.iter().enumerate() {
            let is_one = self.truth(metric, class, column)?;
            let p = match metric {
                Metric::Auc { from_logits: true, .. } => 1.0 / (1.0 + (-p.wide()).exp()),
                _ => p.wide(),
            };
            auc::count(buckets, p, is_one, weight, || format!("row {}, column {column} (from 0)", self.index))?;
        }
        Ok(())
    }

    /// Counts the row's elements into one tally, or one for each column.
    pub(super) fn count(&self, metric: Metric, weight: f64, tallies: &mut [Tally]) -> Result<()> {
        let threshold = match metric {
            Metric::Precision { threshold } | Metric::Recall { threshold } => Some(threshold),
            Metric::F1Score { threshold, .. } => threshold,
            _ => None,
        };
        let class = if self.sparse { Some(self.class()?) } else { None };
        let largest = if threshold.is_none() { Some(self.largest_prediction()?) } else { None };
        for column in 0..self.predictions.len() {
            let is_true = self.truth(metric, class, column)?;
            let is_predicted = match threshold {
                Some(threshold) => self.is_above(column, threshold)?,
                None => largest == Some(column),
            };
            let place = if tallies.len() == 1 { 0 } else { column };
            let Some(tally) = tallies.get_mut(place) else { continue };
            tally.hits += if is_true && is_predicted { weight } else { 0.0 };
            tally.predicted += if is_predicted { weight } else { 0.0 };
            tally.support += if is_true { weight } else { 0.0 };
        }
        Ok(())
    }
}
