//! A model of a series with everything needed to continue it: [`Forecaster`].

use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, Array3, s};
use serde::{Deserialize, Serialize};

use crate::backend::DenseBackend;
use crate::data::{Gaps, Scaler, windows};
use crate::error::{Error, Result};
use crate::model::{Sequential, file};
use crate::nn::{Dense, LayerConfig};

/// How a series becomes samples, and a model's outputs values again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastConfig {
    /// The column of the data.
    pub column: String,
    /// What to do about its gaps.
    pub gaps: Gaps,
    /// Values that the model reads, the newest last.
    pub window: usize,
    /// Values that it gives at once, those that follow the window.
    pub horizon: usize,
    /// Whether it reads and gives differences of neighbouring values instead of the values, as suits a series with a trend.
    pub difference: bool,
    /// Scale of what it reads and gives.
    pub scaler: Scaler,
}

impl ForecastConfig {
    /// Values before the first that can be forecast.
    pub fn context(&self) -> usize {
        self.window.saturating_add(usize::from(self.difference))
    }

    /// Fits the scaler, by [`Scaler::standard`] or [`Scaler::min_max`], to the part of a series that the model may learn from.
    ///
    /// # Errors
    ///
    /// Those of `fit`.
    pub fn fit_scaler(&mut self, fit: impl Fn(&[f64]) -> Result<Scaler>, train: &[f64]) -> Result<()> {
        self.scaler = if self.difference { fit(&differences(train))? } else { fit(train)? };
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        for (name, size) in [("window", self.window), ("horizon", self.horizon)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        self.scaler.validate()
    }

    /// What the model reads and gives: the scaled values, or their scaled differences.
    fn scaled(&self, values: &[f64]) -> Vec<f32> {
        let scale = |v: &f64| self.scaler.transform(*v) as f32;
        if self.difference {
            differences(values).iter().map(scale).collect()
        } else {
            values.iter().map(scale).collect()
        }
    }
}

fn differences(values: &[f64]) -> Vec<f64> {
    values.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// A recurrent layer and a dense one on a window of a series, which together give the values that follow it.
pub struct Forecaster<B: DenseBackend<Elem = f32>> {
    config: ForecastConfig,
    model: Sequential<f32, B>,
}

/// Forecasts of values that are known, `[n, horizon]` each; row `i` starts at value `start + i` of the series.
#[derive(Clone, Debug, PartialEq)]
pub struct Backtest {
    /// The value that the first row starts at.
    pub start: usize,
    /// What came.
    pub truth: Array2<f64>,
    /// What the model says, each row from the window before it.
    pub forecast: Array2<f64>,
    /// What saying "as the last value" gives.
    pub naive: Array2<f64>,
}

impl<B: DenseBackend<Elem = f32> + 'static> Forecaster<B>
where
    B::Plan: 'static,
{
    /// A model not yet trained: `layer` on `[window, 1]`, then `Dense(horizon)`.
    ///
    /// # Errors
    ///
    /// Those of [`Sequential::add`], and of a configuration with a window or horizon of zero.
    pub fn new(backend: B, config: ForecastConfig, layer: impl Into<LayerConfig>, seed: u64) -> Result<Self> {
        config.validate()?;
        let mut model = Sequential::new(backend, &[config.window, 1], seed)?;
        model.add(layer)?.add(Dense::new(config.horizon))?;
        let forecaster = Forecaster { config, model };
        forecaster.check_shapes()?;
        Ok(forecaster)
    }

    /// How the series becomes samples.
    pub fn config(&self) -> &ForecastConfig {
        &self.config
    }

    /// The model itself, to train it.
    pub fn model(&mut self) -> &mut Sequential<f32, B> {
        &mut self.model
    }

    /// Windows of a series with what follows them: `x` `[n, window, 1]`, `y` `[n, horizon]`, scaled, of all windows whose `y` lies in
    /// the part `targets` of the series. What a window reads may lie before that part.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the series is too short for one.
    pub fn samples(&self, values: &[f64], targets: Range<usize>) -> Result<(Array3<f32>, Array2<f32>)> {
        let start = targets.start.max(self.config.context()).min(values.len());
        let end = targets.end.min(values.len());
        if end.saturating_sub(start) < self.config.horizon {
            return Err(Error::shape(
                "series",
                format!(
                    "at least {} values up to the end of the part with the targets (window {}{} + horizon {})",
                    start.max(self.config.context()).saturating_add(self.config.horizon),
                    self.config.window,
                    if self.config.difference { " + 1 to take differences" } else { "" },
                    self.config.horizon
                ),
                format!("{end} values"),
            ));
        }
        windows(
            &self.config.scaled(&values[start - self.config.context()..end]),
            self.config.window,
            self.config.horizon,
        )
    }

    /// Forecasts the part `targets` of a series from the values before each forecast.
    ///
    /// # Errors
    ///
    /// Those of [`samples`](Self::samples), and of the backend.
    pub fn backtest(&mut self, values: &[f64], targets: Range<usize>) -> Result<Backtest> {
        let (x, _) = self.samples(values, targets.clone())?;
        let outputs = self.model.predict(x.view())?;
        let start = targets.start.max(self.config.context());
        let shape = (x.shape()[0], self.config.horizon);
        let truth = Array2::from_shape_fn(shape, |(i, ahead)| values[start + i + ahead]);
        let naive = Array2::from_shape_fn(shape, |(i, _)| values[start + i - 1]);
        let mut forecast = Array2::zeros(shape);
        for (i, output) in outputs.outer_iter().enumerate() {
            let output: Vec<f32> = output.iter().copied().collect();
            let row = self.unscaled(&output, naive[[i, 0]]);
            forecast.slice_mut(s![i, ..]).iter_mut().zip(row).for_each(|(to, from)| *to = from);
        }
        Ok(Backtest { start, truth, forecast, naive })
    }

    /// The `steps` values that follow `history`. Those past the horizon are forecast from earlier forecasts.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the history is shorter than a window, [`Error::NonFinite`] where a forecast is NaN or infinite.
    pub fn forecast(&mut self, history: &[f64], steps: usize) -> Result<Vec<f64>> {
        let context = self.config.context();
        if history.len() < context {
            return Err(Error::shape(
                "series",
                format!("at least {context} values to forecast from"),
                format!("{} values", history.len()),
            ));
        }
        let mut values = history[history.len() - context..].to_vec();
        let mut ahead = Vec::new();
        while ahead.len() < steps {
            let scaled = self.config.scaled(&values);
            let x = Array3::from_shape_fn((1, self.config.window, 1), |(_, t, _)| scaled[t]);
            let output: Vec<f32> = self.model.predict(x.view())?.iter().copied().collect();
            for value in self.unscaled(&output, values[context - 1]) {
                if !value.is_finite() {
                    return Err(Error::NonFinite {
                        tensor: "forecast".to_owned(),
                        got: value,
                        position: format!("step {}", ahead.len() + 1),
                        help: "the series lies too far outside of what the model learned from".to_owned(),
                    });
                }
                values.push(value);
                ahead.push(value);
            }
            values.drain(..self.config.horizon);
        }
        ahead.truncate(steps);
        Ok(ahead)
    }

    /// Writes the model with its configuration, atomically. The same model gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        file::save(&self.model, Some(&self.config), path)
    }

    /// Reads what [`save`](Self::save) wrote. The file is checked in every part before anything is allocated for it.
    ///
    /// # Errors
    ///
    /// Those of [`Sequential::load`], and [`Error::Format`] where the file says nothing about a series or does not fit the model.
    pub fn load(backend: B, path: &Path) -> Result<Self> {
        let (model, config) = file::load(backend, path)?;
        let model = Sequential::from_model(model)?;
        let format_error = |problem: String| Error::Format { path: path.to_owned(), format: "model", problem };
        let config = config
            .ok_or_else(|| format_error("it holds a model, but not how to forecast a series with it".to_owned()))?;
        config.validate().map_err(|e| format_error(e.to_string()))?;
        let forecaster = Forecaster { config, model };
        forecaster.check_shapes().map_err(|e| format_error(e.to_string()))?;
        Ok(forecaster)
    }

    fn check_shapes(&self) -> Result<()> {
        let (window, horizon) = (self.config.window, self.config.horizon);
        if self.model.input_shape() != [window, 1] {
            return Err(Error::shape(
                "model input",
                format!("[window {window}, 1]"),
                format!("{:?}", self.model.input_shape()),
            ));
        }
        if self.model.output_shape() != [horizon] {
            return Err(Error::shape(
                "model output",
                format!("[horizon {horizon}]"),
                format!("{:?}", self.model.output_shape()),
            ));
        }
        Ok(())
    }

    /// The values that the model's outputs stand for, after a series that ended in `last`.
    fn unscaled(&self, output: &[f32], last: f64) -> Vec<f64> {
        let mut level = last;
        let value = |scaled: &f32| {
            let value = self.config.scaler.inverse(f64::from(*scaled));
            level += value;
            if self.config.difference { level } else { value }
        };
        output.iter().map(value).collect()
    }
}
