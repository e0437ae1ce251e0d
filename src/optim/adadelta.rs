//! Adadelta.

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::optim::on_host::{self, HostRule, flush};
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_fraction, check_rate};

/// Adadelta ([Zeiler 2012](https://arxiv.org/abs/1212.5701)) in [Keras's form](https://keras.io/api/optimizers/adadelta/) and with its
/// defaults. With `g` the gradient:
///
/// ```text
/// s = rho s + (1 - rho) g²
/// d = sqrt(a + epsilon) / sqrt(s + epsilon) g
/// a = rho a + (1 - rho) d²
/// w = w - learning_rate d
/// ```
///
/// The paper's rate is 1; Keras's default of 0.001 learns very slowly.
///
/// It computes on the host; on a GPU a step is refused with [`Error::Unsupported`](crate::Error::Unsupported).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adadelta {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the means keep of themselves, 0 to below 1.
    pub rho: f64,
    /// Added to both means.
    pub epsilon: f64,
}

impl Adadelta {
    /// Keras's defaults: `rho` 0.95, `epsilon` 1e-7.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Adadelta { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with other constants.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a `rho` outside `0.0..1.0`, or an `epsilon` that is not finite or below
    /// zero.
    pub fn with(self, rho: f64, epsilon: f64) -> Result<Self> {
        let rule = Adadelta { rho, epsilon, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for Adadelta {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        Adadelta { learning_rate: 1e-3, rho: 0.95, epsilon: 1e-7 }
    }
}

impl Optimizer for Adadelta {
    fn states(&self) -> usize {
        2
    }

    crate::optim::constants!(Adadelta);

    fn validate(&self) -> Result<()> {
        check_rate(self.learning_rate)?;
        check_fraction("rho", self.rho)?;
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

impl HostRule for Adadelta {
    const NAME: &'static str = "Adadelta";

    fn step<E: Scalar>(&self, _: u64, weights: &mut [E], gradients: &[E], first: &mut [E], second: &mut [E]) {
        let (keep, take) = (E::of(self.rho), E::of(1.0 - self.rho));
        let (rate, epsilon) = (E::of(self.learning_rate), E::of(self.epsilon));
        for (((w, g), square), change) in weights.iter_mut().zip(gradients).zip(first).zip(second) {
            *square = flush(keep * *square + take * *g * *g);
            let root = (*square + epsilon).sqrt();
            let step = if root == E::zero() { E::zero() } else { (*change + epsilon).sqrt() / root * *g };
            *change = flush(keep * *change + take * step * step);
            *w -= rate * step;
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
        let rule = Adadelta::default().with(0.95, 0.0).unwrap();
        let mut parameters = [0.5f32];
        let mut states = states(&rule, DType::F32, 1);
        update(&rule, 1, TensorMut::of(&mut parameters), TensorRef::of(&[0.0f32]), &mut states).unwrap();
        assert_eq!(parameters, [0.5]);
        assert!(Adadelta::new(0.0).is_err() && rule.with(1.0, 1e-7).is_err());
    }
}
