//! Tensors whose element type and place are known at run time only: [`Tensor`], and [`TensorRef`] and [`TensorMut`], which borrow
//! one or a part of one.
//!
//! What is above the operator (layers, models, optimizers) holds these; [`Operations`](super::Operations) computes with them. A
//! tensor is flat: shapes are the caller's. It stands either in the host's memory, as a slice that anyone may look at
//! ([`TensorRef::host`]), or in a device's, as an address that only that device can follow.
#![expect(
    clippy::indexing_slicing,
    reason = "a tensor's bytes are allocated for its length, and `check_range` compares every range with it"
)]
#![cfg_attr(not(feature = "cuda"), allow(dead_code, reason = "without a device there is only the host's memory"))]

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::Arc;

use bytemuck::{Pod, Zeroable};

use crate::dtype::{DType, Stored};
use crate::error::{Error, Result};
use crate::memory;

/// A line of the host's memory: tensors there begin at a multiple of 64 bytes.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C, align(64))]
struct Line([u64; 8]);

/// A tensor that owns its memory, from [`Device::allocate`](super::Device::allocate). Dropping it gives the memory back.
pub struct Tensor {
    dtype: DType,
    len: usize,
    /// Elements that its memory has room for, at least `len`.
    room: usize,
    memory: Memory,
}

enum Memory {
    Host(Vec<Line>),
    Device {
        device: DeviceId,
        address: u64,
        /// Gives the memory back when dropped.
        _allocation: Arc<dyn Any + Send + Sync>,
    },
}

/// Which device a tensor belongs to. Devices in one process have different ones; a device in other element types has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DeviceId(u64);

impl DeviceId {
    /// That of a device which is shared under this handle. Its tensors keep the device, so that as long as there are any no other one has
    /// the same.
    pub(crate) fn of<D>(device: &Arc<D>) -> Self {
        DeviceId(Arc::as_ptr(device) as u64)
    }
}

impl Tensor {
    /// `len` zeros in the host's memory; `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`]; [`Error::Unsupported`] where there is too little memory.
    pub fn on_host(what: &str, dtype: DType, len: usize) -> Result<Self> {
        let bytes = byte_count(what, dtype, len)?;
        let lines = bytes.div_ceil(size_of::<Line>());
        Ok(Tensor { dtype, len, room: len, memory: Memory::Host(memory::filled(what, lines, Line::zeroed())?) })
    }

    /// Memory of a device. `allocation` gives it back when dropped.
    pub(crate) fn on_device(
        device: DeviceId,
        dtype: DType,
        address: u64,
        len: usize,
        allocation: Arc<dyn Any + Send + Sync>,
    ) -> Self {
        Tensor { dtype, len, room: len, memory: Memory::Device { device, address, _allocation: allocation } }
    }

    /// Elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Makes it the first `len` elements of its memory, where that has room for them; else leaves it, and says so.
    pub(crate) fn set_len(&mut self, len: usize) -> bool {
        let fits = len <= self.room;
        if fits {
            self.len = len;
        }
        fits
    }

    /// The type of its elements.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether the host can read it where it is.
    pub fn is_on_host(&self) -> bool {
        matches!(self.memory, Memory::Host(_))
    }

    /// All of it, to be read.
    #[inline]
    pub fn view(&self) -> TensorRef<'_> {
        let place = match &self.memory {
            Memory::Host(lines) => Place::Host(&bytemuck::cast_slice(lines)[..self.len * self.dtype.size()]),
            Memory::Device { device, address, .. } => {
                Place::Device { device: *device, address: *address, borrowed: PhantomData }
            }
        };
        TensorRef { dtype: self.dtype, len: self.len, place }
    }

    /// All of it, to be written.
    #[inline]
    pub fn view_mut(&mut self) -> TensorMut<'_> {
        let place = match &mut self.memory {
            Memory::Host(lines) => PlaceMut::Host(&mut bytemuck::cast_slice_mut(lines)[..self.len * self.dtype.size()]),
            Memory::Device { device, address, .. } => {
                PlaceMut::Device { device: *device, address: *address, borrowed: PhantomData }
            }
        };
        TensorMut { dtype: self.dtype, len: self.len, place }
    }
}

/// A tensor or a part of one, to be read.
#[derive(Clone, Copy)]
pub struct TensorRef<'a> {
    dtype: DType,
    len: usize,
    place: Place<'a>,
}

#[derive(Clone, Copy)]
enum Place<'a> {
    Host(&'a [u8]),
    Device { device: DeviceId, address: u64, borrowed: PhantomData<&'a ()> },
}

impl<'a> TensorRef<'a> {
    /// A slice of the host's.
    pub fn of<T: Stored>(values: &'a [T]) -> Self {
        TensorRef { dtype: T::DTYPE, len: values.len(), place: Place::Host(bytemuck::cast_slice(values)) }
    }

    /// Elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of its elements.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Whether the host can read it where it is.
    pub fn is_on_host(&self) -> bool {
        matches!(self.place, Place::Host(_))
    }

    /// A part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it ends before the range does.
    #[inline]
    pub fn part(self, range: Range<usize>) -> Result<TensorRef<'a>> {
        check_range(&range, self.len)?;
        let size = self.dtype.size();
        let place = match self.place {
            Place::Host(bytes) => Place::Host(&bytes[range.start * size..range.end * size]),
            Place::Device { device, address, borrowed } => {
                Place::Device { device, address: advanced(address, range.start * size), borrowed }
            }
        };
        Ok(TensorRef { dtype: self.dtype, len: range.len(), place })
    }

    /// The elements, of a tensor in the host's memory.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a device's tensor, [`Error::Shape`] for another element type.
    #[inline]
    pub fn host<T: Stored>(self) -> Result<&'a [T]> {
        self.check_dtype(T::DTYPE)?;
        match self.place {
            Place::Host(bytes) => bytemuck::try_cast_slice(bytes).map_err(misaligned),
            Place::Device { .. } => Err(not_on_host()),
        }
    }

    /// Where it stands in the memory of `device`, for elements of `dtype`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a tensor of the host's or of another device, [`Error::Shape`] for another element type.
    pub(crate) fn address(self, device: DeviceId, dtype: DType) -> Result<u64> {
        self.check_dtype(dtype)?;
        match self.place {
            Place::Device { device: its, address, .. } if its == device => Ok(address),
            _ => Err(elsewhere()),
        }
    }

    /// The bytes, of a tensor in the host's memory.
    pub(crate) fn bytes(self) -> Option<&'a [u8]> {
        match self.place {
            Place::Host(bytes) => Some(bytes),
            Place::Device { .. } => None,
        }
    }

    #[inline]
    fn check_dtype(self, dtype: DType) -> Result<()> {
        if self.dtype == dtype { Ok(()) } else { Err(wrong_dtype(dtype, self.dtype)) }
    }
}

/// A tensor or a part of one, to be written. It moves; [`reborrow`](Self::reborrow) lends it for a call.
pub struct TensorMut<'a> {
    dtype: DType,
    len: usize,
    place: PlaceMut<'a>,
}

enum PlaceMut<'a> {
    Host(&'a mut [u8]),
    Device { device: DeviceId, address: u64, borrowed: PhantomData<&'a mut ()> },
}

impl<'a> TensorMut<'a> {
    /// A slice of the host's.
    pub fn of<T: Stored>(values: &'a mut [T]) -> Self {
        let len = values.len();
        TensorMut { dtype: T::DTYPE, len, place: PlaceMut::Host(bytemuck::cast_slice_mut(values)) }
    }

    /// Elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The type of its elements.
    #[inline]
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// The same to be read, while this is not written.
    #[inline]
    pub fn view(&self) -> TensorRef<'_> {
        let place = match &self.place {
            PlaceMut::Host(bytes) => Place::Host(bytes),
            PlaceMut::Device { device, address, .. } => {
                Place::Device { device: *device, address: *address, borrowed: PhantomData }
            }
        };
        TensorRef { dtype: self.dtype, len: self.len, place }
    }

    /// The same to be read from now on.
    #[inline]
    pub fn into_view(self) -> TensorRef<'a> {
        let place = match self.place {
            PlaceMut::Host(bytes) => Place::Host(bytes),
            PlaceMut::Device { device, address, .. } => Place::Device { device, address, borrowed: PhantomData },
        };
        TensorRef { dtype: self.dtype, len: self.len, place }
    }

    /// The same for a call.
    #[inline]
    pub fn reborrow(&mut self) -> TensorMut<'_> {
        let place = match &mut self.place {
            PlaceMut::Host(bytes) => PlaceMut::Host(bytes),
            PlaceMut::Device { device, address, .. } => {
                PlaceMut::Device { device: *device, address: *address, borrowed: PhantomData }
            }
        };
        TensorMut { dtype: self.dtype, len: self.len, place }
    }

    /// A part of it.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where it ends before the range does.
    #[inline]
    pub fn part(self, range: Range<usize>) -> Result<TensorMut<'a>> {
        check_range(&range, self.len)?;
        let size = self.dtype.size();
        let place = match self.place {
            PlaceMut::Host(bytes) => PlaceMut::Host(&mut bytes[range.start * size..range.end * size]),
            PlaceMut::Device { device, address, borrowed } => {
                PlaceMut::Device { device, address: advanced(address, range.start * size), borrowed }
            }
        };
        Ok(TensorMut { dtype: self.dtype, len: range.len(), place })
    }

    /// The first `at` elements and the others.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where there are fewer.
    #[inline]
    pub fn split_at(self, at: usize) -> Result<(TensorMut<'a>, TensorMut<'a>)> {
        check_range(&(0..at), self.len)?;
        let (dtype, size, rest) = (self.dtype, self.dtype.size(), self.len - at);
        let (first, second) = match self.place {
            PlaceMut::Host(bytes) => {
                let (first, second) = bytes.split_at_mut(at * size);
                (PlaceMut::Host(first), PlaceMut::Host(second))
            }
            PlaceMut::Device { device, address, borrowed } => (
                PlaceMut::Device { device, address, borrowed },
                PlaceMut::Device { device, address: advanced(address, at * size), borrowed },
            ),
        };
        Ok((TensorMut { dtype, len: at, place: first }, TensorMut { dtype, len: rest, place: second }))
    }

    /// The elements, of a tensor in the host's memory.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a device's tensor, [`Error::Shape`] for another element type.
    #[inline]
    pub fn host<T: Stored>(self) -> Result<&'a mut [T]> {
        self.check_dtype(T::DTYPE)?;
        match self.place {
            PlaceMut::Host(bytes) => bytemuck::try_cast_slice_mut(bytes).map_err(misaligned),
            PlaceMut::Device { .. } => Err(not_on_host()),
        }
    }

    /// The bytes, of a tensor in the host's memory.
    pub(crate) fn into_bytes(self) -> Option<&'a mut [u8]> {
        match self.place {
            PlaceMut::Host(bytes) => Some(bytes),
            PlaceMut::Device { .. } => None,
        }
    }

    #[inline]
    fn check_dtype(&self, dtype: DType) -> Result<()> {
        if self.dtype == dtype { Ok(()) } else { Err(wrong_dtype(dtype, self.dtype)) }
    }
}

/// Bytes of a tensor.
pub(crate) fn byte_count(what: &str, dtype: DType, len: usize) -> Result<usize> {
    len.checked_mul(dtype.size()).filter(|bytes| *bytes <= isize::MAX as usize).ok_or_else(|| Error::SizeOverflow {
        tensor: what.to_owned(),
        expression: format!("{len} * {} bytes", dtype.size()),
    })
}

/// The address `bytes` further on; that of an empty tensor, null, stays what it is.
#[inline]
fn advanced(address: u64, bytes: usize) -> u64 {
    if address == 0 { 0 } else { address + bytes as u64 }
}

#[inline]
fn check_range(range: &Range<usize>, len: usize) -> Result<()> {
    if range.start <= range.end && range.end <= len { Ok(()) } else { Err(out_of_range(range, len)) }
}

#[cold]
fn out_of_range(range: &Range<usize>, len: usize) -> Error {
    Error::shape("view", format!("a tensor with elements {range:?}"), format!("{len} elements"))
}

#[cold]
fn wrong_dtype(expected: DType, got: DType) -> Error {
    Error::shape("tensor", format!("elements of {expected}"), got.to_string())
}

#[cold]
fn not_on_host() -> Error {
    Error::unsupported("reading a device's tensor where it stands", "download it first")
}

fn elsewhere() -> Error {
    Error::unsupported("a tensor of another device or of the host", "copy it to this device first")
}

#[cold]
fn misaligned(error: bytemuck::PodCastError) -> Error {
    Error::shape("tensor", "memory aligned to its elements", error.to_string())
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor({:?})", self.view())
    }
}

impl fmt::Debug for TensorRef<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Place::Host(_) => write!(f, "{} of {} on the host", self.len, self.dtype),
            Place::Device { device, address, .. } => {
                write!(f, "{} of {} at {address:#x} of device {}", self.len, self.dtype, device.0)
            }
        }
    }
}

impl fmt::Debug for TensorMut<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.view().fmt(f)
    }
}
