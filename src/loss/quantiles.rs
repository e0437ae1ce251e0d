//! Quantiles of the pinball loss: [`Quantiles`].

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Most quantiles of one loss.
const MOST: usize = 20;

/// Quantiles that a model predicts, such as 0.1, 0.5 and 0.9: one to 20 numbers above 0 and below 1, rising. In a file they are a list.
///
/// ```
/// use fused_rnn::loss::Quantiles;
/// let quantiles = Quantiles::new(&[0.1, 0.5, 0.9])?;
/// assert_eq!(quantiles.levels(), [0.1, 0.5, 0.9]);
/// assert!(Quantiles::new(&[0.5, 1.0]).is_err());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Vec<f64>", into = "Vec<f64>")]
pub struct Quantiles {
    levels: [f64; MOST],
    len: usize,
}

impl Quantiles {
    /// These, in rising order.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for none; [`Error::InvalidOption`] for more than 20, for one that is not above 0 and below 1, and for those
    /// that do not rise.
    pub fn new(levels: &[f64]) -> Result<Self> {
        if levels.is_empty() {
            return Err(Error::ZeroSize { name: "number of quantiles" });
        }
        if levels.len() > MOST {
            return Err(Error::option("quantiles", format!("at most {MOST}"), levels.len()));
        }
        if let Some((i, level)) = levels.iter().enumerate().find(|(_, level)| !(**level > 0.0 && **level < 1.0)) {
            return Err(Error::option(format!("quantiles[{i}]"), "a number above 0 and below 1", level));
        }
        if let Some((i, [before, level])) = levels.array_windows().enumerate().find(|(_, [a, b])| a >= b) {
            let expected = format!("a number above {before}, the one before it");
            return Err(Error::option(format!("quantiles[{}]", i + 1), expected, level));
        }
        let mut all = [0.0; MOST];
        all.iter_mut().zip(levels).for_each(|(to, from)| *to = *from);
        Ok(Quantiles { levels: all, len: levels.len() })
    }

    /// The numbers.
    pub fn levels(&self) -> &[f64] {
        // The length is set in `new` alone, where it is checked.
        self.levels.get(..self.len).unwrap_or(&self.levels)
    }
}

impl fmt::Debug for Quantiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.levels().fmt(f)
    }
}

impl TryFrom<Vec<f64>> for Quantiles {
    type Error = Error;

    fn try_from(levels: Vec<f64>) -> Result<Self> {
        Quantiles::new(&levels)
    }
}

impl From<Quantiles> for Vec<f64> {
    fn from(quantiles: Quantiles) -> Self {
        quantiles.levels().to_vec()
    }
}

/// The pinball loss of one prediction of a quantile, and its derivative by the prediction. At the target the derivative is zero.
#[inline(always)]
pub(super) fn pinball(level: f64, t: f64, p: f64) -> (f64, f64) {
    let d = t - p;
    if d > 0.0 {
        (level * d, -level)
    } else if d < 0.0 {
        ((level - 1.0) * d, 1.0 - level)
    } else {
        (d, d)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_quantile_is_refused() {
        for levels in [&[][..], &[0.0], &[1.0], &[f64::NAN], &[0.5, 0.5], &[0.9, 0.1], &[0.5; 21]] {
            assert!(Quantiles::new(levels).is_err(), "{levels:?}");
        }
        let quantiles = Quantiles::new(&[0.25, 0.75]).unwrap();
        let text = serde_json::to_string(&quantiles).unwrap();
        assert_eq!((text.as_str(), serde_json::from_str::<Quantiles>(&text).unwrap()), ("[0.25,0.75]", quantiles));
        assert!(serde_json::from_str::<Quantiles>("[0.75,0.25]").is_err());
    }
}
