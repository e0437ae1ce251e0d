//! Operators that take parts of tensors, put tensors side by side, or add margins.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Count, Kind};
use crate::exchange::onnx::fold::{depends, range};
use crate::exchange::onnx::import::{Importer, Value, fixed, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::model::GraphTensor;
use crate::nn::{Concatenate, Part, Slice};

/// Inputs of one concatenation, at most: many are joined in groups, so that no element is copied often.
const MOST_JOINED: usize = 8;

impl<'f> Importer<'f> {
    /// Parts of a sample's elements along one axis, side by side.
    pub(super) fn parts(&mut self, node: Node<'f>, data: &Data, axis: usize, parts: &[Part]) -> Result<Data> {
        let len = fixed(node, data.axes[axis])?;
        let count = parts.iter().map(|part| part.count()).fold(0usize, usize::saturating_add);
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

    pub(super) fn slice(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    pub(super) fn counts_or_attribute(
        &self,
        node: Node<'_>,
        value: Option<&Value>,
        name: &str,
    ) -> Result<Option<Vec<Count>>> {
        match value {
            None => Ok(node.ints(name).map(|values| values.iter().map(|n| Count::fixed(*n)).collect())),
            some => self.counts(node, some, name),
        }
    }

    pub(super) fn slice_axis(
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

    pub(super) fn split(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
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
        if start != len {
            return Err(node.wrong(format!("parts of {start} elements, where axis {axis} has {len}")));
        }
        Ok(parts)
    }

    /// A value's data with the samples where `like` has them; of a constant weights of its own.
    pub(super) fn beside(&mut self, node: Node<'f>, value: Value, like: &Data) -> Result<Data> {
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

    pub(super) fn concat(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    /// Tensors side by side along their last axis.
    pub(super) fn side_by_side(&mut self, node: Node<'f>, mut tensors: Vec<GraphTensor>) -> Result<GraphTensor> {
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

    pub(super) fn gather(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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

    /// A `GatherND` that picks along the first axis.
    pub(super) fn gather_first(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let (value, picks) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        match picks {
            Value::Constant(picks) if node.int("batch_dims").unwrap_or(0) == 0 && picks.shape.last() == Some(&1) => {
                let mut shape = picks.shape.clone();
                shape.pop();
                self.gather(node, &[Some(value), Some(Value::Constant(picks.reshaped(shape)))])
            }
            _ => Err(node.unsupported("it picks along several axes, or by what depends on the samples")),
        }
    }

    pub(super) fn pad(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
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
