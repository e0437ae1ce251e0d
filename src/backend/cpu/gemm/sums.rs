//! Sums of rows: the gradients of biases.

use std::ops::Range;

use super::DEPTH;
use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd, load_part, store_part};

/// `total` = the sum of `k` rows, each times its weight, in blocks of [`DEPTH`] that are summed in `block` first, so that
/// rounding errors grow with the blocks and not with the rows.
pub(crate) fn sum_rows<'s, E: CpuElement>(
    isa: Isa,
    k: usize,
    row: impl Fn(usize) -> &'s [E],
    weight: impl Fn(usize) -> E,
    total: &mut [E],
    block: &mut [E],
) {
    total.fill(E::zero());
    for first in (0..k).step_by(DEPTH) {
        isa.run(SumRows { rows: first..k.min(first + DEPTH), row: &row, weight: &weight, out: &mut *block });
        for (total, &block) in total.iter_mut().zip(&*block) {
            *total += block;
        }
    }
}

/// `out` = the weighted sum of some rows.
struct SumRows<'a, E, F, W> {
    rows: Range<usize>,
    row: &'a F,
    weight: &'a W,
    out: &'a mut [E],
}

impl<'s, E: CpuElement, F: Fn(usize) -> &'s [E], W: Fn(usize) -> E> Kernel<E> for SumRows<'_, E, F, W> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let n = self.out.len();
        let mut at = 0;
        while at < n {
            if at + 4 * S::LANES <= n {
                let mut sums = [s.splat(E::zero()); 4];
                for index in self.rows.clone() {
                    let row = &(self.row)(index)[at..at + 4 * S::LANES];
                    let weight = s.splat((self.weight)(index));
                    for v in 0..4 {
                        sums[v] = s.mul_add(weight, s.load(&row[v * S::LANES..(v + 1) * S::LANES]), sums[v]);
                    }
                }
                for v in 0..4 {
                    s.store(&mut self.out[at + v * S::LANES..at + (v + 1) * S::LANES], sums[v]);
                }
                at += 4 * S::LANES;
            } else {
                let part = S::LANES.min(n - at);
                let mut sum = s.splat(E::zero());
                for index in self.rows.clone() {
                    let weight = s.splat((self.weight)(index));
                    sum = s.mul_add(weight, load_part(s, (self.row)(index), at, part), sum);
                }
                store_part(s, self.out, at, part, sum);
                at += part;
            }
        }
    }
}
