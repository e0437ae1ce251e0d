//! Parts of an axis: [`Slice`].
#![expect(clippy::indexing_slicing, reason = "the axis is one of the input, which `build` checks")]

use serde::{Deserialize, Serialize};

use crate::backend::ops::Strides;
use crate::backend::{Device, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};
use crate::rnn::shape::checked_len;

/// What stands along the axis of a [`Slice`]'s output, one part after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[non_exhaustive]
pub enum Part {
    /// `count` elements of the input's axis, from `start` on, `step` apart; backwards below zero.
    Steps {
        /// The first one.
        start: usize,
        /// From one to the next; not 0 where there are several.
        step: isize,
        /// How many.
        count: usize,
    },
    /// Python's `x[start:stop:step]`, whatever the length of the axis: places below zero count from its end, `None` is the end where the part
    /// begins or stops by itself.
    Range {
        /// The first one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        start: Option<isize>,
        /// The one that is no longer in it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        stop: Option<isize>,
        /// From one to the next; not 0.
        step: isize,
    },
    /// `count` elements of this value.
    Filled {
        /// The value.
        value: f64,
        /// How many.
        count: usize,
    },
}

impl Part {
    /// How many elements it has, where that is said.
    pub(crate) fn count(self) -> usize {
        match self {
            Part::Steps { count, .. } | Part::Filled { count, .. } => count,
            Part::Range { .. } => 0,
        }
    }

    /// The same with numbers of elements, for an axis of this length; `None` for a step of 0, and for lengths beyond all memory.
    pub(crate) fn resolved(self, len: usize) -> Option<Part> {
        let Part::Range { start, stop, step } = self else { return Some(self) };
        let n = isize::try_from(len).ok()?;
        // Where elements are: from 0 to n going up, from n - 1 to -1 going down.
        let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
        let place = |at: isize| if at < 0 { at.saturating_add(n) } else { at }.clamp(low, high);
        let (first, last) = if step > 0 { (low, high) } else { (high, low) };
        let (first, last) = (start.map_or(first, place), stop.map_or(last, place));
        let span = if step > 0 { last.checked_sub(first)? } else { first.checked_sub(last)? };
        let count = usize::try_from(span).unwrap_or(0);
        let count = count.checked_next_multiple_of(step.unsigned_abs())?.checked_div(step.unsigned_abs())?;
        Some(Part::Steps { start: usize::try_from(first).unwrap_or(0), step, count })
    }

    /// Whether the input's axis, `len` long, has its elements.
    fn fits(self, len: usize) -> bool {
        let Part::Steps { start, step, count } = self else { return true };
        let Some(further) = count.checked_sub(1) else { return true };
        let last = isize::try_from(further).ok().and_then(|n| step.checked_mul(n)?.checked_add_unsigned(start));
        let last = last.and_then(|last| usize::try_from(last).ok());
        start < len && last.is_some_and(|last| last < len) && (step != 0 || further == 0)
    }
}

/// Elements along one axis: a range, every second one, all in the opposite order, some of them, or with a margin around them, like ONNX's
/// [`Slice`](https://onnx.ai/onnx/operators/onnx__Slice.html) and [`Pad`](https://onnx.ai/onnx/operators/onnx__Pad.html). Other axes
/// stay. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Slice};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[4, 1], 1)?;
/// model.add(Slice::new(1, 3, 1))?; // the last of 4 steps; axis 0 is that of the samples
/// assert_eq!(model.predict(&array![[[1.0f32], [2.0], [3.0], [4.0]]])?, array![[[4.0f32]]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Slice {
    /// The axis of a sample, counted from 1, as [`Permute`](crate::nn::Permute) counts.
    pub axis: usize,
    /// What stands along it.
    pub parts: Vec<Part>,
}

impl Slice {
    /// `count` elements of an axis, counted from 1, from `start` on.
    pub fn new(axis: usize, start: usize, count: usize) -> Self {
        Slice::of_parts(axis, &[Part::Steps { start, step: 1, count }])
    }

    /// Several parts, one after the other.
    pub fn of_parts(axis: usize, parts: &[Part]) -> Self {
        Slice { axis, parts: parts.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let Some((axis, &from)) = self.axis.checked_sub(1).and_then(|axis| Some((axis, x.shape().get(axis)?))) else {
            let expected = format!("one of the axes 1 to {}", x.shape().len());
            return Err(Error::option(format!("axis of {}", builder.name()), expected, self.axis));
        };
        let resolved = |part: &Part| {
            part.resolved(from).ok_or_else(|| {
                Error::option(format!("parts of {}", builder.name()), "a step other than 0", format!("{part:?}"))
            })
        };
        let parts = self.parts.iter().map(resolved).collect::<Result<Vec<_>>>()?;
        if let Some(part) = parts.iter().find(|part| !part.fits(from)) {
            let expected = format!("different elements of an axis of {from}");
            return Err(Error::option(format!("parts of {}", builder.name()), expected, format!("{part:?}")));
        }
        if let Some(part) =
            self.parts.iter().find(|part| matches!(part, Part::Filled { value, .. } if !value.is_finite()))
        {
            // A model file could not hold it.
            let option = format!("parts of {}", builder.name());
            return Err(Error::option(option, "finite values", format!("{part:?}")));
        }
        let to = parts.iter().try_fold(0usize, |sum, part| sum.checked_add(part.count()));
        let to = checked_len("axis", &[("elements", to.unwrap_or(usize::MAX))])?;
        let mut shape = x.shape().to_vec();
        shape[axis] = to;
        let op = SliceOp {
            outer: shape[..axis].iter().product(),
            from,
            to,
            inner: shape[axis + 1..].iter().product(),
            parts,
            value: Scratch::new(),
        };
        Ok(vec![builder.op1(op, &[x], &shape, 0..0)?])
    }
}

struct SliceOp {
    outer: usize,
    /// The axis's length before and after.
    from: usize,
    to: usize,
    inner: usize,
    parts: Vec<Part>,
    /// What a part is filled with.
    value: Scratch,
}

impl SliceOp {
    /// Calls `copy` for each part with its axes, its layouts in the input and in the output, and what it is filled with.
    fn each(
        &mut self,
        batch: usize,
        mut copy: impl FnMut(&mut Scratch, [usize; 4], Strides, Strides, Option<f64>) -> Result<()>,
    ) -> Result<()> {
        let (rows, inner) = (batch * self.outer, self.inner as isize);
        let mut at = 0;
        for part in &self.parts {
            let count = part.count();
            if count == 0 {
                continue;
            }
            let to = Strides { offset: at * self.inner, strides: [0, self.to as isize * inner, inner, 1] };
            let (from, value) = match *part {
                Part::Steps { start, step, .. } => {
                    let strides = [0, self.from as isize * inner, step * inner, 1];
                    (Strides { offset: start * self.inner, strides }, None)
                }
                Part::Filled { value, .. } => (Strides { offset: 0, strides: [0; 4] }, Some(value)),
                // Of no elements: they are counted when the layer is built.
                Part::Range { .. } => continue,
            };
            copy(&mut self.value, [1, rows, count, self.inner], from, to, value)?;
            at += count;
        }
        Ok(())
    }
}

impl Op for SliceOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (x, mut y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        self.each(pass.batch, |scratch, shape, from, to, value| {
            let source = match value {
                None => x,
                Some(value) => {
                    scratch.grow(device, "value of a margin", 1)?;
                    device.fill(scratch.get_mut(1)?, value)?;
                    scratch.get(1)?
                }
            };
            device.strided_copy(shape, source, from, y.reborrow(), to, WeightGrad::Set)
        })
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (dy, mut dx) = (pass.doutputs.get(0)?, pass.dinputs.get(0)?);
        device.fill(dx.reborrow(), 0.0)?;
        self.each(pass.batch, |_, shape, from, to, value| match value {
            None => device.strided_copy(shape, dy, to, dx.reborrow(), from, WeightGrad::Add),
            Some(_) => Ok(()),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_pythons() {
        let range = |start, stop, step| Part::Range { start, stop, step };
        let places = |part: Part, len: usize| match part.resolved(len) {
            Some(Part::Steps { start, step, count }) => {
                (0..count).map(|i| start.wrapping_add_signed(step * i as isize)).collect::<Vec<_>>()
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(places(range(Some(-1), None, 1), 5), [4]);
        assert_eq!(places(range(None, None, -1), 3), [2, 1, 0]);
        assert_eq!(places(range(Some(1), Some(-1), 1), 5), [1, 2, 3]);
        assert_eq!(places(range(None, None, 2), 5), [0, 2, 4]);
        assert_eq!(places(range(Some(-2), None, -2), 5), [3, 1]);
        assert_eq!(places(range(None, Some(0), -1), 3), [2, 1]);
        assert_eq!(places(range(Some(-9), Some(9), 3), 5), [0, 3]);
        assert_eq!(places(range(Some(3), Some(1), 1), 5), [0usize; 0]);
        assert_eq!(places(range(None, Some(-5), 1), 3), [0usize; 0]);
        assert_eq!(range(None, None, 0).resolved(4), None);
        assert_eq!(places(range(None, None, isize::MIN), 4), [3]);
        assert_eq!(places(range(Some(isize::MIN), Some(isize::MAX), isize::MAX), 4), [0]);
    }
}
