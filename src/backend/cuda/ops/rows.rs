//! Sums and maxima along an axis; tables, masks and lists of rows.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::{Device, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::launch::{Kernel, accumulator, bias_pieces, column_reduction, elementwise, partial_sums};
use super::super::kernel::params::{BiasGradientParams, Rows, SumPartialsParams};
use super::arguments::{WARP_TERMS, accumulates, by_warp, elements, narrow, shared_sums};
use super::params::{
    GatherParams, HoldGradientParams, IndicesParams, MaskNotEqualParams, MaskOrderParams, MaxAxisGradientParams,
    MaxAxisParams, ScatterAddParams, SumAxisParams,
};
use crate::backend::WeightGrad;
use crate::backend::ops::{IndexStatus, MaskOrder, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// Rows of the table, or indices, that one launch takes.
const MOST_BLOCKS: u64 = i32::MAX as u64;

/// Kernels on rows, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    column_sums: Kernel<D, BiasGradientParams>,
    sum_partials: Kernel<D, SumPartialsParams>,
    sum_axis: Kernel<D, SumAxisParams>,
    max_axis: Kernel<D, MaxAxisParams>,
    max_axis_gradient: Kernel<D, MaxAxisGradientParams>,
    gather: Kernel<D, GatherParams>,
    scatter_add: Kernel<D, ScatterAddParams>,
    mask_not_equal: Kernel<D, MaskNotEqualParams>,
    mask_order: Kernel<D, MaskOrderParams>,
    hold_gradient: Kernel<D, HoldGradientParams>,
    indices: Kernel<D, IndicesParams>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        Ok(Kernels {
            column_sums: Kernel::of(device, "bias_gradient", E::DTYPE)?,
            sum_partials: Kernel::of(device, "sum_partials", E::DTYPE)?,
            sum_axis: Kernel::of(device, "sum_axis", E::DTYPE)?,
            max_axis: Kernel::of(device, "max_axis", E::DTYPE)?,
            max_axis_gradient: Kernel::of(device, "max_axis_gradient", E::DTYPE)?,
            gather: Kernel::of(device, "gather", E::DTYPE)?,
            scatter_add: Kernel::of(device, "scatter_add", E::DTYPE)?,
            mask_not_equal: Kernel::of(device, "mask_not_equal", E::DTYPE)?,
            mask_order: Kernel::of(device, "mask_order", E::DTYPE)?,
            hold_gradient: Kernel::of(device, "hold_gradient", E::DTYPE)?,
            indices: Kernel::of(device, "indices", E::DTYPE)?,
        })
    })
}

pub(super) fn sum_workspace<E: Element>([outer, count, inner]: [usize; 3]) -> usize {
    if outer == 1 { elements::<E>(bias_pieces(count).saturating_mul(inner), accumulator(E::DTYPE)) } else { 0 }
}

/// Sums of the columns of one matrix, which many rows may have, in two stages; of several matrices at once.
pub(super) fn sum_axis<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    sizes: [usize; 3],
    alpha: f64,
    x: TensorRef<'_>,
    y: TensorMut<'_>,
    grad: WeightGrad,
    workspace: TensorMut<'_>,
) -> Result<()> {
    check::axis(sizes, x.len(), y.len())?;
    if y.is_empty() {
        return Ok(());
    }
    let [outer, count, inner] = sizes;
    let kernels = kernels(gpu)?;
    if outer == 1 {
        let partial = gpu.workspace_at(sum_workspace::<E>(sizes), &workspace)?;
        let pieces = bias_pieces(count);
        let params = BiasGradientParams {
            rows: Rows::plain(gpu.at(&x)?, inner),
            partial,
            row_count: narrow("rows of a sum", count)?,
            columns: narrow("columns of a sum", inner)?,
            pieces: pieces as u32,
            unused: 0,
        };
        gpu.launch(&kernels.column_sums, &column_reduction(inner, pieces, 1, E::DTYPE), &params)?;
        let params = SumPartialsParams {
            partial,
            out: gpu.at(&y)?,
            len: inner as u64,
            stride: inner as u64,
            count: pieces as u32,
            accumulate: accumulates(grad),
            alpha,
        };
        return gpu.launch(&kernels.sum_partials, &partial_sums(inner), &params);
    }
    // Where threads have columns beside each other, they read whole lines; else the lanes of a warp do.
    let (lanes, launch) = shared_sums(y.len(), if inner < WARP_TERMS { count } else { 1 });
    let params = SumAxisParams {
        x: gpu.at(&x)?,
        y: gpu.at(&y)?,
        outer: outer as u64,
        count: count as u64,
        inner: inner as u64,
        alpha,
        lanes,
        accumulate: accumulates(grad),
    };
    gpu.launch(&kernels.sum_axis, &launch, &params)
}

pub(super) fn max_axis<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    sizes: [usize; 3],
    x: TensorRef<'_>,
    mask: Option<TensorRef<'_>>,
    y: TensorMut<'_>,
    position: TensorMut<'_>,
) -> Result<()> {
    check::axis(sizes, x.len(), y.len())?;
    let [outer, count, inner] = sizes;
    check_len("position", &[outer, inner], position.len())?;
    if let Some(mask) = mask {
        check_len("mask", &[outer, count], mask.len())?;
    }
    narrow("elements to compare", count)?;
    let params = MaxAxisParams {
        x: gpu.at(&x)?,
        mask: gpu.at(&mask)?,
        y: gpu.at(&y)?,
        position: gpu.at_as(DType::U32, &position)?,
        outer: outer as u64,
        count: count as u64,
        inner: inner as u64,
    };
    gpu.launch(&kernels(gpu)?.max_axis, &elementwise(y.len() as u64), &params)
}

pub(super) fn max_axis_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    sizes: [usize; 3],
    dy: TensorRef<'_>,
    position: TensorRef<'_>,
    dx: TensorMut<'_>,
) -> Result<()> {
    check::axis(sizes, dx.len(), dy.len())?;
    let [outer, count, inner] = sizes;
    check_len("position", &[outer, inner], position.len())?;
    let params = MaxAxisGradientParams {
        dy: gpu.at(&dy)?,
        position: gpu.at_as(DType::U32, &position)?,
        dx: gpu.at(&dx)?,
        outer: outer as u64,
        count: count as u64,
        inner: inner as u64,
    };
    gpu.launch(&kernels(gpu)?.max_axis_gradient, &elementwise(dx.len() as u64), &params)
}

pub(super) fn gather<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    width: usize,
    table: TensorRef<'_>,
    rows: TensorRef<'_>,
    out: TensorMut<'_>,
    status: Option<IndexStatus<'_>>,
) -> Result<()> {
    let table_rows = check::gather(width, table.len(), rows.len(), out.len())?;
    let (status, code) = gpu.index_status(&status)?;
    let params = GatherParams {
        table: gpu.at(&table)?,
        indices: gpu.at_as(DType::U32, &rows)?,
        out: gpu.at(&out)?,
        status,
        count: rows.len() as u64,
        width: width as u64,
        rows: table_rows as u64,
        code,
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.gather, &elementwise(out.len() as u64), &params)
}

pub(super) fn scatter_add<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    width: usize,
    rows: TensorRef<'_>,
    dout: TensorRef<'_>,
    mut dtable: TensorMut<'_>,
    grad: WeightGrad,
    status: Option<IndexStatus<'_>>,
) -> Result<()> {
    let table_rows = check::gather(width, dtable.len(), rows.len(), dout.len())?;
    let (status, code) = gpu.index_status(&status)?;
    // The fewer blocks.
    let by_row = table_rows <= rows.len();
    if grad == WeightGrad::Set && !by_row {
        super::elementwise::fill(gpu, dtable.reborrow(), 0.0)?;
    }
    let blocks = if by_row { table_rows } else { rows.len() } as u64;
    if blocks == 0 {
        return Ok(());
    }
    if blocks > MOST_BLOCKS {
        return Err(Error::unsupported(format!("a gradient of {blocks} rows"), "the CUDA kernels take 2147483647"));
    }
    let params = ScatterAddParams {
        dtable: gpu.at(&dtable)?,
        indices: gpu.at_as(DType::U32, &rows)?,
        dout: gpu.at(&dout)?,
        status,
        count: rows.len() as u64,
        width: width as u64,
        rows: table_rows as u64,
        by_row: by_row.into(),
        accumulate: if by_row { accumulates(grad) } else { 1 },
        code,
        unused: 0,
    };
    let launch = Launch {
        shared_bytes: ELEMENTWISE_THREADS * size_of::<u32>() as u32,
        ..Launch::new([blocks as u32, 1, 1], ELEMENTWISE_THREADS)
    };
    gpu.launch(&kernels(gpu)?.scatter_add, &launch, &params)
}

pub(super) fn mask_not_equal<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    x: TensorRef<'_>,
    value: f64,
    mask: TensorMut<'_>,
) -> Result<()> {
    let rows = check::rows("x", x.len(), columns)?;
    check_len("mask", &[rows], mask.len())?;
    let (lanes, launch) = shared_sums(rows, columns);
    let params = MaskNotEqualParams {
        x: gpu.at(&x)?,
        mask: gpu.at(&mask)?,
        rows: rows as u64,
        columns: columns as u64,
        value: E::of(value).wide(),
        lanes,
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.mask_not_equal, &launch, &params)
}

pub(super) fn mask_order<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    steps: usize,
    reverse: bool,
    mask: TensorRef<'_>,
    order: MaskOrder<'_>,
) -> Result<()> {
    let MaskOrder { rows, inverse, hold, lengths, any } = order;
    let parts = [("rows", rows.len()), ("inverse", inverse.len()), ("hold", hold.len())];
    let batch = check::order(steps, mask.len(), parts, [("lengths", lengths.len()), ("any", any.len())])?;
    // Rows are numbered in 32 bits.
    narrow("batch * steps", mask.len())?;
    let params = MaskOrderParams {
        mask: gpu.at(&mask)?,
        rows: gpu.at_as(DType::U32, &rows)?,
        inverse: gpu.at_as(DType::U32, &inverse)?,
        hold: gpu.at_as(DType::U32, &hold)?,
        lengths: gpu.at_as(DType::U32, &lengths)?,
        any: gpu.at(&any)?,
        batch: batch as u64,
        steps: steps as u64,
        reverse: reverse.into(),
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.mask_order, &by_warp(batch), &params)
}

pub(super) fn hold_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    steps: usize,
    width: usize,
    hold: TensorRef<'_>,
    dy: TensorRef<'_>,
    dx: TensorMut<'_>,
) -> Result<()> {
    let batch = check::rows("hold", hold.len(), steps)?;
    check_len("dy", &[batch, steps, width], dy.len())?;
    check_len("dx", &[batch, steps, width], dx.len())?;
    let params = HoldGradientParams {
        hold: gpu.at_as(DType::U32, &hold)?,
        dy: gpu.at(&dy)?,
        dx: gpu.at(&dx)?,
        batch: batch as u64,
        steps: steps as u64,
        width: width as u64,
    };
    gpu.launch(&kernels(gpu)?.hold_gradient, &elementwise((batch * width) as u64), &params)
}

pub(super) fn indices<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    rows: usize,
    x: TensorRef<'_>,
    out: TensorMut<'_>,
    status: Option<IndexStatus<'_>>,
) -> Result<()> {
    check::same(x.len(), &[("out", Some(out.len()))])?;
    let (status, code) = gpu.index_status(&status)?;
    narrow("rows of a table", rows)?;
    let len = x.len() as u64;
    let params = IndicesParams {
        x: gpu.at(&x)?,
        out: gpu.at_as(DType::U32, &out)?,
        status,
        len,
        rows: rows as u64,
        code,
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.indices, &elementwise(len), &params)
}
