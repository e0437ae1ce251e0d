//! The gradients of inputs and initial states as launches.

use bytemuck::Zeroable;

use super::super::call::{Raw, address};
use super::super::device::{Device, DevicePtr};
use super::super::kernel::gemm::{Orientation, Room};
use super::super::kernel::launch::Kernel;
use super::super::kernel::params::{
    BackwardDirection, BackwardParams, CellOptions, EndedBackwardParams, GemmProblem, HeadProduct, HeldRowsParams,
    PersistentBackwardParams, Phase, Rows, StepBackwardParams,
};
use super::cell::{Run, candidate_run, gradient_slots, has_second_product, input_runs, recurrent_run};
use super::engine::{Engine, PATIENCE, SegmentStates, Sequences, Store, problem};
use super::space::{DirectionScratch, DirectionSpace};
use crate::backend::BackwardDataArgs;
use crate::error::Result;
use crate::rnn::PaddedOutput;

impl<D: Device> Engine<'_, D> {
    /// All layers, from the last to the first.
    pub(super) fn backward_data(&self, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        let descriptor = self.descriptor();
        let features = self.directions() * self.output_size();
        let dropout = self.dropout();
        let mut dy = self.outer(address(args.dy), features);
        for layer in (0..descriptor.num_layers).rev() {
            let params = self.backward_params(layer, dy, args);
            self.backward_loop(&params, layer, args)?;
            if layer == 0 {
                if let Some(dx) = args.dx {
                    self.input_gradient(0, self.outer(dx.address, descriptor.input_size), args)?;
                }
            } else {
                dy = self.inner(self.plan.backward_data.dhidden[(layer - 1) % 2].of(args.workspace.address), features);
                self.input_gradient(layer, dy, args)?;
                if dropout.is_active() {
                    self.drop_out(dy, dy.data, features, layer, &dropout)?;
                }
            }
        }
        Ok(())
    }

    /// Gradient of a layer's input, from those of both directions' gates: `W^T da`.
    fn input_gradient(&self, layer: usize, dx: Sequences, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        let features = self.descriptor().layer_input_size(layer);
        let h = self.hidden_size();
        if let Some(write) = self.plan.kernels.backward()?.write_gate_gradients() {
            let mut params = self.gates_params(dx);
            params.gates = self.plan.layers[layer].direction.map(|own| own.dgates.of(self.reserve));
            let rows = self.seq_len() * self.batch();
            return self.run(write, &self.elementwise(self.gate_rows(), rows, self.directions()), &params);
        }
        let mut terms = Vec::new();
        for direction in 0..self.directions() {
            let dgates = self.plan.layers[layer].direction[direction].dgates.of(self.reserve);
            let weight = self.weights(args.weights.address, layer, direction).input_hidden;
            for Run { slot, gate, gates } in input_runs(self.descriptor().cell) {
                let a = self.gate_gradients(dgates, slot).rows(self.batch());
                terms.push((a, Rows::plain(self.at(weight, gate * h * features), features), gates * h));
            }
        }
        let rows = self.seq_len() * self.batch();
        let dx = problem(&terms, dx.rows(self.batch()), rows, features);
        self.gemm(Orientation::Nn, &[dx], Store::default(), self.plan.backward_data.room(args.workspace.address))
    }

    fn backward_params(&self, layer: usize, dy: Sequences, args: &BackwardDataArgs<'_, Raw>) -> BackwardParams {
        let descriptor = self.descriptor();
        let (h, p) = (self.hidden_size(), self.output_size());
        let layout = self.plan.h_prev;
        let start_c = self.segment.unwrap_or_default().start_c;
        let mut params = BackwardParams {
            lengths: address(args.lengths),
            resets: address(args.resets),
            dy_time_stride: dy.time_stride as u64,
            dy_batch_stride: dy.batch_stride as u64,
            seq_len: self.seq_len() as u32,
            batch: self.batch() as u32,
            hidden_size: h as u32,
            output_size: p as u32,
            directions: self.directions() as u32,
            rows: layout.rows as u32,
            h_prev_stride: layout.stride as u32,
            save: self.saved_gates() as u32,
            hold: (descriptor.padded_output == PaddedOutput::Hold).into(),
            other_states: descriptor.cell.other_states() as u32,
            ..Zeroable::zeroed()
        };
        for direction in 0..self.directions() {
            let weights = self.weights(args.weights.address, layer, direction);
            let own: &DirectionSpace = &self.plan.layers[layer].direction[direction];
            let scratch: &DirectionScratch = &self.plan.backward_data.direction[direction];
            params.direction[direction] = BackwardDirection {
                cell: CellOptions::new(descriptor, direction),
                weight_hh: weights.hidden_hidden,
                peephole: weights.peephole,
                c0: self.state(address(args.c0), layer, direction, self.other_states()),
                start_c,
                gates: own.gates.of(self.reserve),
                cell_state: own.cell_state.of(self.reserve),
                q: own.q.of(self.reserve),
                h_prev: own.h_prev.of(self.reserve),
                dgates: own.dgates.of(self.reserve),
                dy: self.at(dy.data, direction * p),
                dhn: self.state(address(args.dhn), layer, direction, p),
                dcn: self.state(address(args.dcn), layer, direction, self.other_states()),
                dh: scratch.dh.of(args.workspace.address),
                dc: scratch.dc.of(args.workspace.address),
                dh_reset: scratch.dh_reset.of(args.workspace.address),
                dc_reset: scratch.dc_reset.of(args.workspace.address),
                dh_step: own.dh_step.of(self.reserve),
                du: scratch.du.of(args.workspace.address),
                dq: scratch.dq.of(args.workspace.address),
                dh0: self.state(address(args.dh0), layer, direction, p),
                dc0: self.state(address(args.dc0), layer, direction, self.other_states()),
                reverse: self.is_reverse(direction).into(),
                unused: 0,
            };
            if let Some(SegmentStates { dh, dc, dh_reset, dc_reset, .. }) = self.segment {
                let own = &mut params.direction[direction];
                (own.dh, own.dc, own.dh_reset, own.dc_reset) = (dh, dc, dh_reset, dc_reset);
            }
        }
        params
    }

    fn backward_loop(&self, params: &BackwardParams, layer: usize, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        let kernels = self.plan.kernels.backward()?;
        let descriptor = self.descriptor();
        let (b, h, p) = (self.batch(), self.hidden_size(), self.output_size());
        let (outputs, units) = (self.elementwise(p, b, self.directions()), self.elementwise(h, b, self.directions()));
        let begin = self.elementwise(h.max(p), b, self.directions());
        match self.segment {
            Some(segment) => {
                if segment.begins {
                    self.run(&kernels.begin, &begin, params)?;
                }
                if let Some(add_held) = self.add_held {
                    self.add_held(add_held, args, segment.dh)?;
                }
            }
            None => self.run(&kernels.begin, &begin, params)?,
        }
        if let Some(persistent) = self.plan.backward_loop.as_ref().and_then(|chosen| chosen.persistent.as_ref()) {
            let space = &self.plan.backward_data;
            let exchange = space.direction.map(|scratch| scratch.exchange.of(args.workspace.address));
            for exchange in exchange.into_iter().filter(|exchange| *exchange != DevicePtr::NULL) {
                self.fill(exchange, 0xff, space.exchange_bytes)?;
            }
            if params.lengths != DevicePtr::NULL {
                let slots = gradient_slots(descriptor.cell) as u32;
                let params = EndedBackwardParams { layer: *params, slots, tile: persistent.about.tile };
                self.run(&persistent.ended, &self.elementwise(h, b, self.directions()), &params)?;
            }
            let params = PersistentBackwardParams {
                layer: *params,
                exchange,
                fault: self.plan.fault_address,
                tiles: persistent.tiles,
                patience: PATIENCE,
            };
            self.run(&persistent.kernel, &persistent.launch, &params)?;
            return self.finish_backward(params.layer, args);
        }
        let (recurrent, candidate) = (recurrent_run(descriptor), candidate_run(descriptor));
        let room = self.plan.backward_data.room(args.workspace.address);
        for step in (0..self.seq_len()).rev() {
            let phase = |phase: Phase| StepBackwardParams { layer: *params, step: step as u32, phase: phase as u32 };
            if let Some(candidate) = candidate {
                self.run(&kernels.step, &units, &phase(Phase::First))?;
                self.gradient_product(params, candidate, step, room, false, &|own| own.dq)?;
                self.run(&kernels.step, &units, &phase(Phase::Second))?;
            } else if has_second_product(descriptor) {
                self.run(&kernels.step, &outputs, &phase(Phase::First))?;
                let projections: Vec<_> = (0..self.directions())
                    .map(|d| {
                        let own = &params.direction[d];
                        let weight = Rows::plain(self.weights(args.weights.address, layer, d).projection, h);
                        let dh = Rows::plain(self.at(own.dh_step, self.time(d, step) * b * p), p);
                        problem(&[(dh, weight, p)], Rows::plain(own.du, h), b, h)
                    })
                    .collect();
                self.gemm(Orientation::Nn, &projections, Store { wide: true, accumulate: false }, room)?;
                self.run(&kernels.step, &units, &phase(Phase::Second))?;
            } else {
                self.run(&kernels.step, &units, &phase(Phase::Whole))?;
            }
            self.gradient_product(params, recurrent, step, room, true, &|own| own.dh)?;
        }
        self.finish_backward(*params, args)
    }

    /// Adds the gradients of padded outputs to that of the last state.
    fn add_held(
        &self,
        kernel: &Kernel<D, HeldRowsParams>,
        args: &BackwardDataArgs<'_, Raw>,
        dh: DevicePtr,
    ) -> Result<()> {
        let (Some(lengths), Some(dy)) = (args.lengths, args.dy) else { return Ok(()) };
        let params = HeldRowsParams {
            lengths: lengths.address,
            state: dh,
            rows: dy.address,
            steps: self.seq_len() as u32,
            batch: self.batch() as u32,
            columns: self.output_size() as u32,
            unused: 0,
        };
        let launch = self.elementwise(self.output_size(), self.batch(), 1);
        self.run(kernel, &launch, &params)
    }

    /// `out = R^T da` or `+=`, of a step's gradients of the gates of a run, in both directions.
    fn gradient_product(
        &self,
        params: &BackwardParams,
        run: Run,
        step: usize,
        room: Room,
        accumulate: bool,
        out: &dyn Fn(&BackwardDirection) -> DevicePtr,
    ) -> Result<()> {
        let (b, h, p) = (self.batch(), self.hidden_size(), self.output_size());
        let (slots, size) = (gradient_slots(self.descriptor().cell), self.descriptor().head_size());
        let each = params.direction[..self.directions()].iter().enumerate().map(|(d, own)| {
            let gradients = self.at(own.dgates, (self.time(d, step) * b * slots + run.slot) * h);
            (gradients, self.at(own.weight_hh, run.gate * h * size), out(own))
        });
        if let Some(kernel) = self.plan.kernels.backward()?.head_product_transposed() {
            let mut params = self.head_params(run.gates);
            (params.vector_stride, params.out_stride) = ((slots * h) as u32, p as u32);
            params.accumulate = accumulate.into();
            for (direction, (vector, weights, out)) in params.direction.iter_mut().zip(each) {
                *direction = HeadProduct { vector, weights, out };
            }
            return self.run(kernel, &self.head_launch(h), &params);
        }
        let problems: Vec<GemmProblem> = each
            .map(|(gradients, weights, out)| {
                let terms = [(Rows::plain(gradients, slots * h), Rows::plain(weights, size), run.gates * h)];
                problem(&terms, Rows::plain(out, p), b, p)
            })
            .collect();
        self.gemm(Orientation::Nn, &problems, Store { wide: true, accumulate }, room)
    }

    /// Gradients of the initial states, where they are wanted.
    fn finish_backward(&self, params: BackwardParams, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        if args.dh0.is_none() && args.dc0.is_none() {
            return Ok(());
        }
        let columns = self.hidden_size().max(self.output_size());
        let launch = self.elementwise(columns, self.batch(), self.directions());
        self.run(&self.plan.kernels.backward()?.finish, &launch, &params)
    }
}
