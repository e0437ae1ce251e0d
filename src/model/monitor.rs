//! Which figure says how good an epoch is: [`Monitor`].

use crate::error::{Error, Result};
use crate::metrics::MetricAccumulator;

/// The figure that says how good an epoch is.
pub(super) struct Monitor {
    /// Its key; without one the validation loss, or the loss.
    key: Option<String>,
    /// 1 where more is better, else -1.
    sign: f64,
}

impl Monitor {
    pub fn new(key: Option<&str>, validated: bool, metrics: &[Vec<MetricAccumulator>]) -> Result<Self> {
        let metrics = || metrics.iter().flatten();
        let Some(key) = key else { return Ok(Monitor { key: None, sign: -1.0 }) };
        let of_validation = key.strip_prefix("val_").filter(|_| validated);
        let known = metrics().find(|metric| [Some(key), of_validation].contains(&Some(&*metric.name())));
        let sign = match known {
            Some(metric) if metric.metric().more_is_better() => 1.0,
            _ => -1.0,
        };
        if known.is_some() || key == "loss" || of_validation == Some("loss") {
            return Ok(Monitor { key: Some(key.to_owned()), sign });
        }
        let names = || std::iter::once("loss".to_owned()).chain(metrics().map(MetricAccumulator::name));
        let of_validation = names().filter(|_| validated).map(|name| format!("val_{name}"));
        let keys: Vec<_> = names().chain(of_validation).collect();
        Err(Error::option("monitor", format!("one of {}", keys.join(", ")), key))
    }

    /// The more the better.
    pub fn score(&self, loss: f64, val_loss: Option<f64>, metrics: &[(String, f64)]) -> f64 {
        let figure = match self.key.as_deref() {
            None => val_loss.unwrap_or(loss),
            Some("loss") => loss,
            Some("val_loss") => val_loss.unwrap_or(f64::NAN),
            Some(key) => metrics.iter().find(|(name, _)| name == key).map_or(f64::NAN, |(_, value)| *value),
        };
        self.sign * figure
    }
}
