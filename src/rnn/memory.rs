//! What training keeps from forward to backward: [`Memory`].

use crate::error::{Error, Result};

/// What training keeps from forward to backward. It changes no result but the order in which gradients of weights are summed; in models of
/// 16 bits too, since the states that are handed on are of the type that a step computes them in. Only where a GPU runs a segment by
/// another family of kernels than the whole, or one direction by another than two, do products add up in another order.
///
/// ```
/// use fused_rnn::backend::cpu::CpuBackend;
/// use fused_rnn::backend::{ForwardMode, RecurrentBackend};
/// use fused_rnn::rnn::{Memory, RnnDescriptor, RnnShape};
///
/// let (backend, shape) = (CpuBackend::<f32>::new(), RnnShape { seq_len: 100_000, batch: 1 });
/// let mut descriptor = RnnDescriptor::lstm(64, 512);
/// let elements = |descriptor: &RnnDescriptor| {
///     let space = backend.temp_space(&backend.plan(descriptor, shape, ForwardMode::Training)?);
///     Ok::<_, fused_rnn::Error>(space.workspace + space.reserve)
/// };
/// let full = elements(&descriptor)?;
/// descriptor.memory = Memory::Checkpoints { every: 316 };
/// assert!(elements(&descriptor)? < full / 30);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Memory {
    /// What the derivative of every step reads: the fastest, and memory grows with `seq_len`.
    #[default]
    Full,
    /// The states before every `every`-th step; backward computes the steps between two of them once more. The time of a second forward
    /// pass for a reserve of `seq_len / every` states and of `every` steps, least where `every` is about the root of `seq_len`. From
    /// `seq_len` on it is [`Full`](Memory::Full).
    Checkpoints {
        /// Steps from one to the next, at least 1.
        every: usize,
    },
    /// As [`Checkpoints`](Memory::Checkpoints), and the states beside h of every step (an LSTM's c). With them and y, which is the caller's,
    /// backward knows where every step starts from, so that it rebuilds the gates of `every` steps at once, by one product with the
    /// weights, where checkpoints alone take a product a step. Segments are computed again as with checkpoints where lengths or resets are given,
    /// in layers below another under dropout, and where a GPU's kernels keep the steps of a segment in another way than those of a batch.
    Light {
        /// Steps whose gates are in memory at a time, at least 1.
        every: usize,
    },
    /// [`Full`](Memory::Full) where workspace and reserve together fit so many bytes, else checkpoints as far apart as fit: every half,
    /// quarter, eighth … of `seq_len`. A plan of which no distance fits is an error that says how many bytes would do.
    Within {
        /// Of workspace and reserve.
        bytes: usize,
    },
}

impl Memory {
    pub(crate) fn validate(self) -> Result<()> {
        match self {
            Memory::Checkpoints { every: 0 } | Memory::Light { every: 0 } => {
                Err(Error::option("memory", "checkpoints every 1 step or more", "checkpoints every 0 steps"))
            }
            _ => Ok(()),
        }
    }
}
