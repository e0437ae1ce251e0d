//! AdamW.

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::Result;
use crate::optim::{Adam, Optimizer, OptimizerConfig, check_at_least_zero, wrong_states};

/// Adam with decoupled weight decay ([Loshchilov and Hutter 2019](https://arxiv.org/abs/1711.05101)) in
/// [Keras's form](https://keras.io/api/optimizers/adamw/) and with its defaults: before each step of [Adam],
///
/// ```text
/// w = w - learning_rate weight_decay w
/// ```
///
/// All weights decay, biases and scales of normalisations too, as in Keras where nothing is excluded.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdamW {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// As [`Adam::beta_1`].
    pub beta_1: f64,
    /// As [`Adam::beta_2`].
    pub beta_2: f64,
    /// As [`Adam::epsilon`].
    pub epsilon: f64,
    /// The part of the weights, times the learning rate, that each step takes off them.
    pub weight_decay: f64,
}

impl AdamW {
    /// Keras's defaults: `weight_decay` 0.004, `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = AdamW { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with another weight decay.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn weight_decay(self, weight_decay: f64) -> Result<Self> {
        let rule = AdamW { weight_decay, ..self };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants of Adam.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `beta_1` or `beta_2` outside `0.0..1.0`, or an `epsilon` that is not
    /// finite or below zero.
    pub fn with(self, beta_1: f64, beta_2: f64, epsilon: f64) -> Result<Self> {
        let rule = AdamW { beta_1, beta_2, epsilon, ..self };
        rule.validate().map(|()| rule)
    }

    /// The rule without its decay.
    fn adam(&self) -> Adam {
        let AdamW { learning_rate, beta_1, beta_2, epsilon, .. } = *self;
        Adam { learning_rate, beta_1, beta_2, epsilon }
    }
}

impl Default for AdamW {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        let Adam { learning_rate, beta_1, beta_2, epsilon } = Adam::default();
        AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay: 0.004 }
    }
}

impl Optimizer for AdamW {
    fn states(&self) -> usize {
        2
    }

    crate::optim::constants!(AdamW);

    fn validate(&self) -> Result<()> {
        self.adam().validate()?;
        check_at_least_zero("weight_decay", self.weight_decay)
    }

    fn update(
        &self,
        device: &Device,
        step: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        let [m, v] = states else { return Err(wrong_states("AdamW", 2, states.len())) };
        let step = self.adam().step(step, self.learning_rate * self.weight_decay);
        device.adam(step, parameters, gradients, m.view_mut(), v.view_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    /// Three steps on `w²/2 + 3w`, against the formulas of the paper written out.
    #[test]
    fn follows_the_formula() {
        let rule = AdamW::new(0.01).unwrap().weight_decay(0.3).unwrap().with(0.8, 0.95, 1e-5).unwrap();
        let (mut w, mut m, mut v) = (0.5f64, 0.0, 0.0);
        let mut parameters = [0.5f64];
        let mut states = states(&rule, DType::F64, 1);
        for t in 1..=3 {
            let g = w + 3.0;
            m = 0.8 * m + 0.2 * g;
            v = 0.95 * v + 0.05 * g * g;
            let correction = (1.0 - 0.95f64.powi(t)).sqrt();
            w -= 0.01 * 0.3 * w;
            w -= 0.01 * correction / (1.0 - 0.8f64.powi(t)) * m / (v.sqrt() + 1e-5);
            let gradient = [parameters[0] + 3.0];
            update(&rule, t as u64, TensorMut::of(&mut parameters), TensorRef::of(&gradient), &mut states).unwrap();
            assert!((parameters[0] - w).abs() < 1e-15, "{t}: {} {w}", parameters[0]);
        }
    }

    #[test]
    fn without_decay_it_is_adam() {
        let (mut a, mut b) = ([0.7f32, -1.3], [0.7f32, -1.3]);
        let (rule, adam) = (AdamW::default().weight_decay(0.0).unwrap(), Adam::default());
        let (mut states, mut others) = (states(&rule, DType::F32, 2), states(&adam, DType::F32, 2));
        for step in 1..=3 {
            update(&rule, step, TensorMut::of(&mut a), TensorRef::of(&[0.3f32, -2.0]), &mut states).unwrap();
            update(&adam, step, TensorMut::of(&mut b), TensorRef::of(&[0.3f32, -2.0]), &mut others).unwrap();
            assert_eq!(a, b);
        }
    }

    #[test]
    fn refuses_bad_constants() {
        assert!(AdamW::new(0.0).is_err() && AdamW::default().weight_decay(-0.1).is_err());
        assert!(AdamW::default().weight_decay(f64::INFINITY).is_err() && AdamW::default().with(1.0, 0.9, 0.0).is_err());
        let mut rule = AdamW::default();
        assert!(rule.set_learning_rate(f64::NAN).is_err());
        rule.set_learning_rate(0.25).unwrap();
        assert_eq!(rule.learning_rate(), 0.25);
    }
}
