//! Model files: safetensors with PyTorch's weight names, and the configuration as JSON in the metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::interop::safetensors::{self, NamedTensor, TensorFile};
use crate::loss::{Ctc, Loss, LossFunction};
use crate::model::feed::SHUFFLE_STREAM;
use crate::model::graph::check_connected;
use crate::model::{Graph, GraphConfig, LossScale, Model, Purpose, Sequential};
use crate::optim::{OptimizerConfig, Schedule};
use crate::rnn::shape::check_len;

/// The metadata entry that holds the configuration.
const KEY: &str = "fused-rnn";
/// The metadata entry of a file of weights alone: the version of the format.
const WEIGHTS_KEY: &str = "fused-rnn weights";

/// What the metadata entry holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Version of this structure.
    version: u32,
    model: GraphConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[serde(rename = "task")]
    purpose: Option<Purpose>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    training: Option<TrainingState>,
    /// Where another program has the samples in its inputs and outputs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ports: Option<serde_json::Value>,
}

/// How training goes on; beside it stand the optimizer's tensors, `optimizer.0`, `optimizer.1`, ….
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TrainingState {
    optimizer: OptimizerConfig,
    /// The loss of each output, and what it counts.
    losses: Vec<(SavedLoss, f64)>,
    seed: u64,
    steps: u64,
    epochs: u32,
    batches: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    schedule: Option<Schedule>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    loss_scale: Option<LossScale>,
}

/// Steps and batches, at most: more than any training has done, and numbers that an f64 holds exactly. Training ends there, so that what it
/// leaves can be read.
pub(super) const MOST_STEPS: u64 = 1 << 53;

impl TrainingState {
    /// Refuses numbers of steps from which training cannot go on.
    fn check_counts(&self, path: &Path) -> Result<()> {
        let most_epochs = u64::from(SHUFFLE_STREAM) - 1;
        let epochs = u64::from(self.epochs);
        for (name, count, most) in
            [("steps", self.steps, MOST_STEPS), ("batches", self.batches, MOST_STEPS), ("epochs", epochs, most_epochs)]
        {
            if count > most {
                let problem = format!("training.{name}: expected at most {most}, got {count}");
                return Err(format_error(path, problem));
            }
        }
        Ok(())
    }
}

/// A loss: its name and constants, or of one of the user's own the name.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
pub(super) enum SavedLoss {
    BuiltIn(Loss),
    Ctc { ctc: Ctc },
    Own { own: String },
}

impl SavedLoss {
    pub(super) fn new(loss: &LossFunction) -> Self {
        match loss {
            LossFunction::BuiltIn(loss) => SavedLoss::BuiltIn(*loss),
            LossFunction::Ctc(loss) => SavedLoss::Ctc { ctc: *loss },
            LossFunction::Own(loss) => SavedLoss::Own { own: loss.name().to_owned() },
        }
    }

    /// The loss again; `own` are those of the user.
    fn build(self, own: &[LossFunction], path: &Path) -> Result<LossFunction> {
        match self {
            SavedLoss::BuiltIn(loss) => Ok(loss.into()),
            SavedLoss::Ctc { ctc } => Ok(ctc.into()),
            SavedLoss::Own { own: name } => match own.iter().find(|loss| loss.name() == name) {
                Some(loss) => Ok(loss.clone()),
                None => Err(Error::Presence {
                    tensor: format!("loss {name:?} of {}", path.display()),
                    problem:
                        "the model was trained with this loss of its user's own, which a file cannot hold; give it to \
                              Model::load_with_losses"
                            .to_owned(),
                }),
            },
        }
    }
}

const VERSION: u32 = 2;

pub(super) fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "model", problem: problem.into() }
}

/// An error of weights that layers cannot have, as one of the file.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::InvalidOption { option, expected, got } => {
            format_error(path, format!("{option}: expected {expected}, got {got}"))
        }
        other => other,
    }
}

impl Sequential {
    /// Reads a stack of layers, see [`Model::load`].
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where it is no such model; [`Error::NonFinite`] for weights that are
    /// NaN or infinite; [`Error::Unsupported`] for a model with several inputs or outputs; all are listed at [`Model::load`].
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Sequential::from_model(Model::load(device, path)?)
    }
}

impl Model {
    /// Writes layers, weights and the optimizer's memory to a safetensors file, atomically. The same model gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::Unsupported`] for a layer that is none of this crate's;
    /// [`Error::NonFinite`] naming a weight that is NaN or infinite, [`Error::Presence`] for a model without layers: neither could be loaded.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        save(self, None, path)
    }

    /// Reads a model that [`save`](Self::save) wrote. Training goes on where it was: an epoch more gives the bits that it would have given
    /// without the file in between (on the same kind of device). Metrics and callbacks are set anew.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Format`] where the file is no such model, its tensors are not those its layers need, a variance is below zero, or
    /// training has done more steps than can be; [`Error::NonFinite`] for weights that are NaN or infinite; [`Error::Shape`], [`Error::ZeroSize`], [`Error::SizeOverflow`], [`Error::InvalidOption`] and
    /// [`Error::Presence`] for layers that cannot be or lead nowhere; [`Error::Unsupported`] where the device cannot do it or memory
    /// is short, [`Error::Driver`] where the GPU's driver fails.
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        load(device, path).map(|(model, _)| model)
    }

    /// The same for a model that was [compiled](Self::compile) with losses of one's own, which are given again, each under its name.
    ///
    /// ```
    /// # use fused_rnn::{Device, model::Sequential, nn::Dense, optim::Adam};
    /// use fused_rnn::loss::LossFunction;
    /// use fused_rnn::model::Model;
    /// let squares = LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)));
    /// # let folder = tempfile::tempdir().unwrap();
    /// # let path = folder.path().join("model.safetensors");
    /// # let mut model = Sequential::new(Device::cpu(), &[3], 1)?;
    /// # model.add(Dense::new(1))?.compile(Adam::default(), squares.clone())?;
    /// # model.save(&path)?;
    /// assert!(Model::load(Device::cpu(), &path).is_err());
    /// let model = Model::load_with_losses(Device::cpu(), &path, &[squares])?;
    /// # Ok::<(), fused_rnn::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`load`](Self::load); [`Error::Presence`] naming a loss that is not among these.
    pub fn load_with_losses(device: Device, path: impl AsRef<Path>, losses: &[LossFunction]) -> Result<Self> {
        let path = path.as_ref();
        read_model(device, path, losses).map(|(model, ..)| model)
    }
}

impl Model {
    /// Writes the weights alone to a safetensors file, atomically, Keras's `save_weights`: of models with layers of one's own, which
    /// [`save`](Self::save) cannot hold.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written; [`Error::NonFinite`] naming a weight that is NaN or infinite.
    pub fn save_weights(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let weights: Vec<_> = self.weights().collect();
        weights.iter().try_for_each(|(name, _, values)| check(name, *values, f64::is_finite))?;
        let tensors: Vec<NamedTensor<'_>> =
            weights.iter().map(|(name, shape, values)| (name.as_str(), shape.to_vec(), *values)).collect();
        safetensors::write(path, WEIGHTS_KEY, "1", &tensors)
    }

    /// Takes the weights from a file that [`save_weights`](Self::save_weights) or [`save`](Self::save) wrote of a model with the same layers,
    /// Keras's `load_weights`. The optimizer starts anew.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be read; [`Error::Format`] where its tensors are not those that the layers need, naming the first
    /// that differs; [`Error::NonFinite`] for weights that are NaN or infinite; [`Error::Unsupported`] where memory is short,
    /// [`Error::Driver`] where the GPU's driver fails. The weights then are as they were.
    pub fn load_weights(&mut self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let file = TensorFile::read(path)?;
        let expected = check_weights(self, &file, path)?;
        let others = file.names().filter(|name| !name.starts_with("optimizer.")).count();
        if others > expected {
            return Err(format_error(path, format!("{others} tensors, but the model's layers have {expected}")));
        }
        self.read_weights(|name, to| read(&file, name, path, to)).map_err(|e| in_file(path, e))
    }
}

/// Number of the layers' tensors, all of which the file has.
fn check_weights(model: &Model, file: &TensorFile, path: &Path) -> Result<usize> {
    let mut expected = 0;
    for (layer, parameter) in model.network.tensors() {
        let name = format!("{layer}.{}", parameter.name);
        match file.shape(&name) {
            Some(shape) if shape == parameter.shape => expected += 1,
            Some(shape) => {
                return Err(format_error(path, format!("{name}: expected shape {:?}, got {shape:?}", parameter.shape)));
            }
            None => return Err(format_error(path, format!("no tensor {name}"))),
        }
    }
    Ok(expected)
}

pub(super) fn save(model: &Model, purpose: Option<&Purpose>, path: &Path) -> Result<()> {
    write(model, purpose, None, path)
}

/// The same with the ports of an imported model.
#[cfg(feature = "exchange")]
pub(crate) fn save_with_ports(model: &Model, ports: serde_json::Value, path: &Path) -> Result<()> {
    write(model, None, Some(ports), path)
}

/// Refuses elements that no file is read with, before one is written.
fn check(name: &str, values: TensorRef<'_>, holds: fn(f64) -> bool) -> Result<()> {
    fn first<E: Scalar>(values: &[E], holds: fn(f64) -> bool) -> Option<(usize, f64)> {
        values.iter().map(|value| value.wide()).enumerate().find(|(_, value)| !holds(*value))
    }
    let bad = match values.dtype() {
        DType::F64 => first::<f64>(values.host()?, holds),
        _ => first::<f32>(values.host()?, holds),
    };
    match bad {
        None => Ok(()),
        Some((i, got)) => Err(Error::NonFinite {
            tensor: name.to_owned(),
            got,
            position: format!("element {i}"),
            help: "a model with it says nothing; set finite weights before it is saved".to_owned(),
        }),
    }
}

/// Whether an element of the optimizer's memory can be: a sum of squares may have become infinite, and its weight then moves no more.
fn is_memory(value: f64) -> bool {
    !value.is_nan()
}

fn write(model: &Model, purpose: Option<&Purpose>, ports: Option<serde_json::Value>, path: &Path) -> Result<()> {
    if model.outputs.is_empty() {
        let problem = "the model has none; add them before it is saved";
        return Err(Error::Presence { tensor: "layers".to_owned(), problem: problem.to_owned() });
    }
    let training = TrainingState {
        optimizer: model.optimizer.config(),
        losses: model.outputs.iter().map(|output| (SavedLoss::new(&output.loss), output.loss_weight)).collect(),
        seed: model.seed,
        steps: model.steps,
        epochs: model.epochs_trained,
        batches: model.batches_trained,
        schedule: model.schedule.clone(),
        loss_scale: model.loss_scale,
    };
    let description = Description {
        version: VERSION,
        model: model.config()?,
        purpose: purpose.cloned(),
        training: Some(training),
        ports,
    };
    let description = serde_json::to_string(&description).map_err(|e| format_error(path, e.to_string()))?;
    let weights: Vec<_> = model.weights().collect();
    weights.iter().try_for_each(|(name, _, values)| check(name, *values, f64::is_finite))?;
    let mut tensors: Vec<NamedTensor<'_>> =
        weights.iter().map(|(name, shape, values)| (name.as_str(), shape.to_vec(), *values)).collect();
    let mut states = Vec::new();
    for (number, state) in model.states.iter().enumerate().filter(|_| model.steps > 0 && model.count_params() > 0) {
        let mut values = Tensor::on_host("optimizer's memory", state.dtype(), state.len())?;
        model.device.download_tensor(state.view(), values.view_mut())?;
        let name = format!("optimizer.{number}");
        check(&name, values.view(), is_memory)?;
        states.push((name, values));
    }
    tensors.extend(states.iter().map(|(name, values)| (name.as_str(), vec![values.len()], values.view())));
    safetensors::write(path, KEY, &description, &tensors)
}

pub(super) fn load(device: Device, path: &Path) -> Result<(Model, Option<Purpose>)> {
    read_model(device, path, &[]).map(|(model, purpose, _)| (model, purpose))
}

/// The same with the ports of an imported model, where there are some.
#[cfg(feature = "exchange")]
pub(crate) fn load_with_ports(device: Device, path: &Path) -> Result<(Model, Option<serde_json::Value>)> {
    read_model(device, path, &[]).map(|(model, _, ports)| (model, ports))
}

fn read_model(
    device: Device,
    path: &Path,
    own: &[LossFunction],
) -> Result<(Model, Option<Purpose>, Option<serde_json::Value>)> {
    let file = TensorFile::read(path)?;
    let description = file.metadata(KEY).ok_or_else(|| {
        format_error(path, format!("no entry {KEY} in its metadata; was it written by this program?"))
    })?;
    let description: Description =
        serde_json::from_str(description).map_err(|e| format_error(path, format!("metadata entry {KEY}: {e}")))?;
    if description.version != VERSION {
        return Err(format_error(
            path,
            format!("version {} of the format; this program reads {VERSION}", description.version),
        ));
    }

    // Names and shapes first: nothing is allocated for a configuration that the file's own size does not bear out.
    let most = file.names().count();
    let config = &description.model;
    if config.layers.len().max(config.calls.len()) > 4096 * (most + 1) {
        return Err(format_error(path, "far more layers than tensors"));
    }
    let (builder, topology) = Graph::from_config(config)?;
    check_connected(&topology, &config.outputs)?;
    let mut model = Model::from_parts(device, builder, topology, &config.outputs, 0)?;
    let mut expected = check_weights(&model, &file, path)?;
    let training = description.training;
    let states = match &training {
        Some(training) if training.steps > 0 && model.count_params() > 0 => {
            training.optimizer.build().map_err(|e| format_error(path, e.to_string()))?.states()
        }
        _ => 0,
    };
    for number in 0..states {
        let name = format!("optimizer.{number}");
        if file.shape(&name) != Some([model.count_params()].as_slice()) {
            return Err(format_error(path, format!("{name}: expected shape [{}]", model.count_params())));
        }
        expected += 1;
    }
    if most != expected {
        return Err(format_error(path, format!("{most} tensors, but its layers have {expected}")));
    }
    model.read_weights(|name, to| read(&file, name, path, to)).map_err(|e| in_file(path, e))?;
    if let Some(training) = training {
        training.check_counts(path)?;
        if training.losses.len() != model.outputs.len() {
            return Err(format_error(path, "another number of losses than outputs"));
        }
        let losses = training.losses.into_iter().map(|(loss, weight)| Ok((loss.build(own, path)?, weight)));
        let losses: Vec<_> = losses.collect::<Result<_>>()?;
        model.set_losses(losses).map_err(|e| format_error(path, e.to_string()))?;
        model.optimizer = training.optimizer.build().map_err(|e| format_error(path, e.to_string()))?;
        for number in 0..states {
            let mut values = Tensor::on_host("optimizer's memory", model.dtype(), model.count_params())?;
            read_if(&file, &format!("optimizer.{number}"), path, values.view_mut(), is_memory)?;
            let mut state = model.device.allocate("optimizer's memory", values.len())?;
            model.device.upload_tensor(values.view(), state.view_mut())?;
            model.states.push(state);
        }
        (model.seed, model.steps) = (training.seed, training.steps);
        (model.epochs_trained, model.batches_trained) = (training.epochs, training.batches);
        if let Some(schedule) = training.schedule {
            model.schedule(schedule).map_err(|e| format_error(path, e.to_string()))?;
        }
        if let Some(scale) = training.loss_scale {
            scale.validate().map_err(|e| format_error(path, e.to_string()))?;
            model.loss_scale = Some(scale);
        }
    }
    Ok((model, description.purpose, description.ports))
}

/// A tensor of the file, every element finite.
fn read(file: &TensorFile, name: &str, path: &Path, to: TensorMut<'_>) -> Result<()> {
    read_if(file, name, path, to, f64::is_finite)
}

fn read_if(file: &TensorFile, name: &str, path: &Path, to: TensorMut<'_>, holds: fn(f64) -> bool) -> Result<()> {
    fn read_as<E: Scalar>(
        file: &TensorFile,
        name: &str,
        path: &Path,
        to: &mut [E],
        holds: fn(f64) -> bool,
    ) -> Result<()> {
        let (shape, values) = file.floats::<E>(name)?;
        check_len(name, &shape, to.len())?;
        if let Some((i, got)) = values.iter().enumerate().find(|(_, v)| !holds(v.wide())) {
            return Err(Error::NonFinite {
                tensor: name.to_owned(),
                got: got.wide(),
                position: format!("element {i} in {}", path.display()),
                help: "train the model anew".to_owned(),
            });
        }
        to.copy_from_slice(&values);
        Ok(())
    }
    match to.dtype() {
        DType::F64 => read_as::<f64>(file, name, path, to.host()?, holds),
        _ => read_as::<f32>(file, name, path, to.host()?, holds),
    }
}
