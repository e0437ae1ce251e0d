//! Normalization by rows and by columns.

use crate::backend::WeightGrad;
use crate::dtype::Scalar;

/// What the gradients of a normalization go to.
pub struct NormGradients<'a, E> {
    /// Set (`=`).
    pub(crate) dx: Option<&'a mut [E]>,
    pub(crate) dgamma: Option<&'a mut [E]>,
    pub(crate) dbeta: Option<&'a mut [E]>,
    /// What becomes of `dgamma` and `dbeta`.
    pub(crate) grad: WeightGrad,
}

/// See [`Operations::layer_norm`](crate::backend::Operations::layer_norm).
pub(crate) fn layer_norm<E: Scalar>(
    columns: usize,
    epsilon: f64,
    x: &[E],
    gamma: Option<&[E]>,
    beta: Option<&[E]>,
    y: &mut [E],
    statistics: &mut [E],
) {
    let (count, epsilon) = (E::of(columns as f64), E::of(epsilon));
    for ((x, y), statistics) in
        x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)).zip(statistics.chunks_exact_mut(2))
    {
        let mean = x.iter().copied().sum::<E>() / count;
        let variance = x.iter().map(|x| (*x - mean) * (*x - mean)).sum::<E>() / count;
        let inverse = E::one() / (variance + epsilon).sqrt();
        statistics.copy_from_slice(&[mean, inverse]);
        for (c, (y, x)) in y.iter_mut().zip(x).enumerate() {
            let scaled = (*x - mean) * inverse * gamma.map_or(E::one(), |gamma| gamma[c]);
            *y = scaled + beta.map_or(E::zero(), |beta| beta[c]);
        }
    }
}

/// See [`Operations::layer_norm_gradient`](crate::backend::Operations::layer_norm_gradient).
pub(crate) fn layer_norm_gradient<E: Scalar>(
    columns: usize,
    x: &[E],
    gamma: Option<&[E]>,
    statistics: &[E],
    dy: &[E],
    to: NormGradients<'_, E>,
) {
    let NormGradients { mut dx, mut dgamma, mut dbeta, grad } = to;
    if grad == WeightGrad::Set {
        for gradient in [&mut dgamma, &mut dbeta].into_iter().flatten() {
            gradient.fill(E::zero());
        }
    }
    let count = E::of(columns as f64);
    for row in 0..x.len() / columns {
        let range = row * columns..(row + 1) * columns;
        let (x, dy) = (&x[range.clone()], &dy[range.clone()]);
        let (mean, inverse) = (statistics[2 * row], statistics[2 * row + 1]);
        // With n the normalised x and g = dy gamma: dx = (g - mean(g) - n mean(g n)) / deviation.
        let slope = |c: usize| dy[c] * gamma.map_or(E::one(), |gamma| gamma[c]);
        let normal = |c: usize| (x[c] - mean) * inverse;
        if let Some(dgamma) = dgamma.as_deref_mut() {
            dgamma.iter_mut().enumerate().for_each(|(c, d)| *d += dy[c] * normal(c));
        }
        if let Some(dbeta) = dbeta.as_deref_mut() {
            dbeta.iter_mut().zip(dy).for_each(|(d, dy)| *d += *dy);
        }
        if let Some(dx) = dx.as_deref_mut() {
            let first = (0..columns).map(slope).sum::<E>() / count;
            let second = (0..columns).map(|c| slope(c) * normal(c)).sum::<E>() / count;
            for (c, dx) in dx[range].iter_mut().enumerate() {
                *dx = (slope(c) - first - normal(c) * second) * inverse;
            }
        }
    }
}

/// See [`Operations::column_moments`](crate::backend::Operations::column_moments).
pub(crate) fn column_moments<E: Scalar>(
    columns: usize,
    x: &[E],
    weights: Option<&[E]>,
    mean: &mut [E],
    variance: &mut [E],
) {
    let weight = |row: usize| weights.map_or(E::one(), |weights| weights[row]);
    let total: E = (0..x.len() / columns).map(weight).sum();
    mean.fill(E::zero());
    variance.fill(E::zero());
    if total == E::zero() {
        return;
    }
    for (row, x) in x.chunks_exact(columns).enumerate() {
        mean.iter_mut().zip(x).for_each(|(mean, x)| *mean += weight(row) * *x);
    }
    mean.iter_mut().for_each(|mean| *mean /= total);
    for (row, x) in x.chunks_exact(columns).enumerate() {
        let w = weight(row);
        for ((v, mean), x) in variance.iter_mut().zip(&*mean).zip(x) {
            *v += w * (*x - *mean) * (*x - *mean);
        }
    }
    variance.iter_mut().for_each(|v| *v /= total);
}

/// Mean and variance of columns, and what is added to the variance.
#[derive(Clone, Copy)]
pub struct Moments<'a, E> {
    pub(crate) epsilon: f64,
    pub(crate) mean: &'a [E],
    pub(crate) variance: &'a [E],
}

/// See [`Operations::batch_norm`](crate::backend::Operations::batch_norm).
pub(crate) fn batch_norm<E: Scalar>(
    x: &[E],
    moments: Moments<'_, E>,
    gamma: Option<&[E]>,
    beta: Option<&[E]>,
    y: &mut [E],
) {
    let Moments { epsilon, mean, variance } = moments;
    let (columns, epsilon) = (mean.len(), E::of(epsilon));
    for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
        for c in 0..columns {
            let normal = (x[c] - mean[c]) / (variance[c] + epsilon).sqrt();
            y[c] = normal * gamma.map_or(E::one(), |g| g[c]) + beta.map_or(E::zero(), |b| b[c]);
        }
    }
}

/// See [`Operations::batch_norm_gradient`](crate::backend::Operations::batch_norm_gradient).
pub(crate) fn batch_norm_gradient<E: Scalar>(
    x: &[E],
    weights: Option<&[E]>,
    moments: Moments<'_, E>,
    gamma: Option<&[E]>,
    dy: &[E],
    to: NormGradients<'_, E>,
) {
    let Moments { epsilon, mean, variance } = moments;
    let NormGradients { mut dx, mut dgamma, mut dbeta, grad } = to;
    let columns = mean.len();
    let rows = x.len() / columns;
    let weight = |row: usize| weights.map_or(E::one(), |weights| weights[row]);
    let total: E = (0..rows).map(weight).sum();
    let added = |before: E, value: E| if grad == WeightGrad::Add { before + value } else { value };
    for c in 0..columns {
        let inverse = E::one() / (variance[c] + E::of(epsilon)).sqrt();
        let normal = |row: usize| (x[row * columns + c] - mean[c]) * inverse;
        let slope = |row: usize| dy[row * columns + c];
        let sum: E = (0..rows).map(slope).sum();
        let product: E = (0..rows).map(|row| slope(row) * normal(row)).sum();
        if let Some(dbeta) = dbeta.as_deref_mut() {
            dbeta[c] = added(dbeta[c], sum);
        }
        if let Some(dgamma) = dgamma.as_deref_mut() {
            dgamma[c] = added(dgamma[c], product);
        }
        if let Some(dx) = dx.as_deref_mut() {
            // dx = gamma / deviation (dy - w / Σw (Σ dy + n Σ dy n)).
            let factor = gamma.map_or(E::one(), |gamma| gamma[c]) * inverse;
            for row in 0..rows {
                let share = if total == E::zero() { E::zero() } else { weight(row) / total };
                dx[row * columns + c] = factor * (slope(row) - share * (sum + normal(row) * product));
            }
        }
    }
}
