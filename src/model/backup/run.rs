//! From a training to its checkpoint, and back.

use std::path::Path;

use crate::backend::{Device, Tensor, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::metrics::MetricAccumulator;
use crate::model::Model;
use crate::model::backup::position::{self, Begun, Bits, Position, SavedHistory, damaged};
use crate::model::backup::settings::differs;
use crate::model::feed::SHUFFLE_STREAM;
use crate::model::file::MOST_STEPS;
use crate::model::fit::Run;
use crate::model::history::Outcome;
use crate::nn::network::{Network, Place};

/// Where a training goes on.
pub(in crate::model) enum Taken {
    /// There is no checkpoint: at the beginning.
    Nothing,
    /// After the epochs of its history; and after batches of the next one, where there are some.
    Epochs(Option<Begun>),
    /// Nowhere: it had ended.
    End,
}

/// The names of the tensors that a model keeps, beside the optimizer's and the carried ones.
const TENSORS: [&str; 4] = ["weights", "statistics", "best.weights", "best.statistics"];

impl Model {
    /// Refuses a model of which a checkpoint cannot hold everything.
    pub(in crate::model) fn check_backup(&self) -> Result<()> {
        self.network.carried_states().map(drop)
    }

    /// Where the epoch at hand stands, after a batch.
    pub(in crate::model) fn begun(
        &self,
        metrics: &[Vec<MetricAccumulator>],
        (batches, samples): (usize, usize),
        (looked, loss): (usize, f64),
    ) -> Result<Begun> {
        let numbers = |metric: &MetricAccumulator| metric.numbers().into_iter().map(Bits).collect();
        let metrics = metrics.iter().map(|output| output.iter().map(numbers).collect()).collect();
        let status = self.status.numbers(&self.device)?.map(Bits);
        Ok(Begun { batches, samples, looked, loss: Bits(loss), status, metrics })
    }

    /// Writes the checkpoint of a training, if it has one. `ended` says that it has come to its end.
    pub(in crate::model) fn back_up(
        &mut self,
        run: &mut Run<'_, '_, '_>,
        begun: Option<Begun>,
        ended: bool,
    ) -> Result<()> {
        let Some(backup) = &mut run.backup else { return Ok(()) };
        let carried = self.network.carried_states()?;
        let rate = self.optimizer.learning_rate();
        let position = Position {
            version: position::VERSION,
            settings: backup.settings.clone(),
            history: SavedHistory::new(&run.history),
            ended,
            best_score: Bits(run.best_score),
            first_rate: Bits(backup.first_rate),
            learning_rate: Bits(rate),
            steps: self.steps,
            // An epoch that goes on draws its order again.
            epochs: if begun.is_some() { run.epoch_number } else { self.epochs_trained },
            begun,
            batches: self.batches_trained,
            loss_scale: self.loss_scale,
            batches_of_epoch: run.feed.batches(),
            callbacks: run.callbacks.iter().map(|callback| callback.state()).collect(),
            carried: carried.iter().map(|one| one.as_ref().map(|(rows, tensors)| (*rows, tensors.len()))).collect(),
        };
        let network = &self.network;
        let own = [network.parameters.get(), network.statistics.get(), run.best.view(), run.best_statistics.view()];
        let mut tensors: Vec<_> = TENSORS.map(str::to_owned).into_iter().zip(own).collect();
        tensors.extend(self.states.iter().enumerate().map(|(number, state)| (optimizer(number), state.view())));
        for (number, (_, of_one)) in carried.iter().enumerate().filter_map(|(n, one)| Some((n, one.as_ref()?))) {
            tensors.extend(of_one.iter().enumerate().map(|(part, state)| (carried_name(number, part), *state)));
        }
        let copies = tensors.iter().map(|(_, tensor)| on_host(&self.device, *tensor)).collect::<Result<Vec<_>>>()?;
        for ((_, tensor), copy) in tensors.iter_mut().zip(&copies) {
            if let Some(copy) = copy {
                *tensor = copy.view();
            }
        }
        let written = position::write(backup.path(), &position, &tensors);
        backup.written(written)
    }

    /// Goes on from the checkpoint of a training, if there is one. Where it is refused, the model and the callbacks are as they were.
    pub(in crate::model) fn take_up(&mut self, run: &mut Run<'_, '_, '_>) -> Result<Taken> {
        let Some(backup) = &run.backup else { return Ok(Taken::Nothing) };
        let path = backup.path().to_owned();
        let Some((saved, file)) = position::read(&path)? else { return Ok(Taken::Nothing) };
        saved.settings.check(&backup.settings, &path)?;
        self.check_position(run, &saved, &path)?;
        let tensors = self.saved_tensors(&saved, &file, &path)?;
        // Callbacks and layers know best what they can take; what is refused is put back.
        let before: Vec<_> = run.callbacks.iter().map(|callback| callback.state()).collect();
        let taken = self.take_states(run, &saved, &tensors, &path);
        if taken.is_err() {
            for (callback, state) in run.callbacks.iter_mut().zip(before) {
                // It is what the callback itself has told.
                let _ = state.map_or(Ok(()), |state| callback.set_state(&state));
            }
        }
        taken?;

        let Model { device, network, .. } = &mut *self;
        device.upload_tensor(tensors.weights.view(), network.parameters.get_mut())?;
        device.upload_tensor(tensors.statistics.view(), network.statistics.get_mut())?;
        device.upload_tensor(tensors.best.view(), run.best.view_mut())?;
        device.upload_tensor(tensors.best_statistics.view(), run.best_statistics.view_mut())?;
        self.states = tensors.placed;
        (self.steps, self.batches_trained) = (saved.steps, saved.batches);
        (self.epochs_trained, self.loss_scale) = (saved.epochs, saved.loss_scale);
        run.best_score = saved.best_score.0;
        run.history = saved.history.build();
        run.feed.expect(saved.batches_of_epoch);
        if let Some(backup) = &mut run.backup {
            backup.first_rate = saved.first_rate.0;
        }
        // With more epochs what ended because they were over goes on.
        if saved.ended && (run.history.outcome != Outcome::Finished || run.history.loss.len() >= run.epochs) {
            return Ok(Taken::End);
        }
        run.history.outcome = Outcome::Finished;
        Ok(Taken::Epochs(saved.begun))
    }

    /// Refuses what no training with these settings can have written, tensors aside.
    fn check_position(&self, run: &mut Run<'_, '_, '_>, saved: &Position, path: &Path) -> Result<()> {
        // A callback may have set the rate of a model that is trained on in the same process.
        let rate = self.optimizer.learning_rate();
        if self.schedule.is_none() && ![saved.first_rate.0, saved.learning_rate.0].contains(&rate) {
            return Err(differs("learning_rate", Some(saved.first_rate.0), Some(rate), path));
        }
        if saved.callbacks.len() != run.callbacks.len() {
            return Err(differs("callbacks", Some(saved.callbacks.len()), Some(run.callbacks.len()), path));
        }
        let epochs = saved.history.loss.len();
        let least = epochs.saturating_add(usize::from(saved.begun.is_some()));
        if run.epochs < least {
            return Err(differs("epochs", Some(format!("at least {least}")), Some(run.epochs), path));
        }
        if !saved.history.fits(&run.figures()) {
            return Err(damaged(path, "its history has not a value of each epoch"));
        }
        if saved.ended && !matches!(saved.history.outcome, Outcome::Finished | Outcome::EarlyStopped) {
            return Err(damaged(path, "it ended, but its outcome is another"));
        }
        for (what, count, most) in [
            ("steps", saved.steps, MOST_STEPS),
            ("batches", saved.batches, MOST_STEPS),
            ("epochs", saved.epochs.into(), u64::from(SHUFFLE_STREAM) - 1),
        ] {
            if count > most {
                return Err(damaged(path, format!("{count} {what}; at most {most} are possible")));
            }
        }
        if saved.loss_scale.is_some() != self.loss_scale.is_some() {
            return Err(damaged(path, "it has a loss scale where the model has none, or none where it has one"));
        }
        if let Some(scale) = &saved.loss_scale {
            scale.validate().map_err(|e| damaged(path, e.to_string()))?;
        }
        let Some(begun) = &saved.begun else { return Ok(()) };
        if saved.ended {
            return Err(damaged(path, "an epoch goes on after the end"));
        }
        if begun.batches == 0 || begun.looked > begun.batches || !begun.is_sound() {
            return Err(damaged(path, "the sums of its epoch are none of so many batches"));
        }
        run.feed.check_skip(epochs + 1, begun.batches, begun.samples)?;
        self.restore_metrics(&mut run.metrics, begun, path)?;
        run.metrics.iter_mut().flatten().for_each(MetricAccumulator::reset);
        Ok(())
    }

    /// The tensors of a checkpoint, all of which fit and are what weights can be.
    fn saved_tensors(&self, saved: &Position, file: &TensorFile, path: &Path) -> Result<Saved> {
        let (dtype, weights, statistics) = (self.dtype(), self.count_params(), self.network.builder.statistics);
        let read = |name: &str, len: usize| position::tensor(file, name, dtype, len);
        let [own, own_statistics, best, best_statistics] = TENSORS;
        let (own, own_statistics) = (read(own, weights)?, read(own_statistics, statistics)?);
        let (best, best_statistics) = (read(best, weights)?, read(best_statistics, statistics)?);
        for (which, weights, statistics) in [("", &own, &own_statistics), ("best ", &best, &best_statistics)] {
            self.check_values(weights.view(), statistics.view())
                .map_err(|e| damaged(path, format!("{which}weights: {e}")))?;
        }
        let mut placed = Vec::new();
        for number in 0..self.optimizer.states() {
            // Without a step, as where a loss scale was too large for each, it is as in the beginning.
            if saved.steps == 0 {
                placed.push(self.initial_state(number)?);
                continue;
            }
            let state = read(&optimizer(number), weights)?;
            let mut place = self.device.allocate("optimizer's memory", state.len())?;
            self.device.upload_tensor(state.view(), place.view_mut())?;
            placed.push(place);
        }
        let mut carried = Vec::new();
        for (number, of_one) in saved.carried.iter().enumerate() {
            let Some((rows, count)) = *of_one else {
                carried.push(None);
                continue;
            };
            let names = (0..count).map(|part| carried_name(number, part));
            let tensors = names.map(|name| match file.shape(&name) {
                Some([len]) => read(&name, *len),
                _ => Err(damaged(path, format!("no tensor {name} of one axis"))),
            });
            carried.push(Some((rows, tensors.collect::<Result<Vec<_>>>()?)));
        }
        Ok(Saved { weights: own, statistics: own_statistics, best, best_statistics, placed, carried })
    }

    /// Refuses weights, in the host's memory, that no layer can have.
    fn check_values(&self, weights: TensorRef<'_>, statistics: TensorRef<'_>) -> Result<()> {
        fn is_finite<E: Scalar>(values: &[E]) -> bool {
            values.iter().all(|value| value.wide().is_finite())
        }
        for (layer, parameter) in self.network.tensors() {
            let values = match Place::of(parameter) {
                Place::Trained => weights,
                Place::Statistic => statistics,
                Place::Frozen => continue,
            };
            let values = values.part(parameter.range.clone())?;
            let finite = match values.dtype() {
                DType::F64 => is_finite::<f64>(values.host()?),
                _ => is_finite::<f32>(values.host()?),
            };
            if !finite {
                return Err(Error::other(format!("{layer}.{} has a value that is NaN or infinite", parameter.name)));
            }
            parameter.check(layer, values)?;
        }
        Ok(())
    }

    /// Gives callbacks, layers that carry states and the optimizer what they had; the layers and the optimizer are as they were where one refuses.
    fn take_states(&mut self, run: &mut Run<'_, '_, '_>, saved: &Position, tensors: &Saved, path: &Path) -> Result<()> {
        for (number, (callback, state)) in run.callbacks.iter_mut().zip(&saved.callbacks).enumerate() {
            if let Some(state) = state {
                callback.set_state(state).map_err(|e| damaged(path, format!("callback {}: {e}", number + 1)))?;
            }
        }
        let Model { device, network, optimizer, .. } = &mut *self;
        let mut before = Vec::new();
        for one in network.carried_states()? {
            let copy = |state: &TensorRef<'_>| {
                let mut copy = Tensor::on_host("states", state.dtype(), state.len())?;
                device.download_tensor(*state, copy.view_mut())?;
                Ok(copy)
            };
            before.push(match one {
                Some((rows, states)) => Some((rows, states.iter().map(copy).collect::<Result<Vec<_>>>()?)),
                None => None,
            });
        }
        let carry = |network: &mut Network, carried: &[OwnedStates]| {
            network.reset_states();
            let carried: Vec<_> = carried
                .iter()
                .map(|one| one.as_ref().map(|(rows, tensors)| (*rows, tensors.iter().map(Tensor::view).collect())))
                .collect();
            network.carry_states(device, &carried)
        };
        let carried = carry(network, &tensors.carried).and_then(|()| match run.feed.batch_size() {
            Some(size) if network.carried_batches().any(|carried| carried != size) => {
                Err(Error::other(format!("layers carry states of other batches than of {size} samples")))
            }
            _ => optimizer.set_learning_rate(saved.learning_rate.0),
        });
        carried.map_err(|e| match carry(network, &before) {
            Ok(()) => damaged(path, e.to_string()),
            Err(error) => error,
        })
    }

    /// Puts the sums of an epoch where they were after its last batch that is done.
    pub(in crate::model) fn go_on(&mut self, run: &mut Run<'_, '_, '_>, begun: &Begun) -> Result<()> {
        run.feed.skip(begun.batches, begun.samples)?;
        self.status.set(&self.device, &begun.status.map(|number| number.0))?;
        match &run.backup {
            Some(backup) => self.restore_metrics(&mut run.metrics, begun, backup.path()),
            None => Ok(()),
        }
    }

    /// Puts the sums of metrics where they were.
    fn restore_metrics(&self, metrics: &mut [Vec<MetricAccumulator>], begun: &Begun, path: &Path) -> Result<()> {
        let numbers = |saved: &[Bits]| saved.iter().map(|number| number.0).collect::<Vec<_>>();
        let fits = metrics.len() == begun.metrics.len()
            && self.outputs.iter().zip(metrics).zip(&begun.metrics).all(|((output, metrics), saved)| {
                let restored = |(metric, saved): (&mut MetricAccumulator, &Vec<Bits>)| {
                    metric.restore(&numbers(saved), output.columns())
                };
                metrics.len() == saved.len() && metrics.iter_mut().zip(saved).all(restored)
            });
        if fits { Ok(()) } else { Err(damaged(path, "its metrics are not those of the model")) }
    }
}

/// What a stateful operation carries, in the host's memory: rows of a batch and tensors.
type OwnedStates = Option<(usize, Vec<Tensor>)>;

/// The tensors of a checkpoint.
struct Saved {
    weights: Tensor,
    statistics: Tensor,
    best: Tensor,
    best_statistics: Tensor,
    /// The optimizer's memory, where the device computes.
    placed: Vec<Tensor>,
    carried: Vec<OwnedStates>,
}

/// The name of a tensor of the optimizer's memory.
fn optimizer(number: usize) -> String {
    format!("optimizer.{number}")
}

/// The name of a tensor that a stateful operation carries.
fn carried_name(operation: usize, part: usize) -> String {
    format!("carried.{operation}.{part}")
}

/// A copy in the host's memory, where the tensor is not there.
fn on_host(device: &Device, tensor: TensorRef<'_>) -> Result<Option<Tensor>> {
    if tensor.is_on_host() {
        return Ok(None);
    }
    let mut copy = Tensor::on_host("checkpoint", tensor.dtype(), tensor.len())?;
    device.download_tensor(tensor, copy.view_mut())?;
    Ok(Some(copy))
}

/// The error of an epoch whose batches are others than a checkpoint says.
pub(in crate::model) fn other_data(epoch: usize, done: (usize, usize), got: &str) -> Error {
    let (batches, samples) = done;
    Error::Presence {
        tensor: format!("batches of epoch {epoch}"),
        problem: format!(
            "training goes on after {batches} batches with {samples} samples, but there are {got}; give the same data, or remove the checkpoint"
        ),
    }
}
