//! Layers, weights and how to train them: [`Model`].

use std::borrow::BorrowMut;
use std::rc::Rc;

use ndarray::{ArrayD, ArrayViewD, IxDyn};

use crate::backend::dense::{DenseCall, LossEntry};
use crate::backend::{DenseBackend, WeightGrad};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::model::arrays::{Arrays, Data, check_arrays, flat};
use crate::model::graph::{GraphConfig, Source, Tensor, Topology};
use crate::model::loss_scale::LossScale;
use crate::model::output::{Output, Record};
use crate::nn::network::{Mirrored, Network};
use crate::nn::{Builder, Layer, Loss, Scratch, grow};
use crate::optim::{Adam, Optimizer, Schedule, State};
use crate::rnn::dropout::philox4x32;

/// A model on one backend: Keras's [`Model`](https://keras.io/api/models/model/), made by a [`Graph`](crate::model::Graph) or a
/// [`Sequential`](crate::model::Sequential).
///
/// Weights, activations, gradients and the optimizer's memory stand where the backend computes; arrays go in and come out on the
/// host. On a device [`flat_weights`](Self::flat_weights) and [`weights`](Self::weights) show a copy, which whatever changes the
/// weights brings up to date.
///
/// Everything random comes from the seed the model is made with: the same seed, data and options give the same bits.
/// Until [`compile`](Self::compile) says otherwise, training uses [`Adam`] with its defaults on the mean squared error.
pub struct Model<E: Scalar, B: DenseBackend<Elem = E>> {
    pub(super) backend: B,
    pub(super) topology: Topology<B>,
    pub(super) network: Network<B>,
    pub(super) outputs: Vec<Output<B>>,
    pub(super) optimizer: Box<dyn Optimizer<B>>,
    pub(super) metrics: Vec<crate::metrics::Metric>,
    /// What the optimizer remembers, and the steps it has done.
    pub(super) states: Vec<State<B>>,
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
    pub(super) workspace: Scratch<B>,
    pub(super) record: Record<B>,
}

/// Samples of one batch of [`Model::predict`] and [`Model::evaluate`].
const INFERENCE_BATCH: usize = 128;

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Model<E, B>
where
    B::Plan: 'static,
{
    /// A model of what has been built, without weights yet.
    pub(super) fn from_parts(
        backend: B,
        builder: Builder<B>,
        topology: Topology<B>,
        outputs: &[Source],
        seed: u64,
    ) -> Result<Self> {
        backend.prepare_dense()?;
        let output = |source: &Source| match topology.tensor(*source) {
            Some(tensor) => Ok(Output::new(*source, tensor.value)),
            None => Err(Error::option("outputs", "tensors of the model", format!("{source:?}"))),
        };
        Ok(Model {
            outputs: outputs.iter().map(output).collect::<Result<_>>()?,
            network: Network::new(&backend, builder)?,
            topology,
            optimizer: Box::new(Adam::default()),
            metrics: Vec::new(),
            states: Vec::new(),
            steps: 0,
            seed,
            epochs_trained: 0,
            batches_trained: 0,
            schedule: None,
            loss_scale: backend.needs_loss_scale().then(LossScale::default),
            workspace: Scratch::new(),
            record: Record::new(&backend)?,
            backend,
        })
    }

    /// Draws the weights of layers that have none yet.
    pub(super) fn initialize(&mut self) -> Result<()> {
        self.network.initialize(&self.backend, self.seed)?;
        self.forget();
        Ok(())
    }

    /// Takes as many weights as the layers have.
    pub(super) fn replace_weights(&mut self, parameters: Vec<E>, statistics: Vec<E>) -> Result<()> {
        self.network.parameters = Mirrored::new(&self.backend, "weights", parameters)?;
        self.network.statistics = Mirrored::new(&self.backend, "statistics", statistics)?;
        self.forget();
        Ok(())
    }

    /// Puts a layer on top of the only output, or of the only input.
    pub(super) fn stack(&mut self, layer: Rc<dyn Layer<B>>) -> Result<()> {
        let below = self.outputs.first().map_or(Source::Input(0), |output| output.source);
        let Some(below) = self.topology.tensor(below) else {
            return Err(Error::Presence { tensor: "input".to_owned(), problem: "the model has none".to_owned() });
        };
        let builder = &mut self.network.builder;
        let index = self.topology.layer(builder, layer, None)?;
        let built = self.topology.call(builder, index, &[&below]);
        let outputs = match built {
            Ok(outputs) => outputs,
            Err(error) => {
                // A layer that cannot be there leaves the model as it was.
                self.topology.layers.pop();
                builder.forget_layer();
                return Err(error);
            }
        };
        let [output] = &outputs[..] else {
            return Err(Error::shape(
                &self.topology.layers[index].name,
                "one output, since it stands in a stack",
                format!("{} outputs; use a graph", outputs.len()),
            ));
        };
        let Tensor { source, value } = output.clone();
        let loss = self.outputs.first().map_or(Loss::default(), |output| output.loss);
        self.outputs = vec![Output { loss, ..Output::new(source, value) }];
        self.initialize()
    }

    /// The optimizer starts anew, and so does the scale of losses.
    pub(super) fn forget(&mut self) {
        self.states.clear();
        self.steps = 0;
        if let Some(scale) = &mut self.loss_scale {
            scale.forget();
        }
    }

    /// Sets how [`fit`](Self::fit) trains: every output by the same loss, of which the sum is made small. The optimizer starts without
    /// memory of earlier steps, and with the learning rate it has.
    pub fn compile(&mut self, optimizer: impl Optimizer<B> + 'static, loss: Loss) -> &mut Self {
        self.optimizer = Box::new(optimizer);
        self.schedule = None;
        self.outputs.iter_mut().for_each(|output| (output.loss, output.loss_weight) = (loss, 1.0));
        self.forget();
        self
    }

    /// Sets the loss of each output, and what it counts in the sum that is made small: Keras's `loss_weights`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] for another number of losses than outputs; [`Error::InvalidOption`] for a weight that is not finite.
    pub fn losses(&mut self, losses: &[(Loss, f64)]) -> Result<&mut Self> {
        if losses.len() != self.outputs.len() {
            return Err(Error::shape(
                "losses",
                format!("{}, one an output", self.outputs.len()),
                losses.len().to_string(),
            ));
        }
        for (output, (loss, weight)) in self.outputs.iter_mut().zip(losses) {
            if !weight.is_finite() {
                return Err(Error::option("weight of a loss", "a finite number", weight));
            }
            (output.loss, output.loss_weight) = (*loss, *weight);
        }
        Ok(self)
    }

    /// Sets the optimizer's learning rate before every step from now on, by the number of steps done since [`compile`](Self::compile).
    /// A rate of zero counts as the smallest number above it.
    ///
    /// # Errors
    ///
    /// Those of [`Schedule::validate`].
    pub fn schedule(&mut self, schedule: Schedule) -> Result<&mut Self> {
        schedule.validate()?;
        self.schedule = Some(schedule);
        Ok(self)
    }

    /// What the loss is multiplied with before it is differentiated: `None` where it is not. A backend that computes in f16
    /// ([`Compute::F16`](crate::backend::cuda::Compute::F16)) begins with the default scale, others with none.
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

    /// Sample shapes of the inputs.
    pub fn input_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.topology.inputs.iter().map(|(_, value)| value.shape())
    }

    /// Sample shapes of the outputs.
    pub fn output_shapes(&self) -> impl Iterator<Item = &[usize]> {
        self.outputs.iter().map(|output| output.value.shape())
    }

    /// Weights that training changes.
    pub fn count_params(&self) -> usize {
        self.network.builder.parameters
    }

    /// Every weight tensor: name (`lstm.weight_ih_l0`), shape, values; those that training does not change by their gradient too.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[usize], &[E])> {
        self.network.tensors().map(|(layer, p)| {
            let tensors = if p.trainable { &self.network.parameters } else { &self.network.statistics };
            (format!("{layer}.{}", p.name), p.shape.as_slice(), &tensors.host()[p.range.clone()])
        })
    }

    /// Whether training changes a weight tensor by its gradient.
    pub fn is_trained(&self, name: &str) -> bool {
        self.network.tensors().any(|(layer, p)| p.trainable && format!("{layer}.{}", p.name) == name)
    }

    /// All weights that training changes as one flat slice, in the order of [`weights`](Self::weights).
    pub fn flat_weights(&self) -> &[E] {
        self.network.parameters.host()
    }

    /// Replaces all weights that training changes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `weights` has another length than [`flat_weights`](Self::flat_weights).
    pub fn set_flat_weights(&mut self, weights: &[E]) -> Result<()> {
        crate::rnn::shape::check_len("weights", &[self.count_params()], weights.len())?;
        self.network.parameters.set(&self.backend, weights)
    }

    /// Replaces one weight tensor, named as [`weights`](Self::weights) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such tensor, [`Error::Shape`] where it has another number of elements.
    pub fn set_weight(&mut self, name: &str, values: &[E]) -> Result<()> {
        let found = self.network.tensors().find(|(layer, p)| {
            name.strip_prefix(*layer).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == p.name)
        });
        let Some((_, parameter)) = found else {
            let names: Vec<_> = self.weights().map(|(name, ..)| name).collect();
            return Err(Error::option("weight", format!("one of {}", names.join(", ")), name));
        };
        crate::rnn::shape::check_len(name, &parameter.shape, values.len())?;
        let (range, trainable) = (parameter.range.clone(), parameter.trainable);
        let tensors = if trainable { &mut self.network.parameters } else { &mut self.network.statistics };
        self.backend.upload(values, &mut *self.backend.view_mut(tensors.get_mut(), range)?)?;
        tensors.refresh(&self.backend)
    }

    /// The weights of the layer called `layer` as Keras's `layer.get_weights()` would give them; see
    /// [`import_layer`](crate::interop::keras::import_layer).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer, [`Error::Unsupported`] where Keras has none.
    pub fn keras_weights(&self, layer: &str) -> Result<Vec<ArrayD<E>>> {
        let config = self.layer_config(layer)?;
        let mut arrays = Vec::new();
        for (_, parameter) in self.network.tensors().filter(|(name, _)| *name == layer) {
            let tensors = if parameter.trainable { &self.network.parameters } else { &self.network.statistics };
            let values = tensors.host()[parameter.range.clone()].to_vec();
            let array = ArrayD::from_shape_vec(IxDyn(&parameter.shape), values);
            arrays.push(array.map_err(|e| Error::shape(&parameter.name, "its own shape", e.to_string()))?);
        }
        crate::interop::keras::export_layer(&config, &arrays)
    }

    /// Gives the layer called `layer` the weights that Keras's `layer.get_weights()` has given.
    ///
    /// # Errors
    ///
    /// Those of [`keras_weights`](Self::keras_weights); [`Error::Shape`] where the arrays are not those of such a layer.
    pub fn set_keras_weights(&mut self, layer: &str, weights: &[ArrayD<E>]) -> Result<()> {
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

    /// The output for each sample of `x` `[samples, input shape…]`: `[samples, output shape…]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::ZeroSize`] without samples, and those of the backend; [`Error::Unsupported`] for a model with several
    /// outputs.
    pub fn predict<'a>(&mut self, x: impl Arrays<'a, E>) -> Result<ArrayD<E>> {
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
    /// Those of [`predict`](Self::predict).
    pub fn predict_all<'a>(&mut self, x: impl Arrays<'a, E>) -> Result<Vec<ArrayD<E>>> {
        let data = self.check_data("", x.arrays(), None)?;
        let samples = data.samples;
        let most = self.inference_batch(samples);
        self.allocate(most, false)?;
        let mut outputs = Vec::new();
        for output in &self.outputs {
            let mut values = Vec::new();
            grow(&mut values, samples * output.value.size(), "output")?;
            outputs.push(values);
        }
        for first in (0..samples).step_by(most) {
            let batch = most.min(samples - first);
            for (index, x) in data.x.iter().enumerate() {
                let (value, x) = (self.topology.inputs[index].1.clone(), flat("x", x)?);
                let x = &x[first * value.size()..][..batch * value.size()];
                self.backend.upload(x, &mut *self.network.value_mut(&self.backend, &value, batch)?)?;
            }
            self.network.forward(&self.backend, batch, false, 0)?;
            for (output, to) in self.outputs.iter().zip(&mut outputs) {
                let to = &mut to[first * output.value.size()..][..batch * output.value.size()];
                self.backend.download(&*self.network.value(&self.backend, &output.value, batch)?, to)?;
            }
        }
        self.network.check(&self.backend)?;
        let array = |(output, values): (&Output<B>, Vec<E>)| {
            let shape: Vec<usize> = std::iter::once(samples).chain(output.value.shape().iter().copied()).collect();
            ArrayD::from_shape_vec(IxDyn(&shape), values)
                .map_err(|e| Error::shape("output", format!("{shape:?}"), e.to_string()))
        };
        self.outputs.iter().zip(outputs).map(array).collect()
    }

    /// Samples of a batch without training. What goes on from batch to batch takes all at once.
    pub(super) fn inference_batch(&self, samples: usize) -> usize {
        if self.network.is_stateful() { samples } else { samples.min(INFERENCE_BATCH) }
    }

    /// The loss of a batch and its gradient by all weights, laid out as [`flat_weights`](Self::flat_weights); weights stay.
    ///
    /// # Errors
    ///
    /// Those of [`evaluate`](Self::evaluate).
    pub fn loss_gradient<'a>(&mut self, x: impl Arrays<'a, E>, y: impl Arrays<'a, E>) -> Result<(f64, &[E])> {
        let loss = self.differentiate(x.arrays(), y.arrays(), false)?;
        self.network.gradients.refresh(&self.backend)?;
        Ok((loss, self.network.gradients.host()))
    }

    /// The loss of a batch and its gradient by each input.
    ///
    /// # Errors
    ///
    /// Those of [`evaluate`](Self::evaluate).
    pub fn input_gradients<'a>(
        &mut self,
        x: impl Arrays<'a, E>,
        y: impl Arrays<'a, E>,
    ) -> Result<(f64, Vec<ArrayD<E>>)> {
        let x = x.arrays();
        let shapes: Vec<Vec<usize>> = x.iter().map(|x| x.shape().to_vec()).collect();
        let loss = self.differentiate(x, y.arrays(), true)?;
        let mut gradients = Vec::new();
        for (shape, (_, value)) in shapes.iter().zip(&self.topology.inputs) {
            let mut gradient = vec![E::zero(); shape.iter().product()];
            self.backend.download(&*self.network.gradient(&self.backend, value, shape[0])?, &mut gradient)?;
            let factor = E::of(1.0 / self.scale());
            gradient.iter_mut().for_each(|g| *g *= factor);
            gradients.push(
                ArrayD::from_shape_vec(IxDyn(shape), gradient)
                    .map_err(|e| Error::shape("gradient", format!("{shape:?}"), e.to_string()))?,
            );
        }
        Ok((loss, gradients))
    }

    fn differentiate(&mut self, x: Vec<ArrayViewD<'_, E>>, y: Vec<ArrayViewD<'_, E>>, inputs: bool) -> Result<f64> {
        let data = self.check_data("", x, Some(y))?;
        self.allocate(data.samples, true)?;
        for (index, x) in data.x.iter().enumerate() {
            let value = self.topology.inputs[index].1.clone();
            let mut to = self.network.value_mut(&self.backend, &value, data.samples)?;
            self.backend.upload(flat("x", x)?, &mut to)?;
        }
        for (output, y) in self.outputs.iter_mut().zip(&data.y) {
            let y = flat("y", y)?;
            self.backend.upload(y, &mut *output.targets.get_mut(&self.backend, y.len())?)?;
        }
        self.record.clear(&self.backend)?;
        let seed = self.step_seed();
        self.run_training(data.samples, LossEntry { weight: 1.0, code: 1 }, false, seed, inputs)?;
        self.network.check(&self.backend)?;
        Ok(self.record.read(&self.backend)?.total)
    }

    /// Checks arrays against the model. `prefix` names them in errors: `"validation "`, or nothing.
    pub(super) fn check_data<'a>(
        &self,
        prefix: &str,
        x: Vec<ArrayViewD<'a, E>>,
        y: Option<Vec<ArrayViewD<'a, E>>>,
    ) -> Result<Data<'a, E>> {
        if self.topology.layers.is_empty() || self.outputs.is_empty() {
            return Err(Error::Presence {
                tensor: "layers".to_owned(),
                problem: "the model has none; add one first".to_owned(),
            });
        }
        let inputs: Vec<_> = self.topology.inputs.iter().map(|(name, value)| (name.as_str(), value.shape())).collect();
        let (samples, x) = check_arrays(&format!("{prefix}x"), "the model's input shape", x, &inputs)?;
        let y = match y {
            None => Vec::new(),
            Some(y) => {
                let name = |output: &Output<B>| self.topology.name_of(output.source);
                let shapes: Vec<_> = self.outputs.iter().map(|o| (name(o), o.target_shape())).collect();
                let (targets, y) = check_arrays(&format!("{prefix}y"), "the model's output shape", y, &shapes)?;
                if samples != targets {
                    return Err(Error::shape(
                        format!("{prefix}y"),
                        format!("{samples} samples, as {prefix}x has"),
                        format!("{targets} samples"),
                    ));
                }
                y
            }
        };
        Ok(Data { samples, x, y, weights: Vec::new() })
    }

    /// Makes the buffers large enough for `batch` samples.
    pub(super) fn allocate(&mut self, batch: usize, training: bool) -> Result<()> {
        let backend = &self.backend;
        self.network.allocate(backend, batch, training)?;
        let scratch = [DenseCall::Loss, DenseCall::SumOfSquares].map(|call| backend.dense_workspace(call));
        self.workspace.grow(backend, "workspace", scratch[0].max(scratch[1]))?;
        for output in &mut self.outputs {
            output.targets.grow(backend, "targets", batch * output.target_size())?;
            if output.mask().is_some() {
                output.mask_weights.grow(backend, "weights of rows", batch * output.rows())?;
                output.row_weights.grow(backend, "weights of rows", batch * output.rows())?;
                output.valid.grow(backend, "mean of a mask", 1)?;
            }
        }
        if training {
            let weights = self.network.builder.parameters;
            for index in self.states.len()..self.optimizer.states() {
                let mut state = backend.allocate("optimizer's memory", weights)?;
                let initial = self.optimizer.initial(index);
                if initial != 0.0 {
                    backend.fill(state.borrow_mut(), initial)?;
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
    fn scale(&self) -> f64 {
        self.loss_scale.map_or(1.0, |scale| scale.scale())
    }

    /// The losses of a batch whose outputs and targets are there, into the record; with `gradients` their gradients too, times the scale.
    pub(super) fn run_losses(&mut self, batch: usize, entry: LossEntry, weighted: bool, gradients: bool) -> Result<()> {
        let scale = self.scale();
        let Model { backend, network, outputs, record, workspace, .. } = self;
        for output in outputs {
            let (columns, rows, loss, factor) = (output.columns(), output.rows(), output.loss, output.loss_weight);
            let len = batch * rows;
            if let Some(mask) = output.mask() {
                // As Keras has it: a mean over the valid rows.
                let mask = network.value(backend, mask, batch)?;
                let mut weights = output.mask_weights.get_mut(backend, len)?;
                let mut valid = output.valid.get_mut(backend, 1)?;
                backend.sum_axis([1, len, 1], 1.0 / len as f64, &mask, &mut valid, WeightGrad::Set)?;
                backend.scale_rows(&valid, true, &mask, &mut weights)?;
                if weighted {
                    let given = output.sample_weights.get(backend, len)?;
                    backend.multiply(&weights, &given, &mut *output.row_weights.get_mut(backend, len)?)?;
                }
            }
            let weights = output.weights(backend, batch, weighted)?;
            let targets = output.targets.get(backend, batch * output.target_size())?;
            let entry = LossEntry { weight: entry.weight * factor, ..entry };
            let workspace = workspace.all()?;
            let record = record.get_mut();
            if gradients {
                network.give_gradient(backend, &output.value, batch, |y, dy| {
                    backend.loss(
                        loss,
                        columns,
                        &targets,
                        y,
                        weights.as_deref(),
                        Some(&mut *dy),
                        entry,
                        record,
                        workspace,
                    )?;
                    let factor = factor * scale;
                    if factor == 1.0 { Ok(()) } else { backend.scale(factor, dy) }
                })?;
            } else {
                let y = network.value(backend, &output.value, batch)?;
                backend.loss(loss, columns, &targets, &y, weights.as_deref(), None, entry, record, workspace)?;
            }
        }
        Ok(())
    }

    /// Loss and gradients of a batch whose inputs and targets are there; those of values between layers are still scaled. Where the loss is not finite and the host knows, the gradients
    /// are not computed; [`Record::read`] tells.
    pub(super) fn run_training(
        &mut self,
        batch: usize,
        entry: LossEntry,
        weighted: bool,
        seed: u64,
        of_inputs: bool,
    ) -> Result<()> {
        self.network.forward(&self.backend, batch, true, seed)?;
        self.network.start_backward();
        self.run_losses(batch, entry, weighted, true)?;
        if self.record.is_on_host() && self.record.read(&self.backend)?.bad_loss.is_some() {
            return Ok(());
        }
        self.network.backward(&self.backend, batch, seed, of_inputs)?;
        match self.scale() {
            1.0 => Ok(()),
            scale => self.backend.scale(1.0 / scale, self.network.gradients.get_mut()),
        }
    }
}
