//! Training that outlives its process: [`BackupAndRestore`].
//!
//! | file | what |
//! |---|---|
//! | this | what is asked for, and when a checkpoint is due |
//! | `settings` | what must be the same for training to go on with the same bits |
//! | `position` | where training stands, and the checkpoint's format |
//! | `run` | from a training to a checkpoint, and back |

mod position;
mod run;
mod settings;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::error::{Error, Result};
use crate::files;
use crate::model::fingerprint::Fingerprint;

pub(super) use position::Begun;
pub(super) use run::{Taken, other_data};
pub(super) use settings::Settings;

/// How often a [`BackupAndRestore`] writes its checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaveFrequency {
    /// After every so many epochs: Keras's `save_freq="epoch"` is one.
    Epochs(usize),
    /// After every so many batches, in the middle of an epoch too: a number as Keras's `save_freq`.
    Batches(usize),
    /// After the first batch that ends so long after the last checkpoint, or after the beginning.
    Time(Duration),
}

/// Writes checkpoints of a training, and goes on from the last one where the training before did not end: Keras's
/// [`BackupAndRestore`](https://keras.io/api/callbacks/backup_and_restore/), in
/// [`FitOptions::backup`](crate::model::FitOptions::backup).
///
/// ```
/// use fused_rnn::model::{BackupAndRestore, FitOptions, SaveFrequency};
/// use std::time::Duration;
/// // Where a process with this was killed, the same program goes on at most a minute before that.
/// let backup = BackupAndRestore::new("training.safetensors").save_freq(SaveFrequency::Time(Duration::from_secs(60)));
/// let options = FitOptions { epochs: 100, backup: Some(backup), ..FitOptions::default() };
/// ```
///
/// What follows has the bits that an uninterrupted training has: weights, the optimizer's memory, dropout and the order of samples, states that
/// stateful layers carry, the best weights so far, early stopping, history, and what [callbacks](crate::model::Callback::state) remember. So the
/// model must be made and compiled as before, and trained with the same data and options; what differs is an error that names it. The number of
/// epochs alone may be another, not less than are done: as in Keras training goes on to that, with the bits of a training that had it from the
/// beginning. A [schedule](crate::model::Model::schedule) has steps of its own, which must be the same.
/// Not in the checkpoint is what only its owner knows: random numbers of one's own in an iterator of batches or a closure, which should come
/// from the number of the epoch, and the state of layers of one's own without [`Op::carried_states`](crate::nn::Op::carried_states), which is
/// refused.
///
/// A checkpoint is replaced whole, so that whenever the process ends there is a usable one. A callback that stops training has it written once more,
/// in the middle of an epoch too. It is removed when training ends by itself ([`delete_checkpoint`](Self::delete_checkpoint)), and stays after an error.
/// [`Ranks`](crate::model::Ranks) are refused: each would have states and masks of its own to keep, all of the same step.
#[derive(Clone, Debug)]
pub struct BackupAndRestore {
    path: PathBuf,
    save_freq: SaveFrequency,
    delete_checkpoint: bool,
    settings: Vec<(String, String)>,
    told: Option<fn(&Error)>,
}

impl BackupAndRestore {
    /// With this file, a checkpoint after every epoch.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        BackupAndRestore {
            path: path.into(),
            save_freq: SaveFrequency::Epochs(1),
            delete_checkpoint: true,
            settings: Vec::new(),
            told: None,
        }
    }

    /// The same with another file: for several trainings of one kind.
    #[must_use]
    pub fn at(self, path: impl Into<PathBuf>) -> Self {
        BackupAndRestore { path: path.into(), ..self }
    }

    /// Sets how often the checkpoint is written.
    #[must_use]
    pub fn save_freq(self, save_freq: SaveFrequency) -> Self {
        BackupAndRestore { save_freq, ..self }
    }

    /// Sets whether the checkpoint is removed when training ends by itself; yes. One that stays holds the end, and
    /// [`fit`](crate::model::Model::fit) with it gives the trained model and its history again at once, or goes on with more epochs.
    #[must_use]
    pub fn delete_checkpoint(self, delete_checkpoint: bool) -> Self {
        BackupAndRestore { delete_checkpoint, ..self }
    }

    /// Adds something else that must be the same for training to go on, under a name for errors: such as how data were prepared.
    #[must_use]
    pub fn setting(mut self, name: impl Into<String>, value: impl Display) -> Self {
        self.settings.push((name.into(), value.to_string()));
        self
    }

    /// The same of bytes, which are compared by a fingerprint: such as those of a data file.
    #[must_use]
    pub fn setting_of_bytes(self, name: impl Into<String>, bytes: &[u8]) -> Self {
        self.setting(name, settings::shown(bytes.len(), Fingerprint::of(bytes)))
    }

    /// Goes on with training where a checkpoint cannot be written, as for a full disk: `told` learns why, and the next one is tried when it is due.
    /// Otherwise such an error ends training.
    #[must_use]
    pub fn tolerate(self, told: fn(&Error)) -> Self {
        BackupAndRestore { told: Some(told), ..self }
    }

    /// Refuses what no training can go by.
    pub(super) fn check(&self) -> Result<()> {
        if let SaveFrequency::Epochs(0) | SaveFrequency::Batches(0) = self.save_freq {
            return Err(Error::ZeroSize { name: "save_freq" });
        }
        files::check_writable(&self.path)
    }
}

/// The checkpoint of a training in one call of `fit`, and when it is due.
pub(super) struct Backup {
    options: BackupAndRestore,
    settings: Settings,
    /// The learning rate that training began with, in this call or in an earlier one.
    first_rate: f64,
    last: Instant,
    /// Batches since the last.
    batches: usize,
}

impl Backup {
    /// For a training with these settings.
    pub fn new(options: BackupAndRestore, settings: Settings, first_rate: f64) -> Self {
        Backup { options, settings, first_rate, last: Instant::now(), batches: 0 }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.options.path
    }

    /// Whether it goes when training ends by itself.
    pub fn is_deleted_at_the_end(&self) -> bool {
        self.options.delete_checkpoint
    }

    /// Counts a batch; whether a checkpoint is due after it.
    pub fn is_due_after_batch(&mut self) -> bool {
        self.batches += 1;
        match self.options.save_freq {
            SaveFrequency::Epochs(_) => false,
            SaveFrequency::Batches(every) => self.batches >= every,
            SaveFrequency::Time(every) => self.last.elapsed() >= every,
        }
    }

    /// Whether a checkpoint is due after this epoch.
    pub fn is_due_after_epoch(&self, epoch: usize) -> bool {
        match self.options.save_freq {
            SaveFrequency::Epochs(every) => epoch.is_multiple_of(every),
            SaveFrequency::Batches(_) => false,
            SaveFrequency::Time(every) => self.last.elapsed() >= every,
        }
    }

    /// After the file was written, or could not be.
    fn written(&mut self, written: Result<()>) -> Result<()> {
        (self.last, self.batches) = (Instant::now(), 0);
        match (written, self.options.told) {
            (Err(error @ Error::Io { .. }), Some(told)) => {
                told(&error);
                Ok(())
            }
            (written, _) => written,
        }
    }

    /// Removes the file, where there is one.
    pub fn remove(&self) -> Result<()> {
        match std::fs::remove_file(self.path()) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                Err(Error::Io { action: "remove", path: self.path().to_owned(), source })
            }
            _ => Ok(()),
        }
    }
}
