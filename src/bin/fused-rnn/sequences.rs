//! `fused-rnn train` on a `.ts` file: a model that says the class or the number of whole sequences. What trains it and reports on it
//! serves windows of rows of a CSV file too (`classified`).

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Instant;

use fused_rnn::backend::DenseBackend;
use fused_rnn::data::{
    MissingValues, RandomSplit, TimeSeriesSet, read_ts, stratified_train_test_split, train_test_split,
};
use fused_rnn::metrics::{Average, ConfusionMatrix, Metric, ZeroDivision};
use fused_rnn::model::{SequenceConfig, SequenceModel, SequencePredictions, SequenceTarget};
use fused_rnn::optim::Adam;
use fused_rnn::plot::{self, Colour, Curve, LinePlot};
use fused_rnn::{Error, Result, metrics};
use ndarray::{Array2, ArrayView1};

use crate::device::Work;
use crate::output::{note, plain, print};
use crate::progress::{INTERRUPTED, Progress};
use crate::train::{Args, Errors, Outputs, TaskKind, ending, finish, fit, loss_plot, settle};

/// Whether a file's name says that it holds sequences.
pub fn is_file_of_them(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ts"))
}

/// Reads a file of sequences in which no value is missing.
pub fn read(path: &Path) -> Result<TimeSeriesSet> {
    read_ts(path, MissingValues::Error)
}

/// An error of a file's sequences, with the file's name.
pub fn in_file(path: &Path) -> impl Fn(Error) -> Error {
    let source_name = path.display().to_string();
    move |error| match error {
        Error::Data { .. } | Error::Io { .. } => error,
        other => Error::Data { source_name: source_name.clone(), line: None, problem: other.to_string() },
    }
}

/// Sequences, prepared for training.
pub struct Task {
    pub args: Args,
    pub interrupted: Arc<AtomicBool>,
    pub train: TimeSeriesSet,
    pub validation: Option<TimeSeriesSet>,
    pub test: Option<TimeSeriesSet>,
    pub config: SequenceConfig,
    pub outputs: Outputs,
    /// What is said of the data before training.
    pub description: String,
}

pub fn train(args: Args, interrupted: Arc<AtomicBool>) -> Result<ExitCode> {
    args.refuse(
        &[
            ("column", args.column.is_some()),
            ("columns", args.columns.is_some()),
            ("target", args.target.is_some()),
            ("gaps", args.gaps.is_some()),
            ("window", args.window.is_some()),
            ("horizon", args.horizon.is_some()),
            ("learn", args.learns_as_told()),
        ],
        "it is for a series in a CSV file; of a .ts file whole sequences are read",
    )?;
    let set = read(&args.data)?;
    let test_file = args.test.as_deref().map(read).transpose()?;
    check_task(&args, &set)?;
    for (name, size) in [("epochs", args.epochs), ("length", args.length.unwrap_or(1))] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let longest = |set: &TimeSeriesSet| set.sequences.iter().map(|sequence| sequence.nrows()).max().unwrap_or(0);
    let steps = args.length.unwrap_or(longest(&set).max(test_file.as_ref().map_or(0, longest)));
    let (train, validation, test) = divide(&args, set, test_file)?;
    let config = SequenceConfig::fitted(&train, steps).map_err(in_file(&args.data))?;
    let outputs = Outputs::prepare(&args, if train.classes.is_empty() { "test.svg" } else { "confusion.svg" })?;
    let description =
        describe(&args, &config, &train, validation.as_ref().map_or(0, |set| set.sequences.len()), test.as_ref());
    let (device, precision) = (args.device, args.precision);
    device.run_in(precision, Task { args, interrupted, train, validation, test, config, outputs, description })
}

/// Refuses another task than the file is for.
fn check_task(args: &Args, set: &TimeSeriesSet) -> Result<()> {
    let has = match (set.classes.is_empty(), set.targets.is_empty()) {
        (false, _) => Some((TaskKind::Classification, "classes, for --task classification")),
        (true, false) => Some((TaskKind::Regression, "numbers, for --task regression")),
        (true, true) => None,
    };
    let fail = |problem: String| Err(Error::Data { source_name: args.data.display().to_string(), line: None, problem });
    match (has, args.task) {
        (None, _) => {
            fail("its sequences have neither classes (@classLabel) nor numbers (@targetLabel) to learn".to_owned())
        }
        (Some((kind, what)), Some(asked)) if kind != asked => fail(format!("its sequences have {what}")),
        _ => Ok(()),
    }
}

/// Some of a set's sequences.
fn select(set: &TimeSeriesSet, indices: &[usize]) -> TimeSeriesSet {
    fn picked<T: Clone>(of: &[T], indices: &[usize]) -> Vec<T> {
        if of.is_empty() { Vec::new() } else { indices.iter().map(|i| of[*i].clone()).collect() }
    }
    TimeSeriesSet {
        name: set.name.clone(),
        dimensions: set.dimensions,
        sequences: picked(&set.sequences, indices),
        classes: set.classes.clone(),
        labels: picked(&set.labels, indices),
        targets: picked(&set.targets, indices),
    }
}

/// A random part of the sequences, in which classes are as frequent as in all, and the rest before it.
fn hold_back(
    set: TimeSeriesSet,
    fraction: f64,
    option: &str,
    seed: u64,
) -> Result<(TimeSeriesSet, Option<TimeSeriesSet>)> {
    if fraction == 0.0 {
        return Ok((set, None));
    }
    let RandomSplit { train, test } = if set.labels.is_empty() {
        train_test_split(set.sequences.len(), fraction, seed)
    } else {
        stratified_train_test_split(&set.labels, fraction, seed)
    }
    .map_err(|error| Error::InvalidOption {
        option: option.to_owned(),
        expected: "a fraction that leaves sequences of each class in each part, or 0 to do without".to_owned(),
        got: error.to_string(),
    })?;
    Ok((select(&set, &train), Some(select(&set, &test))))
}

/// What is learned from, what tells when to stop, and what the error is measured on.
fn divide(
    args: &Args,
    set: TimeSeriesSet,
    test_file: Option<TimeSeriesSet>,
) -> Result<(TimeSeriesSet, Option<TimeSeriesSet>, Option<TimeSeriesSet>)> {
    let test_fraction = if test_file.is_some() { 0.0 } else { args.test_fraction };
    for (option, fraction) in [("validation_fraction", args.validation_fraction), ("test_fraction", test_fraction)] {
        if !(0.0..1.0).contains(&fraction) {
            return Err(Error::InvalidOption {
                option: option.to_owned(),
                expected: "a fraction of the sequences, at least 0 and below 1".to_owned(),
                got: fraction.to_string(),
            });
        }
    }
    if args.validation_fraction + test_fraction >= 1.0 {
        return Err(Error::InvalidOption {
            option: "validation_fraction, test_fraction".to_owned(),
            expected: "fractions that leave some of the sequences to train on".to_owned(),
            got: format!("{} and {test_fraction}", args.validation_fraction),
        });
    }
    let (rest, test) = hold_back(set, test_fraction, "test_fraction", args.seed)?;
    // Both fractions are of the whole.
    let of_rest = args.validation_fraction / (1.0 - test_fraction);
    let (train, validation) = hold_back(rest, of_rest, "validation_fraction", args.seed)?;
    Ok((train, validation, test_file.or(test)))
}

impl Work for Task {
    type Output = ExitCode;

    fn on<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(self, backend: B) -> Result<ExitCode> {
        let Task { args, interrupted, train, validation, test, config, outputs, description } = self;
        let optimizer = Adam::new(args.learning_rate)?;
        let mut model = SequenceModel::new(backend, config, args.network.layers()?, args.seed)?;
        let loss = model.loss();
        model.model().compile(optimizer, loss);
        if let SequenceTarget::Classes(_) = model.config().target {
            model.model().metrics(&[Metric::Accuracy]);
        }
        let samples = |set: &TimeSeriesSet| Ok::<_, Error>((model.inputs(&set.sequences)?, model.targets(set)?));
        let (x, y) = samples(&train).map_err(in_file(&args.data))?;
        let validation = validation.as_ref().map(samples).transpose().map_err(in_file(&args.data))?;
        if let Some(test) = &test {
            // Whatever is wrong with it is said before anything takes time.
            samples(test).map_err(in_file(args.test.as_ref().unwrap_or(&args.data)))?;
        }
        if !args.quiet {
            print(&description)?;
            print(&format!("{}\n", model.model().summary()))?;
        }

        let mut progress = Progress::new(args.epochs, args.quiet, interrupted);
        let started = Instant::now();
        let validation = validation.as_ref().map(|(x, y)| (x.view().into_dyn(), y.view()));
        let trained = fit(model.model(), &args, x.view().into_dyn(), y.view(), validation, &mut progress);
        let Some(outcome) = settle(trained, &progress, &outputs.model, || model.save(&outputs.model))? else {
            return Ok(ExitCode::from(INTERRUPTED));
        };
        let (loss, of) = match model.config().target {
            SequenceTarget::Classes(_) => ("cross-entropy", ""),
            SequenceTarget::Number(_) => ("mean squared error", " of scaled numbers"),
        };
        loss_plot(&args, loss, of, &progress).save(&outputs.loss)?;
        if !args.quiet {
            print(&format!("{}\n", ending(&outcome, &progress, started)))?;
        }
        let mut written = vec![&outputs.model, &outputs.loss];
        if let Some(test) = &test {
            let (report, name) = (Report::of(&mut model, test)?, args.network.name());
            print(&report.text("test", &name, args.quiet)?)?;
            if train.classes.len() > MOST_IN_PICTURE {
                note(&format!(
                    "no confusion matrix is drawn: {} classes are too many to be told apart",
                    train.classes.len()
                ));
            } else {
                report.save_picture(&name, &outputs.test)?;
                written.push(&outputs.test);
            }
        }
        finish(&args, &written, &outcome, &outputs)
    }
}

fn describe(
    args: &Args,
    config: &SequenceConfig,
    train: &TimeSeriesSet,
    validation: usize,
    test: Option<&TimeSeriesSet>,
) -> String {
    let lengths = || train.sequences.iter().map(|sequence| sequence.nrows());
    let (least, most) = (lengths().min().unwrap_or(0), lengths().max().unwrap_or(0));
    let steps = if least == most { format!("{most} steps") } else { format!("{least} to {most} steps") };
    let learned = match &config.target {
        SequenceTarget::Classes(names) => format!("which of {} classes a sequence is of", names.len()),
        SequenceTarget::Number(_) => "the number of a sequence".to_owned(),
    };
    let from = args.test.as_ref().map(|path| format!(" ({})", path.display())).unwrap_or_default();
    format!(
        "{}: sequences of {} features, {steps}\n\
         {} to train on, {validation} to validate, {} to test{from}; learns {learned}\n\n",
        args.data.display(),
        train.dimensions,
        train.sequences.len(),
        test.map_or(0, |test| test.sequences.len()),
    )
}

/// How good a model is on sequences whose classes or numbers are known.
pub enum Report {
    Classes { matrix: ConfusionMatrix, names: Vec<String>, of: &'static str },
    Numbers { errors: Errors, r2: Option<f64>, truth: Vec<f64>, said: Vec<f64> },
}

/// Most classes whose confusion matrix is written as text.
const MOST_IN_TEXT: usize = 50;
/// Most classes that can be told apart in a picture.
const MOST_IN_PICTURE: usize = 1000;

/// The number that needs no model.
const NAIVE: &str = "naive (the mean)";

impl Report {
    /// Measures it.
    pub fn of<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(
        model: &mut SequenceModel<B>,
        set: &TimeSeriesSet,
    ) -> Result<Self> {
        match model.config().target.clone() {
            SequenceTarget::Classes(names) => {
                let truth = model.classes(set)?;
                let said = model.predict_classes(&set.sequences)?;
                let of = if model.config().rows.is_some() { "windows" } else { "sequences" };
                Ok(Report::Classes { matrix: ConfusionMatrix::new(&truth, &said, names.len())?, names, of })
            }
            SequenceTarget::Number(scaler) => {
                let truth = model.numbers(set)?;
                let said = match model.predict(&set.sequences)? {
                    SequencePredictions::Numbers(numbers) => numbers,
                    SequencePredictions::Classes(_) => Vec::new(),
                };
                // The mean of what was learned from.
                let mean = vec![scaler.inverse(0.0); truth.len()];
                let [t, s, m] = [&truth, &said, &mean].map(|values| ArrayView1::from(&values[..]));
                let errors = Errors {
                    rmse: metrics::rmse(t, s)?,
                    mae: metrics::mae(t, s)?,
                    naive_rmse: metrics::rmse(t, m)?,
                    naive_mae: metrics::mae(t, m)?,
                };
                // One number alone has no spread to explain.
                let r2 = if t.len() < 2 { None } else { Some(metrics::r2(t, s)?) };
                Ok(Report::Numbers { errors, r2, truth, said })
            }
        }
    }

    /// As text; the brief one is without the scores of each class and the confusion matrix.
    pub fn text(&self, part: &str, name: &str, brief: bool) -> Result<String> {
        match self {
            Report::Numbers { errors, r2, truth, .. } => {
                let mut text = errors.table(&format!("{part} error, {} sequences", truth.len()), name, NAIVE);
                if let Some(r2) = r2 {
                    text += &format!("coefficient of determination R2 {r2:.4}\n");
                }
                Ok(text)
            }
            Report::Classes { matrix, names, of } => {
                let average = matrix.average(Average::Macro, ZeroDivision::Zero);
                let head = format!("{part}, {} {of}", matrix.counts().sum());
                let width = head.len().max(name.len());
                let mut text = format!(
                    "\n{head:<width$}  {:>9}  {:>9}  {:>9}  {:>9}\n{name:<width$}  {:>9.4}  {:>9.4}  {:>9.4}  {:>9.4}\n",
                    "accuracy",
                    "precision",
                    "recall",
                    "F1",
                    matrix.accuracy(),
                    average.precision,
                    average.recall,
                    average.f1,
                );
                text += "Precision, recall and F1 are means over the classes.\n";
                if !brief {
                    let names: Vec<String> = names.iter().map(|name| plain(name)).collect();
                    let names: Vec<&str> = names.iter().map(String::as_str).collect();
                    text += &format!("\n{}", matrix.report(Some(&names), 4, ZeroDivision::Zero)?);
                    text += "\nconfusion matrix (row: the class, column: what the model says)\n";
                    if names.len() <= MOST_IN_TEXT {
                        text += &grid(matrix, &names);
                    } else {
                        text += &format!("of {} classes: too wide for text, see the picture\n", names.len());
                    }
                }
                Ok(text)
            }
        }
    }

    /// Draws it: the confusion matrix, or what the model says over the truth.
    pub fn save_picture(&self, name: &str, path: &Path) -> Result<()> {
        match self {
            Report::Classes { matrix, names, of } => {
                let counts: Array2<u64> = matrix.counts().mapv(|count| count as u64);
                let average = matrix.average(Average::Macro, ZeroDivision::Zero);
                let subtitle =
                    format!("{name}, {} {of}: accuracy {:.4}, F1 {:.4}", counts.sum(), matrix.accuracy(), average.f1);
                let side = u32::try_from(names.len()).unwrap_or(u32::MAX).clamp(4, 40);
                // Names longer than a cell is wide need room beside the cells, and stand upright below them.
                let longest = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(20) as u32;
                let room = 7 * longest.saturating_sub(6);
                plot::confusion_matrix("Confusion matrix", names, counts.view())?
                    .subtitle(subtitle)
                    .size(340 + 48 * side + room, 160 + 36 * side + room)
                    .save(path)
            }
            Report::Numbers { errors, truth, said, .. } => {
                let (least, most) = truth
                    .iter()
                    .fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), v| (least.min(*v), most.max(*v)));
                LinePlot::new("Prediction and truth")
                    .subtitle(format!(
                        "{name}, {} sequences: RMSE {:.4}, MAE {:.4}",
                        truth.len(),
                        errors.rmse,
                        errors.mae
                    ))
                    .x_label("truth")
                    .y_label("prediction")
                    .curve(Curve::new("right", [(least, least), (most, most)]).colour(Colour::GREY))
                    .curve(
                        Curve::new("model", truth.iter().copied().zip(said.iter().copied()))
                            .colour(Colour::VERMILLION)
                            .dots(),
                    )
                    .size(700, 600)
                    .save(path)
            }
        }
    }
}

/// The counts under each other.
fn grid(matrix: &ConfusionMatrix, names: &[&str]) -> String {
    let length = |text: &str| text.chars().count();
    let first = names.iter().map(|name| length(name)).max().unwrap_or(0);
    let widths: Vec<usize> = (matrix.counts().columns().into_iter().zip(names))
        .map(|(column, name)| column.iter().map(|count| count.to_string().len()).max().unwrap_or(0).max(length(name)))
        .collect();
    let row = |head: &str, cells: &[String]| {
        let cells: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("  {cell:>width$}")).collect();
        format!("{head:>first$}{}\n", cells.concat())
    };
    let mut text = row("", &names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
    for (name, counts) in names.iter().zip(matrix.counts().rows()) {
        text += &row(name, &counts.iter().map(f64::to_string).collect::<Vec<_>>());
    }
    text
}
