//! Operators over windows of one axis of space: convolutions and their transposes, pools; and what goes along an axis as a product with a
//! constant matrix.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Elements, Kind};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::import::{Importer, Value, fixed, plain, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::model::GraphTensor;
use crate::nn::{
    AveragePooling1D, Broadcast, Conv1D, Conv1DTranspose, LayerConfig, MatMul, MaxPooling1D, Maximum, Padding, Part,
    Permute, Slice, TimeDistributed,
};

/// Groups of a transposed convolution, and steps of a window with gaps, at most: each is a layer of its own.
const MOST_LAYERS: usize = 256;

impl<'f> Importer<'f> {
    /// The input of a node that goes over windows of one axis: `[samples, channels, steps]`, where other axes of space are of length 1. Which
    /// axis of space it is, and how many samples' rows there are in each.
    fn spatial(&self, node: Node<'f>, x: &Data) -> Result<(usize, usize, usize, usize)> {
        if x.axes.len() < 3 || x.batch_axis() != 0 {
            return Err(node.unsupported(format!("{}, where [samples, channels, steps] is needed", x.described())));
        }
        let Axis::Batch { before: 1, after: rows } = x.axes[0] else {
            return Err(node.unsupported(format!("{}, with the samples behind others in one axis", x.described())));
        };
        let channels = fixed(node, x.axes[1])?;
        let long: Vec<usize> = (2..x.axes.len()).filter(|axis| x.axes[*axis] != Axis::Fixed(1)).collect();
        match long[..] {
            [] => Ok((0, channels, 1, rows)),
            [axis] => Ok((axis - 2, channels, fixed(node, x.axes[axis])?, rows)),
            _ => Err(node
                .unsupported(format!("windows over several axes of {}; this crate has those over one", x.described()))),
        }
    }

    /// Margins of the axis of space `at`, which has `steps`, for windows that span `span`.
    fn window_margins(
        &self,
        node: Node<'f>,
        at: usize,
        axes: usize,
        steps: usize,
        span: usize,
        stride: usize,
    ) -> Result<(usize, usize)> {
        let same =
            steps.div_ceil(stride).saturating_sub(1).saturating_mul(stride).saturating_add(span).saturating_sub(steps);
        match node.text("auto_pad").unwrap_or("NOTSET") {
            "SAME_UPPER" => Ok((same / 2, same - same / 2)),
            "SAME_LOWER" => Ok((same - same / 2, same / 2)),
            "VALID" => Ok((0, 0)),
            _ => {
                let Some(pads) = node.ints("pads") else { return Ok((0, 0)) };
                let pad = |index: usize| pads.get(index).and_then(|pad| usize::try_from(*pad).ok());
                let others = (0..axes)
                    .filter(|axis| *axis != at)
                    .all(|axis| pad(axis) == Some(0) && pad(axis + axes) == Some(0));
                match (pad(at), pad(at + axes)) {
                    (Some(before), Some(after)) if others && pads.len() == 2 * axes => Ok((before, after)),
                    _ => Err(node.unsupported(format!("margins {pads:?}"))),
                }
            }
        }
    }

    /// An attribute of one number for each axis of space, that of the axis `at`; the others must be 1.
    fn along(&self, node: Node<'f>, name: &str, at: usize, axes: usize) -> Result<usize> {
        let Some(values) = node.ints(name) else { return Ok(1) };
        let value = values.get(at).and_then(|value| usize::try_from(*value).ok()).filter(|value| *value > 0);
        match value {
            Some(value) if values.len() == axes => Ok(value),
            _ => Err(node.wrong(format!("{name} {values:?}"))),
        }
    }

    pub(super) fn convolution(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        let Value::Constant(weight) = required(node, inputs, 1)? else {
            return Err(node.unsupported("its weights depend on the samples"));
        };
        let whole = self.whole_axis(node, &x, &weight)?;
        let (x, weight) = match &whole {
            Some((x, weight, _)) => (x.clone(), weight.clone()),
            None => (x, weight),
        };
        let (at, channels, steps, rows) = self.spatial(node, &x)?;
        let axes = x.axes.len() - 2;
        let [filters, width, ref kernel @ ..] = weight.shape[..] else {
            return Err(node.wrong("weights of fewer than three axes"));
        };
        let size = kernel
            .get(at)
            .copied()
            .filter(|_| kernel.len() == axes && kernel.iter().enumerate().all(|(i, n)| i == at || *n == 1));
        let size = size
            .filter(|size| *size > 0)
            .ok_or_else(|| node.unsupported(format!("a kernel of {kernel:?} over {}", x.described())))?;
        let groups = usize::try_from(node.int("group").unwrap_or(1)).ok().filter(|groups| *groups > 0);
        let groups = groups.ok_or_else(|| node.wrong("a number of groups below 1"))?;
        if width.checked_mul(groups) != Some(channels) {
            return Err(
                node.wrong(format!("weights for {width} channels in {groups} groups, but its input has {channels}"))
            );
        }
        let (stride, dilation) = (self.along(node, "strides", at, axes)?, self.along(node, "dilations", at, axes)?);
        let span = (size - 1).saturating_mul(dilation).saturating_add(1);
        let (before, after) = self.window_margins(node, at, axes, steps, span, stride)?;
        let bias = match inputs.get(2).and_then(Option::as_ref) {
            None => None,
            Some(Value::Constant(bias)) => Some(bias.clone()),
            Some(_) => return Err(node.unsupported("its bias depends on the samples")),
        };
        let padding = if (before, after) == (0, 0) { Padding::Valid } else { Padding::Steps { before, after } };
        let layer = Conv1D::new(filters, size)
            .strides(stride)
            .dilation_rate(dilation)
            .groups(groups)
            .padding(padding)
            .use_bias(bias.is_some());
        let mut layer = LayerConfig::from(layer);
        let mut scope = "";
        if rows > 1 {
            layer = TimeDistributed::new(layer).into();
            scope = "conv1d.";
        }
        let stem = self.weight_stem(node, 1, "conv1d");
        let lineages = [Some(weight.lineage), bias.as_ref().map(|bias| bias.lineage)].into_iter().flatten().collect();
        self.budget(node, &weight.shape)?;
        let id = self.weighted(node, &stem, layer, lineages, || {
            // [filters, channels, steps] to [steps, channels, filters].
            let flat = weight.reshaped(vec![filters, width, size]);
            let kernel = flat.permuted(&[2, 1, 0]).and_then(|kernel| kernel.floats()).ok_or_else(|| depends(node))?;
            let mut weights = vec![(format!("{scope}kernel"), kernel)];
            if let Some(bias) = &bias {
                weights.push((format!("{scope}bias"), bias.floats().ok_or_else(|| depends(node))?));
            }
            Ok(weights)
        })?;
        self.over_windows(node, &x, at, [rows, channels, steps], id)
    }

    /// A layer over `[steps, channels]` for data `[samples, channels, …]`.
    fn over_windows(
        &mut self,
        node: Node<'f>,
        x: &Data,
        at: usize,
        [rows, channels, steps]: [usize; 3],
        id: crate::model::LayerId,
    ) -> Result<Value> {
        let (turn, shape): (&[usize], Vec<usize>) =
            if rows > 1 { (&[1, 3, 2], vec![rows, channels, steps]) } else { (&[2, 1], vec![channels, steps]) };
        let mut tensor = self.shaped(node, &x.tensor, &shape)?;
        if steps != 1 && channels != 1 {
            tensor = self.add(node, Permute::new(turn), &[&tensor])?;
        } else {
            let turned: Vec<usize> = turn.iter().map(|axis| shape[axis - 1]).collect();
            tensor = self.shaped(node, &tensor, &turned)?;
        }
        let tensor = self.call(node, id, &[&tensor])?;
        let shape = tensor.shape().to_vec();
        let &[.., count, filters] = &shape[..] else { return Err(node.wrong("a layer without steps")) };
        let tensor = match count == 1 || filters == 1 {
            true => tensor,
            false => self.add(node, Permute::new(turn), &[&tensor])?,
        };
        let mut axes = x.axes.clone();
        axes[1] = Axis::Fixed(filters);
        axes[2 + at] = Axis::Fixed(count);
        Ok(Value::Data(Data { tensor, axes, kind: Kind::Float }))
    }

    pub(super) fn pool(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let mut x = self.data(node, x)?;
        let (at, channels, mut steps, rows) = self.spatial(node, &x)?;
        let axes = x.axes.len() - 2;
        let kernel = node.ints("kernel_shape").ok_or_else(|| node.wrong("it has no kernel_shape"))?;
        if kernel.iter().enumerate().any(|(axis, n)| axis != at && *n != 1) {
            return Err(node.unsupported(format!("windows of {kernel:?} over {}", x.described())));
        }
        let size = self.along(node, "kernel_shape", at, axes)?;
        let stride = self.along(node, "strides", at, axes)?;
        let dilation = self.along(node, "dilations", at, axes)?;
        let mean = node.op() == "AveragePool";
        let size = match dilation {
            1 => size,
            _ if mean => return Err(node.unsupported("means of windows with gaps")),
            _ => (size - 1).saturating_mul(dilation).saturating_add(1),
        };
        let (before, mut after) = self.window_margins(node, at, axes, steps, size, stride)?;
        let counted = mean && node.flag("count_include_pad");
        let whole = steps.saturating_add(before).saturating_add(after);
        let over = whole.saturating_sub(size) % stride;
        let rounded_up = node.flag("ceil_mode") && over != 0;
        if rounded_up {
            // A last window that is not whole, unless it would begin behind the input.
            let last = whole.saturating_sub(size).div_ceil(stride).saturating_mul(stride);
            if last < steps.saturating_add(before) {
                after = after.saturating_add(stride - over);
            }
        }
        if dilation != 1 {
            let y =
                self.largest_with_gaps(node, &x, [rows * channels, steps, size], [before, after, stride, dilation])?;
            let mut axes = x.axes.clone();
            axes[2 + at] = Axis::Fixed(y.1);
            return Ok(Value::Data(Data { tensor: y.0, axes, kind: Kind::Float }));
        }
        let mut padding = if (before, after) == (0, 0) { Padding::Valid } else { Padding::Steps { before, after } };
        if counted && padding != Padding::Valid {
            if rounded_up {
                return Err(node.unsupported("ceil_mode together with count_include_pad"));
            }
            let parts = [
                Part::Filled { value: 0.0, count: before },
                Part::Steps { start: 0, step: 1, count: steps },
                Part::Filled { value: 0.0, count: after },
            ];
            let tensor = self.shaped(node, &x.tensor, &[rows * channels, steps])?;
            let tensor = self.add(node, Slice::of_parts(2, &parts), &[&tensor])?;
            steps = whole;
            x.tensor = tensor;
            x.axes[2 + at] = Axis::Fixed(steps);
            padding = Padding::Valid;
        }
        // Channels of all rows are features alike.
        let layer: LayerConfig = match mean {
            true => AveragePooling1D::new(size).strides(stride).padding(padding).into(),
            false => MaxPooling1D::new(size).strides(stride).padding(padding).into(),
        };
        let name = self.name_for(crate::nn::Layer::stem(&layer));
        let id = self.graph.named_layer(&name, layer).map_err(|e| node.wrong(e))?;
        let all = rows * channels;
        let flat = Data { axes: vec![BATCH, Axis::Fixed(all), Axis::Fixed(steps)], ..x.clone() };
        let Value::Data(pooled) = self.over_windows(node, &flat, 0, [1, all, steps], id)? else {
            return Err(node.wrong("a pool without windows"));
        };
        let mut axes = x.axes.clone();
        axes[2 + at] = pooled.axes[2];
        Ok(Value::Data(Data { axes, ..pooled }))
    }

    /// The largest of windows whose `size` steps, gaps among them, stand `dilation` apart: the tensor `[rows, windows]` and how many windows.
    fn largest_with_gaps(
        &mut self,
        node: Node<'f>,
        x: &Data,
        [rows, steps, size]: [usize; 3],
        [before, after, stride, dilation]: [usize; 4],
    ) -> Result<(GraphTensor, usize)> {
        let whole = steps.saturating_add(before).saturating_add(after);
        let Some(room) = whole.checked_sub(size) else {
            return Err(node.wrong(format!("windows of {size} steps over {whole}")));
        };
        let (count, places) = (room / stride + 1, (size - 1) / dilation + 1);
        if places > MOST_LAYERS {
            return Err(node.unsupported(format!("windows of {places} steps with gaps, more than {MOST_LAYERS}")));
        }
        let mut tensor = self.shaped(node, &x.tensor, &[rows, steps])?;
        if (before, after) != (0, 0) {
            let value = f64::from(f32::MIN);
            let parts = [
                Part::Filled { value, count: before },
                Part::Steps { start: 0, step: 1, count: steps },
                Part::Filled { value, count: after },
            ];
            tensor = self.add(node, Slice::of_parts(2, &parts), &[&tensor])?;
        }
        let mut tensors = Vec::new();
        for place in 0..places {
            let step = isize::try_from(stride).map_err(|_| node.wrong("a stride beyond all steps"))?;
            let part = Part::Steps { start: place * dilation, step, count };
            tensors.push(self.add(node, Slice::of_parts(2, &[part]), &[&tensor])?);
        }
        let tensor = match &tensors[..] {
            [only] => only.clone(),
            several => self.add(node, Maximum::new(), &several.iter().collect::<Vec<_>>())?,
        };
        Ok((tensor, count))
    }

    /// A convolution over two axes of space whose kernel is as long as one of them goes along the other alone: its input with that axis
    /// among the channels, its weights likewise, and which axis that is.
    fn whole_axis(&mut self, node: Node<'f>, x: &Data, weight: &Constant) -> Result<Option<(Data, Constant, usize)>> {
        let (&[_, _, height, width], &[filters, channels, rows, columns]) = (&x.axes[..], &weight.shape[..]) else {
            return Ok(None);
        };
        if height == Axis::Fixed(1) || width == Axis::Fixed(1) || !x.is_plain() || x.batch_axis() != 0 {
            return Ok(None);
        }
        let inputs = fixed(node, x.axes[1])?;
        let spans = [height == Axis::Fixed(rows), width == Axis::Fixed(columns)];
        let margins = |at: usize| {
            let pads = node.ints("pads").unwrap_or_default();
            matches!((pads.get(at), pads.get(at + 2)), (None | Some(0), None | Some(0)))
        };
        let valid = matches!(node.text("auto_pad"), None | Some("NOTSET" | "VALID"));
        let at = match spans {
            [_, true] if margins(1) => 1,
            [true, _] if margins(0) => 0,
            _ => return Ok(None),
        };
        if !valid || inputs != channels || node.int("group").unwrap_or(1) != 1 {
            return Ok(None);
        }
        // [channels, long, whole] to [channels * whole, long], with an axis of 1 where that was.
        let order = if at == 1 { [0, 1, 3, 2] } else { [0, 1, 2, 3] };
        let (long, span) = if at == 1 { (rows, columns) } else { (columns, rows) };
        let steps = if at == 1 { height } else { width };
        let turned = self.permuted(node, x, &order)?;
        let all = channels.saturating_mul(span);
        let axes = match at {
            1 => vec![BATCH, Axis::Fixed(all), steps, Axis::Fixed(1)],
            _ => vec![BATCH, Axis::Fixed(all), Axis::Fixed(1), steps],
        };
        let shape = if at == 1 { vec![filters, all, long, 1] } else { vec![filters, all, 1, long] };
        self.budget(node, &weight.shape)?;
        let moved = weight.permuted(&order).ok_or_else(|| node.wrong("weights of fewer than four axes"))?;
        Ok(Some((Data { axes, ..turned }, moved.reshaped(shape), at)))
    }

    /// A transposed convolution; one for each group.
    pub(super) fn transposed_convolution(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        let Value::Constant(weight) = required(node, inputs, 1)? else {
            return Err(node.unsupported("its weights depend on the samples"));
        };
        let (at, channels, steps, rows) = self.spatial(node, &x)?;
        let axes = x.axes.len() - 2;
        if rows != 1 || axes != 1 {
            return Err(node.unsupported(format!("{}, where [samples, channels, steps] is needed", x.described())));
        }
        let &[of_weight, width, size] = &weight.shape[..] else {
            return Err(node.wrong("weights of other than three axes"));
        };
        let groups = usize::try_from(node.int("group").unwrap_or(1)).ok().filter(|groups| *groups > 0);
        let groups = groups.filter(|groups| channels.is_multiple_of(*groups) && of_weight == channels && size > 0);
        let groups = groups.ok_or_else(|| node.wrong(format!("weights {:?} for {channels} channels", weight.shape)))?;
        if groups > MOST_LAYERS {
            return Err(node.unsupported(format!("{groups} groups, more than {MOST_LAYERS}")));
        }
        let (stride, dilation) = (self.along(node, "strides", at, axes)?, self.along(node, "dilations", at, axes)?);
        let more = node.ints("output_padding").and_then(|values| values.first().copied()).unwrap_or(0);
        let more = usize::try_from(more).map_err(|_| node.wrong(format!("an output_padding of {more}")))?;
        let reach = (size - 1).saturating_mul(dilation).saturating_add(1);
        let spanned = steps.saturating_sub(1).saturating_mul(stride).saturating_add(reach).saturating_add(more);
        let wanted = node.ints("output_shape").and_then(|shape| shape.last().copied());
        let automatic = node.text("auto_pad").unwrap_or("NOTSET");
        let wanted = match (wanted, automatic) {
            (Some(wanted), _) => Some(usize::try_from(wanted).map_err(|_| node.wrong("an output_shape below 0"))?),
            (None, "SAME_UPPER" | "SAME_LOWER") => Some(steps.saturating_mul(stride)),
            (None, _) => None,
        };
        let (before, after) = match wanted {
            // What is over is left out at both ends.
            Some(wanted) => {
                let over = spanned.checked_sub(wanted);
                let over = over.ok_or_else(|| node.unsupported("an output longer than its windows reach"))?;
                let smaller = over / 2;
                if automatic == "SAME_UPPER" { (smaller, over - smaller) } else { (over - smaller, smaller) }
            }
            None => self.window_margins(node, at, axes, steps, reach, stride)?,
        };
        let bias = match inputs.get(2).and_then(Option::as_ref) {
            None => None,
            Some(Value::Constant(bias)) if bias.len() == width.saturating_mul(groups) => Some(bias.clone()),
            Some(_) => return Err(node.unsupported("a bias that is no constant of one number for each filter")),
        };
        let layer = Conv1DTranspose::new(width, size)
            .strides(stride)
            .dilation_rate(dilation)
            .padding(Padding::Steps { before, after })
            .output_padding(more)
            .use_bias(bias.is_some());
        self.budget(node, &weight.shape)?;
        let stem = self.weight_stem(node, 1, "conv1d_transpose");
        let lineage = |constant: &Constant, group: usize| match groups {
            1 => constant.lineage,
            _ => node.lineage(&[constant.lineage, group as u64], 0),
        };
        for group in 0..groups {
            for constant in std::iter::once(&weight).chain(&bias) {
                self.made_of(constant.lineage, lineage(constant, group));
            }
        }
        let own = channels / groups;
        let steps_first = self.shaped(node, &x.tensor, &[channels, steps])?;
        let steps_first = self.add(node, Permute::new(&[2, 1]), &[&steps_first])?;
        let mut parts = Vec::new();
        for group in 0..groups {
            let rows: Vec<usize> = (group * own..(group + 1) * own).collect();
            let of_group = weight.along(0, &rows).ok_or_else(|| node.wrong("weights for other channels"))?;
            let filters: Vec<usize> = (group * width..(group + 1) * width).collect();
            let bias = bias.as_ref().map(|bias| bias.reshaped(vec![bias.len()]));
            let bias = bias.map(|bias| Some(Constant { lineage: lineage(&bias, group), ..bias.along(0, &filters)? }));
            let bias = bias.map(|bias| bias.ok_or_else(|| node.wrong("a bias for other filters"))).transpose()?;
            let lineages = std::iter::once(lineage(&weight, group)).chain(bias.iter().map(|bias| bias.lineage));
            let id = self.weighted(node, &stem, layer.clone().into(), lineages.collect(), || {
                // [channels, filters, steps] to [steps, filters, channels].
                let kernel = of_group.permuted(&[2, 1, 0]).and_then(|kernel| kernel.floats());
                let mut weights = vec![("kernel".to_owned(), kernel.ok_or_else(|| depends(node))?)];
                if let Some(bias) = &bias {
                    weights.push(("bias".to_owned(), bias.floats().ok_or_else(|| depends(node))?));
                }
                Ok(weights)
            })?;
            let input = match groups {
                1 => steps_first.clone(),
                _ => self.add(node, Slice::new(2, group * own, own), &[&steps_first])?,
            };
            parts.push(self.call(node, id, &[&input])?);
        }
        let tensor = self.side_by_side(node, parts)?;
        let &[count, filters] = tensor.shape() else { return Err(node.wrong("a layer without steps")) };
        let tensor = self.add(node, Permute::new(&[2, 1]), &[&tensor])?;
        Ok(Value::Data(Data { tensor, axes: vec![BATCH, Axis::Fixed(filters), Axis::Fixed(count)], kind: Kind::Float }))
    }

    /// Every vector along an axis times a matrix `[from, to]` that training does not change.
    fn times_matrix(&mut self, node: Node<'f>, x: &Data, axis: usize, to: usize, matrix: Vec<f64>) -> Result<Data> {
        let from = fixed(node, x.axes[axis])?;
        self.budget(node, &[from, to])?;
        let sample = x.sample();
        let at = x.sample_axes(axis).start;
        let (outer, inner): (usize, usize) = (sample[..at].iter().product(), sample[at + 1..].iter().product());
        let mut tensor = self.shaped(node, &x.tensor, &[outer, from, inner])?;
        if inner != 1 {
            tensor = self.add(node, Permute::new(&[1, 3, 2]), &[&tensor])?;
        }
        let tensor = self.shaped(node, &tensor, &[outer.saturating_mul(inner), from])?;
        let matrix =
            Constant::new(vec![from, to], Elements::Floats(matrix), node.lineage(&[from as u64, to as u64], axis));
        let weight = self.weight(node, &matrix, &[from, to], false)?;
        let mut tensor = self.add(node, MatMul::new(), &[&tensor, &weight])?;
        if inner != 1 {
            tensor = self.shaped(node, &tensor, &[outer, inner, to])?;
            tensor = self.add(node, Permute::new(&[1, 3, 2]), &[&tensor])?;
        }
        let mut axes = x.axes.clone();
        axes[axis] = Axis::Fixed(to);
        Ok(Data { tensor, axes, kind: x.kind })
    }

    /// Sums of all elements up to each along an axis.
    pub(super) fn running_sum(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        let axis = self.ints(node, inputs.get(1).and_then(Option::as_ref), "axis")?;
        let axis = axis.and_then(|axis| axis.first().copied()).ok_or_else(|| node.wrong("it has no axis"))?;
        let axis = node.axis(axis, x.axes.len())?;
        let n = fixed(node, x.axes[axis])?;
        self.budget(node, &[n, n])?;
        let (exclusive, reverse) = (node.flag("exclusive"), node.flag("reverse"));
        let counts = |from: usize, to: usize| {
            let before = if reverse { from > to } else { from < to };
            f64::from(before || (from == to && !exclusive))
        };
        let matrix = (0..n).flat_map(|from| (0..n).map(move |to| (from, to))).map(|(from, to)| counts(from, to));
        Ok(Value::Data(self.times_matrix(node, &x, axis, n, matrix.collect())?))
    }

    /// An axis of another length, by the nearest elements or between two.
    pub(super) fn resize(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        plain(node, &x)?;
        let rank = x.axes.len();
        let given = |index: usize| inputs.get(index).and_then(Option::as_ref);
        // Upsample, and Resize before version 11, have the factors where the region of interest is now.
        let early = node.op() == "Upsample" || inputs.len() == 2;
        let factors = match given(if early { 1 } else { 2 }) {
            Some(Value::Constant(constant)) if constant.len() > 0 => constant.floats(),
            Some(Value::Constant(_)) => None,
            Some(_) => return Err(node.unsupported("factors that depend on the samples")),
            None => node.attribute("scales").map(|a| a.floats.iter().map(|n| f64::from(*n)).collect()),
        };
        let sizes = self.counts(node, given(3), "sizes")?;
        let shape: Vec<_> = Value::Data(x.clone()).shape();
        let mut changed = Vec::new();
        for (axis, own) in shape.iter().enumerate() {
            let to = match (&sizes, &factors) {
                (Some(sizes), _) => sizes.get(axis).copied().filter(|_| sizes.len() == rank),
                (None, Some(factors)) => {
                    let factor = factors.get(axis).copied().filter(|_| factors.len() == rank);
                    match (factor, own.known()) {
                        (Some(1.0), _) => Some(*own),
                        (Some(factor), Some(n)) if factor > 0.0 => {
                            Some(super::constant::Count::fixed((n as f64 * factor).floor() as i64))
                        }
                        _ => None,
                    }
                }
                (None, None) => None,
            };
            let to = to.ok_or_else(|| node.wrong("neither a size nor a factor for each axis"))?;
            let same = to == *own || (own.known().is_none() && to.known() == self.literal.map(|n| n as i64));
            if !same {
                changed.push((axis, to, factors.as_ref().and_then(|factors| factors.get(axis).copied())));
            }
        }
        let (axis, to, factor) = match changed[..] {
            [] => return Ok(Value::Data(x)),
            [one] => one,
            _ => return Err(node.unsupported("several axes of another length; this crate has sequences")),
        };
        let from = fixed(node, x.axes[axis])?;
        let to = to.known().and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0);
        let to = to.ok_or_else(|| node.wrong("a length that is no whole number above 0"))?;
        self.budget(node, &[from, to])?;
        let scale = factor.unwrap_or(to as f64 / from as f64);
        let transformation = node.text("coordinate_transformation_mode").unwrap_or(if early || node.file.opset < 11 {
            "asymmetric"
        } else {
            "half_pixel"
        });
        let place = |i: usize| match transformation {
            "half_pixel" => Some((i as f64 + 0.5) / scale - 0.5),
            "pytorch_half_pixel" if to > 1 => Some((i as f64 + 0.5) / scale - 0.5),
            "pytorch_half_pixel" => Some(0.0),
            "asymmetric" => Some(i as f64 / scale),
            "align_corners" if to > 1 => Some(i as f64 * from.saturating_sub(1) as f64 / (to - 1) as f64),
            "align_corners" => Some(0.0),
            _ => None,
        };
        let places: Option<Vec<f64>> = (0..to).map(place).collect();
        let places = places.ok_or_else(|| node.unsupported(format!("coordinates by {transformation:?}")))?;
        let last = from.saturating_sub(1);
        let at = |place: f64| (place.max(0.0) as usize).min(last);
        let mut matrix = vec![0.0; from.saturating_mul(to)];
        match node.text("mode").unwrap_or("nearest") {
            "nearest" => {
                let rounded = |place: f64| match node.text("nearest_mode").unwrap_or("round_prefer_floor") {
                    "floor" => place.floor(),
                    "ceil" => place.ceil(),
                    "round_prefer_ceil" => (place + 0.5).floor(),
                    _ => (place - 0.5).ceil(),
                };
                let picked: Vec<usize> = places.iter().map(|place| at(rounded(*place))).collect();
                let times = to / from;
                if to.is_multiple_of(from) && picked.iter().enumerate().all(|(i, p)| i / times == *p) {
                    let sample = x.sample();
                    let start = x.sample_axes(axis).start;
                    let (outer, inner) = (sample[..=start].iter().product(), sample[start + 1..].iter().product());
                    let tensor = self.shaped(node, &x.tensor, &[outer, 1, inner])?;
                    let tensor = self.add(node, Broadcast::new(&[outer, times, inner]), &[&tensor])?;
                    let mut axes = x.axes.clone();
                    axes[axis] = Axis::Fixed(to);
                    return Ok(Value::Data(Data { tensor, axes, kind: x.kind }));
                }
                picked.iter().enumerate().for_each(|(i, p)| matrix[p * to + i] = 1.0);
            }
            "linear" => {
                for (i, place) in places.iter().enumerate() {
                    let place = place.clamp(0.0, last as f64);
                    let (low, high) = (at(place.floor()), at(place.floor() + 1.0));
                    let part = place - place.floor();
                    matrix[low * to + i] += 1.0 - part;
                    matrix[high * to + i] += part;
                }
            }
            mode => return Err(node.unsupported(format!("mode {mode:?}; nearest and linear are computed"))),
        }
        Ok(Value::Data(self.times_matrix(node, &x, axis, to, matrix)?))
    }
}
