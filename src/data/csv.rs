//! Reading one column of a CSV file, or several.
//!
//! Comma-separated, quotes as in [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180), UTF-8 with or without a byte order mark.
//! The first line is a header unless one of its cells is a number. An empty cell, `NA`, `NaN` or `null` is a gap.

use std::path::Path;
use std::str::FromStr;

use crate::data::Series;
use crate::error::{Error, Result};
use crate::files;

/// Which column to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnChoice {
    /// The last column most of whose cells are numbers.
    #[default]
    LastNumeric,
    /// The column with this name; where there is none, and it is a number, the column with that number, counted from 1.
    Named(String),
}

impl FromStr for ColumnChoice {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(ColumnChoice::Named(s.to_owned()))
    }
}

/// What a cell holds.
pub(super) enum Cell {
    Number(f64),
    Gap,
    Infinite,
    Text,
}

pub(super) fn cell(text: &str) -> Cell {
    if text.is_empty() || ["na", "nan", "null"].iter().any(|gap| text.eq_ignore_ascii_case(gap)) {
        return Cell::Gap;
    }
    match text.parse::<f64>() {
        Ok(v) if v.is_finite() => Cell::Number(v),
        Ok(v) if v.is_nan() => Cell::Gap,
        Ok(_) => Cell::Infinite,
        Err(_) => Cell::Text,
    }
}

/// Reads a column, gaps and all.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] naming the line: a file without rows or not in UTF-8, a row with more or fewer cells than
/// the first, no such column (with the columns there are), a cell of the column that is neither a number nor a gap, or infinite.
pub fn read_series(path: &Path, choice: &ColumnChoice) -> Result<Series> {
    parse_series(&files::read_any(path)?, &path.display().to_string(), choice)
}

/// Reads a column of a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] as [`read_series`].
pub fn parse_series(bytes: &[u8], source_name: &str, choice: &ColumnChoice) -> Result<Series> {
    let table = Table::parse(bytes, source_name)?;
    let column = table.find(choice)?;
    table.series(column, &[column])
}

/// Which columns to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnsChoice {
    /// All columns most of whose cells are numbers, in the order of the file.
    #[default]
    AllNumeric,
    /// These columns in this order, by name or number as for [`ColumnChoice::Named`].
    Named(Vec<String>),
}

/// Reads several columns, gaps and all, one [`Series`] each; all are equally long, with the same labels and lines.
/// [`Gaps::close_columns`](crate::data::Gaps::close_columns) makes a matrix of them.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] as [`read_series`], and for a column chosen twice or none chosen.
pub fn read_columns(path: &Path, choice: &ColumnsChoice) -> Result<Vec<Series>> {
    parse_columns(&files::read_any(path)?, &path.display().to_string(), choice)
}

/// Reads several columns of a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] as [`read_columns`].
pub fn parse_columns(bytes: &[u8], source_name: &str, choice: &ColumnsChoice) -> Result<Vec<Series>> {
    let table = Table::parse(bytes, source_name)?;
    let columns: Vec<usize> = match choice {
        ColumnsChoice::AllNumeric => (0..table.names.len()).filter(|&column| table.is_numeric(column)).collect(),
        ColumnsChoice::Named(names) => {
            names.iter().map(|name| table.find(&ColumnChoice::Named(name.clone()))).collect::<Result<_>>()?
        }
    };
    if columns.is_empty() {
        let problem = match choice {
            ColumnsChoice::AllNumeric => "no column holds mostly numbers",
            ColumnsChoice::Named(_) => "no column is chosen",
        };
        return Err(table.fail(None, format!("{problem}; {}", table.listed())));
    }
    table.check_each_once(&columns)?;
    columns.iter().map(|&column| table.series(column, &columns)).collect()
}

/// The names of a file's columns, as messages list them: `column 2` where the file names none.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] for a file without rows, not in UTF-8, or with rows of different lengths.
pub fn column_names(path: &Path) -> Result<Vec<String>> {
    Ok(Table::parse(&files::read_any(path)?, &path.display().to_string())?.names)
}

/// A file's cells.
pub(super) struct Table<'a> {
    bytes: &'a [u8],
    source_name: &'a str,
    pub(super) names: Vec<String>,
    records: Vec<::csv::StringRecord>,
    has_header: bool,
}

impl<'a> Table<'a> {
    pub(super) fn parse(bytes: &'a [u8], source_name: &'a str) -> Result<Self> {
        let fail =
            |line: Option<u64>, problem: String| Error::Data { source_name: source_name.to_owned(), line, problem };
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        let mut reader = ::csv::ReaderBuilder::new().has_headers(false).trim(::csv::Trim::All).from_reader(bytes);
        let mut records = Vec::new();
        for record in reader.records() {
            let record = record.map_err(|e| {
                let line = e.position().map(|p| Lines { bytes, byte: 0, line: 1 }.of(p));
                match e.kind() {
                    ::csv::ErrorKind::UnequalLengths { expected_len, len, .. } => fail(
                        line,
                        format!("the row has {len} cells, but the rows before it have {expected_len}; each row needs the same number of cells"),
                    ),
                    ::csv::ErrorKind::Utf8 { .. } => fail(line, "not UTF-8 text; convert the file to UTF-8".to_owned()),
                    _ => fail(line, e.to_string()),
                }
            })?;
            records.push(record);
        }
        let Some(first) = records.first() else {
            return Err(fail(None, "the file has no rows; expected a column of numbers".to_owned()));
        };
        let has_header = !first.iter().any(|text| matches!(cell(text), Cell::Number(_) | Cell::Infinite));
        let names: Vec<String> = first
            .iter()
            .enumerate()
            .map(|(i, name)| if has_header && !name.is_empty() { name.to_owned() } else { format!("column {}", i + 1) })
            .collect();
        if records.len() == usize::from(has_header) {
            return Err(fail(None, "the file has a header, but no rows; expected a column of numbers".to_owned()));
        }
        Ok(Table { bytes, source_name, names, records, has_header })
    }

    pub(super) fn fail(&self, line: Option<u64>, problem: String) -> Error {
        Error::Data { source_name: self.source_name.to_owned(), line, problem }
    }

    pub(super) fn rows(&self) -> &[::csv::StringRecord] {
        &self.records[usize::from(self.has_header)..]
    }

    /// The columns there are, for messages.
    pub(super) fn listed(&self) -> String {
        let shown: Vec<_> = self.names.iter().take(20).map(String::as_str).collect();
        let left = self.names.len() - shown.len();
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        format!("the columns are: {}{more}", shown.join(", "))
    }

    /// Whether a column holds more numbers than text.
    pub(super) fn is_numeric(&self, column: usize) -> bool {
        let count = |wanted: fn(&Cell) -> bool| self.rows().iter().filter(|row| wanted(&cell(&row[column]))).count();
        count(|c| matches!(c, Cell::Number(_) | Cell::Infinite)) > count(|c| matches!(c, Cell::Text))
    }

    pub(super) fn find(&self, choice: &ColumnChoice) -> Result<usize> {
        let names = &self.names;
        match choice {
            ColumnChoice::LastNumeric => (0..names.len())
                .rev()
                .find(|&column| self.is_numeric(column))
                .ok_or_else(|| self.fail(None, format!("no column holds mostly numbers; {}", self.listed()))),
            ColumnChoice::Named(name) => {
                let mut same_name = (0..names.len()).filter(|&column| names[column] == *name);
                match (same_name.next(), same_name.next(), name.parse::<usize>()) {
                    (Some(column), None, _) => Ok(column),
                    (Some(a), Some(b), _) => Err(self.fail(
                        None,
                        format!("columns {} and {} are both named {name}; choose one by its number", a + 1, b + 1),
                    )),
                    (None, _, Ok(number)) if (1..=names.len()).contains(&number) => Ok(number - 1),
                    _ => Err(self.fail(None, format!("no column {name}; {}", self.listed()))),
                }
            }
        }
    }

    /// Refuses columns of which one is chosen twice.
    pub(super) fn check_each_once(&self, columns: &[usize]) -> Result<()> {
        match (1..columns.len()).find(|&later| columns[..later].contains(&columns[later])) {
            None => Ok(()),
            Some(twice) => Err(self.fail(None, format!("column {} is chosen twice", self.names[columns[twice]]))),
        }
    }

    /// What [`find`](Self::find) knows a column by: its name, or its number where others have that name too. No name is a number, since
    /// a first line with one is no header.
    pub(super) fn reference(&self, column: usize) -> String {
        let name = &self.names[column];
        let alone = self.names.iter().filter(|other| *other == name).count() == 1;
        if alone { name.clone() } else { (column + 1).to_string() }
    }

    /// The lines of the rows, counted from 1.
    pub(super) fn lines(&self) -> Vec<u64> {
        let mut lines = Lines { bytes: self.bytes, byte: 0, line: 1 };
        self.rows().iter().map(|row| row.position().map_or(0, |p| lines.of(p))).collect()
    }

    /// The values of a column; its labels are the first column that is not `chosen`.
    pub(super) fn series(&self, column: usize, chosen: &[usize]) -> Result<Series> {
        let (names, rows) = (&self.names, self.rows());
        let label_column = (0..names.len()).find(|other| !chosen.contains(other));
        let mut series = Series {
            name: names[column].clone(),
            values: Vec::with_capacity(rows.len()),
            labels: Vec::with_capacity(rows.len()),
            label_name: label_column.map(|l| names[l].clone()),
            lines: Vec::with_capacity(rows.len()),
            source_name: self.source_name.to_owned(),
        };
        let mut lines = Lines { bytes: self.bytes, byte: 0, line: 1 };
        for row in rows {
            let text = &row[column];
            let line = row.position().map_or(0, |p| lines.of(p));
            let wrong = |what: &str| {
                let shown: String = text.chars().take(40).collect();
                self.fail(Some(line), format!("column {}: expected a number, got {what} {shown:?}", names[column]))
            };
            series.values.push(match cell(text) {
                Cell::Number(value) => Some(value),
                Cell::Gap => None,
                Cell::Infinite => return Err(wrong("the infinite value")),
                Cell::Text => return Err(wrong("the text")),
            });
            series.labels.push(label_column.map_or_else(String::new, |l| row[l].to_owned()));
            series.lines.push(line);
        }
        Ok(series)
    }
}

/// Counts lines up to a record. The reader's own count is one short where lines end in CR LF, and at blank lines.
struct Lines<'a> {
    bytes: &'a [u8],
    byte: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of a record at or after the one asked for last.
    fn of(&mut self, position: &::csv::Position) -> u64 {
        let start = usize::try_from(position.byte()).unwrap_or(usize::MAX);
        while let Some(byte) = self.bytes.get(self.byte).filter(|b| self.byte < start || b"\r\n".contains(b)) {
            self.line += u64::from(*byte == b'\n');
            self.byte += 1;
        }
        self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) fn parse(text: &str) -> Result<Series> {
        parse_series(text.as_bytes(), "test.csv", &ColumnChoice::LastNumeric)
    }

    fn named(text: &str, column: &str) -> Result<Series> {
        parse_series(text.as_bytes(), "test.csv", &ColumnChoice::Named(column.to_owned()))
    }

    fn message(result: Result<Series>) -> String {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn header_quotes_bom_crlf_and_spaces() {
        let series = parse("\u{feff}\"YEAR\",\"SUN, ACTIVITY\"\r\n1700, 5\r\n1701,11.5\r\n").unwrap();
        assert_eq!(series.name, "SUN, ACTIVITY");
        assert_eq!(series.values, [Some(5.0), Some(11.5)]);
        assert_eq!(series.labels, ["1700", "1701"]);
        assert_eq!(series.label_name.as_deref(), Some("YEAR"));
        assert_eq!(series.lines, [2, 3]);
    }

    #[test]
    fn no_header() {
        let series = parse("1\n2\n").unwrap();
        assert_eq!((series.name.as_str(), series.values.len()), ("column 1", 2));
        assert_eq!(series.labels, ["", ""]);
        assert_eq!(parse("1749-01,58\n1749-02,62.6\n").unwrap().values, [Some(58.0), Some(62.6)]);
    }

    #[test]
    fn gaps_are_not_values() {
        assert_eq!(parse("t,v\na,1\nb,\nc,NaN\nd,NA\n").unwrap().values, [Some(1.0), None, None, None]);
    }

    #[test]
    fn columns_by_name_and_number() {
        let text = "a,b,note\n1,2,x\n3,4,y\n";
        assert_eq!(parse(text).unwrap().name, "b");
        assert_eq!(named(text, "a").unwrap().values, [Some(1.0), Some(3.0)]);
        assert_eq!(named(text, "2").unwrap().name, "b");
        assert!(message(named(text, "c")).contains("no column c; the columns are: a, b, note"));
        assert!(message(named(text, "4")).contains("no column 4"));
        assert!(message(named("a,a\n1,2\n", "a")).contains("columns 1 and 2 are both named a"));
    }

    #[test]
    fn several_columns() {
        let parse = |choice: &ColumnsChoice| parse_columns(b"t,a,note,b\nmon,1,x,2\ntue,,y,4\n", "test.csv", choice);
        let columns = parse(&ColumnsChoice::AllNumeric).unwrap();
        assert_eq!(columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((&columns[0].values, &columns[1].values), (&vec![Some(1.0), None], &vec![Some(2.0), Some(4.0)]));
        assert_eq!((columns[1].labels[1].as_str(), columns[1].lines[1]), ("tue", 3));
        let choose = |names: &[&str]| ColumnsChoice::Named(names.iter().map(|name| (*name).to_owned()).collect());
        let columns = parse(&choose(&["4", "a"])).unwrap();
        assert_eq!(columns.iter().map(|c| c.name.as_str()).collect::<Vec<_>>(), ["b", "a"]);
        for (names, problem) in [
            (&["a", "2"][..], "column a is chosen twice"),
            (&["a", "c"], "no column c; the columns are: t, a, note, b"),
            (&[], "no column is chosen"),
            (&["a", "note"], "line 2: column note: expected a number"),
        ] {
            let error = parse(&choose(names)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        let error = parse_columns(b"t,u\na,b\n", "test.csv", &ColumnsChoice::AllNumeric).unwrap_err().to_string();
        assert!(error.contains("no column holds mostly numbers"), "{error}");
    }

    #[test]
    fn errors_name_the_line() {
        assert!(message(parse("t,v\na,1\nb,2,3\n")).contains("test.csv, line 3: the row has 3 cells"));
        assert!(
            message(parse("t,v\na,1\nb,oops\nc,3\n"))
                .contains("line 3: column v: expected a number, got the text \"oops\"")
        );
        assert!(message(parse("t,v\na,1\nb,inf\n")).contains("line 3"));
        assert!(message(parse("t,v\na,1\nb,1e999\n")).contains("infinite"));
        assert!(message(parse("t,v\r\na,1\r\n\r\nb,oops\r\nc,2\r\n")).contains("line 4"));
        assert!(message(parse("t,v\r\na,1\r\n\r\nb,2,3\r\n")).contains("line 4"));
        let bytes = b"t,v\na,1\n\xff\xfe,2\n";
        assert!(message(parse_series(bytes, "test.csv", &ColumnChoice::LastNumeric)).contains("line 3: not UTF-8"));
    }

    #[test]
    fn nothing_to_read() {
        for (text, problem) in [
            ("", "no rows"),
            ("\n\n", "no rows"),
            ("t,v\n", "no rows"),
            ("t,v\na,b\n", "no column holds mostly numbers"),
        ] {
            assert!(message(parse(text)).contains(problem), "{text:?}");
        }
    }
}
