//! Which rows of a file are its table: without the lines of a title above it and of a footer below, and with or without a header.

use ::csv::StringRecord;

use crate::data::csv::cell::{Cell, Cells};
use crate::data::csv::dialect::is_typed;
use crate::data::time::{Reading, read_dates};

/// Most lines of a title, and of a footer.
const MOST_LINES: usize = 30;
/// Rows that tell what a column holds.
const SAMPLE_ROWS: usize = 50;

/// A table within the rows of a file.
pub(super) struct Layout {
    /// Rows before the table, that are left out.
    pub titles: usize,
    /// Rows after it, likewise.
    pub footers: usize,
    pub width: usize,
    /// The header has a cell less than the rows: of R, whose first column, that of the rows' names, has none.
    pub lacks_first: bool,
    /// The same where each row ends in a delimiter.
    pub lacks_last: bool,
}

/// A row of another length than the others, by its number from 0.
pub(super) struct Uneven {
    pub row: usize,
    pub width: usize,
}

/// Finds the table.
pub(super) fn find(records: &[StringRecord]) -> Result<Layout, Uneven> {
    let width = usual_width(records);
    let is_comment = |record: &StringRecord| record.get(0).is_some_and(|cell| cell.starts_with('#'));
    let is_full = |record: &StringRecord| record.len() == width;
    // Comments may have any number of cells; but the last one before the rows can be a header.
    let comments = records.iter().take_while(|record| is_comment(record)).count();
    let comments = match records.get(..comments).and_then(<[_]>::last) {
        Some(header) if is_full(header) && comments < records.len() && width > 1 => comments - 1,
        _ if comments == records.len() => 0,
        _ => comments,
    };
    let first = records.iter().skip(comments).position(is_full).map_or(comments, |at| comments + at);
    let last = records.iter().rposition(|record| is_full(record) && !is_comment(record)).unwrap_or(0).max(first);
    let mut layout =
        Layout { titles: first, footers: records.len() - 1 - last, width, lacks_first: false, lacks_last: false };
    let uneven = |row: usize| Uneven { row, width };
    // A header of one cell less than the rows stands right above them.
    if first > comments {
        let is_header = |header: &StringRecord| {
            header.len() >= 2
                && header.len() + 1 == width
                && header.iter().all(|cell| !cell.is_empty() && !is_typed(cell))
        };
        if records.get(first - 1).is_some_and(is_header) {
            let mut rows = records.iter().take(last + 1).skip(first);
            layout.titles -= 1;
            layout.lacks_last = rows.all(|record| record.get(width - 1).is_none_or(str::is_empty));
            layout.lacks_first = !layout.lacks_last;
        }
    }
    let titles = records.iter().enumerate().take(layout.titles).skip(comments);
    if let Some((row, _)) = titles.into_iter().find(|(row, r)| r.len() > width || *row >= comments + MOST_LINES) {
        return Err(uneven(row));
    }
    let start = layout.titles + usize::from(layout.lacks_first || layout.lacks_last);
    let mut rows = records.iter().enumerate().take(last + 1).skip(start);
    if let Some((row, _)) = rows.find(|(_, record)| !is_full(record)) {
        return Err(uneven(row));
    }
    // What is cut off in the middle of a row is no footer.
    let is_footer = |record: &StringRecord| {
        is_comment(record) || record.len() < width && record.get(0).is_some_and(|cell| !is_typed(cell))
    };
    let mut footers = records.iter().enumerate().skip(last + 1);
    if let Some((row, _)) = footers.find(|(row, record)| !is_footer(record) || row - last > MOST_LINES) {
        return Err(uneven(row));
    }
    if width > 1 && !layout.lacks_first && !layout.lacks_last {
        pad(records, &mut layout);
    }
    Ok(layout)
}

/// Titles and footers that a spreadsheet filled up with empty cells.
fn pad(records: &[StringRecord], layout: &mut Layout) {
    let used = |record: &StringRecord| record.iter().filter(|cell| !cell.is_empty()).count();
    let is_alone = |record: &StringRecord| {
        used(record) == 1 && record.get(0).is_some_and(|cell| !cell.is_empty() && !is_typed(cell))
    };
    let is_empty = |record: &StringRecord| used(record) == 0;
    let mut first = layout.titles;
    let end = records.len() - layout.footers;
    let is_title = |record: &StringRecord| is_alone(record) || is_empty(record);
    while first + 2 < end && first < MOST_LINES && records.get(first).is_some_and(is_title) {
        first += 1;
    }
    // Only where what follows looks like the table.
    if first > layout.titles && records.get(first).is_some_and(|record| used(record) >= 2) {
        layout.titles = first;
    }
    let mut footers = layout.footers;
    let row = |footers: usize| records.get(records.len().wrapping_sub(1 + footers));
    while footers < MOST_LINES && row(footers + 1).is_some() && row(footers).is_some_and(|r| is_alone(r) || is_empty(r))
    {
        footers += 1;
    }
    let before = row(footers).and_then(|record| record.get(0)).unwrap_or("");
    if is_typed(before) && !before.is_empty() && records.len() - footers > layout.titles + 1 {
        layout.footers = footers;
    }
}

/// The number of cells that most rows have, the earliest of those where it is a tie.
fn usual_width(records: &[StringRecord]) -> usize {
    let mut counts: Vec<(usize, usize)> = Vec::new();
    for record in records {
        if let Some((_, count)) = counts.iter_mut().find(|(width, _)| *width == record.len()) {
            *count += 1;
        } else if counts.len() < 1000 {
            // A file of rows of ever new lengths is refused whatever the width is.
            counts.push((record.len(), 1));
        }
    }
    let most = counts.iter().map(|(_, count)| *count).max().unwrap_or(0);
    counts.iter().find(|(_, count)| *count == most).map_or(1, |(width, _)| *width)
}

/// Whether the first row holds the columns' names: what is in it is not what is below it.
pub(super) fn has_header(rows: &[StringRecord], cells: &Cells) -> bool {
    let Some((first, below)) = rows.split_first() else { return false };
    let below = below.get(..SAMPLE_ROWS).unwrap_or(below);
    let kind = |column: usize| {
        let (mut typed, mut missing) = (0, 0);
        let is_date = |text: &str| !matches!(read_dates(&[text], None), Reading::Other);
        for text in below.iter().filter_map(|row| row.get(column)) {
            match cells.read(text) {
                Cell::Number(_) | Cell::Infinite => typed += 1,
                Cell::Gap => missing += 1,
                Cell::Text if is_date(text) => typed += 1,
                Cell::Text => {}
            }
        }
        typed > 0 && typed * 10 >= (below.len() - missing) * 9
    };
    let is_number = |text: &str| matches!(cells.read(text), Cell::Number(_) | Cell::Infinite);
    let is_date = |text: &str| !is_number(text) && is_typed(text) && !cells.is_missing(text);
    // A date above dates is data.
    let dated = |column: usize| below.iter().filter_map(|row| row.get(column)).any(is_date);
    if first.iter().enumerate().any(|(column, text)| is_date(text) && dated(column)) {
        return false;
    }
    if !first.iter().any(is_number) {
        return true;
    }
    // pandas writes no name for the index.
    if first.get(0) == Some("")
        && below.len() > 1
        && below.iter().all(|row| row.get(0).is_some_and(|text| !text.is_empty()))
    {
        return true;
    }
    // 0, 1, 2 are pandas's names of columns without; but 0 above 1 counts rows.
    let mut by_position = first.len() > 1 && below.first().and_then(|row| row.get(0)) != Some("1");
    let mut years = Vec::new();
    for (column, text) in first.iter().enumerate() {
        by_position &= text == column.to_string();
        let is_typed_below = kind(column);
        match cells.read(text) {
            Cell::Number(year) if year.fract() == 0.0 && (1500.0..2200.0).contains(&year) => years.push((column, year)),
            Cell::Text if is_typed_below && !is_date(text) => return true,
            _ => {}
        }
    }
    // A year in each column: 1990, 1991, 1992, with other numbers below.
    let step = years.array_windows().map(|[a, b]| b.1 - a.1).collect::<Vec<_>>();
    let even = step.first().is_some_and(|first| *first > 0.0) && step.array_windows().all(|[a, b]| a == b);
    let is_year = |text: Option<&str>| matches!(text.map(|text| cells.read(text)), Some(Cell::Number(v)) if v.fract() == 0.0 && (1500.0..2200.0).contains(&v));
    let goes_on = |column: usize| below.iter().all(|row| is_year(row.get(column)));
    let other = years.iter().filter(|(column, _)| !goes_on(*column)).count();
    let numbers = first.iter().filter(|text| is_number(text)).count();
    by_position || years.len() >= 3 && years.len() == numbers && even && other * 2 > years.len()
}
