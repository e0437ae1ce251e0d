//! Reading one column of a CSV file.
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
enum Cell {
    Number(f64),
    Gap,
    Infinite,
    Text,
}

fn cell(text: &str) -> Cell {
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
    parse_series(&files::read(path)?, &path.display().to_string(), choice)
}

/// Reads a column of a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] as [`read_series`].
pub fn parse_series(bytes: &[u8], source_name: &str, choice: &ColumnChoice) -> Result<Series> {
    let fail = |line: Option<u64>, problem: String| Error::Data { source_name: source_name.to_owned(), line, problem };
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
    let rows = &records[usize::from(has_header)..];
    if rows.is_empty() {
        return Err(fail(None, "the file has a header, but no rows; expected a column of numbers".to_owned()));
    }

    let listed = || {
        let shown: Vec<_> = names.iter().take(20).map(String::as_str).collect();
        let more =
            if names.len() > shown.len() { format!(" and {} more", names.len() - shown.len()) } else { String::new() };
        format!("the columns are: {}{more}", shown.join(", "))
    };
    let column = match choice {
        ColumnChoice::LastNumeric => (0..names.len())
            .rev()
            .find(|&column| {
                let count = |wanted: fn(&Cell) -> bool| rows.iter().filter(|row| wanted(&cell(&row[column]))).count();
                count(|c| matches!(c, Cell::Number(_) | Cell::Infinite)) > count(|c| matches!(c, Cell::Text))
            })
            .ok_or_else(|| fail(None, format!("no column holds mostly numbers; {}", listed())))?,
        ColumnChoice::Named(name) => {
            let mut same_name = (0..names.len()).filter(|&column| names[column] == *name);
            match (same_name.next(), same_name.next(), name.parse::<usize>()) {
                (Some(column), None, _) => column,
                (Some(a), Some(b), _) => {
                    return Err(fail(
                        None,
                        format!("columns {} and {} are both named {name}; choose one by its number", a + 1, b + 1),
                    ));
                }
                (None, _, Ok(number)) if (1..=names.len()).contains(&number) => number - 1,
                _ => return Err(fail(None, format!("no column {name}; {}", listed()))),
            }
        }
    };

    let label_column = (0..names.len()).find(|&other| other != column);
    let mut series = Series {
        name: names[column].clone(),
        values: Vec::with_capacity(rows.len()),
        labels: Vec::with_capacity(rows.len()),
        label_name: label_column.map(|l| names[l].clone()),
        lines: Vec::with_capacity(rows.len()),
        source_name: source_name.to_owned(),
    };
    let mut lines = Lines { bytes, byte: 0, line: 1 };
    for row in rows {
        let text = &row[column];
        let line = row.position().map_or(0, |p| lines.of(p));
        let wrong = |what: &str| {
            let shown: String = text.chars().take(40).collect();
            fail(Some(line), format!("column {}: expected a number, got {what} {shown:?}", names[column]))
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

    fn parse(text: &str) -> Result<Series> {
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
