//! Gradient descent.

use std::borrow::BorrowMut;

use crate::backend::DenseBackend;
use crate::backend::dense::SgdStep;
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, State, check_fraction, check_rate, wrong_states};

/// Stochastic gradient descent with momentum, in [Keras's form](https://keras.io/api/optimizers/sgd/). With `g` the gradient:
///
/// ```text
/// without momentum:  w = w - learning_rate g
/// with momentum:     v = momentum v - learning_rate g;  w = w + v
/// Nesterov:          v = momentum v - learning_rate g;  w = w + momentum v - learning_rate g
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sgd {
    learning_rate: f64,
    momentum: f64,
    nesterov: bool,
}

impl Sgd {
    /// Without momentum.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        check_rate(learning_rate)?;
        Ok(Sgd { learning_rate, ..Self::default() })
    }

    /// The same with momentum, and whether it looks ahead
    /// ([Sutskever et al. 2013](https://proceedings.mlr.press/v28/sutskever13.html)).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a momentum that is not in `0.0..1.0`.
    pub fn momentum(self, momentum: f64, nesterov: bool) -> Result<Self> {
        check_fraction("momentum", momentum)?;
        Ok(Sgd { momentum, nesterov, ..self })
    }
}

impl Default for Sgd {
    /// Keras's defaults: learning rate 0.01, no momentum.
    fn default() -> Self {
        Sgd { learning_rate: 0.01, momentum: 0.0, nesterov: false }
    }
}

impl<B: DenseBackend> Optimizer<B> for Sgd {
    fn states(&self) -> usize {
        usize::from(self.momentum > 0.0)
    }

    crate::optim::learning_rate!();

    fn config(&self) -> OptimizerConfig {
        let Sgd { learning_rate, momentum, nesterov } = *self;
        OptimizerConfig::Sgd { learning_rate, momentum, nesterov }
    }

    fn update(
        &self,
        backend: &B,
        _: u64,
        parameters: &mut B::Buffer,
        gradients: &B::Buffer,
        states: &mut [State<B>],
    ) -> Result<()> {
        let step = SgdStep { rate: self.learning_rate, momentum: self.momentum, nesterov: self.nesterov };
        match states {
            [] if self.momentum == 0.0 => backend.sgd(step, parameters, gradients, None),
            [velocity] if self.momentum > 0.0 => backend.sgd(step, parameters, gradients, Some(velocity.borrow_mut())),
            _ => Err(wrong_states("SGD", usize::from(self.momentum > 0.0), states.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::reference::ReferenceBackend;

    #[test]
    fn follows_the_formula() {
        let backend = ReferenceBackend::<f64>::new();
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let sgd = Sgd::new(0.1).unwrap().momentum(momentum, nesterov).unwrap();
            let (mut w, mut v) = (1.0f64, 0.0);
            let mut parameters = [1.0f64];
            let mut states = vec![vec![0.0]; Optimizer::<ReferenceBackend<f64>>::states(&sgd)];
            for step in 1..=3 {
                let g = 2.0 * w + 1.0;
                v = momentum * v - 0.1 * g;
                w += if nesterov { momentum * v - 0.1 * g } else { v };
                let gradient = [2.0 * parameters[0] + 1.0];
                sgd.update(&backend, step, &mut parameters, &gradient, &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-15, "{momentum} {nesterov} {step}");
            }
        }
        assert!(Sgd::new(0.0).is_err() && Sgd::default().momentum(1.0, false).is_err());
    }
}
