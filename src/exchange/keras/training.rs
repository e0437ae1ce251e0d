//! What training does to the weights of layers: regularizers and constraints in Keras's words, and which of them are not kept.

use serde_json::{Map, Value, json};

use super::options::{Options, activation_of_name, object, short};
use crate::nn::*;

/// Keras's layers whose options of weights are read, and the words that these begin with.
const KEPT: &[(&[&str], &[&str])] = &[
    (&["Dense", "Conv1D"], &["kernel", "bias", "activity"]),
    (&["Embedding"], &["embeddings", "activity"]),
    (&["SimpleRNN", "LSTM", "GRU"], &["kernel", "recurrent", "bias", "activity"]),
    (&["SimpleRNNCell", "LSTMCell", "GRUCell"], &["kernel", "recurrent", "bias"]),
    (&["PReLU"], &["alpha"]),
];

/// A number that Keras has kept in 32 bits, as it was written before.
pub(super) fn decimal(value: f64) -> f64 {
    let single = value as f32;
    if f64::from(single) == value { single.to_string().parse().unwrap_or(value) } else { value }
}

/// A regularizer that this crate has.
pub(super) fn regularizer(value: &Value) -> Option<Regularizer> {
    const DEFAULT: f64 = 0.01;
    let (class, config) = match value {
        Value::String(name) => (name.as_str(), None),
        value => object(value).map(|(class, config)| (class, Some(config)))?,
    };
    let factor = |key: &str| match config {
        None => Some(DEFAULT),
        Some(config) => config.get(key)?.as_f64().map(decimal).filter(|n| n.is_finite() && *n >= 0.0),
    };
    Some(match class {
        "L1" | "l1" => Regularizer::l1(factor("l1")?),
        "L2" | "l2" => Regularizer::l2(factor("l2")?),
        "L1L2" | "l1_l2" => Regularizer::l1_l2(factor("l1")?, factor("l2")?),
        _ => return None,
    })
}

/// A constraint that this crate has.
pub(super) fn constraint(value: &Value) -> Option<Constraint> {
    let empty = Map::new();
    let (class, config) = match value {
        Value::String(name) => (name.as_str(), &empty),
        value => object(value)?,
    };
    let number = |key: &str, default: f64| match config.get(key) {
        None => Some(default),
        Some(value) => value.as_f64().map(decimal),
    };
    let axis = |value: &Value| usize::try_from(value.as_u64()?).ok();
    let axes = || match config.get("axis") {
        None => Some(vec![0]),
        Some(Value::Array(list)) => list.iter().map(axis).collect(),
        Some(value) => Some(vec![axis(value)?]),
    };
    Some(match class {
        "NonNeg" | "non_neg" => Constraint::NonNegative,
        "MaxNorm" | "max_norm" => Constraint::MaxNorm { max_value: number("max_value", 2.0)?, axes: axes()? },
        "UnitNorm" | "unit_norm" => Constraint::UnitNorm { axes: axes()? },
        "MinMaxNorm" | "min_max_norm" => Constraint::MinMaxNorm {
            min_value: number("min_value", 0.0)?,
            max_value: number("max_value", 1.0)?,
            rate: number("rate", 1.0)?,
            axes: axes()?,
        },
        _ => return None,
    })
}

/// Whether a layer of this class can have the constraint: the two biases of a GRU are one tensor in Keras, and norms would be of both.
fn fits(class: &str, key: &str, constraint: &Constraint) -> bool {
    !(class.starts_with("GRU") && key == "bias_constraint") || *constraint == Constraint::NonNegative
}

/// Regularizer and constraint of a weight tensor of a layer of class `class`.
pub(super) fn weights(
    o: &mut Options<'_>,
    class: &str,
    regularizer_key: &'static str,
    constraint_key: &'static str,
) -> WeightOptions {
    WeightOptions {
        initializer: None,
        regularizer: o.take(regularizer_key).and_then(regularizer),
        constraint: o.take(constraint_key).and_then(constraint).filter(|c| fits(class, constraint_key, c)),
    }
}

/// Regularizer of a layer's output.
pub(super) fn activity(o: &mut Options<'_>) -> Option<Regularizer> {
    o.take("activity_regularizer").and_then(regularizer)
}

/// Those of a recurrent layer of class `class`, which may end in `Cell`.
pub(super) fn recurrent(o: &mut Options<'_>, class: &str, options: RecurrentOptions) -> RecurrentOptions {
    RecurrentOptions {
        kernel: weights(o, class, "kernel_regularizer", "kernel_constraint"),
        recurrent: weights(o, class, "recurrent_regularizer", "recurrent_constraint"),
        bias: weights(o, class, "bias_regularizer", "bias_constraint"),
        activity_regularizer: activity(o),
        ..options
    }
}

/// What a configuration says of the training of layers that a model here does not keep, in words.
pub(super) fn left_out(config: &Value) -> Vec<String> {
    let mut found = Vec::new();
    collect(config, None, &mut found);
    found
}

fn collect(value: &Value, trainable: Option<bool>, found: &mut Vec<String>) {
    match value {
        Value::Array(list) => list.iter().for_each(|value| collect(value, trainable, found)),
        Value::Object(map) => {
            let Some((class, config)) = object(value) else {
                return map.values().for_each(|value| collect(value, trainable, found));
            };
            let name = config.get("name").and_then(Value::as_str).unwrap_or("in it");
            let own = config.get("trainable").and_then(Value::as_bool);
            if let (Some(outer), Some(own)) = (trainable, own)
                && outer != own
            {
                found.push(format!("layer {name} ({class}): trainable {own} inside of a layer with {outer}"));
            }
            for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
                let word = key.strip_suffix("_regularizer").or_else(|| key.strip_suffix("_constraint"));
                if let Some(word) = word {
                    if !kept(class, config, key, word, value) {
                        found.push(format!("layer {name} ({class}): {key} {}", short(value)));
                    }
                } else {
                    // Layers of a model have each their own; what is inside of a layer has its.
                    collect(value, if key == "layers" { None } else { own }, found);
                }
            }
        }
        _ => {}
    }
}

/// Whether a layer here has this option.
fn kept(class: &str, config: &Map<String, Value>, key: &str, word: &str, value: &Value) -> bool {
    if !KEPT.iter().any(|(classes, words)| classes.contains(&class) && words.contains(&word)) {
        return false;
    }
    if key.ends_with("_constraint") {
        return constraint(value).is_some_and(|constraint| fits(class, key, &constraint));
    }
    // Of an activation that is a layer of its own, the output would be another one.
    let function = config.get("activation").filter(|_| matches!(class, "Dense" | "Conv1D"));
    let alone = match function {
        None | Some(Value::Null) => true,
        Some(Value::String(name)) => matches!(activation_of_name(name), Some(LayerConfig::ActivationLayer(_))),
        Some(_) => false,
    };
    (word != "activity" || alone) && regularizer(value).is_some()
}

/// Keras's words for the regularizers and constraints of a layer, into its configuration.
pub(super) fn describe(layer: &LayerConfig, config: &mut Map<String, Value>) {
    let mut weights = |word: &str, options: &WeightOptions| {
        if let Some(regularizer) = options.regularizer {
            config.insert(format!("{word}_regularizer"), of_regularizer(regularizer));
        }
        if let Some(constraint) = &options.constraint {
            config.insert(format!("{word}_constraint"), of_constraint(constraint));
        }
    };
    let activity = match layer {
        LayerConfig::Dense(Dense { kernel, bias, activity_regularizer, .. })
        | LayerConfig::Conv1D(Conv1D { kernel, bias, activity_regularizer, .. }) => {
            weights("kernel", kernel);
            weights("bias", bias);
            *activity_regularizer
        }
        LayerConfig::Embedding(l) => {
            weights("embeddings", &l.embeddings);
            l.activity_regularizer
        }
        LayerConfig::PRelu(l) => {
            weights("alpha", &l.alpha);
            None
        }
        // Those of wrappers stand in the layers inside.
        LayerConfig::Bidirectional(_) | LayerConfig::TimeDistributed(_) => None,
        layer => match layer.as_recurrent() {
            Some(layer) => {
                let options = layer.options();
                weights("kernel", &options.kernel);
                weights("recurrent", &options.recurrent);
                weights("bias", &options.bias);
                options.activity_regularizer
            }
            None => None,
        },
    };
    if let Some(activity) = activity {
        config.insert("activity_regularizer".to_owned(), of_regularizer(activity));
    }
}

fn serialized(module: &str, class: &str, config: Value) -> Value {
    json!({"module": module, "class_name": class, "config": config, "registered_name": null})
}

fn of_regularizer(Regularizer { l1, l2 }: Regularizer) -> Value {
    serialized("keras.regularizers", "L1L2", json!({"l1": l1, "l2": l2}))
}

fn of_constraint(constraint: &Constraint) -> Value {
    let (class, config) = match constraint {
        Constraint::NonNegative => ("NonNeg", json!({})),
        Constraint::MaxNorm { max_value, axes } => ("MaxNorm", json!({"max_value": max_value, "axis": axes})),
        Constraint::UnitNorm { axes } => ("UnitNorm", json!({"axis": axes})),
        Constraint::MinMaxNorm { min_value, max_value, rate, axes } => {
            ("MinMaxNorm", json!({"min_value": min_value, "max_value": max_value, "rate": rate, "axis": axes}))
        }
    };
    serialized("keras.constraints", class, config)
}
