//! Where a series ends, and what is known of the rows after it.

use fused_rnn::data::gaps::CompleteColumns;
use fused_rnn::data::{CsvTable, Gaps, RowOrder, Series, TimeAxis};
use fused_rnn::{Error, Result};
use ndarray::Array2;

use crate::output::plain;
use crate::rows::Rows;

/// A column whose future is known that is a category of a column of text.
#[derive(Clone)]
pub struct KnownCategory {
    /// Which of the known columns it is.
    pub at: usize,
    pub column: String,
    pub text: String,
    /// The first line after the last value in which it stands.
    pub line: Option<u64>,
}

/// The rows after the last value.
pub struct Future {
    /// `[rows, known columns]`.
    pub values: Array2<f64>,
    pub labels: Vec<String>,
    pub lines: Vec<u64>,
    /// What is to be known of rows that are left out.
    pub note: Option<String>,
}

/// Takes off the rows after the last value of the first column: what is there of the last `known` columns, and the labels.
pub fn take(table: &CsvTable, columns: &mut [Series], known: usize, key: Option<&str>) -> Result<Future> {
    let none = Future { values: Array2::zeros((0, known)), labels: Vec::new(), lines: Vec::new(), note: None };
    let from = columns.len().saturating_sub(known);
    let Some(target) = columns.first() else { return Ok(none) };
    let Some(last) = target.values.iter().rposition(Option::is_some).map(|at| at + 1) else { return Ok(none) };
    let rows = target.values.len() - last;
    if rows == 0 {
        return Ok(none);
    }
    let after = |of: &[String]| of.get(last..).unwrap_or_default().to_vec();
    let mut future = Future { labels: after(&target.labels), ..none };
    future.lines = target.lines.get(last..).unwrap_or_default().to_vec();
    if known == 0 {
        future.note = Some(left_out(table, target, &future, key));
    } else if table.options().order != RowOrder::Keep {
        check_goes_on(target, last)?;
    }
    future.values = Array2::zeros((if known == 0 { 0 } else { rows }, known));
    for (mut values, of) in future.values.columns_mut().into_iter().zip(columns.iter().skip(from)) {
        for (row, to) in values.iter_mut().enumerate() {
            let Some(value) = of.values.get(last + row).copied().flatten() else {
                return Err(Error::Data {
                    source_name: of.source_name.clone(),
                    line: of.lines.get(last + row).copied(),
                    problem: format!(
                        "column {}, whose future is known, has no value here, after the last value of the series; fill it in, or \
                         leave the row out",
                        plain(&of.name)
                    ),
                });
            };
            *to = value;
        }
    }
    if known == 0 {
        future.labels.clear();
    }
    for column in columns {
        column.values.truncate(last);
        column.labels.truncate(last);
        column.lines.truncate(last);
    }
    Ok(future)
}

/// That rows have no value yet.
fn left_out(table: &CsvTable, target: &Series, future: &Future, key: Option<&str>) -> String {
    let first = future.labels.first().filter(|label| !label.is_empty());
    let at = format!(
        "line {}{}",
        future.lines.first().unwrap_or(&0),
        first.map_or(String::new(), |label| format!(" ({})", plain(label)))
    );
    let name = plain(&target.name);
    let left = match future.lines.len() {
        1 => format!("the last row, {at}, has no value of column {name} and is left out"),
        rows => format!("the last {rows} rows, from {at} on, have no value of column {name} and are left out"),
    };
    let mut others = table.with_values(&future.lines);
    others.retain(|column| Some(column.as_str()) != key);
    let known = match &others[..] {
        [] => String::new(),
        [one] => format!("; if column {0} is known beforehand, name it with --known {0}", plain(one)),
        some => {
            let names = some.iter().take(10).map(|name| plain(name)).collect::<Vec<_>>().join(",");
            format!("; columns that are known beforehand can be named, as with --known {names}")
        }
    };
    format!("{left}: forecasts begin there{known}")
}

/// Refuses rows after the last value whose times do not go on from it as those before do.
fn check_goes_on(target: &Series, last: usize) -> Result<()> {
    let past = target.labels.get(..last).unwrap_or_default();
    let (before, whole) = (TimeAxis::new(past), TimeAxis::new(&target.labels));
    let (Some(of_past), true) = (before.holes().filter(|found| found.is_even), past.len() > 2) else { return Ok(()) };
    // Where days are missing again and again, as holidays, one more of them says nothing.
    let longest = of_past.holes.iter().map(|(_, count)| *count).max().unwrap_or(0);
    let row = match whole.holes() {
        Some(found) if found.is_even => {
            let hole = found.holes.iter().find(|(row, count)| row + 1 >= last && *count > longest);
            hole.map(|(row, _)| row + 1).or_else(|| off_beat(&whole, last, target.labels.len()))
        }
        // Other distances than before, or no dates as before.
        _ => (last..target.labels.len()).find(|row| target.labels.get(*row) != Some(&before.label(*row))),
    };
    let Some(row) = row else { return Ok(()) };
    let label = |row: usize| target.labels.get(row).map_or(String::new(), |label| plain(label));
    let line = |row: usize| target.lines.get(row).copied().unwrap_or(0);
    let expected = TimeAxis::new(target.labels.get(..row).unwrap_or_default()).label(row);
    let ends = if row == last { ", where the values end" } else { "" };
    Err(Error::Data {
        source_name: target.source_name.clone(),
        line: Some(line(row)),
        problem: format!(
            "column {}: expected {}, the time after {} (line {}{ends}), got {}; forecasts are of the times right after the last value: \
             add the rows that are missing between, with what is known then",
            plain(target.label_name.as_deref().unwrap_or("of times")),
            plain(&expected),
            label(row - 1),
            line(row - 1),
            label(row)
        ),
    })
}

/// The first row after the last value that is no whole number of steps after the one before, where all before are.
fn off_beat(axis: &TimeAxis, last: usize, rows: usize) -> Option<usize> {
    let step = |row: usize| Some(axis.day(row)? - axis.day(row - 1)?);
    let least = (1..last).filter_map(step).fold(f64::INFINITY, f64::min);
    // A tenth of a millisecond, in days: what days are rounded by is far less.
    let is_off = |row: &usize| step(*row).is_some_and(|step| ((step / least).round() * least - step).abs() > 1e-9);
    (1..rows).find(is_off).filter(|row| *row >= last)
}

/// Closes the gaps of a category, of which there is nothing between 0 and 1.
pub fn close_category(column: &mut Series, of: &str, gaps: Gaps) -> Result<()> {
    let missing = column.values.iter().filter(|value| value.is_none()).count();
    match gaps {
        Gaps::Interpolate => {
            let mut last = None;
            for value in &mut column.values {
                last = value.or(last);
                *value = last;
            }
        }
        Gaps::Error if missing > 0 => {
            let first = column.values.iter().position(Option::is_none);
            let (cells, are) = if missing == 1 { ("cell", "is") } else { ("cells", "are") };
            return Err(Error::Data {
                source_name: column.source_name.clone(),
                line: first.and_then(|row| column.lines.get(row).copied()),
                problem: format!(
                    "column {}: {missing} {cells} of {} {are} empty, the first here; if that means none of its texts, write one that says so, \
                     or name the column with --known where it is known beforehand, for which an empty cell is none; if texts are \
                     missing, use --gaps forward-fill or drop",
                    plain(of),
                    column.values.len()
                ),
            });
        }
        Gaps::Error | Gaps::Drop | Gaps::ForwardFill => {}
    }
    Ok(())
}

/// What is to be known of gaps that were closed.
pub fn closed(columns: &[Series], closed: &CompleteColumns, gaps: Gaps, known: usize) -> Result<Vec<String>> {
    let mut notes = Vec::new();
    let rows = columns.first().map_or(0, |target| target.values.len());
    let kept = closed.rows.last().map_or(0, |last| last + 1);
    let is_missing = |column: &&Series| column.values.get(rows.saturating_sub(1)).is_some_and(Option::is_none);
    if let Some(column) = columns.iter().find(is_missing).filter(|_| kept < rows) {
        let line = column.lines.get(kept).copied();
        let left = format!(
            "the last {}, for column {} has no value there",
            if rows - kept == 1 { "row is left out".to_owned() } else { format!("{} rows are left out", rows - kept) },
            plain(&column.name)
        );
        if known > 0 {
            return Err(Error::Data {
                source_name: column.source_name.clone(),
                line,
                problem: format!(
                    "{left}, but the rows that are known after the series follow them; fill it in, or use --gaps forward-fill"
                ),
            });
        }
        notes.push(format!("{left} (from line {} on): forecasts begin there", line.unwrap_or(0)));
    }
    for column in columns {
        let missing = column.values.iter().take(kept).filter(|value| value.is_none()).count();
        if missing > 0 && missing * 5 >= kept && matches!(gaps, Gaps::Interpolate | Gaps::ForwardFill) {
            notes.push(format!(
                "column {}: {missing} of {kept} values, {} %, are missing and made up by --gaps {gaps}; what is learned and what errors are \
                 measured on is no better than they are",
                plain(&column.name),
                missing * 100 / kept.max(1)
            ));
        }
    }
    let first = closed.rows.first().copied().unwrap_or(0);
    let dropped = (kept - first).saturating_sub(closed.rows.len());
    if gaps == Gaps::Drop && dropped > 0 && TimeAxis::new(&closed.labels).is_labelled() {
        notes.push(format!(
            "{dropped} of {rows} rows are left out by --gaps drop, so that the times are no longer evenly spaced; the rows on either \
             side are taken as neighbours"
        ));
    }
    Ok(notes)
}

/// Refuses a category of a known column that stands beside no value of any of these series, but in a row to be forecast: nothing is
/// learned of it.
pub fn check_learned<'a>(all: impl Iterator<Item = &'a Rows> + Clone) -> Result<()> {
    let Some(first) = all.clone().next() else { return Ok(()) };
    for (place, category) in first.categories.iter().enumerate() {
        let is_seen = |rows: &Rows| {
            let column = (rows.values.ncols() - rows.known.len()) + category.at;
            rows.values.column(column).iter().any(|value| *value != 0.0)
        };
        if all.clone().any(is_seen) {
            continue;
        }
        let lines = all.clone().filter_map(|rows| rows.categories.get(place)?.line);
        let Some(line) = lines.min() else { continue };
        return Err(Error::Data {
            source_name: first.series.source_name.clone(),
            line: Some(line),
            problem: format!(
                "column {}: {:?} stands only in rows after the last value, so that nothing can be learned of it; write what is most like it \
                 there, or leave the column out of --known",
                plain(&category.column),
                plain(&category.text)
            ),
        });
    }
    Ok(())
}
