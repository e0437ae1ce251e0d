//! What layers need besides products, losses and optimizers: [`TensorBackend`] moves, sums, compares and normalises elements.
//!
//! The division of labour, the errors and the order of sums are those of [`dense`](crate::backend::dense).

mod host;
mod softmax;

use crate::backend::dense::Product;
use crate::backend::{Memory, RecurrentBackend, WeightGrad};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// In a list of rows: none, which reads as zeros.
pub const NO_ROW: u32 = u32::MAX;

/// Where the elements of four axes stand in a tensor: element `(i, j, k, l)` at `offset + i strides[0] + … + l strides[3]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strides {
    /// Place of the first element.
    pub offset: usize,
    /// Elements from one index of each axis to the next. Zero repeats (in what is read only), below zero goes backwards.
    pub strides: [isize; 4],
}

/// Which columns of each row a [softmax](TensorBackend::softmax) is over.
pub struct SoftmaxMask<'a, B: TensorBackend + ?Sized> {
    /// A mask `[groups, columns]` of 0 and others, and how many rows, one after the other, share one of its rows; absent means all.
    pub keys: Option<(&'a B::Buffer, usize)>,
    /// With `queries`, row r is query `r % queries`, which sees the columns up to its own number; absent means all.
    pub causal: Option<usize>,
}

/// What [`TensorBackend::mask_order`] writes.
pub struct MaskOrder<'a, B: TensorBackend + ?Sized> {
    /// `[batch, steps]`: at `p`, the row of the sample's valid step number `p`; [`NO_ROW`] past their number.
    pub rows: &'a mut B::Lengths,
    /// `[batch, steps]`: the row of each valid step among the valid ones; [`NO_ROW`] for others.
    pub inverse: &'a mut B::Lengths,
    /// `[batch, steps]`: the row among the valid ones of the last valid step up to each (in reverse: of the first from each on);
    /// [`NO_ROW`] where there is none.
    pub hold: &'a mut B::Lengths,
    /// `[batch]`: valid steps, but at least 1.
    pub lengths: &'a mut B::Lengths,
    /// `[batch]`: 1 where a step is valid, else 0.
    pub any: &'a mut B::Buffer,
}

/// Moving, summing, comparing and normalising elements. See the [module](self).
///
/// Every call checks the lengths of its tensors ([`Error::Shape`]); the other errors are those of the device.
pub trait TensorBackend:
    Memory
    + RecurrentBackend<
        Buffer = <Self as Memory>::Tensor<<Self as RecurrentBackend>::Elem>,
        Lengths = <Self as Memory>::Tensor<u32>,
    >
{
    /// `y = alpha x + beta y`; with a `beta` of zero y is not read.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn scale_add(&self, alpha: f64, x: &Self::Buffer, beta: f64, y: &mut Self::Buffer) -> Result<()>;

    /// `x = alpha x`.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn scale(&self, alpha: f64, x: &mut Self::Buffer) -> Result<()>;

    /// `to[…] = from[…]`, or `+=`, for all indices of `shape`: turns, flips, slices, joins and repeats.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an index leads outside of a tensor, or two lead to one element of `to`.
    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: &Self::Buffer,
        from_layout: Strides,
        to: &mut Self::Buffer,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()>;

    /// `y[o, i] = alpha Σ_c x[o, c, i]`, or `+=`, with `sizes` the numbers of o, c and i.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: &Self::Buffer,
        y: &mut Self::Buffer,
        grad: WeightGrad,
    ) -> Result<()>;

    /// `y[o, i]`, the largest of `x[o, c, i]` over those c for which `mask[o, c]` is not zero, and which c it is: the first of equals; NaN
    /// counts as larger than all. Where there is none, zero and [`NO_ROW`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn max_axis(
        &self,
        sizes: [usize; 3],
        x: &Self::Buffer,
        mask: Option<&Self::Buffer>,
        y: &mut Self::Buffer,
        position: &mut Self::Lengths,
    ) -> Result<()>;

    /// The gradient of [`max_axis`](Self::max_axis), set (`=`): `dy` where the largest was, else zero.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: &Self::Buffer,
        position: &Self::Lengths,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// `y[r, :] = x[r, :] factors[r]`, or with `inverse` `x[r, :] / factors[r]`, which is zero where the factor is. There are as many rows
    /// as factors.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn scale_rows(&self, factors: &Self::Buffer, inverse: bool, x: &Self::Buffer, y: &mut Self::Buffer) -> Result<()>;

    /// `out[r, :] = a[r, :]` where `mask[r]` is not zero, else `b[r, :]`, or zeros without b.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn select_rows(
        &self,
        mask: &Self::Buffer,
        a: &Self::Buffer,
        b: Option<&Self::Buffer>,
        out: &mut Self::Buffer,
    ) -> Result<()>;

    /// `y[r, c] = exp(x[r, c] - max) / Σ exp(x[r, :] - max)` over the columns that `valid` names; others get zero, and all do in a row
    /// without any.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn softmax(
        &self,
        columns: usize,
        x: &Self::Buffer,
        valid: SoftmaxMask<'_, Self>,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// `dx = y (dy - Σ y dy)` by rows, set (`=`).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn softmax_gradient(
        &self,
        columns: usize,
        y: &Self::Buffer,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// `count` products `c = alpha product`, or `+=`, of matrices that stand one after the other.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    #[allow(clippy::too_many_arguments)]
    fn batched_gemm(
        &self,
        count: usize,
        product: Product,
        alpha: f64,
        a: &Self::Buffer,
        b: &Self::Buffer,
        c: &mut Self::Buffer,
        grad: WeightGrad,
    ) -> Result<()>;

    /// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta` by rows; `statistics` `[rows, 2]` gets mean and `1 / sqrt(variance +
    /// epsilon)`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    #[allow(clippy::too_many_arguments)]
    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &Self::Buffer,
        gamma: Option<&Self::Buffer>,
        beta: Option<&Self::Buffer>,
        y: &mut Self::Buffer,
        statistics: &mut Self::Buffer,
    ) -> Result<()>;

    /// The gradients of [`layer_norm`](Self::layer_norm): of x set (`=`), of gamma and beta as `grad` says. Scratch:
    /// [`DenseCall::Normalization`](crate::backend::dense::DenseCall::Normalization).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    #[allow(clippy::too_many_arguments)]
    fn layer_norm_gradient(
        &self,
        columns: usize,
        x: &Self::Buffer,
        gamma: Option<&Self::Buffer>,
        statistics: &Self::Buffer,
        dy: &Self::Buffer,
        dx: Option<&mut Self::Buffer>,
        dgamma: Option<&mut Self::Buffer>,
        dbeta: Option<&mut Self::Buffer>,
        grad: WeightGrad,
        workspace: &mut Self::Buffer,
    ) -> Result<()>;

    /// Mean and variance (divided by the number, not one less) of each column, with `weights` `[rows]` weighted.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn column_moments(
        &self,
        columns: usize,
        x: &Self::Buffer,
        weights: Option<&Self::Buffer>,
        mean: &mut Self::Buffer,
        variance: &mut Self::Buffer,
    ) -> Result<()>;

    /// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta` by columns.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    #[allow(clippy::too_many_arguments)]
    fn batch_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: &Self::Buffer,
        mean: &Self::Buffer,
        variance: &Self::Buffer,
        gamma: Option<&Self::Buffer>,
        beta: Option<&Self::Buffer>,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// The gradients of [`batch_norm`](Self::batch_norm): of x set (`=`), of gamma and beta as `grad` says. Mean and variance are those that
    /// [`column_moments`](Self::column_moments) gave for x and `weights`, and the gradient goes through them too. Scratch:
    /// [`DenseCall::Normalization`](crate::backend::dense::DenseCall::Normalization).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    #[allow(clippy::too_many_arguments)]
    fn batch_norm_gradient(
        &self,
        columns: usize,
        epsilon: f64,
        x: &Self::Buffer,
        weights: Option<&Self::Buffer>,
        mean: &Self::Buffer,
        variance: &Self::Buffer,
        gamma: Option<&Self::Buffer>,
        dy: &Self::Buffer,
        dx: Option<&mut Self::Buffer>,
        dgamma: Option<&mut Self::Buffer>,
        dbeta: Option<&mut Self::Buffer>,
        grad: WeightGrad,
        workspace: &mut Self::Buffer,
    ) -> Result<()>;

    /// `mask[r]` is 1 if any `x[r, c]` is not `value`, else 0.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn mask_not_equal(&self, columns: usize, x: &Self::Buffer, value: f64, mask: &mut Self::Buffer) -> Result<()>;

    /// From a mask `[batch, steps]`, how its valid steps are brought to the front and back; see [`MaskOrder`]. Rows are numbered
    /// `b * steps + t`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn mask_order(&self, steps: usize, reverse: bool, mask: &Self::Buffer, order: MaskOrder<'_, Self>) -> Result<()>;

    /// `out[i, :] = from[rows[i], :]`; zeros for [`NO_ROW`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; on the host [`Error::InvalidOption`] for a row that is not there, which on a device gives NaN.
    fn pick_rows(&self, width: usize, from: &Self::Buffer, rows: &Self::Lengths, out: &mut Self::Buffer) -> Result<()>;

    /// `dx[b, p, :] = Σ dy[b, t, :]` over those t with `hold[b, t] = b * steps + p`, in their order, set (`=`): the gradient of picking
    /// the rows that [`MaskOrder::hold`] names.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: &Self::Lengths,
        dy: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// Whole numbers `0..rows` as indices. Another value is an error on the host; on a device index 0, and `code` (not 0) in the record.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::InvalidOption`] for a value that is no such number.
    fn indices(
        &self,
        rows: usize,
        x: &Self::Buffer,
        out: &mut Self::Lengths,
        code: u32,
        record: &mut Self::Tensor<f64>,
    ) -> Result<()>;
}

// What the implementations check alike.
pub(crate) mod check {
    use super::{Error, Result, Strides, check_len};

    /// Rows of a matrix, and that there are as many as `rows` elsewhere.
    pub(crate) fn by_rows(rows: usize, x: usize) -> Result<usize> {
        if rows == 0 || !x.is_multiple_of(rows) {
            return Err(Error::shape("x", format!("a multiple of {rows} elements"), format!("{x} elements")));
        }
        Ok(x / rows)
    }

    /// The lengths of x and y under [`super::TensorBackend::sum_axis`].
    pub(crate) fn axis([outer, count, inner]: [usize; 3], x: usize, y: usize) -> Result<()> {
        check_len("x", &[outer, count, inner], x)?;
        check_len("y", &[outer, inner], y)
    }

    /// Whether every index of a shape leads into a tensor of `len` elements.
    fn inside(tensor: &str, shape: [usize; 4], layout: Strides, len: usize) -> Result<()> {
        let wrong = |got: String| Error::shape(tensor, format!("a tensor that holds {shape:?} under {layout:?}"), got);
        let (mut low, mut high) = (layout.offset as i128, layout.offset as i128);
        for (n, stride) in shape.into_iter().zip(layout.strides) {
            let span = (n as i128 - 1).saturating_mul(stride as i128);
            (low, high) = (low.saturating_add(span.min(0)), high.saturating_add(span.max(0)));
        }
        if low < 0 || high >= len as i128 {
            return Err(wrong(format!("{len} elements, of which it needs {low} to {high}")));
        }
        Ok(())
    }

    /// Whether a strided copy stays inside, and writes no element twice. `false`: there is nothing to copy.
    pub(crate) fn strided(shape: [usize; 4], from: (Strides, usize), to: (Strides, usize)) -> Result<bool> {
        if shape.contains(&0) {
            return Ok(false);
        }
        inside("from", shape, from.0, from.1)?;
        inside("to", shape, to.0, to.1)?;
        let mut axes: Vec<(usize, usize)> =
            to.0.strides.iter().map(|s| s.unsigned_abs()).zip(shape).filter(|(_, n)| *n > 1).collect();
        axes.sort_unstable();
        let mut span = 1usize;
        for (stride, n) in axes {
            if stride < span {
                return Err(Error::shape(
                    "to",
                    "strides under which no element is written twice",
                    format!("{:?}", to.0),
                ));
            }
            span = stride.saturating_mul(n - 1).saturating_add(span);
        }
        Ok(true)
    }

    pub(crate) fn normalized(
        columns: usize,
        x: usize,
        others: &[(&str, Option<usize>)],
        vectors: &[(&str, Option<usize>)],
    ) -> Result<usize> {
        let rows = crate::backend::dense::check::rows("x", x, columns)?;
        crate::backend::dense::check::same(x, others)?;
        crate::backend::dense::check::same(columns, vectors)?;
        Ok(rows)
    }

    /// Rows that share one of the mask's; 1 without a mask.
    pub(crate) fn softmax(
        rows: usize,
        columns: usize,
        keys: Option<(usize, usize)>,
        causal: Option<usize>,
    ) -> Result<usize> {
        if causal == Some(0) {
            return Err(Error::ZeroSize { name: "queries" });
        }
        let Some((len, by)) = keys else { return Ok(1) };
        if by == 0 || !rows.is_multiple_of(by) {
            return Err(Error::shape("keys", format!("rows a mask that divide {rows}"), by.to_string()));
        }
        check_len("keys", &[rows / by, columns], len)?;
        Ok(by)
    }

    /// The lengths of what [`super::MaskOrder`] writes; the batch.
    pub(crate) fn order(
        steps: usize,
        mask: usize,
        parts: [(&str, usize); 3],
        by_sample: [(&str, usize); 2],
    ) -> Result<usize> {
        let batch = crate::backend::dense::check::rows("mask", mask, steps)?;
        parts.into_iter().try_for_each(|(name, len)| check_len(name, &[batch, steps], len))?;
        by_sample.into_iter().try_for_each(|(name, len)| check_len(name, &[batch], len))?;
        Ok(batch)
    }
}
