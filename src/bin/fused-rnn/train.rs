//! `fused-rnn train`: from a CSV file to a model that continues a series, its error, and two pictures. Sequences with classes or
//! numbers, from a `.ts` file, are the business of `sequences`, rows of a CSV file with classes that of `classified`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fused_rnn::backend::DenseBackend;
use fused_rnn::data::{ColumnChoice, Gaps, Scaler, Series, TimeAxis, TimeSplit, has_trend};
use fused_rnn::model::{
    Backtest, EarlyStopping, FitOptions, ForecastConfig, Forecaster, History, InputColumn, Outcome, Sequential,
};
use fused_rnn::nn::Loss;
use fused_rnn::optim::Adam;
use fused_rnn::plot::{Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, files, metrics};
use ndarray::ArrayViewD;

use crate::classified;
use crate::device::{Device, Precision, Work};
use crate::network::Network;
use crate::output::{note, print};
use crate::progress::{INTERRUPTED, Progress, interrupt_flag};
use crate::rows::Rows;
use crate::sequences;

/// Width and height of the pictures, in pixels.
pub const PLOT_SIZE: (u32, u32) = (1000, 500);

/// Rows of a window where nothing else is asked for.
pub const WINDOW: usize = 36;

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

/// What a model learns to say.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum TaskKind {
    /// A number.
    Regression,
    /// One of several classes.
    Classification,
}

/// Reads one column of a CSV file, or several, as a series in time order, trains recurrent layers and a dense one to say the next value
/// from the last ones, and writes model.safetensors, loss.svg and forecast.svg. With --task classification it learns from a CSV file to
/// say the class of a row from the window of rows that ends in it; from a .ts file of sequences, the class or the number of a whole
/// sequence; and writes confusion.svg. The same data, options and seed give the same model file. Ctrl-C stops training and keeps the best
/// model so far (exit code 130).
#[derive(clap::Args)]
pub struct Args {
    /// CSV file, whose first line is a header unless one of its cells is a number; or .ts file of sequences, each with its class or
    /// number.
    pub data: PathBuf,
    /// Column by name, or by number counted from 1 [default: the last column of numbers].
    #[arg(long, value_name = "NAME", conflicts_with_all = ["columns", "target"])]
    pub column: Option<String>,
    /// Columns that the model reads, by name or number, with commas between [default with --target: all columns of numbers, for
    /// classes all others].
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub columns: Option<Vec<String>>,
    /// Column that it forecasts; it is read too [default: the last of --columns]. With --task classification the column of each row's
    /// class, any text or number; it is not read.
    #[arg(long, value_name = "NAME")]
    pub target: Option<String>,
    /// Missing values of a CSV file: error, drop, interpolate or forward-fill [default: error].
    #[arg(long, value_name = "POLICY")]
    pub gaps: Option<Gaps>,
    /// What the model learns to say [default: what the file has; of a CSV file, a number].
    #[arg(long, value_enum, value_name = "TASK")]
    pub task: Option<TaskKind>,
    #[command(flatten)]
    pub network: Network,
    /// Values that the model reads to forecast the next; or rows, to say the class of the last [default: 36].
    #[arg(long, value_name = "N")]
    pub window: Option<usize>,
    /// Values that it forecasts at once [default: 1].
    #[arg(long, value_name = "N")]
    pub horizon: Option<usize>,
    /// What the model reads and forecasts [default: auto].
    #[arg(long, value_enum)]
    learn: Option<Learn>,
    /// Most steps of a sequence of a .ts file [default: those of the longest].
    #[arg(long, value_name = "N")]
    pub length: Option<usize>,
    /// Most passes over the training part.
    #[arg(long, default_value_t = 100, value_name = "N")]
    pub epochs: usize,
    /// Stop after so many epochs without a lower validation loss.
    #[arg(long, default_value_t = 10, value_name = "EPOCHS")]
    pub patience: usize,
    /// Windows of one training step [default: 32, or as many as there are].
    #[arg(long, value_name = "N")]
    pub batch_size: Option<usize>,
    /// Learning rate of Adam.
    #[arg(long, default_value_t = 1e-3, value_name = "RATE")]
    pub learning_rate: f64,
    /// Last part of the series, or of the sequences a random part, held back to measure the error.
    #[arg(long, default_value_t = 0.2, value_name = "FRACTION")]
    pub test_fraction: f64,
    /// Part before it, held back to know when to stop.
    #[arg(long, default_value_t = 0.1, value_name = "FRACTION")]
    pub validation_fraction: f64,
    /// .ts file of sequences to measure the error on, instead of a part of the first.
    #[arg(long, value_name = "FILE", conflicts_with = "test_fraction")]
    pub test: Option<PathBuf>,
    /// Seed of everything random: starting weights, order of windows, random parts.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Folder for the results, made where it does not exist; what an earlier run left there is replaced
    /// [default: out/ and the name of the data file].
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Where to train: cpu, cuda or emulated. The same options give the same model file on the same kind of device.
    #[arg(long, value_enum, default_value_t = Device::Cpu)]
    pub device: Device,
    /// What a GPU multiplies: f32, f32 rounded to tf32, or in mixed precision bf16 or f16.
    #[arg(long, value_enum, default_value_t = Precision::F32, value_name = "TYPE")]
    pub precision: Precision,
    /// Print only the test error.
    #[arg(short, long)]
    pub quiet: bool,
}

/// Where the results go.
pub struct Outputs {
    pub model: PathBuf,
    pub loss: PathBuf,
    /// The picture of the test part.
    pub test: PathBuf,
}

impl Outputs {
    /// Makes the folder and finds out whether its files can be written, before anything takes time.
    pub fn prepare(args: &Args, test: &str) -> Result<Self> {
        let folder =
            args.out.clone().unwrap_or_else(|| Path::new("out").join(args.data.file_stem().unwrap_or_default()));
        std::fs::create_dir_all(&folder).map_err(|source| Error::Io {
            action: "create",
            path: folder.clone(),
            source,
        })?;
        let outputs =
            Outputs { model: folder.join("model.safetensors"), loss: folder.join("loss.svg"), test: folder.join(test) };
        for path in [&outputs.model, &outputs.loss, &outputs.test] {
            files::check_writable(path)?;
        }
        Ok(outputs)
    }
}

impl Args {
    /// Whether `--learn` is given.
    pub fn learns_as_told(&self) -> bool {
        self.learn.is_some()
    }

    /// Refuses options that say nothing about such data.
    pub fn refuse(&self, given: &[(&str, bool)], why: &str) -> Result<()> {
        match given.iter().find(|(_, given)| *given) {
            None => Ok(()),
            Some((option, _)) => {
                Err(Error::Unsupported { what: format!("--{option} for {}", self.data.display()), why: why.to_owned() })
            }
        }
    }
}

/// A series, prepared for training.
struct Task {
    args: Args,
    interrupted: Arc<AtomicBool>,
    rows: Rows,
    split: TimeSplit,
    config: ForecastConfig,
    outputs: Outputs,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let interrupted = interrupt_flag()?;
    if sequences::is_file_of_them(&args.data) {
        return sequences::train(args, interrupted);
    }
    if args.task == Some(TaskKind::Classification) {
        return classified::train(args, interrupted);
    }
    args.refuse(
        &[("test", args.test.is_some()), ("length", args.length.is_some())],
        "it is for .ts files of sequences; the last part of a CSV file is held back with --test-fraction",
    )?;
    let gaps = args.gaps.unwrap_or_default();
    let rows = if args.columns.is_some() || args.target.is_some() {
        Rows::choose(&args.data, args.columns.as_deref(), args.target.as_deref(), gaps)?
    } else {
        let choice = args.column.clone().map_or(ColumnChoice::LastNumeric, ColumnChoice::Named);
        Rows::read(&args.data, &choice, &[], gaps)?
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
        column: rows.series.name.clone(),
        inputs: Vec::new(),
        gaps,
        window: args.window.unwrap_or(WINDOW),
        horizon: args.horizon.unwrap_or(1),
        difference: difference(&values),
        scaler: Scaler::IDENTITY,
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
    let (device, precision) = (args.device, args.precision);
    device.run_in(precision, Task { interrupted, rows, split, config, outputs, args })
}

impl Work for Task {
    type Output = ExitCode;

    fn on<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(self, backend: B) -> Result<ExitCode> {
        train(backend, self)
    }
}

fn train<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(backend: B, task: Task) -> Result<ExitCode> {
    let Task { args, interrupted, rows, split, config, outputs } = task;
    let optimizer = Adam::new(args.learning_rate)?;
    let mut forecaster = Forecaster::with_layers(backend, config, args.network.layers()?, args.seed)?;
    forecaster.model().compile(optimizer, Loss::MeanSquaredError);
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
    let trained = fit(forecaster.model(), &args, x.view().into_dyn(), y.view().into_dyn(), validation, &mut progress);
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
        print(&errors.table(&format!("test error, {} forecasts", backtest.truth.nrows()), &name, NAIVE))?;
        forecast_plot(&name, "the part held back", &rows, &backtest, &errors).save(&outputs.test)?;
        written.push(&outputs.test);
    }
    finish(&args, &written, &outcome, &outputs)
}

/// Trains, and shows how it goes.
pub fn fit<'a, B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(
    model: &mut Sequential<f32, B>,
    args: &Args,
    x: ArrayViewD<'a, f32>,
    y: ArrayViewD<'a, f32>,
    validation: Option<(ArrayViewD<'a, f32>, ArrayViewD<'a, f32>)>,
    progress: &'a mut Progress,
) -> Result<History> {
    let batch_size = args.batch_size.unwrap_or(32.min(x.shape()[0]));
    model.fit(
        x,
        y,
        FitOptions {
            epochs: args.epochs,
            batch_size,
            validation_data: validation.map(|(x, y)| (vec![x], vec![y])),
            early_stopping: Some(EarlyStopping { patience: args.patience, min_delta: 0.0, restore_best_weights: true }),
            callbacks: vec![progress],
            ..FitOptions::default()
        },
    )
}

/// Saves the best model there is, however training ended, and says so where it ended early: `None` where there is no model.
pub fn settle(
    trained: Result<History>,
    progress: &Progress,
    path: &Path,
    save: impl FnOnce() -> Result<()>,
) -> Result<Option<Outcome>> {
    progress.finish();
    let outcome = match (trained, progress.best()) {
        (Err(error @ Error::Diverged { .. }), Some(best)) => {
            save()?;
            note(&format!("the model of the best epoch, {}, is kept in {}", best.epoch, path.display()));
            return Err(error);
        }
        (Err(error @ Error::Diverged { .. }), None) => {
            note("no epoch was completed: no model is saved");
            return Err(error);
        }
        (Err(error), _) => return Err(error),
        (Ok(history), None) if history.outcome == Outcome::Interrupted => {
            note("interrupted before the first epoch was completed: no model is saved");
            return Ok(None);
        }
        (Ok(history), _) => history.outcome,
    };
    save()?;
    Ok(Some(outcome))
}

/// Says what was written, and where training was interrupted.
pub fn finish(args: &Args, written: &[&PathBuf], outcome: &Outcome, outputs: &Outputs) -> Result<ExitCode> {
    if !args.quiet {
        let written: Vec<_> = written.iter().map(|p| p.display().to_string()).collect();
        print(&format!("\nwrote {}\n", written.join(", ")))?;
    }
    if *outcome == Outcome::Interrupted {
        note(&format!("interrupted: the best model so far is kept in {}", outputs.model.display()));
        return Ok(ExitCode::from(INTERRUPTED));
    }
    Ok(ExitCode::SUCCESS)
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

pub fn ending(outcome: &Outcome, progress: &Progress, started: Instant) -> String {
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

/// How far forecasts of the test part are from the truth, in the unit of the series.
pub struct Errors {
    pub rmse: f64,
    pub mae: f64,
    pub naive_rmse: f64,
    pub naive_mae: f64,
}

impl Errors {
    pub fn of(backtest: &Backtest) -> Result<Self> {
        let (truth, forecast, naive) = (backtest.truth.view(), backtest.forecast.view(), backtest.naive.view());
        Ok(Errors {
            rmse: metrics::rmse(truth, forecast)?,
            mae: metrics::mae(truth, forecast)?,
            naive_rmse: metrics::rmse(truth, naive)?,
            naive_mae: metrics::mae(truth, naive)?,
        })
    }

    pub fn table(&self, head: &str, name: &str, naive: &str) -> String {
        let rows = [(name, self.rmse, self.mae), (naive, self.naive_rmse, self.naive_mae)];
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

pub const NAIVE: &str = "naive (last value)";

pub fn loss_plot(args: &Args, loss: &str, of: &str, progress: &Progress) -> LinePlot {
    let curve = |name, colour, loss: fn(&fused_rnn::model::EpochEnd) -> Option<f64>| {
        let points: Vec<_> = progress.epochs.iter().filter_map(|e| Some((e.epoch as f64, loss(e)?))).collect();
        (!points.is_empty()).then(|| Curve::new(name, points).colour(colour))
    };
    let losses = progress.epochs.iter().flat_map(|e| [Some(e.loss), e.val_loss]).flatten();
    let (least, most) = losses.fold((f64::INFINITY, 0.0f64), |(least, most), loss| (least.min(loss), most.max(loss)));
    let mut plot = LinePlot::new("Loss")
        .subtitle(format!("{}, {loss}{of}", args.network.described()))
        .x_label("epoch")
        .y_label(loss)
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

pub fn forecast_plot(name: &str, part: &str, rows: &Rows, backtest: &Backtest, errors: &Errors) -> LinePlot {
    let Rows { series, complete, .. } = rows;
    let axis = TimeAxis::new(&complete.labels);
    let points = |values: &ndarray::Array2<f64>| {
        let first = values.column(0);
        first.iter().enumerate().map(|(i, v)| (axis.position(backtest.start + i), *v)).collect::<Vec<_>>()
    };
    LinePlot::new("Forecast and truth")
        .subtitle(format!(
            "{name}, one step ahead, on {part}: RMSE {:.4} (naive {:.4})",
            errors.rmse, errors.naive_rmse
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
