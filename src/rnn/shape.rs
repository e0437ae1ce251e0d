//! Sizes of a problem: [`RnnShape`], and from it every tensor's shape, [`TensorShapes`].

use crate::error::{Error, Result};
use crate::rnn::{Layout, RnnDescriptor};

/// The sizes of one call that its weights do not have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RnnShape {
    /// Time steps `T` of the longest sequence.
    pub seq_len: usize,
    /// Sequences `B`.
    pub batch: usize,
}

/// The product of `sizes`, if as many elements of eight bytes fit the address space.
pub(crate) fn checked_len(tensor: &str, sizes: &[(&'static str, usize)]) -> Result<usize> {
    sizes
        .iter()
        .try_fold(1usize, |product, (_, size)| product.checked_mul(*size))
        .filter(|len| *len <= isize::MAX as usize / 8)
        .ok_or_else(|| Error::SizeOverflow {
            tensor: tensor.to_owned(),
            expression: sizes.iter().map(|(name, size)| format!("{name} {size}")).collect::<Vec<_>>().join(" * "),
        })
}

/// The shape of every tensor of a call, all products known to fit.
///
/// `T` seq_len, `B` batch, `I` input_size, `H` hidden_size, `P` output_size, `S` states, `L` num_layers, `D` num_directions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorShapes {
    /// `x`, `dx`: `[T, B, I]`, or `[B, T, I]` batch-major.
    pub x: [usize; 3],
    /// `y`, `dy`: `[T, B, D * P]`, or `[B, T, D * P]` batch-major.
    pub y: [usize; 3],
    /// `h0`, `hn`, `dh0`, `dhn`: `[L * D, B, P]`; row `l * D + d`.
    pub h: [usize; 3],
    /// `c0`, `cn`, `dc0`, `dcn`: `[L * D, B, (S - 1) * H]`, a row holding the states beside h one after the other; an LSTM has one.
    /// Cells without such states have no such tensors.
    pub c: [usize; 3],
    /// `resets`: `[T, B]`, whatever the layout of `x`.
    pub resets: [usize; 2],
}

impl RnnShape {
    /// Shapes of all tensors of an operator.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a size of zero; [`Error::InvalidOption`] for an option out of range or one that the cell has not;
    /// [`Error::SizeOverflow`] naming a tensor whose number of bytes overflows.
    pub fn tensors(self, descriptor: &RnnDescriptor) -> Result<TensorShapes> {
        descriptor.validate()?;
        for (name, size) in [("seq_len", self.seq_len), ("batch", self.batch)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        let (t, b) = (("seq_len", self.seq_len), ("batch", self.batch));
        let d = ("num_directions", descriptor.num_directions());
        let p = ("output_size", descriptor.output_size());
        let l = ("num_layers", descriptor.num_layers);
        let h = ("hidden_size", descriptor.hidden_size);
        checked_len("x", &[t, b, ("input_size", descriptor.input_size)])?;
        checked_len("y", &[t, b, d, p])?;
        checked_len("h0", &[l, d, b, p])?;
        let c = ("other states", descriptor.cell.other_states());
        checked_len("c0", &[l, d, b, c, h])?;
        // The largest thing any backend keeps: a handful of values per unit, step, layer and direction.
        checked_len("reserve", &[t, b, l, d, h, ("saved values", 32)])?;
        let (outer, inner) = match descriptor.layout {
            Layout::SequenceMajor => (self.seq_len, self.batch),
            Layout::BatchMajor => (self.batch, self.seq_len),
        };
        Ok(TensorShapes {
            x: [outer, inner, descriptor.input_size],
            y: [outer, inner, d.1 * p.1],
            h: [l.1 * d.1, self.batch, p.1],
            c: [l.1 * d.1, self.batch, c.1 * h.1],
            resets: [self.seq_len, self.batch],
        })
    }
}

/// Checks that a flat buffer has the number of elements of `shape`.
pub(crate) fn check_len(tensor: &str, shape: &[usize], got: usize) -> Result<()> {
    match shape.iter().try_fold(1usize, |product, size| product.checked_mul(*size)) {
        Some(expected) if expected == got => Ok(()),
        Some(expected) => {
            Err(Error::shape(tensor, format!("{expected} elements (shape {shape:?})"), format!("{got} elements")))
        }
        None => Err(Error::SizeOverflow {
            tensor: tensor.to_owned(),
            expression: shape.iter().map(usize::to_string).collect::<Vec<_>>().join(" * "),
        }),
    }
}
