//! What to do about missing values: [`Gaps`].

use std::fmt;
use std::str::FromStr;

use ndarray::Array2;
use serde::{Deserialize, Serialize};

use crate::data::Series;
use crate::error::{Error, Result};
use crate::memory;

/// What to do about missing values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gaps {
    /// Refuse a series that has any.
    #[default]
    Error,
    /// Leave the rows out; the values on either side become neighbours.
    Drop,
    /// A straight line between the values on either side; before the first value, that one. Rows after the last value are left out. Reads
    /// the value after the gap, which a forecaster at that time would not have known.
    Interpolate,
    /// The last value before the gap; rows before the first value are left out.
    ForwardFill,
}

impl Gaps {
    /// All policies.
    pub const ALL: [Gaps; 4] = [Gaps::Error, Gaps::Drop, Gaps::Interpolate, Gaps::ForwardFill];

    /// The name on the command line and in files.
    pub fn name(self) -> &'static str {
        match self {
            Gaps::Error => "error",
            Gaps::Drop => "drop",
            Gaps::Interpolate => "interpolate",
            Gaps::ForwardFill => "forward-fill",
        }
    }

    /// Closes the gaps of `series`: afterwards every value is there, and [`values`](Complete::values) and labels are as long as
    /// each other. Rows after the last value are no gap, for what stands there is still to come: every policy leaves them out.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] where there are gaps and the policy is [`Gaps::Error`], or where there is no value at all.
    pub fn close(self, series: &Series) -> Result<Complete> {
        let end = series.values.iter().rposition(Option::is_some).map_or(0, |last| last + 1);
        let known = series.values.get(..end).unwrap_or(&series.values);
        let (first, filled) = self.check(series, known)?;
        let closed = self.fill(known, first);
        let rows =
            closed.iter().zip(&series.labels).filter_map(|(value, label)| value.map(|value| (value, label.clone())));
        let (values, labels) = rows.unzip();
        Ok(Complete { values, labels, filled })
    }

    /// Where the first of some values of a series is, and how many are missing.
    fn check(self, series: &Series, values: &[Option<f64>]) -> Result<(usize, usize)> {
        let fail = |line, problem| Error::Data { source_name: series.source_name.clone(), line, problem };
        let Some(first) = values.iter().position(Option::is_some) else {
            return Err(fail(None, format!("column {} has no values", series.name)));
        };
        let missing = values.iter().filter(|v| v.is_none()).count();
        if self == Gaps::Error && missing > 0 {
            let line = values.iter().zip(&series.lines).find(|(v, _)| v.is_none()).map(|(_, line)| *line);
            let (found, are) = if missing == 1 { ("value", "is") } else { ("values", "are") };
            let at_end = values.iter().rev().take(missing).all(Option::is_none);
            let place = if at_end { "at the end, from here on" } else { "the first here" };
            let problem = format!(
                "column {}: {missing} {found} of {} {are} missing, {place}; close gaps with --gaps drop, interpolate or forward-fill",
                series.name,
                series.values.len()
            );
            return Err(fail(line, problem));
        }
        Ok((first, missing))
    }

    /// Closes the gaps of several columns of one table; a row that the policy leaves out in one column is left out in all. No column's
    /// rows come to an end of their own here: what is missing after the last value of one is a gap, which [`Gaps::Interpolate`] leaves out.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] for the first column that has gaps where the policy is [`Gaps::Error`], or no value at all, and where no row is
    /// left; [`Error::ZeroSize`] without columns; [`Error::Shape`] where columns are not equally long.
    pub fn close_columns(self, columns: &[Series]) -> Result<CompleteColumns> {
        let Some(leading) = columns.first() else {
            return Err(Error::ZeroSize { name: "number of columns" });
        };
        let rows = leading.values.len();
        let mut filled = 0;
        let mut closed = Vec::with_capacity(columns.len());
        for column in columns {
            if column.values.len() != rows {
                return Err(Error::shape(
                    format!("column {}", column.name),
                    format!("{rows} values, as column {} has", leading.name),
                    format!("{} values", column.values.len()),
                ));
            }
            let (first, missing) = self.check(column, &column.values)?;
            filled += missing;
            closed.push(self.fill(&column.values, first));
        }
        let value =
            |column: usize, row: usize| closed.get(column).and_then(|column| column.get(row).copied().flatten());
        let kept: Vec<usize> =
            (0..rows).filter(|&row| (0..columns.len()).all(|column| value(column, row).is_some())).collect();
        if kept.is_empty() {
            let problem = format!("no row has a value in each of the {} columns; choose other columns", columns.len());
            return Err(Error::Data { source_name: leading.source_name.clone(), line: None, problem });
        }
        Ok(CompleteColumns {
            names: columns.iter().map(|column| column.name.clone()).collect(),
            values: memory::array_from("values of columns", (kept.len(), columns.len()), |(row, column)| {
                kept.get(row).and_then(|row| value(column, *row)).unwrap_or_default()
            })?,
            labels: kept.iter().map(|&row| leading.labels.get(row).cloned().unwrap_or_default()).collect(),
            rows: kept,
            filled,
        })
    }

    /// The values with the gaps closed; `None` is a row to leave out. The first value is at `first`.
    fn fill(self, values: &[Option<f64>], first: usize) -> Vec<Option<f64>> {
        let known = |i: usize| values.get(i).copied().flatten().unwrap_or_default();
        let mut last = first;
        let mut next = first;
        let close = |(i, value): (usize, &Option<f64>)| {
            if value.is_some() {
                last = i;
                return *value;
            }
            match self {
                Gaps::Drop | Gaps::Error => None,
                Gaps::ForwardFill => (i > first).then(|| known(last)),
                Gaps::Interpolate if i < first => Some(known(first)),
                Gaps::Interpolate => {
                    // Looked for once a gap, so that a long one takes no longer than its length.
                    if next < i {
                        let ahead = values.iter().skip(i).position(Option::is_some);
                        next = ahead.map_or(values.len(), |ahead| i + ahead);
                    }
                    // There is nothing to draw a line to.
                    if next == values.len() {
                        return None;
                    }
                    let fraction = (i - last) as f64 / (next - last) as f64;
                    Some(known(last) * (1.0 - fraction) + known(next) * fraction)
                }
            }
        };
        values.iter().enumerate().map(close).collect()
    }
}

/// A series without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct Complete {
    /// The values in time order, all finite.
    pub values: Vec<f64>,
    /// What stood beside each value.
    pub labels: Vec<String>,
    /// How many values were missing.
    pub filled: usize,
}

/// Columns of one table without gaps.
#[derive(Clone, Debug, PartialEq)]
pub struct CompleteColumns {
    /// The columns' names.
    pub names: Vec<String>,
    /// The values in time order, all finite: `[rows, columns]`.
    pub values: Array2<f64>,
    /// What stood beside each row.
    pub labels: Vec<String>,
    /// Which row of the table each is, counted from 0; those left out are not among them.
    pub rows: Vec<usize>,
    /// How many values were missing.
    pub filled: usize,
}

impl fmt::Display for Gaps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Gaps {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Gaps::ALL
            .into_iter()
            .find(|g| g.name() == s)
            .ok_or_else(|| Error::option("gaps", "error, drop, interpolate or forward-fill", s))
    }
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    fn series(values: &[Option<f64>]) -> Series {
        Series {
            name: "v".to_owned(),
            values: values.to_vec(),
            labels: (0..values.len()).map(|i| i.to_string()).collect(),
            label_name: None,
            lines: (2..).take(values.len()).collect(),
            source_name: "test.csv".to_owned(),
        }
    }

    #[test]
    fn each_policy() {
        let with_gaps = series(&[None, Some(1.0), None, None, Some(4.0), None]);
        let close = |gaps: Gaps| gaps.close(&with_gaps).map(|c| (c.values, c.labels.join("")));
        assert_eq!(close(Gaps::Drop).unwrap(), (vec![1.0, 4.0], "14".to_owned()));
        assert_eq!(close(Gaps::Interpolate).unwrap(), (vec![1.0, 1.0, 2.0, 3.0, 4.0], "01234".to_owned()));
        assert_eq!(close(Gaps::ForwardFill).unwrap(), (vec![1.0, 1.0, 1.0, 4.0], "1234".to_owned()));
        let message = close(Gaps::Error).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("3 values of 6 are missing"), "{message}");
    }

    /// What is not there yet is no gap.
    #[test]
    fn rows_after_the_last_value_are_left_out() {
        let open = series(&[Some(1.0), Some(2.0), None, None]);
        for gaps in Gaps::ALL {
            let closed = gaps.close(&open).unwrap();
            assert_eq!((closed.values, closed.labels.join(""), closed.filled), (vec![1.0, 2.0], "01".to_owned(), 0));
        }
        let message = Gaps::Error.close_columns(&[series(&[Some(1.0); 4]), open]).unwrap_err().to_string();
        assert!(message.contains("2 values of 4 are missing, at the end, from here on"), "{message}");
    }

    /// The fields of a series are anyone's.
    #[test]
    fn labels_may_be_missing() {
        let whole = series(&[Some(1.0), None, Some(3.0)]);
        let bare = Series { labels: vec!["a".to_owned()], lines: Vec::new(), ..whole.clone() };
        for gaps in Gaps::ALL {
            let (_, _) = (gaps.close(&bare), gaps.close_columns(&[bare.clone(), whole.clone()]));
        }
        let closed = Gaps::Interpolate.close_columns(&[bare, whole]).unwrap();
        assert_eq!(closed.labels, ["a", "", ""]);
    }

    #[test]
    fn rows_left_out_are_left_out_of_all_columns() {
        let a = series(&[None, Some(1.0), None, Some(3.0), Some(4.0)]);
        let b = series(&[Some(10.0), Some(20.0), Some(30.0), Some(40.0), None]);
        let close = |gaps: Gaps| gaps.close_columns(&[a.clone(), b.clone()]);
        let dropped = close(Gaps::Drop).unwrap();
        assert_eq!((dropped.values, dropped.labels.join("")), (array![[1.0, 20.0], [3.0, 40.0]], "13".to_owned()));
        assert_eq!((dropped.names.join(" "), dropped.filled), ("v v".to_owned(), 3));
        let filled = close(Gaps::ForwardFill).unwrap();
        assert_eq!(filled.values, array![[1.0, 20.0], [1.0, 30.0], [3.0, 40.0], [4.0, 40.0]]);
        assert_eq!(filled.labels.join(""), "1234");
        let between = close(Gaps::Interpolate).unwrap().values;
        assert_eq!(between, array![[1.0, 10.0], [1.0, 20.0], [2.0, 30.0], [3.0, 40.0]]);
        assert!(close(Gaps::Error).unwrap_err().to_string().contains("column v: 2 values of 5 are missing"));
        let apart = [series(&[Some(1.0), None]), series(&[None, Some(1.0)])];
        assert!(Gaps::Drop.close_columns(&apart).unwrap_err().to_string().contains("no row has a value in each"));
        assert!(matches!(Gaps::Drop.close_columns(&[a, series(&[Some(1.0)])]), Err(Error::Shape { .. })));
        assert!(matches!(Gaps::Drop.close_columns(&[]), Err(Error::ZeroSize { .. })));
    }

    #[test]
    fn no_gaps_and_no_values() {
        for gaps in Gaps::ALL {
            assert_eq!(gaps.close(&series(&[Some(1.0), Some(2.0)])).unwrap().values, [1.0, 2.0]);
            assert!(matches!(gaps.close(&series(&[None, None])), Err(Error::Data { .. })));
            assert_eq!(gaps.name().parse::<Gaps>().unwrap(), gaps);
        }
        assert!("fill".parse::<Gaps>().is_err());
    }
}
