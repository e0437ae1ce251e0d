//! Whether a file is a panel: several series one under another, or row by row, with a column that says which.

use std::collections::{HashMap, HashSet};

use crate::data::csv::cell::Cell;
use crate::data::csv::table::{CsvTable, quoted, short};
use crate::data::csv::times::is_named;
use crate::data::time::{Reading, numbers, read_dates};

/// Columns that are looked at in pairs.
const MOST_PAIRED: usize = 8;

/// What a file is that has the same times several times, each once for each text of another column, or of two.
pub(super) fn of_times(
    table: &CsvTable,
    rows: &[usize],
    is_chosen: &[bool],
    time: &impl Fn(usize) -> i64,
) -> Option<String> {
    keys_of(table, rows, is_chosen, time).map(|keys| problem(table, rows, &keys))
}

/// That the rows of one series of a panel are several all the same, by the texts of other columns.
pub(super) fn of_series(
    table: &CsvTable,
    rows: &[usize],
    is_chosen: &[bool],
    time: &impl Fn(usize) -> i64,
) -> Option<String> {
    let keys = keys_of(table, rows, is_chosen, time)?;
    let names: Vec<&str> = keys.iter().map(|key| table.column_name(*key)).collect();
    let choice = keys.iter().map(|key| {
        let text = rows.first().map_or("", |row| table.cell(*row, *key));
        format!("--where {}", quoted(&format!("{}={text}", table.column_name(*key))))
    });
    Some(format!(
        "column {} divides the rows of a series further: choose one with {}, or add a column to the file that joins the names of both",
        names.join(" and "),
        choice.collect::<Vec<_>>().join(" ")
    ))
}

/// The columns whose texts divide rows so that each has a time once.
fn keys_of(table: &CsvTable, rows: &[usize], is_chosen: &[bool], time: &impl Fn(usize) -> i64) -> Option<Vec<usize>> {
    let mut all: Vec<i64> = rows.iter().map(|row| time(*row)).collect();
    all.sort_unstable();
    if all.array_windows().all(|[a, b]| a < b) {
        return None;
    }
    let is_free = |column: &usize| !is_in(is_chosen, *column) && !table.times.columns.contains(column);
    let (numeric, text): (Vec<usize>, Vec<usize>) =
        (0..table.names.len()).filter(is_free).partition(|column| table.is_numeric(*column));
    let candidates: Vec<usize> = text.into_iter().chain(numeric).collect();
    let each_once = |keys: &[usize]| {
        let mut seen: HashSet<(Vec<&str>, i64)> = HashSet::new();
        rows.iter().all(|row| seen.insert((cells(table, *row, keys), time(*row))))
    };
    // Each series has two rows or more, else a column of numbers would be a key by itself.
    let few = |keys: &[usize]| {
        let mut seen = HashSet::new();
        for row in rows {
            seen.insert(cells(table, *row, keys));
        }
        seen.len() > 1 && seen.len() * 2 <= rows.len()
    };
    let single = candidates.iter().map(|column| vec![*column]).find(|keys| few(keys) && each_once(keys));
    single.or_else(|| {
        // Decimals name no series.
        let is_name = |column: &&usize| {
            rows.iter().all(|row| {
                let text = table.cell(*row, **column);
                !matches!(table.cells.read(text), Cell::Number(value) if value.fract() != 0.0)
            })
        };
        let some: Vec<usize> =
            candidates.iter().filter(|column| few(&[**column])).filter(is_name).take(MOST_PAIRED).copied().collect();
        let pairs = some.iter().enumerate().flat_map(|(i, a)| some.iter().skip(i + 1).map(move |b| vec![*a, *b]));
        pairs.into_iter().find(|keys| few(keys) && each_once(keys))
    })
}

/// Whole numbers that begin again with each series: years, or counters as 1, 2, 3.
pub(super) fn of_counters(table: &CsvTable, rows: &[usize], is_chosen: &[bool]) -> Option<String> {
    let free = || (0..table.names.len()).filter(|column| !is_in(is_chosen, *column));
    let whole = |column: usize| {
        let texts: Vec<&str> = rows.iter().map(|row| table.cell(*row, column)).collect();
        numbers(&texts)
    };
    for years in free() {
        let Some(of_rows) = whole(years).filter(|times| times.iter().all(|time| (1000..3000).contains(time))) else {
            continue;
        };
        let times: HashMap<usize, i64> = rows.iter().copied().zip(of_rows).collect();
        let time = |row: usize| times.get(&row).copied().unwrap_or(0);
        // The seasons of the years are numbers, or months by name.
        let is_without = |column: usize| {
            is_in(is_chosen, column)
                || column == years
                || table.is_numeric(column)
                || is_of_calendar(table, rows, column)
        };
        let without: Vec<bool> = (0..table.names.len()).map(is_without).collect();
        if let Some(problem) = of_times(table, rows, &without, &time) {
            return Some(problem);
        }
        break;
    }
    for counter in free() {
        let Some(counts) = whole(counter) else { continue };
        let blocks: Vec<&[i64]> = counts.chunk_by(|a, b| a < b).collect();
        let step = |block: &[i64]| block.array_windows().map(|[a, b]| b - a).next();
        let (Some(first), true) = (blocks.first(), blocks.len() > 1) else { continue };
        let is_block = |block: &&[i64]| {
            block.len() > 2
                && block.first() == first.first()
                && block.array_windows().all(|[a, b]| Some(b - a) == step(first))
        };
        if !blocks.iter().all(is_block) {
            continue;
        }
        let ids = ["id", "series", "unit", "group", "store", "item", "subject", "machine", "key", "run"];
        let is_key = |column: &usize| {
            let is_none = match table.is_numeric(*column) {
                true => !is_named(table, *column, &ids),
                false => is_of_calendar(table, rows, *column),
            };
            if is_none {
                return false;
            }
            let (mut seen, mut start) = (HashSet::new(), 0);
            blocks.iter().all(|block| {
                let texts: Vec<&str> =
                    rows.iter().skip(start).take(block.len()).map(|row| table.cell(*row, *column)).collect();
                start += block.len();
                texts.array_windows().all(|[a, b]| a == b) && texts.first().is_some_and(|text| seen.insert(*text))
            })
        };
        if let Some(key) = free().filter(|column| *column != counter).find(is_key) {
            return Some(problem(table, rows, &[key]));
        }
    }
    None
}

/// Whether a column has months or days of the week by name.
fn is_of_calendar(table: &CsvTable, rows: &[usize], column: usize) -> bool {
    let all = |text: &dyn Fn(&str) -> String| {
        let texts: Vec<String> = rows.iter().map(|row| text(table.cell(*row, column))).collect();
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        matches!(read_dates(&texts, None), Reading::Dates(_))
    };
    all(&|text| format!("2000-{text}")) || all(&|text| format!("{text}, 2000-01-01"))
}

/// Whether a column is one of those that are marked.
fn is_in(marked: &[bool], column: usize) -> bool {
    marked.get(column).copied().unwrap_or(false)
}

fn cells<'a>(table: &'a CsvTable, row: usize, columns: &[usize]) -> Vec<&'a str> {
    columns.iter().map(|column| table.cell(row, *column)).collect()
}

fn problem(table: &CsvTable, rows: &[usize], keys: &[usize]) -> String {
    let mut seen = HashSet::new();
    let mut shown = Vec::new();
    for row in rows {
        let series = cells(table, *row, keys);
        if seen.insert(series.clone()) && shown.len() < 5 {
            shown.push(series);
        }
    }
    let names: Vec<&str> = keys.iter().map(|key| table.column_name(*key)).collect();
    let verb = if keys.len() == 1 { "column" } else { "columns" };
    let listed: Vec<String> = shown
        .iter()
        .map(|series| {
            series
                .iter()
                .map(|text| if text.is_empty() { "\"\"".to_owned() } else { short(text) })
                .collect::<Vec<_>>()
                .join(" and ")
        })
        .collect();
    let more = if seen.len() > 5 { ", …" } else { "" };
    let choice: Vec<String> = names
        .iter()
        .zip(shown.first().into_iter().flatten())
        .map(|(name, text)| format!("--where {}", quoted(&format!("{name}={text}"))))
        .collect();
    // `--panel` takes one column.
    let all = match names[..] {
        [key] => format!(", train one model of all with --panel {}", quoted(key)),
        _ => String::new(),
    };
    format!(
        "the file is a panel: {verb} {} name{} {} series ({}{more}), whose times overlap; choose one with {}{all}, or take the rows as they \
         stand with --sort=no if they are one series all the same",
        names.join(" and "),
        if keys.len() == 1 { "s" } else { "" },
        seen.len(),
        listed.join(", "),
        choice.join(" ")
    )
}
