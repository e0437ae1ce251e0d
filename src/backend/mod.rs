//! Who computes the operator: [`RecurrentBackend`] and its implementations.
//!
//! The division of labour is cuDNN v8's: shapes are given once, to [`plan`](RecurrentBackend::plan); the plan says how much
//! temporary space a call needs; every buffer belongs to the caller. A backend allocates nothing that a caller could have
//! allocated, and owns nothing but what it needs to compute (threads, compiled kernels).
//!
//! | backend | for | elements |
//! |---|---|---|
//! | [`reference::ReferenceBackend`] | the oracle: plain loops, to be read and trusted | f32, f64 |
//! | [`cpu::CpuBackend`] | speed without a GPU | f32, f64 |
//! | `cuda` | NVIDIA GPUs (feature `cuda`); with the feature `emulated`, the same kernels on the host | f32, f64, f16, bf16 |
//!
//! # Order of calls
//!
//! Inference is one call, [`forward`](RecurrentBackend::forward). Training is three, and the typed [`Reserve`] makes any
//! other order a compile error: [`forward_training`](RecurrentBackend::forward_training) turns an empty reserve into a filled
//! one, [`backward_data`](RecurrentBackend::backward_data) turns that into a differentiated one, and
//! [`backward_weights`](RecurrentBackend::backward_weights) needs the latter. `x`, `y`, `h0`, `c0` and the weights must not
//! change from forward to the last backward call.

pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod dense;
pub(crate) mod host;
pub mod pass;
pub mod reference;
pub mod reserve;
pub mod tensor;

pub use dense::{DenseBackend, Memory};
pub use host::{HostBackend, HostPlan};
pub use reserve::{Differentiated, Empty, Filled, Reserve};
pub use tensor::TensorBackend;

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

/// Buffers of a forward call. Shapes are those of [`TensorShapes`](crate::rnn::TensorShapes); no two may overlap.
pub struct ForwardArgs<'a, B: RecurrentBackend + ?Sized> {
    /// All weights, as [`WeightLayout`](crate::rnn::WeightLayout) says.
    pub weights: &'a B::Buffer,
    /// Input, read.
    pub x: &'a B::Buffer,
    /// Initial output state; absent means zeros.
    pub h0: Option<&'a B::Buffer>,
    /// Initial cell state, LSTM only; absent means zeros.
    pub c0: Option<&'a B::Buffer>,
    /// Valid steps of each sequence, `[B]`, each in `1..=T`; absent means `T`.
    pub lengths: Option<&'a B::Lengths>,
    /// Resets, `[T, B]`, non-zero where the state is re-initialised before the step; absent means nowhere.
    pub resets: Option<&'a B::Mask>,
    /// Output, every element written.
    pub y: &'a mut B::Buffer,
    /// Final output state, every element written; absent if not wanted.
    pub hn: Option<&'a mut B::Buffer>,
    /// Final cell state, LSTM only.
    pub cn: Option<&'a mut B::Buffer>,
    /// Scratch of [`TempSpace::workspace`] elements.
    pub workspace: &'a mut B::Buffer,
    /// Seed of the dropout masks; unused in inference. Use another one every training step.
    pub dropout_seed: u64,
}

/// Buffers of [`RecurrentBackend::backward_data`]. Inputs are those of the forward call, unchanged.
pub struct BackwardDataArgs<'a, B: RecurrentBackend + ?Sized> {
    /// All weights.
    pub weights: &'a B::Buffer,
    /// Output of the forward call.
    pub y: &'a B::Buffer,
    /// As given to forward.
    pub h0: Option<&'a B::Buffer>,
    /// As given to forward.
    pub c0: Option<&'a B::Buffer>,
    /// As given to forward.
    pub lengths: Option<&'a B::Lengths>,
    /// As given to forward.
    pub resets: Option<&'a B::Mask>,
    /// Gradient of `y`; absent means zeros. What it holds at padded steps counts only under
    /// [`PaddedOutput::Hold`](crate::rnn::PaddedOutput::Hold), where those outputs repeat a valid one.
    pub dy: Option<&'a B::Buffer>,
    /// Gradient of `hn`; absent means zeros.
    pub dhn: Option<&'a B::Buffer>,
    /// Gradient of `cn`, LSTM only; absent means zeros.
    pub dcn: Option<&'a B::Buffer>,
    /// Gradient of `x`, set (`=`), zero at padded steps.
    pub dx: Option<&'a mut B::Buffer>,
    /// Gradient of `h0`, set (`=`). May be asked for even where `h0` was absent.
    pub dh0: Option<&'a mut B::Buffer>,
    /// Gradient of `c0`, set (`=`), LSTM only.
    pub dc0: Option<&'a mut B::Buffer>,
    /// Scratch of [`TempSpace::workspace`] elements.
    pub workspace: &'a mut B::Buffer,
}

/// Buffers of [`RecurrentBackend::backward_weights`]. Inputs are those of the forward call, unchanged.
pub struct BackwardWeightsArgs<'a, B: RecurrentBackend + ?Sized> {
    /// Input of the forward call.
    pub x: &'a B::Buffer,
    /// Output of the forward call.
    pub y: &'a B::Buffer,
    /// As given to forward.
    pub h0: Option<&'a B::Buffer>,
    /// As given to forward. Peepholes read it.
    pub c0: Option<&'a B::Buffer>,
    /// As given to forward.
    pub lengths: Option<&'a B::Lengths>,
    /// As given to forward.
    pub resets: Option<&'a B::Mask>,
    /// Gradient of the weights, laid out as the weights; set or added to, as [`WeightGrad`] says.
    pub dweights: &'a mut B::Buffer,
    /// Scratch of [`TempSpace::workspace`] elements.
    pub workspace: &'a mut B::Buffer,
}

/// Where the elements of a tensor stand: a slice on the host, or a device's memory.
pub trait Storage<E> {
    /// How many there are.
    fn elements(&self) -> usize;

    /// The elements themselves, where the host can read them; then backends check them before they run.
    fn on_host(&self) -> Option<&[E]>;
}

impl<E> Storage<E> for [E] {
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
pub trait RecurrentBackend {
    /// Element type.
    type Elem: Element;
    /// A tensor's storage: a slice on the host, device memory on a GPU.
    type Buffer: Storage<Self::Elem> + ?Sized;
    /// Storage of the lengths.
    type Lengths: Storage<u32> + ?Sized;
    /// Storage of the reset mask.
    type Mask: Storage<u8> + ?Sized;
    /// What [`plan`](Self::plan) decided.
    type Plan;

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
    /// A buffer of the wrong length, a length outside `1..=T`, or a tensor that the cell has not.
    fn forward(&self, plan: &Self::Plan, args: ForwardArgs<'_, Self>) -> Result<()>;

    /// Training forward: the same with dropout, and fills the reserve.
    ///
    /// # Errors
    ///
    /// Those of [`forward`](Self::forward), a reserve too small, or a plan for inference.
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
    /// A buffer of the wrong length, or [`Error::ReserveMismatch`](crate::Error::ReserveMismatch).
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
    /// Those of [`backward_data`](Self::backward_data).
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
    /// [`Error::KernelFault`](crate::Error::KernelFault) where a kernel gave up, whose results are then garbage; those of the
    /// device.
    fn check(&self, _plan: &Self::Plan) -> Result<()> {
        Ok(())
    }
}
