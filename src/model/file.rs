//! Model files: safetensors with PyTorch's weight names, and the configuration as JSON in the metadata.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::DenseBackend;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::interop::safetensors::{self, NamedTensor, TensorFile};
use crate::model::graph::check_connected;
use crate::model::{Graph, GraphConfig, Model, Sequential, Task};
use crate::nn::grow;

/// The metadata entry that holds the configuration.
const KEY: &str = "fused-rnn";

/// What the metadata entry holds.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    /// Version of this structure.
    version: u32,
    model: GraphConfig,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    task: Option<Task>,
}

const VERSION: u32 = 2;

pub(super) fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "model", problem: problem.into() }
}

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Sequential<E, B>
where
    B::Plan: 'static,
{
    /// Reads a stack of layers, see [`Model::load`].
    ///
    /// # Errors
    ///
    /// Those of [`Model::load`], and [`Error::Unsupported`] for a model with several inputs or outputs.
    pub fn load(backend: B, path: &Path) -> Result<Self> {
        Sequential::from_model(Model::load(backend, path)?)
    }
}

impl<E: Scalar, B: DenseBackend<Elem = E> + 'static> Model<E, B>
where
    B::Plan: 'static,
{
    /// Writes layers and weights to a safetensors file, atomically. The same model gives the same bytes.
    ///
    /// # Errors
    ///
    /// [`Error::Io`].
    pub fn save(&self, path: &Path) -> Result<()> {
        save(self, None, path)
    }

    /// Reads a model that [`save`](Self::save) wrote. Training goes on with a new optimizer.
    ///
    /// # Errors
    ///
    /// [`Error::Io`]; [`Error::Format`] where the file is no such model, or its tensors are not those its layers need;
    /// [`Error::NonFinite`] for weights that are NaN or infinite; the errors of [`add`](Self::add) for layers that cannot be.
    pub fn load(backend: B, path: &Path) -> Result<Self> {
        load(backend, path).map(|(model, _)| model)
    }
}

pub(super) fn save<E: Scalar, B: DenseBackend<Elem = E> + 'static>(
    model: &Model<E, B>,
    task: Option<&Task>,
    path: &Path,
) -> Result<()>
where
    B::Plan: 'static,
{
    let description = Description { version: VERSION, model: model.config()?, task: task.cloned() };
    let description = serde_json::to_string(&description).map_err(|e| format_error(path, e.to_string()))?;
    let weights: Vec<_> = model.weights().collect();
    let tensors: Vec<NamedTensor<'_, E>> =
        weights.iter().map(|(name, shape, values)| (name.as_str(), shape.to_vec(), *values)).collect();
    safetensors::write(path, KEY, &description, &tensors)
}

pub(super) fn load<E: Scalar, B: DenseBackend<Elem = E> + 'static>(
    backend: B,
    path: &Path,
) -> Result<(Model<E, B>, Option<Task>)>
where
    B::Plan: 'static,
{
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
    if config.layers.len().max(config.calls.len()) > 64 * (most + 1) {
        return Err(format_error(path, "far more layers than tensors"));
    }
    let (builder, topology) = Graph::from_config(config)?;
    check_connected(&topology, &config.outputs)?;
    let mut model = Model::from_parts(backend, builder, topology, &config.outputs, 0)?;
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
    if most != expected {
        return Err(format_error(path, format!("{most} tensors, but its layers have {expected}")));
    }
    let mut weights = [Vec::new(), Vec::new()];
    grow(&mut weights[0], model.network.builder.parameters, "weights")?;
    grow(&mut weights[1], model.network.builder.statistics, "statistics")?;
    for (layer, parameter) in model.network.tensors() {
        let name = format!("{layer}.{}", parameter.name);
        let (_, values) = file.floats::<E>(&name)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            return Err(Error::NonFinite {
                tensor: name,
                got: values[i].wide(),
                position: format!("element {i} in {}", path.display()),
                help: "train the model anew".to_owned(),
            });
        }
        weights[usize::from(!parameter.trainable)][parameter.range.clone()].copy_from_slice(&values);
    }
    let [parameters, statistics] = weights;
    model.replace_weights(parameters, statistics)?;
    Ok((model, description.task))
}
