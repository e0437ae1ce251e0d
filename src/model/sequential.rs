//! A stack of layers.

use std::borrow::{Borrow, BorrowMut};
use std::ops::Range;

use ndarray::{ArrayD, ArrayView, CowArray, Dimension, IxDyn};
use serde::{Deserialize, Serialize};

use crate::backend::dense::{DenseCall, LossEntry, RECORD_LEN, Report};
use crate::backend::{DenseBackend, Memory, Storage};
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::{Backward, Forward, Layer, LayerConfig, Loss, Random, Scratch, grow};
use crate::optim::{Adam, Optimizer, State};
use crate::rnn::shape::checked_len;

/// What a [`Sequential`] is, apart from its weights.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequentialConfig {
    /// Sample shape of the input: `[seq_len, features]` or `[features]`.
    pub input_shape: Vec<usize>,
    /// The layers, from the input up.
    pub layers: Vec<LayerConfig>,
}

pub(super) struct NamedLayer<E: Scalar, B: DenseBackend<Elem = E>> {
    pub name: String,
    pub layer: Box<dyn Layer<E, B>>,
    /// Elements of the model's flat weights that are the layer's.
    pub range: Range<usize>,
}

/// A tensor where the backend computes, with a copy on the host where that cannot read it.
pub(super) struct Mirrored<B: DenseBackend> {
    tensor: B::Owned<B::Elem>,
    /// On a device only: what [`host`](Self::host) shows.
    copy: Vec<B::Elem>,
}

impl<B: DenseBackend> Mirrored<B> {
    fn new(backend: &B, what: &str, values: Vec<B::Elem>) -> Result<Self> {
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

    fn set(&mut self, backend: &B, values: &[B::Elem]) -> Result<()> {
        backend.upload(values, self.tensor.borrow_mut())?;
        if self.get().on_host().is_none() {
            self.copy.copy_from_slice(values);
        }
        Ok(())
    }
}

/// What training tells about itself, where it computes.
pub(super) struct Record<B: Memory> {
    tensor: B::Owned<f64>,
}

impl<B: Memory> Record<B> {
    pub fn new(backend: &B) -> Result<Self> {
        Ok(Record { tensor: backend.allocate("record", RECORD_LEN)? })
    }

    pub fn get_mut(&mut self) -> &mut B::Tensor<f64> {
        self.tensor.borrow_mut()
    }

    /// Whether reading costs nothing.
    pub fn is_on_host(&self) -> bool {
        let tensor: &B::Tensor<f64> = self.tensor.borrow();
        tensor.on_host().is_some()
    }

    /// Waits for all work given so far, and tells.
    pub fn read(&self, backend: &B) -> Result<Report> {
        let mut numbers = [0.0; RECORD_LEN];
        backend.download(self.tensor.borrow(), &mut numbers)?;
        Ok(Report::new(&numbers))
    }

    /// Everything zero.
    pub fn clear(&mut self, backend: &B) -> Result<()> {
        backend.upload(&[0.0; RECORD_LEN], self.tensor.borrow_mut())
    }
}

/// A stack of layers on one backend: Keras's [`Sequential`](https://keras.io/api/models/sequential/).
///
/// Weights, activations, gradients and the optimizer's memory stand where the backend computes; arrays go in and come out on the
/// host. On a device [`flat_weights`](Self::flat_weights) and [`weights`](Self::weights) show a copy, which whatever changes the
/// weights brings up to date.
///
/// Everything random comes from the seed given to [`new`](Self::new): the same seed, data and options give the same bits.
/// Until [`compile`](Self::compile) says otherwise, training uses [`Adam`] with its defaults on the mean squared error.
pub struct Sequential<E: Scalar, B: DenseBackend<Elem = E>> {
    pub(super) backend: B,
    pub(super) config: SequentialConfig,
    pub(super) layers: Vec<NamedLayer<E, B>>,
    pub(super) parameters: Mirrored<B>,
    pub(super) gradients: Mirrored<B>,
    pub(super) optimizer: Box<dyn Optimizer<B>>,
    /// What the optimizer remembers, and the steps it has done.
    pub(super) states: Vec<State<B>>,
    pub(super) steps: u64,
    pub(super) loss: Loss,
    pub(super) seed: u64,
    /// Epochs trained so far; each has its own order of samples.
    pub(super) epochs_trained: u32,
    /// Elements of one sample: of the input, then of each layer's output.
    pub(super) sizes: Vec<usize>,
    /// The batch's input, then each layer's output.
    pub(super) values: Vec<Scratch<B>>,
    /// Gradients of `values`; that of the input stays empty.
    slopes: Vec<Scratch<B>>,
    pub(super) targets: Scratch<B>,
    /// Scratch space of the loss and of norms.
    pub(super) workspace: Scratch<B>,
    pub(super) record: Record<B>,
}

/// Samples of one batch of [`Sequential::predict`] and [`Sequential::evaluate`].
const INFERENCE_BATCH: usize = 128;

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// A model without layers, for samples of shape `input_shape` (without the batch).
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`]; those of the device, whose kernels this loads.
    pub fn new(backend: B, input_shape: &[usize], seed: u64) -> Result<Self> {
        if input_shape.is_empty() || input_shape.contains(&0) {
            return Err(Error::ZeroSize { name: "input_shape" });
        }
        let size = checked_len("input", &input_shape.iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?;
        backend.prepare_dense()?;
        Ok(Sequential {
            config: SequentialConfig { input_shape: input_shape.to_vec(), layers: Vec::new() },
            layers: Vec::new(),
            parameters: Mirrored::new(&backend, "weights", Vec::new())?,
            gradients: Mirrored::new(&backend, "gradients", Vec::new())?,
            optimizer: Box::new(Adam::default()),
            states: Vec::new(),
            steps: 0,
            loss: Loss::default(),
            seed,
            epochs_trained: 0,
            sizes: vec![size],
            values: vec![Scratch::new()],
            slopes: vec![Scratch::new()],
            targets: Scratch::new(),
            workspace: Scratch::new(),
            record: Record::new(&backend)?,
            backend,
        })
    }

    /// Puts a layer on top, with freshly drawn weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take the output below it; [`Error::ZeroSize`]; [`Error::SizeOverflow`].
    pub fn add(&mut self, layer: impl Into<LayerConfig>) -> Result<&mut Self> {
        let range = self.stack(layer.into())?;
        let mut weights = Vec::new();
        grow(&mut weights, range.end, "weights")?;
        weights[..range.start].copy_from_slice(self.parameters.host());
        let index = self.layers.len() - 1;
        let mut random = Random::new(self.seed, index as u32);
        self.layers[index].layer.initialize(&mut weights[range], &mut random);
        self.replace_weights(weights)?;
        Ok(self)
    }

    /// Takes as many weights as the layers have.
    pub(super) fn replace_weights(&mut self, weights: Vec<E>) -> Result<()> {
        self.parameters = Mirrored::new(&self.backend, "weights", weights)?;
        self.forget();
        Ok(())
    }

    /// The optimizer starts anew.
    pub(super) fn forget(&mut self) {
        self.states.clear();
        self.steps = 0;
    }

    /// Puts a layer on top and says where its weights will be, without allocating them.
    pub(super) fn stack(&mut self, config: LayerConfig) -> Result<Range<usize>> {
        let earlier = self.config.layers.iter().filter(|other| other.stem() == config.stem()).count();
        let name = if earlier == 0 { config.stem().to_owned() } else { format!("{}_{earlier}", config.stem()) };
        let layer = config.build::<E, B>(&name, self.output_shape())?;
        let size = checked_len(&name, &layer.output_shape().iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?;
        let start = self.layers.last().map_or(0, |l| l.range.end);
        let len = layer.parameters().last().map_or(0, |p| p.range.end);
        let end = checked_len("weights", &[("elements", start.saturating_add(len))])?;
        self.config.layers.push(config);
        self.layers.push(NamedLayer { name, layer, range: start..end });
        self.sizes.push(size);
        self.values.push(Scratch::new());
        self.slopes.push(Scratch::new());
        Ok(start..end)
    }

    /// Sets how [`fit`](Self::fit) trains. The optimizer starts without memory of earlier steps.
    pub fn compile(&mut self, optimizer: impl Optimizer<B> + 'static, loss: Loss) -> &mut Self {
        self.optimizer = Box::new(optimizer);
        self.loss = loss;
        self.forget();
        self
    }

    /// What the model is, apart from its weights.
    pub fn config(&self) -> &SequentialConfig {
        &self.config
    }

    /// Sample shape of the input.
    pub fn input_shape(&self) -> &[usize] {
        &self.config.input_shape
    }

    /// Sample shape of the output.
    pub fn output_shape(&self) -> &[usize] {
        self.layers.last().map_or(&self.config.input_shape, |l| l.layer.output_shape())
    }

    /// Number of weights.
    pub fn count_params(&self) -> usize {
        self.layers.last().map_or(0, |l| l.range.end)
    }

    /// Every weight tensor: name (`lstm.weight_ih_l0`), shape, values.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[usize], &[E])> {
        self.layers.iter().flat_map(|l| {
            let values = &self.parameters.host()[l.range.clone()];
            l.layer
                .parameters()
                .iter()
                .map(move |p| (format!("{}.{}", l.name, p.name), p.shape.as_slice(), &values[p.range.clone()]))
        })
    }

    /// All weights as one flat slice, in the order of [`weights`](Self::weights).
    pub fn flat_weights(&self) -> &[E] {
        self.parameters.host()
    }

    /// Replaces all weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `weights` has another length than [`flat_weights`](Self::flat_weights).
    pub fn set_flat_weights(&mut self, weights: &[E]) -> Result<()> {
        crate::rnn::shape::check_len("weights", &[self.count_params()], weights.len())?;
        self.parameters.set(&self.backend, weights)
    }

    /// The output for each sample of `x` `[samples, input shape…]`: `[samples, output shape…]`.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::ZeroSize`] without samples, and those of the backend.
    pub fn predict<D: Dimension>(&mut self, x: ArrayView<'_, E, D>) -> Result<ArrayD<E>> {
        let samples = self.check_samples("x", x.shape(), "the model's input shape", self.input_shape())?;
        let x = x.as_standard_layout();
        let x = flat("x", &x)?;
        let (size_in, size_out) = (self.sizes[0], self.size_out());
        let mut output = Vec::new();
        grow(&mut output, samples * size_out, "output")?;
        let batch = samples.min(INFERENCE_BATCH);
        self.allocate(batch, false)?;
        for (x, y) in x.chunks(batch * size_in).zip(output.chunks_mut(batch * size_out)) {
            let batch = x.len() / size_in;
            self.backend.upload(x, &mut *self.values[0].get_mut(&self.backend, x.len())?)?;
            self.run_forward(batch, false)?;
            self.backend.download(&*self.values[self.layers.len()].get(&self.backend, y.len())?, y)?;
        }
        self.check_layers()?;
        let shape: Vec<usize> = std::iter::once(samples).chain(self.output_shape().iter().copied()).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), output)
            .map_err(|e| Error::shape("output", format!("{shape:?}"), e.to_string()))
    }

    /// Waits for the layers' passes, and says whether they have ended as they should.
    pub(super) fn check_layers(&self) -> Result<()> {
        self.layers.iter().try_for_each(|named| named.layer.check(&self.backend))
    }

    /// The loss over all samples, without training.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `x` or `y` does not fit the model, [`Error::ZeroSize`] without samples, and those of the backend.
    pub fn evaluate<D: Dimension, F: Dimension>(
        &mut self,
        x: ArrayView<'_, E, D>,
        y: ArrayView<'_, E, F>,
    ) -> Result<f64> {
        self.check_pair("x", x.shape(), "y", y.shape())?;
        let (x, y) = (x.as_standard_layout(), y.as_standard_layout());
        let samples = x.shape()[0];
        let (x, y) = (self.backend.place("x", flat("x", &x)?)?, self.backend.place("y", flat("y", &y)?)?);
        self.mean_loss(&x, &y, samples)
    }

    /// The loss of a batch and its gradient by all weights, laid out as [`flat_weights`](Self::flat_weights); weights stay.
    ///
    /// # Errors
    ///
    /// Those of [`evaluate`](Self::evaluate).
    pub fn loss_gradient<D: Dimension, F: Dimension>(
        &mut self,
        x: ArrayView<'_, E, D>,
        y: ArrayView<'_, E, F>,
    ) -> Result<(f64, &[E])> {
        let batch = self.check_pair("x", x.shape(), "y", y.shape())?;
        let (x, y) = (x.as_standard_layout(), y.as_standard_layout());
        self.allocate(batch, true)?;
        let (x, y) = (flat("x", &x)?, flat("y", &y)?);
        self.backend.upload(x, &mut *self.values[0].get_mut(&self.backend, x.len())?)?;
        self.backend.upload(y, &mut *self.targets.get_mut(&self.backend, y.len())?)?;
        self.record.clear(&self.backend)?;
        self.run_training(batch, LossEntry { weight: 1.0, code: 1 })?;
        let report = self.record.read(&self.backend)?;
        self.gradients.refresh(&self.backend)?;
        Ok((report.loss, self.gradients.host()))
    }

    pub(super) fn size_out(&self) -> usize {
        self.sizes[self.layers.len()]
    }

    fn check_samples(&self, tensor: &str, got: &[usize], what: &str, shape: &[usize]) -> Result<usize> {
        match got.split_first() {
            Some((&samples, rest)) if rest == shape => {
                if samples == 0 {
                    return Err(Error::ZeroSize { name: "number of samples" });
                }
                Ok(samples)
            }
            _ => {
                let axes: Vec<_> = shape.iter().map(|n| format!(", {n}")).collect();
                Err(Error::shape(
                    tensor,
                    format!("[samples{}] (samples, then {what})", axes.concat()),
                    format!("{got:?}"),
                ))
            }
        }
    }

    /// Checks the shapes of inputs and targets, and gives the number of samples.
    pub(super) fn check_pair(&self, x: &str, x_shape: &[usize], y: &str, y_shape: &[usize]) -> Result<usize> {
        if self.layers.is_empty() {
            return Err(Error::Presence {
                tensor: "layers".to_owned(),
                problem: "the model has none; add one first".to_owned(),
            });
        }
        let samples = self.check_samples(x, x_shape, "the model's input shape", self.input_shape())?;
        let targets = self.check_samples(y, y_shape, "the model's output shape", self.output_shape())?;
        if samples != targets {
            return Err(Error::shape(y, format!("{samples} samples, as {x} has"), format!("{targets} samples")));
        }
        Ok(samples)
    }

    /// Mean loss of samples that stand where the backend computes.
    pub(super) fn mean_loss(&mut self, x: &B::Buffer, y: &B::Buffer, samples: usize) -> Result<f64> {
        let (size_in, size_out) = (self.sizes[0], self.size_out());
        let most = samples.min(INFERENCE_BATCH);
        self.allocate(most, false)?;
        self.record.clear(&self.backend)?;
        for first in (0..samples).step_by(most) {
            let batch = most.min(samples - first);
            let x = self.backend.view(x, first * size_in..(first + batch) * size_in)?;
            let y = self.backend.view(y, first * size_out..(first + batch) * size_out)?;
            self.backend.copy(&x, &mut *self.values[0].get_mut(&self.backend, batch * size_in)?)?;
            self.run_forward(batch, false)?;
            self.backend.loss(
                self.loss,
                self.loss_columns(),
                &y,
                &*self.values[self.layers.len()].get(&self.backend, batch * size_out)?,
                None,
                LossEntry { weight: batch as f64, code: 1 },
                self.record.get_mut(),
                self.workspace.all()?,
            )?;
        }
        let total = self.record.read(&self.backend)?.total;
        self.check_layers()?;
        Ok(total / samples as f64)
    }

    /// Width of the rows that the loss is of: the last axis of the output.
    fn loss_columns(&self) -> usize {
        self.output_shape().last().copied().unwrap_or(1)
    }

    /// Makes the buffers large enough for `batch` samples.
    pub(super) fn allocate(&mut self, batch: usize, training: bool) -> Result<()> {
        let backend = &self.backend;
        for (i, size) in self.sizes.iter().enumerate() {
            let len = checked_len("batch", &[("samples", batch), ("elements", *size)])?;
            self.values[i].grow(backend, "batch", len)?;
            if training && i > 0 {
                self.slopes[i].grow(backend, "gradients of a batch", len)?;
            }
        }
        let scratch = [DenseCall::Loss, DenseCall::SumOfSquares].map(|call| backend.dense_workspace(call));
        self.workspace.grow(backend, "workspace", scratch[0].max(scratch[1]))?;
        if training {
            let weights = self.parameters.get().elements();
            if self.gradients.get().elements() != weights {
                let mut zeros = Vec::new();
                grow(&mut zeros, weights, "gradients")?;
                self.gradients = Mirrored::new(backend, "gradients", zeros)?;
            }
            while self.states.len() < self.optimizer.states() {
                self.states.push(backend.allocate("optimizer's memory", weights)?);
            }
            self.targets.grow(backend, "targets", batch * self.sizes[self.layers.len()])?;
        }
        Ok(())
    }

    /// Forward of the first `batch` samples of the buffers.
    fn run_forward(&mut self, batch: usize, training: bool) -> Result<()> {
        let Sequential { backend, layers, parameters, values, sizes, .. } = self;
        for (i, named) in layers.iter_mut().enumerate() {
            let (below, above) = values.split_at_mut(i + 1);
            let pass = Forward::<B> {
                parameters: &*backend.view(parameters.get(), named.range.clone())?,
                x: &*below[i].get(backend, batch * sizes[i])?,
                y: &mut *above[0].get_mut(backend, batch * sizes[i + 1])?,
                batch,
                training,
            };
            named.layer.forward(backend, pass)?;
        }
        Ok(())
    }

    /// Loss and gradients of the first `batch` samples of the buffers. Where the loss is not finite and the host knows, the gradients
    /// are not computed; [`Record::read`] tells.
    pub(super) fn run_training(&mut self, batch: usize, entry: LossEntry) -> Result<()> {
        self.run_forward(batch, true)?;
        let columns = self.loss_columns();
        let top = self.layers.len();
        let Sequential { backend, layers, parameters, gradients, values, slopes, sizes, .. } = self;
        let len = batch * sizes[top];
        backend.loss(
            self.loss,
            columns,
            &*self.targets.get(backend, len)?,
            &*values[top].get(backend, len)?,
            Some(&mut *slopes[top].get_mut(backend, len)?),
            entry,
            self.record.get_mut(),
            self.workspace.all()?,
        )?;
        if self.record.is_on_host() && !self.record.read(backend)?.loss.is_finite() {
            return Ok(());
        }
        for (i, named) in layers.iter_mut().enumerate().rev() {
            let (below, above) = slopes.split_at_mut(i + 1);
            let mut dx = if i > 0 { Some(below[i].get_mut(backend, batch * sizes[i])?) } else { None };
            let pass = Backward::<B> {
                parameters: &*backend.view(parameters.get(), named.range.clone())?,
                x: &*values[i].get(backend, batch * sizes[i])?,
                y: &*values[i + 1].get(backend, batch * sizes[i + 1])?,
                dy: &*above[0].get(backend, batch * sizes[i + 1])?,
                dx: dx.as_deref_mut(),
                dparameters: &mut *backend.view_mut(gradients.get_mut(), named.range.clone())?,
                batch,
            };
            named.layer.backward(backend, pass)?;
        }
        Ok(())
    }
}

/// The elements of an array in standard layout.
pub(super) fn flat<'a, E: Scalar, D: Dimension>(tensor: &str, array: &'a CowArray<'_, E, D>) -> Result<&'a [E]> {
    array.as_slice().ok_or_else(|| Error::shape(tensor, "an array in standard layout", "another"))
}
