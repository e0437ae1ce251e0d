//! Products of rows with panels.

use std::ops::Range;

use super::blocks::{BLOCK_ROWS, Block, Blocks};
use super::direct::DirectRows;
use super::pack::Panels;
use super::tile::{Start, Tile, finish, tile};
use super::{DEPTH, amx};
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::threads::{Divide, Workers, share};
use crate::simd::{Isa, Kernel, Simd};

/// Panels for which rows are read where they lie: packing them would take a good part of the time of the product.
const FEW_PANELS: usize = 8;

/// Elements of scratch that [`multiply`] needs for `m` rows and `k` products.
pub(crate) fn multiply_scratch<E: CpuElement>(isa: Isa, m: usize, k: usize) -> usize {
    if amx::serves::<E>(isa, k) {
        return amx::multiply_scratch(m, k);
    }
    let rows = isa.rows::<E>();
    let block = (BLOCK_ROWS / rows * rows).min(m);
    // Every block but one is as wide as its rows.
    (block + 1) * k.min(DEPTH)
}

/// `c = start + a b` for the rows `rows` of `a`. Row `i` of `a` is `row(i)`; row `i` of `c` starts at `offset(i)`. A single row
/// is divided by columns among `row_workers`.
#[allow(clippy::too_many_arguments)] // a product has many sizes, and each is another thing
pub(crate) fn multiply<'s, E: CpuElement>(
    isa: Isa,
    rows: Range<usize>,
    row: impl Fn(usize) -> &'s [E] + Sync,
    b: Panels<'_, E>,
    c: &mut [E],
    offset: impl Fn(usize) -> usize,
    start: Start<'_, E>,
    scratch: &mut [E],
    row_workers: Workers<'_>,
) {
    if let Some(tiles) = amx::tiles::<E>(isa, b.k) {
        return amx::multiply((isa, tiles), rows, row, b, c, offset, start, scratch);
    }
    let width = 2 * isa.lanes::<E>();
    let panels = b.n.div_ceil(width);
    if rows.len() == 1 {
        // A vector times a matrix: nothing to pack.
        let (a, c) = (&row(rows.start)[..b.k], &mut c[offset(rows.start)..][..b.n]);
        row_workers.divide(RowProduct { isa, a, b, panels: 0..panels, c, start });
        return;
    }
    let most = isa.rows::<E>();
    let block_rows = BLOCK_ROWS / most * most;
    for first in rows.clone().step_by(block_rows) {
        let count = block_rows.min(rows.end - first);
        let blocks = Blocks::new(count, most);
        let mut offsets = [0; BLOCK_ROWS];
        for i in 0..count {
            offsets[i] = offset(first + i);
        }
        if panels <= FEW_PANELS {
            let none: &[E] = &[];
            let mut rows = [none; BLOCK_ROWS];
            for i in 0..count {
                rows[i] = row(first + i);
            }
            isa.run(DirectRows { rows: &rows[..count], b, c: &mut *c, offsets: &offsets[..count], start });
            continue;
        }
        for k0 in (0..b.k).step_by(DEPTH) {
            let k = DEPTH.min(b.k - k0);
            let start = if k0 == 0 { start } else { Start::Add };
            for block in blocks.iter() {
                let out = &mut scratch[block.before * k..][..block.width * k];
                pack_block(block, |i| &row(first + block.at + i)[k0..k0 + k], out);
            }
            for panel in b.order(panels) {
                let b_panel = &b.data[(panel * b.k + k0) * width..][..k * width];
                for block in blocks.iter() {
                    let a = &scratch[block.before * k..][..block.width * k];
                    let offsets = &offsets[block.at..block.at + block.taken];
                    tile(
                        isa,
                        block.width,
                        &mut Tile { a, b: b_panel, c: &mut *c, offsets, column: panel * width, n: b.n, start },
                    );
                }
            }
        }
    }
}

/// `[k][width]` from rows of `k` elements; zeros in the rows beyond those taken.
#[inline]
fn pack_block<'s, E: CpuElement>(block: &Block, row: impl Fn(usize) -> &'s [E], out: &mut [E]) {
    let &Block { taken, width, .. } = block;
    if taken < width {
        out.fill(E::zero());
    }
    let mut i = 0;
    while i + 4 <= taken {
        // Four by four, which the compiler turns into vectors and shuffles.
        let rows = [row(i), row(i + 1), row(i + 2), row(i + 3)];
        let fours = rows.map(|row| row.as_chunks::<4>().0);
        let count = fours[0].len();
        let fours = fours.map(|four| &four[..count]);
        for (chunk, out) in out.chunks_exact_mut(4 * width).enumerate().take(count) {
            let square = [fours[0][chunk], fours[1][chunk], fours[2][chunk], fours[3][chunk]];
            for kk in 0..4 {
                let to = &mut out[kk * width + i..][..4];
                to.copy_from_slice(&[square[0][kk], square[1][kk], square[2][kk], square[3][kk]]);
            }
        }
        for kk in 4 * count..rows[0].len() {
            for (r, row) in rows.iter().enumerate() {
                out[kk * width + i + r] = row[kk];
            }
        }
        i += 4;
    }
    while i < taken {
        for (to, &a) in out.chunks_exact_mut(width).zip(row(i)) {
            to[i] = a;
        }
        i += 1;
    }
}

/// One row times some panels.
struct RowProduct<'a, E> {
    isa: Isa,
    a: &'a [E],
    b: Panels<'a, E>,
    panels: Range<usize>,
    /// The columns of these panels.
    c: &'a mut [E],
    start: Start<'a, E>,
}

impl<E: CpuElement> Divide for RowProduct<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let RowProduct { isa, a, b, panels, c, start } = self;
        let middle = panels.start + share(panels.len(), left, of);
        let width = 2 * isa.lanes::<E>();
        let (c_left, c_right) = c.split_at_mut(((middle - panels.start) * width).min(c.len()));
        let part = |panels, c| RowProduct { isa, a, b, panels, c, start };
        (part(panels.start..middle, c_left), part(middle..panels.end, c_right))
    }

    fn run(self) {
        let RowProduct { isa, a, b, panels, c, start } = self;
        for k0 in (0..b.k).step_by(DEPTH) {
            let a = &a[k0..b.k.min(k0 + DEPTH)];
            let start = if k0 == 0 { start } else { Start::Add };
            isa.run(RowTimesPanels { a, b, panels: panels.clone(), k0, c: &mut *c, start });
        }
    }
}

/// A part of a row times some panels, up to four at once: as many independent sums as the latency of an addition wants.
struct RowTimesPanels<'a, E> {
    a: &'a [E],
    b: Panels<'a, E>,
    panels: Range<usize>,
    k0: usize,
    c: &'a mut [E],
    start: Start<'a, E>,
}

impl<E: CpuElement> Kernel<E> for RowTimesPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(mut self, s: S) {
        let panels = self.panels.len();
        let count = panels.div_ceil(4);
        // As many panels at a time, but for one more at the first ones.
        let (least, rest) = (panels / count.max(1), panels % count.max(1));
        for at in self.b.order(count) {
            let (first, some) = (at * least + at.min(rest), least + usize::from(at < rest));
            match some {
                1 => self.some::<S, 1, 2>(s, first),
                2 => self.some::<S, 2, 4>(s, first),
                3 => self.some::<S, 3, 6>(s, first),
                _ => self.some::<S, 4, 8>(s, first),
            }
        }
    }
}

impl<E: CpuElement> RowTimesPanels<'_, E> {
    /// `N` panels, twice as many vectors.
    #[inline(always)]
    fn some<S: Simd<E>, const N: usize, const VECTORS: usize>(&mut self, s: S, first: usize) {
        let width = 2 * S::LANES;
        let (a, b, k0) = (self.a, &self.b, self.k0);
        let panel =
            |p: usize| &b.data[((self.panels.start + first + p.min(N - 1)) * b.k + k0) * width..][..a.len() * width];
        let mut sums = [s.splat(E::zero()); VECTORS];
        // By iterators: the compiler sees that the elements are there.
        let four = panel(0).chunks_exact(width).zip(panel(1).chunks_exact(width));
        let four = four.zip(panel(2).chunks_exact(width)).zip(panel(3).chunks_exact(width));
        for (&a, (((b0, b1), b2), b3)) in a.iter().zip(four) {
            let (value, b) = (s.splat(a), [b0, b1, b2, b3]);
            for p in 0..N {
                sums[2 * p] = s.mul_add(value, s.load(&b[p][..S::LANES]), sums[2 * p]);
                sums[2 * p + 1] = s.mul_add(value, s.load(&b[p][S::LANES..]), sums[2 * p + 1]);
            }
        }
        let column = first * width;
        let end = self.c.len().min(column + N * width);
        finish(s, &mut self.c[column..end], self.panels.start * width + column, self.start, &sums);
    }
}
