//! The dense operations as launches, and tensors in a device's memory.
#![allow(unsafe_code)]

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};

use bytemuck::{Pod, Zeroable};

use super::CudaBackend;
use super::catalog::{ELEMENTWISE_THREADS, GEMM_TILES, REDUCTION_THREADS};
use super::device::{Device, DevicePtr, Launch};
use super::memory::DeviceBuffer;
use super::mixed::{Compute, Converters};
use super::params::{
    ActivationGradientParams, AdagradParams, AdamParams, BiasActivationParams, BiasGradientParams, CheckFiniteParams,
    ClipParams, Combination, CombineParams, ConvertParams, CopyColumnsParams, DropoutParams, FillParams,
    FinishLossParams, GatherParams, GemmParams, GemmProblem, GemmTerm, LossParams, RmsPropParams, Rows,
    ScatterAddParams, SgdParams, SumOfSquaresParams, SumPartialsParams, loss_kind,
};
use super::plan::{GemmKernel, LARGE_TILE_ROWS, bias_pieces, weight_splits};
use super::pointer;
use super::space::{Arena, Place};
use crate::backend::dense::{
    AdagradStep, AdamStep, Columns, DenseBackend, DenseCall, LossEntry, Memory, Orientation, Product, RmsPropStep,
    SgdStep, check,
};
use crate::backend::host::check_at_least;
use crate::backend::{Storage, WeightGrad};
use crate::cell::Activation;
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::rnn::shape::check_len;

/// Most blocks of an elementwise launch: enough to fill any GPU; threads take several elements beyond that.
const ELEMENTWISE_BLOCKS: u64 = 4096;
/// Most blocks of a reduction. A constant, so that sums have one order on all GPUs.
const REDUCTION_BLOCKS: u64 = 256;
/// Elements that a thread of a reduction has at least, before there is another block.
const REDUCTION_ELEMENTS: u64 = 4;
/// Rows of the table, or indices, that one launch takes.
const MOST_BLOCKS: u64 = i32::MAX as u64;

/// Kernels of the dense operations on one element type, loaded.
#[derive(Debug)]
pub(crate) struct DenseKernels<D: Device> {
    /// Small and large tile, by orientation; the last has one.
    gemm_nt: [GemmKernel<D::Kernel>; 2],
    gemm_nn: [GemmKernel<D::Kernel>; 2],
    gemm_tn: GemmKernel<D::Kernel>,
    sum_partials: D::Kernel,
    column_sums: D::Kernel,
    dropout: D::Kernel,
    bias_activation: D::Kernel,
    activation_gradient: D::Kernel,
    combine: D::Kernel,
    copy_columns: D::Kernel,
    fill: D::Kernel,
    adam: D::Kernel,
    sgd: D::Kernel,
    rmsprop: D::Kernel,
    adagrad: D::Kernel,
    elementwise_loss: D::Kernel,
    categorical_loss: D::Kernel,
    finish_loss: D::Kernel,
    sum_of_squares: D::Kernel,
    finish_sum_of_squares: D::Kernel,
    clip: D::Kernel,
    check_finite: D::Kernel,
    gather: D::Kernel,
    scatter_add: D::Kernel,
    /// Where products of floats are computed in 16 bits.
    converters: Option<Converters<D>>,
}

impl<D: Device> DenseKernels<D> {
    fn load(device: &D, dtype: DType, compute: Compute) -> Result<Self> {
        let (multiplied, math) = compute.of(dtype);
        let kernel = |name: &str| device.kernel(&format!("{name}_{dtype}"));
        let gemm = |orientation: &str, tile: usize| GemmKernel::load(device, orientation, math, tile);
        Ok(DenseKernels {
            gemm_nt: [gemm("nt", 0)?, gemm("nt", 1)?],
            gemm_nn: [gemm("nn", 0)?, gemm("nn", 1)?],
            gemm_tn: gemm("tn", 0)?,
            sum_partials: kernel("sum_partials")?,
            column_sums: kernel("bias_gradient")?,
            dropout: kernel("dropout")?,
            bias_activation: kernel("bias_activation")?,
            activation_gradient: kernel("activation_gradient")?,
            combine: kernel("combine")?,
            copy_columns: kernel("copy_columns")?,
            fill: kernel("fill")?,
            adam: kernel("adam")?,
            sgd: kernel("sgd")?,
            rmsprop: kernel("rmsprop")?,
            adagrad: kernel("adagrad")?,
            elementwise_loss: kernel("elementwise_loss")?,
            categorical_loss: kernel("categorical_loss")?,
            finish_loss: device.kernel("finish_loss")?,
            sum_of_squares: kernel("sum_of_squares")?,
            finish_sum_of_squares: device.kernel("finish_sum_of_squares")?,
            clip: kernel("clip")?,
            check_finite: kernel("check_finite")?,
            gather: kernel("gather")?,
            scatter_add: kernel("scatter_add")?,
            converters: (multiplied != dtype).then(|| Converters::load(device, multiplied)).transpose()?,
        })
    }
}

/// See [`CudaBackend::gemm_space`].
#[derive(Clone, Copy, Debug, Default)]
struct GemmSpace {
    a: Place,
    b: Place,
    partial: Place,
    splits: usize,
    bytes: usize,
}

/// A tensor in a device's memory that is a part of another, or the copy of one of the host's.
#[derive(Debug)]
pub struct DeviceView<'a, T, D: Device> {
    buffer: DeviceBuffer<T, D>,
    source: PhantomData<&'a T>,
}

impl<T, D: Device> Deref for DeviceView<'_, T, D> {
    type Target = DeviceBuffer<T, D>;

    fn deref(&self) -> &Self::Target {
        &self.buffer
    }
}

/// The same, to be written.
#[derive(Debug)]
pub struct DeviceViewMut<'a, T, D: Device> {
    buffer: DeviceBuffer<T, D>,
    source: PhantomData<&'a mut T>,
}

impl<T, D: Device> Deref for DeviceViewMut<'_, T, D> {
    type Target = DeviceBuffer<T, D>;

    fn deref(&self) -> &Self::Target {
        &self.buffer
    }
}

impl<T, D: Device> DerefMut for DeviceViewMut<'_, T, D> {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.buffer
    }
}

impl<E: Element, D: Device> Memory for CudaBackend<E, D> {
    type Tensor<T: Pod> = DeviceBuffer<T, D>;
    type Owned<T: Pod> = DeviceBuffer<T, D>;
    type View<'a, T: Pod>
        = DeviceView<'a, T, D>
    where
        Self: 'a;
    type ViewMut<'a, T: Pod>
        = DeviceViewMut<'a, T, D>
    where
        Self: 'a;

    fn allocate<T: Pod>(&self, what: &str, len: usize) -> Result<DeviceBuffer<T, D>> {
        let mut buffer = DeviceBuffer::new(&self.device, what, len)?;
        buffer.fill_bytes(&self.stream, 0)?;
        Ok(buffer)
    }

    fn take<T: Pod>(&self, what: &str, values: Vec<T>) -> Result<DeviceBuffer<T, D>> {
        DeviceBuffer::from_slice(&self.device, &self.stream, what, &values)
    }

    fn place<'a, T: Pod>(&self, what: &str, values: &'a [T]) -> Result<DeviceView<'a, T, D>>
    where
        Self: 'a,
    {
        let buffer = DeviceBuffer::from_slice(&self.device, &self.stream, what, values)?;
        Ok(DeviceView { buffer, source: PhantomData })
    }

    fn upload<T: Pod>(&self, from: &[T], to: &mut DeviceBuffer<T, D>) -> Result<()> {
        to.write(&self.stream, from)
    }

    fn download<T: Pod>(&self, from: &DeviceBuffer<T, D>, to: &mut [T]) -> Result<()> {
        from.read(&self.stream, to)
    }

    fn view<'a, T: Pod>(&self, tensor: &'a DeviceBuffer<T, D>, range: Range<usize>) -> Result<DeviceView<'a, T, D>>
    where
        Self: 'a,
    {
        Ok(DeviceView { buffer: tensor.part(range)?, source: PhantomData })
    }

    fn view_mut<'a, T: Pod>(
        &self,
        tensor: &'a mut DeviceBuffer<T, D>,
        range: Range<usize>,
    ) -> Result<DeviceViewMut<'a, T, D>>
    where
        Self: 'a,
    {
        Ok(DeviceViewMut { buffer: tensor.part(range)?, source: PhantomData })
    }

    fn split_mut<'a, T: Pod>(
        &self,
        tensor: &'a mut DeviceBuffer<T, D>,
        at: usize,
    ) -> Result<(DeviceViewMut<'a, T, D>, DeviceViewMut<'a, T, D>)>
    where
        Self: 'a,
    {
        let (first, second) = (tensor.part(0..at)?, tensor.part(at..tensor.len())?);
        Ok((
            DeviceViewMut { buffer: first, source: PhantomData },
            DeviceViewMut { buffer: second, source: PhantomData },
        ))
    }
}

/// Blocks of an elementwise launch over `len` elements.
pub(super) fn elementwise(len: u64) -> Launch {
    let blocks = len.div_ceil(ELEMENTWISE_THREADS.into()).clamp(1, ELEMENTWISE_BLOCKS);
    Launch::new([blocks as u32, 1, 1], ELEMENTWISE_THREADS)
}

/// Blocks of a reduction over `len` elements.
fn reduction(len: u64) -> Launch {
    let blocks = len.div_ceil(u64::from(REDUCTION_THREADS) * REDUCTION_ELEMENTS).clamp(1, REDUCTION_BLOCKS);
    reduction_of(blocks as u32)
}

/// A reduction with a double for each warp.
fn reduction_of(blocks: u32) -> Launch {
    Launch { shared_bytes: REDUCTION_THREADS / 32 * 8, ..Launch::new([blocks, 1, 1], REDUCTION_THREADS) }
}

pub(super) fn accumulates(grad: WeightGrad) -> u32 {
    (grad == WeightGrad::Add).into()
}

/// Elements of a tensor of `E` that hold `count` numbers of `bytes` bytes.
pub(super) fn elements<E>(count: usize, bytes: usize) -> usize {
    count.saturating_mul(bytes).div_ceil(size_of::<E>())
}

/// Bytes of a number in which products of a type are summed.
pub(super) fn accumulator(dtype: DType) -> usize {
    if dtype == DType::F64 { 8 } else { 4 }
}

/// A size as kernels count it.
pub(super) fn narrow(what: &str, size: usize) -> Result<u32> {
    i32::try_from(size).map(|size| size as u32).map_err(|_| {
        Error::unsupported(format!("{what} = {size}"), "the CUDA kernels take at most 2147483647; use smaller batches")
    })
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    fn dense(&self) -> Result<&DenseKernels<D>> {
        if let Some(kernels) = self.dense.get() {
            return Ok(kernels);
        }
        let loaded = DenseKernels::load(&*self.device, E::DTYPE, self.options.compute)?;
        // Whoever came first has loaded the same.
        Ok(self.dense.get_or_init(|| loaded))
    }

    /// How `gemm` multiplies.
    fn math(&self) -> &'static str {
        self.options.compute.of(E::DTYPE).1
    }

    /// Where copies in 16 bits of a product's operands and its partial sums stand in its workspace, and the bytes of all.
    fn gemm_space(&self, product: &Product) -> Result<GemmSpace> {
        let Product { m, n, k, .. } = *product;
        let (multiplied, splits) = (self.options.compute.of(E::DTYPE).0, self.splits(product));
        let mut arena = Arena::default();
        let mut space = GemmSpace { splits, ..GemmSpace::default() };
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

    pub(super) fn run<P: Pod>(&self, kernel: &D::Kernel, launch: &Launch, params: &P) -> Result<()> {
        // SAFETY: the addresses in `params` are those of tensors that the caller has borrowed for the call and whose lengths it
        // has checked against the sizes there; tensors that are dropped while the stream still works are given back only after.
        unsafe { self.device.launch(&self.stream, kernel, launch, bytemuck::bytes_of(params)) }
    }

    fn splits(&self, product: &Product) -> usize {
        match product.orientation {
            Orientation::Nt | Orientation::Nn => 1,
            Orientation::Tn => {
                let multiprocessors = self.device.properties().multiprocessors as usize;
                weight_splits(product.m, product.n, product.k, 1, multiprocessors, self.math())
            }
        }
    }

    fn sum_partials(&self, partial: DevicePtr, count: usize, out: &DeviceBuffer<E, D>, grad: WeightGrad) -> Result<()> {
        let params = SumPartialsParams {
            partial,
            out: out.pointer(),
            len: out.len() as u64,
            stride: out.len() as u64,
            count: count as u32,
            accumulate: accumulates(grad),
        };
        let blocks = out.len().div_ceil(REDUCTION_THREADS as usize).min(65_535) as u32;
        self.run(&self.dense()?.sum_partials, &Launch::new([blocks, 1, 1], REDUCTION_THREADS), &params)
    }

    fn combine(
        &self,
        combination: Combination,
        a: &DeviceBuffer<E, D>,
        b: &DeviceBuffer<E, D>,
        out: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        check::same(a.len(), &[("b", Some(b.len())), ("out", Some(out.len()))])?;
        let len = a.len() as u64;
        let params = CombineParams {
            a: a.pointer(),
            b: b.pointer(),
            out: out.pointer(),
            len,
            combination: combination as u32,
            unused: 0,
        };
        self.run(&self.dense()?.combine, &elementwise(len), &params)
    }

    pub(super) fn check_workspace(&self, call: DenseCall, workspace: &DeviceBuffer<E, D>) -> Result<()> {
        let needed = self.dense_workspace(call);
        if workspace.len() >= needed {
            return super::check_alignment("workspace", workspace.pointer());
        }
        check_at_least("workspace", needed, workspace.len())
    }
}

pub(super) fn len_of<E: Element, D: Device>(buffer: &Option<&mut DeviceBuffer<E, D>>) -> Option<usize> {
    buffer.as_ref().map(|buffer| buffer.len())
}

impl<E: Element, D: Device> DenseBackend for CudaBackend<E, D> {
    fn prepare_dense(&self) -> Result<()> {
        self.dense()?;
        self.tensor().map(|_| ())
    }

    fn dense_workspace(&self, call: DenseCall) -> usize {
        let sums = accumulator(E::DTYPE);
        match call {
            // Of sizes that overflow there is no tensor: the call refuses them.
            DenseCall::Gemm(product) => {
                self.gemm_space(&product).map_or(usize::MAX, |space| elements::<E>(space.bytes, 1))
            }
            DenseCall::ColumnSums { rows, columns } => elements::<E>(bias_pieces(rows).saturating_mul(columns), sums),
            // Of each run of rows two sums for each column, and one of the weights.
            DenseCall::Normalization { rows, columns } => {
                let of_run = columns.saturating_mul(2).saturating_add(1);
                elements::<E>(bias_pieces(rows).saturating_mul(of_run), sums)
            }
            DenseCall::Loss | DenseCall::SumOfSquares => elements::<E>(REDUCTION_BLOCKS as usize, size_of::<f64>()),
        }
    }

    fn needs_loss_scale(&self) -> bool {
        self.options.compute.of(E::DTYPE).0 == DType::F16
    }

    fn gemm(
        &self,
        product: Product,
        a: &DeviceBuffer<E, D>,
        b: &DeviceBuffer<E, D>,
        c: &mut DeviceBuffer<E, D>,
        grad: WeightGrad,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        check::gemm(&product, a.len(), b.len(), c.len())?;
        self.check_workspace(DenseCall::Gemm(product), workspace)?;
        let Product { orientation, m, n, k } = product;
        if m == 0 || n == 0 {
            return Ok(());
        }
        let kernels = self.dense()?;
        let tile = usize::from(m < LARGE_TILE_ROWS);
        let (kernel, a_stride, b_stride) = match orientation {
            Orientation::Nt => (&kernels.gemm_nt[tile], k, k),
            Orientation::Nn => (&kernels.gemm_nn[tile], k, n),
            Orientation::Tn => (&kernels.gemm_tn, m, n),
        };
        let space = self.gemm_space(&product)?;
        let (splits, base) = (space.splits, workspace.pointer());
        let (mut a_pointer, mut b_pointer) = (a.pointer(), b.pointer());
        if let Some(converters) = &kernels.converters {
            for (pointer, place, len) in [(&mut a_pointer, space.a, a.len()), (&mut b_pointer, space.b, b.len())] {
                let (from, len) = (*pointer, len as u64);
                *pointer = place.of(base);
                self.run(&converters.narrow, &elementwise(len), &ConvertParams { from, to: *pointer, len })?;
            }
        }
        let mut params = GemmParams {
            splits: splits as u32,
            accumulate: accumulates(grad),
            // Accumulators are floats, as c is.
            wide: kernels.converters.is_some().into(),
            ..Zeroable::zeroed()
        };
        let to = if splits > 1 { space.partial.of(base) } else { c.pointer() };
        let mut problem = GemmProblem {
            c: Rows::plain(to, n),
            terms: 1,
            m: narrow("rows of a product", m)?,
            n: narrow("columns of a product", n)?,
            ..Zeroable::zeroed()
        };
        problem.term[0] = GemmTerm {
            a: Rows::plain(a_pointer, a_stride),
            b: Rows::plain(b_pointer, b_stride),
            k: narrow("terms of a product", k)?,
            unused: 0,
        };
        params.problem[0] = problem;
        let launch = kernel.launch(m, n, 1, splits);
        if launch.grid[1] > 65_535 {
            return Err(Error::unsupported(
                format!("a product with {n} columns"),
                format!("the CUDA kernels take at most {}", 65_535 * GEMM_TILES[1].3),
            ));
        }
        self.run(kernel.kernel(), &launch, &params)?;
        if splits > 1 { self.sum_partials(space.partial.of(base), splits, c, grad) } else { Ok(()) }
    }

    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<&DeviceBuffer<E, D>>,
        values: &mut DeviceBuffer<E, D>,
        inputs: Option<&mut DeviceBuffer<E, D>>,
    ) -> Result<()> {
        if let Some(bias) = bias {
            check::rows("values", values.len(), bias.len())?;
        }
        check::same(values.len(), &[("inputs", len_of(&inputs))])?;
        let len = values.len() as u64;
        let params = BiasActivationParams {
            f: activation.into(),
            values: values.pointer(),
            bias: pointer(bias),
            inputs: pointer(inputs.as_deref()),
            len,
            columns: bias.map_or(1, |bias| bias.len() as u64),
        };
        self.run(&self.dense()?.bias_activation, &elementwise(len), &params)
    }

    fn activation_gradient(
        &self,
        activation: Activation,
        dy: &DeviceBuffer<E, D>,
        values: &DeviceBuffer<E, D>,
        dx: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        check::same(dy.len(), &[("values", Some(values.len())), ("dx", Some(dx.len()))])?;
        let len = dy.len() as u64;
        let params = ActivationGradientParams {
            f: activation.into(),
            dy: dy.pointer(),
            values: values.pointer(),
            dx: dx.pointer(),
            len,
        };
        self.run(&self.dense()?.activation_gradient, &elementwise(len), &params)
    }

    fn column_sums(
        &self,
        x: &DeviceBuffer<E, D>,
        sums: &mut DeviceBuffer<E, D>,
        grad: WeightGrad,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let columns = sums.len();
        let rows = check::rows("x", x.len(), columns)?;
        self.check_workspace(DenseCall::ColumnSums { rows, columns }, workspace)?;
        let pieces = bias_pieces(rows);
        let params = BiasGradientParams {
            rows: Rows::plain(x.pointer(), columns),
            partial: workspace.pointer(),
            row_count: narrow("rows of a sum", rows)?,
            columns: narrow("columns of a sum", columns)?,
            pieces: pieces as u32,
            unused: 0,
        };
        let launch = Launch {
            shared_bytes: REDUCTION_THREADS * accumulator(E::DTYPE) as u32,
            ..Launch::new([columns.div_ceil(32) as u32, pieces as u32, 1], REDUCTION_THREADS)
        };
        self.run(&self.dense()?.column_sums, &launch, &params)?;
        self.sum_partials(workspace.pointer(), pieces, sums, grad)
    }

    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: &DeviceBuffer<E, D>,
        y: &mut DeviceBuffer<E, D>,
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
            x: Rows::plain(x.pointer(), features),
            out: y.pointer(),
            seed: dropout.seed(),
            threshold: dropout.threshold(),
            scale: dropout.scale(),
            rows: narrow("steps * batch", rows)?,
            batch: narrow("batch", batch)?,
            features: narrow("features", features)?,
            layer: narrow("layer", layer)?,
        };
        let x_blocks = features.div_ceil(4).div_ceil(ELEMENTWISE_THREADS as usize) as u32;
        let launch = Launch::new([x_blocks, rows.min(65_535) as u32, 1], ELEMENTWISE_THREADS);
        self.run(&self.dense()?.dropout, &launch, &params)
    }

    fn loss(
        &self,
        loss: Loss,
        columns: usize,
        targets: &DeviceBuffer<E, D>,
        predictions: &DeviceBuffer<E, D>,
        weights: Option<&DeviceBuffer<E, D>>,
        gradient: Option<&mut DeviceBuffer<E, D>>,
        entry: LossEntry,
        record: &mut DeviceBuffer<f64, D>,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let len = predictions.len();
        let weights_len = weights.map(|weights| weights.len());
        let rows = check::loss(loss, columns, targets.len(), len, weights_len, len_of(&gradient))?;
        check::record(record.len())?;
        self.check_workspace(DenseCall::Loss, workspace)?;
        let kernels = self.dense()?;
        let (kind, delta) = loss_kind(loss);
        let (kernel, launch, observations) = if loss.is_by_row() {
            let blocks = (rows as u64).div_ceil(u64::from(REDUCTION_THREADS) / 32).clamp(1, REDUCTION_BLOCKS);
            (&kernels.categorical_loss, reduction_of(blocks as u32), rows)
        } else {
            (&kernels.elementwise_loss, reduction(len as u64), len)
        };
        let scale = 1.0 / observations as f64;
        let params = LossParams {
            targets: targets.pointer(),
            predictions: predictions.pointer(),
            gradient: pointer(gradient.as_deref()),
            weights: pointer(weights),
            partial: workspace.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            delta,
            scale,
            kind,
            sparse: loss.is_sparse().into(),
        };
        self.run(kernel, &launch, &params)?;
        let params = FinishLossParams {
            partial: workspace.pointer(),
            record: record.pointer(),
            scale,
            weight: entry.weight,
            count: launch.grid[0],
            code: entry.code,
        };
        self.run(&kernels.finish_loss, &reduction_of(1), &params)
    }

    fn adam(
        &self,
        step: AdamStep,
        parameters: &mut DeviceBuffer<E, D>,
        gradients: &DeviceBuffer<E, D>,
        m: &mut DeviceBuffer<E, D>,
        v: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let len = parameters.len();
        check::same(len, &[("gradients", Some(gradients.len())), ("m", Some(m.len())), ("v", Some(v.len()))])?;
        let params = AdamParams {
            parameters: parameters.pointer(),
            gradients: gradients.pointer(),
            m: m.pointer(),
            v: v.pointer(),
            len: len as u64,
            rate: step.rate,
            beta_1: step.beta_1,
            beta_2: step.beta_2,
            epsilon: step.epsilon,
            decay: step.decay,
        };
        self.run(&self.dense()?.adam, &elementwise(len as u64), &params)
    }

    fn sgd(
        &self,
        step: SgdStep,
        parameters: &mut DeviceBuffer<E, D>,
        gradients: &DeviceBuffer<E, D>,
        velocity: Option<&mut DeviceBuffer<E, D>>,
    ) -> Result<()> {
        let len = parameters.len();
        check::same(len, &[("gradients", Some(gradients.len())), ("velocity", len_of(&velocity))])?;
        let params = SgdParams {
            parameters: parameters.pointer(),
            gradients: gradients.pointer(),
            velocity: pointer(velocity.as_deref()),
            len: len as u64,
            rate: step.rate,
            momentum: step.momentum,
            nesterov: step.nesterov.into(),
            unused: 0,
        };
        self.run(&self.dense()?.sgd, &elementwise(len as u64), &params)
    }

    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: &mut DeviceBuffer<E, D>,
        gradients: &DeviceBuffer<E, D>,
        mean_square: &mut DeviceBuffer<E, D>,
        mean: Option<&mut DeviceBuffer<E, D>>,
        velocity: Option<&mut DeviceBuffer<E, D>>,
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
            parameters: parameters.pointer(),
            gradients: gradients.pointer(),
            mean_square: mean_square.pointer(),
            mean: pointer(mean.as_deref()),
            velocity: pointer(velocity.as_deref()),
            len: len as u64,
            rate: step.rate,
            rho: step.rho,
            momentum: step.momentum,
            epsilon: step.epsilon,
        };
        self.run(&self.dense()?.rmsprop, &elementwise(len as u64), &params)
    }

    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: &mut DeviceBuffer<E, D>,
        gradients: &DeviceBuffer<E, D>,
        sums: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let len = parameters.len();
        check::same(len, &[("gradients", Some(gradients.len())), ("sums", Some(sums.len()))])?;
        let params = AdagradParams {
            parameters: parameters.pointer(),
            gradients: gradients.pointer(),
            sums: sums.pointer(),
            len: len as u64,
            rate: step.rate,
            epsilon: step.epsilon,
        };
        self.run(&self.dense()?.adagrad, &elementwise(len as u64), &params)
    }

    fn sum_of_squares(
        &self,
        x: &DeviceBuffer<E, D>,
        sum: &mut DeviceBuffer<f64, D>,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        check_len("sum", &[1], sum.len())?;
        self.check_workspace(DenseCall::SumOfSquares, workspace)?;
        let launch = reduction(x.len() as u64);
        let params = SumOfSquaresParams {
            x: x.pointer(),
            partial: workspace.pointer(),
            sum: sum.pointer(),
            len: x.len() as u64,
            count: launch.grid[0],
            unused: 0,
        };
        self.run(&self.dense()?.sum_of_squares, &launch, &params)?;
        self.run(&self.dense()?.finish_sum_of_squares, &reduction_of(1), &params)
    }

    fn clip_by_norm(&self, most: f64, sum_of_squares: &DeviceBuffer<f64, D>, x: &mut DeviceBuffer<E, D>) -> Result<()> {
        check_len("sum_of_squares", &[1], sum_of_squares.len())?;
        let len = x.len() as u64;
        let params = ClipParams { x: x.pointer(), sum_of_squares: sum_of_squares.pointer(), len, most };
        self.run(&self.dense()?.clip, &elementwise(len), &params)
    }

    fn clip_by_value(&self, most: f64, x: &mut DeviceBuffer<E, D>) -> Result<()> {
        let len = x.len() as u64;
        let params = ClipParams { x: x.pointer(), sum_of_squares: DevicePtr::NULL, len, most };
        self.run(&self.dense()?.clip, &elementwise(len), &params)
    }

    fn check_finite(&self, x: &DeviceBuffer<E, D>, code: u32, record: &mut DeviceBuffer<f64, D>) -> Result<()> {
        check::record(record.len())?;
        let len = x.len() as u64;
        let params = CheckFiniteParams { x: x.pointer(), record: record.pointer(), len, code, unused: 0 };
        self.run(&self.dense()?.check_finite, &elementwise(len), &params)
    }

    fn gather(
        &self,
        width: usize,
        table: &DeviceBuffer<E, D>,
        indices: &DeviceBuffer<u32, D>,
        out: &mut DeviceBuffer<E, D>,
        code: u32,
        record: &mut DeviceBuffer<f64, D>,
    ) -> Result<()> {
        let rows = check::gather(width, table.len(), indices.len(), out.len())?;
        check::record(record.len())?;
        let params = GatherParams {
            table: table.pointer(),
            indices: indices.pointer(),
            out: out.pointer(),
            record: record.pointer(),
            count: indices.len() as u64,
            width: width as u64,
            rows: rows as u64,
            code,
            unused: 0,
        };
        self.run(&self.dense()?.gather, &elementwise(out.len() as u64), &params)
    }

    fn scatter_add(
        &self,
        width: usize,
        indices: &DeviceBuffer<u32, D>,
        dout: &DeviceBuffer<E, D>,
        dtable: &mut DeviceBuffer<E, D>,
        grad: WeightGrad,
        code: u32,
        record: &mut DeviceBuffer<f64, D>,
    ) -> Result<()> {
        let rows = check::gather(width, dtable.len(), indices.len(), dout.len())?;
        check::record(record.len())?;
        // The fewer blocks.
        let by_row = rows <= indices.len();
        if grad == WeightGrad::Set && !by_row {
            self.fill(dtable, 0.0)?;
        }
        let blocks = if by_row { rows } else { indices.len() } as u64;
        if blocks == 0 {
            return Ok(());
        }
        if blocks > MOST_BLOCKS {
            return Err(Error::unsupported(format!("a gradient of {blocks} rows"), "the CUDA kernels take 2147483647"));
        }
        let params = ScatterAddParams {
            dtable: dtable.pointer(),
            indices: indices.pointer(),
            dout: dout.pointer(),
            record: record.pointer(),
            count: indices.len() as u64,
            width: width as u64,
            rows: rows as u64,
            by_row: by_row.into(),
            accumulate: if by_row { accumulates(grad) } else { 1 },
            code,
            unused: 0,
        };
        let launch = Launch {
            shared_bytes: ELEMENTWISE_THREADS * size_of::<u32>() as u32,
            ..Launch::new([blocks as u32, 1, 1], ELEMENTWISE_THREADS)
        };
        self.run(&self.dense()?.scatter_add, &launch, &params)
    }

    fn add(&self, a: &DeviceBuffer<E, D>, b: &DeviceBuffer<E, D>, out: &mut DeviceBuffer<E, D>) -> Result<()> {
        self.combine(Combination::Add, a, b, out)
    }

    fn multiply(&self, a: &DeviceBuffer<E, D>, b: &DeviceBuffer<E, D>, out: &mut DeviceBuffer<E, D>) -> Result<()> {
        self.combine(Combination::Multiply, a, b, out)
    }

    fn copy_columns(
        &self,
        count: usize,
        from: &DeviceBuffer<E, D>,
        from_columns: Columns,
        to: &mut DeviceBuffer<E, D>,
        to_columns: Columns,
    ) -> Result<()> {
        let rows = check::copy_columns(count, from.elements(), from_columns, to.elements(), to_columns)?;
        if rows == 0 {
            return Ok(());
        }
        let params = CopyColumnsParams {
            from: from.pointer().offset(from_columns.first * size_of::<E>()),
            to: to.pointer().offset(to_columns.first * size_of::<E>()),
            rows: rows as u64,
            columns: count as u64,
            from_stride: from_columns.width as u64,
            to_stride: to_columns.width as u64,
        };
        self.run(&self.dense()?.copy_columns, &elementwise((rows * count) as u64), &params)
    }

    fn fill(&self, x: &mut DeviceBuffer<E, D>, value: f64) -> Result<()> {
        let len = x.len() as u64;
        self.run(&self.dense()?.fill, &elementwise(len), &FillParams { x: x.pointer(), len, value })
    }
}
