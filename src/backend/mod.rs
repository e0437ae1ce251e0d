//! Implementations of the operator: the trait [`RecurrentBackend`] and its backends.
//!
//! The division of labour is cuDNN v8's: shapes are given once, to [`plan`](RecurrentBackend::plan); the plan says how much
//! temporary space a call needs; every buffer belongs to the caller. A backend allocates nothing that a caller could have
//! allocated, and owns nothing but what it needs to compute (threads, compiled kernels).
//!
//! | backend | for | elements |
//! |---|---|---|
//! | [`reference::ReferenceBackend`] | the oracle: plain loops, to be read and trusted | f32, f64 |
//! | [`cpu::CpuBackend`] | speed without a GPU | f32, f64 |
//! | `cuda` | NVIDIA GPUs (feature `cuda`); with the feature `emulated`, the same kernels on the host; with `ptx`, their PTX there | f32, f64, f16, bf16 |
//!
//! # Order of calls
//!
//! Inference is one call, [`forward`](RecurrentBackend::forward). Training is three, and the typed [`Reserve`] makes any
//! other order a compile error: [`forward_training`](RecurrentBackend::forward_training) turns an empty reserve into a filled
//! one, [`backward_data`](RecurrentBackend::backward_data) turns that into a differentiated one, and
//! [`backward_weights`](RecurrentBackend::backward_weights) needs the latter. `x`, `y`, `h0`, `c0` and the weights must not
//! change from forward to the last backward call.

pub mod call;
pub(crate) mod checkpoints;
#[cfg(any(feature = "model", feature = "cuda"))]
pub(crate) mod convert;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
#[cfg(feature = "model")]
pub mod device;
#[cfg(feature = "model")]
pub mod device_pass;
pub(crate) mod host;
#[cfg(feature = "model")]
mod host_ops;
pub mod longest;
#[cfg(feature = "model")]
pub mod ops;
pub mod pass;
pub mod reference;
pub mod reserve;
#[cfg(feature = "model")]
pub mod tensor;

pub use call::{BackwardDataArgs, BackwardWeightsArgs, Extent, ForwardArgs, Tensors};
#[cfg(feature = "model")]
pub use device::Device;
pub use host::{HostBackend, HostPlan};
#[cfg(feature = "model")]
pub(crate) use host_ops::plain::training::note_loss;
pub use longest::{Longest, longest};
#[cfg(feature = "model")]
pub use ops::Operations;
pub use reserve::{Differentiated, Empty, Filled, Reserve};
#[cfg(feature = "model")]
pub use tensor::{Tensor, TensorMut, TensorRef};

use std::borrow::BorrowMut;

use crate::dtype::Element;
use crate::error::Result;
use crate::rnn::{RnnDescriptor, RnnShape};

/// What a plan is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ForwardMode {
    /// Forward only; no dropout, no reserve.
    Inference,
    /// Forward with dropout and a reserve, then backward.
    Training,
}

/// Temporary space that a call needs, in elements of the backend's buffer type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TempSpace {
    /// Scratch of every call; its contents need not survive between calls.
    pub workspace: usize,
    /// What forward leaves for backward; zero for inference.
    pub reserve: usize,
}

/// What [`RecurrentBackend::backward_weights`] does with the gradients already in the buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WeightGrad {
    /// `dweights = gradient`
    Set,
    /// `dweights += gradient`
    Add,
}

/// Where the elements of a tensor stand: a slice on the host, or a device's memory.
pub trait Storage: 'static {
    /// What it holds.
    type Item;

    /// How many there are.
    fn elements(&self) -> usize;

    /// The elements themselves, where the host can read them; then backends check them before they run.
    fn on_host(&self) -> Option<&[Self::Item]>;
}

impl<E: 'static> Storage for [E] {
    type Item = E;

    fn elements(&self) -> usize {
        self.len()
    }

    fn on_host(&self) -> Option<&[E]> {
        Some(self)
    }
}

/// An implementation of the recurrent operator for one element type.
///
/// Every method checks its buffers' lengths and returns a typed error; none panics, and none falls back to something else
/// than the plan said.
pub trait RecurrentBackend: 'static {
    /// Element type.
    type Elem: Element;
    /// A tensor's storage: a slice on the host, device memory on a GPU.
    type Buffer: Storage<Item = Self::Elem> + ?Sized;
    /// Storage of the lengths.
    type Lengths: Storage<Item = u32> + ?Sized;
    /// Storage of the reset mask.
    type Mask: Storage<Item = u8> + ?Sized;
    /// What [`plan`](Self::plan) decided.
    type Plan: Send + Sync + 'static;

    /// Short name, as on the command line.
    fn name(&self) -> &'static str;

    /// Decides how to compute `descriptor` for `shape`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`](crate::Error::ZeroSize), [`Error::SizeOverflow`](crate::Error::SizeOverflow),
    /// [`Error::InvalidOption`](crate::Error::InvalidOption), [`Error::Unsupported`](crate::Error::Unsupported).
    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Self::Plan>;

    /// Temporary space that calls under `plan` need.
    fn temp_space(&self, plan: &Self::Plan) -> TempSpace;

    /// Inference: `y`, `hn`, `cn` from `x`, without dropout.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) for a buffer of the wrong length, [`Error::SequenceLength`](crate::Error::SequenceLength) for
    /// a length outside `1..=T` that the host can read, [`Error::Presence`](crate::Error::Presence) for a state that the cell has not,
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a plan for training; [`Error::Driver`](crate::Error::Driver) where the
    /// GPU's driver fails.
    fn forward(&self, plan: &Self::Plan, args: ForwardArgs<'_, Self>) -> Result<()>;

    /// Training forward: the same with dropout, and fills the reserve.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) for a buffer of the wrong length or a reserve too small,
    /// [`Error::SequenceLength`](crate::Error::SequenceLength) for a length outside `1..=T` that the host can read,
    /// [`Error::Presence`](crate::Error::Presence) for a state that the cell has not, [`Error::InvalidOption`](crate::Error::InvalidOption)
    /// for a plan for inference; [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails.
    fn forward_training<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &Self::Plan,
        args: ForwardArgs<'_, Self>,
        reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>>;

    /// Gradients of `x`, `h0`, `c0` from those of `y`, `hn`, `cn`; leaves the gates' gradients in the reserve.
    ///
    /// # Errors
    ///
    /// [`Error::ReserveMismatch`](crate::Error::ReserveMismatch) for a reserve that another plan filled;
    /// [`Error::Shape`](crate::Error::Shape) for a buffer of the wrong length, [`Error::SequenceLength`](crate::Error::SequenceLength) for
    /// a length outside `1..=T` that the host can read, [`Error::Presence`](crate::Error::Presence) for a state that the cell has not,
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a plan for inference; [`Error::Driver`](crate::Error::Driver) where the
    /// GPU's driver fails.
    fn backward_data<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &Self::Plan,
        args: BackwardDataArgs<'_, Self>,
        reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>>;

    /// Gradients of the weights. The reserve stays, so that it can be used again or [released](Reserve::release).
    ///
    /// # Errors
    ///
    /// [`Error::ReserveMismatch`](crate::Error::ReserveMismatch) for a reserve that another plan filled;
    /// [`Error::Shape`](crate::Error::Shape) for a buffer of the wrong length, [`Error::SequenceLength`](crate::Error::SequenceLength) for
    /// a length outside `1..=T` that the host can read, [`Error::Presence`](crate::Error::Presence) for a state that the cell has not,
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a plan for inference; [`Error::Driver`](crate::Error::Driver) where the
    /// GPU's driver fails.
    fn backward_weights<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &Self::Plan,
        args: BackwardWeightsArgs<'_, Self>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()>;

    /// Waits for the passes given so far under `plan`, and says whether they have ended as they should. A backend whose calls
    /// return when they are done has nothing to add to what they said.
    ///
    /// # Errors
    ///
    /// [`Error::KernelFault`](crate::Error::KernelFault) where a kernel gave up, whose results are then garbage;
    /// [`Error::Driver`](crate::Error::Driver) where the GPU's driver fails, or reports a fault of earlier work.
    fn check(&self, _plan: &Self::Plan) -> Result<()> {
        Ok(())
    }
}
