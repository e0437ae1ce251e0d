//! How CSV files are read: the options, what is said, what a model remembers, what stays in the folder of results.

use std::path::Path;

use tempfile::TempDir;

use super::command::{assert_error, csv, stderr, stdout, train, with_model};

const SHORT: [&str; 6] = ["--units", "2", "--window", "4", "--epochs", "1"];

/// Months from January 2000 on, with a value each, written as told.
fn months(count: usize, row: impl Fn(usize, usize, f64) -> String) -> String {
    (0..count).map(|i| row(2000 + i / 12, i % 12 + 1, 20.0 + (i * 5 % 12) as f64 + 0.25)).collect()
}

fn run(data: &Path, out: &Path, more: &[&str]) -> (String, String) {
    let output = train(data, out, &[&SHORT[..], more].concat());
    assert!(output.status.success(), "{more:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

fn predicted(folder: &TempDir, data: &Path, more: &[&str]) -> Vec<String> {
    let out = folder.path().join("out");
    let output = with_model("predict", &[&out.join("model.safetensors"), data], &[&["--horizon", "2"], more].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    text.lines().map(|line| line.split(',').next().unwrap().to_owned()).collect()
}

#[test]
fn forecasts_go_on_as_the_file_writes_its_dates() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let name =
        |month: usize| ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][month - 1];
    let end = |month: usize| [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31][month - 1];
    let model = ["--horizon", "2"];
    for (text, next) in [
        (
            months(40, |y, m, v| format!("{}-1-{y};{}\n", name(m), v.to_string().replace('.', ","))),
            ["May-1-2003", "Jun-1-2003"],
        ),
        (months(40, |y, m, v| format!("{}.{m:02}.{};{v}\n", end(m), y - 100)), ["31.05.1903", "30.06.1903"]),
        (
            months(120, |y, m, v| format!("{y}Q{},{v}\n", m.div_ceil(3)))
                .lines()
                .step_by(3)
                .map(|l| format!("{l}\n"))
                .collect(),
            ["2010Q1", "2010Q2"],
        ),
        (
            months(40, |y, m, v| format!("2021-{:02}-{:02} 00:00:00+00:00,{v}\n", y - 1999, m)),
            ["2021-04-05 00:00:00+00:00", "2021-04-06 00:00:00+00:00"],
        ),
    ] {
        let header = if text.contains(';') { "date;v\n" } else { "date,v\n" };
        let data = csv(&folder, format!("{header}{text}").as_bytes());
        let (said, _) = run(&data, &out, &model);
        assert!(said.contains(&format!("{} values of column v", text.lines().count())), "{said}");
        let rows = predicted(&folder, &data, &[]);
        if text.contains("2021-01") {
            assert!(rows[1].ends_with("+00:00"), "{rows:?}");
        } else {
            assert_eq!(rows[1..], next, "{text}");
        }
        assert_eq!(rows[0], "date");
        let picture = std::fs::read_to_string(out.join("forecast.svg")).unwrap();
        assert!(picture.contains("date") && !picture.contains("position in the series"), "dates on the axis");
    }
}

#[test]
fn a_model_remembers_how_its_file_was_read() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    // Newest first, with a decimal comma, a marker of its own, and days that could be months.
    let row = |i: usize| {
        format!(
            "0{}/0{}/20{:02};{}\n",
            1 + i % 2,
            2 + i % 2,
            90 - i,
            if i == 5 { "k.A.".to_owned() } else { format!("{},5", 10 + i % 7) }
        )
    };
    let text = format!("t;v\n{}", (0..50).map(row).collect::<String>());
    let data = csv(&folder, text.as_bytes());
    assert_error(&train(&data, &out, &SHORT), &["data.csv, line 2", "column t", "--dates day-first"]);
    let dates = ["--dates", "day-first"];
    assert_error(&train(&data, &out, &[&SHORT[..], &dates].concat()), &["newest first", "--sort"]);
    let sorted = [&dates[..], &["--sort"]].concat();
    assert_error(&train(&data, &out, &[&SHORT[..], &sorted].concat()), &["line 7", "\"k.A.\"", "--missing k.A."]);
    let all = [&sorted[..], &["--missing", "k.A.", "--gaps", "interpolate"]].concat();
    let (said, notes) = run(&data, &out, &all);
    assert!(said.contains("50 values of column v, 2041-0"), "{said}");
    assert!(notes.contains("note: ") && notes.contains("decimal commas") && notes.contains("';'"), "{notes}");
    let rows = predicted(&folder, &data, &[]);
    assert!(rows[1].starts_with("209") && rows.len() == 3, "{rows:?}");
    // Few rows, that alone could be read in other ways.
    let few: String = text.lines().take(20).map(|line| format!("{line}\n")).collect();
    let other = folder.path().join("few.csv");
    std::fs::write(&other, few).unwrap();
    assert_eq!(predicted(&folder, &other, &[])[0], "t");
    let evaluated = with_model("evaluate", &[&out.join("model.safetensors"), &data], &[]);
    assert!(evaluated.status.success(), "{}", stderr(&evaluated));
    // What is told goes first.
    let refused = with_model("predict", &[&out.join("model.safetensors"), &data], &["--decimal", "point"]);
    assert_error(&refused, &["--decimal comma"]);
}

#[test]
fn one_series_of_a_panel() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let of = |key: &str, base: f64| months(30, |y, m, v| format!("{key},{y}-{m:02}-01,{}\n", base + v));
    let text = format!("symbol,date,price\n{}{}", of("MSFT", 0.0), of("IBM", 100.0));
    let data = csv(&folder, text.as_bytes());
    assert_error(&train(&data, &out, &SHORT), &["panel", "column symbol", "--where symbol=MSFT", "--sort=no"]);
    let (said, _) = run(&data, &out, &["--where", "symbol=IBM"]);
    assert!(said.contains("30 values of column price, 2000-01-01 to 2002-06-01"), "{said}");
    assert_eq!(predicted(&folder, &data, &[])[1], "2002-07-01");
    assert_error(&train(&data, &out, &["--where", "symbol=X"]), &["no row has \"X\"; it has IBM, MSFT"]);
    let (said, _) = run(&data, &out, &["--where", "symbol=IBM", "--time", "date"]);
    assert!(said.contains("2000-01-01 to 2002-06-01"), "{said}");
    assert_error(&train(&data, &out, &["--time", "day"]), &["no column day; the columns are: symbol, date, price"]);
    assert_error(&train(&data, &out, &["--where", "symbol"]), &["where", "symbol=MSFT"]);
    assert_error(&train(&data, &out, &["--delimiter", "::"]), &["delimiter", "one character"]);
}

#[test]
fn columns_of_one_name_are_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("twice.csv"), folder.path().join("out"));
    let text = months(60, |year, month, value| format!("{year}-{month:02},{value},{}\n", 2.0 * value));
    std::fs::write(&data, format!("month,v,v\n{text}")).unwrap();
    for more in [&[][..], &["--column", "2"], &["--columns", "2,3", "--target", "2", "--horizon", "2"]] {
        run(&data, &out, more);
        assert_eq!(predicted(&folder, &data, &[]), ["month", "2005-01", "2005-02"], "{more:?}");
        let evaluated = with_model("evaluate", &[&out.join("model.safetensors"), &data], &[]);
        assert!(evaluated.status.success(), "{more:?}: {}", stderr(&evaluated));
    }
}

#[test]
fn text_is_read_beside_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = months(60, |y, m, v| format!("{y}-{m:02},{},{v}\n", ["sun", "rain", "snow"][m % 3]));
    let data = csv(&folder, format!("date,weather,v\n{text}").as_bytes());
    let (said, _) = run(&data, &out, &["--columns", "weather,v", "--horizon", "2"]);
    assert!(said.contains("read beside weather=rain, weather=snow, weather=sun"), "{said}");
    assert_eq!(predicted(&folder, &data, &[])[1..], ["2005-01", "2005-02"]);
    let fog = csv(&folder, format!("date,weather,v\n{}", text.replace("2003-01,rain", "2003-01,fog")).as_bytes());
    let refused = with_model("predict", &[&out.join("model.safetensors"), &fog], &[]);
    assert_error(&refused, &["line 38", "unknown category \"fog\"", "rain, snow, sun"]);
}

#[test]
fn results_of_another_task_do_not_stay() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = months(80, |y, m, v| format!("{y}-{m:02},{v},{}\n", if m % 2 == 0 { "even" } else { "odd" }));
    let data = csv(&folder, format!("date,v,kind\n{text}").as_bytes());
    run(&data, &out, &["--horizon", "2"]);
    predicted(&folder, &data, &[]);
    std::fs::write(out.join("notes.txt"), "mine").unwrap();
    let (said, _) = run(&data, &out, &["--task", "classification", "--target", "kind"]);
    assert!(
        said.contains("removed what an earlier run left beside them: forecast.svg, prediction.csv, prediction.svg"),
        "{said}"
    );
    let mut left: Vec<String> =
        std::fs::read_dir(&out).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    left.sort();
    assert_eq!(left, ["confusion.svg", "loss.svg", "model.safetensors", "notes.txt"]);
    // Where no model was, nothing is a result of one.
    let own = folder.path().join("own");
    std::fs::create_dir(&own).unwrap();
    std::fs::write(own.join("forecast.svg"), "mine").unwrap();
    run(&data, &own, &["--task", "classification", "--target", "kind"]);
    assert_eq!(std::fs::read_to_string(own.join("forecast.svg")).unwrap(), "mine");
    run(&data, &out, &["--test-fraction", "0", "--horizon", "2"]);
    assert!(!out.join("confusion.svg").exists() && !out.join("forecast.svg").exists());
}

#[test]
fn options_of_csv_files_are_refused_for_others() {
    let folder = tempfile::tempdir().unwrap();
    let data = super::command::sample("JapaneseVowels_TRAIN.ts");
    for option in [&["--sort"][..], &["--decimal", "comma"], &["--where", "a=b"], &["--missing=?"], &["--time", "a"]] {
        assert_error(&train(&data, folder.path(), option), &[option[0].split('=').next().unwrap(), ".ts"]);
    }
}

#[test]
fn texts_are_no_numbers_to_forecast() {
    let folder = tempfile::tempdir().unwrap();
    let row = |t: usize| format!("{},{},{}\n", 1900 + t, ["sun", "fog", "rain"][t * t % 3], 10 + t % 7);
    let data = csv(&folder, format!("year,weather,visitors\n{}", (0..60).map(row).collect::<String>()).as_bytes());
    let output = train(&data, &folder.path().join("out"), &[&SHORT[..], &["--target", "weather"]].concat());
    assert_error(&output, &["target", "weather", "--task classification"]);
}

#[test]
fn names_reach_the_terminal_without_its_control_characters() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..60).map(|t| format!("{},{},{}\n", 1900 + t, t % 5, 10 + t % 7)).collect();
    let data = csv(&folder, format!("year,a\u{1b}[31m,v\u{1b}[31mred\n{rows}").as_bytes());
    let columns = [&SHORT[..], &["--columns", "2,3"]].concat();
    for options in [&SHORT[..], &columns] {
        let output = train(&data, &folder.path().join("out"), options);
        assert!(output.status.success(), "{}", stderr(&output));
        assert!(!stdout(&output).contains('\u{1b}') && !stderr(&output).contains('\u{1b}'), "{}", stdout(&output));
    }
}
