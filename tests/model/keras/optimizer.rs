//! Three steps of an optimizer on given gradients.

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::model::{Clip, FitOptions, Graph};
use fused_rnn::nn::{Concatenate, Embedding, Loss};
use fused_rnn::optim::{Adam, OptimizerConfig, Sgd};
use ndarray::{Array2, ArrayD};

use super::case::{Case, Options};
use super::compare::{adam_factor, single};

/// Where it is computed.
type B = CpuBackend<f64>;

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
        "SGD" => OptimizerConfig::Sgd { learning_rate, momentum: o.number("momentum"), nesterov: o.flag("nesterov") },
        "RMSprop" => OptimizerConfig::RmsProp {
            learning_rate,
            rho: o.number("rho"),
            momentum: o.number("momentum"),
            epsilon: o.number("epsilon"),
            centered: o.flag("centered"),
        },
        "Adagrad" => OptimizerConfig::Adagrad {
            learning_rate,
            initial_accumulator_value: o.number("initial_accumulator_value"),
            epsilon: o.number("epsilon"),
        },
        "Adam" | "AdamW" => {
            o.only("amsgrad", false)?;
            let (beta_1, beta_2, epsilon) = (o.number("beta_1"), o.number("beta_2"), o.number("epsilon"));
            match class {
                "Adam" => OptimizerConfig::Adam { learning_rate, beta_1, beta_2, epsilon },
                _ => {
                    let weight_decay = o.number("weight_decay");
                    OptimizerConfig::AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay }
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
pub fn check(case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let (config, clip) = translate(case)?;
    let mut weights = joined(case, 'w', 0);
    if let Some(clip) = clip {
        // Gradients pass through a model, whose weights, two tables of one row, are its output: the mean of n squares of w - t has the
        // gradient 2 (w - t) / n, which is g where t is w - n g / 2.
        let n = weights.len() as f64;
        let backend = B::new();
        let mut graph = Graph::<B>::new();
        let index = graph.input("index", &[1]).map_err(text)?;
        let tables = [6, 4].map(|width| Embedding::new(1, width));
        let a = graph.add(tables[0].clone(), &[&index]).map_err(text)?;
        let b = graph.add(tables[1].clone(), &[&index]).map_err(text)?;
        let y = graph.add(Concatenate::new(), &[&a, &b]).map_err(text)?;
        let mut model = graph.model(backend, &[&y], 1).map_err(text)?;
        let loss = Loss::MeanSquaredError;
        match config {
            OptimizerConfig::Adam { learning_rate, beta_1, beta_2, epsilon } => {
                let adam = Adam::new(learning_rate).and_then(|adam| adam.with(beta_1, beta_2, epsilon));
                model.compile(adam.map_err(text)?, loss);
            }
            OptimizerConfig::Sgd { learning_rate, momentum: 0.0, .. } => {
                model.compile(Sgd::new(learning_rate).map_err(text)?, loss);
            }
            other => return Err(format!("a limit for gradients of {other:?}")),
        }
        model.set_flat_weights(&weights).map_err(text)?;
        for step in 1..=3 {
            let gradient = joined(case, 'g', step);
            let w = model.flat_weights().to_vec();
            let target: Vec<f64> = w.iter().zip(&gradient).map(|(w, g)| w - n * g / 2.0).collect();
            let target = ArrayD::from_shape_vec(vec![1, 1, target.len()], target).map_err(|e| e.to_string())?;
            let options = FitOptions { batch_size: 1, clip: Some(clip), ..FitOptions::default() };
            model.fit(Array2::zeros((1, 1)).view(), target.view(), options).map_err(text)?;
            weights = model.flat_weights().to_vec();
            // Rounding of the subtraction, as a part of the weight; and Keras's betas, which differ in the sixth digit of a step.
            let constants = match config {
                OptimizerConfig::Adam { learning_rate, .. } => 7e-6 * learning_rate * step as f64,
                _ => 0.0,
            };
            compare(case, step, &weights, 4.0 * f64::EPSILON * 1e3 + constants)?;
        }
        return Ok(());
    }
    let backend = B::new();
    let mut states: Vec<Vec<f64>> = Vec::new();
    for step in 1..=3 {
        let gradient = joined(case, 'g', step);
        let optimizer = at_step(config, step).build::<B>().map_err(text)?;
        for index in states.len()..optimizer.states() {
            states.push(vec![optimizer.initial(index); weights.len()]);
        }
        optimizer.update(&backend, step as u64, &mut weights, &gradient, &mut states).map_err(text)?;
        compare(case, step, &weights, 0.0)?;
    }
    Ok(())
}

/// The rule with the constants that Keras in truth computes a step with.
fn at_step(config: OptimizerConfig, step: usize) -> OptimizerConfig {
    match config {
        OptimizerConfig::Sgd { learning_rate, momentum, nesterov } => {
            OptimizerConfig::Sgd { learning_rate, momentum: single(momentum), nesterov }
        }
        OptimizerConfig::Adagrad { learning_rate, initial_accumulator_value, epsilon } => OptimizerConfig::Adagrad {
            learning_rate,
            initial_accumulator_value: single(initial_accumulator_value),
            epsilon,
        },
        OptimizerConfig::Adam { learning_rate, beta_1, beta_2, epsilon } => {
            let learning_rate = learning_rate * adam_factor(beta_1, beta_2, step as i32);
            OptimizerConfig::Adam { learning_rate, beta_1, beta_2, epsilon }
        }
        OptimizerConfig::AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay } => {
            let factor = adam_factor(beta_1, beta_2, step as i32);
            let (learning_rate, weight_decay) = (learning_rate * factor, single(weight_decay) / factor);
            OptimizerConfig::AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay }
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
