//! Data that come a batch at a time: [`Batch`], and [`Batches`], which gives them anew for each pass.

use std::fmt;

use crate::error::Result;
use crate::model::arrays::AnyArray;

/// Some samples: inputs, targets and, where they have some, weights. Every batch may have another number of samples.
///
/// A pair of arrays, owned or by reference, is one, and so are three, whose last has the weights of the samples: what Keras's generators
/// give.
///
/// ```
/// use fused_rnn::model::Batch;
/// use ndarray::{Array1, Array2, Array3};
/// let (x, y) = (Array3::<f32>::zeros((8, 20, 3)), Array2::<f32>::zeros((8, 1)));
/// let by_reference = Batch::new(&x, &y);
/// let weighted = Batch::from((x.clone(), y.clone(), Array1::<f32>::ones(8)));
/// let of_two_inputs = Batch::of_many(vec![(&x).into(), (&y).into()], vec![(&y).into()]);
/// # let _ = (by_reference, weighted, of_two_inputs);
/// ```
#[derive(Clone, Debug)]
pub struct Batch<'a> {
    pub(super) x: Vec<AnyArray<'a>>,
    pub(super) y: Vec<AnyArray<'a>>,
    pub(super) sample_weight: Vec<AnyArray<'a>>,
}

impl<'a> Batch<'a> {
    /// A batch of a model with one input `x` `[samples, input shape…]` and one output with the targets `y` `[samples, output shape…]`.
    pub fn new(x: impl Into<AnyArray<'a>>, y: impl Into<AnyArray<'a>>) -> Self {
        Batch::of_many(vec![x.into()], vec![y.into()])
    }

    /// A batch of a model with several inputs or outputs: one array for each, in their order.
    pub fn of_many(x: Vec<AnyArray<'a>>, y: Vec<AnyArray<'a>>) -> Self {
        Batch { x, y, sample_weight: Vec::new() }
    }

    /// Sets what the loss of each sample is multiplied with, `[samples]`, or of each step of each, `[samples, steps]`; 1.
    #[must_use]
    pub fn sample_weight(self, weights: impl Into<AnyArray<'a>>) -> Self {
        self.sample_weights(vec![weights.into()])
    }

    /// The same with an array for each output.
    #[must_use]
    pub fn sample_weights(self, sample_weight: Vec<AnyArray<'a>>) -> Self {
        Batch { sample_weight, ..self }
    }
}

impl<'a, X: Into<AnyArray<'a>>, Y: Into<AnyArray<'a>>> From<(X, Y)> for Batch<'a> {
    fn from((x, y): (X, Y)) -> Self {
        Batch::new(x, y)
    }
}

impl<'a, X: Into<AnyArray<'a>>, Y: Into<AnyArray<'a>>, W: Into<AnyArray<'a>>> From<(X, Y, W)> for Batch<'a> {
    fn from((x, y, weights): (X, Y, W)) -> Self {
        Batch::new(x, y).sample_weight(weights)
    }
}

/// The batches of one pass.
pub(super) type BatchIterator<'a> = Box<dyn Iterator<Item = Result<Batch<'a>>> + 'a>;

/// Gives the batches of an epoch.
type Make<'a> = Box<dyn FnMut(usize) -> Result<BatchIterator<'a>> + 'a>;

/// Batches for many passes over data that need not be in memory: a function that is called before each pass and gives an iterator. For
/// [`FitOptions::validation_batches`](crate::model::FitOptions::validation_batches); [`Model::fit_batches`](crate::model::Model::fit_batches)
/// takes the function itself.
///
/// ```
/// use fused_rnn::data::TimeseriesDataset;
/// use fused_rnn::model::{Batches, FitOptions};
/// use ndarray::Array2;
/// let series = Array2::<f32>::zeros((1000, 3));
/// let dataset = TimeseriesDataset::new(series.view(), 20).targets(series.view());
/// let validation = Batches::new(|_epoch| dataset.batches(32));
/// let options = FitOptions { validation_batches: Some(validation), ..FitOptions::default() };
/// # drop(options);
/// ```
pub struct Batches<'a>(Make<'a>);

impl<'a> Batches<'a> {
    /// The batches that `make(epoch)` gives, epochs counted from 1. It may give them in another order each time. An iterator that never ends
    /// needs [`take`](Iterator::take), which is Keras's `steps_per_epoch`. What goes wrong in code of one's own is an
    /// [`Error::other`](crate::Error::other).
    pub fn new<I, B>(mut make: impl FnMut(usize) -> Result<I> + 'a) -> Self
    where
        I: IntoIterator<Item = Result<B>>,
        I::IntoIter: 'a,
        B: Into<Batch<'a>>,
    {
        Batches(Box::new(move |epoch| Ok(Box::new(make(epoch)?.into_iter().map(|batch| batch.map(Into::into))))))
    }

    /// Those of an epoch.
    pub(super) fn of_epoch(&mut self, epoch: usize) -> Result<BatchIterator<'a>> {
        (self.0)(epoch)
    }
}

impl fmt::Debug for Batches<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Batches")
    }
}
