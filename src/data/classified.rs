//! Rows of a CSV file in time order, each with its class: [`ClassifiedRows`], and their windows as a [`TimeSeriesSet`].

use std::collections::HashMap;
use std::ops::Range;
use std::path::Path;

use ndarray::{Array2, s};

use crate::data::csv::Source;
use crate::data::ts::shown;
use crate::data::{ColumnChoice, ColumnsChoice, CsvOptions, CsvTable, Gaps, TimeSeriesSet};
use crate::error::{Error, Result};
use crate::memory;

/// Columns of numbers without gaps, and the class of each row.
///
/// ```
/// use fused_rnn::data::{ClassifiedRows, ColumnsChoice, Gaps};
/// let text = b"x,y,state\n1,5,calm\n2,6,calm\n4,8,storm\n";
/// let rows = ClassifiedRows::parse(text, "sea.csv", &ColumnsChoice::AllNumeric, "state", Gaps::Error)?;
/// let names = rows.class_names(0..3);
/// assert_eq!((&rows.columns[..], &names[..]), (&["x", "y"].map(String::from)[..], &["calm", "storm"].map(String::from)[..]));
/// let set = rows.windows(0..3, 2, &names)?;
/// assert_eq!((set.sequences.len(), set.labels), (2, vec![0, 1])); // the classes of the windows' last rows
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct ClassifiedRows {
    /// Where they were read, for messages.
    pub source_name: String,
    /// The columns of numbers, by what they are found by again: the name, or the number where others have that name too.
    pub columns: Vec<String>,
    /// The column of classes, likewise.
    pub target: String,
    /// The numbers in time order, all finite: `[rows, columns]`.
    pub values: Array2<f64>,
    /// The class of each row; empty where they were not read.
    pub classes: Vec<String>,
    /// Line of the file of each row, counted from 1.
    pub lines: Vec<u64>,
    /// What stands beside each row: the text of the first column that is neither a number that is read nor the class.
    pub labels: Vec<String>,
    /// That column's name; `None` where there is none.
    pub label_name: Option<String>,
    /// How many numbers were missing.
    pub filled: usize,
    /// What a reader should know ([`CsvTable::notes`]).
    pub notes: Vec<String>,
}

impl ClassifiedRows {
    /// Reads a file. Without names, the columns are all those of numbers but the column of classes, whose texts are taken as they are; a column
    /// of text that is named becomes one of 0 and 1 for each of its categories.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Data`] as [`parse`](Self::parse).
    pub fn read(path: impl AsRef<Path>, columns: &ColumnsChoice, target: &str, gaps: Gaps) -> Result<Self> {
        let path = path.as_ref();
        Self::of(&CsvTable::read(path, &CsvOptions::default())?, columns, target, gaps)
    }

    /// Reads a file's numbers alone, as new data come: it needs no column of classes, and one that there is may have gaps.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Data`] as [`parse`](Self::parse), but for what is said there of classes.
    pub fn read_without_classes(
        path: impl AsRef<Path>,
        columns: &ColumnsChoice,
        target: &str,
        gaps: Gaps,
    ) -> Result<Self> {
        let path = path.as_ref();
        Self::of_numbers(&CsvTable::read(path, &CsvOptions::default())?, columns, target, gaps)
    }

    /// Reads a file's bytes; `source_name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for bytes that are no table, and as [`of`](Self::of).
    pub fn parse(bytes: &[u8], source_name: &str, columns: &ColumnsChoice, target: &str, gaps: Gaps) -> Result<Self> {
        Self::of(&CsvTable::parse(bytes, source_name, &CsvOptions::default())?, columns, target, gaps)
    }

    /// The rows of a table, with the classes that the column `target` has.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a column that is not there, is chosen twice or has no value, or a cell that is neither a number nor a gap; for dates
    /// that do not grow from row to row; for gaps where the policy is [`Gaps::Error`], or where no row is left; for no such column of classes,
    /// or one that is among `columns`; naming the line, for a row without a class.
    pub fn of(table: &CsvTable, columns: &ColumnsChoice, target: &str, gaps: Gaps) -> Result<Self> {
        let at = table.find(&ColumnChoice::Named(target.to_owned()))?;
        let name = table.column_name(at);
        // None is a class like any other.
        let has_none = |row: &usize| table.is_missing(table.cell(*row, at)) && table.cell(*row, at) != "None";
        if let Some(row) = (0..table.len()).find(has_none) {
            let found = shown(table.cell(row, at));
            let problem =
                format!("column {name}: the row has no class ({found}); give it one, or leave the row out of the file");
            return Err(table.fail(Some(table.line(row)), problem));
        }
        let (rows, kept) = Self::numbers(table, columns, Some(at), gaps)?;
        let classes = kept.iter().map(|row| table.cell(*row, at).to_owned()).collect();
        let target = table.references(&[Source::Column(at)]).concat();
        Ok(ClassifiedRows { target, classes, ..rows })
    }

    /// The numbers of a table alone; it needs no column of classes.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] as [`of`](Self::of), but for what is said there of classes.
    pub fn of_numbers(table: &CsvTable, columns: &ColumnsChoice, target: &str, gaps: Gaps) -> Result<Self> {
        let at = table.find(&ColumnChoice::Named(target.to_owned())).ok();
        let (rows, _) = Self::numbers(table, columns, at, gaps)?;
        Ok(ClassifiedRows { target: target.to_owned(), ..rows })
    }

    /// All but the classes, and which rows of the table they are.
    fn numbers(
        table: &CsvTable,
        choice: &ColumnsChoice,
        target: Option<usize>,
        gaps: Gaps,
    ) -> Result<(Self, Vec<usize>)> {
        let sources = match choice {
            ColumnsChoice::AllNumeric => table.numeric(target),
            ColumnsChoice::Named(names) => table.sources(names)?,
        };
        if sources.is_empty() {
            return Err(match choice {
                ColumnsChoice::AllNumeric => table.no_numbers("no column but that of the classes holds mostly numbers"),
                ColumnsChoice::Named(_) => table.fail(None, format!("no column is chosen; {}", table.listed())),
            });
        }
        let columns: Vec<usize> = sources.iter().map(Source::column).collect();
        if let Some(target) = target.filter(|target| columns.contains(target)) {
            let problem = format!(
                "column {} is that of the classes, which the model is to say; it cannot be read too",
                table.column_name(target)
            );
            return Err(table.fail(None, problem));
        }
        let chosen: Vec<usize> = columns.into_iter().chain(target).collect();
        let taken = table.take((0..table.len()).collect(), &chosen, true)?;
        let series = table.series_of(&sources, &taken)?;
        let complete = gaps.close_columns(&series)?;
        let kept: Vec<usize> = complete.rows.iter().filter_map(|row| taken.rows.get(*row).copied()).collect();
        let rows = ClassifiedRows {
            source_name: table.source_name().to_owned(),
            columns: table.references(&sources),
            target: String::new(),
            values: complete.values,
            classes: Vec::new(),
            lines: kept.iter().map(|row| table.line(*row)).collect(),
            labels: complete.labels,
            label_name: taken.label_name,
            filled: complete.filled,
            notes: table.notes(&series),
        };
        Ok((rows, kept))
    }

    /// The classes of some rows, each once: by their size where all are numbers, else in the order of their texts.
    ///
    /// Rows that there are not have none.
    pub fn class_names(&self, rows: Range<usize>) -> Vec<String> {
        let mut names: Vec<&String> = self.classes.get(rows).unwrap_or_default().iter().collect();
        names.sort_unstable();
        names.dedup();
        let numbers: Vec<f64> = names.iter().filter_map(|name| name.parse().ok()).collect();
        if numbers.len() < names.len() {
            return names.into_iter().cloned().collect();
        }
        let mut by_size: Vec<_> = numbers.into_iter().zip(names).collect();
        // Stable, so that 1 and 1.0 stay in the order of their texts.
        by_size.sort_by(|(a, _), (b, _)| a.total_cmp(b));
        by_size.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// Every window of `window` neighbouring rows that lies wholly within `rows`, as a sequence `[window, columns]` with the class of its
    /// last row, by its place among `names`. Window `n` starts at row `rows.start + n`. Where no classes were read, it has none.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for a window of zero rows; [`Error::Shape`] where there are too few rows for one window; [`Error::Data`] naming
    /// the line of a class that is not among `names`, or of a number too large for single precision; [`Error::SizeOverflow`] where there
    /// is no such memory.
    pub fn windows(&self, rows: Range<usize>, window: usize, names: &[String]) -> Result<TimeSeriesSet> {
        if window == 0 {
            return Err(Error::ZeroSize { name: "window" });
        }
        let (len, features) = self.values.dim();
        if rows.end > len || rows.len() < window {
            return Err(Error::shape(
                "rows",
                format!("at least {window}, as a window has, of the {len} that there are"),
                format!("rows {} to {}", rows.start, rows.end),
            ));
        }
        for (what, expected, got) in [
            ("columns", format!("{features}, as the values have columns"), self.columns.len()),
            ("lines", format!("{len}, as the values have rows"), self.lines.len()),
            ("classes", format!("{len}, as the values have rows, or none"), self.classes.len()),
        ] {
            let is_none = what == "classes" && got == 0;
            if got != (if what == "columns" { features } else { len }) && !is_none {
                return Err(Error::shape(what, expected, got.to_string()));
            }
        }
        let fail = |row: usize, problem: String| Error::Data {
            source_name: self.source_name.clone(),
            line: self.lines.get(row).copied(),
            problem,
        };
        for row in rows.clone() {
            for (column, value) in self.columns.iter().zip(self.values.row(row)) {
                if !(*value as f32).is_finite() {
                    let problem =
                        format!("column {column}: {value:e} is too large for single precision; rescale the column");
                    return Err(fail(row, problem));
                }
            }
        }
        let count = rows.len() - window + 1;
        let overflow = || Error::SizeOverflow {
            tensor: "windows".to_owned(),
            expression: format!("{count} windows * {window} rows * {features} columns"),
        };
        // All of them together, before the first is made: each by itself would fit.
        let elements = count.saturating_mul(window).saturating_mul(features);
        memory::check("windows", elements.saturating_mul(size_of::<f32>())).map_err(|_| overflow())?;
        let mut sequences = memory::room("windows", count).map_err(|_| overflow())?;
        for first in rows.start..rows.start + count {
            let mut values = memory::room("a window", window.saturating_mul(features)).map_err(|_| overflow())?;
            values.extend(self.values.slice(s![first..first + window, ..]).iter().map(|value| *value as f32));
            let sequence = Array2::from_shape_vec((window, features), values)
                .map_err(|error| Error::shape("window", "a buffer of its length", error.to_string()))?;
            sequences.push(sequence);
        }
        let places: HashMap<&str, usize> = names.iter().enumerate().map(|(i, name)| (name.as_str(), i)).collect();
        let place = |row: usize| {
            let class = self.classes.get(row).map_or("", String::as_str);
            places.get(class).copied().ok_or_else(|| {
                let known: Vec<_> = names.iter().take(20).map(|name| shown(name)).collect();
                let more = if known.len() < names.len() { ", …" } else { "" };
                let (class, known) = (shown(class), known.join(", "));
                fail(row, format!("column {}: unknown class {class}; known are {known}{more}", self.target))
            })
        };
        let last_rows = rows.start + window - 1..rows.end;
        let labels = if self.classes.is_empty() { Vec::new() } else { last_rows.map(place).collect::<Result<_>>()? };
        Ok(TimeSeriesSet {
            name: self.target.clone(),
            dimensions: features,
            sequences,
            classes: if self.classes.is_empty() { Vec::new() } else { names.to_vec() },
            labels,
            targets: Vec::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn parse(text: &str, target: &str, gaps: Gaps) -> Result<ClassifiedRows> {
        ClassifiedRows::parse(text.as_bytes(), "test.csv", &ColumnsChoice::AllNumeric, target, gaps)
    }

    fn message(result: Result<ClassifiedRows>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        error.to_string()
    }

    const TEXT: &str = "date,x,state,y\n1900,1,b,10\n1901,2,a,\n1902,3,b,30\n1903,4,c,40\n";

    #[test]
    fn windows_have_the_class_of_their_last_row() {
        let text = TEXT.replace("190", "day ");
        let rows = parse(&text, "state", Gaps::Interpolate).unwrap();
        assert_eq!((rows.columns.as_slice(), rows.filled), (&["x".to_owned(), "y".to_owned()][..], 1));
        assert_eq!((rows.label_name.as_deref(), rows.labels[3].as_str()), (Some("date"), "day 3"));
        assert_eq!(rows.lines, [2, 3, 4, 5]);
        let names = rows.class_names(0..4);
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!(rows.class_names(2..4), ["b", "c"]);
        let set = rows.windows(1..4, 2, &names).unwrap();
        assert_eq!(set.sequences, [array![[2.0, 20.0], [3.0, 30.0]], array![[3.0, 30.0], [4.0, 40.0]]]);
        assert_eq!((set.dimensions, set.labels, set.classes), (2, vec![1, 2], names.clone()));
        let error = rows.windows(1..4, 2, &names[..2]).unwrap_err().to_string();
        assert!(error.contains("test.csv, line 5") && error.contains("class \"c\"; known are \"a\", \"b\""), "{error}");
        for (range, window) in [(0..2, 3), (0..5, 2), (4..4, 1)] {
            assert!(matches!(rows.windows(range, window, &names), Err(Error::Shape { .. })));
        }
        assert!(matches!(rows.windows(0..2, 0, &names), Err(Error::ZeroSize { .. })));
        // The fields are anyone's.
        for broken in [
            ClassifiedRows { lines: vec![1], ..rows.clone() },
            ClassifiedRows { columns: Vec::new(), ..rows.clone() },
            ClassifiedRows { classes: vec!["b".to_owned()], ..rows.clone() },
        ] {
            assert!(matches!(broken.windows(0..4, 2, &names), Err(Error::Shape { .. })), "{broken:?}");
        }
        let backwards = std::ops::Range { start: 3, end: 1 };
        assert!(rows.windows(backwards.clone(), 1, &names).is_err() && rows.class_names(backwards).is_empty());
        assert!(rows.windows(0..usize::MAX, usize::MAX, &names).is_err());
    }

    #[test]
    fn rows_left_out_take_their_class_along() {
        let rows = parse(TEXT, "state", Gaps::Drop).unwrap();
        assert_eq!((rows.classes.concat().as_str(), &rows.lines[..]), ("bbc", &[2, 4, 5][..]));
        assert_eq!(rows.columns, ["date", "x", "y"], "all numbers, the date too");
        assert!(message(parse(TEXT, "state", Gaps::Error)).contains("line 3"));
    }

    #[test]
    fn classes_that_are_numbers_go_by_their_size() {
        let rows = parse("x,k\n1,10\n2,9\n3,1.0\n4,1\n", "k", Gaps::Error).unwrap();
        assert_eq!(
            (&rows.columns[..], rows.class_names(0..4)),
            (&["x".to_owned()][..], ["1", "1.0", "9", "10"].map(String::from).to_vec())
        );
        assert_eq!(rows.class_names(3..9), Vec::<String>::new());
    }

    #[test]
    fn columns_with_one_name_go_by_number() {
        let rows = parse("x,x,k\n1,5,a\n2,6,b\n", "3", Gaps::Error).unwrap();
        assert_eq!((&rows.columns[..], rows.target.as_str()), (&["1".to_owned(), "2".to_owned()][..], "k"));
        let again = ColumnsChoice::Named(rows.columns.clone());
        let bytes = b"x,x,k\n1,5,a\n2,6,b\n";
        assert_eq!(ClassifiedRows::parse(bytes, "test.csv", &again, "k", Gaps::Error).unwrap().values, rows.values);
    }

    #[test]
    fn what_cannot_be_is_named() {
        for (class, shown) in [("", "\"\""), ("NA", "\"NA\""), ("null", "\"null\"")] {
            let text = TEXT.replace("3,b", &format!("3,{class}"));
            let text = message(parse(&text, "state", Gaps::Drop));
            assert!(text.contains("line 4") && text.contains("no class") && text.contains(shown), "{text}");
        }
        assert!(
            message(parse(TEXT, "other", Gaps::Drop)).contains("no column other; the columns are: date, x, state, y")
        );
        assert!(message(parse("a,b\nx,y\n", "a", Gaps::Error)).contains("no column but that of the classes"));
        let named = |names: &[&str]| {
            let choice = ColumnsChoice::Named(names.iter().map(|name| (*name).to_owned()).collect());
            message(ClassifiedRows::parse(TEXT.as_bytes(), "test.csv", &choice, "state", Gaps::Drop))
        };
        assert!(named(&["x", "state"]).contains("column state is that of the classes"));
        assert!(named(&["x", "2"]).contains("chosen twice"));
        assert!(named(&[]).contains("no column is chosen"));
        let rows = parse("x,k\n1,a\n1e39,b\n", "k", Gaps::Error).unwrap();
        let error = rows.windows(0..2, 1, &rows.class_names(0..2)).unwrap_err().to_string();
        assert!(error.contains("line 3") && error.contains("column x: 1e39"), "{error}");
    }

    #[test]
    fn new_data_need_no_classes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new.csv");
        let choice = ColumnsChoice::Named(vec!["y".to_owned(), "x".to_owned()]);
        for text in ["x,y\n1,2\n3,4\n", "state,x,y\n,1,2\nb,3,4\n"] {
            std::fs::write(&path, text).unwrap();
            let rows = ClassifiedRows::read_without_classes(&path, &choice, "state", Gaps::Error).unwrap();
            assert_eq!((rows.values.clone(), rows.label_name.clone()), (array![[2.0, 1.0], [4.0, 3.0]], None));
            let set = rows.windows(0..2, 1, &[]).unwrap();
            assert_eq!((set.sequences.len(), set.classes.len(), set.labels.len()), (2, 0, 0));
        }
    }
}
