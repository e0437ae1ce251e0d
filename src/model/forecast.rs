//! A model of a series, of one column or several, with everything needed to continue it: [`Forecaster`].

use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, Axis, s};
use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::data::{CsvOptions, Gaps, Scaler};
use crate::error::{Error, Result};
use crate::model::{Model, Purpose, Sequential, file};
use crate::nn::{Dense, LayerConfig};

/// Values in time order, `[rows, columns]`: of one column as a slice, a vector or an array, of several as a matrix whose first column
/// is the one to forecast.
pub trait SeriesValues {
    /// The values.
    fn columns(&self) -> ArrayView2<'_, f64>;
}

impl SeriesValues for [f64] {
    fn columns(&self) -> ArrayView2<'_, f64> {
        ArrayView1::from(self).insert_axis(Axis(1))
    }
}

impl SeriesValues for Vec<f64> {
    fn columns(&self) -> ArrayView2<'_, f64> {
        self.as_slice().columns()
    }
}

impl<const LEN: usize> SeriesValues for [f64; LEN] {
    fn columns(&self) -> ArrayView2<'_, f64> {
        self.as_slice().columns()
    }
}

impl SeriesValues for Array2<f64> {
    fn columns(&self) -> ArrayView2<'_, f64> {
        self.view()
    }
}

impl SeriesValues for ArrayView2<'_, f64> {
    fn columns(&self) -> ArrayView2<'_, f64> {
        self.reborrow()
    }
}

/// How a series becomes samples, and a model's outputs values again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ForecastConfig {
    /// The column of the data that is forecast, and read.
    pub column: String,
    /// Columns that it reads beside that one, in this order; none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<InputColumn>,
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
    /// How the file with the column was read, and new ones are.
    #[serde(default, skip_serializing_if = "CsvOptions::is_default")]
    pub reading: CsvOptions,
}

/// A column that a model reads without forecasting it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputColumn {
    /// Its name.
    pub column: String,
    /// Whether the model reads differences of neighbouring values instead of the values.
    pub difference: bool,
    /// Scale of what it reads.
    pub scaler: Scaler,
}

impl InputColumn {
    /// A column, with its scaler fitted to the part that the model may learn from.
    ///
    /// # Errors
    ///
    /// What `fit` returns.
    pub fn fitted(
        column: impl Into<String>,
        difference: bool,
        fit: impl Fn(&[f64]) -> Result<Scaler>,
        train: &[f64],
    ) -> Result<Self> {
        Ok(InputColumn { column: column.into(), difference, scaler: fitted(difference, fit, train)? })
    }
}

fn fitted(difference: bool, fit: impl Fn(&[f64]) -> Result<Scaler>, train: &[f64]) -> Result<Scaler> {
    if difference { fit(&differences(train)) } else { fit(train) }
}

impl ForecastConfig {
    /// Values before the first that can be forecast.
    pub fn context(&self) -> usize {
        self.window.saturating_add(usize::from(self.reads_differences()))
    }

    /// Whether it needs one value more than a window for some column.
    fn reads_differences(&self) -> bool {
        self.difference || self.inputs.iter().any(|input| input.difference)
    }

    /// The columns that it reads, the one it forecasts first.
    pub fn columns(&self) -> Vec<&str> {
        std::iter::once(&self.column).chain(self.inputs.iter().map(|input| &input.column)).map(String::as_str).collect()
    }

    /// Fits the scaler of the column that is forecast, by [`Scaler::standard`] or [`Scaler::min_max`], to the part of it that the model
    /// may learn from.
    ///
    /// # Errors
    ///
    /// What `fit` returns.
    pub fn fit_scaler(&mut self, fit: impl Fn(&[f64]) -> Result<Scaler>, train: &[f64]) -> Result<()> {
        self.scaler = fitted(self.difference, fit, train)?;
        Ok(())
    }

    fn validate(&self) -> Result<()> {
        for (name, size) in [("window", self.window), ("horizon", self.horizon)] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        self.scaler.validate()?;
        self.inputs.iter().try_for_each(|input| input.scaler.validate())
    }

    /// Refuses values of another number of columns.
    fn check_columns(&self, values: ArrayView2<'_, f64>) -> Result<()> {
        let names = self.columns();
        if values.ncols() == names.len() {
            return Ok(());
        }
        Err(Error::shape(
            "series",
            format!("[rows, {}] (column {})", names.len(), names.join(", ")),
            format!("{:?}", values.shape()),
        ))
    }

    /// What the model reads, `[rows, columns]`: the scaled values, or their scaled differences. Where it reads any differences, that is
    /// one row less.
    fn scaled(&self, values: ArrayView2<'_, f64>) -> Array2<f32> {
        let first = usize::from(self.reads_differences());
        let of_inputs = self.inputs.iter().map(|input| (input.difference, &input.scaler));
        let columns: Vec<(bool, &Scaler)> = std::iter::once((self.difference, &self.scaler)).chain(of_inputs).collect();
        Array2::from_shape_fn((values.nrows().saturating_sub(first), columns.len()), |(row, column)| {
            let (difference, scaler) = columns[column];
            let value = values[[row + first, column]];
            let value = if difference { value - values[[row + first - 1, column]] } else { value };
            scaler.transform(value) as f32
        })
    }
}

fn differences(values: &[f64]) -> Vec<f64> {
    values.windows(2).map(|pair| pair[1] - pair[0]).collect()
}

/// A recurrent layer and a dense one on a window of a series, which together give the values that follow it.
pub struct Forecaster {
    config: ForecastConfig,
    model: Sequential,
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

impl Forecaster {
    /// A model not yet trained: `layer` on `[window, columns]`, then `Dense(horizon)`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a window or horizon of zero; [`Error::Shape`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for
    /// layers that do not fit each other or the configuration; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] where the GPU's driver fails.
    pub fn new(device: Device, config: ForecastConfig, layer: impl Into<LayerConfig>, seed: u64) -> Result<Self> {
        Self::with_layers(device, config, [layer.into()], seed)
    }

    /// The same with several layers below the `Dense(horizon)`.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a window or horizon of zero; [`Error::Shape`], [`Error::SizeOverflow`] and [`Error::InvalidOption`] for
    /// layers that do not fit each other or the configuration; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] where the GPU's driver fails.
    pub fn with_layers(
        device: Device,
        config: ForecastConfig,
        layers: impl IntoIterator<Item = LayerConfig>,
        seed: u64,
    ) -> Result<Self> {
        config.validate()?;
        let mut model = Sequential::new(device, &[config.window, config.columns().len()], seed)?;
        for layer in layers {
            model.add(layer)?;
        }
        model.add(Dense::new(config.horizon))?;
        let forecaster = Forecaster { config, model };
        forecaster.check_shapes()?;
        Ok(forecaster)
    }

    /// How the series becomes samples.
    pub fn config(&self) -> &ForecastConfig {
        &self.config
    }

    /// The model itself, to train it.
    pub fn model(&mut self) -> &mut Sequential {
        &mut self.model
    }

    /// Windows of a series with what follows them: `x` `[n, window, columns]`, `y` `[n, horizon]`, scaled, of all windows whose `y` lies
    /// in the part `targets` of the series. What a window reads may lie before that part.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the series is too short for one, or has other columns than the model reads.
    pub fn samples(
        &self,
        values: &(impl SeriesValues + ?Sized),
        targets: Range<usize>,
    ) -> Result<(Array3<f32>, Array2<f32>)> {
        let values = values.columns();
        self.config.check_columns(values)?;
        let start = targets.start.max(self.config.context()).min(values.nrows());
        let end = targets.end.min(values.nrows());
        if end.saturating_sub(start) < self.config.horizon {
            return Err(Error::shape(
                "series",
                format!(
                    "at least {} values up to the end of the part with the targets (window {}{} + horizon {})",
                    start.max(self.config.context()).saturating_add(self.config.horizon),
                    self.config.window,
                    if self.config.reads_differences() { " + 1 to take differences" } else { "" },
                    self.config.horizon
                ),
                format!("{end} values"),
            ));
        }
        let ForecastConfig { window, horizon, .. } = self.config;
        let scaled = self.config.scaled(values.slice(s![start - self.config.context()..end, ..]));
        let count = scaled.nrows() - window - horizon + 1;
        let x = Array3::from_shape_fn((count, window, scaled.ncols()), |(n, step, column)| scaled[[n + step, column]]);
        let y = Array2::from_shape_fn((count, horizon), |(n, ahead)| scaled[[n + window + ahead, 0]]);
        Ok((x, y))
    }

    /// Forecasts the part `targets` of a series from the values before each forecast.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the series is too short for a sample, or has other columns than the model reads; [`Error::Unsupported`] where
    /// the device cannot do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn backtest(&mut self, values: &(impl SeriesValues + ?Sized), targets: Range<usize>) -> Result<Backtest> {
        let (x, _) = self.samples(values, targets.clone())?;
        let values = values.columns();
        let values = values.column(0);
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
    /// [`Error::Shape`] where the history is shorter than a window, or has other columns than the model reads;
    /// [`Error::InvalidOption`] for more steps than the horizon where it reads several columns, since only one is forecast;
    /// [`Error::NonFinite`] where a forecast is NaN or infinite.
    pub fn forecast(&mut self, history: &(impl SeriesValues + ?Sized), steps: usize) -> Result<Vec<f64>> {
        let context = self.config.context();
        let history = history.columns();
        self.config.check_columns(history)?;
        if history.nrows() < context {
            return Err(Error::shape(
                "series",
                format!("at least {context} values to forecast from"),
                format!("{} values", history.nrows()),
            ));
        }
        if !self.config.inputs.is_empty() && steps > self.config.horizon {
            let expected = format!(
                "at most the model's horizon {}, for it reads other columns too, whose future it does not forecast; train it with a \
                 larger one",
                self.config.horizon
            );
            return Err(Error::option("horizon", expected, steps));
        }
        let known = history.slice(s![history.nrows() - context.., ..]);
        let mut values = known.column(0).to_vec();
        let mut ahead = Vec::new();
        while ahead.len() < steps {
            let scaled = if self.config.inputs.is_empty() {
                self.config.scaled(values.columns())
            } else {
                self.config.scaled(known)
            };
            let output: Vec<f32> = self.model.predict(scaled.insert_axis(Axis(0)).view())?.iter().copied().collect();
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
        file::save(&self.model, Some(&Purpose::Forecast(self.config.clone())), path)
    }

    /// Reads what [`save`](Self::save) wrote. The file is checked in every part before anything is allocated for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is no model that forecasts a series; [`Error::Unsupported`]
    /// for several inputs or outputs; [`Error::NonFinite`] for weights that are NaN or infinite; all are listed at [`Model::load`].
    pub fn load(device: Device, path: &Path) -> Result<Self> {
        let (model, task) = file::load(device, path)?;
        match task {
            Some(Purpose::Forecast(config)) => Self::from_parts(model, config, path),
            Some(Purpose::Sequences(_)) => {
                Err(file::format_error(path, "its model is one of whole sequences, not of a series to forecast"))
            }
            None => Err(file::format_error(path, "it holds a model, but not how to forecast a series with it")),
        }
    }

    /// Puts together what a file says.
    pub(super) fn from_parts(model: Model, config: ForecastConfig, path: &Path) -> Result<Self> {
        let model = Sequential::from_model(model)?;
        config.validate().map_err(|e| file::format_error(path, e.to_string()))?;
        let forecaster = Forecaster { config, model };
        forecaster.check_shapes().map_err(|e| file::format_error(path, e.to_string()))?;
        Ok(forecaster)
    }

    fn check_shapes(&self) -> Result<()> {
        let (window, horizon, columns) = (self.config.window, self.config.horizon, self.config.columns().len());
        if self.model.input_shape() != [window, columns] {
            return Err(Error::shape(
                "model input",
                format!("[window {window}, {columns}]"),
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
