//! `fused-rnn train --task classification` on a CSV file: what class a row is of, from the window of rows that ends in it. The windows
//! are sequences to `sequence_model`.

use std::ops::Range;
use std::process::ExitCode;

use fused_rnn::data::{ClassifiedRows, ColumnsChoice, CsvTable, TimeSeriesSet, TimeSplit};
use fused_rnn::model::{RowsConfig, SequenceConfig, SequenceTarget};
use fused_rnn::{Error, Result};
use ndarray::s;

use super::options::{Args, Outputs, WINDOW};
use super::sequence_model::SequenceTraining;
use crate::classified::say_notes;
use crate::data_file::in_file;
use crate::output::{listed, plain};

/// Most classes: more are a sign of a column of measured numbers, and their confusion matrix would be larger than most memories.
const MOST_CLASSES: usize = 1000;

/// Reads the rows, trains on their windows, and reports.
pub fn train(args: Args) -> Result<ExitCode> {
    args.refuse(
        &[
            ("column", args.column.is_some()),
            ("horizon", args.horizon.is_some()),
            ("learn", args.learn.is_some()),
            ("season", args.season.is_some()),
            ("log", args.log.is_some()),
            ("known", !args.known.is_empty()),
            ("calendar", args.calendar.is_some()),
            ("panel", args.panel.is_some()),
            ("seeds", args.seeds != 1),
            ("length", args.length.is_some()),
            ("test", args.test.is_some()),
        ],
        "with --task classification the columns of a CSV file are read with --columns, each row's class with --target, in windows of \
         --window rows; the last rows are held back with --test-fraction",
    )?;
    let table = CsvTable::read(&args.data, &args.reading.options()?)?;
    let Some(target) = &args.target else {
        return Err(Error::InvalidOption {
            option: "target".to_owned(),
            expected: format!(
                "with --task classification the column of classes, --target NAME; the columns are: {}",
                listed(table.names())
            ),
            got: "none".to_owned(),
        });
    };
    let window = args.window.unwrap_or(WINDOW);
    for (name, size) in [("window", window), ("epochs", args.epochs)] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let gaps = args.gaps.unwrap_or_default();
    let columns = args.columns.as_ref().map_or(ColumnsChoice::AllNumeric, |names| {
        ColumnsChoice::Named(names.iter().map(|name| name.trim().to_owned()).collect())
    });
    let rows = ClassifiedRows::of(&table, &columns, target, gaps)?;
    say_notes(&rows);
    let total = rows.values.nrows();
    let split = TimeSplit::new(total, args.validation_fraction, args.test_fraction)?;
    let fail = |problem: String| Error::Data { source_name: rows.source_name.clone(), line: None, problem };
    for (name, part) in parts(&split) {
        if (name == "training" || !part.is_empty()) && part.len() < window {
            let way_out = match name {
                "training" => "smaller --test-fraction and --validation-fraction".to_owned(),
                _ => format!("a larger --{name}-fraction, or 0 to do without"),
            };
            return Err(fail(format!(
                "too few rows: of {total} the {name} part has {}, but a window {window}; use a smaller --window, or {way_out}",
                part.len()
            )));
        }
    }
    let names = rows.class_names(last_rows(&split.train, window));
    if names.len() < 2 || names.len() > MOST_CLASSES {
        let count = match names.first() {
            Some(one) if names.len() == 1 => format!("only one class ({:?})", plain(one)),
            _ => format!("{} different texts, but at most {MOST_CLASSES} classes can be learned", names.len()),
        };
        return Err(fail(format!(
            "column {}: the windows of the training part, lines {} to {}, end in {count}; choose another --target, or other rows; numbers \
             are forecast with --task regression",
            rows.target,
            line_of(&rows, 0),
            line_of(&rows, split.train.end - 1),
        )));
    }
    check_known(&rows, &split, window, &names)?;
    let set = |part: &Range<usize>| -> Result<Option<TimeSeriesSet>> {
        if part.is_empty() { Ok(None) } else { rows.windows(part.clone(), window, &names).map(Some) }
    };
    let train = rows.windows(split.train.clone(), window, &names)?;
    let (validation, test) = (set(&split.validation)?, set(&split.test)?);
    let learned = rows.values.slice(s![split.train.clone(), ..]);
    let rows_config = RowsConfig {
        columns: rows.columns.clone(),
        target: rows.target.clone(),
        gaps,
        reading: table.options().clone(),
    };
    let config = SequenceConfig::for_rows(learned, window, names, rows_config).map_err(in_file(&args.data))?;
    let outputs = Outputs::prepare(&args, "confusion.svg")?;
    let description = describe(&args, &rows, &config, [Some(&train), validation.as_ref(), test.as_ref()]);
    SequenceTraining { args, train, validation, test, config, outputs, description }.run()
}

/// The parts of the rows, in the words of the options.
fn parts(split: &TimeSplit) -> [(&'static str, &Range<usize>); 3] {
    [("training", &split.train), ("validation", &split.validation), ("test", &split.test)]
}

/// The rows in which the windows of a part end; their classes are learned or asked for.
fn last_rows(part: &Range<usize>, window: usize) -> Range<usize> {
    (part.start + window.saturating_sub(1)).min(part.end)..part.end
}

/// The line of the file that a row stands in.
fn line_of(rows: &ClassifiedRows, row: usize) -> u64 {
    rows.lines.get(row).copied().unwrap_or(0)
}

/// Refuses classes that come only after what is learned from.
fn check_known(rows: &ClassifiedRows, split: &TimeSplit, window: usize, names: &[String]) -> Result<()> {
    for (name, part) in parts(split).iter().skip(1) {
        let class = |row: usize| rows.classes.get(row).map_or("", String::as_str);
        let mut unknown = last_rows(part, window).filter(|row| !names.iter().any(|name| name == class(*row)));
        if let Some(row) = unknown.next() {
            return Err(Error::Data {
                source_name: rows.source_name.clone(),
                line: Some(line_of(rows, row)),
                problem: format!(
                    "column {}: the class {:?} is in the {name} part, but no window of the training part (lines {} to {}) ends in it, so \
                     that it is not learned; use smaller --test-fraction and --validation-fraction so that it is, or leave its rows out \
                     of the file",
                    rows.target,
                    plain(class(row)),
                    line_of(rows, 0),
                    line_of(rows, split.train.end - 1),
                ),
            });
        }
    }
    Ok(())
}

fn describe(
    args: &Args,
    rows: &ClassifiedRows,
    config: &SequenceConfig,
    [train, validation, test]: [Option<&TimeSeriesSet>; 3],
) -> String {
    let span = match (rows.labels.first(), rows.labels.last()) {
        (Some(first), Some(last)) if !first.is_empty() => format!(", {first} to {last}"),
        _ => String::new(),
    };
    let gaps = match (rows.filled, &config.rows) {
        (1.., Some(RowsConfig { gaps, .. })) => format!(", {} missing ({gaps})", rows.filled),
        _ => String::new(),
    };
    let classes = match &config.target {
        SequenceTarget::Classes(names) => names.len(),
        SequenceTarget::Number(_) => 0,
    };
    let count = |set: Option<&TimeSeriesSet>| set.map_or(0, |set| set.sequences.len());
    let default = if args.window.is_none() { " (the default)" } else { "" };
    format!(
        "{}: {} rows of columns {}{span}{gaps}\n\
         {} windows to train on, {} to validate, {} to test; learns which of {classes} classes of column {} the last row is of, from \
         windows of {}{default}\n\n",
        rows.source_name,
        rows.values.nrows(),
        listed(&rows.columns),
        count(train),
        count(validation),
        count(test),
        plain(&rows.target),
        config.steps,
    )
}
