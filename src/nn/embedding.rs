//! [`Embedding`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{IndexStatus, Report, STATUS_LEN};
use crate::backend::{Device, TensorMut};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::masking::NotEqual;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::weight_options::{KerasShape, activity_word, regularize, weight_words};
use crate::nn::{Regularizer, Scratch, WeightOptions, one_input};

/// A vector for each whole number, Keras's [`Embedding`](https://keras.io/api/layers/core_layers/embedding/): `[…]` of numbers
/// `0..input_dim` to `[…, output_dim]`. Weights `weight` `[input_dim, output_dim]`, uniform in ±0.05. A number outside of the table, or
/// one that is not whole, is an error: of the pass on the host, of [`check`](Op::check) on a device.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Embedding, Lstm}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10], 1)?;
/// model.add(Embedding::new(5000, 32).mask_zero(true))?; // words 0 to 4999, of which 0 is padding
/// assert_eq!(model.output_shape(), [10, 32]);
/// model.add(Lstm::new(64))?; // ends at the last word that is not padding
/// assert_eq!(model.output_shape(), [64]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Rows of the table.
    pub input_dim: usize,
    /// Width of the vectors.
    pub output_dim: usize,
    /// Whether number 0 means an absent step, which the layers above get a mask for; no.
    #[serde(default)]
    pub mask_zero: bool,
    /// Initializer, regularizer and constraint of the table.
    #[serde(default, skip_serializing_if = "WeightOptions::is_default")]
    pub embeddings: WeightOptions,
    /// What the output adds to the loss; nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub activity_regularizer: Option<Regularizer>,
}

impl Embedding {
    /// A table of `input_dim` vectors of width `output_dim`.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        let embeddings = WeightOptions::default();
        Embedding { input_dim, output_dim, mask_zero: false, embeddings, activity_regularizer: None }
    }

    weight_words! {
        [embeddings] embeddings_initializer embeddings_regularizer embeddings_constraint, "the table";
    }

    activity_word!(activity_regularizer);

    /// Sets whether number 0 means an absent step.
    #[must_use]
    pub fn mask_zero(self, mask_zero: bool) -> Self {
        Embedding { mask_zero, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        for (size, name) in [(self.input_dim, "input_dim"), (self.output_dim, "output_dim")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if u32::try_from(self.input_dim).is_err() {
            return Err(Error::unsupported(format!("input_dim {}", self.input_dim), "at most 4294967295 are counted"));
        }
        let (name, shape) = (("weight", "embeddings"), [self.input_dim, self.output_dim]);
        let weight = self.embeddings.declare(builder, name, &shape, Init::Uniform(0.05), KerasShape::Same, None)?;
        let shape: Vec<usize> = x.shape().iter().copied().chain([self.output_dim]).collect();
        let op = EmbeddingOp {
            name: builder.name(),
            rows: self.input_dim,
            width: self.output_dim,
            positions: x.size(),
            indices: Scratch::new(),
            status: Scratch::new(),
        };
        let y = builder.op1(op, &[x], &shape, weight)?;
        regularize(builder, std::slice::from_ref(&y), self.activity_regularizer)?;
        let mask = match self.mask_zero {
            true => Some(builder.constant_op(NotEqual { columns: 1, value: 0.0 }, &[x], x.shape())?),
            false => x.mask().cloned(),
        };
        let y = y.with_mask(mask.as_ref());
        // Another mask may leave any number out.
        let y = if self.mask_zero || x.mask().is_none() { y.with_lookup(x, self.input_dim) } else { y };
        Ok(vec![y])
    }
}

struct EmbeddingOp {
    name: String,
    rows: usize,
    width: usize,
    /// Numbers in a sample.
    positions: usize,
    indices: Scratch,
    status: Scratch,
}

/// A number outside the table, in the status.
fn noted(status: TensorMut<'_>) -> Option<IndexStatus<'_>> {
    Some(IndexStatus { code: 1, status })
}

impl Op for EmbeddingOp {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let len = pass.batch * self.positions;
        self.indices.grow_as(device, "indices", DType::U32, len)?;
        self.status.grow_as(device, "status", DType::F64, STATUS_LEN)?;
        let mut status = self.status.all()?;
        let indices = self.indices.get_mut(len)?;
        device.indices(self.rows, pass.inputs.get(0)?, indices, noted(status.reborrow()))?;
        let indices = self.indices.get(len)?;
        device.gather(self.width, pass.parameters, indices, pass.outputs.get(0)?, noted(status))
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        if let Some(dx) = pass.dinputs.optional(0) {
            device.fill(dx, 0.0)?;
        }
        if self.indices.is_empty() {
            let problem = "backward needs a forward pass before it".to_owned();
            return Err(Error::Presence { tensor: format!("indices of {}", self.name), problem });
        }
        let indices = self.indices.get(pass.batch * self.positions)?;
        let status = noted(self.status.all()?);
        device.scatter_add(self.width, indices, pass.doutputs.get(0)?, pass.dparameters, pass.grad, status)
    }

    fn check(&self, device: &Device) -> Result<()> {
        if self.status.is_empty() {
            return Ok(());
        }
        let mut numbers = [0.0; STATUS_LEN];
        device.download(self.status.get(STATUS_LEN)?, &mut numbers)?;
        match Report::new(&numbers).bad_index {
            None => Ok(()),
            Some(_) => Err(Error::option(
                format!("input of {}", self.name),
                format!("whole numbers below input_dim {}", self.rows),
                "another value",
            )),
        }
    }
}
