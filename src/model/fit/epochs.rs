//! The epochs of a training, and the batches of an epoch.

use crate::backend::ops::Report;
use crate::error::{Error, Result};
use crate::metrics::MetricAccumulator;
use crate::model::Model;
use crate::model::backup::Begun;
use crate::model::callbacks::{BatchEnd, EpochBegin, EpochEnd, Training};
use crate::model::evaluate::{mean_loss, results};
use crate::model::feed::SHUFFLE_STREAM;
use crate::model::fit::Run;
use crate::model::fit::step::diverged;
use crate::model::history::Outcome;
use crate::model::ranks;

impl Model {
    /// The epochs after those of the history, the first of which may have `begun` before.
    pub(super) fn train_epochs(&mut self, run: &mut Run<'_, '_, '_>, mut begun: Option<Begun>) -> Result<()> {
        let done = run.history.loss.len();
        // Training that was stopped just there, or had no more epochs, has not looked yet.
        if begun.is_none() && done < run.epochs && run.has_waited(done) {
            run.history.outcome = Outcome::EarlyStopped;
            return Ok(());
        }
        for epoch in done + 1..=run.epochs {
            let begins = run.feed.begin(epoch).and_then(|()| {
                let begin = EpochBegin { epoch, epochs: run.epochs, batches: run.feed.batches() };
                run.callbacks.iter_mut().try_for_each(|callback| match &begun {
                    None => callback.on_epoch_begin(&begin, self),
                    Some(begun) => callback.on_epoch_resume(&begin, begun.batches),
                })
            });
            ranks::agree_if(run.ranks, begins)?;
            if let Some(ranks) = run.ranks {
                ranks::check_same(ranks, &[("learning rate", Training::learning_rate(self).to_bits())])?;
            }
            let trained = self.train_epoch(run, epoch, begun.take())?;
            self.check_weights(run, epoch, trained.map_or(0, |(_, batches)| batches))?;
            let Some((loss, batches)) = trained else {
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
            let mut val_loss = match &mut run.validation {
                None => None,
                Some(data) => {
                    if run.feed.is_open() {
                        data.choose_batch_size(self)?;
                    }
                    let loss = mean_loss(self, data, epoch, &mut run.metrics);
                    let loss = ranks::agree_if(run.ranks, loss)?;
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
                return Err(Error::Diverged {
                    epoch,
                    batch: batches,
                    what: format!("the validation loss is {val_loss}"),
                });
            }
            let score = run.monitor.score(loss, val_loss, &metrics);
            run.history.loss.push(loss);
            run.history.learning_rate.push(Training::learning_rate(self));
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
                return self.back_up(run, None, false);
            }
            if epoch < run.epochs && run.has_waited(epoch) {
                run.history.outcome = Outcome::EarlyStopped;
                return Ok(());
            }
            if epoch < run.epochs && run.backup.as_ref().is_some_and(|backup| backup.is_due_after_epoch(epoch)) {
                self.back_up(run, None, false)?;
            }
        }
        Ok(())
    }

    /// One pass over the data, or the rest of one that had `begun`; the mean loss and the number of batches, or `None` where a callback stopped
    /// it.
    fn train_epoch(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        epoch: usize,
        begun: Option<Begun>,
    ) -> Result<Option<(f64, usize)>> {
        run.epoch_number = self.epochs_trained;
        run.feed.shuffle(&self.device, self.seed, self.epochs_trained)?;
        self.epochs_trained = (self.epochs_trained + 1) % SHUFFLE_STREAM;
        self.status.clear(&self.device)?;
        run.metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
        let batches = run.feed.batches();
        let (mut batch, mut looked, mut seen, mut loss) = (0, 0, 0usize, 0.0);
        if let Some(begun) = begun {
            self.go_on(run, &begun)?;
            (batch, looked, seen, loss) = (begun.batches, begun.looked, begun.samples, begun.loss.0);
        }
        while let Some(size) = self.next_batch(run)? {
            batch += 1;
            self.train_batch(run, epoch, batch, size)?;
            seen += size;
            if self.status.is_on_host() || (batch - 1).is_multiple_of(run.loss_every) || batch == batches {
                (loss, looked) = (self.mean_so_far(run, epoch, seen)?, batch);
            }
            let state = BatchEnd { epoch, batch, batches, loss, accumulators: &run.metrics };
            let mut stop = false;
            for callback in &mut run.callbacks {
                stop |= callback.on_batch_end(&state).is_break();
            }
            if let Some(ranks) = run.ranks {
                stop = ranks::sum(ranks, f64::from(stop))? != 0.0;
            }
            if run.backup.as_mut().is_some_and(|backup| backup.is_due_after_batch() || stop) {
                // What has diverged is no state to go on from, and a device has not told yet. Weights that the last step has made infinite tell of
                // it in the next batch, or after this one where training stops.
                self.look(run, epoch)?;
                if self.are_weights_finite(run)? {
                    let begun = self.begun(&run.metrics, (batch, seen), (looked, loss))?;
                    self.back_up(run, Some(begun), false)?;
                }
            }
            if stop {
                return Ok(None);
            }
        }
        // Which batch is the last is not always known before.
        if looked != batch {
            loss = self.mean_so_far(run, epoch, seen)?;
        }
        Ok(Some((loss, batch)))
    }

    /// Refuses weights that the last step has made infinite, which no further loss would tell of.
    fn check_weights(&mut self, run: &mut Run<'_, '_, '_>, epoch: usize, batch: usize) -> Result<()> {
        if self.are_weights_finite(run)? {
            return Ok(());
        }
        Err(Error::Diverged { epoch, batch, what: "a weight is NaN or infinite".to_owned() })
    }

    fn are_weights_finite(&self, run: &mut Run<'_, '_, '_>) -> Result<bool> {
        let Model { device, network, .. } = self;
        run.finite.clear(device)?;
        for weights in [network.parameters.get(), network.statistics.get()] {
            device.check_finite(weights, 1, run.finite.get_mut())?;
        }
        Ok(run.finite.read(device)?.bad_gradient.is_none())
    }

    /// Goes on to the next batch, of which all ranks have the same; its samples.
    fn next_batch(&mut self, run: &mut Run<'_, '_, '_>) -> Result<Option<usize>> {
        let next = run.feed.next(self);
        let Some(ranks) = run.ranks.filter(|_| run.feed.is_open()) else { return next };
        let next = ranks::agree(ranks, next)?;
        ranks::check_same(ranks, &[("samples of a batch", next.unwrap_or(0) as u64)])?;
        Ok(next)
    }

    /// The mean loss of the samples of all ranks so far.
    fn mean_so_far(&self, run: &Run<'_, '_, '_>, epoch: usize, samples: usize) -> Result<f64> {
        let report = self.look(run, epoch);
        let total = match run.ranks {
            None => report?.total,
            Some(ranks) => ranks::sum(ranks, ranks::agree(ranks, report)?.total)?,
        };
        Ok(total / samples as f64)
    }

    /// Waits for the batches so far, and says how they went.
    fn look(&self, run: &Run<'_, '_, '_>, epoch: usize) -> Result<Report> {
        let report = self.status.read(&self.device)?;
        self.check_operations()?;
        diverged(run, epoch, &report, self.status.is_on_host())?;
        Ok(report)
    }
}
