//! When two results are the same.
//!
//! Both are computed in double precision, by sums in different orders. A sum of n terms of size s is off by at most n s ε in either
//! (Higham 2002, section 4.2), what it goes through afterwards by a few ε of its size more, and a following step multiplies that by no
//! more than the sums it is part of. The largest cases here have chains of 5 steps, 30 terms a sum, and about 10 operations one after
//! the other: 5 · 30 · 10 ε is 3.3e-13 of the largest size that appears; 1e-12 leaves a factor of three.

use fused_rnn::optim::Adam;
use ndarray::ArrayD;

/// The error allowed, as a part of the largest size in the tensors compared.
pub const TOLERANCE: f64 = 1e-12;

/// The largest size of all elements.
pub fn largest<'a>(arrays: impl IntoIterator<Item = &'a ArrayD<f64>>) -> f64 {
    arrays.into_iter().flatten().fold(0.0, |m, v| v.abs().max(m))
}

/// Where two arrays differ by more than `allowed`.
pub fn difference(what: &str, got: &ArrayD<f64>, expected: &ArrayD<f64>, allowed: f64) -> Result<(), String> {
    if got.shape() != expected.shape() {
        return Err(format!("{what}: shape {:?}, Keras has {:?}", got.shape(), expected.shape()));
    }
    for ((index, got), expected) in got.indexed_iter().zip(expected) {
        // Not-a-number is a difference too.
        let off = (got - expected).abs();
        if off > allowed || off.is_nan() {
            return Err(format!(
                "{what}{:?}: {got}, Keras has {expected}; allowed {allowed:.1e}",
                ndarray::Dimension::slice(&index)
            ));
        }
    }
    Ok(())
}

/// How much weights may differ after one step of Adam whose gradients differ by `error`: the step is
/// `rate g / (|g| + c)`, with `c = epsilon / sqrt(1 - beta_2)`, whose slope is `rate c / (|g| + c)²`.
pub fn adam_difference(
    what: &str,
    got: &ArrayD<f64>,
    expected: &ArrayD<f64>,
    gradient: &ArrayD<f64>,
    error: f64,
    rate: f64,
) -> Result<(), String> {
    let c = 1e-7 / (1.0f64 - 0.999).sqrt();
    if got.shape() != expected.shape() {
        return Err(format!("{what}: shape {:?}, Keras has {:?}", got.shape(), expected.shape()));
    }
    for (((index, got), expected), g) in got.indexed_iter().zip(expected).zip(gradient) {
        // The slope where it is largest between g and what is `error` beside it.
        let slope = rate * c / ((g.abs() - error).max(0.0) + c).powi(2);
        let allowed = slope * error + TOLERANCE * (expected.abs() + rate);
        let off = (got - expected).abs();
        if off > allowed || off.is_nan() {
            return Err(format!(
                "{what}{:?}: {got}, Keras has {expected}; allowed {allowed:.1e}",
                ndarray::Dimension::slice(&index)
            ));
        }
    }
    Ok(())
}

/// A constant as Keras on TensorFlow has it wherever it casts one: `ops.cast(0.9, "float64")` goes by way of single precision.
pub fn single(constant: f64) -> f64 {
    f64::from(constant as f32)
}

/// What Keras's learning rate of Adam is multiplied with at a step, counted from 1, because it casts both betas where it takes powers of
/// them: `sqrt(1 - beta_2^t) / (1 - beta_1^t)` with those over the same without. (At the first step 6.7e-6 less than 1.)
pub fn adam_factor(beta_1: f64, beta_2: f64, step: i32) -> f64 {
    let correction = |beta_1: f64, beta_2: f64| (1.0 - beta_2.powi(step)).sqrt() / (1.0 - beta_1.powi(step));
    correction(single(beta_1), single(beta_2)) / correction(beta_1, beta_2)
}

/// Adam with Keras's defaults for one step.
pub fn adam(rate: f64) -> Result<Adam, String> {
    Adam::new(rate * adam_factor(0.9, 0.999, 1)).map_err(|e| e.to_string())
}
