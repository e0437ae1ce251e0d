//! The CUDA backend: the operator on an NVIDIA GPU, on the caller's stream and in the caller's memory.
//!
//! ```text
//! backend     CudaBackend: the operator on device memory, safe and raw        runtime   the same as a `Device` holds it
//! staged      the same on slices of the host, which it copies back and forth  tensors   addresses of tensors without types
//! call        a call on raw memory, which every way of giving tensors becomes
//! ops/        what models need besides: products, losses, optimizers and so on, as launches
//! recurrent/  the operator as launches: plan, families of kernels and their cost, layout of workspace and reserve, passes
//! kernel/     a kernel with its parameter struct, the structs, products with their tiles and pieces or by cuBLASLt, geometries
//! device/     what all that needs of a machine: the GPU behind its driver, the host's emulation of one, one on paper that plans are
//!             made for; memory
//! images/     the compiled kernels: the catalog of entry points; embedded by build.rs, or compiled at first use
//! ```
//!
//! What stands higher uses what stands lower. Forward and backward allocate nothing, wait for nothing and load nothing: they give
//! launches to the stream and return, and may be captured into a CUDA graph. Kernels stand in `kernels/`, with their mathematics in
//! their headers.
//!
//! Lengths on a device cannot be checked before a call. One beyond `seq_len` counts as `seq_len`; a sequence of length zero leaves
//! its state as it was. Through [`Staged`] both are errors, as on every backend.
#![expect(
    clippy::indexing_slicing,
    reason = "of tables by kernels, cells and registers, of the interpreter's own memory after its bounds, and of plans' own lists"
)]

mod backend;
mod call;
pub mod device;
pub mod images;
mod kernel;
#[cfg(feature = "model")]
mod ops;
mod options;
mod recurrent;
#[cfg(feature = "model")]
mod runtime;
mod staged;
#[cfg(feature = "model")]
mod tensors;

pub use backend::CudaBackend;
pub use call::{Raw, RawTensor};
#[cfg(feature = "emulated")]
pub use device::emulated;
pub use device::memory::DeviceBuffer;
#[cfg(feature = "ptx")]
pub use device::ptx;
pub use device::{driver, paper};
pub use images::{catalog, compile, nvrtc};
pub use options::{Compute, CudaOptions, Family, FamilyChoice, Matmul};
pub use recurrent::{CudaPlan, PersistentReport, ProductReport, TimeLoopReport};
pub use staged::Staged;
