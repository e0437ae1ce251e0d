//! Reading columns of a CSV file, as people have them: [`CsvTable`].
//!
//! Delimiter, decimal mark, encoding, header, lines of a title and a footer, and the form of dates are found out from the file, or told by
//! [`CsvOptions`]. Quotes are as in [RFC 4180](https://www.rfc-editor.org/rfc/rfc4180). Gaps are pandas's ([`MISSING`]). `docs/csv.md` has
//! all of it.
//!
//! | file | what |
//! |---|---|
//! | `options` | what can be told |
//! | `dialect` | encoding, delimiter, decimal mark |
//! | `cell` | numbers and gaps |
//! | `layout` | title, header, footer |
//! | `table` | the cells |
//! | `columns` | columns as series, categories, series of a panel |
//! | `times` | which columns hold the times |
//! | `order` | the rows in time order |
//! | `panel` | several series in one file |
//! | `notes` | what a reader should know |

mod cell;
mod columns;
mod dialect;
mod layout;
mod notes;
mod options;
mod order;
mod panel;
mod table;
mod times;

use std::path::Path;
use std::str::FromStr;

use crate::data::Series;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;

pub use cell::MISSING;
pub(crate) use columns::Source;
pub use options::{CsvOptions, DecimalMark, RowOrder};
pub use table::CsvTable;

/// Which column to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnChoice {
    /// The last column most of whose cells are numbers, but none that only counts the rows: whole numbers that grow, under a name such as
    /// year, date or index, or by one from row to row under one such as id, no, row or step, beside another column.
    #[default]
    LastNumeric,
    /// The column with this name; where there is none, and it is a number, the column with that number, counted from 1.
    /// With `#` before it (`#2`) a number is meant where a column has it for its name.
    Named(String),
}

impl FromStr for ColumnChoice {
    type Err = std::convert::Infallible;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Ok(ColumnChoice::Named(s.to_owned()))
    }
}

/// Which columns to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum ColumnsChoice {
    /// All columns most of whose cells are numbers, in the order of the file; not those of dates.
    #[default]
    AllNumeric,
    /// These columns in this order, by name or number as for [`ColumnChoice::Named`]. One of text stands for its categories
    /// ([`CsvTable::columns`]).
    Named(Vec<String>),
}

/// Reads a column, gaps and all, of a file whose ways are found out; [`CsvTable`] is told them.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] as [`CsvTable::parse`] and [`CsvTable::series`].
pub fn read_series(path: impl AsRef<Path>, choice: &ColumnChoice) -> Result<Series> {
    let path = path.as_ref();
    CsvTable::read(path, &CsvOptions::default())?.series(choice)
}

/// Reads a column of a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] as [`read_series`].
pub fn parse_series(bytes: &[u8], source_name: &str, choice: &ColumnChoice) -> Result<Series> {
    CsvTable::parse(bytes, source_name, &CsvOptions::default())?.series(choice)
}

/// Reads several columns, gaps and all, one [`Series`] each; all are equally long, with the same labels and lines.
/// [`Gaps::close_columns`](crate::data::Gaps::close_columns) makes a matrix of them.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] as [`CsvTable::parse`] and [`CsvTable::columns`].
pub fn read_columns(path: impl AsRef<Path>, choice: &ColumnsChoice) -> Result<Vec<Series>> {
    let path = path.as_ref();
    CsvTable::read(path, &CsvOptions::default())?.columns(choice)
}

/// Reads several columns of a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] as [`read_columns`].
pub fn parse_columns(bytes: &[u8], source_name: &str, choice: &ColumnsChoice) -> Result<Vec<Series>> {
    CsvTable::parse(bytes, source_name, &CsvOptions::default())?.columns(choice)
}

/// The names of a file's columns, as messages list them: `column 2` where the file names none.
///
/// # Errors
///
/// [`Error::Io`], or [`Error::Data`] as [`CsvTable::parse`].
pub fn column_names(path: impl AsRef<Path>) -> Result<Vec<String>> {
    let path = path.as_ref();
    Ok(CsvTable::read(path, &CsvOptions::default())?.names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

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

    /// A column by which rows are chosen labels none of them, by whatever it is chosen.
    #[test]
    fn rows_chosen_by_a_column_are_labelled_by_another() {
        for name in ["symbol", "1", "#1"] {
            let only = vec![(name.to_owned(), "A".to_owned())];
            let options = CsvOptions { only, ..CsvOptions::default() };
            let text = "symbol,day,v\nA,mon,1\nB,mon,2\nA,tue,3\n";
            let table = CsvTable::parse(text.as_bytes(), "test.csv", &options).unwrap();
            assert_eq!(table.series(&ColumnChoice::LastNumeric).unwrap().labels, ["mon", "tue"], "{name}");
        }
    }

    /// Where numbers are names too.
    #[test]
    fn columns_by_a_number_that_is_a_name() {
        let refused = message(named("2,a,b,a\n1,2,3,4\n", "a"));
        assert!(refused.contains("columns 2 and 4 are both named a; choose one by its number, #2 or 4"), "{refused}");
        assert_eq!(named("2,a,b,a\n1,2,3,4\n", "#2").unwrap().values, [Some(2.0)]);
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
            (&["a", "t=tue", "t=mon", "t=tue"], "column t=tue is chosen twice"),
        ] {
            let error = parse(&choose(names)).unwrap_err().to_string();
            assert!(error.contains(problem), "{error}");
        }
        // A column of text is one for each of its categories.
        let columns = parse(&choose(&["a", "note"])).unwrap();
        let read: Vec<_> = columns.iter().map(|c| (c.name.as_str(), c.values.clone())).collect();
        assert_eq!(read[1..], [("note=x", vec![Some(1.0), Some(0.0)]), ("note=y", vec![Some(0.0), Some(1.0)])]);
        assert_eq!(parse(&choose(&["note=y"])).unwrap()[0].values, columns[2].values);
        let error = parse(&choose(&["note=x", "note=z"])).unwrap_err().to_string();
        assert!(error.contains("line 3: column note: unknown category \"y\"; known are x, z"), "{error}");
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
        let bytes = b"t,v\na,1\n\x81\xfe,2\n";
        let error = message(parse_series(bytes, "test.csv", &ColumnChoice::LastNumeric));
        assert!(error.contains("line 3: not text in windows-1252") && error.contains("--encoding"), "{error}");
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
