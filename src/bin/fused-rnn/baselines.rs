//! Forecasts that a model is measured beside, and the table of their errors.
#![expect(
    clippy::indexing_slicing,
    reason = "origins lie inside of the series, and steps of an origin inside of the horizon that arrays are made for"
)]

use fused_rnn::Result;
use fused_rnn::data::{Scaler, TimeAxis};
use fused_rnn::figures::rounded;
use fused_rnn::forecast::{Anchor, Baseline, Measures, RidgeShape, RidgeSums, detect_season};
use ndarray::{Array2, ArrayView1, ArrayView2, Axis};

use crate::output::WIDEST;

/// The name of the linear forecast in tables.
const RIDGE: &str = "ridge on lags";
/// Penalties of the linear forecast, of which the best on the last values before the test part is taken.
const PENALTIES: [f64; 5] = [0.001, 0.01, 0.1, 1.0, 10.0];

/// Seasons that a series may have by how often there is a value: those of a day, a week, a year. Empty where the labels are no dates, or years
/// apart.
pub fn calendar_seasons(axis: &TimeAxis, count: usize) -> &'static [usize] {
    if !axis.is_date() || count < 2 {
        return &[];
    }
    let in_a_year = (count - 1) as f64 / (axis.position(count - 1) - axis.position(0));
    let seasons: [(f64, &[usize]); 7] = [
        (4.0, &[4]),
        (12.0, &[12]),
        (52.18, &[52]),
        (365.24, &[7, 365]),
        (8766.0, &[24, 168]),
        (17_532.0, &[48, 336]),
        (35_064.0, &[96, 672]),
    ];
    let near = |(usual, _): &&(f64, &[usize])| (in_a_year / usual - 1.0).abs() < 0.1;
    seasons.iter().find(near).map_or(&[], |(_, seasons)| seasons)
}

/// The season of the part of a series that may be seen, 1 where there is none; and whether the dates say that there may be one.
pub fn season(axis: &TimeAxis, seen: &[f64], count: usize) -> (usize, bool) {
    let candidates = calendar_seasons(axis, count);
    (detect_season(seen, candidates).unwrap_or(1), !candidates.is_empty())
}

/// Forecasts of the same values by name: the model's first, then those that it is measured beside, `[n, horizon]` each.
pub struct Comparison {
    pub truth: Array2<f64>,
    pub forecasts: Vec<(String, Array2<f64>)>,
    /// Of MASE.
    pub scale: Option<f64>,
    pub season: usize,
}

impl Comparison {
    /// Naive, seasonal naive and drift forecasts beside a model's from the same origins, the first values of the forecasts, and with lags ridge
    /// too. It is learned from the values before `end`, the last tenth of which says what penalty it has.
    pub fn of(
        name: &str,
        values: ArrayView1<'_, f64>,
        origins: &[usize],
        forecast: Array2<f64>,
        (season, end): (usize, usize),
        ridge_lags: Option<usize>,
    ) -> Result<Self> {
        let horizon = forecast.ncols();
        let values: Vec<f64> = values.to_vec();
        let truth = Array2::from_shape_fn(forecast.dim(), |(row, ahead)| values[origins[row] + ahead]);
        let mut forecasts = vec![(name.to_owned(), forecast)];
        for baseline in Baseline::ALL {
            if baseline == Baseline::SeasonalNaive && season < 2 {
                continue;
            }
            let mut of = Array2::zeros(truth.dim());
            for (mut row, origin) in of.outer_iter_mut().zip(origins) {
                row.assign(&ArrayView1::from(&baseline.forecast(&values[..*origin], season, horizon)?));
            }
            forecasts.push((baseline.name().to_owned(), of));
        }
        if let Some(ridge) = ridge_lags.and_then(|lags| ridge(&values, origins, horizon, lags, end)) {
            forecasts.push((RIDGE.to_owned(), ridge));
        }
        let scale = fused_rnn::forecast::seasonal_change(values.get(..end).unwrap_or(&values), season);
        Ok(Comparison { truth, forecasts, scale, season })
    }

    /// Errors one step ahead and, for a horizon of several, of all steps, and how the model compares.
    pub fn table(&self, head: &str) -> Result<String> {
        let horizon = self.truth.ncols();
        let mut text = self.part(&format!("{head}, one step ahead"), Measures::of_first_step)?;
        if horizon > 1 {
            text += &self.part(&format!("{head}, {horizon} steps ahead"), Measures::of)?;
        }
        Ok(text)
    }

    fn part(
        &self,
        head: &str,
        measure: fn(ArrayView2<'_, f64>, ArrayView2<'_, f64>, Option<f64>) -> Result<Measures>,
    ) -> Result<String> {
        let rows: Vec<(&str, Measures)> = self
            .forecasts
            .iter()
            .map(|(name, forecast)| Ok((name.as_str(), measure(self.truth.view(), forecast.view(), self.scale)?)))
            .collect::<Result<_>>()?;
        let longest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0).max(head.chars().count());
        let width = longest.min(WIDEST);
        let mut text = format!("\n{head:<width$}  {:>10}  {:>10}  {:>8}  {:>8}\n", "RMSE", "MAE", "sMAPE", "MASE");
        for (name, of) in &rows {
            let mase = of.mase.map_or("-".to_owned(), |mase| rounded(mase, 4));
            let (rmse, mae) = (rounded(of.rmse, 4), rounded(of.mae, 4));
            text += &format!("{name:<width$}  {rmse:>10}  {mae:>10}  {:>8}  {mase:>8}\n", rounded(of.smape, 2));
        }
        let rmse = |row: usize| rows.get(row).map_or(f64::NAN, |row| row.1.rmse);
        let (model, naive) = (rmse(0), rmse(1));
        let gain = 100.0 * (1.0 - model / naive);
        let first = self.truth.first();
        text += &if naive == 0.0 && self.truth.iter().any(|value| Some(value) != first) {
            "The errors are too small to compare: write the column in a smaller unit.\n".to_owned()
        } else if naive == 0.0 {
            "The naive forecast makes no error: the test part is constant.\n".to_owned()
        } else if gain > 0.0 {
            format!("The model's RMSE is {gain:.1} % below the naive one.\n")
        } else if gain.is_finite() {
            format!("The model does not beat the naive forecast: its RMSE is {} % above.\n", rounded(gain.abs(), 1))
        } else {
            "The values are too large to compare the errors.\n".to_owned()
        };
        Ok(text)
    }
}

/// Ridge regression on lags about the mean: what a model without memory reads from the same window.
fn ridge(values: &[f64], origins: &[usize], horizon: usize, lags: usize, end: usize) -> Option<Array2<f64>> {
    let end = end.min(values.len());
    let scaler = Scaler::standard(values.get(..end)?).ok()?;
    let scaled: Vec<f64> = values.iter().map(|value| scaler.transform(*value)).collect();
    let rows = ArrayView1::from(&scaled).insert_axis(Axis(1));
    let shape = RidgeShape { anchor: Anchor::Mean, season: 1, lags, inputs: 0, input_lags: 0, known: 0 };
    let held = (end / 10).max(2 * horizon);
    let tried = end.checked_sub(held).and_then(|start| {
        let sums = RidgeSums::of(shape, &[rows], |_| start, horizon).ok()?;
        let held: Vec<usize> = (start.max(lags)..=end - horizon).collect();
        let error = |penalty: &f64| {
            let forecasts = sums.solve(*penalty).and_then(|ridge| ridge.forecasts(rows, &held));
            forecasts.map_or(f64::INFINITY, |f| {
                f.indexed_iter().map(|((row, ahead), value)| (value - scaled[held[row] + ahead]).powi(2)).sum()
            })
        };
        PENALTIES.into_iter().min_by(|a, b| error(a).total_cmp(&error(b)))
    });
    let sums = RidgeSums::of(shape, &[rows], |_| end, horizon).ok()?;
    let ridge = sums.solve(tried.unwrap_or(0.1)).ok()?;
    if origins.iter().any(|origin| *origin < lags) {
        return None;
    }
    Some(ridge.forecasts(rows, origins).ok()?.mapv_into(|value| scaler.inverse(value)))
}
