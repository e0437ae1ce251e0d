//! Keras's `TimeDistributed`: a layer, a stack of layers or a model for every step.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Map, Value};

use super::layers::{Known, translate};
use super::names::Counters;
use super::nodes::{Item, ModelConfig, built_shape};
use super::options::{Options, object};
use super::program::{Arrays, Input, Piece, Program};
use crate::error::{Error, Result};
use crate::nn::*;

fn whole(o: &Options<'_>) -> Error {
    o.unsupported(
        "layer",
        "a layer of one input and one output, a Sequential of such, or a model of such whose merges are of the last axis and in which each is used once",
    )
}

pub(super) fn translate_wrapper(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let (class, config) = o.object("layer")?;
    // The first layer's input is a step of that of the wrapper.
    let first = match known.shapes.first().map(Vec::as_slice) {
        Some([_, rest @ ..]) if !rest.is_empty() => Known::of(vec![rest.to_vec()], None),
        _ => Known::default(),
    };
    let mut program = Program::new();
    match class {
        "Sequential" => {
            let layers = config.get("layers").and_then(Value::as_array).ok_or_else(|| o.invalid("layer", "layers"))?;
            let mut counters = Counters::default();
            for value in layers {
                let (class, config) =
                    object(value).ok_or_else(|| o.invalid("layer", "layers with class_name and config"))?;
                if class == "InputLayer" {
                    continue;
                }
                let known = match program.pieces.is_empty() {
                    true => first.clone(),
                    false => Known::of(built_shape(value).into_iter().collect(), None),
                };
                let at = format!("layer/layers/{}", counters.next(class));
                program.pieces.extend(wrapped(o, class, config, &at, &known)?);
            }
        }
        "Functional" | "Model" => return model(o, &ModelConfig::parse(o.path(), class, config)?, &first),
        _ => program.pieces = wrapped(o, class, config, "layer", &first)?,
    }
    Ok(program)
}

/// What a layer becomes for every step: layers one after the other.
fn wrapped(o: &Options<'_>, class: &str, config: &Map<String, Value>, at: &str, known: &Known) -> Result<Vec<Piece>> {
    let name = config.get("name").and_then(Value::as_str).unwrap_or("in it");
    let inner = Options::new(o.path(), name, class, config);
    let Program { pieces, outputs, .. } = translate(class, inner, &Map::new(), known)?;
    let last = pieces.len().checked_sub(1);
    let straight = |(number, piece): (usize, &Piece)| match (piece.inputs.as_deref(), number.checked_sub(1)) {
        (None, _) | (Some([Input::Call(0)]), None) => true,
        (Some([Input::Piece(below, 0)]), Some(before)) => *below == before,
        _ => false,
    };
    let ends = match (outputs.as_deref(), last) {
        (None, _) => true,
        (Some([Input::Piece(piece, 0)]), Some(last)) => *piece == last,
        _ => false,
    };
    if !ends || !pieces.iter().enumerate().all(straight) {
        return Err(whole(o));
    }
    let wrap = |piece: Piece| Piece {
        layer: TimeDistributed::new(piece.layer).into(),
        arrays: piece.arrays.below(at),
        inputs: None,
    };
    Ok(pieces.into_iter().map(wrap).collect())
}

/// A functional model for every step: its layers by themselves, and merges of what they give, which are the same of all steps together.
fn model(o: &Options<'_>, model: &ModelConfig<'_>, first: &Known) -> Result<Program> {
    let ([input], [output]) = (&model.inputs[..], &model.outputs[..]) else { return Err(whole(o)) };
    // Counted as in the file.
    let (mut counters, mut groups) = (Counters::default(), Vec::new());
    for item in &model.items {
        groups.push(match item {
            Item::Input { .. } => counters.next("InputLayer"),
            Item::Layer { class, .. } => counters.next(class),
            Item::Operation { .. } | Item::Model { .. } => return Err(whole(o)),
        });
    }
    let mut program = Program::new();
    let (mut given, mut used): (HashMap<usize, Input>, BTreeSet<usize>) = (HashMap::new(), BTreeSet::new());
    for number in model.order(o.path(), &BTreeSet::from([0]))?.nodes {
        let Some(node) = model.nodes.get(number) else { continue };
        let (class, config, rank) = match model.items.get(node.item) {
            Some(Item::Input { .. }) if node.item == *input => {
                given.insert(number, Input::Call(0));
                continue;
            }
            Some(Item::Layer { class, config, rank, .. }) => (*class, *config, *rank),
            _ => return Err(whole(o)),
        };
        let inputs = node.tensors().map(|(node, tensor)| given.get(&node).copied().filter(|_| tensor == 0));
        let inputs = inputs.collect::<Option<Vec<Input>>>().ok_or_else(|| whole(o))?;
        let plain = node.keywords.values().all(|value| matches!(value.plain(), Some(Value::Null | Value::Bool(false))));
        if !used.insert(node.item) || !plain {
            return Err(whole(o));
        }
        let merge: Option<LayerConfig> = match class {
            "Add" => Some(Add::new().into()),
            "Subtract" => Some(Subtract::new().into()),
            "Multiply" => Some(Multiply::new().into()),
            "Average" => Some(Average::new().into()),
            "Maximum" => Some(Maximum::new().into()),
            "Concatenate" => {
                let axis = config.get("axis").and_then(Value::as_i64).unwrap_or(-1);
                let last = rank.and_then(|rank| i64::try_from(rank).ok()).map(|rank| rank - 1);
                (axis == -1 || Some(axis) == last).then(|| Concatenate::new().into())
            }
            _ => None,
        };
        let result = match (merge, &inputs[..]) {
            (Some(layer), [_, _, ..]) => program.add(layer, &inputs),
            (None, [one]) => {
                let known = match one {
                    Input::Call(_) => first.clone(),
                    Input::Piece(..) => Known { shapes: Vec::new(), rank },
                };
                let at = groups.get(node.item).map(|group| format!("layer/layers/{group}")).unwrap_or_default();
                let mut below = *one;
                for Piece { layer, arrays, .. } in wrapped(o, class, config, &at, &known)? {
                    below = program.add_with(layer, &[below], arrays);
                }
                below
            }
            _ => return Err(whole(o)),
        };
        given.insert(number, result);
    }
    let output = given.get(&output.node).copied().filter(|_| output.tensor == 0).ok_or_else(|| whole(o))?;
    if output == Input::Call(0) {
        let arrays = Arrays::of(&[]);
        program.add_with(ActivationLayer::new(ActivationFunction::Linear), &[output], arrays);
        return Ok(program);
    }
    Ok(program.giving(&[output]))
}
