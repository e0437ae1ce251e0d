//! The weights of forecasts that are combined, from their errors.
#![expect(clippy::indexing_slicing, reason = "of a square matrix of the errors' number")]

/// How far the weights are drawn towards those that only the members' own errors would give.
const SHRINKAGE: f64 = 0.3;
/// A member of less weight is left out.
const LEAST_WEIGHT: f64 = 0.03;

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
    let largest = (0..n).map(|i| matrix[i][i]).fold(0.0, f64::max);
    let mut weights = vec![1.0 / n as f64; n];
    if largest <= 0.0 {
        return weights;
    }
    // Exponentiated gradients stay within the simplex.
    for _ in 0..2000 {
        let gradient: Vec<f64> =
            matrix.iter().map(|row| row.iter().zip(&weights).map(|(m, w)| m * w).sum::<f64>()).collect();
        let least = gradient.iter().copied().fold(f64::INFINITY, f64::min);
        let smallest = (0..n).map(|i| matrix[i][i]).fold(f64::INFINITY, f64::min).max(largest * 1e-9);
        weights.iter_mut().zip(&gradient).for_each(|(w, g)| *w *= (-0.1 * (g - least) / smallest).exp());
        let sum: f64 = weights.iter().sum();
        weights.iter_mut().for_each(|w| *w /= sum);
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
    }
}
