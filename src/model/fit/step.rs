//! A step: the gradients of a batch, and what the optimizer makes of them.

use std::ops::Range;
use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};

use crate::backend::ops::{LossEntry, Report};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::arrays::{Arrays, Data, any};
use crate::model::callbacks::Training;
use crate::model::feed::SHUFFLE_STREAM;
use crate::model::file::MOST_STEPS;
use crate::model::fit::{Clip, FitOptions, Run, Source};
use crate::model::ranks;
use crate::optim::Schedule;

/// The rate that a schedule gives for a step.
fn of_schedule(schedule: &Schedule, step: u64) -> f64 {
    above_zero(schedule.rate(step))
}

/// A rate of zero, at which schedules end and to which rates fall that are lowered again and again, counts as the smallest number above it.
fn above_zero(rate: f64) -> f64 {
    // Not `max`, which would make a rate of a NaN.
    if rate == 0.0 { f64::MIN_POSITIVE } else { rate }
}

impl Training for Model {
    fn learning_rate(&self) -> f64 {
        match &self.schedule {
            Some(schedule) if self.steps == 0 => of_schedule(schedule, 0),
            // Every step leaves its rate there.
            _ => self.optimizer.learning_rate(),
        }
    }

    fn set_learning_rate(&mut self, rate: f64) -> Result<()> {
        if self.schedule.is_some() {
            return Err(Error::option(
                "learning rate",
                "the one of the model's schedule, which sets it before every step; train without the callback that sets it, or without \
                 Model::schedule",
                rate,
            ));
        }
        self.optimizer.set_learning_rate(above_zero(rate))
    }

    fn save(&mut self, path: &Path) -> Result<()> {
        self.refresh()?;
        Model::save(self, path)
    }

    fn model(&mut self) -> Result<&Model> {
        self.refresh()?;
        Ok(self)
    }

    fn predict(&mut self, x: &[ArrayViewD<'_, f32>]) -> Result<Vec<ArrayD<f32>>> {
        // Training goes on at the lengths that it had.
        let lengths = self.topology.lengths.clone();
        let outputs = self.predict_all(x.iter().map(|x| x.view()).collect::<Vec<_>>());
        self.take_lengths(&lengths)?;
        outputs
    }
}

impl Model {
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
            let history = self.train(Source::Arrays(x, y), options)?;
            return Ok(history.loss.first().copied().unwrap_or(f64::NAN));
        }
        // The same on the host without what `fit` needs for many batches. A loss or gradient that is not finite is known before any weight
        // changes, so that no copy of them is needed to go back to; statistics change in the forward pass.
        let data = self.check_data("", x, Some(y))?;
        self.optimizer.validate()?;
        self.check_count()?;
        self.allocate(data.samples, true)?;
        let mut statistics = self.device.allocate("statistics", self.network.builder.statistics)?;
        self.device.copy(self.network.statistics.get(), statistics.view_mut())?;
        let loss = self.train_on(&data);
        if let Err(Error::Diverged { .. }) = loss {
            self.device.copy(statistics.view(), self.network.statistics.get_mut())?;
            self.forget();
            self.network.reset_states();
        }
        loss.map_err(|error| self.explained(error))
    }

    /// Refuses a step more than a file can hold.
    fn check_count(&self) -> Result<()> {
        if self.steps.max(self.batches_trained) < MOST_STEPS {
            return Ok(());
        }
        let why = "no file could hold how many they are; compile the model anew, or make it from its configuration and set its weights";
        Err(Error::unsupported(format!("training after {MOST_STEPS} steps"), why))
    }

    /// One step on all samples, where the host computes and there is room for them; the loss before it.
    fn train_on(&mut self, data: &Data<'_>) -> Result<f64> {
        let samples = data.samples;
        let check = |report: &Report| match divergence(report) {
            None => Ok(()),
            Some((batch, quantity)) => {
                let part = data.part(0..samples)?;
                let bad = (0..samples).find(|sample| part.is_bad(*sample));
                let cause = bad.map(|sample| format!("sample {sample} of the data has a NaN or infinite value"));
                Err(diverged_at((1, batch), quantity, report, true, cause))
            }
        };
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.place_part(&data.part(0..samples)?)?;
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

    /// Gradients of some samples of the batch at hand. Its code in the status is its number.
    fn differentiate_batch(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        epoch: usize,
        batch: usize,
        samples: Range<usize>,
    ) -> Result<()> {
        let (code, size) = (code_of(batch), samples.len());
        if run.feed.is_open() {
            self.allocate(size, true)?;
        }
        let weighted = run.feed.place(self, samples, code)?;
        // Other masks of dropout on every rank.
        let rank = run.ranks.map_or(0, |ranks| ranks.rank() as u64);
        let seed = self.step_seed() ^ rank.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.run_training(size, LossEntry { weight: size as f64, code }, weighted, seed, false)?;
        if self.status.is_on_host() {
            diverged(run, epoch, &self.status.read(&self.device)?, true)?;
        }
        self.measure(size, weighted, &mut run.metrics)
    }

    /// One step on the `size` samples of the batch at hand, of all ranks together.
    pub(super) fn train_batch(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        epoch: usize,
        batch: usize,
        size: usize,
    ) -> Result<()> {
        self.check_count()?;
        let done = match run.ranks {
            None => self.differentiate_batch(run, epoch, batch, 0..size),
            Some(ranks) => {
                let bound = |rank: usize| size * rank / ranks.count();
                let own = bound(ranks.rank())..bound(ranks.rank() + 1);
                let done = match own.len() {
                    // Gradients of none count nothing, but have their place.
                    0 if run.feed.is_open() => self.allocate(1, true),
                    0 => Ok(()),
                    _ => self.differentiate_batch(run, epoch, batch, own.clone()),
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
        let (code, on_host) = (code_of(batch), self.status.is_on_host());
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
            optimizer.set_learning_rate(of_schedule(schedule, *steps))?;
        }
        *steps += 1;
        optimizer.update(device, *steps, network.parameters.get_mut(), network.gradients.get(), states)?;
        self.constrain()
    }
}

/// The error of a status that tells of a loss or gradient that is not finite.
pub(super) fn diverged(run: &Run<'_, '_, '_>, epoch: usize, report: &Report, on_host: bool) -> Result<()> {
    let Some((batch, quantity)) = divergence(report) else { return Ok(()) };
    Err(diverged_at((epoch, batch), quantity, report, on_host, run.feed.bad_sample(batch)))
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

/// A batch's code in the status.
fn code_of(batch: usize) -> u32 {
    u32::try_from(batch).unwrap_or(u32::MAX)
}

/// The error of a batch of an epoch, with its cause where that is known.
fn diverged_at(
    (epoch, batch): (usize, usize),
    quantity: &str,
    report: &Report,
    on_host: bool,
    cause: Option<String>,
) -> Error {
    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
    let value = match quantity {
        // A device does not say which of the two a gradient was.
        "gradient" if !on_host => "NaN or infinite".to_owned(),
        _ => report.bad_value.to_string(),
    };
    Error::Diverged { epoch, batch, what: format!("the {quantity} is {value}{cause}") }
}
