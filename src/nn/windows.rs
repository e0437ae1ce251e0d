//! Windows over the steps of a sequence, for convolution and pooling: [`Padding`], and the copies that make them.

use serde::{Deserialize, Serialize};

use crate::backend::ops::Strides;
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};

/// What stands before the first step and after the last, by
/// [Keras's names](https://keras.io/api/layers/convolution_layers/convolution1d/).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Padding {
    /// Nothing: only windows that lie within the sequence.
    #[default]
    Valid,
    /// As many steps as give `steps / strides` windows, rounded up; the smaller half of them before the first step.
    Same,
    /// All before the first step, so that a window ends at the step whose number it has. Not for pooling.
    Causal,
    /// So many steps, as PyTorch and ONNX say it. Keras has this not.
    Steps {
        /// Before the first step.
        before: usize,
        /// After the last step.
        after: usize,
    },
}

impl Padding {
    /// Whether this is the default.
    pub(crate) fn is_valid(&self) -> bool {
        *self == Padding::Valid
    }
}

/// The windows over `[steps, features]`: `count` of `size` steps, `dilation` apart, the first of which begins `before` steps early.
#[derive(Clone, Copy, Debug)]
pub(super) struct Windows {
    pub steps: usize,
    pub features: usize,
    pub groups: usize,
    pub size: usize,
    pub strides: usize,
    pub dilation: usize,
    pub before: usize,
    pub count: usize,
}

impl Windows {
    /// Windows of `size` steps, one every `strides`; `layer` and `option` (the size's) are for errors.
    pub fn new(
        layer: &str,
        option: &'static str,
        [steps, features]: [usize; 2],
        size: usize,
        strides: usize,
        dilation: usize,
        padding: Padding,
    ) -> Result<Self> {
        for (size, name) in [(size, option), (strides, "strides"), (dilation, "dilation_rate")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        let overflow = || Error::SizeOverflow {
            tensor: format!("padded steps of {layer}"),
            expression: format!("steps {steps} with {option} {size}, dilation_rate {dilation}, padding {padding:?}"),
        };
        let reach = (size - 1).checked_mul(dilation).and_then(|n| n.checked_add(1)).ok_or_else(overflow)?;
        let (before, after) = match padding {
            Padding::Valid => (0, 0),
            Padding::Causal => (reach - 1, 0),
            Padding::Steps { before, after } => (before, after),
            Padding::Same => {
                let last = (steps.div_ceil(strides).saturating_sub(1)).checked_mul(strides).ok_or_else(overflow)?;
                let all = last.checked_add(reach).ok_or_else(overflow)?.saturating_sub(steps);
                (all / 2, all - all / 2)
            }
        };
        let padded = steps.checked_add(before).and_then(|n| n.checked_add(after)).ok_or_else(overflow)?;
        // Places of elements are computed from it, be they padding.
        padded.checked_mul(features.max(1)).and_then(|n| isize::try_from(n).ok()).ok_or_else(overflow)?;
        if reach > padded {
            let expected = match dilation {
                1 => format!("at least {option} {size} steps"),
                _ => format!("at least {reach} steps, the reach of {option} {size} with dilation_rate {dilation}"),
            };
            return Err(Error::shape(layer, expected, format!("{padded} steps")));
        }
        let count = (padded - reach) / strides + 1;
        // One window has no next one, however far away.
        let strides = if count == 1 { 1 } else { strides };
        Ok(Windows { steps, features, groups: 1, size, strides, dilation, before, count })
    }

    /// Whether some window has a step that is padding.
    pub fn padded(&self) -> bool {
        self.before > 0 || (self.count - 1) * self.strides + (self.size - 1) * self.dilation >= self.before + self.steps
    }

    /// Elements of all windows of a batch.
    pub fn len(&self, batch: usize) -> usize {
        batch * self.count * self.size * self.features
    }

    /// The windows that have a step in the sequence at this place of theirs, and where those stand: `[batch, steps, features]`, and
    /// `[groups, batch, count, size, features / groups]`.
    fn layouts(&self, batch: usize, place: usize) -> Option<([usize; 4], Strides, Strides)> {
        let offset = place * self.dilation;
        let first = self.before.saturating_sub(offset).div_ceil(self.strides);
        let end = match (self.before + self.steps).checked_sub(offset + 1) {
            Some(last) => (last / self.strides + 1).min(self.count),
            None => 0,
        };
        let number = end.checked_sub(first).filter(|n| *n > 0)?;
        let width = self.features / self.groups;
        let window = self.size * width;
        let shape = [self.groups, batch, number, width];
        let from = Strides {
            offset: (first * self.strides + offset - self.before) * self.features,
            strides: [
                width as isize,
                (self.steps * self.features) as isize,
                (self.strides * self.features) as isize,
                1,
            ],
        };
        let to = Strides {
            offset: first * window + place * width,
            strides: [(batch * self.count * window) as isize, (self.count * window) as isize, window as isize, 1],
        };
        Some((shape, from, to))
    }

    /// Copies the steps of each window, which may overlap, to `[groups, batch, count, size, features / groups]`; padding is `absent`.
    pub fn gather(
        &self,
        device: &Device,
        batch: usize,
        x: TensorRef<'_>,
        mut windows: TensorMut<'_>,
        absent: f64,
    ) -> Result<()> {
        if self.padded() {
            device.fill(windows.reborrow(), absent)?;
        }
        for place in 0..self.size {
            if let Some((shape, from, to)) = self.layouts(batch, place) {
                device.strided_copy(shape, x, from, windows.reborrow(), to, WeightGrad::Set)?;
            }
        }
        Ok(())
    }

    /// The gradient of [`gather`](Self::gather), set (`=`).
    pub fn scatter(&self, device: &Device, batch: usize, dwindows: TensorRef<'_>, mut dx: TensorMut<'_>) -> Result<()> {
        device.fill(dx.reborrow(), 0.0)?;
        for place in 0..self.size {
            if let Some((shape, from, to)) = self.layouts(batch, place) {
                device.strided_copy(shape, dwindows, to, dx.reborrow(), from, WeightGrad::Add)?;
            }
        }
        Ok(())
    }
}
