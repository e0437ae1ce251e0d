//! Classes of rows of a CSV file.

#[cfg(unix)]
use std::io::{BufRead, BufReader};
#[cfg(unix)]
use std::process::Stdio;

#[cfg(unix)]
use super::command::{ENDLESS, interrupt, program};
use super::command::{assert_error, csv, stderr, stdout, train, with_model};
use super::sequences::{classes, ramps};

/// Rows of two waves whose frequency goes by the row's class, three classes in any order of 20 to 40 rows each. Every row has a day of its own.
pub fn waves(rows: usize) -> Vec<(String, &'static str)> {
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
pub fn wave_text(rows: &[(String, &str)]) -> String {
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
    assert_error(&run("evaluate", &text, &["--test-fraction", "1"]), &["--test-fraction"]);

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
        (good.clone(), &["--window", "0"], &["--window", "1 or more"]),
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
