//! A call on a device's memory: every way of giving tensors to the backend becomes [`Raw`], which is what the passes run on.

use super::device::memory::DeviceBuffer;
use super::device::{Device, DevicePtr};
use crate::backend::convert::Convert;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, Extent, ForwardArgs, RecurrentBackend, Tensors};
use crate::dtype::Element;
use crate::error::{Error, Result};

/// A tensor in a device's memory by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawTensor {
    /// Where it begins.
    pub address: DevicePtr,
    /// Elements.
    pub len: usize,
}

impl RawTensor {
    /// `len` elements at `address`.
    pub fn new(address: DevicePtr, len: usize) -> Self {
        RawTensor { address, len }
    }
}

impl Extent for RawTensor {
    fn elements(&self) -> usize {
        self.len
    }
}

/// The way of giving tensors to a call by their addresses: `ForwardArgs<Raw>`.
pub struct Raw;

impl Tensors for Raw {
    type Read<'a> = RawTensor;
    type Write<'a> = RawTensor;
    type Lengths<'a> = RawTensor;
    type Mask<'a> = RawTensor;

    fn lengths_on_host(_: &RawTensor) -> Option<&[u32]> {
        None
    }
}

/// Calls on addresses are nothing but numbers.
macro_rules! copied {
    ($($args:ident),*) => {$(
        impl Clone for $args<'_, Raw> {
            fn clone(&self) -> Self {
                *self
            }
        }

        impl Copy for $args<'_, Raw> {}
    )*};
}

copied!(ForwardArgs, BackwardDataArgs, BackwardWeightsArgs);

/// The address of a tensor that may be absent.
pub(super) fn address(tensor: Option<RawTensor>) -> DevicePtr {
    tensor.map_or(DevicePtr::NULL, |tensor| tensor.address)
}

/// Checks that tensors which are given have an address.
pub(super) fn check_present(tensors: &[(&str, Option<RawTensor>)]) -> Result<()> {
    let is_null = |tensor: &RawTensor| tensor.len > 0 && tensor.address == DevicePtr::NULL;
    match tensors.iter().find(|(_, tensor)| tensor.as_ref().is_some_and(is_null)) {
        None => Ok(()),
        Some((tensor, _)) => Err(Error::Presence {
            tensor: (*tensor).to_owned(),
            problem: "its address is null; pass None where it may be absent".to_owned(),
        }),
    }
}

/// Workspace and reserve must begin at a multiple of this many bytes.
const SPACE_ALIGNMENT: u64 = 16;

/// Checks where a workspace or a reserve begins.
pub(super) fn check_alignment(tensor: &str, address: DevicePtr) -> Result<()> {
    if address.0.is_multiple_of(SPACE_ALIGNMENT) {
        return Ok(());
    }
    Err(Error::shape(
        tensor,
        format!("an address that is a multiple of {SPACE_ALIGNMENT} bytes"),
        format!("{:#x}", address.0),
    ))
}

/// Addresses of a backend's own buffers.
pub(super) struct Buffers;

impl<T: bytemuck::Pod, D: Device> From<&DeviceBuffer<T, D>> for RawTensor {
    fn from(buffer: &DeviceBuffer<T, D>) -> Self {
        RawTensor::new(buffer.pointer(), buffer.len())
    }
}

impl<E, D, B> Convert<B, Raw> for Buffers
where
    E: Element,
    D: Device,
    B: RecurrentBackend<
            Elem = E,
            Buffer = DeviceBuffer<E, D>,
            Lengths = DeviceBuffer<u32, D>,
            Mask = DeviceBuffer<u8, D>,
        >,
{
    fn read<'a>(&self, tensor: <B as Tensors>::Read<'a>) -> Result<<Raw as Tensors>::Read<'a>> {
        Ok(tensor.into())
    }

    fn write<'a>(&self, tensor: <B as Tensors>::Write<'a>) -> Result<<Raw as Tensors>::Write<'a>> {
        Ok((&*tensor).into())
    }

    fn lengths<'a>(&self, lengths: <B as Tensors>::Lengths<'a>) -> Result<<Raw as Tensors>::Lengths<'a>> {
        Ok(lengths.into())
    }

    fn mask<'a>(&self, mask: <B as Tensors>::Mask<'a>) -> Result<<Raw as Tensors>::Mask<'a>> {
        Ok(mask.into())
    }
}
