//! Weights in one buffer or tensor by tensor, and their gradients.

use std::ffi::c_void;

use fused_rnn::rnn::WeightLayout;

use crate::memory::{In, Out};
use crate::status::{Failure, Result, Status};

/// All weights: one buffer, or an address for each tensor in the order of the layout.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Weights {
    /// The first element of one buffer with all weights, or null.
    pub data: *const c_void,
    /// Where `data` is null: the addresses of the tensors.
    pub tensors: *const *const c_void,
    /// Elements of the buffer, or the number of tensors.
    pub len: usize,
}

/// Gradients of all weights, in the same two ways.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Gradients {
    /// The first element of one buffer for all gradients, or null.
    pub data: *mut c_void,
    /// Where `data` is null: the addresses of the tensors.
    pub tensors: *const *mut c_void,
    /// Elements of the buffer, or the number of tensors.
    pub len: usize,
    /// 1 where gradients are added to what is there, 0 where they are set.
    pub accumulate: u32,
}

/// Addresses of tensors, or one buffer.
pub(crate) enum Given<B> {
    /// One buffer, or none at all.
    Whole(B),
    /// A tensor each.
    Apart(Vec<B>),
}

impl Weights {
    /// No weights: the plan has them.
    pub const NONE: Weights = Weights { data: std::ptr::null(), tensors: std::ptr::null(), len: 0 };

    /// What is given, tensors that stand as in one buffer as that buffer.
    ///
    /// # Safety
    ///
    /// `tensors`, where it is used, must hold `len` addresses.
    pub(crate) unsafe fn given(&self, layout: &WeightLayout, element: usize) -> Result<Given<In>> {
        if !self.data.is_null() || self.tensors.is_null() {
            return Ok(Given::Whole(In { data: self.data, len: self.len }));
        }
        check_count("weights", layout, self.len)?;
        // SAFETY: not null; as many addresses as `len` says by the caller's promise.
        let addresses = unsafe { std::slice::from_raw_parts(self.tensors, self.len) };
        let tensors = tensors("weights", layout, addresses.iter().map(|address| address.cast_mut()))?;
        Ok(match joined(layout, &tensors, element) {
            Some(whole) => Given::Whole(In { data: whole.data, len: whole.len }),
            None => Given::Apart(tensors.iter().map(|tensor| In { data: tensor.data, len: tensor.len }).collect()),
        })
    }
}

impl Gradients {
    /// No gradients.
    pub const NONE: Gradients =
        Gradients { data: std::ptr::null_mut(), tensors: std::ptr::null(), len: 0, accumulate: 0 };

    /// What is given, tensors that stand as in one buffer as that buffer.
    ///
    /// # Safety
    ///
    /// `tensors`, where it is used, must hold `len` addresses.
    pub(crate) unsafe fn given(&self, layout: &WeightLayout, element: usize) -> Result<Given<Out>> {
        if !self.data.is_null() || self.tensors.is_null() {
            return Ok(Given::Whole(Out { data: self.data, len: self.len }));
        }
        check_count("dweights", layout, self.len)?;
        // SAFETY: not null; as many addresses as `len` says by the caller's promise.
        let addresses = unsafe { std::slice::from_raw_parts(self.tensors, self.len) };
        let tensors = tensors("dweights", layout, addresses.iter().copied())?;
        Ok(match joined(layout, &tensors, element) {
            Some(whole) => Given::Whole(whole),
            None => Given::Apart(tensors),
        })
    }
}

fn check_count(name: &str, layout: &WeightLayout, len: usize) -> Result<()> {
    let count = layout.entries().len();
    if len == count {
        return Ok(());
    }
    let problem = format!("{name}: expected the addresses of {count} tensors, got {len}");
    Err(Failure::new(Status::Shape, problem))
}

fn tensors(name: &str, layout: &WeightLayout, addresses: impl Iterator<Item = *mut c_void>) -> Result<Vec<Out>> {
    addresses
        .zip(layout.entries())
        .map(|(data, entry)| match data.is_null() {
            true => Err(Failure::null(&format!("{name}, tensor {}", entry.name))),
            false => Ok(Out { data, len: entry.range.len() }),
        })
        .collect()
}

/// The buffer that the tensors are the parts of, where they are.
fn joined(layout: &WeightLayout, tensors: &[Out], element: usize) -> Option<Out> {
    let base = tensors.first()?.data;
    let in_place =
        |(tensor, start): (&Out, usize)| tensor.data as usize == (base as usize).wrapping_add(start * element);
    let starts = layout.entries().iter().map(|entry| entry.range.start);
    tensors.iter().zip(starts).all(in_place).then(|| Out { data: base, len: layout.len() })
}
