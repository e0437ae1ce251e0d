//! Which features of the calendar say something of a series that its season does not, and their columns.

use fused_rnn::data::{Scaler, TimeAxis};
use fused_rnn::forecast::CalendarFeature;
use fused_rnn::model::{Known, KnownColumn};
use fused_rnn::{Error, Result};
use ndarray::{Array2, Axis, concatenate};

/// Values a year from which on the time of the year is a feature: weeks and shorter steps.
const WEEKS: f64 = 45.0;
/// Values a year from which on the day of the week is one: weekdays and shorter steps.
const DAYS: f64 = 250.0;

/// The days of the week and the time of the year, where there is a value for each week, or each day, of which the season of so many values
/// tells nothing, and two weeks or years of it: what came once repeats nothing.
pub fn features(axis: &TimeAxis, season: usize, count: usize) -> Vec<KnownColumn> {
    if axis.day(0).is_none() || count < 3 {
        return Vec::new();
    }
    let years = axis.position(count - 1) - axis.position(0);
    let in_a_year = (count - 1) as f64 / years;
    let is_season = |values: f64| (season as f64 / values - 1.0).abs() < 0.1;
    let mut features = Vec::new();
    let weeks = years * 52.18;
    if in_a_year >= DAYS && weeks >= 2.0 && !is_season(in_a_year / 52.18) {
        features.extend(CalendarFeature::WEEK);
    }
    if in_a_year >= WEEKS && years >= 2.0 && !is_season(in_a_year) {
        features.extend(CalendarFeature::YEAR);
    }
    let column = |feature| KnownColumn { source: Known::Calendar(feature), scaler: Scaler::IDENTITY };
    features.into_iter().map(column).collect()
}

/// The columns of the features among `known` from row `start` on: `[rows, features]`.
fn columns(known: &[KnownColumn], axis: &TimeAxis, start: usize, rows: usize) -> Result<Array2<f64>> {
    let features: Vec<CalendarFeature> = known
        .iter()
        .filter_map(|known| match &known.source {
            Known::Calendar(feature) => Some(*feature),
            Known::Column(_) => None,
        })
        .collect();
    if !features.is_empty() && axis.day(start).is_none() {
        return Err(Error::Unsupported {
            what: "days of the week and the time of the year, which the model reads".to_owned(),
            why: "beside the values stand no dates of days; train without them, with --calendar off".to_owned(),
        });
    }
    let mut values = Array2::zeros((rows, features.len()));
    for (mut row, i) in values.outer_iter_mut().zip(start..) {
        let day = axis.day(i).unwrap_or(0.0);
        row.iter_mut().zip(&features).for_each(|(value, feature)| *value = feature.value(day));
    }
    Ok(values)
}

/// Rows from row `start` on with the columns of the features among `known` after their own.
pub fn beside(rows: &Array2<f64>, known: &[KnownColumn], axis: &TimeAxis, start: usize) -> Result<Array2<f64>> {
    let of_calendar = columns(known, axis, start, rows.nrows())?;
    concatenate(Axis(1), &[rows.view(), of_calendar.view()]).map_err(|e| Error::Shape {
        tensor: "columns of the calendar".to_owned(),
        expected: format!("{} rows", rows.nrows()),
        got: e.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_season_does_not_say() {
        let days = |count: usize| -> Vec<String> {
            (0..count).map(|t| format!("{}-{:02}-{:02}", 2000 + t / 336, t / 28 % 12 + 1, t % 28 + 1)).collect()
        };
        let names = |axis: &TimeAxis, season: usize, count: usize| -> Vec<String> {
            features(axis, season, count).iter().map(|known| known.source.name().to_owned()).collect()
        };
        let axis = TimeAxis::new(&days(1000));
        assert_eq!(names(&axis, 7, 1000).len(), 4);
        assert_eq!(names(&axis, 7, 300), [""; 0], "not two years");
        assert_eq!(names(&axis, 30, 1000).len(), 10);
        assert_eq!(names(&axis, 1, 300)[0], "Tuesday");
        let hours: Vec<String> = (0..400).map(|t| format!("2000-01-{:02} {:02}:00", 1 + t / 24, t % 24)).collect();
        assert_eq!(names(&TimeAxis::new(&hours[..289]), 24, 289), [""; 0], "not two weeks");
        assert_eq!(names(&TimeAxis::new(&hours), 24, 400).len(), 6);
        let months = TimeAxis::new(&["2000-01", "2000-02", "2000-03"].map(str::to_owned));
        assert!(features(&months, 1, 3).is_empty());
        let rows = beside(&Array2::zeros((2, 1)), &features(&axis, 7, 1000), &axis, 4).unwrap();
        assert_eq!(rows.dim(), (2, 5));
        assert!(beside(&Array2::zeros((2, 1)), &features(&axis, 7, 1000), &months, 0).is_err());
    }
}
