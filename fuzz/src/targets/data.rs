//! CSV, dates and times, `.ts` files, tokenizers.

use fused_rnn::data::{
    ClassifiedRows, ColumnChoice, ColumnScaler, ColumnsChoice, CsvOptions, CsvTable, Gaps, MissingValues, Scaler,
    Series, TimeAxis, TimeSplit, Tokenizer, has_trend, ts, windows,
};
use fused_rnn::model::{SequenceConfig, SequenceModel};
use fused_rnn::nn::{LayerConfig, SimpleRnn};
use fused_rnn::{Error, Result};
use ndarray::{Array2, s};

use super::{device, read, refused, scratch, written};

fn kept<T>(result: Result<T>) -> Option<T> {
    result.inspect_err(refused).ok()
}

/// A file; where its first line is an object of JSON that says how it is to be read, so it is.
pub fn csv(bytes: &[u8]) -> bool {
    let end = bytes.iter().position(|byte| *byte == b'\n').unwrap_or(bytes.len());
    let told = bytes.get(..end).filter(|line| line.starts_with(b"{")).map(serde_json::from_slice::<CsvOptions>);
    let (options, bytes) = match told {
        Some(Ok(options)) => (options, bytes.get(end + 1..).unwrap_or_default()),
        _ => (CsvOptions::default(), bytes),
    };
    let Some(table) = read(bytes.len(), || CsvTable::parse(bytes, "d.csv", &options)) else { return false };
    let newlines = bytes.iter().filter(|byte| matches!(byte, b'\n' | b'\r')).count() as u64 + 1;
    let lines_are_there = |lines: &[u64]| assert!(lines.iter().all(|line| (1..=newlines).contains(line)), "{lines:?}");

    let mut choices = vec![ColumnChoice::LastNumeric];
    choices.extend(table.names().iter().take(3).cloned().map(ColumnChoice::Named));
    for choice in &choices {
        let Some(series) = read(bytes.len(), || table.series(choice)) else { continue };
        assert!(series.values.len() == series.labels.len() && series.values.len() == series.lines.len());
        lines_are_there(&series.lines);
        let named = table.column_reference(choice).expect("a column that was read");
        let again = table.series(&ColumnChoice::Named(named)).expect("the same column");
        assert!(again.values == series.values, "another column by its own name");
        // What was found out, told again, finds the same.
        let told = CsvTable::parse(bytes, "d.csv", table.options()).expect("read as it was read");
        assert!(told.series(choice).expect("the same column").values == series.values, "read otherwise when told");
        drop(table.notes(std::slice::from_ref(&series)));
        use_series(&series);
    }
    if let Some(columns) = read(bytes.len(), || table.columns(&ColumnsChoice::AllNumeric)) {
        let references = table.column_references(&ColumnsChoice::AllNumeric).expect("columns that were read");
        let again = table.columns(&ColumnsChoice::Named(references)).expect("the same columns");
        assert!(again.iter().map(|c| &c.values).eq(columns.iter().map(|c| &c.values)), "other columns by their names");
        drop(table.notes(&columns));
        for gaps in Gaps::ALL {
            if let Some(complete) = kept(gaps.close_columns(&columns)) {
                assert!(complete.values.iter().all(|value| value.is_finite()));
                kept(ColumnScaler::standard(complete.values.view()));
            }
        }
    }
    for name in table.names().iter().take(2) {
        if let Some(panel) = read(bytes.len(), || table.panel(name, &ColumnChoice::LastNumeric)) {
            panel.iter().for_each(|(_, series)| lines_are_there(&series.lines));
        }
        kept(table.panel_columns(name, &ColumnsChoice::AllNumeric));
        classified(&table, name);
    }
    true
}

fn use_series(series: &Series) {
    for gaps in Gaps::ALL {
        let Some(complete) = kept(gaps.close(series)) else { continue };
        assert!(complete.values.iter().all(|value| value.is_finite()));
        let axis = TimeAxis::new(&complete.labels);
        for i in 0..complete.values.len().min(5) {
            let _ = (axis.position(i), axis.day(i), axis.label(i));
        }
        drop(axis.holes());
        let values = &complete.values[..];
        for scaler in [kept(Scaler::min_max(values)), kept(Scaler::standard(values))].into_iter().flatten() {
            assert!(values.iter().all(|value| !scaler.transform(*value).is_nan()));
        }
        let _ = has_trend(values);
        kept(windows(values, 3, 2));
        kept(TimeSplit::new(values.len(), 0.1, 0.2));
    }
}

fn classified(table: &CsvTable, target: &str) {
    for gaps in [Gaps::Error, Gaps::Drop] {
        let Some(rows) = kept(ClassifiedRows::of(table, &ColumnsChoice::AllNumeric, target, gaps)) else { continue };
        let n = rows.values.nrows();
        assert!(rows.classes.len() == n && rows.lines.len() == n && rows.labels.len() == n);
        let names = rows.class_names(0..n);
        if let Some(set) = kept(rows.windows(0..n, 2, &names)) {
            assert_eq!(set.sequences.len(), n - 1);
        }
        let choice = ColumnsChoice::Named(rows.columns.clone());
        let again = ClassifiedRows::of(table, &choice, &rows.target, gaps).expect("found by its own names");
        assert!(again.values == rows.values, "other rows by their own names");
    }
}

/// Labels of rows, one a line.
pub fn times(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let labels: Vec<String> = text.lines().take(200).map(str::to_owned).collect();
    let axis = read(bytes.len(), || Ok::<_, Error>(TimeAxis::new(&labels))).expect("no error");
    let count = labels.len();
    for i in (0..count + 4).chain([count + 1000, usize::MAX / 2, usize::MAX]) {
        assert!(axis.position(i).is_finite());
        let _ = axis.day(i);
        assert!(axis.label(i).len() < 200);
    }
    if let Some(holes) = axis.holes() {
        assert!(holes.holes.iter().all(|(before, missing)| *before < count && *missing > 0));
    }
    axis.is_labelled()
}

/// A file of labelled sequences.
pub fn ts(bytes: &[u8]) -> bool {
    let mut taken = false;
    for missing in [MissingValues::Error, MissingValues::NotANumber] {
        let Some(set) = read(bytes.len(), || ts::parse_ts(bytes, "d.ts", missing)) else { continue };
        taken = true;
        let (x, lengths) = set.padded(None, 0.0).expect("as long as the longest");
        assert_eq!(x.dim().0, lengths.len());
        assert_eq!(set.padded(Some(1), 0.0).expect("one step").0.dim().1, 1);
        let Some(config) = kept(SequenceConfig::fitted(&set, 2)) else { continue };
        if config.scaler.columns().len() > 100 || set.classes.len() > 100 {
            continue;
        }
        let layers = [LayerConfig::from(SimpleRnn::new(1))];
        let Some(mut model) = kept(SequenceModel::new(device(), config, layers, 1)) else { continue };
        let first = |sequence: &Array2<f32>| sequence.slice(s![..sequence.nrows().min(2), ..]).to_owned();
        let cut: Vec<Array2<f32>> = set.sequences.iter().take(20).map(first).collect();
        kept(model.predict(&cut));
        kept(model.targets(&set));
    }
    taken
}

/// A tokenizer's file.
pub fn tokenizer(bytes: &[u8]) -> bool {
    let path = written("tokenizer.json", bytes);
    let Some(tokenizer) = read(bytes.len(), || Tokenizer::load(&path)) else { return false };
    let text = tokenizer.tokens().join(" ");
    let numbers = tokenizer.encode(&text);
    assert!(numbers.iter().all(|number| *number < tokenizer.len()));
    tokenizer.decode(&numbers).expect("numbers of its own");
    kept(tokenizer.decode(&[usize::MAX]));
    let saved = scratch("tokenizer_saved.json");
    tokenizer.save(&saved).expect("saved");
    assert!(Tokenizer::load(&saved).expect("what was saved can be read") == tokenizer);
    true
}
