//! Whole models: a step of training on a batch, with its masks, weights of samples and of classes, and several losses.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use fused_rnn::Device;
use fused_rnn::interop::keras::import_layer;
use fused_rnn::metrics::Metric;
use fused_rnn::model::{FitOptions, Graph, GraphTensor, LayerId, Model};
use fused_rnn::nn::{LayerConfig, Loss};
use fused_rnn::optim::Sgd;
use ndarray::{ArrayD, ArrayViewD};
use serde_json::Value;

use super::case::Case;
use super::compare::{adam, adam_difference, difference, largest};
use super::layer::parts;
use super::probe::{GiveMaskOf, TakeMask, Watch};
use super::{host, known, loss, translate};

const RATE: f64 = 0.01;

/// What an output was in the last pass.
type Seen = Arc<Mutex<Vec<f64>>>;

/// A layer's name and its arrays.
type OfLayer = (String, Vec<ArrayD<f64>>);

/// The layers of a case, by name, in the order in which Keras has them.
type Layers = Vec<(String, LayerConfig)>;

fn layers(case: &Case) -> Result<Layers, String> {
    let described = case.json["layers"].as_array().expect("layers");
    let mut layers = Vec::new();
    for layer in described {
        let name = layer["name"].as_str().expect("a name");
        let calls = case.json["graph"].as_array().expect("calls");
        let call = calls.iter().find(|call| call["layer"] == name).expect("a call of the layer");
        let class = layer["class"].as_str().expect("a class");
        layers.push((name.to_owned(), translate::layer(class, &layer["config"], &call["call"])?));
    }
    Ok(layers)
}

fn names(value: &Value) -> Vec<&str> {
    value.as_array().expect("a list").iter().map(|name| name.as_str().expect("a name")).collect()
}

/// The model, its layers, and what its outputs are in a pass.
fn build(device: &Device, case: &Case, layers: &Layers) -> Result<(Model, Vec<Seen>), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let mut graph = Graph::new(device.clone(), 1);
    let mut tensors: HashMap<String, GraphTensor> = HashMap::new();
    for (name, shape) in names(&case.json["tensors"]).iter().zip(case.json["input_shapes"].as_array().expect("shapes"))
    {
        let shape: Vec<usize> = serde_json::from_value(shape.clone()).expect("a shape");
        tensors.insert((*name).to_owned(), graph.input(name, &shape).map_err(text)?);
    }
    let mut ids: HashMap<&str, LayerId> = HashMap::new();
    for (name, config) in layers {
        ids.insert(name, graph.named_layer(name, config.clone()).map_err(text)?);
    }
    for call in case.json["graph"].as_array().expect("calls") {
        let given = [names(&call["inputs"]), names(&call["states"])].concat();
        let mut given: Vec<GraphTensor> = given.iter().map(|name| tensors[*name].clone()).collect();
        let id = ids[call["layer"].as_str().expect("a name")];
        let states = !names(&call["states"]).is_empty();
        let unmasked = states && known::STATES_WITHOUT_MASK.contains(&case.name.as_str());
        let whole = given[0].clone();
        if unmasked {
            let take = graph.own_layer(TakeMask, None).map_err(text)?;
            given[0] = graph.call(take, &[&whole]).map_err(text)?;
        }
        let mut made = graph.call_all(id, &given.iter().collect::<Vec<_>>()).map_err(text)?;
        if unmasked {
            let give = graph.own_layer(GiveMaskOf, None).map_err(text)?;
            made[0] = graph.call(give, &[&made[0], &whole]).map_err(text)?;
        }
        let outputs = names(&call["outputs"]);
        if outputs.len() != made.len() {
            return Err(format!("{} outputs of {}, Keras has {}", made.len(), call["layer"], outputs.len()));
        }
        tensors.extend(outputs.iter().map(|name| (*name).to_owned()).zip(made));
    }
    let (mut seen, mut ends) = (Vec::new(), Vec::new());
    for name in names(&case.json["result"]) {
        let values = Arc::new(Mutex::new(Vec::new()));
        let watch = graph.own_layer(Watch { seen: values.clone(), keep_mask: true }, None).map_err(text)?;
        ends.push(graph.call(watch, &[&tensors[name]]).map_err(text)?);
        seen.push(values);
    }
    let model = graph.model(&ends.iter().collect::<Vec<_>>()).map_err(text)?;
    Ok((model, seen))
}

/// Keras's arrays of each layer that has some, converted, with the names of the model's weights in front of them.
fn converted(layers: &Layers, arrays: &[(String, ArrayD<f64>)]) -> Result<Vec<OfLayer>, String> {
    let mut all = Vec::new();
    for (name, config) in layers {
        let of_layer: Vec<ArrayD<f64>> = arrays
            .iter()
            .filter(|(path, _)| path.split('/').next() == Some(name))
            .map(|(_, array)| array.clone())
            .collect();
        if !of_layer.is_empty() {
            all.push((name.clone(), import_layer(config, &of_layer).map_err(|e| e.to_string())?));
        }
    }
    let count: usize = all.iter().map(|(_, arrays)| arrays.len()).sum();
    if count < arrays.len() { Err(format!("{count} of {} arrays belong to layers", arrays.len())) } else { Ok(all) }
}

/// Runs a case; an `Err` says where it differs.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let tolerance = known::tolerance(&case.name);
    let layers = layers(case)?;
    let (mut model, seen) = build(device, case, &layers)?;
    let losses = case.json["loss"].as_array().expect("losses");
    let mut factors = vec![1.0; losses.len()];
    if let Some(given) = case.json["loss_weights"].as_array() {
        factors = given.iter().map(|w| w.as_f64().expect("a number")).collect();
    }
    let losses: Vec<(Loss, f64)> =
        losses.iter().zip(factors).map(|(l, w)| Ok((loss::translate(l)?, w))).collect::<Result<_, String>>()?;
    model.compile(adam(RATE)?, Loss::MeanSquaredError).map_err(text)?;
    model.losses(&losses).map_err(text)?;

    let weights = case.weights("w");
    let give_weights = |model: &mut Model| -> Result<(), String> {
        for (name, _) in &layers {
            let of_layer: Vec<ArrayD<f64>> = weights
                .iter()
                .filter(|(path, _)| path.split('/').next() == Some(name))
                .map(|(_, array)| array.clone())
                .collect();
            model.set_keras_weights(name, &of_layer).map_err(text)?;
        }
        Ok(())
    };
    give_weights(&mut model)?;

    let inputs = case.list("inputs");
    let x: Vec<ArrayD<f64>> = inputs.iter().map(|name| case.array(name)).collect();
    let x = || x.iter().map(|array| array.view()).collect::<Vec<ArrayViewD<'_, f64>>>();
    let outputs = case.list("outputs");
    let targets: Vec<ArrayD<f64>> =
        Case::numbered("target", outputs.len()).iter().map(|name| case.array(name)).collect();
    let y = || targets.iter().map(|array| array.view()).collect::<Vec<ArrayViewD<'_, f64>>>();
    let expected_loss = case.array("loss")[[0]];
    let same_loss = |got: f64| {
        // Not-a-number is a difference too.
        let allowed = tolerance * expected_loss.abs().max(1e-3);
        if (got - expected_loss).abs() <= allowed {
            Ok(())
        } else {
            Err(format!("loss: {got}, Keras has {expected_loss}"))
        }
    };

    // Gradients in Keras's words; those of weights that have none, such as moving averages, are zero.
    let of_weights = case.weights("g");
    let gradients: Vec<(String, ArrayD<f64>)> = weights
        .iter()
        .map(|(path, w)| {
            let found = of_weights.iter().find(|(other, _)| other == path);
            (path.clone(), found.map_or_else(|| ArrayD::zeros(w.raw_dim()), |(_, g)| g.clone()))
        })
        .collect();
    let gradients = converted(&layers, &gradients)?;
    let of_inputs: Vec<(usize, ArrayD<f64>)> = (0..inputs.len())
        .filter(|i| case.has(&format!("d{}", inputs[*i])))
        .map(|i| (i, case.array(&format!("d{}", inputs[i]))))
        .collect();
    let sizes = gradients.iter().flat_map(|(_, g)| g).chain(of_inputs.iter().map(|(_, g)| g));
    let mut error = tolerance * largest(sizes).max(1e-3);
    let compare = |model: &Model, flat: &[f64], error: f64| -> Result<(), String> {
        let got = parts(model, flat);
        for (layer, expected) in &gradients {
            let own: Vec<_> = got.iter().filter(|(name, _)| name.split('.').next() == Some(layer)).collect();
            for ((name, got), expected) in own.iter().zip(expected) {
                difference(&format!("gradient of {name}"), got, expected, error)?;
            }
        }
        Ok(())
    };

    let sample_weights: Vec<String> =
        Case::numbered("sample_weight", outputs.len()).into_iter().filter(|name| case.has(name)).collect();
    let sample_weight: Vec<_> = sample_weights.iter().map(|name| loss::sample_weight(case.array(name))).collect();
    let class_weight: Vec<(usize, f64)> = case.json["class_weight"].as_object().map_or(Vec::new(), |map| {
        map.iter().map(|(class, w)| (class.parse().expect("a class"), w.as_f64().expect("a number"))).collect()
    });
    let step = |model: &mut Model| -> Result<(), String> {
        let options = FitOptions {
            batch_size: 3,
            shuffle: false,
            sample_weight: sample_weight.iter().map(|weights| weights.into()).collect(),
            class_weight: class_weight.clone(),
            ..FitOptions::default()
        };
        same_loss(model.fit(x(), y(), options).map_err(text)?.loss[0])
    };

    if sample_weight.is_empty() && class_weight.is_empty() {
        let (got, dx) = model.input_gradients(x(), y()).map_err(text)?;
        same_loss(got)?;
        for (i, expected) in &of_inputs {
            difference(&format!("gradient of {}", inputs[*i]), &dx[*i], expected, error)?;
        }
        let flat = model.loss_gradient(x(), y()).map_err(text)?.1;
        compare(&model, &flat, error)?;
    } else {
        // Weights of samples are given to training alone: plain descent with rate 1 takes the gradient off the weights.
        model.compile(Sgd::new(1.0).map_err(text)?, Loss::MeanSquaredError).map_err(text)?;
        model.losses(&losses).map_err(text)?;
        let before: Vec<f64> = model.flat_weights().map_err(text)?;
        step(&mut model)?;
        let after: Vec<f64> = model.flat_weights().map_err(text)?;
        let flat: Vec<f64> = before.iter().zip(&after).map(|(w, after)| w - after).collect();
        // Both differences round.
        error += 2.0 * f64::EPSILON * before.iter().fold(1.0f64, |m, w| w.abs().max(m));
        compare(&model, &flat, error)?;
        model.compile(adam(RATE)?, Loss::MeanSquaredError).map_err(text)?;
        model.losses(&losses).map_err(text)?;
    }
    for ((name, seen), expected) in outputs.iter().zip(&seen).zip(outputs.iter().map(|name| case.array(name))) {
        let got = ArrayD::from_shape_vec(expected.shape(), seen.lock().unwrap().clone()).map_err(|e| e.to_string())?;
        difference(name, &got, &expected, tolerance * largest([&expected]).max(1e-3))?;
    }

    give_weights(&mut model)?;
    if let Some(expected) = case.json["metrics"].as_object() {
        model.metrics(&[Metric::Accuracy]);
        let got = model.evaluate_metrics(x(), y()).map_err(text)?;
        for (name, expected) in expected {
            let expected = expected.as_f64().expect("a number");
            let found = got.iter().find(|(other, _)| other == name).ok_or_else(|| format!("no metric {name}"))?;
            // A quotient of two small whole numbers, which Keras divides in single or in double precision.
            if (found.1 - expected).abs() > f64::from(f32::EPSILON) {
                return Err(format!("{name}: {}, Keras has {expected}", found.1));
            }
        }
        model.metrics(&[]);
    }
    step(&mut model)?;
    for ((layer, expected), (_, gradients)) in converted(&layers, &case.weights("a"))?.iter().zip(&gradients) {
        let own: Vec<_> = model.weights().filter(|(name, ..)| name.split('.').next() == Some(layer)).collect();
        if own.len() != expected.len() {
            return Err(format!("{} weights of {layer}, Keras has {}", own.len(), expected.len()));
        }
        for (((name, shape, values), expected), gradient) in own.iter().zip(expected).zip(gradients) {
            let got = ArrayD::from_shape_vec(*shape, host(*values)).map_err(|e| e.to_string())?;
            adam_difference(&format!("{name} after a step"), &got, expected, gradient, error, RATE)?;
        }
    }
    Ok(())
}
