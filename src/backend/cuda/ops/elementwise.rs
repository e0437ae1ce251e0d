//! Activations, arithmetic, dropout and moves of elements.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::{Device, Launch};
use super::super::images::catalog::ELEMENTWISE_THREADS;
use super::super::kernel::launch::{GRID, Kernel, elementwise};
use super::super::kernel::params::{DropoutParams, Rows};
use super::arguments::{accumulates, len_of, narrow};
use super::params::{
    ActivationGradientParams, BiasActivationParams, FillParams, MultiplyParams, ScaleAddParams, ScaleRowsParams,
    SelectRowsParams, StridedCopyParams,
};
use crate::backend::WeightGrad;
use crate::backend::ops::{Strides, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::cell::Activation;
use crate::dtype::Element;
use crate::error::{Error, Result};
use crate::rnn::Dropout;

/// Kernels on elements, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    bias_activation: Kernel<D, BiasActivationParams>,
    activation_gradient: Kernel<D, ActivationGradientParams>,
    multiply: Kernel<D, MultiplyParams>,
    fill: Kernel<D, FillParams>,
    scale_add: Kernel<D, ScaleAddParams>,
    scale_rows: Kernel<D, ScaleRowsParams>,
    select_rows: Kernel<D, SelectRowsParams>,
    strided_copy: Kernel<D, StridedCopyParams>,
    dropout: Kernel<D, DropoutParams>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        Ok(Kernels {
            bias_activation: Kernel::of(device, "bias_activation", E::DTYPE)?,
            activation_gradient: Kernel::of(device, "activation_gradient", E::DTYPE)?,
            multiply: Kernel::of(device, "multiply", E::DTYPE)?,
            fill: Kernel::of(device, "fill", E::DTYPE)?,
            scale_add: Kernel::of(device, "scale_add", E::DTYPE)?,
            scale_rows: Kernel::of(device, "scale_rows", E::DTYPE)?,
            select_rows: Kernel::of(device, "select_rows", E::DTYPE)?,
            strided_copy: Kernel::of(device, "strided_copy", E::DTYPE)?,
            dropout: Kernel::of(device, "dropout", E::DTYPE)?,
        })
    })
}

pub(super) fn fill<E: Element, D: Device>(gpu: &CudaBackend<E, D>, x: TensorMut<'_>, value: f64) -> Result<()> {
    let len = x.len() as u64;
    gpu.launch(&kernels(gpu)?.fill, &elementwise(len), &FillParams { x: gpu.at(&x)?, len, value })
}

pub(super) fn scale_add<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    alpha: f64,
    x: TensorRef<'_>,
    beta: f64,
    y: TensorMut<'_>,
) -> Result<()> {
    check::same(x.len(), &[("y", Some(y.len()))])?;
    let len = x.len() as u64;
    let params = ScaleAddParams { x: gpu.at(&x)?, y: gpu.at(&y)?, len, alpha, beta };
    gpu.launch(&kernels(gpu)?.scale_add, &elementwise(len), &params)
}

pub(super) fn scale<E: Element, D: Device>(gpu: &CudaBackend<E, D>, alpha: f64, x: TensorMut<'_>) -> Result<()> {
    let (address, len) = (gpu.at(&x)?, x.len() as u64);
    let params = ScaleAddParams { x: address, y: address, len, alpha, beta: 0.0 };
    gpu.launch(&kernels(gpu)?.scale_add, &elementwise(len), &params)
}

pub(super) fn strided_copy<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    shape: [usize; 4],
    from: TensorRef<'_>,
    from_layout: Strides,
    to: TensorMut<'_>,
    to_layout: Strides,
    grad: WeightGrad,
) -> Result<()> {
    if !check::strided(shape, (from_layout, from.len()), (to_layout, to.len()))? {
        return Ok(());
    }
    // As many elements of `to` are written, so this does not overflow.
    let len: usize = shape.iter().product();
    let params = StridedCopyParams {
        from: gpu.at(&from)?.offset(from_layout.offset * size_of::<E>()),
        to: gpu.at(&to)?.offset(to_layout.offset * size_of::<E>()),
        from_stride: from_layout.strides.map(|stride| stride as i64),
        to_stride: to_layout.strides.map(|stride| stride as i64),
        shape: shape.map(|size| size as u64),
        accumulate: accumulates(grad),
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.strided_copy, &elementwise(len as u64), &params)
}

pub(super) fn multiply<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    a: TensorRef<'_>,
    b: TensorRef<'_>,
    out: TensorMut<'_>,
) -> Result<()> {
    check::same(a.len(), &[("b", Some(b.len())), ("out", Some(out.len()))])?;
    let len = a.len() as u64;
    let params = MultiplyParams { a: gpu.at(&a)?, b: gpu.at(&b)?, out: gpu.at(&out)?, len };
    gpu.launch(&kernels(gpu)?.multiply, &elementwise(len), &params)
}

pub(super) fn add_bias_activate<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    activation: Activation,
    bias: Option<TensorRef<'_>>,
    values: TensorMut<'_>,
    inputs: Option<TensorMut<'_>>,
) -> Result<()> {
    if let Some(bias) = bias {
        check::rows("values", values.len(), bias.len())?;
    }
    check::same(values.len(), &[("inputs", len_of(&inputs))])?;
    let len = values.len() as u64;
    let params = BiasActivationParams {
        f: activation.into(),
        values: gpu.at(&values)?,
        bias: gpu.at(&bias)?,
        inputs: gpu.at(&inputs)?,
        len,
        columns: bias.map_or(1, |bias| bias.len() as u64),
    };
    gpu.launch(&kernels(gpu)?.bias_activation, &elementwise(len), &params)
}

pub(super) fn activation_gradient<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    activation: Activation,
    dy: TensorRef<'_>,
    values: TensorRef<'_>,
    dx: TensorMut<'_>,
) -> Result<()> {
    check::same(dy.len(), &[("values", Some(values.len())), ("dx", Some(dx.len()))])?;
    let len = dy.len() as u64;
    let params = ActivationGradientParams {
        f: activation.into(),
        dy: gpu.at(&dy)?,
        values: gpu.at(&values)?,
        dx: gpu.at(&dx)?,
        len,
    };
    gpu.launch(&kernels(gpu)?.activation_gradient, &elementwise(len), &params)
}

pub(super) fn scale_rows<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    factors: TensorRef<'_>,
    inverse: bool,
    x: TensorRef<'_>,
    y: TensorMut<'_>,
) -> Result<()> {
    let columns = check::by_rows(factors.len(), x.len())?;
    check::same(x.len(), &[("y", Some(y.len()))])?;
    let len = x.len() as u64;
    let params = ScaleRowsParams {
        factors: gpu.at(&factors)?,
        x: gpu.at(&x)?,
        y: gpu.at(&y)?,
        len,
        columns: columns as u64,
        inverse: inverse.into(),
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.scale_rows, &elementwise(len), &params)
}

pub(super) fn select_rows<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    mask: TensorRef<'_>,
    a: TensorRef<'_>,
    b: Option<TensorRef<'_>>,
    out: TensorMut<'_>,
) -> Result<()> {
    let columns = check::by_rows(mask.len(), a.len())?;
    check::same(a.len(), &[("b", len_of(&b)), ("out", Some(out.len()))])?;
    let len = a.len() as u64;
    let params = SelectRowsParams {
        mask: gpu.at(&mask)?,
        a: gpu.at(&a)?,
        b: gpu.at(&b)?,
        out: gpu.at(&out)?,
        len,
        columns: columns as u64,
    };
    gpu.launch(&kernels(gpu)?.select_rows, &elementwise(len), &params)
}

pub(super) fn dropout<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    dropout: &Dropout,
    layer: usize,
    batch: usize,
    features: usize,
    x: TensorRef<'_>,
    y: TensorMut<'_>,
) -> Result<()> {
    if batch == 0 {
        return Err(Error::ZeroSize { name: "batch" });
    }
    let rows = check::rows("x", x.len(), features)?;
    check::rows("x", rows, batch)?;
    check::same(x.len(), &[("y", Some(y.len()))])?;
    if rows == 0 {
        return Ok(());
    }
    let params = DropoutParams {
        x: Rows::plain(gpu.at(&x)?, features),
        out: gpu.at(&y)?,
        seed: dropout.seed(),
        threshold: dropout.threshold(),
        scale: dropout.scale(),
        rows: narrow("steps * batch", rows)?,
        batch: narrow("batch", batch)?,
        features: narrow("features", features)?,
        layer: narrow("layer", layer)?,
    };
    let x_blocks = features.div_ceil(4).div_ceil(ELEMENTWISE_THREADS as usize) as u32;
    let launch = Launch::new([x_blocks, rows.min(GRID) as u32, 1], ELEMENTWISE_THREADS);
    gpu.launch(&kernels(gpu)?.dropout, &launch, &params)
}
