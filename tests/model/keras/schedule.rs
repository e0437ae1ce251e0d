//! Learning rates by step, whose names and constants are Keras's own.

use fused_rnn::optim::Schedule;
use serde_json::Value;

use super::case::Case;

/// Runs a case.
pub fn check(case: &Case) -> Result<(), String> {
    let mut description = case.json["config"].clone();
    description["class"] = case.json["class"].clone();
    let schedule: Schedule = serde_json::from_value(description.clone()).map_err(|e| format!("{description}: {e}"))?;
    schedule.validate().map_err(|e| e.to_string())?;
    let written: Value = serde_json::to_value(&schedule).map_err(|e| e.to_string())?;
    if written != description {
        return Err(format!("{description} is written as {written}"));
    }
    let steps: Vec<f64> = case.array("step").into_iter().collect();
    for (step, expected) in steps.iter().zip(case.array("learning_rate")) {
        let got = schedule.rate(*step as u64);
        // Rates are up to 0.1, and Keras computes them in single precision whatever a model's is: a few roundings of that.
        if (got - expected).abs() > 0.1 * 8.0 * f64::from(f32::EPSILON) {
            return Err(format!("step {step}: {got}, Keras has {expected}"));
        }
    }
    Ok(())
}
