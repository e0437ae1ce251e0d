//! Which columns hold the times of a file's rows, and what they are: [`Times`].

use std::collections::HashSet;

use crate::data::csv::cell::Cell;
use crate::data::csv::table::{CsvTable, short};
use crate::data::time::{DateOrder, Dates, Reading, may_be_date, read_dates};

/// What was found of dates.
#[derive(Clone, Debug, Default)]
pub(super) struct Times {
    pub columns: Vec<usize>,
    pub name: String,
    pub labels: Vec<String>,
    pub found: Found,
}

#[derive(Clone, Debug, Default)]
pub(super) enum Found {
    /// No dates: whole numbers or anything.
    #[default]
    Nothing,
    Dates(Dates),
    /// The day or the month may be first.
    Ambiguous,
    /// Dates, but for this row.
    Broken(usize),
    /// Dates of the other order of day and month than the one that is told, which this row cannot have.
    Refuted(usize),
}

impl Times {
    /// Looks for the first column of dates, with the time of day beside it where that is another column; else for a year with a quarter or
    /// a month, and perhaps a day and an hour, beside it. Where a column is `told`, it is that.
    pub fn find(table: &CsvTable, told: Option<usize>) -> Self {
        for column in told.map_or(0..table.names.len(), |column| column..column + 1) {
            let cells = || (0..table.len()).map(|row| table.cell(row, column));
            // Most columns are seen to hold no dates by one cell.
            if !cells().find(|text| !text.is_empty()).is_some_and(may_be_date) {
                continue;
            }
            let texts: Vec<&str> = cells().collect();
            let found = match (read_dates(&texts, table.options.dates), refuted(&texts, table.options.dates)) {
                (Reading::Dates(dates), _) => Found::Dates(dates),
                (Reading::Other | Reading::Broken(_), Some(row)) => Found::Refuted(row),
                (Reading::Other, None) => continue,
                (Reading::Ambiguous, _) => Found::Ambiguous,
                (Reading::Broken(row), None) => Found::Broken(row),
            };
            let labels = texts.into_iter().map(str::to_owned).collect();
            let name = table.column_name(column).to_owned();
            let times = Times { columns: vec![column], name, labels, found };
            return times.with_clock(table, column).unwrap_or(times);
        }
        if let Some(times) = Self::of_parts(table, told) {
            return times;
        }
        told.map_or_else(Times::default, |column| {
            let labels = (0..table.len()).map(|row| table.cell(row, column).to_owned()).collect();
            let name = table.column_name(column).to_owned();
            Times { columns: vec![column], name, labels, found: Found::Nothing }
        })
    }

    /// Dates that are there several times, with the times of day of a column beside them, or of one named hour.
    fn with_clock(&self, table: &CsvTable, date: usize) -> Option<Self> {
        if matches!(self.found, Found::Broken(_) | Found::Refuted(_)) || {
            let mut seen = HashSet::new();
            self.labels.iter().all(|label| seen.insert(label.as_str()))
        } {
            return None;
        }
        let named = |names: &'static [&str]| (0..table.names.len()).filter(|column| is_named(table, *column, names));
        let beside = [Some(date + 1), date.checked_sub(1)].into_iter().flatten();
        let clocks = beside.chain(named(&["time"])).map(|column| (column, clock as fn(&str) -> Option<String>));
        let hours = named(&HOURS).map(|column| (column, hour as fn(&str) -> Option<String>));
        let joined = |(column, read): (usize, fn(&str) -> Option<String>)| {
            let label = |row: usize| Some(format!("{} {}", self.labels.get(row)?, read(table.cell(row, column))?));
            let labels: Vec<String> = (0..table.len()).map(label).collect::<Option<_>>()?;
            let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
            let found = match read_dates(&texts, table.options.dates) {
                Reading::Dates(dates) => Found::Dates(dates),
                Reading::Ambiguous => Found::Ambiguous,
                Reading::Broken(_) | Reading::Other => return None,
            };
            let name = format!("{} {}", table.column_name(date), table.column_name(column));
            Some(Times { columns: vec![date, column], name, labels, found })
        };
        clocks.chain(hours).filter(|(column, _)| *column != date && *column < table.names.len()).find_map(joined)
    }

    /// A column of years, and right of it one of quarters, or of months and perhaps days and hours; or months, and perhaps days, left of it.
    fn of_parts(table: &CsvTable, told: Option<usize>) -> Option<Self> {
        let named = |column: usize, names: &[&str]| is_named(table, column, names);
        let year = (0..table.names.len())
            .find(|column| told.is_none_or(|told| told == *column) && named(*column, &["year", "yr"]))?;
        let quarterly = named(year + 1, &["quarter", "qtr", "q"]);
        let periodic = named(year + 1, &["period"]);
        let is_month = |column: usize| named(column, &["month", "mon", "mo"]);
        let is_day = |column: usize| named(column, &["day", "dayofmonth"]);
        let left =
            |distance: usize, is: &dyn Fn(usize) -> bool| year.checked_sub(distance).filter(|column| is(*column));
        let (part, day) = if quarterly || periodic {
            (year + 1, None)
        } else if is_month(year + 1) {
            (year + 1, Some(year + 2).filter(|column| is_day(*column)))
        } else if let Some(month) = left(1, &is_month) {
            (month, left(2, &is_day))
        } else {
            let (day, month) = (left(1, &is_day)?, left(2, &is_month)?);
            (month, Some(day))
        };
        let monthly = !quarterly && !periodic;
        let mut columns: Vec<usize> = [year, part].into_iter().chain(day).collect();
        let last = columns.iter().max().map_or(0, |last| last + 1);
        let clock = day.and(Some(last)).filter(|column| named(*column, &["hour", "hr"]));
        columns.extend(clock);
        let whole = |row: usize, column: usize| match table.cells.read(table.cell(row, column)) {
            Cell::Number(value) if value.fract() == 0.0 && (0.0..10_000.0).contains(&value) => Some(value as u16),
            _ => None,
        };
        let label = |row: usize| {
            let year_number = whole(row, year)?;
            let text = table.cell(row, part);
            if periodic {
                // M01 and Q01, as the statistics of the United States have it.
                let (kind, number) = (text.get(..1)?, text.get(1..)?.parse::<u8>().ok()?);
                return match kind {
                    "M" => Some(format!("{year_number:04}M{number:02}")),
                    "Q" => Some(format!("{year_number:04}Q{number}")),
                    _ => None,
                };
            }
            let Some(number) = whole(row, part) else {
                // The name of a month, or Q1.
                let number = text.strip_prefix(['Q', 'q']).filter(|_| quarterly);
                return match number {
                    Some(number) => Some(format!("{year_number:04}Q{number}")),
                    None => (monthly && day.is_none()).then(|| format!("{year_number:04}-{text}")),
                };
            };
            let date = match (quarterly, day) {
                (true, _) => format!("{year_number:04}Q{number}"),
                (false, None) => format!("{year_number:04}-{number:02}"),
                (false, Some(day)) => format!("{year_number:04}-{number:02}-{:02}", whole(row, day)?),
            };
            match clock {
                Some(clock) => Some(format!("{date} {}", hour(table.cell(row, clock))?)),
                None => Some(date),
            }
        };
        let labels: Vec<String> = (0..table.len()).map(label).collect::<Option<_>>()?;
        let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
        let Reading::Dates(dates) = read_dates(&texts, None) else { return None };
        let name = columns.iter().map(|column| table.column_name(*column)).collect::<Vec<_>>().join("-");
        Some(Times { columns, name, labels, found: Found::Dates(dates) })
    }

    /// Whether the day or the month comes first, where that was a question.
    pub fn order(&self) -> Option<DateOrder> {
        match &self.found {
            Found::Dates(dates) => dates.form.order(),
            _ => None,
        }
    }

    /// A date of the file.
    pub fn example(&self) -> Option<String> {
        self.labels.first().map(|label| short(label))
    }
}

/// Names of columns of whole hours.
const HOURS: [&str; 8] = ["hour", "hr", "hours", "h", "he", "hour_ending", "hour ending", "stunde"];

/// The first row whose date cannot have the `told` order of day and month, where all are dates of the other.
fn refuted(texts: &[&str], told: Option<DateOrder>) -> Option<usize> {
    let told = told?;
    let Reading::Dates(dates) = read_dates(texts, None) else { return None };
    let is_date = |text: &&str| matches!(read_dates(&[*text], Some(told)), Reading::Dates(_));
    dates.form.order().filter(|order| *order != told).and_then(|_| texts.iter().position(|text| !is_date(text)))
}

/// Whether a column has one of some names, in capital or small letters.
pub(super) fn is_named(table: &CsvTable, column: usize, names: &[&str]) -> bool {
    table.names.get(column).is_some_and(|own| names.iter().any(|name| own.eq_ignore_ascii_case(name)))
}

/// A time of day, `18:00`, `18.00.00` or `6:00 PM`, with colons; of a span, `18:00-19:00`, the beginning.
fn clock(text: &str) -> Option<String> {
    if let Some((begin, end)) = text.split_once(['-', '\u{2013}']) {
        return clock(end.trim()).and_then(|_| clock(begin.trim()));
    }
    let end = text.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.')).unwrap_or(text.len());
    let (digits, half) = text.split_at(end);
    let mark = if digits.contains(':') { ':' } else { '.' };
    let parts: Vec<&str> = digits.split(mark).collect();
    let is_hour = |part: &&str| (1..=2).contains(&part.len());
    let is_clock = (2..=3).contains(&parts.len())
        && parts.first().is_some_and(is_hour)
        && parts.iter().skip(1).all(|part| part.split('.').next().is_some_and(|whole| whole.len() == 2))
        && (half.is_empty() || ["AM", "PM"].iter().any(|known| half.trim().eq_ignore_ascii_case(known)));
    is_clock.then(|| parts.join(":") + half)
}

/// A whole hour from 0 to 24 as a time of day; 24 is the next day's 0.
fn hour(text: &str) -> Option<String> {
    text.parse::<u8>().ok().filter(|hour| *hour <= 24).map(|hour| format!("{hour:02}:00"))
}
