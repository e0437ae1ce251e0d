//! What callbacks do where the validation loss takes given values, one an epoch.

use std::ops::ControlFlow;

use fused_rnn::backend::{Tensor, TensorMut, TensorRef};
use fused_rnn::model::{Callback, EarlyStopping, EpochEnd, FitOptions, ReduceLearningRate, Sequential, Training};
use fused_rnn::nn::{Dense, Loss};
use fused_rnn::optim::{Optimizer, OptimizerConfig, Sgd};
use fused_rnn::{Device, Result as Outcome};
use ndarray::Array2;

use super::case::{Case, Options};

/// Gives the only weight, at step n, the root of value n, so that the squared error of a zero is that value.
struct Script {
    values: Vec<f64>,
    learning_rate: f64,
}

impl Optimizer for Script {
    fn states(&self) -> usize {
        0
    }

    fn learning_rate(&self) -> f64 {
        self.learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) -> Outcome<()> {
        self.learning_rate = learning_rate;
        Ok(())
    }

    fn config(&self) -> OptimizerConfig {
        OptimizerConfig::Sgd(Sgd { learning_rate: self.learning_rate, momentum: 0.0, nesterov: false })
    }

    fn validate(&self) -> Outcome<()> {
        Ok(())
    }

    fn update(
        &self,
        device: &Device,
        step: u64,
        weights: TensorMut<'_>,
        _: TensorRef<'_>,
        _: &mut [Tensor],
    ) -> Outcome<()> {
        device.fill(weights, self.values[step as usize - 1].sqrt())
    }
}

/// Writes the learning rate down after each epoch.
struct Rates(Vec<f64>);

impl Callback for Rates {
    fn on_epoch_end(&mut self, _: &EpochEnd, training: &mut dyn Training) -> Outcome<ControlFlow<()>> {
        self.0.push(training.learning_rate());
        Ok(ControlFlow::Continue(()))
    }
}

/// Runs a case.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let class = case.json["class"].as_str().expect("a class");
    let mut o = Options::new(class, &case.json["config"]);
    if o.optional("monitor").is_some_and(|v| v != "val_loss") {
        return Err(format!("{class} that watches another figure than the loss"));
    }
    let number =
        |o: &mut Options, key: &str, default: f64| o.optional(key).map_or(default, |v| v.as_f64().expect("a number"));
    let (mut early_stopping, mut reduce) = (None, None);
    match class {
        // With Keras's defaults.
        "EarlyStopping" => {
            let (patience, min_delta) = (number(&mut o, "patience", 0.0) as usize, number(&mut o, "min_delta", 0.0));
            let restore_best_weights = o.optional("restore_best_weights").is_some_and(|v| v == true);
            early_stopping = Some(EarlyStopping { patience, min_delta, restore_best_weights });
        }
        "ReduceLROnPlateau" => {
            let (factor, patience) = (number(&mut o, "factor", 0.1), number(&mut o, "patience", 10.0) as usize);
            let mut callback = ReduceLearningRate::new(factor, patience).map_err(text)?;
            callback.min_delta = number(&mut o, "min_delta", 1e-4);
            (callback.cooldown, callback.min_rate) =
                (number(&mut o, "cooldown", 0.0) as usize, number(&mut o, "min_lr", 0.0));
            reduce = Some(callback);
        }
        other => return Err(format!("callback {other}")),
    }
    o.end()?;

    let values: Vec<f64> = case.array("values").into_iter().collect();
    let mut model = Sequential::new(device.clone(), &[1], 1).map_err(text)?;
    model.add(Dense::new(1).use_bias(false)).map_err(text)?;
    model.compile(Script { values: values.clone(), learning_rate: 1.0 }, Loss::MeanSquaredError).map_err(text)?;
    let (x, y) = (Array2::<f64>::ones((1, 1)), Array2::<f64>::zeros((1, 1)));
    let mut rates = Rates(Vec::new());
    let mut callbacks: Vec<&mut dyn Callback> = Vec::new();
    callbacks.extend(reduce.as_mut().map(|reduce| reduce as &mut dyn Callback));
    callbacks.push(&mut rates);
    let options = FitOptions {
        epochs: values.len(),
        batch_size: 1,
        validation_data: Some((vec![(&x).into()], vec![(&y).into()])),
        early_stopping,
        callbacks,
        ..FitOptions::default()
    };
    let history = model.fit(x.view(), y.view(), options).map_err(text)?;

    let epochs = case.json["epochs"].as_u64().expect("a number") as usize;
    if history.val_loss.len() != epochs {
        return Err(format!("{} epochs, Keras has {epochs}", history.val_loss.len()));
    }
    for (epoch, (got, value)) in history.val_loss.iter().zip(&values).enumerate() {
        // The script has done what it should: a root, squared.
        assert!((got - value).abs() <= 4.0 * f64::EPSILON * value, "epoch {epoch}: {got}, not {value}");
    }
    let kept = case.json["weights_of_epoch"].as_u64().expect("a number") as usize;
    let (got, expected) = (model.flat_weights::<f64>().map_err(text)?[0], values[kept].sqrt());
    if got != expected {
        return Err(format!("weight {got}, Keras has that of epoch {kept}, {expected}"));
    }
    for (epoch, (got, expected)) in rates.0.iter().zip(case.array("learning_rate")).enumerate() {
        // Each reduction rounds once.
        if (got - expected).abs() > values.len() as f64 * f64::EPSILON * expected {
            return Err(format!("learning rate {got} after epoch {epoch}, Keras has {expected}"));
        }
    }
    Ok(())
}
