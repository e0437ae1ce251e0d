//! AdamW.

use std::borrow::BorrowMut;

use crate::backend::DenseBackend;
use crate::error::Result;
use crate::optim::{Adam, Optimizer, OptimizerConfig, State, check_at_least_zero, check_rate, wrong_states};

/// Adam with decoupled weight decay ([Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101)) in
/// [Keras's form](https://keras.io/api/optimizers/adamw/) and with its defaults: before each step of [Adam],
///
/// ```text
/// w = w - learning_rate weight_decay w
/// ```
///
/// All weights decay, biases and scales of normalisations too, as in Keras where nothing is excluded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamW {
    adam: Adam,
    weight_decay: f64,
}

impl AdamW {
    /// Keras's defaults: `weight_decay` 0.004, `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        check_rate(learning_rate)?;
        Ok(AdamW { adam: Adam::new(learning_rate)?, ..Self::default() })
    }

    /// The same with another weight decay.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn weight_decay(self, weight_decay: f64) -> Result<Self> {
        check_at_least_zero("weight_decay", weight_decay)?;
        Ok(AdamW { weight_decay, ..self })
    }

    /// The same with other constants of Adam.
    ///
    /// # Errors
    ///
    /// Those of [`Adam::with`].
    pub fn with(self, beta_1: f64, beta_2: f64, epsilon: f64) -> Result<Self> {
        Ok(AdamW { adam: self.adam.with(beta_1, beta_2, epsilon)?, ..self })
    }
}

impl Default for AdamW {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        AdamW { adam: Adam::default(), weight_decay: 0.004 }
    }
}

impl<B: DenseBackend> Optimizer<B> for AdamW {
    fn states(&self) -> usize {
        2
    }

    fn learning_rate(&self) -> f64 {
        self.adam.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        check_rate(learning_rate)?;
        self.adam.learning_rate = learning_rate;
        Ok(())
    }

    fn config(&self) -> OptimizerConfig {
        let AdamW { adam: Adam { learning_rate, beta_1, beta_2, epsilon }, weight_decay } = *self;
        OptimizerConfig::AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay }
    }

    fn update(
        &self,
        backend: &B,
        step: u64,
        parameters: &mut B::Buffer,
        gradients: &B::Buffer,
        states: &mut [State<B>],
    ) -> Result<()> {
        let [m, v] = states else { return Err(wrong_states("AdamW", 2, states.len())) };
        let step = self.adam.step(step, self.adam.learning_rate * self.weight_decay);
        backend.adam(step, parameters, gradients, m.borrow_mut(), v.borrow_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::ReferenceBackend;

    /// Three steps on `w²/2 + 3w`, against the formulas of the paper written out.
    #[test]
    fn follows_the_formula() {
        let backend = ReferenceBackend::<f64>::new();
        let rule = AdamW::new(0.01).unwrap().weight_decay(0.3).unwrap().with(0.8, 0.95, 1e-5).unwrap();
        let (mut w, mut m, mut v) = (0.5f64, 0.0, 0.0);
        let mut parameters = [0.5f64];
        let mut states = [vec![0.0], vec![0.0]];
        for t in 1..=3 {
            let g = w + 3.0;
            m = 0.8 * m + 0.2 * g;
            v = 0.95 * v + 0.05 * g * g;
            let correction = (1.0 - 0.95f64.powi(t)).sqrt();
            w -= 0.01 * 0.3 * w;
            w -= 0.01 * correction / (1.0 - 0.8f64.powi(t)) * m / (v.sqrt() + 1e-5);
            let gradient = [parameters[0] + 3.0];
            rule.update(&backend, t as u64, &mut parameters, &gradient, &mut states).unwrap();
            assert!((parameters[0] - w).abs() < 1e-15, "{t}: {} {w}", parameters[0]);
        }
    }

    #[test]
    fn without_decay_it_is_adam() {
        let backend = ReferenceBackend::<f32>::new();
        let (mut a, mut b) = ([0.7f32, -1.3], [0.7f32, -1.3]);
        let (mut states, mut others) = ([vec![0.0; 2], vec![0.0; 2]], [vec![0.0; 2], vec![0.0; 2]]);
        for step in 1..=3 {
            let rule = AdamW::default().weight_decay(0.0).unwrap();
            rule.update(&backend, step, &mut a, &[0.3, -2.0], &mut states).unwrap();
            Adam::default().update(&backend, step, &mut b, &[0.3, -2.0], &mut others).unwrap();
            assert_eq!(a, b);
        }
    }

    #[test]
    fn refuses_bad_constants() {
        assert!(AdamW::new(0.0).is_err() && AdamW::default().weight_decay(-0.1).is_err());
        assert!(AdamW::default().weight_decay(f64::INFINITY).is_err() && AdamW::default().with(1.0, 0.9, 0.0).is_err());
        let mut rule = AdamW::default();
        assert!(Optimizer::<ReferenceBackend<f32>>::set_learning_rate(&mut rule, f64::NAN).is_err());
        Optimizer::<ReferenceBackend<f32>>::set_learning_rate(&mut rule, 0.25).unwrap();
        assert_eq!(Optimizer::<ReferenceBackend<f32>>::learning_rate(&rule), 0.25);
    }
}
