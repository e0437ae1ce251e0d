//! `fused-rnn train`: from a CSV file to a model, its error, and two pictures.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fused_rnn::backend::DenseBackend;
use fused_rnn::cell::CellKind;
use fused_rnn::data::gaps::Complete;
use fused_rnn::data::{ColumnChoice, Gaps, Scaler, Series, TimeAxis, TimeSplit, has_trend, read_series};
use fused_rnn::model::{Backtest, EarlyStopping, FitOptions, ForecastConfig, Forecaster, Outcome};
use fused_rnn::nn::{Gru, LayerConfig, Loss, Lstm, SimpleRnn};
use fused_rnn::optim::Adam;
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, files, metrics};

use crate::device::{Device, Work};
use crate::output::{note, print};
use crate::progress::{INTERRUPTED, Progress, interrupt_flag};

/// Width and height of the pictures, in pixels.
pub const PLOT_SIZE: (u32, u32) = (1000, 500);

/// What the model reads and forecasts.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Learn {
    /// Changes where the training part has a trend, else values.
    Auto,
    /// The values, scaled to the range from 0 to 1.
    Values,
    /// The changes from each value to the next, scaled to mean 0 and standard deviation 1.
    Changes,
}

/// Reads one column of a CSV file as a series in time order, trains a recurrent layer and a dense one to say the next value from
/// the last ones, and writes model.safetensors, loss.svg and forecast.svg. The same data, options and seed give the same model file.
/// Ctrl-C stops training and keeps the best model so far (exit code 130).
#[derive(clap::Args)]
pub struct Args {
    /// CSV file; the first line is a header unless one of its cells is a number.
    data: PathBuf,
    /// Column by name, or by number counted from 1 [default: the last column of numbers].
    #[arg(long, value_name = "NAME")]
    column: Option<String>,
    /// Missing values: error, drop, interpolate or forward-fill.
    #[arg(long, default_value_t, value_name = "POLICY")]
    gaps: Gaps,
    /// Recurrent layer: rnn, lstm or gru.
    #[arg(long, default_value_t = CellKind::Lstm)]
    cell: CellKind,
    /// Units of the recurrent layer.
    #[arg(long, default_value_t = 50, value_name = "N")]
    units: usize,
    /// Values that the model reads to forecast the next.
    #[arg(long, default_value_t = 36, value_name = "N")]
    window: usize,
    /// Values that it forecasts at once.
    #[arg(long, default_value_t = 1, value_name = "N")]
    horizon: usize,
    /// What the model reads and forecasts.
    #[arg(long, value_enum, default_value_t = Learn::Auto)]
    learn: Learn,
    /// Most passes over the training part.
    #[arg(long, default_value_t = 100, value_name = "N")]
    epochs: usize,
    /// Stop after so many epochs without a lower validation loss.
    #[arg(long, default_value_t = 10, value_name = "EPOCHS")]
    patience: usize,
    /// Windows of one training step [default: 32, or as many as there are].
    #[arg(long, value_name = "N")]
    batch_size: Option<usize>,
    /// Learning rate of Adam.
    #[arg(long, default_value_t = 1e-3, value_name = "RATE")]
    learning_rate: f64,
    /// Last part of the series, held back to measure the error.
    #[arg(long, default_value_t = 0.2, value_name = "FRACTION")]
    test_fraction: f64,
    /// Part before it, held back to know when to stop.
    #[arg(long, default_value_t = 0.1, value_name = "FRACTION")]
    validation_fraction: f64,
    /// Seed of everything random: starting weights, order of windows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the results, made where it does not exist; what an earlier run left there is replaced
    /// [default: out/ and the name of the CSV file].
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Where to train: cpu, cuda or emulated. The same options give the same model file on the same kind of device.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    device: Device,
    /// Print only the test error.
    #[arg(short, long)]
    quiet: bool,
}

/// Where the results go.
struct Outputs {
    model: PathBuf,
    loss: PathBuf,
    forecast: PathBuf,
}

impl Outputs {
    /// Makes the folder and finds out whether its files can be written, before anything takes time.
    fn prepare(args: &Args) -> Result<Self> {
        let folder =
            args.out.clone().unwrap_or_else(|| Path::new("out").join(args.data.file_stem().unwrap_or_default()));
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        let outputs = Outputs {
            model: folder.join("model.safetensors"),
            loss: folder.join("loss.svg"),
            forecast: folder.join("forecast.svg"),
        };
        for path in [&outputs.model, &outputs.loss, &outputs.forecast] {
            files::check_writable(path)?;
        }
        Ok(outputs)
    }
}

/// A series, prepared for training.
struct Task {
    args: Args,
    interrupted: Arc<AtomicBool>,
    series: Series,
    complete: Complete,
    split: TimeSplit,
    config: ForecastConfig,
    outputs: Outputs,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let interrupted = interrupt_flag()?;
    let choice = args.column.clone().map_or(ColumnChoice::LastNumeric, ColumnChoice::Named);
    let series = read_series(&args.data, &choice)?;
    let complete = args.gaps.close(&series)?;
    let values = &complete.values;
    let split = TimeSplit::new(values.len(), args.validation_fraction, args.test_fraction)?;
    let mut config = ForecastConfig {
        column: series.name.clone(),
        inputs: Vec::new(),
        gaps: args.gaps,
        window: args.window,
        horizon: args.horizon,
        difference: match args.learn {
            Learn::Values => false,
            Learn::Changes => true,
            Learn::Auto => has_trend(&values[split.train.clone()]),
        },
        scaler: Scaler::IDENTITY,
    };
    check_length(&args, &series, &config, &split)?;
    let outputs = Outputs::prepare(&args)?;

    let scaler = if config.difference { Scaler::standard } else { Scaler::min_max };
    config.fit_scaler(scaler, &values[split.train.clone()])?;
    let device = args.device;
    device.run(Task { interrupted, series, split, config, outputs, complete, args })
}

impl Work for Task {
    type Output = ExitCode;

    fn on<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(self, backend: B) -> Result<ExitCode> {
        train(backend, self)
    }
}

fn train<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(backend: B, task: Task) -> Result<ExitCode> {
    let Task { args, interrupted, series, complete, split, config, outputs } = task;
    let values = &complete.values;
    let layer = match args.cell {
        CellKind::Rnn => LayerConfig::from(SimpleRnn::new(args.units)),
        CellKind::Lstm => Lstm::new(args.units).into(),
        CellKind::Gru => Gru::new(args.units).into(),
    };
    let optimizer = Adam::new(args.learning_rate)?;
    let mut forecaster = Forecaster::new(backend, config, layer, args.seed)?;
    forecaster.model().compile(optimizer, Loss::MeanSquaredError);
    let (x, y) = forecaster.samples(values, split.train.clone())?;
    let validation = match split.validation.is_empty() {
        true => None,
        false => Some(forecaster.samples(values, split.validation.clone())?),
    };
    if !args.quiet {
        print(&describe(&series, &complete, &split, &args, forecaster.config().difference))?;
        print(&format!("{}\n", forecaster.model().summary()))?;
    }

    let mut progress = Progress::new(args.epochs, args.quiet, interrupted);
    let started = Instant::now();
    let trained = forecaster.model().fit(
        x.view(),
        y.view(),
        FitOptions {
            epochs: args.epochs,
            batch_size: args.batch_size.unwrap_or(32.min(x.shape()[0])),
            validation_data: validation.as_ref().map(|(x, y)| (vec![x.view().into_dyn()], vec![y.view().into_dyn()])),
            early_stopping: Some(EarlyStopping { patience: args.patience, min_delta: 0.0, restore_best_weights: true }),
            callbacks: vec![&mut progress],
            ..FitOptions::default()
        },
    );
    progress.finish();

    let outcome = match (trained, progress.best()) {
        (Err(error @ Error::Diverged { .. }), Some(best)) => {
            forecaster.save(&outputs.model)?;
            note(&format!("the model of the best epoch, {}, is kept in {}", best.epoch, outputs.model.display()));
            return Err(error);
        }
        (Err(error @ Error::Diverged { .. }), None) => {
            note("no epoch was completed: no model is saved");
            return Err(error);
        }
        (Err(error), _) => return Err(error),
        (Ok(history), None) if history.outcome == Outcome::Interrupted => {
            note("interrupted before the first epoch was completed: no model is saved");
            return Ok(ExitCode::from(INTERRUPTED));
        }
        (Ok(history), _) => history.outcome,
    };
    forecaster.save(&outputs.model)?;
    loss_plot(&args, &progress).save(&outputs.loss)?;
    if !args.quiet {
        print(&format!("{}\n", ending(&outcome, &progress, started)))?;
    }
    let mut written = vec![&outputs.model, &outputs.loss];
    if !split.test.is_empty() {
        let backtest = forecaster.backtest(values, split.test.clone())?;
        let errors = Errors::of(&backtest)?;
        print(&errors.table(&args, backtest.truth.nrows()))?;
        forecast_plot(&args, &series, &complete, &backtest, &errors).save(&outputs.forecast)?;
        written.push(&outputs.forecast);
    }
    if !args.quiet {
        let written: Vec<_> = written.iter().map(|p| p.display().to_string()).collect();
        print(&format!("\nwrote {}\n", written.join(", ")))?;
    }
    if outcome == Outcome::Interrupted {
        note(&format!("interrupted: the best model so far is kept in {}", outputs.model.display()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
}

/// Refuses a series whose parts hold no window, in the words of the command line.
fn check_length(args: &Args, series: &Series, config: &ForecastConfig, split: &TimeSplit) -> Result<()> {
    for (name, size) in [("window", args.window), ("horizon", args.horizon), ("epochs", args.epochs)] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let fail = |problem: String| Err(Error::Data { source_name: series.source_name.clone(), line: None, problem });
    let total = split.test.end;
    let needed = config.context().saturating_add(args.horizon);
    if split.train.len() < needed {
        return fail(format!(
            "too few rows: of {total} values {} are left to train on, but window {}{} + horizon {} need {needed}; use a smaller \
             --window, or smaller --test-fraction and --validation-fraction",
            split.train.len(),
            args.window,
            if config.difference { " + 1 (to take differences)" } else { "" },
            args.horizon
        ));
    }
    for (name, part) in [("validation", &split.validation), ("test", &split.test)] {
        if !part.is_empty() && part.len() < args.horizon {
            return fail(format!(
                "too few rows: of {total} values the {name} part has {}, but --horizon {} needs at least as many; use a larger \
                 --{name}-fraction, or 0 to do without",
                part.len(),
                args.horizon
            ));
        }
    }
    Ok(())
}

fn describe(series: &Series, complete: &Complete, split: &TimeSplit, args: &Args, difference: bool) -> String {
    let learned = match (args.learn, difference) {
        (Learn::Auto, true) => "changes (there is a trend)",
        (Learn::Auto, false) => "values (there is no trend)",
        (Learn::Values, _) => "values",
        (Learn::Changes, _) => "changes",
    };
    let span = match (complete.labels.first(), complete.labels.last()) {
        (Some(first), Some(last)) if !first.is_empty() => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let gaps = match complete.filled {
        0 => String::new(),
        n => format!(", {n} missing ({})", args.gaps),
    };
    format!(
        "{}: {} values of column {}{span}{gaps}\n\
         {} to train on, {} to validate, {} to test; learns {learned} from windows of {}\n\n",
        series.source_name,
        complete.values.len(),
        series.name,
        split.train.len(),
        split.validation.len(),
        split.test.len(),
        args.window
    )
}

fn ending(outcome: &Outcome, progress: &Progress, started: Instant) -> String {
    let epochs = progress.epochs.len();
    let why = match outcome {
        Outcome::Finished => "all epochs",
        Outcome::EarlyStopped => "the validation loss no longer fell",
        Outcome::Interrupted => "interrupted",
    };
    let best = progress.best().map_or(String::new(), |best| {
        let val_loss = best.val_loss.map(|l| format!(", val_loss {l:.5}")).unwrap_or_default();
        format!("; best epoch {} (loss {:.5}{val_loss})", best.epoch, best.loss)
    });
    format!("trained {epochs} epochs in {:.1} s ({why}){best}", started.elapsed().as_secs_f64())
}

fn model_name(args: &Args) -> String {
    let name = match args.cell {
        CellKind::Rnn => "SimpleRNN",
        CellKind::Lstm => "LSTM",
        CellKind::Gru => "GRU",
    };
    format!("{name}({})", args.units)
}

/// How far forecasts of the test part are from the truth, in the unit of the series.
struct Errors {
    rmse: f64,
    mae: f64,
    naive_rmse: f64,
    naive_mae: f64,
}

impl Errors {
    fn of(backtest: &Backtest) -> Result<Self> {
        let (truth, forecast, naive) = (backtest.truth.view(), backtest.forecast.view(), backtest.naive.view());
        Ok(Errors {
            rmse: metrics::rmse(truth, forecast)?,
            mae: metrics::mae(truth, forecast)?,
            naive_rmse: metrics::rmse(truth, naive)?,
            naive_mae: metrics::mae(truth, naive)?,
        })
    }

    fn table(&self, args: &Args, forecasts: usize) -> String {
        let rows = [(model_name(args), self.rmse, self.mae), (NAIVE.to_owned(), self.naive_rmse, self.naive_mae)];
        let head = format!("test error, {forecasts} forecasts");
        let width = rows.iter().map(|r| r.0.len()).max().unwrap_or(0).max(head.len());
        let mut text = format!("\n{head:<width$}  {:>10}  {:>10}\n", "RMSE", "MAE");
        for (name, rmse, mae) in rows {
            text += &format!("{name:<width$}  {rmse:>10.4}  {mae:>10.4}\n");
        }
        let gain = 100.0 * (1.0 - self.rmse / self.naive_rmse);
        text += &if self.naive_rmse == 0.0 {
            "The naive forecast makes no error: the test part is constant.\n".to_owned()
        } else if gain > 0.0 {
            format!("The model's RMSE is {gain:.1} % below the naive one.\n")
        } else if gain.is_finite() {
            format!("The model does not beat the naive forecast: its RMSE is {:.1} % above.\n", gain.abs())
        } else {
            "The values are too large to compare the errors.\n".to_owned()
        };
        text
    }
}

const NAIVE: &str = "naive (last value)";

fn loss_plot(args: &Args, progress: &Progress) -> LinePlot {
    let curve = |name, colour, loss: fn(&fused_rnn::model::EpochEnd) -> Option<f64>| {
        let points: Vec<_> = progress.epochs.iter().filter_map(|e| Some((e.epoch as f64, loss(e)?))).collect();
        (!points.is_empty()).then(|| Curve::new(name, points).colour(colour))
    };
    let losses = progress.epochs.iter().flat_map(|e| [Some(e.loss), e.val_loss]).flatten();
    let (least, most) = losses.fold((f64::INFINITY, 0.0f64), |(least, most), loss| (least.min(loss), most.max(loss)));
    let layer = match args.cell {
        CellKind::Rnn => "SimpleRNN",
        CellKind::Lstm => "LSTM",
        CellKind::Gru => "GRU",
    };
    let mut plot = LinePlot::new("Loss")
        .subtitle(format!("{layer} and dense layer, mean squared error of scaled values"))
        .x_label("epoch")
        .y_label("mean squared error")
        .log_y(least > 0.0 && most > 30.0 * least)
        .size(PLOT_SIZE.0, PLOT_SIZE.1);
    let curves =
        [curve("training", Colour::BLUE, |e| Some(e.loss)), curve("validation", Colour::VERMILLION, |e| e.val_loss)];
    for curve in curves.into_iter().flatten() {
        plot = plot.curve(curve);
    }
    match progress.best() {
        Some(best) => plot.mark(best.epoch as f64, "best model"),
        None => plot,
    }
}

fn forecast_plot(args: &Args, series: &Series, complete: &Complete, backtest: &Backtest, errors: &Errors) -> LinePlot {
    let axis = TimeAxis::new(&complete.labels);
    let points = |values: &ndarray::Array2<f64>| {
        let first = values.column(0);
        first.iter().enumerate().map(|(i, v)| (axis.position(backtest.start + i), *v)).collect::<Vec<_>>()
    };
    LinePlot::new("Forecast and truth")
        .subtitle(format!(
            "{}, one step ahead, on the part held back: RMSE {:.4} (naive {:.4})",
            model_name(args),
            errors.rmse,
            errors.naive_rmse
        ))
        .x_label(x_label(series, &axis))
        .y_label(series.name.clone())
        .curve(Curve::new("truth", points(&backtest.truth)).colour(Colour::GREY))
        .curve(Curve::new("forecast", points(&backtest.forecast)).colour(Colour::VERMILLION).width(1.5))
        .size(PLOT_SIZE.0, PLOT_SIZE.1)
}

/// What the horizontal axis of a plot counts.
pub fn x_label(series: &Series, axis: &TimeAxis) -> String {
    match &series.label_name {
        _ if axis.is_date() => "year".to_owned(),
        Some(name) if axis.is_labelled() => name.clone(),
        _ => "position in the series".to_owned(),
    }
}
