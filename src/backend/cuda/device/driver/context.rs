//! The device's primary context, made current for every call.

use cudarc::driver::sys;

use super::library::call;
use crate::error::Result;

/// A handle of the driver's. The driver may be called with it from any thread.
#[derive(Clone, Copy)]
pub(super) struct Handle<T>(pub(super) T);

// SAFETY: handles are names of objects inside the driver, which locks them itself.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// A device's primary context, kept alive.
pub(super) struct Context {
    device: sys::CUdevice,
    raw: Handle<sys::CUcontext>,
}

impl Context {
    pub(super) fn retain(device: sys::CUdevice) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver is initialised and the device exists; the pointer is valid for the call.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut raw, device)) }?;
        Ok(Context { device, raw: Handle(raw) })
    }

    /// Makes the context current on this thread until the guard is dropped.
    pub(super) fn enter(&self) -> Result<Entered> {
        let mut before = std::ptr::null_mut();
        // SAFETY: the driver is initialised; the pointer is valid for the call.
        unsafe { call!(cuCtxGetCurrent(&mut before)) }?;
        if before == self.raw.0 {
            return Ok(Entered { before: None });
        }
        // SAFETY: the context is retained.
        unsafe { call!(cuCtxSetCurrent(self.raw.0)) }?;
        Ok(Entered { before: Some(before) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `retain`. The driver waits for nothing here that still uses it: streams, modules and graphs
        // hold this context, so they are gone. Memory that a caller did not release stays theirs to release, before this.
        let _ = unsafe { call!(cuDevicePrimaryCtxRelease_v2(self.device)) };
    }
}

/// A context made current; what was current before comes back on drop.
pub(super) struct Entered {
    before: Option<sys::CUcontext>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: it was current on this thread when `enter` was called; null means none.
            let _ = unsafe { call!(cuCtxSetCurrent(before)) };
        }
    }
}
