//! Recurrent layers as nodes.

use crate::cell::{Activation, CellKind};
use crate::error::{Error, Result};
use crate::exchange::onnx::export::{Attribute, Exporter, Tensor};
use crate::exchange::onnx::write_layers::elements::name_of;
use crate::interop::onnx;
use crate::nn::recurrent::RecurrentLayer;
use crate::nn::{ActivationFunction, Bidirectional, LayerConfig, MergeMode, RecurrentOperator};
use crate::rnn::{Bias, Direction, GruReset, RnnDescriptor, WeightKind, WeightLayout};

/// A recurrent layer as a node has it.
struct Recurrent {
    /// One for each direction, with the scope of its weights.
    directions: Vec<(RnnDescriptor, &'static str)>,
    clip: Option<f64>,
}

impl Exporter {
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

    pub(super) fn single_direction(
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

    pub(super) fn bidirectional(
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

    pub(super) fn operator(
        &mut self,
        layer: &RecurrentOperator,
        inputs: &[Tensor],
        shapes: &[Vec<usize>],
    ) -> Result<Vec<Tensor>> {
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
        let every = match self.is_open {
            true => self.reshaped_to(&y, &[0, 0, (count * units) as i64]),
            false => self.reshaped(&y, &[steps, count * units]),
        };
        Ok(Written { every, last: outputs })
    }

    /// A function of cells by ONNX's name, with its constants.
    fn cell_function(&self, function: Activation) -> Result<(&'static str, Constants)> {
        match function {
            Activation::Linear => Ok((name_of(function), (Some(1.0), Some(0.0)))),
            Activation::Selu => Err(self.unsupported("SELU in a cell", "ONNX's cells have not got it")),
            _ => Ok((name_of(function), function.constants())),
        }
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
