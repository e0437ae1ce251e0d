//! The scale on which series are forecast: [`Transform`].

use serde::{Deserialize, Serialize};

use crate::data::Scaler;
use crate::error::{Error, Result};
use crate::memory;

/// Values as forecasts are made of them: scaled, and where that is chosen their logarithms, of which additive forecasts are multiplicative.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Transform {
    /// Where logarithms are taken, the value that smaller ones are taken for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<f64>,
    /// Whether what is forecast below zero is zero, as suits values that never were below it: counts, amounts.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub not_negative: bool,
    /// Scale of the values or their logarithms.
    pub scaler: Scaler,
}

impl Transform {
    /// Fitted to the part of a series that may be learned from: mean 0 and standard deviation 1. Where none of its values is below zero, no
    /// forecast is.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without values; [`Error::NonFinite`] where a value, or their spread, is not finite; [`Error::InvalidOption`] for
    /// logarithms of values that are not all above zero.
    pub fn fit(values: &[f64], log: bool) -> Result<Self> {
        if !log {
            let not_negative = values.iter().all(|value| *value >= 0.0);
            return Ok(Transform { floor: None, not_negative, scaler: Scaler::standard(values)? });
        }
        if let Some(value) = values.iter().find(|value| **value <= 0.0) {
            return Err(Error::option("log", "values above 0 only; leave the logarithms out", value));
        }
        let logs = memory::collected("logarithms", values.iter().map(|v| v.ln()))?;
        let least = values.iter().copied().fold(f64::INFINITY, f64::min);
        Ok(Transform { floor: Some(least / 100.0), not_negative: false, scaler: Scaler::standard(&logs)? })
    }

    /// Whether logarithms are worth a try: all values above zero, and the largest twice the smallest or more.
    pub fn may_be_log(values: &[f64]) -> bool {
        let (least, most) =
            values.iter().fold((f64::INFINITY, 0.0f64), |(least, most), v| (least.min(*v), most.max(*v)));
        least > f64::MIN_POSITIVE * 100.0 && most.is_finite() && most >= 1.5 * least
    }

    /// The value on the scale.
    pub fn apply(&self, value: f64) -> f64 {
        self.scaler.transform(self.floor.map_or(value, |floor| value.max(floor).ln()))
    }

    /// The value that it was.
    pub fn inverse(&self, scaled: f64) -> f64 {
        let value = self.scaler.inverse(scaled);
        match self.floor {
            Some(_) => value.exp(),
            // Not `max`, which takes NaN for the other number.
            None if self.not_negative && value < 0.0 => 0.0,
            None => value,
        }
    }

    pub(crate) fn validate(&self) -> Result<()> {
        self.scaler.validate()?;
        match self.floor {
            Some(floor) if !(floor > 0.0 && floor.is_finite()) => {
                Err(Error::option("floor of logarithms", "above 0", floor))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_and_back() {
        let values = [112.0, 118.0, 240.0, 600.0];
        for log in [false, true] {
            let transform = Transform::fit(&values, log).unwrap();
            for value in values {
                assert!((transform.inverse(transform.apply(value)) - value).abs() < 1e-9);
            }
            let scaled = values.map(|v| transform.apply(v));
            assert!(scaled.iter().sum::<f64>().abs() < 1e-12);
        }
        assert!(Transform::fit(&[1.0, 0.0], true).is_err());
        let (counts, changes) =
            (Transform::fit(&[0.0, 4.0], false).unwrap(), Transform::fit(&[-1.0, 4.0], false).unwrap());
        assert!(counts.inverse(-9.0) == 0.0 && changes.inverse(-9.0) < -1.0 && counts.inverse(f64::NAN).is_nan());
        assert!(Transform::fit(&values, true).unwrap().apply(-5.0).is_finite());
        assert!(
            Transform::may_be_log(&values)
                && !Transform::may_be_log(&[1.0, -1.0])
                && !Transform::may_be_log(&[9.0, 10.0])
        );
    }
}
