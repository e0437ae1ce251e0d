//! Normalization by rows and by columns, on vectors.
//!
//! Every sum is taken in the order of the oracle's plain loops. Its additions wait for each other, so several sums are taken at once:
//! of some rows, or of neighbouring columns.

use crate::backend::WeightGrad;
use crate::backend::cpu::CpuElement;
use crate::backend::host_ops::plain::norms::Moments;
use crate::dtype::Scalar;
use crate::simd::{Kernel, Simd, load_part, store_part};

/// Rows whose sums are taken at once.
const ROWS: usize = 8;

/// Vectors of columns whose sums are taken at once.
const VECTORS: usize = 4;

/// Columns whose sums are taken at once.
const COLUMNS: usize = 32;

/// Sums over `columns`, in their order, of terms of `R` rows.
#[inline(always)]
pub(super) fn row_sums<E: Scalar, const R: usize>(columns: usize, term: impl Fn(usize, usize) -> E) -> [E; R] {
    // What `Iterator::sum` starts with.
    let mut sums = [-E::zero(); R];
    for c in 0..columns {
        for r in 0..R {
            sums[r] += term(r, c);
        }
    }
    sums
}

/// `y += alpha sum` of rows.
pub(super) struct SumRows<'a, E> {
    pub alpha: E,
    pub columns: usize,
    pub x: &'a [E],
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for SumRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let SumRows { alpha, columns, x, y } = self;
        let blocks = y.len() / ROWS * ROWS;
        for (block, y) in y[..blocks].chunks_exact_mut(ROWS).enumerate() {
            let x = &x[block * ROWS * columns..][..ROWS * columns];
            let sums = row_sums::<E, ROWS>(columns, |r, c| x[r * columns + c]);
            y.iter_mut().zip(sums).for_each(|(y, sum)| *y += alpha * sum);
        }
        for (row, y) in y.iter_mut().enumerate().skip(blocks) {
            let [sum] = row_sums(columns, |_, c| x[row * columns + c]);
            *y += alpha * sum;
        }
    }
}

/// `y += alpha sum` of columns from `first` on.
pub(super) struct SumColumns<'a, E> {
    pub alpha: E,
    /// Of all of x.
    pub columns: usize,
    pub first: usize,
    pub x: &'a [E],
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for SumColumns<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let SumColumns { alpha, columns, first, x, y } = self;
        let alpha = s.splat(alpha);
        // Sums stay in registers.
        let (mut at, end) = (0, y.len());
        while at < end {
            let n = S::LANES.min(end - at);
            if end - at >= VECTORS * S::LANES {
                let mut sums = [alpha; VECTORS];
                for v in 0..VECTORS {
                    sums[v] = s.load(&y[at + v * S::LANES..]);
                }
                for x in x.chunks_exact(columns) {
                    let x = &x[first + at..][..VECTORS * S::LANES];
                    for v in 0..VECTORS {
                        sums[v] = s.add(sums[v], s.mul(alpha, s.load(&x[v * S::LANES..])));
                    }
                }
                for v in 0..VECTORS {
                    s.store(&mut y[at + v * S::LANES..], sums[v]);
                }
                at += VECTORS * S::LANES;
                continue;
            }
            let mut sum = load_part(s, y, at, n);
            for x in x.chunks_exact(columns) {
                sum = s.add(sum, s.mul(alpha, load_part(s, x, first + at, n)));
            }
            store_part(s, y, at, n, sum);
            at += n;
        }
    }
}

/// Layer normalization of rows.
pub(super) struct LayerNorm<'a, E> {
    pub columns: usize,
    pub epsilon: E,
    pub x: &'a [E],
    pub gamma: Option<&'a [E]>,
    pub beta: Option<&'a [E]>,
    pub y: &'a mut [E],
    pub statistics: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for LayerNorm<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, _: S) {
        let rows = self.statistics.len() / 2;
        let blocks = rows / ROWS * ROWS;
        for row in (0..blocks).step_by(ROWS) {
            self.rows::<ROWS>(row);
        }
        for row in blocks..rows {
            self.rows::<1>(row);
        }
    }
}

impl<E: CpuElement> LayerNorm<'_, E> {
    #[inline(always)]
    fn rows<const R: usize>(&mut self, row: usize) {
        let LayerNorm { columns, epsilon, x, gamma, beta, y, statistics } = self;
        let (columns, count) = (*columns, E::of(*columns as f64));
        let (x, y) = (&x[row * columns..][..R * columns], &mut y[row * columns..][..R * columns]);
        let mean = row_sums::<E, R>(columns, |r, c| x[r * columns + c]).map(|sum| sum / count);
        let squares = row_sums::<E, R>(columns, |r, c| {
            let d = x[r * columns + c] - mean[r];
            d * d
        });
        for r in 0..R {
            let inverse = E::one() / (squares[r] / count + *epsilon).sqrt();
            statistics[2 * (row + r)..][..2].copy_from_slice(&[mean[r], inverse]);
            let (x, y) = (&x[r * columns..][..columns], &mut y[r * columns..][..columns]);
            y.iter_mut().zip(x).for_each(|(y, x)| *y = (*x - mean[r]) * inverse);
            if let Some(gamma) = gamma {
                y.iter_mut().zip(*gamma).for_each(|(y, gamma)| *y *= *gamma);
            }
            if let Some(beta) = beta {
                y.iter_mut().zip(*beta).for_each(|(y, beta)| *y += *beta);
            }
        }
    }
}

/// The gradient of a layer normalization's input.
pub(super) struct LayerNormGradient<'a, E> {
    pub columns: usize,
    pub x: &'a [E],
    pub gamma: Option<&'a [E]>,
    pub statistics: &'a [E],
    pub dy: &'a [E],
    pub dx: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for LayerNormGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, _: S) {
        let rows = self.statistics.len() / 2;
        let blocks = rows / ROWS * ROWS;
        for row in (0..blocks).step_by(ROWS) {
            self.rows::<ROWS>(row);
        }
        for row in blocks..rows {
            self.rows::<1>(row);
        }
    }
}

impl<E: CpuElement> LayerNormGradient<'_, E> {
    #[inline(always)]
    fn rows<const R: usize>(&mut self, row: usize) {
        match self.gamma {
            Some(gamma) => self.scaled::<R>(row, |dy, c| dy * gamma[c]),
            None => self.scaled::<R>(row, |dy, _| dy),
        }
    }

    /// With n the normalised x and g = dy gamma: dx = (g - mean(g) - n mean(g n)) / deviation.
    #[inline(always)]
    fn scaled<const R: usize>(&mut self, row: usize, scale: impl Fn(E, usize) -> E) {
        let LayerNormGradient { columns, x, statistics, dy, dx, .. } = self;
        let (columns, count) = (*columns, E::of(*columns as f64));
        let (x, dy) = (&x[row * columns..][..R * columns], &dy[row * columns..][..R * columns]);
        let dx = &mut dx[row * columns..][..R * columns];
        let statistics = &statistics[2 * row..][..2 * R];
        let slope = |r: usize, c: usize| scale(dy[r * columns + c], c);
        let normal = |r: usize, c: usize| (x[r * columns + c] - statistics[2 * r]) * statistics[2 * r + 1];
        let first = row_sums::<E, R>(columns, slope).map(|sum| sum / count);
        let second = row_sums::<E, R>(columns, |r, c| slope(r, c) * normal(r, c)).map(|sum| sum / count);
        for r in 0..R {
            for (c, dx) in dx[r * columns..][..columns].iter_mut().enumerate() {
                *dx = (slope(r, c) - first[r] - normal(r, c) * second[r]) * statistics[2 * r + 1];
            }
        }
    }
}

/// The gradients of a layer normalization's gamma and beta, for the columns from `first` on.
pub(super) struct LayerNormParameters<'a, E> {
    /// Of all of x.
    pub columns: usize,
    pub first: usize,
    pub x: &'a [E],
    pub statistics: &'a [E],
    pub dy: &'a [E],
    pub dgamma: Option<&'a mut [E]>,
    pub dbeta: Option<&'a mut [E]>,
}

impl<E: CpuElement> Kernel<E> for LayerNormParameters<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, _: S) {
        let rows = self.x.chunks_exact(self.columns).zip(self.dy.chunks_exact(self.columns));
        for ((x, dy), statistics) in rows.zip(self.statistics.chunks_exact(2)) {
            let (x, dy) = (&x[self.first..], &dy[self.first..]);
            if let Some(dgamma) = self.dgamma.as_deref_mut() {
                for ((d, x), dy) in dgamma.iter_mut().zip(x).zip(dy) {
                    *d += *dy * ((*x - statistics[0]) * statistics[1]);
                }
            }
            if let Some(dbeta) = self.dbeta.as_deref_mut() {
                dbeta.iter_mut().zip(dy).for_each(|(d, dy)| *d += *dy);
            }
        }
    }
}

/// Mean and variance of the columns from `first` on.
pub(super) struct ColumnMoments<'a, E> {
    /// Of all of x.
    pub columns: usize,
    pub first: usize,
    pub x: &'a [E],
    pub weights: Option<&'a [E]>,
    /// Sum of the weights; not zero.
    pub total: E,
    pub mean: &'a mut [E],
    pub variance: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for ColumnMoments<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let ColumnMoments { columns, first, x, weights, total, mean, variance } = self;
        let weight = |row: usize| weights.map_or(E::one(), |weights| weights[row]);
        mean.fill(E::zero());
        variance.fill(E::zero());
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let w = weight(row);
            mean.iter_mut().zip(&x[first..]).for_each(|(mean, x)| *mean += w * *x);
        }
        mean.iter_mut().for_each(|mean| *mean /= total);
        for (row, x) in x.chunks_exact(columns).enumerate() {
            let w = weight(row);
            for ((v, mean), x) in variance.iter_mut().zip(&*mean).zip(&x[first..]) {
                *v += w * (*x - *mean) * (*x - *mean);
            }
        }
        variance.iter_mut().for_each(|v| *v /= total);
    }
}

/// Batch normalization of rows.
pub(super) struct BatchNorm<'a, E> {
    pub x: &'a [E],
    pub moments: Moments<'a, E>,
    pub gamma: Option<&'a [E]>,
    pub beta: Option<&'a [E]>,
    pub y: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for BatchNorm<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let BatchNorm { x, moments: Moments { epsilon, mean, variance }, gamma, beta, y } = self;
        let (columns, epsilon) = (mean.len(), E::of(epsilon));
        for (x, y) in x.chunks_exact(columns).zip(y.chunks_exact_mut(columns)) {
            for (((y, x), mean), variance) in y.iter_mut().zip(x).zip(mean).zip(variance) {
                *y = (*x - *mean) / (*variance + epsilon).sqrt();
            }
            if let Some(gamma) = gamma {
                y.iter_mut().zip(gamma).for_each(|(y, gamma)| *y *= *gamma);
            }
            if let Some(beta) = beta {
                y.iter_mut().zip(beta).for_each(|(y, beta)| *y += *beta);
            }
        }
    }
}

/// The gradients of a batch normalization, by columns; `E` values of a block of columns stand in arrays, since no workspace is asked for.
pub(super) struct BatchNormGradient<'a, E> {
    pub x: &'a [E],
    pub weights: Option<&'a [E]>,
    /// Sum of the weights.
    pub total: E,
    pub moments: Moments<'a, E>,
    pub gamma: Option<&'a [E]>,
    pub dy: &'a [E],
    pub dx: Option<&'a mut [E]>,
    pub dgamma: Option<&'a mut [E]>,
    pub dbeta: Option<&'a mut [E]>,
    pub grad: WeightGrad,
}

impl<E: CpuElement> Kernel<E> for BatchNormGradient<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, _: S) {
        let columns = self.moments.mean.len();
        for first in (0..columns).step_by(COLUMNS) {
            self.columns(first, COLUMNS.min(columns - first));
        }
    }
}

impl<E: CpuElement> BatchNormGradient<'_, E> {
    /// `n` columns from `first` on.
    #[inline(always)]
    fn columns(&mut self, first: usize, n: usize) {
        let Moments { epsilon, mean, variance } = self.moments;
        let columns = mean.len();
        let mean = &mean[first..][..n];
        let mut inverse = [E::zero(); COLUMNS];
        for (inverse, variance) in inverse.iter_mut().zip(&variance[first..][..n]) {
            *inverse = E::one() / (*variance + E::of(epsilon)).sqrt();
        }
        let inverse = &inverse[..n];
        let mut sums = [-E::zero(); COLUMNS];
        let mut products = [-E::zero(); COLUMNS];
        let (sums, products) = (&mut sums[..n], &mut products[..n]);
        for (x, dy) in self.x.chunks_exact(columns).zip(self.dy.chunks_exact(columns)) {
            let (x, dy) = (&x[first..][..n], &dy[first..][..n]);
            for c in 0..n {
                sums[c] += dy[c];
                products[c] += dy[c] * ((x[c] - mean[c]) * inverse[c]);
            }
        }
        let put = |to: &mut Option<&mut [E]>, values: &[E], grad| {
            if let Some(to) = to {
                for (to, value) in to[first..][..n].iter_mut().zip(values) {
                    *to = if grad == WeightGrad::Add { *to + *value } else { *value };
                }
            }
        };
        put(&mut self.dbeta, sums, self.grad);
        put(&mut self.dgamma, products, self.grad);
        let Some(dx) = self.dx.as_deref_mut() else { return };
        // dx = gamma / deviation (dy - w / Σw (Σ dy + n Σ dy n)).
        let mut factor = [E::one(); COLUMNS];
        if let Some(gamma) = self.gamma {
            factor[..n].copy_from_slice(&gamma[first..][..n]);
        }
        factor.iter_mut().zip(inverse).for_each(|(factor, inverse)| *factor *= *inverse);
        let factor = &factor[..n];
        let rows = self.x.chunks_exact(columns).zip(self.dy.chunks_exact(columns));
        for (row, ((x, dy), dx)) in rows.zip(dx.chunks_exact_mut(columns)).enumerate() {
            let (x, dy, dx) = (&x[first..][..n], &dy[first..][..n], &mut dx[first..][..n]);
            let weight = self.weights.map_or(E::one(), |weights| weights[row]);
            let share = if self.total == E::zero() { E::zero() } else { weight / self.total };
            for c in 0..n {
                let normal = (x[c] - mean[c]) * inverse[c];
                dx[c] = factor[c] * (dy[c] - share * (sums[c] + normal * products[c]));
            }
        }
    }
}
