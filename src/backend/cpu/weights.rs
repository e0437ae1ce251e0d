//! The weights' gradients: products over all steps.

use std::ops::Range;

use super::Call;
use super::backward::add;
use super::gemm::{self, Start};
use super::geometry::{Parts, Recurrent};
use super::products::share_scratch;
use super::recurrent::AddProduct;
use super::saved::{Kept, Saved, input_of, output_of};
use super::sequences::{Rows, Sequences};
use super::threads::{Divide, share};
use crate::backend::cpu::CpuElement;
use crate::backend::{BackwardWeightsArgs, HostBackend, WeightGrad};
use crate::rnn::CandidateTerm;
use crate::simd::Isa;

impl<E: CpuElement> Call<'_, E> {
    pub(super) fn backward_weights<B: HostBackend<E> + ?Sized>(
        &self,
        args: BackwardWeightsArgs<'_, B>,
        reserve: &mut [E],
        grad: WeightGrad,
    ) {
        let g = &self.geometry;
        let d = &self.plan.descriptor;
        let BackwardWeightsArgs { x, y, dweights, workspace, .. } = args;
        let space = &self.sizes.weights;
        let mut parts = Parts::aligned(workspace);
        let index = bytemuck::cast_slice_mut(parts.next(space.index));
        let sequences = &Sequences::new(self.plan.shape, self.lengths, self.resets, index);
        if sequences.valid_rows() == 0 {
            // No sequence has a step in this segment.
            if grad == WeightGrad::Set {
                dweights.fill(E::zero());
            }
            return;
        }
        let scratch = parts.next(space.all_scratch());
        let kept = Kept::new(reserve, g);
        let start = if grad == WeightGrad::Set { Start::Set } else { Start::Add };
        let hidden = g.hidden;

        for layer in 0..g.layers {
            for direction in 0..g.directions {
                let reverse = d.direction.is_reverse(direction);
                let place = (layer, direction);
                let gradient = self.plan.weights.view_mut(dweights, layer, direction);
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
                        None => {
                            let [h, _] = self.before(sequences.is_reset(t, position));
                            self.initial(h, g.output, place, sequences.at(position))
                        }
                    }
                };
                let q =
                    |index: usize| Some(gates.features(g.gate_rows, hidden).at(sequences, sequences.valid_row(index)));

                if d.coupled_input_forget && grad == WeightGrad::Set {
                    let unused = hidden..2 * hidden;
                    let zero = |tensor: &mut [E], width: usize| {
                        if !tensor.is_empty() {
                            tensor[unused.start * width..unused.end * width].fill(E::zero());
                        }
                    };
                    zero(gradient.input_hidden, g.layer_input(layer));
                    zero(gradient.hidden_hidden, g.head_size());
                    zero(gradient.input_bias, 1);
                    zero(gradient.hidden_bias, 1);
                }
                let k = sequences.valid_rows();
                let workers = self.threads.workers(self.sizes.workers);
                let isa = self.isa;
                // Both biases have the same gradient, save where a gate acts on one of them.
                let same_bias = g.candidate != CandidateTerm::Apart;
                for run in g.input_runs().flat_map(|run| self.used_runs(run)) {
                    let rows = run.row..run.row + run.rows;
                    // Where the input is gates, only biases are left.
                    let n = if g.of_gates { 0 } else { g.layer_input(layer) };
                    let product = WeightsProduct {
                        isa,
                        sequences,
                        rows: run.rows,
                        column: run.column,
                        a: gates,
                        b: &input_row,
                        k,
                        n,
                        c: &mut gradient.input_hidden[rows.start * n..rows.end * n],
                        biases: [
                            part(gradient.input_bias, &rows),
                            if same_bias { part(gradient.hidden_bias, &rows) } else { &mut [] },
                        ],
                        start,
                        scratch: &mut *scratch,
                    };
                    workers.divide(product);
                }
                let n = g.head_size();
                let second = g.candidate();
                for run in [Some(g.recurrent()), second].into_iter().flatten().flat_map(|run| self.used_runs(run)) {
                    let rows = run.row..run.row + run.rows;
                    let of_q = second.is_some_and(|second| second.row == run.row);
                    let b: &RowOf<'_, E> = if of_q { &q } else { &previous_output };
                    let product = WeightsProduct {
                        isa,
                        sequences,
                        rows: run.rows,
                        column: run.column,
                        a: gates,
                        b,
                        k,
                        n: if g.heads > 1 { 0 } else { n },
                        c: &mut [],
                        biases: [if same_bias { &mut [] } else { part(gradient.hidden_bias, &rows) }, &mut []],
                        start,
                        scratch: &mut *scratch,
                    };
                    let c = &mut gradient.hidden_hidden[rows.start * n..rows.end * n];
                    if g.heads == 1 {
                        workers.divide(WeightsProduct { c, ..product });
                        continue;
                    }
                    // The bias alone, then the blocks.
                    workers.divide(product);
                    let product = BlocksProduct {
                        isa,
                        sequences,
                        blocks: 0..run.rows / n,
                        heads: g.heads,
                        size: n,
                        column: run.column,
                        a: gates,
                        b,
                        k,
                        c,
                        start,
                        scratch: &mut *scratch,
                    };
                    workers.divide(product);
                }
                if g.projected {
                    let unprojected = Rows::inner(&*saved.unprojected, hidden);
                    let product = WeightsProduct {
                        isa,
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
                    workers.divide(product);
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
                            None => {
                                let [_, c] = self.before(sequences.is_reset(t, position));
                                self.initial(c, hidden, place, sequences.at(position))
                            }
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

impl<E: CpuElement> Call<'_, E> {
    /// The run without the rows of a forget gate that is derived from the input gate.
    fn used_runs(&self, run: Recurrent) -> impl Iterator<Item = Recurrent> + use<E> {
        let hidden = self.geometry.hidden;
        let runs = match self.plan.descriptor.coupled_input_forget {
            true => {
                [Recurrent { rows: hidden, ..run }, Recurrent { row: 2 * hidden, rows: 2 * hidden, column: 2 * hidden }]
            }
            false => [run, Recurrent { rows: 0, ..run }],
        };
        runs.into_iter().filter(|run| run.rows > 0)
    }
}

/// Some rows of a bias, or none where there is no bias.
fn part<'a, E>(bias: &'a mut [E], rows: &Range<usize>) -> &'a mut [E] {
    if bias.is_empty() { bias } else { &mut bias[rows.clone()] }
}

/// `out += a * b`
fn add_product<E: CpuElement>(out: &mut [E], a: &[E], b: &[E]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

/// A row of a right operand, absent for zeros.
type RowOf<'a, E> = dyn Fn(usize) -> Option<&'a [E]> + Sync + 'a;

/// `c = start + a^T b` over all valid steps, and the sum of `a` over them, by rows of `c`.
struct WeightsProduct<'a, 'w, E> {
    isa: Isa,
    sequences: &'a Sequences<'a>,
    /// Rows of `c`, whose gradients stand in `a` from `column` on.
    rows: usize,
    column: usize,
    a: Rows<'a, E>,
    b: &'w RowOf<'a, E>,
    k: usize,
    /// Columns of `c`; without any, only biases are wanted.
    n: usize,
    c: &'w mut [E],
    /// Biases with this gradient, each `[rows]` or empty.
    biases: [&'w mut [E]; 2],
    start: Start<'a, E>,
    scratch: &'w mut [E],
}

impl<E: CpuElement> Divide for WeightsProduct<'_, '_, E> {
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
        } else if n > 1 {
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

/// `c = start + a^T b` over all valid steps for the blocks of a matrix `[gates, heads, size, size]`: rows of a block belong to
/// `size` columns of `a`, its columns to the head's part of `b`.
struct BlocksProduct<'a, 'w, E> {
    isa: Isa,
    sequences: &'a Sequences<'a>,
    /// Which of the blocks.
    blocks: Range<usize>,
    heads: usize,
    size: usize,
    /// Column of `a` that belongs to the first row of block 0.
    column: usize,
    a: Rows<'a, E>,
    b: &'w RowOf<'a, E>,
    k: usize,
    c: &'w mut [E],
    start: Start<'a, E>,
    scratch: &'w mut [E],
}

impl<E: CpuElement> Divide for BlocksProduct<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let BlocksProduct { isa, sequences, blocks, heads, size, column, a, b, k, c, start, scratch } = self;
        let middle = blocks.start + share(blocks.len(), left, of);
        let (c_left, c_right) = c.split_at_mut((middle - blocks.start) * size * size);
        let (scratch_left, scratch_right) = share_scratch(scratch, left, of);
        let part = |blocks, c, scratch| BlocksProduct {
            isa,
            sequences,
            blocks,
            heads,
            size,
            column,
            a,
            b,
            k,
            c,
            start,
            scratch,
        };
        (part(blocks.start..middle, c_left, scratch_left), part(middle..blocks.end, c_right, scratch_right))
    }

    fn run(self) {
        let BlocksProduct { isa, sequences, blocks, heads, size, column, a, b, k, c, start, scratch } = self;
        let a_row = |index: usize| a.at(sequences, sequences.valid_row(index));
        if size > 1 {
            for (block, c) in blocks.zip(c.chunks_exact_mut(size * size)) {
                let head = block % heads * size;
                let b_row = |index: usize| b(index).map(|row| &row[head..head + size]);
                let column = column + block * size;
                gemm::multiply_transposed(
                    isa,
                    (size, size, k),
                    column,
                    E::one(),
                    a_row,
                    b_row,
                    c,
                    start,
                    &mut *scratch,
                );
            }
            return;
        }
        // Blocks of one element: sums of products of vectors.
        if let Start::Set = start {
            c.fill(E::zero());
        }
        for index in 0..k {
            let (Some(b), a) = (b(index), &a_row(index)[column..]) else { continue };
            let mut block = blocks.start;
            while block < blocks.end {
                let head = block % heads;
                let len = (heads - head).min(blocks.end - block);
                let out = &mut c[block - blocks.start..][..len];
                isa.run(AddProduct { a: &a[block..block + len], b: &b[head..head + len], out });
                block += len;
            }
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
