//! What stands beside the values as a [`TimeAxis`]: years, months, days or plain numbers, to place points and to continue.

/// How the labels of a series count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    /// Whole numbers: years, counters.
    Number,
    /// `year * 12 + month - 1`, on the same day of the month where there is one.
    Month { day: Option<u8>, separator: Option<char> },
    /// Days since 1970-01-01.
    Day { separator: Option<char> },
    /// Nothing to be read from the labels: the position in the series, from 0.
    Index,
}

/// The times of a series: one for each value, and those that would follow.
///
/// Understands whole numbers (`1700`), months (`1749-01`) and days (`19580329`, `1958-03-29`, with `-` or `/`); labels of any
/// other kind, or that do not grow from row to row, count as positions 0, 1, 2, ….
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimeAxis {
    unit: Unit,
    times: Vec<i64>,
    /// The most frequent distance of neighbours.
    step: i64,
}

impl TimeAxis {
    /// Reads the labels of a series.
    pub fn new(labels: &[String]) -> Self {
        let read = days(labels).or_else(|| months(labels)).or_else(|| numbers(labels));
        let growing = read.filter(|(_, times)| times.windows(2).all(|pair| pair[0] < pair[1]));
        let (unit, times) = growing.unwrap_or_else(|| (Unit::Index, (0..labels.len() as i64).collect()));
        let mut steps: Vec<i64> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
        steps.sort_unstable();
        let runs = steps.chunk_by(|a, b| a == b);
        let step = runs.max_by_key(|run| run.len()).map_or(1, |run| run[0]);
        TimeAxis { unit, times, step }
    }

    /// Whether the labels said what the time is; if not, positions count.
    pub fn is_labelled(&self) -> bool {
        self.unit != Unit::Index
    }

    /// Whether the labels are dates, so that positions are years.
    pub fn is_date(&self) -> bool {
        matches!(self.unit, Unit::Month { .. } | Unit::Day { .. })
    }

    /// Where value `i` lies: in years for dates, else the number itself. Values past the end follow at the usual distance.
    pub fn position(&self, i: usize) -> f64 {
        let time = self.time(i);
        match self.unit {
            Unit::Number | Unit::Index => time as f64,
            Unit::Month { .. } => time as f64 / 12.0,
            Unit::Day { .. } => 1970.0 + time as f64 / 365.2425,
        }
    }

    /// The time of value `i` in days since 1970-01-01, where there is one for each day.
    pub fn day(&self, i: usize) -> Option<f64> {
        matches!(self.unit, Unit::Day { .. }).then(|| self.time(i) as f64)
    }

    /// The label of value `i`, written as the series' own are.
    pub fn label(&self, i: usize) -> String {
        let time = self.time(i);
        let date = |year: i64, month: i64, day: Option<i64>, separator: Option<char>| {
            let separator = separator.map(String::from).unwrap_or_default();
            let day = day.map(|d| format!("{separator}{d:02}")).unwrap_or_default();
            format!("{year:04}{separator}{month:02}{day}")
        };
        match self.unit {
            Unit::Number | Unit::Index => time.to_string(),
            Unit::Month { day, separator } => {
                date(time.div_euclid(12), time.rem_euclid(12) + 1, day.map(i64::from), separator)
            }
            Unit::Day { separator } => {
                let (year, month, day) = civil(time);
                date(year, month, Some(day), separator)
            }
        }
    }

    fn time(&self, i: usize) -> i64 {
        match (self.times.get(i), self.times.last()) {
            (Some(time), _) => *time,
            (None, Some(last)) => {
                let ahead = i64::try_from(i - (self.times.len() - 1)).unwrap_or(i64::MAX);
                last.saturating_add(self.step.saturating_mul(ahead)).min(1 << 53)
            }
            (None, None) => i64::try_from(i).unwrap_or(i64::MAX).min(1 << 53),
        }
    }
}

fn numbers(labels: &[String]) -> Option<(Unit, Vec<i64>)> {
    // Bounded, so that differences and further steps stay exact.
    let read = |label: &String| label.parse().ok().filter(|v: &i64| v.unsigned_abs() < 1 << 52);
    Some((Unit::Number, labels.iter().map(read).collect::<Option<_>>()?))
}

fn months(labels: &[String]) -> Option<(Unit, Vec<i64>)> {
    let separator = separator(labels.first()?)?;
    let read = |label: &String| {
        let (year, month) = label.split_once(separator)?;
        let month = digits(month).filter(|m| month.len() <= 2 && (1..=12).contains(m))?;
        Some(digits(year).filter(|_| year.len() == 4)? * 12 + month - 1)
    };
    Some((Unit::Month { day: None, separator: Some(separator) }, labels.iter().map(read).collect::<Option<_>>()?))
}

fn days(labels: &[String]) -> Option<(Unit, Vec<i64>)> {
    let separator = separator(labels.first()?);
    let read = |label: &String| {
        let (year, month, day) = match separator {
            Some(separator) => {
                let mut parts = label.split(separator);
                let date = (parts.next()?, parts.next()?, parts.next()?);
                parts.next().is_none().then_some(date)?
            }
            None if label.len() == 8 && label.is_ascii() => (&label[..4], &label[4..6], &label[6..]),
            None => return None,
        };
        let date = (digits(year).filter(|_| year.len() == 4)?, digits(month)?, digits(day)?);
        let number = days_since_1970(date.0, date.1, date.2);
        (civil(number) == date).then_some((date, number))
    };
    let dates = labels.iter().map(read).collect::<Option<Vec<_>>>()?;
    let same_day = dates.windows(2).all(|pair| pair[0].0.2 == pair[1].0.2);
    if same_day && dates.len() > 1 {
        let day = u8::try_from(dates[0].0.2).ok()?;
        let times = dates.iter().map(|((year, month, _), _)| year * 12 + month - 1).collect();
        return (day <= 28).then_some((Unit::Month { day: Some(day), separator }, times));
    }
    Some((Unit::Day { separator }, dates.iter().map(|(_, number)| *number).collect()))
}

fn separator(label: &str) -> Option<char> {
    label.chars().nth(4).filter(|c| ['-', '/'].contains(c))
}

fn digits(text: &str) -> Option<i64> {
    (!text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar
/// ([Hinnant, `days_from_civil`](https://howardhinnant.github.io/date_algorithms.html)).
fn days_since_1970(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year - era * 400;
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

/// The inverse: year, month, day.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days - era * 146_097;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day_of_year - (153 * shifted + 2) / 5 + 1)
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
        assert_eq!(axis(&["1999", "2000"]).day(0), None);
    }

    #[test]
    fn calendar_round_trip() {
        for days in (-1_000_000..1_000_000).step_by(61) {
            let (year, month, day) = civil(days);
            assert_eq!(days_since_1970(year, month, day), days);
        }
        assert_eq!(days_since_1970(1958, 3, 29), -4296);
    }
}
