//! Losses and their gradients, with weights of samples and of steps, and with masks.

use fused_rnn::Device;
use fused_rnn::model::{FitOptions, Graph};
use fused_rnn::nn::{Embedding, Loss, Reshape};
use fused_rnn::optim::{Adam, Sgd};
use ndarray::{ArrayD, ArrayViewD, IxDyn};
use serde_json::Value;

use super::case::{Case, Options};
use super::compare::{TOLERANCE, difference, largest};
use super::probe::GiveMask;

/// The loss that Keras describes.
pub fn translate(description: &Value) -> Result<Loss, String> {
    let class = description["class"].as_str().expect("a class");
    let mut o = Options::new(class, &description["config"]);
    let loss = match class {
        "MeanSquaredError" => Loss::MeanSquaredError,
        "MeanAbsoluteError" => Loss::MeanAbsoluteError,
        "Huber" => Loss::Huber { delta: o.optional("delta").map_or(1.0, |v| v.as_f64().expect("a number")) },
        "BinaryCrossentropy" | "CategoricalCrossentropy" => {
            o.only("axis", -1)?;
            let from_logits = o.flag("from_logits");
            let loss = match class {
                "BinaryCrossentropy" => Loss::BinaryCrossentropy { from_logits },
                _ => Loss::CategoricalCrossentropy { from_logits },
            };
            match o.number("label_smoothing") {
                0.0 => loss,
                smoothing => loss.label_smoothing(smoothing).map_err(|e| e.to_string())?,
            }
        }
        "BinaryFocalCrossentropy" | "CategoricalFocalCrossentropy" => {
            o.optional("axis");
            o.optional("label_smoothing");
            let (from_logits, alpha, gamma) = (o.flag("from_logits"), o.number("alpha"), o.number("gamma"));
            match class {
                "BinaryFocalCrossentropy" => {
                    let alpha = o.flag("apply_class_balancing").then_some(alpha);
                    Loss::BinaryFocalCrossentropy { from_logits, alpha, gamma }
                }
                _ => Loss::CategoricalFocalCrossentropy { from_logits, alpha, gamma },
            }
        }
        "MeanAbsolutePercentageError" => Loss::MeanAbsolutePercentageError,
        "MeanSquaredLogarithmicError" => Loss::MeanSquaredLogarithmicError,
        "LogCosh" => Loss::LogCosh,
        "Poisson" => Loss::Poisson,
        "KLDivergence" => Loss::KlDivergence,
        "CosineSimilarity" => {
            o.optional("axis");
            Loss::CosineSimilarity
        }
        "Hinge" => Loss::Hinge,
        "SquaredHinge" => Loss::SquaredHinge,
        "CategoricalHinge" => Loss::CategoricalHinge,
        "SparseCategoricalCrossentropy" => {
            o.only("ignore_class", Value::Null)?;
            if let Some(axis) = o.optional("axis").filter(|axis| *axis != -1) {
                return Err(format!("{class} with axis {axis}"));
            }
            Loss::SparseCategoricalCrossentropy { from_logits: o.flag("from_logits") }
        }
        other => return Err(format!("loss {other}")),
    };
    o.only("reduction", "sum_over_batch_size")?;
    o.end()?;
    Ok(loss)
}

/// Weights of samples as this crate takes them: `[samples]` or `[samples, steps]`.
pub fn sample_weight(given: ArrayD<f64>) -> ArrayD<f64> {
    match *given.shape() {
        [samples, 1] => given.into_shape_with_order(IxDyn(&[samples])).expect("as many elements"),
        _ => given,
    }
}

/// Runs a case. The predictions are weights, the rows of a table that the samples name, so that their gradient is the table's, and so that
/// a step of plain descent with rate 1 takes it off them.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let loss = translate(&case.json["loss"])?;
    let (y, target, dy) = (case.array("y"), case.array("target"), case.array("dy"));
    let mut expected = case.array("loss")[[0]];
    if case.name == "loss_sparse_certain" {
        // Keras on TensorFlow divides by the sum of a row after clipping its elements, which adds the logarithm of that sum to the loss;
        // for categorical targets, and on its other backends, it divides before, as this crate does.
        let sums = y.rows().into_iter().map(|row| row.mapv(|p| p.clamp(1e-7, 1.0 - 1e-7)).sum().ln());
        expected -= sums.sum::<f64>() / y.shape()[0] as f64;
    }
    let (samples, shape) = (y.shape()[0], y.shape()[1..].to_vec());
    let width: usize = shape.iter().product();

    let mut graph = Graph::new(device.clone(), 1);
    let index = graph.input("index", &[1]).map_err(text)?;
    let mut x = vec![ArrayD::from_shape_fn(IxDyn(&[samples, 1]), |at| at[0] as f64)];
    let rows = graph.add(Embedding::new(samples, width), &[&index]).map_err(text)?;
    let signed: Vec<i64> = shape.iter().map(|n| *n as i64).collect();
    let mut predictions = graph.add(Reshape::new(&signed), &[&rows]).map_err(text)?;
    if case.has("mask") {
        x.push(case.array("mask"));
        let mask = graph.input("mask", &x[1].shape()[1..]).map_err(text)?;
        let give = graph.own_layer(GiveMask, None).map_err(text)?;
        predictions = graph.call(give, &[&predictions, &mask]).map_err(text)?;
    }
    let mut model = graph.model(&[&predictions]).map_err(text)?;
    model.compile(Adam::default(), loss).map_err(text)?;
    let values: Vec<f64> = y.iter().copied().collect();
    model.set_flat_weights(&values).map_err(text)?;
    let x = || x.iter().map(|array| array.view()).collect::<Vec<ArrayViewD<'_, f64>>>();

    let weights = case.has("sample_weight").then(|| sample_weight(case.array("sample_weight")));
    let allowed = TOLERANCE * expected.abs().max(1e-3);
    // Keras has the logarithm of 2 in single precision, 1.9e-9 off, times the mean of the weights.
    let allowed = if loss == Loss::LogCosh { allowed + 4e-9 } else { allowed };
    let same_loss = |got: f64| {
        // Not-a-number is a difference too.
        if (got - expected).abs() <= allowed { Ok(()) } else { Err(format!("loss: {got}, Keras has {expected}")) }
    };
    let error = TOLERANCE * largest([&dy]).max(1e-3);
    if weights.is_none() {
        same_loss(model.evaluate(x(), target.view()).map_err(text)?)?;
        let (got, gradient) = model.loss_gradient(x(), target.view()).map_err(text)?;
        same_loss(got)?;
        let gradient = ArrayD::from_shape_vec(y.shape(), gradient).map_err(|e| e.to_string())?;
        difference("gradient", &gradient, &dy, error)?;
    }
    model.compile(Sgd::new(1.0).map_err(text)?, loss).map_err(text)?;
    let options = FitOptions {
        batch_size: samples,
        sample_weight: weights.iter().map(|weights| weights.into()).collect(),
        ..FitOptions::default()
    };
    let history = model.fit(x(), target.view(), options).map_err(text)?;
    same_loss(history.loss[0])?;
    let after = ArrayD::from_shape_vec(y.shape(), model.flat_weights().map_err(text)?).map_err(|e| e.to_string())?;
    // Both differences round.
    let error = error + 2.0 * f64::EPSILON * largest([&y, &after]);
    difference("gradient taken off in a step", &(&y - &after), &dy, error)
}
