//! Nadam.

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::optim::on_host::{self, HostRule, flush};
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_fraction, check_rate};

/// Adam with Nesterov's momentum ([Dozat 2016](https://openreview.net/forum?id=OM0jvwB8jIp57ZJjtNEZ)) in
/// [Keras's form](https://keras.io/api/optimizers/Nadam/) and with its defaults. In step `t`, counted from 1, with `g` the gradient,
/// `u(t) = beta_1 (1 - 0.96^t / 2)` and `p(t) = u(1) u(2) … u(t)`:
///
/// ```text
/// m = beta_1 m + (1 - beta_1) g
/// v = beta_2 v + (1 - beta_2) g²
/// w = w - learning_rate (u(t + 1) m / (1 - p(t + 1)) + (1 - u(t)) g / (1 - p(t))) / (sqrt(v / (1 - beta_2^t)) + epsilon)
/// ```
///
/// It computes on the host; on a GPU a step is refused with [`Error::Unsupported`](crate::Error::Unsupported).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Nadam {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the first moment keeps of itself, 0 to below 1.
    pub beta_1: f64,
    /// What the second moment keeps of itself, 0 to below 1.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
}

impl Nadam {
    /// Keras's defaults: `beta_1` 0.9, `beta_2` 0.999, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Nadam { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `beta_1` or `beta_2` outside `0.0..1.0`, or an `epsilon` that is not
    /// finite or below zero.
    pub fn with(self, beta_1: f64, beta_2: f64, epsilon: f64) -> Result<Self> {
        let rule = Nadam { beta_1, beta_2, epsilon, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for Nadam {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Nadam { learning_rate: 1e-3, beta_1: 0.9, beta_2: 0.999, epsilon: 1e-7 }
    }
}

impl Optimizer for Nadam {
    fn states(&self) -> usize {
        2
    }

    crate::optim::constants!(Nadam);

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

impl HostRule for Nadam {
    const NAME: &'static str = "Nadam";

    fn step<E: Scalar>(&self, t: u64, weights: &mut [E], gradients: &[E], first: &mut [E], second: &mut [E]) {
        let momentum = |decay: f64| self.beta_1 * (1.0 - 0.5 * decay);
        // The product of all momenta so far. After a thousand steps a further one is `beta_1` to the last bit.
        let (mut product, mut decay) = (1.0f64, 1.0);
        for _ in 0..t.min(1024) {
            decay *= DECAY;
            product *= momentum(decay);
        }
        product *= self.beta_1.powf(t.saturating_sub(1024) as f64);
        let now = momentum(DECAY.powf(t as f64));
        let next = momentum(DECAY.powf(t as f64 + 1.0));
        let of_moment = E::of(self.learning_rate * next / (1.0 - product * next));
        let of_gradient = E::of(self.learning_rate * (1.0 - now) / (1.0 - product));
        let correction = E::of(1.0 / (1.0 - self.beta_2.powf(t as f64)));
        let (keep_m, take_m) = (E::of(self.beta_1), E::of(1.0 - self.beta_1));
        let (keep_v, take_v) = (E::of(self.beta_2), E::of(1.0 - self.beta_2));
        let epsilon = E::of(self.epsilon);
        for (((w, g), m), v) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
            *m = flush(keep_m * *m + take_m * *g);
            *v = flush(keep_v * *v + take_v * *g * *g);
            *w -= (of_moment * *m + of_gradient * *g) / ((*v * correction).sqrt() + epsilon);
        }
    }
}

/// By what the momentum's distance from `beta_1` shrinks in each step.
const DECAY: f64 = 0.96;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    /// Long after the product of the momenta has vanished, a step is as large as its gradient says.
    #[test]
    fn late_steps_are_steady() {
        let rule = Nadam::new(0.01).unwrap();
        let mut states = states(&rule, DType::F64, 1);
        let mut parameters = [0.0f64];
        for step in [1, 2, 1_000, 1_000_000, u64::MAX / 2] {
            let before = parameters[0];
            update(&rule, step, TensorMut::of(&mut parameters), TensorRef::of(&[1.0f64]), &mut states).unwrap();
            let change = before - parameters[0];
            assert!(change > 0.0 && change < 0.4, "{step}: {change}");
        }
        assert!(Nadam::new(-1.0).is_err() && rule.with(1.0, 0.9, 1e-7).is_err());
    }
}
