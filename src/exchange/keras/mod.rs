//! Models of [Keras 3](https://keras.io/api/models/model_saving_apis/): `.keras` files, and the weights alone, `.weights.h5`.
//!
//! A `.keras` file is a zip of `config.json`, which says what the layers are and how they are connected, and of `model.weights.h5`, HDF5
//! with their arrays. Sequential and functional models are read, with layers used several times, several inputs and outputs, states, masks,
//! and models inside of models, which become one graph. How it is trained is read too: frozen layers, regularizers, constraints, optimizer,
//! losses, metrics. What of that this crate has not is listed in [`Imported::left_out`]; what changes outputs and is not here is an error that
//! names the layer and the option.
//!
//! | file | what |
//! |---|---|
//! | this | reading and writing |
//! | `archive`, `variables` | the zip, and the HDF5 file in it |
//! | `options`, `program` | options of layers; what one becomes here: layers, and where their arrays stand |
//! | `layers`, `recurrent`, `distributed`, `merges`, `normalizations`, `einsum` | Keras's layers in this crate's words |
//! | `nodes`, `graph`, `operations` | the structure of a configuration; the graph that it becomes; operations that are no layers |
//! | `names`, `plan` | Keras's names and its order of layers; a model here in that order |
//! | `training`, `compile` | regularizers and constraints; optimizer, losses and metrics |
//! | `write` | configuration and weights of a model here |
//!
//! Memory is bounded by the size of the file: no array is larger than the file that it stands in, no member of the archive more than 32
//! times the archive, and no weights are allocated before all arrays have been compared with what the layers need.

mod archive;
mod compile;
mod distributed;
mod einsum;
mod graph;
mod layers;
mod merges;
mod names;
mod nodes;
mod normalizations;
mod operations;
mod options;
mod plan;
mod program;
mod recurrent;
mod training;
mod variables;
mod write;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Display;
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use archive::Archive;
use graph::Architecture;
use plan::{Plan, below, groups_of};
use program::{Arrays, Layout};
use variables::Variables;

use crate::backend::Device;
use crate::error::{Error, Result};
use crate::exchange::Imported;
use crate::files;
use crate::interop::keras::import_layer;
use crate::model::Model;
use crate::nn::LayerConfig;

fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "Keras", problem: problem.into() }
}

/// What another library says of what it cannot read.
fn unreadable(what: &str, error: impl Display) -> String {
    format!("{what}: {error}")
}

/// An error of the layers that a file describes, with the file's name.
fn in_file(path: &Path, error: Error) -> Error {
    match error {
        Error::Io { .. } | Error::Format { .. } | Error::Unsupported { .. } | Error::NonFinite { .. } => error,
        other => format_error(path, other.to_string()),
    }
}

/// Reads a `.keras` file: layers and weights. Inputs of any number of steps (`Input((None, 4))`) [stay so](crate::model::InputShape). The model is compiled as it was in Keras; the optimizer starts anew. What this crate has not
/// for training is listed in [`Imported::left_out`].
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Format`] where the file is no such archive, or its arrays are not those that its layers need;
/// [`Error::Unsupported`] naming the layer and the option for what this crate has not, for layers that would be other ones for each
/// length of an input with an axis of any ([`read_with_steps`] says how long), for files of Keras 2; [`Error::NonFinite`] for weights that are NaN or infinite.
pub fn read(device: Device, path: impl AsRef<Path>) -> Result<Imported> {
    let path = path.as_ref();
    read_parts(device, path, None, Lengths::Any)
}

/// The same for a model whose inputs have axes of any length (null in the file): they are `steps` long.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_steps(device: Device, path: impl AsRef<Path>, steps: usize) -> Result<Imported> {
    let path = path.as_ref();
    read_parts(device, path, None, Lengths::Steps(steps))
}

/// The same for a model whose inputs have axes of any length: they are as long as those of arrays of these shapes, one for each input in the
/// model's order, with the samples first.
///
/// # Errors
///
/// As [`read`].
pub fn read_with_shapes(device: Device, path: impl AsRef<Path>, shapes: &[Vec<usize>]) -> Result<Imported> {
    let path = path.as_ref();
    read_parts(device, path, None, Lengths::Of(shapes))
}

/// How long axes are whose length a file leaves open.
#[derive(Clone, Copy)]
pub(super) enum Lengths<'a> {
    /// They stay open.
    Any,
    /// All this long.
    Steps(usize),
    /// As those of arrays of these shapes, one for each input, the samples first.
    Of(&'a [Vec<usize>]),
}

/// Reads the layers of a `.keras` file, and the weights of a `.weights.h5` file that was saved of the same model.
///
/// # Errors
///
/// As [`read`], for both files.
pub fn read_with_weights(
    device: Device,
    architecture: impl AsRef<Path>,
    weights: impl AsRef<Path>,
) -> Result<Imported> {
    let (architecture, weights) = (architecture.as_ref(), weights.as_ref());
    read_parts(device, architecture, Some(weights), Lengths::Any)
}

pub(super) fn read_parts(
    device: Device,
    path: &Path,
    weights: Option<&Path>,
    lengths: Lengths<'_>,
) -> Result<Imported> {
    let archive = Archive::read(path)?;
    let (weights_path, bytes) = match weights {
        Some(weights) => {
            (weights, files::read_after(weights, |beginning, _| variables::check_beginning(beginning, weights))?)
        }
        None => (path, archive.weights),
    };
    build(device, &archive.config, path, bytes, weights_path, lengths)
}

/// Reads the bytes of a `.keras` file; `path` is for messages.
///
/// # Errors
///
/// As [`read`].
pub fn parse(device: Device, bytes: &[u8], path: &Path) -> Result<Imported> {
    let archive = Archive::parse(bytes, path)?;
    build(device, &archive.config, path, archive.weights, path, Lengths::Any)
}

fn build(
    device: Device,
    config: &[u8],
    path: &Path,
    weights: Vec<u8>,
    weights_path: &Path,
    lengths: Lengths<'_>,
) -> Result<Imported> {
    let Architecture { graph, inputs, outputs, arrays: places, unused, training } =
        graph::read(device, config, path, lengths)?;
    let variables = Variables::parse(weights, weights_path)?;
    let used: BTreeSet<String> = places.values().flat_map(Arrays::groups).cloned().collect();
    variables.check_all_used(&used, &unused)?;
    let tensors: Vec<_> = outputs.iter().map(|(_, tensor)| tensor).collect();
    let model = graph.model_with(&tensors, |name, layer| {
        arrays(&variables, places.get(name).unwrap_or(&Arrays::Groups(Vec::new())), name, layer, weights_path)
    });
    let mut model = model.map_err(|e| in_file(path, e))?;
    let names: Vec<&str> = outputs.iter().map(|(port, _)| port.name.as_str()).collect();
    let (mut left_out, compiled) = training;
    compile::apply(&mut model, compiled.as_ref(), &names, &mut left_out);
    let outputs = outputs.into_iter().map(|(port, _)| port).collect();
    Ok(Imported { model, inputs, outputs, unused: Vec::new(), left_out })
}

/// The arrays of a layer as it has them here.
fn arrays(
    variables: &Variables,
    places: &Arrays,
    name: &str,
    layer: &LayerConfig,
    path: &Path,
) -> Result<Vec<ArrayD<f64>>> {
    let mut arrays = Vec::new();
    let absent = |group: &str| format_error(path, format!("layer {name}: the weights have no arrays in {group}/vars"));
    match places {
        Arrays::Given(given) => return Ok(given.clone()),
        Arrays::Part { group, first, count, layout } => {
            for number in *first..first.saturating_add(*count) {
                let mut array = variables.array(group, number)?;
                if let Layout::Matrix { order, .. } = layout
                    && number == *first
                {
                    if array.ndim() != order.len() {
                        let problem =
                            format!("layer {name}: a kernel of shape {:?} for {} axes", array.shape(), order.len());
                        return Err(format_error(path, problem));
                    }
                    array = array.permuted_axes(IxDyn(order)).as_standard_layout().into_owned();
                }
                let shape = match (layout, array.shape()) {
                    (Layout::Matrix { columns, .. }, _) if number == *first => {
                        vec![array.len().checked_div(*columns).unwrap_or(0), *columns]
                    }
                    (Layout::Flat | Layout::Matrix { .. }, _) => vec![array.len()],
                    (Layout::Depthwise, &[steps, features, times]) => vec![steps, 1, features.saturating_mul(times)],
                    (_, shape) => shape.to_vec(),
                };
                let array = array.into_shape_with_order(IxDyn(&shape));
                arrays.push(array.map_err(|e| format_error(path, format!("layer {name}: {e}")))?);
            }
        }
        Arrays::Groups(groups) => {
            for group in groups {
                let count = match layer {
                    // Behind them stands of how many samples they are.
                    LayerConfig::Normalization(_) => variables.count(group).min(2),
                    _ => variables.count(group),
                };
                if count == 0 {
                    return Err(absent(group));
                }
                for number in 0..count {
                    arrays.push(variables.array(group, number)?);
                }
            }
        }
    }
    // A number here is an array of one.
    for array in arrays.iter_mut().filter(|array| array.ndim() == 0) {
        *array = array.clone().into_shape_with_order(IxDyn(&[1])).unwrap_or_default();
    }
    import_layer(layer, &arrays).map_err(|e| {
        let groups = places.groups();
        let shapes: Vec<_> = groups.iter().flat_map(|group| variables.shapes(group)).collect();
        format_error(path, format!("layer {name}: {e}; its arrays in {} have the shapes {shapes:?}", groups.join(", ")))
    })
}

/// Gives a model the weights of a `.weights.h5` file, or of a `.keras` file, that Keras saved of a model with the same layers. Layers are found
/// by their names where the file has those of all layers, else by Keras's rule: the class with a counter, in the order of the model.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Format`] where the file has not the arrays that the layers need, and no others; [`Error::Unsupported`] for
/// layers that Keras has not; [`Error::NonFinite`] for weights that are NaN or infinite. The model then stays as it was.
pub fn read_weights(model: &mut Model, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let may_be_archive = path.extension().is_some_and(|extension| extension == "keras");
    let mut bytes = files::read_after(path, |beginning, _| match may_be_archive && files::begins_as_zip(beginning) {
        true => Ok(()),
        false => variables::check_beginning(beginning, path),
    })?;
    if !variables::is_hdf5(&bytes) {
        bytes = Archive::parse(&bytes, path)?.weights;
    }
    let variables = Variables::parse(bytes, path)?;
    let plan = Plan::of(model)?;
    let with_weights: Vec<_> = plan
        .places
        .iter()
        .filter(|place| plan.config.layers.get(place.layer).is_some_and(|named| model.has_weights(&named.name)))
        .collect();
    // Names of models inside of models stand in front of those of their layers, as in the groups.
    let mut by_name: HashMap<String, &str> = HashMap::new();
    let known: BTreeMap<&str, &str> = variables.named_groups().collect();
    for (group, name) in &known {
        let mut full = (*name).to_owned();
        let mut at = *group;
        while let Some((above, _)) = at.rsplit_once("/layers/") {
            if let Some(name) = known.get(above) {
                full = format!("{name}/{full}");
            }
            at = above;
        }
        by_name.insert(full, group);
    }
    let layer = |number: usize| plan.config.layers.get(number);
    let all_named =
        with_weights.iter().all(|place| layer(place.layer).is_some_and(|named| by_name.contains_key(&named.name)));
    let (mut used, mut converted) = (BTreeSet::new(), Vec::new());
    for place in with_weights {
        let Some(named) = layer(place.layer) else { continue };
        let group = match by_name.get(&named.name) {
            Some(group) if all_named => (*group).to_owned(),
            _ => place.group.clone(),
        };
        let groups: Vec<String> = groups_of(&named.layer).iter().map(|part| below(&group, part)).collect();
        used.extend(groups.iter().cloned());
        let arrays =
            arrays(&variables, &Arrays::Groups(groups), &named.name, &named.layer, path).map_err(|e| match e {
                Error::Format { path, format, problem } => {
                    let hint = "where the file is that of a .keras model, read_with_weights finds them by that";
                    Error::Format { path, format, problem: format!("{problem}; {hint}") }
                }
                other => other,
            })?;
        converted.push((named.name.clone(), arrays));
    }
    variables.check_all_used(&used, &[])?;
    model.set_layer_tensors(&converted).map_err(|e| in_file(path, e))
}

/// Writes a model as a `.keras` file that Keras 3 loads, atomically. The same model gives the same bytes.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Unsupported`] naming the layer for what Keras has not.
pub fn write(model: &Model, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    files::write_atomic(path, &to_bytes(model, path)?)
}

/// The bytes of a `.keras` file; `path` is for messages.
///
/// # Errors
///
/// [`Error::Unsupported`] naming the layer for what Keras has not.
pub fn to_bytes(model: &Model, path: &Path) -> Result<Vec<u8>> {
    let plan = Plan::of(model)?;
    let archive = Archive { config: write::config(model, &plan, path)?, weights: write::weights(model, &plan, path)? };
    // The version whose format this is; no date, so that the same model gives the same bytes.
    archive.bytes(br#"{"keras_version": "3.15.1", "date_saved": "1980-01-01@00:00:00"}"#, path)
}

/// Writes the weights alone as a `.weights.h5` file, atomically: Keras's `load_weights` takes it for a model with the same layers.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Unsupported`] for layers that Keras has not.
pub fn write_weights(model: &Model, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let plan = Plan::of(model)?;
    files::write_atomic(path, &write::weights(model, &plan, path)?)
}
