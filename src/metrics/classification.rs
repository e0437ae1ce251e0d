//! Metrics of classes: accuracies, [`ConfusionMatrix`] and what follows from it, [`roc_auc`].

use ndarray::{Array2, ArrayView, ArrayView2, Dimension};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::memory;
use crate::metrics::check_same_shape;

/// The fraction of predictions that are the true class, as scikit-learn's
/// [`accuracy_score`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.accuracy_score.html).
///
/// # Errors
///
/// [`Error::Shape`] where there are not as many predictions as classes, [`Error::ZeroSize`] where there are none.
pub fn accuracy(truth: &[usize], prediction: &[usize]) -> Result<f64> {
    check_same_shape(&[truth.len()], &[prediction.len()])?;
    let hits = truth.iter().zip(prediction).filter(|(t, p)| t == p).count();
    Ok(hits as f64 / truth.len() as f64)
}

/// The fraction of elements where the prediction is above `threshold` if the truth is 1, and not above if it is 0; Keras's
/// [`BinaryAccuracy`](https://keras.io/api/metrics/accuracy_metrics/#binaryaccuracy-class). The threshold is 0.5 for probabilities, 0 for
/// logits.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare; [`Error::NonFinite`] for a prediction
/// of NaN.
pub fn binary_accuracy<E: Scalar, D: Dimension>(
    truth: ArrayView<'_, E, D>,
    prediction: ArrayView<'_, E, D>,
    threshold: f64,
) -> Result<f64> {
    check_same_shape(truth.shape(), prediction.shape())?;
    let mut hits = 0usize;
    for (i, (t, p)) in truth.iter().zip(prediction.iter()).enumerate() {
        hits += usize::from(is_binary_hit(t.wide(), above(p.wide(), threshold, || format!("element {i}"))?));
    }
    Ok(hits as f64 / truth.len() as f64)
}

/// The fraction of rows `[rows, classes]` whose largest prediction is at the truth's largest value (its 1, if it is
/// [one-hot](crate::data::one_hot)): Keras's
/// [`CategoricalAccuracy`](https://keras.io/api/metrics/accuracy_metrics/#categoricalaccuracy-class).
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare; [`Error::NonFinite`] for a truth or a
/// prediction of NaN.
pub fn categorical_accuracy<E: Scalar>(truth: ArrayView2<'_, E>, prediction: ArrayView2<'_, E>) -> Result<f64> {
    check_same_shape(truth.shape(), prediction.shape())?;
    accuracy(&argmax_rows(truth)?, &argmax_rows(prediction)?)
}

/// The fraction of rows `[rows, classes]` whose largest prediction is at the true class: Keras's
/// [`SparseCategoricalAccuracy`](https://keras.io/api/metrics/accuracy_metrics/#sparsecategoricalaccuracy-class).
///
/// # Errors
///
/// [`Error::Shape`] where there are not as many rows as true classes, [`Error::ZeroSize`] where there are none; [`Error::InvalidOption`]
/// naming a class that is no column; [`Error::NonFinite`] for a prediction of NaN.
pub fn sparse_categorical_accuracy<E: Scalar>(truth: &[usize], prediction: ArrayView2<'_, E>) -> Result<f64> {
    check_same_shape(&[truth.len()], &[prediction.nrows()])?;
    check_classes("truth", truth, prediction.ncols())?;
    accuracy(truth, &argmax_rows(prediction)?)
}

/// The fraction of rows where fewer than `k` predictions are larger than that of the truth's largest value: Keras's
/// [`TopKCategoricalAccuracy`](https://keras.io/api/metrics/accuracy_metrics/#topkcategoricalaccuracy-class).
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare, or for `k` of zero;
/// [`Error::NonFinite`] for a truth or a prediction of NaN.
pub fn top_k_categorical_accuracy<E: Scalar>(
    truth: ArrayView2<'_, E>,
    prediction: ArrayView2<'_, E>,
    k: usize,
) -> Result<f64> {
    check_same_shape(truth.shape(), prediction.shape())?;
    sparse_top_k_categorical_accuracy(&argmax_rows(truth)?, prediction, k)
}

/// The fraction of rows where fewer than `k` predictions are larger than that of the true class: Keras's
/// [`SparseTopKCategoricalAccuracy`](https://keras.io/api/metrics/accuracy_metrics/#sparsetopkcategoricalaccuracy-class).
///
/// # Errors
///
/// [`Error::Shape`] where there are not as many rows as true classes, [`Error::ZeroSize`] where there are none, or for `k` of zero;
/// [`Error::InvalidOption`] naming a class that is no column; [`Error::NonFinite`] for a prediction of NaN.
pub fn sparse_top_k_categorical_accuracy<E: Scalar>(
    truth: &[usize],
    prediction: ArrayView2<'_, E>,
    k: usize,
) -> Result<f64> {
    if k == 0 {
        return Err(Error::ZeroSize { name: "k" });
    }
    check_same_shape(&[truth.len()], &[prediction.nrows()])?;
    check_classes("truth", truth, prediction.ncols())?;
    let mut hits = 0usize;
    for (row, (class, predictions)) in truth.iter().zip(prediction.rows()).enumerate() {
        hits += usize::from(is_in_top_k(*class, predictions.iter().map(|p| p.wide()), k, row)?);
    }
    Ok(hits as f64 / truth.len() as f64)
}

/// The column of each row's largest value, of equal ones the first: the predicted classes.
///
/// # Errors
///
/// [`Error::ZeroSize`] without columns, [`Error::NonFinite`] naming the row of a NaN.
pub fn argmax_rows<E: Scalar>(matrix: ArrayView2<'_, E>) -> Result<Vec<usize>> {
    let rows = matrix.rows().into_iter().enumerate();
    rows.map(|(row, values)| argmax(values.iter().map(|v| v.wide()), "values", row)).collect()
}

/// Whether a prediction that is above the threshold or not is right.
pub(super) fn is_binary_hit(truth: f64, above: bool) -> bool {
    truth == f64::from(u8::from(above))
}

/// Whether a prediction is above the threshold.
pub(super) fn above(prediction: f64, threshold: f64, position: impl FnOnce() -> String) -> Result<bool> {
    if prediction.is_nan() { Err(nan("predictions", position())) } else { Ok(prediction > threshold) }
}

/// The position of the largest value.
pub(super) fn argmax(values: impl Iterator<Item = f64>, tensor: &str, row: usize) -> Result<usize> {
    let mut best = None;
    for (column, value) in values.enumerate() {
        if value.is_nan() {
            return Err(nan(tensor, format!("row {row}, column {column} (from 0)")));
        }
        if best.is_none_or(|(_, largest)| value > largest) {
            best = Some((column, value));
        }
    }
    best.map(|(column, _)| column).ok_or(Error::ZeroSize { name: "number of classes" })
}

/// Whether fewer than `k` predictions are larger than that of the class, which is one of theirs.
pub(super) fn is_in_top_k(
    class: usize,
    predictions: impl Iterator<Item = f64> + Clone,
    k: usize,
    row: usize,
) -> Result<bool> {
    argmax(predictions.clone(), "predictions", row)?; // refuses NaN
    let own = predictions.clone().nth(class).unwrap_or(f64::NEG_INFINITY);
    Ok(predictions.filter(|p| *p > own).count() < k)
}

fn nan(tensor: &str, position: String) -> Error {
    let help = "it names no class; lower the learning rate, clip gradients, or check the data".to_owned();
    Error::NonFinite { tensor: tensor.to_owned(), got: f64::NAN, position, help }
}

fn check_classes(name: &str, classes: &[usize], count: usize) -> Result<()> {
    match classes.iter().enumerate().find(|(_, class)| **class >= count) {
        None => Ok(()),
        Some((sample, class)) => {
            Err(Error::option(format!("{name}[{sample}]"), format!("a class below {count}"), class))
        }
    }
}

/// What a quotient of zero by zero counts as: scikit-learn's `zero_division`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ZeroDivision {
    /// 0, scikit-learn's default (without its warning).
    #[default]
    Zero,
    /// 1.
    One,
    /// NaN; averages leave it out.
    NotANumber,
}

impl ZeroDivision {
    fn divide(self, numerator: f64, denominator: f64) -> f64 {
        if denominator != 0.0 {
            return numerator / denominator;
        }
        match self {
            ZeroDivision::Zero => 0.0,
            ZeroDivision::One => 1.0,
            ZeroDivision::NotANumber => f64::NAN,
        }
    }
}

/// How scores of classes become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Average {
    /// The mean: each class counts alike.
    Macro,
    /// Of the counts of all classes together: each sample counts alike. With one class a sample, all three scores are the accuracy.
    Micro,
    /// The mean, weighted by how often a class is true.
    Weighted,
}

/// Precision, recall and F1 of a class, or their averages.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ClassScores {
    /// Of the samples predicted to be of the class, the fraction that are.
    pub precision: f64,
    /// Of the samples of the class, the fraction predicted to be.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
    /// How many samples are of the class.
    pub support: f64,
}

/// What a class's samples were taken for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Tally {
    pub(super) hits: f64,
    pub(super) predicted: f64,
    pub(super) support: f64,
}

impl Tally {
    pub(super) fn scores(self, zero: ZeroDivision) -> ClassScores {
        ClassScores {
            precision: zero.divide(self.hits, self.predicted),
            recall: zero.divide(self.hits, self.support),
            f1: zero.divide(2.0 * self.hits, self.predicted + self.support),
            support: self.support,
        }
    }
}

/// The average of classes' scores.
pub(super) fn averaged(tallies: &[Tally], average: Average, zero: ZeroDivision) -> ClassScores {
    let total = tallies.iter().fold(Tally::default(), |sum, tally| Tally {
        hits: sum.hits + tally.hits,
        predicted: sum.predicted + tally.predicted,
        support: sum.support + tally.support,
    });
    if average == Average::Micro {
        return total.scores(zero);
    }
    let scores: Vec<ClassScores> = tallies.iter().map(|tally| tally.scores(zero)).collect();
    let mean = |score: fn(&ClassScores) -> f64| {
        let known = || scores.iter().filter(move |class| !score(class).is_nan());
        // Where no sample is of the classes that are left, they count alike, as they do in scikit-learn.
        let by_support = average == Average::Weighted && known().any(|class| class.support > 0.0);
        let (mut sum, mut weights) = (0.0, 0.0);
        for class in known() {
            let weight = if by_support { class.support } else { 1.0 };
            sum += weight * score(class);
            weights += weight;
        }
        sum / weights // NaN for none
    };
    ClassScores {
        precision: mean(|class| class.precision),
        recall: mean(|class| class.recall),
        f1: mean(|class| class.f1),
        support: total.support,
    }
}

/// How often each class was taken for each: scikit-learn's
/// [`confusion_matrix`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.confusion_matrix.html), and what follows from
/// it.
///
/// ```
/// use fused_rnn::metrics::{Average, ConfusionMatrix, ZeroDivision};
/// let matrix = ConfusionMatrix::new(&[2, 0, 2, 2, 0, 1], &[0, 0, 2, 2, 0, 2], 3)?;
/// assert_eq!(matrix.counts(), ndarray::array![[2.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 2.0]]);
/// assert_eq!(matrix.accuracy(), 4.0 / 6.0);
/// assert_eq!(matrix.scores(ZeroDivision::Zero)[0].precision, 2.0 / 3.0);
/// assert_eq!(matrix.average(Average::Macro, ZeroDivision::Zero).recall, (1.0 + 0.0 + 2.0 / 3.0) / 3.0);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ConfusionMatrix {
    counts: Array2<f64>,
    weighted: bool,
}

impl ConfusionMatrix {
    /// Counts classes, numbered from 0 and below `classes`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where there are not as many predictions as true classes, [`Error::ZeroSize`] where there are none;
    /// [`Error::InvalidOption`] naming a class that is not below `classes`; [`Error::SizeOverflow`] and [`Error::Unsupported`] for a matrix beyond memory.
    pub fn new(truth: &[usize], prediction: &[usize], classes: usize) -> Result<Self> {
        Self::count(truth, prediction, classes, None)
    }

    /// As [`new`](Self::new), but a sample counts as much as its weight says: scikit-learn's `sample_weight`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where there are not as many predictions or weights as true classes, [`Error::ZeroSize`] where there are none;
    /// [`Error::InvalidOption`] naming a class that is not below `classes`, or a weight that is not finite or below zero;
    /// [`Error::SizeOverflow`] and [`Error::Unsupported`] for a matrix beyond memory.
    pub fn weighted(truth: &[usize], prediction: &[usize], classes: usize, weights: &[f64]) -> Result<Self> {
        Self::count(truth, prediction, classes, Some(weights))
    }

    fn count(truth: &[usize], prediction: &[usize], classes: usize, weights: Option<&[f64]>) -> Result<Self> {
        check_same_shape(&[truth.len()], &[prediction.len()])?;
        check_classes("truth", truth, classes)?;
        check_classes("prediction", prediction, classes)?;
        check_weights(weights, truth.len())?;
        let mut counts = memory::array_of("confusion matrix", (classes, classes), 0.0)?;
        for (sample, place) in truth.iter().zip(prediction).enumerate() {
            let weight = weights.map_or(Some(&1.0), |weights| weights.get(sample));
            if let (Some(count), Some(weight)) = (counts.get_mut([*place.0, *place.1]), weight) {
                *count += weight;
            }
        }
        Ok(ConfusionMatrix { counts, weighted: weights.is_some() })
    }

    /// `[classes, classes]`: row is the true class, column the predicted one.
    pub fn counts(&self) -> ArrayView2<'_, f64> {
        self.counts.view()
    }

    /// The fraction of samples on the diagonal.
    pub fn accuracy(&self) -> f64 {
        self.counts.diag().sum() / self.counts.sum()
    }

    fn tallies(&self) -> Vec<Tally> {
        let sums = self.counts.columns().into_iter().zip(self.counts.rows());
        let tally = |(hits, (column, row)): (&f64, (ndarray::ArrayView1<'_, f64>, ndarray::ArrayView1<'_, f64>))| {
            Tally { hits: *hits, predicted: column.sum(), support: row.sum() }
        };
        self.counts.diag().iter().zip(sums).map(tally).collect()
    }

    /// The scores of each class, as scikit-learn's
    /// [`precision_recall_fscore_support`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.precision_recall_fscore_support.html).
    /// Of two classes, those of class 1 are its `average="binary"`.
    pub fn scores(&self, zero_division: ZeroDivision) -> Vec<ClassScores> {
        self.tallies().into_iter().map(|tally| tally.scores(zero_division)).collect()
    }

    /// The average of the classes' scores; its support is that of all.
    pub fn average(&self, average: Average, zero_division: ZeroDivision) -> ClassScores {
        averaged(&self.tallies(), average, zero_division)
    }

    /// The text of scikit-learn's
    /// [`classification_report`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.classification_report.html). Without
    /// names, classes are called by their numbers.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where there are not as many names as classes; [`Error::InvalidOption`] for more than 100 digits.
    pub fn report(&self, names: Option<&[&str]>, digits: usize, zero_division: ZeroDivision) -> Result<String> {
        let classes = self.counts.nrows();
        if digits > 100 {
            return Err(Error::option("digits", "at most 100", digits));
        }
        let names: Vec<String> = match names {
            None => (0..classes).map(|class| class.to_string()).collect(),
            Some(names) if names.len() == classes => names.iter().map(|name| (*name).to_owned()).collect(),
            Some(names) => {
                return Err(Error::shape("names", format!("{classes}, one a class"), format!("{}", names.len())));
            }
        };
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or_default();
        // No format is wider; a longer name is not padded.
        let width = longest.max("weighted avg".len()).max(digits).min(usize::from(u16::MAX));
        let number = |value: f64| {
            let text = if value.is_nan() { "nan".to_owned() } else { format!("{value:.digits$}") };
            format!(" {text:>9}")
        };
        let support = |value: f64| {
            // Python prints floating-point weights with a decimal.
            let text = if self.weighted { format!("{value:?}") } else { value.to_string() };
            format!(" {text:>9}\n")
        };
        let row = |name: &str, scores: ClassScores| {
            let numbers = [scores.precision, scores.recall, scores.f1].map(number).concat();
            format!("{name:>width$} {numbers}{}", support(scores.support))
        };
        let mut text =
            format!("{:>width$}  {:>9} {:>9} {:>9} {:>9}\n\n", "", "precision", "recall", "f1-score", "support");
        for (name, scores) in names.iter().zip(self.scores(zero_division)) {
            text += &row(name, scores);
        }
        let (blank, total) = (" ".repeat(20), support(self.counts.sum()));
        text += &format!("\n{:>width$} {blank}{}{total}", "accuracy", number(self.accuracy()));
        text += &row("macro avg", self.average(Average::Macro, zero_division));
        text += &row("weighted avg", self.average(Average::Weighted, zero_division));
        Ok(text)
    }
}

pub(super) fn check_weights(weights: Option<&[f64]>, rows: usize) -> Result<()> {
    let Some(weights) = weights else { return Ok(()) };
    if weights.len() != rows {
        return Err(Error::shape("weights", format!("{rows}, one a sample"), format!("{}", weights.len())));
    }
    match weights.iter().enumerate().find(|(_, weight)| !(weight.is_finite() && **weight >= 0.0)) {
        None => Ok(()),
        Some((row, weight)) => Err(Error::option(format!("weights[{row}]"), "a finite number, at least zero", weight)),
    }
}

/// The area under the receiver operating characteristic, as scikit-learn's
/// [`roc_auc_score`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.roc_auc_score.html) of two classes: the probability
/// that a positive sample scores higher than a negative one, equal scores counting half.
///
/// # Errors
///
/// [`Error::Shape`] where there are not as many scores; [`Error::ZeroSize`] without positive or without negative samples;
/// [`Error::NonFinite`] for a score of NaN.
pub fn roc_auc<E: Scalar>(truth: &[bool], scores: &[E]) -> Result<f64> {
    if truth.len() != scores.len() {
        return Err(Error::shape("scores", format!("{}, one a sample", truth.len()), format!("{}", scores.len())));
    }
    if let Some(sample) = scores.iter().position(|score| score.is_nan()) {
        return Err(nan("scores", format!("position {sample}")));
    }
    let positive = truth.iter().filter(|t| **t).count();
    let negative = truth.len() - positive;
    for (name, count) in [("number of positive samples", positive), ("number of negative samples", negative)] {
        if count == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let mut order: Vec<(f64, bool)> = scores.iter().map(|score| score.wide()).zip(truth.iter().copied()).collect();
    order.sort_by(|(a, _), (b, _)| a.total_cmp(b));
    // Pairs, in halves: whole numbers, so that nothing is rounded.
    let (mut below, mut halves) = (0u128, 0u128);
    for tied in order.chunk_by(|(a, _), (b, _)| a == b) {
        let positive = tied.iter().filter(|(_, truth)| *truth).count() as u128;
        let negative = tied.len() as u128 - positive;
        halves += positive * (2 * below + negative);
        below += negative;
    }
    Ok(halves as f64 / (2.0 * positive as f64 * negative as f64))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// The examples of Keras's documentation.
    #[test]
    fn kerass_examples() {
        let (t, p) = (array![[1.0], [1.0], [0.0], [0.0]], array![[0.98], [1.0], [0.0], [0.6]]);
        assert_eq!(binary_accuracy(t.view(), p.view(), 0.5).unwrap(), 0.75);
        let (t, p) = (array![[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]], array![[0.1, 0.9, 0.8], [0.05, 0.95, 0.0]]);
        assert_eq!(categorical_accuracy(t.view(), p.view()).unwrap(), 0.5);
        assert_eq!(top_k_categorical_accuracy(t.view(), p.view(), 1).unwrap(), 0.5);
        assert_eq!(top_k_categorical_accuracy(t.view(), p.view(), 2).unwrap(), 1.0);
        let p = array![[0.1, 0.6, 0.3], [0.05, 0.95, 0.0]];
        assert_eq!(sparse_categorical_accuracy(&[2, 1], p.view()).unwrap(), 0.5);
        assert_eq!(sparse_top_k_categorical_accuracy(&[2, 1], p.view(), 3).unwrap(), 1.0);
    }

    /// A format that is told to be wider than 65,535 letters panics.
    #[test]
    fn a_report_of_a_long_name() {
        let matrix = ConfusionMatrix::new(&[0, 1], &[0, 1], 2).unwrap();
        let long = "é".repeat(70_000);
        let report = matrix.report(Some(&[&long, "b"]), 100, ZeroDivision::Zero).unwrap();
        assert!(report.contains(&long) && report.lines().count() == 8, "{}", report.len());
    }

    #[test]
    fn bad_input_is_named() {
        let p = array![[0.1, 0.9], [0.5, f64::NAN]];
        let message = sparse_categorical_accuracy(&[0, 1], p.view()).unwrap_err().to_string();
        assert!(message.contains("row 1, column 1"), "{message}");
        let message = sparse_categorical_accuracy(&[0, 2], p.view()).unwrap_err().to_string();
        assert!(message.contains("truth[1]: expected a class below 2, got 2"), "{message}");
        assert!(matches!(sparse_categorical_accuracy(&[0], p.view()), Err(Error::Shape { .. })));
        assert!(matches!(sparse_top_k_categorical_accuracy(&[0, 1], p.view(), 0), Err(Error::ZeroSize { name: "k" })));
        assert!(matches!(accuracy(&[], &[]), Err(Error::ZeroSize { .. })));
        let message = binary_accuracy(p.view(), p.view(), 0.5).unwrap_err().to_string();
        assert!(message.contains("predictions: NaN at element 3"), "{message}");
        let message = ConfusionMatrix::new(&[0, 1], &[0, 5], 3).unwrap_err().to_string();
        assert!(message.contains("prediction[1]: expected a class below 3, got 5"), "{message}");
        assert!(matches!(ConfusionMatrix::new(&[0], &[0], usize::MAX), Err(Error::SizeOverflow { .. })));
        assert!(matches!(ConfusionMatrix::new(&[0], &[0], 0), Err(Error::InvalidOption { .. })));
        for weight in [f64::NAN, -1.0, f64::INFINITY] {
            assert!(matches!(ConfusionMatrix::weighted(&[0], &[0], 1, &[weight]), Err(Error::InvalidOption { .. })));
        }
        assert!(matches!(ConfusionMatrix::weighted(&[0], &[0], 1, &[]), Err(Error::Shape { .. })));
        let matrix = ConfusionMatrix::new(&[0], &[1], 2).unwrap();
        assert!(matches!(matrix.report(Some(&["a"]), 2, ZeroDivision::Zero), Err(Error::Shape { .. })));
        assert!(matches!(matrix.report(None, 101, ZeroDivision::Zero), Err(Error::InvalidOption { .. })));
        assert!(matches!(roc_auc(&[true, true], &[0.5, 0.6]), Err(Error::ZeroSize { .. })));
        assert!(matches!(roc_auc(&[true, false], &[0.5, f64::NAN]), Err(Error::NonFinite { .. })));
        assert!(matches!(roc_auc(&[true], &[0.5, 0.6]), Err(Error::Shape { .. })));
        let none = Array2::<f64>::zeros((2, 0));
        assert!(matches!(argmax_rows(none.view()), Err(Error::ZeroSize { .. })));
    }
}
