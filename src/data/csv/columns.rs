//! Columns of a table as series: numbers, categories of texts, the series of a panel.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::data::Series;
use crate::data::csv::cell::{Cell, number};
use crate::data::csv::table::{quoted, short};
use crate::data::csv::{ColumnChoice, ColumnsChoice, CsvTable, DecimalMark, order};
use crate::error::{Error, Result};

/// Most categories of a column of text that becomes columns of numbers.
const MOST_CATEGORIES: usize = 100;

/// How to make a gap of a cell.
fn missing_help(text: &str) -> String {
    format!("; if it stands for a missing value, use --missing {}", quoted(text))
}

/// Where numbers come from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Source {
    Column(usize),
    /// 1 where a column of text has this text, else 0.
    Category(usize, String),
}

impl Source {
    pub fn column(&self) -> usize {
        match self {
            Source::Column(column) | Source::Category(column, _) => *column,
        }
    }
}

/// The rows that are taken, in time order, and what stands beside them.
pub(crate) struct Taken {
    pub rows: Vec<usize>,
    pub labels: Vec<String>,
    pub label_name: Option<String>,
}

impl CsvTable {
    /// All columns of numbers but `other`.
    pub(crate) fn numeric(&self, other: Option<usize>) -> Vec<Source> {
        let columns = (0..self.names.len()).filter(|column| Some(*column) != other && self.is_numeric(*column));
        columns.map(Source::Column).collect()
    }

    /// What a name stands for: a column, or `weather=rain`.
    fn source(&self, name: &str) -> Result<Source> {
        let whole = self.find(&ColumnChoice::Named(name.to_owned()));
        let parts = name.match_indices('=').filter_map(|(at, _)| Some((name.get(..at)?, name.get(at + 1..)?)));
        let category = |(column, text): (&str, &str)| {
            let column = self.find(&ColumnChoice::Named(column.to_owned())).ok()?;
            (!text.is_empty()).then(|| Source::Category(column, text.to_owned()))
        };
        match whole {
            Ok(column) => Ok(Source::Column(column)),
            Err(error) => parts.rev().find_map(category).ok_or(error),
        }
    }

    /// The texts of a column, each once; `None` for more than a model can take as categories.
    fn categories(&self, column: usize) -> Option<BTreeSet<&str>> {
        let mut found = BTreeSet::new();
        for text in (0..self.rows.len()).map(|row| self.cell(row, column)).filter(|text| !self.is_missing(text)) {
            found.insert(text);
            if found.len() > MOST_CATEGORIES {
                return None;
            }
        }
        Some(found)
    }

    /// What names stand for; a column of text is as many columns of 0 and 1 as it has categories.
    pub(crate) fn sources(&self, names: &[String]) -> Result<Vec<Source>> {
        let mut sources = Vec::new();
        for name in names {
            match self.source(name)? {
                Source::Column(column) if !self.is_numeric(column) && !self.times.columns.contains(&column) => {
                    match self.categories(column) {
                        Some(categories) if !categories.is_empty() => {
                            sources
                                .extend(categories.into_iter().map(|text| Source::Category(column, text.to_owned())));
                        }
                        // The first text is refused where it is read.
                        _ => sources.push(Source::Column(column)),
                    }
                }
                source => sources.push(source),
            }
        }
        self.check_each_once(&sources)?;
        Ok(sources)
    }

    /// Refuses columns of which one is chosen twice.
    fn check_each_once(&self, sources: &[Source]) -> Result<()> {
        let mut seen = HashSet::new();
        match sources.iter().find(|source| !seen.insert(*source)) {
            None => Ok(()),
            Some(twice) => Err(self.fail(None, format!("column {} is chosen twice", self.name(twice)))),
        }
    }

    fn name(&self, source: &Source) -> String {
        match source {
            Source::Column(column) => self.column_name(*column).to_owned(),
            Source::Category(column, text) => format!("{}={text}", self.column_name(*column)),
        }
    }

    /// What columns are known by: their names, or numbers where others have that name too. A number has a `#` before it where a column has that number for its
    /// name, or as many as it takes.
    pub(crate) fn references(&self, sources: &[Source]) -> Vec<String> {
        let mut counts: HashMap<&str, usize> = HashMap::new();
        for name in &self.names {
            *counts.entry(name).or_default() += 1;
        }
        let is_name = |text: &str| counts.contains_key(text);
        let reference = |source: &Source| {
            let column = source.column();
            let category = match source {
                Source::Column(_) => String::new(),
                Source::Category(_, text) => format!("={text}"),
            };
            // Neither the whole nor, of a category with a `=` of its own, a longer beginning is taken for another column.
            let is_clear = |known: &str| {
                let whole = format!("{known}{category}");
                let is_other = |(at, _): (usize, &str)| at > known.len() && whole.get(..at).is_some_and(&is_name);
                category.is_empty() || !is_name(&whole) && !whole.match_indices('=').any(is_other)
            };
            let name = self.column_name(column);
            if counts.get(name) == Some(&1) && is_clear(name) {
                return format!("{name}{category}");
            }
            let mut number = (column + 1).to_string();
            while is_name(&number) || !is_clear(&number) {
                number.insert(0, '#');
            }
            number + &category
        };
        sources.iter().map(reference).collect()
    }

    /// The rows in time order, with the labels beside the columns that are `chosen`: a column of dates, else the first other column.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for dates that do not grow from row to row, unless the options say otherwise.
    pub(crate) fn take(&self, rows: Vec<usize>, chosen: &[usize], choose: bool) -> Result<Taken> {
        order::take(self, rows, chosen, choose)
    }

    /// The numbers of a source in some rows.
    pub(crate) fn values(&self, source: &Source, rows: &[usize]) -> Result<Vec<Option<f64>>> {
        let column = source.column();
        let name = self.column_name(column);
        let value = |row: usize| {
            let text = self.cell(row, column);
            if let Source::Category(_, category) = source {
                return Ok((!self.is_missing(text)).then(|| f64::from(u8::from(text == category))));
            }
            let wrong = |what: &str, help: String| {
                self.fail(
                    Some(self.line(row)),
                    format!("column {name}: expected a number, got {what} {:?}{help}", short(text)),
                )
            };
            match self.cells.read(text) {
                Cell::Number(value) => Ok(Some(value)),
                Cell::Gap => Ok(None),
                Cell::Infinite => Err(wrong("the infinite value", missing_help(text))),
                Cell::Text => Err(wrong("the text", self.help(column, text))),
            }
        };
        rows.iter().map(|row| value(*row)).collect()
    }

    /// What to do about a text where a number is expected.
    fn help(&self, column: usize, text: &str) -> String {
        let other =
            if self.cells.decimal == Some(DecimalMark::Comma) { DecimalMark::Point } else { DecimalMark::Comma };
        if number(text, other).is_some() {
            return format!("; if it is a number with a decimal {0}, use --decimal {0}", other.name());
        }
        if let Some(help) = self.mark_help(text).filter(|_| self.is_numeric(column)) {
            return format!("{help}; to leave the value out instead, use --missing {}", quoted(text));
        }
        if self.is_numeric(column) {
            return missing_help(text);
        }
        if self.times.columns.contains(&column) {
            return "; the column holds dates".to_owned();
        }
        match self.categories(column) {
            None => format!("; as categories the column has too many different texts: more than {MOST_CATEGORIES}"),
            Some(_) => "; a column of text can be read beside others, by --columns, or be the --target of --task classification".to_owned(),
        }
    }

    /// What to do about a number that has something else beside it, or other digits.
    pub(super) fn mark_help(&self, text: &str) -> Option<String> {
        if text.chars().any(|c| c.is_numeric() && !c.is_ascii()) {
            return Some("; its digits are not those of ASCII: write numbers with 0 to 9".to_owned());
        }
        let trimmed = text.trim().trim_start_matches(['<', '>', '~', '\u{2248}', '#', '*']).trim_start();
        let end = trimmed.rfind(|c: char| c.is_ascii_digit())? + 1;
        let (digits, mark) = trimmed.split_at_checked(end)?;
        let is_number = number(digits, self.cells.decimal.unwrap_or(DecimalMark::Point)).is_some();
        let marks = [text.trim().strip_suffix(trimmed)?.trim(), mark.trim()];
        let found: Vec<String> = marks.iter().filter(|m| !m.is_empty()).map(|m| format!("{:?}", short(m))).collect();
        (is_number && !found.is_empty()).then(|| {
            format!(
                "; it is the number {} with {} beside it: remove such marks and units from the file",
                short(digits),
                found.join(" and ")
            )
        })
    }

    /// Refuses categories that are not among those that are asked for, where several of their column are: a model knows no others.
    fn check_categories(&self, sources: &[Source], rows: &[usize]) -> Result<()> {
        let mut known: HashMap<usize, HashSet<&str>> = HashMap::new();
        for source in sources {
            if let Source::Category(column, text) = source {
                known.entry(*column).or_default().insert(text);
            }
        }
        for (column, texts) in known.iter().filter(|(_, texts)| texts.len() > 1) {
            let is_new = |row: &&usize| {
                let text = self.cell(**row, *column);
                !texts.contains(text) && !self.is_missing(text)
            };
            if let Some(row) = rows.iter().find(is_new) {
                let name = self.column_name(*column);
                let mut listed: Vec<_> = texts.iter().map(|text| short(text)).collect();
                listed.sort_unstable();
                let text = self.cell(*row, *column);
                let problem = format!(
                    "column {name}: unknown category {:?}; known are {}. If it stands for a missing value, use --missing {}",
                    short(text),
                    listed.join(", "),
                    quoted(text)
                );
                return Err(self.fail(Some(self.line(*row)), problem));
            }
        }
        Ok(())
    }

    /// Series of some rows, which must be all or those of one series of a panel.
    pub(crate) fn series_of(&self, sources: &[Source], taken: &Taken) -> Result<Vec<Series>> {
        self.check_categories(sources, &taken.rows)?;
        let lines: Vec<u64> = taken.rows.iter().map(|row| self.line(*row)).collect();
        let series = |source: &Source| {
            Ok(Series {
                name: self.name(source),
                values: self.values(source, &taken.rows)?,
                labels: taken.labels.clone(),
                label_name: taken.label_name.clone(),
                lines: lines.clone(),
                source_name: self.source_name.clone(),
            })
        };
        sources.iter().map(series).collect()
    }

    fn one(&self, choice: &ColumnChoice) -> Result<Source> {
        match choice {
            ColumnChoice::LastNumeric => self.find(choice).map(Source::Column),
            ColumnChoice::Named(name) => self.source(name),
        }
    }

    fn several(&self, choice: &ColumnsChoice, key: Option<usize>) -> Result<Vec<Source>> {
        let sources = match choice {
            ColumnsChoice::AllNumeric => self.numeric(key),
            ColumnsChoice::Named(names) => self.sources(names)?,
        };
        if sources.is_empty() {
            return Err(match choice {
                ColumnsChoice::AllNumeric => self.no_numbers("no column holds mostly numbers"),
                ColumnsChoice::Named(_) => self.fail(None, format!("no column is chosen; {}", self.listed())),
            });
        }
        Ok(sources)
    }

    fn all_rows(&self) -> Vec<usize> {
        (0..self.rows.len()).collect()
    }

    fn taken(&self, sources: &[Source]) -> Result<Taken> {
        self.take(self.all_rows(), &sources.iter().map(Source::column).collect::<Vec<_>>(), true)
    }

    /// Reads a column, gaps and all, in time order.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] naming the line: for no such column (with the columns there are), a cell that is neither a number nor a gap, or
    /// infinite; for dates that do not grow from row to row, or may have the day or the month first, and for a panel, several series one under
    /// another, each with the option that helps.
    pub fn series(&self, choice: &ColumnChoice) -> Result<Series> {
        let sources = [self.one(choice)?];
        let mut series = self.series_of(&sources, &self.taken(&sources)?)?;
        series.pop().ok_or(Error::ZeroSize { name: "number of columns" })
    }

    /// Reads several columns, gaps and all, one [`Series`] each. A column of text that is named becomes one series for each of its categories,
    /// which is 1 where the column has it and else 0; such a one is named `weather=rain`, and can be chosen by that name.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] as [`series`](Self::series), for a column chosen twice or none chosen, for more than a hundred categories, and for one
    /// that is not among those that are named.
    pub fn columns(&self, choice: &ColumnsChoice) -> Result<Vec<Series>> {
        let sources = self.several(choice, None)?;
        self.series_of(&sources, &self.taken(&sources)?)
    }

    /// What [`series`](Self::series) reads, by the name that chooses the same again: a number where other columns have that name too.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a column that is not there.
    pub fn column_reference(&self, choice: &ColumnChoice) -> Result<String> {
        Ok(self.references(&[self.one(choice)?]).concat())
    }

    /// What [`columns`](Self::columns) reads, by the names that choose the same again.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for columns that are not there, chosen twice, or none.
    pub fn column_references(&self, choice: &ColumnsChoice) -> Result<Vec<String>> {
        Ok(self.references(&self.several(choice, None)?))
    }

    /// What [`ColumnChoice::LastNumeric`] chooses, by the name that chooses it again; never the column of the keys of a panel.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] where no column is left, or that of the keys is not there.
    pub fn default_column(&self, key: Option<&str>) -> Result<String> {
        let key = key.map(|key| self.find(&ColumnChoice::Named(key.to_owned()))).transpose()?;
        let column = Source::Column(self.last_numeric(key)?);
        Ok(self.references(&[column]).pop().unwrap_or_default())
    }

    /// The column of text and the category that a name stands for, as `weather=rain`; `None` for another column.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for a column that is not there.
    pub fn category(&self, name: &str) -> Result<Option<(String, String)>> {
        Ok(match self.source(name)? {
            Source::Category(column, text) => Some((self.column_name(column).to_owned(), text)),
            Source::Column(_) => None,
        })
    }

    /// The columns, none of them of times, that have a value in every row that begins in one of these lines.
    pub fn with_values(&self, lines: &[u64]) -> Vec<String> {
        let rows: Vec<usize> = lines.iter().filter_map(|line| self.lines.binary_search(line).ok()).collect();
        let is_there = |column: &usize| rows.iter().all(|row| !self.is_missing(self.cell(*row, *column)));
        let is_other = |column: &usize| !self.times.columns.contains(column) && !order::only_counts(self, *column);
        let columns = (0..self.names.len()).filter(|column| !rows.is_empty() && is_other(column) && is_there(column));
        columns.map(|column| self.column_name(column).to_owned()).collect()
    }

    /// Reads one column of a panel, several series one under another or row by row: the series of each key, a cell of the column `key`, in
    /// the order of their first rows.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] as [`series`](Self::series) for each of them, and naming the line of a row without a key.
    pub fn panel(&self, key: &str, choice: &ColumnChoice) -> Result<Vec<(String, Series)>> {
        let at = self.find(&ColumnChoice::Named(key.to_owned()))?;
        let source = match choice {
            ColumnChoice::LastNumeric => Source::Column(self.last_numeric(Some(at))?),
            ColumnChoice::Named(name) => self.source(name)?,
        };
        let of_each = self.panel_of(at, &[source])?;
        Ok(of_each.into_iter().filter_map(|(key, mut series)| Some((key, series.pop()?))).collect())
    }

    /// Reads several columns of a panel, as [`columns`](Self::columns) and [`panel`](Self::panel).
    ///
    /// # Errors
    ///
    /// [`Error::Data`] as those.
    pub fn panel_columns(&self, key: &str, choice: &ColumnsChoice) -> Result<Vec<(String, Vec<Series>)>> {
        let at = self.find(&ColumnChoice::Named(key.to_owned()))?;
        self.panel_of(at, &self.several(choice, Some(at))?)
    }

    fn panel_of(&self, key: usize, sources: &[Source]) -> Result<Vec<(String, Vec<Series>)>> {
        let chosen: Vec<usize> = sources.iter().map(Source::column).chain([key]).collect();
        let mut keys: Vec<&str> = Vec::new();
        let mut rows_of: HashMap<&str, Vec<usize>> = HashMap::new();
        for row in 0..self.rows.len() {
            let text = self.cell(row, key);
            if self.is_missing(text) {
                let problem = format!(
                    "column {}: the row has no key ({text:?}), so that it belongs to no series; write one, or leave the row out of the file",
                    self.column_name(key)
                );
                return Err(self.fail(Some(self.line(row)), problem));
            }
            let rows = rows_of.entry(text).or_default();
            if rows.is_empty() {
                keys.push(text);
            }
            rows.push(row);
        }
        let member = |text: &str| {
            let rows = rows_of.remove(text).unwrap_or_default();
            Ok((text.to_owned(), self.series_of(sources, &self.take(rows, &chosen, false)?)?))
        };
        keys.into_iter().map(member).collect()
    }

    /// What a reader of these series should know: how the file was read where it is not plainly so, times that are missing between rows, and
    /// numbers that look as if they stood for missing values.
    pub fn notes(&self, series: &[Series]) -> Vec<String> {
        let mut notes = self.remarks.clone();
        notes.extend(series.first().and_then(|series| super::notes::times(self, series)));
        notes.extend(super::notes::months(self, series));
        notes.extend(super::notes::years(self, series));
        notes.extend(series.first().and_then(|series| super::notes::counter(self, series)));
        notes.extend(series.iter().filter_map(super::notes::sentinel));
        notes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::csv::CsvOptions;

    /// Also where numbers, and texts with a `=`, are names: what a column is known by chooses it and no other.
    #[test]
    fn columns_are_known_by_what_chooses_them() {
        let options = CsvOptions { header: Some(true), ..CsvOptions::default() };
        for text in [
            "a,2,a\n1,2,3\n4,5,6\n",
            "3,2,1,3,2,1\n1,2,3,4,5,6\n7,8,9,10,11,12\n",
            "1,#1,1,##3,3\n1,2,3,4,5\n6,7,8,9,10\n",
            "w,w=x,1=x,w=x=y,#1=x,w\na,1,x,2,3,x\nx=y,4,x,5,6,y\nx,6,y,7,8,x\n",
        ] {
            let table = CsvTable::parse(text.as_bytes(), "test.csv", &options).unwrap();
            for column in 0..table.names().len() {
                let mut sources = vec![Source::Column(column)];
                sources.extend(["x", "y", "x=y", "x=y=x"].map(|text| Source::Category(column, text.to_owned())));
                for source in sources {
                    let known = table.references(std::slice::from_ref(&source));
                    assert_eq!(table.source(&known[0]).unwrap(), source, "{known:?} of {text}");
                }
            }
        }
    }
}
