//! The operator without its implementations: description ([`RnnDescriptor`]), sizes ([`RnnShape`]), layout of the weights
//! ([`WeightLayout`]), dropout masks ([`dropout`]), what training keeps ([`Memory`]).

pub mod descriptor;
pub mod dropout;
pub mod memory;
pub mod shape;
pub mod weights;

pub(crate) use descriptor::CandidateTerm;
pub use descriptor::{Bias, Direction, ForgetGate, GruReset, InputKind, Layout, PaddedOutput, RnnDescriptor};
pub use dropout::Dropout;
pub use memory::Memory;
pub use shape::{RnnShape, TensorShapes};
pub(crate) use weights::LayerWeights;
pub use weights::{WeightEntry, WeightKind, WeightLayout};
