//! Windows of a series, and its division in time.

use std::ops::Range;

use ndarray::{Array2, Array3, s};

use crate::dtype::Scalar;
use crate::error::{Error, Result};

/// Every window of `window` neighbouring values with the `horizon` values that follow it: `x` `[N, window, 1]`, `y`
/// `[N, horizon]`, `N = len - window - horizon + 1`; window `n` starts at value `n`.
///
/// # Errors
///
/// [`Error::ZeroSize`] for a window or horizon of zero; [`Error::Shape`] where the series is too short for one window.
pub fn windows<E: Scalar>(series: &[E], window: usize, horizon: usize) -> Result<(Array3<E>, Array2<E>)> {
    for (name, size) in [("window", window), ("horizon", horizon)] {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    let needed = window.saturating_add(horizon);
    if series.len() < needed {
        return Err(Error::shape(
            "series",
            format!("at least {needed} values (window {window} + horizon {horizon})"),
            format!("{} values", series.len()),
        ));
    }
    let count = series.len() - needed + 1;
    let mut x = Array3::from_elem((count, window, 1), E::zero());
    let mut y = Array2::from_elem((count, horizon), E::zero());
    for (n, run) in series.windows(needed).enumerate() {
        x.slice_mut(s![n, .., 0]).iter_mut().zip(&run[..window]).for_each(|(to, from)| *to = *from);
        y.row_mut(n).iter_mut().zip(&run[window..]).for_each(|(to, from)| *to = *from);
    }
    Ok((x, y))
}

/// A series divided in time order: what a model learns from, what tells when to stop, what it is judged by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeSplit {
    /// The first part.
    pub train: Range<usize>,
    /// The part after it; empty for a fraction of zero.
    pub validation: Range<usize>,
    /// The last part; empty for a fraction of zero.
    pub test: Range<usize>,
}

impl TimeSplit {
    /// Divides `len` values; the fractions are of the whole and rounded to whole values.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a fraction outside `0.0..1.0`, or where no value is left to train on.
    pub fn new(len: usize, validation_fraction: f64, test_fraction: f64) -> Result<Self> {
        for (name, fraction) in [("validation_fraction", validation_fraction), ("test_fraction", test_fraction)] {
            if !(0.0..1.0).contains(&fraction) {
                return Err(Error::option(name, "a fraction of the series, at least 0 and below 1", fraction));
            }
        }
        let part = |fraction: f64| (len as f64 * fraction).round() as usize;
        let (validation, test) = (part(validation_fraction), part(test_fraction));
        let train = len.saturating_sub(validation + test);
        if train == 0 {
            return Err(Error::option(
                "validation_fraction, test_fraction",
                format!("fractions that leave some of the {len} values to train on"),
                format!("{validation_fraction} and {test_fraction}"),
            ));
        }
        Ok(TimeSplit { train: 0..train, validation: train..train + validation, test: train + validation..len })
    }
}

/// Whether a series has moved away from where it began: the means of its two halves are further apart than the values of a half
/// spread (their standard deviation) around their mean. A model of the values themselves then meets values that it never saw.
pub fn has_trend(values: &[f64]) -> bool {
    let (first, second) = values.split_at(values.len() / 2);
    if first.is_empty() {
        return false;
    }
    let moments = |half: &[f64]| {
        let mean = half.iter().sum::<f64>() / half.len() as f64;
        (mean, half.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / half.len() as f64)
    };
    let ((first, spread_1), (second, spread_2)) = (moments(first), moments(second));
    (first - second).abs() > ((spread_1 + spread_2) / 2.0).sqrt()
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn windows_and_what_follows() {
        let (x, y) = windows(&[1.0f32, 2.0, 3.0, 4.0, 5.0], 2, 2).unwrap();
        assert_eq!(x, array![[[1.0], [2.0]], [[2.0], [3.0]]]);
        assert_eq!(y, array![[3.0, 4.0], [4.0, 5.0]]);
    }

    #[test]
    fn too_short() {
        let message = windows(&[1.0f64; 10], 10, 1).unwrap_err().to_string();
        assert!(message.contains("at least 11") && message.contains("10 values"), "{message}");
        assert!(matches!(windows(&[1.0f64; 10], 0, 1), Err(Error::ZeroSize { name: "window" })));
        assert!(matches!(windows(&[1.0f64; 10], 1, 0), Err(Error::ZeroSize { name: "horizon" })));
        assert!(windows(&[1.0f64; 10], usize::MAX, usize::MAX).is_err());
    }

    #[test]
    fn splits_in_time_order() {
        let split = TimeSplit::new(100, 0.1, 0.2).unwrap();
        assert_eq!((split.train, split.validation, split.test), (0..70, 70..80, 80..100));
        assert_eq!(TimeSplit::new(3, 0.0, 0.0).unwrap().train, 0..3);
        for (len, validation, test) in
            [(100, 0.5, 0.5), (100, -0.1, 0.2), (100, 0.1, f64::NAN), (0, 0.1, 0.1), (5, 0.9, 0.9)]
        {
            assert!(TimeSplit::new(len, validation, test).is_err(), "{len} {validation} {test}");
        }
    }

    #[test]
    fn trends() {
        let series = |f: fn(f64) -> f64| (0..200).map(|t| f(f64::from(t))).collect::<Vec<_>>();
        assert!(has_trend(&series(|t| 3.0 * t)));
        assert!(has_trend(&series(|t| -0.05 * t + (t * 0.5).sin())));
        assert!(!has_trend(&series(|t| (t * 0.5).sin())));
        assert!(!has_trend(&series(|t| 0.001 * t + (t * 0.5).sin())));
        assert!(!has_trend(&[]) && !has_trend(&[1.0]) && !has_trend(&[2.0, 2.0]));
    }
}
