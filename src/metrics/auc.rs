//! Areas under curves by thresholds, which need no predictions of earlier batches: Keras's
//! [`AUC`](https://keras.io/api/metrics/classification_metrics/#auc-class).

use crate::error::{Error, Result};

/// Which curve an area is under.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Curve {
    /// The fraction of ones that are found over the fraction of zeros that are taken for one: Keras's `"ROC"`.
    #[default]
    Roc,
    /// Precision over recall: Keras's `"PR"`.
    PrecisionRecall,
}

/// Weights of ones and of zeros among the predictions between two neighbouring thresholds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Bucket {
    pub ones: f64,
    pub zeros: f64,
}

/// Adds a prediction to its bucket: that of the largest of the thresholds 0, 1/(n-1), 2/(n-1), … below it.
pub(super) fn count(
    buckets: &mut [Bucket],
    prediction: f64,
    is_one: bool,
    weight: f64,
    position: impl Fn() -> String,
) -> Result<()> {
    if !(0.0..=1.0).contains(&prediction) {
        let expected = "a probability, 0 to 1; of logits, set from_logits";
        return Err(Error::option(format!("prediction for auc at {}", position()), expected, prediction));
    }
    let last = buckets.len().saturating_sub(1);
    let above = (prediction * last as f64).ceil() as usize;
    if let Some(bucket) = buckets.get_mut(above.saturating_sub(1).min(last)) {
        *(if is_one { &mut bucket.ones } else { &mut bucket.zeros }) += weight;
    }
    Ok(())
}

/// Zero where the divisor is.
fn quotient(a: f64, b: f64) -> f64 {
    if b == 0.0 { 0.0 } else { a / b }
}

/// The area. The first threshold is below all predictions, the last above them.
pub(super) fn area(buckets: &[Bucket], curve: Curve) -> f64 {
    // Ones and zeros above each threshold.
    let mut above = vec![Bucket::default(); buckets.len()];
    let mut sum = Bucket::default();
    for (above, bucket) in above.iter_mut().zip(buckets).rev() {
        sum = Bucket { ones: sum.ones + bucket.ones, zeros: sum.zeros + bucket.zeros };
        *above = sum;
    }
    let increments = above.array_windows().map(|[low, high]| match curve {
        Curve::Roc => {
            let width = quotient(low.zeros, sum.zeros) - quotient(high.zeros, sum.zeros);
            width * (quotient(low.ones, sum.ones) + quotient(high.ones, sum.ones)) / 2.0
        }
        // Between two thresholds the counts are on a line, which precision is not
        // (Davis and Goadrich 2006, https://doi.org/10.1145/1143844.1143874).
        Curve::PrecisionRecall => {
            let (all_low, all_high) = (low.ones + low.zeros, high.ones + high.zeros);
            let hits = low.ones - high.ones;
            let slope = quotient(hits, (all_low - all_high).max(0.0));
            let intercept = high.ones - slope * all_high;
            let ratio = if all_low > 0.0 && all_high > 0.0 { all_low / all_high } else { 1.0 };
            quotient(slope * (hits + intercept * ratio.ln()), sum.ones)
        }
    });
    increments.sum()
}
