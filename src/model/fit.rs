//! Training a [`Model`].

use std::borrow::Cow;
use std::path::Path;

use crate::backend::ops::{IndexStatus, LossEntry, Report};
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::metrics::{Metric, MetricAccumulator};
use crate::model::Model;
use crate::model::arrays::{AnyArray, Arrays, Data, Part, PlacedData, any, row_weights};
use crate::model::callbacks::{BatchEnd, Callback, EarlyStopping, EpochBegin, EpochEnd, Training};
use crate::model::history::{History, Outcome};
use crate::model::output::{Output, Status};
use crate::model::ranks::{self, Ranks};
use crate::nn::Random;

/// How [`Model::fit`] trains. The defaults are Keras's.
pub struct FitOptions<'a> {
    /// Most passes over the data; 1.
    pub epochs: usize,
    /// Samples of one step, on each rank where there are several; 32. The last batch of an epoch may be smaller.
    pub batch_size: usize,
    /// Whether each epoch takes the samples in another order; yes.
    pub shuffle: bool,
    /// Inputs and targets to evaluate after each epoch, one array for each input and output of the model, as in
    /// `Some((vec![(&x).into()], vec![(&y).into()]))`; none.
    pub validation_data: Option<(Vec<AnyArray<'a>>, Vec<AnyArray<'a>>)>,
    /// The last part of the samples, rounded down to whole ones, that is evaluated after each epoch instead of trained on; 0, none.
    pub validation_split: f64,
    /// What the loss of each sample is multiplied with, `[samples]`, or of each step of each, `[samples, steps]`: one array for all
    /// outputs, or one an output; none, which is 1.
    pub sample_weight: Vec<AnyArray<'a>>,
    /// What the loss of samples of a class is multiplied with, by the class's number; 1. For a model with one output of classes.
    pub class_weight: Vec<(usize, f64)>,
    /// Which figure says how good an epoch is, by its key in the [`History`]; the validation loss, or without validation data the loss.
    /// By it [`History::best_epoch`], early stopping, [checkpoints](crate::model::Checkpoint) of the best and
    /// [plateaus](crate::model::ReduceLearningRate) receive. Of losses and errors less is better, of other metrics more.
    pub monitor: Option<&'a str>,
    /// When to stop before the last epoch; never.
    pub early_stopping: Option<EarlyStopping>,
    /// How gradients are limited; not at all.
    pub clip: Option<Clip>,
    /// On a device: batches from one look at the loss to the next; 32. Until then the device is not waited for, and neither the loss
    /// that callbacks receive nor a divergence is known. The first batch of an epoch and the last are always looked at. On the host
    /// every batch is.
    pub loss_every: usize,
    /// Told about progress, in this order; may stop training, change its rate, and save the model; none.
    pub callbacks: Vec<&'a mut dyn Callback>,
    /// The processes that train the same model [together](crate::model::ranks), and which of them this is; this one alone.
    pub ranks: Option<&'a dyn Ranks>,
}

/// A limit for gradients, all weights taken together.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clip {
    /// All are scaled down so that the norm of the whole gradient is at most this: Keras's `global_clipnorm`
    /// ([Pascanu et al. 2013](https://proceedings.mlr.press/v28/pascanu13.html)).
    Norm(f64),
    /// Each is limited to plus or minus this: Keras's `clipvalue`.
    Value(f64),
}

impl Default for FitOptions<'_> {
    fn default() -> Self {
        FitOptions {
            epochs: 1,
            batch_size: 32,
            shuffle: true,
            validation_data: None,
            validation_split: 0.0,
            sample_weight: Vec::new(),
            class_weight: Vec::new(),
            monitor: None,
            early_stopping: None,
            clip: None,
            loss_every: 32,
            callbacks: Vec::new(),
            ranks: None,
        }
    }
}

/// Streams of random numbers from here on order samples; those before draw weights.
const SHUFFLE_STREAM: u32 = 1 << 31;

impl Training for Model {
    fn learning_rate(&self) -> f64 {
        self.optimizer.learning_rate()
    }

    fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        self.optimizer.set_learning_rate(rate)
    }

    fn save(&mut self, path: &Path) -> Result<()> {
        self.refresh()?;
        Model::save(self, path)
    }
}

impl Model {
    /// Trains on inputs `x` `[samples, input shape…]` and targets `y` `[samples, output shape…]`; a last axis of 1 may be left out.
    ///
    /// On a GPU the data are copied there once; after that a batch needs nothing from the host but launches.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit the model, [`Error::ZeroSize`], [`Error::InvalidOption`] for a batch larger than the
    /// data, for a split that leaves nothing and for constants that the optimizer cannot have, [`Error::NonFinite`] for an `f64` beyond the
    /// range of the device's `f32`; what a callback returns; [`Error::Unsupported`] where the device cannot do it or memory is short,
    /// [`Error::Driver`] and [`Error::KernelFault`] where the GPU fails. [`Error::Diverged`] where a loss or a gradient is NaN or infinite:
    /// the model then has the weights of its best epoch, or those it had before if no epoch was completed, and the optimizer starts anew.
    pub fn fit<'a, 'b>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'b>, options: FitOptions<'_>) -> Result<History> {
        self.fit_any(any(x), any(y), options)
    }

    fn fit_any(&mut self, x: Vec<AnyArray<'_>>, y: Vec<AnyArray<'_>>, options: FitOptions<'_>) -> Result<History> {
        let ranks = options.ranks.filter(|ranks| ranks.count() > 1);
        let mut has_met = false;
        let trained = self.fit_on_rank(x, y, options, ranks, &mut has_met);
        if let (Err(_), Some(ranks), false) = (&trained, ranks, has_met) {
            // The others wait for this one, and learn that it does not come.
            let _ = ranks::agree(ranks, Err::<(), _>(Error::ZeroSize { name: "epochs" }));
        }
        trained
    }

    /// The same on one of several processes, if there are some. `has_met` says whether they have begun to exchange what they have.
    fn fit_on_rank<'o>(
        &mut self,
        x: Vec<AnyArray<'_>>,
        y: Vec<AnyArray<'_>>,
        mut options: FitOptions<'o>,
        ranks: Option<&'o dyn Ranks>,
        has_met: &mut bool,
    ) -> Result<History> {
        let mut data = self.check_data("", x, Some(y))?;
        for (name, size) in
            [("epochs", options.epochs), ("batch_size", options.batch_size), ("loss_every", options.loss_every)]
        {
            if size == 0 {
                return Err(Error::ZeroSize { name });
            }
        }
        if let Some(Clip::Norm(most) | Clip::Value(most)) = options.clip
            && !(most.is_finite() && most > 0.0)
        {
            return Err(Error::option("clip", "a finite number above zero", most));
        }
        self.optimizer.validate()?;
        let (sample_weight, class_weight) = (&options.sample_weight, &options.class_weight);
        data.weights = row_weights(&self.outputs, &data, sample_weight, class_weight, self.dtype())?;
        let given = match options.validation_data.take() {
            None => None,
            Some((x, y)) => Some(self.check_data("validation ", x, Some(y))?),
        };
        let mut validation = given.as_ref().map(|given| given.part(0..given.samples)).transpose()?;
        let data = if options.validation_split == 0.0 {
            data.part(0..data.samples)?
        } else {
            if validation.is_some() {
                return Err(Error::option("validation_split", "0 beside validation data", options.validation_split));
            }
            let (train, held) = data.split(options.validation_split)?;
            validation = Some(held);
            train
        };
        let samples = data.samples;
        let together = ranks.map_or(1, |ranks| ranks.count());
        let batch_size = options.batch_size.saturating_mul(together);
        if batch_size > samples {
            let of_ranks = if together > 1 { format!(", divided by {together} ranks") } else { String::new() };
            let most = format!("at most the {samples} samples{of_ranks}");
            return Err(Error::option("batch_size", most, options.batch_size));
        }
        let count = u32::try_from(samples)
            .map_err(|_| Error::unsupported(format!("{samples} samples"), "at most 4294967295 are counted"))?;
        let device = &self.device;
        let validation = validation.as_ref().map(|part| part.place(device, "validation ")).transpose()?;
        let mut best = device.allocate("best weights", self.count_params())?;
        device.copy(self.network.parameters.get(), best.view_mut())?;
        let mut best_statistics = device.allocate("best statistics", self.network.builder.statistics)?;
        device.copy(self.network.statistics.get(), best_statistics.view_mut())?;
        let accumulators = self.accumulators()?;
        let monitor = Monitor::new(options.monitor, validation.is_some(), &accumulators)?;
        let mut run = Run {
            ranks,
            placed: data.place(device, "")?,
            data,
            validation,
            order: (0..count).collect(),
            placed_order: device.allocate_as("order of samples", DType::U32, samples)?,
            norm: device.allocate_as("norm", DType::F64, 1)?,
            overflow: self.loss_scale.map(|_| Status::new(device)).transpose()?,
            best,
            best_statistics,
            best_score: f64::NEG_INFINITY,
            monitor,
            history: History {
                loss: Vec::new(),
                val_loss: Vec::new(),
                metrics: Vec::new(),
                best_epoch: None,
                outcome: Outcome::Finished,
            },
            metrics: accumulators,
            epochs: options.epochs,
            batch_size,
            shuffle: options.shuffle,
            clip: options.clip,
            loss_every: options.loss_every,
            early_stopping: options.early_stopping,
            callbacks: options.callbacks,
        };
        self.allocate(options.batch_size, true)?;
        self.device.upload(&run.order, run.placed_order.view_mut())?;
        if let Some(ranks) = ranks {
            *has_met = true;
            ranks::agree(ranks, Ok(()))?;
            let weights = ranks::fingerprint(self.network.parameters.host().bytes().unwrap_or_default());
            let frozen = ranks::fingerprint(self.network.frozen.host().bytes().unwrap_or_default());
            let own = [
                ("weights", weights),
                ("frozen weights", frozen),
                ("seed", self.seed),
                ("samples", samples as u64),
                ("batch_size", options.batch_size as u64),
                ("epochs", options.epochs as u64),
            ];
            ranks::check_same(ranks, &own)?;
        }
        let trained = self.train_epochs(&mut run);
        if let Err(Error::Diverged { .. }) = trained {
            self.restore(&run)?;
            self.forget();
        }
        if trained.is_err() {
            // Whatever the error was, it says more than a failure to look at the weights.
            let _ = self.refresh();
        }
        trained?;
        if run.history.best_epoch.is_some() && run.early_stopping.is_some_and(|e| e.restore_best_weights) {
            self.restore(&run)?;
        }
        self.refresh()?;
        Ok(run.history)
    }

    /// Brings up to date what the host shows of the weights.
    fn refresh(&mut self) -> Result<()> {
        self.network.parameters.refresh(&self.device)?;
        self.network.statistics.refresh(&self.device)
    }

    /// One step on one batch, Keras's `train_on_batch`; the loss before it.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`], [`Error::ZeroSize`] and [`Error::NonFinite`] for arrays that the model cannot take; [`Error::Diverged`] where the
    /// loss or a gradient is NaN or infinite; [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`]
    /// and [`Error::KernelFault`] where the GPU fails; all are listed at [`fit`](Self::fit).
    pub fn train_on_batch<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<f64> {
        let (x, y) = (any(x), any(y));
        if !self.status.is_on_host() {
            let samples = x.first().map_or(0, |x| x.shape().first().copied().unwrap_or(0));
            let options = FitOptions { batch_size: samples.max(1), shuffle: false, ..FitOptions::default() };
            let history = self.fit_any(x, y, options)?;
            return Ok(history.loss[0]);
        }
        // The same on the host without what `fit` needs for many batches. A loss or gradient that is not finite is known before any weight
        // changes, so that no copy of them is needed to go back to; statistics change in the forward pass.
        let data = self.check_data("", x, Some(y))?;
        self.optimizer.validate()?;
        self.allocate(data.samples, true)?;
        let mut statistics = self.device.allocate("statistics", self.network.builder.statistics)?;
        self.device.copy(self.network.statistics.get(), statistics.view_mut())?;
        let loss = self.train_on(&data);
        if let Err(Error::Diverged { .. }) = loss {
            self.device.copy(statistics.view(), self.network.statistics.get_mut())?;
            self.forget();
        }
        loss
    }

    /// One step on all samples, where the host computes and there is room for them; the loss before it.
    fn train_on(&mut self, data: &Data<'_>) -> Result<f64> {
        let samples = data.samples;
        let check = |report: &Report| match divergence(report) {
            None => Ok(()),
            Some((batch, quantity)) => {
                let picked = 0..samples;
                Err(diverged_at((1, batch), quantity, report, true, &data.part(0..samples)?, picked))
            }
        };
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.place_batch(data)?;
        self.status.clear(&self.device)?;
        let seed = self.step_seed();
        self.batches_trained += 1;
        self.run_training(samples, LossEntry { weight: samples as f64, code: 1 }, false, seed, false)?;
        check(&self.status.read(&self.device)?)?;
        self.device.check_finite(self.network.gradients.get(), 1, self.status.get_mut())?;
        let report = self.status.read(&self.device)?;
        check(&report)?;
        self.step_optimizer()?;
        self.network.check(&self.device)?;
        Ok(report.total / samples as f64)
    }

    /// The loss over all samples, without training.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `x` or `y` does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32`; [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`]
    /// and [`Error::KernelFault`] where the GPU fails.
    pub fn evaluate<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<f64> {
        self.evaluate_any(any(x), any(y), &mut [])
    }

    fn evaluate_any(
        &mut self,
        x: Vec<AnyArray<'_>>,
        y: Vec<AnyArray<'_>>,
        metrics: &mut [Vec<MetricAccumulator>],
    ) -> Result<f64> {
        let data = self.check_data("", x, Some(y))?;
        let placed = data.part(0..data.samples)?.place(&self.device, "")?;
        mean_loss(self, &placed, metrics)
    }

    /// The loss over all samples, named `loss`, and the metrics, without training.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `x` or `y` does not fit the model, [`Error::ZeroSize`] without samples, [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32` or a prediction of NaN, [`Error::InvalidOption`] for metrics that do not go with the targets;
    /// [`Error::Unsupported`] where the device cannot do it or memory is short, [`Error::Driver`] and [`Error::KernelFault`] where the GPU
    /// fails.
    pub fn evaluate_metrics<'a>(&mut self, x: impl Arrays<'a>, y: impl Arrays<'a>) -> Result<Vec<(String, f64)>> {
        let mut metrics = self.accumulators()?;
        let loss = self.evaluate_any(any(x), any(y), &mut metrics)?;
        Ok(std::iter::once(("loss".to_owned(), loss)).chain(results(&metrics, "")).collect())
    }

    /// Sets the metrics that [`fit`](Self::fit) and [`evaluate_metrics`](Self::evaluate_metrics) tell, of every output. They need the
    /// predictions on the host: on a GPU each batch copies its own there, and is waited for.
    pub fn metrics(&mut self, metrics: &[Metric]) -> &mut Self {
        self.metrics = metrics.to_vec();
        self
    }

    /// The metrics of nothing yet, for each output; of several outputs, the names begin with those of their layers.
    fn accumulators(&self) -> Result<Vec<Vec<MetricAccumulator>>> {
        let several = self.outputs.len() > 1;
        let of_output = |output: &Output| {
            let named = |metric: &Metric| {
                let accumulator = MetricAccumulator::for_loss(*metric, output.loss, output.columns())?;
                let name = format!("{}_{}", self.topology.name_of(output.source), accumulator.name());
                Ok(if several { accumulator.named(name) } else { accumulator })
            };
            self.metrics.iter().map(named).collect::<Result<Vec<_>>>()
        };
        self.outputs.iter().map(of_output).collect()
    }

    /// Adds the batch whose outputs and targets are there to the metrics.
    fn measure(&self, batch: usize, weighted: bool, metrics: &mut [Vec<MetricAccumulator>]) -> Result<()> {
        for (output, metrics) in self.outputs.iter().zip(metrics).filter(|(_, metrics)| !metrics.is_empty()) {
            let y = self.network.value(&output.value, batch)?;
            let targets = output.targets.get(batch * output.target_size())?;
            let weights = output.weights(batch, weighted)?;
            match self.dtype() {
                DType::F64 => update::<f64>(&self.device, metrics, output.columns(), targets, y, weights)?,
                _ => update::<f32>(&self.device, metrics, output.columns(), targets, y, weights)?,
            }
        }
        Ok(())
    }

    /// The best weights so far, and what belongs to them.
    fn restore(&mut self, run: &Run<'_, '_>) -> Result<()> {
        self.device.copy(run.best.view(), self.network.parameters.get_mut())?;
        self.device.copy(run.best_statistics.view(), self.network.statistics.get_mut())
    }

    fn train_epochs(&mut self, run: &mut Run<'_, '_>) -> Result<()> {
        for epoch in 1..=run.epochs {
            let begin = EpochBegin { epoch, epochs: run.epochs, batches: run.order.len().div_ceil(run.batch_size) };
            let begun = run.callbacks.iter_mut().try_for_each(|callback| callback.on_epoch_begin(&begin, self));
            ranks::agree_if(run.ranks, begun)?;
            if let Some(ranks) = run.ranks {
                ranks::check_same(ranks, &[("learning rate", self.optimizer.learning_rate().to_bits())])?;
            }
            let Some(loss) = self.train_epoch(run, epoch)? else {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            };
            if let Some(ranks) = run.ranks {
                for metric in run.metrics.iter_mut().flatten() {
                    let lists = ranks::gather_lists(ranks, &metric.numbers())?;
                    metric.reset();
                    lists.iter().for_each(|numbers| metric.merge(numbers));
                }
            }
            let mut metrics = results(&run.metrics, "");
            let mut val_loss = match &run.validation {
                None => None,
                Some(data) => {
                    let loss = ranks::agree_if(run.ranks, mean_loss(self, data, &mut run.metrics))?;
                    metrics.extend(results(&run.metrics, "val_"));
                    Some(loss)
                }
            };
            if let Some(ranks) = run.ranks {
                // Where processors differ in last bits, all go by the figures of one.
                let figures = val_loss.iter_mut().chain(metrics.iter_mut().map(|(_, value)| value));
                ranks::take_from_first(ranks, figures)?;
            }
            if let Some(val_loss) = val_loss.filter(|loss| !loss.is_finite()) {
                let batch = run.order.len().div_ceil(run.batch_size);
                return Err(Error::Diverged { epoch, batch, what: format!("the validation loss is {val_loss}") });
            }
            let score = run.monitor.score(loss, val_loss, &metrics);
            run.history.loss.push(loss);
            run.history.val_loss.extend(val_loss);
            for (name, value) in &metrics {
                match run.history.metrics.iter_mut().find(|(known, _)| known == name) {
                    Some((_, values)) => values.push(*value),
                    None => run.history.metrics.push((name.clone(), vec![*value])),
                }
            }
            let min_delta = run.early_stopping.map_or(0.0, |e| e.min_delta);
            let best = score > run.best_score + min_delta;
            if best {
                run.best_score = score;
                self.device.copy(self.network.parameters.get(), run.best.view_mut())?;
                self.device.copy(self.network.statistics.get(), run.best_statistics.view_mut())?;
                run.history.best_epoch = Some(epoch);
            }
            let state = EpochEnd { epoch, epochs: run.epochs, loss, val_loss, metrics, score, best };
            let mut stop = false;
            let ended = run.callbacks.iter_mut().try_for_each(|callback| {
                stop |= callback.on_epoch_end(&state, self)?.is_break();
                Ok(())
            });
            ranks::agree_if(run.ranks, ended)?;
            if let Some(ranks) = run.ranks {
                stop = ranks::sum(ranks, f64::from(stop))? != 0.0;
            }
            if stop {
                run.history.outcome = Outcome::Interrupted;
                return Ok(());
            }
            let waited = epoch - run.history.best_epoch.unwrap_or(epoch);
            if epoch < run.epochs && run.early_stopping.is_some_and(|e| waited >= e.patience.max(1)) {
                run.history.outcome = Outcome::EarlyStopped;
                return Ok(());
            }
        }
        Ok(())
    }

    /// One pass over the data; the mean loss, or `None` where a callback stopped it.
    fn train_epoch(&mut self, run: &mut Run<'_, '_>, epoch: usize) -> Result<Option<f64>> {
        if run.shuffle {
            // From the same order every time, so that training that goes on from a file does so with the same bits.
            (0..).zip(&mut run.order).for_each(|(number, sample)| *sample = number);
            Random::new(self.seed, SHUFFLE_STREAM | self.epochs_trained).shuffle(&mut run.order);
            self.device.upload(&run.order, run.placed_order.view_mut())?;
        }
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.status.clear(&self.device)?;
        run.metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
        let batches = run.order.len().div_ceil(run.batch_size);
        let (mut seen, mut loss) = (0usize, 0.0);
        for batch in 1..=batches {
            let size = run.batch_size.min(run.order.len() - seen);
            self.train_batch(run, epoch, batch, seen, size)?;
            seen += size;
            if self.status.is_on_host() || (batch - 1).is_multiple_of(run.loss_every) || batch == batches {
                let report = self.look(run, epoch);
                let total = match run.ranks {
                    None => report?.total,
                    Some(ranks) => ranks::sum(ranks, ranks::agree(ranks, report)?.total)?,
                };
                loss = total / seen as f64;
            }
            let state = BatchEnd { epoch, batch, batches, loss, accumulators: &run.metrics };
            let mut stop = false;
            for callback in &mut run.callbacks {
                stop |= callback.on_batch_end(&state).is_break();
            }
            if let Some(ranks) = run.ranks {
                stop = ranks::sum(ranks, f64::from(stop))? != 0.0;
            }
            if stop {
                return Ok(None);
            }
        }
        Ok(Some(loss))
    }

    /// Waits for the batches so far, and says how they went.
    fn look(&self, run: &Run<'_, '_>, epoch: usize) -> Result<Report> {
        let report = self.status.read(&self.device)?;
        self.network.check(&self.device)?;
        diverged(run, epoch, &report, self.status.is_on_host())?;
        Ok(report)
    }

    /// Gradients of `size` samples, from number `first` of the epoch's order on. The batch's code in the status is its number.
    fn differentiate_batch(
        &mut self,
        run: &mut Run<'_, '_>,
        epoch: usize,
        batch: usize,
        first: usize,
        size: usize,
    ) -> Result<()> {
        // There are no more batches than samples, which 32 bits count.
        let code = batch as u32;
        let weighted = !run.placed.weights.is_empty();
        {
            let Model { device, topology, network, outputs, status, .. } = &mut *self;
            let picked = run.placed_order.view().part(first..first + size)?;
            for ((_, value), from) in topology.inputs.iter().zip(&run.placed.x) {
                let status = Some(IndexStatus { code, status: status.get_mut() });
                device.gather(value.size(), from.view(), picked, network.value_mut(value, size)?, status)?;
            }
            for (index, output) in outputs.iter_mut().enumerate() {
                let (width, rows) = (output.target_size(), output.rows());
                let (to, from) = (output.targets.get_mut(size * width)?, run.placed.y[index].view());
                device.gather(width, from, picked, to, Some(IndexStatus { code, status: status.get_mut() }))?;
                if weighted {
                    output.sample_weights.grow(device, "weights of rows", size * rows)?;
                    let (to, from) = (output.sample_weights.get_mut(size * rows)?, run.placed.weights[index].view());
                    device.gather(rows, from, picked, to, Some(IndexStatus { code, status: status.get_mut() }))?;
                }
            }
        }
        // Other masks of dropout on every rank.
        let rank = run.ranks.map_or(0, |ranks| ranks.rank() as u64);
        let seed = self.step_seed() ^ rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.run_training(size, LossEntry { weight: size as f64, code }, weighted, seed, false)?;
        if self.status.is_on_host() {
            diverged(run, epoch, &self.status.read(&self.device)?, true)?;
        }
        self.measure(size, weighted, &mut run.metrics)
    }

    /// One step on `size` samples of all ranks, from number `first` of the epoch's order on.
    fn train_batch(
        &mut self,
        run: &mut Run<'_, '_>,
        epoch: usize,
        batch: usize,
        first: usize,
        size: usize,
    ) -> Result<()> {
        let done = match run.ranks {
            None => self.differentiate_batch(run, epoch, batch, first, size),
            Some(ranks) => {
                let bound = |rank: usize| size * rank / ranks.count();
                let own = bound(ranks.rank())..bound(ranks.rank() + 1);
                let done = match own.len() {
                    0 => Ok(()),
                    len => self.differentiate_batch(run, epoch, batch, first + own.start, len),
                };
                let (device, network) = (&self.device, &mut self.network);
                ranks::agree(ranks, done).and_then(|()| {
                    let share = own.len() as f64 / size as f64;
                    ranks::average(ranks, device, share, network.gradients.get_mut())?;
                    ranks::average(ranks, device, share, network.statistics.get_mut())
                })
            }
        };
        self.batches_trained += 1;
        done?;
        let (code, on_host) = (batch as u32, self.status.is_on_host());
        let Model { device, network, status, workspace, loss_scale, .. } = &mut *self;
        if let (Some(scale), Some(overflow)) = (loss_scale, &mut run.overflow) {
            // What a step does next depends on it: a device is waited for.
            overflow.clear(device)?;
            device.check_finite(network.gradients.get(), code, overflow.get_mut())?;
            if overflow.read(device)?.bad_gradient.is_none() {
                scale.grow();
            } else if scale.shrink() {
                return Ok(());
            }
        }
        device.check_finite(network.gradients.get(), code, status.get_mut())?;
        if on_host {
            diverged(run, epoch, &status.read(device)?, true)?;
        }
        match run.clip {
            None => {}
            Some(Clip::Value(most)) => device.clip_by_value(most, network.gradients.get_mut())?,
            Some(Clip::Norm(most)) => {
                device.sum_of_squares(network.gradients.get(), run.norm.view_mut(), workspace.all()?)?;
                device.clip_by_norm(most, run.norm.view(), network.gradients.get_mut())?;
            }
        }
        self.step_optimizer()
    }

    /// Changes the weights by the gradients that are there.
    fn step_optimizer(&mut self) -> Result<()> {
        let Model { device, network, optimizer, states, steps, schedule, .. } = self;
        if let Some(schedule) = schedule {
            // Not `max`, which would make a rate of a NaN.
            let rate = schedule.rate(*steps);
            optimizer.set_learning_rate(if rate == 0.0 { f64::MIN_POSITIVE } else { rate })?;
        }
        *steps += 1;
        optimizer.update(device, *steps, network.parameters.get_mut(), network.gradients.get(), states)?;
        self.constrain()
    }
}

/// Adds a batch to the metrics of an output.
fn update<E: Scalar>(
    device: &Device,
    metrics: &mut [MetricAccumulator],
    columns: usize,
    targets: TensorRef<'_>,
    predictions: TensorRef<'_>,
    weights: Option<TensorRef<'_>>,
) -> Result<()> {
    fn on_host<'a, E: Scalar>(device: &Device, tensor: TensorRef<'a>) -> Result<Cow<'a, [E]>> {
        Ok(if tensor.is_on_host() { Cow::Borrowed(tensor.host()?) } else { Cow::Owned(device.read(tensor)?) })
    }
    let (targets, predictions) = (on_host::<E>(device, targets)?, on_host::<E>(device, predictions)?);
    let weights = weights.map(|weights| on_host::<E>(device, weights)).transpose()?;
    metrics.iter_mut().try_for_each(|metric| metric.update(&targets, &predictions, columns, weights.as_deref()))
}

/// What metrics say, with a prefix before their names.
fn results(metrics: &[Vec<MetricAccumulator>], prefix: &str) -> Vec<(String, f64)> {
    metrics.iter().flatten().map(|metric| (format!("{prefix}{}", metric.name()), metric.result())).collect()
}

/// Mean loss of samples that stand where the device computes, and their metrics.
fn mean_loss(model: &mut Model, data: &PlacedData<'_>, metrics: &mut [Vec<MetricAccumulator>]) -> Result<f64> {
    let most = model.inference_batch(data.samples);
    model.allocate(most, false)?;
    model.status.clear(&model.device)?;
    metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
    let weighted = !data.weights.is_empty();
    for first in (0..data.samples).step_by(most) {
        let batch = most.min(data.samples - first);
        let Model { device, topology, network, outputs, .. } = model;
        let part = |from: TensorRef<'_>, size: usize, to: TensorMut<'_>| {
            device.copy(from.part(first * size..(first + batch) * size)?, to)
        };
        for ((_, value), from) in topology.inputs.iter().zip(&data.x) {
            part(from.view(), value.size(), network.value_mut(value, batch)?)?;
        }
        for (index, output) in outputs.iter_mut().enumerate() {
            let (width, rows) = (output.target_size(), output.rows());
            part(data.y[index].view(), width, output.targets.get_mut(batch * width)?)?;
            if weighted {
                output.sample_weights.grow(device, "weights of rows", batch * rows)?;
                part(data.weights[index].view(), rows, output.sample_weights.get_mut(batch * rows)?)?;
            }
        }
        network.forward(device, batch, false, 0)?;
        let entry = LossEntry { weight: batch as f64, code: 1 };
        model.run_losses(batch, entry, weighted, false)?;
        model.run_output_penalties(batch, entry, false)?;
        model.measure(batch, weighted, metrics)?;
    }
    model.run_weight_penalties(LossEntry { weight: data.samples as f64, code: 1 }, false)?;
    let total = model.status.read(&model.device)?.total;
    model.network.check(&model.device)?;
    Ok(total / data.samples as f64)
}

/// The error of a status that tells of a loss or gradient that is not finite.
fn diverged(run: &Run<'_, '_>, epoch: usize, report: &Report, on_host: bool) -> Result<()> {
    let Some((batch, quantity)) = divergence(report) else { return Ok(()) };
    let picked = run.order.chunks(run.batch_size).nth(batch - 1).unwrap_or_default();
    let picked = picked.iter().map(|sample| *sample as usize);
    Err(diverged_at((epoch, batch), quantity, report, on_host, &run.data, picked))
}

/// The first batch whose loss or gradient is not finite, by its code in the status, and which of the two it is.
fn divergence(report: &Report) -> Option<(usize, &'static str)> {
    // In a batch the loss comes first.
    let (batch, quantity) = match (report.bad_loss, report.bad_gradient) {
        (Some(loss), Some(gradient)) if gradient < loss => (gradient, "gradient"),
        (Some(loss), _) => (loss, "loss"),
        (None, Some(gradient)) => (gradient, "gradient"),
        (None, None) => return None,
    };
    Some((batch as usize, quantity))
}

/// The error of a batch of an epoch. `picked` are its samples' numbers in the data.
fn diverged_at(
    (epoch, batch): (usize, usize),
    quantity: &str,
    report: &Report,
    on_host: bool,
    data: &Part<'_>,
    mut picked: impl Iterator<Item = usize>,
) -> Error {
    let sample = picked.find(|sample| data.is_bad(*sample));
    let cause = sample.map(|s| format!(" (sample {s} of the data has a NaN or infinite value)")).unwrap_or_default();
    let value = match quantity {
        // A device does not say which of the two a gradient was.
        "gradient" if !on_host => "NaN or infinite".to_owned(),
        _ => report.bad_value.to_string(),
    };
    Error::Diverged { epoch, batch, what: format!("the {quantity} is {value}{cause}") }
}

/// The figure that says how good an epoch is.
struct Monitor {
    /// Its key; without one the validation loss, or the loss.
    key: Option<String>,
    /// 1 where more is better, else -1.
    sign: f64,
}

impl Monitor {
    fn new(key: Option<&str>, validated: bool, metrics: &[Vec<MetricAccumulator>]) -> Result<Self> {
        let metrics = || metrics.iter().flatten();
        let Some(key) = key else { return Ok(Monitor { key: None, sign: -1.0 }) };
        let of_validation = key.strip_prefix("val_").filter(|_| validated);
        let known = metrics().find(|metric| [Some(key), of_validation].contains(&Some(&*metric.name())));
        let sign = match known {
            Some(metric) if metric.metric().more_is_better() => 1.0,
            _ => -1.0,
        };
        if known.is_some() || key == "loss" || of_validation == Some("loss") {
            return Ok(Monitor { key: Some(key.to_owned()), sign });
        }
        let names = || std::iter::once("loss".to_owned()).chain(metrics().map(MetricAccumulator::name));
        let of_validation = names().filter(|_| validated).map(|name| format!("val_{name}"));
        let keys: Vec<_> = names().chain(of_validation).collect();
        Err(Error::option("monitor", format!("one of {}", keys.join(", ")), key))
    }

    /// The more the better.
    fn score(&self, loss: f64, val_loss: Option<f64>, metrics: &[(String, f64)]) -> f64 {
        let figure = match self.key.as_deref() {
            None => val_loss.unwrap_or(loss),
            Some("loss") => loss,
            Some("val_loss") => val_loss.unwrap_or(f64::NAN),
            Some(key) => metrics.iter().find(|(name, _)| name == key).map_or(f64::NAN, |(_, value)| *value),
        };
        self.sign * figure
    }
}

/// What one call of `fit` works with.
struct Run<'a, 'c> {
    /// The data on the host, to name a sample in errors.
    data: Part<'a>,
    placed: PlacedData<'a>,
    validation: Option<PlacedData<'a>>,
    order: Vec<u32>,
    placed_order: Tensor,
    /// The gradient's sum of squares.
    norm: Tensor,
    /// Whether gradients of a scaled loss are finite.
    overflow: Option<Status>,
    best: Tensor,
    best_statistics: Tensor,
    best_score: f64,
    monitor: Monitor,
    history: History,
    epochs: usize,
    /// Of all ranks together.
    batch_size: usize,
    shuffle: bool,
    clip: Option<Clip>,
    loss_every: usize,
    early_stopping: Option<EarlyStopping>,
    callbacks: Vec<&'c mut dyn Callback>,
    metrics: Vec<Vec<MetricAccumulator>>,
    ranks: Option<&'c dyn Ranks>,
}
