//! Layers, weights and how to train them: [`Model`].

use std::sync::Arc;

use crate::backend::device::check_model_dtype;
use crate::backend::{Device, Tensor, TensorMut};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::loss::LossFunction;
use crate::model::graph::{Graph, GraphConfig, GraphTensor, Source, Topology, check_connected};
use crate::model::lengths::{Programs, check_any_length};
use crate::model::loss_advice::check_classes;
use crate::model::loss_scale::LossScale;
use crate::model::output::{Output, Status};
use crate::model::penalties::Penalties;
use crate::nn::network::Network;
use crate::nn::{Builder, Layer, Scratch};
use crate::optim::{Adam, Optimizer, Schedule};

/// A model on one device: Keras's [`Model`](https://keras.io/api/models/model/), made by a [`Graph`] or a
/// [`Sequential`](crate::model::Sequential).
///
/// Weights, activations, gradients and the optimizer's memory stand where the device computes, in its element type. Arrays of `f32` or
/// `f64` go in and come out on the host; what is computed in the other type is rounded to the nearest on the way. On a GPU
/// [`flat_weights`](Self::flat_weights) and [`weights`](Self::weights) show a copy, which whatever changes the weights brings up to
/// date.
///
/// Everything random comes from the seed the model is made with: the same seed, data and options give the same bits.
/// Until [`compile`](Self::compile) says otherwise, training uses [`Adam`] with its defaults on the mean squared error.
pub struct Model {
    pub(super) device: Device,
    pub(super) topology: Topology,
    pub(super) network: Network,
    pub(super) outputs: Vec<Output>,
    pub(super) optimizer: Box<dyn Optimizer>,
    pub(super) metrics: Vec<crate::metrics::Metric>,
    pub(super) weighted_metrics: Vec<crate::metrics::Metric>,
    /// Samples of a batch without training, where that was set.
    pub(super) inference_batch_size: Option<usize>,
    /// What the optimizer remembers, and the steps it has done.
    pub(super) states: Vec<Tensor>,
    pub(super) steps: u64,
    pub(super) seed: u64,
    /// Epochs trained so far; each has its own order of samples.
    pub(super) epochs_trained: u32,
    /// Batches trained so far; each has its own dropout.
    pub(super) batches_trained: u64,
    /// Learning rates by step, where they are not the optimizer's own.
    pub(super) schedule: Option<Schedule>,
    /// What losses are multiplied with before they are differentiated, where they are.
    pub(super) loss_scale: Option<LossScale>,
    /// Scratch space of losses and of norms.
    pub(super) workspace: Scratch,
    pub(super) penalties: Penalties,
    pub(super) status: Status,
    /// Operations for other lengths of inputs that may have any.
    pub(super) programs: Programs,
}

impl Model {
    /// A model of what has been built, without weights yet.
    pub(super) fn from_parts(
        device: Device,
        builder: Builder,
        mut topology: Topology,
        outputs: &[Source],
        seed: u64,
    ) -> Result<Self> {
        check_model_dtype(&device)?;
        check_any_length(&builder, &mut topology)?;
        device.prepare()?;
        let output = |source: &Source| match topology.tensor(*source) {
            Some(tensor) => Ok(Output::new(*source, tensor.value, LossFunction::default())),
            None => Err(Error::option("outputs", "tensors of the model", format!("{source:?}"))),
        };
        Ok(Model {
            outputs: outputs.iter().map(output).collect::<Result<_>>()?,
            network: Network::new(&device, builder)?,
            topology,
            optimizer: Box::new(Adam::default()),
            metrics: Vec::new(),
            weighted_metrics: Vec::new(),
            inference_batch_size: None,
            states: Vec::new(),
            steps: 0,
            seed,
            epochs_trained: 0,
            batches_trained: 0,
            schedule: None,
            loss_scale: device.needs_loss_scale().then(LossScale::default),
            workspace: Scratch::new(),
            penalties: Penalties::new(),
            status: Status::new(&device)?,
            programs: Programs::new(),
            device,
        })
    }

    /// A model of the layers that a configuration describes, with freshly drawn weights. Everything random in it comes from `seed`.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a name there twice, a number that names nothing, or layers that wait for each other; [`Error::Presence`]
    /// where there are no outputs, or an input or a layer leads to none; [`Error::Shape`] naming the layer where it cannot take such inputs;
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`]; [`Error::Unsupported`] where the device cannot do it or memory is short.
    pub fn from_config(device: Device, config: &GraphConfig, seed: u64) -> Result<Self> {
        let (builder, topology) = Graph::from_config(config)?;
        check_connected(&topology, &config.outputs)?;
        let mut model = Model::from_parts(device, builder, topology, &config.outputs, seed)?;
        model.initialize()?;
        Ok(model)
    }

    /// Draws the weights of layers that have none yet.
    pub(super) fn initialize(&mut self) -> Result<()> {
        self.network.initialize(&self.device, self.seed)?;
        self.forget();
        Ok(())
    }

    /// Takes as many weights as the layers have: `read` gives those of a tensor, named as [`weights`](Self::weights) does.
    pub(super) fn read_weights(&mut self, read: impl Fn(&str, TensorMut<'_>) -> Result<()>) -> Result<()> {
        self.network.read(&self.device, |layer, parameter, to| read(&format!("{layer}.{}", parameter.name), to))?;
        self.forget();
        Ok(())
    }

    /// Puts a layer on top of the only output, or of the only input.
    pub(super) fn stack(&mut self, layer: Arc<dyn Layer>) -> Result<()> {
        let below = self.outputs.first().map_or(Source::Input(0), |output| output.source);
        let Some(below) = self.topology.tensor(below) else {
            return Err(Error::Presence { tensor: "input".to_owned(), problem: "the model has none".to_owned() });
        };
        let builder = &mut self.network.builder;
        let mark = self.topology.mark(builder, self.topology.layers.len());
        let index = self.topology.layer(builder, layer, None)?;
        let one = match self.topology.call(builder, index, &[&below]) {
            Ok(mut outputs) if outputs.len() == 1 => Ok(outputs.remove(0)),
            Ok(outputs) => {
                let got = format!("{} outputs; use a graph", outputs.len());
                let name = self.topology.layers.get(index).map_or("layer", |layer| &layer.name);
                Err(Error::shape(name, "one output, since it stands in a stack", got))
            }
            Err(error) => Err(error),
        };
        // What a layer needs for any number of steps is checked before its weights are there.
        let checked = one.and_then(|output| {
            self.programs.check_added(&self.network.builder, &mut self.topology)?;
            Ok(output)
        });
        let drawn = checked.and_then(|output| self.network.initialize(&self.device, self.seed).map(|()| output));
        match drawn {
            Ok(GraphTensor { source, value }) => {
                let loss = self.outputs.first().map(|output| output.loss.clone()).unwrap_or_default();
                self.outputs = vec![Output::new(source, value, loss)];
                self.programs.clear();
                self.forget();
                Ok(())
            }
            Err(error) => {
                // A layer that cannot be there leaves the model as it was.
                self.topology.roll_back(&mut self.network.builder, mark);
                Err(error)
            }
        }
    }

    /// The optimizer starts anew, and so does the scale of losses.
    pub(super) fn forget(&mut self) {
        self.states.clear();
        self.steps = 0;
        if let Some(scale) = &mut self.loss_scale {
            scale.forget();
        }
    }

    /// Sets how [`fit`](Self::fit) trains: every output by the same loss, of which the sum is made small: a [`Loss`](crate::loss::Loss), a
    /// [`Ctc`](crate::loss::Ctc), or one [of your own](crate::loss::CustomLoss). The optimizer starts without memory of earlier steps, and
    /// with the learning rate it has.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for constants that the optimizer or the loss cannot have, such as Huber's loss with a `delta` of -1;
    /// [`Error::Shape`] for an output that the loss cannot be of, or can learn nothing of, as a categorical cross-entropy of one column;
    /// [`Error::Presence`] for a model without layers. The model then is as it was.
    pub fn compile(&mut self, optimizer: impl Optimizer + 'static, loss: impl Into<LossFunction>) -> Result<&mut Self> {
        let loss = loss.into();
        if self.outputs.is_empty() {
            return Err(Error::Presence {
                tensor: "layers".to_owned(),
                problem: "the model has none that a loss could be of; add them before it is compiled".to_owned(),
            });
        }
        optimizer.validate()?;
        self.check_losses(std::iter::repeat_n(&loss, self.outputs.len()))?;
        self.check_classes(std::iter::repeat_n(&loss, self.outputs.len()))?;
        for output in &mut self.outputs {
            output.set_loss(loss.clone(), 1.0)?;
        }
        self.optimizer = Box::new(optimizer);
        self.schedule = None;
        self.forget();
        Ok(self)
    }

    fn check_classes<'l>(&self, losses: impl Iterator<Item = &'l LossFunction>) -> Result<()> {
        let mut outputs = self.outputs.iter().zip(losses);
        outputs.try_for_each(|(output, loss)| check_classes(self.topology.name_of(output.source), output, loss))
    }

    /// Whether all outputs can have these losses.
    fn check_losses<'l>(&self, losses: impl Iterator<Item = &'l LossFunction>) -> Result<()> {
        for (output, loss) in self.outputs.iter().zip(losses) {
            loss.validate()?;
            loss.target_shape(output.value.shape())?;
        }
        Ok(())
    }

    /// Sets the loss of each output, and what it counts in the sum that is made small: Keras's `loss_weights`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another number of losses than outputs, or for an output that its loss cannot be of; [`Error::InvalidOption`] for
    /// constants that a loss cannot have, and for a weight that is not finite. The model then is as it was.
    pub fn losses<L: Clone + Into<LossFunction>>(&mut self, losses: &[(L, f64)]) -> Result<&mut Self> {
        let losses: Vec<(LossFunction, f64)> = losses.iter().map(|(loss, w)| (loss.clone().into(), *w)).collect();
        self.check_classes(losses.iter().map(|(loss, _)| loss))?;
        self.set_losses(losses)
    }

    /// The same of a file, which may be of a version that took any loss for any output.
    pub(super) fn set_losses(&mut self, losses: Vec<(LossFunction, f64)>) -> Result<&mut Self> {
        if losses.len() != self.outputs.len() {
            return Err(Error::shape(
                "losses",
                format!("{}, one an output", self.outputs.len()),
                losses.len().to_string(),
            ));
        }
        if let Some((_, weight)) = losses.iter().find(|(_, weight)| !weight.is_finite()) {
            return Err(Error::option("weight of a loss", "a finite number", weight));
        }
        self.check_losses(losses.iter().map(|(loss, _)| loss))?;
        for (output, (loss, weight)) in self.outputs.iter_mut().zip(losses) {
            output.set_loss(loss, weight)?;
        }
        Ok(self)
    }

    /// Sets the optimizer's learning rate before every step from now on, by the number of steps done since [`compile`](Self::compile).
    /// A rate of zero counts as the smallest number above it. A callback that sets the rate is then refused, as in Keras.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for numbers that are not finite or below zero, or for boundaries that do not rise; [`Error::ZeroSize`] for
    /// no steps; [`Error::Shape`] for another number of rates than one more than boundaries.
    pub fn schedule(&mut self, schedule: Schedule) -> Result<&mut Self> {
        schedule.validate()?;
        self.schedule = Some(schedule);
        Ok(self)
    }

    /// What the loss is multiplied with before it is differentiated: `None` where it is not. A device that computes in f16
    /// (`backend::cuda::Compute::F16`) begins with the default scale, others with none.
    pub fn loss_scale(&self) -> Option<LossScale> {
        self.loss_scale
    }

    /// Sets it.
    pub fn set_loss_scale(&mut self, scale: Option<LossScale>) -> &mut Self {
        self.loss_scale = scale;
        self
    }

    /// What the model is, apart from its weights.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a layer that is none of this crate's.
    pub fn config(&self) -> Result<GraphConfig> {
        self.topology.config(&self.outputs.iter().map(|output| output.source).collect::<Vec<_>>())
    }

    /// Where it runs.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The element type that it computes in.
    pub fn dtype(&self) -> DType {
        self.device.dtype()
    }

    /// Sample shapes of the inputs. Any number of steps is that of the last call, 5040 before one; see [`input_axes`](Self::input_axes).
    pub fn input_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.topology.inputs.iter().map(|input| input.value.shape())
    }

    /// Sample shapes of the outputs, for inputs of these shapes; see [`output_axes`](Self::output_axes).
    pub fn output_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.outputs.iter().map(|output| output.value.shape())
    }

    /// Weights that training changes.
    pub fn count_params(&self) -> usize {
        self.network.builder.parameters
    }

    /// Forgets the states that stateful layers carry from batch to batch.
    pub fn reset_states(&mut self) {
        self.network.reset_states();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A model may be trained on another thread than it was made on.
    #[test]
    fn models_are_send() {
        fn is_send<T: Send>() {}
        is_send::<Model>();
        is_send::<crate::model::Sequential>();
        is_send::<crate::model::Graph>();
        is_send::<Box<dyn Layer>>();
        is_send::<Box<dyn Optimizer>>();
    }
}
