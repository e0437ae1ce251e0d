//! What calls are given: addresses of tensors, sizes as kernels count them.

use super::super::backend::CudaBackend;
use super::super::call::check_alignment;
use super::super::device::{Device, DevicePtr};
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
