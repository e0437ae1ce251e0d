//! Products of two inputs: [`MatMul`].

use serde::{Deserialize, Serialize};

use crate::backend::ops::{self, Orientation, Workspace};
use crate::backend::{Device, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};

/// Matrix products of the last two axes of two inputs, `[…, m, k]` and `[…, k, n]` to `[…, m, n]`; the axes before them are the same.
/// A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::MatMul};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let a = graph.input("a", &[2, 3])?;
/// let b = graph.input("b", &[3, 4])?;
/// let y = graph.add(MatMul::new(), &[&a, &b])?;
/// assert_eq!(y.shape(), [2, 4]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MatMul {}

impl MatMul {
    /// The layer.
    pub fn new() -> Self {
        MatMul {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [a, b] = inputs else {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        };
        let ([leading @ .., m, k], [other @ .., inner, n]) = (a.shape(), b.shape()) else {
            let got = format!("{:?} and {:?}", a.shape(), b.shape());
            return Err(Error::shape(builder.name(), "inputs of at least two axes", got));
        };
        if leading != other || k != inner {
            let expected = format!("a second input of shape {:?}", [leading, &[*k, *n][..]].concat());
            return Err(Error::shape(builder.name(), expected, format!("{:?}", b.shape())));
        }
        let shape = [leading, &[*m, *n][..]].concat();
        let op = Product { count: leading.iter().product(), m: *m, k: *k, n: *n, workspace: Scratch::new() };
        Ok(vec![builder.op1(op, &[a, b], &shape, 0..0)?])
    }
}

struct Product {
    count: usize,
    m: usize,
    k: usize,
    n: usize,
    workspace: Scratch,
}

impl Product {
    fn sizes(&self, batch: usize, orientation: Orientation) -> ops::MatMul {
        let (m, n, k) = match orientation {
            Orientation::Nn => (self.m, self.n, self.k),
            Orientation::Nt => (self.m, self.k, self.n),
            Orientation::Tn => (self.k, self.n, self.m),
        };
        ops::MatMul { count: batch * self.count, orientation, m, n, k }
    }
}

impl Op for Product {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let product = self.sizes(pass.batch, Orientation::Nn);
        let (a, b) = (pass.inputs.get(0)?, pass.inputs.get(1)?);
        let workspace = self.workspace.for_call(device, Workspace::MatMul(product))?;
        device.matmul(product, 1.0, a, b, pass.outputs.get(0)?, WeightGrad::Set, workspace)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let of_a = self.sizes(pass.batch, Orientation::Nt);
        let of_b = self.sizes(pass.batch, Orientation::Tn);
        let (a, b) = (pass.inputs.get(0)?, pass.inputs.get(1)?);
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            let workspace = self.workspace.for_call(device, Workspace::MatMul(of_a))?;
            device.matmul(of_a, 1.0, dy, b, da, WeightGrad::Set, workspace)?;
        }
        let Some(db) = db else { return Ok(()) };
        let workspace = self.workspace.for_call(device, Workspace::MatMul(of_b))?;
        device.matmul(of_b, 1.0, a, dy, db, WeightGrad::Set, workspace)
    }
}
