//! A panel: several series of one column of a CSV file, one below the other, whose rows say in another column which series they are of.

use std::collections::HashSet;
use std::path::Path;

use fused_rnn::data::{ColumnsChoice, CsvOptions, CsvTable, Gaps, Series};
use fused_rnn::figures::rounded;
use fused_rnn::forecast::{Baseline, Measures, Transform};
use fused_rnn::model::{ForecastConfig, Forecaster};
use fused_rnn::{Error, Result};
use ndarray::ArrayView2;

use crate::baselines::Comparison;
use crate::output::{WIDEST, listed, plain, remark};
use crate::pictures::compare;
use crate::reading::ReadingArgs;
use crate::rows::{Rows, default_target, known_in_file, references};

/// Most series of a file.
const MOST: usize = 10_000;

/// Most notes on the series of a file, but for those of one series.
const MOST_NOTES: usize = 10;

/// A series of a panel.
pub struct OneSeries {
    pub key: String,
    pub rows: Rows,
}

/// Reads the series of a file in the order in which they begin, and columns whose future is `known` beside each. Without a column it is the
/// last one of numbers.
pub fn read(
    path: &Path,
    key: &str,
    column: Option<&str>,
    known: &[String],
    gaps: Gaps,
    options: &CsvOptions,
) -> Result<Vec<OneSeries>> {
    let table = CsvTable::read(path, options)?;
    let parts: Vec<&str> = key.split(',').map(str::trim).collect();
    let is_column = |name: &&str| table.names().iter().any(|own| own == name);
    if let ([first, .., last], false, true) = (&parts[..], is_column(&key), parts.iter().all(is_column)) {
        let problem = format!(
            "--panel {}: series are named by one column; train on some of them, as with --where {first}=… --panel {last}, or add a column to \
             the file that joins these ({})",
            plain(key),
            parts.join(", ")
        );
        return Err(Error::Data { source_name: path.display().to_string(), line: None, problem });
    }
    let known = references(&table, known)?;
    let column = match column {
        Some(column) => column.to_owned(),
        None => default_target(&table, Some(key), &known)?,
    };
    let choice = ColumnsChoice::Named([std::slice::from_ref(&column), &known].concat());
    let chosen = table.column_references(&choice)?;
    let series = table.panel_columns(key, &choice)?;
    if series.len() > MOST {
        let problem = format!(
            "column {} names {} series, more than {MOST}; is it the one that names them?",
            plain(key),
            series.len()
        );
        return Err(Error::Data { source_name: path.display().to_string(), line: None, problem });
    }
    let one = |(of, mut columns): (String, Vec<Series>)| -> Result<OneSeries> {
        columns.iter_mut().for_each(|column| column.name = format!("{} of {of}", column.name));
        let rows = Rows::of_columns(&table, columns, chosen.clone(), known.clone(), gaps, Some(key))?;
        Ok(OneSeries { key: of, rows })
    };
    let series = series.into_iter().map(one).collect::<Result<Vec<_>>>()?;
    // What is said of the file is said of each of its series.
    let mut said: HashSet<&String> = HashSet::new();
    for one in &series {
        let mut new: Vec<&String> = one.rows.notes.iter().filter(|note| !said.contains(note)).collect();
        if said.len() >= MOST_NOTES && !new.is_empty() {
            remark(&format!("{}: there is as much to be said of other series", path.display()));
            break;
        }
        new.retain(|note| said.insert(note));
        new.iter().for_each(|note| remark(&format!("{}: {note}", path.display())));
    }
    Ok(series)
}

/// The series of a file for a model of a panel; `None` where the model is of one series.
pub fn of_model(
    path: &Path,
    config: &ForecastConfig,
    gaps: Option<Gaps>,
    reading: &ReadingArgs,
) -> Result<Option<Vec<OneSeries>>> {
    let Some(panel) = &config.panel else { return Ok(None) };
    let (options, gaps) = (reading.options_or(&config.reading)?, gaps.unwrap_or(config.gaps));
    read(path, &panel.column, Some(&config.column), &known_in_file(config), gaps, &options).map(Some)
}

/// The series that are long enough, and a note of the others: new series of a panel begin short. `needed` says what they lack.
pub fn long_enough(
    series: Vec<OneSeries>,
    path: &Path,
    is_long: impl Fn(&OneSeries) -> bool,
    needed: &str,
) -> Result<Vec<OneSeries>> {
    let (kept, short): (Vec<_>, Vec<_>) = series.into_iter().partition(is_long);
    let named: Vec<String> =
        short.iter().map(|one| format!("{} ({} values)", plain(&one.key), one.rows.values.nrows())).collect();
    if kept.is_empty() {
        let problem = format!("too few rows: no series has {needed}: {}", listed(&named));
        return Err(Error::Data { source_name: path.display().to_string(), line: None, problem });
    }
    if !short.is_empty() {
        remark(&format!("left out, for it is without {needed}: {}", listed(&named)));
    }
    Ok(kept)
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
    /// Of the values of each series from `start(series)` on; `learned` says whether those before are what the model was trained on.
    pub fn of(
        name: &str,
        forecaster: &mut Forecaster,
        panel: &[OneSeries],
        season: usize,
        start: impl Fn(&OneSeries) -> usize,
        learned: bool,
    ) -> Result<Self> {
        let horizon = forecaster.config().horizon;
        let mut of = PanelComparison { name: name.to_owned(), season, horizon, series: Vec::new(), held: Vec::new() };
        for one in panel {
            let from = start(one).max(forecaster.config().context());
            let known = &one.rows.complete.values;
            scale(forecaster, &one.key, known.get(..from).unwrap_or(known))?;
            let values = one.rows.for_model(forecaster.config())?;
            let backtest = forecaster.backtest(&values, from..values.nrows())?;
            let config = forecaster.config();
            let comparison = compare(name, &one.rows, &backtest, config, season, learned.then_some(from))?;
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
            let width = rows.iter().map(|row| row.0.chars().count()).max().unwrap_or(0).clamp("series".len(), WIDEST);
            let (simple_rmse, simple_mae) = (format!("{simple} RMSE"), format!("{simple} MAE"));
            text += &format!(
                "\n{:<width$}  {:>12}  {:>12}  {:>20}  {:>20}\n",
                "series", "RMSE", "MAE", simple_rmse, simple_mae
            );
            for (key, rmse, mae, beside, beside_mae) in &rows {
                let [rmse, mae, beside, beside_mae] = [rmse, mae, beside, beside_mae].map(|of| rounded(*of, 4));
                text += &format!("{key:<width$}  {rmse:>12}  {mae:>12}  {beside:>20}  {beside_mae:>20}\n");
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
        let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).max(head.chars().count());
        let width = longest.min(WIDEST);
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
            let mase = if scaled == 0 { "-".to_owned() } else { rounded(mase / f64::from(scaled), 4) };
            text += &format!("{name:<width$}  {mase:>10}  {:>10}\n", rounded(smape / f64::from(count.max(1)), 2));
        }
        Ok(text)
    }

    /// The comparison of a series.
    pub fn of_series(&self, key: &str) -> Option<&Comparison> {
        self.series.iter().find(|(other, _)| other == key).map(|(_, comparison)| comparison)
    }
}
