//! Addresses of tensors without types.

use super::backend::CudaBackend;
use super::call::{Raw, RawTensor};
use super::device::{Device, DevicePtr};
use crate::backend::Tensors;
use crate::backend::convert::Convert;
use crate::backend::device::OnDevice;
use crate::backend::tensor::{DeviceId, TensorRef};
use crate::dtype::{DType, Element};
use crate::error::Result;

/// Addresses of tensors that must belong to one device and hold one type of element.
pub(super) struct Addresses {
    pub(super) device: DeviceId,
    pub(super) dtype: DType,
}

impl Addresses {
    pub(super) fn raw(&self, tensor: TensorRef<'_>, dtype: DType) -> Result<RawTensor> {
        Ok(RawTensor::new(DevicePtr(tensor.address(self.device, dtype)?), tensor.len()))
    }
}

impl Convert<OnDevice, Raw> for Addresses {
    fn read<'a>(&self, tensor: <OnDevice as Tensors>::Read<'a>) -> Result<<Raw as Tensors>::Read<'a>> {
        self.raw(tensor, self.dtype)
    }

    fn write<'a>(&self, tensor: <OnDevice as Tensors>::Write<'a>) -> Result<<Raw as Tensors>::Write<'a>> {
        self.raw(tensor.view(), self.dtype)
    }

    fn lengths<'a>(&self, lengths: <OnDevice as Tensors>::Lengths<'a>) -> Result<<Raw as Tensors>::Lengths<'a>> {
        self.raw(lengths, DType::U32)
    }

    fn mask<'a>(&self, mask: <OnDevice as Tensors>::Mask<'a>) -> Result<<Raw as Tensors>::Mask<'a>> {
        self.raw(mask, DType::U8)
    }
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    /// What tensors in its device's memory must be.
    pub(super) fn addresses(&self) -> Addresses {
        Addresses { device: DeviceId::of(self.device()), dtype: E::DTYPE }
    }
}
