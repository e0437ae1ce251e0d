//! The cells: one file each with its equations, a step written to be read beside them, and that step's derivative;
//! [`spec`] is the one arity table.

pub mod activation;
pub mod gru;
pub mod lstm;
pub mod rnn;
pub mod spec;

pub use activation::{Activation, Activations};
pub use spec::{CellKind, CellSpec};
