//! What happens beside training: [`Callback`], and those of this crate.

use std::fmt::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use ndarray::{ArrayD, ArrayViewD};

use crate::error::{Error, Result};
use crate::figures::shortest;
use crate::files;
use crate::metrics::MetricAccumulator;
use crate::model::{History, Model};

/// Stops training when what is [monitored](crate::model::FitOptions::monitor), usually the validation loss, gets no better: Keras's
/// [`EarlyStopping`](https://keras.io/api/callbacks/early_stopping/).
///
/// ```
/// use fused_rnn::model::{EarlyStopping, FitOptions};
/// let options = FitOptions {
///     epochs: 200,
///     validation_split: 0.2,
///     monitor: Some("val_loss"),
///     early_stopping: Some(EarlyStopping::new(10).restore_best_weights(true)),
///     ..FitOptions::default()
/// };
/// ```
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EarlyStopping {
    /// Epochs without improvement after which training stops.
    pub patience: usize,
    /// A change by no more than this is no improvement; a finite number, not below zero.
    pub min_delta: f64,
    /// Whether the model ends with the weights of its best epoch, however training ends, rather than of its last.
    pub restore_best_weights: bool,
}

impl EarlyStopping {
    /// After so many epochs without improvement; the model stays as the last one left it, as in Keras unless told otherwise.
    pub fn new(patience: usize) -> Self {
        EarlyStopping { patience, min_delta: 0.0, restore_best_weights: false }
    }

    /// Sets whether the model ends with the weights of its best epoch.
    #[must_use]
    pub fn restore_best_weights(self, restore_best_weights: bool) -> Self {
        EarlyStopping { restore_best_weights, ..self }
    }
}

/// Refuses a smallest improvement by which every epoch, or none, would be one.
pub(super) fn check_delta(option: &str, min_delta: f64) -> Result<()> {
    match min_delta.is_finite() && min_delta >= 0.0 {
        true => Ok(()),
        false => Err(Error::option(option, "a finite number, not below zero", min_delta)),
    }
}

/// The state of training before an epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EpochBegin {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Most epochs there will be.
    pub epochs: usize,
    /// Batches of an epoch; 0 where that is not known yet, as of an iterator that does not say how long it is.
    pub batches: usize,
}

/// The state of training after a batch.
#[derive(Clone, Copy, Debug)]
pub struct BatchEnd<'a> {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Batch within the epoch, counted from 1.
    pub batch: usize,
    /// Batches of an epoch; 0 where that is not known yet.
    pub batches: usize,
    /// Mean loss of the epoch's samples so far; on a device, as of the last look at it (see [`FitOptions::loss_every`](crate::model::FitOptions::loss_every)).
    pub loss: f64,
    pub(super) accumulators: &'a [Vec<MetricAccumulator>],
}

impl BatchEnd<'_> {
    /// The metrics of the epoch's samples so far, each taken when its batch was trained on. They are computed when they are asked for.
    pub fn metrics(&self) -> impl Iterator<Item = (String, f64)> + '_ {
        self.accumulators.iter().flatten().map(|metric| (metric.name(), metric.result()))
    }
}

/// The state of training after an epoch.
#[derive(Clone, Debug, PartialEq)]
pub struct EpochEnd {
    /// Epoch, counted from 1.
    pub epoch: usize,
    /// Most epochs there will be.
    pub epochs: usize,
    /// Mean loss of the epoch's samples, each taken when its batch was trained on.
    pub loss: f64,
    /// Loss of the validation data after the epoch.
    pub val_loss: Option<f64>,
    /// Metrics of the training data, each taken when its batch was trained on, then those of the validation data, whose names start with
    /// `val_`.
    pub metrics: Vec<(String, f64)>,
    /// What is [monitored](crate::model::FitOptions::monitor), with its sign changed where less is better: of two epochs the better one has
    /// the greater score.
    pub score: f64,
    /// Whether this is the best epoch so far.
    pub best: bool,
}

/// What a [`Callback`] can do about training.
pub trait Training {
    /// The learning rate of the last step; before the first that of the optimizer, or of the schedule.
    fn learning_rate(&self) -> f64;

    /// Sets it, for the steps to come. Zero counts as the smallest number above it.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a rate that is not finite or below zero, and, as in Keras, where the model has a
    /// [schedule](crate::model::Model::schedule), which sets the rate before every step.
    fn set_learning_rate(&mut self, rate: f64) -> Result<()>;

    /// Writes the model as it is now, see [`Model::save`](crate::model::Model::save).
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::Unsupported`] for a layer that is none of this crate's.
    fn save(&mut self, path: &Path) -> Result<()>;

    /// The model as it is now, to be read: its [weights](crate::model::Model::weights), its [summary](crate::model::Model::summary). On a device
    /// its weights are fetched, which waits for the steps given so far.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    fn model(&mut self) -> Result<&Model>;

    /// What the model says now of inputs `[samples, input shape…]`, one array for each input; one array for each output. As in Keras, states that
    /// [stateful](crate::nn::Lstm) layers carry go on with these inputs.
    ///
    /// # Errors
    ///
    /// Those of [`Model::predict_all`](crate::model::Model::predict_all).
    fn predict(&mut self, x: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>>;
}

/// A callback: receives the progress of training, and may stop it by [`ControlFlow::Break`]. An error ends training, and [`Model::fit`](crate::model::Model::fit) with it.
///
/// ```
/// use std::ops::ControlFlow;
/// use fused_rnn::Result;
/// use fused_rnn::model::{Callback, EpochEnd, FitOptions, Training};
///
/// /// Stops as soon as the loss is small.
/// struct GoodEnough(f64);
///
/// impl Callback for GoodEnough {
///     fn on_epoch_end(&mut self, state: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
///         println!("epoch {}: loss {}, learning rate {}", state.epoch, state.loss, training.learning_rate());
///         Ok(if state.loss < self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
///     }
/// }
///
/// let mut good_enough = GoodEnough(0.01);
/// let options = FitOptions { epochs: 100, callbacks: vec![&mut good_enough], ..FitOptions::default() };
/// ```
///
/// What a model says after each epoch, as text is often shown that it makes:
///
/// ```
/// use std::ops::ControlFlow;
/// use fused_rnn::model::{Callback, EpochEnd, FitOptions, Sequential, Training};
/// use fused_rnn::{Device, Result, nn::Dense};
/// use ndarray::{Array2, array};
///
/// struct Watch {
///     x: Array2<f32>,
///     said: Vec<f32>,
/// }
///
/// impl Callback for Watch {
///     fn on_epoch_end(&mut self, _: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
///         let y = training.predict(&[self.x.view().into_dyn()])?;
///         self.said.push(y[0][[0, 0]]);
///         Ok(ControlFlow::Continue(()))
///     }
/// }
///
/// let mut model = Sequential::new(Device::cpu(), &[1], 1)?;
/// model.add(Dense::new(1))?;
/// let mut watch = Watch { x: array![[4.0]], said: Vec::new() };
/// let (x, y) = (array![[0.0f32], [1.0], [2.0], [3.0]], array![[1.0f32], [3.0], [5.0], [7.0]]);
/// model.fit(&x, &y, FitOptions { epochs: 3, callbacks: vec![&mut watch], ..FitOptions::default() })?;
/// assert_eq!(watch.said[2], model.predict(&watch.x)?[[0, 0]]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub trait Callback {
    /// Before the first epoch of a training, or the first that goes on from a checkpoint.
    ///
    /// # Errors
    ///
    /// Whatever ends training.
    fn on_train_begin(&mut self, _training: &mut dyn Training) -> Result<()> {
        Ok(())
    }

    /// After a training that no error ended, also one that was stopped, when the model has the weights that it keeps.
    ///
    /// # Errors
    ///
    /// Whatever shall be the result of the training; the model stays as it is.
    fn on_train_end(&mut self, _history: &History, _training: &mut dyn Training) -> Result<()> {
        Ok(())
    }

    /// Before each epoch.
    ///
    /// # Errors
    ///
    /// Whatever ends training.
    fn on_epoch_begin(&mut self, _state: &EpochBegin, _training: &mut dyn Training) -> Result<()> {
        Ok(())
    }

    /// After every batch. Called often: keep it short.
    fn on_batch_end(&mut self, _state: &BatchEnd<'_>) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// After every epoch.
    ///
    /// # Errors
    ///
    /// Whatever ends training.
    fn on_epoch_end(&mut self, _state: &EpochEnd, _training: &mut dyn Training) -> Result<ControlFlow<()>> {
        Ok(ControlFlow::Continue(()))
    }

    /// What it must remember for training to go on from a [checkpoint](crate::model::BackupAndRestore), in a form of its own; none.
    fn state(&self) -> Option<String> {
        None
    }

    /// Takes what [`state`](Self::state) told when the checkpoint was written, before training goes on.
    ///
    /// # Errors
    ///
    /// Whatever is wrong with it, such as [`Error::InvalidOption`]; training does not go on then.
    fn set_state(&mut self, _state: &str) -> Result<()> {
        Ok(())
    }

    /// Instead of [`on_epoch_begin`](Self::on_epoch_begin), where training goes on in the middle of an epoch, after so many of its batches.
    ///
    /// # Errors
    ///
    /// Whatever ends training.
    fn on_epoch_resume(&mut self, _state: &EpochBegin, _batches_done: usize) -> Result<()> {
        Ok(())
    }
}

/// Refuses a state that is none of a callback's own.
fn foreign_state(callback: &str, state: &str) -> Error {
    Error::option(format!("state of {callback}"), "what it told when the checkpoint was written", format!("{state:?}"))
}

/// Writes the model after every epoch, or only after the best so far: Keras's
/// [`ModelCheckpoint`](https://keras.io/api/callbacks/model_checkpoint/). The file is replaced whole; training can go on from it, see
/// [`Model::save`](crate::model::Model::save).
///
/// ```
/// use fused_rnn::model::{Checkpoint, FitOptions, Model, Sequential};
/// use fused_rnn::{Device, nn::Dense};
/// use ndarray::array;
///
/// # let folder = tempfile::tempdir().unwrap();
/// # let path = folder.path().join("best.safetensors");
/// let mut model = Sequential::new(Device::cpu(), &[1], 1)?;
/// model.add(Dense::new(1))?;
/// let (x, y) = (array![[0.0f32], [1.0], [2.0], [3.0]], array![[1.0f32], [3.0], [5.0], [7.0]]);
/// let mut checkpoint = Checkpoint::new(&path).best_only(true);
/// model.fit(&x, &y, FitOptions { epochs: 5, callbacks: vec![&mut checkpoint], ..FitOptions::default() })?;
/// let mut best = Model::load(Device::cpu(), &path)?; // and goes on training where it was
/// best.fit(&x, &y, FitOptions { epochs: 5, ..FitOptions::default() })?;
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Checkpoint {
    path: PathBuf,
    best_only: bool,
}

impl Checkpoint {
    /// After every epoch to this file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Checkpoint { path: path.into(), best_only: false }
    }

    /// Sets whether only the best epochs are written.
    #[must_use]
    pub fn best_only(self, best_only: bool) -> Self {
        Checkpoint { best_only, ..self }
    }
}

impl Callback for Checkpoint {
    fn on_epoch_end(&mut self, state: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        if state.best || !self.best_only {
            training.save(&self.path)?;
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// Sets the learning rate before each epoch (for one that changes with every step, see [`Model::schedule`](crate::model::Model::schedule)) by a function of the epoch, counted from 1, and of the rate so far: Keras's
/// [`LearningRateScheduler`](https://keras.io/api/callbacks/learning_rate_scheduler/), whose epochs count from 0.
///
/// ```
/// use fused_rnn::model::{FitOptions, LearningRateSchedule};
/// let mut schedule = LearningRateSchedule::new(|epoch, rate| if epoch <= 10 { rate } else { rate * 0.9 });
/// let options = FitOptions { epochs: 30, callbacks: vec![&mut schedule], ..FitOptions::default() };
/// ```
pub struct LearningRateSchedule<F> {
    schedule: F,
}

impl<F: FnMut(usize, f64) -> f64> LearningRateSchedule<F> {
    /// The rate of an epoch by `schedule(epoch, rate)`.
    pub fn new(schedule: F) -> Self {
        LearningRateSchedule { schedule }
    }
}

impl<F: FnMut(usize, f64) -> f64> Callback for LearningRateSchedule<F> {
    fn on_epoch_begin(&mut self, state: &EpochBegin, training: &mut dyn Training) -> Result<()> {
        let rate = (self.schedule)(state.epoch, training.learning_rate());
        training.set_learning_rate(rate)
    }
}

/// Lowers the learning rate when what is [monitored](crate::model::FitOptions::monitor), usually the validation loss, gets no better: Keras's
/// [`ReduceLROnPlateau`](https://keras.io/api/callbacks/reduce_lr_on_plateau/) with its defaults.
///
/// ```
/// use fused_rnn::model::{FitOptions, ReduceLearningRate};
/// let mut plateau = ReduceLearningRate::new(0.5, 3)?;
/// plateau.min_rate = 1e-5;
/// let options = FitOptions { epochs: 100, validation_split: 0.2, callbacks: vec![&mut plateau], ..FitOptions::default() };
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct ReduceLearningRate {
    /// What the rate is multiplied with; 0.1.
    pub factor: f64,
    /// Epochs without improvement after which it is; 10.
    pub patience: usize,
    /// A change by no more than this is no improvement; 0.0001.
    pub min_delta: f64,
    /// Epochs after that in which none are counted; 0.
    pub cooldown: usize,
    /// The lowest rate; 0.
    pub min_rate: f64,
    best_score: f64,
    waited: usize,
    cooling: usize,
}

impl Default for ReduceLearningRate {
    fn default() -> Self {
        ReduceLearningRate {
            factor: 0.1,
            patience: 10,
            min_delta: 1e-4,
            cooldown: 0,
            min_rate: 0.0,
            best_score: f64::NEG_INFINITY,
            waited: 0,
            cooling: 0,
        }
    }
}

impl ReduceLearningRate {
    /// Multiplies the rate with `factor` after `patience` epochs without improvement.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a factor that is not above 0 and below 1.
    pub fn new(factor: f64, patience: usize) -> Result<Self> {
        let reduce = ReduceLearningRate { factor, patience, ..Self::default() };
        reduce.check()?;
        Ok(reduce)
    }

    /// Refuses what the fields, which are open, cannot be.
    fn check(&self) -> Result<()> {
        if !(self.factor > 0.0 && self.factor < 1.0) {
            return Err(Error::option("factor", "above 0 and below 1", self.factor));
        }
        check_delta("min_delta of ReduceLearningRate", self.min_delta)?;
        if !(self.min_rate.is_finite() && self.min_rate >= 0.0) {
            return Err(Error::option("min_rate", "a finite number, not below zero", self.min_rate));
        }
        Ok(())
    }
}

impl Callback for ReduceLearningRate {
    fn on_epoch_begin(&mut self, state: &EpochBegin, training: &mut dyn Training) -> Result<()> {
        // What cannot be is known before anything is trained, not epochs later.
        self.check()?;
        if state.epoch == 1 { training.set_learning_rate(training.learning_rate()) } else { Ok(()) }
    }

    fn on_epoch_end(&mut self, state: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        if self.cooling > 0 {
            self.cooling -= 1;
            self.waited = 0;
        }
        if state.score > self.best_score + self.min_delta {
            self.best_score = state.score;
            self.waited = 0;
        } else if self.cooling == 0 {
            self.waited += 1;
            let rate = training.learning_rate();
            if self.waited >= self.patience && rate > self.min_rate {
                training.set_learning_rate((rate * self.factor).max(self.min_rate))?;
                self.cooling = self.cooldown;
                self.waited = 0;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    fn state(&self) -> Option<String> {
        // By its bits, for it may be infinite.
        Some(format!("{} {} {}", self.best_score.to_bits(), self.waited, self.cooling))
    }

    fn set_state(&mut self, state: &str) -> Result<()> {
        let numbers: Vec<u64> = state.split(' ').filter_map(|number| number.parse().ok()).collect();
        let [best_score, waited, cooling] = numbers[..] else {
            return Err(foreign_state("ReduceLearningRate", state));
        };
        let count = |number: u64| usize::try_from(number).map_err(|_| foreign_state("ReduceLearningRate", state));
        (self.best_score, self.waited, self.cooling) = (f64::from_bits(best_score), count(waited)?, count(cooling)?);
        Ok(())
    }
}

/// Writes the loss, the metrics and the rate of the last step of every epoch to a CSV file: Keras's [`CSVLogger`](https://keras.io/api/callbacks/csv_logger/). The file
/// is replaced whole after each epoch, so that it is never half written.
///
/// ```
/// use fused_rnn::model::{CsvLog, FitOptions};
/// let mut log = CsvLog::new("training.csv"); // epoch,loss,val_loss,…
/// let options = FitOptions { epochs: 10, validation_split: 0.2, callbacks: vec![&mut log], ..FitOptions::default() };
/// ```
#[derive(Clone, Debug)]
pub struct CsvLog {
    path: PathBuf,
    text: String,
}

impl CsvLog {
    /// To this file, replacing it.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        CsvLog { path: path.into(), text: String::new() }
    }
}

impl Callback for CsvLog {
    fn on_epoch_end(&mut self, state: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        let mut columns = vec![("loss".to_owned(), state.loss)];
        columns.extend(state.val_loss.map(|loss| ("val_loss".to_owned(), loss)));
        columns.extend(state.metrics.iter().cloned());
        columns.push(("learning_rate".to_owned(), training.learning_rate()));
        // Writing to a String cannot fail.
        if self.text.is_empty() {
            let names: Vec<_> = columns.iter().map(|(name, _)| name.as_str()).collect();
            let _ = writeln!(self.text, "epoch,{}", names.join(","));
        }
        let values: Vec<_> = columns.iter().map(|(_, value)| shortest(*value)).collect();
        let _ = writeln!(self.text, "{},{}", state.epoch, values.join(","));
        files::write_atomic(&self.path, self.text.as_bytes())?;
        Ok(ControlFlow::Continue(()))
    }

    fn state(&self) -> Option<String> {
        Some(self.text.clone())
    }

    fn set_state(&mut self, state: &str) -> Result<()> {
        state.clone_into(&mut self.text);
        Ok(())
    }
}
