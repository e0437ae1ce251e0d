//! What each layer becomes in ONNX.
//!
//! | file | what |
//! |---|---|
//! | this | which layer is which, products, layers for every step |
//! | `elements` | functions of elements, arithmetic of two tensors |
//! | `windows` | parts of axes, convolutions, pools |
//! | `recurrent` | recurrent layers |

mod elements;
mod recurrent;
mod windows;

use crate::error::Result;
use crate::exchange::onnx::export::{Attribute, Exporter, Tensor};
use crate::nn::{Dot, LayerConfig, Part, Reduction};

impl Exporter {
    /// The outputs of a layer for its inputs; `shapes` are those of its outputs.
    pub fn layer(&mut self, layer: &LayerConfig, inputs: &[Tensor], shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
        let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
        let (Some(first), Some(x)) = (inputs.first(), names.first().copied()) else {
            return Err(self.unsupported("a use without inputs", "a layer of ONNX has some"));
        };
        let shape = shapes.first().cloned().unwrap_or_default();
        let y = match layer {
            LayerConfig::ActivationLayer(layer) => self.activation(x, layer.activation)?,
            LayerConfig::Elementwise(layer) => self.function(x, layer.function)?,
            LayerConfig::Add(_) => self.folded("Add", &names),
            LayerConfig::Multiply(_) => self.folded("Mul", &names),
            LayerConfig::Subtract(_) => self.one("Sub", &names, &[]),
            LayerConfig::Maximum(_) => self.one("Max", &names, &[]),
            LayerConfig::Average(_) => self.one("Mean", &names, &[]),
            LayerConfig::Concatenate(_) => self.one("Concat", &names, &[("axis", Attribute::Int(-1))]),
            LayerConfig::Pairwise(layer) => self.pairwise(layer.combination, inputs)?,
            LayerConfig::Where(_) => {
                let aligned = self.aligned(inputs);
                let holds = self.cast(&aligned[0], 9);
                self.one("Where", &[&holds, &aligned[1], &aligned[2]], &[])
            }
            LayerConfig::Dense(dense) => {
                let y = self.product_with(x, "weight", "bias")?;
                self.activation(&y, dense.activation)?
            }
            LayerConfig::Embedding(layer) if !layer.mask_zero => {
                let (shape, values) = self.required("weight")?;
                let table = self.constant("weight", &shape, &values);
                let numbers = self.cast(x, 7);
                self.one("Gather", &[&table, &numbers], &[("axis", Attribute::Int(0))])
            }
            LayerConfig::Dropout(_) => self.one("Identity", &[x], &[]),
            LayerConfig::Flatten(_) if self.is_open => self.reshaped_to(x, &[0, -1]),
            LayerConfig::Reshape(_) | LayerConfig::Flatten(_) => self.reshaped(x, &shape),
            LayerConfig::Permute(layer) => {
                let order: Vec<i64> = std::iter::once(0).chain(layer.dims.iter().map(|axis| *axis as i64)).collect();
                self.transposed(x, &order)
            }
            LayerConfig::RepeatVector(layer) => {
                let flat = self.reshaped(x, &[1, first.shape.iter().product()]);
                let repeats = self.ints(&[1, layer.n as i64, 1]);
                self.one("Tile", &[&flat, &repeats], &[])
            }
            LayerConfig::Broadcast(layer) => {
                let mut own = vec![1; layer.shape.len().saturating_sub(first.shape.len())];
                own.extend(&first.shape);
                let x = self.reshaped(x, &own);
                let target: Vec<i64> = std::iter::once(1).chain(layer.shape.iter().map(|n| *n as i64)).collect();
                let target = self.ints(&target);
                self.one("Expand", &[&x, &target], &[])
            }
            LayerConfig::Weight(_) => {
                let (shape, values) = self.required("weight")?;
                let whole: Vec<usize> = std::iter::once(1).chain(shape.iter().copied()).collect();
                let weight = self.constant("weight", &whole, &values);
                self.for_every_sample(&weight, x, &shape)
            }
            LayerConfig::Slice(layer) => self.slice(x, layer.axis as i64, &layer.parts, &shape)?,
            LayerConfig::Reduce(layer) => {
                let op = match layer.reduction {
                    Reduction::Sum => "ReduceSum",
                    Reduction::Mean => "ReduceMean",
                    Reduction::Maximum => "ReduceMax",
                    Reduction::Minimum => "ReduceMin",
                };
                let axes: Vec<i64> = layer.axes.iter().map(|axis| *axis as i64).collect();
                let axes = self.ints(&axes);
                let y = self.one(op, &[x, &axes], &[("keepdims", Attribute::Int(0))]);
                self.reshaped(&y, &shape)
            }
            LayerConfig::GlobalAveragePooling1D(_) => {
                let axes = self.ints(&[1]);
                self.one("ReduceMean", &[x, &axes], &[("keepdims", Attribute::Int(0))])
            }
            LayerConfig::GlobalMaxPooling1D(_) => {
                let axes = self.ints(&[1]);
                self.one("ReduceMax", &[x, &axes], &[("keepdims", Attribute::Int(0))])
            }
            LayerConfig::MatMul(_) => self.one("MatMul", &names, &[]),
            LayerConfig::LayerNormalization(layer) => {
                let columns = first.shape.last().copied().unwrap_or(1);
                let gamma = self.weight("gamma").map_or_else(|| vec![1.0; columns], |(_, values)| values);
                let gamma = self.constant("gamma", &[columns], &gamma);
                let beta = self.weight("beta").map(|(_, values)| self.constant("beta", &[columns], &values));
                let inputs: Vec<&str> = [x, &gamma].into_iter().chain(beta.as_deref()).collect();
                let attributes = [("axis", Attribute::Int(-1)), ("epsilon", Attribute::Float(layer.epsilon))];
                self.one("LayerNormalization", &inputs, &attributes)
            }
            LayerConfig::BatchNormalization(layer) => {
                let columns = first.shape.last().copied().unwrap_or(1);
                let mut tensors = Vec::new();
                for (name, default) in [("gamma", 1.0), ("beta", 0.0), ("moving_mean", 0.0), ("moving_variance", 1.0)] {
                    let values = self.weight(name).map_or_else(|| vec![default; columns], |(_, values)| values);
                    tensors.push(self.constant(name, &[columns], &values));
                }
                let flat = self.reshaped(x, &[columns]);
                let inputs: Vec<&str> =
                    std::iter::once(flat.as_str()).chain(tensors.iter().map(String::as_str)).collect();
                let y = self.one("BatchNormalization", &inputs, &[("epsilon", Attribute::Float(layer.epsilon))]);
                self.reshaped(&y, &shape)
            }
            LayerConfig::Conv1D(layer) => self.convolution(x, layer, &first.shape, "")?,
            LayerConfig::Conv1DTranspose(layer) => self.transposed_convolution(x, layer, &first.shape)?,
            LayerConfig::ZeroPadding1D(layer) => {
                let (before, after) = layer.padding;
                let steps = first.shape.first().copied().unwrap_or(0);
                let margin = |count: usize| Part::Filled { value: 0.0, count };
                let parts = [margin(before), Part::Steps { start: 0, step: 1, count: steps }, margin(after)];
                self.slice(x, 1, &parts, &shape)?
            }
            LayerConfig::Cropping1D(layer) => {
                let count = shape.first().copied().unwrap_or(0);
                self.slice(x, 1, &[Part::Steps { start: layer.cropping.0, step: 1, count }], &shape)?
            }
            LayerConfig::UpSampling1D(layer) => {
                let &[steps, features] = &first.shape[..] else {
                    return Err(self.unsupported("an upsampling", "it takes [steps, features]"));
                };
                let apart = match self.is_open {
                    true => self.reshaped_to(x, &[0, 0, 1, features as i64]),
                    false => self.reshaped(x, &[steps, 1, features]),
                };
                let repeats = self.ints(&[1, 1, layer.size as i64, 1]);
                let wide = self.one("Tile", &[&apart, &repeats], &[]);
                match self.is_open {
                    true => self.reshaped_to(&wide, &[0, -1, features as i64]),
                    false => self.reshaped(&wide, &shape),
                }
            }
            LayerConfig::Softmax(layer) => self.one("Softmax", &[x], &[("axis", Attribute::Int(layer.axis))]),
            LayerConfig::PRelu(_) => {
                let (shape, values) = self.required("alpha")?;
                let slope = self.constant("alpha", &shape, &values);
                self.one("PRelu", &[x, &slope], &[])
            }
            LayerConfig::UnitNormalization(layer) => {
                let axes: Vec<i64> = layer.axes.clone();
                self.unit(x, &axes)
            }
            LayerConfig::Normalization(_) => {
                let ((shape, mean), (_, variance)) = (self.required("mean")?, self.required("variance")?);
                let factor: Vec<f64> = variance.iter().map(|variance| (variance + 1e-14).sqrt().recip()).collect();
                let mean = self.constant("mean", &shape, &mean);
                let factor = self.constant("variance", &shape, &factor);
                let difference = self.one("Sub", &[x, &mean], &[]);
                self.one("Mul", &[&difference, &factor], &[])
            }
            LayerConfig::Dot(layer) => {
                let (Some(second), Some(other)) = (inputs.get(1), names.get(1).copied()) else {
                    return Err(self.unsupported("a product", "it takes two inputs"));
                };
                self.dot(layer, [x, other], [&first.shape, &second.shape], &shape)?
            }
            LayerConfig::AveragePooling1D(layer) => {
                let strides = layer.strides.unwrap_or(layer.pool_size);
                self.pool("AveragePool", x, &first.shape, layer.pool_size, strides, layer.padding)?
            }
            LayerConfig::MaxPooling1D(layer) => {
                let strides = layer.strides.unwrap_or(layer.pool_size);
                self.pool("MaxPool", x, &first.shape, layer.pool_size, strides, layer.padding)?
            }
            LayerConfig::TimeDistributed(layer) => self.every_step(x, &layer.layer, &first.shape, &shape)?,
            LayerConfig::MaskLike(_) => {
                let lengths = inputs.get(1).and_then(|like| like.lengths.clone());
                return Ok(vec![Tensor { lengths, ..first.clone() }]);
            }
            LayerConfig::SequenceMask(_) => {
                let flat = self.ints(&[-1]);
                let lengths = self.one("Reshape", &[names.get(1).copied().unwrap_or(x), &flat], &[]);
                let lengths = self.cast(&lengths, 6);
                return Ok(vec![Tensor { lengths: Some(lengths), ..first.clone() }]);
            }
            LayerConfig::RecurrentOperator(layer) => return self.operator(layer, inputs, shapes),
            LayerConfig::Bidirectional(layer) => return self.bidirectional(layer, inputs, shapes),
            layer => match layer.as_recurrent() {
                Some(recurrent) => return self.single_direction(layer, recurrent, inputs, shapes),
                None => {
                    let kind = crate::nn::Layer::class_name(layer).to_owned();
                    return Err(self.unsupported(&kind, "this layer, or one of its options, has no form there; leave it out, or export the layers around it"));
                }
            },
        };
        Ok(vec![Tensor { name: y, shape, lengths: None }])
    }

    fn folded(&mut self, op: &str, names: &[&str]) -> String {
        let mut result = names.first().map_or_else(String::new, |name| (*name).to_owned());
        for other in names.iter().skip(1) {
            result = self.one(op, &[&result, other], &[]);
        }
        result
    }

    /// `x Wᵀ + b` for weights `[units, features]` of these names.
    fn product_with(&mut self, x: &str, weight: &str, bias: &str) -> Result<String> {
        let (shape, values) = self.required(weight)?;
        let &[units, features] = &shape[..] else { return Err(self.unsupported("weights", "they are no matrix")) };
        let turned: Vec<f64> = (0..features)
            .flat_map(|f| (0..units).map(move |u| (u, f)))
            .map(|(u, f)| values[u * features + f])
            .collect();
        let matrix = self.constant(weight, &[features, units], &turned);
        let y = self.one("MatMul", &[x, &matrix], &[]);
        let Some((_, values)) = self.weight(bias) else { return Ok(y) };
        let bias = self.constant(bias, &[units], &values);
        Ok(self.one("Add", &[&y, &bias], &[]))
    }

    fn every_step(&mut self, x: &str, inner: &LayerConfig, shape: &[usize], to: &[usize]) -> Result<String> {
        let rest = shape.get(1..).unwrap_or_default();
        let rows = self.reshaped(x, rest);
        let stem = crate::nn::Layer::stem(inner).to_owned();
        let outer = self.layer.clone();
        // The weights of the inner layer have its name before theirs.
        self.layer = format!("{outer}.{stem}");
        let input = Tensor { name: rows, shape: rest.to_vec(), lengths: None };
        let written = self.layer(inner, &[input], &[to.get(1..).unwrap_or_default().to_vec()]);
        self.layer = outer;
        let y = written?.into_iter().next().map(|tensor| tensor.name).unwrap_or_default();
        Ok(self.reshaped(&y, to))
    }

    /// Vectors along axes, counted as Keras does, brought to length 1.
    fn unit(&mut self, x: &str, axes: &[i64]) -> String {
        let axes = self.ints(axes);
        let squares = self.one("ReduceSumSquare", &[x, &axes], &[("keepdims", Attribute::Int(1))]);
        let least = self.floats("number", &[], &[1e-24]);
        let sum = self.one("Max", &[&squares, &least], &[]);
        let length = self.one("Sqrt", &[&sum], &[]);
        self.one("Div", &[x, &length], &[])
    }

    /// Sums of products along an axis of each.
    fn dot(&mut self, layer: &Dot, names: [&str; 2], shapes: [&[usize]; 2], to: &[usize]) -> Result<String> {
        let mut matrices = Vec::new();
        for (number, ((name, shape), axis)) in
            names.into_iter().zip(shapes).zip([layer.axes.0, layer.axes.1]).enumerate()
        {
            let rank = shape.len();
            let counted = if axis < 0 { axis.saturating_add_unsigned(rank as u64 + 1) } else { axis };
            let at = usize::try_from(counted).ok().filter(|axis| (1..=rank).contains(axis));
            let at = at.ok_or_else(|| self.unsupported("a product", "its axes are not those of its inputs"))?;
            let mut value = name.to_owned();
            if layer.normalize {
                value = self.unit(&value, &[at as i64]);
            }
            let mut order: Vec<i64> = (0..=rank as i64).filter(|other| *other != at as i64).collect();
            let count = shape.get(at - 1).copied().unwrap_or(1);
            let rest = shape.iter().product::<usize>() / count.max(1);
            match number {
                0 => order.push(at as i64),
                _ => order.insert(1, at as i64),
            }
            let turned = self.transposed(&value, &order);
            let matrix = if number == 0 { [rest, count] } else { [count, rest] };
            matrices.push(self.reshaped(&turned, &matrix));
        }
        let matrices: Vec<&str> = matrices.iter().map(String::as_str).collect();
        let product = self.one("MatMul", &matrices, &[]);
        Ok(self.reshaped(&product, to))
    }
}
