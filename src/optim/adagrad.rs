//! Adagrad.

use std::borrow::BorrowMut;

use crate::backend::DenseBackend;
use crate::backend::dense::AdagradStep;
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, State, check_at_least_zero, check_rate, wrong_states};

/// Adagrad ([Duchi et al. 2011](https://jmlr.org/papers/v12/duchi11a.html)) in
/// [Keras's form](https://keras.io/api/optimizers/adagrad/) and with its defaults. With `g` the gradient and `s` at first
/// `initial_accumulator_value`:
///
/// ```text
/// s = s + g²
/// w = w - learning_rate g / sqrt(s + epsilon)
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Adagrad {
    learning_rate: f64,
    initial_accumulator_value: f64,
    epsilon: f64,
}

impl Adagrad {
    /// Keras's defaults: `initial_accumulator_value` 0.1, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        check_rate(learning_rate)?;
        Ok(Adagrad { learning_rate, ..Self::default() })
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn with(self, initial_accumulator_value: f64, epsilon: f64) -> Result<Self> {
        check_at_least_zero("initial_accumulator_value", initial_accumulator_value)?;
        check_at_least_zero("epsilon", epsilon)?;
        Ok(Adagrad { initial_accumulator_value, epsilon, ..self })
    }
}

impl Default for Adagrad {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adagrad { learning_rate: 1e-3, initial_accumulator_value: 0.1, epsilon: 1e-7 }
    }
}

impl<B: DenseBackend> Optimizer<B> for Adagrad {
    fn states(&self) -> usize {
        1
    }

    fn initial(&self, _: usize) -> f64 {
        self.initial_accumulator_value
    }

    crate::optim::learning_rate!();

    fn config(&self) -> OptimizerConfig {
        let Adagrad { learning_rate, initial_accumulator_value, epsilon } = *self;
        OptimizerConfig::Adagrad { learning_rate, initial_accumulator_value, epsilon }
    }

    fn update(
        &self,
        backend: &B,
        _: u64,
        parameters: &mut B::Buffer,
        gradients: &B::Buffer,
        states: &mut [State<B>],
    ) -> Result<()> {
        let [sums] = states else { return Err(wrong_states("Adagrad", 1, states.len())) };
        let step = AdagradStep { rate: self.learning_rate, epsilon: self.epsilon };
        backend.adagrad(step, parameters, gradients, sums.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::ReferenceBackend;

    #[test]
    fn follows_the_formula() {
        let backend = ReferenceBackend::<f64>::new();
        for (initial, epsilon) in [(0.1, 1e-7), (0.0, 0.5)] {
            let rule = Adagrad::new(0.1).unwrap().with(initial, epsilon).unwrap();
            let (mut w, mut s) = (1.0f64, initial);
            let mut parameters = [1.0f64];
            let mut states = [vec![Optimizer::<ReferenceBackend<f64>>::initial(&rule, 0)]];
            for step in 1..=3 {
                let g = 2.0 * w + 1.0;
                s += g * g;
                w -= 0.1 * g / (s + epsilon).sqrt();
                let gradient = [2.0 * parameters[0] + 1.0];
                rule.update(&backend, step, &mut parameters, &gradient, &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-14, "{initial} {step}: {} {w}", parameters[0]);
            }
        }
        assert!(Adagrad::new(f64::NAN).is_err() && Adagrad::default().with(-0.1, 0.0).is_err());
        assert!(Adagrad::default().with(0.1, f64::NAN).is_err());
    }
}
