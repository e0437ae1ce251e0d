//! What the CUDA backend stands on: kernels and their images, the driver, the emulated GPU.

#![allow(unsafe_code, reason = "launching a kernel vouches for its parameters")]

#[path = "../common/mod.rs"]
mod common;

mod driver;
#[cfg(feature = "emulated")]
mod emulated;
mod gpu;
mod kernel_images;
mod passes;
#[cfg(feature = "ptx")]
mod ptx;
