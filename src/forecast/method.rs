//! The simple forecasts that a [`Reference`](crate::forecast::Reference) is made of: [`Method`].

use ndarray::{Array2, ArrayView2};
use serde::{Deserialize, Serialize};

use crate::forecast::baseline::before;
use crate::forecast::ridge::Ridge;
use crate::forecast::smoothing::Smoothing;

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
    pub(super) fn forecasts(&self, rows: ArrayView2<'_, f64>, origins: &[usize], horizon: usize) -> Array2<f64> {
        match self {
            Method::Season(season) => Array2::from_shape_fn((origins.len(), horizon), |(row, ahead)| {
                let back = before(ahead, *season, origins[row]);
                let at = origins[row].checked_sub(back).unwrap_or(usize::MAX);
                rows.get([at, 0]).copied().unwrap_or(f64::NAN)
            }),
            Method::Smoothing(smoothing) => smoothing.forecasts(rows.column(0), origins, horizon),
            Method::Ridge(ridge) => ridge.forecasts(rows, origins),
        }
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
