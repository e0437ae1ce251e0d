//! Readers of foreign bytes: whatever a file holds, the answer is its content or a typed error, soon and without
//! much memory. Files are damaged by a seeded generator, so that a failure can be repeated.

use std::path::{Path, PathBuf};

use crate::common::damage::{damaged, with_damaged_meaning, write_anew};
use crate::common::{Rng, reference};
use fused_rnn::backend::TensorRef;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::cell::CellKind;
use fused_rnn::data::csv::parse_series;
use fused_rnn::data::time::TimeAxis;
use fused_rnn::data::ts::parse_ts;
use fused_rnn::data::{ColumnChoice, Gaps, MissingValues, Scaler, TimeSplit, windows};
use fused_rnn::interop::safetensors::{self, TensorFile};
use fused_rnn::model::{ForecastConfig, Forecaster, Sequential};
use fused_rnn::nn::{LayerConfig, RecurrentOptions};
use fused_rnn::parity::Case;
use fused_rnn::{DType, Device, Error};

/// A file of a header and data.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), data].concat()
}

/// The header's entry of a tensor.
fn entry(name: &str, dtype: &str, shape: &str, offsets: &str) -> String {
    format!(r#""{name}":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}"#)
}

fn small_file() -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("small.safetensors");
    let (a, b) = ([1.0f32, -2.0, 0.5, 4.0, f32::NAN, -0.0], [7.0f32]);
    safetensors::write(
        &path,
        "case",
        r#"{"cell":"gru"}"#,
        &[("a", vec![2, 3], TensorRef::of(&a)), ("b.c", vec![], TensorRef::of(&b))],
    )
    .expect("written");
    std::fs::read(&path).expect("read")
}

/// Reads everything there is to read, and checks that errors are of the right kind and name the file.
fn read_all(bytes: &[u8]) -> Result<TensorFile, String> {
    let path = Path::new("hostile.safetensors");
    let typed = |error: Error| {
        assert!(matches!(&error, Error::Format { path: named, .. } if named == path), "{error:?}");
        let text = error.to_string();
        assert!(text.starts_with("hostile.safetensors: not a usable safetensors file: "), "{text}");
        text
    };
    let file = TensorFile::parse(bytes, path).map_err(typed)?;
    let _ = file.metadata("case");
    for name in file.names() {
        let elements = |shape: &[usize]| shape.iter().product::<usize>();
        let shape = file.shape(name).expect("a named tensor has a shape");
        // Not more than the bytes there are, however long the shape: reading is bounded by the file.
        if let Ok((shape, values)) = file.floats::<f64>(name).map_err(typed) {
            assert_eq!(elements(&shape), values.len());
            assert!(values.len() <= bytes.len());
        }
        if let Ok((shape, values)) = file.integers(name).map_err(typed) {
            assert_eq!(elements(&shape), values.len());
        }
        let _ = (file.is_single_precision(name), file.contains(name), shape.len());
    }
    typed(file.floats::<f32>("no such tensor").expect_err("absent"));
    Ok(file)
}

fn refused(bytes: &[u8]) -> String {
    match read_all(bytes) {
        Err(text) => text,
        Ok(_) => panic!("accepted: {:?}", String::from_utf8_lossy(bytes)),
    }
}

#[test]
fn what_is_written_is_read() {
    let file = read_all(&small_file()).expect("valid");
    assert_eq!(file.names().collect::<Vec<_>>(), ["a", "b.c"]);
    assert_eq!(file.metadata("case"), Some(r#"{"cell":"gru"}"#));
    let (shape, values) = file.floats::<f32>("a").expect("floats");
    assert_eq!(shape, [2, 3]);
    assert_eq!((values[0], values[3], values[4].is_nan(), values[5].to_bits()), (1.0, 4.0, true, 1 << 31));
    assert_eq!(file.floats::<f64>("b.c").expect("floats"), (vec![], vec![7.0]));
    let text = file.integers("a").expect_err("not integers").to_string();
    assert!(text.contains("a: expected i64 or i32, got F32"), "{text}");
    let text = file.floats::<f32>("z").expect_err("absent").to_string();
    assert!(text.contains("no tensor z; the file has a, b.c"), "{text}");
}

#[test]
fn every_truncation_is_refused() {
    let bytes = small_file();
    for len in 0..bytes.len() {
        refused(&bytes[..len]);
    }
    refused(&[bytes, vec![0]].concat());
}

#[test]
fn header_lengths_beyond_the_file_are_refused() {
    let bytes = small_file();
    for len in [bytes.len() as u64, 100_000_000, 100_000_001, 1 << 32, 1 << 62, 1 << 63, u64::MAX - 8, u64::MAX] {
        let mut bytes = bytes.clone();
        bytes[..8].copy_from_slice(&len.to_le_bytes());
        let text = refused(&bytes);
        assert!(text.contains(&len.to_string()), "{text}");
    }
    let mut bytes = bytes;
    bytes[..8].copy_from_slice(&0u64.to_le_bytes());
    refused(&bytes);
}

#[test]
fn headers_that_say_nothing_usable_are_refused() {
    let f32s = entry("a", "F32", "[2]", "[0,8]");
    let max = u64::MAX;
    for header in [
        "".to_owned(),
        "\u{0}".to_owned(),
        "null".to_owned(),
        "[]".to_owned(),
        "{".to_owned(),
        "{}".to_owned(),
        "}{".to_owned(),
        "{\"a\":1}".to_owned(),
        "{\"a\":{}}".to_owned(),
        "[".repeat(100_000),
        "{\"a\":".repeat(100_000),
        format!("{{{f32s}}}trailing"),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,7]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,9]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[1,9]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[8,0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[-8,0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,8,8]")),
        format!("{{{}}}", entry("a", "F32", "[2]", "[0,1e99]")),
        format!("{{{}}}", entry("a", "F32", "[2]", &format!("[0,{max}]"))),
        format!("{{{}}}", entry("a", "F32", "[-2]", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "[2.5]", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "2", "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{max},2]"), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{max},{max},{max}]"), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", &format!("[{}]", (1u64 << 62) + 2), "[0,8]")),
        format!("{{{}}}", entry("a", "F32", "[4294967296,4294967296]", "[0,0]")),
        format!("{{{}}}", entry("a", "F99", "[2]", "[0,8]")),
        format!("{{{}}}", entry("a", "f32", "[2]", "[0,8]")),
        format!("{{{}}}", entry("a", "F4", "[15]", "[0,8]")),
        // Overlapping, with a gap, and beyond the end.
        format!("{{{f32s},{}}}", entry("b", "F32", "[2]", "[0,8]")),
        format!("{{{f32s},{}}}", entry("b", "F32", "[1]", "[4,8]")),
        format!("{{{},{}}}", entry("a", "F32", "[1]", "[0,4]"), entry("b", "U8", "[1]", "[7,8]")),
        format!("{{{f32s},{}}}", entry("b", "F32", "[2]", "[8,16]")),
        format!("{{\"__metadata__\":{{\"case\":1}},{f32s}}}"),
        format!("{{\"__metadata__\":[],{f32s}}}"),
    ] {
        refused(&file(&header, &[0; 8]));
    }
    let not_utf8 = [&2u64.to_le_bytes()[..], &[0xff, 0xfe], &[0; 8]].concat();
    refused(&not_utf8);
}

/// Offsets whose sum with the header's length overflows: eight tensors of almost 2^61 bytes.
#[test]
fn offsets_near_the_end_of_the_address_space_are_refused() {
    let size = (1u64 << 61) - 1;
    let entries: Vec<_> = (0..8u64)
        .map(|i| entry(&format!("t{i}"), "U8", &format!("[{size}]"), &format!("[{},{}]", i * size, (i + 1) * size)))
        .collect();
    for count in 1..=8 {
        refused(&file(&format!("{{{}}}", entries[..count].join(",")), &[0; 8]));
    }
}

#[test]
fn tensors_of_no_elements_and_of_other_types_are_harmless() {
    let empty = file(&format!("{{{}}}", entry("a", "F32", "[0]", "[0,0]")), &[]);
    assert_eq!(read_all(&empty).expect("valid").floats::<f32>("a").expect("floats"), (vec![0], vec![]));
    let wide = file(&format!("{{{}}}", entry("a", "F32", "[0,4294967296]", "[0,0]")), &[]);
    assert!(read_all(&wide).expect("valid").floats::<f32>("a").expect("floats").1.is_empty());
    read_all(&file("{}", &[])).expect("a file of nothing");
    for (dtype, size) in [("BOOL", 1), ("U8", 1), ("I8", 1), ("U16", 2), ("U32", 4), ("U64", 8), ("F8_E4M3", 1)] {
        let bytes =
            file(&format!("{{{}}}", entry("a", dtype, "[8]", &format!("[0,{}]", 8 * size))), &vec![1; 8 * size]);
        let read = read_all(&bytes).unwrap_or_else(|e| panic!("{dtype}: {e}"));
        let text = read.floats::<f64>("a").expect_err("no floats").to_string();
        assert!(text.contains("a: expected f64, f32, f16 or bf16, got"), "{text}");
        let text = read.integers("a").expect_err("no i64").to_string();
        assert!(text.contains("a: expected i64 or i32, got"), "{text}");
    }
    for (dtype, bytes, value) in
        [("F16", vec![0, 0x3c], 1.0), ("BF16", vec![0x80, 0xbf], -1.0), ("F64", 2.5f64.to_le_bytes().to_vec(), 2.5)]
    {
        let bytes = file(&format!("{{{}}}", entry("a", dtype, "[1]", &format!("[0,{}]", bytes.len()))), &bytes);
        let read = read_all(&bytes).expect("valid");
        assert_eq!(read.floats::<f64>("a").expect("floats").1, [value], "{dtype}");
        assert_eq!(read.is_single_precision("a"), dtype != DType::F64.name().to_uppercase());
    }
    for (dtype, bytes) in [("I64", (-5i64).to_le_bytes().to_vec()), ("I32", (-5i32).to_le_bytes().to_vec())] {
        let bytes = file(&format!("{{{}}}", entry("a", dtype, "[1]", &format!("[0,{}]", bytes.len()))), &bytes);
        assert_eq!(read_all(&bytes).expect("valid").integers("a").expect("integers").1, [-5]);
    }
}

#[test]
fn damaged_files_are_read_or_refused() {
    let original = small_file();
    let (mut read, mut refused) = (0, 0);
    for seed in 0..20_000 {
        let bytes = damaged(&original, &mut Rng::new(seed));
        match std::panic::catch_unwind(|| read_all(&bytes)) {
            Ok(Ok(_)) => read += 1,
            Ok(Err(_)) => refused += 1,
            Err(_) => panic!("seed {seed} panics: {:?}", String::from_utf8_lossy(&bytes)),
        }
    }
    assert!(read > 100 && refused > 1000, "{read} read, {refused} refused: the damage is of one kind only");
}

/// Runs `read` on `count` damaged variants of each file, and says how many it accepted and refused. It may do both, but not panic.
fn damage_each(
    files: &[(String, Vec<u8>)],
    count: u64,
    damage: impl Fn(&[u8], &mut Rng) -> Vec<u8>,
    read: impl Fn(&[u8]) -> Result<(), String> + std::panic::RefUnwindSafe,
) -> (u64, u64) {
    let (mut accepted, mut refused) = (0, 0);
    for (name, original) in files {
        read(original).unwrap_or_else(|e| panic!("{name} as it is: {e}"));
        for seed in 0..count {
            let bytes = damage(original, &mut Rng::new(seed));
            match std::panic::catch_unwind(|| read(&bytes)) {
                Ok(Ok(())) => accepted += 1,
                Ok(Err(text)) => {
                    assert!(!text.is_empty());
                    refused += 1;
                }
                Err(_) => {
                    let header = String::from_utf8_lossy(&bytes[..bytes.len().min(3000)]).into_owned();
                    panic!("{name} with the damage of seed {seed} panics; it begins {header:?}");
                }
            }
        }
    }
    println!("{} files: {accepted} damaged ones accepted, {refused} refused", files.len());
    (accepted, refused)
}

fn files_in(folder: &str, extension: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let paths = std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<PathBuf> = paths.filter(|path| path.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    let read = |path: &PathBuf| (path.display().to_string(), std::fs::read(path).expect("read"));
    files.iter().map(read).collect()
}

// Parity cases.

fn run_case(bytes: &[u8]) -> Result<(), String> {
    let path = Path::new("case.safetensors");
    let file = TensorFile::parse(bytes, path).map_err(|e| e.to_string())?;
    let case = Case::from_file(&file).map_err(|e| e.to_string())?;
    assert!(case.expected().count() > 0);
    let report = case.run(&ReferenceBackend::<f32>::new(), None).map_err(|e| e.to_string())?;
    assert!(!report.tensors.is_empty());
    let _ = (report.passed(), report.worst().map(|w| w.relative_error));
    Ok(())
}

#[test]
fn damaged_parity_cases_are_run_or_refused() {
    let files = files_in("tests/fixtures/parity", "safetensors");
    assert!(files.len() > 20);
    let (accepted, refused) = damage_each(&files, 60, damaged, run_case);
    assert!(accepted > 0 && refused > accepted / 10);
    let meaning = |bytes: &[u8], rng: &mut Rng| with_damaged_meaning(bytes, "case", rng);
    let (accepted, refused) = damage_each(&files, 150, meaning, run_case);
    assert!(accepted > 0 && refused > accepted / 10);
}

// Models.

/// Small models of all layers, as bytes of their files.
fn model_files() -> Vec<(String, Vec<u8>)> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    CellKind::ALL
        .into_iter()
        .map(|cell| {
            let config = ForecastConfig {
                column: "sunspots".to_owned(),
                inputs: Vec::new(),
                gaps: Gaps::Interpolate,
                window: 4,
                horizon: 2,
                difference: cell != CellKind::Gru,
                scaler: Scaler::standard(&[1.0, 2.0, 4.0]).expect("valid"),
                reading: Default::default(),
                correction: None,
                known: Vec::new(),
                panel: None,
            };
            let layer = LayerConfig::of_cell(cell, 3, RecurrentOptions::default());
            let model = Forecaster::new(Device::reference(), config, layer, 1).expect("valid");
            model.save(&path).expect("saved");
            (format!("a model with {cell}"), std::fs::read(&path).expect("read"))
        })
        .collect()
}

#[test]
fn damaged_models_are_loaded_or_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("model.safetensors");
    let load = |bytes: &[u8]| -> Result<(), String> {
        write_anew(&path, bytes);
        let model = Sequential::load(reference(DType::F64), &path);
        if let Ok(model) = &model {
            let _ = (model.summary(), model.count_params());
        }
        let mut forecaster = Forecaster::load(Device::reference(), &path).map_err(|e| e.to_string())?;
        model.map_err(|e| format!("a forecaster, but no model: {e}"))?;
        forecaster.forecast(&[3.0, 1.0, 4.0, 1.0, 5.0], 3).map(drop).map_err(|e| e.to_string())
    };
    let files = model_files();
    let (accepted, refused) = damage_each(&files, 1000, damaged, load);
    assert!(accepted > 0 && refused > accepted / 10);
    let meaning = |bytes: &[u8], rng: &mut Rng| with_damaged_meaning(bytes, "fused-rnn", rng);
    let (accepted, refused) = damage_each(&files, 2000, meaning, load);
    assert!(accepted > 0 && refused > accepted / 10);
    for (_, bytes) in &files {
        for len in 0..bytes.len() {
            load(&bytes[..len]).expect_err("truncated");
        }
    }
}

// CSV.

fn read_csv(bytes: &[u8]) -> Result<(), String> {
    let mut outcome = Ok(());
    for choice in
        [ColumnChoice::LastNumeric, ColumnChoice::Named("1".to_owned()), ColumnChoice::Named("co2".to_owned())]
    {
        let series = match parse_series(bytes, "data.csv", &choice) {
            Ok(series) => series,
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, Error::Data { .. }) && text.starts_with("data.csv"), "{text}");
                if choice == ColumnChoice::LastNumeric {
                    outcome = Err(text);
                }
                continue;
            }
        };
        assert_eq!(series.values.len(), series.labels.len());
        for gaps in Gaps::ALL {
            let Ok(complete) = gaps.close(&series) else { continue };
            assert!(complete.values.iter().all(|v| v.is_finite()));
            assert_eq!(complete.values.len(), complete.labels.len());
            let _ = TimeAxis::new(&complete.labels);
            let _ = (Scaler::min_max(&complete.values), Scaler::standard(&complete.values));
            let _ = (TimeSplit::new(complete.values.len(), 0.1, 0.2), windows(&complete.values, 3, 2));
        }
    }
    outcome
}

#[test]
fn damaged_csv_files_are_read_or_refused() {
    let mut files = files_in("examples/data", "csv");
    assert!(!files.is_empty());
    // The first lines have everything that the others have.
    for (_, bytes) in &mut files {
        bytes.truncate(1500);
        let last_line = bytes.iter().rposition(|b| *b == b'\n').expect("lines");
        bytes.truncate(last_line + 1);
    }
    let csv = |original: &[u8], rng: &mut Rng| {
        let mut bytes = original.to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len().max(1)).min(bytes.len());
            let until = at + rng.below((bytes.len() - at).min(30) + 1);
            let hostile: &[&[u8]] = &[
                b",",
                b"\n",
                b"\r",
                b"\r\n",
                b"\"",
                b"\"\"",
                b"nan",
                b"inf",
                b"-inf",
                b"1e400",
                b"1e308",
                b"-1e308",
                b"1e-400",
                b"text",
                b"\xff",
                b"\0",
                b"\xef\xbb\xbf",
                b" ",
                b"0x10",
                b"1_000",
                b";",
                b"9999-99-99",
                b"\xe2\x80\xae",
                b"",
            ];
            bytes.splice(at..until, hostile[rng.below(hostile.len())].iter().copied());
        }
        bytes
    };
    let (accepted, refused) = damage_each(&files, 1500, csv, read_csv);
    assert!(accepted > 0 && refused > accepted / 20);
    for bytes in [
        &b""[..],
        b"\n",
        b"\n\n\n",
        b",",
        b",,\n,,",
        b"\"",
        b"a",
        b"a\n",
        b"1",
        b"nan",
        b"a,b\n1",
        b"\xef\xbb\xbf",
        b"\xff\xfe1\0",
    ] {
        let _ = read_csv(bytes);
    }
}

// Sets of time series.

fn read_ts(bytes: &[u8]) -> Result<(), String> {
    let mut outcome = Ok(());
    for missing in [MissingValues::Error, MissingValues::NotANumber] {
        match parse_ts(bytes, "data.ts", missing) {
            Err(error) => {
                let text = error.to_string();
                assert!(matches!(error, Error::Data { .. } | Error::Unsupported { .. }), "{error:?}");
                assert!(text.starts_with("data.ts"), "{text}");
                outcome = Err(text);
            }
            Ok(set) => {
                assert!(!set.sequences.is_empty());
                for sequence in &set.sequences {
                    assert!(sequence.nrows() > 0 && sequence.ncols() == set.dimensions);
                    assert!(sequence.len() <= bytes.len(), "not more values than the file has bytes");
                    let finite = sequence.iter().all(|v| v.is_finite());
                    assert!(
                        finite || (missing == MissingValues::NotANumber && sequence.iter().all(|v| !v.is_infinite()))
                    );
                }
                assert!(set.labels.iter().all(|label| *label < set.classes.len()));
                assert!(set.targets.iter().all(|target| target.is_finite()));
                let labelled = if set.classes.is_empty() { 0 } else { set.sequences.len() };
                assert_eq!(set.labels.len(), labelled);
                let (x, lengths) = set.padded(Some(3), 0.0).expect("padded");
                assert_eq!(x.dim(), (set.sequences.len(), 3, set.dimensions));
                assert!(lengths.iter().all(|length| (1..=3).contains(length)));
            }
        }
    }
    outcome
}

#[test]
fn damaged_sets_of_series_are_read_or_refused() {
    let header = "#a set\n@problemName Small\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n\
                  @equalLength false\n@classLabel true a b\n@data\n";
    let rows = "1.5,-2,3e-2:0.1,0.2,0.3:a\n4,5:-6,7:b\n0:1:b\n";
    let equal = "@univariate true\n@equalLength true\n@seriesLength 3\n@targetLabel true\n@missing true\n@data\n1,?,3:0.5\n4,5,6:-1\n";
    let files = [("classes".to_owned(), format!("{header}{rows}").into_bytes())];
    let ts = |original: &[u8], rng: &mut Rng| {
        let mut bytes = original.to_vec();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(bytes.len().max(1)).min(bytes.len());
            let until = at + rng.below((bytes.len() - at).min(12) + 1);
            let hostile: &[&[u8]] = &[
                b":",
                b",",
                b"\n",
                b"\r\n",
                b"@",
                b"@data\n",
                b"@DATA",
                b"#",
                b"?",
                b"nan",
                b"inf",
                b"-inf",
                b"1e39",
                b"1e-400",
                b"true",
                b"18446744073709551615",
                b"99999999999999999999",
                b"-1",
                b"0",
                b"a",
                b"\xff",
                b"\0",
                b"\xef\xbb\xbf",
                b"\xe2\x80\xa8",
                b" ",
                b"(",
                b"",
            ];
            bytes.splice(at..until, hostile[rng.below(hostile.len())].iter().copied());
        }
        bytes
    };
    let (accepted, refused) = damage_each(&files, 20_000, ts, read_ts);
    assert!(accepted > 100 && refused > 1000, "{accepted} accepted, {refused} refused");
    // Missing values: refused by one policy, so that no variant passes whole; that it never panics is what counts here.
    for seed in 0..10_000 {
        let _ = read_ts(&ts(equal.as_bytes(), &mut Rng::new(seed)));
    }
    for len in 0..header.len() + 4 {
        read_ts(&files[0].1[..len]).expect_err("truncated");
    }
    // The sample, cut anywhere: whole lines are read, a cut one is refused or, cut within its last number or label, has no such class.
    let sample = std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data/JapaneseVowels_TRAIN.ts"))
        .expect("the sample");
    read_ts(&sample).expect("the sample");
    for seed in 0..40 {
        let cut = Rng::new(seed).below(sample.len());
        let whole = sample[..cut].ends_with(b"\n") || sample[cut..].starts_with(b"\n");
        let read = read_ts(&sample[..cut]);
        assert!(read.is_err() || whole, "cut at {cut}");
    }
}
