//! The operations of a model with the tensors between them, run forwards and backwards: [`Network`].

use std::array::from_fn;
use std::ops::Range;

use crate::backend::device::copy_on_host;
use crate::backend::{Device, Tensor, TensorMut, TensorRef, WeightGrad};
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Inputs, MOST_INPUTS, MOST_OUTPUTS, Outputs};
use crate::nn::{Parameter, Random, Scratch};

/// A tensor where the device computes, with a copy on the host where that cannot read it.
pub(crate) struct Mirrored {
    tensor: Tensor,
    /// What [`host`](Self::host) shows; only where that is not the tensor itself.
    copy: Option<Tensor>,
}

impl Mirrored {
    /// `len` zeros; `what` names it in errors.
    pub fn new(device: &Device, what: &str, len: usize) -> Result<Self> {
        let tensor = device.allocate(what, len)?;
        let copy = match tensor.is_on_host() {
            true => None,
            false => Some(Tensor::on_host(what, tensor.dtype(), len)?),
        };
        Ok(Mirrored { tensor, copy })
    }

    /// Elements.
    pub fn len(&self) -> usize {
        self.tensor.len()
    }

    /// The values as of the last refresh, in the host's memory; on the host the tensor itself.
    pub fn host(&self) -> TensorRef<'_> {
        self.copy.as_ref().unwrap_or(&self.tensor).view()
    }

    /// The tensor.
    pub fn get(&self) -> TensorRef<'_> {
        self.tensor.view()
    }

    /// The tensor, to be changed; a refresh must follow before the host's copy is used.
    pub fn get_mut(&mut self) -> TensorMut<'_> {
        self.tensor.view_mut()
    }

    /// Brings the host's copy up to date.
    pub fn refresh(&mut self, device: &Device) -> Result<()> {
        match &mut self.copy {
            Some(copy) => device.download_tensor(self.tensor.view(), copy.view_mut()),
            None => Ok(()),
        }
    }

    /// Changes the host's copy, as of the last refresh, and then the tensor to it.
    pub fn change(&mut self, device: &Device, write: impl FnOnce(TensorMut<'_>) -> Result<()>) -> Result<()> {
        match &mut self.copy {
            Some(copy) => {
                write(copy.view_mut())?;
                device.upload_tensor(copy.view(), self.tensor.view_mut())
            }
            None => write(self.tensor.view_mut()),
        }
    }
}

/// A tensor between operations, for one batch.
struct Slot {
    value: Scratch,
    gradient: Scratch,
    /// Whether the gradient has been given a part of itself in this pass.
    given: bool,
}

/// Layers as operations, their weights, and the tensors between them, where the device computes.
pub(crate) struct Network {
    pub builder: Builder,
    slots: Vec<Slot>,
    pub parameters: Mirrored,
    pub gradients: Mirrored,
    pub statistics: Mirrored,
    /// Further parts of gradients, before they are added.
    parts: [Scratch; MOST_INPUTS],
    /// Ranges of weights that have their gradient in this pass.
    differentiated: Vec<Range<usize>>,
}

fn replaced(scratch: &mut Scratch) -> Scratch {
    std::mem::replace(scratch, Scratch::new())
}

impl Network {
    pub fn new(device: &Device, builder: Builder) -> Result<Self> {
        Ok(Network {
            builder,
            slots: Vec::new(),
            parameters: Mirrored::new(device, "weights", 0)?,
            gradients: Mirrored::new(device, "gradients", 0)?,
            statistics: Mirrored::new(device, "statistics", 0)?,
            parts: from_fn(|_| Scratch::new()),
            differentiated: Vec::new(),
        })
    }

    /// Whether a pass depends on those before it.
    pub fn is_stateful(&self) -> bool {
        self.builder.nodes.iter().any(|node| node.op.is_stateful())
    }

    /// Forgets the states that layers carry from batch to batch.
    pub fn reset_states(&mut self) {
        self.builder.nodes.iter_mut().for_each(|node| node.op.reset_states());
    }

    /// Waits for the operations' passes, and says whether they have ended as they should.
    pub fn check(&self, device: &Device) -> Result<()> {
        self.builder.nodes.iter().try_for_each(|node| node.op.check(device))
    }

    /// All weight tensors, with the names of their layers.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.builder.layers.iter().flat_map(|l| l.parameters.iter().map(move |p| (l.name.as_str(), p)))
    }

    /// Gives layers built since the last call their weights, drawn from the stream of their number; those of earlier ones stay.
    pub fn initialize(&mut self, device: &Device, seed: u64) -> Result<()> {
        let builder = &self.builder;
        let mut parameters = Mirrored::new(device, "weights", builder.parameters)?;
        let mut statistics = Mirrored::new(device, "statistics", builder.statistics)?;
        let known = [self.parameters.len(), self.statistics.len()];
        parameters.change(device, |mut parameters| {
            statistics.change(device, |mut statistics| {
                copy_on_host(self.parameters.host(), parameters.reborrow().part(0..known[0])?)?;
                copy_on_host(self.statistics.host(), statistics.reborrow().part(0..known[1])?)?;
                for (index, layer) in builder.layers.iter().enumerate() {
                    let mut random = Random::new(seed, index as u32);
                    for parameter in &layer.parameters {
                        let (values, known) = match parameter.trainable {
                            true => (parameters.reborrow(), known[0]),
                            false => (statistics.reborrow(), known[1]),
                        };
                        if parameter.range.start >= known {
                            parameter.initialize(values.part(parameter.range.clone())?, &mut random)?;
                        }
                    }
                }
                Ok(())
            })
        })?;
        self.parameters = parameters;
        self.statistics = statistics;
        Ok(())
    }

    /// Makes the tensors large enough for a batch.
    pub fn allocate(&mut self, device: &Device, samples: usize, training: bool) -> Result<()> {
        self.slots.resize_with(self.builder.storages.len(), || Slot {
            value: Scratch::new(),
            gradient: Scratch::new(),
            given: false,
        });
        for (slot, storage) in self.slots.iter_mut().zip(&self.builder.storages) {
            let len = crate::rnn::shape::checked_len("batch", &[("samples", samples), ("elements", storage.size)])?;
            slot.value.grow(device, "batch", len)?;
            if training && storage.differentiable {
                slot.gradient.grow(device, "gradients of a batch", len)?;
            }
        }
        if training && self.gradients.len() != self.builder.parameters {
            self.gradients = Mirrored::new(device, "gradients", self.builder.parameters)?;
        }
        Ok(())
    }

    /// The tensor of a value, of so many samples.
    pub fn value(&self, value: &Value, samples: usize) -> Result<TensorRef<'_>> {
        self.slot(value)?.value.get(samples * self.builder.storages[value.storage].size)
    }

    /// The tensor of an input, to be written.
    pub fn value_mut(&mut self, value: &Value, samples: usize) -> Result<TensorMut<'_>> {
        let len = samples * self.builder.storages[value.storage].size;
        self.slots.get_mut(value.storage).ok_or_else(not_allocated)?.value.get_mut(len)
    }

    /// The gradient of a value, after a backward pass.
    pub fn gradient(&self, value: &Value, samples: usize) -> Result<TensorRef<'_>> {
        self.slot(value)?.gradient.get(samples * self.builder.storages[value.storage].size)
    }

    fn slot(&self, value: &Value) -> Result<&Slot> {
        self.slots.get(value.storage).ok_or_else(not_allocated)
    }

    /// Forward of so many samples, whose inputs are there.
    pub fn forward(&mut self, device: &Device, samples: usize, training: bool, seed: u64) -> Result<()> {
        let Network { builder, slots, parameters, statistics, .. } = self;
        let Builder { nodes, storages, .. } = builder;
        for node in nodes {
            let mut taken: [Scratch; MOST_OUTPUTS] = from_fn(|_| Scratch::new());
            for (scratch, output) in taken.iter_mut().zip(&node.outputs) {
                *scratch = replaced(&mut slots[*output].value);
            }
            let done = {
                let parameters = parameters.get().part(node.parameters.clone())?;
                let statistics = statistics.get_mut().part(node.statistics.clone())?;
                let mut outputs = Outputs::none();
                for ((view, scratch), output) in outputs.0.iter_mut().zip(&mut taken).zip(&node.outputs) {
                    *view = Some(scratch.get_mut(samples * storages[*output].size)?);
                }
                let pass = Forward {
                    parameters,
                    statistics,
                    inputs: views(slots, node.inputs.iter().copied(), |slot, storage| {
                        slot.value.get(samples * storages[storage].size)
                    })?,
                    outputs,
                    batch: samples * node.rows,
                    training,
                    seed,
                };
                node.op.forward(device, pass)
            };
            for (scratch, output) in taken.iter_mut().zip(&node.outputs) {
                slots[*output].value = replaced(scratch);
            }
            done?;
        }
        Ok(())
    }

    /// Starts a backward pass: no value has a gradient yet.
    pub fn start_backward(&mut self) {
        self.slots.iter_mut().for_each(|slot| slot.given = false);
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
        let len = samples * self.builder.storages[value.storage].size;
        let Network { slots, parts, .. } = self;
        let slot = slots.get_mut(value.storage).ok_or_else(not_allocated)?;
        let Slot { value, gradient, given } = slot;
        gradient.grow(device, "gradients of a batch", len)?;
        if *given {
            parts[0].grow(device, "gradients of a batch", len)?;
            write(value.get(len)?, parts[0].get_mut(len)?)?;
            return device.scale_add(1.0, parts[0].get(len)?, 1.0, gradient.get_mut(len)?);
        }
        *given = true;
        write(value.get(len)?, gradient.get_mut(len)?)
    }

    /// Backward from the gradients given, through all operations. With `of_inputs` the network's inputs get theirs too.
    pub fn backward(&mut self, device: &Device, samples: usize, seed: u64, of_inputs: bool) -> Result<()> {
        let Network { builder, slots, parameters, gradients, statistics, parts, differentiated } = self;
        let Builder { nodes, storages, .. } = builder;
        for node in nodes.iter_mut().rev() {
            if !node.outputs.iter().any(|output| slots[*output].given) {
                continue;
            }
            // Where a gradient of an input goes: to its place if it is the first part of it, else to be added to it.
            let mut taken: [Scratch; MOST_INPUTS] = from_fn(|_| Scratch::new());
            let mut target = [Target::None; MOST_INPUTS];
            for (i, input) in node.inputs.iter().enumerate() {
                let Some(input) = *input else { continue };
                let storage = &storages[input];
                if !(storage.differentiable || of_inputs && !storage.constant) {
                    continue;
                }
                let first = !slots[input].given && !node.inputs[..i].contains(&Some(input));
                target[i] = if first { Target::Place(input) } else { Target::Add(input) };
                taken[i] = replaced(if first { &mut slots[input].gradient } else { &mut parts[i] });
                taken[i].grow(device, "gradients of a batch", samples * storage.size)?;
            }
            if node.parameters.is_empty() && target.iter().all(|target| matches!(target, Target::None)) {
                continue;
            }
            let again = differentiated.contains(&node.parameters);
            let done = {
                let parameters = parameters.get().part(node.parameters.clone())?;
                let statistics = statistics.get().part(node.statistics.clone())?;
                let dparameters = gradients.get_mut().part(node.parameters.clone())?;
                let mut dinputs = Outputs::none();
                for ((view, scratch), input) in dinputs.0.iter_mut().zip(&mut taken).zip(&node.inputs) {
                    if let (Some(input), false) = (input, scratch.is_empty()) {
                        *view = Some(scratch.get_mut(samples * storages[*input].size)?);
                    }
                }
                let written = node.outputs.iter().map(|output| Some(*output));
                let given = node.outputs.iter().map(|output| slots[*output].given.then_some(*output));
                let pass = Backward {
                    parameters,
                    statistics,
                    inputs: views(slots, node.inputs.iter().copied(), |slot, storage| {
                        slot.value.get(samples * storages[storage].size)
                    })?,
                    outputs: views(slots, written, |slot, storage| slot.value.get(samples * storages[storage].size))?,
                    doutputs: views(slots, given, |slot, storage| slot.gradient.get(samples * storages[storage].size))?,
                    dinputs,
                    dparameters,
                    grad: if again { WeightGrad::Add } else { WeightGrad::Set },
                    batch: samples * node.rows,
                    seed,
                };
                node.op.backward(device, pass)
            };
            if !again && !node.parameters.is_empty() {
                differentiated.push(node.parameters.clone());
            }
            for (i, scratch) in taken.iter_mut().enumerate() {
                if let Target::Place(input) = target[i] {
                    slots[input].gradient = replaced(scratch);
                    slots[input].given = true;
                }
            }
            for (i, scratch) in taken.iter_mut().enumerate() {
                if let Target::Add(input) = target[i] {
                    let len = samples * storages[input].size;
                    device.scale_add(1.0, scratch.get(len)?, 1.0, slots[input].gradient.get_mut(len)?)?;
                    parts[i] = replaced(scratch);
                }
            }
            done?;
        }
        // Weights that no loss reaches.
        for node in nodes.iter().filter(|node| !node.parameters.is_empty()) {
            if !differentiated.contains(&node.parameters) {
                device.fill(gradients.get_mut().part(node.parameters.clone())?, 0.0)?;
                differentiated.push(node.parameters.clone());
            }
        }
        if of_inputs {
            // Values that no operation has given a gradient have none: it is zero.
            for (slot, storage) in slots.iter_mut().zip(storages.iter()).filter(|(slot, _)| !slot.given) {
                let len = samples * storage.size;
                slot.gradient.grow(device, "gradients of a batch", len)?;
                device.fill(slot.gradient.get_mut(len)?, 0.0)?;
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

/// Views of the tensors of some storages.
fn views<'a>(
    slots: &'a [Slot],
    storages: impl Iterator<Item = Option<usize>>,
    view: impl Fn(&'a Slot, usize) -> Result<TensorRef<'a>>,
) -> Result<Inputs<'a>> {
    let mut inputs = Inputs::none();
    for (to, storage) in inputs.0.iter_mut().zip(storages) {
        if let Some(storage) = storage {
            *to = Some(view(&slots[storage], storage)?);
        }
    }
    Ok(inputs)
}
