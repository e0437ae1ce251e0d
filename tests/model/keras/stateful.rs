//! Layers whose states go on from batch to batch.

use fused_rnn::Device;
use fused_rnn::interop::keras::import_layer;
use fused_rnn::model::{Graph, Model};
use fused_rnn::nn::Loss;
use ndarray::ArrayD;
use serde_json::Value;

use super::case::Case;
use super::compare::{TOLERANCE, adam, adam_difference, difference, largest};
use super::layer::parts;
use super::{host, translate};

const RATE: f64 = 0.01;

/// Runs a case: the second of two batches, after the first and after a reset.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let config = translate::layer(case.json["class"].as_str().expect("a class"), &case.json["config"], &Value::Null)?;
    let (x0, x1, target) = (case.array("x0"), case.array("x1"), case.array("target"));
    let mut graph = Graph::new(device.clone(), 1);
    let x = graph.input("x", &x0.shape()[1..]).map_err(text)?;
    let layer = graph.named_layer("layer", config.clone()).map_err(text)?;
    let y = graph.call(layer, &[&x]).map_err(text)?;
    let mut model = graph.model(&[&y]).map_err(text)?;
    model.compile(adam(RATE)?, Loss::MeanSquaredError).map_err(text)?;
    let arrays = |prefix: &str| case.weights(prefix).into_iter().map(|(_, array)| array).collect::<Vec<_>>();
    model.set_keras_weights("layer", &arrays("w")).map_err(text)?;

    let same = |name: &str, got: &ArrayD<f64>| {
        let expected = case.array(name);
        difference(name, got, &expected, TOLERANCE * largest([&expected]))
    };
    same("y0", &model.predict(x0.view()).map_err(text)?)?;
    same("y1", &model.predict(x1.view()).map_err(text)?)?;
    model.reset_states();
    same("y2", &model.predict(x1.view()).map_err(text)?)?;

    // Before each of what follows, the first batch again.
    let first = |model: &mut Model| {
        model.reset_states();
        model.predict(x0.view()).map_err(text)
    };
    let loss = case.array("loss");
    let same_loss =
        |got: f64| difference("loss", &ArrayD::from_elem(vec![1], got), &loss, TOLERANCE * largest([&loss]));
    let dx = case.array("dx1");
    let gradients = import_layer(&config, &arrays("g")).map_err(text)?;
    let error = TOLERANCE * largest(gradients.iter().chain([&dx]));
    first(&mut model)?;
    let (got, of_inputs) = model.input_gradients(x1.view(), target.view()).map_err(text)?;
    same_loss(got)?;
    difference("gradient of x1", &of_inputs[0], &dx, error)?;
    first(&mut model)?;
    let (got, flat) = model.loss_gradient(x1.view(), target.view()).map_err(text)?;
    same_loss(got)?;
    for ((name, got), expected) in parts(&model, &flat).iter().zip(&gradients) {
        difference(&format!("gradient of {name}"), got, expected, error)?;
    }
    first(&mut model)?;
    same_loss(model.train_on_batch(x1.view(), target.view()).map_err(text)?)?;
    let after = import_layer(&config, &arrays("a")).map_err(text)?;
    for (((name, shape, values), expected), gradient) in model.weights().zip(&after).zip(&gradients) {
        let got = ArrayD::from_shape_vec(shape, host(values)).map_err(|e| e.to_string())?;
        adam_difference(&format!("{name} after a step"), &got, expected, gradient, error, RATE)?;
    }
    Ok(())
}
