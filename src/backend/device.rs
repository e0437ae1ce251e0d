//! Where a model runs: [`Device`]. Here, and nowhere else, the backends lose their type.
//!
//! A [`RecurrentBackend`] is typed: its element, its buffers, its plans. It is the interface for embedding the operator. What stands above
//! it (layers, models, optimizers) is the same code for every backend and every element type, so it holds a [`Device`], and tensors
//! that say at run time what they hold ([`Tensor`]). A `Runtime` is a backend seen in that way.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use super::convert::Convert;
use super::cpu::CpuBackend;
use super::ops::Operations;
use super::reference::ReferenceBackend;
use super::reserve::{Differentiated, Empty, Filled, Reserve};
use super::tensor::{Tensor, TensorMut, TensorRef};
use super::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, TempSpace, Tensors, WeightGrad,
};
use crate::backend::cpu::repeated::HostRepeatedRows;
use crate::dtype::{DType, Element, Stored};
use crate::error::{Error, Result};
use crate::memory;
use crate::rnn::shape::check_len;
use crate::rnn::{RnnDescriptor, RnnShape};

/// Where things run, and in which element type: a backend as models see it. Cheap to clone; clones share threads, kernels and stream.
///
/// [`Operations`] are its methods.
///
/// ```
/// use fused_rnn::{DType, Device};
///
/// let device = Device::cpu().with_dtype(DType::F64)?;
/// let mut tensor = device.allocate("ones", 3)?;
/// device.fill(tensor.view_mut(), 1.0)?;
/// assert_eq!(device.read::<f64>(tensor.view())?, [1.0; 3]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone)]
pub struct Device {
    runtime: Arc<dyn Runtime>,
}

impl Device {
    /// The processor, by the fast backend, in `f32` on as many threads as it runs at once.
    pub fn cpu() -> Self {
        Device::from(CpuBackend::<f32>::new())
    }

    /// The processor, by the oracle's plain loops, in `f32`.
    pub fn reference() -> Self {
        Device::from(ReferenceBackend::<f32>::new())
    }

    /// The device of a backend that has no [`From`] of its own, such as a CUDA backend on a machine that its user describes.
    pub fn of(backend: impl Runtime + 'static) -> Self {
        Device { runtime: Arc::new(backend) }
    }

    /// The same in another element type: `f32` or `f64`; on a GPU `f16` and `bf16` too, for the recurrent operator alone: models are
    /// in `f32` or `f64`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a type that the device does not compute in.
    pub fn with_dtype(&self, dtype: DType) -> Result<Self> {
        Ok(Device { runtime: self.runtime.with_dtype(dtype)? })
    }

    /// The element type.
    pub fn dtype(&self) -> DType {
        self.runtime.dtype()
    }

    /// Short name, as on the command line: `cpu`, `reference`, `cuda`, `emulated`, `ptx`.
    pub fn name(&self) -> &'static str {
        self.runtime.name()
    }

    /// Whether its tensors stand in the host's memory, so that results are there as soon as a call returns.
    pub fn is_host(&self) -> bool {
        self.runtime.is_host()
    }

    /// Loads whatever operations need. Without it the first of them do so, which is slow, and must not happen while a CUDA graph is
    /// being captured.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where a kernel cannot be had.
    pub fn prepare(&self) -> Result<()> {
        self.runtime.prepare()
    }

    /// Whether gradients pass through a type of so small a range, f16, that the loss should be scaled before they are computed.
    pub fn needs_loss_scale(&self) -> bool {
        self.runtime.needs_loss_scale()
    }

    /// A tensor of `len` zeros of the device's element type; `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`] where the number of bytes overflows; [`Error::Unsupported`] where memory is short; [`Error::Driver`] where
    /// the GPU's driver fails.
    pub fn allocate(&self, what: &str, len: usize) -> Result<Tensor> {
        self.runtime.allocate(what, self.dtype(), len)
    }

    /// The same of another type: `u32` for indices, `f64` for a status.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`] where the number of bytes overflows; [`Error::Unsupported`] where memory is short; [`Error::Driver`] where
    /// the GPU's driver fails.
    pub fn allocate_as(&self, what: &str, dtype: DType, len: usize) -> Result<Tensor> {
        self.runtime.allocate(what, dtype, len)
    }

    /// A tensor with these values.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`] where the number of bytes overflows; [`Error::Unsupported`] where memory is short; [`Error::Driver`] where
    /// the GPU's driver fails.
    pub fn tensor<T: Stored>(&self, what: &str, values: &[T]) -> Result<Tensor> {
        let mut tensor = self.allocate_as(what, T::DTYPE, values.len())?;
        self.upload(values, tensor.view_mut())?;
        Ok(tensor)
    }

    /// The values where operations can read them: on the host themselves, on a device a copy.
    ///
    /// # Errors
    ///
    /// None on the host; else [`Error::SizeOverflow`] where the number of bytes overflows; [`Error::Unsupported`] where memory is short;
    /// [`Error::Driver`] where the GPU's driver fails.
    pub fn place<'a, T: Stored>(&self, what: &str, values: &'a [T]) -> Result<Placed<'a>> {
        if self.is_host() {
            Ok(Placed::Here(TensorRef::of(values)))
        } else {
            Ok(Placed::Copied(self.tensor(what, values)?))
        }
    }

    /// Copies values from the host.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths or the types differ; [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`]
    /// where the GPU's driver fails.
    pub fn upload<T: Stored>(&self, from: &[T], to: TensorMut<'_>) -> Result<()> {
        self.runtime.upload(TensorRef::of(from), to)
    }

    /// Copies values to the host, when all work given before is done.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths or the types differ; [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`]
    /// where the GPU's driver fails, or reports a fault of earlier work.
    pub fn download<T: Stored>(&self, from: TensorRef<'_>, to: &mut [T]) -> Result<()> {
        self.runtime.download(from, TensorMut::of(to))
    }

    /// The same as [`upload`](Self::upload) from a tensor in the host's memory.
    pub(crate) fn upload_tensor(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        self.runtime.upload(from, to)
    }

    /// The same as [`download`](Self::download) to a tensor in the host's memory.
    pub(crate) fn download_tensor(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        self.runtime.download(from, to)
    }

    /// The values of a tensor, when all work given before is done.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the types differ; [`Error::Unsupported`] for a tensor of another device, or where memory is short;
    /// [`Error::Driver`] where the GPU's driver fails, or reports a fault of earlier work.
    pub fn read<T: Stored>(&self, from: TensorRef<'_>) -> Result<Vec<T>> {
        let mut values = memory::filled("a copy", from.len(), T::zeroed())?;
        self.download(from, &mut values)?;
        Ok(values)
    }

    /// A tensor of `len` elements of the device's type, the nearest to these values.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the values are not `len` many; [`Error::SizeOverflow`] where the number of bytes overflows;
    /// [`Error::Unsupported`] where memory is short; [`Error::Driver`] where the GPU's driver fails.
    pub fn rounded(&self, what: &str, len: usize, values: impl IntoIterator<Item = f64>) -> Result<Tensor> {
        let mut tensor = self.allocate(what, len)?;
        let (values, to) = (values.into_iter(), tensor.view_mut());
        let written = match self.dtype() {
            DType::F32 => self.upload_rounded::<f32>(values, to),
            DType::F64 => self.upload_rounded::<f64>(values, to),
            DType::F16 => self.upload_rounded::<half::f16>(values, to),
            DType::Bf16 => self.upload_rounded::<half::bf16>(values, to),
            other @ (DType::U32 | DType::U8) => Err(no_device_in(other)),
        }?;
        check_len(what, &[len], written)?;
        Ok(tensor)
    }

    fn upload_rounded<E: Element>(
        &self,
        mut values: impl Iterator<Item = f64>,
        mut to: TensorMut<'_>,
    ) -> Result<usize> {
        // In pieces, so that a large tensor does not stand in memory twice.
        const PIECE: usize = 1 << 16;
        let (mut piece, mut at) = (Vec::<E>::with_capacity(PIECE.min(to.len())), 0);
        loop {
            piece.clear();
            piece.extend(values.by_ref().take(PIECE).map(E::of));
            if piece.is_empty() {
                return Ok(at);
            }
            let end = at + piece.len();
            self.upload(&piece, to.reborrow().part(at..end)?)?;
            at = end;
        }
    }

    /// The values of a tensor of floating-point numbers, exactly, when all work given before is done.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for a tensor of integers; [`Error::Unsupported`] for a tensor of another device, or where memory is short;
    /// [`Error::Driver`] where the GPU's driver fails, or reports a fault of earlier work.
    pub fn read_wide(&self, from: TensorRef<'_>) -> Result<Vec<f64>> {
        fn wide<E: Element>(values: Vec<E>) -> Vec<f64> {
            values.into_iter().map(E::wide).collect()
        }
        match from.dtype() {
            DType::F32 => self.read(from).map(wide::<f32>),
            DType::F16 => self.read(from).map(wide::<half::f16>),
            DType::Bf16 => self.read(from).map(wide::<half::bf16>),
            _ => self.read(from),
        }
    }

    /// Sets every bit, which makes a NaN of every floating-point element, so that it is seen what is written afterwards.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`] where the GPU's driver fails.
    pub(crate) fn forget(&self, tensor: TensorMut<'_>) -> Result<()> {
        self.runtime.forget(tensor)
    }

    /// Decides how to compute the recurrent operator; see [`RecurrentBackend::plan`].
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that no operator has;
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Plan> {
        self.runtime.plan(descriptor, shape, mode)
    }

    /// A plan for calls of [`forward`](Self::forward) with these weights, which it packs once; they take an empty tensor for weights then. Packing is most of
    /// what a call of few steps costs. Results are the same bits.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] on devices that pack no weights, which is all but [`cpu`](Self::cpu); [`Error::InvalidOption`] for a plan for training; an error
    /// of the tensor's type or length.
    pub fn with_weights(&self, plan: &Plan, weights: TensorRef<'_>) -> Result<Plan> {
        self.runtime.with_weights(plan, weights)
    }

    /// Whether [`with_weights`](Self::with_weights) can be called.
    pub fn packs_weights(&self) -> bool {
        self.runtime.packs_weights()
    }

    /// Elements and numbers of room for [`backward_weights_repeated`](Self::backward_weights_repeated) where x has `count` different rows; none where the device or
    /// the plan has no such pass.
    pub(crate) fn repeated_room(&self, plan: &Plan, count: usize) -> Result<Option<(usize, usize)>> {
        self.runtime.repeated_room(plan, count)
    }

    /// [`backward_weights`](Self::backward_weights), and the gradient of x, where its rows are few different ones.
    pub(crate) fn backward_weights_repeated(
        &self,
        plan: &Plan,
        args: BackwardWeightsArgs<'_, OnDevice>,
        rows: RepeatedRows<'_>,
        reserve: &mut Reserve<Tensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        self.runtime.backward_weights_repeated(plan, args, rows, reserve, grad)
    }

    /// See [`RecurrentBackend::forward`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::SequenceLength`] and [`Error::Presence`] for tensors that do not fit the plan, [`Error::InvalidOption`]
    /// for a plan of another device or for training; [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`] where the
    /// GPU's driver fails.
    pub fn forward(&self, plan: &Plan, args: ForwardArgs<'_, OnDevice>) -> Result<()> {
        self.runtime.forward(plan, args)
    }

    /// See [`RecurrentBackend::forward_training`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::SequenceLength`] and [`Error::Presence`] for tensors or a reserve that do not fit the plan,
    /// [`Error::InvalidOption`] for a plan of another device or for inference; [`Error::Unsupported`] for a tensor of another device;
    /// [`Error::Driver`] where the GPU's driver fails.
    pub fn forward_training(
        &self,
        plan: &Plan,
        args: ForwardArgs<'_, OnDevice>,
        reserve: Reserve<Tensor, Empty>,
    ) -> Result<Reserve<Tensor, Filled>> {
        self.runtime.forward_training(plan, args, reserve)
    }

    /// See [`RecurrentBackend::backward_data`].
    ///
    /// # Errors
    ///
    /// [`Error::ReserveMismatch`] for a reserve that another plan filled; [`Error::Shape`], [`Error::SequenceLength`] and
    /// [`Error::Presence`] for tensors that do not fit the plan; [`Error::InvalidOption`] for a plan of another device or for inference;
    /// [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`] where the GPU's driver fails.
    pub fn backward_data(
        &self,
        plan: &Plan,
        args: BackwardDataArgs<'_, OnDevice>,
        reserve: Reserve<Tensor, Filled>,
    ) -> Result<Reserve<Tensor, Differentiated>> {
        self.runtime.backward_data(plan, args, reserve)
    }

    /// See [`RecurrentBackend::backward_weights`].
    ///
    /// # Errors
    ///
    /// [`Error::ReserveMismatch`] for a reserve that another plan filled; [`Error::Shape`], [`Error::SequenceLength`] and
    /// [`Error::Presence`] for tensors that do not fit the plan; [`Error::InvalidOption`] for a plan of another device or for inference;
    /// [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`] where the GPU's driver fails.
    pub fn backward_weights(
        &self,
        plan: &Plan,
        args: BackwardWeightsArgs<'_, OnDevice>,
        reserve: &mut Reserve<Tensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        self.runtime.backward_weights(plan, args, reserve, grad)
    }

    /// See [`RecurrentBackend::check`].
    ///
    /// # Errors
    ///
    /// [`Error::KernelFault`] where a kernel gave up, whose results are then garbage; [`Error::Driver`] where the GPU's driver fails, or
    /// reports a fault of earlier work.
    pub fn check(&self, plan: &Plan) -> Result<()> {
        self.runtime.check(plan)
    }
}

impl Deref for Device {
    type Target = dyn Operations;

    fn deref(&self) -> &Self::Target {
        &*self.runtime
    }
}

/// Backends as devices. Not generic, and not inlined: a backend is compiled here once, and not again in every crate that uses it.
macro_rules! devices {
    ($($(#[$feature:meta])? $backend:ty;)*) => {
        $(
            $(#[$feature])?
            impl From<$backend> for Device {
                #[inline(never)]
                fn from(backend: $backend) -> Self {
                    Device { runtime: Arc::new(backend) }
                }
            }
        )*
    };
}

devices! {
    ReferenceBackend<f32>;
    ReferenceBackend<f64>;
    CpuBackend<f32>;
    CpuBackend<f64>;
    #[cfg(feature = "cuda")] OnGpu<f32>;
    #[cfg(feature = "cuda")] OnGpu<f64>;
    #[cfg(feature = "cuda")] OnGpu<half::f16>;
    #[cfg(feature = "cuda")] OnGpu<half::bf16>;
    #[cfg(feature = "emulated")] OnEmulatedGpu<f32>;
    #[cfg(feature = "emulated")] OnEmulatedGpu<f64>;
    #[cfg(feature = "emulated")] OnEmulatedGpu<half::f16>;
    #[cfg(feature = "emulated")] OnEmulatedGpu<half::bf16>;
    #[cfg(feature = "ptx")] OnPtx<f32>;
    #[cfg(feature = "ptx")] OnPtx<f64>;
    #[cfg(feature = "ptx")] OnPtx<half::f16>;
    #[cfg(feature = "ptx")] OnPtx<half::bf16>;
}

#[cfg(feature = "cuda")]
type OnGpu<E> = super::cuda::CudaBackend<E, super::cuda::driver::Driver>;
#[cfg(feature = "emulated")]
type OnEmulatedGpu<E> = super::cuda::CudaBackend<E, super::cuda::emulated::Emulated>;
#[cfg(feature = "ptx")]
type OnPtx<E> = super::cuda::CudaBackend<E, super::cuda::ptx::Ptx>;

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Device({} in {})", self.name(), self.dtype())
    }
}

/// Values that operations can read: see [`Device::place`].
pub enum Placed<'a> {
    /// The host's own.
    Here(TensorRef<'a>),
    /// A copy.
    Copied(Tensor),
}

impl Placed<'_> {
    /// The values.
    pub fn view(&self) -> TensorRef<'_> {
        match self {
            Placed::Here(values) => *values,
            Placed::Copied(tensor) => tensor.view(),
        }
    }
}

/// What a device decided about one operator of given sizes.
pub struct Plan {
    inner: Box<dyn Any + Send + Sync>,
    space: TempSpace,
}

impl Plan {
    pub(crate) fn new<P: Any + Send + Sync>(plan: P, space: TempSpace) -> Self {
        Plan { inner: Box::new(plan), space }
    }

    /// Temporary space that calls need.
    pub fn temp_space(&self) -> TempSpace {
        self.space
    }

    /// The backend's own plan.
    pub(crate) fn get<P: Any>(&self) -> Result<&P> {
        self.inner
            .downcast_ref()
            .ok_or_else(|| Error::option("plan", "one of this device in its element type", "another device's"))
    }
}

/// The way of giving tensors to a [`Device`]'s calls.
pub struct OnDevice;

impl Tensors for OnDevice {
    type Read<'a> = TensorRef<'a>;
    type Write<'a> = TensorMut<'a>;
    type Lengths<'a> = TensorRef<'a>;
    type Mask<'a> = TensorRef<'a>;

    fn lengths_on_host<'l>(lengths: &'l TensorRef<'_>) -> Option<&'l [u32]> {
        lengths.host().ok()
    }
}

impl super::Extent for TensorRef<'_> {
    fn elements(&self) -> usize {
        self.len()
    }
}

impl super::Extent for TensorMut<'_> {
    fn elements(&self) -> usize {
        self.len()
    }
}

/// A backend without its type. Methods are those of [`Device`].
pub trait Runtime: Operations {
    #[doc(hidden)]
    fn name(&self) -> &'static str;
    #[doc(hidden)]
    fn dtype(&self) -> DType;
    #[doc(hidden)]
    fn with_dtype(&self, dtype: DType) -> Result<Arc<dyn Runtime>>;
    #[doc(hidden)]
    fn is_host(&self) -> bool {
        true
    }
    #[doc(hidden)]
    fn prepare(&self) -> Result<()> {
        Ok(())
    }
    #[doc(hidden)]
    fn needs_loss_scale(&self) -> bool {
        false
    }
    #[doc(hidden)]
    fn allocate(&self, what: &str, dtype: DType, len: usize) -> Result<Tensor> {
        Tensor::on_host(what, dtype, len)
    }
    /// Sets every bit.
    #[doc(hidden)]
    fn forget(&self, tensor: TensorMut<'_>) -> Result<()> {
        let bytes =
            tensor.into_bytes().ok_or_else(|| Error::unsupported("another device's tensor", "use that device"))?;
        bytes.fill(0xff);
        Ok(())
    }
    /// From the host.
    #[doc(hidden)]
    fn upload(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        copy_on_host(from, to)
    }
    /// See [`Device::packs_weights`].
    fn packs_weights(&self) -> bool {
        false
    }
    /// See [`Device::repeated_room`].
    #[doc(hidden)]
    fn repeated_room(&self, _plan: &Plan, _count: usize) -> Result<Option<(usize, usize)>> {
        Ok(None)
    }
    /// See [`Device::backward_weights_repeated`].
    #[doc(hidden)]
    fn backward_weights_repeated(
        &self,
        _plan: &Plan,
        _args: BackwardWeightsArgs<'_, OnDevice>,
        _rows: RepeatedRows<'_>,
        _reserve: &mut Reserve<Tensor, Differentiated>,
        _grad: WeightGrad,
    ) -> Result<()> {
        let what = format!("gradients of repeated rows on {}", self.name());
        Err(Error::unsupported(what, "call backward_data and backward_weights"))
    }
    /// See [`Device::with_weights`].
    fn with_weights(&self, _plan: &Plan, _weights: TensorRef<'_>) -> Result<Plan> {
        let what = format!("a plan with its weights on {}", self.name());
        Err(Error::unsupported(what, "this device packs no weights; give them in every call"))
    }
    /// To the host.
    #[doc(hidden)]
    fn download(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        copy_on_host(from, to)
    }
    #[doc(hidden)]
    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Plan>;
    #[doc(hidden)]
    fn forward(&self, plan: &Plan, args: ForwardArgs<'_, OnDevice>) -> Result<()>;
    #[doc(hidden)]
    fn forward_training(
        &self,
        plan: &Plan,
        args: ForwardArgs<'_, OnDevice>,
        reserve: Reserve<Tensor, Empty>,
    ) -> Result<Reserve<Tensor, Filled>>;
    #[doc(hidden)]
    fn backward_data(
        &self,
        plan: &Plan,
        args: BackwardDataArgs<'_, OnDevice>,
        reserve: Reserve<Tensor, Filled>,
    ) -> Result<Reserve<Tensor, Differentiated>>;
    #[doc(hidden)]
    fn backward_weights(
        &self,
        plan: &Plan,
        args: BackwardWeightsArgs<'_, OnDevice>,
        reserve: &mut Reserve<Tensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()>;
    #[doc(hidden)]
    fn check(&self, _plan: &Plan) -> Result<()> {
        Ok(())
    }
}

/// Checks what a copy between tensors needs.
pub(crate) fn check_copy(from: TensorRef<'_>, to: &TensorMut<'_>) -> Result<()> {
    check_len("tensor", &[from.len()], to.len())?;
    if from.dtype() == to.dtype() {
        return Ok(());
    }
    Err(Error::shape(
        "tensor",
        format!("elements of {}, as what is copied to it", from.dtype()),
        to.dtype().to_string(),
    ))
}

/// Copies between tensors in the host's memory.
pub(crate) fn copy_on_host(from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
    check_copy(from, &to)?;
    match (from.bytes(), to.into_bytes()) {
        (Some(from), Some(to)) => {
            to.copy_from_slice(from);
            Ok(())
        }
        _ => Err(Error::unsupported("a copy of another device's tensor", "copy it on that device")),
    }
}

/// Tensors of the host as slices.
struct Slices<E>(PhantomData<E>);

impl<E: Element, B: RecurrentBackend<Elem = E, Buffer = [E], Lengths = [u32], Mask = [u8]>> Convert<OnDevice, B>
    for Slices<E>
{
    fn read<'a>(&self, tensor: <OnDevice as Tensors>::Read<'a>) -> Result<<B as Tensors>::Read<'a>> {
        tensor.host()
    }

    fn write<'a>(&self, tensor: <OnDevice as Tensors>::Write<'a>) -> Result<<B as Tensors>::Write<'a>> {
        tensor.host()
    }

    fn lengths<'a>(&self, lengths: <OnDevice as Tensors>::Lengths<'a>) -> Result<<B as Tensors>::Lengths<'a>> {
        lengths.host()
    }

    fn mask<'a>(&self, mask: <OnDevice as Tensors>::Mask<'a>) -> Result<<B as Tensors>::Mask<'a>> {
        mask.host()
    }
}

/// The calls of a backend on slices of the host, as a [`Runtime`]'s.
macro_rules! host_runtime {
    ($backend:ident<$element:ident: $bound:path> $(, $more:item)*) => {
        impl<$element: $bound> Runtime for $backend<$element> {
            fn name(&self) -> &'static str {
                RecurrentBackend::name(self)
            }

            fn dtype(&self) -> DType {
                $element::DTYPE
            }

            fn with_dtype(&self, dtype: DType) -> Result<Arc<dyn Runtime>> {
                match dtype {
                    DType::F32 => Ok(Arc::new(self.cast::<f32>())),
                    DType::F64 => Ok(Arc::new(self.cast::<f64>())),
                    _ => Err(no_model_in(dtype)),
                }
            }

            fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Plan> {
                let plan = RecurrentBackend::plan(self, descriptor, shape, mode)?;
                let space = self.temp_space(&plan);
                Ok(Plan::new(plan, space))
            }

            $($more)*

            fn forward(&self, plan: &Plan, args: ForwardArgs<'_, OnDevice>) -> Result<()> {
                RecurrentBackend::forward(self, plan.get()?, args.convert(&Slices::<$element>(PhantomData))?)
            }

            fn forward_training(
                &self,
                plan: &Plan,
                args: ForwardArgs<'_, OnDevice>,
                reserve: Reserve<Tensor, Empty>,
            ) -> Result<Reserve<Tensor, Filled>> {
                let (mut storage, reserve) = reserve.take_storage();
                let reserve = reserve.with_storage(storage.view_mut().host::<$element>()?);
                let filled = RecurrentBackend::forward_training(
                    self,
                    plan.get()?,
                    args.convert(&Slices::<$element>(PhantomData))?,
                    reserve,
                )?;
                let (_, filled) = filled.take_storage();
                Ok(filled.with_storage(storage))
            }

            fn backward_data(
                &self,
                plan: &Plan,
                args: BackwardDataArgs<'_, OnDevice>,
                reserve: Reserve<Tensor, Filled>,
            ) -> Result<Reserve<Tensor, Differentiated>> {
                let (mut storage, reserve) = reserve.take_storage();
                let reserve = reserve.with_storage(storage.view_mut().host::<$element>()?);
                let ready = RecurrentBackend::backward_data(
                    self,
                    plan.get()?,
                    args.convert(&Slices::<$element>(PhantomData))?,
                    reserve,
                )?;
                let (_, ready) = ready.take_storage();
                Ok(ready.with_storage(storage))
            }

            fn backward_weights(
                &self,
                plan: &Plan,
                args: BackwardWeightsArgs<'_, OnDevice>,
                reserve: &mut Reserve<Tensor, Differentiated>,
                grad: WeightGrad,
            ) -> Result<()> {
                let mut reserve = reserve.map_mut(|storage| storage.view_mut().host::<$element>())?;
                RecurrentBackend::backward_weights(
                    self,
                    plan.get()?,
                    args.convert(&Slices::<$element>(PhantomData))?,
                    &mut reserve,
                    grad,
                )
            }
        }
    };
}

host_runtime!(ReferenceBackend<E: crate::Scalar>);
host_runtime!(
    CpuBackend<E: super::cpu::CpuElement>,
    fn packs_weights(&self) -> bool {
        true
    },
    fn with_weights(&self, plan: &Plan, weights: TensorRef<'_>) -> Result<Plan> {
        let plan = CpuBackend::with_weights(self, plan.get()?, weights.host()?)?;
        let space = self.temp_space(&plan);
        Ok(Plan::new(plan, space))
    },
    fn repeated_room(&self, plan: &Plan, count: usize) -> Result<Option<(usize, usize)>> {
        Ok(CpuBackend::repeated_room(self, plan.get()?, count))
    },
    fn backward_weights_repeated(
        &self,
        plan: &Plan,
        args: BackwardWeightsArgs<'_, OnDevice>,
        rows: RepeatedRows<'_>,
        reserve: &mut Reserve<Tensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        let RepeatedRows { weights, numbers, count, dx, room, index } = rows;
        let rows = HostRepeatedRows {
            weights: weights.host()?,
            numbers: numbers.host()?,
            count,
            dx: dx.host()?,
            room: room.host()?,
            index: index.host()?,
        };
        let mut reserve = reserve.map_mut(|storage| storage.view_mut().host::<E>())?;
        let args = args.convert(&Slices::<E>(PhantomData))?;
        CpuBackend::backward_weights_repeated(self, plan.get()?, args, rows, &mut reserve, grad)
    }
);

/// Which rows of an input are alike, for [`Device::backward_weights_repeated`].
#[doc(hidden)]
pub struct RepeatedRows<'a> {
    /// The weights of the forward call.
    pub(crate) weights: TensorRef<'a>,
    /// The number of each row of x, `u32`.
    pub(crate) numbers: TensorRef<'a>,
    /// Numbers are below it.
    pub(crate) count: usize,
    /// The gradient of x, summed over rows with the same number: it stands in the first of them, zeros in the others.
    pub(crate) dx: TensorMut<'a>,
    /// Room, as [`Device::repeated_room`] says.
    pub(crate) room: TensorMut<'a>,
    /// Room for numbers.
    pub(crate) index: TensorMut<'a>,
}

/// The error of a device in a type that nothing is computed in.
pub(crate) fn no_device_in(dtype: DType) -> Error {
    Error::unsupported(format!("a device in {dtype}"), "numbers are f32, f64, f16 or bf16")
}

/// Checks that models are computed in the element type of a device.
pub(crate) fn check_model_dtype(device: &Device) -> Result<()> {
    match device.dtype() {
        DType::F32 | DType::F64 => Ok(()),
        other => Err(no_model_in(other)),
    }
}

/// The error of a device in a type that models are not computed in.
pub(crate) fn no_model_in(dtype: DType) -> Error {
    Error::unsupported(
        format!("a model in {dtype}"),
        "models are f32 or f64; for products in 16 bits give CudaOptions::compute to a CUDA backend",
    )
}
