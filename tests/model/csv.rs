//! CSV files as people have them: the same values in many dresses, dates, panels, and what is refused.

use fused_rnn::data::{
    ColumnChoice, ColumnsChoice, CsvOptions, CsvTable, DateOrder, DecimalMark, RowOrder, Series, TimeAxis,
};
use fused_rnn::{Error, Result};

use crate::common::Rng;

fn table(bytes: &[u8], options: &CsvOptions) -> Result<CsvTable> {
    CsvTable::parse(bytes, "test.csv", options)
}

fn last(text: &str, options: &CsvOptions) -> Result<Series> {
    table(text.as_bytes(), options)?.series(&ColumnChoice::LastNumeric)
}

fn plain() -> CsvOptions {
    CsvOptions::default()
}

#[track_caller]
fn refused(text: &str, options: &CsvOptions, parts: &[&str]) {
    let error = last(text, options).unwrap_err();
    assert!(matches!(error, Error::Data { .. }), "{error:?}");
    let error = error.to_string();
    for part in parts {
        assert!(error.contains(part), "{part:?} is not in {error}");
    }
}

/// Days, counted from 1970-01-01, to year, month and day.
fn civil(days: i64) -> (i64, i64, i64) {
    let mut year = 1970;
    let mut left = days;
    let is_leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    while left >= 365 + i64::from(is_leap(year)) {
        left -= 365 + i64::from(is_leap(year));
        year += 1;
    }
    let lengths = [31, 28 + i64::from(is_leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    (year, month as i64 + 1, left + 1)
}

const NAMES: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// 60 days from 2020-01-20 on with a value each, one of them missing.
fn days() -> Vec<((i64, i64, i64), Option<f64>)> {
    let value = |i: i64| (i != 17).then(|| 1000.0 + ((i * 37 % 23) as f64 - 11.0) * 125.25);
    (0..60).map(|i| (civil(18_281 + i), value(i))).collect()
}

/// Header, rows joined by a delimiter.
fn file(
    header: &str,
    delimiter: &str,
    date: impl Fn((i64, i64, i64)) -> String,
    value: impl Fn(f64) -> String,
    gap: &str,
) -> String {
    let row = |(day, number): &((i64, i64, i64), Option<f64>)| {
        format!("{}{delimiter}{}\n", date(*day), number.map_or_else(|| gap.to_owned(), &value))
    };
    format!("{}\n{}", header.replace(';', delimiter), days().iter().map(row).collect::<String>())
}

fn thousands(value: f64, group: &str, mark: &str) -> String {
    let text = format!("{:.2}", value.abs());
    let (whole, decimals) = text.split_once('.').unwrap();
    let (front, back) = whole.split_at(whole.len().saturating_sub(3));
    let whole = if front.is_empty() { back.to_owned() } else { format!("{front}{group}{back}") };
    format!("{}{whole}{mark}{decimals}", if value < 0.0 { "-" } else { "" })
}

#[test]
fn the_same_values_in_every_dress() {
    let iso = |(y, m, d): (i64, i64, i64)| format!("{y}-{m:02}-{d:02}");
    let german = |(y, m, d): (i64, i64, i64)| format!("{d:02}.{m:02}.{y}");
    let american = |(y, m, d): (i64, i64, i64)| format!("{m}/{d}/{y}");
    let british = |(y, m, d): (i64, i64, i64)| format!("{d:02}/{m:02}/{y}");
    let plain_number = |v: f64| format!("{v:.2}");
    let comma = |v: f64| plain_number(v).replace('.', ",");
    let standard = file("date;v", ",", iso, plain_number, "");
    let utf16 = |text: &str, little: bool, mark: bool| -> Vec<u8> {
        let units = mark.then_some(0xfeff).into_iter().chain(text.encode_utf16());
        units.flat_map(|unit: u16| if little { unit.to_le_bytes() } else { unit.to_be_bytes() }).collect()
    };
    let latin1 = |text: &str| text.chars().map(|c| u8::try_from(u32::from(c)).unwrap()).collect::<Vec<u8>>();
    let umlauts = standard.replace("date,v", "Datum,Höhe");
    let quoted = |text: &str, between: &str| -> String {
        text.lines()
            .map(|line| line.split(',').map(|cell| format!("\"{cell}\"")).collect::<Vec<_>>().join(between) + "\n")
            .collect()
    };
    let missing = |marker: &str| file("date;v", ",", iso, plain_number, marker);
    let dresses: Vec<(&str, Vec<u8>)> = vec![
        ("plain", standard.clone().into()),
        ("CR LF", standard.replace('\n', "\r\n").into()),
        ("CR", standard.replace('\n', "\r").into()),
        ("blank lines", standard.replace('\n', "\n\n").into()),
        ("byte order mark", [b"\xef\xbb\xbf", standard.as_bytes()].concat()),
        ("UTF-16, little", utf16(&standard, true, true)),
        ("UTF-16, big", utf16(&standard, false, true)),
        ("UTF-16 without a mark", utf16(&standard, true, false)),
        ("UTF-16 with umlauts", utf16(&umlauts, false, true)),
        ("Latin-1", latin1(&umlauts)),
        ("semicolon", standard.replace(',', ";").into()),
        ("tab", standard.replace(',', "\t").into()),
        ("bar", standard.replace(',', "|").into()),
        ("space after the comma", standard.replace(',', ", ").into()),
        ("spaces around", standard.replace(',', " , ").into()),
        ("quotes", quoted(&standard, ",").into()),
        ("quotes after spaces", quoted(&standard, ", ").into()),
        ("sep=,", format!("sep=,\n{standard}").into()),
        ("sep=; and CR LF", format!("sep=;\n{}", standard.replace(',', ";")).replace('\n', "\r\n").into()),
        ("decimal comma", file("date;v", ";", iso, comma, "").into()),
        (
            "decimal comma in quotes",
            quoted(&file("date;v", "|", iso, plain_number, ""), ",").replace('|', "\",\"").replace('.', ",").into(),
        ),
        ("German", file("Datum;Wert", ";", german, |v| thousands(v, ".", ","), "").into()),
        ("Swiss", file("Datum;Wert", ";", german, |v| thousands(v, "'", "."), "").into()),
        ("French", latin1(&file("date;v", ";", british, |v| thousands(v, "\u{a0}", ","), ""))),
        ("thousands", file("date;v", ",", iso, |v| format!("\"{}\"", thousands(v, ",", ".")), "").into()),
        (
            "dollars",
            file("date;v", ",", iso, |v| format!("\"${}\"", thousands(v, ",", ".")).replace("$-", "-$"), "").into(),
        ),
        (
            "accounting",
            file("date;v", ",", iso, |v| if v < 0.0 { format!("({:.2})", -v) } else { plain_number(v) }, "").into(),
        ),
        ("euros", file("date;v", ";", iso, |v| format!("{} €", comma(v)), "").into()),
        ("percent", file("date;v", ",", iso, |v| format!("{v:.2}%"), "").into()),
        ("minus sign", file("date;v", ",", iso, |v| plain_number(v).replace('-', "\u{2212}"), "").into()),
        ("exponents", file("date;v", ",", iso, |v| format!("{v:e}"), "").into()),
        ("NA", missing("NA").into()),
        ("#N/A", missing("#N/A").into()),
        ("None", missing("None").into()),
        ("<NA>", missing("<NA>").into()),
        ("nan", missing("nan").into()),
        ("a title", format!("Sales of the shop\nin units\n\n{standard}").into()),
        ("a title filled up", format!("Sales of the shop,\n,\n{standard}").into()),
        ("a footer", format!("{standard}\nSource: the shop\n").into()),
        ("a footer filled up", format!("{standard}Source: the shop,\n,\n").into()),
        ("no header", standard.split_once('\n').unwrap().1.to_owned().into()),
        ("pandas's Series", standard.replace("date,v", ",0").into()),
        ("header with a year", standard.replace("date,v", "date,2019").into()),
        ("R", {
            let row = |(i, line): (usize, &str)| if i == 0 { format!("{line}\n") } else { format!("row{i},{line}\n") };
            standard.lines().enumerate().map(row).collect::<String>().into()
        }),
        ("commas at the ends", {
            let row = |(i, line): (usize, &str)| if i == 0 { format!("{line}\n") } else { format!("{line},\n") };
            standard.lines().enumerate().map(row).collect::<String>().into()
        }),
        ("comments", format!("# from the station, in the valley, of 2020\n# units: m\n{standard}").into()),
        ("blank lines with spaces", format!("{standard}  \n \n").into()),
        ("many comments", {
            let comments: String = (0..40).map(|i| format!("# line {i}\n#,,,,\n")).collect();
            format!("{comments}{standard}").into()
        }),
        (
            "comments of a cell less",
            format!("# two, cells\n{}", file("date;note;v", ",", |day| format!("{},x", iso(day)), plain_number, ""))
                .into(),
        ),
        ("a commented header", format!("# from the station, in the valley\n#{standard}").into()),
        ("spaces that align", {
            let line = |line: &str| format!("  {}\n", line.replace(',', "   ").trim_end());
            let text: String = missing("NA").lines().map(line).collect();
            text.into()
        }),
        ("empty rows at the end", format!("{standard},\n,\n").into()),
        ("American dates", file("date;v", ",", american, plain_number, "").into()),
        ("British dates", file("date;v", ",", british, plain_number, "").into()),
        (
            "short years",
            file("date;v", ",", |(y, m, d)| format!("{m:02}/{d:02}/{:02}", y % 100), plain_number, "").into(),
        ),
        (
            "names of months",
            file("date;v", ",", |(y, m, d)| format!("{d}-{}-{y}", NAMES[m as usize - 1]), plain_number, "").into(),
        ),
        (
            "names first",
            file("date;v", ",", |(y, m, d)| format!("{}-{d}-{y}", NAMES[m as usize - 1]), plain_number, "").into(),
        ),
        ("compact dates", file("date;v", ",", |(y, m, d)| format!("{y}{m:02}{d:02}"), plain_number, "").into()),
        ("midnights", file("date;v", ",", |(y, m, d)| format!("{y}/{m:02}/{d:02} 00:00"), plain_number, "").into()),
        (
            "offsets",
            file("date;v", ",", |(y, m, d)| format!("{y}-{m:02}-{d:02} 00:00:00+00:00"), plain_number, "").into(),
        ),
        (
            "ISO with Z",
            file("date;v", ",", |(y, m, d)| format!("{y}-{m:02}-{d:02}T00:00:00Z"), plain_number, "").into(),
        ),
        (
            "days of the week",
            file(
                "date;v",
                ";",
                |(y, m, d)| {
                    let day = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
                    let count = days().iter().position(|(own, _)| *own == (y, m, d)).unwrap();
                    format!("{}, {d} {} {y}", day[(18_281 + count) % 7], NAMES[m as usize - 1])
                },
                plain_number,
                "",
            )
            .into(),
        ),
        (
            "year, month, day",
            file("year;month;day;v", ",", |(y, m, d)| format!("{y},{m},{d}"), plain_number, "").into(),
        ),
    ];
    let values: Vec<_> = days().into_iter().map(|(_, value)| value).collect();
    let positions: Vec<f64> = {
        let axis = TimeAxis::new(&days().into_iter().map(|(day, _)| iso(day)).collect::<Vec<_>>());
        (0..70).map(|i| axis.position(i)).collect()
    };
    for (dress, bytes) in &dresses {
        let told = CsvOptions { delimiter: dress.contains("align").then_some(' '), ..plain() };
        let read = table(bytes, &told).unwrap_or_else(|error| panic!("{dress}: {error}"));
        let series = read.series(&ColumnChoice::LastNumeric).unwrap_or_else(|error| panic!("{dress}: {error}"));
        assert_eq!(series.values, values, "{dress}");
        let axis = TimeAxis::new(&series.labels);
        assert_eq!((0..70).map(|i| axis.position(i)).collect::<Vec<_>>(), positions, "{dress}");
        assert!(axis.is_date(), "{dress}");
        // A file of a few rows is read alike with what is remembered of this one.
        let again = table(bytes, read.options()).and_then(|table| table.series(&ColumnChoice::LastNumeric));
        assert_eq!(again.unwrap_or_else(|error| panic!("{dress}: {error}")), series, "{dress}");
    }
    // Newest first, and in any order, with the option.
    let mut lines: Vec<&str> = standard.lines().skip(1).collect();
    lines.reverse();
    for swap in [false, true] {
        if swap {
            lines.swap(3, 40);
        }
        let text = format!("date,v\n{}\n", lines.join("\n"));
        let sorted = last(&text, &CsvOptions { order: RowOrder::Sort, ..plain() }).unwrap();
        assert_eq!((sorted.values, sorted.lines[0]), (values.clone(), 61));
        let word = if swap { "not in time order" } else { "newest first" };
        refused(&text, &plain(), &["column date", word, "--sort"]);
        assert_eq!(last(&text, &CsvOptions { order: RowOrder::Keep, ..plain() }).unwrap().lines[0], 2);
    }
}

#[test]
fn what_is_told_goes_before_what_is_found_out() {
    let told = |text: &str, options: CsvOptions| last(text, &options).unwrap().values;
    assert_eq!(
        told("a\n1,234\n5,678\n", CsvOptions { delimiter: Some(';'), decimal: Some(DecimalMark::Point), ..plain() }),
        [Some(1234.0), Some(5678.0)]
    );
    assert_eq!(
        told("a;b\nx;1,234\ny;5,678\n", CsvOptions { decimal: Some(DecimalMark::Point), ..plain() }),
        [Some(1234.0), Some(5678.0)]
    );
    assert_eq!(told("a;b\nx;1,234\ny;5,678\n", plain()), [Some(1.234), Some(5.678)]);
    assert_eq!(told("v\n1,5\n2,5\n3,5\n", plain()), [Some(1.5), Some(2.5), Some(3.5)]);
    let points = table(b"a;b\nx;1.234\ny;5.678\n", &plain()).unwrap();
    assert!(points.notes(&[]).concat().contains("--decimal comma"), "{:?}", points.notes(&[]));
    assert_eq!(told("pipe,v\n5\"\",1\n6\" thick,2\n", plain()), [Some(1.0), Some(2.0)]);
    assert_eq!(told("a b\n1 2\n3 4\n", CsvOptions { delimiter: Some(' '), ..plain() }), [Some(2.0), Some(4.0)]);
    assert_eq!(told("5\n6\n7\n", CsvOptions { header: Some(true), ..plain() }), [Some(6.0), Some(7.0)]);
    let header = CsvOptions { header: Some(false), missing: vec!["v".to_owned()], ..plain() };
    assert_eq!(told("t,v\na,1\nb,2\n", header), [None, Some(1.0), Some(2.0)]);
    let missing = CsvOptions { missing: vec!["?".to_owned(), "-999".to_owned()], ..plain() };
    assert_eq!(told("t,v\na,1\nb,?\nc,-999.0\nd,2\n", missing), [Some(1.0), None, None, Some(2.0)]);
    // 1254 is Turkish: ğ is 0xf0.
    let options = CsvOptions { encoding: Some("windows-1254".to_owned()), ..plain() };
    assert_eq!(table(b"t,da\xf0\na,1\n", &options).unwrap().names(), ["t", "dağ"]);
    for (options, part) in [
        (CsvOptions { encoding: Some("klingon".to_owned()), ..plain() }, "unknown encoding \"klingon\""),
        (CsvOptions { delimiter: Some('é'), ..plain() }, "--delimiter"),
        (CsvOptions { delimiter: Some('"'), ..plain() }, "--delimiter"),
        (
            CsvOptions { only: vec![("t".to_owned(), "z".to_owned())], ..plain() },
            "column t: no row has \"z\"; it has a, b",
        ),
        (CsvOptions { only: vec![("u".to_owned(), "z".to_owned())], ..plain() }, "no column u"),
    ] {
        refused("t,v\na,1\nb,2\n", &options, &[part]);
    }
}

#[test]
fn headers() {
    let names = |text: &str| table(text.as_bytes(), &plain()).unwrap().names().to_vec();
    for (text, expected) in [
        (",0\n2020-01-01,5\n2020-01-02,6\n", &["column 1", "0"][..]),
        (",0,1\na,5,6\nb,7,8\n", &["column 1", "0", "1"]),
        ("0,1\n5,6\n7,8\n", &["0", "1"]),
        ("country,1990,1991,1992\nChad,5.2,6.1,7\nPeru,5,6,7\n", &["country", "1990", "1991", "1992"]),
        ("country,1990,1991,1992\nChad,1500,1600,1700\nPeru,15,16,17\n", &["country", "1990", "1991", "1992"]),
        ("x,2\n1,2\n3,4\n", &["x", "2"]),
        ("1990,1991,1992\n5,6,7\n", &["1990", "1991", "1992"]),
        ("1990,1991,1992\n1993,1994,1995\n", &["column 1", "column 2", "column 3"]),
        ("1,2\n3,4\n", &["column 1", "column 2"]),
        ("2020-01-01,NA\n2020-01-02,5\n", &["column 1", "column 2"]),
        ("0,1\n1,6\n2,8\n", &["column 1", "column 2"]),
        ("Peru,5\nChad,6\n", &["column 1", "column 2"]),
        ("date,,v\n2020-01-01,4,5\n", &["date", "column 2", "v"]),
    ] {
        assert_eq!(names(text), expected, "{text}");
    }
    // What is read as names though it has numbers is said.
    let read = table(b",0\n2020-01-01,5\n2020-01-02,6\n", &plain()).unwrap();
    assert!(read.notes(&[]).iter().any(|note| note.contains("line 1") && note.contains("--header no")));
}

#[test]
fn dates_that_may_be_read_in_two_ways() {
    let text = "t,v\n01/02/2020,1\n02/03/2020,2\n04/05/2020,3\n";
    refused(text, &plain(), &["line 2", "column t", "01/02/2020", "--dates day-first"]);
    for (order, next) in [(DateOrder::DayFirst, "2020-02-01"), (DateOrder::MonthFirst, "2020-01-02")] {
        let series = last(text, &CsvOptions { dates: Some(order), ..plain() }).unwrap();
        assert_eq!(series.labels[0], next, "so that the labels say what they are");
    }
    let read = table(b"t,v\n30/01/2020,1\n31/01/2020,2\n", &plain()).unwrap();
    assert_eq!(read.options().dates, Some(DateOrder::DayFirst));
    assert!(read.notes(&[]).iter().any(|note| note.contains("day-first") && note.contains("--dates month-first")));
}

#[test]
fn order_holes_and_dates_that_are_none() {
    let monthly = |skip: &[i64]| {
        let rows = (0..48)
            .filter(|i| !skip.contains(i))
            .map(|i| format!("{}-{:02}-01,{}\n", 1949 + i / 12, i % 12 + 1, i % 7));
        format!("Month,v\n{}", rows.collect::<String>())
    };
    let notes = |text: &str| {
        let read = table(text.as_bytes(), &plain()).unwrap();
        let series = read.series(&ColumnChoice::LastNumeric).unwrap();
        read.notes(std::slice::from_ref(&series))
    };
    assert!(notes(&monthly(&[])).is_empty());
    let said = notes(&monthly(&[5, 6, 30])).concat();
    for part in
        ["column Month", "3 months are missing at 2 places", "1949-05-01 (line 6)", "1949-08-01 (line 7)", "--gaps"]
    {
        assert!(said.contains(part), "{part} is not in {said}");
    }
    refused(
        &monthly(&[]).replace("1949-04-01", "1949-03-01"),
        &plain(),
        &["line 5", "1949-03-01", "line 4", "--sort=no"],
    );
    refused(
        &monthly(&[]).replace("1949-04-01", "1949-03-01"),
        &CsvOptions { order: RowOrder::Sort, ..plain() },
        &["each time needs one row"],
    );
    refused(&(monthly(&[]) + "Total,99\n"), &plain(), &["line 50", "expected a date", "\"Total\"", "--sort=no"]);
    refused(&(monthly(&[]) + "1953-01"), &plain(), &["line 50", "1 cells", "have 2", "--delimiter"]);
    refused("year,v\n2003,1\n2002,2\n2001,3\n", &plain(), &["newest first", "--sort"]);
    let sorted = last("year,v\n2003,1\n2002,2\n2001,3\n", &CsvOptions { order: RowOrder::Sort, ..plain() }).unwrap();
    assert_eq!((sorted.labels.join(" "), sorted.values[0]), ("2001 2002 2003".to_owned(), Some(3.0)));
    // A year and a quarter make a date.
    let series = last("year,quarter,v\n1972,2,1\n1972,3,2\n1972,4,3\n1973,1,4\n", &plain()).unwrap();
    assert_eq!(
        (series.label_name.as_deref(), TimeAxis::new(&series.labels).label(4)),
        (Some("year-quarter"), "1973Q2".to_owned())
    );
    let series = last("year,month,v\n1972,Nov,1\n1972,Dec,2\n1973,Jan,4\n", &plain()).unwrap();
    assert_eq!(TimeAxis::new(&series.labels).label(3), "1973-Feb");
}

#[test]
fn sentinels_are_pointed_out() {
    let with = |value: &str| {
        let rows =
            (0..40).map(|i| if i == 11 { format!("{i},{value}\n") } else { format!("{i},{}\n", 10 + i * i % 13) });
        let text = format!("t,v\n{}", rows.collect::<String>());
        let read = table(text.as_bytes(), &plain()).unwrap();
        read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat()
    };
    for value in ["-999", "9999", "-99.9"] {
        let said = with(value);
        let help = format!("--missing {value}");
        assert!(said.contains("column v") && said.contains("line 13") && said.contains(&help), "{said}");
    }
    for value in ["12", "-8", "99"] {
        assert_eq!(with(value), "", "{value}");
    }
    // The only one below zero; and one that is not on the list, but there again and again.
    let notes = |values: &[i64]| {
        let text = format!("v\n{}", values.iter().map(|value| format!("{value}\n")).collect::<String>());
        let read = table(text.as_bytes(), &plain()).unwrap();
        read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat()
    };
    assert!(notes(&[7, 1189, 300, -200, 12, -200, 80]).contains("-200 stands there 2 times (first in line 5)"));
    assert!(notes(&[7, 8, 5000, 9, 6, 5000, 5000]).contains("--missing 5000"));
    assert_eq!(notes(&[7, 8, 5000, 9, 6, 5001, 5002]), "");
    assert_eq!(notes(&[0, 1, 0, 1, 1, 1, 0]), "");
}

#[test]
fn times_of_day_beside_dates() {
    let hours = |header: &str, row: &dyn Fn(usize, usize) -> String| {
        let rows = (0..72).map(|i| format!("{};{}\n", row(i / 24, i % 24), i * 7 % 31));
        format!("{header};v\n{}", rows.collect::<String>())
    };
    for (text, next, name) in [
        (hours("Date;Time", &|d, h| format!("{:02}/03/2004;{h:02}.00.00", d + 14)), "17/03/2004 00:00:00", "Date Time"),
        (hours("Time;Date", &|d, h| format!("{h:02}:00;2004-03-{:02}", d + 10)), "2004-03-13 00:00", "Date Time"),
        (hours("dteday;season;hr", &|d, h| format!("2011-01-{:02};1;{h}", d + 1)), "2011-01-04 00:00", "dteday hr"),
        (
            hours("No;year;month;day;hour", &|d, h| format!("{};2010;1;{};{h}", d * 24 + h, d + 1)),
            "2010-01-04 00:00",
            "year-month-day-hour",
        ),
    ] {
        let series = last(&text, &plain()).unwrap();
        assert_eq!(series.label_name.as_deref(), Some(name));
        let axis = TimeAxis::new(&series.labels);
        assert_eq!((axis.label(72).as_str(), axis.holes().unwrap().unit), (next, "hours"), "{name}");
        // The hour can be read beside the values, and the dates stay.
        let read = table(text.as_bytes(), &plain()).unwrap();
        if let Some(hour) = read.names().iter().find(|name| ["hr", "hour"].contains(&name.as_str())) {
            let columns = read.columns(&ColumnsChoice::Named(vec![hour.clone(), "v".to_owned()])).unwrap();
            assert_eq!((columns[0].values[25], &columns[0].labels), (Some(1.0), &series.labels));
        }
    }
    // A time of day that each day has one of says nothing of the order.
    let sunrise = "date,sunrise,v\n2020-01-01,08:05,1\n2020-01-02,08:04,2\n2020-01-03,08:04,3\n";
    assert_eq!(last(sunrise, &plain()).unwrap().labels[0], "2020-01-01");
    // Periods as the statistics of the United States have them.
    let periods = "Series ID,Year,Period,Value\nA,2019,M11,1\nA,2019,M12,2\nA,2020,M01,3\n";
    assert_eq!(TimeAxis::new(&last(periods, &plain()).unwrap().labels).label(3), "2020M02");
}

#[test]
fn whole_numbers_that_count_the_rows() {
    let rows = |header: &str, times: &[i64]| {
        let rows = times.iter().enumerate().map(|(i, time)| format!("{time},{}\n", i * i % 17));
        format!("{header}\n{}", rows.collect::<String>())
    };
    for header in ["year,v", ",v", "time,v"] {
        let shuffled = rows(header, &[2003, 2001, 2002, 2000]);
        refused(&shuffled, &plain(), &["line 3", "\"2001\" stands after \"2003\"", "--sort"]);
        let sorted = last(&shuffled, &CsvOptions { order: RowOrder::Sort, ..plain() }).unwrap();
        assert_eq!((sorted.labels.concat(), sorted.lines), ("2000200120022003".to_owned(), vec![5, 3, 4, 2]));
        assert_eq!(last(&shuffled, &CsvOptions { order: RowOrder::Keep, ..plain() }).unwrap().lines[0], 2);
    }
    // Other numbers beside the values have their own order; by name they can be times.
    let speeds = rows("speed,v", &[3, 1, 2, 0]);
    assert_eq!(last(&speeds, &plain()).unwrap().values.len(), 4);
    refused(&speeds, &CsvOptions { time: Some("speed".to_owned()), ..plain() }, &["column speed", "--sort"]);
    // Seasons of years are no fault, but said.
    let text = rows("year,v", &[2000, 2000, 2001, 2001]);
    let read = table(text.as_bytes(), &plain()).unwrap();
    let notes = read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat();
    assert!(notes.contains("column year: 2000 stands in line 2 and in line 3"), "{notes}");
    // What cannot be sorted is not left as it is without a word.
    let sort = CsvOptions { order: RowOrder::Sort, ..plain() };
    refused("name,v\nb,1\na,2\n", &sort, &["line 2", "column name", "\"b\"", "--time"]);
    refused("v\n1\n2\n", &sort, &["no column to sort", "--time"]);
    refused(
        "t,v\na,1\n",
        &CsvOptions { time: Some("u".to_owned()), ..plain() },
        &["no column u; the columns are: t, v"],
    );
    // Of two columns of dates the one that is named.
    let two = "born,seen,v\n1990-01-03,2020-01-01,1\n1980-05-01,2020-01-02,2\n";
    refused(two, &plain(), &["column born", "--sort"]);
    let series = last(two, &CsvOptions { time: Some("seen".to_owned()), ..plain() }).unwrap();
    assert_eq!((series.label_name.as_deref(), series.labels[1].as_str()), (Some("seen"), "2020-01-02"));
    // What looks like a date and is none is said.
    let read = table(b"t,v\n3. Erntemond 12,1\n4. Erntemond 12,2\n", &plain()).unwrap();
    let notes = read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat();
    assert!(notes.contains("\"3. Erntemond 12\" are not read as dates"), "{notes}");
    let read = table("t;v\nFeb 2000;1\nMär 2000;2\n".as_bytes(), &plain()).unwrap();
    let notes = read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat();
    assert!(notes.contains("\"Feb 2000\" are not read as dates"), "{notes}");
}

/// Three shares over twelve months, one under another or month by month.
fn shares(one_by_one: bool) -> String {
    let row = |share: &str, month: i64| {
        format!("{share},{} 1 2000,{}.5\n", NAMES[month as usize], month * 3 + share.len() as i64)
    };
    let keys = ["MSFT", "IBM", "GOOGL"];
    let rows: String = match one_by_one {
        true => (0..12).flat_map(|month| keys.map(|key| row(key, month))).collect(),
        false => keys.iter().flat_map(|key| (0..12).map(move |month| row(key, month))).collect(),
    };
    format!("symbol,date,price\n{rows}")
}

#[test]
fn panels() {
    for one_by_one in [false, true] {
        let text = shares(one_by_one);
        refused(
            &text,
            &plain(),
            &["panel", "column symbol names 3 series (MSFT, IBM, GOOGL)", "--where symbol=MSFT", "--sort=no"],
        );
        let one = last(&text, &CsvOptions { only: vec![("symbol".to_owned(), "IBM".to_owned())], ..plain() }).unwrap();
        assert_eq!((one.values.len(), one.values[1], one.labels[1].as_str()), (12, Some(6.5), "Feb 1 2000"));
        assert_eq!(TimeAxis::new(&one.labels).label(12), "Jan 1 2001");
        let read = table(text.as_bytes(), &plain()).unwrap();
        let all = read.panel("symbol", &ColumnChoice::LastNumeric).unwrap();
        assert_eq!(all.iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["MSFT", "IBM", "GOOGL"]);
        assert_eq!(all[1].1.values, one.values);
        assert_eq!(all[1].1.lines, one.lines);
        let columns = read.panel_columns("symbol", &ColumnsChoice::AllNumeric).unwrap();
        assert_eq!((columns.len(), &columns[2].1[0]), (3, &all[2].1));
        assert!(read.panel("sym", &ColumnChoice::LastNumeric).is_err());
    }
    // Out of order, or without a key, in one of them.
    let text = shares(false).replace("IBM,Feb", "IBM,Dec");
    let error = table(text.as_bytes(), &plain()).unwrap().panel("symbol", &ColumnChoice::LastNumeric).unwrap_err();
    assert!(error.to_string().contains("\"Dec 1 2000\""), "{error}");
    let text = shares(false).replace("IBM,Feb", ",Feb");
    let error = table(text.as_bytes(), &plain()).unwrap().panel("symbol", &ColumnChoice::LastNumeric).unwrap_err();
    assert!(error.to_string().contains("line 15") && error.to_string().contains("no key"), "{error}");
    // Years count as dates; months by name beside them are no keys.
    let by_year = "country,year,gdp\nChad,1990,1\nChad,1991,2\nChad,1992,3\nPeru,1990,4\nPeru,1991,5\nPeru,1992,6\n";
    refused(by_year, &plain(), &["panel", "--where country=Chad"]);
    assert_eq!(
        table(by_year.as_bytes(), &plain()).unwrap().panel("country", &ColumnChoice::LastNumeric).unwrap().len(),
        2
    );
    let one = CsvOptions { only: vec![("country".to_owned(), "Peru".to_owned())], ..plain() };
    assert_eq!(last(by_year, &one).unwrap().labels, ["1990", "1991", "1992"]);
    // Counters that begin again; two columns that are the key together.
    let count = |keys: &[&str]| {
        let rows = keys.iter().flat_map(|key| (1..5).map(move |t| format!("{key},{t},{}\n", t * t)));
        format!("id,t,v\n{}", rows.collect::<String>())
    };
    refused(&count(&["a", "b", "c"]), &plain(), &["panel", "column id names 3 series (a, b, c)", "--where id=a"]);
    refused(&count(&["1", "2"]), &plain(), &["panel", "--where id=1"]);
    let of_months = count(&["Jan", "Feb", "Mar"]);
    assert_eq!(last(&of_months, &plain()).unwrap().values.len(), 12, "days of months are one series");
    let stores: String =
        (0..24).map(|i| format!("2020-01-{:02},{},item {},{}\n", i / 4 + 1, i / 2 % 2 + 1, i % 2, i * 5 % 9)).collect();
    let stores = format!("date,store,item,sales\n{stores}");
    refused(&stores, &plain(), &["columns item and store name 4 series", "--where 'item=item 0' --where store=1"]);
    let only = [("item", "item 0"), ("store", "2")].map(|(name, text)| (name.to_owned(), text.to_owned())).to_vec();
    assert_eq!(last(&stores, &CsvOptions { only, ..plain() }).unwrap().labels.len(), 6);
    let seasons = "year,season,v\n1990,spring,1\n1991,autumn,2\n1992,spring,3\n1993,autumn,4\n";
    assert_eq!(last(seasons, &plain()).unwrap().values.len(), 4);
}

#[test]
fn columns_of_text_are_read_as_categories() {
    let text = "date,weather,v\n2020-01-01,rain,1\n2020-01-02,sun,2\n2020-01-03,,3\n2020-01-04,rain,4\n";
    let read = table(text.as_bytes(), &plain()).unwrap();
    let named = |names: &[&str]| ColumnsChoice::Named(names.iter().map(|name| (*name).to_owned()).collect());
    let columns = read.columns(&named(&["weather", "v"])).unwrap();
    let names: Vec<_> = columns.iter().map(|column| column.name.as_str()).collect();
    assert_eq!(names, ["weather=rain", "weather=sun", "v"]);
    assert_eq!(columns[0].values, [Some(1.0), Some(0.0), None, Some(1.0)]);
    assert_eq!(columns[1].labels[3], "2020-01-04");
    assert_eq!(read.column_references(&named(&["weather", "v"])).unwrap(), names);
    // A file with other categories is no file for a model that knows these two.
    let other = table(text.replace("04,rain", "04,snow").as_bytes(), &plain()).unwrap();
    let error = other.columns(&named(&names)).unwrap_err().to_string();
    assert!(error.contains("line 5") && error.contains("\"snow\"; known are rain, sun"), "{error}");
    let many: String = (0..150).map(|i| format!("{i},text {i},1\n")).collect();
    let error =
        table(format!("t,note,v\n{many}").as_bytes(), &plain()).unwrap().columns(&named(&["note", "v"])).unwrap_err();
    assert!(error.to_string().contains("more than 100"), "{error}");
}

#[test]
fn a_count_of_the_rows_is_no_series() {
    let years: String = (0..9).map(|i| format!("{},{i}.5 kg\n", 2000 + i)).collect();
    let refuse = |text: &str, parts: &[&str]| refused(text, &plain(), parts);
    refuse(&format!("date,weight\n{years}"), &["no column but date", "line 2, column weight: \"0.5 kg\""]);
    refuse(&format!(",weight\n{years}"), &["no column but column 1", "\"0.5 kg\""]);
    let by_name = ColumnChoice::Named("date".to_owned());
    assert!(table(format!("date,weight\n{years}").as_bytes(), &plain()).unwrap().series(&by_name).is_ok());
    // The count may be the last; what falls, has decimals or stands alone is none.
    assert_eq!(last("v,index\n5,1\n4,2\n5,3\n", &plain()).unwrap().name, "v");
    assert_eq!(last("who,time\na,12.5\nb,13\n", &plain()).unwrap().name, "time");
    assert_eq!(last("time\n1\n2\n3\n", &plain()).unwrap().name, "time");
}

#[test]
fn messages_name_the_option_that_helps() {
    for (text, parts) in [
        ("t,v\na,1\nb,?\nc,2\n", &["test.csv, line 3", "column v", "\"?\"", "--missing '?'"][..]),
        ("t;v\na;1,5\nb;2.5\nc;3,5\n", &["line 3", "column v", "\"2.5\"", "--decimal point"]),
        ("t;v\na;1.5\nb;2,5\nc;3.5\n", &["line 3", "column v", "\"2,5\"", "--decimal comma"]),
        ("a b\n1 2\n", &["no column holds mostly numbers", "--delimiter (such as space)"]),
        ("t,v\na,1\nb,\"2\nc,3\n", &["line 3", "a quote that is not closed"]),
        ("t,v\na,1\nb,inf\nc,3\n", &["line 3", "infinite", "--missing inf"]),
        (
            "t,v\n2001,1,50\n2002,-1,05\n2003,7,25\n",
            &["line 3", "-1,05 looks like a number with a decimal comma", "quotes"],
        ),
        ("PK\u{3}\u{4}rest", &["workbook", "as CSV"]),
        ("<!DOCTYPE html>\n<html>", &["web page"]),
        ("t,v\na,1\nb,2,3\nc,4\n", &["line 3", "3 cells", "--delimiter"]),
    ] {
        refused(text, &plain(), parts);
    }
    let error = table(b"\x00\x01\x02\x03text", &plain()).unwrap_err().to_string();
    assert!(error.contains("not text") && error.contains("--encoding"), "{error}");
}

#[test]
fn wide_files_take_no_longer_than_their_cells() {
    let count = 3000;
    let header: Vec<String> = (0..count).map(|i| format!("c{i}")).collect();
    let row = |j: usize| (0..count).map(|i| (i * j % 7).to_string()).collect::<Vec<_>>().join(",");
    let text = format!("{}\n{}\n", header.join(","), (0..8).map(row).collect::<Vec<_>>().join("\n"));
    let started = std::time::Instant::now();
    let columns = table(text.as_bytes(), &plain()).unwrap().columns(&ColumnsChoice::Named(header)).unwrap();
    assert_eq!((columns.len(), columns[5].values[3]), (count, Some(1.0)));
    // Unoptimised it takes a fraction of a second; the cube of the columns took minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}

/// Bytes changed, left out, doubled or cut off, in files of every kind: a series whose parts fit each other, or an error of data.
#[test]
fn damaged_files_are_read_or_refused() {
    let utf16: Vec<u8> = shares(false).encode_utf16().flat_map(u16::to_le_bytes).collect();
    let files: [Vec<u8>; 6] = [
        shares(true).into_bytes(),
        utf16,
        b"sep=;\nDatum;Wert;Art\n01.02.2020;1.234,5;gut\n02.02.2020;(7,5);schlecht\n03.02.2020;5 %;gut\n".to_vec(),
        b"A title\n\ndate, \"v\"\n2020-01-01 00:00:00+01:00, \"1,234.5\"\n2020-01-01 01:00:00+01:00, \"2\"\nSource\n"
            .to_vec(),
        b",1990,1991,1992\na,1,2,3\nb,4,5,6\n".to_vec(),
        b"year\tquarter\tv\n1999\t4\t$5\n2000\t1\t6\n".to_vec(),
    ];
    let pieces: [&[u8]; 20] = [
        b",",
        b";",
        b"\t",
        b"\"",
        b"\n",
        b"\r",
        b" ",
        b"=",
        b"sep=",
        b"-",
        b"/",
        b":",
        b"9999",
        b"0",
        b"Q5",
        b"Feb 30",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\0",
        "\u{2212}é".as_bytes(),
    ];
    let (mut read, mut refused) = (0, 0);
    for (number, file) in files.iter().enumerate() {
        for seed in 0..1500 {
            let mut rng = Rng::new(seed * 10 + number as u64);
            let mut bytes = file.clone();
            for _ in 0..1 + rng.below(3) {
                let at = rng.below(bytes.len() + 1).min(bytes.len());
                let until = (at + rng.below(12)).min(bytes.len());
                match rng.below(5) {
                    0 => bytes.truncate(at),
                    1 if at < bytes.len() => bytes[at] ^= 1 << rng.below(8),
                    2 => drop(bytes.drain(at..until)),
                    3 => {
                        let copy = bytes[at..until].to_vec();
                        bytes.splice(at..at, copy);
                    }
                    _ => drop(bytes.splice(at..until, pieces[rng.below(pieces.len())].iter().copied())),
                }
            }
            let outcome = table(&bytes, &plain()).and_then(|table| {
                let _ = table.panel("symbol", &ColumnChoice::LastNumeric);
                let _ = table.columns(&ColumnsChoice::Named(table.names().to_vec()));
                let series = table.series(&ColumnChoice::LastNumeric)?;
                let _ = table.notes(std::slice::from_ref(&series));
                Ok(series)
            });
            match outcome {
                Ok(series) => {
                    assert_eq!((series.values.len(), series.lines.len()), (series.labels.len(), series.labels.len()));
                    let axis = TimeAxis::new(&series.labels);
                    assert!((0..series.values.len() + 30).map(|i| axis.position(i)).is_sorted());
                    let _ = (axis.label(series.values.len() + 1_000_000), axis.holes());
                    read += 1;
                }
                Err(error) => {
                    assert!(
                        matches!(error, Error::Data { .. }) && error.to_string().starts_with("test.csv"),
                        "{error:?}"
                    );
                    refused += 1;
                }
            }
        }
    }
    assert!(read > 500 && refused > 500, "{read} read, {refused} refused");
}

/// What is read otherwise than it was meant, and would be learned without a word.
#[test]
fn decimal_commas_without_a_header_months_side_by_side_and_uneven_dates() {
    let commas: String =
        (0..40).map(|i| format!("2020-{:02}-01,{},{:02}\n", 1 + i % 12, 90 + i, i * 37 % 100)).collect();
    refused(&commas, &plain(), &["looks like a number with a decimal comma", "--delimiter ','"]);
    let told = CsvOptions { delimiter: Some(','), order: RowOrder::Keep, ..plain() };
    assert_eq!(table(commas.as_bytes(), &told).unwrap().names().len(), 3);
    // A month and a day are no decimals.
    let days: String = (0..40).map(|i| format!("{},{:02},{}.5\n", 2000 + i / 12, 1 + i % 12, i)).collect();
    assert_eq!(last(&days, &plain()).unwrap().values[3], Some(3.5));

    let months = NAMES.join(",");
    let rows: String = (0..9)
        .map(|y| format!("{},{}\n", 1990 + y, (0..12).map(|m| (y * m).to_string()).collect::<Vec<_>>().join(",")))
        .collect();
    let read = table(format!("Year,{months}\n{rows}").as_bytes(), &plain()).unwrap();
    let series = read.series(&ColumnChoice::LastNumeric).unwrap();
    let notes = read.notes(&[series]).concat();
    assert!(notes.contains("a column for each month") && notes.contains("Dec alone"), "{notes}");

    let row =
        |i: i64| format!("2020-{:02}-{:02},{i}\n", 1 + i / 2, [15, if i / 2 == 1 { 28 } else { 30 }][i as usize % 2]);
    let uneven = format!("date,v\n{}", (0..24).map(row).collect::<String>());
    let read = table(uneven.as_bytes(), &plain()).unwrap();
    let notes = read.notes(&[read.series(&ColumnChoice::LastNumeric).unwrap()]).concat();
    assert!(notes.contains("not evenly spaced"), "{notes}");

    for (header, row) in [
        ("month,year,v", ["11,2019,5", "12,2019,6", "1,2020,7"]),
        ("month,year,v", ["Nov,2019,5", "Dec,2019,6", "Jan,2020,7"]),
    ] {
        let series = last(&format!("{header}\n{}\n", row.join("\n")), &plain()).unwrap();
        assert!(
            ["2020-02", "2020-Feb"].contains(&TimeAxis::new(&series.labels).label(3).as_str()),
            "{:?}",
            series.labels
        );
    }
    for header in ["day,month,year,v", "month,day,year,v"] {
        let rows =
            if header.starts_with("day") { "30,12,2019,5\n31,12,2019,6\n" } else { "12,30,2019,5\n12,31,2019,6\n" };
        let series = last(&format!("{header}\n{rows}"), &plain()).unwrap();
        assert_eq!(TimeAxis::new(&series.labels).label(2), "2020-01-01", "{header}");
    }
}
