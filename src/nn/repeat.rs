//! One shape for several: [`Broadcast`], and NumPy's rule.

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};
use crate::rnn::shape::checked_len;

/// Elements repeated along axes of length 1, or along axes that the input has not, until its sample shape is `shape`:
/// [NumPy's rule](https://numpy.org/doc/stable/user/basics.broadcasting.html), which compares shapes from their ends. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Broadcast};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[1, 2], 1)?;
/// model.add(Broadcast::new(&[3, 2]))?;
/// assert_eq!(model.predict(&array![[[1.0f32, 2.0]]])?, array![[[1.0f32, 2.0], [1.0, 2.0], [1.0, 2.0]]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Broadcast {
    /// Sample shape of the output.
    pub shape: Vec<usize>,
}

impl Broadcast {
    /// A layer with outputs of this sample shape.
    pub fn new(shape: &[usize]) -> Self {
        Broadcast { shape: shape.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![broadcast(builder, x, &self.shape)?])
    }
}

/// The sample shape that NumPy's rule gives for several.
pub(super) fn common_shape(builder: &Builder, values: &[Value]) -> Result<Vec<usize>> {
    let axes = values.iter().map(|value| value.shape().len()).max().unwrap_or(0);
    let mut common = vec![1; axes];
    for value in values {
        let missing = axes - value.shape().len();
        for (common, n) in common.iter_mut().skip(missing).zip(value.shape()) {
            if *n != 1 && *common != 1 && *n != *common {
                let shapes: Vec<_> = values.iter().map(|value| format!("{:?}", value.shape())).collect();
                let expected = "inputs whose axes, counted from the end, are equally long or 1";
                return Err(Error::shape(builder.name(), expected, shapes.join(" and ")));
            }
            *common = (*common).max(*n);
        }
    }
    Ok(common)
}

/// `x` with this sample shape, without mask.
#[expect(clippy::indexing_slicing, reason = "axes below that of both shapes, which are as long as each other")]
pub(super) fn broadcast(builder: &mut Builder, x: &Value, shape: &[usize]) -> Result<Value> {
    let fits = x.shape().len() <= shape.len() && {
        let own = &shape[shape.len() - x.shape().len()..];
        x.shape().iter().zip(own).all(|(n, whole)| n == whole || *n == 1)
    };
    if !fits {
        let expected = format!("an input that can be repeated to {shape:?}");
        return Err(Error::shape(builder.name(), expected, format!("{:?}", x.shape())));
    }
    // Refuses sizes whose product overflows.
    checked_len(&builder.name(), &shape.iter().map(|n| ("elements", *n)).collect::<Vec<_>>())?;
    let missing = shape.len() - x.shape().len();
    let known = |axis: usize| if axis < missing { 1 } else { x.shape()[axis - missing] };
    let mut current: Vec<usize> = (0..shape.len()).map(known).collect();
    let mut value = builder.reshaped(x, &current)?;
    // Neighbouring axes that are repeated are repeated at once; the last ones first, while there are few elements.
    let mut end = shape.len();
    while end > 0 {
        let repeated = |axis: usize| current[axis] != shape[axis];
        if !repeated(end - 1) {
            end -= 1;
            continue;
        }
        let mut start = end - 1;
        while start > 0 && (repeated(start - 1) || shape[start - 1] == 1) {
            start -= 1;
        }
        let outer: usize = current[..start].iter().product();
        let (count, inner) = (shape[start..end].iter().product(), current[end..].iter().product());
        current[start..end].copy_from_slice(&shape[start..end]);
        let op = Repeat { outer, count, inner, workspace: Scratch::new() };
        value = builder.op1(op, &[&value], &current, 0..0)?;
        end = start;
    }
    Ok(value)
}

/// `[outer, inner]` to `[outer, count, inner]`.
struct Repeat {
    outer: usize,
    count: usize,
    inner: usize,
    workspace: Scratch,
}

impl Op for Repeat {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (count, inner) = (self.count, self.inner as isize);
        let shape = [1, pass.batch * self.outer, count, self.inner];
        let from = Strides { offset: 0, strides: [0, inner, 0, 1] };
        let to = Strides { offset: 0, strides: [0, count as isize * inner, inner, 1] };
        device.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let sizes = [pass.batch * self.outer, self.count, self.inner];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, pass.doutputs.get(0)?, pass.dinputs.get(0)?, WeightGrad::Set, workspace)
    }
}
