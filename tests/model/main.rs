//! Layers, models, training and files, with the data, metrics and pictures around them.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

#[path = "../common/mod.rs"]
mod common;

mod backup;
mod batches;
mod csv;
mod data;
#[cfg(feature = "emulated")]
mod device_training;
mod diagram;
#[cfg(feature = "exchange")]
mod exchange_hostile;
#[cfg(feature = "exchange")]
mod exchange_models;
mod files;
mod fitting;
mod hostile_files;
mod keras;
mod layer_options;
mod layers;
mod lengths;
mod losses;
mod masks;
mod metrics;
#[cfg(feature = "cuda")]
mod mixed_precision;
mod models;
#[cfg(feature = "exchange")]
mod onnx;
#[cfg(feature = "plot")]
mod plot;
mod repeated_rows;
mod robustness;
mod saved;
mod sequences;
mod training;

/// The CPU in `f64`.
fn cpu() -> fused_rnn::Device {
    common::cpu(fused_rnn::DType::F64)
}

/// All weights of a model.
fn weights(model: &fused_rnn::model::Model) -> Vec<f64> {
    model.flat_weights().expect("weights of a model")
}
