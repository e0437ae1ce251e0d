//! The kernels' entry points: `kernels/catalog.rs`, which `build.rs` includes too.

#[path = "../../../kernels/catalog.rs"]
mod rows;

pub use rows::*;
