//! Layers of elements: [`Elementwise`] of one input, [`Pairwise`] of two, [`Where`] of three. Inputs of different shapes are repeated to one
//! by NumPy's rule.
//!
//! Functions that recurrent cells have, what can be put together of them, sums and products run on every device; the others on the host alone.

use serde::{Deserialize, Serialize};

use crate::backend::{Device, TensorMut, TensorRef};
use crate::cell::Activation;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::nn::activation::elementwise;
use crate::nn::builder::{Builder, Value};
use crate::nn::function::{Combination, Function};
use crate::nn::merge;
use crate::nn::op::{Backward, Forward, Op};
use crate::nn::repeat::{broadcast, common_shape};
use crate::nn::{Scratch, one_input};

/// What has no kernel.
pub(super) fn host_only(device: &Device, what: &str) -> Result<()> {
    if device.is_host() {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("{what} on {}", device.name()),
        "there is no kernel for it; use a device on the host, as Device::cpu()",
    ))
}

/// Calls `$call::<E>(…)` with the element type of the device, which is one of the host's.
macro_rules! typed {
    ($device:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $device.dtype() {
            DType::F64 => $function::<f64>($($argument),*),
            _ => $function::<f32>($($argument),*),
        }
    };
}
pub(super) use typed;

/// A [`Function`] of every element. Shapes and masks pass through.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Elementwise {
    /// The function.
    pub function: Function,
}

impl Elementwise {
    /// A layer that applies `function`.
    pub fn new(function: Function) -> Self {
        Elementwise { function }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let x = one_input(builder, inputs)?;
        if self.function.constants().iter().any(|constant| !constant.is_finite()) {
            let option = format!("function of {}", builder.name());
            return Err(Error::option(
                option,
                "finite constants, the lower bound first",
                format!("{:?}", self.function),
            ));
        }
        Ok(vec![mapped(builder, x, self.function)?.with_mask(x.mask())])
    }
}

/// `f(x)`, without mask.
pub(super) fn mapped(builder: &mut Builder, x: &Value, function: Function) -> Result<Value> {
    if let Some(activation) = function.activation() {
        return elementwise(builder, x, activation);
    }
    let op = Map { function, name: builder.name(), parts: std::array::from_fn(|_| Scratch::new()) };
    match function.is_step() {
        true => builder.constant_op(op, &[x], x.shape()),
        false => builder.op1(op, &[x], x.shape(), 0..0),
    }
}

struct Map {
    function: Function,
    name: String,
    /// Of a device that puts the function together.
    parts: [Scratch; 2],
}

/// How a device without a kernel for a function computes it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Composition {
    /// `x f(x)`
    Gated(Activation),
    /// `factor f(x)`
    Scaled(Activation, f64),
}

impl Composition {
    fn of(function: Function) -> Option<Self> {
        match function {
            Function::Silu => Some(Composition::Gated(Activation::Sigmoid)),
            Function::HardSwish => Some(Composition::Gated(Activation::KERAS_HARD_SIGMOID)),
            Function::Clip { low: 0.0, high } if high > 0.0 && high.is_finite() => {
                Some(Composition::Scaled(Activation::HardSigmoid { alpha: 1.0 / high, beta: 0.0 }, high))
            }
            _ => None,
        }
    }
}

impl Map {
    /// Whether the function is put together of what the device has; an error where it cannot be.
    fn composition(&self, device: &Device) -> Result<Option<Composition>> {
        if device.is_host() {
            return Ok(None);
        }
        let composition = Composition::of(self.function);
        if composition.is_none() {
            host_only(device, &format!("{:?} of {}", self.function, self.name))?;
        }
        Ok(composition)
    }

    /// `f(x)` of the composition, in the first part.
    fn inner(&mut self, device: &Device, function: Activation, x: TensorRef<'_>) -> Result<()> {
        self.parts.iter_mut().try_for_each(|part| part.grow(device, "parts of a function", x.len()))?;
        let mut inner = self.parts[0].get_mut(x.len())?;
        device.copy(x, inner.reborrow())?;
        device.add_bias_activate(function, None, inner, None)
    }

    fn compose(&mut self, device: &Device, how: Composition, x: TensorRef<'_>, mut y: TensorMut<'_>) -> Result<()> {
        match how {
            Composition::Gated(gate) => {
                self.inner(device, gate, x)?;
                device.multiply(x, self.parts[0].get(x.len())?, y)
            }
            Composition::Scaled(function, factor) => {
                device.copy(x, y.reborrow())?;
                device.add_bias_activate(function, None, y.reborrow(), None)?;
                device.scale(factor, y)
            }
        }
    }

    fn compose_gradient(
        &mut self,
        device: &Device,
        how: Composition,
        [x, dy]: [TensorRef<'_>; 2],
        mut dx: TensorMut<'_>,
    ) -> Result<()> {
        let len = x.len();
        let (function, factor) = match how {
            Composition::Gated(gate) => (gate, None),
            Composition::Scaled(function, factor) => (function, Some(factor)),
        };
        self.inner(device, function, x)?;
        let [inner, part] = &mut self.parts;
        if let Some(factor) = factor {
            device.activation_gradient(function, dy, inner.get(len)?, dx.reborrow())?;
            return device.scale(factor, dx);
        }
        // `dy f(x) + dy x f'(x)`, where neither of the two functions that gate needs x for its derivative.
        device.multiply(dy, x, part.get_mut(len)?)?;
        device.activation_gradient(function, part.get(len)?, inner.get(len)?, dx.reborrow())?;
        device.multiply(dy, inner.get(len)?, part.get_mut(len)?)?;
        device.scale_add(1.0, part.get(len)?, 1.0, dx)
    }
}

impl Op for Map {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        fn run<E: Scalar>(function: Function, x: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
            y.host::<E>()?.iter_mut().zip(x.host::<E>()?).for_each(|(y, x)| *y = E::of(function.apply(x.wide())));
            Ok(())
        }
        let (x, y) = (pass.inputs.get(0)?, pass.outputs.get(0)?);
        match self.composition(device)? {
            Some(how) => self.compose(device, how, x, y),
            None => typed!(device, run(self.function, x, y)),
        }
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        fn run<E: Scalar>(function: Function, [x, y, dy]: [TensorRef<'_>; 3], dx: TensorMut<'_>) -> Result<()> {
            let (x, y, dy) = (x.host::<E>()?, y.host::<E>()?, dy.host::<E>()?);
            for (((dx, dy), x), y) in dx.host::<E>()?.iter_mut().zip(dy).zip(x).zip(y) {
                // No gradient comes back from where none goes in, however steep the function.
                let wide = dy.wide();
                *dx = if wide == 0.0 { E::zero() } else { E::of(wide * function.derivative(x.wide(), y.wide())) };
            }
            Ok(())
        }
        let Some(dx) = pass.dinputs.optional(0) else { return Ok(()) };
        let (x, dy) = (pass.inputs.get(0)?, pass.doutputs.get(0)?);
        match self.composition(device)? {
            Some(how) => self.compose_gradient(device, how, [x, dy], dx),
            None => typed!(device, run(self.function, [x, pass.outputs.get(0)?, dy], dx)),
        }
    }
}

/// A [`Combination`] of the elements of two inputs, whose sample shapes are made one by NumPy's rule of broadcasting. Masks end here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pairwise {
    /// What is made of two elements.
    pub combination: Combination,
}

impl Pairwise {
    /// A layer that combines two inputs.
    pub fn new(combination: Combination) -> Self {
        Pairwise { combination }
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [a, b] = inputs else {
            return Err(Error::shape(builder.name(), "two inputs", inputs.len().to_string()));
        };
        let shape = common_shape(builder, inputs)?;
        let (a, b) = (broadcast(builder, a, &shape)?, broadcast(builder, b, &shape)?);
        let op = match self.combination {
            Combination::Sum => return Ok(vec![merge::sum(builder, &a, &b)?]),
            Combination::Difference => return Ok(vec![merge::difference(builder, &a, &b)?]),
            Combination::Product => return Ok(vec![merge::product(builder, &a, &b)?]),
            combination => MapPairs { combination, name: builder.name() },
        };
        Ok(vec![match self.combination.is_step() {
            true => builder.constant_op(op, &[&a, &b], &shape)?,
            false => builder.op1(op, &[&a, &b], &shape, 0..0)?,
        }])
    }
}

struct MapPairs {
    combination: Combination,
    name: String,
}

impl Op for MapPairs {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        fn run<E: Scalar>(how: Combination, a: TensorRef<'_>, b: TensorRef<'_>, y: TensorMut<'_>) -> Result<()> {
            for ((y, a), b) in y.host::<E>()?.iter_mut().zip(a.host::<E>()?).zip(b.host::<E>()?) {
                *y = E::of(how.apply(a.wide(), b.wide()));
            }
            Ok(())
        }
        host_only(device, &format!("{:?} of {}", self.combination, self.name))?;
        typed!(device, run(self.combination, pass.inputs.get(0)?, pass.inputs.get(1)?, pass.outputs.get(0)?))
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        fn run<E: Scalar>(
            how: Combination,
            [a, b, y, dy]: [TensorRef<'_>; 4],
            da: Option<TensorMut<'_>>,
            db: Option<TensorMut<'_>>,
        ) -> Result<()> {
            let (a, b, y, dy) = (a.host::<E>()?, b.host::<E>()?, y.host::<E>()?, dy.host::<E>()?);
            for (gradient, second) in [(da, false), (db, true)] {
                let Some(gradient) = gradient else { continue };
                for ((((to, dy), a), b), y) in gradient.host::<E>()?.iter_mut().zip(dy).zip(a).zip(b).zip(y) {
                    let (by_a, by_b) = how.derivatives(a.wide(), b.wide(), y.wide());
                    let factor = if second { by_b } else { by_a };
                    *to = if dy.wide() == 0.0 { E::zero() } else { E::of(dy.wide() * factor) };
                }
            }
            Ok(())
        }
        let read = [pass.inputs.get(0)?, pass.inputs.get(1)?, pass.outputs.get(0)?, pass.doutputs.get(0)?];
        let [da, db, ..] = pass.dinputs.each();
        typed!(device, run(self.combination, read, da, db))
    }
}

/// Elements of the second input where the first is not zero, else those of the third, like
/// [ONNX's `Where`](https://onnx.ai/onnx/operators/onnx__Where.html). Sample shapes are made one by NumPy's rule of broadcasting. Masks end
/// here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Where {}

impl Where {
    /// The layer.
    pub fn new() -> Self {
        Where {}
    }

    pub(super) fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
        let [condition, a, b] = inputs else {
            return Err(Error::shape(builder.name(), "three inputs", inputs.len().to_string()));
        };
        let shape = common_shape(builder, inputs)?;
        let condition = broadcast(builder, condition, &shape)?;
        let (a, b) = (broadcast(builder, a, &shape)?, broadcast(builder, b, &shape)?);
        Ok(vec![builder.op1(Choose { zeros: Scratch::new() }, &[&condition, &a, &b], &shape, 0..0)?])
    }
}

struct Choose {
    zeros: Scratch,
}

impl Op for Choose {
    fn forward(&mut self, device: &Device, mut pass: Forward<'_>) -> Result<()> {
        let (condition, a, b) = (pass.inputs.get(0)?, pass.inputs.get(1)?, pass.inputs.get(2)?);
        device.select_rows(condition, a, Some(b), pass.outputs.get(0)?)
    }

    fn backward(&mut self, device: &Device, mut pass: Backward<'_>) -> Result<()> {
        let (condition, dy) = (pass.inputs.get(0)?, pass.doutputs.get(0)?);
        let [of_condition, da, db, ..] = pass.dinputs.each();
        if let Some(of_condition) = of_condition {
            device.fill(of_condition, 0.0)?;
        }
        if let Some(da) = da {
            device.select_rows(condition, dy, None, da)?;
        }
        let Some(db) = db else { return Ok(()) };
        self.zeros.grow(device, "zeros", dy.len())?;
        device.fill(self.zeros.get_mut(dy.len())?, 0.0)?;
        device.select_rows(condition, self.zeros.get(dy.len())?, Some(dy), db)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a device puts together is the function and its derivative.
    #[test]
    fn compositions_are_their_functions() {
        let device = Device::cpu().with_dtype(DType::F64).unwrap();
        let x: Vec<f64> = (-40..=40).map(|i| f64::from(i) * 0.19 + 0.01).collect();
        let dy: Vec<f64> = x.iter().map(|x| 1.5 - x * 0.1).collect();
        for function in [Function::Silu, Function::HardSwish, Function::Clip { low: 0.0, high: 6.0 }] {
            let how = Composition::of(function).unwrap();
            let parts = std::array::from_fn(|_| Scratch::new());
            let mut map = Map { function, name: String::new(), parts };
            let (mut y, mut dx) = (vec![0.0; x.len()], vec![0.0; x.len()]);
            map.compose(&device, how, TensorRef::of(&x), TensorMut::of(&mut y)).unwrap();
            map.compose_gradient(&device, how, [TensorRef::of(&x), TensorRef::of(&dy)], TensorMut::of(&mut dx))
                .unwrap();
            for (i, x) in x.iter().enumerate() {
                let value = function.apply(*x);
                assert!((y[i] - value).abs() < 1e-12, "{function:?} of {x}: {} {value}", y[i]);
                let slope = dy[i] * function.derivative(*x, value);
                assert!((dx[i] - slope).abs() < 1e-12, "{function:?} at {x}: {} {slope}", dx[i]);
            }
        }
        assert_eq!(Composition::of(Function::Erf), None);
    }
}
