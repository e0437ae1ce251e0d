//! Products of a transposed left operand: the gradients of weights.
//!
//! Weights of the input and of the state share the left operand, the gates' gradients, and so do the biases: it is read and packed once for all of them.

use std::ops::Range;

use super::blocks::{BLOCK_ROWS, Blocks, MAX_BLOCKS};
use super::outer::{FEW, OuterProducts};
use super::pack::pack_rows;
use super::sums::sum_rows;
use super::tile::{MAX_ROWS, Start, Tile, tile};
use super::{DEPTH, amx};
use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd, load_part, store_part};

/// Columns of right operands that [`multiply_transposed`] packs at once.
const BLOCK_COLUMNS: usize = 1024;

/// Tiles that [`multiply_transposed`] packs of the left operand at once.
const TILES_PACKED: usize = 8;

/// A right operand of [`multiply_transposed`], `[k, n]`.
#[derive(Clone, Copy)]
pub(crate) struct Right<'a, 's, E> {
    pub(crate) n: usize,
    /// Its rows, absent for zeros.
    pub(crate) row: &'a dyn Fn(usize) -> Option<&'s [E]>,
}

/// Columns of the left operand of [`multiply_transposed`], and what is made of them.
pub(crate) struct Columns<'c, E, const N: usize> {
    /// The first.
    pub(crate) first: usize,
    pub(crate) count: usize,
    /// A product for each right operand, `[count, n]`, or empty where it is not wanted.
    pub(crate) c: [&'c mut [E]; N],
    /// The sum of each column, or empty.
    pub(crate) sums: &'c mut [E],
}

/// Elements of scratch that [`multiply_transposed`] needs for at most `m` columns at once and right operands of `n` columns each over `k` products.
pub(crate) fn multiply_transposed_scratch<E: CpuElement>(isa: Isa, m: usize, n: &[usize], k: usize) -> usize {
    let panels = |width: usize| n.iter().map(|n| n.div_ceil(width)).fold(0, usize::saturating_add);
    if amx::serves::<E>(isa, n.iter().copied().fold(0, usize::saturating_add)) {
        return amx::multiply_transposed_scratch(panels(amx::WIDTH), k);
    }
    let width = 2 * isa.lanes::<E>();
    let depth = k.min(DEPTH);
    let rows = (TILES_PACKED * isa.rows::<E>()).min(m.saturating_add(1));
    depth * (rows + panels(width).min(BLOCK_COLUMNS / width) * width)
}

/// `c = start + a^T alpha b` for the columns of `a`, `[k, m]` and given by rows, and for each right operand `b`; and the columns' sums.
#[allow(clippy::too_many_arguments)] // a product has many sizes, and each is another thing
pub(crate) fn multiply_transposed<'s, E: CpuElement, const N: usize>(
    isa: Isa,
    k: usize,
    alpha: E,
    a_row: impl Fn(usize) -> &'s [E],
    rights: [Right<'_, 's, E>; N],
    columns: &mut [Columns<'_, E, N>],
    start: Start<'_, E>,
    scratch: &mut [E],
) {
    if let Some(tiles) = amx::tiles::<E>(isa, rights.iter().map(|right| right.n).fold(0, usize::saturating_add)) {
        debug_assert!(alpha == E::one(), "the matrix unit is not asked for scaled products");
        return amx::multiply_transposed((isa, tiles), k, a_row, rights, columns, start, scratch);
    }
    // Panels for vectors, however many rows they have.
    let isa = isa.without_tiles();
    let most = isa.rows::<E>();
    let width = 2 * isa.lanes::<E>();
    let all = rights.iter().map(|right| right.n.div_ceil(width)).sum();
    let are_packed = all > 0 && k > FEW;
    for columns in columns.iter_mut() {
        if are_packed {
            columns.sums.fill(E::zero());
            continue;
        }
        for (block, sums) in columns.sums.chunks_mut(BLOCK_ROWS).enumerate() {
            let at = columns.first + block * BLOCK_ROWS;
            let at = at..at + sums.len();
            let row = |kk: usize| &a_row(kk)[at.clone()];
            sum_rows(isa, k, row, |_| E::one(), sums, &mut [E::zero(); BLOCK_ROWS][..at.len()]);
        }
    }
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        let start = if k0 == 0 { start } else { Start::Add };
        for block in blocks_of(all, BLOCK_COLUMNS / width) {
            let (b_packed, a_packed) = scratch.split_at_mut(block.len() * width * depth);
            for (of, at, panels) in portions(&rights, width, &block) {
                let out = &mut b_packed[at * width * depth..][..panels.len() * width * depth];
                pack_rows(isa, depth, rights[of].n, panels, |kk| (rights[of].row)(k0 + kk), out);
            }
            if alpha != E::one() {
                b_packed.iter_mut().for_each(|b| *b *= alpha);
            }
            for Columns { first, count, c, sums } in columns.iter_mut() {
                let (first, count) = (*first, *count);
                let is_wanted = c.each_ref().map(|c| !c.is_empty());
                if !are_packed {
                    let none: &[E] = &[];
                    let mut a = [none; FEW];
                    for (kk, a) in a[..k].iter_mut().enumerate() {
                        *a = &a_row(kk)[first..first + count];
                    }
                    for (of, at, panels) in portions(&rights, width, &block).filter(|(of, ..)| is_wanted[*of]) {
                        let b = &b_packed[at * width * depth..][..panels.len() * width * depth];
                        let (column, n) = (panels.start * width, rights[of].n);
                        isa.run(OuterProducts { a: &a[..k], b, c: &mut *c[of], column, n, start });
                    }
                    continue;
                }
                let sums = if block.start == 0 { &mut **sums } else { &mut [] };
                if sums.is_empty() && !portions(&rights, width, &block).any(|(of, ..)| is_wanted[of]) {
                    continue;
                }
                // Several tiles high, so that packing reads long stretches of each row.
                for m0 in (0..count).step_by(TILES_PACKED * most) {
                    let rows = (TILES_PACKED * most).min(count - m0);
                    let blocks = Blocks::new(rows, most);
                    let a_part = |kk: usize| &a_row(k0 + kk)[first + m0..first + m0 + rows];
                    let pack = PackTransposed { depth, blocks: &blocks, a_row: a_part, out: &mut *a_packed };
                    match sums.get_mut(m0..m0 + rows) {
                        Some(sums) => {
                            let mut block_sums = [E::zero(); BLOCK_ROWS];
                            isa.run(SumAndPack { pack, sums: &mut block_sums });
                            sums.iter_mut().zip(block_sums).for_each(|(sum, part)| *sum += part);
                        }
                        None => isa.run(pack),
                    }
                    for (of, at, panels) in portions(&rights, width, &block).filter(|(of, ..)| is_wanted[*of]) {
                        let (n, c) = (rights[of].n, &mut *c[of]);
                        for block in blocks.iter() {
                            let a = &a_packed[block.before * depth..][..block.width * depth];
                            let mut offsets = [0; MAX_ROWS];
                            for i in 0..block.taken {
                                offsets[i] = (m0 + block.at + i) * n;
                            }
                            let offsets = &offsets[..block.taken];
                            let b = b_packed[at * width * depth..].chunks_exact(width * depth);
                            for (panel, b) in panels.clone().zip(b) {
                                let column = panel * width;
                                tile(isa, block.width, &mut Tile { a, b, c, offsets, column, n, start });
                            }
                        }
                    }
                }
            }
        }
    }
}

/// `0..count` in blocks of at most `most`.
pub(super) fn blocks_of(count: usize, most: usize) -> impl Iterator<Item = Range<usize>> {
    (0..count).step_by(most).map(move |first| first..count.min(first + most))
}

/// The right operands that have panels in `block`, of all their panels one after another: which operand, where in the block, and which panels of its own.
pub(super) fn portions<E>(
    rights: &[Right<'_, '_, E>],
    width: usize,
    block: &Range<usize>,
) -> impl Iterator<Item = (usize, usize, Range<usize>)> {
    let (first, end) = (block.start, block.end);
    let mut before = 0;
    rights.iter().map(move |right| right.n.div_ceil(width)).enumerate().filter_map(move |(of, count)| {
        let [from, to] = [first, end].map(|at| at.clamp(before, before + count));
        let panels = from - before..to - before;
        before += count;
        (!panels.is_empty()).then(|| (of, from - first, panels))
    })
}

/// Packs blocks of columns of a left operand given by rows of `k`.
struct PackTransposed<'a, E, F> {
    depth: usize,
    blocks: &'a Blocks,
    /// The rows' elements that the blocks count from.
    a_row: F,
    /// `[block][k][width]`
    out: &'a mut [E],
}

impl<'s, E: CpuElement, F: Fn(usize) -> &'s [E]> Kernel<E> for PackTransposed<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        self.pack::<S, false>(s, &mut []);
    }
}

/// Packs, and adds the rows to `sums`.
struct SumAndPack<'a, E, F> {
    pack: PackTransposed<'a, E, F>,
    sums: &'a mut [E; BLOCK_ROWS],
}

impl<'s, E: CpuElement, F: Fn(usize) -> &'s [E]> Kernel<E> for SumAndPack<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        self.pack.pack::<S, true>(s, self.sums);
    }
}

impl<'s, E: CpuElement, F: Fn(usize) -> &'s [E]> PackTransposed<'_, E, F> {
    #[inline(always)]
    fn pack<S: Simd<E>, const SUM: bool>(self, s: S, sums: &mut [E]) {
        const { assert!(S::ROWS <= 3 * S::LANES, "three vectors hold a row of a tile") };
        let blocks = &self.blocks.blocks[..self.blocks.count];
        // Whole vectors: what was written in part cannot be read back at once.
        let mut totals = [[s.splat(E::zero()); 3]; MAX_BLOCKS];
        for kk in 0..self.depth {
            let source = (self.a_row)(kk);
            // Rows lie too far apart for the processor to guess the next ones.
            let ahead = (self.a_row)((kk + 6).min(self.depth - 1));
            for at in (0..ahead.len()).step_by(64 / size_of::<E>()) {
                s.prefetch(&ahead[at]);
            }
            for (block, totals) in blocks.iter().zip(&mut totals) {
                let out = &mut self.out[block.before * self.depth + kk * block.width..][..block.width];
                let from = &source[block.at..block.at + block.taken];
                for (v, total) in totals.iter_mut().enumerate().take(block.width.div_ceil(S::LANES)) {
                    let at = v * S::LANES;
                    let taken = S::LANES.min(block.taken.saturating_sub(at));
                    let row = load_part(s, from, at.min(block.taken), taken);
                    store_part(s, out, at, S::LANES.min(block.width - at), row);
                    if SUM {
                        *total = s.add(*total, row);
                    }
                }
            }
        }
        if SUM {
            for (block, totals) in blocks.iter().zip(totals) {
                for (v, total) in totals.into_iter().enumerate() {
                    let at = (v * S::LANES).min(block.taken);
                    store_part(s, &mut sums[block.at..], at, S::LANES.min(block.taken - at), total);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two right operands and the sums of two runs of columns at once, one of which lacks a product; panels share a block or lie in several. The bits of each
    /// by itself.
    #[test]
    fn several_products_at_once_are_each_by_itself() {
        let number = |i: usize| (i * 7919 % 1000) as f32 / 1000.0 - 0.4;
        for isa in Isa::all_fused().into_iter().map(Isa::without_tiles) {
            for (m, n, k) in [(7, [31, 50], 3), (130, [1, 40], DEPTH + 9), (9, [1000, 70], 40), (5, [0, 0], 600)] {
                let (width, starts) = (2 * m + 5, [m + 5, 3]);
                let a: Vec<f32> = (0..k * width).map(number).collect();
                let a_row = |kk: usize| &a[kk * width..][..width];
                let b = n.map(|n| (0..k * n).map(|i| number(i + n)).collect::<Vec<f32>>());
                // The second row of one is missing.
                let rows = [0, 1].map(|of| {
                    let (b, n) = (&b[of], n[of]);
                    move |kk: usize| (of == 0 || kk != 1).then(|| &b[kk * n..][..n])
                });
                let mut scratch = vec![f32::NAN; multiply_transposed_scratch::<f32>(isa, m, &n, k)];
                let rights = [0, 1].map(|of| Right { n: n[of], row: &rows[of] });
                let [mut x, mut x_too, mut h] = [n[0], n[0], n[1]].map(|n| vec![f32::NAN; m * n]);
                let mut sums = [vec![f32::NAN; m], vec![f32::NAN; m]];
                let [sums_one, sums_two] = &mut sums;
                let columns = &mut [
                    Columns { first: starts[0], count: m, c: [&mut x, &mut h], sums: sums_one },
                    Columns { first: starts[1], count: m, c: [&mut x_too, &mut []], sums: sums_two },
                ];
                multiply_transposed(isa, k, 1.0, a_row, rights, columns, Start::Set, &mut scratch);
                for (of, first, both) in [(0, starts[0], x), (1, starts[0], h), (0, starts[1], x_too)] {
                    let mut c = vec![f32::NAN; m * n[of]];
                    let columns = &mut [Columns { first, count: m, c: [&mut c], sums: &mut [] }];
                    let mut scratch = vec![f32::NAN; multiply_transposed_scratch::<f32>(isa, m, &[n[of]], k)];
                    multiply_transposed(isa, k, 1.0, a_row, [rights[of]], columns, Start::Set, &mut scratch);
                    assert_eq!(both, c, "{m} x {n:?} over {k}, {of}, on {}", isa.name());
                }
                for (first, sums) in starts.into_iter().zip(sums) {
                    for (i, sum) in sums.into_iter().enumerate() {
                        let blocks = (0..k).step_by(DEPTH).map(|first| first..k.min(first + DEPTH));
                        let block = |rows: Range<usize>| rows.fold(0.0, |sum, kk| sum + a_row(kk)[first + i]);
                        assert_eq!(sum, blocks.fold(0.0, |sum, rows| sum + block(rows)), "sum {i} over {k}");
                    }
                }
            }
        }
    }
}
