//! All steps of a layer by the fused operator.

use std::borrow::{Borrow, BorrowMut};

use crate::backend::tensor::MaskOrder;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, DenseBackend, Filled, ForwardArgs, ForwardMode, Reserve, TempSpace,
};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::recurrent::{Carried, RecurrentOptions};
use crate::rnn::{Direction, RnnDescriptor, RnnShape};

/// Plans kept: batches of training and validation with their smaller last ones, for training and for inference.
const PLANS: usize = 8;

struct Planned<P> {
    batch: usize,
    mode: ForwardMode,
    plan: P,
    space: TempSpace,
}

/// Indices that bring the valid steps of a batch to the front, and back.
struct Order<B: DenseBackend> {
    batch: usize,
    rows: B::Owned<u32>,
    inverse: B::Owned<u32>,
    hold: B::Owned<u32>,
    lengths: B::Owned<u32>,
}

/// Inputs: x `[seq_len, features]`, mask `[seq_len]` or none, h0 and c0 `[units]` or none. Outputs: y of every step or of the last; with
/// `return_state` h and c.
///
/// With a mask the valid steps are brought to the front, in their order, and computed with lengths; the output at every step is then
/// picked from them: where a step is absent, the one before in the order of processing. A sequence without any valid step has length 1
/// and a zero input there; nothing of it is used.
pub(super) struct Sequence<B: DenseBackend> {
    name: String,
    descriptor: RnnDescriptor,
    seq_len: usize,
    return_sequences: bool,
    return_state: bool,
    stateful: bool,
    plans: Vec<Planned<B::Plan>>,
    /// Outputs of all steps as the operator gives them, where they are not the layer's output.
    sequence: Scratch<B>,
    /// Their gradient.
    dsequence: Scratch<B>,
    /// Valid steps of x in front, and their gradient.
    compact: Scratch<B>,
    dcompact: Scratch<B>,
    order: Option<Order<B>>,
    /// 1 for sequences with a valid step.
    any: Scratch<B>,
    /// Last states as the operator gives them; and room for gradients of states.
    hn: Scratch<B>,
    cn: Scratch<B>,
    dh: Scratch<B>,
    dc: Scratch<B>,
    spare: Scratch<B>,
    carried_h: Carried<B>,
    carried_c: Carried<B>,
    /// States that this batch started from, when stateful.
    started_h: Scratch<B>,
    started_c: Scratch<B>,
    workspace: Scratch<B>,
    reserve: Scratch<B>,
    /// The reserve between forward and backward.
    filled: Option<Reserve<B::Owned<B::Elem>, Filled>>,
}

impl<B: DenseBackend> Sequence<B> {
    pub fn new(name: String, descriptor: RnnDescriptor, seq_len: usize, options: &RecurrentOptions) -> Self {
        Sequence {
            name,
            descriptor,
            seq_len,
            return_sequences: options.return_sequences,
            return_state: options.return_state,
            stateful: options.stateful,
            plans: Vec::new(),
            sequence: Scratch::new(),
            dsequence: Scratch::new(),
            compact: Scratch::new(),
            dcompact: Scratch::new(),
            order: None,
            any: Scratch::new(),
            hn: Scratch::new(),
            cn: Scratch::new(),
            dh: Scratch::new(),
            dc: Scratch::new(),
            spare: Scratch::new(),
            carried_h: Carried::new(),
            carried_c: Carried::new(),
            started_h: Scratch::new(),
            started_c: Scratch::new(),
            workspace: Scratch::new(),
            reserve: Scratch::new(),
            filled: None,
        }
    }

    fn has_c(&self) -> bool {
        self.descriptor.cell.has_cell_state()
    }

    /// Elements of a batch of: x, y, a state.
    fn sizes(&self, batch: usize) -> (usize, usize, usize) {
        let (steps, units) = (batch * self.seq_len, self.descriptor.hidden_size);
        (steps * self.descriptor.input_size, steps * units, batch * units)
    }

    /// Position of the plan in the cache, and the buffers made large enough for it.
    fn prepare(&mut self, backend: &B, batch: usize, mode: ForwardMode, masked: bool) -> Result<usize> {
        let known = self.plans.iter().position(|p| p.batch == batch && p.mode == mode);
        let index = match known {
            Some(index) => index,
            None => {
                let shape = RnnShape { seq_len: self.seq_len, batch };
                let plan = backend.plan(&self.descriptor, shape, mode)?;
                let space = backend.temp_space(&plan);
                if self.plans.len() == PLANS {
                    self.plans.remove(0);
                }
                self.plans.push(Planned { batch, mode, plan, space });
                self.plans.len() - 1
            }
        };
        let space = self.plans[index].space;
        self.workspace.grow(backend, "workspace", space.workspace)?;
        if mode == ForwardMode::Training {
            self.reserve.grow(backend, "reserve", space.reserve)?;
        }
        let (x, y, state) = self.sizes(batch);
        if masked || !self.return_sequences {
            self.sequence.grow(backend, "y", y)?;
        }
        if masked {
            self.compact.grow(backend, "valid steps", x)?;
            self.any.grow(backend, "sequences with steps", batch)?;
            if self.order.as_ref().is_none_or(|order| order.batch < batch) {
                let steps = batch * self.seq_len;
                self.order = Some(Order {
                    batch,
                    rows: backend.allocate("order of steps", steps)?,
                    inverse: backend.allocate("order of steps", steps)?,
                    hold: backend.allocate("order of steps", steps)?,
                    lengths: backend.allocate("lengths", batch)?,
                });
            }
        }
        self.hn.grow(backend, "hn", state)?;
        if self.has_c() {
            self.cn.grow(backend, "cn", state)?;
        }
        if self.stateful {
            let (name, units) = (&self.name, self.descriptor.hidden_size);
            self.carried_h.prepare(backend, name, batch, units)?;
            self.started_h.grow(backend, "h0", state)?;
            if self.descriptor.cell.has_cell_state() {
                self.carried_c.prepare(backend, name, batch, units)?;
                self.started_c.grow(backend, "c0", state)?;
            }
        }
        Ok(index)
    }

    fn no_forward(&self) -> Error {
        Error::Presence {
            tensor: format!("reserve of {}", self.name),
            problem: "backward needs a forward pass in training mode before it, with as many samples".to_owned(),
        }
    }
}

impl<B: DenseBackend> Op<B> for Sequence<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let mode = if pass.training { ForwardMode::Training } else { ForwardMode::Inference };
        if let Some(unused) = self.filled.take() {
            self.reserve.put(unused.release());
        }
        let batch = pass.batch;
        let mask = pass.inputs.optional(1);
        let index = self.prepare(backend, batch, mode, mask.is_some())?;
        let (len_x, len_y, len_state) = self.sizes(batch);
        let (units, features, steps) = (self.descriptor.hidden_size, self.descriptor.input_size, self.seq_len);
        let reverse = self.descriptor.direction == Direction::Reverse;
        let Sequence { plans, sequence, compact, order, any, hn, cn, workspace, reserve, filled, .. } = self;
        let plan = &plans[index].plan;

        if let (Some(mask), Some(order)) = (mask, order.as_mut()) {
            let mut rows = backend.view_mut(order.rows.borrow_mut(), 0..batch * steps)?;
            backend.mask_order(
                steps,
                reverse,
                mask,
                MaskOrder {
                    rows: &mut rows,
                    inverse: &mut *backend.view_mut(order.inverse.borrow_mut(), 0..batch * steps)?,
                    hold: &mut *backend.view_mut(order.hold.borrow_mut(), 0..batch * steps)?,
                    lengths: &mut *backend.view_mut(order.lengths.borrow_mut(), 0..batch)?,
                    any: &mut *any.get_mut(backend, batch)?,
                },
            )?;
            backend.pick_rows(features, pass.inputs.get(0)?, &rows, &mut *compact.get_mut(backend, len_x)?)?;
        }
        let order = order.as_ref().filter(|_| mask.is_some());
        let compacted;
        let mut lengths = None;
        let mut x = pass.inputs.get(0)?;
        if let Some(order) = order {
            lengths = Some(backend.view(order.lengths.borrow(), 0..batch)?);
            compacted = compact.get(backend, len_x)?;
            x = &*compacted;
        }

        let (started_h, started_c);
        let (mut h0, mut c0) = (pass.inputs.optional(2), pass.inputs.optional(3));
        if self.stateful {
            let mut start = self.started_h.get_mut(backend, len_state)?;
            backend.copy(&*self.carried_h.tensor.get(backend, len_state)?, &mut start)?;
            drop(start);
            started_h = self.started_h.get(backend, len_state)?;
            h0 = Some(&*started_h);
            if self.descriptor.cell.has_cell_state() {
                let mut start = self.started_c.get_mut(backend, len_state)?;
                backend.copy(&*self.carried_c.tensor.get(backend, len_state)?, &mut start)?;
                drop(start);
                started_c = self.started_c.get(backend, len_state)?;
                c0 = Some(&*started_c);
            }
        }

        {
            let mut all;
            let y = if mask.is_some() || !self.return_sequences {
                all = sequence.get_mut(backend, len_y)?;
                &mut *all
            } else {
                pass.outputs.get(0)?
            };
            let mut last_h = hn.get_mut(backend, len_state)?;
            let mut last_c = match self.descriptor.cell.has_cell_state() {
                true => Some(cn.get_mut(backend, len_state)?),
                false => None,
            };
            let args = ForwardArgs {
                weights: pass.parameters,
                x,
                h0,
                c0,
                lengths: lengths.as_deref(),
                resets: None,
                y,
                hn: Some(&mut *last_h),
                cn: last_c.as_deref_mut(),
                workspace: workspace.all()?,
                dropout_seed: 0,
            };
            match mode {
                ForwardMode::Inference => backend.forward(plan, args)?,
                ForwardMode::Training => {
                    let reserve = Reserve::new(reserve.take()?);
                    *filled = Some(backend.forward_training(plan, args, reserve)?);
                }
            }
        }

        let last_h = hn.get(backend, len_state)?;
        let mut outputs = pass.outputs.each().into_iter();
        let first = outputs.next().flatten();
        let valid = match mask {
            Some(_) => Some(any.get(backend, batch)?),
            None => None,
        };
        if self.return_sequences {
            if let (Some(order), Some(first)) = (order, first) {
                let hold = backend.view(order.hold.borrow(), 0..batch * steps)?;
                backend.pick_rows(units, &*sequence.get(backend, len_y)?, &hold, first)?;
            }
        } else if let Some(first) = first {
            match &valid {
                None => backend.copy(&last_h, first)?,
                Some(any) => backend.select_rows(any, &last_h, None, first)?,
            }
        }
        // The last states: those of a sequence without steps are the initial ones.
        let state = |from: &B::Buffer, initial: Option<&B::Buffer>, to: &mut B::Buffer| match &valid {
            None => backend.copy(from, to),
            Some(any) => backend.select_rows(any, from, initial, to),
        };
        if self.return_state {
            if let Some(h) = outputs.next().flatten() {
                state(&last_h, h0, h)?;
            }
            if self.descriptor.cell.has_cell_state()
                && let Some(c) = outputs.next().flatten()
            {
                state(&*cn.get(backend, len_state)?, c0, c)?;
            }
        }
        if self.stateful {
            state(&last_h, h0, &mut *self.carried_h.tensor.get_mut(backend, len_state)?)?;
            if self.descriptor.cell.has_cell_state() {
                let mut carried = self.carried_c.tensor.get_mut(backend, len_state)?;
                state(&*cn.get(backend, len_state)?, c0, &mut carried)?;
            }
        }
        Ok(())
    }

    fn check(&self, backend: &B) -> Result<()> {
        self.plans.iter().try_for_each(|planned| backend.check(&planned.plan))
    }

    fn is_stateful(&self) -> bool {
        self.stateful
    }

    fn reset_states(&mut self) {
        self.carried_h.batch = None;
        self.carried_c.batch = None;
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        let reserve = self.filled.take().ok_or_else(|| self.no_forward())?;
        let batch = pass.batch;
        let index = self.plans.iter().position(|p| p.batch == batch && p.mode == ForwardMode::Training);
        let index = index.ok_or_else(|| self.no_forward())?;
        let (len_x, len_y, len_state) = self.sizes(batch);
        let (units, features, steps) = (self.descriptor.hidden_size, self.descriptor.input_size, self.seq_len);
        let has_c = self.has_c();
        let masked = pass.inputs.optional(1).is_some();
        // Gradients of the last states that reach the operator.
        let (dy_first, dh_out, dc_out) =
            (pass.doutputs.optional(0), pass.doutputs.optional(1), pass.doutputs.optional(2));
        self.dh.grow(backend, "dhn", len_state)?;
        self.spare.grow(backend, "gradient of a state", len_state)?;
        if has_c {
            self.dc.grow(backend, "dcn", len_state)?;
        }
        if masked {
            self.dsequence.grow(backend, "dy", len_y)?;
            self.dcompact.grow(backend, "dx", len_x)?;
        }
        let Sequence { plans, sequence, dsequence, compact, dcompact, order, any, dh, dc, spare, workspace, .. } = self;
        let plan = &plans[index].plan;
        let any = match masked {
            true => Some(any.get(backend, batch)?),
            false => None,
        };
        let last = if self.return_sequences { None } else { dy_first };
        {
            let mut dh = dh.get_mut(backend, len_state)?;
            match (last, dh_out) {
                (Some(a), Some(b)) => backend.add(a, b, &mut dh)?,
                (Some(a), None) | (None, Some(a)) => backend.copy(a, &mut dh)?,
                (None, None) => {}
            }
            if let (Some(any), true) = (&any, last.is_some() || dh_out.is_some()) {
                let mut whole = spare.get_mut(backend, len_state)?;
                backend.copy(&dh, &mut whole)?;
                backend.select_rows(any, &whole, None, &mut dh)?;
            }
            if let Some(dc_out) = dc_out {
                let mut dc = dc.get_mut(backend, len_state)?;
                match &any {
                    None => backend.copy(dc_out, &mut dc)?,
                    Some(any) => backend.select_rows(any, dc_out, None, &mut dc)?,
                }
            }
        }
        let dhn = if last.is_some() || dh_out.is_some() { Some(dh.get(backend, len_state)?) } else { None };
        let dcn = if dc_out.is_some() { Some(dc.get(backend, len_state)?) } else { None };

        let (whole, dwhole, picked, lengths);
        let mut dy = if self.return_sequences { dy_first } else { None };
        let mut y = if self.return_sequences { Some(pass.outputs.get(0)?) } else { None };
        let mut x = pass.inputs.get(0)?;
        let mut valid_lengths = None;
        if masked || !self.return_sequences {
            whole = sequence.get(backend, len_y)?;
            y = Some(&*whole);
        }
        let order = if masked { order.as_ref() } else { None };
        if let Some(order) = order {
            if let Some(given) = dy {
                let hold = backend.view(order.hold.borrow(), 0..batch * steps)?;
                backend.hold_gradient(steps, units, &hold, given, &mut *dsequence.get_mut(backend, len_y)?)?;
                dwhole = dsequence.get(backend, len_y)?;
                dy = Some(&*dwhole);
            }
            picked = compact.get(backend, len_x)?;
            x = &*picked;
            lengths = backend.view(order.lengths.borrow(), 0..batch)?;
            valid_lengths = Some(&*lengths);
        }
        let Some(y) = y else {
            return Err(Error::Presence { tensor: "y".to_owned(), problem: "it is not there".to_owned() });
        };

        let (started_h, started_c);
        let (mut h0, mut c0) = (pass.inputs.optional(2), pass.inputs.optional(3));
        if self.stateful {
            started_h = self.started_h.get(backend, len_state)?;
            h0 = Some(&*started_h);
            if has_c {
                started_c = self.started_c.get(backend, len_state)?;
                c0 = Some(&*started_c);
            }
        }
        let [dx, _, dh0, dc0] = pass.dinputs.each();
        let mut dcompacted = match (order, &dx) {
            (Some(_), Some(_)) => Some(dcompact.get_mut(backend, len_x)?),
            _ => None,
        };
        let (dx, dx_of_steps) = match &mut dcompacted {
            Some(compacted) => (Some(&mut **compacted), dx),
            None => (dx, None),
        };
        let (mut dh0, mut dc0) = (dh0, dc0);
        let args = BackwardDataArgs {
            weights: pass.parameters,
            y,
            h0,
            c0,
            lengths: valid_lengths,
            resets: None,
            dy,
            dhn: dhn.as_deref(),
            dcn: dcn.as_deref(),
            dx,
            dh0: dh0.as_deref_mut(),
            dc0: dc0.as_deref_mut(),
            workspace: workspace.all()?,
        };
        let mut reserve = backend.backward_data(plan, args, reserve)?;
        let args = BackwardWeightsArgs {
            x,
            y,
            h0,
            c0,
            lengths: valid_lengths,
            resets: None,
            dweights: pass.dparameters,
            workspace: workspace.all()?,
        };
        backend.backward_weights(plan, args, &mut reserve, pass.grad)?;
        self.reserve.put(reserve.release());

        if let (Some(order), Some(compacted), Some(dx)) = (order, dcompacted, dx_of_steps) {
            let inverse = backend.view(order.inverse.borrow(), 0..batch * steps)?;
            backend.pick_rows(features, &compacted, &inverse, dx)?;
        }
        // The last state of a sequence without steps is the initial one, and so is its gradient.
        if let Some(any) = &any {
            for (initial, out) in [(dh0, dh_out), (dc0, dc_out)] {
                let Some(initial) = initial else { continue };
                let mut computed = spare.get_mut(backend, len_state)?;
                backend.copy(initial, &mut computed)?;
                backend.select_rows(any, &computed, out, initial)?;
            }
        }
        Ok(())
    }
}
