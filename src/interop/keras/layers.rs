//! The weights of whole layers, as the lists of arrays that Keras's `layer.get_weights()` gives.

use ndarray::{ArrayD, IxDyn};

use super::{KerasWeights, export, import};
use crate::cell::CellKind;
use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::nn::recurrent::RecurrentLayer;
use crate::nn::{Layer as _, LayerConfig};
use crate::rnn::{Bias, Direction, RnnDescriptor, WeightLayout};

/// One of Keras's arrays, or those of a recurrent layer, in the order of `get_weights()`.
enum Part {
    /// Has the same layout here.
    Same,
    /// A number `[]`, here `[1]`.
    Number(&'static str),
    /// `[features, units]`, here `[units, features]`.
    Transposed(&'static str),
    /// `[features, heads, width]`, here `[heads * width, features]`.
    ToHeads { name: &'static str, heads: usize },
    /// `[heads, width]`, here `[heads * width]`.
    OfHeads { name: &'static str, heads: usize },
    /// `[heads, width, features]`, here `[features, heads * width]`.
    FromHeads { name: &'static str, heads: usize },
    /// `kernel`, `recurrent_kernel` and perhaps `bias`; `summed` where that is the sum of two here.
    Recurrent { cell: CellKind, units: usize, bias: Bias, summed: bool },
}

impl Part {
    /// How many arrays it has there and here.
    fn counts(&self) -> (usize, usize) {
        match self {
            Part::Recurrent { bias: Bias::None, .. } => (2, 2),
            Part::Recurrent { bias: Bias::Single, summed: true, .. } => (3, 4),
            Part::Recurrent { bias: Bias::Single, .. } => (3, 3),
            Part::Recurrent { bias: Bias::Double, .. } => (3, 4),
            _ => (1, 1),
        }
    }
}

fn recurrent(layer: &dyn RecurrentLayer) -> Result<Vec<Part>> {
    let (cell, options) = (layer.cell(), layer.options());
    if options.layer_norm {
        return Err(Error::option("layer_norm", "off, since Keras's layers have none", "on"));
    }
    if options.heads > 1 {
        return Err(Error::option("heads", "1, since Keras's layers have one", options.heads));
    }
    if options.num_layers > 1 {
        return Err(Error::option("num_layers", "1, since Keras's layers are one each", options.num_layers));
    }
    // Two biases of PyTorch, which Keras has as one.
    let summed = layer.bias() == Bias::Double && options.double_bias && cell != CellKind::Gru;
    let bias = if summed { Bias::Single } else { layer.bias() };
    Ok(vec![Part::Recurrent { cell, units: layer.units(), bias, summed }])
}

fn with_bias(kernel: Part, bias: Part, use_bias: bool) -> Vec<Part> {
    if use_bias { vec![kernel, bias] } else { vec![kernel] }
}

fn parts(layer: &LayerConfig) -> Result<Vec<Part>> {
    let no_such_layer = || {
        Error::unsupported(
            format!("weights of Keras for {layer:?}"),
            "Keras has no such layer; set its weights by their names",
        )
    };
    // A layer of a cell that Keras has is not always one of Keras's: an IndRNN is none.
    let is_keras = |cell: CellKind| cell.spec().keras.is_some_and(|keras| keras.name == layer.class_name());
    if let Some(recurrent_layer) = layer.as_recurrent() {
        if !is_keras(recurrent_layer.cell()) {
            return Err(no_such_layer());
        }
        return recurrent(recurrent_layer);
    }
    Ok(match layer {
        LayerConfig::Bidirectional(l) => {
            let mut both = parts(&l.layer)?;
            both.extend(parts(&l.layer)?);
            both
        }
        LayerConfig::TimeDistributed(l) => parts(&l.layer)?,
        LayerConfig::Dense(l) => with_bias(Part::Transposed("kernel"), Part::Same, l.use_bias),
        LayerConfig::Conv1D(l) => with_bias(Part::Same, Part::Same, l.use_bias),
        LayerConfig::Conv1DTranspose(l) => with_bias(Part::Same, Part::Same, l.use_bias),
        LayerConfig::Normalization(_) => vec![Part::Same, Part::Same],
        LayerConfig::Weight(_) => vec![Part::Same],
        LayerConfig::Embedding(_) | LayerConfig::PRelu(_) => vec![Part::Same],
        LayerConfig::LayerNormalization(l) => scale_and_shift(l.scale, l.center),
        LayerConfig::BatchNormalization(l) => {
            let mut all = scale_and_shift(l.scale, l.center);
            all.extend([Part::Same, Part::Same]);
            all
        }
        LayerConfig::Attention(l) => {
            if l.use_scale {
                vec![Part::Number("scale")]
            } else {
                Vec::new()
            }
        }
        LayerConfig::AdditiveAttention(l) => {
            if l.use_scale {
                vec![Part::Same]
            } else {
                Vec::new()
            }
        }
        LayerConfig::MultiHeadAttention(l) => {
            let (heads, mut all) = (l.num_heads, Vec::new());
            for (kernel, bias) in
                [("query kernel", "query bias"), ("key kernel", "key bias"), ("value kernel", "value bias")]
            {
                let kernel = Part::ToHeads { name: kernel, heads };
                all.extend(with_bias(kernel, Part::OfHeads { name: bias, heads }, l.use_bias));
            }
            let kernel = Part::FromHeads { name: "attention_output kernel", heads };
            all.extend(with_bias(kernel, Part::Same, l.use_bias));
            all
        }
        LayerConfig::TransformerEncoder(_) | LayerConfig::PositionalEncoding(_) => {
            return Err(no_such_layer());
        }
        _ => Vec::new(),
    })
}

fn scale_and_shift(scale: bool, center: bool) -> Vec<Part> {
    let both = [(scale, Part::Same), (center, Part::Same)];
    both.into_iter().filter(|(present, _)| *present).map(|(_, part)| part).collect()
}

fn check_count(expected: usize, got: usize) -> Result<()> {
    if expected == got { Ok(()) } else { Err(Error::shape("weights", format!("{expected} arrays"), got.to_string())) }
}

fn sizes<E, const N: usize>(name: &str, array: &ArrayD<E>, axes: &str) -> Result<[usize; N]> {
    let got = array.shape();
    got.try_into().map_err(|_| Error::shape(name, format!("an array {axes}"), format!("{got:?}")))
}

fn reshaped<E: Scalar>(name: &str, array: &ArrayD<E>, shape: &[usize]) -> Result<ArrayD<E>> {
    let values = array.iter().copied().collect();
    ArrayD::from_shape_vec(IxDyn(shape), values)
        .map_err(|_| Error::shape(name, format!("{shape:?}"), format!("{:?}", array.shape())))
}

/// The matrix with its rows as columns, in standard layout.
fn transposed<E: Scalar>(matrix: &ArrayD<E>) -> ArrayD<E> {
    matrix.t().as_standard_layout().into_owned()
}

fn check_heads(name: &str, heads: usize, got: usize) -> Result<()> {
    if heads == got { Ok(()) } else { Err(Error::shape(name, format!("{heads} heads"), format!("{got} heads"))) }
}

fn descriptor(cell: CellKind, features: usize, units: usize, bias: Bias) -> RnnDescriptor {
    RnnDescriptor { bias, direction: Direction::Forward, ..RnnDescriptor::new(cell, features, units) }
}

/// The weights of a layer from those that Keras's layer of the same options has: `weights` is what `layer.get_weights()` gives, the
/// result has the tensors that [`Model::weights`](crate::model::Model::weights) shows of the layer, in the same order. Also for
/// gradients, which are laid out alike. [`Model::set_keras_weights`](crate::model::Model::set_keras_weights) does it for a layer of a
/// model.
///
/// | Keras | here |
/// |---|---|
/// | recurrent `kernel`, `recurrent_kernel`, `bias` | see [the module](super) |
/// | `Dense`: `kernel` `[features, units]` | `[units, features]` |
/// | `MultiHeadAttention`: kernels `[features, heads, width]`, biases `[heads, width]` | `[heads * width, features]`, `[heads * width]` |
/// | `MultiHeadAttention`: output kernel `[heads, width, features]` | `[features, heads * width]` |
/// | everything else | as it is |
///
/// # Errors
///
/// [`Error::Shape`] for another number of arrays, or for arrays of other shapes; [`Error::Unsupported`] and
/// [`Error::InvalidOption`] for layers and options that Keras has not.
pub fn import_layer<E: Scalar>(layer: &LayerConfig, weights: &[ArrayD<E>]) -> Result<Vec<ArrayD<E>>> {
    let parts = parts(layer)?;
    check_count(parts.iter().map(|part| part.counts().0).sum(), weights.len())?;
    let (mut converted, mut rest) = (Vec::new(), weights);
    for part in &parts {
        let (arrays, others) = rest.split_at_checked(part.counts().0).unwrap_or_default();
        rest = others;
        let Some(array) = arrays.first() else { return Err(Error::ZeroSize { name: "number of arrays" }) };
        match *part {
            Part::Same => converted.push(array.as_standard_layout().into_owned()),
            Part::Number(name) => converted.push(reshaped(name, array, &[1])?),
            Part::Transposed(name) => {
                let [_, _] = sizes(name, array, "[features, units]")?;
                converted.push(transposed(array));
            }
            Part::ToHeads { name, heads } => {
                let [features, of_kernel, width] = sizes(name, array, "[features, heads, width]")?;
                check_heads(name, heads, of_kernel)?;
                converted.push(transposed(&reshaped(name, array, &[features, heads.saturating_mul(width)])?));
            }
            Part::OfHeads { name, heads } => {
                let [of_bias, _] = sizes(name, array, "[heads, width]")?;
                check_heads(name, heads, of_bias)?;
                converted.push(reshaped(name, array, &[array.len()])?);
            }
            Part::FromHeads { name, heads } => {
                let [of_kernel, width, features] = sizes(name, array, "[heads, width, features]")?;
                check_heads(name, heads, of_kernel)?;
                converted.push(transposed(&reshaped(name, array, &[heads.saturating_mul(width), features])?));
            }
            Part::Recurrent { cell, units, bias, summed } => {
                let [features, _] = sizes("kernel", array, "[features, gates * units]")?;
                let descriptor = descriptor(cell, features, units, bias);
                let values = |array: &ArrayD<E>| array.iter().copied().collect::<Vec<E>>();
                let keras = KerasWeights {
                    kernel: values(array),
                    recurrent_kernel: arrays.get(1).map(values).unwrap_or_default(),
                    bias: arrays.get(2).map(values),
                };
                let flat = import(&descriptor, &[keras])?;
                for entry in WeightLayout::new(&descriptor)?.entries() {
                    let values = flat.get(entry.range.clone()).unwrap_or_default().to_vec();
                    let values = ArrayD::from_shape_vec(IxDyn(&entry.shape), values);
                    converted.push(values.map_err(|e| Error::shape(&entry.name, "its own", e.to_string()))?);
                }
                if summed {
                    converted.push(ArrayD::zeros(IxDyn(&[cell.gates() * units])));
                }
            }
        }
    }
    Ok(converted)
}

/// The reverse of [`import_layer`]: what Keras's `layer.set_weights()` takes, from the tensors of a layer.
/// [`Model::keras_weights`](crate::model::Model::keras_weights) does it for a layer of a model.
///
/// # Errors
///
/// [`Error::Shape`] for another number of arrays, or for arrays of other shapes; [`Error::Unsupported`] and [`Error::InvalidOption`] for
/// layers and options that Keras has not.
pub fn export_layer<E: Scalar>(layer: &LayerConfig, weights: &[ArrayD<E>]) -> Result<Vec<ArrayD<E>>> {
    let parts = parts(layer)?;
    check_count(parts.iter().map(|part| part.counts().1).sum(), weights.len())?;
    let (mut converted, mut rest) = (Vec::new(), weights);
    for part in &parts {
        let (arrays, others) = rest.split_at_checked(part.counts().1).unwrap_or_default();
        rest = others;
        let Some(array) = arrays.first() else { return Err(Error::ZeroSize { name: "number of arrays" }) };
        // Width of a head.
        let width = |name: &str, heads: usize, units: usize| match units.checked_rem(heads) {
            Some(0) => Ok(units / heads),
            _ => Err(Error::shape(name, format!("a multiple of {heads} heads"), units.to_string())),
        };
        match *part {
            Part::Same => converted.push(array.as_standard_layout().into_owned()),
            Part::Number(name) => converted.push(reshaped(name, array, &[])?),
            Part::Transposed(name) => {
                let [_, _] = sizes(name, array, "[units, features]")?;
                converted.push(transposed(array));
            }
            Part::ToHeads { name, heads } => {
                let [units, features] = sizes(name, array, "[heads * width, features]")?;
                let shape = [features, heads, width(name, heads, units)?];
                converted.push(reshaped(name, &transposed(array), &shape)?);
            }
            Part::OfHeads { name, heads } => {
                let shape = [heads, width(name, heads, array.len())?];
                converted.push(reshaped(name, array, &shape)?);
            }
            Part::FromHeads { name, heads } => {
                let [features, units] = sizes(name, array, "[features, heads * width]")?;
                let shape = [heads, width(name, heads, units)?, features];
                converted.push(reshaped(name, &transposed(array), &shape)?);
            }
            Part::Recurrent { cell, units, bias, summed } => {
                let [_, features] = sizes("weight_ih", array, "[gates * units, features]")?;
                let descriptor = descriptor(cell, features, units, bias);
                // Refuses sizes whose product overflows.
                WeightLayout::new(&descriptor)?;
                let mut flat: Vec<E> = arrays.iter().flat_map(|array| array.iter().copied()).collect();
                if summed {
                    let second = flat.split_off(flat.len().saturating_sub(cell.gates() * units));
                    let first = flat.len().saturating_sub(second.len());
                    flat.iter_mut().skip(first).zip(second).for_each(|(sum, second)| *sum += second);
                }
                let rows = cell.gates() * units;
                for keras in export(&descriptor, &flat)? {
                    let kernel = ArrayD::from_shape_vec(IxDyn(&[features, rows]), keras.kernel);
                    let recurrent = ArrayD::from_shape_vec(IxDyn(&[units, rows]), keras.recurrent_kernel);
                    let shape: &[usize] = if bias == Bias::Double { &[2, rows] } else { &[rows] };
                    let bias = keras.bias.map(|bias| ArrayD::from_shape_vec(IxDyn(shape), bias));
                    for array in [Some(kernel), Some(recurrent), bias].into_iter().flatten() {
                        converted.push(array.map_err(|e| Error::shape("weights", "their own shape", e.to_string()))?);
                    }
                }
            }
        }
    }
    Ok(converted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::nn::{Gru, Lstm, MultiHeadAttention, RecurrentOptions};

    #[test]
    fn sizes_that_overflow_are_refused() {
        let arrays: Vec<ArrayD<f32>> = vec![ArrayD::zeros(IxDyn(&[2, 3])); 4];
        let double_bias = RecurrentOptions { double_bias: true, ..RecurrentOptions::default() };
        for units in [usize::MAX, usize::MAX / 4 + 1] {
            let mut lstm = Lstm::new(units);
            lstm.options = double_bias.clone();
            for layer in [LayerConfig::from(lstm), Gru::new(units).into()] {
                assert!(export_layer(&layer, &arrays).is_err(), "{layer:?}");
                assert!(import_layer(&layer, &arrays[..3]).is_err(), "{layer:?}");
            }
        }
        let heads: LayerConfig = MultiHeadAttention::new(usize::MAX, 3).into();
        let arrays: Vec<ArrayD<f32>> = vec![ArrayD::zeros(IxDyn(&[0, 0, 2])); 8];
        assert!(import_layer(&heads, &arrays).is_err() && export_layer(&heads, &arrays).is_err());
    }
}
