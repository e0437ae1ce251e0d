//! Matrix products, sums and maxima along an axis.

use crate::backend::WeightGrad;
use crate::backend::ops::{MatMul, NO_ROW, Orientation};
use crate::dtype::Scalar;

/// See [`Operations::matmul`](crate::backend::Operations::matmul).
pub(crate) fn matmul<E: Scalar>(product: MatMul, alpha: f64, a: &[E], b: &[E], c: &mut [E], grad: WeightGrad) {
    let MatMul { count, orientation, m, n, k } = product;
    if c.is_empty() {
        // A size may be any beside one of zero.
        return;
    }
    let alpha = E::of(alpha);
    // Elements from one row, column or term to the next.
    let (a_row, a_term) = if orientation == Orientation::Tn { (1, m) } else { (k, 1) };
    let (b_term, b_column) = if orientation == Orientation::Nt { (1, k) } else { (n, 1) };
    for p in 0..count {
        let (a, b) = (&a[p * m * k..][..m * k], &b[p * n * k..][..n * k]);
        for i in 0..m {
            for j in 0..n {
                let mut sum = E::zero();
                for l in 0..k {
                    sum += a[i * a_row + l * a_term] * b[l * b_term + j * b_column];
                }
                let c = &mut c[(p * m + i) * n + j];
                *c = if grad == WeightGrad::Add { *c + alpha * sum } else { alpha * sum };
            }
        }
    }
}

/// See [`Operations::sum_axis`](crate::backend::Operations::sum_axis).
pub(crate) fn sum_axis<E: Scalar>(sizes: [usize; 3], alpha: f64, x: &[E], y: &mut [E], grad: WeightGrad) {
    let [outer, count, inner] = sizes;
    if grad == WeightGrad::Set {
        y.fill(E::zero());
    }
    if x.is_empty() {
        return;
    }
    // A sum of neighbours is finished before it meets what is there; but the gradient of a bias, be it one unit's, goes row by row to
    // what is there.
    let is_bias = outer == 1 && alpha == 1.0;
    let alpha = E::of(alpha);
    if inner == 1 && !is_bias {
        for (x, y) in x.chunks_exact(count).zip(y) {
            *y += alpha * x.iter().copied().sum::<E>();
        }
        return;
    }
    for (x, y) in x.chunks_exact(count * inner).zip(y.chunks_exact_mut(inner)) {
        for x in x.chunks_exact(inner) {
            y.iter_mut().zip(x).for_each(|(y, x)| *y += alpha * *x);
        }
    }
}

/// See [`Operations::max_axis`](crate::backend::Operations::max_axis).
pub(crate) fn max_axis<E: Scalar>(sizes: [usize; 3], x: &[E], mask: Option<&[E]>, y: &mut [E], position: &mut [u32]) {
    let [outer, count, inner] = sizes;
    y.fill(E::zero());
    position.fill(NO_ROW);
    if y.is_empty() {
        // A size may be any beside one of zero.
        return;
    }
    for o in 0..outer {
        for c in (0..count).filter(|c| mask.is_none_or(|mask| mask[o * count + c] != E::zero())) {
            for i in 0..inner {
                let value = x[(o * count + c) * inner + i];
                let at = o * inner + i;
                // Not `>` alone: NaN shall win, and the first of them.
                if position[at] == NO_ROW || value > y[at] || value.is_nan() && !y[at].is_nan() {
                    (y[at], position[at]) = (value, c as u32);
                }
            }
        }
    }
}

/// See [`Operations::max_axis_gradient`](crate::backend::Operations::max_axis_gradient).
pub(crate) fn max_axis_gradient<E: Scalar>(sizes: [usize; 3], dy: &[E], position: &[u32], dx: &mut [E]) {
    let [_, count, inner] = sizes;
    dx.fill(E::zero());
    for (at, (dy, c)) in dy.iter().zip(position).enumerate() {
        if (*c as usize) < count {
            dx[(at / inner * count + *c as usize) * inner + at % inner] = *dy;
        }
    }
}
