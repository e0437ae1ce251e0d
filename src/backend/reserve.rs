//! The typed reserve: storage that belongs to the caller, and a type that says how far training has come.

use std::marker::PhantomData;

use crate::error::{Error, Result};

/// Nothing in it yet.
#[derive(Debug)]
pub struct Empty(());

/// Filled by forward.
#[derive(Debug)]
pub struct Filled(());

/// Holds the gates' gradients, after backward-data.
#[derive(Debug)]
pub struct Differentiated(());

/// What a training forward leaves for its backward passes.
///
/// `S` is the caller's storage: a `Vec`, a `&mut` slice, a device allocation. The value moves from call to call, so a
/// backward pass without its forward, twice, or in the wrong order does not compile:
///
/// ```compile_fail
/// # use fused_rnn::backend::{Empty, Differentiated, Reserve};
/// let empty: Reserve<Vec<f32>, Empty> = Reserve::new(vec![0.0; 8]);
/// let ready: Reserve<Vec<f32>, Differentiated> = empty; // no backward_data in between
/// ```
#[derive(Debug)]
pub struct Reserve<S, Stage = Empty> {
    storage: S,
    plan: u64,
    dropout_seed: u64,
    stage: PhantomData<Stage>,
}

impl<S> Reserve<S, Empty> {
    /// Wraps storage of at least [`TempSpace::reserve`](super::TempSpace::reserve) elements.
    pub fn new(storage: S) -> Self {
        Reserve { storage, plan: 0, dropout_seed: 0, stage: PhantomData }
    }

    /// Marks it as filled under the plan with this fingerprint. For backends.
    pub fn filled(self, plan: u64, dropout_seed: u64) -> Reserve<S, Filled> {
        Reserve { storage: self.storage, plan, dropout_seed, stage: PhantomData }
    }
}

impl<S> Reserve<S, Filled> {
    /// Marks it as holding the gates' gradients. For backends.
    pub fn differentiated(self) -> Reserve<S, Differentiated> {
        Reserve { storage: self.storage, plan: self.plan, dropout_seed: self.dropout_seed, stage: PhantomData }
    }
}

impl<S, Stage> Reserve<S, Stage> {
    /// Gives the storage back, for the next forward.
    pub fn release(self) -> S {
        self.storage
    }

    /// The storage. For backends.
    pub fn storage_mut(&mut self) -> &mut S {
        &mut self.storage
    }

    /// Seed of the dropout masks that forward drew. For backends.
    pub fn dropout_seed(&self) -> u64 {
        self.dropout_seed
    }

    /// Checks that the plan with this fingerprint filled it. For backends.
    ///
    /// # Errors
    ///
    /// [`Error::ReserveMismatch`].
    pub fn check_plan(&self, plan: u64) -> Result<()> {
        if self.plan == plan { Ok(()) } else { Err(Error::ReserveMismatch { filled_by: self.plan, plan }) }
    }
}

#[cfg(feature = "model")]
impl<S, Stage> Reserve<S, Stage> {
    /// The storage, and the mark that it carried. For backends.
    pub(crate) fn take_storage(self) -> (S, Reserve<(), Stage>) {
        let mark = Reserve { storage: (), plan: self.plan, dropout_seed: self.dropout_seed, stage: PhantomData };
        (self.storage, mark)
    }

    /// The storage seen in another way, under the same mark. For backends.
    ///
    /// # Errors
    ///
    /// What `see` returns.
    pub(crate) fn map_mut<'s, T>(&'s mut self, see: impl FnOnce(&'s mut S) -> Result<T>) -> Result<Reserve<T, Stage>> {
        let (plan, dropout_seed) = (self.plan, self.dropout_seed);
        Ok(Reserve { storage: see(&mut self.storage)?, plan, dropout_seed, stage: PhantomData })
    }
}

#[cfg(feature = "model")]
impl<Stage> Reserve<(), Stage> {
    /// A mark from [`take_storage`](Reserve::take_storage) on storage again: the same, or the same seen in another way. For backends.
    pub(crate) fn with_storage<S>(self, storage: S) -> Reserve<S, Stage> {
        Reserve { storage, plan: self.plan, dropout_seed: self.dropout_seed, stage: PhantomData }
    }
}
