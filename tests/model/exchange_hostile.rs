//! Readers of whole models on hostile bytes: a model or a typed error, soon and without much memory. Damage comes from a seeded generator, so
//! that a failure can be repeated.

use std::io::{Cursor, Read as _, Write as _};
use std::path::Path;

use serde_json::Value;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::common::Rng;
use crate::common::damage::{damage_value, damaged, write_anew};
use fused_rnn::exchange::{arrays, keras, onnx};
use fused_rnn::model::Sequential;
use fused_rnn::nn::*;
use fused_rnn::{Device, Error};

fn fixture(name: &str) -> Vec<u8> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchange");
    std::fs::read(folder.join(name)).expect("a fixture")
}

/// Configuration and weights of a `.keras` file.
fn members(bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let mut archive = ZipArchive::new(Cursor::new(bytes)).expect("an archive");
    let mut member = |name: &str| {
        let mut content = Vec::new();
        archive.by_name(name).expect("a member").read_to_end(&mut content).expect("content");
        content
    };
    (member("config.json"), member("model.weights.h5"))
}

fn archive(config: &[u8], weights: &[u8], method: CompressionMethod) -> Vec<u8> {
    let mut zip = ZipWriter::new(Cursor::new(Vec::new()));
    for (name, content) in [("config.json", config), ("model.weights.h5", weights)] {
        zip.start_file(name, SimpleFileOptions::default().compression_method(method)).expect("a member");
        zip.write_all(content).expect("written");
    }
    zip.finish().expect("an archive").into_inner()
}

/// Reads a file; an error names it.
fn parse(bytes: &[u8]) -> Result<(), String> {
    match keras::parse(Device::cpu(), bytes, Path::new("hostile.keras")) {
        Ok(_) => Ok(()),
        Err(error) => {
            let text = error.to_string();
            let typed = matches!(error, Error::Format { .. } | Error::Unsupported { .. } | Error::NonFinite { .. });
            assert!(typed && text.contains("hostile.keras"), "{error:?}");
            Err(text)
        }
    }
}

/// Numbers that have no end, and such as are cut off, in every field of an ONNX file that has many: the parser reads the ones for ever, and leaves the others out.
#[test]
fn numbers_of_an_onnx_file_end() {
    let field = |number: u8, content: &[u8]| {
        let length = u8::try_from(content.len()).expect("a short field");
        [&[number << 3 | 2, length], content].concat()
    };
    let in_tensor = |content: Vec<u8>| field(5, &content); // of a graph
    let in_attribute = |content: Vec<u8>| field(1, &field(5, &content)); // of a node of a graph
    let (endless, cut_off, odd) = ([0x80; 11], [1, 0x80], [0; 5]);
    let (long, ends) = ("a number of more than ten bytes", "it ends within a field");
    let cases = [
        [1, 5, 7].map(|number| (in_tensor(field(number, &endless)), long)).to_vec(),
        [1, 5, 7].map(|number| (in_tensor(field(number, &cut_off)), ends)).to_vec(),
        [4, 10].map(|number| (in_tensor(field(number, &odd)), ends)).to_vec(),
        vec![(in_attribute(field(8, &endless)), long), (in_attribute(field(8, &cut_off)), ends)],
        vec![(in_attribute(field(7, &odd)), ends)],
    ];
    for (graph, problem) in cases.concat() {
        let model = [field(8, &[0x10, 13]), field(7, &graph)].concat();
        let error = onnx::parse(Device::cpu(), &model, Path::new("hostile.onnx"), &Default::default()).err();
        let text = error.expect("an error").to_string();
        assert!(text.contains("hostile.onnx") && text.contains(problem), "{model:?}: {text}");
    }
}

/// What is no file of its kind says so by its first bytes: it is not read to its end, here after a terabyte, none of it on the disk.
#[test]
fn other_content_is_not_read_whole() {
    let folder = tempfile::tempdir().expect("a folder");
    let architecture = folder.path().join("sound.keras");
    std::fs::write(&architecture, fixture(KERAS[0])).expect("written");
    for beginning in
        [&b""[..], b"time,value\n1,2\n", b"{\"class_name\": 1}", b"\x89PNG\r\n\x1a\n", b"\x0a\xff\xff\xff\xff\xff\x7f"]
    {
        let large = |name: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, beginning).expect("written");
            let file = std::fs::File::options().write(true).open(&path).expect("the file");
            file.set_len(1 << 40).expect("a sparse file");
            path
        };
        let refused = |error: Option<Error>, name: &str, problem: &str| {
            let error = error.expect("an error");
            let text = error.to_string();
            let is_format = matches!(error, Error::Format { .. });
            assert!(is_format && text.contains(name) && text.contains(problem), "{beginning:?}: {text}");
        };
        let cpu = Device::cpu();
        let (no_zip, no_hdf5) = ("does not begin as a zip archive", "no HDF5 file");
        let mut model = keras::read(cpu.clone(), &architecture).expect("a model").model;
        refused(
            onnx::read(cpu.clone(), large("a.onnx"), &Default::default()).err(),
            "a.onnx",
            "does not begin with a field of a model",
        );
        refused(keras::read(cpu.clone(), large("a.keras")).err(), "a.keras", no_zip);
        refused(keras::read_with_weights(cpu, &architecture, large("a.h5")).err(), "a.h5", no_hdf5);
        refused(keras::read_weights(&mut model, large("b.h5")).err(), "b.h5", no_hdf5);
        refused(keras::read_weights(&mut model, large("b.keras")).err(), "b.keras", no_hdf5);
        refused(arrays::read(large("a.npz")).err(), "a.npz", no_zip);
    }
}

const KERAS: [&str; 9] = [
    "keras_sequential.keras",
    "keras_masked.keras",
    "keras_encoder_decoder.keras",
    "keras_nested.keras",
    "keras_attention.keras",
    "keras_windows.keras",
    "keras_normalized.keras",
    "keras_directions.keras",
    "keras_operations.keras",
];

#[test]
fn truncated_archives_are_refused() {
    for name in KERAS {
        let bytes = fixture(name);
        for len in (0..bytes.len()).step_by(61) {
            assert!(parse(&bytes[..len]).is_err(), "{name}: {len} bytes are a model");
        }
        let (config, weights) = members(&bytes);
        for len in (0..config.len()).step_by(61) {
            assert!(parse(&archive(&config[..len], &weights, CompressionMethod::Stored)).is_err(), "{name}: {len}");
        }
        // Most of an HDF5 file is needed; what is left out may be room between objects.
        for len in (0..weights.len()).step_by(211) {
            let _ = parse(&archive(&config, &weights[..len], CompressionMethod::Stored));
        }
        assert!(parse(&archive(&config, &weights[..weights.len() / 2], CompressionMethod::Stored)).is_err());
    }
}

#[test]
fn damaged_archives_are_models_or_errors() {
    let mut rng = Rng::new(71);
    for name in KERAS {
        let bytes = fixture(name);
        for _ in 0..300 {
            let _ = parse(&damaged(&bytes, &mut rng));
        }
    }
}

/// The checksums of the archive hold, so that the HDF5 reader sees the damage.
#[test]
fn damaged_weights_are_models_or_errors() {
    let mut rng = Rng::new(72);
    let (mut read, mut caught, mut count) = (0, 0, 0);
    for name in KERAS {
        let (config, weights) = members(&fixture(name));
        for _ in 0..900 {
            let mut weights = weights.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(weights.len());
                let until = (at + 8).min(weights.len());
                match rng.below(5) {
                    0 => weights[at] ^= 1 << rng.below(8),
                    1 => weights[at] = rng.bits() as u8,
                    2 => weights[at..until].fill(rng.pick(&[0, 0x7f, 0xff])),
                    3 => {
                        // Lengths, addresses and sizes are eight bytes, most of them at multiples of eight.
                        let at = at / 8 * 8;
                        if let Some(field) = weights.get_mut(at..at + 8) {
                            let value = rng.pick(&[0, 1, 8, 96, 1 << 20, 1 << 40, u64::MAX / 2, u64::MAX - 7]);
                            field.copy_from_slice(&value.to_le_bytes());
                        }
                    }
                    _ => {
                        let from = rng.below(weights.len().saturating_sub(8).max(1));
                        let copy = weights[from..(from + 8).min(weights.len())].to_vec();
                        let end = (at + copy.len()).min(weights.len());
                        weights[at..end].copy_from_slice(&copy[..end - at]);
                    }
                }
            }
            count += 1;
            match parse(&archive(&config, &weights, CompressionMethod::Stored)) {
                Ok(()) => read += 1,
                Err(text) => caught += usize::from(text.contains("its HDF5 structure is damaged")),
            }
        }
    }
    println!("{count} damaged files: {read} read all the same, {caught} refused by what guards the HDF5 reader");
}

/// A sound archive that says something else.
#[test]
fn damaged_configurations_are_models_or_errors() {
    let mut rng = Rng::new(73);
    for name in KERAS {
        let (config, weights) = members(&fixture(name));
        let sound: Value = serde_json::from_slice(&config).expect("JSON");
        for _ in 0..500 {
            let mut value = sound.clone();
            for _ in 0..1 + rng.below(3) {
                damage_value(&mut value, &mut rng);
            }
            let _ = parse(&archive(value.to_string().as_bytes(), &weights, CompressionMethod::Stored));
        }
    }
}

#[test]
fn what_would_take_much_memory_is_refused() {
    let (config, weights) = members(&fixture("keras_encoder_decoder.keras"));
    // A member that is far larger than the file.
    let spaces = vec![b' '; 64 << 20];
    let text = parse(&archive(&spaces, &weights[..0], CompressionMethod::Deflated)).expect_err("a bomb");
    assert!(text.contains("times the file"), "{text}");
    // Sizes that the arrays do not bear out, in every place where one stands.
    let sound: Value = serde_json::from_slice(&config).expect("JSON");
    let text = sound.to_string();
    for (size, place) in [("\"units\":", 0), ("\"key_dim\":", 0), ("\"num_heads\":", 0), ("\"units\":", 1)] {
        let at = text.match_indices(size).nth(place).expect("a size").0 + size.len();
        let end = at + text[at..].find(|c: char| !c.is_ascii_digit()).expect("more");
        for large in ["1000000000", "4611686018427387904", "18446744073709551615"] {
            let config = format!("{}{large}{}", &text[..at], &text[end..]);
            assert!(parse(&archive(config.as_bytes(), &weights, CompressionMethod::Stored)).is_err(), "{size} {large}");
        }
    }
    // Arrays that are said to be larger than the file.
    for large in [1u64 << 24, 1 << 40, u64::MAX / 4] {
        let mut weights = weights.clone();
        let dims = [4u64, 12].map(u64::to_le_bytes).concat();
        let at = weights.windows(16).position(|window| window == dims).expect("a shape");
        weights[at..at + 8].copy_from_slice(&large.to_le_bytes());
        let text = parse(&archive(&config, &weights, CompressionMethod::Stored)).expect_err("too large");
        assert!(text.contains("larger than the file"), "{text}");
    }
}

/// Models inside of each other, each used twice by the next: as many uses as the file has no room for.
#[test]
fn models_inside_of_each_other_have_an_end() {
    let tensor = |layer: &str, node: usize| serde_json::json!({"class_name": "__keras_tensor__", "config": {"shape": [null, 2], "dtype": "float32", "keras_history": [layer, node, 0]}});
    let input = serde_json::json!({"class_name": "InputLayer", "config": {"name": "x", "batch_shape": [null, 2]}, "name": "x", "inbound_nodes": []});
    let node = |value: Value| serde_json::json!({"args": [value], "kwargs": {}});
    let mut inner = serde_json::json!({"class_name": "Activation", "config": {"name": "f", "activation": "tanh"}, "name": "f",
                                       "inbound_nodes": [node(tensor("x", 0)), node(tensor("f", 0))]});
    let mut name = "f".to_owned();
    for depth in 0..24 {
        let model = format!("m{depth}");
        inner = serde_json::json!({"class_name": "Functional", "name": model, "config": {
            "name": model, "layers": [input, inner], "input_layers": ["x", 0, 0],
            "output_layers": [name, if depth == 0 { 1 } else { 2 }, 0]},
            "inbound_nodes": [node(tensor("x", 0)), node(tensor(&model, 0))]});
        name = model;
    }
    let (_, weights) = members(&fixture("keras_nested.keras"));
    let text = parse(&archive(inner.to_string().as_bytes(), &weights, CompressionMethod::Stored)).expect_err("no end");
    assert!(text.contains("recursion") || text.contains("used more often"), "{text}");
}

#[test]
fn damaged_state_dicts_are_weights_or_errors() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("hostile.safetensors");
    let mut rng = Rng::new(74);
    let bytes = fixture("torch_stacked.state_dict.safetensors");
    let mut model = Sequential::new(Device::cpu(), &[5, 3], 1).expect("a model");
    let lstm = Lstm::new(4).double_bias(true).return_sequences(true).num_layers(2);
    model.add(Bidirectional::new(lstm)).and_then(|m| m.add(LayerNormalization::new())).expect("layers");
    model.add(Dense::new(8)).and_then(|m| m.add(Dense::new(2))).expect("layers");
    let map = [("rnn", "bidirectional"), ("head.0", "layer_normalization"), ("head.1", "dense"), ("head.3", "dense_1")];
    model
        .load_torch(
            {
                write_anew(&path, &bytes);
                &path
            },
            &map,
        )
        .expect("sound");
    for round in 0..600 {
        write_anew(&path, &damaged(&bytes, &mut rng));
        let map = if round % 2 == 0 { &map[..] } else { &[] };
        if let Err(error) = model.load_torch(&path, map) {
            assert!(matches!(error, Error::Format { .. } | Error::NonFinite { .. }), "{error:?}");
        }
    }
    for len in (0..bytes.len()).step_by(7) {
        write_anew(&path, &bytes[..len]);
        assert!(model.load_torch(&path, &map).is_err());
    }
}

/// Arrays that would become much larger than their file are refused before they are.
#[test]
fn archives_stay_in_proportion() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("large.npz");
    let deflated = SimpleFileOptions::default().compression_method(CompressionMethod::Deflated);
    let mut archive = ZipWriter::new(std::fs::File::create(&path).expect("a file"));
    archive.start_file("in_0.npy", deflated).expect("a member");
    let zeros = vec![0u8; 1 << 20];
    (0..128).for_each(|_| archive.write_all(&zeros).expect("written"));
    archive.finish().expect("finished");
    let error = fused_rnn::exchange::arrays::read(&path).expect_err("refused").to_string();
    assert!(error.contains("large.npz") && error.contains("in_0") && error.contains("64 MiB"), "{error}");
}

/// Names that act on a terminal do not reach it, in whatever file they stand; and of two tensors of one name neither is taken.
#[test]
fn names_are_shown_escaped_and_stand_once() {
    let odd = "a\u{1b}[31mb\nc";
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("odd.safetensors");
    let header = serde_json::json!({ odd: {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]} }).to_string();
    let bytes = |header: &str, data: usize| {
        [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &vec![0u8; data]].concat()
    };
    write_anew(&path, &bytes(&header, 4));
    let mut model = Sequential::new(Device::cpu(), &[3], 1).expect("a model");
    model.add(Dense::new(2)).expect("a layer");
    let shown = |text: &str| {
        assert!(text.contains(r"a\u{1b}[31mb\nc") && !text.contains(char::is_control), "{text:?}");
    };
    shown(&model.load_torch(&path, &[]).expect_err("no such module").to_string());
    let twice = r#"{"w": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}, "w": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}}"#;
    write_anew(&path, &bytes(twice, 8));
    let text = model.load_torch(&path, &[]).expect_err("two tensors").to_string();
    assert!(text.contains("two tensors are called w"), "{text}");
    let (config, weights) = members(&fixture("keras_windows.keras"));
    let text = String::from_utf8(config).expect("text");
    let config = text.replace("\"PReLU\"", &serde_json::json!(odd).to_string());
    assert_ne!(text, config);
    shown(&parse(&archive(config.as_bytes(), &weights, CompressionMethod::Stored)).expect_err("an unknown layer"));
}

/// A pipe has no end that a reader could wait for.
#[cfg(unix)]
#[test]
fn pipes_are_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["pipe.onnx", "pipe.keras", "pipe.npz"] {
        let path = folder.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(&path).status().expect("mkfifo").success());
        let error = match name {
            "pipe.npz" => fused_rnn::exchange::arrays::read(&path).map(|_| ()),
            _ => fused_rnn::exchange::read(Device::cpu(), &path, None).map(|_| ()),
        };
        let text = error.expect_err("refused").to_string();
        assert!(text.contains(name), "{text}");
    }
}
