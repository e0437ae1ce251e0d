//! The arguments of operations: sizes of products, strides, masks, steps of optimizers, calls that need a workspace.

use crate::backend::tensor::{TensorMut, TensorRef};

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

/// Sizes of an [attention](super::Operations::attention): heads side by side, each on its own features.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttentionShape {
    /// Samples.
    pub batch: usize,
    /// Heads.
    pub heads: usize,
    /// Queries of a sample.
    pub queries: usize,
    /// Keys of a sample, and values.
    pub keys: usize,
    /// Features of a head's queries and keys.
    pub key_dim: usize,
    /// Features of a head's values.
    pub value_dim: usize,
    /// Whether a query sees only the keys up to its own number.
    pub causal: bool,
}

/// What an [attention](super::Operations::attention) reads.
#[derive(Clone, Copy)]
pub struct AttentionInputs<'a> {
    /// `[batch, queries, heads, key_dim]`
    pub query: TensorRef<'a>,
    /// `[batch, keys, heads, key_dim]`
    pub key: TensorRef<'a>,
    /// `[batch, keys, heads, value_dim]`
    pub value: TensorRef<'a>,
    /// `[batch, keys]`: keys with a zero are not seen; absent means all are.
    pub mask: Option<TensorRef<'a>>,
}

/// Gradients of what an [attention](super::Operations::attention) reads, shaped as that; absent where none is wanted.
pub struct AttentionGradients<'a> {
    /// Of the queries.
    pub query: Option<TensorMut<'a>>,
    /// Of the keys.
    pub key: Option<TensorMut<'a>>,
    /// Of the values.
    pub value: Option<TensorMut<'a>>,
}

/// A call that needs a workspace, with its sizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Workspace {
    /// [`Operations::matmul`](super::Operations::matmul).
    MatMul(MatMul),
    /// [`Operations::sum_axis`](super::Operations::sum_axis) with these sizes.
    SumAxis([usize; 3]),
    /// [`Operations::layer_norm_gradient`](super::Operations::layer_norm_gradient) and
    /// [`Operations::batch_norm_gradient`](super::Operations::batch_norm_gradient).
    Normalization {
        /// Rows.
        rows: usize,
        /// Columns.
        columns: usize,
    },
    /// [`Operations::attention`](super::Operations::attention).
    Attention(AttentionShape),
    /// [`Operations::attention_gradient`](super::Operations::attention_gradient).
    AttentionGradient(AttentionShape),
    /// [`Operations::loss`](super::Operations::loss).
    Loss,
    /// [`Operations::sum_of_squares`](super::Operations::sum_of_squares).
    SumOfSquares,
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

/// Which columns of each row a [softmax](super::Operations::softmax) is over.
#[derive(Clone, Copy)]
pub struct SoftmaxMask<'a> {
    /// A mask `[groups, columns]` of 0 and others, and how many rows, one after the other, share one of its rows; absent means all.
    pub keys: Option<(TensorRef<'a>, usize)>,
    /// With `queries`, row r is query `r % queries`, which sees the columns up to its own number; absent means all.
    pub causal: Option<usize>,
}

/// What [`Operations::mask_order`](super::Operations::mask_order) writes.
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
