//! Forecasts of a season at once: references, intervals, backtests, seeds, search, known columns, the calendar, panels.

use std::path::PathBuf;

use tempfile::TempDir;

use super::command::{assert_error, csv, program, rmse, stderr, stdout, train, with_model};

/// Twelve years of months with a trend and a season that grow together.
fn monthly(folder: &TempDir) -> PathBuf {
    let season = [1.0, 0.9, 1.1, 1.05, 1.0, 1.2, 1.4, 1.35, 1.1, 0.95, 0.85, 1.0];
    let row = |t: usize| {
        let noise = ((t * 7919 % 101) as f64 / 101.0 - 0.5) * 0.04;
        format!("{}-{:02}-01,{:.3}\n", 2000 + t / 12, t % 12 + 1, (100.0 + t as f64) * season[t % 12] * (1.0 + noise))
    };
    let text = std::iter::once("month,sales\n".to_owned()).chain((0..144).map(row)).collect::<String>();
    csv(folder, text.as_bytes())
}

#[test]
fn a_season_is_found_and_its_horizon_forecast_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let data = monthly(&folder);
    let out = folder.path().join("out");
    let short = ["--units", "4", "--epochs", "5"];
    let output = train(&data, &out, &short);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("a season of 12; ") && text.contains("forecasts 12 at once"), "{text}");
    assert!(text.contains(", one step ahead  ") && text.contains(", 12 steps ahead  "), "{text}");
    let whole = &text[text.find(", 12 steps ahead").unwrap()..];
    for simple in ["naive (last value)", "seasonal naive", "drift", "ridge on lags"] {
        assert!(rmse(whole, "LSTM(4)") < rmse(whole, simple), "{simple}: {text}");
    }
    // The picture is of the horizon that its caption names.
    let picture = std::fs::read_to_string(out.join("forecast.svg")).unwrap();
    let said = format!("12 steps ahead, on the part held back: RMSE {:.4}", rmse(whole, "LSTM(4)"));
    for part in [&said, "data.csv: forecast and truth of sales", "forecast from here", "seasonal naive", "<polygon"] {
        assert!(picture.contains(part), "{part} is not in {picture}");
    }
    // The model says how long its horizon is, and goes on past it.
    let model = out.join("model.safetensors");
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert_eq!(rows.lines().count(), 13, "{rows}");
    let first = rows.lines().nth(1).unwrap().to_owned();
    assert!(with_model("predict", &[&model, &data], &["--horizon", "30"]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert_eq!((rows.lines().count(), rows.lines().nth(1).unwrap()), (31, first.as_str()), "{rows}");
    let evaluated = stdout(&with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2"]));
    assert_eq!(rmse(&evaluated, "model"), rmse(&text, "LSTM(4)"));

    let told =
        stdout(&train(&data, &out, &[&short[..], &["--season", "1", "--log", "off", "--intervals", "0.5"]].concat()));
    assert!(
        told.contains("no season; ") && !told.contains("logarithms") && told.contains("Intervals of 50 % hold"),
        "{told}"
    );
    for (more, parts) in
        [(&["--season", "0"][..], &["--season", "1 or more"][..]), (&["--intervals", "1.5"], &["--intervals", "1.5"])]
    {
        assert_error(&train(&data, &out, &[&short[..], more].concat()), parts);
    }
    let below_zero = csv(&folder, b"1\n-2\n3\n".repeat(30).as_slice());
    assert_error(&train(&below_zero, &out, &[&short[..], &["--log", "on"]].concat()), &["log"]);
}

#[test]
fn backtests_train_anew_at_every_origin() {
    let folder = tempfile::tempdir().unwrap();
    let data = monthly(&folder);
    let backtest = |more: &[&str]| {
        let short = ["--units", "2", "--epochs", "2", "--origins", "3"];
        let step = if more.contains(&"--step") { &[][..] } else { &["--step", "6"] };
        program().arg("backtest").arg(&data).args(short).args(step).args(more).output().unwrap()
    };
    let output = backtest(&[]);
    assert!(output.status.success(), "{}", stderr(&output));
    let (text, origins) = (stdout(&output), stderr(&output));
    assert!(
        text.contains("backtest, 3 forecasts, 12 steps ahead") && text.contains("Intervals of 80 % hold"),
        "{text}"
    );
    let whole = &text[text.find(", 12 steps ahead").unwrap()..];
    assert!(rmse(whole, "LSTM(2)") < rmse(whole, "seasonal naive"), "{text}");
    assert!(origins.contains("origin 3 of 3: 132 values known, to 2010-12-01"), "{origins}");
    let none = program().arg("backtest").arg(&data).args(["--origins", "0"]).output().unwrap();
    assert_error(&none, &["origins", "1 to 1000"]);
    assert_error(&backtest(&["--step", "70"]), &["too few rows", "3 origins 70 apart"]);
    assert_error(&backtest(&["--out", "x"]), &["--out", "no files"]);
    assert_error(&backtest(&["--task", "classification"]), &["backtest"]);
}

#[test]
fn several_seeds_are_one_model() {
    let folder = tempfile::tempdir().unwrap();
    let data = monthly(&folder);
    let (one, three) = (folder.path().join("one"), folder.path().join("three"));
    let short = ["--units", "3", "--epochs", "3", "--quiet"];
    assert!(train(&data, &one, &short).status.success());
    let output = train(&data, &three, &[&short[..], &["--seeds", "3"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    let model = three.join("model.safetensors");
    let evaluated = stdout(&with_model("evaluate", &[&model, &data], &["--test-fraction", "0.2"]));
    assert_eq!(rmse(&evaluated, "model"), rmse(&text, "3 seeds of LSTM(3)"), "{text}");
    let summary = stdout(&with_model("summary", &[&model], &[]));
    assert!(summary.contains("lstm_2") && summary.contains("average"), "{summary}");
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    for seeds in ["0", "101"] {
        assert_error(&train(&data, &three, &[&short[..], &["--seeds", seeds]].concat()), &["seeds", "1 to 100"]);
    }
}

#[test]
fn a_search_lists_combinations_by_their_validation_error() {
    let folder = tempfile::tempdir().unwrap();
    let data = monthly(&folder);
    let search = |more: &[&str]| {
        let short = ["--epochs", "2", "--try-units", "2,3", "--try-layers", "1"];
        program().arg("search").arg(&data).args(short).args(more).output().unwrap()
    };
    let output = search(&["--windows", "6,12"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("validation error, 12 steps ahead") && text.contains("The best: fused-rnn train"), "{text}");
    let errors: Vec<f64> = text.lines().skip(3).map_while(|l| l.split_whitespace().nth(3)?.parse().ok()).collect();
    assert!(errors.len() == 4 && errors.windows(2).all(|pair| pair[0] <= pair[1]), "{text}");
    assert_error(&search(&["--window", "5"]), &["--window", "--windows"]);
    assert_error(&search(&["--validation-fraction", "0"]), &["validation part"]);
    assert_error(&search(&["--windows", "1000"]), &["too few rows"]);
}

/// Whether there is a promotion in a month, in no order.
fn promoted_in(t: usize) -> usize {
    usize::from((t as u32).wrapping_mul(2_654_435_761) >> 16 & 3 == 0)
}

/// Months in which a column that is known before says what comes.
fn promoted(folder: &TempDir, rows: std::ops::Range<usize>, known: usize) -> PathBuf {
    let promotion = |t: usize| promoted_in(t);
    let row = |t: usize| {
        let noise = (t * 7919 % 101) as f64 / 101.0;
        let value = if t < known { format!("{:.3}", 50.0 + 20.0 * promotion(t) as f64 + noise) } else { String::new() };
        format!("{}-{:02}-01,{},{value}\n", 2000 + t / 12, t % 12 + 1, promotion(t))
    };
    let text = std::iter::once("month,promotion,sales\n".to_owned()).chain(rows.map(row)).collect::<String>();
    csv(folder, text.as_bytes())
}

#[test]
fn known_columns_are_of_the_future() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let options = ["--units", "3", "--epochs", "3", "--horizon", "4", "--season", "1", "--known", "promotion"];
    let data = promoted(&folder, 0..120, 120);
    let output = train(&data, &out, &options);
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("of column sales, with promotion known ahead"), "{text}");
    let whole = &text[text.find(", 4 steps ahead").unwrap()..];
    assert!(rmse(whole, "LSTM(3)") < 0.5 * rmse(whole, "ridge on lags"), "{text}");
    let backtest = program().arg("backtest").arg(&data).args(options).args(["--origins", "2"]).output().unwrap();
    assert!(backtest.status.success(), "{}", stderr(&backtest));
    assert!(stdout(&with_model("summary", &[&model], &[])).contains("Reads promotion a horizon ahead"));
    assert!(with_model("evaluate", &[&model, &data], &[]).status.success());
    assert_error(
        &with_model("predict", &[&model, &data], &[]),
        &["data.csv", "0 rows after the last value of column sales", "promotion", "leave sales empty"],
    );
    let with_future = promoted(&folder, 0..124, 120);
    assert!(with_model("predict", &[&model, &with_future], &[]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    let values: Vec<f64> = rows.lines().skip(1).map(|row| row.split(',').nth(1).unwrap().parse().unwrap()).collect();
    assert!(rows.contains("\n2010-01-01,") && values.len() == 4, "{rows}");
    for (t, value) in (120..).zip(values) {
        let truth = 50.5 + 20.0 * promoted_in(t) as f64;
        assert!((value - truth).abs() < 3.0, "{t}: {value}, {truth}");
    }
    assert_error(&with_model("predict", &[&model, &with_future], &["--horizon", "5"]), &["needs 8"]);
    // A row after the end that says nothing of the known column.
    let text = std::fs::read_to_string(&with_future).unwrap();
    let holes = csv(&folder, (text + "2010-05-01,,\n").as_bytes());
    assert_error(&with_model("predict", &[&model, &holes], &[]), &["line 126", "column promotion", "no value"]);
}

#[test]
fn the_calendar_is_read_where_it_helps() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    // 2000-01-01 is a Saturday: nothing is sold at weekends.
    let days = (0..120).map(|t| (2000, t / 28 + 1, t % 28 + 1));
    let open = |day: usize| if (day + 5) % 7 < 5 { 30.0 } else { 0.0 };
    let since_1_january = |month: usize, day: usize| [0, 31, 60, 91, 121][month - 1] + day - 1;
    let row = |(year, month, day): (usize, usize, usize)| {
        let at = since_1_january(month, day);
        format!("{year}-{month:02}-{day:02},{:.2}\n", open(at) + (at * 37 % 17) as f64 / 8.0)
    };
    let text = std::iter::once("day,sold\n".to_owned()).chain(days.map(row)).collect::<String>();
    let data = csv(&folder, text.as_bytes());
    let options = ["--units", "2", "--epochs", "2", "--season", "1", "--horizon", "3"];
    let run = |more: &[&str]| {
        let output = train(&data, &out, &[&options[..], more].concat());
        assert!(output.status.success(), "{}", stderr(&output));
        let text = stdout(&output);
        let whole = text[text.find(", 3 steps ahead").unwrap()..].to_owned();
        (rmse(&whole, "LSTM(2)"), text)
    };
    let (without, said) = run(&["--calendar", "off"]);
    assert!(!said.contains("known ahead"), "{said}");
    let (with, said) = run(&[]);
    assert!(said.contains("with Tuesday, Wednesday, ") && said.contains("Sunday known ahead"), "{said}");
    assert!(with < 0.8 * without, "{with} {without}");
    assert!(with_model("predict", &[&model, &data], &["--horizon", "7"]).status.success());
    let undated = csv(&folder, "a,1\nb,2\n".repeat(60).as_bytes());
    assert_error(&with_model("predict", &[&model, &undated], &["--column", "2"]), &["days of the week"]);
    assert_error(&train(&monthly(&folder), &out, &["--calendar", "on"]), &["--calendar on", "dates of days"]);
}

/// Sales of shops, one below the other, each of its own size.
pub fn shops(folder: &TempDir, shops: &[(&str, f64, usize)]) -> PathBuf {
    let season = [1.0, 0.9, 1.1, 1.05, 1.0, 1.2, 1.4, 1.35, 1.1, 0.95, 0.85, 1.0];
    let mut text = "shop,month,sales\n".to_owned();
    for (name, size, count) in shops {
        for t in 0..*count {
            let noise = ((t * 7919 % 101) as f64 / 101.0 - 0.5) * 0.04;
            let value = size * (1.0 + 0.01 * t as f64) * season[t % 12] * (1.0 + noise);
            text += &format!("{name},{}-{:02}-01,{value:.3}\n", 2000 + t / 12, t % 12 + 1);
        }
    }
    csv(folder, text.as_bytes())
}

#[test]
fn known_columns_of_text_and_of_panels() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    // Days of shops of other sizes; nothing is written where there is no promotion. The last seven have no sales yet.
    let text = |shops: &[(&str, f64)], known: &str| {
        let mut text = "shop,day,promotion,sold\n".to_owned();
        for (shop, size) in shops {
            for t in 0..127 {
                let promotion = ["", [known, "poster"][t % 2]][promoted_in(t)];
                let sold = size * (5.0 + 2.0 * promoted_in(t) as f64 + (t * 7919 % 101) as f64 / 1000.0);
                let sold = if t < 120 { format!("{sold:.4}") } else { String::new() };
                text += &format!("{shop},2000-{:02}-{:02},{promotion},{sold}\n", 1 + t / 28, 1 + t % 28);
            }
        }
        text
    };
    let shops = [("north", 1.0), ("south", 100.0)];
    let options = ["--units", "3", "--epochs", "3", "--horizon", "7", "--season", "1"];
    let options = [&options[..], &["--panel", "shop", "--known", "promotion"]].concat();
    let data = csv(&folder, text(&shops, "flyer").as_bytes());
    let output = train(&data, &out, &[&options[..], &["--calendar", "off"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let said = stdout(&output);
    assert!(
        said.contains("2 series of column sold, with promotion=flyer, promotion=poster known ahead, 240 values"),
        "{said}"
    );
    let whole = &said[said.find(", 7 steps ahead").unwrap()..];
    assert!(rmse(whole, "LSTM(3)") < 0.5 * rmse(whole, "ridge on lags"), "{said}");
    assert!(with_model("evaluate", &[&model, &data], &[]).status.success());
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert_eq!(rows.lines().count(), 15, "{rows}");
    for (i, row) in rows.lines().skip(1).enumerate() {
        let (t, size) = (120 + i % 7, shops[i / 7].1);
        let value: f64 = row.split(',').nth(2).unwrap().parse().unwrap();
        let truth = 5.05 + 2.0 * promoted_in(t) as f64;
        assert!((value / size - truth).abs() < 0.4, "{row}: {truth}");
    }
    // Without the days to come, with a promotion that the model does not know, and with the calendar too.
    let new = csv(&folder, text(&shops, "flyer").replacen("flyer", "fair", 1).as_bytes());
    assert_error(&with_model("predict", &[&model, &new], &[]), &["fair", "promotion"]);
    let ended = text(&shops, "flyer").lines().filter(|row| !row.ends_with(',')).collect::<Vec<_>>().join("\n");
    let ended = csv(&folder, ended.as_bytes());
    assert_error(&with_model("predict", &[&model, &ended], &[]), &["0 rows after the last value", "promotion=flyer"]);
    let data = csv(&folder, text(&shops, "flyer").as_bytes());
    let calendar = train(&data, &out, &[&options[..], &["--calendar", "on"]].concat());
    assert!(calendar.status.success(), "{}", stderr(&calendar));
    assert!(stdout(&calendar).contains("with promotion=flyer, promotion=poster, Tuesday"), "{}", stdout(&calendar));
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    // Of one series just so.
    let data = csv(&folder, text(&shops[..1], "flyer").replace("north,", "").replace("shop,", "").as_bytes());
    let alone: Vec<&str> = options.iter().copied().filter(|option| !["--panel", "shop"].contains(option)).collect();
    let output = train(&data, &out, &alone);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
}

#[test]
fn one_model_of_several_series() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    let data = shops(&folder, &[("north", 10.0, 96), ("south", 1000.0, 84), ("new", 1.0, 9)]);
    let options = ["--units", "3", "--epochs", "3", "--panel", "shop"];
    let output = train(&data, &out, &[&options[..], &["--seeds", "2"]].concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let text = stdout(&output);
    assert!(text.contains("2 series of column sales, 180 values: north, south"), "{text}");
    assert!(stderr(&output).contains("1 series is too short, and left out: new"), "{}", stderr(&output));
    assert!(text.contains("test error of 2 series, 12 steps ahead") && text.contains("for 2 of 2 series"), "{text}");
    let whole = &text[text.find(", 12 steps ahead").unwrap()..];
    let mase = |name: &str| rmse(whole, name);
    assert!(mase("2 seeds of LSTM(3)") < mase("seasonal naive"), "{text}");
    let picture = std::fs::read_to_string(out.join("forecast.svg")).unwrap();
    assert!(picture.contains("forecast and truth of sales of north"), "{picture}");

    let evaluated = stdout(&with_model("evaluate", &[&model, &shops(&folder, &[("north", 10.0, 96)])], &[]));
    assert!(evaluated.contains("error of 1 series, 12 steps ahead"), "{evaluated}");
    // A series that the model has not seen has a scale of its own.
    let data = shops(&folder, &[("north", 10.0, 96), ("west", 5.0, 60)]);
    assert!(with_model("predict", &[&model, &data], &["--series", "west"]).status.success());
    let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
    assert!(rows.starts_with("shop,month,sales,lower 80 %,") && rows.lines().count() == 25, "{rows}");
    let west = rows.lines().find(|row| row.starts_with("west,2005-01-01,")).unwrap();
    let value: f64 = west.split(',').nth(2).unwrap().parse().unwrap();
    assert!((value / 8.0 - 1.0).abs() < 0.1, "{west}");
    assert!(std::fs::read_to_string(out.join("prediction.svg")).unwrap().contains("forecast of sales of west"));
    assert!(stdout(&with_model("summary", &[&model], &[])).contains("series that column shop names: north, south"));

    assert_error(&with_model("predict", &[&model, &data], &["--series", "east"]), &["series", "north, west", "east"]);
    assert_error(&with_model("predict", &[&model, &data], &["--column", "sales"]), &["column", "series"]);
    for (more, parts) in [
        (&["--columns", "sales"][..], &["--columns", "one column"][..]),
        (&["--window", "500"], &["too few rows", "none of 2 series", "window 500"]),
        (&["--panel", "store"], &["store", "shop, month, sales"]),
        (&["--horizon", "0"], &["--horizon", "1 or more"]),
    ] {
        let options = if more[0] == "--panel" { &options[..4] } else { &options[..] };
        assert_error(&train(&data, &out, &[options, more].concat()), parts);
    }
    let backtest = program().arg("backtest").arg(&data).args(options).output().unwrap();
    assert_error(&backtest, &["--panel", "one series"]);
    // A gap is filled from its own series.
    let text = std::fs::read_to_string(&data).unwrap();
    let gap = text.find("north,2000-03-01,").unwrap() + "north,2000-03-01,".len();
    let end = gap + text[gap..].find('\n').unwrap();
    std::fs::write(&data, format!("{}{}", &text[..gap], &text[end..])).unwrap();
    assert_error(&train(&data, &out, &options), &["line 4", "--gaps drop, interpolate"]);
    let filled = train(&data, &out, &[&options[..], &["--gaps", "interpolate"]].concat());
    assert!(filled.status.success(), "{}", stderr(&filled));
}
