//! What a model computes besides the recurrent operator: [`Operations`].
//!
//! The division of labour is that of [`RecurrentBackend`](super::RecurrentBackend): tensors are the caller's, work is given to the
//! device's stream, no call allocates device memory, copies between host and device, or waits. What a training step has to tell (its
//! loss, whether a gradient is finite) goes into a *status* tensor beside the others, see [`Report`], and is read when the caller asks
//! for it.
//!
//! | implemented by | |
//! |---|---|
//! | [`reference`](super::reference) | plain loops |
//! | [`cpu`](super::cpu) | its own matrix products, vectors and threads |
//! | `cuda` | `kernels/elementwise.cu`, `rows.cu`, `norm.cu`, `training.cu`, `dropout.cu`, `gemm*.cu`, `reduce.cu`; sums in f32 (f64: f64), losses and norms in f64 |
//!
//! Sums are taken in a fixed order, so that the same call gives the same bits on the same kind of device, for any number of threads.
//! NaN stays NaN. Matrices are row-major and contiguous. A tensor's length says how many rows there are; a call's tensors must agree.
//! Tensors hold the device's element type unless a call says otherwise: *indices* hold `u32`, a status and a sum of squares `f64`.
//!
//! | file | what |
//! |---|---|
//! | `mod` | [`Operations`] |
//! | `attention` | attention as products, a softmax and copies, for devices without one of their own |
//! | `arguments` | sizes of products, strides, masks, steps of optimizers, calls that need a workspace |
//! | `status` | what calls report of losses, gradients and indices, and where it stands |
//! | `check` | lengths of calls' tensors |

mod arguments;
pub(crate) mod attention;
pub(crate) mod check;
mod status;

pub use arguments::{
    AdagradStep, AdamStep, AttentionGradients, AttentionInputs, AttentionShape, MaskOrder, MatMul, NO_ROW, Orientation,
    RmsPropStep, SgdStep, SoftmaxMask, Strides, Workspace,
};
pub(crate) use status::{BAD_GRADIENT, BAD_LOSS, BAD_VALUE, LOSS, TOTAL};
pub use status::{IndexStatus, LossEntry, Report, STATUS_LEN};

use super::WeightGrad;
use super::tensor::{TensorMut, TensorRef};
use crate::cell::Activation;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::loss::Loss;
use crate::rnn::Dropout;

/// Matrix products, sums, norms, losses, optimizers: what a model is trained with. See the [module](self).
///
/// Every call checks the element types and the lengths of its tensors ([`Error::Shape`]) and that they are the device's
/// ([`Error::Unsupported`]); on a GPU a driver that fails is [`Error::Driver`]. A `workspace` has at least
/// [`workspace`](Self::workspace) elements; its contents do not matter.
#[allow(clippy::too_many_arguments)]
pub trait Operations: Send + Sync {
    /// Elements of workspace that a call needs; 0 where it needs none.
    fn workspace(&self, call: Workspace) -> usize;

    // Products and sums.

    /// `c = alpha product` or `c += alpha product`, `count` times.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        c: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()>;

    /// `c = product + bias`, `count` times, with a bias `[n]` that is added to every row, for products of all orientations: a dense layer
    /// in one call. The workspace is that of [`matmul`](Self::matmul).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn matmul_bias(
        &self,
        product: MatMul,
        a: TensorRef<'_>,
        b: TensorRef<'_>,
        bias: TensorRef<'_>,
        mut c: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        check::bias(&product, bias.len())?;
        self.matmul(product, 1.0, a, b, c.reborrow(), WeightGrad::Set, workspace)?;
        if c.is_empty() { Ok(()) } else { self.add_bias_activate(Activation::Linear, Some(bias), c, None) }
    }

    /// `y[o, i] = alpha Σ_c x[o, c, i]`, or `+=`, with `sizes` the numbers of o, c and i. With one o and i a bias's units it is the
    /// gradient of that bias.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sum_axis(
        &self,
        sizes: [usize; 3],
        alpha: f64,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
        grad: WeightGrad,
        workspace: TensorMut<'_>,
    ) -> Result<()>;

    // Elements.

    /// `y = x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn copy(&self, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
        self.scale_add(1.0, x, 0.0, y)
    }

    /// Sets every element to `value`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another element type, [`Error::Unsupported`] for another device's tensor, [`Error::Driver`] where the GPU's
    /// driver fails.
    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()>;

    /// `y = alpha x + beta y`; with a `beta` of zero y is not read.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()>;

    /// `y = a + alpha b`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sum(&self, a: TensorRef<'_>, alpha: f64, b: TensorRef<'_>, mut y: TensorMut<'_>) -> Result<()> {
        self.copy(a, y.reborrow())?;
        self.scale_add(alpha, b, 1.0, y)
    }

    /// `x = alpha x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another element type, [`Error::Unsupported`] for another device's tensor, [`Error::Driver`] where the GPU's
    /// driver fails.
    fn scale(&self, alpha: f64, x: TensorMut<'_>) -> Result<()>;

    /// `to[…] = from[…]`, or `+=`, for all indices of `shape`: turns, flips, slices, joins and repeats.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an index leads outside of a tensor, or two lead to one element of `to`.
    fn strided_copy(
        &self,
        shape: [usize; 4],
        from: TensorRef<'_>,
        from_layout: Strides,
        to: TensorMut<'_>,
        to_layout: Strides,
        grad: WeightGrad,
    ) -> Result<()>;

    /// `out = a * b`, elementwise.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn multiply(&self, a: TensorRef<'_>, b: TensorRef<'_>, out: TensorMut<'_>) -> Result<()>;

    /// `values = activation(values + bias)` on `[rows, columns]`, with a bias `[columns]` or none. `inputs` gets what went into the
    /// activation.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<TensorRef<'_>>,
        values: TensorMut<'_>,
        inputs: Option<TensorMut<'_>>,
    ) -> Result<()>;

    /// `dx = dy * activation'`, elementwise. `values` is what came out of the activation, or what went in where
    /// [`Activation::derivative_needs_input`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn activation_gradient(
        &self,
        activation: Activation,
        dy: TensorRef<'_>,
        values: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()>;

    // Rows.

    /// `out[i, :] = table[rows[i], :]`, rows of `width` elements; zeros for [`NO_ROW`]: an embedding, a batch of samples, steps in
    /// another order. `rows` are indices. One outside the table is an error on the host; on a device it gives a row of NaN and is noted
    /// in the status, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::InvalidOption`] for an index outside the table.
    fn gather(
        &self,
        width: usize,
        table: TensorRef<'_>,
        rows: TensorRef<'_>,
        out: TensorMut<'_>,
        status: Option<IndexStatus<'_>>,
    ) -> Result<()>;

    /// The gradient of a table from that of what was gathered: `dtable[rows[i], :] += dout[i, :]`, in the order of `i` for each
    /// row, after zeros where `grad` says so. [`NO_ROW`] is left out. An index
    /// outside the table is ignored on a device, and noted in the status.
    ///
    /// On a device every row of the result looks through all indices: time is that of `indices * min(indices, rows)` comparisons.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where lengths do not fit together; [`Error::Unsupported`] for a tensor of another device; [`Error::Driver`] where the GPU's
    /// driver fails.
    fn scatter_add(
        &self,
        width: usize,
        rows: TensorRef<'_>,
        dout: TensorRef<'_>,
        dtable: TensorMut<'_>,
        grad: WeightGrad,
        status: Option<IndexStatus<'_>>,
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
        x: TensorRef<'_>,
        mask: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        position: TensorMut<'_>,
    ) -> Result<()>;

    /// The gradient of [`max_axis`](Self::max_axis), set (`=`): `dy` where the largest was, else zero.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn max_axis_gradient(
        &self,
        sizes: [usize; 3],
        dy: TensorRef<'_>,
        position: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()>;

    /// `y[r, :] = x[r, :] factors[r]`, or with `inverse` `x[r, :] / factors[r]`, which is zero where the factor is. There are as many rows
    /// as factors.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn scale_rows(&self, factors: TensorRef<'_>, inverse: bool, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()>;

    /// `out[r, :] = a[r, :]` where `mask[r]` is not zero, else `b[r, :]`, or zeros without b.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn select_rows(
        &self,
        mask: TensorRef<'_>,
        a: TensorRef<'_>,
        b: Option<TensorRef<'_>>,
        out: TensorMut<'_>,
    ) -> Result<()>;

    /// `y[r, c] = exp(x[r, c] - max) / Σ exp(x[r, :] - max)` over the columns that `valid` names; others get zero, and all do in a row
    /// without any.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn softmax(&self, columns: usize, x: TensorRef<'_>, valid: SoftmaxMask<'_>, y: TensorMut<'_>) -> Result<()>;

    /// `dx = y (dy - Σ y dy)` by rows, set (`=`).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn softmax_gradient(&self, columns: usize, y: TensorRef<'_>, dy: TensorRef<'_>, dx: TensorMut<'_>) -> Result<()>;

    /// Attention ([Vaswani et al. 2017](https://arxiv.org/abs/1706.03762), section 3.2.1) of heads side by side:
    /// `y[b, i, h, :] = Σ_j w[b, h, i, j] value[b, j, h, :]`, where `w[b, h, i, :]` is the softmax of
    /// `alpha query[b, i, h, :] · key[b, j, h, :]` over the keys j that query i sees; `y` `[batch, queries, heads, value_dim]`. A query that sees
    /// none gets zeros. What stands in a key or value that none sees must be finite. `statistics` `[batch, queries, heads, 2]` is for
    /// [`attention_gradient`](Self::attention_gradient) on the same device alone.
    ///
    /// Here it is products, a softmax and copies, with the weights of all keys in the workspace.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::ZeroSize`] for a size of zero other than the batch.
    fn attention(
        &self,
        shape: AttentionShape,
        alpha: f64,
        of: AttentionInputs<'_>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        attention::forward(self, shape, alpha, of, y, statistics, workspace)
    }

    /// The gradients of [`attention`](Self::attention), set (`=`), from those of `y`. `y` and `statistics` are what that call wrote.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::ZeroSize`] for a size of zero other than the batch.
    fn attention_gradient(
        &self,
        shape: AttentionShape,
        alpha: f64,
        of: AttentionInputs<'_>,
        y: TensorRef<'_>,
        statistics: TensorRef<'_>,
        dy: TensorRef<'_>,
        to: AttentionGradients<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()> {
        attention::backward(self, shape, alpha, of, y, statistics, dy, to, workspace)
    }

    /// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta` by rows; `statistics` `[rows, 2]` gets mean and `1 / sqrt(variance +
    /// epsilon)`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn layer_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
        statistics: TensorMut<'_>,
    ) -> Result<()>;

    /// The gradients of [`layer_norm`](Self::layer_norm): of x set (`=`), of gamma and beta as `grad` says. Scratch:
    /// [`Workspace::Normalization`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn layer_norm_gradient(
        &self,
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
    ) -> Result<()>;

    /// Mean and variance (divided by the number, not one less) of each column, with `weights` `[rows]` weighted.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn column_moments(
        &self,
        columns: usize,
        x: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        mean: TensorMut<'_>,
        variance: TensorMut<'_>,
    ) -> Result<()>;

    /// `y = (x - mean) / sqrt(variance + epsilon) gamma + beta` by columns.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn batch_norm(
        &self,
        columns: usize,
        epsilon: f64,
        x: TensorRef<'_>,
        mean: TensorRef<'_>,
        variance: TensorRef<'_>,
        gamma: Option<TensorRef<'_>>,
        beta: Option<TensorRef<'_>>,
        y: TensorMut<'_>,
    ) -> Result<()>;

    /// The gradients of [`batch_norm`](Self::batch_norm): of x set (`=`), of gamma and beta as `grad` says. Mean and variance are those that
    /// [`column_moments`](Self::column_moments) gave for x and `weights`, and the gradient goes through them too. Scratch:
    /// [`Workspace::Normalization`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn batch_norm_gradient(
        &self,
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
    ) -> Result<()>;

    /// `mask[r]` is 1 if any `x[r, c]` is not `value`, else 0.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn mask_not_equal(&self, columns: usize, x: TensorRef<'_>, value: f64, mask: TensorMut<'_>) -> Result<()>;

    /// From a mask `[batch, steps]`, how its valid steps are brought to the front and back; see [`MaskOrder`]. Rows are numbered
    /// `b * steps + t`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn mask_order(&self, steps: usize, reverse: bool, mask: TensorRef<'_>, order: MaskOrder<'_>) -> Result<()>;

    /// `dx[b, p, :] = Σ dy[b, t, :]` over those t with `hold[b, t] = b * steps + p`, in their order, set (`=`): the gradient of gathering
    /// the rows that [`MaskOrder::hold`] names.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn hold_gradient(
        &self,
        steps: usize,
        width: usize,
        hold: TensorRef<'_>,
        dy: TensorRef<'_>,
        dx: TensorMut<'_>,
    ) -> Result<()>;

    /// Whole numbers `0..rows` as indices. Another value is an error on the host; on a device index 0, noted in the
    /// status.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::InvalidOption`] for a value that is no such number.
    fn indices(&self, rows: usize, x: TensorRef<'_>, out: TensorMut<'_>, status: Option<IndexStatus<'_>>)
    -> Result<()>;

    // Training.

    /// `y = x * mask` on `[steps, batch, features]`, the mask being that of `layer`: feature f of sequence b at step t has the bits
    /// that [`Dropout::apply`] gives it. The same call on `dy` gives the gradient `dx`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn dropout(
        &self,
        dropout: &Dropout,
        layer: usize,
        batch: usize,
        features: usize,
        x: TensorRef<'_>,
        y: TensorMut<'_>,
    ) -> Result<()>;

    /// The loss of predictions `[rows, columns]` into the status, and its gradient by the predictions, set (`=`). With `weights` `[rows]`
    /// the loss of each row (the mean over its columns, where each is an observation) is multiplied by its weight before the mean over
    /// the rows is taken. Targets are as long as the predictions, or `[rows]` where a row has [one](Loss::has_one_target_a_row). On the host an
    /// element of the gradient below `2^-90` (of `f64`, `2^-986`) is zero.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::ZeroSize`] without elements; on the host [`Error::InvalidOption`] for a class that is no whole number
    /// below the columns, which on a device makes the loss NaN; on a device [`Error::Unsupported`] for a loss without a kernel.
    fn loss(
        &self,
        loss: Loss,
        columns: usize,
        targets: TensorRef<'_>,
        predictions: TensorRef<'_>,
        weights: Option<TensorRef<'_>>,
        gradient: Option<TensorMut<'_>>,
        entry: LossEntry,
        status: TensorMut<'_>,
        workspace: TensorMut<'_>,
    ) -> Result<()>;

    /// One step of Adam; `m` and `v` are its moments, zeros before the first step.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn adam(
        &self,
        step: AdamStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        m: TensorMut<'_>,
        v: TensorMut<'_>,
    ) -> Result<()>;

    /// One step of gradient descent, with a velocity (zeros before the first step) or without.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sgd(
        &self,
        step: SgdStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()>;

    /// One step of RMSprop. `mean` is there if the variance is to be centred, `velocity` if there is momentum; all are zeros before
    /// the first step.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn rmsprop(
        &self,
        step: RmsPropStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        mean_square: TensorMut<'_>,
        mean: Option<TensorMut<'_>>,
        velocity: Option<TensorMut<'_>>,
    ) -> Result<()>;

    /// One step of Adagrad: `sum += gradient²`, then `parameter -= rate gradient / sqrt(sum + epsilon)`. `sums` are the optimizer's
    /// initial value before the first step.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn adagrad(
        &self,
        step: AdagradStep,
        parameters: TensorMut<'_>,
        gradients: TensorRef<'_>,
        sums: TensorMut<'_>,
    ) -> Result<()>;

    /// `sum[0] = ` the sum of the squares of `x`, in `f64`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sum_of_squares(&self, x: TensorRef<'_>, sum: TensorMut<'_>, workspace: TensorMut<'_>) -> Result<()>;

    /// Scales `x` so that its norm, the root of `sum_of_squares[0]`, is at most `most`. A norm that is NaN makes all of it NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn clip_by_norm(&self, most: f64, sum_of_squares: TensorRef<'_>, x: TensorMut<'_>) -> Result<()>;

    /// Limits every element of `x` to `-most..=most`; NaN stays NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another element type, [`Error::Unsupported`] for another device's tensor, [`Error::Driver`] where the GPU's
    /// driver fails.
    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()>;

    /// Notes `code` (not 0) in the status if an element of `x` is NaN or infinite and no earlier check found one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for a status of the wrong length.
    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()>;
}
