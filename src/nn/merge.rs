//! Layers of several inputs, element by element or side by side: [`Add`], [`Subtract`], [`Multiply`], [`Average`], [`Maximum`],
//! [`Concatenate`].

use serde::{Deserialize, Serialize};

use crate::backend::{Device, TensorRef};
use crate::cell;
use crate::error::{Error, Result};
use crate::nn::Scratch;
use crate::nn::builder::{Builder, Value};
use crate::nn::masking::{KeepRows, NotEqual};
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::shape::{Columns, copy_columns};

/// At least two inputs of one shape.
fn alike<'a>(builder: &Builder, inputs: &'a [Value]) -> Result<(&'a Value, &'a [Value])> {
    let (first, others) = match inputs {
        [first, others @ ..] if !others.is_empty() => (first, others),
        _ => return Err(Error::shape(builder.name(), "at least two inputs", inputs.len().to_string())),
    };
    match others.iter().find(|other| other.shape() != first.shape()) {
        None => Ok((first, others)),
        Some(other) => Err(Error::shape(
            builder.name(),
            format!("inputs of one shape, as the first, {:?}", first.shape()),
            format!("{:?}", other.shape()),
        )),
    }
}

/// The mask of several inputs, as Keras has it: steps that any of them has; none where an input has none, since it has all steps.
fn joined(builder: &mut Builder, inputs: &[Value]) -> Result<Option<Value>> {
    let Some(masks) = inputs.iter().map(|input| input.mask().cloned()).collect::<Option<Vec<Value>>>() else {
        return Ok(None);
    };
    let mut masks = masks.into_iter();
    let Some(mut mask) = masks.next() else { return Ok(None) };
    for other in masks.filter(|other| *other != mask).collect::<Vec<_>>() {
        if other.shape() != mask.shape() {
            let expected = format!("inputs with masks of one shape, as the first, {:?}", mask.shape());
            let got = format!("{:?}; end one with a Reshape to the same shape", other.shape());
            return Err(Error::shape(builder.name(), expected, got));
        }
        let shape = mask.shape().to_vec();
        let sum = builder.constant_op(Pair(Combination::Sum), &[&mask, &other], &shape)?;
        mask = builder.constant_op(NotEqual { columns: 1, value: 0.0 }, &[&sum], &shape)?;
    }
    Ok(Some(mask))
}

/// `a + b` of one shape, without mask.
pub(super) fn sum(builder: &mut Builder, a: &Value, b: &Value) -> Result<Value> {
    builder.op1(Pair(Combination::Sum), &[a, b], a.shape(), 0..0)
}

/// `a - b` of one shape, without mask.
pub(super) fn difference(builder: &mut Builder, a: &Value, b: &Value) -> Result<Value> {
    builder.op1(Pair(Combination::Difference), &[a, b], a.shape(), 0..0)
}

/// `a * b` of one shape, without mask.
pub(super) fn product(builder: &mut Builder, a: &Value, b: &Value) -> Result<Value> {
    builder.op1(Pair(Combination::Product), &[a, b], a.shape(), 0..0)
}

/// One after the other, two at a time.
fn folded(builder: &mut Builder, inputs: &[Value], how: Combination) -> Result<Value> {
    alike(builder, inputs)?;
    let mask = joined(builder, inputs)?;
    // A step that is absent from one factor leaves the others as they are.
    let mut factors = inputs.to_vec();
    if how == Combination::Product {
        for factor in &mut factors {
            if let Some(mask) = factor.mask().filter(|mask| factor.shape().starts_with(mask.shape())).cloned() {
                let shape = factor.shape().to_vec();
                *factor = builder.op1(OneWhereAbsent { ones: Scratch::new() }, &[&*factor, &mask], &shape, 0..0)?;
            }
        }
    }
    let (first, others) = alike(builder, &factors)?;
    let shape = first.shape().to_vec();
    let mut result = first.clone();
    for other in others {
        result = match how {
            Combination::Maximum => builder.op1(Maximum2::new(), &[&result, other], &shape, 0..0)?,
            _ => builder.op1(Pair(how), &[&result, other], &shape, 0..0)?,
        };
    }
    if let (Combination::Product, Some(mask)) = (how, &mask) {
        result = builder.op1(KeepRows, &[&result, mask], &shape, 0..0)?;
    }
    Ok(result.with_mask(mask.as_ref()))
}

/// Rows that a mask, input 1, names; ones for the others.
struct OneWhereAbsent {
    ones: Scratch,
}

impl Op for OneWhereAbsent {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let x = pass.inputs.get(0)?;
        self.ones.grow(device, "ones", x.len())?;
        device.fill(self.ones.get_mut(x.len())?, 1.0)?;
        device.select_rows(pass.inputs.get(1)?, x, Some(self.ones.get(x.len())?), pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.select_rows(pass.inputs.get(1)?, pass.doutputs.get(0)?, None, pass.dinputs.get(0)?)
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Combination {
    Sum,
    Difference,
    Product,
    Maximum,
}

/// `a + b`, `a - b` or `a * b`.
struct Pair(Combination);

impl Pair {
    fn sign(&self) -> f64 {
        if self.0 == Combination::Difference { -1.0 } else { 1.0 }
    }
}

impl Op for Pair {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (a, b, y) = (pass.inputs.get(0)?, pass.inputs.get(1)?, pass.outputs.get(0)?);
        if self.0 == Combination::Product {
            return device.multiply(a, b, y);
        }
        device.sum(a, self.sign(), b, y)
    }

    fn passes_on(&self) -> Option<usize> {
        (self.0 != Combination::Product).then_some(0)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let [da, db, ..] = pass.dinputs.each();
        if self.0 == Combination::Product {
            if let Some(da) = da {
                device.multiply(dy, pass.inputs.get(1)?, da)?;
            }
            return match db {
                Some(db) => device.multiply(dy, pass.inputs.get(0)?, db),
                None => Ok(()),
            };
        }
        if let Some(da) = da {
            device.copy(dy, da)?;
        }
        match db {
            Some(db) => device.scale_add(self.sign(), dy, 0.0, db),
            None => Ok(()),
        }
    }
}

/// The larger of two; of equals the first, whose gradient it is.
struct Maximum2 {
    difference: Scratch,
    first: Scratch,
}

impl Maximum2 {
    fn new() -> Self {
        Maximum2 { difference: Scratch::new(), first: Scratch::new() }
    }

    /// `first` becomes 1 where b is not larger.
    fn compare(&mut self, device: &Device, a: TensorRef<'_>, b: TensorRef<'_>) -> Result<()> {
        let len = a.len();
        self.difference.grow(device, "difference", len)?;
        self.first.grow(device, "mask of maxima", len)?;
        let mut difference = self.difference.get_mut(len)?;
        device.copy(b, difference.reborrow())?;
        device.scale_add(-1.0, a, 1.0, difference.reborrow())?;
        // max(b - a, 0) is zero exactly where a is taken.
        device.add_bias_activate(cell::Activation::Relu, None, difference, None)?;
        let mut first = self.first.get_mut(len)?;
        device.mask_not_equal(1, self.difference.get(len)?, 0.0, first.reborrow())?;
        device.add_bias_activate(cell::Activation::Affine { alpha: -1.0, beta: 1.0 }, None, first, None)
    }
}

impl Op for Maximum2 {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (a, b) = (pass.inputs.get(0)?, pass.inputs.get(1)?);
        self.compare(device, a, b)?;
        device.select_rows(self.first.get(a.len())?, a, Some(b), pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let first = self.first.get(dy.len())?;
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            device.select_rows(first, dy, None, da)?;
        }
        let Some(mut db) = db else { return Ok(()) };
        // Where the other is taken: dy less what the first takes.
        device.select_rows(first, dy, None, self.difference.get_mut(dy.len())?)?;
        device.copy(dy, db.reborrow())?;
        device.scale_add(-1.0, self.difference.get(dy.len())?, 1.0, db)
    }
}

macro_rules! elementwise {
    ($(#[$doc:meta])* $layer:ident, $how:ident) => {
        $(#[$doc])*
        /// At least two inputs of one shape; a step is absent where masks of all of them say so.
        #[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $layer {}

        impl $layer {
            /// The layer.
            pub fn new() -> Self {
                Self {}
            }

            pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
                Ok(vec![folded(builder, inputs, Combination::$how)?])
            }
        }
    };
}

elementwise! {
    /// The sum of its inputs, Keras's [`Add`](https://keras.io/api/layers/merging_layers/add/).
    Add, Sum
}
elementwise! {
    /// The product of its inputs, Keras's [`Multiply`](https://keras.io/api/layers/merging_layers/multiply/); steps absent from one count as 1
    /// there, and those absent from all are zero.
    Multiply, Product
}
elementwise! {
    /// The largest of its inputs, element by element, Keras's [`Maximum`](https://keras.io/api/layers/merging_layers/maximum/). Of equals
    /// the first gets the gradient.
    Maximum, Maximum
}

/// The first of two inputs less the second, Keras's [`Subtract`](https://keras.io/api/layers/merging_layers/subtract/).
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::Subtract};
/// use ndarray::array;
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let a = graph.input("a", &[2])?;
/// let b = graph.input("b", &[2])?;
/// let y = graph.add(Subtract::new(), &[&a, &b])?;
/// let mut model = graph.model(&[&y])?;
/// let (a, b) = (array![[5.0f32, 7.0]], array![[1.0f32, 2.0]]);
/// assert_eq!(model.predict([a.view().into_dyn(), b.view().into_dyn()])?, array![[4.0f32, 5.0]].into_dyn());
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Subtract {}

impl Subtract {
    /// The layer.
    pub fn new() -> Self {
        Subtract {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        if inputs.len() != 2 {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        }
        Ok(vec![folded(builder, inputs, Combination::Difference)?])
    }
}

/// The mean of its inputs, Keras's [`Average`](https://keras.io/api/layers/merging_layers/average/).
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::{Average, Gru, Lstm}};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let x = graph.input("x", &[20, 8])?;
/// let (first, second) = (graph.add(Lstm::new(16), &[&x])?, graph.add(Gru::new(16), &[&x])?);
/// let y = graph.add(Average::new(), &[&first, &second])?;
/// assert_eq!(y.shape(), [16]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Average {}

impl Average {
    /// The layer.
    pub fn new() -> Self {
        Average {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let sum = folded(builder, inputs, Combination::Sum)?;
        Ok(vec![scaled(builder, &sum, 1.0 / inputs.len() as f64)?])
    }
}

/// `factor x`; the mask stays.
pub(super) fn scaled(builder: &mut Builder, x: &Value, factor: f64) -> Result<Value> {
    let shape = x.shape().to_vec();
    Ok(builder.op1(Scale(factor), &[x], &shape, 0..0)?.with_mask(x.mask()))
}

struct Scale(f64);

impl Op for Scale {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        device.scale_add(self.0, pass.inputs.get(0)?, 0.0, pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        device.scale_add(self.0, pass.doutputs.get(0)?, 0.0, pass.dinputs.get(0)?)
    }
}

/// The inputs side by side along the last axis, Keras's [`Concatenate`](https://keras.io/api/layers/merging_layers/concatenate/):
/// `[…, a]`, `[…, b]`, … to `[…, a + b + …]`. A step is absent where masks of all inputs say so.
///
/// ```
/// use fused_rnn::{Device, model::Graph, nn::{Concatenate, Gru}};
///
/// let mut graph = Graph::new(Device::cpu(), 1);
/// let text = graph.input("text", &[20, 8])?;
/// let numbers = graph.input("numbers", &[3])?;
/// let read = graph.add(Gru::new(16), &[&text])?;
/// let y = graph.add(Concatenate::new(), &[&read, &numbers])?;
/// assert_eq!(y.shape(), [19]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Concatenate {}

impl Concatenate {
    /// The layer.
    pub fn new() -> Self {
        Concatenate {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [first, others @ ..] = inputs else {
            return Err(Error::shape(builder.name(), "at least two inputs", "none"));
        };
        if others.is_empty() {
            return Err(Error::shape(builder.name(), "at least two inputs", "one"));
        }
        let mut result = first.clone();
        for other in others {
            result = concatenated(builder, &result, other)?;
        }
        let mask = joined(builder, inputs)?;
        Ok(vec![result.with_mask(mask.as_ref())])
    }
}

/// Two values side by side along the last axis.
pub(super) fn concatenated(builder: &mut Builder, a: &Value, b: &Value) -> Result<Value> {
    let parts = (a.shape().split_last(), b.shape().split_last());
    let (Some((&first, leading)), Some((&second, other))) = parts else {
        return Err(Error::shape(builder.name(), "inputs of at least one axis", "none"));
    };
    if leading != other {
        let expected = format!("inputs alike but for the last axis, as {:?}", a.shape());
        return Err(Error::shape(builder.name(), expected, format!("{:?}", b.shape())));
    }
    let shape: Vec<usize> = leading.iter().copied().chain([first + second]).collect();
    builder.op1(Join { first, second }, &[a, b], &shape, 0..0)
}

struct Join {
    first: usize,
    second: usize,
}

impl Op for Join {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (a, b, mut y) = (pass.inputs.get(0)?, pass.inputs.get(1)?, pass.outputs.get(0)?);
        let (first, second) = (self.first, self.second);
        let to = |at| Columns { width: first + second, first: at };
        copy_columns(device, first, a, Columns::all(first), y.reborrow(), to(0))?;
        copy_columns(device, second, b, Columns::all(second), y, to(first))
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let dy = pass.doutputs.get(0)?;
        let (first, second) = (self.first, self.second);
        let from = |at| Columns { width: first + second, first: at };
        let [da, db, ..] = pass.dinputs.each();
        if let Some(da) = da {
            copy_columns(device, first, dy, from(0), da, Columns::all(first))?;
        }
        match db {
            Some(db) => copy_columns(device, second, dy, from(first), db, Columns::all(second)),
            None => Ok(()),
        }
    }
}
