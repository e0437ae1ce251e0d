//! What forecasts are measured by and compared with, and what a recurrent network corrects: [`Measures`], forecasts that need no training
//! ([`Baseline`]), the [season](detect_season) of a series, [`Intervals`] from the errors of rolling origins, and [`Reference`], a
//! combination of exponential [`Smoothing`] and linear forecasts ([`Ridge`]) that is chosen on data before the test part. A
//! [`Forecaster`](crate::model::Forecaster) with a [`Correction`](crate::model::Correction) learns what the reference leaves over.
//!
//! ```
//! use fused_rnn::forecast::{Baseline, Measures, detect_season, seasonal_change};
//! let sales: Vec<f64> = (0..48).map(|t| 100.0 + t as f64 + [0.0, 20.0, -10.0, 5.0][t % 4]).collect();
//! let (known, truth) = sales.split_at(44);
//! let season = detect_season(known, &[]).unwrap_or(1);
//! assert_eq!(season, 4);
//! let row = |values: &[f64]| ndarray::Array2::from_shape_fn((1, 4), |(_, ahead)| values[ahead]);
//! let ahead = Baseline::SeasonalNaive.forecast(known, season, 4)?;
//! let of = Measures::of(row(truth).view(), row(&ahead).view(), seasonal_change(known, season))?;
//! assert_eq!((of.mae, of.mase), (4.0, Some(1.0))); // it grows by 4 in a season
//! # Ok::<(), fused_rnn::Error>(())
//! ```

pub mod baseline;
pub mod calendar;
pub mod interval;
pub mod measures;
pub mod method;
pub mod reference;
pub mod ridge;
pub mod season;
mod simplex;
pub mod smoothing;
pub mod transform;
mod weights;

pub use baseline::Baseline;
pub use calendar::CalendarFeature;
pub use interval::Intervals;
pub use measures::{Measures, seasonal_change};
pub use method::Method;
pub use reference::{Chosen, Member, Reference, ReferenceOptions, ReferenceSeries};
pub use ridge::{Anchor, Ridge, RidgeShape, RidgeSums};
pub use season::{detect_season, longer_season, seasonal_strength};
pub use smoothing::Smoothing;
pub use transform::Transform;
