//! The loss of a row, for losses in which the elements of a row depend on each other.

use super::element::categorical_focal;
use super::quantiles::pinball;
use super::{Loss, PROBABILITY_MARGIN, clipped};
use crate::dtype::Scalar;

/// The loss of a row; its derivatives by the predictions go to `slope`, each once.
pub(super) fn row<E: Scalar>(loss: Loss, targets: &[E], predictions: &[E], mut slope: impl FnMut(usize, f64)) -> f64 {
    let pairs = || targets.iter().zip(predictions).map(|(t, p)| (t.wide(), p.wide()));
    let target = |c: usize| targets.get(c).map_or(f64::NAN, |t| t.wide());
    match loss {
        Loss::CategoricalCrossentropy { from_logits } => categorical(from_logits, target, predictions, slope),
        Loss::SparseCategoricalCrossentropy { from_logits } => {
            let class = target(0);
            categorical(from_logits, |c| f64::from(class == c as f64), predictions, slope)
        }
        Loss::SmoothedCategoricalCrossentropy { from_logits, label_smoothing } => {
            let each = label_smoothing / predictions.len() as f64;
            categorical(from_logits, |c| target(c) * (1.0 - label_smoothing) + each, predictions, slope)
        }
        Loss::CategoricalFocalCrossentropy { from_logits, alpha, gamma } => {
            let term = |c: usize, q: f64| categorical_focal(alpha, gamma, target(c), q);
            by_parts(from_logits, predictions, term, slope)
        }
        Loss::KlDivergence => {
            let within = |v: f64| if v < PROBABILITY_MARGIN { PROBABILITY_MARGIN } else { v.min(1.0) };
            let mut value = 0.0;
            for (c, (t, p)) in pairs().enumerate() {
                // `min` and `max` would make a number of NaN.
                let (t, q) = (if t.is_nan() { t } else { within(t) }, if p.is_nan() { p } else { within(p) });
                value += t * (t / q).ln();
                slope(c, if q == p || p.is_nan() { -t / q } else { 0.0 });
            }
            value
        }
        Loss::CosineSimilarity => {
            let norm = |squares: f64| if squares.sqrt() < PROBABILITY_MARGIN { None } else { Some(squares.sqrt()) };
            let (of_t, of_p) = (norm(pairs().map(|(t, _)| t * t).sum()), norm(pairs().map(|(_, p)| p * p).sum()));
            let by_t = 1.0 / of_t.unwrap_or(PROBABILITY_MARGIN);
            let by_p = 1.0 / of_p.unwrap_or(PROBABILITY_MARGIN);
            let cosine: f64 = pairs().map(|(t, p)| t * by_t * p * by_p).sum();
            for (c, (t, p)) in pairs().enumerate() {
                // Predictions shorter than the margin are divided by a constant, which has no derivative.
                let along = if of_p.is_some() { p * by_p * cosine } else { 0.0 };
                slope(c, -(t * by_t - along) * by_p);
            }
            -cosine
        }
        Loss::CategoricalHinge => {
            let (mut right, mut wrong, mut largest) = (0.0, f64::NEG_INFINITY, 0);
            for (c, (t, p)) in pairs().enumerate() {
                right += t * p;
                let other = (1.0 - t) * p;
                if other > wrong || other.is_nan() {
                    (wrong, largest) = (other, c);
                }
            }
            let value = wrong - right + 1.0;
            for (c, (t, _)) in pairs().enumerate() {
                let of_largest = if c == largest { 1.0 - t } else { 0.0 };
                slope(c, if value <= 0.0 { 0.0 } else { of_largest - t });
            }
            if value <= 0.0 { 0.0 } else { value }
        }
        Loss::Quantile { quantiles } => {
            let (t, count) = (target(0), predictions.len() as f64);
            let mut value = 0.0;
            for (c, (level, p)) in quantiles.levels().iter().zip(predictions).enumerate() {
                let (of_element, of_slope) = pinball(*level, t, p.wide());
                value += of_element / count;
                slope(c, of_slope / count);
            }
            value
        }
        // By elements, never here.
        _ => f64::NAN,
    }
}

/// A sum of terms of each prediction's part of the row: its quotient by their sum, or their softmax. `term` gives the value and its
/// derivative by that part.
fn by_parts<E: Scalar>(
    softmax: bool,
    predictions: &[E],
    term: impl Fn(usize, f64) -> (f64, f64),
    mut slope: impl FnMut(usize, f64),
) -> f64 {
    let largest = predictions.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.wide()));
    let size = |p: &E| if softmax { (p.wide() - largest).exp() } else { p.wide() };
    let total: f64 = predictions.iter().map(size).sum();
    let (mut value, mut mean) = (0.0, 0.0);
    for (c, p) in predictions.iter().enumerate() {
        let q = size(p) / total;
        let (of_term, g) = term(c, q);
        value += of_term;
        mean += g * q;
    }
    for (c, p) in predictions.iter().enumerate() {
        let q = size(p) / total;
        let centred = term(c, q).1 - mean;
        slope(c, if softmax { q * centred } else { centred / total });
    }
    value
}

/// The cross-entropy of a row whose columns have these targets.
fn categorical<E: Scalar>(
    from_logits: bool,
    target: impl Fn(usize) -> f64,
    predictions: &[E],
    mut slope: impl FnMut(usize, f64),
) -> f64 {
    if from_logits {
        let largest = predictions.iter().fold(f64::NEG_INFINITY, |m, p| m.max(p.wide()));
        let total: f64 = predictions.iter().map(|p| (p.wide() - largest).exp()).sum();
        let weight: f64 = (0..predictions.len()).map(&target).sum();
        let mut value = 0.0;
        for (c, p) in predictions.iter().enumerate() {
            let shifted = p.wide() - largest;
            value += target(c) * (total.ln() - shifted);
            slope(c, weight * shifted.exp() / total - target(c));
        }
        return value;
    }
    // q = p / total; d(-sum t ln q)/dq = -t / q = g, and dq_i/dp_j = (i == j) / total - p_i / total².
    let total: f64 = predictions.iter().map(|p| p.wide()).sum();
    let by_quotient = |c: usize, p: &E| {
        let (q, inside) = clipped(p.wide() / total);
        (q, if inside { -target(c) / q } else { 0.0 })
    };
    let (mut value, mut mean) = (0.0, 0.0);
    for (c, p) in predictions.iter().enumerate() {
        let (q, g) = by_quotient(c, p);
        value -= target(c) * q.ln();
        mean += g * q;
    }
    for (c, p) in predictions.iter().enumerate() {
        slope(c, (by_quotient(c, p).1 - mean) / total);
    }
    value
}
