//! An allocator that knows how much memory a thread has taken.

#![allow(unsafe_code, reason = "an allocator has unsafe methods; this one hands on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken since the start, less those that it has given back.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of it.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

/// Larger allocations fail, so that a large one does not depend on the machine.
const LARGEST: usize = 1 << 30;

/// Begins to count on this thread.
pub fn start() {
    HELD.with(|held| held.set(0));
    MOST.with(|most| most.set(0));
}

/// The most memory that this thread has held at once since the start.
pub fn most() -> usize {
    MOST.with(Cell::get).unsigned_abs()
}

fn count(change: isize) {
    let held = HELD.with(|held| {
        held.set(held.get().wrapping_add(change));
        held.get()
    });
    MOST.with(|most| most.set(most.get().max(held)));
}

/// The system's allocator, which counts what this thread asks of it, and has nothing over a gigabyte.
pub struct Measuring;

// SAFETY: every call that is not refused goes to the system's allocator as it came; null is an allocation that failed.
unsafe impl GlobalAlloc for Measuring {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise about the layout is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if layout.size() > LARGEST {
            return std::ptr::null_mut();
        }
        count(layout.size() as isize);
        // SAFETY: the caller's promise about the layout is the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        if size > LARGEST {
            return std::ptr::null_mut();
        }
        count((size as isize).wrapping_sub(layout.size() as isize));
        // SAFETY: the pointer is the system's, with this layout.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count((layout.size() as isize).wrapping_neg());
        // SAFETY: the pointer is the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}
