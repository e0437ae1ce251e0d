//! Dropout that is the same at every step, recurrent dropout, and zoneout.
#![expect(
    clippy::indexing_slicing,
    reason = "plans by the number that `planned` gives out; parts and steps by those of the cell"
)]

use std::ops::Range;

use crate::backend::device::OnDevice;
use crate::backend::ops::Strides;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Device, Filled, ForwardArgs, ForwardMode, Reserve, Tensor, TensorMut,
    TensorRef, WeightGrad,
};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Init};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::recurrent::cell::{Cell, CellBackward, CellForward};
use crate::nn::recurrent::sequence::{Planned, planned};
use crate::nn::shape::{Columns, copy_columns};
use crate::rnn::dropout::Dropout;
use crate::rnn::{Direction, RnnDescriptor, RnnShape};

/// `x * mask` with one mask `[features]` for all steps of a sequence, as Keras's recurrent layers have it.
pub(in crate::nn) struct StepDropout {
    rate: f64,
    number: u32,
    steps: usize,
    features: usize,
    ones: Scratch,
    mask: Scratch,
    masks: Scratch,
}

impl StepDropout {
    pub fn new(rate: f64, number: u32, steps: usize, features: usize) -> Self {
        let (ones, mask, masks) = (Scratch::new(), Scratch::new(), Scratch::new());
        StepDropout { rate, number, steps, features, ones, mask, masks }
    }

    fn apply(&mut self, device: &Device, seed: u64, batch: usize, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        let (steps, features) = (self.steps, self.features);
        draw(device, &mut self.ones, &mut self.mask, self.rate, seed, self.number as usize, batch, features)?;
        let len = batch * steps * features;
        self.masks.grow(device, "masks", len)?;
        let f = features as isize;
        let from = Strides { offset: 0, strides: [0, f, 0, 1] };
        let to = Strides { offset: 0, strides: [0, steps as isize * f, f, 1] };
        let (mask, masks) = (self.mask.get(batch * features)?, self.masks.get_mut(len)?);
        device.strided_copy([1, batch, steps, features], mask, from, masks, to, WeightGrad::Set)?;
        device.multiply(x, self.masks.get(len)?, y)
    }
}

/// A mask `[batch, width]` of zeros and `1 / (1 - rate)`.
#[allow(clippy::too_many_arguments)]
fn draw(
    device: &Device,
    ones: &mut Scratch,
    mask: &mut Scratch,
    rate: f64,
    seed: u64,
    stream: usize,
    batch: usize,
    width: usize,
) -> Result<()> {
    ones.grow(device, "ones", batch * width)?;
    mask.grow(device, "mask", batch * width)?;
    device.fill(ones.get_mut(batch * width)?, 1.0)?;
    let (ones, mask) = (ones.get(batch * width)?, mask.get_mut(batch * width)?);
    device.dropout(&Dropout::new(rate, seed), stream, batch, width, ones, mask)
}

impl Op for StepDropout {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        if pass.training { self.apply(device, pass.seed, pass.batch, x, y) } else { device.copy(x, y) }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        self.apply(device, pass.seed, pass.batch, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// The cell of a recurrent operator, one step by a plan for one step. State: h, and the other states behind it.
pub(super) struct Operator {
    descriptor: RnnDescriptor,
    plans: Vec<Planned>,
    /// h, c before the step; h, c after it; and gradients of all four.
    parts: [Scratch; 8],
    workspace: Scratch,
    unused: Vec<Tensor>,
    filled: Vec<Option<Reserve<Tensor, Filled>>>,
}

impl Operator {
    pub fn new(descriptor: &RnnDescriptor) -> Self {
        Operator {
            descriptor: RnnDescriptor { direction: Direction::Forward, ..descriptor.clone() },
            plans: Vec::new(),
            parts: std::array::from_fn(|_| Scratch::new()),
            workspace: Scratch::new(),
            unused: Vec::new(),
            filled: Vec::new(),
        }
    }

    /// Parts of a state: h, and where there are others those.
    fn states(&self) -> usize {
        if self.descriptor.cell.has_cell_state() { 2 } else { 1 }
    }

    /// Elements of a part of a sample's state.
    fn width(&self, part: usize) -> usize {
        let units = self.descriptor.hidden_size;
        if part == 0 { units } else { self.descriptor.cell.other_states() * units }
    }

    /// Position of the plan among those known, and the buffers made large enough for it.
    fn plan(&mut self, device: &Device, batch: usize, mode: ForwardMode) -> Result<usize> {
        let shape = RnnShape { seq_len: 1, batch };
        let index = planned(device, &mut self.plans, &self.descriptor, shape, mode)?;
        self.workspace.grow(device, "workspace", self.plans[index].plan.temp_space().workspace)?;
        let width = self.width(0).max(self.width(1));
        for part in &mut self.parts {
            part.grow(device, "states of a step", batch * width)?;
        }
        Ok(index)
    }

    /// Column block `part` of a state, how it stands alone, and its width.
    fn columns(&self, part: usize) -> (Columns, Columns, usize) {
        let (whole, width) = (self.width(0) + self.width(1), self.width(part));
        (Columns { width: whole, first: part * self.width(0) }, Columns::all(width), width)
    }

    fn take(&mut self, device: &Device, batch: usize, from: TensorRef<'_>, part: usize, to: usize) -> Result<()> {
        let (whole, own, width) = self.columns(part);
        copy_columns(device, width, from, whole, self.parts[to].get_mut(batch * width)?, own)
    }

    fn put(&self, device: &Device, batch: usize, from: usize, to: TensorMut<'_>, part: usize) -> Result<()> {
        let (whole, own, width) = self.columns(part);
        copy_columns(device, width, self.parts[from].get(batch * width)?, own, to, whole)
    }
}

impl Cell for Operator {
    fn output_size(&self) -> usize {
        self.descriptor.hidden_size
    }

    fn state_size(&self) -> usize {
        self.width(0) + self.width(1)
    }

    fn parameters(&self, _: usize) -> Vec<(String, Vec<usize>, Init)> {
        // The layer has asked for them already: they are those of the operator.
        Vec::new()
    }

    fn forward(&mut self, device: &Device, mut step: CellForward<'_>) -> Result<()> {
        let mode = if step.training { ForwardMode::Training } else { ForwardMode::Inference };
        let index = self.plan(device, step.batch, mode)?;
        let (len, len_c) = (step.batch * self.width(0), step.batch * self.width(1));
        for part in 0..self.states() {
            self.take(device, step.batch, step.state, part, part)?;
        }
        let has_c = self.descriptor.cell.has_cell_state();
        let Operator { plans, parts, workspace, unused, filled, .. } = self;
        let plan = &plans[index].plan;
        let [h0, c0, y, cn, ..] = parts;
        let args = ForwardArgs::<OnDevice> {
            weights: step.parameters,
            x: step.x,
            h0: Some(h0.get(len)?),
            c0: if has_c { Some(c0.get(len_c)?) } else { None },
            lengths: None,
            resets: None,
            y: y.get_mut(len)?,
            hn: None,
            cn: if has_c { Some(cn.get_mut(len_c)?) } else { None },
            workspace: workspace.all()?,
            dropout_seed: 0,
        };
        match mode {
            ForwardMode::Inference => device.forward(plan, args)?,
            ForwardMode::Training => {
                filled.resize_with(filled.len().max(step.step + 1), || None);
                let storage = match filled[step.step].take() {
                    Some(old) => Some(old.release()),
                    None => unused.pop(),
                };
                let needed = plan.temp_space().reserve;
                let storage = match storage.filter(|storage| storage.len() >= needed) {
                    Some(storage) => storage,
                    None => device.allocate("reserve", needed)?,
                };
                filled[step.step] = Some(device.forward_training(plan, args, Reserve::new(storage))?);
            }
        }
        for part in 0..self.states() {
            self.put(device, step.batch, 2 + part, step.new_state.reborrow(), part)?;
        }
        Ok(())
    }

    fn backward(&mut self, device: &Device, mut step: CellBackward<'_>) -> Result<()> {
        let index = self.plan(device, step.batch, ForwardMode::Training)?;
        let (len, len_c) = (step.batch * self.width(0), step.batch * self.width(1));
        for part in 0..self.states() {
            self.take(device, step.batch, step.state, part, part)?;
            self.take(device, step.batch, step.new_state, part, 2 + part)?;
            self.take(device, step.batch, step.dnew_state, part, 4 + part)?;
        }
        let reserve = self.filled.get_mut(step.step).and_then(Option::take).ok_or_else(|| Error::Presence {
            tensor: "reserve of a step".to_owned(),
            problem: "backward needs a forward pass in training mode before it".to_owned(),
        })?;
        let has_c = self.descriptor.cell.has_cell_state();
        let Operator { plans, parts, workspace, unused, .. } = self;
        let plan = &plans[index].plan;
        let [h0, c0, y, _, dhn, dcn, dh0, dc0] = parts;
        let (h0, c0) = (Some(h0.get(len)?), if has_c { Some(c0.get(len_c)?) } else { None });
        let y = y.get(len)?;
        let args = BackwardDataArgs::<OnDevice> {
            weights: step.parameters,
            x: step.x,
            y,
            h0,
            c0,
            lengths: None,
            resets: None,
            dy: Some(dhn.get(len)?),
            dhn: None,
            dcn: if has_c { Some(dcn.get(len_c)?) } else { None },
            dx: Some(step.dx),
            dh0: Some(dh0.get_mut(len)?),
            dc0: if has_c { Some(dc0.get_mut(len_c)?) } else { None },
            workspace: workspace.all()?,
        };
        let mut reserve = device.backward_data(plan, args, reserve)?;
        let args = BackwardWeightsArgs::<OnDevice> {
            x: step.x,
            y,
            h0,
            c0,
            lengths: None,
            resets: None,
            dweights: step.dparameters,
            workspace: workspace.all()?,
        };
        device.backward_weights(plan, args, &mut reserve, WeightGrad::Add)?;
        unused.push(reserve.release());
        for part in 0..self.states() {
            self.put(device, step.batch, 6 + part, step.dstate.reborrow(), part)?;
        }
        Ok(())
    }

    fn check(&self, device: &Device) -> Result<()> {
        self.plans.iter().try_for_each(|planned| device.check(&planned.plan))
    }
}

/// Another cell with recurrent dropout (the previous output times a mask that is the same at all steps) and zoneout (in training each
/// element of the state keeps its value with a probability; else the two values are mixed in that proportion).
///
/// Saved: the state that the inner cell was given, the one it gave, and what it saves.
pub(super) struct Regularized {
    cell: Box<dyn Cell>,
    recurrent_dropout: f64,
    zoneout: f64,
    /// Streams of both masks.
    streams: [usize; 2],
    ones: Scratch,
    mask: Scratch,
    /// Parts of states that masks are applied to, before and after.
    h: Scratch,
    product: Scratch,
    change: Scratch,
    dgiven: Scratch,
}

impl Regularized {
    pub fn new(cell: Box<dyn Cell>, recurrent_dropout: f64, zoneout: f64, builder: &mut Builder) -> Self {
        Regularized {
            cell,
            recurrent_dropout,
            zoneout,
            streams: [builder.op_number() as usize, builder.op_number() as usize],
            ones: Scratch::new(),
            mask: Scratch::new(),
            h: Scratch::new(),
            product: Scratch::new(),
            change: Scratch::new(),
            dgiven: Scratch::new(),
        }
    }

    /// Where the parts of what is saved stand: the state given to the inner cell, the one it gave, what it saves.
    fn saved(&self, batch: usize) -> [Range<usize>; 3] {
        let (state, inner) = (batch * self.cell.state_size(), batch * self.cell.saved_size());
        [0..state, state..2 * state, 2 * state..2 * state + inner]
    }

    /// Multiplies the first columns of a state by the recurrent dropout's mask.
    fn drop_output(&mut self, device: &Device, seed: u64, batch: usize, state: TensorMut<'_>) -> Result<()> {
        if self.recurrent_dropout == 0.0 {
            return Ok(());
        }
        let (output, width) = (self.cell.output_size(), self.cell.state_size());
        let len = batch * output;
        let rate = self.recurrent_dropout;
        draw(device, &mut self.ones, &mut self.mask, rate, seed, self.streams[0], batch, output)?;
        self.h.grow(device, "output", len)?;
        self.product.grow(device, "output", len)?;
        let (whole, own) = (Columns { width, first: 0 }, Columns::all(output));
        copy_columns(device, output, state.view(), whole, self.h.get_mut(len)?, own)?;
        device.multiply(self.h.get(len)?, self.mask.get(len)?, self.product.get_mut(len)?)?;
        copy_columns(device, output, self.product.get(len)?, own, state, whole)
    }

    /// The share of a change that zoneout lets through: `(1 - rate) dropout(from)`, or without training `(1 - rate) from`.
    fn share(
        &self,
        device: &Device,
        seed: Option<u64>,
        step: usize,
        batch: usize,
        from: TensorRef<'_>,
        mut to: TensorMut<'_>,
    ) -> Result<()> {
        let keep = 1.0 - self.zoneout;
        let Some(seed) = seed else { return device.scale_add(keep, from, 0.0, to) };
        if self.zoneout == 0.0 {
            return device.copy(from, to);
        }
        // Every step has a stream of its own, above those of operations.
        let stream = self.streams[1] + ((step + 1) << 16);
        let dropout = Dropout::new(self.zoneout, seed);
        device.dropout(&dropout, stream, batch, self.cell.state_size(), from, to.reborrow())?;
        device.scale(keep, to)
    }
}

impl Regularized {
    /// The step backward, with room for the gradients of the state that the inner cell gave and of the one that it was given.
    fn backward_with(
        &mut self,
        device: &Device,
        step: CellBackward<'_>,
        dcomputed: &mut Tensor,
        dgiven: &mut Tensor,
    ) -> Result<()> {
        let [given, computed, inner] = self.saved(step.batch);
        let len = given.len();
        let mut dcomputed = dcomputed.view_mut().part(0..len)?;
        let mut dgiven = dgiven.view_mut().part(0..len)?;
        let CellBackward { dnew_state, mut dstate, batch, seed, .. } = step;
        self.share(device, Some(seed), step.step, batch, dnew_state, dcomputed.reborrow())?;
        self.cell.backward(
            device,
            CellBackward {
                parameters: step.parameters,
                x: step.x,
                state: step.saved.part(given)?,
                new_state: step.saved.part(computed)?,
                saved: step.saved.part(inner)?,
                dnew_state: dcomputed.view(),
                dx: step.dx,
                dstate: dgiven.reborrow(),
                dparameters: step.dparameters,
                batch,
                step: step.step,
                seed,
            },
        )?;
        self.drop_output(device, seed, batch, dgiven.reborrow())?;
        // What zoneout let pass by the cell, which is nothing without it.
        device.copy(dnew_state, dstate.reborrow())?;
        device.scale_add(-1.0, dcomputed.view(), 1.0, dstate.reborrow())?;
        device.scale_add(1.0, dgiven.view(), 1.0, dstate)
    }
}

impl Cell for Regularized {
    fn output_size(&self) -> usize {
        self.cell.output_size()
    }

    fn state_size(&self) -> usize {
        self.cell.state_size()
    }

    fn saved_size(&self) -> usize {
        2 * self.cell.state_size() + self.cell.saved_size()
    }

    fn parameters(&self, input_size: usize) -> Vec<(String, Vec<usize>, Init)> {
        self.cell.parameters(input_size)
    }

    fn forward(&mut self, device: &Device, step: CellForward<'_>) -> Result<()> {
        let CellForward { parameters, x, state, mut new_state, saved, batch, step, training, seed } = step;
        let len = batch * self.cell.state_size();
        let (mut given, rest) = saved.split_at(len)?;
        let (mut computed, saved) = rest.split_at(len)?;
        device.copy(state, given.reborrow())?;
        if training {
            self.drop_output(device, seed, batch, given.reborrow())?;
        }
        let inner = CellForward {
            parameters,
            x,
            state: given.view(),
            new_state: computed.reborrow(),
            saved,
            batch,
            step,
            training,
            seed,
        };
        self.cell.forward(device, inner)?;
        if self.zoneout == 0.0 {
            return device.copy(computed.view(), new_state);
        }
        self.change.grow(device, "change of the state", len)?;
        let mut change = self.change.get_mut(len)?;
        device.copy(computed.view(), change.reborrow())?;
        device.scale_add(-1.0, state, 1.0, change)?;
        let change = self.change.get(len)?;
        self.share(device, training.then_some(seed), step, batch, change, new_state.reborrow())?;
        device.scale_add(1.0, state, 1.0, new_state)
    }

    fn backward(&mut self, device: &Device, step: CellBackward<'_>) -> Result<()> {
        let len = step.batch * self.cell.state_size();
        self.change.grow(device, "gradient of the state", len)?;
        self.dgiven.grow(device, "gradient of the state", len)?;
        // Taken out, since what follows changes the rest of the cell.
        let (mut dcomputed, mut dgiven) = (self.change.take()?, self.dgiven.take()?);
        let done = self.backward_with(device, step, &mut dcomputed, &mut dgiven);
        self.change.put(dcomputed);
        self.dgiven.put(dgiven);
        done
    }

    fn check(&self, device: &Device) -> Result<()> {
        self.cell.check(device)
    }
}
