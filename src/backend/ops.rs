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
//! | `cuda` | `kernels/elementwise.cu`, `tensor.cu`, `gemm.cu`, `reduce.cu`; sums in float (f64: double), losses and norms in double |
//!
//! Sums are taken in a fixed order, so that the same call gives the same bits on the same kind of device, for any number of threads.
//! NaN stays NaN. Matrices are row-major and contiguous. A tensor's length says how many rows there are; a call's tensors must agree.
//! Tensors hold the device's element type unless a call says otherwise: *indices* hold `u32`, a status and a sum of squares `f64`.

use super::WeightGrad;
use super::tensor::{TensorMut, TensorRef};
use crate::cell::Activation;
use crate::error::{Error, Result};
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::rnn::shape::check_len;

/// Which way the operands of a product lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Orientation {
    /// `c = a bᵀ`: `a` `[m, k]`, `b` `[n, k]`.
    Nt,
    /// `c = a b`: `a` `[m, k]`, `b` `[k, n]`.
    Nn,
    /// `c = aᵀ b`: `a` `[k, m]`, `b` `[k, n]`.
    Tn,
}

/// `count` matrix products, one after the other in memory, that give `c` `[m, n]` each by sums over `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MatMul {
    /// How many; 1 for a single product.
    pub count: usize,
    /// Which way the operands lie.
    pub orientation: Orientation,
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

impl MatMul {
    /// A single product.
    pub fn single(orientation: Orientation, m: usize, n: usize, k: usize) -> Self {
        MatMul { count: 1, orientation, m, n, k }
    }
}

/// A call that needs a workspace, with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workspace {
    /// [`Operations::matmul`].
    MatMul(MatMul),
    /// [`Operations::sum_axis`] with these sizes.
    SumAxis([usize; 3]),
    /// [`Operations::layer_norm_gradient`] and [`Operations::batch_norm_gradient`].
    Normalization {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// [`Operations::loss`].
    Loss,
    /// [`Operations::sum_of_squares`].
    SumOfSquares,
}

/// How a loss enters the status.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossEntry {
    /// What the loss is multiplied with before it is added to [`Report::total`]: the samples of the batch, for a mean over batches.
    pub weight: f64,
    /// What [`Report::bad_loss`] shall say if it is not finite; not 0.
    pub code: u32,
}

/// Numbers of a status.
pub const STATUS_LEN: usize = 6;

/// Places in a status.
pub(crate) const LOSS: usize = 0;
pub(crate) const TOTAL: usize = 1;
pub(crate) const BAD_LOSS: usize = 2;
pub(crate) const BAD_GRADIENT: usize = 3;
pub(crate) const BAD_VALUE: usize = 4;
pub(crate) const BAD_INDEX: usize = 5;

/// What a status says. A status is a tensor of [`STATUS_LEN`] `f64`, zeros at first, that calls write to where they compute;
/// a code in it is that of the first call that had something to report.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Report {
    /// The last loss.
    pub loss: f64,
    /// Sum of all losses, each times its weight.
    pub total: f64,
    /// Code of the first loss that was NaN or infinite.
    pub bad_loss: Option<u32>,
    /// Code of the first check that found a value NaN or infinite.
    pub bad_gradient: Option<u32>,
    /// That loss, or else that value (on a device NaN, whatever it was).
    pub bad_value: f64,
    /// Code of the first gather or scatter with an index outside its table. On the host that is an error at once.
    pub bad_index: Option<u32>,
}

impl Report {
    /// What the numbers of a status say.
    pub fn new(status: &[f64; STATUS_LEN]) -> Self {
        // Codes are whole numbers of 32 bits, which f64 holds exactly.
        let code = |at: usize| (status[at] != 0.0).then_some(status[at] as u32);
        Report {
            loss: status[LOSS],
            total: status[TOTAL],
            bad_loss: code(BAD_LOSS),
            bad_gradient: code(BAD_GRADIENT),
            bad_value: status[BAD_VALUE],
            bad_index: code(BAD_INDEX),
        }
    }
}

/// One step of [Adam](crate::optim::Adam).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamStep {
    /// Learning rate, with the correction for the moments' start at zero.
    pub rate: f64,
    /// What the first moment keeps of itself.
    pub beta_1: f64,
    /// What the second moment keeps of itself.
    pub beta_2: f64,
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// The part of themselves that the parameters lose before the step; 0 for none.
    pub decay: f64,
}

/// One step of [gradient descent](crate::optim::Sgd).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SgdStep {
    /// Learning rate.
    pub rate: f64,
    /// What the velocity keeps of itself; used where there is a velocity.
    pub momentum: f64,
    /// Whether the step looks ahead along the velocity.
    pub nesterov: bool,
}

/// One step of [RMSprop](crate::optim::RmsProp).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RmsPropStep {
    /// Learning rate.
    pub rate: f64,
    /// What the mean square keeps of itself.
    pub rho: f64,
    /// What the velocity keeps of itself; used where there is a velocity.
    pub momentum: f64,
    /// Added to the mean square.
    pub epsilon: f64,
}

/// One step of [Adagrad](crate::optim::Adagrad).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdagradStep {
    /// Learning rate.
    pub rate: f64,
    /// Added to the sum of squares.
    pub epsilon: f64,
}

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

/// Where a call that finds an index outside its table notes so, on a device: `code` (not 0) in the status. On the host that is an
/// error at once.
pub struct IndexStatus<'a> {
    /// What [`Report::bad_index`] shall say.
    pub code: u32,
    /// The status.
    pub status: TensorMut<'a>,
}

/// Which columns of each row a [softmax](Operations::softmax) is over.
#[derive(Clone, Copy)]
pub struct SoftmaxMask<'a> {
    /// A mask `[groups, columns]` of 0 and others, and how many rows, one after the other, share one of its rows; absent means all.
    pub keys: Option<(TensorRef<'a>, usize)>,
    /// With `queries`, row r is query `r % queries`, which sees the columns up to its own number; absent means all.
    pub causal: Option<usize>,
}

/// What [`Operations::mask_order`] writes.
pub struct MaskOrder<'a> {
    /// Indices `[batch, steps]`: at `p`, the row of the sample's valid step number `p`; [`NO_ROW`] past their number.
    pub rows: TensorMut<'a>,
    /// Indices `[batch, steps]`: the row of each valid step among the valid ones; [`NO_ROW`] for others.
    pub inverse: TensorMut<'a>,
    /// Indices `[batch, steps]`: the row among the valid ones of the last valid step up to each (in reverse: of the first from each
    /// on); [`NO_ROW`] where there is none.
    pub hold: TensorMut<'a>,
    /// `u32` `[batch]`: valid steps, but at least 1.
    pub lengths: TensorMut<'a>,
    /// `[batch]`: 1 where a step is valid, else 0.
    pub any: TensorMut<'a>,
}

/// Matrix products, sums, norms, losses, optimizers: what a model is trained with. See the [module](self).
///
/// Every call checks the element types and the lengths of its tensors ([`Error::Shape`]) and that they are the device's
/// ([`Error::Unsupported`]); the other errors are those of the device. Where a `workspace` is asked for, it is scratch of at least
/// [`workspace`](Self::workspace) elements whose contents do not matter.
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
    /// Those of the device.
    fn fill(&self, x: TensorMut<'_>, value: f64) -> Result<()>;

    /// `y = alpha x + beta y`; with a `beta` of zero y is not read.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn scale_add(&self, alpha: f64, x: TensorRef<'_>, beta: f64, y: TensorMut<'_>) -> Result<()>;

    /// `x = alpha x`.
    ///
    /// # Errors
    ///
    /// Those of the device.
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
    /// Those of [`gather`](Self::gather).
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
    /// the rows is taken. Targets are as long as the predictions; of a [sparse loss](Loss::is_sparse) they are `[rows]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::ZeroSize`] without elements; on the host [`Error::InvalidOption`] for a class that is no whole number
    /// below the columns, which on a device makes the loss NaN.
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
    /// Those of the device.
    fn clip_by_value(&self, most: f64, x: TensorMut<'_>) -> Result<()>;

    /// Notes `code` (not 0) in the status if an element of `x` is NaN or infinite and no earlier check found one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for a status of the wrong length.
    fn check_finite(&self, x: TensorRef<'_>, code: u32, status: TensorMut<'_>) -> Result<()>;
}

/// Lengths of calls' tensors, with the geometry that follows from them.
pub(crate) mod check {
    use super::{Error, Loss, MatMul, Orientation, Result, STATUS_LEN, Strides, check_len};

    pub(crate) fn matmul(product: &MatMul, a: usize, b: usize, c: usize) -> Result<()> {
        let MatMul { count, orientation, m, n, k } = *product;
        let (a_shape, b_shape) = match orientation {
            Orientation::Nt => ([count, m, k], [count, n, k]),
            Orientation::Nn => ([count, m, k], [count, k, n]),
            Orientation::Tn => ([count, k, m], [count, k, n]),
        };
        check_len("a", &a_shape, a)?;
        check_len("b", &b_shape, b)?;
        check_len("c", &[count, m, n], c)
    }

    /// Tensors that must be as long as the first.
    pub(crate) fn same(first: usize, others: &[(&str, Option<usize>)]) -> Result<()> {
        others.iter().try_for_each(|(name, len)| len.map_or(Ok(()), |len| check_len(name, &[first], len)))
    }

    /// A workspace may be larger than needed.
    pub(crate) fn workspace(needed: usize, got: usize) -> Result<()> {
        if got >= needed {
            return Ok(());
        }
        let expected = format!("at least {needed} elements (see Operations::workspace)");
        Err(Error::shape("workspace", expected, format!("{got} elements")))
    }

    pub(crate) fn status(len: usize) -> Result<()> {
        check_len("status", &[STATUS_LEN], len)
    }

    /// Rows of a matrix of `len` elements.
    pub(crate) fn rows(tensor: &str, len: usize, columns: usize) -> Result<usize> {
        if columns == 0 {
            return Err(Error::ZeroSize { name: "columns" });
        }
        if !len.is_multiple_of(columns) {
            return Err(Error::shape(tensor, format!("a multiple of {columns} elements"), format!("{len} elements")));
        }
        Ok(len / columns)
    }

    /// Lengths of a loss's tensors; the rows.
    pub(crate) fn loss(
        loss: Loss,
        columns: usize,
        targets: usize,
        predictions: usize,
        weights: Option<usize>,
        gradient: Option<usize>,
    ) -> Result<usize> {
        if predictions == 0 {
            return Err(Error::ZeroSize { name: "number of targets" });
        }
        let rows = rows("predictions", predictions, columns)?;
        check_len("targets", &[if loss.is_sparse() { rows } else { predictions }], targets)?;
        same(predictions, &[("gradient", gradient)])?;
        same(rows, &[("weights", weights)])?;
        Ok(rows)
    }

    /// Rows of the table.
    pub(crate) fn gather(width: usize, table: usize, indices: usize, out: usize) -> Result<usize> {
        let rows = rows("table", table, width)?;
        check_len("out", &[indices, width], out)?;
        Ok(rows)
    }

    /// Rows of a matrix, and that there are as many as `rows` elsewhere.
    pub(crate) fn by_rows(rows: usize, x: usize) -> Result<usize> {
        if rows == 0 || !x.is_multiple_of(rows) {
            return Err(Error::shape("x", format!("a multiple of {rows} elements"), format!("{x} elements")));
        }
        Ok(x / rows)
    }

    /// The lengths of x and y under [`super::Operations::sum_axis`].
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
        let mut axes = [0, 1, 2, 3].map(|axis| (to.0.strides[axis].unsigned_abs(), shape[axis]));
        axes.sort_unstable();
        let mut span = 1usize;
        for (stride, n) in axes.into_iter().filter(|(_, n)| *n > 1) {
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
        let rows = rows("x", x, columns)?;
        same(x, others)?;
        same(columns, vectors)?;
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
        let batch = rows("mask", mask, steps)?;
        parts.into_iter().try_for_each(|(name, len)| check_len(name, &[batch, steps], len))?;
        by_sample.into_iter().try_for_each(|(name, len)| check_len(name, &[batch], len))?;
        Ok(batch)
    }
}
