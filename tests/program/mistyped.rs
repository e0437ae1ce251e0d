//! What people mistype: files in the wrong order, options that are none, sizes of zero, numbers far from 1.

use std::path::Path;
use std::process::{Command, Output};

use tempfile::TempDir;

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_fused-rnn")).args(args).output().unwrap()
}

/// Exit code 2, and a message on standard error that holds every part.
#[track_caller]
fn refused(args: &[&str], parts: &[&str]) {
    let output = run(args);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
    for part in parts {
        assert!(message.contains(part), "{args:?}: {part:?} is not in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn write(folder: &TempDir, name: &str, text: &str) -> String {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path.display().to_string()
}

/// A series, and a small model of it.
fn trained(folder: &TempDir, scale: f64) -> (String, String, String) {
    let row = |i: usize| format!("{}\n", (10 + i * 7 % 11) as f64 * scale);
    let data =
        write(folder, "data.csv", &std::iter::once("value\n".to_owned()).chain((0..80).map(row)).collect::<String>());
    let out = folder.path().join("out").display().to_string();
    let output =
        run(&["train", &data, "--units", "2", "--window", "4", "--epochs", "2", "--horizon", "1", "--out", &out]);
    let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    (data, Path::new(&out).join("model.safetensors").display().to_string(), said)
}

#[test]
fn model_and_data_in_the_wrong_order_are_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model, _) = trained(&folder, 1.0);
    for command in ["predict", "evaluate"] {
        refused(&[command, &data, &model], &["the model first, then the data", "data.csv", "model.safetensors"]);
        refused(&[command, &model, &model], &["it is a model; data are wanted here"]);
    }
    for command in ["train", "search", "backtest"] {
        refused(&[command, &model], &["model.safetensors", "it is a model", "fused-rnn predict MODEL DATA"]);
    }
    for command in ["summary", "plot"] {
        refused(&[command, &data], &["data.csv", "not a usable safetensors file", "it begins as text does"]);
    }
}

#[test]
fn options_are_called_as_they_are_typed() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(&folder, "data.csv", &(0..60).map(|i| format!("{}\n", i % 7)).collect::<String>());
    let out = folder.path().join("out").display().to_string();
    let train = |option: &str, value: &str, parts: &[&str]| {
        refused(&["train", &data, "--out", &out, "--epochs", "1", &format!("{option}={value}")], parts);
    };
    for option in ["--units", "--window", "--horizon", "--season", "--batch-size"] {
        train(option, "0", &[&format!("option {option}: expected 1 or more, got 0")]);
    }
    for option in ["--learning-rate", "--dropout", "--test-fraction", "--validation-fraction", "--intervals"] {
        train(option, "-1e300", &[&format!("option {option}: expected"), "got -1e300"]);
    }
    for (option, value) in [("--layers", "0"), ("--seeds", "101")] {
        train(option, value, &[&format!("option {option}: expected 1 to 100, got {value}")]);
    }
    refused(&["gradcheck", "--hidden-size", "0"], &["option --hidden-size: expected 1 or more, got 0"]);
    // What was not typed keeps the library's name.
    refused(&["gradcheck", "--hidden-size", "4", "--seq-len=0"], &["option --seq-len: expected 1 or more"]);
}

#[test]
fn options_that_are_none_are_answered_with_what_they_may_stand_for() {
    for (typed, meant) in [
        ("--otu", "--out"),
        ("--unit", "--units"),
        ("--epohcs", "--epochs"),
        ("--widnow", "--window"),
        ("--sede", "--seed"),
    ] {
        refused(
            &["train", "data.csv", typed, "3"],
            &[&format!("unexpected argument '{typed}'"), &format!("'{meant}'")],
        );
    }
    refused(&["train", "data.csv", "--elephant"], &["unexpected argument '--elephant'"]);
    refused(&["trian"], &["'train'"]);
}

#[test]
fn numbers_have_digits_that_mean_something() {
    let folder = tempfile::tempdir().unwrap();
    let (data, model, said) = trained(&folder, 1e-7);
    let row = said.lines().find(|line| line.starts_with("naive (last value)")).unwrap_or_else(|| panic!("{said}"));
    assert!(row.contains("e-7") && !row.contains("0.0000"), "{said}");
    let picture = std::fs::read_to_string(Path::new(&model).with_file_name("forecast.svg")).unwrap();
    assert!(picture.contains("e-7)"), "{picture}");
    let predicted = folder.path().join("prediction.csv").display().to_string();
    let output = run(&["predict", &model, &data, "--out", &predicted]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&predicted).unwrap();
    let value = text.lines().nth(1).and_then(|line| line.split(',').nth(1)).unwrap();
    assert!(value.contains("e-") && value.parse::<f64>().unwrap() > 1e-7, "{text}");

    let folder = tempfile::tempdir().unwrap();
    let (data, model, said) = trained(&folder, 1e100);
    let most_digits = |text: &str| text.split(|c: char| !c.is_ascii_digit()).map(str::len).max().unwrap_or(0);
    assert!(said.contains("e100") && most_digits(&said) < 25, "{said}");
    let predicted = folder.path().join("prediction.csv").display().to_string();
    let output = run(&["predict", &model, &data, "--out", &predicted]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = std::fs::read_to_string(&predicted).unwrap();
    assert!(most_digits(&text) < 25, "{text}");
}

#[test]
fn values_that_no_square_holds_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let row = |i: usize| format!("{}e299\n", if i == 3 { 123 } else { 0 });
    let data =
        write(&folder, "data.csv", &std::iter::once("value\n".to_owned()).chain((0..80).map(row)).collect::<String>());
    let out = folder.path().join("out").display().to_string();
    for learn in ["auto", "values", "changes"] {
        let args = ["train", &data, "--units", "2", "--epochs", "1", "--learn", learn, "--out", &out];
        refused(&args, &["data.csv, line 5", "column value", "1.23e301", "larger unit"]);
    }
}

#[test]
fn a_training_with_infinite_weights_is_no_success() {
    let folder = tempfile::tempdir().unwrap();
    let data = write(&folder, "data.csv", &(0..120).map(|i| format!("{}\n", i * 37 % 101)).collect::<String>());
    let out = folder.path().join("out").display().to_string();
    let args =
        ["train", &data, "--validation-fraction", "0", "--learning-rate", "1e300", "--epochs", "1", "--batch-size"];
    refused(
        &[&args[..], &["100", "--units", "4", "--window", "5", "--out", &out]].concat(),
        &["training stopped", "learning rate"],
    );
    assert!(!Path::new(&out).join("model.safetensors").exists());
}
