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

use std::borrow::{Borrow, BorrowMut};

use crate::backend::{DenseBackend, Memory};
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

/// What a layer's forward pass reads and writes, where the backend has its tensors.
pub struct Forward<'a, B: DenseBackend> {
    /// The layer's flat weights.
    pub parameters: &'a B::Buffer,
    /// Input, `[batch, input shape…]`.
    pub x: &'a B::Buffer,
    /// Output, `[batch, output shape…]`, every element written.
    pub y: &'a mut B::Buffer,
    /// Samples.
    pub batch: usize,
    /// Whether [`Layer::backward`] follows.
    pub training: bool,
}

/// What a layer's backward pass reads and writes. `parameters`, `x`, `y` and `batch` are those of the forward pass before it.
pub struct Backward<'a, B: DenseBackend> {
    /// The layer's flat weights.
    pub parameters: &'a B::Buffer,
    /// Input.
    pub x: &'a B::Buffer,
    /// Output.
    pub y: &'a B::Buffer,
    /// Gradient of the output.
    pub dy: &'a B::Buffer,
    /// Gradient of the input, set (`=`); absent for the first layer of a model.
    pub dx: Option<&'a mut B::Buffer>,
    /// Gradient of the weights, set (`=`).
    pub dparameters: &'a mut B::Buffer,
    /// Samples.
    pub batch: usize,
}

/// A layer built for one input shape. It may keep plans and scratch space from call to call; weights it does not keep.
pub trait Layer<E: Scalar, B: DenseBackend<Elem = E>> {
    /// Keras's name of the kind: `LSTM`, `Dense`, …
    fn class_name(&self) -> &'static str;

    /// Sample shape of the output.
    fn output_shape(&self) -> &[usize];

    /// The weight tensors, in the order in which they stand in the flat weights.
    fn parameters(&self) -> &[Parameter];

    /// Sets the weights, on the host, to what training starts from.
    fn initialize(&self, parameters: &mut [E], random: &mut Random);

    /// Output from input.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn forward(&mut self, backend: &B, pass: Forward<'_, B>) -> Result<()>;

    /// Gradients of the input and of the weights, after a forward pass with `training` set.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`Error::Presence`] without such a forward pass.
    fn backward(&mut self, backend: &B, pass: Backward<'_, B>) -> Result<()>;

    /// Waits for the passes given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// Those of [`RecurrentBackend::check`](crate::backend::RecurrentBackend::check).
    fn check(&self, _backend: &B) -> Result<()> {
        Ok(())
    }
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
    pub fn build<E: Scalar, B: DenseBackend<Elem = E> + 'static>(
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
            LayerConfig::Dense(config) => config.build(name, input_shape)?,
        })
    }
}

/// Makes a vector at least `len` long.
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

/// A tensor of a backend that grows on demand. What it holds does not survive that.
pub(crate) struct Scratch<B: DenseBackend> {
    tensor: Option<B::Owned<B::Elem>>,
    len: usize,
}

impl<B: DenseBackend> Scratch<B> {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Scratch { tensor: None, len: 0 }
    }

    /// Makes it at least `len` long.
    pub(crate) fn grow(&mut self, backend: &B, what: &str, len: usize) -> Result<()> {
        if self.tensor.is_none() || self.len < len {
            // First the old one goes, so that both need not fit.
            self.tensor = None;
            self.tensor = Some(backend.allocate(what, len)?);
            self.len = len;
        }
        Ok(())
    }

    /// The first `len` elements.
    pub(crate) fn get<'a>(&'a self, backend: &B, len: usize) -> Result<<B as Memory>::View<'a, B::Elem>>
    where
        B: 'a,
    {
        match &self.tensor {
            Some(tensor) => backend.view(tensor.borrow(), 0..len),
            None => Err(absent()),
        }
    }

    /// The first `len` elements, to be written.
    pub(crate) fn get_mut<'a>(&'a mut self, backend: &B, len: usize) -> Result<<B as Memory>::ViewMut<'a, B::Elem>>
    where
        B: 'a,
    {
        match &mut self.tensor {
            Some(tensor) => backend.view_mut(tensor.borrow_mut(), 0..len),
            None => Err(absent()),
        }
    }

    /// All of it.
    pub(crate) fn all(&mut self) -> Result<&mut B::Buffer> {
        self.tensor.as_mut().map(|tensor| tensor.borrow_mut()).ok_or_else(absent)
    }

    /// The tensor itself, which the caller puts back.
    pub(crate) fn take(&mut self) -> Result<B::Owned<B::Elem>> {
        self.tensor.take().ok_or_else(absent)
    }

    /// Puts back what [`take`](Self::take) gave.
    pub(crate) fn put(&mut self, tensor: B::Owned<B::Elem>) {
        self.tensor = Some(tensor);
    }
}

fn absent() -> Error {
    Error::Presence { tensor: "scratch".to_owned(), problem: "it was not allocated before the pass".to_owned() }
}
