//! Layers: what a [`Sequential`](crate::model::Sequential) is made of.
//!
//! A layer is a small value with Keras's words ([`Lstm`], [`Dense`], …; together [`LayerConfig`], which is what a model file holds).
//! It does not compute: [built](Layer::build) behind its inputs it becomes a few operations ([`Op`]), each with its derivative, which
//! the model runs. Weights live in the model, in one flat buffer; each layer says which part is whose ([`Parameter`]).
//!
//! Arrays are row-major with the batch first, `[batch, seq_len, features]` or `[batch, features]`, as in Keras; shapes without the
//! batch are called sample shapes.

pub mod activation;
pub mod attention;
pub mod builder;
pub mod constraint;
pub mod convolution;
mod defaults;
pub mod dense;
pub mod dot;
pub mod dropout;
pub mod elementwise;
pub mod embedding;
pub mod function;
pub mod init;
pub mod initializer;
pub mod lambda;
pub mod masking;
pub mod merge;
mod mirrored;
pub(crate) mod network;
pub mod noise;
pub mod normalization;
pub mod op;
pub mod pooling;
pub mod prelu;
pub mod product;
pub mod recurrent;
pub mod reduce;
pub mod regularizer;
pub mod repeat;
pub mod scaling;
pub mod shape;
pub mod slice;
pub mod steps;
pub mod time_distributed;
pub mod transformer;
pub mod transposed;
pub mod weight;
pub mod weight_options;
pub mod windows;

pub use activation::{ActivationFunction, ActivationLayer, Softmax};
pub use attention::{AdditiveAttention, Attention, MultiHeadAttention};
pub use builder::{Builder, Init, Parameter, Value};
pub use constraint::Constraint;
pub use convolution::Conv1D;
pub use dense::Dense;
pub use dot::Dot;
pub use dropout::Dropout;
pub use elementwise::{Elementwise, Pairwise, Where};
pub use embedding::Embedding;
pub use function::{Combination, Function};
pub use init::Random;
pub use initializer::Initializer;
pub use lambda::Lambda;
pub use masking::{MaskLike, Masking, SequenceMask};
pub use merge::{Add, Average, Concatenate, Maximum, Multiply, Subtract};
pub use noise::{GaussianDropout, GaussianNoise, SpatialDropout1D};
pub use normalization::{BatchNormalization, LayerNormalization};
pub use op::{Backward, Forward, Op, States};
pub use pooling::{AveragePooling1D, GlobalAveragePooling1D, GlobalMaxPooling1D, MaxPooling1D};
pub use prelu::PRelu;
pub use product::MatMul;
pub use recurrent::*;
pub use reduce::{Reduce, Reduction};
pub use regularizer::Regularizer;
pub use repeat::Broadcast;
pub use scaling::{Normalization, UnitNormalization};
pub use shape::{Flatten, Permute, RepeatVector, Reshape};
pub use slice::{Part, Slice};
pub use steps::{Cropping1D, UpSampling1D, ZeroPadding1D};
pub use time_distributed::TimeDistributed;
pub use transformer::{PositionalEncoding, TransformerEncoder};
pub use transposed::Conv1DTranspose;
pub use weight::Weight;
pub use weight_options::WeightOptions;
pub use windows::Padding;

pub use crate::loss::Loss;

use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::backend::ops::Workspace;
use crate::backend::{Device, Tensor, TensorMut, TensorRef};
use crate::cell::{CellKind, for_each_cell};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::nn::recurrent::RecurrentLayer;

/// A layer: a recipe for operations. [`LayerConfig`] holds those of this crate, which a model file can hold; others may be given to a
/// model as they are.
pub trait Layer: Send + Sync {
    /// Keras's name of the kind: `LSTM`, `Dense`, …
    fn class_name(&self) -> &str;

    /// Keras's name for layers of this kind in a model: `lstm`, then `lstm_1`, `lstm_2`, …
    fn stem(&self) -> &str;

    /// Puts its operations behind its inputs, and gives its outputs. Called once for each use of the layer; from the second use on
    /// its weights are those that it has. Allocates nothing whose size depends on that of the layer, so that a configuration from a
    /// file can be checked against the file's tensors first.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] naming the layer where it cannot take such inputs, [`Error::ZeroSize`], [`Error::SizeOverflow`],
    /// [`Error::InvalidOption`].
    fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>>;

    /// What a model file holds of it; `None` where none can.
    fn config(&self) -> Option<LayerConfig>;
}

/// The layers of this crate: variant, Keras's class name, Keras's stem of names. The cells' rows follow from the table of
/// cells; of the others the recurrent ones come first.
macro_rules! layers {
    (
        cells { $(($kind:ident $module:ident $layer:ident $layer_class:literal $layer_stem:literal $form:ident))* }
        recurrent { $($recurrent:ident, $recurrent_class:literal, $recurrent_stem:literal;)* }
        others { $($other:ident, $other_class:literal, $other_stem:literal;)* }
    ) => {
        layers! {
            all {
                $($layer, $layer_class, $layer_stem;)*
                $($recurrent, $recurrent_class, $recurrent_stem;)*
                $($other, $other_class, $other_stem;)*
            }
        }

        impl LayerConfig {
            /// The layer of a cell, with the options that all recurrent layers have.
            pub fn of_cell(cell: CellKind, units: usize, options: RecurrentOptions) -> Self {
                match cell {
                    $(CellKind::$kind => LayerConfig::$layer($layer { options, ..$layer::new(units) }),)*
                }
            }

            /// What it is as a recurrent layer, if it is one.
            pub(crate) fn as_recurrent(&self) -> Option<&dyn RecurrentLayer> {
                match self {
                    $(LayerConfig::$layer(layer) => Some(layer),)*
                    $(LayerConfig::$recurrent(layer) => Some(layer),)*
                    _ => None,
                }
            }

            /// The same, to be changed.
            pub(crate) fn as_recurrent_mut(&mut self) -> Option<&mut dyn RecurrentLayer> {
                match self {
                    $(LayerConfig::$layer(layer) => Some(layer),)*
                    $(LayerConfig::$recurrent(layer) => Some(layer),)*
                    _ => None,
                }
            }
        }
    };
    (all { $($variant:ident, $class_name:literal, $stem:literal;)* }) => {
        /// What a layer is, apart from its inputs and its weights.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "class_name", content = "config")]
        #[non_exhaustive]
        pub enum LayerConfig {
            $(
                #[doc = concat!("See [`", stringify!($variant), "`].")]
                #[serde(rename = $class_name)]
                $variant($variant),
            )*
        }

        #[cfg(test)]
        const LAYERS: &[(&str, &str)] = &[$((stringify!($variant), $class_name)),*];

        $(
            impl From<$variant> for LayerConfig {
                fn from(config: $variant) -> Self {
                    LayerConfig::$variant(config)
                }
            }
        )*

        impl Layer for LayerConfig {
            fn class_name(&self) -> &str {
                match self {
                    $(LayerConfig::$variant(_) => $class_name,)*
                }
            }

            fn stem(&self) -> &str {
                match self {
                    $(LayerConfig::$variant(_) => $stem,)*
                }
            }

            fn build(&self, builder: &mut Builder, inputs: &[Value]) -> Result<Vec<Value>> {
                match self {
                    $(LayerConfig::$variant(config) => config.build(builder, inputs),)*
                }
            }

            fn config(&self) -> Option<LayerConfig> {
                Some(self.clone())
            }
        }
    };
}

/// The table, with the rows of the cells.
macro_rules! table {
    ($($cells:tt)*) => {
        layers! {
            cells { $($cells)* }
            recurrent { IndRnn, "IndRNN", "ind_rnn"; }
            others {
                ActivationLayer, "Activation", "activation";
                Add, "Add", "add";
                AdditiveAttention, "AdditiveAttention", "additive_attention";
                Attention, "Attention", "attention";
                Average, "Average", "average";
                AveragePooling1D, "AveragePooling1D", "average_pooling1d";
                BatchNormalization, "BatchNormalization", "batch_normalization";
                Broadcast, "Broadcast", "broadcast";
                Concatenate, "Concatenate", "concatenate";
                Bidirectional, "Bidirectional", "bidirectional";
                Conv1D, "Conv1D", "conv1d";
                Conv1DTranspose, "Conv1DTranspose", "conv1d_transpose";
                Cropping1D, "Cropping1D", "cropping1d";
                Dense, "Dense", "dense";
                Dot, "Dot", "dot";
                Dropout, "Dropout", "dropout";
                Elementwise, "Elementwise", "elementwise";
                Embedding, "Embedding", "embedding";
                Flatten, "Flatten", "flatten";
                GaussianDropout, "GaussianDropout", "gaussian_dropout";
                GaussianNoise, "GaussianNoise", "gaussian_noise";
                GlobalAveragePooling1D, "GlobalAveragePooling1D", "global_average_pooling1d";
                GlobalMaxPooling1D, "GlobalMaxPooling1D", "global_max_pooling1d";
                LayerNormalization, "LayerNormalization", "layer_normalization";
                MaskLike, "MaskLike", "mask_like";
                Masking, "Masking", "masking";
                MatMul, "MatMul", "mat_mul";
                MaxPooling1D, "MaxPooling1D", "max_pooling1d";
                Maximum, "Maximum", "maximum";
                MultiHeadAttention, "MultiHeadAttention", "multi_head_attention";
                Multiply, "Multiply", "multiply";
                Normalization, "Normalization", "normalization";
                PRelu, "PReLU", "p_re_lu";
                Pairwise, "Pairwise", "pairwise";
                Permute, "Permute", "permute";
                PositionalEncoding, "PositionalEncoding", "positional_encoding";
                RecurrentOperator, "RecurrentOperator", "recurrent_operator";
                Reduce, "Reduce", "reduce";
                RepeatVector, "RepeatVector", "repeat_vector";
                Reshape, "Reshape", "reshape";
                SequenceMask, "SequenceMask", "sequence_mask";
                Slice, "Slice", "slice";
                Softmax, "Softmax", "softmax";
                SpatialDropout1D, "SpatialDropout1D", "spatial_dropout1d";
                Subtract, "Subtract", "subtract";
                TimeDistributed, "TimeDistributed", "time_distributed";
                TransformerEncoder, "TransformerEncoder", "transformer_encoder";
                UnitNormalization, "UnitNormalization", "unit_normalization";
                UpSampling1D, "UpSampling1D", "up_sampling1d";
                Weight, "Weight", "weight";
                Where, "Where", "where";
                ZeroPadding1D, "ZeroPadding1D", "zero_padding1d";
            }
        }
    };
}
for_each_cell!(table);

/// The input of a layer that takes one.
pub(crate) fn one_input<'a>(builder: &Builder, inputs: &'a [Value]) -> Result<&'a Value> {
    match inputs {
        [x] => Ok(x),
        _ => Err(Error::shape(builder.name(), "one input", format!("{} inputs", inputs.len()))),
    }
}

/// A tensor that grows on demand. What it holds does not survive that.
pub(crate) struct Scratch {
    tensor: Option<Tensor>,
}

impl Scratch {
    /// Nothing yet.
    pub(crate) fn new() -> Self {
        Scratch { tensor: None }
    }

    /// Makes it at least `len` long, of the device's element type.
    #[inline]
    pub(crate) fn grow(&mut self, device: &Device, what: &str, len: usize) -> Result<()> {
        if self.holds(len) { Ok(()) } else { self.replace(device, what, device.dtype(), len) }
    }

    /// The same of another type: `u32` for indices, `f64` for a status. Its type must always be the same.
    #[inline]
    pub(crate) fn grow_as(&mut self, device: &Device, what: &str, dtype: DType, len: usize) -> Result<()> {
        if self.holds(len) { Ok(()) } else { self.replace(device, what, dtype, len) }
    }

    #[inline]
    fn holds(&self, len: usize) -> bool {
        self.tensor.as_ref().is_some_and(|tensor| tensor.len() >= len)
    }

    #[cold]
    fn replace(&mut self, device: &Device, what: &str, dtype: DType, len: usize) -> Result<()> {
        // First the old one goes, so that both need not fit.
        self.tensor = None;
        self.tensor = Some(device.allocate_as(what, dtype, len)?);
        Ok(())
    }

    /// All of it, made large enough to be the workspace of `call`.
    #[inline]
    pub(crate) fn for_call(&mut self, device: &Device, call: Workspace) -> Result<TensorMut<'_>> {
        self.grow(device, "workspace", device.workspace(call))?;
        self.all()
    }

    /// Whether nothing was allocated yet, or it was taken.
    pub(crate) fn is_empty(&self) -> bool {
        self.tensor.is_none()
    }

    /// The first `len` elements.
    #[inline]
    pub(crate) fn get(&self, len: usize) -> Result<TensorRef<'_>> {
        self.part(0..len)
    }

    /// The first `len` elements, to be written.
    #[inline]
    pub(crate) fn get_mut(&mut self, len: usize) -> Result<TensorMut<'_>> {
        self.part_mut(0..len)
    }

    /// Some elements.
    #[inline]
    pub(crate) fn part(&self, range: Range<usize>) -> Result<TensorRef<'_>> {
        self.tensor.as_ref().ok_or_else(absent)?.view().part(range)
    }

    /// Some elements, to be written.
    #[inline]
    pub(crate) fn part_mut(&mut self, range: Range<usize>) -> Result<TensorMut<'_>> {
        self.tensor.as_mut().ok_or_else(absent)?.view_mut().part(range)
    }

    /// All of it.
    #[inline]
    pub(crate) fn all(&mut self) -> Result<TensorMut<'_>> {
        Ok(self.tensor.as_mut().ok_or_else(absent)?.view_mut())
    }

    /// The tensor itself, which the caller puts back.
    pub(crate) fn take(&mut self) -> Result<Tensor> {
        self.tensor.take().ok_or_else(absent)
    }

    /// Puts back what [`take`](Self::take) gave.
    pub(crate) fn put(&mut self, tensor: Tensor) {
        self.tensor = Some(tensor);
    }
}

#[cold]
fn absent() -> Error {
    Error::Presence { tensor: "scratch".to_owned(), problem: "it was not allocated before the pass".to_owned() }
}

#[cfg(test)]
mod tests {
    /// The page of words has every layer, by its name here and by Keras's.
    #[test]
    fn the_page_of_words_has_all_layers() {
        let page = include_str!("../../docs/words.md");
        let words: Vec<&str> = page.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').collect();
        for (name, class_name) in super::LAYERS {
            assert!(words.contains(name), "{name}");
            assert!(words.contains(class_name), "{class_name}");
        }
    }
}
