//! Encoding, delimiter and decimal mark of a file, as told or as found out.

use std::borrow::Cow;

use encoding_rs::{Encoding, UTF_8, UTF_16BE, UTF_16LE, WINDOWS_1252};

use crate::data::csv::cell::{Evidence, evidence, number};
use crate::data::csv::{CsvOptions, DecimalMark, MISSING};
use crate::data::time::{Reading, read_dates};
use crate::files::{BEGINNING, zero_in_text};

/// Delimiters that are looked for, in the order of preference.
const DELIMITERS: [char; 4] = [',', ';', '\t', '|'];

/// Bytes and rows that the delimiter is found out from.
const SAMPLE: usize = 1 << 16;
const SAMPLE_ROWS: usize = 100;

/// A file's text, and what was found out about it.
pub(super) struct Text<'a> {
    pub text: Cow<'a, str>,
    /// The first line of cells, where one before it only names the delimiter.
    pub start: usize,
    pub delimiter: char,
    /// The encoding, where it is not UTF-8.
    pub encoding: Option<&'static str>,
    /// Whether each row is one cell, though it has the delimiter in it.
    pub is_single: bool,
}

/// What is wrong with a file, and the line where it is known.
type Problem = (Option<u64>, String);

/// Reads a file's bytes as text.
///
/// # Errors
///
/// What is wrong, and the line where it is known.
pub(super) fn read<'a>(bytes: &'a [u8], options: &CsvOptions) -> Result<Text<'a>, Problem> {
    let beginning = bytes.get(..BEGINNING as usize).unwrap_or(bytes);
    if let Some(problem) = other_kind(bytes).map(str::to_owned).or_else(|| no_text(beginning, options)) {
        return Err((None, problem));
    }
    let (text, encoding) = decode(bytes, options)?;
    let mut start = 0;
    let mut named = None;
    // Excel's first line.
    let first = text.lines().next().unwrap_or("");
    let after = first.split_at_checked(4).filter(|(word, _)| word.eq_ignore_ascii_case("sep=")).map(|(_, rest)| rest);
    if let Some(delimiter) = after.and_then(|rest| {
        Some(rest.trim_end_matches('\r').chars().next().unwrap_or('\t')).filter(|_| rest.chars().count() <= 1)
    }) {
        named = Some(delimiter);
        start = (first.len() + 1).min(text.len());
    }
    let (delimiter, is_single) = match options.delimiter.or(named) {
        Some(delimiter) if delimiter.is_ascii() && !['"', '\n', '\r'].contains(&delimiter) => (delimiter, false),
        Some(delimiter) => {
            return Err((
                None,
                format!(
                    "the delimiter {delimiter:?} is no character of ASCII but quotes and line ends; choose one with --delimiter"
                ),
            ));
        }
        None => find_delimiter(text.get(start..).unwrap_or_default()),
    };
    let text = match joined(text.get(start..).unwrap_or_default(), delimiter) {
        Some(rest) => Cow::Owned(format!("{}{rest}", text.get(..start).unwrap_or_default())),
        None => text,
    };
    let (before, body) = text.split_at_checked(start).unwrap_or_default();
    if let Some(line) = open_quote(body, delimiter).filter(|_| !is_single) {
        let before = before.matches('\n').count() as u64;
        return Err((Some(before + line), "a cell begins with a quote that is not closed".to_owned()));
    }
    Ok(Text { text, start, delimiter, encoding, is_single })
}

/// Why what begins with these bytes is no text: bytes of zero, which no encoding has but UTF-16.
pub(super) fn no_text(beginning: &[u8], options: &CsvOptions) -> Option<String> {
    let told = options.encoding.as_ref().and_then(|label| Encoding::for_label(label.trim().as_bytes()));
    let encoding = Encoding::for_bom(beginning).map(|(marked, _)| marked).or(told);
    if [UTF_16LE, UTF_16BE].contains(&encoding.unwrap_or_else(|| unmarked(beginning)))
        || other_kind(beginning).is_some()
    {
        return None;
    }
    let problem = zero_in_text(beginning)?;
    Some(format!("{problem}; text in UTF-16 without a byte order mark is named with --encoding, as utf-16le"))
}

/// What a file is that is no CSV file though it was taken for one.
fn other_kind(bytes: &[u8]) -> Option<&'static str> {
    let page =
        |text: &[u8]| text.len() >= 5 && [&b"<!doc"[..], b"<html"].iter().any(|tag| text.eq_ignore_ascii_case(tag));
    let marked = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes).trim_ascii_start();
    let after = |first: u8| marked.strip_prefix(&[first]).map(|rest| rest.trim_ascii_start().first().copied());
    if matches!(after(b'{'), Some(Some(b'"' | b'}'))) || matches!(after(b'['), Some(Some(b'{' | b'['))) {
        return Some("this looks like JSON, no CSV file; write it as CSV, a row for each time");
    }
    match bytes {
        [b'P', b'K', 3, 4, ..] => {
            Some("this is a workbook or a zip archive, no CSV file; save its sheet as CSV, or unpack it")
        }
        [0xd0, 0xcf, 0x11, 0xe0, ..] => Some("this is an Excel workbook, no CSV file; save its sheet as CSV"),
        [0x1f, 0x8b, ..] => Some("the file is compressed by gzip; unpack it first"),
        [b'P', b'A', b'R', b'1', ..] => Some("this is a Parquet file, no CSV file; write it as CSV"),
        _ if bytes.get(..5).is_some_and(page) => {
            Some("this is a web page, no CSV file; download the file itself, not the page that shows it")
        }
        _ => None,
    }
}

/// The line, counted from 1, of a quote at the beginning of a cell that is never closed.
fn open_quote(text: &str, delimiter: char) -> Option<u64> {
    if !text.contains('"') {
        return None;
    }
    let (mut open, mut at_start, mut line) = (None, true, 1);
    for c in text.chars() {
        line += u64::from(c == '\n');
        let was_open = open.is_some();
        match (c, open) {
            ('"', Some(_)) => open = None,
            // One right after the one that closes is a quote within the cell.
            ('"', None) if at_start => open = Some(line),
            _ => {}
        }
        at_start = c == '"' && was_open
            || open.is_none() && (c == delimiter || c == '\n' || c == '\r' || at_start && c == ' ');
    }
    open
}

fn decode<'a>(bytes: &'a [u8], options: &CsvOptions) -> Result<(Cow<'a, str>, Option<&'static str>), Problem> {
    let chosen = match &options.encoding {
        None => None,
        Some(label) => Some(Encoding::for_label(label.trim().as_bytes()).ok_or_else(|| {
            (None, format!("unknown encoding {label:?}; --encoding takes a label of the WHATWG, such as utf-8, windows-1252, iso-8859-2 or utf-16le"))
        })?),
    };
    let (encoding, bytes) = match (Encoding::for_bom(bytes), chosen) {
        (Some((encoding, length)), _) => (encoding, bytes.get(length..).unwrap_or_default()),
        (None, Some(encoding)) => (encoding, bytes),
        (None, None) => (unmarked(bytes), bytes),
    };
    let (text, had_errors) = encoding.decode_without_bom_handling(bytes);
    let line_of = |at: usize| Some(1 + text.bytes().take(at).filter(|b| *b == b'\n').count() as u64);
    let is_control = |c: char| c == '\0' || ('\u{80}'..='\u{9f}').contains(&c);
    let broken = if had_errors { text.find(char::REPLACEMENT_CHARACTER) } else { None };
    if let Some(at) = broken.or_else(|| text.find(is_control)) {
        let problem = format!(
            "not text in {}: a byte there stands for no letter; name the file's encoding with --encoding, or convert it to UTF-8",
            encoding.name()
        );
        return Err((line_of(at), problem));
    }
    Ok((text, (encoding != UTF_8).then(|| encoding.name())))
}

/// The encoding of a file that does not begin with a byte order mark.
fn unmarked(bytes: &[u8]) -> &'static Encoding {
    if simple_utf16(bytes, 1) {
        return UTF_16LE;
    }
    if simple_utf16(bytes, 0) {
        return UTF_16BE;
    }
    if std::str::from_utf8(bytes).is_ok() { UTF_8 } else { WINDOWS_1252 }
}

/// Whether of each pair of bytes one is zero and the other is not, as in UTF-16 without letters beyond those of Latin.
fn simple_utf16(bytes: &[u8], zero: usize) -> bool {
    let (pairs, _) = bytes.get(..2000).unwrap_or(bytes).as_chunks();
    let is_simple = |[first, second]: &&[u8; 2]| {
        if zero == 0 { (*first, *second != 0) == (0, true) } else { (*second, *first != 0) == (0, true) }
    };
    pairs.len() >= 2 && pairs.iter().filter(is_simple).count() * 10 >= pairs.len() * 9
}

/// The text without the spaces between a delimiter and a quote, `a, "b"`, which are no part of a cell; `None` where there are none.
fn joined(text: &str, delimiter: char) -> Option<String> {
    if delimiter == ' ' {
        return Some(single_spaces(text));
    }
    if !text.contains(&format!("{delimiter} ")) || !text.contains(" \"") {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    let mut changed = false;
    let mut quoted = false;
    let mut at_start = true;
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        if at_start && c == ' ' {
            let after = rest.as_str().trim_start_matches(' ');
            if after.starts_with('"') {
                changed = true;
                rest = after.chars();
                continue;
            }
        }
        // A quote within a cell that does not begin with one is a letter.
        if c == '"' && (quoted || at_start) {
            quoted = !quoted;
        }
        at_start = !quoted && (c == delimiter || c == '\n' || c == '\r');
        out.push(c);
    }
    changed.then_some(out)
}

/// The text with one space between cells that several spaces divide, and none at the ends of lines.
fn single_spaces(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut quoted = false;
    for line in text.lines() {
        let mut spaces = false;
        for c in (if quoted { line } else { line.trim() }).chars() {
            quoted ^= c == '"';
            if !(spaces && c == ' ') {
                out.push(c);
            }
            spaces = c == ' ' && !quoted;
        }
        out.push('\n');
    }
    out
}

/// Whether a cell is a number, a date or a gap: what tells a right division from a wrong one.
pub(super) fn is_typed(text: &str) -> bool {
    MISSING.iter().any(|gap| text.eq_ignore_ascii_case(gap))
        || number(text, DecimalMark::Point).is_some()
        || number(text, DecimalMark::Comma).is_some()
        || !matches!(read_dates(&[text], None), Reading::Other)
}

/// The delimiter that divides the rows into equally many cells, most of which mean something; and whether there is none, though its
/// character stands in the rows.
fn find_delimiter(text: &str) -> (char, bool) {
    // Whole lines, where there are several.
    let (sample, rest) = text.split_at_checked(text.floor_char_boundary(SAMPLE)).unwrap_or((text, ""));
    let whole = sample.rfind('\n').and_then(|at| sample.get(..=at)).filter(|_| !rest.is_empty());
    let sample = whole.unwrap_or(sample);
    let mut best = (',', 0.0);
    let mut is_single = false;
    for delimiter in DELIMITERS.into_iter().filter(|delimiter| sample.contains(*delimiter)) {
        let mut reader = reader(sample, delimiter);
        let rows: Vec<::csv::StringRecord> = reader.records().take(SAMPLE_ROWS).flatten().collect();
        let mut widths: Vec<usize> = rows.iter().map(::csv::StringRecord::len).collect();
        widths.sort_unstable();
        // Of widths that are equally frequent the largest, which is the last.
        let Some(widest) = widths.chunk_by(|a, b| a == b).max_by_key(|run| run.len()) else { continue };
        let Some(width) = widest.first().copied().filter(|width| *width >= 2) else { continue };
        let (mut typed, mut cells) = (0, 0);
        for row in rows.iter().filter(|row| row.len() == width) {
            cells += row.len();
            typed += row.iter().filter(|cell| is_typed(cell)).count();
        }
        let score = widest.len() as f64 / rows.len() as f64 * (0.05 + typed as f64 / cells.max(1) as f64);
        if score > best.1 {
            best = (delimiter, score);
            // One column of numbers with decimal commas: its name has no comma, and every number one.
            let name_alone = rows.first().is_some_and(|row| row.len() == 1 && !is_typed(row.get(0).unwrap_or("")));
            let decimals = || {
                rows.iter().skip(1).all(|row| {
                    row.len() == 2 && row.iter().all(|cell| cell.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
                })
            };
            is_single = delimiter == ',' && rows.len() > 2 && name_alone && decimals();
        }
    }
    (best.0, is_single)
}

/// A reader of records of any length.
pub(super) fn reader(text: &str, delimiter: char) -> ::csv::Reader<&[u8]> {
    ::csv::ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .trim(::csv::Trim::All)
        .delimiter(u8::try_from(delimiter).unwrap_or(b','))
        .from_reader(text.as_bytes())
}

/// The decimal mark that most cells have, and whether that is a guess: where cells that are divided by other than commas all have three
/// digits after it, as thousands do.
pub(super) fn find_decimal<'a>(cells: impl Iterator<Item = &'a str>, delimiter: char) -> (DecimalMark, bool) {
    let (mut point, mut comma, mut either_point, mut either_comma) = (0, 0, 0, 0);
    for cell in cells {
        match evidence(cell) {
            Evidence::Nothing => {}
            Evidence::Point => point += 1,
            Evidence::Comma => comma += 1,
            Evidence::EitherPoint => either_point += 1,
            Evidence::EitherComma => either_comma += 1,
        }
    }
    let is_other = delimiter != ',';
    match (point, comma) {
        (0, 0) if either_comma > either_point && is_other => (DecimalMark::Comma, true),
        (0, 0) => (DecimalMark::Point, is_other && either_point > 0),
        _ if comma > point => (DecimalMark::Comma, false),
        _ => (DecimalMark::Point, false),
    }
}
