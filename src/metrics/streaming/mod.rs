//! Keras's metrics, batch by batch: [`Metric`], [`MetricAccumulator`].
//!
//! | file | what |
//! |---|---|
//! | this | what is summed up over batches |
//! | `metric` | which metrics there are, their names and options |
//! | `row` | what a metric is of one row |

mod metric;
mod row;

pub use metric::Metric;

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::metrics::auc::{self, Bucket};
use crate::metrics::classification::{Average, Tally, ZeroDivision, averaged, check_weights};
use crate::metrics::determination;
use metric::MOST_THRESHOLDS;
use row::Row;

/// Sums that a metric needs.
#[derive(Clone, Debug)]
enum Sums {
    /// Of rows: their values times their weights, and their weights.
    Mean { sum: f64, weights: f64 },
    /// Of all elements, or of each column.
    Tallies(Vec<Tally>),
    /// Of each column.
    Determination { rows: usize, columns: Vec<Spread> },
    /// Between neighbouring thresholds, and whether there is a row yet.
    Buckets { any: bool, buckets: Vec<Bucket> },
}

/// How far targets spread around their mean, and predictions from them
/// ([West 1979](https://doi.org/10.1145/359146.359153), which does not cancel).
#[derive(Clone, Copy, Debug, Default)]
struct Spread {
    weights: f64,
    mean: f64,
    squares: f64,
    residuals: f64,
}

impl Spread {
    fn add(&mut self, target: f64, prediction: f64, weight: f64) {
        self.residuals += weight * (target - prediction) * (target - prediction);
        if weight != 0.0 {
            self.weights += weight;
            let off = target - self.mean;
            self.mean += off * weight / self.weights;
            self.squares += weight * off * (target - self.mean);
        }
    }

    /// Adds the targets of another ([Chan et al. 1979](http://i.stanford.edu/pub/cstr/reports/cs/tr/79/773/CS-TR-79-773.pdf)).
    fn merge(&mut self, other: Spread) {
        self.residuals += other.residuals;
        if other.weights != 0.0 {
            let (weights, off) = (self.weights + other.weights, other.mean - self.mean);
            self.squares += other.squares + off * off * self.weights * other.weights / weights;
            self.mean += off * other.weights / weights;
            self.weights = weights;
        }
    }
}

/// A [`Metric`] of all batches so far, whatever their sizes: rows are summed up one after the other, so that the result is that of one
/// batch, to the bit.
///
/// ```
/// use fused_rnn::metrics::{Metric, MetricAccumulator};
/// use fused_rnn::nn::Loss;
/// let loss = Loss::SparseCategoricalCrossentropy { from_logits: true };
/// let mut accuracy = MetricAccumulator::for_loss("accuracy".parse()?, loss, 3)?;
/// accuracy.update(&[2.0f32, 0.0], &[0.1, 0.2, 0.7, 0.3, 0.4, 0.3], 3, None)?;
/// accuracy.update(&[1.0f32], &[0.2, 0.6, 0.2], 3, None)?;
/// assert_eq!((accuracy.name(), accuracy.result()), ("accuracy".to_owned(), 2.0 / 3.0));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct MetricAccumulator {
    metric: Metric,
    name: String,
    columns: Option<usize>,
    sums: Sums,
}

/// Rows up to which `f64` counts them.
const MOST_ROWS: f64 = 9007199254740992.0;

/// So many elements, each its default.
fn extend<T: Clone + Default>(of: &mut Vec<T>, columns: usize) -> Result<()> {
    if of.try_reserve_exact(columns.saturating_sub(of.len())).is_err() {
        return Err(Error::unsupported(format!("a metric of {columns} columns"), "there is not enough memory"));
    }
    of.resize(columns, T::default());
    Ok(())
}

impl MetricAccumulator {
    /// A metric of nothing yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for `Accuracy`, which needs a loss, and for a threshold that is not finite; [`Error::ZeroSize`] for `k` of
    /// zero.
    pub fn new(metric: Metric) -> Result<Self> {
        metric.check()?;
        Ok(MetricAccumulator { metric, name: metric.name().to_owned(), columns: None, sums: empty(metric) })
    }

    /// A metric of nothing yet, with [`Metric::for_loss`] for `Accuracy`, which keeps its name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a threshold that is not finite; [`Error::ZeroSize`] for `k` of zero.
    pub fn for_loss(metric: Metric, loss: Loss, columns: usize) -> Result<Self> {
        let name = metric.name().to_owned();
        Ok(MetricAccumulator { name, ..Self::new(metric.for_loss(loss, columns))? })
    }

    /// The same under another name, such as the one that the user wrote (`"mse"`).
    pub fn named(self, name: impl Into<String>) -> Self {
        MetricAccumulator { name: name.into(), ..self }
    }

    /// The name in the history of training.
    pub fn name(&self) -> String {
        self.name.clone()
    }

    /// What it measures.
    pub fn metric(&self) -> Metric {
        self.metric
    }

    /// Forgets all batches.
    pub fn reset(&mut self) {
        self.columns = None;
        self.sums = empty(self.metric);
    }

    /// Adds a batch: `predictions` `[rows, columns]`, `targets` of the same shape or, for sparse metrics (and, where there are several
    /// columns, for precision, recall and F1), the class of each row. A row counts as much as its weight says, if there are any; what
    /// stands in one of weight 0, padding for example, is not looked at. After an error, the batch does not count.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for no columns; [`Error::Shape`] for slices of other lengths, or other columns than before;
    /// [`Error::InvalidOption`] naming a target that is no class or, for precision, recall and F1, neither 0 nor 1, and for weights that are
    /// not finite or below zero; [`Error::NonFinite`] for a prediction of NaN where a class is derived from it.
    pub fn update<E: Scalar>(
        &mut self,
        targets: &[E],
        predictions: &[E],
        columns: usize,
        weights: Option<&[E]>,
    ) -> Result<()> {
        if columns == 0 {
            return Err(Error::ZeroSize { name: "columns" });
        }
        if self.columns.is_some_and(|before| before != columns) || !predictions.len().is_multiple_of(columns) {
            let before = self.columns.unwrap_or(columns);
            let got = format!("{} elements in rows of {columns}", predictions.len());
            return Err(Error::shape("predictions", format!("rows of {before} columns"), got));
        }
        let rows = predictions.len() / columns;
        let one_for_each = targets.len() == predictions.len() && !(self.metric.is_sparse() && columns > 1);
        let sparse = targets.len() == rows && (self.metric.is_sparse() || self.metric.may_be_sparse());
        if !one_for_each && !sparse {
            let expected = match self.metric.is_sparse() {
                true => format!("{rows} classes, one a row of predictions, for {}", self.metric),
                false => format!(
                    "{} elements ({rows} rows of {columns}), as predictions, for {}",
                    predictions.len(),
                    self.metric
                ),
            };
            return Err(Error::shape("targets", expected, format!("{} elements", targets.len())));
        }
        let sparse = sparse && (columns > 1 || self.metric.is_sparse());
        let weights: Option<Vec<f64>> = weights.map(|weights| weights.iter().map(|w| w.wide()).collect());
        check_weights(weights.as_deref(), rows)?;
        if columns == 1 && matches!(self.metric, Metric::F1Score { threshold: None, .. }) {
            let expected = "a number where there is one column, which is always the largest of its row";
            return Err(Error::option("threshold of f1_score", expected, "none"));
        }

        let mut sums = self.sums.clone();
        match &mut sums {
            Sums::Tallies(tallies) if tallies.is_empty() => {
                let count = if matches!(self.metric, Metric::F1Score { .. }) { columns } else { 1 };
                extend(tallies, count)?;
            }
            Sums::Determination { columns: spreads, .. } if spreads.is_empty() => {
                extend(spreads, columns)?;
            }
            _ => {}
        }
        let width = if sparse { 1 } else { columns };
        for (row, (predictions, targets)) in predictions.chunks_exact(columns).zip(targets.chunks(width)).enumerate() {
            let weight = weights.as_ref().and_then(|weights| weights.get(row)).copied().unwrap_or(1.0);
            if weight == 0.0 {
                if let Sums::Determination { rows, .. } = &mut sums {
                    *rows += 1;
                }
                continue;
            }
            let row = Row { index: row, targets, predictions, sparse };
            match &mut sums {
                Sums::Mean { sum, weights } => {
                    *sum += weight * row.value(self.metric)?;
                    *weights += weight;
                }
                Sums::Tallies(tallies) => row.count(self.metric, weight, tallies)?,
                Sums::Determination { rows, columns: spreads } => {
                    *rows += 1;
                    for ((spread, t), p) in spreads.iter_mut().zip(row.targets).zip(predictions) {
                        spread.add(t.wide(), p.wide(), weight);
                    }
                }
                Sums::Buckets { any, buckets } => {
                    *any = true;
                    row.count_by_thresholds(self.metric, weight, buckets)?;
                }
            }
        }
        self.columns = Some(columns);
        self.sums = sums;
        Ok(())
    }

    /// What it has summed up, for [`merge`](Self::merge) elsewhere.
    pub(crate) fn numbers(&self) -> Vec<f64> {
        let columns = self.columns.map_or(0.0, |columns| columns as f64);
        let sums = match &self.sums {
            Sums::Mean { sum, weights } => vec![*sum, *weights],
            Sums::Tallies(tallies) => tallies.iter().flat_map(|t| [t.hits, t.predicted, t.support]).collect(),
            Sums::Determination { rows, columns } => std::iter::once(*rows as f64)
                .chain(columns.iter().flat_map(|s| [s.weights, s.mean, s.squares, s.residuals]))
                .collect(),
            Sums::Buckets { buckets, .. } => buckets.iter().flat_map(|b| [b.ones, b.zeros]).collect(),
        };
        std::iter::once(columns).chain(sums).collect()
    }

    /// Adds the batches of another accumulator of the same metric, by its [numbers](Self::numbers). Those that have seen other numbers of
    /// columns do not go together, and the other then does not count.
    pub(crate) fn merge(&mut self, numbers: &[f64]) {
        let Some((&columns, theirs)) = numbers.split_first().filter(|(columns, _)| **columns > 0.0) else { return };
        if *self.columns.get_or_insert(columns as usize) != columns as usize {
            return;
        }
        match &mut self.sums {
            Sums::Mean { sum, weights } => {
                if let [their_sum, their_weights] = theirs {
                    (*sum, *weights) = (*sum + their_sum, *weights + their_weights);
                }
            }
            Sums::Tallies(tallies) => {
                tallies.resize(tallies.len().max(theirs.len() / 3), Tally::default());
                for (tally, [hits, predicted, support]) in tallies.iter_mut().zip(theirs.as_chunks().0) {
                    tally.hits += hits;
                    tally.predicted += predicted;
                    tally.support += support;
                }
            }
            Sums::Buckets { any, buckets } => {
                *any = true;
                for (bucket, [ones, zeros]) in buckets.iter_mut().zip(theirs.as_chunks().0) {
                    bucket.ones += ones;
                    bucket.zeros += zeros;
                }
            }
            Sums::Determination { rows, columns } => {
                let Some((their_rows, theirs)) = theirs.split_first() else { return };
                *rows += *their_rows as usize;
                columns.resize(columns.len().max(theirs.len() / 4), Spread::default());
                for (spread, theirs) in columns.iter_mut().zip(theirs.as_chunks().0) {
                    let [weights, mean, squares, residuals] = *theirs;
                    spread.merge(Spread { weights, mean, squares, residuals });
                }
            }
        }
    }

    /// Takes the sums of another accumulator of the same metric, by its [numbers](Self::numbers), bit for bit; whether they are such, of rows with
    /// so many columns.
    #[must_use]
    pub(crate) fn restore(&mut self, numbers: &[f64], columns: usize) -> bool {
        self.reset();
        let Some((&their_columns, theirs)) = numbers.split_first() else { return false };
        if their_columns == 0.0 {
            return true;
        }
        if their_columns != columns as f64 {
            return false;
        }
        self.columns = Some(columns);
        match &mut self.sums {
            Sums::Mean { sum, weights } => match theirs {
                [their_sum, their_weights] => (*sum, *weights) = (*their_sum, *their_weights),
                _ => return false,
            },
            Sums::Tallies(tallies) => {
                let (triples, rest) = theirs.as_chunks::<3>();
                let tally = |[hits, predicted, support]: &[f64; 3]| Tally {
                    hits: *hits,
                    predicted: *predicted,
                    support: *support,
                };
                *tallies = triples.iter().map(tally).collect();
                let count = if matches!(self.metric, Metric::F1Score { .. }) { columns } else { 1 };
                return rest.is_empty() && tallies.len() == count;
            }
            Sums::Buckets { any, buckets } => {
                let (pairs, rest) = theirs.as_chunks::<2>();
                if pairs.len() != buckets.len() || !rest.is_empty() {
                    return false;
                }
                // A row counts something.
                *any = theirs.iter().any(|sum| *sum != 0.0);
                for (bucket, [ones, zeros]) in buckets.iter_mut().zip(pairs) {
                    (bucket.ones, bucket.zeros) = (*ones, *zeros);
                }
            }
            Sums::Determination { rows, columns: spreads } => {
                let Some((their_rows, theirs)) = theirs.split_first() else { return false };
                if !(0.0..=MOST_ROWS).contains(their_rows) || their_rows.fract() != 0.0 {
                    return false;
                }
                let (quadruples, rest) = theirs.as_chunks::<4>();
                let spread = |[weights, mean, squares, residuals]: &[f64; 4]| Spread {
                    weights: *weights,
                    mean: *mean,
                    squares: *squares,
                    residuals: *residuals,
                };
                *rows = *their_rows as usize;
                *spreads = quadruples.iter().map(spread).collect();
                return rest.is_empty() && spreads.len() == columns;
            }
        }
        true
    }

    /// The metric of all batches; NaN before the first.
    pub fn result(&self) -> f64 {
        match (&self.sums, self.metric) {
            (Sums::Mean { sum, weights }, Metric::RootMeanSquaredError) => (sum / weights).sqrt(),
            (Sums::Mean { sum, weights }, _) => sum / weights,
            (Sums::Tallies(tallies), _) if tallies.is_empty() => f64::NAN,
            (Sums::Tallies(tallies), Metric::F1Score { average, .. }) => {
                averaged(tallies, average, ZeroDivision::Zero).f1
            }
            (Sums::Tallies(tallies), metric) => {
                let scores = averaged(tallies, Average::Micro, ZeroDivision::Zero);
                if matches!(metric, Metric::Recall { .. }) { scores.recall } else { scores.precision }
            }
            (Sums::Buckets { any: false, .. }, _) => f64::NAN,
            (Sums::Buckets { buckets, .. }, Metric::Auc { curve, .. }) => auc::area(buckets, curve),
            (Sums::Buckets { .. }, _) => f64::NAN,
            (Sums::Determination { rows, .. }, _) if *rows < 2 => f64::NAN,
            (Sums::Determination { columns, .. }, _) => {
                let sum: f64 = columns.iter().map(|spread| determination(spread.residuals, spread.squares)).sum();
                sum / columns.len() as f64
            }
        }
    }
}

/// The sums of no batch.
fn empty(metric: Metric) -> Sums {
    match metric {
        Metric::Precision { .. } | Metric::Recall { .. } | Metric::F1Score { .. } => Sums::Tallies(Vec::new()),
        Metric::R2Score => Sums::Determination { rows: 0, columns: Vec::new() },
        Metric::Auc { thresholds, .. } => {
            Sums::Buckets { any: false, buckets: vec![Bucket::default(); thresholds.clamp(2, MOST_THRESHOLDS)] }
        }
        _ => Sums::Mean { sum: 0.0, weights: 0.0 },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(metric: Metric, targets: &[f64], predictions: &[f64], columns: usize, weights: Option<&[f64]>) -> f64 {
        let mut accumulator = MetricAccumulator::new(metric).unwrap();
        accumulator.update(targets, predictions, columns, weights).unwrap();
        accumulator.result()
    }

    fn close(got: f64, expected: f64) {
        assert!((got - expected).abs() <= 1e-6 * expected.abs(), "{got} {expected}");
    }

    /// The examples of [Keras's documentation](https://keras.io/api/metrics/), with sample weights where it has them. It computes in single
    /// precision.
    #[test]
    fn kerass_examples() {
        let half = 0.5;
        let metric = Metric::BinaryAccuracy { threshold: half };
        let (t, p) = ([1.0, 1.0, 0.0, 0.0], [0.98, 1.0, 0.0, 0.6]);
        close(result(metric, &t, &p, 1, None), 0.75);
        close(result(metric, &t, &p, 1, Some(&[1.0, 0.0, 0.0, 1.0])), 0.5);
        let (t, p) = ([0.0, 0.0, 1.0, 0.0, 1.0, 0.0], [0.1, 0.9, 0.8, 0.05, 0.95, 0.0]);
        for metric in [Metric::CategoricalAccuracy, Metric::TopKCategoricalAccuracy { k: 1 }] {
            close(result(metric, &t, &p, 3, None), 0.5);
            close(result(metric, &t, &p, 3, Some(&[0.7, 0.3])), 0.3);
        }
        let p = [0.1, 0.6, 0.3, 0.05, 0.95, 0.0];
        for metric in [Metric::SparseCategoricalAccuracy, Metric::SparseTopKCategoricalAccuracy { k: 1 }] {
            close(result(metric, &[2.0, 1.0], &p, 3, None), 0.5);
            close(result(metric, &[2.0, 1.0], &p, 3, Some(&[0.7, 0.3])), 0.3);
        }
        let (t, p) = ([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0]);
        close(result(Metric::MeanSquaredError, &t, &p, 2, None), 0.25);
        close(result(Metric::MeanSquaredError, &t, &p, 2, Some(&[1.0, 0.0])), 0.5);
        close(result(Metric::RootMeanSquaredError, &t, &p, 2, None), 0.5);
        close(result(Metric::RootMeanSquaredError, &t, &p, 2, Some(&[1.0, 0.0])), std::f64::consts::FRAC_1_SQRT_2);
        close(result(Metric::MeanAbsoluteError, &t, &p, 2, None), 0.25);
        close(result(Metric::MeanAbsolutePercentageError, &t, &p, 2, None), 250_000_000.0);
        close(result(Metric::MeanAbsolutePercentageError, &t, &p, 2, Some(&[1.0, 0.0])), 500_000_000.0);
        let (t, p) = ([0.0, 1.0, 1.0, 1.0], [1.0, 0.0, 1.0, 1.0]);
        let weights = [0.0, 0.0, 1.0, 0.0];
        let precision = Metric::Precision { threshold: half };
        close(result(precision, &t, &p, 1, None), 2.0 / 3.0);
        close(result(precision, &t, &p, 1, Some(&weights)), 1.0);
        close(result(Metric::Recall { threshold: half }, &t, &p, 1, None), 2.0 / 3.0);
        close(result(Metric::Recall { threshold: half }, &t, &p, 1, Some(&[0.0, 0.0, 1.0, 0.0])), 1.0);
        // Its F1 of [1, 1, 1], [1, 0, 0], [1, 1, 0] and these predictions is [0.5, 0.8, 0.6666667].
        let t = [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0];
        let p = [0.2, 0.6, 0.7, 0.2, 0.6, 0.6, 0.6, 0.8, 0.0];
        let f1 = Metric::F1Score { average: Average::Macro, threshold: Some(half) };
        close(result(f1, &t, &p, 3, None), (0.5 + 0.8 + 2.0 / 3.0) / 3.0);
        let (t, p) = ([1.0, 4.0, 3.0], [2.0, 4.0, 4.0]);
        close(result(Metric::R2Score, &t, &p, 1, None), 0.571_428_6);
    }

    #[test]
    fn accuracy_follows_the_loss() {
        let of = |loss, columns| Metric::Accuracy.for_loss(loss, columns);
        let binary = |threshold| Metric::BinaryAccuracy { threshold };
        assert_eq!(of(Loss::BinaryCrossentropy { from_logits: false }, 3), binary(0.5));
        assert_eq!(of(Loss::BinaryCrossentropy { from_logits: true }, 1), binary(0.0));
        assert_eq!(of(Loss::CategoricalCrossentropy { from_logits: true }, 3), Metric::CategoricalAccuracy);
        let sparse = Loss::SparseCategoricalCrossentropy { from_logits: false };
        assert_eq!(of(sparse, 3), Metric::SparseCategoricalAccuracy);
        assert_eq!((of(Loss::MeanSquaredError, 1), of(Loss::HUBER, 2)), (binary(0.5), Metric::CategoricalAccuracy));
        assert_eq!(Metric::R2Score.for_loss(sparse, 3), Metric::R2Score);
        let accumulator = MetricAccumulator::for_loss(Metric::Accuracy, sparse, 3).unwrap();
        assert_eq!(
            (accumulator.name().as_str(), accumulator.metric()),
            ("accuracy", Metric::SparseCategoricalAccuracy)
        );
        assert_eq!(accumulator.named("acc").name(), "acc");
        assert!(matches!(MetricAccumulator::new(Metric::Accuracy), Err(Error::InvalidOption { .. })));
    }

    #[test]
    fn names_are_read_back() {
        for name in ["accuracy", "mean_squared_error", "f1_score", "top_k_categorical_accuracy", "recall"] {
            assert_eq!(name.parse::<Metric>().unwrap().name(), name);
        }
        assert_eq!("mse".parse::<Metric>().unwrap(), Metric::MeanSquaredError);
        assert!("accurancy".parse::<Metric>().unwrap_err().to_string().contains("accurancy"));
    }

    #[test]
    fn nothing_yet_and_reset() {
        for name in ["mse", "precision", "f1_score", "r2_score", "categorical_accuracy"] {
            let mut accumulator = MetricAccumulator::new(name.parse().unwrap()).unwrap();
            assert!(accumulator.result().is_nan(), "{name}");
            accumulator.update(&[0.0f64, 1.0, 1.0, 0.0], &[0.2, 0.8, 0.7, 0.1], 2, None).unwrap();
            let first = accumulator.result();
            assert!(first.is_finite(), "{name}");
            accumulator.reset();
            assert!(accumulator.result().is_nan(), "{name}");
            // Other columns, now that there are none from before.
            if name != "f1_score" {
                accumulator.update(&[0.0f64, 1.0], &[0.2, 0.8], 1, None).unwrap();
            }
        }
    }

    #[test]
    fn bad_batches_are_named_and_do_not_count() {
        let half = 0.5;
        let message = |metric: Metric, targets: &[f64], predictions: &[f64], columns, weights: Option<&[f64]>| {
            let mut accumulator = MetricAccumulator::new(metric).unwrap();
            let error = accumulator.update(targets, predictions, columns, weights).unwrap_err().to_string();
            assert!(accumulator.result().is_nan(), "{metric}");
            error
        };
        let sparse = Metric::SparseCategoricalAccuracy;
        let p = [0.1, 0.9, 0.8, 0.2];
        for target in [2.0, -1.0, 0.5, f64::NAN, f64::INFINITY] {
            let error = message(sparse, &[0.0, target], &p, 2, None);
            assert!(error.contains("target of row 1: expected a class, a whole number from 0 to 1"), "{error}");
        }
        assert!(message(sparse, &[0.0, 1.0, 0.0, 1.0], &p, 2, None).contains("2 classes, one a row"));
        assert!(message(Metric::CategoricalAccuracy, &[0.0, 1.0], &p, 2, None).contains("4 elements (2 rows of 2)"));
        let bad = [0.1, 0.9, f64::NAN, 0.2];
        for metric in [sparse, Metric::Precision { threshold: half }, Metric::SparseTopKCategoricalAccuracy { k: 1 }] {
            let error = message(metric, &[0.0, 1.0], &bad, 2, None);
            assert!(error.contains("predictions: NaN at row 1, column 0"), "{error}");
        }
        let error = message(Metric::Recall { threshold: half }, &[0.0, 1.0, 0.3, 0.0], &p, 2, None);
        assert!(error.contains("row 1, column 0") && error.contains("0 or 1, got 0.3"), "{error}");
        let mse = Metric::MeanSquaredError;
        assert!(message(mse, &p, &p, 3, None).contains("rows of 3 columns"));
        assert!(message(mse, &p, &p, 0, None).contains("columns is 0"));
        assert!(message(mse, &p, &p, 2, Some(&[1.0])).contains("weights: expected 2"));
        assert!(message(mse, &p, &p, 2, Some(&[1.0, -1.0])).contains("weights[1]"));
        let f1 = Metric::F1Score { average: Average::Macro, threshold: None };
        assert!(message(f1, &[0.0, 1.0], &[0.5, 0.5], 1, None).contains("one column"));
        let mut accumulator = MetricAccumulator::new(mse).unwrap();
        accumulator.update(&p, &p, 2, None).unwrap();
        assert!(matches!(accumulator.update(&p, &p, 4, None), Err(Error::Shape { .. })));
        for metric in [Metric::TopKCategoricalAccuracy { k: 0 }, Metric::Precision { threshold: f64::NAN }] {
            assert!(MetricAccumulator::new(metric).is_err());
        }
    }
}
