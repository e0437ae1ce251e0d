//! From layers to operations: [`Builder`], and the [`Value`]s that stand between them.
#![expect(
    clippy::indexing_slicing,
    reason = "layers and storages by the numbers that this builder gave out; heads are blocks of their matrix"
)]

use std::collections::HashSet;
use std::ops::Range;

use crate::backend::device::no_model_in;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Element, Scalar};
use crate::error::{Error, Result};
use crate::memory;
use crate::nn::network::Place;
use crate::nn::op::{MOST_INPUTS, MOST_OUTPUTS, Op};
use crate::nn::{Constraint, Initializer, Random, Regularizer, init};
use crate::rnn::shape::checked_len;

/// A weight tensor.
#[derive(Clone, Debug, PartialEq)]
pub struct Parameter {
    /// Its name within the layer, PyTorch's where PyTorch has one: `weight_ih_l0`, `bias`, …
    pub name: String,
    /// Shape, row-major.
    pub shape: Vec<usize>,
    /// Elements of the model's flat weights (or, if it is not trained, of its flat statistics) that it takes.
    pub range: Range<usize>,
    /// Whether training changes it by its gradient. Others, such as moving averages, the layer keeps itself.
    pub trainable: bool,
    /// Whether it is not trained because its layer is frozen: then it lies in a buffer of its own.
    pub(crate) frozen: bool,
    pub(crate) init: Init,
    /// What it adds to the loss.
    pub(crate) regularizer: Option<Regularizer>,
    /// What it is brought back to after every step.
    pub(crate) constraint: Option<Constraint>,
    /// Whether its elements are variances, of which a root is taken.
    pub(crate) is_variance: bool,
}

/// Where a weight tensor starts.
#[derive(Clone, Debug, PartialEq)]
pub enum Init {
    /// All elements this.
    Constant(f64),
    /// Zeros but for a range of ones: the bias of an LSTM whose forget gate starts open.
    OnesIn(Range<usize>),
    /// [`init::glorot_uniform`].
    GlorotUniform {
        /// Inputs of a unit.
        fan_in: usize,
        /// Outputs that an input goes to.
        fan_out: usize,
    },
    /// [`init::orthogonal`], of a matrix.
    Orthogonal,
    /// The same of each head of recurrent weights `[gates, heads, n, n]`, as a matrix `[gates * n, n]`.
    OrthogonalHeads,
    /// Uniform in plus or minus this.
    Uniform(f64),
    /// As an initializer says.
    By {
        /// The initializer.
        initializer: Initializer,
        /// Inputs of a unit, and outputs that an input goes to.
        fans: [usize; 2],
        /// Elements that start at 1 all the same.
        ones: Option<Range<usize>>,
    },
}

impl Init {
    fn fill(&self, shape: &[usize], weights: &mut [f64], random: &mut Random) -> Result<()> {
        match self {
            Init::Constant(value) => weights.fill(*value),
            Init::OnesIn(range) => {
                weights.fill(0.0);
                fill_ones(weights, range);
            }
            Init::GlorotUniform { fan_in, fan_out } => init::glorot_uniform(weights, *fan_in, *fan_out, random),
            Init::Orthogonal => {
                let columns = shape.last().copied().unwrap_or(1).max(1);
                init::orthogonal(weights, weights.len() / columns, columns, random)?;
            }
            Init::OrthogonalHeads => {
                let &[gates, heads, rows, columns] = shape else {
                    return Err(Error::shape("weights of heads", "[gates, heads, n, n]", format!("{shape:?}")));
                };
                let block = rows * columns;
                let mut matrix = memory::filled("orthogonal weights of a head", gates * block, 0.0)?;
                for head in 0..heads {
                    init::orthogonal(&mut matrix, gates * rows, columns, random)?;
                    for gate in 0..gates {
                        let to = &mut weights[(gate * heads + head) * block..][..block];
                        to.copy_from_slice(&matrix[gate * block..][..block]);
                    }
                }
            }
            Init::Uniform(limit) => {
                weights.iter_mut().for_each(|w| *w = (2.0 * random.uniform() - 1.0) * limit);
            }
            Init::By { initializer, fans, ones } => {
                initializer.fill(shape, *fans, weights, random)?;
                ones.iter().for_each(|range| fill_ones(weights, range));
            }
        }
        Ok(())
    }
}

fn fill_ones(weights: &mut [f64], range: &Range<usize>) {
    if let Some(ones) = weights.get_mut(range.clone()) {
        ones.fill(1.0);
    }
}

impl Parameter {
    /// Refuses elements in the host's memory that it cannot have; `layer` is whose it is.
    pub(crate) fn check(&self, layer: &str, values: TensorRef<'_>) -> Result<()> {
        fn first<E: Scalar>(values: &[E]) -> Option<(usize, f64)> {
            values.iter().map(|value| value.wide()).enumerate().find(|(_, value)| *value < 0.0)
        }
        if !self.is_variance {
            return Ok(());
        }
        let negative = match values.dtype() {
            DType::F64 => first::<f64>(values.host()?),
            _ => first::<f32>(values.host()?),
        };
        match negative {
            None => Ok(()),
            Some((element, value)) => {
                let option = format!("{layer}.{}, element {element}", self.name);
                Err(Error::option(option, "a variance, not below zero", value))
            }
        }
    }

    /// Draws its elements, which stand in the host's memory: in `f64`, then rounded, so that a seed gives the same numbers in every type.
    pub(crate) fn initialize(&self, weights: TensorMut<'_>, random: &mut Random) -> Result<()> {
        match weights.dtype() {
            DType::F32 => {
                let mut drawn = Tensor::on_host(&self.name, DType::F64, weights.len())?;
                let drawn = drawn.view_mut().host::<f64>()?;
                self.init.fill(&self.shape, drawn, random)?;
                weights.host::<f32>()?.iter_mut().zip(drawn).for_each(|(weight, drawn)| *weight = f32::of(*drawn));
            }
            DType::F64 => self.init.fill(&self.shape, weights.host::<f64>()?, random)?,
            other => return Err(no_model_in(other)),
        }
        Ok(())
    }
}

/// What stands between two operations: a tensor `[samples, sample shape…]`, symbolically.
#[derive(Clone, Debug, PartialEq)]
pub struct Value {
    /// The network that it belongs to.
    pub(super) network: u64,
    pub(crate) storage: usize,
    /// Rows of `shape` in one sample; above 1 only inside of a layer that goes through time.
    pub(super) rows: usize,
    shape: Vec<usize>,
    mask: Option<Box<Value>>,
    /// Where its steps are rows of a table: the numbers of the rows, and how many the table has.
    lookup: Option<(Box<Value>, usize)>,
}

impl Value {
    /// Its shape without the batch.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// Elements of one row.
    pub fn size(&self) -> usize {
        self.shape.iter().product()
    }

    /// Which steps are valid, `[steps]` of 1 and 0, where a layer below has said so: Keras's mask.
    pub fn mask(&self) -> Option<&Value> {
        self.mask.as_deref()
    }

    /// The same with this mask.
    #[must_use]
    pub fn with_mask(mut self, mask: Option<&Value>) -> Self {
        self.mask = mask.cloned().map(Box::new);
        self.lookup = None;
        self
    }

    /// The same as rows of a table with `rows` rows, by their `numbers`. Number 0 stands for no step where there is a mask.
    #[must_use]
    pub(super) fn with_lookup(mut self, numbers: &Value, rows: usize) -> Self {
        self.lookup = Some((Box::new(Value { mask: None, lookup: None, ..numbers.clone() }), rows));
        self
    }

    /// See [`with_lookup`](Self::with_lookup).
    pub(super) fn lookup(&self) -> Option<(&Value, usize)> {
        self.lookup.as_ref().map(|(numbers, rows)| (&**numbers, *rows))
    }
}

/// A tensor of the network.
pub(crate) struct StorageInfo {
    /// Elements that a sample takes.
    pub size: usize,
    /// Whether weights below it make it part of every backward pass.
    pub differentiable: bool,
    /// Whether it has no gradient even where those of inputs are wanted: a mask.
    pub constant: bool,
}

/// Layers within layers, at most: a file is read to a depth of 128, of which each takes two.
const MOST_SCOPES: usize = 32;

/// An operation in its place.
pub(crate) struct Node {
    pub op: Box<dyn Op>,
    pub inputs: Vec<Option<usize>>,
    /// Each storage is the output of one operation, which comes behind its inputs.
    pub outputs: Range<usize>,
    pub parameters: Range<usize>,
    /// Whether those lie among the weights of frozen layers.
    pub frozen: bool,
    pub statistics: Range<usize>,
    /// Rows of its tensors in one sample.
    pub rows: usize,
}

/// The layers of a network so far, as the one being built sees them. A layer's `build` calls [`parameter`](Self::parameter) for its
/// weights and [`op`](Self::op) for what it computes.
pub struct Builder {
    network: u64,
    pub(super) storages: Vec<StorageInfo>,
    pub(crate) nodes: Vec<Node>,
    pub(crate) layers: Vec<LayerWeights>,
    /// The layer being built.
    pub(crate) layer: usize,
    /// Prefixes of the names of its parts.
    scopes: Vec<String>,
    pub(crate) parameters: usize,
    pub(crate) statistics: usize,
    /// Weights of frozen layers.
    pub(crate) frozen: usize,
    /// Whether the layer being built is frozen.
    pub(crate) is_frozen: bool,
    /// Values that add to the loss.
    pub(crate) penalties: Vec<(Value, Regularizer)>,
    /// Full names of all weight tensors.
    names: HashSet<String>,
    operations: u32,
}

/// How far a network had been built: see [`Builder::roll_back`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    storages: usize,
    nodes: usize,
    layers: usize,
    /// A layer that was there, and how many weight tensors it had.
    of_layer: (usize, usize),
    parameters: usize,
    statistics: usize,
    frozen: usize,
    penalties: usize,
    operations: u32,
}

/// The weights of a layer.
pub(crate) struct LayerWeights {
    pub name: String,
    pub parameters: Vec<Parameter>,
}

impl Builder {
    pub(crate) fn new(network: u64) -> Self {
        Builder {
            network,
            storages: Vec::new(),
            nodes: Vec::new(),
            layers: Vec::new(),
            layer: 0,
            scopes: Vec::new(),
            parameters: 0,
            statistics: 0,
            frozen: 0,
            is_frozen: false,
            penalties: Vec::new(),
            names: HashSet::new(),
            operations: 0,
        }
    }

    /// Name of the layer being built, with the part of it: for errors.
    pub fn name(&self) -> String {
        let mut name = self.layers.get(self.layer).map(|l| l.name.clone()).unwrap_or_default();
        for scope in &self.scopes {
            name.push('.');
            name.push_str(scope);
        }
        name
    }

    /// Builds a part of a layer, whose weights get the prefix `name`.
    ///
    /// # Errors
    ///
    /// What `build` returns; [`Error::Unsupported`] for a part within more than 32 others, which no file could hold.
    pub fn scope<R>(&mut self, name: &str, build: impl FnOnce(&mut Self) -> Result<R>) -> Result<R> {
        if self.scopes.len() >= MOST_SCOPES {
            let what = format!("a layer in more than {MOST_SCOPES} others, one within the other, as {}", self.name());
            return Err(Error::unsupported(what, "put them one above the other instead"));
        }
        self.scopes.push(name.to_owned());
        let built = build(self);
        self.scopes.pop();
        built
    }

    /// Where a weight tensor stands in the model's flat weights. Those that a layer asks for one after the other stand one after the
    /// other. A layer that is built again, for other inputs, gets the weights that it has.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for an axis of zero, or where a shared layer would need a tensor of another shape; [`Error::SizeOverflow`] where
    /// the number of elements overflows.
    pub fn parameter(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Range<usize>> {
        self.tensor(name, shape, init, true)
    }

    /// The same for a tensor that training does not change by its gradient, in the model's flat statistics.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for an axis of zero, or where a shared layer would need a tensor of another shape; [`Error::SizeOverflow`] where
    /// the number of elements overflows.
    pub fn statistic(&mut self, name: &str, shape: &[usize], init: Init) -> Result<Range<usize>> {
        self.tensor(name, shape, init, false)
    }

    fn tensor(&mut self, name: &str, shape: &[usize], init: Init, trainable: bool) -> Result<Range<usize>> {
        let name: String = self.scopes.iter().map(|scope| format!("{scope}.")).chain([name.to_owned()]).collect();
        let layer = &mut self.layers[self.layer];
        if let Some(known) = layer.parameters.iter().find(|p| p.name == name) {
            if known.shape == shape && (known.trainable || known.frozen) == trainable {
                return Ok(known.range.clone());
            }
            return Err(Error::shape(
                &layer.name,
                format!("inputs for which its {name} has shape {:?}, as where it was used before", known.shape),
                format!("inputs that need {shape:?}"),
            ));
        }
        if shape.contains(&0) {
            return Err(Error::shape(format!("{}.{name}", layer.name), "axes of at least 1", format!("{shape:?}")));
        }
        let full_name = format!("{}.{name}", layer.name);
        let len = checked_len(&full_name, &shape.iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?;
        let frozen = trainable && self.is_frozen;
        let total = match (trainable, frozen) {
            (true, false) => &mut self.parameters,
            (true, true) => &mut self.frozen,
            (false, _) => &mut self.statistics,
        };
        let end = checked_len("weights", &[("elements", total.saturating_add(len))])?;
        // A dot stands between the names of a layer and of its parts: those of two layers may be alike.
        if !self.names.insert(full_name.clone()) {
            let expected = "one whose weights have names of their own";
            let got = format!("{}, for another layer has a weight {full_name} already", layer.name);
            return Err(Error::option("name of a layer", expected, got));
        }
        let range = *total..end;
        *total = end;
        layer.parameters.push(Parameter {
            name,
            shape: shape.to_vec(),
            range: range.clone(),
            trainable: trainable && !frozen,
            frozen,
            init,
            regularizer: None,
            constraint: None,
            is_variance: false,
        });
        Ok(range)
    }

    /// A [`statistic`](Self::statistic) whose elements are variances, and start at 1.
    pub(super) fn variance(&mut self, name: &str, shape: &[usize]) -> Result<Range<usize>> {
        let range = self.statistic(name, shape, Init::Constant(1.0))?;
        let is_it = |parameter: &&mut Parameter| Place::of(parameter) == Place::Statistic && parameter.range == range;
        if let Some(parameter) = self.layers[self.layer].parameters.iter_mut().find(is_it) {
            parameter.is_variance = true;
        }
        Ok(range)
    }

    /// Says what a tensor just declared adds to the loss, and what it is brought back to.
    pub(super) fn refine(
        &mut self,
        range: &Range<usize>,
        regularizer: Option<Regularizer>,
        constraint: Option<Constraint>,
    ) {
        let layer = &mut self.layers[self.layer];
        // A statistic may lie at the same place of its own buffer.
        if let Some(parameter) = layer.parameters.iter_mut().find(|p| (p.trainable || p.frozen) && p.range == *range) {
            (parameter.regularizer, parameter.constraint) = (regularizer, constraint);
        }
    }

    /// Says that a value adds to the loss.
    pub(super) fn regularize(&mut self, value: &Value, regularizer: Regularizer) {
        self.penalties.push((value.clone(), regularizer));
    }

    /// Whether the layer being built is frozen: training leaves its weights as they are.
    pub fn is_frozen(&self) -> bool {
        self.is_frozen
    }

    /// Which network it builds.
    pub(crate) fn network(&self) -> u64 {
        self.network
    }

    /// How far it has come, for a call of `layer`, which is there or about to be.
    pub(crate) fn mark(&self, layer: usize) -> Mark {
        Mark {
            storages: self.storages.len(),
            nodes: self.nodes.len(),
            layers: self.layers.len(),
            of_layer: (layer, self.layers.get(layer).map_or(0, |layer| layer.parameters.len())),
            parameters: self.parameters,
            statistics: self.statistics,
            frozen: self.frozen,
            penalties: self.penalties.len(),
            operations: self.operations,
        }
    }

    /// Forgets everything since then.
    pub(crate) fn roll_back(&mut self, mark: Mark) {
        self.scopes.clear();
        self.storages.truncate(mark.storages);
        self.nodes.truncate(mark.nodes);
        let (layer, parameters) = mark.of_layer;
        if let Some(layer) = self.layers.get_mut(layer) {
            for forgotten in layer.parameters.drain(parameters.min(layer.parameters.len())..) {
                self.names.remove(&format!("{}.{}", layer.name, forgotten.name));
            }
        }
        self.layers.truncate(mark.layers);
        (self.parameters, self.statistics, self.frozen) = (mark.parameters, mark.statistics, mark.frozen);
        self.penalties.truncate(mark.penalties);
        self.operations = mark.operations;
    }

    /// Waits for the operations' passes, and says whether they have ended as they should.
    pub(crate) fn check_operations(&self, device: &Device) -> Result<()> {
        self.nodes.iter().try_for_each(|node| node.op.check(device))
    }

    /// Hands the states that operations carry to the same operations of a network for sequences of other lengths.
    pub(crate) fn hand_states_to(&mut self, other: &mut Builder) -> Result<()> {
        fn stateful(builder: &mut Builder) -> impl Iterator<Item = &mut Box<dyn Op>> {
            builder.nodes.iter_mut().map(|node| &mut node.op).filter(|op| op.is_stateful())
        }
        let (ours, theirs) = (stateful(self).count(), stateful(other).count());
        if ours != theirs {
            let expected = format!("{ours} of them, as with the sequences before");
            return Err(Error::shape("layers that carry states", expected, theirs.to_string()));
        }
        for (from, to) in stateful(self).zip(stateful(other)) {
            let carried = from.carried_batch().is_some();
            match from.take_states() {
                Some(states) => to.give_states(states),
                None if carried => {
                    return Err(Error::unsupported(
                        "carrying states to sequences of another length",
                        "an operation of your own keeps them; give it Op::take_states and Op::give_states, or call reset_states",
                    ));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// A new input of the network.
    pub(crate) fn input(&mut self, what: &str, shape: &[usize]) -> Result<Value> {
        self.value(what, shape, 1, false)
    }

    fn value(&mut self, what: &str, shape: &[usize], rows: usize, differentiable: bool) -> Result<Value> {
        if shape.contains(&0) {
            return Err(Error::shape(what, "axes of at least 1", format!("{shape:?}")));
        }
        let axes = shape.iter().chain([&rows]).map(|n| ("axis", *n)).collect::<Vec<_>>();
        let size = checked_len(what, &axes)?;
        self.storages.push(StorageInfo { size, differentiable, constant: false });
        Ok(Value {
            network: self.network,
            storage: self.storages.len() - 1,
            rows,
            shape: shape.to_vec(),
            mask: None,
            lookup: None,
        })
    }

    /// Puts an operation behind the values it reads (at most [`MOST_INPUTS`]), and gives what it writes: a value for each of the
    /// sample shapes `outputs`, without mask. `parameters` and `statistics` are the ranges that it gets to see.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] without inputs or for those of another network; [`Error::Shape`] where numbers of rows differ or an output has
    /// an axis of zero; [`Error::SizeOverflow`] where its number of elements overflows; [`Error::Unsupported`] for too many inputs or
    /// outputs.
    pub fn op(
        &mut self,
        op: impl Op + 'static,
        inputs: &[Option<&Value>],
        outputs: &[&[usize]],
        parameters: Range<usize>,
        statistics: Range<usize>,
    ) -> Result<Vec<Value>> {
        self.boxed_op(Box::new(op), inputs, outputs, parameters, statistics)
    }

    fn boxed_op(
        &mut self,
        op: Box<dyn Op>,
        inputs: &[Option<&Value>],
        outputs: &[&[usize]],
        parameters: Range<usize>,
        statistics: Range<usize>,
    ) -> Result<Vec<Value>> {
        let name = self.name();
        if inputs.len() > MOST_INPUTS || outputs.len() > MOST_OUTPUTS {
            return Err(Error::unsupported(
                format!("an operation of {name} with {} inputs and {} outputs", inputs.len(), outputs.len()),
                format!("at most {MOST_INPUTS} and {MOST_OUTPUTS}; use several operations"),
            ));
        }
        let mut present = inputs.iter().flatten();
        let Some(first) = present.next() else {
            return Err(Error::Presence { tensor: format!("inputs of {name}"), problem: "there are none".to_owned() });
        };
        let rows = first.rows;
        for value in inputs.iter().flatten() {
            self.check(value)?;
            if value.rows != rows {
                return Err(Error::shape(
                    &name,
                    format!("inputs with {rows} rows a sample"),
                    format!("{} rows", value.rows),
                ));
            }
        }
        let frozen = self.is_frozen;
        let differentiable = !parameters.is_empty() && !frozen
            || inputs.iter().flatten().any(|value| self.storages[value.storage].differentiable);
        let first = self.storages.len();
        let values =
            outputs.iter().map(|shape| self.value(&name, shape, rows, differentiable)).collect::<Result<Vec<_>>>()?;
        self.nodes.push(Node {
            op,
            inputs: inputs.iter().map(|value| value.map(|v| v.storage)).collect(),
            outputs: first..self.storages.len(),
            parameters,
            frozen,
            statistics,
            rows,
        });
        Ok(values)
    }

    /// The usual operation: one output, no statistics.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] without inputs or for those of another network; [`Error::Shape`] where numbers of rows differ or an output has
    /// an axis of zero; [`Error::SizeOverflow`] where its number of elements overflows; [`Error::Unsupported`] for too many inputs.
    pub fn op1(
        &mut self,
        op: impl Op + 'static,
        inputs: &[&Value],
        output: &[usize],
        parameters: Range<usize>,
    ) -> Result<Value> {
        let inputs: Vec<_> = inputs.iter().map(|value| Some(*value)).collect();
        let mut values = self.op(op, &inputs, &[output], parameters, 0..0)?;
        Ok(values.remove(0))
    }

    /// An operation whose output has no gradient: a mask, say.
    ///
    /// # Errors
    ///
    /// [`Error::Presence`] without inputs or for those of another network; [`Error::Shape`] where numbers of rows differ or an output has
    /// an axis of zero; [`Error::SizeOverflow`] where its number of elements overflows; [`Error::Unsupported`] for too many inputs.
    pub fn constant_op(&mut self, op: impl Op + 'static, inputs: &[&Value], output: &[usize]) -> Result<Value> {
        let value = self.op1(op, inputs, output, 0..0)?;
        let storage = &mut self.storages[value.storage];
        (storage.differentiable, storage.constant) = (false, true);
        Ok(value)
    }

    /// An operation on statistics whose output has no gradient: a tensor that stays what it is.
    pub(super) fn constant(
        &mut self,
        op: impl Op + 'static,
        input: &Value,
        output: &[usize],
        statistics: Range<usize>,
    ) -> Result<Value> {
        let value = self.op(op, &[Some(input)], &[output], 0..0, statistics)?.remove(0);
        let storage = &mut self.storages[value.storage];
        (storage.differentiable, storage.constant) = (false, true);
        Ok(value)
    }

    /// The same elements under another sample shape, without mask.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the number of elements differs.
    pub fn reshaped(&self, value: &Value, shape: &[usize]) -> Result<Value> {
        let size = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
        if size != Some(value.size()) {
            return Err(Error::shape(
                self.name(),
                format!("a shape of {} elements, as its input {:?} has", value.size(), value.shape),
                format!("{shape:?}"),
            ));
        }
        Ok(Value { shape: shape.to_vec(), mask: None, lookup: None, ..value.clone() })
    }

    /// The same elements with the first axis of the sample shape taken for rows: `[steps, features]` to as many rows of `[features]`, so
    /// that a layer built on it treats every step alike.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for a value without axes; [`Error::SizeOverflow`].
    pub fn steps_as_rows(&self, value: &Value) -> Result<Value> {
        let Some((&steps, rest)) = value.shape.split_first() else {
            return Err(Error::shape(self.name(), "inputs of shape [steps, …]", "[]"));
        };
        let rows = checked_len(&self.name(), &[("rows", value.rows), ("steps", steps)])?;
        Ok(Value { rows, shape: rest.to_vec(), mask: None, lookup: None, ..value.clone() })
    }

    /// The inverse of [`steps_as_rows`](Self::steps_as_rows).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where the rows are not a multiple of `steps`.
    pub fn rows_as_steps(&self, value: &Value, steps: usize) -> Result<Value> {
        if steps == 0 || !value.rows.is_multiple_of(steps) {
            return Err(Error::shape(
                self.name(),
                format!("a multiple of {steps} rows"),
                format!("{} rows", value.rows),
            ));
        }
        let shape = std::iter::once(steps).chain(value.shape.iter().copied()).collect();
        Ok(Value { rows: value.rows / steps, shape, mask: None, lookup: None, ..value.clone() })
    }

    /// A number for each use of randomness, to tell their streams apart.
    pub fn op_number(&mut self) -> u32 {
        self.operations += 1;
        self.operations
    }

    pub(crate) fn check(&self, value: &Value) -> Result<()> {
        if value.network == self.network && value.storage < self.storages.len() {
            return Ok(());
        }
        Err(Error::Presence {
            tensor: format!("input of {}", self.name()),
            problem: "it belongs to another model; use values of this one".to_owned(),
        })
    }
}
