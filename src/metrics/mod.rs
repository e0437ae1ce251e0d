//! How far a prediction is from the truth. All sums are taken in `f64`.

use ndarray::{ArrayView, Dimension};

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// Mean of `f(truth - prediction)` over all elements.
fn mean_of<E: Scalar, D: Dimension>(
    truth: ArrayView<'_, E, D>,
    prediction: ArrayView<'_, E, D>,
    f: impl Fn(f64) -> f64,
) -> Result<f64> {
    if truth.shape() != prediction.shape() {
        return Err(Error::shape(
            "prediction",
            format!("the truth's shape {:?}", truth.shape()),
            format!("{:?}", prediction.shape()),
        ));
    }
    if truth.is_empty() {
        return Err(Error::ZeroSize { name: "number of values to compare" });
    }
    let sum: f64 = truth.iter().zip(prediction.iter()).map(|(t, p)| f(t.wide() - p.wide())).sum();
    Ok(sum / truth.len() as f64)
}

/// Mean squared error, the mean of `(truth - prediction)²` over all elements of two arrays of one shape.
///
/// # Errors
///
/// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
pub fn mse<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mean_of(truth, prediction, |d| d * d)
}

/// Root of the [mean squared error](mse), in the unit of the values.
///
/// # Errors
///
/// Those of [`mse`].
pub fn rmse<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mse(truth, prediction).map(f64::sqrt)
}

/// Mean absolute error, the mean of `|truth - prediction|`, in the unit of the values.
///
/// # Errors
///
/// Those of [`mse`].
pub fn mae<E: Scalar, D: Dimension>(truth: ArrayView<'_, E, D>, prediction: ArrayView<'_, E, D>) -> Result<f64> {
    mean_of(truth, prediction, f64::abs)
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
