//! The weights' gradient over few steps: a sum of outer products, whose left operand is read where it lies.
//!
//! Packing pays for itself by how often an element is used. Here an element of the left operand, the gates' gradients, is
//! used once for every few columns, and with few steps all of it stays in the nearest cache. The sums are those of
//! [`gemm`](super), in the same order.

use super::tile::{Start, finish};
use crate::backend::cpu::CpuElement;
use crate::simd::{Kernel, Simd};

/// Steps that are few.
pub(super) const FEW: usize = 32;

/// `c = start + a^T b` for some columns.
pub(super) struct OuterProducts<'a, E> {
    /// A row of `[k, m]` for each step.
    pub(super) a: &'a [&'a [E]],
    /// `[panel][k][2 * LANES]`
    pub(super) b: &'a [E],
    /// `[m, n]`
    pub(super) c: &'a mut [E],
    /// Column of `c` where the first panel begins.
    pub(super) column: usize,
    pub(super) n: usize,
    pub(super) start: Start<'a, E>,
}

impl<E: CpuElement> Kernel<E> for OuterProducts<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, s: S) {
        let rows = self.a.first().map_or(0, |row| row.len());
        let fours = rows / 4 * 4;
        for i in (0..fours).step_by(4) {
            self.rows::<S, 4>(s, i);
        }
        for i in fours..rows {
            self.rows::<S, 1>(s, i);
        }
    }
}

impl<E: CpuElement> OuterProducts<'_, E> {
    /// All columns of some rows. Where the registers hold four vectors of four rows, two panels share what is read of the
    /// left operand.
    #[inline(always)]
    fn rows<S: Simd<E>, const ROWS: usize>(&mut self, s: S, i: usize) {
        let panel_len = self.a.len() * 2 * S::LANES;
        let together = if S::ROWS > 6 { 2 } else { 1 };
        let mut column = self.column;
        for panels in self.b.chunks(together * panel_len) {
            if panels.len() > panel_len {
                let (left, right) = panels.split_at(panel_len);
                self.tile::<S, ROWS, 2, 4>(s, i, column, [left, right]);
            } else {
                self.tile::<S, ROWS, 1, 2>(s, i, column, [panels]);
            }
            column += together * 2 * S::LANES;
        }
    }

    #[inline(always)]
    fn tile<S: Simd<E>, const ROWS: usize, const PANELS: usize, const VECTORS: usize>(
        &mut self,
        s: S,
        i: usize,
        column: usize,
        panels: [&[E]; PANELS],
    ) {
        let mut sums = [[s.splat(E::zero()); VECTORS]; ROWS];
        // Rows by iterators: the compiler sees that they are there.
        let rows = |panel: usize| panels[panel].chunks_exact(2 * S::LANES);
        for ((a, left), right) in self.a.iter().zip(rows(0)).zip(rows(PANELS - 1)) {
            let a = &a[i..i + ROWS];
            for v in 0..VECTORS {
                let from = if v < 2 { left } else { right };
                let b = s.load(&from[v % 2 * S::LANES..(v % 2 + 1) * S::LANES]);
                for r in 0..ROWS {
                    sums[r][v] = s.mul_add(s.splat(a[r]), b, sums[r][v]);
                }
            }
        }
        let columns = (self.n - column).min(VECTORS * S::LANES);
        for r in 0..ROWS {
            let c = &mut self.c[(i + r) * self.n + column..][..columns];
            finish(s, c, column, self.start, &sums[r]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::gemm::{Columns, Right, multiply_transposed, multiply_transposed_scratch};
    use crate::simd::Isa;

    /// Few steps, and one more than that, which is packed: the bits of the sums written out, whatever the sizes.
    #[test]
    fn is_the_sum_in_order() {
        let number = |i: usize| (i * 7919 % 1000) as f32 / 1000.0 - 0.4;
        for isa in Isa::all_fused() {
            for (m, n, k) in [(1, 2, 1), (7, 31, 3), (14, 50, 10), (9, 65, 32), (5, 300, 4), (9, 50, FEW + 1)] {
                let (width, first) = (m + 5, 3);
                let a: Vec<f32> = (0..k * width).map(number).collect();
                let b: Vec<f32> = (0..k * n).map(|i| number(i + 17)).collect();
                // The second row of `b` is missing.
                let b_at = |kk: usize, j: usize| if kk == 1 { 0.0 } else { b[kk * n + j] };
                for start in [Start::Set, Start::Add] {
                    let mut c: Vec<f32> = (0..m * n).map(|i| number(i + 29)).collect();
                    let mut expected = c.clone();
                    for (at, expected) in expected.iter_mut().enumerate() {
                        let (i, j) = (at / n, at % n);
                        let sum = (0..k).fold(0.0, |sum, kk| a[kk * width + first + i].mul_add(b_at(kk, j), sum));
                        *expected = if matches!(start, Start::Add) { *expected + sum } else { sum };
                    }
                    let mut scratch = vec![f32::NAN; multiply_transposed_scratch::<f32>(isa, m, &[n], k)];
                    let a_row = |kk: usize| &a[kk * width..][..width];
                    let b_row = |kk: usize| (kk != 1).then(|| &b[kk * n..][..n]);
                    let columns = &mut [Columns { first, count: m, c: [&mut c], sums: &mut [] }];
                    let right = [Right { n, row: &b_row }];
                    multiply_transposed(isa, k, 1.0, a_row, right, columns, start, &mut scratch);
                    assert_eq!(c, expected, "{m} x {n} over {k} on {}", isa.name());
                }
            }
        }
    }
}
