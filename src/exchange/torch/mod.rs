//! PyTorch's `state_dict`s in [safetensors](https://huggingface.co/docs/safetensors/api/torch) files, into models and out of them.
//!
//! A `state_dict` has tensors without an architecture: a model with the same layers is there already, made here or read from an ONNX or Keras
//! file. Which module (`rnn`, `head.0`) belongs to which layer says a map of names, or the order and the shapes. A module of several
//! layers goes to as many layers here, or to one with `num_layers`.
//!
//! | PyTorch | here |
//! |---|---|
//! | `LSTM`, `GRU`, `RNN`: `weight_ih_l0`, `weight_hh_l0`, `bias_ih_l0`, `bias_hh_l0`, `…_l1`, `…_reverse` | the same names; both biases, or their sum where the layer has one |
//! | `Linear`: `weight`, `bias` | `Dense`: as they are |
//! | `Conv1d`: `weight` `[filters, features, steps]`, `bias` | `Conv1D`: `kernel` `[steps, features, filters]`, `bias` |
//! | `Embedding`: `weight` | `Embedding`: as it is |
//! | `LayerNorm`: `weight`, `bias` | `LayerNormalization`: `gamma`, `beta` |
//! | `BatchNorm1d`: `weight`, `bias`, `running_mean`, `running_var` | `BatchNormalization`: `gamma`, `beta`, `moving_mean`, `moving_variance`; or taken into the layer before it |
//! | `weight_norm`: a length and a direction | the weight that they make |
//! | `MultiheadAttention`: `in_proj_weight`, `in_proj_bias`, `out_proj` | `MultiHeadAttention`: `query`, `key`, `value`, `attention_output` |

mod fit;
mod modules;
mod parametrized;
mod slots;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use fit::{Fit, Folded};
use modules::{Module, join};
use slots::{Assigned, From, Slot};

use crate::backend::{Device, TensorRef};
use crate::error::{Error, Result};
use crate::exchange::Imported;
use crate::exchange::onnx::ImportOptions;
use crate::interop::safetensors::{self, TensorFile};
use crate::model::Model;
use crate::nn::{ActivationFunction, LayerConfig};

/// What PyTorch's `BatchNorm1d` adds to the variance unless it is told otherwise.
const EPSILON: f64 = 1e-5;

fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "state_dict", problem: problem.into() }
}

/// Gives a model the weights of a `state_dict`. Modules and layers are found by their shapes, in the order of the model and of the modules'
/// names; a layer with a module's name gets that one. A `BatchNorm1d` that the model has not is taken into the convolution or dense layer
/// before it, as exporters do, with PyTorch's default for what is added to the variance, 1e-5.
///
/// # Errors
///
/// As [`load`].
pub fn read(model: &mut Model, path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    let file = parametrized::read(path)?;
    let slots = Slot::all(model)?;
    let modules = Module::all(&file, Slot::have_attention(&slots));
    let fit = fit::by_itself(path, &slots, &modules)?;
    apply(model, &file, path, &slots, &modules, &fit)
}

/// Reads the model of an ONNX file with the weights of a `state_dict` of the module that it was exported from. Constants of the file that have a
/// tensor's name and shape get its values, wherever they stand: in recurrences that were unrolled, in attention, as parameters by themselves.
/// What the exporter has put together or turned round is found by the shapes, as [`read`] does.
///
/// # Errors
///
/// As [`read`], and those of [`onnx::read`](crate::exchange::onnx::read).
pub fn read_with_onnx(
    device: Device,
    onnx: impl AsRef<Path>,
    path: impl AsRef<Path>,
    options: &ImportOptions,
) -> Result<Imported> {
    let (onnx, path) = (onnx.as_ref(), path.as_ref());
    let file = parametrized::read(path)?;
    let mut tensors = HashMap::new();
    for name in file.names().filter(|name| !name.ends_with("num_batches_tracked")) {
        // Masks of attention have infinities.
        let (shape, values) = file.floats::<f64>(name)?;
        match values.iter().any(|value| value.is_nan()) {
            true => drop(floats(&file, path, name)?),
            false => drop(tensors.insert(name.to_owned(), (shape, values))),
        }
    }
    let found = crate::exchange::onnx::read_with_tensors(device, onnx, options, tensors.clone())?;
    let mut model = found.imported.model;
    let all = Slot::all(&model)?.into_iter().filter(|slot| !found.layers.contains(&slot.layer));
    // What the file has besides: a normalization without weights of its own has ones and zeros; masks have these and infinities.
    let (mut slots, mut settled) = (Vec::new(), Vec::new());
    for slot in all {
        let mut weights = Vec::new();
        for name in slot.tensors.keys() {
            weights.push((name, model.weight::<f64>(&format!("{}.{name}", slot.layer))?));
        }
        match &slot.config {
            LayerConfig::LayerNormalization(_) => {
                let neutral = |name: &str| if name.ends_with("gamma") { 1.0 } else { 0.0 };
                settled.push(weights.iter().all(|(name, values)| values.iter().all(|value| *value == neutral(name))));
            }
            // Matrices that the reader has made of nothing of the file.
            LayerConfig::Weight(layer) if !layer.trainable => continue,
            LayerConfig::Weight(_) => {
                let of_a_mask = |v: &f64| *v == 0.0 || *v == 1.0 || v.abs() >= f64::from(f32::MAX);
                let harmless =
                    |values: &[f64]| values.array_windows().all(|[a, b]| a == b) || values.iter().all(of_a_mask);
                if weights.iter().all(|(_, values)| harmless(values)) {
                    continue;
                }
                settled.push(false);
            }
            _ => settled.push(false),
        }
        slots.push(slot);
    }
    let modules = Module::all(&file, Slot::have_attention(&slots));
    let known = |name: &str| found.tensors.contains(name) || name.ends_with("num_batches_tracked");
    let by_name: Vec<bool> =
        modules.iter().map(|module| module.tensors.keys().all(|name| known(&module.full(name)))).collect();
    // Of equal tensors exporters write one.
    let written: Vec<&(Vec<usize>, Vec<f64>)> =
        tensors.iter().filter(|(name, _)| known(name)).map(|(_, tensor)| tensor).collect();
    let equal = |fit: &Fit, module: &Module| {
        let taken: Vec<&(Vec<usize>, Vec<f64>)> =
            fit.assigned.iter().flat_map(|one| one.from.names()).filter_map(|name| tensors.get(name)).collect();
        module.tensors.keys().all(|name| {
            let full = module.full(name);
            let Some(own) = tensors.get(&full) else { return known(&full) };
            known(&full) || written.iter().chain(&taken).any(|other| *other == own)
        })
    };
    let fit = fit::what_is_left(path, &slots, &modules, &settled, &by_name, equal)?;
    apply(&mut model, &file, path, &slots, &modules, &fit)?;
    Ok(Imported { model, ..found.imported })
}

/// Gives a model the weights of a `state_dict`, by pairs of a module's prefix there and a layer's name here. A recurrent module of several
/// layers is named once for each layer here, from the first on. A `BatchNorm1d` named with the layer of the module before it is taken into that
/// layer's weights.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Format`] where the file is none, where shapes do not fit, or where a module or a layer is left over: it names
/// them and the map that would fit; [`Error::InvalidOption`] for a name that no layer has; [`Error::NonFinite`] for weights that are NaN
/// or infinite; [`Error::Unsupported`] for a layer that is none of this crate's. The model then stays as it was.
pub fn load(model: &mut Model, path: impl AsRef<Path>, map: &[(&str, &str)]) -> Result<()> {
    let path = path.as_ref();
    let file = parametrized::read(path)?;
    let slots = Slot::all(model)?;
    let modules = Module::all(&file, Slot::have_attention(&slots));
    let fit = fit::by_map(path, &slots, &modules, map)?;
    apply(model, &file, path, &slots, &modules, &fit)
}

/// The map that [`read`] would take: pairs of a module's prefix and a layer's name.
///
/// # Errors
///
/// As [`load`].
pub fn map(model: &Model, path: impl AsRef<Path>) -> Result<Vec<(String, String)>> {
    let path = path.as_ref();
    let file = parametrized::read(path)?;
    let slots = Slot::all(model)?;
    let modules = Module::all(&file, Slot::have_attention(&slots));
    Ok(fit::by_itself(path, &slots, &modules)?.map)
}

fn apply(
    model: &mut Model,
    file: &TensorFile,
    path: &Path,
    slots: &[Slot],
    modules: &[Module],
    fit: &Fit,
) -> Result<()> {
    let mut values: HashMap<&str, Vec<f64>> = HashMap::new();
    for Assigned { name, shape, from } in &fit.assigned {
        values.insert(name, tensor(file, path, shape, from)?);
    }
    for Folded { slot, module } in &fit.folded {
        if let (Some(slot), Some(module)) = (slots.get(*slot), modules.get(*module)) {
            fold(file, path, slot, module, &mut values)?;
        }
    }
    let assigned = fit.assigned.iter().filter_map(|Assigned { name, .. }| {
        let name = name.as_str();
        Some((name, values.get(name)?.as_slice()))
    });
    model.set_weights(&assigned.collect::<Vec<_>>())
}

/// The elements of a tensor of the file, each finite.
fn floats(file: &TensorFile, path: &Path, name: &str) -> Result<(Vec<usize>, Vec<f64>)> {
    let (shape, values) = file.floats::<f64>(name)?;
    match values.iter().enumerate().find(|(_, value)| !value.is_finite()) {
        None => Ok((shape, values)),
        Some((place, value)) => Err(Error::NonFinite {
            tensor: name.to_owned(),
            got: *value,
            position: format!("element {place} in {}", path.display()),
            help: "train the model anew".to_owned(),
        }),
    }
}

/// The elements of a tensor of the model.
fn tensor(file: &TensorFile, path: &Path, shape: &[usize], from: &From) -> Result<Vec<f64>> {
    let len: usize = shape.iter().product();
    match from {
        From::Same(name) => Ok(floats(file, path, name)?.1),
        From::Sum(a, b) => {
            let (a, b) = (floats(file, path, a)?.1, floats(file, path, b)?.1);
            Ok(a.into_iter().zip(b).map(|(a, b)| a + b).collect())
        }
        From::Rows(name, first) => {
            let row = shape.iter().skip(1).product::<usize>();
            Ok(floats(file, path, name)?.1.into_iter().skip(first * row).take(len).collect())
        }
        From::Turned(name) => Ok(turned(&floats(file, path, name)?.1, shape)),
        From::Zeros => Ok(vec![0.0; len]),
        From::Ones => Ok(vec![1.0; len]),
    }
}

/// `[a, b, c]`, given as `[c, b, a]`; `shape` is the former.
fn turned(values: &[f64], shape: &[usize]) -> Vec<f64> {
    let &[a, b, c] = shape else { return values.to_vec() };
    let place = |i: usize| {
        let (x, y, z) = (i / (b * c), i / c % b, i % c);
        (z * b + y) * a + x
    };
    (0..values.len()).map(|i| values.get(place(i)).copied().unwrap_or(0.0)).collect()
}

/// Takes `(y - mean) / sqrt(variance + epsilon) weight + bias` into the layer that gives y.
fn fold(
    file: &TensorFile,
    path: &Path,
    slot: &Slot,
    module: &Module,
    values: &mut HashMap<&str, Vec<f64>>,
) -> Result<()> {
    let read = |name: &str, default: f64, len: usize| match module.has(name) {
        true => Ok::<_, Error>(floats(file, path, &module.full(name))?.1),
        false => Ok(vec![default; len]),
    };
    let mean = read("running_mean", 0.0, 0)?;
    let variance = read("running_var", 1.0, mean.len())?;
    let (scale, shift) = (read("weight", 1.0, mean.len())?, read("bias", 0.0, mean.len())?);
    let factor: Vec<f64> =
        scale.iter().zip(&variance).map(|(scale, variance)| scale / (variance + EPSILON).sqrt()).collect();
    let is_kernel = matches!(slot.config, LayerConfig::Conv1D(_));
    for (name, values) in values.iter_mut() {
        // Not of `conv1d_1`, where it is `conv1d`'s.
        let own = name.strip_prefix(slot.layer.as_str()).and_then(|own| own.strip_prefix('.'));
        let Some(own) = own else { continue };
        if own == "kernel" && is_kernel {
            // Filters stand side by side.
            values.iter_mut().zip(factor.iter().cycle()).for_each(|(value, factor)| *value *= factor);
        } else if own == "weight" || own.ends_with(".weight") {
            let features = values.len() / factor.len().max(1);
            for (row, factor) in values.chunks_mut(features.max(1)).zip(&factor) {
                row.iter_mut().for_each(|value| *value *= factor);
            }
        } else if own == "bias" || own.ends_with(".bias") {
            for (((value, factor), mean), shift) in values.iter_mut().zip(&factor).zip(&mean).zip(&shift) {
                *value = (*value - mean) * factor + shift;
            }
        }
    }
    Ok(())
}

/// Writes the weights of a model as a `state_dict`, by the same pairs as [`load`] takes, atomically. Where the layer has one bias, `bias_ih` is
/// that and `bias_hh` zero. A `BatchNorm1d` named with the layer of the module before it changes nothing there, since the layer's weights have it.
/// `torch.load_state_dict` takes it.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::InvalidOption`] for a layer that the model has not, is named twice or not at all;
/// [`Error::Unsupported`] naming the layer for what PyTorch's modules have not.
pub fn save(model: &Model, path: impl AsRef<Path>, map: &[(&str, &str)]) -> Result<()> {
    let path = path.as_ref();
    let slots = Slot::all(model)?;
    let mut tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)> = BTreeMap::new();
    let mut levels: HashMap<&str, usize> = HashMap::new();
    let mut named = Vec::new();
    for (prefix, layer) in map {
        let Some(slot) = slots.iter().find(|slot| slot.layer == *layer) else {
            let known: Vec<&str> = slots.iter().map(|slot| slot.layer.as_str()).collect();
            let expected = format!("one of the layers with weights, {}", known.join(", "));
            return Err(Error::option("map of PyTorch's names", expected, layer));
        };
        if named.contains(layer) {
            // As `load` takes it: the normalization after a layer that has it in its weights.
            let Some(features) = normalized(slot).filter(|_| named.last() == Some(layer)) else {
                return Err(Error::option("map of PyTorch's names", "each layer once", format!("{layer} twice")));
            };
            for (name, value) in [("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0 - EPSILON)]
            {
                tensors.insert(join(prefix, name), (vec![features], vec![value as f32; features]));
            }
            continue;
        }
        named.push(*layer);
        let level = levels.entry(prefix).or_insert(0);
        check_functions(slot)?;
        for (name, shape, values) in export(model, slot, *level)? {
            if tensors.insert(join(prefix, &name), (shape, values)).is_some() {
                return Err(Error::option(
                    "map of PyTorch's names",
                    "a prefix for each layer",
                    format!("{prefix} for {layer} and another"),
                ));
            }
        }
        *level += slot.levels();
    }
    if let Some(left) = slots.iter().find(|slot| !named.contains(&slot.layer.as_str())) {
        let expected = "a prefix for every layer with weights";
        return Err(Error::option("map of PyTorch's names", expected, format!("none for {}", left.layer)));
    }
    let tensors: Vec<_> =
        tensors.iter().map(|(name, (shape, values))| (name.as_str(), shape.clone(), TensorRef::of(values))).collect();
    safetensors::write(path, "format", "pt", &tensors)
}

/// Features of a `BatchNorm1d` that a layer can have in its weights.
fn normalized(slot: &Slot) -> Option<usize> {
    match &slot.config {
        LayerConfig::Conv1D(layer) if layer.use_bias => Some(layer.filters),
        LayerConfig::Dense(layer) if layer.use_bias => Some(layer.units),
        _ => None,
    }
}

/// Refuses functions that PyTorch's recurrent modules have not.
fn check_functions(slot: &Slot) -> Result<()> {
    use ActivationFunction::{Relu, Sigmoid, Tanh};
    let inner = match &slot.config {
        LayerConfig::Bidirectional(l) => &*l.layer,
        layer => layer,
    };
    let fits = match inner {
        LayerConfig::Lstm(l) => (l.activation, l.recurrent_activation) == (Tanh, Sigmoid),
        LayerConfig::Gru(l) => (l.activation, l.recurrent_activation, l.reset_after) == (Tanh, Sigmoid, true),
        LayerConfig::SimpleRnn(l) => matches!(l.activation, Tanh | Relu),
        other => other.as_recurrent().is_none() && !matches!(other, LayerConfig::RecurrentOperator(_)),
    };
    let plain = inner.as_recurrent().is_none_or(|layer| {
        let options = layer.options();
        options.heads == 1 && !options.layer_norm && options.zoneout == 0.0 && !options.go_backwards
    });
    if fits && plain {
        return Ok(());
    }
    Err(Error::unsupported(
        format!("layer {} as a module of PyTorch", slot.layer),
        "its functions or options are not those of torch.nn's RNN, LSTM and GRU",
    ))
}

/// A tensor of a module: name, shape, values.
type Exported = (String, Vec<usize>, Vec<f32>);

/// The tensors that a module of PyTorch has for a slot: names within the module, shapes, values.
fn export(model: &Model, slot: &Slot, level: usize) -> Result<Vec<Exported>> {
    // What a module would have, from the layer's shapes: then the layer says where each goes, which is turned round.
    let module = imagined(slot, level).ok_or_else(|| {
        Error::unsupported(format!("layer {} as a module of PyTorch", slot.layer), "there is no such module")
    })?;
    let assigned = slot.fit(&module, level).map_err(|problem| Error::unsupported(slot.layer.clone(), problem))?;
    let mut tensors: BTreeMap<String, Vec<f32>> = BTreeMap::new();
    for Assigned { name, shape, from } in assigned {
        let values = model.weight::<f32>(&name)?;
        match from {
            From::Same(to) => drop(tensors.insert(to, values)),
            From::Sum(to, other) => {
                tensors.insert(other, vec![0.0; values.len()]);
                tensors.insert(to, values);
            }
            From::Turned(to) => {
                let wide: Vec<f64> = values.iter().map(|value| f64::from(*value)).collect();
                let back: Vec<usize> = shape.iter().rev().copied().collect();
                tensors.insert(to, turned(&wide, &back).iter().map(|value| *value as f32).collect());
            }
            // Rows come in the order of their places.
            From::Rows(to, _) => tensors.entry(to).or_default().extend(values),
            From::Zeros | From::Ones => {}
        }
    }
    let with_shape = |(name, values): (String, Vec<f32>)| {
        let shape = module.shape(&name).map(<[usize]>::to_vec).unwrap_or_default();
        (name, shape, values)
    };
    Ok(tensors.into_iter().map(with_shape).filter(|(_, shape, _)| !shape.is_empty()).collect())
}

/// The module that would fit a slot, of whose recurrent layers those from `level` on are the slot's.
fn imagined(slot: &Slot, level: usize) -> Option<Module> {
    let mut tensors: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let own = |name: &str| name.rsplit_once('.').map_or(name, |(_, own)| own).to_owned();
    for (name, shape) in &slot.tensors {
        if slot.levels() > 0 {
            let within =
                name.split('.').find_map(|part| part.strip_prefix("layer_")?.parse::<usize>().ok()).unwrap_or(0);
            let reverse = if name.split('.').any(|part| part == "backward") { "_reverse" } else { "" };
            let own = own(name);
            let stem = own.strip_suffix("_reverse").unwrap_or(&own).strip_suffix("_l0")?.to_owned();
            let number = level.checked_add(within)?;
            tensors.insert(format!("{stem}_l{number}{reverse}"), shape.clone());
            if stem == "bias_ih" {
                tensors.insert(format!("bias_hh_l{number}{reverse}"), shape.clone());
            }
            continue;
        }
        match &slot.config {
            LayerConfig::MultiHeadAttention(_) => {
                let kind = own(name);
                if name.contains("output.") {
                    tensors.insert(format!("out_proj.{kind}"), shape.clone());
                } else {
                    let mut whole = shape.clone();
                    let first = whole.first_mut()?;
                    *first = first.checked_mul(3)?;
                    tensors.insert(format!("in_proj_{kind}"), whole);
                }
            }
            LayerConfig::Conv1D(_) | LayerConfig::Conv1DTranspose(_) if own(name) == "kernel" => {
                tensors.insert("weight".to_owned(), shape.iter().rev().copied().collect());
            }
            LayerConfig::PRelu(_) => {
                // One slope, or one for each channel.
                let (channels, others) = shape.split_last()?;
                if others.iter().any(|n| *n != 1) {
                    return None;
                }
                tensors.insert("weight".to_owned(), vec![*channels]);
            }
            _ => {
                let theirs = match own(name).as_str() {
                    "gamma" => "weight".to_owned(),
                    "beta" => "bias".to_owned(),
                    "moving_mean" => "running_mean".to_owned(),
                    "moving_variance" => "running_var".to_owned(),
                    same => same.to_owned(),
                };
                tensors.insert(theirs, shape.clone());
            }
        }
    }
    // Layers below those of the slot, so that theirs are found at their numbers.
    if slot.levels() > 0 {
        for below in 0..level {
            tensors.entry(format!("weight_ih_l{below}")).or_default();
        }
        if tensors.keys().any(|name| name.ends_with("_reverse")) {
            tensors.entry("weight_ih_l0_reverse".to_owned()).or_default();
        }
    }
    Some(Module { prefix: String::new(), tensors })
}

impl Model {
    /// Gives the model the weights of a PyTorch `state_dict`, a safetensors file, by pairs of a module's prefix there and a layer's name here:
    /// `model.load_torch(path, &[("lstm", "lstm"), ("fc", "dense")])`. An empty map stands for one by order and shapes. See
    /// [`exchange::torch`](crate::exchange::torch).
    ///
    /// # Errors
    ///
    /// As [`torch::load`](crate::exchange::torch::load).
    pub fn load_torch(&mut self, path: impl AsRef<Path>, map: &[(&str, &str)]) -> Result<()> {
        let path = path.as_ref();
        if map.is_empty() { read(self, path) } else { load(self, path, map) }
    }

    /// Writes the weights as a PyTorch `state_dict`, by the same pairs. See [`exchange::torch`](crate::exchange::torch).
    ///
    /// # Errors
    ///
    /// As [`torch::save`](crate::exchange::torch::save).
    pub fn save_torch(&self, path: impl AsRef<Path>, map: &[(&str, &str)]) -> Result<()> {
        let path = path.as_ref();
        save(self, path, map)
    }
}
