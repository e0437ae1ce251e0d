//! The tensor operations as launches.

use super::CudaBackend;
use super::catalog::{GEMM_TILES, REDUCTION_THREADS};
use super::dense::{accumulates, accumulator, elementwise, len_of, narrow};
use super::device::{Device, DevicePtr, Launch};
use super::memory::DeviceBuffer;
use super::mixed::Compute;
use super::params::{
    BatchNormParams, BatchedGemmParams, ColumnMomentsParams, HoldGradientParams, IndicesParams, LayerNormParams,
    MaskNotEqualParams, MaskOrderParams, MaxAxisGradientParams, MaxAxisParams, NormGradientParams, PickRowsParams,
    ScaleAddParams, ScaleRowsParams, SelectRowsParams, SoftmaxGradientParams, SoftmaxParams, StridedCopyParams,
    SumAxisParams,
};
use super::plan::{GemmKernel, LARGE_TILE_ROWS, bias_pieces};
use super::pointer;
use crate::backend::WeightGrad;
use crate::backend::dense::{DenseCall, Orientation, Product, check as dense};
use crate::backend::tensor::{MaskOrder, SoftmaxMask, Strides, TensorBackend, check};
use crate::dtype::{DType, Element};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// From so many terms on, a warp adds up where otherwise a thread does.
const WARP_TERMS: usize = 32;
/// Columns of a block of `column_moments`.
const MOMENT_COLUMNS: usize = 8;
/// Most blocks along the second and third axis of a grid.
const GRID: usize = 65_535;

/// Kernels of the tensor operations on one element type, loaded.
#[derive(Debug)]
pub(crate) struct TensorKernels<D: Device> {
    /// Large and small tile, by orientation.
    batched_nt: [GemmKernel<D::Kernel>; 2],
    batched_nn: [GemmKernel<D::Kernel>; 2],
    batched_tn: [GemmKernel<D::Kernel>; 2],
    scale_add: D::Kernel,
    strided_copy: D::Kernel,
    scale_rows: D::Kernel,
    select_rows: D::Kernel,
    sum_axis: D::Kernel,
    max_axis: D::Kernel,
    max_axis_gradient: D::Kernel,
    softmax: D::Kernel,
    softmax_gradient: D::Kernel,
    layer_norm: D::Kernel,
    layer_norm_gradient: D::Kernel,
    column_moments: D::Kernel,
    batch_norm: D::Kernel,
    norm_sums: D::Kernel,
    norm_totals: D::Kernel,
    batch_norm_gradient: D::Kernel,
    mask_not_equal: D::Kernel,
    mask_order: D::Kernel,
    pick_rows: D::Kernel,
    hold_gradient: D::Kernel,
    indices: D::Kernel,
}

impl<D: Device> TensorKernels<D> {
    fn load(device: &D, dtype: DType, math: &str) -> Result<Self> {
        let kernel = |name: &str| device.kernel(&format!("{name}_{dtype}"));
        let batched = |orientation: &str| -> Result<[GemmKernel<D::Kernel>; 2]> {
            let tile = |tile: usize| GemmKernel::load_batched(device, orientation, math, tile);
            Ok([tile(0)?, tile(1)?])
        };
        Ok(TensorKernels {
            batched_nt: batched("nt")?,
            batched_nn: batched("nn")?,
            batched_tn: batched("tn")?,
            scale_add: kernel("scale_add")?,
            strided_copy: kernel("strided_copy")?,
            scale_rows: kernel("scale_rows")?,
            select_rows: kernel("select_rows")?,
            sum_axis: kernel("sum_axis")?,
            max_axis: kernel("max_axis")?,
            max_axis_gradient: kernel("max_axis_gradient")?,
            softmax: kernel("softmax")?,
            softmax_gradient: kernel("softmax_gradient")?,
            layer_norm: kernel("layer_norm")?,
            layer_norm_gradient: kernel("layer_norm_gradient")?,
            column_moments: kernel("column_moments")?,
            batch_norm: kernel("batch_norm")?,
            norm_sums: kernel("norm_sums")?,
            norm_totals: kernel("norm_totals")?,
            batch_norm_gradient: kernel("batch_norm_gradient")?,
            mask_not_equal: kernel("mask_not_equal")?,
            mask_order: kernel("mask_order")?,
            pick_rows: kernel("pick_rows")?,
            hold_gradient: kernel("hold_gradient")?,
            indices: kernel("indices")?,
        })
    }
}

/// A launch in which a warp has a row.
fn by_warp(rows: usize) -> Launch {
    elementwise((rows as u64).saturating_mul(32))
}

/// The lanes that share a sum of `terms` terms, and the launch for `sums` of them. A function of sizes alone, as the order of sums is.
fn shared_sums(sums: usize, terms: usize) -> (u32, Launch) {
    if terms >= WARP_TERMS { (32, by_warp(sums)) } else { (1, elementwise(sums as u64)) }
}

impl<E: Element, D: Device> CudaBackend<E, D> {
    pub(super) fn tensor(&self) -> Result<&TensorKernels<D>> {
        if let Some(kernels) = self.tensor.get() {
            return Ok(kernels);
        }
        let loaded = {
            // Products of attention stay f32 in mixed precision.
            let math = if self.options.compute == Compute::Tf32 { self.options.compute } else { Compute::Exact };
            TensorKernels::load(&*self.device, E::DTYPE, math.of(E::DTYPE).1)?
        };
        // Whoever came first has loaded the same.
        Ok(self.tensor.get_or_init(|| loaded))
    }

    /// Sums of dy and of dy times the normal x over the rows, into dbeta, dgamma and the workspace.
    fn norm_totals(&self, params: &NormGradientParams, columns: usize) -> Result<()> {
        let kernels = self.tensor()?;
        narrow("columns", columns)?;
        let launch = Launch {
            shared_bytes: 3 * REDUCTION_THREADS * accumulator(E::DTYPE) as u32,
            ..Launch::new([columns.div_ceil(32) as u32, params.pieces, 1], REDUCTION_THREADS)
        };
        self.run(&kernels.norm_sums, &launch, params)?;
        self.run(&kernels.norm_totals, &elementwise(2 * columns as u64 + 1), params)
    }
}

impl<E: Element, D: Device> TensorBackend for CudaBackend<E, D> {
    fn scale_add(&self, alpha: f64, x: &DeviceBuffer<E, D>, beta: f64, y: &mut DeviceBuffer<E, D>) -> Result<()> {
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        let len = x.len() as u64;
        let params = ScaleAddParams { x: x.pointer(), y: y.pointer(), len, alpha, beta };
        self.run(&self.tensor()?.scale_add, &elementwise(len), &params)
    }

    fn scale(&self, alpha: f64, x: &mut DeviceBuffer<E, D>) -> Result<()> {
        let len = x.len() as u64;
        let params = ScaleAddParams { x: x.pointer(), y: x.pointer(), len, alpha, beta: 0.0 };
        self.run(&self.tensor()?.scale_add, &elementwise(len), &params)
    }

    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: &DeviceBuffer<E, D>,
        from_layout: Strides,
        to: &mut DeviceBuffer<E, D>,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()> {
        if !check::strided(shape, (from_layout, from.len()), (to_layout, to.len()))? {
            return Ok(());
        }
        // As many elements of `to` are written, so this does not overflow.
        let len: usize = shape.iter().product();
        let params = StridedCopyParams {
            from: from.pointer().offset(from_layout.offset * size_of::<E>()),
            to: to.pointer().offset(to_layout.offset * size_of::<E>()),
            from_stride: from_layout.strides.map(|stride| stride as i64),
            to_stride: to_layout.strides.map(|stride| stride as i64),
            shape: shape.map(|size| size as u64),
            accumulate: accumulates(grad),
            unused: 0,
        };
        self.run(&self.tensor()?.strided_copy, &elementwise(len as u64), &params)
    }

    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: &DeviceBuffer<E, D>,
        y: &mut DeviceBuffer<E, D>,
        grad: WeightGrad,
    ) -> Result<()> {
        check::axis(sizes, x.len(), y.len())?;
        let [outer, count, inner] = sizes;
        // Where threads have columns beside each other, they read whole lines; else the lanes of a warp do.
        let (lanes, launch) = shared_sums(y.len(), if inner < WARP_TERMS { count } else { 1 });
        let params = SumAxisParams {
            x: x.pointer(),
            y: y.pointer(),
            outer: outer as u64,
            count: count as u64,
            inner: inner as u64,
            alpha,
            lanes,
            accumulate: accumulates(grad),
        };
        self.run(&self.tensor()?.sum_axis, &launch, &params)
    }

    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: &DeviceBuffer<E, D>,
        mask: Option<&DeviceBuffer<E, D>>,
        y: &mut DeviceBuffer<E, D>,
        position: &mut DeviceBuffer<u32, D>,
    ) -> Result<()> {
        check::axis(sizes, x.len(), y.len())?;
        let [outer, count, inner] = sizes;
        check_len("position", &[outer, inner], position.len())?;
        if let Some(mask) = mask {
            check_len("mask", &[outer, count], mask.len())?;
        }
        narrow("elements to compare", count)?;
        let params = MaxAxisParams {
            x: x.pointer(),
            mask: pointer(mask),
            y: y.pointer(),
            position: position.pointer(),
            outer: outer as u64,
            count: count as u64,
            inner: inner as u64,
        };
        self.run(&self.tensor()?.max_axis, &elementwise(y.len() as u64), &params)
    }

    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: &DeviceBuffer<E, D>,
        position: &DeviceBuffer<u32, D>,
        dx: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        check::axis(sizes, dx.len(), dy.len())?;
        let [outer, count, inner] = sizes;
        check_len("position", &[outer, inner], position.len())?;
        let params = MaxAxisGradientParams {
            dy: dy.pointer(),
            position: position.pointer(),
            dx: dx.pointer(),
            outer: outer as u64,
            count: count as u64,
            inner: inner as u64,
        };
        self.run(&self.tensor()?.max_axis_gradient, &elementwise(dx.len() as u64), &params)
    }

    fn scale_rows(
        &self,
        factors: &DeviceBuffer<E, D>,
        inverse: bool,
        x: &DeviceBuffer<E, D>,
        y: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let columns = check::by_rows(factors.len(), x.len())?;
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        let len = x.len() as u64;
        let params = ScaleRowsParams {
            factors: factors.pointer(),
            x: x.pointer(),
            y: y.pointer(),
            len,
            columns: columns as u64,
            inverse: inverse.into(),
            unused: 0,
        };
        self.run(&self.tensor()?.scale_rows, &elementwise(len), &params)
    }

    fn select_rows(
        &self,
        mask: &DeviceBuffer<E, D>,
        a: &DeviceBuffer<E, D>,
        b: Option<&DeviceBuffer<E, D>>,
        out: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let columns = check::by_rows(mask.len(), a.len())?;
        dense::same(a.len(), &[("b", b.map(DeviceBuffer::len)), ("out", Some(out.len()))])?;
        let len = a.len() as u64;
        let params = SelectRowsParams {
            mask: mask.pointer(),
            a: a.pointer(),
            b: pointer(b),
            out: out.pointer(),
            len,
            columns: columns as u64,
        };
        self.run(&self.tensor()?.select_rows, &elementwise(len), &params)
    }

    fn softmax(
        &self,
        columns: usize,
        x: &DeviceBuffer<E, D>,
        valid: SoftmaxMask<'_, Self>,
        y: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let rows = dense::rows("x", x.len(), columns)?;
        dense::same(x.len(), &[("y", Some(y.len()))])?;
        let keys = valid.keys.map(|(keys, rows)| (keys.len(), rows));
        let rows_per_key = check::softmax(rows, columns, keys, valid.causal)?;
        let params = SoftmaxParams {
            x: x.pointer(),
            keys: pointer(valid.keys.map(|(keys, _)| keys)),
            y: y.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            rows_per_key: rows_per_key as u64,
            queries: valid.causal.unwrap_or(0) as u64,
        };
        self.run(&self.tensor()?.softmax, &by_warp(rows), &params)
    }

    fn softmax_gradient(
        &self,
        columns: usize,
        y: &DeviceBuffer<E, D>,
        dy: &DeviceBuffer<E, D>,
        dx: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let rows = dense::rows("y", y.len(), columns)?;
        dense::same(y.len(), &[("dy", Some(dy.len())), ("dx", Some(dx.len()))])?;
        let params = SoftmaxGradientParams {
            y: y.pointer(),
            dy: dy.pointer(),
            dx: dx.pointer(),
            rows: rows as u64,
            columns: columns as u64,
        };
        self.run(&self.tensor()?.softmax_gradient, &by_warp(rows), &params)
    }

    fn batched_gemm(
        &self,
        count: usize,
        product: Product,
        alpha: f64,
        a: &DeviceBuffer<E, D>,
        b: &DeviceBuffer<E, D>,
        c: &mut DeviceBuffer<E, D>,
        grad: WeightGrad,
    ) -> Result<()> {
        let Product { orientation, m, n, k } = product;
        for (name, sizes, len) in
            [("a", [count, m, k], a.len()), ("b", [count, n, k], b.len()), ("c", [count, m, n], c.len())]
        {
            check_len(name, &sizes, len)?;
        }
        if c.is_empty() {
            return Ok(());
        }
        let params = BatchedGemmParams {
            a: a.pointer(),
            b: b.pointer(),
            c: c.pointer(),
            count: count as u64,
            alpha,
            m: narrow("rows of a product", m)?,
            n: narrow("columns of a product", n)?,
            k: narrow("terms of a product", k)?,
            accumulate: accumulates(grad),
        };
        let kernels = self.tensor()?;
        let tile = usize::from(m < LARGE_TILE_ROWS);
        let kernel = match orientation {
            Orientation::Nt => &kernels.batched_nt[tile],
            Orientation::Nn => &kernels.batched_nn[tile],
            Orientation::Tn => &kernels.batched_tn[tile],
        };
        let launch = kernel.launch(m, n, count.min(GRID), 1);
        if launch.grid[1] as usize > GRID {
            return Err(Error::unsupported(
                format!("products with {n} columns"),
                format!("the CUDA kernels take at most {}", GRID * GEMM_TILES[1].3 as usize),
            ));
        }
        self.run(kernel.kernel(), &launch, &params)
    }

    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &DeviceBuffer<E, D>,
        gamma: Option<&DeviceBuffer<E, D>>,
        beta: Option<&DeviceBuffer<E, D>>,
        y: &mut DeviceBuffer<E, D>,
        statistics: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let vectors = [("gamma", gamma.map(DeviceBuffer::len)), ("beta", beta.map(DeviceBuffer::len))];
        let rows = check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        let params = LayerNormParams {
            x: x.pointer(),
            gamma: pointer(gamma),
            beta: pointer(beta),
            y: y.pointer(),
            statistics: statistics.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            epsilon,
        };
        self.run(&self.tensor()?.layer_norm, &by_warp(rows), &params)
    }

    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: &DeviceBuffer<E, D>,
        gamma: Option<&DeviceBuffer<E, D>>,
        statistics: &DeviceBuffer<E, D>,
        dy: &DeviceBuffer<E, D>,
        dx: Option<&mut DeviceBuffer<E, D>>,
        dgamma: Option<&mut DeviceBuffer<E, D>>,
        dbeta: Option<&mut DeviceBuffer<E, D>>,
        grad: WeightGrad,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let others = [("dy", Some(dy.len())), ("dx", len_of(&dx))];
        let vectors = [("gamma", gamma.map(DeviceBuffer::len)), ("dgamma", len_of(&dgamma)), ("dbeta", len_of(&dbeta))];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        check_len("statistics", &[rows, 2], statistics.len())?;
        self.check_workspace(DenseCall::Normalization { rows, columns }, workspace)?;
        let params = NormGradientParams {
            x: x.pointer(),
            statistics: statistics.pointer(),
            mean: DevicePtr::NULL,
            variance: DevicePtr::NULL,
            weights: DevicePtr::NULL,
            gamma: pointer(gamma),
            dy: dy.pointer(),
            dx: pointer(dx.as_deref()),
            dgamma: pointer(dgamma.as_deref()),
            dbeta: pointer(dbeta.as_deref()),
            partial: workspace.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            epsilon: 0.0,
            pieces: bias_pieces(rows) as u32,
            accumulate: accumulates(grad),
        };
        if dx.is_some() {
            self.run(&self.tensor()?.layer_norm_gradient, &by_warp(rows), &params)?;
        }
        if dgamma.is_some() || dbeta.is_some() { self.norm_totals(&params, columns) } else { Ok(()) }
    }

    fn column_moments(
        &self,
        columns: usize,
        x: &DeviceBuffer<E, D>,
        weights: Option<&DeviceBuffer<E, D>>,
        mean: &mut DeviceBuffer<E, D>,
        variance: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let vectors = [("mean", Some(mean.len())), ("variance", Some(variance.len()))];
        let rows = check::normalized(columns, x.len(), &[], &vectors)?;
        dense::same(rows, &[("weights", weights.map(DeviceBuffer::len))])?;
        narrow("columns", columns)?;
        let params = ColumnMomentsParams {
            x: x.pointer(),
            weights: pointer(weights),
            mean: mean.pointer(),
            variance: variance.pointer(),
            rows: rows as u64,
            columns: columns as u64,
        };
        let launch = Launch {
            shared_bytes: REDUCTION_THREADS * accumulator(E::DTYPE) as u32,
            ..Launch::new([columns.div_ceil(MOMENT_COLUMNS) as u32, 1, 1], REDUCTION_THREADS)
        };
        self.run(&self.tensor()?.column_moments, &launch, &params)
    }

    fn batch_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &DeviceBuffer<E, D>,
        mean: &DeviceBuffer<E, D>,
        variance: &DeviceBuffer<E, D>,
        gamma: Option<&DeviceBuffer<E, D>>,
        beta: Option<&DeviceBuffer<E, D>>,
        y: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", gamma.map(DeviceBuffer::len)),
            ("beta", beta.map(DeviceBuffer::len)),
        ];
        check::normalized(columns, x.len(), &[("y", Some(y.len()))], &vectors)?;
        let len = x.len() as u64;
        let params = BatchNormParams {
            x: x.pointer(),
            mean: mean.pointer(),
            variance: variance.pointer(),
            gamma: pointer(gamma),
            beta: pointer(beta),
            y: y.pointer(),
            len,
            columns: columns as u64,
            epsilon,
        };
        self.run(&self.tensor()?.batch_norm, &elementwise(len), &params)
    }

    fn batch_norm_gradient(
        &self,
        columns: usize,
        epsilon: f64,
        x: &DeviceBuffer<E, D>,
        weights: Option<&DeviceBuffer<E, D>>,
        mean: &DeviceBuffer<E, D>,
        variance: &DeviceBuffer<E, D>,
        gamma: Option<&DeviceBuffer<E, D>>,
        dy: &DeviceBuffer<E, D>,
        dx: Option<&mut DeviceBuffer<E, D>>,
        dgamma: Option<&mut DeviceBuffer<E, D>>,
        dbeta: Option<&mut DeviceBuffer<E, D>>,
        grad: WeightGrad,
        workspace: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let others = [("dy", Some(dy.len())), ("dx", len_of(&dx))];
        let vectors = [
            ("mean", Some(mean.len())),
            ("variance", Some(variance.len())),
            ("gamma", gamma.map(DeviceBuffer::len)),
            ("dgamma", len_of(&dgamma)),
            ("dbeta", len_of(&dbeta)),
        ];
        let rows = check::normalized(columns, x.len(), &others, &vectors)?;
        dense::same(rows, &[("weights", weights.map(DeviceBuffer::len))])?;
        self.check_workspace(DenseCall::Normalization { rows, columns }, workspace)?;
        let params = NormGradientParams {
            x: x.pointer(),
            statistics: DevicePtr::NULL,
            mean: mean.pointer(),
            variance: variance.pointer(),
            weights: pointer(weights),
            gamma: pointer(gamma),
            dy: dy.pointer(),
            dx: pointer(dx.as_deref()),
            dgamma: pointer(dgamma.as_deref()),
            dbeta: pointer(dbeta.as_deref()),
            partial: workspace.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            epsilon,
            pieces: bias_pieces(rows) as u32,
            accumulate: accumulates(grad),
        };
        self.norm_totals(&params, columns)?;
        match dx {
            Some(dx) => self.run(&self.tensor()?.batch_norm_gradient, &elementwise(dx.len() as u64), &params),
            None => Ok(()),
        }
    }

    fn mask_not_equal(
        &self,
        columns: usize,
        x: &DeviceBuffer<E, D>,
        value: f64,
        mask: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let rows = dense::rows("x", x.len(), columns)?;
        check_len("mask", &[rows], mask.len())?;
        let (lanes, launch) = shared_sums(rows, columns);
        let params = MaskNotEqualParams {
            x: x.pointer(),
            mask: mask.pointer(),
            rows: rows as u64,
            columns: columns as u64,
            value: E::of(value).wide(),
            lanes,
            unused: 0,
        };
        self.run(&self.tensor()?.mask_not_equal, &launch, &params)
    }

    fn mask_order(
        &self,
        steps: usize,
        reverse: bool,
        mask: &DeviceBuffer<E, D>,
        order: MaskOrder<'_, Self>,
    ) -> Result<()> {
        let MaskOrder { rows, inverse, hold, lengths, any } = order;
        let parts = [("rows", rows.len()), ("inverse", inverse.len()), ("hold", hold.len())];
        let batch = check::order(steps, mask.len(), parts, [("lengths", lengths.len()), ("any", any.len())])?;
        // Rows are numbered in 32 bits.
        narrow("batch * steps", mask.len())?;
        let params = MaskOrderParams {
            mask: mask.pointer(),
            rows: rows.pointer(),
            inverse: inverse.pointer(),
            hold: hold.pointer(),
            lengths: lengths.pointer(),
            any: any.pointer(),
            batch: batch as u64,
            steps: steps as u64,
            reverse: reverse.into(),
            unused: 0,
        };
        self.run(&self.tensor()?.mask_order, &by_warp(batch), &params)
    }

    fn pick_rows(
        &self,
        width: usize,
        from: &DeviceBuffer<E, D>,
        rows: &DeviceBuffer<u32, D>,
        out: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let from_rows = dense::gather(width, from.len(), rows.len(), out.len())?;
        let params = PickRowsParams {
            from: from.pointer(),
            rows: rows.pointer(),
            out: out.pointer(),
            count: rows.len() as u64,
            width: width as u64,
            from_rows: from_rows as u64,
        };
        self.run(&self.tensor()?.pick_rows, &elementwise(out.len() as u64), &params)
    }

    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: &DeviceBuffer<u32, D>,
        dy: &DeviceBuffer<E, D>,
        dx: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        let batch = dense::rows("hold", hold.len(), steps)?;
        check_len("dy", &[batch, steps, width], dy.len())?;
        check_len("dx", &[batch, steps, width], dx.len())?;
        let params = HoldGradientParams {
            hold: hold.pointer(),
            dy: dy.pointer(),
            dx: dx.pointer(),
            batch: batch as u64,
            steps: steps as u64,
            width: width as u64,
        };
        self.run(&self.tensor()?.hold_gradient, &elementwise((batch * width) as u64), &params)
    }

    fn indices(
        &self,
        rows: usize,
        x: &DeviceBuffer<E, D>,
        out: &mut DeviceBuffer<u32, D>,
        code: u32,
        record: &mut DeviceBuffer<f64, D>,
    ) -> Result<()> {
        dense::same(x.len(), &[("out", Some(out.len()))])?;
        dense::record(record.len())?;
        narrow("rows of a table", rows)?;
        let len = x.len() as u64;
        let params = IndicesParams {
            x: x.pointer(),
            out: out.pointer(),
            record: record.pointer(),
            len,
            rows: rows as u64,
            code,
            unused: 0,
        };
        self.run(&self.tensor()?.indices, &elementwise(len), &params)
    }
}
