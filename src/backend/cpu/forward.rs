//! Forward, by chunks of time steps: the product with their inputs, then their part of the time loop, which finds the gates in the cache.

mod single;

use std::ops::Range;

pub(super) use single::scratch as single_scratch;

use super::Call;
use super::cells::{self, ForwardRows, Options, Part, Sums};
use super::gemm::gemv::Operand;
use super::gemm::{self, Start, Written};
use super::geometry::{Parts, Space, take};
use super::packed::{Operands, Rooms, Step};
use super::products::{RowsProduct, share_scratch};
use super::recurrent::RecurrentWeights;
use super::saved::{Kept, Saved, input_of};
use super::sequences::{Rows, Sequences};
use super::steps::Steps;
use super::threads::{Both, Divide, Threads, share};
use super::time_loop::{ThreadStates, copy_or_zero, share_steps, split_state, split_steps};
use super::unit_groups::{ROWS_AT_ONCE, UnitGroups};
use crate::backend::cpu::CpuElement;
use crate::backend::{ForwardArgs, ForwardMode};
use crate::rnn::{CandidateTerm, LayerWeights, PaddedOutput, RnnShape};
use crate::simd::{Kernel, Simd};
use single::SingleSequence;

/// Workspace of the forward pass of a layer and direction.
struct Workspace<'a, E> {
    /// For the weights, as they are multiplied with.
    operands: &'a mut [E],
    h: &'a mut [E],
    c: &'a mut [E],
    u: &'a mut [E],
    thread_states: &'a mut [E],
    /// Of inference.
    gates: &'a mut [E],
    chunk_outputs: &'a mut [E],
}

impl<'a, E: CpuElement> Workspace<'a, E> {
    fn new(parts: &mut Parts<'a, E>, space: &Space) -> Self {
        Workspace {
            operands: parts.next(space.operands),
            h: parts.next(space.output_state),
            c: parts.next(space.cell_state),
            u: parts.next(space.hidden_state),
            thread_states: parts.next(space.thread_states),
            gates: parts.next(space.gates),
            chunk_outputs: parts.next(space.chunk_outputs),
        }
    }
}

/// Where the outputs of a layer and direction go.
enum Outputs<'a, E> {
    /// To rows of steps and positions.
    InOrder(Steps<'a, E>),
    /// To `y`, whose sequences are in another order than the positions: through a buffer of a chunk.
    Reordered(Steps<'a, E>),
}

impl<'a, E: CpuElement> Outputs<'a, E> {
    /// The first features, which it then has no more.
    fn take_features(&mut self, first: usize) -> Self {
        match self {
            Outputs::InOrder(steps) => Outputs::InOrder(steps.take_features(first)),
            Outputs::Reordered(steps) => Outputs::Reordered(steps.take_features(first)),
        }
    }
}

impl<E: CpuElement> Call<'_, E> {
    pub(super) fn forward<B>(&self, args: ForwardArgs<'_, B>, reserve: Option<&mut [E]>)
    where
        B: crate::backend::HostBackend<E> + ?Sized,
    {
        let g = &self.geometry;
        let shape = self.plan.shape;
        let layout = self.plan.descriptor.layout;
        let ForwardArgs { weights, x, y, mut hn, mut cn, workspace, .. } = args;
        let space = &self.sizes.forward;
        let mut parts = Parts::aligned(workspace);
        let index = bytemuck::cast_slice_mut(parts.next(space.index));
        let sequences = Sequences::new(shape, self.lengths, self.resets, index);
        let mut ws = Workspace::new(&mut parts, space);
        // Of the other direction, where both are computed at once.
        let mut other = (space.sets == 2).then(|| Workspace::new(&mut parts, space));
        let outputs = parts.next(space.outputs);
        let scratch = parts.next(space.all_scratch());
        let training = reserve.is_some();
        let kept = reserve.map_or(Kept { saved: &mut [], between: &mut [] }, |storage| Kept::new(storage, g));

        for layer in 0..g.layers {
            let top = layer + 1 == g.layers;
            // Where the input lies, and where the output of a layer below another goes.
            let (below, above): (&[E], &mut [E]) = if !training {
                let (even, odd) = outputs.split_at_mut(g.outputs_len().min(outputs.len()));
                if layer % 2 == 0 { (odd, even) } else { (even, odd) }
            } else {
                let (below, above) = kept.between.split_at_mut(layer * g.between_len());
                (below, above)
            };
            let input = match layer {
                0 => Rows::outer(x, g.input, layout),
                _ if training => input_of(g, below, layer),
                _ => Rows::inner(below, g.features()),
            };
            let mut out = if !top {
                Outputs::InOrder(Steps::inner(&mut *above, shape, g.features()))
            } else if sequences.are_full() {
                Outputs::InOrder(Steps::outer(&mut *y, shape, g.features(), layout))
            } else {
                Outputs::Reordered(Steps::outer(&mut *y, shape, g.features(), layout))
            };
            let len = g.saved();
            let mut saved = match training {
                true => &mut kept.saved[layer * g.directions * len.total()..][..g.directions * len.total()],
                false => &mut [],
            };
            let mut next_direction = |direction: usize| {
                let own = take(&mut saved, if training { len.total() } else { 0 });
                Direction {
                    place: (layer, direction),
                    sequences: &sequences,
                    input,
                    weights: self.plan.weights.view(weights, layer, direction),
                    saved: training.then(|| Saved::new(own, &len)),
                    out: out.take_features(g.output),
                }
            };
            let mut write_states = |direction: usize, ws: &Workspace<'_, E>| {
                for position in 0..g.batch {
                    let row = self.state_row((layer, direction), sequences.at(position));
                    if let Some(hn) = &mut hn {
                        let h = &ws.h[position * g.output..][..g.output];
                        hn[row * g.output..][..g.output].copy_from_slice(h);
                    }
                    if let Some(cn) = &mut cn {
                        let c = &ws.c[position * g.others..][..g.others];
                        cn[row * g.others..][..g.others].copy_from_slice(c);
                    }
                }
            };
            match &mut other {
                Some(other) => {
                    let alone = Call { threads: Threads::one(), ..*self };
                    let scratch = share_scratch(&mut *scratch, 1, 2);
                    let run = |(pass, ws, scratch)| {
                        let alone = &alone;
                        move || alone.forward_direction(pass, ws, scratch)
                    };
                    let passes = [(next_direction(0), &mut ws, scratch.0), (next_direction(1), &mut *other, scratch.1)];
                    let [left, right] = passes.map(run);
                    let both = Both(Some(left), Some(right));
                    self.threads.workers(2).divide(both);
                    write_states(0, &ws);
                    write_states(1, other);
                }
                None => {
                    for direction in 0..g.directions {
                        self.forward_direction(next_direction(direction), &mut ws, scratch);
                        write_states(direction, &ws);
                    }
                }
            }
            if training && !top && g.dropout {
                let (plain, dropped) = above[..g.between_len()].split_at_mut(g.outputs_len());
                for index in 0..sequences.valid_rows() {
                    let row = sequences.valid_row(index);
                    let dropped = &mut dropped[row * g.features()..][..g.features()];
                    dropped.copy_from_slice(&plain[row * g.features()..][..g.features()]);
                    self.dropout.apply(dropped, layer + 1, row / g.batch, sequences.at(row % g.batch));
                }
            }
            if top && !sequences.are_full() {
                self.fill_padded_outputs(&sequences, y);
            }
        }
    }

    /// Fills the padded steps of `y`: with zeros, or under [`PaddedOutput::Hold`] in the forward direction with the last valid output.
    fn fill_padded_outputs(&self, sequences: &Sequences<'_>, y: &mut [E]) {
        let (g, d) = (&self.geometry, &self.plan.descriptor);
        for position in 0..g.batch {
            let row = |t: usize| self.plan.row(t, sequences.at(position)) * g.features();
            let length = sequences.length(position);
            for t in length..g.seq_len {
                for direction in 0..g.directions {
                    let features = direction * g.output..(direction + 1) * g.output;
                    if d.padded_output == PaddedOutput::Hold && !d.direction.is_reverse(direction) {
                        let last = row(length - 1);
                        y.copy_within(last + features.start..last + features.end, row(t) + features.start);
                    } else {
                        y[row(t)..][features].fill(E::zero());
                    }
                }
            }
        }
    }

    fn forward_direction(&self, pass: Direction<'_, E>, ws: &mut Workspace<'_, E>, scratch: &mut [E]) {
        let Direction { place, sequences, input, weights, saved, mut out } = pass;
        let weights = &weights;
        let saved = saved.unwrap_or(Saved {
            gates: &mut *ws.gates,
            cells: &mut [],
            inputs: &mut [],
            unprojected: &mut [],
            projected_gradient: &mut [],
        });
        let g = &self.geometry;
        let isa = self.isa;
        let training = self.plan.mode == ForwardMode::Training;
        let takes_inputs = self.sizes.groups.is_some_and(|groups| groups.take_inputs);
        let (operands, copies) = match self.packed {
            Some(packed) => (Some(self.pack_layer(place.0, weights, packed.rooms(place, self.sizes))), &mut [][..]),
            None if self.sizes.own_operands => (None, &mut *ws.operands),
            None => {
                let rooms = Rooms::empty(&mut *ws.operands, self.sizes.operands(place.0));
                (Some(self.pack_layer(place.0, weights, rooms)), &mut [][..])
            }
        };
        let mut loop_weights = match &operands {
            Some(operands) => LoopWeights::Shared(operands),
            None => LoopWeights::Own { copies, are_packed: false },
        };
        for position in 0..g.batch {
            let sequence = sequences.at(position);
            let h = &mut ws.h[position * g.output..][..g.output];
            let [start_h, start_c] = self.before(false);
            copy_or_zero(h, self.initial(start_h, g.output, place, sequence));
            let c = &mut ws.c[position * g.others..][..g.others];
            copy_or_zero(c, self.initial(start_c, g.others, place, sequence));
        }
        let shared = Shared {
            call: self,
            sequences,
            place,
            reverse: self.plan.descriptor.direction.is_reverse(place.1),
            options: self.options(place.1, weights),
            weights,
            input,
        };
        let shape = self.plan.shape;
        let chunks = g.seq_len.div_ceil(self.sizes.chunk);
        for chunk in 0..chunks {
            let chunk = if shared.reverse { chunks - 1 - chunk } else { chunk };
            let steps = chunk * self.sizes.chunk..g.seq_len.min((chunk + 1) * self.sizes.chunk);
            let rows = sequences.valid_within(&steps);
            let (base, count) = (steps.start * g.batch, steps.len() * g.batch);
            // Inference has room for one chunk, training for all.
            let first = if training { base } else { 0 };
            let gates = match (training, takes_inputs) {
                (false, true) => &mut [],
                _ => &mut saved.gates[first * g.gate_width..][..count * g.gate_width],
            };
            let (panels, bias) = operands.map_or((None, &[][..]), |operands| (operands.panels, operands.bias));
            match panels {
                None if takes_inputs => {}
                None if self.takes_one_feature(place.0) => {
                    for index in rows {
                        let row = sequences.valid_row(index);
                        let (x, at) = (input.at(sequences, row)[0], (row - base) * g.gate_width);
                        let gates = &mut gates[at..at + g.gate_rows];
                        let blocks = bias.chunks_exact(g.hidden).zip(gates.chunks_exact_mut(g.hidden)).enumerate();
                        for (block, (bias, gates)) in blocks {
                            let weights = &weights.input_hidden[g.input_row(block * g.hidden)..][..g.hidden];
                            isa.run(OneFeature { x, weights, bias, gates });
                        }
                    }
                }
                None => self.read_gates(place.1, sequences, rows, input, bias, &mut *gates, base),
                Some(panels) if rows.len() == 1 => {
                    // Nothing but columns to divide.
                    let row = |index: usize| input.at(sequences, sequences.valid_row(index));
                    let at = |index: usize| (sequences.valid_row(index) - base) * g.gate_width;
                    let workers = self.threads.workers(self.sizes.row_workers);
                    gemm::multiply(isa, rows, row, panels, gates, at, Start::Bias(bias), &mut *scratch, workers);
                }
                Some(panels) => {
                    let product = RowsProduct {
                        isa,
                        sequences,
                        rows,
                        source: input,
                        panels,
                        c: &mut *gates,
                        base,
                        stride: g.gate_width,
                        start: Start::Bias(bias),
                        scratch: &mut *scratch,
                    };
                    self.threads.workers(self.sizes.workers).divide(product);
                }
            }
            let shape_of_chunk = RnnShape { seq_len: steps.len(), ..shape };
            let (out_first, chunk_out) = match &mut out {
                Outputs::InOrder(out) => (0, out.reborrow()),
                Outputs::Reordered(_) => {
                    let buffer = &mut ws.chunk_outputs[..count * g.output];
                    (steps.start, Steps::inner(buffer, shape_of_chunk, g.output))
                }
            };
            let work = ForwardLoop {
                shared: &shared,
                weights: loop_weights.reborrow(),
                first: 0,
                rows: g.batch,
                gates: Steps::if_any(gates, shape_of_chunk, g.gate_width),
                steps: steps.clone(),
                cells: Steps::if_any(&mut *saved.cells, shape, g.others),
                inputs: Steps::if_any(&mut *saved.inputs, shape, g.gate_rows),
                unprojected: Steps::if_any(&mut *saved.unprojected, shape, g.hidden),
                out: chunk_out,
                out_first,
                h: &mut *ws.h,
                c: &mut *ws.c,
                u: &mut *ws.u,
                thread_states: ThreadStates::new(&mut *ws.thread_states),
                training,
                scratch: &mut *scratch,
            };
            self.threads.workers(self.sizes.step_workers).divide(work);
            if let LoopWeights::Own { are_packed, .. } = &mut loop_weights {
                *are_packed = true;
            }
            if let Outputs::Reordered(y) = &mut out {
                let outputs = ws.chunk_outputs.chunks_exact(g.output);
                for (row, output) in (base..base + count).zip(outputs) {
                    let (t, position) = (row / g.batch, row % g.batch);
                    if t < sequences.length(position) {
                        y.row(t, sequences.at(position)).copy_from_slice(output);
                    }
                }
            }
        }
    }

    /// `gates = x + bias` of some valid steps, where the input is gates: those of one direction, brought to the order of the columns. `gates`
    /// begins with the internal row `base`.
    #[allow(clippy::too_many_arguments)] // as above
    fn read_gates(
        &self,
        direction: usize,
        sequences: &Sequences<'_>,
        rows: Range<usize>,
        input: Rows<'_, E>,
        bias: &[E],
        gates: &mut [E],
        base: usize,
    ) {
        let g = &self.geometry;
        let input = input.features(direction * g.gate_rows, g.gate_rows);
        for index in rows {
            let row = sequences.valid_row(index);
            let (from, to) = (input.at(sequences, row), &mut gates[(row - base) * g.gate_width..][..g.gate_rows]);
            for first in (0..g.gate_rows).step_by(g.hidden) {
                let from = &from[g.input_row(first)..][..g.hidden];
                let bias = &bias[first..first + g.hidden];
                for ((to, &from), &bias) in to[first..first + g.hidden].iter_mut().zip(from).zip(bias) {
                    *to = from + bias;
                }
            }
        }
    }
}

/// `gates = bias + x weights` of a single feature, with the roundings of the product over packed weights.
struct OneFeature<'a, E> {
    x: E,
    weights: &'a [E],
    bias: &'a [E],
    gates: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for OneFeature<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let OneFeature { x, weights, bias, gates } = self;
        for ((gate, weight), bias) in gates.iter_mut().zip(weights).zip(bias) {
            // A sum begins with zero, which makes a zero of a negative one.
            *gate = *bias + (x * *weight + E::zero());
        }
    }
}

/// What the pass of a layer and direction reads, keeps and gives.
struct Direction<'a, E> {
    place: (usize, usize),
    sequences: &'a Sequences<'a>,
    input: Rows<'a, E>,
    weights: LayerWeights<&'a [E]>,
    /// In training.
    saved: Option<Saved<'a, E>>,
    out: Outputs<'a, E>,
}

/// What all threads of a time loop read.
struct Shared<'a, E> {
    call: &'a Call<'a, E>,
    sequences: &'a Sequences<'a>,
    place: (usize, usize),
    reverse: bool,
    options: Options<'a, E>,
    weights: &'a LayerWeights<&'a [E]>,
    input: Rows<'a, E>,
}

/// The weights as a time loop multiplies with them.
enum LoopWeights<'a, E> {
    /// Packed for all threads.
    Shared(&'a Operands<'a, E>),
    /// A copy for each thread, one after another, which it packs itself in the first chunk. What another has packed would come to it line by line, in every
    /// call: on cores without a cache in common that takes as long as a few steps.
    Own { copies: &'a mut [E], are_packed: bool },
}

impl<E: CpuElement> LoopWeights<'_, E> {
    fn reborrow(&mut self) -> LoopWeights<'_, E> {
        match self {
            LoopWeights::Shared(operands) => LoopWeights::Shared(operands),
            LoopWeights::Own { copies, are_packed } => LoopWeights::Own { copies, are_packed: *are_packed },
        }
    }
}

/// The time loop over a chunk of steps for the sequences at some positions.
struct ForwardLoop<'a, 'y, E> {
    shared: &'a Shared<'a, E>,
    weights: LoopWeights<'a, E>,
    /// The steps.
    steps: Range<usize>,
    /// First position.
    first: usize,
    rows: usize,
    /// Of these steps alone; the others are of all. Absent where nothing needs them after a step.
    gates: Option<Steps<'a, E>>,
    cells: Option<Steps<'a, E>>,
    inputs: Option<Steps<'a, E>>,
    unprojected: Option<Steps<'a, E>>,
    out: Steps<'y, E>,
    /// The step that `out` begins with.
    out_first: usize,
    /// State before and after each step.
    h: &'a mut [E],
    c: &'a mut [E],
    /// Output before its projection; what a second product takes; the new h while groups of units read the old one.
    u: &'a mut [E],
    thread_states: ThreadStates<'a, E>,
    /// Whether backward will follow.
    training: bool,
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for ForwardLoop<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let ForwardLoop {
            shared,
            weights,
            steps,
            first,
            rows,
            gates,
            cells,
            inputs,
            unprojected,
            out,
            out_first,
            h,
            c,
            u,
            thread_states,
            training,
            scratch,
        } = self;
        let at = share_steps(shared.sequences, first..first + rows, &steps, left, of);
        let (gates, cells, inputs) = (split_steps(gates, at), split_steps(cells, at), split_steps(inputs, at));
        let (unprojected, out) = (split_steps(unprojected, at), out.split(at));
        let (h, c, u) = (split_state(h, at, rows), split_state(c, at, rows), split_state(u, at, rows));
        let thread_states = thread_states.split([h.0.len(), c.0.len(), u.0.len()]);
        let scratch = share_scratch(scratch, left, of);
        let weights = match weights {
            LoopWeights::Shared(operands) => (LoopWeights::Shared(operands), LoopWeights::Shared(operands)),
            LoopWeights::Own { copies, are_packed } => {
                let first = left * shared.call.sizes.operands(shared.place.0).total();
                let (copies, others) = copies.split_at_mut(first);
                (LoopWeights::Own { copies, are_packed }, LoopWeights::Own { copies: others, are_packed })
            }
        };
        (
            ForwardLoop {
                shared,
                weights: weights.0,
                steps: steps.clone(),
                first,
                rows: at,
                gates: gates.0,
                cells: cells.0,
                inputs: inputs.0,
                unprojected: unprojected.0,
                out: out.0,
                out_first,
                h: h.0,
                c: c.0,
                u: u.0,
                thread_states: thread_states.0,
                training,
                scratch: scratch.0,
            },
            ForwardLoop {
                shared,
                weights: weights.1,
                steps,
                first: first + at,
                rows: rows - at,
                gates: gates.1,
                cells: cells.1,
                inputs: inputs.1,
                unprojected: unprojected.1,
                out: out.1,
                out_first,
                h: h.1,
                c: c.1,
                u: u.1,
                thread_states: thread_states.1,
                training,
                scratch: scratch.1,
            },
        )
    }

    fn run(mut self) {
        let operands = self.operands();
        if let (2.., Step::ByUnits(weights)) = (self.shared.call.sizes.unit_workers, operands.step) {
            return self.run_single(weights);
        }
        let ForwardLoop { h, c, u, thread_states, .. } = &mut self;
        let shared_states = thread_states.take([h, c, u]);
        let (sequences, width) = (self.shared.sequences, self.shared.call.geometry.output);
        for (t, rows) in sequences.steps(self.shared.reverse, self.steps.clone(), self.first..self.first + self.rows) {
            self.reset(t, rows);
            self.step(t, rows, &operands);
            for row in 0..rows {
                self.out.row(t - self.out_first, row).copy_from_slice(&self.h[row * width..][..width]);
            }
        }
        if let Some([h, c, _]) = shared_states {
            h.copy_from_slice(self.h);
            c.copy_from_slice(self.c);
        }
    }
}

impl<'a, E: CpuElement> ForwardLoop<'a, '_, E> {
    /// The weights, which a thread of its own copy packs first.
    fn operands(&mut self) -> Operands<'a, E> {
        let Shared { call, place: (layer, _), weights, .. } = *self.shared;
        match &mut self.weights {
            LoopWeights::Shared(operands) => **operands,
            LoopWeights::Own { copies, are_packed } => {
                let space = call.sizes.operands(layer);
                let copy = take(copies, space.total());
                let rooms = if *are_packed { Rooms::filled(copy, space) } else { Rooms::empty(copy, space) };
                Call { threads: Threads::one(), ..*call }.pack_layer(layer, weights, rooms)
            }
        }
    }

    /// The loop of a single sequence, divided by units.
    fn run_single(self, weights: UnitGroups<'_, E>) {
        let ForwardLoop { shared, steps, gates, cells, inputs, out, out_first, h, c, u, training, scratch, .. } = self;
        let call = shared.call;
        let (hidden, others) = (call.geometry.hidden, call.geometry.others);
        let (start, rest) = u.split_at_mut(hidden + others);
        let (start_h, start_c) = start.split_at_mut(hidden);
        start_h.copy_from_slice(h);
        start_c.copy_from_slice(c);
        let one_step = RnnShape { seq_len: 1, batch: 1 };
        let work = SingleSequence {
            shared,
            weights,
            groups: 0..weights.sizes.count,
            steps,
            gates: gates.map(|view| view.units(hidden)),
            cells: cells.map(|view| view.units(hidden)),
            inputs: inputs.map(|view| view.units(hidden)),
            out: out.units(hidden),
            out_first,
            start: (start_h, start_c),
            h: Steps::inner(h, one_step, hidden).units(hidden),
            c: Steps::if_any(c, one_step, others).map(|view| view.units(hidden)),
            training,
            scratch,
        };
        let workers = call.threads.workers(call.sizes.unit_workers);
        match call.plan.shape.seq_len {
            1 => workers.divide_step(work),
            _ => workers.in_lockstep(work, rest, (1, hidden)),
        }
    }

    /// Puts the initial state back where the mask says so.
    fn reset(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, place, .. } = *self.shared;
        if !sequences.have_resets() {
            return;
        }
        let g = &call.geometry;
        for row in 0..rows {
            if sequences.is_reset(t, self.first + row) {
                let sequence = sequences.at(self.first + row);
                let h = &mut self.h[row * g.output..][..g.output];
                copy_or_zero(h, call.initial(call.h0, g.output, place, sequence));
                let c = &mut self.c[row * g.others..][..g.others];
                copy_or_zero(c, call.initial(call.c0, g.others, place, sequence));
            }
        }
    }

    fn step(&mut self, t: usize, rows: usize, operands: &Operands<'_, E>) {
        let Operands { projection, candidate_bias, .. } = *operands;
        match operands.step {
            Step::ByProducts { recurrent, candidate } => {
                self.step_by_products(t, rows, (recurrent, candidate), candidate_bias, projection);
            }
            Step::ByUnits(units) => self.step_by_units(t, rows, units),
        }
    }

    fn step_by_products(
        &mut self,
        t: usize,
        rows: usize,
        (recurrent, candidate): (RecurrentWeights<'_, E>, Option<RecurrentWeights<'_, E>>),
        candidate_bias: &[E],
        projection: Option<Operand<'_, E>>,
    ) {
        let Shared { call, .. } = *self.shared;
        let g = &call.geometry;
        let (width, hidden, output) = (g.gate_width, g.hidden, g.output);
        let at = t - self.steps.start;
        let gates = self.gates.as_mut().map_or(&mut [][..], |gates| gates.block(at, rows));
        if g.candidate == CandidateTerm::Apart {
            for row in gates.chunks_exact_mut(width) {
                row[g.gate_rows..].copy_from_slice(candidate_bias);
            }
        }
        let h = &*self.h;
        call.multiply_state(t, rows, |row| &h[row * output..][..output], recurrent, gates, self.scratch);
        match candidate {
            None => self.cells(t, rows, Part::Whole, projection.is_some()),
            Some(candidate) => {
                self.cells(t, rows, Part::First, projection.is_some());
                let gates = self.gates.as_mut().map_or(&mut [][..], |gates| gates.block(at, rows));
                // The product adds to the rows that hold `q`, so it reads a copy.
                for row in 0..rows {
                    self.u[row * hidden..][..hidden].copy_from_slice(&gates[row * width + g.gate_rows..][..hidden]);
                }
                let u = &*self.u;
                call.multiply_state(t, rows, |row| &u[row * hidden..][..hidden], candidate, gates, self.scratch);
                self.cells(t, rows, Part::Second, projection.is_some());
            }
        }
        if let Some(projection) = projection {
            let u = &*self.u;
            let u_row = |row: usize| &u[row * hidden..][..hidden];
            call.step_product(t, rows, u_row, projection, self.h, (output, 0), Start::Set, self.scratch);
            if let Some(unprojected) = &mut self.unprojected {
                unprojected.block(t, rows).copy_from_slice(&u[..rows * hidden]);
            }
        }
    }

    /// The cells' arithmetic between products.
    fn cells(&mut self, t: usize, rows: usize, part: Part, are_projected: bool) {
        let Shared { call, options, .. } = *self.shared;
        let g = &call.geometry;
        let at = t - self.steps.start;
        let h = if are_projected { &mut self.u[..rows * g.hidden] } else { &mut self.h[..rows * g.output] };
        let cells = ForwardRows {
            options,
            part,
            training: self.training,
            rows,
            units: 0..g.hidden,
            sums: None,
            gates: self.gates.as_mut().map_or(&mut [], |gates| gates.block(at, rows)),
            kept: self.inputs.as_mut().map_or(&mut [], |inputs| inputs.block(t, rows)),
            h,
            c: &mut self.c[..rows * g.others],
            c_kept: self.cells.as_mut().map_or(&mut [], |cells| cells.block(t, rows)),
        };
        match call.sizes.cell_workers {
            1 => cells.run(g.cell, call.isa),
            workers => call.threads.workers(workers).divide(Cells { rows: cells, call }),
        }
    }

    fn step_by_units(&mut self, t: usize, rows: usize, groups: UnitGroups<'_, E>) {
        let Shared { call, sequences, options, input, .. } = *self.shared;
        let (g, isa, sizes) = (&call.geometry, call.isa, groups.sizes);
        let (hidden, others) = (g.hidden, g.others);
        let at = t - self.steps.start;
        let gates = self.gates.as_mut().map_or(&mut [][..], |gates| gates.block(at, rows));
        let kept = self.inputs.as_mut().map_or(&mut [][..], |inputs| inputs.block(t, rows));
        let c_kept = self.cells.as_mut().map_or(&mut [][..], |cells| cells.block(t, rows));
        let (sums, room) = self.scratch.split_at_mut(rows.min(ROWS_AT_ONCE) * sizes.sums);
        let h = &*self.h;
        let none: &[E] = &[];
        let (mut inputs, mut states) = ([none; ROWS_AT_ONCE], [none; ROWS_AT_ONCE]);
        for first in (0..rows).step_by(ROWS_AT_ONCE) {
            let some = first..rows.min(first + ROWS_AT_ONCE);
            for ((row, input_row), state_row) in some.clone().zip(&mut inputs).zip(&mut states) {
                if groups.take_inputs() {
                    *input_row = input.row(sequences, t, self.first + row);
                }
                *state_row = &h[row * hidden..][..hidden];
            }
            let (inputs, states) = (&inputs[..some.len()], &states[..some.len()]);
            let terms = groups.split(inputs, states, room);
            let gates = part_of(gates, &some, g.gate_width);
            let h_next = part_of(self.u, &some, hidden);
            if cells::reads_h(g.cell) {
                h_next.copy_from_slice(&h[some.start * hidden..some.end * hidden]);
            }
            for group in groups.order(0..sizes.count, call.turn(t)) {
                let units = groups.units(group);
                if !groups.take_inputs() {
                    for (gates, sums) in gates.chunks_exact(g.gate_width).zip(sums.chunks_exact_mut(sizes.sums)) {
                        let of_gates = gates[..g.gate_rows].chunks_exact(hidden);
                        for (sums, gate) in sums.chunks_exact_mut(sizes.units).zip(of_gates) {
                            sums[..units.len()].copy_from_slice(&gate[units.clone()]);
                        }
                    }
                }
                let c_kept = part_of(c_kept, &some, others);
                let of_gates = Written {
                    tensor: gates.get(units.start..).unwrap_or_default(),
                    row: g.gate_width,
                    panel: hidden,
                    panels: g.gate_width / hidden,
                };
                let of_c = Written {
                    tensor: c_kept.get(units.start..).unwrap_or_default(),
                    row: others,
                    panel: hidden,
                    panels: others / hidden,
                };
                let written = [of_gates, of_c].map(|written| Some(written).filter(|_| self.training));
                match terms {
                    Some(terms) => groups.multiply_terms(isa, group, terms, sums, some.len(), written),
                    None => groups.multiply(isa, group, inputs, states, sums, written),
                }
                ForwardRows {
                    options,
                    part: Part::Whole,
                    training: self.training,
                    rows: some.len(),
                    units,
                    sums: Some(Sums { data: &*sums, units: sizes.units, stride: sizes.sums }),
                    gates: &mut *gates,
                    kept: part_of(kept, &some, g.gate_rows),
                    h: &mut *h_next,
                    c: part_of(self.c, &some, others),
                    c_kept,
                }
                .run(g.cell, isa);
            }
        }
        self.h[..rows * hidden].copy_from_slice(&self.u[..rows * hidden]);
    }
}

/// The cells of a step, divided by sequences.
struct Cells<'a, 'c, E> {
    rows: ForwardRows<'a, E>,
    call: &'c Call<'c, E>,
}

impl<E: CpuElement> Divide for Cells<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Cells { rows, call } = self;
        let first = share(rows.rows, left, of);
        let (left, right) = rows.split(first);
        (Cells { rows: left, call }, Cells { rows: right, call })
    }

    fn run(self) {
        self.rows.run(self.call.geometry.cell, self.call.isa);
    }
}

/// Some rows of a tensor that may be empty.
fn part_of<'a, E>(tensor: &'a mut [E], rows: &Range<usize>, width: usize) -> &'a mut [E] {
    if tensor.is_empty() { tensor } else { &mut tensor[rows.start * width..rows.end * width] }
}
