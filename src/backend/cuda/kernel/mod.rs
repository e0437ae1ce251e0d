//! Kernels with their parameter structs.

pub(crate) mod convert;
pub(crate) mod gemm;
pub(crate) mod launch;
pub(crate) mod mirrored;
pub(crate) mod params;
#[cfg(feature = "model")]
pub(crate) mod sets;
