//! A model of this crate as Keras's configuration and weights.

use std::collections::HashMap;
use std::path::Path;

use serde_json::{Map, Value, json};

use super::plan::{Plan, below, class_of, groups_of};
use super::variables::Tree;
use super::{compile, training};
use crate::error::{Error, Result};
use crate::model::Model;
use crate::model::graph::Source;
use crate::nn::*;

/// The configuration as JSON.
pub(super) fn config(model: &Model, plan: &Plan, path: &Path) -> Result<Vec<u8>> {
    let refuse_masks = |source: &Source, name: &str, what: &str| match model.tensor(*source) {
        Some(tensor) if tensor.is_masked() => Err(Error::unsupported(
            format!("{}: layer {name} with a mask and {what} in a Keras file", path.display()),
            "Keras does something else with absent steps there",
        )),
        _ => Ok(()),
    };
    // Which use of its layer a call is.
    let (mut number_of_use, mut uses) = (Vec::new(), HashMap::new());
    for call in &plan.config.calls {
        let count = uses.entry(call.layer).or_insert(0usize);
        number_of_use.push(*count);
        *count += 1;
    }
    let history = |source: &Source| match source {
        Source::Input(input) => json!([plan.inputs.get(*input), 0, 0]),
        Source::Call(call, output) => {
            let layer = plan.config.calls.get(*call).map_or(0, |call| call.layer);
            json!([plan.name_of(layer), number_of_use.get(*call), output])
        }
    };
    let tensor = |source: &Source| {
        let shape = with_batch(&model.axes_of(*source));
        json!({"class_name": "__keras_tensor__",
               "config": {"shape": shape, "dtype": "float32", "keras_history": history(source)}})
    };
    let mut layers = Vec::new();
    for (input, name) in plan.config.inputs.iter().zip(&plan.inputs) {
        let config = json!({"batch_shape": with_batch(&input.shape), "dtype": "float32", "sparse": false,
                            "ragged": false, "name": name});
        layers.push(entry("InputLayer", name, config, Vec::new()));
    }
    for place in &plan.places {
        let Some(named) = plan.config.layers.get(place.layer) else { continue };
        let refused = |option: &str| {
            Error::unsupported(
                format!(
                    "{}: layer {} ({}) {option} in a Keras file",
                    path.display(),
                    named.name,
                    named.layer.class_name()
                ),
                "Keras has no such layer; save the model in this crate's own format",
            )
        };
        let mut config = layer_config(&named.layer, &refused)?;
        config.insert("name".to_owned(), json!(place.name));
        // Some of Keras's layers without weights do not take the word.
        if !named.trainable && model.has_weights(&named.name) {
            config.insert("trainable".to_owned(), json!(false));
            // In Keras that of a layer is that of those inside.
            for key in ["layer", "backward_layer"] {
                let inside = config.get_mut(key).and_then(|inside| inside.get_mut("config")?.as_object_mut());
                inside.map(|inside| inside.insert("trainable".to_owned(), json!(false)));
            }
        }
        let mut nodes = Vec::new();
        for (number, call) in plan.config.calls.iter().enumerate().filter(|(_, call)| call.layer == place.layer) {
            let (mut arguments, mut keywords) = (Vec::new(), Map::new());
            let tensors: Vec<Value> = call.inputs.iter().map(tensor).collect();
            let first = call.inputs.first();
            let of_attention = match &named.layer {
                LayerConfig::Attention(l) => Some((l.causal, l.return_attention_scores)),
                LayerConfig::AdditiveAttention(l) => Some((l.causal, l.return_attention_scores)),
                LayerConfig::MultiHeadAttention(l) => Some((l.causal, l.return_attention_scores)),
                _ => None,
            };
            if let Some((causal, scores)) = of_attention {
                keywords.insert("use_causal_mask".to_owned(), json!(causal));
                keywords.insert("return_attention_scores".to_owned(), json!(scores));
            }
            let recurrent = match &named.layer {
                LayerConfig::Bidirectional(l) => l.layer.as_recurrent(),
                layer => layer.as_recurrent(),
            };
            match (&named.layer, recurrent) {
                (LayerConfig::MultiHeadAttention(_), _) => arguments = tensors,
                (_, Some(layer)) => {
                    let options = layer.options();
                    let bidirectional = matches!(named.layer, LayerConfig::Bidirectional(_));
                    if let Some(first) = first.filter(|_| !plan.unread_masks.contains(&number)) {
                        if tensors.len() > 1 {
                            refuse_masks(first, &named.name, "initial states")?;
                        }
                        if options.go_backwards && options.return_sequences && !bidirectional {
                            refuse_masks(first, &named.name, "go_backwards and return_sequences")?;
                        }
                    }
                    let mut tensors = tensors.into_iter();
                    arguments.extend(tensors.next());
                    let states: Vec<Value> = tensors.collect();
                    if !states.is_empty() {
                        keywords.insert("initial_state".to_owned(), json!(states));
                    }
                }
                (LayerConfig::Attention(_) | LayerConfig::AdditiveAttention(_), _) => arguments.push(json!(tensors)),
                (LayerConfig::Pairwise(_), _) => {
                    // Masks end here, and are joined by Keras's layers.
                    call.inputs
                        .iter()
                        .try_for_each(|input| refuse_masks(input, &named.name, "a combination without it"))?;
                    arguments.push(json!(tensors));
                }
                _ if tensors.len() > 1 => arguments.push(json!(tensors)),
                (layer, _) => {
                    if let (LayerConfig::GlobalMaxPooling1D(_), Some(first)) = (layer, first) {
                        refuse_masks(first, &named.name, "a maximum over all steps")?;
                    }
                    arguments = tensors;
                }
            }
            nodes.push(json!({"args": arguments, "kwargs": keywords}));
        }
        layers.push(entry(class_of(&named.layer), &place.name, Value::Object(config), nodes));
    }
    let ends = |all: Vec<Value>| match <[Value; 1]>::try_from(all) {
        Ok([one]) => one,
        Err(several) => Value::Array(several),
    };
    let inputs = ends((0..plan.inputs.len()).map(|input| history(&Source::Input(input))).collect());
    let name = |source: &Source| match source {
        Source::Input(input) => plan.inputs.get(*input).cloned().unwrap_or_default(),
        Source::Call(call, _) => plan.config.calls.get(*call).map_or("", |call| plan.name_of(call.layer)).to_owned(),
    };
    let output_names: Vec<String> = plan.config.outputs.iter().map(name).collect();
    let outputs = ends(plan.config.outputs.iter().map(history).collect());
    let value = json!({
        "module": "keras.src.models.functional",
        "class_name": "Functional",
        "config": {"name": "functional", "trainable": true, "layers": layers, "input_layers": inputs, "output_layers": outputs},
        "registered_name": "Functional",
        "build_config": {"input_shape": null},
        "compile_config": compile::config(model, &output_names),
    });
    Ok(value.to_string().into_bytes())
}

/// An entry of the list of layers.
fn entry(class: &str, name: &str, config: Value, nodes: Vec<Value>) -> Value {
    json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null, "name": name,
           "inbound_nodes": nodes})
}

/// An object inside of another layer's configuration.
fn inside(class: &str, config: Map<String, Value>) -> Value {
    json!({"module": "keras.layers", "class_name": class, "config": config, "registered_name": null})
}

fn with_batch(shape: &[Option<usize>]) -> Value {
    std::iter::once(Value::Null).chain(shape.iter().map(|n| json!(n))).collect()
}

/// What Keras says of a layer, but for its name. `refused` makes an error of what it cannot say.
fn layer_config(layer: &LayerConfig, refused: &dyn Fn(&str) -> Error) -> Result<Map<String, Value>> {
    let mut config = plain_config(layer, refused)?;
    training::describe(layer, &mut config);
    Ok(config)
}

fn plain_config(layer: &LayerConfig, refused: &dyn Fn(&str) -> Error) -> Result<Map<String, Value>> {
    let value = match layer {
        LayerConfig::Dense(l) => {
            json!({"units": l.units, "activation": function(l.activation, refused)?, "use_bias": l.use_bias})
        }
        LayerConfig::Conv1D(l) => json!({
            "filters": l.filters, "kernel_size": [l.kernel_size], "strides": [l.strides], "padding": padding(l.padding, refused)?,
            "data_format": "channels_last", "dilation_rate": [l.dilation_rate], "groups": l.groups,
            "activation": function(l.activation, refused)?, "use_bias": l.use_bias,
        }),
        LayerConfig::Conv1DTranspose(l) => json!({
            "filters": l.filters, "kernel_size": [l.kernel_size], "strides": [l.strides], "padding": padding(l.padding, refused)?,
            "output_padding": l.output_padding, "data_format": "channels_last", "dilation_rate": [l.dilation_rate],
            "activation": function(l.activation, refused)?, "use_bias": l.use_bias,
        }),
        LayerConfig::ZeroPadding1D(l) => json!({"padding": l.padding, "data_format": "channels_last"}),
        LayerConfig::Cropping1D(l) => json!({"cropping": l.cropping}),
        LayerConfig::UpSampling1D(l) => json!({"size": l.size}),
        LayerConfig::MaxPooling1D(MaxPooling1D { pool_size, strides, padding: around })
        | LayerConfig::AveragePooling1D(AveragePooling1D { pool_size, strides, padding: around }) => json!({
            "pool_size": [pool_size], "strides": [strides.unwrap_or(*pool_size)], "padding": padding(*around, refused)?,
            "data_format": "channels_last",
        }),
        LayerConfig::GlobalAveragePooling1D(_) | LayerConfig::GlobalMaxPooling1D(_) => {
            json!({"data_format": "channels_last", "keepdims": false})
        }
        LayerConfig::ActivationLayer(l) => json!({"activation": function(l.activation, refused)?}),
        LayerConfig::Softmax(l) => json!({"axis": l.axis}),
        LayerConfig::PRelu(l) => json!({"shared_axes": l.shared_axes}),
        LayerConfig::Dot(l) => json!({"axes": [l.axes.0, l.axes.1], "normalize": l.normalize}),
        LayerConfig::UnitNormalization(l) => json!({"axis": l.axes}),
        LayerConfig::Normalization(l) => {
            let axes: &[i64] = if l.by_feature { &[-1] } else { &[] };
            json!({"axis": axes, "invert": false, "mean": null, "variance": null})
        }
        LayerConfig::Elementwise(l) => match (super::options::name_of_function(l.function), l.function) {
            (Some(name), _) => json!({"activation": name}),
            (None, Function::LeakyRelu { alpha }) => json!({"negative_slope": alpha}),
            (None, Function::Elu { alpha }) => json!({"alpha": alpha}),
            (None, Function::Affine { alpha, beta }) => json!({"scale": alpha, "offset": beta}),
            _ => return Err(refused("of a function that Keras has not")),
        },
        LayerConfig::Embedding(l) => {
            json!({"input_dim": l.input_dim, "output_dim": l.output_dim, "mask_zero": l.mask_zero})
        }
        LayerConfig::Masking(l) => json!({"mask_value": l.mask_value}),
        LayerConfig::Dropout(Dropout { rate })
        | LayerConfig::SpatialDropout1D(SpatialDropout1D { rate })
        | LayerConfig::GaussianDropout(GaussianDropout { rate }) => json!({"rate": rate}),
        LayerConfig::GaussianNoise(l) => json!({"stddev": l.stddev}),
        LayerConfig::BatchNormalization(l) => json!({
            "axis": -1, "momentum": l.momentum, "epsilon": l.epsilon, "center": l.center, "scale": l.scale,
        }),
        LayerConfig::LayerNormalization(l) => {
            json!({"axis": -1, "epsilon": l.epsilon, "center": l.center, "scale": l.scale})
        }
        LayerConfig::Reshape(l) => json!({"target_shape": l.target_shape}),
        LayerConfig::Flatten(_) => json!({"data_format": "channels_last"}),
        LayerConfig::Permute(l) => json!({"dims": l.dims}),
        LayerConfig::RepeatVector(l) => json!({"n": l.n}),
        LayerConfig::Add(_)
        | LayerConfig::Subtract(_)
        | LayerConfig::Multiply(_)
        | LayerConfig::Average(_)
        | LayerConfig::Maximum(_) => json!({}),
        LayerConfig::Pairwise(_) if class_of(layer) != layer.class_name() => json!({}),
        LayerConfig::Concatenate(_) => json!({"axis": -1}),
        LayerConfig::Attention(l) => json!({"use_scale": l.use_scale, "score_mode": "dot", "dropout": l.dropout}),
        LayerConfig::AdditiveAttention(l) => json!({"use_scale": l.use_scale, "dropout": l.dropout}),
        LayerConfig::MultiHeadAttention(l) => json!({
            "num_heads": l.num_heads, "key_dim": l.key_dim, "value_dim": l.value_dim, "dropout": l.dropout,
            "use_bias": l.use_bias, "output_shape": l.output_dim, "attention_axes": [1],
        }),
        LayerConfig::TimeDistributed(l) => {
            let mut inner = layer_config(&l.layer, refused)?;
            inner.insert("name".to_owned(), json!(l.layer.stem()));
            json!({"layer": inside(class_of(&l.layer), inner)})
        }
        LayerConfig::Bidirectional(l) => {
            let direction = |name: &str, opposite: bool| -> Result<Value> {
                let mut layer = (*l.layer).clone();
                let mut sequences = false;
                if let Some(recurrent) = layer.as_recurrent_mut() {
                    recurrent.options_mut().go_backwards ^= opposite;
                    sequences = recurrent.options().return_sequences;
                }
                let mut inner = layer_config(&layer, refused)?;
                inner.insert("zero_output_for_mask".to_owned(), json!(sequences));
                inner.insert("name".to_owned(), json!(format!("{name}_{}", layer.stem())));
                Ok(inside(layer.class_name(), inner))
            };
            json!({"merge_mode": l.merge_mode, "layer": direction("forward", false)?,
                   "backward_layer": direction("backward", true)?})
        }
        LayerConfig::SimpleRnn(l) => recurrent(
            json!({"units": l.units, "activation": function(l.activation, refused)?, "use_bias": l.use_bias}),
            &l.options,
            refused,
        )?,
        LayerConfig::Lstm(l) => recurrent(
            json!({"units": l.units, "activation": function(l.activation, refused)?,
                   "recurrent_activation": function(l.recurrent_activation, refused)?,
                   "use_bias": l.use_bias, "unit_forget_bias": l.unit_forget_bias}),
            &l.options,
            refused,
        )?,
        LayerConfig::Gru(l) => recurrent(
            json!({"units": l.units, "activation": function(l.activation, refused)?,
                   "recurrent_activation": function(l.recurrent_activation, refused)?,
                   "use_bias": l.use_bias, "reset_after": l.reset_after}),
            &l.options,
            refused,
        )?,
        _ => return Err(refused("")),
    };
    match value {
        Value::Object(map) => Ok(map),
        _ => Err(refused("")),
    }
}

/// Keras's name of a function.
fn function(function: ActivationFunction, refused: &dyn Fn(&str) -> Error) -> Result<Value> {
    match function {
        ActivationFunction::GeluTanh => Err(refused("of GELU by a tanh, which is an option of a function there,")),
        named => Ok(json!(named)),
    }
}

fn padding(padding: Padding, refused: &dyn Fn(&str) -> Error) -> Result<Value> {
    match padding {
        Padding::Steps { .. } => Err(refused("with padding of so many steps")),
        named => Ok(json!(named)),
    }
}

/// The same with the options that all recurrent layers have.
fn recurrent(mut config: Value, options: &RecurrentOptions, refused: &dyn Fn(&str) -> Error) -> Result<Value> {
    for (used, option) in [
        (options.zoneout > 0.0, "with zoneout"),
        (options.layer_norm, "with layer normalisation"),
        (options.heads > 1, "with heads"),
        (options.stateful, "that is stateful, for which Keras wants a number of samples that this model has not,"),
    ] {
        if used {
            return Err(refused(option));
        }
    }
    if let Some(map) = config.as_object_mut() {
        for (key, value) in [
            ("return_sequences", json!(options.return_sequences)),
            ("return_state", json!(options.return_state)),
            ("go_backwards", json!(options.go_backwards)),
            ("stateful", json!(options.stateful)),
            ("dropout", json!(options.dropout)),
            ("recurrent_dropout", json!(options.recurrent_dropout)),
        ] {
            map.insert(key.to_owned(), value);
        }
    }
    Ok(config)
}

/// The file of weights.
pub(super) fn weights(model: &Model, plan: &Plan, path: &Path) -> Result<Vec<u8>> {
    let mut tree = Tree::default();
    tree.set_name("functional");
    for place in &plan.places {
        let Some(named) = plan.config.layers.get(place.layer) else { continue };
        tree.at(&place.group).set_name(&place.name);
        if !model.has_weights(&named.name) {
            continue;
        }
        let arrays = model.keras_weights::<f32>(&named.name)?;
        let groups = groups_of(&named.layer);
        if let LayerConfig::Normalization(layer) = &named.layer {
            // Numbers without axes where all are alike; behind them of how many samples they are.
            let tree = tree.at(&place.group);
            for array in &arrays {
                let shape: &[usize] = if layer.by_feature { array.shape() } else { &[] };
                tree.push(&array.clone().into_shape_with_order(ndarray::IxDyn(shape)).unwrap_or(array.clone()));
            }
            tree.push(&ndarray::ArrayD::zeros(ndarray::IxDyn(&[])));
            continue;
        }
        // As many in each group: two directions, four projections, or all in one.
        let each = arrays.len().div_ceil(groups.len().max(1)).max(1);
        for (group, arrays) in groups.iter().zip(arrays.chunks(each)) {
            let tree = tree.at(&below(&place.group, group));
            for array in arrays {
                // Keras's scale of attention is a number, ours an array of one.
                let scalar = matches!(named.layer, LayerConfig::Attention(_)) && array.len() == 1;
                match scalar {
                    true => {
                        tree.push(&array.clone().into_shape_with_order(ndarray::IxDyn(&[])).unwrap_or(array.clone()))
                    }
                    false => tree.push(array),
                }
            }
        }
    }
    tree.bytes(path)
}
