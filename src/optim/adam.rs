//! Adam.

use serde::{Deserialize, Serialize};

use crate::backend::ops::AdamStep;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_fraction, check_rate, wrong_states};

/// Adam ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980)) in [Keras's form](https://keras.io/api/optimizers/adam/) and with
/// its defaults. In step `t`, counted from 1, with `g` the gradient:
///
/// ```text
/// m = beta_1 m + (1 - beta_1) g
/// v = beta_2 v + (1 - beta_2) g²
/// w = w - learning_rate sqrt(1 - beta_2^t) / (1 - beta_1^t) m / (sqrt(v) + epsilon)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adam {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the first moment keeps of itself, 0 to below 1.
    pub beta_1: f64,
    /// What the second moment keeps of itself, 0 to below 1.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Adam {
    /// Keras's defaults: `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Adam { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `beta_1` or `beta_2` outside `0.0..1.0`, or an `epsilon` that is not
    /// finite or below zero.
    pub fn with(self, beta_1: f64, beta_2: f64, epsilon: f64) -> Result<Self> {
        let rule = Adam { beta_1, beta_2, epsilon, ..self };
        rule.validate().map(|()| rule)
    }

    /// What the device does in step `t`; `decay` is the part of themselves that the weights lose before it.
    pub(super) fn step(&self, t: u64, decay: f64) -> AdamStep {
        let t = t as f64;
        let rate = self.learning_rate * (1.0 - self.beta_2.powf(t)).sqrt() / (1.0 - self.beta_1.powf(t));
        AdamStep { rate, beta_1: self.beta_1, beta_2: self.beta_2, epsilon: self.epsilon, decay }
    }
}

impl Default for Adam {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Optimizer for Adam {
    fn states(&self) -> usize {
        2
    }

    crate::optim::constants!(Adam);

    fn validate(&self) -> Result<()> {
        check_rate(self.learning_rate)?;
        check_fraction("beta_1", self.beta_1)?;
        check_fraction("beta_2", self.beta_2)?;
        check_at_least_zero("epsilon", self.epsilon)
    }

    fn update(
        &self,
        device: &Device,
        step: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        let [m, v] = states else { return Err(wrong_states("Adam", 2, states.len())) };
        device.adam(self.step(step, 0.0), parameters, gradients, m.view_mut(), v.view_mut())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    /// Three steps on `w²/2 + 3w`, against the formula written out with Keras's bias correction.
    #[test]
    fn follows_the_formula() {
        let (mut w, mut m, mut v) = (0.5f64, 0.0, 0.0);
        let mut parameters = [0.5f64];
        let rule = Adam::new(0.01).unwrap();
        let mut states = states(&rule, DType::F64, 1);
        for t in 1..=3 {
            let g = w + 3.0;
            m = 0.9 * m + 0.1 * g;
            v = 0.999 * v + 0.001 * g * g;
            let (m_hat, v_hat) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
            w -= 0.01 * m_hat / (v_hat.sqrt() + 1e-7 / (1.0 - 0.999f64.powi(t)).sqrt());
            let gradient = [parameters[0] + 3.0];
            update(&rule, t as u64, TensorMut::of(&mut parameters), TensorRef::of(&gradient), &mut states).unwrap();
            assert!((parameters[0] - w).abs() < 1e-15, "{t}: {} {w}", parameters[0]);
        }
    }

    #[test]
    fn the_first_step_is_the_learning_rate() {
        let mut parameters = [1.0f32, 1.0];
        let rule = Adam::default();
        update(
            &rule,
            1,
            TensorMut::of(&mut parameters),
            TensorRef::of(&[250.0f32, -0.03]),
            &mut states(&rule, DType::F32, 2),
        )
        .unwrap();
        assert!((parameters[0] - 0.999).abs() < 1e-6 && (parameters[1] - 1.001).abs() < 1e-6, "{parameters:?}");
    }

    #[test]
    fn moments_do_not_stay_denormal() {
        let rule = Adam::default();
        let mut states = states(&rule, DType::F32, 1);
        update(&rule, 1, TensorMut::of(&mut [0.0f32]), TensorRef::of(&[1e-18f32]), &mut states).unwrap();
        for step in 0..2000 {
            update(&rule, 2 + step, TensorMut::of(&mut [0.0f32]), TensorRef::of(&[0.0f32]), &mut states).unwrap();
        }
        for state in &states {
            assert_eq!(state.view().host::<f32>().unwrap(), [0.0]);
        }
    }

    #[test]
    fn refuses_bad_constants() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert!(Adam::new(rate).is_err());
        }
        let adam = Adam::default();
        assert!(adam.with(1.0, 0.9, 0.0).is_err() && adam.with(0.9, -0.1, 0.0).is_err());
        assert!(adam.with(0.9, 0.9, -1e-9).is_err() && adam.with(0.9, 0.9, f64::NAN).is_err());
    }
}
