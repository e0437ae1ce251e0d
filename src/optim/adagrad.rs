//! Adagrad.

use serde::{Deserialize, Serialize};

use crate::backend::ops::AdagradStep;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_rate, wrong_states};

/// Adagrad ([Duchi et al. 2011](https://jmlr.org/papers/v12/duchi11a.html)) in
/// [Keras's form](https://keras.io/api/optimizers/adagrad/) and with its defaults. With `g` the gradient and `s` at first
/// `initial_accumulator_value`:
///
/// ```text
/// s = s + g²
/// w = w - learning_rate g / sqrt(s + epsilon)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adagrad {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the sums of squares are at first.
    pub initial_accumulator_value: f64,
    /// Added to the sum of squares.
    pub epsilon: f64,
}

impl Adagrad {
    /// Keras's defaults: `initial_accumulator_value` 0.1, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Adagrad { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn with(self, initial_accumulator_value: f64, epsilon: f64) -> Result<Self> {
        let rule = Adagrad { initial_accumulator_value, epsilon, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for Adagrad {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adagrad { learning_rate: 1e-3, initial_accumulator_value: 0.1, epsilon: 1e-7 }
    }
}

impl Optimizer for Adagrad {
    fn states(&self) -> usize {
        1
    }

    fn initial(&self, _: usize) -> f64 {
        self.initial_accumulator_value
    }

    crate::optim::constants!(Adagrad);

    fn validate(&self) -> Result<()> {
        check_rate(self.learning_rate)?;
        check_at_least_zero("initial_accumulator_value", self.initial_accumulator_value)?;
        check_at_least_zero("epsilon", self.epsilon)
    }

    fn update(
        &self,
        device: &Device,
        _: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        let [sums] = states else { return Err(wrong_states("Adagrad", 1, states.len())) };
        let step = AdagradStep { rate: self.learning_rate, epsilon: self.epsilon };
        device.adagrad(step, parameters, gradients, sums.view_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    #[test]
    fn follows_the_formula() {
        for (initial, epsilon) in [(0.1, 1e-7), (0.0, 0.5)] {
            let rule = Adagrad::new(0.1).unwrap().with(initial, epsilon).unwrap();
            let (mut w, mut s) = (1.0f64, initial);
            let mut parameters = [1.0f64];
            let mut states = states(&rule, DType::F64, 1);
            for step in 1..=3 {
                let g = 2.0 * w + 1.0;
                s += g * g;
                w -= 0.1 * g / (s + epsilon).sqrt();
                let gradient = [2.0 * parameters[0] + 1.0];
                update(&rule, step, TensorMut::of(&mut parameters), TensorRef::of(&gradient), &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-14, "{initial} {step}: {} {w}", parameters[0]);
            }
        }
        assert!(Adagrad::new(f64::NAN).is_err() && Adagrad::default().with(-0.1, 0.0).is_err());
        assert!(Adagrad::default().with(0.1, f64::NAN).is_err());
    }
}
