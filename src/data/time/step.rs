//! The distance from one date to the next, in the units of the calendar.

use jiff::civil::{Date, Weekday};

use super::calendar::{DAY, date_of, latest, months_of, time_of};

/// The usual distance of neighbouring dates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// So many months, on a day of the month: 31 is the last, whatever the month.
    Months { count: i64, on: MonthDay, clock: i64 },
    /// Every day but Saturdays and Sundays.
    Weekdays,
    /// So many microseconds: days, hours, minutes.
    Even(i64),
}

/// A day of a month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MonthDay {
    /// That day, or the last of a shorter month.
    Number(i8),
    /// The first day that is neither a Saturday nor a Sunday.
    FirstWeekday,
    /// The last such day.
    LastWeekday,
    /// The third Friday, say, of months that have it.
    Nth { nth: i8, weekday: Weekday },
}

impl MonthDay {
    fn of(self, first: Date) -> Date {
        let last = first.last_of_month();
        match self {
            MonthDay::Number(day) => Date::new(last.year(), last.month(), day.min(last.day())).unwrap_or(last),
            MonthDay::FirstWeekday => {
                let mut date = first.first_of_month();
                while is_weekend(date) {
                    date = date.tomorrow().unwrap_or(last);
                }
                date
            }
            MonthDay::LastWeekday => {
                let mut date = last;
                while is_weekend(date) {
                    date = date.yesterday().unwrap_or(last);
                }
                date
            }
            MonthDay::Nth { nth, weekday } => last.nth_weekday_of_month(nth, weekday).unwrap_or(last),
        }
    }

    /// The rule that all of these dates follow; where they are a month apart and follow none, their most frequent day.
    fn of_all(dates: &[Date], steps: &[i64], is_even: bool) -> Option<Self> {
        let first = *dates.first()?;
        let highest = dates.iter().map(|date| date.day()).max().unwrap_or(1);
        let ends = dates.iter().all(|date| *date == date.last_of_month());
        let number = MonthDay::Number(if ends { 31 } else { highest });
        let nth = MonthDay::Nth { nth: (first.day() - 1) / 7 + 1, weekday: first.weekday() };
        let rules = [number, MonthDay::FirstWeekday, MonthDay::LastWeekday];
        // A few dates, and weeks, have a weekday in common by chance.
        let nth = (dates.len() > 3 && !is_even).then_some(nth);
        let follows = |on: &MonthDay| dates.iter().all(|date| on.of(*date) == *date);
        rules.into_iter().chain(nth).find(follows).or_else(|| {
            let is_regular = dates.len() > 3 && steps.array_windows().all(|[a, b]| a == b);
            let days = dates.iter().map(|date| i64::from(date.day())).collect();
            let (day, _) = most_frequent(days).filter(|_| is_regular && !is_even)?;
            Some(MonthDay::Number(i8::try_from(day).unwrap_or(31)))
        })
    }
}

fn is_weekend(date: Date) -> bool {
    matches!(date.weekday(), Weekday::Saturday | Weekday::Sunday)
}

/// Weekdays since a Monday, of a day that is one.
fn weekdays(time: i64) -> i64 {
    // 1970-01-01 was a Thursday.
    let days = time.div_euclid(DAY) + 3;
    days.div_euclid(7) * 5 + days.rem_euclid(7).min(5)
}

/// The most frequent, the least of those where it is a tie, and how often it is there.
pub(super) fn most_frequent(mut steps: Vec<i64>) -> Option<(i64, usize)> {
    steps.sort_unstable();
    steps
        .chunk_by(|a, b| a == b)
        .filter_map(|run| Some((*run.first()?, run.len())))
        .max_by_key(|(step, count)| (*count, std::cmp::Reverse(*step)))
}

fn differences(of: impl Iterator<Item = i64>) -> Vec<i64> {
    let of: Vec<i64> = of.collect();
    of.array_windows().map(|[a, b]| b - a).collect()
}

impl Step {
    /// The usual distance of times that grow.
    pub fn of(times: &[i64]) -> Self {
        let Some(first) = times.first() else { return Step::Even(DAY) };
        let even = most_frequent(differences(times.iter().copied())).map_or(DAY, |(step, _)| step);
        let months = differences(times.iter().map(|time| months_of(*time)));
        let clock = first.rem_euclid(DAY);
        let same_clock = times.iter().all(|time| time.rem_euclid(DAY) == clock);
        if !same_clock || times.len() < 2 {
            return Step::Even(even);
        }
        let dates: Vec<Date> = times.iter().map(|time| date_of(*time)).collect();
        if months.iter().all(|step| *step >= 1) {
            let is_even = differences(times.iter().copied()).iter().all(|step| *step == even);
            let on = MonthDay::of_all(&dates, &months, is_even);
            if let (Some(on), Some((count, _))) = (on, most_frequent(months)) {
                return Step::Months { count, on, clock };
            }
        }
        let over_weekend = |[a, b]: &[Date; 2]| a.weekday() == Weekday::Friday && b.weekday() == Weekday::Monday;
        if even == DAY && !dates.iter().any(|date| is_weekend(*date)) && dates.array_windows().any(over_weekend) {
            return Step::Weekdays;
        }
        Step::Even(even)
    }

    /// The time `ahead` steps after another; no later than the calendar goes.
    pub fn after(self, last: i64, ahead: i64) -> i64 {
        match self {
            Step::Even(step) => last.saturating_add(step.saturating_mul(ahead)).min(latest()),
            Step::Months { count, on, clock } => {
                let month = months_of(last).saturating_add(count.saturating_mul(ahead));
                let first = i16::try_from(month.div_euclid(12))
                    .and_then(|year| Ok((year, i8::try_from(month.rem_euclid(12) + 1)?)))
                    .ok()
                    .and_then(|(year, month)| Date::new(year, month, 1).ok());
                first.map_or(latest(), |first| time_of(on.of(first)) + clock)
            }
            Step::Weekdays => {
                let number = weekdays(last).saturating_add(ahead);
                let days = number.div_euclid(5).saturating_mul(7).saturating_add(number.rem_euclid(5) - 3);
                days.saturating_mul(DAY).saturating_add(last.rem_euclid(DAY)).min(latest())
            }
        }
    }

    /// How many steps lie between two times; `None` where it is no whole number of them.
    pub fn between(self, from: i64, to: i64) -> Option<i64> {
        let (distance, step) = match self {
            Step::Even(step) => (to - from, step),
            Step::Months { count, .. } => (months_of(to) - months_of(from), count),
            Step::Weekdays => (weekdays(to) - weekdays(from), 1),
        };
        (step > 0 && distance % step == 0).then(|| distance / step)
    }

    /// What it counts, for several of them.
    pub fn unit(self) -> &'static str {
        match self {
            Step::Months { count: 1, .. } => "months",
            Step::Months { count: 3, .. } => "quarters",
            Step::Months { count: 12, .. } => "years",
            Step::Weekdays => "weekdays",
            Step::Even(DAY) => "days",
            Step::Even(step) if step == 7 * DAY => "weeks",
            Step::Even(step) if step == DAY / 24 => "hours",
            _ => "steps",
        }
    }
}
