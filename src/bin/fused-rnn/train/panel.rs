//! `fused-rnn train --panel`: one model over the series of a panel.

use std::process::ExitCode;
use std::time::Instant;

use fused_rnn::data::{Scaler, TimeAxis, TimeSplit, has_trend};
use fused_rnn::model::{ForecastConfig, Forecaster, Known, KnownColumn, Panel, PanelSeries, SeenSeries};
use fused_rnn::{Error, Result};
use ndarray::{Array2, Array3, Axis, concatenate, s};

use super::checkpoints::Checkpoints;
use super::options::{Args, Choice, Learn, Outputs, WINDOW};
use super::run::{ending, finish, loss_plot, report, settle};
use super::series::{LONGEST_SEASON, Samples, fit_members, name, numbers, say_rough, why_one};
use crate::baselines::season;
use crate::calendar;
use crate::future::check_learned;
use crate::interrupt;
use crate::output::{listed, note, print};
use crate::panel::{OneSeries, PanelComparison, read, scale};
use crate::pictures::forecast_plot;
use crate::progress::Progress;

/// Reads the series, trains on them, and reports.
pub fn train(args: Args) -> Result<ExitCode> {
    args.refuse(
        &[("test", args.test.is_some()), ("length", args.length.is_some())],
        "it is for .ts files of sequences; the last part of each series is held back with --test-fraction",
    )?;
    args.refuse(
        &[
            ("columns", args.columns.is_some()),
            ("target", args.target.is_some()),
            ("learn", !matches!(args.learn, None | Some(Learn::Auto | Learn::Correction))),
        ],
        "of several series of a file one column is read, --column, besides those of --known, and what a reference leaves over of it learned",
    )?;
    let Some(key) = args.panel.clone() else { return Err(Error::ZeroSize { name: "panel" }) };
    let gaps = args.gaps.unwrap_or_default();
    let series = read(&args.data, &key, args.column.as_deref(), &args.known, gaps, &args.reading.options()?)?;
    check_learned(series.iter().map(|one| &one.rows))?;
    let prepared = prepare(&args, series)?;
    let outputs = Outputs::prepare(&args, "forecast.svg")?;
    let Prepared { panel, values, config, season, validation, transforms, reference, left_out, why_one } = prepared;
    if !left_out.is_empty() {
        let are = if left_out.len() == 1 { "is" } else { "are" };
        note(&format!("{} series {are} too short, and left out: {}", left_out.len(), listed(&left_out)));
    }
    let config = ForecastConfig {
        panel: Some(Panel {
            column: key,
            series: panel
                .iter()
                .zip(&transforms)
                .map(|(one, transform)| PanelSeries { key: one.key.clone(), transform: *transform })
                .collect(),
        }),
        ..config
    };
    let data = numbers(&config, values.iter())?;
    let args = Args { checkpoints: Checkpoints::prepare(&args, &outputs, &data)?, ..args };
    let mut progress = Progress::new(args.epochs, args.quiet);
    let started = Instant::now();
    let validates = validation > 0;
    let samples = |forecaster: &mut Forecaster| {
        let mut parts = [Vec::new(), Vec::new()];
        for (one, values) in panel.iter().zip(&values) {
            scale(forecaster, &one.key, &[])?;
            let end = end_of(&args, one)?;
            for (part, range) in parts.iter_mut().zip([0..end - validation, end - validation..end]) {
                // A series that is just long enough to be forecast has nothing to learn from.
                if range.end >= forecaster.config().context().max(range.start) + forecaster.config().horizon {
                    part.push(forecaster.samples(values, range)?);
                }
            }
        }
        let [train, validation] = parts;
        Ok(Samples { train: joined(train)?, validation: if validates { Some(joined(validation)?) } else { None } })
    };
    let described = |forecaster: &mut Forecaster| {
        if args.quiet {
            return Ok(());
        }
        print(&describe(&panel, forecaster.config(), season, validation, why_one.as_deref()))?;
        print(&format!("{}\n", forecaster.model().summary()))
    };
    let (mut forecaster, trained) = fit_members(&args, &config, Some(&reference), &mut progress, samples, described)?;
    let Some(outcome) = settle(trained, &progress, &args, &outputs.model, || forecaster.save(&outputs.model))? else {
        return Ok(interrupt::exit_code());
    };
    report(&outputs, || {
        let of_one = (validation + 1).saturating_sub(config.horizon);
        say_rough(forecaster.config().correction.as_ref(), of_one * panel.len());
        loss_plot(&args, Some(&forecaster.config().column), ("mean squared error", " of scaled values"), &progress)
            .save(&outputs.loss)?;
        if !args.quiet {
            print(&format!("{}\n", ending(&outcome, &progress, started)))?;
        }
        let mut written = vec![&outputs.model, &outputs.loss];
        let starts = panel.iter().map(|one| end_of(&args, one)).collect::<Result<Vec<_>>>()?;
        if args.test_fraction > 0.0 {
            let start = |one: &OneSeries| {
                panel.iter().zip(&starts).find(|(other, _)| other.key == one.key).map_or(0, |(_, start)| *start)
            };
            let name = name(&args);
            let comparison = PanelComparison::of(&name, &mut forecaster, &panel, season, start, true)?;
            print(&comparison.table("test error", args.quiet)?)?;
            let shown = panel.first().and_then(|one| Some((one, values.first()?, comparison.of_series(&one.key)?)));
            if let Some((first, values, of_first)) = shown {
                scale(&mut forecaster, &first.key, &[])?;
                let backtest = forecaster.backtest(values, start(first)..values.nrows())?;
                forecast_plot(&name, "the part held back", &first.rows, &backtest, of_first, forecaster.config())?
                    .save(&outputs.test)?;
                written.push(&outputs.test);
            }
        }
        finish(&args, &written, &outcome, &outputs)
    })
}

/// How the series of a panel are learned.
struct Prepared {
    panel: Vec<OneSeries>,
    /// All columns that the model reads of each of them: those of the file, then those of the calendar.
    values: Vec<Array2<f64>>,
    config: ForecastConfig,
    season: usize,
    /// Values of each series to validate on.
    validation: usize,
    transforms: Vec<fused_rnn::forecast::Transform>,
    reference: fused_rnn::forecast::Reference,
    /// Keys of series that are too short.
    left_out: Vec<String>,
    /// Why one value is forecast at once though there is a season.
    why_one: Option<String>,
}

/// Where the test part of a series begins.
fn end_of(args: &Args, one: &OneSeries) -> Result<usize> {
    Ok(TimeSplit::new(one.rows.values.nrows(), args.validation_fraction, args.test_fraction)?.test.start)
}

/// Chooses what is not told, on the values before the test parts alone.
fn prepare(args: &Args, panel: Vec<OneSeries>) -> Result<Prepared> {
    let mut lengths = panel.iter().map(|one| end_of(args, one)).collect::<Result<Vec<_>>>()?;
    lengths.sort_unstable();
    let usual_length = lengths.get(lengths.len() / 2).copied().unwrap_or(0);
    // The season that most series show.
    let mut seasons = Vec::new();
    for one in &panel {
        let end = end_of(args, one)?;
        let axis = TimeAxis::new(&one.rows.complete.labels);
        let seen = one.rows.complete.values.get(..end).unwrap_or(&one.rows.complete.values);
        seasons.push(season(&axis, seen, one.rows.values.nrows()));
    }
    seasons.sort_unstable();
    let most = seasons.chunk_by(|a, b| a == b).max_by_key(|run| run.len()).and_then(|run| run.first().copied());
    let (detected, is_of_calendar) = most.unwrap_or((1, false));
    let season = args.season.unwrap_or(detected);
    for (name, size) in [
        ("season", season),
        ("epochs", args.epochs),
        ("window", args.window.unwrap_or(1)),
        ("horizon", args.horizon.unwrap_or(1)),
    ] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let usual = if is_of_calendar && season <= LONGEST_SEASON { season } else { 1 };
    let fits = 5 * usual <= usual_length;
    let horizon = args.horizon.unwrap_or(if fits { usual } else { 1 });
    let why_one = (args.horizon.is_none() && usual > 1 && !fits).then(|| why_one(usual, usual_length, 0));
    let validation = match args.validation_fraction {
        0.0 => 0,
        fraction => {
            ((usual_length as f64 * fraction) as usize).max(2 * horizon.min(usual_length)).min(usual_length / 3)
        }
    };
    let train = usual_length - validation;
    let window =
        args.window.unwrap_or(WINDOW.max(if season <= LONGEST_SEASON { season } else { 1 }).min((train / 3).max(1)));
    let is_long = |one: &OneSeries| -> Result<bool> {
        let end = end_of(args, one)?;
        let test = one.rows.values.nrows() - end;
        let needed = window.saturating_add(1).saturating_add(horizon).max(season.saturating_mul(2)).max(train / 2);
        Ok(end.saturating_sub(validation) >= needed && (args.test_fraction == 0.0 || test >= horizon))
    };
    let mut left_out = Vec::new();
    let mut kept = Vec::new();
    for one in panel {
        if is_long(&one)? { kept.push(one) } else { left_out.push(one.key) }
    }
    let Some(first) = kept.first() else {
        return Err(Error::Data {
            source_name: args.data.display().to_string(),
            line: None,
            problem: format!(
                "too few rows: none of {} series has window {window} + horizon {horizon} values to train on, {validation} to validate and \
                 {horizon} to test; use a smaller --window or --horizon",
                left_out.len()
            ),
        });
    };
    let mut trends = 0;
    for one in &kept {
        let end = end_of(args, one)?.saturating_sub(validation);
        trends += usize::from(one.rows.complete.values.get(..end).is_some_and(has_trend));
    }
    let mut config = ForecastConfig {
        column: first.rows.column.clone(),
        inputs: Vec::new(),
        known: Vec::new(),
        panel: None,
        gaps: args.gaps.unwrap_or_default(),
        window,
        horizon,
        difference: 2 * trends > kept.len(),
        scaler: Scaler::IDENTITY,
        reading: first.rows.reading.clone(),
        correction: None,
    };
    for (i, name) in first.rows.known.iter().enumerate() {
        let mut learned = Vec::new();
        for one in &kept {
            learned.extend(one.rows.values.slice(s![..end_of(args, one)? - validation, 1 + i]));
        }
        let scaler = Scaler::standard(&learned)?;
        config.known.push(KnownColumn { source: Known::Column(name.clone()), scaler });
    }
    let mut best: Option<Prepared> = None;
    let mut least = f64::INFINITY;
    let of_calendar = features(args, &kept, season)?;
    let with_calendar = ForecastConfig { known: [&config.known[..], &of_calendar].concat(), ..config.clone() };
    let without = (Choice::told(args.calendar) != Some(true)).then_some(config);
    for mut config in without.into_iter().chain((!of_calendar.is_empty()).then_some(with_calendar)) {
        let values = kept.iter().map(|one| one.rows.for_model(&config)).collect::<Result<Vec<_>>>()?;
        let mut seen = Vec::new();
        for (one, values) in kept.iter().zip(&values) {
            seen.push(SeenSeries { values: values.view(), end: end_of(args, one)? });
        }
        let chosen = config.choose_correction(&seen, validation, season, Choice::told(args.log))?;
        if best.is_none() || chosen.error < least {
            least = chosen.error;
            let (transforms, reference) = (chosen.transforms, chosen.fitted_to_all);
            let (panel, left_out, why_one) = (Vec::new(), Vec::new(), None);
            best =
                Some(Prepared { panel, values, config, season, validation, transforms, reference, left_out, why_one });
        }
    }
    let prepared = best.ok_or(Error::ZeroSize { name: "number of series" })?;
    Ok(Prepared { panel: kept, left_out, why_one, ..prepared })
}

/// The features of the calendar that say something of these series: those of the longest, where there are dates of days beside all.
fn features(args: &Args, panel: &[OneSeries], season: usize) -> Result<Vec<KnownColumn>> {
    let told = Choice::told(args.calendar);
    let axes: Vec<TimeAxis> = panel.iter().map(|one| TimeAxis::new(&one.rows.complete.labels)).collect();
    let longest = panel.iter().zip(&axes).max_by_key(|(one, _)| one.rows.values.nrows());
    let have_days = axes.iter().all(|axis| axis.day(0).is_some());
    let found = match longest.filter(|_| told != Some(false) && have_days) {
        Some((one, axis)) => calendar::features(axis, season, end_of(args, one)?),
        None => Vec::new(),
    };
    if told == Some(true) && found.is_empty() {
        return Err(Error::Unsupported {
            what: "--calendar on".to_owned(),
            why: format!(
                "{} has no dates of days over a week or two years for each series, or the season of {season} says as much",
                args.data.display()
            ),
        });
    }
    Ok(found)
}

/// Samples of all series as one.
fn joined(parts: Vec<(Array3<f32>, Array2<f32>)>) -> Result<(Array3<f32>, Array2<f32>)> {
    let failed = |e: ndarray::ShapeError| Error::Shape {
        tensor: "samples of the series".to_owned(),
        expected: "samples of one shape".to_owned(),
        got: e.to_string(),
    };
    if parts.is_empty() {
        return Err(Error::ZeroSize { name: "number of series that are long enough" });
    }
    let x: Vec<_> = parts.iter().map(|(x, _)| x.view()).collect();
    let y: Vec<_> = parts.iter().map(|(_, y)| y.view()).collect();
    Ok((concatenate(Axis(0), &x).map_err(failed)?, concatenate(Axis(0), &y).map_err(failed)?))
}

fn describe(
    panel: &[OneSeries],
    config: &ForecastConfig,
    season: usize,
    validation: usize,
    why_one: Option<&str>,
) -> String {
    let why_one = why_one.map_or(String::new(), |why| format!(" ({why})"));
    let values: usize = panel.iter().map(|one| one.rows.values.nrows()).sum();
    let keys: Vec<String> = panel.iter().map(|one| one.key.clone()).collect();
    let of_season = if season == 1 { "no season".to_owned() } else { format!("a season of {season}") };
    let learned = config.correction.as_ref().map_or(String::new(), |correction| {
        let logs = if correction.transform.floor.is_some() { ", of logarithms" } else { "" };
        format!("{}{logs}", correction.reference.described())
    });
    let known: Vec<&str> = config.known.iter().map(|known| known.source.name()).collect();
    let known = if known.is_empty() { String::new() } else { format!(", with {} known ahead", known.join(", ")) };
    format!(
        "{} series of column {}{known}, {values} values: {}\n\
         {of_season}; {validation} values of each to validate; forecasts {} at once from windows of {}{why_one}\n\
         learns what is left over by {learned}\n\n",
        panel.len(),
        config.column,
        listed(&keys),
        config.horizon,
        config.window
    )
}
