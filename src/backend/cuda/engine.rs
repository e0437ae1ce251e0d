//! A pass as launches: forward, backward-data and backward-weights of all layers, on raw device memory.
//!
//! Nothing here allocates, waits or loads: it fills parameter structs and gives kernels to a stream.
#![allow(unsafe_code)]

use bytemuck::Zeroable;

use super::call::{Raw, address};
use super::catalog::ELEMENTWISE_THREADS;
use super::device::{Device, DevicePtr, Launch};
use super::gemm::weight_splits;
use super::launch::{Kernel, Params, bias_pieces, column_reduction, partial_sums};
use super::mixed;
use super::params::{
    BackwardDirection, BackwardParams, BiasGradientParams, CellOptions, DropoutParams, ForwardDirection, ForwardParams,
    GemmParams, GemmProblem, GemmTerm, PeepholeGradientParams, PersistentBackwardParams, PersistentForwardParams,
    Phase, Rows, SavedGates, StepBackwardParams, StepForwardParams, SumPartialsParams,
};
use super::plan::{CudaPlan, gradient_slots, has_second_product};
use super::space::{DirectionScratch, DirectionSpace, Workspace};
use super::walk::Family;
use crate::backend::ops::Orientation;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, WeightGrad};
use crate::cell::CellKind;
use crate::error::Result;
use crate::rnn::{Bias, Dropout, GruReset, LayerWeights, Layout, PaddedOutput, RnnDescriptor};

/// How often a persistent kernel looks for what another block owes it before it gives up: seconds, where microseconds are usual.
const MOST_POLLS: u32 = 4_000_000;

/// A plan about to run on a stream.
pub(crate) struct Engine<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) stream: &'a D::Stream,
    pub(crate) plan: &'a CudaPlan<D>,
    /// Where training keeps what backward needs; null in inference.
    pub(crate) reserve: DevicePtr,
    /// Of the masks that forward draws or drew.
    pub(crate) dropout_seed: u64,
}

/// A tensor `[T, B, features]` somewhere.
#[derive(Clone, Copy)]
struct Sequences {
    data: DevicePtr,
    time_stride: usize,
    batch_stride: usize,
}

impl Sequences {
    fn rows(self, batch: usize) -> Rows {
        Rows::sequences(self.data, self.time_stride, self.batch_stride, batch)
    }
}

/// One term of a product: `a`, `b`, and how many numbers are summed.
type Term = (Rows, Rows, usize);

fn problem(terms: &[Term], c: Rows, m: usize, n: usize) -> GemmProblem {
    let mut problem = GemmProblem { c, terms: terms.len() as u32, m: m as u32, n: n as u32, ..Zeroable::zeroed() };
    for (slot, (a, b, k)) in problem.term.iter_mut().zip(terms) {
        *slot = GemmTerm { a: *a, b: *b, k: *k as u32, unused: 0 };
    }
    problem
}

/// How a product is stored.
#[derive(Clone, Copy, Default)]
struct Store {
    /// `c +=` instead of `c =`.
    accumulate: bool,
    /// Accumulators instead of elements.
    wide: bool,
}

impl<D: Device> Engine<'_, D> {
    fn descriptor(&self) -> &RnnDescriptor {
        &self.plan.host.descriptor
    }

    fn seq_len(&self) -> usize {
        self.plan.host.shape.seq_len
    }

    fn batch(&self) -> usize {
        self.plan.host.shape.batch
    }

    fn hidden_size(&self) -> usize {
        self.descriptor().hidden_size
    }

    fn output_size(&self) -> usize {
        self.descriptor().output_size()
    }

    fn directions(&self) -> usize {
        self.descriptor().num_directions()
    }

    /// `G * H`
    fn gate_rows(&self) -> usize {
        self.descriptor().cell.gates() * self.hidden_size()
    }

    /// Bytes of an element.
    fn element(&self) -> usize {
        self.plan.dtype.size()
    }

    fn training(&self) -> bool {
        self.plan.host.mode == ForwardMode::Training
    }

    /// Address of element `index` of a tensor of elements.
    fn at(&self, tensor: DevicePtr, index: usize) -> DevicePtr {
        tensor.offset(index * self.element())
    }

    /// Address of element `index` of a gradient of weights.
    fn gradient_at(&self, tensor: DevicePtr, index: usize) -> DevicePtr {
        tensor.offset(index * self.plan.gradient.size())
    }

    pub(super) fn run<P: Params>(&self, kernel: &Kernel<D, P>, launch: &Launch, params: &P) -> Result<()> {
        kernel.launch(self.device, self.stream, launch, params)
    }

    fn fill(&self, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        // SAFETY: `to` is a place of that size in workspace or reserve, which are as large as the plan says.
        unsafe { self.device.fill(self.stream, to, value, bytes) }
    }

    /// Geometry of an elementwise kernel: a thread for each column, blocks along y for rows.
    fn elementwise(&self, columns: usize, rows: usize, z: usize) -> Launch {
        let x = columns.div_ceil(ELEMENTWISE_THREADS as usize) as u32;
        Launch::new([x, rows.min(65_535) as u32, z as u32], ELEMENTWISE_THREADS)
    }

    fn gemm(&self, orientation: Orientation, problems: &[GemmProblem], store: Store) -> Result<()> {
        let (m, n) = problems.iter().fold((0, 0), |(m, n), p| (m.max(p.m), n.max(p.n)));
        let kernel = self.plan.kernels.gemm(orientation, m as usize)?;
        let mut params = GemmParams {
            splits: 1,
            accumulate: store.accumulate.into(),
            wide: store.wide.into(),
            alpha: 1.0,
            ..Zeroable::zeroed()
        };
        params.problem[..problems.len()].copy_from_slice(problems);
        self.run(kernel.kernel(), &kernel.launch(m as usize, n as usize, problems.len(), 1), &params)
    }

    fn weights(&self, base: DevicePtr, layer: usize, direction: usize) -> LayerWeights<DevicePtr> {
        self.weights_of(base, layer, direction, self.element())
    }

    /// The same for elements of `size` bytes.
    fn weights_of(&self, base: DevicePtr, layer: usize, direction: usize, size: usize) -> LayerWeights<DevicePtr> {
        let offsets = self.plan.host.weights.offsets(layer, direction);
        let at = |offset: Option<usize>| offset.map_or(DevicePtr::NULL, |offset| base.offset(offset * size));
        LayerWeights {
            input_hidden: at(offsets.input_hidden),
            hidden_hidden: at(offsets.hidden_hidden),
            input_bias: at(offsets.input_bias),
            hidden_bias: at(offsets.hidden_bias),
            projection: at(offsets.projection),
            peephole: at(offsets.peephole),
        }
    }

    /// A tensor `[T, B, features]` of the caller's.
    fn outer(&self, data: DevicePtr, features: usize) -> Sequences {
        let (time, batch) = match self.descriptor().layout {
            Layout::SequenceMajor => (self.batch(), 1),
            Layout::BatchMajor => (1, self.seq_len()),
        };
        Sequences { data, time_stride: time * features, batch_stride: batch * features }
    }

    /// A tensor `[T, B, features]` in workspace or reserve.
    fn inner(&self, data: DevicePtr, features: usize) -> Sequences {
        Sequences { data, time_stride: self.batch() * features, batch_stride: features }
    }

    /// Rows of a state tensor that belong to a layer and direction: `[L*D, B, width]`.
    fn state(&self, tensor: DevicePtr, layer: usize, direction: usize, width: usize) -> DevicePtr {
        self.at(tensor, (layer * self.directions() + direction) * self.batch() * width)
    }

    /// Where layers keep their tensors.
    pub(super) fn kept_in(&self, workspace: DevicePtr) -> DevicePtr {
        if self.training() { self.reserve } else { workspace }
    }

    fn is_reverse(&self, direction: usize) -> bool {
        self.descriptor().direction.is_reverse(direction)
    }

    /// Time of a step.
    fn time(&self, direction: usize, step: usize) -> usize {
        if self.is_reverse(direction) { self.seq_len() - 1 - step } else { step }
    }

    fn saved_gates(&self) -> SavedGates {
        if self.training() { SavedGates::of_training(self.descriptor()) } else { SavedGates::Nothing }
    }

    fn drop_out(&self, from: Sequences, to: DevicePtr, features: usize, layer: usize, dropout: &Dropout) -> Result<()> {
        let rows = self.seq_len() * self.batch();
        let params = DropoutParams {
            x: from.rows(self.batch()),
            out: to,
            seed: dropout.seed(),
            threshold: dropout.threshold(),
            scale: dropout.scale(),
            rows: rows as u32,
            batch: self.batch() as u32,
            features: features as u32,
            layer: layer as u32,
        };
        self.run(&self.plan.kernels.dropout, &self.elementwise(features.div_ceil(4), rows, 1), &params)
    }

    /// The input of a layer as its products read it.
    fn layer_input(
        &self,
        layer: usize,
        x: DevicePtr,
        kept: DevicePtr,
        dropped: DevicePtr,
        dropout: &Dropout,
    ) -> Result<Sequences> {
        let features = self.descriptor().layer_input_size(layer);
        if layer == 0 {
            return Ok(self.outer(x, features));
        }
        let hidden = self.inner(self.plan.layers[layer - 1].hidden.of(kept), features);
        if !dropout.is_active() {
            return Ok(hidden);
        }
        self.drop_out(hidden, dropped, features, layer, dropout)?;
        Ok(self.inner(dropped, features))
    }

    /// No dropout in inference.
    fn dropout(&self) -> Dropout {
        Dropout::new(if self.training() { self.descriptor().dropout } else { 0.0 }, self.dropout_seed)
    }

    // Forward.

    /// All layers.
    pub(crate) fn forward(&self, args: &ForwardArgs<'_, Raw>) -> Result<()> {
        match &self.plan.mixed {
            Some(mixed) => mixed::forward(self, mixed, args),
            None => self.forward_elements(args),
        }
    }

    /// The same on tensors of the type that kernels compute on.
    pub(super) fn forward_elements(&self, args: &ForwardArgs<'_, Raw>) -> Result<()> {
        let kept = self.kept_in(args.workspace.address);
        let dropout = self.dropout();
        let dropped = self.plan.forward.dropped.of(args.workspace.address);
        for layer in 0..self.descriptor().num_layers {
            let input = self.layer_input(layer, args.x.address, kept, dropped, &dropout)?;
            self.input_product(layer, input, args.weights.address, kept)?;
            self.walk_forward(&self.forward_params(layer, args, kept), layer, args)?;
        }
        Ok(())
    }

    /// `gates = W x` of all steps, both directions.
    fn input_product(&self, layer: usize, input: Sequences, weights: DevicePtr, kept: DevicePtr) -> Result<()> {
        let (rows, gate_rows) = (self.seq_len() * self.batch(), self.gate_rows());
        let features = self.descriptor().layer_input_size(layer);
        let problems: Vec<_> = (0..self.directions())
            .map(|direction| {
                let gates = self.plan.layers[layer].direction[direction].gates.of(kept);
                let weight = Rows::plain(self.weights(weights, layer, direction).input_hidden, features);
                let terms = [(input.rows(self.batch()), weight, features)];
                problem(&terms, Rows::plain(gates, gate_rows), rows, gate_rows)
            })
            .collect();
        self.gemm(Orientation::Nt, &problems, Store { wide: true, accumulate: false })
    }

    fn forward_params(&self, layer: usize, args: &ForwardArgs<'_, Raw>, kept: DevicePtr) -> ForwardParams {
        let descriptor = self.descriptor();
        let (h, p, features) = (self.hidden_size(), self.output_size(), self.directions() * self.output_size());
        let space = &self.plan.layers[layer];
        let last = layer + 1 == descriptor.num_layers;
        let y = if last { self.outer(args.y.address, features) } else { self.inner(space.hidden.of(kept), features) };
        let layout = self.plan.h_prev;
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
                c0: self.state(address(args.c0), layer, direction, h),
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
                cn: self.state(address(args.cn), layer, direction, h),
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

    fn walk_forward(&self, params: &ForwardParams, layer: usize, args: &ForwardArgs<'_, Raw>) -> Result<()> {
        let kernels = &self.plan.kernels;
        let (b, h, p, gate_rows) = (self.batch(), self.hidden_size(), self.output_size(), self.gate_rows());
        let layout = self.plan.h_prev;
        let begin = self.elementwise(layout.stride, layout.rows, self.directions());
        if self.plan.forward_walk.family == Family::Grid {
            // What is not there yet must not look like a state: blocks wait until it does.
            let bytes = layout.slots * layout.rows * layout.stride * self.element();
            for own in &params.direction[..self.directions()] {
                self.fill(own.h_prev, 0xff, bytes)?;
            }
        }
        self.run(&kernels.begin_forward, &begin, params)?;
        if let Some(persistent) = &self.plan.forward_walk.persistent {
            let params = PersistentForwardParams {
                layer: *params,
                status: self.plan.status_pointer,
                tiles: persistent.tiles,
                polls: MOST_POLLS,
            };
            return self.run(&Kernel::loaded(persistent.kernel.clone()), &persistent.launch, &params);
        }
        let before = self.descriptor().cell == CellKind::Gru && self.descriptor().reset == GruReset::Before;
        // Rows of R whose product the first phase needs.
        let first_rows = if before { 2 * h } else { gate_rows };
        let units = self.elementwise(h, b, self.directions());
        for step in 0..self.seq_len() {
            let each = |build: &dyn Fn(usize, &ForwardDirection, usize) -> GemmProblem| -> Vec<GemmProblem> {
                (0..self.directions()).map(|d| build(d, &params.direction[d], self.time(d, step))).collect()
            };
            let wide = Store { wide: true, accumulate: false };
            let recurrent = each(&|_, own, t| {
                let state = Rows::plain(self.h_prev(own.h_prev, t), layout.stride);
                problem(
                    &[(state, Rows::plain(own.weight_hh, p), p)],
                    Rows::plain(own.recurrent, gate_rows),
                    b,
                    first_rows,
                )
            });
            self.gemm(Orientation::Nt, &recurrent, wide)?;
            let phase = |phase: Phase| StepForwardParams { layer: *params, step: step as u32, phase: phase as u32 };
            if !has_second_product(self.descriptor()) {
                self.run(&kernels.step_forward, &units, &phase(Phase::Whole))?;
                continue;
            }
            self.run(&kernels.step_forward, &units, &phase(Phase::First))?;
            let second = each(&|d, own, t| {
                if before {
                    let state = Rows::plain(self.kept_step(own.reset_h, t, h), h);
                    let rows = Rows::plain(self.at(own.weight_hh, 2 * h * h), h);
                    let out = Rows::plain(own.recurrent.offset(2 * h * self.accumulator()), gate_rows);
                    problem(&[(state, rows, h)], out, b, h)
                } else {
                    let weight = Rows::plain(self.weights(args.weights.address, layer, d).projection, h);
                    let u = Rows::plain(self.kept_step(own.u, t, h), h);
                    problem(&[(u, weight, h)], Rows::plain(own.projected, p), b, p)
                }
            });
            self.gemm(Orientation::Nt, &second, wide)?;
            let columns = if before { units } else { self.elementwise(p, b, self.directions()) };
            self.run(&kernels.step_forward, &columns, &phase(Phase::Second))?;
        }
        Ok(())
    }

    /// Bytes of an accumulator.
    fn accumulator(&self) -> usize {
        self.element().max(4)
    }

    // Backward-data.

    /// All layers, from the last to the first.
    pub(crate) fn backward_data(&self, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        match &self.plan.mixed {
            Some(mixed) => mixed::backward_data(self, mixed, args),
            None => self.backward_data_elements(args),
        }
    }

    /// The same on tensors of the type that kernels compute on.
    pub(super) fn backward_data_elements(&self, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        let descriptor = self.descriptor();
        let features = self.directions() * self.output_size();
        let dropout = self.dropout();
        let mut dy = self.outer(address(args.dy), features);
        for layer in (0..descriptor.num_layers).rev() {
            let params = self.backward_params(layer, dy, args);
            self.walk_backward(&params, layer, args)?;
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
        let mut terms = Vec::new();
        for direction in 0..self.directions() {
            let dgates = self.plan.layers[layer].direction[direction].dgates.of(self.reserve);
            let weight = self.weights(args.weights.address, layer, direction).input_hidden;
            for (slot, row, gates) in input_slots(self.descriptor().cell) {
                let a = self.gate_gradients(dgates, slot).rows(self.batch());
                terms.push((a, Rows::plain(self.at(weight, row * h * features), features), gates * h));
            }
        }
        let rows = self.seq_len() * self.batch();
        self.gemm(Orientation::Nn, &[problem(&terms, dx.rows(self.batch()), rows, features)], Store::default())
    }

    /// Gates' gradients from slot `slot` on.
    fn gate_gradients(&self, dgates: DevicePtr, slot: usize) -> Sequences {
        let h = self.hidden_size();
        self.inner(self.at(dgates, slot * h), gradient_slots(self.descriptor().cell) * h)
    }

    fn backward_params(&self, layer: usize, dy: Sequences, args: &BackwardDataArgs<'_, Raw>) -> BackwardParams {
        let descriptor = self.descriptor();
        let (h, p) = (self.hidden_size(), self.output_size());
        let layout = self.plan.h_prev;
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
                c0: self.state(address(args.c0), layer, direction, h),
                gates: own.gates.of(self.reserve),
                cell_state: own.cell_state.of(self.reserve),
                q: own.q.of(self.reserve),
                h_prev: own.h_prev.of(self.reserve),
                dgates: own.dgates.of(self.reserve),
                dy: self.at(dy.data, direction * p),
                dhn: self.state(address(args.dhn), layer, direction, p),
                dcn: self.state(address(args.dcn), layer, direction, h),
                dh: scratch.dh.of(args.workspace.address),
                dc: scratch.dc.of(args.workspace.address),
                dh_reset: scratch.dh_reset.of(args.workspace.address),
                dc_reset: scratch.dc_reset.of(args.workspace.address),
                dh_step: own.dh_step.of(self.reserve),
                du: scratch.du.of(args.workspace.address),
                dq: scratch.dq.of(args.workspace.address),
                dh0: self.state(address(args.dh0), layer, direction, p),
                dc0: self.state(address(args.dc0), layer, direction, h),
                reverse: self.is_reverse(direction).into(),
                unused: 0,
            };
        }
        params
    }

    fn walk_backward(&self, params: &BackwardParams, layer: usize, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
        let kernels = self.plan.kernels.backward()?;
        let descriptor = self.descriptor();
        let (b, h, p) = (self.batch(), self.hidden_size(), self.output_size());
        let slots = gradient_slots(descriptor.cell);
        let before = descriptor.cell == CellKind::Gru && descriptor.reset == GruReset::Before;
        let (outputs, units) = (self.elementwise(p, b, self.directions()), self.elementwise(h, b, self.directions()));
        self.run(&kernels.begin, &self.elementwise(h.max(p), b, self.directions()), params)?;
        if let Some(persistent) = self.plan.backward_walk.as_ref().and_then(|walk| walk.persistent.as_ref()) {
            let space = &self.plan.backward_data;
            let exchange = space.direction.map(|scratch| scratch.exchange.of(args.workspace.address));
            for exchange in exchange.into_iter().filter(|exchange| *exchange != DevicePtr::NULL) {
                self.fill(exchange, 0xff, space.exchange_bytes)?;
            }
            let params = PersistentBackwardParams {
                layer: *params,
                exchange,
                status: self.plan.status_pointer,
                tiles: persistent.tiles,
                polls: MOST_POLLS,
            };
            self.run(&Kernel::loaded(persistent.kernel.clone()), &persistent.launch, &params)?;
            return self.finish_backward(params.layer, args);
        }
        for step in (0..self.seq_len()).rev() {
            let each = |build: &dyn Fn(usize, &BackwardDirection, usize) -> GemmProblem| -> Vec<GemmProblem> {
                (0..self.directions()).map(|d| build(d, &params.direction[d], self.time(d, step))).collect()
            };
            // Gates' gradients of this step from slot `slot` on.
            let step_gradients = |own: &BackwardDirection, t: usize, slot: usize| {
                Rows::plain(self.at(own.dgates, (t * b * slots + slot) * h), slots * h)
            };
            let phase = |phase: Phase| StepBackwardParams { layer: *params, step: step as u32, phase: phase as u32 };
            if has_second_product(descriptor) {
                self.run(&kernels.step, if before { &units } else { &outputs }, &phase(Phase::First))?;
                let second = each(&|d, own, t| {
                    if before {
                        let rows = Rows::plain(self.at(own.weight_hh, 2 * h * h), h);
                        problem(&[(step_gradients(own, t, 0), rows, h)], Rows::plain(own.dq, h), b, h)
                    } else {
                        let weight = Rows::plain(self.weights(args.weights.address, layer, d).projection, h);
                        let dh = Rows::plain(self.at(own.dh_step, t * b * p), p);
                        problem(&[(dh, weight, p)], Rows::plain(own.du, h), b, h)
                    }
                });
                self.gemm(Orientation::Nn, &second, Store { wide: true, accumulate: false })?;
                self.run(&kernels.step, &units, &phase(Phase::Second))?;
            } else {
                self.run(&kernels.step, &units, &phase(Phase::Whole))?;
            }
            let recurrent = each(&|_, own, t| {
                // Slots that pair with rows 0.. of R; reset before, R_n has had its product.
                let (slot, gates) = match descriptor.cell {
                    CellKind::Rnn | CellKind::Lstm => (0, descriptor.cell.gates()),
                    CellKind::Gru => (1, if before { 2 } else { 3 }),
                };
                let terms = [(step_gradients(own, t, slot), Rows::plain(own.weight_hh, p), gates * h)];
                problem(&terms, Rows::plain(own.dh, p), b, p)
            });
            self.gemm(Orientation::Nn, &recurrent, Store { wide: true, accumulate: true })?;
        }
        self.finish_backward(*params, args)
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

    // Backward-weights.

    /// All layers.
    pub(crate) fn backward_weights(&self, args: &BackwardWeightsArgs<'_, Raw>, grad: WeightGrad) -> Result<()> {
        match &self.plan.mixed {
            Some(mixed) => mixed::backward_weights(self, mixed, args, grad),
            None => self.backward_weights_elements(args, grad),
        }
    }

    /// The same where x and c0 are of the type that kernels compute on.
    pub(super) fn backward_weights_elements(
        &self,
        args: &BackwardWeightsArgs<'_, Raw>,
        grad: WeightGrad,
    ) -> Result<()> {
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

/// Runs of slots of `dgates` that pair with runs of rows of `weight_ih` and `bias_ih`: first slot, first gate, gates.
fn input_slots(cell: CellKind) -> impl Iterator<Item = (usize, usize, usize)> {
    let runs: &[(usize, usize, usize)] = match cell {
        CellKind::Rnn => &[(0, 0, 1)],
        CellKind::Lstm => &[(0, 0, 4)],
        CellKind::Gru => &[(1, 0, 2), (0, 2, 1)],
    };
    runs.iter().copied()
}
