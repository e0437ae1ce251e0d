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

/// Buffers of a forward call: made with [`new`](Self::new) from those that every call has; the others are set by their names. Shapes are those of [`TensorShapes`](crate::rnn::TensorShapes); no two may overlap.
#[non_exhaustive]
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

/// Buffers of [`RecurrentBackend::backward_data`], made as those of [`ForwardArgs`]. Inputs are those of the forward call, unchanged.
#[non_exhaustive]
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

/// Buffers of [`RecurrentBackend::backward_weights`], made as those of [`ForwardArgs`]. Inputs are those of the forward call, unchanged.
#[non_exhaustive]
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

/// A method for each of a call's buffers that may be absent, which sets it.
macro_rules! setters {
    ($($field:ident: $kind:ident;)*) => {
        $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), "): a tensor, or an `Option` of one.")]
            #[must_use]
            pub fn $field(mut self, $field: impl Into<Option<T::$kind<'a>>>) -> Self {
                self.$field = $field.into();
                self
            }
        )*
    };
}

impl<'a, T: Tensors + ?Sized> ForwardArgs<'a, T> {
    /// A call from zero states, of whole sequences, whose final states nobody wants, with the dropout seed 0.
    pub fn new(weights: T::Read<'a>, x: T::Read<'a>, y: T::Write<'a>, workspace: T::Write<'a>) -> Self {
        let (h0, c0, lengths, resets, hn, cn) = (None, None, None, None, None, None);
        ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed: 0 }
    }

    setters! {
        h0: Read;
        c0: Read;
        lengths: Lengths;
        resets: Mask;
        hn: Write;
        cn: Write;
    }

    /// Sets [`dropout_seed`](Self#structfield.dropout_seed).
    #[must_use]
    pub fn dropout_seed(mut self, seed: u64) -> Self {
        self.dropout_seed = seed;
        self
    }
}

impl<'a, T: Tensors + ?Sized> BackwardDataArgs<'a, T> {
    /// A call after a forward call from zero states, of whole sequences, without gradients yet.
    pub fn new(weights: T::Read<'a>, x: T::Read<'a>, y: T::Read<'a>, workspace: T::Write<'a>) -> Self {
        let (h0, c0, lengths, resets) = (None, None, None, None);
        let (dy, dhn, dcn, dx, dh0, dc0) = (None, None, None, None, None, None);
        BackwardDataArgs { weights, x, y, h0, c0, lengths, resets, dy, dhn, dcn, dx, dh0, dc0, workspace }
    }

    setters! {
        h0: Read;
        c0: Read;
        lengths: Lengths;
        resets: Mask;
        dy: Read;
        dhn: Read;
        dcn: Read;
        dx: Write;
        dh0: Write;
        dc0: Write;
    }
}

impl<'a, T: Tensors + ?Sized> BackwardWeightsArgs<'a, T> {
    /// A call after a forward call from zero states, of whole sequences.
    pub fn new(x: T::Read<'a>, y: T::Read<'a>, dweights: T::Write<'a>, workspace: T::Write<'a>) -> Self {
        let (h0, c0, lengths, resets) = (None, None, None, None);
        BackwardWeightsArgs { x, y, h0, c0, lengths, resets, dweights, workspace }
    }

    setters! {
        h0: Read;
        c0: Read;
        lengths: Lengths;
        resets: Mask;
    }
}
