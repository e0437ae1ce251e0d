//! Operations of Keras that are no layers, `x + y`, `x[:, -1]` or `keras.ops.relu(x)`, as layers of this crate.

use serde_json::{Map, Value};

use super::nodes::{Arg, Node};
use super::options::{activation_of_name, object};
use crate::model::GraphTensor;
use crate::nn::*;

/// The layers, one after the other, that do what an operation does with these tensors; none where there are none.
pub(super) fn layers(
    class: &str,
    config: &Map<String, Value>,
    node: &Node<'_>,
    tensors: &[GraphTensor],
) -> Option<Vec<LayerConfig>> {
    let keywords = node.keywords.values().all(|argument| matches!(argument, Arg::Plain(Value::Null)));
    if class == "GetItem" {
        return taken(node, tensors.first()?.shape()).filter(|_| tensors.len() == 1);
    }
    let last_axis = config.get("axis").is_none_or(|axis| axis.as_i64() == Some(-1));
    let combination = match class {
        "Add" => Some(Combination::Sum),
        "Subtract" => Some(Combination::Difference),
        "Multiply" => Some(Combination::Product),
        "Divide" | "TrueDivide" => Some(Combination::Quotient),
        "Maximum" => Some(Combination::Maximum),
        "Minimum" => Some(Combination::Minimum),
        _ => None,
    };
    match (combination, &node.arguments[..]) {
        (Some(combination), [Arg::Tensor(_), Arg::Tensor(_)]) => Some(vec![Pairwise::new(combination).into()]),
        (Some(combination), [Arg::Tensor(_), Arg::Plain(value)]) => with_number(combination, value.as_f64()?, false),
        (Some(combination), [Arg::Plain(value), Arg::Tensor(_)]) => with_number(combination, value.as_f64()?, true),
        (None, [Arg::List(_)]) if class == "Concatenate" && last_axis => Some(vec![Concatenate::new().into()]),
        (None, [Arg::Tensor(_)]) if keywords && tensors.len() == 1 && last_axis => {
            let name = match class {
                "Relu" | "Tanh" | "Sigmoid" | "Softsign" | "Softplus" | "Selu" | "Silu" | "Softmax" | "Relu6" => {
                    class.to_lowercase()
                }
                "HardSigmoid" => "hard_sigmoid".to_owned(),
                "HardSilu" => "hard_silu".to_owned(),
                "Exp" => "exponential".to_owned(),
                _ => return None,
            };
            activation_of_name(&name).map(|layer| vec![layer])
        }
        _ => None,
    }
}

/// An operation with a number, which stands first where `first` is set.
fn with_number(combination: Combination, number: f64, first: bool) -> Option<Vec<LayerConfig>> {
    if !number.is_finite() {
        return None;
    }
    let affine = |alpha: f64, beta: f64| Some(vec![Elementwise::new(Function::Affine { alpha, beta }).into()]);
    match (combination, first) {
        (Combination::Sum, _) => affine(1.0, number),
        (Combination::Difference, false) => affine(1.0, -number),
        (Combination::Difference, true) => affine(-1.0, number),
        (Combination::Product, _) => affine(number, 0.0),
        (Combination::Quotient, false) if number != 0.0 => affine(1.0 / number, 0.0),
        (Combination::Quotient, true) => Some(vec![
            Elementwise::new(Function::Reciprocal).into(),
            Elementwise::new(Function::Affine { alpha: number, beta: 0.0 }).into(),
        ]),
        _ => None,
    }
}

/// Parts of axes: `x[:, -1]`, `x[:, 1:4, ::2]`. The batch must stay whole.
fn taken(node: &Node<'_>, shape: &[usize]) -> Option<Vec<LayerConfig>> {
    let [Arg::Tensor(_), Arg::Plain(key)] = &node.arguments[..] else { return None };
    let items: Vec<&Value> = match key.get("items").or(Some(*key)).and_then(Value::as_array) {
        Some(list) => list.iter().collect(),
        None => vec![*key],
    };
    let (batch, items) = items.split_first()?;
    let (class, whole) = object(batch)?;
    if class != "__slice__" || whole.values().any(|value| !value.is_null()) || items.len() > shape.len() {
        return None;
    }
    let (mut layers, mut kept) = (Vec::new(), Vec::new());
    let mut dropped = false;
    for (number, len) in shape.iter().enumerate() {
        let axis = number + 1;
        let Some(item) = items.get(number) else {
            kept.push(i64::try_from(*len).ok()?);
            continue;
        };
        let signed = i64::try_from(*len).ok()?;
        if let Some(place) = item.as_i64() {
            let place = if place < 0 { place + signed } else { place };
            let start = usize::try_from(place).ok().filter(|start| start < len)?;
            layers.push(Slice::new(axis, start, 1).into());
            dropped = true;
            continue;
        }
        let (class, slice) = object(item)?;
        let bound = |key: &str, default: i64| match slice.get(key) {
            None | Some(Value::Null) => Some(default),
            Some(value) => value.as_i64().map(|n| if n < 0 { n.saturating_add(signed) } else { n }.clamp(0, signed)),
        };
        let step = slice.get("step").filter(|v| !v.is_null()).map_or(Some(1), Value::as_i64)?;
        if class != "__slice__" || step < 1 {
            return None;
        }
        let (start, stop) = (bound("start", 0)?, bound("stop", signed)?);
        let count = stop.checked_sub(start).filter(|n| *n > 0)?.checked_add(step - 1)? / step;
        kept.push(count);
        if count != signed {
            let (start, count) = (usize::try_from(start).ok()?, usize::try_from(count).ok()?);
            let part = Part::Steps { start, step: isize::try_from(step).ok()?, count };
            layers.push(Slice::of_parts(axis, &[part]).into());
        }
    }
    if dropped {
        layers.push(Reshape::new(&if kept.is_empty() { vec![1] } else { kept }).into());
    }
    Some(layers)
}
