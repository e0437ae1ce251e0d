//! Arithmetic on elements by the rule of broadcasting, and sums over axes.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Kind};
use crate::exchange::onnx::fold::{self, kind_of};
use crate::exchange::onnx::import::{Importer, Value, fixed, plain, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, Data};
use crate::model::GraphTensor;
use crate::nn::{
    ActivationFunction, ActivationLayer, Add, Combination, Function, Multiply, PRelu, Pairwise, Permute, Reduce,
    Reduction, Subtract, Where,
};

impl<'f> Importer<'f> {
    /// Several values of one shape by NumPy's rule: their tensors, which a layer still has to repeat, and the axes of the result.
    pub(super) fn aligned(
        &mut self,
        node: Node<'f>,
        values: &[Value],
        trainable: bool,
    ) -> Result<(Vec<GraphTensor>, Vec<Axis>)> {
        let rank = values.iter().map(Value::rank).max().unwrap_or(0);
        let from_end = |data: &Data| data.axes.len() - data.batch_axis();
        let datas: Vec<&Data> =
            values.iter().filter_map(|value| if let Value::Data(data) = value { Some(data) } else { None }).collect();
        let first = *datas.first().ok_or_else(|| node.wrong("it has no inputs"))?;
        let place = from_end(first);
        if let Some(other) = datas.iter().find(|data| from_end(data) != place) {
            return Err(node.unsupported(format!(
                "samples in different axes, {} and {}: it would combine different samples",
                first.described(),
                other.described()
            )));
        }
        let at = rank - place;
        let batch = first.axes[first.batch_axis()];
        if let Some(other) = datas.iter().find(|data| data.axes[data.batch_axis()] != batch) {
            return Err(node.unsupported(format!("{} beside {}", first.described(), other.described())));
        }
        let mut axes = vec![Axis::Fixed(1); rank];
        axes[at] = batch;
        let mut tensors = Vec::new();
        for value in values {
            let missing = rank - value.rank();
            let own: Vec<Axis> = match value {
                Value::Constant(constant) => {
                    let one = match at.checked_sub(missing) {
                        Some(axis) => self.of_one_sample(node, constant, axis)?,
                        None => constant.clone(),
                    };
                    let own: Vec<Axis> = one.shape.iter().map(|n| Axis::Fixed(*n)).collect();
                    let mut shape: Vec<usize> = Vec::new();
                    for (axis, n) in one.shape.iter().enumerate() {
                        match axis + missing == at {
                            // As many axes as the others have there.
                            true => shape.extend(std::iter::repeat_n(1, first.sample_axes(first.batch_axis()).len())),
                            false => shape.push(*n),
                        }
                    }
                    let leading = shape.iter().take_while(|n| **n == 1).count().min(shape.len().saturating_sub(1));
                    tensors.push(self.weight(node, &one, &shape[leading..], trainable)?);
                    own
                }
                Value::Data(data) => {
                    let mut full = vec![Axis::Fixed(1); missing];
                    full.extend(&data.axes);
                    tensors.push(self.sample(node, &Data { axes: full, ..data.clone() })?);
                    data.axes.clone()
                }
                Value::Product(..) => return Err(node.wrong("a product that waits for its bias")),
            };
            for (axis, other) in axes[missing..].iter_mut().zip(own) {
                match (*axis, other) {
                    (Axis::Batch { .. }, _) => {}
                    (Axis::Fixed(1), Axis::Fixed(n)) => *axis = Axis::Fixed(n),
                    (Axis::Fixed(n), Axis::Fixed(m)) if m == 1 || n == m => {}
                    _ => return Err(node.wrong("inputs whose shapes do not go together")),
                }
            }
        }
        Ok((tensors, axes))
    }

    /// Two values combined.
    pub fn pairwise(&mut self, node: Node<'f>, how: Combination, a: Value, b: Value) -> Result<Value> {
        if let (Value::Constant(a), Value::Constant(b)) = (&a, &b) {
            let shape = fold::common_shape(&a.shape, &b.shape).unwrap_or_default();
            self.budget(node, &shape)?;
            return Ok(Value::Constant(Constant::combined(node, how, a, b)?));
        }
        // A vector added to a product is its bias.
        if how == Combination::Sum {
            for (product, other) in [(&a, &b), (&b, &a)] {
                if let (Value::Product(x, weight), Value::Constant(bias)) = (product, other) {
                    let units = weight.shape[0];
                    let row =
                        bias.len() == units && bias.shape.last() == Some(&units) && bias.shape.len() <= x.axes.len();
                    if row && bias.batch_axis.is_none() && bias.kind() == Kind::Float {
                        let (x, weight, bias) = (x.clone(), weight.clone(), bias.clone());
                        return Ok(Value::Data(self.dense(node, &x, &weight, Some(&bias))?));
                    }
                }
            }
        }
        let (a, b) = (self.resolved(node, a)?, self.resolved(node, b)?);
        let kind = kind_of(how, a.kind(), b.kind());
        // A number is no tensor.
        let number = |value: &Value, other: &Value| {
            let constant = value.constant()?;
            let alone = constant.len() == 1 && (constant.shape.is_empty() || !constant.is_weight)
                || constant.uniform().is_some() && !constant.is_weight;
            let smaller = constant.shape.len() <= other.rank() && self.repeats(constant, other);
            (alone && smaller).then(|| constant.uniform()).flatten().filter(|value| value.is_finite())
        };
        if let Some((value, function)) = match (number(&a, &b), number(&b, &a)) {
            (_, Some(number)) => after(how, number).map(|functions| (a.clone(), functions)),
            (Some(number), _) => before(how, number).map(|functions| (b.clone(), functions)),
            _ => None,
        } {
            let mut data = self.data(node, value)?;
            for function in function {
                data = self.map(node, &data, function)?;
            }
            return Ok(Value::Data(self.of_kind(node, how, Data { kind, ..data })?));
        }
        let trainable = !how.is_step();
        let (tensors, axes) = self.aligned(node, &[a, b], trainable)?;
        let (x, y) = (&tensors[0], &tensors[1]);
        let same = x.shape() == y.shape();
        let tensor = match how {
            Combination::Sum if same => self.add(node, Add::new(), &[x, y])?,
            Combination::Difference if same => self.add(node, Subtract::new(), &[x, y])?,
            Combination::Product if same => self.add(node, Multiply::new(), &[x, y])?,
            how => self.add(node, Pairwise::new(how), &[x, y])?,
        };
        let data = self.of_kind(node, how, Data { tensor, axes, kind })?;
        Ok(Value::Data(data))
    }

    /// Whole numbers stay whole where they are divided.
    pub(super) fn of_kind(&mut self, node: Node<'f>, how: Combination, data: Data) -> Result<Data> {
        if how == Combination::Quotient && data.kind == Kind::Int {
            self.map(node, &data, Function::Truncate)
        } else {
            Ok(data)
        }
    }

    /// Whether a constant, repeated, leaves a value's shape as it is.
    pub(super) fn repeats(&self, constant: &Constant, other: &Value) -> bool {
        let shape = other.shape();
        let Some(missing) = shape.len().checked_sub(constant.shape.len()) else { return false };
        constant.shape.iter().zip(&shape[missing..]).enumerate().all(|(axis, (n, length))| {
            let samples = length.batch == 1 && length.fixed == 0;
            *n == 1 && (constant.batch_axis != Some(axis) || samples)
                || length.known() == i64::try_from(*n).ok()
                || samples && Some(*n) == self.literal
        })
    }

    pub(super) fn choose(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let values: Vec<Value> = (0..3).map(|index| required(node, inputs, index)).collect::<Result<_>>()?;
        if let [Value::Constant(condition), Value::Constant(a), Value::Constant(b)] = &values[..] {
            self.budget(node, &[a.len().max(b.len()).max(condition.len())])?;
            return Ok(Value::Constant(Constant::chosen(node, condition, a, b)?));
        }
        if let Value::Constant(condition) = &values[0]
            && let Some(holds) = condition.uniform()
        {
            let (chosen, other) = if holds != 0.0 { (&values[1], &values[2]) } else { (&values[2], &values[1]) };
            let wide = |value: &Value| match value {
                Value::Constant(constant) => self.repeats(constant, chosen),
                value => value.shape() == chosen.shape(),
            };
            if wide(other) && self.repeats(condition, chosen) {
                return Ok(chosen.clone());
            }
        }
        let kind = values[1].kind();
        let (tensors, axes) = self.aligned(node, &values, true)?;
        let tensor = self.add(node, Where::new(), &tensors.iter().collect::<Vec<_>>())?;
        Ok(Value::Data(Data { tensor, axes, kind }))
    }

    pub(super) fn clip(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let bound = |index: usize, name: &str, default: f64| match inputs.get(index).and_then(Option::as_ref) {
            Some(Value::Constant(constant)) => {
                constant.uniform().ok_or_else(|| node.wrong(format!("its {name} is no number")))
            }
            Some(_) => Err(node.unsupported(format!("its {name} depends on the samples"))),
            None => Ok(node.float(name).unwrap_or(default)),
        };
        let limit = |bound: f64| bound.clamp(f64::from(f32::MIN), f64::from(f32::MAX));
        let (low, high) = (limit(bound(1, "min", f64::MIN)?), limit(bound(2, "max", f64::MAX)?));
        let function = Function::Clip { low, high };
        match value {
            Value::Constant(constant) => Ok(Value::Constant(constant.mapped(node, function)?)),
            value => {
                let data = self.data(node, value)?;
                Ok(Value::Data(self.map(node, &data, function)?))
            }
        }
    }

    pub(super) fn prelu(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let (x, slope) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        let data = self.data(node, x)?;
        if let Value::Constant(slope) = &slope
            && let Some(y) = self.learned_slope(node, &data, slope)?
        {
            return Ok(Value::Data(y));
        }
        let above = self.map(node, &data, Function::Relu)?;
        let negative = self.map(node, &data, Function::Affine { alpha: -1.0, beta: 0.0 })?;
        let below = self.map(node, &negative, Function::Relu)?;
        let scaled = self.pairwise(node, Combination::Product, Value::Data(below), slope)?;
        self.pairwise(node, Combination::Difference, Value::Data(above), scaled)
    }

    /// A slope for each channel, or one, as a layer; `None` for others.
    fn learned_slope(&mut self, node: Node<'f>, x: &Data, slope: &Constant) -> Result<Option<Data>> {
        let leading = slope.shape.iter().take_while(|n| **n == 1).count();
        let own = slope.shape.get(leading..).unwrap_or_default();
        let sample = x.sample();
        let Some(missing) = sample.len().checked_sub(own.len()) else { return Ok(None) };
        let fits = own.iter().zip(&sample[missing..]).all(|(n, length)| *n == 1 || n == length);
        if !fits || !x.is_plain() || x.batch_axis() != 0 || sample.is_empty() || !slope.is_weight {
            return Ok(None);
        }
        let shape: Vec<usize> = std::iter::repeat_n(1, missing).chain(own.iter().copied()).collect();
        let shared: Vec<usize> = (1..=shape.len()).filter(|axis| shape[axis - 1] == 1).collect();
        let stem = self.weight_stem(node, 1, "p_re_lu");
        let layer = PRelu::new().shared_axes(&shared);
        let id = self.weighted(node, &stem, layer.into(), vec![slope.lineage], || {
            Ok(vec![("alpha".to_owned(), slope.floats().ok_or_else(|| fold::depends(node))?)])
        })?;
        let tensor = self.sample(node, x)?;
        let tensor = self.call(node, id, &[&tensor])?;
        Ok(Some(Data { tensor, ..x.clone() }))
    }

    pub(super) fn sums(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let mut sum = required(node, inputs, 0)?;
        for index in 1..inputs.len() {
            sum = self.pairwise(node, Combination::Sum, sum, required(node, inputs, index)?)?;
        }
        if node.op() == "Sum" {
            return Ok(sum);
        }
        let data = self.data(node, sum)?;
        Ok(Value::Data(self.map(node, &data, Function::Affine { alpha: 1.0 / inputs.len() as f64, beta: 0.0 })?))
    }

    pub(super) fn reduce(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let axes = self.ints(node, inputs.get(1).and_then(Option::as_ref), "axes")?.filter(|axes| !axes.is_empty());
        let keep = node.int("keepdims").unwrap_or(1) != 0;
        let mut axes = match axes {
            Some(axes) => axes.iter().map(|axis| node.axis(*axis, value.rank())).collect::<Result<Vec<_>>>()?,
            None if node.flag("noop_with_empty_axes") => return Ok(value),
            None => (0..value.rank()).collect(),
        };
        axes.sort_unstable();
        axes.dedup();
        if let Value::Constant(constant) = &value {
            return Ok(Value::Constant(constant.reduced(node, &axes, keep)?));
        }
        let mut data = self.data(node, value)?;
        let reduction = match node.op() {
            "ReduceMean" => Reduction::Mean,
            "ReduceMax" => Reduction::Maximum,
            "ReduceMin" => Reduction::Minimum,
            "ReduceSum" | "ReduceL1" | "ReduceL2" | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => {
                Reduction::Sum
            }
            _ => return Err(node.unsupported("this crate has no layer for it")),
        };
        data = match node.op() {
            "ReduceL1" => self.map(node, &data, Function::Absolute)?,
            "ReduceL2" | "ReduceSumSquare" => {
                let tensor = self.add(node, Multiply::new(), &[&data.tensor, &data.tensor])?;
                Data { tensor, ..data }
            }
            "ReduceLogSumExp" => self.map(node, &data, Function::Exp)?,
            _ => data,
        };
        let mut reduced = self.reduced(node, &data, &axes, reduction, keep)?;
        reduced = match node.op() {
            "ReduceL2" => self.map(node, &reduced, Function::Sqrt)?,
            "ReduceLogSum" | "ReduceLogSumExp" => self.map(node, &reduced, Function::Log)?,
            _ => reduced,
        };
        Ok(Value::Data(reduced))
    }

    pub(super) fn reduced(
        &mut self,
        node: Node<'f>,
        data: &Data,
        axes: &[usize],
        reduction: Reduction,
        keep: bool,
    ) -> Result<Data> {
        for axis in axes {
            fixed(node, data.axes[*axis])?;
        }
        let of_sample: Vec<usize> = axes.iter().map(|axis| data.sample_axes(*axis).start + 1).collect();
        let tensor = match of_sample.is_empty() {
            true => data.tensor.clone(),
            false => {
                let tensor = self.sample(node, data)?;
                self.add(node, Reduce::new(reduction, &of_sample), &[&tensor])?
            }
        };
        let left = |(axis, length): (usize, &Axis)| match axes.contains(&axis) {
            true => keep.then_some(Axis::Fixed(1)),
            false => Some(*length),
        };
        let axes = data.axes.iter().enumerate().filter_map(left).collect();
        Ok(Data { tensor, axes, kind: data.kind })
    }

    pub(super) fn global_pool(&mut self, node: Node<'f>, value: Value, reduction: Reduction) -> Result<Value> {
        let data = self.data(node, value)?;
        plain(node, &data)?;
        let axes: Vec<usize> = (2..data.axes.len()).collect();
        Ok(Value::Data(self.reduced(node, &data, &axes, reduction, true)?))
    }

    /// The softmax along an axis, or its logarithm.
    pub fn softmax(&mut self, node: Node<'f>, data: &Data, function: ActivationFunction) -> Result<Data> {
        let rank = data.axes.len();
        if self.file.opset < 13 {
            // Earlier, all axes from the one named were one.
            let axis = node.axis(node.int("axis").unwrap_or(1), rank)?;
            for axis in &data.axes[axis..] {
                fixed(node, *axis)?;
            }
            let sample = data.sample();
            let at = data.sample_axes(axis).start;
            let tensor =
                self.shaped(node, &data.tensor, &[sample[..at].iter().product(), sample[at..].iter().product()])?;
            let tensor = self.add(node, ActivationLayer::new(function), &[&tensor])?;
            return Ok(Data { tensor, ..data.clone() });
        }
        let axis = node.axis(node.int("axis").unwrap_or(-1), rank)?;
        self.softmax_along(node, data, axis, function)
    }

    /// The softmax along an axis.
    pub fn softmax_along(
        &mut self,
        node: Node<'f>,
        data: &Data,
        axis: usize,
        function: ActivationFunction,
    ) -> Result<Data> {
        let len = fixed(node, data.axes[axis])?;
        let sample = data.sample();
        let at = data.sample_axes(axis).start;
        let (outer, inner): (usize, usize) = (sample[..at].iter().product(), sample[at + 1..].iter().product());
        if inner == 1 {
            // Along the last axis, whatever stands in front of it.
            let tensor = match data.tensor.shape().last() == Some(&len) {
                true => data.tensor.clone(),
                false => self.shaped(node, &data.tensor, &if outer == 1 { vec![len] } else { vec![outer, len] })?,
            };
            let tensor = self.add(node, ActivationLayer::new(function), &[&tensor])?;
            return Ok(Data { tensor, ..data.clone() });
        }
        let tensor = self.shaped(node, &data.tensor, &[outer, len, inner])?;
        let tensor = self.add(node, Permute::new(&[1, 3, 2]), &[&tensor])?;
        let tensor = self.add(node, ActivationLayer::new(function), &[&tensor])?;
        let tensor = self.add(node, Permute::new(&[1, 3, 2]), &[&tensor])?;
        Ok(Data { tensor, ..data.clone() })
    }
}

/// A combination with a number on the right as functions of what is on the left.
fn after(how: Combination, number: f64) -> Option<Vec<Function>> {
    let affine = |alpha: f64, beta: f64| Some(vec![Function::Affine { alpha, beta }]);
    let most = f64::from(f32::MAX);
    match how {
        Combination::Sum => affine(1.0, number),
        Combination::Difference => affine(1.0, -number),
        Combination::Product => affine(number, 0.0),
        Combination::Quotient if number != 0.0 => affine(number.recip(), 0.0),
        Combination::Power => Some(vec![Function::Power { exponent: number }]),
        Combination::Maximum => Some(vec![Function::Clip { low: number, high: most.max(number) }]),
        Combination::Minimum => Some(vec![Function::Clip { low: number.min(-most), high: number }]),
        Combination::Equal if number == 0.0 => Some(vec![Function::IsZero]),
        _ => None,
    }
}

/// A combination with a number on the left as functions of what is on the right.
fn before(how: Combination, number: f64) -> Option<Vec<Function>> {
    match how {
        Combination::Difference => Some(vec![Function::Affine { alpha: -1.0, beta: number }]),
        Combination::Quotient => Some(vec![Function::Reciprocal, Function::Affine { alpha: number, beta: 0.0 }]),
        Combination::Power => None,
        how => after(how, number).filter(|_| {
            matches!(
                how,
                Combination::Sum
                    | Combination::Product
                    | Combination::Maximum
                    | Combination::Minimum
                    | Combination::Equal
            )
        }),
    }
}
