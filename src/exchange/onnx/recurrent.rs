//! `LSTM`, `GRU` and `RNN` nodes.

use crate::cell::{Activation, Activations, CellKind, CellOption};
use crate::error::Result;
use crate::exchange::onnx::constant::{Constant, Kind};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::import::{Importer, NamedWeights, Value, fixed, plain, required};
use crate::exchange::onnx::proto::Node;
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::interop::onnx::{self, OnnxWeights};
use crate::model::GraphTensor;
use crate::nn::{
    ActivationFunction, Bidirectional, Concatenate, Gru, LayerConfig, Lstm, Part, Permute, RecurrentOperator,
    RecurrentOptions, SequenceMask, SimpleRnn, Slice, TimeDistributed,
};
use crate::rnn::{Bias, Direction, GruReset, RnnDescriptor, WeightKind, WeightLayout};

/// What a node says of its cell.
struct Recurrence {
    cell: CellKind,
    backwards: Vec<bool>,
    units: usize,
    features: usize,
    batch_first: bool,
    /// Functions of each direction.
    activations: Vec<Activations>,
    clip: Option<f64>,
    coupled: bool,
    reset_after: bool,
}

impl<'f> Importer<'f> {
    /// What a recurrent node gives: every output, the last one, and of an LSTM the last cell state. Where samples share their axis with rows of theirs, as
    /// exporters write [`TimeDistributed`], each row is a sequence.
    pub fn recurrent(&mut self, node: Node<'f>, inputs: &[Option<Value>]) -> Result<Vec<Value>> {
        let x = required(node, inputs, 0)?;
        let x = self.data(node, x)?;
        let constant = |index: usize, what: &str| match inputs.get(index).cloned().flatten() {
            None => Ok(None),
            Some(Value::Constant(constant)) => Ok(Some(constant)),
            Some(_) => Err(node.unsupported(format!("its {what} depends on the samples"))),
        };
        let w = constant(1, "W")?.ok_or_else(|| node.wrong("it has no W"))?;
        let r = constant(2, "R")?.ok_or_else(|| node.wrong("it has no R"))?;
        let (b, p) = (constant(3, "B")?, constant(7, "P")?);
        let is = self.recurrence(node, &w, &r)?;
        let time = usize::from(is.batch_first);
        if x.axes.len() != 3 || x.batch_axis() != 1 - time || x.axes[2] != Axis::Fixed(is.features) {
            let wanted = if is.batch_first { "[samples, steps, features]" } else { "[steps, samples, features]" };
            return Err(node.unsupported(format!(
                "X is {}, where {wanted} with {} features is needed",
                x.described(),
                is.features
            )));
        }
        let steps = fixed(node, x.axes[time])?;
        let directions = is.backwards.len();

        let states = if is.cell.has_cell_state() { 2 } else { 1 };
        let mut initial = Vec::new();
        for index in 0..states {
            let given = inputs.get(5 + index).cloned().flatten();
            initial.push(self.initial(node, &is, given)?);
        }
        if initial.iter().any(Option::is_some) {
            // The other state is zero.
            for state in initial.iter_mut().filter(|state| state.is_none()) {
                let zeros = Constant::new(vec![1, is.units], super::constant::Elements::Floats(vec![0.0; is.units]), 0);
                let zero = self.weight(node, &zeros, &[is.units], false)?;
                *state = Some(vec![zero; directions]);
            }
        }

        let samples = x.axes[1 - time];
        let rows: usize = samples.of_sample().product();
        let lengths = self.lengths(node, inputs.get(4).cloned().flatten(), steps)?;
        let used = [0, 1, 2].map(|output| self.is_used(node, output));
        let layer = self.recurrent_layer(&is, b.is_some(), p.is_some(), used, lengths.is_some());
        let (every, with_states) = shape_of(&layer);
        if with_states || lengths.is_some() || initial.iter().any(Option::is_some) {
            plain(node, &x)?;
        }
        let mut tensor = match (rows, is.batch_first) {
            (1, _) => self.shaped(node, &x.tensor, &[steps, is.features])?,
            (_, true) => self.shaped(node, &x.tensor, &[rows, steps, is.features])?,
            (_, false) => {
                let tensor = self.shaped(node, &x.tensor, &[steps, rows, is.features])?;
                self.add(node, Permute::new(&[2, 1, 3]), &[&tensor])?
            }
        };
        if let Some(lengths) = &lengths {
            tensor = self.add(node, SequenceMask::new(), &[&tensor, lengths])?;
        }
        let mut given = vec![&tensor];
        for direction in 0..directions {
            for state in initial.iter().flatten() {
                given.push(&state[direction]);
            }
        }

        let lineages = [Some(&w), Some(&r), b.as_ref(), p.as_ref()].into_iter().flatten().map(|c| c.lineage).collect();
        // PyTorch's older exporter names a node by its module, `/encoder/LSTM`.
        let module = node.name().trim_start_matches('/').rsplit_once('/').map(|(module, _)| module.replace('/', "."));
        let stem = module.filter(|module| !module.is_empty() && !module.contains(':')).unwrap_or_else(|| {
            crate::nn::Layer::stem(&LayerConfig::of_cell(is.cell, 1, RecurrentOptions::default())).to_owned()
        });
        let weights = || direction_weights(node, &is, &layer, [&w, &r], [b.as_ref(), p.as_ref()]);
        let id = match rows {
            1 => self.weighted(node, &stem, layer.clone(), lineages, weights)?,
            _ => {
                let inner = crate::nn::Layer::stem(&layer);
                let weights = || -> Result<NamedWeights> {
                    Ok(weights()?.into_iter().map(|(name, values)| (format!("{inner}.{name}"), values)).collect())
                };
                self.weighted(node, &stem, TimeDistributed::new(layer.clone()).into(), lineages, weights)?
            }
        };
        let mut outputs = self.call_all(node, id, &given)?;
        if let (2.., false, [y]) = (rows, is.batch_first, &mut outputs[..]) {
            // Where the samples are, their rows are.
            let (shape, order) = match every {
                true => (vec![rows, steps, directions, is.units], &[2, 3, 1, 4][..]),
                false => (vec![rows, directions, is.units], &[2, 1, 3][..]),
            };
            let shaped = self.shaped(node, y, &shape)?;
            *y = self.add(node, Permute::new(order), &[&shaped])?;
        }

        // Outputs of the layer: y, then for each direction h and c. Without every step y is the last h of all directions.
        let mut results: Vec<Option<Data>> = vec![None, None, None];
        let state_axes = || {
            let (d, h) = (Axis::Fixed(directions), Axis::Fixed(is.units));
            if is.batch_first { vec![samples, d, h] } else { vec![d, samples, h] }
        };
        if every {
            let (t, d, h) = (Axis::Fixed(steps), Axis::Fixed(directions), Axis::Fixed(is.units));
            let axes = if is.batch_first { vec![samples, t, d, h] } else { vec![t, d, samples, h] };
            results[0] = Some(Data { tensor: outputs[0].clone(), axes, kind: Kind::Float });
        } else {
            results[1] = Some(Data { tensor: outputs[0].clone(), axes: state_axes(), kind: Kind::Float });
        }
        if with_states {
            for state in 0..states {
                if results[1 + state].is_some() || !used[1 + state] {
                    continue;
                }
                let parts: Vec<&GraphTensor> = outputs[1..].iter().skip(state).step_by(states).collect();
                let tensor = match parts[..] {
                    [only] => only.clone(),
                    _ => self.add(node, Concatenate::new(), &parts)?,
                };
                results[1 + state] = Some(Data { tensor, axes: state_axes(), kind: Kind::Float });
            }
        }
        // Outputs that nobody reads need a value all the same.
        let spare = results.iter().flatten().next().cloned();
        Ok(results.into_iter().filter_map(|result| result.or_else(|| spare.clone())).map(Value::Data).collect())
    }

    fn recurrence(&self, node: Node<'f>, w: &Constant, r: &Constant) -> Result<Recurrence> {
        let cell = CellKind::ALL.into_iter().find(|cell| cell.spec().onnx.is_some_and(|onnx| onnx.name == node.op()));
        let cell = cell.ok_or_else(|| node.unsupported("the cell is unknown here"))?;
        let backwards = match node.text("direction").unwrap_or("forward") {
            "forward" => vec![false],
            "reverse" => vec![true],
            "bidirectional" => vec![false, true],
            other => return Err(node.wrong(format!("direction {other:?}"))),
        };
        let (&[d, rows, features], &[d2, rows2, units]) = (&w.shape[..], &r.shape[..]) else {
            return Err(node.wrong("W or R has not three axes"));
        };
        let gates = cell.gates();
        let fits = d == backwards.len()
            && d2 == d
            && rows == rows2
            && units > 0
            && features > 0
            && gates.checked_mul(units) == Some(rows);
        if !fits || node.int("hidden_size").is_some_and(|size| usize::try_from(size).ok() != Some(units)) {
            return Err(node.wrong(format!(
                "W {:?} and R {:?} for {} directions of {gates} gates",
                w.shape,
                r.shape,
                backwards.len()
            )));
        }
        let activations = self.activations(node, cell, backwards.len())?;
        Ok(Recurrence {
            cell,
            units,
            features,
            batch_first: node.flag("layout"),
            activations,
            clip: node.float("clip").filter(|clip| *clip != 0.0),
            coupled: cell.has(CellOption::CoupledInputForget) && node.flag("input_forget"),
            reset_after: cell.has(CellOption::Reset) && node.flag("linear_before_reset"),
            backwards,
        })
    }

    /// The functions of each direction.
    fn activations(&self, node: Node<'f>, cell: CellKind, directions: usize) -> Result<Vec<Activations>> {
        let names = node.attribute("activations").map(|attribute| attribute.strings.clone()).unwrap_or_default();
        if names.is_empty() {
            return Ok(vec![Activations::default(); directions]);
        }
        let used = cell.spec().functions;
        let count = [used.gate, used.state, used.output].into_iter().filter(|used| *used).count();
        if names.len() != count * directions {
            return Err(node.wrong(format!(
                "{} activations, where {count} for each of {directions} directions are needed",
                names.len()
            )));
        }
        let numbers = |name: &str| {
            node.attribute(name)
                .map(|attribute| attribute.floats.clone())
                .unwrap_or_default()
                .into_iter()
                .map(f64::from)
        };
        let (mut alphas, mut betas) = (numbers("activation_alpha"), numbers("activation_beta"));
        let mut functions = Vec::new();
        for name in &names {
            let lower = name.to_ascii_lowercase();
            let known = Activation::ALL.into_iter().filter(|f| !matches!(f, Activation::Selu | Activation::Linear));
            let function = known.into_iter().find(|f| f.name().replace('_', "") == lower);
            let function =
                function.ok_or_else(|| node.unsupported(format!("the activation {name:?} is unknown here")))?;
            let constants = function.constants();
            let alpha = constants.0.and_then(|_| alphas.next());
            let beta = constants.1.and_then(|_| betas.next());
            functions.push(function.with_constants(alpha, beta));
        }
        let set = |set: &[Activation]| match *set {
            [state] => Activations { state, ..Activations::default() },
            [gate, state] => Activations { gate, state, ..Activations::default() },
            [gate, state, output] => Activations { gate, state, output },
            _ => Activations::default(),
        };
        Ok(functions.chunks_exact(count.max(1)).map(set).collect())
    }

    /// Initial states of each direction; `None` where they are absent or zero.
    fn initial(&mut self, node: Node<'f>, is: &Recurrence, given: Option<Value>) -> Result<Option<Vec<GraphTensor>>> {
        let directions = is.backwards.len();
        let at = usize::from(!is.batch_first);
        let Some(given) = given else { return Ok(None) };
        match given {
            Value::Constant(constant) => {
                let one = self.of_one_sample(node, &constant, at)?;
                if one.len() != directions * is.units {
                    return Err(node.wrong(format!("an initial state of shape {:?}", constant.shape)));
                }
                if one.uniform() == Some(0.0) {
                    return Ok(None);
                }
                let mut states = Vec::new();
                for direction in 0..directions {
                    let axis = if is.batch_first { 1 } else { 0 };
                    let part = one
                        .along(axis, &[direction])
                        .ok_or_else(|| node.wrong("an initial state without directions"))?;
                    let lineage = node.lineage(&[one.lineage], direction);
                    self.made_of(one.lineage, lineage);
                    let part = Constant { lineage, is_weight: true, ..part };
                    states.push(self.weight(node, &part, &[is.units], true)?);
                }
                Ok(Some(states))
            }
            value => {
                let data = self.data(node, value)?;
                let wanted = if is.batch_first {
                    [BATCH, Axis::Fixed(directions), Axis::Fixed(is.units)]
                } else {
                    [Axis::Fixed(directions), BATCH, Axis::Fixed(is.units)]
                };
                if data.axes != wanted {
                    return Err(node.unsupported(format!("an initial state {}", data.described())));
                }
                if directions == 1 {
                    return Ok(Some(vec![self.shaped(node, &data.tensor, &[is.units])?]));
                }
                let tensor = self.shaped(node, &data.tensor, &[directions * is.units])?;
                let mut states = Vec::new();
                for direction in 0..directions {
                    let part = Part::Steps { start: direction * is.units, step: 1, count: is.units };
                    states.push(self.add(node, Slice::of_parts(1, &[part]), &[&tensor])?);
                }
                Ok(Some(states))
            }
        }
    }

    /// How long each sample's sequence is; `None` where all have every step.
    fn lengths(&mut self, node: Node<'f>, given: Option<Value>, steps: usize) -> Result<Option<GraphTensor>> {
        match given {
            None => Ok(None),
            Some(Value::Constant(constant)) => match constant.uniform() {
                Some(length) if length == steps as f64 => Ok(None),
                _ => Err(node
                    .unsupported(format!("constant sequence_lens other than the {steps} steps of X; cut X instead"))),
            },
            Some(value) => {
                let data = self.data(node, value)?;
                if data.axes != [BATCH] {
                    return Err(node.wrong(format!("sequence_lens {}", data.described())));
                }
                Ok(Some(self.shaped(node, &data.tensor, &[1])?))
            }
        }
    }

    /// The layer for a node: Keras's where that has all of its options.
    fn recurrent_layer(
        &self,
        is: &Recurrence,
        bias: bool,
        peepholes: bool,
        used: [bool; 3],
        masked: bool,
    ) -> LayerConfig {
        let usual =
            usual(is).filter(|_| is.clip.is_none() && !is.coupled && !peepholes && !masked && is.backwards != [true]);
        let Some((state, gate)) = usual else {
            return RecurrentOperator {
                cell: is.cell.to_string(),
                units: is.units,
                backwards: is.backwards.clone(),
                activations: is
                    .activations
                    .iter()
                    .map(|set| [set.gate, set.state, set.output].map(|function| function.to_string()))
                    .collect(),
                use_bias: bias,
                clip: is.clip,
                peepholes,
                coupled_input_forget: is.coupled,
                reset_after: is.reset_after,
            }
            .into();
        };
        let options = RecurrentOptions {
            return_sequences: used[0] || !used[1],
            return_state: (used[0] && used[1]) || used[2],
            ..RecurrentOptions::default()
        };
        let layer: LayerConfig = match is.cell {
            CellKind::Lstm => {
                let layer = Lstm::new(is.units).activation(state).recurrent_activation(gate).use_bias(bias);
                Lstm { options, ..layer }.into()
            }
            CellKind::Gru => {
                let layer = Gru::new(is.units).activation(state).recurrent_activation(gate).use_bias(bias);
                Gru { options, ..layer.reset_after(is.reset_after) }.into()
            }
            _ => SimpleRnn { options, ..SimpleRnn::new(is.units).activation(state).use_bias(bias) }.into(),
        };
        if is.backwards.len() == 2 { Bidirectional::new(layer).into() } else { layer }
    }
}

/// The functions of candidates and gates by Keras's names, where it has them and they are the same in all directions.
fn usual(is: &Recurrence) -> Option<(ActivationFunction, ActivationFunction)> {
    let first = *is.activations.first()?;
    let used = is.cell.spec().functions;
    let same = is.activations.iter().all(|set| *set == first) && (!used.output || first.output == first.state);
    let named = |function: Activation| {
        use ActivationFunction as F;
        [
            F::Linear,
            F::Tanh,
            F::Relu,
            F::Sigmoid,
            F::HardSigmoid,
            F::Softsign,
            F::Softplus,
            F::Elu,
            F::Selu,
            F::LeakyRelu,
        ]
        .into_iter()
        .find(|name| name.elementwise() == Some(function))
    };
    let gate = if used.gate { named(first.gate)? } else { ActivationFunction::Sigmoid };
    same.then_some((named(first.state)?, gate))
}

/// Whether a layer gives every step, and whether it gives the last states.
fn shape_of(layer: &LayerConfig) -> (bool, bool) {
    match layer {
        LayerConfig::Bidirectional(both) => shape_of(&both.layer),
        layer => layer.as_recurrent().map_or((true, true), |recurrent| {
            let options = recurrent.options();
            (options.return_sequences, options.return_state)
        }),
    }
}

/// The weights of a node for its layer, tensor by tensor.
fn direction_weights(
    node: Node<'_>,
    is: &Recurrence,
    layer: &LayerConfig,
    [w, r]: [&Constant; 2],
    [b, p]: [Option<&Constant>; 2],
) -> Result<NamedWeights> {
    let mut weights = Vec::new();
    for direction in 0..is.backwards.len() {
        let part = |constant: &Constant| -> Result<Vec<f64>> {
            let part = constant.along(0, &[direction]).and_then(|part| part.floats());
            part.ok_or_else(|| node.wrong(format!("weights of shape {:?}", constant.shape)))
        };
        let node_weights =
            OnnxWeights { w: part(w)?, r: part(r)?, b: b.map(part).transpose()?, p: p.map(part).transpose()? };
        let mut descriptor = RnnDescriptor::new(is.cell, is.features, is.units);
        descriptor.bias = if b.is_some() { Bias::Double } else { Bias::None };
        descriptor.peepholes = p.is_some();
        if is.backwards[direction] {
            descriptor.direction = Direction::Reverse;
        }
        if is.cell == CellKind::Gru {
            descriptor.reset = if is.reset_after { GruReset::After } else { GruReset::Before };
        }
        let flat = onnx::import(&descriptor, &node_weights).map_err(|e| node.wrong(e))?;
        let layout = WeightLayout::new(&descriptor).map_err(|e| node.wrong(e))?;
        let entries = layout.entries();
        let values = |kind: WeightKind| {
            entries.iter().find(|entry| entry.kind == kind).map(|entry| flat[entry.range.clone()].to_vec())
        };
        let scope = match (layer, direction) {
            (LayerConfig::Bidirectional(_), 0) => "forward.",
            (LayerConfig::Bidirectional(_), _) => "backward.",
            (_, 0) => "",
            _ => "backward.",
        };
        // Keras's LSTM and SimpleRNN have one bias, the sum of both.
        let single = match layer {
            LayerConfig::Bidirectional(both) => both.layer.as_recurrent(),
            layer => layer.as_recurrent(),
        };
        let single = single.is_some_and(|recurrent| recurrent.bias() == Bias::Single);
        for entry in entries {
            let mut own = values(entry.kind).ok_or_else(|| depends(node))?;
            match entry.kind {
                WeightKind::HiddenBias if single => continue,
                WeightKind::InputBias if single => {
                    let other = values(WeightKind::HiddenBias).unwrap_or_default();
                    own.iter_mut().zip(other).for_each(|(own, other)| *own += other);
                }
                _ => {}
            }
            weights.push((format!("{scope}{}", entry.name), own));
        }
    }
    Ok(weights)
}
