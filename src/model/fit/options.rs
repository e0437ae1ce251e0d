//! How a model is trained: [`FitOptions`].

use crate::error::{Error, Result};
use crate::model::arrays::AnyArray;
use crate::model::backup::BackupAndRestore;
use crate::model::batch::Batches;
use crate::model::callbacks::{Callback, EarlyStopping, check_delta};
use crate::model::ranks::Ranks;
#[cfg(doc)]
use crate::model::{History, Model};

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
    pub(super) fn check(&self) -> Result<()> {
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
    pub(super) fn check_for_batches(&self) -> Result<()> {
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
