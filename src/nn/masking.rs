//! Masking of absent steps: [`Masking`], [`SequenceMask`].

use serde::{Deserialize, Serialize};

use crate::backend::{Device, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::elementwise::{host_only, typed};
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};

/// Steps all of whose features are `mask_value` count as absent for the layers above, Keras's
/// [`Masking`](https://keras.io/api/layers/core_layers/masking/): `[steps, features]`, or with more axes in front, as they are, those steps
/// zeroed, with a mask.
///
/// Recurrent layers leave such steps out and repeat the output before them; attention does not look at them; pooling over time, losses
/// and metrics leave them out. Layers that keep steps apart pass the mask on. As in Keras, `Flatten`, `Reshape`, `Permute`,
/// `RepeatVector`, convolutions and windowed pooling end it, which the model's [`summary`](crate::model::Model::summary) says
/// ([`ended_masks`](crate::model::Model::ended_masks) lists them); where Keras has no rule, a mask that cannot go on is an error.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Masking, SimpleRnn}};
/// use ndarray::array;
/// let mut model = Sequential::new(Device::cpu(), &[3, 1], 1)?;
/// model.add(Masking::new(-1.0))?.add(SimpleRnn::new(2))?;
/// let padded = model.predict(&array![[[0.5f32], [0.25], [-1.0]], [[0.5], [0.25], [-1.0]]])?;
/// let before = model.predict(&array![[[-1.0f32], [0.5], [0.25]], [[0.5], [-1.0], [0.25]]])?;
/// assert_eq!(padded, before); // wherever the steps of -1 stand
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Masking {
    /// What the features of an absent step are; 0.
    #[serde(default)]
    pub mask_value: f64,
}

impl Masking {
    /// A layer that takes steps of `mask_value` alone for absent.
    pub fn new(mask_value: f64) -> Self {
        Masking { mask_value }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let (features, steps) = match x.shape().split_last() {
            Some((features, steps)) if !steps.is_empty() => (*features, steps.to_vec()),
            _ => {
                let got = format!("{:?}", x.shape());
                return Err(Error::shape(builder.name(), "inputs of shape [steps, features]", got));
            }
        };
        if !self.mask_value.is_finite() {
            // A model file could not hold it.
            let option = format!("mask_value of {}", builder.name());
            return Err(Error::option(option, "a finite number", self.mask_value));
        }
        let mask = builder.constant_op(NotEqual { columns: features, value: self.mask_value }, &[x], &steps)?;
        let y = builder.op1(KeepRows, &[x, &mask], x.shape(), 0..0)?;
        Ok(vec![y.with_mask(Some(&mask))])
    }
}

/// The mask of `x`, one for each row of its last axis, where it has one.
///
/// # Errors
///
/// [`Error::Shape`] naming the layer for a mask of another shape, which would mean nothing here.
pub(super) fn row_mask<'a>(builder: &Builder, x: &'a Value) -> Result<Option<&'a Value>> {
    match (x.mask(), x.shape().split_last()) {
        (Some(mask), Some((_, rows))) if mask.shape() == rows => Ok(Some(mask)),
        (None, _) => Ok(None),
        (Some(mask), _) => Err(unfit(&builder.name(), mask, x.shape())),
    }
}

/// The error of a mask that says nothing about the rows of a tensor of this shape.
pub(crate) fn unfit(name: &str, mask: &Value, shape: &[usize]) -> Error {
    let rows = shape.split_last().map_or(shape, |(_, rows)| rows);
    Error::shape(
        format!("mask of the input of {name}"),
        format!(
            "{rows:?}, as the input has shape {shape:?}; end the mask before with a Reshape to the same shape, or mask later"
        ),
        format!("{:?}", mask.shape()),
    )
}

/// 1 for rows that have another element than `value`, else 0.
pub(super) struct NotEqual {
    pub columns: usize,
    pub value: f64,
}

impl Op for NotEqual {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        device.mask_not_equal(self.columns, pass.inputs.get(0)?, self.value, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        match pass.dinputs.optional(0) {
            Some(dx) => device.fill(dx, 0.0),
            None => Ok(()),
        }
    }
}

/// Rows that a mask names, zeros for the others.
pub(super) struct KeepRows;

impl Op for KeepRows {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        device.select_rows(pass.inputs.get(1)?, pass.inputs.get(0)?, None, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.select_rows(pass.inputs.get(1)?, pass.doutputs.get(0)?, None, pass.dinputs.get(0)?)
    }
}

/// How many of the steps are there, as a second input says: `[steps, features]` and `[1]` to `[steps, features]`, the first as it is, with a
/// mask of the steps before that number; like ONNX's `sequence_lens`. On the host alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceMask {}

impl SequenceMask {
    /// The layer.
    pub fn new() -> Self {
        SequenceMask {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [x, lengths] = inputs else {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        };
        let (&[steps, _], &[1]) = (x.shape(), lengths.shape()) else {
            let got = format!("{:?} and {:?}", x.shape(), lengths.shape());
            return Err(Error::shape(builder.name(), "inputs of shape [steps, features] and [1]", got));
        };
        if x.mask().is_some() {
            let problem = "its sequence has a mask already; leave out the one or the other";
            return Err(Error::Presence {
                tensor: format!("lengths of {}", builder.name()),
                problem: problem.to_owned(),
            });
        }
        let op = FirstSteps { steps, name: builder.name() };
        let mask = builder.constant_op(op, &[lengths], &[steps])?;
        Ok(vec![x.clone().with_mask(Some(&mask))])
    }
}

/// The first input with the mask of the second, which has as many steps; without one where that has none: what becomes of a mask that a layer
/// in between has not read. Keras hands on masks beside recurrent layers that are given initial states, say, and do not see them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MaskLike {}

impl MaskLike {
    /// The layer.
    pub fn new() -> Self {
        MaskLike {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [x, like] = inputs else {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        };
        if let Some(mask) = like.mask()
            && mask.shape().first() != x.shape().first()
        {
            let expected = format!("as many steps as the mask, {:?}", mask.shape());
            return Err(Error::shape(builder.name(), expected, format!("{:?}", x.shape())));
        }
        Ok(vec![x.clone().with_mask(like.mask())])
    }
}

/// 1 for steps before a number, else 0.
struct FirstSteps {
    steps: usize,
    name: String,
}

impl Op for FirstSteps {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        fn run<E: Scalar>(steps: usize, lengths: TensorRef<'_>, mask: TensorMut<'_>) -> Result<()> {
            for (length, mask) in lengths.host::<E>()?.iter().zip(mask.host::<E>()?.chunks_exact_mut(steps)) {
                for (step, there) in mask.iter_mut().enumerate() {
                    *there = if (step as f64) < length.wide() { E::one() } else { E::zero() };
                }
            }
            Ok(())
        }
        host_only(device, &format!("the mask of {}", self.name))?;
        typed!(device, run(self.steps, pass.inputs.get(0)?, pass.outputs.get(0)?))
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        match pass.dinputs.optional(0) {
            Some(dx) => device.fill(dx, 0.0),
            None => Ok(()),
        }
    }
}
