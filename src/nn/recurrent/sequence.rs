//! All steps of a layer by the fused operator.
#![expect(clippy::indexing_slicing, reason = "plans by the number that `planned` gives out")]

use crate::backend::device::{OnDevice, Plan, RepeatedRows};
use crate::backend::ops::MaskOrder;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Device, Filled, ForwardArgs, ForwardMode, Reserve, Tensor, TensorMut,
    TensorRef,
};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::op::{Backward, Forward, Op, States};
use crate::nn::recurrent::{Carried, RecurrentOptions, wrong_states};
use crate::rnn::{Direction, RnnDescriptor, RnnShape};

/// Plans kept: batches of training and validation with their smaller last ones, for training and for inference.
const PLANS: usize = 8;

/// A plan, and what it was made for.
pub(super) struct Planned {
    shape: RnnShape,
    mode: ForwardMode,
    pub plan: Plan,
    /// The version of the weights of the last call, and from the second call with them on the plan that has them.
    weights: Option<(u64, Option<Plan>)>,
}

impl Planned {
    /// The plan for an inference call with these weights of this version, and what is to be given to it for weights. One call packs them in
    /// passing, as a validation between epochs does; those that come back are packed once.
    fn with_weights<'w>(
        &mut self,
        device: &Device,
        weights: TensorRef<'w>,
        version: u64,
    ) -> Result<(&Plan, TensorRef<'w>)> {
        match &mut self.weights {
            Some((known, packed)) if *known == version => {
                if packed.is_none() && device.packs_weights() {
                    *packed = Some(device.with_weights(&self.plan, weights)?);
                }
            }
            other => *other = Some((version, None)),
        }
        match &self.weights {
            Some((_, Some(packed))) => Ok((packed, weights.part(0..0)?)),
            _ => Ok((&self.plan, weights)),
        }
    }
}

/// Position of a plan among those known.
fn known(plans: &[Planned], shape: RnnShape, mode: ForwardMode) -> Option<usize> {
    plans.iter().position(|known| known.shape == shape && known.mode == mode)
}

/// Position of a plan among those known, to which it is added if need be.
pub(super) fn planned(
    device: &Device,
    plans: &mut Vec<Planned>,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    mode: ForwardMode,
) -> Result<usize> {
    if let Some(index) = known(plans, shape, mode) {
        return Ok(index);
    }
    let plan = device.plan(descriptor, shape, mode)?;
    if plans.len() == PLANS {
        plans.remove(0);
    }
    plans.push(Planned { shape, mode, plan, weights: None });
    Ok(plans.len() - 1)
}

/// Indices that bring the valid steps of a batch to the front, and back.
struct Order {
    rows: Scratch,
    inverse: Scratch,
    hold: Scratch,
    lengths: Scratch,
}

impl Order {
    fn new() -> Self {
        Order { rows: Scratch::new(), inverse: Scratch::new(), hold: Scratch::new(), lengths: Scratch::new() }
    }

    fn grow(&mut self, device: &Device, batch: usize, steps: usize) -> Result<()> {
        for indices in [&mut self.rows, &mut self.inverse, &mut self.hold] {
            indices.grow_as(device, "order of steps", DType::U32, batch * steps)?;
        }
        self.lengths.grow_as(device, "lengths", DType::U32, batch)
    }
}

/// Inputs: x `[seq_len, features]`, mask `[seq_len]` or none, h0 `[units]` and the other states side by side or none. Outputs: y of every step or of the last; with
/// `return_state` h and c.
///
/// With a mask the valid steps are brought to the front, in their order, and computed with lengths; the output at every step is then
/// picked from them: where a step is absent, the one before in the order of processing. A sequence without any valid step has length 1
/// and a zero input there; nothing of it is used.
pub(super) struct Sequence {
    name: String,
    descriptor: RnnDescriptor,
    seq_len: usize,
    return_sequences: bool,
    stateful: bool,
    plans: Vec<Planned>,
    /// Outputs of all steps as the operator gives them, where they are not the layer's output.
    sequence: Scratch,
    /// Their gradient.
    dsequence: Scratch,
    /// Valid steps of x in front, and their gradient.
    compact: Scratch,
    dcompact: Scratch,
    order: Order,
    /// 1 for sequences with a valid step.
    any: Scratch,
    /// Last states as the operator gives them; and room for gradients of states.
    hn: Scratch,
    cn: Scratch,
    dh: Scratch,
    dc: Scratch,
    spare: Scratch,
    carried_h: Carried,
    carried_c: Carried,
    /// States that this batch started from, when stateful.
    started_h: Scratch,
    started_c: Scratch,
    workspace: Scratch,
    reserve: Scratch,
    /// The reserve between forward and backward.
    filled: Option<Reserve<Tensor, Filled>>,
    /// Rows of the table whose rows x has.
    table: Option<usize>,
    /// Their numbers in x, those of its valid steps, and room.
    numbers: Scratch,
    valid_numbers: Scratch,
    room: Scratch,
    index: Scratch,
}

/// Steps for each row of a table, from which on the gradients are summed for each row first.
const STEPS_OF_ROW: usize = 4;

impl Sequence {
    pub fn new(name: String, descriptor: RnnDescriptor, seq_len: usize, options: &RecurrentOptions) -> Self {
        Sequence {
            name,
            descriptor,
            seq_len,
            return_sequences: options.return_sequences,
            stateful: options.stateful,
            plans: Vec::new(),
            sequence: Scratch::new(),
            dsequence: Scratch::new(),
            compact: Scratch::new(),
            dcompact: Scratch::new(),
            order: Order::new(),
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
            table: None,
            numbers: Scratch::new(),
            valid_numbers: Scratch::new(),
            room: Scratch::new(),
            index: Scratch::new(),
        }
    }

    /// The same for x whose steps are rows of a table with `rows` rows, if they are: input 4 has their numbers.
    pub fn of_rows(self, rows: Option<usize>) -> Self {
        Sequence { table: rows, ..self }
    }

    fn has_c(&self) -> bool {
        self.descriptor.cell.has_cell_state()
    }

    /// Elements of a sample's state h, and of the others side by side.
    fn state_sizes(&self) -> [usize; 2] {
        let units = self.descriptor.hidden_size;
        [units, self.descriptor.cell.other_states() * units]
    }

    /// Elements of a batch of: x, y, h, the other states.
    fn sizes(&self, batch: usize) -> (usize, usize, usize, usize) {
        let (steps, [h, c]) = (batch * self.seq_len, self.state_sizes());
        (steps * self.descriptor.input_size, steps * h, batch * h, batch * c)
    }

    /// Position of the plan among those known, and the buffers made large enough for it.
    fn prepare(&mut self, device: &Device, batch: usize, mode: ForwardMode, masked: bool) -> Result<usize> {
        let shape = RnnShape { seq_len: self.seq_len, batch };
        let index = planned(device, &mut self.plans, &self.descriptor, shape, mode)?;
        let space = self.plans[index].plan.temp_space();
        self.workspace.grow(device, "workspace", space.workspace)?;
        if mode == ForwardMode::Training {
            self.reserve.grow(device, "reserve", space.reserve)?;
        }
        let (x, y, h, c) = self.sizes(batch);
        if masked || !self.return_sequences {
            self.sequence.grow(device, "y", y)?;
        }
        if masked {
            self.compact.grow(device, "valid steps", x)?;
            self.any.grow(device, "sequences with steps", batch)?;
            self.order.grow(device, batch, self.seq_len)?;
        }
        self.hn.grow(device, "hn", h)?;
        if self.has_c() {
            self.cn.grow(device, "cn", c)?;
        }
        if self.stateful {
            let (name, [width, other_width]) = (&self.name, self.state_sizes());
            self.carried_h.prepare(device, name, batch, width)?;
            self.started_h.grow(device, "h0", h)?;
            if self.descriptor.cell.has_cell_state() {
                self.carried_c.prepare(device, name, batch, other_width)?;
                self.started_c.grow(device, "c0", c)?;
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

impl Op for Sequence {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let mode = if pass.training { ForwardMode::Training } else { ForwardMode::Inference };
        if let Some(unused) = self.filled.take() {
            self.reserve.put(unused.release());
        }
        let batch = pass.batch;
        let mask = pass.inputs.optional(1);
        let index = self.prepare(device, batch, mode, mask.is_some())?;
        let (len_x, len_y, len_state, len_c) = self.sizes(batch);
        let (has_c, all_steps) = (self.has_c(), batch * self.seq_len);
        let Sequence { descriptor, plans, sequence, compact, order, any, hn, cn, workspace, reserve, filled, .. } =
            self;
        // Those of other sizes are not kept beside it.
        plans.iter_mut().enumerate().filter(|(other, _)| *other != index).for_each(|(_, other)| other.weights = None);
        let (plan, weights) = match mode {
            ForwardMode::Inference => plans[index].with_weights(device, pass.parameters, pass.version)?,
            ForwardMode::Training => (&plans[index].plan, pass.parameters),
        };

        let (mut x, mut lengths, mut valid) = (pass.inputs.get(0)?, None, None);
        if let Some(mask) = mask {
            let reverse = descriptor.direction == Direction::Reverse;
            let written = MaskOrder {
                rows: order.rows.get_mut(all_steps)?,
                inverse: order.inverse.get_mut(all_steps)?,
                hold: order.hold.get_mut(all_steps)?,
                lengths: order.lengths.get_mut(batch)?,
                any: any.get_mut(batch)?,
            };
            device.mask_order(self.seq_len, reverse, mask, written)?;
            device.gather(descriptor.input_size, x, order.rows.get(all_steps)?, compact.get_mut(len_x)?, None)?;
            x = compact.get(len_x)?;
            lengths = Some(order.lengths.get(batch)?);
            valid = Some(any.get(batch)?);
        }
        let (mut h0, mut c0) = (pass.inputs.optional(2), pass.inputs.optional(3));
        if self.stateful {
            device.copy(self.carried_h.tensor.get(len_state)?, self.started_h.get_mut(len_state)?)?;
            h0 = Some(self.started_h.get(len_state)?);
            if has_c {
                device.copy(self.carried_c.tensor.get(len_c)?, self.started_c.get_mut(len_c)?)?;
                c0 = Some(self.started_c.get(len_c)?);
            }
        }

        let [first, h, c, ..] = pass.outputs.each();
        let Some(mut first) = first else {
            return Err(Error::Presence { tensor: "y".to_owned(), problem: "it is not there".to_owned() });
        };
        // The operator writes the layer's output itself, unless steps are to be put back to their places.
        let (y, last) = match (self.return_sequences, valid) {
            (true, None) => (first.reborrow(), hn.get_mut(len_state)?),
            (false, None) => (sequence.get_mut(len_y)?, first.reborrow()),
            (_, Some(_)) => (sequence.get_mut(len_y)?, hn.get_mut(len_state)?),
        };
        let args = ForwardArgs::<OnDevice> {
            weights,
            x,
            h0,
            c0,
            lengths,
            resets: None,
            y,
            hn: Some(last),
            cn: if has_c { Some(cn.get_mut(len_c)?) } else { None },
            workspace: workspace.all()?,
            dropout_seed: 0,
        };
        match mode {
            ForwardMode::Inference => device.forward(plan, args)?,
            ForwardMode::Training => {
                let reserve = Reserve::new(reserve.take()?);
                *filled = Some(device.forward_training(plan, args, reserve)?);
            }
        }

        match valid {
            Some(_) if self.return_sequences => {
                let (y, hold) = (sequence.get(len_y)?, order.hold.get(all_steps)?);
                device.gather(descriptor.hidden_size, y, hold, first.reborrow(), None)?;
            }
            Some(valid) => device.select_rows(valid, hn.get(len_state)?, None, first.reborrow())?,
            None => {}
        }
        let last_h = if self.return_sequences || valid.is_some() { hn.get(len_state)? } else { first.view() };
        // The last states: those of a sequence without steps are the initial ones.
        let state = |from: TensorRef<'_>, initial: Option<TensorRef<'_>>, to: TensorMut<'_>| match valid {
            None => device.copy(from, to),
            Some(valid) => device.select_rows(valid, from, initial, to),
        };
        if let Some(h) = h {
            state(last_h, h0, h)?;
        }
        if let Some(c) = c {
            state(cn.get(len_c)?, c0, c)?;
        }
        if self.stateful {
            state(last_h, h0, self.carried_h.tensor.get_mut(len_state)?)?;
            if has_c {
                state(cn.get(len_c)?, c0, self.carried_c.tensor.get_mut(len_c)?)?;
            }
        }
        Ok(())
    }

    fn check(&self, device: &Device) -> Result<()> {
        self.plans.iter().try_for_each(|planned| device.check(&planned.plan))
    }

    fn is_stateful(&self) -> bool {
        self.stateful
    }

    fn carried_batch(&self) -> Option<usize> {
        self.carried_h.batch
    }

    fn reset_states(&mut self) {
        self.carried_h.batch = None;
        self.carried_c.batch = None;
    }

    fn take_states(&mut self) -> Option<States> {
        let [h, c] =
            [&mut self.carried_h, &mut self.carried_c].map(|carried| std::mem::replace(carried, Carried::new()));
        h.batch.is_some().then(|| Box::new([h, c]) as States)
    }

    fn give_states(&mut self, states: States) {
        if let Ok(states) = states.downcast::<[Carried; 2]>() {
            [self.carried_h, self.carried_c] = *states;
        }
    }

    fn carried_states(&self) -> Option<Vec<TensorRef<'_>>> {
        Some([&self.carried_h, &self.carried_c].into_iter().filter_map(Carried::view).collect())
    }

    fn carry_states(&mut self, device: &Device, rows: usize, states: &[TensorRef<'_>]) -> Result<()> {
        let (count, widths) = (1 + usize::from(self.has_c()), self.state_sizes());
        if states.len() != count {
            return Err(wrong_states(&self.name, count, states.len()));
        }
        let carried = [&mut self.carried_h, &mut self.carried_c];
        for ((carried, width), from) in carried.into_iter().zip(widths).zip(states) {
            carried.set(device, &self.name, rows, width, *from)?;
        }
        Ok(())
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let reserve = self.filled.take().ok_or_else(|| self.no_forward())?;
        let batch = pass.batch;
        let shape = RnnShape { seq_len: self.seq_len, batch };
        let index = known(&self.plans, shape, ForwardMode::Training).ok_or_else(|| self.no_forward())?;
        let (len_x, len_y, len_state, len_c) = self.sizes(batch);
        let (has_c, all_steps) = (self.has_c(), batch * self.seq_len);
        let masked = pass.inputs.optional(1).is_some();
        // Gradients of the last states that reach the operator.
        let (dy_first, dh_out, dc_out) =
            (pass.doutputs.optional(0), pass.doutputs.optional(1), pass.doutputs.optional(2));
        self.spare.grow(device, "gradient of a state", len_state.max(len_c))?;
        if masked {
            self.dsequence.grow(device, "dy", len_y)?;
            self.dcompact.grow(device, "dx", len_x)?;
            self.dh.grow(device, "dhn", len_state)?;
            self.dc.grow(device, "dcn", len_c)?;
        }
        let Sequence { descriptor, plans, sequence, compact, order, any, spare, workspace, .. } = self;
        let (dsequence, dcompact, dh, dc) = (&mut self.dsequence, &mut self.dcompact, &mut self.dh, &mut self.dc);
        let plan = &plans[index].plan;
        let valid = if masked { Some(any.get(batch)?) } else { None };
        let (mut dy, last) = if self.return_sequences { (dy_first, None) } else { (None, dy_first) };
        let mut dhn = match (last, dh_out) {
            (Some(a), Some(b)) => {
                let mut sum = spare.get_mut(len_state)?;
                device.copy(a, sum.reborrow())?;
                device.scale_add(1.0, b, 1.0, sum)?;
                Some(spare.get(len_state)?)
            }
            (one, other) => one.or(other),
        };
        let mut dcn = dc_out;
        if let Some(valid) = valid {
            for (gradient, kept, len) in [(&mut dhn, dh, len_state), (&mut dcn, dc, len_c)] {
                let Some(given) = *gradient else { continue };
                device.select_rows(valid, given, None, kept.get_mut(len)?)?;
                *gradient = Some(kept.get(len)?);
            }
        }

        let y = if masked || !self.return_sequences { sequence.get(len_y)? } else { pass.outputs.get(0)? };
        let (mut x, mut lengths) = (pass.inputs.get(0)?, None);
        if masked {
            if let Some(given) = dy {
                let (hold, width) = (order.hold.get(all_steps)?, descriptor.hidden_size);
                device.hold_gradient(self.seq_len, width, hold, given, dsequence.get_mut(len_y)?)?;
                dy = Some(dsequence.get(len_y)?);
            }
            x = compact.get(len_x)?;
            lengths = Some(order.lengths.get(batch)?);
        }
        let (mut h0, mut c0) = (pass.inputs.optional(2), pass.inputs.optional(3));
        if self.stateful {
            h0 = Some(self.started_h.get(len_state)?);
            if has_c {
                c0 = Some(self.started_c.get(len_c)?);
            }
        }
        let [mut dx, _, mut dh0, mut dc0, dnumbers] = pass.dinputs.each();
        if let Some(dnumbers) = dnumbers {
            device.fill(dnumbers, 0.0)?;
        }
        let repeated = match self.table.filter(|rows| dx.is_some() && all_steps >= rows.saturating_mul(STEPS_OF_ROW)) {
            Some(rows) => device.repeated_room(plan, rows)?.map(|room| (rows, room)),
            None => None,
        };
        let mut dx_of_operator = match (&mut dx, masked) {
            (Some(_), true) => Some(dcompact.get_mut(len_x)?),
            (dx, _) => dx.as_mut().map(TensorMut::reborrow),
        };
        let dx_of_rows = if repeated.is_some() { dx_of_operator.take() } else { None };
        let args = BackwardDataArgs::<OnDevice> {
            weights: pass.parameters,
            x,
            y,
            h0,
            c0,
            lengths,
            resets: None,
            dy,
            dhn,
            dcn,
            dx: dx_of_operator,
            dh0: dh0.as_mut().map(TensorMut::reborrow),
            dc0: dc0.as_mut().map(TensorMut::reborrow),
            workspace: workspace.all()?,
        };
        let mut reserve = device.backward_data(plan, args, reserve)?;
        let args = BackwardWeightsArgs::<OnDevice> {
            x,
            y,
            h0,
            c0,
            lengths,
            resets: None,
            dweights: pass.dparameters,
            workspace: workspace.all()?,
        };
        match (repeated, dx_of_rows) {
            (Some((rows, (room, index))), Some(dx)) => {
                self.room.grow(device, "sums of rows", room)?;
                self.index.grow_as(device, "numbers of rows", DType::U32, index)?;
                self.numbers.grow_as(device, "numbers of rows", DType::U32, all_steps)?;
                let mut given = pass.inputs.get(4)?;
                if masked {
                    self.valid_numbers.grow(device, "numbers of rows", all_steps)?;
                    let valid = self.valid_numbers.get_mut(all_steps)?;
                    device.gather(1, given, order.rows.get(all_steps)?, valid, None)?;
                    given = self.valid_numbers.get(all_steps)?;
                }
                device.indices(rows, given, self.numbers.get_mut(all_steps)?, None)?;
                let rows = RepeatedRows {
                    weights: pass.parameters,
                    numbers: self.numbers.get(all_steps)?,
                    count: rows,
                    dx,
                    room: self.room.all()?,
                    index: self.index.all()?,
                };
                device.backward_weights_repeated(plan, args, rows, &mut reserve, pass.grad)?;
            }
            _ => device.backward_weights(plan, args, &mut reserve, pass.grad)?,
        }
        self.reserve.put(reserve.release());

        let Some(valid) = valid else { return Ok(()) };
        if let Some(dx) = dx {
            let inverse = order.inverse.get(all_steps)?;
            device.gather(descriptor.input_size, dcompact.get(len_x)?, inverse, dx, None)?;
        }
        // The last state of a sequence without steps is the initial one, and so is its gradient.
        for (initial, out, len) in [(dh0, dh_out, len_state), (dc0, dc_out, len_c)] {
            let Some(initial) = initial else { continue };
            device.copy(initial.view(), spare.get_mut(len)?)?;
            device.select_rows(valid, spare.get(len)?, out, initial)?;
        }
        Ok(())
    }
}
