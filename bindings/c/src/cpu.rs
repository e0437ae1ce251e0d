//! Plans of the CPU backend.

use std::sync::{Arc, Mutex, PoisonError};

use fused_rnn::backend::cpu::{CpuBackend, CpuElement, CpuPlan};
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, Reserve, WeightGrad,
};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};

use crate::engine::{Backward, Engine, Forward, Space};
use crate::memory::{In, Out, Spans, slice, slice_mut};
use crate::reserve::State;
use crate::status::{Failure, Result, Status};
use crate::weights::{Given, Weights};

pub(crate) struct CpuEngine<E: CpuElement> {
    backend: Arc<CpuBackend<E>>,
    plan: CpuPlan,
    has_weights: bool,
    /// Buffers in which weights that are given apart are joined: as many as calls at a time.
    joined: Mutex<Vec<Vec<E>>>,
}

/// A required tensor that is read, once it is known to be there.
unsafe fn needed<'a, E>(name: &str, tensor: In) -> Result<&'a [E]> {
    // SAFETY: the caller's promise, as for `slice`.
    unsafe { slice(tensor) }.ok_or_else(|| Failure::null(name))
}

/// The same to be written.
unsafe fn needed_mut<'a, E>(name: &str, tensor: Out) -> Result<&'a mut [E]> {
    // SAFETY: the caller's promise, as for `slice_mut`.
    unsafe { slice_mut(tensor) }.ok_or_else(|| Failure::null(name))
}

impl<E: CpuElement> CpuEngine<E> {
    pub(crate) fn boxed(
        backend: &Arc<CpuBackend<E>>,
        operator: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
    ) -> Result<Box<dyn Engine>> {
        let plan = backend.plan(operator, shape, mode)?;
        Ok(Box::new(Self::of(backend.clone(), plan, false)))
    }

    fn of(backend: Arc<CpuBackend<E>>, plan: CpuPlan, has_weights: bool) -> Self {
        CpuEngine { backend, plan, has_weights, joined: Mutex::default() }
    }

    /// A buffer for weights, which comes back with [`put_back`](Self::put_back).
    fn buffer(&self, len: usize) -> Result<Vec<E>> {
        let mut buffer = self.joined.lock().unwrap_or_else(PoisonError::into_inner).pop().unwrap_or_default();
        buffer.try_reserve_exact(len).map_err(|_| {
            let problem = "weights given tensor by tensor are not supported: memory is short; give them in one buffer";
            Failure::new(Status::Unsupported, problem)
        })?;
        buffer.clear();
        Ok(buffer)
    }

    fn put_back(&self, buffer: Option<Vec<E>>) {
        if let Some(buffer) = buffer {
            self.joined.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        }
    }

    /// The weights as one buffer; a copy where they are apart. Adds them to the call's tensors.
    unsafe fn weights(
        &self,
        layout: &WeightLayout,
        weights: Weights,
        spans: &mut Spans,
    ) -> Result<(In, Option<Vec<E>>)> {
        // SAFETY: the caller's promise.
        match unsafe { weights.given(layout, size_of::<E>()) }? {
            Given::Whole(whole) => {
                if !spans.read("weights", whole, size_of::<E>())? && !self.has_weights {
                    return Err(Failure::null("weights"));
                }
                Ok((whole, None))
            }
            Given::Apart(tensors) => {
                let mut joined = self.buffer(layout.len())?;
                for tensor in tensors {
                    spans.read("weights", tensor, size_of::<E>())?;
                    // SAFETY: checked just now; valid by the caller's promise.
                    joined.extend_from_slice(unsafe { needed("weights", tensor) }?);
                }
                Ok((In { data: joined.as_ptr().cast(), len: joined.len() }, Some(joined)))
            }
        }
    }

    fn spans(&self, call: &Forward) -> Result<Spans> {
        let (mut spans, element) = (Spans::new(), size_of::<E>());
        for (name, tensor) in [("x", call.x), ("h0", call.h0), ("c0", call.c0)] {
            spans.read(name, tensor, element)?;
        }
        spans.read("lengths", call.lengths, size_of::<u32>())?;
        spans.read("resets", call.resets, 1)?;
        for (name, tensor) in [("y", call.y), ("hn", call.hn), ("cn", call.cn), ("workspace", call.workspace)] {
            spans.write(name, tensor, element)?;
        }
        Ok(spans)
    }

    fn backward_spans(&self, call: &Backward) -> Result<Spans> {
        let (mut spans, element) = (Spans::new(), size_of::<E>());
        for (name, tensor) in [("x", call.x), ("y", call.y), ("h0", call.h0), ("c0", call.c0)] {
            spans.read(name, tensor, element)?;
        }
        spans.read("lengths", call.lengths, size_of::<u32>())?;
        spans.read("resets", call.resets, 1)?;
        spans.write("workspace", call.workspace, element)?;
        Ok(spans)
    }
}

/// Absent weights as the backend has them: an empty slice.
unsafe fn weights_of<'a, E>(weights: In) -> &'a [E] {
    // SAFETY: the caller's promise, as for `slice`.
    unsafe { slice(weights) }.unwrap_or_default()
}

impl<E: CpuElement> Engine for CpuEngine<E> {
    fn space(&self) -> Space {
        let space = self.backend.temp_space(&self.plan);
        Space { workspace: space.workspace, reserve: space.reserve }
    }

    fn fingerprint(&self) -> u64 {
        // A reserve holds elements of one type.
        self.plan.fingerprint() ^ size_of::<E>() as u64
    }

    unsafe fn forward(&self, layout: &WeightLayout, call: &Forward, reserve: Option<Out>) -> Result<()> {
        let mut spans = self.spans(call)?;
        if let Some(reserve) = reserve {
            spans.write("reserve", reserve, size_of::<E>())?;
        }
        // SAFETY: the caller's promise.
        let (weights, joined) = unsafe { self.weights(layout, call.weights, &mut spans) }?;
        spans.check()?;
        // SAFETY: null pointers, alignment and overlaps have been checked; the rest is the caller's promise.
        let done = unsafe {
            let args = ForwardArgs::<CpuBackend<E>>::new(
                weights_of(weights),
                needed("x", call.x)?,
                needed_mut("y", call.y)?,
                slice_mut(call.workspace).unwrap_or_default(),
            )
            .h0(slice(call.h0))
            .c0(slice(call.c0))
            .lengths(slice(call.lengths))
            .resets(slice(call.resets))
            .hn(slice_mut(call.hn))
            .cn(slice_mut(call.cn))
            .dropout_seed(call.dropout_seed);
            match reserve {
                None => self.backend.forward(&self.plan, args),
                Some(reserve) => {
                    let reserve = Reserve::new(slice_mut::<E>(reserve).unwrap_or_default());
                    self.backend.forward_training(&self.plan, args, reserve).map(drop)
                }
            }
        };
        self.put_back(joined);
        Ok(done?)
    }

    unsafe fn backward_data(&self, layout: &WeightLayout, call: &Backward, state: &State) -> Result<()> {
        let (mut spans, element) = (self.backward_spans(call)?, size_of::<E>());
        for (name, tensor) in [("dy", call.dy), ("dhn", call.dhn), ("dcn", call.dcn)] {
            spans.read(name, tensor, element)?;
        }
        let outputs = [("dx", call.dx), ("dh0", call.dh0), ("dc0", call.dc0), ("reserve", state.storage)];
        for (name, tensor) in outputs {
            spans.write(name, tensor, element)?;
        }
        // SAFETY: the caller's promise.
        let (weights, joined) = unsafe { self.weights(layout, call.weights, &mut spans) }?;
        spans.check()?;
        // SAFETY: null pointers, alignment and overlaps have been checked; the rest is the caller's promise.
        let done = unsafe {
            let args = BackwardDataArgs::<CpuBackend<E>>::new(
                weights_of(weights),
                needed("x", call.x)?,
                needed("y", call.y)?,
                slice_mut(call.workspace).unwrap_or_default(),
            )
            .h0(slice(call.h0))
            .c0(slice(call.c0))
            .lengths(slice(call.lengths))
            .resets(slice(call.resets))
            .dy(slice(call.dy))
            .dhn(slice(call.dhn))
            .dcn(slice(call.dcn))
            .dx(slice_mut(call.dx))
            .dh0(slice_mut(call.dh0))
            .dc0(slice_mut(call.dc0));
            let reserve = Reserve::new(slice_mut::<E>(state.storage).unwrap_or_default());
            let reserve = reserve.filled(self.plan.fingerprint(), state.seed);
            self.backend.backward_data(&self.plan, args, reserve).map(drop)
        };
        self.put_back(joined);
        Ok(done?)
    }

    unsafe fn backward_weights(
        &self,
        layout: &WeightLayout,
        call: &Backward,
        state: &State,
        grad: WeightGrad,
    ) -> Result<()> {
        let (mut spans, element) = (self.backward_spans(call)?, size_of::<E>());
        spans.write("reserve", state.storage, element)?;
        // SAFETY: the caller's promise.
        let given = unsafe { call.dweights.given(layout, element) }?;
        let (target, grad_of_call, apart) = match given {
            Given::Whole(whole) => {
                if !spans.write("dweights", whole, element)? {
                    return Err(Failure::null("dweights"));
                }
                (whole, grad, None)
            }
            Given::Apart(tensors) => {
                for tensor in &tensors {
                    spans.write("dweights", *tensor, element)?;
                }
                let mut joined = self.buffer(layout.len())?;
                joined.resize(layout.len(), E::zero());
                let whole = Out { data: joined.as_mut_ptr().cast(), len: joined.len() };
                (whole, WeightGrad::Set, Some((joined, tensors)))
            }
        };
        spans.check()?;
        // SAFETY: null pointers, alignment and overlaps have been checked; the rest is the caller's promise.
        let done = unsafe {
            let args = BackwardWeightsArgs::<CpuBackend<E>>::new(
                needed("x", call.x)?,
                needed("y", call.y)?,
                needed_mut("dweights", target)?,
                slice_mut(call.workspace).unwrap_or_default(),
            )
            .h0(slice(call.h0))
            .c0(slice(call.c0))
            .lengths(slice(call.lengths))
            .resets(slice(call.resets));
            let reserve = Reserve::new(slice_mut::<E>(state.storage).unwrap_or_default());
            let mut reserve = reserve.filled(self.plan.fingerprint(), state.seed).differentiated();
            self.backend.backward_weights(&self.plan, args, &mut reserve, grad_of_call)
        };
        if let Some((joined, tensors)) = apart {
            if done.is_ok() {
                for (tensor, entry) in tensors.into_iter().zip(layout.entries()) {
                    // SAFETY: checked above, with the length that the layout says.
                    let tensor = unsafe { needed_mut::<E>("dweights", tensor) }?;
                    let part = joined.get(entry.range.clone()).unwrap_or_default();
                    for (out, value) in tensor.iter_mut().zip(part) {
                        *out = if grad == WeightGrad::Add { *out + *value } else { *value };
                    }
                }
            }
            self.put_back(Some(joined));
        }
        Ok(done?)
    }

    unsafe fn with_weights(&self, layout: &WeightLayout, weights: Weights, _stream: u64) -> Result<Box<dyn Engine>> {
        let mut spans = Spans::new();
        // SAFETY: the caller's promise.
        let (weights, joined) = unsafe { self.weights(layout, weights, &mut spans) }?;
        // SAFETY: checked; valid by the caller's promise.
        let plan = self.backend.with_weights(&self.plan, unsafe { needed::<E>("weights", weights) }?)?;
        self.put_back(joined);
        Ok(Box::new(Self::of(self.backend.clone(), plan, true)))
    }

    fn check(&self, _stream: u64) -> Result<()> {
        Ok(self.backend.check(&self.plan)?)
    }
}
