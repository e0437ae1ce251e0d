//! Optimizers: how gradients change weights.
//!
//! An optimizer is a rule with its constants. What it remembers from step to step, tensors as long as the weights, belongs to the
//! model and stands where the weights stand, on the host or on a device; the arithmetic is the
//! [device's](crate::backend::Operations): on the host in `backend/host_ops/plain/training.rs`, on a GPU in `kernels/training.cu`.
//! [`Nadam`], [`Adamax`] and [`Adadelta`] have no kernels: they compute on the host alone, by themselves.

pub mod adadelta;
pub mod adagrad;
pub mod adam;
pub mod adamax;
pub mod adamw;
pub mod config;
pub mod nadam;
mod on_host;
pub mod rmsprop;
pub mod schedule;
pub mod sgd;

pub use adadelta::Adadelta;
pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamax::Adamax;
pub use adamw::AdamW;
pub use config::OptimizerConfig;
pub use nadam::Nadam;
pub use rmsprop::RmsProp;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::error::{Error, Result};

/// A rule that changes weights by their gradients.
pub trait Optimizer: Send {
    /// Number of tensors as long as the weights that it remembers; see [`initial`](Self::initial).
    fn states(&self) -> usize;

    /// What the elements of tensor number `state` of those are before the first step; zero.
    fn initial(&self, _state: usize) -> f64 {
        0.0
    }

    /// The learning rate.
    fn learning_rate(&self) -> f64;

    /// Sets the learning rate, for the steps to come.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a rate that is not finite and above zero.
    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()>;

    /// Refuses constants that the rule cannot have. Training begins with it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    fn validate(&self) -> Result<()>;

    /// The rule with all its constants, such as the learning rate now set.
    fn config(&self) -> OptimizerConfig;

    /// Changes `parameters`, given the gradient of the loss by each of them. `step` counts from 1.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another number of states than [`states`](Self::states), or of other lengths; [`Error::Driver`] where the GPU's
    /// driver fails.
    fn update(
        &self,
        device: &Device,
        step: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()>;
}

/// One that is chosen while the program runs, as [`OptimizerConfig::build`] gives it.
impl Optimizer for Box<dyn Optimizer> {
    fn states(&self) -> usize {
        (**self).states()
    }

    fn initial(&self, state: usize) -> f64 {
        (**self).initial(state)
    }

    fn learning_rate(&self) -> f64 {
        (**self).learning_rate()
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
        (**self).set_learning_rate(learning_rate)
    }

    fn validate(&self) -> Result<()> {
        (**self).validate()
    }

    fn config(&self) -> OptimizerConfig {
        (**self).config()
    }

    fn update(
        &self,
        device: &Device,
        step: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        (**self).update(device, step, parameters, gradients, states)
    }
}

/// The methods of an optimizer that are alike for all: its learning rate, and itself as data.
macro_rules! constants {
    ($variant:ident) => {
        fn learning_rate(&self) -> f64 {
            self.learning_rate
        }

        fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
            crate::optim::check_rate(learning_rate)?;
            self.learning_rate = learning_rate;
            Ok(())
        }

        fn config(&self) -> OptimizerConfig {
            OptimizerConfig::$variant(*self)
        }
    };
}
pub(crate) use constants;

/// The memory of an optimizer has another number of tensors than it asked for.
fn wrong_states(optimizer: &str, expected: usize, got: usize) -> Error {
    Error::shape(format!("states of {optimizer}"), format!("{expected} tensors"), format!("{got} tensors"))
}

fn check_rate(learning_rate: f64) -> Result<()> {
    if learning_rate.is_finite() && learning_rate > 0.0 {
        return Ok(());
    }
    Err(Error::option("learning_rate", "a finite number above zero", learning_rate))
}

/// A constant that says how much is kept.
fn check_fraction(option: &str, value: f64) -> Result<()> {
    if (0.0..1.0).contains(&value) { Ok(()) } else { Err(Error::option(option, "0 to below 1", value)) }
}

/// A constant that is added or taken off.
fn check_at_least_zero(option: &str, value: f64) -> Result<()> {
    if value.is_finite() && value >= 0.0 {
        Ok(())
    } else {
        Err(Error::option(option, "a finite number, 0 or above", value))
    }
}

#[cfg(test)]
pub(crate) mod testing {
    use super::{Device, Optimizer, Tensor};
    use crate::backend::{TensorMut, TensorRef};
    use crate::dtype::DType;
    use crate::error::Result;

    /// The oracle in an element type.
    fn device(dtype: DType) -> Device {
        Device::reference().with_dtype(dtype).unwrap()
    }

    /// What a rule remembers of `len` weights before the first step.
    pub(crate) fn states(rule: &dyn Optimizer, dtype: DType, len: usize) -> Vec<Tensor> {
        let state = |i| device(dtype).rounded("state", len, vec![rule.initial(i); len]).unwrap();
        (0..rule.states()).map(state).collect()
    }

    /// One step on values of the host.
    pub(crate) fn update(
        rule: &dyn Optimizer,
        step: u64,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        states: &mut [Tensor],
    ) -> Result<()> {
        rule.update(&device(parameters.dtype()), step, parameters, gradients, states)
    }
}
