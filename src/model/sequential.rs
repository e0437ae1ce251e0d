//! A stack of layers.

use std::ops::Range;

use ndarray::{ArrayD, ArrayView, CowArray, Dimension, IxDyn};
use serde::{Deserialize, Serialize};

use crate::backend::HostBackend;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::{Backward, Forward, Layer, LayerConfig, Loss, Random, grow};
use crate::optim::{Adam, Optimizer};
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

pub(super) struct NamedLayer<E: Scalar, B: HostBackend<E>> {
    pub name: String,
    pub layer: Box<dyn Layer<E, B>>,
    /// Elements of the model's flat weights that are the layer's.
    pub range: Range<usize>,
}

/// A stack of layers on one backend: Keras's [`Sequential`](https://keras.io/api/models/sequential/).
///
/// Everything random comes from the seed given to [`new`](Self::new): the same seed, data and options give the same bits.
/// Until [`compile`](Self::compile) says otherwise, training uses [`Adam`] with its defaults on the mean squared error.
pub struct Sequential<E: Scalar, B: HostBackend<E>> {
    pub(super) backend: B,
    pub(super) config: SequentialConfig,
    pub(super) layers: Vec<NamedLayer<E, B>>,
    pub(super) parameters: Vec<E>,
    pub(super) gradients: Vec<E>,
    pub(super) optimizer: Box<dyn Optimizer<E>>,
    pub(super) loss: Loss,
    pub(super) seed: u64,
    /// Epochs trained so far; each has its own order of samples.
    pub(super) epochs_trained: u32,
    /// Elements of one sample: of the input, then of each layer's output.
    pub(super) sizes: Vec<usize>,
    /// The batch's input, then each layer's output.
    pub(super) values: Vec<Vec<E>>,
    /// Gradients of `values`; that of the input stays empty.
    slopes: Vec<Vec<E>>,
    pub(super) targets: Vec<E>,
}

/// Samples of one batch of [`Sequential::predict`] and [`Sequential::evaluate`].
const INFERENCE_BATCH: usize = 128;

impl<E: Scalar, B: HostBackend<E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// A model without layers, for samples of shape `input_shape` (without the batch).
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`], [`Error::SizeOverflow`].
    pub fn new(backend: B, input_shape: &[usize], seed: u64) -> Result<Self> {
        if input_shape.is_empty() || input_shape.contains(&0) {
            return Err(Error::ZeroSize { name: "input_shape" });
        }
        let size = checked_len("input", &input_shape.iter().map(|n| ("axis", *n)).collect::<Vec<_>>())?;
        Ok(Sequential {
            backend,
            config: SequentialConfig { input_shape: input_shape.to_vec(), layers: Vec::new() },
            layers: Vec::new(),
            parameters: Vec::new(),
            gradients: Vec::new(),
            optimizer: Box::new(Adam::default()),
            loss: Loss::default(),
            seed,
            epochs_trained: 0,
            sizes: vec![size],
            values: vec![Vec::new()],
            slopes: vec![Vec::new()],
            targets: Vec::new(),
        })
    }

    /// Puts a layer on top, with freshly drawn weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take the output below it; [`Error::ZeroSize`]; [`Error::SizeOverflow`].
    pub fn add(&mut self, layer: impl Into<LayerConfig>) -> Result<&mut Self> {
        let range = self.stack(layer.into())?;
        grow(&mut self.parameters, range.end, "weights")?;
        let index = self.layers.len() - 1;
        let mut random = Random::new(self.seed, index as u32);
        self.layers[index].layer.initialize(&mut self.parameters[range], &mut random);
        Ok(self)
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
        self.values.push(Vec::new());
        self.slopes.push(Vec::new());
        Ok(start..end)
    }

    /// Sets how [`fit`](Self::fit) trains. The optimizer starts without memory of earlier steps.
    pub fn compile(&mut self, optimizer: impl Optimizer<E> + 'static, loss: Loss) -> &mut Self {
        self.optimizer = Box::new(optimizer);
        self.loss = loss;
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
        self.parameters.len()
    }

    /// Every weight tensor: name (`lstm.weight_ih_l0`), shape, values.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[usize], &[E])> {
        self.layers.iter().flat_map(|l| {
            let values = &self.parameters[l.range.clone()];
            l.layer
                .parameters()
                .iter()
                .map(move |p| (format!("{}.{}", l.name, p.name), p.shape.as_slice(), &values[p.range.clone()]))
        })
    }

    /// All weights as one flat slice, in the order of [`weights`](Self::weights).
    pub fn flat_weights(&self) -> &[E] {
        &self.parameters
    }

    /// Replaces all weights.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `weights` has another length than [`flat_weights`](Self::flat_weights).
    pub fn set_flat_weights(&mut self, weights: &[E]) -> Result<()> {
        crate::rnn::shape::check_len("weights", &[self.parameters.len()], weights.len())?;
        self.parameters.copy_from_slice(weights);
        Ok(())
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
            self.values[0][..x.len()].copy_from_slice(x);
            self.run_forward(batch, false)?;
            y.copy_from_slice(&self.values[self.layers.len()][..y.len()]);
        }
        let shape: Vec<usize> = std::iter::once(samples).chain(self.output_shape().iter().copied()).collect();
        ArrayD::from_shape_vec(IxDyn(&shape), output)
            .map_err(|e| Error::shape("output", format!("{shape:?}"), e.to_string()))
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
        self.mean_loss(flat("x", &x)?, flat("y", &y)?)
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
        self.values[0][..x.len()].copy_from_slice(x);
        self.targets[..y.len()].copy_from_slice(y);
        let loss = self.run_training(batch)?;
        Ok((loss, &self.gradients))
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

    pub(super) fn mean_loss(&mut self, x: &[E], y: &[E]) -> Result<f64> {
        let (size_in, size_out) = (self.sizes[0], self.size_out());
        let samples = x.len() / size_in;
        let batch = samples.min(INFERENCE_BATCH);
        self.allocate(batch, false)?;
        let mut sum = 0.0;
        for (x, y) in x.chunks(batch * size_in).zip(y.chunks(batch * size_out)) {
            let batch = x.len() / size_in;
            self.values[0][..x.len()].copy_from_slice(x);
            self.run_forward(batch, false)?;
            sum += self.loss.value(y, &self.values[self.layers.len()][..y.len()]) * batch as f64;
        }
        Ok(sum / samples as f64)
    }

    /// Makes the buffers large enough for `batch` samples.
    pub(super) fn allocate(&mut self, batch: usize, training: bool) -> Result<()> {
        for (i, size) in self.sizes.iter().enumerate() {
            let len = checked_len("batch", &[("samples", batch), ("elements", *size)])?;
            grow(&mut self.values[i], len, "batch")?;
            if training && i > 0 {
                grow(&mut self.slopes[i], len, "gradients of a batch")?;
            }
        }
        if training {
            grow(&mut self.gradients, self.parameters.len(), "gradients")?;
            grow(&mut self.targets, batch * self.sizes[self.layers.len()], "targets")?;
        }
        Ok(())
    }

    /// Forward of the first `batch` samples of the buffers.
    fn run_forward(&mut self, batch: usize, training: bool) -> Result<()> {
        for (i, named) in self.layers.iter_mut().enumerate() {
            let (below, above) = self.values.split_at_mut(i + 1);
            let pass = Forward {
                parameters: &self.parameters[named.range.clone()],
                x: &below[i][..batch * self.sizes[i]],
                y: &mut above[0][..batch * self.sizes[i + 1]],
                batch,
                training,
            };
            named.layer.forward(&self.backend, pass)?;
        }
        Ok(())
    }

    /// Loss and gradients of the first `batch` samples of the buffers. Where the loss is not finite, the gradients are not computed.
    pub(super) fn run_training(&mut self, batch: usize) -> Result<f64> {
        self.run_forward(batch, true)?;
        let top = self.layers.len();
        let len = batch * self.sizes[top];
        let loss = self.loss.gradient(&self.targets[..len], &self.values[top][..len], &mut self.slopes[top][..len]);
        if !loss.is_finite() {
            return Ok(loss);
        }
        for (i, named) in self.layers.iter_mut().enumerate().rev() {
            let (below, above) = self.slopes.split_at_mut(i + 1);
            let pass = Backward {
                parameters: &self.parameters[named.range.clone()],
                x: &self.values[i][..batch * self.sizes[i]],
                y: &self.values[i + 1][..batch * self.sizes[i + 1]],
                dy: &above[0][..batch * self.sizes[i + 1]],
                dx: (i > 0).then(|| &mut below[i][..batch * self.sizes[i]]),
                dparameters: &mut self.gradients[named.range.clone()],
                batch,
            };
            named.layer.backward(&self.backend, pass)?;
        }
        Ok(loss)
    }
}

/// The elements of an array in standard layout.
pub(super) fn flat<'a, E: Scalar, D: Dimension>(tensor: &str, array: &'a CowArray<'_, E, D>) -> Result<&'a [E]> {
    array.as_slice().ok_or_else(|| Error::shape(tensor, "an array in standard layout", "another"))
}
