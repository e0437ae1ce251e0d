//! `fused-rnn train` and `predict`, run as a user runs them.

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

fn sample(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name)
}

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_fused-rnn"))
}

/// Small enough to be quick, long enough to beat the naive forecast.
const SHORT: [&str; 8] = ["--units", "12", "--window", "12", "--epochs", "25", "--learning-rate", "0.005"];

fn train(data: &Path, out: &Path, more: &[&str]) -> Output {
    program().arg("train").arg(data).arg("--out").arg(out).args(more).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

/// Exit code 2 and one line that begins with `error:` and holds every part.
#[track_caller]
fn assert_error(output: &Output, parts: &[&str]) {
    let message = stderr(output);
    assert_eq!(output.status.code(), Some(2), "{message}");
    assert_eq!(message.lines().filter(|l| l.starts_with("error: ")).count(), 1, "{message}");
    for part in parts {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
    assert!(!message.contains("panicked"), "{message}");
}

fn csv(folder: &TempDir, text: &[u8]) -> PathBuf {
    let path = folder.path().join("data.csv");
    std::fs::write(&path, text).unwrap();
    path
}

/// The RMSE printed in the row that starts with `name`.
fn rmse(text: &str, name: &str) -> f64 {
    let row = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no row {name} in {text}"));
    row.split_whitespace().rev().nth(1).unwrap().parse().unwrap()
}

#[test]
fn beats_the_naive_forecast_and_repeats_itself() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second, other) = (folder.path().join("a"), folder.path().join("b/c"), folder.path().join("d"));
    let data = sample("sunspots_yearly.csv");
    let output = train(&data, &first, &SHORT);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("lstm (LSTM)") && text.contains("309 values of column SUNACTIVITY, 1700 to 2008"), "{text}");
    let progress = stderr(&output);
    assert!(progress.lines().any(|l| l.starts_with("epoch 1/25  loss ") && l.contains("val_loss")), "{progress}");
    let (ours, naive) = (rmse(&text, "LSTM(12)"), rmse(&text, "naive"));
    assert!(ours < 0.8 * naive, "{ours} against {naive}");
    // The naive error does not depend on any model: the root mean square of the changes over the last 62 years.
    assert!((naive - 33.2760).abs() < 1e-4, "{naive}");
    for (file, titles) in [("loss.svg", ["training", "validation"]), ("forecast.svg", ["truth", "forecast"])] {
        let svg = std::fs::read_to_string(first.join(file)).unwrap();
        assert!(svg.starts_with("<svg width=\"1000\" height=\"500\"") && svg.trim_end().ends_with("</svg>"), "{file}");
        assert!(titles.iter().all(|t| svg.contains(t)), "{file}");
    }

    let quiet = train(&data, &second, &[&SHORT[..], &["--quiet"]].concat());
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", stderr(&quiet));
    assert_eq!(rmse(&stdout(&quiet), "LSTM(12)"), ours);
    let model = |folder: &Path| std::fs::read(folder.join("model.safetensors")).unwrap();
    assert_eq!(model(&first), model(&second), "the same seed, the same bytes");
    assert!(train(&data, &other, &[&SHORT[..], &["--seed", "2"]].concat()).status.success());
    assert_ne!(model(&first), model(&other), "another seed, another model");
}

#[test]
fn every_cell_and_option() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    for options in [
        &["--cell", "rnn"][..],
        &["--cell", "gru", "--horizon", "3"],
        &["--learn", "changes", "--column", "2"],
        &["--learn", "values", "--column", "SUNACTIVITY", "--batch-size", "7", "--patience", "1"],
        &["--validation-fraction", "0", "--test-fraction", "0"],
    ] {
        let output =
            train(&data, folder.path(), &[&["--units", "5", "--window", "4", "--epochs", "2"], options].concat());
        assert!(output.status.success(), "{options:?}: {}", stderr(&output));
        let predicted = program()
            .args(["predict", "--horizon", "4"])
            .args([&folder.path().join("model.safetensors"), &data])
            .output()
            .unwrap();
        assert!(predicted.status.success(), "{options:?}: {}", stderr(&predicted));
        let text = std::fs::read_to_string(folder.path().join("prediction.csv")).unwrap();
        let rows: Vec<_> = text.lines().collect();
        assert_eq!((rows.len(), rows[0]), (5, "YEAR,SUNACTIVITY"));
        for (row, year) in rows[1..].iter().zip(2009..) {
            let (label, value) = row.split_once(',').unwrap();
            assert_eq!(label, year.to_string());
            assert!(value.parse::<f64>().unwrap().abs() < 400.0, "{value}");
        }
        assert!(std::fs::read_to_string(folder.path().join("prediction.svg")).unwrap().contains("forecast"));
    }
}

#[test]
fn gaps_are_closed_as_told() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("co2_weekly.csv");
    let short = ["--units", "4", "--window", "4", "--epochs", "1", "--batch-size", "256"];
    assert_error(
        &train(&data, folder.path(), &short),
        &["co2_weekly.csv, line 8", "59 values of 2284 are missing", "interpolate"],
    );
    for gaps in ["drop", "interpolate", "forward-fill"] {
        let output = train(&data, folder.path(), &[&short[..], &["--gaps", gaps]].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(stdout(&output).contains(&format!("59 missing ({gaps})")));
    }
    // Predict knows the policy from the model.
    let model = folder.path().join("model.safetensors");
    assert!(program().arg("predict").args([&model, &data]).output().unwrap().status.success());
    let text = std::fs::read_to_string(folder.path().join("prediction.csv")).unwrap();
    assert!(text.starts_with("date,co2\n20020105,"), "{text}");
    assert_error(&program().args(["predict", "--gaps", "error"]).args([&model, &data]).output().unwrap(), &["line 8"]);
}

#[test]
fn unusable_data() {
    let folder = tempfile::tempdir().unwrap();
    let cases: [(&[u8], &[&str], &[&str]); 12] = [
        (b"t,v\n1,2\n2,3,4\n", &[], &["data.csv, line 3", "3 cells"]),
        (b"t,v\na,1\nb,2\nc,two\nd,4\n", &[], &["line 4", "column v", "\"two\""]),
        (b"t,v\na,1\nb,2\nc,NaN\nd,4\n", &[], &["line 4", "missing"]),
        (b"t,v\na,1\nb,2\nc,-inf\nd,4\n", &[], &["line 4", "infinite"]),
        (b"t,v\na,1\nb,2\n", &["--column", "w"], &["no column w", "t, v"]),
        (b"t,v\na,1\nb,2\n", &["--column", "3"], &["no column 3", "t, v"]),
        (b"t,v\na,b\nc,d\n", &[], &["no column holds mostly numbers", "t, v"]),
        (b"", &[], &["no rows"]),
        (b"t,v\na,\nb,\n", &["--column", "v", "--gaps", "drop"], &["no values"]),
        (b"t,v\na,1\n\xff,2\n", &[], &["line 3", "UTF-8"]),
        (b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", &["--window", "8"], &["too few rows", "10 values", "window 8"]),
        (
            b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n",
            &["--window", "2", "--horizon", "2"],
            &["too few rows", "validation part has 1"],
        ),
    ];
    for (text, options, parts) in cases {
        let data = csv(&folder, text);
        let out = folder.path().join("out");
        assert_error(&train(&data, &out, options), parts);
        assert!(!out.join("model.safetensors").exists());
    }
    assert_error(&train(&folder.path().join("none.csv"), folder.path(), &[]), &["cannot read", "none.csv"]);
    assert_error(&train(folder.path(), folder.path(), &[]), &["cannot read"]);
}

#[test]
fn options_that_cannot_be() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let huge = usize::MAX.to_string();
    for (options, part) in [
        (&["--units", "0"][..], "0"),
        (&["--units", &huge], "hidden_size"),
        (&["--units", "1152921504606846976"], "hidden_size"),
        (&["--window", "0"], "window is 0"),
        (&["--window", &huge], "too few rows"),
        (&["--horizon", "0"], "horizon is 0"),
        (&["--horizon", &huge], "too few rows"),
        (&["--epochs", "0"], "epochs is 0"),
        (&["--batch-size", "0"], "batch_size is 0"),
        (&["--batch-size", "100000"], "batch_size"),
        (&["--learning-rate", "NaN"], "learning_rate"),
        (&["--learning-rate=-1"], "learning_rate"),
        (&["--test-fraction", "1"], "test_fraction"),
        (&["--test-fraction", "0.5", "--validation-fraction", "0.5"], "test_fraction"),
        (&["--cell", "cnn"], "rnn, lstm or gru"),
        (&["--gaps", "ignore"], "forward-fill"),
    ] {
        let output = train(&data, folder.path(), options);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{options:?}: {message}");
        assert!(
            message.starts_with("error: ") && message.contains(part) && !message.contains("panicked"),
            "{options:?}: {message}"
        );
    }
    assert!(!folder.path().join("model.safetensors").exists());
}

/// More epochs than anyone would wait for: an answer at all means that training had not begun.
const ENDLESS: [&str; 8] = ["--epochs", "1000000000", "--patience", "1000000000", "--units", "8", "--window", "12"];

#[test]
fn unwritable_output_is_found_before_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let file = folder.path().join("a file");
    std::fs::write(&file, "x").unwrap();
    assert_error(&train(&data, &file, &ENDLESS), &["cannot create", "a file"]);
    assert_error(&train(&data, &file.join("below"), &ENDLESS), &["cannot create", "below"]);
    // Something in the way of the last file that would be written.
    let out = folder.path().join("out");
    std::fs::create_dir_all(out.join("forecast.svg")).unwrap();
    assert_error(&train(&data, &out, &ENDLESS), &["forecast.svg"]);
    assert_eq!(std::fs::read_dir(&out).unwrap().count(), 1, "nothing was left behind");

    let model = folder.path().join("model");
    assert!(train(&data, &model, &["--units", "2", "--window", "2", "--epochs", "1"]).status.success());
    let predict = |option: &str, path: &Path| {
        program().args(["predict", option]).arg(path).args([&model.join("model.safetensors"), &data]).output().unwrap()
    };
    assert_error(&predict("--out", &file.join("x.csv")), &["x.csv"]);
    assert_error(&predict("--plot", &out), &["out"]);
    assert!(!model.join("prediction.csv").exists());
}

#[test]
fn divergence_ends_with_an_error_and_no_bad_model() {
    let folder = tempfile::tempdir().unwrap();
    let output = train(&sample("sunspots_yearly.csv"), folder.path(), &["--learning-rate", "1e38", "--window", "4"]);
    assert_error(&output, &["training stopped in epoch 1, batch 2", "lower the learning rate", "no model is saved"]);
    assert!(!folder.path().join("model.safetensors").exists());
}

#[cfg(unix)]
fn interrupt(child: &std::process::Child) {
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_best_model_so_far() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let mut child = program()
        .arg("train")
        .arg(&data)
        .arg("--out")
        .arg(folder.path())
        .args(ENDLESS)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut errors = BufReader::new(child.stderr.take().unwrap());
    let mut first = String::new();
    errors.read_line(&mut first).unwrap();
    assert!(first.starts_with("epoch 1/"), "{first}");
    interrupt(&child);
    let mut rest = String::new();
    errors.read_to_string(&mut rest).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{rest}");
    assert!(rest.contains("interrupted") && rest.contains("model.safetensors"), "{rest}");
    assert!(stdout(&output).contains("naive (last value)"), "{}", stdout(&output));
    for file in ["loss.svg", "forecast.svg"] {
        assert!(folder.path().join(file).exists(), "{file}");
    }
    let model = folder.path().join("model.safetensors");
    let predicted = program().arg("predict").args([&model, &data]).output().unwrap();
    assert!(predicted.status.success(), "{}", stderr(&predicted));
}

#[cfg(unix)]
#[test]
fn ctrl_c_before_the_first_epoch_saves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    // An epoch of these would take minutes.
    let mut child = program()
        .arg("train")
        .arg(sample("sunspots_monthly.csv"))
        .arg("--out")
        .arg(folder.path())
        .args(["--units", "256", "--window", "256", "--batch-size", "1"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|l| l.unwrap().contains("Non-trainable params")));
    interrupt(&child);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{}", stderr(&output));
    assert!(stderr(&output).contains("before the first epoch"), "{}", stderr(&output));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn predict_refuses_what_does_not_fit() {
    let folder = tempfile::tempdir().unwrap();
    let yearly = sample("sunspots_yearly.csv");
    assert!(train(&yearly, folder.path(), &["--units", "2", "--window", "4", "--epochs", "1"]).status.success());
    let model = folder.path().join("model.safetensors");
    let predict = |model: &Path, data: &Path, more: &[&str]| {
        program().arg("predict").args([model, data]).args(more).output().unwrap()
    };

    let other = csv(&folder, b"date,level\n1,2\n3,4\n5,6\n7,8\n9,10\n");
    assert_error(&predict(&model, &other, &[]), &["no column SUNACTIVITY", "date, level"]);
    assert!(predict(&model, &other, &["--column", "level"]).status.success());
    let few = csv(&folder, b"date,SUNACTIVITY\n1,2\n3,4\n");
    assert_error(&predict(&model, &few, &[]), &["too few rows", "2 values", "reads 4"]);
    assert_error(&predict(&model, &yearly, &["--horizon", "0"]), &["horizon", "got 0"]);
    assert_error(&predict(&model, &yearly, &["--horizon", "18446744073709551615"]), &["horizon"]);

    assert_error(&predict(&folder.path().join("none"), &yearly, &[]), &["cannot read"]);
    assert_error(&predict(&yearly, &yearly, &[]), &["not a usable"]);
    let bytes = std::fs::read(&model).unwrap();
    let cut = folder.path().join("cut.safetensors");
    for len in [0, 7, 8, 100, bytes.len() - 1] {
        std::fs::write(&cut, &bytes[..len]).unwrap();
        assert_error(&predict(&cut, &yearly, &[]), &["cut.safetensors", "not a usable"]);
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    assert!(text.contains(r#"\"units\":2"#));
    let at = bytes.windows(11).position(|w| w == br#"\"units\":2"#.as_slice()).unwrap();
    let mut hostile = bytes.clone();
    hostile.splice(at + 10..at + 11, b"1152921504606846976".iter().copied());
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap()) + 18;
    hostile[..8].copy_from_slice(&len.to_le_bytes());
    std::fs::write(&cut, hostile).unwrap();
    assert_error(&predict(&cut, &yearly, &[]), &["1152921504606846976"]);
}

/// Short enough for the emulated GPU.
const SHORTEST: [&str; 10] =
    ["--units", "3", "--window", "4", "--epochs", "2", "--batch-size", "64", "--learning-rate", "0.01"];

/// On another device the same model comes out, but for rounding; its file works on all.
#[cfg(feature = "emulated")]
#[test]
fn trains_and_predicts_on_the_emulated_device() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let (cpu, device) = (folder.path().join("cpu"), folder.path().join("device"));
    let mut errors = Vec::new();
    for (out, name) in [(&cpu, "cpu"), (&device, "emulated")] {
        let output = train(&data, out, &[&SHORTEST[..], &["--device", name]].concat());
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        errors.push(rmse(&stdout(&output), "LSTM(3)"));
    }
    assert!((errors[0] - errors[1]).abs() < 1e-3, "{errors:?}");
    let forecast = |out: &Path, name: &str| -> Vec<f64> {
        let csv = folder.path().join("forecast.csv");
        let output = program()
            .args(["predict", "--device", name, "--horizon", "3", "--out"])
            .args([&csv, &out.join("model.safetensors"), &data])
            .output()
            .unwrap();
        assert!(output.status.success(), "{name}: {}", stderr(&output));
        let text = std::fs::read_to_string(csv).unwrap();
        text.lines().skip(1).map(|row| row.split_once(',').unwrap().1.parse().unwrap()).collect()
    };
    let expected = forecast(&cpu, "cpu");
    for (out, name) in [(&cpu, "emulated"), (&device, "cpu"), (&device, "emulated")] {
        for (got, expected) in forecast(out, name).iter().zip(&expected) {
            assert!((got - expected).abs() < 1e-2, "{name}: {got} {expected}");
        }
    }
}

/// A device that is not there is an error, never another device.
#[test]
fn devices_that_are_not_there() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    for device in ["cuda", "emulated"] {
        let output = train(&data, folder.path(), &[&SHORTEST[..], &["--device", device]].concat());
        // Where there is one, training succeeds, and other tests say whether it is right.
        if !output.status.success() {
            assert_error(&output, &["not supported"]);
            assert!(!folder.path().join("model.safetensors").exists(), "{device}");
        }
    }
    assert_error(&train(&data, folder.path(), &["--device", "gpu"]), &["cpu", "cuda", "emulated"]);
}
