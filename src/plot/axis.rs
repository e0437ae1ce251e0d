//! Axes: their ranges, where their ticks stand, and what the ticks say.

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
