//! How good predictions are. All sums are taken in `f64`.
//!
//! Functions here take whole arrays and agree with scikit-learn: [`mse`], [`rmse`], [`mae`], [`mape`], [`r2`] for numbers; for classes
//! [`accuracy`] and its kin, [`roc_auc`], and [`ConfusionMatrix`] with precision, recall, F1 and scikit-learn's report. A [`Metric`] is
//! one of Keras's by its name, summed up batch by batch in a [`MetricAccumulator`].

mod auc;
pub mod classification;
pub mod streaming;

pub use auc::Curve;
pub use classification::{
    Average, ClassScores, ConfusionMatrix, ZeroDivision, accuracy, argmax_rows, binary_accuracy, categorical_accuracy,
    roc_auc, sparse_categorical_accuracy, sparse_top_k_categorical_accuracy, top_k_categorical_accuracy,
};
pub use streaming::{Metric, MetricAccumulator};

use ndarray::{ArrayView, Axis, Dimension};

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// Refuses arrays of different shapes, and of nothing.
fn check_same_shape(truth: &[usize], prediction: &[usize]) -> Result<()> {
    if truth != prediction {
        return Err(Error::shape("prediction", format!("the truth's shape {truth:?}"), format!("{prediction:?}")));
    }
    if truth.contains(&0) {
        return Err(Error::ZeroSize { name: "number of values to compare" });
    }
    Ok(())
}

/// Mean of `f(truth, prediction)` over all elements.
fn mean_of<E: Scalar, D: Dimension>(
    truth: ArrayView<'_, E, D>,
    prediction: ArrayView<'_, E, D>,
    f: impl Fn(f64, f64) -> f64,
) -> Result<f64> {
    check_same_shape(truth.shape(), prediction.shape())?;
    let sum: f64 = truth.iter().zip(prediction.iter()).map(|(t, p)| f(t.wide(), p.wide())).sum();
    Ok(sum / truth.len() as f64)
}

/// Mean squared error, the mean of `(truth - prediction)²` over all elements of two arrays of one shape.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
pub fn mse<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mean_of(truth, prediction, |t, p| (t - p) * (t - p))
}

/// Root of the [mean squared error](mse), in the unit of the values.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
pub fn rmse<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mse(truth, prediction).map(f64::sqrt)
}

/// Mean absolute error, the mean of `|truth - prediction|`, in the unit of the values.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
pub fn mae<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mean_of(truth, prediction, |t, p| (t - p).abs())
}

/// Mean absolute percentage error as scikit-learn's
/// [`mean_absolute_percentage_error`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.mean_absolute_percentage_error.html):
/// the mean of `|truth - prediction| / max(|truth|, 2.2e-16)`, a fraction of 1 and not of 100. Truth near zero makes it huge.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
pub fn mape<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mean_of(truth, prediction, |t, p| (t - p).abs() / t.abs().max(f64::EPSILON))
}

/// Coefficient of determination, `1 - sum (truth - prediction)² / sum (truth - mean)²`, as scikit-learn's
/// [`r2_score`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.r2_score.html): 1 for perfect predictions, 0 for those
/// no better than the mean, below for worse ones. Arrays of more than one axis have a score for each column (of the last axis), of which
/// this is the mean. Where the truth of a column is constant, its score is 1 if the predictions equal it, else 0.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, or for fewer than two values in a column; [`Error::ZeroSize`] where there is nothing to
/// compare.
pub fn r2<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    check_same_shape(truth.shape(), prediction.shape())?;
    let columns = if truth.ndim() > 1 { truth.len_of(Axis(truth.ndim() - 1)) } else { 1 };
    let rows = truth.len() / columns;
    if rows < 2 {
        return Err(Error::shape("truth", "at least two values in a column", format!("{rows}")));
    }
    let pairs: Vec<(f64, f64)> = truth.iter().zip(prediction.iter()).map(|(t, p)| (t.wide(), p.wide())).collect();
    let of_column = |column: usize| {
        let pairs = || pairs.iter().skip(column).step_by(columns);
        let mean = pairs().map(|(t, _)| t / rows as f64).sum::<f64>();
        let (residuals, squares) = pairs().fold((0.0, 0.0), |(residuals, squares): (f64, f64), (t, p)| {
            (residuals + (t - p).powi(2), squares + (t - mean).powi(2))
        });
        determination(residuals, squares)
    };
    Ok((0..columns).map(of_column).sum::<f64>() / columns as f64)
}

/// One column's coefficient of determination.
fn determination(residuals: f64, squares: f64) -> f64 {
    if squares != 0.0 {
        1.0 - residuals / squares
    } else if residuals == 0.0 {
        1.0
    } else {
        residuals * 0.0 // 0, but NaN for NaN
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// Values of scikit-learn 1.7's `mean_squared_error`, `root_mean_squared_error`, `mean_absolute_error`
    /// (the example in their documentation).
    #[test]
    fn scikit_learns_values() {
        let truth = array![3.0, -0.5, 2.0, 7.0];
        let prediction = array![2.5, 0.0, 2.0, 8.0];
        assert_eq!(mse(truth.view(), prediction.view()).unwrap(), 0.375);
        assert_eq!(rmse(truth.view(), prediction.view()).unwrap(), 0.375f64.sqrt());
        assert_eq!(mae(truth.view(), prediction.view()).unwrap(), 0.5);
    }

    #[test]
    fn refuses_other_shapes_and_nothing() {
        let (two, three) = (array![1.0f32, 2.0], array![1.0f32, 2.0, 3.0]);
        let message = mse(two.view(), three.view()).unwrap_err().to_string();
        assert!(message.contains("[2]") && message.contains("[3]"), "{message}");
        let none = ndarray::Array1::<f32>::zeros(0);
        assert!(matches!(mae(none.view(), none.view()), Err(Error::ZeroSize { .. })));
    }
}
