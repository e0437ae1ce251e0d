//! Gradients where the input has few different rows, as behind an embedding.
//!
//! Products are linear: the gates' gradients are first added up over the steps of each row. The gradients of `weight_ih` and of the input are then products
//! with one row for each different one instead of one for each step.

use std::borrow::BorrowMut;
use std::ops::Range;

use super::gemm::{self, Panels, Start};
use super::geometry::{Geometry, Parts, padded};
use super::products::share_scratch;
use super::saved::Kept;
use super::sequences::{Rows, Sequences, index_len};
use super::threads::{Divide, Workers, share};
use super::{Call, CpuBackend, CpuPlan};
use crate::backend::cpu::CpuElement;
use crate::backend::host::check_at_least;
use crate::backend::{BackwardWeightsArgs, Differentiated, RecurrentBackend, Reserve, WeightGrad};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;
use crate::rnn::{Dropout, RnnShape};
use crate::simd::{Isa, Kernel, Simd};

/// Gates that are added up together: sums of some dozens of rows stay in the nearest cache.
const GATES: usize = 128;

/// Steps by which rows of gates are asked for before they are needed.
const AHEAD: usize = 8;

/// The row of a number that no step has.
const NONE: u32 = u32::MAX;

/// What adding a gate takes in the unit of [`Threads::worth`](super::threads::Threads::worth).
const ADDITION: f64 = 4.0;

/// Which rows of the input are alike, and where gradients go.
pub(crate) struct HostRepeatedRows<'a, E> {
    pub(crate) weights: &'a [E],
    /// The number of each row of x, below `count`. Rows with the same number are alike.
    pub(crate) numbers: &'a [u32],
    pub(crate) count: usize,
    /// The gradient of x, added up over the rows with the same number: it stands in the first of them, zeros in the others.
    pub(crate) dx: &'a mut [E],
    /// [`room`] elements, and [`index_room`] numbers.
    pub(crate) room: &'a mut [E],
    pub(crate) index: &'a mut [u32],
}

/// Parts of the room: sums in blocks of gates, the same by rows, the packed weights, the gradient of each different row, scratch.
fn room_parts<E: CpuElement>(g: &Geometry, isa: Isa, workers: usize, count: usize) -> [usize; 5] {
    [
        count.saturating_mul(g.gate_rows.next_multiple_of(GATES)),
        count.saturating_mul(g.gate_rows),
        gemm::panels_len::<E>(isa, g.gate_rows, g.input),
        count.saturating_mul(g.input),
        padded(gemm::multiply_scratch::<E>(isa, count, g.gate_rows)).saturating_mul(workers),
    ]
}

/// Elements of room for `count` different rows.
fn room<E: CpuElement>(g: &Geometry, isa: Isa, workers: usize, count: usize) -> usize {
    room_parts::<E>(g, isa, workers, count).into_iter().map(padded).fold(16, usize::saturating_add)
}

/// The shape whose steps are the different rows.
fn shape_of(count: usize) -> RnnShape {
    RnnShape { seq_len: 1, batch: count }
}

/// Numbers of room for `count` different rows.
fn index_room(g: &Geometry, count: usize) -> usize {
    g.rows().saturating_add(2 * count).saturating_add(index_len(shape_of(count)))
}

impl<E: CpuElement> CpuBackend<E> {
    /// Elements and numbers of room that [`backward_weights_repeated`](Self::backward_weights_repeated) needs for so many different rows, where the plan has it.
    pub(crate) fn repeated_room(&self, plan: &CpuPlan, count: usize) -> Option<(usize, usize)> {
        let sizes = &*self.sizes(plan);
        let g = &sizes.geometry;
        let serves = plan.checkpoints.is_none() && !g.of_gates;
        serves.then(|| (room::<E>(g, sizes.isa, sizes.workers, count), index_room(g, count)))
    }

    /// [`backward_weights`](RecurrentBackend::backward_weights), and the gradient of x, where its rows are few different ones.
    pub(crate) fn backward_weights_repeated<S: BorrowMut<[E]>>(
        &self,
        plan: &CpuPlan,
        args: BackwardWeightsArgs<'_, Self>,
        repeated: HostRepeatedRows<'_, E>,
        reserve: &mut Reserve<S, Differentiated>,
        grad: WeightGrad,
    ) -> Result<()> {
        reserve.check_plan(plan.fingerprint())?;
        let space = self.temp_space(plan);
        plan.check_backward_weights(space.workspace, &args)?;
        plan.weights.check("weights", repeated.weights.len())?;
        let Some((room, index)) = self.repeated_room(plan, repeated.count) else {
            return Err(Error::unsupported("repeated rows of this plan", "call backward_data and backward_weights"));
        };
        check_at_least("room", room, repeated.room.len())?;
        check_at_least("index", index, repeated.index.len())?;
        check_len("dx", &plan.tensors.x, repeated.dx.len())?;
        check_len("numbers", &[plan.shape.seq_len, plan.shape.batch], repeated.numbers.len())?;
        if let Some(at) = repeated.numbers.iter().position(|number| *number as usize >= repeated.count) {
            let expected = format!("below {}", repeated.count);
            return Err(Error::option(format!("numbers[{at}]"), expected, repeated.numbers[at]));
        }
        let storage = reserve.storage_mut().borrow_mut();
        check_at_least("reserve", space.reserve, storage.len())?;
        let sizes = &*self.sizes(plan);
        let dropout = Dropout::new(plan.descriptor.dropout, 0);
        let call = self.call(plan, sizes, (args.h0, args.c0), args.lengths, args.resets, dropout);
        self.threads.start(sizes.workers)?;
        (E::passes().repeated)(&call, args, repeated, storage, grad);
        Ok(())
    }
}

impl<E: CpuElement> Call<'_, E> {
    pub(super) fn backward_weights_repeated(
        &self,
        args: BackwardWeightsArgs<'_, CpuBackend<E>>,
        repeated: HostRepeatedRows<'_, E>,
        reserve: &mut [E],
        grad: WeightGrad,
    ) {
        let BackwardWeightsArgs { x, y, h0, c0, lengths, resets, dweights, workspace } = args;
        let (others, rest) = (&mut *dweights, &mut *workspace);
        let args =
            BackwardWeightsArgs::<CpuBackend<E>> { x, y, h0, c0, lengths, resets, dweights: others, workspace: rest };
        Call { leaves_inputs: true, ..*self }.backward_weights(args, reserve, grad);

        let (g, isa) = (&self.geometry, self.isa);
        let HostRepeatedRows { weights, numbers, count, dx, room, index } = repeated;
        let mut parts = Parts::aligned(workspace);
        let storage = bytemuck::cast_slice_mut(parts.next(self.sizes.weights.index));
        let sequences = &Sequences::new(self.plan.shape, self.lengths, self.resets, storage);
        let of_weights = parts.next(self.sizes.weights.all_scratch());
        let (of_step, rest) = index.split_at_mut(sequences.valid_rows());
        let (first, rest) = rest.split_at_mut(count);
        let (used, index) = rest.split_at_mut(count);
        self.number(sequences, numbers, of_step, first);
        let numbers = first.iter().enumerate().filter(|(_, first)| **first != NONE);
        let used_count = used.iter_mut().zip(numbers).map(|(used, (number, _))| *used = number as u32).count();
        let used = &used[..used_count];
        let first_row = |at: usize| first[used[at] as usize] as usize;
        let different = &Sequences::new(shape_of(used.len()), None, None, index);

        let mut parts = Parts::aligned(room);
        let [blocks, sums, packed, rows, scratch] =
            room_parts::<E>(g, isa, self.sizes.workers, count).map(|len| parts.next(len));
        let (sums, rows) = (&mut sums[..used.len() * g.gate_rows], &mut rows[..used.len() * g.input]);
        let mut kept = Kept::new(reserve, g);
        for direction in 0..g.directions {
            let gates = Rows::inner(&*kept.saved(g, 0, direction).gates, g.gate_width);
            let workers = self.threads.worth(ADDITION * (of_step.len() * g.gate_rows) as f64);
            let all = 0..g.gate_rows.div_ceil(GATES);
            let gate_rows = g.gate_rows;
            let work = SumGates { isa, sequences, gates, gate_rows, of_step, count, blocks: all, sums: &mut *blocks };
            self.threads.workers(workers.min(self.sizes.workers)).divide(work);
            for (sums, number) in sums.chunks_exact_mut(g.gate_rows).zip(used) {
                let blocks = blocks.chunks_exact(count * GATES);
                for (sums, block) in sums.chunks_mut(GATES).zip(blocks) {
                    sums.copy_from_slice(&block[*number as usize * GATES..][..sums.len()]);
                }
            }
            let sums = Rows::inner(sums, g.gate_rows);

            let gradient = self.plan.weights.view_mut(dweights, 0, direction).input_hidden;
            let x_row = |at: usize| Some(&x[first_row(at) * g.input..][..g.input]);
            self.input_gradient(gradient, different, sums, &x_row, grad, &mut *of_weights);

            let weights = self.plan.weights.view(weights, 0, direction).input_hidden;
            let panels = self.pack_rows(g.gate_rows, g.input, &mut *packed, |column| {
                self.used_row(weights, g.input_row(column), g.input)
            });
            let start = if direction == 0 { Start::Set } else { Start::Add };
            let (c, scratch) = (&mut *rows, &mut *scratch);
            let product =
                SumsProduct { isa, different, rows: 0..used.len(), sums, panels, c, width: g.input, start, scratch };
            self.threads.workers(self.sizes.workers).divide(product);
        }
        dx.fill(E::zero());
        for (at, row) in rows.chunks_exact(g.input).enumerate() {
            dx[first_row(at) * g.input..][..g.input].copy_from_slice(row);
        }
    }

    /// The number of each valid step, and the first row of x with each number.
    fn number(&self, sequences: &Sequences<'_>, numbers: &[u32], of_step: &mut [u32], first: &mut [u32]) {
        let batch = self.geometry.batch;
        first.fill(NONE);
        let mut t = 0;
        for (at, number) in of_step.iter_mut().enumerate() {
            let row = sequences.valid_row(at);
            while row >= (t + 1) * batch {
                t += 1;
            }
            let row = self.plan.row(t, sequences.at(row - t * batch));
            *number = numbers[row];
            let first = &mut first[*number as usize];
            *first = (*first).min(row as u32);
        }
    }
}

/// Some of the different rows of the input's gradient: sums of gates times the weights.
struct SumsProduct<'a, E> {
    isa: Isa,
    different: &'a Sequences<'a>,
    rows: Range<usize>,
    sums: Rows<'a, E>,
    panels: Panels<'a, E>,
    /// Begins with these rows.
    c: &'a mut [E],
    width: usize,
    start: Start<'a, E>,
    scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for SumsProduct<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SumsProduct { isa, different, rows, sums, panels, c, width, start, scratch } = self;
        let middle = rows.start + share(rows.len(), left, of);
        let (c_left, c_right) = c.split_at_mut((middle - rows.start) * width);
        let (scratch_left, scratch_right) = share_scratch(scratch, left, of);
        let part = |rows, c, scratch| SumsProduct { isa, different, rows, sums, panels, c, width, start, scratch };
        (part(rows.start..middle, c_left, scratch_left), part(middle..rows.end, c_right, scratch_right))
    }

    fn run(self) {
        let SumsProduct { isa, different, rows, sums, panels, c, width, start, scratch } = self;
        let first = rows.start;
        let (row, at) = (|at: usize| sums.at(different, at), |at: usize| (at - first) * width);
        gemm::multiply(isa, rows, row, panels, c, at, start, scratch, Workers::ONE);
    }
}

/// The sums of some blocks of gates over the steps of each number, `[block, count, GATES]`.
struct SumGates<'a, 'w, E> {
    isa: Isa,
    sequences: &'a Sequences<'a>,
    gates: Rows<'a, E>,
    gate_rows: usize,
    /// The number of each valid step.
    of_step: &'w [u32],
    count: usize,
    blocks: Range<usize>,
    sums: &'w mut [E],
}

impl<E: CpuElement> Divide for SumGates<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SumGates { isa, sequences, gates, gate_rows, of_step, count, blocks, sums } = self;
        let taken = share(blocks.len(), left, of);
        let middle = blocks.start + taken;
        let (first, second) = sums.split_at_mut(taken * count * GATES);
        let part = |blocks, sums| SumGates { isa, sequences, gates, gate_rows, of_step, count, blocks, sums };
        (part(blocks.start..middle, first), part(middle..blocks.end, second))
    }

    fn run(self) {
        let SumGates { isa, sequences, gates, gate_rows, of_step, count, blocks, sums } = self;
        for (block, sums) in blocks.zip(sums.chunks_exact_mut(count * GATES)) {
            let first = block * GATES;
            let gates = gates.features(first, GATES.min(gate_rows - first));
            isa.run(SumBlock { sequences, gates, of_step, sums });
        }
    }
}

/// The sums of a block.
struct SumBlock<'a, 'w, E> {
    sequences: &'a Sequences<'a>,
    gates: Rows<'a, E>,
    of_step: &'w [u32],
    sums: &'w mut [E],
}

impl<E: CpuElement> Kernel<E> for SumBlock<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let SumBlock { sequences, gates, of_step, sums } = self;
        sums.fill(E::zero());
        for (at, number) in of_step.iter().enumerate() {
            // Rows lie too far apart for the processor to guess the next ones.
            let ahead = gates.at(sequences, sequences.valid_row((at + AHEAD).min(of_step.len() - 1)));
            ahead.chunks(64 / size_of::<E>()).for_each(|line| s.prefetch(&line[0]));
            let row = gates.at(sequences, sequences.valid_row(at));
            let sums = &mut sums[*number as usize * GATES..][..row.len()];
            let (row_vectors, row_rest) = row.split_at(row.len() / S::LANES * S::LANES);
            let (vectors, rest) = sums.split_at_mut(row_vectors.len());
            for (sum, gates) in vectors.chunks_exact_mut(S::LANES).zip(row_vectors.chunks_exact(S::LANES)) {
                let total = s.add(s.load(sum), s.load(gates));
                s.store(sum, total);
            }
            rest.iter_mut().zip(row_rest).for_each(|(sum, gate)| *sum += *gate);
        }
    }
}
