//! A step's products: those of a single sequence read the weights where they lie.
//!
//! Packing a matrix costs about as much as a few products of one row with it, and a short sequence does not make many
//! more. A product whose right operand is given by rows needs no other layout. While rows are short, what their reads
//! across cache lines cost hides behind the latency of the additions; longer ones are packed, which a step repays. The
//! sums are those of [`gemm`](super), in the same order, so that nothing but the time depends on which path is taken.

use super::tile::finish;
use super::{DEPTH, Panels, Start, amx, product};
use crate::backend::cpu::steps::Steps;
use crate::backend::cpu::{Call, CpuElement};
use crate::rnn::RnnShape;
use crate::simd::{Isa, Kernel, Simd, load_part};

/// Bytes of the rows that are read where they lie, at most.
const ROW_BYTES: usize = 256;

/// Vectors of sums that fit the registers.
const VECTORS: usize = 8;

/// The right operand of a step's product.
#[derive(Clone, Copy)]
pub(crate) enum Operand<'a, E> {
    Packed(Panels<'a, E>),
    /// `[k, n]` as it lies.
    ByRows {
        data: &'a [E],
        n: usize,
    },
}

impl<E: CpuElement> Call<'_, E> {
    /// The rows `first..first + k` of a matrix with `n` columns, packed into `out` unless they can be read where they lie.
    pub(crate) fn step_operand<'o>(
        &self,
        matrix: &'o [E],
        first: usize,
        k: usize,
        n: usize,
        out: &'o mut [E],
    ) -> Operand<'o, E> {
        let all_used = !self.plan.descriptor.coupled_input_forget;
        if self.geometry.batch == 1 && all_used && n * size_of::<E>() <= ROW_BYTES {
            Operand::ByRows { data: &matrix[first * n..][..k * n], n }
        } else {
            Operand::Packed(self.pack_rows(k, n, out, |kk| self.used_row(matrix, first + kk, n)))
        }
    }

    /// The product of step `t` of a time loop, `c = start + a b`. Row `i` of `a` is `row(i)`; `c` has rows of `width` elements, in which the product begins at
    /// `column`.
    #[allow(clippy::too_many_arguments)] // a product has many sizes, and each is another thing
    pub(crate) fn step_product<'s>(
        &self,
        t: usize,
        rows: usize,
        row: impl Fn(usize) -> &'s [E] + Sync,
        b: Operand<'_, E>,
        c: &mut [E],
        (width, column): (usize, usize),
        start: Start<'_, E>,
        scratch: &mut [E],
    ) {
        let offset = |i: usize| i * width + column;
        match b {
            Operand::Packed(b) => {
                let b = b.at_step(self.turn(t));
                let workers = self.threads.workers(self.sizes.row_workers);
                if let Some(tiles) = amx::tiles::<E>(self.isa, b.k) {
                    let c = Steps::inner(c, RnnShape { seq_len: 1, batch: rows }, width).split_features(column).1;
                    let c = c.split_features(b.n).0;
                    return amx::multiply_step((self.isa, tiles), rows, row, b, c, start, scratch, workers);
                }
                product::multiply(self.isa, 0..rows, row, b, c, offset, start, scratch, workers);
            }
            Operand::ByRows { data, n } => {
                for i in 0..rows {
                    multiply(self.isa, &row(i)[..data.len() / n], data, &mut c[offset(i)..][..n], start);
                }
            }
        }
    }
}

/// `c = start + a b`, where `b` is `[k, n]` by rows.
fn multiply<E: CpuElement>(isa: Isa, a: &[E], b: &[E], c: &mut [E], start: Start<'_, E>) {
    multiply_columns(isa, a, b, c.len(), 0, c, start);
}

/// The same for the columns from `first` on that `c` has room for.
pub(crate) fn multiply_columns<E: CpuElement>(
    isa: Isa,
    a: &[E],
    b: &[E],
    n: usize,
    first: usize,
    c: &mut [E],
    start: Start<'_, E>,
) {
    for (block, (a, b)) in a.chunks(DEPTH).zip(b.chunks(DEPTH * n)).enumerate() {
        let start = if block == 0 { start } else { Start::Add };
        isa.run(RowTimesRows { a, b, n, first, c: &mut *c, start });
    }
}

struct RowTimesRows<'a, E> {
    a: &'a [E],
    b: &'a [E],
    /// Columns of `b`.
    n: usize,
    /// Column where `c` begins.
    first: usize,
    c: &'a mut [E],
    start: Start<'a, E>,
}

impl<E: CpuElement> Kernel<E> for RowTimesRows<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let RowTimesRows { a, b, n, first, c, start } = self;
        let columns = c.len();
        for at in (0..columns).step_by(VECTORS * S::LANES) {
            let c = &mut c[at..columns.min(at + VECTORS * S::LANES)];
            let part = Part { a, b, n, first: first + at, start };
            match c.len().div_ceil(S::LANES) {
                1 => part.in_vectors::<S, 1>(s, c),
                2 => part.in_vectors::<S, 2>(s, c),
                3 => part.in_vectors::<S, 3>(s, c),
                4 => part.in_vectors::<S, 4>(s, c),
                5 => part.in_vectors::<S, 5>(s, c),
                6 => part.in_vectors::<S, 6>(s, c),
                7 => part.in_vectors::<S, 7>(s, c),
                _ => part.in_vectors::<S, VECTORS>(s, c),
            }
        }
    }
}

/// Some columns of the product.
struct Part<'a, E> {
    a: &'a [E],
    b: &'a [E],
    /// Columns of `b`.
    n: usize,
    /// First column.
    first: usize,
    start: Start<'a, E>,
}

impl<E: CpuElement> Part<'_, E> {
    /// `N` vectors of columns, of which the last need not be full.
    #[inline(always)]
    fn in_vectors<S: Simd<E>, const N: usize>(self, s: S, c: &mut [E]) {
        let last = (N - 1) * S::LANES;
        let rest = c.len() - last;
        let mut sums = [s.splat(E::zero()); N];
        for (&a, row) in self.a.iter().zip(self.b.chunks_exact(self.n)) {
            let (value, row) = (s.splat(a), &row[self.first..]);
            for v in 0..N - 1 {
                sums[v] = s.mul_add(value, s.load(&row[v * S::LANES..]), sums[v]);
            }
            sums[N - 1] = s.mul_add(value, load_part(s, row, last, rest), sums[N - 1]);
        }
        finish(s, c, self.first, self.start, &sums);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every width that is read by rows, on every instruction set: the bits of the sum written out.
    #[test]
    fn is_the_sum_in_order() {
        for isa in Isa::all_fused() {
            for (n, k) in (1..=64).map(|n| (n, 7)).chain([(50, 1), (50, DEPTH), (33, DEPTH + 3)]) {
                let number = |i: usize| (i * 7919 % 1000) as f32 / 1000.0 - 0.4;
                let a: Vec<f32> = (0..k).map(number).collect();
                let b: Vec<f32> = (0..k * n).map(|i| number(i + k)).collect();
                let mut c: Vec<f32> = (0..n).map(|i| number(i + 11)).collect();
                let mut expected = c.clone();
                for (j, expected) in expected.iter_mut().enumerate() {
                    for (block, a) in a.chunks(DEPTH).enumerate() {
                        let at = |kk: usize| b[(block * DEPTH + kk) * n + j];
                        *expected += a.iter().enumerate().fold(0.0, |sum, (kk, a)| a.mul_add(at(kk), sum));
                    }
                }
                multiply(isa, &a, &b, &mut c, Start::Add);
                assert_eq!(c, expected, "{n} columns, {k} rows on {}", isa.name());
            }
        }
    }
}
