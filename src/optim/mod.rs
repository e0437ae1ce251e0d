//! Optimizers: how gradients change weights.
//!
//! An optimizer is a rule with its constants. What it remembers from step to step, tensors as long as the weights, belongs to the
//! model and stands where the weights stand, on the host or on a device; the arithmetic is the
//! [backend's](crate::backend::DenseBackend).

pub mod adagrad;
pub mod adam;
pub mod adamw;
pub mod config;
pub mod rmsprop;
pub mod schedule;
pub mod sgd;

pub use adagrad::Adagrad;
pub use adam::Adam;
pub use adamw::AdamW;
pub use config::OptimizerConfig;
pub use rmsprop::RmsProp;
pub use schedule::Schedule;
pub use sgd::Sgd;

use crate::backend::{DenseBackend, Memory};
use crate::error::{Error, Result};

/// What a backend keeps of an optimizer: one of its tensors.
pub type State<B> = <B as Memory>::Owned<<B as crate::backend::RecurrentBackend>::Elem>;

/// A rule that changes weights by their gradients.
pub trait Optimizer<B: DenseBackend> {
    /// How many tensors as long as the weights it remembers; see [`initial`](Self::initial).
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

    /// The rule with all its constants, such as the learning rate now set.
    fn config(&self) -> OptimizerConfig;

    /// Changes `parameters`, given the gradient of the loss by each of them. `step` counts from 1.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn update(
        &self,
        backend: &B,
        step: u64,
        parameters: &mut B::Buffer,
        gradients: &B::Buffer,
        states: &mut [State<B>],
    ) -> Result<()>;
}

/// The two methods about the learning rate, alike for all.
macro_rules! learning_rate {
    () => {
        fn learning_rate(&self) -> f64 {
            self.learning_rate
        }

        fn set_learning_rate(&mut self, learning_rate: f64) -> Result<()> {
            crate::optim::check_rate(learning_rate)?;
            self.learning_rate = learning_rate;
            Ok(())
        }
    };
}
pub(crate) use learning_rate;

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
