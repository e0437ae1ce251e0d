//! Forecasts that need no training: [`Baseline`].

use crate::error::{Error, Result};
use crate::memory;

/// Most values of a forecast.
pub(crate) const MOST_STEPS: usize = 10_000_000;

/// A forecast that needs no training.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Baseline {
    /// Every value as the last one.
    Naive,
    /// Every value as a season before.
    SeasonalNaive,
    /// The straight line through the first and the last value.
    Drift,
}

impl Baseline {
    /// All of them.
    pub const ALL: [Baseline; 3] = [Baseline::Naive, Baseline::SeasonalNaive, Baseline::Drift];

    /// Its name in tables.
    pub fn name(self) -> &'static str {
        match self {
            Baseline::Naive => "naive (last value)",
            Baseline::SeasonalNaive => "seasonal naive",
            Baseline::Drift => "drift",
        }
    }

    /// The `horizon` values after `past`. With a season of one value, or one that is longer than the past, the seasonal naive forecast is
    /// the naive one.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] without a past; [`Error::InvalidOption`] for more than ten million values.
    pub fn forecast(self, past: &[f64], season: usize, horizon: usize) -> Result<Vec<f64>> {
        check_horizon(horizon)?;
        let [first, .., last] = past else {
            return match past {
                [only] => memory::filled("forecasts", horizon, *only),
                _ => Err(Error::shape("series", "at least one value to forecast from", "none")),
            };
        };
        let step = (last - first) / (past.len() - 1) as f64;
        let at = |ahead: usize| match self {
            Baseline::Naive => *last,
            Baseline::SeasonalNaive => {
                past.iter().nth_back(before(ahead, season, past.len()) - 1).map_or(*last, |v| *v)
            }
            Baseline::Drift => last + step * (ahead + 1) as f64,
        };
        memory::collected("forecasts", (0..horizon).map(at))
    }
}

/// Refuses a horizon that no one means.
pub(crate) fn check_horizon(horizon: usize) -> Result<()> {
    if horizon <= MOST_STEPS { Ok(()) } else { Err(Error::option("horizon", format!("at most {MOST_STEPS}"), horizon)) }
}

/// How far before the first value to be forecast the value lies that is whole seasons before step `ahead`, counted from 0.
pub(crate) fn before(ahead: usize, season: usize, known: usize) -> usize {
    let season = if season == 0 || season > known { 1 } else { season };
    season - ahead % season
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_hand() {
        let past = [1.0, 5.0, 3.0, 4.0, 8.0, 7.0];
        let forecast = |of: Baseline, season| of.forecast(&past, season, 4).unwrap();
        assert_eq!(forecast(Baseline::Naive, 3), [7.0; 4]);
        assert_eq!(forecast(Baseline::SeasonalNaive, 3), [4.0, 8.0, 7.0, 4.0]);
        assert_eq!(forecast(Baseline::SeasonalNaive, 1), [7.0; 4]);
        assert_eq!(forecast(Baseline::SeasonalNaive, 100), [7.0; 4]);
        let drift = forecast(Baseline::Drift, 3);
        assert!((drift[0] - 8.2).abs() < 1e-12 && (drift[3] - 11.8).abs() < 1e-12);
        assert_eq!(Baseline::Drift.forecast(&[2.0], 3, 2).unwrap(), [2.0, 2.0]);
        assert!(Baseline::Naive.forecast(&[], 1, 1).is_err());
        assert!(
            Baseline::Naive.forecast(&past, 1, usize::MAX).is_err()
                && Baseline::Drift.forecast(&[2.0], 3, usize::MAX).is_err()
        );
    }
}
