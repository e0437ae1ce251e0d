//! `fused-rnn train` on a `.ts` file: a model that says the class or the number of whole sequences.

use std::process::ExitCode;

use fused_rnn::data::{RandomSplit, TimeSeriesSet, stratified_train_test_split, train_test_split};
use fused_rnn::model::{SequenceConfig, SequenceTarget};
use fused_rnn::{Error, Result};

use super::options::{Args, Outputs, TaskKind};
use super::sequence_model::SequenceTraining;
use crate::data_file::{in_file, read_sequences};

/// Reads the sequences, trains on them, and reports.
pub fn train(args: Args) -> Result<ExitCode> {
    args.refuse(
        &[
            ("column", args.column.is_some()),
            ("columns", args.columns.is_some()),
            ("target", args.target.is_some()),
            ("gaps", args.gaps.is_some()),
            ("window", args.window.is_some()),
            ("horizon", args.horizon.is_some()),
            ("learn", args.learn.is_some()),
            ("season", args.season.is_some()),
            ("log", args.log.is_some()),
            ("known", !args.known.is_empty()),
            ("calendar", args.calendar.is_some()),
            ("panel", args.panel.is_some()),
            ("seeds", args.seeds != 1),
        ],
        "it is for a series in a CSV file; of a .ts file whole sequences are read",
    )?;
    args.refuse(&args.reading.given(), "it says how a CSV file is read")?;
    let set = read_sequences(&args.data)?;
    let test_file = args.test.as_deref().map(read_sequences).transpose()?;
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
    SequenceTraining { args, train, validation, test, config, outputs, description }.run()
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
        if of.is_empty() { Vec::new() } else { indices.iter().filter_map(|i| of.get(*i).cloned()).collect() }
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
