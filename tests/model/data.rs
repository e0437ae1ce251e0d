//! The sample data, read as a user would.

use std::path::Path;

use fused_rnn::Error;
use fused_rnn::data::csv::{parse_columns, parse_series};
use fused_rnn::data::{
    CharVocabulary, ColumnChoice, ColumnScaler, ColumnsChoice, Gaps, MissingValues, TimeAxis, has_trend, read_series,
    read_ts, stratified_train_test_split, train_test_split,
};
use fused_rnn::interop::safetensors::TensorFile;
use ndarray::Array2;
use proptest::prelude::*;
use serde_json::Value;

fn sample(name: &str) -> fused_rnn::data::Series {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    read_series(&path, &ColumnChoice::LastNumeric).unwrap()
}

#[test]
fn sunspots() {
    let yearly = sample("sunspots_yearly.csv");
    assert_eq!((yearly.name.as_str(), yearly.values.len()), ("SUNACTIVITY", 309));
    assert_eq!((yearly.values[0], yearly.labels[0].as_str(), yearly.lines[0]), (Some(5.0), "1700", 2));
    assert_eq!(TimeAxis::new(&yearly.labels).label(309), "2009");
    let monthly = sample("sunspots_monthly.csv");
    let complete = Gaps::Error.close(&monthly).unwrap();
    assert_eq!((complete.values.len(), complete.values[1]), (3126, 62.6));
    assert!(!has_trend(&complete.values[..2188]) && !has_trend(&Gaps::Error.close(&yearly).unwrap().values[..216]));
    let axis = TimeAxis::new(&complete.labels);
    assert_eq!((axis.label(0), axis.position(12)), ("1749-01".to_owned(), 1750.0));
}

#[test]
fn carbon_dioxide_has_gaps() {
    let weekly = sample("co2_weekly.csv");
    let rows = weekly.values.len();
    let missing = weekly.values.iter().filter(|v| v.is_none()).count();
    assert_eq!((rows, missing), (2284, 59));
    let first_gap = weekly.values.iter().position(Option::is_none).unwrap();
    let message = Gaps::Error.close(&weekly).unwrap_err().to_string();
    assert!(message.contains(&format!("line {}", first_gap + 2)) && message.contains("59 values of 2284"), "{message}");
    assert_eq!(Gaps::Drop.close(&weekly).unwrap().values.len(), rows - missing);
    for gaps in [Gaps::Interpolate, Gaps::ForwardFill] {
        let complete = gaps.close(&weekly).unwrap();
        assert_eq!(complete.values.len(), rows);
        assert!(complete.values.iter().all(|v| (310.0..375.0).contains(v)), "{gaps}");
        assert_eq!(TimeAxis::new(&complete.labels).label(rows), "20020105");
        assert!(has_trend(&complete.values));
    }
}

fn sample_path(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

/// The numbers of speakers and utterances that the set's authors state.
#[test]
fn japanese_vowels() {
    let read = |part: &str| {
        let path = sample_path(&format!("JapaneseVowels_{part}.ts"));
        read_ts(&path, MissingValues::Error).unwrap()
    };
    let (train, test) = (read("TRAIN"), read("TEST"));
    let of_each = |set: &fused_rnn::data::TimeSeriesSet| {
        (0..9).map(|class| set.labels.iter().filter(|label| **label == class).count()).collect::<Vec<_>>()
    };
    assert_eq!(of_each(&train), [30; 9]);
    assert_eq!(of_each(&test), [31, 35, 88, 44, 29, 24, 40, 50, 29]);
    for (set, longest) in [(&train, 26), (&test, 29)] {
        assert_eq!(
            (set.name.as_str(), set.dimensions, set.classes.join("")),
            ("JapaneseVowels", 12, "123456789".to_owned())
        );
        let lengths = set.sequences.iter().map(Array2::nrows);
        assert_eq!((lengths.clone().min(), lengths.max()), (Some(7), Some(longest)));
    }
    let first = &train.sequences[0];
    let text = std::fs::read_to_string(sample_path("JapaneseVowels_TRAIN.ts")).unwrap();
    let line = text.lines().find(|line| !line.starts_with(['#', '@'])).unwrap();
    for (dimension, values) in line.split(':').take(12).enumerate() {
        let values: Vec<f32> = values.split(',').map(|value| value.parse().unwrap()).collect();
        assert_eq!(first.column(dimension).to_vec(), values);
    }
    let (x, lengths) = train.padded(None, 0.0).unwrap();
    assert_eq!(x.dim(), (270, 26, 12));
    assert_eq!(lengths[0], first.nrows());
    assert!(x.index_axis(ndarray::Axis(0), 0).rows().into_iter().skip(lengths[0]).flatten().all(|v| *v == 0.0));
}

#[test]
fn a_text_and_a_spellers_words() {
    let text = std::fs::read_to_string(sample_path("alice.txt")).unwrap();
    let vocabulary = CharVocabulary::from_text(&text).unwrap();
    assert!(vocabulary.characters().iter().all(|c| *c == '\n' || (' '..='~').contains(c)));
    assert_eq!(vocabulary.decode(&vocabulary.encode(&text).unwrap()).unwrap(), text);

    let path = sample_path("g2p_en.safetensors");
    let file = TensorFile::parse(&std::fs::read(&path).unwrap(), &path).unwrap();
    let phonemes = std::fs::read_to_string(sample_path("g2p_phonemes.txt")).unwrap();
    let phonemes: Vec<&str> = phonemes.lines().collect();
    assert_eq!(file.shape("fc_w").unwrap(), [phonemes.len(), 256]);
    assert_eq!(file.shape("enc_emb").unwrap(), [29, 256]);
    let words = std::fs::read_to_string(sample_path("g2p_words.tsv")).unwrap();
    assert_eq!(words.lines().count(), 1000);
    for line in words.lines() {
        let (word, spelling) = line.split_once('\t').unwrap();
        assert!(word.bytes().all(|b| b.is_ascii_lowercase()), "{word}");
        assert!(spelling.split(' ').all(|phoneme| phonemes.contains(&phoneme)), "{line}");
    }
}

/// scikit-learn's answers (`fixtures/generate_sklearn.py`).
fn sklearn() -> Value {
    serde_json::from_str(include_str!("../fixtures/sklearn.json")).unwrap()
}

fn matrix(value: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = serde_json::from_value(value.clone()).unwrap();
    Array2::from_shape_fn((rows.len(), rows[0].len()), |(row, column)| rows[row][column])
}

#[test]
fn scalers_are_scikit_learns() {
    let fixtures = sklearn();
    let scalers = &fixtures["scalers"];
    let (train, new) = (matrix(&scalers["matrix"]), matrix(&scalers["new"]));
    let fitted = [
        ("min_max", ColumnScaler::min_max(train.view()), ColumnScaler::min_max(train.mapv(|v| v as f32).view())),
        (
            "min_max_to",
            ColumnScaler::min_max_to(train.view(), -1.0, 3.0),
            ColumnScaler::min_max_to(train.mapv(|v| v as f32).view(), -1.0, 3.0),
        ),
        ("standard", ColumnScaler::standard(train.view()), ColumnScaler::standard(train.mapv(|v| v as f32).view())),
    ];
    for ((name, scaler, single), case) in fitted.into_iter().zip(scalers["cases"].as_array().unwrap()) {
        assert_eq!(case["name"], *name);
        let (scaler, single) = (scaler.unwrap(), single.unwrap());
        // Offsets are sums of 17 values, rounded to the largest of a column; scaled, that is relative to the column's scale. Both sides
        // round, and some more for the scale itself.
        let compare = |got: &Array2<f64>, expected: &Value, unit: f64, inverse: bool, what: &str| {
            for ((row, column), expected) in matrix(expected).indexed_iter() {
                let scale = scaler.columns()[column].inverse(1.0) - scaler.columns()[column].inverse(0.0);
                let largest = train.column(column).iter().chain(new.column(column)).fold(1.0f64, |m, v| m.max(v.abs()));
                let size = if inverse { largest * (1.0 + scale) } else { expected.abs() + largest / scale };
                let (got, tolerance) = (got[[row, column]], 2.0 * (17.0 + 4.0) * unit * size);
                assert!((got - expected).abs() <= tolerance, "{what}, [{row}, {column}]: {got}, not {expected}");
            }
        };
        let double = f64::EPSILON;
        compare(&scaler.transform(train.view()).unwrap(), &case["transformed"], double, false, name);
        compare(&scaler.transform(new.view()).unwrap(), &case["new"], double, false, name);
        compare(&scaler.inverse(new.view()).unwrap(), &case["inverse"], double, true, name);
        let scaled = single.transform(train.mapv(|v| v as f32).view()).unwrap().mapv(f64::from);
        compare(&scaled, &case["transformed"], f64::from(f32::EPSILON), false, name);
    }
}

#[test]
fn splits_are_as_large_as_scikit_learns() {
    let fixtures = sklearn();
    for case in fixtures["split_sizes"].as_array().unwrap() {
        let samples = case["samples"].as_u64().unwrap() as usize;
        let split = train_test_split(samples, case["fraction"].as_f64().unwrap(), 1);
        match (case["train"].as_u64(), case["test"].as_u64()) {
            (Some(train), Some(test)) => {
                let split = split.unwrap();
                assert_eq!((split.train.len() as u64, split.test.len() as u64), (train, test), "{case}");
            }
            _ => assert!(split.is_err(), "{case}"),
        }
    }
    for case in fixtures["strata"].as_array().unwrap() {
        let read = |key: &str| -> Vec<usize> { serde_json::from_value(case[key].clone()).unwrap() };
        let counts = read("counts");
        let classes: Vec<usize> = counts.iter().enumerate().flat_map(|(class, n)| vec![class; *n]).collect();
        let split = stratified_train_test_split(&classes, case["fraction"].as_f64().unwrap(), 1).unwrap();
        let of_class = |class: usize| split.test.iter().filter(|sample| classes[**sample] == class).count();
        assert_eq!((0..counts.len()).map(of_class).collect::<Vec<_>>(), read("test"), "{case}");
    }
}

#[test]
fn several_columns_of_a_file() {
    let path = sample_path("co2_weekly.csv");
    let bytes = std::fs::read(&path).unwrap();
    let columns = parse_columns(&bytes, "co2", &ColumnsChoice::AllNumeric).unwrap();
    let co2 = columns.last().unwrap();
    assert_eq!(co2.values, sample("co2_weekly.csv").values);
    let complete = Gaps::Drop.close_columns(&columns).unwrap();
    assert_eq!(complete.values.dim(), (2284 - 59, columns.len()));
    let alone = Gaps::Drop.close(co2).unwrap().values;
    assert_eq!(complete.values.column(columns.len() - 1).to_vec(), alone);
}

/// Pieces that CSV files are made of, and some that they should not be.
fn csv_text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b","[..],
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b" ",
        b"1",
        b"-2.5",
        b"1e999",
        b"NaN",
        b"inf",
        b"name",
        b"2001-02",
        b"20010203",
        b"9999-99-99",
        b"-9223372036854775808",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b";",
        b"\t",
        "é".as_bytes(),
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever the bytes: a series whose parts fit each other, or an error of data. Never a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop_oneof![csv_text(), prop::collection::vec(any::<u8>(), 0..60)], column in "[a-z0-9]{0,3}") {
        match parse_columns(&bytes, "fuzz.csv", &ColumnsChoice::AllNumeric) {
            Err(error) => prop_assert!(matches!(error, Error::Data { .. }), "{error:?}"),
            Ok(columns) => {
                for gaps in Gaps::ALL {
                    match gaps.close_columns(&columns) {
                        Err(error) => prop_assert!(matches!(error, Error::Data { .. }), "{error:?}"),
                        Ok(complete) => {
                            prop_assert!(complete.values.nrows() > 0 && complete.values.iter().all(|v| v.is_finite()));
                            prop_assert_eq!(complete.values.dim(), (complete.labels.len(), columns.len()));
                        }
                    }
                }
            }
        }
        for choice in [ColumnChoice::LastNumeric, ColumnChoice::Named(column)] {
            match parse_series(&bytes, "fuzz.csv", &choice) {
                Err(error) => prop_assert!(matches!(error, Error::Data { .. }), "{error:?}"),
                Ok(series) => {
                    prop_assert!(!series.values.is_empty());
                    prop_assert!(series.values.iter().flatten().all(|v| v.is_finite()));
                    prop_assert_eq!(series.values.len(), series.labels.len());
                    prop_assert_eq!(series.values.len(), series.lines.len());
                    prop_assert!(series.lines.windows(2).all(|pair| pair[0] < pair[1] || bytes.contains(&b'\r')));
                    for gaps in Gaps::ALL {
                        let Ok(complete) = gaps.close(&series) else { continue };
                        let axis = TimeAxis::new(&complete.labels);
                        prop_assert_eq!(complete.values.len(), complete.labels.len());
                        prop_assert!((0..60).map(|i| axis.position(i)).is_sorted());
                        prop_assert!(!axis.label(complete.values.len() + 1_000_000).is_empty());
                    }
                }
            }
        }
    }
}
