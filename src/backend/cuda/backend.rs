//! The operator on device memory: [`CudaBackend`].

use std::borrow::BorrowMut;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use super::call::{Buffers, Raw, RawTensor, address, check_alignment, check_present};
use super::device::Device;
use super::device::driver::{Driver, DriverStream};
use super::device::memory::DeviceBuffer;
#[cfg(feature = "model")]
use super::kernel::sets::KernelSets;
use super::options::CudaOptions;
use super::recurrent::{self, CudaPlan, Engine};
use crate::backend::host::check_at_least;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, RecurrentBackend,
    Reserve, TempSpace, WeightGrad,
};
use crate::dtype::Element;
use crate::error::Result;
use crate::rnn::{RnnDescriptor, RnnShape};

/// The operator on a device, on one stream. Cheap to clone; [`on_stream`](Self::on_stream) gives one for another stream.
pub struct CudaBackend<E, D: Device> {
    device: Arc<D>,
    stream: D::Stream,
    options: CudaOptions,
    /// Kernels on `E` that are loaded.
    #[cfg(feature = "model")]
    pub(super) kernels: Arc<KernelSets>,
    element: PhantomData<E>,
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    /// The backend on a device and a stream of its.
    pub fn with_options(device: Arc<D>, stream: D::Stream, options: CudaOptions) -> Self {
        CudaBackend {
            device,
            stream,
            options,
            #[cfg(feature = "model")]
            kernels: Arc::default(),
            element: PhantomData,
        }
    }

    /// The same on another stream of the same device.
    pub fn on_stream(&self, stream: D::Stream) -> Self {
        CudaBackend {
            device: self.device.clone(),
            stream,
            options: self.options.clone(),
            #[cfg(feature = "model")]
            kernels: self.kernels.clone(),
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

    fn engine<'a>(&'a self, plan: &'a CudaPlan<D>, reserve: Option<RawTensor>, dropout_seed: u64) -> Engine<'a, D> {
        let (device, stream, reserve) = (&*self.device, &self.stream, address(reserve));
        Engine { device, stream, plan, reserve, dropout_seed, segment: None, add_held: None }
    }

    /// Inference, or with a reserve, which it fills, training.
    pub(super) fn run_forward(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Raw>,
        reserve: Option<RawTensor>,
    ) -> Result<()> {
        let mode = if reserve.is_some() { ForwardMode::Training } else { ForwardMode::Inference };
        plan.host.check_forward(mode, plan.temp_space.workspace, &args)?;
        let ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed } = args;
        check_present(&[("weights", Some(weights)), ("x", Some(x)), ("y", Some(y)), ("h0", h0), ("c0", c0)])?;
        check_present(&[("lengths", lengths), ("resets", resets), ("hn", hn), ("cn", cn)])?;
        check_spaces(plan, workspace, reserve)?;
        recurrent::forward(&self.engine(plan, reserve, dropout_seed), &args)
    }

    pub(super) fn run_backward_data(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Raw>,
        reserve: RawTensor,
        dropout_seed: u64,
    ) -> Result<()> {
        plan.host.check_backward_data(plan.temp_space.workspace, &args)?;
        let BackwardDataArgs { weights, x, y, h0, c0, lengths, resets, dy, dhn, dcn, dx, dh0, dc0, workspace } = args;
        check_present(&[("weights", Some(weights)), ("x", Some(x)), ("y", Some(y)), ("h0", h0), ("c0", c0)])?;
        check_present(&[("lengths", lengths), ("resets", resets), ("dy", dy), ("dhn", dhn), ("dcn", dcn)])?;
        check_present(&[("dx", dx), ("dh0", dh0), ("dc0", dc0)])?;
        check_spaces(plan, workspace, Some(reserve))?;
        recurrent::backward_data(&self.engine(plan, Some(reserve), dropout_seed), &args)
    }

    pub(super) fn run_backward_weights(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Raw>,
        reserve: RawTensor,
        dropout_seed: u64,
        grad: WeightGrad,
    ) -> Result<()> {
        plan.host.check_backward_weights(plan.temp_space.workspace, &args)?;
        let BackwardWeightsArgs { x, y, h0, c0, lengths, resets, dweights, workspace } = args;
        check_present(&[("x", Some(x)), ("y", Some(y)), ("dweights", Some(dweights)), ("h0", h0), ("c0", c0)])?;
        check_present(&[("lengths", lengths), ("resets", resets)])?;
        check_spaces(plan, workspace, Some(reserve))?;
        recurrent::backward_weights(&self.engine(plan, Some(reserve), dropout_seed), &args, grad)
    }

    /// Inference on raw memory.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`](crate::Error::Shape) for a tensor of the wrong length, and for a workspace that is not aligned to 16
    /// bytes; [`Error::Presence`](crate::Error::Presence) for an address that is null or a state that the cell has not;
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a plan for training; [`Error::Driver`](crate::Error::Driver) where the GPU's
    /// driver fails.
    ///
    /// # Safety
    ///
    /// Every tensor must be valid on the device, for its length and aligned to its element, until the stream has done the call. No two
    /// may overlap; nothing else may write them meanwhile.
    #[allow(unsafe_code)]
    pub unsafe fn forward_raw(&self, plan: &CudaPlan<D>, args: ForwardArgs<'_, Raw>) -> Result<()> {
        self.run_forward(plan, args, None)
    }

    /// Training forward on raw memory, which fills the reserve. Its stage is in its type, as on safe memory: keep the value that comes
    /// back, and give it to backward.
    ///
    /// # Errors
    ///
    /// As for [`forward_raw`](Self::forward_raw), for the reserve too; [`Error::InvalidOption`](crate::Error::InvalidOption) for a plan for
    /// inference.
    ///
    /// # Safety
    ///
    /// As for [`forward_raw`](Self::forward_raw), the reserve's storage among the tensors.
    #[allow(unsafe_code)]
    pub unsafe fn forward_training_raw(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Raw>,
        mut reserve: Reserve<RawTensor, Empty>,
    ) -> Result<Reserve<RawTensor, Filled>> {
        let (storage, seed) = (*reserve.storage_mut(), args.dropout_seed);
        self.run_forward(plan, args, Some(storage))?;
        Ok(reserve.filled(plan.host.fingerprint(), seed))
    }

    /// Backward-data on raw memory. It can run once over a forward call: after it the reserve holds the gates' gradients, and a second
    /// one, as for a framework that keeps its graph, needs the forward call with the same seed again.
    ///
    /// # Errors
    ///
    /// As for [`forward_training_raw`](Self::forward_training_raw); [`Error::ReserveMismatch`](crate::Error::ReserveMismatch) for a reserve
    /// that another plan filled.
    ///
    /// # Safety
    ///
    /// As for [`forward_training_raw`](Self::forward_training_raw); weights, `x`, `y`, `h0`, `c0`, lengths and resets must be those of
    /// the forward call.
    #[allow(unsafe_code)]
    pub unsafe fn backward_data_raw(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Raw>,
        mut reserve: Reserve<RawTensor, Filled>,
    ) -> Result<Reserve<RawTensor, Differentiated>> {
        reserve.check_plan(plan.host.fingerprint())?;
        let (storage, seed) = (*reserve.storage_mut(), reserve.dropout_seed());
        self.run_backward_data(plan, args, storage, seed)?;
        Ok(reserve.differentiated())
    }

    /// Backward-weights on raw memory.
    ///
    /// # Errors
    ///
    /// As for [`backward_data_raw`](Self::backward_data_raw).
    ///
    /// # Safety
    ///
    /// As for [`backward_data_raw`](Self::backward_data_raw).
    #[allow(unsafe_code)]
    pub unsafe fn backward_weights_raw(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Raw>,
        reserve: &mut Reserve<RawTensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.host.fingerprint())?;
        let (storage, seed) = (*reserve.storage_mut(), reserve.dropout_seed());
        self.run_backward_weights(plan, args, storage, seed, grad)
    }
}

/// Checks size and place of what a plan asks for beyond the tensors.
fn check_spaces<D: Device>(plan: &CudaPlan<D>, workspace: RawTensor, reserve: Option<RawTensor>) -> Result<()> {
    if let Some(reserve) = reserve {
        check_at_least("reserve", plan.temp_space.reserve, reserve.len)?;
    }
    for (tensor, space) in [("workspace", Some(workspace)), ("reserve", reserve)] {
        check_present(&[(tensor, space)])?;
        check_alignment(tensor, address(space))?;
    }
    Ok(())
}

impl<E: Element> CudaBackend<E, Driver> {
    /// Opens GPU number `ordinal`, counted from 0 among those that the process may see, with a stream of its own.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where there is no driver, one that is too old, no GPU, or a GPU older than compute
    /// capability 7.5; [`Error::InvalidOption`](crate::Error::InvalidOption) for a number that no GPU has;
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses a call.
    pub fn open(ordinal: usize, options: CudaOptions) -> Result<Self> {
        let device = Driver::open(ordinal)?;
        let stream = DriverStream::new(&device)?;
        Ok(Self::with_options(device, stream, options))
    }

    /// [`open`](Self::open) with the default options.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where there is no driver, one that is too old, no GPU, or a GPU older than compute
    /// capability 7.5; [`Error::InvalidOption`](crate::Error::InvalidOption) for a number that no GPU has;
    /// [`Error::Driver`](crate::Error::Driver) where the driver refuses a call.
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
        self.run_forward(plan, args.convert(&Buffers)?, None)
    }

    fn forward_training<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Self>,
        mut reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>> {
        let dropout_seed = args.dropout_seed;
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        self.run_forward(plan, args.convert(&Buffers)?, Some((&*storage).into()))?;
        Ok(reserve.filled(plan.host.fingerprint(), dropout_seed))
    }

    fn backward_data<S: BorrowMut<Self::Buffer>>(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Self>,
        mut reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>> {
        reserve.check_plan(plan.host.fingerprint())?;
        let dropout_seed = reserve.dropout_seed();
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        self.run_backward_data(plan, args.convert(&Buffers)?, (&*storage).into(), dropout_seed)?;
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
        let dropout_seed = reserve.dropout_seed();
        let storage: &mut Self::Buffer = reserve.storage_mut().borrow_mut();
        self.run_backward_weights(plan, args.convert(&Buffers)?, (&*storage).into(), dropout_seed, grad)
    }
}
