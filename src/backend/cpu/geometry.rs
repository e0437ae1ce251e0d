//! Sizes: of the cell's operands, of the reserve and of the workspace. Everything follows from the plan alone, so that a
//! reserve can be read by a backend with another number of threads or other vectors.

use super::threads::Threads;
use super::time_loop::ThreadStates;
use super::unit_groups::{GroupSizes, ROWS_AT_ONCE};
use super::{backward, forward, gemm, products};
use crate::backend::cpu::CpuElement;
use crate::backend::{ForwardMode, HostPlan, TempSpace};
use crate::cell::{Activation, CellKind};
use crate::dtype::DType;
use crate::rnn::{CandidateTerm, InputKind};
use crate::simd::Isa;

/// Weights that a thread reads in about two microseconds: handing over a step's work, and the way of its state from cache to cache, cost one.
const ROW_WEIGHTS: usize = if cfg!(test) { 1 << 11 } else { 55_000 };

/// Recurrent weights that are worth all threads even for a single step: they come from the last cache, which takes many times as long as multiplying with them.
const LARGE_WEIGHTS: usize = if cfg!(test) { 1 << 12 } else { 1 << 19 };

/// Weights that a thread reads in a third of a microsecond, what threads take to exchange a row: fewer, and a single sequence is not divided by units.
const UNIT_WEIGHTS: usize = if cfg!(test) { 1 << 10 } else { 20_000 };

/// Steps from which on it is.
const UNIT_STEPS: usize = if cfg!(test) { 3 } else { 16 };

/// Bytes of gates that a chunk of the forward pass has, about, so that inference needs no more for a longer sequence. In tests a chunk has few steps.
const CHUNK_BYTES: usize = if cfg!(test) { 1 << 10 } else { 2 << 20 };

/// Rows of a chunk for each thread, at least, of many sequences and with large weights: weights that fill the last cache are brought there anew
/// for each of the two products of a chunk, and threads that have sequences of their own wait for one another at its end.
const CHUNK_ROWS: usize = if cfg!(test) { 1 } else { 4096 };

/// Bytes of a layer's weights beyond which they are large.
const LARGE_BYTES: usize = 8 << 20;

/// Sequences below which both directions are rather computed at once than each divided by sequences, which reads its weights once a thread.
const FEW_SEQUENCES: usize = 16;

/// Recurrent weights that stay in a core's second cache from step to step.
const NEAR_WEIGHTS: usize = if cfg!(test) { 1 << 8 } else { 1 << 18 };

/// Rows of a thread from which on a step is computed by groups of units: fewer, and reading the weights takes longer than multiplying with them.
const GROUP_ROWS: usize = if cfg!(test) { 2 } else { 8 };

/// Bytes of a thread's rows of inputs and states beyond which a step is not computed so: every panel reads them anew, from the nearest cache.
const GROUP_BYTES: usize = 40 << 10;

/// Elements of a layer's input weights beyond which a step does not read them: they would drive those of the state out of the cache.
const INPUT_WEIGHTS: usize = if cfg!(test) { 1 << 11 } else { 1 << 17 };

/// Sequences, and elements of the recurrent weights, from which on products run on the matrix unit: below, splitting numbers into terms takes as long as it
/// saves. For their gradients, which are products over all steps, sequences do not count, and all of a layer's weights do.
const TILE_BATCH: usize = 16;
const TILE_WEIGHTS: usize = if cfg!(test) { 1 << 12 } else { 3 << 16 };

/// Weights of a layer, in three terms each, that stay in a core's second cache from step to step, so that threads may have sequences of their own.
const NEAR_TILE_WEIGHTS: usize = if cfg!(test) { 1 << 17 } else { 5 << 16 };

/// Valid and padded steps of all sequences from which on the gradients do.
const TILE_ROWS: usize = if cfg!(test) { 4 } else { 64 };

/// Steps of all sequences from which on, and weights of a layer up to which, the gradients of weights are two sums, one over each half of the sequences, whatever the
/// number of threads.
const ROWS_IN_TWO: usize = if cfg!(test) { 32 } else { 128 };
const WEIGHTS_IN_TWO: usize = 1 << 17;

/// Elements between what one thread writes at every step and what the next one does. A core fetches lines beyond those that it reads, up to the end of a page, and
/// would take them from the other, which then waits until it may write them again.
pub(crate) const APART: usize = 1024;

/// Sizes that a plan decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) cell: CellKind,
    pub(crate) candidate: CandidateTerm,
    pub(crate) seq_len: usize,
    pub(crate) batch: usize,
    pub(crate) hidden: usize,
    /// Blocks of the recurrent weights.
    pub(crate) heads: usize,
    /// Width of the states beside h, one after the other.
    pub(crate) others: usize,
    /// Whether the input is gates, so that there are no input weights.
    pub(crate) of_gates: bool,
    /// Width of one direction's output.
    pub(crate) output: usize,
    pub(crate) layers: usize,
    pub(crate) directions: usize,
    pub(crate) inference: bool,
    /// Rows of `weight_ih`.
    pub(crate) gate_rows: usize,
    /// Width of a row of gates as kept.
    pub(crate) gate_width: usize,
    pub(crate) projected: bool,
    /// Whether pre-activations are kept beside the gates.
    pub(crate) keeps_inputs: bool,
    pub(crate) dropout: bool,
    /// Width of `x`.
    pub(crate) input: usize,
    /// Widest input of any layer that is multiplied with weights.
    pub(crate) widest_input: usize,
    /// Whether a layer other than the first exists.
    pub(crate) deep: bool,
    /// Whether the products run on the matrix unit, which is the same for any number of steps and threads.
    pub(crate) on_tiles: bool,
    /// Whether the products do that the gradients of weights are.
    pub(crate) weights_on_tiles: bool,
}

/// A forward step by groups of units.
#[derive(Clone, Copy, Debug)]
pub(crate) struct StepGroups {
    pub(crate) sizes: GroupSizes,
    /// Whether the step's product with its inputs is part of it.
    pub(crate) take_inputs: bool,
}

/// A product with a state that runs at every step. Its gates stand one after another among the rows of `weight_hh` and among the
/// columns of the gates.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recurrent {
    /// First row of `weight_hh`.
    pub(crate) row: usize,
    pub(crate) rows: usize,
    /// First column of a row of gates.
    pub(crate) column: usize,
}

/// Columns of the gates' gradients, of which those of some rows of the weights are made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GradientRun {
    /// First column.
    pub(crate) column: usize,
    pub(crate) rows: usize,
    /// First row of `weight_ih`, if any.
    pub(crate) input_row: Option<usize>,
    /// First row of `weight_hh`, if any,
    pub(crate) state_row: Option<usize>,
    /// which multiply `q` rather than the state.
    pub(crate) of_q: bool,
}

impl GradientRun {
    /// `rows` of these from `first` on.
    pub(crate) fn part(self, first: usize, rows: usize) -> Self {
        let row = |row: Option<usize>| row.map(|row| row + first);
        GradientRun {
            column: self.column + first,
            rows,
            input_row: row(self.input_row),
            state_row: row(self.state_row),
            ..self
        }
    }
}

impl Geometry {
    fn new<E: CpuElement>(plan: &HostPlan, isa: Isa) -> Self {
        let d = &plan.descriptor;
        let gate_rows = d.cell.gates() * d.hidden_size;
        // The function on the way out of the LSTM reads its input from the cell state, which is kept anyway.
        let used = d.cell.spec().functions;
        let reads_input = |a: Activation| a.derivative_needs_input();
        let keeps_inputs = d.cell.spec().needs_inputs
            || d.gate_clip.is_some()
            || (0..d.num_directions()).any(|direction| {
                let set = d.activations_of(direction);
                (used.state && reads_input(set.state)) || (used.gate && reads_input(set.gate))
            });
        let candidate = d.candidate();
        let of_gates = d.input == InputKind::Gates;
        let above = if d.num_layers > 1 { d.layer_input_size(1) } else { 0 };
        let columns = d.output_size().saturating_add(if of_gates { 0 } else { d.input_size });
        Geometry {
            cell: d.cell,
            candidate,
            seq_len: plan.shape.seq_len,
            batch: plan.shape.batch,
            hidden: d.hidden_size,
            heads: d.heads,
            others: d.cell.other_states() * d.hidden_size,
            of_gates,
            output: d.output_size(),
            layers: d.num_layers,
            directions: d.num_directions(),
            inference: plan.mode == ForwardMode::Inference,
            gate_rows,
            gate_width: gate_rows + if candidate == CandidateTerm::Summed { 0 } else { d.hidden_size },
            projected: d.proj_size.is_some(),
            keeps_inputs,
            dropout: d.dropout > 0.0 && d.num_layers > 1,
            input: d.input_size,
            widest_input: if of_gates { 0 } else { d.input_size.max(above) },
            deep: d.num_layers > 1,
            on_tiles: gemm::amx::serves::<E>(isa, d.output_size())
                && d.heads == 1
                && plan.shape.batch >= TILE_BATCH
                && gate_rows.saturating_mul(d.output_size()) >= TILE_WEIGHTS,
            weights_on_tiles: gemm::amx::serves::<E>(isa, columns)
                && d.heads == 1
                && plan.shape.seq_len.saturating_mul(plan.shape.batch) >= TILE_ROWS
                && gate_rows.saturating_mul(columns) >= TILE_WEIGHTS,
        }
    }

    /// Steps times sequences.
    pub(crate) fn rows(&self) -> usize {
        self.seq_len * self.batch
    }

    /// Width of a layer's output, both directions.
    pub(crate) fn features(&self) -> usize {
        self.directions * self.output
    }

    pub(crate) fn layer_input(&self, layer: usize) -> usize {
        if layer == 0 { self.input } else { self.features() }
    }

    /// Elements of a row of `weight_hh`.
    pub(crate) fn head_size(&self) -> usize {
        self.output / self.heads
    }

    /// Whether the candidate needs a product of its own, after a gate has acted on the state.
    pub(crate) fn has_second_product(&self) -> bool {
        self.candidate == CandidateTerm::Second
    }

    /// Row of `weight_ih` whose product stands in column `column` of the gates' row.
    pub(crate) fn input_row(&self, column: usize) -> usize {
        let candidate = self.gate_rows - self.hidden;
        match self.candidate {
            CandidateTerm::Summed => column,
            _ if column < self.hidden => candidate + column,
            _ => column - self.hidden,
        }
    }

    /// The product with `h_prev`; where the candidate has one of its own, that of the other gates.
    pub(crate) fn recurrent(&self) -> Recurrent {
        match self.candidate {
            CandidateTerm::Summed => Recurrent { row: 0, rows: self.gate_rows, column: 0 },
            CandidateTerm::Apart => Recurrent { row: 0, rows: self.gate_rows, column: self.hidden },
            CandidateTerm::Second => Recurrent { row: 0, rows: self.gate_rows - self.hidden, column: self.hidden },
        }
    }

    /// The product with `q`, where there is one.
    pub(crate) fn candidate(&self) -> Option<Recurrent> {
        let row = self.gate_rows - self.hidden;
        self.has_second_product().then_some(Recurrent { row, rows: self.hidden, column: 0 })
    }

    /// The columns of the gates' gradients, cut where other rows of the weights begin.
    pub(crate) fn gradient_runs(&self) -> impl Iterator<Item = GradientRun> + use<> {
        let (hidden, rows) = (self.hidden, self.gate_rows);
        let others = rows - hidden;
        let run = |column, rows, input_row, state_row| GradientRun { column, rows, input_row, state_row, of_q: false };
        let all = run(0, rows, Some(0), Some(0));
        let before = run(hidden, others, Some(0), Some(0));
        let runs = match self.candidate {
            CandidateTerm::Summed => [Some(all), None, None],
            CandidateTerm::Apart => {
                [Some(run(0, hidden, Some(others), None)), Some(before), Some(run(rows, hidden, None, Some(others)))]
            }
            CandidateTerm::Second => {
                let candidate = GradientRun { of_q: true, ..run(0, hidden, Some(others), Some(others)) };
                [Some(candidate), Some(before), None]
            }
        };
        runs.into_iter().flatten().filter(|run| run.rows > 0)
    }

    /// Elements kept for one layer and direction.
    pub(crate) fn saved(&self) -> SavedLen {
        let rows = self.rows();
        SavedLen {
            gates: rows * self.gate_width,
            cells: rows * self.others,
            inputs: if self.keeps_inputs { rows * self.gate_rows } else { 0 },
            unprojected: if self.projected { rows * self.hidden } else { 0 },
            projected_gradient: if self.projected { rows * self.output } else { 0 },
        }
    }

    /// Elements of a layer's output.
    pub(crate) fn outputs_len(&self) -> usize {
        self.rows() * self.features()
    }

    /// Elements that a layer below another keeps: its output, and once more with dropout.
    pub(crate) fn between_len(&self) -> usize {
        self.outputs_len() * if self.dropout { 2 } else { 1 }
    }

    fn reserve(&self) -> usize {
        self.layers * self.directions * self.saved().total() + (self.layers - 1) * self.between_len()
    }

    /// Operations of one layer's and direction's product with all inputs, and of all its steps' products.
    pub(crate) fn operations(&self) -> (f64, f64) {
        let rows = self.rows() as f64 * self.gate_rows as f64 * 2.0;
        (rows * self.widest_input as f64, rows * self.head_size() as f64)
    }

    /// Threads for the products over all steps.
    fn workers(&self, threads: &Threads) -> usize {
        let (input, steps) = self.operations();
        threads.worth(input.max(steps))
    }

    /// Threads for the time loop. Each takes sequences: of small weights, which stay in its second cache, if only one; of others so many that a
    /// thread does not wait for the weights alone.
    fn step_workers(&self, threads: &Threads) -> usize {
        if self.on_tiles {
            return if self.are_tiles_near(threads) { self.workers_of_tiles(threads) } else { 1 };
        }
        let are_near = self.gate_rows.saturating_mul(self.head_size()) <= NEAR_WEIGHTS;
        let least = if are_near { 1 } else { (GROUP_ROWS / 2).max(1) };
        threads.worth(self.operations().1).min((self.batch / least).max(1))
    }

    /// Whether each thread of the forward time loop packs the weights for itself: where they stay in its second cache, and the loop needs nothing else.
    fn own_operands<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> bool {
        let weights = self.operands::<E>(isa, threads).map(|operands| operands.total());
        !self.on_tiles
            && !self.directions_at_once(threads)
            && self.unit_workers::<E>(isa, threads) == 1
            && self.step_workers(threads) > 1
            && weights.into_iter().all(|weights| weights <= NEAR_WEIGHTS)
            && self.groups::<E>(isa, threads).is_some_and(|groups| groups.take_inputs)
    }

    /// The same of the backward time loop, whose products with the inputs' weights come after it.
    fn own_recurrent<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> bool {
        self.inputs_by_sequences(threads)
            && self.heads == 1
            && self.packed_len::<E>(isa, self.recurrent(), false) <= NEAR_WEIGHTS
    }

    /// Whether threads divide the gradients of inputs by sequences, as they have divided the time loop before. Results are the same either way.
    fn inputs_by_sequences(&self, threads: &Threads) -> bool {
        let workers = self.workers(threads);
        !self.on_tiles && workers > 1 && self.step_workers(threads) == workers && !self.directions_at_once(threads)
    }

    /// Whether gradients of weights are summed over each half of the sequences by itself.
    fn weights_in_two(&self) -> bool {
        let columns = self.widest_input.saturating_add(self.output);
        self.batch >= FEW_SEQUENCES
            && self.rows() >= ROWS_IN_TWO
            && !self.weights_on_tiles
            && self.heads == 1
            && self.gate_rows.saturating_mul(columns) <= WEIGHTS_IN_TWO
    }

    /// Whether threads divide the time loop on the matrix unit by sequences: where the weights stay near each, and a thread has the rows that a tile has.
    /// Results are the same either way.
    fn are_tiles_near(&self, threads: &Threads) -> bool {
        let weights = self.gate_rows.saturating_mul(self.output.saturating_add(self.widest_input));
        // Its products have one accumulator, and those of all units follow one another.
        let is_plain = self.heads == 1 && !self.projected && !self.has_second_product();
        is_plain
            && weights <= NEAR_TILE_WEIGHTS
            && self.widest_input.max(self.output) <= gemm::amx::DEPTH
            && self.batch / self.workers_of_tiles(threads) >= gemm::amx::SIDE
    }

    fn workers_of_tiles(&self, threads: &Threads) -> usize {
        threads.worth(self.operations().1).min((self.batch / GROUP_ROWS).max(1))
    }

    /// Whether both directions are computed at once, each on one thread: where there are few sequences or little to compute, and both together
    /// are worth two threads.
    pub(crate) fn directions_at_once(&self, threads: &Threads) -> bool {
        let steps = self.operations().1;
        self.directions == 2
            && !self.on_tiles
            && (self.batch < FEW_SEQUENCES || threads.worth(steps) == 1)
            && threads.worth(2.0 * steps) > 1
    }

    /// Threads for one step's product where there is one sequence: as many as there are parts of the weights large
    /// enough that reading them takes a few times as long as handing over the work.
    fn row_workers(&self, threads: &Threads) -> usize {
        if self.on_tiles {
            if self.are_tiles_near(threads) {
                return 1;
            }
            return threads.worth(self.operations().1 / self.seq_len.max(1) as f64);
        }
        let weights = self.recurrent().rows * self.output;
        let most = if weights >= LARGE_WEIGHTS { threads.count() } else { self.workers(threads) };
        if self.batch == 1 && self.heads == 1 { (weights / ROW_WEIGHTS).clamp(1, most) } else { 1 }
    }

    /// Threads that divide the time loop of a single sequence by units: as many as have enough of the weights to read in a step. There must be steps
    /// enough to repay that they come together, or one of inference with large weights, after which nobody needs what others have.
    fn unit_workers<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> usize {
        let Some(groups) = GroupSizes::new::<E>(self, isa).filter(|_| self.batch == 1) else { return 1 };
        if self.directions_at_once(threads) {
            return 1;
        }
        let weights = self.recurrent().rows * self.output;
        let (least, most) = match self.seq_len {
            1 if self.inference && weights >= LARGE_WEIGHTS => (ROW_WEIGHTS, threads.count()),
            ..UNIT_STEPS => return 1,
            _ => (UNIT_WEIGHTS, self.workers(threads)),
        };
        (weights / least).min(groups.count).clamp(1, most)
    }

    /// Whether a single sequence that threads divide by units takes its input in the step: of several steps the product reads the weights once for all.
    fn takes_single_inputs(&self) -> bool {
        self.inference && self.seq_len == 1 && !self.of_gates
    }

    /// Steps that the forward pass computes at a time: the product with their inputs, then their part of the time loop.
    fn chunk<E>(&self, threads: &Threads) -> usize {
        let rows = CHUNK_BYTES / size_of::<E>() / self.gate_width.max(1);
        let weights = self.gate_rows.saturating_mul(self.widest_input.saturating_add(self.head_size()));
        let are_near = self.batch < GROUP_ROWS && weights.saturating_mul(size_of::<E>()) <= LARGE_BYTES;
        let least = match are_near {
            // On the matrix unit a product reads all weights for every so many rows, whatever the chunk.
            _ if self.on_tiles => gemm::amx::ROWS,
            true => 0,
            false => CHUNK_ROWS,
        };
        (rows.max(least * self.workers(threads)) / self.batch.max(1)).clamp(1, self.seq_len.max(1))
    }

    /// `u32` numbers in elements of `E`.
    fn index_len<E>(&self) -> usize {
        let shape = crate::rnn::RnnShape { seq_len: self.seq_len, batch: self.batch };
        (super::sequences::index_len(shape) * size_of::<u32>()).div_ceil(size_of::<E>())
    }

    /// How the forward step is computed by groups of units, if it is.
    fn groups<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Option<StepGroups> {
        let sizes = GroupSizes::new::<E>(self, isa)?;
        if self.on_tiles {
            let take_inputs = !self.of_gates && self.input >= gemm::amx::LEAST;
            return self.are_tiles_near(threads).then_some(StepGroups { sizes, take_inputs });
        }
        if self.unit_workers::<E>(isa, threads) > 1 {
            return Some(StepGroups { sizes, take_inputs: self.takes_single_inputs() });
        }
        // Where both directions are computed at once, each has one thread.
        let at_once = self.directions_at_once(threads);
        let workers = if at_once { 1 } else { self.step_workers(threads) };
        let rows = self.batch / workers;
        let take_inputs = !self.of_gates && self.widest_input.saturating_mul(self.gate_rows) <= INPUT_WEIGHTS;
        let row = self.output + if take_inputs { self.widest_input } else { 0 };
        // Columns without a unit cost as much as the others.
        let is_full = 2 * sizes.units * sizes.count <= 3 * self.hidden;
        let all_take_part = at_once || workers >= self.workers(threads);
        let is_near = rows.min(ROWS_AT_ONCE) * row * size_of::<E>() <= GROUP_BYTES;
        (rows >= GROUP_ROWS && is_full && all_take_part && is_near).then_some(StepGroups { sizes, take_inputs })
    }

    /// Elements of a part of the recurrent weights, packed for the forward or the backward step.
    fn packed_len<E: CpuElement>(&self, isa: Isa, part: Recurrent, forward: bool) -> usize {
        let size = self.head_size();
        match self.heads {
            1 if forward => gemm::panels_len::<E>(isa, self.output, part.rows),
            1 => gemm::panels_len::<E>(isa, part.rows, self.output),
            _ if size == 1 => 0,
            heads => gemm::panels_len::<E>(isa, size, size).saturating_mul(heads * (part.rows / self.hidden)),
        }
    }

    /// The operands of a layer and direction in the forward pass: of the first layer, and of any other.
    fn operands<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> [OperandSpace; 2] {
        let first = if self.of_gates { 0 } else { self.input };
        [first, self.features()].map(|input| self.operands_of::<E>(isa, threads, input))
    }

    /// The same of a layer with inputs of this width.
    fn operands_of<E: CpuElement>(&self, isa: Isa, threads: &Threads, input: usize) -> OperandSpace {
        let groups = self.groups::<E>(isa, threads);
        OperandSpace {
            input_weights: match groups {
                Some(groups) if groups.take_inputs => groups.sizes.packed(input),
                _ => gemm::panels_len::<E>(isa, input, self.gate_rows),
            },
            recurrent_weights: match groups {
                Some(groups) => groups.sizes.packed(self.output),
                None => self.packed_len::<E>(isa, self.recurrent(), true),
            },
            candidate_weights: self.candidate().map_or(0, |part| self.packed_len::<E>(isa, part, true)),
            projection: if self.projected { gemm::panels_len::<E>(isa, self.hidden, self.output) } else { 0 },
            bias: self.gate_rows + self.hidden,
            unit_bias: groups.map_or(0, |groups| groups.sizes.count * groups.sizes.sums),
        }
    }

    fn forward_space<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Space {
        let inference = self.inference;
        let groups = self.groups::<E>(isa, threads);
        let take_inputs = groups.is_some_and(|groups| groups.take_inputs);
        let scratch = gemm::multiply_scratch::<E>(isa, self.rows(), self.widest_input)
            .max(gemm::multiply_scratch::<E>(isa, self.batch, self.hidden))
            .max(groups.map_or(0, |groups| groups.sizes.scratch(self)));
        let by_units = groups.filter(|_| self.unit_workers::<E>(isa, threads) > 1);
        let scratch = scratch.max(by_units.map_or(0, |groups| forward::single_scratch(self, &groups.sizes)));
        let hidden_state = if by_units.is_some() {
            // The states to start from, and two rows that threads exchange.
            3 * self.hidden + self.others
        } else if self.projected || self.has_second_product() || groups.is_some() {
            self.batch * self.hidden
        } else {
            0
        };
        Space {
            index: self.index_len::<E>(),
            sets: self.sets(threads),
            operands: {
                let [first, other] = self.operands::<E>(isa, threads).map(|operands| operands.total());
                let copies = if self.own_operands::<E>(isa, threads) { self.step_workers(threads) } else { 1 };
                if self.deep { first.max(other) } else { first }.saturating_mul(copies)
            },
            output_state: self.batch * self.output,
            cell_state: self.batch * self.others,
            hidden_state,
            thread_states: self.thread_states(threads, hidden_state),
            gates: if inference && !take_inputs { self.chunk::<E>(threads) * self.batch * self.gate_width } else { 0 },
            // In inference of the layers below others, by turns. Training keeps them.
            outputs: self.outputs_len() * if inference { (self.layers - 1).min(2) } else { 0 },
            chunk_outputs: self.chunk::<E>(threads) * self.batch * self.output,
            workers: self
                .workers(threads)
                .max(self.sets(threads))
                .max(self.row_workers(threads))
                .max(self.unit_workers::<E>(isa, threads)),
            scratch,
            ..Space::default()
        }
    }

    /// See [`ThreadStates`].
    fn thread_states(&self, threads: &Threads, hidden_state: usize) -> usize {
        match self.step_workers(threads) {
            2.. if !self.directions_at_once(threads) => {
                let state = |width: usize| self.batch.saturating_mul(width);
                let states = [state(self.output), state(self.others), hidden_state];
                ThreadStates::<()>::room(states, self.step_workers(threads))
            }
            _ => 0,
        }
    }

    /// See [`Space::sets`].
    fn sets(&self, threads: &Threads) -> usize {
        1 + usize::from(self.directions_at_once(threads))
    }

    fn backward_space<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Space {
        let scratch = gemm::multiply_scratch::<E>(isa, self.rows(), self.gate_rows).max(gemm::multiply_scratch::<E>(
            isa,
            self.batch,
            self.gate_rows.max(self.hidden),
        ));
        let buffer = padded(products::BUFFER_ROWS.saturating_mul(self.widest_input));
        let scratch = scratch.saturating_add(if self.inputs_by_sequences(threads) { buffer } else { 0 });
        let by_units = self.unit_workers::<E>(isa, threads) > 1;
        let scratch = scratch.max(if by_units { backward::single_scratch(self) } else { 0 });
        let hidden_state = if by_units {
            // Two rows of gates that threads exchange.
            2 * self.gate_width
        } else if self.projected || self.has_second_product() {
            self.batch * self.hidden
        } else {
            0
        };
        Space {
            index: self.index_len::<E>(),
            sets: self.sets(threads),
            input_weights: gemm::panels_len::<E>(isa, self.gate_rows, self.widest_input),
            recurrent_weights: self.packed_len::<E>(isa, self.recurrent(), false),
            copies: if self.own_recurrent::<E>(isa, threads) { self.step_workers(threads) } else { 1 },
            candidate_weights: self.candidate().map_or(0, |part| self.packed_len::<E>(isa, part, false)),
            candidate_gradient: if self.has_second_product() { self.batch * self.hidden } else { 0 },
            projection: if self.projected { gemm::panels_len::<E>(isa, self.output, self.hidden) } else { 0 },
            output_state: self.batch * self.output,
            cell_state: self.batch * self.others,
            hidden_state,
            thread_states: self.thread_states(threads, hidden_state),
            initial_state: self.batch * (self.output + self.others),
            outputs: self.rows() * self.widest_input * if self.deep { 2 } else { 1 },
            workers: self.workers(threads).max(self.sets(threads)).max(self.row_workers(threads)),
            scratch,
            ..Space::default()
        }
    }

    fn weights_space<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Space {
        // Of all products: narrow ones are not always those that need less.
        let state = self.head_size();
        let states = [&[][..], &[state], &[state, state], &[self.hidden]];
        let inputs = [0, self.input, self.widest_input];
        let scratch = |input: usize, states: &[usize]| {
            let mut columns = [input, 0, 0];
            columns[1..][..states.len()].copy_from_slice(states);
            gemm::multiply_transposed_scratch::<E>(isa, self.gate_rows, &columns, self.rows())
        };
        let products = inputs.into_iter().flat_map(|input| states.map(|states| scratch(input, states)));
        let scratch = products.fold(0, usize::max);
        let in_two = self.weights_in_two();
        let steps = self.rows().saturating_mul(size_of::<u32>()).div_ceil(size_of::<E>());
        Space {
            index: self.index_len::<E>(),
            half: if in_two { self.gate_rows * (self.widest_input + self.output + 2) } else { 0 },
            halves: if in_two { steps } else { 0 },
            workers: self.workers(threads),
            // Beside the product's own, a row for the biases, and two for the weights of a single feature.
            scratch: scratch + padded(self.gate_width + 2 * self.gate_rows),
            ..Space::default()
        }
    }
}

/// All sizes of a plan on a backend, computed once: a call for one small sequence takes a few microseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    pub(crate) geometry: Geometry,
    pub(crate) temp: TempSpace,
    pub(crate) forward: Space,
    operands: [OperandSpace; 2],
    pub(crate) backward: Space,
    pub(crate) weights: Space,
    /// See the methods of [`Geometry`] of these names.
    pub(crate) own_operands: bool,
    pub(crate) own_recurrent: bool,
    pub(crate) inputs_by_sequences: bool,
    pub(crate) weights_in_two: bool,
    pub(crate) workers: usize,
    /// Threads for the time loops, which divide sequences.
    pub(crate) step_workers: usize,
    pub(crate) row_workers: usize,
    /// Threads for the forward time loop of a single sequence.
    pub(crate) unit_workers: usize,
    /// Threads for the cells of a step, where its sequences are not divided among time loops.
    pub(crate) cell_workers: usize,
    /// Steps of a chunk of the forward pass.
    pub(crate) chunk: usize,
    pub(crate) groups: Option<StepGroups>,
    /// What its products and cells run on.
    pub(crate) isa: Isa,
    /// What the products run on that the gradients of weights are.
    pub(crate) weights_isa: Isa,
    dtype: DType,
    backend_isa: Isa,
    threads: usize,
}

impl Sizes {
    pub(crate) fn new<E: CpuElement>(plan: &HostPlan, isa: Isa, threads: &Threads) -> Self {
        let geometry = Geometry::new::<E>(plan, isa);
        let backend_isa = isa;
        let isa = if geometry.on_tiles { isa } else { isa.without_tiles() };
        let forward = geometry.forward_space::<E>(isa, threads);
        let backward = geometry.backward_space::<E>(isa, threads);
        let weights_isa = if geometry.weights_on_tiles { backend_isa } else { isa };
        let weights = geometry.weights_space::<E>(weights_isa, threads);
        let temp = match plan.mode {
            ForwardMode::Inference => TempSpace { workspace: forward.total(), reserve: 0 },
            ForwardMode::Training => TempSpace {
                workspace: forward.total().max(backward.total()).max(weights.total()),
                reserve: geometry.reserve(),
            },
        };
        Sizes {
            geometry,
            temp,
            forward,
            operands: geometry.operands::<E>(isa, threads),
            backward,
            weights,
            own_operands: geometry.own_operands::<E>(isa, threads),
            own_recurrent: geometry.own_recurrent::<E>(isa, threads),
            inputs_by_sequences: geometry.inputs_by_sequences(threads),
            weights_in_two: geometry.weights_in_two(),
            workers: geometry.workers(threads),
            step_workers: geometry.step_workers(threads),
            row_workers: geometry.row_workers(threads),
            unit_workers: geometry.unit_workers::<E>(isa, threads),
            cell_workers: if geometry.on_tiles { geometry.row_workers(threads) } else { 1 },
            chunk: geometry.chunk::<E>(threads),
            groups: geometry.groups::<E>(isa, threads),
            isa,
            weights_isa,
            dtype: E::DTYPE,
            backend_isa,
            threads: threads.count(),
        }
    }

    /// Of the forward pass.
    pub(crate) fn operands(&self, layer: usize) -> &OperandSpace {
        &self.operands[layer.min(1)]
    }

    /// Those of a plan for inference whose operands are not in the workspace.
    pub(crate) fn without_operands(&self) -> Self {
        let forward = Space { operands: 0, ..self.forward };
        Sizes { forward, temp: TempSpace { workspace: forward.total(), reserve: 0 }, ..*self }
    }

    /// Whether they are those of a backend of this element type, with these vectors and threads.
    pub(crate) fn are_of<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> bool {
        (self.dtype, self.backend_isa, self.threads) == (E::DTYPE, isa, threads.count())
    }
}

/// Elements kept for one layer and direction.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SavedLen {
    pub(crate) gates: usize,
    pub(crate) cells: usize,
    pub(crate) inputs: usize,
    pub(crate) unprojected: usize,
    pub(crate) projected_gradient: usize,
}

impl SavedLen {
    pub(crate) fn total(&self) -> usize {
        self.gates + self.cells + self.inputs + self.unprojected + self.projected_gradient
    }
}

/// Elements of each packed operand of a layer and direction in the forward pass.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OperandSpace {
    input_weights: usize,
    recurrent_weights: usize,
    candidate_weights: usize,
    projection: usize,
    bias: usize,
    unit_bias: usize,
}

impl OperandSpace {
    /// In the order of the fields.
    pub(crate) fn lens(&self) -> [usize; 6] {
        let OperandSpace { input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias } = *self;
        [input_weights, recurrent_weights, candidate_weights, projection, bias, unit_bias]
    }

    /// Elements of all of them, each from a cache line on.
    pub(crate) fn total(&self) -> usize {
        self.lens().into_iter().map(padded).fold(0, usize::saturating_add)
    }
}

/// Elements of each part of a workspace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) index: usize,
    /// How many there are of the parts of a layer and direction: two where both directions are computed at once.
    pub(crate) sets: usize,
    /// See [`OperandSpace`].
    pub(crate) operands: usize,
    pub(crate) input_weights: usize,
    pub(crate) recurrent_weights: usize,
    /// Of the recurrent weights, where each thread has its own.
    pub(crate) copies: usize,
    pub(crate) candidate_weights: usize,
    pub(crate) projection: usize,
    /// `[B, H]`: gradient of a candidate that has a product of its own.
    pub(crate) candidate_gradient: usize,
    /// `[B, P]`: h, or its gradient.
    pub(crate) output_state: usize,
    /// `[B, (S - 1) * H]`: the states beside h, or their gradients.
    pub(crate) cell_state: usize,
    /// `[B, H]`: h before its projection, its gradient, or that of `q`.
    pub(crate) hidden_state: usize,
    /// The same while threads run a time loop: see [`ThreadStates`](super::time_loop::ThreadStates).
    pub(crate) thread_states: usize,
    /// Gradients of initial states, which resets add to.
    pub(crate) initial_state: usize,
    pub(crate) gates: usize,
    pub(crate) outputs: usize,
    /// Gradients of a layer's and direction's weights over half of the sequences, and the numbers of the halves' steps.
    pub(crate) half: usize,
    pub(crate) halves: usize,
    /// `[chunk, B, P]`: outputs of the top layer that `y` has in another order.
    pub(crate) chunk_outputs: usize,
    pub(crate) workers: usize,
    /// Of each worker.
    pub(crate) scratch: usize,
}

/// Parts start at multiples of a cache line, 64 bytes.
pub(crate) fn padded(len: usize) -> usize {
    len.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

impl Space {
    fn total(&self) -> usize {
        let Space { workers, scratch, .. } = *self;
        let of_direction = [
            self.operands,
            padded(self.recurrent_weights).saturating_mul(self.copies.max(1)),
            self.candidate_weights,
            self.projection,
            self.candidate_gradient,
            self.output_state,
            self.cell_state,
            self.hidden_state,
            self.thread_states,
            self.initial_state,
            self.gates,
            self.chunk_outputs,
        ];
        let sum = |parts: &[usize]| parts.iter().copied().map(padded).fold(0, usize::saturating_add);
        sum(&[16, self.index, self.input_weights, self.outputs, self.half, self.halves])
            .saturating_add(sum(&of_direction).saturating_mul(self.sets.max(1)))
            .saturating_add(workers.saturating_mul(scratch_of_thread(scratch, workers)))
    }

    /// Elements of scratch of all workers together.
    pub(crate) fn all_scratch(&self) -> usize {
        self.workers * scratch_of_thread(self.scratch, self.workers)
    }
}

fn scratch_of_thread(scratch: usize, workers: usize) -> usize {
    padded(scratch).saturating_add(if workers > 1 { APART } else { 0 })
}

/// Hands out the parts of a buffer.
pub(crate) struct Parts<'a, E>(&'a mut [E]);

impl<'a, E: CpuElement> Parts<'a, E> {
    /// Of a buffer that has room for nothing else.
    pub(crate) fn of(buffer: &'a mut [E]) -> Self {
        Parts(buffer)
    }

    /// Of a workspace, from the first cache line on.
    pub(crate) fn aligned(buffer: &'a mut [E]) -> Self {
        let skip = buffer.as_ptr().align_offset(64).min(15).min(buffer.len());
        Parts(&mut buffer[skip..])
    }

    /// The next part of a workspace.
    pub(crate) fn next(&mut self, len: usize) -> &'a mut [E] {
        let (part, rest) = std::mem::take(&mut self.0).split_at_mut(padded(len));
        self.0 = rest;
        &mut part[..len]
    }
}

/// Splits the next `len` elements off a buffer.
pub(crate) fn take<'a, E>(buffer: &mut &'a mut [E], len: usize) -> &'a mut [E] {
    let (part, rest) = std::mem::take(buffer).split_at_mut(len);
    *buffer = rest;
    part
}
