//! Losses scaled up so that small gradients survive f16: [`LossScale`].

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// What the loss is multiplied with before it is differentiated; gradients are divided by it before they are used. In f16, numbers below
/// 6e-8 are zero and those above 65504 infinite: gradients of a loss as it is are often too small.
///
/// The scale finds itself: a step whose gradients are not all finite is left out and halves the scale; after
/// [`growth_steps`](Self::growth_steps) steps without one it doubles. Scales are powers of two, so that nothing is rounded by them.
/// Where the scale falls below 1 the gradients are not too large but wrong, and training [has diverged](Error::Diverged).
///
/// Keras's [`LossScaleOptimizer`](https://keras.io/api/optimizers/loss_scale_optimizer/), with its defaults;
/// [Micikevicius et al. 2018](https://arxiv.org/abs/1710.03740), section 3.2.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    scale: f64,
    initial: f64,
    growth_steps: u32,
    /// Steps since the scale last changed.
    steps: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        LossScale { scale: 32768.0, initial: 32768.0, growth_steps: 2000, steps: 0 }
    }
}

/// Beyond it f32 would hold no scaled loss.
const MOST: f64 = 1e30;

impl LossScale {
    /// Begins with `initial`, rounded down to a power of two, and doubles after `growth_steps`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where `initial` is not in 1 to 1e30; [`Error::ZeroSize`] for no steps.
    pub fn new(initial: f64, growth_steps: u32) -> Result<Self> {
        let initial = if (1.0..=MOST).contains(&initial) { initial.log2().floor().exp2() } else { initial };
        let scale = LossScale { scale: initial, initial, growth_steps, steps: 0 };
        scale.validate()?;
        Ok(scale)
    }

    /// What the next step multiplies its loss with.
    pub fn scale(&self) -> f64 {
        self.scale
    }

    /// Steps with finite gradients after which the scale doubles.
    pub fn growth_steps(&self) -> u32 {
        self.growth_steps
    }

    /// Refuses what no call can have made.
    pub(super) fn validate(&self) -> Result<()> {
        for value in [self.initial, self.scale] {
            if !((1.0..=MOST).contains(&value) && value.log2().fract() == 0.0) {
                return Err(Error::option("loss scale", "a power of two from 1 to 1e30", value));
            }
        }
        if self.growth_steps == 0 {
            return Err(Error::ZeroSize { name: "growth_steps" });
        }
        if self.steps >= self.growth_steps {
            let expected = format!("fewer than the {} after which it grows", self.growth_steps);
            return Err(Error::option("steps of the loss scale", expected, self.steps));
        }
        Ok(())
    }

    /// After a step with finite gradients.
    pub(super) fn grow(&mut self) {
        self.steps += 1;
        if self.steps >= self.growth_steps {
            self.steps = 0;
            if self.scale * 2.0 <= MOST {
                self.scale *= 2.0;
            }
        }
    }

    /// After a step without; whether there is a smaller scale to try.
    pub(super) fn shrink(&mut self) -> bool {
        self.steps = 0;
        let smaller = self.scale / 2.0;
        if smaller >= 1.0 {
            self.scale = smaller;
        }
        smaller >= 1.0
    }

    /// As it was at the beginning.
    pub(super) fn forget(&mut self) {
        (self.scale, self.steps) = (self.initial, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_halves_and_doubles() {
        let mut scale = LossScale::new(9.9, 2).unwrap();
        assert_eq!(scale.scale(), 8.0);
        scale.grow();
        assert!(scale.shrink());
        assert_eq!(scale.scale(), 4.0);
        // The steps before a bad one do not count.
        scale.grow();
        assert_eq!(scale.scale(), 4.0);
        scale.grow();
        assert_eq!(scale.scale(), 8.0);
        assert!([(); 3].iter().all(|()| scale.shrink()));
        assert_eq!(scale.scale(), 1.0);
        assert!(!scale.shrink());
        assert_eq!(scale.scale(), 1.0);
        scale.forget();
        assert_eq!(scale, LossScale::new(8.0, 2).unwrap());
    }

    #[test]
    fn it_stays_a_number() {
        let mut scale = LossScale::new(1e30, 1).unwrap();
        let before = scale.scale();
        scale.grow();
        assert_eq!(scale.scale(), before);
        for bad in [0.0, 0.5, -1.0, f64::NAN, f64::INFINITY, 1e31] {
            assert!(matches!(LossScale::new(bad, 1), Err(Error::InvalidOption { .. })), "{bad}");
        }
        assert!(matches!(LossScale::new(1.0, 0), Err(Error::ZeroSize { .. })));
    }
}
