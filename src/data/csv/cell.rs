//! What a cell holds: a number as people write it, a gap, or text.

use crate::data::csv::DecimalMark;

/// Cells that are gaps, in capital or small letters: those of pandas's
/// [`read_csv`](https://pandas.pydata.org/docs/reference/api/pandas.read_csv.html).
pub const MISSING: [&str; 15] = [
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA", "NULL",
    "NaN", "None",
];

/// What a cell holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Cell {
    Number(f64),
    Gap,
    Infinite,
    Text,
}

/// What cells of a file are read by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cells {
    pub decimal: Option<DecimalMark>,
    missing: Vec<String>,
    missing_numbers: Vec<f64>,
}

impl Cells {
    pub fn new(decimal: Option<DecimalMark>, missing: &[String]) -> Self {
        let numbers = |mark| missing.iter().filter_map(move |text| number(text, mark));
        let missing_numbers = numbers(decimal.unwrap_or(DecimalMark::Point)).collect();
        Cells { decimal, missing: missing.to_vec(), missing_numbers }
    }

    pub fn read(&self, text: &str) -> Cell {
        if self.is_missing(text) {
            return Cell::Gap;
        }
        match number(text, self.decimal.unwrap_or(DecimalMark::Point)) {
            Some(v) if v.is_nan() || self.missing_numbers.contains(&v) => Cell::Gap,
            Some(v) if v.is_finite() => Cell::Number(v),
            Some(_) => Cell::Infinite,
            None => Cell::Text,
        }
    }

    /// Whether a text says that there is no value.
    pub fn is_missing(&self, text: &str) -> bool {
        text.len() <= 8 && MISSING.iter().any(|gap| text.eq_ignore_ascii_case(gap))
            || self.missing.iter().any(|gap| gap == text)
    }
}

/// Currencies that may stand before or after a number.
const CURRENCIES: [&str; 25] = [
    "$", "€", "£", "¥", "₹", "₽", "₩", "₺", "₫", "₴", "฿", "R$", "US$", "USD", "EUR", "GBP", "CHF", "JPY", "CNY",
    "INR", "SEK", "NOK", "DKK", "kr", "zł",
];

/// Without sign, currency, percent sign and brackets, and whether it is below zero.
fn bare(text: &str) -> Option<(bool, &str)> {
    let mut rest = text.trim();
    let mut negative = false;
    if let Some(inner) = rest.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')) {
        (rest, negative) = (inner.trim(), true);
    }
    let mut signs = 0;
    loop {
        let before = rest.len();
        if let Some(after) = rest.strip_prefix(['-', '\u{2212}']) {
            (rest, negative, signs) = (after, !negative, signs + 1);
        } else if let Some(after) = rest.strip_prefix('+') {
            (rest, signs) = (after, signs + 1);
        } else if let Some(after) = CURRENCIES.iter().rev().find_map(|currency| rest.strip_prefix(currency)) {
            rest = after.trim_start();
        }
        if rest.len() == before || signs > 1 {
            break;
        }
    }
    let after = ["%", "‰"].iter().chain(&CURRENCIES).find_map(|unit| rest.strip_suffix(unit));
    let rest = after.map_or(rest, str::trim_end);
    (signs < 2 && rest.starts_with(|c: char| c.is_ascii_digit() || c == '.' || c == ',')).then_some((negative, rest))
}

/// What may stand between thousands, besides the other decimal mark.
const SPACES: [char; 6] = [' ', '\u{a0}', '\u{202f}', '\u{2009}', '\'', '\u{2019}'];

/// Whether groups of digits are those of thousands (1,234,567) or of lakhs (12,34,567).
fn are_groups(groups: &[&str]) -> bool {
    let digits = |group: &str| group.bytes().all(|b| b.is_ascii_digit());
    let [first, middle @ .., last] = groups else { return false };
    let even = |len: usize| middle.iter().all(|group| group.len() == len) && (1..=len).contains(&first.len());
    groups.iter().all(|group| digits(group)) && last.len() == 3 && (even(3) || even(2))
}

/// A number with the given decimal mark: with a sign, an exponent, thousands, a currency or a percent sign, which is left out (`5 %` is 5).
pub(crate) fn number(text: &str, decimal: DecimalMark) -> Option<f64> {
    if (decimal == DecimalMark::Point || !text.contains(['.', ',']))
        && let Ok(value) = text.parse()
    {
        return Some(value);
    }
    let (negative, text) = bare(text)?;
    let (mark, other) = if decimal == DecimalMark::Point { ('.', ',') } else { (',', '.') };
    let (whole, decimals) = text.split_once(mark).unwrap_or((text, ""));
    let (mantissa, exponent) = match decimals.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent),
        None => (decimals, "0"),
    };
    if !mantissa.bytes().all(|b| b.is_ascii_digit())
        || exponent.is_empty()
        || exponent.starts_with('+') && exponent.len() == 1
    {
        return None;
    }
    let whole = match whole.chars().find(|c| *c == other || SPACES.contains(c)) {
        None => whole.to_owned(),
        Some(separator) => {
            let groups: Vec<&str> = whole.split(separator).collect();
            are_groups(&groups).then(|| groups.concat())?
        }
    };
    if !whole.bytes().all(|b| b.is_ascii_digit()) || whole.is_empty() && mantissa.is_empty() {
        // Without decimals the exponent stands behind the whole part.
        let is_alone = mantissa.is_empty() && whole.starts_with(|c: char| c.is_ascii_digit());
        let value: f64 = is_alone.then(|| whole.parse().ok())??;
        return Some(if negative { -value } else { value });
    }
    let value: f64 = format!("{whole}.{mantissa}e{exponent}").parse().ok()?;
    Some(if negative { -value } else { value })
}

/// What a cell says of the decimal mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Evidence {
    Nothing,
    Point,
    Comma,
    /// `1.234`: decimals or thousands.
    EitherPoint,
    /// `1,234`: thousands or decimals.
    EitherComma,
}

/// What a cell says of the decimal mark.
pub(crate) fn evidence(text: &str) -> Evidence {
    if !text.contains(['.', ',']) {
        return Evidence::Nothing;
    }
    let Some((_, text)) = bare(text) else { return Evidence::Nothing };
    if !text.chars().all(|c| c.is_ascii_digit() || c == '.' || c == ',' || SPACES.contains(&c)) {
        return Evidence::Nothing;
    }
    let is_group = |mark: char| {
        let groups: Vec<&str> = text.split(mark).collect();
        are_groups(&groups) && !text.starts_with('0')
    };
    match (text.matches(',').count(), text.matches('.').count()) {
        (1, 0) if is_group(',') => Evidence::EitherComma,
        (1, 0) => Evidence::Comma,
        (0, 1) if is_group('.') => Evidence::EitherPoint,
        (0, 1) => Evidence::Point,
        (_, 0) if is_group(',') => Evidence::Point,
        (0, _) if is_group('.') => Evidence::Comma,
        (0, _) | (_, 0) => Evidence::Nothing,
        _ if text.rfind(',') > text.rfind('.') => Evidence::Comma,
        _ => Evidence::Point,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_people_write_them() {
        use DecimalMark::{Comma, Point};
        for (text, mark, value) in [
            ("1,234.5", Point, 1234.5),
            ("2,000,000", Point, 2e6),
            ("12,34,567", Point, 1_234_567.0),
            ("1.234,5", Comma, 1234.5),
            ("1.234.567", Comma, 1_234_567.0),
            ("66,19", Comma, 66.19),
            (",5", Comma, 0.5),
            ("1,5e3", Comma, 1500.0),
            ("1,5E-3", Comma, 0.0015),
            ("2e3", Comma, 2000.0),
            ("1 234,5", Comma, 1234.5),
            ("1\u{a0}234", Point, 1234.0),
            ("1\u{202f}234,5", Comma, 1234.5),
            ("1'234.5", Point, 1234.5),
            ("5%", Point, 5.0),
            ("5,5 %", Comma, 5.5),
            ("$1,234.50", Point, 1234.5),
            ("-$5", Point, -5.0),
            ("$-5", Point, -5.0),
            ("(1,234)", Point, -1234.0),
            ("€ 3,50", Comma, 3.5),
            ("3,50 €", Comma, 3.5),
            ("12 EUR", Point, 12.0),
            ("\u{2212}7.5", Point, -7.5),
            ("+7", Point, 7.0),
        ] {
            assert_eq!(number(text, mark), Some(value), "{text}");
        }
        for text in [
            "1,2", "1,23,4", "1,2345", "12 5", "a", "$", "%", "", "--5", "1.5.2", "1e", "()", "1,234,56", "0x10",
            "5 apples",
        ] {
            assert_eq!(number(text, Point), None, "{text}");
        }
        for text in ["1.5", "20.000.0", "1,2,3"] {
            assert_eq!(number(text, Comma), None, "{text}");
        }
    }

    #[test]
    fn gaps_as_pandas_and_the_caller_have_them() {
        let cells = Cells::new(None, &["?".to_owned(), "-999".to_owned()]);
        for text in MISSING.iter().chain(&["na", "nan", "n/a", "?", "-999", "-999.0"]) {
            assert_eq!(cells.read(text), Cell::Gap, "{text}");
        }
        assert_eq!(Cells::default().read("?"), Cell::Text);
        assert_eq!(Cells::default().read("-999"), Cell::Number(-999.0));
        assert_eq!(Cells::default().read("1e999"), Cell::Infinite);
    }
}
