//! Models of several columns and of whole sequences, with their files.

use std::path::{Path, PathBuf};

use fused_rnn::data::{Gaps, MissingValues, Scaler, TimeSeriesSet, read_ts, ts::parse_ts};
use fused_rnn::model::{
    FitOptions, ForecastConfig, Forecaster, InputColumn, Purpose, RowsConfig, SequenceConfig, SequenceModel,
    SequencePredictions, Sequential, Trained,
};
use fused_rnn::nn::{Bidirectional, Dense, Gru, LayerConfig, Lstm};
use fused_rnn::optim::Adam;
use fused_rnn::{Device, Error};
use ndarray::{Array2, Axis, array, concatenate, s};

/// Two columns: a wave, and its double one step earlier with a trend.
fn columns(rows: usize) -> Array2<f64> {
    Array2::from_shape_fn((rows, 2), |(row, column)| match column {
        0 => 5.0 + (row as f64 * 0.3).sin(),
        _ => 2.0 * ((row + 1) as f64 * 0.3).sin() + row as f64,
    })
}

fn config(horizon: usize, values: &Array2<f64>) -> ForecastConfig {
    let (target, other) = (values.column(0).to_vec(), values.column(1).to_vec());
    ForecastConfig {
        column: "wave".to_owned(),
        inputs: vec![InputColumn::fitted("other", true, Scaler::standard, &other).unwrap()],
        gaps: Gaps::Error,
        window: 4,
        horizon,
        difference: false,
        scaler: Scaler::min_max(&target).unwrap(),
        reading: Default::default(),
        correction: None,
        known: Vec::new(),
        panel: None,
    }
}

#[test]
fn a_window_of_several_columns() {
    let values = columns(30);
    let mut forecaster = Forecaster::with_layers(
        Device::reference(),
        config(2, &values),
        [Lstm::new(3).return_sequences(true).into(), Gru::new(4).into()],
        7,
    )
    .unwrap();
    assert_eq!(forecaster.config().columns(), ["wave", "other"]);
    assert_eq!(forecaster.config().context(), 5, "one column is read as differences");
    let (x, y) = forecaster.samples(&values, 10..30).unwrap();
    assert_eq!((x.shape(), y.shape()), (&[19, 4, 2][..], &[19, 2][..]));
    // The first window ends just before value 10, the last target is the last value.
    let scaler = |config: &ForecastConfig, v: f64| config.scaler.transform(v) as f32;
    assert_eq!(x[[0, 3, 0]], scaler(forecaster.config(), values[[9, 0]]));
    let change = values[[9, 1]] - values[[8, 1]];
    assert_eq!(x[[0, 3, 1]], forecaster.config().inputs[0].scaler.transform(change) as f32);
    assert_eq!(x[[0, 0, 0]], scaler(forecaster.config(), values[[6, 0]]));
    assert_eq!(y[[18, 1]], scaler(forecaster.config(), values[[29, 0]]));

    // Each row of a backtest is the forecast from the values before it.
    let backtest = forecaster.backtest(&values, 10..30).unwrap();
    for (row, expected) in backtest.forecast.outer_iter().enumerate() {
        let known = values.slice(s![..10 + row, ..]);
        let ahead = forecaster.forecast(&known, 2).unwrap();
        for (got, expected) in ahead.iter().zip(expected) {
            assert!((got - expected).abs() < 1e-5, "row {row}: {got} {expected}");
        }
        assert_eq!(backtest.naive[[row, 0]], values[[9 + row, 0]]);
    }

    let error = forecaster.forecast(&values, 3).unwrap_err();
    assert!(error.to_string().contains("the model's horizon 2"), "{error}");
    let error = forecaster.forecast(&[1.0, 2.0, 3.0, 4.0, 5.0], 1).unwrap_err();
    assert!(error.to_string().contains("wave, other"), "{error}");
    let error = forecaster.samples(&values.slice(s![..6, ..]), 0..6).unwrap_err();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

#[test]
fn another_column_is_of_use() {
    // The target repeats what the other column, white noise, was two steps before: alone it cannot be forecast.
    let mut random = fused_rnn::nn::Random::new(3, 5);
    let noise: Vec<f64> = (0..240).map(|_| random.normal()).collect();
    let values = Array2::from_shape_fn((238, 2), |(row, column)| noise[row + if column == 0 { 0 } else { 2 }]);
    let mut config = config(1, &values);
    config.inputs = vec![InputColumn::fitted("noise", false, Scaler::standard, &noise).unwrap()];
    config.scaler = Scaler::standard(&noise).unwrap();
    let mut forecaster = Forecaster::new(Device::reference(), config, Gru::new(8), 1).unwrap();
    let (x, y) = forecaster.samples(&values, 0..200).unwrap();
    forecaster.model().compile(Adam::new(0.01).unwrap(), fused_rnn::nn::Loss::default()).unwrap();
    let options = FitOptions { epochs: 40, batch_size: 16, ..FitOptions::default() };
    forecaster.model().fit(x.view(), y.view(), options).unwrap();
    let backtest = forecaster.backtest(&values, 200..238).unwrap();
    let rmse = |of: &Array2<f64>| fused_rnn::metrics::rmse(backtest.truth.view(), of.view()).unwrap();
    // The best forecast without the other column is the mean, whose error is the noise's standard deviation, about 1.
    assert!(rmse(&backtest.forecast) < 0.3, "{} against {}", rmse(&backtest.forecast), rmse(&backtest.naive));
}

const TWO_CLASSES: &str = "@problemName waves\n@timeStamps false\n@univariate false\n@classLabel true up down\n@data\n";

/// Short ramps up and down in two dimensions, 2 to 6 steps long.
fn ramps(count: usize) -> TimeSeriesSet {
    let mut text = TWO_CLASSES.to_owned();
    for i in 0..count {
        let (len, up) = (2 + i % 5, i % 2 == 0);
        let value = |t: usize| if up { t as f64 } else { -(t as f64) } + (i as f64 * 0.7).sin();
        let dimension = |k: f64| (0..len).map(|t| (k * value(t)).to_string()).collect::<Vec<_>>().join(",");
        text += &format!("{}:{}:{}\n", dimension(1.0), dimension(0.5), if up { "up" } else { "down" });
    }
    parse_ts(text.as_bytes(), "ramps.ts", MissingValues::Error).unwrap()
}

fn classifier(set: &TimeSeriesSet, steps: usize, layers: Vec<LayerConfig>) -> SequenceModel {
    SequenceModel::new(Device::reference(), SequenceConfig::fitted(set, steps).unwrap(), layers, 3).unwrap()
}

#[test]
fn filling_up_changes_nothing() {
    let set = ramps(12);
    let layers = || vec![Bidirectional::new(Lstm::new(3).return_sequences(true)).into(), Gru::new(4).into()];
    let (mut short, mut long) = (classifier(&set, 6, layers()), classifier(&set, 11, layers()));
    let (SequencePredictions::Classes(a), SequencePredictions::Classes(b)) =
        (short.predict(&set.sequences).unwrap(), long.predict(&set.sequences).unwrap())
    else {
        panic!("classes are expected");
    };
    assert_eq!(a.shape(), [12, 2]);
    for (a, b) in a.iter().zip(&b) {
        assert!((a - b).abs() < 1e-6, "{a} {b}");
    }
    for row in a.outer_iter() {
        assert!((row.sum() - 1.0).abs() < 1e-6);
    }
    // And a sequence alone is what it is among others.
    let SequencePredictions::Classes(one) = short.predict(&set.sequences[3..4]).unwrap() else {
        panic!("classes are expected");
    };
    assert!((one[[0, 0]] - a[[3, 0]]).abs() < 1e-6);
}

#[test]
fn classes_are_learned_saved_and_named() {
    let set = ramps(40);
    let mut model = classifier(&set, 6, vec![Gru::new(6).into()]);
    let (x, y) = (model.inputs(&set.sequences).unwrap(), model.targets(&set).unwrap());
    let loss = model.loss();
    model.model().compile(Adam::new(0.02).unwrap(), loss).unwrap();
    model.model().fit(x.view(), y.view(), FitOptions { epochs: 30, batch_size: 8, ..FitOptions::default() }).unwrap();
    let new = ramps(60);
    let test: Vec<Array2<f32>> = new.sequences[40..].to_vec();
    assert_eq!(model.predict_classes(&test).unwrap(), new.labels[40..], "20 sequences never seen");

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    let mut loaded = SequenceModel::load(Device::reference(), &path).unwrap();
    assert_eq!(loaded.config(), model.config());
    assert_eq!(loaded.predict(&test).unwrap(), model.predict(&test).unwrap());
    // Classes go by their names, whatever their order in a file.
    let swapped = parse_ts(
        TWO_CLASSES.replace("up down", "down up").replace("@data", "@data\n1,2:1,2:up\n2,1:2,1:down").as_bytes(),
        "swapped.ts",
        MissingValues::Error,
    )
    .unwrap();
    assert_eq!((swapped.labels.clone(), loaded.classes(&swapped).unwrap()), (vec![1, 0], vec![0, 1]));
    // The fields of a set are anyone's.
    let mut wrong = swapped.clone();
    wrong.labels[1] = 7;
    let error = loaded.classes(&wrong).unwrap_err().to_string();
    assert!(error.contains("label") && error.contains("2 classes, got 7"), "{error}");
    let other = TWO_CLASSES.replace("down", "left").replace("@data", "@data\n1:2:left");
    let other = parse_ts(other.as_bytes(), "other.ts", MissingValues::Error).unwrap();
    let error = loaded.classes(&other).unwrap_err().to_string();
    assert!(error.contains("up, down") && error.contains("left"), "{error}");

    assert!(matches!(Trained::load(Device::reference(), &path).unwrap(), Trained::Sequences(_)));
    let error = Forecaster::load(Device::reference(), &path).err().unwrap();
    assert!(matches!(error, Error::Format { .. }), "{error}");
    Forecaster::new(Device::reference(), config(1, &columns(20)), Gru::new(2), 1).unwrap().save(&path).unwrap();
    assert!(matches!(Trained::load(Device::reference(), &path).unwrap(), Trained::Forecaster(_)));
    assert!(matches!(SequenceModel::load(Device::reference(), &path).err().unwrap(), Error::Format { .. }));
    let mut plain = Sequential::new(Device::reference(), &[3], 1).unwrap();
    plain.add(Dense::new(2)).unwrap();
    plain.save(&path).unwrap();
    assert!(matches!(Trained::load(Device::reference(), &path).unwrap(), Trained::Model(_)));
    assert!(matches!(SequenceModel::load(Device::reference(), &path).err().unwrap(), Error::Format { .. }));
}

#[test]
fn numbers_are_learned() {
    // The sum of a sequence's values.
    let mut text = "@problemName sums\n@timeStamps false\n@univariate true\n@targetLabel true\n@data\n".to_owned();
    for i in 0..50 {
        let values: Vec<f64> = (0..2 + i % 4).map(|t| f64::from((i * 7 + t * 3) % 5)).collect();
        let list: Vec<_> = values.iter().map(f64::to_string).collect();
        text += &format!("{}:{}\n", list.join(","), 100.0 + values.iter().sum::<f64>());
    }
    let set = parse_ts(text.as_bytes(), "sums.ts", MissingValues::Error).unwrap();
    let mut model = classifier(&set, 5, vec![Lstm::new(8).into()]);
    let (x, y) = (model.inputs(&set.sequences).unwrap(), model.targets(&set).unwrap());
    assert_eq!(y.shape(), [50, 1]);
    let loss = model.loss();
    model.model().compile(Adam::new(0.02).unwrap(), loss).unwrap();
    model.model().fit(x.view(), y.view(), FitOptions { epochs: 60, batch_size: 10, ..FitOptions::default() }).unwrap();
    let SequencePredictions::Numbers(numbers) = model.predict(&set.sequences).unwrap() else {
        panic!("numbers are expected");
    };
    let truth = ndarray::Array1::from(model.numbers(&set).unwrap());
    let r2 = fused_rnn::metrics::r2(truth.view(), ndarray::ArrayView1::from(&numbers[..])).unwrap();
    assert!(r2 > 0.95, "{r2}");
    assert!(matches!(model.classes(&set).unwrap_err(), Error::Presence { .. }));
    assert!(matches!(model.predict_classes(&set.sequences).unwrap_err(), Error::Presence { .. }));
}

#[test]
fn sequences_that_cannot_be() {
    let set = ramps(12);
    let model = classifier(&set, 6, vec![Gru::new(2).into()]);
    for (sequence, parts) in [
        (Array2::zeros((7, 2)), ["sequences[1]", "1 to 6 steps", "[7, 2]"]),
        (Array2::zeros((0, 2)), ["sequences[1]", "1 to 6 steps", "[0, 2]"]),
        (Array2::zeros((2, 3)), ["sequences[1]", "2 features", "[2, 3]"]),
        (array![[1.0, f32::NAN]], ["sequences[1]", "NaN", "step 0, feature 1"]),
        (array![[1.0, -2.6e38]], ["sequences[1]", "step 0, feature 1", "magnitude"]),
    ] {
        let error = model.inputs(&[set.sequences[0].clone(), sequence]).unwrap_err().to_string();
        assert!(parts.iter().all(|part| error.contains(part)), "{error}");
    }
    assert!(matches!(model.inputs(&[]).unwrap_err(), Error::ZeroSize { .. }));
    assert!(matches!(SequenceConfig::fitted(&set, 0).unwrap_err(), Error::ZeroSize { .. }));
    let mut nothing = set.clone();
    nothing.classes.clear();
    assert!(matches!(SequenceConfig::fitted(&nothing, 6).unwrap_err(), Error::Presence { .. }));
    let config = SequenceConfig::fitted(&set, 6).unwrap();
    // Layers that give a sequence where one output is needed.
    let sequences = SequenceModel::new(Device::reference(), config, [Gru::new(2).return_sequences(true).into()], 1);
    let error = sequences.err().unwrap();
    assert!(matches!(error, Error::Shape { .. }), "{error}");
}

/// Every value of the saved description replaced by absurd ones, one at a time: loaded with a meaning that holds, or refused.
#[test]
fn absurd_descriptions_are_refused() {
    let set = ramps(12);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    classifier(&set, 6, vec![Gru::new(2).into()]).save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&good[8..8 + len]).unwrap();
    let load = |header: &str| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &good[8 + len..]].concat();
        std::fs::write(&path, bytes).unwrap();
        Trained::load(Device::reference(), &path).map(|_| ())
    };
    load(header).unwrap();
    for (from, to) in [
        (r#"\"steps\":6"#, r#"\"steps\":0"#),
        (r#"\"steps\":6"#, r#"\"steps\":7"#),
        (r#"\"steps\":6"#, r#"\"steps\":18446744073709551615"#),
        (r#"\"up\",\"down\""#, r#"\"up\",\"up\""#),
        (r#"\"up\",\"down\""#, r#"\"up\""#),
        (r#"\"up\",\"down\""#, ""),
        (r#"{\"classes\":[\"up\",\"down\"]}"#, r#"{\"number\":{\"offset\":0.0,\"scale\":1.0}}"#),
        (r#"{\"classes\":[\"up\",\"down\"]}"#, r#"{\"number\":{\"offset\":0.0,\"scale\":0.0}}"#),
        (r#"\"scale\":"#, r#"\"scale\":-"#),
        (r#"\"sequences\":"#, r#"\"forecast\":"#),
        (r#"\"sequences\":"#, r#"\"anything\":"#),
        (r#"\"steps\":6"#, r#"\"steps\":6,\"more\":1"#),
    ] {
        assert!(header.contains(from), "{from} is not in {header}");
        let error = load(&header.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("{from} as {to} is accepted"));
        assert!(matches!(error, Error::Format { .. }), "{from} as {to}: {error}");
    }
}

/// A model of the windows of 3 rows of two columns, with what its file says of them.
fn of_rows() -> SequenceConfig {
    let rows = RowsConfig {
        columns: vec!["a".to_owned(), "b".to_owned()],
        target: "k".to_owned(),
        gaps: Gaps::Drop,
        reading: Default::default(),
    };
    SequenceConfig::for_rows(columns(20).view(), 3, vec!["p".to_owned(), "q".to_owned()], rows).unwrap()
}

#[test]
fn rows_are_scaled_by_what_is_learned_from() {
    let values = columns(20);
    let config = of_rows();
    assert_eq!(config.scaler, fused_rnn::data::ColumnScaler::standard(values.view()).unwrap());
    let make = |classes: &[&str], columns: &[&str], target: &str, window: usize| {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let rows = RowsConfig {
            columns: owned(columns),
            target: target.to_owned(),
            gaps: Gaps::Error,
            reading: Default::default(),
        };
        SequenceConfig::for_rows(values.view(), window, owned(classes), rows)
    };
    make(&["p", "q"], &["a", "b"], "k", 3).unwrap();
    assert!(matches!(make(&["p", "q"], &["a", "b"], "k", 0), Err(Error::ZeroSize { .. })));
    assert!(matches!(make(&[], &["a", "b"], "k", 3), Err(Error::ZeroSize { .. })));
    assert!(matches!(make(&["p", "p"], &["a", "b"], "k", 3), Err(Error::InvalidOption { .. })));
    assert!(matches!(make(&["p", "q"], &["a"], "k", 3), Err(Error::Shape { .. })));
    assert!(matches!(make(&["p", "q"], &["a", "a"], "k", 3), Err(Error::InvalidOption { .. })));
    assert!(matches!(make(&["p", "q"], &["a", "b"], "b", 3), Err(Error::InvalidOption { .. })));
}

/// What is said of rows, replaced by absurd values one at a time; without it the file is one of sequences, as older ones are.
#[test]
fn absurd_descriptions_of_rows_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    SequenceModel::new(Device::reference(), of_rows(), [Gru::new(2).into()], 1).unwrap().save(&path).unwrap();
    let good = std::fs::read(&path).unwrap();
    let len = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    let header = std::str::from_utf8(&good[8..8 + len]).unwrap();
    let load = |header: &str| {
        let bytes = [&(header.len() as u64).to_le_bytes(), header.as_bytes(), &good[8 + len..]].concat();
        std::fs::write(&path, bytes).unwrap();
        SequenceModel::load(Device::reference(), &path).map(|model| model.config().clone())
    };
    assert_eq!(load(header).unwrap(), of_rows());
    let rows = r#",\"rows\":{\"columns\":[\"a\",\"b\"],\"target\":\"k\",\"gaps\":\"drop\"}"#;
    assert!(header.contains(rows), "{header}");
    assert_eq!(load(&header.replace(rows, "")).unwrap(), SequenceConfig { rows: None, ..of_rows() });
    for (from, to) in [
        (r#"[\"a\",\"b\"]"#, r#"[\"a\"]"#),
        (r#"[\"a\",\"b\"]"#, r#"[\"a\",\"b\",\"c\"]"#),
        (r#"[\"a\",\"b\"]"#, r#"[\"a\",\"a\"]"#),
        (r#"[\"a\",\"b\"]"#, "[]"),
        (r#"[\"a\",\"b\"]"#, "3"),
        (r#"\"target\":\"k\""#, r#"\"target\":\"a\""#),
        (r#"\"target\":\"k\""#, r#"\"target\":7"#),
        (r#"\"target\":\"k\","#, ""),
        (r#"\"drop\""#, r#"\"guess\""#),
        (r#"\"drop\""#, r#"\"drop\",\"more\":1"#),
        (r#"\"steps\":3"#, r#"\"steps\":4"#),
        (r#"{\"classes\":[\"p\",\"q\"]}"#, r#"{\"number\":{\"offset\":0.0,\"scale\":1.0}}"#),
    ] {
        assert!(header.contains(from), "{from} is not in {header}");
        let error = load(&header.replacen(from, to, 1)).err().unwrap_or_else(|| panic!("{from} as {to} is accepted"));
        assert!(matches!(error, Error::Format { .. }), "{from} as {to}: {error}");
    }
}

#[test]
fn the_task_reads_as_written() {
    let set = ramps(6);
    for task in [
        Purpose::Sequences(SequenceConfig::fitted(&set, 6).unwrap()),
        Purpose::Sequences(of_rows()),
        Purpose::Forecast(config(2, &columns(20))),
    ] {
        let text = serde_json::to_string(&task).unwrap();
        assert_eq!(serde_json::from_str::<Purpose>(&text).unwrap(), task);
    }
}

fn vowels(part: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("examples/data/JapaneseVowels_{part}.ts"))
}

#[test]
fn scaling_is_of_the_steps_that_are_there() {
    let set = read_ts(vowels("TRAIN"), MissingValues::Error).unwrap();
    let config = SequenceConfig::fitted(&set, 29).unwrap();
    let views: Vec<_> = set.sequences.iter().map(|sequence| sequence.view()).collect();
    let scaled = config.scaler.transform(concatenate(Axis(0), &views).unwrap().view()).unwrap();
    for column in scaled.axis_iter(Axis(1)) {
        // Rounding of scaled values to f32 and of their sum of n terms.
        let bound = column.len() as f64 * f64::from(f32::EPSILON);
        let mean = column.iter().map(|v| f64::from(*v)).sum::<f64>() / column.len() as f64;
        let variance = column.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / column.len() as f64;
        assert!(mean.abs() < bound && (variance - 1.0).abs() < bound, "{mean} {variance}");
    }
}
