//! Whole models of other programs, read and written.
//!
//! | file | what |
//! |---|---|
//! | [`onnx`] | ONNX: graphs of PyTorch's two exporters and of others, to a [`Model`]; a model to a graph that ONNX Runtime runs |
//! | `keras` | Keras 3: `.keras` (configuration and weights) and `.weights.h5` |
//! | `torch` | PyTorch: `state_dict`s in safetensors files, by a map of names |
//! | [`arrays`] | NumPy's `.npz` files, which recorded inputs and outputs stand in |
//!
//! A model of this crate has the batch first in every tensor. Other programs put it where they like: a [`Port`] says where, so that values
//! go in and come out as they do there.

pub mod arrays;
pub mod keras;
pub mod onnx;
mod open;
mod port;
pub mod torch;

use std::path::Path;

use ndarray::{ArrayD, ArrayViewD};

pub use port::Port;
use serde::{Deserialize, Serialize};

use crate::backend::Device;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::exchange::onnx::ImportOptions;
use crate::model::Model;

/// A model that was read, with what the model itself does not hold.
#[non_exhaustive]
pub struct Imported {
    /// The model. It can be trained and saved.
    pub model: Model,
    /// Its inputs, in the model's order.
    pub inputs: Vec<Port>,
    /// Its outputs, in the model's order.
    pub outputs: Vec<Port>,
    /// Inputs of the file that no output depends on; the model has not got them.
    pub unused: Vec<String>,
    /// What the file says of training that the model does not keep, in words: an optimizer or a regularizer that this crate has not, say.
    /// Outputs do not depend on it.
    pub left_out: Vec<String>,
}

impl Imported {
    /// Writes the model to a file as [`Model::save`] does, with its ports.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let ports = Ports { inputs: self.inputs.clone(), outputs: self.outputs.clone() };
        let ports = serde_json::to_value(&ports).map_err(|e| Error::Format {
            path: path.to_owned(),
            format: "model",
            problem: e.to_string(),
        })?;
        crate::model::file::save_with_ports(&self.model, ports, path)
    }

    /// Reads a model that [`save`](Self::save) wrote, with its ports; one of [`Model::save`] has the samples first everywhere.
    ///
    /// # Errors
    ///
    /// As [`Model::load`].
    pub fn load(device: Device, path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let (model, ports) = crate::model::file::load_with_ports(device, path)?;
        let plain = |names: Vec<String>, shapes: Vec<Vec<Option<usize>>>| -> Vec<Port> {
            names.iter().zip(&shapes).map(|(name, shape)| Port::new(name, 0, shape)).collect()
        };
        let (shapes, outputs) = (
            model.input_axes().map(<[Option<usize>]>::to_vec).collect(),
            model.output_axes().map(<[Option<usize>]>::to_vec).collect(),
        );
        let own = Ports {
            inputs: plain(model.config()?.inputs.into_iter().map(|input| input.name).collect(), shapes),
            outputs: plain((0..model.output_shapes().count()).map(|i| format!("output_{i}")).collect(), outputs),
        };
        let ports = match ports {
            None => own,
            Some(ports) => {
                let wrong = |problem: String| Error::Format { path: path.to_owned(), format: "model", problem };
                let read: Ports = serde_json::from_value(ports).map_err(|e| wrong(format!("its ports: {e}")))?;
                if read.inputs.len() != own.inputs.len() || read.outputs.len() != own.outputs.len() {
                    return Err(wrong("another number of ports than of inputs and outputs".to_owned()));
                }
                let of_model = own.inputs.iter().chain(&own.outputs);
                for (port, own) in read.inputs.iter().chain(&read.outputs).zip(of_model) {
                    if !port.may_be(own) {
                        let problem =
                            format!("its port {}: {port:?} is none of the model's shape {:?}", port.name, own.shape);
                        return Err(wrong(problem));
                    }
                }
                read
            }
        };
        Ok(Imported { model, inputs: ports.inputs, outputs: ports.outputs, unused: Vec::new(), left_out: Vec::new() })
    }

    /// All outputs for inputs as the other program has them, in the order of [`inputs`](Self::inputs), each as it is there.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where an array does not fit; [`Error::ZeroSize`] without samples; [`Error::InvalidOption`] for an index outside of an
    /// embedding's table; [`Error::Unsupported`] where the device cannot do it or memory is short; [`Error::Driver`] where the GPU fails.
    pub fn predict<E: Scalar>(&mut self, arrays: &[ArrayViewD<'_, E>]) -> Result<Vec<ArrayD<E>>> {
        if arrays.len() != self.inputs.len() {
            let names: Vec<_> = self.inputs.iter().map(|port| port.name.as_str()).collect();
            let expected = format!("{} arrays ({})", names.len(), names.join(", "));
            return Err(Error::shape("inputs", expected, format!("{} arrays", arrays.len())));
        }
        let taken = self.inputs.iter().zip(arrays).map(|(port, array)| port.taken_in(array));
        let taken = taken.collect::<Result<Vec<_>>>()?;
        let outputs = self.model.predict_all(taken.iter().map(|array| array.view()).collect::<Vec<_>>())?;
        self.outputs.iter().zip(outputs).map(|(port, array)| port.given_out(&array.view())).collect()
    }
}

/// What a model file holds of an imported model besides.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Ports {
    inputs: Vec<Port>,
    outputs: Vec<Port>,
}

/// Reads a model of another program: its kind is told by the file's name. `architecture` is for files that hold weights alone.
///
/// # Errors
///
/// [`Error::Unsupported`] for names that tell no known kind; [`Error::InvalidOption`] for weights alone without `architecture`, or whole
/// models with one; what [`onnx::read`], [`keras::read`] and [`torch::read`] return.
pub fn read(device: Device, path: impl AsRef<Path>, architecture: Option<&Path>) -> Result<Imported> {
    let path = path.as_ref();
    read_with(device, path, architecture, &ImportOptions::default())
}

/// The same with options, for those kinds of files that have some.
///
/// # Errors
///
/// [`Error::Unsupported`] for names that tell no known kind; [`Error::InvalidOption`] for weights alone without `architecture`, or whole
/// models with one; what [`onnx::read`], [`keras::read`] and [`torch::read`] return.
pub fn read_with(
    device: Device,
    path: &Path,
    architecture: Option<&Path>,
    options: &ImportOptions,
) -> Result<Imported> {
    let name = path.file_name().map(|name| name.to_string_lossy().to_ascii_lowercase()).unwrap_or_default();
    let whole = name.ends_with(".onnx") || name.ends_with(".keras");
    match architecture {
        None if name.ends_with(".onnx") => onnx::read(device, path, options),
        None if name.ends_with(".keras") => keras_model(device, path, None, options),
        Some(architecture) if whole => {
            let got = format!("{} beside {}", architecture.display(), path.display());
            Err(Error::option("model", "none for an ONNX or Keras file, which says what it is", got))
        }
        Some(architecture) if name.ends_with(".weights.h5") => {
            if is(architecture, "keras") {
                return keras_model(device, architecture, Some(path), options);
            }
            let mut imported = layers(device, architecture, options)?;
            keras::read_weights(&mut imported.model, path)?;
            Ok(imported)
        }
        Some(architecture) if name.ends_with(".safetensors") && is(architecture, "onnx") => {
            torch::read_with_onnx(device, architecture, path, options)
        }
        Some(architecture) if name.ends_with(".safetensors") => {
            let mut imported = layers(device, architecture, options)?;
            torch::read(&mut imported.model, path)?;
            Ok(imported)
        }
        None if name.ends_with(".weights.h5") || name.ends_with(".safetensors") => Err(Error::option(
            "model",
            "the .onnx, .keras or saved model whose weights these are",
            format!("none beside {}", path.display()),
        )),
        _ => Err(Error::unsupported(
            format!("reading {}", path.display()),
            "its name ends in none that is known here: .onnx, .keras, .weights.h5, .safetensors",
        )),
    }
}

/// A model of Keras: for any length, or where that cannot be, for those of arrays.
fn keras_model(device: Device, path: &Path, weights: Option<&Path>, options: &ImportOptions) -> Result<Imported> {
    match keras::read_parts(device.clone(), path, weights, keras::Lengths::Any) {
        Err(Error::Unsupported { .. } | Error::Format { .. }) if !options.shapes.is_empty() => {
            keras::read_parts(device, path, weights, keras::Lengths::Of(&options.shapes))
        }
        other => other,
    }
}

/// Whether a file's name ends so.
fn is(path: &Path, end: &str) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case(end))
}

/// The layers that weights are for.
fn layers(device: Device, path: &Path, options: &ImportOptions) -> Result<Imported> {
    match is(path, "safetensors") {
        true => Imported::load(device, path),
        false => read_with(device, path, None, options),
    }
}
