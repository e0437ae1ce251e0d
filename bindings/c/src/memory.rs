//! From addresses of the caller to slices: what is null, does not begin where an element may, or overlaps is refused.

use std::ffi::c_void;

use crate::status::{Failure, Result, Status};

/// A tensor that is read: its first element, and how many there are. Null and 0 where it is absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct In {
    /// The first element.
    pub data: *const c_void,
    /// Elements, not bytes.
    pub len: usize,
}

/// A tensor that is written: its first element, and how many there are. Null and 0 where it is absent.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Out {
    /// The first element.
    pub data: *mut c_void,
    /// Elements, not bytes.
    pub len: usize,
}

impl In {
    /// An absent tensor.
    pub const NONE: In = In { data: std::ptr::null(), len: 0 };

    /// Whether it is absent.
    pub fn is_absent(&self) -> bool {
        self.data.is_null() && self.len == 0
    }
}

impl Out {
    /// An absent tensor.
    pub const NONE: Out = Out { data: std::ptr::null_mut(), len: 0 };

    /// Whether it is absent.
    pub fn is_absent(&self) -> bool {
        self.data.is_null() && self.len == 0
    }
}

/// The bytes of a tensor, and whether a call writes them.
#[derive(Clone, Copy)]
struct Span {
    name: &'static str,
    start: usize,
    end: usize,
    written: bool,
}

/// The tensors of one call, checked one by one and then beside each other.
#[derive(Default)]
pub(crate) struct Spans {
    spans: Vec<Span>,
}

impl Spans {
    pub(crate) fn new() -> Self {
        Spans { spans: Vec::with_capacity(16) }
    }

    fn add(&mut self, name: &'static str, address: usize, len: usize, element: usize, written: bool) -> Result<()> {
        if address == 0 {
            return Err(Failure::null(name));
        }
        if !address.is_multiple_of(element) {
            let problem =
                format!("{name}: expected an address that is a multiple of {element} bytes, got {address:#x}");
            return Err(Failure::new(Status::Alignment, problem));
        }
        let bytes = len.checked_mul(element).filter(|bytes| *bytes <= isize::MAX as usize);
        let end = bytes.and_then(|bytes| address.checked_add(bytes)).ok_or_else(|| {
            let problem = format!("{name}: {len} elements of {element} bytes overflow the address space");
            Failure::new(Status::SizeOverflow, problem)
        })?;
        self.spans.push(Span { name, start: address, end, written });
        Ok(())
    }

    /// A tensor that is read, with elements of `element` bytes. Whether it is there.
    pub(crate) fn read(&mut self, name: &'static str, tensor: In, element: usize) -> Result<bool> {
        if tensor.is_absent() {
            return Ok(false);
        }
        self.add(name, tensor.data as usize, tensor.len, element, false).map(|()| true)
    }

    /// A tensor that is written. Whether it is there.
    pub(crate) fn write(&mut self, name: &'static str, tensor: Out, element: usize) -> Result<bool> {
        if tensor.is_absent() {
            return Ok(false);
        }
        self.add(name, tensor.data as usize, tensor.len, element, true).map(|()| true)
    }

    /// Checks that nothing which is written overlaps anything else.
    pub(crate) fn check(&self) -> Result<()> {
        for (index, one) in self.spans.iter().enumerate() {
            for other in &self.spans[..index] {
                if (one.written || other.written) && one.start < other.end && other.start < one.end {
                    let problem = format!(
                        "{} and {} overlap: expected tensors apart from each other, since one of them is written",
                        other.name, one.name
                    );
                    return Err(Failure::new(Status::Overlap, problem));
                }
            }
        }
        Ok(())
    }
}

/// The elements of a tensor that [`Spans`] has checked.
///
/// # Safety
///
/// The memory must hold `tensor.len` elements while the slice lives, and not be written meanwhile.
pub(crate) unsafe fn slice<'a, E>(tensor: In) -> Option<&'a [E]> {
    // SAFETY: not null and aligned, as was checked; valid by the caller's promise.
    (!tensor.data.is_null()).then(|| unsafe { std::slice::from_raw_parts(tensor.data.cast(), tensor.len) })
}

/// The same to be written.
///
/// # Safety
///
/// The memory must hold `tensor.len` elements while the slice lives, and not be used otherwise meanwhile.
pub(crate) unsafe fn slice_mut<'a, E>(tensor: Out) -> Option<&'a mut [E]> {
    // SAFETY: not null and aligned, and apart from every other tensor, as was checked; valid by the caller's promise.
    (!tensor.data.is_null()).then(|| unsafe { std::slice::from_raw_parts_mut(tensor.data.cast(), tensor.len) })
}
