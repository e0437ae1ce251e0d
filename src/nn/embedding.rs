//! [`Embedding`].

use std::borrow::{Borrow, BorrowMut};

use serde::{Deserialize, Serialize};

use crate::backend::DenseBackend;
use crate::backend::dense::RECORD_LEN;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Init, Value};
use crate::nn::masking::NotEqual;
use crate::nn::one_input;
use crate::nn::op::{Backward, Forward, Op};

/// A vector for each whole number, Keras's [`Embedding`](https://keras.io/api/layers/core_layers/embedding/): `[…]` of numbers
/// `0..input_dim` to `[…, output_dim]`. Weights `weight` `[input_dim, output_dim]`, uniform in ±0.05. A number outside of the table, or
/// one that is not whole, is an error: of the pass on the host, of [`check`](Op::check) on a device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Embedding {
    /// Rows of the table.
    pub input_dim: usize,
    /// Width of the vectors.
    pub output_dim: usize,
    /// Whether number 0 means an absent step, which the layers above get a mask for; no.
    #[serde(default)]
    pub mask_zero: bool,
}

impl Embedding {
    /// A table of `input_dim` vectors of width `output_dim`.
    pub fn new(input_dim: usize, output_dim: usize) -> Self {
        Embedding { input_dim, output_dim, mask_zero: false }
    }

    /// Sets whether number 0 means an absent step.
    #[must_use]
    pub fn mask_zero(self, mask_zero: bool) -> Self {
        Embedding { mask_zero, ..self }
    }

    pub(super) fn build<B: DenseBackend + 'static>(
        &self,
        builder: &mut Builder<B>,
        inputs: &[Value],
    ) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        for (size, name) in [(self.input_dim, "input_dim"), (self.output_dim, "output_dim")] {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if u32::try_from(self.input_dim).is_err() {
            return Err(Error::unsupported(format!("input_dim {}", self.input_dim), "at most 4294967295 are counted"));
        }
        let weight = builder.parameter("weight", &[self.input_dim, self.output_dim], Init::Uniform(0.05))?;
        let shape: Vec<usize> = x.shape().iter().copied().chain([self.output_dim]).collect();
        let op = EmbeddingOp::<B> {
            name: builder.name(),
            rows: self.input_dim,
            width: self.output_dim,
            positions: x.size(),
            indices: None,
            record: None,
        };
        let y = builder.op1(op, &[x], &shape, weight)?;
        let mask = match self.mask_zero {
            true => Some(builder.constant_op(NotEqual { columns: 1, value: 0.0 }, &[x], x.shape())?),
            false => x.mask().cloned(),
        };
        Ok(vec![y.with_mask(mask.as_ref())])
    }
}

struct EmbeddingOp<B: DenseBackend> {
    name: String,
    rows: usize,
    width: usize,
    /// Numbers in a sample.
    positions: usize,
    indices: Option<(usize, B::Owned<u32>)>,
    record: Option<B::Owned<f64>>,
}

impl<B: DenseBackend> Op<B> for EmbeddingOp<B> {
    fn forward(&mut self, backend: &B, mut pass: Forward<'_, B>) -> Result<()> {
        let len = pass.batch * self.positions;
        if self.indices.as_ref().is_none_or(|(most, _)| *most < len) {
            self.indices = Some((len, backend.allocate("indices", len)?));
        }
        if self.record.is_none() {
            self.record = Some(backend.allocate("record", RECORD_LEN)?);
        }
        let (Some((_, indices)), Some(record)) = (&mut self.indices, &mut self.record) else { return Ok(()) };
        let mut indices = backend.view_mut(indices.borrow_mut(), 0..len)?;
        backend.indices(self.rows, pass.inputs.get(0)?, &mut indices, 1, record.borrow_mut())?;
        backend.gather(self.width, pass.parameters, &indices, pass.outputs.get(0)?, 1, record.borrow_mut())
    }

    fn backward(&mut self, backend: &B, mut pass: Backward<'_, B>) -> Result<()> {
        if let Some(dx) = pass.dinputs.optional(0) {
            backend.fill(dx, 0.0)?;
        }
        let len = pass.batch * self.positions;
        let (Some((_, indices)), Some(record)) = (&self.indices, &mut self.record) else {
            let problem = "backward needs a forward pass before it".to_owned();
            return Err(Error::Presence { tensor: format!("indices of {}", self.name), problem });
        };
        let indices = backend.view(indices.borrow(), 0..len)?;
        backend.scatter_add(
            self.width,
            &indices,
            pass.doutputs.get(0)?,
            pass.dparameters,
            pass.grad,
            1,
            record.borrow_mut(),
        )
    }

    fn check(&self, backend: &B) -> Result<()> {
        let Some(record) = &self.record else { return Ok(()) };
        let mut numbers = [0.0; RECORD_LEN];
        backend.download(record.borrow(), &mut numbers)?;
        match crate::backend::dense::Report::new(&numbers).bad_index {
            None => Ok(()),
            Some(_) => Err(Error::option(
                format!("input of {}", self.name),
                format!("whole numbers below input_dim {}", self.rows),
                "another value",
            )),
        }
    }
}
