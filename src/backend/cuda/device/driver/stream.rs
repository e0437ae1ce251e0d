//! Streams.

use std::ffi::c_uint;
use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys;

use super::context::{Context, Handle};
use super::library::call;
use crate::error::Result;

/// A stream: one of its own, or a caller's.
#[derive(Clone)]
pub struct DriverStream {
    raw: Handle<sys::CUstream>,
    _owned: Option<Arc<OwnedStream>>,
}

struct OwnedStream {
    raw: Handle<sys::CUstream>,
    context: Arc<Context>,
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: made by `DriverStream::new`, destroyed once. Work still in it is done first.
            let _ = unsafe { call!(cuStreamDestroy_v2(self.raw.0)) };
        }
    }
}

impl fmt::Debug for DriverStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverStream({:#x})", self.as_raw())
    }
}

impl DriverStream {
    /// The default stream that waits for, and is waited for by, other blocking streams of the context.
    pub const LEGACY_DEFAULT: u64 = 1;
    /// The default stream of the calling thread.
    pub const PER_THREAD_DEFAULT: u64 = 2;

    /// A new stream of a context.
    pub(super) fn of(context: &Arc<Context>) -> Result<Self> {
        let _current = context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the context is current; the pointer is valid for the call.
        unsafe { call!(cuStreamCreate(&mut raw, flags)) }?;
        let raw = Handle(raw);
        Ok(DriverStream { raw, _owned: Some(Arc::new(OwnedStream { raw, context: Arc::clone(context) })) })
    }

    /// A caller's stream: a `CUstream` or `cudaStream_t`, [`LEGACY_DEFAULT`](Self::LEGACY_DEFAULT),
    /// [`PER_THREAD_DEFAULT`](Self::PER_THREAD_DEFAULT), or 0 for the legacy default. It is not destroyed.
    ///
    /// # Safety
    ///
    /// The stream must belong to the primary context of the device that it will be used with, and live as long as this and
    /// its clones.
    pub unsafe fn from_raw(stream: u64) -> Self {
        DriverStream { raw: Handle(std::ptr::with_exposed_provenance_mut(stream as usize)), _owned: None }
    }

    /// The stream as a number, for other libraries.
    pub fn as_raw(&self) -> u64 {
        self.raw.0.expose_provenance() as u64
    }

    pub(super) fn raw(&self) -> sys::CUstream {
        self.raw.0
    }
}
