//! The operations of a model with the tensors between them, run forwards and backwards: [`Network`].

use std::array::from_fn;
use std::borrow::{Borrow, BorrowMut};
use std::ops::Range;

use crate::backend::{DenseBackend, Storage, WeightGrad};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::builder::{Builder, Value};
use crate::nn::op::{Backward, Forward, Inputs, MOST_INPUTS, MOST_OUTPUTS, Outputs};
use crate::nn::{Parameter, Random, Scratch, grow};

/// A tensor where the backend computes, with a copy on the host where that cannot read it.
pub(crate) struct Mirrored<B: DenseBackend> {
    tensor: B::Owned<B::Elem>,
    /// On a device only: what [`host`](Self::host) shows.
    copy: Vec<B::Elem>,
}

impl<B: DenseBackend> Mirrored<B> {
    pub fn new(backend: &B, what: &str, values: Vec<B::Elem>) -> Result<Self> {
        let tensor = backend.take(what, values)?;
        let mut mirrored = Mirrored { tensor, copy: Vec::new() };
        mirrored.refresh(backend)?;
        Ok(mirrored)
    }

    /// The values as of the last refresh; on the host the values themselves.
    pub fn host(&self) -> &[B::Elem] {
        self.get().on_host().unwrap_or(&self.copy)
    }

    /// The tensor.
    pub fn get(&self) -> &B::Buffer {
        self.tensor.borrow()
    }

    /// The tensor, to be changed; a refresh must follow before the host's copy is used.
    pub fn get_mut(&mut self) -> &mut B::Buffer {
        self.tensor.borrow_mut()
    }

    /// Brings the host's copy up to date.
    pub fn refresh(&mut self, backend: &B) -> Result<()> {
        let tensor: &B::Buffer = self.tensor.borrow();
        if tensor.on_host().is_none() {
            self.copy.resize(tensor.elements(), B::Elem::default());
            backend.download(tensor, &mut self.copy)?;
        }
        Ok(())
    }

    pub fn set(&mut self, backend: &B, values: &[B::Elem]) -> Result<()> {
        backend.upload(values, self.tensor.borrow_mut())?;
        if self.get().on_host().is_none() {
            self.copy.copy_from_slice(values);
        }
        Ok(())
    }
}

/// A tensor between operations, for one batch.
struct Slot<B: DenseBackend> {
    value: Scratch<B>,
    gradient: Scratch<B>,
    /// Whether the gradient has been given a part of itself in this pass.
    given: bool,
}

/// Layers as operations, their weights, and the tensors between them, where the backend computes.
pub(crate) struct Network<B: DenseBackend> {
    pub builder: Builder<B>,
    slots: Vec<Slot<B>>,
    pub parameters: Mirrored<B>,
    pub gradients: Mirrored<B>,
    pub statistics: Mirrored<B>,
    /// Further parts of gradients, before they are added.
    parts: [Scratch<B>; MOST_INPUTS],
    /// Ranges of weights that have their gradient in this pass.
    differentiated: Vec<Range<usize>>,
}

fn replaced<B: DenseBackend>(scratch: &mut Scratch<B>) -> Scratch<B> {
    std::mem::replace(scratch, Scratch::new())
}

impl<B: DenseBackend> Network<B> {
    pub fn new(backend: &B, builder: Builder<B>) -> Result<Self> {
        Ok(Network {
            builder,
            slots: Vec::new(),
            parameters: Mirrored::new(backend, "weights", Vec::new())?,
            gradients: Mirrored::new(backend, "gradients", Vec::new())?,
            statistics: Mirrored::new(backend, "statistics", Vec::new())?,
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
    pub fn check(&self, backend: &B) -> Result<()> {
        self.builder.nodes.iter().try_for_each(|node| node.op.check(backend))
    }

    /// All weight tensors, with the names of their layers.
    pub fn tensors(&self) -> impl Iterator<Item = (&str, &Parameter)> {
        self.builder.layers.iter().flat_map(|l| l.parameters.iter().map(move |p| (l.name.as_str(), p)))
    }

    /// Makes the tensors large enough for a batch.
    pub fn allocate(&mut self, backend: &B, samples: usize, training: bool) -> Result<()> {
        self.slots.resize_with(self.builder.storages.len(), || Slot {
            value: Scratch::new(),
            gradient: Scratch::new(),
            given: false,
        });
        for (slot, storage) in self.slots.iter_mut().zip(&self.builder.storages) {
            let len = crate::rnn::shape::checked_len("batch", &[("samples", samples), ("elements", storage.size)])?;
            slot.value.grow(backend, "batch", len)?;
            if training && storage.differentiable {
                slot.gradient.grow(backend, "gradients of a batch", len)?;
            }
        }
        if training && self.gradients.get().elements() != self.builder.parameters {
            let mut zeros = Vec::new();
            grow_default(&mut zeros, self.builder.parameters, "gradients")?;
            self.gradients = Mirrored::new(backend, "gradients", zeros)?;
        }
        Ok(())
    }

    /// The tensor of a value, of so many samples.
    pub fn value(&self, backend: &B, value: &Value, samples: usize) -> Result<B::View<'_, B::Elem>> {
        self.slot(value)?.value.get(backend, samples * self.builder.storages[value.storage].size)
    }

    /// The tensor of an input, to be written.
    pub fn value_mut(&mut self, backend: &B, value: &Value, samples: usize) -> Result<B::ViewMut<'_, B::Elem>> {
        let len = samples * self.builder.storages[value.storage].size;
        self.slots.get_mut(value.storage).ok_or_else(not_allocated)?.value.get_mut(backend, len)
    }

    /// The gradient of a value, after a backward pass.
    pub fn gradient(&self, backend: &B, value: &Value, samples: usize) -> Result<B::View<'_, B::Elem>> {
        self.slot(value)?.gradient.get(backend, samples * self.builder.storages[value.storage].size)
    }

    fn slot(&self, value: &Value) -> Result<&Slot<B>> {
        self.slots.get(value.storage).ok_or_else(not_allocated)
    }

    /// Forward of so many samples, whose inputs are there.
    pub fn forward(&mut self, backend: &B, samples: usize, training: bool, seed: u64) -> Result<()> {
        let Network { builder, slots, parameters, statistics, .. } = self;
        let Builder { nodes, storages, .. } = builder;
        for node in nodes {
            let mut taken: [Scratch<B>; MOST_OUTPUTS] = from_fn(|_| Scratch::new());
            for (scratch, output) in taken.iter_mut().zip(&node.outputs) {
                *scratch = replaced(&mut slots[*output].value);
            }
            let done = {
                let parameters = backend.view(parameters.get(), node.parameters.clone())?;
                let mut statistics = backend.view_mut(statistics.get_mut(), node.statistics.clone())?;
                let mut outputs = Outputs::none();
                for ((view, scratch), output) in outputs.0.iter_mut().zip(&mut taken).zip(&node.outputs) {
                    *view = Some(scratch.get_mut(backend, samples * storages[*output].size)?);
                }
                let pass = Forward {
                    parameters: &*parameters,
                    statistics: &mut *statistics,
                    inputs: views(backend, slots, node.inputs.iter().copied(), |slot, storage| {
                        slot.value.get(backend, samples * storages[storage].size)
                    })?,
                    outputs,
                    batch: samples * node.rows,
                    training,
                    seed,
                };
                node.op.forward(backend, pass)
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
        backend: &B,
        value: &Value,
        samples: usize,
        write: impl FnOnce(&B::Buffer, &mut B::Buffer) -> Result<()>,
    ) -> Result<()> {
        let len = samples * self.builder.storages[value.storage].size;
        let Network { slots, parts, .. } = self;
        let slot = slots.get_mut(value.storage).ok_or_else(not_allocated)?;
        let Slot { value, gradient, given } = slot;
        gradient.grow(backend, "gradients of a batch", len)?;
        if *given {
            parts[0].grow(backend, "gradients of a batch", len)?;
            write(&*value.get(backend, len)?, &mut *parts[0].get_mut(backend, len)?)?;
            return backend.scale_add(1.0, &*parts[0].get(backend, len)?, 1.0, &mut *gradient.get_mut(backend, len)?);
        }
        *given = true;
        write(&*value.get(backend, len)?, &mut *gradient.get_mut(backend, len)?)
    }

    /// Backward from the gradients given, through all operations. With `of_inputs` the network's inputs get theirs too.
    pub fn backward(&mut self, backend: &B, samples: usize, seed: u64, of_inputs: bool) -> Result<()> {
        let Network { builder, slots, parameters, gradients, statistics, parts, differentiated } = self;
        let Builder { nodes, storages, .. } = builder;
        for node in nodes.iter_mut().rev() {
            if !node.outputs.iter().any(|output| slots[*output].given) {
                continue;
            }
            // Where a gradient of an input goes: to its place if it is the first part of it, else to be added to it.
            let mut taken: [Scratch<B>; MOST_INPUTS] = from_fn(|_| Scratch::new());
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
                taken[i].grow(backend, "gradients of a batch", samples * storage.size)?;
            }
            if node.parameters.is_empty() && target.iter().all(|target| matches!(target, Target::None)) {
                continue;
            }
            let again = differentiated.contains(&node.parameters);
            let done = {
                let parameters = backend.view(parameters.get(), node.parameters.clone())?;
                let statistics = backend.view(statistics.get(), node.statistics.clone())?;
                let mut dparameters = backend.view_mut(gradients.get_mut(), node.parameters.clone())?;
                let mut dinputs = Outputs::none();
                for ((view, scratch), input) in dinputs.0.iter_mut().zip(&mut taken).zip(&node.inputs) {
                    if let (Some(input), false) = (input, scratch.is_empty()) {
                        *view = Some(scratch.get_mut(backend, samples * storages[*input].size)?);
                    }
                }
                let written = node.outputs.iter().map(|output| Some(*output));
                let given = node.outputs.iter().map(|output| slots[*output].given.then_some(*output));
                let pass = Backward {
                    parameters: &*parameters,
                    statistics: &*statistics,
                    inputs: views(backend, slots, node.inputs.iter().copied(), |slot, storage| {
                        slot.value.get(backend, samples * storages[storage].size)
                    })?,
                    outputs: views(backend, slots, written, |slot, storage| {
                        slot.value.get(backend, samples * storages[storage].size)
                    })?,
                    doutputs: views(backend, slots, given, |slot, storage| {
                        slot.gradient.get(backend, samples * storages[storage].size)
                    })?,
                    dinputs,
                    dparameters: &mut *dparameters,
                    grad: if again { WeightGrad::Add } else { WeightGrad::Set },
                    batch: samples * node.rows,
                    seed,
                };
                node.op.backward(backend, pass)
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
                    let mut sum = slots[input].gradient.get_mut(backend, len)?;
                    backend.scale_add(1.0, &*scratch.get(backend, len)?, 1.0, &mut *sum)?;
                    drop(sum);
                    parts[i] = replaced(scratch);
                }
            }
            done?;
        }
        // Weights that no loss reaches.
        for node in nodes.iter().filter(|node| !node.parameters.is_empty()) {
            if !differentiated.contains(&node.parameters) {
                backend.fill(&mut *backend.view_mut(gradients.get_mut(), node.parameters.clone())?, 0.0)?;
                differentiated.push(node.parameters.clone());
            }
        }
        if of_inputs {
            // Values that no operation has given a gradient have none: it is zero.
            for (slot, storage) in slots.iter_mut().zip(storages.iter()).filter(|(slot, _)| !slot.given) {
                let len = samples * storage.size;
                slot.gradient.grow(backend, "gradients of a batch", len)?;
                backend.fill(&mut *slot.gradient.get_mut(backend, len)?, 0.0)?;
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
fn views<'a, B: DenseBackend>(
    _: &B,
    slots: &'a [Slot<B>],
    storages: impl Iterator<Item = Option<usize>>,
    view: impl Fn(&'a Slot<B>, usize) -> Result<B::View<'a, B::Elem>>,
) -> Result<Inputs<'a, B>> {
    let mut inputs = Inputs::none();
    for (to, storage) in inputs.0.iter_mut().zip(storages) {
        if let Some(storage) = storage {
            *to = Some(view(&slots[storage], storage)?);
        }
    }
    Ok(inputs)
}

fn grow_default<E: crate::Element>(buffer: &mut Vec<E>, len: usize, tensor: &str) -> Result<()> {
    buffer.try_reserve_exact(len.saturating_sub(buffer.len())).map_err(|_| {
        Error::unsupported(format!("{tensor} of {len} elements"), "there is not enough memory; use smaller sizes")
    })?;
    buffer.resize(len, E::default());
    Ok(())
}

impl<E: Scalar, B: DenseBackend<Elem = E>> Network<B> {
    /// Gives layers built since the last call their weights, drawn from the stream of their number; those of earlier ones stay.
    pub fn initialize(&mut self, backend: &B, seed: u64) -> Result<()> {
        let known = [self.parameters.get().elements(), self.statistics.get().elements()];
        let mut weights = [Vec::new(), Vec::new()];
        for (weights, (from, len)) in weights
            .iter_mut()
            .zip([(self.parameters.host(), self.builder.parameters), (self.statistics.host(), self.builder.statistics)])
        {
            grow(weights, len, "weights")?;
            weights[..from.len()].copy_from_slice(from);
        }
        for (index, layer) in self.builder.layers.iter().enumerate() {
            let mut random = Random::new(seed, index as u32);
            for parameter in &layer.parameters {
                let kind = usize::from(!parameter.trainable);
                if parameter.range.start >= known[kind] {
                    parameter.initialize(&mut weights[kind][parameter.range.clone()], &mut random);
                }
            }
        }
        let [parameters, statistics] = weights;
        self.parameters = Mirrored::new(backend, "weights", parameters)?;
        self.statistics = Mirrored::new(backend, "statistics", statistics)?;
        Ok(())
    }
}
