//! Sums, means and extremes along axes: [`Reduce`].
#![expect(clippy::indexing_slicing, reason = "axes rise from 1 to the rank at most, which `build` checks")]

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::merge::scaled;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

/// What becomes of the elements along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Reduction {
    /// Their sum.
    Sum,
    /// Their mean.
    Mean,
    /// The largest; of equals the first has the gradient.
    Maximum,
    /// The smallest; of equals the first has the gradient.
    Minimum,
}

/// One element for all along some axes of a sample, like ONNX's [`ReduceSum`](https://onnx.ai/onnx/operators/onnx__ReduceSum.html). These
/// axes are left out of the output; where none is left, it is `[1]`. A mask ends here and counts for nothing, unlike that of
/// [`GlobalAveragePooling1D`](crate::nn::GlobalAveragePooling1D).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reduce {
    /// What becomes of them.
    pub reduction: Reduction,
    /// The axes of a sample, counted from 1, in rising order.
    pub axes: Vec<usize>,
}

impl Reduce {
    /// A layer that makes one element of those along each of `axes`, counted from 1.
    pub fn new(reduction: Reduction, axes: &[usize]) -> Self {
        Reduce { reduction, axes: axes.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let rising = self.axes.array_windows().all(|[a, b]| a < b);
        let known = |axis: &usize| (1..=x.shape().len()).contains(axis);
        if self.axes.is_empty() || !rising || !self.axes.iter().all(known) {
            let expected = format!("some of the axes 1 to {} in rising order", x.shape().len());
            return Err(Error::option(format!("axes of {}", builder.name()), expected, format!("{:?}", self.axes)));
        }
        let mut shape = x.shape().to_vec();
        let mut value = match self.reduction {
            Reduction::Minimum => scaled(builder, x, -1.0)?,
            _ => x.clone(),
        };
        // Neighbouring axes at once, the last ones first, so that the numbers of the others stay.
        let mut axes = self.axes.clone();
        while let Some(last) = axes.pop() {
            let mut first = last;
            while axes.last().is_some_and(|axis| axis + 1 == first) {
                first -= 1;
                axes.pop();
            }
            let sizes = [
                shape[..first - 1].iter().product(),
                shape[first - 1..last].iter().product(),
                shape[last..].iter().product(),
            ];
            shape.drain(first - 1..last);
            if shape.is_empty() {
                shape.push(1);
            }
            value = match self.reduction {
                Reduction::Sum | Reduction::Mean => {
                    let scale = if self.reduction == Reduction::Mean { 1.0 / sizes[1] as f64 } else { 1.0 };
                    let op = Sum { sizes, scale, workspace: Scratch::new() };
                    builder.op1(op, &[&value], &shape, 0..0)?
                }
                Reduction::Maximum | Reduction::Minimum => {
                    let op = Largest { sizes, positions: Scratch::new() };
                    builder.op1(op, &[&value], &shape, 0..0)?
                }
            };
        }
        if self.reduction == Reduction::Minimum {
            value = scaled(builder, &value, -1.0)?;
        }
        Ok(vec![value.with_mask(None)])
    }
}

/// `scale Σ_c x[o, c, i]`.
struct Sum {
    sizes: [usize; 3],
    scale: f64,
    workspace: Scratch,
}

impl Op for Sum {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let [outer, count, inner] = self.sizes;
        let sizes = [pass.batch * outer, count, inner];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, self.scale, pass.inputs.get(0)?, pass.outputs.get(0)?, WeightGrad::Set, workspace)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let [outer, count, inner] = self.sizes;
        let width = inner as isize;
        let once = Strides { offset: 0, strides: [0, width, 0, 1] };
        let every = Strides { offset: 0, strides: [0, count as isize * width, width, 1] };
        let shape = [1, pass.batch * outer, count, inner];
        let mut dx = pass.dinputs.get(0)?;
        device.strided_copy(shape, pass.doutputs.get(0)?, once, dx.reborrow(), every, WeightGrad::Set)?;
        if self.scale == 1.0 { Ok(()) } else { device.scale(self.scale, dx) }
    }
}

/// The largest of `x[o, c, i]` over c.
struct Largest {
    sizes: [usize; 3],
    positions: Scratch,
}

impl Op for Largest {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let [outer, count, inner] = self.sizes;
        let len = pass.batch * outer * inner;
        self.positions.grow_as(device, "positions of the largest", DType::U32, len)?;
        let positions = self.positions.get_mut(len)?;
        let sizes = [pass.batch * outer, count, inner];
        device.max_axis(sizes, pass.inputs.get(0)?, None, pass.outputs.get(0)?, positions)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let [outer, count, inner] = self.sizes;
        let positions = self.positions.get(pass.batch * outer * inner)?;
        let sizes = [pass.batch * outer, count, inner];
        device.max_axis_gradient(sizes, pass.doutputs.get(0)?, positions, pass.dinputs.get(0)?)
    }
}
