//! Losses, and what reductions to one number have in common.

use std::sync::Arc;

use super::super::backend::CudaBackend;
use super::super::device::{Device, Launch};
use super::super::images::catalog::REDUCTION_THREADS;
use super::super::kernel::launch::Kernel;
use super::arguments::{elements, len_of};
use super::params::{FinishLossParams, LossParams, loss_kind};
use crate::backend::ops::{LossEntry, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::loss::Loss;

/// Most blocks of a reduction. A constant, so that sums have one order on all GPUs.
const REDUCTION_BLOCKS: u64 = 256;
/// Elements that a thread of a reduction has at least, before there is another block.
const REDUCTION_ELEMENTS: u64 = 4;

/// Blocks of a reduction over `len` elements.
pub(super) fn reduction(len: u64) -> Launch {
    let blocks = len.div_ceil(u64::from(REDUCTION_THREADS) * REDUCTION_ELEMENTS).clamp(1, REDUCTION_BLOCKS);
    reduction_of(blocks as u32)
}

/// A reduction with a double for each warp.
pub(super) fn reduction_of(blocks: u32) -> Launch {
    Launch { shared_bytes: REDUCTION_THREADS / 32 * 8, ..Launch::new([blocks, 1, 1], REDUCTION_THREADS) }
}

/// Elements of a workspace for the sums of all blocks, doubles.
pub(super) fn reduction_workspace<E: Element>() -> usize {
    elements::<E>(REDUCTION_BLOCKS as usize, size_of::<f64>())
}

/// Kernels of losses, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    elementwise_loss: Kernel<D, LossParams>,
    categorical_loss: Kernel<D, LossParams>,
    finish_loss: Kernel<D, FinishLossParams>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        Ok(Kernels {
            elementwise_loss: Kernel::of(device, "elementwise_loss", E::DTYPE)?,
            categorical_loss: Kernel::of(device, "categorical_loss", E::DTYPE)?,
            finish_loss: Kernel::load(device, "finish_loss")?,
        })
    })
}

pub(super) fn workspace<E: Element>() -> usize {
    reduction_workspace::<E>()
}

pub(super) fn loss<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    loss: Loss,
    columns: usize,
    targets: TensorRef<'_>,
    predictions: TensorRef<'_>,
    weights: Option<TensorRef<'_>>,
    gradient: Option<TensorMut<'_>>,
    entry: LossEntry,
    status: TensorMut<'_>,
    workspace: TensorMut<'_>,
) -> Result<()> {
    let len = predictions.len();
    let rows = check::loss(loss, columns, targets.len(), len, len_of(&weights), len_of(&gradient))?;
    check::status(status.len())?;
    let Some((kind, delta)) = loss_kind(loss) else {
        let why = "it has no kernel; compute it on the host, as models do";
        return Err(Error::unsupported(format!("the loss {} on a GPU", loss.name()), why));
    };
    let partial = gpu.workspace_at(self::workspace::<E>(), &workspace)?;
    let kernels = kernels(gpu)?;
    let (kernel, launch, observations) = if loss.is_by_row() {
        let blocks = (rows as u64).div_ceil(u64::from(REDUCTION_THREADS) / 32).clamp(1, REDUCTION_BLOCKS);
        (&kernels.categorical_loss, reduction_of(blocks as u32), rows)
    } else {
        (&kernels.elementwise_loss, reduction(len as u64), len)
    };
    let scale = 1.0 / observations as f64;
    let params = LossParams {
        targets: gpu.at(&targets)?,
        predictions: gpu.at(&predictions)?,
        gradient: gpu.at(&gradient)?,
        weights: gpu.at(&weights)?,
        partial,
        rows: rows as u64,
        columns: columns as u64,
        delta,
        scale,
        kind,
        sparse: loss.is_sparse().into(),
    };
    gpu.launch(kernel, &launch, &params)?;
    let params = FinishLossParams {
        partial,
        status: gpu.at_as(DType::F64, &status)?,
        scale,
        weight: entry.weight,
        count: launch.grid[0],
        code: entry.code,
    };
    gpu.launch(&kernels.finish_loss, &reduction_of(1), &params)
}
