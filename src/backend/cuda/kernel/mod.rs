//! Kernels with their parameter structs.

pub(crate) mod convert;
pub(crate) mod gemm;
pub(crate) mod launch;
pub(crate) mod params;
pub(crate) mod sets;
