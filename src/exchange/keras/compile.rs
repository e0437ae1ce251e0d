//! How a model is trained, in Keras's words: optimizer, learning rates, losses and metrics, which a `.keras` file keeps as `compile_config`.

use serde_json::{Map, Value, json};

use super::names::snake_case;
use super::options::{object, short};
use super::training::decimal;
use crate::loss::LossFunction;
use crate::metrics::Metric;
use crate::model::Model;
use crate::nn::Loss;
use crate::optim::*;

/// Options of Keras's optimizers that a model here does not keep.
const OF_OPTIMIZERS: &[&str] = &[
    "clipnorm",
    "global_clipnorm",
    "clipvalue",
    "use_ema",
    "amsgrad",
    "gradient_accumulation_steps",
    "loss_scale_factor",
];

/// Compiles a model as its file says. What it does not keep is added to `left_out`, in words.
pub(super) fn apply(model: &mut Model, config: Option<&Value>, outputs: &[&str], left_out: &mut Vec<String>) {
    let Some(config) = config.filter(|config| config.is_object()) else { return };
    if let Some(value) = config.get("optimizer").filter(|value| !value.is_null()) {
        set_optimizer(model, value, left_out);
    }
    if let Some(value) = config.get("loss").filter(|value| !value.is_null()) {
        let weights = config.get("loss_weights").filter(|value| !value.is_null());
        let found = losses(value, weights, outputs);
        if found.is_none_or(|losses| model.losses(&losses).is_err()) {
            left_out.push(format!("loss {}", short(value)));
        }
    }
    let metrics_of = |key: &str, left_out: &mut Vec<String>| -> Vec<Metric> {
        let Some(value) = config.get(key).filter(|value| !value.is_null()) else { return Vec::new() };
        metrics(value, outputs).unwrap_or_else(|| {
            left_out.push(format!("{key} {}", short(value)));
            Vec::new()
        })
    };
    let (plain, weighted) = (metrics_of("metrics", left_out), metrics_of("weighted_metrics", left_out));
    model.metrics(&plain).weighted_metrics(&weighted);
}

fn set_optimizer(model: &mut Model, value: &Value, left_out: &mut Vec<String>) {
    let refused = || format!("optimizer {}", short(value));
    let Some((class, config)) = object(value) else { return left_out.push(refused()) };
    let rate = config.get("learning_rate").unwrap_or(&Value::Null);
    let schedule = match rate {
        Value::Number(_) => None,
        rate => match schedule(rate) {
            Some(schedule) => Some(schedule),
            None => return left_out.push(refused()),
        },
    };
    let rate = match &schedule {
        // The schedule's own, or the smallest above zero: it is set before every step.
        Some(schedule) => schedule.rate(0).max(f64::from(f32::MIN_POSITIVE)),
        None => rate.as_f64().map_or(0.0, decimal),
    };
    let compiled = optimizer(class, config, rate).and_then(|optimizer| {
        let optimizer = optimizer.build().ok()?;
        let losses =
            model.training().losses.iter().map(|(loss, weight)| ((*loss).clone(), *weight)).collect::<Vec<_>>();
        model.compile(optimizer, Loss::default()).ok()?.losses(&losses).ok()?;
        schedule.is_none_or(|schedule| model.schedule(schedule).is_ok()).then_some(())
    });
    if compiled.is_none() {
        return left_out.push(refused());
    }
    let used = |value: &&Value| !matches!(value, Value::Null | Value::Bool(false));
    for key in OF_OPTIMIZERS {
        if let Some(value) = config.get(*key).filter(used) {
            let hint = if key.contains("clip") { " (FitOptions::clip)" } else { "" };
            left_out.push(format!("{key} {} of optimizer {class}{hint}", short(value)));
        }
    }
    if class != "AdamW" && config.get("weight_decay").filter(used).is_some() {
        left_out.push(format!("weight_decay of optimizer {class} (AdamW has it)"));
    }
}

fn optimizer(class: &str, config: &Map<String, Value>, learning_rate: f64) -> Option<OptimizerConfig> {
    let number = |key: &str, default: f64| match config.get(key) {
        None | Some(Value::Null) => Some(default),
        Some(value) => value.as_f64().map(decimal),
    };
    let flag = |key: &str| config.get(key).and_then(Value::as_bool).unwrap_or(false);
    let betas = || Some((number("beta_1", 0.9)?, number("beta_2", 0.999)?, number("epsilon", 1e-7)?));
    Some(match class {
        "SGD" => {
            let (momentum, nesterov) = (number("momentum", 0.0)?, flag("nesterov"));
            OptimizerConfig::Sgd(Sgd { learning_rate, momentum, nesterov })
        }
        "RMSprop" => OptimizerConfig::RmsProp(RmsProp {
            learning_rate,
            rho: number("rho", 0.9)?,
            momentum: number("momentum", 0.0)?,
            epsilon: number("epsilon", 1e-7)?,
            centered: flag("centered"),
        }),
        "Adam" => {
            let (beta_1, beta_2, epsilon) = betas()?;
            OptimizerConfig::Adam(Adam { learning_rate, beta_1, beta_2, epsilon })
        }
        "AdamW" => {
            let (beta_1, beta_2, epsilon) = betas()?;
            let weight_decay = number("weight_decay", 0.004)?;
            OptimizerConfig::AdamW(AdamW { learning_rate, beta_1, beta_2, epsilon, weight_decay })
        }
        "Nadam" => {
            let (beta_1, beta_2, epsilon) = betas()?;
            OptimizerConfig::Nadam(Nadam { learning_rate, beta_1, beta_2, epsilon })
        }
        "Adamax" => {
            let (beta_1, beta_2, epsilon) = betas()?;
            OptimizerConfig::Adamax(Adamax { learning_rate, beta_1, beta_2, epsilon })
        }
        "Adagrad" => {
            let initial_accumulator_value = number("initial_accumulator_value", 0.1)?;
            OptimizerConfig::Adagrad(Adagrad {
                learning_rate,
                initial_accumulator_value,
                epsilon: number("epsilon", 1e-7)?,
            })
        }
        "Adadelta" => {
            let (rho, epsilon) = (number("rho", 0.95)?, number("epsilon", 1e-7)?);
            OptimizerConfig::Adadelta(Adadelta { learning_rate, rho, epsilon })
        }
        _ => return None,
    })
}

/// A schedule: here as there, but for its name, and for what the file leaves away.
fn schedule(value: &Value) -> Option<Schedule> {
    let (class, config) = object(value)?;
    let mut config = config.clone();
    config.remove("name");
    if class == "CosineDecay" && config.get("warmup_steps").is_some_and(Value::is_null) {
        config.remove("warmup_steps");
    }
    config.insert("class".to_owned(), Value::from(class));
    let schedule: Schedule = serde_json::from_value(Value::Object(config)).ok()?;
    schedule.validate().ok()?;
    Some(schedule)
}

/// The loss of each output, and what it counts.
fn losses(value: &Value, weights: Option<&Value>, outputs: &[&str]) -> Option<Vec<(Loss, f64)>> {
    let each = |value: &Value, of: &dyn Fn(&Value) -> Option<Value>| -> Option<Vec<Value>> {
        match value {
            Value::Array(list) if list.len() == outputs.len() => list.iter().map(of).collect(),
            Value::Object(map) if object(value).is_none() => outputs.iter().map(|name| of(map.get(*name)?)).collect(),
            value => Some(vec![of(value)?; outputs.len()]),
        }
    };
    let same = |value: &Value| Some(value.clone());
    let losses = each(value, &same)?.iter().map(loss).collect::<Option<Vec<_>>>()?;
    let weights = match weights {
        None => vec![1.0; outputs.len()],
        Some(value) => each(value, &same)?.iter().map(Value::as_f64).collect::<Option<_>>()?,
    };
    Some(losses.into_iter().zip(weights).collect())
}

/// A loss by its name, or what Keras serializes of it.
fn loss(value: &Value) -> Option<Loss> {
    let empty = Map::new();
    let (name, config) = match value {
        Value::String(name) => (snake_case(name), &empty),
        value => match (value.get("config"), object(value)) {
            (Some(Value::String(name)), _) => (name.clone(), &empty),
            (_, Some((class, config))) => (snake_case(class), config),
            _ => return None,
        },
    };
    let is = |key: &str, usual: &[&str]| match config.get(key) {
        None | Some(Value::Null) => true,
        Some(value) => value.as_str().is_some_and(|value| usual.contains(&value)),
    };
    let last = config.get("axis").is_none_or(|axis| axis.as_i64() == Some(-1));
    if !is("reduction", &["sum_over_batch_size"]) || !last || config.get("ignore_class").is_some_and(|v| !v.is_null()) {
        return None;
    }
    let number = |key: &str, default: f64| match config.get(key) {
        None => Some(default),
        Some(value) => value.as_f64().map(decimal),
    };
    let from_logits = config.get("from_logits").and_then(Value::as_bool).unwrap_or(false);
    let smoothing = number("label_smoothing", 0.0)?;
    let loss = match name.as_str() {
        "mean_squared_error" | "mse" => Loss::MeanSquaredError,
        "mean_absolute_error" | "mae" => Loss::MeanAbsoluteError,
        "mean_absolute_percentage_error" | "mape" => Loss::MeanAbsolutePercentageError,
        "mean_squared_logarithmic_error" | "msle" => Loss::MeanSquaredLogarithmicError,
        "huber" | "huber_loss" => Loss::Huber { delta: number("delta", 1.0)? },
        "log_cosh" | "logcosh" => Loss::LogCosh,
        "poisson" => Loss::Poisson,
        "kl_divergence" | "kld" => Loss::KlDivergence,
        "cosine_similarity" => Loss::CosineSimilarity,
        "hinge" => Loss::Hinge,
        "squared_hinge" => Loss::SquaredHinge,
        "categorical_hinge" => Loss::CategoricalHinge,
        "binary_crossentropy" | "bce" => Loss::BinaryCrossentropy { from_logits },
        "categorical_crossentropy" => Loss::CategoricalCrossentropy { from_logits },
        "sparse_categorical_crossentropy" => Loss::SparseCategoricalCrossentropy { from_logits },
        "binary_focal_crossentropy" if smoothing == 0.0 => Loss::BinaryFocalCrossentropy {
            from_logits,
            alpha: match config.get("apply_class_balancing").and_then(Value::as_bool) {
                Some(true) => Some(number("alpha", 0.25)?),
                _ => None,
            },
            gamma: number("gamma", 2.0)?,
        },
        "categorical_focal_crossentropy" if smoothing == 0.0 => Loss::CategoricalFocalCrossentropy {
            from_logits,
            alpha: number("alpha", 0.25)?,
            gamma: number("gamma", 2.0)?,
        },
        _ => return None,
    };
    if smoothing == 0.0 { Some(loss) } else { loss.label_smoothing(smoothing).ok() }
}

/// Metrics that all outputs have.
fn metrics(value: &Value, outputs: &[&str]) -> Option<Vec<Metric>> {
    match value {
        Value::Array(list) => {
            let nested = list.iter().any(|value| value.is_array() || value.is_null());
            if !nested {
                return list.iter().map(metric).collect();
            }
            let lists = list.iter().map(|value| metrics(value, outputs)).collect::<Option<Vec<_>>>()?;
            let first = lists.first()?;
            (lists.len() == outputs.len() && lists.iter().all(|other| other == first)).then(|| first.clone())
        }
        Value::Object(map) if object(value).is_none() => {
            let lists = outputs.iter().map(|name| metrics(map.get(*name)?, outputs)).collect::<Option<Vec<_>>>()?;
            let first = lists.first()?;
            lists.iter().all(|other| other == first).then(|| first.clone())
        }
        value => Some(vec![metric(value)?]),
    }
}

fn metric(value: &Value) -> Option<Metric> {
    let (name, config) = match value {
        Value::String(name) => return name.parse().ok(),
        value => match (value.get("config"), object(value)) {
            (Some(Value::String(name)), _) => return name.parse().ok(),
            (_, Some((class, config))) => (snake_case(class), config),
            _ => return None,
        },
    };
    let usual: Metric = name.parse().ok()?;
    // Options besides these must be Keras's defaults, which are the same for all metrics.
    let mut others: Vec<&str> = vec!["name", "dtype", "reduction"];
    let metric = match usual {
        Metric::BinaryAccuracy { .. } => {
            others.push("threshold");
            Metric::BinaryAccuracy { threshold: decimal(config.get("threshold")?.as_f64()?) }
        }
        Metric::TopKCategoricalAccuracy { .. } | Metric::SparseTopKCategoricalAccuracy { .. } => {
            others.push("k");
            let k = usize::try_from(config.get("k")?.as_u64()?).ok()?;
            match usual {
                Metric::TopKCategoricalAccuracy { .. } => Metric::TopKCategoricalAccuracy { k },
                _ => Metric::SparseTopKCategoricalAccuracy { k },
            }
        }
        Metric::Auc { .. } => {
            let default = |key: &str, value: &str| config.get(key).is_some_and(|v| v.as_str() == Some(value));
            if !default("curve", "ROC")
                || !default("summation_method", "interpolation")
                || config.get("num_thresholds")?.as_u64()? != 200
            {
                return None;
            }
            others.extend(["curve", "summation_method", "num_thresholds"]);
            usual
        }
        Metric::CosineSimilarity | Metric::F1Score { .. } | Metric::R2Score => return None,
        other => other,
    };
    let unset = |value: &Value| {
        matches!(value, Value::Null | Value::Bool(false)) || value.as_f64() == Some(0.0) || value.as_i64() == Some(-1)
    };
    config.iter().all(|(key, value)| others.contains(&key.as_str()) || unset(value)).then_some(metric)
}

/// What Keras keeps of how a model is trained; nothing where it has no such loss, and where nobody has said how.
pub(super) fn config(model: &Model, outputs: &[String]) -> Value {
    let training = model.training();
    let usual = |(loss, weight): &(&LossFunction, f64)| {
        matches!(loss, LossFunction::BuiltIn(Loss::MeanSquaredError)) && *weight == 1.0
    };
    let as_made = training.losses.iter().all(usual) && training.schedule.is_none() && training.metrics.is_empty();
    if as_made && training.weighted_metrics.is_empty() && training.optimizer == Adam::default().config() {
        return Value::Null;
    }
    let losses: Option<Vec<Value>> = training.losses.iter().map(|(loss, _)| of_loss(loss)).collect();
    let Some(losses) = losses.filter(|losses| losses.len() == outputs.len()) else { return Value::Null };
    let weights: Vec<f64> = training.losses.iter().map(|(_, weight)| *weight).collect();
    let (class, mut config) = of_optimizer(training.optimizer);
    let rate = match training.schedule {
        None => None,
        Some(schedule) => of_schedule(schedule),
    };
    if let (Some(map), Some(rate)) = (config.as_object_mut(), rate) {
        map.insert("learning_rate".to_owned(), rate);
    }
    let names = |metrics: &[Metric]| -> Value {
        let names: Vec<&str> = metrics
            .iter()
            .filter(|m| m.name().parse::<Metric>().is_ok_and(|named| named == **m))
            .map(|m| m.name())
            .collect();
        match (names.is_empty(), outputs.len()) {
            (true, _) => Value::Null,
            (false, 1) => json!(names),
            (false, count) => json!(vec![names; count]),
        }
    };
    let one = |mut list: Vec<Value>| if list.len() == 1 { list.remove(0) } else { Value::Array(list) };
    json!({
        "optimizer": {"module": "keras.optimizers", "class_name": class, "config": config, "registered_name": null},
        "loss": one(losses),
        "loss_weights": if weights.iter().all(|weight| *weight == 1.0) { Value::Null } else { json!(weights) },
        "metrics": names(training.metrics),
        "weighted_metrics": names(training.weighted_metrics),
        "run_eagerly": false, "steps_per_execution": 1, "jit_compile": false,
    })
}

fn of_optimizer(config: OptimizerConfig) -> (&'static str, Value) {
    let class = match config {
        OptimizerConfig::Sgd(_) => "SGD",
        OptimizerConfig::RmsProp(_) => "RMSprop",
        OptimizerConfig::Adam(_) => "Adam",
        OptimizerConfig::AdamW(_) => "AdamW",
        OptimizerConfig::Adagrad(_) => "Adagrad",
        OptimizerConfig::Nadam(_) => "Nadam",
        OptimizerConfig::Adamax(_) => "Adamax",
        OptimizerConfig::Adadelta(_) => "Adadelta",
    };
    let mut value = serde_json::to_value(config).unwrap_or_default();
    if let Some(map) = value.as_object_mut() {
        map.remove("class");
    }
    (class, value)
}

fn of_schedule(schedule: &Schedule) -> Option<Value> {
    let mut value = serde_json::to_value(schedule).ok()?;
    let class = value.as_object_mut()?.remove("class")?;
    Some(json!({"module": "keras.optimizers.schedules", "class_name": class, "config": value, "registered_name": null}))
}

fn of_loss(loss: &LossFunction) -> Option<Value> {
    let LossFunction::BuiltIn(loss) = loss else { return None };
    let (class, config) = match *loss {
        Loss::MeanSquaredError => ("MeanSquaredError", json!({})),
        Loss::MeanAbsoluteError => ("MeanAbsoluteError", json!({})),
        Loss::MeanAbsolutePercentageError => ("MeanAbsolutePercentageError", json!({})),
        Loss::MeanSquaredLogarithmicError => ("MeanSquaredLogarithmicError", json!({})),
        Loss::Huber { delta } => ("Huber", json!({"delta": delta})),
        Loss::LogCosh => ("LogCosh", json!({})),
        Loss::Poisson => ("Poisson", json!({})),
        Loss::KlDivergence => ("KLDivergence", json!({})),
        Loss::CosineSimilarity => ("CosineSimilarity", json!({})),
        Loss::Hinge => ("Hinge", json!({})),
        Loss::SquaredHinge => ("SquaredHinge", json!({})),
        Loss::CategoricalHinge => ("CategoricalHinge", json!({})),
        Loss::BinaryCrossentropy { from_logits } => ("BinaryCrossentropy", json!({"from_logits": from_logits})),
        Loss::CategoricalCrossentropy { from_logits } => {
            ("CategoricalCrossentropy", json!({"from_logits": from_logits}))
        }
        Loss::SparseCategoricalCrossentropy { from_logits } => {
            ("SparseCategoricalCrossentropy", json!({"from_logits": from_logits}))
        }
        Loss::SmoothedBinaryCrossentropy { from_logits, label_smoothing } => {
            ("BinaryCrossentropy", json!({"from_logits": from_logits, "label_smoothing": label_smoothing}))
        }
        Loss::SmoothedCategoricalCrossentropy { from_logits, label_smoothing } => {
            ("CategoricalCrossentropy", json!({"from_logits": from_logits, "label_smoothing": label_smoothing}))
        }
        Loss::BinaryFocalCrossentropy { from_logits, alpha, gamma } => (
            "BinaryFocalCrossentropy",
            json!({"from_logits": from_logits, "apply_class_balancing": alpha.is_some(),
                   "alpha": alpha.unwrap_or(0.25), "gamma": gamma}),
        ),
        Loss::CategoricalFocalCrossentropy { from_logits, alpha, gamma } => {
            ("CategoricalFocalCrossentropy", json!({"from_logits": from_logits, "alpha": alpha, "gamma": gamma}))
        }
        Loss::Quantile { .. } => return None,
    };
    Some(json!({"module": "keras.losses", "class_name": class, "config": config, "registered_name": null}))
}
