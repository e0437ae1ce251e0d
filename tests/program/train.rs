//! `fused-rnn train`, `predict`, `evaluate`, `summary` and `plot`, run as a user runs them.

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
        (&["--cell", "cnn"], "one of rnn, lstm, gru, slstm, mgu"),
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

/// Runs a command on a trained model.
fn with_model(command: &str, args: &[&Path], more: &[&str]) -> Output {
    program().arg(command).args(args).args(more).output().unwrap()
}

#[test]
fn evaluate_repeats_the_error_of_training() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let layers = ["--layers", "2", "--bidirectional", "--dropout", "0.2", "--cell", "gru"];
    let short = ["--units", "4", "--window", "6", "--epochs", "2"];
    let output = train(&data, folder.path(), &[&short[..], &layers].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in
        ["bidirectional (Bidirectional)", "bidirectional_1 (Bidirectional)", "dropout_1 (Dropout)", "(None, 6, 8)"]
    {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let loss = std::fs::read_to_string(folder.path().join("loss.svg")).unwrap();
    assert!(loss.contains("2 layers of bidirectional GRU"), "{loss}");

    let model = folder.path().join("model.safetensors");
    let plot = folder.path().join("evaluated.svg");
    let evaluated =
        with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2", "--plot", &plot.display().to_string()]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
    let again = stdout(&evaluated);
    assert_eq!(rmse(&again, "model"), rmse(&text, "2 x Bidirectional(GRU(4))"), "dropout is for training alone");
    assert_eq!(rmse(&again, "naive"), rmse(&text, "naive"));
    assert!(again.contains("62 forecasts"), "{again}");
    assert!(std::fs::read_to_string(plot).unwrap().contains("on these data"));
    // Without a part: all values but the first window.
    let all = stdout(&with_model("evaluate", &[&model, &data], &[]));
    assert!(all.contains("303 forecasts"), "{all}");

    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(
        summary.contains("(None, 6, 8)") && summary.contains("of column SUNACTIVITY from windows of 6"),
        "{summary}"
    );
    let drawn = with_model("plot", &[&model], &[]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let svg = std::fs::read_to_string(folder.path().join("model.svg")).unwrap();
    assert!(svg.contains("bidirectional_1") && svg.contains("(None, 6, 8)"), "{svg}");

    assert_error(&with_model("evaluate", &[&model, &data], &["--test-fraction", "1.5"]), &["test_fraction", "1.5"]);
    assert_error(&with_model("evaluate", &[&data, &data], &[]), &["not a usable"]);
    assert_error(&with_model("summary", &[&data], &[]), &["not a usable"]);
    assert_error(&with_model("plot", &[&data], &[]), &["not a usable"]);
    let few = csv(&folder, b"date,SUNACTIVITY\n1,2\n3,4\n");
    assert_error(&with_model("evaluate", &[&model, &few], &[]), &["data.csv", "at least 7 values", "2 values"]);
}

/// 120 rows of three columns and a date; `out` is what `a` was two rows before.
fn several_columns(folder: &TempDir) -> PathBuf {
    let a = |t: i32| (f64::from(t * t % 97) / 97.0 * 6.0).sin();
    let row = |t: i32| format!("{},{:.6},{:.6},{:.6}\n", 1900 + t, a(t), f64::from(t) * 0.5, 10.0 + a(t - 2));
    let text = std::iter::once("year,a,b,out\n".to_owned()).chain((2..122).map(row)).collect::<String>();
    csv(folder, text.as_bytes())
}

#[test]
fn several_columns_forecast_one() {
    let folder = tempfile::tempdir().unwrap();
    let data = several_columns(&folder);
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let short = ["--units", "12", "--window", "5", "--epochs", "60", "--learning-rate", "0.02", "--patience", "60"];
    let run = |more: &[&str]| train(&data, &out, &[&short[..], more].concat());
    let alone = stdout(&run(&["--column", "out", "--quiet"]));
    let output = run(&["--columns", "a,b", "--target", "out", "--horizon", "2"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("120 values of column out, read beside a, b, 1902 to 2021"), "{text}");
    assert!(text.contains("(None, 12)"), "{text}");
    let (with_others, without) = (rmse(&text, "LSTM(12)"), rmse(&alone, "LSTM(12)"));
    assert!(with_others < 0.7 * without, "{with_others} with the column that tells it, {without} without");

    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(summary.contains("2 next values of column out"), "{summary}");
    assert!(
        summary.contains("Reads values of column a beside") && summary.contains("Reads changes of column b"),
        "{summary}"
    );
    let evaluated = stdout(&with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2"]));
    assert_eq!(rmse(&evaluated, "model"), with_others);

    // As many values as it forecasts at once, and no more, since nobody knows the other columns' future.
    let predicted = with_model("predict", &[&model, &data], &[]);
    assert!(predicted.status.success(), "{}", stderr(&predicted));
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert_eq!(rows.lines().count(), 3, "{rows}");
    assert!(rows.starts_with("year,out\n2022,"), "{rows}");
    assert_error(&with_model("predict", &[&model, &data], &["--horizon", "3"]), &["horizon 2", "got 3"]);
    assert_error(&with_model("predict", &[&model, &data], &["--column", "a"]), &["several columns", "out, a, b"]);
    let other = folder.path().join("other.csv");
    std::fs::write(&other, "year,a,out\n1,2,3\n2,3,4\n").unwrap();
    assert_error(&with_model("predict", &[&model, &other], &[]), &["no column b", "year, a, out"]);

    // Names or numbers; the last of the columns is the target, and --target alone reads all columns of numbers.
    let one = ["--epochs", "1", "--units", "2", "--window", "3"];
    for (more, described) in [
        (&["--columns", "2,out"][..], "column out, read beside a,"),
        (&["--columns", "out, b", "--target", "2"], "column a, read beside out, b,"),
        (&["--target", "a"], "column a, read beside year, b, out"),
        (&["--columns", "b"], "column b, 1902"),
        (&["--columns", "a,b", "--learn", "changes", "--gaps", "drop"], "column b, read beside a,"),
    ] {
        let output = train(&data, &out, &[&one[..], more].concat());
        assert!(output.status.success(), "{more:?}: {}", stderr(&output));
        assert!(stdout(&output).contains(described), "{more:?}: {}", stdout(&output));
        let predicted = with_model("predict", &[&model, &data], &[]);
        assert!(predicted.status.success(), "{more:?}: {}", stderr(&predicted));
    }
    for (more, parts) in [
        (&["--columns", "a,c"][..], &["no column c", "year, a, b, out"][..]),
        (&["--columns", "a,2"], &["chosen twice"]),
        (&["--columns", ""], &["no column"]),
        (&["--columns", "a", "--target", "x"], &["no column x"]),
        (&["--columns", "a", "--column", "b"], &["cannot be used with"]),
        (&["--test", "x.csv"], &["--test", ".ts"]),
        (&["--length", "3"], &["--length", ".ts"]),
        (&["--layers", "0"], &["layers", "got 0"]),
        (&["--layers", "18446744073709551615"], &["layers", "1 to 100"]),
        (&["--dropout", "1"], &["rate", "got 1"]),
        (&["--dropout", "nan"], &["rate", "NaN"]),
        (&["--dropout=-0.5"], &["rate", "-0.5"]),
    ] {
        let output = train(&data, &out, &[&one[..], more].concat());
        assert_error(&output, parts);
    }
}

/// Sequences of one class that rise and of another that fall, 3 to 7 steps of two features.
fn ramps(label: &str, count: usize, ending: impl Fn(usize, f64) -> String) -> String {
    let mut text = format!("@problemName ramps\n@timeStamps false\n@univariate false\n{label}\n@data\n");
    for i in 0..count {
        let (len, slope) = (3 + i * 5 % 4 + i % 2, if i % 2 == 0 { 1.0 } else { -1.0 } * (1.0 + (i % 3) as f64));
        let value = |t: usize| slope * t as f64 + (i as f64 * 0.7).sin();
        let dimension = |k: f64| (0..len).map(|t| format!("{:.4}", k * value(t))).collect::<Vec<_>>().join(",");
        text += &format!("{}:{}{}\n", dimension(1.0), dimension(-20.0), ending(i, slope));
    }
    text
}

fn classes(i: usize, _: f64) -> String {
    [":up", ":down"][i % 2].to_owned()
}

#[test]
fn sequences_with_classes() {
    let folder = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let label = "@classLabel true up down";
    let (data, test) = (file("train.ts", &ramps(label, 60, classes)), file("test.ts", &ramps(label, 21, classes)));
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let short = ["--units", "6", "--epochs", "30", "--learning-rate", "0.02", "--cell", "gru", "--bidirectional"];
    let test_path = test.display().to_string();
    let output = train(&data, &out, &[&short[..], &["--test", &test_path, "--dropout", "0.1"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "sequences of 2 features, 3 to 7 steps",
        "54 to train on, 6 to validate, 21 to test",
        "which of 2 classes",
        "masking (Masking)",
        "test, 21 sequences",
        "accuracy  precision     recall         F1",
        "weighted avg",
        "confusion matrix",
        "      up  down\n  up  11     0\ndown   0    10",
        "confusion.svg",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let scores = |text: &str, name: &str| -> Vec<f64> {
        let row = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no row {name} in {text}"));
        row.split_whitespace().skip(1).map(|number| number.parse().unwrap()).collect()
    };
    assert_eq!(scores(&text, "Bidirectional(GRU(6))"), [1.0; 4]);
    let picture = std::fs::read_to_string(out.join("confusion.svg")).unwrap();
    assert!(picture.contains("accuracy 1.0000") && picture.lines().any(|line| line == "down"), "{picture}");

    // The same from the saved model.
    let plot = folder.path().join("again.svg");
    let evaluated = with_model("evaluate", &[&model, &test], &["--quiet", "--plot", &plot.display().to_string()]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
    assert_eq!(scores(&stdout(&evaluated), "model"), [1.0; 4]);
    assert!(!stdout(&evaluated).contains("weighted avg") && plot.exists());
    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(summary.contains("the class of a sequence (up, down) of at most 7 steps with 2 features"), "{summary}");
    assert!(with_model("plot", &[&model], &[]).status.success());
    // Without classes, as new data come; the classes are in the CSV file.
    let unlabelled = file("new.ts", &ramps("@classLabel false", 4, |_, _| String::new()));
    let predicted = with_model("predict", &[&model, &unlabelled], &[]);
    assert!(predicted.status.success(), "{}", stderr(&predicted));
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    let rows: Vec<Vec<&str>> = rows.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!(rows[0], ["sequence", "class", "up", "down"]);
    for (i, row) in rows[1..].iter().enumerate() {
        assert_eq!(row[..2], [(i + 1).to_string().as_str(), ["up", "down"][i % 2]]);
        let sum: f64 = row[2..].iter().map(|p| p.parse::<f64>().unwrap()).sum();
        assert!((sum - 1.0).abs() < 1e-5, "{row:?}");
    }
    assert_error(&with_model("evaluate", &[&model, &unlabelled], &[]), &["new.ts", "no classes"]);

    // The same seed, the same split and the same bytes.
    let bytes = |more: &[&str]| {
        let output = train(&data, &out, &[&["--units", "3", "--epochs", "2", "--quiet"], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        (stdout(&output), std::fs::read(&model).unwrap())
    };
    let (first, second, other) = (bytes(&[]), bytes(&[]), bytes(&["--seed", "2"]));
    assert!(first.0.contains("test, 12 sequences") && first.0.lines().count() <= 4, "{}", first.0);
    assert!(first == second && first.1 != other.1);

    // What does not fit each other.
    let series = sample("sunspots_yearly.csv");
    for command in ["predict", "evaluate"] {
        assert_error(&with_model(command, &[&model, &series], &[]), &["sequences in a .ts file"]);
        assert_error(&with_model(command, &[&model, &test], &["--gaps", "drop"]), &["--gaps", "CSV"]);
    }
    let series_model = folder.path().join("series");
    assert!(
        train(&series, &series_model, &["--units", "2", "--window", "3", "--epochs", "1", "--quiet"]).status.success()
    );
    for command in ["predict", "evaluate"] {
        let output = with_model(command, &[&series_model.join("model.safetensors"), &test], &[]);
        assert_error(&output, &["a series in a CSV file"]);
    }
}

#[test]
fn sequences_with_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("numbers.ts");
    std::fs::write(&data, ramps("@targetLabel true", 80, |_, slope| format!(":{}", 50.0 + slope))).unwrap();
    let out = folder.path().join("out");
    let short = ["--units", "8", "--epochs", "60", "--learning-rate", "0.02", "--layers", "2", "--task", "regression"];
    let output = train(&data, &out, &short);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("test error, 16 sequences") && text.contains("R2 0.9"), "{text}");
    let (ours, naive) = (rmse(&text, "2 x LSTM(8)"), rmse(&text, "naive (the mean)"));
    assert!(ours < 0.3 * naive, "{ours} against {naive}");
    assert!(std::fs::read_to_string(out.join("test.svg")).unwrap().contains("Prediction and truth"));
    let model = out.join("model.safetensors");
    let evaluated = stdout(&with_model("evaluate", &[&model, &data], &[]));
    assert!(evaluated.contains("80 sequences"), "{evaluated}");
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert_eq!((rows.lines().count(), rows.lines().next()), (81, Some("sequence,number")));
    let first: f64 = rows.lines().nth(1).unwrap().split_once(',').unwrap().1.parse().unwrap();
    assert!((first - 51.0).abs() < 1.5, "{first}");
    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(summary.contains("Says the number of a sequence of at most"), "{summary}");
}

#[test]
fn sequences_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let label = "@classLabel true up down";
    let good = ramps(label, 20, classes);
    let other = folder.path().join("other.ts");
    let other_path = other.display().to_string();
    let cases: [(&str, &str, &[&str], &[&str]); 17] = [
        ("", "", &[], &["no line @data"]),
        (&good.replace(":up", ":left"), "", &[], &["line 6", "unknown class", "left"]),
        (&good.replacen("0.0000", "?", 1), "", &[], &["line 6", "missing"]),
        (&good.replace("@timeStamps false", "@timeStamps true"), "", &[], &["time stamps"]),
        (&ramps("@classLabel false", 20, |_, _| String::new()), "", &[], &["neither classes", "@classLabel"]),
        (&good, "", &["--task", "regression"], &["classes, for --task classification"]),
        (&good, "", &["--window", "3"], &["--window", "CSV"]),
        (&good, "", &["--learn", "values"], &["--learn", "CSV"]),
        (&good, "", &["--columns", "a"], &["--columns", "CSV"]),
        (&good, "", &["--length", "4"], &["data.ts", "1 to 4 steps"]),
        (&good, "", &["--length", "0"], &["length is 0"]),
        (&good, "", &["--test-fraction", "0.05"], &["test_fraction", "each class"]),
        (&good, "", &["--test-fraction", "0.6", "--validation-fraction", "0.4"], &["fractions that leave"]),
        (&good, "", &["--validation-fraction", "nan"], &["validation_fraction", "NaN"]),
        (&good, &good.replace("up down", "up down left"), &["--test", &other_path], &[]),
        (
            &good,
            &ramps(label, 20, classes).replace("up down", "up left").replace(":down", ":left"),
            &["--test", &other_path],
            &["other.ts", "left", "up, down"],
        ),
        (
            &good,
            "@problemName x\n@timeStamps false\n@classLabel true up down\n@data\n1,2:up\n",
            &["--test", &other_path],
            &["other.ts", "2 features"],
        ),
    ];
    for (text, test, options, parts) in cases {
        let data = folder.path().join("data.ts");
        std::fs::write(&data, text).unwrap();
        std::fs::write(&other, test).unwrap();
        let output = train(&data, &out, &[&["--units", "2", "--epochs", "1"], options].concat());
        if parts.is_empty() {
            // A class that the test names without a sequence of it is no error.
            assert!(output.status.success(), "{options:?}: {}", stderr(&output));
            std::fs::remove_file(out.join("model.safetensors")).unwrap();
            continue;
        }
        assert_error(&output, parts);
        assert!(!out.join("model.safetensors").exists(), "{options:?}");
    }
    assert_error(&train(&folder.path().join("none.ts"), &out, &[]), &["cannot read", "none.ts"]);
}

/// Rows of two waves whose frequency goes by the row's class, three classes in any order of 20 to 40 rows each. Every row has a day of its own.
fn waves(rows: usize) -> Vec<(String, &'static str)> {
    let (mut phase, mut run, mut left) = (0.0f64, 0, 0);
    let row = |t: usize| {
        if left == 0 {
            run += 1;
            left = 20 + t * 13 % 21;
        }
        let class = [1, 0, 1, 2, 0, 2][run % 6];
        left -= 1;
        phase += [0.15, 0.6, 1.4][class];
        let noise = f64::from((t as u32).wrapping_mul(2_654_435_761) >> 16) / 65536.0 - 0.5;
        (
            format!("day {t},{:.5},{:.5}", phase.sin() + 0.2 * noise, 20.0 + 5.0 * phase.cos()),
            ["slow", "mid", "fast"][class],
        )
    };
    (0..rows).map(row).collect()
}

/// The same as a file.
fn wave_text(rows: &[(String, &str)]) -> String {
    let lines: String = rows.iter().map(|(numbers, class)| format!("{numbers},{class}\n")).collect();
    format!("day,a,b,state\n{lines}")
}

/// What classes take to be learned in a second.
const CLASSES: [&str; 15] = [
    "--task",
    "classification",
    "--target",
    "state",
    "--window",
    "12",
    "--cell",
    "gru",
    "--units",
    "12",
    "--epochs",
    "25",
    "--learning-rate",
    "0.01",
    "--quiet",
];

/// The accuracy, the first of the four scores, in the row that starts with `name`.
fn accuracy(text: &str, name: &str) -> f64 {
    let row = text.lines().find(|l| l.starts_with(name)).unwrap_or_else(|| panic!("no row {name} in {text}"));
    row.split_whitespace().rev().nth(3).unwrap().parse().unwrap()
}

#[test]
fn rows_with_classes() {
    let folder = tempfile::tempdir().unwrap();
    let rows = waves(600);
    let data = csv(&folder, wave_text(&rows).as_bytes());
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let output = train(&data, &out, &CLASSES[..14]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    for part in [
        "600 rows of columns a, b, day 0 to day 599",
        // 420, 60 and 120 rows, and no window across the borders.
        "409 windows to train on, 49 to validate, 109 to test",
        "which of 3 classes of column state the last row is of, from windows of 12\n",
        "(None, 12, 2)",
        "test, 109 windows",
        "weighted avg",
        "confusion matrix",
        "confusion.svg",
    ] {
        assert!(text.contains(part), "{part:?} is not in {text}");
    }
    let learned = accuracy(&text, "GRU(12)");
    // Whoever says the most frequent class is right for about a third of the rows.
    assert!(learned > 0.85, "{learned}");
    let picture = std::fs::read_to_string(out.join("confusion.svg")).unwrap();
    assert!(picture.contains(&format!("109 windows: accuracy {learned:.4}")), "{picture}");
    assert!(["slow", "mid", "fast"].iter().all(|class| picture.lines().any(|line| line == *class)), "{picture}");
    assert!(std::fs::read_to_string(out.join("loss.svg")).unwrap().contains("cross-entropy"));
    let quiet = train(&data, &folder.path().join("quiet"), &CLASSES);
    assert!(quiet.status.success() && quiet.stderr.is_empty(), "{}", stderr(&quiet));
    assert_eq!(accuracy(&stdout(&quiet), "GRU(12)"), learned, "the same seed, the same model");
    assert!(stdout(&quiet).lines().count() <= 4, "{}", stdout(&quiet));

    // The saved model says the same of the same rows.
    let plot = folder.path().join("again.svg");
    let plot_path = plot.display().to_string();
    let evaluated = with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2", "--plot", &plot_path]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
    let again = stdout(&evaluated);
    assert!(again.contains("the last part, 109 windows") && plot.exists(), "{again}");
    assert_eq!(accuracy(&again, "model"), learned);
    let counts =
        |text: &str| text.split("confusion matrix").nth(1).unwrap().lines().take(5).collect::<Vec<_>>().join("\n");
    assert_eq!(counts(&again), counts(&text));
    let all = stdout(&with_model("evaluate", &[&model, &data], &["--quiet"]));
    assert!(all.contains("all, 589 windows") && !all.contains("weighted avg"), "{all}");
    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(
        summary.contains("the class of a row, as column state has it (fast, mid, slow), from the window of 12 rows")
            && summary.contains("of columns a, b; gaps: error"),
        "{summary}"
    );
    let drawn = with_model("plot", &[&model], &[]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    assert!(std::fs::read_to_string(out.join("model.svg")).unwrap().contains("gru (GRU)"));

    // A line for each row from number 12 on, with its day; right as often as evaluate says.
    let predicted = with_model("predict", &[&model, &data], &[]);
    assert!(predicted.status.success(), "{}", stderr(&predicted));
    assert!(stdout(&predicted).contains("589 rows") && stdout(&predicted).contains("from line 13 on"));
    let read = || std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    let file = read();
    let said: Vec<Vec<&str>> = file.lines().map(|row| row.split(',').collect()).collect();
    assert_eq!((said.len(), &said[0][..]), (590, &["line", "day", "class", "fast", "mid", "slow"][..]));
    let mut right = [0, 0];
    for (i, row) in said[1..].iter().enumerate() {
        let number = 11 + i;
        assert_eq!(row[..2], [(number + 2).to_string(), format!("day {number}")]);
        let shares: Vec<f64> = row[3..].iter().map(|p| p.parse().unwrap()).collect();
        assert!((shares.iter().sum::<f64>() - 1.0).abs() < 1e-5, "{row:?}");
        let place = said[0][3..].iter().position(|class| *class == row[2]).unwrap();
        assert!(shares.iter().all(|share| *share <= shares[place]), "{row:?}");
        let hit = usize::from(row[2] == rows[number].1);
        right[0] += hit;
        // The windows of the test part: its first 11 rows are only read.
        right[1] += if number >= 480 + 11 { hit } else { 0 };
    }
    assert_eq!(format!("{:.4}", right[0] as f64 / 589.0), format!("{:.4}", accuracy(&all, "model")));
    assert_eq!(format!("{:.4}", right[1] as f64 / 109.0), format!("{learned:.4}"));

    // New data need no classes, nor the same order of columns, nor a day.
    let new = folder.path().join("new.csv");
    let fields = |row: &str| row.split(',').map(str::to_owned).collect::<Vec<_>>();
    let lines: String = rows.iter().map(|(row, _)| fields(row)).map(|row| format!("{},{}\n", row[2], row[1])).collect();
    std::fs::write(&new, format!("b,a\n{lines}")).unwrap();
    assert!(with_model("predict", &[&model, &new], &[]).status.success());
    let without: Vec<String> = read().lines().skip(1).map(|row| row.split_once(',').unwrap().1.to_owned()).collect();
    let with: Vec<String> = said[1..].iter().map(|row| row[2..].join(",")).collect();
    assert_eq!(without, with);
    assert_error(&with_model("evaluate", &[&model, &new], &[]), &["new.csv", "no column state", "b, a"]);
}

#[test]
fn rows_with_classes_that_do_not_fit_a_model() {
    let folder = tempfile::tempdir().unwrap();
    let rows = waves(200);
    let data = csv(&folder, wave_text(&rows).as_bytes());
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let short =
        ["--task", "classification", "--target", "state", "--window", "5", "--units", "2", "--epochs", "1", "--quiet"];
    assert!(train(&data, &out, &short).status.success());
    let other = folder.path().join("other.csv");
    let run = |command: &str, text: &str, more: &[&str]| {
        std::fs::write(&other, text).unwrap();
        with_model(command, &[&model, &other], more)
    };
    let text = wave_text(&rows[..30]);
    for command in ["predict", "evaluate"] {
        assert_error(&run(command, &text.replace("day,a,b", "day,a,c"), &[]), &["no column b", "day, a, c, state"]);
        assert_error(&run(command, &wave_text(&rows[..4]), &[]), &["other.csv", "too few rows: 4", "windows of 5"]);
        assert_error(&run(command, &text.replacen("20.", "x20.", 1), &[]), &["other.csv, line", "column b", "x20."]);
        assert_error(&run(command, &text, &["--column", "a"]), &["--column", "a, b"]);
        let sequences = folder.path().join("sequences.ts");
        std::fs::write(&sequences, ramps("@classLabel true up down", 4, classes)).unwrap();
        assert_error(&with_model(command, &[&model, &sequences], &[]), &["sequences.ts", "rows of a CSV file"]);
    }
    assert_error(&run("predict", &text, &["--horizon", "3"]), &["--horizon", "forecasts"]);
    assert_error(&run("predict", &text, &["--plot", "x.svg"]), &["--plot", "forecasts"]);
    // A gap in a number is as in training, unless another policy is asked for.
    let (row, class) = &rows[20];
    let day = row.split(',').next().unwrap();
    let gap = text.replace(&format!("{row},"), &format!("{day},,1,"));
    assert_error(&run("predict", &gap, &[]), &["other.csv, line 22", "column a", "missing"]);
    assert!(run("predict", &gap, &["--gaps", "drop"]).status.success());
    let said = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert!(said.lines().count() == 26 && !said.contains("\n22,") && said.contains("\n23,day 21,"), "{said}");
    // Without its class a row can be read, but not measured.
    let unknown = |with: &str| text.replace(&format!("{row},{class}"), &format!("{row},{with}"));
    assert!(run("predict", &unknown(""), &[]).status.success());
    assert_error(&run("evaluate", &unknown(""), &[]), &["other.csv, line 22", "column state", "no class"]);
    assert_error(
        &run("evaluate", &unknown("new"), &[]),
        &["line 22", "unknown class \"new\"", "\"fast\", \"mid\", \"slow\""],
    );
    assert_error(&run("evaluate", &text, &["--test-fraction", "0.1"]), &["too few rows: 3"]);
    assert_error(&run("evaluate", &text, &["--test-fraction", "1"]), &["test_fraction"]);

    // A model of a series and one of sequences take no such file for what it is not.
    let series = folder.path().join("series");
    assert!(
        train(&data, &series, &["--column", "a", "--window", "3", "--units", "2", "--epochs", "1", "--quiet"])
            .status
            .success()
    );
    let forecast = with_model("predict", &[&series.join("model.safetensors"), &data], &[]);
    assert!(forecast.status.success() && stdout(&forecast).contains("prediction.svg"), "{}", stderr(&forecast));
}

#[test]
fn columns_of_rows_with_classes_are_chosen() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    // Classes that are numbers, gaps, and no header.
    let row = |i: usize| {
        let gap = if i % 10 == 3 { String::new() } else { format!("{}.5", i % 7) };
        format!("{},{gap},{},note\n", [10, 9, 2][i / 4 % 3], i * i % 11)
    };
    let text: String = (0..120).map(row).collect();
    let one = ["--task", "classification", "--units", "2", "--epochs", "1", "--window", "4"];
    for (text, options, described) in [
        (
            text.clone(),
            &["--target", "1", "--gaps", "interpolate"][..],
            "columns column 2, column 3, note to note, 12 missing (interpolate)",
        ),
        (text.clone(), &["--target", "column 1", "--columns", "3"], "120 rows of columns column 3"),
        (
            text.clone(),
            &["--target", "1", "--gaps", "drop", "--columns", "2,3"],
            "108 rows of columns column 2, column 3",
        ),
        (format!("k,v,v,n\n{text}"), &["--target", "k", "--gaps", "forward-fill"], "columns 2, 3, note"),
        (format!("k,v,w,n\n{text}"), &["--target", "k", "--columns", "w"], "of column k the last"),
    ] {
        let data = csv(&folder, text.as_bytes());
        let output = train(&data, &out, &[&one[..], options].concat());
        assert!(output.status.success(), "{options:?}: {}", stderr(&output));
        let said = stdout(&output);
        assert!(said.contains(described), "{options:?}: {described} is not in {said}");
        let evaluated = with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2", "--quiet"]);
        assert!(evaluated.status.success(), "{options:?}: {}", stderr(&evaluated));
        assert_eq!(accuracy(&stdout(&evaluated), "model"), accuracy(&said, "LSTM(2)"), "{options:?}");
        assert!(with_model("predict", &[&model, &data], &[]).status.success(), "{options:?}");
        let file = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
        assert!(file.lines().next().unwrap().ends_with(",class,2,9,10"), "{file}");
    }
    // The window that nobody chose is named.
    let data = csv(&folder, wave_text(&waves(600)).as_bytes());
    let output =
        train(&data, &out, &["--task", "classification", "--target", "state", "--units", "2", "--epochs", "1"]);
    assert!(stdout(&output).contains("from windows of 36 (the default)"), "{}", stderr(&output));
    // A number stays what a CSV file is read for.
    let output = train(&data, &out, &["--task", "regression", "--units", "2", "--epochs", "1", "--columns", "a,b"]);
    assert!(output.status.success() && out.join("forecast.svg").exists(), "{}", stderr(&output));
}

#[test]
fn rows_with_classes_that_cannot_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let rows = waves(120);
    let good = wave_text(&rows);
    // With another class, or other numbers, in one row.
    let class = |row: usize, class: &'static str| {
        let mut rows = rows.clone();
        rows[row].1 = class;
        wave_text(&rows)
    };
    let a = |row: usize, value: &str| {
        let mut rows = rows.clone();
        rows[row].0 = format!("day {row},{value},20");
        wave_text(&rows)
    };
    let numbers =
        |count: usize| format!("a,k\n{}", (0..count).map(|i| format!("{},{}.25\n", i % 9, i)).collect::<String>());
    let cases: [(String, &[&str], &[&str]); 25] = [
        (class(7, ""), &[], &["data.csv, line 9", "column state", "no class"]),
        (class(7, "NaN"), &["--gaps", "drop"], &["data.csv, line 9", "no class (\"NaN\")"]),
        (
            class(90, "new"),
            &[],
            &["data.csv, line 92", "class \"new\"", "validation part", "lines 2 to 85", "--test-fraction"],
        ),
        (class(119, "new"), &[], &["data.csv, line 121", "class \"new\"", "test part", "leave its rows out"]),
        // Only in rows that no window of the training part ends in.
        (class(0, "early"), &[], &[]),
        (
            good.replace(",slow", ",mid").replace(",fast", ",mid"),
            &[],
            &["column state", "only one class (\"mid\")", "--task regression"],
        ),
        (
            numbers(1500),
            &["--target", "k", "--test-fraction", "0", "--validation-fraction", "0"],
            &["1496 different texts", "1000 classes", "--task regression"],
        ),
        (numbers(100), &["--target", "k"], &["line 76", "class \"74.25\"", "validation part"]),
        (good.clone(), &["--target", "z"], &["no column z", "day, a, b, state"]),
        (good.clone(), &["--columns", "a,state"], &["column state", "cannot be read too"]),
        (good.clone(), &["--columns", "a,day"], &["column day", "expected a number", "day 0"]),
        (good.clone(), &["--columns", "a,a"], &["chosen twice"]),
        (good.clone(), &["--columns", "c"], &["no column c"]),
        (good.clone(), &["--horizon", "2"], &["--horizon", "--target"]),
        (good.clone(), &["--learn", "values"], &["--learn", "--task classification"]),
        (good.clone(), &["--length", "3"], &["--length", "--window"]),
        (good.clone(), &["--test", "x.csv"], &["--test", "--test-fraction"]),
        (good.clone(), &["--column", "a", "--target", "state"], &["cannot be used with"]),
        (good.clone(), &["--window", "0"], &["window is 0"]),
        (
            good.clone(),
            &["--window", "13"],
            &["too few rows", "validation part has 12", "window 13", "--validation-fraction"],
        ),
        (good.clone(), &["--window", "100"], &["too few rows", "training part has 84", "smaller --window"]),
        (good.clone(), &["--window", "18446744073709551615"], &["too few rows"]),
        (a(50, "1e300"), &[], &["data.csv, line 52", "column a", "single precision"]),
        (a(50, "inf"), &[], &["data.csv, line 52", "column a", "infinite"]),
        (a(50, ""), &[], &["data.csv, line 52", "column a", "missing"]),
    ];
    for (text, options, parts) in cases {
        let data = csv(&folder, text.as_bytes());
        let target = if options.contains(&"--target") { &[][..] } else { &["--target", "state"] };
        let one = ["--task", "classification", "--units", "2", "--epochs", "1"];
        let window = if options.contains(&"--window") { &[][..] } else { &["--window", "5"] };
        let output = train(&data, &out, &[&one[..], target, window, options].concat());
        if parts.is_empty() {
            assert!(output.status.success(), "{}", stderr(&output));
            std::fs::remove_file(out.join("model.safetensors")).unwrap();
            continue;
        }
        assert_error(&output, parts);
        assert!(!out.join("model.safetensors").exists(), "{options:?}");
    }
    let data = csv(&folder, good.as_bytes());
    let classes = |more: &[&str]| train(&data, &out, &[&["--task", "classification"], more].concat());
    assert_error(&classes(&[]), &["target", "--target NAME", "day, a, b, state"]);
    assert_error(&classes(&["--column", "a"]), &["--column", "--target"]);
    assert_error(&train(&folder.path().join("none.csv"), &out, &CLASSES), &["cannot read", "none.csv"]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_best_model_of_rows() {
    let folder = tempfile::tempdir().unwrap();
    let data = csv(&folder, wave_text(&waves(300)).as_bytes());
    let out = folder.path().join("out");
    let mut child = program()
        .arg("train")
        .arg(&data)
        .arg("--out")
        .arg(&out)
        .args(["--task", "classification", "--target", "state"])
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
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(stdout(&output).contains("test, 49 windows"), "{}", stdout(&output));
    for file in ["loss.svg", "confusion.svg"] {
        assert!(out.join(file).exists(), "{file}");
    }
    assert!(with_model("evaluate", &[&out.join("model.safetensors"), &data], &[]).status.success());
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

/// Mixed precision gives another model, near that in f32, whose file is one in f32.
#[cfg(feature = "emulated")]
#[test]
fn trains_in_mixed_precision_on_the_emulated_device() {
    let folder = tempfile::tempdir().unwrap();
    let data = sample("sunspots_yearly.csv");
    let run = |precision: &str| {
        let out = folder.path().join(precision);
        let options = [&SHORTEST[..], &["--device", "emulated", "--precision", precision]].concat();
        let output = train(&data, &out, &options);
        assert!(output.status.success(), "{precision}: {}", stderr(&output));
        let model = out.join("model.safetensors");
        assert!(with_model("evaluate", &[&model, &data], &[]).status.success(), "{precision}");
        (rmse(&stdout(&output), "LSTM(3)"), std::fs::read(model).unwrap())
    };
    let (exact, exact_model) = run("f32");
    for precision in ["bf16", "f16"] {
        let (rounded, model) = run(precision);
        assert!((rounded / exact - 1.0).abs() < 0.05, "{precision}: {rounded}, not {exact}");
        assert_ne!(model, exact_model, "{precision}");
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
    let refused = train(&data, folder.path(), &["--precision", "bf16"]);
    assert_error(&refused, &["--precision bf16", "processor", "--device cuda"]);
}
