//! The sample data, read as a user would.

use std::path::Path;

use fused_rnn::Error;
use fused_rnn::data::csv::parse_series;
use fused_rnn::data::{ColumnChoice, Gaps, TimeAxis, has_trend, read_series};
use proptest::prelude::*;

fn sample(name: &str) -> fused_rnn::data::Series {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/data").join(name);
    read_series(&path, &ColumnChoice::LastNumeric).unwrap()
}

#[test]
fn sunspots() {
    let yearly = sample("sunspots_yearly.csv");
    assert_eq!((yearly.name.as_str(), yearly.values.len()), ("SUNACTIVITY", 309));
    assert_eq!((yearly.values[0], yearly.labels[0].as_str(), yearly.lines[0]), (Some(5.0), "1700", 2));
    assert_eq!(TimeAxis::new(&yearly.labels).label(309), "2009");
    let monthly = sample("sunspots_monthly.csv");
    let complete = Gaps::Error.close(&monthly).unwrap();
    assert_eq!((complete.values.len(), complete.values[1]), (3126, 62.6));
    assert!(!has_trend(&complete.values[..2188]) && !has_trend(&Gaps::Error.close(&yearly).unwrap().values[..216]));
    let axis = TimeAxis::new(&complete.labels);
    assert_eq!((axis.label(0), axis.position(12)), ("1749-01".to_owned(), 1750.0));
}

#[test]
fn carbon_dioxide_has_gaps() {
    let weekly = sample("co2_weekly.csv");
    let rows = weekly.values.len();
    let missing = weekly.values.iter().filter(|v| v.is_none()).count();
    assert_eq!((rows, missing), (2284, 59));
    let first_gap = weekly.values.iter().position(Option::is_none).unwrap();
    let message = Gaps::Error.close(&weekly).unwrap_err().to_string();
    assert!(message.contains(&format!("line {}", first_gap + 2)) && message.contains("59 values of 2284"), "{message}");
    assert_eq!(Gaps::Drop.close(&weekly).unwrap().values.len(), rows - missing);
    for gaps in [Gaps::Interpolate, Gaps::ForwardFill] {
        let complete = gaps.close(&weekly).unwrap();
        assert_eq!(complete.values.len(), rows);
        assert!(complete.values.iter().all(|v| (310.0..375.0).contains(v)), "{gaps}");
        assert_eq!(TimeAxis::new(&complete.labels).label(rows), "20020105");
        assert!(has_trend(&complete.values));
    }
}

/// Pieces that CSV files are made of, and some that they should not be.
fn csv_text() -> impl Strategy<Value = Vec<u8>> {
    let pieces = prop::sample::select(vec![
        &b","[..],
        b"\n",
        b"\r\n",
        b"\r",
        b"\"",
        b"\"\"",
        b" ",
        b"1",
        b"-2.5",
        b"1e999",
        b"NaN",
        b"inf",
        b"name",
        b"2001-02",
        b"20010203",
        b"9999-99-99",
        b"-9223372036854775808",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b";",
        b"\t",
        "é".as_bytes(),
    ]);
    prop::collection::vec(pieces, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    /// Whatever the bytes: a series whose parts fit each other, or an error of data. Never a panic.
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop_oneof![csv_text(), prop::collection::vec(any::<u8>(), 0..60)], column in "[a-z0-9]{0,3}") {
        for choice in [ColumnChoice::LastNumeric, ColumnChoice::Named(column)] {
            match parse_series(&bytes, "fuzz.csv", &choice) {
                Err(error) => prop_assert!(matches!(error, Error::Data { .. }), "{error:?}"),
                Ok(series) => {
                    prop_assert!(!series.values.is_empty());
                    prop_assert!(series.values.iter().flatten().all(|v| v.is_finite()));
                    prop_assert_eq!(series.values.len(), series.labels.len());
                    prop_assert_eq!(series.values.len(), series.lines.len());
                    prop_assert!(series.lines.windows(2).all(|pair| pair[0] < pair[1] || bytes.contains(&b'\r')));
                    for gaps in Gaps::ALL {
                        let Ok(complete) = gaps.close(&series) else { continue };
                        let axis = TimeAxis::new(&complete.labels);
                        prop_assert_eq!(complete.values.len(), complete.labels.len());
                        prop_assert!((0..60).map(|i| axis.position(i)).is_sorted());
                        prop_assert!(!axis.label(complete.values.len() + 1_000_000).is_empty());
                    }
                }
            }
        }
    }
}
