//! Softmax, and normalization by rows and by columns.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::{Device, DevicePtr, Launch};
use super::super::images::catalog::REDUCTION_THREADS;
use super::super::kernel::launch::{Kernel, accumulator, bias_pieces, column_reduction, elementwise};
use super::arguments::{accumulates, by_warp, elements, len_of, narrow};
use super::params::{
    BatchNormParams, ColumnMomentsParams, LayerNormParams, NormGradientParams, SoftmaxGradientParams, SoftmaxParams,
};
use crate::backend::WeightGrad;
use crate::backend::ops::{SoftmaxMask, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::error::Result;
use crate::rnn::shape::check_len;

/// Columns of a block of `column_moments`.
const MOMENT_COLUMNS: usize = 8;

/// Kernels of softmax and normalization, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    softmax: Kernel<D, SoftmaxParams>,
    softmax_gradient: Kernel<D, SoftmaxGradientParams>,
    layer_norm: Kernel<D, LayerNormParams>,
    layer_norm_gradient: Kernel<D, NormGradientParams>,
    column_moments: Kernel<D, ColumnMomentsParams>,
    batch_norm: Kernel<D, BatchNormParams>,
    norm_sums: Kernel<D, NormGradientParams>,
    norm_totals: Kernel<D, NormGradientParams>,
    batch_norm_gradient: Kernel<D, NormGradientParams>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        Ok(Kernels {
            softmax: Kernel::of(device, "softmax", E::DTYPE)?,
            softmax_gradient: Kernel::of(device, "softmax_gradient", E::DTYPE)?,
            layer_norm: Kernel::of(device, "layer_norm", E::DTYPE)?,
            layer_norm_gradient: Kernel::of(device, "layer_norm_gradient", E::DTYPE)?,
            column_moments: Kernel::of(device, "column_moments", E::DTYPE)?,
            batch_norm: Kernel::of(device, "batch_norm", E::DTYPE)?,
            norm_sums: Kernel::of(device, "norm_sums", E::DTYPE)?,
            norm_totals: Kernel::of(device, "norm_totals", E::DTYPE)?,
            batch_norm_gradient: Kernel::of(device, "batch_norm_gradient", E::DTYPE)?,
        })
    })
}

/// Of each run of rows two sums for each column, and one of the weights.
pub(super) fn workspace<E: Element>(rows: usize, columns: usize) -> usize {
    let of_run = columns.saturating_mul(2).saturating_add(1);
    elements::<E>(bias_pieces(rows).saturating_mul(of_run), accumulator(E::DTYPE))
}

pub(super) fn softmax<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    x: TensorRef<'_>,
    valid: SoftmaxMask<'_>,
    y: TensorMut<'_>,
) -> Result<()> {
    let rows = check::rows("x", x.len(), columns)?;
    check::same(x.len(), &[("y", Some(y.len()))])?;
    let keys = valid.keys.map(|(keys, rows)| (keys.len(), rows));
    let rows_per_key = check::softmax(rows, columns, keys, valid.causal)?;
    let params = SoftmaxParams {
        x: gpu.at(&x)?,
        keys: gpu.at(&valid.keys.map(|(keys, _)| keys))?,
        y: gpu.at(&y)?,
        rows: rows as u64,
        columns: columns as u64,
        rows_per_key: rows_per_key as u64,
        queries: valid.causal.unwrap_or(0) as u64,
    };
    gpu.launch(&kernels(gpu)?.softmax, &by_warp(rows), &params)
}

pub(super) fn softmax_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    y: TensorRef<'_>,
    dy: TensorRef<'_>,
    dx: TensorMut<'_>,
) -> Result<()> {
    let rows = check::rows("y", y.len(), columns)?;
    check::same(y.len(), &[("dy", Some(dy.len())), ("dx", Some(dx.len()))])?;
    let params = SoftmaxGradientParams {
        y: gpu.at(&y)?,
        dy: gpu.at(&dy)?,
        dx: gpu.at(&dx)?,
        rows: rows as u64,
        columns: columns as u64,
    };
    gpu.launch(&kernels(gpu)?.softmax_gradient, &by_warp(rows), &params)
}

pub(super) fn layer_norm<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    epsilon: f64,
    x: TensorRef<'_>,
    gamma: Option<TensorRef<'_>>,
    beta: Option<TensorRef<'_>>,
    y: TensorMut<'_>,
    statistics: TensorMut<'_>,
) -> Result<()> {
    let vectors = [("gamma", len_of(&gamma)), ("beta", len_of(&beta))];
    let rows = check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
    check_len("statistics", &[rows, 2], statistics.len())?;
    let params = LayerNormParams {
        x: gpu.at(&x)?,
        gamma: gpu.at(&gamma)?,
        beta: gpu.at(&beta)?,
        y: gpu.at(&y)?,
        statistics: gpu.at(&statistics)?,
        rows: rows as u64,
        columns: columns as u64,
        epsilon,
    };
    gpu.launch(&kernels(gpu)?.layer_norm, &by_warp(rows), &params)
}

/// Sums of dy and of dy times the normal x over the rows, into dbeta, dgamma and the workspace.
fn norm_totals<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    params: &NormGradientParams,
    columns: usize,
) -> Result<()> {
    let kernels = kernels(gpu)?;
    narrow("columns", columns)?;
    gpu.launch(&kernels.norm_sums, &column_reduction(columns, params.pieces as usize, 3, E::DTYPE), params)?;
    gpu.launch(&kernels.norm_totals, &elementwise(2 * columns as u64 + 1), params)
}

pub(super) fn layer_norm_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    x: TensorRef<'_>,
    gamma: Option<TensorRef<'_>>,
    statistics: TensorRef<'_>,
    dy: TensorRef<'_>,
    dx: Option<TensorMut<'_>>,
    dgamma: Option<TensorMut<'_>>,
    dbeta: Option<TensorMut<'_>>,
    grad: WeightGrad,
    workspace: TensorMut<'_>,
) -> Result<()> {
    let others = [("dy", Some(dy.len())), ("dx", len_of(&dx))];
    let vectors = [("gamma", len_of(&gamma)), ("dgamma", len_of(&dgamma)), ("dbeta", len_of(&dbeta))];
    let rows = check::normalized(columns, x.len(), &others, &vectors)?;
    check_len("statistics", &[rows, 2], statistics.len())?;
    let partial = gpu.workspace_at(self::workspace::<E>(rows, columns), &workspace)?;
    let params = NormGradientParams {
        x: gpu.at(&x)?,
        statistics: gpu.at(&statistics)?,
        mean: DevicePtr::NULL,
        variance: DevicePtr::NULL,
        weights: DevicePtr::NULL,
        gamma: gpu.at(&gamma)?,
        dy: gpu.at(&dy)?,
        dx: gpu.at(&dx)?,
        dgamma: gpu.at(&dgamma)?,
        dbeta: gpu.at(&dbeta)?,
        partial,
        rows: rows as u64,
        columns: columns as u64,
        epsilon: 0.0,
        pieces: bias_pieces(rows) as u32,
        accumulate: accumulates(grad),
    };
    if dx.is_some() {
        gpu.launch(&kernels(gpu)?.layer_norm_gradient, &by_warp(rows), &params)?;
    }
    if dgamma.is_some() || dbeta.is_some() { norm_totals(gpu, &params, columns) } else { Ok(()) }
}

pub(super) fn column_moments<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    x: TensorRef<'_>,
    weights: Option<TensorRef<'_>>,
    mean: TensorMut<'_>,
    variance: TensorMut<'_>,
) -> Result<()> {
    let vectors = [("mean", Some(mean.len())), ("variance", Some(variance.len()))];
    let rows = check::normalized(columns, x.len(), &[], &vectors)?;
    check::same(rows, &[("weights", len_of(&weights))])?;
    narrow("columns", columns)?;
    let params = ColumnMomentsParams {
        x: gpu.at(&x)?,
        weights: gpu.at(&weights)?,
        mean: gpu.at(&mean)?,
        variance: gpu.at(&variance)?,
        rows: rows as u64,
        columns: columns as u64,
    };
    let launch = Launch {
        shared_bytes: REDUCTION_THREADS * accumulator(E::DTYPE) as u32,
        ..Launch::new([columns.div_ceil(MOMENT_COLUMNS) as u32, 1, 1], REDUCTION_THREADS)
    };
    gpu.launch(&kernels(gpu)?.column_moments, &launch, &params)
}

pub(super) fn batch_norm<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    epsilon: f64,
    x: TensorRef<'_>,
    mean: TensorRef<'_>,
    variance: TensorRef<'_>,
    gamma: Option<TensorRef<'_>>,
    beta: Option<TensorRef<'_>>,
    y: TensorMut<'_>,
) -> Result<()> {
    let vectors = [
        ("mean", Some(mean.len())),
        ("variance", Some(variance.len())),
        ("gamma", len_of(&gamma)),
        ("beta", len_of(&beta)),
    ];
    check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
    let len = x.len() as u64;
    let params = BatchNormParams {
        x: gpu.at(&x)?,
        mean: gpu.at(&mean)?,
        variance: gpu.at(&variance)?,
        gamma: gpu.at(&gamma)?,
        beta: gpu.at(&beta)?,
        y: gpu.at(&y)?,
        len,
        columns: columns as u64,
        epsilon,
    };
    gpu.launch(&kernels(gpu)?.batch_norm, &elementwise(len), &params)
}

pub(super) fn batch_norm_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    columns: usize,
    epsilon: f64,
    x: TensorRef<'_>,
    weights: Option<TensorRef<'_>>,
    mean: TensorRef<'_>,
    variance: TensorRef<'_>,
    gamma: Option<TensorRef<'_>>,
    dy: TensorRef<'_>,
    dx: Option<TensorMut<'_>>,
    dgamma: Option<TensorMut<'_>>,
    dbeta: Option<TensorMut<'_>>,
    grad: WeightGrad,
    workspace: TensorMut<'_>,
) -> Result<()> {
    let others = [("dy", Some(dy.len())), ("dx", len_of(&dx))];
    let vectors = [
        ("mean", Some(mean.len())),
        ("variance", Some(variance.len())),
        ("gamma", len_of(&gamma)),
        ("dgamma", len_of(&dgamma)),
        ("dbeta", len_of(&dbeta)),
    ];
    let rows = check::normalized(columns, x.len(), &others, &vectors)?;
    check::same(rows, &[("weights", len_of(&weights))])?;
    let partial = gpu.workspace_at(self::workspace::<E>(rows, columns), &workspace)?;
    let params = NormGradientParams {
        x: gpu.at(&x)?,
        statistics: DevicePtr::NULL,
        mean: gpu.at(&mean)?,
        variance: gpu.at(&variance)?,
        weights: gpu.at(&weights)?,
        gamma: gpu.at(&gamma)?,
        dy: gpu.at(&dy)?,
        dx: gpu.at(&dx)?,
        dgamma: gpu.at(&dgamma)?,
        dbeta: gpu.at(&dbeta)?,
        partial,
        rows: rows as u64,
        columns: columns as u64,
        epsilon,
        pieces: bias_pieces(rows) as u32,
        accumulate: accumulates(grad),
    };
    norm_totals(gpu, &params, columns)?;
    match dx {
        Some(dx) => gpu.launch(&kernels(gpu)?.batch_norm_gradient, &elementwise(dx.len() as u64), &params),
        None => Ok(()),
    }
}
