//! From a graph of ONNX to one of this crate: [`Importer`], which computes every value once, as a constant or as a tensor of the model.

use std::collections::{HashMap, HashSet};

use rten_onnx::onnx::{GraphProto, TensorProto};

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::exchange::onnx::constant::{Constant, Count, Elements, Kind, size};
use crate::exchange::onnx::fold::depends;
use crate::exchange::onnx::proto::{Node, OnnxFile, format_error};
use crate::exchange::onnx::tensor::{Axis, BATCH, Data};
use crate::model::{CallConfig, Graph, GraphConfig, GraphTensor, LayerId, Model, NamedConfig, Source};
use crate::nn::{Elementwise, Function, LayerConfig, Reshape, Weight};

/// Elements of a sample of all tensors together, at most, since a model keeps them all: 1 GiB in f32. A few bytes of a file may ask for any number.
const MOST_ELEMENTS: usize = 1 << 28;

/// A value of a graph.
#[derive(Clone)]
pub(super) enum Value {
    /// Known before the model runs.
    Constant(Constant),
    /// Computed by the model.
    Data(Data),
    /// A product with weights `[units, features]`, to which a bias may still be added.
    Product(Data, Constant),
}

/// Weights of a layer, in this crate's order.
pub(super) type NamedWeights = Vec<(String, Vec<f64>)>;

/// A graph of ONNX on its way.
pub(super) struct Importer<'f> {
    pub file: &'f OnnxFile,
    pub graph: Graph,
    /// How many samples the file was written for, if that is fixed.
    pub literal: Option<usize>,
    scopes: Vec<HashMap<&'f str, Value>>,
    initializers: Vec<HashMap<&'f str, &'f TensorProto>>,
    uses: HashMap<&'f str, usize>,
    names: HashSet<String>,
    /// Weights by their full names.
    weights: NamedWeights,
    /// Layers by what their weights are made of.
    shared: HashMap<(String, Vec<u64>), LayerId>,
    /// Weights by themselves, and what they are made of.
    tensors: HashMap<(u64, Vec<usize>, bool), GraphTensor>,
    /// A tensor of the model, for what needs the number of samples alone.
    pub carrier: Option<GraphTensor>,
    /// Elements of constants so far.
    elements: usize,
    /// Elements of a sample of all tensors so far.
    computed: usize,
    /// How many these may be.
    pub most_computed: usize,
    /// Nodes computed so far.
    pub done: usize,
    /// Inputs without a value, and why.
    pub unset: HashMap<&'f str, String>,
    /// What constants are made of that take the place of the file's.
    given: HashSet<u64>,
    /// Layers all of whose weights are such.
    given_layers: HashSet<String>,
}

impl<'f> Importer<'f> {
    pub fn new(file: &'f OnnxFile, device: Device, literal: Option<usize>) -> Self {
        Importer {
            file,
            graph: Graph::new(device, 0),
            literal,
            scopes: vec![HashMap::new()],
            initializers: Vec::new(),
            uses: HashMap::new(),
            names: HashSet::new(),
            weights: Vec::new(),
            shared: HashMap::new(),
            tensors: HashMap::new(),
            carrier: None,
            elements: 0,
            computed: 0,
            most_computed: MOST_ELEMENTS,
            done: 0,
            unset: HashMap::new(),
            given: HashSet::new(),
            given_layers: HashSet::new(),
        }
    }

    /// Gives a name of the outermost graph its value.
    pub fn define(&mut self, name: &'f str, value: Value) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.insert(name, value);
        }
    }

    /// A value that a name of this graph, or of one around it, stands for.
    pub fn lookup(&mut self, name: &str) -> Result<Option<Value>> {
        for depth in (0..self.scopes.len()).rev() {
            if let Some(value) = self.scopes[depth].get(name) {
                return Ok(Some(value.clone()));
            }
            let Some((&key, tensor)) = self.initializers.get(depth).and_then(|known| known.get_key_value(name)) else {
                continue;
            };
            let constant = Constant { is_weight: true, ..self.file.tensor(tensor)? };
            self.elements = self.elements.saturating_add(constant.len());
            // Tensors may all stand in the same bytes of a file beside the model.
            if self.elements > self.most_elements() {
                let (most, bytes) = (self.most_elements(), self.file.bytes());
                let problem = format!(
                    "tensor {name}: constants of more than {most} elements, which a file of {bytes} bytes cannot need"
                );
                return Err(format_error(&self.file.path, problem));
            }
            if constant.kind() == Kind::Float && self.file.given_for(name, &constant.shape).is_some() {
                self.given.insert(constant.lineage);
            }
            let value = Value::Constant(constant);
            self.scopes[depth].insert(key, value.clone());
            return Ok(Some(value));
        }
        Ok(None)
    }

    /// Refuses constants that a file of this size cannot need.
    pub fn budget(&mut self, node: Node<'_>, shape: &[usize]) -> Result<()> {
        let most = self.most_elements();
        self.elements = size(shape).and_then(|len| self.elements.checked_add(len)).unwrap_or(usize::MAX);
        if self.elements > most {
            return Err(node.wrong(format!(
                "constants of more than {most} elements, which a file of {} bytes cannot need; its last one has shape {shape:?}",
                self.file.bytes()
            )));
        }
        Ok(())
    }

    pub fn most_elements(&self) -> usize {
        self.file.bytes().saturating_mul(8).saturating_add(1 << 20)
    }

    /// Says what a constant is made of that a node has made of others.
    pub fn made_of(&mut self, from: u64, lineage: u64) {
        if self.given.contains(&from) {
            self.given.insert(lineage);
        }
    }

    /// Computes the outputs of a graph, and gives their values.
    pub fn run(&mut self, graph: &'f GraphProto) -> Result<Vec<(&'f str, Value)>> {
        let named = |tensor: &'f TensorProto| tensor.name.as_deref().map(|name| (name, tensor));
        self.initializers.push(graph.initializer.iter().filter_map(named).collect());
        let outputs: Vec<&'f str> = graph.output.iter().filter_map(|output| output.name.as_deref()).collect();
        let needed = needed(graph, &outputs);
        // Graphs within nodes are counted with these.
        if self.scopes.len() == 1 {
            count_uses(graph, &needed, &mut self.uses);
            for output in &outputs {
                *self.uses.entry(*output).or_default() += 1;
            }
        }
        for (index, proto) in graph.node.iter().enumerate() {
            if needed[index] {
                self.node(Node { proto, file: self.file })?;
            }
        }
        let mut values = Vec::new();
        for name in outputs {
            let value = self.lookup(name)?;
            let value = value.ok_or_else(|| {
                format_error(&self.file.path, format!("output {name} is computed by none of the nodes"))
            })?;
            values.push((name, value));
        }
        Ok(values)
    }

    /// The value of a graph within a node, with its names apart.
    pub fn inner(&mut self, graph: &'f GraphProto) -> Result<Vec<Value>> {
        let outer_initializers = self.initializers.len();
        self.scopes.push(HashMap::new());
        // One list of initializers a scope.
        let result = self.run(graph);
        self.scopes.pop();
        self.initializers.truncate(outer_initializers);
        Ok(result?.into_iter().map(|(_, value)| value).collect())
    }

    fn node(&mut self, node: Node<'f>) -> Result<()> {
        if !matches!(node.proto.domain.as_deref(), None | Some("" | "ai.onnx")) {
            let domain = node.proto.domain.as_deref().unwrap_or_default();
            return Err(
                node.unsupported(format!("operators of the domain {domain:?} are unknown here; export standard ones"))
            );
        }
        self.done += 1;
        let values = match node.op() {
            "If" => self.branch(node)?,
            _ => {
                let mut inputs = Vec::new();
                for index in 0..node.proto.input.len() {
                    inputs.push(match node.input(index) {
                        None => None,
                        Some(name) => match (self.lookup(name)?, self.unset.get(name)) {
                            (Some(value), _) => Some(value),
                            (None, Some(why)) => return Err(node.unsupported(why)),
                            (None, None) => {
                                return Err(node.wrong(format!(
                                    "its input {name} is computed by no node before it: the graph has a cycle, is out of order, or ends early"
                                )));
                            }
                        },
                    });
                }
                // What is made of given tensors alone is given too.
                let weights = || {
                    inputs
                        .iter()
                        .flatten()
                        .filter_map(Value::constant)
                        .filter(|c| c.kind() == Kind::Float && c.is_weight)
                };
                let all_given = !self.given.is_empty()
                    && weights().count() > 0
                    && weights().all(|c| self.given.contains(&c.lineage));
                let values = self.evaluate(node, inputs)?;
                if all_given {
                    for value in &values {
                        if let Value::Constant(constant) | Value::Product(_, constant) = value {
                            self.given.insert(constant.lineage);
                        }
                    }
                }
                values
            }
        };
        for (index, name) in node.proto.output.iter().enumerate().filter(|(_, name)| !name.is_empty()) {
            match values.get(index) {
                Some(value) => self.define(name, value.clone()),
                // A second output that nobody reads need not be there.
                None if self.uses(name) == 0 => {}
                None => {
                    return Err(node.unsupported(format!("its output number {index}, {name}, is not computed here")));
                }
            }
        }
        Ok(())
    }

    /// How often a name is read.
    pub fn uses(&self, name: &str) -> usize {
        self.uses.get(name).copied().unwrap_or(0)
    }

    /// Whether an output of a node is read.
    pub fn is_used(&self, node: Node<'_>, output: usize) -> bool {
        node.proto.output.get(output).is_some_and(|name| !name.is_empty() && self.uses(name) > 0)
    }

    fn branch(&mut self, node: Node<'f>) -> Result<Vec<Value>> {
        let name = node.input(0).ok_or_else(|| node.wrong("it has no condition"))?;
        let condition = match self.lookup(name)? {
            Some(Value::Constant(constant)) => constant.cast(node, Kind::Bool)?,
            None if self.unset.contains_key(name) => {
                return Err(node.unsupported(self.unset.get(name).map_or("", String::as_str)));
            }
            Some(_) => {
                return Err(node.unsupported(
                    "its condition depends on the samples; only branches whose condition is known before the model runs are followed. \
                     Give inputs that choose between them (a sampling rate, say) a value: --set NAME=VALUE, or ImportOptions::constants",
                ));
            }
            None => return Err(node.wrong(format!("its condition {name} is computed by no node before it"))),
        };
        let holds = condition.floats().and_then(|values| values.first().copied()).unwrap_or(0.0) != 0.0;
        let branch = if holds { "then_branch" } else { "else_branch" };
        let graph = node.attribute(branch).and_then(|attribute| attribute.g.as_ref());
        self.inner(graph.ok_or_else(|| node.wrong(format!("it has no {branch}")))?)
    }

    // What operators are made of.

    /// A name that no layer has yet, from that of a weight where it has one that fits: `fc1` for `fc1.weight`.
    pub fn name_for(&mut self, stem: &str) -> String {
        let names = (0..).map(|n| if n == 0 { stem.to_owned() } else { format!("{stem}_{n}") });
        let mut free = names.filter(|name| !self.names.contains(name));
        let name = free.next().unwrap_or_else(|| stem.to_owned());
        self.names.insert(name.clone());
        name
    }

    /// The part of a weight's name that its layer could have.
    pub fn stem<'a>(name: Option<&'a str>, otherwise: &'a str) -> &'a str {
        let stem = name.and_then(|name| name.rsplit_once('.')).map(|(stem, _)| stem);
        stem.filter(|stem| !stem.is_empty() && !stem.contains(':')).unwrap_or(otherwise)
    }

    /// A layer with weights: a new one, or that with the same weights.
    pub fn weighted(
        &mut self,
        node: Node<'_>,
        stem: &str,
        layer: LayerConfig,
        lineages: Vec<u64>,
        weights: impl FnOnce() -> Result<NamedWeights>,
    ) -> Result<LayerId> {
        let key = (format!("{layer:?}"), lineages);
        if let Some(known) = self.shared.get(&key) {
            return Ok(*known);
        }
        let name = self.name_for(stem);
        if !key.1.is_empty() && key.1.iter().all(|lineage| self.given.contains(lineage)) {
            self.given_layers.insert(name.clone());
        }
        let id = self.graph.named_layer(&name, layer).map_err(|e| node.wrong(e))?;
        self.weights.extend(weights()?.into_iter().map(|(tensor, values)| (format!("{name}.{tensor}"), values)));
        self.shared.insert(key, id);
        Ok(id)
    }

    /// A layer's only output.
    pub fn call(&mut self, node: Node<'_>, layer: LayerId, inputs: &[&GraphTensor]) -> Result<GraphTensor> {
        let mut outputs = self.call_all(node, layer, inputs)?;
        if outputs.len() == 1 { Ok(outputs.remove(0)) } else { Err(node.wrong("a layer with several outputs")) }
    }

    /// A layer's outputs.
    pub fn call_all(&mut self, node: Node<'_>, layer: LayerId, inputs: &[&GraphTensor]) -> Result<Vec<GraphTensor>> {
        let outputs = self.graph.call_all(layer, inputs).map_err(|e| node.wrong(e))?;
        for output in &outputs {
            let shape = output.shape();
            self.computed = size(shape).and_then(|len| self.computed.checked_add(len)).unwrap_or(usize::MAX);
            let most = self.most_computed;
            if self.computed > most {
                return Err(node.unsupported(format!(
                    "with a tensor of shape {shape:?} for each sample, what the graph computes is more than {most} elements, all of which a model keeps"
                )));
            }
        }
        Ok(outputs)
    }

    /// A new layer without weights.
    pub fn add(
        &mut self,
        node: Node<'_>,
        layer: impl Into<LayerConfig>,
        inputs: &[&GraphTensor],
    ) -> Result<GraphTensor> {
        let layer = layer.into();
        let stem = crate::nn::Layer::stem(&layer).to_owned();
        let name = self.name_for(&stem);
        let id = self.graph.named_layer(&name, layer).map_err(|e| node.wrong(e))?;
        self.call(node, id, inputs)
    }

    /// The tensor under a sample shape.
    pub fn shaped(&mut self, node: Node<'_>, tensor: &GraphTensor, shape: &[usize]) -> Result<GraphTensor> {
        let shape = if shape.is_empty() { &[1] } else { shape };
        if tensor.shape() == shape {
            return Ok(tensor.clone());
        }
        let target: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
        self.add(node, Reshape::new(&target), &[tensor])
    }

    /// The tensor as a sample's shape says.
    pub fn sample(&mut self, node: Node<'_>, data: &Data) -> Result<GraphTensor> {
        self.shaped(node, &data.tensor, &data.sample())
    }

    /// A function of every element.
    pub fn map(&mut self, node: Node<'_>, data: &Data, function: Function) -> Result<Data> {
        let tensor = self.add(node, Elementwise::new(function), &[&data.tensor])?;
        Ok(Data { tensor, ..data.clone() })
    }

    /// A constant as weights of this sample shape.
    pub fn weight(
        &mut self,
        node: Node<'_>,
        constant: &Constant,
        shape: &[usize],
        trainable: bool,
    ) -> Result<GraphTensor> {
        let values = constant.floats().ok_or_else(|| depends(node))?;
        // A file of weights holds finite ones. What is beyond all numbers in the arithmetic of attention stays beyond all others.
        let finite = values.iter().all(|value| value.is_finite());
        let limit = f64::from(f32::MAX);
        if values.iter().any(|value| value.is_nan()) {
            return Err(node.unsupported("a constant with an element that is not a number"));
        }
        let values: Vec<f64> = values.into_iter().map(|value| value.clamp(-limit, limit)).collect();
        let trainable = trainable && finite && constant.kind() == Kind::Float && constant.is_weight;
        let shape = if shape.is_empty() { vec![1] } else { shape.to_vec() };
        let key = (constant.lineage, shape.clone(), trainable);
        if let Some(known) = self.tensors.get(&key) {
            return Ok(known.clone());
        }
        let carrier = self.carrier.clone().ok_or_else(|| node.unsupported("a model without inputs"))?;
        let name = self.name_for("weight");
        if self.given.contains(&constant.lineage) {
            self.given_layers.insert(name.clone());
        }
        let id = self.graph.named_layer(&name, Weight::new(&shape).trainable(trainable)).map_err(|e| node.wrong(e))?;
        let tensor = self.call(node, id, &[&carrier])?;
        self.weights.push((format!("{name}.weight"), values));
        self.tensors.insert(key, tensor.clone());
        Ok(tensor)
    }

    /// A constant for every sample alike, of the shape that has its samples in axis `at`: its elements for one sample, with length 1 there.
    pub fn of_one_sample(&self, node: Node<'_>, constant: &Constant, at: usize) -> Result<Constant> {
        let Some(n) = constant.shape.get(at).copied() else { return Ok(constant.clone()) };
        if n == 1 && constant.batch_axis.is_none_or(|axis| axis == at) {
            return Ok(constant.clone());
        }
        if constant.batch_axis.is_some() {
            return Err(node.wrong("the samples stand in different axes of its inputs"));
        }
        let first = constant.along(at, &[0]).ok_or_else(|| node.wrong("a constant without elements"))?;
        let all = first.broadcast(&constant.shape);
        if self.literal != Some(n) || all.is_none_or(|all| all.elements != constant.elements) {
            return Err(node.unsupported(format!(
                "a constant of shape {:?} meets the samples in axis {at}, where it has {n}, not the same for each; \
                 export the model for a number of samples that may change",
                constant.shape
            )));
        }
        Ok(first)
    }

    /// A value as data.
    pub fn data(&mut self, node: Node<'f>, value: Value) -> Result<Data> {
        match value {
            Value::Data(data) => Ok(data),
            Value::Product(data, weight) => self.dense(node, &data, &weight, None),
            Value::Constant(constant) => {
                // The same for every sample, of whom there are as many as of others: a state that starts at zero.
                let Some(at) = constant.batch_axis else {
                    return Err(node.unsupported("a constant in the place of a tensor that depends on the samples"));
                };
                let tensor = self.carrier.clone().ok_or_else(|| node.unsupported("a model without inputs"))?;
                let one = self.of_one_sample(node, &constant, at)?;
                let mut axes: Vec<Axis> = one.shape.iter().map(|n| Axis::Fixed(*n)).collect();
                if let Some(axis) = axes.get_mut(at) {
                    *axis = BATCH;
                }
                let data = Data { tensor, axes, kind: constant.kind() };
                let tensor = self.weight(node, &one, &data.sample(), true)?;
                Ok(Data { tensor, ..data })
            }
        }
    }

    /// Where the weights' own values are; for products that wait for their bias.
    pub fn resolved(&mut self, node: Node<'f>, value: Value) -> Result<Value> {
        match value {
            Value::Product(..) => Ok(Value::Data(self.data(node, value)?)),
            other => Ok(other),
        }
    }

    /// A shape that a constant says, with lengths that may depend on the number of samples.
    pub fn counts(&self, node: Node<'_>, value: Option<&Value>, what: &str) -> Result<Option<Vec<Count>>> {
        match value {
            None => Ok(None),
            Some(Value::Constant(constant)) => match constant.counts() {
                Some(counts) => Ok(Some(counts)),
                None => Err(node.wrong(format!("its {what} are no whole numbers"))),
            },
            Some(_) => Err(node.unsupported(format!("its {what} depend on the samples"))),
        }
    }

    /// Whole numbers that a constant says, or else an attribute of earlier versions.
    pub fn ints(&self, node: Node<'_>, value: Option<&Value>, what: &str) -> Result<Option<Vec<i64>>> {
        if value.is_none() {
            return Ok(node.ints(what).map(<[i64]>::to_vec));
        }
        let counts = self.counts(node, value, what)?;
        counts
            .map(|counts| counts.into_iter().map(Count::known).collect::<Option<_>>().ok_or_else(|| depends(node)))
            .transpose()
    }

    /// What leads to the outputs; the numbers of the inputs that do; weights; and the layers all of whose weights take the place of the file's.
    pub fn finish(self, outputs: &[GraphTensor]) -> Result<(GraphConfig, Vec<usize>, NamedWeights, HashSet<String>)> {
        let config = self.graph.config(&outputs.iter().collect::<Vec<_>>())?;
        let (config, inputs) = pruned(config);
        Ok((config, inputs, self.weights, self.given_layers))
    }
}

/// The model that a configuration describes, with those of the weights that it has.
pub(super) fn build(file: &OnnxFile, device: Device, config: &GraphConfig, weights: &NamedWeights) -> Result<Model> {
    let mut model = Model::from_config(device, config, 0)?;
    let known: HashSet<String> = model.weights().map(|(name, ..)| name).collect();
    for (name, values) in weights.iter().filter(|(name, _)| known.contains(name)) {
        if let Some(place) = values.iter().position(|value| !value.is_finite()) {
            return Err(Error::NonFinite {
                tensor: name.clone(),
                got: values.get(place).copied().unwrap_or(f64::NAN),
                position: format!("element {place}, of the weights in {}", file.path.display()),
                help: "export the model with finite weights".to_owned(),
            });
        }
        model.set_weight(name, values).map_err(|e| format_error(&file.path, e.to_string()))?;
    }
    Ok(model)
}

/// What of a configuration leads to its outputs, and which of its inputs.
fn pruned(config: GraphConfig) -> (GraphConfig, Vec<usize>) {
    let mut used = HashSet::new();
    let mut open = config.outputs.clone();
    while let Some(source) = open.pop() {
        if let Source::Call(call, _) = source
            && used.insert(Source::Call(call, 0))
        {
            open.extend(config.calls.get(call).into_iter().flat_map(|call| call.inputs.iter().copied()));
        } else if matches!(source, Source::Input(_)) {
            used.insert(source);
        }
    }
    let numbered = |flags: &mut dyn Iterator<Item = bool>| {
        let mut next = 0;
        let number = flags.map(|kept| {
            next += usize::from(kept);
            kept.then(|| next - 1)
        });
        number.collect::<Vec<Option<usize>>>()
    };
    let inputs = numbered(&mut (0..config.inputs.len()).map(|i| used.contains(&Source::Input(i))));
    let calls = numbered(&mut (0..config.calls.len()).map(|i| used.contains(&Source::Call(i, 0))));
    let kept_layers: HashSet<usize> =
        config.calls.iter().zip(&calls).filter(|(_, kept)| kept.is_some()).map(|(call, _)| call.layer).collect();
    let layers = numbered(&mut (0..config.layers.len()).map(|i| kept_layers.contains(&i)));
    let renumber = |source: &Source| match *source {
        Source::Input(i) => Source::Input(inputs[i].unwrap_or(0)),
        Source::Call(call, output) => Source::Call(calls[call].unwrap_or(0), output),
    };
    let config = GraphConfig {
        inputs: config.inputs.iter().zip(&inputs).filter(|(_, kept)| kept.is_some()).map(|(i, _)| i.clone()).collect(),
        layers: config
            .layers
            .iter()
            .zip(&layers)
            .filter(|(_, kept)| kept.is_some())
            .map(|(l, _)| NamedConfig::clone(l))
            .collect(),
        calls: config
            .calls
            .iter()
            .zip(&calls)
            .filter(|(_, kept)| kept.is_some())
            .map(|(call, _)| CallConfig {
                layer: layers[call.layer].unwrap_or(0),
                inputs: call.inputs.iter().map(renumber).collect(),
            })
            .collect(),
        outputs: config.outputs.iter().map(renumber).collect(),
    };
    let inputs = inputs.iter().enumerate().filter(|(_, kept)| kept.is_some()).map(|(i, _)| i).collect();
    (config, inputs)
}

/// Graphs within a node.
fn within(proto: &rten_onnx::onnx::NodeProto) -> impl Iterator<Item = &GraphProto> {
    proto.attribute.iter().filter_map(|attribute| attribute.g.as_ref())
}

/// Names that a node reads, those within its graphs too.
fn reads<'f>(proto: &'f rten_onnx::onnx::NodeProto, to: &mut Vec<&'f str>) {
    to.extend(proto.input.iter().map(String::as_str).filter(|name| !name.is_empty()));
    for graph in within(proto) {
        to.extend(graph.output.iter().filter_map(|output| output.name.as_deref()));
        for inner in &graph.node {
            reads(inner, to);
        }
    }
}

/// How often a graph's nodes read a name, those of graphs within them too.
pub(super) fn reads_of(graph: &GraphProto, name: &str) -> usize {
    let mut names = Vec::new();
    graph.node.iter().for_each(|proto| reads(proto, &mut names));
    names.into_iter().filter(|other| *other == name).count()
}

/// Which nodes lead to the outputs.
fn needed(graph: &GraphProto, outputs: &[&str]) -> Vec<bool> {
    let mut wanted: HashSet<&str> = outputs.iter().copied().collect();
    let mut needed = vec![false; graph.node.len()];
    for (index, proto) in graph.node.iter().enumerate().rev() {
        if proto.output.iter().any(|output| wanted.contains(output.as_str())) {
            needed[index] = true;
            let mut names = Vec::new();
            reads(proto, &mut names);
            wanted.extend(names);
        }
    }
    needed
}

/// Counts how often each name is read.
fn count_uses<'f>(graph: &'f GraphProto, needed: &[bool], uses: &mut HashMap<&'f str, usize>) {
    for (proto, _) in graph.node.iter().zip(needed).filter(|(_, needed)| **needed) {
        let mut names = Vec::new();
        reads(proto, &mut names);
        for name in names {
            *uses.entry(name).or_default() += 1;
        }
    }
}

impl Value {
    /// The axes, of which one may depend on the number of samples.
    pub fn shape(&self) -> Vec<Count> {
        match self {
            Value::Constant(constant) => constant
                .shape
                .iter()
                .enumerate()
                .map(|(axis, n)| match constant.batch_axis == Some(axis) {
                    true => Count { batch: 1, fixed: 0 },
                    false => Count::fixed(*n as i64),
                })
                .collect(),
            Value::Data(data) => data.axes.iter().map(|axis| axis.count()).collect(),
            Value::Product(data, weight) => {
                let mut axes: Vec<Count> = data.axes.iter().map(|axis| axis.count()).collect();
                if let Some(last) = axes.last_mut() {
                    *last = Count::fixed(weight.shape[0] as i64);
                }
                axes
            }
        }
    }

    pub fn rank(&self) -> usize {
        self.shape().len()
    }

    pub fn kind(&self) -> Kind {
        match self {
            Value::Constant(constant) => constant.kind(),
            Value::Data(data) => data.kind,
            Value::Product(..) => Kind::Float,
        }
    }

    pub fn constant(&self) -> Option<&Constant> {
        match self {
            Value::Constant(constant) => Some(constant),
            _ => None,
        }
    }
}

/// A constant of whole numbers made by a node, as its shape.
pub(super) fn shape_constant(node: Node<'_>, counts: Vec<Count>) -> Value {
    let lineage = node.lineage(&[], counts.len());
    Value::Constant(Constant::new(vec![counts.len()], Elements::Ints(counts), lineage))
}

/// The only element as a constant without axes.
pub(super) fn scalar_constant(node: Node<'_>, count: Count) -> Value {
    Value::Constant(Constant::new(Vec::new(), Elements::Ints(vec![count]), node.lineage(&[], 0)))
}

/// An input that must be there.
pub(super) fn required(node: Node<'_>, inputs: &[Option<Value>], index: usize) -> Result<Value> {
    inputs.get(index).cloned().flatten().ok_or_else(|| node.wrong(format!("it has no input number {index}")))
}

/// The axes as data, where samples stand in one of them.
pub(super) fn fixed(node: Node<'_>, axis: Axis) -> Result<usize> {
    match axis {
        Axis::Fixed(n) => Ok(n),
        Axis::Batch { .. } => Err(node.unsupported("it goes along the axis that has the samples")),
    }
}

/// An error where samples share their axis with others.
pub(super) fn plain(node: Node<'_>, data: &Data) -> Result<()> {
    if data.is_plain() {
        return Ok(());
    }
    Err(node.unsupported(format!("its input {} has the samples in one axis with others", data.described())))
}
