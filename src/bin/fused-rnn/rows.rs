//! One or several columns of a CSV file, complete, as a forecaster takes them.

use std::path::Path;

use fused_rnn::Result;
use fused_rnn::data::gaps::Complete;
use fused_rnn::data::{ColumnChoice, ColumnsChoice, Gaps, Series, read_columns, read_series};
use fused_rnn::model::ForecastConfig;
use ndarray::{Array2, ArrayView1, Axis};

/// What was read.
pub struct Rows {
    /// The column to forecast.
    pub series: Series,
    /// The same without gaps.
    pub complete: Complete,
    /// The other columns' names.
    pub others: Vec<String>,
    /// All values, that column first: `[rows, columns]`.
    pub values: Array2<f64>,
}

impl Rows {
    /// Reads the column to forecast and others beside it.
    pub fn read(path: &Path, column: &ColumnChoice, others: &[String], gaps: Gaps) -> Result<Self> {
        let names = match column {
            ColumnChoice::Named(name) if !others.is_empty() => [std::slice::from_ref(name), others].concat(),
            _ => {
                let series = read_series(path, column)?;
                let complete = gaps.close(&series)?;
                let values = ArrayView1::from(&complete.values).insert_axis(Axis(1)).to_owned();
                return Ok(Rows { series, complete, others: Vec::new(), values });
            }
        };
        let mut columns = read_columns(path, &ColumnsChoice::Named(names))?;
        let closed = gaps.close_columns(&columns)?;
        let series = columns.remove(0);
        let complete =
            Complete { values: closed.values.column(0).to_vec(), labels: closed.labels, filled: closed.filled };
        let others = columns.into_iter().map(|column| column.name).collect();
        Ok(Rows { series, complete, others, values: closed.values })
    }

    /// Reads what `--columns` and `--target` name: without the target, the last of the columns is it; without columns, all columns of
    /// numbers are read.
    pub fn choose(path: &Path, columns: Option<&[String]>, target: Option<&str>, gaps: Gaps) -> Result<Self> {
        // As in `a, b`, where the names of a file have no spaces around them either.
        let columns: Option<Vec<String>> =
            columns.map(|names| names.iter().map(|name| name.trim().to_owned()).collect());
        let columns = columns.as_deref();
        let choice = columns.map_or(ColumnsChoice::AllNumeric, |columns| ColumnsChoice::Named(columns.to_vec()));
        let chosen = read_columns(path, &choice)?;
        let target = match (target, columns.and_then(<[String]>::last)) {
            (Some(target), _) => target.to_owned(),
            (None, Some(last)) => last.clone(),
            (None, None) => chosen.last().map(|series| series.name.clone()).unwrap_or_default(),
        };
        let column = ColumnChoice::Named(target);
        let name = read_series(path, &column)?.name;
        // As they were given, since a name may stand twice where a number does not.
        let given = |i: usize| columns.map_or(&chosen[i].name, |columns| &columns[i]).clone();
        let others: Vec<_> = (0..chosen.len()).filter(|i| chosen[*i].name != name).map(given).collect();
        Self::read(path, &column, &others, gaps)
    }

    /// Reads what a model was trained on, or another column in the place of its only one.
    pub fn of_model(path: &Path, config: &ForecastConfig, column: Option<String>, gaps: Option<Gaps>) -> Result<Self> {
        let others: Vec<String> = config.inputs.iter().map(|input| input.column.clone()).collect();
        if let Some(column) = column.as_ref().filter(|_| !others.is_empty()) {
            return Err(fused_rnn::Error::InvalidOption {
                option: "column".to_owned(),
                expected: format!("none, for the model reads several columns ({})", config.columns().join(", ")),
                got: column.clone(),
            });
        }
        let column = ColumnChoice::Named(column.unwrap_or_else(|| config.column.clone()));
        Self::read(path, &column, &others, gaps.unwrap_or(config.gaps))
    }
}
