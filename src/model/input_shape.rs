//! Shapes of inputs, of which the steps may be any number: [`InputShape`].

use crate::error::{Error, Result};

/// The shape of a model's input without the samples: lengths, or, as Keras's `Input((None, 12))`, `None` for any number of steps, in one axis.
///
/// ```
/// use fused_rnn::Device;
/// use fused_rnn::model::Sequential;
/// use fused_rnn::nn::{Dense, Lstm};
/// use ndarray::Array3;
/// let mut model = Sequential::new(Device::cpu(), &[None, Some(12)], 1)?;
/// model.add(Lstm::new(8))?.add(Dense::new(1))?;
/// for steps in [5, 29] {
///     let y = model.predict(&Array3::<f32>::zeros((2, steps, 12)))?;
///     assert_eq!(y.shape(), [2, 1]);
/// }
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// All samples of one array have as many steps; arrays of different calls may have others, and so may the batches of
/// [`fit_batches`](crate::model::Model::fit_batches), and the validation. The weights are the same for every length: a layer for which they
/// would not be, such as a [`Dense`](crate::nn::Dense) on what [`Flatten`](crate::nn::Flatten) gives, is refused where it is added. States
/// that [stateful](crate::nn::RecurrentOptions::stateful) layers carry go on across lengths.
///
/// The operations of the eight lengths used last are kept with the memory they need, unless they are large; those of others are made again.
pub trait InputShape {
    /// The axes without the samples; `None` for any length.
    fn axes(&self) -> Vec<Option<usize>>;
}

/// The length of an axis, or any.
pub trait Axis: Copy {
    /// Which; `None` for any.
    fn length(self) -> Option<usize>;
}

impl Axis for usize {
    fn length(self) -> Option<usize> {
        Some(self)
    }
}

impl Axis for Option<usize> {
    fn length(self) -> Option<usize> {
        self
    }
}

impl<A: Axis> InputShape for &[A] {
    fn axes(&self) -> Vec<Option<usize>> {
        self.iter().map(|axis| axis.length()).collect()
    }
}

impl<A: Axis, const N: usize> InputShape for &[A; N] {
    fn axes(&self) -> Vec<Option<usize>> {
        self.as_slice().axes()
    }
}

impl<A: Axis> InputShape for &Vec<A> {
    fn axes(&self) -> Vec<Option<usize>> {
        self.as_slice().axes()
    }
}

/// Refuses axes that no input has.
pub(super) fn check_axes(input: &str, axes: &[Option<usize>]) -> Result<()> {
    if axes.contains(&Some(0)) || axes.is_empty() {
        return Err(Error::ZeroSize { name: "input_shape" });
    }
    if axes.iter().filter(|axis| axis.is_none()).count() > 1 {
        let expected = "lengths of all axes but one, that of the steps, which may be any (None)";
        return Err(Error::option(format!("shape of {input}"), expected, shown(axes)));
    }
    Ok(())
}

/// `[None, 12]`
pub(super) fn shown(axes: &[Option<usize>]) -> String {
    let axes: Vec<String> = axes.iter().map(|axis| axis.map_or("None".to_owned(), |n| n.to_string())).collect();
    format!("[{}]", axes.join(", "))
}

/// Whether an array of this shape, whose first axis is that of the samples, has these axes; a last one of 1 may be left out, or be there in
/// excess.
pub(super) fn fits(array: &[usize], axes: &[Option<usize>]) -> bool {
    let Some((_, rest)) = array.split_first() else { return false };
    let same = |rest: &[usize], axes: &[Option<usize>]| {
        rest.len() == axes.len() && rest.iter().zip(axes).all(|(n, axis)| axis.is_none_or(|axis| axis == *n))
    };
    let left_out = || matches!(axes.split_last(), Some((Some(1), before)) if same(rest, before));
    let in_excess = || matches!(rest.split_last(), Some((1, before)) if same(before, axes));
    same(rest, axes) || left_out() || in_excess()
}
