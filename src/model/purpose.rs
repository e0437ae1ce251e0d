//! What a saved model is for: [`Purpose`], and [`Trained`], the model with it.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::error::Result;
use crate::model::{ForecastConfig, Forecaster, Model, SequenceConfig, SequenceModel, file};

/// What a model is for, with what is needed to use it on new data. It stands in the model's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Continuing a series.
    Forecast(ForecastConfig),
    /// Saying the class or a number of whole sequences, or the class of each row of a CSV file from those before it.
    Sequences(SequenceConfig),
}

/// A model from a file, as what it is for.
pub enum Trained {
    /// It continues a series.
    Forecaster(Forecaster),
    /// It says the class or a number of whole sequences.
    Sequences(SequenceModel),
    /// The file does not say what it is for: [`Model::save`] wrote it.
    Model(Model),
}

impl Trained {
    /// Reads a file that [`Model::save`], [`Forecaster::save`] or [`SequenceModel::save`] wrote. It is checked in every part before
    /// anything is allocated for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`](crate::Error::Io) where the file cannot be read; [`Error::Format`](crate::Error::Format) where it is no such model;
    /// [`Error::NonFinite`](crate::Error::NonFinite) for weights that are NaN or infinite;
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the device cannot do it or memory is short; all are listed at
    /// [`Model::load`].
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (model, task) = file::load(device, path)?;
        Ok(match task {
            Some(Purpose::Forecast(config)) => Trained::Forecaster(Forecaster::from_parts(model, config, path)?),
            Some(Purpose::Sequences(config)) => Trained::Sequences(SequenceModel::from_parts(model, config, path)?),
            None => Trained::Model(model),
        })
    }

    /// The model itself.
    pub fn model(&mut self) -> &mut Model {
        match self {
            Trained::Forecaster(forecaster) => forecaster.model(),
            Trained::Sequences(model) => model.model(),
            Trained::Model(model) => model,
        }
    }
}
