//! Pictures of forecasts that several subcommands draw.
#![expect(
    clippy::indexing_slicing,
    reason = "the last origin of a backtest lies inside of its series, and steps inside of its horizon"
)]

use fused_rnn::Result;
use fused_rnn::data::{Series, TimeAxis};
use fused_rnn::figures::rounded;
use fused_rnn::forecast::{Baseline, Measures};
use fused_rnn::model::{Backtest, ForecastConfig};
use fused_rnn::plot::{Colour, Curve, LinePlot};
use ndarray::Array2;

use crate::baselines::Comparison;
use crate::output::plain;
use crate::rows::Rows;

/// Fewer forecasts of one step are shown with values before them.
const FEW: usize = 10;

/// Simple forecasts beside a model's of what came. Where the model was trained on the values before `learned_end`, ridge is too; without, there
/// is no part to fit it to.
pub fn compare(
    name: &str,
    rows: &Rows,
    backtest: &Backtest,
    config: &ForecastConfig,
    season: usize,
    learned_end: Option<usize>,
) -> Result<Comparison> {
    let origins: Vec<usize> = (backtest.start..backtest.start + backtest.truth.nrows()).collect();
    let lags = config.window.min(backtest.start.max(1));
    let ridge = learned_end.map(|_| lags);
    let end = learned_end.unwrap_or(backtest.start);
    Comparison::of(name, rows.values.column(0), &origins, backtest.forecast.clone(), (season, end), ridge)
}

/// How much of what came the intervals hold, in a line; nothing where there are none.
pub fn coverage(config: &ForecastConfig, backtest: &Backtest) -> Result<String> {
    let Some(correction) = &config.correction else { return Ok(String::new()) };
    let Some(intervals) = &correction.intervals else { return Ok(String::new()) };
    let held = correction.coverage(backtest)?;
    let parts: Vec<String> = intervals
        .levels
        .iter()
        .zip(&held)
        .map(|(level, held)| format!("of {:.0} % hold {:.1} %", 100.0 * level, 100.0 * held))
        .collect();
    Ok(format!("Intervals {} of what came.\n", parts.join(", ")))
}

/// Forecasts beside what came; `part` says of what data. Of one step ahead that is one curve; of several it is the last forecast of the whole
/// horizon, with its intervals, its beginning marked, and the seasonal naive forecast beside it.
pub fn forecast_plot(
    name: &str,
    part: &str,
    rows: &Rows,
    backtest: &Backtest,
    comparison: &Comparison,
    config: &ForecastConfig,
) -> Result<LinePlot> {
    let Rows { series, complete, .. } = rows;
    let axis = TimeAxis::new(&complete.labels);
    let horizon = backtest.truth.ncols();
    let rmse = |name: &str| {
        let of = comparison.forecasts.iter().find(|(other, _)| other == name).map(|(_, forecast)| forecast);
        of.map(|of| Measures::of(comparison.truth.view(), of.view(), None).map(|measures| measures.rmse)).transpose()
    };
    let reference = if comparison.season > 1 && horizon > 1 { Baseline::SeasonalNaive } else { Baseline::Naive };
    let beside =
        rmse(reference.name())?.map_or(String::new(), |of| format!(" ({} {})", reference.name(), rounded(of, 4)));
    let model = rmse(name)?.unwrap_or(f64::NAN);
    let steps = if horizon == 1 { "one step ahead".to_owned() } else { format!("{horizon} steps ahead") };
    let last = backtest.truth.nrows().saturating_sub(1);
    let plot = LinePlot::new(format!("{}: forecast and truth of {}", file_name(series), plain(&series.name)))
        .subtitle(format!("{name}, {steps}, on {part}: RMSE {}{beside}{}", rounded(model, 4), shaded(config)))
        .x_label(x_label(series, &axis))
        .x_dates(axis.is_date())
        .y_label(series.name.clone());
    let bands = |mut plot: LinePlot, of: Vec<(f64, Vec<(f64, f64)>)>| {
        let levels = of.first().map_or(0, |(_, bounds)| bounds.len());
        for level in (0..levels).rev() {
            plot = plot.band(of.iter().map(|(x, bounds)| (*x, bounds[level].0, bounds[level].1)), Colour::VERMILLION);
        }
        plot
    };
    let bounds = |value: f64, ahead: usize| config.correction.as_ref().map_or(Vec::new(), |c| c.bounds(value, ahead));
    if horizon == 1 {
        let place = |i: usize| axis.position(backtest.start + i);
        let points =
            |values: &Array2<f64>| values.column(0).iter().enumerate().map(|(i, v)| (place(i), *v)).collect::<Vec<_>>();
        // A few values say little without those before them.
        let before = if backtest.truth.nrows() < FEW { (2 * config.window).max(FEW) } else { 0 };
        let before = backtest.start.saturating_sub(before)..backtest.start;
        let truth = before.map(|i| (axis.position(i), complete.values[i])).chain(points(&backtest.truth));
        let of = backtest.forecast.column(0).iter().enumerate().map(|(i, v)| (place(i), bounds(*v, 0))).collect();
        return Ok(bands(plot, of)
            .curve(Curve::new("truth", truth).colour(Colour::GREY))
            .curve(Curve::new("forecast", points(&backtest.forecast)).colour(Colour::VERMILLION).width(1.5)));
    }
    let origin = backtest.start + last;
    let values = &complete.values;
    let place = |ahead: usize| axis.position(origin + ahead);
    let start = origin.saturating_sub((4 * horizon).max(2 * config.window));
    let of = (0..horizon).map(|ahead| (place(ahead), bounds(backtest.forecast[[last, ahead]], ahead))).collect();
    let simple = reference.forecast(&values[..origin], comparison.season, horizon)?;
    let truth = (start..origin + horizon).map(|i| (axis.position(i), values[i]));
    let forecast = (0..horizon).map(|ahead| (place(ahead), backtest.forecast[[last, ahead]]));
    Ok(bands(plot, of)
        .curve(Curve::new("truth", truth).colour(Colour::GREY))
        .curve(
            Curve::new(reference.name(), (0..horizon).map(|ahead| (place(ahead), simple[ahead])))
                .colour(Colour::BLUE)
                .dashed()
                .width(1.5),
        )
        .curve(Curve::new("forecast", forecast).colour(Colour::VERMILLION))
        .mark(axis.position(origin), "forecast from here"))
}

/// Which intervals the shading of a forecast's picture is, as the end of a sentence; nothing where there is none.
pub fn shaded(config: &ForecastConfig) -> String {
    let intervals = config.correction.as_ref().and_then(|correction| correction.intervals.as_ref());
    let levels = intervals.map_or(&[][..], |intervals| &intervals.levels[..]);
    let named: Vec<String> = levels.iter().map(|level| format!("{} %", (1000.0 * level).round() / 10.0)).collect();
    match &named[..] {
        [] => String::new(),
        [only] => format!("; shaded: {only}"),
        [first @ .., last] => format!("; shaded: {} and {last}", first.join(", ")),
    }
}

/// What a title says of the column that is learned; sequences have none.
pub fn of_target(target: Option<&str>) -> String {
    target.map_or(String::new(), |target| format!(" of {}", plain(target)))
}

/// The name of the file of a series: its folder is of no interest to whoever is shown the picture.
pub fn file_name(series: &Series) -> String {
    let path = std::path::Path::new(&series.source_name);
    path.file_name().map_or(series.source_name.clone(), |name| name.to_string_lossy().into_owned())
}

/// What the horizontal axis of a plot counts.
pub fn x_label(series: &Series, axis: &TimeAxis) -> String {
    match &series.label_name {
        Some(name) if axis.is_labelled() => name.clone(),
        _ => "position in the series".to_owned(),
    }
}
