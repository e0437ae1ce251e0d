//! Layers that change the number of steps: [`ZeroPadding1D`], [`Cropping1D`], [`UpSampling1D`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::Strides;
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::pooling::steps_and_features;
use crate::nn::repeat::broadcast;

/// Steps of zeros before and after the others, Keras's
/// [`ZeroPadding1D`](https://keras.io/api/layers/reshaping_layers/zero_padding1d/): `[steps, features]` to
/// `[before + steps + after, features]`. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::ZeroPadding1D};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[2, 1], 1)?;
/// model.add(ZeroPadding1D::new(1, 2))?;
/// assert_eq!(model.predict(&array![[[5.0f32], [6.0]]])?, array![[[0.0f32], [5.0], [6.0], [0.0], [0.0]]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ZeroPadding1D {
    /// Steps before the first and after the last.
    pub padding: (usize, usize),
}

impl ZeroPadding1D {
    /// So many steps before the first and after the last.
    pub fn new(before: usize, after: usize) -> Self {
        ZeroPadding1D { padding: (before, after) }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let (before, after) = self.padding;
        let padded =
            steps.checked_add(before).and_then(|n| n.checked_add(after)).ok_or_else(|| Error::SizeOverflow {
                tensor: format!("padded steps of {}", builder.name()),
                expression: format!("steps {steps} + {before} + {after}"),
            })?;
        let op = Framed { frame: Frame { inner: steps, outer: padded, before, features }, pads: true };
        Ok(vec![builder.op1(op, &[x], &[padded, features], 0..0)?])
    }
}

/// Without the first and the last steps, Keras's [`Cropping1D`](https://keras.io/api/layers/reshaping_layers/cropping1d/):
/// `[steps, features]` to `[steps - before - after, features]`. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Cropping1D};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[4, 1], 1)?;
/// model.add(Cropping1D::new(1, 2))?;
/// assert_eq!(model.predict(&array![[[1.0f32], [2.0], [3.0], [4.0]]])?, array![[[2.0f32]]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cropping1D {
    /// Steps left out at the beginning and at the end.
    pub cropping: (usize, usize),
}

impl Cropping1D {
    /// Without so many steps at the beginning and at the end.
    pub fn new(before: usize, after: usize) -> Self {
        Cropping1D { cropping: (before, after) }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        let (before, after) = self.cropping;
        let kept = before.checked_add(after).and_then(|cropped| steps.checked_sub(cropped)).filter(|kept| *kept > 0);
        let Some(kept) = kept else {
            let expected = format!("fewer than the {steps} steps, taken together");
            return Err(Error::option(
                format!("cropping of {}", builder.name()),
                expected,
                format!("{before} and {after}"),
            ));
        };
        let op = Framed { frame: Frame { inner: kept, outer: steps, before, features }, pads: false };
        Ok(vec![builder.op1(op, &[x], &[kept, features], 0..0)?])
    }
}

/// `inner` steps within `outer` ones, of which so many come `before`.
#[derive(Clone, Copy)]
struct Frame {
    inner: usize,
    outer: usize,
    before: usize,
    features: usize,
}

impl Frame {
    /// The steps within, and where they stand alone and in the frame.
    fn layouts(&self, batch: usize) -> ([usize; 4], Strides, Strides) {
        let width = self.features as isize;
        let alone = Strides { offset: 0, strides: [0, self.inner as isize * width, width, 1] };
        let offset = self.before * self.features;
        let within = Strides { offset, strides: [0, self.outer as isize * width, width, 1] };
        ([1, batch, self.inner, self.features], alone, within)
    }
}

/// Puts steps into a frame of zeros, or takes them out of one.
struct Framed {
    frame: Frame,
    pads: bool,
}

impl Framed {
    fn run(&self, device: &Device, batch: usize, pads: bool, from: TensorRef<'_>, mut to: TensorMut<'_>) -> Result<()> {
        let (shape, alone, within) = self.frame.layouts(batch);
        if !pads {
            return device.strided_copy(shape, from, within, to, alone, WeightGrad::Set);
        }
        if self.frame.inner != self.frame.outer {
            device.fill(to.reborrow(), 0.0)?;
        }
        device.strided_copy(shape, from, alone, to, within, WeightGrad::Set)
    }
}

impl Op for Framed {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        self.run(device, pass.batch, self.pads, pass.inputs.get(0)?, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        // The gradient of what was put in is taken out, and the other way round.
        self.run(device, pass.batch, !self.pads, pass.doutputs.get(0)?, pass.dinputs.get(0)?)
    }
}

/// Every step several times, Keras's [`UpSampling1D`](https://keras.io/api/layers/reshaping_layers/up_sampling1d/): `[steps, features]` to
/// `[steps * size, features]`. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::UpSampling1D};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[2, 1], 1)?;
/// model.add(UpSampling1D::new(2))?;
/// assert_eq!(model.predict(&array![[[1.0f32], [2.0]]])?, array![[[1.0f32], [1.0], [2.0], [2.0]]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpSampling1D {
    /// How often each step stands in the output.
    pub size: usize,
}

impl UpSampling1D {
    /// A layer that repeats every step `size` times.
    pub fn new(size: usize) -> Self {
        UpSampling1D { size }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (steps, features) = steps_and_features(builder, x)?;
        if self.size == 0 {
            return Err(Error::ZeroSize { name: "size" });
        }
        let all = steps.checked_mul(self.size).ok_or_else(|| Error::SizeOverflow {
            tensor: format!("steps of {}", builder.name()),
            expression: format!("steps {steps} * size {}", self.size),
        })?;
        let apart = builder.reshaped(x, &[steps, 1, features])?;
        let repeated = broadcast(builder, &apart, &[steps, self.size, features])?;
        Ok(vec![builder.reshaped(&repeated, &[all, features])?])
    }
}
