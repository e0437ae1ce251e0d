//! The description of a call: which tensors the passes of the operator read and write. It is the same for every way of giving
//! tensors ([`Tensors`]): slices, a device's buffers, addresses, tensors of any type.

use super::{RecurrentBackend, Storage};

/// A way of giving tensors to a call. Every [`RecurrentBackend`] is one, with references to its buffers.
pub trait Tensors: 'static {
    /// A tensor that is read.
    type Read<'a>: Extent;
    /// A tensor that is written.
    type Write<'a>: Extent;
    /// Lengths of sequences.
    type Lengths<'a>: Extent;
    /// A mask of resets.
    type Mask<'a>: Extent;

    /// The lengths themselves, where the host can read them; then they are checked before a call.
    fn lengths_on_host<'l>(lengths: &'l Self::Lengths<'_>) -> Option<&'l [u32]>;
}

/// How large a tensor is.
pub trait Extent {
    /// Its elements.
    fn elements(&self) -> usize;
}

impl<S: Storage + ?Sized> Extent for &S {
    fn elements(&self) -> usize {
        (**self).elements()
    }
}

impl<S: Storage + ?Sized> Extent for &mut S {
    fn elements(&self) -> usize {
        (**self).elements()
    }
}

impl<B: RecurrentBackend + ?Sized> Tensors for B {
    type Read<'a> = &'a B::Buffer;
    type Write<'a> = &'a mut B::Buffer;
    type Lengths<'a> = &'a B::Lengths;
    type Mask<'a> = &'a B::Mask;

    fn lengths_on_host<'l>(lengths: &'l &B::Lengths) -> Option<&'l [u32]> {
        lengths.on_host()
    }
}

/// Buffers of a forward call. Shapes are those of [`TensorShapes`](crate::rnn::TensorShapes); no two may overlap.
pub struct ForwardArgs<'a, T: Tensors + ?Sized> {
    /// All weights, as [`WeightLayout`](crate::rnn::WeightLayout) says.
    pub weights: T::Read<'a>,
    /// Input, read.
    pub x: T::Read<'a>,
    /// Initial output state; absent means zeros.
    pub h0: Option<T::Read<'a>>,
    /// Initial states beside h, side by side, of cells that have such (LSTM: c); absent means zeros.
    pub c0: Option<T::Read<'a>>,
    /// Valid steps of each sequence, `[B]`, each in `1..=T`; absent means `T`.
    pub lengths: Option<T::Lengths<'a>>,
    /// Resets, `[T, B]`, non-zero where the state is re-initialised before the step; absent means nowhere.
    pub resets: Option<T::Mask<'a>>,
    /// Output, every element written.
    pub y: T::Write<'a>,
    /// Final output state, every element written; absent if not wanted.
    pub hn: Option<T::Write<'a>>,
    /// Final states beside h, of cells that have such.
    pub cn: Option<T::Write<'a>>,
    /// Scratch of [`TempSpace::workspace`](super::TempSpace::workspace) elements.
    pub workspace: T::Write<'a>,
    /// Seed of the dropout masks; unused in inference. Use another one every training step.
    pub dropout_seed: u64,
}

/// Buffers of [`RecurrentBackend::backward_data`]. Inputs are those of the forward call, unchanged.
pub struct BackwardDataArgs<'a, T: Tensors + ?Sized> {
    /// All weights.
    pub weights: T::Read<'a>,
    /// Input of the forward call, which a plan with checkpoints computes again ([`Memory`](crate::rnn::Memory)).
    pub x: T::Read<'a>,
    /// Output of the forward call.
    pub y: T::Read<'a>,
    /// As given to forward.
    pub h0: Option<T::Read<'a>>,
    /// As given to forward.
    pub c0: Option<T::Read<'a>>,
    /// As given to forward.
    pub lengths: Option<T::Lengths<'a>>,
    /// As given to forward.
    pub resets: Option<T::Mask<'a>>,
    /// Gradient of `y`; absent means zeros. What it holds at padded steps counts only under
    /// [`PaddedOutput::Hold`](crate::rnn::PaddedOutput::Hold), where those outputs repeat a valid one.
    pub dy: Option<T::Read<'a>>,
    /// Gradient of `hn`; absent means zeros.
    pub dhn: Option<T::Read<'a>>,
    /// Gradient of `cn`, of cells that have it; absent means zeros.
    pub dcn: Option<T::Read<'a>>,
    /// Gradient of `x`, set (`=`), zero at padded steps.
    pub dx: Option<T::Write<'a>>,
    /// Gradient of `h0`, set (`=`). May be asked for even where `h0` was absent.
    pub dh0: Option<T::Write<'a>>,
    /// Gradient of `c0`, set (`=`), of cells that have it.
    pub dc0: Option<T::Write<'a>>,
    /// Scratch of [`TempSpace::workspace`](super::TempSpace::workspace) elements.
    pub workspace: T::Write<'a>,
}

/// Buffers of [`RecurrentBackend::backward_weights`]. Inputs are those of the forward call, unchanged.
pub struct BackwardWeightsArgs<'a, T: Tensors + ?Sized> {
    /// Input of the forward call.
    pub x: T::Read<'a>,
    /// Output of the forward call.
    pub y: T::Read<'a>,
    /// As given to forward.
    pub h0: Option<T::Read<'a>>,
    /// As given to forward. Peepholes read it.
    pub c0: Option<T::Read<'a>>,
    /// As given to forward.
    pub lengths: Option<T::Lengths<'a>>,
    /// As given to forward.
    pub resets: Option<T::Mask<'a>>,
    /// Gradient of the weights, laid out as the weights; set or added to, as [`WeightGrad`](super::WeightGrad) says.
    pub dweights: T::Write<'a>,
    /// Scratch of [`TempSpace::workspace`](super::TempSpace::workspace) elements.
    pub workspace: T::Write<'a>,
}
