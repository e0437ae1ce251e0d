//! Gradient descent.

use serde::{Deserialize, Serialize};

use crate::backend::ops::SgdStep;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::Result;
use crate::optim::{Optimizer, OptimizerConfig, check_fraction, check_rate, wrong_states};

/// Stochastic gradient descent with momentum, in [Keras's form](https://keras.io/api/optimizers/sgd/). With `g` the gradient:
///
/// ```text
/// without momentum:  w = w - learning_rate g
/// with momentum:     v = momentum v - learning_rate g;  w = w + v
/// Nesterov:          v = momentum v - learning_rate g;  w = w + momentum v - learning_rate g
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sgd {
    /// Learning rate; above zero.
    pub learning_rate: f64,
    /// What the velocity keeps of itself, 0 to below 1; 0 for none.
    pub momentum: f64,
    /// Whether steps look ahead along the velocity.
    pub nesterov: bool,
}

impl Sgd {
    /// Without momentum.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a learning rate that is not finite and above zero.
    pub fn new(learning_rate: f64) -> Result<Self> {
        let rule = Sgd { learning_rate, ..Self::default() };
        rule.validate().map(|()| rule)
    }

    /// The same with momentum, and whether it looks ahead
    /// ([Sutskever et al. 2013](https://proceedings.mlr.press/v28/sutskever13.html)).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a momentum that is not in `0.0..1.0`.
    pub fn momentum(self, momentum: f64, nesterov: bool) -> Result<Self> {
        let rule = Sgd { momentum, nesterov, ..self };
        rule.validate().map(|()| rule)
    }
}

impl Default for Sgd {
    /// Keras's defaults: learning rate 0.01, no momentum.
    fn default() -> Self {
        Sgd { learning_rate: 0.01, momentum: 0.0, nesterov: false }
    }
}

impl Optimizer for Sgd {
    fn states(&self) -> usize {
        usize::from(self.momentum > 0.0)
    }

    crate::optim::constants!(Sgd);

    fn validate(&self) -> Result<()> {
        check_rate(self.learning_rate)?;
        check_fraction("momentum", self.momentum)
    }

    fn update(
        &self,
        device: &Device,
        _: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        let step = SgdStep { rate: self.learning_rate, momentum: self.momentum, nesterov: self.nesterov };
        match states {
            [] if self.momentum == 0.0 => device.sgd(step, parameters, gradients, None),
            [velocity] if self.momentum > 0.0 => device.sgd(step, parameters, gradients, Some(velocity.view_mut())),
            _ => Err(wrong_states("SGD", usize::from(self.momentum > 0.0), states.len())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dtype::DType;
    use crate::optim::testing::{states, update};

    #[test]
    fn follows_the_formula() {
        for (momentum, nesterov) in [(0.0, false), (0.9, false), (0.9, true)] {
            let sgd = Sgd::new(0.1).unwrap().momentum(momentum, nesterov).unwrap();
            let (mut w, mut v) = (1.0f64, 0.0);
            let mut parameters = [1.0f64];
            let mut states = states(&sgd, DType::F64, 1);
            for step in 1..=3 {
                let g = 2.0 * w + 1.0;
                v = momentum * v - 0.1 * g;
                w += if nesterov { momentum * v - 0.1 * g } else { v };
                let gradient = [2.0 * parameters[0] + 1.0];
                update(&sgd, step, TensorMut::of(&mut parameters), TensorRef::of(&gradient), &mut states).unwrap();
                assert!((parameters[0] - w).abs() < 1e-15, "{momentum} {nesterov} {step}");
            }
        }
        assert!(Sgd::new(0.0).is_err() && Sgd::default().momentum(1.0, false).is_err());
    }
}
