//! A model's weights by their names: to be looked at, and to be set.

use ndarray::{ArrayD, IxDyn};

#[cfg(feature = "exchange")]
use crate::backend::TensorMut;
use crate::backend::TensorRef;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::arrays::{check_range, convert, read_as};
#[cfg(feature = "exchange")]
use crate::model::graph::{GraphTensor, Source};
use crate::nn::Parameter;
use crate::nn::network::Place;
use crate::rnn::shape::check_len;

impl Model {
    /// Every weight tensor: name (`lstm.weight_ih_l0`), shape, and values in the host's memory
    /// ([`host::<f32>()`](TensorRef::host) gives the slice); those that training does not change by their gradient too.
    pub fn weights(&self) -> impl Iterator<Item = (String, &[usize], TensorRef<'_>)> {
        self.network.tensors().map(|(layer, parameter)| {
            // The range is the builder's own; it lies in the tensor as soon as that is there.
            let values = self.network.place(parameter).host();
            let values = values.part(parameter.range.clone()).unwrap_or(values);
            (format!("{layer}.{}", parameter.name), parameter.shape.as_slice(), values)
        })
    }

    /// The elements of one weight tensor, named as [`weights`](Self::weights) does, row-major.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such tensor; [`Error::NonFinite`] for an `f64` beyond the range of `f32`, where
    /// that is asked for.
    pub fn weight<E: Scalar>(&self, name: &str) -> Result<Vec<E>> {
        let parameter = self.parameter(name)?;
        let values = self.network.place(parameter).host().part(parameter.range.clone())?;
        read_as(&self.device, name, &parameter.shape, values)
    }

    fn parameter(&self, name: &str) -> Result<&Parameter> {
        let found = self.network.tensors().find(|(layer, p)| {
            name.strip_prefix(*layer).and_then(|rest| rest.strip_prefix('.')).is_some_and(|rest| rest == p.name)
        });
        found.map(|(_, parameter)| parameter).ok_or_else(|| {
            let names: Vec<_> = self.weights().map(|(name, ..)| name).collect();
            Error::option("weight", format!("one of {}", names.join(", ")), name)
        })
    }

    /// Whether training changes a weight tensor by its gradient.
    pub fn is_trained(&self, name: &str) -> bool {
        self.parameter(name).is_ok_and(|parameter| parameter.trainable)
    }

    /// All weights that training changes, one after the other, in the order of [`weights`](Self::weights).
    ///
    /// # Errors
    ///
    /// [`Error::NonFinite`] for an `f64` beyond the range of `f32`, where that is asked for.
    pub fn flat_weights<E: Scalar>(&self) -> Result<Vec<E>> {
        read_as(&self.device, "weights", &[self.count_params()], self.network.parameters.host())
    }

    /// Replaces all weights that training changes.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `weights` has another length than [`flat_weights`](Self::flat_weights); [`Error::NonFinite`] for an `f64`
    /// beyond the range of the device's `f32`.
    pub fn set_flat_weights<E: Scalar>(&mut self, weights: &[E]) -> Result<()> {
        check_len("weights", &[self.count_params()], weights.len())?;
        self.network
            .parameters
            .change(&self.device, |to| convert("weights", &[weights.len()], TensorRef::of(weights), to))
    }

    /// Replaces one weight tensor, named as [`weights`](Self::weights) does.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such tensor, or for a variance below zero; [`Error::Shape`] where it has another number
    /// of elements; [`Error::NonFinite`] for an `f64` beyond the range of the device's `f32`. The tensor then is as it was.
    pub fn set_weight<E: Scalar>(&mut self, name: &str, values: &[E]) -> Result<()> {
        self.set_weights(&[(name, values)])
    }

    /// Replaces weight tensors, all or none.
    pub(crate) fn set_weights<E: Scalar>(&mut self, weights: &[(&str, &[E])]) -> Result<()> {
        weights.iter().try_for_each(|(name, values)| self.check_weight(name, values))?;
        weights.iter().try_for_each(|(name, values)| self.write_weight(name, values))
    }

    /// Refuses elements that a weight tensor cannot have.
    fn check_weight<E: Scalar>(&self, name: &str, values: &[E]) -> Result<()> {
        let parameter = self.parameter(name)?;
        check_len(name, &parameter.shape, values.len())?;
        let layer = name.strip_suffix(&parameter.name).and_then(|layer| layer.strip_suffix('.')).unwrap_or(name);
        parameter.check(layer, TensorRef::of(values))?;
        check_range(name, &parameter.shape, TensorRef::of(values), self.device.dtype())
    }

    fn write_weight<E: Scalar>(&mut self, name: &str, values: &[E]) -> Result<()> {
        let parameter = self.parameter(name)?.clone();
        let Parameter { range, shape, .. } = &parameter;
        let tensors = self.network.place_mut(Place::of(&parameter));
        // Passes may have changed statistics since.
        tensors.refresh(&self.device)?;
        tensors.change(&self.device, |to| convert(name, shape, TensorRef::of(values), to.part(range.clone())?))
    }

    /// The weights of the layer called `layer` as Keras's `layer.get_weights()` would give them; see
    /// [`import_layer`](crate::interop::keras::import_layer).
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer, [`Error::Unsupported`] where Keras has none.
    pub fn keras_weights<E: Scalar>(&self, layer: &str) -> Result<Vec<ArrayD<E>>> {
        let config = self.layer_config(layer)?;
        let mut arrays = Vec::new();
        for (_, parameter) in self.network.tensors().filter(|(name, _)| *name == layer) {
            let values = self.network.place(parameter).host().part(parameter.range.clone())?;
            let values = read_as(&self.device, &parameter.name, &parameter.shape, values)?;
            let array = ArrayD::from_shape_vec(IxDyn(&parameter.shape), values);
            arrays.push(array.map_err(|e| Error::shape(&parameter.name, "its own shape", e.to_string()))?);
        }
        crate::interop::keras::export_layer(&config, &arrays)
    }

    /// Gives the layer called `layer` the weights that Keras's `layer.get_weights()` has given.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] where the model has no such layer, or for a variance below zero; [`Error::Unsupported`] where Keras has none;
    /// [`Error::Shape`] where the arrays are not those of such a layer; [`Error::NonFinite`] for an `f64` beyond the range of the device's `f32`.
    pub fn set_keras_weights<E: Scalar>(&mut self, layer: &str, weights: &[ArrayD<E>]) -> Result<()> {
        let arrays = crate::interop::keras::import_layer(&self.layer_config(layer)?, weights)?;
        let tensors = self.network.tensors().filter(|(name, _)| *name == layer);
        let names: Vec<_> = tensors.map(|(layer, p)| (format!("{layer}.{}", p.name), p.shape.clone())).collect();
        if arrays.len() != names.len() {
            return Err(Error::shape(layer, format!("{} weights", names.len()), arrays.len().to_string()));
        }
        for (array, (name, shape)) in arrays.iter().zip(&names) {
            if array.shape() != shape.as_slice() {
                return Err(Error::shape(name, format!("{shape:?}"), format!("{:?}", array.shape())));
            }
        }
        let values: Vec<Vec<E>> = arrays.iter().map(|array| array.iter().copied().collect()).collect();
        let weights: Vec<_> = names.iter().zip(&values).map(|((name, _), values)| (&**name, &**values)).collect();
        self.set_weights(&weights)
    }

    /// Whether the layer called `layer` has weights.
    #[cfg(feature = "exchange")]
    pub(crate) fn has_weights(&self, layer: &str) -> bool {
        self.network.tensors().any(|(name, _)| name == layer)
    }

    /// The tensor that a source names.
    #[cfg(feature = "exchange")]
    pub(crate) fn tensor(&self, source: Source) -> Option<GraphTensor> {
        self.topology.tensor(source)
    }

    /// Gives layers new tensors, all or none.
    #[cfg(feature = "exchange")]
    pub(crate) fn set_layer_tensors(&mut self, layers: &[(String, Vec<ArrayD<f64>>)]) -> Result<()> {
        let mut tensors = std::collections::HashMap::new();
        for (name, given) in layers {
            if let Some(built) = self.network.builder.layers.iter().find(|built| built.name == *name) {
                tensors.extend(named_tensors(built, given.clone())?);
            }
        }
        let values: Vec<(String, Vec<f64>)> =
            tensors.into_iter().map(|(name, array)| (name, array.into_iter().collect())).collect();
        let weights: Vec<_> = values.iter().map(|(name, values)| (&**name, &**values)).collect();
        self.set_weights(&weights)
    }

    fn layer_config(&self, layer: &str) -> Result<crate::nn::LayerConfig> {
        let Some(named) = self.topology.layers.iter().find(|named| named.name == layer) else {
            let names: Vec<_> = self.topology.layers.iter().map(|named| named.name.as_str()).collect();
            return Err(Error::option("layer", format!("one of {}", names.join(", ")), layer));
        };
        let foreign =
            || Error::unsupported(format!("Keras's weights for {layer}"), "it is none of this crate's layers");
        named.layer.config().ok_or_else(foreign)
    }
}

/// The tensors of a layer with their full names, checked against what it needs.
#[cfg(feature = "exchange")]
pub(super) fn named_tensors(
    built: &crate::nn::builder::LayerWeights,
    given: Vec<ArrayD<f64>>,
) -> Result<Vec<(String, ArrayD<f64>)>> {
    if given.len() != built.parameters.len() {
        let names: Vec<_> = built.parameters.iter().map(|p| format!("{} {:?}", p.name, p.shape)).collect();
        return Err(Error::shape(
            &built.name,
            format!("{} tensors: {}", names.len(), names.join(", ")),
            given.len().to_string(),
        ));
    }
    let mut tensors = Vec::new();
    for (parameter, array) in built.parameters.iter().zip(given) {
        let name = format!("{}.{}", built.name, parameter.name);
        if array.shape() != parameter.shape.as_slice() {
            return Err(Error::shape(name, format!("shape {:?}", parameter.shape), format!("{:?}", array.shape())));
        }
        tensors.push((name, array));
    }
    Ok(tensors)
}

/// The elements of one of these tensors, in the type of `to`.
#[cfg(feature = "exchange")]
pub(super) fn copy_tensor(
    tensors: &std::collections::HashMap<String, ArrayD<f64>>,
    name: &str,
    to: TensorMut<'_>,
) -> Result<()> {
    let Some(array) = tensors.get(name) else {
        return Err(Error::Presence { tensor: name.to_owned(), problem: "it was not given".to_owned() });
    };
    let values: Vec<f64> = array.iter().copied().collect();
    convert(name, array.shape(), TensorRef::of(&values), to)
}
