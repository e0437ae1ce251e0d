//! Loaded images, and kernels in them.

use std::ffi::{c_uint, c_void};
use std::fmt;
use std::sync::Arc;

use cudarc::driver::sys;

use super::super::super::images::Image;
use super::context::{Context, Handle};
use super::library::{call, within};
use crate::error::Result;

/// A loaded image; of assembly, what one kernel needs of it.
pub(super) struct Module {
    pub(super) raw: Handle<sys::CUmodule>,
    context: Arc<Context>,
}

impl Module {
    pub(super) fn load(context: &Arc<Context>, image: &Image, entry: &str) -> Result<Self> {
        use sys::CUjit_option as JitOption;
        let _current = context.enter()?;
        // What the driver's own compiler says of assembly; empty for machine code.
        let mut log = vec![0u8; 8192];
        let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The second value is a number in the place of a pointer, as the interface wants it.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
        let image_bytes = image.bytes_for(entry)?;
        let (mut raw, bytes, count) = (std::ptr::null_mut(), image_bytes.as_ptr().cast(), options.len() as c_uint);
        // SAFETY: the context is current; the image is whole (machine code says its own length, assembly ends in a zero); the
        // log's buffer is as long as said, and all pointers are valid for the call.
        let loaded =
            unsafe { call!(cuModuleLoadDataEx(&mut raw, bytes, count, options.as_mut_ptr(), values.as_mut_ptr())) };
        loaded.map_err(|error| {
            let log = log.iter().take_while(|byte| **byte != 0).copied().collect::<Vec<_>>();
            let log = String::from_utf8_lossy(&log).trim().to_owned();
            let said = if log.is_empty() { String::new() } else { format!("; its compiler says: {log}") };
            within(error, &format!("{entry}, {} for {}{said}", image.unit(), image.arch()))
        })?;
        Ok(Module { raw: Handle(raw), context: Arc::clone(context) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: loaded by `load`, unloaded once; kernels hold the module, so none is left.
            let _ = unsafe { call!(cuModuleUnload(self.raw.0)) };
        }
    }
}

/// A kernel, ready to be launched. Keeps its module loaded.
#[derive(Clone)]
pub struct DriverKernel {
    pub(super) function: Handle<sys::CUfunction>,
    pub(super) name: Arc<str>,
    pub(super) params_bytes: Option<usize>,
    pub(super) _module: Arc<Module>,
}

impl DriverKernel {
    /// Bytes of its only parameter, where the driver can tell: from 12.4.
    pub fn params_bytes(&self) -> Option<usize> {
        self.params_bytes
    }
}

impl fmt::Debug for DriverKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverKernel").field(&self.name).finish()
    }
}
