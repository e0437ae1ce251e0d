//! Layers, models, training and files, with the data, metrics and pictures around them.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

#[path = "../common/mod.rs"]
mod common;

mod data;
#[cfg(feature = "emulated")]
mod device_training;
mod diagram;
mod hostile_files;
mod keras;
mod layers;
mod metrics;
#[cfg(feature = "cuda")]
mod mixed_precision;
mod models;
#[cfg(feature = "plot")]
mod plot;
mod saved;
mod sequences;
mod training;
