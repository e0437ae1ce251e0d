//! `fused-rnn search`: which window and which sizes of a network forecast the validation part of a series best.

use std::process::ExitCode;

use fused_rnn::data::TimeSplit;
use fused_rnn::figures::rounded;
use fused_rnn::forecast::Measures;
use fused_rnn::{Error, Result};

use crate::data_file::{holds_sequences, refuse_model, say_pipe};
use crate::interrupt;
use crate::output::{counted, note, print};
use crate::progress::Progress;
use crate::train;

/// Most combinations: each is a training.
const MOST: usize = 1000;

/// Trains a model as `train` does with every combination of windows, units and layers, and lists them by the error of their forecasts of the
/// validation part of the series, best first. The test part is not looked at; it is for `train` with what was found. Writes no files.
#[derive(clap::Args)]
#[group(id = "search")]
pub struct Args {
    #[command(flatten)]
    train: train::Args,
    /// Windows to try, with commas between [default: a half, one and two of train's].
    #[arg(long, value_name = "SIZES", value_delimiter = ',')]
    windows: Vec<usize>,
    /// Units of each layer to try, with commas between.
    #[arg(long, value_name = "SIZES", value_delimiter = ',', default_values_t = [10, 50])]
    try_units: Vec<usize>,
    /// Numbers of layers to try, with commas between.
    #[arg(long, value_name = "NUMBERS", value_delimiter = ',', default_values_t = [1, 2])]
    try_layers: Vec<usize>,
}

/// A combination and its errors on the validation part.
struct Tried {
    window: usize,
    units: usize,
    layers: usize,
    of: Measures,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let Args { train: mut args, mut windows, try_units, try_layers } = args;
    say_pipe(&args.data);
    refuse_model(&args.data)?;
    if holds_sequences(&args.data) || args.task == Some(train::options::TaskKind::Classification) {
        return Err(Error::Unsupported {
            what: format!("a search on {}", args.data.display()),
            why: "it is for a series in a CSV file".to_owned(),
        });
    }
    args.refuse(
        &[
            ("out", args.out.is_some()),
            ("window", args.window.is_some()),
            ("mpi", args.mpi),
            ("resume", args.resume),
            ("checkpoint-every", args.checkpoint_every != train::options::CHECKPOINT_EVERY),
            ("test", args.test.is_some()),
            ("panel", args.panel.is_some()),
            ("length", args.length.is_some()),
        ],
        "search tries --windows, --try-units and --try-layers on one series, and writes no files",
    )?;
    let rows = train::series::read(&args)?;
    let split = || TimeSplit::new(rows.values.nrows(), args.validation_fraction, args.test_fraction);
    let usual = train::series::prepare(&args, &rows, split()?)?;
    if usual.split.validation.is_empty() && args.validation_fraction > 0.0 {
        return Err(Error::Data {
            source_name: rows.series.source_name.clone(),
            line: None,
            problem: format!(
                "too few rows: of {} values --validation-fraction {} leaves none to measure on",
                rows.values.nrows(),
                args.validation_fraction
            ),
        });
    }
    if usual.split.validation.is_empty() {
        return Err(Error::InvalidOption {
            option: "validation-fraction".to_owned(),
            expected: "more than 0, for the search measures on the validation part".to_owned(),
            got: args.validation_fraction.to_string(),
        });
    }
    if windows.is_empty() {
        windows = [usual.config.window.div_ceil(2), usual.config.window, 2 * usual.config.window].to_vec();
        windows.retain(|window| 3 * window <= usual.split.train.len());
        windows.dedup();
    }
    let mut combinations = Vec::new();
    for window in &windows {
        for units in &try_units {
            combinations.extend(try_layers.iter().map(|layers| (*window, *units, *layers)));
        }
    }
    if !(1..=MOST).contains(&combinations.len()) {
        return Err(Error::InvalidOption {
            option: "windows".to_owned(),
            expected: format!("1 to {MOST} combinations with --try-units and --try-layers"),
            got: combinations.len().to_string(),
        });
    }
    args.horizon = Some(usual.config.horizon);
    let network = args.network.clone();
    let mut tried = Vec::new();
    for (number, (window, units, layers)) in combinations.iter().copied().enumerate() {
        args.window = Some(window);
        args.network = network.sized(units, layers);
        let split = TimeSplit::new(rows.values.nrows(), args.validation_fraction, args.test_fraction)?;
        let mut prepared = train::series::prepare(&args, &rows, split)?;
        // Of what was fitted to the training part alone: the validation part measures.
        prepared.fitted_to_all = prepared.config.correction.as_ref().map(|correction| correction.reference.clone());
        let mut progress = Progress::silent();
        let (mut forecaster, trained) = train::series::fit_forecaster(&args, &prepared, &mut progress, |_| Ok(()))?;
        trained?;
        if interrupt::is_asked() {
            note(&format!("interrupted at combination {} of {}", number + 1, combinations.len()));
            return Ok(interrupt::exit_code());
        }
        let backtest = forecaster.backtest(&prepared.values, prepared.split.validation.clone())?;
        let of = Measures::of(backtest.truth.view(), backtest.forecast.view(), None)?;
        if !args.quiet {
            let total = combinations.len();
            note(&format!(
                "{} of {total}: window {window}, {units} units, {}: RMSE {}",
                number + 1,
                counted(layers, "layer"),
                rounded(of.rmse, 4)
            ));
        }
        tried.push(Tried { window, units, layers, of });
    }
    tried.sort_by(|a, b| a.of.rmse.total_cmp(&b.of.rmse));
    let head = format!("validation error, {} ahead", counted(usual.config.horizon, "step"));
    let mut text =
        format!("\n{head}\n{:>8}  {:>8}  {:>8}  {:>12}  {:>12}\n", "window", "units", "layers", "RMSE", "MAE");
    for Tried { window, units, layers, of } in &tried {
        let (rmse, mae) = (rounded(of.rmse, 4), rounded(of.mae, 4));
        text += &format!("{window:>8}  {units:>8}  {layers:>8}  {rmse:>12}  {mae:>12}\n");
    }
    if let Some(best) = tried.first() {
        text += &format!(
            "\nThe best: fused-rnn train {} --window {} --units {} --layers {}\n",
            args.data.display(),
            best.window,
            best.units,
            best.layers
        );
    }
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}
