//! What a training forward leaves for its backward passes, with the stage at which it is.

use std::ffi::c_void;
use std::sync::{Mutex, TryLockError};

use crate::memory::Out;
use crate::status::{Failure, Result, Status};

/// How far training has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Nothing in it.
    Empty,
    /// Filled by forward.
    Filled,
    /// Holds the gates' gradients, after backward-data: fit for gradients of the weights.
    Differentiated,
}

/// Memory for what training keeps, and a mark of the call that was made with it last.
#[derive(Debug)]
pub struct Reserve {
    state: Mutex<State>,
}

#[derive(Debug)]
pub(crate) struct State {
    /// Kept for its memory, which `storage` names.
    _owned: Option<Vec<f64>>,
    pub(crate) storage: Out,
    pub(crate) stage: Stage,
    pub(crate) plan: u64,
    pub(crate) seed: u64,
}

// SAFETY: the address is used only under the lock, and by the caller's promise the memory is nobody else's meanwhile.
unsafe impl Send for State {}

impl Reserve {
    /// A reserve in memory of its own, of `bytes` bytes.
    ///
    /// # Errors
    ///
    /// [`Status::Unsupported`] where memory is short.
    pub fn new(bytes: usize, element: usize) -> Result<Self> {
        let words = bytes.div_ceil(size_of::<f64>()).max(1);
        let mut owned: Vec<f64> = Vec::new();
        owned.try_reserve_exact(words).map_err(|_| {
            Failure::new(Status::Unsupported, format!("a reserve of {bytes} bytes is not supported: memory is short"))
        })?;
        owned.resize(words, 0.0);
        let storage = Out { data: owned.as_mut_ptr().cast::<c_void>(), len: words * size_of::<f64>() / element.max(1) };
        Ok(Self::with(Some(owned), storage))
    }

    /// A reserve in the caller's memory.
    ///
    /// # Safety
    ///
    /// The memory must hold as many elements as `storage` says, and be nobody else's, while the reserve lives.
    pub unsafe fn of(storage: Out) -> Self {
        Self::with(None, storage)
    }

    fn with(owned: Option<Vec<f64>>, storage: Out) -> Self {
        let state = State { _owned: owned, storage, stage: Stage::Empty, plan: 0, seed: 0 };
        Reserve { state: Mutex::new(state) }
    }

    /// The stage.
    ///
    /// # Errors
    ///
    /// [`Status::Busy`] while another thread uses it.
    pub fn stage(&self) -> Result<Stage> {
        self.with_state(|state| Ok(state.stage))
    }

    /// The seed of the forward pass that filled it.
    ///
    /// # Errors
    ///
    /// [`Status::Busy`] while another thread uses it.
    pub fn seed(&self) -> Result<u64> {
        self.with_state(|state| Ok(state.seed))
    }

    /// Marks it as filled: the way for memory that goes from one handle to another.
    ///
    /// # Errors
    ///
    /// [`Status::Busy`] while another thread uses it.
    ///
    /// # Safety
    ///
    /// Its memory must hold what a training forward of such a plan left there, with this seed.
    pub unsafe fn assume_filled(&self, plan: &crate::Plan, seed: u64) -> Result<()> {
        self.with_state(|state| {
            (state.stage, state.plan, state.seed) = (Stage::Filled, plan.fingerprint(), seed);
            Ok(())
        })
    }

    pub(crate) fn with_state<T>(&self, call: impl FnOnce(&mut State) -> Result<T>) -> Result<T> {
        match self.state.try_lock() {
            Ok(mut state) => call(&mut state),
            // A call that panicked has left no mark of success.
            Err(TryLockError::Poisoned(poisoned)) => call(&mut poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                Status::Busy,
                "reserve: another thread uses it; give each thread a reserve of its own",
            )),
        }
    }
}

impl State {
    /// Checks that forward has filled it under this plan.
    pub(crate) fn check(&self, plan: u64, needed: Stage) -> Result<()> {
        if self.stage != needed {
            let problem = match (needed, self.stage) {
                (Stage::Filled, Stage::Differentiated) => {
                    "a backward pass has used it; run frnn_forward_training again, with the same seed, which gives the same bits"
                }
                (Stage::Filled, _) => {
                    "no forward pass has filled it; run frnn_forward_training before frnn_backward_data"
                }
                _ => "it has not been through frnn_backward_data; run that before frnn_backward_weights",
            };
            return Err(Failure::new(Status::ReserveStage, format!("reserve: {problem}")));
        }
        if self.plan != plan {
            let problem = format!(
                "reserve: it was filled by another plan ({:#x}) than the one given ({plan:#x}); pass the plan that ran forward",
                self.plan
            );
            return Err(Failure::new(Status::ReserveMismatch, problem));
        }
        Ok(())
    }
}
