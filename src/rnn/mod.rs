//! The operator, apart from who computes it: what ([`RnnDescriptor`]), how much ([`RnnShape`]), with which weights
//! ([`WeightLayout`]) and which dropout masks ([`dropout`]).

pub mod descriptor;
pub mod dropout;
pub mod shape;
pub mod weights;

pub use descriptor::{Bias, Direction, GruReset, Layout, PaddedOutput, RnnDescriptor};
pub use dropout::Dropout;
pub use shape::{RnnShape, TensorShapes};
pub(crate) use weights::LayerWeights;
pub use weights::{WeightEntry, WeightKind, WeightLayout};
