//! Adamax.

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::optim::on_host::{self, HostRule, flush};
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_fraction, check_rate};

/// Adam with the infinity norm ([Kingma and Ba 2015](https://arxiv.org/abs/1412.6980), section 7.1) in
/// [Keras's form](https://keras.io/api/optimizers/adamax/) and with its defaults. In step `t`, counted from 1, with `g` the gradient:
///
/// ```text
/// m = beta_1 m + (1 - beta_1) g
/// u = max(beta_2 u, |g|)
/// w = w - learning_rate / (1 - beta_1^t) m / (u + epsilon)
/// ```
///
/// It computes on the host; on a GPU a step is refused with [`Error::Unsupported`](crate::Error::Unsupported).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adamax {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the first moment keeps of itself, 0 to below 1.
    pub beta_1: f64,
    /// What the norm keeps of itself, 0 to below 1.
    pub beta_2: f64,
    /// Added to the norm.
    pub epsilon: f64,
}

impl Adamax {
    /// Keras's defaults: `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Adamax { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `beta_1` or `beta_2` outside `0.0..1.0`, or an `epsilon` that is not
    /// finite or below zero.
    pub fn with(self, beta_1: f64, beta_2: f64, epsilon: f64) -> Result<Self> {
        let rule = Adamax { beta_1, beta_2, epsilon, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for Adamax {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adamax { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Optimizer for Adamax {
    fn states(&self) -> usize {
        2
    }

    crate::optim::constants!(Adamax);

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
        on_host::update(self, device, step, parameters, gradients, states)
    }
}

impl HostRule for Adamax {
    const NAME: &'static str = "Adamax";

    fn step<E: Scalar>(&self, t: u64, weights: &mut [E], gradients: &[E], first: &mut [E], second: &mut [E]) {
        let rate = E::of(self.learning_rate / (1.0 - self.beta_1.powf(t as f64)));
        let (keep, take, decay) = (E::of(self.beta_1), E::of(1.0 - self.beta_1), E::of(self.beta_2));
        let epsilon = E::of(self.epsilon);
        for (((w, g), m), u) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
            *m = flush(keep * *m + take * *g);
            let kept = flush(decay * *u);
            // A NaN goes on.
            *u = if g.abs() < kept { kept } else { g.abs() };
            let norm = *u + epsilon;
            // Without a norm there is no moment either.
            if norm != E::zero() {
                *w -= rate * *m / norm;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    #[test]
    fn without_gradient_or_epsilon_nothing_changes() {
        let rule = Adamax::default().with(0.9, 0.999, 0.0).unwrap();
        let mut parameters = [0.5f32];
        let mut states = states(&rule, DType::F32, 1);
        update(&rule, 1, TensorMut::of(&mut parameters), TensorRef::of(&[0.0f32]), &mut states).unwrap();
        assert_eq!(parameters, [0.5]);
        assert!(Adamax::new(f64::NAN).is_err() && rule.with(0.9, -0.1, 1e-7).is_err());
    }
}
