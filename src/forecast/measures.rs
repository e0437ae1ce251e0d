//! How far forecasts are from what came: [`Measures`], for every step ahead together or for the first alone.

use ndarray::{ArrayView2, s};

use crate::error::{Error, Result};

/// Errors of forecasts, in the unit of the series where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Measures {
    /// Root of the mean squared error.
    pub rmse: f64,
    /// Mean absolute error.
    pub mae: f64,
    /// Symmetric mean absolute percentage error, in percent from 0 to 200: the mean of `200 |truth - forecast| / (|truth| + |forecast|)`,
    /// where zero for zero is no error ([M4 competition](https://doi.org/10.1016/j.ijforecast.2019.04.014)).
    pub smape: f64,
    /// Mean absolute scaled error: the mean absolute error over that of [`seasonal_change`]
    /// ([Hyndman and Koehler 2006](https://doi.org/10.1016/j.ijforecast.2006.03.001)). Below 1 is better than the seasonal naive forecast is
    /// one season ahead within the training part. `None` where that part repeats itself exactly, or is shorter than two seasons.
    pub mase: Option<f64>,
}

impl Measures {
    /// Errors of forecasts `[n, horizon]` beside what came. `scale` is the training part's [`seasonal_change`].
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
    pub fn of(truth: ArrayView2<'_, f64>, forecast: ArrayView2<'_, f64>, scale: Option<f64>) -> Result<Self> {
        if truth.dim() != forecast.dim() {
            let expected = format!("the truth's shape {:?}", truth.shape());
            return Err(Error::shape("forecast", expected, format!("{:?}", forecast.shape())));
        }
        if truth.is_empty() {
            return Err(Error::ZeroSize { name: "number of values to compare" });
        }
        let mean = |of: fn(f64, f64) -> f64| {
            truth.iter().zip(forecast.iter()).map(|(t, f)| of(*t, *f)).sum::<f64>() / truth.len() as f64
        };
        let mae = mean(|t, f| (t - f).abs());
        let relative = |t: f64, f: f64| if t == f { 0.0 } else { 200.0 * (t - f).abs() / (t.abs() + f.abs()) };
        Ok(Measures {
            rmse: mean(|t, f| (t - f) * (t - f)).sqrt(),
            mae,
            smape: mean(relative),
            mase: scale.filter(|scale| *scale > 0.0).map(|scale| mae / scale),
        })
    }

    /// The same of the first step ahead alone.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the shapes differ, [`Error::ZeroSize`] where there is nothing to compare.
    pub fn of_first_step(
        truth: ArrayView2<'_, f64>,
        forecast: ArrayView2<'_, f64>,
        scale: Option<f64>,
    ) -> Result<Self> {
        if truth.ncols() == 0 || forecast.ncols() == 0 {
            return Err(Error::ZeroSize { name: "horizon" });
        }
        Self::of(truth.slice(s![.., ..1]), forecast.slice(s![.., ..1]), scale)
    }
}

/// The scale of [`Measures::mase`]: the mean absolute change over one season of the part that a model learns from, `None` where there is
/// no value a season after another.
pub fn seasonal_change(train: &[f64], season: usize) -> Option<f64> {
    let later = train.get(season.max(1)..).filter(|later| !later.is_empty())?;
    Some(later.iter().zip(train).map(|(later, earlier)| (later - earlier).abs()).sum::<f64>() / later.len() as f64)
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    #[test]
    fn by_hand() {
        let (truth, forecast) = (array![[1.0, 2.0], [0.0, 4.0]], array![[2.0, 2.0], [0.0, 1.0]]);
        let all = Measures::of(truth.view(), forecast.view(), Some(0.5)).unwrap();
        assert!((all.rmse - 2.5f64.sqrt()).abs() < 1e-15 && all.mae == 1.0 && all.mase == Some(2.0));
        assert!((all.smape - (200.0 / 3.0 + 120.0) / 4.0).abs() < 1e-12, "{}", all.smape);
        let first = Measures::of_first_step(truth.view(), forecast.view(), None).unwrap();
        assert_eq!((first.mae, first.mase), (0.5, None));
        assert!(Measures::of(truth.view(), array![[1.0]].view(), None).is_err());
        assert!(Measures::of(array![[]].view(), array![[]].view(), None).is_err());
    }

    #[test]
    fn the_scale_is_the_change_over_a_season() {
        assert_eq!(seasonal_change(&[1.0, 2.0, 4.0, 7.0], 1), Some(2.0));
        assert_eq!(seasonal_change(&[1.0, 2.0, 4.0, 7.0], 2), Some(4.0));
        assert_eq!(seasonal_change(&[1.0, 2.0], 2), None);
        assert_eq!(seasonal_change(&[1.0, 2.0], 0), Some(1.0));
    }
}
