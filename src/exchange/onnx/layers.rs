//! Operators that become layers with weights: products, embeddings, normalisations.

use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Elements, Kind};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::import::{Importer, Value, fixed, plain, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::model::GraphTensor;
use crate::nn::{
    ActivationFunction, BatchNormalization, Broadcast, Combination, Dense, Embedding, Function, LayerNormalization,
    MatMul, Permute,
};

impl<'f> Importer<'f> {
    /// What a node with a layer of its own gives.
    pub fn layer(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        Ok(vec![match node.op() {
            "MatMul" => self.matmul(node, inputs)?,
            "Gemm" => self.gemm(node, inputs)?,
            "Softmax" | "LogSoftmax" => {
                let data = required(node, inputs, 0)?;
                let data = self.data(node, data)?;
                let logarithm = node.op() == "LogSoftmax";
                let function = if logarithm { ActivationFunction::LogSoftmax } else { ActivationFunction::Softmax };
                Value::Data(self.softmax(node, &data, function)?)
            }
            "LayerNormalization" => self.layer_normalization(node, inputs)?,
            "BatchNormalization" => self.batch_normalization(node, inputs)?,
            "Conv" => self.convolution(node, inputs)?,
            "ConvTranspose" => self.transposed_convolution(node, inputs)?,
            "InstanceNormalization" | "GroupNormalization" => self.group_normalization(node, inputs)?,
            "CumSum" => self.running_sum(node, inputs)?,
            "Resize" | "Upsample" => self.resize(node, inputs)?,
            "MaxPool" | "AveragePool" => self.pool(node, inputs)?,
            "LSTM" | "GRU" | "RNN" => return self.recurrent(node, inputs),
            "Attention" => return self.attention(node, inputs),
            _ => return Err(node.unsupported("the operator is unknown here")),
        }])
    }

    /// The name of the weight that an input is, where it is one of the file's.
    pub(super) fn weight_stem(&self, node: Node<'f>, index: usize, otherwise: &'static str) -> String {
        Self::stem(node.input(index), otherwise).to_owned()
    }

    /// `x Wᵀ + b` along the last axis; weights `[units, features]`.
    pub fn dense(&mut self, node: Node<'f>, x: &Data, weight: &Constant, bias: Option<&Constant>) -> Result<Data> {
        let &[units, features] = &weight.shape[..] else { return Err(node.wrong("weights that are no matrix")) };
        let last = x.axes.last().copied().ok_or_else(|| node.wrong("a product of a single number"))?;
        if last != Axis::Fixed(features) {
            return Err(node.wrong(format!("{} times a matrix for {features} features", x.described())));
        }
        let tensor = self.sample(node, x)?;
        let mut lineages = vec![weight.lineage];
        lineages.extend(bias.map(|bias| bias.lineage));
        let stem = match bias {
            Some(_) => (0..3).find_map(|index| node.input(index).filter(|name| name.ends_with(".bias"))),
            None => None,
        };
        let stem = Self::stem(stem.or(node.input(1)), "dense").to_owned();
        let layer = Dense::new(units).use_bias(bias.is_some());
        let id = self.weighted(node, &stem, layer.into(), lineages, || {
            let values = |constant: &Constant| constant.floats().ok_or_else(|| depends(node));
            let mut weights = vec![("weight".to_owned(), values(weight)?)];
            if let Some(bias) = bias {
                weights.push(("bias".to_owned(), values(bias)?));
            }
            Ok(weights)
        })?;
        let tensor = self.call(node, id, &[&tensor])?;
        let mut axes = x.axes.clone();
        if let Some(last) = axes.last_mut() {
            *last = Axis::Fixed(units);
        }
        Ok(Data { tensor, axes, kind: Kind::Float })
    }

    fn matmul(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        self.products(node, required(node, inputs, 0)?, required(node, inputs, 1)?)
    }

    /// Matrix products of the last two axes.
    pub fn products(&mut self, node: Node<'f>, left: Value, right: Value) -> Result<Value> {
        match (left, right) {
            (Value::Constant(a), Value::Constant(b)) => {
                let columns = b.shape.last().copied().unwrap_or(1);
                let shape = [a.shape.iter().rev().skip(1).product(), columns];
                self.budget(node, &shape)?;
                if let [leading @ .., k] = &a.shape[..]
                    && a.shape.len() > 2
                    && b.shape.len() == 2
                {
                    // Rows of rows: a state that starts the same for every sample.
                    let flat = a.reshaped(vec![shape[0], *k]);
                    let rows = Constant { batch_axis: None, ..flat };
                    let whole = [leading, &[columns]].concat();
                    let batch_axis = a.batch_axis.filter(|axis| *axis < leading.len());
                    let product = Constant::product(node, &rows, &b)?.reshaped(whole);
                    return Ok(Value::Constant(Constant { batch_axis, ..product }));
                }
                // Two large matrices are no shape arithmetic.
                if a.len().saturating_mul(shape[1]) > 1 << 28 {
                    return Err(node.unsupported("a product of large constants"));
                }
                Ok(Value::Constant(Constant::product(node, &a, &b)?))
            }
            (a, Value::Constant(b)) => {
                let x = self.data(node, a)?;
                self.by_matrix(node, x, &b)
            }
            (Value::Constant(a), b) => {
                // A b = (bᵀ Aᵀ)ᵀ.
                let b = self.data(node, b)?;
                let rank = b.axes.len();
                if a.shape.len() != 2 || rank < 2 {
                    let a = self.matrices(node, &a, &b)?;
                    return Ok(Value::Data(self.product(node, a, b)?));
                }
                let order: Vec<usize> = (0..rank - 2).chain([rank - 1, rank - 2]).collect();
                let turned = self.permuted(node, &b, &order)?;
                let product = self.dense(node, &turned, &a, None)?;
                Ok(Value::Data(self.permuted(node, &product, &order)?))
            }
            (a, b) => {
                let (a, b) = (self.data(node, a)?, self.data(node, b)?);
                Ok(Value::Data(self.product(node, a, b)?))
            }
        }
    }

    /// Data times a constant.
    fn by_matrix(&mut self, node: Node<'f>, x: Data, b: &Constant) -> Result<Value> {
        let turned = |matrix: &Constant| {
            let turned = matrix.permuted(&[1, 0]).ok_or_else(|| node.wrong("weights that are no matrix"))?;
            Ok::<_, crate::Error>(Constant { batch_axis: None, ..turned })
        };
        match b.shape[..] {
            [_, _] if b.batch_axis.is_none() => {
                self.budget(node, &b.shape)?;
                let weight = turned(b)?;
                let waits = node.proto.output.first().is_some_and(|name| self.uses(name) == 1);
                match waits {
                    true => Ok(Value::Product(x, weight)),
                    false => Ok(Value::Data(self.dense(node, &x, &weight, None)?)),
                }
            }
            [n] if b.batch_axis.is_none() => {
                let weight = b.reshaped(vec![1, n]);
                let mut y = self.dense(node, &x, &weight, None)?;
                y.axes.pop();
                Ok(Value::Data(y))
            }
            _ => {
                let matrices = self.matrices(node, b, &x)?;
                Ok(Value::Data(self.product(node, x, matrices)?))
            }
        }
    }

    /// The same matrices for every sample, as weights by themselves, to be multiplied with a tensor.
    fn matrices(&mut self, node: Node<'f>, constant: &Constant, other: &Data) -> Result<Data> {
        let rank = constant.shape.len();
        let at = (other.batch_axis() + rank).checked_sub(other.axes.len());
        let one = match at {
            Some(axis) => self.of_one_sample(node, constant, axis)?,
            None => constant.clone(),
        };
        let missing = other.axes.len().saturating_sub(rank);
        let mut axes = vec![Axis::Fixed(1); missing];
        axes.extend(one.shape.iter().map(|n| Axis::Fixed(*n)));
        let batch = (axes.len() + other.batch_axis()).checked_sub(other.axes.len());
        let batch = batch.filter(|axis| axis + 2 < axes.len() && axes[*axis] == Axis::Fixed(1));
        let batch = batch.ok_or_else(|| node.unsupported("a constant that the samples are contracted with"))?;
        axes[batch] = BATCH;
        let data = Data { tensor: other.tensor.clone(), axes, kind: Kind::Float };
        let tensor = self.weight(node, &one, &data.sample(), true)?;
        Ok(Data { tensor, ..data })
    }

    /// A product of two tensors of data along their last two axes.
    fn product(&mut self, node: Node<'f>, mut a: Data, mut b: Data) -> Result<Data> {
        let (vector_a, vector_b) = (a.axes.len() == 1, b.axes.len() == 1);
        if vector_a || vector_b {
            return Err(node.unsupported("a product of vectors over the samples"));
        }
        // Axes in front that one has not.
        let rank = a.axes.len().max(b.axes.len());
        for data in [&mut a, &mut b] {
            let missing = rank - data.axes.len();
            data.axes.splice(0..0, vec![Axis::Fixed(1); missing]);
        }
        let at = a.batch_axis();
        if at != b.batch_axis() || at + 2 >= rank || a.axes[at] != b.axes[at] {
            return Err(node.unsupported(format!(
                "{} times {}, which would mix samples",
                a.described(),
                b.described()
            )));
        }
        let (m, k) = (fixed(node, a.axes[rank - 2])?, fixed(node, a.axes[rank - 1])?);
        let (inner, n) = (fixed(node, b.axes[rank - 2])?, fixed(node, b.axes[rank - 1])?);
        if k != inner {
            return Err(node.wrong(format!("{} times {}", a.described(), b.described())));
        }
        let mut axes = Vec::new();
        for (x, y) in a.axes[..rank - 2].iter().zip(&b.axes[..rank - 2]) {
            axes.push(match (*x, *y) {
                (x, y) if x == y => x,
                (Axis::Fixed(1), other) | (other, Axis::Fixed(1)) => other,
                _ => return Err(node.wrong(format!("{} times {}", a.described(), b.described()))),
            });
        }
        let leading = Data { axes: axes.clone(), ..a.clone() }.sample();
        let count: usize = leading.iter().product();
        let mut tensors: Vec<GraphTensor> = Vec::new();
        for (data, rows, columns) in [(&a, m, k), (&b, k, n)] {
            let own = data.sample();
            let wanted: Vec<usize> = leading.iter().copied().chain([rows, columns]).collect();
            let tensor = match own == wanted {
                true => data.tensor.clone(),
                false => {
                    let tensor = self.sample(node, data)?;
                    self.add(node, Broadcast::new(&wanted), &[&tensor])?
                }
            };
            let shape = if count == 1 { vec![rows, columns] } else { vec![count, rows, columns] };
            tensors.push(self.shaped(node, &tensor, &shape)?);
        }
        let tensor = self.add(node, MatMul::new(), &[&tensors[0], &tensors[1]])?;
        axes.extend([Axis::Fixed(m), Axis::Fixed(n)]);
        Ok(Data { tensor, axes, kind: Kind::Float })
    }

    fn gemm(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let (alpha, beta) = (node.float("alpha").unwrap_or(1.0), node.float("beta").unwrap_or(1.0));
        let (mut a, mut b) = (required(node, inputs, 0)?, required(node, inputs, 1)?);
        let c = inputs.get(2).cloned().flatten();
        for (value, turned) in [(&mut a, node.flag("transA")), (&mut b, node.flag("transB"))] {
            if !turned {
                continue;
            }
            *value = match &*value {
                Value::Constant(constant) if constant.shape.len() == 2 => {
                    self.budget(node, &constant.shape)?;
                    let moved = constant.permuted(&[1, 0]).ok_or_else(|| node.wrong("an input that is no matrix"))?;
                    Value::Constant(moved)
                }
                Value::Data(data) if data.axes.len() == 2 => {
                    Value::Data(self.permuted(node, &data.clone(), &[1, 0])?)
                }
                _ => return Err(node.wrong("an input that is no matrix")),
            };
        }
        let scaled = |constant: Constant, factor: f64| -> Result<Constant> {
            if factor == 1.0 {
                return Ok(constant);
            }
            let values = constant.floats().ok_or_else(|| depends(node))?;
            let lineage = node.lineage(&[constant.lineage, factor.to_bits()], 0);
            let elements = Elements::Floats(values.into_iter().map(|value| value * factor).collect());
            Ok(Constant { elements: std::rc::Rc::new(elements), lineage, is_weight: true, ..constant })
        };
        if let (Value::Constant(left), Value::Constant(right)) = (&a, &b) {
            // A state that starts as zero, times its weights.
            let shape = [left.shape.first().copied().unwrap_or(1), right.shape.last().copied().unwrap_or(1)];
            self.budget(node, &shape)?;
            let product = scaled(Constant::product(node, left, right)?, alpha)?;
            return match c {
                None => Ok(Value::Constant(product)),
                Some(Value::Constant(bias)) => {
                    let bias = scaled(bias, beta)?;
                    Ok(Value::Constant(Constant::combined(node, Combination::Sum, &product, &bias)?))
                }
                Some(other) => self.pairwise(node, Combination::Sum, Value::Constant(product), other),
            };
        }
        let (Value::Data(x), Value::Constant(b)) = (&a, &b) else {
            return Err(node.unsupported("a product that is not of the samples with constant weights; MatMul is"));
        };
        let matrix = b
            .permuted(&[1, 0])
            .filter(|_| b.shape.len() == 2)
            .ok_or_else(|| node.wrong("weights that are no matrix"))?;
        let weight = scaled(matrix, alpha)?;
        let units = weight.shape[0];
        match c {
            Some(Value::Constant(bias)) => {
                // A row for every sample; [samples, units] where it was written for a fixed number.
                let bias = match bias.shape.len() {
                    2 => self.of_one_sample(node, &bias, 0)?,
                    _ => bias,
                };
                let row = Constant { batch_axis: None, ..bias }
                    .broadcast(&[1, units])
                    .ok_or_else(|| node.wrong("a bias that is no row"))?;
                let row = scaled(row.reshaped(vec![units]), beta)?;
                Ok(Value::Data(self.dense(node, x, &weight, Some(&row))?))
            }
            Some(other) => {
                let y = self.dense(node, x, &weight, None)?;
                let mut other = self.data(node, other)?;
                if beta != 1.0 {
                    other = self.map(node, &other, Function::Affine { alpha: beta, beta: 0.0 })?;
                }
                self.pairwise(node, Combination::Sum, Value::Data(y), Value::Data(other))
            }
            None => Ok(Value::Data(self.dense(node, x, &weight, None)?)),
        }
    }

    /// Rows of a table that data name.
    pub fn embedding(&mut self, node: Node<'f>, table: &Constant, axis: usize, picks: Data) -> Result<Value> {
        if axis != 0 || table.shape.is_empty() {
            return Err(
                node.unsupported(format!("it picks along axis {axis} of a constant; rows, axis 0, are an embedding"))
            );
        }
        let rows = table.shape[0];
        let width: usize = table.shape[1..].iter().product();
        let stem = self.weight_stem(node, 0, "embedding");
        let layer = Embedding::new(rows, width);
        let id = self.weighted(node, &stem, layer.into(), vec![table.lineage], || {
            Ok(vec![("weight".to_owned(), table.floats().ok_or_else(|| depends(node))?)])
        })?;
        let tensor = self.sample(node, &picks)?;
        let tensor = self.call(node, id, &[&tensor])?;
        let mut axes = picks.axes.clone();
        axes.extend(table.shape[1..].iter().map(|n| Axis::Fixed(*n)));
        Ok(Value::Data(Data { tensor, axes, kind: table.kind() }))
    }

    fn layer_normalization(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        if let Value::Constant(constant) = &x
            && constant.batch_axis.is_none()
        {
            return self.normalized_constant(node, constant, inputs);
        }
        let x = self.data(node, x)?;
        let axis = node.axis(node.int("axis").unwrap_or(-1), x.axes.len())?;
        for axis in &x.axes[axis..] {
            fixed(node, *axis)?;
        }
        let sample = x.sample();
        let at = x.sample_axes(axis).start;
        let width: usize = sample[at..].iter().product();
        let row = |index: usize, what: &str| -> Result<Option<Constant>> {
            match inputs.get(index).and_then(Option::as_ref) {
                None => Ok(None),
                Some(Value::Constant(constant)) => {
                    let wide = constant
                        .broadcast(&sample[at..])
                        .ok_or_else(|| node.wrong(format!("its {what} has shape {:?}", constant.shape)))?;
                    Ok(Some(wide))
                }
                Some(_) => Err(node.unsupported(format!("its {what} depends on the samples"))),
            }
        };
        let (gamma, beta) = (row(1, "scale")?, row(2, "bias")?);
        let layer = LayerNormalization {
            epsilon: node.float("epsilon").unwrap_or(1e-5),
            center: beta.is_some(),
            scale: gamma.is_some(),
        };
        let stem = self.weight_stem(node, 1, "layer_normalization");
        let lineages = [&gamma, &beta].into_iter().flatten().map(|constant| constant.lineage).collect();
        let id = self.weighted(node, &stem, layer.into(), lineages, || {
            let mut weights = Vec::new();
            for (name, constant) in [("gamma", &gamma), ("beta", &beta)] {
                if let Some(constant) = constant {
                    weights.push((name.to_owned(), constant.floats().ok_or_else(|| depends(node))?));
                }
            }
            Ok(weights)
        })?;
        let outer: usize = sample[..at].iter().product();
        let shape = if outer == 1 { vec![width] } else { vec![outer, width] };
        let tensor = self.shaped(node, &x.tensor, &shape)?;
        let tensor = self.call(node, id, &[&tensor])?;
        Ok(Value::Data(Data { tensor, ..x }))
    }

    /// A layer normalization of what is known: of a state before its first step, say, of a number of samples that the file fixes.
    fn normalized_constant(&mut self, node: Node<'f>, x: &Constant, inputs: &[Option<Value>]) -> Result<Value> {
        let axis = node.axis(node.int("axis").unwrap_or(-1), x.shape.len())?;
        let (width, epsilon) = (x.shape[axis..].iter().product::<usize>(), node.float("epsilon").unwrap_or(1e-5));
        let row = |index: usize, otherwise: f64| -> Result<(Vec<f64>, u64)> {
            let Some(value) = inputs.get(index).and_then(Option::as_ref) else {
                return Ok((vec![otherwise; width], 0));
            };
            let wide = value.constant().and_then(|constant| constant.broadcast(&x.shape[axis..]));
            let wide = wide.ok_or_else(|| node.wrong("a scale or a bias of another shape"))?;
            Ok((wide.floats().ok_or_else(|| depends(node))?, wide.lineage))
        };
        let ((gamma, first), (beta, second)) = (row(1, 1.0)?, row(2, 0.0)?);
        let mut values = x.floats().ok_or_else(|| depends(node))?;
        for row in values.chunks_mut(width.max(1)) {
            let mean = row.iter().sum::<f64>() / width as f64;
            let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / width as f64;
            for ((value, gamma), beta) in row.iter_mut().zip(&gamma).zip(&beta) {
                *value = (*value - mean) / (variance + epsilon).sqrt() * gamma + beta;
            }
        }
        let lineage = node.lineage(&[x.lineage, first, second], 0);
        Ok(Value::Constant(Constant {
            is_weight: true,
            ..Constant::new(x.shape.clone(), Elements::Floats(values), lineage)
        }))
    }

    fn batch_normalization(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        if node.flag("training_mode") {
            return Err(node.unsupported("it is written for training; export the model for inference"));
        }
        if x.axes.len() < 2 || x.batch_axis() != 0 {
            return Err(node.unsupported(format!("samples in another axis than the first of {}", x.described())));
        }
        let channels = fixed(node, x.axes[1])?;
        let mut weights = Vec::new();
        let mut lineages = Vec::new();
        for (index, name) in [(1, "gamma"), (2, "beta"), (3, "moving_mean"), (4, "moving_variance")] {
            let Value::Constant(constant) = required(node, inputs, index)? else {
                return Err(node.unsupported(format!("its {name} depends on the samples")));
            };
            lineages.push(constant.lineage);
            weights.push((name.to_owned(), constant.floats().ok_or_else(|| depends(node))?));
        }
        let layer = BatchNormalization {
            epsilon: node.float("epsilon").unwrap_or(1e-5),
            momentum: node.float("momentum").unwrap_or(0.9),
            ..BatchNormalization::default()
        };
        let stem = self.weight_stem(node, 1, "batch_normalization");
        let id = self.weighted(node, &stem, layer.into(), lineages, || Ok(weights))?;
        if x.axes.len() == 2 {
            let tensor = self.sample(node, &x)?;
            let tensor = self.call(node, id, &[&tensor])?;
            return Ok(Value::Data(Data { tensor, ..x }));
        }
        plain(node, &x)?;
        let inner: usize = x.sample()[1..].iter().product();
        if inner == 1 {
            let tensor = self.shaped(node, &x.tensor, &[channels])?;
            let tensor = self.call(node, id, &[&tensor])?;
            return Ok(Value::Data(Data { tensor, ..x }));
        }
        let tensor = self.channels_last(node, &x, channels, inner)?;
        let tensor = self.call(node, id, &[&tensor])?;
        let tensor = self.add(node, Permute::new(&[2, 1]), &[&tensor])?;
        Ok(Value::Data(Data { tensor, ..x }))
    }

    /// Each group of channels of a sample brought to mean 0 and variance 1; in an `InstanceNormalization` each channel is a group.
    fn group_normalization(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Value> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        plain(node, &x)?;
        if x.axes.len() < 2 || x.batch_axis() != 0 {
            return Err(node.unsupported(format!("samples in another axis than the first of {}", x.described())));
        }
        let channels = fixed(node, x.axes[1])?;
        let groups = match node.op() {
            "InstanceNormalization" => channels,
            _ => node.int("num_groups").and_then(|n| usize::try_from(n).ok()).unwrap_or(0),
        };
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(node.wrong(format!("{groups} groups of {channels} channels")));
        }
        let size: usize = x.sample().iter().product();
        let layer = LayerNormalization { epsilon: node.float("epsilon").unwrap_or(1e-5), center: false, scale: false };
        let tensor = self.shaped(node, &x.tensor, &[groups, size / groups])?;
        let tensor = self.add(node, layer, &[&tensor])?;
        let mut y = Value::Data(Data { tensor, ..x.clone() });
        for (index, how, neutral) in [(1, Combination::Product, 1.0), (2, Combination::Sum, 0.0)] {
            let Value::Constant(constant) = required(node, inputs, index)? else {
                return Err(node.unsupported("a scale or a bias that depends on the samples"));
            };
            if constant.uniform() == Some(neutral) {
                continue;
            }
            // One for each channel; in the first version of GroupNormalization one for each group.
            let each = constant.reshaped(vec![constant.len(), 1]);
            let wide = match channels.checked_div(constant.len()) {
                Some(times) if times * constant.len() == channels => each.broadcast(&[constant.len(), times]),
                _ => None,
            };
            let wide = wide.ok_or_else(|| node.wrong(format!("{} numbers for {channels} channels", constant.len())))?;
            let mut shape = vec![1; x.axes.len()];
            shape[1] = channels;
            y = self.pairwise(node, how, y, Value::Constant(wide.reshaped(shape)))?;
        }
        Ok(y)
    }

    /// `[channels, steps]` as `[steps, channels]`.
    fn channels_last(&mut self, node: Node<'f>, x: &Data, channels: usize, steps: usize) -> Result<GraphTensor> {
        let tensor = self.shaped(node, &x.tensor, &[channels, steps])?;
        self.add(node, Permute::new(&[2, 1]), &[&tensor])
    }
}
