//! Segments on a GPU, where training keeps checkpoints over time: ordinary passes on parts of memory, and kernels for what is between them.
//!
//! Gradients of weights are summed in the accumulators' type and rounded once. Between segments states, and the gradients of states, are
//! in the element type: in 16 bits the states beside h are rounded there, as they are between two calls.

use std::ops::Range;

use super::super::call::{Raw, RawTensor};
use super::super::device::{Device, DevicePtr, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::launch::{Kernel, accumulator, partial_sums};
use super::super::kernel::params::{
    CopyRowsParams, DropoutParams, HeldRowsParams, Rows, SegmentLengthsParams, SumPartialsParams,
};
use super::engine::Engine;
use super::plan::CudaPlan;
use crate::backend::checkpoints::{self, Checkpoints, Lengths, Planner, Segment, SegmentBackend, Window, Write};
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, TempSpace, WeightGrad};
use crate::error::Result;
use crate::rnn::{Dropout, RnnDescriptor, RnnShape};

/// Most elements that one launch copies as a row.
const MOST_COLUMNS: usize = 1 << 30;

/// Plans of segments, and the kernels between them.
#[derive(Debug)]
pub(super) struct Segmented<D: Device> {
    checkpoints: Checkpoints<CudaPlan<D>>,
    copy_rows: Kernel<D, CopyRowsParams>,
    lengths: Kernel<D, SegmentLengthsParams>,
    hold_state: Kernel<D, HeldRowsParams>,
    add_held: Kernel<D, HeldRowsParams>,
    dropout: Kernel<D, DropoutParams>,
    sum_partials: Kernel<D, SumPartialsParams>,
}

impl<D: Device> Segmented<D> {
    /// What the descriptor of an ordinary plan asks for, if that is more than the plan itself.
    pub(super) fn of(
        device: &D,
        whole: &CudaPlan<D>,
        plan: impl Fn(&RnnDescriptor, RnnShape) -> Result<CudaPlan<D>>,
    ) -> Result<Option<Self>> {
        let (host, dtype) = (&whole.host, whole.gradient);
        let planner = Planner {
            element: dtype.size(),
            gradient: accumulator(dtype),
            full: whole.temp_space,
            plan: &plan,
            space: &|plan| plan.temp_space,
            // Persistent kernels pad the rows of h_prev, which moves what stands behind them; mixed precision keeps copies of the states that
            // a call starts from.
            same_reserve: &|plan, other| {
                let layout = |plan: &CudaPlan<D>| (plan.h_prev.stride, plan.temp_space.reserve);
                plan.mixed.is_none() && layout(plan) == layout(other)
            },
        };
        let Some(checkpoints) = Checkpoints::of(&host.descriptor, host.shape, host.mode, &planner)? else {
            return Ok(None);
        };
        Ok(Some(Segmented {
            checkpoints,
            copy_rows: Kernel::of(device, "copy_rows", dtype)?,
            lengths: Kernel::of(device, "segment_lengths", dtype)?,
            hold_state: Kernel::of(device, "hold_state", dtype)?,
            add_held: Kernel::of(device, "add_held", dtype)?,
            dropout: Kernel::of(device, "dropout", dtype)?,
            sum_partials: Kernel::of(device, "sum_partials", dtype)?,
        }))
    }

    /// What the caller must give.
    pub(super) fn temp_space(&self) -> TempSpace {
        self.checkpoints.space(|plan| plan.temp_space).total()
    }

    /// All plans that its passes run; the first is that of a segment of the first layer.
    pub(super) fn plans(&self) -> impl Iterator<Item = &CudaPlan<D>> {
        self.checkpoints.plans()
    }
}

/// A plan of the whole about to run, segment by segment.
struct Segments<'a, 'e, D: Device> {
    engine: &'a Engine<'e, D>,
    own: &'a Segmented<D>,
}

pub(super) fn forward<D: Device>(
    engine: &Engine<'_, D>,
    own: &Segmented<D>,
    args: &ForwardArgs<'_, Raw>,
) -> Result<()> {
    let segments = Segments { engine, own };
    checkpoints::forward(&segments, &own.checkpoints, *args, segments.reserve())
}

pub(super) fn backward_data<D: Device>(
    engine: &Engine<'_, D>,
    own: &Segmented<D>,
    args: &BackwardDataArgs<'_, Raw>,
) -> Result<()> {
    let segments = Segments { engine, own };
    checkpoints::backward_data(&segments, &own.checkpoints, *args, segments.reserve(), engine.dropout_seed)
}

pub(super) fn backward_weights<D: Device>(
    engine: &Engine<'_, D>,
    own: &Segmented<D>,
    args: &BackwardWeightsArgs<'_, Raw>,
    grad: WeightGrad,
) -> Result<()> {
    let segments = Segments { engine, own };
    checkpoints::backward_weights(&segments, &own.checkpoints, *args, segments.reserve(), grad)
}

impl<'e, D: Device> Segments<'_, 'e, D> {
    fn reserve(&self) -> RawTensor {
        RawTensor::new(self.engine.reserve, self.engine.plan.temp_space.reserve)
    }

    /// A segment's plan about to run. Its part has no dropout.
    fn engine<'s>(&'s self, plan: &'s CudaPlan<D>, reserve: RawTensor) -> Engine<'s, D>
    where
        'e: 's,
    {
        let Engine { device, stream, .. } = *self.engine;
        Engine { device, stream, plan, reserve: reserve.address, dropout_seed: 0 }
    }

    /// Part of a tensor of the caller's type.
    fn range(&self, tensor: RawTensor, range: Range<usize>) -> RawTensor {
        let bytes = range.start * self.engine.plan.gradient.size();
        RawTensor::new(tensor.address.offset(bytes), range.len())
    }

    /// A window of a tensor as rows.
    fn rows(&self, tensor: RawTensor, window: &Window) -> Rows {
        let first = self.range(tensor, window.start..window.start);
        Rows::sequences(first.address, window.time_stride, window.batch_stride, window.batch)
    }

    fn copy_rows(&self, from: Rows, to: Rows, (rows, columns): (usize, usize), accumulate: bool) -> Result<()> {
        let params = CopyRowsParams {
            from,
            to,
            row_count: rows as u32,
            columns: columns as u32,
            accumulate: accumulate.into(),
            unused: 0,
        };
        self.engine.run(&self.own.copy_rows, &self.engine.elementwise(columns, rows, 1), &params)
    }

    fn held(&self, lengths: RawTensor, state: RawTensor, rows: RawTensor) -> (HeldRowsParams, Launch) {
        let batch = lengths.len;
        let columns = state.len / batch;
        let params = HeldRowsParams {
            lengths: lengths.address,
            state: state.address,
            rows: rows.address,
            steps: (rows.len / state.len) as u32,
            batch: batch as u32,
            columns: columns as u32,
            unused: 0,
        };
        (params, self.engine.elementwise(columns, batch, 1))
    }
}

impl<D: Device> SegmentBackend for Segments<'_, '_, D> {
    type Given = Raw;
    type Plan = CudaPlan<D>;

    fn temp_space(&self, plan: &CudaPlan<D>) -> TempSpace {
        plan.temp_space
    }

    fn part(&self, tensor: &RawTensor, range: Range<usize>) -> RawTensor {
        self.range(*tensor, range)
    }

    fn part_mut(&self, tensor: &mut RawTensor, range: Range<usize>) -> RawTensor {
        self.range(*tensor, range)
    }

    fn view(&self, tensor: &RawTensor, range: Range<usize>) -> RawTensor {
        self.range(*tensor, range)
    }

    fn split<const N: usize>(&self, tensor: &mut RawTensor, lens: [usize; N]) -> [RawTensor; N] {
        let mut start = 0;
        lens.map(|len| {
            start += len;
            self.range(*tensor, start - len..start)
        })
    }

    fn reborrow(&self, lengths: &RawTensor) -> RawTensor {
        *lengths
    }

    fn set(&self, from: Option<RawTensor>, to: RawTensor) -> Result<()> {
        // Kernels count columns in 32 bits, and the states of all steps of a segment may be more.
        for start in (0..to.len).step_by(MOST_COLUMNS) {
            let part = start..to.len.min(start + MOST_COLUMNS);
            let (columns, to) = (part.len(), self.range(to, part.clone()));
            let from = from.map_or(DevicePtr::NULL, |from| self.range(from, part).address);
            self.copy_rows(Rows::plain(from, columns), Rows::plain(to.address, columns), (1, columns), false)?;
        }
        Ok(())
    }

    fn gather(&self, from: RawTensor, window: &Window, to: RawTensor) -> Result<()> {
        let rows = (window.steps * window.batch, window.width);
        self.copy_rows(self.rows(from, window), Rows::plain(to.address, window.width), rows, false)
    }

    fn scatter(&self, from: RawTensor, to: RawTensor, window: &Window, add: bool) -> Result<()> {
        let rows = (window.steps * window.batch, window.width);
        self.copy_rows(Rows::plain(from.address, window.width), self.rows(to, window), rows, add)
    }

    fn lengths<'s>(
        &self,
        lengths: &Lengths<'_, Self>,
        segment: Segment,
        to: Write<'s, Self>,
    ) -> Result<Lengths<'s, Self>> {
        let params = SegmentLengthsParams {
            lengths: lengths.address,
            out: to.address,
            batch: lengths.len as u32,
            first: segment.first as u32,
            steps: segment.steps as u32,
            unused: 0,
        };
        let launch = Launch::new([params.batch.div_ceil(ELEMENTWISE_THREADS), 1, 1], ELEMENTWISE_THREADS);
        self.engine.run(&self.own.lengths, &launch, &params)?;
        Ok(RawTensor::new(to.address, lengths.len))
    }

    fn hold(&self, lengths: &RawTensor, h: RawTensor, y: RawTensor) -> Result<()> {
        let (params, launch) = self.held(*lengths, h, y);
        self.engine.run(&self.own.hold_state, &launch, &params)
    }

    fn add_held(&self, lengths: &RawTensor, dy: RawTensor, dh: RawTensor) -> Result<()> {
        let (params, launch) = self.held(*lengths, dh, dy);
        self.engine.run(&self.own.add_held, &launch, &params)
    }

    fn drop_out(&self, tensor: RawTensor, features: usize, layer: usize, seed: u64) -> Result<()> {
        let dropout = Dropout::new(self.engine.descriptor().dropout, seed);
        let batch = self.engine.batch();
        let rows = self.engine.seq_len() * batch;
        let params = DropoutParams {
            x: Rows::plain(tensor.address, features),
            out: tensor.address,
            seed,
            threshold: dropout.threshold(),
            scale: dropout.scale(),
            rows: rows as u32,
            batch: batch as u32,
            features: features as u32,
            layer: layer as u32,
        };
        self.engine.run(&self.own.dropout, &self.engine.elementwise(features.div_ceil(4), rows, 1), &params)
    }

    fn add_gradient(&self, sums: RawTensor, to: RawTensor, grad: WeightGrad) -> Result<()> {
        let params = SumPartialsParams {
            partial: sums.address,
            out: to.address,
            len: to.len as u64,
            stride: to.len as u64,
            count: 1,
            accumulate: (grad == WeightGrad::Add).into(),
            alpha: 1.0,
        };
        self.engine.run(&self.own.sum_partials, &partial_sums(to.len), &params)
    }

    fn copy_states(&self, plan: &CudaPlan<D>, reserve: RawTensor, to: RawTensor) -> Result<()> {
        let states = plan.layers[0].direction[0].cell_state.of(reserve.address);
        // They are accumulators, and are rounded as the sums of gradients are.
        self.add_gradient(RawTensor::new(states, to.len), to, WeightGrad::Set)
    }

    fn forward(&self, plan: &CudaPlan<D>, args: ForwardArgs<'_, Raw>, reserve: RawTensor) -> Result<()> {
        super::forward_at_once(&self.engine(plan, reserve), &args)
    }

    fn backward_data(&self, plan: &CudaPlan<D>, args: BackwardDataArgs<'_, Raw>, reserve: RawTensor) -> Result<()> {
        super::backward_data_at_once(&self.engine(plan, reserve), &args)
    }

    fn backward_weights(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Raw>,
        reserve: RawTensor,
        grad: WeightGrad,
    ) -> Result<()> {
        super::backward_weights_at_once(&self.engine(plan, reserve), &args, grad)
    }
}
