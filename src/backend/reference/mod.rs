//! The oracle: the operator as plain loops over layers, directions, sequences and time, around the steps of [`crate::cell`].
//!
//! It exists to be read and trusted, so it is simple on purpose: one step of one sequence at a time, one element at a time,
//! no threads, and no arithmetic shared with the backends that are checked against it. It computes in the element type that
//! it is given, and sums in the order of the indices. It allocates some vectors of a row's size.
//!
//! # Reserve
//!
//! What is saved of every step, `[num_layers, num_directions, seq_len, batch, saved]`. With `G` gates, `S` the number of
//! [`CellSpec::saved`](crate::cell::CellSpec::saved), `H` hidden_size and `P` output_size, a step takes:
//!
//! | what | elements | written by |
//! |---|---|---|
//! | pre-activations before clamping | `G * H` | forward |
//! | what `CellSpec::saved` lists | `S * H` | forward |
//! | output `h` | `P` | forward |
//! | gradient of `h` | `P` | backward-data |
//! | gradients of the pre-activations | `G * H` | backward-data |
//!
//! What belongs to padded steps is never touched. Dropout masks are drawn again rather than kept. Inference saves the same,
//! in its workspace; backward-data's workspace holds the gradients of two layers' outputs,
//! `[2, seq_len, batch, num_directions * P]`; backward-weights needs none.
#![expect(
    clippy::indexing_slicing,
    reason = "the shared host calls compare every tensor with the plan's sizes, which all indices are below"
)]

#[cfg(feature = "model")]
mod ops;

use std::borrow::BorrowMut;
use std::marker::PhantomData;
use std::ops::Deref;
use std::sync::Arc;

use crate::backend::checkpoints::{self, Carried, Checkpoints, HostPasses, HostSegments, Planner, Start};
use crate::backend::host::check_at_least;
use crate::backend::{
    BackwardDataArgs, BackwardWeightsArgs, Differentiated, Empty, Filled, ForwardArgs, ForwardMode, HostPlan,
    RecurrentBackend, Reserve, TempSpace, WeightGrad,
};
use crate::cell::{Layer, SavedStep, State, StepGradient};
use crate::dtype::Scalar;
use crate::error::Result;
use crate::rnn::{Dropout, LayerWeights, PaddedOutput, RnnDescriptor, RnnShape};

/// The oracle for `f32` and `f64`. See the [module](self).
#[derive(Clone, Copy, Debug)]
pub struct ReferenceBackend<E> {
    element: PhantomData<E>,
}

impl<E: Scalar> ReferenceBackend<E> {
    /// The oracle. It holds nothing.
    pub fn new() -> Self {
        ReferenceBackend { element: PhantomData }
    }
}

impl<E: Scalar> Default for ReferenceBackend<E> {
    fn default() -> Self {
        Self::new()
    }
}

/// The plan of the oracle: that of any host backend, which it derefs to.
#[derive(Clone, Debug)]
pub struct ReferencePlan {
    host: HostPlan,
    checkpoints: Option<Arc<Checkpoints<ReferencePlan>>>,
}

impl Deref for ReferencePlan {
    type Target = HostPlan;

    fn deref(&self) -> &HostPlan {
        &self.host
    }
}

fn ordinary_plan(descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<ReferencePlan> {
    Ok(ReferencePlan { host: HostPlan::new("reference", descriptor, shape, mode)?, checkpoints: None })
}

impl<E: Scalar> RecurrentBackend for ReferenceBackend<E> {
    type Elem = E;
    type Buffer = [E];
    type Lengths = [u32];
    type Mask = [u8];
    type Plan = ReferencePlan;

    fn name(&self) -> &'static str {
        "reference"
    }

    fn plan(&self, descriptor: &RnnDescriptor, shape: RnnShape, mode: ForwardMode) -> Result<ReferencePlan> {
        let mut plan = ordinary_plan(descriptor, shape, mode)?;
        let planner = Planner {
            element: size_of::<E>(),
            accumulator: size_of::<E>(),
            full: self.temp_space(&plan),
            plan: &|descriptor, shape| ordinary_plan(descriptor, shape, mode),
            space: &|plan| self.temp_space(plan),
            same_reserve: &|_, _| true,
        };
        plan.checkpoints = Checkpoints::of(descriptor, shape, mode, &planner)?.map(Arc::new);
        Ok(plan)
    }

    fn temp_space(&self, plan: &ReferencePlan) -> TempSpace {
        if let Some(checkpoints) = &plan.checkpoints {
            return checkpoints.space(|plan| self.temp_space(plan)).total();
        }
        let saved_steps = saved_steps_len(plan);
        match plan.mode {
            ForwardMode::Inference => TempSpace { workspace: saved_steps, reserve: 0 },
            ForwardMode::Training => TempSpace { workspace: 2 * outputs_len(plan), reserve: saved_steps },
        }
    }

    fn forward(&self, plan: &ReferencePlan, args: ForwardArgs<'_, Self>) -> Result<()> {
        plan.check_forward(ForwardMode::Inference, self.temp_space(plan).workspace, &args)?;
        let ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, .. } = args;
        let call = Call { plan, h0, c0, start: None, lengths, resets, dropout: Dropout::NONE };
        call.forward(weights, x, &mut SavedSteps { plan, storage: workspace }, y, hn, cn);
        Ok(())
    }

    fn forward_training<S: BorrowMut<[E]>>(
        &self,
        plan: &ReferencePlan,
        args: ForwardArgs<'_, Self>,
        mut reserve: Reserve<S, Empty>,
    ) -> Result<Reserve<S, Filled>> {
        let space = self.temp_space(plan);
        plan.check_forward(ForwardMode::Training, space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        let dropout_seed = args.dropout_seed;
        match &plan.checkpoints {
            Some(own) => checkpoints::forward(&HostSegments::new(self, plan), own, args, storage)?,
            None => self.run_forward(plan, args, None, storage)?,
        }
        Ok(reserve.filled(plan.fingerprint(), dropout_seed))
    }

    fn backward_data<S: BorrowMut<[E]>>(
        &self,
        plan: &ReferencePlan,
        args: BackwardDataArgs<'_, Self>,
        mut reserve: Reserve<S, Filled>,
    ) -> Result<Reserve<S, Differentiated>> {
        reserve.check_plan(plan.fingerprint())?;
        let (space, seed) = (self.temp_space(plan), reserve.dropout_seed());
        plan.check_backward_data(space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        match &plan.checkpoints {
            Some(own) => checkpoints::backward_data(&HostSegments::new(self, plan), own, args, storage, seed)?,
            None => self.run_backward_data(plan, args, None, None, storage, seed)?,
        }
        Ok(reserve.differentiated())
    }

    fn backward_weights<S: BorrowMut<[E]>>(
        &self,
        plan: &ReferencePlan,
        args: BackwardWeightsArgs<'_, Self>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.fingerprint())?;
        let (space, seed) = (self.temp_space(plan), reserve.dropout_seed());
        plan.check_backward_weights(space.workspace, &args)?;
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        match &plan.checkpoints {
            Some(own) => checkpoints::backward_weights(&HostSegments::new(self, plan), own, args, storage, grad),
            None => self.run_backward_weights(plan, args, None, storage, seed, grad),
        }
    }
}

impl<E: Scalar> HostPasses<E> for ReferenceBackend<E> {
    fn run_forward(
        &self,
        plan: &ReferencePlan,
        args: ForwardArgs<'_, Self>,
        start: Start<'_, E>,
        storage: &mut [E],
    ) -> Result<()> {
        let ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, dropout_seed, .. } = args;
        let dropout = Dropout::new(plan.descriptor.dropout, dropout_seed);
        let call = Call { plan, h0, c0, start, lengths, resets, dropout };
        call.forward(weights, x, &mut SavedSteps { plan, storage }, y, hn, cn);
        Ok(())
    }

    fn copy_states(&self, plan: &ReferencePlan, reserve: &[E], to: &mut [E]) {
        let descriptor = &plan.descriptor;
        let (gates, saved) = (descriptor.cell.gates(), descriptor.cell.spec().saved.len());
        let width = plan.tensors.c[2];
        // The states beside h are saved last, before the output.
        let end = (gates + saved) * descriptor.hidden_size;
        let steps = reserve.chunks_exact(saved_step_len(descriptor));
        for (step, to) in steps.zip(to.chunks_exact_mut(width)) {
            to.copy_from_slice(&step[end - width..end]);
        }
    }

    fn run_backward_data(
        &self,
        plan: &ReferencePlan,
        args: BackwardDataArgs<'_, Self>,
        start: Start<'_, E>,
        carried: Option<Carried<&mut [E]>>,
        storage: &mut [E],
        dropout_seed: u64,
    ) -> Result<()> {
        let dropout = Dropout::new(plan.descriptor.dropout, dropout_seed);
        let call = Call { plan, h0: args.h0, c0: args.c0, start, lengths: args.lengths, resets: args.resets, dropout };
        call.backward_data(args, carried, &mut SavedSteps { plan, storage });
        Ok(())
    }

    fn run_backward_weights(
        &self,
        plan: &ReferencePlan,
        args: BackwardWeightsArgs<'_, Self>,
        start: Start<'_, E>,
        storage: &mut [E],
        dropout_seed: u64,
        grad: WeightGrad,
    ) -> Result<()> {
        let dropout = Dropout::new(plan.descriptor.dropout, dropout_seed);
        let call = Call { plan, h0: args.h0, c0: args.c0, start, lengths: args.lengths, resets: args.resets, dropout };
        if grad == WeightGrad::Set {
            args.dweights.fill(E::zero());
        }
        call.add_weight_gradients(args.x, &mut SavedSteps { plan, storage }, args.dweights);
        Ok(())
    }
}

/// Elements saved of one step.
fn saved_step_len(descriptor: &RnnDescriptor) -> usize {
    let spec = descriptor.cell.spec();
    (2 * spec.gates.len() + spec.saved.len()) * descriptor.hidden_size + 2 * descriptor.output_size()
}

/// Elements saved of all steps.
fn saved_steps_len(plan: &HostPlan) -> usize {
    let (descriptor, shape) = (&plan.descriptor, plan.shape);
    descriptor.num_layers * descriptor.num_directions() * shape.seq_len * shape.batch * saved_step_len(descriptor)
}

/// Features of a layer's output: both directions.
fn features(descriptor: &RnnDescriptor) -> usize {
    descriptor.num_directions() * descriptor.output_size()
}

/// Elements of a layer's output.
fn outputs_len(plan: &HostPlan) -> usize {
    plan.shape.seq_len * plan.shape.batch * features(&plan.descriptor)
}

/// What is saved of all steps, in the reserve or in the workspace.
struct SavedSteps<'a, E> {
    plan: &'a HostPlan,
    storage: &'a mut [E],
}

impl<E: Scalar> SavedSteps<'_, E> {
    fn at(&mut self, layer: usize, direction: usize, t: usize, b: usize) -> SavedStep<'_, E> {
        let (descriptor, shape) = (&self.plan.descriptor, self.plan.shape);
        let gates = descriptor.cell.gates() * descriptor.hidden_size;
        let saved = descriptor.cell.spec().saved.len() * descriptor.hidden_size;
        let len = saved_step_len(descriptor);
        let index = ((layer * descriptor.num_directions() + direction) * shape.seq_len + t) * shape.batch + b;
        let (a, rest) = self.storage[index * len..(index + 1) * len].split_at_mut(gates);
        let (saved, rest) = rest.split_at_mut(saved);
        let (h, rest) = rest.split_at_mut(descriptor.output_size());
        let (dh, da) = rest.split_at_mut(descriptor.output_size());
        SavedStep { a, saved, h, dh, da }
    }
}

/// What all passes of a call have in common.
struct Call<'a, E> {
    plan: &'a HostPlan,
    h0: Option<&'a [E]>,
    c0: Option<&'a [E]>,
    /// What the first step starts from, where that is not the initial states.
    start: Start<'a, E>,
    lengths: Option<&'a [u32]>,
    resets: Option<&'a [u8]>,
    dropout: Dropout,
}

/// Copies of what a step reads.
struct StepInput<E> {
    x: Vec<E>,
    h: Vec<E>,
    c: Vec<E>,
}

impl<E: Scalar> StepInput<E> {
    fn new(descriptor: &RnnDescriptor, layer: usize) -> Self {
        let other_states = descriptor.cell.other_states() * descriptor.hidden_size;
        StepInput {
            x: vec![E::zero(); descriptor.layer_input_size(layer)],
            h: vec![E::zero(); descriptor.output_size()],
            c: vec![E::zero(); other_states],
        }
    }

    fn state(&self) -> State<'_, E> {
        State { h: &self.h, c: &self.c }
    }
}

/// Row `row` of a row-major matrix.
fn row<E>(matrix: &[E], row: usize, columns: usize) -> &[E] {
    &matrix[row * columns..(row + 1) * columns]
}

/// The same, mutable.
fn row_mut<E>(matrix: &mut [E], row: usize, columns: usize) -> &mut [E] {
    &mut matrix[row * columns..(row + 1) * columns]
}

/// `out += addend`
fn add<E: Scalar>(out: &mut [E], addend: &[E]) {
    for k in 0..out.len() {
        out[k] += addend[k];
    }
}

/// `out = row` of a tensor that may be absent, then zero.
fn copy_row_or_zero<E: Scalar>(out: &mut [E], tensor: Option<&[E]>, index: usize) {
    match tensor {
        Some(tensor) => out.copy_from_slice(row(tensor, index, out.len())),
        None => out.fill(E::zero()),
    }
}

impl<E: Scalar> Call<'_, E> {
    /// Valid steps of sequence `b`.
    fn length(&self, b: usize) -> usize {
        self.lengths.map_or(self.plan.shape.seq_len, |lengths| lengths[b] as usize)
    }

    /// The valid steps of sequence `b` in the order in which `direction` processes them.
    fn steps(&self, direction: usize, b: usize) -> Vec<usize> {
        let mut steps: Vec<usize> = (0..self.length(b)).collect();
        if self.plan.descriptor.direction.is_reverse(direction) {
            steps.reverse();
        }
        steps
    }

    /// Whether step `t` starts from the initial state because of a reset.
    fn is_reset(&self, t: usize, b: usize) -> bool {
        self.resets.is_some_and(|resets| resets[t * self.plan.shape.batch + b] != 0)
    }

    /// What a step without one before it starts from.
    fn before_first(&self) -> [Option<&[E]>; 2] {
        self.start.map_or([self.h0, self.c0], |start| start.map(Some))
    }

    /// The step whose state step `t` starts from; `None` where there is no such step, or a reset.
    fn previous(&self, direction: usize, t: usize, b: usize) -> Option<usize> {
        if self.is_reset(t, b) {
            return None;
        }
        if self.plan.descriptor.direction.is_reverse(direction) {
            (t + 1 < self.length(b)).then_some(t + 1)
        } else {
            t.checked_sub(1)
        }
    }

    /// Row of `h0`, `c0`, `hn`, `cn` and their gradients.
    fn state_row(&self, layer: usize, direction: usize, b: usize) -> usize {
        (layer * self.plan.descriptor.num_directions() + direction) * self.plan.shape.batch + b
    }

    /// Reads the state that step `t` starts from.
    fn read_state(
        &self,
        saved_steps: &mut SavedSteps<'_, E>,
        layer: usize,
        direction: usize,
        t: usize,
        b: usize,
        input: &mut StepInput<E>,
    ) {
        match self.previous(direction, t, b) {
            Some(previous) => {
                let saved_step = saved_steps.at(layer, direction, previous, b);
                input.h.copy_from_slice(saved_step.h);
                input.c.copy_from_slice(self.other_states(saved_step.saved));
            }
            None => {
                let index = self.state_row(layer, direction, b);
                let [h, c] = if self.is_reset(t, b) { [self.h0, self.c0] } else { self.before_first() };
                copy_row_or_zero(&mut input.h, h, index);
                copy_row_or_zero(&mut input.c, c, index);
            }
        }
    }

    /// Reads the input of step `t`: a row of `x`, or the outputs of the layer below, with dropout.
    fn read_input(
        &self,
        x: &[E],
        saved_steps: &mut SavedSteps<'_, E>,
        layer: usize,
        t: usize,
        b: usize,
        input: &mut StepInput<E>,
    ) {
        let descriptor = &self.plan.descriptor;
        if layer == 0 {
            input.x.copy_from_slice(row(x, self.plan.row(t, b), descriptor.input_size));
            return;
        }
        for direction in 0..descriptor.num_directions() {
            let below = saved_steps.at(layer - 1, direction, t, b);
            row_mut(&mut input.x, direction, descriptor.output_size()).copy_from_slice(below.h);
        }
        self.dropout.apply(&mut input.x, layer, t, b);
    }

    /// The states beside h, which are saved last; empty where the cell has none.
    fn other_states<'s>(&self, saved: &'s [E]) -> &'s [E] {
        let descriptor = &self.plan.descriptor;
        &saved[saved.len() - descriptor.cell.other_states() * descriptor.hidden_size..]
    }

    fn layer<'w>(&'w self, direction: usize, weights: LayerWeights<&'w [E]>) -> Layer<'w, E> {
        let descriptor = &self.plan.descriptor;
        Layer { descriptor, direction, activations: descriptor.activations_of(direction), weights }
    }

    fn forward(
        &self,
        weights: &[E],
        x: &[E],
        saved_steps: &mut SavedSteps<'_, E>,
        y: &mut [E],
        hn: Option<&mut [E]>,
        cn: Option<&mut [E]>,
    ) {
        let descriptor = &self.plan.descriptor;
        for layer in 0..descriptor.num_layers {
            let mut input = StepInput::new(descriptor, layer);
            for direction in 0..descriptor.num_directions() {
                let cell = self.layer(direction, self.plan.weights.view(weights, layer, direction));
                for b in 0..self.plan.shape.batch {
                    for t in self.steps(direction, b) {
                        self.read_input(x, saved_steps, layer, t, b, &mut input);
                        self.read_state(saved_steps, layer, direction, t, b, &mut input);
                        cell.forward(&input.x, &input.state(), &mut saved_steps.at(layer, direction, t, b));
                    }
                }
            }
        }
        self.write_outputs(saved_steps, y);
        self.write_final_states(saved_steps, hn, cn);
    }

    /// The step whose output `y` repeats at step `t`: `t` itself where it is valid; `None` where `y` is zero.
    fn output_step(&self, direction: usize, t: usize, b: usize) -> Option<usize> {
        let descriptor = &self.plan.descriptor;
        let hold = descriptor.padded_output == PaddedOutput::Hold && !descriptor.direction.is_reverse(direction);
        if t < self.length(b) {
            Some(t)
        } else if hold {
            Some(self.length(b) - 1)
        } else {
            None
        }
    }

    fn write_outputs(&self, saved_steps: &mut SavedSteps<'_, E>, y: &mut [E]) {
        let descriptor = &self.plan.descriptor;
        for direction in 0..descriptor.num_directions() {
            for b in 0..self.plan.shape.batch {
                for t in 0..self.plan.shape.seq_len {
                    let y_row = row_mut(y, self.plan.row(t, b), features(descriptor));
                    let part = row_mut(y_row, direction, descriptor.output_size());
                    match self.output_step(direction, t, b) {
                        Some(step) => {
                            part.copy_from_slice(saved_steps.at(descriptor.num_layers - 1, direction, step, b).h)
                        }
                        None => part.fill(E::zero()),
                    }
                }
            }
        }
    }

    fn write_final_states(
        &self,
        saved_steps: &mut SavedSteps<'_, E>,
        mut hn: Option<&mut [E]>,
        mut cn: Option<&mut [E]>,
    ) {
        let descriptor = &self.plan.descriptor;
        for layer in 0..descriptor.num_layers {
            for direction in 0..descriptor.num_directions() {
                for b in 0..self.plan.shape.batch {
                    let index = self.state_row(layer, direction, b);
                    let Some(last) = self.steps(direction, b).last().copied() else {
                        // Without a step in this segment, the state stays what it was.
                        let [h, c] = self.before_first();
                        if let Some(hn) = &mut hn {
                            copy_row_or_zero(row_mut(hn, index, descriptor.output_size()), h, index);
                        }
                        if let Some(cn) = &mut cn {
                            copy_row_or_zero(row_mut(cn, index, self.plan.tensors.c[2]), c, index);
                        }
                        continue;
                    };
                    let saved_step = saved_steps.at(layer, direction, last, b);
                    if let Some(hn) = &mut hn {
                        row_mut(hn, index, descriptor.output_size()).copy_from_slice(saved_step.h);
                    }
                    if let Some(cn) = &mut cn {
                        row_mut(cn, index, self.plan.tensors.c[2]).copy_from_slice(self.other_states(saved_step.saved));
                    }
                }
            }
        }
    }

    fn backward_data(
        &self,
        args: BackwardDataArgs<'_, ReferenceBackend<E>>,
        mut carried: Option<Carried<&mut [E]>>,
        saved_steps: &mut SavedSteps<'_, E>,
    ) {
        let BackwardDataArgs { weights, dy, dhn, dcn, mut dx, mut dh0, mut dc0, workspace, .. } = args;
        let descriptor = &self.plan.descriptor;
        let batch = self.plan.shape.batch;
        for gradient in [&mut dx, &mut dh0, &mut dc0].into_iter().flatten() {
            gradient.fill(E::zero());
        }
        // Gradients of the outputs of this layer and of the one below, `[T, B, D * P]` whatever the layout of `dy`.
        let (mut above, rest) = workspace.split_at_mut(outputs_len(self.plan));
        let (mut below, _) = rest.split_at_mut(outputs_len(self.plan));
        self.read_output_gradient(dy, above);

        for layer in (0..descriptor.num_layers).rev() {
            below.fill(E::zero());
            let mut input = StepInput::new(descriptor, layer);
            let mut gradient = StepInput::new(descriptor, layer);
            // Gradients of a step's h and c that come from the step after it.
            let mut dh = vec![E::zero(); input.h.len()];
            let mut dc = vec![E::zero(); input.c.len()];
            for direction in 0..descriptor.num_directions() {
                let cell = self.layer(direction, self.plan.weights.view(weights, layer, direction));
                for b in 0..batch {
                    let index = self.state_row(layer, direction, b);
                    match &carried {
                        Some(carried) => {
                            copy_row_or_zero(&mut dh, Some(&*carried.dh), index);
                            copy_row_or_zero(&mut dc, Some(&*carried.dc), index);
                        }
                        None => {
                            copy_row_or_zero(&mut dh, dhn, index);
                            copy_row_or_zero(&mut dc, dcn, index);
                        }
                    }
                    for t in self.steps(direction, b).into_iter().rev() {
                        self.read_state(saved_steps, layer, direction, t, b, &mut input);
                        let mut saved_step = saved_steps.at(layer, direction, t, b);
                        let dy_row = row(above, t * batch + b, features(descriptor));
                        saved_step.dh.copy_from_slice(&dh);
                        add(saved_step.dh, row(dy_row, direction, descriptor.output_size()));

                        let StepInput { x: step_dx, h: step_dh, c: step_dc } = &mut gradient;
                        let mut step = StepGradient { dx: step_dx, dh: step_dh, dc: step_dc };
                        cell.backward(&input.state(), &mut saved_step, &dc, &mut step);

                        if layer > 0 {
                            self.dropout.apply(step.dx, layer, t, b);
                            add(row_mut(below, t * batch + b, step.dx.len()), step.dx);
                        } else if let Some(dx) = &mut dx {
                            add(row_mut(dx, self.plan.row(t, b), step.dx.len()), step.dx);
                        }
                        if !self.is_reset(t, b) {
                            dh.copy_from_slice(step.dh);
                            dc.copy_from_slice(step.dc);
                            continue;
                        }
                        // The state before this step was the initial one; the step processed before gets nothing.
                        let (dh0, dc0) = match &mut carried {
                            Some(carried) => (Some(&mut *carried.dh_reset), Some(&mut *carried.dc_reset)),
                            None => (dh0.as_deref_mut(), dc0.as_deref_mut()),
                        };
                        if let Some(dh0) = dh0 {
                            add(row_mut(dh0, index, step.dh.len()), step.dh);
                        }
                        if let Some(dc0) = dc0 {
                            add(row_mut(dc0, index, step.dc.len()), step.dc);
                        }
                        dh.fill(E::zero());
                        dc.fill(E::zero());
                    }
                    if let Some(carried) = &mut carried {
                        row_mut(carried.dh, index, dh.len()).copy_from_slice(&dh);
                        row_mut(carried.dc, index, dc.len()).copy_from_slice(&dc);
                        continue;
                    }
                    // What is left before the first step, beside what resets have sent.
                    let give = if self.resets.is_some() { add } else { <[E]>::copy_from_slice };
                    if let Some(dh0) = &mut dh0 {
                        give(row_mut(dh0, index, dh.len()), &dh);
                    }
                    if let Some(dc0) = &mut dc0 {
                        give(row_mut(dc0, index, dc.len()), &dc);
                    }
                }
            }
            std::mem::swap(&mut above, &mut below);
        }
    }

    /// Gradient of the last layer's outputs: each element of `dy` goes to the step whose output stands there.
    fn read_output_gradient(&self, dy: Option<&[E]>, out: &mut [E]) {
        let descriptor = &self.plan.descriptor;
        out.fill(E::zero());
        let Some(dy) = dy else { return };
        for direction in 0..descriptor.num_directions() {
            for b in 0..self.plan.shape.batch {
                for t in 0..self.plan.shape.seq_len {
                    if let Some(step) = self.output_step(direction, t, b) {
                        let from = row(dy, self.plan.row(t, b), features(descriptor));
                        let to = row_mut(out, step * self.plan.shape.batch + b, features(descriptor));
                        add(
                            row_mut(to, direction, descriptor.output_size()),
                            row(from, direction, descriptor.output_size()),
                        );
                    }
                }
            }
        }
    }

    fn add_weight_gradients(&self, x: &[E], saved_steps: &mut SavedSteps<'_, E>, dweights: &mut [E]) {
        let descriptor = &self.plan.descriptor;
        for layer in 0..descriptor.num_layers {
            let mut input = StepInput::new(descriptor, layer);
            for direction in 0..descriptor.num_directions() {
                let cell = self.layer(direction, LayerWeights::default());
                let mut gradient = self.plan.weights.view_mut(dweights, layer, direction);
                for b in 0..self.plan.shape.batch {
                    for t in self.steps(direction, b) {
                        self.read_input(x, saved_steps, layer, t, b, &mut input);
                        self.read_state(saved_steps, layer, direction, t, b, &mut input);
                        let saved_step = saved_steps.at(layer, direction, t, b);
                        cell.add_weight_gradient(&input.x, &input.state(), &saved_step, &mut gradient);
                    }
                }
            }
        }
    }
}
