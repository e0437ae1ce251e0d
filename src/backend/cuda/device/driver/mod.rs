//! The GPU behind NVIDIA's driver: [`Driver`], a [`Device`](super::Device) through cudarc.
//!
//! Nothing here panics where there is no driver, no GPU, or a driver too old: `library` looks before it calls. Only the
//! driver's interface is used (libcuda, no toolkit), and of cudarc its bindings, since its safe level records events and
//! synchronises where a caller's stream and graph capture must not see any.
//!
//! # Contexts
//!
//! A [`Driver`] shares the device's primary context with every other library of the process that uses the CUDA runtime.
//! Each call makes it current on the calling thread and puts back what was current before, so that a caller's choice of
//! device (`cudaSetDevice`) survives. Any number of drivers, threads and streams may be used at once.
//!
//! # What a pass may do
//!
//! [`launch`](super::Device::launch) and [`fill`](super::Device::fill) give one operation to the stream: no allocation, no wait, no event,
//! no loading of modules, no attribute. So they can be captured in a [`Graph`].
#![allow(unsafe_code)]

mod context;
#[cfg(feature = "cublaslt")]
mod cublaslt;
mod gpu;
mod graph;
mod launch;
mod library;
mod module;
#[cfg(feature = "nccl")]
pub(crate) mod nccl;
#[cfg(any(feature = "cublaslt", feature = "nccl"))]
mod optional;
mod properties;
mod stream;

pub use gpu::Driver;
pub use graph::{Graph, Timer};
pub use module::DriverKernel;
pub use properties::{Description, status};
pub use stream::DriverStream;
