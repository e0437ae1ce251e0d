//! Three steps of an optimizer on given gradients.

use fused_rnn::Device;
use fused_rnn::model::{Clip, FitOptions, Graph};
use fused_rnn::nn::{Concatenate, Embedding, Loss};
use fused_rnn::optim::{Adadelta, Adagrad, Adam, AdamW, Adamax, Nadam, OptimizerConfig, RmsProp, Sgd};
use ndarray::{Array2, ArrayD};

use super::case::{Case, Options};
use super::compare::{adam_factor, single};
use super::host;

/// The optimizer that Keras describes, and how gradients are limited before it sees them.
fn translate(case: &Case) -> Result<(OptimizerConfig, Option<Clip>), String> {
    let class = case.json["optimizer"]["class"].as_str().expect("a class");
    let mut o = Options::new(class, &case.json["optimizer"]["config"]);
    let learning_rate = o.number("learning_rate");
    let clip = match (o.optional("clipvalue"), o.optional("global_clipnorm"), o.optional("clipnorm")) {
        (None, None, None) => None,
        (Some(value), None, None) => Some(Clip::Value(value.as_f64().expect("a number"))),
        (None, Some(norm), None) => Some(Clip::Norm(norm.as_f64().expect("a number"))),
        _ => return Err("clipnorm, a norm for each tensor".to_owned()),
    };
    let config = match class {
        "SGD" => {
            OptimizerConfig::Sgd(Sgd { learning_rate, momentum: o.number("momentum"), nesterov: o.flag("nesterov") })
        }
        "RMSprop" => OptimizerConfig::RmsProp(RmsProp {
            learning_rate,
            rho: o.number("rho"),
            momentum: o.number("momentum"),
            epsilon: o.number("epsilon"),
            centered: o.flag("centered"),
        }),
        "Adagrad" => OptimizerConfig::Adagrad(Adagrad {
            learning_rate,
            initial_accumulator_value: o.number("initial_accumulator_value"),
            epsilon: o.number("epsilon"),
        }),
        "Adadelta" => {
            OptimizerConfig::Adadelta(Adadelta { learning_rate, rho: o.number("rho"), epsilon: o.number("epsilon") })
        }
        "Nadam" | "Adamax" => {
            let (beta_1, beta_2, epsilon) = (o.number("beta_1"), o.number("beta_2"), o.number("epsilon"));
            match class {
                "Nadam" => OptimizerConfig::Nadam(Nadam { learning_rate, beta_1, beta_2, epsilon }),
                _ => OptimizerConfig::Adamax(Adamax { learning_rate, beta_1, beta_2, epsilon }),
            }
        }
        "Adam" | "AdamW" => {
            o.only("amsgrad", false)?;
            let (beta_1, beta_2, epsilon) = (o.number("beta_1"), o.number("beta_2"), o.number("epsilon"));
            match class {
                "Adam" => OptimizerConfig::Adam(Adam { learning_rate, beta_1, beta_2, epsilon }),
                _ => {
                    let weight_decay = o.number("weight_decay");
                    OptimizerConfig::AdamW(AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay })
                }
            }
        }
        other => return Err(format!("optimizer {other}")),
    };
    o.end()?;
    Ok((config, clip))
}

fn joined(case: &Case, stem: char, step: usize) -> Vec<f64> {
    (0..2).flat_map(|index| case.array(&format!("{stem}{index}.{step}"))).collect()
}

/// Runs a case.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let (config, clip) = translate(case)?;
    let mut weights = joined(case, 'w', 0);
    if let Some(clip) = clip {
        // Gradients pass through a model, whose weights, two tables of one row, are its output: the mean of n squares of w - t has the
        // gradient 2 (w - t) / n, which is g where t is w - n g / 2.
        let n = weights.len() as f64;
        let mut graph = Graph::new(device.clone(), 1);
        let index = graph.input("index", &[1]).map_err(text)?;
        let tables = [6, 4].map(|width| Embedding::new(1, width));
        let a = graph.add(tables[0].clone(), &[&index]).map_err(text)?;
        let b = graph.add(tables[1].clone(), &[&index]).map_err(text)?;
        let y = graph.add(Concatenate::new(), &[&a, &b]).map_err(text)?;
        let mut model = graph.model(&[&y]).map_err(text)?;
        let loss = Loss::MeanSquaredError;
        match config {
            OptimizerConfig::Adam(adam) => {
                model.compile(adam, loss).map_err(text)?;
            }
            OptimizerConfig::Sgd(sgd) if sgd.momentum == 0.0 => {
                model.compile(sgd, loss).map_err(text)?;
            }
            other => return Err(format!("a limit for gradients of {other:?}")),
        }
        model.set_flat_weights(&weights).map_err(text)?;
        for step in 1..=3 {
            let gradient = joined(case, 'g', step);
            let w: Vec<f64> = model.flat_weights().map_err(text)?;
            let target: Vec<f64> = w.iter().zip(&gradient).map(|(w, g)| w - n * g / 2.0).collect();
            let target = ArrayD::from_shape_vec(vec![1, 1, target.len()], target).map_err(|e| e.to_string())?;
            let options = FitOptions { batch_size: 1, clip: Some(clip), ..FitOptions::default() };
            model.fit(Array2::<f64>::zeros((1, 1)).view(), target.view(), options).map_err(text)?;
            weights = model.flat_weights().map_err(text)?;
            // Rounding of the subtraction, as a part of the weight; and Keras's betas, which differ in the sixth digit of a step.
            let constants = match config {
                OptimizerConfig::Adam(Adam { learning_rate, .. }) => 7e-6 * learning_rate * step as f64,
                _ => 0.0,
            };
            compare(case, step, &weights, 4.0 * f64::EPSILON * 1e3 + constants)?;
        }
        return Ok(());
    }
    let mut weights = device.tensor("weights", &weights).map_err(text)?;
    let mut states = Vec::new();
    for step in 1..=3 {
        let gradient = joined(case, 'g', step);
        let optimizer = at_step(config, step).build().map_err(text)?;
        for index in states.len()..optimizer.states() {
            let initial = vec![optimizer.initial(index); weights.len()];
            states.push(device.tensor("state", &initial).map_err(text)?);
        }
        let gradient = device.tensor("gradient", &gradient).map_err(text)?;
        optimizer.update(device, step as u64, weights.view_mut(), gradient.view(), &mut states).map_err(text)?;
        // Keras has Nadam's decay and product, and powers of Adamax's beta, in single precision.
        let constants = match config {
            OptimizerConfig::Nadam(_) | OptimizerConfig::Adamax(_) => 1e-6 * optimizer.learning_rate() * step as f64,
            _ => 0.0,
        };
        compare(case, step, &host(weights.view()), constants)?;
    }
    Ok(())
}

/// The rule with the constants that Keras in truth computes a step with.
fn at_step(config: OptimizerConfig, step: usize) -> OptimizerConfig {
    match config {
        OptimizerConfig::Sgd(rule) => OptimizerConfig::Sgd(Sgd { momentum: single(rule.momentum), ..rule }),
        OptimizerConfig::Adagrad(rule) => {
            let initial_accumulator_value = single(rule.initial_accumulator_value);
            OptimizerConfig::Adagrad(Adagrad { initial_accumulator_value, ..rule })
        }
        OptimizerConfig::Adam(rule) => {
            let learning_rate = rule.learning_rate * adam_factor(rule.beta_1, rule.beta_2, step as i32);
            OptimizerConfig::Adam(Adam { learning_rate, ..rule })
        }
        OptimizerConfig::AdamW(rule) => {
            let factor = adam_factor(rule.beta_1, rule.beta_2, step as i32);
            let (learning_rate, weight_decay) = (rule.learning_rate * factor, single(rule.weight_decay) / factor);
            OptimizerConfig::AdamW(AdamW { learning_rate, weight_decay, ..rule })
        }
        other => other,
    }
}

/// A step is some ten operations on numbers of one element, each off by at most ε: 30 ε after three, of the largest number among weights
/// and gradients; and `more` of that. (A gradient that has passed through a model is off by 4 ε, which a step multiplies by no more than
/// its rate over the smallest square root it divides by, at least a thousandth of the gradient.)
fn compare(case: &Case, step: usize, got: &[f64], more: f64) -> Result<(), String> {
    let expected = joined(case, 'w', step);
    let size = (1..=3).flat_map(|step| joined(case, 'g', step)).chain(expected.iter().copied());
    let size = size.fold(1.0f64, |m, v| v.abs().max(m));
    let allowed = size * (30.0 * f64::EPSILON + more);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        // Not-a-number is a difference too.
        let off = (got - expected).abs();
        if off > allowed || off.is_nan() {
            return Err(format!("step {step}, element {i}: {got}, Keras has {expected}; allowed {allowed:.1e}"));
        }
    }
    Ok(())
}
