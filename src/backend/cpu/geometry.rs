//! Sizes: of the cell's operands, of the reserve and of the workspace. Everything follows from the plan alone, so that a
//! reserve can be read by a backend with another number of threads or other vectors.

use super::gemm;
use super::threads::Threads;
use crate::backend::cpu::CpuElement;
use crate::backend::{ForwardMode, HostPlan, TempSpace};
use crate::cell::{Activation, CellKind};
use crate::rnn::GruReset;
use crate::simd::Isa;

/// Weights that a thread reads in a few microseconds.
const ROW_WEIGHTS: usize = 100_000;

/// Sizes that a plan decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Geometry {
    pub(crate) cell: CellKind,
    pub(crate) reset: GruReset,
    pub(crate) seq_len: usize,
    pub(crate) batch: usize,
    pub(crate) hidden: usize,
    /// Width of one direction's output.
    pub(crate) output: usize,
    pub(crate) layers: usize,
    pub(crate) directions: usize,
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
    /// Widest input of any layer.
    pub(crate) widest_input: usize,
    /// Whether a layer other than the first exists.
    pub(crate) deep: bool,
}

/// A product that runs at every step: the rows of `weight_hh` that it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recurrent {
    /// First row of `weight_hh`.
    pub(crate) row: usize,
    pub(crate) rows: usize,
}

impl Geometry {
    pub(crate) fn new(plan: &HostPlan) -> Self {
        let d = &plan.descriptor;
        let gate_rows = d.cell.gates() * d.hidden_size;
        // The function on the way out of the LSTM reads its input from the cell state, which is kept anyway.
        let reads_input = |a: Activation| a.derivative_needs_input();
        let keeps_inputs = d.gate_clip.is_some()
            || (0..d.num_directions()).any(|direction| {
                let set = d.activations_of(direction);
                reads_input(set.state) || (d.cell != CellKind::Rnn && reads_input(set.gate))
            });
        let above = if d.num_layers > 1 { d.layer_input_size(1) } else { 0 };
        Geometry {
            cell: d.cell,
            reset: d.reset,
            seq_len: plan.shape.seq_len,
            batch: plan.shape.batch,
            hidden: d.hidden_size,
            output: d.output_size(),
            layers: d.num_layers,
            directions: d.num_directions(),
            gate_rows,
            gate_width: if d.cell == CellKind::Gru { 4 * d.hidden_size } else { gate_rows },
            projected: d.proj_size.is_some(),
            keeps_inputs,
            dropout: d.dropout > 0.0 && d.num_layers > 1,
            input: d.input_size,
            widest_input: d.input_size.max(above),
            deep: d.num_layers > 1,
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

    pub(crate) fn has_cell_state(&self) -> bool {
        self.cell.has_cell_state()
    }

    pub(crate) fn layer_input(&self, layer: usize) -> usize {
        if layer == 0 { self.input } else { self.features() }
    }

    /// Whether a GRU's candidate needs a product of its own, after the reset gate.
    pub(crate) fn resets_before(&self) -> bool {
        self.cell == CellKind::Gru && self.reset == GruReset::Before
    }

    /// Row of `weight_ih` whose product stands in column `column` of the gates' row.
    pub(crate) fn input_row(&self, column: usize) -> usize {
        match self.cell {
            CellKind::Gru if column < self.hidden => 2 * self.hidden + column,
            CellKind::Gru => column - self.hidden,
            _ => column,
        }
    }

    /// The product with `h_prev`; where the reset comes before it, that of r and z only.
    pub(crate) fn recurrent(&self) -> Recurrent {
        match self.cell {
            CellKind::Gru if self.resets_before() => Recurrent { row: 0, rows: 2 * self.hidden },
            CellKind::Gru => Recurrent { row: 0, rows: 3 * self.hidden },
            _ => Recurrent { row: 0, rows: self.gate_rows },
        }
    }

    /// The product with `r * h_prev`, where there is one.
    pub(crate) fn candidate(&self) -> Option<Recurrent> {
        self.resets_before().then_some(Recurrent { row: 2 * self.hidden, rows: self.hidden })
    }

    /// Elements kept for one layer and direction.
    pub(crate) fn saved(&self) -> SavedLen {
        let rows = self.rows();
        SavedLen {
            gates: rows * self.gate_width,
            cells: if self.has_cell_state() { rows * self.hidden } else { 0 },
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
        (rows * self.widest_input as f64, rows * self.output as f64)
    }

    /// Threads for the products over all steps. A single sequence's walk stays on one thread, so that there the products
    /// alone must be worth the move to the pool.
    pub(crate) fn workers(&self, threads: &Threads) -> usize {
        let (input, steps) = self.operations();
        threads.worth(if self.batch == 1 { input / 4.0 } else { input.max(steps) })
    }

    /// Threads for the walk through time. Each takes sequences; below eight each, reading the weights costs more than
    /// the arithmetic, and a thread gains little.
    pub(crate) fn step_workers(&self, threads: &Threads) -> usize {
        threads.worth(self.operations().1).min((self.batch / 8).max(1))
    }

    /// Threads for one step's product where there is one sequence: as many as there are parts of the weights large
    /// enough that reading them takes a few times as long as handing over the work.
    pub(crate) fn row_workers(&self, threads: &Threads) -> usize {
        let parts = self.recurrent().rows * self.output / ROW_WEIGHTS;
        if self.batch == 1 { parts.clamp(1, self.workers(threads)) } else { 1 }
    }

    pub(crate) fn temp_space<E: CpuElement>(&self, mode: ForwardMode, isa: Isa, threads: &Threads) -> TempSpace {
        let forward = self.forward_space::<E>(mode, isa, threads).total();
        match mode {
            ForwardMode::Inference => TempSpace { workspace: forward, reserve: 0 },
            ForwardMode::Training => TempSpace {
                workspace: forward
                    .max(self.backward_space::<E>(isa, threads).total())
                    .max(self.weights_space::<E>(isa, threads).total()),
                reserve: self.reserve(),
            },
        }
    }

    /// `u32` numbers in elements of `E`.
    fn index_len<E>(&self) -> usize {
        let shape = crate::rnn::RnnShape { seq_len: self.seq_len, batch: self.batch };
        (super::sequences::index_len(shape) * size_of::<u32>()).div_ceil(size_of::<E>())
    }

    pub(crate) fn forward_space<E: CpuElement>(&self, mode: ForwardMode, isa: Isa, threads: &Threads) -> Space {
        let inference = mode == ForwardMode::Inference;
        let recurrent = self.recurrent().rows;
        let scratch = gemm::multiply_scratch::<E>(isa, self.rows(), self.widest_input)
            .max(gemm::multiply_scratch::<E>(isa, self.batch, self.hidden));
        Space {
            index: self.index_len::<E>(),
            input_weights: gemm::panels_len::<E>(isa, self.widest_input, self.gate_rows),
            recurrent_weights: gemm::panels_len::<E>(isa, self.output, recurrent),
            candidate_weights: self.candidate().map_or(0, |c| gemm::panels_len::<E>(isa, self.output, c.rows)),
            projection: if self.projected { gemm::panels_len::<E>(isa, self.hidden, self.output) } else { 0 },
            bias: self.gate_rows + self.hidden,
            output_state: self.batch * self.output,
            cell_state: if self.has_cell_state() { self.batch * self.hidden } else { 0 },
            hidden_state: if self.projected || self.resets_before() { self.batch * self.hidden } else { 0 },
            gates: if inference { self.rows() * self.gate_width } else { 0 },
            // Of the top layer, where it cannot be written in place; in inference of all layers, by turns.
            outputs: self.outputs_len() * if inference && self.deep { 2 } else { 1 },
            workers: self.workers(threads),
            scratch,
            ..Space::default()
        }
    }

    pub(crate) fn backward_space<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Space {
        let recurrent = self.recurrent().rows;
        let scratch = gemm::multiply_scratch::<E>(isa, self.rows(), self.gate_rows).max(gemm::multiply_scratch::<E>(
            isa,
            self.batch,
            self.gate_rows.max(self.hidden),
        ));
        Space {
            index: self.index_len::<E>(),
            input_weights: gemm::panels_len::<E>(isa, self.gate_rows, self.widest_input),
            recurrent_weights: gemm::panels_len::<E>(isa, recurrent, self.output),
            candidate_weights: self.candidate().map_or(0, |c| gemm::panels_len::<E>(isa, c.rows, self.output)),
            projection: if self.projected { gemm::panels_len::<E>(isa, self.output, self.hidden) } else { 0 },
            output_state: self.batch * self.output,
            cell_state: if self.has_cell_state() { self.batch * self.hidden } else { 0 },
            hidden_state: if self.projected || self.resets_before() { self.batch * self.hidden } else { 0 },
            initial_state: self.batch * (self.output + if self.has_cell_state() { self.hidden } else { 0 }),
            outputs: self.rows() * self.widest_input * if self.deep { 2 } else { 1 },
            workers: self.workers(threads),
            scratch,
            ..Space::default()
        }
    }

    pub(crate) fn weights_space<E: CpuElement>(&self, isa: Isa, threads: &Threads) -> Space {
        let wide = self.widest_input.max(self.hidden);
        let scratch = gemm::multiply_transposed_scratch::<E>(isa, self.gate_rows, wide, self.rows());
        Space {
            index: self.index_len::<E>(),
            workers: self.workers(threads),
            // Beside the product's own, two rows for the bias.
            scratch: scratch + 2 * self.gate_rows,
            ..Space::default()
        }
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

/// Elements of each part of a workspace.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Space {
    pub(crate) index: usize,
    pub(crate) input_weights: usize,
    pub(crate) recurrent_weights: usize,
    pub(crate) candidate_weights: usize,
    pub(crate) projection: usize,
    pub(crate) bias: usize,
    /// `[B, P]`: h, or its gradient.
    pub(crate) output_state: usize,
    /// `[B, H]`: c, or its gradient.
    pub(crate) cell_state: usize,
    /// `[B, H]`: h before its projection, its gradient, or that of `r * h_prev`.
    pub(crate) hidden_state: usize,
    /// Gradients of initial states, which resets add to.
    pub(crate) initial_state: usize,
    pub(crate) gates: usize,
    pub(crate) outputs: usize,
    pub(crate) workers: usize,
    /// Of each worker.
    pub(crate) scratch: usize,
}

/// Parts start at multiples of a cache line, 64 bytes.
fn padded(len: usize) -> usize {
    len.checked_next_multiple_of(16).unwrap_or(usize::MAX)
}

impl Space {
    fn total(&self) -> usize {
        let Space { workers, scratch, .. } = *self;
        let parts = [
            self.index,
            self.input_weights,
            self.recurrent_weights,
            self.candidate_weights,
            self.projection,
            self.bias,
            self.output_state,
            self.cell_state,
            self.hidden_state,
            self.initial_state,
            self.gates,
            self.outputs,
        ];
        let all = parts.into_iter().map(padded).fold(16, usize::saturating_add);
        all.saturating_add(workers.saturating_mul(padded(scratch)))
    }

    /// Elements of scratch of all workers together.
    pub(crate) fn all_scratch(&self) -> usize {
        self.workers * padded(self.scratch)
    }
}

/// Hands out the parts of a buffer.
pub(crate) struct Parts<'a, E>(&'a mut [E]);

impl<'a, E: CpuElement> Parts<'a, E> {
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
