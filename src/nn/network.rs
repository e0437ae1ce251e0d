//! The operations of a model with the tensors between them, run forwards and backwards: [`Network`].
#![expect(clippy::indexing_slicing, reason = "of values and gradients by the numbers that the builder has given out")]

use std::array::from_fn;
use std::ops::Range;

use crate::backend::device::copy_on_host;
use crate::backend::{Device, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::mirrored::Mirrored;
use crate::nn::op::{Backward, Forward, Inputs, MOST_INPUTS, Outputs};
use crate::nn::{Parameter, Random, Scratch};

/// Where a weight tensor lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// Among the weights that training changes by their gradients.
    Trained,
    /// Among what layers keep themselves.
    Statistic,
    /// Among the weights of frozen layers.
    Frozen,
}

impl Place {
    /// All of them.
    pub const ALL: [Place; 3] = [Place::Trained, Place::Statistic, Place::Frozen];

    /// That of a tensor.
    pub fn of(parameter: &Parameter) -> Self {
        match (parameter.trainable, parameter.frozen) {
            (true, _) => Place::Trained,
            (false, true) => Place::Frozen,
            (false, false) => Place::Statistic,
        }
    }
}

/// Rows of a batch, and the tensors that a stateful operation carries after it.
pub(crate) type CarriedStates<'t> = (usize, Vec<TensorRef<'t>>);

/// Tensors between operations, for one batch, each by the number of its storage.
struct Tensors {
    values: Vec<Scratch>,
    gradients: Vec<Scratch>,
    /// Which gradients have been given a part of themselves in this pass.
    given: Vec<bool>,
}

/// Layers as operations, their weights, and the tensors between them, where the device computes.
pub(crate) struct Network {
    pub builder: Builder,
    tensors: Tensors,
    pub parameters: Mirrored,
    pub gradients: Mirrored,
    pub statistics: Mirrored,
    /// Weights of frozen layers.
    pub frozen: Mirrored,
    /// Their gradients, which an operation gives with others that are wanted.
    discarded: Scratch,
    /// Further parts of gradients, before they are added.
    parts: [Scratch; MOST_INPUTS],
    /// Ranges of weights that have their gradient in this pass.
    differentiated: Vec<Range<usize>>,
    /// Samples that there was room made for last.
    samples: usize,
    /// Layers that have their weights.
    drawn: usize,
}

/// Layers up to which weights move for every further one: few enough to be worth no spare room.
const FEW_LAYERS: usize = 32;

impl Network {
    pub fn new(device: &Device, builder: Builder) -> Result<Self> {
        Ok(Network {
            builder,
            tensors: Tensors { values: Vec::new(), gradients: Vec::new(), given: Vec::new() },
            parameters: Mirrored::new(device, "weights", 0)?,
            gradients: Mirrored::new(device, "gradients", 0)?,
            statistics: Mirrored::new(device, "statistics", 0)?,
            frozen: Mirrored::new(device, "frozen weights", 0)?,
            discarded: Scratch::new(),
            parts: from_fn(|_| Scratch::new()),
            differentiated: Vec::new(),
            samples: 0,
            drawn: 0,
        })
    }

    /// Whether a pass depends on those before it.
    pub fn is_stateful(&self) -> bool {
        self.builder.nodes.iter().any(|node| node.op.is_stateful())
    }

    /// Samples of the batch whose states layers carry, where they do.
    pub fn carried_batch(&self) -> Option<usize> {
        self.carried_batches().next()
    }

    /// The same of each of them.
    pub fn carried_batches(&self) -> impl Iterator<Item = usize> {
        self.builder.nodes.iter().filter_map(|node| Some(node.op.carried_batch()? / node.rows.max(1)))
    }

    /// Forgets the states that layers carry from batch to batch.
    pub fn reset_states(&mut self) {
        self.builder.nodes.iter_mut().for_each(|node| node.op.reset_states());
    }

    /// What each stateful operation carries, in their order: rows and tensors; none before its first batch.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for an operation that cannot tell.
    pub fn carried_states(&self) -> Result<Vec<Option<CarriedStates<'_>>>> {
        let stateful = self.builder.nodes.iter().filter(|node| node.op.is_stateful());
        let carried = stateful.map(|node| match node.op.carried_states() {
            Some(states) => Ok(node.op.carried_batch().map(|rows| (rows, states))),
            None => Err(Error::unsupported(
                "a checkpoint of a layer of your own that carries states",
                "its operation does not tell them; give it Op::carried_states and Op::carry_states",
            )),
        });
        carried.collect()
    }

    /// Gives the stateful operations what [`carried_states`](Self::carried_states) told, in the host's memory.
    pub fn carry_states(&mut self, device: &Device, carried: &[Option<CarriedStates<'_>>]) -> Result<()> {
        let mut stateful: Vec<_> = self.builder.nodes.iter_mut().filter(|node| node.op.is_stateful()).collect();
        if stateful.len() != carried.len() {
            let expected = format!("{} of them", stateful.len());
            return Err(Error::shape("operations that carry states", expected, carried.len().to_string()));
        }
        for (node, carried) in stateful.iter_mut().zip(carried) {
            if let Some((rows, states)) = carried {
                node.op.carry_states(device, *rows, states)?;
            }
        }
        Ok(())
    }

    /// Waits for the operations' passes, and says whether they have ended as they should.
    pub fn check(&self, device: &Device) -> Result<()> {
        self.builder.check_operations(device)
    }

    /// All weight tensors, with the names of their layers.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.builder.layers.iter().flat_map(|l| l.parameters.iter().map(move |p| (l.name.as_str(), p)))
    }

    /// The tensor in which a weight lies.
    pub fn place(&self, parameter: &Parameter) -> &Mirrored {
        self.place_at(Place::of(parameter))
    }

    fn place_at(&self, place: Place) -> &Mirrored {
        match place {
            Place::Trained => &self.parameters,
            Place::Statistic => &self.statistics,
            Place::Frozen => &self.frozen,
        }
    }

    /// The same, to be changed.
    pub fn place_mut(&mut self, place: Place) -> &mut Mirrored {
        match place {
            Place::Trained => &mut self.parameters,
            Place::Statistic => &mut self.statistics,
            Place::Frozen => &mut self.frozen,
        }
    }

    /// Gives layers built since the last call their weights, drawn from the stream of their number; those of earlier ones stay. All of them,
    /// or none.
    pub fn initialize(&mut self, device: &Device, seed: u64) -> Result<()> {
        let before = Place::ALL.map(|place| self.place_at(place).len());
        let drawn = self.draw(device, seed, before);
        match drawn {
            Ok(()) => self.drawn = self.builder.layers.len(),
            Err(_) => Place::ALL.into_iter().zip(before).for_each(|(place, len)| self.place_mut(place).truncate(len)),
        }
        drawn
    }

    fn draw(&mut self, device: &Device, seed: u64, before: [usize; 3]) -> Result<()> {
        // Layers that come one by one would else copy the weights of all below, each of them.
        let spare = |len: usize| if self.builder.layers.len() > FEW_LAYERS { len / 4 } else { 0 };
        let wanted = Place::ALL.map(|place| (place, self.wanted(place).1, spare(self.wanted(place).1)));
        for (place, len, spare) in wanted {
            let what = self.wanted(place).0;
            self.place_mut(place).extend(device, what, len, spare)?;
        }
        let Network { builder, parameters, statistics, frozen, drawn, .. } = self;
        let places = [(Place::Trained, parameters), (Place::Statistic, statistics), (Place::Frozen, frozen)];
        for ((place, tensor), start) in places.into_iter().zip(before) {
            tensor.change_from(device, start, |mut values| {
                for (index, layer) in builder.layers.iter().enumerate().skip(*drawn) {
                    let mut random = Random::new(seed, index as u32);
                    for parameter in layer.parameters.iter().filter(|parameter| Place::of(parameter) == place) {
                        // A layer built earlier may have tensors there; they stand before.
                        let range = parameter.range.start.checked_sub(start).ok_or_else(not_allocated)?;
                        let to = values.reborrow().part(range..range + parameter.range.len())?;
                        parameter.initialize(to, &mut random)?;
                    }
                }
                Ok(())
            })?;
        }
        Ok(())
    }

    /// Takes all weights from `read`, which is given the names of layer and tensor; refuses those that a layer cannot have.
    pub fn read(
        &mut self,
        device: &Device,
        read: impl Fn(&str, &Parameter, TensorMut<'_>) -> Result<()>,
    ) -> Result<()> {
        let name = |layer: usize| self.builder.layers.get(layer).map_or("", |layer| layer.name.as_str());
        let filled = Place::ALL.map(|place| {
            self.filled(device, place, |layer, parameter, mut to| {
                read(name(layer), parameter, to.reborrow())?;
                parameter.check(name(layer), to.view())
            })
        });
        // All or none.
        let [parameters, statistics, frozen] = filled;
        let all = [parameters?, statistics?, frozen?];
        Place::ALL.into_iter().zip(all).for_each(|(place, new)| self.place_mut(place).replace(new));
        self.drawn = self.builder.layers.len();
        Ok(())
    }

    /// Takes the weights of a network of the same layers, some of which lie in other places there.
    pub fn adopt(&mut self, device: &Device, from: &Network) -> Result<()> {
        for place in Place::ALL {
            let filled = self.filled(device, place, |layer, parameter, to| {
                let same = |other: &&Parameter| other.name == parameter.name;
                let known = from.builder.layers.get(layer).and_then(|layer| layer.parameters.iter().find(same));
                let known = known.ok_or_else(not_allocated)?;
                copy_on_host(from.place(known).host().part(known.range.clone())?, to)
            })?;
            self.place_mut(place).replace(filled);
        }
        self.drawn = self.builder.layers.len();
        Ok(())
    }

    /// What the weights of a place are called, and how many there are to be.
    fn wanted(&self, place: Place) -> (&'static str, usize) {
        match place {
            Place::Trained => ("weights", self.builder.parameters),
            Place::Statistic => ("statistics", self.builder.statistics),
            Place::Frozen => ("frozen weights", self.builder.frozen),
        }
    }

    /// New weights of a place: `fill` is given the layer's number, the tensor, and where its elements go.
    fn filled(
        &self,
        device: &Device,
        place: Place,
        fill: impl Fn(usize, &Parameter, TensorMut<'_>) -> Result<()>,
    ) -> Result<Mirrored> {
        let (what, len) = self.wanted(place);
        let mut new = Mirrored::new(device, what, len)?;
        new.change(device, |mut values| {
            for (index, layer) in self.builder.layers.iter().enumerate() {
                for parameter in layer.parameters.iter().filter(|parameter| Place::of(parameter) == place) {
                    fill(index, parameter, values.reborrow().part(parameter.range.clone())?)?;
                }
            }
            Ok(())
        })?;
        Ok(new)
    }

    /// Makes the tensors large enough for a batch.
    pub fn allocate(&mut self, device: &Device, samples: usize, training: bool) -> Result<()> {
        self.samples = samples;
        let Tensors { values, gradients, given } = &mut self.tensors;
        // Never fewer: the operations of other lengths, which may be those at hand again, have room in them too.
        let count = self.builder.storages.len().max(values.len());
        values.resize_with(count, Scratch::new);
        gradients.resize_with(count, Scratch::new);
        given.resize(count, false);
        for ((value, gradient), storage) in values.iter_mut().zip(gradients).zip(&self.builder.storages) {
            let len = crate::rnn::shape::checked_len("batch", &[("samples", samples), ("elements", storage.size)])?;
            value.grow(device, "batch", len)?;
            if training && storage.differentiable {
                gradient.grow(device, "gradients of a batch", len)?;
            }
        }
        if training && self.gradients.len() != self.builder.parameters {
            self.gradients = Mirrored::new(device, "gradients", self.builder.parameters)?;
        }
        Ok(())
    }

    /// Elements of all tensors of such a batch as room was made for last.
    pub fn elements(&self) -> usize {
        let sizes = self.builder.storages.iter().map(|storage| storage.size);
        sizes.fold(0, usize::saturating_add).saturating_mul(self.samples)
    }

    /// The tensor of a value, of so many samples.
    pub fn value(&self, value: &Value, samples: usize) -> Result<TensorRef<'_>> {
        self.tensors.values.get(value.storage).ok_or_else(not_allocated)?.get(self.len(value, samples))
    }

    /// The tensor of an input, to be written.
    pub fn value_mut(&mut self, value: &Value, samples: usize) -> Result<TensorMut<'_>> {
        let len = self.len(value, samples);
        self.tensors.values.get_mut(value.storage).ok_or_else(not_allocated)?.get_mut(len)
    }

    /// The gradient of a value, after a backward pass.
    pub fn gradient(&self, value: &Value, samples: usize) -> Result<TensorRef<'_>> {
        self.tensors.gradients.get(value.storage).ok_or_else(not_allocated)?.get(self.len(value, samples))
    }

    /// Elements of a value of so many samples.
    pub fn len(&self, value: &Value, samples: usize) -> usize {
        samples * self.builder.storages[value.storage].size
    }

    /// Forward of so many samples, whose inputs are there.
    pub fn forward(&mut self, device: &Device, samples: usize, training: bool, seed: u64) -> Result<()> {
        let Network { builder, tensors, parameters, statistics, frozen, .. } = self;
        let Builder { nodes, storages, .. } = builder;
        for node in nodes {
            let weights = if node.frozen { &*frozen } else { &*parameters };
            let (below, own) = tensors.values.split_at_mut(node.outputs.start);
            let mut inputs = Inputs::none();
            for (view, input) in inputs.0.iter_mut().zip(&node.inputs) {
                if let Some(input) = *input {
                    *view = Some(below[input].get(samples * storages[input].size)?);
                }
            }
            let mut outputs = Outputs::none();
            for ((view, value), storage) in outputs.0.iter_mut().zip(own).zip(&storages[node.outputs.clone()]) {
                *view = Some(value.get_mut(samples * storage.size)?);
            }
            let pass = Forward {
                parameters: weights.get().part(node.parameters.clone())?,
                version: weights.version(),
                statistics: statistics.get_mut().part(node.statistics.clone())?,
                inputs,
                outputs,
                batch: samples * node.rows,
                training,
                seed,
            };
            node.op.forward(device, pass)?;
        }
        Ok(())
    }

    /// Starts a backward pass: no value has a gradient yet.
    pub fn start_backward(&mut self) {
        self.tensors.given.fill(false);
        self.differentiated.clear();
    }

    /// Gives a value a part of its gradient: `write` sets every element.
    pub fn give_gradient(
        &mut self,
        device: &Device,
        value: &Value,
        samples: usize,
        write: impl FnOnce(TensorRef<'_>, TensorMut<'_>) -> Result<()>,
    ) -> Result<()> {
        let (len, at) = (self.len(value, samples), value.storage);
        let Network { tensors: Tensors { values, gradients, given }, parts, .. } = self;
        let (value, gradient, part) = (values.get(at).ok_or_else(not_allocated)?, &mut gradients[at], &mut parts[0]);
        gradient.grow(device, "gradients of a batch", len)?;
        if given[at] {
            part.grow(device, "gradients of a batch", len)?;
            write(value.get(len)?, part.get_mut(len)?)?;
            return device.scale_add(1.0, part.get(len)?, 1.0, gradient.get_mut(len)?);
        }
        given[at] = true;
        write(value.get(len)?, gradient.get_mut(len)?)
    }

    /// Backward from the gradients given, through all operations. With `of_inputs` the network's inputs get theirs too.
    pub fn backward(&mut self, device: &Device, samples: usize, seed: u64, of_inputs: bool) -> Result<()> {
        let Network { builder, tensors, parameters, statistics, frozen, parts, differentiated, discarded, .. } = self;
        let of_weights = &mut self.gradients;
        let Builder { nodes, storages, .. } = builder;
        let Tensors { values, gradients, given } = tensors;
        let len = |storage: usize| samples * storages[storage].size;
        for node in nodes.iter_mut().rev() {
            if !given[node.outputs.clone()].contains(&true) {
                continue;
            }
            // Where a gradient of an input goes: to its place if it is the first part of it, else to be added to it.
            let mut target = [Target::None; MOST_INPUTS];
            for (i, input) in node.inputs.iter().enumerate() {
                let Some(input) = *input else { continue };
                if storages[input].differentiable || of_inputs && !storages[input].constant {
                    let first = !given[input] && !node.inputs[..i].contains(&Some(input));
                    target[i] = if first { Target::Place(input) } else { Target::Add(input) };
                }
            }
            let is_trained = !node.parameters.is_empty() && !node.frozen;
            if !is_trained && target.iter().all(|target| matches!(target, Target::None)) {
                continue;
            }
            // The output's gradient has no other reader: it is handed on after the operation.
            let mut handed_on = None;
            if let Some(number) = node.op.passes_on()
                && let Target::Place(input) = target[number]
            {
                (handed_on, target[number]) = (Some(input), Target::None);
            }
            // Several of these are written at once, so those in their places are taken out of them.
            let mut taken: [Scratch; MOST_INPUTS] = from_fn(|_| Scratch::new());
            for ((target, taken), part) in target.iter().zip(&mut taken).zip(parts.iter_mut()) {
                match *target {
                    Target::None => {}
                    Target::Place(input) => {
                        std::mem::swap(taken, &mut gradients[input]);
                        taken.grow(device, "gradients of a batch", len(input))?;
                    }
                    Target::Add(input) => part.grow(device, "gradients of a batch", len(input))?,
                }
            }
            let again = is_trained && differentiated.contains(&node.parameters);
            if node.frozen {
                discarded.grow(device, "gradients of frozen weights", node.parameters.len())?;
            }
            let done = {
                let (mut inputs, mut outputs, mut doutputs) = (Inputs::none(), Inputs::none(), Inputs::none());
                for (view, input) in inputs.0.iter_mut().zip(&node.inputs) {
                    if let Some(input) = *input {
                        *view = Some(values[input].get(len(input))?);
                    }
                }
                for ((value, gradient), output) in outputs.0.iter_mut().zip(&mut doutputs.0).zip(node.outputs.clone()) {
                    *value = Some(values[output].get(len(output))?);
                    if given[output] {
                        *gradient = Some(gradients[output].get(len(output))?);
                    }
                }
                let mut dinputs = Outputs::none();
                let places = target.iter().zip(&mut taken).zip(parts.iter_mut());
                for (view, ((target, taken), part)) in dinputs.0.iter_mut().zip(places) {
                    *view = match *target {
                        Target::None => None,
                        Target::Place(input) => Some(taken.get_mut(len(input))?),
                        Target::Add(input) => Some(part.get_mut(len(input))?),
                    };
                }
                let pass = Backward {
                    parameters: if node.frozen { frozen.get() } else { parameters.get() }
                        .part(node.parameters.clone())?,
                    statistics: statistics.get().part(node.statistics.clone())?,
                    inputs,
                    outputs,
                    doutputs,
                    dinputs,
                    dparameters: match node.frozen {
                        true => discarded.get_mut(node.parameters.len())?,
                        false => of_weights.get_mut().part(node.parameters.clone())?,
                    },
                    grad: if again { WeightGrad::Add } else { WeightGrad::Set },
                    batch: samples * node.rows,
                    seed,
                };
                // Nothing is left to compute where the only gradient is handed on.
                let any = is_trained || target.iter().any(|target| !matches!(target, Target::None));
                if any { node.op.backward(device, pass) } else { Ok(()) }
            };
            for (target, taken) in target.iter().zip(&mut taken) {
                if let Target::Place(input) = *target {
                    std::mem::swap(taken, &mut gradients[input]);
                    given[input] = true;
                }
            }
            done?;
            if let Some(input) = handed_on {
                gradients.swap(input, node.outputs.start);
                given[input] = true;
            }
            if !again && is_trained {
                differentiated.push(node.parameters.clone());
            }
            for (target, part) in target.iter().zip(parts.iter()) {
                if let Target::Add(input) = *target {
                    device.scale_add(1.0, part.get(len(input))?, 1.0, gradients[input].get_mut(len(input))?)?;
                }
            }
        }
        // Weights that no loss reaches.
        for node in nodes.iter().filter(|node| !node.parameters.is_empty() && !node.frozen) {
            if !differentiated.contains(&node.parameters) {
                device.fill(of_weights.get_mut().part(node.parameters.clone())?, 0.0)?;
                differentiated.push(node.parameters.clone());
            }
        }
        if of_inputs {
            // Values that no operation has given a gradient have none: it is zero.
            let there = gradients.iter_mut().take(storages.len()).enumerate();
            for (storage, gradient) in there.filter(|(storage, _)| !given[*storage]) {
                gradient.grow(device, "gradients of a batch", len(storage))?;
                device.fill(gradient.get_mut(len(storage))?, 0.0)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy)]
enum Target {
    None,
    Place(usize),
    Add(usize),
}

fn not_allocated() -> Error {
    Error::Presence { tensor: "values".to_owned(), problem: "they were not allocated before the pass".to_owned() }
}
