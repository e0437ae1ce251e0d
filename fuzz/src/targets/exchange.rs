//! Models and weights of other programs.

use std::path::Path;

use fused_rnn::exchange::onnx::ImportOptions;
use fused_rnn::exchange::{Imported, Port, keras, onnx, torch};
use fused_rnn::model::{Model, Sequential};
use fused_rnn::nn::{BatchNormalization, Bidirectional, Conv1D, Dense, Gru, LayerNormalization, Lstm};
use ndarray::{ArrayD, IxDyn};

use super::{device, read, refused, scratch, used, written};

/// An ONNX file.
pub fn onnx(bytes: &[u8]) -> bool {
    let path = Path::new("d.onnx");
    let options = ImportOptions::default().dim("batch", 1).dim("time", 3).dim("T", 3);
    let first = read(bytes.len(), || onnx::parse(device(), bytes, path, &ImportOptions::default()));
    let Some(imported) = first.or_else(|| read(bytes.len(), || onnx::parse(device(), bytes, path, &options))) else {
        return false;
    };
    use_imported(imported);
    true
}

/// A `.keras` file.
pub fn keras(bytes: &[u8]) -> bool {
    let path = written("d.keras", bytes);
    let first = read(bytes.len(), || keras::read(device(), &path));
    let Some(imported) = first.or_else(|| read(bytes.len(), || keras::read_with_steps(device(), &path, 3))) else {
        return false;
    };
    use_imported(imported);
    true
}

/// Predicts on arrays as the ports say.
pub fn predicts(imported: &mut Imported) {
    // Axes of any length are of three.
    let axes = |port: &Port| port.shape.iter().map(|axis| axis.unwrap_or(3)).collect::<Vec<usize>>();
    let elements = |port: &Port| axes(port).iter().chain(&port.within).fold(1usize, |n, axis| n.saturating_mul(*axis));
    let is_large = |ports: &[Port], most: usize| ports.iter().map(elements).any(|n| n > most);
    if is_large(&imported.inputs, 4000)
        || is_large(&imported.outputs, 1 << 20)
        || imported.model.count_params() > 100_000
    {
        return;
    }
    let array = |port: &Port| {
        let mut shape = axes(port);
        shape.insert(port.batch_axis, 2 * port.within[0] * port.within[1]);
        ArrayD::from_elem(IxDyn(&shape), 0.5)
    };
    let arrays: Vec<ArrayD<f32>> = imported.inputs.iter().map(array).collect();
    match imported.predict(&arrays.iter().map(|array| array.view()).collect::<Vec<_>>()) {
        Ok(outputs) => assert_eq!(outputs.len(), imported.outputs.len()),
        Err(error) => refused(&error),
    }
    imported.model.reset_states();
}

/// A model that was read: it predicts, and every format that it can be written in can be read.
fn use_imported(mut imported: Imported) {
    predicts(&mut imported);
    let saved = scratch("imported.safetensors");
    imported.save(&saved).expect("what was read can be saved");
    let again = Imported::load(device(), &saved).expect("what was saved can be read");
    assert!(again.inputs == imported.inputs && again.outputs == imported.outputs, "other ports");
    if imported.model.count_params() < 20_000 {
        written_elsewhere(&imported.model);
    }
    used::model(&mut imported.model);
}

fn written_elsewhere(model: &Model) {
    let is_open = model.input_axes().any(|axes| axes.contains(&None));
    match onnx::bytes(model, Path::new("written.onnx")) {
        Ok(bytes) => {
            let options = ImportOptions::default();
            if let Err(error) = onnx::parse(device(), &bytes, Path::new("written.onnx"), &options) {
                refused(&error);
                assert!(is_open, "what was written as ONNX cannot be read: {error}");
            }
        }
        Err(error) => refused(&error),
    }
    match keras::to_bytes(model, Path::new("written.keras")) {
        Ok(bytes) => {
            if let Err(error) = keras::parse(device(), &bytes, Path::new("written.keras")) {
                refused(&error);
                assert!(is_open, "what was written as .keras cannot be read: {error}");
            }
        }
        Err(error) => refused(&error),
    }
}

fn stack() -> Sequential {
    let mut model = Sequential::new(device(), &[5, 3], 1).expect("a model");
    let lstm = Lstm::new(4).double_bias(true).return_sequences(true).num_layers(2);
    model.add(Bidirectional::new(lstm)).and_then(|m| m.add(LayerNormalization::new())).expect("layers");
    model.add(Dense::new(8)).and_then(|m| m.add(Dense::new(2))).expect("layers");
    model
}

fn convolved() -> Sequential {
    let mut model = Sequential::new(device(), &[6, 3], 1).expect("a model");
    model.add(Conv1D::new(4, 3)).and_then(|m| m.add(BatchNormalization::new())).expect("layers");
    model.add(Gru::new(5)).and_then(|m| m.add(Dense::new(1))).expect("layers");
    model
}

/// Weights that Keras has saved.
pub fn keras_weights(bytes: &[u8]) -> bool {
    let path = written("d.weights.h5", bytes);
    let mut taken = false;
    for mut model in [stack(), convolved()] {
        taken |= weights(&mut model, |model| read(bytes.len(), || keras::read_weights(model, &path)).is_some());
    }
    taken
}

/// Weights of PyTorch's.
pub fn state_dict(bytes: &[u8]) -> bool {
    let path = written("d.safetensors", bytes);
    let mut taken = false;
    for mut model in [stack(), convolved()] {
        taken |= weights(&mut model, |model| read(bytes.len(), || torch::read(model, &path)).is_some());
        if let Some(map) = read(bytes.len(), || torch::map(&model, &path)) {
            let map: Vec<(&str, &str)> = map.iter().map(|(module, layer)| (&**module, &**layer)).collect();
            weights(&mut model, |model| read(bytes.len(), || torch::load(model, &path, &map)).is_some());
            if let Err(error) = torch::save(&model, scratch("saved.safetensors"), &map) {
                refused(&error);
            }
        }
    }
    taken
}

/// A reader of weights: a model that it gives none has those from before.
fn weights(model: &mut Sequential, read: impl FnOnce(&mut Model) -> bool) -> bool {
    let before = model.flat_weights::<f32>().expect("weights");
    let taken = read(model);
    let after = model.flat_weights::<f32>().expect("weights");
    match taken {
        true => used::model(model),
        false => assert!(before == after, "an error left other weights"),
    }
    taken
}
