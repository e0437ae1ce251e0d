//! Recurrent layers of Keras: layers of one cell, `RNN` over several, both directions.

use serde_json::{Map, Value};

use super::layers::Known;
use super::options::Options;
use super::program::{Arrays, Input, Masks, Program};
use crate::error::{Error, Result};
use crate::nn::*;

/// Options that recurrent layers and `RNN` have in common.
fn recurrent_options(o: &mut Options<'_>) -> Result<(RecurrentOptions, Masks)> {
    let options = RecurrentOptions {
        return_sequences: o.flag("return_sequences", false)?,
        return_state: o.flag("return_state", false)?,
        go_backwards: o.flag("go_backwards", false)?,
        stateful: o.flag("stateful", false)?,
        ..RecurrentOptions::default()
    };
    o.take("use_cudnn");
    let masks = match (o.flag("zero_output_for_mask", false)?, options.return_sequences, options.go_backwards) {
        (true, true, _) => Masks::Refused("zero_output_for_mask"),
        (_, true, true) => Masks::Refused("go_backwards and return_sequences"),
        _ => Masks::IgnoredWithStates,
    };
    Ok((options, masks))
}

/// What the cell of a layer has: the layer with these options.
fn cell(class: &str, o: &mut Options<'_>, options: RecurrentOptions) -> Result<LayerConfig> {
    let options = RecurrentOptions {
        dropout: o.number("dropout", 0.0)?,
        recurrent_dropout: o.number("recurrent_dropout", 0.0)?,
        ..super::training::recurrent(o, class, options)
    };
    let (units, use_bias) = (o.size("units")?, o.flag("use_bias", true)?);
    let activation = o.activation("activation", ActivationFunction::Tanh)?;
    Ok(match class {
        "SimpleRNN" => SimpleRnn { options, ..SimpleRnn::new(units).activation(activation).use_bias(use_bias) }.into(),
        "LSTM" => Lstm {
            recurrent_activation: o.activation("recurrent_activation", ActivationFunction::Sigmoid)?,
            unit_forget_bias: o.flag("unit_forget_bias", true)?,
            options,
            ..Lstm::new(units).activation(activation).use_bias(use_bias)
        }
        .into(),
        "GRU" => Gru {
            recurrent_activation: o.activation("recurrent_activation", ActivationFunction::Sigmoid)?,
            reset_after: o.flag("reset_after", true)?,
            options,
            ..Gru::new(units).activation(activation).use_bias(use_bias)
        }
        .into(),
        _ => {
            return Err(Error::unsupported(
                format!("{}: {} with a cell {class}", o.path().display(), o.what()),
                "cells are SimpleRNNCell, LSTMCell, GRUCell and StackedRNNCells of these",
            ));
        }
    })
}

/// A recurrent layer, or an `RNN` over a cell or over several.
pub(super) fn recurrent(class: &str, o: &mut Options<'_>) -> Result<Program> {
    let (options, masks) = recurrent_options(o)?;
    if class != "RNN" {
        let layer = cell(class, o, options)?;
        return Ok(Program::one(layer, &["cell"]).masks(masks));
    }
    let (class, config) = o.object("cell")?;
    if class != "StackedRNNCells" {
        let layer = own_cell(class, config, o, options)?;
        return Ok(Program::one(layer, &["cell"]).masks(masks));
    }
    let Some(cells) = config.get("cells").and_then(Value::as_array).filter(|cells| !cells.is_empty()) else {
        return Err(o.invalid("cell", "StackedRNNCells with cells"));
    };
    let mut counters = super::names::Counters::default();
    let mut program = Program::new();
    let (mut y, mut states) = (Input::Call(0), Vec::new());
    for (number, value) in cells.iter().enumerate() {
        let Some((class, config)) = super::options::object(value) else {
            return Err(o.invalid("cell", "cells with class_name and config"));
        };
        let options = RecurrentOptions {
            return_sequences: options.return_sequences || number + 1 < cells.len(),
            go_backwards: options.go_backwards && number == 0,
            ..options.clone()
        };
        let layer = own_cell(class, config, o, options)?;
        let kept = layer.as_recurrent().map_or(0, |layer| if layer.cell().has_cell_state() { 2 } else { 1 });
        let arrays = Arrays::Groups(vec![format!("cell/cells/{}", counters.next(class))]);
        y = program.add_with(layer, &[y], arrays);
        states.extend((1..=kept).map(|state| Input::Piece(number, state)));
    }
    let mut outputs = vec![y];
    if options.return_state {
        outputs.extend(states);
    }
    // Where one of several layers goes backwards, masks of those above it would be turned round.
    let masks = if options.go_backwards { Masks::Refused("go_backwards of several cells") } else { masks };
    Ok(program.giving(&outputs).masks(masks))
}

/// A cell inside of an `RNN`, with options of its own.
fn own_cell(
    class: &str,
    config: &Map<String, Value>,
    o: &Options<'_>,
    options: RecurrentOptions,
) -> Result<LayerConfig> {
    let mut inner = Options::new(o.path(), "in it", class, config);
    let layer = cell(class.strip_suffix("Cell").unwrap_or(class), &mut inner, options)?;
    inner.end()?;
    Ok(layer)
}

/// A recurrent layer in both directions.
pub(super) fn bidirectional(o: &mut Options<'_>, known: &Known) -> Result<Program> {
    let merge_mode = match o.take("merge_mode").map(|v| v.as_str().unwrap_or("")) {
        Some("concat") => Some(MergeMode::Concat),
        Some("sum") => Some(MergeMode::Sum),
        Some("mul") => Some(MergeMode::Mul),
        Some("ave") => Some(MergeMode::Ave),
        Some(_) => return Err(o.invalid("merge_mode", "concat, sum, mul, ave or null")),
        None => None,
    };
    let forward = direction(o, "layer", false)?.ok_or_else(|| o.invalid("layer", "a recurrent layer"))?;
    let backward = direction(o, "backward_layer", true)?;
    if goes_backwards(&forward) {
        return Err(o.unsupported("layer", "only one that goes forwards"));
    }
    if backward.as_ref().is_some_and(|backward| !goes_backwards(backward)) {
        return Err(o.unsupported("backward_layer", "only one that goes backwards"));
    }
    let single = |program: &Program| match &program.pieces[..] {
        [only] => Some(only.layer.clone()),
        _ => None,
    };
    let alike = match (single(&forward), backward.as_ref().map(single)) {
        (Some(layer), None) => Some(layer),
        // Its dropout and the start of its biases may differ, which changes training alone; the forward layer's count.
        (Some(layer), Some(Some(mut backward))) => {
            if let Some(recurrent) = backward.as_recurrent_mut() {
                recurrent.options_mut().go_backwards = false;
            }
            same_function(&layer, &backward).then_some(layer)
        }
        _ => None,
    };
    if let (Some(layer), Some(merge_mode)) = (alike, merge_mode) {
        let layer = Bidirectional::new(layer).merge_mode(merge_mode);
        let groups = ["forward_layer/cell", "backward_layer/cell"];
        return Ok(Program::one(layer, &groups).masks(Masks::IgnoredWithStates));
    }
    // Two layers by themselves.
    let backward = match backward {
        Some(backward) => backward,
        None => turned(direction(o, "layer", false)?.ok_or_else(|| o.invalid("layer", "a recurrent layer"))?),
    };
    let sequences = returns_sequences(&forward);
    if sequences != returns_sequences(&backward) {
        return Err(o.unsupported("backward_layer", "one that returns what the forward layer returns"));
    }
    let states = known.shapes.len().saturating_sub(1);
    if !states.is_multiple_of(2) || (states > 0 && (forward.pieces.len() > 1 || backward.pieces.len() > 1)) {
        return Err(o.unsupported("layer", "initial states of one cell in each direction"));
    }
    let given = |direction: usize| -> Vec<Input> {
        let own = (0..states / 2).map(|state| Input::Call(1 + direction * (states / 2) + state));
        std::iter::once(Input::Call(0)).chain(own).collect()
    };
    let below = |program: Program, group: &str| {
        let pieces = program
            .pieces
            .into_iter()
            .map(|piece| super::program::Piece { arrays: piece.arrays.below(group), ..piece });
        Program { pieces: pieces.collect(), ..program }
    };
    let with_state = returns_state(&forward);
    let mut program = Program::new();
    let mut a = program.include(all_outputs(below(forward, "forward_layer")), &given(0));
    let mut b = program.include(all_outputs(below(backward, "backward_layer")), &given(1));
    if a.is_empty() || b.is_empty() || with_state != (b.len() > 1) {
        return Err(o.unsupported("backward_layer", "one that returns what the forward layer returns"));
    }
    let (first, mut second) = (a.remove(0), b.remove(0));
    if sequences {
        let Some(&[steps, _]) = known.shapes.first().map(Vec::as_slice) else {
            return Err(o.unsupported("backward_layer", "where the number of steps is known"));
        };
        let part = Part::Steps { start: steps.saturating_sub(1), step: -1, count: steps };
        second = program.add(Slice::of_parts(1, &[part]), &[second]);
    }
    let mut outputs = match merge_mode {
        None => vec![first, second],
        Some(mode) => {
            let layer: LayerConfig = match mode {
                MergeMode::Concat => Concatenate::new().into(),
                MergeMode::Sum => Add::new().into(),
                MergeMode::Mul => Multiply::new().into(),
                MergeMode::Ave => Average::new().into(),
            };
            vec![program.add(layer, &[first, second])]
        }
    };
    outputs.append(&mut a);
    outputs.append(&mut b);
    Ok(program.giving(&outputs).masks(Masks::Refused("two directions that are not alike")))
}

/// The same with what its only layer gives named.
fn all_outputs(program: Program) -> Program {
    match (&program.outputs, &program.pieces[..]) {
        (None, [only]) => {
            let state = only.layer.as_recurrent().filter(|layer| layer.options().return_state);
            let states = state.map_or(0, |layer| if layer.cell().has_cell_state() { 2 } else { 1 });
            let outputs: Vec<Input> = (0..=states).map(|output| Input::Piece(0, output)).collect();
            program.giving(&outputs)
        }
        _ => program,
    }
}

/// The same in the opposite direction.
fn turned(mut program: Program) -> Program {
    if let Some(recurrent) = program.pieces.first_mut().and_then(|piece| piece.layer.as_recurrent_mut()) {
        recurrent.options_mut().go_backwards ^= true;
    }
    program
}

fn goes_backwards(program: &Program) -> bool {
    program.pieces.first().and_then(|piece| piece.layer.as_recurrent()).is_some_and(|l| l.options().go_backwards)
}

fn returns_sequences(program: &Program) -> bool {
    program.pieces.last().and_then(|piece| piece.layer.as_recurrent()).is_some_and(|l| l.options().return_sequences)
}

fn returns_state(program: &Program) -> bool {
    program.pieces.last().and_then(|piece| piece.layer.as_recurrent()).is_some_and(|l| l.options().return_state)
}

/// A layer inside of `Bidirectional`. What it puts out for absent steps is the wrapper's to say.
fn direction(o: &mut Options<'_>, key: &'static str, may_be_absent: bool) -> Result<Option<Program>> {
    let Some((class, config)) = o.optional_object(key)? else {
        return if may_be_absent { Ok(None) } else { Err(o.invalid(key, "a recurrent layer")) };
    };
    let mut inner = Options::new(o.path(), key, class, config);
    if !matches!(class, "SimpleRNN" | "LSTM" | "GRU" | "RNN") {
        return Err(o.unsupported(key, "a SimpleRNN, LSTM, GRU or RNN"));
    }
    let program = recurrent(class, &mut inner)?;
    inner.end()?;
    Ok(Some(program))
}

/// Whether two layers compute the same outside of training.
fn same_function(a: &LayerConfig, b: &LayerConfig) -> bool {
    let plain = |layer: &LayerConfig| {
        let mut layer = layer.clone();
        if let Some(recurrent) = layer.as_recurrent_mut() {
            let options = recurrent.options_mut();
            (options.dropout, options.recurrent_dropout) = (0.0, 0.0);
        }
        if let LayerConfig::Lstm(lstm) = &mut layer {
            lstm.unit_forget_bias = true;
        }
        layer
    };
    plain(a) == plain(b)
}
