//! What dates say of a value before it is there: [`CalendarFeature`].

use serde::{Deserialize, Serialize};

/// A number that is made of a date.
///
/// The days of the week but Monday are 1 on their day and 0 on others. The rest are the first two harmonics of the year of 365.2425 days
/// ([Hyndman and Athanasopoulos 2021](https://otexts.com/fpp3/useful-predictors.html)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "their names say it")]
pub enum CalendarFeature {
    Tuesday,
    Wednesday,
    Thursday,
    Friday,
    Saturday,
    Sunday,
    YearSine,
    YearCosine,
    HalfYearSine,
    HalfYearCosine,
}

impl CalendarFeature {
    /// Those of the week.
    pub const WEEK: [CalendarFeature; 6] = [
        CalendarFeature::Tuesday,
        CalendarFeature::Wednesday,
        CalendarFeature::Thursday,
        CalendarFeature::Friday,
        CalendarFeature::Saturday,
        CalendarFeature::Sunday,
    ];

    /// Those of the year.
    pub const YEAR: [CalendarFeature; 4] = [
        CalendarFeature::YearSine,
        CalendarFeature::YearCosine,
        CalendarFeature::HalfYearSine,
        CalendarFeature::HalfYearCosine,
    ];

    /// Its name in sentences.
    pub fn name(self) -> &'static str {
        match self {
            CalendarFeature::Tuesday => "Tuesday",
            CalendarFeature::Wednesday => "Wednesday",
            CalendarFeature::Thursday => "Thursday",
            CalendarFeature::Friday => "Friday",
            CalendarFeature::Saturday => "Saturday",
            CalendarFeature::Sunday => "Sunday",
            CalendarFeature::YearSine => "sine of the year",
            CalendarFeature::YearCosine => "cosine of the year",
            CalendarFeature::HalfYearSine => "sine of the half year",
            CalendarFeature::HalfYearCosine => "cosine of the half year",
        }
    }

    /// Its value at a time, in days since 1970-01-01, a Thursday.
    pub fn value(self, day: f64) -> f64 {
        let year = std::f64::consts::TAU * day / 365.2425;
        match self {
            CalendarFeature::YearSine => year.sin(),
            CalendarFeature::YearCosine => year.cos(),
            CalendarFeature::HalfYearSine => (2.0 * year).sin(),
            CalendarFeature::HalfYearCosine => (2.0 * year).cos(),
            of_week => {
                let weekday = (day.floor() + 3.0).rem_euclid(7.0);
                let own = Self::WEEK.iter().position(|feature| *feature == of_week).map_or(0.0, |i| (i + 1) as f64);
                f64::from(u8::from(weekday == own))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_of_the_week_and_the_year() {
        // 1970-01-01, 2000-02-29 (a Tuesday), 1958-03-29 (a Saturday), and the evening of that.
        for (day, name) in [(0.0, "Thursday"), (11_016.0, "Tuesday"), (-4296.0, "Saturday"), (-4295.2, "Saturday")] {
            let on: Vec<&str> =
                CalendarFeature::WEEK.into_iter().filter(|f| f.value(day) == 1.0).map(CalendarFeature::name).collect();
            assert_eq!(on, [name], "{day}");
        }
        // 1970-01-05 is a Monday.
        assert!(CalendarFeature::WEEK.into_iter().all(|feature| feature.value(4.0) == 0.0));
        for feature in CalendarFeature::YEAR {
            assert!((feature.value(100.0) - feature.value(100.0 + 365.2425)).abs() < 1e-9);
        }
        assert!((CalendarFeature::YearSine.value(365.2425 / 4.0) - 1.0).abs() < 1e-12);
    }
}
