//! The simple forecasts that a [`Reference`](crate::forecast::Reference) is made of: [`Method`].

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::forecast::baseline::{before, check_horizon};
use crate::forecast::ridge::Ridge;
use crate::forecast::smoothing::Smoothing;
use crate::memory;

/// Forecasts to be filled in, or an error where there is no such memory.
pub(super) fn zeros(origins: usize, horizon: usize) -> Result<Array2<f64>> {
    memory::array_of("forecasts", (origins, horizon), 0.0)
}

/// A simple forecast.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Method {
    /// Every value as so many values before; 1 is the last value.
    Season(usize),
    /// Exponential smoothing.
    Smoothing(Smoothing),
    /// Linear in the last values.
    Ridge(Ridge),
}

impl Method {
    /// Values before the first that it can forecast.
    pub fn context(&self) -> usize {
        match self {
            Method::Season(season) => (*season).max(1),
            Method::Smoothing(smoothing) => smoothing.season.saturating_mul(2).max(2),
            Method::Ridge(ridge) => ridge.shape().context(),
        }
    }

    /// The `horizon` values from each of the growing `origins` on: `[origins, horizon]`.
    pub(super) fn forecasts(
        &self,
        rows: ArrayView2<'_, f64>,
        origins: &[usize],
        horizon: usize,
    ) -> Result<Array2<f64>> {
        check_horizon(horizon)?;
        if let (Method::Smoothing(smoothing), true) = (self, rows.ncols() > 0) {
            return smoothing.forecasts(rows.column(0), origins, horizon);
        }
        let mut forecasts = zeros(origins.len(), horizon)?;
        forecasts.fill(f64::NAN);
        for (origin, mut forecasts) in origins.iter().zip(forecasts.outer_iter_mut()) {
            match self {
                Method::Season(season) => {
                    for (ahead, forecast) in forecasts.iter_mut().enumerate() {
                        let at = origin.checked_sub(before(ahead, *season, *origin)).unwrap_or(usize::MAX);
                        *forecast = rows.get([at, 0]).copied().unwrap_or(f64::NAN);
                    }
                }
                // Of a column that is not there.
                Method::Smoothing(_) => {}
                Method::Ridge(ridge) => {
                    ridge.forecast(rows, *origin, |ahead, value| {
                        if let Some(forecast) = forecasts.get_mut(ahead) {
                            *forecast = value;
                        }
                    });
                }
            }
        }
        Ok(forecasts)
    }

    /// Its name in sentences.
    pub fn name(&self) -> String {
        match self {
            Method::Season(0 | 1) => "naive".to_owned(),
            Method::Season(_) => "seasonal naive".to_owned(),
            Method::Smoothing(smoothing) if smoothing.season > 1 => "seasonal exponential smoothing".to_owned(),
            Method::Smoothing(_) => "exponential smoothing".to_owned(),
            Method::Ridge(ridge) => format!("ridge on {} lags about {}", ridge.lags, ridge.anchor.name()),
        }
    }
}
