//! What stands beside the values as a [`TimeAxis`]: dates, years or plain numbers, to place points and to continue.
//!
//! | file | what |
//! |---|---|
//! | `label` | which forms a label may have |
//! | `form` | dates read and written in a form |
//! | `step` | the distance from one date to the next |
//! | `calendar` | times, names of months |

mod calendar;
mod form;
mod label;
mod step;

use calendar::{DAY, date_of, months_of};
pub(crate) use calendar::{iso, month};
pub use form::DateOrder;
use form::Form;
pub(crate) use form::{Dates, Reading, may_be_date, read_dates};
use step::{Step, most_frequent};

/// How the labels of a series count.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Unit {
    /// Whole numbers at their most frequent distance: years, counters.
    Number { step: i64 },
    /// Dates: microseconds since 1970-01-01.
    Date { form: Form, step: Step },
    /// Nothing to be read from the labels: the position in the series, from 0.
    Index,
}

/// The times of a series: one for each value, and those that would follow.
///
/// Understands whole numbers (`1700`), and dates with or without the time of day: `1749-01`, `19580329`, `1958-03-29`, `2010/01/01 00:00`,
/// `2021-05-01 00:00:00+00:00`, `31.12.2020`, `12/31/2020`, `Jan-1995`, `Jan 1 2000`, `01JAN1995`, `2019Q4`, `1995M01`, `2020-W05`. Dates
/// are continued by the calendar: by months (the last day of a month stays the last), weekdays, days, hours. Where only the rule of day or
/// month first is in doubt, the one that makes the dates evenly spaced holds, and with dots the day comes first. Labels of any other kind,
/// or that do not grow from row to row, count as positions 0, 1, 2, ….
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeAxis {
    unit: Unit,
    times: Vec<i64>,
}

/// Steps that are missing among the labels of a series.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeHoles {
    /// The value before each hole, and how many steps are missing after it.
    pub holes: Vec<(usize, u64)>,
    /// What the steps are: months, days, ….
    pub unit: &'static str,
    /// Whether most neighbours are one step apart, and few a broken number of steps; if not, the values are not evenly spaced at all.
    pub is_even: bool,
}

impl TimeAxis {
    /// Reads the labels of a series.
    pub fn new(labels: &[String]) -> Self {
        let texts: Vec<&str> = labels.iter().map(String::as_str).collect();
        let growing = |times: &[i64]| times.array_windows().all(|[a, b]| a < b);
        if let Reading::Dates(Dates { form, times }) = read_dates(&texts, None)
            && growing(&times)
        {
            return TimeAxis { unit: Unit::Date { step: Step::of(&times), form }, times };
        }
        if let Some(times) = numbers(&texts).filter(|times| growing(times)) {
            let steps = times.array_windows().map(|[a, b]| b - a).collect();
            return TimeAxis { unit: Unit::Number { step: most_frequent(steps).map_or(1, |(step, _)| step) }, times };
        }
        TimeAxis { unit: Unit::Index, times: (0..labels.len() as i64).collect() }
    }

    /// Whether the labels said what the time is; if not, positions count.
    pub fn is_labelled(&self) -> bool {
        self.unit != Unit::Index
    }

    /// Whether the labels are dates, so that positions are years.
    pub fn is_date(&self) -> bool {
        matches!(self.unit, Unit::Date { .. })
    }

    /// Where value `i` lies: in years for dates, else the number itself. Values past the end follow at the usual distance.
    pub fn position(&self, i: usize) -> f64 {
        let time = self.time(i);
        match self.unit {
            Unit::Number { .. } | Unit::Index => time as f64,
            Unit::Date { step: Step::Months { .. }, .. } => months_of(time) as f64 / 12.0,
            Unit::Date { .. } => {
                let date = date_of(time);
                let day = f64::from(date.day_of_year() - 1) + time.rem_euclid(DAY) as f64 / DAY as f64;
                f64::from(date.year()) + day / f64::from(date.days_in_year())
            }
        }
    }

    /// The time of value `i` in days since 1970-01-01, of dates that are days or shorter apart, or weeks.
    pub fn day(&self, i: usize) -> Option<f64> {
        match self.unit {
            Unit::Date { step: Step::Months { .. }, .. } | Unit::Number { .. } | Unit::Index => None,
            Unit::Date { .. } => Some(self.time(i) as f64 / DAY as f64),
        }
    }

    /// The label of value `i`, written as the series' own are.
    pub fn label(&self, i: usize) -> String {
        match &self.unit {
            Unit::Number { .. } | Unit::Index => self.time(i).to_string(),
            Unit::Date { form, .. } => form.write(self.time(i)),
        }
    }

    /// The steps that are missing; `None` where positions count.
    pub fn holes(&self) -> Option<TimeHoles> {
        let between = |from: i64, to: i64| match self.unit {
            Unit::Index => None,
            Unit::Number { step } => ((to - from) % step.max(1) == 0).then(|| (to - from) / step.max(1)),
            Unit::Date { step, .. } => step.between(from, to),
        };
        let unit = match self.unit {
            Unit::Index => return None,
            Unit::Number { .. } => "numbers",
            Unit::Date { step, .. } => step.unit(),
        };
        let steps: Vec<Option<i64>> = self.times.array_windows().map(|[a, b]| between(*a, *b)).collect();
        let single = steps.iter().filter(|step| **step == Some(1)).count();
        let missing = |(i, step): (usize, &Option<i64>)| {
            let count = u64::try_from(step.unwrap_or(1) - 1).unwrap_or(0);
            (count > 0).then_some((i, count))
        };
        let holes = steps.iter().enumerate().filter_map(missing).collect();
        let broken = steps.iter().filter(|step| step.is_none()).count();
        Some(TimeHoles { holes, unit, is_even: single * 2 >= steps.len() && broken * 4 <= steps.len() })
    }

    fn time(&self, i: usize) -> i64 {
        match (self.times.get(i), self.times.last()) {
            (Some(time), _) => *time,
            (None, Some(last)) => {
                let ahead = i64::try_from(i - (self.times.len() - 1)).unwrap_or(i64::MAX);
                match self.unit {
                    Unit::Date { step, .. } => step.after(*last, ahead),
                    Unit::Number { step } => last.saturating_add(step.saturating_mul(ahead)).min(1 << 53),
                    Unit::Index => last.saturating_add(ahead).min(1 << 53),
                }
            }
            (None, None) => i64::try_from(i).unwrap_or(i64::MAX).min(1 << 53),
        }
    }
}

/// Labels that are whole numbers.
pub(crate) fn numbers(labels: &[&str]) -> Option<Vec<i64>> {
    // Bounded, so that differences and further steps stay exact.
    let read = |label: &&str| label.parse().ok().filter(|v: &i64| v.unsigned_abs() < 1 << 52);
    labels.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(labels: &[&str]) -> TimeAxis {
        TimeAxis::new(&labels.iter().map(|l| (*l).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn continues_every_kind_of_label() {
        for (labels, next, position) in [
            (&["1700", "1701", "1702"][..], ["1703", "1704"], 1703.0),
            (&["1749-11", "1749-12"], ["1750-01", "1750-02"], 1750.0),
            (&["2000-11-01", "2000-12-01"], ["2001-01-01", "2001-02-01"], 2001.0),
            (&["1999/12/18", "1999/12/25"], ["2000/01/01", "2000/01/08"], 2000.0),
            (&["20000219", "20000226"], ["20000304", "20000311"], 2000.17),
            (&["2023-12-30", "2023-12-31"], ["2024-01-01", "2024-01-02"], 2024.0),
            (&["a", "b", "c"], ["3", "4"], 3.0),
            (&["", ""], ["2", "3"], 2.0),
            (&["5", "4"], ["2", "3"], 2.0),
            (&["2001-13", "2001-14"], ["2", "3"], 2.0),
            (&["1700.5", "1703.1", "1704.9"], ["3", "4"], 3.0), // numbers, no years of months
        ] {
            let axis = axis(labels);
            let n = labels.len();
            assert_eq!([axis.label(n), axis.label(n + 1)], next, "{labels:?}");
            assert!((axis.position(n) - position).abs() < 0.01, "{labels:?} {}", axis.position(n));
            if axis.is_labelled() {
                assert_eq!(axis.label(0), labels[0]);
            }
        }
    }

    #[test]
    fn hostile_labels() {
        for labels in [
            &["9223372036854775807", "1"][..],
            &["-9223372036854775808", "9223372036854775807"],
            &["日本語テキスト", "x"],
            &["0000-00-00"],
            &[],
            &["9999-12-30", "9999-12-31"],
        ] {
            let axis = axis(labels);
            for i in [0, 1, 2, usize::MAX] {
                let _ = (axis.label(i), axis.position(i));
            }
        }
    }

    #[test]
    fn the_usual_distance_ignores_holes() {
        assert_eq!(axis(&["1", "2", "3", "7", "8"]).label(5), "9");
        let days = axis(&["1999-12-31", "2000-01-01", "2000-01-02"]);
        assert_eq!((days.day(0), days.day(3)), (Some(10_956.0), Some(10_959.0)));
        assert_eq!(axis(&["1999-12-31 06:00", "1999-12-31 12:00"]).day(2), Some(10_956.75));
        assert_eq!((axis(&["1999", "2000"]).day(0), axis(&["1999-01", "1999-02"]).day(0)), (None, None));
    }

    #[test]
    fn continues_dates_by_the_calendar_and_as_they_are_written() {
        for (labels, next) in [
            (&["2011-01-31", "2011-02-28", "2011-03-31"][..], ["2011-04-30", "2011-05-31"]),
            (&["2011-03-31", "2011-06-30", "2011-09-30"], ["2011-12-31", "2012-03-31"]),
            (&["2010-12-31", "2011-12-31"], ["2012-12-31", "2013-12-31"]),
            (&["2011-01-30", "2011-02-28", "2011-03-30"], ["2011-04-30", "2011-05-30"]),
            (&["2011-04-29", "2011-05-31", "2011-06-30"], ["2011-07-29", "2011-08-31"]), // the last weekdays
            (&["2021-09-01", "2021-10-01", "2021-11-01", "2022-01-03"], ["2022-02-01", "2022-03-01"]), // the first weekdays
            (&["2024-01-19", "2024-02-16", "2024-03-15", "2024-04-19"], ["2024-05-17", "2024-06-21"]), // the third Fridays
            (&["2024-01-30", "2024-02-28", "2024-03-30", "2024-04-30"], ["2024-05-30", "2024-06-30"]), // no rule, but months
            (&["2023-02-14", "2023-03-14", "2023-04-11", "2023-05-09"], ["2023-06-06", "2023-07-04"]), // four weeks
            (&["Jan-1995", "Feb-1995"], ["Mar-1995", "Apr-1995"]),
            (&["JAN95", "FEB95"], ["MAR95", "APR95"]),
            (&["December 1999", "January 2000"], ["February 2000", "March 2000"]),
            (&["May 2000", "June 2000"], ["July 2000", "August 2000"]),
            (&["Jan-1-1995", "Feb-1-1995"], ["Mar-1-1995", "Apr-1-1995"]),
            (&["Jan 1 2000", "Feb 1 2000"], ["Mar 1 2000", "Apr 1 2000"]),
            (&["Dec 9, 2019", "Dec 10, 2019"], ["Dec 11, 2019", "Dec 12, 2019"]),
            (&["01JAN1995", "02JAN1995"], ["03JAN1995", "04JAN1995"]),
            (&["2010/01/01 00:00", "2010/01/01 01:00"], ["2010/01/01 02:00", "2010/01/01 03:00"]),
            (
                &["2021-05-01 22:00:00+00:00", "2021-05-01 23:00:00+00:00"],
                ["2021-05-02 00:00:00+00:00", "2021-05-02 01:00:00+00:00"],
            ),
            (&["2021-05-01T00:00:00Z", "2021-05-01T00:15:00Z"], ["2021-05-01T00:30:00Z", "2021-05-01T00:45:00Z"]),
            (
                &["2021-05-01 00:00:00.000", "2021-05-01 00:00:00.250"],
                ["2021-05-01 00:00:00.500", "2021-05-01 00:00:00.750"],
            ),
            (
                &["1/12/2020 11:00 PM", "1/13/2020 11:00 PM", "1/14/2020 11:00 PM"],
                ["1/15/2020 11:00 PM", "1/16/2020 11:00 PM"],
            ),
            (&["2019Q3", "2019Q4"], ["2020Q1", "2020Q2"]),
            (&["3Q19", "4Q19"], ["1Q20", "2Q20"]),
            (&["1959:3", "1959:4", "1960:1"], ["1960:2", "1960:3"]), // quarters
            (&["1959:3", "1959:4", "1959:5"], ["1959:6", "1959:7"]),
            (&["2020-1", "2020-2", "2020-3"], ["2020-4", "2020-5"]),
            (&["1949", "1949.083", "1949.167"], ["1949.25", "1949.333"]), // as R writes a ts
            (&["1949.00", "1949.25", "1949.50"], ["1949.75", "1950.00"]),
            (&["1749.11", "1749.12", "1750.01"], ["1750.02", "1750.03"]),
            (&["2020022822", "2020022823"], ["2020022900", "2020022901"]),
            (&["Fri, 28 Feb 2020", "Sat, 29 Feb 2020"], ["Sun, 01 Mar 2020", "Mon, 02 Mar 2020"]),
            (
                &["Tuesday, March 3, 2020", "Wednesday, March 4, 2020"],
                ["Thursday, March 5, 2020", "Friday, March 6, 2020"],
            ),
            (&["Q3 2019", "Q4 2019"], ["Q1 2020", "Q2 2020"]),
            (&["1995M11", "1995M12"], ["1996M01", "1996M02"]),
            (&["199411", "199412", "199501"], ["199502", "199503"]),
            (&["2020-W52", "2020-W53"], ["2021-W01", "2021-W02"]),
            (&["31.12.2019", "01.01.2020"], ["02.01.2020", "03.01.2020"]),
            (&["12/30/2019", "12/31/2019"], ["01/01/2020", "01/02/2020"]),
            (&["30/12/2019", "31/12/2019"], ["01/01/2020", "02/01/2020"]),
            // The months follow each other: the month is first, though every number could be a day.
            (&["11/1/2019", "12/1/2019", "1/1/2020"], ["2/1/2020", "3/1/2020"]),
            (&["2020-01-02", "2020-01-03", "2020-01-06"], ["2020-01-07", "2020-01-08"]), // no weekends
            (
                &["2024-05-16 16:00:00", "2024-05-17 16:00:00", "2024-05-20 16:00:00", "2024-05-24 16:00:00"],
                ["2024-05-27 16:00:00", "2024-05-28 16:00:00"],
            ),
            (
                &["2020-01-30", "2020-01-31", "2020-02-03", "2020-02-04", "2020-02-06", "2020-02-07"],
                ["2020-02-10", "2020-02-11"],
            ),
        ] {
            let axis = axis(labels);
            let n = labels.len();
            assert_eq!([axis.label(n), axis.label(n + 1)], next, "{labels:?}");
            assert!(axis.is_date(), "{labels:?}");
            assert_eq!((0..n).map(|i| axis.label(i)).collect::<Vec<_>>(), labels);
        }
        // Nothing says which is the day.
        assert!(!axis(&["01/02/2020", "02/01/2020", "03/04/2020"]).is_labelled());
    }

    #[test]
    fn summer_time_moves_no_day() {
        for (labels, next) in [
            // Closing prices: no weekends.
            (
                &["2024-03-07 00:00:00-05:00", "2024-03-08 00:00:00-05:00", "2024-03-11 00:00:00-04:00"][..],
                ["2024-03-12 00:00:00-04:00", "2024-03-13 00:00:00-04:00"],
            ),
            (
                &["2021-02-01T00:00:00+01:00", "2021-03-01T00:00:00+01:00", "2021-04-01T00:00:00+02:00"],
                ["2021-05-01T00:00:00+02:00", "2021-06-01T00:00:00+02:00"],
            ),
            // Hours are even on one clock.
            (
                &["2024-03-31T01:00:00+01:00", "2024-03-31T03:00:00+02:00", "2024-03-31T04:00:00+02:00"],
                ["2024-03-31T05:00:00+02:00", "2024-03-31T06:00:00+02:00"],
            ),
            // The same time of day twice in a night.
            (
                &["2024-10-27T02:00:00+02:00", "2024-10-27T02:00:00+01:00", "2024-10-27T03:00:00+01:00"],
                ["2024-10-27T04:00:00+01:00", "2024-10-27T05:00:00+01:00"],
            ),
        ] {
            let axis = axis(labels);
            let n = labels.len();
            assert_eq!([axis.label(n), axis.label(n + 1)], next, "{labels:?}");
            assert!(axis.holes().is_some_and(|holes| holes.holes.is_empty()), "{labels:?}");
        }
    }

    #[test]
    fn missing_steps() {
        let holes = |labels: &[&str]| axis(labels).holes().map(|holes| (holes.holes, holes.unit, holes.is_even));
        assert_eq!(holes(&["1949-01", "1949-02", "1949-05", "1949-06"]), Some((vec![(1, 2)], "months", true)));
        assert_eq!(holes(&["2020-01-02", "2020-01-03", "2020-01-06"]), Some((vec![], "weekdays", true)));
        assert_eq!(
            holes(&["2020-01-30", "2020-01-31", "2020-02-03", "2020-02-05"]),
            Some((vec![(2, 1)], "weekdays", true))
        );
        let without_may: Vec<&str> = "202001 202002 202003 202004 202006 202007 202008 202009".split(' ').collect();
        assert_eq!(holes(&without_may), Some((vec![(3, 1)], "months", true)));
        assert_eq!(holes(&["1", "2", "5"]), Some((vec![(1, 2)], "numbers", true)));
        assert_eq!(holes(&["b", "a"]), None);
    }
}
