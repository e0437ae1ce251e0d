//! Models of random layers: built, compiled, trained, saved, loaded; each step with random options.

use std::path::Path;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::loss::{Ctc, LossFunction};
use fused_rnn::metrics::{Average, Curve, Metric};
use fused_rnn::model::{
    Checkpoint, Clip, CsvLog, EarlyStopping, FitOptions, Graph, GraphConfig, LossScale, Model, ReduceLearningRate,
    Sequential,
};
use fused_rnn::nn::Loss;
use fused_rnn::optim::*;
use fused_rnn::{DType, Device, Error};
use ndarray::{ArrayD, IxDyn};

use crate::arguments::{HUGE, fit, name, number, rate, size, values};
use crate::common::Rng;
use crate::layers::layer;
use crate::{Outcome, accepted, check_error, note_useful};

fn device(rng: &mut Rng) -> Device {
    let device = match rng.below(10) {
        0 => Device::reference(),
        1 => CpuBackend::<f32>::with_threads(1 + rng.below(3)).map(Device::from).unwrap_or(Device::cpu()),
        _ => Device::cpu(),
    };
    if rng.chance(0.2) { device.with_dtype(DType::F64).expect("all of them compute in f64") } else { device }
}

/// Shape of an input, `None` first for any length.
fn input_shape(rng: &mut Rng) -> Vec<Option<usize>> {
    let mut shape: Vec<Option<usize>> = match rng.below(12) {
        0 => vec![],
        1..4 => vec![Some(size(rng))],
        4..11 => vec![Some(size(rng).saturating_add(1)), Some(size(rng))],
        _ => vec![Some(size(rng)), Some(size(rng)), Some(size(rng))],
    };
    if shape.len() > 1 && rng.chance(0.15) {
        shape[0] = None;
    }
    shape
}

/// What a model is, to see whether a refused layer has left something.
fn state(model: &Model) -> Result<(GraphConfig, usize, usize, usize), String> {
    let config = model.config().map_err(|e| format!("no configuration: {e}"))?;
    Ok((config, model.count_params(), model.count_non_trainable(), model.weights().count()))
}

fn sequential(rng: &mut Rng, device: &Device) -> Result<Option<Model>, String> {
    let Some(mut model) = accepted(Sequential::new(device.clone(), &input_shape(rng), rng.bits()))? else {
        return Ok(None);
    };
    for _ in 0..1 + rng.below(4) {
        let layer = layer(rng);
        let before = state(&model)?;
        let refused = match model.add(layer.clone()) {
            Ok(_) => false,
            Err(error) => {
                check_error(&error)?;
                true
            }
        };
        let after = state(&model)?;
        let counts = (before.1, before.2, before.3) == (after.1, after.2, after.3);
        if refused && !(counts && same_config(&before.0, &after.0)) {
            return Err(format!("a refused layer has left something: {layer:?}"));
        }
    }
    Ok(Some(model.into_model()))
}

/// NaN is not itself.
fn same_config(one: &GraphConfig, other: &GraphConfig) -> bool {
    format!("{one:?}") == format!("{other:?}")
}

fn graph(rng: &mut Rng, device: &Device) -> Result<Option<Model>, String> {
    let mut graph = Graph::new(device.clone(), rng.bits());
    let (mut tensors, mut layers) = (Vec::new(), Vec::new());
    for _ in 0..1 + rng.below(2) {
        tensors.extend(accepted(graph.input(&name(rng), &input_shape(rng)))?);
    }
    for _ in 0..1 + rng.below(6) {
        let added = match rng.chance(0.4) {
            true => graph.named_layer(&name(rng), layer(rng)),
            false => graph.layer(layer(rng)),
        };
        layers.extend(accepted(added)?);
        if tensors.is_empty() || layers.is_empty() {
            continue;
        }
        // Most often the newest layer on the newest tensor.
        let newest = rng.chance(0.8);
        let layer = if newest { layers[layers.len() - 1] } else { layers[rng.below(layers.len())] };
        let count = if rng.chance(0.7) { 1 } else { rng.below(4) };
        let inputs: Vec<_> = (0..count)
            .map(|_| if rng.chance(0.6) { &tensors[tensors.len() - 1] } else { &tensors[rng.below(tensors.len())] })
            .collect();
        let made = accepted(graph.call_all(layer, &inputs))?;
        tensors.extend(made.into_iter().flatten());
    }
    if tensors.is_empty() {
        return Ok(None);
    }
    // What leads nowhere is refused; that is so often enough that the graph is cut down to what does not.
    let outputs: Vec<_> = match rng.chance(0.3) {
        true => (0..rng.below(3)).map(|_| &tensors[rng.below(tensors.len())]).collect(),
        false => vec![&tensors[tensors.len() - 1]],
    };
    let config = graph.config(&outputs).map_err(|e| format!("no configuration: {e}"))?;
    if let Some(model) = accepted(graph.model(&outputs))? {
        return Ok(Some(model));
    }
    accepted(Model::from_config(device.clone(), &pruned(config), rng.bits()))
}

/// What of it leads to its outputs.
fn pruned(config: GraphConfig) -> GraphConfig {
    use fused_rnn::model::Source;
    let mut used = vec![false; config.calls.len()];
    let mut inputs = vec![false; config.inputs.len()];
    let mut open = config.outputs.clone();
    while let Some(source) = open.pop() {
        match source {
            Source::Input(index) => inputs[index] = true,
            Source::Call(index, _) if !used[index] => {
                used[index] = true;
                open.extend(&config.calls[index].inputs);
            }
            Source::Call(..) => {}
        }
    }
    let number = |flags: &[bool]| -> Vec<usize> {
        let mut next = 0;
        let count = |flag: &bool| {
            next += usize::from(*flag);
            next.max(1) - 1
        };
        flags.iter().map(count).collect()
    };
    let mut layers = vec![false; config.layers.len()];
    config.calls.iter().zip(&used).filter(|(_, used)| **used).for_each(|(call, _)| layers[call.layer] = true);
    let (of_call, of_input, of_layer) = (number(&used), number(&inputs), number(&layers));
    let source = |source: &Source| match *source {
        Source::Input(index) => Source::Input(of_input[index]),
        Source::Call(index, output) => Source::Call(of_call[index], output),
    };
    let kept = config.inputs.into_iter().zip(&inputs).filter(|(_, used)| **used).map(|(input, _)| input);
    let mut pruned = GraphConfig { inputs: kept.collect(), ..GraphConfig::default() };
    pruned.layers = config.layers.into_iter().zip(&layers).filter(|(_, used)| **used).map(|(layer, _)| layer).collect();
    for (mut call, _) in config.calls.into_iter().zip(&used).filter(|(_, used)| **used) {
        call.layer = of_layer[call.layer];
        call.inputs = call.inputs.iter().map(source).collect();
        pruned.calls.push(call);
    }
    pruned.outputs = config.outputs.iter().map(source).collect();
    pruned
}

fn loss(rng: &mut Rng) -> LossFunction {
    let (from_logits, label_smoothing) = (rng.chance(0.5), rate(rng));
    let (alpha, gamma) = (rate(rng), fit(rng, &[2.0, 0.0]));
    match rng.below(30) {
        0 => Loss::Huber { delta: fit(rng, &[1.0]) }.into(),
        1 => Loss::BinaryCrossentropy { from_logits }.into(),
        2 => Loss::CategoricalCrossentropy { from_logits }.into(),
        3 | 4 => Loss::SparseCategoricalCrossentropy { from_logits }.into(),
        5 => Loss::MeanAbsolutePercentageError.into(),
        6 => Loss::MeanSquaredLogarithmicError.into(),
        7 => Loss::LogCosh.into(),
        8 => Loss::Poisson.into(),
        9 => Loss::KlDivergence.into(),
        10 => Loss::CosineSimilarity.into(),
        11 => Loss::Hinge.into(),
        12 => Loss::SquaredHinge.into(),
        13 => Loss::CategoricalHinge.into(),
        14 => Loss::quantiles(&(0..rng.below(4)).map(|_| rate(rng)).collect::<Vec<_>>())
            .map_or(Loss::MeanSquaredError.into(), Into::into),
        15 => Loss::SmoothedBinaryCrossentropy { from_logits, label_smoothing }.into(),
        16 => Loss::SmoothedCategoricalCrossentropy { from_logits, label_smoothing }.into(),
        17 => Loss::BinaryFocalCrossentropy { from_logits, alpha: rng.chance(0.5).then_some(alpha), gamma }.into(),
        18 => Loss::CategoricalFocalCrossentropy { from_logits, alpha, gamma }.into(),
        19 => Ctc { blank: size(rng).saturating_sub(1), labels: size(rng) }.into(),
        20 => LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t))),
        21 => Loss::MeanAbsoluteError.into(),
        _ => Loss::MeanSquaredError.into(),
    }
}

fn optimizer(rng: &mut Rng) -> fused_rnn::Result<Box<dyn Optimizer>> {
    let rate_of = fit(rng, &[1e-3, 0.1]);
    let (a, b, c) = (fit(rng, &[0.9]), fit(rng, &[0.99]), fit(rng, &[1e-7]));
    Ok(match rng.below(9) {
        0 => Box::new(Sgd::new(rate_of)?.momentum(a, rng.chance(0.5))?),
        1 => Box::new(RmsProp::new(rate_of)?.with(b, a, rng.chance(0.5))?.epsilon(c)?),
        2 => Box::new(AdamW::new(rate_of)?.weight_decay(c)?.with(a, b, c)?),
        3 => Box::new(Adagrad::new(rate_of)?.with(a, c)?),
        4 => Box::new(Nadam::new(rate_of)?.with(a, b, c)?),
        5 => Box::new(Adamax::new(rate_of)?.with(a, b, c)?),
        6 => Box::new(Adadelta::new(rate_of)?.with(b, c)?),
        7 => Box::new(Adam::new(rate_of)?.with(a, b, c)?),
        _ => Box::new(Adam::default()),
    })
}

fn schedule(rng: &mut Rng) -> Schedule {
    let (initial_learning_rate, decay_rate) = (fit(rng, &[0.01]), fit(rng, &[0.5]));
    let decay_steps = size(rng) as u64;
    match rng.below(5) {
        0 => Schedule::ExponentialDecay { initial_learning_rate, decay_steps, decay_rate, staircase: rng.chance(0.5) },
        1 => Schedule::InverseTimeDecay { initial_learning_rate, decay_steps, decay_rate, staircase: rng.chance(0.5) },
        2 => Schedule::PolynomialDecay {
            initial_learning_rate,
            decay_steps,
            end_learning_rate: decay_rate,
            power: fit(rng, &[1.0]),
            cycle: rng.chance(0.5),
        },
        3 => Schedule::CosineDecayRestarts {
            initial_learning_rate,
            first_decay_steps: decay_steps,
            t_mul: fit(rng, &[2.0]),
            m_mul: decay_rate,
            alpha: rate(rng),
        },
        _ => Schedule::PiecewiseConstantDecay {
            boundaries: (0..rng.below(3)).map(|_| size(rng) as u64).collect(),
            values: (0..rng.below(4)).map(|_| fit(rng, &[0.01])).collect(),
        },
    }
}

fn metric(rng: &mut Rng) -> Metric {
    let threshold = fit(rng, &[0.5, 0.0]);
    match rng.below(12) {
        0 => Metric::Accuracy,
        1 => Metric::BinaryAccuracy { threshold },
        2 => Metric::TopKCategoricalAccuracy { k: size(rng) },
        3 => Metric::SparseTopKCategoricalAccuracy { k: size(rng) },
        4 => Metric::Precision { threshold },
        5 => Metric::Recall { threshold },
        6 => Metric::F1Score { average: Average::Macro, threshold: rng.chance(0.5).then_some(threshold) },
        7 => Metric::Auc {
            curve: rng.pick(&[Curve::Roc, Curve::PrecisionRecall]),
            thresholds: size(rng).saturating_mul(5),
            from_logits: rng.chance(0.5),
        },
        8 => Metric::R2Score,
        9 => Metric::CosineSimilarity,
        10 => Metric::Loss(loss(rng).built_in().unwrap_or(Loss::LogCosh)),
        _ => Metric::MeanAbsoluteError,
    }
}

/// Inputs and targets, which fit but for one time in eight.
struct Arrays {
    x: Vec<ArrayD<f32>>,
    y: Vec<ArrayD<f32>>,
}

fn array(rng: &mut Rng, samples: usize, shape: &[usize]) -> Option<ArrayD<f32>> {
    let mut axes: Vec<usize> = std::iter::once(samples).chain(shape.iter().copied()).collect();
    if rng.chance(0.03) {
        let at = rng.below(axes.len());
        axes[at] = rng.below(4);
    }
    if rng.chance(0.02) {
        axes.pop();
    }
    let len = axes.iter().try_fold(1usize, |product, axis| product.checked_mul(*axis)).filter(|len| *len < 1 << 16)?;
    let values = values(rng, len).into_iter().map(|value| value as f32).collect();
    ArrayD::from_shape_vec(IxDyn(&axes), values).ok()
}

fn inputs(rng: &mut Rng, model: &Model, samples: usize) -> Option<Vec<ArrayD<f32>>> {
    let axes: Vec<Vec<Option<usize>>> = model.input_axes().map(<[_]>::to_vec).collect();
    let steps = 1 + rng.below(5);
    let of = |axes: &Vec<Option<usize>>| axes.iter().map(|axis| axis.unwrap_or(steps)).collect::<Vec<_>>();
    axes.iter().map(|axes| array(rng, samples, &of(axes))).collect()
}

fn arrays(rng: &mut Rng, model: &mut Model) -> Option<Arrays> {
    let samples = 1 + rng.below(6);
    let x = inputs(rng, model, samples)?;
    // The shapes of outputs for inputs of any length are those of the last call.
    let _ = model.predict_all(x.iter().map(|x| x.view()).collect::<Vec<_>>());
    let shapes: Vec<Vec<usize>> = model.output_shapes().map(<[_]>::to_vec).collect();
    let sparse = rng.chance(0.3);
    let of = |shape: &Vec<usize>| match shape.split_last() {
        Some((_, rest)) if sparse => rest.to_vec(),
        _ => shape.clone(),
    };
    let y = shapes.iter().map(|shape| array(rng, samples, &of(shape))).collect::<Option<_>>()?;
    Some(Arrays { x, y })
}

fn compile(rng: &mut Rng, model: &mut Model) -> Outcome {
    let Some(rule) = accepted(optimizer(rng))? else { return Ok(()) };
    accepted(model.compile(rule, loss(rng)).map(drop))?;
    if rng.chance(0.1) {
        let losses: Vec<_> = (0..1 + rng.below(2)).map(|_| (loss(rng), fit(rng, &[1.0, 0.5]))).collect();
        accepted(model.losses(&losses).map(drop))?;
    }
    if rng.chance(0.2) {
        accepted(model.schedule(schedule(rng)).map(drop))?;
    }
    if rng.chance(0.1) {
        let scale = accepted(LossScale::new(fit(rng, &[1024.0]), size(rng) as u32))?;
        model.set_loss_scale(scale);
    }
    if rng.chance(0.2) {
        model.metrics(&(0..rng.below(3)).map(|_| metric(rng)).collect::<Vec<_>>());
    }
    if rng.chance(0.1) {
        model.weighted_metrics(&[metric(rng)]);
    }
    if rng.chance(0.1) {
        let names: Vec<String> =
            model.config().map_err(|e| e.to_string())?.layers.into_iter().map(|layer| layer.name).collect();
        let layer = if names.is_empty() || rng.chance(0.2) { name(rng) } else { names[rng.below(names.len())].clone() };
        accepted(model.set_trainable(&layer, rng.chance(0.3)).map(drop))?;
    }
    if rng.chance(0.1) {
        accepted(model.inference_batch_size(size(rng)).map(drop))?;
    }
    Ok(())
}

fn train(rng: &mut Rng, model: &mut Model, folder: &Path) -> Outcome {
    let Some(Arrays { x, y }) = arrays(rng, model) else { return Ok(()) };
    let (x, y): (Vec<_>, Vec<_>) = (x.iter().map(|x| x.view()).collect(), y.iter().map(|y| y.view()).collect());
    if rng.chance(0.15) {
        accepted(model.train_on_batch(x.clone(), y.clone()))?;
    }
    let samples = x[0].shape().first().copied().unwrap_or(0);
    let weights = array(rng, samples, &[]);
    let mut plateau = ReduceLearningRate::default();
    (plateau.factor, plateau.patience, plateau.min_delta) = (fit(rng, &[0.1]), rng.below(2), fit(rng, &[1e-4]));
    let mut log = CsvLog::new(folder.join("log.csv"));
    let mut checkpoint = Checkpoint::new(folder.join("checkpoint.safetensors")).best_only(rng.chance(0.5));
    let mut options = FitOptions {
        epochs: rng.below(4),
        batch_size: if rng.chance(0.9) { 1 + rng.below(4) } else { rng.pick(&[0, HUGE[0], usize::MAX]) },
        shuffle: rng.chance(0.5),
        clip: if rng.chance(0.2) {
            Some(rng.pick(&[Clip::Norm(1.0), Clip::Value(0.5), Clip::Norm(f64::NAN), Clip::Value(-1.0)]))
        } else {
            None
        },
        ..FitOptions::default()
    };
    if rng.chance(0.2) {
        options.validation_split = rate(rng);
    }
    if rng.chance(0.1) {
        options.validation_data =
            Some((x.iter().map(|x| x.clone().into()).collect(), y.iter().map(|y| y.clone().into()).collect()));
    }
    if let (true, Some(weights)) = (rng.chance(0.15), &weights) {
        options.sample_weight = vec![weights.into()];
    }
    if rng.chance(0.1) {
        options.class_weight = (0..rng.below(3)).map(|_| (size(rng), number(rng))).collect();
    }
    if rng.chance(0.1) {
        options.monitor = Some(rng.pick(&["loss", "val_loss", "accuracy", "", "\u{1b}[31m"]));
    }
    if rng.chance(0.2) {
        options.early_stopping = Some(EarlyStopping {
            patience: rng.below(2),
            min_delta: fit(rng, &[0.0]),
            restore_best_weights: rng.chance(0.5),
        });
    }
    if rng.chance(0.1) {
        options.loss_every = size(rng);
    }
    if rng.chance(0.1) {
        options.callbacks.push(&mut plateau);
    }
    if rng.chance(0.1) {
        options.callbacks.push(&mut log);
    }
    let checked = rng.chance(0.1);
    if checked {
        options.callbacks.push(&mut checkpoint);
    }
    let _ = std::fs::remove_file(folder.join("checkpoint.safetensors"));
    let fitted = model.fit(x.clone(), y.clone(), options);
    let trained = fitted.is_ok();
    if let Some(history) = accepted(fitted)? {
        let finite = history.loss.iter().all(|loss| loss.is_finite());
        if !finite {
            return Err(format!("fit has ended well with losses {:?}", history.loss));
        }
    }
    if trained && !weights_are_finite(model) {
        return Err("fit has ended well with weights that are not finite".to_owned());
    }
    if let (true, true, Some(())) = (checked, folder.join("checkpoint.safetensors").exists(), Some(())) {
        let own = [LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)))];
        Model::load_with_losses(model.device().clone(), folder.join("checkpoint.safetensors"), &own)
            .map_err(|e| format!("a checkpoint is not read: {e}"))?;
    }
    accepted(model.evaluate(x.clone(), y.clone()))?;
    if rng.chance(0.2) {
        accepted(model.evaluate_metrics(x.clone(), y.clone()))?;
    }
    if rng.chance(0.1) {
        accepted(model.loss_gradient(x.clone(), y.clone()))?;
        accepted(model.input_gradients(x, y))?;
    }
    Ok(())
}

fn weights_are_finite(model: &Model) -> bool {
    model.weights().all(|(_, _, values)| match values.dtype() {
        DType::F64 => values.host::<f64>().is_ok_and(|values| values.iter().all(|v| v.is_finite())),
        _ => values.host::<f32>().is_ok_and(|values| values.iter().all(|v| v.is_finite())),
    })
}

/// The bits of what a model says.
fn predicted(model: &mut Model, x: &[ArrayD<f32>]) -> Result<Vec<Vec<u32>>, Error> {
    model.reset_states();
    let outputs = model.predict_all(x.iter().map(|x| x.view()).collect::<Vec<_>>())?;
    Ok(outputs.into_iter().map(|output| output.iter().map(|value| value.to_bits()).collect()).collect())
}

fn read_back(rng: &mut Rng, model: &mut Model, folder: &Path) -> Outcome {
    let _ = (model.summary(), model.ended_masks().len());
    let odd = |c: char| c.is_control() && c != '\n';
    if let Some(picture) = accepted(model.diagram())?
        && (picture.contains(odd) || picture.contains("<svg onload"))
    {
        return Err("a picture with what a name brought".to_owned());
    }
    let config = model.config().map_err(|e| format!("no configuration: {e}"))?;
    let text = serde_json::to_string(&config).map_err(|e| format!("a configuration that JSON has not: {e}"))?;
    let again: GraphConfig =
        serde_json::from_str(&text).map_err(|e| format!("a configuration that is not read: {e}: {text:.300}"))?;
    if !same_config(&config, &again) {
        return Err(format!("another configuration is read: {text:.500}"));
    }
    let samples = 1 + rng.below(3);
    let Some(x) = inputs(rng, model, samples) else { return Ok(()) };
    let before = predicted(model, &x);
    let path = folder.join("model.safetensors");
    match model.save(&path) {
        Ok(()) => {}
        Err(Error::Presence { .. }) if config.outputs.is_empty() => return Ok(()),
        Err(Error::NonFinite { .. }) if !weights_are_finite(model) => return Ok(()),
        Err(Error::NonFinite { tensor, .. }) if tensor.starts_with("optimizer") => return Ok(()),
        Err(error) => return Err(format!("a model is not saved: {error}")),
    }
    let own = [LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)))];
    let loaded = Model::load_with_losses(model.device().clone(), &path, &own);
    let mut loaded = loaded.map_err(|e| format!("a saved model is not loaded: {e}; {text:.500}"))?;
    match (before, predicted(&mut loaded, &x)) {
        (Ok(before), Ok(after)) if before == after => note_useful(),
        (Ok(_), Ok(_)) => return Err(format!("the loaded model says other bits: {text:.500}")),
        (Err(before), Err(after)) if before.to_string() == after.to_string() => check_error(&before)?,
        (before, after) => {
            let said =
                |said: Result<_, Error>| said.map_or_else(|e| e.to_string(), |_: Vec<Vec<u32>>| "numbers".to_owned());
            return Err(format!("the model says {}, loaded {}", said(before), said(after)));
        }
    }
    let (bytes, second) = (std::fs::read(&path), folder.join("again.safetensors"));
    loaded.save(&second).map_err(|e| format!("a loaded model is not saved: {e}"))?;
    if bytes.map_err(|e| e.to_string())? != std::fs::read(&second).map_err(|e| e.to_string())? {
        return Err(format!("the loaded model is saved as other bytes: {text:.500}"));
    }
    Ok(())
}

pub fn program(rng: &mut Rng, folder: &Path) -> Outcome {
    let device = device(rng);
    let built = if rng.chance(0.5) { sequential(rng, &device)? } else { graph(rng, &device)? };
    let Some(mut model) = built else { return Ok(()) };
    if rng.chance(0.9) {
        compile(rng, &mut model)?;
        train(rng, &mut model, folder)?;
    }
    if rng.chance(0.05) {
        // Weights as a program may set them.
        let weights: Vec<f64> = values(rng, model.count_params());
        accepted(model.set_flat_weights(&weights))?;
    }
    read_back(rng, &mut model, folder)
}
