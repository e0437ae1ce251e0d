//! Operations of Keras that are no layers, `x + y`, `x[:, -1]` or `keras.ops.relu(x)`, as layers of this crate.

use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value};

use super::merges::{axis_of, joined};
use super::nodes::{Arg, Node};
use super::options::{activation_of_name, log_sigmoid, object};
use super::program::{Arrays, Input, Program};
use crate::nn::*;

/// What an operation does with tensors of these sample shapes; `None` where nothing here does it.
pub(super) fn program(
    class: &str,
    config: &Map<String, Value>,
    node: &Node<'_>,
    shapes: &[&[usize]],
) -> Option<Program> {
    if class == "GetItem" {
        let (layers, numbers) = taken(node, shapes.first()?).filter(|_| shapes.len() == 1)?;
        return Some(Program { numbers, ..Program::chain(layers) });
    }
    let numbers = shapes.iter().all(|shape| shape.is_empty());
    let with_numbers = |program: Program| Program { numbers: program.numbers || numbers, ..program };
    let operation = Operation { class, config, shapes };
    let null = |argument: &Arg<'_>| matches!(argument, Arg::Plain(Value::Null));
    let plain = node.keywords.values().all(null);
    let combination = match class {
        "Add" => Some(Combination::Sum),
        "Subtract" => Some(Combination::Difference),
        "Multiply" => Some(Combination::Product),
        "Divide" | "TrueDivide" => Some(Combination::Quotient),
        "Maximum" => Some(Combination::Maximum),
        "Minimum" => Some(Combination::Minimum),
        "Power" => Some(Combination::Power),
        "Greater" => Some(Combination::Greater),
        "GreaterEqual" => Some(Combination::GreaterOrEqual),
        "Less" => Some(Combination::Less),
        "LessEqual" => Some(Combination::LessOrEqual),
        "Equal" => Some(Combination::Equal),
        _ => None,
    };
    // Empty arguments at the end are left out.
    let mut arguments = &node.arguments[..];
    while let [rest @ .., last] = arguments
        && null(last)
    {
        arguments = rest;
    }
    let program = match (combination, arguments) {
        (Some(how), [Arg::Tensor(_), Arg::Tensor(_)]) => {
            // NumPy's rule looks at the batch too: only tensors of as many axes have theirs in one place.
            let [a, b] = shapes else { return None };
            (a.len() == b.len()).then(|| Program::one(Pairwise::new(how), &[]))
        }
        (Some(how), [Arg::Tensor(_), Arg::Plain(value)]) => operation.with_constant(how, value, false),
        (Some(how), [Arg::Plain(value), Arg::Tensor(_)]) => operation.with_constant(how, value, true),
        (None, [condition @ Arg::Tensor(_), a, b]) if class == "Where" && plain => operation.choice([condition, a, b]),
        (None, [Arg::List(_)]) if plain => return operation.of_several(),
        (None, [Arg::Tensor(_), Arg::Tensor(_)]) if plain => return operation.of_two(),
        (None, [Arg::Tensor(_), Arg::Plain(index)]) if class == "Take" && plain => return operation.take(index),
        (None, [Arg::Tensor(_)]) if plain && shapes.len() == 1 => match operation.of_elements() {
            Some(layers) => Some(Program::chain(layers)),
            None => return operation.of_one(),
        },
        _ => None,
    };
    program.map(with_numbers)
}

/// An operation with its options.
struct Operation<'a> {
    class: &'a str,
    config: &'a Map<String, Value>,
    shapes: &'a [&'a [usize]],
}

impl Operation<'_> {
    fn option(&self, key: &str) -> Option<&Value> {
        self.config.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str, default: f64) -> Option<f64> {
        self.option(key).map_or(Some(default), Value::as_f64).filter(|n| n.is_finite())
    }

    fn flag(&self, key: &str) -> Option<bool> {
        self.option(key).map_or(Some(false), Value::as_bool)
    }

    fn shape(&self) -> Option<&[usize]> {
        self.shapes.first().copied()
    }

    /// Whole numbers, or one.
    fn list(&self, key: &str) -> Option<Vec<i64>> {
        let value = self.option(key)?;
        match value.as_array() {
            Some(list) => list.iter().map(Value::as_i64).collect(),
            None => Some(vec![value.as_i64()?]),
        }
    }

    /// An axis of a sample, counted from 0.
    fn axis(&self, key: &str, default: i64) -> Option<usize> {
        let axis = self.option(key).map_or(Some(default), Value::as_i64)?;
        axis_of(axis, self.shape()?.len())
    }

    /// The axes of a reduction, counted from 0; without the batch, which a sample knows nothing of.
    fn axes(&self) -> Option<Vec<usize>> {
        let rank = self.shape()?.len();
        let axes = self.list("axis")?.into_iter().map(|axis| axis_of(axis, rank));
        let mut axes = axes.collect::<Option<Vec<_>>>()?;
        axes.sort_unstable();
        axes.dedup();
        (!axes.is_empty()).then_some(axes)
    }

    /// A combination with a number or a tensor of the file, which stands first where `first` is set.
    fn with_constant(&self, how: Combination, value: &Value, first: bool) -> Option<Program> {
        if let (Some(number), false) = (value.as_f64(), how.is_step()) {
            return with_number(how, number, first).map(Program::chain);
        }
        let mut p = Program::new();
        let constant = self.constant(&mut p, value, Input::Call(0))?;
        let inputs = if first { [constant, Input::Call(0)] } else { [Input::Call(0), constant] };
        let y = p.add(Pairwise::new(how), &inputs);
        Some(p.giving(&[y]))
    }

    /// Elements of one tensor or another, by a third.
    fn choice(&self, arguments: [&Arg<'_>; 3]) -> Option<Program> {
        let mut p = Program::new();
        let mut tensors = (0..).map(Input::Call);
        let mut ranks = self.shapes.iter().map(|shape| shape.len());
        let rank = ranks.next()?;
        if ranks.any(|other| other != rank) {
            return None;
        }
        let mut inputs = Vec::new();
        for argument in arguments {
            inputs.push(match argument {
                Arg::Tensor(_) => tensors.next()?,
                Arg::Plain(value) => self.constant(&mut p, value, Input::Call(0))?,
                Arg::List(_) => return None,
            });
        }
        let y = p.add(Where::new(), &inputs);
        Some(p.giving(&[y]))
    }

    /// A number, or a tensor that the file holds, as a weight that training leaves as it is.
    fn constant(&self, p: &mut Program, value: &Value, carrier: Input) -> Option<Input> {
        let array = match (value.as_f64(), object(value)) {
            (Some(number), _) => ArrayD::from_elem(IxDyn(&[1]), number),
            (None, Some(("__tensor__" | "__numpy__", config))) => array_of(config.get("value")?)?,
            _ => return None,
        };
        // By NumPy's rule, from the last axis on; the samples must be alike.
        let rank = self.shapes.iter().map(|shape| shape.len()).min()?;
        let mut shape = array.shape().to_vec();
        if shape.len() == rank + 1 {
            let samples = shape.remove(0);
            if samples != 1 {
                return None;
            }
        }
        if shape.is_empty() {
            shape.push(1);
        }
        if shape.len() > rank.max(1) || array.iter().any(|value| !value.is_finite()) {
            return None;
        }
        let array = array.into_shape_with_order(IxDyn(&shape)).ok()?;
        Some(p.add_with(Weight::new(&shape).trainable(false), &[carrier], Arrays::Given(vec![array])))
    }

    /// A function of every element.
    fn of_elements(&self) -> Option<Vec<LayerConfig>> {
        let function = |function: Function| Some(vec![Elementwise::new(function).into()]);
        let named = |name: &str| activation_of_name(name).map(|layer| vec![layer]);
        match self.class {
            "Relu" | "Tanh" | "Sigmoid" | "Softsign" | "Softplus" | "Selu" | "Silu" | "Relu6" | "Mish" => {
                named(&self.class.to_lowercase())
            }
            "HardSigmoid" => named("hard_sigmoid"),
            "HardSilu" => named("hard_silu"),
            "HardTanh" => named("hard_tanh"),
            "Exp" => named("exponential"),
            "LeakyRelu" => function(Function::LeakyRelu { alpha: self.number("negative_slope", 0.2)? }),
            "Elu" => function(Function::Elu { alpha: self.number("alpha", 1.0)? }),
            "Celu" => function(Function::Celu { alpha: self.number("alpha", 1.0)? }),
            "Gelu" => function(Function::Gelu { approximate: self.option("approximate")?.as_bool()? }),
            "Log" => function(Function::Log),
            "Log1p" => Some(vec![
                Elementwise::new(Function::Affine { alpha: 1.0, beta: 1.0 }).into(),
                Elementwise::new(Function::Log).into(),
            ]),
            "Sqrt" => function(Function::Sqrt),
            "Rsqrt" => function(Function::Power { exponent: -0.5 }),
            "Reciprocal" => function(Function::Reciprocal),
            "Square" => function(Function::Power { exponent: 2.0 }),
            "Abs" | "Absolute" => function(Function::Absolute),
            "Negative" => function(Function::Affine { alpha: -1.0, beta: 0.0 }),
            "Sin" => function(Function::Sin),
            "Cos" => function(Function::Cos),
            "Erf" => function(Function::Erf),
            "Sign" => function(Function::Sign),
            "LogSigmoid" => Some(log_sigmoid()),
            "Cast" => {
                let dtype = self.option("dtype")?.as_str()?;
                match dtype.starts_with("float") || dtype.starts_with("bfloat") {
                    true => named("linear"),
                    false if dtype.starts_with("int") => function(Function::Truncate),
                    false => None,
                }
            }
            "Floor" => function(Function::Floor),
            "Ceil" => function(Function::Ceiling),
            "Round" if self.number("decimals", 0.0)? == 0.0 => function(Function::Round),
            "Clip" => {
                function(Function::Clip { low: self.number("x_min", f64::MIN)?, high: self.number("x_max", f64::MAX)? })
            }
            _ => None,
        }
    }

    /// Anything else of one tensor.
    fn of_one(&self) -> Option<Program> {
        let shape = self.shape()?;
        let x = Input::Call(0);
        let mut p = Program::new();
        let y = match self.class {
            "Softmax" | "LogSoftmax" => {
                let axis = self.axis("axis", -1)?;
                let logarithm = self.class == "LogSoftmax";
                match axis + 1 == shape.len() {
                    true if logarithm => p.add(ActivationLayer::new(ActivationFunction::LogSoftmax), &[x]),
                    true => p.add(ActivationLayer::new(ActivationFunction::Softmax), &[x]),
                    false if !logarithm => p.add(Softmax { axis: i64::try_from(axis + 1).ok()? }, &[x]),
                    false => return None,
                }
            }
            "Mean" | "Average" => self.reduced(&mut p, x, Reduction::Mean)?,
            "Sum" => self.reduced(&mut p, x, Reduction::Sum)?,
            "Max" | "Amax" if self.option("initial").is_none() => self.reduced(&mut p, x, Reduction::Maximum)?,
            "Min" | "Amin" if self.option("initial").is_none() => self.reduced(&mut p, x, Reduction::Minimum)?,
            "Var" | "Std" => {
                let mean = self.kept(&mut p, x, Reduction::Mean)?;
                let difference = p.add(Pairwise::new(Combination::Difference), &[x, mean]);
                let squares = p.add(Multiply::new(), &[difference, difference]);
                let y = self.reduced(&mut p, squares, Reduction::Mean)?;
                if self.class == "Std" { p.add(Elementwise::new(Function::Sqrt), &[y]) } else { y }
            }
            "Norm" => {
                // Of vectors, by the sum of squares.
                let order = self.option("ord");
                let usual = order.is_none_or(|ord| ord.as_f64() == Some(2.0) || ord.as_str() == Some("fro"));
                if !usual || (order.is_some() && self.axes()?.len() != 1) {
                    return None;
                }
                let squares = p.add(Multiply::new(), &[x, x]);
                let y = self.reduced(&mut p, squares, Reduction::Sum)?;
                p.add(Elementwise::new(Function::Sqrt), &[y])
            }
            "Logsumexp" => {
                // Less the largest, so that nothing overflows.
                let most = self.kept(&mut p, x, Reduction::Maximum)?;
                let difference = p.add(Pairwise::new(Combination::Difference), &[x, most]);
                let powers = p.add(Elementwise::new(Function::Exp), &[difference]);
                let sum = self.reduced(&mut p, powers, Reduction::Sum)?;
                let logarithm = p.add(Elementwise::new(Function::Log), &[sum]);
                let most = self.reduced(&mut p, x, Reduction::Maximum)?;
                p.add(Pairwise::new(Combination::Sum), &[logarithm, most])
            }
            "Normalize" if self.number("order", 2.0)? == 2.0 => {
                let axis = self.axis("axis", -1)?;
                p.add(UnitNormalization::new().axes(&[i64::try_from(axis + 1).ok()?]), &[x])
            }
            "ExpandDims" => {
                let at = axis_of(self.list("axis")?.first().copied()?, shape.len() + 1)?;
                let mut shape = shape.to_vec();
                shape.insert(at, 1);
                p.reshape(x, &shape)
            }
            "Squeeze" => {
                let axes = match self.option("axis") {
                    Some(_) => self.axes()?,
                    // The batch would go too, were it one sample.
                    None => return None,
                };
                if axes.iter().any(|axis| shape.get(*axis) != Some(&1)) {
                    return None;
                }
                let kept: Vec<usize> =
                    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, n)| *n).collect();
                p.numbers = kept.is_empty();
                p.reshape(x, &kept)
            }
            "Reshape" => {
                let (batch, target) = self.option("newshape")?.as_array()?.split_first()?;
                if !(batch.is_null() || batch.as_i64() == Some(-1)) {
                    return None;
                }
                let axis = |n: &Value| if n.is_null() { Some(-1) } else { n.as_i64() };
                let target = target.iter().map(axis).collect::<Option<Vec<_>>>()?;
                p.numbers = target.is_empty();
                p.add(Reshape::new(&if target.is_empty() { vec![1] } else { target }), &[x])
            }
            "Transpose" => {
                let (batch, axes) =
                    self.list("axes").and_then(|axes| axes.split_first().map(|(b, a)| (*b, a.to_vec())))?;
                let order =
                    axes.iter().map(|axis| Some(axis_of(*axis, shape.len())? + 1)).collect::<Option<Vec<_>>>()?;
                if batch != 0 {
                    return None;
                }
                p.add(Permute::new(&order), &[x])
            }
            "Swapaxes" => {
                let mut order: Vec<usize> = (1..=shape.len()).collect();
                order.swap(self.axis("axis1", 0)?, self.axis("axis2", 0)?);
                p.add(Permute::new(&order), &[x])
            }
            "Flip" => {
                let at = self.axis("axis", 0)?;
                let count = *shape.get(at)?;
                let part = Part::Steps { start: count.checked_sub(1)?, step: -1, count };
                p.add(Slice::of_parts(at + 1, &[part]), &[x])
            }
            "Repeat" => {
                let (at, times) = (self.axis("axis", 0)?, usize::try_from(self.option("repeats")?.as_u64()?).ok()?);
                self.repeated(&mut p, x, at, times, at + 1)?
            }
            "Tile" => {
                let repeats = self.list("repeats")?;
                let (batch, times) = repeats.split_first()?;
                if *batch != 1 || times.len() != shape.len() {
                    return None;
                }
                let changed: Vec<(usize, &i64)> = times.iter().enumerate().filter(|(_, times)| **times != 1).collect();
                match changed[..] {
                    [] => x,
                    [(at, times)] => self.repeated(&mut p, x, at, usize::try_from(*times).ok()?, at)?,
                    _ => return None,
                }
            }
            "Pad" => {
                if self.option("mode").is_some_and(|mode| mode.as_str() != Some("constant")) {
                    return None;
                }
                let pair = |pair: &Value| -> Option<(usize, usize)> {
                    let [before, after] = pair.as_array()?.as_slice() else { return None };
                    Some((usize::try_from(before.as_u64()?).ok()?, usize::try_from(after.as_u64()?).ok()?))
                };
                let pairs = self.option("pad_width")?.as_array()?.iter().map(pair).collect::<Option<Vec<_>>>()?;
                let ((0, 0), pairs) = pairs.split_first()? else { return None };
                let mut y = x;
                for (at, (before, after)) in pairs.iter().enumerate().filter(|(_, pair)| **pair != (0, 0)) {
                    let parts = [
                        Part::Filled { value: 0.0, count: *before },
                        Part::Steps { start: 0, step: 1, count: *shape.get(at)? },
                        Part::Filled { value: 0.0, count: *after },
                    ];
                    y = p.add(Slice::of_parts(at + 1, &parts), &[y]);
                }
                y
            }
            "Split" => return self.split(p),
            "Unstack" => return self.unstack(p),
            _ => return None,
        };
        // Nothing to do is a layer too, so that there is an output.
        let y = if y == x { p.add(ActivationLayer::new(ActivationFunction::Linear), &[x]) } else { y };
        Some(p.giving(&[y]))
    }

    /// One element for all along the axes; they stay with `keepdims`.
    fn reduced(&self, p: &mut Program, x: Input, reduction: Reduction) -> Option<Input> {
        let axes: Vec<usize> = self.axes()?.iter().map(|axis| axis + 1).collect();
        if self.flag("keepdims")? {
            return self.kept(p, x, reduction);
        }
        p.numbers = axes.len() == self.shape()?.len();
        Some(p.add(Reduce::new(reduction, &axes), &[x]))
    }

    /// The same with axes of 1 in their places.
    fn kept(&self, p: &mut Program, x: Input, reduction: Reduction) -> Option<Input> {
        let axes = self.axes()?;
        let from_one: Vec<usize> = axes.iter().map(|axis| axis + 1).collect();
        let y = p.add(Reduce::new(reduction, &from_one), &[x]);
        let shape: Vec<usize> =
            self.shape()?.iter().enumerate().map(|(axis, n)| if axes.contains(&axis) { 1 } else { *n }).collect();
        Some(p.reshape(y, &shape))
    }

    /// An axis `times` as long: with its elements one by one where the copies come behind it, else all of it again.
    fn repeated(&self, p: &mut Program, x: Input, axis: usize, times: usize, copies: usize) -> Option<Input> {
        let shape = self.shape()?;
        let (outer, inner): (usize, usize) =
            (shape.get(..copies)?.iter().product(), shape.get(copies..)?.iter().product());
        let y = p.reshape(x, &[outer, 1, inner]);
        let y = p.add(Broadcast::new(&[outer, times, inner]), &[y]);
        let mut shape = shape.to_vec();
        let length = shape.get_mut(axis)?;
        *length = length.checked_mul(times).filter(|n| *n > 0)?;
        Some(p.reshape(y, &shape))
    }

    /// An element of an axis, which then is none.
    fn take(&self, index: &Value) -> Option<Program> {
        let shape = self.shape()?;
        let at = self.axis("axis", 0)?;
        let signed = i64::try_from(*shape.get(at)?).ok()?;
        let index = index.as_i64()?;
        let place = if index < 0 { index.checked_add(signed)? } else { index };
        let start = usize::try_from(place).ok().filter(|_| place < signed)?;
        let mut p = Program::new();
        let y = p.add(Slice::new(at + 1, start, 1), &[Input::Call(0)]);
        let mut kept = shape.to_vec();
        kept.remove(at);
        p.numbers = kept.is_empty();
        let y = p.reshape(y, &kept);
        Some(p.giving(&[y]))
    }

    /// Parts of an axis, each by itself.
    fn split(&self, mut p: Program) -> Option<Program> {
        let at = self.axis("axis", 0)?;
        let count = *self.shape()?.get(at)?;
        let sections = self.option("indices_or_sections")?;
        let mut ends: Vec<usize> = match sections.as_u64() {
            Some(parts) => {
                let parts = usize::try_from(parts).ok().filter(|n| *n > 0 && count.is_multiple_of(*n))?;
                (1..parts).map(|part| part * (count / parts)).collect()
            }
            None => {
                self.list("indices_or_sections")?.iter().map(|n| usize::try_from(*n).ok()).collect::<Option<_>>()?
            }
        };
        ends.push(count);
        let (mut start, mut outputs) = (0usize, Vec::new());
        for end in ends {
            let count = end.checked_sub(start).filter(|n| *n > 0 && end <= count)?;
            outputs.push(p.add(Slice::new(at + 1, start, count), &[Input::Call(0)]));
            start = end;
        }
        Some(p.giving(&outputs))
    }

    /// Elements of an axis, each by itself; the axis is none then.
    fn unstack(&self, mut p: Program) -> Option<Program> {
        let at = self.axis("axis", 0)?;
        let shape = self.shape()?;
        let count = *shape.get(at)?;
        let said = self.option("num").map_or(Some(count), |n| usize::try_from(n.as_u64()?).ok())?;
        let mut kept = shape.to_vec();
        kept.remove(at);
        if said != count || count > 4096 || kept.is_empty() {
            return None;
        }
        let mut outputs = Vec::new();
        for place in 0..count {
            let y = p.add(Slice::new(at + 1, place, 1), &[Input::Call(0)]);
            outputs.push(p.reshape(y, &kept));
        }
        Some(p.giving(&outputs))
    }

    /// Several tensors side by side, or as an axis of their own.
    fn of_several(&self) -> Option<Program> {
        let mut p = Program::new();
        let mut inputs: Vec<Input> = (0..self.shapes.len()).map(Input::Call).collect();
        let mut shapes: Vec<Vec<usize>> = self.shapes.iter().map(|shape| shape.to_vec()).collect();
        let at = match self.class {
            "Concatenate" => self.axis("axis", -1)?,
            "Stack" => {
                let at = axis_of(self.option("axis").map_or(Some(0), Value::as_i64)?, self.shape()?.len() + 1)?;
                for (input, shape) in inputs.iter_mut().zip(&mut shapes) {
                    if at > shape.len() {
                        return None;
                    }
                    shape.insert(at, 1);
                    *input = p.reshape(*input, shape);
                }
                at
            }
            "Einsum" => return self.einsum(),
            _ => return None,
        };
        let y = joined(&mut p, &inputs, &shapes, at)?;
        let y = if y == Input::Call(0) { p.add(ActivationLayer::new(ActivationFunction::Linear), &[y]) } else { y };
        Some(p.giving(&[y]))
    }

    /// Two tensors.
    fn of_two(&self) -> Option<Program> {
        match self.class {
            "Matmul" => {
                let [a, b] = self.shapes else { return None };
                (a.len() == b.len() && a.len() >= 2).then(|| Program::one(MatMul::new(), &[]))
            }
            "Einsum" => self.einsum(),
            _ => None,
        }
    }

    /// A product of two tensors as letters for their axes say, the first of which is the batch's.
    fn einsum(&self) -> Option<Program> {
        let [left, right] = self.shapes else { return None };
        let equation: String = self.option("subscripts")?.as_str()?.split_whitespace().collect();
        let (from, to) = equation.split_once("->")?;
        let (a, b) = from.split_once(',')?;
        let letters = |text: &str| -> Option<Vec<char>> {
            let letters: Vec<char> = text.chars().collect();
            let mut seen = std::collections::HashSet::new();
            letters.iter().all(|c| c.is_ascii_alphabetic() && seen.insert(*c)).then_some(letters)
        };
        let (a, b, to) = (letters(a)?, letters(b)?, letters(to)?);
        let ((batch, a), (other, b), (last, to)) = (a.split_first()?, b.split_first()?, to.split_first()?);
        if batch != other || batch != last || a.contains(batch) || b.contains(batch) {
            return None;
        }
        if a.len() != left.len() || b.len() != right.len() {
            return None;
        }
        let size = |of: &[char], shape: &[usize], letter: &char| {
            of.iter().position(|other| other == letter).and_then(|axis| shape.get(axis)).copied()
        };
        let both: Vec<char> = a.iter().copied().filter(|c| b.contains(c) && to.contains(c)).collect();
        let summed: Vec<char> = a.iter().copied().filter(|c| b.contains(c) && !to.contains(c)).collect();
        let of_a: Vec<char> = a.iter().copied().filter(|c| !b.contains(c)).collect();
        let of_b: Vec<char> = b.iter().copied().filter(|c| !a.contains(c)).collect();
        let all = [&both[..], &of_a, &of_b].concat();
        if all.len() != to.len() || !all.iter().all(|c| to.contains(c)) {
            return None;
        }
        let mut p = Program::new();
        let product = |letters: &[char], of: &[char], shape: &[usize]| {
            letters.iter().try_fold(1usize, |all, letter| all.checked_mul(size(of, shape, letter)?))
        };
        let count = product(&both, a, left)?;
        let (rows, inner, columns) = (product(&of_a, a, left)?, product(&summed, a, left)?, product(&of_b, b, right)?);
        if inner != product(&summed, b, right)? || count != product(&both, b, right)? {
            return None;
        }
        let mut matrix = |number: usize, of: &[char], order: Vec<char>, shape: [usize; 3]| -> Option<Input> {
            let order: Vec<usize> =
                order.iter().map(|c| of.iter().position(|other| other == c).map(|i| i + 1)).collect::<Option<_>>()?;
            let turned = p.add(Permute::new(&order), &[Input::Call(number)]);
            Some(p.reshape(turned, &shape))
        };
        let first = matrix(0, a, [&both[..], &of_a, &summed].concat(), [count, rows, inner])?;
        let second = matrix(1, b, [&both[..], &summed, &of_b].concat(), [count, inner, columns])?;
        let y = p.add(MatMul::new(), &[first, second]);
        let lengths = all.iter().map(|c| size(a, left, c).or_else(|| size(b, right, c))).collect::<Option<Vec<_>>>()?;
        p.numbers = lengths.is_empty();
        let mut y = p.reshape(y, &lengths);
        if !all.is_empty() && all.as_slice() != to {
            let order: Vec<usize> =
                to.iter().map(|c| all.iter().position(|other| other == c).map(|i| i + 1)).collect::<Option<_>>()?;
            y = p.add(Permute::new(&order), &[y]);
        }
        Some(p.giving(&[y]))
    }
}

/// Numbers in lists of lists, all of one shape.
fn array_of(value: &Value) -> Option<ArrayD<f64>> {
    fn fill(value: &Value, shape: &[usize], values: &mut Vec<f64>) -> Option<()> {
        match (value, shape) {
            (Value::Array(list), [n, rest @ ..]) if list.len() == *n => {
                return list.iter().try_for_each(|value| fill(value, rest, values));
            }
            (Value::Bool(truth), []) => values.push(f64::from(u8::from(*truth))),
            (value, []) => values.push(value.as_f64()?),
            _ => return None,
        }
        Some(())
    }
    let (mut shape, mut first) = (Vec::new(), value);
    while let Value::Array(list) = first {
        shape.push(list.len());
        first = list.first()?;
    }
    let mut values = Vec::new();
    fill(value, &shape, &mut values)?;
    ArrayD::from_shape_vec(IxDyn(&shape), values).ok()
}

/// An operation with a number, which stands first where `first` is set.
fn with_number(combination: Combination, number: f64, first: bool) -> Option<Vec<LayerConfig>> {
    if !number.is_finite() {
        return None;
    }
    let affine = |alpha: f64, beta: f64| Some(vec![Elementwise::new(Function::Affine { alpha, beta }).into()]);
    let clip = |low: f64, high: f64| Some(vec![Elementwise::new(Function::Clip { low, high }).into()]);
    match (combination, first) {
        (Combination::Sum, _) => affine(1.0, number),
        (Combination::Difference, false) => affine(1.0, -number),
        (Combination::Difference, true) => affine(-1.0, number),
        (Combination::Product, _) => affine(number, 0.0),
        (Combination::Quotient, false) if number != 0.0 => affine(1.0 / number, 0.0),
        (Combination::Quotient, true) => Some(vec![
            Elementwise::new(Function::Reciprocal).into(),
            Elementwise::new(Function::Affine { alpha: number, beta: 0.0 }).into(),
        ]),
        (Combination::Power, false) => Some(vec![Elementwise::new(Function::Power { exponent: number }).into()]),
        (Combination::Maximum, _) => clip(number, f64::MAX),
        (Combination::Minimum, _) => clip(f64::MIN, number),
        _ => None,
    }
}

/// Parts of axes: `x[:, -1]`, `x[:, 1:4, ::2]`. The batch must stay whole. Whether one number is left of each sample.
fn taken(node: &Node<'_>, shape: &[usize]) -> Option<(Vec<LayerConfig>, bool)> {
    let [Arg::Tensor(_), Arg::Plain(key)] = &node.arguments[..] else { return None };
    let items: Vec<&Value> = match key.get("items").or(Some(*key)).and_then(Value::as_array) {
        Some(list) => list.iter().collect(),
        None => vec![*key],
    };
    let (batch, items) = items.split_first()?;
    let (class, whole) = object(batch)?;
    if class != "__slice__" || whole.values().any(|value| !value.is_null()) || items.len() > shape.len() {
        return None;
    }
    let (mut layers, mut kept) = (Vec::new(), Vec::new());
    let mut dropped = false;
    for (number, len) in shape.iter().enumerate() {
        let axis = number + 1;
        let Some(item) = items.get(number) else {
            kept.push(i64::try_from(*len).ok()?);
            continue;
        };
        let signed = i64::try_from(*len).ok()?;
        if let Some(place) = item.as_i64() {
            let place = if place < 0 { place + signed } else { place };
            let start = usize::try_from(place).ok().filter(|start| start < len)?;
            layers.push(Slice::new(axis, start, 1).into());
            dropped = true;
            continue;
        }
        let (class, slice) = object(item)?;
        let bound = |key: &str, default: i64| match slice.get(key) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_i64().map(|n| if n < 0 { n.saturating_add(signed) } else { n }.clamp(0, signed)),
        };
        let step = slice.get("step").filter(|v| !v.is_null()).map_or(Some(1), Value::as_i64)?;
        if class != "__slice__" || step < 1 {
            return None;
        }
        let (start, stop) = (bound("start", 0)?, bound("stop", signed)?);
        let count = stop.checked_sub(start).filter(|n| *n > 0)?.checked_add(step - 1)? / step;
        kept.push(count);
        if count != signed {
            let (start, count) = (usize::try_from(start).ok()?, usize::try_from(count).ok()?);
            let part = Part::Steps { start, step: isize::try_from(step).ok()?, count };
            layers.push(Slice::of_parts(axis, &[part]).into());
        }
    }
    if dropped {
        layers.push(Reshape::new(if kept.is_empty() { &[1] } else { &kept[..] }).into());
    }
    Some((layers, dropped && kept.is_empty()))
}
