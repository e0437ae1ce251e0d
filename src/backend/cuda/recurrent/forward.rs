//! The forward pass, training or not, as launches.

use bytemuck::Zeroable;

use super::super::call::{Raw, address};
use super::super::device::{Device, DevicePtr};
use super::super::kernel::gemm::{Orientation, Room};
use super::super::kernel::params::{
    CellOptions, EndedForwardParams, ForwardDirection, ForwardParams, GemmProblem, HeadProduct,
    PersistentForwardParams, Phase, Rows, StepForwardParams,
};
use super::super::options::Family;
use super::cell::{Run, candidate_run, has_second_product, recurrent_run};
use super::engine::{Engine, PATIENCE, Sequences, Store, problem};
use crate::backend::ForwardArgs;
use crate::error::Result;
use crate::rnn::PaddedOutput;

impl<D: Device> Engine<'_, D> {
    /// All layers.
    pub(super) fn forward(&self, args: &ForwardArgs<'_, Raw>) -> Result<()> {
        let kept = self.kept_in(args.workspace.address);
        let dropout = self.dropout();
        let dropped = self.plan.forward.dropped.of(args.workspace.address);
        for layer in 0..self.descriptor().num_layers {
            let input = self.layer_input(layer, args.x.address, kept, dropped, &dropout)?;
            let in_loop = self.plan.input_in_loop(layer) && args.lengths.is_none() && args.resets.is_none();
            if !in_loop {
                self.input_product(layer, input, args)?;
            }
            let params = self.forward_params(layer, args, kept);
            self.forward_loop(&params, in_loop.then_some(input), layer, args)?;
        }
        Ok(())
    }

    /// Where `W x` of a layer and direction is: in the workspace, or where training keeps the gates.
    fn wx(&self, layer: usize, direction: usize, workspace: DevicePtr) -> DevicePtr {
        match self.plan.forward.direction[direction].wx.of(workspace) {
            DevicePtr::NULL => self.plan.layers[layer].direction[direction].wx.of(self.kept_in(workspace)),
            scratch => scratch,
        }
    }

    /// `W x` of all steps, both directions.
    fn input_product(&self, layer: usize, input: Sequences, args: &ForwardArgs<'_, Raw>) -> Result<()> {
        let (rows, gate_rows) = (self.seq_len() * self.batch(), self.gate_rows());
        if let Some(read) = self.plan.kernels.read_gates() {
            let mut params = self.gates_params(input);
            for direction in 0..self.directions() {
                params.gates[direction] = self.wx(layer, direction, args.workspace.address);
            }
            return self.run(read, &self.elementwise(gate_rows, rows, self.directions()), &params);
        }
        let features = self.descriptor().layer_input_size(layer);
        let problems: Vec<_> = (0..self.directions())
            .map(|direction| {
                let wx = self.wx(layer, direction, args.workspace.address);
                let weight = Rows::plain(self.weights(args.weights.address, layer, direction).input_hidden, features);
                let terms = [(input.rows(self.batch()), weight, features)];
                problem(&terms, Rows::plain(wx, gate_rows), rows, gate_rows)
            })
            .collect();
        let room = self.plan.forward.room(args.workspace.address);
        self.gemm(Orientation::Nt, &problems, Store { wide: true, accumulate: false }, room)
    }

    fn forward_params(&self, layer: usize, args: &ForwardArgs<'_, Raw>, kept: DevicePtr) -> ForwardParams {
        let descriptor = self.descriptor();
        let (h, p, features) = (self.hidden_size(), self.output_size(), self.directions() * self.output_size());
        let space = &self.plan.layers[layer];
        let last = layer + 1 == descriptor.num_layers;
        let y = if last { self.outer(args.y.address, features) } else { self.inner(space.hidden.of(kept), features) };
        let layout = self.plan.h_prev;
        let start = self.segment.unwrap_or_default();
        let mut params = ForwardParams {
            lengths: address(args.lengths),
            resets: address(args.resets),
            y_time_stride: y.time_stride as u64,
            y_batch_stride: y.batch_stride as u64,
            seq_len: self.seq_len() as u32,
            batch: self.batch() as u32,
            hidden_size: h as u32,
            output_size: p as u32,
            directions: self.directions() as u32,
            slots: layout.slots as u32,
            rows: layout.rows as u32,
            h_prev_stride: layout.stride as u32,
            save: self.saved_gates() as u32,
            hold: (descriptor.padded_output == PaddedOutput::Hold).into(),
            ..Zeroable::zeroed()
        };
        for direction in 0..self.directions() {
            let weights = self.weights(args.weights.address, layer, direction);
            let (own, scratch) = (&space.direction[direction], &self.plan.forward.direction[direction]);
            params.direction[direction] = ForwardDirection {
                cell: CellOptions::new(descriptor, direction),
                weight_hh: weights.hidden_hidden,
                bias_ih: weights.input_bias,
                bias_hh: weights.hidden_bias,
                peephole: weights.peephole,
                h0: self.state(address(args.h0), layer, direction, p),
                c0: self.state(address(args.c0), layer, direction, self.other_states()),
                start_h: start.start_h,
                start_c: start.start_c,
                wx: self.wx(layer, direction, args.workspace.address),
                gates: own.gates.of(kept),
                recurrent: scratch.recurrent.of(args.workspace.address),
                projected: scratch.projected.of(args.workspace.address),
                h_prev: own.h_prev.of(kept),
                cell_state: own.cell_state.of(kept),
                q: own.q.of(kept),
                reset_h: own.reset_h.of(kept),
                u: own.u.of(kept),
                y: self.at(y.data, direction * p),
                hn: self.state(address(args.hn), layer, direction, p),
                cn: self.state(address(args.cn), layer, direction, self.other_states()),
                reverse: self.is_reverse(direction).into(),
                unused: 0,
            };
        }
        params
    }

    /// Address of what time `t` starts from.
    fn h_prev(&self, base: DevicePtr, t: usize) -> DevicePtr {
        let layout = self.plan.h_prev;
        self.at(base, (t % layout.slots) * layout.rows * layout.stride)
    }

    /// Address of time `t` in a tensor of elements `[T, B, width]` that inference keeps one step of.
    fn kept_step(&self, base: DevicePtr, t: usize, width: usize) -> DevicePtr {
        self.at(base, if self.training() { t * self.batch() * width } else { 0 })
    }

    /// All steps. `input`: of one number, where the kernel computes `W x` itself.
    fn forward_loop(
        &self,
        params: &ForwardParams,
        input: Option<Sequences>,
        layer: usize,
        args: &ForwardArgs<'_, Raw>,
    ) -> Result<()> {
        let kernels = &self.plan.kernels;
        let (b, h, p) = (self.batch(), self.hidden_size(), self.output_size());
        let layout = self.plan.h_prev;
        let begin = self.elementwise(layout.stride, layout.rows, self.directions());
        if self.plan.forward_loop.family == Family::Grid {
            // What is not there yet must not look like a state: blocks wait until it does.
            let bytes = layout.slots * layout.rows * layout.stride * self.element();
            for own in &params.direction[..self.directions()] {
                self.fill(own.h_prev, 0xff, bytes)?;
            }
        }
        self.run(&kernels.begin_forward, &begin, params)?;
        if let Some(persistent) = &self.plan.forward_loop.persistent {
            let x = input.unwrap_or(Sequences { data: DevicePtr::NULL, time_stride: 0, batch_stride: 0 });
            let weight_ih = |direction: usize| match input {
                Some(_) if direction < self.directions() => {
                    self.weights(args.weights.address, layer, direction).input_hidden
                }
                _ => DevicePtr::NULL,
            };
            let all_steps = PersistentForwardParams {
                layer: *params,
                weight_ih: [weight_ih(0), weight_ih(1)],
                x: x.data,
                x_time_stride: x.time_stride as u64,
                x_batch_stride: x.batch_stride as u64,
                fault: self.plan.fault_address,
                tiles: persistent.tiles,
                patience: PATIENCE,
            };
            // What the time loop leaves out: a reverse direction begins with what this leaves, a forward one ends before it.
            let ended = |reverse: bool| {
                let any = (0..self.directions()).any(|direction| self.is_reverse(direction) == reverse);
                if params.lengths == DevicePtr::NULL || !any {
                    return Ok(());
                }
                let params =
                    EndedForwardParams { layer: *params, reverse: reverse.into(), tile: persistent.about.tile };
                self.run(&persistent.ended, &self.elementwise(layout.stride, b, self.directions()), &params)
            };
            ended(true)?;
            self.run(&persistent.kernel, &persistent.launch, &all_steps)?;
            return ended(false);
        }
        let units = self.elementwise(h, b, self.directions());
        let room = self.plan.forward.room(args.workspace.address);
        let (recurrent, candidate) = (recurrent_run(self.descriptor()), candidate_run(self.descriptor()));
        for step in 0..self.seq_len() {
            self.state_product(params, recurrent, step, room, &|own, t| (self.h_prev(own.h_prev, t), layout.stride))?;
            let phase = |phase: Phase| StepForwardParams { layer: *params, step: step as u32, phase: phase as u32 };
            if !has_second_product(self.descriptor()) {
                self.run(&kernels.step_forward, &units, &phase(Phase::Whole))?;
                continue;
            }
            self.run(&kernels.step_forward, &units, &phase(Phase::First))?;
            if let Some(candidate) = candidate {
                self.state_product(params, candidate, step, room, &|own, t| (self.kept_step(own.reset_h, t, h), h))?;
                self.run(&kernels.step_forward, &units, &phase(Phase::Second))?;
                continue;
            }
            let projections: Vec<_> = (0..self.directions())
                .map(|d| {
                    let own = &params.direction[d];
                    let weight = Rows::plain(self.weights(args.weights.address, layer, d).projection, h);
                    let u = Rows::plain(self.kept_step(own.u, self.time(d, step), h), h);
                    problem(&[(u, weight, h)], Rows::plain(own.projected, p), b, p)
                })
                .collect();
            self.gemm(Orientation::Nt, &projections, Store { wide: true, accumulate: false }, room)?;
            let outputs = self.elementwise(p, b, self.directions());
            self.run(&kernels.step_forward, &outputs, &phase(Phase::Second))?;
        }
        Ok(())
    }

    /// `recurrent = R v` of a step, for the gates of a run in both directions; `vector` is the address of v and the distance of its rows.
    fn state_product(
        &self,
        params: &ForwardParams,
        run: Run,
        step: usize,
        room: Room,
        vector: &dyn Fn(&ForwardDirection, usize) -> (DevicePtr, usize),
    ) -> Result<()> {
        let (b, h, gate_rows) = (self.batch(), self.hidden_size(), self.gate_rows());
        let size = self.descriptor().head_size();
        let each = params.direction[..self.directions()].iter().enumerate().map(|(d, own)| {
            let (vector, stride) = vector(own, self.time(d, step));
            let weights = self.at(own.weight_hh, run.gate * h * size);
            let out = own.recurrent.offset(run.gate * h * self.accumulator());
            (vector, stride, weights, out)
        });
        if let Some(kernel) = self.plan.kernels.head_product() {
            let mut params = self.head_params(run.gates);
            params.out_stride = gate_rows as u32;
            for (direction, (vector, stride, weights, out)) in params.direction.iter_mut().zip(each) {
                params.vector_stride = stride as u32;
                *direction = HeadProduct { vector, weights, out };
            }
            return self.run(kernel, &self.head_launch(run.gates * h), &params);
        }
        let problems: Vec<GemmProblem> = each
            .map(|(vector, stride, weights, out)| {
                let terms = [(Rows::plain(vector, stride), Rows::plain(weights, size), size)];
                problem(&terms, Rows::plain(out, gate_rows), b, run.gates * h)
            })
            .collect();
        self.gemm(Orientation::Nt, &problems, Store { wide: true, accumulate: false }, room)
    }
}
