//! Each large allocation fails once, the first, the second, and so on, in all that a program does with a model and with data: it ends with a
//! typed error, not with the process, and nothing is taken for what it is not.
//!
//! Small allocations are Rust's own, which end the process where memory is short: what is large is what grows with the caller's sizes.

use std::fmt::Write;
use std::path::Path;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::data::{
    ColumnScaler, ColumnsChoice, CsvOptions, CsvTable, Gaps, MissingValues, Scaler, SequenceTargets, one_hot,
    pad_sequences, read_ts, split_sequence, split_sequences, windows,
};
use fused_rnn::forecast::{Anchor, Baseline, RidgeShape, RidgeSums, Transform};
use fused_rnn::model::{FitOptions, ForecastConfig, Forecaster, Model, Sequential};
use fused_rnn::nn::{
    BatchNormalization, Bidirectional, Conv1D, Dense, Dropout, Embedding, Gru, LayerNormalization, Loss, Lstm,
    TransformerEncoder,
};
use fused_rnn::optim::Adam;
use fused_rnn::{Device, Error, Result};
use ndarray::{Array2, Array3};

use super::{LEFT, MOST};

/// Does it with each large allocation failing; at least `least` of them there must be.
#[track_caller]
fn each_fails<S, T>(what: &str, least: usize, ready: impl Fn() -> S, act: impl Fn(S) -> Result<T>) {
    for number in 1.. {
        let state = ready();
        LEFT.with(|left| left.set(number));
        let result = act(state);
        let left = LEFT.with(|left| left.replace(0));
        match (left > 0, result) {
            (true, Ok(_)) => {
                println!("{what}: {} large allocations", number - 1);
                assert!(number > least, "{what}: {} large allocations", number - 1);
                return;
            }
            (true, Err(error)) => panic!("{what}: {error} without a failure"),
            (false, Ok(_)) => panic!("{what}: allocation {number} failed, and it went on"),
            (false, Err(error)) => {
                let short = match &error {
                    Error::Io { source, .. } => source.kind() == std::io::ErrorKind::OutOfMemory,
                    Error::Unsupported { .. } => error.to_string().contains("memory"),
                    _ => false,
                };
                assert!(short, "{what}: allocation {number}: {error:?}");
            }
        }
    }
}

fn device() -> Device {
    CpuBackend::<f32>::with_threads(1).expect("one thread").into()
}

const STEPS: usize = 20;
const FEATURES: usize = 72;

fn model() -> Result<Sequential> {
    let mut model = Sequential::new(device(), &[STEPS, FEATURES], 1)?;
    model.add(Lstm::new(72).return_sequences(true))?;
    model.add(Bidirectional::new(Gru::new(72).return_sequences(true).dropout(0.1)))?;
    model.add(Dropout::new(0.1))?.add(LayerNormalization::new())?;
    model.add(Conv1D::new(72, 3))?.add(BatchNormalization::new())?;
    model.add(TransformerEncoder::new(4, 18, 300))?;
    model.add(Lstm::new(72).recurrent_dropout(0.1))?.add(Dense::new(300))?;
    model.compile(Adam::default(), Loss::MeanSquaredError)?;
    Ok(model)
}

fn data() -> (Array3<f32>, Array2<f32>) {
    let x = Array3::from_shape_fn((64, STEPS, FEATURES), |(i, j, k)| ((i + j * 3 + k) % 7) as f32 / 7.0);
    (x, Array2::from_elem((64, 300), 0.5))
}

#[test]
fn models_are_built_trained_and_asked() {
    each_fails("build", 10, || (), |()| model());
    let (x, y) = data();
    let built = || model().expect("a model");
    each_fails("fit", 20, built, |mut model| {
        let options = FitOptions { batch_size: 32, validation_split: 0.25, ..FitOptions::default() };
        model.fit(&x, &y, options)
    });
    let wide = (x.mapv(f64::from), y.mapv(f64::from));
    each_fails("fit in another type", 20, built, |mut model| {
        model.fit(&wide.0, &wide.1, FitOptions { batch_size: 32, ..FitOptions::default() })
    });
    each_fails("predict", 5, built, |mut model| model.predict(&x));
    each_fails("evaluate", 5, built, |mut model| model.evaluate(&x, &y));
    each_fails("weights", 1, built, |model| model.flat_weights::<f64>());
    each_fails(
        "embedding",
        1,
        || (),
        |()| {
            let mut model = Sequential::new(device(), &[4], 1)?;
            model.add(Embedding::new(2000, 16)).map(drop)
        },
    );
}

#[test]
fn models_are_saved_and_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let trained = || {
        let (mut model, (x, y)) = (model().expect("a model"), data());
        model.fit(&x, &y, FitOptions::default()).expect("trained");
        model
    };
    let model = trained();
    each_fails("save", 2, || (), |()| model.save(&path));
    model.save(&path).expect("saved");
    each_fails("load", 10, || (), |()| Model::load(device(), &path));
    model.save_weights(&path).expect("saved");
    each_fails("load_weights", 3, trained, |mut model| model.load_weights(&path));
}

#[test]
fn arrays_are_made_of_data() {
    let series: Vec<f64> = (0..400).map(|t| f64::from(t) * 0.1).collect();
    let matrix = Array2::from_shape_fn((400, 2), |(t, c)| (t + c) as f64);
    let targets = SequenceTargets::After { columns: 1 };
    each_fails("windows", 2, || (), |()| windows(&series, 180, 60));
    each_fails("split_sequence", 1, || (), |()| split_sequence(&series, 200));
    each_fails("split_sequences", 1, || (), |()| split_sequences(matrix.view(), 100, targets));
    let classes: Vec<usize> = (0..200).collect();
    each_fails("one_hot", 1, || (), |()| one_hot::<f32>(&classes, None));
    let sequences: Vec<Vec<i32>> = vec![vec![1; 400]; 200];
    each_fails("pad_sequences", 1, || (), |()| pad_sequences(&sequences, &Default::default()));
    let long = Array2::from_shape_fn((10_000, 2), |(t, c)| t as f64 * 0.1 + c as f64);
    each_fails("scaling", 2, || (), |()| ColumnScaler::min_max(long.view())?.transform(long.view()));
}

#[test]
fn values_are_forecast_without_a_network() {
    let rows = Array2::from_shape_fn((10_000, 1), |(t, _)| (t as f64 * 0.1).sin() + 2.0);
    let values: Vec<f64> = rows.iter().copied().collect();
    let shape = RidgeShape { anchor: Anchor::Last, season: 1, lags: 20, inputs: 0, input_lags: 0, known: 0 };
    let solved = RidgeSums::of(shape, &[rows.view()], |_| 3000, 1000).expect("sums");
    each_fails("ridge regression", 1, || (), |()| solved.solve(0.1));
    let ridge = solved.solve(0.1).expect("a regression");
    let origins: Vec<usize> = (100..1000).collect();
    each_fails("linear forecasts", 1, || (), |()| ridge.forecasts(rows.view(), &origins));
    for baseline in [Baseline::Naive, Baseline::SeasonalNaive, Baseline::Drift] {
        each_fails("baselines", 1, || (), |()| baseline.forecast(&values, 12, 10_000));
    }
    each_fails("logarithms", 1, || (), |()| Transform::fit(&values, true));
}

#[test]
fn series_are_forecast() {
    let series: Vec<f64> = (0..700).map(|t| (f64::from(t) * 0.1).sin()).collect();
    let ready = || {
        let config = ForecastConfig {
            column: "v".to_owned(),
            inputs: Vec::new(),
            known: Vec::new(),
            panel: None,
            gaps: Gaps::Error,
            window: 200,
            horizon: 60,
            difference: true,
            scaler: Scaler::standard(&series).expect("a scaler"),
            reading: CsvOptions::default(),
            correction: None,
        };
        Forecaster::new(device(), config, Lstm::new(8), 1).expect("a model")
    };
    each_fails("samples", 2, ready, |forecaster| forecaster.samples(&series, 0..700));
    each_fails("backtest", 5, ready, |mut forecaster| forecaster.backtest(&series, 0..700));
}

fn table(rows: usize) -> String {
    let mut text = "date,a,b,c\n".to_owned();
    for row in 0..rows {
        let _ = writeln!(text, "{:04}-{:02},{row},{}.5,word{}", 1000 + row / 12, row % 12 + 1, row % 17, row % 5);
    }
    text
}

/// Reads a file where twice its size is too much at once, and where it is not.
fn needs_room(what: &str, file: &Path, act: &dyn Fn() -> Result<()>) {
    let size = std::fs::metadata(file).expect("the file").len() as usize;
    for (most, is_enough) in [(2 * size, false), (64 * size, true)] {
        MOST.with(|limit| limit.set(most));
        let result = act();
        MOST.with(|limit| limit.set(usize::MAX));
        assert_eq!(result.is_ok(), is_enough, "{what}: allocations of {most} bytes: {result:?}");
        let named = |error: &Error| error.to_string().contains("memory");
        assert!(result.as_ref().err().is_none_or(named), "{what}: {result:?}");
    }
}

#[cfg(feature = "exchange")]
#[test]
fn models_of_other_programs_are_read() {
    use fused_rnn::exchange::{keras, onnx};
    let fixture = |name: &str| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name);
    let (keras_file, onnx_file) = (fixture("exchange/keras_sequential.keras"), fixture("onnx/translator.onnx"));
    needs_room("keras", &keras_file, &|| keras::read(device(), &keras_file).map(drop));
    needs_room("ONNX", &onnx_file, &|| onnx::read(device(), &onnx_file, &Default::default()).map(drop));
}

/// Many small things are made of a file: whether there is room for them is tried before.
#[test]
fn tables_are_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("d.csv");
    std::fs::write(&path, table(6000)).expect("written");
    let series = folder.path().join("d.ts");
    let row = "1,".repeat(20_000);
    std::fs::write(&series, format!("@classLabel true a\n@data\n{row}1:a\n{row}1:a\n")).expect("written");
    let csv = || CsvTable::read(&path, &CsvOptions::default()).map(drop);
    let ts = || read_ts(&series, MissingValues::Error).map(drop);
    needs_room("CSV", &path, &csv);
    needs_room(".ts", &series, &ts);
    let columns =
        CsvTable::read(&path, &CsvOptions::default()).and_then(|table| table.columns(&ColumnsChoice::AllNumeric));
    assert_eq!(columns.expect("columns").len(), 2);
}
