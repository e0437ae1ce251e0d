//! What one element adds to a loss, for losses in which elements do not depend on each other.

use super::quantiles::pinball;
use super::{Loss, PROBABILITY_MARGIN, clipped, sign};

/// The value of an element, and its derivative by the prediction, of the losses that [`Loss::element`] does not compute itself.
pub(super) fn element(loss: Loss, t: f64, p: f64) -> (f64, f64) {
    let d = p - t;
    match loss {
        Loss::MeanAbsolutePercentageError => {
            let factor = 100.0 / floor(t.abs(), PROBABILITY_MARGIN);
            (factor * d.abs(), factor * sign(d))
        }
        Loss::MeanSquaredLogarithmicError => {
            let q = floor(p, PROBABILITY_MARGIN);
            let difference = (q + 1.0).ln() - (floor(t, PROBABILITY_MARGIN) + 1.0).ln();
            // NaN counts as above, so that it goes on.
            (difference * difference, if p < PROBABILITY_MARGIN { 0.0 } else { 2.0 * difference / (q + 1.0) })
        }
        // ln cosh d = |d| + ln(1 + e^(-2|d|)) - ln 2, which does not overflow.
        Loss::LogCosh => (d.abs() + (-2.0 * d.abs()).exp().ln_1p() - std::f64::consts::LN_2, d.tanh()),
        Loss::Poisson => {
            let q = p + PROBABILITY_MARGIN;
            (p - t * q.ln(), 1.0 - t / q)
        }
        Loss::Hinge | Loss::SquaredHinge => {
            let t = if t == 0.0 { -1.0 } else { t };
            let margin = 1.0 - t * p;
            match loss {
                _ if margin <= 0.0 => (0.0, 0.0),
                Loss::Hinge => (margin, -t),
                _ => (margin * margin, -2.0 * t * margin),
            }
        }
        Loss::Quantile { quantiles } => pinball(quantiles.levels().first().copied().unwrap_or(f64::NAN), t, p),
        Loss::SmoothedBinaryCrossentropy { from_logits, label_smoothing } => {
            let t = t * (1.0 - label_smoothing) + 0.5 * label_smoothing;
            Loss::BinaryCrossentropy { from_logits }.element(t, p)
        }
        Loss::BinaryFocalCrossentropy { from_logits, alpha, gamma } => {
            let p_given = if from_logits { 1.0 / (1.0 + (-p).exp()) } else { p };
            let (value, slope) = binary_focal(alpha, gamma, t, p_given);
            (value, if from_logits { slope * p_given * (1.0 - p_given) } else { slope })
        }
        // By rows, or computed by the caller: never here.
        _ => (f64::NAN, f64::NAN),
    }
}

/// `(1 - p_t)^gamma` times the binary cross-entropy, times `alpha` where the target is 1 and `1 - alpha` where it is 0.
fn binary_focal(alpha: Option<f64>, gamma: f64, t: f64, p: f64) -> (f64, f64) {
    let (entropy, slope) = Loss::BinaryCrossentropy { from_logits: false }.element(t, p);
    // Clipped like the probability of the entropy: a power below 1 has no finite derivative at 0.
    let (near, inside) = super::clipped(p);
    let missing = 1.0 - (t * near + (1.0 - t) * (1.0 - near));
    let focus = missing.powf(gamma);
    let focus_slope = if gamma == 0.0 || !inside { 0.0 } else { -gamma * missing.powf(gamma - 1.0) * (2.0 * t - 1.0) };
    let weight = alpha.map_or(1.0, |alpha| t * alpha + (1.0 - t) * (1.0 - alpha));
    (weight * focus * entropy, weight * (focus_slope * entropy + focus * slope))
}

/// The larger one; of NaN, NaN.
fn floor(value: f64, least: f64) -> f64 {
    if value < least { least } else { value }
}

/// The value and the slope by the part `q` of a categorical focal term with target `t`.
pub(super) fn categorical_focal(alpha: f64, gamma: f64, t: f64, q: f64) -> (f64, f64) {
    let (q, inside) = clipped(q);
    let focus = alpha * (1.0 - q).powf(gamma);
    let focus_slope = if gamma == 0.0 { 0.0 } else { -alpha * gamma * (1.0 - q).powf(gamma - 1.0) };
    let slope = -t * (focus_slope * q.ln() + focus / q);
    (-t * focus * q.ln(), if inside { slope } else { 0.0 })
}
