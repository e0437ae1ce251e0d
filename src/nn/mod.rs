//! Layers: what a [`Sequential`](crate::model::Sequential) is made of.
//!
//! A layer is described by a small value with Keras's words ([`SimpleRnn`], [`Lstm`], [`Gru`], [`Dense`]; together
//! [`LayerConfig`], which is what a model file holds) and built for an input shape into a [`Layer`], which computes. Weights do not
//! live in layers: a model keeps all of them in one flat buffer, and each layer says which part is whose ([`Parameter`]).
//!
//! Arrays are row-major with the batch first, `[batch, seq_len, features]` or `[batch, features]`, as in Keras; shapes without the
//! batch are called sample shapes.

pub mod dense;
pub mod init;
pub mod loss;
pub mod recurrent;

pub use dense::Dense;
pub use init::Random;
pub use loss::Loss;
pub use recurrent::{Gru, Lstm, SimpleRnn};

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::backend::HostBackend;
use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// A weight tensor of a layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// PyTorch's name within the layer: `weight_ih_l0`, `bias`, …
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Elements of the layer's flat weights that it takes.
    pub range: Range<usize>,
}

/// What a layer's forward pass reads and writes.
pub struct Forward<'a, E> {
    /// The layer's flat weights.
    pub parameters: &'a [E],
    /// Input, `[batch, input shape…]`.
    pub x: &'a [E],
    /// Output, `[batch, output shape…]`, every element written.
    pub y: &'a mut [E],
    /// Samples.
    pub batch: usize,
    /// Whether [`Layer::backward`] follows.
    pub training: bool,
}

/// What a layer's backward pass reads and writes. `parameters`, `x`, `y` and `batch` are those of the forward pass before it.
pub struct Backward<'a, E> {
    /// The layer's flat weights.
    pub parameters: &'a [E],
    /// Input.
    pub x: &'a [E],
    /// Output.
    pub y: &'a [E],
    /// Gradient of the output.
    pub dy: &'a [E],
    /// Gradient of the input, set (`=`); absent for the first layer of a model.
    pub dx: Option<&'a mut [E]>,
    /// Gradient of the weights, set (`=`).
    pub dparameters: &'a mut [E],
    /// Samples.
    pub batch: usize,
}

/// A layer built for one input shape. It may keep plans and scratch space from call to call; weights it does not keep.
pub trait Layer<E: Scalar, B: HostBackend<E>> {
    /// Keras's name of the kind: `LSTM`, `Dense`, …
    fn class_name(&self) -> &'static str;

    /// Sample shape of the output.
    fn output_shape(&self) -> &[usize];

    /// The weight tensors, in the order in which they stand in the flat weights.
    fn parameters(&self) -> &[Parameter];

    /// Sets the weights to what training starts from.
    fn initialize(&self, parameters: &mut [E], random: &mut Random);

    /// Output from input.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn forward(&mut self, backend: &B, pass: Forward<'_, E>) -> Result<()>;

    /// Gradients of the input and of the weights, after a forward pass with `training` set.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`Error::Presence`] without such a forward pass.
    fn backward(&mut self, backend: &B, pass: Backward<'_, E>) -> Result<()>;
}

/// What a layer is, apart from its input shape and its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "class_name", content = "config")]
#[non_exhaustive]
pub enum LayerConfig {
    /// See [`SimpleRnn`].
    #[serde(rename = "SimpleRNN")]
    SimpleRnn(SimpleRnn),
    /// See [`Lstm`].
    #[serde(rename = "LSTM")]
    Lstm(Lstm),
    /// See [`Gru`].
    #[serde(rename = "GRU")]
    Gru(Gru),
    /// See [`Dense`].
    Dense(Dense),
}

impl LayerConfig {
    /// Keras's name for layers of this kind in a model: `lstm`, then `lstm_1`, `lstm_2`, …
    pub fn stem(&self) -> &'static str {
        match self {
            LayerConfig::SimpleRnn(_) => "simple_rnn",
            LayerConfig::Lstm(_) => "lstm",
            LayerConfig::Gru(_) => "gru",
            LayerConfig::Dense(_) => "dense",
        }
    }

    /// Builds the layer for inputs of sample shape `input_shape`. Allocates nothing whose size depends on the number of units, so
    /// that a configuration from a file can be checked against the file's tensors first.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the layer cannot take such inputs, [`Error::ZeroSize`],
    /// [`Error::SizeOverflow`].
    pub fn build<E: Scalar, B: HostBackend<E> + 'static>(
        &self,
        name: &str,
        input_shape: &[usize],
    ) -> Result<Box<dyn Layer<E, B>>>
    where
        B::Plan: 'static,
    {
        Ok(match self {
            LayerConfig::SimpleRnn(config) => config.build(name, input_shape)?,
            LayerConfig::Lstm(config) => config.build(name, input_shape)?,
            LayerConfig::Gru(config) => config.build(name, input_shape)?,
            LayerConfig::Dense(config) => Box::new(config.build(name, input_shape)?),
        })
    }
}

/// Makes a buffer at least `len` long.
///
/// # Errors
///
/// [`Error::Unsupported`] where the system cannot give that much memory.
pub(crate) fn grow<E: Scalar>(buffer: &mut Vec<E>, len: usize, tensor: &str) -> Result<()> {
    let more = len.saturating_sub(buffer.len());
    buffer.try_reserve_exact(more).map_err(|_| {
        Error::unsupported(format!("{tensor} of {len} elements"), "there is not enough memory; use smaller sizes")
    })?;
    buffer.resize(buffer.len() + more, E::zero());
    Ok(())
}
