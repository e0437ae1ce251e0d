//! Exponential smoothing with a damped trend and a season: [`Smoothing`].
#![expect(
    clippy::indexing_slicing,
    reason = "of seasons cut to that many values, places taken modulo the season, and arrays of four numbers"
)]

use ndarray::{Array2, ArrayView1};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::forecast::baseline::check_horizon;
use crate::forecast::method::zeros;
use crate::forecast::simplex::minimize;
use crate::memory;

/// Additive exponential smoothing with a damped trend, and a season where there is one ([Holt-Winters](https://otexts.com/fpp3/holt-winters.html)).
/// Of logarithms it is the multiplicative one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Smoothing {
    /// Values of a season; 1 for none.
    pub season: usize,
    /// How fast the level follows the values, from 0 to 1.
    pub level: f64,
    /// How fast the trend follows the level, from 0 to 1.
    pub trend: f64,
    /// How fast the season follows the values, from 0 to 1.
    pub seasonal: f64,
    /// What is left of the trend after a step, from 0 to 1.
    pub damping: f64,
}

/// Values that the parameters are fitted to, the last of each series.
const MOST_VALUES: usize = 3000;

impl Smoothing {
    /// Fits the parameters to series, each scaled to a magnitude of about one: the least mean squared error one step ahead.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where no series has two seasons and a value more.
    pub fn fit(series: &[ArrayView1<'_, f64>], season: usize) -> Result<Self> {
        let season = season.max(1);
        let needed = season.saturating_mul(2).saturating_add(2);
        let series: Vec<Vec<f64>> = series
            .iter()
            .filter(|values| values.len() >= needed)
            .map(|values| {
                values.iter().copied().skip(values.len() - values.len().min(MOST_VALUES.max(needed))).collect()
            })
            .collect();
        if series.is_empty() {
            return Err(Error::shape("series", format!("at least {needed} values to smooth"), "fewer"));
        }
        let loss = |at: &[f64]| {
            let smoothing = Self::of(season, at);
            let sums = series.iter().map(|values| {
                let mut state = State::new(values, season);
                let (mut sum, mut count) = (0.0, 0.0);
                for (i, value) in values.iter().enumerate() {
                    // The first season tells of itself.
                    let error = value - state.ahead(&smoothing, 0);
                    if i >= season {
                        (sum, count) = (sum + error * error, count + 1.0);
                    }
                    state.advance(&smoothing, *value);
                }
                (sum, count)
            });
            let (sum, count) = sums.fold((0.0, 0.0), |(a, b), (sum, count)| (a + sum, b + count));
            sum / count
        };
        let starts = [[0.0, -3.0, -2.0, 2.0], [-2.0, -4.0, -1.0, 4.0], [2.0, -2.0, -4.0, 1.0]];
        let best = starts.map(|start| minimize(loss, &start, 1.0, 200)).into_iter().min_by(|a, b| a.1.total_cmp(&b.1));
        Ok(Self::of(season, &best.map_or(starts[0].to_vec(), |(at, _)| at)))
    }

    /// The parameters at a place of the search: each on a logistic curve, so that none leaves its range.
    fn of(season: usize, at: &[f64]) -> Self {
        let logistic = |x: f64| 1.0 / (1.0 + (-x).exp());
        Smoothing {
            season,
            level: 0.0001 + 0.9998 * logistic(at[0]),
            trend: 0.5 * logistic(at[1]),
            seasonal: if season > 1 { 0.0001 + 0.9 * logistic(at[2]) } else { 0.0 },
            damping: 0.8 + 0.195 * logistic(at[3]),
        }
    }

    /// The `horizon` values from each of the `origins` on, which grow, from all values before it: `[origins, horizon]`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a horizon of more than ten million values; [`Error::Unsupported`] where memory is short.
    pub fn forecasts(&self, values: ArrayView1<'_, f64>, origins: &[usize], horizon: usize) -> Result<Array2<f64>> {
        check_horizon(horizon)?;
        let known = origins.last().map_or(0, |last| *last).min(values.len());
        let values = memory::collected("the series", values.iter().take(known).copied())?;
        // What the state begins with may be of values before the first origin alone.
        let before = origins.first().map_or(0, |first| *first).min(known);
        let mut state = State::new(values.get(..before).unwrap_or_default(), self.season);
        let mut forecasts = zeros(origins.len(), horizon)?;
        let mut next = values.iter().enumerate().peekable();
        for (origin, mut forecasts) in origins.iter().zip(forecasts.outer_iter_mut()) {
            while let Some((_, value)) = next.next_if(|(at, _)| at < origin) {
                state.advance(self, *value);
            }
            forecasts.iter_mut().enumerate().for_each(|(ahead, forecast)| *forecast = state.ahead(self, ahead));
        }
        Ok(forecasts)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        for (name, value) in
            [("level", self.level), ("trend", self.trend), ("seasonal", self.seasonal), ("damping", self.damping)]
        {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::option(format!("smoothing.{name}"), "0 to 1", value));
            }
        }
        if self.season == 0 { Err(Error::ZeroSize { name: "season" }) } else { Ok(()) }
    }
}

/// Level, trend and season after some values.
struct State {
    level: f64,
    trend: f64,
    /// From the next value's on.
    season: Vec<f64>,
    next: usize,
}

impl State {
    /// What the first seasons of the values say.
    fn new(values: &[f64], season: usize) -> Self {
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len().max(1) as f64;
        if season < 2 || values.len() < season.saturating_mul(2) {
            let start = &values[..values.len().min(10)];
            let trend = match start {
                [first, .., last] => (last - first) / (start.len() - 1) as f64,
                _ => 0.0,
            };
            let level = start.first().copied().unwrap_or(0.0) - trend;
            return State { level, trend, season: vec![0.0], next: 0 };
        }
        let seasons: Vec<&[f64]> = values.chunks_exact(season).take(4).collect();
        let means: Vec<f64> = seasons.iter().map(|values| mean(values)).collect();
        let trend = (means[means.len() - 1] - means[0]) / ((means.len() - 1) * season) as f64;
        let middle = (season - 1) as f64 / 2.0;
        let of = |place: usize| {
            let about =
                seasons.iter().zip(&means).map(|(values, mean)| values[place] - mean - trend * (place as f64 - middle));
            about.sum::<f64>() / seasons.len() as f64
        };
        State { level: means[0] - trend * (middle + 1.0), trend, season: (0..season).map(of).collect(), next: 0 }
    }

    fn advance(&mut self, of: &Smoothing, value: f64) {
        let before = self.level;
        let expected = self.level + of.damping * self.trend;
        let place = self.next % self.season.len();
        let season = self.season[place];
        self.level = of.level * (value - season) + (1.0 - of.level) * expected;
        self.trend = of.trend * (self.level - before) + (1.0 - of.trend) * of.damping * self.trend;
        self.season[place] = of.seasonal * (value - expected) + (1.0 - of.seasonal) * season;
        self.next += 1;
    }

    fn ahead(&self, of: &Smoothing, ahead: usize) -> f64 {
        let damped = if of.damping < 1.0 {
            let steps = i32::try_from(ahead).unwrap_or(i32::MAX).saturating_add(1);
            of.damping * (1.0 - of.damping.powi(steps)) / (1.0 - of.damping)
        } else {
            (ahead + 1) as f64
        };
        self.level + damped * self.trend + self.season[(self.next + ahead) % self.season.len()]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_season_and_a_trend_go_on() {
        let value = |t: usize| 0.02 * t as f64 + [1.0, -1.0, 0.5, -0.5][t % 4];
        let values: Vec<f64> = (0..60).map(value).collect();
        let values = ArrayView1::from(&values);
        let smoothing = Smoothing::fit(&[values], 4).unwrap();
        let ahead = smoothing.forecasts(values, &[40, 60], 4).unwrap();
        for (row, origin) in [40, 60].into_iter().enumerate() {
            for step in 0..4 {
                assert!((ahead[[row, step]] - value(origin + step)).abs() < 0.05, "{ahead}");
            }
        }
        // An origin is forecast from what lies before it: what comes later changes nothing.
        let early = smoothing.forecasts(values.slice(ndarray::s![..40]), &[40], 4).unwrap();
        assert_eq!(early.row(0), ahead.row(0));
    }

    #[test]
    fn short_series() {
        assert!(Smoothing::fit(&[ArrayView1::from(&[1.0, 2.0])], 4).is_err());
        let smoothing = Smoothing::fit(&[ArrayView1::from(&[1.0, 2.0, 1.5, 2.5, 2.0, 3.0])], 1).unwrap();
        assert!(smoothing.validate().is_ok());
        let one = [1.0];
        assert!(smoothing.forecasts(ArrayView1::from(&one), &[1], 2).unwrap().iter().all(|v| v.is_finite()));
        for season in [0, usize::MAX] {
            let smoothing = Smoothing { season, ..smoothing.clone() };
            assert!(smoothing.forecasts(ArrayView1::from(&one), &[0, usize::MAX, 1], 2).is_ok(), "{season}");
            assert!(smoothing.forecasts(ArrayView1::from(&one), &[], usize::MAX).is_err(), "{season}");
        }
    }
}
