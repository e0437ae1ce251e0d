//! Reading a case's keys and tensors: each is taken once, checked, and what is left over is an error.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::{MAX_ELEMENTS, Named};
use crate::error::{Error, Result};
use crate::interop::safetensors::TensorFile;
use crate::rnn::{RnnDescriptor, RnnShape, TensorShapes};

pub(super) fn case_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "parity case", problem: problem.into() }
}

/// A JSON object whose keys are taken one by one.
pub(super) struct Fields {
    path: PathBuf,
    /// Where the object stands, for messages: `case` or `case.attrs`.
    place: &'static str,
    values: Map<String, Value>,
    /// Keys that were asked for, to be listed beside one that was not.
    known: BTreeSet<&'static str>,
}

impl Fields {
    /// The file's metadata entry `case`.
    pub(super) fn of_case(file: &TensorFile) -> Result<Self> {
        let path = file.path();
        let text = file.metadata("case").ok_or_else(|| case_error(path, "its metadata has no entry case"))?;
        let value = serde_json::from_str(text).map_err(|e| case_error(path, format!("case: not JSON: {e}")))?;
        Self::of_value(path, "case", value)
    }

    fn of_value(path: &Path, place: &'static str, value: Value) -> Result<Self> {
        match value {
            Value::Object(values) => Ok(Fields { path: path.to_owned(), place, values, known: BTreeSet::new() }),
            other => Err(case_error(path, format!("{place}: expected an object, got {}", brief(&other)))),
        }
    }

    pub(super) fn error(&self, key: &str, expected: &str, got: impl std::fmt::Display) -> Error {
        case_error(&self.path, format!("{}.{key}: expected {expected}, got {got}", self.place))
    }

    /// The value of a key, `null` included.
    pub(super) fn take(&mut self, key: &'static str) -> Option<Value> {
        self.known.insert(key);
        self.values.remove(key)
    }

    fn take_some(&mut self, key: &'static str) -> Option<Value> {
        self.take(key).filter(|value| !value.is_null())
    }

    fn required<T>(&self, key: &str, value: Option<T>, expected: &str) -> Result<T> {
        value.ok_or_else(|| self.error(key, expected, "nothing"))
    }

    pub(super) fn object(&mut self, key: &'static str, place: &'static str) -> Result<Fields> {
        let value = self.take_some(key).unwrap_or_else(|| Value::Object(Map::new()));
        Self::of_value(&self.path, place, value)
    }

    pub(super) fn text(&mut self, key: &'static str) -> Result<Option<String>> {
        match self.take_some(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(self.error(key, "a string", brief(&other))),
        }
    }

    pub(super) fn required_text(&mut self, key: &'static str) -> Result<String> {
        let value = self.text(key)?;
        self.required(key, value, "a string")
    }

    pub(super) fn size(&mut self, key: &'static str) -> Result<Option<usize>> {
        let expected = "a whole number of at least 1";
        match self.take_some(key) {
            None => Ok(None),
            Some(value) => match value.as_u64().and_then(|v| usize::try_from(v).ok()).filter(|v| *v > 0) {
                Some(size) => Ok(Some(size)),
                None => Err(self.error(key, expected, brief(&value))),
            },
        }
    }

    pub(super) fn required_size(&mut self, key: &'static str) -> Result<usize> {
        let value = self.size(key)?;
        self.required(key, value, "a whole number of at least 1")
    }

    pub(super) fn flag(&mut self, key: &'static str, default: bool) -> Result<bool> {
        match self.take_some(key) {
            None => Ok(default),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(self.error(key, "true or false", brief(&other))),
        }
    }

    /// A flag written as 0 or 1, as in ONNX; absent means 0.
    pub(super) fn bit(&mut self, key: &'static str) -> Result<bool> {
        match self.take_some(key) {
            None => Ok(false),
            Some(value) => match value.as_u64() {
                Some(0) => Ok(false),
                Some(1) => Ok(true),
                _ => Err(self.error(key, "0 or 1", brief(&value))),
            },
        }
    }

    pub(super) fn number(&mut self, key: &'static str) -> Result<Option<f64>> {
        match self.take_some(key) {
            None => Ok(None),
            Some(value) => value.as_f64().map(Some).ok_or_else(|| self.error(key, "a number", brief(&value))),
        }
    }

    fn list<T>(
        &mut self,
        key: &'static str,
        expected: &str,
        element: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        match self.take_some(key) {
            None => Ok(None),
            Some(Value::Array(values)) => values
                .iter()
                .enumerate()
                .map(|(i, v)| element(v).ok_or_else(|| self.error(&format!("{key}[{i}]"), expected, brief(v))))
                .collect::<Result<_>>()
                .map(Some),
            Some(other) => Err(self.error(key, "a list", brief(&other))),
        }
    }

    pub(super) fn texts(&mut self, key: &'static str) -> Result<Option<Vec<String>>> {
        self.list(key, "a string", |v| v.as_str().map(str::to_owned))
    }

    pub(super) fn numbers(&mut self, key: &'static str) -> Result<Option<Vec<f64>>> {
        self.list(key, "a number", Value::as_f64)
    }

    pub(super) fn integers(&mut self, key: &'static str) -> Result<Option<Vec<i64>>> {
        self.list(key, "a whole number", Value::as_i64)
    }

    /// An error if a key is left that nobody asked for.
    pub(super) fn finish(&self) -> Result<()> {
        match self.values.keys().next() {
            None => Ok(()),
            Some(key) => {
                let known: Vec<_> = self.known.iter().copied().collect();
                let problem = format!(
                    "{}.{key}: there is no such key here; this kind of case has {}",
                    self.place,
                    known.join(", ")
                );
                Err(case_error(&self.path, problem))
            }
        }
    }
}

/// A JSON value, shortened for a message.
fn brief(value: &Value) -> String {
    match value {
        Value::Array(values) => format!("a list of {}", values.len()),
        Value::Object(_) => "an object".to_owned(),
        other => {
            let text = other.to_string();
            match text.char_indices().nth(60).and_then(|(end, _)| text.get(..end)) {
                Some(beginning) => format!("{beginning}…"),
                None => text,
            }
        }
    }
}

/// A file's tensors, taken one by one.
pub(super) struct Tensors<'a> {
    file: &'a TensorFile,
    left: BTreeSet<String>,
    single_precision: bool,
}

impl<'a> Tensors<'a> {
    pub(super) fn new(file: &'a TensorFile) -> Self {
        let left: BTreeSet<_> = file.names().map(str::to_owned).collect();
        let integral = ["lengths", "in.sequence_lens"];
        let single_precision =
            left.iter().any(|name| !integral.contains(&name.as_str()) && file.is_single_precision(name));
        Tensors { file, left, single_precision }
    }

    /// Whether any floating-point tensor is stored with less than double precision.
    pub(super) fn single_precision(&self) -> bool {
        self.single_precision
    }

    pub(super) fn error(&self, problem: impl Into<String>) -> Error {
        case_error(self.file.path(), problem)
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.file.contains(name)
    }

    /// A tensor's shape, of `rank` axes.
    pub(super) fn shape(&self, name: &str, rank: usize) -> Result<Vec<usize>> {
        match self.file.shape(name) {
            None => Err(self.error(format!("tensor {name} is missing"))),
            Some(shape) if shape.len() == rank => Ok(shape.to_vec()),
            Some(shape) => Err(Error::shape(name, format!("{rank} axes"), format!("{shape:?}"))),
        }
    }

    fn check_shape(&self, name: &str, expected: &[usize]) -> Result<()> {
        match self.file.shape(name) {
            None => Err(self.error(format!("tensor {name} is missing; it should be {expected:?}"))),
            Some(shape) if shape == expected => Ok(()),
            Some(shape) => Err(Error::shape(name, format!("{expected:?}"), format!("{shape:?}"))),
        }
    }

    pub(super) fn floats(&mut self, name: &str, shape: &[usize]) -> Result<Vec<f64>> {
        self.check_shape(name, shape)?;
        self.left.remove(name);
        Ok(self.file.floats(name)?.1)
    }

    pub(super) fn optional(&mut self, name: &str, shape: &[usize]) -> Result<Option<Vec<f64>>> {
        self.contains(name).then(|| self.floats(name, shape)).transpose()
    }

    pub(super) fn integers(&mut self, name: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.check_shape(name, shape)?;
        self.left.remove(name);
        Ok(self.file.integers(name)?.1)
    }

    /// Lengths of the sequences, each in `1..=T`.
    pub(super) fn lengths(&self, values: &[i64], shape: RnnShape) -> Result<Vec<u32>> {
        values
            .iter()
            .enumerate()
            .map(|(index, &length)| match (u64::try_from(length), u32::try_from(length)) {
                (Err(_), _) => {
                    Err(self.error(format!("lengths[{index}]: expected 1..={}, got {length}", shape.seq_len)))
                }
                (_, Ok(valid)) if valid > 0 && valid as usize <= shape.seq_len => Ok(valid),
                (Ok(got), _) => Err(Error::SequenceLength { index, got, seq_len: shape.seq_len }),
            })
            .collect()
    }

    /// Shapes of all native tensors, if they are of a size that a case may have.
    pub(super) fn native_shapes(&self, descriptor: &RnnDescriptor, shape: RnnShape) -> Result<TensorShapes> {
        let tensors = shape.tensors(descriptor)?;
        // What the backends keep of every step for backward, at its largest.
        let steps = shape.seq_len.saturating_mul(shape.batch).saturating_mul(tensors.c[0]);
        let elements = steps.saturating_mul(descriptor.hidden_size).saturating_mul(16);
        if elements > MAX_ELEMENTS {
            return Err(self.error(format!(
                "T {} * B {} * H {} * layers and directions {} need about {elements} elements of temporary space; a case may need {MAX_ELEMENTS}",
                shape.seq_len, shape.batch, descriptor.hidden_size, tensors.c[0]
            )));
        }
        Ok(tensors)
    }

    /// The tensors left, all of them results of the shapes given.
    pub(super) fn finish(self, shapes: &Named<Vec<usize>>) -> Result<Named<Vec<f64>>> {
        let mut expected = Named::new();
        for name in &self.left {
            let Some(shape) = shapes.get(name) else {
                let known: Vec<_> = shapes.keys().take(40).map(String::as_str).collect();
                return Err(self.error(format!(
                    "tensor {name}: this case has no such input, and its results are {}",
                    known.join(", ")
                )));
            };
            self.check_shape(name, shape)?;
            expected.insert(name.clone(), self.file.floats(name)?.1);
        }
        Ok(expected)
    }
}
