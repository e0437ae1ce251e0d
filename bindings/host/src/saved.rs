//! [`Saved`]: what a forward pass leaves for its backward passes.

use std::sync::{Arc, Mutex, PoisonError};

use fused_rnn::Result;
use fused_rnn::backend::cpu::CpuPlan;
use fused_rnn::backend::{BackwardDataArgs, BackwardWeightsArgs, Filled, RecurrentBackend, Reserve, WeightGrad};

use crate::buffers::zeros;
use crate::operator::{Operands, Operator, Outputs, arguments};
use crate::threads::Number;

/// Gradients of the outputs; absent means zeros.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gradients<'a, E> {
    /// Of `y`.
    pub dy: Option<&'a [E]>,
    /// Of `hn`.
    pub dhn: Option<&'a [E]>,
    /// Of `cn`.
    pub dcn: Option<&'a [E]>,
}

/// The gradients that a backward pass is to compute, each set.
#[derive(Debug, Default)]
pub struct Wanted<'a, E> {
    /// Of `x`.
    pub dx: Option<&'a mut [E]>,
    /// Of `h0`, whether or not it was given.
    pub dh0: Option<&'a mut [E]>,
    /// Of `c0`, of cells that have it.
    pub dc0: Option<&'a mut [E]>,
    /// Of the weights, laid out as they are.
    pub dweights: Option<&'a mut [E]>,
}

/// What a forward pass leaves for its backward passes. The first of them uses it up; one that comes after computes forward again, with
/// the same dropout masks.
#[derive(Debug)]
pub struct Saved<E: Number> {
    operator: Arc<Operator<E>>,
    plan: Arc<CpuPlan>,
    dropout_seed: u64,
    reserve: Mutex<Option<Reserve<Vec<E>, Filled>>>,
}

impl<E: Number> Saved<E> {
    pub(crate) fn new(operator: Arc<Operator<E>>, plan: Arc<CpuPlan>, dropout_seed: u64) -> Self {
        Saved { operator, plan, dropout_seed, reserve: Mutex::default() }
    }

    /// Computes forward and keeps its reserve.
    pub(crate) fn fill(&self, operands: Operands<'_, E>, outputs: Outputs<'_, E>) -> Result<()> {
        let (backend, reserve) = (E::backend()?, self.operator.reserve(&self.plan)?);
        let mut workspace = self.operator.workspaces.take(backend.temp_space(&self.plan).workspace)?;
        let args = arguments(operands, outputs, &mut workspace, self.dropout_seed);
        let filled = backend.forward_training(&self.plan, args, reserve);
        self.operator.workspaces.give(workspace);
        *self.reserve.lock().unwrap_or_else(PoisonError::into_inner) = Some(filled?);
        Ok(())
    }

    fn take(&self) -> Option<Reserve<Vec<E>, Filled>> {
        self.reserve.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gradients of what is wanted. `operands` are those of the forward call, `y` its output. May be called any number of times.
    ///
    /// # Errors
    ///
    /// Those of [`RecurrentBackend::backward_data`], [`RecurrentBackend::backward_weights`] and, where it is not the first call,
    /// [`RecurrentBackend::forward_training`].
    pub fn backward(
        &self,
        operands: Operands<'_, E>,
        y: &[E],
        gradients: Gradients<'_, E>,
        wanted: Wanted<'_, E>,
    ) -> Result<()> {
        let reserve = match self.take() {
            Some(reserve) => reserve,
            None => {
                // Another call may take it before this one does; then it is computed once more.
                let mut again = zeros(y.len())?;
                loop {
                    self.fill(operands, Outputs { y: &mut again, hn: None, cn: None })?;
                    if let Some(reserve) = self.take() {
                        break reserve;
                    }
                }
            }
        };
        let backend = E::backend()?;
        let Operands { weights, x, h0, c0, lengths, resets } = operands;
        let Gradients { dy, dhn, dcn } = gradients;
        let Wanted { dx, dh0, dc0, dweights } = wanted;
        let mut scratch = self.operator.workspaces.take(backend.temp_space(&self.plan).workspace)?;
        let args = BackwardDataArgs::new(weights, x, y, &mut scratch[..]).h0(h0).c0(c0).lengths(lengths).resets(resets);
        let args = args.dy(dy).dhn(dhn).dcn(dcn).dx(dx).dh0(dh0).dc0(dc0);
        let mut reserve = backend.backward_data(&self.plan, args, reserve)?;
        if let Some(dweights) = dweights {
            let args = BackwardWeightsArgs::new(x, y, dweights, &mut scratch[..]).h0(h0).c0(c0);
            let args = args.lengths(lengths).resets(resets);
            backend.backward_weights(&self.plan, args, &mut reserve, WeightGrad::Set)?;
        }
        self.operator.workspaces.give(scratch);
        self.operator.reserves.give(reserve.release());
        Ok(())
    }
}

impl<E: Number> Drop for Saved<E> {
    fn drop(&mut self) {
        if let Some(reserve) = self.take() {
            self.operator.reserves.give(reserve.release());
        }
    }
}
