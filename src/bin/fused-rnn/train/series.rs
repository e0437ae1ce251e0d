//! `fused-rnn train` on columns of a CSV file: a model that continues a series, and its error beside that of saying the last value.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fused_rnn::data::{ColumnChoice, Scaler, Series, TimeSplit, has_trend};
use fused_rnn::model::{ForecastConfig, Forecaster, InputColumn};
use fused_rnn::nn::Loss;
use fused_rnn::optim::Adam;
use fused_rnn::{Error, Result};

use super::options::{Args, Learn, Outputs, WINDOW};
use super::run::{ending, finish, fit, loss_plot, settle};
use crate::errors::{Errors, LAST_VALUE};
use crate::output::print;
use crate::pictures::forecast_plot;
use crate::progress::{INTERRUPTED, Progress};
use crate::rows::Rows;

/// A series, prepared for training.
struct SeriesTraining {
    args: Args,
    interrupted: Arc<AtomicBool>,
    rows: Rows,
    split: TimeSplit,
    config: ForecastConfig,
    outputs: Outputs,
}

/// Reads the series, trains on it, and reports.
pub fn train(args: Args, interrupted: Arc<AtomicBool>) -> Result<ExitCode> {
    args.refuse(
        &[("test", args.test.is_some()), ("length", args.length.is_some())],
        "it is for .ts files of sequences; the last part of a CSV file is held back with --test-fraction",
    )?;
    let gaps = args.gaps.unwrap_or_default();
    let reading = args.reading.options()?;
    let rows = if args.columns.is_some() || args.target.is_some() {
        Rows::choose(&args.data, args.columns.as_deref(), args.target.as_deref(), gaps, &reading)?
    } else {
        let choice = args.column.clone().map_or(ColumnChoice::LastNumeric, ColumnChoice::Named);
        Rows::read(&args.data, &choice, &[], gaps, &reading)?
    };
    let split = TimeSplit::new(rows.values.nrows(), args.validation_fraction, args.test_fraction)?;
    let learned = |column: usize| rows.values.column(column).to_vec()[split.train.clone()].to_vec();
    let difference = |values: &[f64]| match args.learn.unwrap_or(Learn::Auto) {
        Learn::Values => false,
        Learn::Changes => true,
        Learn::Auto => has_trend(values),
    };
    let values = learned(0);
    let mut config = ForecastConfig {
        column: rows.column.clone(),
        inputs: Vec::new(),
        gaps,
        window: args.window.unwrap_or(WINDOW),
        horizon: args.horizon.unwrap_or(1),
        difference: difference(&values),
        scaler: Scaler::IDENTITY,
        reading: rows.reading.clone(),
    };
    let others: Vec<_> = (1..).zip(&rows.others).map(|(i, name)| (name, learned(i))).collect();
    let unfitted = |(name, values): &(&String, Vec<f64>)| InputColumn {
        column: (*name).clone(),
        difference: difference(values),
        scaler: Scaler::IDENTITY,
    };
    config.inputs = others.iter().map(unfitted).collect();
    check_length(&args, &rows.series, &config, &split)?;
    let outputs = Outputs::prepare(&args, "forecast.svg")?;

    let scaler = |difference| if difference { Scaler::standard } else { Scaler::min_max };
    config.fit_scaler(scaler(config.difference), &values)?;
    for (input, (_, values)) in config.inputs.iter_mut().zip(&others) {
        *input = InputColumn::fitted(&input.column, input.difference, scaler(input.difference), values)?;
    }
    SeriesTraining { interrupted, rows, split, config, outputs, args }.run()
}

impl SeriesTraining {
    /// Trains, reports, and writes the results.
    fn run(self) -> Result<ExitCode> {
        let SeriesTraining { args, interrupted, rows, split, config, outputs } = self;
        let device = args.device.open_in(args.precision)?;
        let optimizer = Adam::new(args.learning_rate)?;
        let mut forecaster = Forecaster::with_layers(device, config, args.network.layers()?, args.seed)?;
        forecaster.model().compile(optimizer, Loss::MeanSquaredError)?;
        let (x, y) = forecaster.samples(&rows.values, split.train.clone())?;
        let validation = match split.validation.is_empty() {
            true => None,
            false => Some(forecaster.samples(&rows.values, split.validation.clone())?),
        };
        if !args.quiet {
            print(&describe(&rows, &split, &args, forecaster.config()))?;
            print(&format!("{}\n", forecaster.model().summary()))?;
        }

        let mut progress = Progress::new(args.epochs, args.quiet, interrupted);
        let started = Instant::now();
        let validation = validation.as_ref().map(|(x, y)| (x.view().into_dyn(), y.view().into_dyn()));
        let trained =
            fit(forecaster.model(), &args, x.view().into_dyn(), y.view().into_dyn(), validation, &mut progress);
        let Some(outcome) = settle(trained, &progress, &outputs.model, || forecaster.save(&outputs.model))? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        loss_plot(&args, "mean squared error", " of scaled values", &progress).save(&outputs.loss)?;
        if !args.quiet {
            print(&format!("{}\n", ending(&outcome, &progress, started)))?;
        }
        let mut written = vec![&outputs.model, &outputs.loss];
        if !split.test.is_empty() {
            let backtest = forecaster.backtest(&rows.values, split.test.clone())?;
            let errors = Errors::of(&backtest)?;
            let name = args.network.name();
            print(&errors.table(&format!("test error, {} forecasts", backtest.truth.nrows()), &name, LAST_VALUE))?;
            forecast_plot(&name, "the part held back", &rows, &backtest, &errors).save(&outputs.test)?;
            written.push(&outputs.test);
        }
        finish(&args, &written, &outcome, &outputs)
    }
}

/// Refuses a series whose parts hold no window, in the words of the command line.
fn check_length(args: &Args, series: &Series, config: &ForecastConfig, split: &TimeSplit) -> Result<()> {
    for (name, size) in [("window", config.window), ("horizon", config.horizon), ("epochs", args.epochs)] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let fail = |problem: String| Err(Error::Data { source_name: series.source_name.clone(), line: None, problem });
    let total = split.test.end;
    let needed = config.context().saturating_add(config.horizon);
    if split.train.len() < needed {
        return fail(format!(
            "too few rows: of {total} values {} are left to train on, but window {}{} + horizon {} need {needed}; use a smaller \
             --window, or smaller --test-fraction and --validation-fraction",
            split.train.len(),
            config.window,
            if config.context() > config.window { " + 1 (to take differences)" } else { "" },
            config.horizon
        ));
    }
    for (name, part) in [("validation", &split.validation), ("test", &split.test)] {
        if !part.is_empty() && part.len() < config.horizon {
            return fail(format!(
                "too few rows: of {total} values the {name} part has {}, but --horizon {} needs at least as many; use a larger \
                 --{name}-fraction, or 0 to do without",
                part.len(),
                config.horizon
            ));
        }
    }
    Ok(())
}

fn describe(rows: &Rows, split: &TimeSplit, args: &Args, config: &ForecastConfig) -> String {
    let Rows { series, complete, others, .. } = rows;
    let learned = match (args.learn.unwrap_or(Learn::Auto), config.difference) {
        (Learn::Auto, true) => "changes (there is a trend)",
        (Learn::Auto, false) => "values (there is no trend)",
        (Learn::Values, _) => "values",
        (Learn::Changes, _) => "changes",
    };
    let beside = if others.is_empty() { String::new() } else { format!(", read beside {}", others.join(", ")) };
    let span = match (complete.labels.first(), complete.labels.last()) {
        (Some(first), Some(last)) if !first.is_empty() => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let gaps = match complete.filled {
        0 => String::new(),
        n => format!(", {n} missing ({})", config.gaps),
    };
    format!(
        "{}: {} values of column {}{beside}{span}{gaps}\n\
         {} to train on, {} to validate, {} to test; learns {learned} from windows of {}\n\n",
        series.source_name,
        complete.values.len(),
        series.name,
        split.train.len(),
        split.validation.len(),
        split.test.len(),
        config.window
    )
}
