//! Conversions between f32 and 16-bit types: [`Converters`].

use super::super::device::Device;
use super::launch::Kernel;
use super::params::ConvertParams;
use crate::dtype::DType;
use crate::error::Result;

/// The kernels between floats and 16 bits.
#[derive(Debug)]
pub(crate) struct Converters<D: Device> {
    pub(crate) narrow: Kernel<D, ConvertParams>,
    pub(crate) widen: Kernel<D, ConvertParams>,
}

impl<D: Device> Converters<D> {
    /// Kernels of a type of 16 bits.
    pub(crate) fn load(device: &D, dtype: DType) -> Result<Self> {
        Ok(Converters { narrow: Kernel::of(device, "narrow", dtype)?, widen: Kernel::of(device, "widen", dtype)? })
    }
}
