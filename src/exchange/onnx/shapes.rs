//! Operators that give the same elements another shape, another order, or repeat them.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Count};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::import::{Importer, Value, fixed, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data, reshaped};
use crate::nn::{Broadcast, Permute};

impl<'f> Importer<'f> {
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

    pub(super) fn reshape(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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
    pub(super) fn reshape_to(&mut self, node: Node<'f>, value: Value, target: &[Count]) -> Result<Value> {
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

    pub(super) fn flatten(&mut self, node: Node<'f>, value: Value) -> Result<Value> {
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

    pub(super) fn squeeze(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    pub(super) fn unsqueeze(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    pub(super) fn transpose(&mut self, node: Node<'f>, value: Value) -> Result<Value> {
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

    pub(super) fn expand(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    pub(super) fn tile(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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
}

fn fold_size(shape: &[usize]) -> Option<usize> {
    super::constant::size(shape)
}
