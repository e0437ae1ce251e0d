//! Tensors in a device's memory: [`DeviceBuffer`].
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use bytemuck::Pod;

use super::{Device, DevicePtr};
use crate::backend::Storage;
use crate::error::{Error, Result};

/// A tensor in a device's memory: owned, or the caller's under an address.
pub struct DeviceBuffer<E, D: Device> {
    device: Arc<D>,
    pointer: DevicePtr,
    len: usize,
    /// What keeps the memory from being given back.
    _allocation: Option<Arc<Allocation<D>>>,
    element: PhantomData<E>,
}

/// Memory that is given back when its last user is gone.
struct Allocation<D: Device> {
    device: Arc<D>,
    pointer: DevicePtr,
    bytes: usize,
}

impl<D: Device> Drop for Allocation<D> {
    fn drop(&mut self) {
        // SAFETY: the pointer came from `allocate` with this size, and nothing else holds it.
        unsafe { self.device.release(self.pointer, self.bytes) }
    }
}

impl<E: Pod, D: Device> DeviceBuffer<E, D> {
    /// Memory for `len` elements with unspecified contents. `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`]; [`Error::Unsupported`] where there is too little memory.
    pub fn new(device: &Arc<D>, what: &str, len: usize) -> Result<Self> {
        let bytes = len.checked_mul(size_of::<E>()).ok_or_else(|| Error::SizeOverflow {
            tensor: what.to_owned(),
            expression: format!("{len} * {} bytes", size_of::<E>()),
        })?;
        let pointer = if bytes == 0 { DevicePtr::NULL } else { device.allocate(what, bytes)? };
        let _allocation = (bytes > 0).then(|| Arc::new(Allocation { device: device.clone(), pointer, bytes }));
        Ok(DeviceBuffer { device: device.clone(), pointer, len, _allocation, element: PhantomData })
    }

    /// The same with a copy of `values`, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`] where the number of bytes overflows; [`Error::Unsupported`] where memory is short; [`Error::Driver`] where
    /// the driver refuses the copy.
    pub fn from_slice(device: &Arc<D>, stream: &D::Stream, what: &str, values: &[E]) -> Result<Self> {
        let mut buffer = Self::new(device, what, values.len())?;
        buffer.write(stream, values)?;
        Ok(buffer)
    }

    /// What gives the memory back when it is dropped.
    #[cfg(feature = "model")]
    pub(crate) fn into_owner(self) -> Arc<dyn std::any::Any + Send + Sync> {
        Arc::new(self._allocation)
    }

    /// Memory that someone else owns.
    ///
    /// # Safety
    ///
    /// `pointer` must be valid on `device` for `len` elements as long as this value lives, aligned to the element, and not
    /// be used otherwise at the same time.
    pub unsafe fn from_raw(device: &Arc<D>, pointer: DevicePtr, len: usize) -> Self {
        DeviceBuffer { device: device.clone(), pointer, len, _allocation: None, element: PhantomData }
    }

    /// Where it stands.
    pub fn pointer(&self) -> DevicePtr {
        self.pointer
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn check_len(&self, len: usize) -> Result<()> {
        if len == self.len {
            Ok(())
        } else {
            Err(Error::shape("device buffer", format!("{} elements", self.len), format!("{len} elements")))
        }
    }

    /// Copies `values` into it, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths differ; [`Error::Driver`] where the driver refuses the call.
    pub fn write(&mut self, stream: &D::Stream, values: &[E]) -> Result<()> {
        self.check_len(values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer has as many bytes as `values`, and is this value's own.
        unsafe { self.device.upload(stream, self.pointer, bytemuck::cast_slice(values)) }
    }

    /// Copies it into `values` when everything given to `stream` before is done.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths differ; [`Error::Driver`] where the driver refuses the call, or reports a fault of earlier work.
    pub fn read(&self, stream: &D::Stream, values: &mut [E]) -> Result<()> {
        self.check_len(values.len())?;
        if values.is_empty() {
            return Ok(());
        }
        // SAFETY: the buffer has as many bytes as `values`.
        unsafe { self.device.download(stream, self.pointer, bytemuck::cast_slice_mut(values)) }
    }

    /// Sets every byte to `value`, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    pub fn fill_bytes(&mut self, stream: &D::Stream, value: u8) -> Result<()> {
        if self.len == 0 {
            return Ok(());
        }
        // SAFETY: the buffer has that many bytes, and is this value's own.
        unsafe { self.device.fill(stream, self.pointer, value, self.len * size_of::<E>()) }
    }
}

impl<E: 'static, D: Device> Storage for DeviceBuffer<E, D> {
    type Item = E;

    fn elements(&self) -> usize {
        self.len
    }

    fn on_host(&self) -> Option<&[E]> {
        None
    }
}

impl<E, D: Device> fmt::Debug for DeviceBuffer<E, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceBuffer({} elements at {:#x} of {})", self.len, self.pointer.0, D::NAME)
    }
}
