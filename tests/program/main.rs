//! The `fused-rnn` program and the examples, run as a user runs them.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

#[path = "../common/mod.rs"]
mod common;

#[cfg(feature = "cli")]
mod bench;
#[cfg(feature = "emulated")]
mod examples_devices;
#[cfg(all(feature = "cli", target_os = "linux"))]
mod faults;
mod g2p;
#[cfg(feature = "cli")]
mod gradcheck;
#[cfg(feature = "cli")]
mod hostile_cli;
#[cfg(feature = "cli")]
mod import;
#[cfg(feature = "cli")]
mod info;
#[cfg(feature = "cli")]
mod mistyped;
#[cfg(feature = "cli")]
mod parity;
#[cfg(feature = "cli")]
mod train;
