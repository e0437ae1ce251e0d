//! Products of a few rows, which are read where they lie, with some panels.
//!
//! Packing a left operand pays where many panels use it one after another; here rows are few and in the nearest cache, and the processor reads an
//! element of each and copies it to all lanes by one instruction. The sums are those of [`gemm`](super), in the same order.

use std::ops::Range;

use super::DEPTH;
use super::pack::Panels;
use super::tile::{Start, finish, prefetch_panel};
use crate::backend::cpu::CpuElement;
use crate::simd::{Kernel, Simd};

/// Most rows of a tile: each takes a register for its address.
const TILE_ROWS: usize = 11;

/// One of the products that sums are made of.
#[derive(Clone, Copy)]
pub(crate) struct DirectProduct<'a, E> {
    /// The left operand, rows of `k` elements.
    pub(crate) rows: &'a [&'a [E]],
    /// The right operand, `[panel, k, 2 * LANES]`.
    pub(crate) weights: &'a [E],
    /// First of the panels of sums that it has.
    pub(crate) first: usize,
    /// How many.
    pub(crate) panels: usize,
}

/// Elements that will be written when the sums are complete, `2 * LANES` of each row and panel: their cache lines are asked for meanwhile.
#[derive(Clone, Copy)]
pub(crate) struct Written<'a, E> {
    /// From the first of them on.
    pub(crate) tensor: &'a [E],
    /// Elements from one row to the next, and from one panel's to the next.
    pub(crate) row: usize,
    pub(crate) panel: usize,
    pub(crate) panels: usize,
}

/// `sums = start + products`, all of them in the order of `k`.
pub(crate) struct DirectSums<'a, E> {
    pub(crate) products: [Option<DirectProduct<'a, E>>; 2],
    /// What a sum starts with, `[panel, 2 * LANES]`,
    pub(crate) bias: &'a [E],
    /// but for those of the first panels, which start with what is there.
    pub(crate) held: usize,
    /// `[rows, panel, 2 * LANES]`
    pub(crate) sums: &'a mut [E],
    pub(crate) rows: usize,
    pub(crate) written: [Option<Written<'a, E>>; 2],
}

impl<E: CpuElement> Kernel<E> for DirectSums<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let DirectSums { products, bias, held, sums, rows, written } = self;
        let (width, stride) = (2 * S::LANES, bias.len());
        for panel in 0..stride / width {
            for block in blocks(rows, TILE_ROWS.min(S::ROWS)) {
                for written in written.iter().flatten().filter(|written| panel < written.panels) {
                    for row in block.clone() {
                        for line in (0..width).step_by(64 / size_of::<E>()) {
                            s.prefetch_ahead(written.tensor, row * written.row + panel * written.panel + line);
                        }
                    }
                }
                let bias = &bias[panel * width..][..width];
                let mut start = if panel < held { Start::Add } else { Start::Bias(bias) };
                let sums = &mut sums[block.start * stride + panel * width..];
                for product in products.iter().flatten() {
                    if !(product.first..product.first + product.panels).contains(&panel) {
                        continue;
                    }
                    let k = product.rows[block.start].len();
                    let weights = &product.weights[(panel - product.first) * k * width..][..k * width];
                    let at = |row: usize| row * stride;
                    let mut tile = Tile {
                        rows: &product.rows[block.clone()],
                        first: 0,
                        b: &[],
                        c: sums,
                        at,
                        columns: width,
                        column: 0,
                        start,
                    };
                    tile.of_panel(s, weights);
                    start = Start::Add;
                }
            }
        }
    }
}

/// The rows cut into as few blocks of nearly equal size as can be.
#[inline(always)]
fn blocks(rows: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    let count = rows.div_ceil(most).max(1);
    let (few, more) = (rows / count, rows % count);
    let first = move |block: usize| block * few + block.min(more);
    (0..count).map(move |block| first(block)..first(block + 1))
}

/// Rows times panels, where panels are few.
pub(super) struct DirectRows<'a, 'c, E> {
    pub(super) rows: &'a [&'a [E]],
    pub(super) b: Panels<'a, E>,
    pub(super) c: &'c mut [E],
    /// Where each row of `c` begins.
    pub(super) offsets: &'a [usize],
    pub(super) start: Start<'a, E>,
}

impl<E: CpuElement> Kernel<E> for DirectRows<'_, '_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let DirectRows { rows, b, c, offsets, start } = self;
        let width = 2 * S::LANES;
        for block in blocks(rows.len(), TILE_ROWS.min(S::ROWS)) {
            for panel in b.order(b.n.div_ceil(width)) {
                let column = panel * width;
                let columns = width.min(b.n - column);
                let (rows, offsets) = (&rows[block.clone()], &offsets[block.clone()]);
                for &offset in offsets {
                    s.prefetch(&c[offset + column]);
                    s.prefetch(&c[offset + column + columns - 1]);
                }
                let at = |row: usize| offsets[row] + column;
                let mut tile = Tile { rows, first: 0, b: &[], c: &mut *c, at, columns, column, start };
                tile.of_panel(s, &b.data[panel * b.k * width..][..b.k * width]);
            }
        }
    }
}

/// Some rows times a part of a panel.
struct Tile<'a, 'c, E, F> {
    rows: &'a [&'a [E]],
    /// The first element of each row.
    first: usize,
    /// `[k, 2 * LANES]`
    b: &'a [E],
    c: &'c mut [E],
    /// Where the sums of a row go.
    at: F,
    /// Sums of a row that are wanted, and the column of the product that the first is.
    columns: usize,
    column: usize,
    start: Start<'a, E>,
}

impl<'a, E: CpuElement, F: Fn(usize) -> usize> Tile<'a, '_, E, F> {
    /// The sums of a panel.
    #[inline(always)]
    fn of_panel<S: Simd<E>>(&mut self, s: S, panel: &'a [E]) {
        for b in panel.chunks(DEPTH * 2 * S::LANES) {
            self.b = b;
            match self.rows.len() {
                1 => self.of_rows::<S, 1>(s),
                2 => self.of_rows::<S, 2>(s),
                3 => self.of_rows::<S, 3>(s),
                4 => self.of_rows::<S, 4>(s),
                5 => self.of_rows::<S, 5>(s),
                6 => self.of_rows::<S, 6>(s),
                7 => self.of_rows::<S, 7>(s),
                8 => self.of_rows::<S, 8>(s),
                9 => self.of_rows::<S, 9>(s),
                10 => self.of_rows::<S, 10>(s),
                _ => self.of_rows::<S, TILE_ROWS>(s),
            }
            self.first += DEPTH;
            self.start = Start::Add;
        }
    }

    #[inline(always)]
    fn of_rows<S: Simd<E>, const ROWS: usize>(&mut self, s: S) {
        if ROWS > S::ROWS {
            return; // never called, and not worth compiling
        }
        let Tile { rows, first, b, c, at, columns, column, start } = self;
        let width = 2 * S::LANES;
        let depth = b.len() / width;
        let mut a: [&[E]; ROWS] = [&[]; ROWS];
        for r in 0..ROWS {
            a[r] = &rows[r][*first..*first + depth];
        }
        let mut sums = [[s.splat(E::zero()); 2]; ROWS];
        for (kk, b) in (0..depth).zip(b.chunks_exact(width)) {
            prefetch_panel(s, b);
            let (low, high) = (s.load(&b[..S::LANES]), s.load(&b[S::LANES..]));
            for r in 0..ROWS {
                let value = s.splat(a[r][kk]);
                sums[r][0] = s.mul_add(value, low, sums[r][0]);
                sums[r][1] = s.mul_add(value, high, sums[r][1]);
            }
        }
        for r in 0..ROWS {
            finish(s, &mut c[at(r)..][..*columns], *column, *start, &sums[r]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::simd::Isa;

    /// Every number of rows, on every instruction set: the bits of the sums written out. Of three panels the first two have the first product, the last two the
    /// second; the first starts with what is there.
    #[test]
    fn are_the_sums_in_order() {
        let number = |i: usize| (i * 7919 % 1000) as f32 / 1000.0 - 0.4;
        for isa in Isa::all_fused() {
            let width = 2 * isa.lanes::<f32>();
            for (rows, k) in (1..=24).flat_map(|rows| [(rows, [1, 5]), (rows, [3, DEPTH + 3])]) {
                let a = k.map(|k| (0..rows * k).map(number).collect::<Vec<f32>>());
                let weights = k.map(|k| (0..2 * k * width).map(|i| number(i + k)).collect::<Vec<f32>>());
                let bias: Vec<f32> = (0..3 * width).map(|i| number(i + 11)).collect();
                let mut sums: Vec<f32> = (0..rows * 3 * width).map(|i| number(i + 7)).collect();
                let mut expected = sums.clone();
                for (at, sum) in expected.iter_mut().enumerate() {
                    let (row, panel, j) = (at / (3 * width), at / width % 3, at % width);
                    *sum = if panel == 0 { *sum } else { bias[panel * width + j] };
                    for (product, &k) in
                        k.iter().enumerate().filter(|(product, _)| (*product..product + 2).contains(&panel))
                    {
                        for (block, a) in a[product][row * k..][..k].chunks(DEPTH).enumerate() {
                            let at =
                                |kk: usize| weights[product][((panel - product) * k + block * DEPTH + kk) * width + j];
                            *sum += a.iter().enumerate().fold(0.0, |sum, (kk, a)| a.mul_add(at(kk), sum));
                        }
                    }
                }
                let of_rows = [0, 1].map(|product| a[product].chunks_exact(k[product]).collect::<Vec<&[f32]>>());
                let product =
                    |of: usize| DirectProduct { rows: &of_rows[of], weights: &weights[of], first: of, panels: 2 };
                let products = [0, 1].map(|of| Some(product(of)));
                isa.run(DirectSums { products, bias: &bias, held: 1, sums: &mut sums, rows, written: [None; 2] });
                assert_eq!(sums, expected, "{rows} rows, {k:?} products on {}", isa.name());
            }
        }
    }
}
