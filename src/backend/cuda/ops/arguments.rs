//! What calls are given: addresses of tensors, sizes as kernels count them; and how they launch.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::call::check_alignment;
use super::super::device::{Device, DevicePtr, Launch};
use super::super::kernel::launch::{Kernel, Params, elementwise};
use crate::backend::WeightGrad;
use crate::backend::host::check_at_least;
use crate::backend::ops::{IndexStatus, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};

/// A tensor given to a call, or none.
pub(super) trait Given {
    fn given(&self) -> Option<TensorRef<'_>>;
}

impl Given for TensorRef<'_> {
    fn given(&self) -> Option<TensorRef<'_>> {
        Some(*self)
    }
}

impl Given for TensorMut<'_> {
    fn given(&self) -> Option<TensorRef<'_>> {
        Some(self.view())
    }
}

impl<T: Given> Given for Option<T> {
    fn given(&self) -> Option<TensorRef<'_>> {
        self.as_ref()?.given()
    }
}

/// Elements of a tensor that may be absent.
pub(super) fn len_of(tensor: &impl Given) -> Option<usize> {
    tensor.given().map(|tensor| tensor.len())
}

pub(super) fn accumulates(grad: WeightGrad) -> u32 {
    (grad == WeightGrad::Add).into()
}

/// Elements of a tensor of `E` that hold `count` numbers of `bytes` bytes.
pub(super) fn elements<E>(count: usize, bytes: usize) -> usize {
    count.saturating_mul(bytes).div_ceil(size_of::<E>())
}

/// A size as kernels count it.
pub(super) fn narrow(what: &str, size: usize) -> Result<u32> {
    i32::try_from(size).map(|size| size as u32).map_err(|_| {
        Error::unsupported(format!("{what} = {size}"), "the CUDA kernels take at most 2147483647; use smaller batches")
    })
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    /// A set of kernels, loaded if it is the first time.
    pub(super) fn kernels<T: Send + Sync + 'static>(&self, load: impl FnOnce(&D) -> Result<T>) -> Result<Arc<T>> {
        self.kernels.get(|| load(self.device()))
    }

    /// Gives a launch to the stream.
    pub(super) fn launch<P: Params>(&self, kernel: &Kernel<D, P>, launch: &Launch, params: &P) -> Result<()> {
        kernel.launch(self.device(), self.stream(), launch, params)
    }

    /// The address of a tensor of elements; null for none.
    pub(super) fn at(&self, tensor: &impl Given) -> Result<DevicePtr> {
        self.at_as(E::DTYPE, tensor)
    }

    /// The same of another type.
    pub(super) fn at_as(&self, dtype: DType, tensor: &impl Given) -> Result<DevicePtr> {
        match tensor.given() {
            Some(tensor) => Ok(self.addresses().raw(tensor, dtype)?.address),
            None => Ok(DevicePtr::NULL),
        }
    }

    /// The address and the code of a status for bad indices.
    pub(super) fn index_status(&self, status: &Option<IndexStatus<'_>>) -> Result<(DevicePtr, u32)> {
        let Some(IndexStatus { code, status }) = status else { return Ok((DevicePtr::NULL, 0)) };
        check::status(status.len())?;
        Ok((self.at_as(DType::F64, status)?, *code))
    }

    /// The address of a workspace of at least `needed` elements. Where none are needed, what it is does not matter.
    pub(super) fn workspace_at(&self, needed: usize, workspace: &TensorMut<'_>) -> Result<DevicePtr> {
        if needed == 0 {
            return Ok(DevicePtr::NULL);
        }
        check_at_least("workspace", needed, workspace.len())?;
        let address = self.at(workspace)?;
        check_alignment("workspace", address)?;
        Ok(address)
    }
}

/// A launch in which a warp has a row.
pub(super) fn by_warp(rows: usize) -> Launch {
    elementwise((rows as u64).saturating_mul(32))
}

/// From so many terms on, a warp adds up where otherwise a thread does.
pub(super) const WARP_TERMS: usize = 32;

/// The lanes that share a sum of `terms` terms, and the launch for `sums` of them. A function of sizes alone, as the order of sums is.
pub(super) fn shared_sums(sums: usize, terms: usize) -> (u32, Launch) {
    if terms >= WARP_TERMS { (32, by_warp(sums)) } else { (1, elementwise(sums as u64)) }
}
