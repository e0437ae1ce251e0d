//! Rows of a CSV file as a model reads them that says the class of a row from the window of rows that ends in it.

use std::ops::Range;
use std::path::Path;

use fused_rnn::data::{ClassifiedRows, ColumnsChoice, CsvTable, Gaps, TimeSeriesSet};
use fused_rnn::model::{RowsConfig, SequenceConfig, SequenceTarget};
use fused_rnn::{Error, Result};

use crate::output::remark;
use crate::reading::ReadingArgs;

/// The rows of a file for a model that was trained on such, with their classes or without.
pub fn of_model(
    path: &Path,
    config: &RowsConfig,
    gaps: Option<Gaps>,
    reading: &ReadingArgs,
    with_classes: bool,
) -> Result<ClassifiedRows> {
    let columns = ColumnsChoice::Named(config.columns.clone());
    let table = CsvTable::read(path, &reading.options_or(&config.reading)?)?;
    let of = if with_classes { ClassifiedRows::of } else { ClassifiedRows::of_numbers };
    let rows = of(&table, &columns, &config.target, gaps.unwrap_or(config.gaps))?;
    say_notes(&rows);
    Ok(rows)
}

/// Says what is to be known of rows that were read.
pub fn say_notes(rows: &ClassifiedRows) {
    for note in &rows.notes {
        remark(&format!("{}: {note}", rows.source_name));
    }
}

/// The windows of some rows as the model reads them.
pub fn windows(rows: &ClassifiedRows, part: Range<usize>, config: &SequenceConfig) -> Result<TimeSeriesSet> {
    if part.len() < config.steps {
        return Err(Error::Data {
            source_name: rows.source_name.clone(),
            line: None,
            problem: format!("too few rows: {}, but the model reads windows of {}", part.len(), config.steps),
        });
    }
    let names = match &config.target {
        SequenceTarget::Classes(names) => &names[..],
        SequenceTarget::Number(_) => &[],
    };
    rows.windows(part, config.steps, names)
}
