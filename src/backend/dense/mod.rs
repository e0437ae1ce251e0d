//! What a model needs besides the recurrent operator: [`DenseBackend`], with [`Memory`] to keep its tensors in.
//!
//! The division of labour is that of [`RecurrentBackend`](crate::backend::RecurrentBackend): buffers are the caller's, work is given to the backend's stream, no
//! call allocates memory, copies between host and device, or waits. What a step has to tell (its loss, whether a gradient is
//! finite) goes into a *record* beside the tensors, see [`Report`], and is read when the caller asks for it.
//!
//! | where | elements | |
//! |---|---|---|
//! | any backend on host slices ([`HostBackend`](super::HostBackend)) | f32, f64 | plain loops, `ndarray`'s matrix product, SIMD for Adam |
//! | `CudaBackend` | f32, f64, f16, bf16 | `kernels/dense.cu`, `gemm.cu`, `reduce.cu`; sums in float (f64: double), losses and norms in double |
//!
//! Sums are taken in a fixed order, so that the same call gives the same bits on the same kind of device. NaN stays NaN.
//! Matrices are row-major and dense. A tensor's length says how many rows there are; a call's tensors must agree.

mod host;

use std::borrow::BorrowMut;
use std::ops::{Deref, DerefMut, Range};

use bytemuck::Pod;

use crate::backend::{Storage, TensorBackend, WeightGrad};
use crate::cell::Activation;
use crate::error::{Error, Result};
use crate::nn::Loss;
use crate::rnn::Dropout;
use crate::rnn::shape::check_len;

/// Where a backend's tensors are kept. Nothing here is for the inside of a loop but the views.
pub trait Memory {
    /// A tensor, as calls take it: `[T]` on the host.
    type Tensor<T: Pod>: Storage<T> + ?Sized;
    /// A tensor that owns its memory: `Vec<T>` on the host.
    type Owned<T: Pod>: BorrowMut<Self::Tensor<T>>;
    /// A tensor, or a part of one, to be read.
    type View<'a, T: Pod>: Deref<Target = Self::Tensor<T>>
    where
        Self: 'a;
    /// A tensor, or a part of one, to be written.
    type ViewMut<'a, T: Pod>: DerefMut<Target = Self::Tensor<T>>
    where
        Self: 'a;

    /// A tensor of `len` zeros; `what` names it in errors.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`], [`Error::Unsupported`] where there is too little memory.
    fn allocate<T: Pod>(&self, what: &str, len: usize) -> Result<Self::Owned<T>>;

    /// A tensor with these values: on the host the vector itself, on a device a copy.
    ///
    /// # Errors
    ///
    /// Those of [`allocate`](Self::allocate) and of the copy.
    fn take<T: Pod>(&self, what: &str, values: Vec<T>) -> Result<Self::Owned<T>>;

    /// The values where the backend can read them: on the host themselves, on a device a copy.
    ///
    /// # Errors
    ///
    /// Those of [`take`](Self::take).
    fn place<'a, T: Pod>(&self, what: &str, values: &'a [T]) -> Result<Self::View<'a, T>>
    where
        Self: 'a;

    /// Copies values from the host.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths differ; those of the device.
    fn upload<T: Pod>(&self, from: &[T], to: &mut Self::Tensor<T>) -> Result<()>;

    /// Copies values to the host, when all work given before is done.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the lengths differ; those of the device, of earlier work too.
    fn download<T: Pod>(&self, from: &Self::Tensor<T>, to: &mut [T]) -> Result<()>;

    /// A part of a tensor.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the tensor ends before the range does.
    fn view<'a, T: Pod>(&self, tensor: &'a Self::Tensor<T>, range: Range<usize>) -> Result<Self::View<'a, T>>
    where
        Self: 'a;

    /// A part of a tensor, to be written.
    ///
    /// # Errors
    ///
    /// Those of [`view`](Self::view).
    fn view_mut<'a, T: Pod>(
        &self,
        tensor: &'a mut Self::Tensor<T>,
        range: Range<usize>,
    ) -> Result<Self::ViewMut<'a, T>>
    where
        Self: 'a;

    /// The first `at` elements and the others.
    ///
    /// # Errors
    ///
    /// Those of [`view`](Self::view).
    #[allow(clippy::type_complexity)]
    fn split<'a, T: Pod>(
        &self,
        tensor: &'a Self::Tensor<T>,
        at: usize,
    ) -> Result<(Self::View<'a, T>, Self::View<'a, T>)>
    where
        Self: 'a,
    {
        Ok((self.view(tensor, 0..at)?, self.view(tensor, at..tensor.elements())?))
    }

    /// The first `at` elements and the others, to be written.
    ///
    /// # Errors
    ///
    /// Those of [`view`](Self::view).
    #[allow(clippy::type_complexity)]
    fn split_mut<'a, T: Pod>(
        &self,
        tensor: &'a mut Self::Tensor<T>,
        at: usize,
    ) -> Result<(Self::ViewMut<'a, T>, Self::ViewMut<'a, T>)>
    where
        Self: 'a;
}

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

/// A matrix product that gives `c` `[m, n]` by sums over `k`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Product {
    /// Which way the operands lie.
    pub orientation: Orientation,
    /// Rows of `c`.
    pub m: usize,
    /// Columns of `c`.
    pub n: usize,
    /// Terms of each sum.
    pub k: usize,
}

/// A call that needs scratch space, with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum DenseCall {
    /// [`DenseBackend::gemm`].
    Gemm(Product),
    /// [`DenseBackend::column_sums`] of a matrix.
    ColumnSums {
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// [`TensorBackend::layer_norm_gradient`] and [`TensorBackend::batch_norm_gradient`].
    Normalization {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// [`DenseBackend::loss`].
    Loss,
    /// [`DenseBackend::sum_of_squares`].
    SumOfSquares,
}

/// How a loss enters the record.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LossEntry {
    /// What the loss is multiplied with before it is added to [`Report::total`]: the samples of the batch, for a mean over batches.
    pub weight: f64,
    /// What [`Report::bad_loss`] shall say if it is not finite; not 0.
    pub code: u32,
}

/// Numbers of a record.
pub const RECORD_LEN: usize = 6;

/// Places in a record.
pub(crate) const LOSS: usize = 0;
pub(crate) const TOTAL: usize = 1;
pub(crate) const BAD_LOSS: usize = 2;
pub(crate) const BAD_GRADIENT: usize = 3;
pub(crate) const BAD_VALUE: usize = 4;
pub(crate) const BAD_INDEX: usize = 5;

/// What a record says. A record is a tensor of [`RECORD_LEN`] `f64`, zeros at first, that calls write to where they compute;
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
    /// What the numbers of a record say.
    pub fn new(record: &[f64; RECORD_LEN]) -> Self {
        // Codes are whole numbers of 32 bits, which f64 holds exactly.
        let code = |at: usize| (record[at] != 0.0).then_some(record[at] as u32);
        Report {
            loss: record[LOSS],
            total: record[TOTAL],
            bad_loss: code(BAD_LOSS),
            bad_gradient: code(BAD_GRADIENT),
            bad_value: record[BAD_VALUE],
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

/// Columns of a matrix: `count` of them in each row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Columns {
    /// Columns of the whole matrix.
    pub width: usize,
    /// The first one meant.
    pub first: usize,
}

/// Matrix products, activations, losses, optimizers, and what else a model is trained with. See the [module](self).
///
/// Every call checks the lengths of its tensors ([`Error::Shape`]); the other errors are those of the device. Where a `workspace`
/// is asked for, it is scratch of at least [`dense_workspace`](Self::dense_workspace) elements whose contents do not matter.
pub trait DenseBackend: TensorBackend {
    /// Loads whatever calls need. Without it the first call does so, which is slow, and must not happen while a CUDA graph is
    /// being captured.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where a kernel cannot be had.
    fn prepare_dense(&self) -> Result<()>;

    /// Elements of scratch space that a call needs; 0 where it needs none.
    fn dense_workspace(&self, call: DenseCall) -> usize;

    /// Whether gradients pass through a type of so small a range, f16, that the loss should be
    /// [scaled](crate::model::LossScale) before they are computed.
    fn needs_loss_scale(&self) -> bool {
        false
    }

    /// `c = product` or `c += product`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn gemm(
        &self,
        product: Product,
        a: &Self::Buffer,
        b: &Self::Buffer,
        c: &mut Self::Buffer,
        grad: WeightGrad,
        workspace: &mut Self::Buffer,
    ) -> Result<()>;

    /// `values = activation(values + bias)` on `[rows, columns]`, with a bias `[columns]` or none. `inputs` gets what went into the
    /// activation.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn add_bias_activate(
        &self,
        activation: Activation,
        bias: Option<&Self::Buffer>,
        values: &mut Self::Buffer,
        inputs: Option<&mut Self::Buffer>,
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
        dy: &Self::Buffer,
        values: &Self::Buffer,
        dx: &mut Self::Buffer,
    ) -> Result<()>;

    /// Sums of the columns of `x` `[rows, columns]`, `columns` being the length of `sums`: the gradient of a bias.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn column_sums(
        &self,
        x: &Self::Buffer,
        sums: &mut Self::Buffer,
        grad: WeightGrad,
        workspace: &mut Self::Buffer,
    ) -> Result<()>;

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
        x: &Self::Buffer,
        y: &mut Self::Buffer,
    ) -> Result<()>;

    /// The loss of predictions `[rows, columns]` into the record, and its gradient by the predictions, set (`=`). With `weights` `[rows]`
    /// the loss of each row (the mean over its columns, where each is an observation) is multiplied by its weight before the mean over
    /// the rows is taken. Targets are as long as the predictions; of a [sparse loss](Loss::is_sparse) they are `[rows]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::ZeroSize`] without elements; on the host [`Error::InvalidOption`] for a class that is no whole number
    /// below the columns, which on a device makes the loss NaN.
    #[allow(clippy::too_many_arguments)]
    fn loss(
        &self,
        loss: Loss,
        columns: usize,
        targets: &Self::Buffer,
        predictions: &Self::Buffer,
        weights: Option<&Self::Buffer>,
        gradient: Option<&mut Self::Buffer>,
        entry: LossEntry,
        record: &mut Self::Tensor<f64>,
        workspace: &mut Self::Buffer,
    ) -> Result<()>;

    /// One step of Adam; `m` and `v` are its moments, zeros before the first step.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn adam(
        &self,
        step: AdamStep,
        parameters: &mut Self::Buffer,
        gradients: &Self::Buffer,
        m: &mut Self::Buffer,
        v: &mut Self::Buffer,
    ) -> Result<()>;

    /// One step of gradient descent, with a velocity (zeros before the first step) or without.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sgd(
        &self,
        step: SgdStep,
        parameters: &mut Self::Buffer,
        gradients: &Self::Buffer,
        velocity: Option<&mut Self::Buffer>,
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
        parameters: &mut Self::Buffer,
        gradients: &Self::Buffer,
        mean_square: &mut Self::Buffer,
        mean: Option<&mut Self::Buffer>,
        velocity: Option<&mut Self::Buffer>,
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
        parameters: &mut Self::Buffer,
        gradients: &Self::Buffer,
        sums: &mut Self::Buffer,
    ) -> Result<()>;

    /// `sum[0] = ` the sum of the squares of `x`, in `f64`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn sum_of_squares(&self, x: &Self::Buffer, sum: &mut Self::Tensor<f64>, workspace: &mut Self::Buffer)
    -> Result<()>;

    /// Scales `x` so that its norm, the root of `sum_of_squares[0]`, is at most `most`. A norm that is NaN makes all of it NaN.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn clip_by_norm(&self, most: f64, sum_of_squares: &Self::Tensor<f64>, x: &mut Self::Buffer) -> Result<()>;

    /// Limits every element of `x` to `-most..=most`; NaN stays NaN.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn clip_by_value(&self, most: f64, x: &mut Self::Buffer) -> Result<()>;

    /// Notes `code` (not 0) in the record if an element of `x` is NaN or infinite and no earlier check found one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for a record of the wrong length.
    fn check_finite(&self, x: &Self::Buffer, code: u32, record: &mut Self::Tensor<f64>) -> Result<()>;

    /// `out[i, :] = table[indices[i], :]`, rows of `width` elements: an embedding, or a batch of samples. An index outside the table
    /// is an error on the host; on a device it gives a row of NaN and `code` (not 0) in the record.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`]; [`Error::InvalidOption`] for an index outside the table.
    fn gather(
        &self,
        width: usize,
        table: &Self::Buffer,
        indices: &Self::Tensor<u32>,
        out: &mut Self::Buffer,
        code: u32,
        record: &mut Self::Tensor<f64>,
    ) -> Result<()>;

    /// The gradient of a table from that of what was gathered: `dtable[indices[i], :] += dout[i, :]`, in the order of `i` for each
    /// row, after zeros where `grad` says so. An index outside the table is ignored on a device, with `code` in the record.
    ///
    /// On a device every row of the result looks through all indices: time is that of `indices * min(indices, rows)` comparisons.
    ///
    /// # Errors
    ///
    /// Those of [`gather`](Self::gather).
    #[allow(clippy::too_many_arguments)]
    fn scatter_add(
        &self,
        width: usize,
        indices: &Self::Tensor<u32>,
        dout: &Self::Buffer,
        dtable: &mut Self::Buffer,
        grad: WeightGrad,
        code: u32,
        record: &mut Self::Tensor<f64>,
    ) -> Result<()>;

    /// `out = a + b`, elementwise.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn add(&self, a: &Self::Buffer, b: &Self::Buffer, out: &mut Self::Buffer) -> Result<()>;

    /// `out = a * b`, elementwise.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn multiply(&self, a: &Self::Buffer, b: &Self::Buffer, out: &mut Self::Buffer) -> Result<()>;

    /// Copies `count` columns of one matrix over as many of another with as many rows. Once for each part, it joins matrices
    /// along their last axis, or splits one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn copy_columns(
        &self,
        count: usize,
        from: &Self::Buffer,
        from_columns: Columns,
        to: &mut Self::Buffer,
        to_columns: Columns,
    ) -> Result<()>;

    /// `to = from`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`].
    fn copy(&self, from: &Self::Buffer, to: &mut Self::Buffer) -> Result<()> {
        let columns = Columns { width: from.elements(), first: 0 };
        let to_columns = Columns { width: to.elements(), first: 0 };
        check_len("to", &[from.elements()], to.elements())?;
        self.copy_columns(from.elements(), from, columns, to, to_columns)
    }

    /// Sets every element to `value`.
    ///
    /// # Errors
    ///
    /// Those of the device.
    fn fill(&self, x: &mut Self::Buffer, value: f64) -> Result<()>;
}

// What the implementations check alike.

/// Lengths of calls' tensors, with the geometry that follows from them.
pub(crate) mod check {
    use super::{Columns, Error, Loss, Orientation, Product, RECORD_LEN, Result, check_len};

    pub(crate) fn gemm(product: &Product, a: usize, b: usize, c: usize) -> Result<()> {
        let Product { orientation, m, n, k } = *product;
        let (a_shape, b_shape) = match orientation {
            Orientation::Nt => ([m, k], [n, k]),
            Orientation::Nn => ([m, k], [k, n]),
            Orientation::Tn => ([k, m], [k, n]),
        };
        check_len("a", &a_shape, a)?;
        check_len("b", &b_shape, b)?;
        check_len("c", &[m, n], c)
    }

    /// Tensors that must be as long as the first.
    pub(crate) fn same(first: usize, others: &[(&str, Option<usize>)]) -> Result<()> {
        others.iter().try_for_each(|(name, len)| len.map_or(Ok(()), |len| check_len(name, &[first], len)))
    }

    pub(crate) fn record(len: usize) -> Result<()> {
        check_len("record", &[RECORD_LEN], len)
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

    /// Rows of both.
    pub(crate) fn copy_columns(
        count: usize,
        from: usize,
        from_columns: Columns,
        to: usize,
        to_columns: Columns,
    ) -> Result<usize> {
        if count == 0 || (from == 0 && to == 0) {
            return Ok(0);
        }
        for (name, columns) in [("from", from_columns), ("to", to_columns)] {
            if columns.first.checked_add(count).is_none_or(|end| end > columns.width) {
                return Err(Error::shape(
                    name,
                    format!("at least {count} columns from column {} on", columns.first),
                    format!("{} columns", columns.width),
                ));
            }
        }
        let rows_from = rows("from", from, from_columns.width)?;
        check_len("to", &[rows_from, to_columns.width], to)?;
        Ok(rows_from)
    }
}
