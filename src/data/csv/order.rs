//! The rows of a file in time order, or why they are not.

use crate::data::csv::cell::Cell;
use crate::data::csv::columns::Taken;
use crate::data::csv::table::{CsvTable, short};
use crate::data::csv::times::{Found, is_named};
use crate::data::csv::{ColumnChoice, RowOrder, panel};
use crate::data::time::{DateOrder, Reading, iso, read_dates};
use crate::error::{Error, Result};

/// How to go on all the same.
const WAYS_OUT: &str = "sort them with --sort, or take them as they stand with --sort=no";

/// The rows in time order, with their labels. Where `may_be_panel`, a panel is refused with the option that reads one of its series.
pub(super) fn take(table: &CsvTable, rows: Vec<usize>, chosen: &[usize], may_be_panel: bool) -> Result<Taken> {
    let times = &table.times;
    let mut is_chosen = vec![false; table.names.len()];
    for column in chosen {
        if let Some(chosen) = is_chosen.get_mut(*column) {
            *chosen = true;
        }
    }
    // The hour of a date can be read as well as the date; a date alone cannot.
    let chosen = |column: &usize| is_chosen.get(*column).copied().unwrap_or(false);
    let is_free = times.columns.iter().any(|column| !chosen(column));
    if is_free && !matches!(times.found, Found::Nothing) {
        return by_dates(table, rows, &is_chosen, may_be_panel);
    }
    // A column by which rows were chosen says the same in all of them.
    let only = table.options.only.iter().filter_map(|(name, _)| table.find(&ColumnChoice::Named(name.clone())).ok());
    let only: Vec<usize> = only.collect();
    let is_same = |column: usize| only.contains(&column);
    let free = || (0..is_chosen.len()).filter(|column| !chosen(column));
    let told = times.columns.first().copied().filter(|_| is_free);
    let column = told.or_else(|| free().find(|column| !is_same(*column))).or_else(|| free().next());
    if !is_kept(table)
        && may_be_panel
        && let Some(problem) = panel::of_counters(table, &rows, &is_chosen)
    {
        return Err(table.fail(None, problem));
    }
    match column {
        Some(column) => by_numbers(table, rows, column, told.is_some()),
        None if table.options.order == RowOrder::Sort => {
            let problem = "there is no column to sort the rows by; leave --sort out, or name the column of their times with --time";
            Err(table.fail(None, problem.to_owned()))
        }
        None => Ok(Taken { labels: vec![String::new(); rows.len()], rows, label_name: None }),
    }
}

fn is_kept(table: &CsvTable) -> bool {
    table.options.order == RowOrder::Keep
}

/// The rows with a time that is there twice, or that is before the one above it.
struct Fault {
    at: usize,
    before: usize,
    is_twice: bool,
}

/// Sorts the rows where that is asked for; else finds the first that does not grow. A time that is there twice is a fault unless it `may_repeat`.
fn sort<T: PartialOrd + Copy>(
    table: &CsvTable,
    rows: &mut Vec<usize>,
    may_repeat: bool,
    time: impl Fn(usize) -> T,
) -> Option<Fault> {
    let compare = |a: &usize, b: &usize| time(*a).partial_cmp(&time(*b)).unwrap_or(std::cmp::Ordering::Equal);
    let mut sorted = rows.clone();
    sorted.sort_by(compare);
    let fault = |[before, at]: &[usize; 2], is_twice| Fault { at: *at, before: *before, is_twice };
    let twice = sorted.array_windows().find(|[a, b]| !may_repeat && time(*a) == time(*b)).map(|pair| fault(pair, true));
    if table.options.order == RowOrder::Sort {
        *rows = sorted;
        return twice;
    }
    twice.or_else(|| rows.array_windows().find(|[a, b]| time(*a) > time(*b)).map(|pair| fault(pair, false)))
}

fn by_dates(table: &CsvTable, mut rows: Vec<usize>, is_chosen: &[bool], may_be_panel: bool) -> Result<Taken> {
    let times = &table.times;
    let column = &times.name;
    let label = |row: usize| times.labels.get(row).map_or("", String::as_str);
    let dates = match &times.found {
        Found::Dates(dates) => Some(dates),
        Found::Ambiguous if !is_kept(table) => {
            let problem = format!(
                "column {column}: the dates, such as {:?}, may have the day or the month first, and nothing in the file says which; use \
                 --dates day-first or --dates month-first",
                short(label(0))
            );
            return Err(table.fail(Some(table.line(0)), problem));
        }
        Found::Broken(row) if !is_kept(table) => {
            let (got, like) =
                (short(label(*row)), short(times.labels.iter().find(|l| *l != label(*row)).map_or("", |l| l)));
            let problem = format!(
                "column {column}: expected a date written as {like:?}, got {got:?}; mend it or leave the row out of the file, or take \
                 the rows as they stand with --sort=no"
            );
            return Err(table.fail(Some(table.line(*row)), problem));
        }
        Found::Refuted(row) if !is_kept(table) => {
            let told = table.options.dates.unwrap_or(DateOrder::DayFirst);
            let (first, other) = match told {
                DateOrder::DayFirst => ("day", DateOrder::MonthFirst),
                DateOrder::MonthFirst => ("month", DateOrder::DayFirst),
            };
            let problem = format!(
                "column {column}: {:?} is no date with the {first} first, as --dates {} has it; all dates of the column have the other order: \
                 use --dates {}",
                short(label(*row)),
                told.name(),
                other.name()
            );
            return Err(table.fail(Some(table.line(*row)), problem));
        }
        _ => None,
    };
    if let Some(dates) = dates.filter(|_| !is_kept(table)) {
        let time = |row: usize| dates.times.get(row).copied().unwrap_or(0);
        if let Some(fault) = sort(table, &mut rows, false, time) {
            if fault.is_twice
                && may_be_panel
                && let Some(problem) = panel::of_times(table, &rows, is_chosen, &time)
            {
                return Err(table.fail(None, problem));
            }
            let further = if fault.is_twice { panel::of_series(table, &rows, is_chosen, &time) } else { None };
            if let Some(further) = further {
                let problem = format!(
                    "column {column}: {:?} stands here and in line {}; {further}",
                    short(label(fault.at)),
                    table.line(fault.before)
                );
                return Err(table.fail(Some(table.line(fault.at)), problem));
            }
            return Err(refusal(table, &rows, column, &fault, label, &time));
        }
    }
    let mut labels: Vec<String> = rows.iter().map(|row| label(*row).to_owned()).collect();
    // Where the labels alone do not say which is the day, they are written so that they do.
    if let Some(dates) = dates.filter(|dates| dates.form.order().is_some()) {
        let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
        let again = read_dates(&texts, None);
        if !matches!(&again, Reading::Dates(again) if again.form.order() == dates.form.order()) {
            labels = rows.iter().map(|row| iso(dates.times.get(*row).copied().unwrap_or(0))).collect();
        }
    }
    Ok(Taken { rows, labels, label_name: Some(column.clone()) })
}

/// What to say of rows that are not in time order.
fn refusal<'a, T: PartialOrd>(
    table: &CsvTable,
    rows: &[usize],
    column: &str,
    fault: &Fault,
    label: impl Fn(usize) -> &'a str,
    time: &impl Fn(usize) -> T,
) -> Error {
    let (at, before) = (short(label(fault.at)), short(label(fault.before)));
    let problem = if fault.is_twice {
        format!(
            "column {column}: {at:?} stands here and in line {}, but each time needs one row; leave one out of the file, or take the rows \
             as they stand with --sort=no",
            table.line(fault.before)
        )
    } else if rows.array_windows().all(|[a, b]| time(*a) > time(*b)) {
        let end = |row: Option<&usize>| {
            row.map_or_else(String::new, |row| format!("{} (line {})", short(label(*row)), table.line(*row)))
        };
        format!(
            "column {column}: the rows stand newest first, {} to {}; {WAYS_OUT}",
            end(rows.first()),
            end(rows.last())
        )
    } else {
        format!("column {column}: {at:?} stands after {before:?}, so that the rows are not in time order; {WAYS_OUT}")
    };
    table.fail(Some(table.line(fault.at)), problem)
}

/// Labels that are no dates: numbers, which may be years or count something, or anything.
fn by_numbers(table: &CsvTable, mut rows: Vec<usize>, column: usize, is_told: bool) -> Result<Taken> {
    let name = table.column_name(column);
    let cell = |row: usize| table.cell(row, column);
    let number = |row: &usize| match table.cells.read(cell(*row)) {
        Cell::Number(value) => Ok(value),
        _ => Err(*row),
    };
    let read: std::result::Result<Vec<f64>, usize> = rows.iter().map(number).collect();
    let must_sort = table.options.order == RowOrder::Sort;
    match read {
        Ok(_) if !is_kept(table) => {
            let time = |row: usize| number(&row).unwrap_or(0.0);
            // Numbers that happen to stand beside others count nothing; but all that fall are times.
            let counts = is_told || must_sort || is_count(table, column);
            let falls = rows.len() > 2 && rows.array_windows().all(|[a, b]| time(*a) > time(*b));
            // A year may have several rows, of its seasons.
            let may_repeat = !is_told && !must_sort;
            let fault = if counts || falls { sort(table, &mut rows, may_repeat, time) } else { None };
            if let Some(fault) = fault {
                return Err(refusal(table, &rows, name, &fault, cell, &time));
            }
        }
        Err(row) if must_sort || is_told && !is_kept(table) => {
            let problem = format!(
                "column {name}: the rows have no order by {:?}, which is neither a date nor a number; name another column of times with \
                 --time, or take the rows as they stand with --sort=no",
                short(cell(row))
            );
            return Err(table.fail(Some(table.line(row)), problem));
        }
        _ => {}
    }
    let labels = rows.iter().map(|row| cell(*row).to_owned()).collect();
    Ok(Taken { rows, labels, label_name: Some(name.to_owned()) })
}

/// Whether the numbers of a column are meant to grow: by its name, or as the unnamed first column, pandas's index.
fn is_count(table: &CsvTable, column: usize) -> bool {
    let is_unnamed = |column: usize| table.column_name(column) == format!("column {}", column + 1);
    is_named(table, column, &["year", "yr", "date", "time", "timestamp", "index"])
        || column == 0 && is_unnamed(0) && (1..table.names.len()).any(|other| !is_unnamed(other))
}

/// Whether a column, one of several, does nothing but count the rows: whole numbers that grow under the name of a time, or by one from row to
/// row under that of a number of the row, or none.
pub(super) fn only_counts(table: &CsvTable, column: usize) -> bool {
    let whole = |row: usize| match table.cells.read(table.cell(row, column)) {
        Cell::Number(value) if value.fract() == 0.0 => Some(value),
        _ => None,
    };
    let (is_count, is_number) = (is_count(table, column), is_row_number(table, column));
    if table.names.len() < 2 || !is_count && !is_number {
        return false;
    }
    let numbers: Option<Vec<f64>> = (0..table.len()).map(whole).collect();
    let step = |a: f64, b: f64| if is_count { a < b } else { a + 1.0 == b };
    numbers.is_some_and(|numbers| numbers.array_windows().all(|[a, b]| step(*a, *b)))
}

/// Whether a column is named as one of the rows' numbers is.
fn is_row_number(table: &CsvTable, column: usize) -> bool {
    let name = |column: usize| table.column_name(column).trim();
    let is_unnamed = |column: usize| name(column) == format!("column {}", column + 1);
    let names = [
        "id",
        "no",
        "no.",
        "nr",
        "nr.",
        "num",
        "number",
        "row",
        "rownum",
        "row_number",
        "n",
        "#",
        "obs",
        "t",
        "step",
        "seq",
        "counter",
        "idx",
    ];
    is_named(table, column, &names)
        || name(column).starts_with("Unnamed:")
        || is_unnamed(column) && (0..table.names.len()).any(|other| !is_unnamed(other))
}
