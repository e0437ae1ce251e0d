//! One or several columns of a CSV file, complete, as a forecaster takes them.

use std::path::Path;

use fused_rnn::Result;
use fused_rnn::data::gaps::Complete;
use fused_rnn::data::{ColumnChoice, ColumnsChoice, CsvOptions, CsvTable, Gaps, Series};
use fused_rnn::model::ForecastConfig;
use ndarray::{Array2, ArrayView1, Axis};

use crate::output::remark;
use crate::reading::ReadingArgs;

/// What was read.
pub struct Rows {
    /// The column to forecast.
    pub series: Series,
    /// What chooses that column again: its name, or its number where others have that name too.
    pub column: String,
    /// The same without gaps.
    pub complete: Complete,
    /// What chooses the other columns again.
    pub others: Vec<String>,
    /// All values, that column first: `[rows, columns]`.
    pub values: Array2<f64>,
    /// What reads a new file in the same way.
    pub reading: CsvOptions,
}

impl Rows {
    /// Reads the column to forecast and others beside it, and says what is to be known of them.
    pub fn read(
        path: &Path,
        column: &ColumnChoice,
        others: &[String],
        gaps: Gaps,
        options: &CsvOptions,
    ) -> Result<Self> {
        Self::of(&CsvTable::read(path, options)?, column, others, gaps)
    }

    fn of(table: &CsvTable, column: &ColumnChoice, others: &[String], gaps: Gaps) -> Result<Self> {
        let reading = table.options().clone();
        let say = |series: &[Series]| {
            for note in table.notes(series) {
                let source = series.first().map_or("", |series| &series.source_name);
                remark(&format!("{source}: {note}"));
            }
        };
        let names = match column {
            ColumnChoice::Named(name) if !others.is_empty() => [std::slice::from_ref(name), others].concat(),
            _ => {
                let series = table.series(column)?;
                let complete = gaps.close(&series)?;
                say(std::slice::from_ref(&series));
                let values = ArrayView1::from(&complete.values).insert_axis(Axis(1)).to_owned();
                let column = table.column_reference(column)?;
                return Ok(Rows { series, column, complete, others: Vec::new(), values, reading });
            }
        };
        let choice = ColumnsChoice::Named(names);
        let mut references = table.column_references(&choice)?;
        let mut columns = table.columns(&choice)?;
        let closed = gaps.close_columns(&columns)?;
        say(&columns);
        let series = columns.remove(0);
        let complete =
            Complete { values: closed.values.column(0).to_vec(), labels: closed.labels, filled: closed.filled };
        let column = references.remove(0);
        Ok(Rows { series, column, complete, others: references, values: closed.values, reading })
    }

    /// Reads what `--columns` and `--target` name: without the target, the last of the columns is it; without columns, all columns of
    /// numbers are read.
    pub fn choose(
        path: &Path,
        columns: Option<&[String]>,
        target: Option<&str>,
        gaps: Gaps,
        options: &CsvOptions,
    ) -> Result<Self> {
        let table = CsvTable::read(path, options)?;
        // As in `a, b`, where the names of a file have no spaces around them either.
        let columns: Option<Vec<String>> =
            columns.map(|names| names.iter().map(|name| name.trim().to_owned()).collect());
        let columns = columns.as_deref();
        let last = columns.and_then(<[String]>::last).cloned();
        let choice = columns.map_or(ColumnsChoice::AllNumeric, |columns| ColumnsChoice::Named(columns.to_vec()));
        // Columns of text are several by now, and each goes by a name that stands once.
        let chosen = table.column_references(&choice)?;
        let target = target.map(str::to_owned).or(last).or_else(|| chosen.last().cloned()).unwrap_or_default();
        let of_target = table.column_references(&ColumnsChoice::Named(vec![target.clone()]))?;
        let others: Vec<_> = chosen.into_iter().filter(|name| !of_target.contains(name)).collect();
        Self::of(&table, &ColumnChoice::Named(target), &others, gaps)
    }

    /// Reads what a model was trained on, or another column in the place of its only one.
    pub fn of_model(
        path: &Path,
        config: &ForecastConfig,
        column: Option<String>,
        gaps: Option<Gaps>,
        reading: &ReadingArgs,
    ) -> Result<Self> {
        let others: Vec<String> = config.inputs.iter().map(|input| input.column.clone()).collect();
        if let Some(column) = column.as_ref().filter(|_| !others.is_empty()) {
            return Err(fused_rnn::Error::InvalidOption {
                option: "column".to_owned(),
                expected: format!("none, for the model reads several columns ({})", config.columns().join(", ")),
                got: column.clone(),
            });
        }
        let column = ColumnChoice::Named(column.unwrap_or_else(|| config.column.clone()));
        Self::read(path, &column, &others, gaps.unwrap_or(config.gaps), &reading.options_or(&config.reading)?)
    }
}
