//! Classes and sequences of different lengths as arrays: [`one_hot`], [`pad_sequences`].

use ndarray::{Array2, Array3, ArrayView2, s};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::memory;

/// A row for each class, 1 at the class and 0 elsewhere: `[classes.len(), num_classes]`, Keras's
/// [`to_categorical`](https://keras.io/api/utils/python_utils/#to_categorical-function). Without a number of classes, it is one more than
/// the largest.
///
/// # Errors
///
/// [`Error::InvalidOption`] naming a class that is not below `num_classes`; [`Error::ZeroSize`] for no classes where their number is not
/// given, or for a number of zero; [`Error::SizeOverflow`] and [`Error::Unsupported`] where the array does not fit into memory.
pub fn one_hot<E: Scalar>(classes: &[usize], num_classes: Option<usize>) -> Result<Array2<E>> {
    let count = match (num_classes, classes.iter().max()) {
        (Some(count), _) => count,
        (None, Some(largest)) => largest.saturating_add(1),
        (None, None) => return Err(Error::ZeroSize { name: "number of classes" }),
    };
    if count == 0 {
        return Err(Error::ZeroSize { name: "num_classes" });
    }
    if let Some((sample, class)) = classes.iter().enumerate().find(|(_, class)| **class >= count) {
        let expected = format!("a class below num_classes {count}");
        return Err(Error::option(format!("classes[{sample}]"), expected, class));
    }
    let mut rows = memory::array_of("one_hot", (classes.len(), count), E::zero())?;
    for (mut row, class) in rows.outer_iter_mut().zip(classes) {
        row.iter_mut().skip(*class).take(1).for_each(|place| *place = E::one());
    }
    Ok(rows)
}

/// One end of a sequence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SequenceEnd {
    /// The start: Keras's `"pre"`.
    #[default]
    Pre,
    /// The end: Keras's `"post"`.
    Post,
}

/// How [`pad_sequences`] makes sequences equally long. The default is Keras's: as long as the longest, filled and cut at the start.
///
/// ```
/// use fused_rnn::data::{Padding, pad_sequences};
/// let sequences = [vec![1, 2, 3], vec![4]];
/// let (padded, lengths) = pad_sequences(&sequences, &Padding::at_end(Some(4), 0))?;
/// assert_eq!(padded, ndarray::array![[1, 2, 3, 0], [4, 0, 0, 0]]);
/// assert_eq!(lengths, [3, 1]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Padding<T> {
    /// The length of all; that of the longest without.
    pub maxlen: Option<usize>,
    /// Where short sequences are filled. The `lengths` of recurrent layers of this crate are those of sequences that start at the first
    /// step: fill at the end for them.
    pub padding: SequenceEnd,
    /// Where long sequences are cut.
    pub truncating: SequenceEnd,
    /// What they are filled with.
    pub value: T,
}

impl<T> Padding<T> {
    /// Filled with `value` and cut at the end, as `lengths` need it.
    pub fn at_end(maxlen: Option<usize>, value: T) -> Self {
        Padding { maxlen, padding: SequenceEnd::Post, truncating: SequenceEnd::Post, value }
    }

    /// Where a sequence of `len` steps comes from and goes to: first step taken, first step set, number of steps.
    fn place(&self, len: usize, to: usize) -> (usize, usize, usize) {
        let kept = len.min(to);
        let from = if self.truncating == SequenceEnd::Pre { len - kept } else { 0 };
        (from, if self.padding == SequenceEnd::Pre { to - kept } else { 0 }, kept)
    }

    fn length(&self, longest: Option<usize>) -> Result<usize> {
        match self.maxlen.or(longest) {
            None => Err(Error::ZeroSize { name: "number of sequences" }),
            Some(0) => Err(Error::ZeroSize { name: "length of padded sequences (maxlen)" }),
            Some(length) => Ok(length),
        }
    }
}

/// Sequences as one array `[sequences, maxlen]`, and how many values of each are in it: Keras's
/// [`pad_sequences`](https://keras.io/api/data_loading/timeseries/#pad_sequences-function).
///
/// ```
/// use fused_rnn::data::{Padding, pad_sequences};
/// use ndarray::array;
/// let (x, lengths) = pad_sequences(&[vec![1], vec![2, 3], vec![4, 5, 6]], &Padding::default())?;
/// assert_eq!(x, array![[0, 0, 1], [0, 2, 3], [4, 5, 6]]);
/// assert_eq!(lengths, [1, 2, 3]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ZeroSize`] without sequences, or for a length of zero; [`Error::SizeOverflow`] and [`Error::Unsupported`] where the array does not fit into memory.
pub fn pad_sequences<T: Copy>(sequences: &[impl AsRef<[T]>], padding: &Padding<T>) -> Result<(Array2<T>, Vec<usize>)> {
    let length = padding.length(sequences.iter().map(|sequence| sequence.as_ref().len()).max())?;
    let mut padded = memory::array_of("pad_sequences", (sequences.len(), length), padding.value)?;
    let mut lengths = Vec::with_capacity(sequences.len());
    for (mut row, sequence) in padded.outer_iter_mut().zip(sequences) {
        let sequence = sequence.as_ref();
        let (from, to, kept) = padding.place(sequence.len(), length);
        row.iter_mut().skip(to).zip(sequence.iter().skip(from).take(kept)).for_each(|(to, from)| *to = *from);
        lengths.push(kept);
    }
    Ok((padded, lengths))
}

/// [`pad_sequences`] for sequences of vectors `[steps, features]`: `[sequences, maxlen, features]`. Every feature of a step that is filled
/// gets the value.
///
/// # Errors
///
/// [`Error::ZeroSize`] without sequences, or for a length of zero; [`Error::SizeOverflow`] and [`Error::Unsupported`] where the array does not fit into memory;
/// [`Error::Shape`] naming a sequence that has another number of features than the first.
pub fn pad_feature_sequences<T: Copy>(
    sequences: &[Array2<T>],
    padding: &Padding<T>,
) -> Result<(Array3<T>, Vec<usize>)> {
    let length = padding.length(sequences.iter().map(Array2::nrows).max())?;
    let features = sequences.first().map_or(0, Array2::ncols);
    let mut padded = memory::array_of("pad_feature_sequences", (sequences.len(), length, features), padding.value)?;
    let mut lengths = Vec::with_capacity(sequences.len());
    for (n, sequence) in sequences.iter().enumerate() {
        if sequence.ncols() != features {
            return Err(Error::shape(
                format!("sequences[{n}]"),
                format!("{features} features, as the first has"),
                format!("{} features", sequence.ncols()),
            ));
        }
        let (from, to, kept) = padding.place(sequence.nrows(), length);
        let steps: ArrayView2<'_, T> = sequence.slice(s![from..from + kept, ..]);
        padded.slice_mut(s![n, to..to + kept, ..]).assign(&steps);
        lengths.push(kept);
    }
    Ok((padded, lengths))
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn classes_as_rows() {
        let rows: Array2<f32> = one_hot(&[0, 2, 1], None).unwrap();
        assert_eq!(rows, array![[1.0, 0.0, 0.0], [0.0, 0.0, 1.0], [0.0, 1.0, 0.0]]);
        assert_eq!(one_hot::<f64>(&[1], Some(4)).unwrap(), array![[0.0, 1.0, 0.0, 0.0]]);
        assert_eq!(one_hot::<f64>(&[], Some(4)).unwrap().dim(), (0, 4));
        let message = one_hot::<f32>(&[0, 3, 1], Some(3)).unwrap_err().to_string();
        assert!(message.contains("classes[1]") && message.contains("below num_classes 3, got 3"), "{message}");
        assert!(matches!(one_hot::<f32>(&[], None), Err(Error::ZeroSize { .. })));
        assert!(matches!(one_hot::<f32>(&[], Some(0)), Err(Error::ZeroSize { .. })));
        for class in [usize::MAX, usize::MAX - 1, usize::MAX / 2] {
            let error = one_hot::<f32>(&[class, 0], None).unwrap_err();
            assert!(matches!(error, Error::SizeOverflow { .. } | Error::InvalidOption { .. }), "{error}");
        }
    }

    /// The examples of Keras's documentation.
    #[test]
    fn kerass_examples_of_padding() {
        let sequences = [vec![1], vec![2, 3], vec![4, 5, 6]];
        let pad = |maxlen, padding, truncating, value| {
            pad_sequences(&sequences, &Padding { maxlen, padding, truncating, value }).unwrap().0
        };
        use SequenceEnd::{Post, Pre};
        assert_eq!(pad(None, Pre, Pre, -1), array![[-1, -1, 1], [-1, 2, 3], [4, 5, 6]]);
        assert_eq!(pad(None, Post, Pre, 0), array![[1, 0, 0], [2, 3, 0], [4, 5, 6]]);
        assert_eq!(pad(Some(2), Pre, Pre, 0), array![[0, 1], [2, 3], [5, 6]]);
        assert_eq!(pad(Some(2), Post, Post, 0), array![[1, 0], [2, 3], [4, 5]]);
        assert_eq!(pad(Some(4), Pre, Post, 9), array![[9, 9, 9, 1], [9, 9, 2, 3], [9, 4, 5, 6]]);
    }

    #[test]
    fn sequences_of_vectors() {
        let sequences = [array![[1.0, 2.0]], array![[3.0, 4.0], [5.0, 6.0], [7.0, 8.0]], Array2::zeros((0, 2))];
        let (x, lengths) = pad_feature_sequences(&sequences, &Padding::at_end(Some(2), -1.0)).unwrap();
        assert_eq!(x.slice(s![0, .., ..]), array![[1.0, 2.0], [-1.0, -1.0]]);
        assert_eq!(x.slice(s![1, .., ..]), array![[3.0, 4.0], [5.0, 6.0]]);
        assert_eq!(lengths, [1, 2, 0]);
        let (x, _) = pad_feature_sequences(&sequences, &Padding { maxlen: Some(2), ..Padding::default() }).unwrap();
        assert_eq!(x.slice(s![0, .., ..]), array![[0.0, 0.0], [1.0, 2.0]]);
        assert_eq!(x.slice(s![1, .., ..]), array![[5.0, 6.0], [7.0, 8.0]]);
        let other = [array![[1.0, 2.0]], array![[1.0]]];
        let message = pad_feature_sequences(&other, &Padding::default()).unwrap_err().to_string();
        assert!(message.contains("sequences[1]"), "{message}");
    }

    #[test]
    fn nothing_to_pad_and_too_much() {
        let none: [Vec<f32>; 0] = [];
        assert!(matches!(pad_sequences(&none, &Padding::default()), Err(Error::ZeroSize { .. })));
        assert!(matches!(pad_sequences(&[Vec::<f32>::new()], &Padding::default()), Err(Error::ZeroSize { .. })));
        assert!(matches!(pad_sequences(&[[1.0]], &Padding::at_end(Some(0), 0.0)), Err(Error::ZeroSize { .. })));
        for maxlen in [usize::MAX, usize::MAX / 2, usize::MAX / 8] {
            let error = pad_sequences(&[[1.0], [2.0]], &Padding::at_end(Some(maxlen), 0.0)).unwrap_err();
            assert!(matches!(error, Error::SizeOverflow { .. }), "{error}");
        }
    }
}
