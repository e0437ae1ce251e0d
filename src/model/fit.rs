//! Training a [`Sequential`].

use std::ops::ControlFlow;

use ndarray::{ArrayView, Dimension, IxDyn};
use serde::Serialize;

use crate::backend::HostBackend;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::model::Sequential;
use crate::model::sequential::flat;
use crate::nn::Random;

/// How [`Sequential::fit`] trains. The defaults are Keras's.
pub struct FitOptions<'a, E> {
    /// Most passes over the data; 1.
    pub epochs: usize,
    /// Samples of one step; 32. The last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Whether each epoch takes the samples in another order; yes.
    pub shuffle: bool,
    /// Inputs and targets to evaluate after each epoch; none.
    pub validation_data: Option<(ArrayView<'a, E, IxDyn>, ArrayView<'a, E, IxDyn>)>,
    /// When to stop before the last epoch; never.
    pub early_stopping: Option<EarlyStopping>,
    /// Told about progress, may stop training; none.
    pub callback: Option<&'a mut dyn Callback>,
}

impl<E> Default for FitOptions<'_, E> {
    fn default() -> Self {
        FitOptions {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation_data: None,
            early_stopping: None,
            callback: None,
        }
    }
}

/// Stops training when the validation loss, or without validation data the loss, no longer falls: Keras's
/// [`EarlyStopping`](https://keras.io/api/callbacks/early_stopping/).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without improvement after which training stops.
    pub patience: usize,
    /// A fall by no more than this is no improvement.
    pub min_delta: f64,
    /// Whether the model ends with the weights of its best epoch, however training ends, rather than of its last.
    pub restore_best_weights: bool,
}

/// The state of training after a batch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BatchEnd {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Batch within the epoch, counted from 1.
    pub batch: usize,
    /// Batches of an epoch.
    pub batches: usize,
    /// Mean loss of the epoch's samples so far.
    pub loss: f64,
}

/// The state of training after an epoch.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EpochEnd {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Most epochs there will be.
    pub epochs: usize,
    /// Mean loss of the epoch's samples, each taken when its batch was trained on.
    pub loss: f64,
    /// Loss of the validation data after the epoch.
    pub val_loss: Option<f64>,
    /// Whether this is the best epoch so far.
    pub best: bool,
}

/// Is told how training goes, and may stop it by [`ControlFlow::Break`].
pub trait Callback {
    /// After every batch. Called often: keep it short.
    fn on_batch_end(&mut self, _state: &BatchEnd) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After every epoch.
    fn on_epoch_end(&mut self, _state: &EpochEnd) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Outcome {
    /// All epochs were trained.
    Finished,
    /// [`EarlyStopping`] saw no improvement.
    EarlyStopped,
    /// A [`Callback`] asked for it.
    Interrupted,
}

/// How training went. An epoch that was not completed is not in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    /// Loss of each epoch.
    pub loss: Vec<f64>,
    /// Validation loss of each epoch; empty without validation data.
    pub val_loss: Vec<f64>,
    /// The epoch with the lowest validation loss (without validation data: loss), counted from 1; `None` if none was completed.
    pub best_epoch: Option<usize>,
    /// Why training ended.
    pub outcome: Outcome,
}

/// Streams of random numbers from here on order samples; those before draw weights.
const SHUFFLE_STREAM: u32 = 1 << 31;

impl<E: Scalar, B: HostBackend<E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// Trains on inputs `x` `[samples, input shape…]` and targets `y` `[samples, output shape…]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`], [`Error::InvalidOption`] for a batch larger than
    /// the data, and those of the backend. [`Error::Diverged`] where a loss or a gradient is NaN or infinite: the model then has the
    /// weights of its best epoch, or those it had before if no epoch was completed.
    pub fn fit<D: Dimension, F: Dimension>(
        &mut self,
        x: ArrayView<'_, E, D>,
        y: ArrayView<'_, E, F>,
        options: FitOptions<'_, E>,
    ) -> Result<History> {
        let samples = self.check_pair("x", x.shape(), "y", y.shape())?;
        for (name, size) in [("epochs", options.epochs), ("batch_size", options.batch_size)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if options.batch_size > samples {
            return Err(Error::option("batch_size", format!("at most the {samples} samples"), options.batch_size));
        }
        let validation = match &options.validation_data {
            None => None,
            Some((x, y)) => {
                self.check_pair("validation x", x.shape(), "validation y", y.shape())?;
                Some((x.as_standard_layout(), y.as_standard_layout()))
            }
        };
        let validation = match &validation {
            None => None,
            Some((x, y)) => Some((flat("validation x", x)?, flat("validation y", y)?)),
        };
        let (x, y) = (x.as_standard_layout(), y.as_standard_layout());
        let mut run = Run {
            x: flat("x", &x)?,
            y: flat("y", &y)?,
            validation,
            order: (0..samples).collect(),
            best: self.parameters.clone(),
            best_loss: f64::INFINITY,
            history: History { loss: Vec::new(), val_loss: Vec::new(), best_epoch: None, outcome: Outcome::Finished },
            epochs: options.epochs,
            batch_size: options.batch_size,
            shuffle: options.shuffle,
            early_stopping: options.early_stopping,
            callback: options.callback,
        };
        self.allocate(run.batch_size, true)?;
        let trained = self.train_epochs(&mut run);
        if let Err(Error::Diverged { .. }) = trained {
            self.parameters.copy_from_slice(&run.best);
        }
        trained?;
        if run.history.best_epoch.is_some() && run.early_stopping.is_some_and(|e| e.restore_best_weights) {
            self.parameters.copy_from_slice(&run.best);
        }
        Ok(run.history)
    }

    fn train_epochs(&mut self, run: &mut Run<'_, '_, E>) -> Result<()> {
        for epoch in 1..=run.epochs {
            let Some(loss) = self.train_epoch(run, epoch)? else {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            };
            let val_loss = match run.validation {
                None => None,
                Some((x, y)) => Some(self.mean_loss(x, y)?),
            };
            let monitored = val_loss.unwrap_or(loss);
            if !monitored.is_finite() {
                let batch = run.order.len().div_ceil(run.batch_size);
                return Err(Error::Diverged { epoch, batch, what: format!("the validation loss is {monitored}") });
            }
            run.history.loss.push(loss);
            run.history.val_loss.extend(val_loss);
            let min_delta = run.early_stopping.map_or(0.0, |e| e.min_delta);
            let best = monitored < run.best_loss - min_delta;
            if best {
                run.best_loss = monitored;
                run.best.copy_from_slice(&self.parameters);
                run.history.best_epoch = Some(epoch);
            }
            let state = EpochEnd { epoch, epochs: run.epochs, loss, val_loss, best };
            if run.callback.as_mut().is_some_and(|c| c.on_epoch_end(&state).is_break()) {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            }
            let waited = epoch - run.history.best_epoch.unwrap_or(epoch);
            if epoch < run.epochs && run.early_stopping.is_some_and(|e| waited >= e.patience.max(1)) {
                run.history.outcome = Outcome::EarlyStopped;
                return Ok(());
            }
        }
        Ok(())
    }

    /// One pass over the data; the mean loss, or `None` where the callback stopped it.
    fn train_epoch(&mut self, run: &mut Run<'_, '_, E>, epoch: usize) -> Result<Option<f64>> {
        if run.shuffle {
            Random::new(self.seed, SHUFFLE_STREAM | self.epochs_trained).shuffle(&mut run.order);
        }
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        let (size_in, size_out) = (self.sizes[0], self.size_out());
        let batches = run.order.len().div_ceil(run.batch_size);
        let (mut sum, mut seen) = (0.0, 0usize);
        for (index, picked) in run.order.chunks(run.batch_size).enumerate() {
            for (slot, &sample) in picked.iter().enumerate() {
                let (x, y) = (&run.x[sample * size_in..][..size_in], &run.y[sample * size_out..][..size_out]);
                self.values[0][slot * size_in..][..size_in].copy_from_slice(x);
                self.targets[slot * size_out..][..size_out].copy_from_slice(y);
            }
            let batch = index + 1;
            let loss = self.run_training(picked.len())?;
            let diverged = |quantity: &str, value: f64| {
                let is_bad = |values: &[E]| values.iter().any(|v| !v.is_finite());
                let sample = picked.iter().find(|s| {
                    is_bad(&run.x[**s * size_in..][..size_in]) || is_bad(&run.y[**s * size_out..][..size_out])
                });
                let cause = sample.map(|s| format!(" (sample {s} of the data has a NaN or infinite value)"));
                Error::Diverged {
                    epoch,
                    batch,
                    what: format!("the {quantity} is {value}{}", cause.unwrap_or_default()),
                }
            };
            if !loss.is_finite() {
                return Err(diverged("loss", loss));
            }
            if let Some(value) = non_finite(&self.gradients) {
                return Err(diverged("gradient", value));
            }
            self.optimizer.update(&mut self.parameters, &self.gradients);
            sum += loss * picked.len() as f64;
            seen += picked.len();
            let state = BatchEnd { epoch, batch, batches, loss: sum / seen as f64 };
            if run.callback.as_mut().is_some_and(|c| c.on_batch_end(&state).is_break()) {
                return Ok(None);
            }
        }
        Ok(Some(sum / seen as f64))
    }
}

/// What one call of `fit` works with.
struct Run<'a, 'c, E> {
    x: &'a [E],
    y: &'a [E],
    validation: Option<(&'a [E], &'a [E])>,
    order: Vec<usize>,
    best: Vec<E>,
    best_loss: f64,
    history: History,
    epochs: usize,
    batch_size: usize,
    shuffle: bool,
    early_stopping: Option<EarlyStopping>,
    callback: Option<&'c mut dyn Callback>,
}

/// The first value that is NaN or infinite.
fn non_finite<E: Scalar>(values: &[E]) -> Option<f64> {
    // Zero times a finite number is zero, times any other NaN, and sums keep NaN: no branch until the end.
    let mut sums = [E::zero(); 16];
    let chunks = values.chunks_exact(16);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (sum, value) in sums.iter_mut().zip(chunk) {
            *sum += *value * E::zero();
        }
    }
    let is_clean = sums.iter().chain(tail).all(|v| v.is_finite());
    if is_clean { None } else { values.iter().find(|v| !v.is_finite()).map(|v| v.wide()) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn finds_what_is_not_finite() {
        for len in [0, 1, 15, 16, 17, 100] {
            assert_eq!(super::non_finite(&vec![1.5f32; len]), None);
            for at in 0..len {
                for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                    let mut values = vec![1.5f32; len];
                    values[at] = bad;
                    assert!(super::non_finite(&values).is_some_and(|v| !v.is_finite()), "{len} {at}");
                }
            }
        }
    }
}
