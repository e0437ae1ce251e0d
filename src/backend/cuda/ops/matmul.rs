//! Matrix products.

use std::sync::Arc;

use bytemuck::Zeroable;

use super::super::backend::CudaBackend;
use super::super::device::arena::{Arena, Place};
use super::super::device::{Device, DevicePtr};
use super::super::kernel::convert::Converters;
use super::super::kernel::gemm::{self, Gemm, ProductShape, Room};
use super::super::kernel::launch::{accumulator, elementwise};
use super::super::kernel::params::{ConvertParams, GemmParams, GemmTerm, Rows};
use super::super::options::{Compute, Matmul};
use super::arguments::{accumulates, elements, narrow};
use crate::backend::WeightGrad;
use crate::backend::ops::{MatMul, Orientation, check};
use crate::backend::tensor::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::error::Result;

/// Kernels of products, loaded.
#[derive(Debug)]
pub(super) struct Kernels<D: Device> {
    single: ByOrientation<D>,
    /// Batches of products, those of attention, stay f32 in mixed precision.
    batched: ByOrientation<D>,
    /// Where products of floats are computed in 16 bits.
    converters: Option<Converters<D>>,
}

#[derive(Debug)]
struct ByOrientation<D: Device> {
    nt: Gemm<D>,
    nn: Gemm<D>,
    tn: Gemm<D>,
}

impl<D: Device> ByOrientation<D> {
    fn load(device: &D, math: &str, matmul: Matmul) -> Result<Self> {
        Ok(ByOrientation {
            nt: Gemm::load(device, gemm::Orientation::Nt, math, matmul)?,
            nn: Gemm::load(device, gemm::Orientation::Nn, math, matmul)?,
            tn: Gemm::load(device, gemm::Orientation::Tn, math, matmul)?,
        })
    }

    fn of(&self, orientation: Orientation) -> &Gemm<D> {
        match orientation {
            Orientation::Nt => &self.nt,
            Orientation::Nn => &self.nn,
            Orientation::Tn => &self.tn,
        }
    }
}

pub(super) fn kernels<E: Element, D: Device>(gpu: &CudaBackend<E, D>) -> Result<Arc<Kernels<D>>> {
    gpu.kernels(|device| {
        let compute = gpu.options().compute;
        let (multiplied, math) = compute.of(E::DTYPE);
        let exact = if compute == Compute::Tf32 { compute } else { Compute::Exact }.of(E::DTYPE).1;
        Ok(Kernels {
            single: ByOrientation::load(device, math, gpu.options().matmul)?,
            batched: ByOrientation::load(device, exact, gpu.options().matmul)?,
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
    /// Partial sums.
    partials: usize,
    bytes: usize,
}

fn space<E: Element, D: Device>(gpu: &CudaBackend<E, D>, product: &MatMul) -> Result<Space> {
    let MatMul { count, orientation, m, n, k } = *product;
    let multiplied = gpu.options().compute.of(E::DTYPE).0;
    let (a_stride, b_stride) = strides(product);
    let wide = multiplied != E::DTYPE;
    let shape = ProductShape { m, n, k, strides: [a_stride, b_stride], terms: 1, count, groups: 1, wide };
    let mut arena = Arena::default();
    let partials = kernels(gpu)?.single.of(orientation).room_for(&shape)?;
    let mut space = Space { partials, ..Space::default() };
    if wide {
        space.a = arena.take("a in 16 bits", &[m, k], multiplied.size())?;
        space.b = arena.take("b in 16 bits", &[n, k], multiplied.size())?;
    }
    if partials > 0 {
        space.partial = arena.take("partial sums", &[partials], accumulator(E::DTYPE))?;
    }
    space.bytes = arena.bytes();
    Ok(space)
}

pub(super) fn workspace<E: Element, D: Device>(gpu: &CudaBackend<E, D>, product: &MatMul) -> usize {
    if product.count != 1 {
        return 0;
    }
    // Of sizes that overflow there is no tensor, and without kernels nothing runs: the call says so.
    space(gpu, product).map_or(usize::MAX, |space| elements::<E>(space.bytes, 1))
}

pub(super) fn matmul<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    a: TensorRef<'_>,
    b: TensorRef<'_>,
    bias: Option<TensorRef<'_>>,
    c: TensorMut<'_>,
    grad: WeightGrad,
    workspace: TensorMut<'_>,
) -> Result<()> {
    check::matmul(&product, a.len(), b.len(), c.len())?;
    if c.is_empty() {
        return Ok(());
    }
    let operands = Operands { a: gpu.at(&a)?, b: gpu.at(&b)?, bias: gpu.at(&bias)?, c: gpu.at(&c)? };
    if product.count == 1 {
        let workspace = gpu.workspace_at(self::workspace(gpu, &product), &workspace)?;
        single(gpu, product, alpha, operands, grad, workspace)
    } else {
        batched(gpu, product, alpha, operands, grad)
    }
}

/// Where a product's tensors are; its bias may be absent.
#[derive(Clone, Copy)]
struct Operands {
    a: DevicePtr,
    b: DevicePtr,
    bias: DevicePtr,
    c: DevicePtr,
}

fn single<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    mut operands: Operands,
    grad: WeightGrad,
    workspace: DevicePtr,
) -> Result<()> {
    let MatMul { orientation, m, n, k, .. } = product;
    let Operands { a, b, .. } = &mut operands;
    let kernels = kernels(gpu)?;
    let space = space(gpu, &product)?;
    if let Some(converters) = &kernels.converters {
        for (operand, place, len) in [(a, space.a, m * k), (b, space.b, n * k)] {
            let (from, len) = (*operand, len as u64);
            *operand = place.of(workspace);
            gpu.launch(&converters.narrow, &elementwise(len), &ConvertParams { from, to: *operand, len })?;
        }
    }
    let params = GemmParams {
        // Accumulators are floats, as c is.
        wide: kernels.converters.is_some().into(),
        ..params(&product, alpha, operands, grad)?
    };
    let room = Room { address: space.partial.of(workspace), len: space.partials };
    kernels.single.of(orientation).launch(gpu.device(), gpu.stream(), &params, room)
}

fn batched<E: Element, D: Device>(
    gpu: &CudaBackend<E, D>,
    product: MatMul,
    alpha: f64,
    operands: Operands,
    grad: WeightGrad,
) -> Result<()> {
    let MatMul { count, orientation, m, n, k } = product;
    let params = GemmParams {
        count: narrow("products of a batch", count)?,
        a_apart: (m * k) as u64,
        b_apart: (k * n) as u64,
        c_apart: (m * n) as u64,
        ..params(&product, alpha, operands, grad)?
    };
    kernels(gpu)?.batched.of(orientation).launch(gpu.device(), gpu.stream(), &params, Room::NONE)
}

/// Elements from a row of each operand to the next.
fn strides(product: &MatMul) -> (usize, usize) {
    let MatMul { orientation, m, n, k, .. } = *product;
    match orientation {
        Orientation::Nt => (k, k),
        Orientation::Nn => (k, n),
        Orientation::Tn => (m, n),
    }
}

/// Of one product.
fn params(product: &MatMul, alpha: f64, Operands { a, b, bias, c }: Operands, grad: WeightGrad) -> Result<GemmParams> {
    let MatMul { m, n, k, .. } = *product;
    let (a_stride, b_stride) = strides(product);
    let mut params =
        GemmParams { problems: 1, count: 1, splits: 1, accumulate: accumulates(grad), alpha, ..Zeroable::zeroed() };
    let term = GemmTerm {
        a: Rows::plain(a, a_stride),
        b: Rows::plain(b, b_stride),
        k: narrow("terms of a product", k)?,
        unused: 0,
    };
    let problem = &mut params.problem[0];
    (problem.terms, problem.term[0], problem.c, problem.bias) = (1, term, Rows::plain(c, n), bias);
    (problem.m, problem.n) = (narrow("rows of a product", m)?, narrow("columns of a product", n)?);
    Ok(params)
}
