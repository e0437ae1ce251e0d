//! A model of a series, of one column or several, with everything needed to continue it: [`Forecaster`].
#![expect(
    clippy::indexing_slicing,
    reason = "rows of series that are long enough for a sample, as `samples` and `forecast_known` check, and columns as `check_columns` does"
)]

use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, Array3, ArrayView1, ArrayView2, ArrayView3, Axis, s};
use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::data::{CsvOptions, Gaps, Scaler};
use crate::error::{Error, Result};
use crate::forecast::baseline::check_horizon;
use crate::forecast::{CalendarFeature, Intervals, Reference, Transform};
use crate::memory;
use crate::model::correction::Correction;
use crate::model::{Graph, Model, Purpose, Sequential, file};
use crate::nn::{Average, Dense, LayerConfig};

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
    /// What it reads whose future is known when it forecasts, in columns after those; none. The model reads each a horizon ahead of the
    /// others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub known: Vec<KnownColumn>,
    /// The series that it is for, where they are several of a file; their scales take the place of the correction's
    /// ([`Forecaster::scale_by`]).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub panel: Option<Panel>,
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
    /// The forecast that the model corrects; without one it gives the values, or their differences, themselves. With one, `difference`
    /// says that the model reads the values of a window less the last, and `scaler` scales nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correction: Option<Correction>,
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

/// What a model reads of the future.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownColumn {
    /// Where it is from.
    pub source: Known,
    /// Scale of what it reads.
    pub scaler: Scaler,
}

/// Several series of one column, whose rows say in another column which of them they are of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Panel {
    /// The column that names the series of each row.
    pub column: String,
    /// The series that the model has learned from.
    pub series: Vec<PanelSeries>,
}

/// A series of a [`Panel`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PanelSeries {
    /// What the column says of it.
    pub key: String,
    /// Its scale.
    pub transform: Transform,
}

/// Where a column is from whose future is known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Known {
    /// A column of the data, such as holidays, or prices that are set.
    Column(String),
    /// Made of the dates.
    Calendar(CalendarFeature),
}

impl Known {
    /// Its name in sentences.
    pub fn name(&self) -> &str {
        match self {
            Known::Column(name) => name,
            Known::Calendar(feature) => feature.name(),
        }
    }
}

fn fitted(difference: bool, fit: impl Fn(&[f64]) -> Result<Scaler>, train: &[f64]) -> Result<Scaler> {
    if difference { fit(&differences(train)) } else { fit(train) }
}

impl ForecastConfig {
    /// Values before the first that can be forecast.
    pub fn context(&self) -> usize {
        let window = self.window.saturating_add(usize::from(self.reads_differences()));
        window.max(self.correction.as_ref().map_or(0, |correction| correction.reference.context()))
    }

    /// What the values before the first that can be forecast are for, in words.
    pub fn described_context(&self) -> String {
        let differences = if self.reads_differences() { " + 1 to take differences" } else { "" };
        match self.context() > self.window.saturating_add(self.rows_before()) {
            true => format!("{} values that the simple forecasts read", self.context()),
            false => format!("window {}{differences}", self.window),
        }
    }

    /// Rows of known columns after a series that [`Forecaster::forecast_known`] needs for so many steps: whole horizons.
    pub fn future_rows(&self, steps: usize) -> usize {
        steps.div_ceil(self.horizon.max(1)).saturating_mul(self.horizon)
    }

    /// Rows before a window that what it reads is made of.
    fn rows_before(&self) -> usize {
        usize::from(self.reads_differences())
    }

    /// Whether it needs one value more than a window for some column.
    fn reads_differences(&self) -> bool {
        self.takes_differences() || self.inputs.iter().any(|input| input.difference)
    }

    /// The columns that it reads, the one it forecasts first, known ones last.
    pub fn columns(&self) -> Vec<&str> {
        let inputs = self.inputs.iter().map(|input| input.column.as_str());
        std::iter::once(self.column.as_str())
            .chain(inputs)
            .chain(self.known.iter().map(|known| known.source.name()))
            .collect()
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
        if let Some(correction) = &self.correction {
            correction.validate(self.horizon, self.inputs.len(), self.known.len())?;
        }
        self.known.iter().try_for_each(|known| known.scaler.validate())?;
        self.panel.iter().flat_map(|panel| &panel.series).try_for_each(|series| series.transform.validate())?;
        self.inputs.iter().try_for_each(|input| input.scaler.validate())
    }

    /// Refuses values of another number of columns.
    pub(super) fn check_columns(&self, values: ArrayView2<'_, f64>) -> Result<()> {
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

    /// What the model reads, `[rows, columns]`: the scaled values, or their scaled differences; of known columns those a horizon later, at
    /// most the last. Where it reads any differences, that is one row less.
    fn scaled(&self, values: ArrayView2<'_, f64>) -> Result<Array2<f32>> {
        let first = self.rows_before();
        let rows = values.nrows().saturating_sub(first);
        let of_inputs = 1 + self.inputs.len();
        let inputs = self.scaled_inputs(values)?;
        memory::array_from("scaled values", (rows, of_inputs + self.known.len()), |(row, column)| {
            let at = row + first;
            let value = match column {
                0 => match &self.correction {
                    Some(correction) => correction.transform.apply(values[[at, 0]]),
                    None if self.difference => self.scaler.transform(values[[at, 0]] - values[[at - 1, 0]]),
                    None => self.scaler.transform(values[[at, 0]]),
                },
                _ if column < of_inputs => inputs[[at, column - 1]],
                _ => {
                    let later = at.saturating_add(self.horizon).min(values.nrows() - 1);
                    self.known[column - of_inputs].scaler.transform(values[[later, column]])
                }
            };
            value as f32
        })
    }

    /// The inputs' scaled values or differences, `[rows, inputs]`; the first difference is zero.
    pub(super) fn scaled_inputs(&self, values: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        memory::array_from("scaled inputs", (values.nrows(), self.inputs.len()), |(row, input)| {
            let (of, column) = (&self.inputs[input], 1 + input);
            match (of.difference, row) {
                (true, 0) => 0.0,
                (true, _) => of.scaler.transform(values[[row, column]] - values[[row - 1, column]]),
                (false, _) => of.scaler.transform(values[[row, column]]),
            }
        })
    }

    /// A window of what the model reads as it reads it: with a correction and differences, the column itself less its last value.
    fn window_at(&self, scaled: ArrayView2<'_, f32>, to: &mut ndarray::ArrayViewMut2<'_, f32>) {
        to.assign(&scaled);
        if self.correction.is_some() && self.difference && scaled.nrows() > 0 {
            let last = scaled[[scaled.nrows() - 1, 0]];
            to.column_mut(0).iter_mut().for_each(|value| *value -= last);
        }
    }

    /// Whether differences are taken row by row.
    fn takes_differences(&self) -> bool {
        self.difference && self.correction.is_none()
    }
}

fn differences(values: &[f64]) -> Vec<f64> {
    values.array_windows().map(|[a, b]| b - a).collect()
}

/// A recurrent layer and a dense one on a window of a series, which together give the values that follow it.
pub struct Forecaster {
    config: ForecastConfig,
    model: Sequential,
}

/// Rows before a forecast that it is made from, at most; a model that needs more has them.
const MOST_HISTORY: usize = 10_000;

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

    /// Several models of one configuration as one, which gives the mean of what they give: an ensemble, as of trainings from different seeds.
    /// It forecasts and is saved as any other; to train it further trains all of them at once.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without models; [`Error::InvalidOption`] where their configurations differ; [`Error::Unsupported`] for a model that
    /// is no stack of layers, where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn ensemble(members: Vec<Forecaster>) -> Result<Self> {
        let Some(first) = members.first() else {
            return Err(Error::ZeroSize { name: "number of models of an ensemble" });
        };
        if members.iter().any(|member| member.config != first.config) {
            return Err(Error::option("models of an ensemble", "models of one configuration", "different ones"));
        }
        if members.len() == 1 {
            return members.into_iter().next().ok_or(Error::ZeroSize { name: "number of models of an ensemble" });
        }
        let config = first.config.clone();
        let mut graph = Graph::new(first.model.device().clone(), 0);
        let input = graph.input("input_layer", &[config.window, config.columns().len()])?;
        let (mut outputs, mut weights) = (Vec::new(), Vec::new());
        for member in &members {
            let layers = member.model.config()?;
            if layers.layers.len() != layers.calls.len() {
                return Err(Error::unsupported(
                    "an ensemble of models that use a layer twice",
                    "they are stacks of layers",
                ));
            }
            let mut output = input.clone();
            for layer in layers.layers {
                output = graph.add(layer.layer, &[&output])?;
            }
            outputs.push(output);
            weights.extend(member.model.flat_weights::<f64>()?);
        }
        let mean = graph.add(Average::new(), &outputs.iter().collect::<Vec<_>>())?;
        let mut model = graph.model(&[&mean])?;
        model.set_flat_weights(&weights)?;
        Ok(Forecaster { config, model: Sequential::from_model(model)? })
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
                    "at least {} values up to the end of the part with the targets ({} + horizon {})",
                    start.max(self.config.context()).saturating_add(self.config.horizon),
                    self.config.described_context(),
                    self.config.horizon
                ),
                format!("{end} values"),
            ));
        }
        let ForecastConfig { window, horizon, .. } = self.config;
        let first = start - window - self.config.rows_before();
        let scaled = self.config.scaled(values.slice(s![first..end, ..]))?;
        let count = scaled.nrows() - window - horizon + 1;
        let mut x = memory::array_of("windows", (count, window, scaled.ncols()), 0.0)?;
        for (n, mut to) in x.outer_iter_mut().enumerate() {
            self.config.window_at(scaled.slice(s![n..n + window, ..]), &mut to);
        }
        let mut y =
            memory::array_from("values after windows", (count, horizon), |(n, ahead)| scaled[[n + window + ahead, 0]])?;
        if let Some(correction) = &self.config.correction {
            let reference = self.config.reference_at(correction, values.slice(s![..end, ..]), start..start + count)?;
            for ((n, ahead), to) in y.indexed_iter_mut() {
                let truth = correction.transform.apply(values[[start + n + ahead, 0]]);
                *to = ((truth - reference[[n, ahead]]) / correction.scales[ahead]) as f32;
            }
        }
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
        let all = values.columns();
        let values = all.column(0);
        let outputs = self.model.predict(x.view())?;
        let start = targets.start.max(self.config.context());
        let shape = (x.shape()[0], self.config.horizon);
        let truth = memory::array_from("values that came", shape, |(i, ahead)| values[start + i + ahead])?;
        let naive = memory::array_from("last values", shape, |(i, _)| values[start + i - 1])?;
        let mut forecast = memory::array_of("forecasts", shape, 0.0)?;
        if let Some(correction) = &self.config.correction {
            let reference = self.config.reference_at(
                correction,
                all.slice(s![..targets.end.min(all.nrows()), ..]),
                start..start + shape.0,
            )?;
            for (((i, ahead), to), output) in forecast.indexed_iter_mut().zip(outputs.iter()) {
                *to = correction.value(reference[[i, ahead]], *output, ahead);
            }
            return Ok(Backtest { start, truth, forecast, naive });
        }
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
    /// [`Error::Shape`] where the history is shorter than a window, or has other columns than the model reads, or for a model that reads
    /// known columns, which [`forecast_known`](Self::forecast_known) is for; [`Error::InvalidOption`] for more steps than the horizon where
    /// it reads several columns, since only one is forecast; [`Error::NonFinite`] where a forecast is NaN or infinite.
    pub fn forecast(&mut self, history: &(impl SeriesValues + ?Sized), steps: usize) -> Result<Vec<f64>> {
        self.forecast_known(history, Array2::zeros((0, 0)).view(), steps)
    }

    /// The same of a model that reads columns whose future is known: `future` `[rows, known columns]` has the rows that follow `history`, at
    /// least as many as whole horizons reach up to `steps`.
    ///
    /// # Errors
    ///
    /// As [`forecast`](Self::forecast), and [`Error::Shape`] for another number of known columns or too few rows of them.
    pub fn forecast_known(
        &mut self,
        history: &(impl SeriesValues + ?Sized),
        future: ArrayView2<'_, f64>,
        steps: usize,
    ) -> Result<Vec<f64>> {
        let (context, horizon) = (self.config.context(), self.config.horizon);
        let history = history.columns();
        self.config.check_columns(history)?;
        if history.nrows() < context {
            return Err(Error::shape(
                "series",
                format!("at least {context} values to forecast from"),
                format!("{} values", history.nrows()),
            ));
        }
        if !self.config.inputs.is_empty() && steps > horizon {
            let expected = format!(
                "at most the model's horizon {horizon}, for it reads other columns too, whose future it does not forecast; train it with a \
                 larger one"
            );
            return Err(Error::option("horizon", expected, steps));
        }
        check_horizon(steps)?;
        let (known, columns) = (self.config.known.len(), self.config.columns().len());
        let needed = self.config.future_rows(steps);
        if known > 0 && (future.ncols() != known || future.nrows() < needed) {
            let names: Vec<_> = self.config.known.iter().map(|known| known.source.name()).collect();
            return Err(Error::shape(
                "known columns after the series",
                format!("[{needed}, {known}] ({})", names.join(", ")),
                format!("{:?}", future.shape()),
            ));
        }
        // The history that is read, and room for what follows.
        let past = history.nrows();
        let mut rows = memory::array_of("the series", (past.saturating_add(needed), columns), 0.0)?;
        rows.slice_mut(s![..past, ..]).assign(&history);
        if known > 0 {
            rows.slice_mut(s![past.., columns - known..]).assign(&future.slice(s![..needed, ..]));
        }
        let mut ahead = Vec::new();
        while ahead.len() < steps {
            let from = past + ahead.len();
            // Of a long history its end alone, so that the time of a block does not grow with it.
            let first = from.saturating_sub(context.max(MOST_HISTORY));
            let seen = rows.slice(s![first..from + horizon, ..]);
            let known = from - first;
            let window = known - self.config.window - self.config.rows_before();
            let scaled = self.config.scaled(seen.slice(s![window.., ..]))?;
            let mut x = memory::array_of("a window", (1, self.config.window, scaled.ncols()), 0.0)?;
            let window = scaled.slice(s![..self.config.window, ..]);
            self.config.window_at(window, &mut x.index_axis_mut(Axis(0), 0));
            let outputs: Vec<f32> = self.model.predict(x.view())?.iter().copied().collect();
            let values = match &self.config.correction {
                Some(correction) => {
                    let reference = self.config.reference_at(correction, seen, known..known + 1)?;
                    let of = |(step, output): (usize, &f32)| correction.value(reference[[0, step]], *output, step);
                    outputs.iter().enumerate().map(of).collect()
                }
                None => self.unscaled(&outputs, rows[[from - 1, 0]]),
            };
            for value in values {
                if !value.is_finite() {
                    return Err(Error::NonFinite {
                        tensor: "forecast".to_owned(),
                        got: value,
                        position: format!("step {}", ahead.len() + 1),
                        help: "the series lies too far outside of what the model learned from".to_owned(),
                    });
                }
                rows[[past + ahead.len(), 0]] = value;
                ahead.push(value);
            }
        }
        ahead.truncate(steps);
        Ok(ahead)
    }

    /// Takes another scale for the series that comes next, where one model is for several: that which
    /// [`choose_correction`](ForecastConfig::choose_correction) has chosen for it, or one fitted to what is known of it. Does nothing without
    /// a correction.
    pub fn scale_by(&mut self, transform: Transform) {
        if let Some(correction) = &mut self.config.correction {
            correction.transform = transform;
        }
    }

    /// Ends the training of a network that corrects a reference: measures on [`samples`](Self::samples) of the validation part, `x` and `y`,
    /// what part of its correction helps in both halves of them, makes the intervals of the errors there, and takes the reference that was fitted to all of it.
    /// Without samples the whole correction is taken, and there are no intervals. Does nothing without a correction.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for samples of other shapes; [`Error::InvalidOption`] for levels that are not between 0 and 1;
    /// [`Error::Unsupported`] where the device cannot do it, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn settle(
        &mut self,
        validation: Option<(ArrayView3<'_, f32>, ArrayView2<'_, f32>)>,
        levels: &[f64],
        fitted_to_all: Reference,
    ) -> Result<()> {
        if self.config.correction.is_none() {
            return Ok(());
        }
        let measured = validation.map(|(x, y)| Ok::<_, Error>((self.model.predict(x)?, y))).transpose()?;
        let horizon = self.config.horizon;
        let Some(correction) = &mut self.config.correction else { return Ok(()) };
        if let Some((outputs, y)) = measured {
            if y.ncols() != horizon || outputs.shape() != y.shape() {
                return Err(Error::shape("y", format!("{:?}", outputs.shape()), format!("{:?}", y.shape())));
            }
            // The epoch was chosen by these samples too: only what helps in both halves of them is taken to help later.
            let half = y.nrows() / 2;
            let share = |rows: Range<usize>| {
                let of = rows.flat_map(|row| (0..horizon).map(move |ahead| [row, ahead]));
                let sums = of.fold((0.0, 0.0), |(with, own), place: [usize; 2]| {
                    let (output, truth) = (f64::from(outputs[&place[..]]), f64::from(y[place]));
                    (with + output * truth, own + output * output)
                });
                if sums.1 > 0.0 { (sums.0 / sums.1).clamp(0.0, 1.0) } else { 0.0 }
            };
            correction.share = if half == 0 { share(0..y.nrows()) } else { share(0..half).min(share(half..y.nrows())) };
            let errors = memory::array_from("errors", y.dim(), |(i, ahead)| {
                let output = f64::from(outputs[[i, ahead]]);
                correction.scales[ahead] * (f64::from(y[[i, ahead]]) - correction.share * output)
            })?;
            correction.intervals = Some(Intervals::fit(errors.view(), levels)?);
        }
        correction.reference = fitted_to_all;
        Ok(())
    }

    /// Writes the model with its configuration, atomically. The same model gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        file::save(&self.model, Some(&Purpose::Forecast(self.config.clone())), path)
    }

    /// Reads what [`save`](Self::save) wrote. The file is checked in every part before anything is allocated for it.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is no model that forecasts a series; [`Error::Unsupported`]
    /// for several inputs or outputs; [`Error::NonFinite`] for weights that are NaN or infinite; all are listed at [`Model::load`].
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
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
            if self.config.takes_differences() { level } else { value }
        };
        output.iter().map(value).collect()
    }
}
