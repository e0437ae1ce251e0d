//! Optimizers: how gradients change weights.

pub mod adam;

pub use adam::Adam;

use crate::dtype::Scalar;

/// A rule that changes weights by their gradients, with whatever it remembers from step to step.
pub trait Optimizer<E: Scalar> {
    /// Changes `parameters`, given the gradient of the loss by each of them. Both have the same length in every call.
    fn update(&mut self, parameters: &mut [E], gradients: &[E]);
}
