//! Backward: the time loop from the last step to the first, then the products over all steps.

mod single;

pub(super) use single::scratch as single_scratch;

use super::Call;
use super::cells::{BackwardRow, Options, Part, reads_h};
use super::gemm::gemv::Operand;
use super::gemm::{Panels, Start};
use super::geometry::{Parts, Recurrent, Space, take};
use super::products::{RowsProduct, SequencesProduct, share_scratch};
use super::recurrent::RecurrentWeights;
use super::saved::{Kept, Saved, output_of};
use super::sequences::{Rows, Sequences};
use super::steps::Steps;
use super::threads::{Both, Divide, Threads, share};
use super::time_loop::{ThreadStates, copy_or_zero, share_steps, split_state, split_steps};
use crate::backend::checkpoints::Carried;
use crate::backend::cpu::CpuElement;
use crate::backend::{BackwardDataArgs, HostBackend};
use crate::rnn::{LayerWeights, PaddedOutput, RnnShape};
use single::SingleSequence;

/// Workspace of the time loop of a layer and direction.
struct Workspace<'a, E> {
    recurrent_weights: &'a mut [E],
    candidate_weights: &'a mut [E],
    candidate_gradient: &'a mut [E],
    projection: &'a mut [E],
    dh: &'a mut [E],
    dc: &'a mut [E],
    du: &'a mut [E],
    thread_states: &'a mut [E],
    initial: &'a mut [E],
    /// In a segment, where gradients of states come from and go to.
    carried: Option<Carried<&'a mut [E]>>,
}

impl<'a, E: CpuElement> Workspace<'a, E> {
    fn new(parts: &mut Parts<'a, E>, space: &Space) -> Self {
        Workspace {
            recurrent_weights: parts.next(space.recurrent_weights * space.copies.max(1)),
            candidate_weights: parts.next(space.candidate_weights),
            projection: parts.next(space.projection),
            candidate_gradient: parts.next(space.candidate_gradient),
            dh: parts.next(space.output_state),
            dc: parts.next(space.cell_state),
            du: parts.next(space.hidden_state),
            thread_states: parts.next(space.thread_states),
            initial: parts.next(space.initial_state),
            carried: None,
        }
    }
}

/// What the time loop of a layer and direction reads and writes.
struct Direction<'a, E> {
    place: (usize, usize),
    sequences: &'a Sequences<'a>,
    given: Given<'a, E>,
    weights: LayerWeights<&'a [E]>,
    saved: Saved<'a, E>,
}

/// What the time loop of a layer reads besides its own saved values.
#[derive(Clone, Copy)]
struct Given<'a, E> {
    /// The layer's output.
    output: Rows<'a, E>,
    /// Its gradient.
    gradient: Option<Rows<'a, E>>,
    dhn: Option<&'a [E]>,
    dcn: Option<&'a [E]>,
    /// Whether the gradient at padded steps counts.
    hold: bool,
    /// Whether the initial state's gradient is wanted.
    initial: bool,
}

impl<E: CpuElement> Call<'_, E> {
    pub(super) fn backward_data<B: HostBackend<E> + ?Sized>(
        &self,
        args: BackwardDataArgs<'_, B>,
        carried: Option<Carried<&mut [E]>>,
        reserve: &mut [E],
    ) {
        let g = &self.geometry;
        let d = &self.plan.descriptor;
        let BackwardDataArgs { weights, y, dy, dhn, dcn, mut dx, mut dh0, mut dc0, workspace, .. } = args;
        let space = &self.sizes.backward;
        let mut parts = Parts::aligned(workspace);
        let index = bytemuck::cast_slice_mut(parts.next(space.index));
        let sequences = Sequences::new(self.plan.shape, self.lengths, self.resets, index);
        let input_weights = parts.next(space.input_weights);
        let mut ws = Workspace::new(&mut parts, space);
        // Of the other direction, where both are computed at once.
        let mut other = (space.sets == 2).then(|| Workspace::new(&mut parts, space));
        let gradients = parts.next(space.outputs);
        let scratch = parts.next(space.all_scratch());
        ws.carried = carried;
        let mut kept = Kept::new(reserve, g);

        for layer in (0..g.layers).rev() {
            let top = layer + 1 == g.layers;
            // Gradients of a layer's output and of its input, by turns.
            let (even, odd) = gradients.split_at_mut(g.rows() * g.widest_input);
            let (above, below) = if layer % 2 == 0 { (&*odd, even) } else { (&*even, odd) };
            let len = g.saved();
            let mut saved = &mut kept.saved[layer * g.directions * len.total()..][..g.directions * len.total()];
            let output = if top { Rows::outer(y, g.features(), d.layout) } else { output_of(g, &*kept.between, layer) };
            let gradient = match top {
                true => dy.map(|dy| Rows::outer(dy, g.features(), d.layout)),
                false => Some(Rows::inner(above, g.features())),
            };
            let mut directions = [None, None];
            for (direction, pass) in directions.iter_mut().enumerate().take(g.directions) {
                *pass = Some(Direction {
                    place: (layer, direction),
                    sequences: &sequences,
                    given: Given {
                        output: output.features(direction * g.output, g.output),
                        gradient: gradient.map(|rows| rows.features(direction * g.output, g.output)),
                        dhn,
                        dcn,
                        initial: dh0.is_some() || ws.carried.is_some(),
                        hold: top
                            && d.padded_output == PaddedOutput::Hold
                            && !d.direction.is_reverse(direction)
                            && !sequences.are_full(),
                    },
                    weights: self.plan.weights.view(weights, layer, direction),
                    saved: Saved::new(take(&mut saved, len.total()), &len),
                });
            }
            let mut write_gradients = |direction: usize, ws: &Workspace<'_, E>| {
                for position in 0..g.batch {
                    let row = self.state_row((layer, direction), sequences.at(position));
                    if let Some(dh0) = &mut dh0 {
                        let dh = &ws.dh[position * g.output..][..g.output];
                        dh0[row * g.output..][..g.output].copy_from_slice(dh);
                    }
                    if let Some(dc0) = &mut dc0 {
                        let dc = &ws.dc[position * g.others..][..g.others];
                        dc0[row * g.others..][..g.others].copy_from_slice(dc);
                    }
                }
            };
            match (&mut other, &mut directions) {
                (Some(other), [left, right]) => {
                    let scratch = share_scratch(&mut *scratch, 1, 2);
                    let alone = Call { threads: Threads::one(), ..*self };
                    let run = |(pass, ws, scratch)| {
                        let (pass, alone): (Option<Direction<'_, E>>, _) = (pass, &alone);
                        move || {
                            if let Some(pass) = pass {
                                alone.backward_direction(pass, ws, scratch);
                            }
                        }
                    };
                    let passes = [(left.take(), &mut ws, scratch.0), (right.take(), &mut *other, scratch.1)];
                    let [left, right] = passes.map(run);
                    self.threads.workers(2).divide(Both(Some(left), Some(right)));
                    write_gradients(0, &ws);
                    write_gradients(1, other);
                }
                (None, directions) => {
                    for (direction, pass) in directions.iter_mut().filter_map(Option::take).enumerate() {
                        self.backward_direction(pass, &mut ws, scratch);
                        write_gradients(direction, &ws);
                    }
                }
            }

            if layer == 0 && dx.is_none() {
                break;
            }
            if let (true, Some(dx)) = (g.of_gates, &mut dx) {
                self.write_gate_gradients(&sequences, &mut kept, dx);
                break;
            }
            let in_place = layer == 0 && sequences.are_full() && d.layout == crate::rnn::Layout::SequenceMajor;
            let width = g.layer_input(layer);
            let target: &mut [E] = match &mut dx {
                Some(dx) if in_place => dx,
                _ => &mut below[..g.rows() * width],
            };
            for direction in 0..g.directions {
                let view = self.plan.weights.view(weights, layer, direction);
                let panels = self.pack_rows(g.gate_rows, width, &mut *input_weights, |column| {
                    self.used_row(view.input_hidden, g.input_row(column), width)
                });
                let saved = kept.saved(g, layer, direction);
                let source = Rows::inner(&*saved.gates, g.gate_width).features(0, g.gate_rows);
                let start = if direction == 0 { Start::Set } else { Start::Add };
                let (isa, scratch, workers) = (self.isa, &mut *scratch, self.threads.workers(self.sizes.workers));
                if self.sizes.inputs_by_sequences {
                    let (sequences, positions) = (&sequences, 0..g.batch);
                    let c = Steps::inner(&mut *target, self.plan.shape, width);
                    let product = SequencesProduct { isa, sequences, positions, source, panels, c, start, scratch };
                    workers.divide(product);
                } else {
                    let (sequences, rows) = (&sequences, 0..sequences.valid_rows());
                    let (c, base, stride) = (&mut *target, 0, width);
                    let product = RowsProduct { isa, sequences, rows, source, panels, c, base, stride, start, scratch };
                    workers.divide(product);
                }
            }
            if layer > 0 && self.dropout.is_active() {
                for index in 0..sequences.valid_rows() {
                    let row = sequences.valid_row(index);
                    let gradient = &mut target[row * width..][..width];
                    self.dropout.apply(gradient, layer, row / g.batch, sequences.at(row % g.batch));
                }
            }
            if let (0, false, Some(dx)) = (layer, in_place, &mut dx) {
                let gradient = Rows::inner(&*below, width);
                for t in 0..g.seq_len {
                    for position in 0..g.batch {
                        let row = self.plan.row(t, sequences.at(position));
                        let valid = t < sequences.length(position);
                        let gradient = valid.then(|| gradient.row(&sequences, t, position));
                        copy_or_zero(&mut dx[row * width..][..width], gradient);
                    }
                }
            }
        }
    }

    /// `dx`, where the input is gates: their gradients in the order of the weights' rows, zero at padded steps.
    fn write_gate_gradients(&self, sequences: &Sequences<'_>, kept: &mut Kept<'_, E>, dx: &mut [E]) {
        let g = &self.geometry;
        for direction in 0..g.directions {
            let saved = kept.saved(g, 0, direction);
            let gates = Rows::inner(&*saved.gates, g.gate_width);
            for t in 0..g.seq_len {
                for position in 0..g.batch {
                    let row = self.plan.row(t, sequences.at(position));
                    let dx = &mut dx[row * g.input + direction * g.gate_rows..][..g.gate_rows];
                    let valid = t < sequences.length(position);
                    let gates = valid.then(|| gates.row(sequences, t, position));
                    for first in (0..g.gate_rows).step_by(g.hidden) {
                        let gradient = gates.map(|gates| &gates[first..first + g.hidden]);
                        copy_or_zero(&mut dx[g.input_row(first)..][..g.hidden], gradient);
                    }
                }
            }
        }
    }

    fn backward_direction(&self, pass: Direction<'_, E>, ws: &mut Workspace<'_, E>, scratch: &mut [E]) {
        let Direction { place, sequences, given, weights, saved } = pass;
        let weights = &weights;
        let g = &self.geometry;
        let (copies, room) = match self.sizes.own_recurrent {
            true => (&mut *ws.recurrent_weights, None),
            false => (&mut [][..], Some(&mut *ws.recurrent_weights)),
        };
        let recurrent = room.map(|room| self.pack_state_transposed(weights.hidden_hidden, g.recurrent(), room));
        let candidate = g
            .candidate()
            .map(|part| self.pack_state_transposed(weights.hidden_hidden, part, &mut *ws.candidate_weights));
        let projection = match g.projected {
            true => Some(self.step_operand(weights.projection, 0, g.output, g.hidden, &mut *ws.projection)),
            false => None,
        };

        let (dhn, dcn) = match &ws.carried {
            Some(carried) => (Some(&*carried.dh), Some(&*carried.dc)),
            None => (given.dhn, given.dcn),
        };
        for position in 0..g.batch {
            let sequence = sequences.at(position);
            let dh = &mut ws.dh[position * g.output..][..g.output];
            copy_or_zero(dh, self.initial(dhn, g.output, place, sequence));
            if let (true, Some(gradient)) = (given.hold, &given.gradient) {
                for t in (sequences.length(position)..g.seq_len).rev() {
                    add(dh, gradient.row(sequences, t, position));
                }
            }
            let dc = &mut ws.dc[position * g.others..][..g.others];
            copy_or_zero(dc, self.initial(dcn, g.others, place, sequence));
        }
        let (dh0, dc0) = ws.initial.split_at_mut(g.batch * g.output);
        if sequences.have_resets() {
            for position in 0..g.batch {
                let sequence = sequences.at(position);
                let reset = ws.carried.as_ref().map(|carried| (&*carried.dh_reset, &*carried.dc_reset));
                let (dh_reset, dc_reset) = reset.unzip();
                let dh0 = &mut dh0[position * g.output..][..g.output];
                copy_or_zero(dh0, self.initial(dh_reset, g.output, place, sequence));
                let dc0 = &mut dc0[position * g.others..][..g.others];
                copy_or_zero(dc0, self.initial(dc_reset, g.others, place, sequence));
            }
        }

        let shared = Shared {
            call: self,
            sequences,
            place,
            reverse: self.plan.descriptor.direction.is_reverse(place.1),
            options: self.options(place.1, weights),
            weights,
            recurrent,
            candidate,
            projection,
            given,
            cells: &*saved.cells,
            inputs: g.keeps_inputs.then(|| Rows::inner(&*saved.inputs, g.gate_rows)),
        };
        let shape = self.plan.shape;
        let work = BackwardLoop {
            shared: &shared,
            copies,
            first: 0,
            rows: g.batch,
            gates: Steps::inner(saved.gates, shape, g.gate_width),
            projected_gradient: g.projected.then(|| Steps::inner(saved.projected_gradient, shape, g.output)),
            candidate_gradient: &mut *ws.candidate_gradient,
            dh: &mut *ws.dh,
            dc: &mut *ws.dc,
            du: &mut *ws.du,
            thread_states: ThreadStates::new(&mut *ws.thread_states),
            dh0: &mut *dh0,
            dc0: &mut *dc0,
            scratch,
        };
        self.threads.workers(self.sizes.step_workers).divide(work);
        if let Some(carried) = &mut ws.carried {
            for position in 0..g.batch {
                let b = sequences.at(position);
                let copy = |to: &mut [E], from: &[E], width: usize| {
                    to[b * width..][..width].copy_from_slice(&from[position * width..][..width]);
                };
                copy(carried.dh, ws.dh, g.output);
                copy(carried.dc, ws.dc, g.others);
                if sequences.have_resets() {
                    copy(carried.dh_reset, dh0, g.output);
                    copy(carried.dc_reset, dc0, g.others);
                }
            }
        } else if sequences.have_resets() {
            add(ws.dh, dh0);
            add(ws.dc, dc0);
        }
    }
}

/// `out += addend`
pub(super) fn add<E: CpuElement>(out: &mut [E], addend: &[E]) {
    for (out, &addend) in out.iter_mut().zip(addend) {
        *out += addend;
    }
}

/// What all threads of a time loop read.
struct Shared<'a, E> {
    call: &'a Call<'a, E>,
    sequences: &'a Sequences<'a>,
    place: (usize, usize),
    reverse: bool,
    options: Options<'a, E>,
    weights: &'a LayerWeights<&'a [E]>,
    /// Absent where each thread packs its own, as in the forward pass.
    recurrent: Option<RecurrentWeights<'a, E>>,
    candidate: Option<RecurrentWeights<'a, E>>,
    projection: Option<Operand<'a, E>>,
    given: Given<'a, E>,
    cells: &'a [E],
    inputs: Option<Rows<'a, E>>,
}

/// The time loop for the sequences at some positions.
struct BackwardLoop<'a, E> {
    shared: &'a Shared<'a, E>,
    /// Room for each thread's own recurrent weights, one after another.
    copies: &'a mut [E],
    /// First position.
    first: usize,
    rows: usize,
    gates: Steps<'a, E>,
    projected_gradient: Option<Steps<'a, E>>,
    /// Gradient of a candidate that has a product of its own.
    candidate_gradient: &'a mut [E],
    /// Gradient of the state after and before each step.
    dh: &'a mut [E],
    dc: &'a mut [E],
    /// Gradient of the output before its projection, or of `q`.
    du: &'a mut [E],
    thread_states: ThreadStates<'a, E>,
    /// What resets give to the initial state.
    dh0: &'a mut [E],
    dc0: &'a mut [E],
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for BackwardLoop<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let BackwardLoop {
            shared,
            copies,
            first,
            rows,
            gates,
            projected_gradient,
            candidate_gradient,
            dh,
            dc,
            du,
            thread_states,
            dh0,
            dc0,
            scratch,
        } = self;
        let steps = 0..shared.call.geometry.seq_len;
        let at = share_steps(shared.sequences, first..first + rows, &steps, left, of);
        let (gates, projected_gradient) = (gates.split(at), split_steps(projected_gradient, at));
        let (dh, dc, du) = (split_state(dh, at, rows), split_state(dc, at, rows), split_state(du, at, rows));
        let thread_states = thread_states.split([dh.0.len(), dc.0.len(), du.0.len()]);
        let (dh0, dc0) = (split_state(dh0, at, rows), split_state(dc0, at, rows));
        let candidate_gradient = split_state(candidate_gradient, at, rows);
        let scratch = share_scratch(scratch, left, of);
        let copies = copies.split_at_mut(copies.len() / of * left);
        (
            BackwardLoop {
                shared,
                copies: copies.0,
                first,
                rows: at,
                gates: gates.0,
                projected_gradient: projected_gradient.0,
                candidate_gradient: candidate_gradient.0,
                dh: dh.0,
                dc: dc.0,
                du: du.0,
                thread_states: thread_states.0,
                dh0: dh0.0,
                dc0: dc0.0,
                scratch: scratch.0,
            },
            BackwardLoop {
                shared,
                copies: copies.1,
                first: first + at,
                rows: rows - at,
                gates: gates.1,
                projected_gradient: projected_gradient.1,
                candidate_gradient: candidate_gradient.1,
                dh: dh.1,
                dc: dc.1,
                du: du.1,
                thread_states: thread_states.1,
                dh0: dh0.1,
                dc0: dc0.1,
                scratch: scratch.1,
            },
        )
    }

    fn run(mut self) {
        let Shared { call, weights, .. } = *self.shared;
        let recurrent = self.shared.recurrent.unwrap_or_else(|| {
            let copy = &mut std::mem::take(&mut self.copies)[..call.sizes.backward.recurrent_weights];
            let alone = Call { threads: Threads::one(), ..*call };
            alone.pack_state_transposed(weights.hidden_hidden, call.geometry.recurrent(), copy)
        });
        if let (2.., Some((part, weights))) = (call.sizes.unit_workers, recurrent.panels()) {
            return self.run_single(part, weights);
        }
        let BackwardLoop { dh, dc, du, thread_states, .. } = &mut self;
        let shared_states = thread_states.take([dh, dc, du]);
        let sequences = self.shared.sequences;
        let steps = sequences.shape.seq_len;
        for (t, rows) in sequences.steps(!self.shared.reverse, 0..steps, self.first..self.first + self.rows) {
            self.add_output_gradient(t, rows);
            self.step(t, rows, recurrent);
            self.reset(t, rows);
        }
        if let Some([dh, dc, _]) = shared_states {
            dh.copy_from_slice(self.dh);
            dc.copy_from_slice(self.dc);
        }
    }
}

impl<E: CpuElement> BackwardLoop<'_, E> {
    /// The loop of a single sequence, divided by units.
    fn run_single(self, part: Recurrent, weights: Panels<'_, E>) {
        let BackwardLoop { shared, gates, dh, dc, du, dh0, dc0, scratch, .. } = self;
        let call = shared.call;
        let (hidden, others) = (call.geometry.hidden, call.geometry.others);
        let one_step = RnnShape { seq_len: 1, batch: 1 };
        let width = 2 * call.isa.lanes::<E>();
        let work = SingleSequence {
            shared,
            weights,
            part,
            panels: 0..hidden.div_ceil(width),
            width,
            gates: gates.units(hidden),
            dh: Steps::inner(dh, one_step, hidden).units(hidden),
            dc: Steps::if_any(dc, one_step, others).map(|view| view.units(hidden)),
            dh0: Steps::inner(dh0, one_step, hidden).units(hidden),
            dc0: Steps::if_any(dc0, one_step, others).map(|view| view.units(hidden)),
            scratch,
        };
        let blocks = call.geometry.gate_width / hidden;
        call.threads.workers(call.sizes.unit_workers).in_lockstep(work, du, (blocks, hidden));
    }

    fn add_output_gradient(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, given, .. } = self.shared;
        let width = call.geometry.output;
        if let Some(gradient) = &given.gradient {
            for row in 0..rows {
                add(&mut self.dh[row * width..][..width], gradient.row(sequences, t, self.first + row));
            }
        }
    }

    /// Whether nobody asks for the gradient of the state before step `t`: it is the first.
    fn ends(&self, t: usize) -> bool {
        let Shared { call, reverse, given, .. } = self.shared;
        let first = if *reverse { call.geometry.seq_len - 1 } else { 0 };
        t == first && !given.initial
    }

    /// Hands the state's gradient to the initial state where the mask says so.
    fn reset(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, .. } = *self.shared;
        if !sequences.have_resets() {
            return;
        }
        let g = &call.geometry;
        for row in 0..rows {
            if sequences.is_reset(t, self.first + row) {
                let at = row * g.output..(row + 1) * g.output;
                add(&mut self.dh0[at.clone()], &self.dh[at.clone()]);
                self.dh[at].fill(E::zero());
                let at = row * g.others..(row + 1) * g.others;
                add(&mut self.dc0[at.clone()], &self.dc[at.clone()]);
                self.dc[at].fill(E::zero());
            }
        }
    }

    fn step(&mut self, t: usize, rows: usize, recurrent: RecurrentWeights<'_, E>) {
        let Shared { call, candidate, projection, .. } = *self.shared;
        let g = &call.geometry;
        let (width, hidden, output) = (g.gate_width, g.hidden, g.output);
        if let Some(projection) = projection {
            if let Some(steps) = &mut self.projected_gradient {
                steps.block(t, rows).copy_from_slice(&self.dh[..rows * output]);
            }
            let dh = &*self.dh;
            let dh_row = |row: usize| &dh[row * output..][..output];
            call.step_product(t, rows, dh_row, projection, self.du, (hidden, 0), Start::Set, self.scratch);
        }
        match candidate {
            None => self.cells(t, rows, Part::Whole),
            Some(candidate) => {
                self.cells(t, rows, Part::First);
                let gradient = (&*self.candidate_gradient, hidden);
                call.multiply_gradient(t, rows, gradient, candidate, self.du, Start::Set, self.scratch);
                self.cells(t, rows, Part::Second);
            }
        }
        if !self.ends(t) {
            let gates = (&*self.gates.block(t, rows), width);
            let start = if reads_h(g.cell) { Start::Add } else { Start::Set };
            call.multiply_gradient(t, rows, gates, recurrent, self.dh, start, self.scratch);
        }
    }

    /// The cells' arithmetic between products.
    fn cells(&mut self, t: usize, rows: usize, part: Part) {
        let Shared { call, projection, .. } = *self.shared;
        let g = &call.geometry;
        let (hidden, others) = (g.hidden, g.others);
        let (du, dq): (&mut [E], &[E]) = match part {
            Part::Second => (&mut [], &self.du[..rows * hidden]),
            _ => (&mut self.du[..], &[]),
        };
        let cells = Cells {
            shared: self.shared,
            t,
            part,
            first: self.first,
            rows,
            gates: self.gates.block(t, rows),
            dh: if projection.is_some() { &mut du[..rows * hidden] } else { &mut self.dh[..rows * hidden] },
            dc: &mut self.dc[..rows * others],
            candidate: if part == Part::First { &mut self.candidate_gradient[..rows * hidden] } else { &mut [] },
            dq,
        };
        match call.sizes.cell_workers {
            1 => cells.run(),
            workers => call.threads.workers(workers).divide(cells),
        }
    }
}

/// The cells of a step at some positions.
struct Cells<'a, 'c, E> {
    shared: &'c Shared<'a, E>,
    t: usize,
    part: Part,
    /// First position.
    first: usize,
    rows: usize,
    /// See [`BackwardRow`], of which these are rows.
    gates: &'c mut [E],
    dh: &'c mut [E],
    dc: &'c mut [E],
    candidate: &'c mut [E],
    dq: &'c [E],
}

impl<E: CpuElement> Divide for Cells<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Cells { shared, t, part, first, rows, gates, dh, dc, candidate, dq } = self;
        let at = share(rows, left, of);
        let [gates, dh, dc, candidate] = [gates, dh, dc, candidate].map(|tensor| split_state(tensor, at, rows));
        let dq = dq.split_at(dq.len() / rows.max(1) * at);
        let some = |first, rows, gates, dh, dc, candidate, dq| Cells {
            shared,
            t,
            part,
            first,
            rows,
            gates,
            dh,
            dc,
            candidate,
            dq,
        };
        (
            some(first, at, gates.0, dh.0, dc.0, candidate.0, dq.0),
            some(first + at, rows - at, gates.1, dh.1, dc.1, candidate.1, dq.1),
        )
    }

    fn run(self) {
        let Cells { shared, t, part, first, rows, gates, dh, dc, candidate, dq } = self;
        let Shared { call, sequences, place, reverse, options, inputs, given, cells, .. } = *shared;
        let g = &call.geometry;
        let (width, hidden, others) = (g.gate_width, g.hidden, g.others);
        let cells = Rows::inner(cells, others);
        for row in 0..rows {
            let position = first + row;
            let at = row * hidden..(row + 1) * hidden;
            let before = sequences.previous(reverse, t, position);
            let initial = |state, width| call.initial(state, width, place, sequences.at(position)).unwrap_or(&[]);
            let [start_h, start_c] = call.before(sequences.is_reset(t, position));
            let (mut h_prev, mut c, mut c_prev) = (&[][..], &[][..], &[][..]);
            if reads_h(g.cell) {
                h_prev = match before {
                    Some(before) => given.output.row(sequences, before, position),
                    None => initial(start_h, hidden),
                };
            }
            if others > 0 {
                c = cells.row(sequences, t, position);
                c_prev = match before {
                    Some(before) => cells.row(sequences, before, position),
                    None => initial(start_c, others),
                };
            }
            BackwardRow {
                options,
                part,
                units: 0..hidden,
                gates: &mut gates[row * width..][..width],
                kept: inputs.map_or(&[], |rows| rows.row(sequences, t, position)),
                h_prev,
                c,
                c_prev,
                dh: &mut dh[at.clone()],
                dc: &mut dc[row * others..][..others],
                candidate: if part == Part::First { &mut candidate[at.clone()] } else { &mut [] },
                dq: if part == Part::Second { &dq[at] } else { &[] },
            }
            .run(g.cell, call.isa);
        }
    }
}
