//! Model files of this crate.

use std::collections::BTreeMap;
use std::path::Path;

use fused_rnn::Device;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::data::CsvTable;
use fused_rnn::exchange::Imported;
use fused_rnn::model::{GraphConfig, Model, Sequential, Trained};
use fused_rnn::nn::{Dense, Lstm};
use ndarray::Array2;
use serde_json::{Value, json};

use super::{device, exchange, read, refused, scratch, used, written};

/// A file of weights for a fixed model.
pub fn weights(bytes: &[u8]) -> bool {
    let path = written("weights.safetensors", bytes);
    let mut model = Sequential::new(device(), &[4, 2], 1).expect("a model");
    model.add(Lstm::new(3)).and_then(|model| model.add(Dense::new(1))).expect("layers");
    let before: Vec<f32> = model.flat_weights().expect("weights");
    match read(bytes.len(), || model.load_weights(&path)) {
        Some(()) => {
            used::model(&mut model);
            true
        }
        None => {
            assert_eq!(before, model.flat_weights::<f32>().expect("weights"), "an error left other weights");
            false
        }
    }
}

/// A whole file, in both precisions, and with the ports of an imported model.
pub fn model(bytes: &[u8]) -> bool {
    let path = written("model.safetensors", bytes);
    let trained = read(bytes.len(), || Trained::load(device(), &path));
    let taken = trained.is_some();
    if let Some(trained) = trained {
        use_trained(trained);
    }
    if let Some(mut imported) = read(bytes.len(), || Imported::load(device(), &path)) {
        exchange::predicts(&mut imported);
        let saved = scratch("imported.safetensors");
        imported.save(&saved).expect("what was read can be saved");
        Imported::load(device(), &saved).expect("what was saved can be read");
    }
    let oracle: Device = ReferenceBackend::<f64>::new().into();
    read(bytes.len(), || Model::load(oracle, &path));
    taken
}

/// The description alone: a file is made around it with the tensors that it asks for, so that changes of it are seen by what comes after.
pub fn configuration(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<Value>(bytes) else { return false };
    let text = value.to_string();
    let tensors = tensors_of(&value);
    let params: usize = tensors.iter().map(|(_, shape, _)| shape.iter().product::<usize>()).sum();
    // As many tensors of the optimizer as it has.
    for states in 0..4 {
        let mut all = tensors.clone();
        all.extend((0..states).map(|i| (format!("optimizer.{i}"), vec![params], vec![0.25; params])));
        let file = file(&text, &all);
        let path = written("configured.safetensors", &file);
        if let Some(trained) = read(file.len(), || Trained::load(device(), &path)) {
            use_trained(trained);
            return true;
        }
    }
    false
}

type Named = (String, Vec<usize>, Vec<f32>);

/// The weights of the model that is described, where it can be and is small.
fn tensors_of(value: &Value) -> Vec<Named> {
    fn is_small(value: &Value) -> bool {
        match value {
            Value::Number(number) => number.as_f64().is_none_or(|number| number.abs() <= 512.0),
            Value::Array(values) => values.iter().all(is_small),
            Value::Object(values) => values.values().all(is_small),
            _ => true,
        }
    }
    let Some(described) = value.get("model").filter(|described| is_small(described)) else { return Vec::new() };
    let Ok(config) = serde_json::from_value::<GraphConfig>(described.clone()) else { return Vec::new() };
    let model = match Model::from_config(device(), &config, 7) {
        Ok(model) => model,
        Err(error) => {
            refused(&error);
            return Vec::new();
        }
    };
    let mut tensors = Vec::new();
    for (name, shape, _) in model.weights() {
        let values = model.weight::<f32>(&name).expect("its own weight");
        tensors.push((name, shape.to_vec(), values));
    }
    tensors
}

/// A safetensors file, as far as it can be one: names may be there twice.
fn file(text: &str, tensors: &[Named]) -> Vec<u8> {
    let mut header = BTreeMap::from([("__metadata__".to_owned(), json!({ "fused-rnn": text }))]);
    let mut data = Vec::new();
    for (name, shape, values) in tensors {
        let end = data.len() + values.len() * 4;
        let entry = json!({"dtype": "F32", "shape": shape, "data_offsets": [data.len(), end]});
        if header.insert(name.clone(), entry).is_none() {
            data.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        }
    }
    let header = serde_json::to_vec(&header).expect("JSON");
    [&(header.len() as u64).to_le_bytes()[..], &header, &data].concat()
}

/// Does what the model is for, then what any model does.
fn use_trained(mut trained: Trained) {
    let path = scratch("trained.safetensors");
    match &mut trained {
        Trained::Forecaster(forecaster) => {
            forecaster.save(&path).expect("what was read can be saved");
            let columns = forecaster.config().columns().len();
            let (context, horizon) = (forecaster.config().context(), forecaster.config().horizon);
            if context < 2000 && horizon < 2000 && columns < 20 && forecaster.model().count_params() < 100_000 {
                let rows = context + 3;
                let history = Array2::from_shape_fn((rows, columns), |(i, j)| ((i * 7 + j) % 5) as f64 + 1.0);
                match forecaster.forecast(&history, horizon.min(3)) {
                    Ok(values) => assert_eq!(values.len(), horizon.min(3)),
                    Err(error) => refused(&error),
                }
                if let Err(error) = forecaster.backtest(&history, 0..rows) {
                    refused(&error);
                }
                if let Err(error) = CsvTable::parse(b"a\n1\n", "d", &forecaster.config().reading) {
                    refused(&error);
                }
            }
        }
        Trained::Sequences(sequences) => {
            sequences.save(&path).expect("what was read can be saved");
            let (steps, features) = (sequences.config().steps, sequences.config().scaler.columns().len());
            if steps < 2000 && features < 50 && sequences.model().count_params() < 100_000 {
                let x =
                    [Array2::from_elem((steps.min(2), features), 0.5f32), Array2::from_elem((1, features), -1.0f32)];
                if let Err(error) = sequences.predict(&x) {
                    refused(&error);
                }
                if let Err(error) = sequences.predict_classes(&x) {
                    refused(&error);
                }
            }
        }
        Trained::Model(model) => model.save(&path).expect("what was read can be saved"),
    }
    same_kind(&trained, &path);
    used::model(trained.model());
}

/// What was saved is read as the same.
fn same_kind(trained: &Trained, path: &Path) {
    let again = Trained::load(device(), path).expect("what was saved can be read");
    let same = match (trained, &again) {
        (Trained::Forecaster(one), Trained::Forecaster(other)) => one.config() == other.config(),
        (Trained::Sequences(one), Trained::Sequences(other)) => one.config() == other.config(),
        (Trained::Model(_), Trained::Model(_)) => true,
        _ => false,
    };
    assert!(same, "what it is for changed when it was saved and read");
}
