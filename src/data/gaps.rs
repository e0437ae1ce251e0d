//! What to do about missing values: [`Gaps`].

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::data::Series;
use crate::error::{Error, Result};

/// What to do about missing values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Gaps {
    /// Refuse a series that has any.
    #[default]
    Error,
    /// Leave the rows out; the values on either side become neighbours.
    Drop,
    /// A straight line between the values on either side; at the ends, the nearest value. Reads the value after the gap, which a
    /// forecaster at that time would not have known.
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
    /// each other.
    ///
    /// # Errors
    ///
    /// [`Error::Data`] where there are gaps and the policy is [`Gaps::Error`], or where there is no value at all.
    pub fn close(self, series: &Series) -> Result<Complete> {
        let fail = |line, problem| Error::Data { source_name: series.source_name.clone(), line, problem };
        let Some(first) = series.values.iter().position(Option::is_some) else {
            return Err(fail(None, format!("column {} has no values", series.name)));
        };
        let missing = series.values.iter().filter(|v| v.is_none()).count();
        if self == Gaps::Error && missing > 0 {
            let line = series.values.iter().zip(&series.lines).find(|(v, _)| v.is_none()).map(|(_, line)| *line);
            let (values, are) = if missing == 1 { ("value", "is") } else { ("values", "are") };
            let problem = format!(
                "column {}: {missing} {values} of {} {are} missing, the first here; close gaps with drop, interpolate or forward-fill",
                series.name,
                series.values.len()
            );
            return Err(fail(line, problem));
        }
        let mut complete = Complete { values: Vec::new(), labels: Vec::new(), filled: missing };
        let mut last = first;
        for (i, value) in series.values.iter().enumerate() {
            let known = |i: usize| series.values[i].unwrap_or_default();
            let value = match (*value, self) {
                (Some(value), _) => {
                    last = i;
                    value
                }
                (None, Gaps::Drop | Gaps::Error) => continue,
                (None, Gaps::ForwardFill) if i < first => continue,
                (None, Gaps::ForwardFill) => known(last),
                (None, Gaps::Interpolate) => match series.values[i..].iter().position(Option::is_some) {
                    Some(ahead) if i > first => {
                        let next = i + ahead;
                        let fraction = (i - last) as f64 / (next - last) as f64;
                        known(last) * (1.0 - fraction) + known(next) * fraction
                    }
                    Some(_) => known(first),
                    None => known(last),
                },
            };
            complete.values.push(value);
            complete.labels.push(series.labels[i].clone());
        }
        Ok(complete)
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
        assert_eq!(close(Gaps::Interpolate).unwrap(), (vec![1.0, 1.0, 2.0, 3.0, 4.0, 4.0], "012345".to_owned()));
        assert_eq!(close(Gaps::ForwardFill).unwrap(), (vec![1.0, 1.0, 1.0, 4.0, 4.0], "12345".to_owned()));
        let message = close(Gaps::Error).unwrap_err().to_string();
        assert!(message.contains("line 2") && message.contains("4 values of 6 are missing"), "{message}");
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
