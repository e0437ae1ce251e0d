//! Losses: their gradients, quantiles, those of one's own, CTC, and what is refused.

use fused_rnn::loss::{Ctc, CtcStrategy, CustomLoss, LossFunction, LossUnit, Observation, ctc_decode};
use fused_rnn::model::{FitOptions, Graph, Model, Sequential};
use fused_rnn::nn::{Dense, Embedding, Flatten, GlobalAveragePooling1D, Loss, Lstm, Masking, Random, Reshape};
use fused_rnn::optim::{Adam, Sgd};
use fused_rnn::{DType, Device, Error, Result};
use ndarray::{Array2, Array3, array};

/// Every loss of Keras's with constants of its own, and what its targets and predictions may be.
fn all() -> Vec<(Loss, [f64; 2], [f64; 2])> {
    let (any, parts, counts) = ([-2.0, 2.0], [0.05, 0.95], [0.2, 3.0]);
    let smooth = |loss: Loss| loss.label_smoothing(0.2).unwrap();
    vec![
        (Loss::MeanSquaredError, any, any),
        (Loss::MeanAbsoluteError, any, any),
        (Loss::Huber { delta: 0.7 }, any, any),
        (Loss::BinaryCrossentropy { from_logits: true }, parts, any),
        (Loss::BinaryCrossentropy { from_logits: false }, parts, parts),
        (Loss::CategoricalCrossentropy { from_logits: true }, parts, any),
        (Loss::CategoricalCrossentropy { from_logits: false }, parts, parts),
        (Loss::MeanAbsolutePercentageError, counts, any),
        (Loss::MeanSquaredLogarithmicError, counts, counts),
        (Loss::LogCosh, any, any),
        (Loss::Poisson, counts, counts),
        (Loss::KlDivergence, parts, parts),
        (Loss::CosineSimilarity, any, any),
        (Loss::Hinge, any, any),
        (Loss::SquaredHinge, any, any),
        (Loss::CategoricalHinge, parts, any),
        (Loss::quantiles(&[0.3]).unwrap(), any, any),
        (Loss::quantiles(&[0.1, 0.5, 0.7, 0.9]).unwrap(), any, any),
        (smooth(Loss::BinaryCrossentropy { from_logits: true }), parts, any),
        (smooth(Loss::BinaryCrossentropy { from_logits: false }), parts, parts),
        (smooth(Loss::CategoricalCrossentropy { from_logits: true }), parts, any),
        (smooth(Loss::CategoricalCrossentropy { from_logits: false }), parts, parts),
        (Loss::BinaryFocalCrossentropy { from_logits: true, alpha: Some(0.7), gamma: 1.5 }, parts, any),
        (Loss::BinaryFocalCrossentropy { from_logits: false, alpha: None, gamma: 2.0 }, parts, parts),
        (Loss::BinaryFocalCrossentropy { from_logits: false, alpha: None, gamma: 0.0 }, parts, parts),
        (Loss::CategoricalFocalCrossentropy { from_logits: true, alpha: 0.6, gamma: 1.3 }, parts, any),
        (Loss::CategoricalFocalCrossentropy { from_logits: false, alpha: 0.25, gamma: 2.0 }, parts, parts),
    ]
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let mut random = Random::new(1, 0);
    let (rows, columns, step) = (3, 4, 1e-5);
    for (loss, of_targets, of_predictions) in all() {
        let mut draw = |n: usize, [low, high]: [f64; 2]| -> Vec<f64> {
            (0..n).map(|_| low + (high - low) * random.uniform()).collect()
        };
        let targets = draw(if loss.has_one_target_a_row() { rows } else { rows * columns }, of_targets);
        let predictions = draw(rows * columns, of_predictions);
        for weights in [None, Some([0.5, 2.0, 0.0])] {
            let value = |p: &[f64]| match &weights {
                None => loss.value(columns, &targets, p).unwrap(),
                Some(weights) => loss.weighted(columns, &targets, p, weights, None).unwrap(),
            };
            let mut gradient = vec![f64::NAN; predictions.len()];
            let got = match &weights {
                None => loss.gradient(columns, &targets, &predictions, &mut gradient).unwrap(),
                Some(weights) => loss.weighted(columns, &targets, &predictions, weights, Some(&mut gradient)).unwrap(),
            };
            assert!((got - value(&predictions)).abs() <= 1e-12 * got.abs().max(1.0), "{loss:?}");
            for (i, slope) in gradient.iter().enumerate() {
                let at = |d: f64| {
                    let mut moved = predictions.clone();
                    moved[i] += d;
                    value(&moved)
                };
                let difference = (at(step) - at(-step)) / (2.0 * step);
                assert!((slope - difference).abs() < 1e-7 * (1.0 + slope.abs()), "{loss:?} {i}: {slope} {difference}");
            }
        }
    }
}

/// A power below 1 has an infinite slope at 0: what is certain and right has none.
#[test]
fn focal_losses_have_finite_slopes_where_a_probability_is_0_or_1() {
    for gamma in [0.0, 0.5, 1.0, 2.0] {
        for from_logits in [false, true] {
            let (low, high) = if from_logits { (-800.0, 800.0) } else { (0.0, 1.0) };
            let loss = Loss::BinaryFocalCrossentropy { from_logits, alpha: None, gamma };
            let mut gradient = [f64::NAN; 4];
            let value = loss.gradient(1, &[0.0, 1.0, 0.0, 1.0], &[low, high, high, low], &mut gradient).unwrap();
            assert!(value.is_finite() && gradient.iter().all(|slope| slope.is_finite()), "{gamma} {gradient:?}");
            assert_eq!(gradient[..2], [0.0; 2], "{gamma}");
        }
    }
}

/// The examples of scikit-learn's
/// [`mean_pinball_loss`](https://scikit-learn.org/stable/modules/generated/sklearn.metrics.mean_pinball_loss.html).
#[test]
fn quantiles_are_scikit_learns() {
    let t = [1.0, 2.0, 3.0];
    for (level, p, expected) in [
        (0.1, [0.0, 2.0, 3.0], 0.1 / 3.0),
        (0.1, [1.0, 2.0, 4.0], 0.3),
        (0.9, [0.0, 2.0, 3.0], 0.3),
        (0.9, [1.0, 2.0, 4.0], 0.1 / 3.0),
    ] {
        let got = Loss::quantiles(&[level]).unwrap().value(1, &t, &p).unwrap();
        assert!((got - expected).abs() < 1e-15, "{level} {p:?}: {got} {expected}");
    }
    // Several quantiles: a row of predictions for each target, the mean of what each quantile costs alone.
    let several = Loss::quantiles(&[0.1, 0.9]).unwrap();
    let got = several.value(2, &t, &[0.0, 1.0, 2.0, 2.0, 3.0, 4.0]).unwrap();
    assert!((got - 0.1 / 3.0).abs() < 1e-15, "{got}");
    let error = several.value(3, &[1.0], &[0.0, 1.0, 2.0]).unwrap_err().to_string();
    assert!(error.contains("2 columns, one for each quantile of [0.1, 0.9]"), "{error}");
}

/// Constant predictions learn the quantiles of their targets.
#[test]
fn a_model_learns_quantiles() -> Result<()> {
    let mut model = Sequential::new(Device::cpu(), &[1], 1)?;
    model.add(Dense::new(3))?;
    model.compile(Adam::new(0.05)?, Loss::quantiles(&[0.1, 0.5, 0.9])?)?;
    let x = Array2::<f32>::zeros((200, 1));
    let y: Vec<f32> = (0..200).map(|i| i as f32 / 200.0).collect();
    let y = ndarray::Array1::from(y);
    model.fit(&x, &y, FitOptions { epochs: 100, batch_size: 50, ..FitOptions::default() })?;
    let learned = model.predict(&array![[0.0f32]])?;
    for (got, expected) in learned.iter().zip([0.1, 0.5, 0.9]) {
        assert!((got - expected).abs() < 0.06, "{learned:?}");
    }
    // One target a row, or one too many.
    let error = model.fit(&x, &Array2::<f32>::zeros((200, 3)), FitOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
    Ok(())
}

#[test]
fn what_cannot_be_is_refused_where_it_is_set() -> Result<()> {
    let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
    let error = model.compile(Adam::default(), Loss::MeanSquaredError).err().expect("no layers").to_string();
    assert!(error.contains("add them before it is compiled"), "{error}");
    model.add(Dense::new(2))?;
    for delta in [-1.0, 0.0, f64::NAN, f64::INFINITY] {
        let error = model.compile(Adam::default(), Loss::Huber { delta }).err().expect("refused").to_string();
        assert!(error.contains("delta of the Huber loss"), "{error}");
        assert!(model.losses(&[(Loss::Huber { delta }, 1.0)]).is_err());
    }
    let adam = Adam { learning_rate: f64::NAN, ..Adam::default() };
    assert!(model.compile(adam, Loss::MeanSquaredError).is_err());
    for loss in [
        Loss::SmoothedBinaryCrossentropy { from_logits: true, label_smoothing: 1.5 },
        Loss::BinaryFocalCrossentropy { from_logits: true, alpha: Some(-0.1), gamma: 2.0 },
        Loss::CategoricalFocalCrossentropy { from_logits: true, alpha: 0.5, gamma: f64::NAN },
    ] {
        assert!(model.compile(Adam::default(), loss).is_err(), "{loss:?}");
    }
    assert!(Loss::MeanSquaredError.label_smoothing(0.1).is_err());
    assert!(matches!(model.compile(Adam::default(), Loss::quantiles(&[0.1, 0.5, 0.9])?), Err(Error::Shape { .. })));
    assert!(matches!(model.compile(Adam::default(), Ctc::new(0, 2)?), Err(Error::Shape { .. })));

    let x = Array2::<f32>::zeros((4, 2));
    for (loss, bad, word) in [
        (Loss::BinaryCrossentropy { from_logits: true }, 2.0, "0 to 1"),
        (Loss::BinaryFocalCrossentropy { from_logits: true, alpha: None, gamma: 2.0 }, -0.5, "0 to 1"),
        (Loss::Hinge, 0.5, "-1 or 1"),
    ] {
        model.compile(Adam::default(), loss)?;
        let mut y = Array2::<f32>::ones((4, 2));
        let options = || FitOptions { batch_size: 4, ..FitOptions::default() };
        model.fit(&x, &y, options())?;
        y[[2, 1]] = bad;
        let error = model.fit(&x, &y, options()).unwrap_err().to_string();
        assert!(error.contains("sample 2") && error.contains(word), "{error}");
    }
    Ok(())
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    for (loss, ..) in all() {
        let (t, p) = ([0.5f64; 12], [0.5f64; 12]);
        assert!(matches!(loss.value(0, &t, &p), Err(Error::ZeroSize { .. })), "{loss:?}");
        assert!(matches!(loss.value(4, &t[..0], &p[..0]), Err(Error::ZeroSize { .. })), "{loss:?}");
        assert!(loss.value(4, &t[..5], &p).is_err() && loss.value(5, &t, &p).is_err(), "{loss:?}");
        assert!(loss.gradient(4, &t, &p, &mut [0.0; 11]).is_err(), "{loss:?}");
        assert!(loss.weighted(4, &t, &p, &[1.0; 2], None).is_err(), "{loss:?}");
        assert!(loss.weighted(4, &t, &p, &[1.0; 3], Some(&mut [0.0; 3])).is_err(), "{loss:?}");
    }
    let sparse = Loss::SparseCategoricalCrossentropy { from_logits: true };
    assert!(sparse.value(3, &[3.0], &[0.1, 0.2, 0.3]).is_err());
}

/// The mean squared error as a loss of one's own.
struct Squares(LossUnit);

impl CustomLoss for Squares {
    fn name(&self) -> &str {
        "squares"
    }
    fn unit(&self) -> LossUnit {
        self.0
    }
    fn value(&self, of: &Observation<'_>) -> Result<f64> {
        let pairs = of.predictions.iter().zip(of.targets);
        Ok(pairs.map(|(p, t)| (p - t) * (p - t)).sum::<f64>() / of.predictions.len() as f64)
    }
    fn gradient(&self, of: &Observation<'_>, gradient: &mut [f64]) -> Result<f64> {
        let count = of.predictions.len() as f64;
        for ((g, p), t) in gradient.iter_mut().zip(of.predictions).zip(of.targets) {
            *g = 2.0 * (p - t) / count;
        }
        self.value(of)
    }
}

/// The same training as by the built-in loss: with weights of samples, and by rows with a mask.
#[test]
fn a_loss_of_ones_own_trains_like_the_built_in_one() -> Result<()> {
    let mut random = Random::new(3, 0);
    let x = Array3::from_shape_fn((12, 5, 2), |(n, t, _)| if t > n % 5 { 0.0 } else { random.normal() });
    let y = Array3::from_shape_fn((12, 5, 3), |_| random.normal());
    let train = |loss: LossFunction, masked: bool, steps: bool| -> Result<(Vec<f64>, Vec<f64>, f64)> {
        let mut model = Sequential::new(Device::cpu().with_dtype(DType::F64)?, &[5, 2], 1)?;
        if masked {
            model.add(Masking::new(0.0))?;
        }
        model.add(Lstm::new(4).return_sequences(true))?.add(Dense::new(3))?;
        model.compile(Sgd::new(0.1)?, loss)?;
        let by_sample = ndarray::Array1::from_shape_fn(12, |n| 0.25 * n as f64);
        let by_step = Array2::from_shape_fn((12, 5), |(n, t)| (n + t) as f64 / 8.0);
        let options = FitOptions {
            epochs: 3,
            batch_size: 4,
            validation_split: 0.25,
            sample_weight: vec![if steps { (&by_step).into() } else { (&by_sample).into() }],
            ..FitOptions::default()
        };
        let history = model.fit(&x, &y, options)?;
        let losses = history.loss.iter().chain(&history.val_loss).copied().collect();
        Ok((losses, model.flat_weights()?, model.evaluate(&x, &y)?))
    };
    let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-12 * (1.0 + a.abs()));
    for masked in [false, true] {
        for steps in [false, true] {
            let expected = train(Loss::MeanSquaredError.into(), masked, steps)?;
            let got = train(LossFunction::own(Squares(LossUnit::Row)), masked, steps)?;
            assert!(close(&got.0, &expected.0) && close(&got.1, &expected.1), "{masked} {steps}");
            assert!((got.2 - expected.2).abs() < 1e-12);
            let closure = LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)));
            assert!(close(&train(closure, masked, steps)?.1, &expected.1));
        }
    }
    let expected = train(Loss::MeanSquaredError.into(), false, false)?;
    let got = train(LossFunction::own(Squares(LossUnit::Sample)), false, false)?;
    assert!(close(&got.0, &expected.0) && close(&got.1, &expected.1));
    // Weights of steps cannot be those of samples.
    assert!(train(LossFunction::own(Squares(LossUnit::Sample)), false, true).is_err());
    Ok(())
}

#[test]
fn a_file_needs_losses_of_ones_own_again() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
    model.add(Dense::new(1))?;
    model.compile(Adam::default(), LossFunction::own(Squares(LossUnit::Row)))?;
    let (x, y) = (array![[1.0f32, 2.0], [3.0, 4.0]], array![[1.0f32], [2.0]]);
    model.fit(&x, &y, FitOptions { batch_size: 2, ..FitOptions::default() })?;
    model.save(&path)?;
    let error = Model::load(Device::cpu(), &path).err().expect("refused").to_string();
    assert!(error.contains("squares") && error.contains("load_with_losses"), "{error}");
    let other = LossFunction::of_elements("others", |_, _| (0.0, 0.0));
    assert!(Model::load_with_losses(Device::cpu(), &path, &[other]).is_err());
    let own = LossFunction::own(Squares(LossUnit::Row));
    let mut loaded = Model::load_with_losses(Device::cpu(), &path, &[own])?;
    assert_eq!(loaded.evaluate(&x, &y)?, model.evaluate(&x, &y)?);
    loaded.fit(&x, &y, FitOptions { batch_size: 2, ..FitOptions::default() })?;
    model.fit(&x, &y, FitOptions { batch_size: 2, ..FitOptions::default() })?;
    assert_eq!(loaded.flat_weights::<f32>()?, model.flat_weights::<f32>()?);

    // Built-in ones need nothing. Some are of several classes.
    let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
    model.add(Dense::new(2))?;
    let quantile = Loss::quantiles(&[0.25])?;
    for loss in all().into_iter().map(|(loss, ..)| loss).filter(|loss| !loss.has_one_target_a_row()).chain([quantile]) {
        model.compile(Adam::default(), loss)?;
        model.save(&path)?;
        assert!(Model::load(Device::cpu(), &path).is_ok(), "{loss:?}");
    }
    Ok(())
}

/// Errors of a loss of one's own, and those of metrics beside one of whole samples.
#[test]
fn errors_of_a_loss_of_ones_own_come_through() -> Result<()> {
    struct Never;
    impl CustomLoss for Never {
        fn name(&self) -> &str {
            "never"
        }
        fn value(&self, _: &Observation<'_>) -> Result<f64> {
            Err(Error::InvalidOption {
                option: "target".to_owned(),
                expected: "none".to_owned(),
                got: "one".to_owned(),
            })
        }
        fn gradient(&self, of: &Observation<'_>, _: &mut [f64]) -> Result<f64> {
            self.value(of)
        }
    }
    let options = || FitOptions { batch_size: 3, shuffle: false, ..FitOptions::default() };
    let mut model = Sequential::new(Device::cpu(), &[2], 1)?;
    model.add(Dense::new(1))?;
    model.compile(Adam::default(), LossFunction::own(Never))?;
    let error = model.fit(&Array2::<f32>::zeros((3, 2)), &Array2::<f32>::zeros((3, 1)), options());
    assert!(error.unwrap_err().to_string().contains("target of row 0 of the batch"));
    model.compile(Adam::default(), LossFunction::own(Squares(LossUnit::Sample)))?;
    model.metrics(&["mse".parse()?]);
    let error = model.fit(&Array2::<f32>::zeros((3, 2)), &Array2::<f32>::zeros((3, 1)), options());
    assert!(matches!(error, Err(Error::Unsupported { .. })));
    Ok(())
}

/// What PyTorch and Keras make of the cases of `tests/fixtures/ctc.json`.
#[test]
fn ctc_is_pytorchs_and_kerass() {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/ctc.json")).unwrap();
    let file: serde_json::Value = serde_json::from_str(&text).unwrap();
    let cases = file["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 5);
    for case in cases {
        let name = case["name"].as_str().unwrap();
        let size = |key: &str| case[key].as_u64().unwrap() as usize;
        let numbers = |key: &str| -> Vec<f64> { serde_json::from_value(case[key].clone()).unwrap() };
        let labels: Vec<Vec<usize>> = serde_json::from_value(case["labels"].clone()).unwrap();
        let lengths: Vec<usize> = serde_json::from_value(case["lengths"].clone()).unwrap();
        let shape = (labels.len(), size("steps"), size("classes"));
        let logits = Array3::from_shape_vec(shape, numbers("logits")).unwrap();
        let (losses, gradient) = Ctc::new(0, 1).unwrap().gradient(logits.view(), &labels, &lengths).unwrap();
        for (got, expected) in losses.iter().zip(numbers("losses")) {
            assert!((got - expected).abs() < 1e-11, "{name}: {got} {expected}");
        }
        for (got, expected) in gradient.iter().zip(numbers("gradient")) {
            assert!((got - expected).abs() < 1e-11, "{name}: {got} {expected}");
        }
        // Logarithms of probabilities are logits too.
        let log = logits.map_axis(ndarray::Axis(2), |row| row.mapv(f64::exp).sum().ln());
        let log = &logits - &log.insert_axis(ndarray::Axis(2));
        let of_log = Ctc::new(0, 1).unwrap().losses(log.view(), &labels, &lengths).unwrap();
        assert!(of_log.iter().zip(&losses).all(|(a, b)| (a - b).abs() < 1e-11), "{name}");

        let greedy: Vec<Vec<Vec<usize>>> = serde_json::from_value(case["greedy"].clone()).unwrap();
        let got = ctc_decode(logits.view(), &lengths, 0, CtcStrategy::Greedy).unwrap();
        let got_labels: Vec<Vec<Vec<usize>>> =
            got.iter().map(|paths| paths.iter().map(|path| path.labels.clone()).collect()).collect();
        assert_eq!(got_labels, greedy, "{name}");
        let search = CtcStrategy::BeamSearch { width: 200, top_paths: 3 };
        let got = ctc_decode(logits.view(), &lengths, 0, search).unwrap();
        let expected: Vec<Vec<Vec<usize>>> = serde_json::from_value(case["beam_search"].clone()).unwrap();
        let scores: Vec<Vec<f64>> = serde_json::from_value(case["scores"].clone()).unwrap();
        for ((paths, expected), scores) in got.iter().zip(&expected).zip(&scores) {
            for ((path, expected), score) in paths.iter().zip(expected).zip(scores) {
                assert_eq!(&path.labels, expected, "{name}");
                assert!((path.log_probability - score).abs() < 1e-4, "{name}: {} {score}", path.log_probability);
            }
        }
        // With a beam that keeps everything, a path's probability is that of the loss.
        let best = ctc_decode(logits.view(), &lengths, 0, CtcStrategy::BeamSearch { width: 100_000, top_paths: 1 });
        for (sample, paths) in best.unwrap().iter().enumerate() {
            let one = logits.slice(ndarray::s![sample..sample + 1, .., ..]);
            let loss =
                Ctc::new(0, 1).unwrap().losses(one, &[paths[0].labels.clone()], &lengths[sample..][..1]).unwrap();
            assert!((loss[0] + paths[0].log_probability).abs() < 1e-9, "{name}");
        }
    }
}

/// In a model: the gradient by finite differences in f64, and the mask as the length of the input.
#[test]
fn ctc_trains_a_model() -> Result<()> {
    let mut random = Random::new(5, 0);
    let device = Device::reference().with_dtype(DType::F64)?;
    let mut graph = Graph::new(device.clone(), 1);
    let index = graph.input("index", &[1])?;
    let table = graph.add(Embedding::new(2, 6 * 4), &[&index])?;
    let flat = graph.add(Flatten {}, &[&table])?;
    let logits = graph.add(Reshape::new(&[6, 4]), &[&flat])?;
    let mut model = graph.model(&[&logits])?;
    model.compile(Sgd::new(0.5)?, Ctc::new(3, 3)?)?;
    let values: Vec<f64> = (0..48).map(|_| random.normal()).collect();
    let (x, y) = (array![[0.0f64], [1.0]], array![[0.0f64, 0.0, 2.0], [1.0, 3.0, -1.0]]);
    model.set_flat_weights(&values)?;
    let (loss, gradient) = model.loss_gradient(&x, &y)?;
    assert!((loss - model.evaluate(&x, &y)?).abs() < 1e-12);
    for i in 0..48 {
        let mut at = |d: f64| -> Result<f64> {
            let mut moved = values.clone();
            moved[i] += d;
            model.set_flat_weights(&moved)?;
            model.evaluate(&x, &y)
        };
        let difference = (at(1e-5)? - at(-1e-5)?) / 2e-5;
        assert!((gradient[i] - difference).abs() < 1e-9, "{i}: {} {difference}", gradient[i]);
    }
    model.set_flat_weights(&values)?;
    let history = model.fit(&x, &y, FitOptions { epochs: 60, batch_size: 2, ..FitOptions::default() })?;
    assert!(history.loss[59] < 0.2 * history.loss[0], "{:?}", history.loss);
    let decoded = ctc_decode(
        model.predict(&x)?.into_dimensionality().unwrap().view(),
        &[6, 6],
        3,
        CtcStrategy::BeamSearch { width: 10, top_paths: 1 },
    )?;
    assert_eq!((&decoded[0][0].labels[..], &decoded[1][0].labels[..]), (&[0, 0, 2][..], &[1][..]));
    // A file holds it.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("ctc.safetensors");
    model.save(&path)?;
    assert_eq!(Model::load(device, &path)?.evaluate(&x, &y)?, model.evaluate(&x, &y)?);

    for (bad, word) in [
        (array![[0.0f64, 1.0, 2.0], [4.0, 3.0, 3.0]], "sample 1"),
        (array![[0.5f64, 1.0, 2.0], [1.0, 3.0, 3.0]], "sample 0"),
        (array![[0.0f64, 3.0, 2.0], [1.0, 3.0, 3.0]], "padding"),
    ] {
        let error = model.evaluate(&x, &bad).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    Ok(())
}

#[test]
fn the_mask_is_the_length_of_the_input() -> Result<()> {
    let mut random = Random::new(6, 0);
    let mut x = Array3::from_shape_fn((2, 7, 3), |_| random.normal() as f32);
    x.slice_mut(ndarray::s![1, 4.., ..]).fill(-9.0);
    let mut model = Sequential::new(Device::cpu(), &[7, 3], 1)?;
    model.add(Masking::new(-9.0))?.add(Lstm::new(5).return_sequences(true))?.add(Dense::new(4))?;
    model.compile(Adam::default(), Ctc::new(0, 2)?)?;
    let y = array![[1.0f32, 2.0], [3.0, 0.0]];
    let logits = model.predict(&x)?.into_dimensionality::<ndarray::Ix3>().unwrap();
    let losses = Ctc::new(0, 2)?.losses(logits.view(), &[vec![1, 2], vec![3]], &[7, 4])?;
    assert!((model.evaluate(&x, &y)? - losses.mean().unwrap()).abs() < 1e-6);
    let weights = array![2.0f32, 0.5];
    let history = model.fit(
        &x,
        &y,
        FitOptions { sample_weight: vec![(&weights).into()], batch_size: 2, ..FitOptions::default() },
    )?;
    assert!((history.loss[0] - (2.0 * losses[0] + 0.5 * losses[1]) / 2.0).abs() < 1e-6);
    // Labels that need more steps than are valid.
    let error = model.evaluate(&x, &array![[1.0f32, 2.0], [3.0, 3.0]]);
    assert!(error.is_ok(), "three steps are needed, four are there");
    x.slice_mut(ndarray::s![1, 2.., ..]).fill(-9.0);
    let error = model.evaluate(&x, &array![[1.0f32, 2.0], [3.0, 3.0]]).unwrap_err().to_string();
    assert!(error.contains("sample 1") && error.contains("at most 2 labels"), "{error}");
    Ok(())
}

#[test]
fn targets_that_a_loss_refuses_are_named_by_their_sample_of_all() -> Result<()> {
    fn refused(loss: impl Into<LossFunction>, y: &Array2<f32>) -> Result<String> {
        let mut model = Sequential::new(Device::cpu(), &[6, 3], 1)?;
        model.add(Dense::new(4))?;
        let loss = loss.into();
        if loss.unit() == LossUnit::Row {
            model.add(GlobalAveragePooling1D {})?.add(Dense::new(4))?;
        }
        model.compile(Adam::default(), loss)?;
        let x = Array3::<f32>::zeros((y.nrows(), 6, 3));
        let before = model.flat_weights::<f32>()?;
        let options = FitOptions { batch_size: 4, ..FitOptions::default() };
        let error = match y.ncols() {
            1 => model.fit(&x, &y.column(0).to_owned(), options).unwrap_err(),
            _ => model.fit(&x, y, options).unwrap_err(),
        };
        assert_eq!(model.flat_weights::<f32>()?, before, "nothing is trained");
        Ok(error.to_string())
    }
    let with = |columns: usize, row: usize, column: usize, value: f32| {
        let mut y = Array2::<f32>::zeros((20, columns));
        y[[row, column]] = value;
        y
    };
    for bad in [4.0, -1.0, 0.5, f32::NAN] {
        let message = refused(Loss::SparseCategoricalCrossentropy { from_logits: true }, &with(1, 17, 0, bad))?;
        assert!(message.contains("y, sample 17") && message.contains("below the 4"), "{message}");
    }
    for (y, words) in [
        (with(7, 13, 0, 9.0), ["label 0", "a whole number below 4"]),
        (with(7, 13, 1, 2.0), ["label 1", "padding"]),
        (
            {
                let mut y = with(7, 13, 0, 1.0);
                y.row_mut(13).fill(1.0);
                y
            },
            ["labels", "at most 6 labels"],
        ),
    ] {
        let message = refused(Ctc::new(0, 7)?, &y)?;
        assert!(message.contains("of sample 13 of y") && words.iter().all(|w| message.contains(w)), "{message}");
    }
    struct Positive;
    impl CustomLoss for Positive {
        fn name(&self) -> &str {
            "positive"
        }
        fn check_targets(&self, targets: &[f64], output: &[usize]) -> Result<()> {
            assert_eq!(output, [4]);
            match targets.iter().find(|t| **t < 0.0) {
                None => Ok(()),
                Some(t) => Err(Error::InvalidOption {
                    option: "target".to_owned(),
                    expected: "a positive number".to_owned(),
                    got: t.to_string(),
                }),
            }
        }
        fn value(&self, _: &Observation<'_>) -> Result<f64> {
            Ok(0.0)
        }
        fn gradient(&self, _: &Observation<'_>, _: &mut [f64]) -> Result<f64> {
            Ok(0.0)
        }
    }
    let message = refused(LossFunction::own(Positive), &with(4, 11, 2, -1.0))?;
    assert!(message.contains("target of sample 11 of y (targets of positive)"), "{message}");
    Ok(())
}

#[test]
fn what_ctc_cannot_be_of_is_named() {
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut logits = Array3::<f32>::zeros((1, 4, 3));
        logits.slice_mut(ndarray::s![0, 2, ..]).fill(value);
        let error = ctc_decode(logits.view(), &[4], 0, CtcStrategy::Greedy).unwrap_err().to_string();
        assert!(error.contains("sample 0, step 2"), "{error}");
        // Steps after the end do not count.
        assert!(ctc_decode(logits.view(), &[2], 0, CtcStrategy::Greedy).is_ok());
    }
    let logits = Array3::<f32>::zeros((1, 4, 3));
    let ctc = Ctc { blank: 0, labels: 2 };
    let losses = |labels: &[Vec<usize>], lengths: &[usize]| ctc.losses(logits.view(), labels, lengths);
    assert!(losses(&[vec![1]], &[4]).is_ok());
    for (labels, lengths) in [
        (vec![], vec![4]),
        (vec![vec![1]], vec![]),
        (vec![vec![1]], vec![5]),
        (vec![vec![1]], vec![0]),
        (vec![vec![3]], vec![4]),
        (vec![vec![0]], vec![4]),
        (vec![vec![1, 1, 1]], vec![4]),
    ] {
        assert!(losses(&labels, &lengths).is_err(), "{labels:?} {lengths:?}");
    }
    assert!(Ctc { blank: 3, labels: 2 }.losses(logits.view(), &[vec![1]], &[4]).is_err() && Ctc::new(0, 0).is_err());
    let decode = |lengths: &[usize], blank, width, top_paths| {
        ctc_decode(logits.view(), lengths, blank, CtcStrategy::BeamSearch { width, top_paths })
    };
    assert!(decode(&[4], 0, 5, 2).is_ok());
    for (lengths, blank, width, paths) in
        [(&[4][..], 3, 5, 2), (&[5], 0, 5, 2), (&[], 0, 5, 2), (&[4], 0, 0, 0), (&[4], 0, 1, 2), (&[4], 0, 2, 0)]
    {
        assert!(decode(lengths, blank, width, paths).is_err());
    }
    let nan = Array3::from_elem((1, 2, 3), f64::NAN);
    assert!(matches!(ctc_decode(nan.view(), &[2], 0, CtcStrategy::Greedy), Err(Error::NonFinite { .. })));
}
