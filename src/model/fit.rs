//! Training a [`Model`].

use std::ops::Range;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};

use crate::backend::Tensor;
use crate::backend::ops::{LossEntry, Report};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::metrics::MetricAccumulator;
use crate::model::Model;
use crate::model::arrays::{AnyArray, Arrays, Data, any, row_weights, rows};
use crate::model::backup::{Backup, BackupAndRestore, Begun, Settings, Taken};
use crate::model::batch::{Batch, Batches};
use crate::model::callbacks::{BatchEnd, Callback, EarlyStopping, EpochBegin, EpochEnd, Training, check_delta};
use crate::model::evaluate::{check_whole_batches, mean_loss, results};
use crate::model::feed::{Feed, SHUFFLE_STREAM};
use crate::model::file::MOST_STEPS;
use crate::model::fingerprint::Fingerprint;
use crate::model::history::{History, Outcome};
use crate::model::monitor::Monitor;
use crate::model::output::Status;
use crate::model::ranks::{self, Ranks};
use crate::optim::Schedule;

/// How [`Model::fit`] trains. The defaults are Keras's.
pub struct FitOptions<'a> {
    /// Most passes over the data; 1.
    pub epochs: usize,
    /// Samples of one step, on each rank where there are several; 32. The last batch of an epoch may be smaller, and is the only one
    /// where there are fewer samples. A model with stateful layers takes whole batches alone.
    pub batch_size: usize,
    /// Whether each epoch takes the samples in another order; yes.
    pub shuffle: bool,
    /// Inputs and targets to evaluate after each epoch, one array for each input and output of the model, as in
    /// `Some((vec![(&x).into()], vec![(&y).into()]))`; none.
    pub validation_data: Option<(Vec<AnyArray<'a>>, Vec<AnyArray<'a>>)>,
    /// Weights of the samples of `validation_data`, as [`sample_weight`](Self::sample_weight): what Keras takes as the third part of
    /// `validation_data`; none, which is 1.
    pub validation_sample_weight: Vec<AnyArray<'a>>,
    /// The same as batches, of data that need not be in memory, made anew for each epoch; none.
    pub validation_batches: Option<Batches<'a>>,
    /// The last part of the samples, rounded down to whole ones, that is evaluated after each epoch instead of trained on; 0, none.
    /// They keep their `sample_weight`, as in Keras.
    pub validation_split: f64,
    /// What the loss of each sample is multiplied with, `[samples]`, or of each step of each, `[samples, steps]`: one array for all
    /// outputs, or one an output; none, which is 1. Of the metrics only [weighted ones](Model::weighted_metrics) go by it.
    pub sample_weight: Vec<AnyArray<'a>>,
    /// What the loss of samples of a class is multiplied with in training, by the class's number; 1. For a model with one output of
    /// classes. As in Keras the validation does not go by it, and of the metrics only [weighted ones](Model::weighted_metrics).
    pub class_weight: Vec<(usize, f64)>,
    /// Which figure says how good an epoch is, by its key in the [`History`]; the validation loss, or without validation data the loss.
    /// By it [`History::best_epoch`], early stopping, [checkpoints](crate::model::Checkpoint) of the best and
    /// [plateaus](crate::model::ReduceLearningRate) receive. Of losses and errors less is better, of other metrics more.
    pub monitor: Option<&'a str>,
    /// When to stop before the last epoch; never.
    pub early_stopping: Option<EarlyStopping>,
    /// How gradients are limited; not at all.
    pub clip: Option<Clip>,
    /// On a device: batches from one look at the loss to the next; 32. Until then the device is not waited for, and neither the loss
    /// that callbacks receive nor a divergence is known. The first batch of an epoch and the last are always looked at. On the host
    /// every batch is.
    pub loss_every: usize,
    /// Told about progress, in this order; may stop training, change its rate, and save the model; none.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// Checkpoints, from the last of which training goes on where an earlier one did not end; none.
    pub backup: Option<BackupAndRestore>,
    /// The processes that train the same model [together](crate::model::ranks), and which of them this is; this one alone.
    pub ranks: Option<&'a dyn Ranks>,
}

/// A limit for gradients, all weights taken together.
///
/// ```
/// use fused_rnn::model::{Clip, FitOptions};
/// let options = FitOptions { epochs: 10, clip: Some(Clip::Norm(1.0)), ..FitOptions::default() };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All are scaled down so that the norm of the whole gradient is at most this: Keras's `global_clipnorm`
    /// ([Pascanu et al. 2013](https://proceedings.mlr.press/v28/pascanu13.html)).
    Norm(f64),
    /// Each is limited to plus or minus this: Keras's `clipvalue`.
    Value(f64),
}

impl Default for FitOptions<'_> {
    fn default() -> Self {
        FitOptions {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation_data: None,
            validation_sample_weight: Vec::new(),
            validation_batches: None,
            validation_split: 0.0,
            sample_weight: Vec::new(),
            class_weight: Vec::new(),
            monitor: None,
            early_stopping: None,
            clip: None,
            loss_every: 32,
            callbacks: Vec::new(),
            backup: None,
            ranks: None,
        }
    }
}

impl FitOptions<'_> {
    /// Refuses what no training can go by, whatever the data are.
    fn check(&self) -> Result<()> {
        for (name, size) in [("epochs", self.epochs), ("batch_size", self.batch_size), ("loss_every", self.loss_every)]
        {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if let Some(Clip::Norm(most) | Clip::Value(most)) = self.clip
            && !(most.is_finite() && most > 0.0)
        {
            return Err(Error::option("clip", "a finite number above zero", most));
        }
        if let Some(early_stopping) = self.early_stopping {
            check_delta("min_delta of early_stopping", early_stopping.min_delta)?;
        }
        let several = [self.validation_data.is_some(), self.validation_batches.is_some(), self.validation_split != 0.0];
        if several.iter().filter(|given| **given).count() > 1 {
            return Err(Error::option(
                "validation",
                "one of validation_data, validation_batches and validation_split",
                "more than one of them",
            ));
        }
        if let Some(backup) = &self.backup {
            backup.check()?;
            if self.ranks.is_some_and(|ranks| ranks.count() > 1) {
                return Err(Error::unsupported(
                    "backup of a training on several ranks",
                    "each has states and masks of its own, and all checkpoints would have to be of the same step; train on one, or save the \
                     model after epochs with Checkpoint on the first",
                ));
            }
        }
        if self.validation_data.is_none() && !self.validation_sample_weight.is_empty() {
            let problem = "there is no validation_data that they could be of; validation_split keeps the samples' sample_weight, and batches \
                           have their own";
            return Err(Error::Presence { tensor: "validation_sample_weight".to_owned(), problem: problem.to_owned() });
        }
        Ok(())
    }

    /// Refuses what is of arrays, where batches are given.
    fn check_for_batches(&self) -> Result<()> {
        if self.validation_split != 0.0 {
            let expected = "0 where batches are given; hold batches back, and give them as validation_batches";
            return Err(Error::option("validation_split", expected, self.validation_split));
        }
        if !self.sample_weight.is_empty() {
            return Err(Error::Presence {
                tensor: "sample_weight".to_owned(),
                problem: "batches have weights of their own; give them in each Batch".to_owned(),
            });
        }
        Ok(())
    }
}

/// The rate that a schedule gives for a step; zero counts as the smallest number above it.
fn of_schedule(schedule: &Schedule, step: u64) -> f64 {
    // Not `max`, which would make a rate of a NaN.
    let rate = schedule.rate(step);
    if rate == 0.0 { f64::MIN_POSITIVE } else { rate }
}

impl Training for Model {
    fn learning_rate(&self) -> f64 {
        match &self.schedule {
            Some(schedule) if self.steps == 0 => of_schedule(schedule, 0),
            // Every step leaves its rate there.
            _ => self.optimizer.learning_rate(),
        }
    }

    fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        if self.schedule.is_some() {
            return Err(Error::option(
                "learning rate",
                "the one of the model's schedule, which sets it before every step; train without the callback that sets it, or without \
                 Model::schedule",
                rate,
            ));
        }
        self.optimizer.set_learning_rate(rate)
    }

    fn save(&mut self, path: &Path) -> Result<()> {
        self.refresh()?;
        Model::save(self, path)
    }

    fn model(&mut self) -> Result<&Model> {
        self.refresh()?;
        Ok(self)
    }

    fn predict(&mut self, x: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>> {
        // Training goes on at the lengths that it had.
        let lengths = self.topology.lengths.clone();
        let outputs = self.predict_all(x.iter().map(|x| x.view()).collect::<Vec<_>>());
        self.take_lengths(&lengths)?;
        outputs
    }
}

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

    /// One step on one batch, Keras's `train_on_batch`; the loss before it.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::ZeroSize`] and [`Error::NonFinite`] for arrays that the model cannot take; [`Error::Diverged`] where the
    /// loss or a gradient is NaN or infinite; [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`]
    /// and [`Error::KernelFault`] where the GPU fails; all are listed at [`fit`](Self::fit).
    pub fn train_on_batch<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<f64> {
        let (x, y) = (any(x), any(y));
        if !self.status.is_on_host() {
            let samples = x.first().map_or(0, |x| x.shape().first().copied().unwrap_or(0));
            let options = FitOptions { batch_size: samples.max(1), shuffle: false, ..FitOptions::default() };
            let history = self.train(Source::Arrays(x, y), options)?;
            return Ok(history.loss.first().copied().unwrap_or(f64::NAN));
        }
        // The same on the host without what `fit` needs for many batches. A loss or gradient that is not finite is known before any weight
        // changes, so that no copy of them is needed to go back to; statistics change in the forward pass.
        let data = self.check_data("", x, Some(y))?;
        self.optimizer.validate()?;
        self.check_count()?;
        self.allocate(data.samples, true)?;
        let mut statistics = self.device.allocate("statistics", self.network.builder.statistics)?;
        self.device.copy(self.network.statistics.get(), statistics.view_mut())?;
        let loss = self.train_on(&data);
        if let Err(Error::Diverged { .. }) = loss {
            self.device.copy(statistics.view(), self.network.statistics.get_mut())?;
            self.forget();
            self.network.reset_states();
        }
        loss.map_err(|error| self.explained(error))
    }

    /// Refuses a step more than a file can hold.
    fn check_count(&self) -> Result<()> {
        if self.steps.max(self.batches_trained) < MOST_STEPS {
            return Ok(());
        }
        let why = "no file could hold how many they are; compile the model anew, or make it from its configuration and set its weights";
        Err(Error::unsupported(format!("training after {MOST_STEPS} steps"), why))
    }

    /// One step on all samples, where the host computes and there is room for them; the loss before it.
    fn train_on(&mut self, data: &Data<'_>) -> Result<f64> {
        let samples = data.samples;
        let check = |report: &Report| match divergence(report) {
            None => Ok(()),
            Some((batch, quantity)) => {
                let part = data.part(0..samples)?;
                let bad = (0..samples).find(|sample| part.is_bad(*sample));
                let cause = bad.map(|sample| format!("sample {sample} of the data has a NaN or infinite value"));
                Err(diverged_at((1, batch), quantity, report, true, cause))
            }
        };
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.place_part(&data.part(0..samples)?)?;
        self.status.clear(&self.device)?;
        let seed = self.step_seed();
        self.batches_trained += 1;
        self.run_training(samples, LossEntry { weight: samples as f64, code: 1 }, false, seed, false)?;
        check(&self.status.read(&self.device)?)?;
        self.device.check_finite(self.network.gradients.get(), 1, self.status.get_mut())?;
        let report = self.status.read(&self.device)?;
        check(&report)?;
        self.step_optimizer()?;
        self.network.check(&self.device)?;
        Ok(report.total / samples as f64)
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

    /// The epochs after those of the history, the first of which may have `begun` before.
    fn train_epochs(&mut self, run: &mut Run<'_, '_, '_>, mut begun: Option<Begun>) -> Result<()> {
        let done = run.history.loss.len();
        // Training that was stopped just there, or had no more epochs, has not looked yet.
        if begun.is_none() && done < run.epochs && run.has_waited(done) {
            run.history.outcome = Outcome::EarlyStopped;
            return Ok(());
        }
        for epoch in done + 1..=run.epochs {
            let begins = run.feed.begin(epoch).and_then(|()| {
                let begin = EpochBegin { epoch, epochs: run.epochs, batches: run.feed.batches() };
                run.callbacks.iter_mut().try_for_each(|callback| match &begun {
                    None => callback.on_epoch_begin(&begin, self),
                    Some(begun) => callback.on_epoch_resume(&begin, begun.batches),
                })
            });
            ranks::agree_if(run.ranks, begins)?;
            if let Some(ranks) = run.ranks {
                ranks::check_same(ranks, &[("learning rate", Training::learning_rate(self).to_bits())])?;
            }
            let trained = self.train_epoch(run, epoch, begun.take())?;
            self.check_weights(run, epoch, trained.map_or(0, |(_, batches)| batches))?;
            let Some((loss, batches)) = trained else {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            };
            if let Some(ranks) = run.ranks {
                for metric in run.metrics.iter_mut().flatten() {
                    let lists = ranks::gather_lists(ranks, &metric.numbers())?;
                    metric.reset();
                    lists.iter().for_each(|numbers| metric.merge(numbers));
                }
            }
            let mut metrics = results(&run.metrics, "");
            let mut val_loss = match &mut run.validation {
                None => None,
                Some(data) => {
                    if run.feed.is_open() {
                        data.choose_batch_size(self)?;
                    }
                    let loss = mean_loss(self, data, epoch, &mut run.metrics);
                    let loss = ranks::agree_if(run.ranks, loss)?;
                    metrics.extend(results(&run.metrics, "val_"));
                    Some(loss)
                }
            };
            if let Some(ranks) = run.ranks {
                // Where processors differ in last bits, all go by the figures of one.
                let figures = val_loss.iter_mut().chain(metrics.iter_mut().map(|(_, value)| value));
                ranks::take_from_first(ranks, figures)?;
            }
            if let Some(val_loss) = val_loss.filter(|loss| !loss.is_finite()) {
                return Err(Error::Diverged {
                    epoch,
                    batch: batches,
                    what: format!("the validation loss is {val_loss}"),
                });
            }
            let score = run.monitor.score(loss, val_loss, &metrics);
            run.history.loss.push(loss);
            run.history.learning_rate.push(Training::learning_rate(self));
            run.history.val_loss.extend(val_loss);
            for (name, value) in &metrics {
                match run.history.metrics.iter_mut().find(|(known, _)| known == name) {
                    Some((_, values)) => values.push(*value),
                    None => run.history.metrics.push((name.clone(), vec![*value])),
                }
            }
            let min_delta = run.early_stopping.map_or(0.0, |e| e.min_delta);
            let best = score > run.best_score + min_delta;
            if best {
                run.best_score = score;
                self.device.copy(self.network.parameters.get(), run.best.view_mut())?;
                self.device.copy(self.network.statistics.get(), run.best_statistics.view_mut())?;
                run.history.best_epoch = Some(epoch);
            }
            let state = EpochEnd { epoch, epochs: run.epochs, loss, val_loss, metrics, score, best };
            let mut stop = false;
            let ended = run.callbacks.iter_mut().try_for_each(|callback| {
                stop |= callback.on_epoch_end(&state, self)?.is_break();
                Ok(())
            });
            ranks::agree_if(run.ranks, ended)?;
            if let Some(ranks) = run.ranks {
                stop = ranks::sum(ranks, f64::from(stop))? != 0.0;
            }
            if stop {
                run.history.outcome = Outcome::Interrupted;
                return self.back_up(run, None, false);
            }
            if epoch < run.epochs && run.has_waited(epoch) {
                run.history.outcome = Outcome::EarlyStopped;
                return Ok(());
            }
            if epoch < run.epochs && run.backup.as_ref().is_some_and(|backup| backup.is_due_after_epoch(epoch)) {
                self.back_up(run, None, false)?;
            }
        }
        Ok(())
    }

    /// One pass over the data, or the rest of one that had `begun`; the mean loss and the number of batches, or `None` where a callback stopped
    /// it.
    fn train_epoch(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        epoch: usize,
        begun: Option<Begun>,
    ) -> Result<Option<(f64, usize)>> {
        run.epoch_number = self.epochs_trained;
        run.feed.shuffle(&self.device, self.seed, self.epochs_trained)?;
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.status.clear(&self.device)?;
        run.metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
        let batches = run.feed.batches();
        let (mut batch, mut looked, mut seen, mut loss) = (0, 0, 0usize, 0.0);
        if let Some(begun) = begun {
            self.go_on(run, &begun)?;
            (batch, looked, seen, loss) = (begun.batches, begun.looked, begun.samples, begun.loss.0);
        }
        while let Some(size) = self.next_batch(run)? {
            batch += 1;
            self.train_batch(run, epoch, batch, size)?;
            seen += size;
            if self.status.is_on_host() || (batch - 1).is_multiple_of(run.loss_every) || batch == batches {
                (loss, looked) = (self.mean_so_far(run, epoch, seen)?, batch);
            }
            let state = BatchEnd { epoch, batch, batches, loss, accumulators: &run.metrics };
            let mut stop = false;
            for callback in &mut run.callbacks {
                stop |= callback.on_batch_end(&state).is_break();
            }
            if let Some(ranks) = run.ranks {
                stop = ranks::sum(ranks, f64::from(stop))? != 0.0;
            }
            if run.backup.as_mut().is_some_and(|backup| backup.is_due_after_batch() || stop) {
                // What has diverged is no state to go on from, and a device has not told yet. Weights that the last step has made infinite tell of
                // it in the next batch, or after this one where training stops.
                self.look(run, epoch)?;
                if self.are_weights_finite(run)? {
                    let begun = self.begun(&run.metrics, (batch, seen), (looked, loss))?;
                    self.back_up(run, Some(begun), false)?;
                }
            }
            if stop {
                return Ok(None);
            }
        }
        // Which batch is the last is not always known before.
        if looked != batch {
            loss = self.mean_so_far(run, epoch, seen)?;
        }
        Ok(Some((loss, batch)))
    }

    /// Refuses weights that the last step has made infinite, which no further loss would tell of.
    fn check_weights(&mut self, run: &mut Run<'_, '_, '_>, epoch: usize, batch: usize) -> Result<()> {
        if self.are_weights_finite(run)? {
            return Ok(());
        }
        Err(Error::Diverged { epoch, batch, what: "a weight is NaN or infinite".to_owned() })
    }

    fn are_weights_finite(&self, run: &mut Run<'_, '_, '_>) -> Result<bool> {
        let Model { device, network, .. } = self;
        run.finite.clear(device)?;
        for weights in [network.parameters.get(), network.statistics.get()] {
            device.check_finite(weights, 1, run.finite.get_mut())?;
        }
        Ok(run.finite.read(device)?.bad_gradient.is_none())
    }

    /// Goes on to the next batch, of which all ranks have the same; its samples.
    fn next_batch(&mut self, run: &mut Run<'_, '_, '_>) -> Result<Option<usize>> {
        let next = run.feed.next(self);
        let Some(ranks) = run.ranks.filter(|_| run.feed.is_open()) else { return next };
        let next = ranks::agree(ranks, next)?;
        ranks::check_same(ranks, &[("samples of a batch", next.unwrap_or(0) as u64)])?;
        Ok(next)
    }

    /// The mean loss of the samples of all ranks so far.
    fn mean_so_far(&self, run: &Run<'_, '_, '_>, epoch: usize, samples: usize) -> Result<f64> {
        let report = self.look(run, epoch);
        let total = match run.ranks {
            None => report?.total,
            Some(ranks) => ranks::sum(ranks, ranks::agree(ranks, report)?.total)?,
        };
        Ok(total / samples as f64)
    }

    /// Waits for the batches so far, and says how they went.
    fn look(&self, run: &Run<'_, '_, '_>, epoch: usize) -> Result<Report> {
        let report = self.status.read(&self.device)?;
        self.check_operations()?;
        diverged(run, epoch, &report, self.status.is_on_host())?;
        Ok(report)
    }

    /// Gradients of some samples of the batch at hand. Its code in the status is its number.
    fn differentiate_batch(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        epoch: usize,
        batch: usize,
        samples: Range<usize>,
    ) -> Result<()> {
        let (code, size) = (code_of(batch), samples.len());
        if run.feed.is_open() {
            self.allocate(size, true)?;
        }
        let weighted = run.feed.place(self, samples, code)?;
        // Other masks of dropout on every rank.
        let rank = run.ranks.map_or(0, |ranks| ranks.rank() as u64);
        let seed = self.step_seed() ^ rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.run_training(size, LossEntry { weight: size as f64, code }, weighted, seed, false)?;
        if self.status.is_on_host() {
            diverged(run, epoch, &self.status.read(&self.device)?, true)?;
        }
        self.measure(size, weighted, &mut run.metrics)
    }

    /// One step on the `size` samples of the batch at hand, of all ranks together.
    fn train_batch(&mut self, run: &mut Run<'_, '_, '_>, epoch: usize, batch: usize, size: usize) -> Result<()> {
        self.check_count()?;
        let done = match run.ranks {
            None => self.differentiate_batch(run, epoch, batch, 0..size),
            Some(ranks) => {
                let bound = |rank: usize| size * rank / ranks.count();
                let own = bound(ranks.rank())..bound(ranks.rank() + 1);
                let done = match own.len() {
                    // Gradients of none count nothing, but have their place.
                    0 if run.feed.is_open() => self.allocate(1, true),
                    0 => Ok(()),
                    _ => self.differentiate_batch(run, epoch, batch, own.clone()),
                };
                let (device, network) = (&self.device, &mut self.network);
                ranks::agree(ranks, done).and_then(|()| {
                    let share = own.len() as f64 / size as f64;
                    ranks::average(ranks, device, share, network.gradients.get_mut())?;
                    ranks::average(ranks, device, share, network.statistics.get_mut())
                })
            }
        };
        self.batches_trained += 1;
        done?;
        let (code, on_host) = (code_of(batch), self.status.is_on_host());
        let Model { device, network, status, workspace, loss_scale, .. } = &mut *self;
        if let (Some(scale), Some(overflow)) = (loss_scale, &mut run.overflow) {
            // What a step does next depends on it: a device is waited for.
            overflow.clear(device)?;
            device.check_finite(network.gradients.get(), code, overflow.get_mut())?;
            if overflow.read(device)?.bad_gradient.is_none() {
                scale.grow();
            } else if scale.shrink() {
                return Ok(());
            }
        }
        device.check_finite(network.gradients.get(), code, status.get_mut())?;
        if on_host {
            diverged(run, epoch, &status.read(device)?, true)?;
        }
        match run.clip {
            None => {}
            Some(Clip::Value(most)) => device.clip_by_value(most, network.gradients.get_mut())?,
            Some(Clip::Norm(most)) => {
                device.sum_of_squares(network.gradients.get(), run.norm.view_mut(), workspace.all()?)?;
                device.clip_by_norm(most, run.norm.view(), network.gradients.get_mut())?;
            }
        }
        self.step_optimizer()
    }

    /// Changes the weights by the gradients that are there.
    fn step_optimizer(&mut self) -> Result<()> {
        let Model { device, network, optimizer, states, steps, schedule, .. } = self;
        if let Some(schedule) = schedule {
            optimizer.set_learning_rate(of_schedule(schedule, *steps))?;
        }
        *steps += 1;
        optimizer.update(device, *steps, network.parameters.get_mut(), network.gradients.get(), states)?;
        self.constrain()
    }
}

/// The error of a status that tells of a loss or gradient that is not finite.
fn diverged(run: &Run<'_, '_, '_>, epoch: usize, report: &Report, on_host: bool) -> Result<()> {
    let Some((batch, quantity)) = divergence(report) else { return Ok(()) };
    Err(diverged_at((epoch, batch), quantity, report, on_host, run.feed.bad_sample(batch)))
}

/// The first batch whose loss or gradient is not finite, by its code in the status, and which of the two it is.
fn divergence(report: &Report) -> Option<(usize, &'static str)> {
    // In a batch the loss comes first.
    let (batch, quantity) = match (report.bad_loss, report.bad_gradient) {
        (Some(loss), Some(gradient)) if gradient < loss => (gradient, "gradient"),
        (Some(loss), _) => (loss, "loss"),
        (None, Some(gradient)) => (gradient, "gradient"),
        (None, None) => return None,
    };
    Some((batch as usize, quantity))
}

/// A batch's code in the status.
fn code_of(batch: usize) -> u32 {
    u32::try_from(batch).unwrap_or(u32::MAX)
}

/// The error of a batch of an epoch, with its cause where that is known.
fn diverged_at(
    (epoch, batch): (usize, usize),
    quantity: &str,
    report: &Report,
    on_host: bool,
    cause: Option<String>,
) -> Error {
    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let value = match quantity {
        // A device does not say which of the two a gradient was.
        "gradient" if !on_host => "NaN or infinite".to_owned(),
        _ => report.bad_value.to_string(),
    };
    Error::Diverged { epoch, batch, what: format!("the {quantity} is {value}{cause}") }
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
