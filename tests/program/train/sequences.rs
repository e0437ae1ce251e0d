//! Classes and numbers of sequences in a `.ts` file.

use super::command::{assert_error, rmse, sample, stderr, stdout, train, with_model};

/// Sequences of one class that rise and of another that fall, 3 to 7 steps of two features.
pub fn ramps(label: &str, count: usize, ending: impl Fn(usize, f64) -> String) -> String {
    let mut text = format!("@problemName ramps\n@timeStamps false\n@univariate false\n{label}\n@data\n");
    for i in 0..count {
        let (len, slope) = (3 + i * 5 % 4 + i % 2, if i % 2 == 0 { 1.0 } else { -1.0 } * (1.0 + (i % 3) as f64));
        let value = |t: usize| slope * t as f64 + (i as f64 * 0.7).sin();
        let dimension = |k: f64| (0..len).map(|t| format!("{:.4}", k * value(t))).collect::<Vec<_>>().join(",");
        text += &format!("{}:{}{}\n", dimension(1.0), dimension(-20.0), ending(i, slope));
    }
    text
}

pub fn classes(i: usize, _: f64) -> String {
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
    assert!(std::fs::read_to_string(out.join("test.svg")).unwrap().contains("prediction and truth"));
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
        (&good, "", &["--length", "0"], &["--length", "1 or more"]),
        (&good, "", &["--test-fraction", "0.05"], &["--test-fraction", "each class"]),
        (&good, "", &["--test-fraction", "0.6", "--validation-fraction", "0.4"], &["fractions that leave"]),
        (&good, "", &["--validation-fraction", "nan"], &["--validation-fraction", "NaN"]),
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
