//! Training history: [`History`].

use serde::{Deserialize, Serialize};

#[cfg(feature = "plot")]
use crate::error::Result;

/// Why training ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// All epochs were trained.
    Finished,
    /// [`EarlyStopping`](crate::model::EarlyStopping) saw no improvement.
    EarlyStopped,
    /// A [`Callback`](crate::model::Callback) asked for it.
    Interrupted,
}

/// How training went. An epoch that was not completed is not in it.
///
/// ```
/// use fused_rnn::metrics::Metric;
/// use fused_rnn::model::{FitOptions, Sequential};
/// use fused_rnn::{Device, nn::Dense};
/// use ndarray::array;
///
/// let mut model = Sequential::new(Device::cpu(), &[1], 1)?;
/// model.add(Dense::new(1))?;
/// model.metrics(&[Metric::MeanAbsoluteError]);
/// let (x, y) = (array![[0.0f32], [1.0], [2.0], [3.0]], array![[1.0f32], [3.0], [5.0], [7.0]]);
/// let history = model.fit(&x, &y, FitOptions { epochs: 3, validation_split: 0.25, ..FitOptions::default() })?;
/// assert_eq!(history.loss.len(), 3);
/// assert_eq!(history.get("val_mean_absolute_error").map(<[f64]>::len), Some(3));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct History {
    /// Loss of each epoch.
    pub loss: Vec<f64>,
    /// Validation loss of each epoch; empty without validation data.
    pub val_loss: Vec<f64>,
    /// The metrics of each epoch by name, see [`EpochEnd::metrics`](crate::model::EpochEnd::metrics).
    pub metrics: Vec<(String, Vec<f64>)>,
    /// The learning rate of the last step of each epoch, whoever has set it.
    pub learning_rate: Vec<f64>,
    /// The best epoch, counted from 1: usually that with the lowest validation loss, see [`FitOptions::monitor`](crate::model::FitOptions::monitor);
    /// `None` if none was completed.
    pub best_epoch: Option<usize>,
    /// Why training ended.
    pub outcome: Outcome,
}

impl History {
    /// The values of each epoch by Keras's key: `loss`, `val_loss`, `accuracy`, `val_accuracy`, `learning_rate`, …
    pub fn get(&self, key: &str) -> Option<&[f64]> {
        match key {
            "loss" => Some(&self.loss),
            "learning_rate" => Some(&self.learning_rate),
            "val_loss" if !self.val_loss.is_empty() => Some(&self.val_loss),
            _ => self.metrics.iter().find(|(name, _)| name == key).map(|(_, values)| values.as_slice()),
        }
    }

    /// A picture of all quantities over the epochs, each with its validation beside it.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`](crate::Error::ZeroSize) without any value, [`Error::Shape`](crate::Error::Shape) where two quantities have
    /// different numbers of epochs, [`Error::InvalidOption`](crate::Error::InvalidOption) for a best epoch that there was not.
    #[cfg(feature = "plot")]
    pub fn plot(&self) -> Result<crate::plot::Panels> {
        let quantities: Vec<(&str, &[f64])> =
            self.keys().filter_map(|key| self.get(key).map(|values| (key, values))).collect();
        crate::plot::history(&quantities, self.best_epoch)
    }

    /// Keras's keys of losses and metrics that there are.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        let val_loss = (!self.val_loss.is_empty()).then_some("val_loss");
        ["loss"].into_iter().chain(val_loss).chain(self.metrics.iter().map(|(name, _)| name.as_str()))
    }
}
