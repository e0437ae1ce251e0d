//! Short series and single steps: what is left out and why, how rough intervals are, and what the pictures show.

use std::path::PathBuf;

use tempfile::TempDir;

use super::command::{assert_error, csv, stderr, stdout, train, with_model};

const SHORT: [&str; 6] = ["--units", "3", "--epochs", "2", "--seed", "1"];

/// Months of a trend with a season.
fn months(count: usize, key: &str) -> String {
    let key = if key.is_empty() { String::new() } else { format!("{key},") };
    let row = |t: usize| {
        let (season, noise) = ((t % 12) as f64 / 6.0, (t * 7919 % 101) as f64 / 200.0);
        format!("{key}{}-{:02}-01,{:.3}\n", 2010 + t / 12, t % 12 + 1, 50.0 + t as f64 * 0.3 + 9.0 * season + noise)
    };
    (0..count).map(row).collect()
}

fn of_series(folder: &TempDir, count: usize) -> PathBuf {
    csv(folder, format!("month,sales\n{}", months(count, "")).as_bytes())
}

fn of_shops(folder: &TempDir, shops: &[(&str, usize)]) -> PathBuf {
    let rows: String = shops.iter().map(|(shop, count)| months(*count, shop)).collect();
    csv(folder, format!("shop,month,sales\n{rows}").as_bytes())
}

fn lines(path: PathBuf) -> usize {
    std::fs::read_to_string(path).unwrap().lines().count()
}

#[test]
fn series_that_are_too_short_are_left_out_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let data = of_shops(&folder, &[("north", 96), ("south", 84), ("tiny", 9)]);
    let options = [&SHORT[..], &["--panel", "shop", "--horizon", "3"]].concat();
    let output = train(&data, &out, &options);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(stdout(&output).contains("seasonal naive RMSE"), "{}", stdout(&output));
    for (command, what) in [("predict", "that the model reads"), ("evaluate", "that it forecasts")] {
        let output = with_model(command, &[&model, &data], &[]);
        let said = stderr(&output);
        assert!(output.status.success(), "{command}: {said}");
        assert!(said.contains("left out") && said.contains("tiny (9 values)") && said.contains(what), "{said}");
        assert!(!said.contains("north"), "{said}");
    }
    assert_eq!(lines(out.join("prediction.csv")), 7);
    let part = with_model("evaluate", &[&model, &data], &["--test-fraction", "0.02"]);
    assert_error(&part, &["no series has", "--test-fraction", "north (96 values)"]);
    assert_error(&with_model("predict", &[&model, &data], &["--series", "tiny"]), &["series", "north, south", "tiny"]);
    let tiny = of_shops(&folder, &[("tiny", 9)]);
    for command in ["predict", "evaluate"] {
        assert_error(&with_model(command, &[&model, &tiny], &[]), &["data.csv", "too few rows", "tiny (9 values)"]);
    }
}

#[test]
fn why_one_step_is_forecast_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let output = train(&of_series(&folder, 72), &out, &SHORT);
    let text = stdout(&output);
    assert!(text.contains("forecasts 1 at once") && text.contains("--horizon 12 asks for it"), "{text}");
    assert!(text.contains("60 values before the test part, of which there are 58"), "{text}");
    // An interval is never surer than its errors are many.
    assert!(stderr(&output).contains("intervals of 95 % (which need 19) are rough"), "{}", stderr(&output));
    assert!(stderr(&output).contains("the largest of 7 errors"), "{}", stderr(&output));
    // As many steps as of a panel with the same horizon.
    assert!(with_model("predict", &[&model, &of_series(&folder, 72)], &[]).status.success());
    assert_eq!(lines(out.join("prediction.csv")), 13);
    // What needs to learn from what came before is no reference for all of it.
    let evaluated = stdout(&with_model("evaluate", &[&model, &of_series(&folder, 72)], &[]));
    assert!(evaluated.contains("naive (last value)") && !evaluated.contains("ridge"), "{evaluated}");

    let told = train(&of_series(&folder, 72), &out, &[&SHORT[..], &["--horizon", "12"]].concat());
    assert!(told.status.success() && !stdout(&told).contains("asks for it"), "{}", stdout(&told));
    let long = stdout(&train(&of_series(&folder, 84), &out, &SHORT));
    assert!(long.contains("forecasts 12 at once") && !long.contains("asks for it"), "{long}");

    let shops = of_shops(&folder, &[("north", 72), ("south", 72)]);
    let panel = [&SHORT[..], &["--panel", "shop"]].concat();
    let text = stdout(&train(&shops, &out, &panel));
    assert!(text.contains("forecasts 1 at once") && text.contains("--horizon 12 asks for it"), "{text}");
    assert!(with_model("predict", &[&model, &shops], &[]).status.success());
    assert_eq!(lines(out.join("prediction.csv")), 25);
    let evaluated = stdout(&with_model("evaluate", &[&model, &shops], &[]));
    assert!(evaluated.contains("seasonal naive RMSE") && !evaluated.contains("ridge"), "{evaluated}");
}

/// The squares of errors may be nothing where the values are not.
#[test]
fn tiny_numbers_are_not_constant() {
    let folder = tempfile::tempdir().unwrap();
    let rows: String = (0..60).map(|t| format!("{}e-200\n", 1 + t * 7919 % 101)).collect();
    let data = csv(&folder, format!("flow\n{rows}").as_bytes());
    let output = train(&data, &folder.path().join("out"), &SHORT);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("too small to compare") && !text.contains("is constant"), "{text}");
}

#[test]
fn pictures_of_little_say_what_they_show() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let output = train(&of_series(&folder, 30), &out, &[&SHORT[..], &["--test-fraction", "0.04"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let picture = |name: &str| std::fs::read_to_string(out.join(name)).unwrap();
    // A single test value, with those before it.
    let forecast = picture("forecast.svg");
    assert!(forecast.contains("2012-") && !forecast.contains("2200"), "{forecast}");
    assert!(forecast.matches("opacity=\"0.2\"").count() >= 2, "{forecast}");
    assert!(picture("loss.svg").contains("data.csv: loss of sales"));
    let one = with_model("predict", &[&out.join("model.safetensors"), &of_series(&folder, 30)], &["--horizon", "1"]);
    assert!(one.status.success(), "{}", stderr(&one));
    assert_eq!(picture("prediction.svg").matches("opacity=\"0.2\"").count(), 2);

    let row = |t: usize| format!("{t},{},{}\n", t % 7, ["a", "b"][t / 3 % 2]);
    let rows: String = std::iter::once("t,size,kind\n".to_owned()).chain((0..80).map(row)).collect();
    let data = csv(&folder, rows.as_bytes());
    let output =
        train(&data, &out, &[&SHORT[..], &["--task", "classification", "--target", "kind", "--window", "4"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let matrix = picture("confusion.svg");
    assert!(matrix.starts_with("<svg width=\"1000\" height=\"500\""), "{}", &matrix[..60]);
    assert!(matrix.contains("confusion matrix of kind") && picture("loss.svg").contains("loss of kind"), "{matrix}");
}
