//! `fused-rnn evaluate`: how well a trained model does on data with a known outcome.

use std::path::PathBuf;
use std::process::ExitCode;

use fused_rnn::data::{Gaps, TimeAxis, TimeSeriesSet, TimeSplit};
use fused_rnn::model::{Forecaster, RowsConfig, SequenceModel, Trained};
use fused_rnn::{Error, Result, files};

use crate::baselines::season;
use crate::classified;
use crate::data_file::{ROWS, check_order, holds_sequences, in_file, no_task, read_sequences, say_pipe, wrong_data};
use crate::device::DeviceKind;
use crate::output::{listed, print};
use crate::panel::{self, OneSeries, PanelComparison};
use crate::pictures::{compare, coverage, forecast_plot};
use crate::reading::ReadingArgs;
use crate::report::Report;
use crate::rows::Rows;

/// Measures a model that `train` wrote: forecasts of a series beside what came and beside simple forecasts that learn nothing (ridge, which does,
/// is in the table of `train`), or classes or numbers of sequences, or classes of the
/// rows of a CSV file, beside the true ones.
#[derive(clap::Args)]
pub struct Args {
    /// The model, a file that `train` wrote.
    model: PathBuf,
    /// CSV file with a series or with rows and their classes, or .ts file of sequences, as the model was trained on.
    data: PathBuf,
    /// Column by name, or by number counted from 1 [default: the one that the model was trained on].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Missing values: error, drop, interpolate or forward-fill [default: as in training].
    #[arg(long, value_name = "POLICY")]
    gaps: Option<Gaps>,
    #[command(flatten)]
    reading: ReadingArgs,
    /// Last part of the series to forecast, or of the rows whose windows are measured [default: all, but for the first window].
    #[arg(long, value_name = "FRACTION")]
    test_fraction: Option<f64>,
    /// Where to run the model: cpu, cuda, emulated, ptx or reference.
    #[arg(long, value_enum, default_value_t = DeviceKind::Cpu)]
    device: DeviceKind,
    /// SVG file to write, of the forecasts beside the truth, or of classes the confusion matrix [default: none].
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print only the errors, or of classes the means.
    #[arg(short, long)]
    quiet: bool,
}

pub fn run(args: Args) -> Result<ExitCode> {
    say_pipe(&args.data);
    if let Some(plot) = &args.plot {
        files::check_writable(plot)?;
    }
    check_order(&args.model, &args.data)?;
    match Trained::load(args.device.open()?, &args.model)? {
        Trained::Forecaster(forecaster) => of_series(forecaster, args),
        Trained::Sequences(model) => of_sequences(model, args),
        Trained::Model(_) => Err(no_task(&args.model)),
    }
}

fn of_series(mut forecaster: Forecaster, args: Args) -> Result<ExitCode> {
    if holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, "a series in a CSV file, not sequences"));
    }
    if let Some(series) = panel::of_model(&args.data, forecaster.config(), args.gaps, &args.reading)? {
        return of_panel(forecaster, series, &args);
    }
    let rows = Rows::of_model(&args.data, forecaster.config(), args.column, args.gaps, &args.reading)?;
    let len = rows.values.nrows();
    let part = match args.test_fraction {
        None => 0..len,
        Some(fraction) => TimeSplit::new(len, 0.0, fraction)?.test,
    };
    let values = rows.for_model(forecaster.config())?;
    let backtest = forecaster.backtest(&values, part).map_err(in_file(&args.data))?;
    let axis = TimeAxis::new(&rows.complete.labels);
    let config = forecaster.config();
    let season = match &config.correction {
        Some(correction) => correction.season,
        None => season(&axis, rows.complete.values.get(..backtest.start).unwrap_or_default(), len).0,
    };
    let comparison = compare("model", &rows, &backtest, config, season, None)?;
    print(&comparison.table(&format!("error, {} forecasts", backtest.truth.nrows()))?)?;
    print(&coverage(config, &backtest)?)?;
    if let Some(plot) = &args.plot {
        forecast_plot("model", "these data", &rows, &backtest, &comparison, config)?.save(plot)?;
        print(&format!("\nwrote {}\n", plot.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn of_panel(mut forecaster: Forecaster, series: Vec<OneSeries>, args: &Args) -> Result<ExitCode> {
    for (option, given) in [("column", args.column.is_some()), ("plot", args.plot.is_some())] {
        if given {
            return Err(Error::Unsupported {
                what: format!("--{option} for {}", args.data.display()),
                why: "the model is for several series of a file, and all are measured".to_owned(),
            });
        }
    }
    let season = forecaster.config().correction.as_ref().map_or(1, |correction| correction.season);
    if let Some(fraction) = args.test_fraction {
        TimeSplit::new(1, 0.0, fraction)?;
    }
    let start = |one: &OneSeries| {
        let len = one.rows.values.nrows();
        args.test_fraction.map_or(0, |fraction| len - (len as f64 * fraction).round() as usize)
    };
    let (context, horizon) = (forecaster.config().context(), forecaster.config().horizon);
    let is_long = |one: &OneSeries| one.rows.values.nrows() >= context.max(start(one)) + horizon;
    let option = if args.test_fraction.is_some() { " in the part that --test-fraction takes" } else { "" };
    let needed =
        format!("the {context} values that the model reads and, after them, the {horizon} that it forecasts{option}");
    let series = panel::long_enough(series, &args.data, is_long, &needed)?;
    let comparison =
        PanelComparison::of("model", &mut forecaster, &series, season, start, false).map_err(in_file(&args.data))?;
    print(&comparison.table("error", args.quiet)?)?;
    Ok(ExitCode::SUCCESS)
}

fn of_sequences(model: SequenceModel, args: Args) -> Result<ExitCode> {
    if let Some(rows) = model.config().rows.clone() {
        return of_rows(model, &rows, args);
    }
    if !holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, "sequences in a .ts file, not a series"));
    }
    for (option, given) in [
        ("column", args.column.is_some()),
        ("gaps", args.gaps.is_some()),
        ("test-fraction", args.test_fraction.is_some()),
    ]
    .into_iter()
    .chain(args.reading.given())
    {
        if given {
            return Err(Error::Unsupported {
                what: format!("--{option} for {}", args.data.display()),
                why: "it is for a series in a CSV file; all sequences of a .ts file are measured".to_owned(),
            });
        }
    }
    let set = read_sequences(&args.data)?;
    report(model, &set, "all", &args)
}

fn of_rows(model: SequenceModel, config: &RowsConfig, args: Args) -> Result<ExitCode> {
    if holds_sequences(&args.data) {
        return Err(wrong_data(&args.model, &args.data, ROWS));
    }
    if args.column.is_some() {
        return Err(Error::Unsupported {
            what: format!("--column for {}", args.data.display()),
            why: format!("the model reads the columns that it was trained on ({})", listed(&config.columns)),
        });
    }
    let rows = classified::of_model(&args.data, config, args.gaps, &args.reading, true)?;
    let len = rows.values.nrows();
    let (part, name) = match args.test_fraction {
        None => (0..len, "all"),
        Some(fraction) => (TimeSplit::new(len, 0.0, fraction)?.test, "the last part"),
    };
    let set = classified::windows(&rows, part, model.config())?;
    report(model, &set, name, &args)
}

fn report(mut model: SequenceModel, set: &TimeSeriesSet, part: &str, args: &Args) -> Result<ExitCode> {
    let report = Report::of(&mut model, set).map_err(in_file(&args.data))?;
    print(&report.text(part, "model", args.quiet)?)?;
    if let Some(plot) = &args.plot {
        report.save_picture("The model", &args.data, plot)?;
        print(&format!("\nwrote {}\n", plot.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}
