//! One call of a layer: outputs, loss, gradients, the mask handed on, and the weights after a step.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use fused_rnn::Device;
use fused_rnn::interop::keras::import_layer;
use fused_rnn::model::{Graph, GraphTensor, Model};
use fused_rnn::nn::{LayerConfig, Loss};
use ndarray::{ArrayD, ArrayViewD, Axis};

use super::case::Case;
use super::compare::{adam, adam_difference, difference, largest};
use super::host;
use super::probe::{GiveMask, GiveMaskOf, ShowMask, TakeMask, Watch};
use super::{known, translate};

const RATE: f64 = 0.01;

/// Inputs of the case, in the order in which the model takes them.
struct Inputs {
    names: Vec<String>,
    arrays: Vec<ArrayD<f64>>,
    floating: Vec<bool>,
}

fn inputs(case: &Case) -> Inputs {
    let x = case.list("inputs");
    let masks: Vec<String> = Case::numbered("mask", x.len()).into_iter().filter(|name| case.has(name)).collect();
    let names: Vec<String> = [x, case.list("states"), masks].concat();
    let arrays = names.iter().map(|name| case.array(name)).collect();
    let floating = names.iter().map(|name| case.has(&format!("d{name}"))).collect();
    Inputs { names, arrays, floating }
}

/// The layer's outputs in a graph.
fn outputs(graph: &mut Graph, case: &Case, layer: &LayerConfig, given: &Inputs) -> Result<Vec<GraphTensor>, String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let mut tensors = Vec::new();
    for (name, array) in given.names.iter().zip(&given.arrays) {
        tensors.push(graph.input(name, &array.shape()[1..]).map_err(text)?);
    }
    let tensor = |name: &str| given.names.iter().position(|n| n == name).map(|i| tensors[i].clone());
    let x = case.list("inputs");
    let mut all = Vec::new();
    for (name, mask) in x.iter().zip(Case::numbered("mask", x.len())) {
        let x = tensor(name).ok_or("no such input")?;
        all.push(match tensor(&mask) {
            None => x,
            Some(mask) => {
                let give = graph.own_layer(GiveMask, None).map_err(text)?;
                graph.call(give, &[&x, &mask]).map_err(text)?
            }
        });
    }
    let whole = all[0].clone();
    let unmasked = known::STATES_WITHOUT_MASK.contains(&case.name.as_str());
    if unmasked {
        let take = graph.own_layer(TakeMask, None).map_err(text)?;
        all[0] = graph.call(take, &[&whole]).map_err(text)?;
    }
    all.extend(case.list("states").iter().filter_map(|name| tensor(name)));
    let layer = graph.named_layer("layer", layer.clone()).map_err(text)?;
    let mut outputs = graph.call_all(layer, &all.iter().collect::<Vec<_>>()).map_err(text)?;
    if unmasked && case.has("ymask") {
        let give = graph.own_layer(GiveMaskOf, None).map_err(text)?;
        outputs[0] = graph.call(give, &[&outputs[0], &whole]).map_err(text)?;
    }
    Ok(outputs)
}

/// The parts of a flat gradient, with the names of their weights.
pub fn parts(model: &Model, flat: &[f64]) -> Vec<(String, ArrayD<f64>)> {
    let mut first = 0;
    let mut parts = Vec::new();
    for (name, shape, values) in model.weights().filter(|(name, ..)| model.is_trained(name)) {
        let part = flat[first..][..values.len()].to_vec();
        parts.push((name, ArrayD::from_shape_vec(shape, part).expect("the shape of the weight")));
        first += values.len();
    }
    assert_eq!(first, flat.len());
    parts
}

/// Runs a case; an `Err` says where it differs.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    if case.has("attention_mask") {
        return Err("an attention_mask".to_owned());
    }
    let tolerance = known::tolerance(&case.name);
    let class = case.json["class"].as_str().expect("a class");
    let config = translate::layer(class, &case.json["config"], &case.json["call"])?;
    let given = inputs(case);

    let mut graph = Graph::new(device.clone(), 1);
    let built = outputs(&mut graph, case, &config, &given)?;
    let names = case.list("outputs");
    if built.len() != names.len() {
        return Err(format!("{} outputs, Keras has {}", built.len(), names.len()));
    }
    let mut seen = Vec::new();
    let mut ends = Vec::new();
    for output in &built {
        let values = Arc::new(Mutex::new(Vec::new()));
        let watch = graph.own_layer(Watch { seen: values.clone(), keep_mask: false }, None).map_err(text)?;
        ends.push(graph.call(watch, &[output]).map_err(text)?);
        seen.push(values);
    }
    let mut model = graph.model(&ends.iter().collect::<Vec<_>>()).map_err(text)?;
    let frozen = case.json["frozen"] == true;
    if frozen {
        model.set_trainable("layer", false).map_err(text)?;
        if model.count_params() != 0 {
            return Err(format!("{} weights of a frozen layer are trained", model.count_params()));
        }
    }
    model.compile(adam(RATE)?, Loss::MeanSquaredError).map_err(text)?;

    let weights: Vec<ArrayD<f64>> = case.weights("w").into_iter().map(|(_, array)| array).collect();
    model.set_keras_weights("layer", &weights).map_err(text)?;
    if model.keras_weights::<f64>("layer").map_err(text)? != weights {
        return Err("keras_weights differ from those set".to_owned());
    }

    let x = || given.arrays.iter().map(|array| array.view()).collect::<Vec<ArrayViewD<'_, f64>>>();
    let targets: Vec<ArrayD<f64>> = Case::numbered("target", names.len()).iter().map(|name| case.array(name)).collect();
    let y = || targets.iter().map(|array| array.view()).collect::<Vec<ArrayViewD<'_, f64>>>();
    let expected: Vec<ArrayD<f64>> = names.iter().map(|name| case.array(name)).collect();
    let trained = case.json["training"].as_bool().expect("a flag");
    let loss = case.array("loss")[[0]];

    if known::MASKED_QUERIES.contains(&case.name.as_str()) {
        let got = model.predict_all(x()).map_err(text)?;
        masked_queries(case, &got, &expected, tolerance)?;
        return mask_handed_on(device, case, &config, &given, x());
    }

    // Outputs, of the kind of pass that Keras's was.
    if !trained {
        let got = model.predict_all(x()).map_err(text)?;
        for ((name, got), expected) in names.iter().zip(&got).zip(&expected) {
            difference(name, got, expected, tolerance * largest([expected]).max(1e-3))?;
        }
        let got = model.evaluate(x(), y()).map_err(text)?;
        same_loss(got, loss, tolerance)?;
    }
    mask_handed_on(device, case, &config, &given, x())?;
    if known::INFERENCE.contains(&case.name.as_str()) {
        return Ok(());
    }

    let (got, dx) = model.input_gradients(x(), y()).map_err(text)?;
    same_loss(got, loss, tolerance)?;
    for ((name, seen), expected) in names.iter().zip(&seen).zip(&expected) {
        let got = ArrayD::from_shape_vec(expected.shape(), seen.lock().unwrap().clone()).map_err(|e| e.to_string())?;
        difference(&format!("{name} in training"), &got, expected, tolerance * largest([expected]).max(1e-3))?;
    }
    let (_, flat) = model.loss_gradient(x(), y()).map_err(text)?;
    let got = parts(&model, &flat);
    // Weights without a gradient, such as moving averages, come last, and are not in the comparison.
    let mut gradients: Vec<ArrayD<f64>> = case.weights("g").into_iter().map(|(_, array)| array).collect();
    gradients.extend(weights[gradients.len()..].iter().map(|w| ArrayD::zeros(w.raw_dim())));
    let gradients = import_layer(&config, &gradients).map_err(text)?;
    let of_inputs: Vec<(usize, ArrayD<f64>)> = (0..given.names.len())
        .filter(|i| given.floating[*i])
        .map(|i| (i, case.array(&format!("d{}", given.names[i]))))
        .collect();
    // Some gradients are sums of terms that cancel; what is left over is as large as the rounding of the terms.
    let error = tolerance * largest(gradients.iter().chain(of_inputs.iter().map(|(_, array)| array))).max(1e-3);
    for ((name, got), expected) in got.iter().zip(&gradients) {
        difference(&format!("gradient of {name}"), got, expected, error)?;
    }
    for (i, expected) in &of_inputs {
        difference(&format!("gradient of {}", given.names[*i]), &dx[*i], expected, error)?;
    }

    let after: Vec<ArrayD<f64>> = case.weights("a").into_iter().map(|(_, array)| array).collect();
    if after.is_empty()
        && !weights.is_empty()
        && !frozen
        && (trained || !given.names.iter().any(|name| name.starts_with("mask")))
    {
        return Err(
            "no weights after a step, which are left out of passes with a mask and without training alone".to_owned()
        );
    }
    if !after.is_empty() {
        model.set_keras_weights("layer", &weights).map_err(text)?;
        same_loss(model.train_on_batch(x(), y()).map_err(text)?, loss, tolerance)?;
        let after = import_layer(&config, &after).map_err(text)?;
        let trained: Vec<_> =
            model.weights().map(|(name, shape, values)| (name, shape.to_vec(), host(values))).collect();
        if trained.len() != after.len() {
            return Err(format!("{} weights, Keras has {}", trained.len(), after.len()));
        }
        for (index, ((name, shape, values), after)) in trained.into_iter().zip(&after).enumerate() {
            let got = ArrayD::from_shape_vec(shape, values).map_err(|e| e.to_string())?;
            adam_difference(&format!("{name} after a step"), &got, after, &gradients[index], error, RATE)?;
        }
    }
    Ok(())
}

/// Outputs of multi-head attention, `[batch, queries, width]`, and perhaps weights of the keys, `[batch, heads, queries, keys]`: as Keras
/// has them for queries that are there; for the others, weights that are none for absent keys and 1 taken together.
fn masked_queries(case: &Case, got: &[ArrayD<f64>], expected: &[ArrayD<f64>], tolerance: f64) -> Result<(), String> {
    let (queries, keys) = (case.array("mask0"), case.array("mask1"));
    let (mut compared, mut others) = (0, 0);
    for ((batch, query), there) in queries.indexed_iter().map(|(at, there)| ((at[0], at[1]), *there == 1.0)) {
        for (got, expected) in got.iter().zip(expected) {
            let row = |array: &ArrayD<f64>| {
                let sample = array.index_axis(Axis(0), batch);
                sample.index_axis(Axis(sample.ndim() - 2), query).to_owned()
            };
            if there {
                let what = format!("query {query} of sample {batch}, ");
                difference(&what, &row(got), &row(expected), tolerance * largest([expected]))?;
                compared += 1;
            } else if got.ndim() == 4 {
                for weights in row(got).rows() {
                    let absent = weights.iter().zip(keys.index_axis(Axis(0), batch)).filter(|(_, key)| **key == 0.0);
                    let sum = weights.sum();
                    if absent.into_iter().any(|(w, _)| *w != 0.0) || (sum - 1.0).abs() > 8.0 * f64::EPSILON {
                        return Err(format!("query {query} of sample {batch}: weights {weights}"));
                    }
                    others += 1;
                }
            }
        }
    }
    // The cases are what they are taken for.
    assert!(compared > 0 && (others > 0 || got.len() == 1), "{}: {compared} rows and {others}", case.name);
    Ok(())
}

fn same_loss(got: f64, expected: f64, tolerance: f64) -> Result<(), String> {
    if (got - expected).abs() <= tolerance * expected.abs().max(1e-3) {
        return Ok(());
    }
    Err(format!("loss: {got}, Keras has {expected}"))
}

/// The mask on the first output.
fn mask_handed_on(
    device: &Device,
    case: &Case,
    config: &LayerConfig,
    given: &Inputs,
    x: Vec<ArrayViewD<'_, f64>>,
) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let mut graph = Graph::new(device.clone(), 1);
    let built = outputs(&mut graph, case, config, given)?;
    let found = Arc::new(AtomicBool::new(false));
    let show = graph.own_layer(ShowMask { found: found.clone() }, None).map_err(text)?;
    let mask = graph.call(show, &[&built[0]]).map_err(text)?;
    match (case.has("ymask"), found.load(Ordering::Relaxed)) {
        (false, false) => return Ok(()),
        (true, true) => (),
        (true, false) => return Err("no mask on the output, Keras has one".to_owned()),
        (false, true) => return Err("a mask on the output, Keras has none".to_owned()),
    }
    let mut model = graph.model(&[&mask]).map_err(text)?;
    let got = model.predict(x).map_err(text)?;
    let mut expected = case.array("ymask");
    if known::BACKWARDS.contains(&case.name.as_str()) {
        expected.invert_axis(Axis(1));
    }
    difference("mask on the output", &got, &expected, 0.0)
}
