//! Matrix products.

use std::sync::Arc;

use bytemuck::Zeroable;

use super::super::backend::CudaBackend;
use super::super::device::arena::{Arena, Place};
use super::super::device::{Device, DevicePtr};
use super::super::images::catalog::GEMM_TILES;
use super::super::kernel::convert::Converters;
use super::super::kernel::gemm::{GemmKernel, LARGE_TILE_ROWS, weight_splits};
use super::super::kernel::launch::{GRID, Kernel, accumulator, elementwise, partial_sums};
use super::super::kernel::params::{ConvertParams, GemmParams, GemmProblem, GemmTerm, Rows, SumPartialsParams};
use super::super::options::Compute;
use super::arguments::{accumulates, elements, narrow};
use super::params::BatchedGemmParams;
use crate::backend::WeightGrad;
use crate::backend::ops::{MatMul, Orientation, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::error::{Error, Result};

/// Kernels of products, loaded. Of each orientation the small and the large tile, but for `tn`.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    nt: [GemmKernel<D, GemmParams>; 2],
    nn: [GemmKernel<D, GemmParams>; 2],
    tn: GemmKernel<D, GemmParams>,
    batched_nt: [GemmKernel<D, BatchedGemmParams>; 2],
    batched_nn: [GemmKernel<D, BatchedGemmParams>; 2],
    batched_tn: [GemmKernel<D, BatchedGemmParams>; 2],
    sum_partials: Kernel<D, SumPartialsParams>,
    /// Where products of floats are computed in 16 bits.
    converters: Option<Converters<D>>,
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        let compute = gpu.options().compute;
        let (multiplied, math) = compute.of(E::DTYPE);
        let gemm = |orientation: &str, tile: usize| GemmKernel::load(device, "gemm", orientation, math, tile);
        // Batches of products, those of attention, stay f32 in mixed precision.
        let exact = if compute == Compute::Tf32 { compute } else { Compute::Exact }.of(E::DTYPE).1;
        let batched = |orientation: &str| -> Result<[GemmKernel<D, BatchedGemmParams>; 2]> {
            let tile = |tile: usize| GemmKernel::load(device, "batched_gemm", orientation, exact, tile);
            Ok([tile(0)?, tile(1)?])
        };
        Ok(Kernels {
            nt: [gemm("nt", 0)?, gemm("nt", 1)?],
            nn: [gemm("nn", 0)?, gemm("nn", 1)?],
            tn: gemm("tn", 0)?,
            batched_nt: batched("nt")?,
            batched_nn: batched("nn")?,
            batched_tn: batched("tn")?,
            sum_partials: Kernel::of(device, "sum_partials", E::DTYPE)?,
            converters: (multiplied != E::DTYPE).then(|| Converters::load(device, multiplied)).transpose()?,
        })
    })
}

/// Where copies in 16 bits of a single product's operands and its partial sums stand in its workspace, and the bytes of all.
#[derive(Clone, Copy, Debug, Default)]
struct Space {
    a: Place,
    b: Place,
    partial: Place,
    splits: usize,
    bytes: usize,
}

fn space<E: Element, D: Device>(gpu: &CudaBackend<E, D>, product: &MatMul) -> Result<Space> {
    let MatMul { m, n, k, .. } = *product;
    let (multiplied, splits) = (gpu.options().compute.of(E::DTYPE).0, splits(gpu, product));
    let mut arena = Arena::default();
    let mut space = Space { splits, ..Space::default() };
    if multiplied != E::DTYPE {
        space.a = arena.take("a in 16 bits", &[m, k], multiplied.size())?;
        space.b = arena.take("b in 16 bits", &[n, k], multiplied.size())?;
    }
    if splits > 1 {
        space.partial = arena.take("partial sums", &[m, n, splits], accumulator(E::DTYPE))?;
    }
    space.bytes = arena.bytes();
    Ok(space)
}

/// Pieces of a single product's sums, so that every multiprocessor has work.
fn splits<E: Element, D: Device>(gpu: &CudaBackend<E, D>, product: &MatMul) -> usize {
    match product.orientation {
        Orientation::Nt | Orientation::Nn => 1,
        Orientation::Tn => {
            let multiprocessors = gpu.device().properties().multiprocessors as usize;
            weight_splits(product.m, product.n, product.k, 1, multiprocessors, gpu.options().compute.of(E::DTYPE).1)
        }
    }
}

pub(super) fn workspace<E: Element, D: Device>(gpu: &CudaBackend<E, D>, product: &MatMul) -> usize {
    if product.count != 1 {
        return 0;
    }
    // Of sizes that overflow there is no tensor: the call refuses them.
    space(gpu, product).map_or(usize::MAX, |space| elements::<E>(space.bytes, 1))
}

pub(super) fn matmul<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    a: TensorRef<'_>,
    b: TensorRef<'_>,
    c: TensorMut<'_>,
    grad: WeightGrad,
    workspace: TensorMut<'_>,
) -> Result<()> {
    check::matmul(&product, a.len(), b.len(), c.len())?;
    if c.is_empty() {
        return Ok(());
    }
    let operands = (gpu.at(&a)?, gpu.at(&b)?, gpu.at(&c)?);
    if product.count == 1 {
        let workspace = gpu.workspace_at(self::workspace(gpu, &product), &workspace)?;
        single(gpu, product, alpha, operands, grad, workspace)
    } else {
        batched(gpu, product, alpha, operands, grad)
    }
}

fn single<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    (mut a, mut b, c): (DevicePtr, DevicePtr, DevicePtr),
    grad: WeightGrad,
    workspace: DevicePtr,
) -> Result<()> {
    let MatMul { orientation, m, n, k, .. } = product;
    let kernels = kernels(gpu)?;
    let tile = usize::from(m < LARGE_TILE_ROWS);
    let (kernel, a_stride, b_stride) = match orientation {
        Orientation::Nt => (&kernels.nt[tile], k, k),
        Orientation::Nn => (&kernels.nn[tile], k, n),
        Orientation::Tn => (&kernels.tn, m, n),
    };
    let space = space(gpu, &product)?;
    if let Some(converters) = &kernels.converters {
        for (operand, place, len) in [(&mut a, space.a, m * k), (&mut b, space.b, n * k)] {
            let (from, len) = (*operand, len as u64);
            *operand = place.of(workspace);
            gpu.launch(&converters.narrow, &elementwise(len), &ConvertParams { from, to: *operand, len })?;
        }
    }
    let mut params = GemmParams {
        splits: space.splits as u32,
        accumulate: accumulates(grad),
        // Accumulators are floats, as c is.
        wide: kernels.converters.is_some().into(),
        alpha,
        ..Zeroable::zeroed()
    };
    let partial = space.partial.of(workspace);
    let mut problem = GemmProblem {
        c: Rows::plain(if space.splits > 1 { partial } else { c }, n),
        terms: 1,
        m: narrow("rows of a product", m)?,
        n: narrow("columns of a product", n)?,
        ..Zeroable::zeroed()
    };
    problem.term[0] = GemmTerm {
        a: Rows::plain(a, a_stride),
        b: Rows::plain(b, b_stride),
        k: narrow("terms of a product", k)?,
        unused: 0,
    };
    params.problem[0] = problem;
    let launch = kernel.launch(m, n, 1, space.splits);
    check_columns(n, launch.grid[1])?;
    gpu.launch(kernel.kernel(), &launch, &params)?;
    if space.splits > 1 { sum_partials(gpu, partial, space.splits, alpha, c, m * n, grad) } else { Ok(()) }
}

fn batched<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    (a, b, c): (DevicePtr, DevicePtr, DevicePtr),
    grad: WeightGrad,
) -> Result<()> {
    let MatMul { count, orientation, m, n, k } = product;
    let params = BatchedGemmParams {
        a,
        b,
        c,
        count: count as u64,
        alpha,
        m: narrow("rows of a product", m)?,
        n: narrow("columns of a product", n)?,
        k: narrow("terms of a product", k)?,
        accumulate: accumulates(grad),
    };
    let kernels = kernels(gpu)?;
    let tile = usize::from(m < LARGE_TILE_ROWS);
    let kernel = match orientation {
        Orientation::Nt => &kernels.batched_nt[tile],
        Orientation::Nn => &kernels.batched_nn[tile],
        Orientation::Tn => &kernels.batched_tn[tile],
    };
    let launch = kernel.launch(m, n, count.min(GRID), 1);
    check_columns(n, launch.grid[1])?;
    gpu.launch(kernel.kernel(), &launch, &params)
}

fn check_columns(n: usize, blocks: u32) -> Result<()> {
    if blocks as usize <= GRID {
        return Ok(());
    }
    let most = GRID * GEMM_TILES[1].3 as usize;
    Err(Error::unsupported(format!("a product with {n} columns"), format!("the CUDA kernels take at most {most}")))
}

/// `out (+)= alpha` times the sum of `count` partial sums of `len` elements each.
pub(super) fn sum_partials<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    partial: DevicePtr,
    count: usize,
    alpha: f64,
    out: DevicePtr,
    len: usize,
    grad: WeightGrad,
) -> Result<()> {
    let params = SumPartialsParams {
        partial,
        out,
        len: len as u64,
        stride: len as u64,
        count: count as u32,
        accumulate: accumulates(grad),
        alpha,
    };
    gpu.launch(&kernels(gpu)?.sum_partials, &partial_sums(len), &params)
}
