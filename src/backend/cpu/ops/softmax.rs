//! Rows of a softmax and of its gradient on vectors of the host.
//!
//! Sums fall into [`PARTS`] parts whatever the vectors are, and the exponential function is that of the CPU backend (2.5 units in the
//! last place), so that every instruction set gives the same bits.

use crate::backend::cpu::CpuElement;
use crate::backend::cpu::activation::exp_of_negative;
use crate::dtype::Scalar;
use crate::simd::{Kernel, Simd, load_part, store_part};

/// Parts of a sum: the lanes of the widest vector.
const PARTS: usize = 16;

/// One number from the elements of a row, in an order that only their number decides.
#[inline(always)]
pub(super) fn fold<E: Scalar>(values: &[E], start: E, with: impl Fn(E, E) -> E) -> E {
    let mut parts = [start; PARTS];
    let chunks = values.chunks_exact(PARTS);
    let tail = chunks.remainder();
    for chunk in chunks {
        for (part, value) in parts.iter_mut().zip(chunk) {
            *part = with(*part, *value);
        }
    }
    for (part, value) in parts.iter_mut().zip(tail) {
        *part = with(*part, *value);
    }
    let mut half = PARTS / 2;
    while half > 0 {
        for i in 0..half {
            parts[i] = with(parts[i], parts[i + half]);
        }
        half /= 2;
    }
    parts[0]
}

/// `y = exp(x - max) / sum` of rows, in the place of x.
pub(super) struct Rows<'a, E, V> {
    pub columns: usize,
    /// What is exponentiated; the result.
    pub values: &'a mut [E],
    /// Whether a row's column takes part; those that do not are zero.
    pub valid: Option<V>,
}

impl<E: CpuElement, V: Fn(usize, usize) -> bool> Kernel<E> for Rows<'_, E, V> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        for (row, y) in self.values.chunks_exact_mut(self.columns).enumerate() {
            if let Some(valid) = &self.valid {
                y.iter_mut().enumerate().filter(|(c, _)| !valid(row, *c)).for_each(|(_, y)| *y = E::neg_infinity());
            }
            // A NaN is not larger, and makes the sum NaN.
            let largest = fold(y, E::neg_infinity(), |a, b| if b > a { b } else { a });
            let columns = y.len();
            let mut at = 0;
            while at < columns {
                let n = S::LANES.min(columns - at);
                let shifted = s.sub(load_part(s, y, at, n), s.splat(largest));
                store_part(s, y, at, n, exp_of_negative(s, shifted));
                at += n;
            }
            let total = fold(y, E::zero(), |a, b| a + b);
            y.iter_mut().for_each(|y| *y /= total);
            if let (Some(valid), false) = (&self.valid, total > E::zero() && total.is_finite()) {
                // Zero stays zero, whatever the total, as in a row without any valid column.
                y.iter_mut().enumerate().filter(|(c, _)| !valid(row, *c)).for_each(|(_, y)| *y = E::zero());
            }
        }
    }
}

/// `dx = y (dy - sum of y dy)` of rows.
pub(super) struct GradientRows<'a, E> {
    pub columns: usize,
    pub y: &'a [E],
    pub dy: &'a [E],
    pub dx: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for GradientRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        let rows = self.y.chunks_exact(self.columns).zip(self.dy.chunks_exact(self.columns));
        for ((y, dy), dx) in rows.zip(self.dx.chunks_exact_mut(self.columns)) {
            for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
                *dx = *y * *dy;
            }
            let sum = fold(dx, E::zero(), |a, b| a + b);
            for (dx, (y, dy)) in dx.iter_mut().zip(y.iter().zip(dy)) {
                *dx = *y * (*dy - sum);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    fn softmax<E: CpuElement>(isa: Isa, columns: usize, x: &[E], mask: Option<&[bool]>) -> Vec<E> {
        let mut y = x.to_vec();
        let valid = mask.map(|mask| move |row: usize, c: usize| mask[row * columns + c]);
        isa.run(Rows { columns, values: &mut y, valid });
        y
    }

    /// Against the library's exponential in double precision: each result to the roundings of its difference from the largest, and a few.
    fn is_near_the_exact<E: CpuElement>() {
        let mut state = 3u64;
        // Uniform in -1..1.
        let mut random = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 11) as f64 / (1u64 << 52) as f64 - 1.0
        };
        for columns in (1..40).chain([64, 100, 257]) {
            let x: Vec<E> = (0..3 * columns).map(|_| E::of(40.0 * random())).collect();
            let mask: Vec<bool> = (0..3 * columns).map(|_| random() > -0.7).collect();
            for mask in [None, Some(&mask[..])] {
                let y = softmax(Isa::detect(), columns, &x, mask);
                for row in 0..3 {
                    let valid = |c: &usize| mask.is_none_or(|mask| mask[row * columns + c]);
                    let wide = |c: usize| x[row * columns + c].wide();
                    let largest = (0..columns).filter(valid).map(wide).fold(f64::NEG_INFINITY, f64::max);
                    let total: f64 = (0..columns).filter(valid).map(|c| (wide(c) - largest).exp()).sum();
                    for c in 0..columns {
                        let got = y[row * columns + c].wide();
                        let expected = if valid(&c) { (wide(c) - largest).exp() / total } else { 0.0 };
                        let epsilon = E::epsilon().wide();
                        // The sum's terms shift too, but those that count are near the largest.
                        let allowed = epsilon * expected * ((wide(c) - largest).abs() + 16.0) + 1e-37;
                        assert!((got - expected).abs() <= allowed, "{columns}, {c}: {got}, not {expected}");
                    }
                }
                for isa in Isa::all_fused() {
                    assert!(softmax(isa, columns, &x, mask) == y, "{} differs", isa.name());
                }
            }
        }
    }

    #[test]
    fn rows_are_near_the_exact() {
        is_near_the_exact::<f32>();
        is_near_the_exact::<f64>();
    }

    #[test]
    fn what_is_not_finite_stays_in_its_row_and_behind_its_mask() {
        let (inf, nan) = (f32::INFINITY, f32::NAN);
        let x = [1.0, nan, 2.0, 0.0, 0.0, -inf, 5.0, 6.0, 7.0];
        let y = softmax(Isa::detect(), 3, &x, None);
        assert!(y[..3].iter().all(|y| y.is_nan()));
        assert_eq!(y[3..6], [0.5, 0.5, 0.0]);
        assert!((y[6..].iter().sum::<f32>() - 1.0).abs() < 1e-6);
        let mask = [true, false, true, false, false, false, true, true, false];
        let y = softmax(Isa::detect(), 3, &x, Some(&mask));
        assert!(y[0] > 0.0 && y[1] == 0.0 && y[2] > y[0]);
        assert_eq!(y[3..6], [0.0; 3]);
        let y = softmax(Isa::detect(), 3, &[nan, 1.0, 2.0], Some(&[true, true, false]));
        assert!(y[0].is_nan() && y[1].is_nan() && y[2] == 0.0);
    }
}
