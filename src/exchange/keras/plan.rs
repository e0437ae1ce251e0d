//! A model of this crate as Keras keeps it: the order of its layers, and where the arrays of each stand in a file of weights.

use std::collections::{BTreeMap, BTreeSet};

use super::names::{Counters, Use, model_order};
use crate::error::Result;
use crate::model::graph::Source;
use crate::model::{GraphConfig, Model};
use crate::nn::{Combination, Function, Layer as _, LayerConfig};

/// A layer in its place.
pub(super) struct Place {
    /// Number of the layer in the model's configuration.
    pub layer: usize,
    /// Keras's name, which no other layer and no input has.
    pub name: String,
    /// The group of its arrays.
    pub group: String,
}

/// The model's configuration, and its layers in Keras's order.
pub(super) struct Plan {
    pub config: GraphConfig,
    pub places: Vec<Place>,
    /// Keras's names of the inputs.
    pub inputs: Vec<String>,
    /// Calls that are given a mask which Keras's layer does not read, and hands on.
    pub unread_masks: BTreeSet<usize>,
}

/// A configuration in which masks go past layers as in Keras, by themselves, and not by layers: a [`Reshape`](crate::nn::Reshape) that ends the mask, a
/// recurrent layer, and a [`MaskLike`](crate::nn::MaskLike) are the recurrent layer alone. And the calls of which that is so.
fn with_unread_masks(mut config: GraphConfig) -> (GraphConfig, BTreeSet<usize>) {
    let (mut unread, mut alias) = (BTreeSet::new(), BTreeMap::new());
    let layer_of = |config: &GraphConfig, call: usize| {
        let call = config.calls.get(call)?;
        Some((config.layers.get(call.layer)?.layer.clone(), call.inputs.clone()))
    };
    for index in 0..config.calls.len() {
        let Some((LayerConfig::MaskLike(_), inputs)) = layer_of(&config, index) else { continue };
        let [Source::Call(call, output), like] = inputs[..] else { continue };
        let Some((layer, given)) = layer_of(&config, call) else { continue };
        let recurrent = layer.as_recurrent().is_some() || matches!(layer, LayerConfig::Bidirectional(_));
        let ended = match given.first() {
            Some(Source::Call(below, 0)) => {
                matches!(layer_of(&config, *below), Some((LayerConfig::Reshape(_), from)) if from == [like])
            }
            _ => false,
        };
        let again = unread.contains(&call) && given.first() == Some(&like);
        if !recurrent || given.len() < 2 || !(ended || again) {
            continue;
        }
        if let Some(first) = config.calls.get_mut(call).and_then(|call| call.inputs.first_mut()) {
            *first = like;
            unread.insert(call);
            alias.insert((index, 0), Source::Call(call, output));
        }
    }
    let replace = |source: &mut Source| {
        if let Source::Call(call, output) = *source
            && let Some(other) = alias.get(&(call, output))
        {
            *source = *other;
        }
    };
    config.calls.iter_mut().flat_map(|call| &mut call.inputs).for_each(replace);
    config.outputs.iter_mut().for_each(replace);
    (config, unread)
}

/// Names that Keras gives to operations of masks.
const OF_MASKS: &[&str] = &[
    "any",
    "all",
    "broadcast_to",
    "cast",
    "concatenate",
    "convert_to_tensor",
    "expand_dims",
    "logical_and",
    "logical_or",
    "not_equal",
    "ones_like",
    "squeeze",
    "zeros_like",
];

impl Plan {
    pub fn of(model: &Model) -> Result<Self> {
        let (config, unread_masks) = with_unread_masks(model.config()?);
        let mut taken = BTreeSet::new();
        let masks = config.layers.iter().any(|named| match &named.layer {
            LayerConfig::Embedding(l) => l.mask_zero,
            layer => matches!(layer, LayerConfig::Masking(_)),
        });
        let mut free = |name: &str| {
            // Keras allows no slashes, which stand between the names of models inside of each other.
            let mut plain = name.replace('/', "_");
            // It gives names of its own to the operations that it computes masks with, whatever layers are called.
            let stem = plain.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
            if masks && OF_MASKS.contains(&stem) {
                plain.push_str("_layer");
            }
            let names = (0usize..).map(|n| if n == 0 { plain.clone() } else { format!("{plain}_{n}") });
            let name = names.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
            taken.insert(name.clone());
            name
        };
        let inputs: Vec<String> = config.inputs.iter().map(|input| free(&input.name)).collect();
        let names: Vec<String> = config.layers.iter().map(|layer| free(&layer.name)).collect();

        // Inputs are operations too: theirs are the first numbers.
        let count = config.inputs.len();
        let use_of = |source: &Source| match source {
            Source::Input(input) => *input,
            Source::Call(call, _) => count + call,
        };
        let mut uses: Vec<Use> = (0..count).map(|operation| Use { operation, inputs: Vec::new() }).collect();
        for call in &config.calls {
            uses.push(Use { operation: count + call.layer, inputs: call.inputs.iter().map(use_of).collect() });
        }
        let outputs: Vec<usize> = config.outputs.iter().map(use_of).collect();
        let (mut counters, mut places) = (Counters::default(), Vec::new());
        for operation in model_order(&uses, &outputs) {
            let Some(layer) = operation.checked_sub(count) else {
                counters.next("InputLayer");
                continue;
            };
            if let (Some(named), Some(name)) = (config.layers.get(layer), names.get(layer)) {
                let group = format!("layers/{}", counters.next(class_of(&named.layer)));
                places.push(Place { layer, name: name.clone(), group });
            }
        }
        Ok(Plan { config, places, inputs, unread_masks })
    }

    /// Keras's name of a layer.
    pub fn name_of(&self, layer: usize) -> &str {
        self.places.iter().find(|place| place.layer == layer).map_or("", |place| &place.name)
    }
}

/// Keras's class of a layer.
pub(super) fn class_of(layer: &LayerConfig) -> &str {
    match layer {
        LayerConfig::Elementwise(l) => match l.function {
            Function::LeakyRelu { .. } => "LeakyReLU",
            Function::Elu { .. } => "ELU",
            Function::Affine { .. } => "Rescaling",
            _ => "Activation",
        },
        LayerConfig::Pairwise(l) => match l.combination {
            Combination::Sum => "Add",
            Combination::Difference => "Subtract",
            Combination::Product => "Multiply",
            Combination::Maximum => "Maximum",
            Combination::Minimum => "Minimum",
            _ => layer.class_name(),
        },
        other => other.class_name(),
    }
}

/// The groups of a layer's arrays, below its own, in the order of Keras's `get_weights()`.
pub(super) fn groups_of(layer: &LayerConfig) -> Vec<String> {
    match layer {
        LayerConfig::Bidirectional(_) => vec!["forward_layer/cell".to_owned(), "backward_layer/cell".to_owned()],
        LayerConfig::MultiHeadAttention(_) => {
            ["query_dense", "key_dense", "value_dense", "output_dense"].map(str::to_owned).to_vec()
        }
        LayerConfig::TimeDistributed(wrapper) => {
            let inner = groups_of(&wrapper.layer);
            inner.iter().map(|group| below("layer", group)).collect()
        }
        recurrent if recurrent.as_recurrent().is_some() => vec!["cell".to_owned()],
        _ => vec![String::new()],
    }
}

/// A group inside of another.
pub(super) fn below(group: &str, part: &str) -> String {
    if part.is_empty() { group.to_owned() } else { format!("{group}/{part}") }
}
