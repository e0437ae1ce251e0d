//! Training a [`Model`].
//!
//! | file | what |
//! |---|---|
//! | this | from arrays or batches to a training, and its end |
//! | `options` | how it is done |
//! | `epochs` | the epochs of a training, and the batches of an epoch |
//! | `step` | the gradients of a batch, and a step of the optimizer |

mod epochs;
mod options;
mod step;

use crate::backend::Tensor;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::metrics::MetricAccumulator;
use crate::model::Model;
use crate::model::arrays::{AnyArray, Arrays, any, row_weights, rows};
use crate::model::backup::{Backup, Settings, Taken};
use crate::model::batch::{Batch, Batches};
use crate::model::callbacks::{Callback, EarlyStopping};
use crate::model::evaluate::check_whole_batches;
use crate::model::feed::Feed;
use crate::model::fingerprint::Fingerprint;
use crate::model::history::{History, Outcome};
use crate::model::monitor::Monitor;
use crate::model::output::Status;
use crate::model::ranks::{self, Ranks};

pub use options::{Clip, FitOptions};

impl Model {
    /// Trains on inputs `x` `[samples, input shape…]` and targets `y` `[samples, output shape…]`; a last axis of 1 may be left out.
    ///
    /// On a GPU the data are copied there once; after that a batch needs nothing from the host but launches.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`], [`Error::InvalidOption`] for a split that leaves
    /// nothing, for samples that are no whole number of batches where layers are stateful, and for constants that the optimizer cannot
    /// have, [`Error::NonFinite`] for an `f64` beyond the range of the device's `f32`; what a callback returns; of a [backup](FitOptions::backup)
    /// [`Error::Io`] for a checkpoint that cannot be written, [`Error::Format`] for one that is damaged, [`Error::InvalidOption`] naming what is not
    /// as when it was written; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails. [`Error::Diverged`] where a loss, a gradient or, after an epoch, a weight is NaN or
    /// infinite:
    /// the model then has the weights of its best epoch, or those it had before if no epoch was completed, the optimizer starts anew, and
    /// stateful layers are reset.
    pub fn fit<'a, 'b>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'b>, options: FitOptions<'_>) -> Result<History> {
        self.train(Source::Arrays(any(x), any(y)), options)
    }

    /// Trains on batches that an iterator gives, so that the data need not be in memory: what Keras's `fit` does with a generator or a
    /// `tf.data.Dataset`. `batches(epoch)` is called before each epoch, counted from 1, and gives its iterator; an epoch ends with it.
    ///
    /// ```
    /// use fused_rnn::data::TimeseriesDataset;
    /// use fused_rnn::model::{FitOptions, Sequential};
    /// use fused_rnn::nn::{Dense, Lstm};
    /// use fused_rnn::Device;
    /// use ndarray::{Array2, s};
    /// let series = Array2::from_shape_fn((200, 2), |(t, c)| (t as f32 * 0.1 + c as f32).sin());
    /// // The next step from ten; windows are cut when their batch is asked for.
    /// let dataset = TimeseriesDataset::new(series.view(), 10).targets(series.slice(s![10.., ..])).shuffle(7);
    /// let mut model = Sequential::new(Device::cpu(), &[10, 2], 1)?;
    /// model.add(Lstm::new(8))?.add(Dense::new(2))?;
    /// let options = FitOptions { epochs: 3, ..FitOptions::default() };
    /// let history = model.fit_batches(|epoch| dataset.batches_of(32, epoch as u32), options)?;
    /// assert!(history.loss[2] < history.loss[0]);
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// Every item is a [`Batch`], or a tuple that is one, as a `Result`: `(x, y)`, or `(x, y, sample_weight)`. Batches may have different
    /// numbers of samples. The order is the iterator's, and so is the size of a batch: of the [`FitOptions`] `batch_size` and `shuffle` say
    /// nothing here. Everything else is as in [`fit`](Self::fit), which gives the same bits for the same batches without `shuffle`. How many
    /// batches an epoch has is told to callbacks where the iterator says it (by its `size_hint`), else from the second epoch on.
    ///
    /// # Errors
    ///
    /// An error of `batches` or of its iterator as it is ([`Error::other`] makes one of any other); [`Error::Shape`] and [`Error::NonFinite`]
    /// that name epoch, batch and tensor where a batch does not fit the model; [`Error::Presence`] for an epoch without batches;
    /// [`Error::InvalidOption`] for a `validation_split`, [`Error::Presence`] for a `sample_weight`, which stands in the batch. All others are
    /// those of [`fit`](Self::fit). The model then has the weights of the last batch that was trained on, and after [`Error::Diverged`] those
    /// that it has in [`fit`](Self::fit).
    pub fn fit_batches<'b, I, B>(
        &mut self,
        batches: impl FnMut(usize) -> Result<I> + 'b,
        options: FitOptions<'_>,
    ) -> Result<History>
    where
        I: IntoIterator<Item = Result<B>>,
        I::IntoIter: 'b,
        B: Into<Batch<'b>>,
    {
        self.train(Source::Batches(Batches::new(batches)), options)
    }

    fn train(&mut self, source: Source<'_>, options: FitOptions<'_>) -> Result<History> {
        let ranks = options.ranks.filter(|ranks| ranks.count() > 1);
        let mut has_met = false;
        let trained = self.train_on_rank(source, options, ranks, &mut has_met);
        if let (Err(_), Some(ranks), false) = (&trained, ranks, has_met) {
            // The others wait for this one, and learn that it does not come.
            let _ = ranks::agree(ranks, Err::<(), _>(Error::ZeroSize { name: "epochs" }));
        }
        trained.map_err(|error| self.explained(error))
    }

    /// The same on one of several processes, if there are some. `has_met` says whether they have begun to exchange what they have.
    fn train_on_rank<'o>(
        &mut self,
        mut source: Source<'_>,
        mut options: FitOptions<'o>,
        ranks: Option<&'o dyn Ranks>,
        has_met: &mut bool,
    ) -> Result<History> {
        options.check()?;
        self.optimizer.validate()?;
        if let Source::Batches(_) = source {
            options.check_for_batches()?;
        }
        let mut settings = match &options.backup {
            Some(backup) => {
                self.check_backup()?;
                Some(Settings::of(self, &options, backup)?)
            }
            None => None,
        };
        // What the feeds borrow from.
        let (data, weights_held_back, given);
        let (mut training, mut validation, mut samples) = (None, None, 0);
        if let Source::Arrays(x, y) = &mut source {
            let (x, y) = (std::mem::take(x), std::mem::take(y));
            let mut checked = self.check_data("", x, Some(y))?;
            let (sample_weight, class_weight) = (&options.sample_weight, &options.class_weight);
            checked.weights = row_weights("", &self.outputs, &checked, sample_weight, class_weight, self.dtype())?;
            // What is held back for validation has the weights of its samples, but not those of their classes.
            weights_held_back = match (class_weight.is_empty(), options.validation_split != 0.0) {
                (false, true) => Some(row_weights("", &self.outputs, &checked, sample_weight, &[], self.dtype())?),
                _ => None,
            };
            if let Some(settings) = &mut settings {
                settings.add_data("", &checked);
            }
            data = checked;
            let train = if options.validation_split == 0.0 {
                data.part(0..data.samples)?
            } else {
                let (train, mut held) = data.split(options.validation_split)?;
                if let Some(weights) = &weights_held_back {
                    let held_back = train.samples..data.samples;
                    let parts = weights.iter().map(|w| rows(w.view(), data.samples, held_back.clone()));
                    held.weights = parts.collect::<Result<_>>()?;
                }
                validation = Some(held);
                train
            };
            samples = train.samples;
            training = Some(train);
        }
        if let Some((x, y)) = options.validation_data.take() {
            let mut checked = self.check_data("validation ", x, Some(y))?;
            let weights = &options.validation_sample_weight;
            checked.weights = row_weights("validation ", &self.outputs, &checked, weights, &[], self.dtype())?;
            if let Some(settings) = &mut settings {
                settings.add_data("validation ", &checked);
            }
            given = checked;
            validation = Some(given.part(0..given.samples)?);
        }
        if let Some(part) = &training {
            // The validation may have had others.
            self.take_lengths(part.lengths)?;
        }
        let together = ranks.map_or(1, |ranks| ranks.count());
        // As in Keras, fewer samples are one batch.
        let batch_size = options.batch_size.saturating_mul(together).min(samples.max(1));
        let of_training = training.is_some().then_some(batch_size);
        if training.is_some() && self.network.is_stateful() {
            check_whole_batches("batch_size", "samples", samples, batch_size)?;
        }
        let validation_batch = match (&validation, of_training) {
            (Some(part), Some(_)) => self.evaluation_batch(part.samples, of_training)?,
            // Found out before each validation.
            _ => 1,
        };
        let device = &self.device;
        let validation = match (validation, options.validation_batches.take()) {
            (None, None) => None,
            (_, Some(batches)) => Some(Feed::of_batches("validation ", batches, Vec::new())),
            (Some(part), None) => Some(Feed::of(device, "validation ", part, validation_batch)?),
        };
        let mut best = device.allocate("best weights", self.count_params())?;
        device.copy(self.network.parameters.get(), best.view_mut())?;
        let mut best_statistics = device.allocate("best statistics", self.network.builder.statistics)?;
        device.copy(self.network.statistics.get(), best_statistics.view_mut())?;
        let accumulators = self.accumulators()?;
        let monitor = Monitor::new(options.monitor, validation.is_some(), &accumulators)?;
        let feed = match (training, source) {
            (Some(part), _) => Feed::of_training(device, part, batch_size, options.shuffle)?,
            (None, Source::Batches(batches)) => {
                Feed::of_batches("", batches, std::mem::take(&mut options.class_weight))
            }
            (None, Source::Arrays(..)) => return Err(Error::ZeroSize { name: "number of samples" }),
        };
        let mut run = Run {
            ranks,
            feed,
            validation,
            norm: device.allocate_as("norm", DType::F64, 1)?,
            overflow: self.loss_scale.map(|_| Status::new(device)).transpose()?,
            finite: Status::new(device)?,
            best,
            best_statistics,
            best_score: f64::NEG_INFINITY,
            monitor,
            history: History {
                loss: Vec::new(),
                val_loss: Vec::new(),
                metrics: Vec::new(),
                learning_rate: Vec::new(),
                best_epoch: None,
                outcome: Outcome::Finished,
            },
            metrics: accumulators,
            epochs: options.epochs,
            epoch_number: self.epochs_trained,
            backup: options
                .backup
                .take()
                .zip(settings)
                .map(|(backup, settings)| Backup::new(backup, settings, self.optimizer.learning_rate())),
            clip: options.clip,
            loss_every: options.loss_every,
            early_stopping: options.early_stopping,
            callbacks: options.callbacks,
        };
        if samples > 0 {
            self.allocate(options.batch_size.min(samples), true)?;
        }
        if let Some(ranks) = ranks {
            *has_met = true;
            ranks::agree(ranks, Ok(()))?;
            let weights = Fingerprint::of(self.network.parameters.host().bytes().unwrap_or_default()).get();
            let frozen = Fingerprint::of(self.network.frozen.host().bytes().unwrap_or_default()).get();
            let own = [
                ("weights", weights),
                ("frozen weights", frozen),
                ("seed", self.seed),
                ("samples", samples as u64),
                ("batch_size", options.batch_size as u64),
                ("epochs", options.epochs as u64),
            ];
            ranks::check_same(ranks, &own)?;
        }
        let taken = self.take_up(&mut run)?;
        let begins = run.callbacks.iter_mut().try_for_each(|callback| callback.on_train_begin(self));
        ranks::agree_if(run.ranks, begins)?;
        let trained = match taken {
            Taken::End => match &run.backup {
                Some(backup) if backup.is_deleted_at_the_end() => backup.remove(),
                _ => Ok(()),
            },
            Taken::Nothing => self.train_epochs(&mut run, None).and_then(|()| self.end_backup(&mut run)),
            Taken::Epochs(begun) => self.train_epochs(&mut run, begun).and_then(|()| self.end_backup(&mut run)),
        };
        if let Err(Error::Diverged { .. }) = trained {
            self.restore(&run)?;
            self.forget();
            // States of the batch that diverged would spoil every later one.
            self.network.reset_states();
        }
        if trained.is_err() {
            // Whatever the error was, it says more than a failure to look at the weights.
            let _ = self.refresh();
        }
        trained?;
        if run.history.best_epoch.is_some() && run.early_stopping.is_some_and(|e| e.restore_best_weights) {
            self.restore(&run)?;
        }
        self.refresh()?;
        let ends = run.callbacks.iter_mut().try_for_each(|callback| callback.on_train_end(&run.history, self));
        ranks::agree_if(run.ranks, ends)?;
        Ok(run.history)
    }

    /// Brings up to date what the host shows of the weights.
    fn refresh(&mut self) -> Result<()> {
        self.network.parameters.refresh(&self.device)?;
        self.network.statistics.refresh(&self.device)
    }

    /// The best weights so far, and what belongs to them.
    fn restore(&mut self, run: &Run<'_, '_, '_>) -> Result<()> {
        self.device.copy(run.best.view(), self.network.parameters.get_mut())?;
        self.device.copy(run.best_statistics.view(), self.network.statistics.get_mut())
    }

    /// After training has ended: its checkpoint goes, or holds the end.
    fn end_backup(&mut self, run: &mut Run<'_, '_, '_>) -> Result<()> {
        match &run.backup {
            Some(_) if run.history.outcome == Outcome::Interrupted => Ok(()),
            Some(backup) if backup.is_deleted_at_the_end() => backup.remove(),
            Some(_) => self.back_up(run, None, true),
            None => Ok(()),
        }
    }
}

/// What is trained on.
enum Source<'a> {
    /// Inputs and targets.
    Arrays(Vec<AnyArray<'a>>, Vec<AnyArray<'a>>),
    /// Both, a batch at a time.
    Batches(Batches<'a>),
}

/// The state of training in one call of `fit`.
pub(super) struct Run<'d, 'b, 'o> {
    pub feed: Feed<'d, 'b>,
    validation: Option<Feed<'d, 'o>>,
    /// The gradient's sum of squares.
    norm: Tensor,
    /// Whether weights are finite.
    finite: Status,
    /// Whether gradients of a scaled loss are finite.
    overflow: Option<Status>,
    pub best: Tensor,
    pub best_statistics: Tensor,
    pub best_score: f64,
    monitor: Monitor,
    pub history: History,
    pub epochs: usize,
    /// The epoch at hand as the model counts them, over all calls.
    pub epoch_number: u32,
    pub backup: Option<Backup>,
    clip: Option<Clip>,
    loss_every: usize,
    early_stopping: Option<EarlyStopping>,
    pub callbacks: Vec<&'o mut dyn Callback>,
    pub metrics: Vec<Vec<MetricAccumulator>>,
    ranks: Option<&'o dyn Ranks>,
}

impl Run<'_, '_, '_> {
    /// Whether training ends after this epoch, since none has been better for too long.
    fn has_waited(&self, epoch: usize) -> bool {
        // What is NaN from the first epoch on has no best one, and counts as no improvement; as in Keras the first epoch never ends training.
        let waited = epoch - self.history.best_epoch.unwrap_or(0);
        epoch > 1 && self.early_stopping.is_some_and(|e| waited >= e.patience.max(1))
    }

    /// The names of the metrics of each epoch, as in the history, and whether there is a validation.
    pub fn figures(&self) -> (Vec<String>, bool) {
        let names = |prefix: &'static str| {
            self.metrics.iter().flatten().map(move |metric| format!("{prefix}{}", metric.name()))
        };
        let validates = self.validation.is_some();
        (names("").chain(names("val_").filter(|_| validates)).collect(), validates)
    }
}
