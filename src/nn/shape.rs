//! Layers that move elements: [`Reshape`], [`Flatten`], [`Permute`], [`RepeatVector`].
#![expect(
    clippy::indexing_slicing,
    reason = "axes of the shape at hand: `Permute` refuses others, and the rest are below its length"
)]

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Strides, Workspace};
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::{Scratch, one_input};

/// Other axes for the same elements, Keras's [`Reshape`](https://keras.io/api/layers/reshaping_layers/reshape/): any sample shape to
/// `target_shape`. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Reshape};
///
/// let mut model = Sequential::new(Device::cpu(), &[6], 1)?;
/// model.add(Reshape::new(&[3, -1]))?; // -1: what is left
/// assert_eq!(model.output_shape(), [3, 2]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reshape {
    /// Sample shape of the output; at most one axis may be -1, which is then as long as it must be.
    pub target_shape: Vec<i64>,
}

impl Reshape {
    /// A layer with outputs of this sample shape.
    pub fn new(target_shape: &[i64]) -> Self {
        Reshape { target_shape: target_shape.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let wrong = || {
            Error::shape(
                builder.name(),
                format!("a target shape of {} elements, as its input {:?} has", x.size(), x.shape()),
                format!("{:?}", self.target_shape),
            )
        };
        let known = self
            .target_shape
            .iter()
            .filter(|n| **n != -1)
            .try_fold(1usize, |product, n| usize::try_from(*n).ok().and_then(|n| product.checked_mul(n)));
        let known = known.filter(|known| *known > 0).ok_or_else(wrong)?;
        if self.target_shape.iter().filter(|n| **n == -1).count() > 1 {
            return Err(Error::option("target_shape", "at most one -1", format!("{:?}", self.target_shape)));
        }
        let axis = |n: &i64| usize::try_from(*n).unwrap_or(x.size() / known);
        let shape: Vec<usize> = self.target_shape.iter().map(axis).collect();
        Ok(vec![builder.reshaped(x, &shape)?])
    }
}

/// All axes of a sample as one, Keras's [`Flatten`](https://keras.io/api/layers/reshaping_layers/flatten/): `[a, b, …]` to
/// `[a * b * …]`. A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Flatten};
///
/// let mut model = Sequential::new(Device::cpu(), &[3, 2], 1)?;
/// model.add(Flatten::new())?;
/// assert_eq!(model.output_shape(), [6]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flatten {}

impl Flatten {
    /// The layer.
    pub fn new() -> Self {
        Flatten {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        Ok(vec![builder.reshaped(x, &[x.size()])?])
    }
}

/// The axes of a sample in another order, Keras's [`Permute`](https://keras.io/api/layers/reshaping_layers/permute/). A mask ends here.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::Permute};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// model.add(Permute::new(&[2, 1]))?; // axis 0 is that of the samples
/// assert_eq!(model.output_shape(), [3, 10]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Permute {
    /// Which axis of the input, counted from 1, each axis of the output is.
    pub dims: Vec<usize>,
}

impl Permute {
    /// A layer with the axes in this order, counted from 1.
    pub fn new(dims: &[usize]) -> Self {
        Permute { dims: dims.to_vec() }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let mut sorted = self.dims.clone();
        sorted.sort_unstable();
        if sorted != (1..=x.shape().len()).collect::<Vec<_>>() {
            let expected = format!("the axes 1 to {} in some order", x.shape().len());
            return Err(Error::option(format!("dims of {}", builder.name()), expected, format!("{:?}", self.dims)));
        }
        let order: Vec<usize> = self.dims.iter().map(|d| d - 1).collect();
        Ok(vec![permuted(builder, x, &order)?])
    }
}

/// The axes of a sample in the order `order`, counted from 0.
pub(super) fn permuted(builder: &mut Builder, x: &Value, order: &[usize]) -> Result<Value> {
    let shape = x.shape();
    let output: Vec<usize> = order.iter().map(|axis| shape[*axis]).collect();
    // Axes of one element stand anywhere, and those that stay neighbours are one.
    let order: Vec<usize> = order.iter().copied().filter(|axis| shape[*axis] != 1).collect();
    let kept: Vec<usize> = (0..shape.len()).filter(|axis| shape[*axis] != 1).collect();
    let mut groups: Vec<Vec<usize>> = Vec::new();
    let place = |axis: usize| kept.iter().position(|other| *other == axis).unwrap_or(0);
    for axis in order {
        match groups.last_mut() {
            Some(group) if group.last().is_some_and(|last| place(*last) + 1 == place(axis)) => group.push(axis),
            _ => groups.push(vec![axis]),
        }
    }
    let mut sorted = groups.clone();
    sorted.sort_unstable();
    let position = |group: &Vec<usize>| sorted.iter().position(|other| other == group).unwrap_or(0);
    let order: Vec<usize> = groups.iter().map(position).collect();
    let mut sizes: Vec<usize> = sorted.iter().map(|group| group.iter().map(|axis| shape[*axis]).product()).collect();
    if order.len() < 2 {
        return builder.reshaped(x, &output);
    }
    if order.len() <= 3 {
        let mut strides = vec![1isize; sizes.len()];
        for axis in (0..sizes.len() - 1).rev() {
            strides[axis] = strides[axis + 1] * sizes[axis + 1] as isize;
        }
        let strides: Vec<isize> = order.iter().map(|axis| strides[*axis]).collect();
        let moved: Vec<usize> = order.iter().map(|axis| sizes[*axis]).collect();
        return builder.op1(Copy::new(&moved, x.size(), 0, &strides), &[x], &output, 0..0);
    }
    // One group after the other is brought to its place, past those that stand before it.
    let mut standing: Vec<usize> = (0..sizes.len()).collect();
    let mut value = x.clone();
    for (to, group) in order.iter().enumerate() {
        let from = standing.iter().position(|other| other == group).unwrap_or(to);
        if from == to {
            continue;
        }
        let size = |range: &[usize]| range.iter().product::<usize>();
        let swap = Swap {
            outer: size(&sizes[..to]),
            first: size(&sizes[to..from]),
            second: sizes[from],
            inner: size(&sizes[from + 1..]),
        };
        standing[to..=from].rotate_right(1);
        sizes[to..=from].rotate_right(1);
        value = builder.op1(swap, &[&value], &output, 0..0)?;
    }
    Ok(value)
}

/// `[outer, first, second, inner]` to `[outer, second, first, inner]`.
struct Swap {
    outer: usize,
    first: usize,
    second: usize,
    inner: usize,
}

impl Swap {
    /// Axes of the output, and the layouts of input and output.
    fn layouts(&self, batch: usize) -> ([usize; 4], Strides, Strides) {
        let Swap { outer, first, second, inner } = *self;
        let all = (first * second * inner) as isize;
        let from = Strides { offset: 0, strides: [all, inner as isize, (second * inner) as isize, 1] };
        let to = Strides { offset: 0, strides: [all, (first * inner) as isize, inner as isize, 1] };
        ([batch * outer, second, first, inner], from, to)
    }
}

impl Op for Swap {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (shape, from, to) = self.layouts(pass.batch);
        device.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (shape, from, to) = self.layouts(pass.batch);
        device.strided_copy(shape, pass.doutputs.get(0)?, to, pass.dinputs.get(0)?, from, WeightGrad::Set)
    }
}

/// The steps of `x` `[steps, …]` in the opposite order.
pub(super) fn reversed(builder: &mut Builder, x: &Value) -> Result<Value> {
    let shape = x.shape().to_vec();
    let inner: usize = shape[1..].iter().product();
    let copy = Copy::new(&[shape[0], inner], x.size(), (shape[0] - 1) * inner, &[-(inner as isize), 1]);
    builder.op1(copy, &[x], &shape, 0..0)
}

/// Columns `first..first + count` of the last axis.
pub(super) fn columns(builder: &mut Builder, x: &Value, first: usize, count: usize) -> Result<Value> {
    let width = x.shape().last().copied().unwrap_or(1);
    let rows = x.size() / width;
    let shape: Vec<usize> = x.shape()[..x.shape().len().saturating_sub(1)].iter().copied().chain([count]).collect();
    let copy = Copy::new(&[rows, count], x.size(), first, &[width as isize, 1]);
    builder.op1(copy, &[x], &shape, 0..0)
}

/// Columns of a matrix, from one on.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    /// Columns of the whole matrix.
    pub width: usize,
    /// The first one meant.
    pub first: usize,
}

impl Columns {
    /// All columns of a matrix of this width.
    pub fn all(width: usize) -> Self {
        Columns { width, first: 0 }
    }

    fn layout(self) -> Strides {
        Strides { offset: self.first, strides: [0, 0, self.width as isize, 1] }
    }
}

/// Copies `count` columns of all rows of one matrix to those of another.
pub(super) fn copy_columns(
    device: &Device,
    count: usize,
    from: TensorRef<'_>,
    from_columns: Columns,
    to: TensorMut<'_>,
    to_columns: Columns,
) -> Result<()> {
    let shape = [1, 1, from.len() / from_columns.width, count];
    device.strided_copy(shape, from, from_columns.layout(), to, to_columns.layout(), WeightGrad::Set)
}

/// Elements of each sample copied from where strides say, each at most once. What is not copied has no gradient.
struct Copy {
    /// Axes of the output, at most three.
    shape: [usize; 3],
    /// Elements of a sample of the input.
    size: usize,
    offset: usize,
    strides: [isize; 3],
}

impl Copy {
    fn new(shape: &[usize], size: usize, offset: usize, strides: &[isize]) -> Self {
        let missing = 3 - shape.len();
        let mut copy = Copy { shape: [1; 3], size, offset, strides: [0; 3] };
        copy.shape[missing..].copy_from_slice(shape);
        copy.strides[missing..].copy_from_slice(strides);
        copy
    }

    /// Axes with the batch, and the layouts of input and output.
    fn layouts(&self, batch: usize) -> ([usize; 4], Strides, Strides) {
        let [a, b, c] = self.shape;
        let plain = Strides { offset: 0, strides: [(a * b * c) as isize, (b * c) as isize, c as isize, 1] };
        let [i, j, k] = self.strides;
        ([batch, a, b, c], Strides { offset: self.offset, strides: [self.size as isize, i, j, k] }, plain)
    }
}

impl Op for Copy {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (shape, from, to) = self.layouts(pass.batch);
        device.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (shape, from, to) = self.layouts(pass.batch);
        let mut dx = pass.dinputs.get(0)?;
        if self.shape.iter().product::<usize>() < self.size {
            device.fill(dx.reborrow(), 0.0)?;
        }
        device.strided_copy(shape, pass.doutputs.get(0)?, to, dx, from, WeightGrad::Set)
    }
}

/// A vector as every step of a sequence, Keras's [`RepeatVector`](https://keras.io/api/layers/reshaping_layers/repeat_vector/):
/// `[features]` to `[n, features]`.
///
/// ```
/// use fused_rnn::{Device, model::Sequential, nn::{Lstm, RepeatVector}};
///
/// let mut model = Sequential::new(Device::cpu(), &[10, 3], 1)?;
/// // An autoencoder: the whole sequence as one vector, and a sequence made of it.
/// model.add(Lstm::new(16))?.add(RepeatVector::new(10))?.add(Lstm::new(16).return_sequences(true))?;
/// assert_eq!(model.output_shape(), [10, 16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RepeatVector {
    /// Steps of the output.
    pub n: usize,
}

impl RepeatVector {
    /// A layer with `n` steps.
    pub fn new(n: usize) -> Self {
        RepeatVector { n }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        let &[features] = x.shape() else {
            return Err(Error::shape(builder.name(), "inputs of shape [features]", format!("{:?}", x.shape())));
        };
        if self.n == 0 {
            return Err(Error::ZeroSize { name: "n" });
        }
        Ok(vec![repeated(builder, x, self.n, features)?])
    }
}

/// `x` `[features]` as `steps` steps.
pub(super) fn repeated(builder: &mut Builder, x: &Value, steps: usize, features: usize) -> Result<Value> {
    builder.op1(Repeat { steps, features, workspace: Scratch::new() }, &[x], &[steps, features], 0..0)
}

struct Repeat {
    steps: usize,
    features: usize,
    workspace: Scratch,
}

impl Op for Repeat {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (steps, features) = (self.steps, self.features);
        let shape = [1, pass.batch, steps, features];
        let from = Strides { offset: 0, strides: [0, features as isize, 0, 1] };
        let to = Strides { offset: 0, strides: [0, (steps * features) as isize, features as isize, 1] };
        device.strided_copy(shape, pass.inputs.get(0)?, from, pass.outputs.get(0)?, to, WeightGrad::Set)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let sizes = [pass.batch, self.steps, self.features];
        let workspace = self.workspace.for_call(device, Workspace::SumAxis(sizes))?;
        device.sum_axis(sizes, 1.0, pass.doutputs.get(0)?, pass.dinputs.get(0)?, WeightGrad::Set, workspace)
    }
}
