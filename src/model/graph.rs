//! Layers and how they are connected: [`Graph`], and [`GraphConfig`], which a model file holds.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::input_shape::{InputShape, check_axes};
use crate::model::lengths::ANY_STEPS;
use crate::nn::builder::Mark;
use crate::nn::{Builder, Layer, LayerConfig, Value};

/// Where a tensor of a graph comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The input of this number.
    Input(usize),
    /// Output number `.1` of call number `.0`.
    Call(usize, usize),
}

/// An input of a model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InputConfig {
    /// Its name.
    pub name: String,
    /// Its shape without the batch; `None` in one axis for any number of steps.
    pub shape: Vec<Option<usize>>,
}

/// A layer with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NamedConfig {
    /// Its name in the model.
    pub name: String,
    /// What it is.
    pub layer: LayerConfig,
    /// Whether training changes its weights; yes.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub trainable: bool,
}

fn yes() -> bool {
    true
}

/// Whether files say nothing of it, as those of versions without.
#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for a reference")]
fn is_yes(trainable: &bool) -> bool {
    *trainable
}

/// One use of a layer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CallConfig {
    /// The layer's number.
    pub layer: usize,
    /// What it is given.
    pub inputs: Vec<Source>,
}

/// What a model is, apart from its weights. A layer that several calls name is shared by them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GraphConfig {
    /// Its inputs.
    pub inputs: Vec<InputConfig>,
    /// Its layers.
    pub layers: Vec<NamedConfig>,
    /// Their uses, in any order that has no cycle.
    pub calls: Vec<CallConfig>,
    /// Its outputs.
    pub outputs: Vec<Source>,
}

/// A tensor of a [`Graph`]: an input, or an output of a layer.
#[derive(Clone, Debug, PartialEq)]
pub struct GraphTensor {
    pub(super) source: Source,
    pub(super) value: Value,
}

impl GraphTensor {
    /// Its shape without the batch. Where the input has [any number of steps](InputShape) 5040 stand for them.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// Where it comes from, in the configuration of its graph.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether a layer below has said which of its steps are absent.
    #[cfg(feature = "exchange")]
    pub(crate) fn is_masked(&self) -> bool {
        self.value.mask().is_some()
    }
}

/// A layer of a [`Graph`], to be used as often as one likes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LayerId {
    network: u64,
    index: usize,
}

#[derive(Clone)]
pub(super) struct NamedLayer {
    pub name: String,
    pub layer: Arc<dyn Layer>,
    pub trainable: bool,
}

/// An input with its name.
pub(super) struct NamedInput {
    pub name: String,
    /// Its shape as it was given, `None` for any length.
    pub axes: Vec<Option<usize>>,
    pub value: Value,
}

pub(super) struct LayerCall {
    pub layer: usize,
    pub inputs: Vec<Source>,
    pub outputs: Vec<Value>,
    /// Their shapes, `None` for a length that depends on those of inputs of any length.
    pub axes: Vec<Vec<Option<usize>>>,
    /// Whether an input has a mask that neither the layer reads nor an output has.
    pub ends_mask: bool,
}

impl LayerCall {
    /// Takes those axes for ones of any length that are others in the same use with inputs of other lengths.
    fn compare_axes(&mut self, other: &LayerCall) {
        let axes = |(one, other): (&Value, &Value)| {
            one.shape().iter().zip(other.shape()).map(|(n, m)| Some(*n).filter(|n| n == m)).collect()
        };
        self.axes = self.outputs.iter().zip(&other.outputs).map(axes).collect();
    }
}

/// Inputs, layers and their uses, as far as they have been built.
pub(super) struct Topology {
    pub inputs: Vec<NamedInput>,
    /// Steps, now, of those inputs that have any length, in their order.
    pub lengths: Vec<usize>,
    pub layers: Vec<NamedLayer>,
    pub calls: Vec<LayerCall>,
    /// Names of the layers.
    names: HashSet<String>,
    /// For each stem, the number at which to look for a free name.
    next: HashMap<String, usize>,
}

/// Bytes of a name, at most: tables and pictures of the model show it.
const LONGEST_NAME: usize = 4096;

fn check_name(what: &str, name: &str) -> Result<()> {
    if name.len() <= LONGEST_NAME {
        return Ok(());
    }
    Err(Error::option(
        format!("name of {what}"),
        format!("at most {LONGEST_NAME} bytes"),
        format!("{} bytes", name.len()),
    ))
}

impl Topology {
    pub fn new() -> Self {
        let (names, next) = (HashSet::new(), HashMap::new());
        let (inputs, lengths) = (Vec::new(), Vec::new());
        Topology { inputs, lengths, layers: Vec::new(), calls: Vec::new(), names, next }
    }

    /// A new input; `steps` is how many it has now, where it may have any number.
    pub fn input(
        &mut self,
        builder: &mut Builder,
        name: &str,
        axes: &[Option<usize>],
        steps: usize,
    ) -> Result<GraphTensor> {
        check_axes(name, axes)?;
        check_name("an input", name)?;
        if self.inputs.iter().any(|other| other.name == name) {
            return Err(Error::option("name of an input", "one that no other input has", name));
        }
        let shape: Vec<usize> = axes.iter().map(|axis| axis.unwrap_or(steps)).collect();
        let value = builder.input(name, &shape)?;
        self.inputs.push(NamedInput { name: name.to_owned(), axes: axes.to_vec(), value: value.clone() });
        if axes.contains(&None) {
            self.lengths.push(steps);
        }
        Ok(GraphTensor { source: Source::Input(self.inputs.len() - 1), value })
    }

    /// Whether training changes a layer's weights, by its number.
    fn set_trainable(&mut self, layer: usize, trainable: bool) {
        self.layers.iter_mut().skip(layer).take(1).for_each(|layer| layer.trainable = trainable);
    }

    /// A new layer, with Keras's name for it if it is given none.
    pub fn layer(&mut self, builder: &mut Builder, layer: Arc<dyn Layer>, name: Option<&str>) -> Result<usize> {
        let name = match name {
            Some(name) => name.to_owned(),
            None => {
                let stem = layer.stem();
                let number = |n: usize| if n == 0 { stem.to_owned() } else { format!("{stem}_{n}") };
                let first = self.next.get(stem).copied().unwrap_or(0);
                let free = (first..).find(|n| !self.names.contains(&number(*n))).unwrap_or(first);
                self.next.insert(stem.to_owned(), free);
                number(free)
            }
        };
        check_name("a layer", &name)?;
        if name.is_empty() || !self.names.insert(name.clone()) {
            return Err(Error::option("name of a layer", "one that no other layer of the model has", name));
        }
        builder.layers.push(crate::nn::builder::LayerWeights { name: name.clone(), parameters: Vec::new() });
        self.layers.push(NamedLayer { name, layer, trainable: true });
        Ok(self.layers.len() - 1)
    }

    /// A use of a layer. One that cannot be leaves everything as it was.
    pub fn call(&mut self, builder: &mut Builder, layer: usize, inputs: &[&GraphTensor]) -> Result<Vec<GraphTensor>> {
        let Some(named) = self.layers.get(layer) else {
            return Err(Error::option("layer", format!("a number below the {} layers", self.layers.len()), layer));
        };
        (builder.layer, builder.is_frozen) = (layer, !named.trainable);
        let values: Vec<Value> = inputs.iter().map(|tensor| tensor.value.clone()).collect();
        values.iter().try_for_each(|value| builder.check(value))?;
        let before = builder.nodes.len();
        let mark = builder.mark(layer);
        let outputs = match named.layer.build(builder, &values) {
            Ok(outputs) => outputs,
            Err(error) => {
                builder.roll_back(mark);
                return Err(self.with_steps(error));
            }
        };
        let read =
            |mask: &Value| builder.nodes.iter().skip(before).any(|node| node.inputs.contains(&Some(mask.storage)));
        let ends_mask = outputs.iter().all(|output| output.mask().is_none())
            && values.iter().filter_map(Value::mask).any(|mask| !read(mask));
        let call = self.calls.len();
        self.calls.push(LayerCall {
            layer,
            inputs: inputs.iter().map(|tensor| tensor.source).collect(),
            axes: outputs.iter().map(|output| output.shape().iter().copied().map(Some).collect()).collect(),
            outputs: outputs.clone(),
            ends_mask,
        });
        let tensor = |(output, value)| GraphTensor { source: Source::Call(call, output), value };
        Ok(outputs.into_iter().enumerate().map(tensor).collect())
    }

    /// How far it has come, for a call of `layer`, which is there or about to be.
    pub fn mark(&self, builder: &Builder, layer: usize) -> (usize, usize, Mark) {
        (self.layers.len(), self.calls.len(), builder.mark(layer))
    }

    /// Forgets everything since then.
    pub fn roll_back(&mut self, builder: &mut Builder, (layers, calls, mark): (usize, usize, Mark)) {
        for forgotten in self.layers.drain(layers.min(self.layers.len())..) {
            self.names.remove(&forgotten.name);
            self.next.remove(forgotten.layer.stem());
        }
        self.calls.truncate(calls);
        builder.roll_back(mark);
    }

    /// The same layers and uses, built anew: after some are frozen or no longer, or for other lengths of the inputs that have any.
    pub fn rebuilt(&self, layers: Vec<NamedLayer>, lengths: &[usize]) -> Result<(Builder, Topology)> {
        let (mut builder, mut topology) = (builder(), Topology::new());
        let mut lengths = lengths.iter();
        for NamedInput { name, axes, .. } in &self.inputs {
            let steps = if axes.contains(&None) { lengths.next().copied().unwrap_or(ANY_STEPS) } else { 0 };
            topology.input(&mut builder, name, axes, steps)?;
        }
        for NamedLayer { name, layer, trainable } in layers {
            let index = topology.layer(&mut builder, layer, Some(&name))?;
            topology.set_trainable(index, trainable);
        }
        for call in &self.calls {
            let inputs = call.inputs.iter().filter_map(|source| topology.tensor(*source)).collect::<Vec<_>>();
            topology.call(&mut builder, call.layer, &inputs.iter().collect::<Vec<_>>())?;
        }
        for (call, known) in topology.calls.iter_mut().zip(&self.calls) {
            call.axes.clone_from(&known.axes);
        }
        Ok((builder, topology))
    }

    /// Whether an input may have any number of steps.
    pub fn has_any_length(&self) -> bool {
        !self.lengths.is_empty()
    }

    /// Keeps the lengths that those inputs have now.
    pub fn fix_lengths(&mut self) {
        let fixed = |value: &Value| value.shape().iter().copied().map(Some).collect();
        self.inputs.iter_mut().for_each(|input| input.axes = fixed(&input.value));
        self.calls.iter_mut().for_each(|call| call.axes = call.outputs.iter().map(fixed).collect());
        self.lengths.clear();
    }

    /// Takes those axes for ones of any length that are longer or shorter where the inputs have other lengths.
    pub fn compare_axes(&mut self, other: &Topology) {
        self.calls.iter_mut().zip(&other.calls).for_each(|(call, other)| call.compare_axes(other));
    }

    /// The same of the last use of a layer alone.
    pub fn compare_top_axes(&mut self, other: &Topology) {
        if let (Some(call), Some(other)) = (self.calls.last_mut(), other.calls.last()) {
            call.compare_axes(other);
        }
    }

    /// Takes over the last layer of another stack, which has no other that this one has not; whether it is such a one.
    pub fn add_top_of(&mut self, builder: &mut Builder, other: &Topology) -> Result<bool> {
        let (Some(top), Some(call)) = (other.layers.last(), other.calls.last()) else { return Ok(false) };
        if (self.layers.len() + 1, self.calls.len() + 1) != (other.layers.len(), other.calls.len()) {
            return Ok(false);
        }
        let index = self.layer(builder, top.layer.clone(), Some(&top.name))?;
        self.set_trainable(index, top.trainable);
        let inputs: Vec<_> = call.inputs.iter().filter_map(|source| self.tensor(*source)).collect();
        self.call(builder, call.layer, &inputs.iter().collect::<Vec<_>>())?;
        Ok(true)
    }

    /// Shape of a tensor, `None` for an axis whose length depends on that of an input of any length.
    pub fn axes_of(&self, source: Source) -> &[Option<usize>] {
        let axes = match source {
            Source::Input(index) => self.inputs.get(index).map(|input| &input.axes),
            Source::Call(call, output) => self.calls.get(call).and_then(|call| call.axes.get(output)),
        };
        axes.map_or(&[], Vec::as_slice)
    }

    /// An error of a layer for which a number of steps stands that nobody has given.
    fn with_steps(&self, error: Error) -> Error {
        match error {
            Error::Shape { tensor, expected, got } if self.lengths.contains(&ANY_STEPS) => {
                let got = format!("{got} (where any number of steps, None, was tried as {ANY_STEPS})");
                Error::Shape { tensor, expected, got }
            }
            other => other,
        }
    }

    /// Whether each layer reads the one before it, and nothing else.
    pub fn is_stack(&self) -> bool {
        let below = |index: usize| if index == 0 { Source::Input(0) } else { Source::Call(index - 1, 0) };
        self.inputs.len() == 1 && self.calls.iter().enumerate().all(|(i, call)| call.inputs == [below(i)])
    }

    /// The tensor that a source names.
    pub fn tensor(&self, source: Source) -> Option<GraphTensor> {
        let value = match source {
            Source::Input(index) => &self.inputs.get(index)?.value,
            Source::Call(call, output) => self.calls.get(call)?.outputs.get(output)?,
        };
        Some(GraphTensor { source, value: value.clone() })
    }

    /// Name of what gives a tensor.
    pub fn name_of(&self, source: Source) -> &str {
        match source {
            Source::Input(index) => self.inputs.get(index).map_or("", |input| &input.name),
            Source::Call(call, _) => {
                let layer = self.calls.get(call).and_then(|call| self.layers.get(call.layer));
                layer.map_or("", |layer| &layer.name)
            }
        }
    }

    /// What of it a file can hold.
    pub fn config(&self, outputs: &[Source]) -> Result<GraphConfig> {
        let config = |named: &NamedLayer| match named.layer.config() {
            Some(layer) => Ok(NamedConfig { name: named.name.clone(), layer, trainable: named.trainable }),
            None => Err(Error::unsupported(
                format!("layer {} in a model file", named.name),
                "it is not one of this crate's; save the weights alone by save_weights, and build the model before load_weights",
            )),
        };
        Ok(GraphConfig {
            inputs: self
                .inputs
                .iter()
                .map(|input| InputConfig { name: input.name.clone(), shape: input.axes.clone() })
                .collect(),
            layers: self.layers.iter().map(config).collect::<Result<_>>()?,
            calls: self
                .calls
                .iter()
                .map(|call| CallConfig { layer: call.layer, inputs: call.inputs.clone() })
                .collect(),
            outputs: outputs.to_vec(),
        })
    }
}

static NETWORKS: AtomicU64 = AtomicU64::new(1);

/// A builder for a network of its own.
pub(super) fn builder() -> Builder {
    Builder::new(NETWORKS.fetch_add(1, Ordering::Relaxed))
}

/// A model being put together, with any number of inputs, outputs, and uses of each layer:
///
/// ```
/// use fused_rnn::Device;
/// use fused_rnn::model::Graph;
/// use fused_rnn::nn::{Dense, Lstm};
/// let mut graph = Graph::new(Device::cpu(), 7);
/// let (left, right) = (graph.input("left", &[10, 1])?, graph.input("right", &[10, 1])?);
/// let shared = graph.layer(Lstm::new(8))?;
/// let (a, b) = (graph.call(shared, &[&left])?, graph.call(shared, &[&right])?);
/// let y = graph.add(Dense::new(2), &[&a])?;
/// let z = graph.add(Dense::new(3), &[&b])?;
/// let model = graph.model(&[&y, &z])?;
/// assert_eq!(model.count_params(), 4 * 8 * (1 + 8 + 1) + 2 * 9 + 3 * 9);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
pub struct Graph {
    device: Device,
    builder: Builder,
    topology: Topology,
    seed: u64,
}

impl Graph {
    /// Nothing yet. Everything random in the model comes from `seed`.
    pub fn new(device: Device, seed: u64) -> Self {
        Graph { device, builder: builder(), topology: Topology::new(), seed }
    }

    /// An input for samples of this shape; `None` stands for [any number of steps](InputShape), for each input by itself.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`]; [`Error::InvalidOption`] for a name that another input has, and for `None` in several
    /// axes.
    pub fn input(&mut self, name: &str, shape: impl InputShape) -> Result<GraphTensor> {
        self.topology.input(&mut self.builder, name, &shape.axes(), ANY_STEPS)
    }

    /// A layer, not used yet.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a layer of your own whose kind has a name of thousands of letters.
    pub fn layer(&mut self, layer: impl Into<LayerConfig>) -> Result<LayerId> {
        self.own_layer(layer.into(), None)
    }

    /// A layer with a name.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a name that another layer has, or one of more than 4096 bytes.
    pub fn named_layer(&mut self, name: &str, layer: impl Into<LayerConfig>) -> Result<LayerId> {
        self.own_layer(layer.into(), Some(name))
    }

    /// A layer that may be none of this crate's, with a name or with that of its kind.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a name that another layer has, or one of more than 4096 bytes.
    pub fn own_layer(&mut self, layer: impl Layer + 'static, name: Option<&str>) -> Result<LayerId> {
        let index = self.topology.layer(&mut self.builder, Arc::new(layer), name)?;
        Ok(LayerId { network: self.builder.network(), index })
    }

    /// Name of a layer.
    #[cfg(feature = "exchange")]
    pub(crate) fn layer_name(&self, layer: LayerId) -> &str {
        self.topology.layers.get(layer.index).map_or("", |named| &named.name)
    }

    /// Says of a layer that has no use yet whether training will change its weights.
    #[cfg(feature = "exchange")]
    pub(crate) fn set_trainable(&mut self, layer: LayerId, trainable: bool) {
        if let Some(named) =
            self.topology.layers.get_mut(layer.index).filter(|_| layer.network == self.builder.network())
        {
            named.trainable = trainable;
        }
    }

    /// Uses a layer that has one output. Another use has the same weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take such inputs, or where it has several outputs; [`Error::ZeroSize`],
    /// [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Presence`] for tensors or
    /// layers of another graph.
    pub fn call(&mut self, layer: LayerId, inputs: &[&GraphTensor]) -> Result<GraphTensor> {
        let mark = self.topology.mark(&self.builder, layer.index);
        let mut outputs = self.call_all(layer, inputs)?;
        match outputs.len() {
            1 => Ok(outputs.remove(0)),
            n => {
                let name = self.topology.layers.get(layer.index).map_or("layer", |l| &l.name).to_owned();
                self.topology.roll_back(&mut self.builder, mark);
                Err(Error::shape(name, "one output", format!("{n} outputs; ask for all of them")))
            }
        }
    }

    /// Uses a layer, and gives all its outputs: of a recurrent layer with `return_state` also its last states.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take such inputs; [`Error::ZeroSize`], [`Error::SizeOverflow`] and
    /// [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Presence`] for tensors or layers of another graph.
    pub fn call_all(&mut self, layer: LayerId, inputs: &[&GraphTensor]) -> Result<Vec<GraphTensor>> {
        if layer.network != self.builder.network() {
            return Err(Error::Presence {
                tensor: "layer".to_owned(),
                problem: "it belongs to another graph; add it to this one".to_owned(),
            });
        }
        self.topology.call(&mut self.builder, layer.index, inputs)
    }

    /// A new layer with one output, used once.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take such inputs, or where it has several outputs; [`Error::ZeroSize`],
    /// [`Error::SizeOverflow`] and [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Presence`] for tensors of
    /// another graph.
    pub fn add(&mut self, layer: impl Into<LayerConfig>, inputs: &[&GraphTensor]) -> Result<GraphTensor> {
        self.added(layer.into(), |graph, layer| graph.call(layer, inputs))
    }

    /// A new layer and what is done with it; neither where that cannot be.
    fn added<R>(&mut self, layer: LayerConfig, call: impl FnOnce(&mut Self, LayerId) -> Result<R>) -> Result<R> {
        let mark = self.topology.mark(&self.builder, self.topology.layers.len());
        let layer = self.layer(layer)?;
        let called = call(self, layer);
        if called.is_err() {
            self.topology.roll_back(&mut self.builder, mark);
        }
        called
    }

    /// A new layer with several outputs, used once.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take such inputs; [`Error::ZeroSize`], [`Error::SizeOverflow`] and
    /// [`Error::InvalidOption`] for sizes and options that it cannot have; [`Error::Presence`] for tensors of another graph.
    pub fn add_all(&mut self, layer: impl Into<LayerConfig>, inputs: &[&GraphTensor]) -> Result<Vec<GraphTensor>> {
        self.added(layer.into(), |graph, layer| graph.call_all(layer, inputs))
    }

    /// The model from all inputs, in the order in which they were made, to `outputs`, with freshly drawn weights.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] where there are no outputs, one is of another graph, or an input or a layer leads to none (naming it);
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn model(self, outputs: &[&GraphTensor]) -> Result<Model> {
        outputs.iter().try_for_each(|tensor| self.builder.check(&tensor.value))?;
        let outputs: Vec<Source> = outputs.iter().map(|tensor| tensor.source).collect();
        check_connected(&self.topology, &outputs)?;
        let mut model = Model::from_parts(self.device, self.builder, self.topology, &outputs, self.seed)?;
        model.initialize()?;
        Ok(model)
    }

    /// The model from all inputs to `outputs` with weights that are given rather than drawn: `weights` is asked for those of each layer
    /// that has some, by its name, all before anything of their size is allocated.
    ///
    /// # Errors
    ///
    /// As [`model`](Self::model), and [`Error::Shape`] naming the tensor where it has another shape; what `weights` refuses.
    #[cfg(feature = "exchange")]
    pub(crate) fn model_with(
        self,
        outputs: &[&GraphTensor],
        mut weights: impl FnMut(&str, &LayerConfig) -> Result<Vec<ndarray::ArrayD<f64>>>,
    ) -> Result<Model> {
        outputs.iter().try_for_each(|tensor| self.builder.check(&tensor.value))?;
        let outputs: Vec<Source> = outputs.iter().map(|tensor| tensor.source).collect();
        check_connected(&self.topology, &outputs)?;
        let mut tensors = std::collections::HashMap::new();
        for (built, named) in self.builder.layers.iter().zip(&self.topology.layers) {
            if let (false, Some(config)) = (built.parameters.is_empty(), named.layer.config()) {
                let given = weights(&named.name, &config)?;
                tensors.extend(super::weights::named_tensors(built, given)?);
            }
        }
        let mut model = Model::from_parts(self.device, self.builder, self.topology, &outputs, self.seed)?;
        model.read_weights(|name, to| super::weights::copy_tensor(&tensors, name, to))?;
        Ok(model)
    }

    /// What a configuration describes, and the tensors that are its outputs.
    ///
    /// # Errors
    ///
    /// As [`Model::from_config`].
    #[cfg(feature = "exchange")]
    pub(crate) fn of_config(device: Device, config: &GraphConfig) -> Result<(Self, Vec<GraphTensor>)> {
        let (builder, topology) = Graph::from_config(config)?;
        let tensor = |source: &Source| {
            topology
                .tensor(*source)
                .ok_or_else(|| Error::option("outputs", "tensors of the model", format!("{source:?}")))
        };
        let outputs = config.outputs.iter().map(tensor).collect::<Result<_>>()?;
        Ok((Graph { device, builder, topology, seed: 0 }, outputs))
    }

    /// Sample shapes of the outputs of every use of a layer.
    #[cfg(feature = "exchange")]
    pub(crate) fn call_shapes(&self) -> Vec<Vec<Vec<usize>>> {
        let of_call = |call: &LayerCall| call.outputs.iter().map(|value| value.shape().to_vec()).collect();
        self.topology.calls.iter().map(of_call).collect()
    }

    /// Sample shape of a tensor.
    #[cfg(feature = "exchange")]
    pub(crate) fn shape_of(&self, source: Source) -> Vec<usize> {
        self.topology.tensor(source).map(|tensor| tensor.shape().to_vec()).unwrap_or_default()
    }

    /// What has been put together so far, with these outputs, whether or not all of it leads to them.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a layer that is none of this crate's.
    pub fn config(&self, outputs: &[&GraphTensor]) -> Result<GraphConfig> {
        self.topology.config(&outputs.iter().map(|tensor| tensor.source).collect::<Vec<_>>())
    }

    /// The model that a configuration describes.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a name there twice, a number that names nothing, or layers that wait for each other in a cycle, which
    /// it names; [`Error::Shape`] naming the layer where it cannot take such inputs; [`Error::ZeroSize`] and [`Error::SizeOverflow`].
    pub(super) fn from_config(config: &GraphConfig) -> Result<(Builder, Topology)> {
        let (mut builder, mut topology) = (builder(), Topology::new());
        for input in &config.inputs {
            topology.input(&mut builder, &input.name, &input.shape, ANY_STEPS)?;
        }
        for named in &config.layers {
            let index = topology.layer(&mut builder, Arc::new(named.layer.clone()), Some(&named.name))?;
            topology.set_trainable(index, named.trainable);
        }
        for (index, call) in config.calls.iter().enumerate() {
            let name = |call: &CallConfig| config.layers.get(call.layer).map_or("?", |l| l.name.as_str());
            let mut inputs = Vec::new();
            for source in &call.inputs {
                if let Source::Call(other, _) = source
                    && *other >= index
                    && let Some(later) = config.calls.get(*other)
                {
                    let expected = "the output of an earlier layer, so that there is no cycle";
                    let got = format!("that of {}, which waits for it or comes after it", name(later));
                    return Err(Error::option(format!("input of {}", name(call)), expected, got));
                }
                inputs.push(topology.tensor(*source).ok_or_else(|| {
                    let expected = "an input of the model or an output of one of its layers";
                    Error::option(format!("input of {}", name(call)), expected, format!("{source:?}"))
                })?);
            }
            topology.call(&mut builder, call.layer, &inputs.iter().collect::<Vec<_>>())?;
        }
        Ok((builder, topology))
    }
}

/// Refuses a model some of whose parts lead nowhere.
pub(super) fn check_connected(topology: &Topology, outputs: &[Source]) -> Result<()> {
    if outputs.is_empty() {
        return Err(Error::Presence {
            tensor: "outputs".to_owned(),
            problem: "the model has none; name at least one tensor".to_owned(),
        });
    }
    let mut used: HashSet<Source> = HashSet::new();
    let mut open = outputs.to_vec();
    while let Some(source) = open.pop() {
        if !used.insert(source) {
            continue;
        }
        if topology.tensor(source).is_none() {
            return Err(Error::option("outputs", "tensors of the model", format!("{source:?}")));
        }
        if let Source::Call(call, _) = source {
            open.extend(topology.calls.get(call).into_iter().flat_map(|call| &call.inputs));
        }
    }
    let nowhere = |what: &str, name: &str| Error::Presence {
        tensor: format!("{what} {name}"),
        problem: "it leads to no output of the model; connect it or leave it out".to_owned(),
    };
    for (index, input) in topology.inputs.iter().enumerate() {
        if !used.contains(&Source::Input(index)) {
            return Err(nowhere("input", &input.name));
        }
    }
    let mut leads: Vec<bool> = vec![false; topology.layers.len()];
    for (index, call) in topology.calls.iter().enumerate() {
        if (0..call.outputs.len()).any(|output| used.contains(&Source::Call(index, output))) {
            leads.iter_mut().skip(call.layer).take(1).for_each(|leads| *leads = true);
        }
    }
    match topology.layers.iter().zip(leads).find(|(_, leads)| !leads) {
        Some((named, _)) => Err(nowhere("layer", &named.name)),
        None => Ok(()),
    }
}
