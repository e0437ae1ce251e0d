//! One or several columns of a CSV file, complete, as a forecaster takes them.

use std::path::Path;

use fused_rnn::data::gaps::Complete;
use fused_rnn::data::{ColumnChoice, ColumnsChoice, CsvOptions, CsvTable, Gaps, Series, TimeAxis};
use fused_rnn::model::{ForecastConfig, Known};
use fused_rnn::{Error, Result};
use ndarray::{Array2, s};

use crate::calendar;
use crate::future::{self, KnownCategory};
use crate::output::{plain, remark};
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
    /// Columns after those whose future is known, as they were named.
    pub known: Vec<String>,
    /// All values, the column to forecast first: `[rows, columns]`.
    pub values: Array2<f64>,
    /// What is known of the rows after the last value of the column to forecast, `[rows, known columns]`, and what stands beside them.
    pub future: (Array2<f64>, Vec<String>),
    /// Which of the known columns are categories of a column of text.
    pub categories: Vec<KnownCategory>,
    /// What reads a new file in the same way.
    pub reading: CsvOptions,
    /// What is to be known of all this.
    pub notes: Vec<String>,
}

/// The largest value, of whose squares a double holds sums: variances, errors and linear forecasts are made of them.
const LARGEST: f64 = 1e150;

/// Refuses values that training could only end at, with a message about its learning rate.
fn check_magnitude(columns: &[Series]) -> Result<()> {
    for column in columns {
        let values = column.values.iter().zip(&column.lines).filter_map(|(value, line)| Some((value.as_ref()?, *line)));
        if let Some((value, line)) = values.into_iter().find(|(value, _)| value.abs() > LARGEST) {
            let problem = format!(
                "column {}: {value:e} is beyond {LARGEST:e}, and its square beyond what a double holds; write the column in a larger unit",
                plain(&column.name)
            );
            return Err(Error::Data { source_name: column.source_name.clone(), line: Some(line), problem });
        }
    }
    Ok(())
}

impl Rows {
    /// Reads the column to forecast, others beside it, and those whose future is known, and says what is to be known of them.
    pub fn read(
        path: &Path,
        column: &ColumnChoice,
        others: &[String],
        known: &[String],
        gaps: Gaps,
        options: &CsvOptions,
    ) -> Result<Self> {
        Self::of(&CsvTable::read(path, options)?, column, others, known, gaps)
    }

    /// Says what is to be known of what was read.
    fn say_notes(&self) {
        for note in &self.notes {
            remark(&format!("{}: {note}", self.series.source_name));
        }
    }

    fn of(table: &CsvTable, column: &ColumnChoice, others: &[String], known: &[String], gaps: Gaps) -> Result<Self> {
        let known = references(table, known)?;
        let names = match column {
            ColumnChoice::Named(name) if !others.is_empty() || !known.is_empty() => {
                [std::slice::from_ref(name), others, &known].concat()
            }
            ColumnChoice::LastNumeric if !known.is_empty() => {
                [std::slice::from_ref(&default_target(table, None, &known)?), &known].concat()
            }
            _ => {
                let (series, column) = (table.series(column)?, table.column_reference(column)?);
                let rows = Self::of_columns(table, vec![series], vec![column], known, gaps, None)?;
                rows.say_notes();
                return Ok(rows);
            }
        };
        let choice = ColumnsChoice::Named(names);
        let (references, columns) = (table.column_references(&choice)?, table.columns(&choice)?);
        let rows = Self::of_columns(table, columns, references, known, gaps, None)?;
        rows.say_notes();
        Ok(rows)
    }

    /// Of columns that were read, the one to forecast first, then others, then those whose future is `known`; `references` choose them again.
    /// Where they are of one series of a panel, `key` is the column that names it.
    pub fn of_columns(
        table: &CsvTable,
        mut columns: Vec<Series>,
        mut references: Vec<String>,
        known: Vec<String>,
        gaps: Gaps,
        key: Option<&str>,
    ) -> Result<Self> {
        let first_known = columns.len().saturating_sub(known.len());
        let mut notes = table.notes(&columns);
        let mut categories = Vec::new();
        for (at, (column, name)) in columns.iter_mut().skip(first_known).zip(&known).enumerate() {
            if let Some((of, text)) = table.category(name)? {
                // Nothing is written for a day without a holiday.
                column.values.iter_mut().for_each(|value| *value = value.or(Some(0.0)));
                categories.push(KnownCategory { at, column: of, text, line: None });
            }
        }
        let future = future::take(table, &mut columns, known.len(), key)?;
        check_magnitude(&columns)?;
        notes.extend(future.note);
        for category in &mut categories {
            let first = future.values.column(category.at).iter().position(|value| *value != 0.0);
            category.line = first.and_then(|row| future.lines.get(row).copied());
        }
        for (column, name) in columns.iter_mut().zip(&references).take(first_known).skip(1) {
            if let Some((of, _)) = table.category(name)? {
                future::close_category(column, &of, gaps)?;
            }
        }
        let closed = gaps.close_columns(&columns)?;
        notes.extend(future::closed(&columns, &closed, gaps, known.len())?);
        let series = columns.remove(0);
        let complete =
            Complete { values: closed.values.column(0).to_vec(), labels: closed.labels, filled: closed.filled };
        let column = references.remove(0);
        references.truncate(references.len() - known.len());
        Ok(Rows {
            series,
            column,
            complete,
            others: references,
            known,
            values: closed.values,
            future: (future.values, future.labels),
            categories,
            reading: table.options().clone(),
            notes,
        })
    }

    /// Reads what `--columns` and `--target` name: without the target, the last of the columns is it; without columns, all columns of
    /// numbers are read.
    pub fn choose(
        path: &Path,
        columns: Option<&[String]>,
        target: Option<&str>,
        known: &[String],
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
        let mut chosen = table.column_references(&choice)?;
        let known = references(&table, known)?;
        chosen.retain(|name| !known.contains(name));
        let target = target.map(str::to_owned).or(last).or_else(|| chosen.last().cloned()).unwrap_or_default();
        let of_target = table.column_references(&ColumnsChoice::Named(vec![target.clone()]))?;
        if of_target.len() > 1 {
            return Err(Error::InvalidOption {
                option: "target".to_owned(),
                expected: "a column of numbers; the texts of another are classes, which --task classification learns"
                    .to_owned(),
                got: plain(&target),
            });
        }
        let others: Vec<_> = chosen.into_iter().filter(|name| !of_target.contains(name)).collect();
        Self::of(&table, &ColumnChoice::Named(target), &others, &known, gaps)
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
        let known = known_in_file(config);
        if let Some(column) = column.as_ref().filter(|_| !others.is_empty() || !known.is_empty()) {
            return Err(Error::InvalidOption {
                option: "column".to_owned(),
                expected: format!("none, for the model reads several columns ({})", config.columns().join(", ")),
                got: column.clone(),
            });
        }
        let column = ColumnChoice::Named(column.unwrap_or_else(|| config.column.clone()));
        let options = reading.options_or(&config.reading)?;
        Self::read(path, &column, &others, &known, gaps.unwrap_or(config.gaps), &options)
    }

    /// All columns as a model reads them: with those of the calendar after those of the file.
    pub fn for_model(&self, config: &ForecastConfig) -> Result<Array2<f64>> {
        calendar::beside(&self.values, &config.known, &TimeAxis::new(&self.complete.labels), 0)
    }

    /// The times of the values and of the rows after them.
    pub fn axis(&self) -> TimeAxis {
        TimeAxis::new(&[&self.complete.labels[..], &self.future.1].concat())
    }

    /// What is known of the rows after the last value, as a model needs it to forecast so many `steps`.
    pub fn future_for(&self, config: &ForecastConfig, steps: usize) -> Result<Array2<f64>> {
        let needed = if config.known.is_empty() { 0 } else { config.future_rows(steps) };
        let (of_file, there) = (self.known.len(), self.future.0.nrows());
        if of_file > 0 && there < needed {
            return Err(Error::Data {
                source_name: self.series.source_name.clone(),
                line: None,
                problem: format!(
                    "{there} rows after the last value of column {} have {}, but to forecast {steps} values the model needs {needed}, \
                     its horizon of {} or whole ones; add rows with the date and these columns, and leave {} empty",
                    plain(&self.series.name),
                    self.known.join(", "),
                    config.horizon,
                    plain(&self.series.name),
                ),
            });
        }
        let rows =
            if of_file > 0 { self.future.0.slice(s![..needed, ..]).to_owned() } else { Array2::zeros((needed, 0)) };
        calendar::beside(&rows, &config.known, &self.axis(), self.values.nrows())
    }
}

/// The columns of a file whose future a model knows.
pub fn known_in_file(config: &ForecastConfig) -> Vec<String> {
    let of_file = |known: &Known| match known {
        Known::Column(name) => Some(name.clone()),
        Known::Calendar(_) => None,
    };
    config.known.iter().filter_map(|known| of_file(&known.source)).collect()
}

/// The column to forecast where none is named, beside that of the keys of a panel; what is known beforehand is not forecast.
pub fn default_target(table: &CsvTable, key: Option<&str>, known: &[String]) -> Result<String> {
    let target = table.default_column(key)?;
    if known.contains(&target) {
        let problem = format!(
            "column {0} is the last of numbers, which is forecast where none is named, but --known {0} says that its future is known; \
             name the column to forecast with --column",
            plain(&target)
        );
        return Err(Error::Data { source_name: table.source_name().to_owned(), line: None, problem });
    }
    Ok(target)
}

/// The columns that names choose, each by a name that stands once; of a column of text its categories.
pub fn references(table: &CsvTable, names: &[String]) -> Result<Vec<String>> {
    if names.is_empty() {
        return Ok(Vec::new());
    }
    let names = names.iter().map(|name| name.trim().to_owned()).collect();
    table.column_references(&ColumnsChoice::Named(names))
}
