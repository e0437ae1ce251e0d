//! Times as microseconds since 1970-01-01, and the calendar's names. The calendar itself is jiff's.

use jiff::SignedDuration;
use jiff::civil::{Date, DateTime, Weekday};

pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

pub(super) const WEEKDAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];

/// Microseconds of a second and of a day.
pub(super) const SECOND: i64 = 1_000_000;
pub(super) const DAY: i64 = 86_400 * SECOND;

/// The calendar's day of a time.
pub(super) fn date_of(time: i64) -> Date {
    Date::constant(1970, 1, 1).saturating_add(SignedDuration::from_hours(24 * time.div_euclid(DAY)))
}

/// Midnight of a day.
pub(super) fn time_of(date: Date) -> i64 {
    date.duration_since(Date::constant(1970, 1, 1)).as_hours() / 24 * DAY
}

/// Months since the year 0.
pub(super) fn months_of(time: i64) -> i64 {
    let date = date_of(time);
    i64::from(date.year()) * 12 + i64::from(date.month()) - 1
}

/// The first three letters of the name of a month or a day.
pub(super) fn abbreviated(name: &str) -> &str {
    name.get(..3).unwrap_or(name)
}

/// The name of a month, by its number from 1.
pub(super) fn month_name(number: i8) -> &'static str {
    usize::try_from(number).ok().and_then(|number| MONTHS.get(number.checked_sub(1)?).copied()).unwrap_or("")
}

/// The name of a day of the week.
pub(super) fn weekday_name(day: Weekday) -> &'static str {
    usize::try_from(day.to_monday_zero_offset()).ok().and_then(|at| WEEKDAYS.get(at).copied()).unwrap_or("")
}

/// The number of a month by its name: three letters or all of them, or Sept.
pub(crate) fn month(text: &str) -> Option<i8> {
    let is = |name: &str| {
        text.eq_ignore_ascii_case(name)
            || text.eq_ignore_ascii_case(abbreviated(name))
            || (name.starts_with("Sep") && text.eq_ignore_ascii_case("sept"))
    };
    MONTHS.iter().position(|name| is(name)).and_then(|at| i8::try_from(at + 1).ok())
}

/// Whether a text is the name of a day of the week, or the beginning of one as it is abbreviated.
pub(super) fn is_weekday(text: &str) -> bool {
    WEEKDAYS.iter().any(|name| text.eq_ignore_ascii_case(name) || text.eq_ignore_ascii_case(abbreviated(name)))
        || ["Tues", "Thur", "Thurs"].iter().any(|short| text.eq_ignore_ascii_case(short))
}

/// A time as ISO 8601 has it: the day alone where it is midnight.
pub(crate) fn iso(time: i64) -> String {
    let date = date_of(time);
    let of_day = time.rem_euclid(DAY) / SECOND;
    if of_day == 0 {
        return format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day());
    }
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", date.year(), date.month(), date.day())
}

/// The last time that there is.
pub(super) fn latest() -> i64 {
    time_of(DateTime::MAX.date())
}
