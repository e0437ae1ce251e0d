//! Whole models of other programs, read and written.
//!
//! | file | what |
//! |---|---|
//! | `onnx` | ONNX: graphs of PyTorch's two exporters and of others, to a [`Model`]; a model to a graph that ONNX Runtime runs |
//! | `keras` | Keras 3: `.keras` (configuration and weights) and `.weights.h5` |
//! | `torch` | PyTorch: `state_dict`s in safetensors files, by a map of names |
//!
//! A model of this crate has the batch first in every tensor. Other programs put it where they like: a [`Port`] says where, so that values
//! go in and come out as they do there.

use crate::model::Model;

/// An input or an output of an imported model, as the other program has it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Port {
    /// Its name there.
    pub name: String,
    /// Which of its axes is the batch; the model has it first.
    pub batch_axis: usize,
}

/// A model that was read, with what the model itself does not hold.
#[non_exhaustive]
pub struct Imported {
    /// The model. It can be trained and saved.
    pub model: Model,
    /// Its inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Its outputs, in the model's order.
    pub outputs: Vec<Port>,
}
