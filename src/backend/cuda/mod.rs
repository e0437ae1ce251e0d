//! The CUDA backend: the operator on an NVIDIA GPU, on the caller's stream and in the caller's memory.
//!
//! ```text
//! plan      what runs for an operator of given sizes: kernels, geometry, places in workspace and reserve (`space`)
//! walk      which family of kernels walks through time, and why
//! engine    a pass as launches
//! params    the kernels' parameter structs
//! mixed     passes on f32 that compute in 16 bits
//! dense     what training a model on the device needs besides
//! device    what all that needs of a machine: the GPU behind its driver (`driver`), the host's emulation of one (`emulated`),
//!           one on paper that plans are made for (`paper`)
//! images    the compiled kernels (`compile`, `nvrtc`): embedded by build.rs, or compiled at first use
//! ```
//!
//! [`CudaBackend`] is the backend on device memory; [`Staged`] is the same on slices of the host, which it copies back and forth.
//! Forward and backward allocate nothing, wait for nothing and load nothing: they give launches to the stream and return, and
//! may be captured into a CUDA graph. Kernels stand in `kernels/`, with their mathematics in their headers.
//!
//! Lengths on a device cannot be checked before a call. One beyond `seq_len` counts as `seq_len`; a sequence of length zero leaves
//! its state as it was. Through [`Staged`] both are errors, as on every backend.

pub mod catalog;
pub mod compile;
pub mod device;
pub mod driver;
#[cfg(feature = "emulated")]
pub mod emulated;
pub mod images;
pub mod nvrtc;
pub mod paper;

mod dense;
mod engine;
mod memory;
mod mixed;
mod params;
mod pass;
mod plan;
mod space;
mod staged;
mod tensor;
mod walk;

pub use dense::{DeviceView, DeviceViewMut};
pub use engine::{RawBackwardData, RawBackwardWeights, RawForward};
pub use memory::DeviceBuffer;
pub use mixed::Compute;
pub use pass::DevicePass;
pub use plan::{CudaOptions, CudaPlan, PersistentReport, WalkReport};
pub use staged::Staged;
pub use walk::{Family, FamilyChoice};

use std::borrow::BorrowMut;
use std::fmt;
use std::marker::PhantomData;
use std::sync::{Arc, OnceLock};

use crate::backend::host::check_at_least;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, RecurrentBackend,
    Reserve, TempSpace, WeightGrad,
};
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::rnn::{RnnDescriptor, RnnShape};
use device::{Device, DevicePtr};
use engine::Engine;

/// Workspace and reserve must begin at a multiple of this many bytes.
const SPACE_ALIGNMENT: u64 = 16;

/// The operator on a device, on one stream. Cheap to clone; [`on_stream`](Self::on_stream) gives one for another stream.
pub struct CudaBackend<E, D: Device> {
    device: Arc<D>,
    stream: D::Stream,
    options: CudaOptions,
    /// Kernels of the dense operations, once they are needed.
    dense: Arc<OnceLock<dense::DenseKernels<D>>>,
    /// The same of the tensor operations.
    tensor: Arc<OnceLock<tensor::TensorKernels<D>>>,
    element: PhantomData<E>,
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    /// The backend on a device and a stream of its.
    pub fn with_options(device: Arc<D>, stream: D::Stream, options: CudaOptions) -> Self {
        CudaBackend { device, stream, options, dense: Arc::default(), tensor: Arc::default(), element: PhantomData }
    }

    /// The same on another stream of the same device.
    pub fn on_stream(&self, stream: D::Stream) -> Self {
        CudaBackend {
            device: self.device.clone(),
            stream,
            options: self.options.clone(),
            dense: self.dense.clone(),
            tensor: self.tensor.clone(),
            element: PhantomData,
        }
    }

    /// The device.
    pub fn device(&self) -> &Arc<D> {
        &self.device
    }

    /// The stream that work is given to.
    pub fn stream(&self) -> &D::Stream {
        &self.stream
    }

    /// How it computes.
    pub fn options(&self) -> &CudaOptions {
        &self.options
    }

    fn engine<'a>(&'a self, plan: &'a CudaPlan<D>) -> Engine<'a, D> {
        Engine { device: &self.device, stream: &self.stream, plan }
    }

    /// Inference or training forward on raw memory: in training, `args.reserve` is filled.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] for a null pointer where a tensor is needed, [`Error::Shape`] for a workspace or reserve that is
    /// not aligned to 16 bytes; those of the device.
    ///
    /// # Safety
    ///
    /// Every pointer that is not null must be valid on the device until the stream has done the call: for the sizes of
    /// [`ForwardArgs`] under `plan`, aligned to the element, and with `workspace` and `reserve` as large as
    /// [`temp_space`](RecurrentBackend::temp_space) says. No two may overlap; nothing else may write them meanwhile.
    #[allow(unsafe_code)]
    pub unsafe fn forward_raw(&self, plan: &CudaPlan<D>, args: &RawForward) -> Result<()> {
        for (tensor, pointer) in [("weights", args.weights), ("x", args.x), ("y", args.y)] {
            check_present(tensor, pointer)?;
        }
        self.check_spaces(plan, args.workspace, args.reserve)?;
        self.engine(plan).forward(args)
    }

    /// Backward-data on raw memory.
    ///
    /// # Errors
    ///
    /// Those of [`forward_raw`](Self::forward_raw), and a plan for inference.
    ///
    /// # Safety
    ///
    /// As for [`forward_raw`](Self::forward_raw), for the sizes of [`BackwardDataArgs`]; `args.reserve` must be one that
    /// forward filled under this plan, with the same weights, `h0`, `c0`, lengths, resets and seed.
    #[allow(unsafe_code)]
    pub unsafe fn backward_data_raw(&self, plan: &CudaPlan<D>, args: &RawBackwardData) -> Result<()> {
        check_present("weights", args.weights)?;
        self.check_spaces(plan, args.workspace, args.reserve)?;
        self.engine(plan).backward_data(args)
    }

    /// Backward-weights on raw memory.
    ///
    /// # Errors
    ///
    /// Those of [`backward_data_raw`](Self::backward_data_raw).
    ///
    /// # Safety
    ///
    /// As for [`backward_data_raw`](Self::backward_data_raw), for the sizes of [`BackwardWeightsArgs`]; `args.reserve` must
    /// have been through backward-data.
    #[allow(unsafe_code)]
    pub unsafe fn backward_weights_raw(
        &self,
        plan: &CudaPlan<D>,
        args: &RawBackwardWeights,
        grad: WeightGrad,
    ) -> Result<()> {
        for (tensor, pointer) in [("x", args.x), ("dweights", args.dweights)] {
            check_present(tensor, pointer)?;
        }
        self.check_spaces(plan, args.workspace, args.reserve)?;
        self.engine(plan).backward_weights(args, grad)
    }

    fn check_spaces(&self, plan: &CudaPlan<D>, workspace: DevicePtr, reserve: DevicePtr) -> Result<()> {
        for (tensor, pointer, elements) in
            [("workspace", workspace, plan.temp_space.workspace), ("reserve", reserve, plan.temp_space.reserve)]
        {
            if elements > 0 {
                check_present(tensor, pointer)?;
            }
            check_alignment(tensor, pointer)?;
        }
        Ok(())
    }
}

fn check_alignment(tensor: &str, pointer: DevicePtr) -> Result<()> {
    if pointer.0.is_multiple_of(SPACE_ALIGNMENT) {
        return Ok(());
    }
    Err(Error::shape(
        tensor,
        format!("an address that is a multiple of {SPACE_ALIGNMENT} bytes"),
        format!("{:#x}", pointer.0),
    ))
}

fn check_present(tensor: &str, pointer: DevicePtr) -> Result<()> {
    if pointer == DevicePtr::NULL {
        let problem = "the address is null, but the call needs this tensor".to_owned();
        return Err(Error::Presence { tensor: tensor.to_owned(), problem });
    }
    Ok(())
}

impl<E: Element> CudaBackend<E, driver::Driver> {
    /// Opens GPU number `ordinal`, counted from 0 among those that the process may see, with a stream of its own.
    ///
    /// # Errors
    ///
    /// Those of [`Driver::open`](driver::Driver::open).
    pub fn open(ordinal: usize, options: CudaOptions) -> Result<Self> {
        let device = driver::Driver::open(ordinal)?;
        let stream = driver::DriverStream::new(&device)?;
        Ok(Self::with_options(device, stream, options))
    }

    /// [`open`](Self::open) with the default options.
    ///
    /// # Errors
    ///
    /// Those of [`open`](Self::open).
    pub fn new(ordinal: usize) -> Result<Self> {
        Self::open(ordinal, CudaOptions::default())
    }
}

impl<E: Element, D: Device> Clone for CudaBackend<E, D> {
    fn clone(&self) -> Self {
        self.on_stream(self.stream.clone())
    }
}

impl<E: Element, D: Device> fmt::Debug for CudaBackend<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CudaBackend({} on {}, {:?})", E::DTYPE, self.device.properties().name, self.options)
    }
}

/// Address of a tensor that may be absent.
fn pointer<E: bytemuck::Pod, D: Device>(buffer: Option<&DeviceBuffer<E, D>>) -> DevicePtr {
    buffer.map_or(DevicePtr::NULL, DeviceBuffer::pointer)
}

impl<E: Element, D: Device> RecurrentBackend for CudaBackend<E, D> {
    type Elem = E;
    type Buffer = DeviceBuffer<E, D>;
    type Lengths = DeviceBuffer<u32, D>;
    type Mask = DeviceBuffer<u8, D>;
    type Plan = CudaPlan<D>;

    fn name(&self) -> &'static str {
        D::NAME
    }

    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<CudaPlan<D>> {
        CudaPlan::new(&self.device, &self.stream, &self.options, E::DTYPE, descriptor, shape, mode)
    }

    fn temp_space(&self, plan: &CudaPlan<D>) -> TempSpace {
        plan.temp_space
    }

    fn check(&self, plan: &CudaPlan<D>) -> Result<()> {
        plan.check(&self.stream)
    }

    fn forward(&self, plan: &CudaPlan<D>, args: ForwardArgs<'_, Self>) -> Result<()> {
        plan.host.check_forward(ForwardMode::Inference, plan.temp_space.workspace, &args)?;
        let raw = raw_forward(&args, DevicePtr::NULL);
        self.check_spaces(plan, raw.workspace, raw.reserve)?;
        self.engine(plan).forward(&raw)
    }

    fn forward_training<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Self>,
        mut reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>> {
        plan.host.check_forward(ForwardMode::Training, plan.temp_space.workspace, &args)?;
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let raw = raw_forward(&args, storage.pointer());
        self.check_spaces(plan, raw.workspace, raw.reserve)?;
        self.engine(plan).forward(&raw)?;
        Ok(reserve.filled(plan.host.fingerprint(), args.dropout_seed))
    }

    fn backward_data<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Self>,
        mut reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>> {
        reserve.check_plan(plan.host.fingerprint())?;
        plan.host.check_backward_data(plan.temp_space.workspace, &args)?;
        let dropout_seed = reserve.dropout_seed();
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let raw = RawBackwardData {
            weights: args.weights.pointer(),
            c0: pointer(args.c0),
            lengths: pointer(args.lengths),
            resets: pointer(args.resets),
            dy: pointer(args.dy),
            dhn: pointer(args.dhn),
            dcn: pointer(args.dcn),
            dx: pointer(args.dx.as_deref()),
            dh0: pointer(args.dh0.as_deref()),
            dc0: pointer(args.dc0.as_deref()),
            workspace: args.workspace.pointer(),
            reserve: storage.pointer(),
            dropout_seed,
        };
        self.check_spaces(plan, raw.workspace, raw.reserve)?;
        self.engine(plan).backward_data(&raw)?;
        Ok(reserve.differentiated())
    }

    fn backward_weights<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Self>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.host.fingerprint())?;
        plan.host.check_backward_weights(plan.temp_space.workspace, &args)?;
        let dropout_seed = reserve.dropout_seed();
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", plan.temp_space.reserve, storage.len())?;
        let raw = RawBackwardWeights {
            x: args.x.pointer(),
            c0: pointer(args.c0),
            lengths: pointer(args.lengths),
            resets: pointer(args.resets),
            dweights: args.dweights.pointer(),
            workspace: args.workspace.pointer(),
            reserve: storage.pointer(),
            dropout_seed,
        };
        self.check_spaces(plan, raw.workspace, raw.reserve)?;
        self.engine(plan).backward_weights(&raw, grad)
    }
}

fn raw_forward<E: Element, D: Device>(args: &ForwardArgs<'_, CudaBackend<E, D>>, reserve: DevicePtr) -> RawForward {
    RawForward {
        weights: args.weights.pointer(),
        x: args.x.pointer(),
        h0: pointer(args.h0),
        c0: pointer(args.c0),
        lengths: pointer(args.lengths),
        resets: pointer(args.resets),
        y: args.y.pointer(),
        hn: pointer(args.hn.as_deref()),
        cn: pointer(args.cn.as_deref()),
        workspace: args.workspace.pointer(),
        reserve,
        dropout_seed: args.dropout_seed,
    }
}
