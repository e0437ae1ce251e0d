//! A tensor of weights by itself: [`Weight`].

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::error::Result;
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::defaults;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

/// A tensor of weights, the same for every sample: learned initial states, a position's vector, a factor for each feature. The input says
/// how many samples there are, and nothing else. Weights `weight` of sample shape `shape` (zeros).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Weight {
    /// Sample shape of the output.
    pub shape: Vec<usize>,
    /// Whether training changes it; yes.
    #[serde(default = "defaults::yes")]
    pub trainable: bool,
}

impl Weight {
    /// Weights of this sample shape, which training changes.
    pub fn new(shape: &[usize]) -> Self {
        Weight { shape: shape.to_vec(), trainable: true }
    }

    /// Sets whether training changes them.
    #[must_use]
    pub fn trainable(self, trainable: bool) -> Self {
        Weight { trainable, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        if self.trainable {
            let weights = builder.parameter("weight", &self.shape, Init::Constant(0.0))?;
            return Ok(vec![weight(builder, x, &self.shape, weights)?]);
        }
        let weights = builder.statistic("weight", &self.shape, Init::Constant(0.0))?;
        let op = Same { size: self.shape.iter().product(), trainable: false, workspace: Scratch::new() };
        Ok(vec![builder.constant(op, x, &self.shape, weights)?])
    }
}

/// Weights of this shape as a value, the same for every sample of `x`.
pub(super) fn weight(builder: &mut Builder, x: &Value, shape: &[usize], weights: Range<usize>) -> Result<Value> {
    let op = Same { size: shape.iter().product(), trainable: true, workspace: Scratch::new() };
    builder.op1(op, &[x], shape, weights)
}

struct Same {
    size: usize,
    trainable: bool,
    workspace: Scratch,
}

impl Op for Same {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let shape = [1, 1, pass.batch, self.size];
        let from = Strides { offset: 0, strides: [0, 0, 0, 1] };
        let to = Strides { offset: 0, strides: [0, 0, self.size as isize, 1] };
        let weights = if self.trainable { pass.parameters } else { pass.statistics.view() };
        device.strided_copy(shape, weights, from, pass.outputs.get(0)?, to, WeightGrad::Set)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        if let Some(dx) = pass.dinputs.optional(0) {
            device.fill(dx, 0.0)?;
        }
        if !self.trainable {
            return Ok(());
        }
        let sizes = [1, pass.batch, self.size];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, pass.doutputs.get(0)?, pass.dparameters, pass.grad, workspace)
    }
}
