//! The files that Keras has written: their descriptions and their tensors.

use std::path::{Path, PathBuf};

use fused_rnn::interop::safetensors::TensorFile;
use ndarray::{ArrayD, IxDyn};
use serde_json::{Map, Value};

/// One file.
pub struct Case {
    pub name: String,
    pub json: Value,
    file: TensorFile,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/layers")
}

/// All files, in the order of their names.
pub fn all() -> Vec<Case> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("tests/fixtures/layers")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let file = TensorFile::read(path).expect("a file of tensors");
        let json = serde_json::from_str(file.metadata("case").expect("a description")).expect("JSON");
        Case { name: path.file_stem().expect("a name").to_string_lossy().into_owned(), json, file }
    };
    paths.iter().map(read).collect()
}

/// The files of one kind; there are some.
pub fn of_kind(kind: &str) -> Vec<Case> {
    let cases: Vec<Case> = all().into_iter().filter(|case| case.json["kind"] == kind).collect();
    assert!(!cases.is_empty(), "no {kind} in {}", folder().display());
    cases
}

impl Case {
    /// Whether there is such a tensor.
    pub fn has(&self, name: &str) -> bool {
        self.file.contains(name)
    }

    /// A tensor; whole numbers too.
    pub fn array(&self, name: &str) -> ArrayD<f64> {
        let (shape, values) = self.file.floats::<f64>(name).unwrap_or_else(|_| {
            let (shape, values) = self.file.integers(name).unwrap_or_else(|e| panic!("{}: {e}", self.name));
            (shape, values.into_iter().map(|v| v as f64).collect())
        });
        ArrayD::from_shape_vec(IxDyn(&shape), values).expect("as many values as its shape says")
    }

    /// Weights (`w`), their gradients (`g`), or weights after the step (`a`): paths and arrays in Keras's order.
    pub fn weights(&self, prefix: &str) -> Vec<(String, ArrayD<f64>)> {
        let mut found: Vec<(usize, String, ArrayD<f64>)> = Vec::new();
        for name in self.file.names() {
            let Some(rest) = name.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('.')) else { continue };
            let Some((index, path)) = rest.split_once('.') else { continue };
            let mut array = self.array(name);
            // A number in Keras; what wrote the file gave it an axis.
            if path.ends_with("attention/scale") && array.shape() == [1] {
                array = array.into_shape_with_order(ndarray::IxDyn(&[])).expect("one value");
            }
            found.push((index.parse().expect("a number"), path.to_owned(), array));
        }
        found.sort_by_key(|(index, ..)| *index);
        found.into_iter().map(|(_, path, array)| (path, array)).collect()
    }

    /// A list of names in the description.
    pub fn list(&self, key: &str) -> Vec<String> {
        let list = self.json[key].as_array().unwrap_or_else(|| panic!("{}: {key}", self.name));
        list.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// `stem` where there is one, else `stem0`, `stem1`, …
    pub fn numbered(stem: &str, count: usize) -> Vec<String> {
        if count == 1 { vec![stem.to_owned()] } else { (0..count).map(|i| format!("{stem}{i}")).collect() }
    }
}

/// Options of Keras, each to be taken, so that none is overlooked.
pub struct Options {
    what: String,
    map: Map<String, Value>,
}

impl Options {
    pub fn new(what: &str, value: &Value) -> Self {
        Options { what: what.to_owned(), map: value.as_object().cloned().unwrap_or_default() }
    }

    /// An option that there must be.
    pub fn take(&mut self, key: &str) -> Value {
        self.map.remove(key).unwrap_or_else(|| panic!("{} has no option {key}", self.what))
    }

    pub fn optional(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key)
    }

    pub fn size(&mut self, key: &str) -> usize {
        let value = self.take(key);
        value.as_u64().unwrap_or_else(|| panic!("{}: {key} {value}", self.what)) as usize
    }

    pub fn number(&mut self, key: &str) -> f64 {
        let value = self.take(key);
        value.as_f64().unwrap_or_else(|| panic!("{}: {key} {value}", self.what))
    }

    pub fn flag(&mut self, key: &str) -> bool {
        let value = self.take(key);
        value.as_bool().unwrap_or_else(|| panic!("{}: {key} {value}", self.what))
    }

    pub fn text(&mut self, key: &str) -> String {
        let value = self.take(key);
        value.as_str().unwrap_or_else(|| panic!("{}: {key} {value}", self.what)).to_owned()
    }

    /// An option of which the crate has this value only.
    pub fn only(&mut self, key: &str, expected: impl Into<Value>) -> Result<(), String> {
        let (value, expected) = (self.take(key), expected.into());
        if value == expected { Ok(()) } else { Err(format!("{} with {key} {value}", self.what)) }
    }

    /// Nothing is left over.
    pub fn end(self) -> Result<(), String> {
        if self.map.is_empty() { Ok(()) } else { Err(format!("{} with {:?}", self.what, self.map)) }
    }
}
