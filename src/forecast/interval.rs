//! How sure forecasts are: [`Intervals`], by split conformal prediction from the errors of rolling origins.

use ndarray::ArrayView2;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::memory;

/// Intervals around forecasts, wider the further ahead, that hold a part of what comes.
///
/// By split conformal prediction ([Lei et al. 2018](https://doi.org/10.1080/01621459.2017.1307116)): the half width at a step ahead is the
/// `ceil((n + 1) level)`th smallest of the `n` absolute errors that forecasts of the same step made on data that the model did not learn
/// from, or the largest where there are fewer. Errors of neighbouring origins resemble each other, so that the level is met about and not
/// exactly: measure it with [`coverage`](Self::coverage).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// The parts of what comes that the intervals shall hold, growing.
    pub levels: Vec<f64>,
    /// Half widths `[levels][steps ahead]`.
    pub widths: Vec<Vec<f64>>,
}

impl Intervals {
    /// Intervals from errors `[origins, horizon]`. No step's interval is narrower than that of a step before.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a level that is not between 0 and 1; [`Error::ZeroSize`] without errors; [`Error::NonFinite`] for errors
    /// that are NaN or infinite.
    pub fn fit(errors: ArrayView2<'_, f64>, levels: &[f64]) -> Result<Self> {
        if errors.is_empty() {
            return Err(Error::ZeroSize { name: "number of errors to make intervals of" });
        }
        if let Some(((origin, ahead), got)) = errors.indexed_iter().find(|(_, error)| !error.is_finite()) {
            return Err(Error::NonFinite {
                tensor: "errors".to_owned(),
                got: *got,
                position: format!("origin {origin}, step {}", ahead + 1),
                help: "the forecasts lie too far outside of what the model learned from".to_owned(),
            });
        }
        let mut levels = levels.to_vec();
        levels.sort_by(f64::total_cmp);
        levels.dedup();
        check_levels(&levels)?;
        memory::check("sizes of errors", errors.len().saturating_mul(size_of::<f64>()))?;
        let sorted: Vec<Vec<f64>> = errors
            .columns()
            .into_iter()
            .map(|column| {
                let mut sizes: Vec<f64> = column.iter().map(|error| error.abs()).collect();
                sizes.sort_by(f64::total_cmp);
                sizes
            })
            .collect();
        let widths = levels
            .iter()
            .map(|level| {
                let mut least = 0.0f64;
                let width = |sizes: &Vec<f64>| {
                    let rank = ((sizes.len() + 1) as f64 * level).ceil() as usize;
                    // Of at least one error, as there are errors at all.
                    let width = sizes.get(rank.saturating_sub(1)).or(sizes.last());
                    least = width.map_or(least, |width| least.max(*width));
                    least
                };
                sorted.iter().map(width).collect()
            })
            .collect();
        Ok(Intervals { levels, widths })
    }

    /// Checks intervals that were read from a file.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for levels that are not between 0 and 1, or do not grow, or for a width below zero; [`Error::Shape`] where
    /// there are not `horizon` widths for each level.
    pub fn validate(&self, horizon: usize) -> Result<()> {
        check_levels(&self.levels)?;
        if self.widths.len() != self.levels.len() || self.widths.iter().any(|widths| widths.len() != horizon) {
            let got: Vec<usize> = self.widths.iter().map(Vec::len).collect();
            return Err(Error::shape(
                "widths of intervals",
                format!("[{}, {horizon}]", self.levels.len()),
                format!("{got:?}"),
            ));
        }
        match self.widths.iter().flatten().find(|width| !(width.is_finite() && **width >= 0.0)) {
            Some(width) => Err(Error::option("width of an interval", "a number of at least 0", width)),
            None => Ok(()),
        }
    }

    /// Half width of level number `level` at step `ahead`, counted from 0. Past the horizon, where forecasts are made of forecasts, it grows
    /// with the square root of the number of steps, as errors that add up do.
    pub fn width(&self, level: usize, ahead: usize) -> f64 {
        let Some(widths) = self.widths.get(level) else { return f64::NAN };
        match (widths.get(ahead), widths.last()) {
            (Some(width), _) => *width,
            (None, Some(last)) => last * ((ahead as f64 + 1.0) / widths.len() as f64).sqrt(),
            (None, None) => f64::NAN,
        }
    }

    /// For each level, the part of `truth` `[n, horizon]` that lies within the intervals around `forecast`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
    pub fn coverage(&self, truth: ArrayView2<'_, f64>, forecast: ArrayView2<'_, f64>) -> Result<Vec<f64>> {
        if truth.dim() != forecast.dim() {
            let expected = format!("the truth's shape {:?}", truth.shape());
            return Err(Error::shape("forecast", expected, format!("{:?}", forecast.shape())));
        }
        if truth.is_empty() {
            return Err(Error::ZeroSize { name: "number of values to compare" });
        }
        let within = |level: usize| {
            let held =
                |(((_, ahead), t), f): &(((usize, usize), &f64), &f64)| (**t - **f).abs() <= self.width(level, *ahead);
            truth.indexed_iter().zip(forecast.iter()).filter(held).count() as f64 / truth.len() as f64
        };
        Ok((0..self.levels.len()).map(within).collect())
    }
}

fn check_levels(levels: &[f64]) -> Result<()> {
    if let Some(level) = levels.iter().find(|level| !(**level > 0.0 && **level < 1.0)) {
        return Err(Error::option("level of an interval", "a number between 0 and 1, as in 0.8", level));
    }
    if levels.array_windows().any(|[a, b]| a >= b) {
        return Err(Error::option("levels of intervals", "growing numbers", format!("{levels:?}")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ndarray::{Array2, array};

    use super::*;

    #[test]
    fn widths_are_ranks_of_the_errors() {
        let errors = Array2::from_shape_fn(
            (9, 2),
            |(i, ahead)| if i % 2 == 0 { 1.0 } else { -1.0 } * (i + 1 + 10 * ahead) as f64,
        );
        let intervals = Intervals::fit(errors.view(), &[0.95, 0.5]).unwrap();
        assert_eq!(intervals.levels, [0.5, 0.95]);
        assert_eq!(intervals.widths, [[5.0, 15.0], [9.0, 19.0]]);
        assert_eq!(intervals.width(0, 7), 30.0, "four times as far, twice as wide");
        assert!(intervals.width(0, usize::MAX).is_finite() && intervals.width(usize::MAX, 0).is_nan());
        intervals.validate(2).unwrap();
        assert!(intervals.validate(3).is_err());
        let coverage = intervals.coverage(errors.view(), Array2::zeros((9, 2)).view()).unwrap();
        assert!((coverage[0] - 5.0 / 9.0).abs() < 1e-12 && coverage[1] == 1.0);
    }

    #[test]
    fn they_never_narrow_and_bad_ones_are_refused() {
        let intervals = Intervals::fit(array![[3.0, 1.0], [3.0, 1.0]].view(), &[0.8]).unwrap();
        assert_eq!(intervals.widths, [[3.0, 3.0]]);
        for levels in [[0.0], [1.0], [f64::NAN], [-1.0]] {
            assert!(Intervals::fit(array![[1.0]].view(), &levels).is_err());
        }
        assert!(Intervals::fit(array![[f64::NAN]].view(), &[0.8]).is_err());
        assert!(Intervals::fit(Array2::zeros((0, 3)).view(), &[0.8]).is_err());
    }
}
