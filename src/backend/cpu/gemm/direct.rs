//! Products of a few rows, which are read where they lie, with some panels.
//!
//! Packing a left operand pays where many panels use it one after another; here rows are few and in the nearest cache, and the processor reads an
//! element of each and copies it to all lanes by one instruction. The sums are those of [`gemm`](super), in the same order.

use std::ops::Range;

use super::DEPTH;
use super::tile::{Start, finish};
use crate::backend::cpu::CpuElement;
use crate::simd::{Kernel, Simd};

/// Most rows of a tile: each takes a register for its address.
const TILE_ROWS: usize = 11;

/// Rows of a panel by which its lines are asked for before they are needed.
const AHEAD: usize = 8;

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
                    let mut tile = Tile { rows: &product.rows[block.clone()], first: 0, b: &[], sums, stride, start };
                    for b in weights.chunks(DEPTH * width) {
                        tile.b = b;
                        match block.len() {
                            1 => tile.of_rows::<S, 1>(s),
                            2 => tile.of_rows::<S, 2>(s),
                            3 => tile.of_rows::<S, 3>(s),
                            4 => tile.of_rows::<S, 4>(s),
                            5 => tile.of_rows::<S, 5>(s),
                            6 => tile.of_rows::<S, 6>(s),
                            7 => tile.of_rows::<S, 7>(s),
                            8 => tile.of_rows::<S, 8>(s),
                            9 => tile.of_rows::<S, 9>(s),
                            10 => tile.of_rows::<S, 10>(s),
                            _ => tile.of_rows::<S, TILE_ROWS>(s),
                        }
                        tile.first += DEPTH;
                        tile.start = Start::Add;
                    }
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

/// Some rows times a part of a panel.
struct Tile<'a, 's, E> {
    rows: &'a [&'a [E]],
    /// The first element of each row.
    first: usize,
    /// `[k, 2 * LANES]`
    b: &'a [E],
    sums: &'s mut [E],
    stride: usize,
    start: Start<'a, E>,
}

impl<E: CpuElement> Tile<'_, '_, E> {
    #[inline(always)]
    fn of_rows<S: Simd<E>, const ROWS: usize>(&mut self, s: S) {
        if ROWS > S::ROWS {
            return; // never called, and not worth compiling
        }
        let Tile { rows, first, b, sums: out, stride, start } = self;
        let width = 2 * S::LANES;
        let depth = b.len() / width;
        let mut a: [&[E]; ROWS] = [&[]; ROWS];
        for r in 0..ROWS {
            a[r] = &rows[r][*first..*first + depth];
        }
        let mut sums = [[s.splat(E::zero()); 2]; ROWS];
        for (kk, b) in (0..depth).zip(b.chunks_exact(width)) {
            s.prefetch_ahead(b, AHEAD * width);
            s.prefetch_ahead(b, AHEAD * width + S::LANES);
            let (low, high) = (s.load(&b[..S::LANES]), s.load(&b[S::LANES..]));
            for r in 0..ROWS {
                let value = s.splat(a[r][kk]);
                sums[r][0] = s.mul_add(value, low, sums[r][0]);
                sums[r][1] = s.mul_add(value, high, sums[r][1]);
            }
        }
        for r in 0..ROWS {
            finish(s, &mut out[r * *stride..][..width], 0, *start, &sums[r]);
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
