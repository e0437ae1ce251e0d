//! What Keras's `fit`, `evaluate` and `predict` say, recorded from it (`tests/fixtures/training.json`), and their rules for batches, states
//! and rates.

use std::ops::ControlFlow;

use crate::cpu;
use fused_rnn::metrics::Metric;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::optim::{Schedule, Sgd};
use fused_rnn::{Error, Result};
use ndarray::{Array1, Array2, Array3, ArrayD, IxDyn, s};
use serde_json::Value;

fn recorded() -> Value {
    serde_json::from_str(include_str!("../fixtures/training.json")).unwrap()
}

/// Nested lists of numbers as an array.
fn array(value: &Value) -> ArrayD<f64> {
    fn walk(value: &Value, depth: usize, shape: &mut Vec<usize>, numbers: &mut Vec<f64>) {
        match value {
            Value::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                items.iter().for_each(|item| walk(item, depth + 1, shape, numbers));
            }
            number => numbers.push(number.as_f64().unwrap()),
        }
    }
    let (mut shape, mut numbers) = (Vec::new(), Vec::new());
    walk(value, 0, &mut shape, &mut numbers);
    ArrayD::from_shape_vec(IxDyn(&shape), numbers).unwrap()
}

/// An optimizer that leaves weights where they are, as far as can be seen.
fn still() -> Sgd {
    Sgd::new(1e-30).unwrap()
}

/// Each of Keras's figures beside ours.
fn check_figures(what: &str, recorded: &Value, get: impl Fn(&str) -> Option<f64>) {
    for (name, expected) in recorded.as_object().unwrap() {
        let ours = name.replace("mse", "mean_squared_error").replace("mae", "mean_absolute_error");
        let (got, expected) = (get(&ours), expected.as_f64().unwrap());
        let got = got.unwrap_or_else(|| panic!("{what}: no {ours}"));
        assert!(
            (got - expected).abs() <= 2e-6 * expected.abs().max(0.1),
            "{what}: {name} is {got}, in Keras {expected}"
        );
    }
}

fn masked(weight: f64) -> Sequential {
    let mut model = Sequential::new(cpu(), &[4, 1], 1).unwrap();
    model.add(Masking::new(0.0)).unwrap().add(Dense::new(1).use_bias(false)).unwrap();
    model.set_weight("dense.weight", &[weight]).unwrap();
    model.compile(still(), Loss::MeanSquaredError).unwrap();
    model.metrics(&[Metric::MeanAbsoluteError, Metric::BinaryAccuracy { threshold: 0.5 }]);
    model.weighted_metrics(&[Metric::MeanSquaredError, Metric::MeanAbsoluteError]);
    model
}

/// Steps that a mask leaves count alike in metrics, whatever the batches; losses are means of means, as in Keras; weights are those of
/// losses and of weighted metrics alone.
#[test]
fn masks_and_weights_as_in_keras() {
    let all = recorded();
    let case = &all["masks"];
    let [x, y, by_sample, by_step] = ["x", "y", "by_sample", "by_step"].map(|name| array(&case[name]));
    let weights = |name: &Value| match name.as_str() {
        Some("by_sample") => vec![(&by_sample).into()],
        Some(_) => vec![(&by_step).into()],
        None => Vec::new(),
    };
    for fit in case["fits"].as_array().unwrap() {
        let mut model = masked(case["weight"].as_f64().unwrap());
        let options = FitOptions {
            batch_size: fit["batch_size"].as_u64().unwrap() as usize,
            validation_split: fit["validation_split"].as_f64().unwrap(),
            sample_weight: weights(&fit["sample_weight"]),
            shuffle: false,
            ..FitOptions::default()
        };
        let history = model.fit(&x, &y, options).unwrap();
        check_figures(&fit.to_string(), &fit["figures"], |name| history.get(name).map(|values| values[0]));
    }
    for evaluated in case["evaluated"].as_array().unwrap() {
        let mut model = masked(case["weight"].as_f64().unwrap());
        model.inference_batch_size(evaluated["batch_size"].as_u64().unwrap() as usize).unwrap();
        let figures = match evaluated["sample_weight"].as_str() {
            None => model.evaluate_metrics(&x, &y).unwrap(),
            Some("by_sample") => model.evaluate_weighted(&x, &y, &by_sample).unwrap(),
            Some(_) => model.evaluate_weighted(&x, &y, &by_step).unwrap(),
        };
        let get = |name: &str| figures.iter().find(|(known, _)| known == name).map(|(_, value)| *value);
        check_figures(&evaluated.to_string(), &evaluated["figures"], get);
    }
    let given = &case["validation_data"];
    let options = FitOptions {
        batch_size: 3,
        shuffle: false,
        sample_weight: vec![by_sample.slice(s![..6]).into()],
        validation_data: Some((vec![x.slice(s![6.., .., ..]).into()], vec![y.slice(s![6.., .., ..]).into()])),
        validation_sample_weight: vec![by_sample.slice(s![6..]).into()],
        ..FitOptions::default()
    };
    let mut model = masked(case["weight"].as_f64().unwrap());
    let history = model.fit(x.slice(s![..6, .., ..]), y.slice(s![..6, .., ..]), options).unwrap();
    check_figures("validation data", &given["figures"], |name| history.get(name).map(|values| values[0]));
    // Without data that they could be of.
    let options = FitOptions { validation_sample_weight: vec![(&by_sample).into()], ..FitOptions::default() };
    let error = model.fit(&x, &y, options).unwrap_err();
    assert!(error.to_string().contains("validation_split"), "{error}");
}

#[test]
fn weights_of_classes_are_not_those_of_the_validation() {
    let all = recorded();
    let case = &all["classes"];
    let (x, y) = (array(&case["x"]), array(&case["y"]));
    for fit in case["fits"].as_array().unwrap() {
        let mut model = Sequential::new(cpu(), &[2], 1).unwrap();
        model.add(Dense::new(3).use_bias(false).activation(ActivationFunction::Softmax)).unwrap();
        model.set_weight("dense.weight", array(&case["kernel"]).as_slice().unwrap()).unwrap();
        model.compile(still(), Loss::SparseCategoricalCrossentropy { from_logits: false }).unwrap();
        model.metrics(&[Metric::Accuracy]).weighted_metrics(&[Metric::Accuracy]);
        let options = FitOptions {
            batch_size: fit["batch_size"].as_u64().unwrap() as usize,
            validation_split: fit["validation_split"].as_f64().unwrap(),
            class_weight: vec![(0, 0.5), (2, 4.0)],
            shuffle: false,
            ..FitOptions::default()
        };
        let history = model.fit(&x, &y, options).unwrap();
        check_figures(&fit.to_string(), &fit["figures"], |name| history.get(name).map(|values| values[0]));
    }
}

/// 128 sequences that are right in all of four steps, then one with a single step, which is wrong: one of 513 steps.
#[test]
fn every_step_counts_once() {
    let x = Array3::from_shape_fn((129, 4, 1), |(i, t, _)| if i == 128 && t > 0 { 0.0 } else { 1.0 });
    let mut y = x.clone();
    y[[128, 0, 0]] = 0.0;
    for batch in [None, Some(1), Some(2), Some(129)] {
        let mut model = masked(1.0);
        model.metrics(&[Metric::MeanAbsoluteError, Metric::Precision { threshold: 0.5 }]);
        model.inference_batch_size(batch).unwrap();
        let figures = model.evaluate_metrics(&x, &y).unwrap();
        assert_eq!(figures[1], ("mean_absolute_error".to_owned(), 1.0 / 513.0));
        assert_eq!(figures[2], ("precision".to_owned(), 512.0 / 513.0));
        let options = FitOptions { batch_size: batch.unwrap_or(32), ..FitOptions::default() };
        let history = model.fit(&x, &y, options).unwrap();
        assert_eq!(history.get("precision").unwrap(), [512.0 / 513.0]);
    }
    // What stands in a step that is absent is nobody's business.
    let mut padded = y.clone();
    padded[[128, 2, 0]] = f64::NAN;
    let mut model = masked(1.0);
    model.metrics(&[Metric::MeanAbsoluteError]).weighted_metrics(&[]);
    let mut accumulated = fused_rnn::metrics::MetricAccumulator::new(Metric::MeanAbsoluteError).unwrap();
    accumulated.update(&[f64::NAN, 1.0], &[0.0, 0.5], 1, Some(&[0.0, 1.0])).unwrap();
    assert_eq!(accumulated.result(), 0.5);
}

#[test]
fn metrics_of_one_name_have_two() {
    let (x, y) = (Array2::<f64>::ones((3, 1)), Array1::<f64>::ones(3));
    let mut model = line();
    let precision = |threshold| Metric::Precision { threshold };
    model.metrics(&[precision(0.2), precision(0.8)]).weighted_metrics(&[precision(0.5)]);
    let history = model.fit(&x, &y, FitOptions { epochs: 2, ..FitOptions::default() }).unwrap();
    let names: Vec<_> = history.metrics.iter().map(|(name, values)| (name.as_str(), values.len())).collect();
    assert_eq!(names, [("precision", 2), ("precision_1", 2), ("weighted_precision", 2)]);
}

fn line() -> Sequential {
    let mut model = Sequential::new(cpu(), &[1], 1).unwrap();
    model.add(Dense::new(1)).unwrap();
    model.compile(Sgd::new(0.1).unwrap(), Loss::MeanSquaredError).unwrap();
    model
}

fn points(samples: usize) -> (Array2<f64>, Array1<f64>) {
    (Array2::from_shape_fn((samples, 1), |(n, _)| n as f64 / 8.0), Array1::from_shape_fn(samples, |n| (n as f64).sin()))
}

/// Fewer samples than a batch are one batch: the default of 32 suits any data.
#[test]
fn fewer_samples_are_one_batch() {
    let (x, y) = points(5);
    let trained = |batch_size| {
        let mut model = line();
        let history = model.fit(&x, &y, FitOptions { epochs: 3, batch_size, ..FitOptions::default() }).unwrap();
        (history, crate::weights(&model))
    };
    assert_eq!(trained(32), trained(5));
    assert_eq!(trained(usize::MAX), trained(5));
    let (x, y) = points(20);
    let history = line().fit(&x, &y, FitOptions { validation_split: 0.1, ..FitOptions::default() }).unwrap();
    assert_eq!(history.val_loss.len(), 1);
}

/// Writes down what the rate is said to be.
struct Rates(Vec<f64>);

impl Callback for Rates {
    fn on_epoch_begin(&mut self, _: &EpochBegin, training: &mut dyn Training) -> Result<()> {
        self.0.push(training.learning_rate());
        Ok(())
    }
}

/// A rate that a callback lowers to zero, in one step or by many, ends no training: it is the smallest number above it.
#[test]
fn a_rate_may_fall_to_zero() {
    let (x, y) = points(8);
    let mut to_zero = LearningRateSchedule::new(|epoch, _| if epoch < 3 { 0.1 } else { 0.0 });
    let mut plateau = ReduceLearningRate::new(1e-200, 1).unwrap();
    plateau.min_delta = 1e9;
    for callback in [&mut to_zero as &mut dyn Callback, &mut plateau] {
        let mut model = line();
        model.compile(Sgd::new(0.1).unwrap(), Loss::MeanSquaredError).unwrap();
        let mut rates = Rates(Vec::new());
        let callbacks: Vec<&mut dyn Callback> = vec![callback, &mut rates];
        let history = model.fit(&x, &y, FitOptions { epochs: 7, callbacks, ..FitOptions::default() }).unwrap();
        assert_eq!((rates.0[0], rates.0[6]), (0.1, f64::MIN_POSITIVE));
        assert_eq!(history.loss.len(), 7);
    }
}

/// As in Keras, the rate of a schedule cannot be set by another; what is said is what was used.
#[test]
fn a_schedule_and_a_callback_do_not_go_together() {
    let (x, y) = points(8);
    let schedule = Schedule::piecewise(&[3], &[0.1, 0.01]).unwrap();
    let scheduled = || {
        let mut model = line();
        model.compile(Sgd::new(0.5).unwrap(), Loss::MeanSquaredError).unwrap().schedule(schedule.clone()).unwrap();
        model
    };
    let mut by_epoch = LearningRateSchedule::new(|_, rate| rate * 0.5);
    let mut plateau = ReduceLearningRate::new(0.1, 50).unwrap();
    for callback in [&mut by_epoch as &mut dyn Callback, &mut plateau] {
        let mut model = scheduled();
        let before = crate::weights(&model);
        let options = FitOptions { epochs: 5, batch_size: 4, callbacks: vec![callback], ..FitOptions::default() };
        let error = model.fit(&x, &y, options).unwrap_err();
        assert!(matches!(error, Error::InvalidOption { .. }) && error.to_string().contains("schedule"), "{error}");
        assert_eq!(crate::weights(&model), before, "it is known before anything is trained");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    let (mut log, mut rates) = (CsvLog::new(&path), Rates(Vec::new()));
    let callbacks: Vec<&mut dyn Callback> = vec![&mut log, &mut rates];
    let history =
        scheduled().fit(&x, &y, FitOptions { epochs: 3, batch_size: 4, callbacks, ..FitOptions::default() }).unwrap();
    // Steps 0, 1; 2, 3; 4, 5: the boundary belongs to the first rate.
    assert_eq!(history.get("learning_rate").unwrap(), [0.1, 0.1, 0.01]);
    assert_eq!(rates.0, [0.1, 0.1, 0.1]);
    let text = std::fs::read_to_string(&path).unwrap();
    let logged: Vec<_> = text.lines().skip(1).map(|line| line.rsplit(',').next().unwrap()).collect();
    assert_eq!(logged, ["0.1", "0.1", "0.01"]);
    // Without one, the rate that the callback set was used.
    let options = FitOptions { epochs: 3, callbacks: vec![&mut by_epoch], ..FitOptions::default() };
    assert_eq!(line().fit(&x, &y, options).unwrap().learning_rate, [0.05, 0.025, 0.0125]);
}

fn stateful() -> Sequential {
    let mut model = Sequential::new(cpu(), &[3, 1], 4).unwrap();
    let lstm = Lstm::new(2).return_sequences(true);
    model.add(Lstm { options: RecurrentOptions { stateful: true, ..lstm.options.clone() }, ..lstm }).unwrap();
    model.add(Dense::new(1)).unwrap();
    model
}

/// Twelve samples of three steps in batches of four are four sequences of nine steps.
#[test]
fn stateful_models_go_on_from_batch_to_batch() {
    let steps = Array3::from_shape_fn((4, 9, 1), |(n, t, _)| ((n * 9 + t) as f64).sin());
    let samples = Array3::from_shape_fn((12, 3, 1), |(n, t, _)| steps[[n % 4, n / 4 * 3 + t, 0]]);
    let mut whole = Sequential::new(cpu(), &[9, 1], 4).unwrap();
    whole.add(Lstm::new(2).return_sequences(true)).unwrap().add(Dense::new(1)).unwrap();
    let expected = whole.predict(&steps).unwrap();
    let mut model = stateful();
    model.inference_batch_size(4).unwrap();
    let got = model.predict(&samples).unwrap();
    for ((n, t), value) in (0..12).flat_map(|n| (0..3).map(move |t| (n, t))).zip(&got) {
        let right = expected[[n % 4, n / 4 * 3 + t, 0]];
        assert!((right - value).abs() < 1e-12, "{right} {value}");
    }
    // The batch that is carried is the one taken, whether or not it was given.
    model.inference_batch_size(None).unwrap();
    assert_eq!(model.predict(&samples).unwrap().shape(), [12, 3, 1]);
    model.reset_states();
    let mut trained = stateful();
    let y = &samples * 0.5;
    let options = FitOptions {
        batch_size: 4,
        epochs: 2,
        shuffle: false,
        validation_data: Some((vec![samples.slice(s![..8, .., ..]).into()], vec![y.slice(s![..8, .., ..]).into()])),
        ..FitOptions::default()
    };
    assert_eq!(trained.fit(&samples, &y, options).unwrap().val_loss.len(), 2);
    assert!(trained.evaluate(&samples, &y).is_ok());
}

/// Samples that would be left over are refused before anything is done, with the way out.
#[test]
fn stateful_models_take_whole_batches() {
    let x = Array3::from_shape_fn((10, 3, 1), |(n, t, _)| (n * 3 + t) as f64 / 30.0);
    let mut model = stateful();
    let before = crate::weights(&model);
    let refused = |error: Error, expected: &str| {
        assert!(matches!(&error, Error::InvalidOption { .. }) && error.to_string().contains(expected), "{error}");
    };
    let options = |batch_size| FitOptions { batch_size, shuffle: false, ..FitOptions::default() };
    refused(model.fit(&x, &x, options(4)).unwrap_err(), "leave out the last 2");
    let validation =
        |count| Some((vec![x.slice(s![..count, .., ..]).into()], vec![x.slice(s![..count, .., ..]).into()]));
    let error = model.fit(&x, &x, FitOptions { validation_data: validation(7), ..options(5) }).unwrap_err();
    refused(error, "7 validation samples");
    let error = model.fit(&x, &x, FitOptions { validation_data: validation(3), ..options(5) }).unwrap_err();
    refused(error, "3 validation samples");
    assert_eq!(crate::weights(&model), before);
    model.inference_batch_size(4).unwrap();
    refused(model.predict(&x).unwrap_err(), "leave out the last 2");
    refused(model.evaluate(&x, &x).unwrap_err(), "leave out the last 2");
    model.inference_batch_size(None).unwrap();
    model.fit(&x, &x, options(5)).unwrap();
    // Five are carried.
    assert!(model.predict(&x).is_ok());
    refused(model.predict(x.slice(s![..3, .., ..])).unwrap_err(), "reset_states");
    model.reset_states();
    assert!(model.predict(x.slice(s![..3, .., ..])).is_ok());
    assert!(model.inference_batch_size(0).is_err());
}

/// What a batch that diverges leaves in stateful layers does not spoil the next ones.
#[test]
fn states_do_not_outlive_a_divergence() {
    let x = Array3::from_shape_fn((4, 3, 1), |(n, t, _)| (n * 3 + t) as f64 / 12.0);
    let mut bad = x.clone();
    bad[[1, 1, 0]] = f64::NAN;
    let (mut model, mut fresh) = (stateful(), stateful());
    let expected = fresh.predict(&x).unwrap();
    let options = FitOptions { batch_size: 4, ..FitOptions::default() };
    assert!(matches!(model.fit(&bad, &x, options), Err(Error::Diverged { .. })));
    assert_eq!(model.predict(&x).unwrap(), expected);
    model.reset_states();
    assert!(matches!(model.train_on_batch(&bad, &x), Err(Error::Diverged { .. })));
    assert_eq!(model.predict(&x).unwrap(), expected);
}

/// Counts epochs.
struct Epochs(usize);

impl Callback for Epochs {
    fn on_epoch_end(&mut self, _: &EpochEnd, _: &mut dyn Training) -> Result<ControlFlow<()>> {
        self.0 += 1;
        Ok(ControlFlow::Continue(()))
    }
}

/// A figure that is always NaN gets no better.
#[test]
fn early_stopping_on_nan_stops() {
    // The determination of a single sample is none.
    let (x, y) = points(1);
    let mut model = line();
    model.metrics(&[Metric::R2Score]);
    let mut epochs = Epochs(0);
    let early_stopping = EarlyStopping { patience: 3, min_delta: 0.0, restore_best_weights: true };
    let options = FitOptions {
        epochs: 50,
        monitor: Some("r2_score"),
        early_stopping: Some(early_stopping),
        callbacks: vec![&mut epochs],
        ..FitOptions::default()
    };
    let history = model.fit(&x, &y, options).unwrap();
    assert_eq!((history.outcome, history.best_epoch), (Outcome::EarlyStopped, None));
    assert_eq!(epochs.0, 3);
}

/// What a callback may ask of the model while it trains, and when it is called.
struct Watch {
    x: Array2<f32>,
    said: Vec<f32>,
    calls: Vec<String>,
}

impl Watch {
    fn new() -> Self {
        Watch { x: Array2::from_elem((1, 1), 4.0), said: Vec::new(), calls: Vec::new() }
    }
}

impl Callback for Watch {
    fn on_train_begin(&mut self, training: &mut dyn Training) -> Result<()> {
        self.calls.push(format!("begin {}", training.model()?.weight::<f32>("dense.bias")?[0]));
        Ok(())
    }

    fn on_epoch_end(&mut self, state: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        let said = training.predict(&[self.x.view().into_dyn()])?[0][[0, 0]];
        let model = training.model()?;
        let by_hand = 4.0 * model.weight::<f32>("dense.weight")?[0] + model.weight::<f32>("dense.bias")?[0];
        assert!((said - by_hand).abs() < 1e-5, "{said}, by hand {by_hand}");
        self.said.push(said);
        self.calls.push(format!("epoch {}", state.epoch));
        Ok(ControlFlow::Continue(()))
    }

    fn on_train_end(&mut self, history: &History, training: &mut dyn Training) -> Result<()> {
        let said = training.predict(&[self.x.view().into_dyn()])?[0][[0, 0]];
        let best = history.best_epoch.map_or(f32::NAN, |epoch| self.said[epoch - 1]);
        self.calls.push(format!("end after {}, as the best: {}", history.loss.len(), said == best));
        Ok(())
    }
}

#[test]
fn callbacks_see_the_model() {
    let (x, y) = points(8);
    let (x, y) = (x.mapv(|v| v as f32), y.mapv(|v| v as f32));
    let train = |watch: Option<&mut Watch>| {
        let mut model = line();
        let callbacks = watch.into_iter().map(|watch| watch as &mut dyn Callback).collect();
        let early_stopping = Some(EarlyStopping::new(10).restore_best_weights(true));
        let options = FitOptions { epochs: 3, batch_size: 3, early_stopping, callbacks, ..FitOptions::default() };
        model.fit(&x, &y, options).unwrap();
        model.flat_weights::<f32>().unwrap()
    };
    let mut watch = Watch::new();
    // Nothing changes by looking.
    assert_eq!(train(Some(&mut watch)), train(None));
    assert_eq!(watch.calls[1..4], ["epoch 1", "epoch 2", "epoch 3"]);
    assert!(watch.calls[0].starts_with("begin "), "{:?}", watch.calls);
    assert_eq!(watch.calls[4], "end after 3, as the best: true");
    assert_ne!(watch.said[0], watch.said[2]);

    // Inputs of another length in between, where any is taken: training goes on at its own.
    struct Other;
    impl Callback for Other {
        fn on_epoch_begin(&mut self, _: &EpochBegin, training: &mut dyn Training) -> Result<()> {
            let y = training.predict(&[Array3::<f32>::ones((2, 7, 1)).view().into_dyn()])?;
            assert_eq!(y[0].shape(), [2, 1]);
            assert!(matches!(training.predict(&[]), Err(Error::Shape { .. })));
            Ok(())
        }
    }
    let train = |watched: bool| {
        let mut model = Sequential::new(cpu(), &[None, Some(1)], 1).unwrap();
        model.add(Lstm::new(3)).unwrap().add(Dense::new(1)).unwrap();
        let x = Array3::from_shape_fn((6, 4, 1), |(i, t, _)| (i * t) as f32 * 0.1);
        let callbacks: Vec<&mut dyn Callback> = if watched { vec![Box::leak(Box::new(Other))] } else { Vec::new() };
        let options = FitOptions { epochs: 2, callbacks, ..FitOptions::default() };
        model.fit(&x, &Array2::<f32>::ones((6, 1)), options).unwrap();
        model.flat_weights::<f32>().unwrap()
    };
    assert_eq!(train(true), train(false));
}

/// Who has not called `compile` has the default loss, and is told so where the targets do not fit it.
#[test]
fn targets_that_do_not_fit_the_default_loss() {
    let mut model = Sequential::new(cpu(), &[2], 1).unwrap();
    model.add(Dense::new(3).activation(ActivationFunction::Softmax)).unwrap();
    let (x, y) = (Array2::<f32>::ones((4, 2)), Array1::<f32>::ones(4));
    let text = model.fit(&x, &y, FitOptions::default()).unwrap_err().to_string();
    assert!(text.contains("mean squared error") && text.contains("`compile`"), "{text}");
    model.compile(still(), Loss::SparseCategoricalCrossentropy { from_logits: false }).unwrap();
    let text = model.fit(&x, &Array2::<f32>::ones((4, 3)), FitOptions::default()).unwrap_err().to_string();
    assert!(!text.contains("compile"), "{text}");
}

/// As in Keras, both parts of a split have samples.
#[test]
fn a_split_leaves_samples_on_both_sides() {
    let (x, y) = points(8);
    for fraction in [1e-17, 0.9, 0.99999, 1.0, -0.1, f64::NAN] {
        let options = FitOptions { validation_split: fraction, ..FitOptions::default() };
        let error = line().fit(&x, &y, options).unwrap_err();
        assert!(
            matches!(&error, Error::InvalidOption { option, .. } if option == "validation_split"),
            "{fraction}: {error}"
        );
    }
    let history = line().fit(&x, &y, FitOptions { validation_split: 1e-3, ..FitOptions::default() }).unwrap();
    assert_eq!(history.val_loss.len(), 1);
}

/// Keras's scale of attention is a number without axes.
#[test]
fn the_scale_of_attention_is_a_number() {
    let mut graph = Graph::new(cpu(), 1);
    let x = graph.input("x", &[3, 2]).unwrap();
    let y = graph.add(Attention::new().use_scale(true), &[&x, &x]).unwrap();
    let mut model = graph.model(&[&y]).unwrap();
    for shape in [&[][..], &[1]] {
        let scale = ArrayD::from_elem(IxDyn(shape), 0.25f32);
        model.set_keras_weights("attention", &[scale]).unwrap();
        assert_eq!(model.keras_weights::<f32>("attention").unwrap(), [ArrayD::from_elem(IxDyn(&[]), 0.25f32)]);
    }
    let error = model.set_keras_weights("attention", &[ArrayD::<f32>::zeros(IxDyn(&[2]))]).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}
