//! The model layer through its public API.

use crate::common::damage::write_anew;
use crate::common::{cpu, reference};
use crate::weights;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::data::{Gaps, Scaler, windows};
use fused_rnn::model::{
    BatchEnd, Callback, EarlyStopping, EpochEnd, FitOptions, ForecastConfig, Forecaster, Known, KnownColumn, Outcome,
    SeenSeries, Sequential, Training,
};
use fused_rnn::nn::{Dense, Gru, LayerConfig, Loss, Lstm, Random, SimpleRnn};
use fused_rnn::optim::Adam;
use fused_rnn::{DType, Device, Error};
use ndarray::{Array2, Array3, ArrayD, IxDyn, s};
use proptest::prelude::*;
use std::ops::ControlFlow;
use std::path::Path;

fn model(dtype: DType, input_shape: &[usize], layers: &[LayerConfig]) -> Sequential {
    let mut model = Sequential::new(reference(dtype), input_shape, 7).unwrap();
    for layer in layers {
        model.add(layer.clone()).unwrap();
    }
    model
}

fn random_array(shape: &[usize], seed: u64) -> ArrayD<f64> {
    let mut random = Random::new(seed, 99);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || random.normal())
}

fn sine(len: usize) -> Vec<f32> {
    (0..len).map(|t| (t as f32 * 0.3).sin()).collect()
}

#[test]
fn parameter_counts_are_kerass() {
    for (layers, features, counts) in [
        (vec![Lstm::new(50).into()], 1, 10_400),
        (vec![Lstm::new(50).into(), Dense::new(5).into()], 1, 10_655),
        (vec![Gru::new(50).into()], 1, 7_950),
        (vec![SimpleRnn::new(50).into()], 1, 2_600),
        (vec![Lstm::new(50).return_sequences(true).into(), Lstm::new(50).into(), Dense::new(1).into()], 1, 30_651),
        (vec![LayerConfig::from(Lstm::new(100)), Dense::new(9).into()], 12, 46_109),
    ] {
        assert_eq!(model(DType::F32, &[10, features], &layers).count_params(), counts, "{layers:?}");
    }
}

#[test]
fn summary_is_kerass_table() {
    let model = model(
        DType::F32,
        &[10, 1],
        &[Lstm::new(50).return_sequences(true).into(), Lstm::new(50).into(), Dense::new(5).into()],
    );
    let expected = "\
Model: \"sequential\"
┏━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━┓
┃ Layer (type)                    ┃ Output Shape           ┃       Param # ┃
┡━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━┩
│ lstm (LSTM)                     │ (None, 10, 50)         │        10,400 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ lstm_1 (LSTM)                   │ (None, 50)             │        20,200 │
├─────────────────────────────────┼────────────────────────┼───────────────┤
│ dense (Dense)                   │ (None, 5)              │           255 │
└─────────────────────────────────┴────────────────────────┴───────────────┘
 Total params: 30,855 (120.53 KB)
 Trainable params: 30,855 (120.53 KB)
 Non-trainable params: 0 (0.00 B)
";
    assert_eq!(model.summary(), expected);
}

/// Central differences of the loss by every weight of stacks of every layer, in f64.
#[test]
fn gradients_of_whole_models() {
    let stacks: [(&[usize], Vec<LayerConfig>); 6] = [
        (&[4, 2], vec![SimpleRnn::new(3).into(), Dense::new(2).into()]),
        (&[4, 2], vec![Lstm::new(3).into(), Dense::new(2).into()]),
        (&[4, 2], vec![Gru::new(3).into(), Dense::new(2).into()]),
        (
            &[3, 1],
            vec![
                Lstm::new(3).return_sequences(true).into(),
                Gru::new(2).return_sequences(true).into(),
                SimpleRnn::new(2).into(),
            ],
        ),
        (&[3, 2], vec![Gru::new(3).return_sequences(true).into(), Dense::new(2).into(), Lstm::new(2).into()]),
        // Wide enough for the matrix products rather than the plain loops.
        (&[64], vec![Dense::new(48).into(), Dense::new(1).into()]),
    ];
    for (input_shape, layers) in stacks {
        let mut model = model(DType::F64, input_shape, &layers);
        let batch = 5;
        let shape = |sample: &[usize]| [&[batch], sample].concat();
        let (x, y) = (random_array(&shape(input_shape), 1), random_array(&shape(model.output_shape()), 2));
        let (loss, gradient) = model.loss_gradient(x.view(), y.view()).unwrap();
        let gradient = gradient.to_vec();
        assert!((loss - model.evaluate(x.view(), y.view()).unwrap()).abs() < 1e-14);
        let weights = weights(&model);
        let step = 1e-5;
        let stride = (weights.len() / 300).max(1);
        for i in (0..weights.len()).step_by(stride) {
            let mut at = |offset: f64| {
                let mut moved = weights.clone();
                moved[i] += offset;
                model.set_flat_weights(&moved).unwrap();
                model.evaluate(x.view(), y.view()).unwrap()
            };
            let slope = (at(step) - at(-step)) / (2.0 * step);
            let error = (slope - gradient[i]).abs() / (slope.abs() + gradient[i].abs()).max(1e-3);
            assert!(error < 1e-6, "{layers:?} weight {i}: differences {slope}, gradient {}", gradient[i]);
        }
    }
}

/// Starting weights are where Keras puts them.
#[test]
fn initial_weights() {
    let model = model(DType::F64, &[10, 3], &[Lstm::new(8).into(), Dense::new(2).into()]);
    for (name, shape, values) in model.weights() {
        let values: &[f64] = values.host().unwrap();
        match name.as_str() {
            "lstm.weight_ih_l0" => {
                let limit = (6.0f64 / (3.0 + 32.0)).sqrt();
                assert_eq!(shape, [32, 3]);
                assert!(values.iter().all(|v| v.abs() <= limit) && values.iter().any(|v| v.abs() > 0.9 * limit));
            }
            "lstm.weight_hh_l0" => {
                let r = Array2::from_shape_vec((32, 8), values.to_vec()).unwrap();
                let product = r.t().dot(&r);
                for ((i, j), v) in product.indexed_iter() {
                    assert!((v - f64::from(u8::from(i == j))).abs() < 1e-12);
                }
            }
            "lstm.bias_ih_l0" => {
                let expected: Vec<f64> = (0..32).map(|i| f64::from(u8::from((8..16).contains(&i)))).collect();
                assert_eq!(values, expected);
            }
            "dense.weight" => assert_eq!(shape, [2, 8]),
            "dense.bias" => assert_eq!(values, [0.0, 0.0]),
            other => panic!("{other}"),
        }
    }
}

#[test]
fn the_loss_falls_and_fit_repeats_itself() {
    let (x, y) = windows(&sine(120), 10, 1).unwrap();
    for layer in [LayerConfig::from(SimpleRnn::new(8)), Lstm::new(8).into(), Gru::new(8).into()] {
        let train = || {
            let mut model = model(DType::F32, &[10, 1], &[layer.clone(), Dense::new(1).into()]);
            model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
            let options = FitOptions { epochs: 12, batch_size: 16, ..FitOptions::default() };
            let history = model.fit(x.view(), y.view(), options).unwrap();
            (history, model)
        };
        let ((history, mut model), (again, other)) = (train(), train());
        assert_eq!(history.loss.len(), 12);
        assert!(history.loss[11] < 0.1 * history.loss[0], "{layer:?} {:?}", history.loss);
        assert!(model.evaluate(x.view(), y.view()).unwrap() < 0.1 * history.loss[0]);
        assert_eq!((history, weights(&model)), (again, weights(&other)));
    }
}

#[test]
fn arrays_need_not_be_contiguous() {
    let (x, y) = windows(&sine(60), 10, 1).unwrap();
    let mut padded = Array3::<f32>::zeros((x.shape()[0], 10, 2));
    padded.slice_mut(s![.., .., 1..]).assign(&x);
    let mut model = model(DType::F32, &[10, 1], &[Gru::new(4).into(), Dense::new(1).into()]);
    let view = padded.slice(s![.., .., 1..]);
    assert_eq!(model.predict(view).unwrap(), model.predict(x.view()).unwrap());
    assert_eq!(model.evaluate(view, y.view()).unwrap(), model.evaluate(x.view(), y.view()).unwrap());
}

#[test]
fn early_stopping_keeps_the_best_weights() {
    let (x, y) = windows(&sine(60), 10, 1).unwrap();
    // Targets that the training data contradicts: the validation loss rises as the model learns.
    let wrong = y.mapv(|v| -v);
    let mut model = model(DType::F32, &[10, 1], &[Lstm::new(8).into(), Dense::new(1).into()]);
    model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
    let options = FitOptions {
        epochs: 50,
        validation_data: Some((vec![(&x).into()], vec![(&wrong).into()])),
        early_stopping: Some(EarlyStopping { patience: 3, min_delta: 0.0, restore_best_weights: true }),
        ..FitOptions::default()
    };
    let history = model.fit(x.view(), y.view(), options).unwrap();
    let best = history.best_epoch.unwrap();
    assert_eq!(history.outcome, Outcome::EarlyStopped);
    assert_eq!(history.val_loss.len(), best + 3);
    let lowest = history.val_loss.iter().copied().fold(f64::INFINITY, f64::min);
    assert_eq!(lowest, history.val_loss[best - 1]);
    assert_eq!(model.evaluate(x.view(), wrong.view()).unwrap(), lowest);
}

struct StopAt {
    epoch: usize,
    batch: usize,
    seen: Vec<EpochEnd>,
}

impl Callback for StopAt {
    fn on_batch_end(&mut self, state: &BatchEnd) -> ControlFlow<()> {
        assert_eq!(state.batches, 4);
        if (state.epoch, state.batch) == (self.epoch, self.batch) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn on_epoch_end(&mut self, state: &EpochEnd, _: &mut dyn Training) -> fused_rnn::Result<ControlFlow<()>> {
        self.seen.push(state.clone());
        Ok(ControlFlow::Continue(()))
    }
}

#[test]
fn a_callback_sees_and_stops_training() {
    let (x, y) = windows(&sine(60), 10, 1).unwrap();
    let mut model = model(DType::F32, &[10, 1], &[Lstm::new(4).into(), Dense::new(1).into()]);
    let mut callback = StopAt { epoch: 3, batch: 2, seen: Vec::new() };
    let options = FitOptions {
        epochs: 50,
        batch_size: 13,
        early_stopping: Some(EarlyStopping { patience: 50, min_delta: 0.0, restore_best_weights: true }),
        validation_data: Some((vec![(&x).into()], vec![(&y).into()])),
        callbacks: vec![&mut callback],
        ..FitOptions::default()
    };
    let history = model.fit(x.view(), y.view(), options).unwrap();
    assert_eq!((history.outcome, history.loss.len()), (Outcome::Interrupted, 2));
    assert_eq!(callback.seen.iter().map(|e| e.loss).collect::<Vec<_>>(), history.loss);
    let best = history.best_epoch.unwrap();
    assert_eq!(
        model.evaluate(x.view(), y.view()).unwrap(),
        history.val_loss[best - 1],
        "the best epoch's weights are kept"
    );
}

#[test]
fn divergence_names_the_batch_and_keeps_the_best_model() {
    let (mut x, y) = windows(&sine(60), 10, 1).unwrap();
    let stack = [LayerConfig::from(Lstm::new(4)), Dense::new(1).into()];
    let options = || FitOptions { epochs: 5, batch_size: 10, shuffle: false, ..FitOptions::default() };

    let mut before = model(DType::F32, &[10, 1], &stack);
    let initial = weights(&before);
    x[[27, 4, 0]] = f32::NAN;
    let error = before.fit(x.view(), y.view(), options()).unwrap_err();
    assert!(matches!(error, Error::Diverged { epoch: 1, batch: 3, .. }), "{error}");
    assert!(error.to_string().contains("sample 27"), "{error}");
    assert_eq!(weights(&before), initial, "no epoch was completed");

    // A learning rate that overflows: whatever happened, what is left must be usable.
    let (x, y) = windows(&sine(60), 10, 1).unwrap();
    let mut wild = model(DType::F32, &[10, 1], &stack);
    wild.compile(Adam::new(1e38).unwrap(), Loss::MeanSquaredError).unwrap();
    let error = wild.fit(x.view(), y.view(), options()).unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(weights(&wild).iter().all(|w| w.is_finite()));
    assert!(wild.evaluate(x.view(), y.view()).unwrap().is_finite());
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let message = |error: Error| error.to_string();
    let mut model = Sequential::new(Device::reference(), &[10, 1], 7).unwrap();
    let (x, y) = windows(&sine(60), 10, 1).unwrap();
    assert!(message(model.evaluate(x.view(), y.view()).unwrap_err()).contains("layers"));
    model.add(Lstm::new(4)).unwrap();
    let text = message(model.add(Lstm::new(4)).err().unwrap());
    assert!(text.contains("lstm_1") && text.contains("[4]") && text.contains("return_sequences"), "{text}");
    model.add(Dense::new(1)).unwrap();

    let (x9, _) = windows(&sine(60), 9, 1).unwrap();
    let text = message(model.predict(x9.view()).unwrap_err());
    assert!(text.contains("x: expected [samples, 10, 1]") && text.contains("[51, 9, 1]"), "{text}");
    let (_, y2) = windows(&sine(61), 10, 2).unwrap();
    let text = message(model.fit(x.view(), y2.view(), FitOptions::default()).unwrap_err());
    assert!(text.contains("y: expected [samples, 1]") && text.contains("[50, 2]"), "{text}");
    let text = message(model.evaluate(x.view(), y.slice(s![..49, ..])).unwrap_err());
    assert!(text.contains("50 samples") && text.contains("49 samples"), "{text}");
    let none = x.slice(s![..0, .., ..]);
    assert!(matches!(model.predict(none), Err(Error::ZeroSize { .. })));
    for options in
        [FitOptions { epochs: 0, ..FitOptions::default() }, FitOptions { batch_size: 0, ..FitOptions::default() }]
    {
        assert!(matches!(model.fit(x.view(), y.view(), options), Err(Error::ZeroSize { .. })));
    }
    assert!(Sequential::new(Device::reference(), &[0usize; 0], 7).is_err());
    assert!(Sequential::new(Device::reference(), &[10, 0], 7).is_err());
    assert!(Sequential::new(Device::reference(), &[usize::MAX, 2], 7).is_err());
    let fresh = || Sequential::new(Device::reference(), &[10, 1], 7).unwrap();
    for layer in [
        LayerConfig::from(Lstm::new(0)),
        Dense::new(0).into(),
        Gru::new(1 << 60).into(),
        Dense::new(usize::MAX).into(),
        Dense::new(1 << 58).into(),
    ] {
        assert!(fresh().add(layer.clone()).is_err(), "{layer:?}");
    }
}

fn config(window: usize, horizon: usize, difference: bool) -> ForecastConfig {
    ForecastConfig {
        column: "v".to_owned(),
        gaps: Gaps::Error,
        window,
        horizon,
        difference,
        scaler: Scaler::IDENTITY,
        correction: None,
        known: Vec::new(),
        panel: None,
        inputs: Vec::new(),
        reading: Default::default(),
    }
}

fn forecaster(config: ForecastConfig) -> Forecaster {
    Forecaster::new(Device::reference(), config, Lstm::new(4), 7).unwrap()
}

/// Forecasts of one step at a time must be what the model says of its own earlier forecasts, at any horizon, with differences or not.
#[test]
fn forecasts_go_on_from_forecasts() {
    let series: Vec<f64> = (0..40).map(|t| 5.0 + (f64::from(t) * 0.3).sin()).collect();
    for (horizon, difference) in [(1, false), (1, true), (3, false), (3, true)] {
        let mut config = config(6, horizon, difference);
        config.fit_scaler(Scaler::min_max, &series).unwrap();
        let mut forecaster = forecaster(config);
        let ahead = forecaster.forecast(&series, 7).unwrap();
        assert_eq!(ahead.len(), 7);
        let mut known = series.clone();
        while known.len() < 47 {
            let next = forecaster.forecast(&known, horizon).unwrap();
            known.extend(next);
        }
        assert_eq!(ahead, known[40..47], "{horizon} {difference}");
        // And the backtest's rows are forecasts from the values before them.
        let backtest = forecaster.backtest(&series, 30..40).unwrap();
        assert_eq!(backtest.start, 30);
        assert_eq!(backtest.truth.shape(), [11 - horizon, horizon]);
        for (i, row) in backtest.forecast.outer_iter().enumerate() {
            let expected = forecaster.forecast(&series[..30 + i], horizon).unwrap();
            for (ahead, value) in row.iter().enumerate() {
                assert!((value - expected[ahead]).abs() < 1e-5);
                assert_eq!(backtest.truth[[i, ahead]], series[30 + i + ahead]);
                assert_eq!(backtest.naive[[i, ahead]], series[29 + i]);
            }
        }
        let (x, y) = forecaster.samples(&series, 30..40).unwrap();
        assert_eq!((x.shape(), y.shape()), (&[11 - horizon, 6, 1][..], &[11 - horizon, horizon][..]));
        assert!(forecaster.samples(&series, 0..6).is_err());
        assert!(forecaster.samples(&series, 39..usize::MAX).is_ok() || horizon > 1);
        assert!(forecaster.forecast(&series[..5], 1).is_err());
    }
}

fn file_in(folder: &tempfile::TempDir) -> std::path::PathBuf {
    folder.path().join("model.safetensors")
}

#[test]
fn saved_models_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    let series: Vec<f64> = (0..40).map(|t| f64::from(t).sin()).collect();
    let mut saved = forecaster(config(6, 2, true));
    saved.save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    saved.save(&path).unwrap();
    assert_eq!(bytes, std::fs::read(&path).unwrap(), "the same model, the same bytes");
    let mut loaded = Forecaster::load(Device::reference(), &path).unwrap();
    assert_eq!(loaded.config(), saved.config());
    assert_eq!(loaded.model().config().unwrap(), saved.model().config().unwrap());
    assert_eq!(loaded.forecast(&series, 5).unwrap(), saved.forecast(&series, 5).unwrap());

    let mut plain = model(DType::F64, &[4, 2], &[Gru::new(3).return_sequences(true).into(), SimpleRnn::new(2).into()]);
    plain.save(&path).unwrap();
    let x = random_array(&[3, 4, 2], 1);
    let mut back = Sequential::load(reference(DType::F64), &path).unwrap();
    assert_eq!(back.predict(x.view()).unwrap(), plain.predict(x.view()).unwrap());
    let error = Forecaster::load(Device::reference(), &path).err().unwrap();
    assert!(matches!(error, Error::Format { .. }), "{error}");
}

fn load(path: &Path) -> Error {
    Forecaster::load(Device::reference(), path).err().expect("a broken file must not load")
}

/// A safetensors file with a JSON header as given.
fn raw(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    std::fs::write(path, bytes).unwrap();
}

#[test]
fn broken_model_files_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = file_in(&folder);
    assert!(matches!(load(&path), Error::Io { .. }), "absent");
    forecaster(config(6, 1, false)).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let header_len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let (header, data) =
        (std::str::from_utf8(&good[8..8 + header_len]).unwrap().trim_end().to_owned(), &good[8 + header_len..]);
    raw(&path, &header, data);
    assert!(Forecaster::load(Device::reference(), &path).is_ok(), "the test's own writer");

    // Cut off anywhere.
    for len in (0..good.len()).step_by(7).chain([good.len() - 1]) {
        write_anew(&path, &good[..len]);
        assert!(matches!(load(&path), Error::Format { .. }), "{len} bytes");
    }
    // Edited: each replacement must be seen.
    let edits = [
        (r#"\"units\":4"#, r#"\"units\":1152921504606846976"#),
        (r#"\"units\":4"#, r#"\"units\":18446744073709551615"#),
        (r#"\"units\":4"#, r#"\"units\":5"#),
        (r#"\"units\":4"#, r#"\"units\":0"#),
        (r#"\"units\":4"#, r#"\"units\":-4"#),
        (r#"\"units\":4"#, r#"\"units\":4,\"x\":1"#),
        (r#"\"units\":1"#, r#"\"units\":4611686018427387904"#),
        (r#"\"shape\":[6,1]"#, r#"\"shape\":[6,2]"#),
        (r#"\"shape\":[6,1]"#, r#"\"shape\":[]"#),
        (r#"\"shape\":[6,1]"#, r#"\"shape\":[1152921504606846976,1]"#),
        (r#"\"window\":6"#, r#"\"window\":7"#),
        (r#"\"window\":6"#, r#"\"window\":0"#),
        (r#"\"horizon\":1"#, r#"\"horizon\":2"#),
        (r#"\"scale\":1.0"#, r#"\"scale\":-1.0"#),
        (r#"\"scale\":1.0"#, r#"\"scale\":1e999"#),
        (r#"\"scale\":1.0"#, r#"\"scale\":null"#),
        (r#"\"version\":2"#, r#"\"version\":3"#),
        (r#"\"LSTM\""#, r#"\"GRU\""#),
        (r#"\"LSTM\""#, r#"\"Conv\""#),
        (r#"\"gaps\":\"error\""#, r#"\"gaps\":\"ignore\""#),
        (r#""fused-rnn":"#, r#""other":"#),
        (r#""fused-rnn":"{"#, r#""fused-rnn":"["#),
        (r#""dense.bias""#, r#""dense.bios""#),
        (r#""dense.bias":{"dtype":"F32""#, r#""dense.bias":{"dtype":"I32""#),
        (r#""shape":[1,4]"#, r#""shape":[4,1]"#),
        (r#""shape":[1,4]"#, r#""shape":[4611686018427387904,4]"#),
    ];
    for (from, to) in edits {
        assert!(header.contains(from), "{from} is not in {header}");
        raw(&path, &header.replacen(from, to, 1), data);
        let error = load(&path);
        assert!(
            matches!(
                error,
                Error::Format { .. } | Error::Shape { .. } | Error::ZeroSize { .. } | Error::SizeOverflow { .. }
            ),
            "{to}: {error:?}"
        );
    }
    // A header said to be longer than the file, or longer than memory.
    for len in [u64::MAX, 1 << 40, good.len() as u64] {
        let mut bytes = good.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        std::fs::write(&path, bytes).unwrap();
        assert!(matches!(load(&path), Error::Format { .. }), "header of {len}");
    }
    // A weight that is not a number.
    let mut bytes = good.clone();
    let end = bytes.len();
    bytes[end - 4..].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    assert!(matches!(load(&path), Error::NonFinite { .. }));
}

proptest! {
    /// A model file with bytes changed loads as a model that can forecast, or is refused. Never a panic, never a vast allocation.
    #[test]
    fn changed_model_files(changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), cut in any::<Option<prop::sample::Index>>()) {
        let folder = tempfile::tempdir().unwrap();
        let path = file_in(&folder);
        forecaster(config(3, 2, true)).save(&path).unwrap();
        let mut bytes = std::fs::read(&path).unwrap();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        write_anew(&path, &bytes);
        if let Ok(mut loaded) = Forecaster::load(Device::reference(), &path) {
            // What forecasts hold is the file's business.
            let _ = loaded.forecast(&[1.0, 2.0, 1.0, 2.0, 3.0], 5);
        }
    }
}

/// What the CPU backend trains does not depend on the number of threads, to the bit.
#[test]
fn threads_change_nothing() {
    let (x, y) = windows(&sine(400), 24, 1).unwrap();
    let train = |threads: usize| {
        let mut model = Sequential::new(CpuBackend::<f32>::with_threads(threads).unwrap().into(), &[24, 1], 3).unwrap();
        model.add(Lstm::new(96).return_sequences(true)).unwrap().add(Gru::new(64)).unwrap().add(Dense::new(1)).unwrap();
        let options = FitOptions { epochs: 2, batch_size: 128, ..FitOptions::default() };
        let history = model.fit(x.view(), y.view(), options).unwrap();
        (history, weights(&model))
    };
    assert_eq!(train(1), train(4));
}

/// A whole model on the CPU backend is the same model as on the reference.
#[test]
fn backends_agree() {
    let stack = [LayerConfig::from(Lstm::new(33).return_sequences(true)), Gru::new(17).into(), Dense::new(3).into()];
    let mut reference = model(DType::F64, &[7, 2], &stack);
    let mut fast = Sequential::new(cpu(DType::F64), &[7, 2], 7).unwrap();
    for layer in stack {
        fast.add(layer).unwrap();
    }
    let (x, y) = (random_array(&[19, 7, 2], 1), random_array(&[19, 3], 2));
    let (expected, gradient) = reference.loss_gradient(x.view(), y.view()).unwrap();
    let (loss, fast_gradient) = fast.loss_gradient(x.view(), y.view()).unwrap();
    assert!((loss - expected).abs() < 1e-13);
    for (a, b) in fast_gradient.iter().zip(gradient) {
        assert!((a - b).abs() < 1e-13, "{a} {b}");
    }
}

/// Predictions that come back with the same weights pack them once; they are the same, and those after a change are of the new weights.
#[test]
fn packed_weights_are_those_of_now() {
    let stack = [LayerConfig::from(Lstm::new(20).return_sequences(true)), Gru::new(12).into(), Dense::new(1).into()];
    let build = || {
        let mut model = Sequential::new(cpu(DType::F32), &[6, 2], 7).unwrap();
        for layer in &stack {
            model.add(layer.clone()).unwrap();
        }
        model.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
        model
    };
    let (x, y) = (random_array(&[5, 6, 2], 1).mapv(|v| v as f32), random_array(&[5, 1], 2).mapv(|v| v as f32));
    let mut model = build();
    let first = model.predict(&x).unwrap();
    for _ in 0..3 {
        assert_eq!(model.predict(&x).unwrap(), first);
    }
    let weights: Vec<f32> = model.flat_weights().unwrap();
    model.train_on_batch(&x, &y).unwrap();
    let trained = model.predict(&x).unwrap();
    assert_ne!(trained, first);
    let mut fresh = build();
    fresh.set_flat_weights(&model.flat_weights::<f32>().unwrap()).unwrap();
    assert_eq!(fresh.predict(&x).unwrap(), trained);
    assert_eq!(model.predict(&x).unwrap(), trained);
    model.set_flat_weights(&weights).unwrap();
    assert_eq!(model.predict(&x).unwrap(), first);
    assert_eq!(model.predict(&x).unwrap(), first);
}

/// A season that grows with the level, and noise that repeats.
fn growing(count: usize) -> Vec<f64> {
    let value = |t: usize| {
        (100.0 + t as f64) * [1.0, 1.3, 0.8, 0.9][t % 4] * (1.0 + 0.03 * ((t * 37 % 17) as f64 / 17.0 - 0.5))
    };
    (0..count).map(value).collect()
}

/// A forecaster that corrects a reference, not trained, its reference fitted to all before `end`.
fn correcting(values: &[f64], end: usize, validation: usize) -> (Forecaster, fused_rnn::forecast::Reference) {
    let mut config = config(8, 4, true);
    let rows = Array2::from_shape_vec((values.len(), 1), values.to_vec()).unwrap();
    let seen = SeenSeries { values: rows.view(), end };
    let chosen = config.choose_correction(&[seen], validation, 4, None).unwrap();
    (forecaster(config), chosen.fitted_to_all)
}

#[test]
fn a_correction_is_chosen_without_the_test_part() {
    let values = growing(120);
    let mut other = values.clone();
    other[100..].iter_mut().for_each(|value| *value = 1e6);
    let (one, all) = correcting(&values, 100, 16);
    let (two, all_of_two) = correcting(&other, 100, 16);
    assert_eq!((one.config(), all), (two.config(), all_of_two));
    assert!(
        one.config().correction.as_ref().unwrap().transform.floor.is_some(),
        "a season that grows is of logarithms"
    );
}

#[test]
fn a_corrected_forecast_is_sure_and_goes_on() {
    let values = growing(120);
    let (mut forecaster, all) = correcting(&values, 100, 16);
    let (x, y) = forecaster.samples(&values, 0..84).unwrap();
    forecaster.model().fit(&x, &y, FitOptions { epochs: 3, ..FitOptions::default() }).unwrap();
    let (x, y) = forecaster.samples(&values, 84..100).unwrap();
    forecaster.settle(Some((x.view(), y.view())), &[0.5, 0.9], all).unwrap();
    let backtest = forecaster.backtest(&values, 100..120).unwrap();
    assert_eq!((backtest.start, backtest.truth.dim()), (100, (17, 4)));
    let errors = fused_rnn::metrics::rmse(backtest.truth.view(), backtest.forecast.view()).unwrap();
    assert!(errors < 6.0, "{errors}");
    // The same as from the values before alone, and past the horizon from what was forecast.
    let ahead = forecaster.forecast(&values[..100].to_vec(), 10).unwrap();
    for step in 0..4 {
        assert!((ahead[step] - backtest.forecast[[0, step]]).abs() < 1e-4 * ahead[step], "{ahead:?}");
    }
    let again = [&values[..100], &ahead[..4]].concat();
    assert_eq!(forecaster.forecast(&again, 6).unwrap(), ahead[4..]);
    let correction = forecaster.config().correction.clone().unwrap();
    assert!((0.0..=1.0).contains(&correction.share));
    let bounds = correction.bounds(ahead[0], 0);
    assert!(
        bounds[1].0 <= bounds[0].0 && bounds[0].0 < ahead[0] && ahead[0] < bounds[0].1 && bounds[0].1 <= bounds[1].1
    );
    let held = correction.coverage(&backtest).unwrap();
    assert!(held[0] <= held[1] && held[1] > 0.5, "{held:?}");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    forecaster.save(&path).unwrap();
    let mut loaded = Forecaster::load(Device::reference(), &path).unwrap();
    assert_eq!(loaded.config(), forecaster.config());
    assert_eq!(loaded.forecast(&values[..100].to_vec(), 10).unwrap(), ahead);
    assert!(matches!(loaded.forecast(&values[..8].to_vec(), 1), Err(Error::Shape { .. })), "the reference reads more");
}

/// A column that says what comes helps where its future is known, in a reference and in a network alone.
#[test]
fn known_columns_are_read_ahead() {
    let known = |t: usize| f64::from(u8::from(t * 7 % 11 < 4));
    let values = Array2::from_shape_fn((150, 2), |(t, column)| match column {
        0 => 10.0 + 5.0 * known(t) + (t * 37 % 17) as f64 / 17.0,
        _ => known(t),
    });
    let column = KnownColumn { source: Known::Column("holiday".to_owned()), scaler: Scaler::IDENTITY };
    let mut of_both = ForecastConfig { known: vec![column], ..config(8, 3, false) };
    let alone = of_both.clone();
    let seen = SeenSeries { values: values.view(), end: 120 };
    let chosen = of_both.choose_correction(&[seen], 12, 1, None).unwrap();
    let mut corrected = forecaster(of_both);
    corrected.settle(None, &[0.8], chosen.fitted_to_all).unwrap();
    let backtest = corrected.backtest(&values, 120..150).unwrap();
    let error = fused_rnn::metrics::rmse(backtest.truth.view(), backtest.forecast.view()).unwrap();
    assert!(error < 1.0, "{error}");

    // Each of the window's rows has the known value of a horizon later, so that the last ones are those of the steps themselves.
    let (x, _) = forecaster(alone.clone()).samples(&values, 20..60).unwrap();
    for (row, t) in (12..20).enumerate() {
        assert_eq!((x[[0, row, 0]], x[[0, row, 1]]), (values[[t, 0]] as f32, known(t + 3) as f32), "{row}");
    }
    let future = values.slice(ndarray::s![120.., 1..]);
    let history = values.slice(ndarray::s![..120, ..]);
    for mut forecaster in [corrected, forecaster(alone)] {
        let backtest = forecaster.backtest(&values, 120..150).unwrap();
        let ahead = forecaster.forecast_known(&history, future, 7).unwrap();
        for step in 0..3 {
            assert!((ahead[step] - backtest.forecast[[0, step]]).abs() < 1e-4, "{ahead:?}");
        }
        let again = Array2::from_shape_fn((123, 2), |(t, column)| match (t, column) {
            (120.., 0) => ahead[t - 120],
            _ => values[[t, column]],
        });
        assert_eq!(forecaster.forecast_known(&again, future.slice(ndarray::s![3.., ..]), 4).unwrap(), ahead[3..]);
        for error in [
            forecaster.forecast(&history, 3).unwrap_err(),
            forecaster.forecast_known(&history, future.slice(ndarray::s![..8, ..]), 7).unwrap_err(),
        ] {
            assert!(error.to_string().contains("holiday"), "{error}");
        }
    }
}

#[test]
fn an_ensemble_says_the_mean() {
    let values = growing(60);
    let mut members: Vec<Forecaster> = (1..4)
        .map(|seed| Forecaster::new(Device::reference(), config(6, 2, false), Lstm::new(3), seed).unwrap())
        .collect();
    let ahead: Vec<Vec<f64>> = members.iter_mut().map(|member| member.forecast(&values, 2).unwrap()).collect();
    let mut ensemble = Forecaster::ensemble(members).unwrap();
    let of_all = ensemble.forecast(&values, 2).unwrap();
    for step in 0..2 {
        let mean = ahead.iter().map(|of| of[step]).sum::<f64>() / 3.0;
        assert!((of_all[step] - mean).abs() < 1e-5 * mean.abs().max(1.0), "{of_all:?} {ahead:?}");
    }
    let other = Forecaster::new(Device::reference(), config(6, 1, false), Lstm::new(3), 1).unwrap();
    assert!(matches!(Forecaster::ensemble(vec![ensemble, other]), Err(Error::InvalidOption { .. })));
    assert!(Forecaster::ensemble(Vec::new()).is_err());
}
