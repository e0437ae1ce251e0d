//! Forecasts of a column of a CSV file, alone or beside others.

#[cfg(unix)]
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
#[cfg(unix)]
use std::process::Stdio;

use tempfile::TempDir;

#[cfg(unix)]
use super::command::interrupt;
use super::command::{ENDLESS, assert_error, csv, program, rmse, sample, stderr, stdout, train, with_model};

/// Small enough to be quick, long enough to beat the naive forecast.
const SHORT: [&str; 8] = ["--units", "12", "--window", "12", "--epochs", "25", "--learning-rate", "0.005"];

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
        // Intervals are of the part to validate on, and of what is left over by simple forecasts.
        let is_sure = !["--learn", "--validation-fraction"].contains(&options[0]);
        let header = "YEAR,SUNACTIVITY,lower 80 %,upper 80 %,lower 95 %,upper 95 %";
        assert_eq!((rows.len(), rows[0]), (5, if is_sure { header } else { "YEAR,SUNACTIVITY" }));
        for (row, year) in rows[1..].iter().zip(2009..) {
            let mut cells = row.split(',');
            assert_eq!(cells.next().unwrap(), year.to_string());
            let numbers: Vec<f64> = cells.map(|cell| cell.parse().unwrap()).collect();
            assert!(numbers[0].abs() < 400.0, "{row}");
            if let [value, lower_80, upper_80, lower_95, upper_95] = numbers[..] {
                assert!(lower_95 <= lower_80 && lower_80 < value && value < upper_80 && upper_80 <= upper_95, "{row}");
            }
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
    assert!(text.starts_with("date,co2,lower 80 %,upper 80 %,lower 95 %,upper 95 %\n20020105,"), "{text}");
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
        (b"t,v\na,1\n\x81,2\n", &[], &["line 3", "not text", "--encoding"]),
        (b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n", &["--window", "8"], &["too few rows", "10 values", "window 8"]),
        (
            b"1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n",
            &["--window", "2", "--horizon", "2", "--learn", "values"],
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
        (&["--window", "0"], "--window: expected 1 or more"),
        (&["--window", &huge], "too few rows"),
        (&["--horizon", "0"], "--horizon: expected 1 or more"),
        (&["--horizon", &huge], "too few rows"),
        (&["--epochs", "0"], "--epochs: expected 1 or more"),
        (&["--batch-size", "0"], "--batch-size: expected 1 or more"),
        (&["--learning-rate", "NaN"], "--learning-rate"),
        (&["--learning-rate=-1"], "--learning-rate"),
        (&["--test-fraction", "1"], "--test-fraction"),
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
fn ctrl_c_before_the_first_epoch_saves_no_model() {
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
    let said = stderr(&output);
    assert!(said.contains("before the first epoch was completed: no model is saved; --resume goes on"), "{said}");
    let names = std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.collect::<Vec<_>>(), ["checkpoint.safetensors"]);
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

    let levels: String = (1..100).map(|t| format!("{t},{}\n", t * t % 19)).collect();
    let other = csv(&folder, format!("date,level\n{levels}").as_bytes());
    assert_error(&predict(&model, &other, &[]), &["no column SUNACTIVITY", "date, level"]);
    assert!(predict(&model, &other, &["--column", "level"]).status.success());
    let few = csv(&folder, b"date,SUNACTIVITY\n1,2\n3,4\n");
    assert_error(&predict(&model, &few, &[]), &["too few rows", "2 values", "the model reads"]);
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
    // Without a part: all values but the first, which the reference reads.
    let all = stdout(&with_model("evaluate", &[&model, &data], &[]));
    assert!(all.contains("286 forecasts"), "{all}");

    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(
        summary.contains("(None, 6, 8)") && summary.contains("of column SUNACTIVITY from windows of 6"),
        "{summary}"
    );
    let drawn = with_model("plot", &[&model], &[]);
    assert!(drawn.status.success(), "{}", stderr(&drawn));
    let svg = std::fs::read_to_string(folder.path().join("model.svg")).unwrap();
    assert!(svg.contains("bidirectional_1") && svg.contains("(None, 6, 8)"), "{svg}");

    assert_error(&with_model("evaluate", &[&model, &data], &["--test-fraction", "1.5"]), &["--test-fraction", "1.5"]);
    assert_error(&with_model("evaluate", &[&data, &data], &[]), &["not a usable"]);
    assert_error(&with_model("summary", &[&data], &[]), &["not a usable"]);
    assert_error(&with_model("plot", &[&data], &[]), &["not a usable"]);
    let few = csv(&folder, b"date,SUNACTIVITY\n1,2\n3,4\n");
    assert_error(&with_model("evaluate", &[&model, &few], &[]), &["data.csv", "at least 24 values", "2 values"]);
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
    assert!(
        text.contains("test error, 23 forecasts, 2 steps ahead") && text.contains("Intervals of 80 % hold"),
        "{text}"
    );
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
    assert!(rows.starts_with("year,out,lower 80 %,upper 80 %,lower 95 %,upper 95 %\n2022,"), "{rows}");
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
        (&["--dropout", "1"], &["--dropout", "got 1"]),
        (&["--dropout", "nan"], &["--dropout", "NaN"]),
        (&["--dropout=-0.5"], &["--dropout", "-0.5"]),
    ] {
        let output = train(&data, &out, &[&one[..], more].concat());
        assert_error(&output, parts);
    }
}
