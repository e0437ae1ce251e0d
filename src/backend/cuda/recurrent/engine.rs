//! What passes have in common: a plan about to run on a stream.
//!
//! Nothing here allocates, waits or loads: it fills parameter structs and gives kernels to a stream.
#![allow(unsafe_code)]

use bytemuck::Zeroable;

use super::super::device::{Device, DevicePtr, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::gemm::{Orientation, Room};
use super::super::kernel::launch::{Kernel, Params};
use super::super::kernel::params::{
    DropoutParams, GatesParams, GemmParams, GemmProblem, GemmTerm, HeadProductParams, HeldRowsParams, Rows, SavedGates,
};
use super::cell::{gradient_slots, is_split};
use super::plan::CudaPlan;
use crate::backend::ForwardMode;
use crate::error::Result;
use crate::rnn::{Dropout, LayerWeights, Layout, RnnDescriptor};

/// How long a persistent kernel waits for what another block owes it before it gives up, in units of 4096 clocks: about four seconds, where
/// microseconds are usual.
pub(super) const PATIENCE: u32 = 1_700_000;

/// Sequences that a thread of a product in heads takes at a time.
const HEAD_SEQUENCES: usize = 4;

/// A plan about to run on a stream.
pub(crate) struct Engine<'a, D: Device> {
    pub(crate) device: &'a D,
    pub(crate) stream: &'a D::Stream,
    pub(crate) plan: &'a CudaPlan<D>,
    /// Where training keeps what backward needs; null in inference.
    pub(crate) reserve: DevicePtr,
    /// Of the masks that forward draws or drew.
    pub(crate) dropout_seed: u64,
    /// Where this is the pass of a segment.
    pub(crate) segment: Option<SegmentStates>,
    /// In backward adds the gradients of padded outputs to that of the last state, where they belong to it.
    pub(crate) add_held: Option<&'a Kernel<D, HeldRowsParams>>,
}

/// What a segment's pass is handed besides a call's tensors.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentStates {
    /// What the first step starts from: h, elements `[B, P]`, and the states beside it, accumulators `[B, (S - 1) * H]`; null where that is
    /// `h0` and `c0`.
    pub(super) start_h: DevicePtr,
    pub(super) start_c: DevicePtr,
    /// Backward: the gradients of states, accumulators, which the segment processed before has left here.
    pub(super) dh: DevicePtr,
    pub(super) dc: DevicePtr,
    pub(super) dh_reset: DevicePtr,
    pub(super) dc_reset: DevicePtr,
    /// There is none before: they come from `dhn` and `dcn`.
    pub(super) begins: bool,
}

/// A tensor `[T, B, features]` somewhere.
#[derive(Clone, Copy)]
pub(super) struct Sequences {
    pub(super) data: DevicePtr,
    pub(super) time_stride: usize,
    pub(super) batch_stride: usize,
}

impl Sequences {
    pub(super) fn rows(self, batch: usize) -> Rows {
        Rows::sequences(self.data, self.time_stride, self.batch_stride, batch)
    }
}

/// One term of a product: `a`, `b`, and how many numbers are summed.
pub(super) type Term = (Rows, Rows, usize);

pub(super) fn problem(terms: &[Term], c: Rows, m: usize, n: usize) -> GemmProblem {
    let mut problem = GemmProblem { c, terms: terms.len() as u32, m: m as u32, n: n as u32, ..Zeroable::zeroed() };
    for (slot, (a, b, k)) in problem.term.iter_mut().zip(terms) {
        *slot = GemmTerm { a: *a, b: *b, k: *k as u32, unused: 0 };
    }
    problem
}

/// Products of one launch, a problem each, of at most both directions.
pub(super) fn products(problems: &[GemmProblem]) -> GemmParams {
    let count = problems.len() as u32;
    let mut params = GemmParams { problems: count, count, splits: 1, alpha: 1.0, ..Zeroable::zeroed() };
    params.problem[..problems.len()].copy_from_slice(problems);
    params
}

/// How a product is stored.
#[derive(Clone, Copy, Default)]
pub(super) struct Store {
    /// `c +=` instead of `c =`.
    pub(super) accumulate: bool,
    /// Accumulators instead of elements.
    pub(super) wide: bool,
}

impl<D: Device> Engine<'_, D> {
    pub(super) fn descriptor(&self) -> &RnnDescriptor {
        &self.plan.host.descriptor
    }

    pub(super) fn seq_len(&self) -> usize {
        self.plan.host.shape.seq_len
    }

    pub(super) fn batch(&self) -> usize {
        self.plan.host.shape.batch
    }

    pub(super) fn hidden_size(&self) -> usize {
        self.descriptor().hidden_size
    }

    pub(super) fn output_size(&self) -> usize {
        self.descriptor().output_size()
    }

    pub(super) fn directions(&self) -> usize {
        self.descriptor().num_directions()
    }

    /// `G * H`
    pub(super) fn gate_rows(&self) -> usize {
        self.descriptor().cell.gates() * self.hidden_size()
    }

    /// Bytes of an element.
    pub(super) fn element(&self) -> usize {
        self.plan.dtype.size()
    }

    pub(super) fn training(&self) -> bool {
        self.plan.host.mode == ForwardMode::Training
    }

    /// Address of element `index` of a tensor of elements.
    pub(super) fn at(&self, tensor: DevicePtr, index: usize) -> DevicePtr {
        tensor.offset(index * self.element())
    }

    /// Address of element `index` of a gradient of weights.
    pub(super) fn gradient_at(&self, tensor: DevicePtr, index: usize) -> DevicePtr {
        tensor.offset(index * self.plan.gradient.size())
    }

    pub(super) fn run<P: Params>(&self, kernel: &Kernel<D, P>, launch: &Launch, params: &P) -> Result<()> {
        kernel.launch(self.device, self.stream, launch, params)
    }

    pub(super) fn fill(&self, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        // SAFETY: `to` is a place of that size in workspace or reserve, which are as large as the plan says.
        unsafe { self.device.fill(self.stream, to, value, bytes) }
    }

    /// Geometry of an elementwise kernel: a thread for each column, blocks along y for rows.
    pub(super) fn elementwise(&self, columns: usize, rows: usize, z: usize) -> Launch {
        let x = columns.div_ceil(ELEMENTWISE_THREADS as usize) as u32;
        Launch::new([x, rows.min(65_535) as u32, z as u32], ELEMENTWISE_THREADS)
    }

    pub(super) fn gemm(
        &self,
        orientation: Orientation,
        problems: &[GemmProblem],
        store: Store,
        room: Room,
    ) -> Result<()> {
        let params = GemmParams { accumulate: store.accumulate.into(), wide: store.wide.into(), ..products(problems) };
        self.plan.kernels.gemm(orientation)?.launch(self.device, self.stream, &params, room)
    }

    pub(super) fn weights(&self, base: DevicePtr, layer: usize, direction: usize) -> LayerWeights<DevicePtr> {
        self.weights_of(base, layer, direction, self.element())
    }

    /// The same for elements of `size` bytes.
    pub(super) fn weights_of(
        &self,
        base: DevicePtr,
        layer: usize,
        direction: usize,
        size: usize,
    ) -> LayerWeights<DevicePtr> {
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
    pub(super) fn outer(&self, data: DevicePtr, features: usize) -> Sequences {
        let (time, batch) = match self.descriptor().layout {
            Layout::SequenceMajor => (self.batch(), 1),
            Layout::BatchMajor => (1, self.seq_len()),
        };
        Sequences { data, time_stride: time * features, batch_stride: batch * features }
    }

    /// A tensor `[T, B, features]` in workspace or reserve.
    pub(super) fn inner(&self, data: DevicePtr, features: usize) -> Sequences {
        Sequences { data, time_stride: self.batch() * features, batch_stride: features }
    }

    /// Rows of a state tensor that belong to a layer and direction: `[L*D, B, width]`.
    pub(super) fn state(&self, tensor: DevicePtr, layer: usize, direction: usize, width: usize) -> DevicePtr {
        self.at(tensor, (layer * self.directions() + direction) * self.batch() * width)
    }

    /// Where layers keep their tensors.
    pub(super) fn kept_in(&self, workspace: DevicePtr) -> DevicePtr {
        if self.training() { self.reserve } else { workspace }
    }

    pub(super) fn is_reverse(&self, direction: usize) -> bool {
        self.descriptor().direction.is_reverse(direction)
    }

    /// Time of a step.
    pub(super) fn time(&self, direction: usize, step: usize) -> usize {
        if self.is_reverse(direction) { self.seq_len() - 1 - step } else { step }
    }

    pub(super) fn saved_gates(&self) -> SavedGates {
        if self.training() { SavedGates::of_training(self.descriptor(), self.plan.dtype) } else { SavedGates::Nothing }
    }

    pub(super) fn drop_out(
        &self,
        from: Sequences,
        to: DevicePtr,
        features: usize,
        layer: usize,
        dropout: &Dropout,
    ) -> Result<()> {
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
    pub(super) fn layer_input(
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
    pub(super) fn dropout(&self) -> Dropout {
        Dropout::new(if self.training() { self.descriptor().dropout } else { 0.0 }, self.dropout_seed)
    }

    /// Elements of the states beside h of one sequence.
    pub(super) fn other_states(&self) -> usize {
        self.descriptor().cell.other_states() * self.hidden_size()
    }

    /// A launch of a product with the recurrent weights in heads, of `rows` of them.
    pub(super) fn head_launch(&self, rows: usize) -> Launch {
        self.elementwise(rows, self.batch().div_ceil(HEAD_SEQUENCES), self.directions())
    }

    /// What such products have in common, for `gates` gates.
    pub(super) fn head_params(&self, gates: usize) -> HeadProductParams {
        HeadProductParams {
            batch: self.batch() as u32,
            hidden_size: self.hidden_size() as u32,
            head_size: self.descriptor().head_size() as u32,
            gates: gates as u32,
            ..Zeroable::zeroed()
        }
    }

    /// Where precomputed gates are, or their gradients go: `x` or `dx`.
    pub(super) fn gates_params(&self, x: Sequences) -> GatesParams {
        let cell = self.descriptor().cell;
        GatesParams {
            x: x.rows(self.batch()),
            row_count: (self.seq_len() * self.batch()) as u32,
            columns: self.gate_rows() as u32,
            hidden_size: self.hidden_size() as u32,
            slots: gradient_slots(cell) as u32,
            split: is_split(cell).into(),
            ..Zeroable::zeroed()
        }
    }

    /// Bytes of an accumulator.
    pub(super) fn accumulator(&self) -> usize {
        self.element().max(4)
    }

    /// Gates' gradients from slot `slot` on.
    pub(super) fn gate_gradients(&self, dgates: DevicePtr, slot: usize) -> Sequences {
        let h = self.hidden_size();
        self.inner(self.at(dgates, slot * h), gradient_slots(self.descriptor().cell) * h)
    }
}
