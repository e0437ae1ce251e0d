//! The shipped parity cases, and files made from them.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use fused_rnn::Result;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::interop::safetensors::TensorFile;
use fused_rnn::parity::{Case, Report};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use serde_json::Value;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/parity")
}

pub fn fixtures() -> Vec<PathBuf> {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

pub fn fixture(name: &str) -> PathBuf {
    folder().join(format!("{name}.safetensors"))
}

/// A case file that can be changed.
#[derive(Clone)]
pub struct Draft {
    pub case: Value,
    pub tensors: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
}

impl Draft {
    pub fn of(path: &Path) -> Self {
        let bytes = std::fs::read(path).unwrap();
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let case = serde_json::from_str(&header.metadata().as_ref().unwrap()["case"]).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let tensors = file
            .iter()
            .map(|(name, view)| (name.to_owned(), (view.dtype(), view.shape().to_vec(), view.data().to_vec())));
        Draft { case, tensors: tensors.collect() }
    }

    pub fn bytes_with(&self, case: &str) -> Vec<u8> {
        let views = self
            .tensors
            .iter()
            .map(|(name, (dtype, shape, data))| (name.clone(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        safetensors::serialize(views, Some([("case".to_owned(), case.to_owned())].into())).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        self.bytes_with(&self.case.to_string())
    }

    pub fn read(&self) -> Result<Case> {
        parse(&self.bytes())
    }

    pub fn run(&self) -> Result<Report> {
        self.read()?.run(&ReferenceBackend::<f64>::new(), None)
    }

    pub fn floats(&self) -> Vec<String> {
        let float = |dtype: &Dtype| matches!(dtype, Dtype::F32 | Dtype::F64);
        self.tensors.iter().filter(|(_, (dtype, ..))| float(dtype)).map(|(name, _)| name.clone()).collect()
    }

    /// The largest magnitude in a floating-point tensor.
    pub fn largest(&self, name: &str) -> f64 {
        let largest = Cell::new(0.0f64);
        self.clone().map(name, |_, value| {
            largest.set(largest.get().max(value.abs()));
            value
        });
        largest.get()
    }

    /// Replaces the elements of a floating-point tensor.
    pub fn map(&mut self, name: &str, change: impl Fn(usize, f64) -> f64) {
        let (dtype, _, data) = self.tensors.get_mut(name).unwrap();
        if *dtype == Dtype::F64 {
            for (i, element) in data.chunks_exact_mut(8).enumerate() {
                let value = f64::from_le_bytes(element.try_into().unwrap());
                element.copy_from_slice(&change(i, value).to_le_bytes());
            }
        } else {
            for (i, element) in data.chunks_exact_mut(4).enumerate() {
                let value = f32::from_le_bytes(element.try_into().unwrap());
                element.copy_from_slice(&(change(i, value.into()) as f32).to_le_bytes());
            }
        }
    }

    pub fn replace(&mut self, name: &str, shape: &[usize], values: &[f64]) {
        let data = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.tensors.insert(name.to_owned(), (Dtype::F64, shape.to_vec(), data));
    }
}

pub fn parse(bytes: &[u8]) -> Result<Case> {
    Case::from_file(&TensorFile::parse(bytes, Path::new("draft.safetensors"))?)
}
