//! Windows of a series, and its division in time.

use std::ops::Range;

use ndarray::{Array, Array1, Array2, Array3, ArrayView2, Axis, IntoDimension, s};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::memory;

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
    let mut x = zeros((count, window, 1))?;
    let mut y = zeros((count, horizon))?;
    for (n, run) in series.windows(needed).enumerate() {
        x.slice_mut(s![n, .., 0]).iter_mut().zip(run).for_each(|(to, from)| *to = *from);
        y.row_mut(n).iter_mut().zip(run.iter().skip(window)).for_each(|(to, from)| *to = *from);
    }
    Ok((x, y))
}

/// An array of zeros, or an error where there is no such memory: windows overlap, so that they may be far larger than their series.
fn zeros<E: Scalar, S: IntoDimension>(shape: S) -> Result<Array<E, S::Dim>> {
    memory::array_of("windows", shape, E::zero())
}

/// The `create_dataset` of a well-known
/// [tutorial](https://machinelearningmastery.com/time-series-prediction-lstm-recurrent-neural-networks-python-keras/): `x`
/// `[N, look_back]`, `y` `[N]`, each the value after its window, with the tutorial's `N = len - look_back - 1`. That is one window fewer
/// than the series has: the last value is never a target. To get them all, use [`split_sequence`] or [`windows`].
///
/// # Errors
///
/// [`Error::ZeroSize`] for a look back of zero; [`Error::Shape`] where the series is too short for one window.
pub fn create_dataset<E: Scalar>(series: &[E], look_back: usize) -> Result<(Array2<E>, Array1<E>)> {
    steps_and_next(series, "look_back", look_back, 1)
}

/// Every window of `n_steps` neighbouring values with the value that follows it: `x` `[N, n_steps]`, `y` `[N]`, `N = len - n_steps`. The
/// `split_sequence` of
/// [Brownlee's tutorial](https://machinelearningmastery.com/how-to-develop-lstm-models-for-time-series-forecasting/).
///
/// # Errors
///
/// [`Error::ZeroSize`] for a window of zero steps; [`Error::Shape`] where the series is too short for one window.
pub fn split_sequence<E: Scalar>(series: &[E], n_steps: usize) -> Result<(Array2<E>, Array1<E>)> {
    steps_and_next(series, "n_steps", n_steps, 0)
}

/// Windows of `steps` values and the value after each, but for the last `unused` values of the series.
fn steps_and_next<E: Scalar>(
    series: &[E],
    name: &'static str,
    steps: usize,
    unused: usize,
) -> Result<(Array2<E>, Array1<E>)> {
    if steps == 0 {
        return Err(Error::ZeroSize { name });
    }
    let needed = steps.saturating_add(1 + unused);
    if series.len() < needed {
        return Err(Error::shape(
            "series",
            format!("at least {needed} values ({name} {steps} + {})", 1 + unused),
            format!("{} values", series.len()),
        ));
    }
    let count = series.len() - unused - steps;
    let mut x = zeros((count, steps))?;
    for (mut row, run) in x.rows_mut().into_iter().zip(series.windows(steps)) {
        row.iter_mut().zip(run).for_each(|(to, from)| *to = *from);
    }
    let y = memory::copied("targets", series.get(steps..).and_then(|rest| rest.get(..count)).unwrap_or_default())?;
    Ok((x, y.into()))
}

/// Which values [`split_sequences`] makes targets of.
///
/// ```
/// use fused_rnn::data::{SequenceTargets, split_sequences};
/// use ndarray::array;
/// let matrix = array![[10.0f32, 1.0], [20.0, 2.0], [30.0, 3.0], [40.0, 4.0]];
/// let (x, y) = split_sequences(matrix.view(), 3, SequenceTargets::After { columns: 2 })?;
/// assert_eq!((x.shape(), y), (&[1, 3, 2][..], array![[40.0f32, 4.0]]));
/// let (x, y) = split_sequences(matrix.view(), 3, SequenceTargets::AtEnd { columns: 1 })?;
/// assert_eq!((x.shape(), y), (&[2, 3, 1][..], array![[3.0f32], [4.0]]));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceTargets {
    /// The last `columns` columns at the last step of the window. They are not inputs: what is asked for happens at the time of the last
    /// inputs (the tutorial's "multiple input series").
    AtEnd {
        /// How many; at least one, and fewer than there are.
        columns: usize,
    },
    /// The last `columns` columns at the step after the window. All columns are inputs (the tutorial's "multiple parallel series", where
    /// all columns are targets).
    After {
        /// How many; at least one, at most all.
        columns: usize,
    },
}

/// Every window of `n_steps` neighbouring rows of `matrix` `[len, columns]` with its targets: `x` `[N, n_steps, inputs]`, `y`
/// `[N, targets]`. `N` is `len - n_steps + 1` for targets [at the end](SequenceTargets::AtEnd) of a window, `len - n_steps` for those
/// [after](SequenceTargets::After) it. The `split_sequences` of
/// [Brownlee's tutorial](https://machinelearningmastery.com/how-to-develop-lstm-models-for-time-series-forecasting/).
///
/// # Errors
///
/// [`Error::ZeroSize`] for a window of zero steps or no targets; [`Error::Shape`] where there are too few columns or rows.
pub fn split_sequences<E: Scalar>(
    matrix: ArrayView2<'_, E>,
    n_steps: usize,
    targets: SequenceTargets,
) -> Result<(Array3<E>, Array2<E>)> {
    let (x, y) = split_sequences_multi_step(matrix, n_steps, 1, targets)?;
    Ok((x, y.index_axis_move(Axis(1), 0)))
}

/// The same with targets at `n_steps_out` steps: `y` `[N, n_steps_out, targets]`. Of targets [at the end](SequenceTargets::AtEnd) the
/// first is at the last step of the window, and `N` is `len - n_steps - n_steps_out + 2`; of those [after](SequenceTargets::After) it
/// `len - n_steps - n_steps_out + 1`. The tutorial's `split_sequences` with `n_steps_in` and `n_steps_out`; for one series, [`windows`].
///
/// # Errors
///
/// [`Error::ZeroSize`] for a window or targets of zero steps, or no targets; [`Error::Shape`] where there are too few columns or rows.
pub fn split_sequences_multi_step<E: Scalar>(
    matrix: ArrayView2<'_, E>,
    n_steps: usize,
    n_steps_out: usize,
    targets: SequenceTargets,
) -> Result<(Array3<E>, Array3<E>)> {
    let (len, columns) = matrix.dim();
    let (target_columns, ahead) = match targets {
        SequenceTargets::AtEnd { columns } => (columns, 0),
        SequenceTargets::After { columns } => (columns, 1),
    };
    for (name, size) in
        [("n_steps", n_steps), ("n_steps_out", n_steps_out), ("number of target columns", target_columns)]
    {
        if size == 0 {
            return Err(Error::ZeroSize { name });
        }
    }
    // Targets at the end are not inputs, so that at least one other column is needed.
    let needed = target_columns.saturating_add(1 - ahead);
    if columns < needed {
        return Err(Error::shape(
            "matrix",
            format!("at least {needed} columns for {target_columns} as targets"),
            format!("{columns} columns"),
        ));
    }
    // The first step of the targets in a run of rows.
    let first_step = n_steps - 1 + ahead;
    let needed = first_step.saturating_add(n_steps_out);
    if len < needed {
        return Err(Error::shape(
            "matrix",
            format!("at least {needed} rows (n_steps {n_steps} + {})", needed - n_steps),
            format!("{len} rows"),
        ));
    }
    let count = len - needed + 1;
    let first_target = columns - target_columns;
    let inputs = if ahead == 0 { first_target } else { columns };
    let mut x = zeros((count, n_steps, inputs))?;
    let mut y = zeros((count, n_steps_out, target_columns))?;
    for n in 0..count {
        x.index_axis_mut(Axis(0), n).assign(&matrix.slice(s![n..n + n_steps, ..inputs]));
        let first = n + first_step;
        y.index_axis_mut(Axis(0), n).assign(&matrix.slice(s![first..first + n_steps_out, first_target..]));
    }
    Ok((x, y))
}

/// A series divided in time order: what a model learns from, what tells when to stop, what it is judged by.
///
/// ```
/// use fused_rnn::data::TimeSplit;
/// let split = TimeSplit::new(100, 0.2, 0.1)?;
/// assert_eq!((split.train, split.validation, split.test), (0..70, 70..90, 90..100));
/// # Ok::<(), fused_rnn::Error>(())
/// ```
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
        let train = len.saturating_sub(validation.saturating_add(test));
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

/// Whether a series has a trend or drifts, so that a model of the values themselves meets values that it never saw: whether the hypothesis
/// that it stays about a level is refused at 5 %, by the test of
/// [Kwiatkowski, Phillips, Schmidt and Shin 1992](https://doi.org/10.1016/0304-4076(92)90104-Y) with `3 sqrt(n) / 13` autocovariances.
pub fn has_trend(values: &[f64]) -> bool {
    const REFUSED_AT_5_PERCENT: f64 = 0.463;
    let count = values.len() as f64;
    let mean = values.iter().sum::<f64>() / count;
    let about: Vec<f64> = values.iter().map(|value| value - mean).collect();
    let (mut sum, mut of_sums) = (0.0, 0.0);
    for value in &about {
        sum += value;
        of_sums += sum * sum;
    }
    let covariance = |lag: usize| about.iter().zip(about.iter().skip(lag)).map(|(a, b)| a * b).sum::<f64>() / count;
    let lags = (3.0 * count.sqrt() / 13.0) as usize;
    let weighted = |lag: usize| 2.0 * (1.0 - lag as f64 / (lags + 1) as f64) * covariance(lag);
    let variance = covariance(0) + (1..=lags).map(weighted).sum::<f64>();
    of_sums / (count * count) > REFUSED_AT_5_PERCENT * variance
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    /// The tutorial's own numbers: 10, 20, …, 15, 25, …, and their sums.
    #[test]
    fn several_steps_of_several_series() {
        let matrix = Array2::from_shape_fn((9, 3), |(t, c)| {
            let t = t as f64;
            [10.0 * t + 10.0, 10.0 * t + 15.0, 20.0 * t + 25.0][c]
        });
        let (x, y) = split_sequences_multi_step(matrix.view(), 3, 2, SequenceTargets::AtEnd { columns: 1 }).unwrap();
        assert_eq!((x.dim(), y.dim()), ((6, 3, 2), (6, 2, 1)));
        assert_eq!(x.index_axis(Axis(0), 0), array![[10.0, 15.0], [20.0, 25.0], [30.0, 35.0]]);
        assert_eq!((y.index_axis(Axis(0), 0), y[[5, 1, 0]]), (array![[65.0], [85.0]].view(), 185.0));
        let (x, y) = split_sequences_multi_step(matrix.view(), 3, 2, SequenceTargets::After { columns: 3 }).unwrap();
        assert_eq!((x.dim(), y.dim()), ((5, 3, 3), (5, 2, 3)));
        assert_eq!(y.index_axis(Axis(0), 0), array![[40.0, 45.0, 85.0], [50.0, 55.0, 105.0]]);
        for (steps, out) in [(0, 1), (1, 0), (8, 2), (usize::MAX, 1), (1, usize::MAX)] {
            let after = SequenceTargets::After { columns: 3 };
            assert!(split_sequences_multi_step(matrix.view(), steps, out, after).is_err(), "{steps} {out}");
        }
    }

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

    /// Windows overlap: those of half a series are a quarter of its square.
    #[test]
    fn windows_beyond_memory() {
        let series = vec![0.0f32; 1 << 24];
        let half = series.len() / 2;
        assert!(matches!(windows(&series, half, 1), Err(Error::Unsupported { why, .. }) if why.contains("memory")));
        assert!(matches!(windows(&series, 1, half), Err(Error::Unsupported { why, .. }) if why.contains("memory")));
        assert!(matches!(split_sequence(&series, half), Err(Error::Unsupported { why, .. }) if why.contains("memory")));
        assert!(matches!(create_dataset(&series, half), Err(Error::Unsupported { why, .. }) if why.contains("memory")));
        let columns = ArrayView2::from_shape((series.len() / 2, 2), &series).unwrap();
        for (steps, out) in [(half / 2, 1), (1, half / 2)] {
            let after = SequenceTargets::After { columns: 2 };
            let refused = split_sequences_multi_step(columns, steps, out, after);
            assert!(matches!(refused, Err(Error::Unsupported { why, .. }) if why.contains("memory")), "{steps} {out}");
        }
    }

    /// What the tutorials' Python gives for these series.
    #[test]
    fn the_tutorials_windows() {
        let series = [10.0f32, 20.0, 30.0, 40.0, 50.0, 60.0];
        let (x, y) = split_sequence(&series, 3).unwrap();
        assert_eq!(x, array![[10.0, 20.0, 30.0], [20.0, 30.0, 40.0], [30.0, 40.0, 50.0]]);
        assert_eq!(y, array![40.0, 50.0, 60.0]);
        let (x, y) = create_dataset(&series, 3).unwrap();
        assert_eq!((x, y), (array![[10.0, 20.0, 30.0], [20.0, 30.0, 40.0]], array![40.0, 50.0]));
        let (x, y) = windows(&series, 3, 1).unwrap();
        let (flat, next) = split_sequence(&series, 3).unwrap();
        assert_eq!((x.remove_axis(ndarray::Axis(2)), y.remove_axis(ndarray::Axis(1))), (flat, next));
        for (len, steps) in [(0, 1), (3, 3), (4, usize::MAX)] {
            let series = vec![1.0f64; len];
            assert!(matches!(split_sequence(&series, steps), Err(Error::Shape { .. })), "{len} {steps}");
            assert!(matches!(create_dataset(&series, steps), Err(Error::Shape { .. })), "{len} {steps}");
        }
        assert!(matches!(create_dataset(&[1.0f64; 4], 3), Err(Error::Shape { .. })));
        assert!(matches!(create_dataset(&[1.0f64; 4], 0), Err(Error::ZeroSize { name: "look_back" })));
    }

    #[test]
    fn windows_of_several_series() {
        let matrix = array![[10.0, 15.0, 25.0], [20.0, 25.0, 45.0], [30.0, 35.0, 65.0], [40.0, 45.0, 85.0]];
        let (x, y) = split_sequences(matrix.view(), 3, SequenceTargets::AtEnd { columns: 1 }).unwrap();
        let first = [[10.0, 15.0], [20.0, 25.0], [30.0, 35.0]];
        assert_eq!(x, array![first, [[20.0, 25.0], [30.0, 35.0], [40.0, 45.0]]]);
        assert_eq!(y, array![[65.0], [85.0]]);
        let (x, y) = split_sequences(matrix.view(), 3, SequenceTargets::After { columns: 3 }).unwrap();
        assert_eq!(x, array![[[10.0, 15.0, 25.0], [20.0, 25.0, 45.0], [30.0, 35.0, 65.0]]]);
        assert_eq!(y, array![[40.0, 45.0, 85.0]]);
        let (x, y) = split_sequences(matrix.view(), 2, SequenceTargets::After { columns: 1 }).unwrap();
        assert_eq!((x.dim(), y), ((2, 2, 3), array![[65.0], [85.0]]));
        use SequenceTargets::{After, AtEnd};
        for (steps, targets) in [(5, AtEnd { columns: 1 }), (4, After { columns: 1 }), (2, AtEnd { columns: 3 })] {
            assert!(matches!(split_sequences(matrix.view(), steps, targets), Err(Error::Shape { .. })), "{targets:?}");
        }
        for targets in [After { columns: 4 }, After { columns: usize::MAX }, AtEnd { columns: usize::MAX }] {
            assert!(matches!(split_sequences(matrix.view(), 2, targets), Err(Error::Shape { .. })), "{targets:?}");
        }
        for (steps, targets) in [(0, AtEnd { columns: 1 }), (2, AtEnd { columns: 0 }), (2, After { columns: 0 })] {
            assert!(matches!(split_sequences(matrix.view(), steps, targets), Err(Error::ZeroSize { .. })));
        }
    }

    #[test]
    fn splits_in_time_order() {
        let split = TimeSplit::new(100, 0.1, 0.2).unwrap();
        assert_eq!((split.train, split.validation, split.test), (0..70, 70..80, 80..100));
        assert_eq!(TimeSplit::new(3, 0.0, 0.0).unwrap().train, 0..3);
        for (len, validation, test) in [
            (100, 0.5, 0.5),
            (100, -0.1, 0.2),
            (100, 0.1, f64::NAN),
            (0, 0.1, 0.1),
            (5, 0.9, 0.9),
            (usize::MAX, 0.6, 0.6),
        ] {
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
        assert!(
            !has_trend(&[]) && !has_trend(&[1.0]) && !has_trend(&[2.0, 2.0]) && !has_trend(&[f64::MAX, -f64::MAX, 1.0])
        );
        // The German interest rate of `interest_inflation` in statsmodels, 1972 to 1990, which drifts: its halves overlap.
        let rate = [
            83, 83, 87, 87, 102, 98, 97, 107, 109, 108, 99, 89, 84, 87, 86, 78, 83, 81, 74, 70, 64, 60, 60, 56, 60, 64,
            66, 71, 80, 78, 80, 95, 83, 83, 91, 104, 111, 113, 99, 96, 92, 88, 80, 74, 81, 84, 83, 79, 81, 77, 70, 77,
            70, 64, 66, 60, 60, 58, 60, 56, 55, 62, 58, 56, 60, 63, 62, 70, 71, 71, 78, 90, 90, 91, 90,
        ];
        assert!(has_trend(&rate.map(f64::from)));
    }
}
