//! What `fit` can be told: validation, weights, metrics, callbacks; and training that goes on from a file.

use std::ops::ControlFlow;

use crate::{cpu, weights};
use fused_rnn::metrics::Metric;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::optim::{Adagrad, Adam, AdamW, Optimizer, RmsProp, Schedule, Sgd};
use fused_rnn::{Device, Error, Result};
use ndarray::{Array, Array1, Array2, ArrayD, Axis, IxDyn, s};

fn draw(shape: &[usize], stream: u32) -> ArrayD<f64> {
    let mut random = Random::new(3, stream);
    ArrayD::from_shape_fn(IxDyn(shape), |_| random.normal())
}

/// A stack with everything that is random or has a memory.
fn model(seed: u64) -> Sequential {
    let mut model = Sequential::new(cpu(), &[5, 2], seed).unwrap();
    model.add(Lstm::new(4).return_sequences(true).recurrent_dropout(0.2)).unwrap();
    model.add(Dropout::new(0.3)).unwrap().add(BatchNormalization::new()).unwrap();
    model.add(Gru::new(3)).unwrap().add(Dense::new(1)).unwrap();
    model
}

fn data() -> (ArrayD<f64>, ArrayD<f64>) {
    (draw(&[23, 5, 2], 1), draw(&[23, 1], 2))
}

fn epochs<'a>(epochs: usize) -> FitOptions<'a> {
    FitOptions { epochs, batch_size: 4, ..FitOptions::default() }
}

/// An epoch after loading is the one that would have come without the file, to the bit.
#[test]
fn training_goes_on_from_a_file() {
    let (x, y) = data();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    fn check(optimizer: impl Optimizer + Clone + 'static, path: &std::path::Path, x: &ArrayD<f64>, y: &ArrayD<f64>) {
        let mut whole = model(7);
        whole.compile(optimizer.clone(), Loss::HUBER).unwrap();
        let expected = whole.fit(x, y, epochs(5)).unwrap();
        let mut first = model(7);
        first.compile(optimizer, Loss::HUBER).unwrap();
        first.fit(x, y, epochs(2)).unwrap();
        first.save(path).unwrap();
        let mut second = Model::load(cpu(), path).unwrap();
        let history = second.fit(x, y, epochs(3)).unwrap();
        assert_eq!(history.loss, expected.loss[2..]);
        assert_eq!(weights(&second), weights(&whole));
        assert_eq!(second.predict(x).unwrap(), whole.predict(x).unwrap());
        second.save(path).unwrap();
        let bytes = std::fs::read(path).unwrap();
        whole.save(path).unwrap();
        assert!(bytes == std::fs::read(path).unwrap(), "the same model gives the same bytes");
    }
    check(Adam::new(0.01).unwrap(), &path, &x, &y);
    check(Sgd::new(0.01).unwrap().momentum(0.9, true).unwrap(), &path, &x, &y);
    check(RmsProp::new(0.01).unwrap().with(0.9, 0.3, true).unwrap(), &path, &x, &y);
    check(Adagrad::default(), &path, &x, &y);
    check(AdamW::default(), &path, &x, &y);
}

#[test]
fn a_checkpoint_is_the_best_epoch_and_can_go_on() {
    let (x, y) = data();
    let folder = tempfile::tempdir().unwrap();
    let (best, every) = (folder.path().join("best.safetensors"), folder.path().join("every.safetensors"));
    let mut trained = model(7);
    let (mut one, mut two) = (Checkpoint::new(&best).best_only(true), Checkpoint::new(&every));
    let options = FitOptions { validation_split: 0.2, callbacks: vec![&mut one, &mut two], ..epochs(6) };
    let history = trained.fit(&x, &y, options).unwrap();
    let (held_x, held_y) = (x.slice_axis(Axis(0), (18..).into()), y.slice_axis(Axis(0), (18..).into()));
    let best_loss = Model::load(cpu(), &best).unwrap().evaluate(held_x.view(), held_y.view()).unwrap();
    assert_eq!(best_loss, history.val_loss[history.best_epoch.unwrap() - 1]);
    let last_loss = Model::load(cpu(), &every).unwrap().evaluate(held_x, held_y).unwrap();
    assert_eq!(last_loss, *history.val_loss.last().unwrap());
    let mut lost = Checkpoint::new(folder.path().join("no/such/folder.safetensors"));
    let error = trained.fit(&x, &y, FitOptions { callbacks: vec![&mut lost], ..epochs(1) }).unwrap_err();
    assert!(matches!(error, Error::Io { .. }), "{error}");
}

/// The last part of the data, before they are shuffled, as Keras takes it.
#[test]
fn a_split_is_the_last_part() {
    let (x, y) = data();
    let mut split = model(7);
    let split_history = split.fit(&x, &y, FitOptions { validation_split: 0.2, ..epochs(2) }).unwrap();
    let mut given = model(7);
    let part = |a: &ArrayD<f64>, from: usize, to: usize| a.slice_axis(Axis(0), (from..to).into()).to_owned();
    let (held_x, held_y) = (part(&x, 18, 23), part(&y, 18, 23));
    let options = FitOptions { validation_data: Some((vec![(&held_x).into()], vec![(&held_y).into()])), ..epochs(2) };
    let given_history = given.fit(&part(&x, 0, 18), &part(&y, 0, 18), options).unwrap();
    assert_eq!(split_history, given_history);
    for split in [1.0, -0.1, f64::NAN, 0.999] {
        let error = model(7).fit(&x, &y, FitOptions { validation_split: split, ..epochs(1) }).unwrap_err();
        assert!(error.to_string().contains("validation_split"), "{error}");
    }
    let both = FitOptions {
        validation_split: 0.2,
        validation_data: Some((vec![(&held_x).into()], vec![(&held_y).into()])),
        ..epochs(1)
    };
    assert!(model(7).fit(&x, &y, both).is_err());
}

fn classifier() -> Sequential {
    let mut model = Sequential::new(cpu(), &[4, 2], 5).unwrap();
    model.add(SimpleRnn::new(4)).unwrap().add(Dense::new(3).activation(ActivationFunction::Softmax)).unwrap();
    model.compile(Sgd::new(0.1).unwrap(), Loss::SparseCategoricalCrossentropy { from_logits: false }).unwrap();
    model.metrics(&[Metric::Accuracy]);
    model
}

fn classes() -> (ArrayD<f64>, Array1<f64>) {
    (draw(&[12, 4, 2], 1), Array1::from_shape_fn(12, |i| (i * i % 3) as f64))
}

/// A weight of a sample counts as much as that many samples; a class's weight is that of its samples.
#[test]
fn weights_of_samples_and_classes() {
    let (x, y) = classes();
    let weight = |class: f64| [1.0, 3.0, 0.5][class as usize];
    let gradient = |options: FitOptions<'_>| {
        let mut model = classifier();
        let before = weights(&model);
        let history = model.fit(&x, &y, FitOptions { shuffle: false, batch_size: 12, ..options }).unwrap();
        let moved: Vec<f64> = before.iter().zip(weights(&model)).map(|(a, b)| (a - b) / 0.1).collect();
        (history.loss[0], moved)
    };
    let weights = y.mapv(weight).into_dyn();
    let by_sample = gradient(FitOptions { sample_weight: vec![(&weights).into()], ..FitOptions::default() });
    let class_weight = vec![(0, 1.0), (1, 3.0), (2, 0.5)];
    let by_class = gradient(FitOptions { class_weight, ..FitOptions::default() });
    assert_eq!(by_sample, by_class);
    // Twice the weight, alone: twice that sample's share.
    let mut model = classifier();
    let share = |i: usize, model: &mut Sequential| {
        let one = |a: &ArrayD<f64>| a.slice_axis(Axis(0), (i..i + 1).into()).to_owned();
        let (loss, gradient) = model.loss_gradient(&one(&x), &one(&y.clone().into_dyn())).unwrap();
        (loss, gradient.to_vec())
    };
    let (mut loss, mut sum) = (0.0, vec![0.0; by_sample.1.len()]);
    for i in 0..12 {
        let (l, g) = share(i, &mut model);
        loss += weight(y[i]) * l / 12.0;
        sum.iter_mut().zip(g).for_each(|(s, g)| *s += weight(y[i]) * g / 12.0);
    }
    assert!((loss - by_sample.0).abs() < 1e-14);
    assert!(sum.iter().zip(&by_sample.1).all(|(a, b)| (a - b).abs() < 1e-13));

    let bad = |options: FitOptions<'_>| classifier().fit(&x, &y, options).unwrap_err().to_string();
    let short = Array1::<f64>::ones(11).into_dyn();
    let text = bad(FitOptions { sample_weight: vec![(&short).into()], batch_size: 4, ..FitOptions::default() });
    assert!(text.contains("sample_weight") && text.contains("[12]") && text.contains("[11]"), "{text}");
    let mut negative = Array1::<f64>::ones(12).into_dyn();
    negative[[3]] = -1.0;
    assert!(bad(FitOptions { sample_weight: vec![(&negative).into()], ..FitOptions::default() }).contains("element 3"));
    assert!(bad(FitOptions { class_weight: vec![(1, f64::NAN)], ..FitOptions::default() }).contains("class_weight[1]"));
    let mut wrong = y.clone();
    wrong[5] = 3.0;
    let text = classifier().fit(&x, &wrong, FitOptions::default()).unwrap_err().to_string();
    assert!(text.contains("y, sample 5") && text.contains("below the 3") && text.ends_with('3'), "{text}");
}

#[test]
fn metrics_stand_in_the_history() {
    let (x, y) = classes();
    let mut model = classifier();
    let history = model
        .fit(&x, &y, FitOptions { epochs: 3, batch_size: 5, validation_split: 0.25, ..FitOptions::default() })
        .unwrap();
    assert_eq!(history.keys().collect::<Vec<_>>(), ["loss", "val_loss", "accuracy", "val_accuracy"]);
    let held = (x.slice_axis(Axis(0), (9..).into()), y.slice(s![9..]));
    let evaluated = model.evaluate_metrics(held.0.view(), held.1.view()).unwrap();
    assert_eq!(evaluated[0].1, history.val_loss[2]);
    assert_eq!(evaluated[1], ("accuracy".to_owned(), history.get("val_accuracy").unwrap()[2]));
    let predicted = model.predict(held.0.view()).unwrap().into_dimensionality::<ndarray::Ix2>().unwrap();
    let hits = predicted
        .outer_iter()
        .zip(held.1)
        .filter(|(row, class)| row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 == **class as usize);
    assert_eq!(evaluated[1].1, hits.count() as f64 / 3.0);
}

/// What is monitored decides which epoch is the best: the most of a metric that should be large, the least of an error.
#[test]
fn another_figure_is_monitored() {
    let (x, y) = classes();
    let fit = |monitor: Option<&str>| {
        let mut model = classifier();
        let mut scores = Scores(Vec::new());
        let options = FitOptions {
            epochs: 12,
            batch_size: 5,
            validation_split: 0.25,
            monitor,
            early_stopping: Some(EarlyStopping { patience: 12, min_delta: 0.0, restore_best_weights: true }),
            callbacks: vec![&mut scores],
            ..FitOptions::default()
        };
        model.fit(&x, &y, options).map(|history| {
            let held = (x.slice_axis(Axis(0), (9..).into()), y.slice(s![9..]));
            let evaluated = model.evaluate_metrics(held.0.view(), held.1.view()).unwrap();
            (history, evaluated, scores.0)
        })
    };
    // The first epoch of the best value, counted from 1.
    let first = |values: &[f64], better: fn(f64, f64) -> bool| {
        (1..values.len()).fold(0, |best, i| if better(values[i], values[best]) { i } else { best }) + 1
    };
    let (history, evaluated, scores) = fit(Some("val_accuracy")).unwrap();
    let accuracy = history.get("val_accuracy").unwrap();
    assert_eq!(history.best_epoch, Some(first(accuracy, |a, b| a > b)));
    assert_eq!(scores, accuracy);
    assert_eq!(evaluated[1].1, accuracy[history.best_epoch.unwrap() - 1], "its weights are restored");
    let (history, _, scores) = fit(Some("loss")).unwrap();
    assert_eq!(history.best_epoch, Some(first(&history.loss, |a, b| a < b)));
    assert_eq!(scores, history.loss.iter().map(|loss| -loss).collect::<Vec<_>>());
    let (usual, ..) = fit(None).unwrap();
    assert_eq!(usual.best_epoch, Some(first(&usual.val_loss, |a, b| a < b)));
    assert_eq!(usual, fit(Some("val_loss")).unwrap().0);
    assert_ne!(first(&usual.val_loss, |a, b| a < b), first(accuracy, |a, b| a > b), "the data tell the figures apart");
    let error = fit(Some("val_f1_score")).err().unwrap().to_string();
    assert!(error.contains("monitor") && error.contains("loss, accuracy, val_loss, val_accuracy"), "{error}");
    let options = FitOptions { batch_size: 4, monitor: Some("val_loss"), ..FitOptions::default() };
    let error = classifier().fit(&x, &y, options).unwrap_err().to_string();
    assert!(error.contains("monitor") && !error.contains("val_accuracy"), "{error}");
}

struct Scores(Vec<f64>);

impl Callback for Scores {
    fn on_epoch_end(&mut self, state: &EpochEnd, _: &mut dyn Training) -> Result<ControlFlow<()>> {
        self.0.push(state.score);
        Ok(ControlFlow::Continue(()))
    }
}

/// The metrics that a batch's end tells are those of the epoch so far; the bar shows them.
#[test]
fn metrics_of_batches() {
    struct Batches(Vec<(usize, Vec<(String, f64)>)>);
    impl Callback for Batches {
        fn on_batch_end(&mut self, state: &BatchEnd<'_>) -> ControlFlow<()> {
            self.0.push((state.batch, state.metrics().collect()));
            ControlFlow::Continue(())
        }
    }
    let (x, y) = classes();
    let (mut batches, mut bar) = (Batches(Vec::new()), ProgressBar::to_writer(Vec::new(), true));
    let options =
        FitOptions { epochs: 2, batch_size: 4, callbacks: vec![&mut batches, &mut bar], ..FitOptions::default() };
    let history = classifier().fit(&x, &y, options).unwrap();
    assert_eq!(batches.0.iter().map(|(batch, _)| *batch).collect::<Vec<_>>(), [1, 2, 3, 1, 2, 3]);
    for (batch, metrics) in &batches.0 {
        let [(name, accuracy)] = &metrics[..] else { panic!("{metrics:?}") };
        assert_eq!(name, "accuracy");
        let hits = accuracy * 4.0 * *batch as f64;
        assert!(
            (hits - hits.round()).abs() < 1e-12 && (0.0..=1.0).contains(accuracy),
            "{accuracy} after batch {batch}"
        );
    }
    let last = [&batches.0[2].1[0].1, &batches.0[5].1[0].1].map(|v| *v);
    assert_eq!(history.get("accuracy").unwrap(), last);
    let text = String::from_utf8(bar.into_writer()).unwrap();
    let first = text.split('\r').nth(1).unwrap();
    assert!(first.starts_with("1/3 ") && first.contains(" - loss: ") && first.contains(" - accuracy: "), "{text}");
}

struct Rates(Vec<f64>);

impl Callback for Rates {
    fn on_epoch_end(&mut self, _: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        self.0.push(training.learning_rate());
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn learning_rates_change() {
    let (x, y) = data();
    let (mut schedule, mut rates) =
        (LearningRateSchedule::new(|epoch, rate| if epoch < 3 { rate } else { rate * 0.5 }), Rates(Vec::new()));
    let mut trained = model(7);
    trained.compile(Adam::new(0.008).unwrap(), Loss::MeanSquaredError).unwrap();
    trained.fit(&x, &y, FitOptions { callbacks: vec![&mut schedule, &mut rates], ..epochs(5) }).unwrap();
    assert_eq!(rates.0, [0.008, 0.008, 0.004, 0.002, 0.001]);
    let mut wrong = LearningRateSchedule::new(|_, _| -1.0);
    let error = trained.fit(&x, &y, FitOptions { callbacks: vec![&mut wrong], ..epochs(1) }).unwrap_err();
    assert!(error.to_string().contains("learning_rate"), "{error}");

    // A rate too small to change anything: every epoch but the first is one without improvement.
    let mut still = Sequential::new(cpu(), &[5, 2], 7).unwrap();
    still.add(Gru::new(3)).unwrap().add(Dense::new(1)).unwrap();
    still.compile(Sgd::new(1e-12).unwrap(), Loss::MeanSquaredError).unwrap();
    let (mut plateau, mut rates) = (ReduceLearningRate::new(0.1, 2).unwrap(), Rates(Vec::new()));
    let options = FitOptions { validation_split: 0.2, callbacks: vec![&mut plateau, &mut rates], ..epochs(5) };
    still.fit(&x, &y, options).unwrap();
    let expected = [1e-12, 1e-12, 1e-13, 1e-13, 1e-14];
    assert!(rates.0.iter().zip(expected).all(|(a, b)| (a / b - 1.0f64).abs() < 1e-9), "{:?}", rates.0);
    assert!(ReduceLearningRate::new(1.0, 2).is_err());
}

/// A schedule sets the rate of every step, also of those after a file.
#[test]
fn learning_rates_by_step() {
    let (x, y) = data();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let schedule = Schedule::cosine(0.0, 20, 0.0).unwrap().warm_up(0.02, 5).unwrap();
    let scheduled = || {
        let mut model = model(7);
        model.compile(Adam::default(), Loss::MeanSquaredError).unwrap().schedule(schedule.clone()).unwrap();
        model
    };
    // Six batches an epoch; the last step of epoch e is the one after 6 e - 1 others.
    let mut rates = Rates(Vec::new());
    let mut whole = scheduled();
    whole.fit(&x, &y, FitOptions { callbacks: vec![&mut rates], ..epochs(5) }).unwrap();
    assert_eq!(rates.0, [5, 11, 17, 23, 29].map(|steps| schedule.rate(steps).max(f64::MIN_POSITIVE)));
    assert!(rates.0[0] > rates.0[1] && rates.0[4] == f64::MIN_POSITIVE, "{:?}", rates.0);
    let mut first = scheduled();
    first.fit(&x, &y, epochs(2)).unwrap();
    first.save(&path).unwrap();
    let mut second = Model::load(cpu(), &path).unwrap();
    second.fit(&x, &y, epochs(3)).unwrap();
    assert_eq!(weights(&second), weights(&whole));
    // A rate of zero changes nothing; the next compilation has its own rate.
    let before = weights(&whole);
    whole.fit(&x, &y, epochs(1)).unwrap();
    assert_eq!(weights(&whole), before);
    whole.compile(Sgd::new(0.5).unwrap(), Loss::MeanSquaredError).unwrap();
    whole.fit(&x, &y, epochs(1)).unwrap();
    assert_ne!(weights(&whole), before);
    // Zero times infinity is no rate, and not a small one.
    let mut wild = model(7);
    wild.schedule(Schedule::exponential(0.0, 1, f64::MAX).unwrap()).unwrap();
    let error = wild.fit(&x, &y, epochs(1)).unwrap_err().to_string();
    assert!(error.contains("learning_rate") && error.contains("NaN"), "{error}");
    for wrong in [
        Schedule::exponential(0.1, 0, 0.5),
        Schedule::exponential(f64::NAN, 5, 0.5),
        Schedule::piecewise(&[5], &[0.1]),
        Schedule::piecewise(&[5, 5], &[0.1, 0.1, 0.1]),
        Schedule::exponential(0.1, 5, 0.5).unwrap().warm_up(0.1, 5),
    ] {
        assert!(
            matches!(wrong, Err(Error::ZeroSize { .. } | Error::InvalidOption { .. } | Error::Shape { .. })),
            "{wrong:?}"
        );
    }
}

/// What no call can have written into a file is refused.
#[test]
fn scales_and_schedules_of_files_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut saved = model(7);
    saved.schedule(Schedule::cosine(0.5, 9, 0.0).unwrap()).unwrap();
    saved.set_loss_scale(Some(LossScale::new(4.0, 5).unwrap()));
    saved.save(&path).unwrap();
    let loaded = Model::load(cpu(), &path).unwrap();
    assert_eq!(loaded.loss_scale(), saved.loss_scale());
    let bytes = std::fs::read(&path).unwrap();
    for (from, to, named) in [
        ("\\\"scale\\\":4.0", "\\\"scale\\\":3.0", "power of two"),
        ("\\\"scale\\\":4.0", "\\\"scale\\\":0.0", "power of two"),
        ("\\\"growth_steps\\\":5", "\\\"growth_steps\\\":0", "growth_steps"),
        ("\\\"decay_steps\\\":9", "\\\"decay_steps\\\":0", "decay_steps"),
        ("CosineDecay", "CosineDelay", "CosineDelay"),
    ] {
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).expect(from);
        let mut changed = bytes.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, changed).unwrap();
        let error = Model::load(cpu(), &path).err().expect(to).to_string();
        assert!(error.contains(named) && error.contains("model.safetensors"), "{to}: {error}");
    }
}

#[test]
fn a_log_of_every_epoch() {
    let (x, y) = classes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log.csv");
    let mut log = CsvLog::new(&path);
    let options = FitOptions {
        epochs: 3,
        batch_size: 4,
        validation_split: 0.25,
        callbacks: vec![&mut log],
        ..FitOptions::default()
    };
    let history = classifier().fit(&x, &y, options).unwrap();
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines[0], ["epoch", "loss", "val_loss", "accuracy", "val_accuracy", "learning_rate"]);
    for (epoch, line) in lines[1..].iter().enumerate() {
        let number = |column: usize| line[column].parse::<f64>().unwrap();
        assert_eq!((line[0], number(1)), ((epoch + 1).to_string().as_str(), history.loss[epoch]));
        assert_eq!(number(4), history.get("val_accuracy").unwrap()[epoch]);
    }
    assert_eq!(lines.len(), 4);
}

/// Losses of several outputs are summed by their weights.
#[test]
fn several_outputs() {
    let build = |weights: [f64; 2]| {
        let mut graph = Graph::new(cpu(), 7);
        let x = graph.input("x", &[4, 2]).unwrap();
        let h = graph.add(Gru::new(3), &[&x]).unwrap();
        let (a, b) = (graph.add(Dense::new(2), &[&h]).unwrap(), graph.add(Dense::new(1), &[&h]).unwrap());
        let mut model = graph.model(&[&a, &b]).unwrap();
        let losses = [Loss::MeanSquaredError, Loss::MeanAbsoluteError];
        model.losses(&[(losses[0], weights[0]), (losses[1], weights[1])]).unwrap();
        model
    };
    let (x, a, b) = (draw(&[6, 4, 2], 1), draw(&[6, 2], 2), draw(&[6, 1], 3));
    let loss = |weights| build(weights).loss_gradient(&x, [a.view(), b.view()]).map(|(l, g)| (l, g.to_vec())).unwrap();
    let ((first, g), (second, h), (both, sum)) = (loss([1.0, 0.0]), loss([0.0, 1.0]), loss([0.3, 2.0]));
    assert!((both - 0.3 * first - 2.0 * second).abs() < 1e-14);
    assert!(sum.iter().zip(g.iter().zip(&h)).all(|(s, (g, h))| (s - 0.3 * g - 2.0 * h).abs() < 1e-14));
    let mut model = build([1.0, 1.0]);
    model.metrics(&[Metric::MeanSquaredError]);
    let history = model.fit(&x, [a.view(), b.view()], FitOptions { batch_size: 3, ..FitOptions::default() }).unwrap();
    assert_eq!(history.keys().collect::<Vec<_>>(), ["loss", "dense_mean_squared_error", "dense_1_mean_squared_error"]);
    // Weights of samples by output: those of one alone leave the other's share.
    let step = |sample_weight: Vec<ArrayD<f64>>| {
        let mut model = build([1.0, 1.0]);
        let views = sample_weight.iter().map(|weights| weights.into()).collect();
        let options = FitOptions { batch_size: 6, shuffle: false, sample_weight: views, ..FitOptions::default() };
        model.fit(&x, [a.view(), b.view()], options).map(|history| history.loss[0])
    };
    let weights =
        |of_a: f64, of_b: f64| vec![ArrayD::from_elem(IxDyn(&[6]), of_a), ArrayD::from_elem(IxDyn(&[6]), of_b)];
    assert!((step(weights(1.0, 0.0)).unwrap() - first).abs() < 1e-14);
    assert!((step(weights(0.5, 2.0)).unwrap() - 0.5 * first - 2.0 * second).abs() < 1e-14);
    assert!((step(weights(3.0, 0.0)[..1].to_vec()).unwrap() - 3.0 * (first + second)).abs() < 1e-13, "one for all");
    let mut three = weights(1.0, 1.0);
    three.push(three[0].clone());
    let error = step(three).unwrap_err().to_string();
    assert!(
        error.contains("sample_weight") && error.contains("2, one an output") && error.contains("3 arrays"),
        "{error}"
    );
    let error = model.fit(&x, &a, FitOptions::default()).unwrap_err().to_string();
    assert!(error.contains("2 arrays (dense, dense_1)"), "{error}");
    let error = model.fit(&x, [b.view(), a.view()], FitOptions::default()).unwrap_err().to_string();
    assert!(error.contains("y of dense") && error.contains("[samples, 2]") && error.contains("[6, 1]"), "{error}");
    assert!(model.losses(&[(Loss::MeanSquaredError, 1.0)]).is_err());
}

#[test]
fn models_that_cannot_be() {
    let mut graph = Graph::new(cpu(), 7);
    let (x, unused) = (graph.input("x", &[4, 2]).unwrap(), graph.input("unused", &[3]).unwrap());
    let y = graph.add(Lstm::new(3), &[&x]).unwrap();
    let error = graph.add(Add::new(), &[&y, &x]).unwrap_err().to_string();
    assert!(error.contains("add") && error.contains("[3]") && error.contains("[4, 2]"), "{error}");
    let mut other = Graph::new(cpu(), 7);
    let foreign = other.input("x", &[4, 2]).unwrap();
    assert!(matches!(graph.add(Lstm::new(3), &[&foreign]), Err(Error::Presence { .. })));
    assert!(graph.input("x", &[2]).is_err());
    let _ = unused;
    let error = graph.model(&[&y]).err().unwrap().to_string();
    assert!(error.contains("input unused") && error.contains("leads to no output"), "{error}");
    let mut graph = Graph::new(cpu(), 7);
    let x = graph.input("x", &[4, 2]).unwrap();
    let y = graph.add(Lstm::new(3), &[&x]).unwrap();
    graph.add(Gru::new(3), &[&x]).unwrap();
    let error = graph.model(&[&y]).err().unwrap().to_string();
    assert!(error.contains("layer gru"), "{error}");
    let graph = Graph::new(cpu(), 7);
    assert!(graph.model(&[]).is_err());

    // From a file, where layers may wait for each other.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut stack = Sequential::new(cpu(), &[3], 1).unwrap();
    stack.add(Dense::new(3)).unwrap().add(Dense::new(3)).unwrap();
    stack.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    let change = |from: &str, to: &str| {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|w| w == from.as_bytes()).unwrap();
        let mut changed = bytes.clone();
        changed[at..at + to.len()].copy_from_slice(to.as_bytes());
        std::fs::write(&path, changed).unwrap();
        Model::load(cpu(), &path).err().unwrap().to_string()
    };
    let error = change("\\\"inputs\\\":[{\\\"call\\\":[0,0]}]", "\\\"inputs\\\":[{\\\"call\\\":[1,0]}]");
    assert!(error.contains("dense_1") && error.contains("cycle"), "{error}");
    let error = change("\\\"outputs\\\":[{\\\"call\\\":[1,0]}]", "\\\"outputs\\\":[{\\\"call\\\":[7,0]}]");
    assert!(error.contains("outputs"), "{error}");
}

/// A model with a cell of one's own keeps its weights, though no file can hold the cell.
#[test]
fn a_cell_of_ones_own_in_a_model() {
    #[derive(Clone)]
    struct Sum;
    impl Cell for Sum {
        fn output_size(&self) -> usize {
            2
        }

        fn parameters(&self, _: usize) -> Vec<(String, Vec<usize>, Init)> {
            vec![("gain".to_owned(), vec![1], Init::Constant(2.0))]
        }

        fn forward(&mut self, _: &Device, step: CellForward<'_>) -> Result<()> {
            let (state, x, gain): (&[f64], &[f64], &[f64]) =
                (step.state.host()?, step.x.host()?, step.parameters.host()?);
            for (i, new) in step.new_state.host::<f64>()?.iter_mut().enumerate() {
                *new = state[i] + gain[0] * x[i];
            }
            Ok(())
        }

        fn backward(&mut self, _: &Device, step: CellBackward<'_>) -> Result<()> {
            let (x, gain): (&[f64], &[f64]) = (step.x.host()?, step.parameters.host()?);
            let (dstate, dx): (&mut [f64], &mut [f64]) = (step.dstate.host()?, step.dx.host()?);
            let dgain: &mut [f64] = step.dparameters.host()?;
            for (i, d) in step.dnew_state.host::<f64>()?.iter().enumerate() {
                (dstate[i], dx[i]) = (*d, d * gain[0]);
                dgain[0] += d * x[i];
            }
            Ok(())
        }
    }
    let mut model = Sequential::new(cpu(), &[3, 2], 1).unwrap();
    model.add_own(Rnn::new(Sum).return_sequences(true)).unwrap();
    let x: Array2<f64> = Array::from_shape_vec((3, 2), vec![1.0, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
    let y = model.predict(&x.insert_axis(Axis(0))).unwrap();
    assert_eq!(y.iter().copied().collect::<Vec<_>>(), [2.0, 4.0, 8.0, 12.0, 18.0, 24.0]);
    assert!(model.summary().contains("rnn (RNN)"));
    let error = model.save(std::path::Path::new("never.safetensors")).unwrap_err().to_string();
    assert!(error.contains("rnn") && error.contains("weights alone"), "{error}");
}

#[test]
fn one_step_on_one_batch() {
    let (x, y) = data();
    let (mut a, mut b) = (model(7), model(7));
    let loss = a.train_on_batch(&x, &y).unwrap();
    let history = b.fit(&x, &y, FitOptions { batch_size: 23, shuffle: false, ..FitOptions::default() }).unwrap();
    assert_eq!((loss, weights(&a)), (history.loss[0], weights(&b)));
}

/// A step on a batch with a NaN leaves everything as it was, statistics too, and names the sample.
#[test]
fn one_step_that_diverges_changes_nothing() {
    let (x, y) = data();
    let mut bad = x.clone();
    bad[[5, 2, 1]] = f64::NAN;
    let (mut a, mut b) = (model(7), model(7));
    let before = weights(&a);
    let statistics = |model: &Sequential| model.weight::<f64>("batch_normalization.moving_mean").unwrap();
    let error = a.train_on_batch(&bad, &y).unwrap_err();
    assert!(matches!(&error, Error::Diverged { epoch: 1, batch: 1, .. }), "{error}");
    assert!(error.to_string().contains("sample 5"), "{error}");
    assert_eq!((weights(&a), statistics(&a)), (before, statistics(&b)));
    // As `fit` leaves it.
    b.fit(&bad, &y, FitOptions { batch_size: 23, shuffle: false, ..FitOptions::default() }).unwrap_err();
    assert_eq!(a.train_on_batch(&x, &y).unwrap(), b.train_on_batch(&x, &y).unwrap());
    assert_eq!((weights(&a), statistics(&a)), (weights(&b), statistics(&b)));
}

/// States kept every few steps only: the same training but for the order of sums, and files that say so.
#[test]
fn checkpoints_over_time() {
    let (x, y) = data();
    let train = |steps: usize| {
        let mut model = Sequential::new(cpu(), &[5, 2], 7).unwrap();
        model.add(Bidirectional::new(Lstm::new(4).return_sequences(true).time_checkpoints(steps))).unwrap();
        model.add(Gru::new(3).time_checkpoints(steps)).unwrap().add(Dense::new(1)).unwrap();
        model.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
        (model.fit(&x, &y, epochs(3)).unwrap().loss, model)
    };
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let (expected, _) = train(0);
    for steps in [1, 2, 5] {
        let (loss, mut model) = train(steps);
        for (loss, expected) in loss.iter().zip(&expected) {
            // Two orders of a few hundred sums in f64, carried through some steps of Adam.
            assert!((loss - expected).abs() < 1e-9 * expected, "every {steps}: {loss} and {expected}");
        }
        model.save(&path).unwrap();
        assert_eq!(Model::load(cpu(), &path).unwrap().predict(&x).unwrap(), model.predict(&x).unwrap());
        let bytes = std::fs::read(&path).unwrap();
        assert!(String::from_utf8_lossy(&bytes).contains("time_checkpoints"), "the file says so");
    }
    let mut model = Sequential::new(cpu(), &[5, 2], 7).unwrap();
    let refused = model.add(Lstm::new(4).zoneout(0.1).time_checkpoints(2)).map(drop).unwrap_err();
    assert!(matches!(&refused, Error::Unsupported { what, .. } if what.contains("time_checkpoints")), "{refused}");
}

/// A model with metrics of every kind and weights for samples, trained by ranks of threads or by one process.
fn trained_by(count: usize, batch_size: usize, samples: usize) -> Vec<(History, Vec<f64>)> {
    let (x, weights_of_samples) = (draw(&[samples, 5, 2], 1), draw(&[samples], 4).mapv(|w: f64| w.abs()));
    let y = draw(&[samples, 1], 2).mapv(|v| f64::from(v > 0.0));
    let train = |ranks: &dyn Ranks| {
        let mut model = Sequential::new(cpu(), &[5, 2], 5).unwrap();
        model.add(Lstm::new(4).return_sequences(true)).unwrap().add(Gru::new(3)).unwrap();
        model.add(Dense::new(1).activation(ActivationFunction::Sigmoid)).unwrap();
        model.compile(Adam::default(), Loss::BinaryCrossentropy { from_logits: false }).unwrap();
        let precision = Metric::Precision { threshold: 0.5 };
        model.metrics(&[Metric::BinaryAccuracy { threshold: 0.5 }, Metric::R2Score, precision]);
        let options = FitOptions {
            epochs: 3,
            batch_size,
            validation_split: 0.2,
            sample_weight: vec![(&weights_of_samples).into()],
            clip: Some(Clip::Norm(0.5)),
            ranks: Some(ranks),
            ..FitOptions::default()
        };
        let history = model.fit(&x, &y, options).unwrap();
        (history, model.flat_weights().unwrap())
    };
    std::thread::scope(|scope| {
        let ranks = thread_ranks(count).unwrap();
        let threads: Vec<_> = ranks.into_iter().map(|ranks| scope.spawn(|| train(&{ ranks }))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Ranks have one model, to the bit: that of one process with the batch of all, to rounding. The last batch is smaller, and in it one of four
/// ranks has no samples.
#[test]
fn ranks_train_the_model_of_one_process() {
    for (count, batch_size, samples) in [(2, 4, 60), (4, 3, 64), (3, 5, 47)] {
        let ranks = trained_by(count, batch_size, samples);
        assert!(ranks.iter().all(|rank| *rank == ranks[0]), "{count} ranks");
        let one = &trained_by(1, count * batch_size, samples)[0];
        let close = |a: f64, b: f64| (a - b).abs() <= 1e-11 * a.abs().max(1.0);
        assert!(ranks[0].1.iter().zip(&one.1).all(|(a, b)| close(*a, *b)), "{count} ranks: weights");
        let figures = |history: &History| {
            let metrics = history.metrics.iter().flat_map(|(_, values)| values.clone());
            history.loss.iter().chain(&history.val_loss).copied().chain(metrics).collect::<Vec<_>>()
        };
        for (a, b) in figures(&ranks[0].0).into_iter().zip(figures(&one.0)) {
            assert!(close(a, b) || a.is_nan() && b.is_nan(), "{count} ranks: {a} {b}");
        }
    }
}

/// What differs between ranks is named before anything is trained.
#[test]
fn ranks_with_different_models_are_refused() {
    let (x, y) = data();
    let said: Vec<String> = std::thread::scope(|scope| {
        let train = |ranks: ThreadRanks| {
            let mut model = model(ranks.rank() as u64);
            model.fit(&x, &y, FitOptions { ranks: Some(&ranks), ..epochs(1) }).unwrap_err().to_string()
        };
        let threads: Vec<_> =
            thread_ranks(2).unwrap().into_iter().map(|ranks| scope.spawn(move || train(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(said.iter().all(|said| said.contains("weights on rank") && said.contains("same seed")), "{said:?}");
}

/// NaN in one rank's samples ends training on all of them.
#[test]
fn ranks_stop_together() {
    let (mut x, y) = data();
    x.fill(f64::NAN);
    let clean = data().0;
    let said: Vec<String> = std::thread::scope(|scope| {
        let (x, clean, y) = (&x, &clean, &y);
        let train = move |ranks: ThreadRanks| {
            let x = if ranks.rank() == 1 { x } else { clean };
            let mut model = model(1);
            model.fit(x, y, FitOptions { ranks: Some(&ranks), ..epochs(3) }).unwrap_err().to_string()
        };
        let threads: Vec<_> =
            thread_ranks(2).unwrap().into_iter().map(|ranks| scope.spawn(move || train(ranks))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    assert!(said[0].contains("rank 1") && said[1].contains("sample"), "{said:?}");
}

/// What a callback does at the end of an epoch.
#[derive(Clone, Copy)]
enum AtEnd {
    Nothing,
    Stop,
    Fail,
    OtherRate,
}

struct Acts(AtEnd);

impl Callback for Acts {
    fn on_epoch_end(&mut self, epoch: &EpochEnd, training: &mut dyn Training) -> Result<ControlFlow<()>> {
        match self.0 {
            AtEnd::Stop if epoch.epoch == 2 => return Ok(ControlFlow::Break(())),
            AtEnd::Fail if epoch.epoch == 2 => return Err(Error::ZeroSize { name: "disk" }),
            AtEnd::OtherRate if epoch.epoch == 2 => training.set_learning_rate(0.5)?,
            _ => {}
        }
        Ok(ControlFlow::Continue(()))
    }
}

/// A stop, an error or another rate on one rank is known to all at the end of the epoch, and so is one that never begins.
#[test]
fn what_one_rank_does_ends_all() {
    let (x, y) = data();
    let on_second = |act: AtEnd, batch_size: usize| -> Vec<Result<History>> {
        std::thread::scope(|scope| {
            let (x, y) = (&x, &y);
            let train = move |ranks: ThreadRanks| {
                let is_second = ranks.rank() == 1;
                let (mut acts, size) = if is_second { (Acts(act), batch_size) } else { (Acts(AtEnd::Nothing), 4) };
                let options =
                    FitOptions { ranks: Some(&ranks), callbacks: vec![&mut acts], batch_size: size, ..epochs(5) };
                let trained = model(1).fit(x, y, options);
                // Ranks that stay: as with MPI, whoever waits for one is not told that it has gone.
                std::mem::forget(ranks);
                trained
            };
            let threads: Vec<_> =
                thread_ranks(2).unwrap().into_iter().map(|ranks| scope.spawn(move || train(ranks))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    };
    for history in on_second(AtEnd::Stop, 4) {
        let history = history.unwrap();
        assert_eq!((history.loss.len(), history.outcome), (2, Outcome::Interrupted));
    }
    let text =
        |trained: &[Result<History>]| trained.iter().map(|t| t.as_ref().unwrap_err().to_string()).collect::<Vec<_>>();
    let said = text(&on_second(AtEnd::Fail, 4));
    assert!(said[0].contains("rank 1") && said[1].contains("disk"), "{said:?}");
    let said = text(&on_second(AtEnd::OtherRate, 4));
    assert!(said.iter().all(|said| said.contains("learning rate on rank")), "{said:?}");
    let said = text(&on_second(AtEnd::Nothing, 0));
    assert!(said[0].contains("rank 1") && said[1].contains("batch_size"), "{said:?}");
}
