//! The backend without its type, as a [`Device`](crate::Device) holds it.
#![allow(unsafe_code)]

use std::sync::Arc;

use super::backend::CudaBackend;
use super::device::Device;
use super::device::memory::DeviceBuffer;
use super::recurrent::{CudaPlan, ProductReport, TimeLoopReport};
use crate::backend::device::{OnDevice, Plan, Runtime, check_copy, no_device_in};
use crate::backend::tensor::{Tensor, TensorMut, TensorRef};
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, RecurrentBackend,
    Reserve, WeightGrad,
};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::rnn::{RnnDescriptor, RnnShape};

/// The same backend on elements of another type.
fn cast<E: Element, F: Element, D: Device>(backend: &CudaBackend<E, D>) -> CudaBackend<F, D> {
    CudaBackend::with_options(backend.device().clone(), backend.stream().clone(), backend.options().clone())
}

/// The bytes of what is copied from or to the host.
fn bytes<T>(bytes: Option<T>) -> Result<T> {
    bytes.ok_or_else(|| Error::unsupported("a copy from one device to another", "copy through the host"))
}

impl<E: Element, D: Device> Runtime for CudaBackend<E, D> {
    fn name(&self) -> &'static str {
        D::NAME
    }

    fn dtype(&self) -> DType {
        E::DTYPE
    }

    fn with_dtype(&self, dtype: DType) -> Result<Arc<dyn Runtime>> {
        match dtype {
            _ if dtype == E::DTYPE => Ok(Arc::new(self.clone())),
            DType::F32 => Ok(Arc::new(cast::<E, f32, D>(self))),
            DType::F64 => Ok(Arc::new(cast::<E, f64, D>(self))),
            DType::F16 => Ok(Arc::new(cast::<E, half::f16, D>(self))),
            DType::Bf16 => Ok(Arc::new(cast::<E, half::bf16, D>(self))),
            DType::U32 | DType::U8 => Err(no_device_in(dtype)),
        }
    }

    fn is_host(&self) -> bool {
        false
    }

    fn prepare(&self) -> Result<()> {
        super::ops::load(self)
    }

    fn needs_loss_scale(&self) -> bool {
        self.options().compute.of(E::DTYPE).0 == DType::F16
    }

    fn allocate(&self, what: &str, dtype: DType, len: usize) -> Result<Tensor> {
        let bytes = crate::backend::tensor::byte_count(what, dtype, len)?;
        let mut memory = DeviceBuffer::<u8, D>::new(self.device(), what, bytes)?;
        memory.fill_bytes(self.stream(), 0)?;
        let address = memory.pointer().0;
        Ok(Tensor::on_device(self.addresses().device, dtype, address, len, memory.into_owner()))
    }

    fn forget(&self, tensor: TensorMut<'_>) -> Result<()> {
        if tensor.is_empty() {
            return Ok(());
        }
        let address = self.addresses().raw(tensor.view(), tensor.dtype())?.address;
        // SAFETY: the tensor is this device's, borrowed for the call, and has that many bytes.
        unsafe { self.device().fill(self.stream(), address, 0xff, tensor.len() * tensor.dtype().size()) }
    }

    fn upload(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        check_copy(from, &to)?;
        if from.is_empty() {
            return Ok(());
        }
        let address = self.addresses().raw(to.view(), to.dtype())?.address;
        // SAFETY: the tensor is this device's, borrowed for the call, and has as many elements of the same type.
        unsafe { self.device().upload(self.stream(), address, bytes(from.bytes())?) }
    }

    fn download(&self, from: TensorRef<'_>, to: TensorMut<'_>) -> Result<()> {
        check_copy(from, &to)?;
        if from.is_empty() {
            return Ok(());
        }
        let address = self.addresses().raw(from, from.dtype())?.address;
        // SAFETY: as in `upload`.
        unsafe { self.device().download(self.stream(), address, bytes(to.into_bytes())?) }
    }

    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<Plan> {
        let plan = RecurrentBackend::plan(self, descriptor, shape, mode)?;
        let space = plan.temp_space;
        Ok(Plan::new(plan, space))
    }

    fn forward(&self, plan: &Plan, args: ForwardArgs<'_, OnDevice>) -> Result<()> {
        self.run_forward(plan.get::<CudaPlan<D>>()?, args.convert(&self.addresses())?, None)
    }

    fn forward_training(
        &self,
        plan: &Plan,
        args: ForwardArgs<'_, OnDevice>,
        mut reserve: Reserve<Tensor, Empty>,
    ) -> Result<Reserve<Tensor, Filled>> {
        let (plan, dropout_seed) = (plan.get::<CudaPlan<D>>()?, args.dropout_seed);
        let storage = self.addresses().raw(reserve.storage_mut().view(), E::DTYPE)?;
        self.run_forward(plan, args.convert(&self.addresses())?, Some(storage))?;
        Ok(reserve.filled(plan.host.fingerprint(), dropout_seed))
    }

    fn backward_data(
        &self,
        plan: &Plan,
        args: BackwardDataArgs<'_, OnDevice>,
        mut reserve: Reserve<Tensor, Filled>,
    ) -> Result<Reserve<Tensor, Differentiated>> {
        let plan = plan.get::<CudaPlan<D>>()?;
        reserve.check_plan(plan.host.fingerprint())?;
        let storage = self.addresses().raw(reserve.storage_mut().view(), E::DTYPE)?;
        self.run_backward_data(plan, args.convert(&self.addresses())?, storage, reserve.dropout_seed())?;
        Ok(reserve.differentiated())
    }

    fn backward_weights(
        &self,
        plan: &Plan,
        args: BackwardWeightsArgs<'_, OnDevice>,
        reserve: &mut Reserve<Tensor, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        let plan = plan.get::<CudaPlan<D>>()?;
        reserve.check_plan(plan.host.fingerprint())?;
        let storage = self.addresses().raw(reserve.storage_mut().view(), E::DTYPE)?;
        self.run_backward_weights(plan, args.convert(&self.addresses())?, storage, reserve.dropout_seed(), grad)
    }

    fn check(&self, plan: &Plan) -> Result<()> {
        plan.get::<CudaPlan<D>>()?.check(self.stream())
    }
}

impl Plan {
    /// How each pass through time runs, forward first; nothing of a plan that is not for a GPU.
    pub fn time_loops(&self) -> Vec<TimeLoopReport> {
        fn of<D: Device>(plan: &Plan) -> Option<Vec<TimeLoopReport>> {
            plan.get::<CudaPlan<D>>().ok().map(CudaPlan::time_loops)
        }
        let found = of::<super::driver::Driver>(self).or_else(|| of::<super::paper::Paper>(self));
        #[cfg(feature = "emulated")]
        let found = found.or_else(|| of::<super::emulated::Emulated>(self));
        #[cfg(feature = "ptx")]
        let found = found.or_else(|| of::<super::ptx::Ptx>(self));
        found.unwrap_or_default()
    }

    /// The matrix products of the first layer and their kernels; nothing of a plan that is not for a GPU.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for one that is too wide for the kernels.
    pub fn products(&self) -> Result<Vec<ProductReport>> {
        fn of<D: Device>(plan: &Plan) -> Option<Result<Vec<ProductReport>>> {
            plan.get::<CudaPlan<D>>().ok().map(CudaPlan::products)
        }
        let found = of::<super::driver::Driver>(self).or_else(|| of::<super::paper::Paper>(self));
        #[cfg(feature = "emulated")]
        let found = found.or_else(|| of::<super::emulated::Emulated>(self));
        found.unwrap_or_else(|| Ok(Vec::new()))
    }
}

impl crate::Device {
    /// NVIDIA GPU number `ordinal`, in `f32`; of a [`CudaBackend`] with options a device is made with `from`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no driver, one that is too old, no GPU, or a GPU older than compute capability 7.5;
    /// [`Error::InvalidOption`] for a number that no GPU has; [`Error::Driver`] where the driver refuses a call.
    pub fn cuda(ordinal: usize) -> Result<Self> {
        Ok(crate::Device::from(CudaBackend::<f32, super::device::driver::Driver>::new(ordinal)?))
    }

    /// A GPU emulated on the processor, in `f32`: very slow, for tests.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where `FUSED_RNN_HOST_KERNELS` names a library that cannot be used.
    #[cfg(feature = "emulated")]
    pub fn emulated() -> Result<Self> {
        use super::device::emulated::{Emulated, EmulatedStream, Schedule};
        let device = Arc::new(Emulated::new(Schedule::default())?);
        let options = super::options::CudaOptions::default();
        Ok(crate::Device::from(CudaBackend::<f32, _>::with_options(device, EmulatedStream, options)))
    }

    /// An interpreter of the kernels' PTX, in `f32`: very slow, for tests.
    ///
    /// # Errors
    ///
    /// None here; plans say what they cannot find.
    #[cfg(feature = "ptx")]
    pub fn ptx() -> Result<Self> {
        use super::device::ptx::{Ptx, PtxStream, Schedule};
        let device = Arc::new(Ptx::new(Schedule::default())?);
        let options = super::options::CudaOptions::default();
        Ok(crate::Device::from(CudaBackend::<f32, _>::with_options(device, PtxStream, options)))
    }
}
