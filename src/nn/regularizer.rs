//! What weights or outputs cost, as an option of a layer: [`Regularizer`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// A penalty of the elements of a tensor, added to the loss: `l1 Σ|w| + l2 Σw²`, Keras's
/// [regularizers](https://keras.io/api/layers/regularizers/). It is part of every loss that training and evaluation show. That of an output
/// (`activity_regularizer`) is divided by the number of samples.
///
/// ```
/// use fused_rnn::nn::{Dense, Lstm, Regularizer};
/// let layer = Dense::new(10).kernel_regularizer(Regularizer::l2(1e-4));
/// let layer = Lstm::new(10).recurrent_regularizer(Regularizer::l1_l2(1e-5, 1e-4)).activity_regularizer(Regularizer::l2(1e-5));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Regularizer {
    /// Factor of the sum of sizes.
    #[serde(default)]
    pub l1: f64,
    /// Factor of the sum of squares.
    #[serde(default)]
    pub l2: f64,
}

impl Regularizer {
    /// `l1 Σ|w|`; Keras's default is 0.01.
    pub fn l1(l1: f64) -> Self {
        Regularizer { l1, l2: 0.0 }
    }

    /// `l2 Σw²`; Keras's default is 0.01.
    pub fn l2(l2: f64) -> Self {
        Regularizer { l1: 0.0, l2 }
    }

    /// Both; Keras's defaults are 0.01.
    pub fn l1_l2(l1: f64, l2: f64) -> Self {
        Regularizer { l1, l2 }
    }

    /// Refuses factors that are none.
    pub(super) fn validate(self, option: &str) -> Result<()> {
        if [self.l1, self.l2].iter().all(|factor| factor.is_finite() && *factor >= 0.0) {
            return Ok(());
        }
        Err(Error::option(option, "finite factors, 0 or above", format!("{self:?}")))
    }
}
