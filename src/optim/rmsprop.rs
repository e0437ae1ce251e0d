//! RMSprop.

use std::borrow::BorrowMut;

use crate::backend::DenseBackend;
use crate::backend::dense::RmsPropStep;
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, State, check_at_least_zero, check_fraction, check_rate, wrong_states};

/// RMSprop ([Tieleman and Hinton 2012](https://www.cs.toronto.edu/~tijmen/csc321/slides/lecture_slides_lec6.pdf)) in
/// [Keras's form](https://keras.io/api/optimizers/rmsprop/). With `g` the gradient:
///
/// ```text
/// s = rho s + (1 - rho) g²
/// a = rho a + (1 - rho) g                             (centred only; else a = 0)
/// v = momentum v + learning_rate g / sqrt(s - a² + epsilon)
/// w = w - v
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsProp {
    learning_rate: f64,
    rho: f64,
    momentum: f64,
    epsilon: f64,
    centered: bool,
}

impl RmsProp {
    /// Keras's defaults: `rho` 0.9, no momentum, `epsilon` 1e-7, not centred.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        check_rate(learning_rate)?;
        Ok(RmsProp { learning_rate, ..Self::default() })
    }

    /// The same with another `rho`, with momentum, and with the variance instead of the mean square.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a constant that is not in `0.0..1.0`.
    pub fn with(self, rho: f64, momentum: f64, centered: bool) -> Result<Self> {
        check_fraction("rho", rho)?;
        check_fraction("momentum", momentum)?;
        Ok(RmsProp { rho, momentum, centered, ..self })
    }

    /// The same with another `epsilon`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for one that is not finite or below zero.
    pub fn epsilon(self, epsilon: f64) -> Result<Self> {
        check_at_least_zero("epsilon", epsilon)?;
        Ok(RmsProp { epsilon, ..self })
    }

    fn states(&self) -> usize {
        1 + usize::from(self.centered) + usize::from(self.momentum > 0.0)
    }
}

impl Default for RmsProp {
    /// Keras's defaults, with learning rate 0.001.
    fn default() -> Self {
        RmsProp { learning_rate: 1e-3, rho: 0.9, momentum: 0.0, epsilon: 1e-7, centered: false }
    }
}

impl<B: DenseBackend> Optimizer<B> for RmsProp {
    fn states(&self) -> usize {
        RmsProp::states(self)
    }

    crate::optim::learning_rate!();

    fn config(&self) -> OptimizerConfig {
        let RmsProp { learning_rate, rho, momentum, epsilon, centered } = *self;
        OptimizerConfig::RmsProp { learning_rate, rho, momentum, epsilon, centered }
    }

    fn update(
        &self,
        backend: &B,
        _: u64,
        parameters: &mut B::Buffer,
        gradients: &B::Buffer,
        states: &mut [State<B>],
    ) -> Result<()> {
        if states.len() != RmsProp::states(self) {
            return Err(wrong_states("RMSprop", RmsProp::states(self), states.len()));
        }
        let mut states = states.iter_mut();
        let mut next = |wanted: bool| if wanted { states.next() } else { None };
        let Some(mean_square) = next(true) else { return Err(wrong_states("RMSprop", 1, 0)) };
        let (mean, velocity) = (next(self.centered), next(self.momentum > 0.0));
        let step =
            RmsPropStep { rate: self.learning_rate, rho: self.rho, momentum: self.momentum, epsilon: self.epsilon };
        backend.rmsprop(
            step,
            parameters,
            gradients,
            mean_square.borrow_mut(),
            mean.map(|m| m.borrow_mut()),
            velocity.map(|v| v.borrow_mut()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::ReferenceBackend;

    #[test]
    fn follows_the_formula() {
        let backend = ReferenceBackend::<f64>::new();
        for (momentum, centered) in [(0.0, false), (0.5, false), (0.0, true), (0.5, true)] {
            let rule = RmsProp::new(0.1).unwrap().with(0.8, momentum, centered).unwrap();
            let (mut w, mut s, mut a, mut v) = (1.0f64, 0.0, 0.0, 0.0);
            let mut parameters = [1.0f64];
            let mut states = vec![vec![0.0]; rule.states()];
            for step in 1..=3 {
                let g: f64 = 2.0 * w + 1.0;
                s = 0.8 * s + 0.2 * g * g;
                a = if centered { 0.8 * a + 0.2 * g } else { 0.0 };
                v = momentum * v + 0.1 * g / (s - a * a + 1e-7).sqrt();
                w -= v;
                let gradient = [2.0 * parameters[0] + 1.0];
                rule.update(&backend, step, &mut parameters, &gradient, &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-14, "{momentum} {centered} {step}: {} {w}", parameters[0]);
            }
        }
        assert!(RmsProp::new(-1.0).is_err() && RmsProp::default().with(1.0, 0.0, false).is_err());
    }
}
