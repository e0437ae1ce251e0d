//! The recurrent operator and the operations that models need besides, on every backend.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

#[path = "../common/mod.rs"]
mod common;

mod backends;
mod errors;
mod gradcheck;
#[cfg(feature = "cuda")]
mod lengths;
#[cfg(feature = "model")]
mod operations;
#[cfg(feature = "model")]
mod parity;
#[cfg(all(feature = "emulated", feature = "model"))]
mod planted_bugs;
#[cfg(feature = "ptx")]
mod planted_ptx_bugs;
#[cfg(feature = "ptx")]
mod ptx_catalog;
#[cfg(feature = "emulated")]
mod raw_pointers;
mod reference;
#[cfg(feature = "emulated")]
mod tiles;
