//! What a call returns, and the message of a thread's last failure.

use std::cell::RefCell;
use std::ffi::{CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};

use fused_rnn::Error;

/// What a call returns. The thread's `frnn_last_error` says what was wrong, and what to do.
#[repr(u32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// All went well.
    Ok = 0,
    /// A pointer is null that must not be.
    NullPointer = 1,
    /// A tensor has another number of elements than the operator needs.
    Shape = 2,
    /// A tensor is given that the operator has not, or missing where it is needed.
    Presence = 3,
    /// A size is zero that must be at least one.
    ZeroSize = 4,
    /// The bytes of a tensor do not fit the address space.
    SizeOverflow = 5,
    /// The length of a sequence lies outside 1 to `seq_len`.
    SequenceLength = 6,
    /// An option has a value that it cannot have, alone or beside the others.
    InvalidOption = 7,
    /// This build or this machine cannot do what was asked.
    Unsupported = 8,
    /// A tensor does not begin at a multiple of its element's size.
    Alignment = 9,
    /// A tensor that is written overlaps another.
    Overlap = 10,
    /// The reserve was filled under another plan.
    ReserveMismatch = 11,
    /// The reserve is not at the stage that the call needs: no forward pass has filled it, or a backward pass has used it.
    ReserveStage = 12,
    /// Another thread uses the reserve at this moment.
    Busy = 13,
    /// The GPU's driver refused a call, or reports a fault of earlier work.
    Driver = 14,
    /// A kernel gave up.
    KernelFault = 15,
    /// A struct is smaller than the first version of this interface has it: its `size` is not set.
    StructSize = 16,
    /// A mistake of this library, which is not to happen.
    Internal = 17,
}

/// A refused call: its status and its message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The status.
    pub status: Status,
    /// What was wrong, and what to do.
    pub message: String,
}

/// Results of this crate.
pub type Result<T> = std::result::Result<T, Failure>;

impl Failure {
    /// A failure with this message.
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        Failure { status, message: message.into() }
    }

    /// A pointer that is null.
    pub fn null(name: &str) -> Self {
        Self::new(Status::NullPointer, format!("{name}: its pointer is null"))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let status = match &error {
            Error::Shape { .. } => Status::Shape,
            Error::Presence { .. } => Status::Presence,
            Error::ZeroSize { .. } => Status::ZeroSize,
            Error::SizeOverflow { .. } => Status::SizeOverflow,
            Error::SequenceLength { .. } => Status::SequenceLength,
            Error::InvalidOption { .. } => Status::InvalidOption,
            Error::Unsupported { .. } => Status::Unsupported,
            Error::Driver { .. } => Status::Driver,
            Error::ReserveMismatch { .. } => Status::ReserveMismatch,
            Error::KernelFault { .. } | Error::Emulation { .. } | Error::PtxFault { .. } => Status::KernelFault,
            _ => Status::Internal,
        };
        Failure { status, message: error.to_string() }
    }
}

thread_local!(static LAST: RefCell<CString> = RefCell::default());

fn remember(message: String) {
    let mut bytes = message.into_bytes();
    bytes.retain(|byte| *byte != 0);
    // A thread that is ending has no last error any more.
    let _ = LAST.try_with(|last| *last.borrow_mut() = CString::new(bytes).unwrap_or_default());
}

/// The message of this thread's last failure; empty where there was none.
pub(crate) fn last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().as_ptr()).unwrap_or(c"".as_ptr())
}

/// Runs a call so that neither an error nor a panic leaves it otherwise than as a status.
pub(crate) fn guarded(call: impl FnOnce() -> Result<()>) -> Status {
    let failure = match catch_unwind(AssertUnwindSafe(call)) {
        Ok(Ok(())) => return Status::Ok,
        Ok(Err(failure)) => failure,
        Err(payload) => {
            let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
            let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
            let text = text.unwrap_or_else(|| "a panic without a message".to_owned());
            Failure::new(Status::Internal, format!("a mistake in fused-rnn, please report it: {text}"))
        }
    };
    let status = failure.status;
    remember(failure.message);
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_a_status() {
        assert_eq!(guarded(|| panic!("planted {}", 7)), Status::Internal);
        // SAFETY: the pointer is this thread's message, which lives until its next failure.
        let message = unsafe { std::ffi::CStr::from_ptr(last_error()) }.to_string_lossy().into_owned();
        assert!(message.contains("planted 7"), "{message}");
    }
}
