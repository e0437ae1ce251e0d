//! What a reader of a series should know.

use std::ops::RangeInclusive;

use crate::data::csv::table::short;
use crate::data::csv::{CsvTable, RowOrder};
use crate::data::time::{may_be_date, month};
use crate::data::{Series, TimeAxis};

/// Numbers that people write where there is none.
const SENTINELS: [f64; 18] = [
    -9.99, -200.0, -99.0, -999.0, -9999.0, -99999.0, -99.9, -999.9, -99.99, -999.99, -9999.9, 999.0, 9999.0, 99999.0,
    999.9, 999.99, 9999.9, 999_999.0,
];

/// Times that are missing between the rows, have no usual distance, or are not read at all.
pub(super) fn times(table: &CsvTable, series: &Series) -> Option<String> {
    let axis = TimeAxis::new(&series.labels);
    let name = series.label_name.as_deref()?;
    if !axis.is_labelled() {
        return unread(table, series, name);
    }
    let found = axis.holes()?;
    if !found.is_even {
        if found.unit == "numbers" {
            return None; // Any numbers that grow, not times.
        }
        return Some(format!(
            "column {name}: the times are not evenly spaced; the rows are taken as neighbours all the same"
        ));
    }
    let (first, _) = found.holes.first()?;
    let total: u64 = found.holes.iter().map(|(_, count)| count).sum();
    let count = if found.holes.len() == 1 { "one place".to_owned() } else { format!("{} places", found.holes.len()) };
    let label = |i: usize| series.labels.get(i).map(|label| short(label)).unwrap_or_default();
    let line = |i: usize| series.lines.get(i).copied().unwrap_or(0);
    let missing = match total {
        1 => format!("one of the {} is", found.unit),
        _ => format!("{total} {} are", found.unit),
    };
    Some(format!(
        "column {name}: {missing} missing at {count}, the first between {} (line {}) and {} (line {}); the rows on either side are \
         taken as neighbours. To close them, add the rows with empty cells, and use --gaps interpolate or forward-fill",
        label(*first),
        line(*first),
        label(first + 1),
        line(first + 1)
    ))
}

/// That a column is one of twelve months side by side.
pub(super) fn months(table: &CsvTable, series: &[Series]) -> Option<String> {
    let [only] = series else { return None };
    let of = |name: &String| month(name.trim());
    let is_there = |number: i8| table.names.iter().any(|name| of(name) == Some(number));
    ((1..=12).all(is_there) && of(&only.name).is_some()).then(|| {
        format!(
            "the file has a column for each month of the year, of which {} alone is read; to forecast months, write a row for each",
            only.name
        )
    })
}

/// That a column is one of years side by side, as the World Bank writes them.
pub(super) fn years(table: &CsvTable, series: &[Series]) -> Option<String> {
    let [only] = series else { return None };
    let years = years_of(&table.names)?;
    let read = year(&only.name).filter(|read| years.contains(read))?;
    Some(format!(
        "the file has a column for each year ({} to {}), of which {read} alone is read; to forecast years, write a row for each",
        years.start(),
        years.end()
    ))
}

/// The first and the last year, where columns are years one after another.
pub(super) fn years_of(names: &[String]) -> Option<RangeInclusive<i32>> {
    let years: Vec<i32> = names.iter().filter_map(|name| year(name)).collect();
    let (first, last) = (years.first()?, years.last()?);
    let follow = years.array_windows().all(|[a, b]| a + 1 == *b);
    (follow && years.len() >= 3).then_some(*first..=*last)
}

/// A column's name as a year: `1960`, `1960 [YR1960]`.
fn year(name: &str) -> Option<i32> {
    let digits = name.split_whitespace().next().filter(|digits| digits.len() == 4)?;
    digits.parse().ok().filter(|year| (1500..2200).contains(year))
}

/// That a series does nothing but count the rows, where another column may be meant.
pub(super) fn counter(table: &CsvTable, series: &Series) -> Option<String> {
    let (first, count) = (series.values.first().copied().flatten()?, series.values.len());
    let counts = series.values.iter().zip(0..).all(|(value, row)| *value == Some(first + f64::from(row)));
    let is_other = |column: &usize| table.column_name(*column) != series.name && table.is_numeric(*column);
    let other = (0..table.names.len()).find(is_other)?;
    ((first == 0.0 || first == 1.0) && count >= 10 && counts).then(|| {
        format!(
            "column {} only counts the rows: {first}, {}, {}, …; if another column is meant, such as {}, name it with --column",
            series.name,
            first + 1.0,
            first + 2.0,
            table.column_name(other)
        )
    })
}

/// Labels that look like times but say none.
fn unread(table: &CsvTable, series: &Series, name: &str) -> Option<String> {
    if table.options().order == RowOrder::Keep {
        return None; // As asked for.
    }
    let taken = "the rows are taken as they stand, and counted";
    let repeated = series.labels.array_windows().position(|[a, b]| a == b && !a.is_empty());
    let is_number = |text: &str| text.parse::<f64>().is_ok();
    if series.labels.iter().all(|text| is_number(text)) {
        let (text, at) = repeated.and_then(|at| Some((series.labels.get(at)?, at)))?;
        let lines = (series.lines.get(at)?, series.lines.get(at + 1)?);
        return ["year", "yr", "time", "timestamp", "date"]
            .iter()
            .any(|word| name.eq_ignore_ascii_case(word))
            .then(|| format!("column {name}: {text} stands in line {} and in line {}; {taken}", lines.0, lines.1));
    }
    let looks_dated = |text: &String| {
        let groups = text.split(|c: char| !c.is_ascii_digit()).filter(|group| !group.is_empty()).count();
        (groups > 1 || may_be_date(text)) && !is_number(text)
    };
    let example = series.labels.first().filter(|text| looks_dated(text) && repeated.is_none())?;
    Some(format!("column {name}: texts such as {:?} are not read as dates; {taken}", short(example)))
}

/// A number that stands far from all others and is one of those that people write for none, or the only one below zero, or there several
/// times.
pub(super) fn sentinel(series: &Series) -> Option<String> {
    let known = || series.values.iter().flatten().copied();
    let suspect = |value: &f64| SENTINELS.contains(value);
    let (low, high) = range(known().filter(|value| !suspect(value)));
    let far = |value: &f64| {
        let reach = (high - low).max(low.abs().max(high.abs()) * 0.1);
        low <= high && (*value < low - reach || *value > high + reach || *value <= -99.0 && low >= 0.0)
    };
    // Any lowest or highest value, where it is there again and again and much farther away than the others are from each other.
    let (lowest, highest) = range(known());
    let alone = |end: &f64| {
        let (low, high) = range(known().filter(|value| value != end));
        let distance = (low - end).max(end - high);
        low < high && distance > 3.0 * (high - low) && known().filter(|value| value == end).count() > 2
    };
    let listed = known().find(|value| suspect(value) && far(value));
    // What people write for nothing, below zero where nothing else is: -1 among counts and prices.
    let below = || {
        let (low, high) = range(known().filter(|value| *value != lowest));
        let reach = (high - low).max(high * 0.1);
        low >= 0.0 && low <= high && [-1.0, -9.0].contains(&lowest) && lowest < low - reach
    };
    let value = listed.or_else(|| [lowest, highest].into_iter().find(alone)).or_else(|| below().then_some(lowest))?;
    let rest = known().filter(|other| *other != value && !(suspect(other) && far(other)));
    let (low, high) = range(rest);
    let count = known().filter(|other| *other == value).count();
    let first = series.values.iter().position(|other| *other == Some(value))?;
    let line = series.lines.get(first).copied().unwrap_or(0);
    let times = if count == 1 { "once".to_owned() } else { format!("{count} times") };
    Some(format!(
        "column {}: {value} stands there {times} (first in line {line}), far from the other values, {low} to {high}; if it means that a \
         value is missing, use --missing {value}",
        series.name
    ))
}

/// The least and the greatest.
fn range(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| (low.min(value), high.max(value)))
}
