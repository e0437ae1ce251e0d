//! From a training to its checkpoint, and back.

use crate::backend::{Device, Tensor, TensorRef};
use crate::error::{Error, Result};
use crate::metrics::MetricAccumulator;
use crate::model::Model;
use crate::model::backup::position::{self, Begun, Bits, Position, SavedHistory, damaged};
use crate::model::backup::settings::differs;
use crate::model::fit::Run;
use crate::model::history::Outcome;

/// Where a training goes on.
pub(in crate::model) enum Taken {
    /// There is no checkpoint: at the beginning.
    Nothing,
    /// After the epochs of its history; and after batches of the next one, where there are some.
    Epochs(Option<Begun>),
    /// Nowhere: it had ended.
    End,
}

/// Steps and batches that no training reaches, and from which many more can be counted.
const MOST_STEPS: u64 = 1 << 62;

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

    /// Goes on from the checkpoint of a training, if there is one.
    pub(in crate::model) fn take_up(&mut self, run: &mut Run<'_, '_, '_>) -> Result<Taken> {
        let Some(backup) = &mut run.backup else { return Ok(Taken::Nothing) };
        let path = backup.path().to_owned();
        let Some((saved, file)) = position::read(&path)? else { return Ok(Taken::Nothing) };
        saved.settings.check(&backup.settings, &path)?;
        // A callback may have set the rate of a model that is trained on in the same process.
        let rate = self.optimizer.learning_rate();
        if self.schedule.is_none() && ![saved.first_rate.0, saved.learning_rate.0].contains(&rate) {
            return Err(differs("learning_rate", Some(saved.first_rate.0), Some(rate), &path));
        }
        if saved.callbacks.len() != run.callbacks.len() {
            return Err(differs("callbacks", Some(saved.callbacks.len()), Some(run.callbacks.len()), &path));
        }
        let Some(history) = saved.history.build(run.epochs) else {
            return Err(damaged(&path, "its history has not a value of each epoch"));
        };

        // Everything is there and fits before the model changes.
        let (dtype, weights, statistics) = (self.dtype(), self.count_params(), self.network.builder.statistics);
        let read = |name: &str, len: usize| position::tensor(&file, name, dtype, len);
        let [own, own_statistics, best, best_statistics] = TENSORS;
        let own = read(own, weights)?;
        let own_statistics = read(own_statistics, statistics)?;
        let best = read(best, weights)?;
        let best_statistics = read(best_statistics, statistics)?;
        let of_optimizer = if saved.steps > 0 { self.optimizer.states() } else { 0 };
        let states = (0..of_optimizer).map(|number| read(&optimizer(number), weights)).collect::<Result<Vec<_>>>()?;
        let mut carried = Vec::new();
        for (number, of_one) in saved.carried.iter().enumerate() {
            let Some((rows, count)) = *of_one else {
                carried.push(None);
                continue;
            };
            let names = (0..count).map(|part| carried_name(number, part));
            let tensors = names.map(|name| match file.shape(&name) {
                Some([len]) => read(&name, *len),
                _ => Err(damaged(&path, format!("no tensor {name} of one axis"))),
            });
            carried.push(Some((rows, tensors.collect::<Result<Vec<_>>>()?)));
        }
        if saved.steps.max(saved.batches) > MOST_STEPS {
            return Err(damaged(&path, format!("more than {MOST_STEPS} steps")));
        }
        if let Some(scale) = &saved.loss_scale {
            scale.validate().map_err(|e| damaged(&path, e.to_string()))?;
        }

        for (number, (callback, state)) in run.callbacks.iter_mut().zip(&saved.callbacks).enumerate() {
            if let Some(state) = state {
                callback.set_state(state).map_err(|e| damaged(&path, format!("callback {}: {e}", number + 1)))?;
            }
        }
        let Model { device, network, optimizer, .. } = &mut *self;
        device.upload_tensor(own.view(), network.parameters.get_mut())?;
        device.upload_tensor(own_statistics.view(), network.statistics.get_mut())?;
        device.upload_tensor(best.view(), run.best.view_mut())?;
        device.upload_tensor(best_statistics.view(), run.best_statistics.view_mut())?;
        network.reset_states();
        let carried: Vec<_> = carried
            .iter()
            .map(|one| one.as_ref().map(|(rows, tensors)| (*rows, tensors.iter().map(Tensor::view).collect())))
            .collect();
        network.carry_states(device, &carried).map_err(|e| damaged(&path, e.to_string()))?;
        optimizer.set_learning_rate(saved.learning_rate.0).map_err(|e| damaged(&path, e.to_string()))?;
        if saved.steps > 0 {
            self.states.clear();
            for state in &states {
                let mut placed = self.device.allocate("optimizer's memory", state.len())?;
                self.device.upload_tensor(state.view(), placed.view_mut())?;
                self.states.push(placed);
            }
        }
        (self.steps, self.batches_trained) = (saved.steps, saved.batches);
        (self.epochs_trained, self.loss_scale) = (saved.epochs, saved.loss_scale);
        run.best_score = saved.best_score.0;
        run.history = history;
        run.feed.expect(saved.batches_of_epoch);
        backup.first_rate = saved.first_rate.0;
        if saved.ended {
            return Ok(Taken::End);
        }
        run.history.outcome = Outcome::Finished;
        Ok(Taken::Epochs(saved.begun))
    }

    /// Puts the sums of an epoch where they were after its last batch that is done.
    pub(in crate::model) fn go_on(&mut self, run: &mut Run<'_, '_, '_>, begun: &Begun) -> Result<()> {
        run.feed.skip(begun.batches, begun.samples)?;
        self.status.set(&self.device, &begun.status.map(|number| number.0))?;
        let fits = run.metrics.len() == begun.metrics.len()
            && run.metrics.iter_mut().zip(&begun.metrics).all(|(output, saved)| {
                output.len() == saved.len()
                    && output
                        .iter_mut()
                        .zip(saved)
                        .all(|(metric, saved)| metric.restore(&saved.iter().map(|number| number.0).collect::<Vec<_>>()))
            });
        match &run.backup {
            Some(backup) if !fits => Err(damaged(backup.path(), "its metrics are not those of the model")),
            _ => Ok(()),
        }
    }
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

/// The error of an epoch that has fewer samples or batches than a checkpoint says.
pub(in crate::model) fn too_few(what: &str, epoch: usize, done: usize) -> Error {
    Error::Presence {
        tensor: format!("{what} of epoch {epoch}"),
        problem: format!(
            "training goes on after {done} of them, but there are fewer; give the same data, or remove the checkpoint"
        ),
    }
}
