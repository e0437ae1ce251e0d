//! What a file leaves open: rows without a value yet, columns that are not told, dates and hours that could be read in two ways.

use std::path::Path;

use super::command::{assert_error, csv, program, stderr, stdout, train, with_model};
use super::forecasts::shops;

const SHORT: [&str; 8] = ["--units", "2", "--window", "4", "--epochs", "1", "--season", "1"];

/// Rows of days of 2021, with a number of the day that never counts.
fn days(count: usize, row: impl Fn(String, usize) -> String) -> String {
    let lengths = [31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let all =
        (1..).zip(lengths).flat_map(|(month, length)| (1..=length).map(move |day| format!("2021-{month:02}-{day:02}")));
    all.take(count).enumerate().map(|(i, date)| row(date, i) + "\n").collect()
}

fn value(i: usize) -> String {
    format!("{:.2}", 50.0 + (i * 7 % 11) as f64)
}

/// Trains; what was printed and what was noted.
fn run(data: &Path, out: &Path, more: &[&str]) -> (String, String) {
    let output = train(data, out, &[&SHORT[..], more].concat());
    assert!(output.status.success(), "{more:?}: {}", stderr(&output));
    (stdout(&output), stderr(&output))
}

#[test]
fn rows_without_a_value_yet_are_where_forecasts_begin() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = days(72, |date, i| format!("{date},{},{}", i % 3, if i < 60 { value(i) } else { String::new() }));
    let data = csv(&folder, format!("date,price,sales\n{text}").as_bytes());
    for gaps in ["error", "drop", "interpolate", "forward-fill"] {
        let (said, notes) = run(&data, &out, &["--column", "sales", "--gaps", gaps]);
        assert!(said.contains("60 values of column sales, 2021-01-01 to 2021-03-01\n"), "{gaps}: {said}");
        for part in ["last 12 rows, from line 62 (2021-03-02) on", "forecasts begin there", "--known price"] {
            assert!(notes.contains(part), "{part:?} is not in {notes}");
        }
        let model = out.join("model.safetensors");
        assert!(with_model("predict", &[&model, &data], &["--horizon", "2"]).status.success());
        let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
        assert!(rows.lines().nth(1).unwrap().starts_with("2021-03-02,"), "{rows}");
    }
    // They are the future of a column that is known.
    let (_, notes) = run(&data, &out, &["--column", "sales", "--known", "price"]);
    assert!(!notes.contains("left out"), "{notes}");
    // A gap before is still one.
    let text = std::fs::read_to_string(&data).unwrap().replacen(&format!(",{}\n", value(4)), ",\n", 1);
    let data = csv(&folder, text.as_bytes());
    assert_error(
        &train(&data, &out, &[&SHORT[..], &["--column", "sales"]].concat()),
        &["line 6", "1 value of 60 is missing"],
    );
    // An input that ends before the series does.
    let text = days(60, |date, i| format!("{date},{},{}", if i < 57 { "1" } else { "" }, value(i)));
    let data = csv(&folder, format!("date,price,sales\n{text}").as_bytes());
    let columns = ["--columns", "price,sales", "--horizon", "2"];
    assert_error(
        &train(&data, &out, &[&SHORT[..], &columns].concat()),
        &["line 59", "price", "at the end, from here on"],
    );
    let (said, notes) = run(&data, &out, &[&columns[..], &["--gaps", "interpolate"]].concat());
    assert!(
        said.contains("57 values") && notes.contains("the last 3 rows are left out, for column price"),
        "{said}{notes}"
    );
    // Each series of a panel by its own name; a series without any is refused by it.
    let data = shops(&folder, &[("north", 10.0, 60), ("south", 20.0, 60)]);
    let text = std::fs::read_to_string(&data).unwrap();
    let (north, south) = text.split_at(text.find("south").unwrap());
    let bare = |line: &str| format!("{},\n", &line[..line.rfind(',').unwrap()]);
    let (last, kept): (Vec<_>, Vec<_>) = south.lines().enumerate().partition(|(i, _)| *i >= 58);
    let kept: String = kept.iter().map(|(_, line)| format!("{line}\n")).collect();
    let last: String = last.iter().map(|(_, line)| bare(line)).collect();
    let data = csv(&folder, format!("{north}{kept}{last}").as_bytes());
    let panel = ["--panel", "shop", "--horizon", "2"];
    let (_, notes) = run(&data, &out, &panel);
    assert_eq!(notes.matches("have no value").count(), 1, "{notes}");
    assert!(
        notes.contains("last 2 rows, from line 120 (2004-11-01) on, have no value of column sales of south"),
        "{notes}"
    );
    assert!(!notes.contains("--known"), "the names of the series are not known beforehand: {notes}");
    let none: String = south.lines().map(bare).collect();
    let data = csv(&folder, format!("{north}{none}").as_bytes());
    assert_error(&train(&data, &out, &panel), &["column sales of south has no values"]);
}

#[test]
fn known_rows_go_on_where_the_values_end() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let row = |date: String, i: usize| format!("{date},{},{}", i % 3, if i < 60 { value(i) } else { String::new() });
    let all = days(75, row);
    let without = |left_out: std::ops::Range<usize>| {
        let kept = all.lines().enumerate().filter(|(i, _)| !left_out.contains(i)).map(|(_, line)| format!("{line}\n"));
        format!("date,price,sales\n{}", kept.collect::<String>())
    };
    let options = [&SHORT[..], &["--known", "price", "--horizon", "3"]].concat();
    let model = out.join("model.safetensors");
    let data = csv(&folder, without(0..0).as_bytes());
    run(&data, &out, &["--known", "price", "--horizon", "3"]);
    assert!(with_model("predict", &[&model, &data], &[]).status.success());
    // The hole is at the border, or behind it.
    for (hole, line, expected, got) in
        [(60..65, "line 62", "2021-03-02", "2021-03-07"), (62..64, "line 64", "2021-03-04", "2021-03-06")]
    {
        let data = csv(&folder, without(hole).as_bytes());
        for output in [train(&data, &out, &options), with_model("predict", &[&model, &data], &[])] {
            assert_error(&output, &["data.csv", line, &format!("expected {expected}"), &format!("got {got}")]);
        }
        // As asked for.
        assert!(with_model("predict", &[&model, &data], &["--sort=no"]).status.success());
    }
    // Holes like that are there elsewhere, and are said.
    let kept = all.lines().enumerate().filter(|(i, _)| !(20..22).contains(i) && !(60..62).contains(i));
    let text: String = kept.map(|(_, line)| format!("{line}\n")).collect();
    let data = csv(&folder, format!("date,price,sales\n{text}").as_bytes());
    let (_, notes) = run(&data, &out, &["--known", "price", "--horizon", "3"]);
    assert!(notes.contains("4 days are missing at 2 places"), "{notes}");
    // Another distance than before.
    let clock = |date: String, i: usize| format!("{date} 00:00,{},{}", i % 3, value(i));
    let data = csv(&folder, format!("date,price,sales\n{}2021-03-02 06:00,1,\n", days(60, clock)).as_bytes());
    assert_error(&train(&data, &out, &options), &["line 62", "expected 2021-03-02 00:00", "got 2021-03-02 06:00"]);
}

#[test]
fn what_is_made_up_or_left_out_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = days(90, |date, i| {
        format!("{date},{},{}", ["sun", "rain", ""][i % 3], if i % 2 == 0 { value(i) } else { String::new() })
    });
    let data = csv(&folder, format!("date,weather,visits\n{text}").as_bytes());
    let (_, notes) = run(&data, &out, &["--gaps", "interpolate"]);
    assert!(notes.contains("44 of 89 values, 49 %, are missing and made up by --gaps interpolate"), "{notes}");
    let text = days(91, |date, i| format!("{date},{},{}", ["sun", "rain", ""][i % 3], value(i)));
    let data = csv(&folder, format!("date,weather,visits\n{text}").as_bytes());
    let columns = ["--columns", "weather,visits", "--horizon", "1"];
    let refused = train(&data, &out, &[&SHORT[..], &columns].concat());
    assert_error(&refused, &["line 4", "column weather: 30 cells of 91 are empty", "--known", "--gaps forward-fill"]);
    assert!(!stderr(&refused).contains("weather=rain"));
    let (_, notes) = run(&data, &out, &[&columns[..], &["--gaps", "drop"]].concat());
    assert!(
        notes.contains("30 of 91 rows are left out by --gaps drop") && notes.contains("no longer evenly spaced"),
        "{notes}"
    );
    // There is nothing between two texts.
    let (said, _) = run(&data, &out, &[&columns[..], &["--gaps", "interpolate"]].concat());
    let filled = days(91, |date, i| format!("{date},{},{}", ["sun", "rain", "rain"][i % 3], value(i)));
    let data = csv(&folder, format!("date,weather,visits\n{filled}").as_bytes());
    let (same, _) = run(&data, &out, &columns);
    let errors = |text: &str| text[text.find("test error").unwrap()..].lines().take(6).collect::<Vec<_>>().join("\n");
    assert_eq!(errors(&said), errors(&same));
}

#[test]
fn categories_of_the_future_alone_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let row = |date: String, i: usize| {
        let promotion = if i == 62 { "maybe" } else { ["yes", "no"][i % 2] };
        format!("{date},{promotion},{}", if i < 60 { value(i) } else { String::new() })
    };
    let data = csv(&folder, format!("date,promo,sales\n{}", days(66, row)).as_bytes());
    let known = [&SHORT[..], &["--known", "promo", "--horizon", "3"]].concat();
    assert_error(&train(&data, &out, &known), &["line 64", "column promo", "\"maybe\"", "nothing can be learned"]);
}

#[test]
fn the_column_to_forecast_is_no_counter_and_not_known() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    for name in ["id", "No", "nr", "row", "n", "#", "obs", "t", "step", "seq", "Unnamed: 0", ""] {
        let text = days(60, |date, i| format!("{},{date},{}", value(i), i + 1));
        let data = csv(&folder, format!("value,date,{name}\n{text}").as_bytes());
        let (said, notes) = run(&data, &out, &[]);
        assert!(said.contains("of column value,") && !notes.contains("counts"), "{name}: {said}{notes}");
    }
    let text = days(60, |date, i| format!("{},{date},{}", value(i), i + 1));
    let data = csv(&folder, format!("value,date,visits\n{text}").as_bytes());
    let (said, notes) = run(&data, &out, &[]);
    assert!(said.contains("of column visits"), "{said}");
    assert!(
        notes.contains("column visits only counts the rows: 1, 2, 3, …") && notes.contains("such as value"),
        "{notes}"
    );
    // What does not grow by one is no counter.
    let text = days(60, |date, i| format!("{},{date},{}", value(i), i * i));
    let data = csv(&folder, format!("value,date,n\n{text}").as_bytes());
    assert!(run(&data, &out, &[]).0.contains("of column n,"));
    // The future of the target is not known.
    let text = days(60, |date, i| format!("{date},{},{}", i % 3, value(i)));
    let data = csv(&folder, format!("date,price,sales\n{text}").as_bytes());
    let known = [&SHORT[..], &["--known", "sales"]].concat();
    assert_error(&train(&data, &out, &known), &["column sales", "--known sales", "--column"]);
    run(&data, &out, &["--known", "sales", "--column", "price"]);
    let text = days(60, |date, i| format!("a,{date},{},{}", i % 3, value(i)))
        + &days(60, |date, i| format!("b,{date},{},{}", i % 3, value(i)));
    let data = csv(&folder, format!("shop,date,price,sales\n{text}").as_bytes());
    assert_error(&train(&data, &out, &[&known[..], &["--panel", "shop"]].concat()), &["--known sales", "--column"]);
}

#[test]
fn an_order_that_the_dates_cannot_have_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let text = days(60, |date, i| format!("{}/{}/2021,{}", &date[8..], &date[5..7], value(i)));
    let data = csv(&folder, format!("date,v\n{text}").as_bytes());
    let told = [&SHORT[..], &["--dates", "month-first"]].concat();
    assert_error(
        &train(&data, &out, &told),
        &["data.csv, line 14", "\"13/01/2021\"", "month-first", "use --dates day-first"],
    );
    run(&data, &out, &["--dates", "day-first"]);
}

#[test]
fn hours_beside_dates_are_times_not_series() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let model = out.join("model.safetensors");
    type Hour = fn(usize) -> String;
    let kinds: [(&str, Hour, [&str; 2]); 3] = [
        ("hour", |hour| (hour + 1).to_string(), ["2021-01-05 01:00", "2021-01-05 02:00"]),
        ("clock", |hour| format!("{:02}:00", hour + 1), ["2021-01-05 01:00", "2021-01-05 02:00"]),
        ("time", |hour| format!("{hour:02}:00-{:02}:00", hour + 1), ["2021-01-05 00:00", "2021-01-05 01:00"]),
    ];
    for (name, hour, next) in kinds {
        let text = days(4, |date, day| {
            (0..24).map(|at| format!("{date},{},{}", hour(at), value(24 * day + at))).collect::<Vec<_>>().join("\n")
        });
        let data = csv(&folder, format!("date,{name},load\n{text}").as_bytes());
        let (said, notes) = run(&data, &out, &[]);
        assert!(said.contains("96 values of column load") && !notes.contains("missing"), "{said}{notes}");
        assert!(with_model("predict", &[&model, &data], &["--horizon", "2"]).status.success());
        let rows = std::fs::read_to_string(out.join("prediction.csv")).unwrap();
        let labels: Vec<&str> = rows.lines().skip(1).take(2).map(|row| row.split(',').next().unwrap()).collect();
        assert_eq!(labels, next, "{name}");
    }
}

#[test]
fn years_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let years: Vec<String> = (1990..2000).map(|year| year.to_string()).collect();
    let numbers = |from: usize| (from..from + 10).map(|v| format!("{v}.5")).collect::<Vec<_>>().join(",");
    let text = format!("country,{}\nAland,{}\nBland,{}\n", years.join(","), numbers(10), numbers(30));
    let data = csv(&folder, text.as_bytes());
    let output = train(&data, &folder.path().join("out"), &SHORT);
    let notes = stderr(&output);
    assert!(notes.contains("a column for each year (1990 to 1999), of which 1999 alone is read"), "{notes}");
    assert!(!notes.contains("--header no"), "{notes}");
    for (command, more) in [("backtest", &["--origins", "2"][..]), ("search", &[])] {
        let output = program().arg(command).arg(&data).args(more).output().unwrap();
        assert_error(&output, &["data.csv", "too few rows"]);
        assert!(stderr(&output).contains("2 values"), "{}", stderr(&output));
    }
}

#[test]
fn numbers_with_something_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let refused = |header: &str, row: &dyn Fn(String, usize) -> String, parts: &[&str]| {
        let data = csv(&folder, format!("{header}\n{}", days(60, row)).as_bytes());
        assert_error(&train(&data, &out, &SHORT), parts);
    };
    let all = "no column holds mostly numbers";
    for unit in [" kg", "°C", "K"] {
        let row = |date, i| format!("{date},{}{unit}", value(i));
        refused(
            "date,v",
            &row,
            &[all, "line 2, column v", "the number 50.00", unit.trim(), "remove such marks and units"],
        );
    }
    refused("date,v", &|date, _| format!("{date},٩٧"), &[all, "line 2", "write numbers with 0 to 9"]);
    refused("\"date,v\"", &|date, i| format!("\"{date},{}\"", value(i)), &[all, "stands in quotes"]);
    for mark in ["*", " p"] {
        let row = |date, i| format!("{date},{}{}", value(i), if i == 6 { mark } else { "" });
        refused("date,v", &row, &["line 8", "the number 59.00", mark.trim(), "remove such marks", "--missing '59.00"]);
    }
    let data = csv(&folder, b"{\"a\":[1,2,3]}\n");
    assert_error(&train(&data, &out, &SHORT), &["JSON"]);
    // The only one below zero.
    let text = days(60, |date, i| format!("{date},{}", if i == 9 { "-1".to_owned() } else { value(i) }));
    let data = csv(&folder, format!("date,v\n{text}").as_bytes());
    let (_, notes) = run(&data, &out, &[]);
    assert!(notes.contains("-1 stands there once (first in line 11)") && notes.contains("--missing"), "{notes}");
}

#[test]
fn a_panel_of_two_keys() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out");
    let of = |region: &str, item: &str| days(40, |date, i| format!("{region},{item},{date},{}", value(i)));
    let text = [of("n", "x"), of("n", "y"), of("s", "x"), of("s", "y")].concat();
    let data = csv(&folder, format!("region,item,date,sales\n{text}").as_bytes());
    let both = train(&data, &out, &[&SHORT[..], &["--panel", "region,item"]].concat());
    assert_error(&both, &["one column", "--where region=… --panel item", "joins"]);
    let one = train(&data, &out, &[&SHORT[..], &["--panel", "region"]].concat());
    assert_error(&one, &["line 42", "2021-01-01", "column item divides", "--where item=x", "joins"]);
    run(&data, &out, &["--panel", "region", "--where", "item=x", "--horizon", "1"]);
    let data = csv(&folder, format!("region,item,date,sales\n{}", text.replacen("s,x", ",x", 1)).as_bytes());
    let empty = train(&data, &out, &[&SHORT[..], &["--panel", "region", "--where", "item=x"]].concat());
    assert_error(&empty, &["line 82", "no key", "leave the row out"]);
}
