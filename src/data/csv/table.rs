//! A file's cells, and columns of them as series: [`CsvTable`].

use std::collections::BTreeSet;
use std::path::Path;

use crate::data::csv::cell::{Cell, Cells};
use crate::data::csv::dialect::{self, Text};
use crate::data::csv::times::Times;
use crate::data::csv::{ColumnChoice, CsvOptions, DecimalMark, Source, layout, notes, order};
use crate::data::time::DateOrder;
use crate::error::{Error, Result};
use crate::files;
use crate::memory;

/// The cells of a CSV file, read as told or as found out.
#[derive(Clone, Debug)]
pub struct CsvTable {
    pub(super) source_name: String,
    pub(crate) names: Vec<String>,
    pub(super) rows: Vec<::csv::StringRecord>,
    /// Line of each row, counted from 1.
    pub(super) lines: Vec<u64>,
    pub(super) cells: Cells,
    pub(super) times: Times,
    pub(super) options: CsvOptions,
    pub(super) remarks: Vec<String>,
}

impl CsvTable {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Data`] as [`parse`](Self::parse).
    pub fn read(path: impl AsRef<Path>, options: &CsvOptions) -> Result<Self> {
        let path = path.as_ref();
        let source_name = path.display().to_string();
        // What is no text, such as a device that gives zeros for ever, is not read to its end.
        let bytes = files::read_any_after(path, |beginning| match dialect::no_text(beginning, options) {
            Some(problem) => Err(Error::Data { source_name: source_name.clone(), line: None, problem }),
            None => Ok(()),
        })?;
        Self::parse(&bytes, &source_name, options)
    }

    /// Reads a file's bytes; `source_name` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Data`], naming the line where there is one: bytes that are no text in the encoding, a quote that is not closed, rows of
    /// different lengths but for lines of a title and of a footer, a file without rows, no row with the cells of [`CsvOptions::only`], options that fit no file;
    /// [`Error::Unsupported`] where memory is short.
    pub fn parse(bytes: &[u8], source_name: &str, options: &CsvOptions) -> Result<Self> {
        let fail =
            |line: Option<u64>, problem: String| Error::Data { source_name: source_name.to_owned(), line, problem };
        // The cells, the places of each row's, labels, and the text in UTF-8.
        let line_ends = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count();
        let room = bytes.len().saturating_mul(4).saturating_add(line_ends.saturating_mul(300));
        memory::check(&format!("{source_name}: the table"), room)?;
        let Text { text, start, delimiter, encoding, is_single } =
            dialect::read(bytes, options).map_err(|(line, problem)| fail(line, problem))?;
        let mut lines = Lines { bytes: text.as_bytes(), byte: 0, line: 1 };
        let mut line_of = |record: &::csv::StringRecord| record.position().map_or(0, |p| lines.of(start, p));
        let body = text.get(start..).unwrap_or_default();
        let mut records = Vec::new();
        let mut places = Vec::new();
        if is_single {
            for (i, line) in
                text.lines().enumerate().skip(usize::from(start > 0)).filter(|(_, line)| !line.trim().is_empty())
            {
                records.push(::csv::StringRecord::from(vec![line.trim()]));
                places.push(i as u64 + 1);
            }
        } else {
            for record in dialect::reader(body, delimiter).records() {
                let record = record.map_err(|e| fail(None, e.to_string()))?;
                if is_blank(&record, body) {
                    continue;
                }
                places.push(line_of(&record));
                records.push(record);
            }
        }
        if records.is_empty() {
            return Err(fail(None, "the file has no rows; expected a column of numbers".to_owned()));
        }
        let found = layout::find(&records).map_err(|uneven| {
            let len = records.get(uneven.row).map_or(0, ::csv::StringRecord::len);
            let problem = format!(
                "the row has {len} cells, but most rows have {}, divided by {delimiter:?}; each row needs the same number of cells. If the \
                 cells are divided by another character, name it with --delimiter",
                uneven.width
            );
            fail(places.get(uneven.row).copied(), problem)
        })?;
        let mut remarks = Vec::new();
        let (decimal, is_guess) = match options.decimal {
            Some(decimal) => (decimal, false),
            None if is_single => (DecimalMark::Comma, false),
            None => {
                let table = records.iter().take(records.len() - found.footers).skip(found.titles);
                dialect::find_decimal(table.flat_map(::csv::StringRecord::iter), delimiter)
            }
        };
        remarks.extend(encoding.map(|name| format!("not in UTF-8; read as {name}")));
        if options.delimiter.is_none() && delimiter != ',' {
            remarks.push(format!("cells are divided by {delimiter:?}"));
        }
        if options.decimal.is_none() {
            match (decimal, is_guess) {
                (DecimalMark::Comma, false) => remarks.push("numbers have decimal commas".to_owned()),
                (DecimalMark::Comma, true) => remarks
                    .push("numbers have decimal commas; if they divide thousands, use --decimal point".to_owned()),
                (DecimalMark::Point, true) => remarks.push(
                    "numbers have decimal points, each before three digits; if they divide thousands, use --decimal comma"
                        .to_owned(),
                ),
                (DecimalMark::Point, false) => {}
            }
        }
        let left_out = |what: &str, rows: std::ops::Range<usize>| {
            let shown: Vec<_> = rows
                .clone()
                .take(3)
                .filter_map(|row| Some(format!("{} ({:?})", places.get(row)?, short(records.get(row)?.get(0)?))))
                .collect();
            let (line, more) =
                (if rows.len() == 1 { "line" } else { "lines" }, if rows.len() > 3 { ", …" } else { "" });
            format!("{line} {}{more} left out as {what}", shown.join(", "))
        };
        if found.titles > 0 {
            remarks.push(left_out("a title", 0..found.titles));
        }
        if found.footers > 0 {
            remarks.push(left_out("a footer", records.len() - found.footers..records.len()));
        }
        let end = records.len() - found.footers;
        records.truncate(end);
        places.truncate(end);
        records.drain(..found.titles);
        places.drain(..found.titles);
        let cell_of = |record: Option<&::csv::StringRecord>, column: usize| {
            record.and_then(|record| record.get(column)).unwrap_or("").to_owned()
        };
        if found.lacks_first {
            let below = records.get(1..).unwrap_or_default();
            if let Some((row, column)) = split_numbers(below).filter(|_| delimiter == ',') {
                let (whole, decimals) = (cell_of(below.get(row), column - 1), cell_of(below.get(row), column));
                let problem = format!(
                    "the row has a cell more than the header, and {whole},{decimals} looks like a number with a decimal comma that was taken \
                     for a delimiter; write such numbers with quotes or with points, or divide the cells by another character"
                );
                return Err(fail(places.get(row + 1).copied(), problem));
            }
            remarks.push(format!(
                "line {} is read as the names of all columns but the first, for it has a cell less than the rows",
                places.first().unwrap_or(&1)
            ));
            if let Some(header) = records.first_mut() {
                *header = std::iter::once("").chain(header.iter()).collect();
            }
        }
        if let Some(header) = records.first_mut().filter(|_| found.lacks_last) {
            header.push_field("");
        }

        let cells = Cells::new(Some(decimal), &options.missing);
        let has_header = options
            .header
            .unwrap_or_else(|| found.lacks_first || found.lacks_last || layout::has_header(&records, &cells));
        if !has_header
            && delimiter == ','
            && options.delimiter.is_none()
            && let Some((row, column)) = split_numbers(&records).filter(|(_, column)| are_decimals(&records, *column))
        {
            let cell = |column: usize| cell_of(records.get(row), column);
            let problem = format!(
                "{},{} looks like a number with a decimal comma that was taken for a delimiter; write such numbers with quotes or with \
                 points, or divide the cells by another character; where they are two columns, use --delimiter ','",
                cell(column - 1),
                cell(column)
            );
            return Err(fail(places.get(row).copied(), problem));
        }
        let header = records.first().filter(|_| has_header);
        let name = |i: usize| match header.and_then(|header| header.get(i)) {
            Some(name) if !name.is_empty() => name.to_owned(),
            _ => format!("column {}", i + 1),
        };
        let names: Vec<String> = (0..found.width).map(name).collect();
        if let Some(header) = header {
            let has_numbers = header.iter().any(|text| matches!(cells.read(text), Cell::Number(_)));
            // Years side by side are said for themselves.
            if has_numbers && options.header.is_none() && notes::years_of(&names).is_none() {
                remarks.push(format!(
                    "line {} is read as the columns' names ({}); if it is data, use --header no",
                    places.first().unwrap_or(&1),
                    short(&names.join(", "))
                ));
            }
            records.drain(..1);
            places.drain(..1);
        }
        // A row of nothing but empty cells says nothing, as a blank line.
        if found.width > 1 {
            let kept: Vec<bool> = records.iter().map(|record| record.iter().any(|cell| !cell.is_empty())).collect();
            let mut keep = kept.iter();
            records.retain(|_| *keep.next().unwrap_or(&true));
            let mut keep = kept.iter();
            places.retain(|_| *keep.next().unwrap_or(&true));
        }
        if records.is_empty() {
            return Err(fail(None, "the file has a header, but no rows; expected a column of numbers".to_owned()));
        }
        let mut table = CsvTable {
            source_name: source_name.to_owned(),
            names,
            rows: records,
            lines: places,
            cells,
            times: Times::default(),
            options: options.clone(),
            remarks,
        };
        table.keep_only(&options.only)?;
        let told = options.time.clone().map(|name| table.find(&ColumnChoice::Named(name))).transpose()?;
        table.times = Times::find(&table, told);
        let order = table.times.order();
        // What a new and shorter file could leave open.
        table.options.decimal = options.decimal.or((decimal == DecimalMark::Comma).then_some(decimal));
        table.options.dates = options.dates.or(order);
        if let (Some(order), None, Some(example)) = (order, options.dates, table.times.example()) {
            let other = if order == DateOrder::DayFirst { DateOrder::MonthFirst } else { DateOrder::DayFirst };
            let remark =
                format!("dates such as {example} are read as {}; else use --dates {}", order.name(), other.name());
            table.remarks.push(remark);
        }
        Ok(table)
    }

    /// Leaves out rows that have other cells than these.
    fn keep_only(&mut self, only: &[(String, String)]) -> Result<()> {
        for (name, value) in only {
            let column = self.find(&ColumnChoice::Named(name.clone()))?;
            let kept: Vec<bool> = (0..self.rows.len()).map(|row| self.cell(row, column) == value).collect();
            if !kept.contains(&true) {
                let there: BTreeSet<&str> =
                    (0..self.rows.len()).map(|row| self.cell(row, column)).take(10_000).collect();
                let shown: Vec<String> = there.iter().take(10).map(|text| short(text)).collect();
                let more = if there.len() > 10 { ", …" } else { "" };
                let problem = format!(
                    "column {name}: no row has {:?}; it has {}{more} (--where {name}=…)",
                    short(value),
                    shown.join(", ")
                );
                return Err(self.fail(None, problem));
            }
            let mut keep = kept.iter();
            self.rows.retain(|_| *keep.next().unwrap_or(&false));
            let mut keep = kept.iter();
            self.lines.retain(|_| *keep.next().unwrap_or(&false));
        }
        Ok(())
    }

    /// The columns' names: `column 2` where the file names none.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// A column's name; empty where there is no such column.
    pub(crate) fn column_name(&self, column: usize) -> &str {
        self.names.get(column).map_or("", String::as_str)
    }

    /// The options that read a new file of the same kind in the same way, though it may be too short to find them out from.
    pub fn options(&self) -> &CsvOptions {
        &self.options
    }

    pub(crate) fn fail(&self, line: Option<u64>, problem: String) -> Error {
        Error::Data { source_name: self.source_name.clone(), line, problem }
    }

    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(crate) fn line(&self, row: usize) -> u64 {
        self.lines.get(row).copied().unwrap_or(0)
    }

    pub(crate) fn cell(&self, row: usize, column: usize) -> &str {
        self.rows.get(row).and_then(|record| record.get(column)).unwrap_or("")
    }

    /// Where it was read, for messages.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// Whether a cell says that there is no value.
    pub(crate) fn is_missing(&self, text: &str) -> bool {
        self.cells.is_missing(text)
    }

    /// The columns there are, for messages.
    pub(crate) fn listed(&self) -> String {
        let shown: Vec<_> = self.names.iter().take(20).map(String::as_str).collect();
        let left = self.names.len() - shown.len();
        let more = if left > 0 { format!(" and {left} more") } else { String::new() };
        format!("the columns are: {}{more}", shown.join(", "))
    }

    /// Whether a column holds more numbers than text; a column of dates does not.
    pub(crate) fn is_numeric(&self, column: usize) -> bool {
        if self.times.columns.contains(&column) {
            return false;
        }
        let (mut numbers, mut texts) = (0, 0);
        for row in 0..self.rows.len() {
            match self.cells.read(self.cell(row, column)) {
                Cell::Number(_) | Cell::Infinite => numbers += 1,
                Cell::Text => texts += 1,
                Cell::Gap => {}
            }
        }
        numbers > texts
    }

    pub(crate) fn find(&self, choice: &ColumnChoice) -> Result<usize> {
        let names = &self.names;
        match choice {
            ColumnChoice::LastNumeric => self.last_numeric(None),
            ColumnChoice::Named(name) => {
                let mut same_name = (0..names.len()).filter(|&column| self.column_name(column) == name);
                match (same_name.next(), same_name.next(), name.trim_start_matches('#').parse::<usize>()) {
                    (Some(column), None, _) => Ok(column),
                    (Some(a), Some(b), _) => {
                        let numbers = self.references(&[Source::Column(a), Source::Column(b)]).join(" or ");
                        let (a, b) = (a + 1, b + 1);
                        let problem =
                            format!("columns {a} and {b} are both named {name}; choose one by its number, {numbers}");
                        Err(self.fail(None, problem))
                    }
                    (None, _, Ok(number)) if (1..=names.len()).contains(&number) => Ok(number - 1),
                    _ => Err(self.fail(None, format!("no column {name}; {}", self.listed()))),
                }
            }
        }
    }

    /// The last column of numbers but that of the keys of a panel, and but one that only counts the rows.
    pub(crate) fn last_numeric(&self, key: Option<usize>) -> Result<usize> {
        let is_free = |column: &usize| Some(*column) != key && self.is_numeric(*column);
        let numeric = || (0..self.names.len()).rev().filter(is_free);
        match (numeric().find(|column| !order::only_counts(self, *column)), numeric().next(), key) {
            (Some(column), _, _) => Ok(column),
            (None, Some(count), _) => {
                let name = self.column_name(count);
                let problem = format!(
                    "no column but {name}, which counts the rows, holds mostly numbers{}",
                    self.text_beside(count)
                );
                Err(self.no_numbers(&problem))
            }
            (None, None, None) => Err(self.no_numbers(&format!("no column holds mostly numbers{}", self.text_there()))),
            (None, None, Some(_)) => Err(self.no_numbers("no column but that of the keys holds mostly numbers")),
        }
    }

    /// What stands in the last column besides this one, and in which line.
    fn text_beside(&self, other: usize) -> String {
        let cells = |column: usize| (0..self.rows.len()).map(move |row| (row, self.cell(row, column)));
        let columns = (0..self.names.len()).rev().filter(|column| *column != other);
        let found = columns.filter_map(|column| {
            let (row, text) = cells(column).find(|(_, text)| !self.is_missing(text))?;
            Some(format!(" (line {}, column {}: {:?})", self.line(row), self.column_name(column), short(text)))
        });
        found.take(1).collect()
    }

    /// What stands in the last column that is none of times, and what to do about it.
    fn text_there(&self) -> String {
        let is_other = |column: &usize| !self.times.columns.contains(column);
        let Some(column) = (0..self.names.len()).rev().find(is_other) else { return String::new() };
        let Some(row) = (0..self.rows.len()).find(|row| !self.is_missing(self.cell(*row, column))) else {
            return String::new();
        };
        let (text, name) = (self.cell(row, column), self.column_name(column));
        let help = match self.mark_help(text) {
            None if self.names.len() == 1 && name.contains([',', ';', '\t']) => {
                Some("; each line as a whole stands in quotes: remove those around the lines".to_owned())
            }
            help => help,
        };
        let Some(help) = help else { return String::new() };
        format!(" (line {}, column {name}: {:?}{help})", self.line(row), short(text))
    }

    pub(crate) fn no_numbers(&self, problem: &str) -> Error {
        let help = "if one does, say how its cells are divided and written with --delimiter (such as space), --decimal or --missing";
        self.fail(None, format!("{problem}; {}; {help}", self.listed()))
    }
}

/// A row and a column whose cell begins with a zero as decimals do, where the whole column holds digits alone and the one before it whole numbers.
fn split_numbers(rows: &[::csv::StringRecord]) -> Option<(usize, usize)> {
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let is_whole = |text: &str| is_digits(text.strip_prefix('-').unwrap_or(text));
    let width = rows.first()?.len();
    (1..width).find_map(|column| {
        let are = |column: usize, is: &dyn Fn(&str) -> bool| rows.iter().all(|row| row.get(column).is_some_and(is));
        if !are(column, &is_digits) || !are(column - 1, &is_whole) {
            return None;
        }
        let row =
            rows.iter().position(|row| row.get(column).is_some_and(|text| text.len() > 1 && text.starts_with('0')));
        Some((row?, column))
    })
}

/// Whether the digits of a column are no part of a date or a clock: all equally many, and some above 59.
fn are_decimals(rows: &[::csv::StringRecord], column: usize) -> bool {
    let cells = || rows.iter().map(|row| row.get(column).unwrap_or(""));
    let width = cells().next().map_or(0, str::len);
    cells().all(|text| text.len() == width) && cells().any(|text| text.parse::<u64>().is_ok_and(|number| number > 59))
}

/// A text for a message, not too long.
pub(super) fn short(text: &str) -> String {
    let mut characters = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let start: String = characters.by_ref().take(40).collect();
    if characters.next().is_none() { start } else { start + "…" }
}

/// A text as an argument of a command line.
pub(super) fn quoted(text: &str) -> String {
    let text = short(text);
    if text.chars().all(|c| c.is_alphanumeric() || "-_.=".contains(c)) {
        text
    } else {
        format!("'{}'", text.replace('\'', ""))
    }
}

/// Whether a record is a line of nothing but spaces, which is as good as none; a quoted cell without a text is a gap.
fn is_blank(record: &::csv::StringRecord, text: &str) -> bool {
    let at = record.position().and_then(|position| usize::try_from(position.byte()).ok()).unwrap_or(0);
    let line = || text.get(at..).map_or("", |rest| rest.trim_start_matches(['\r', '\n']));
    record.len() == 1
        && record.get(0).is_some_and(str::is_empty)
        && line().split(['\r', '\n']).next().is_some_and(|line| line.trim().is_empty())
}

/// Counts lines up to a record. The reader's own count is one short where lines end in CR LF, and at blank lines.
struct Lines<'a> {
    bytes: &'a [u8],
    byte: usize,
    line: u64,
}

impl Lines<'_> {
    /// The line of a record at or after the one asked for last, of a text that begins at byte `start`.
    fn of(&mut self, start: usize, position: &::csv::Position) -> u64 {
        let start = usize::try_from(position.byte()).unwrap_or(usize::MAX).saturating_add(start);
        while let Some(byte) = self.bytes.get(self.byte).filter(|b| self.byte < start || b"\r\n".contains(b)) {
            let is_alone = *byte == b'\r' && self.bytes.get(self.byte + 1) != Some(&b'\n');
            self.line += u64::from(*byte == b'\n' || is_alone);
            self.byte += 1;
        }
        self.line
    }
}
