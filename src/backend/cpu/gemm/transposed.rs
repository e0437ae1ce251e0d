//! Products of a transposed left operand: the gradients of weights.

use super::blocks::Blocks;
use super::outer::{FEW, OuterProducts};
use super::pack::pack_rows;
use super::tile::{MAX_ROWS, Start, Tile, tile};
use super::{DEPTH, amx};
use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd, load_part, store_part};

/// Columns of the right operand that [`multiply_transposed`] packs at once.
const BLOCK_COLUMNS: usize = 1024;

/// Tiles that [`multiply_transposed`] packs of the left operand at once.
const TILES_PACKED: usize = 8;

/// Elements of scratch that [`multiply_transposed`] needs for an `[m, n]` result over `k` products.
pub(crate) fn multiply_transposed_scratch<E: CpuElement>(isa: Isa, m: usize, n: usize, k: usize) -> usize {
    if amx::serves::<E>(isa, n) {
        return amx::multiply_transposed_scratch(n, k);
    }
    let width = 2 * isa.lanes::<E>();
    let depth = k.min(DEPTH);
    let rows = (TILES_PACKED * isa.rows::<E>()).min(m + 1);
    depth * (rows + n.next_multiple_of(width).min(BLOCK_COLUMNS))
}

/// `c = start + a^T alpha b` where `a` is `[k, m]` and `b` `[k, n]`, given by rows; `b` may lack rows, which are zero. `c` is
/// `[m, n]`; the columns of `a` are those from `first` on.
#[allow(clippy::too_many_arguments)] // as above
pub(crate) fn multiply_transposed<'s, E: CpuElement>(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    first: usize,
    alpha: E,
    a_row: impl Fn(usize) -> &'s [E],
    b_row: impl Fn(usize) -> Option<&'s [E]>,
    c: &mut [E],
    start: Start<'_, E>,
    scratch: &mut [E],
) {
    if let Some(tiles) = amx::tiles::<E>(isa, n) {
        debug_assert!(alpha == E::one(), "the matrix unit is not asked for scaled products");
        return amx::multiply_transposed((isa, tiles), (m, n, k), first, a_row, b_row, c, start, scratch);
    }
    // Panels for vectors, however many rows they have.
    let isa = isa.without_tiles();
    let most = isa.rows::<E>();
    let width = 2 * isa.lanes::<E>();
    for k0 in (0..k).step_by(DEPTH) {
        let depth = DEPTH.min(k - k0);
        let start = if k0 == 0 { start } else { Start::Add };
        for n0 in (0..n).step_by(BLOCK_COLUMNS) {
            let columns = BLOCK_COLUMNS.min(n - n0);
            let panels = columns.div_ceil(width);
            let (b_packed, a_packed) = scratch.split_at_mut(panels * width * depth);
            let b_part = |kk: usize| b_row(k0 + kk).map(|row| &row[n0..n0 + columns]);
            pack_rows(isa, depth, columns, 0..panels, b_part, b_packed);
            if alpha != E::one() {
                b_packed.iter_mut().for_each(|b| *b *= alpha);
            }
            if k <= FEW {
                let none: &[E] = &[];
                let mut a = [none; FEW];
                for (kk, a) in a[..k].iter_mut().enumerate() {
                    *a = &a_row(kk)[first..first + m];
                }
                isa.run(OuterProducts { a: &a[..k], b: b_packed, c: &mut *c, column: n0, n, start });
                continue;
            }
            // Several tiles high, so that packing reads long stretches of each row.
            for m0 in (0..m).step_by(TILES_PACKED * most) {
                let rows = (TILES_PACKED * most).min(m - m0);
                let blocks = Blocks::new(rows, most);
                let a_part = |kk: usize| &a_row(k0 + kk)[first + m0..first + m0 + rows];
                isa.run(PackTransposed { depth, blocks: &blocks, a_row: a_part, out: &mut *a_packed });
                for block in blocks.iter() {
                    let a = &a_packed[block.before * depth..][..block.width * depth];
                    let mut offsets = [0; MAX_ROWS];
                    for i in 0..block.taken {
                        offsets[i] = (m0 + block.at + i) * n;
                    }
                    let offsets = &offsets[..block.taken];
                    for panel in 0..panels {
                        let b = &b_packed[panel * width * depth..][..width * depth];
                        let column = n0 + panel * width;
                        tile(isa, block.width, &mut Tile { a, b, c: &mut *c, offsets, column, n, start });
                    }
                }
            }
        }
    }
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
        for kk in 0..self.depth {
            let source = (self.a_row)(kk);
            // Rows lie too far apart for the processor to guess the next ones.
            let ahead = (self.a_row)((kk + 6).min(self.depth - 1));
            for at in (0..ahead.len()).step_by(64 / size_of::<E>()) {
                s.prefetch(&ahead[at]);
            }
            for block in &self.blocks.blocks[..self.blocks.count] {
                let out = &mut self.out[block.before * self.depth + kk * block.width..][..block.width];
                let from = &source[block.at..block.at + block.taken];
                let mut at = 0;
                while at < block.width {
                    let v = load_part(s, from, at.min(block.taken), S::LANES.min(block.taken.saturating_sub(at)));
                    store_part(s, out, at, S::LANES.min(block.width - at), v);
                    at += S::LANES;
                }
            }
        }
    }
}
