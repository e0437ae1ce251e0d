//! Checkpoints of trainings.

use std::ops::ControlFlow;
use std::path::Path;

use fused_rnn::loss::Loss;
use fused_rnn::metrics::{Curve, Metric};
use fused_rnn::model::{
    BackupAndRestore, BatchEnd, Callback, FitOptions, History, Model, Outcome, ReduceLearningRate, SaveFrequency,
    Sequential,
};
use fused_rnn::nn::{ActivationFunction, BatchNormalization, Dense, Lstm};
use fused_rnn::optim::Adam;
use fused_rnn::{Error, Result};
use ndarray::{Array2, Array3};
use serde_json::{Map, Value};

use super::{device, read, scratch, used};

/// The metadata entry with the position.
const KEY: &str = "fused-rnn checkpoint";

/// A checkpoint of the training here. Where the bytes have the form of one, its fingerprint is made right, and settings that are null become those
/// of the training, which have the version of this program in them: an input need not have either.
pub fn checkpoint(bytes: &[u8]) -> bool {
    let path = scratch("checkpoint.safetensors");
    let sealed = sealed(bytes);
    let bytes = sealed.as_deref().unwrap_or(bytes);
    // Removed first, as the other scratch files are.
    let _ = std::fs::remove_file(&path);
    std::fs::write(&path, bytes).expect("written");
    let mut model = model();
    let before = state(&model);
    let saved = scratch("continued.safetensors");
    let mut end = None;
    let read = read(bytes.len(), || {
        let trained = fit(&mut model, &path, usize::MAX);
        end = Some(trained.as_ref().map(|history| history.loss.len()).map_err(|e| matches!(e, Error::Diverged { .. })));
        trained
    });
    match end {
        // Weights and an optimizer's memory that can be may lead anywhere from there.
        Some(Err(true)) => model.save(&saved).expect("after a divergence the weights are finite"),
        Some(Err(false)) | None => {
            assert_eq!(before, state(&model), "a checkpoint that is refused leaves another model");
            assert!(std::fs::read(&path).expect("the file") == bytes, "a checkpoint that is refused is another");
            // It trains as if the file had never been there.
            std::fs::remove_file(&path).expect("removed");
            fit(&mut model, &path, usize::MAX).expect("a training without a checkpoint");
            UNINTERRUPTED.with(|expected| assert_eq!(*expected, state(&model), "what was refused has left something"));
        }
        Some(Ok(epochs)) => {
            assert!(epochs <= EPOCHS, "{epochs} epochs");
            assert!(!path.exists(), "the checkpoint is left after the end");
            if model.save(&saved).is_ok() {
                used::model(&mut model);
            }
        }
    }
    read.is_some()
}

const EPOCHS: usize = 3;
const SAMPLES: usize = 6;
const BATCH: usize = 2;

/// A model with a layer that carries states, statistics, and sums of every kind of metric.
fn model() -> Model {
    let mut model = Sequential::new(device(), &[2, 1], 1).expect("a model");
    let dense = Dense::new(1).activation(ActivationFunction::Sigmoid);
    model.add(Lstm::new(2).stateful(true)).and_then(|m| m.add(BatchNormalization::new())).expect("layers");
    model.add(dense).expect("a layer");
    model.compile(Adam::default(), Loss::BinaryCrossentropy { from_logits: false }).expect("compiled");
    let few = Metric::Auc { curve: Curve::Roc, thresholds: 4, from_logits: false };
    let [error, precision, spread] = ["mae", "precision", "r2_score"].map(|name| name.parse().expect("a metric"));
    model.metrics(&[error, precision, spread, few]);
    model.into_model()
}

thread_local! {
    /// The model after the training without a checkpoint.
    static UNINTERRUPTED: (Vec<u32>, Vec<u32>) = {
        let mut model = model();
        fit(&mut model, &scratch("uninterrupted.safetensors"), usize::MAX).expect("a training");
        state(&model)
    };
}

/// Weights that training changes, and all of them, by their bits.
fn state(model: &Model) -> (Vec<u32>, Vec<u32>) {
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect();
    let statistics = model.weights().flat_map(|(name, ..)| model.weight::<f32>(&name).expect("a weight")).collect();
    (bits(model.flat_weights().expect("weights")), bits(statistics))
}

/// Stops after so many batches of the second epoch.
struct StopAfter(usize);

impl Callback for StopAfter {
    fn on_batch_end(&mut self, state: &BatchEnd<'_>) -> ControlFlow<()> {
        if state.epoch == 2 && state.batch == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// The training, which goes on from what is at `path`.
fn fit(model: &mut Model, path: &Path, stop: usize) -> Result<History> {
    let x = Array3::from_shape_fn((SAMPLES, 2, 1), |(n, t, _)| (n * 2 + t) as f32 / 12.0);
    let y = Array2::from_shape_fn((SAMPLES, 1), |(n, _)| (n % 2) as f32);
    let (mut plateau, mut stop) = (ReduceLearningRate::new(0.5, 1)?, StopAfter(stop));
    let backup = BackupAndRestore::new(path).save_freq(SaveFrequency::Epochs(100));
    let callbacks: Vec<&mut dyn Callback> = vec![&mut plateau, &mut stop];
    let options = FitOptions {
        epochs: EPOCHS,
        batch_size: BATCH,
        shuffle: false,
        backup: Some(backup),
        callbacks,
        ..FitOptions::default()
    };
    model.fit(&x, &y, options)
}

/// A checkpoint as the training writes it, after so many batches of its second epoch.
pub fn written(batches: usize) -> Vec<u8> {
    let path = scratch("written_checkpoint.safetensors");
    let history = fit(&mut model(), &path, batches).expect("a training");
    assert_eq!(history.outcome, Outcome::Interrupted);
    let bytes = std::fs::read(&path).expect("the file");
    std::fs::remove_file(&path).expect("removed");
    bytes
}

/// A safetensors file in its parts: the header, and the bytes behind it.
fn parts(bytes: &[u8]) -> Option<(Map<String, Value>, &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<8>()?;
    let (header, data) = rest.split_at_checked(usize::try_from(u64::from_le_bytes(*length)).ok()?)?;
    Some((serde_json::from_slice(header).ok()?, data))
}

fn joined(header: &Map<String, Value>, data: &[u8]) -> Option<Vec<u8>> {
    let header = serde_json::to_vec(header).ok()?;
    Some([&(header.len() as u64).to_le_bytes()[..], &header, data].concat())
}

/// The position in a header, its fingerprint left out where it is there.
fn position(header: &Map<String, Value>) -> Option<Value> {
    let entry = header.get("__metadata__")?.get(KEY)?.as_str()?;
    serde_json::from_str(entry).or_else(|_| serde_json::from_str(entry.get(16..).unwrap_or_default())).ok()
}

/// The same file without its fingerprint and its settings: an input for any version of this program.
#[allow(dead_code, reason = "for the first inputs, which the test of the corpora writes")]
pub fn opened(bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut header, data) = parts(bytes)?;
    let mut position = position(&header)?;
    *position.get_mut("settings")? = Value::Null;
    *header.get_mut("__metadata__")?.get_mut(KEY)? = Value::String(position.to_string());
    joined(&header, data)
}

/// The same file with the fingerprint that it should have.
fn sealed(bytes: &[u8]) -> Option<Vec<u8>> {
    thread_local! {
        static SETTINGS: Value = {
            let written = written(1);
            let (header, _) = parts(&written).expect("a safetensors file");
            position(&header).expect("a position")["settings"].take()
        };
    }
    let (mut header, data) = parts(bytes)?;
    let mut position = position(&header)?;
    if let Some(settings) = position.get_mut("settings").filter(|settings| settings.is_null()) {
        *settings = SETTINGS.with(Value::clone);
    }
    let json = position.to_string();
    let mut all = Fingerprint(START);
    all.add(json.as_bytes());
    let mut names: Vec<_> = header.keys().filter(|name| *name != "__metadata__").collect();
    names.sort();
    for name in names {
        let offset = |i: usize| header[name].get("data_offsets")?.get(i)?.as_u64().map(|at| at as usize);
        all.add(name.as_bytes());
        all.add(data.get(offset(0)?..offset(1)?).unwrap_or_default());
    }
    *header.get_mut("__metadata__")?.get_mut(KEY)? = Value::String(format!("{:016x}{json}", all.0));
    joined(&header, data)
}

/// A checkpoint's own checksum, which `src/model/fingerprint.rs` describes.
struct Fingerprint(u64);

const START: u64 = 0xcbf2_9ce4_8422_2325;

impl Fingerprint {
    fn step(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(0x0100_0000_01b3).rotate_left(29);
    }

    fn add(&mut self, bytes: &[u8]) {
        let (words, rest) = bytes.as_chunks::<8>();
        words.iter().for_each(|word| self.step(u64::from_le_bytes(*word)));
        rest.iter().for_each(|byte| self.step(u64::from(*byte)));
        self.step(bytes.len() as u64);
    }
}
