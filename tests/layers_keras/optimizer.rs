//! Three steps of an optimizer on given gradients.

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::model::{Clip, FitOptions, Graph};
use fused_rnn::nn::{Concatenate, Embedding, Loss};
use fused_rnn::optim::{Adam, Optimizer, RmsProp, Sgd};
use ndarray::{Array2, ArrayD};

use crate::case::{Case, Options};

type B = CpuBackend<f64>;

/// The optimizer that Keras describes, and how gradients are limited before it sees them.
fn translate(case: &Case) -> Result<(Box<dyn Optimizer<B>>, Option<Clip>), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let class = case.json["optimizer"]["class"].as_str().expect("a class");
    let mut o = Options::new(class, &case.json["optimizer"]["config"]);
    let rate = o.number("learning_rate");
    let clip = match (o.optional("clipvalue"), o.optional("global_clipnorm"), o.optional("clipnorm")) {
        (None, None, None) => None,
        (Some(value), None, None) => Some(Clip::Value(value.as_f64().expect("a number"))),
        (None, Some(norm), None) => Some(Clip::Norm(norm.as_f64().expect("a number"))),
        _ => return Err("clipnorm, a norm for each tensor".to_owned()),
    };
    let optimizer: Box<dyn Optimizer<B>> = match class {
        "SGD" => {
            let sgd = Sgd::new(rate).and_then(|sgd| sgd.momentum(o.number("momentum"), o.flag("nesterov")));
            Box::new(sgd.map_err(text)?)
        }
        "RMSprop" => {
            let (rho, momentum, epsilon) = (o.number("rho"), o.number("momentum"), o.number("epsilon"));
            let mut rule = RmsProp::new(rate).and_then(|r| r.with(rho, momentum, o.flag("centered"))).map_err(text)?;
            rule.epsilon = epsilon;
            Box::new(rule)
        }
        "Adam" => {
            let mut adam = Adam::new(rate).map_err(text)?;
            (adam.beta_1, adam.beta_2, adam.epsilon) = (o.number("beta_1"), o.number("beta_2"), o.number("epsilon"));
            o.only("amsgrad", false)?;
            Box::new(adam)
        }
        other => return Err(format!("optimizer {other}")),
    };
    for option in ["gradient_accumulation_steps", "loss_scale_factor"] {
        o.optional(option);
    }
    if let Some(decay) = o.optional("weight_decay") {
        return Err(format!("{class} with weight_decay {decay}"));
    }
    o.end()?;
    Ok((optimizer, clip))
}

fn joined(case: &Case, stem: char, step: usize) -> Vec<f64> {
    (0..2).flat_map(|index| case.array(&format!("{stem}{index}.{step}"))).collect()
}

/// Runs a case.
pub fn check(case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let (optimizer, clip) = translate(case)?;
    let mut weights = joined(case, 'w', 0);
    let mut rounding = 0.0;
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
        model.compile_boxed(optimizer, Loss::MeanSquaredError);
        model.set_flat_weights(&weights).map_err(text)?;
        for step in 1..=3 {
            let gradient = joined(case, 'g', step);
            let w = model.flat_weights().to_vec();
            let target: Vec<f64> = w.iter().zip(&gradient).map(|(w, g)| w - n * g / 2.0).collect();
            let target = ArrayD::from_shape_vec(vec![1, 1, target.len()], target).map_err(|e| e.to_string())?;
            let options = FitOptions { clip: Some(clip), ..FitOptions::default() };
            model.fit(Array2::zeros((1, 1)).view(), target.view(), options).map_err(text)?;
            // Of the subtraction, as a part of the weight.
            rounding = 4.0 * f64::EPSILON;
            weights = model.flat_weights().to_vec();
            compare(case, step, &weights, rounding)?;
        }
        return Ok(());
    }
    let backend = B::new();
    let mut states: Vec<Vec<f64>> =
        (0..optimizer.states()).map(|i| vec![optimizer.initial(i); weights.len()]).collect();
    for step in 1..=3 {
        let gradient = joined(case, 'g', step);
        optimizer.update(&backend, step as u64, &mut weights, &gradient, &mut states).map_err(text)?;
        compare(case, step, &weights, rounding)?;
    }
    Ok(())
}

/// A step is some ten operations on numbers of one element, each off by at most ε: 30 ε after three, of the largest number among weights
/// and gradients. Where the gradient has passed through a model it is off by `rounding` of that too, and a step multiplies that by
/// no more than its rate over the smallest square root it divides by, which is at least a thousandth of the gradient.
fn compare(case: &Case, step: usize, got: &[f64], rounding: f64) -> Result<(), String> {
    let expected = joined(case, 'w', step);
    let size = (1..=3).flat_map(|step| joined(case, 'g', step)).chain(expected.iter().copied());
    let size = size.fold(1.0f64, |m, v| v.abs().max(m));
    let allowed = size * (30.0 * f64::EPSILON + 1e3 * rounding);
    for (i, (got, expected)) in got.iter().zip(&expected).enumerate() {
        // Not-a-number is a difference too.
        if !((got - expected).abs() <= allowed) {
            return Err(format!("step {step}, element {i}: {got}, Keras has {expected}; allowed {allowed:.1e}"));
        }
    }
    Ok(())
}
