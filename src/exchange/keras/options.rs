//! The options of a layer in a Keras configuration: each is taken or refused by name, so that none is passed over that would change what
//! the layer computes.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::{Map, Value};

use super::format_error;
use crate::error::{Error, Result};
use crate::nn::{ActivationFunction, ActivationLayer, Elementwise, Function, LayerConfig, Padding};

/// Options that change no output: names, types, random numbers, what starts or hinders training, how it is computed.
const WITHOUT_EFFECT: &[&str] = &["name", "trainable", "dtype", "seed", "unroll", "autocast", "implementation"];

/// The same by how their names end.
const ENDINGS_WITHOUT_EFFECT: &[&str] = &["_initializer", "_regularizer", "_constraint"];

/// Options of a layer, of which those not asked for must have no effect.
pub(super) struct Options<'a> {
    path: &'a Path,
    /// The layer for messages: `layer lstm_1 (LSTM)`.
    what: String,
    map: &'a Map<String, Value>,
    taken: BTreeSet<&'static str>,
}

impl<'a> Options<'a> {
    pub fn new(path: &'a Path, name: &str, class: &str, map: &'a Map<String, Value>) -> Self {
        Options { path, what: format!("layer {name} ({class})"), map, taken: BTreeSet::new() }
    }

    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The layer, for messages.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// A value that is no valid one.
    pub fn invalid(&self, key: &str, expected: &str) -> Error {
        let got = self.map.get(key).map_or("nothing".to_owned(), short);
        format_error(self.path, format!("{}: expected {expected} as {key}, got {got}", self.what))
    }

    /// A value that Keras may have and this crate has not.
    pub fn unsupported(&self, key: &str, why: &str) -> Error {
        let got = self.map.get(key).map_or("nothing".to_owned(), short);
        Error::unsupported(format!("{}: {} with {key} {got}", self.path.display(), self.what), why)
    }

    /// A value, unless it is null.
    pub fn take(&mut self, key: &'static str) -> Option<&'a Value> {
        self.taken.insert(key);
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_bool().ok_or_else(|| self.invalid(key, "true or false")),
        }
    }

    pub fn number(&mut self, key: &'static str, default: f64) -> Result<f64> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_f64().filter(|n| n.is_finite()).ok_or_else(|| self.invalid(key, "a finite number")),
        }
    }

    /// A size, or one in a list of one.
    pub fn size(&mut self, key: &'static str) -> Result<usize> {
        self.optional_size(key)?.ok_or_else(|| self.invalid(key, "a size"))
    }

    pub fn optional_size(&mut self, key: &'static str) -> Result<Option<usize>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let number = match value.as_array().map(Vec::as_slice) {
            Some([one]) => one.as_u64(),
            Some(_) => None,
            None => value.as_u64(),
        };
        match number.and_then(|n| usize::try_from(n).ok()) {
            Some(size) => Ok(Some(size)),
            None => Err(self.invalid(key, "a size, or a list of one")),
        }
    }

    pub fn text(&mut self, key: &'static str, default: &'static str) -> Result<&'a str> {
        match self.take(key) {
            None => Ok(default),
            Some(value) => value.as_str().ok_or_else(|| self.invalid(key, "a word")),
        }
    }

    /// Refuses another value than this.
    pub fn only(&mut self, key: &'static str, value: &str, why: &str) -> Result<()> {
        if self.text(key, "")? == value || self.take(key).is_none() { Ok(()) } else { Err(self.unsupported(key, why)) }
    }

    /// An activation function: its name, or what Keras serializes of it.
    pub fn activation(&mut self, key: &'static str, default: ActivationFunction) -> Result<ActivationFunction> {
        let Some(value) = self.take(key) else {
            // Null is Keras's word for none.
            return Ok(if self.map.contains_key(key) { ActivationFunction::Linear } else { default });
        };
        // {"class_name": "function", "config": "tanh"}, or a layer of activation with its own configuration.
        let name = value.as_str().or_else(|| match value.get("config") {
            Some(Value::String(name)) => Some(name),
            _ => value.get("class_name").and_then(Value::as_str).and_then(|class| match class {
                "ReLU" | "Softmax" | "ELU" | "LeakyReLU" => None,
                other => Some(other),
            }),
        });
        let Some(name) = name else {
            return Err(
                self.unsupported(key, "activations are read by name; use a layer of its own for one with options")
            );
        };
        serde_json::from_value(Value::from(name)).map_err(|_| {
            self.unsupported(
                key,
                "activations are linear, tanh, relu, relu6, sigmoid, hard_sigmoid, hard_tanh, softsign, softplus, elu, selu, celu, leaky_relu, gelu, silu, hard_silu, mish, exponential, softmax and log_softmax",
            )
        })
    }

    /// The same for a layer that may have functions of their own behind it: the function, or layers to be put there.
    pub fn any_activation(&mut self, key: &'static str) -> Result<(ActivationFunction, Vec<LayerConfig>)> {
        let value = self.take(key);
        // A layer as a function, with options of its own.
        if let Some((class @ ("LeakyReLU" | "ELU" | "ReLU" | "Softmax"), config)) = value.and_then(object) {
            let inner = Options::new(self.path, key, class, config);
            let program = super::layers::translate(class, inner, &Map::new(), &super::layers::Known::default())?;
            return Ok((ActivationFunction::Linear, program.pieces.into_iter().map(|piece| piece.layer).collect()));
        }
        let name = match value {
            Some(Value::String(name)) => Some(name.as_str()),
            Some(value) => value.get("config").and_then(Value::as_str),
            None => None,
        };
        if name == Some("log_sigmoid") {
            return Ok((ActivationFunction::Linear, log_sigmoid()));
        }
        match name.and_then(activation_of_name) {
            Some(LayerConfig::ActivationLayer(layer)) => Ok((layer.activation, Vec::new())),
            Some(other) => Ok((ActivationFunction::Linear, vec![other])),
            None => Ok((self.activation(key, ActivationFunction::Linear)?, Vec::new())),
        }
    }

    /// Where windows may reach beyond a sequence.
    pub fn padding(&mut self) -> Result<Padding> {
        match self.text("padding", "valid")? {
            "valid" => Ok(Padding::Valid),
            "same" => Ok(Padding::Same),
            "causal" => Ok(Padding::Causal),
            _ => Err(self.invalid("padding", "valid, same or causal")),
        }
    }

    /// An axis, or a list of axes, by Keras's numbers.
    pub fn axes(&mut self, key: &'static str) -> Result<Option<Vec<i64>>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        let axes = match value.as_array() {
            Some(list) => list.iter().map(Value::as_i64).collect(),
            None => value.as_i64().map(|axis| vec![axis]),
        };
        axes.map(Some).ok_or_else(|| self.invalid(key, "an axis or a list of axes"))
    }

    /// A finite number, or numbers in lists.
    pub fn numbers(&mut self, key: &'static str) -> Result<Option<Vec<f64>>> {
        fn flat(value: &Value, to: &mut Vec<f64>) -> Option<()> {
            match value.as_array() {
                Some(list) => list.iter().try_for_each(|value| flat(value, to)),
                None => {
                    to.push(value.as_f64().filter(|n| n.is_finite())?);
                    Some(())
                }
            }
        }
        let Some(value) = self.take(key) else { return Ok(None) };
        // Arrays are serialized with their type.
        let inner = value.get("config").and_then(|config| config.get("value")).unwrap_or(value);
        let mut numbers = Vec::new();
        match flat(inner, &mut numbers) {
            Some(()) if !numbers.is_empty() => Ok(Some(numbers)),
            _ => Err(self.invalid(key, "a finite number, or a list of some")),
        }
    }

    /// How much at both ends: a number for both, or one each.
    pub fn margins(&mut self, key: &'static str) -> Result<(usize, usize)> {
        let value = self.take(key);
        let size = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let margins = match value.map(|value| (value, value.as_array().map(Vec::as_slice))) {
            None => Some((1, 1)),
            Some((_, Some([before, after]))) => size(before).zip(size(after)),
            Some((_, Some([both]))) => size(both).map(|n| (n, n)),
            Some((_, Some(_))) => None,
            Some((value, None)) => size(value).map(|n| (n, n)),
        };
        margins.ok_or_else(|| self.invalid(key, "a size, or one for each end"))
    }

    /// An object inside, such as a layer in a wrapper.
    pub fn object(&mut self, key: &'static str) -> Result<(&'a str, &'a Map<String, Value>)> {
        self.optional_object(key)?.ok_or_else(|| self.invalid(key, "a layer"))
    }

    pub fn optional_object(&mut self, key: &'static str) -> Result<Option<(&'a str, &'a Map<String, Value>)>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        object(value).map(Some).ok_or_else(|| self.invalid(key, "a layer with class_name and config"))
    }

    /// Refuses options that nobody asked for, unless they have no effect.
    pub fn end(self) -> Result<()> {
        for (key, value) in self.map {
            let without_effect = WITHOUT_EFFECT.contains(&key.as_str())
                || ENDINGS_WITHOUT_EFFECT.iter().any(|ending| key.ends_with(ending))
                || matches!(value, Value::Null | Value::Bool(false));
            if !without_effect && !self.taken.contains(key.as_str()) {
                return Err(self.unsupported(key, "this option is not known here; leave it at its default"));
            }
        }
        Ok(())
    }
}

/// Keras's functions that this crate has as layers alone.
const FUNCTIONS: &[(&str, Function)] = &[
    ("gelu", Function::Gelu { approximate: false }),
    ("silu", Function::Silu),
    ("swish", Function::Silu),
    ("hard_silu", Function::HardSwish),
    ("hard_swish", Function::HardSwish),
    ("mish", Function::Mish),
    ("exponential", Function::Exp),
    ("relu6", Function::Clip { low: 0.0, high: 6.0 }),
    ("celu", Function::Celu { alpha: 1.0 }),
    ("hard_tanh", Function::Clip { low: -1.0, high: 1.0 }),
];

/// `ln(1 / (1 + exp(-x)))`, which is `-softplus(-x)`.
pub(super) fn log_sigmoid() -> Vec<LayerConfig> {
    let negated = || LayerConfig::from(Elementwise::new(Function::Affine { alpha: -1.0, beta: 0.0 }));
    vec![negated(), ActivationLayer::new(ActivationFunction::Softplus).into(), negated()]
}

/// The layer of an activation function by Keras's name of it.
pub(super) fn activation_of_name(name: &str) -> Option<LayerConfig> {
    if let Ok(function) = serde_json::from_value::<ActivationFunction>(Value::from(name)) {
        return Some(ActivationLayer::new(function).into());
    }
    let (_, function) = FUNCTIONS.iter().find(|(known, _)| *known == name)?;
    Some(Elementwise::new(*function).into())
}

/// Keras's name of a function that is no [`ActivationFunction`].
pub(super) fn name_of_function(function: Function) -> Option<&'static str> {
    FUNCTIONS.iter().find(|(_, known)| *known == function).map(|(name, _)| *name)
}

/// Class and configuration of a serialized object.
pub(super) fn object(value: &Value) -> Option<(&str, &Map<String, Value>)> {
    Some((value.get("class_name")?.as_str()?, value.get("config")?.as_object()?))
}

/// A value for a message, not longer than a line.
pub(super) fn short(value: &Value) -> String {
    let text = value.to_string();
    if text.chars().count() <= 120 { text } else { text.chars().take(117).chain("...".chars()).collect() }
}
