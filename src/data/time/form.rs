//! The forms that dates are written in: read from the labels themselves, and written again.
//!
//! A form is found from the first label, and every other label must have it too. Calendar arithmetic is jiff's.

use jiff::civil::{Date, ISOWeekDate, Weekday};
use serde::{Deserialize, Serialize};

use super::calendar::{
    DAY, SECOND, abbreviated, date_of, is_weekday, month, month_name, months_of, time_of, weekday_name,
};
use super::label::candidates;

/// Which number comes first in dates such as `03/04/2020`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DateOrder {
    /// The day: `31/12/2020`.
    DayFirst,
    /// The month: `12/31/2020`.
    MonthFirst,
}

impl DateOrder {
    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            DateOrder::DayFirst => "day-first",
            DateOrder::MonthFirst => "month-first",
        }
    }
}

/// A part of a date.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Field {
    Year,
    /// The last two digits: 69 to 99 are of the last century, as POSIX has it.
    ShortYear,
    /// A year with the twelfths of its months as decimals, as R writes those of a `ts`: `1949`, `1949.083`.
    DecimalYear,
    Month,
    MonthName,
    /// The name of a day of the week, which says nothing that the date does not.
    Weekday,
    Day,
    Quarter,
    Week,
    Hour,
    /// Of twelve, with AM or PM after it.
    HourOfHalf,
    Minute,
    Second,
    Fraction,
    /// AM or PM.
    Half,
    Offset,
}

/// A part of a date, or what stands between two.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    Literal(String),
    Field {
        field: Field,
        /// Exactly two digits, for no separator follows.
        fixed: bool,
        /// Written with a zero in front; of names, whole.
        full: bool,
    },
}

/// How the dates of a column are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Form {
    pieces: Vec<Piece>,
    order: Option<DateOrder>,
    /// The letters of names: as in the first label.
    is_upper: bool,
    is_lower: bool,
    /// Decimals of the seconds, or of the years.
    places: usize,
    /// The last label's distance from UTC, in microseconds and as it is written.
    offset: (i64, String),
}

/// A date as it was read.
struct Stamp {
    /// Microseconds since 1970-01-01 on the clock of the label's place.
    local: i64,
    /// Distance of that clock from UTC.
    offset: i64,
}

/// The dates of a column.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Dates {
    pub form: Form,
    /// Microseconds since 1970-01-01, of one clock; of the place's own where all stand at the same time of day.
    pub times: Vec<i64>,
}

/// What labels are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reading {
    /// No dates.
    Other,
    Dates(Dates),
    /// Dates with the day or the month first, and nothing that says which.
    Ambiguous,
    /// Nearly all are dates; this one, counted from 0, is the first that is not.
    Broken(usize),
}

/// Whether a text may be a date, or one among others that are dates too.
pub(crate) fn may_be_date(text: &str) -> bool {
    !candidates(text).is_empty()
}

/// Reads labels as dates.
pub(crate) fn read_dates(labels: &[&str], order: Option<DateOrder>) -> Reading {
    let Some(first) = labels.iter().find(|label| !label.is_empty()) else { return Reading::Other };
    let candidates = candidates(first).into_iter().filter(|form| match (form.order, order) {
        (Some(own), Some(asked)) => own == asked,
        _ => true,
    });
    let mut read: Vec<Dates> = Vec::new();
    let mut broken = Reading::Other;
    for form in candidates {
        let is_certain = !form.may_be_numbers();
        match form.read_all(labels) {
            Ok(dates) => read.push(dates),
            Err((bad, count)) if is_certain && labels.len() >= 5 && count * 10 <= labels.len() => {
                broken = Reading::Broken(bad);
            }
            Err(_) => {}
        }
    }
    let Some(first) = read.first() else { return broken };
    let mut regular = read.iter().enumerate().filter(|(_, dates)| is_regular(&dates.times));
    let chosen = if read.iter().all(|dates| dates.times == first.times) {
        0 // 01/01/2020 alone, 05/05/2020.
    } else if first.form.has_dots() && first.form.order.is_some() {
        read.iter().position(|dates| dates.form.order == Some(DateOrder::DayFirst)).unwrap_or(0)
    } else if let (Some((only, _)), None) = (regular.next(), regular.next()) {
        only
    } else if first.form.order.is_none() {
        0
    } else {
        return Reading::Ambiguous;
    };
    Reading::Dates(read.swap_remove(chosen))
}

/// Whether all neighbours are equally far from each other, in days or in months.
fn is_regular(times: &[i64]) -> bool {
    let same = |step: &dyn Fn(i64) -> i64| {
        let mut steps = times.array_windows().map(|[a, b]| step(*b) - step(*a));
        let first = steps.next();
        first.is_some_and(|first| first != 0) && steps.all(|step| Some(step) == first)
    };
    if times.len() < 3 {
        return false;
    }
    let of_month = |time: &i64| date_of(*time).day();
    same(&|time| time) || (same(&months_of) && times.array_windows().all(|[a, b]| of_month(a) == of_month(b)))
}

/// Takes digits off the front.
fn digits(rest: &mut &str, least: usize, most: usize) -> Option<i64> {
    let len = rest.bytes().take(most).take_while(u8::is_ascii_digit).count();
    if len < least {
        return None;
    }
    let (number, after) = rest.split_at(len);
    *rest = after;
    number.parse().ok()
}

/// Takes letters off the front.
fn letters<'a>(rest: &mut &'a str) -> &'a str {
    let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
    let (word, after) = rest.split_at(end);
    *rest = after;
    word
}

impl Form {
    /// A form of these parts; `name` is that of a month or a day in the first label.
    pub(super) fn new(pieces: Vec<Piece>, order: Option<DateOrder>, name: &str) -> Self {
        let is_upper = name.len() > 1 && name.chars().all(char::is_uppercase);
        let is_lower = !name.is_empty() && name.chars().all(char::is_lowercase);
        Form { pieces, order, is_upper, is_lower, places: 0, offset: (0, String::new()) }
    }

    /// Whether the day or the month comes first, where both are numbers and the year is last.
    pub fn order(&self) -> Option<DateOrder> {
        self.order
    }

    /// Whether the labels are whole numbers by themselves: `20200131`, `202001`.
    fn is_number(&self) -> bool {
        self.pieces.iter().all(|piece| matches!(piece, Piece::Field { fixed: true, .. }))
    }

    fn has_dots(&self) -> bool {
        self.pieces.contains(&Piece::Literal(".".to_owned()))
    }

    /// Reads all labels; else the first that is none, counted from 0, and how many there are.
    fn read_all(mut self, labels: &[&str]) -> Result<Dates, (usize, usize)> {
        // Fields seen without a zero in front, where there would be one; names seen longer than three letters.
        let mut other = vec![false; self.pieces.len()];
        let mut longest = 0;
        let mut stamps = Vec::with_capacity(labels.len());
        let mut bad: Option<(usize, usize)> = None;
        for (i, label) in labels.iter().enumerate() {
            match self.parse(label, &mut other, &mut longest) {
                Some(stamp) => stamps.push(stamp),
                None => bad = Some(bad.map_or((i, 1), |(first, count)| (first, count + 1))),
            }
        }
        if let Some(bad) = bad {
            return Err(bad);
        }
        let mut times: Vec<i64> = stamps.iter().map(|stamp| stamp.local).collect();
        if !self.is_plausible(labels, &times) {
            return Err((0, labels.len()));
        }
        for (piece, other) in self.pieces.iter_mut().zip(other) {
            if let Piece::Field { field, full, .. } = piece {
                *full = if matches!(*field, Field::MonthName | Field::Weekday) { other } else { !other };
            }
        }
        self.places = longest;
        let last = labels.last().map_or("", |label| label);
        let offset = last.rfind(['+', '-']).filter(|_| self.has_offset()).and_then(|at| last.get(at..));
        if let (Some(text), Some(stamp)) = (offset, stamps.last()) {
            self.offset = (stamp.offset, text.to_owned());
        }
        let varies = stamps.iter().any(|stamp| stamp.offset != self.offset.0);
        // Days, weeks or months begin at the same hour of the place's clock, in summer and in winter; what has several hours a day is even
        // on one clock.
        let is_daily = times.array_windows().all(|[a, b]| a != b && (b - a) % DAY == 0);
        let place = self.offset.0;
        if varies && !is_daily {
            times = stamps.iter().map(|stamp| stamp.local - stamp.offset + place).collect();
        }
        Ok(Dates { form: self, times })
    }

    /// Whether labels that may be plain numbers, or count something else, are dates of this form after all.
    fn is_plausible(&self, labels: &[&str], times: &[i64]) -> bool {
        let fields: Vec<Field> = self.fields().collect();
        let within = |years: std::ops::Range<i64>| times.iter().all(|time| years.contains(&(months_of(*time) / 12)));
        let grows = |times: &[i64]| times.array_windows().all(|[a, b]| a < b);
        let reversed = || times.iter().rev().copied().collect::<Vec<_>>();
        let follows = || is_regular(times) || times.len() >= 8 && (grows(times) || grows(&reversed()));
        match fields[..] {
            // 202001 is a number as well.
            [Field::Year, Field::Month] if self.is_number() => {
                // A month may be missing here and there.
                let months: Vec<i64> = times.iter().map(|time| months_of(*time)).collect();
                let next = months.array_windows().filter(|[a, b]| b - a == 1).count();
                within(1500..2200)
                    && (is_regular(times) || times.len() >= 8 && grows(times) && next * 4 >= 3 * (times.len() - 1))
            }
            [Field::Year, Field::Month] if self.has_dots() => within(1500..2200) && follows(),
            [Field::Year, Field::Month, Field::Day, Field::Hour] if self.is_number() => within(1900..2100),
            [Field::DecimalYear] => labels.iter().any(|label| label.contains('.')) && within(1500..2200) && follows(),
            // 1959:1 is a month, unless there are none but the first four of several years.
            [Field::Year, Field::Quarter] if !self.names_quarter() => {
                let years: Vec<i64> = times.iter().map(|time| months_of(*time) / 12).collect();
                years.array_windows().any(|[a, b]| a == b)
                    && years.first() != years.last()
                    && (times.len() >= 8 || is_regular(times))
            }
            _ => true,
        }
    }

    /// Whether labels of this form are plain numbers too.
    fn may_be_numbers(&self) -> bool {
        match self.fields().collect::<Vec<_>>()[..] {
            [Field::Year, Field::Month] => self.is_number() || self.has_dots(),
            [Field::Year, Field::Month, Field::Day, Field::Hour] => self.is_number(),
            [Field::DecimalYear] => true,
            _ => false,
        }
    }

    fn fields(&self) -> impl Iterator<Item = Field> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Field { field, .. } => Some(*field),
            Piece::Literal(_) => None,
        })
    }

    fn names_quarter(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Literal(text) if text.eq_ignore_ascii_case("q")))
    }

    fn has_offset(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Field { field: Field::Offset, .. }))
    }

    fn parse(&self, label: &str, other: &mut [bool], longest: &mut usize) -> Option<Stamp> {
        let mut rest = label;
        let (mut year, mut month_number, mut day, mut week) = (None, 1, 1, None);
        let (mut hour, mut minute, mut second, mut micros, mut offset) = (0, 0, 0, 0, 0);
        for (piece, other) in self.pieces.iter().zip(other) {
            let (field, fixed) = match piece {
                Piece::Literal(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Piece::Field { field, fixed, .. } => (*field, *fixed),
            };
            let mut number = |rest: &mut &str| {
                let before = rest.len();
                let number = digits(rest, if fixed { 2 } else { 1 }, 2)?;
                *other |= before - rest.len() == 1;
                Some(number)
            };
            match field {
                Field::Year => year = Some(digits(&mut rest, 4, 4)?),
                Field::ShortYear => {
                    let short = digits(&mut rest, 2, 2)?;
                    year = Some(if short < 69 { 2000 + short } else { 1900 + short });
                }
                Field::DecimalYear => {
                    year = Some(digits(&mut rest, 4, 4)?);
                    let mut decimals = "";
                    if let Some(after) = rest.strip_prefix('.') {
                        rest = after.trim_start_matches(|c: char| c.is_ascii_digit());
                        decimals = after.strip_suffix(rest).unwrap_or("");
                    }
                    let twelfths = 12.0 * format!("0.{decimals}0").parse::<f64>().ok()?;
                    // Two decimals are enough.
                    let whole = twelfths.round();
                    (whole < 12.0 && (twelfths - whole).abs() < 0.07).then_some(())?;
                    month_number = 1 + whole as i64;
                    *other |= *longest != 0 && decimals.len() != *longest || decimals.is_empty();
                    *longest = (*longest).max(decimals.len().min(12));
                }
                Field::Weekday => {
                    let name = letters(&mut rest);
                    is_weekday(name).then_some(())?;
                    *other |= name.len() > 5;
                }
                Field::Month => month_number = number(&mut rest)?,
                Field::MonthName => {
                    let name = letters(&mut rest);
                    let number = month(name)?;
                    month_number = i64::from(number);
                    // May is as long as its abbreviation, and Sept is one.
                    *other |= name.len() > 3 && name.eq_ignore_ascii_case(month_name(number));
                }
                Field::Day => day = number(&mut rest)?,
                Field::Quarter => month_number = digits(&mut rest, 1, 1).filter(|q| (1..=4).contains(q))? * 3 - 2,
                Field::Week => week = Some(number(&mut rest)?),
                Field::Hour => hour = number(&mut rest).filter(|hour| *hour <= 24)?,
                Field::HourOfHalf => hour = number(&mut rest).filter(|hour| (1..=12).contains(hour))? % 12,
                Field::Minute => minute = digits(&mut rest, 2, 2).filter(|minute| *minute < 60)?,
                Field::Second => second = digits(&mut rest, 2, 2).filter(|second| *second < 60)?,
                Field::Fraction => {
                    let len = rest.bytes().take_while(u8::is_ascii_digit).count();
                    let kept = digits(&mut rest, 1, 6)?;
                    micros = kept * 10i64.pow(6 - u32::try_from(len.min(6)).ok()?);
                    rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                    *longest = (*longest).max(len.min(6));
                }
                Field::Half => {
                    let half = letters(&mut rest);
                    hour += if half.eq_ignore_ascii_case("pm") { 12 } else { 0 };
                    half.eq_ignore_ascii_case("am").then_some(()).or(half.eq_ignore_ascii_case("pm").then_some(()))?;
                }
                Field::Offset => {
                    let (sign, after) = match (rest.strip_prefix('+'), rest.strip_prefix('-')) {
                        (Some(after), _) => (1, after),
                        (None, after) => (-1, after?),
                    };
                    rest = after;
                    let hours = digits(&mut rest, 2, 2).filter(|hours| *hours < 24)?;
                    rest = rest.strip_prefix(':').unwrap_or(rest);
                    let minutes = if rest.is_empty() { 0 } else { digits(&mut rest, 2, 2).filter(|m| *m < 60)? };
                    offset = sign * (hours * 60 + minutes) * 60 * SECOND;
                }
            }
        }
        // 24:00 is the next day's 00:00, and nothing comes after it.
        (hour < 24 || minute == 0 && second == 0 && micros == 0).then_some(())?;
        let year = i16::try_from(year?).ok()?;
        let date = match week {
            Some(week) => ISOWeekDate::new(year, i8::try_from(week).ok()?, Weekday::Monday).ok()?.date(),
            None => Date::new(year, i8::try_from(month_number).ok()?, i8::try_from(day).ok()?).ok()?,
        };
        let local = time_of(date) + ((hour * 60 + minute) * 60 + second) * SECOND + micros;
        rest.is_empty().then_some(Stamp { local, offset })
    }

    /// A time in this form.
    pub fn write(&self, time: i64) -> String {
        let date = date_of(time);
        let of_day = time.rem_euclid(DAY);
        let (hour, minute, second) = (of_day / SECOND / 3600, of_day / SECOND / 60 % 60, of_day / SECOND % 60);
        let is_weekly = self.pieces.iter().any(|p| matches!(p, Piece::Field { field: Field::Week, .. }));
        let week = date.iso_week_date();
        let mut text = String::new();
        for piece in &self.pieces {
            let (field, full) = match piece {
                Piece::Literal(literal) => {
                    text += literal;
                    continue;
                }
                Piece::Field { field, full, .. } => (*field, *full),
            };
            let number = |number: i64| if full { format!("{number:02}") } else { number.to_string() };
            text += &match field {
                Field::Year if is_weekly => format!("{:04}", week.year()),
                Field::Year => format!("{:04}", date.year()),
                Field::ShortYear => format!("{:02}", date.year().rem_euclid(100)),
                Field::Month => number(i64::from(date.month())),
                Field::DecimalYear => {
                    let years = f64::from(date.year()) + f64::from(date.month() - 1) / 12.0;
                    let text = format!("{years:.0$}", self.places);
                    let is_short = !full && text.contains('.');
                    if is_short { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
                }
                Field::MonthName => self.name(month_name(date.month()), full),
                Field::Weekday => self.name(weekday_name(date.weekday()), full),
                Field::Day => number(i64::from(date.day())),
                Field::Quarter => ((date.month() + 2) / 3).to_string(),
                Field::Week => number(i64::from(week.week())),
                Field::Hour => number(hour),
                Field::HourOfHalf => number((hour + 11) % 12 + 1),
                Field::Minute => format!("{minute:02}"),
                Field::Second => format!("{second:02}"),
                Field::Fraction => format!("{:06}", of_day % SECOND).chars().take(self.places.max(1)).collect(),
                Field::Half => (if hour < 12 { "AM" } else { "PM" }).to_owned(),
                Field::Offset => self.offset.1.clone(),
            };
        }
        text
    }

    /// A name in the letters of the first label's.
    fn name(&self, name: &str, full: bool) -> String {
        let name = if full { name } else { abbreviated(name) };
        match (self.is_upper, self.is_lower) {
            (true, _) => name.to_uppercase(),
            (_, true) => name.to_lowercase(),
            _ => name.to_owned(),
        }
    }
}
