//! A panel: several series of one column of a CSV file, one below the other, whose rows say in another column which series they are of.

use std::path::Path;

use fused_rnn::data::gaps::Complete;
use fused_rnn::data::{ClassifiedRows, ColumnsChoice, Gaps, Series};
use fused_rnn::forecast::{Baseline, Measures, Transform};
use fused_rnn::model::{ForecastConfig, Forecaster};
use fused_rnn::{Error, Result};
use ndarray::{Array2, ArrayView2};

use crate::baselines::Comparison;
use crate::output::plain;
use crate::pictures::compare;
use crate::rows::Rows;

/// Most series of a file.
const MOST: usize = 10_000;

/// A series of a panel.
pub struct OneSeries {
    pub key: String,
    pub rows: Rows,
}

/// Reads the series of a file in the order in which they begin. Without a column it is the last one of numbers.
pub fn read(path: &Path, key: &str, column: Option<&str>, gaps: Gaps) -> Result<Vec<OneSeries>> {
    if matches!(gaps, Gaps::Interpolate | Gaps::ForwardFill) {
        return Err(Error::Unsupported {
            what: format!("--gaps {gaps} for several series of a file"),
            why: "a gap between two series has values of both beside it; use --gaps drop, or fill the gaps before"
                .to_owned(),
        });
    }
    let column = match column {
        Some(column) => column.to_owned(),
        None => {
            let all = ClassifiedRows::read(path, &ColumnsChoice::AllNumeric, key, Gaps::Drop)?;
            all.columns.last().cloned().unwrap_or_default()
        }
    };
    let rows = ClassifiedRows::read(path, &ColumnsChoice::Named(vec![column]), key, gaps)?;
    let name = rows.columns.first().cloned().unwrap_or_default();
    let mut places = std::collections::HashMap::new();
    let mut parts: Vec<(String, Vec<usize>)> = Vec::new();
    for (row, key) in rows.classes.iter().enumerate() {
        let place = *places.entry(key.as_str()).or_insert_with(|| {
            parts.push((key.clone(), Vec::new()));
            parts.len() - 1
        });
        parts[place].1.push(row);
        if parts.len() > MOST {
            return Err(Error::Data {
                source_name: rows.source_name.clone(),
                line: rows.lines.get(row).copied(),
                problem: format!(
                    "column {} names more than {MOST} series; is it the one that names them?",
                    plain(&rows.target)
                ),
            });
        }
    }
    let one = |(key, of): (String, Vec<usize>)| {
        let values: Vec<f64> = of.iter().map(|row| rows.values[[*row, 0]]).collect();
        let labels: Vec<String> = of.iter().map(|row| rows.labels[*row].clone()).collect();
        let series = Series {
            name: format!("{name} of {key}"),
            values: values.iter().copied().map(Some).collect(),
            labels: labels.clone(),
            label_name: rows.label_name.clone(),
            lines: of.iter().map(|row| rows.lines[*row]).collect(),
            source_name: rows.source_name.clone(),
        };
        let matrix = Array2::from_shape_fn((values.len(), 1), |(row, _)| values[row]);
        let rows = Rows {
            series,
            complete: Complete { values, labels, filled: 0 },
            others: Vec::new(),
            known: Vec::new(),
            values: matrix,
            future: (Array2::zeros((0, 0)), Vec::new()),
        };
        OneSeries { key, rows }
    };
    Ok(parts.into_iter().map(one).collect())
}

/// The series of a file for a model of a panel; `None` where the model is of one series.
pub fn of_model(path: &Path, config: &ForecastConfig, gaps: Option<Gaps>) -> Result<Option<Vec<OneSeries>>> {
    let Some(panel) = &config.panel else { return Ok(None) };
    read(path, &panel.column, Some(&config.column), gaps.unwrap_or(config.gaps)).map(Some)
}

/// Lets a model take the scale of a series: that of its training, or for a new one that of what is known of it.
pub fn scale(forecaster: &mut Forecaster, key: &str, known: &[f64]) -> Result<()> {
    let config = forecaster.config();
    let Some(panel) = &config.panel else { return Ok(()) };
    let is_log = config.correction.as_ref().is_some_and(|correction| correction.transform.floor.is_some());
    let transform = match panel.series.iter().find(|series| series.key == key) {
        Some(series) => series.transform,
        None => Transform::fit(known, is_log)?,
    };
    forecaster.scale_by(transform);
    Ok(())
}

/// Forecasts of a part of each series, beside simple ones.
pub struct PanelComparison {
    name: String,
    season: usize,
    horizon: usize,
    series: Vec<(String, Comparison)>,
    /// For each level, how much of what came the intervals held, and of how many values.
    held: Vec<(f64, f64, usize)>,
}

impl PanelComparison {
    /// Of the values of each series from `start(series)` on.
    pub fn of(
        name: &str,
        forecaster: &mut Forecaster,
        panel: &[OneSeries],
        season: usize,
        start: impl Fn(&OneSeries) -> usize,
    ) -> Result<Self> {
        let horizon = forecaster.config().horizon;
        let mut of = PanelComparison { name: name.to_owned(), season, horizon, series: Vec::new(), held: Vec::new() };
        for one in panel {
            let from = start(one).max(forecaster.config().context());
            scale(forecaster, &one.key, &one.rows.complete.values[..from.min(one.rows.complete.values.len())])?;
            let backtest = forecaster.backtest(&one.rows.values, from..one.rows.values.nrows())?;
            let config = forecaster.config();
            let comparison = compare(name, &one.rows, &backtest, config, season, from)?;
            if let Some(correction) = &config.correction {
                let levels = correction.intervals.as_ref().map_or(&[][..], |intervals| &intervals.levels);
                of.held.resize(levels.len(), (0.0, 0.0, 0));
                for ((to, level), held) in of.held.iter_mut().zip(levels).zip(correction.coverage(&backtest)?) {
                    let count = backtest.truth.len();
                    *to = (*level, to.1 + held * count as f64, to.2 + count);
                }
            }
            of.series.push((one.key.clone(), comparison));
        }
        Ok(of)
    }

    /// The means of the series' scaled errors, one step ahead and for the horizon, and each series beside the simple forecast.
    pub fn table(&self, head: &str, quiet: bool) -> Result<String> {
        let head = format!("{head} of {} series", self.series.len());
        let mut text = self.means(&format!("{head}, one step ahead"), Measures::of_first_step)?;
        if self.horizon > 1 {
            text += &self.means(&format!("{head}, {} steps ahead", self.horizon), Measures::of)?;
        }
        let simple = if self.season > 1 { Baseline::SeasonalNaive } else { Baseline::Naive }.name();
        let mut ahead = 0;
        let mut rows = Vec::new();
        for (key, comparison) in &self.series {
            let of = |name: &str| {
                let found = comparison.forecasts.iter().find(|(other, _)| other == name);
                found.map(|(_, f)| Measures::of(comparison.truth.view(), f.view(), comparison.scale)).transpose()
            };
            let (Some(model), Some(beside)) = (of(&self.name)?, of(simple)?) else { continue };
            ahead += usize::from(model.rmse < beside.rmse);
            rows.push((plain(key), model.rmse, model.mae, beside.rmse, beside.mae));
        }
        if !quiet {
            let width = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).max("series".len());
            text += &format!(
                "\n{:<width$}  {:>12}  {:>12}  {:>14}  {:>14}\n",
                "series", "RMSE", "MAE", "naive's RMSE", "naive's MAE"
            );
            for (key, rmse, mae, beside, beside_mae) in &rows {
                text += &format!("{key:<width$}  {rmse:>12.4}  {mae:>12.4}  {beside:>14.4}  {beside_mae:>14.4}\n");
            }
        }
        text +=
            &format!("The model's RMSE is below that of the {simple} forecast for {ahead} of {} series.\n", rows.len());
        let parts: Vec<String> = self
            .held
            .iter()
            .map(|(level, held, count)| {
                format!("of {:.0} % hold {:.1} %", 100.0 * level, 100.0 * held / (*count).max(1) as f64)
            })
            .collect();
        if !parts.is_empty() {
            text += &format!("Intervals {} of what came.\n", parts.join(", "));
        }
        Ok(text)
    }

    fn means(
        &self,
        head: &str,
        measure: fn(ArrayView2<'_, f64>, ArrayView2<'_, f64>, Option<f64>) -> Result<Measures>,
    ) -> Result<String> {
        let names: Vec<&String> =
            self.series.first().map_or(Vec::new(), |(_, c)| c.forecasts.iter().map(|f| &f.0).collect());
        let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(head.chars().count());
        let mut text = format!("\n{head:<width$}  {:>10}  {:>10}   (means)\n", "MASE", "sMAPE");
        for name in names {
            let (mut mase, mut smape, mut count, mut scaled) = (0.0, 0.0, 0, 0);
            for (_, comparison) in &self.series {
                let Some((_, forecast)) = comparison.forecasts.iter().find(|(other, _)| other == name) else {
                    continue;
                };
                let of = measure(comparison.truth.view(), forecast.view(), comparison.scale)?;
                (smape, count) = (smape + of.smape, count + 1);
                if let Some(of) = of.mase {
                    (mase, scaled) = (mase + of, scaled + 1);
                }
            }
            let mase = if scaled == 0 { "-".to_owned() } else { format!("{:.4}", mase / f64::from(scaled)) };
            text += &format!("{name:<width$}  {mase:>10}  {:>10.2}\n", smape / f64::from(count.max(1)));
        }
        Ok(text)
    }

    /// The comparison of a series.
    pub fn of_series(&self, key: &str) -> Option<&Comparison> {
        self.series.iter().find(|(other, _)| other == key).map(|(_, comparison)| comparison)
    }
}
