//! Training a [`Sequential`].

use std::borrow::{Borrow, BorrowMut};
use std::ops::ControlFlow;

use ndarray::{ArrayView, Dimension, IxDyn};
use serde::Serialize;

use crate::backend::dense::{LossEntry, Report};
use crate::backend::{DenseBackend, Memory};
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
    /// How gradients are limited; not at all.
    pub clip: Option<Clip>,
    /// On a device: batches from one look at the loss to the next; 32. Until then the device is not waited for, and neither the loss
    /// that callbacks are told nor a divergence is known. The first batch of an epoch and the last are always looked at. On the host
    /// every batch is.
    pub loss_every: usize,
    /// Told about progress, may stop training; none.
    pub callback: Option<&'a mut dyn Callback>,
}

/// A limit for gradients, all weights taken together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All are scaled down so that the norm of the whole gradient is at most this: Keras's `global_clipnorm`
    /// ([Pascanu et al. 2013](https://proceedings.mlr.press/v28/pascanu13.html)).
    Norm(f64),
    /// Each is limited to plus or minus this: Keras's `clipvalue`.
    Value(f64),
}

impl<E> Default for FitOptions<'_, E> {
    fn default() -> Self {
        FitOptions {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation_data: None,
            early_stopping: None,
            clip: None,
            loss_every: 32,
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
    /// Mean loss of the epoch's samples so far; on a device, as of the last look at it (see [`FitOptions::loss_every`]).
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

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// Trains on inputs `x` `[samples, input shape…]` and targets `y` `[samples, output shape…]`.
    ///
    /// On a device the data are copied there once; after that a batch needs nothing from the host but launches.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`], [`Error::InvalidOption`] for a batch larger than
    /// the data, and those of the backend. [`Error::Diverged`] where a loss or a gradient is NaN or infinite: the model then has the
    /// weights of its best epoch, or those it had before if no epoch was completed, and the optimizer starts anew.
    pub fn fit<D: Dimension, F: Dimension>(
        &mut self,
        x: ArrayView<'_, E, D>,
        y: ArrayView<'_, E, F>,
        options: FitOptions<'_, E>,
    ) -> Result<History> {
        let samples = self.check_pair("x", x.shape(), "y", y.shape())?;
        for (name, size) in
            [("epochs", options.epochs), ("batch_size", options.batch_size), ("loss_every", options.loss_every)]
        {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if options.batch_size > samples {
            return Err(Error::option("batch_size", format!("at most the {samples} samples"), options.batch_size));
        }
        if let Some(Clip::Norm(most) | Clip::Value(most)) = options.clip
            && !(most.is_finite() && most > 0.0)
        {
            return Err(Error::option("clip", "a finite number above zero", most));
        }
        let count = u32::try_from(samples)
            .map_err(|_| Error::unsupported(format!("{samples} samples"), "at most 4294967295 are counted"))?;
        let (x, y) = (x.as_standard_layout(), y.as_standard_layout());
        let validation = match &options.validation_data {
            None => None,
            Some((x, y)) => {
                self.check_pair("validation x", x.shape(), "validation y", y.shape())?;
                Some((x.as_standard_layout(), y.as_standard_layout()))
            }
        };
        let validation = match &validation {
            None => None,
            Some((x, y)) => Some(Validation::<B> {
                samples: x.shape()[0],
                x: self.backend.place("validation x", flat("validation x", x)?)?,
                y: self.backend.place("validation y", flat("validation y", y)?)?,
            }),
        };
        let (x, y) = (flat("x", &x)?, flat("y", &y)?);
        let mut best = self.backend.allocate("best weights", self.count_params())?;
        self.backend.copy(self.parameters.get(), best.borrow_mut())?;
        let mut run = Run::<B> {
            x,
            y,
            placed_x: self.backend.place("x", x)?,
            placed_y: self.backend.place("y", y)?,
            validation,
            order: (0..count).collect(),
            placed_order: self.backend.allocate("order of samples", samples)?,
            norm: self.backend.allocate("norm", 1)?,
            best,
            best_loss: f64::INFINITY,
            history: History { loss: Vec::new(), val_loss: Vec::new(), best_epoch: None, outcome: Outcome::Finished },
            epochs: options.epochs,
            batch_size: options.batch_size,
            shuffle: options.shuffle,
            clip: options.clip,
            loss_every: options.loss_every,
            early_stopping: options.early_stopping,
            callback: options.callback,
        };
        self.allocate(run.batch_size, true)?;
        self.backend.upload(&run.order, run.placed_order.borrow_mut())?;
        let trained = self.train_epochs(&mut run);
        if let Err(Error::Diverged { .. }) = trained {
            self.backend.copy(run.best.borrow(), self.parameters.get_mut())?;
            self.forget();
        }
        if trained.is_err() {
            // Whatever the error was, it says more than a failure to look at the weights.
            let _ = self.parameters.refresh(&self.backend);
        }
        trained?;
        if run.history.best_epoch.is_some() && run.early_stopping.is_some_and(|e| e.restore_best_weights) {
            self.backend.copy(run.best.borrow(), self.parameters.get_mut())?;
        }
        self.parameters.refresh(&self.backend)?;
        Ok(run.history)
    }

    fn train_epochs(&mut self, run: &mut Run<'_, '_, B>) -> Result<()> {
        for epoch in 1..=run.epochs {
            let Some(loss) = self.train_epoch(run, epoch)? else {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            };
            let val_loss = match &run.validation {
                None => None,
                Some(data) => Some(self.mean_loss(&data.x, &data.y, data.samples)?),
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
                self.backend.copy(self.parameters.get(), run.best.borrow_mut())?;
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
    fn train_epoch(&mut self, run: &mut Run<'_, '_, B>, epoch: usize) -> Result<Option<f64>> {
        if run.shuffle {
            Random::new(self.seed, SHUFFLE_STREAM | self.epochs_trained).shuffle(&mut run.order);
            self.backend.upload(&run.order, run.placed_order.borrow_mut())?;
        }
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.record.clear(&self.backend)?;
        let batches = run.order.len().div_ceil(run.batch_size);
        let (mut seen, mut loss) = (0usize, 0.0);
        for batch in 1..=batches {
            let size = run.batch_size.min(run.order.len() - seen);
            self.train_batch(run, epoch, batch, seen, size)?;
            seen += size;
            if self.record.is_on_host() || (batch - 1).is_multiple_of(run.loss_every) || batch == batches {
                let report = self.record.read(&self.backend)?;
                self.check_layers()?;
                diverged(run, epoch, &report, self.record.is_on_host())?;
                loss = report.total / seen as f64;
            }
            let state = BatchEnd { epoch, batch, batches, loss };
            if run.callback.as_mut().is_some_and(|c| c.on_batch_end(&state).is_break()) {
                return Ok(None);
            }
        }
        Ok(Some(loss))
    }

    /// One step on `size` samples, from number `first` of the epoch's order on. Its code in the record is the batch's number.
    fn train_batch(
        &mut self,
        run: &mut Run<'_, '_, B>,
        epoch: usize,
        batch: usize,
        first: usize,
        size: usize,
    ) -> Result<()> {
        let (size_in, size_out) = (self.sizes[0], self.size_out());
        // There are no more batches than samples, which 32 bits count.
        let code = batch as u32;
        {
            let backend = &self.backend;
            let picked = backend.view(run.placed_order.borrow(), first..first + size)?;
            let mut x = self.values[0].get_mut(backend, size * size_in)?;
            backend.gather(size_in, &run.placed_x, &picked, &mut x, code, self.record.get_mut())?;
            let mut y = self.targets.get_mut(backend, size * size_out)?;
            backend.gather(size_out, &run.placed_y, &picked, &mut y, code, self.record.get_mut())?;
        }
        self.run_training(size, LossEntry { weight: size as f64, code })?;
        let on_host = self.record.is_on_host();
        if on_host {
            diverged(run, epoch, &self.record.read(&self.backend)?, true)?;
        }
        let Sequential { backend, parameters, gradients, optimizer, states, steps, record, workspace, .. } = self;
        backend.check_finite(gradients.get(), code, record.get_mut())?;
        if on_host {
            diverged(run, epoch, &record.read(backend)?, true)?;
        }
        match run.clip {
            None => {}
            Some(Clip::Value(most)) => backend.clip_by_value(most, gradients.get_mut())?,
            Some(Clip::Norm(most)) => {
                backend.sum_of_squares(gradients.get(), run.norm.borrow_mut(), workspace.all()?)?;
                backend.clip_by_norm(most, run.norm.borrow(), gradients.get_mut())?;
            }
        }
        *steps += 1;
        optimizer.update(backend, *steps, parameters.get_mut(), gradients.get(), states)
    }
}

/// The error of a record that tells of a loss or gradient that is not finite.
fn diverged<B: DenseBackend>(run: &Run<'_, '_, B>, epoch: usize, report: &Report, on_host: bool) -> Result<()>
where
    B::Elem: Scalar,
{
    // In a batch the loss comes first.
    let (batch, quantity) = match (report.bad_loss, report.bad_gradient) {
        (Some(loss), Some(gradient)) if gradient < loss => (gradient, "gradient"),
        (Some(loss), _) => (loss, "loss"),
        (None, Some(gradient)) => (gradient, "gradient"),
        (None, None) => return Ok(()),
    };
    let batch = batch as usize;
    let (size_in, size_out) = (run.x.len() / run.order.len(), run.y.len() / run.order.len());
    let is_bad = |values: &[B::Elem]| values.iter().any(|v| !num_traits::Float::is_finite(*v));
    let picked = run.order.chunks(run.batch_size).nth(batch - 1).unwrap_or_default();
    let sample = picked.iter().find(|sample| {
        let sample = **sample as usize;
        is_bad(&run.x[sample * size_in..][..size_in]) || is_bad(&run.y[sample * size_out..][..size_out])
    });
    let cause = sample.map(|s| format!(" (sample {s} of the data has a NaN or infinite value)")).unwrap_or_default();
    let value = match quantity {
        // A device does not say which of the two a gradient was.
        "gradient" if !on_host => "NaN or infinite".to_owned(),
        _ => report.bad_value.to_string(),
    };
    Err(Error::Diverged { epoch, batch, what: format!("the {quantity} is {value}{cause}") })
}

struct Validation<'a, B: DenseBackend + 'a> {
    samples: usize,
    x: <B as Memory>::View<'a, B::Elem>,
    y: <B as Memory>::View<'a, B::Elem>,
}

/// What one call of `fit` works with.
struct Run<'a, 'c, B: DenseBackend + 'a> {
    /// The data on the host, to name a sample in errors.
    x: &'a [B::Elem],
    y: &'a [B::Elem],
    placed_x: <B as Memory>::View<'a, B::Elem>,
    placed_y: <B as Memory>::View<'a, B::Elem>,
    validation: Option<Validation<'a, B>>,
    order: Vec<u32>,
    placed_order: B::Owned<u32>,
    /// The gradient's sum of squares.
    norm: B::Owned<f64>,
    best: B::Owned<B::Elem>,
    best_loss: f64,
    history: History,
    epochs: usize,
    batch_size: usize,
    shuffle: bool,
    clip: Option<Clip>,
    loss_every: usize,
    early_stopping: Option<EarlyStopping>,
    callback: Option<&'c mut dyn Callback>,
}
