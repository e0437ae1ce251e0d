//! Losses: what training makes small.

use crate::dtype::Scalar;

/// A loss function of targets and predictions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Loss {
    /// `mean((prediction - target)²)` over all elements of a batch, Keras's
    /// [`MeanSquaredError`](https://keras.io/api/losses/regression_losses/#meansquarederror-class).
    #[default]
    MeanSquaredError,
}

impl Loss {
    /// The loss of a batch, summed in `f64`, and its gradient by the predictions, set (`=`) in `gradient`. The three slices have one
    /// length.
    pub fn gradient<E: Scalar>(self, targets: &[E], predictions: &[E], gradient: &mut [E]) -> f64 {
        let Loss::MeanSquaredError = self;
        let factor = E::of(2.0 / targets.len() as f64);
        for ((slope, p), t) in gradient.iter_mut().zip(predictions).zip(targets) {
            *slope = factor * (*p - *t);
        }
        self.value(targets, predictions)
    }

    /// The loss of a batch, summed in `f64`.
    pub fn value<E: Scalar>(self, targets: &[E], predictions: &[E]) -> f64 {
        let Loss::MeanSquaredError = self;
        let sum: f64 = predictions.iter().zip(targets).map(|(p, t)| (p.wide() - t.wide()).powi(2)).sum();
        sum / targets.len() as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mean_squared_error_and_its_gradient() {
        let (targets, predictions) = ([0.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 0.0]);
        let mut gradient = [f64::NAN; 4];
        assert_eq!(Loss::MeanSquaredError.gradient(&targets, &predictions, &mut gradient), 0.5);
        assert_eq!(gradient, [0.5, 0.0, 0.5, 0.0]);
    }
}
