//! What layers are made of: [`Op`], one operation with its derivative.
//!
//! A layer does not compute. It puts operations into a [`Builder`](crate::nn::Builder), which a network then
//! runs: forwards in their order, backwards in the opposite one. Operations keep plans and scratch space from call to call; values,
//! gradients and weights belong to the network and stand where the device computes.

use std::any::Any;

use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};

/// Most inputs of an operation.
pub const MOST_INPUTS: usize = 5;
/// Most outputs of an operation.
pub const MOST_OUTPUTS: usize = 3;

fn absent(number: usize) -> Error {
    Error::Presence { tensor: format!("tensor {number} of an operation"), problem: "it is not there".to_owned() }
}

/// Tensors that an operation reads, by number. One may be absent.
#[derive(Clone, Copy)]
pub struct Inputs<'a>(pub(super) [Option<TensorRef<'a>>; MOST_INPUTS]);

impl<'a> Inputs<'a> {
    pub(super) fn none() -> Self {
        Inputs([None; MOST_INPUTS])
    }

    /// Tensor `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where it is absent.
    pub fn get(&self, number: usize) -> Result<TensorRef<'a>> {
        self.optional(number).ok_or_else(|| absent(number))
    }

    /// Tensor `number`, if it is there.
    pub fn optional(&self, number: usize) -> Option<TensorRef<'a>> {
        *self.0.get(number)?
    }
}

/// Tensors that an operation writes, by number. One may be absent.
pub struct Outputs<'a>(pub(super) [Option<TensorMut<'a>>; MOST_INPUTS]);

impl<'a> Outputs<'a> {
    pub(super) fn none() -> Self {
        Outputs([const { None }; MOST_INPUTS])
    }

    /// Tensor `number`.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where it is absent.
    pub fn get(&mut self, number: usize) -> Result<TensorMut<'_>> {
        self.optional(number).ok_or_else(|| absent(number))
    }

    /// Tensor `number`, if it is there.
    pub fn optional(&mut self, number: usize) -> Option<TensorMut<'_>> {
        Some(self.0.get_mut(number)?.as_mut()?.reborrow())
    }

    /// All of them at once.
    pub fn each(&mut self) -> [Option<TensorMut<'_>>; MOST_INPUTS] {
        self.0.each_mut().map(|tensor| tensor.as_mut().map(TensorMut::reborrow))
    }
}

/// What an operation's forward pass reads and writes, where the device has its tensors.
pub struct Forward<'a> {
    /// Weights of the operation: the range it was built with.
    pub parameters: TensorRef<'a>,
    /// Another number whenever weights of the model have changed.
    pub version: u64,
    /// What it keeps apart from weights that are trained, such as moving averages.
    pub statistics: TensorMut<'a>,
    /// Its inputs, `[batch, sample shape…]` each.
    pub inputs: Inputs<'a>,
    /// Its outputs, likewise, every element to be written.
    pub outputs: Outputs<'a>,
    /// Rows: samples, or steps of all samples inside of a layer that goes through time.
    pub batch: usize,
    /// Whether this is a step of training: dropout drops, normalisation uses the batch, and [`Op::backward`] follows.
    pub training: bool,
    /// What is random comes from this and from the [number](crate::nn::Builder::op_number) of the operation; another for every step.
    pub seed: u64,
}

/// What an operation's backward pass reads and writes. All but the gradients is as in the forward pass before it.
pub struct Backward<'a> {
    /// Weights of the operation.
    pub parameters: TensorRef<'a>,
    /// What it keeps apart from them.
    pub statistics: TensorRef<'a>,
    /// Its inputs.
    pub inputs: Inputs<'a>,
    /// Its outputs.
    pub outputs: Inputs<'a>,
    /// Gradients of its outputs; absent where an output has no part in the loss. At least one is there.
    pub doutputs: Inputs<'a>,
    /// Gradients of its inputs, to be set (`=`), every element; absent where none is wanted.
    pub dinputs: Outputs<'a>,
    /// Gradient of the weights.
    pub dparameters: TensorMut<'a>,
    /// Whether that is set (`=`) or added to (`+=`), as by the second use of a shared layer.
    pub grad: WeightGrad,
    /// Rows.
    pub batch: usize,
    /// The seed of the forward pass.
    pub seed: u64,
}

/// What a stateful operation carries from batch to batch, on its way to the same operation for sequences of another length: of a type that
/// the operation knows.
pub type States = Box<dyn Any + Send>;

/// An operation with its derivative, built for one set of sample shapes.
pub trait Op: Send {
    /// Outputs from inputs.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    fn forward(&mut self, device: &Device, pass: Forward<'_>) -> Result<()>;

    /// Gradients of the inputs and of the weights, after a forward pass with `training` set.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] without such a forward pass; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] where the GPU's driver fails.
    fn backward(&mut self, device: &Device, pass: Backward<'_>) -> Result<()>;

    /// The input whose gradient is that of the only output as it is; none. Where [`backward`](Self::backward) would set that gradient, the network hands
    /// the tensor on instead and asks for no gradient of this input.
    fn passes_on(&self) -> Option<usize> {
        None
    }

    /// Forgets the state that a stateful operation carries from batch to batch.
    fn reset_states(&mut self) {}

    /// Whether a forward pass depends on those before it.
    fn is_stateful(&self) -> bool {
        false
    }

    /// Rows of the batch whose state a stateful operation carries; none before the first, and after
    /// [`reset_states`](Self::reset_states).
    fn carried_batch(&self) -> Option<usize> {
        None
    }

    /// Hands over the state that it carries, and has none then; none where it carries none.
    fn take_states(&mut self) -> Option<States> {
        None
    }

    /// Goes on from the state of the same operation for sequences of another length, which [`take_states`](Self::take_states) gave.
    fn give_states(&mut self, _states: States) {}

    /// The state that it carries as tensors, for a checkpoint of training ([`BackupAndRestore`](crate::model::BackupAndRestore)): an empty list
    /// where it carries none yet. `None` says that the operation cannot tell; a stateful one is then refused where checkpoints are asked for.
    fn carried_states(&self) -> Option<Vec<TensorRef<'_>>> {
        None
    }

    /// Goes on from the state of `rows` rows that [`carried_states`](Self::carried_states) has told, in the host's memory.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for tensors that are not its own; [`Error::Unsupported`] where it cannot, or memory is short, [`Error::Driver`] where the
    /// GPU's driver fails.
    fn carry_states(&mut self, _device: &Device, _rows: usize, _states: &[TensorRef<'_>]) -> Result<()> {
        Err(Error::unsupported("an operation of your own that goes on from a checkpoint", "give it Op::carry_states"))
    }

    /// Waits for the passes given so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// [`Error::KernelFault`] where a kernel gave up, whose results are then garbage; [`Error::Driver`] where the GPU's driver fails, or
    /// reports a fault of earlier work.
    fn check(&self, _device: &Device) -> Result<()> {
        Ok(())
    }
}
