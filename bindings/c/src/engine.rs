//! Backends and plans without their element types: what a handle of the C interface stands for.

use std::sync::Arc;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::{ForwardMode, WeightGrad};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, TensorShapes, WeightLayout};

use crate::cpu::CpuEngine;
use crate::descriptor::{Dtype, Rounding};
use crate::memory::{In, Out};
use crate::reserve::{Reserve, Stage, State};
use crate::status::{Failure, Result, Status};
use crate::weights::{Gradients, Weights};

/// A forward call by addresses.
#[derive(Clone, Copy, Debug)]
pub struct Forward {
    /// All weights.
    pub weights: Weights,
    /// Input.
    pub x: In,
    /// Initial output state.
    pub h0: In,
    /// Initial states beside h.
    pub c0: In,
    /// Lengths, `uint32_t`.
    pub lengths: In,
    /// Resets, `uint8_t`.
    pub resets: In,
    /// Output.
    pub y: Out,
    /// Final output state.
    pub hn: Out,
    /// Final states beside h.
    pub cn: Out,
    /// Scratch.
    pub workspace: Out,
    /// Seed of the dropout masks.
    pub dropout_seed: u64,
    /// CUDA: the stream.
    pub stream: u64,
}

/// The backward calls by addresses.
#[derive(Clone, Copy, Debug)]
pub struct Backward {
    /// All weights.
    pub weights: Weights,
    /// Input of the forward call.
    pub x: In,
    /// Output of the forward call.
    pub y: In,
    /// As given to forward.
    pub h0: In,
    /// As given to forward.
    pub c0: In,
    /// As given to forward.
    pub lengths: In,
    /// As given to forward.
    pub resets: In,
    /// Gradient of `y`.
    pub dy: In,
    /// Gradient of `hn`.
    pub dhn: In,
    /// Gradient of `cn`.
    pub dcn: In,
    /// Gradient of `x`.
    pub dx: Out,
    /// Gradient of `h0`.
    pub dh0: Out,
    /// Gradient of `c0`.
    pub dc0: Out,
    /// Gradient of the weights.
    pub dweights: Gradients,
    /// Scratch.
    pub workspace: Out,
    /// CUDA: the stream.
    pub stream: u64,
}

/// Elements of workspace and reserve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Space {
    /// Scratch of a call.
    pub workspace: usize,
    /// What forward leaves for backward.
    pub reserve: usize,
}

/// A plan of one backend and element type.
///
/// # Safety
///
/// Of the calls: every address that is given must be valid for its length on the plan's device, until the call is done.
pub(crate) trait Engine: Send + Sync {
    /// Elements of workspace and reserve.
    fn space(&self) -> Space;
    /// A mark of what decides the reserve's contents.
    fn fingerprint(&self) -> u64;
    /// Forward, with the reserve's storage in training.
    unsafe fn forward(&self, layout: &WeightLayout, call: &Forward, reserve: Option<Out>) -> Result<()>;
    /// Gradients of the data.
    unsafe fn backward_data(&self, layout: &WeightLayout, call: &Backward, reserve: &State) -> Result<()>;
    /// Gradients of the weights.
    unsafe fn backward_weights(
        &self,
        layout: &WeightLayout,
        call: &Backward,
        reserve: &State,
        grad: WeightGrad,
    ) -> Result<()>;
    /// The same plan with its weights.
    unsafe fn with_weights(&self, layout: &WeightLayout, weights: Weights, stream: u64) -> Result<Box<dyn Engine>>;
    /// Waits for the calls so far.
    fn check(&self, stream: u64) -> Result<()>;
}

/// Where plans run.
pub struct Backend {
    place: Place,
}

enum Place {
    Cpu {
        single: Arc<CpuBackend<f32>>,
        double: Arc<CpuBackend<f64>>,
    },
    #[cfg(feature = "cuda")]
    Cuda(crate::cuda::Gpu<fused_rnn::backend::cuda::driver::Driver>),
    #[cfg(feature = "emulated")]
    Emulated(crate::cuda::Gpu<fused_rnn::backend::cuda::emulated::Emulated>),
}

impl Backend {
    /// The CPU with so many threads; 0 for as many as the machine runs at once. They start with the first problem worth them.
    ///
    /// # Errors
    ///
    /// [`Status::InvalidOption`] for more than 65535.
    pub fn cpu(threads: usize) -> Result<Self> {
        let (single, double) = match threads {
            0 => (CpuBackend::new(), CpuBackend::new()),
            _ => (CpuBackend::with_threads(threads)?, CpuBackend::with_threads(threads)?),
        };
        Ok(Backend { place: Place::Cpu { single: Arc::new(single), double: Arc::new(double) } })
    }

    /// GPU number `ordinal`.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupported`] where there is none, or this build has no CUDA; [`Status::InvalidOption`] for a number that no GPU has;
    /// [`Status::Driver`] where the driver refuses.
    pub fn cuda(ordinal: usize, compute: Rounding) -> Result<Self> {
        #[cfg(feature = "cuda")]
        {
            let place = Place::Cuda(crate::cuda::open(ordinal, compute)?);
            Ok(Backend { place })
        }
        #[cfg(not(feature = "cuda"))]
        {
            let _ = (ordinal, compute);
            let problem = "CUDA is not supported: this build has not the feature; build it with --features cuda";
            Err(Failure::new(Status::Unsupported, problem))
        }
    }

    /// The kernels on the host's emulation of a GPU, for tests.
    ///
    /// # Errors
    ///
    /// Where the emulation cannot start.
    #[cfg(feature = "emulated")]
    pub fn emulated() -> Result<(Self, Arc<fused_rnn::backend::cuda::emulated::Emulated>)> {
        let gpu = crate::cuda::emulated()?;
        let device = gpu.device();
        Ok((Backend { place: Place::Emulated(gpu) }, device))
    }

    fn engine(
        &self,
        operator: &RnnDescriptor,
        dtype: Dtype,
        shape: RnnShape,
        mode: ForwardMode,
        stream: u64,
    ) -> Result<Box<dyn Engine>> {
        let _ = stream;
        match &self.place {
            Place::Cpu { single, double } => match dtype {
                Dtype::F32 => CpuEngine::boxed(single, operator, shape, mode),
                Dtype::F64 => CpuEngine::boxed(double, operator, shape, mode),
                _ => Err(Failure::new(
                    Status::Unsupported,
                    "elements of 16 bits on the CPU are not supported: it computes in f32 and f64; convert them, or use CUDA",
                )),
            },
            #[cfg(feature = "cuda")]
            Place::Cuda(gpu) => gpu.engine(operator, dtype, shape, mode, stream),
            #[cfg(feature = "emulated")]
            Place::Emulated(gpu) => gpu.engine(operator, dtype, shape, mode, stream),
        }
    }

    fn is_cpu(&self) -> bool {
        matches!(self.place, Place::Cpu { .. })
    }
}

/// A plan: an operator for a shape, an element type and a mode on a backend.
pub struct Plan {
    engine: Box<dyn Engine>,
    on_cpu: bool,
    element: usize,
    layout: Arc<WeightLayout>,
    tensors: TensorShapes,
    shape: RnnShape,
    mode: ForwardMode,
}

impl Plan {
    /// Decides how to compute `operator`. A GPU loads kernels in the order of `stream`.
    ///
    /// # Errors
    ///
    /// As [`RecurrentBackend::plan`](fused_rnn::backend::RecurrentBackend::plan) says; [`Status::Unsupported`] for an element type that the
    /// backend has not.
    pub fn new(
        backend: &Backend,
        operator: &RnnDescriptor,
        dtype: Dtype,
        shape: RnnShape,
        mode: ForwardMode,
        stream: u64,
    ) -> Result<Self> {
        let engine = backend.engine(operator, dtype, shape, mode, stream)?;
        let element = match dtype {
            Dtype::F32 => 4,
            Dtype::F64 => 8,
            Dtype::F16 | Dtype::Bf16 => 2,
        };
        let (layout, tensors) = (Arc::new(WeightLayout::new(operator)?), shape.tensors(operator)?);
        Ok(Plan { engine, on_cpu: backend.is_cpu(), element, layout, tensors, shape, mode })
    }

    /// The same plan with its weights, which are packed once.
    ///
    /// # Errors
    ///
    /// As [`CpuBackend::with_weights`] says; [`Status::Unsupported`] on a GPU.
    ///
    /// # Safety
    ///
    /// The weights' addresses must be valid for their lengths.
    pub unsafe fn with_weights(&self, weights: Weights, stream: u64) -> Result<Self> {
        // SAFETY: the caller's promise.
        let engine = unsafe { self.engine.with_weights(&self.layout, weights, stream) }?;
        let (layout, tensors) = (self.layout.clone(), self.tensors.clone());
        let Plan { on_cpu, element, shape, mode, .. } = *self;
        Ok(Plan { engine, on_cpu, element, layout, tensors, shape, mode })
    }

    pub(crate) fn fingerprint(&self) -> u64 {
        self.engine.fingerprint()
    }

    /// Elements of workspace and reserve.
    pub fn space(&self) -> Space {
        self.engine.space()
    }

    /// Bytes of an element.
    pub fn element(&self) -> usize {
        self.element
    }

    /// Layout of the weights.
    pub fn weights(&self) -> &WeightLayout {
        &self.layout
    }

    /// Shapes of all tensors.
    pub fn tensors(&self) -> &TensorShapes {
        &self.tensors
    }

    /// Sizes.
    pub fn shape(&self) -> RnnShape {
        self.shape
    }

    /// What it is for.
    pub fn mode(&self) -> ForwardMode {
        self.mode
    }

    /// A reserve in memory of its own, on the CPU.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupported`] on a GPU, or where memory is short.
    pub fn reserve(&self) -> Result<Reserve> {
        if !self.on_cpu {
            let problem = "a reserve in memory of the library on a GPU is not supported: give memory of the device";
            return Err(Failure::new(Status::Unsupported, problem));
        }
        Reserve::new(self.space().reserve * self.element, self.element)
    }

    /// Inference.
    ///
    /// # Errors
    ///
    /// As [`RecurrentBackend::forward`](fused_rnn::backend::RecurrentBackend::forward) says, and for addresses.
    ///
    /// # Safety
    ///
    /// Every address must be valid on the plan's device for its length, until the call is done: on the CPU when it returns, on a GPU when
    /// the stream has come to it. Nothing else may write there meanwhile.
    pub unsafe fn forward(&self, call: &Forward) -> Result<()> {
        // SAFETY: the caller's promise.
        unsafe { self.engine.forward(&self.layout, call, None) }
    }

    /// Training forward: fills the reserve, whatever was in it.
    ///
    /// # Errors
    ///
    /// As [`RecurrentBackend::forward_training`](fused_rnn::backend::RecurrentBackend::forward_training) says, and for addresses. The
    /// reserve is empty then.
    ///
    /// # Safety
    ///
    /// As for [`forward`](Self::forward); the reserve's memory too.
    pub unsafe fn forward_training(&self, call: &Forward, reserve: &Reserve) -> Result<()> {
        reserve.with_state(|state| {
            state.stage = Stage::Empty;
            // SAFETY: the caller's promise.
            unsafe { self.engine.forward(&self.layout, call, Some(state.storage)) }?;
            (state.stage, state.plan, state.seed) = (Stage::Filled, self.engine.fingerprint(), call.dropout_seed);
            Ok(())
        })
    }

    /// Gradients of the data. Uses the reserve up: a second time over the same forward is an error.
    ///
    /// # Errors
    ///
    /// [`Status::ReserveStage`], [`Status::ReserveMismatch`]; as
    /// [`RecurrentBackend::backward_data`](fused_rnn::backend::RecurrentBackend::backward_data) says, and for addresses.
    ///
    /// # Safety
    ///
    /// As for [`forward_training`](Self::forward_training); inputs and weights are those of the forward call, unchanged.
    pub unsafe fn backward_data(&self, call: &Backward, reserve: &Reserve) -> Result<()> {
        reserve.with_state(|state| {
            state.check(self.engine.fingerprint(), Stage::Filled)?;
            // A call that ends in the middle leaves it used up.
            state.stage = Stage::Empty;
            // SAFETY: the caller's promise.
            let done = unsafe { self.engine.backward_data(&self.layout, call, state) };
            state.stage = match &done {
                Ok(()) => Stage::Differentiated,
                Err(failure) if matches!(failure.status, Status::Driver | Status::KernelFault) => Stage::Empty,
                Err(_) => Stage::Filled,
            };
            done
        })
    }

    /// Gradients of the weights, set or added to.
    ///
    /// # Errors
    ///
    /// [`Status::ReserveStage`], [`Status::ReserveMismatch`]; as
    /// [`RecurrentBackend::backward_weights`](fused_rnn::backend::RecurrentBackend::backward_weights) says, and for addresses.
    ///
    /// # Safety
    ///
    /// As for [`backward_data`](Self::backward_data).
    pub unsafe fn backward_weights(&self, call: &Backward, reserve: &Reserve, grad: WeightGrad) -> Result<()> {
        reserve.with_state(|state| {
            state.check(self.engine.fingerprint(), Stage::Differentiated)?;
            // SAFETY: the caller's promise.
            unsafe { self.engine.backward_weights(&self.layout, call, state, grad) }
        })
    }

    /// Waits for the calls so far, and says whether they have ended as they should.
    ///
    /// # Errors
    ///
    /// [`Status::KernelFault`], [`Status::Driver`].
    pub fn check(&self, stream: u64) -> Result<()> {
        self.engine.check(stream)
    }
}
