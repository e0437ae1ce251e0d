//! The simple forecast that a [`Forecaster`](crate::model::Forecaster)'s network corrects: [`Correction`].

use std::ops::Range;

use ndarray::{Array2, ArrayView2, s};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forecast::{Chosen, Intervals, Reference, ReferenceOptions, ReferenceSeries, Transform, longer_season};
use crate::memory;
use crate::model::forecast::{Backtest, ForecastConfig};

/// A forecast that a network corrects, and by how much: `reference + share * scales * output`, on the scale of the transform.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Correction {
    /// Values of a season; 1 for none.
    pub season: usize,
    /// The scale on which it is forecast.
    pub transform: Transform,
    /// The forecast that is corrected.
    pub reference: Reference,
    /// What an output of 1 is, for each step ahead.
    pub scales: Vec<f64>,
    /// The part of the correction that is taken, from 0 to 1.
    pub share: f64,
    /// How sure the forecasts are, on the scale of the transform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intervals: Option<Intervals>,
}

impl Correction {
    /// The value of a step ahead.
    pub(super) fn value(&self, reference: f64, output: f32, ahead: usize) -> f64 {
        let scale = self.scales.get(ahead).copied().unwrap_or(f64::NAN);
        self.transform.inverse(reference + self.share * scale * f64::from(output))
    }

    /// For each level of the intervals, its lower and its upper bound around a forecast of step `ahead`, counted from 0.
    pub fn bounds(&self, forecast: f64, ahead: usize) -> Vec<(f64, f64)> {
        let Some(intervals) = &self.intervals else { return Vec::new() };
        let centre = self.transform.apply(forecast);
        let of = |level: usize| {
            let width = intervals.width(level, ahead);
            (self.transform.inverse(centre - width), self.transform.inverse(centre + width))
        };
        (0..intervals.levels.len()).map(of).collect()
    }

    /// For each level, the part of what came that lay within the intervals.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] where there is nothing to compare.
    pub fn coverage(&self, backtest: &Backtest) -> Result<Vec<f64>> {
        let Some(intervals) = &self.intervals else { return Ok(Vec::new()) };
        let mut held = vec![0usize; intervals.levels.len()];
        for ((place, forecast), truth) in backtest.forecast.indexed_iter().zip(&backtest.truth) {
            for (to, (lower, upper)) in held.iter_mut().zip(self.bounds(*forecast, place.1)) {
                *to += usize::from((lower..=upper).contains(truth));
            }
        }
        if backtest.truth.is_empty() {
            return Err(Error::ZeroSize { name: "number of values to compare" });
        }
        Ok(held.into_iter().map(|held| held as f64 / backtest.truth.len() as f64).collect())
    }

    pub(super) fn validate(&self, horizon: usize, inputs: usize, known: usize) -> Result<()> {
        self.transform.validate()?;
        self.reference.validate(horizon, inputs, known)?;
        if self.season == 0 {
            return Err(Error::ZeroSize { name: "season" });
        }
        if self.scales.len() != horizon || self.scales.iter().any(|scale| !(scale.is_finite() && *scale > 0.0)) {
            return Err(Error::option(
                "correction.scales",
                format!("{horizon} numbers above 0"),
                format!("{:?}", self.scales),
            ));
        }
        if !(0.0..=1.0).contains(&self.share) {
            return Err(Error::option("correction.share", "0 to 1", self.share));
        }
        self.intervals.as_ref().map_or(Ok(()), |intervals| intervals.validate(horizon))
    }
}

/// A series that a [`Correction`] is chosen on.
#[derive(Clone, Copy)]
pub struct SeenSeries<'a> {
    /// Its columns as the model reads them: the one to forecast, inputs, known ones.
    pub values: ArrayView2<'a, f64>,
    /// The end of the part that may be seen.
    pub end: usize,
}

/// What [`ForecastConfig::choose_correction`] has chosen beside the correction itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ChosenCorrection {
    /// The reference fitted to all that may be seen, for [`Forecaster::settle`](crate::model::Forecaster::settle).
    pub fitted_to_all: Reference,
    /// The scale of each series.
    pub transforms: Vec<Transform>,
    /// The mean squared error of rolling origins, over the variance of what is seen of each series.
    pub error: f64,
}

impl ForecastConfig {
    /// Chooses the reference that the network is to correct, on the seen values of the series alone, the last `validation` of which are kept
    /// from what it is fitted to while the network learns. Logarithms are taken as `log` says, or where they make the error of rolling origins
    /// smaller. The correction has the scale of the first series: [`Forecaster::scale_by`](crate::model::Forecaster::scale_by) is for others.
    ///
    /// ```
    /// use fused_rnn::Device;
    /// use fused_rnn::data::{Gaps, Scaler};
    /// use fused_rnn::model::{FitOptions, ForecastConfig, Forecaster, SeenSeries};
    /// use fused_rnn::nn::Lstm;
    /// let sales: Vec<f64> = (0..80).map(|t| (100.0 + t as f64) * [1.0, 1.2, 0.9, 1.1][t % 4]).collect();
    /// let mut config = ForecastConfig {
    ///     column: "sales".to_owned(),
    ///     inputs: Vec::new(),
    ///     known: Vec::new(),
    ///     panel: None,
    ///     gaps: Gaps::Error,
    ///     window: 8,
    ///     horizon: 4,
    ///     difference: true,
    ///     scaler: Scaler::IDENTITY,
    ///     correction: None,
    ///     reading: Default::default(),
    /// };
    /// let rows = ndarray::Array2::from_shape_fn((80, 1), |(t, _)| sales[t]);
    /// let seen = SeenSeries { values: rows.view(), end: 80 };
    /// let chosen = config.choose_correction(&[seen], 12, 4, None)?; // validate on the last 12, a season of 4
    /// let mut forecaster = Forecaster::new(Device::cpu(), config, Lstm::new(4), 1)?;
    /// let (x, y) = forecaster.samples(&sales, 0..68)?;
    /// forecaster.model().fit(&x, &y, FitOptions { epochs: 2, ..FitOptions::default() })?;
    /// let (x, y) = forecaster.samples(&sales, 68..80)?;
    /// forecaster.settle(Some((x.view(), y.view())), &[0.8], chosen.fitted_to_all)?;
    /// let ahead = forecaster.forecast(&sales, 4)?;
    /// let [lower, upper] = forecaster.config().correction.as_ref().map(|c| c.bounds(ahead[0], 0)[0]).map_or([0.0; 2], <[f64; 2]>::from);
    /// assert!(lower < ahead[0] && ahead[0] < upper && (ahead[0] / 180.0 - 1.0).abs() < 0.02, "{ahead:?}");
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without series or values; [`Error::Shape`] for other columns than the model reads, or no more values than its horizon; [`Error::NonFinite`] for values
    /// too large to compute with; [`Error::InvalidOption`] for logarithms of values that are not all above zero.
    pub fn choose_correction(
        &mut self,
        series: &[SeenSeries<'_>],
        validation: usize,
        season: usize,
        log: Option<bool>,
    ) -> Result<ChosenCorrection> {
        let season = season.max(1);
        let mut seen = Vec::with_capacity(series.len());
        for of in series {
            self.check_columns(of.values)?;
            let values = of.values.slice_move(s![..of.end.min(of.values.nrows()), 0]);
            seen.push(memory::collected("values of a series", values.iter().copied())?);
        }
        let longest =
            seen.iter().max_by_key(|values| values.len()).ok_or(Error::ZeroSize { name: "number of series" })?;
        if longest.len() <= self.horizon {
            let expected = format!("more values than the horizon {}", self.horizon);
            return Err(Error::shape("series", expected, format!("{} values", longest.len())));
        }
        let logs = match log {
            Some(log) => vec![log],
            None if seen.iter().all(|values| Transform::may_be_log(values)) => vec![false, true],
            None => vec![false],
        };
        let options = ReferenceOptions {
            season,
            longer: longer_season(longest, season),
            horizon: self.horizon,
            inputs: self.inputs.len(),
            known: self.known.len(),
            lags: None,
            validation,
        };
        let variances: Vec<f64> = seen
            .iter()
            .map(|values| {
                let mean = values.iter().sum::<f64>() / values.len().max(1) as f64;
                let variance = values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / values.len().max(1) as f64;
                if variance > 0.0 { variance } else { 1.0 }
            })
            .collect();
        let mut best: Option<(Vec<Transform>, Vec<Array2<f64>>, Chosen)> = None;
        for log in logs {
            let transforms: Vec<Transform> =
                seen.iter().map(|values| Transform::fit(values, log)).collect::<Result<_>>()?;
            let rows: Vec<Array2<f64>> = series
                .iter()
                .zip(&transforms)
                .map(|(of, transform)| self.reference_rows(transform, of.values))
                .collect::<Result<_>>()?;
            let measure = |i: usize, forecast: f64, truth: f64| match (transforms.get(i), variances.get(i)) {
                (Some(of), Some(variance)) => (of.inverse(forecast) - of.inverse(truth)).powi(2) / variance,
                _ => f64::NAN,
            };
            let parts: Vec<ReferenceSeries<'_>> = rows
                .iter()
                .zip(&seen)
                .map(|(rows, seen)| ReferenceSeries { rows: rows.view(), end: seen.len() })
                .collect();
            let chosen = Reference::choose(&parts, options, measure)?;
            if best.as_ref().is_none_or(|(_, _, best)| chosen.error < best.error) {
                best = Some((transforms, rows, chosen));
            }
        }
        let none = || Error::ZeroSize { name: "number of series" };
        let (transforms, rows, chosen) = best.ok_or_else(none)?;
        let transform = *transforms.first().ok_or_else(none)?;
        let reference = if validation == 0 { chosen.of_all.clone() } else { chosen.of_training };
        let scales = self.left_over(&reference, &rows, &seen, validation)?;
        self.correction = Some(Correction { season, transform, reference, scales, share: 1.0, intervals: None });
        Ok(ChosenCorrection { fitted_to_all: chosen.of_all, transforms, error: chosen.error })
    }

    /// The root of the mean square of what the reference leaves over in the training parts, for each step ahead: of magnitude one to the
    /// network.
    fn left_over(
        &self,
        reference: &Reference,
        rows: &[Array2<f64>],
        seen: &[Vec<f64>],
        validation: usize,
    ) -> Result<Vec<f64>> {
        let mut sums = vec![(0.0, 0.0); self.horizon];
        for (rows, seen) in rows.iter().zip(seen) {
            let (first, last) =
                (reference.context(), seen.len().saturating_sub(validation.saturating_add(self.horizon)));
            let origins = memory::collected("origins", first..last.saturating_add(1))?;
            let forecasts = reference.forecasts(rows.view(), &origins, self.horizon)?;
            for (origin, forecasts) in origins.iter().zip(forecasts.outer_iter()) {
                let truth = rows.column(0).into_iter().skip(*origin);
                for ((forecast, truth), (squares, count)) in forecasts.iter().zip(truth).zip(&mut sums) {
                    let left = truth - forecast;
                    (*squares, *count) = (*squares + left * left, *count + 1.0);
                }
            }
        }
        let root = |(sum, count): (f64, f64)| {
            let mean: f64 = sum / count;
            if mean > 0.0 && mean.is_finite() { mean.sqrt() } else { 1.0 }
        };
        Ok(sums.into_iter().map(root).collect())
    }

    /// What a reference reads: the transformed column, the scaled inputs and known columns.
    fn reference_rows(&self, transform: &Transform, values: ArrayView2<'_, f64>) -> Result<Array2<f64>> {
        let inputs = self.scaled_inputs(values)?;
        let of_inputs = 1 + self.inputs.len();
        let mut rows = memory::array_of("scaled values", (values.nrows(), of_inputs + self.known.len()), 0.0)?;
        for ((mut to, from), column) in rows.columns_mut().into_iter().zip(values.columns()).zip(0usize..) {
            match (column, self.known.get(column.saturating_sub(of_inputs))) {
                (0, _) => to.iter_mut().zip(from).for_each(|(to, from)| *to = transform.apply(*from)),
                _ if column < of_inputs => to.assign(&inputs.column(column - 1)),
                (_, Some(known)) => {
                    to.iter_mut().zip(from).for_each(|(to, from)| *to = known.scaler.transform(*from));
                }
                (_, None) => to.fill(f64::NAN),
            }
        }
        Ok(rows)
    }

    /// The reference's forecasts of a run of origins.
    pub(super) fn reference_at(
        &self,
        correction: &Correction,
        values: ArrayView2<'_, f64>,
        origins: Range<usize>,
    ) -> Result<Array2<f64>> {
        let rows = self.reference_rows(&correction.transform, values)?;
        correction.reference.forecasts(rows.view(), &memory::collected("origins", origins)?, self.horizon)
    }
}
