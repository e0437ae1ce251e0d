//! Memory of workspaces and reserves, kept for the next call: fresh pages of the system cost more than what is computed in them.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::{Mutex, PoisonError};

use pyo3::PyResult;
use pyo3::exceptions::PyMemoryError;

/// Bytes of a cache line, at which blocks begin.
const LINE: usize = 64;
/// Blocks that are kept, and bytes in all of them.
const KEPT: usize = 16;
const KEPT_BYTES: usize = 256 << 20;

static POOL: Mutex<Vec<Memory>> = Mutex::new(Vec::new());

struct Memory {
    pointer: NonNull<u8>,
    layout: Layout,
}

// SAFETY: memory belongs to whoever holds this value.
unsafe impl Send for Memory {}
// SAFETY: nothing is read or written through a shared value.
unsafe impl Sync for Memory {}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout, freed once.
        unsafe { dealloc(self.pointer.as_ptr(), self.layout) }
    }
}

/// Memory of a call, which goes back to the pool.
pub(crate) struct Block(Option<Memory>);

impl Block {
    /// At least so many bytes, with any contents.
    pub(crate) fn take(bytes: usize) -> PyResult<Self> {
        let bytes = bytes.max(1).next_multiple_of(LINE);
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        // The smallest that is large enough, unless most of it would lie idle.
        let fits = |memory: &&(usize, usize)| (bytes..=bytes.saturating_mul(2).max(1 << 16)).contains(&memory.1);
        let sizes = pool.iter().map(|memory| memory.layout.size()).enumerate().collect::<Vec<_>>();
        if let Some((index, _)) = sizes.iter().filter(fits).min_by_key(|memory| memory.1) {
            return Ok(Block(Some(pool.swap_remove(*index))));
        }
        drop(pool);
        let short = || PyMemoryError::new_err(format!("{bytes} bytes for a recurrent operator"));
        let layout = Layout::from_size_align(bytes, LINE).map_err(|_| short())?;
        // SAFETY: the size is not zero.
        let pointer = NonNull::new(unsafe { alloc_zeroed(layout) }).ok_or_else(short)?;
        Ok(Block(Some(Memory { pointer, layout })))
    }

    /// Where it begins.
    pub(crate) fn address(&self) -> *mut c_void {
        self.0.as_ref().map_or(std::ptr::null_mut(), |memory| memory.pointer.as_ptr().cast())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let Some(memory) = self.0.take() else { return };
        let mut pool = POOL.lock().unwrap_or_else(PoisonError::into_inner);
        let held: usize = pool.iter().map(|memory| memory.layout.size()).sum();
        if held + memory.layout.size() <= KEPT_BYTES {
            if pool.len() >= KEPT {
                pool.remove(0);
            }
            pool.push(memory);
        }
    }
}
