//! Axes: their ranges, where their ticks stand, and what the ticks say.

use jiff::SignedDuration;
use jiff::civil::Date;

use crate::error::{Error, Result};

/// Beyond this the length of a range could overflow.
const LARGEST: f64 = 1e300;

/// One axis of a picture.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Axis {
    pub low: f64,
    pub high: f64,
    pub is_log: bool,
    /// Where a label stands, and the label.
    pub ticks: Vec<(f64, String)>,
    /// Ticks between them, without a label.
    pub minor: Vec<f64>,
}

impl Axis {
    /// Where a value lies: 0 at the lower end, 1 at the upper.
    pub fn share(&self, value: f64) -> f64 {
        match self.is_log {
            true => (value.log10() - self.low.log10()) / (self.high.log10() - self.low.log10()),
            false => (value - self.low) / (self.high - self.low),
        }
    }

    /// From `low` to `high`, with about `count` ticks.
    pub fn linear(low: f64, high: f64, count: usize, whole: bool) -> Self {
        let (places, step) = linear_ticks(low, high, count, whole);
        let ticks = places.into_iter().map(|place| (place, number(place, step))).collect();
        Axis { low, high, is_log: false, ticks, minor: Vec::new() }
    }

    /// From year `low` to year `high`, with about `count` ticks that are dates, or times of a day; `None` where the calendar does not reach.
    pub fn dates(low: f64, high: f64, count: usize) -> Option<Self> {
        let raw = (high - low) / count.max(1) as f64;
        let range = -9000.0..9000.0;
        if !(raw.is_finite() && raw > 0.0 && range.contains(&low) && range.contains(&high)) {
            return None;
        }
        if raw > 0.75 {
            return Some(Self::linear(low, high, count, true));
        }
        let of = |date: Date, seconds: i64| {
            let day = f64::from(date.day_of_year() - 1) + seconds as f64 / 86_400.0;
            f64::from(date.year()) + day / f64::from(date.days_in_year())
        };
        let mut ticks = Vec::new();
        let mut push = |place: f64, label: String| {
            if (low..=high).contains(&place) && ticks.len() < 4 * count.max(1) {
                ticks.push((place, label));
            }
        };
        let first_year = low.floor() as i16;
        let months = [1i64, 2, 3, 6, 12].into_iter().find(|months| *months as f64 / 12.0 >= raw * 0.999);
        if let Some(months) = months.filter(|_| raw * 365.0 > 16.0) {
            for month in (i64::from(first_year) * 12..=(high.floor() as i64 + 1) * 12).step_by(months as usize) {
                let (year, number) = (month.div_euclid(12), month.rem_euclid(12) + 1);
                let date = Date::new(i16::try_from(year).ok()?, i8::try_from(number).ok()?, 1).ok()?;
                push(of(date, 0), format!("{year:04}-{number:02}"));
            }
            return (ticks.len() > 1).then(|| Axis { low, high, is_log: false, ticks, minor: Vec::new() });
        }
        // Days, hours, minutes and seconds, counted from the first day of the axis.
        let raw_seconds = raw * 365.25 * 86_400.0;
        let steps = [
            1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10_800, 21_600, 43_200, 86_400, 172_800,
            604_800, 1_209_600, 2_592_000,
        ];
        let step: i64 = steps.into_iter().find(|step| *step as f64 >= raw_seconds * 0.999)?;
        let start = Date::new(first_year, 1, 1).ok()?;
        let of_year = (low - f64::from(first_year)) * f64::from(start.days_in_year()) * 86_400.0;
        let first = (of_year as i64).div_euclid(step);
        for seconds in (first..=first + 4 * count.max(1) as i64 + 4).map(|number| number * step) {
            let date = start.saturating_add(SignedDuration::from_hours(24 * seconds.div_euclid(86_400)));
            let of_day = seconds.rem_euclid(86_400);
            let day = format!("{:04}-{:02}-{:02}", date.year(), date.month(), date.day());
            let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
            let label = match (of_day, step) {
                (0, _) => day,
                (_, 60..) => format!("{hour:02}:{minute:02}"),
                _ => format!("{hour:02}:{minute:02}:{second:02}"),
            };
            push(of(date, of_day), label);
        }
        (ticks.len() > 1).then(|| Axis { low, high, is_log: false, ticks, minor: Vec::new() })
    }

    /// From `low` to `high`, both above zero, with ticks at powers of ten.
    pub fn logarithmic(low: f64, high: f64, count: usize) -> Self {
        let decades = high.log10() - low.log10();
        let is_inside = |value: &f64| (low..=high).contains(value);
        // Bounded whatever the range is: there are no other numbers.
        let exponents = || (low.log10().floor().max(-324.0) as i32)..=(high.log10().ceil().min(308.0) as i32);
        let at = |digits: &'static [u32], every: i32| -> Vec<f64> {
            let chosen = exponents().filter(|e| e.rem_euclid(every) == 0);
            // Read rather than multiplied: 3 * 10^-1 is not 0.3.
            chosen
                .flat_map(|e| digits.iter().filter_map(move |d| format!("{d}e{e}").parse().ok()))
                .filter(is_inside)
                .collect()
        };
        let every = (decades / count.max(1) as f64).ceil().max(1.0) as i32;
        let candidates = if every > 1 || decades > 3.0 { at(&[1], every) } else { at(&[1, 2, 5], 1) };
        // Within a small part of a decade there may be no such number.
        let places = if candidates.len() >= 2 { candidates } else { linear_ticks(low, high, count, false).0 };
        let minor = if every > 1 { Vec::new() } else { at(&[2, 3, 4, 5, 6, 7, 8, 9], 1) };
        let ticks = places.into_iter().map(|place| (place, short(place))).collect();
        Axis { low, high, is_log: true, ticks, minor }
    }
}

/// The least and greatest of the finite numbers, if there are any; what they are is needed for the error.
pub(super) fn extent(values: impl Iterator<Item = f64>, what: &str) -> Result<Option<(f64, f64)>> {
    let mut found: Option<(f64, f64)> = None;
    for value in values.filter(|v| v.is_finite()) {
        if value.abs() > LARGEST {
            return Err(Error::option(what, format!("values from -{LARGEST:e} to {LARGEST:e}"), format!("{value:e}")));
        }
        let (low, high) = found.unwrap_or((value, value));
        found = Some((low.min(value), high.max(value)));
    }
    Ok(found)
}

/// A range around a value that has none: where all values are equal, or so close that their differences are rounding.
pub(super) fn widened((low, high): (f64, f64), half_if_whole: Option<f64>) -> (f64, f64) {
    let magnitude = low.abs().max(high.abs());
    if high - low > (magnitude * 1e-12).max(1e-290) {
        return (low, high);
    }
    let half = match half_if_whole {
        Some(half) if magnitude < 1e12 => half,
        _ if magnitude < 1e-280 => 1.0,
        _ => magnitude * 0.1,
    };
    (low - half, high + half)
}

/// Places of about `count` ticks, and their distance: 1, 2 or 5 times a power of ten.
fn linear_ticks(low: f64, high: f64, count: usize, whole: bool) -> (Vec<f64>, f64) {
    let raw = (high - low) / count.max(1) as f64;
    let power = 10f64.powf(raw.log10().floor());
    let nice = [1.0, 2.0, 5.0].into_iter().find(|n| n * power >= raw * 0.999).unwrap_or(10.0) * power;
    let step = if whole { nice.max(1.0) } else { nice };
    let (first, last) = ((low / step - 1e-9).ceil(), (high / step + 1e-9).floor());
    // The number of ticks is bounded whatever rounding does.
    let ticks = (last - first).clamp(0.0, 4.0 * count.max(1) as f64) as usize;
    let places = (0..=ticks).map(|i| (first + i as f64) * step).filter(|_| last >= first);
    (places.collect(), step)
}

/// With as many decimals as ticks at this distance need.
pub(super) fn number(value: f64, step: f64) -> String {
    let place = (step.log10() + 1e-9).floor();
    if value == 0.0 || value.abs() < step * 1e-6 {
        return "0".to_owned();
    }
    if (1e-5..1e6).contains(&value.abs()) && place >= -6.0 {
        let decimals = (-place).clamp(0.0, 6.0) as usize;
        return trimmed(format!("{value:.decimals$}"));
    }
    let digits = (value.abs().log10().floor() - place).clamp(0.0, 9.0) as usize;
    exponential(value, digits)
}

/// Three digits, with an exponent where that is shorter.
pub(super) fn short(value: f64) -> String {
    if value == 0.0 || (1e-3..1e6).contains(&value.abs()) {
        let decimals = (2.0 - value.abs().max(1e-9).log10().floor()).clamp(0.0, 5.0) as usize;
        trimmed(format!("{value:.decimals$}"))
    } else {
        exponential(value, 2)
    }
}

fn exponential(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$e}");
    match text.split_once('e') {
        Some((mantissa, exponent)) => format!("{}e{exponent}", trimmed(mantissa.to_owned())),
        None => text,
    }
}

/// Without zeros at the end of the decimals.
fn trimmed(text: String) -> String {
    let short = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    if short == "-0" { "0".to_owned() } else { short.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|t| t.1.as_str()).collect()
    }

    #[test]
    fn ticks_are_round_numbers() {
        assert_eq!(labels(&Axis::linear(0.0, 1.04, 6, false)), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(&Axis::linear(-3.2, 7.0, 6, false)), ["-2", "0", "2", "4", "6"]);
        assert_eq!(labels(&Axis::linear(1.0, 3.0, 10, true)), ["1", "2", "3"]);
        assert_eq!(labels(&Axis::linear(0.5, 1.5, 10, true)), ["1"]);
        assert_eq!(labels(&Axis::linear(0.0, 3e6, 3, false)), ["0", "1e6", "2e6", "3e6"]);
        assert_eq!(labels(&Axis::linear(0.0, 2e-7, 2, false)), ["0", "1e-7", "2e-7"]);
        assert_eq!(labels(&Axis::linear(1.234561, 1.234565, 4, false))[0], "1.234561");
    }

    #[test]
    fn ticks_are_dates() {
        let axis = |low, high| Axis::dates(low, high, 6).unwrap();
        assert_eq!(labels(&axis(1990.0, 2020.0)), ["1990", "1995", "2000", "2005", "2010", "2015", "2020"]);
        assert_eq!(labels(&axis(2010.9, 2013.1))[..2], ["2011-01", "2011-07"]);
        assert_eq!(labels(&axis(2019.95, 2020.3)), ["2020-01", "2020-02", "2020-03", "2020-04"]);
        let day = 1.0 / 366.0;
        assert_eq!(labels(&axis(2020.0, 2020.0 + 6.0 * day))[..2], ["2020-01-01", "2020-01-02"]);
        assert_eq!(
            labels(&axis(2020.0 + 0.9 * day, 2020.0 + 2.1 * day)),
            ["2020-01-02", "06:00", "12:00", "18:00", "2020-01-03"]
        );
        for (low, high) in [(-1e9, 1e9), (2020.0, 2020.0), (9998.0, 99999.0), (f64::NAN, 1.0)] {
            assert!(Axis::dates(low, high, 6).is_none());
        }
        for exponent in 0..14 {
            let (low, high) = (2019.9, 2019.9 + 10f64.powi(-exponent));
            let ticks = Axis::dates(low, high, 8).map_or(0, |axis| axis.ticks.len());
            assert!(ticks <= 40, "{exponent}: {ticks}");
        }
    }

    #[test]
    fn logarithmic_ticks_are_powers_of_ten_or_between() {
        assert_eq!(labels(&Axis::logarithmic(1e-5, 1.0, 8)), ["1e-5", "1e-4", "0.001", "0.01", "0.1", "1"]);
        assert_eq!(labels(&Axis::logarithmic(9.0, 2e6, 8)), ["10", "100", "1000", "10000", "100000", "1e6"]);
        assert_eq!(labels(&Axis::logarithmic(0.03, 3.0, 8)), ["0.05", "0.1", "0.2", "0.5", "1", "2"]);
        assert_eq!(labels(&Axis::logarithmic(2.2, 2.6, 4)), ["2.2", "2.3", "2.4", "2.5", "2.6"]);
        let axis = Axis::logarithmic(1e-300, 1e300, 8);
        assert!((2..=10).contains(&axis.ticks.len()), "{:?}", axis.ticks);
        assert_eq!(axis.share(1.0), 0.5);
    }

    #[test]
    fn ranges_that_are_none_are_widened_and_ticks_always_end() {
        let hostile = [0.0, 5e-324, 1e-310, 1e-290, 1e-9, 1.0, 1e15, 1e16, 9e299, -1e300];
        for low in hostile {
            for high in hostile.iter().copied().filter(|h| *h >= low) {
                let (low, high) = widened((low, high), None);
                assert!(high > low && (high - low).is_finite(), "{low:e} {high:e}");
                for whole in [false, true] {
                    let axis = Axis::linear(low, high, 7, whole);
                    assert!(axis.ticks.len() <= 29, "{axis:?}");
                    assert!(axis.ticks.iter().all(|t| t.0.is_finite()), "{axis:?}");
                }
            }
        }
    }
}
