//! Products of two tensors along an axis of each: [`Dot`].
#![expect(clippy::indexing_slicing, reason = "axes that `axis_of` has found below the rank")]

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::nn::MatMul;
use crate::nn::builder::{Builder, Value};
use crate::nn::scaling::unit;
use crate::nn::shape::permuted;

/// Sums of products along one axis of each of two inputs, Keras's [`Dot`](https://keras.io/api/layers/merging_layers/dot/):
/// `[a…, k]` and `[k, b…]` to `[a…, b…]`, wherever k stands in them; `[1]` where nothing is left. A mask ends here.
///
/// Attention over time is `Dot(axes=1)` of weights `[steps, 1]` and states `[steps, units]`: `[1, units]`.
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::Dot};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let a = graph.input("a", &[5, 8])?;
/// let b = graph.input("b", &[7, 8])?;
/// let y = graph.add(Dot::new(2, 2), &[&a, &b])?; // axis 0 is that of the samples
/// assert_eq!(y.shape(), [5, 7]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dot {
    /// The axis of each input, counted from 1 as the batch is axis 0, or from -1 backwards.
    pub axes: (i64, i64),
    /// Whether both are brought to length 1 along that axis first, which makes cosines of the products; no.
    #[serde(default)]
    pub normalize: bool,
}

/// An axis of a sample, counted from 0, by Keras's number of it.
pub(super) fn axis_of(builder: &Builder, option: &str, axis: i64, axes: usize) -> Result<usize> {
    let counted = if axis < 0 { axis.checked_add_unsigned(axes as u64 + 1) } else { Some(axis) };
    let found = counted.and_then(|axis| usize::try_from(axis).ok()).filter(|axis| (1..=axes).contains(axis));
    found.map(|axis| axis - 1).ok_or_else(|| {
        let expected = format!("one of the axes 1 to {axes}, or -1 to -{axes}");
        Error::option(format!("{option} of {}", builder.name()), expected, axis)
    })
}

impl Dot {
    /// Along these axes of the first and the second input.
    pub fn new(first: i64, second: i64) -> Self {
        Dot { axes: (first, second), normalize: false }
    }

    /// Sets whether both are brought to length 1 first.
    #[must_use]
    pub fn normalize(self, normalize: bool) -> Self {
        Dot { normalize, ..self }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [a, b] = inputs else {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        };
        let of_a = axis_of(builder, "axes", self.axes.0, a.shape().len())?;
        let of_b = axis_of(builder, "axes", self.axes.1, b.shape().len())?;
        let count = a.shape()[of_a];
        if b.shape()[of_b] != count {
            let expected = format!("{count} elements along axis {} of the second input", self.axes.1);
            return Err(Error::shape(builder.name(), expected, format!("{:?}", b.shape())));
        }
        let (mut a, mut b) = (a.clone(), b.clone());
        if self.normalize {
            a = unit(builder, &a, &[of_a])?;
            b = unit(builder, &b, &[of_b])?;
        }
        let rest = |value: &Value, axis: usize| (0..value.shape().len()).filter(|other| *other != axis).collect();
        let (rest_a, rest_b): (Vec<usize>, Vec<usize>) = (rest(&a, of_a), rest(&b, of_b));
        let left: Vec<usize> = rest_a.iter().map(|axis| a.shape()[*axis]).collect();
        let right: Vec<usize> = rest_b.iter().map(|axis| b.shape()[*axis]).collect();
        let (rows, columns) = (left.iter().product(), right.iter().product());
        let a = permuted(builder, &a, &[&rest_a[..], &[of_a]].concat())?;
        let b = permuted(builder, &b, &[&[of_b], &rest_b[..]].concat())?;
        let (a, b) = (builder.reshaped(&a, &[rows, count])?, builder.reshaped(&b, &[count, columns])?);
        let product = MatMul::new().build(builder, &[a, b])?;
        let mut shape = [left, right].concat();
        if shape.is_empty() {
            shape.push(1);
        }
        product.iter().map(|value| builder.reshaped(value, &shape)).collect()
    }
}
