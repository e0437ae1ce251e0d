//! Where training stands: [`Position`], and a checkpoint as a file.
//!
//! A checkpoint is a safetensors file: tensors of weights and of what belongs to them, and the position as JSON in the metadata, behind a fingerprint
//! of both. Numbers that may be anything, NaN too, stand there by their bits.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::backend::ops::{Report, STATUS_LEN};
use crate::backend::{Tensor, TensorRef};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::interop::safetensors::{self, NamedTensor, TensorFile};
use crate::model::backup::settings::Settings;
use crate::model::fingerprint::Fingerprint;
use crate::model::{History, LossScale, Outcome};

/// The metadata entry that holds the position.
const KEY: &str = "fused-rnn checkpoint";

/// Version of the format.
pub(super) const VERSION: u32 = 1;

/// Hexadecimal digits of a fingerprint.
const DIGITS: usize = 16;

/// A number by its bits.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(from = "u64", into = "u64")]
pub(in crate::model) struct Bits(pub f64);

impl From<u64> for Bits {
    fn from(bits: u64) -> Self {
        Bits(f64::from_bits(bits))
    }
}

impl From<Bits> for u64 {
    fn from(number: Bits) -> Self {
        number.0.to_bits()
    }
}

fn bits(numbers: &[f64]) -> Vec<Bits> {
    numbers.iter().copied().map(Bits).collect()
}

fn numbers(bits: Vec<Bits>) -> Vec<f64> {
    bits.into_iter().map(|number| number.0).collect()
}

/// An epoch that is not completed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::model) struct Begun {
    /// Batches that are done.
    pub batches: usize,
    /// Samples of them.
    pub samples: usize,
    /// The batch after which the loss was looked at, and what it was.
    pub looked: usize,
    pub loss: Bits,
    pub status: [Bits; STATUS_LEN],
    /// What the metrics of each output have summed up.
    pub metrics: Vec<Vec<Vec<Bits>>>,
}

impl Begun {
    /// Whether its sums can be of batches that have all gone well.
    pub fn is_sound(&self) -> bool {
        let report = Report::new(&self.status.map(|number| number.0));
        report.total.is_finite() && [report.bad_loss, report.bad_gradient, report.bad_index].iter().all(Option::is_none)
    }
}

/// The history of the epochs that are completed.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SavedHistory {
    pub loss: Vec<Bits>,
    pub val_loss: Vec<Bits>,
    pub metrics: Vec<(String, Vec<Bits>)>,
    pub learning_rate: Vec<Bits>,
    pub best_epoch: Option<usize>,
    pub outcome: Outcome,
}

impl SavedHistory {
    pub fn new(history: &History) -> Self {
        SavedHistory {
            loss: bits(&history.loss),
            val_loss: bits(&history.val_loss),
            metrics: history.metrics.iter().map(|(name, values)| (name.clone(), bits(values))).collect(),
            learning_rate: bits(&history.learning_rate),
            best_epoch: history.best_epoch,
            outcome: history.outcome,
        }
    }

    /// Whether its parts fit each other, and the figures of an epoch: the names of metrics, and whether there is a validation.
    pub fn fits(&self, (names, validates): &(Vec<String>, bool)) -> bool {
        let epochs = self.loss.len();
        self.learning_rate.len() == epochs
            && self.val_loss.len() == if *validates { epochs } else { 0 }
            && (epochs == 0 && self.metrics.is_empty() || self.metrics.iter().map(|(name, _)| name).eq(names))
            && self.metrics.iter().all(|(_, values)| values.len() == epochs)
            && self.best_epoch.is_none_or(|best| (1..=epochs).contains(&best))
    }

    /// The history again.
    pub fn build(self) -> History {
        History {
            loss: numbers(self.loss),
            val_loss: numbers(self.val_loss),
            metrics: self.metrics.into_iter().map(|(name, values)| (name, numbers(values))).collect(),
            learning_rate: numbers(self.learning_rate),
            best_epoch: self.best_epoch,
            outcome: self.outcome,
        }
    }
}

/// Where training stands, but for tensors.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Position {
    pub version: u32,
    pub settings: Settings,
    pub history: SavedHistory,
    /// Whether training has ended by itself.
    pub ended: bool,
    /// The epoch after those of the history, where some of its batches are done.
    pub begun: Option<Begun>,
    pub best_score: Bits,
    pub first_rate: Bits,
    pub learning_rate: Bits,
    pub steps: u64,
    /// Epochs that the model was trained, in earlier calls too.
    pub epochs: u32,
    /// Batches that it was.
    pub batches: u64,
    pub loss_scale: Option<LossScale>,
    /// Batches of an epoch, as far as they are known.
    pub batches_of_epoch: usize,
    /// What each callback remembers.
    pub callbacks: Vec<Option<String>>,
    /// Of each stateful operation the rows and number of the tensors that it carries.
    pub carried: Vec<Option<(usize, usize)>>,
}

pub(super) fn damaged(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format {
        path: path.to_owned(),
        format: "checkpoint",
        problem: format!("{}; remove it to begin anew", problem.into()),
    }
}

/// A fingerprint of everything in a checkpoint.
fn fingerprint<'t>(json: &str, tensors: impl Iterator<Item = (&'t str, &'t [u8])>) -> Fingerprint {
    let mut all = Fingerprint::of(json.as_bytes());
    for (name, bytes) in tensors {
        all.add(name.as_bytes()).add(bytes);
    }
    all
}

/// Writes a checkpoint, whose tensors are in the host's memory.
pub(super) fn write(path: &Path, position: &Position, tensors: &[(String, TensorRef<'_>)]) -> Result<()> {
    let json = serde_json::to_string(position).map_err(Error::other)?;
    let mut tensors: Vec<_> = tensors.iter().filter(|(_, tensor)| !tensor.is_empty()).collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let bytes = tensors.iter().map(|(name, tensor)| (name.as_str(), tensor.bytes().unwrap_or_default()));
    let entry = format!("{:0DIGITS$x}{json}", fingerprint(&json, bytes).get());
    let named: Vec<NamedTensor<'_>> =
        tensors.iter().map(|(name, tensor)| (name.as_str(), vec![tensor.len()], *tensor)).collect();
    safetensors::write(path, KEY, &entry, &named)
}

/// Reads a checkpoint; none where there is no file.
pub(super) fn read(path: &Path) -> Result<Option<(Position, TensorFile)>> {
    let file = match TensorFile::read(path) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(Error::Format { problem, .. }) => return Err(damaged(path, problem)),
        file => file?,
    };
    let entry = file.metadata(KEY).ok_or_else(|| damaged(path, format!("no entry {KEY} in its metadata")))?;
    let (digits, json) = entry.split_at_checked(DIGITS).ok_or_else(|| damaged(path, "its entry is cut off"))?;
    let bytes = file.names().map(|name| (name, file.bytes(name).unwrap_or_default()));
    if u64::from_str_radix(digits, 16) != Ok(fingerprint(json, bytes).get()) {
        return Err(damaged(path, "its content is not what was written"));
    }
    let position: Position = serde_json::from_str(json).map_err(|e| damaged(path, format!("entry {KEY}: {e}")))?;
    if position.version != VERSION {
        let problem = format!("version {} of the format; this program reads {VERSION}", position.version);
        return Err(damaged(path, problem));
    }
    Ok(Some((position, file)))
}

/// A tensor of a checkpoint, of so many elements.
pub(super) fn tensor(file: &TensorFile, name: &str, dtype: DType, len: usize) -> Result<Tensor> {
    let mut tensor = Tensor::on_host(name, dtype, len)?;
    if len == 0 {
        return Ok(tensor);
    }
    if file.shape(name) != Some(&[len][..]) {
        let got = file.shape(name).map_or("none".to_owned(), |shape| format!("{shape:?}"));
        return Err(damaged(file.path(), format!("tensor {name}: expected shape [{len}], got {got}")));
    }
    match dtype {
        DType::F64 => tensor.view_mut().host::<f64>()?.copy_from_slice(&file.floats::<f64>(name)?.1),
        _ => tensor.view_mut().host::<f32>()?.copy_from_slice(&file.floats::<f32>(name)?.1),
    }
    Ok(tensor)
}
