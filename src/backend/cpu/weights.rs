//! The weights' gradients: products over all steps.

use std::ops::Range;

use super::Call;
use super::backward::add;
use super::gemm::{self, Columns, Right, Start};
use super::geometry::{GradientRun, Parts, padded, take};
use super::products::share_scratch;
use super::recurrent::AddProduct;
use super::saved::{Kept, Saved, input_of, output_of};
use super::sequences::{Rows, Sequences, ValidRows};
use super::threads::{Divide, share, unzip};
use super::time_loop::share_steps;
use crate::backend::cpu::CpuElement;
use crate::backend::{BackwardWeightsArgs, HostBackend, WeightGrad};
use crate::simd::{Isa, Kernel, Simd};

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
        let half = parts.next(space.half);
        let halves = bytemuck::cast_slice_mut(parts.next(space.halves));
        let scratch = parts.next(space.all_scratch());
        // Half of the sequences on either side, which are those of a thread where there are two: so what the time loop has written stays near.
        let in_two = self.sizes.weights_in_two.then(|| {
            let middle = share_steps(sequences, 0..g.batch, &(0..g.seq_len), 1, 2);
            sequences.rows_in_two(middle, halves)
        });
        let in_two = in_two.filter(|halves| halves.iter().all(|rows| rows.len() > 0));
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

                let input_row = |row: usize| Some(input.at(sequences, row));
                let previous_output = |row: usize| {
                    let (t, position) = (row / g.batch, row % g.batch);
                    match sequences.previous(reverse, t, position) {
                        Some(before) => Some(output.row(sequences, before, position)),
                        None => {
                            let [h, _] = self.before(sequences.is_reset(t, position));
                            self.initial(h, g.output, place, sequences.at(position))
                        }
                    }
                };
                let q = |row: usize| Some(gates.features(g.gate_rows, hidden).at(sequences, row));

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
                let workers = self.threads.workers(self.sizes.workers);
                let isa = self.sizes.weights_isa;
                // Where the input is gates, only biases are left; blocks of heads follow below.
                let leaves_input = g.of_gates || self.leaves_inputs && layer == 0;
                let input_columns = if leaves_input { 0 } else { g.layer_input(layer) };
                let state_columns = if g.heads > 1 { 0 } else { g.output };
                let mut runs = [None; RUNS];
                let used = g.gradient_runs().flat_map(|run| self.used_parts(run));
                runs.iter_mut().zip(used).for_each(|(run, used)| *run = Some(used));
                let columns = [input_columns, state_columns];
                let mut whole = Gradients {
                    weights: [gradient.input_hidden, gradient.hidden_hidden],
                    biases: [gradient.input_bias, gradient.hidden_bias],
                };
                // Of the second half.
                let mut half = &mut *half;
                let mut second = Gradients {
                    weights: columns.map(|n| take(&mut half, if in_two.is_some() { g.gate_rows * n } else { 0 })),
                    biases: whole
                        .biases
                        .each_ref()
                        .map(|bias| take(&mut half, if in_two.is_some() { bias.len() } else { 0 })),
                };
                let b: [(usize, &RowOf<'_, E>); 3] = [
                    (input_columns, &input_row),
                    (state_columns, &previous_output),
                    (if g.candidate().is_some() { state_columns } else { 0 }, &q),
                ];
                let sums = match in_two {
                    None => [Some(Sum { terms: sequences.rows(), rows: whole.rows(runs, columns), start }), None],
                    Some([first, others]) => [
                        Some(Sum { terms: first, rows: whole.rows(runs, columns), start }),
                        Some(Sum { terms: others, rows: second.rows(runs, columns), start: Start::Set }),
                    ],
                };
                workers.divide(WeightsProduct { isa, sequences, a: gates, b, sums, scratch: &mut *scratch });
                if in_two.is_some() {
                    let of_whole = whole.rows(runs, columns).into_iter().flatten().flat_map(WeightRows::tensors);
                    let of_second = second.rows(runs, columns).into_iter().flatten().flat_map(WeightRows::tensors);
                    let mut pairs: [(&mut [E], &[E]); TENSORS] = Default::default();
                    let some = of_whole.zip(of_second).map(|(whole, second)| (whole, &*second));
                    pairs.iter_mut().zip(some).for_each(|(pair, some)| *pair = some);
                    workers.divide(Additions { isa, pairs });
                }
                let runs = g.gradient_runs().filter(|run| g.heads > 1 && run.state_row.is_some());
                for run in runs.flat_map(|run| self.used_parts(run)) {
                    let Some(row) = run.state_row else { continue };
                    let size = g.head_size();
                    let b: &RowOf<'_, E> = if run.of_q { &q } else { &previous_output };
                    let product = BlocksProduct {
                        isa,
                        sequences,
                        blocks: 0..run.rows / size,
                        heads: g.heads,
                        size,
                        column: run.column,
                        a: gates,
                        b,
                        terms: sequences.rows(),
                        c: &mut whole.weights[1][row * size..(row + run.rows) * size],
                        start,
                        scratch: &mut *scratch,
                    };
                    workers.divide(product);
                }
                if g.projected {
                    let unprojected = Rows::inner(&*saved.unprojected, hidden);
                    let b: &RowOf<'_, E> = &|row: usize| Some(unprojected.at(sequences, row));
                    let (rows, biases) = (g.output, [&mut [] as &mut [E], &mut []]);
                    let rows = WeightRows { column: 0, rows, c: [&mut *gradient.projection], biases };
                    let a = Rows::inner(&*saved.projected_gradient, g.output);
                    let sum = Sum { terms: sequences.rows(), rows: [Some(rows), None, None], start };
                    let (b, sums) = ([(hidden, b)], [Some(sum), None]);
                    workers.divide(WeightsProduct { isa, sequences, a, b, sums, scratch: &mut *scratch });
                }
                if d.peepholes {
                    if grad == WeightGrad::Set {
                        gradient.peephole.fill(E::zero());
                    }
                    let cells = Rows::inner(&*saved.cells, hidden);
                    let (p_i, rest) = gradient.peephole.split_at_mut(hidden);
                    let (p_f, p_o) = rest.split_at_mut(hidden);
                    for index in 0..sequences.valid_rows() {
                        let row = sequences.valid_row(index);
                        let (t, position) = (row / g.batch, row % g.batch);
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
    /// The gradient of `weight_ih` alone: of gates `a` and inputs `x` in the rows of `sequences`.
    #[cfg(feature = "model")]
    pub(super) fn input_gradient<'a>(
        &self,
        gradient: &mut [E],
        sequences: &'a Sequences<'a>,
        a: Rows<'a, E>,
        x: &RowOf<'a, E>,
        grad: WeightGrad,
        scratch: &mut [E],
    ) {
        let g = &self.geometry;
        let mut runs = [None; RUNS];
        let used = g.gradient_runs().flat_map(|run| self.used_parts(run)).filter(|run| run.input_row.is_some());
        runs.iter_mut().zip(used).for_each(|(run, used)| *run = Some(used));
        let mut of_runs = rows_of(gradient, g.input, runs, |run| run.input_row).into_iter();
        let rows = runs.map(|run| {
            let (run, c) = (run?, of_runs.next()?);
            Some(WeightRows { column: run.column, rows: run.rows, c: [c], biases: [&mut [], &mut []] })
        });
        let (isa, start) = (self.sizes.weights_isa, if grad == WeightGrad::Set { Start::Set } else { Start::Add });
        let sum = Sum { terms: sequences.rows(), rows, start };
        let workers = self.threads.workers(self.sizes.workers);
        workers.divide(WeightsProduct { isa, sequences, a, b: [(g.input, x)], sums: [Some(sum), None], scratch });
    }

    /// The run without the rows of a forget gate that is derived from the input gate.
    fn used_parts(&self, run: GradientRun) -> impl Iterator<Item = GradientRun> + use<E> {
        let hidden = self.geometry.hidden;
        let parts = match self.plan.descriptor.coupled_input_forget {
            true => [Some(run.part(0, hidden)), Some(run.part(2 * hidden, 2 * hidden))],
            false => [Some(run), None],
        };
        parts.into_iter().flatten()
    }
}

/// Gradients of a layer's and direction's weights that are made of those of its gates.
struct Gradients<'w, E> {
    /// Of inputs and of states.
    weights: [&'w mut [E]; 2],
    biases: [&'w mut [E]; 2],
}

impl<E> Gradients<'_, E> {
    /// The rows of each run; the weights have so many columns, or are not wanted.
    fn rows(&mut self, runs: [Option<GradientRun>; RUNS], columns: [usize; 2]) -> [Option<WeightRows<'_, E, 3>>; RUNS] {
        let [input, state] = self.weights.each_mut().map(|weights| &mut **weights);
        let [input_bias, state_bias] = self.biases.each_mut().map(|bias| &mut **bias);
        let (of_input, of_state) = (|run: GradientRun| run.input_row, |run: GradientRun| run.state_row);
        let input = rows_of(input, columns[0], runs, of_input);
        let state = rows_of(state, columns[1], runs, of_state);
        let biases = rows_of(input_bias, 1, runs, of_input).into_iter().zip(rows_of(state_bias, 1, runs, of_state));
        let mut rows = [const { None }; RUNS];
        let of_runs = runs.into_iter().zip(input).zip(state).zip(biases);
        for (rows, (((run, input), state), (input_bias, state_bias))) in rows.iter_mut().zip(of_runs) {
            *rows = run.map(|run| WeightRows {
                column: run.column,
                rows: run.rows,
                c: if run.of_q { [input, &mut [], state] } else { [input, state, &mut []] },
                biases: [input_bias, state_bias],
            });
        }
        rows
    }
}

/// Rows of which some more or fewer are nothing to a thread.
const MANY_ROWS: usize = 512;

/// Runs of columns of the gates' gradients, at most.
const RUNS: usize = 3;

/// Tensors that their rows are of.
const TENSORS: usize = RUNS * 5;

/// The rows of each run in a tensor with `n` columns, or none where it has none.
#[expect(clippy::expect_used, reason = "runs are of gates' rows of their own, none of which belongs to two")]
fn rows_of<E>(
    tensor: &mut [E],
    n: usize,
    runs: [Option<GradientRun>; RUNS],
    first: impl Fn(GradientRun) -> Option<usize>,
) -> [&mut [E]; RUNS] {
    if tensor.is_empty() || n == 0 {
        return Default::default();
    }
    let rows = |run: GradientRun| first(run).map(|first| first * n..(first + run.rows) * n);
    let ranges = runs.map(|run| run.and_then(rows).unwrap_or(0..0));
    tensor.get_disjoint_mut(ranges).expect("no row belongs to two runs")
}

/// `out += a * b`
fn add_product<E: CpuElement>(out: &mut [E], a: &[E], b: &[E]) {
    for ((out, &a), &b) in out.iter_mut().zip(a).zip(b) {
        *out += a * b;
    }
}

/// A row of a right operand, absent for zeros.
pub(super) type RowOf<'a, E> = dyn Fn(usize) -> Option<&'a [E]> + Sync + 'a;

/// Rows of weights, whose gates' gradients stand in `a` from `column` on.
struct WeightRows<'w, E, const N: usize> {
    column: usize,
    rows: usize,
    /// Their gradient for each right operand, or empty.
    c: [&'w mut [E]; N],
    /// Gradients of biases, each `[rows]` or empty.
    biases: [&'w mut [E]; 2],
}

impl<E, const N: usize> WeightRows<'_, E, N> {
    /// About what a row costs: products, and packing it.
    fn cost(&self) -> usize {
        self.c.iter().map(|c| c.len() / self.rows.max(1)).sum::<usize>() + 16
    }

    /// The first rows, and the others.
    fn split(self, rows: usize) -> (Self, Self) {
        let WeightRows { column, rows: all, c, biases } = self;
        let c = unzip(c.map(|c| {
            let n = c.len() / all.max(1);
            c.split_at_mut(rows * n)
        }));
        let biases = unzip(biases.map(|bias| bias.split_at_mut(if bias.is_empty() { 0 } else { rows })));
        (
            WeightRows { column, rows, c: c.0, biases: biases.0 },
            WeightRows { column: column + rows, rows: all - rows, c: c.1, biases: biases.1 },
        )
    }
}

impl<'w, E> WeightRows<'w, E, 3> {
    /// All their gradients.
    fn tensors(self) -> [&'w mut [E]; TENSORS / RUNS] {
        let WeightRows { c: [input, state, of_q], biases: [input_bias, state_bias], .. } = self;
        [input, state, of_q, input_bias, state_bias]
    }
}

/// `c = start + a^T b` over some steps for each right operand, and the sum of `a` over them.
struct Sum<'a, 'w, E, const N: usize> {
    terms: ValidRows<'a>,
    rows: [Option<WeightRows<'w, E, N>>; RUNS],
    start: Start<'a, E>,
}

impl<E: CpuElement, const N: usize> Sum<'_, '_, E, N> {
    fn cost(&self) -> usize {
        self.rows.iter().flatten().map(|some| some.rows * some.cost() * self.terms.len()).sum()
    }

    /// The first rows, about as many as cost so much, and the others.
    fn split(self, mut cost: usize) -> (Self, Self) {
        let Sum { terms, rows, start } = self;
        let (rows, others) = unzip(rows.map(|some| {
            let Some(some) = some else { return (None, None) };
            let (of_row, rows) = (some.cost() * terms.len(), some.rows);
            let mut first = cost / of_row.max(1);
            if rows >= MANY_ROWS {
                // Whole cache lines of each gradient, where that does not leave one thread with less.
                first = padded(first);
            }
            let (first, second) = some.split(first.min(rows));
            cost = cost.saturating_sub(rows * of_row);
            (Some(first), Some(second))
        }));
        (Sum { terms, rows, start }, Sum { terms, rows: others, start })
    }
}

/// Sums, one or the two halves of one, by halves and by rows of `c`.
struct WeightsProduct<'a, 'w, E, const N: usize> {
    isa: Isa,
    sequences: &'a Sequences<'a>,
    a: Rows<'a, E>,
    /// Columns and rows of the right operands.
    b: [(usize, &'w RowOf<'a, E>); N],
    sums: [Option<Sum<'a, 'w, E, N>>; 2],
    scratch: &'w mut [E],
}

impl<E: CpuElement, const N: usize> Divide for WeightsProduct<'_, '_, E, N> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let WeightsProduct { isa, sequences, a, b, sums, scratch } = self;
        let are_two = sums.iter().flatten().count() == 2;
        let all = share(sums.iter().flatten().map(Sum::cost).sum(), left, of);
        let mut wanted = all;
        let (sums, others) = unzip(sums.map(|sum| {
            let Some(sum) = sum else { return (None, None) };
            let cost = sum.cost();
            let taken = wanted.min(cost);
            wanted -= taken;
            // Halves whole, where that is about a share.
            match are_two {
                true if cost - taken < all / 4 => (Some(sum), None),
                true if taken < all / 4 => (None, Some(sum)),
                _ => {
                    let (first, second) = sum.split(taken);
                    (Some(first), Some(second))
                }
            }
        }));
        let scratch = share_scratch(scratch, left, of);
        let part = |sums, scratch| WeightsProduct { isa, sequences, a, b, sums, scratch };
        (part(sums, scratch.0), part(others, scratch.1))
    }

    fn run(self) {
        let WeightsProduct { isa, sequences, a, b, sums, scratch } = self;
        for Sum { terms, rows, start } in sums.into_iter().flatten() {
            let a_row = |index: usize| a.at(sequences, terms.at(index));
            let row_of_b = b.map(|(_, row)| move |index: usize| row(terms.at(index)));
            let rights: [Right<'_, '_, E>; N] = std::array::from_fn(|of| Right { n: b[of].0, row: &row_of_b[of] });
            sum_products(isa, terms.len(), a_row, rights, rows, start, &mut *scratch);
        }
    }
}

/// See [`Sum`].
fn sum_products<'s, E: CpuElement, const N: usize>(
    isa: Isa,
    k: usize,
    a_row: impl Fn(usize) -> &'s [E],
    b: [Right<'_, 's, E>; N],
    mut rows: [Option<WeightRows<'_, E, N>>; RUNS],
    start: Start<'_, E>,
    mut scratch: &mut [E],
) {
    let mut totals = &mut [][..];
    if rows.iter().flatten().any(|some| !some.biases.iter().all(|bias| bias.is_empty())) {
        let all: usize = rows.iter().flatten().map(|some| some.rows).sum();
        // What follows stays at a cache line.
        (totals, scratch) = scratch.split_at_mut(padded(all));
    }
    for some in rows.iter_mut().flatten() {
        // One feature: a row of sums rather than a column of tiles.
        for (b, c) in b.iter().zip(&mut some.c).filter(|(b, c)| b.n == 1 && !c.is_empty()) {
            let weight = |index: usize| (b.row)(index).map_or(E::zero(), |row| row[0]);
            let a_part = |index: usize| &a_row(index)[some.column..some.column + some.rows];
            let (total, block) = scratch[..2 * some.rows].split_at_mut(some.rows);
            gemm::sum_rows(isa, k, a_part, weight, total, block);
            begin(c, total, start);
        }
    }
    let rights = b.map(|b| Right { n: if b.n == 1 { 0 } else { b.n }, ..b });
    let mut rest = &mut *totals;
    let mut columns = rows.each_mut().map(|some| {
        let Some(some) = some else {
            return Columns { first: 0, count: 0, c: std::array::from_fn(|_| Default::default()), sums: &mut [] };
        };
        let len = if rest.is_empty() { 0 } else { some.rows };
        let sums = rest.split_off_mut(..len).unwrap_or_default();
        Columns { first: some.column, count: some.rows, c: some.c.each_mut().map(|c| &mut **c), sums }
    });
    gemm::multiply_transposed(isa, k, E::one(), a_row, rights, &mut columns, start, scratch);
    let mut rest = &*totals;
    for some in rows.into_iter().flatten() {
        let total = rest.split_off(..if rest.is_empty() { 0 } else { some.rows }).unwrap_or_default();
        for bias in some.biases {
            begin(bias, &total[..bias.len()], start);
        }
    }
}

/// The second half of sums, added to the first.
struct Additions<'a, E> {
    isa: Isa,
    /// Tensors, and what is added to each.
    pairs: [(&'a mut [E], &'a [E]); TENSORS],
}

impl<E: CpuElement> Divide for Additions<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Additions { isa, pairs } = self;
        let (pairs, others) = unzip(pairs.map(|(to, from)| {
            let middle = share(to.len(), left, of);
            let ((to, other_to), (from, other_from)) = (to.split_at_mut(middle), from.split_at(middle));
            ((to, from), (other_to, other_from))
        }));
        (Additions { isa, pairs }, Additions { isa, pairs: others })
    }

    fn run(self) {
        for (to, from) in self.pairs {
            self.isa.run(Add { to, from });
        }
    }
}

/// `to += from`
struct Add<'a, E> {
    to: &'a mut [E],
    from: &'a [E],
}

impl<E: CpuElement> Kernel<E> for Add<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        add(self.to, self.from);
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
    terms: ValidRows<'a>,
    c: &'w mut [E],
    start: Start<'a, E>,
    scratch: &'w mut [E],
}

impl<E: CpuElement> Divide for BlocksProduct<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let BlocksProduct { isa, sequences, blocks, heads, size, column, a, b, terms, c, start, scratch } = self;
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
            terms,
            c,
            start,
            scratch,
        };
        (part(blocks.start..middle, c_left, scratch_left), part(middle..blocks.end, c_right, scratch_right))
    }

    fn run(self) {
        let BlocksProduct { isa, sequences, blocks, heads, size, column, a, b, terms, c, start, scratch } = self;
        let a_row = |index: usize| a.at(sequences, terms.at(index));
        let b = |index: usize| b(terms.at(index));
        let k = terms.len();
        if size > 1 {
            for (block, c) in blocks.zip(c.chunks_exact_mut(size * size)) {
                let head = block % heads * size;
                let b_row = |index: usize| b(index).map(|row| &row[head..head + size]);
                let column = column + block * size;
                let right = [Right { n: size, row: &b_row }];
                let columns = &mut [Columns { first: column, count: size, c: [c], sums: &mut [] }];
                gemm::multiply_transposed(isa, k, E::one(), a_row, right, columns, start, &mut *scratch);
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
