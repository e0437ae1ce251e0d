//! The gradients of the weights as launches.

use super::super::call::{Raw, address};
use super::super::device::{Device, DevicePtr, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::gemm::{Orientation, Room};
use super::super::kernel::launch::{bias_pieces, column_reduction, head_pieces, partial_sums};
use super::super::kernel::params::{
    BiasGradientParams, GemmParams, HeadWeightsParams, PeepholeGradientParams, Rows, SumPartialsParams,
};
use super::cell::{Run, candidate_run, gradient_slots, input_runs, recurrent_run, used_slots};
use super::engine::{Engine, Sequences, problem, products};
use super::space::Workspace;
use crate::backend::{BackwardWeightsArgs, WeightGrad};
use crate::error::Result;
use crate::rnn::{Bias, CandidateTerm, InputKind, LayerWeights};

impl<D: Device> Engine<'_, D> {
    /// All layers.
    pub(super) fn backward_weights(&self, args: &BackwardWeightsArgs<'_, Raw>, grad: WeightGrad) -> Result<()> {
        let space: &Workspace = &self.plan.backward_weights;
        let (dropped, room) = (space.dropped.of(args.workspace.address), space.room(args.workspace.address));
        let dropout = self.dropout();
        for layer in 0..self.descriptor().num_layers {
            let input = self.layer_input(layer, args.x.address, self.reserve, dropped, &dropout)?;
            for direction in 0..self.directions() {
                self.layer_weight_gradients(layer, direction, input, args, room, grad)?;
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
        room: Room,
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
        let sum = PartialSums { room, lengths: address(args.lengths), grad };
        if descriptor.input == InputKind::Features {
            for Run { slot, gate, gates } in input_runs(descriptor.cell) {
                let to = self.gradient_at(out.input_hidden, gate * h * features);
                self.product_gradient(&sum, self.gate_gradients(dgates, slot), gates * h, input, features, to)?;
            }
        }
        let reset_h = self.inner(own.reset_h.of(self.reserve), h);
        for (run, vector) in [(Some(recurrent_run(descriptor)), h_prev), (candidate_run(descriptor), reset_h)] {
            let Some(Run { slot, gate, gates }) = run else { continue };
            let size = descriptor.head_size();
            let to = self.gradient_at(out.hidden_hidden, gate * h * size);
            let gradients = self.gate_gradients(dgates, slot);
            if descriptor.heads > 1 {
                self.head_gradient(&sum, gradients, gates, vector, to)?;
            } else {
                self.product_gradient(&sum, gradients, gates * h, vector, size, to)?;
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
                c0: self.state(address(args.c0), layer, direction, self.other_states()),
                start_c: self.segment.unwrap_or_default().start_c,
                resets: address(args.resets),
                partial: room.address,
                seq_len: self.seq_len() as u32,
                batch: b as u32,
                hidden_size: h as u32,
                pieces: pieces as u32,
                reverse: self.is_reverse(direction).into(),
                unused: 0,
            };
            let kernels = self.plan.kernels.backward()?;
            self.run(&kernels.peephole_gradient, &self.reduction(3 * h, pieces), &params)?;
            self.sum_partials(&sum, room.address, pieces, 3 * h, out.peephole, 3 * h)?;
        }
        Ok(())
    }

    /// The same of recurrent weights in heads: `[gates, heads, size, size]`.
    fn head_gradient(
        &self,
        sum: &PartialSums,
        gradients: Sequences,
        gates: usize,
        vector: Sequences,
        out: DevicePtr,
    ) -> Result<()> {
        let Some(kernel) = self.plan.kernels.backward()?.head_weights() else { return Ok(()) };
        let (h, size, rows) = (self.hidden_size(), self.descriptor().head_size(), self.seq_len() * self.batch());
        let elements = gates * h * size;
        let pieces = head_pieces(elements, rows, self.plan.multiprocessors);
        let params = HeadWeightsParams {
            gradients: gradients.rows(self.batch()),
            vector: vector.rows(self.batch()),
            partial: sum.room.address,
            lengths: sum.lengths,
            rows: rows as u32,
            batch: self.batch() as u32,
            hidden_size: h as u32,
            head_size: size as u32,
            gates: gates as u32,
            pieces: pieces as u32,
        };
        let blocks = elements.div_ceil(ELEMENTWISE_THREADS as usize) as u32;
        self.run(kernel, &Launch::new([blocks, pieces as u32, 1], ELEMENTWISE_THREADS), &params)?;
        self.sum_partials(sum, sum.room.address, pieces, elements, out, elements)
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
        let terms = [(left.rows(self.batch()), right.rows(self.batch()), rows)];
        let params = GemmParams {
            lengths: sum.lengths,
            accumulate: (sum.grad == WeightGrad::Add).into(),
            // In mixed precision: accumulators are floats, as the gradient is.
            wide: (self.plan.gradient != self.plan.dtype).into(),
            ..products(&[problem(&terms, Rows::plain(out, n), m, n)])
        };
        self.plan.kernels.gemm(Orientation::Tn)?.launch(self.device, self.stream, &params, sum.room)
    }

    fn reduction(&self, columns: usize, pieces: usize) -> Launch {
        column_reduction(columns, pieces, 1, self.plan.dtype)
    }

    /// Both biases get the sums of the gates' gradients; where the candidate's product is apart, its `b_hh` that of what the product gets.
    fn bias_gradients(&self, sum: &PartialSums, dgates: DevicePtr, out: &LayerWeights<DevicePtr>) -> Result<()> {
        let descriptor = self.descriptor();
        let kernels = self.plan.kernels.backward()?;
        let (h, slots) = (self.hidden_size(), gradient_slots(descriptor.cell));
        let rows = self.seq_len() * self.batch();
        let pieces = bias_pieces(rows);
        let columns = used_slots(descriptor) * h;
        let params = BiasGradientParams {
            rows: Rows::plain(dgates, slots * h),
            partial: sum.room.address,
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
            let from = sum.room.address.offset(slot * h * self.accumulator());
            self.sum_partials(sum, from, pieces, columns, self.gradient_at(bias, row * h), gates * h)
        };
        for Run { slot, gate, gates } in input_runs(descriptor.cell) {
            add(out.input_bias, slot, gate, gates)?;
        }
        if descriptor.candidate() == CandidateTerm::Apart {
            let Run { slot, gate, gates } = recurrent_run(descriptor);
            return add(out.hidden_bias, slot, gate, gates);
        }
        input_runs(descriptor.cell).try_for_each(|Run { slot, gate, gates }| add(out.hidden_bias, slot, gate, gates))
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
    room: Room,
    lengths: DevicePtr,
    grad: WeightGrad,
}
