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
use crate::nn::{LayerConfig, Reduction};

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
            LayerConfig::AveragePooling1D(layer) => {
                let strides = layer.strides.unwrap_or(layer.pool_size);
                self.pool("AveragePool", x, &first.shape, layer.pool_size, strides, layer.padding)?
            }
            LayerConfig::MaxPooling1D(layer) => {
                let strides = layer.strides.unwrap_or(layer.pool_size);
                self.pool("MaxPool", x, &first.shape, layer.pool_size, strides, layer.padding)?
            }
            LayerConfig::TimeDistributed(layer) => self.every_step(x, &layer.layer, &first.shape, &shape)?,
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
}
