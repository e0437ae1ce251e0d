//! Backward: the walk through time the other way, then the products over all steps.

use std::ops::Range;

use super::Call;
use super::cells::{GruBackward, GruPart, LstmBackward, Options, RnnBackward};
use super::forward::{
    Kept, RowsProduct, Saved, copy_or_zero, input_of, output_of, share_scratch, share_steps, split_state, split_steps,
};
use super::gemm::{self, Start};
use super::gemv::Operand;
use super::geometry::{Parts, Recurrent};
use super::sequences::{Rows, Sequences};
use super::steps::Steps;
use super::threads::{Divide, divide, share};
use crate::backend::cpu::CpuElement;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, HostBackend, WeightGrad};
use crate::cell::CellKind;
use crate::rnn::{LayerWeights, PaddedOutput};
use crate::simd::Isa;

/// Workspace of backward-data that every layer and direction uses in turn.
struct Workspace<'a, E> {
    input_weights: &'a mut [E],
    recurrent_weights: &'a mut [E],
    candidate_weights: &'a mut [E],
    projection: &'a mut [E],
    dh: &'a mut [E],
    dc: &'a mut [E],
    du: &'a mut [E],
    initial: &'a mut [E],
    scratch: &'a mut [E],
}

/// What the backward walk of a layer reads besides its own saved values.
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
    pub(super) fn backward_data<B: HostBackend<E> + ?Sized>(&self, args: BackwardDataArgs<'_, B>, reserve: &mut [E]) {
        let g = &self.geometry;
        let d = &self.plan.descriptor;
        let BackwardDataArgs { weights, y, dy, dhn, dcn, mut dx, mut dh0, mut dc0, workspace, .. } = args;
        let space = g.backward_space::<E>(self.isa, self.threads);
        let mut parts = Parts::aligned(workspace);
        let index = bytemuck::cast_slice_mut(parts.next(space.index));
        let sequences = Sequences::new(self.plan.shape, self.lengths, self.resets, index);
        let mut ws = Workspace {
            input_weights: parts.next(space.input_weights),
            recurrent_weights: parts.next(space.recurrent_weights),
            candidate_weights: parts.next(space.candidate_weights),
            projection: parts.next(space.projection),
            dh: parts.next(space.output_state),
            dc: parts.next(space.cell_state),
            du: parts.next(space.hidden_state),
            initial: parts.next(space.initial_state),
            scratch: &mut [],
        };
        let gradients = parts.next(space.outputs);
        ws.scratch = parts.next(space.all_scratch());
        let mut kept = Kept::new(reserve, g);

        for layer in (0..g.layers).rev() {
            let top = layer + 1 == g.layers;
            // Gradients of a layer's output and of its input, by turns.
            let (even, odd) = gradients.split_at_mut(g.rows() * g.widest_input);
            let (above, below) = if layer % 2 == 0 { (&*odd, even) } else { (&*even, odd) };
            for direction in 0..g.directions {
                let view = self.plan.weights.view(weights, layer, direction);
                let output =
                    if top { Rows::outer(y, g.features(), d.layout) } else { output_of(g, &*kept.between, layer) };
                let gradient = if top {
                    dy.map(|dy| Rows::outer(dy, g.features(), d.layout))
                } else {
                    Some(Rows::inner(above, g.features()))
                };
                let given = Given {
                    output: output.features(direction * g.output, g.output),
                    gradient: gradient.map(|rows| rows.features(direction * g.output, g.output)),
                    dhn,
                    dcn,
                    initial: dh0.is_some(),
                    hold: top
                        && d.padded_output == PaddedOutput::Hold
                        && !d.direction.is_reverse(direction)
                        && !sequences.are_full(),
                };
                let len = g.saved();
                let start = (layer * g.directions + direction) * len.total();
                let saved = Saved::new(&mut kept.saved[start..start + len.total()], &len);
                self.backward_direction((layer, direction), &sequences, given, &view, saved, &mut ws);
                for position in 0..g.batch {
                    let row = self.state_row((layer, direction), sequences.at(position));
                    if let Some(dh0) = &mut dh0 {
                        let dh = &ws.dh[position * g.output..][..g.output];
                        dh0[row * g.output..][..g.output].copy_from_slice(dh);
                    }
                    if let Some(dc0) = &mut dc0 {
                        let dc = &ws.dc[position * g.hidden..][..g.hidden];
                        dc0[row * g.hidden..][..g.hidden].copy_from_slice(dc);
                    }
                }
            }

            if layer == 0 && dx.is_none() {
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
                let panels = self.pack_rows(g.gate_rows, width, ws.input_weights, |column| {
                    self.used_row(view.input_hidden, g.input_row(column), width)
                });
                let saved = kept.saved(g, layer, direction);
                divide(
                    RowsProduct {
                        isa: self.isa,
                        sequences: &sequences,
                        rows: 0..sequences.valid_rows(),
                        source: Rows::inner(&*saved.gates, g.gate_width).features(0, g.gate_rows),
                        panels,
                        c: &mut *target,
                        base: 0,
                        stride: width,
                        start: if direction == 0 { Start::Set } else { Start::Add },
                        scratch: &mut *ws.scratch,
                    },
                    g.workers(self.threads),
                );
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

    fn backward_direction(
        &self,
        place: (usize, usize),
        sequences: &Sequences<'_>,
        given: Given<'_, E>,
        weights: &LayerWeights<&[E]>,
        saved: Saved<'_, E>,
        ws: &mut Workspace<'_, E>,
    ) {
        let g = &self.geometry;
        let of_state =
            |part: Recurrent, out| self.step_operand(weights.hidden_hidden, part.row, part.rows, g.output, out);
        let recurrent = of_state(g.recurrent(), &mut *ws.recurrent_weights);
        let candidate = g.candidate().map(|part| of_state(part, &mut *ws.candidate_weights));
        let projection = match g.projected {
            true => Some(self.step_operand(weights.projection, 0, g.output, g.hidden, &mut *ws.projection)),
            false => None,
        };

        for position in 0..g.batch {
            let sequence = sequences.at(position);
            let dh = &mut ws.dh[position * g.output..][..g.output];
            copy_or_zero(dh, self.initial(given.dhn, g.output, place, sequence));
            if let (true, Some(gradient)) = (given.hold, &given.gradient) {
                for t in sequences.length(position)..g.seq_len {
                    add(dh, gradient.row(sequences, t, position));
                }
            }
            if g.has_cell_state() {
                let dc = &mut ws.dc[position * g.hidden..][..g.hidden];
                copy_or_zero(dc, self.initial(given.dcn, g.hidden, place, sequence));
            }
        }
        let (dh0, dc0) = ws.initial.split_at_mut(g.batch * g.output);
        if sequences.have_resets() {
            dh0.fill(E::zero());
            dc0.fill(E::zero());
        }

        let shared = Shared {
            call: self,
            sequences,
            place,
            reverse: self.plan.descriptor.direction.is_reverse(place.1),
            options: self.options(place.1, weights),
            recurrent,
            candidate,
            projection,
            given,
            cells: &*saved.cells,
            inputs: g.keeps_inputs.then(|| Rows::inner(&*saved.inputs, g.gate_rows)),
        };
        let shape = self.plan.shape;
        let walk = Walk {
            shared: &shared,
            first: 0,
            rows: g.batch,
            gates: Steps::inner(saved.gates, shape, g.gate_width),
            projected_gradient: g.projected.then(|| Steps::inner(saved.projected_gradient, shape, g.output)),
            dh: &mut *ws.dh,
            dc: &mut *ws.dc,
            du: &mut *ws.du,
            dh0: &mut *dh0,
            dc0: &mut *dc0,
            scratch: &mut *ws.scratch,
        };
        divide(walk, g.step_workers(self.threads));
        if sequences.have_resets() {
            add(ws.dh, dh0);
            add(ws.dc, dc0);
        }
    }

    pub(super) fn backward_weights<B: HostBackend<E> + ?Sized>(
        &self,
        args: BackwardWeightsArgs<'_, B>,
        reserve: &mut [E],
        grad: WeightGrad,
    ) {
        let g = &self.geometry;
        let d = &self.plan.descriptor;
        let BackwardWeightsArgs { x, y, dweights, workspace, .. } = args;
        let space = g.weights_space::<E>(self.isa, self.threads);
        let mut parts = Parts::aligned(workspace);
        let index = bytemuck::cast_slice_mut(parts.next(space.index));
        let sequences = &Sequences::new(self.plan.shape, self.lengths, self.resets, index);
        let scratch = parts.next(space.all_scratch());
        let kept = Kept::new(reserve, g);
        let start = if grad == WeightGrad::Set { Start::Set } else { Start::Add };
        let hidden = g.hidden;

        for layer in 0..g.layers {
            for direction in 0..g.directions {
                let reverse = d.direction.is_reverse(direction);
                let place = (layer, direction);
                let mut gradient = self.plan.weights.view_mut(dweights, layer, direction);
                let len = g.saved();
                let saved_at = (layer * g.directions + direction) * len.total();
                let saved = Saved::new(&mut kept.saved[saved_at..saved_at + len.total()], &len);
                let between = &*kept.between;
                let input = if layer == 0 { Rows::outer(x, g.input, d.layout) } else { input_of(g, between, layer) };
                let output = if layer + 1 == g.layers {
                    Rows::outer(y, g.features(), d.layout)
                } else {
                    output_of(g, between, layer)
                };
                let output = output.features(direction * g.output, g.output);
                let gates = Rows::inner(&*saved.gates, g.gate_width);

                let step = |index: usize| {
                    let row = sequences.valid_row(index);
                    (row / g.batch, row % g.batch)
                };
                let input_row = |index: usize| Some(input.at(sequences, sequences.valid_row(index)));
                let previous_output = |index: usize| {
                    let (t, position) = step(index);
                    match sequences.previous(reverse, t, position) {
                        Some(before) => Some(output.row(sequences, before, position)),
                        None => self.initial(self.h0, g.output, place, sequences.at(position)),
                    }
                };
                let q =
                    |index: usize| Some(gates.features(3 * hidden, hidden).at(sequences, sequences.valid_row(index)));

                // Rows of weight_ih, and the columns of the gates that are their gradients.
                let input_parts: &[(Range<usize>, usize)] = match g.cell {
                    CellKind::Gru => &[(0..2 * hidden, hidden), (2 * hidden..3 * hidden, 0)],
                    CellKind::Lstm if d.coupled_input_forget => &[(0..hidden, 0), (2 * hidden..4 * hidden, 2 * hidden)],
                    _ => &[(0..g.gate_rows, 0)],
                };
                let state_parts: &[(Range<usize>, usize)] = match g.cell {
                    CellKind::Gru if !g.resets_before() => &[(0..3 * hidden, hidden)],
                    _ => input_parts,
                };
                if d.coupled_input_forget && grad == WeightGrad::Set {
                    let unused = hidden..2 * hidden;
                    gradient.input_hidden[unused.start * g.layer_input(layer)..unused.end * g.layer_input(layer)]
                        .fill(E::zero());
                    gradient.hidden_hidden[unused.start * g.output..unused.end * g.output].fill(E::zero());
                    for bias in [&mut gradient.input_bias, &mut gradient.hidden_bias] {
                        if !bias.is_empty() {
                            bias[unused.clone()].fill(E::zero());
                        }
                    }
                }
                let k = sequences.valid_rows();
                // Both biases have the same gradient, save where the reset gate acts on one of them.
                let same_bias = g.cell != CellKind::Gru || g.resets_before();
                for (rows, column) in input_parts {
                    let n = g.layer_input(layer);
                    let product = WeightsProduct {
                        isa: self.isa,
                        sequences,
                        rows: rows.len(),
                        column: *column,
                        a: gates,
                        b: &input_row,
                        k,
                        n,
                        c: &mut gradient.input_hidden[rows.start * n..rows.end * n],
                        biases: [
                            part(gradient.input_bias, rows),
                            if same_bias { part(gradient.hidden_bias, rows) } else { &mut [] },
                        ],
                        start,
                        scratch: &mut *scratch,
                    };
                    divide(product, g.workers(self.threads));
                }
                for (rows, column) in state_parts {
                    let n = g.output;
                    let biases = [if same_bias { &mut [] } else { part(gradient.hidden_bias, rows) }, &mut []];
                    let c = &mut gradient.hidden_hidden[rows.start * n..rows.end * n];
                    let (isa, workers) = (self.isa, g.workers(self.threads));
                    let (rows, column, scratch) = (rows.len(), *column, &mut *scratch);
                    if g.resets_before() && column == 0 {
                        let b = &q;
                        let a = gates;
                        divide(
                            WeightsProduct { isa, sequences, rows, column, a, b, k, n, c, biases, start, scratch },
                            workers,
                        );
                    } else {
                        let b = &previous_output;
                        let a = gates;
                        divide(
                            WeightsProduct { isa, sequences, rows, column, a, b, k, n, c, biases, start, scratch },
                            workers,
                        );
                    }
                }
                if g.projected {
                    let unprojected = Rows::inner(&*saved.unprojected, hidden);
                    let product = WeightsProduct {
                        isa: self.isa,
                        sequences,
                        rows: g.output,
                        column: 0,
                        a: Rows::inner(&*saved.projected_gradient, g.output),
                        b: &|index: usize| Some(unprojected.at(sequences, sequences.valid_row(index))),
                        k,
                        n: hidden,
                        c: &mut *gradient.projection,
                        biases: [&mut [], &mut []],
                        start,
                        scratch: &mut *scratch,
                    };
                    divide(product, g.workers(self.threads));
                }
                if d.peepholes {
                    if grad == WeightGrad::Set {
                        gradient.peephole.fill(E::zero());
                    }
                    let cells = Rows::inner(&*saved.cells, hidden);
                    let (p_i, rest) = gradient.peephole.split_at_mut(hidden);
                    let (p_f, p_o) = rest.split_at_mut(hidden);
                    for index in 0..k {
                        let (t, position) = step(index);
                        let row = gates.row(sequences, t, position);
                        add_product(p_o, &row[3 * hidden..], cells.row(sequences, t, position));
                        let before = match sequences.previous(reverse, t, position) {
                            Some(before) => Some(cells.row(sequences, before, position)),
                            None => self.initial(self.c0, hidden, place, sequences.at(position)),
                        };
                        if let Some(before) = before {
                            add_product(p_i, row, before);
                            if !d.coupled_input_forget {
                                add_product(p_f, &row[hidden..], before);
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Some rows of a bias, or none where there is no bias.
fn part<'a, E>(bias: &'a mut [E], rows: &Range<usize>) -> &'a mut [E] {
    if bias.is_empty() { bias } else { &mut bias[rows.clone()] }
}

/// `out += addend`
fn add<E: CpuElement>(out: &mut [E], addend: &[E]) {
    for (out, &addend) in out.iter_mut().zip(addend) {
        *out += addend;
    }
}

/// `out += a * b`
fn add_product<E: CpuElement>(out: &mut [E], a: &[E], b: &[E]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

/// `c = start + a^T b` over all valid steps, and the sum of `a` over them, by rows of `c`.
struct WeightsProduct<'a, 'w, E, F> {
    isa: Isa,
    sequences: &'a Sequences<'a>,
    /// Rows of `c`, whose gradients stand in `a` from `column` on.
    rows: usize,
    column: usize,
    a: Rows<'a, E>,
    b: &'a F,
    k: usize,
    n: usize,
    c: &'w mut [E],
    /// Biases with this gradient, each `[rows]` or empty.
    biases: [&'w mut [E]; 2],
    start: Start<'a, E>,
    scratch: &'w mut [E],
}

impl<'a, E: CpuElement, F: Fn(usize) -> Option<&'a [E]> + Sync> Divide for WeightsProduct<'a, '_, E, F> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let WeightsProduct { isa, sequences, rows, column, a, b, k, n, c, biases, start, scratch } = self;
        let middle = share(rows, left, of);
        let (c_left, c_right) = c.split_at_mut(middle * n);
        let [one, two] = biases.map(|bias| {
            let at = if bias.is_empty() { 0 } else { middle };
            bias.split_at_mut(at)
        });
        let (scratch_left, scratch_right) = share_scratch(scratch, left, of);
        let part = |rows, column, c, biases, scratch| WeightsProduct {
            isa,
            sequences,
            rows,
            column,
            a,
            b,
            k,
            n,
            c,
            biases,
            start,
            scratch,
        };
        (
            part(middle, column, c_left, [one.0, two.0], scratch_left),
            part(rows - middle, column + middle, c_right, [one.1, two.1], scratch_right),
        )
    }

    fn run(self) {
        let WeightsProduct { isa, sequences, rows, column, a, b, k, n, c, biases, start, scratch } = self;
        let a_row = |index: usize| a.at(sequences, sequences.valid_row(index));
        let a_part = |index: usize| &a_row(index)[column..column + rows];
        if n == 1 {
            // One feature: a row of sums rather than a column of tiles.
            let weight = |index: usize| b(index).map_or(E::zero(), |row| row[0]);
            let (total, block) = scratch.split_at_mut(rows);
            gemm::sum_rows(isa, k, a_part, weight, total, &mut block[..rows]);
            begin(c, total, start);
        } else {
            gemm::multiply_transposed(isa, (rows, n, k), column, E::one(), a_row, b, c, start, scratch);
        }
        if biases.iter().all(|bias| bias.is_empty()) {
            return;
        }
        let (total, block) = scratch.split_at_mut(rows);
        gemm::sum_rows(isa, k, a_part, |_| E::one(), total, &mut block[..rows]);
        for bias in biases {
            begin(bias, &total[..bias.len()], start);
        }
    }
}

/// `out = start + total`
fn begin<E: CpuElement>(out: &mut [E], total: &[E], start: Start<'_, E>) {
    match start {
        Start::Add => add(out, total),
        _ => out.copy_from_slice(total),
    }
}

/// What all threads of a walk read.
struct Shared<'a, E> {
    call: &'a Call<'a, E>,
    sequences: &'a Sequences<'a>,
    place: (usize, usize),
    reverse: bool,
    options: Options<'a, E>,
    recurrent: Operand<'a, E>,
    candidate: Option<Operand<'a, E>>,
    projection: Option<Operand<'a, E>>,
    given: Given<'a, E>,
    cells: &'a [E],
    inputs: Option<Rows<'a, E>>,
}

/// A walk back through time with the sequences at some positions.
struct Walk<'a, E> {
    shared: &'a Shared<'a, E>,
    /// First position.
    first: usize,
    rows: usize,
    gates: Steps<'a, E>,
    projected_gradient: Option<Steps<'a, E>>,
    /// Gradient of the state after and before each step.
    dh: &'a mut [E],
    dc: &'a mut [E],
    /// Gradient of the output before its projection, or of `q`.
    du: &'a mut [E],
    /// What resets give to the initial state.
    dh0: &'a mut [E],
    dc0: &'a mut [E],
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for Walk<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Walk { shared, first, rows, gates, projected_gradient, dh, dc, du, dh0, dc0, scratch } = self;
        let at = share_steps(shared.sequences, first..first + rows, left, of);
        let (gates, projected_gradient) = (gates.split(at), split_steps(projected_gradient, at));
        let (dh, dc, du) = (split_state(dh, at, rows), split_state(dc, at, rows), split_state(du, at, rows));
        let (dh0, dc0) = (split_state(dh0, at, rows), split_state(dc0, at, rows));
        let scratch = share_scratch(scratch, left, of);
        (
            Walk {
                shared,
                first,
                rows: at,
                gates: gates.0,
                projected_gradient: projected_gradient.0,
                dh: dh.0,
                dc: dc.0,
                du: du.0,
                dh0: dh0.0,
                dc0: dc0.0,
                scratch: scratch.0,
            },
            Walk {
                shared,
                first: first + at,
                rows: rows - at,
                gates: gates.1,
                projected_gradient: projected_gradient.1,
                dh: dh.1,
                dc: dc.1,
                du: du.1,
                dh0: dh0.1,
                dc0: dc0.1,
                scratch: scratch.1,
            },
        )
    }

    fn run(mut self) {
        let steps = self.shared.call.geometry.seq_len;
        for step in 0..steps {
            let t = if self.shared.reverse { step } else { steps - 1 - step };
            let rows = self.shared.sequences.active(t).saturating_sub(self.first).min(self.rows);
            if rows > 0 {
                self.add_output_gradient(t, rows);
                match self.shared.call.geometry.cell {
                    CellKind::Rnn => self.rnn(t, rows),
                    CellKind::Lstm => self.lstm(t, rows),
                    CellKind::Gru => self.gru(t, rows),
                }
                self.reset(t, rows);
            }
        }
    }
}

impl<E: CpuElement> Walk<'_, E> {
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
                if g.has_cell_state() {
                    let at = row * g.hidden..(row + 1) * g.hidden;
                    add(&mut self.dc0[at.clone()], &self.dc[at.clone()]);
                    self.dc[at].fill(E::zero());
                }
            }
        }
    }

    fn rnn(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, options, recurrent, inputs, .. } = *self.shared;
        let (isa, width) = (call.isa, call.geometry.gate_width);
        let last = self.ends(t);
        let gates = self.gates.block(t, rows);
        for row in 0..rows {
            RnnBackward {
                options,
                gates: &mut gates[row * width..][..width],
                kept: inputs.map_or(&[], |rows| rows.row(sequences, t, self.first + row)),
                dh: &self.dh[row * width..][..width],
            }
            .run(isa);
        }
        let gates = &*gates;
        let gates_row = |row: usize| &gates[row * width..][..width];
        if !last {
            call.step_product(t, rows, gates_row, recurrent, self.dh, |row| row * width, Start::Set, self.scratch);
        }
    }

    fn lstm(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, place, reverse, options, recurrent, projection, inputs, cells, .. } =
            *self.shared;
        let isa = call.isa;
        let (width, hidden, output) = (call.geometry.gate_width, call.geometry.hidden, call.geometry.output);
        if let Some(projection) = projection {
            if let Some(steps) = &mut self.projected_gradient {
                steps.block(t, rows).copy_from_slice(&self.dh[..rows * output]);
            }
            let dh = &*self.dh;
            let dh_row = |row: usize| &dh[row * output..][..output];
            call.step_product(t, rows, dh_row, projection, self.du, |row| row * hidden, Start::Set, self.scratch);
        }
        let last = self.ends(t);
        let gates = self.gates.block(t, rows);
        let cells = Rows::inner(cells, hidden);
        for row in 0..rows {
            let position = self.first + row;
            let c_prev = match sequences.previous(reverse, t, position) {
                Some(before) => cells.row(sequences, before, position),
                None => call.initial(call.c0, hidden, place, sequences.at(position)).unwrap_or(&[]),
            };
            let dh = if projection.is_some() { &*self.du } else { &*self.dh };
            LstmBackward {
                options,
                gates: &mut gates[row * width..][..width],
                kept: inputs.map_or(&[], |rows| rows.row(sequences, t, position)),
                c: cells.row(sequences, t, position),
                c_prev,
                dh: &dh[row * hidden..][..hidden],
                dc: &mut self.dc[row * hidden..][..hidden],
            }
            .run(isa);
        }
        let gates = &*gates;
        let gates_row = |row: usize| &gates[row * width..][..width];
        if !last {
            call.step_product(t, rows, gates_row, recurrent, self.dh, |row| row * output, Start::Set, self.scratch);
        }
    }

    fn gru(&mut self, t: usize, rows: usize) {
        let Shared { call, sequences, place, reverse, options, recurrent, candidate, inputs, given, .. } = *self.shared;
        let isa = call.isa;
        let (width, hidden) = (call.geometry.gate_width, call.geometry.hidden);
        let last = self.ends(t);
        let gates = self.gates.block(t, rows);
        let parts = if candidate.is_some() { &[GruPart::First, GruPart::Second][..] } else { &[GruPart::Whole] };
        for &part in parts {
            if let (GruPart::Second, Some(candidate)) = (part, candidate) {
                let gates = &*gates;
                let candidate_row = |row: usize| &gates[row * width..][..hidden];
                let offset = |row: usize| row * hidden;
                call.step_product(t, rows, candidate_row, candidate, self.du, offset, Start::Set, self.scratch);
            }
            for row in 0..rows {
                let position = self.first + row;
                let h_prev = match sequences.previous(reverse, t, position) {
                    Some(before) => given.output.row(sequences, before, position),
                    None => call.initial(call.h0, hidden, place, sequences.at(position)).unwrap_or(&[]),
                };
                let at = row * hidden..(row + 1) * hidden;
                GruBackward {
                    options,
                    part,
                    gates: &mut gates[row * width..][..width],
                    kept: inputs.map_or(&[], |rows| rows.row(sequences, t, position)),
                    h_prev,
                    dh: &mut self.dh[at.clone()],
                    dq: if part == GruPart::Second { &self.du[at] } else { &[] },
                }
                .run(isa);
            }
        }
        let gates = &*gates;
        let columns = hidden..hidden + call.geometry.recurrent().rows;
        let gates_row = |row: usize| &gates[row * width..][columns.clone()];
        if !last {
            call.step_product(t, rows, gates_row, recurrent, self.dh, |row| row * hidden, Start::Add, self.scratch);
        }
    }
}
