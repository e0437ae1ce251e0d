//! Steps of optimizers, and norms and checks of gradients.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::{Device, DevicePtr};
use super::super::kernel::launch::{Kernel, elementwise};
use super::arguments::len_of;
use super::loss::{reduction, reduction_of, reduction_workspace};
use super::params::{
    AdagradParams, AdamParams, CheckFiniteParams, ClipParams, RmsPropParams, SgdParams, SumOfSquaresParams,
};
use crate::backend::ops::{AdagradStep, AdamStep, RmsPropStep, SgdStep, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::{DType, Element};
use crate::error::Result;
use crate::rnn::shape::check_len;

/// Kernels of optimizers and gradients, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    adam: Kernel<D, AdamParams>,
    sgd: Kernel<D, SgdParams>,
    rmsprop: Kernel<D, RmsPropParams>,
    adagrad: Kernel<D, AdagradParams>,
    sum_of_squares: Kernel<D, SumOfSquaresParams>,
    finish_sum_of_squares: Kernel<D, SumOfSquaresParams>,
    clip: Kernel<D, ClipParams>,
    check_finite: Kernel<D, CheckFiniteParams>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        Ok(Kernels {
            adam: Kernel::of(device, "adam", E::DTYPE)?,
            sgd: Kernel::of(device, "sgd", E::DTYPE)?,
            rmsprop: Kernel::of(device, "rmsprop", E::DTYPE)?,
            adagrad: Kernel::of(device, "adagrad", E::DTYPE)?,
            sum_of_squares: Kernel::of(device, "sum_of_squares", E::DTYPE)?,
            finish_sum_of_squares: Kernel::load(device, "finish_sum_of_squares")?,
            clip: Kernel::of(device, "clip", E::DTYPE)?,
            check_finite: Kernel::of(device, "check_finite", E::DTYPE)?,
        })
    })
}

pub(super) fn adam<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    step: AdamStep,
    parameters: TensorMut<'_>,
    gradients: TensorRef<'_>,
    m: TensorMut<'_>,
    v: TensorMut<'_>,
) -> Result<()> {
    let len = parameters.len();
    check::same(len, &[("gradients", Some(gradients.len())), ("m", Some(m.len())), ("v", Some(v.len()))])?;
    let params = AdamParams {
        parameters: gpu.at(&parameters)?,
        gradients: gpu.at(&gradients)?,
        m: gpu.at(&m)?,
        v: gpu.at(&v)?,
        len: len as u64,
        rate: step.rate,
        beta_1: step.beta_1,
        beta_2: step.beta_2,
        epsilon: step.epsilon,
        decay: step.decay,
    };
    gpu.launch(&kernels(gpu)?.adam, &elementwise(len as u64), &params)
}

pub(super) fn sgd<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    step: SgdStep,
    parameters: TensorMut<'_>,
    gradients: TensorRef<'_>,
    velocity: Option<TensorMut<'_>>,
) -> Result<()> {
    let len = parameters.len();
    check::same(len, &[("gradients", Some(gradients.len())), ("velocity", len_of(&velocity))])?;
    let params = SgdParams {
        parameters: gpu.at(&parameters)?,
        gradients: gpu.at(&gradients)?,
        velocity: gpu.at(&velocity)?,
        len: len as u64,
        rate: step.rate,
        momentum: step.momentum,
        nesterov: step.nesterov.into(),
        unused: 0,
    };
    gpu.launch(&kernels(gpu)?.sgd, &elementwise(len as u64), &params)
}

pub(super) fn rmsprop<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    step: RmsPropStep,
    parameters: TensorMut<'_>,
    gradients: TensorRef<'_>,
    mean_square: TensorMut<'_>,
    mean: Option<TensorMut<'_>>,
    velocity: Option<TensorMut<'_>>,
) -> Result<()> {
    let len = parameters.len();
    check::same(
        len,
        &[
            ("gradients", Some(gradients.len())),
            ("mean_square", Some(mean_square.len())),
            ("mean", len_of(&mean)),
            ("velocity", len_of(&velocity)),
        ],
    )?;
    let params = RmsPropParams {
        parameters: gpu.at(&parameters)?,
        gradients: gpu.at(&gradients)?,
        mean_square: gpu.at(&mean_square)?,
        mean: gpu.at(&mean)?,
        velocity: gpu.at(&velocity)?,
        len: len as u64,
        rate: step.rate,
        rho: step.rho,
        momentum: step.momentum,
        epsilon: step.epsilon,
    };
    gpu.launch(&kernels(gpu)?.rmsprop, &elementwise(len as u64), &params)
}

pub(super) fn adagrad<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    step: AdagradStep,
    parameters: TensorMut<'_>,
    gradients: TensorRef<'_>,
    sums: TensorMut<'_>,
) -> Result<()> {
    let len = parameters.len();
    check::same(len, &[("gradients", Some(gradients.len())), ("sums", Some(sums.len()))])?;
    let params = AdagradParams {
        parameters: gpu.at(&parameters)?,
        gradients: gpu.at(&gradients)?,
        sums: gpu.at(&sums)?,
        len: len as u64,
        rate: step.rate,
        epsilon: step.epsilon,
    };
    gpu.launch(&kernels(gpu)?.adagrad, &elementwise(len as u64), &params)
}

pub(super) fn sum_of_squares_workspace<E: Element>() -> usize {
    reduction_workspace::<E>()
}

pub(super) fn sum_of_squares<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    x: TensorRef<'_>,
    sum: TensorMut<'_>,
    workspace: TensorMut<'_>,
) -> Result<()> {
    check_len("sum", &[1], sum.len())?;
    let partial = gpu.workspace_at(reduction_workspace::<E>(), &workspace)?;
    let launch = reduction(x.len() as u64);
    let params = SumOfSquaresParams {
        x: gpu.at(&x)?,
        partial,
        sum: gpu.at_as(DType::F64, &sum)?,
        len: x.len() as u64,
        count: launch.grid[0],
        unused: 0,
    };
    let kernels = kernels(gpu)?;
    gpu.launch(&kernels.sum_of_squares, &launch, &params)?;
    gpu.launch(&kernels.finish_sum_of_squares, &reduction_of(1), &params)
}

pub(super) fn clip_by_norm<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    most: f64,
    sum_of_squares: TensorRef<'_>,
    x: TensorMut<'_>,
) -> Result<()> {
    check_len("sum_of_squares", &[1], sum_of_squares.len())?;
    clip(gpu, most, gpu.at_as(DType::F64, &sum_of_squares)?, x)
}

pub(super) fn clip_by_value<E: Element, D: Device>(gpu: &CudaBackend<E, D>, most: f64, x: TensorMut<'_>) -> Result<()> {
    clip(gpu, most, DevicePtr::NULL, x)
}

/// By norm, or without a sum of squares by value.
fn clip<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    most: f64,
    sum_of_squares: DevicePtr,
    x: TensorMut<'_>,
) -> Result<()> {
    let len = x.len() as u64;
    gpu.launch(&kernels(gpu)?.clip, &elementwise(len), &ClipParams { x: gpu.at(&x)?, sum_of_squares, len, most })
}

pub(super) fn check_finite<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    x: TensorRef<'_>,
    code: u32,
    status: TensorMut<'_>,
) -> Result<()> {
    check::status(status.len())?;
    let len = x.len() as u64;
    let params = CheckFiniteParams { x: gpu.at(&x)?, status: gpu.at_as(DType::F64, &status)?, len, code, unused: 0 };
    gpu.launch(&kernels(gpu)?.check_finite, &elementwise(len), &params)
}
