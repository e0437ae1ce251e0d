//! What training depends on beside its checkpoint: [`Settings`].

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::model::arrays::Data;
use crate::model::file::SavedLoss;
use crate::model::fingerprint::Fingerprint;
use crate::model::{BackupAndRestore, FitOptions, Model};
use crate::optim::OptimizerConfig;

/// Everything that must be the same for training to go on with the same bits, each with its name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(in crate::model) struct Settings(Vec<(String, String)>);

/// Bytes, by how many they are and their fingerprint.
pub(super) fn shown(bytes: usize, fingerprint: Fingerprint) -> String {
    format!("{bytes} bytes with the fingerprint {:016x}", fingerprint.get())
}

fn json(value: &impl Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(Error::other)
}

/// An optimizer without its learning rate, which changes while it trains.
fn rule(config: OptimizerConfig) -> Result<String> {
    let mut rule = serde_json::to_value(config).map_err(Error::other)?;
    if let Some(constants) = rule.as_object_mut() {
        constants.remove("learning_rate");
    }
    Ok(rule.to_string())
}

impl Settings {
    /// Those of a model and its options; the data are added. Not how many epochs there are: nothing in an epoch depends on it. A schedule counts steps
    /// of its own, and is one of these.
    pub fn of(model: &Model, options: &FitOptions<'_>, backup: &BackupAndRestore) -> Result<Self> {
        let mut settings = Settings(backup.settings.clone());
        settings.add("version of fused-rnn", env!("CARGO_PKG_VERSION"));
        settings.add("device", format!("{} in {}", model.device.name(), model.dtype()));
        settings.add("seed of the model", model.seed);
        settings.add_layers(model)?;
        let losses = model.outputs.iter().map(|output| (SavedLoss::new(&output.loss), output.loss_weight));
        settings.add("losses", json(&losses.collect::<Vec<_>>())?);
        settings.add("optimizer", rule(model.optimizer.config())?);
        settings.add("schedule", json(&model.schedule)?);
        let growth = model.loss_scale.map(|scale| scale.growth_steps());
        settings.add("loss scale", format!("{growth:?}"));
        settings.add("metrics", format!("{:?}", model.metrics));
        settings.add("weighted_metrics", format!("{:?}", model.weighted_metrics));
        settings.add("inference_batch_size", format!("{:?}", model.inference_batch_size));
        settings.add("batch_size", options.batch_size);
        settings.add("shuffle", options.shuffle);
        settings.add("validation_split", options.validation_split);
        settings.add("validation_batches", if options.validation_batches.is_some() { "given" } else { "none" });
        settings.add("class_weight", format!("{:?}", options.class_weight));
        settings.add("monitor", options.monitor.unwrap_or("the default"));
        settings.add("early_stopping", format!("{:?}", options.early_stopping));
        settings.add("clip", format!("{:?}", options.clip));
        settings.add("loss_every", options.loss_every);
        Ok(settings)
    }

    fn add(&mut self, name: impl Into<String>, value: impl ToString) {
        self.0.push((name.into(), value.to_string()));
    }

    /// What the layers are, and the weights that training leaves as they are.
    fn add_layers(&mut self, model: &Model) -> Result<()> {
        let mut layers = Fingerprint::new();
        // Layers of one's own have no configuration; their weights tell something.
        if let Ok(config) = model.config() {
            layers.add(json(&config)?.as_bytes());
        }
        for (name, shape, _) in model.weights() {
            layers.add(format!("{name} {shape:?}").as_bytes());
        }
        let named = &model.topology.layers;
        self.add("layers", format!("{} with the fingerprint {:016x}", named.len(), layers.get()));
        let frozen = model.network.frozen.host().bytes().unwrap_or_default();
        self.add("frozen weights", shown(frozen.len(), Fingerprint::of(frozen)));
        Ok(())
    }

    /// Adds arrays. `prefix` is before their names: `"validation "`, or nothing.
    pub fn add_data(&mut self, prefix: &str, data: &Data<'_>) {
        for (name, arrays) in [("x", &data.x), ("y", &data.y)] {
            for (number, array) in arrays.iter().enumerate() {
                let bytes = array.values().bytes().unwrap_or_default();
                let name = if arrays.len() == 1 { name.to_owned() } else { format!("{name}[{number}]") };
                let value = format!("{:?}, {}", array.shape(), shown(bytes.len(), Fingerprint::of(bytes)));
                self.add(format!("{prefix}{name}"), value);
            }
        }
        let mut weights = Fingerprint::new();
        let mut len = 0;
        for tensor in &data.weights {
            let bytes = tensor.view().bytes().unwrap_or_default();
            len += bytes.len();
            weights.add(bytes);
        }
        self.add(format!("{prefix}sample_weight and class_weight"), shown(len, weights));
    }

    /// Refuses a training with other settings than these, which the checkpoint at `path` has.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] naming the first that differs.
    pub fn check(&self, now: &Settings, path: &Path) -> Result<()> {
        let of = |settings: &Settings| settings.0.iter().cloned().collect::<BTreeMap<_, _>>();
        let (mut then, mut now_known) = (of(self), of(now));
        for (name, _) in self.0.iter().chain(&now.0) {
            let (then, now) = (then.remove(name), now_known.remove(name));
            if then != now {
                return Err(differs(name, then, now, path));
            }
        }
        Ok(())
    }
}

/// The error of a setting that is not that of a checkpoint.
pub(super) fn differs(name: &str, then: Option<impl ToString>, now: Option<impl ToString>, path: &Path) -> Error {
    let shown = |value: Option<String>| value.unwrap_or_else(|| "none".to_owned());
    let then = shown(then.map(|value| value.to_string()));
    let expected =
        format!("{then}, as in the training that {} goes on with (or remove that file to begin anew)", path.display());
    Error::option(name, expected, shown(now.map(|value| value.to_string())))
}
