//! Dropout that is the same at every step, recurrent dropout, and zoneout.

use std::ops::Range;

use crate::backend::dense::Columns;
use crate::backend::tensor::Strides;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, DenseBackend, Filled, ForwardArgs, ForwardMode, Reserve, TempSpace,
    WeightGrad,
};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Init};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::recurrent::cell::{Cell, CellBackward, CellForward};
use crate::rnn::dropout::Dropout;
use crate::rnn::{Direction, RnnDescriptor, RnnShape};

/// `x * mask` with one mask `[features]` for all steps of a sequence, as Keras's recurrent layers have it.
pub(super) struct StepDropout<B: DenseBackend> {
    rate: f64,
    number: u32,
    steps: usize,
    features: usize,
    ones: Scratch<B>,
    mask: Scratch<B>,
    masks: Scratch<B>,
}

impl<B: DenseBackend> StepDropout<B> {
    pub fn new(rate: f64, number: u32, steps: usize, features: usize) -> Self {
        let (ones, mask, masks) = (Scratch::new(), Scratch::new(), Scratch::new());
        StepDropout { rate, number, steps, features, ones, mask, masks }
    }

    fn apply(&mut self, backend: &B, seed: u64, batch: usize, x: &B::Buffer, y: &mut B::Buffer) -> Result<()> {
        let (steps, features) = (self.steps, self.features);
        draw(backend, &mut self.ones, &mut self.mask, self.rate, seed, self.number as usize, batch, features)?;
        self.masks.grow(backend, "masks", batch * steps * features)?;
        let mut masks = self.masks.get_mut(backend, batch * steps * features)?;
        let f = features as isize;
        let from = Strides { offset: 0, strides: [0, f, 0, 1] };
        let to = Strides { offset: 0, strides: [0, steps as isize * f, f, 1] };
        let mask = self.mask.get(backend, batch * features)?;
        backend.strided_copy([1, batch, steps, features], &mask, from, &mut masks, to, WeightGrad::Set)?;
        backend.multiply(x, &masks, y)
    }
}

/// A mask `[batch, width]` of zeros and `1 / (1 - rate)`.
#[allow(clippy::too_many_arguments)]
fn draw<B: DenseBackend>(
    backend: &B,
    ones: &mut Scratch<B>,
    mask: &mut Scratch<B>,
    rate: f64,
    seed: u64,
    stream: usize,
    batch: usize,
    width: usize,
) -> Result<()> {
    ones.grow(backend, "ones", batch * width)?;
    mask.grow(backend, "mask", batch * width)?;
    let mut all = ones.get_mut(backend, batch * width)?;
    backend.fill(&mut all, 1.0)?;
    let mut to = mask.get_mut(backend, batch * width)?;
    backend.dropout(&Dropout::new(rate, seed), stream, batch, width, &all, &mut to)
}

impl<B: DenseBackend> Op<B> for StepDropout<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        if pass.training { self.apply(backend, pass.seed, pass.batch, x, y) } else { backend.copy(x, y) }
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        self.apply(backend, pass.seed, pass.batch, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// The cell of a recurrent operator, one step by a plan for one step. State: h, and of an LSTM c behind it.
pub(super) struct Operator<B: DenseBackend> {
    descriptor: RnnDescriptor,
    plans: Vec<(usize, ForwardMode, B::Plan, TempSpace)>,
    /// h, c before the step; h, c after it; and gradients of all four.
    parts: [Scratch<B>; 8],
    workspace: Scratch<B>,
    unused: Vec<B::Owned<B::Elem>>,
    #[allow(clippy::type_complexity)]
    filled: Vec<Option<Reserve<B::Owned<B::Elem>, Filled>>>,
}

impl<B: DenseBackend> Operator<B> {
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

    fn states(&self) -> usize {
        if self.descriptor.cell.has_cell_state() { 2 } else { 1 }
    }

    fn plan(&mut self, backend: &B, batch: usize, mode: ForwardMode) -> Result<usize> {
        let known = self.plans.iter().position(|(b, m, ..)| (*b, *m) == (batch, mode));
        let index = match known {
            Some(index) => index,
            None => {
                let plan = backend.plan(&self.descriptor, RnnShape { seq_len: 1, batch }, mode)?;
                let space = backend.temp_space(&plan);
                if self.plans.len() == 8 {
                    self.plans.remove(0);
                }
                self.plans.push((batch, mode, plan, space));
                self.plans.len() - 1
            }
        };
        self.workspace.grow(backend, "workspace", self.plans[index].3.workspace)?;
        for part in &mut self.parts {
            part.grow(backend, "states of a step", batch * self.descriptor.hidden_size)?;
        }
        Ok(index)
    }

    /// Column block `part` of a state.
    fn columns(&self, part: usize) -> (Columns, Columns, usize) {
        let units = self.descriptor.hidden_size;
        let whole = Columns { width: units * self.states(), first: part * units };
        (whole, Columns { width: units, first: 0 }, units)
    }

    fn take(&mut self, backend: &B, len: usize, from: &B::Buffer, part: usize, to: usize) -> Result<()> {
        let (whole, own, units) = self.columns(part);
        backend.copy_columns(units, from, whole, &mut *self.parts[to].get_mut(backend, len)?, own)
    }

    fn put(&mut self, backend: &B, len: usize, from: usize, to: &mut B::Buffer, part: usize) -> Result<()> {
        let (whole, own, units) = self.columns(part);
        backend.copy_columns(units, &*self.parts[from].get(backend, len)?, own, to, whole)
    }
}

impl<B: DenseBackend> Cell<B> for Operator<B> {
    fn output_size(&self) -> usize {
        self.descriptor.hidden_size
    }

    fn state_size(&self) -> usize {
        self.states() * self.descriptor.hidden_size
    }

    fn parameters(&self, _: usize) -> Vec<(String, Vec<usize>, Init)> {
        // The layer has asked for them already: they are those of the operator.
        Vec::new()
    }

    fn forward(&mut self, backend: &B, step: CellForward<'_, B>) -> Result<()> {
        let mode = if step.training { ForwardMode::Training } else { ForwardMode::Inference };
        let index = self.plan(backend, step.batch, mode)?;
        let len = step.batch * self.descriptor.hidden_size;
        for part in 0..self.states() {
            self.take(backend, len, step.state, part, part)?;
        }
        {
            let has_c = self.descriptor.cell.has_cell_state();
            let Operator { plans, parts, workspace, unused, filled, .. } = self;
            let (_, _, plan, space) = &plans[index];
            let [h0, c0, y, cn, ..] = parts;
            let (h0, c0) = (h0.get(backend, len)?, c0.get(backend, len)?);
            let (mut y, mut cn) = (y.get_mut(backend, len)?, cn.get_mut(backend, len)?);
            let args = ForwardArgs {
                weights: step.parameters,
                x: step.x,
                h0: Some(&*h0),
                c0: has_c.then_some(&*c0),
                lengths: None,
                resets: None,
                y: &mut *y,
                hn: None,
                cn: if has_c { Some(&mut *cn) } else { None },
                workspace: workspace.all()?,
                dropout_seed: 0,
            };
            match mode {
                ForwardMode::Inference => backend.forward(plan, args)?,
                ForwardMode::Training => {
                    filled.resize_with(filled.len().max(step.step + 1), || None);
                    let storage = match filled[step.step].take() {
                        Some(old) => Some(old.release()),
                        None => unused.pop(),
                    };
                    let storage = match storage {
                        Some(storage) if holds::<B>(&storage, space.reserve) => storage,
                        _ => backend.allocate("reserve", space.reserve)?,
                    };
                    filled[step.step] = Some(backend.forward_training(plan, args, Reserve::new(storage))?);
                }
            }
        }
        for part in 0..self.states() {
            self.put(backend, len, 2 + part, step.new_state, part)?;
        }
        Ok(())
    }

    fn backward(&mut self, backend: &B, step: CellBackward<'_, B>) -> Result<()> {
        let index = self.plan(backend, step.batch, ForwardMode::Training)?;
        let len = step.batch * self.descriptor.hidden_size;
        for part in 0..self.states() {
            self.take(backend, len, step.state, part, part)?;
            self.take(backend, len, step.new_state, part, 2 + part)?;
            self.take(backend, len, step.dnew_state, part, 4 + part)?;
        }
        let reserve = self.filled.get_mut(step.step).and_then(Option::take).ok_or_else(|| Error::Presence {
            tensor: "reserve of a step".to_owned(),
            problem: "backward needs a forward pass in training mode before it".to_owned(),
        })?;
        {
            let has_c = self.descriptor.cell.has_cell_state();
            let Operator { plans, parts, workspace, unused, .. } = self;
            let plan = &plans[index].2;
            let [h0, c0, y, _, dhn, dcn, dh0, dc0] = parts;
            let (h0, c0, y) = (h0.get(backend, len)?, c0.get(backend, len)?, y.get(backend, len)?);
            let (dhn, dcn) = (dhn.get(backend, len)?, dcn.get(backend, len)?);
            let (mut dh0, mut dc0) = (dh0.get_mut(backend, len)?, dc0.get_mut(backend, len)?);
            let args = BackwardDataArgs {
                weights: step.parameters,
                y: &*y,
                h0: Some(&*h0),
                c0: has_c.then_some(&*c0),
                lengths: None,
                resets: None,
                dy: Some(&*dhn),
                dhn: None,
                dcn: has_c.then_some(&*dcn),
                dx: Some(step.dx),
                dh0: Some(&mut *dh0),
                dc0: if has_c { Some(&mut *dc0) } else { None },
                workspace: workspace.all()?,
            };
            let mut reserve = backend.backward_data(plan, args, reserve)?;
            let args = BackwardWeightsArgs {
                x: step.x,
                y: &*y,
                h0: Some(&*h0),
                c0: has_c.then_some(&*c0),
                lengths: None,
                resets: None,
                dweights: step.dparameters,
                workspace: workspace.all()?,
            };
            backend.backward_weights(plan, args, &mut reserve, WeightGrad::Add)?;
            unused.push(reserve.release());
        }
        for part in 0..self.states() {
            self.put(backend, len, 6 + part, step.dstate, part)?;
        }
        Ok(())
    }

    fn check(&self, backend: &B) -> Result<()> {
        self.plans.iter().try_for_each(|(_, _, plan, _)| backend.check(plan))
    }
}

fn holds<B: DenseBackend>(storage: &B::Owned<B::Elem>, len: usize) -> bool {
    use crate::backend::Storage;
    use std::borrow::Borrow;
    let tensor: &B::Buffer = storage.borrow();
    tensor.elements() >= len
}

/// Another cell with recurrent dropout (the previous output times a mask that is the same at all steps) and zoneout (in training each
/// element of the state keeps its value with a probability; else the two values are mixed in that proportion).
///
/// Saved: the state that the inner cell was given, the one it gave, and what it saves.
pub(super) struct Regularized<B: DenseBackend> {
    cell: Box<dyn Cell<B>>,
    recurrent_dropout: f64,
    zoneout: f64,
    /// Streams of both masks.
    streams: [usize; 2],
    ones: Scratch<B>,
    mask: Scratch<B>,
    /// Parts of states that masks are applied to, before and after.
    h: Scratch<B>,
    product: Scratch<B>,
    change: Scratch<B>,
    dgiven: Scratch<B>,
}

impl<B: DenseBackend> Regularized<B> {
    pub fn new(cell: Box<dyn Cell<B>>, recurrent_dropout: f64, zoneout: f64, builder: &mut Builder<B>) -> Self {
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
    fn drop_output(&mut self, backend: &B, seed: u64, batch: usize, state: &mut B::Buffer) -> Result<()> {
        if self.recurrent_dropout == 0.0 {
            return Ok(());
        }
        let (output, width) = (self.cell.output_size(), self.cell.state_size());
        let len = batch * output;
        let rate = self.recurrent_dropout;
        draw(backend, &mut self.ones, &mut self.mask, rate, seed, self.streams[0], batch, output)?;
        self.h.grow(backend, "output", len)?;
        self.product.grow(backend, "output", len)?;
        let (whole, own) = (Columns { width, first: 0 }, Columns { width: output, first: 0 });
        let mut h = self.h.get_mut(backend, len)?;
        backend.copy_columns(output, state, whole, &mut h, own)?;
        let mut product = self.product.get_mut(backend, len)?;
        backend.multiply(&h, &*self.mask.get(backend, len)?, &mut product)?;
        backend.copy_columns(output, &product, own, state, whole)
    }

    /// The share of a change that zoneout lets through: `(1 - rate) dropout(from)`, or without training `(1 - rate) from`.
    fn share(
        &self,
        backend: &B,
        seed: Option<u64>,
        step: usize,
        batch: usize,
        from: &B::Buffer,
        to: &mut B::Buffer,
    ) -> Result<()> {
        let keep = 1.0 - self.zoneout;
        let Some(seed) = seed else { return backend.scale_add(keep, from, 0.0, to) };
        if self.zoneout == 0.0 {
            return backend.copy(from, to);
        }
        // Every step has a stream of its own, above those of operations.
        let stream = self.streams[1] + ((step + 1) << 16);
        backend.dropout(&Dropout::new(self.zoneout, seed), stream, batch, self.cell.state_size(), from, to)?;
        backend.scale(keep, to)
    }
}

impl<B: DenseBackend> Cell<B> for Regularized<B> {
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

    fn forward(&mut self, backend: &B, step: CellForward<'_, B>) -> Result<()> {
        let CellForward { parameters, x, state, new_state, saved, batch, step, training, seed } = step;
        let [given, computed, _] = self.saved(batch);
        let len = given.len();
        {
            let mut given = backend.view_mut(saved, given)?;
            backend.copy(state, &mut given)?;
            if training {
                self.drop_output(backend, seed, batch, &mut given)?;
            }
        }
        {
            let (given, mut rest) = backend.split_mut(saved, len)?;
            let (mut computed, mut inner) = backend.split_mut(&mut rest, len)?;
            let (state, new_state, saved) = (&*given, &mut *computed, &mut *inner);
            let inner = CellForward { parameters, x, state, new_state, saved, batch, step, training, seed };
            self.cell.forward(backend, inner)?;
        }
        let computed = backend.view(saved, computed)?;
        if self.zoneout == 0.0 {
            return backend.copy(&computed, new_state);
        }
        self.change.grow(backend, "change of the state", len)?;
        let mut change = self.change.get_mut(backend, len)?;
        backend.copy(&computed, &mut change)?;
        backend.scale_add(-1.0, state, 1.0, &mut change)?;
        drop(change);
        let change = self.change.get(backend, len)?;
        self.share(backend, training.then_some(seed), step, batch, &change, new_state)?;
        backend.scale_add(1.0, state, 1.0, new_state)
    }

    fn backward(&mut self, backend: &B, step: CellBackward<'_, B>) -> Result<()> {
        let [given, computed, inner] = self.saved(step.batch);
        let len = given.len();
        self.change.grow(backend, "gradient of the state", len)?;
        self.dgiven.grow(backend, "gradient of the state", len)?;
        let mut change = std::mem::replace(&mut self.change, Scratch::new());
        let mut dgiven = std::mem::replace(&mut self.dgiven, Scratch::new());
        {
            let mut dcomputed = change.get_mut(backend, len)?;
            self.share(backend, Some(step.seed), step.step, step.batch, step.dnew_state, &mut dcomputed)?;
            let mut to = dgiven.get_mut(backend, len)?;
            self.cell.backward(
                backend,
                CellBackward {
                    parameters: step.parameters,
                    x: step.x,
                    state: &*backend.view(step.saved, given)?,
                    new_state: &*backend.view(step.saved, computed)?,
                    saved: &*backend.view(step.saved, inner)?,
                    dnew_state: &*dcomputed,
                    dx: step.dx,
                    dstate: &mut *to,
                    dparameters: step.dparameters,
                    batch: step.batch,
                    step: step.step,
                    seed: step.seed,
                },
            )?;
            self.drop_output(backend, step.seed, step.batch, &mut to)?;
            // What zoneout let pass by the cell, which is nothing without it.
            backend.copy(step.dnew_state, step.dstate)?;
            backend.scale_add(-1.0, &dcomputed, 1.0, step.dstate)?;
            backend.scale_add(1.0, &to, 1.0, step.dstate)?;
        }
        self.change = change;
        self.dgiven = dgiven;
        Ok(())
    }

    fn check(&self, backend: &B) -> Result<()> {
        self.cell.check(backend)
    }
}
