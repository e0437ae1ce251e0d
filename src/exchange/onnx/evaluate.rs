//! The operators, one after the other: what each makes of its inputs. Movements of elements and arithmetic stand here; products,
//! windows and normalisations in `layers`, recurrences in `recurrent`.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Count, Elements, Kind};
use crate::exchange::onnx::fold::{self, combination, depends, function, kind_of, range};
use crate::exchange::onnx::import::{Importer, Value, fixed, plain, required, scalar_constant, shape_constant};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data, reshaped};
use crate::model::GraphTensor;
use crate::nn::{
    ActivationFunction, ActivationLayer, Add, Broadcast, Combination, Concatenate, Function, Multiply, Pairwise, Part,
    Permute, Reduce, Reduction, Slice, Subtract, Where,
};

/// Inputs of one concatenation, at most: many are joined in groups, so that no element is copied often.
const MOST_JOINED: usize = 8;

impl<'f> Importer<'f> {
    /// What a node gives.
    pub fn evaluate(&mut self, node: Node<'f>, mut inputs: Vec<Option<Value>>) -> Result<Vec<Value>> {
        // Products wait for their bias through what does not change them.
        let passes = matches!(node.op(), "Add" | "Identity" | "Cast");
        if !passes {
            for input in &mut inputs {
                *input = input.take().map(|value| self.resolved(node, value)).transpose()?;
            }
        }
        let first = || required(node, &inputs, 0);
        let one = match node.op() {
            "Constant" => self.constant(node)?,
            "Shape" => {
                let shape = first()?.shape();
                let rank = shape.len();
                let bound = |name: &str, default: i64| {
                    let at = node.int(name).unwrap_or(default);
                    let at = if at < 0 { at.saturating_add(rank as i64) } else { at };
                    usize::try_from(at.clamp(0, rank as i64)).unwrap_or(0)
                };
                let (start, end) = (bound("start", 0), bound("end", rank as i64));
                shape_constant(node, shape.get(start..end.max(start)).unwrap_or_default().to_vec())
            }
            "Size" => {
                let product = first()?
                    .shape()
                    .into_iter()
                    .try_fold(Count::fixed(1), |product, n| product.combine(super::constant::Arithmetic::Product, n));
                scalar_constant(node, product.ok_or_else(|| depends(node))?)
            }
            "ConstantOfShape" => self.constant_of_shape(node, &inputs)?,
            "Range" => {
                let constant = |index: usize| match required(node, &inputs, index)? {
                    Value::Constant(constant) => Ok(constant),
                    _ => Err(node.unsupported("its bounds depend on the samples")),
                };
                let most = self.most_elements();
                let counted = Constant::counted(node, &constant(0)?, &constant(1)?, &constant(2)?, most)?;
                self.budget(node, &counted.shape)?;
                Value::Constant(counted)
            }
            "Identity" => first()?,
            "Dropout" => return self.dropout(node, &inputs),
            "Cast" | "CastLike" => self.cast(node, &inputs)?,
            "Reshape" => self.reshape(node, &inputs)?,
            "Flatten" => self.flatten(node, first()?)?,
            "Squeeze" => self.squeeze(node, &inputs)?,
            "Unsqueeze" => self.unsqueeze(node, &inputs)?,
            "Transpose" => self.transpose(node, first()?)?,
            "Slice" => self.slice(node, &inputs)?,
            "Split" => return self.split(node, &inputs),
            "Concat" => self.concat(node, &inputs)?,
            "Gather" => self.gather(node, &inputs)?,
            "Expand" => self.expand(node, &inputs)?,
            "Tile" => self.tile(node, &inputs)?,
            "Pad" => self.pad(node, &inputs)?,
            "Where" => self.choose(node, &inputs)?,
            "Clip" => self.clip(node, &inputs)?,
            "PRelu" => self.prelu(node, &inputs)?,
            "Sum" | "Mean" => self.sums(node, &inputs)?,
            "Einsum" => self.einsum(node, &inputs)?,
            "Trilu" => match first()? {
                Value::Constant(constant) => {
                    let k = self.ints(node, inputs.get(1).and_then(Option::as_ref), "k")?;
                    Value::Constant(constant.triangle(node, k.and_then(|k| k.first().copied()).unwrap_or(0))?)
                }
                _ => return Err(node.unsupported("it is computed for constants alone")),
            },
            "NonZero" => match first()? {
                Value::Constant(constant) => Value::Constant(constant.places(node)?),
                _ => return Err(node.unsupported("how many elements it gives depends on the samples")),
            },
            op if op.starts_with("Reduce") => self.reduce(node, &inputs)?,
            "GlobalAveragePool" => self.global_pool(node, first()?, Reduction::Mean)?,
            "GlobalMaxPool" => self.global_pool(node, first()?, Reduction::Maximum)?,
            "Max" | "Min" if inputs.len() != 2 => {
                let how = combination(node).unwrap_or(Combination::Maximum);
                let mut value = first()?;
                for index in 1..inputs.len() {
                    value = self.pairwise(node, how, value, required(node, &inputs, index)?)?;
                }
                value
            }
            _ => {
                if let Some(how) = combination(node) {
                    return Ok(vec![self.pairwise(node, how, first()?, required(node, &inputs, 1)?)?]);
                }
                if let Some(function) = function(node) {
                    return Ok(vec![match first()? {
                        Value::Constant(constant) => Value::Constant(constant.mapped(node, function)?),
                        value => {
                            let data = self.data(node, value)?;
                            let kind = if function.is_step() && matches!(node.op(), "Not" | "IsNaN") {
                                Kind::Bool
                            } else {
                                data.kind
                            };
                            Value::Data(Data { kind, ..self.map(node, &data, function)? })
                        }
                    }]);
                }
                return self.layer(node, &inputs);
            }
        };
        Ok(vec![one])
    }

    fn constant(&mut self, node: Node<'f>) -> Result<Value> {
        let lineage = node.lineage(&[], 0);
        if let Some(tensor) = node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            let constant = self.file.tensor(tensor)?;
            self.budget(node, &constant.shape)?;
            // Weights stand in initializers, or in constants of several elements.
            let is_weight = constant.kind() == Kind::Float && constant.len() > 1;
            return Ok(Value::Constant(Constant { lineage, is_weight, ..constant }));
        }
        let counts = |values: &[i64]| Elements::Ints(values.iter().map(|value| Count::fixed(*value)).collect());
        let (shape, elements) = if let Some(value) = node.float("value_float") {
            (vec![], Elements::Floats(vec![value]))
        } else if let Some(value) = node.int("value_int") {
            (vec![], counts(&[value]))
        } else if let Some(values) = node.ints("value_ints") {
            (vec![values.len()], counts(values))
        } else if let Some(attribute) = node.attribute("value_floats") {
            let values = attribute.floats.iter().map(|value| f64::from(*value)).collect::<Vec<_>>();
            (vec![values.len()], Elements::Floats(values))
        } else {
            return Err(node.unsupported("a constant that is neither a tensor nor numbers"));
        };
        Ok(Value::Constant(Constant::new(shape, elements, lineage)))
    }

    /// A shape as a constant's: which axis has the samples, and the others' lengths.
    fn constant_shape(&self, node: Node<'_>, counts: &[Count]) -> Result<(Vec<usize>, Option<usize>)> {
        let batch = |count: &Count| count.batch == 1 && count.fixed == 0;
        let batch_axis = counts.iter().position(batch);
        let length = |(axis, count): (usize, &Count)| match count.known() {
            _ if batch_axis == Some(axis) => Ok(1),
            Some(n) => usize::try_from(n).map_err(|_| node.wrong(format!("an axis of {n}"))),
            None => Err(depends(node)),
        };
        Ok((counts.iter().enumerate().map(length).collect::<Result<_>>()?, batch_axis))
    }

    fn constant_of_shape(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let counts = self.counts(node, inputs.first().and_then(Option::as_ref), "shape")?;
        let counts = counts.ok_or_else(|| node.wrong("it has no shape"))?;
        let value = match node.attribute("value").and_then(|attribute| attribute.t.as_ref()) {
            Some(tensor) => self.file.tensor(tensor)?,
            None => Constant::new(vec![1], Elements::Floats(vec![0.0]), 0),
        };
        let (shape, batch_axis) = self.constant_shape(node, &counts)?;
        self.budget(node, &shape)?;
        let filled = Constant::filled(node, shape, &value, batch_axis);
        Ok(Value::Constant(filled.ok_or_else(|| node.wrong("its value has no element"))?))
    }

    fn dropout(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let x = required(node, inputs, 0)?;
        let ratio = match inputs.get(1).and_then(Option::as_ref) {
            Some(value) => value.constant().and_then(Constant::floats).and_then(|values| values.first().copied()),
            None => Some(node.float("ratio").unwrap_or(0.5)),
        };
        let Value::Data(data) = &x else { return Ok(vec![x]) };
        Ok(vec![match ratio {
            Some(ratio) if ratio > 0.0 && ratio < 1.0 => {
                let tensor = self.add(node, crate::nn::Dropout::new(ratio), &[&data.tensor])?;
                Value::Data(Data { tensor, ..data.clone() })
            }
            _ => x,
        }])
    }

    fn cast(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let kind = match (node.op(), node.int("to")) {
            ("CastLike", _) => required(node, inputs, 1)?.kind(),
            (_, Some(1 | 10 | 11 | 16)) => Kind::Float,
            (_, Some(2..=7 | 12 | 13)) => Kind::Int,
            (_, Some(9)) => Kind::Bool,
            (_, to) => return Err(node.unsupported(format!("a cast to the type number {to:?}"))),
        };
        if let Value::Constant(constant) = &value {
            return Ok(Value::Constant(constant.cast(node, kind)?));
        }
        match (value.kind(), kind) {
            (from, to) if from == to => Ok(value),
            (Kind::Int | Kind::Bool, Kind::Float) | (Kind::Bool, Kind::Int) => {
                Ok(Value::Data(Data { kind, ..self.data(node, value)? }))
            }
            (_, Kind::Int) => {
                let data = self.data(node, value)?;
                Ok(Value::Data(Data { kind, ..self.map(node, &data, Function::Truncate)? }))
            }
            (_, _) => {
                let data = self.data(node, value)?;
                let zero = self.map(node, &data, Function::IsZero)?;
                Ok(Value::Data(Data { kind, ..self.map(node, &zero, Function::IsZero)? }))
            }
        }
    }

    // Shapes.

    fn reshape(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let target = match self.counts(node, inputs.get(1).and_then(Option::as_ref), "shape")? {
            Some(target) => target,
            None => {
                let shape = node.ints("shape").ok_or_else(|| node.wrong("it has no shape"))?;
                shape.iter().map(|n| Count::fixed(*n)).collect()
            }
        };
        let shape = value.shape();
        let copied = |(axis, n): (usize, &Count)| match *n == Count::fixed(0) && !node.flag("allowzero") {
            true => shape
                .get(axis)
                .copied()
                .ok_or_else(|| node.wrong(format!("it copies axis {axis}, which its input has not"))),
            false => Ok(*n),
        };
        let target = target.iter().enumerate().map(copied).collect::<Result<Vec<_>>>()?;
        self.reshape_to(node, value, &target)
    }

    /// A value under another shape, of which one axis may be -1.
    fn reshape_to(&mut self, node: Node<'f>, value: Value, target: &[Count]) -> Result<Value> {
        let written = || target.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        match value {
            Value::Constant(constant) => {
                if let (Some(_), Some(_), false) =
                    (constant.batch_axis, constant.uniform(), target.contains(&Count::fixed(-1)))
                {
                    // The same for every sample, whatever its place.
                    let (shape, batch_axis) = self.constant_shape(node, target)?;
                    let filled = Constant::filled(node, shape, &constant, batch_axis);
                    return filled.map(Value::Constant).ok_or_else(|| node.wrong("it has no elements"));
                }
                if let Some(at) = constant.batch_axis {
                    let around = (constant.shape[..at].iter().product(), constant.shape[at + 1..].iter().product());
                    let axes = reshaped(around, target, self.literal, at).filter(|axes| axes.contains(&BATCH));
                    let axes = axes.ok_or_else(|| depends(node))?;
                    let length = |axis: &Axis| if let Axis::Fixed(n) = axis { *n } else { 1 };
                    let batch_axis = axes.iter().position(|axis| *axis == BATCH);
                    let shape = axes.iter().map(length).collect();
                    return Ok(Value::Constant(Constant { batch_axis, ..constant.reshaped(shape) }));
                }
                let known: usize = target
                    .iter()
                    .filter(|n| **n != Count::fixed(-1))
                    .try_fold(1usize, |product, n| product.checked_mul(usize::try_from(n.known()?).ok()?))
                    .ok_or_else(|| depends(node))?;
                let shape: Vec<usize> = target
                    .iter()
                    .map(|n| {
                        n.known()
                            .and_then(|n| usize::try_from(n).ok())
                            .unwrap_or(constant.len().checked_div(known).unwrap_or(0))
                    })
                    .collect();
                match fold_size(&shape) == Some(constant.len()) {
                    true => Ok(Value::Constant(constant.reshaped(shape))),
                    false => Err(node.wrong(format!("shape [{}] for {} elements", written(), constant.len()))),
                }
            }
            value => {
                let data = self.data(node, value)?;
                let around = data.around_batch();
                if self.literal.is_none() && target.iter().all(|n| n.known().is_some_and(|n| n > 0)) {
                    // Written for one number of samples, which this tells.
                    let all = target
                        .iter()
                        .try_fold(1usize, |product, n| product.checked_mul(usize::try_from(n.known()?).ok()?));
                    let elements = around.0 * around.1;
                    self.literal = all.filter(|all| all % elements == 0).map(|all| all / elements).filter(|n| *n > 0);
                }
                let axes = reshaped(around, target, self.literal, data.batch_axis()).ok_or_else(|| {
                    node.unsupported(format!(
                        "{} as [{}] would mix samples, or has another number of elements",
                        data.described(),
                        written()
                    ))
                })?;
                Ok(Value::Data(Data { axes, ..data }))
            }
        }
    }

    fn flatten(&mut self, node: Node<'f>, value: Value) -> Result<Value> {
        let shape = value.shape();
        let axis = node.int("axis").unwrap_or(1);
        let axis = if axis == shape.len() as i64 { shape.len() } else { node.axis(axis, shape.len())? };
        let product = |axes: &[Count]| {
            let product = axes
                .iter()
                .try_fold(Count::fixed(1), |product, n| product.combine(super::constant::Arithmetic::Product, *n));
            product.ok_or_else(|| depends(node))
        };
        let target = [product(&shape[..axis])?, product(&shape[axis..])?];
        self.reshape_to(node, value, &target)
    }

    fn squeeze(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let shape = value.shape();
        let axes = match self.ints(node, inputs.get(1).and_then(Option::as_ref), "axes")? {
            Some(axes) => axes.iter().map(|axis| node.axis(*axis, shape.len())).collect::<Result<Vec<_>>>()?,
            None => (0..shape.len()).filter(|axis| shape[*axis] == Count::fixed(1)).collect(),
        };
        if let Some(axis) = axes.iter().find(|axis| shape[**axis] != Count::fixed(1)) {
            return Err(node.unsupported(format!("it removes axis {axis}, which has {}", shape[*axis])));
        }
        Ok(match value {
            Value::Constant(constant) => {
                let kept: Vec<usize> = (0..shape.len()).filter(|axis| !axes.contains(axis)).collect();
                let batch_axis = constant.batch_axis.and_then(|axis| kept.iter().position(|other| *other == axis));
                let shape = kept.iter().map(|axis| constant.shape[*axis]).collect();
                Value::Constant(Constant { batch_axis, ..constant.reshaped(shape) })
            }
            value => {
                let data = self.data(node, value)?;
                let kept = data.axes.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, axis)| *axis);
                Value::Data(Data { axes: kept.collect(), ..data.clone() })
            }
        })
    }

    fn unsqueeze(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let axes = self.ints(node, inputs.get(1).and_then(Option::as_ref), "axes")?;
        let axes = axes.ok_or_else(|| node.wrong("it has no axes"))?;
        let rank = value.rank() + axes.len();
        let axes = axes.iter().map(|axis| node.axis(*axis, rank)).collect::<Result<Vec<_>>>()?;
        let places: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
        if places.len() != value.rank() {
            return Err(node.wrong("it adds an axis twice"));
        }
        Ok(match value {
            Value::Constant(constant) => {
                let mut shape = vec![1; rank];
                places.iter().zip(&constant.shape).for_each(|(place, n)| shape[*place] = *n);
                let batch_axis = constant.batch_axis.map(|axis| places[axis]);
                Value::Constant(Constant { batch_axis, ..constant.reshaped(shape) })
            }
            value => {
                let data = self.data(node, value)?;
                let mut shape = vec![Axis::Fixed(1); rank];
                places.iter().zip(&data.axes).for_each(|(place, axis)| shape[*place] = *axis);
                Value::Data(Data { axes: shape, ..data })
            }
        })
    }

    fn transpose(&mut self, node: Node<'f>, value: Value) -> Result<Value> {
        let rank = value.rank();
        let order = match node.ints("perm") {
            Some(order) => order.iter().map(|axis| node.axis(*axis, rank)).collect::<Result<Vec<_>>>()?,
            None => (0..rank).rev().collect(),
        };
        let mut sorted = order.clone();
        sorted.sort_unstable();
        if sorted != (0..rank).collect::<Vec<_>>() {
            return Err(node.wrong(format!("an order {order:?} of {rank} axes")));
        }
        match value {
            Value::Constant(constant) => {
                let lineage = node.lineage(&[constant.lineage], 0);
                self.budget(node, &constant.shape)?;
                let moved =
                    constant.permuted(&order).ok_or_else(|| node.wrong("its axes are not those of its input"))?;
                Ok(Value::Constant(Constant { lineage, ..moved }))
            }
            value => {
                let data = self.data(node, value)?;
                Ok(Value::Data(self.permuted(node, &data, &order)?))
            }
        }
    }

    /// The axes in another order. Where those of a sample stay in theirs, nothing moves.
    pub fn permuted(&mut self, node: Node<'f>, data: &Data, order: &[usize]) -> Result<Data> {
        let axes: Vec<Axis> = order.iter().map(|axis| data.axes[*axis]).collect();
        let sample = data.sample();
        let of_sample: Vec<usize> = order.iter().flat_map(|axis| data.sample_axes(*axis)).collect();
        let moving: Vec<usize> = of_sample.iter().copied().filter(|axis| sample[*axis] != 1).collect();
        if moving.is_sorted() {
            return Ok(Data { axes, ..data.clone() });
        }
        let dims: Vec<usize> = of_sample.iter().map(|axis| axis + 1).collect();
        let tensor = self.sample(node, data)?;
        let tensor = self.add(node, Permute::new(&dims), &[&tensor])?;
        Ok(Data { tensor, axes, kind: data.kind })
    }

    // Parts.

    /// Parts of a sample's elements along one axis, side by side.
    fn parts(&mut self, node: Node<'f>, data: &Data, axis: usize, parts: &[Part]) -> Result<Data> {
        let len = fixed(node, data.axes[axis])?;
        let count = parts.iter().map(|part| match part {
            Part::Steps { count, .. } | Part::Filled { count, .. } => *count,
        });
        let count = count.fold(0usize, usize::saturating_add);
        let mut axes = data.axes.clone();
        axes[axis] = Axis::Fixed(count);
        if let [Part::Steps { start: 0, step, count }] = parts
            && *count == len
            && (*step == 1 || len == 1)
        {
            return Ok(Data { axes, ..data.clone() });
        }
        if count == 0 {
            return Err(node.unsupported("it leaves no elements"));
        }
        let at = data.sample_axes(axis).start;
        let tensor = self.sample(node, data)?;
        let tensor = self.add(node, Slice::of_parts(at + 1, parts), &[&tensor])?;
        Ok(Data { tensor, axes, kind: data.kind })
    }

    fn slice(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let mut value = required(node, inputs, 0)?;
        let given = |index: usize| inputs.get(index).and_then(Option::as_ref);
        let starts =
            self.counts_or_attribute(node, given(1), "starts")?.ok_or_else(|| node.wrong("it has no starts"))?;
        let ends = self.counts_or_attribute(node, given(2), "ends")?.ok_or_else(|| node.wrong("it has no ends"))?;
        let axes = self.ints(node, given(3), "axes")?.unwrap_or_else(|| (0..starts.len() as i64).collect());
        let steps = self.ints(node, given(4), "steps")?.unwrap_or_else(|| vec![1; starts.len()]);
        if ends.len() != starts.len() || axes.len() != starts.len() || steps.len() != starts.len() {
            return Err(node.wrong("numbers of starts, ends, axes and steps that differ"));
        }
        for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
            let axis = node.axis(axis, value.rank())?;
            value = self.slice_axis(node, value, axis, start, end, step)?;
        }
        Ok(value)
    }

    fn counts_or_attribute(&self, node: Node<'_>, value: Option<&Value>, name: &str) -> Result<Option<Vec<Count>>> {
        match value {
            None => Ok(node.ints(name).map(|values| values.iter().map(|n| Count::fixed(*n)).collect())),
            some => self.counts(node, some, name),
        }
    }

    fn slice_axis(
        &mut self,
        node: Node<'f>,
        value: Value,
        axis: usize,
        start: Count,
        end: Count,
        step: i64,
    ) -> Result<Value> {
        let length = value.shape()[axis];
        if length.known().is_none() {
            // All samples, or none of this crate's business.
            let ends = end == length || end.known().is_some_and(|end| end >= i64::from(i32::MAX));
            let ends = ends || self.literal.is_some_and(|n| end == Count::fixed(n as i64) && length.batch == 1);
            if step == 1 && start == Count::fixed(0) && ends {
                return Ok(value);
            }
            return Err(node.unsupported(format!("it takes some of the samples (axis {axis}, from {start} to {end})")));
        }
        let (Some(start), Some(end), Some(len)) = (start.known(), end.known(), length.known()) else {
            return Err(depends(node));
        };
        let len = usize::try_from(len).unwrap_or(0);
        let (start, step, count) =
            range(start, end, step, len).ok_or_else(|| node.wrong(format!("a step of {step}")))?;
        match value {
            Value::Constant(constant) => {
                let positions: Vec<usize> =
                    (0..count).map(|i| start.saturating_add_signed(step.saturating_mul(i as isize))).collect();
                let lineage = node.lineage(&[constant.lineage, start as u64, count as u64, step as u64], axis);
                self.budget(node, &[constant.len()])?;
                let picked =
                    constant.along(axis, &positions).ok_or_else(|| node.wrong("elements that its input has not"))?;
                Ok(Value::Constant(Constant { lineage, ..picked }))
            }
            value => {
                let data = self.data(node, value)?;
                Ok(Value::Data(self.parts(node, &data, axis, &[Part::Steps { start, step, count }])?))
            }
        }
    }

    fn split(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let value = required(node, inputs, 0)?;
        let axis = node.axis(node.int("axis").unwrap_or(0), value.rank())?;
        let outputs = node.proto.output.len();
        let len = value.shape()[axis].known().ok_or_else(|| node.unsupported("it takes samples apart"))?;
        let sizes = match self.ints(node, inputs.get(1).and_then(Option::as_ref), "split")? {
            Some(sizes) => sizes,
            None => {
                let count = node.int("num_outputs").unwrap_or(outputs as i64).max(1);
                let size = len.checked_add(count - 1).ok_or_else(|| depends(node))? / count;
                (0..count.min(outputs as i64)).map(|i| size.min(len - size.saturating_mul(i)).max(0)).collect()
            }
        };
        let mut start = 0i64;
        let mut parts = Vec::new();
        for size in sizes {
            let end = start.checked_add(size).filter(|end| size >= 0 && *end <= len);
            let end = end.ok_or_else(|| node.wrong(format!("parts beyond the {len} elements of axis {axis}")))?;
            parts.push(self.slice_axis(node, value.clone(), axis, Count::fixed(start), Count::fixed(end), 1)?);
            start = end;
        }
        Ok(parts)
    }

    /// A value's data with the samples where `like` has them; of a constant weights of its own.
    fn beside(&mut self, node: Node<'f>, value: Value, like: &Data) -> Result<Data> {
        match value {
            Value::Constant(constant) => {
                if constant.shape.len() != like.axes.len() {
                    return Err(node.wrong("inputs of different numbers of axes"));
                }
                let at = like.batch_axis();
                let one = self.of_one_sample(node, &constant, at)?;
                let mut axes: Vec<Axis> = one.shape.iter().map(|n| Axis::Fixed(*n)).collect();
                axes[at] = BATCH;
                let data = Data { tensor: like.tensor.clone(), axes, kind: constant.kind() };
                let tensor = self.weight(node, &one, &data.sample(), true)?;
                Ok(Data { tensor, ..data })
            }
            value => self.data(node, value),
        }
    }

    fn concat(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let values: Vec<Value> = inputs.iter().flatten().cloned().collect();
        let rank = values.first().ok_or_else(|| node.wrong("it has no inputs"))?.rank();
        let axis = node.axis(node.int("axis").unwrap_or(1), rank)?;
        if values.iter().any(|value| value.rank() != rank) {
            return Err(node.wrong("inputs of different numbers of axes"));
        }
        let constants: Option<Vec<&Constant>> = values.iter().map(Value::constant).collect();
        if let Some(constants) = constants {
            self.budget(node, &[constants.iter().map(|constant| constant.len()).sum()])?;
            return Ok(Value::Constant(Constant::joined(node, &constants, axis)?));
        }
        let like =
            values.iter().find_map(|value| if let Value::Data(data) = value { Some(data.clone()) } else { None });
        let like = like.ok_or_else(|| node.wrong("it has no inputs"))?;
        let parts = values.into_iter().map(|value| self.beside(node, value, &like)).collect::<Result<Vec<_>>>()?;
        Ok(Value::Data(self.joined(node, &parts, axis)?))
    }

    /// Data side by side along an axis.
    pub fn joined(&mut self, node: Node<'f>, parts: &[Data], axis: usize) -> Result<Data> {
        let [first, ..] = parts else { return Err(node.wrong("it has no inputs")) };
        let mut count = 0usize;
        for part in parts {
            let alike = part.axes.len() == first.axes.len()
                && part.axes.iter().zip(&first.axes).enumerate().all(|(i, (a, b))| i == axis || a == b);
            if !alike {
                return Err(node.wrong(format!(
                    "{} beside {}, along axis {axis}",
                    part.described(),
                    first.described()
                )));
            }
            count += fixed(node, part.axes[axis])?;
        }
        let mut axes = first.axes.clone();
        axes[axis] = Axis::Fixed(count);
        let at = first.sample_axes(axis).start;
        let mut tensors = Vec::new();
        let outer: usize = first.sample()[..at].iter().product();
        for part in parts {
            let width: usize = part.sample()[at..].iter().product();
            let shape = if outer == 1 { vec![width] } else { vec![outer, width] };
            tensors.push(self.shaped(node, &part.tensor, &shape)?);
        }
        let kind = parts.iter().map(|part| part.kind).find(|kind| *kind == Kind::Float).unwrap_or(first.kind);
        let tensor = self.side_by_side(node, tensors)?;
        Ok(Data { tensor, axes, kind })
    }

    /// Tensors side by side along their last axis.
    fn side_by_side(&mut self, node: Node<'f>, mut tensors: Vec<GraphTensor>) -> Result<GraphTensor> {
        while tensors.len() > 1 {
            let mut joined = Vec::new();
            for group in tensors.chunks(MOST_JOINED) {
                joined.push(match group {
                    [only] => only.clone(),
                    group => self.add(node, Concatenate::new(), &group.iter().collect::<Vec<_>>())?,
                });
            }
            tensors = joined;
        }
        tensors.pop().ok_or_else(|| node.wrong("it has no inputs"))
    }

    fn gather(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let (value, picks) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        let axis = node.axis(node.int("axis").unwrap_or(0), value.rank())?;
        let picks = match picks {
            Value::Constant(picks) => picks,
            picks => {
                let Value::Constant(table) = value else {
                    return Err(node.unsupported("which elements it picks, and from what, both depend on the samples"));
                };
                let picks = self.data(node, picks)?;
                return self.embedding(node, &table, axis, picks);
            }
        };
        let length = value.shape()[axis];
        let counts = picks.counts().ok_or_else(|| node.wrong("indices that are no whole numbers"))?;
        let Some(len) = length.known() else {
            return Err(node.unsupported(format!("it picks among the samples, which stand in axis {axis}")));
        };
        let position = |count: Count| {
            let index = count.known().ok_or_else(|| depends(node))?;
            let counted = if index < 0 { index.saturating_add(len) } else { index };
            usize::try_from(counted)
                .ok()
                .filter(|position| (*position as i64) < len)
                .ok_or_else(|| node.wrong(format!("index {index} of an axis of {len}")))
        };
        let positions = counts.into_iter().map(position).collect::<Result<Vec<_>>>()?;
        match value {
            Value::Constant(constant) => {
                let mut shape = constant.shape.clone();
                shape.splice(axis..=axis, picks.shape.iter().copied());
                let moved = |batch: usize| if batch > axis { batch + picks.shape.len() - 1 } else { batch };
                let batch_axis = constant.batch_axis.map(moved);
                let lineage = node.lineage(&[constant.lineage, picks.lineage], axis);
                self.budget(node, &shape)?;
                let picked =
                    constant.along(axis, &positions).ok_or_else(|| node.wrong("elements that its input has not"))?;
                Ok(Value::Constant(Constant { lineage, batch_axis, ..picked.reshaped(shape) }))
            }
            value => {
                let data = self.data(node, value)?;
                let picked = self.parts(node, &data, axis, &runs(&positions))?;
                let mut axes = picked.axes.clone();
                axes.splice(axis..=axis, picks.shape.iter().map(|n| Axis::Fixed(*n)));
                Ok(Value::Data(Data { axes, ..picked }))
            }
        }
    }

    fn pad(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let given = |index: usize| inputs.get(index).and_then(Option::as_ref);
        let pads = self.ints(node, given(1), "pads")?.ok_or_else(|| node.wrong("it has no pads"))?;
        let filling = match given(2) {
            Some(Value::Constant(constant)) => {
                constant.floats().and_then(|values| values.first().copied()).unwrap_or(0.0)
            }
            Some(_) => return Err(node.unsupported("what it fills the margin with depends on the samples")),
            None => node.float("value").unwrap_or(0.0),
        };
        let axes = match self.ints(node, given(3), "axes")? {
            Some(axes) => axes.iter().map(|axis| node.axis(*axis, value.rank())).collect::<Result<Vec<_>>>()?,
            None => (0..value.rank()).collect(),
        };
        if pads.len() != 2 * axes.len() {
            return Err(node.wrong(format!("{} margins for {} axes", pads.len(), axes.len())));
        }
        let mode = node.text("mode").unwrap_or("constant");
        if pads.iter().all(|pad| *pad == 0) {
            return Ok(value);
        }
        let Value::Data(mut data) = value else {
            return Err(node.unsupported("a constant with a margin"));
        };
        for (index, axis) in axes.iter().enumerate() {
            let (before, after) = (pads[index], pads[index + axes.len()]);
            if (before, after) != (0, 0) {
                let len = fixed(node, data.axes[*axis])?;
                let parts = margins(mode, before, after, len, filling).ok_or_else(|| {
                    node.unsupported(format!("a margin of {before} and {after} around {len} elements in mode {mode:?}"))
                })?;
                data = self.parts(node, &data, *axis, &parts)?;
            }
        }
        Ok(Value::Data(data))
    }

    // Repeats.

    fn expand(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let mut value = required(node, inputs, 0)?;
        let target = self.counts(node, inputs.get(1).and_then(Option::as_ref), "shape")?;
        let target = target.ok_or_else(|| node.wrong("it has no shape"))?;
        let samples = Count { batch: 1, fixed: 0 };
        if let Value::Constant(constant) = &value
            && let Some(at) = target.iter().position(|n| *n == samples)
            && let Some(own) = (at + constant.shape.len()).checked_sub(target.len())
        {
            // Written for a fixed number of samples.
            value = Value::Constant(self.of_one_sample(node, constant, own)?);
        }
        let shape = value.shape();
        let rank = shape.len().max(target.len());
        let at = |axes: &[Count], axis: usize| {
            (axis + axes.len()).checked_sub(rank).map_or(Count::fixed(1), |own| axes[own])
        };
        let one = Count::fixed(1);
        // Each axis's length: that of the one that is not 1.
        let length = |axis: usize| match (at(&shape, axis), at(&target, axis)) {
            (own, wanted) if wanted == one || own == wanted => Ok(own),
            (own, wanted) if own == one => Ok(wanted),
            // Written for a fixed number of samples.
            (own, wanted)
                if own.batch == 1
                    && own.fixed == 0
                    && wanted.known().is_some_and(|n| Some(n) == self.literal.map(|n| n as i64)) =>
            {
                Ok(own)
            }
            (own, wanted) => Err(node.wrong(format!("an axis of {own} for {wanted}"))),
        };
        let wanted = (0..rank).map(length).collect::<Result<Vec<_>>>()?;
        match value {
            Value::Constant(constant) => {
                let (shape, batch_axis) = self.constant_shape(node, &wanted)?;
                self.budget(node, &shape)?;
                let wide = constant.broadcast(&shape).ok_or_else(|| node.wrong("shapes that do not go together"))?;
                Ok(Value::Constant(Constant { batch_axis: wide.batch_axis.or(batch_axis), ..wide }))
            }
            value => {
                let data = self.data(node, value)?;
                let missing = rank - data.axes.len();
                let mut axes = vec![Axis::Fixed(1); missing];
                axes.extend(&data.axes);
                let same = Data { axes, ..data };
                let tensor = self.sample(node, &same)?;
                let mut axes = same.axes.clone();
                for (axis, wanted) in axes.iter_mut().zip(&wanted) {
                    if let Axis::Fixed(n) = axis {
                        *n = wanted
                            .known()
                            .and_then(|n| usize::try_from(n).ok())
                            .ok_or_else(|| node.unsupported("it repeats elements of each sample over the samples"))?;
                    }
                }
                let wide = Data { axes, ..same };
                let shape = wide.sample();
                if tensor.shape() == shape {
                    return Ok(Value::Data(Data { tensor, ..wide }));
                }
                let tensor = self.add(node, Broadcast::new(&shape), &[&tensor])?;
                Ok(Value::Data(Data { tensor, ..wide }))
            }
        }
    }

    fn tile(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let value = required(node, inputs, 0)?;
        let repeats = self.ints(node, inputs.get(1).and_then(Option::as_ref), "repeats")?;
        let repeats = repeats.ok_or_else(|| node.wrong("it has no repeats"))?;
        let repeats: Option<Vec<usize>> = repeats.iter().map(|n| usize::try_from(*n).ok()).collect();
        let repeats = repeats.filter(|repeats| repeats.len() == value.rank());
        let repeats = repeats.ok_or_else(|| node.wrong("repeats that are not one for each axis"))?;
        match value {
            Value::Constant(constant) => {
                let shape: Vec<usize> =
                    constant.shape.iter().zip(&repeats).map(|(n, times)| n.saturating_mul(*times)).collect();
                self.budget(node, &shape)?;
                Ok(Value::Constant(constant.tiled(node, &repeats)?))
            }
            value => {
                let mut data = self.data(node, value)?;
                for (axis, times) in repeats.into_iter().enumerate().filter(|(_, times)| *times != 1) {
                    let len = fixed(node, data.axes[axis])?;
                    let at = data.sample_axes(axis).start;
                    let sample = data.sample();
                    let (outer, inner): (usize, usize) = (sample[..at].iter().product(), sample[at..].iter().product());
                    let tensor = self.shaped(node, &data.tensor, &[outer, 1, inner])?;
                    let tensor = self.add(node, Broadcast::new(&[outer, times, inner]), &[&tensor])?;
                    data.axes[axis] = Axis::Fixed(len.saturating_mul(times));
                    data.tensor = tensor;
                }
                Ok(Value::Data(data))
            }
        }
    }

    // Arithmetic.

    /// Several values of one shape by NumPy's rule: their tensors, which a layer still has to repeat, and the axes of the result.
    fn aligned(&mut self, node: Node<'f>, values: &[Value], trainable: bool) -> Result<(Vec<GraphTensor>, Vec<Axis>)> {
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
    fn of_kind(&mut self, node: Node<'f>, how: Combination, data: Data) -> Result<Data> {
        if how == Combination::Quotient && data.kind == Kind::Int {
            self.map(node, &data, Function::Truncate)
        } else {
            Ok(data)
        }
    }

    /// Whether a constant, repeated, leaves a value's shape as it is.
    fn repeats(&self, constant: &Constant, other: &Value) -> bool {
        let shape = other.shape();
        let Some(missing) = shape.len().checked_sub(constant.shape.len()) else { return false };
        constant.shape.iter().zip(&shape[missing..]).enumerate().all(|(axis, (n, length))| {
            let samples = length.batch == 1 && length.fixed == 0;
            *n == 1 && (constant.batch_axis != Some(axis) || samples)
                || length.known() == i64::try_from(*n).ok()
                || samples && Some(*n) == self.literal
        })
    }

    fn choose(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    fn clip(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    fn prelu(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let (x, slope) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        let data = self.data(node, x)?;
        let above = self.map(node, &data, Function::Relu)?;
        let negative = self.map(node, &data, Function::Affine { alpha: -1.0, beta: 0.0 })?;
        let below = self.map(node, &negative, Function::Relu)?;
        let scaled = self.pairwise(node, Combination::Product, Value::Data(below), slope)?;
        self.pairwise(node, Combination::Difference, Value::Data(above), scaled)
    }

    fn sums(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    /// A product of two tensors as letters say: axes of both that the result has stay side by side, those that it has not are summed over.
    fn einsum(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let equation: String = node.text("equation").unwrap_or_default().split_whitespace().collect();
        let parsed = equation.split_once("->").and_then(|(from, to)| Some((from.split_once(',')?, to)));
        let Some(((a, b), to)) = parsed else {
            return Err(node.unsupported(format!("the equation {equation:?}; two inputs and \"->\" are computed")));
        };
        let letters = |text: &str| -> Result<Vec<char>> {
            let letters: Vec<char> = text.chars().collect();
            let fine = letters.iter().enumerate().all(|(i, c)| c.is_ascii_alphabetic() && !letters[..i].contains(c));
            if fine { Ok(letters) } else { Err(node.unsupported(format!("the equation {equation:?}"))) }
        };
        let (a, b, to) = (letters(a)?, letters(b)?, letters(to)?);
        let (mut left, mut right) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        if left.rank() != a.len() || right.rank() != b.len() {
            return Err(node.wrong(format!(
                "the equation {equation:?} for inputs of {} and {} axes",
                left.rank(),
                right.rank()
            )));
        }
        let both: Vec<char> = a.iter().copied().filter(|c| b.contains(c) && to.contains(c)).collect();
        let summed: Vec<char> = a.iter().copied().filter(|c| b.contains(c) && !to.contains(c)).collect();
        let of_a: Vec<char> = a.iter().copied().filter(|c| !b.contains(c)).collect();
        let of_b: Vec<char> = b.iter().copied().filter(|c| !a.contains(c)).collect();
        let all = [&both[..], &of_a, &of_b].concat();
        if all.len() != to.len() || !all.iter().all(|c| to.contains(c)) {
            return Err(node.unsupported(format!("the equation {equation:?}, which sums over an axis of one input")));
        }
        let length = |letters: &[char], value: &Value, letter: char| {
            letters.iter().position(|c| *c == letter).map_or(Count::fixed(1), |axis| value.shape()[axis])
        };
        let lengths: Vec<Count> =
            all.iter().map(|c| if a.contains(c) { length(&a, &left, *c) } else { length(&b, &right, *c) }).collect();
        let product = |letters: &[char], of: &[char], value: &Value| {
            let product = letters.iter().try_fold(Count::fixed(1), |product, c| {
                product.combine(super::constant::Arithmetic::Product, length(of, value, *c))
            });
            product.ok_or_else(|| depends(node))
        };
        let ends = [product(&of_a, &a, &left)?, product(&summed, &a, &left)?, product(&of_b, &b, &right)?];
        let leading: Vec<Count> = both.iter().map(|c| length(&a, &left, *c)).collect();
        for (value, own, order, last) in [
            (&mut left, &a, [&both[..], &of_a, &summed].concat(), [ends[0], ends[1]]),
            (&mut right, &b, [&both[..], &summed, &of_b].concat(), [ends[1], ends[2]]),
        ] {
            let axes: Vec<usize> = order.iter().filter_map(|c| own.iter().position(|other| other == c)).collect();
            let turned = match &*value {
                Value::Constant(constant) => {
                    self.budget(node, &constant.shape)?;
                    let moved = constant.permuted(&axes).ok_or_else(|| node.wrong("axes that its input has not"))?;
                    let lineage = node.lineage(&[constant.lineage], 0);
                    Value::Constant(Constant { lineage, ..moved })
                }
                Value::Data(data) => Value::Data(self.permuted(node, &data.clone(), &axes)?),
                Value::Product(..) => return Err(node.wrong("a product that waits for its bias")),
            };
            let target = [&leading[..], &last].concat();
            *value = self.reshape_to(node, turned, &target)?;
        }
        let product = self.products(node, left, right)?;
        let product = self.resolved(node, product)?;
        let result = self.reshape_to(node, product, &lengths)?;
        let order: Vec<usize> = to.iter().filter_map(|c| all.iter().position(|other| other == c)).collect();
        match result {
            Value::Data(data) => Ok(Value::Data(self.permuted(node, &data, &order)?)),
            other => Ok(other),
        }
    }

    fn reduce(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    fn reduced(
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

    fn global_pool(&mut self, node: Node<'f>, value: Value, reduction: Reduction) -> Result<Value> {
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
        let len = fixed(node, data.axes[axis])?;
        let sample = data.sample();
        let at = data.sample_axes(axis).start;
        let (outer, inner): (usize, usize) = (sample[..at].iter().product(), sample[at + 1..].iter().product());
        if inner == 1 {
            let shape = if outer == 1 { vec![len] } else { vec![outer, len] };
            let tensor = self.shaped(node, &data.tensor, &shape)?;
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

fn fold_size(shape: &[usize]) -> Option<usize> {
    super::constant::size(shape)
}

/// Positions as runs of equal steps.
fn runs(positions: &[usize]) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    for position in positions {
        if let Some(Part::Steps { start, step, count }) = parts.last_mut() {
            let difference = position.checked_signed_diff(*start).unwrap_or(0);
            if *count == 1 && difference != 0 {
                (*step, *count) = (difference, 2);
                continue;
            }
            if *count > 1 && difference == step.saturating_mul(*count as isize) {
                *count += 1;
                continue;
            }
        }
        parts.push(Part::Steps { start: *position, step: 1, count: 1 });
    }
    parts
}

/// An axis with a margin; `None` for modes and margins that are not.
fn margins(mode: &str, before: i64, after: i64, len: usize, value: f64) -> Option<Vec<Part>> {
    // Margins below zero leave elements out.
    let cut = |margin: i64| usize::try_from(margin.saturating_neg().max(0)).ok();
    let (skipped, dropped) = (cut(before)?, cut(after)?);
    let kept = len.checked_sub(skipped)?.checked_sub(dropped)?;
    let (before, after) = (usize::try_from(before.max(0)).ok()?, usize::try_from(after.max(0)).ok()?);
    let own = Part::Steps { start: skipped, step: 1, count: kept };
    let (first, last) = (skipped, (skipped + kept).checked_sub(1)?);
    let once = |start: usize| Part::Steps { start, step: 1, count: 1 };
    // Element number `distance` from the start, mirrored without the edge itself.
    let (mut left, mut right) = match mode {
        "constant" => (vec![Part::Filled { value, count: before }], vec![Part::Filled { value, count: after }]),
        "edge" if before.max(after) <= 1 << 16 => (vec![once(first); before], vec![once(last); after]),
        "reflect" if before < kept && after < kept => (
            vec![Part::Steps { start: first + before, step: -1, count: before }],
            vec![Part::Steps { start: last.checked_sub(1).unwrap_or(last), step: -1, count: after }],
        ),
        "wrap" if before <= kept && after <= kept => (
            vec![Part::Steps { start: last + 1 - before, step: 1, count: before }],
            vec![Part::Steps { start: first, step: 1, count: after }],
        ),
        _ => return None,
    };
    let some = |part: &Part| !matches!(part, Part::Steps { count: 0, .. } | Part::Filled { count: 0, .. });
    left.push(own);
    left.append(&mut right);
    left.retain(some);
    Some(left)
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
