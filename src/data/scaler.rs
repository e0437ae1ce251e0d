//! Scaling values to a range that networks learn well in: [`Scaler`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// `scaled = (value - offset) / scale`, with offset and scale fitted to the part of the data that a model may see.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Scaler {
    offset: f64,
    scale: f64,
}

impl Scaler {
    /// Changes nothing.
    pub const IDENTITY: Scaler = Scaler { offset: 0.0, scale: 1.0 };

    /// Maps the smallest of `values` to 0 and the largest to 1, as scikit-learn's
    /// [`MinMaxScaler`](https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.MinMaxScaler.html).
    /// Equal values all map to 0.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without values, [`Error::NonFinite`] where a value or their range is not finite.
    pub fn min_max(values: &[f64]) -> Result<Self> {
        check(values)?;
        let (min, max) =
            values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(min, max), v| (min.min(*v), max.max(*v)));
        Self::new(min, max - min)
    }

    /// Maps `values` to mean 0 and standard deviation 1 (that of the population, divided by `n`), as scikit-learn's
    /// [`StandardScaler`](https://scikit-learn.org/stable/modules/generated/sklearn.preprocessing.StandardScaler.html).
    /// Equal values all map to 0.
    ///
    /// # Errors
    ///
    /// Those of [`min_max`](Self::min_max).
    pub fn standard(values: &[f64]) -> Result<Self> {
        check(values)?;
        let n = values.len() as f64;
        let mean = values.iter().sum::<f64>() / n;
        let variance = values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n;
        Self::new(mean, variance.sqrt())
    }

    fn new(offset: f64, scale: f64) -> Result<Self> {
        let scaler = Scaler { offset, scale: if scale == 0.0 { 1.0 } else { scale } };
        scaler.validate()?;
        Ok(scaler)
    }

    /// Checks a scaler that was read from a file.
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] where offset or scale is not finite, [`Error::InvalidOption`] where the scale is not above zero.
    pub fn validate(&self) -> Result<()> {
        for (position, got) in [("offset", self.offset), ("scale", self.scale)] {
            if !got.is_finite() {
                let help = "rescale the data to magnitudes that a double can square".to_owned();
                return Err(Error::NonFinite { tensor: "scaler".to_owned(), got, position: position.to_owned(), help });
            }
        }
        if self.scale <= 0.0 {
            return Err(Error::option("scaler.scale", "a number above zero", self.scale));
        }
        Ok(())
    }

    /// The scaled value.
    pub fn transform(&self, value: f64) -> f64 {
        (value - self.offset) / self.scale
    }

    /// The value that was scaled.
    pub fn inverse(&self, scaled: f64) -> f64 {
        scaled * self.scale + self.offset
    }
}

fn check(values: &[f64]) -> Result<()> {
    if values.is_empty() {
        return Err(Error::ZeroSize { name: "number of values to fit a scaler to" });
    }
    match values.iter().position(|v| !v.is_finite()) {
        None => Ok(()),
        Some(i) => Err(Error::NonFinite {
            tensor: "values".to_owned(),
            got: values[i],
            position: format!("position {i}"),
            help: "close gaps first; where differences of values overflow, rescale the data".to_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn min_max_is_scikit_learns() {
        let values = [-1.0, -0.5, 0.0, 1.0];
        let scaler = Scaler::min_max(&values).unwrap();
        assert_eq!(values.map(|v| scaler.transform(v)), [0.0, 0.25, 0.5, 1.0]);
        assert_eq!(scaler.transform(2.0), 1.5);
    }

    #[test]
    fn standard_is_scikit_learns() {
        let values = [0.0, 0.0, 1.0, 1.0];
        let scaler = Scaler::standard(&values).unwrap();
        assert_eq!(values.map(|v| scaler.transform(v)), [-1.0, -1.0, 1.0, 1.0]);
        assert_eq!(scaler.transform(2.0), 3.0);
    }

    #[test]
    fn inverse_undoes_transform() {
        let values = [316.1, 317.3, 400.25, 290.0];
        for scaler in [Scaler::min_max(&values).unwrap(), Scaler::standard(&values).unwrap(), Scaler::IDENTITY] {
            for v in values {
                assert!((scaler.inverse(scaler.transform(v)) - v).abs() < 1e-12);
            }
        }
    }

    #[test]
    fn constant_values_and_bad_ones() {
        let scaler = Scaler::min_max(&[7.0, 7.0]).unwrap();
        assert_eq!((scaler.transform(7.0), scaler.inverse(0.0)), (0.0, 7.0));
        assert!(matches!(Scaler::standard(&[]), Err(Error::ZeroSize { .. })));
        assert!(matches!(Scaler::min_max(&[1.0, f64::NAN]), Err(Error::NonFinite { .. })));
        assert!(matches!(Scaler::min_max(&[-f64::MAX, f64::MAX]), Err(Error::NonFinite { .. })));
    }
}
