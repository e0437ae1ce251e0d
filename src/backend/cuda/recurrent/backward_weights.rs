//! The gradients of the weights as launches.

use bytemuck::Zeroable;

use super::super::call::{Raw, address};
use super::super::device::{Device, DevicePtr, Launch};
use super::super::kernel::gemm::weight_splits;
use super::super::kernel::launch::{bias_pieces, column_reduction, partial_sums};
use super::super::kernel::params::{BiasGradientParams, GemmParams, PeepholeGradientParams, Rows, SumPartialsParams};
use super::cell::{gradient_slots, input_slots};
use super::engine::{Engine, Sequences, problem};
use super::space::Workspace;
use crate::backend::ops::Orientation;
use crate::backend::{BackwardWeightsArgs, WeightGrad};
use crate::cell::CellKind;
use crate::error::Result;
use crate::rnn::{Bias, GruReset, LayerWeights};

impl<D: Device> Engine<'_, D> {
    /// All layers.
    pub(super) fn backward_weights(&self, args: &BackwardWeightsArgs<'_, Raw>, grad: WeightGrad) -> Result<()> {
        let space: &Workspace = &self.plan.backward_weights;
        let (dropped, partial) = (space.dropped.of(args.workspace.address), space.partial.of(args.workspace.address));
        let dropout = self.dropout();
        for layer in 0..self.descriptor().num_layers {
            let input = self.layer_input(layer, args.x.address, self.reserve, dropped, &dropout)?;
            for direction in 0..self.directions() {
                self.layer_weight_gradients(layer, direction, input, args, partial, grad)?;
            }
        }
        Ok(())
    }

    fn layer_weight_gradients(
        &self,
        layer: usize,
        direction: usize,
        input: Sequences,
        args: &BackwardWeightsArgs<'_, Raw>,
        partial: DevicePtr,
        grad: WeightGrad,
    ) -> Result<()> {
        let descriptor = self.descriptor();
        let (b, h, p) = (self.batch(), self.hidden_size(), self.output_size());
        let features = descriptor.layer_input_size(layer);
        let own = &self.plan.layers[layer].direction[direction];
        let out = self.weights_of(args.dweights.address, layer, direction, self.plan.gradient.size());
        let dgates = own.dgates.of(self.reserve);
        let layout = self.plan.h_prev;
        let h_prev = Sequences {
            data: own.h_prev.of(self.reserve),
            time_stride: layout.rows * layout.stride,
            batch_stride: layout.stride,
        };
        let sum = PartialSums { partial, lengths: address(args.lengths), grad };
        for (slot, row, gates) in input_slots(descriptor.cell) {
            let to = self.gradient_at(out.input_hidden, row * h * features);
            self.product_gradient(&sum, self.gate_gradients(dgates, slot), gates * h, input, features, to)?;
        }
        let gate_gradients = |slot: usize| self.gate_gradients(dgates, slot);
        match (descriptor.cell, descriptor.reset) {
            (CellKind::Rnn | CellKind::Lstm, _) => {
                self.product_gradient(&sum, gate_gradients(0), self.gate_rows(), h_prev, p, out.hidden_hidden)?;
            }
            (CellKind::Gru, GruReset::After) => {
                self.product_gradient(&sum, gate_gradients(1), 3 * h, h_prev, h, out.hidden_hidden)?;
            }
            (CellKind::Gru, GruReset::Before) => {
                self.product_gradient(&sum, gate_gradients(1), 2 * h, h_prev, h, out.hidden_hidden)?;
                let reset_h = self.inner(own.reset_h.of(self.reserve), h);
                let to = self.gradient_at(out.hidden_hidden, 2 * h * h);
                self.product_gradient(&sum, gate_gradients(0), h, reset_h, h, to)?;
            }
        }
        if descriptor.proj_size.is_some() {
            let dh = self.inner(own.dh_step.of(self.reserve), p);
            let u = self.inner(own.u.of(self.reserve), h);
            self.product_gradient(&sum, dh, p, u, h, out.projection)?;
        }
        if descriptor.bias != Bias::None {
            self.bias_gradients(&sum, dgates, &out)?;
        }
        if descriptor.peepholes {
            let rows = self.seq_len() * b;
            let pieces = bias_pieces(rows);
            let params = PeepholeGradientParams {
                dgates,
                cell_state: own.cell_state.of(self.reserve),
                c0: self.state(address(args.c0), layer, direction, h),
                resets: address(args.resets),
                partial,
                seq_len: self.seq_len() as u32,
                batch: b as u32,
                hidden_size: h as u32,
                pieces: pieces as u32,
                reverse: self.is_reverse(direction).into(),
                unused: 0,
            };
            let kernels = self.plan.kernels.backward()?;
            self.run(&kernels.peephole_gradient, &self.reduction(3 * h, pieces), &params)?;
            self.sum_partials(&sum, partial, pieces, 3 * h, out.peephole, 3 * h)?;
        }
        Ok(())
    }

    /// `out (+)= left^T right`, summed over all steps and sequences: `[m, n]`.
    fn product_gradient(
        &self,
        sum: &PartialSums,
        left: Sequences,
        m: usize,
        right: Sequences,
        n: usize,
        out: DevicePtr,
    ) -> Result<()> {
        let rows = self.seq_len() * self.batch();
        let splits = weight_splits(m, n, rows, 1, self.plan.multiprocessors, self.plan.math);
        let kernel = self.plan.kernels.gemm(Orientation::Tn, m)?;
        let terms = [(left.rows(self.batch()), right.rows(self.batch()), rows)];
        let to = if splits > 1 { sum.partial } else { out };
        let mut params = GemmParams {
            lengths: sum.lengths,
            splits: splits as u32,
            accumulate: (sum.grad == WeightGrad::Add).into(),
            // In mixed precision: accumulators are floats, as the gradient is.
            wide: (self.plan.gradient != self.plan.dtype).into(),
            alpha: 1.0,
            ..Zeroable::zeroed()
        };
        params.problem[0] = problem(&terms, Rows::plain(to, n), m, n);
        self.run(kernel.kernel(), &kernel.launch(m, n, 1, splits), &params)?;
        if splits > 1 { self.sum_partials(sum, sum.partial, splits, m * n, out, m * n) } else { Ok(()) }
    }

    fn reduction(&self, columns: usize, pieces: usize) -> Launch {
        column_reduction(columns, pieces, 1, self.plan.dtype)
    }

    /// Both biases get the sums of the gates' gradients; the GRU's `b_hn` that of what `R_n` gets.
    fn bias_gradients(&self, sum: &PartialSums, dgates: DevicePtr, out: &LayerWeights<DevicePtr>) -> Result<()> {
        let descriptor = self.descriptor();
        let kernels = self.plan.kernels.backward()?;
        let (h, slots) = (self.hidden_size(), gradient_slots(descriptor.cell));
        let rows = self.seq_len() * self.batch();
        let pieces = bias_pieces(rows);
        // Reset before has nothing in the last slot.
        let after = descriptor.reset == GruReset::After;
        let columns = if descriptor.cell == CellKind::Gru && !after { 3 * h } else { slots * h };
        let params = BiasGradientParams {
            rows: Rows::plain(dgates, slots * h),
            partial: sum.partial,
            row_count: rows as u32,
            columns: columns as u32,
            pieces: pieces as u32,
            unused: 0,
        };
        self.run(&kernels.bias_gradient, &self.reduction(columns, pieces), &params)?;
        let add = |bias: DevicePtr, slot: usize, row: usize, gates: usize| {
            if bias == DevicePtr::NULL {
                return Ok(());
            }
            let from = sum.partial.offset(slot * h * self.accumulator());
            self.sum_partials(sum, from, pieces, columns, self.gradient_at(bias, row * h), gates * h)
        };
        for (slot, row, gates) in input_slots(descriptor.cell) {
            add(out.input_bias, slot, row, gates)?;
        }
        match descriptor.cell {
            CellKind::Rnn | CellKind::Lstm => add(out.hidden_bias, 0, 0, slots),
            CellKind::Gru if after => add(out.hidden_bias, 1, 0, 3),
            CellKind::Gru => {
                add(out.hidden_bias, 1, 0, 2)?;
                add(out.hidden_bias, 0, 2, 1)
            }
        }
    }

    fn sum_partials(
        &self,
        sum: &PartialSums,
        from: DevicePtr,
        count: usize,
        stride: usize,
        out: DevicePtr,
        len: usize,
    ) -> Result<()> {
        let params = SumPartialsParams {
            partial: from,
            out,
            len: len as u64,
            stride: stride as u64,
            count: count as u32,
            accumulate: (sum.grad == WeightGrad::Add).into(),
            alpha: 1.0,
        };
        self.run(&self.plan.kernels.backward()?.sum_partials, &partial_sums(len), &params)
    }
}

/// What the sums of backward-weights have in common.
struct PartialSums {
    partial: DevicePtr,
    lengths: DevicePtr,
    grad: WeightGrad,
}
