//! Segments on a GPU, where training keeps checkpoints over time: ordinary passes on parts of memory, and kernels for what is between them.
//!
//! Gradients of weights are summed in the accumulators' type and rounded once. Between segments h is in the element type, which the kernels
//! round it to in every step; the states beside it and the gradients of states are accumulators, as they are within a pass.

use std::ops::Range;

use super::super::call::{Raw, RawTensor, address};
use super::super::device::{Device, DevicePtr, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::launch::{Kernel, accumulator, elementwise, partial_sums};
use super::super::kernel::params::{
    ConvertParams, CopyRowsParams, DropoutParams, HeldRowsParams, RestartParams, Rows, SegmentLengthsParams,
    SumPartialsParams,
};
use super::engine::{Engine, SegmentStates};
use super::plan::CudaPlan;
use crate::backend::checkpoints::{
    self, Carried, Checkpoints, Lengths, Mask, Planner, Read, Segment, SegmentBackend, Turn, Window, Write,
};
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, TempSpace, WeightGrad};
use crate::dtype::DType;
use crate::error::Result;
use crate::rnn::{Dropout, RnnDescriptor, RnnShape};

/// Most elements that one launch copies as a row.
const MOST_COLUMNS: usize = 1 << 30;

/// Plans of segments, and the kernels between them.
#[derive(Debug)]
pub(super) struct Segmented<D: Device> {
    checkpoints: Checkpoints<CudaPlan<D>>,
    copy_rows: Kernel<D, CopyRowsParams>,
    /// Of accumulators.
    copy_wide: Kernel<D, CopyRowsParams>,
    /// Accumulators of elements, where these are others.
    widen: Option<Kernel<D, ConvertParams>>,
    /// Of the caller's type, and of what kernels compute on.
    restart: [Kernel<D, RestartParams>; 2],
    restart_gradients: Kernel<D, RestartParams>,
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
        let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
        let planner = Planner {
            element: dtype.size(),
            accumulator: accumulator(dtype),
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
            copy_wide: Kernel::of(device, "copy_rows", wide)?,
            widen: (dtype != wide).then(|| Kernel::of(device, "widen", dtype)).transpose()?,
            restart: [Kernel::of(device, "restart_states", dtype)?, Kernel::of(device, "restart_states", whole.dtype)?],
            restart_gradients: Kernel::of(device, "restart_gradients", dtype)?,
            lengths: Kernel::of(device, "segment_lengths", dtype)?,
            hold_state: Kernel::of(device, "hold_state", dtype)?,
            add_held: Kernel::of(device, "add_held", whole.dtype)?,
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
    fn engine<'s>(
        &'s self,
        plan: &'s CudaPlan<D>,
        start: Option<[RawTensor; 2]>,
        segment: SegmentStates,
        reserve: RawTensor,
    ) -> Engine<'s, D>
    where
        'e: 's,
    {
        let Engine { device, stream, .. } = *self.engine;
        let [start_h, start_c] = start
            .map_or([DevicePtr::NULL; 2], |[h, c]| [h.address, if c.len > 0 { c.address } else { DevicePtr::NULL }]);
        let segment = Some(SegmentStates { start_h, start_c, ..segment });
        Engine { device, stream, plan, reserve: reserve.address, dropout_seed: 0, segment, add_held: None }
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
        let params = copied(from, to, (rows, columns), accumulate);
        self.engine.run(&self.own.copy_rows, &self.engine.elementwise(columns, rows, 1), &params)
    }

    /// `to = from`, or zero, of so many elements of a size.
    fn copy(
        &self,
        kernel: &Kernel<D, CopyRowsParams>,
        from: Option<DevicePtr>,
        to: DevicePtr,
        (len, size): (usize, usize),
    ) -> Result<()> {
        // Kernels count columns in 32 bits, and the states of all steps of a segment may be more.
        for start in (0..len).step_by(MOST_COLUMNS) {
            let columns = (len - start).min(MOST_COLUMNS);
            let from = from.map_or(DevicePtr::NULL, |from| from.offset(start * size));
            let (from, to) = (Rows::plain(from, columns), Rows::plain(to.offset(start * size), columns));
            let launch = self.engine.elementwise(columns, 1, 1);
            self.engine.run(kernel, &launch, &copied(from, to, (1, columns), false))?;
        }
        Ok(())
    }

    /// Bytes of an accumulator, and how many of them as many elements take.
    fn wide(&self, elements: usize) -> (usize, usize) {
        let element = self.engine.plan.gradient.size();
        let size = accumulator(self.engine.plan.gradient);
        (elements * element / size, size)
    }

    fn restart_params(
        resets: RawTensor,
        lengths: Option<&RawTensor>,
        t: usize,
        (batch, columns): (usize, usize),
    ) -> RestartParams {
        RestartParams {
            resets: resets.address,
            lengths: address(lengths.copied()),
            from: DevicePtr::NULL,
            to: DevicePtr::NULL,
            step: t as u32,
            batch: batch as u32,
            columns: columns as u32,
            wide: 0,
        }
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

    fn part_of_mask(&self, mask: &RawTensor, range: Range<usize>) -> RawTensor {
        RawTensor::new(mask.address.offset(range.start), range.len())
    }

    fn reborrow(&self, lengths: &RawTensor) -> RawTensor {
        *lengths
    }

    fn set(&self, from: Option<RawTensor>, to: RawTensor) -> Result<()> {
        let size = self.engine.plan.gradient.size();
        self.copy(&self.own.copy_rows, from.map(|from| from.address), to.address, (to.len, size))
    }

    fn set_wide(&self, from: Option<RawTensor>, to: RawTensor) -> Result<()> {
        self.copy(&self.own.copy_wide, from.map(|from| from.address), to.address, self.wide(to.len))
    }

    fn widen(&self, from: Option<RawTensor>, to: RawTensor) -> Result<()> {
        let (Some(widen), Some(from)) = (&self.own.widen, from) else { return self.set_wide(from, to) };
        let len = self.wide(to.len).0 as u64;
        self.engine.run(widen, &elementwise(len), &ConvertParams { from: from.address, to: to.address, len })
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

    fn restart(
        &self,
        resets: &Mask<'_, Self>,
        lengths: Option<&Lengths<'_, Self>>,
        t: usize,
        [h0, c0]: [Option<Read<'_, Self>>; 2],
        [h, c]: [Write<'_, Self>; 2],
        scratch: Write<'_, Self>,
    ) -> Result<()> {
        let batch = self.engine.batch();
        let restart = |kernel: &Kernel<D, RestartParams>, from: Option<RawTensor>, to: RawTensor, len: usize, wide| {
            let columns = len / batch;
            let params = Self::restart_params(*resets, lengths, t, (batch, columns));
            let params = RestartParams { from: address(from), to: to.address, wide, ..params };
            self.engine.run(kernel, &self.engine.elementwise(columns, batch, 1), &params)
        };
        let [given, computed] = &self.own.restart;
        restart(given, h0, h, h.len, 0)?;
        let len = self.wide(c.len).0;
        if len == 0 {
            return Ok(());
        }
        // Initial states are rounded to what kernels compute on.
        let c0 = match (c0, &self.engine.plan.mixed) {
            (Some(c0), Some(mixed)) => {
                let (from, to, count) = (c0.address, scratch.address, len as u64);
                self.engine.run(
                    &mixed.converters.narrow,
                    &elementwise(count),
                    &ConvertParams { from, to, len: count },
                )?;
                Some(scratch)
            }
            (c0, _) => c0,
        };
        restart(computed, c0, c, len, 1)
    }

    fn restart_gradients(
        &self,
        resets: &Mask<'_, Self>,
        lengths: Option<&Lengths<'_, Self>>,
        t: usize,
        carried: Carried<Write<'_, Self>>,
    ) -> Result<()> {
        let batch = self.engine.batch();
        for (from, to) in [(carried.dh, carried.dh_reset), (carried.dc, carried.dc_reset)] {
            let columns = self.wide(from.len).0 / batch;
            if columns > 0 {
                let params = Self::restart_params(*resets, lengths, t, (batch, columns));
                let params = RestartParams { from: from.address, to: to.address, ..params };
                self.engine.run(&self.own.restart_gradients, &self.engine.elementwise(columns, batch, 1), &params)?;
            }
        }
        Ok(())
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
        self.set_wide(Some(RawTensor::new(plan.layers[0].direction[0].cell_state.of(reserve.address), to.len)), to)
    }

    fn forward(
        &self,
        plan: &CudaPlan<D>,
        args: ForwardArgs<'_, Raw>,
        start: Option<[RawTensor; 2]>,
        end: Option<RawTensor>,
        reserve: RawTensor,
    ) -> Result<()> {
        let engine = self.engine(plan, start, SegmentStates::default(), reserve);
        super::forward_at_once(&engine, &args)?;
        let Some(end) = end else { return Ok(()) };
        // The states beside h after every step are in the reserve.
        let (len, size) = self.wide(end.len);
        let last = engine.time(0, engine.seq_len() - 1) * len * size;
        let states = plan.layers[0].direction[0].cell_state.of(reserve.address).offset(last);
        self.set_wide(Some(RawTensor::new(states, end.len)), end)
    }

    fn backward_data(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardDataArgs<'_, Raw>,
        start: Option<[RawTensor; 2]>,
        carried: Carried<RawTensor>,
        turn: Turn,
        reserve: RawTensor,
    ) -> Result<()> {
        let Carried { dh, dc, dh_reset, dc_reset } = carried;
        let [dh, dc, dh_reset, dc_reset] = [dh, dc, dh_reset, dc_reset].map(|tensor| tensor.address);
        let segment = SegmentStates { dh, dc, dh_reset, dc_reset, begins: turn.begins, ..SegmentStates::default() };
        let add_held = turn.held.then_some(&self.own.add_held);
        super::backward_data_at_once(&Engine { add_held, ..self.engine(plan, start, segment, reserve) }, &args)
    }

    fn backward_weights(
        &self,
        plan: &CudaPlan<D>,
        args: BackwardWeightsArgs<'_, Raw>,
        start: Option<[RawTensor; 2]>,
        reserve: RawTensor,
        grad: WeightGrad,
    ) -> Result<()> {
        let engine = self.engine(plan, start, SegmentStates::default(), reserve);
        super::backward_weights_at_once(&engine, &args, grad)
    }
}

fn copied(from: Rows, to: Rows, (rows, columns): (usize, usize), accumulate: bool) -> CopyRowsParams {
    CopyRowsParams {
        from,
        to,
        row_count: rows as u32,
        columns: columns as u32,
        accumulate: accumulate.into(),
        unused: 0,
    }
}
