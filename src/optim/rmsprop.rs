//! RMSprop.

use serde::{Deserialize, Serialize};

use crate::backend::ops::RmsPropStep;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, check_at_least_zero, check_fraction, check_rate, wrong_states};

/// RMSprop ([Tieleman and Hinton 2012](https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf)) in
/// [Keras's form](https://keras.io/api/optimizers/rmsprop/). With `g` the gradient:
///
/// ```text
/// s = rho s + (1 - rho) g²
/// a = rho a + (1 - rho) g                             (centred only; else a = 0)
/// v = momentum v + learning_rate g / sqrt(s - a² + epsilon)
/// w = w - v
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RmsProp {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the mean square keeps of itself, 0 to below 1.
    pub rho: f64,
    /// What the velocity keeps of itself, 0 to below 1; 0 for none.
    pub momentum: f64,
    /// Added to the mean square.
    pub epsilon: f64,
    /// Whether the variance takes the place of the mean square.
    pub centered: bool,
}

impl RmsProp {
    /// Keras's defaults: `rho` 0.9, no momentum, `epsilon` 1e-7, not centred.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = RmsProp { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with another `rho`, with momentum, and with the variance instead of the mean square.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a constant that is not in `0.0..1.0`.
    pub fn with(self, rho: f64, momentum: f64, centered: bool) -> Result<Self> {
        let rule = RmsProp { rho, momentum, centered, ..self };
        rule.validate().map(|()| rule)
    }

    /// The same with another `epsilon`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn epsilon(self, epsilon: f64) -> Result<Self> {
        let rule = RmsProp { epsilon, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for RmsProp {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        RmsProp { learning_rate: 1e-3, rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false }
    }
}

impl Optimizer for RmsProp {
    fn states(&self) -> usize {
        1 + usize::from(self.centered) + usize::from(self.momentum > 0.0)
    }

    crate::optim::constants!(RmsProp);

    fn validate(&self) -> Result<()> {
        check_rate(self.learning_rate)?;
        check_fraction("rho", self.rho)?;
        check_fraction("momentum", self.momentum)?;
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
        if states.len() != self.states() {
            return Err(wrong_states("RMSprop", self.states(), states.len()));
        }
        let mut states = states.iter_mut();
        let mut next = |wanted: bool| if wanted { states.next() } else { None };
        let Some(mean_square) = next(true) else { return Err(wrong_states("RMSprop", 1, 0)) };
        let (mean, velocity) = (next(self.centered), next(self.momentum > 0.0));
        let step =
            RmsPropStep { rate: self.learning_rate, rho: self.rho, momentum: self.momentum, epsilon: self.epsilon };
        device.rmsprop(
            step,
            parameters,
            gradients,
            mean_square.view_mut(),
            mean.map(Tensor::view_mut),
            velocity.map(Tensor::view_mut),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    #[test]
    fn follows_the_formula() {
        for (momentum, centered) in [(0.0, false), (0.5, false), (0.0, true), (0.5, true)] {
            let rule = RmsProp::new(0.1).unwrap().with(0.8, momentum, centered).unwrap();
            let (mut w, mut s, mut a, mut v) = (1.0f64, 0.0, 0.0, 0.0);
            let mut parameters = [1.0f64];
            let mut states = states(&rule, DType::F64, 1);
            for step in 1..=3 {
                let g: f64 = 2.0 * w + 1.0;
                s = 0.8 * s + 0.2 * g * g;
                a = if centered { 0.8 * a + 0.2 * g } else { 0.0 };
                v = momentum * v + 0.1 * g / (s - a * a + 1e-7).sqrt();
                w -= v;
                let gradient = [2.0 * parameters[0] + 1.0];
                update(&rule, step, TensorMut::of(&mut parameters), TensorRef::of(&gradient), &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-14, "{momentum} {centered} {step}: {} {w}", parameters[0]);
            }
        }
        assert!(RmsProp::new(-1.0).is_err() && RmsProp::default().with(1.0, 0.0, false).is_err());
    }
}
