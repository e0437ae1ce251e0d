//! Sets of time series in sktime's `.ts` format, which the [time series classification archive](https://www.timeseriesclassification.com)
//! uses: [`read_ts`].
//!
//! Lines of `@tag value` come first, then `@data`, then a line for each series: its dimensions, between colons, each a list of values between
//! commas, then the class or the value to be learnt. Lines that begin with `#` are comments; tags count without regard to case
//! ([the format](https://www.sktime.net/en/latest/api_reference/file_specifications/ts.html)):
//!
//! | tag | what it says |
//! |---|---|
//! | `@problemName name` | the set's name |
//! | `@timeStamps false` | values stand alone; with `true`, each has its time, which this reader refuses |
//! | `@missing true` | some values may be `?` |
//! | `@univariate true`, `@dimensions 12` | how many values a step has |
//! | `@equalLength true`, `@seriesLength 29` | whether all series are equally long, and how long |
//! | `@classLabel true a b c` | the classes; a series ends with the name of one |
//! | `@targetLabel true` | a series ends with a number |

use std::path::Path;

use ndarray::{Array2, Array3};

use crate::data::encode::{Padding, pad_feature_sequences};
use crate::error::{Error, Result};
use crate::files;
use crate::memory;

/// What to do about values that are missing (`?` or `NaN`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MissingValues {
    /// Refuse the file, naming the line.
    #[default]
    Error,
    /// Read them as NaN.
    NotANumber,
}

/// Time series with what is to be learnt of each.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeSeriesSet {
    /// The set's name; empty where the file names none.
    pub name: String,
    /// Number of values of a step.
    pub dimensions: usize,
    /// The series, `[steps, dimensions]` each, of at least one step.
    pub sequences: Vec<Array2<f32>>,
    /// The names of the classes, in the order of the file; empty where it has no classes.
    pub classes: Vec<String>,
    /// The class of each series, as an index into `classes`; empty where there are none.
    pub labels: Vec<usize>,
    /// The number of each series (`@targetLabel`); empty where there are none.
    pub targets: Vec<f32>,
}

impl TimeSeriesSet {
    /// All series as one array `[series, maxlen, dimensions]`, filled with `value` and cut at the end, and the length of each: what
    /// recurrent layers take. Without `maxlen` it is the length of the longest.
    ///
    /// # Errors
    ///
    /// [`Error::ZeroSize`] without sequences, or for a length of zero; [`Error::SizeOverflow`] and [`Error::Unsupported`] where the array does not fit into memory.
    pub fn padded(&self, maxlen: Option<usize>, value: f32) -> Result<(Array3<f32>, Vec<usize>)> {
        pad_feature_sequences(&self.sequences, &Padding::at_end(maxlen, value))
    }
}

/// Reads a file.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Data`] as [`parse_ts`]; [`Error::Unsupported`] for a file with time stamps.
pub fn read_ts(path: impl AsRef<Path>, missing: MissingValues) -> Result<TimeSeriesSet> {
    let path = path.as_ref();
    let source_name = path.display().to_string();
    // A device that gives zeros for ever is not read to its end, which it has not.
    let bytes = files::read_any_after(path, |beginning| match files::zero_in_text(beginning) {
        Some(problem) => Err(Source { name: &source_name }.fail(None, problem)),
        None => Ok(()),
    })?;
    parse_ts(&bytes, &source_name, missing)
}

/// Reads a file's bytes; `source_name` is for messages.
///
/// # Errors
///
/// [`Error::Data`] naming the line: no UTF-8, a tag that is unknown, twice there or has no usable value, no `@data`, no series; a series
/// with another number of dimensions or another length than the tags say, dimensions of different lengths, a value that is no finite
/// number or missing where that is refused, a class that the tag does not name. [`Error::Unsupported`] for a file with time stamps.
pub fn parse_ts(bytes: &[u8], source_name: &str, missing: MissingValues) -> Result<TimeSeriesSet> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    // Four bytes for a value, which has a character and what divides it from the next.
    memory::check(&format!("{source_name}: the series"), bytes.len().saturating_mul(4))?;
    let source = Source { name: source_name };
    let mut header = Header::default();
    let mut set: Option<TimeSeriesSet> = None;
    for (index, line) in bytes.split(|b| *b == b'\n').enumerate() {
        let at = index as u64 + 1;
        let text = std::str::from_utf8(line)
            .map_err(|_| source.fail(Some(at), "not UTF-8 text; convert the file to UTF-8".to_owned()))?
            .trim();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        match &mut set {
            Some(set) => read_row(text, &header, missing, set).map_err(|problem| source.fail(Some(at), problem))?,
            None => match text.strip_prefix('@') {
                None => {
                    let problem = format!("expected a tag such as @problemName or @data, got {}", shown(text));
                    return Err(source.fail(Some(at), problem));
                }
                Some(tag) if tag.eq_ignore_ascii_case("data") => {
                    set = Some(header.set().map_err(|problem| source.fail(Some(at), problem))?);
                }
                Some(tag) => header.read_tag(tag).map_err(|problem| source.fail(Some(at), problem))?,
            },
        }
        if header.time_stamps {
            return Err(Error::unsupported(
                format!("{source_name}, line {at}: @timeStamps true"),
                "only series without time stamps can be read; write the values alone, one for each step",
            ));
        }
    }
    let set = set.ok_or_else(|| {
        source.fail(
            None,
            "no line @data; expected tags such as @problemName, then @data, then a series a line".to_owned(),
        )
    })?;
    if set.sequences.is_empty() {
        return Err(source.fail(None, "no series after @data; expected one a line".to_owned()));
    }
    Ok(set)
}

struct Source<'a> {
    name: &'a str,
}

impl Source<'_> {
    fn fail(&self, line: Option<u64>, problem: String) -> Error {
        Error::Data { source_name: self.name.to_owned(), line, problem }
    }
}

/// The start of a text, for messages.
pub(super) fn shown(text: &str) -> String {
    let start: String = text.chars().take(40).collect();
    let more = if start.len() < text.len() { "…" } else { "" };
    format!("{start:?}{more}")
}

/// What the tags say.
#[derive(Default)]
struct Header {
    seen: Vec<String>,
    name: String,
    time_stamps: bool,
    missing: Option<bool>,
    univariate: Option<bool>,
    dimensions: Option<usize>,
    equal_length: Option<bool>,
    series_length: Option<usize>,
    classes: Vec<String>,
    has_targets: bool,
}

const TAGS: &str = "@problemName, @timeStamps, @missing, @univariate, @dimensions, @equalLength, @seriesLength, @classLabel, @targetLabel and @data";

impl Header {
    /// One tag, without its `@`.
    fn read_tag(&mut self, text: &str) -> Result<(), String> {
        let (tag, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let (tag, rest) = (tag.to_ascii_lowercase(), rest.trim());
        if self.seen.contains(&tag) {
            return Err(format!("the tag @{tag} is there twice"));
        }
        let flag = |text: &str| match text.to_ascii_lowercase().as_str() {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err(format!("@{tag}: expected true or false, got {}", shown(text))),
        };
        let count = |text: &str| match text.parse::<usize>() {
            Ok(count) if count > 0 => Ok(count),
            _ => Err(format!("@{tag}: expected a whole number above zero, got {}", shown(text))),
        };
        match tag.as_str() {
            "problemname" => self.name = rest.to_owned(),
            "timestamps" => self.time_stamps = flag(rest)?,
            "missing" => self.missing = Some(flag(rest)?),
            "univariate" => self.univariate = Some(flag(rest)?),
            "dimensions" | "dimension" => self.dimensions = Some(count(rest)?),
            "equallength" => self.equal_length = Some(flag(rest)?),
            "serieslength" => self.series_length = Some(count(rest)?),
            "classlabel" => {
                let mut words = rest.split_whitespace();
                let has_classes = flag(words.next().unwrap_or_default())?;
                for class in words {
                    if self.classes.iter().any(|other| other == class) {
                        return Err(format!("@classLabel: the class {} is named twice", shown(class)));
                    }
                    self.classes.push(class.to_owned());
                }
                if has_classes == self.classes.is_empty() {
                    return Err("@classLabel: expected true with the names of the classes, or false alone".to_owned());
                }
            }
            "targetlabel" => {
                // Some files name the label after the word.
                self.has_targets = flag(rest.split_whitespace().next().unwrap_or_default())?;
            }
            _ => return Err(format!("unknown tag @{}; the tags are {TAGS}", shown(&tag).trim_matches('"'))),
        }
        self.seen.push(tag);
        Ok(())
    }

    /// The empty set that the tags describe.
    fn set(&mut self) -> Result<TimeSeriesSet, String> {
        if !self.classes.is_empty() && self.has_targets {
            return Err("@classLabel and @targetLabel are both true; a series ends with one or the other".to_owned());
        }
        match (self.univariate, self.dimensions) {
            (Some(true), Some(dimensions)) if dimensions != 1 => {
                return Err(format!("@univariate true, but @dimensions {dimensions}; one of them is wrong"));
            }
            (Some(true), None) => self.dimensions = Some(1),
            _ => {}
        }
        Ok(TimeSeriesSet {
            name: std::mem::take(&mut self.name),
            dimensions: 0, // until the first series
            sequences: Vec::new(),
            classes: self.classes.clone(),
            labels: Vec::new(),
            targets: Vec::new(),
        })
    }
}

/// A line after `@data`.
fn read_row(text: &str, header: &Header, missing: MissingValues, set: &mut TimeSeriesSet) -> Result<(), String> {
    let mut parts: Vec<&str> = text.split(':').map(str::trim).collect();
    let last = if set.classes.is_empty() && !header.has_targets { None } else { parts.pop() };
    let dimensions = match (set.sequences.is_empty(), header.dimensions) {
        (_, Some(dimensions)) => dimensions,
        (true, None) => parts.len(),
        (false, None) => set.dimensions,
    };
    if parts.len() != dimensions || parts.is_empty() {
        let label = match (set.classes.is_empty(), header.has_targets) {
            (false, _) => " and a class",
            (true, true) => " and a number",
            (true, false) => "",
        };
        let expected = dimensions.max(1);
        return Err(format!("expected {expected} dimensions{label} between colons, got {} dimensions", parts.len()));
    }
    if let Some(last) = last {
        if header.has_targets {
            set.targets
                .push(number(last).ok_or_else(|| format!("expected a finite number at the end, got {}", shown(last)))?);
        } else {
            let label = set.classes.iter().position(|class| class == last).ok_or_else(|| {
                let names: Vec<&str> = set.classes.iter().take(20).map(String::as_str).collect();
                let more = if names.len() < set.classes.len() { ", …" } else { "" };
                format!("unknown class {}; @classLabel names {}{more}", shown(last), names.join(", "))
            })?;
            set.labels.push(label);
        }
    }

    let steps = parts.first().map_or(0, |part| part.split(',').count());
    match (header.series_length, header.equal_length, set.sequences.first()) {
        (Some(length), Some(true) | None, _) if steps != length => {
            return Err(format!("expected {length} steps, as @seriesLength says, got {steps}"));
        }
        (_, Some(true), Some(first)) if first.nrows() != steps => {
            return Err(format!(
                "expected {} steps, as the first series has (@equalLength true), got {steps}",
                first.nrows()
            ));
        }
        _ => {}
    }
    // The array is no larger than the text of its line.
    let mut sequence = Array2::zeros((steps, dimensions));
    for ((dimension, part), mut of_dimension) in parts.iter().enumerate().zip(sequence.columns_mut()) {
        let place = |step: usize| format!("dimension {}, step {}", dimension + 1, step + 1);
        let length = part.split(',').count();
        if length != steps {
            return Err(format!(
                "dimension 1 has {steps} steps, but dimension {} has {length}; they must be equal",
                dimension + 1
            ));
        }
        for ((step, value), to) in part.split(',').map(str::trim).enumerate().zip(&mut of_dimension) {
            *to = if value == "?" || value.eq_ignore_ascii_case("nan") {
                if header.missing == Some(false) && value == "?" {
                    return Err(format!("{}: a value is missing, but the tag is @missing false", place(step)));
                }
                if missing == MissingValues::Error {
                    return Err(format!(
                        "{}: the value is missing; read missing values as NaN and fill them, or leave the series out",
                        place(step)
                    ));
                }
                f32::NAN
            } else {
                number(value)
                    .ok_or_else(|| format!("{}: expected a finite number, got {}", place(step), shown(value)))?
            };
        }
    }
    set.dimensions = dimensions;
    set.sequences.push(sequence);
    Ok(())
}

/// A finite single-precision number.
fn number(text: &str) -> Option<f32> {
    text.parse::<f32>().ok().filter(|value| value.is_finite())
}

#[cfg(test)]
mod tests {
    use ndarray::array;

    use super::*;

    const HEAD: &str = "#comment\n@problemName Test set\n@timeStamps false\n@univariate false\n@classLabel true a b\n";

    fn parse(text: &str) -> Result<TimeSeriesSet> {
        parse_ts(text.as_bytes(), "test.ts", MissingValues::Error)
    }

    fn message(text: &str) -> String {
        let error = parse(text).unwrap_err();
        assert!(matches!(error, Error::Data { .. }), "{error:?}");
        error.to_string()
    }

    #[test]
    fn dimensions_lengths_and_classes() {
        let text = format!("\u{feff}{HEAD}@dimensions 2\r\n@DATA\r\n1,2,3:-1,-2,-3:b\r\n\r\n# two\r\n4.5 : 5e-1 :a");
        let set = parse(&text).unwrap();
        assert_eq!((set.name.as_str(), set.dimensions), ("Test set", 2));
        assert_eq!(set.sequences, [array![[1.0, -1.0], [2.0, -2.0], [3.0, -3.0]], array![[4.5, 0.5]]]);
        assert_eq!((set.classes, set.labels, set.targets), (vec!["a".to_owned(), "b".to_owned()], vec![1, 0], vec![]));
    }

    #[test]
    fn padded_at_the_end() {
        let set = parse(&format!("{HEAD}@data\n1,2,3:-1,-2,-3:b\n4:5:a\n")).unwrap();
        let (x, lengths) = set.padded(None, 0.0).unwrap();
        assert_eq!((x.dim(), lengths), ((2, 3, 2), vec![3, 1]));
        assert_eq!(x.index_axis(ndarray::Axis(0), 1), array![[4.0, 5.0], [0.0, 0.0], [0.0, 0.0]]);
        let (x, lengths) = set.padded(Some(2), 0.0).unwrap();
        assert_eq!((x[[0, 1, 1]], lengths), (-2.0, vec![2, 1]));
    }

    #[test]
    fn without_classes_and_with_numbers() {
        let set = parse("@univariate true\n@classLabel false\n@data\n1,2\n3,4,5\n").unwrap();
        assert_eq!((set.sequences.len(), set.dimensions, set.labels.len()), (2, 1, 0));
        let set = parse("@targetlabel true\n@data\n1,2:3,4:0.5\n1:3:-7\n").unwrap();
        assert_eq!((set.targets, set.dimensions), (vec![0.5, -7.0], 2));
    }

    #[test]
    fn missing_values() {
        let text = format!("{HEAD}@missing true\n@data\n1,?:2,NaN:a\n");
        assert!(message(&text).contains("test.ts, line 8: dimension 1, step 2: the value is missing"));
        let set = parse_ts(text.as_bytes(), "test.ts", MissingValues::NotANumber).unwrap();
        assert!(set.sequences[0][[1, 0]].is_nan() && set.sequences[0][[1, 1]].is_nan());
        let text = text.replace("@missing true", "@missing false");
        let error = parse_ts(text.as_bytes(), "test.ts", MissingValues::NotANumber).unwrap_err().to_string();
        assert!(error.contains("@missing false"), "{error}");
    }

    #[test]
    fn errors_name_the_line() {
        for (rest, problem) in [
            ("@data\n1,2:3,4:c\n", "line 7: unknown class \"c\"; @classLabel names a, b"),
            ("@data\n1,2:3,4:a\n1,2:b\n", "line 8: expected 2 dimensions and a class between colons, got 1 dimensions"),
            ("@data\na\n", "line 7: expected 1 dimensions and a class"),
            ("@data\n1,2:3:a\n", "dimension 1 has 2 steps, but dimension 2 has 1"),
            ("@data\n1,x:3,4:a\n", "line 7: dimension 1, step 2: expected a finite number, got \"x\""),
            ("@data\n1,:3,4:a\n", "dimension 1, step 2: expected a finite number"),
            ("@data\n1,inf:3,4:a\n", "expected a finite number"),
            ("@data\n1,1e39:3,4:a\n", "expected a finite number"),
            ("@dimensions 3\n@data\n1:2:a\n", "expected 3 dimensions and a class between colons, got 2"),
            ("@dimensions 18446744073709551615\n@data\n1:2:a\n", "line 8: expected 18446744073709551615 dimensions"),
            ("@dimensions 18446744073709551616\n@data\n1:2:a\n", "line 6: @dimensions: expected a whole number"),
            ("@dimensions 0\n", "expected a whole number above zero, got \"0\""),
            ("@seriesLength 3\n@data\n1:2:a\n", "expected 3 steps, as @seriesLength says, got 1"),
            ("@equalLength true\n@data\n1:2:a\n1,2:3,4:a\n", "line 9: expected 1 steps, as the first series has"),
            ("@equalLength perhaps\n", "expected true or false, got \"perhaps\""),
            ("@univariate true\n", "line 6: the tag @univariate is there twice"),
            ("@frequency daily\n", "unknown tag @frequency; the tags are @problemName"),
            ("1,2:a\n", "line 6: expected a tag"),
            ("@targetLabel true\n@data\n", "both true"),
            ("@data\n", "no series after @data"),
            ("", "no line @data"),
        ] {
            let text = message(&format!("{HEAD}{rest}"));
            assert!(text.contains(problem), "{rest:?}: {text}");
        }
        for (text, problem) in [
            ("", "no line @data"),
            ("@classLabel true\n", "expected true with the names"),
            ("@classLabel true a b a\n", "\"a\" is named twice"),
            ("@classLabel false a\n", "or false alone"),
            ("@univariate true\n@dimensions 2\n@data\n", "one of them is wrong"),
            ("@targetLabel true\n@data\n1:x\n", "line 3: expected a finite number at the end"),
        ] {
            assert!(message(text).contains(problem), "{text:?}: {}", message(text));
        }
        let error = parse_ts(b"@problemName \xff\n", "test.ts", MissingValues::Error).unwrap_err().to_string();
        assert!(error.contains("line 1: not UTF-8"), "{error}");
        let error = parse("@timestamps true\n@data\n(0,1),(1,2)\n").unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }) && error.to_string().contains("line 1"), "{error}");
    }
}
