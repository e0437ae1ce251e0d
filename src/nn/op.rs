//! What layers are made of: [`Op`], one operation with its derivative.
//!
//! A layer does not compute. It puts operations into a [`Builder`](crate::nn::Builder), which a network then
//! runs: forwards in their order, backwards in the opposite one. Operations keep plans and scratch space from call to call; values,
//! gradients and weights belong to the network and stand where the backend computes.

use std::ops::{Deref, DerefMut};

use crate::backend::{DenseBackend, Memory, WeightGrad};
use crate::error::{Error, Result};

/// Most inputs of an operation.
pub const MOST_INPUTS: usize = 4;
/// Most outputs of an operation.
pub const MOST_OUTPUTS: usize = 3;

fn absent(number: usize) -> Error {
    Error::Presence { tensor: format!("tensor {number} of an operation"), problem: "it is not there".to_owned() }
}

/// Tensors that an operation reads, by number. One may be absent.
pub struct Inputs<'a, B: DenseBackend + 'a>(pub(super) [Option<<B as Memory>::View<'a, B::Elem>>; MOST_INPUTS]);

impl<'a, B: DenseBackend + 'a> Inputs<'a, B> {
    pub(super) fn none() -> Self {
        Inputs([const { None }; MOST_INPUTS])
    }

    /// Tensor `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where it is absent.
    pub fn get(&self, number: usize) -> Result<&B::Buffer> {
        self.optional(number).ok_or_else(|| absent(number))
    }

    /// Tensor `number`, if it is there.
    pub fn optional(&self, number: usize) -> Option<&B::Buffer> {
        self.0.get(number)?.as_ref().map(Deref::deref)
    }
}

/// Tensors that an operation writes, by number. One may be absent.
pub struct Outputs<'a, B: DenseBackend + 'a>(pub(super) [Option<<B as Memory>::ViewMut<'a, B::Elem>>; MOST_INPUTS]);

impl<'a, B: DenseBackend + 'a> Outputs<'a, B> {
    pub(super) fn none() -> Self {
        Outputs([const { None }; MOST_INPUTS])
    }

    /// Tensor `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where it is absent.
    pub fn get(&mut self, number: usize) -> Result<&mut B::Buffer> {
        self.optional(number).ok_or_else(|| absent(number))
    }

    /// Tensor `number`, if it is there.
    pub fn optional(&mut self, number: usize) -> Option<&mut B::Buffer> {
        self.0.get_mut(number)?.as_mut().map(DerefMut::deref_mut)
    }

    /// All of them at once.
    pub fn each(&mut self) -> [Option<&mut B::Buffer>; MOST_INPUTS] {
        self.0.each_mut().map(|view| view.as_mut().map(DerefMut::deref_mut))
    }
}

/// What an operation's forward pass reads and writes, where the backend has its tensors.
pub struct Forward<'a, B: DenseBackend + 'a> {
    /// Weights of the operation: the range it was built with.
    pub parameters: &'a B::Buffer,
    /// What it keeps apart from weights that are trained, such as moving averages.
    pub statistics: &'a mut B::Buffer,
    /// Its inputs, `[batch, sample shape…]` each.
    pub inputs: Inputs<'a, B>,
    /// Its outputs, likewise, every element to be written.
    pub outputs: Outputs<'a, B>,
    /// Rows: samples, or steps of all samples inside of a layer that goes through time.
    pub batch: usize,
    /// Whether this is a step of training: dropout drops, normalisation uses the batch, and [`Op::backward`] follows.
    pub training: bool,
    /// What is random comes from this and from the [number](crate::nn::Builder::op_number) of the operation; another for every step.
    pub seed: u64,
}

/// What an operation's backward pass reads and writes. All but the gradients is as in the forward pass before it.
pub struct Backward<'a, B: DenseBackend + 'a> {
    /// Weights of the operation.
    pub parameters: &'a B::Buffer,
    /// What it keeps apart from them.
    pub statistics: &'a B::Buffer,
    /// Its inputs.
    pub inputs: Inputs<'a, B>,
    /// Its outputs.
    pub outputs: Inputs<'a, B>,
    /// Gradients of its outputs; absent where an output has no part in the loss. At least one is there.
    pub doutputs: Inputs<'a, B>,
    /// Gradients of its inputs, to be set (`=`), every element; absent where none is wanted.
    pub dinputs: Outputs<'a, B>,
    /// Gradient of the weights.
    pub dparameters: &'a mut B::Buffer,
    /// Whether that is set (`=`) or added to (`+=`), as by the second use of a shared layer.
    pub grad: WeightGrad,
    /// Rows.
    pub batch: usize,
    /// The seed of the forward pass.
    pub seed: u64,
}

/// An operation with its derivative, built for one set of sample shapes.
pub trait Op<B: DenseBackend> {
    /// Outputs from inputs.
    ///
    /// # Errors
    ///
    /// Those of the backend.
    fn forward(&mut self, backend: &B, pass: Forward<'_, B>) -> Result<()>;

    /// Gradients of the inputs and of the weights, after a forward pass with `training` set.
    ///
    /// # Errors
    ///
    /// Those of the backend; [`Error::Presence`] without such a forward pass.
    fn backward(&mut self, backend: &B, pass: Backward<'_, B>) -> Result<()>;

    /// Forgets the state that a stateful operation carries from batch to batch.
    fn reset_states(&mut self) {}

    /// Whether a forward pass depends on those before it.
    fn is_stateful(&self) -> bool {
        false
    }

    /// Waits for the passes given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// Those of [`RecurrentBackend::check`](crate::backend::RecurrentBackend::check).
    fn check(&self, _backend: &B) -> Result<()> {
        Ok(())
    }
}
