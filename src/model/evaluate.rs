//! Losses and metrics of a [`Model`] without training.

use std::borrow::Cow;

use crate::backend::ops::LossEntry;
use crate::backend::{Device, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::metrics::{Metric, MetricAccumulator};
use crate::model::Model;
use crate::model::arrays::{AnyArray, Arrays, any, row_weights};
use crate::model::batch::{Batch, Batches};
use crate::model::feed::Feed;

/// Samples of a batch without training, where it makes no difference how many they are.
const INFERENCE_BATCH: usize = 128;
/// The same where the loss has a mask, as it is then a mean of means of batches: Keras's default.
const MASKED_BATCH: usize = 32;

impl Model {
    /// Sets the samples of a batch in [`predict`](Self::predict), [`evaluate`](Self::evaluate) and the validation of
    /// [`fit`](Self::fit), Keras's `batch_size` and `validation_batch_size`. `None`, which is how a model begins, takes:
    ///
    /// - for [stateful](crate::nn::RecurrentOptions::stateful) layers the batch whose states they carry, or without one that of `fit`, or
    ///   all samples;
    /// - for outputs with a mask, in `fit` its batch, else Keras's default of 32 for a loss: such a loss is a mean over the batches of
    ///   means over the steps that are there, as in Keras, and so depends on the batches (metrics do not);
    /// - else as many as suit the device.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] for 0.
    pub fn inference_batch_size(&mut self, samples: impl Into<Option<usize>>) -> Result<&mut Self> {
        let samples = samples.into();
        if samples == Some(0) {
            return Err(Error::ZeroSize { name: "inference_batch_size" });
        }
        self.inference_batch_size = samples;
        Ok(self)
    }

    /// Samples of a batch of `predict`, of so many samples.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where states are carried from batch to batch, and some samples would be left over.
    pub(super) fn prediction_batch(&self, samples: usize) -> Result<usize> {
        let stateful = self.network.is_stateful();
        let usual = if stateful { samples } else { INFERENCE_BATCH };
        let carried = self.network.carried_batch();
        let batch = self.inference_batch_size.or(carried).unwrap_or(usual).min(samples);
        if stateful {
            check_whole_batches("inference_batch_size", "samples", samples, batch.max(carried.unwrap_or(0)))?;
        }
        Ok(batch)
    }

    /// Samples of a batch of `evaluate`, of so many samples; in training those of its batches are given.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where states are carried from batch to batch, and some samples would be left over.
    pub(super) fn evaluation_batch(&self, samples: usize, of_training: Option<usize>) -> Result<usize> {
        if self.inference_batch_size.is_some() {
            return self.prediction_batch(samples);
        }
        if self.network.is_stateful() {
            let Some(batch) = of_training else { return self.prediction_batch(samples) };
            check_whole_batches("batch_size", "validation samples", samples, batch)?;
            return Ok(batch);
        }
        let masked = self.outputs.iter().any(|output| output.mask().is_some());
        let usual = if masked { of_training.unwrap_or(MASKED_BATCH) } else { INFERENCE_BATCH };
        Ok(usual.min(samples))
    }

    /// The loss over all samples, without training. With a mask it is, as in Keras, the mean over the batches, weighted by their samples,
    /// of the means over the steps that are there; see [`inference_batch_size`](Self::inference_batch_size).
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `x` or `y` does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32`; [`Error::InvalidOption`] where a stateful model would have samples left over;
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU
    /// fails.
    pub fn evaluate<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<f64> {
        self.evaluate_any(any(x), any(y), &[], &mut [])
    }

    fn evaluate_any(
        &mut self,
        x: Vec<AnyArray<'_>>,
        y: Vec<AnyArray<'_>>,
        sample_weight: &[AnyArray<'_>],
        metrics: &mut [Vec<MetricAccumulator>],
    ) -> Result<f64> {
        let mut data = self.check_data("", x, Some(y))?;
        data.weights = row_weights("", &self.outputs, &data, sample_weight, &[], self.dtype())?;
        let batch = self.evaluation_batch(data.samples, None)?;
        let mut feed = Feed::of(&self.device, "", data.part(0..data.samples)?, batch)?;
        mean_loss(self, &mut feed, 1, metrics)
    }

    /// What [`evaluate_metrics`](Self::evaluate_metrics) says, of batches that an iterator gives, so that the data need not be in memory. Each
    /// is a [`Batch`], or a tuple that is one: `(x, y)`, or with the weights of [`evaluate_weighted`](Self::evaluate_weighted)
    /// `(x, y, sample_weight)`. For predictions of such data call [`predict`](Self::predict) with each.
    ///
    /// # Errors
    ///
    /// An error of the iterator as it is; [`Error::Presence`] without batches; those of [`evaluate_metrics`](Self::evaluate_metrics), with
    /// the number of the batch.
    pub fn evaluate_batches<'b, I, B>(&mut self, batches: I) -> Result<Vec<(String, f64)>>
    where
        I: IntoIterator<Item = Result<B>>,
        I::IntoIter: 'b,
        B: Into<Batch<'b>>,
    {
        let mut pass = Some(batches.into_iter());
        let once = Batches::new(move |_| Ok(pass.take().into_iter().flatten()));
        let mut metrics = self.accumulators()?;
        let loss = mean_loss(self, &mut Feed::of_batches("", once, Vec::new()), 1, &mut metrics)?;
        Ok(std::iter::once(("loss".to_owned(), loss)).chain(results(&metrics, "")).collect())
    }

    /// The loss over all samples, named `loss`, and the metrics, without training.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `x` or `y` does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32` or a prediction of NaN, [`Error::InvalidOption`] for metrics that do not go with the targets,
    /// or where a stateful model would have samples left over; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails.
    pub fn evaluate_metrics<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<Vec<(String, f64)>> {
        self.figures(any(x), any(y), &[])
    }

    /// The same with a weight for each sample, or for each step of each, Keras's `evaluate(…, sample_weight=…)`: the loss and the
    /// [weighted metrics](Self::weighted_metrics) go by them, see [`FitOptions::sample_weight`](crate::model::FitOptions::sample_weight).
    ///
    /// # Errors
    ///
    /// Those of [`evaluate_metrics`](Self::evaluate_metrics); [`Error::Shape`] for weights of other shapes, [`Error::NonFinite`] for some
    /// that are not finite or below zero.
    pub fn evaluate_weighted<'a>(
        &mut self,
        x: impl Arrays<'a>,
        y: impl Arrays<'a>,
        sample_weight: impl Arrays<'a>,
    ) -> Result<Vec<(String, f64)>> {
        self.figures(any(x), any(y), &any(sample_weight))
    }

    fn figures(
        &mut self,
        x: Vec<AnyArray<'_>>,
        y: Vec<AnyArray<'_>>,
        sample_weight: &[AnyArray<'_>],
    ) -> Result<Vec<(String, f64)>> {
        let mut metrics = self.accumulators()?;
        let loss = self.evaluate_any(x, y, sample_weight, &mut metrics)?;
        Ok(std::iter::once(("loss".to_owned(), loss)).chain(results(&metrics, "")).collect())
    }

    /// Sets the metrics that [`fit`](Self::fit) and [`evaluate_metrics`](Self::evaluate_metrics) tell, of every output. They need the
    /// predictions on the host: on a GPU each batch copies its own there, and is waited for.
    ///
    /// Steps that a mask says are absent do not count; every other counts alike, whatever the batches and the weights of samples and
    /// classes. Of metrics with one name the second is called `name_1`, and so on, as in Keras.
    pub fn metrics(&mut self, metrics: &[Metric]) -> &mut Self {
        self.metrics = metrics.to_vec();
        self
    }

    /// Sets metrics in which a row counts as much as the weights of samples and, in training, of classes say: Keras's
    /// `weighted_metrics`. One whose name a metric has already is called `weighted_name`.
    pub fn weighted_metrics(&mut self, metrics: &[Metric]) -> &mut Self {
        self.weighted_metrics = metrics.to_vec();
        self
    }

    /// The metrics of nothing yet, for each output, the weighted ones last; of several outputs, the names begin with those of their
    /// layers. Each name is there once, by Keras's rule.
    pub(super) fn accumulators(&self) -> Result<Vec<Vec<MetricAccumulator>>> {
        let several = self.outputs.len() > 1;
        let mut known: Vec<(String, usize)> = Vec::new();
        let mut unique = |name: String, weighted: Option<String>| {
            let mut name = name;
            if let Some(weighted) = weighted.filter(|_| known.iter().any(|(other, _)| *other == name)) {
                name = weighted;
            }
            match known.iter_mut().find(|(other, _)| *other == name) {
                Some((_, uses)) => {
                    *uses += 1;
                    format!("{name}_{}", *uses - 1)
                }
                None => {
                    known.push((name.clone(), 1));
                    name
                }
            }
        };
        let mut all: Vec<Vec<MetricAccumulator>> = self.outputs.iter().map(|_| Vec::new()).collect();
        for (metrics, weighted) in [(&self.metrics, false), (&self.weighted_metrics, true)] {
            for (output, accumulators) in self.outputs.iter().zip(&mut all) {
                if output.is_by_sample() && !metrics.is_empty() {
                    let what = format!("metrics beside the loss {}", output.loss.name());
                    let why = "it is of whole samples, metrics are of rows; compute them from `predict`";
                    return Err(Error::unsupported(what, why));
                }
                for metric in metrics {
                    let accumulator = MetricAccumulator::for_loss(*metric, output.built_in(), output.columns())?;
                    let of_output = |name: String| match several {
                        true => format!("{}_{name}", self.topology.name_of(output.source)),
                        false => name,
                    };
                    let other = weighted.then(|| of_output(format!("weighted_{}", accumulator.name())));
                    let name = unique(of_output(accumulator.name()), other);
                    accumulators.push(accumulator.named(name));
                }
            }
        }
        Ok(all)
    }

    /// Adds the batch whose outputs and targets are there to the metrics.
    pub(super) fn measure(&self, batch: usize, weighted: bool, metrics: &mut [Vec<MetricAccumulator>]) -> Result<()> {
        for (output, metrics) in self.outputs.iter().zip(metrics).filter(|(_, metrics)| !metrics.is_empty()) {
            let rows = batch * output.rows();
            let measured = Measured {
                columns: output.columns(),
                targets: output.targets.get(batch * output.target_size()?)?,
                predictions: self.network.value(&output.value, batch)?,
                mask: output.mask().map(|mask| self.network.value(mask, batch)).transpose()?,
                weights: weighted.then(|| output.sample_weights.get(rows)).transpose()?,
            };
            let plain = self.metrics.len().min(metrics.len());
            let (plain, by_weight) = metrics.split_at_mut(plain);
            match self.dtype() {
                DType::F64 => measured.add_to::<f64>(&self.device, plain, by_weight)?,
                _ => measured.add_to::<f32>(&self.device, plain, by_weight)?,
            }
        }
        Ok(())
    }
}

/// Refuses samples that are no whole number of batches, where states go on from each to the next.
pub(super) fn check_whole_batches(option: &str, what: &str, samples: usize, batch: usize) -> Result<()> {
    let rest = samples % batch.max(1);
    if rest == 0 {
        return Ok(());
    }
    let way_out = if rest == samples {
        "give a multiple of it, or call reset_states and choose another batch size".to_owned()
    } else {
        format!("leave out the last {rest}, or choose a batch size that divides {samples}")
    };
    let expected =
        format!("whole batches of {batch} samples, as the model carries states from each to the next ({way_out})");
    Err(Error::option(option, expected, format!("{samples} {what}")))
}

/// An output of a batch for its metrics, where the device has it.
struct Measured<'a> {
    columns: usize,
    targets: TensorRef<'a>,
    predictions: TensorRef<'a>,
    /// 1 for rows that are there, else 0.
    mask: Option<TensorRef<'a>>,
    /// Weights of the rows that were given.
    weights: Option<TensorRef<'a>>,
}

impl Measured<'_> {
    /// Adds the batch to the metrics of the output: rows that are there count once, in the weighted ones as much as their weight.
    fn add_to<E: Scalar>(
        &self,
        device: &Device,
        plain: &mut [MetricAccumulator],
        by_weight: &mut [MetricAccumulator],
    ) -> Result<()> {
        fn on_host<'a, E: Scalar>(device: &Device, tensor: TensorRef<'a>) -> Result<Cow<'a, [E]>> {
            Ok(if tensor.is_on_host() { Cow::Borrowed(tensor.host()?) } else { Cow::Owned(device.read(tensor)?) })
        }
        let (targets, predictions) = (on_host::<E>(device, self.targets)?, on_host::<E>(device, self.predictions)?);
        let mask = self.mask.map(|mask| on_host::<E>(device, mask)).transpose()?;
        for metric in plain {
            metric.update(&targets, &predictions, self.columns, mask.as_deref())?;
        }
        if by_weight.is_empty() {
            return Ok(());
        }
        let given = self.weights.map(|weights| on_host::<E>(device, weights)).transpose()?;
        let weights = match (mask, given) {
            (Some(mask), Some(given)) => Some(mask.iter().zip(given.iter()).map(|(there, w)| *there * *w).collect()),
            (mask, given) => mask.or(given),
        };
        for metric in by_weight {
            metric.update(&targets, &predictions, self.columns, weights.as_deref())?;
        }
        Ok(())
    }
}

/// What metrics say, with a prefix before their names.
pub(super) fn results(metrics: &[Vec<MetricAccumulator>], prefix: &str) -> Vec<(String, f64)> {
    metrics.iter().flatten().map(|metric| (format!("{prefix}{}", metric.name()), metric.result())).collect()
}

/// Mean loss of all samples of a pass, and their metrics.
pub(super) fn mean_loss(
    model: &mut Model,
    feed: &mut Feed<'_, '_>,
    epoch: usize,
    metrics: &mut [Vec<MetricAccumulator>],
) -> Result<f64> {
    feed.begin(epoch)?;
    model.status.clear(&model.device)?;
    metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
    let (mut samples, mut room) = (0usize, 0);
    while let Some(batch) = feed.next(model)? {
        // Batches of arrays have one length, and none is larger than the first.
        if feed.is_open() || batch > room {
            model.allocate(batch, false)?;
            room = batch;
        }
        let weighted = feed.place(model, 0..batch, 1)?;
        model.network.forward(&model.device, batch, false, 0)?;
        let entry = LossEntry { weight: batch as f64, code: 1 };
        model.run_losses(batch, entry, weighted, false)?;
        model.run_output_penalties(batch, entry, false)?;
        model.measure(batch, weighted, metrics)?;
        samples += batch;
    }
    model.run_weight_penalties(LossEntry { weight: samples as f64, code: 1 }, false)?;
    let total = model.status.read(&model.device)?.total;
    model.check_operations()?;
    Ok(total / samples as f64)
}
