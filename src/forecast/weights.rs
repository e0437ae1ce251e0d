//! The weights of forecasts that are combined, from their errors.
#![expect(clippy::indexing_slicing, reason = "of a square matrix of the errors' number")]

/// How far the weights are drawn towards those that only the members' own errors would give.
const SHRINKAGE: f64 = 0.3;
/// A member of less weight is left out.
const LEAST_WEIGHT: f64 = 0.03;
/// Most steps on the way to the weights, and the least that is made.
const MOST_STEPS: usize = 2000;
const LEAST_STEP: f64 = 1e-9;

/// Weights, from 0 to 1 and together 1, of the least mean squared error of the combination, with the covariances of different members'
/// errors shrunk: rolling origins are few and alike.
pub(super) fn combination(errors: &[&[f64]]) -> Vec<f64> {
    let count = errors.first().map_or(1, |errors| errors.len()).max(1) as f64;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>() / count;
    let n = errors.len();
    let mut matrix: Vec<Vec<f64>> = (0..n).map(|i| (0..n).map(|j| product(errors[i], errors[j])).collect()).collect();
    for (i, row) in matrix.iter_mut().enumerate() {
        for (j, value) in row.iter_mut().enumerate() {
            if i != j {
                *value *= 1.0 - SHRINKAGE;
            }
        }
    }
    let mut weights = vec![1.0 / n as f64; n];
    for _ in 0..MOST_STEPS {
        let gradient: Vec<f64> =
            matrix.iter().map(|row| row.iter().zip(&weights).map(|(m, w)| m * w).sum::<f64>()).collect();
        // Weight goes from the member that has some and makes the error largest to the one that makes it least, as much as is best for the two.
        let to = (0..n).min_by(|a, b| gradient[*a].total_cmp(&gradient[*b]));
        let from = (0..n).filter(|i| weights[*i] > 0.0).max_by(|a, b| gradient[*a].total_cmp(&gradient[*b]));
        let (Some(to), Some(from)) = (to, from) else { break };
        let (slope, curvature) =
            (gradient[from] - gradient[to], matrix[from][from] + matrix[to][to] - 2.0 * matrix[from][to]);
        // No number where two have the same errors, or none.
        let step = if slope > 0.0 { (slope / curvature).min(weights[from]) } else { 0.0 };
        if step <= LEAST_STEP {
            break;
        }
        weights[to] += step;
        weights[from] = if step < weights[from] { weights[from] - step } else { 0.0 };
    }
    weights.iter_mut().filter(|w| **w < LEAST_WEIGHT).for_each(|w| *w = 0.0);
    let sum: f64 = weights.iter().sum();
    weights.iter_mut().for_each(|w| *w /= sum);
    weights
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_of_errors() {
        let (good, bad) = ([0.1, -0.1, 0.1, -0.1], [2.0, 2.0, -2.0, 1.0]);
        let weights = combination(&[&good, &bad]);
        assert!(weights[0] > 0.95, "{weights:?}");
        // Errors that cancel are combined.
        let weights = combination(&[&[1.0, -1.0, 1.0], &[-1.0, 1.0, -1.0]]);
        assert!((weights[0] - 0.5).abs() < 1e-6);
        assert_eq!(combination(&[&[0.0], &[0.0]]), [0.5, 0.5]);
        // Nearly exact, beside two whose errors cancel in part.
        for size in [1.0, 1e3, 1e-6] {
            let scaled = |errors: [f64; 4]| errors.map(|error| error * size);
            let exact = scaled([1e-4, -2e-4, 1e-4, -1e-4]);
            let (one, other) = (scaled([3.0, -2.0, 2.0, -3.0]), scaled([-2.0, 1.0, -1.5, 1.0]));
            let weights = combination(&[&one, &other, &exact]);
            assert!(weights[2] > 0.999, "{size}: {weights:?}");
        }
    }
}
