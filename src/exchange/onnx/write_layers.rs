//! What each layer becomes in ONNX.

use crate::cell::{Activation, CellKind};
use crate::error::{Error, Result};
use crate::exchange::onnx::export::{Attribute, Exporter, Tensor};
use crate::interop::onnx;
use crate::nn::recurrent::RecurrentLayer;
use crate::nn::{
    ActivationFunction, Bidirectional, Combination, Conv1D, Function, LayerConfig, MergeMode, Padding, Part,
    RecurrentOperator, Reduction,
};
use crate::rnn::{Bias, Direction, GruReset, RnnDescriptor, WeightKind, WeightLayout};

/// A recurrent layer as a node has it.
struct Recurrent {
    /// One for each direction, with the scope of its weights.
    directions: Vec<(RnnDescriptor, &'static str)>,
    clip: Option<f64>,
}

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

    fn cast(&mut self, x: &str, to: i64) -> String {
        self.one("Cast", &[x], &[("to", Attribute::Int(to))])
    }

    fn number(&mut self, value: f64) -> String {
        self.floats("number", &[], &[value])
    }

    fn activation(&mut self, x: &str, function: ActivationFunction) -> Result<String> {
        let axis = [("axis", Attribute::Int(-1))];
        match (function, function.elementwise()) {
            (ActivationFunction::Linear, _) => Ok(x.to_owned()),
            (ActivationFunction::LogSoftmax, _) => Ok(self.one("LogSoftmax", &[x], &axis)),
            (ActivationFunction::Softmax, _) => Ok(self.one("Softmax", &[x], &axis)),
            (_, Some(activation)) => self.elementwise(x, activation),
            (other, None) => Err(self.unsupported(&format!("{other:?}"), "ONNX has no such function")),
        }
    }

    fn elementwise(&mut self, x: &str, activation: Activation) -> Result<String> {
        let (alpha, beta) = activation.constants();
        let op = match activation {
            Activation::Tanh => "Tanh",
            Activation::Relu => "Relu",
            Activation::Sigmoid => "Sigmoid",
            Activation::HardSigmoid { .. } => "HardSigmoid",
            Activation::Softsign => "Softsign",
            Activation::Softplus => "Softplus",
            Activation::Elu { .. } => "Elu",
            Activation::Selu => "Selu",
            Activation::LeakyRelu { .. } => "LeakyRelu",
            Activation::ThresholdedRelu { .. } => "ThresholdedRelu",
            Activation::Linear => return Ok(x.to_owned()),
            Activation::Affine { alpha, beta } => {
                let alpha = self.number(alpha);
                let y = self.one("Mul", &[x, &alpha], &[]);
                if beta == 0.0 {
                    return Ok(y);
                }
                let beta = self.number(beta);
                return Ok(self.one("Add", &[&y, &beta], &[]));
            }
            Activation::ScaledTanh { alpha, beta } => {
                let (alpha, beta) = (self.number(alpha), self.number(beta));
                let inner = self.one("Mul", &[x, &beta], &[]);
                let t = self.one("Tanh", &[&inner], &[]);
                return Ok(self.one("Mul", &[&t, &alpha], &[]));
            }
        };
        let attributes: Vec<(&str, Attribute<'_>)> = [("alpha", alpha), ("beta", beta)]
            .into_iter()
            .filter_map(|(name, value)| value.map(|value| (name, Attribute::Float(value))))
            .collect();
        Ok(self.one(op, &[x], &attributes))
    }

    fn function(&mut self, x: &str, function: Function) -> Result<String> {
        if let Some(activation) = function.activation() {
            return self.elementwise(x, activation);
        }
        let op = match function {
            Function::Exp => "Exp",
            Function::Log => "Log",
            Function::Sqrt => "Sqrt",
            Function::Reciprocal => "Reciprocal",
            Function::Absolute => "Abs",
            Function::Erf => "Erf",
            Function::Sin => "Sin",
            Function::Cos => "Cos",
            Function::Sign => "Sign",
            Function::Floor => "Floor",
            Function::Ceiling => "Ceil",
            Function::Round => "Round",
            Function::HardSwish => "HardSwish",
            Function::Mish => "Mish",
            Function::Celu { alpha } => return Ok(self.one("Celu", &[x], &[("alpha", Attribute::Float(alpha))])),
            Function::Power { exponent } => {
                let exponent = self.number(exponent);
                return Ok(self.one("Pow", &[x, &exponent], &[]));
            }
            Function::Clip { low, high } => {
                let (low, high) = (self.number(low), self.number(high));
                return Ok(self.one("Clip", &[x, &low, &high], &[]));
            }
            Function::Silu => {
                let gate = self.one("Sigmoid", &[x], &[]);
                return Ok(self.one("Mul", &[x, &gate], &[]));
            }
            Function::Truncate => {
                let whole = self.cast(x, 7);
                return Ok(self.cast(&whole, 1));
            }
            Function::IsZero => {
                let zero = self.number(0.0);
                let holds = self.one("Equal", &[x, &zero], &[]);
                return Ok(self.cast(&holds, 1));
            }
            Function::IsNan => {
                let holds = self.one("IsNaN", &[x], &[]);
                return Ok(self.cast(&holds, 1));
            }
            Function::Gelu { approximate } => {
                let half = self.number(0.5);
                let one = self.number(1.0);
                let inner = if approximate {
                    let (cubic, scale) = (self.number(0.044_715), self.number((2.0 / std::f64::consts::PI).sqrt()));
                    let square = self.one("Mul", &[x, x], &[]);
                    let cube = self.one("Mul", &[&square, x], &[]);
                    let term = self.one("Mul", &[&cube, &cubic], &[]);
                    let sum = self.one("Add", &[x, &term], &[]);
                    let scaled = self.one("Mul", &[&sum, &scale], &[]);
                    self.one("Tanh", &[&scaled], &[])
                } else {
                    let scale = self.number(std::f64::consts::FRAC_1_SQRT_2);
                    let scaled = self.one("Mul", &[x, &scale], &[]);
                    self.one("Erf", &[&scaled], &[])
                };
                let sum = self.one("Add", &[&inner, &one], &[]);
                let product = self.one("Mul", &[x, &sum], &[]);
                return Ok(self.one("Mul", &[&product, &half], &[]));
            }
            other => return Err(self.unsupported(&format!("{other:?}"), "it has no form there yet")),
        };
        Ok(self.one(op, &[x], &[]))
    }

    /// Inputs with as many axes as the one that has most, so that ONNX's rule, which counts the samples' axis too, is that of samples.
    fn aligned(&mut self, inputs: &[Tensor]) -> Vec<String> {
        let most = inputs.iter().map(|input| input.shape.len()).max().unwrap_or(0);
        let mut names = Vec::new();
        for input in inputs {
            let mut shape = vec![1; most - input.shape.len()];
            shape.extend(&input.shape);
            names.push(if input.shape.len() == most { input.name.clone() } else { self.reshaped(&input.name, &shape) });
        }
        names
    }

    fn pairwise(&mut self, how: Combination, inputs: &[Tensor]) -> Result<String> {
        let aligned = self.aligned(inputs);
        let [a, b] = &aligned[..] else { return Err(self.unsupported("a combination", "it takes two inputs")) };
        let op = match how {
            Combination::Sum => "Add",
            Combination::Difference => "Sub",
            Combination::Product => "Mul",
            Combination::Quotient => "Div",
            Combination::Power => "Pow",
            Combination::Maximum => "Max",
            Combination::Minimum => "Min",
            Combination::Remainder => return Ok(self.one("Mod", &[a, b], &[("fmod", Attribute::Int(1))])),
            Combination::Modulo => {
                let quotient = self.one("Div", &[a, b], &[]);
                let whole = self.one("Floor", &[&quotient], &[]);
                let product = self.one("Mul", &[b, &whole], &[]);
                return Ok(self.one("Sub", &[a, &product], &[]));
            }
            Combination::Equal => "Equal",
            Combination::Less => "Less",
            Combination::LessOrEqual => "LessOrEqual",
            Combination::Greater => "Greater",
            Combination::GreaterOrEqual => "GreaterOrEqual",
            Combination::And | Combination::Or | Combination::Xor => {
                let op = match how {
                    Combination::And => "And",
                    Combination::Or => "Or",
                    _ => "Xor",
                };
                let (a, b) = (self.cast(a, 9), self.cast(b, 9));
                let holds = self.one(op, &[&a, &b], &[]);
                return Ok(self.cast(&holds, 1));
            }
        };
        let y = self.one(op, &[a, b], &[]);
        Ok(if how.is_step() { self.cast(&y, 1) } else { y })
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

    fn slice(&mut self, x: &str, axis: i64, parts: &[Part], shape: &[usize]) -> Result<String> {
        let mut names = Vec::new();
        for part in parts {
            match *part {
                Part::Steps { count: 0, .. } | Part::Filled { count: 0, .. } => {}
                Part::Steps { start, step, count } => {
                    // One element is the same whatever the step.
                    let step = if count == 1 { 1 } else { step as i64 };
                    let end = start as i64 + step * count as i64;
                    let end = if end < 0 { i64::MIN } else { end };
                    names.push(self.sliced(x, axis, start as i64, end, step));
                }
                Part::Filled { value, count } => {
                    let ones = vec![1; shape.len() + 1];
                    let value = self.floats("margin", &ones, &[value]);
                    let mut own = shape.to_vec();
                    if let Some(length) = usize::try_from(axis - 1).ok().and_then(|at| own.get_mut(at)) {
                        *length = count;
                    }
                    names.push(self.for_every_sample(&value, x, &own));
                }
            }
        }
        match names.len() {
            0 => Err(self.unsupported("a slice without elements", "a tensor there has some")),
            1 => Ok(names.remove(0)),
            _ => {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                Ok(self.one("Concat", &names, &[("axis", Attribute::Int(axis))]))
            }
        }
    }

    /// Margins of windows over so many steps.
    fn margins(&self, padding: Padding, steps: usize, reach: usize, stride: usize) -> Vec<i64> {
        let (before, after) = match padding {
            Padding::Valid => (0, 0),
            Padding::Causal => (reach - 1, 0),
            Padding::Steps { before, after } => (before, after),
            Padding::Same => {
                let all = ((steps.div_ceil(stride) - 1) * stride + reach).saturating_sub(steps);
                (all / 2, all - all / 2)
            }
        };
        vec![before as i64, after as i64]
    }

    fn convolution(&mut self, x: &str, layer: &Conv1D, shape: &[usize], scope: &str) -> Result<String> {
        let &[steps, _] = shape else { return Err(self.unsupported("a convolution", "it takes [steps, features]")) };
        let (kernel_shape, kernel) = self.required(&format!("{scope}kernel"))?;
        let &[size, width, filters] = &kernel_shape[..] else {
            return Err(self.unsupported("weights", "they have three axes"));
        };
        let turned: Vec<f64> = (0..filters)
            .flat_map(|f| (0..width).flat_map(move |w| (0..size).map(move |s| (s, w, f))))
            .map(|(s, w, f)| kernel[(s * width + w) * filters + f])
            .collect();
        let weight = self.constant(&format!("{scope}kernel"), &[filters, width, size], &turned);
        let bias = self
            .weight(&format!("{scope}bias"))
            .map(|(_, values)| self.constant(&format!("{scope}bias"), &[filters], &values));
        let reach = (size - 1) * layer.dilation_rate + 1;
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![size as i64])),
            ("strides", Attribute::Ints(vec![layer.strides as i64])),
            ("dilations", Attribute::Ints(vec![layer.dilation_rate as i64])),
            ("group", Attribute::Int(layer.groups as i64)),
            ("pads", Attribute::Ints(self.margins(layer.padding, steps, reach, layer.strides))),
        ];
        let x = self.transposed(x, &[0, 2, 1]);
        let inputs: Vec<&str> = [x.as_str(), &weight].into_iter().chain(bias.as_deref()).collect();
        let y = self.one("Conv", &inputs, &attributes);
        let y = self.transposed(&y, &[0, 2, 1]);
        self.activation(&y, layer.activation)
    }

    fn pool(
        &mut self,
        op: &str,
        x: &str,
        shape: &[usize],
        size: usize,
        strides: usize,
        padding: Padding,
    ) -> Result<String> {
        let &[steps, _] = shape else { return Err(self.unsupported("a pool", "it takes [steps, features]")) };
        let attributes = [
            ("kernel_shape", Attribute::Ints(vec![size as i64])),
            ("strides", Attribute::Ints(vec![strides as i64])),
            ("pads", Attribute::Ints(self.margins(padding, steps, size, strides))),
        ];
        let x = self.transposed(x, &[0, 2, 1]);
        let y = self.one(op, &[&x], &attributes);
        Ok(self.transposed(&y, &[0, 2, 1]))
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

    // Recurrences.

    /// The operator of a layer with Keras's options.
    fn descriptor(
        &self,
        layer: &LayerConfig,
        recurrent: &dyn RecurrentLayer,
        features: usize,
    ) -> Result<RnnDescriptor> {
        let options = recurrent.options();
        for (option, used) in [
            ("layer normalisation", options.layer_norm),
            ("zoneout", options.zoneout > 0.0),
            ("heads", options.heads > 1),
            ("stateful", options.stateful),
        ] {
            if used {
                return Err(self.unsupported(option, "ONNX's recurrent operators have none; take it off"));
            }
        }
        let mut descriptor = RnnDescriptor::new(recurrent.cell(), features, recurrent.units());
        descriptor.bias = recurrent.bias();
        let functions =
            |state: ActivationFunction, gate: ActivationFunction| match (state.elementwise(), gate.elementwise()) {
                (Some(state), Some(gate)) => Ok((state, gate)),
                _ => Err(self.unsupported("an activation of rows", "ONNX's cells take functions of elements")),
            };
        let sigmoid = ActivationFunction::Sigmoid;
        let (state, gate) = match layer {
            LayerConfig::SimpleRnn(layer) => functions(layer.activation, sigmoid)?,
            LayerConfig::Lstm(layer) => functions(layer.activation, layer.recurrent_activation)?,
            LayerConfig::Gru(layer) => {
                descriptor.reset = if layer.reset_after { GruReset::After } else { GruReset::Before };
                functions(layer.activation, layer.recurrent_activation)?
            }
            other => {
                let kind = crate::nn::Layer::class_name(other).to_owned();
                return Err(self.unsupported(&kind, "ONNX has no such cell; LSTM, GRU and SimpleRNN are there"));
            }
        };
        descriptor.activations = crate::cell::Activations { gate, state, output: state };
        if options.go_backwards {
            descriptor.direction = Direction::Reverse;
        }
        Ok(descriptor)
    }

    fn single_direction(
        &mut self,
        layer: &LayerConfig,
        recurrent: &dyn RecurrentLayer,
        inputs: &[Tensor],
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>> {
        let (features, options) = (last_axis(&inputs[0]), recurrent.options().clone());
        let descriptor = self.descriptor(layer, recurrent, features)?;
        let units = descriptor.hidden_size;
        let written = self.recurrence(&Recurrent { directions: vec![(descriptor, "")], clip: None }, inputs)?;
        let mut outputs = Vec::new();
        if options.return_sequences {
            let y = match options.go_backwards {
                true => self.sliced(&written.every, 1, -1, i64::MIN, -1),
                false => written.every,
            };
            outputs.push(y);
        } else {
            outputs.push(self.reshaped_state(&written.last[0], units));
        }
        if options.return_state {
            for state in &written.last {
                outputs.push(self.reshaped_state(state, units));
            }
        }
        Ok(tensors(outputs, shapes))
    }

    fn bidirectional(
        &mut self,
        layer: &Bidirectional,
        inputs: &[Tensor],
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>> {
        let Some(recurrent) = layer.layer.as_recurrent() else {
            return Err(self.unsupported("Bidirectional", "its layer is no recurrent one"));
        };
        let options = recurrent.options().clone();
        if options.go_backwards {
            return Err(self.unsupported("go_backwards within Bidirectional", "ONNX's first direction is forward"));
        }
        let forward = self.descriptor(&layer.layer, recurrent, last_axis(&inputs[0]))?;
        let units = forward.hidden_size;
        let mut backward = forward.clone();
        backward.direction = Direction::Reverse;
        let directions = vec![(forward, "forward."), (backward, "backward.")];
        let written = self.recurrence(&Recurrent { directions, clip: None }, inputs)?;
        let whole = match options.return_sequences {
            true => written.every.clone(),
            false => self.both_states(&written.last[0], units),
        };
        let merged = match layer.merge_mode {
            MergeMode::Concat => whole,
            mode => {
                let axis = if options.return_sequences { 2 } else { 1 };
                let units = units as i64;
                let a = self.sliced(&whole, axis, 0, units, 1);
                let b = self.sliced(&whole, axis, units, 2 * units, 1);
                let op = match mode {
                    MergeMode::Mul => "Mul",
                    MergeMode::Ave => "Mean",
                    _ => "Add",
                };
                self.one(op, &[&a, &b], &[])
            }
        };
        let mut outputs = vec![merged];
        if options.return_state {
            for direction in 0..2 {
                for state in &written.last {
                    let part = self.sliced(state, 0, direction, direction + 1, 1);
                    outputs.push(self.reshaped_state(&part, units));
                }
            }
        }
        Ok(tensors(outputs, shapes))
    }

    fn operator(&mut self, layer: &RecurrentOperator, inputs: &[Tensor], shapes: &[Vec<usize>]) -> Result<Vec<Tensor>> {
        let features = last_axis(&inputs[0]);
        let mut directions = Vec::new();
        for direction in 0..layer.backwards.len() {
            directions.push((layer.descriptor(direction, features)?, if direction == 0 { "" } else { "backward." }));
        }
        if layer.backwards[..] == [true, false]
            || layer.backwards[..] == [true, true]
            || layer.backwards[..] == [false, false]
        {
            return Err(self.unsupported("directions other than forward and then backward", "ONNX has no others"));
        }
        let written = self.recurrence(&Recurrent { directions, clip: layer.clip }, inputs)?;
        let mut outputs = vec![written.every.clone()];
        for direction in 0..layer.backwards.len() as i64 {
            for state in &written.last {
                let part = self.sliced(state, 0, direction, direction + 1, 1);
                outputs.push(self.reshaped_state(&part, layer.units));
            }
        }
        Ok(tensors(outputs, shapes))
    }

    /// `[1, samples, units]` as `[samples, units]`.
    fn reshaped_state(&mut self, state: &str, units: usize) -> String {
        self.reshaped(state, &[units])
    }

    /// `[2, samples, units]` as `[samples, 2 units]`.
    fn both_states(&mut self, state: &str, units: usize) -> String {
        let turned = self.transposed(state, &[1, 0, 2]);
        self.reshaped(&turned, &[2 * units])
    }

    /// A node: every output `[samples, steps, directions * units]`, and the last states `[directions, samples, units]`.
    fn recurrence(&mut self, of: &Recurrent, inputs: &[Tensor]) -> Result<Written> {
        let (x, states) = (&inputs[0], &inputs[1..]);
        let Some((first, _)) = of.directions.first() else {
            return Err(self.unsupported("no direction", "ONNX has at least one"));
        };
        let (cell, units, count) = (first.cell, first.hidden_size, of.directions.len());
        let Some(spec) = cell.spec().onnx else {
            return Err(self.unsupported(cell.spec().title, "ONNX has no such cell; LSTM, GRU and SimpleRNN are there"));
        };
        let (mut w, mut r, mut b, mut p) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (descriptor, scope) in &of.directions {
            let node = self.node_weights(descriptor, scope)?;
            w.extend(node.w);
            r.extend(node.r);
            b.extend(node.b.unwrap_or_default());
            p.extend(node.p.unwrap_or_default());
        }
        let rows = cell.gates() * units;
        let features = first.input_size;
        let w = self.constant("W", &[count, rows, features], &w);
        let r = self.constant("R", &[count, rows, units], &r);
        let b = if b.is_empty() { String::new() } else { self.constant("B", &[count, 2 * rows], &b) };
        let p = if p.is_empty() { String::new() } else { self.constant("P", &[count, 3 * units], &p) };
        let number = if cell.has_cell_state() { 2 } else { 1 };
        let mut initial = vec![String::new(); number];
        if !states.is_empty() {
            for (state, name) in initial.iter_mut().enumerate() {
                let mut parts = Vec::new();
                for direction in 0..count {
                    let given = states.get(direction * number + state);
                    let given = given.ok_or_else(|| Error::Presence {
                        tensor: format!("initial states of {}", self.layer),
                        problem: "there are fewer than states".to_owned(),
                    })?;
                    let axis = self.ints(&[0]);
                    parts.push(self.one("Unsqueeze", &[&given.name, &axis], &[]));
                }
                let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
                *name = match parts[..] {
                    [only] => only.to_owned(),
                    _ => self.one("Concat", &parts, &[("axis", Attribute::Int(0))]),
                };
            }
        }
        let turned = self.transposed(&x.name, &[1, 0, 2]);
        let lengths = x.lengths.clone().unwrap_or_default();
        let mut node_inputs = vec![turned.as_str(), &w, &r, &b, &lengths];
        node_inputs.extend(initial.iter().map(String::as_str));
        if cell == CellKind::Lstm {
            node_inputs.push(&p);
        }
        while node_inputs.last().is_some_and(|name| name.is_empty()) {
            node_inputs.pop();
        }
        let direction = match (count, first.direction) {
            (2, _) => "bidirectional",
            (_, Direction::Reverse) => "reverse",
            _ => "forward",
        };
        let mut attributes =
            vec![("hidden_size", Attribute::Int(units as i64)), ("direction", Attribute::Text(direction))];
        let (mut names, mut alphas, mut betas) = (Vec::new(), Vec::new(), Vec::new());
        for (descriptor, _) in &of.directions {
            let used = cell.spec().functions;
            let set = descriptor.activations;
            for (function, used) in [(set.gate, used.gate), (set.state, used.state), (set.output, used.output)] {
                if !used {
                    continue;
                }
                let (name, constants) = self.cell_function(function)?;
                names.push(name.to_owned());
                alphas.extend(constants.0);
                betas.extend(constants.1);
            }
        }
        attributes.push(("activations", Attribute::Texts(names)));
        if !alphas.is_empty() {
            attributes.push(("activation_alpha", Attribute::Floats(alphas)));
        }
        if !betas.is_empty() {
            attributes.push(("activation_beta", Attribute::Floats(betas)));
        }
        if let Some(clip) = of.clip {
            attributes.push(("clip", Attribute::Float(clip)));
        }
        if cell == CellKind::Gru {
            attributes.push(("linear_before_reset", Attribute::Int(i64::from(first.reset == GruReset::After))));
        }
        if first.coupled_input_forget {
            attributes.push(("input_forget", Attribute::Int(1)));
        }
        let mut outputs = self.node(spec.name, &node_inputs, 1 + number, &attributes);
        let y = outputs.remove(0);
        let steps = x.shape.first().copied().unwrap_or(1);
        // [steps, directions, samples, units].
        let y = self.transposed(&y, &[2, 0, 1, 3]);
        let every = self.reshaped(&y, &[steps, count * units]);
        Ok(Written { every, last: outputs })
    }

    /// A function of cells by ONNX's name, with its constants.
    fn cell_function(&self, function: Activation) -> Result<(&'static str, Constants)> {
        let name = match function {
            Activation::Tanh => "Tanh",
            Activation::Relu => "Relu",
            Activation::Sigmoid => "Sigmoid",
            Activation::HardSigmoid { .. } => "HardSigmoid",
            Activation::Softsign => "Softsign",
            Activation::Softplus => "Softplus",
            Activation::Elu { .. } => "Elu",
            Activation::LeakyRelu { .. } => "LeakyRelu",
            Activation::ThresholdedRelu { .. } => "ThresholdedRelu",
            Activation::ScaledTanh { .. } => "ScaledTanh",
            Activation::Affine { .. } => "Affine",
            Activation::Linear => return Ok(("Affine", (Some(1.0), Some(0.0)))),
            Activation::Selu => return Err(self.unsupported("SELU in a cell", "ONNX's cells have not got it")),
        };
        Ok((name, function.constants()))
    }

    /// The weights of a direction as a node has them.
    fn node_weights(&self, descriptor: &RnnDescriptor, scope: &str) -> Result<onnx::OnnxWeights<f64>> {
        let mut double = descriptor.clone();
        if descriptor.bias == Bias::Single {
            double.bias = Bias::Double;
        }
        let layout = WeightLayout::new(&double)?;
        let mut flat = vec![0.0; layout.len()];
        for entry in layout.entries() {
            if entry.kind == WeightKind::HiddenBias && descriptor.bias == Bias::Single {
                continue;
            }
            let (_, values) = self.required(&format!("{scope}{}", entry.name))?;
            crate::rnn::shape::check_len(&entry.name, &entry.shape, values.len())?;
            flat[entry.range.clone()].copy_from_slice(&values);
        }
        onnx::export(&double, &flat)
    }
}

/// The alpha and the beta of a function, where it has them.
type Constants = (Option<f64>, Option<f64>);

/// What a recurrent node gives.
struct Written {
    every: String,
    last: Vec<String>,
}

fn last_axis(tensor: &Tensor) -> usize {
    tensor.shape.last().copied().unwrap_or(1)
}

fn tensors(names: Vec<String>, shapes: &[Vec<usize>]) -> Vec<Tensor> {
    names.into_iter().zip(shapes).map(|(name, shape)| Tensor { name, shape: shape.clone(), lengths: None }).collect()
}
