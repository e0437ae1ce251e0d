//! Weights and tensors of other frameworks.

pub mod keras;
pub mod onnx;
pub mod safetensors;
