//! `fused-rnn backtest`: forecasts of a series from several of its values on, each by a model that is trained anew on what lies before.
#![expect(
    clippy::indexing_slicing,
    reason = "origins lie inside of the series, and steps of an origin inside of the horizon that arrays are made for"
)]

use std::process::ExitCode;

use fused_rnn::data::TimeSplit;
use fused_rnn::data::gaps::Complete;
use fused_rnn::{Error, Result};
use ndarray::{Array2, s};

use crate::baselines::Comparison;
use crate::data_file::{holds_sequences, refuse_model, say_pipe};
use crate::interrupt;
use crate::output::{note, print};
use crate::progress::Progress;
use crate::rows::Rows;
use crate::train;

/// Most origins: each is a training.
const MOST: usize = 1000;

/// Trains a model as `train` does at each of several origins of a series of a CSV file, on the values before it, and measures its forecasts of
/// the values after it, beside those of simple forecasts. No value after an origin is seen. Writes no files.
#[derive(clap::Args)]
#[group(id = "backtest")]
pub struct Args {
    #[command(flatten)]
    train: train::Args,
    /// Origins; the last lies a horizon before the end.
    #[arg(long, default_value_t = 5, value_name = "N")]
    origins: usize,
    /// Values from an origin to the next [default: the horizon].
    #[arg(long, value_name = "N")]
    step: Option<usize>,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let Args { train: args, origins, step } = args;
    say_pipe(&args.data);
    refuse_model(&args.data)?;
    if holds_sequences(&args.data) || args.task == Some(train::options::TaskKind::Classification) {
        return Err(Error::Unsupported {
            what: format!("a backtest of {}", args.data.display()),
            why: "it is for a series in a CSV file; sequences and classes are measured by train and evaluate"
                .to_owned(),
        });
    }
    args.refuse(
        &[
            ("out", args.out.is_some()),
            ("mpi", args.mpi),
            ("resume", args.resume),
            ("checkpoint-every", args.checkpoint_every != train::options::CHECKPOINT_EVERY),
            ("test", args.test.is_some()),
            ("panel", args.panel.is_some()),
            ("length", args.length.is_some()),
            ("test-fraction", args.test_fraction != 0.2),
        ],
        "backtest forecasts what follows each of its --origins in one series, and writes no files",
    )?;
    if !(1..=MOST).contains(&origins) {
        return Err(Error::InvalidOption {
            option: "origins".to_owned(),
            expected: format!("1 to {MOST}"),
            got: origins.to_string(),
        });
    }
    if step == Some(0) {
        return Err(Error::ZeroSize { name: "step" });
    }
    let rows = train::series::read(&args)?;
    let total = rows.values.nrows();
    let horizon = match args.horizon {
        Some(horizon) => horizon,
        None => {
            let split = TimeSplit::new(total, args.validation_fraction, args.test_fraction)?;
            train::series::prepare(&args, &rows, split)?.config.horizon
        }
    };
    let args = train::Args { horizon: Some(horizon), ..args };
    let step = step.unwrap_or(horizon).max(1);
    let Some(first) = total
        .checked_sub(horizon)
        .and_then(|last| last.checked_sub((origins - 1).checked_mul(step)?))
        .filter(|first| *first > 0)
    else {
        return Err(Error::Data {
            source_name: rows.series.source_name.clone(),
            line: None,
            problem: format!(
                "too few rows: {total} values, but {origins} origins {step} apart with a horizon of {horizon} need more"
            ),
        });
    };
    let starts: Vec<usize> = (0..origins).map(|number| first + number * step).collect();
    let mut forecast = Array2::zeros((origins, horizon));
    let (mut season, mut window) = (1, 1);
    let mut held: Vec<(f64, usize)> = Vec::new();
    for (number, origin) in starts.iter().enumerate() {
        let known = before(&rows, *origin);
        let split = TimeSplit::new(*origin, args.validation_fraction, 0.0)?;
        let prepared = train::series::prepare(&args, &known, split)?;
        (season, window) = (prepared.season, prepared.config.window);
        let mut progress = Progress::silent();
        let (mut forecaster, trained) = train::series::fit_forecaster(&args, &prepared, &mut progress, |_| Ok(()))?;
        trained?;
        if interrupt::is_asked() {
            note(&format!("interrupted at origin {} of {origins}", number + 1));
            return Ok(interrupt::exit_code());
        }
        let future = known.future_for(&prepared.config, horizon)?;
        let ahead = forecaster.forecast_known(&prepared.values, future.view(), horizon)?;
        for (step, value) in ahead.iter().enumerate() {
            forecast[[number, step]] = *value;
            let truth = rows.values[[origin + step, 0]];
            let correction = forecaster.config().correction.as_ref();
            let Some(correction) = correction.filter(|c| c.intervals.is_some()) else { continue };
            for (level, (lower, upper)) in correction.bounds(*value, step).into_iter().enumerate() {
                if held.len() <= level {
                    held.push((correction.intervals.as_ref().map_or(0.0, |i| i.levels[level]), 0));
                }
                held[level].1 += usize::from((lower..=upper).contains(&truth));
            }
        }
        if !args.quiet {
            let label = known.complete.labels.last().map_or("", String::as_str);
            note(&format!(
                "origin {} of {origins}: {origin} values known{}{label}",
                number + 1,
                if label.is_empty() { "" } else { ", to " }
            ));
        }
    }
    let name = train::series::name(&args);
    let comparison =
        Comparison::of(&name, rows.values.column(0), &starts, forecast, (season, first), Some(window.min(first)))?;
    print(&comparison.table(&format!("backtest, {origins} forecasts"))?)?;
    if !held.is_empty() {
        let count = (origins * horizon) as f64;
        let parts: Vec<String> = held
            .iter()
            .map(|(level, held)| format!("of {:.0} % hold {:.1} %", 100.0 * level, 100.0 * *held as f64 / count))
            .collect();
        print(&format!("Intervals {} of what came.\n", parts.join(", ")))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// What was known before an origin.
fn before(rows: &Rows, origin: usize) -> Rows {
    let Complete { values, labels, .. } = &rows.complete;
    let of_future = rows.values.ncols() - rows.known.len();
    let after = rows.values.slice(s![origin.., of_future..]).to_owned();
    Rows {
        series: rows.series.clone(),
        column: rows.column.clone(),
        complete: Complete {
            values: values[..origin].to_vec(),
            labels: labels[..origin.min(labels.len())].to_vec(),
            filled: 0,
        },
        others: rows.others.clone(),
        known: rows.known.clone(),
        future: (after, labels[origin.min(labels.len())..].to_vec()),
        values: rows.values.slice(s![..origin, ..]).to_owned(),
        categories: rows.categories.clone(),
        reading: rows.reading.clone(),
        notes: Vec::new(),
    }
}
