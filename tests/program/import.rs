//! `fused-rnn import` and `export`, run as a user runs them.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fused_rnn::Device;
use fused_rnn::exchange::Imported;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fused-rnn")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/onnx").join(name)
}

/// Files of a folder with their recorded arrays.
fn copied(names: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for name in names {
        std::fs::copy(fixture(name), folder.path().join(name)).unwrap();
    }
    folder
}

/// A model of any number of steps stays so, and is checked with the lengths that the arrays beside it have.
#[test]
fn axes_with_names_may_be_of_any_length() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["gru.onnx", "gru.npz"] {
        std::fs::copy(fixture("open_axes").join(name), folder.path().join(name)).unwrap();
    }
    let file = folder.path().join("gru.onnx").to_str().unwrap().to_owned();
    let output = run(&["import", "--check", &file]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    assert!(lines.contains("PASS") && lines.contains("1 passed, 0 failed"), "{lines}");
    let output = run(&["import", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let mut imported = Imported::load(Device::cpu(), folder.path().join("gru.model.safetensors")).unwrap();
    let features = imported.inputs[0].shape.iter().flatten().copied().next().unwrap();
    for steps in [3, 8] {
        let mut shape = vec![steps, features];
        shape.insert(imported.inputs[0].batch_axis, 2);
        let x = ndarray::ArrayD::<f32>::zeros(shape);
        assert!(imported.predict(&[x.view()]).is_ok(), "{steps} steps");
    }
}

#[test]
fn recorded_results_are_compared() {
    let folder = copied(&["tagger.onnx", "tagger_dynamo.onnx", "tagger.npz", "streaming.onnx"]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let output = run(&["import", "--check", &file("tagger.onnx"), &file("tagger_dynamo.onnx")]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{lines}");
    let lines: Vec<&str> = lines.lines().collect();
    assert!(lines[0].starts_with("tagger.onnx         PASS  ") && lines[0].ends_with("out_0"), "{lines:?}");
    assert!(lines[1].starts_with("tagger_dynamo.onnx  PASS  "), "{lines:?}");
    assert_eq!(lines[2], "2 passed, 0 failed");
    // Without recorded results, damaged, absent: each a line, and the others go on.
    std::fs::write(file("damaged.onnx"), b"no such thing").unwrap();
    let output = run(&[
        "import",
        "--check",
        &file("streaming.onnx"),
        &file("damaged.onnx"),
        &file("absent.onnx"),
        &file("tagger.onnx"),
    ]);
    let lines = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{lines}");
    assert_eq!(lines.lines().filter(|line| line.contains("FAIL  error: ")).count(), 3, "{lines}");
    assert!(
        lines.contains("there is no streaming.npz beside it") && lines.ends_with("1 passed, 3 failed\n"),
        "{lines}"
    );
    // A tolerance that nothing meets.
    let output = run(&["import", "--check", "--tolerance", "0", &file("tagger.onnx")]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stdout));
}

#[test]
fn models_come_in_and_go_out() {
    let folder = copied(&["streaming.onnx", "translator.onnx"]);
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    // PyTorch's weights beside it stay what they are.
    std::fs::write(file("streaming.safetensors"), b"PyTorch's").unwrap();
    let output = run(&["import", &file("streaming.onnx"), &file("translator.onnx")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("streaming.model.safetensors: "));
    assert_eq!(std::fs::read(file("streaming.safetensors")).unwrap(), b"PyTorch's");
    let output = run(&["summary", &file("streaming.model.safetensors")]);
    assert!(text(&output.stdout).contains("GRU"), "{}", text(&output.stdout));
    let output = run(&["export", &file("streaming.model.safetensors"), &file("again.onnx")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let output = run(&["import", &file("again.onnx"), "--out", &file("again.safetensors")]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    // What cannot be is said.
    for (args, expected) in [
        (vec!["import", &*file("streaming.onnx"), "--dim", "steps"], "option --dim: expected NAME=NUMBER"),
        (vec!["import", &*file("model.bin")], "model.bin is not supported"),
        (
            vec!["import", &*file("streaming.onnx"), &*file("translator.onnx"), "--out", &*file("one.safetensors")],
            "option --out",
        ),
        (
            vec!["export", &*file("streaming.model.safetensors"), &*file("again.txt")],
            "a name that ends in .onnx, .keras",
        ),
    ] {
        let output = run(&args);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    }
}

/// Keras's files and PyTorch's weights come in and go out by the names of the files.
#[test]
fn models_of_keras_and_weights_of_torch() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let keras = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/exchange/keras_sequential.keras");
    std::fs::copy(keras, file("model.keras")).unwrap();
    let done = |args: &[&str]| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    };
    let weights = |name: &str| {
        let bytes = std::fs::read(file(name)).unwrap();
        let tensors = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let of_model = |name: &&str| !name.starts_with("optimizer.");
        let mut names: Vec<_> = tensors.names().into_iter().filter(of_model).map(str::to_owned).collect();
        names.sort();
        names.into_iter().map(|name| tensors.tensor(&name).unwrap().data().to_vec()).collect::<Vec<_>>()
    };
    done(&["import", &file("model.keras"), "--out", &file("first.safetensors")]);
    done(&["export", &file("first.safetensors"), &file("again.keras")]);
    done(&["import", &file("again.keras"), "--out", &file("second.safetensors")]);
    assert_eq!(weights("first.safetensors"), weights("second.safetensors"));
    done(&["export", &file("first.safetensors"), &file("alone.weights.h5")]);
    // The layers written: cells in an RNN have become layers of their own.
    let model = file("again.keras");
    done(&["import", &file("alone.weights.h5"), "--model", &model, "--out", &file("third.safetensors")]);
    assert_eq!(weights("first.safetensors"), weights("third.safetensors"));
    let refused = |args: &[&str], expected: &str| {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2));
        assert!(text(&output.stderr).contains(expected), "{}", text(&output.stderr));
    };
    refused(
        &["export", &file("first.safetensors"), &file("out.safetensors")],
        "option --map: expected modules of PyTorch's",
    );
    refused(
        &["export", &file("first.safetensors"), &file("out.onnx"), "--map", "a=b"],
        "a file that ends in .safetensors",
    );
    refused(&["export", &file("first.safetensors"), &file("out.safetensors"), "--map", "lstm"], "pairs such as");
    refused(&["import", &file("alone.weights.h5")], "model");
}
