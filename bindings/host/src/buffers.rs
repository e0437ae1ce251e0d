//! Scratch that is handed from call to call: a large buffer that is allocated anew costs the system's zeroing of its pages.

use std::sync::{Mutex, PoisonError};

use fused_rnn::{Error, Result, Scalar};

/// Buffers of one kind that nobody uses at the moment.
#[derive(Debug, Default)]
pub(crate) struct Spare<E>(Mutex<Vec<Vec<E>>>);

/// Kept of each kind; what comes back beyond is freed.
const KEPT: usize = 2;

impl<E: Scalar> Spare<E> {
    /// A buffer of at least `len` elements, whose contents mean nothing.
    pub(crate) fn take(&self, len: usize) -> Result<Vec<E>> {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let fitting = spare.iter().position(|buffer| buffer.len() >= len);
        let found = fitting.map(|at| spare.swap_remove(at));
        if found.is_none() {
            // The small ones would not be used again by a caller whose problems grow.
            spare.pop();
        }
        drop(spare);
        found.map_or_else(|| zeros(len), Ok)
    }

    /// Keeps a buffer for the next call.
    pub(crate) fn give(&self, buffer: Vec<E>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < KEPT {
            spare.push(buffer);
        }
    }

    /// Frees all.
    pub(crate) fn clear(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }
}

/// # Errors
///
/// [`Error::Unsupported`] where memory is short.
pub(crate) fn zeros<E: Scalar>(len: usize) -> Result<Vec<E>> {
    // What follows aborts where memory is short; this says so first, and costs nothing but the reservation.
    let mut probe = Vec::<E>::new();
    probe.try_reserve_exact(len).map_err(|_| Error::Unsupported {
        what: format!("a buffer of {len} elements"),
        why: "there is not enough memory; use smaller sizes, or the descriptor's memory option".to_owned(),
    })?;
    drop(probe);
    Ok(vec![E::zero(); len])
}
