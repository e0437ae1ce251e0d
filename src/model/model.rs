//! Layers, weights and how to train them: [`Model`].

use std::sync::Arc;

use ndarray::{ArrayD, IxDyn};

use crate::backend::device::check_model_dtype;
use crate::backend::ops::{LossEntry, Workspace};
use crate::backend::{Device, Tensor, TensorMut, TensorRef, WeightGrad};
use crate::dtype::{DType, Element, Scalar};
use crate::error::{Error, Result};
use crate::loss::{Loss, LossFunction};
use crate::memory;
use crate::model::arrays::{AnyArray, Arrays, Data, Part, any, check_arrays, convert, download, read_as};
use crate::model::graph::{Graph, GraphConfig, GraphTensor, Source, Topology, check_connected};
use crate::model::host_loss::{self, HostLoss};
use crate::model::lengths::{Programs, check_any_length};
use crate::model::loss_advice::check_classes;
use crate::model::loss_scale::LossScale;
use crate::model::output::{Output, Status};
use crate::model::penalties::Penalties;
use crate::nn::network::{Network, Place};
use crate::nn::{Builder, Layer, Parameter, Scratch};
use crate::optim::{Adam, Optimizer, Schedule};
use crate::rnn::dropout::philox4x32;
use crate::rnn::shape::check_len;

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

    /// Sets how [`fit`](Self::fit) trains: every output by the same loss, of which the sum is made small: a [`Loss`], a
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

    /// Every weight tensor: name (`lstm.weight_ih_l0`), shape, and values in the host's memory
    /// ([`host::<f32>()`](TensorRef::host) gives the slice); those that training does not change by their gradient too.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[usize], TensorRef<'_>)> {
        self.network.tensors().map(|(layer, parameter)| {
            // The range is the builder's own; it lies in the tensor as soon as that is there.
            let values = self.network.place(parameter).host();
            let values = values.part(parameter.range.clone()).unwrap_or(values);
            (format!("{layer}.{}", parameter.name), parameter.shape.as_slice(), values)
        })
    }

    /// The elements of one weight tensor, named as [`weights`](Self::weights) does, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such tensor; [`Error::NonFinite`] for an `f64` beyond the range of `f32`, where
    /// that is asked for.
    pub fn weight<E: Scalar>(&self, name: &str) -> Result<Vec<E>> {
        let parameter = self.parameter(name)?;
        let values = self.network.place(parameter).host().part(parameter.range.clone())?;
        read_as(&self.device, name, &parameter.shape, values)
    }

    fn parameter(&self, name: &str) -> Result<&Parameter> {
        let found = self.network.tensors().find(|(layer, p)| {
            name.strip_prefix(*layer).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == p.name)
        });
        found.map(|(_, parameter)| parameter).ok_or_else(|| {
            let names: Vec<_> = self.weights().map(|(name, ..)| name).collect();
            Error::option("weight", format!("one of {}", names.join(", ")), name)
        })
    }

    /// Whether training changes a weight tensor by its gradient.
    pub fn is_trained(&self, name: &str) -> bool {
        self.parameter(name).is_ok_and(|parameter| parameter.trainable)
    }

    /// All weights that training changes, one after the other, in the order of [`weights`](Self::weights).
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] for an `f64` beyond the range of `f32`, where that is asked for.
    pub fn flat_weights<E: Scalar>(&self) -> Result<Vec<E>> {
        read_as(&self.device, "weights", &[self.count_params()], self.network.parameters.host())
    }

    /// Replaces all weights that training changes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `weights` has another length than [`flat_weights`](Self::flat_weights); [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32`.
    pub fn set_flat_weights<E: Scalar>(&mut self, weights: &[E]) -> Result<()> {
        check_len("weights", &[self.count_params()], weights.len())?;
        self.network
            .parameters
            .change(&self.device, |to| convert("weights", &[weights.len()], TensorRef::of(weights), to))
    }

    /// Replaces one weight tensor, named as [`weights`](Self::weights) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such tensor, or for a variance below zero; [`Error::Shape`] where it has another number
    /// of elements; [`Error::NonFinite`] for an `f64` beyond the range of the device's `f32`. The tensor then is as it was.
    pub fn set_weight<E: Scalar>(&mut self, name: &str, values: &[E]) -> Result<()> {
        let parameter = self.parameter(name)?.clone();
        let Parameter { range, shape, .. } = &parameter;
        check_len(name, shape, values.len())?;
        let layer = name.strip_suffix(&parameter.name).and_then(|layer| layer.strip_suffix('.')).unwrap_or(name);
        parameter.check(layer, TensorRef::of(values))?;
        let tensors = self.network.place_mut(Place::of(&parameter));
        // Passes may have changed statistics since.
        tensors.refresh(&self.device)?;
        tensors.change(&self.device, |to| convert(name, shape, TensorRef::of(values), to.part(range.clone())?))
    }

    /// The weights of the layer called `layer` as Keras's `layer.get_weights()` would give them; see
    /// [`import_layer`](crate::interop::keras::import_layer).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer, [`Error::Unsupported`] where Keras has none.
    pub fn keras_weights<E: Scalar>(&self, layer: &str) -> Result<Vec<ArrayD<E>>> {
        let config = self.layer_config(layer)?;
        let mut arrays = Vec::new();
        for (_, parameter) in self.network.tensors().filter(|(name, _)| *name == layer) {
            let values = self.network.place(parameter).host().part(parameter.range.clone())?;
            let values = read_as(&self.device, &parameter.name, &parameter.shape, values)?;
            let array = ArrayD::from_shape_vec(IxDyn(&parameter.shape), values);
            arrays.push(array.map_err(|e| Error::shape(&parameter.name, "its own shape", e.to_string()))?);
        }
        crate::interop::keras::export_layer(&config, &arrays)
    }

    /// Gives the layer called `layer` the weights that Keras's `layer.get_weights()` has given.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer, or for a variance below zero; [`Error::Unsupported`] where Keras has none;
    /// [`Error::Shape`] where the arrays are not those of such a layer; [`Error::NonFinite`] for an `f64` beyond the range of the device's `f32`.
    pub fn set_keras_weights<E: Scalar>(&mut self, layer: &str, weights: &[ArrayD<E>]) -> Result<()> {
        let arrays = crate::interop::keras::import_layer(&self.layer_config(layer)?, weights)?;
        let tensors = self.network.tensors().filter(|(name, _)| *name == layer);
        let names: Vec<_> = tensors.map(|(layer, p)| (format!("{layer}.{}", p.name), p.shape.clone())).collect();
        if arrays.len() != names.len() {
            return Err(Error::shape(layer, format!("{} weights", names.len()), arrays.len().to_string()));
        }
        // All of them first, so that a wrong one leaves the weights as they were.
        for (array, (name, shape)) in arrays.iter().zip(&names) {
            if array.shape() != shape.as_slice() {
                return Err(Error::shape(name, format!("{shape:?}"), format!("{:?}", array.shape())));
            }
        }
        for (array, (name, _)) in arrays.iter().zip(&names) {
            self.set_weight(name, &array.iter().copied().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Whether the layer called `layer` has weights.
    #[cfg(feature = "exchange")]
    pub(crate) fn has_weights(&self, layer: &str) -> bool {
        self.network.tensors().any(|(name, _)| name == layer)
    }

    /// The tensor that a source names.
    #[cfg(feature = "exchange")]
    pub(crate) fn tensor(&self, source: Source) -> Option<GraphTensor> {
        self.topology.tensor(source)
    }

    /// Gives layers new tensors, all or none.
    #[cfg(feature = "exchange")]
    pub(crate) fn set_layer_tensors(&mut self, layers: &[(String, Vec<ArrayD<f64>>)]) -> Result<()> {
        let mut tensors = std::collections::HashMap::new();
        for (name, given) in layers {
            if let Some(built) = self.network.builder.layers.iter().find(|built| built.name == *name) {
                tensors.extend(named_tensors(built, given.clone())?);
            }
        }
        for (name, array) in tensors {
            self.set_weight(&name, &array.iter().copied().collect::<Vec<_>>())?;
        }
        Ok(())
    }

    fn layer_config(&self, layer: &str) -> Result<crate::nn::LayerConfig> {
        let Some(named) = self.topology.layers.iter().find(|named| named.name == layer) else {
            let names: Vec<_> = self.topology.layers.iter().map(|named| named.name.as_str()).collect();
            return Err(Error::option("layer", format!("one of {}", names.join(", ")), layer));
        };
        let foreign =
            || Error::unsupported(format!("Keras's weights for {layer}"), "it is none of this crate's layers");
        named.layer.config().ok_or_else(foreign)
    }

    /// Forgets the states that stateful layers carry from batch to batch.
    pub fn reset_states(&mut self) {
        self.network.reset_states();
    }

    /// The output for each sample of `x` `[samples, input shape…]`: `[samples, output shape…]`, in the type of `x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] for a model with several outputs, or where the device cannot
    /// do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict<'a, A: Arrays<'a>>(&mut self, x: A) -> Result<ArrayD<A::Elem>> {
        let mut outputs = self.predict_all(x)?;
        match outputs.len() {
            1 => Ok(outputs.remove(0)),
            n => Err(Error::unsupported(format!("one array for {n} outputs"), "call predict_all")),
        }
    }

    /// All outputs for each sample.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn predict_all<'a, A: Arrays<'a>>(&mut self, x: A) -> Result<Vec<ArrayD<A::Elem>>> {
        let data = self.check_data("", any(x), None)?;
        let mut outputs = Vec::new();
        for output in &self.outputs {
            outputs.push(memory::filled::<A::Elem>(
                "output",
                data.samples * output.value.size(),
                num_traits::Zero::zero(),
            )?);
        }
        self.predict_to(&data, outputs.iter_mut().map(|values| TensorMut::of(values)).collect())?;
        let array = |(output, values): (&Output, Vec<A::Elem>)| {
            let shape = with_samples(data.samples, output.value.shape());
            ArrayD::from_shape_vec(IxDyn(&shape), values)
                .map_err(|e| Error::shape("output", format!("{shape:?}"), e.to_string()))
        };
        self.outputs.iter().zip(outputs).map(array).collect()
    }

    fn predict_to(&mut self, data: &Data<'_>, mut to: Vec<TensorMut<'_>>) -> Result<()> {
        let most = self.prediction_batch(data.samples)?;
        self.allocate(most, false)?;
        let Model { device, topology, network, outputs, .. } = self;
        for first in (0..data.samples).step_by(most) {
            let batch = most.min(data.samples - first);
            let samples = first..first + batch;
            for (input, x) in topology.inputs.iter().zip(data.part(samples)?.x) {
                device.upload_tensor(x, network.value_mut(&input.value, batch)?)?;
            }
            network.forward(device, batch, false, 0)?;
            for (output, to) in outputs.iter().zip(&mut to) {
                let size = output.value.size();
                let to = to.reborrow().part(first * size..(first + batch) * size)?;
                let shape = with_samples(batch, output.value.shape());
                download(device, "output", &shape, network.value(&output.value, batch)?, to)?;
            }
        }
        network.check(device)
    }

    /// The loss of a batch and its gradient by all weights, laid out as [`flat_weights`](Self::flat_weights), in the type of `x`; weights
    /// stay.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn loss_gradient<'a, A: Arrays<'a>>(&mut self, x: A, y: impl Arrays<'a>) -> Result<(f64, Vec<A::Elem>)> {
        let loss = self.differentiate(any(x), any(y), false)?;
        let gradients = self.network.gradients.get();
        Ok((loss, read_as(&self.device, "gradient", &[gradients.len()], gradients)?))
    }

    /// The loss of a batch and its gradient by each input, in the type of `x`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for a number
    /// beyond the range of the type it is converted to; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn input_gradients<'a, A: Arrays<'a>>(
        &mut self,
        x: A,
        y: impl Arrays<'a>,
    ) -> Result<(f64, Vec<ArrayD<A::Elem>>)> {
        let x = any(x);
        let shapes: Vec<Vec<usize>> = x.iter().map(|x| x.shape().to_vec()).collect();
        let loss = self.differentiate(x, any(y), true)?;
        let factor = A::Elem::of(1.0 / self.scale());
        let mut gradients = Vec::new();
        for (shape, input) in shapes.iter().zip(&self.topology.inputs) {
            let gradient = self.network.gradient(&input.value, shape.first().copied().unwrap_or(0))?;
            let mut gradient: Vec<A::Elem> = read_as(&self.device, "gradient", shape, gradient)?;
            gradient.iter_mut().for_each(|g| *g *= factor);
            gradients.push(
                ArrayD::from_shape_vec(IxDyn(shape), gradient)
                    .map_err(|e| Error::shape("gradient", format!("{shape:?}"), e.to_string()))?,
            );
        }
        Ok((loss, gradients))
    }

    fn differentiate(&mut self, x: Vec<AnyArray<'_>>, y: Vec<AnyArray<'_>>, of_inputs: bool) -> Result<f64> {
        let data = self.check_data("", x, Some(y))?;
        self.allocate(data.samples, true)?;
        self.place_part(&data.part(0..data.samples)?)?;
        self.status.clear(&self.device)?;
        let seed = self.step_seed();
        self.run_training(data.samples, LossEntry { weight: 1.0, code: 1 }, false, seed, of_inputs)?;
        self.network.check(&self.device)?;
        Ok(self.status.read(&self.device)?.total)
    }

    /// Puts samples where the passes read them; there must be room. Says whether they have weights.
    pub(super) fn place_part(&mut self, part: &Part<'_>) -> Result<bool> {
        let Model { device, topology, network, outputs, .. } = self;
        for (input, x) in topology.inputs.iter().zip(&part.x) {
            device.upload_tensor(*x, network.value_mut(&input.value, part.samples)?)?;
        }
        for (output, y) in outputs.iter_mut().zip(&part.y) {
            device.upload_tensor(*y, output.targets.get_mut(y.len())?)?;
        }
        for (output, weights) in outputs.iter_mut().zip(&part.weights) {
            output.sample_weights.grow(device, "weights of rows", weights.len())?;
            device.upload_tensor(*weights, output.sample_weights.get_mut(weights.len())?)?;
        }
        Ok(!part.weights.is_empty())
    }

    /// Checks arrays against the model, and converts them to its device's type; inputs of any length are as long as these arrays from here
    /// on. `prefix` names them in errors: `"validation "`, or nothing.
    pub(super) fn check_data<'a>(
        &mut self,
        prefix: &str,
        x: Vec<AnyArray<'a>>,
        y: Option<Vec<AnyArray<'a>>>,
    ) -> Result<Data<'a>> {
        if self.topology.layers.is_empty() || self.outputs.is_empty() {
            return Err(Error::Presence {
                tensor: "layers".to_owned(),
                problem: "the model has none; add one first".to_owned(),
            });
        }
        let lengths = self.lengths_of(prefix, &x)?;
        self.take_lengths(&lengths)?;
        let inputs = self.topology.inputs.iter().map(|input| (input.name.as_str(), input.value.shape()));
        let inputs: Vec<_> = inputs.collect();
        let (samples, x) = check_arrays(&format!("{prefix}x"), "the model's input shape", x, &inputs, self.dtype())?;
        let y = match y {
            None => Vec::new(),
            Some(y) => {
                let name = |output: &Output| self.topology.name_of(output.source);
                self.outputs.iter().try_for_each(|output| output.check_mask(name(output)))?;
                let shapes = self.outputs.iter().map(|o| Ok((name(o), o.target_shape()?)));
                let shapes: Vec<_> = shapes.collect::<Result<_>>()?;
                // Who has never compiled the model does not know of its loss.
                let is_default =
                    |output: &Output| matches!(output.loss, LossFunction::BuiltIn(loss) if loss == Loss::default());
                let what = match self.outputs.iter().all(is_default) {
                    true => {
                        "the shape of the model's targets by its loss, the mean squared error unless `compile` gives another"
                    }
                    false => "the shape of the model's targets",
                };
                let tensor = format!("{prefix}y");
                let (targets, y) = check_arrays(&tensor, what, y, &shapes, self.dtype())?;
                if samples != targets {
                    return Err(Error::shape(
                        tensor,
                        format!("{samples} samples, as {prefix}x has"),
                        format!("{targets} samples"),
                    ));
                }
                for (output, y) in self.outputs.iter().zip(&y) {
                    check_targets(&tensor, output, y)?;
                }
                y
            }
        };
        Ok(Data { samples, lengths, x, y, weights: Vec::new() })
    }

    /// Makes the buffers large enough for `batch` samples.
    pub(super) fn allocate(&mut self, batch: usize, training: bool) -> Result<()> {
        self.allocate_penalties(batch, training)?;
        let device = &self.device;
        self.network.allocate(device, batch, training)?;
        let scratch = [Workspace::Loss, Workspace::SumOfSquares].map(|call| device.workspace(call));
        self.workspace.grow(device, "workspace", scratch[0].max(scratch[1]))?;
        for output in &mut self.outputs {
            output.targets.grow(device, "targets", batch * output.target_size()?)?;
            if output.mask().is_some() {
                output.mask_weights.grow(device, "weights of rows", batch * output.rows())?;
                output.row_weights.grow(device, "weights of rows", batch * output.rows())?;
                output.valid.grow(device, "mean of a mask", 1)?;
            }
        }
        if training {
            let weights = self.network.builder.parameters;
            for index in self.states.len()..self.optimizer.states() {
                let mut state = device.allocate("optimizer's memory", weights)?;
                let initial = self.optimizer.initial(index);
                if initial != 0.0 {
                    device.fill(state.view_mut(), initial)?;
                }
                self.states.push(state);
            }
        }
        Ok(())
    }

    /// What the random numbers of the next step come from.
    pub(super) fn step_seed(&self) -> u64 {
        let step = self.batches_trained;
        // The third word keeps clear of the streams of weights and of orders of samples, the last of dropout's layers.
        let bits = philox4x32([step as u32, (step >> 32) as u32, u32::MAX, u32::MAX], self.seed);
        u64::from(bits[0]) | u64::from(bits[1]) << 32
    }

    /// What a loss is multiplied with before it is differentiated.
    pub(super) fn scale(&self) -> f64 {
        self.loss_scale.map_or(1.0, |scale| scale.scale())
    }

    /// The losses of a batch whose outputs and targets are there, into the status; with `gradients` their gradients too, times the scale.
    pub(super) fn run_losses(&mut self, batch: usize, entry: LossEntry, weighted: bool, gradients: bool) -> Result<()> {
        let scale = self.scale();
        let Model { device, network, outputs, status, workspace, .. } = self;
        let device = &*device;
        for output in outputs {
            let (columns, rows, loss, factor) =
                (output.columns(), output.rows(), output.built_in(), output.loss_weight);
            let len = batch * rows;
            if let Some(mask) = output.value.mask().filter(|mask| mask.size() == rows && !output.is_by_sample()) {
                // As Keras has it: a mean over the valid rows.
                let mask = network.value(mask, batch)?;
                let sizes = [1, len, 1];
                workspace.grow(device, "workspace", device.workspace(Workspace::SumAxis(sizes)))?;
                let valid = output.valid.get_mut(1)?;
                device.sum_axis(sizes, 1.0 / len as f64, mask, valid, WeightGrad::Set, workspace.all()?)?;
                device.scale_rows(output.valid.get(1)?, true, mask, output.mask_weights.get_mut(len)?)?;
                if weighted {
                    let (of_mask, given) = (output.mask_weights.get(len)?, output.sample_weights.get(len)?);
                    device.multiply(of_mask, given, output.row_weights.get_mut(len)?)?;
                }
            }
            let weights = output.weights(batch, weighted)?;
            let targets = output.targets.get(batch * output.target_size()?)?;
            let entry = LossEntry { weight: entry.weight * factor, ..entry };
            if let Some(loss) = output.loss_is_on_host(device) {
                let mask = output.value.mask().filter(|mask| mask.size() == rows && output.is_by_sample());
                let mask = mask.map(|mask| network.value(mask, batch)).transpose()?;
                let mask = mask.map(|mask| host_loss::read(device, mask)).transpose()?;
                let of = HostLoss { loss, samples: batch, rows, columns, targets, weights, mask, entry };
                let status = status.get_mut();
                if gradients {
                    network.give_gradient(device, &output.value, batch, |y, mut dy| {
                        of.run(device, y, Some(dy.reborrow()), status)?;
                        let factor = factor * scale;
                        if factor == 1.0 { Ok(()) } else { device.scale(factor, dy) }
                    })?;
                } else {
                    of.run(device, network.value(&output.value, batch)?, None, status)?;
                }
                continue;
            }
            let (workspace, status) = (workspace.all()?, status.get_mut());
            if gradients {
                network.give_gradient(device, &output.value, batch, |y, mut dy| {
                    let gradient = Some(dy.reborrow());
                    device.loss(loss, columns, targets, y, weights, gradient, entry, status, workspace)?;
                    let factor = factor * scale;
                    if factor == 1.0 { Ok(()) } else { device.scale(factor, dy) }
                })?;
            } else {
                let y = network.value(&output.value, batch)?;
                device.loss(loss, columns, targets, y, weights, None, entry, status, workspace)?;
            }
        }
        Ok(())
    }

    /// Loss and gradients of a batch whose inputs and targets are there; those of values between layers are still scaled. Where the loss
    /// is not finite and the host knows, the gradients are not computed; [`Status::read`] tells.
    pub(super) fn run_training(
        &mut self,
        batch: usize,
        entry: LossEntry,
        weighted: bool,
        seed: u64,
        of_inputs: bool,
    ) -> Result<()> {
        self.network.forward(&self.device, batch, true, seed)?;
        self.network.start_backward();
        self.run_losses(batch, entry, weighted, true)?;
        self.run_output_penalties(batch, entry, true)?;
        if self.status.is_on_host() && self.status.read(&self.device)?.bad_loss.is_some() {
            return Ok(());
        }
        self.network.backward(&self.device, batch, seed, of_inputs)?;
        match self.scale() {
            1.0 => {}
            scale => self.device.scale(1.0 / scale, self.network.gradients.get_mut())?,
        }
        self.run_weight_penalties(entry, true)
    }
}

/// The tensors of a layer with their full names, checked against what it needs.
#[cfg(feature = "exchange")]
pub(super) fn named_tensors(
    built: &crate::nn::builder::LayerWeights,
    given: Vec<ArrayD<f64>>,
) -> Result<Vec<(String, ArrayD<f64>)>> {
    if given.len() != built.parameters.len() {
        let names: Vec<_> = built.parameters.iter().map(|p| format!("{} {:?}", p.name, p.shape)).collect();
        return Err(Error::shape(
            &built.name,
            format!("{} tensors: {}", names.len(), names.join(", ")),
            given.len().to_string(),
        ));
    }
    let mut tensors = Vec::new();
    for (parameter, array) in built.parameters.iter().zip(given) {
        let name = format!("{}.{}", built.name, parameter.name);
        if array.shape() != parameter.shape.as_slice() {
            return Err(Error::shape(name, format!("shape {:?}", parameter.shape), format!("{:?}", array.shape())));
        }
        tensors.push((name, array));
    }
    Ok(tensors)
}

/// The elements of one of these tensors, in the type of `to`.
#[cfg(feature = "exchange")]
pub(super) fn copy_tensor(
    tensors: &std::collections::HashMap<String, ArrayD<f64>>,
    name: &str,
    to: TensorMut<'_>,
) -> Result<()> {
    let Some(array) = tensors.get(name) else {
        return Err(Error::Presence { tensor: name.to_owned(), problem: "it was not given".to_owned() });
    };
    let values: Vec<f64> = array.iter().copied().collect();
    convert(name, array.shape(), TensorRef::of(&values), to)
}

/// Whether a loss takes such targets, where that is known without computing it: before training, which says which sample of all it is.
fn check_targets(tensor: &str, output: &Output, y: &AnyArray<'_>) -> Result<()> {
    fn first<E: Scalar>(loss: crate::loss::Loss, columns: usize, values: &[E]) -> Option<(usize, f64, String)> {
        let refused = |v: f64| loss.refuses(v).map(str::to_owned).or_else(|| loss.refuses_class(columns, v));
        values.iter().enumerate().find_map(|(i, v)| refused(v.wide()).map(|expected| (i, v.wide(), expected)))
    }
    fn own<E: Scalar>(loss: &LossFunction, shape: &[usize], in_sample: usize, values: &[E]) -> Result<()> {
        let mut sample = Vec::new();
        for (i, values) in values.chunks_exact(in_sample).enumerate() {
            sample.clear();
            sample.extend(values.iter().map(|v| v.wide()));
            loss.check_targets(&sample, shape).map_err(|error| error.of_option(&format!(" of sample {i}")))?;
        }
        Ok(())
    }
    let (loss, values) = (&output.loss, y.values());
    let in_sample = (values.len() / y.shape().first().copied().unwrap_or(1).max(1)).max(1);
    let Some(built_in) = loss.built_in() else {
        let shape = output.value.shape();
        let checked = match values.dtype() {
            DType::F64 => own::<f64>(loss, shape, in_sample, values.host()?),
            _ => own::<f32>(loss, shape, in_sample, values.host()?),
        };
        return checked.map_err(|error| error.of_option(&format!(" of {tensor} (targets of {})", loss.name())));
    };
    if !built_in.has_bounded_targets() {
        return Ok(());
    }
    let bad = match values.dtype() {
        DType::F64 => first::<f64>(built_in, output.columns(), values.host()?),
        _ => first::<f32>(built_in, output.columns(), values.host()?),
    };
    let Some((i, value, expected)) = bad else { return Ok(()) };
    Err(Error::option(format!("{tensor}, sample {} (targets of {})", i / in_sample, built_in.name()), expected, value))
}

/// A shape with the samples in front.
fn with_samples(samples: usize, shape: &[usize]) -> Vec<usize> {
    std::iter::once(samples).chain(shape.iter().copied()).collect()
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
