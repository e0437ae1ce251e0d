//! Matrix products on packed operands.
//!
//! A product is cut into tiles of a few rows by two vectors that stay in registers. The right operand is packed into
//! *panels*, two vectors wide: `[panel][k][2 * LANES]`, zero beyond the last column. The left operand is packed block by
//! block into `[block][k][rows]` right before it is used.
//!
//! The sum of an output runs over `k` in ascending order with one accumulator for every [`DEPTH`] products, and the partial
//! sums are added to the output in order. So the bits depend neither on the tile's shape, nor on the instruction set, nor on
//! how rows are split among threads.

use std::ops::Range;

use super::simd::{Isa, Kernel, Simd};
use crate::dtype::Scalar;

/// Products that are summed in a register before the sum is added to the output.
pub(crate) const DEPTH: usize = 512;
/// Rows of a tile on any instruction set, at most.
const MAX_ROWS: usize = 14;
/// About how many rows are packed at once for [`multiply`].
const BLOCK_ROWS: usize = 112;
/// Columns of the right operand that [`multiply_transposed`] packs at once.
const BLOCK_COLUMNS: usize = 256;

/// What the first partial sum meets in the output.
#[derive(Clone, Copy)]
pub(crate) enum Start<'a, E> {
    /// Nothing: `c = a b`.
    Set,
    /// What is there: `c += a b`.
    Add,
    /// A row vector: `c = bias + a b`.
    Bias(&'a [E]),
}

/// A right operand `[k, n]` in panels.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) k: usize,
    pub(crate) n: usize,
}

/// Elements that a `[k, n]` operand takes in panels.
pub(crate) fn panels_len<E: Scalar>(isa: Isa, k: usize, n: usize) -> usize {
    let width = 2 * isa.lanes::<E>();
    // Saturating: a plan with sizes beyond memory is refused, not computed.
    n.div_ceil(width).saturating_mul(width).saturating_mul(k)
}

/// Packs the panels `panels` of a `[k, n]` operand whose *column* `j` is `column(j)`, `k` elements, or absent for zeros.
pub(crate) fn pack_columns<'s, E: Scalar>(
    isa: Isa,
    k: usize,
    n: usize,
    panels: Range<usize>,
    column: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    let width = 2 * isa.lanes::<E>();
    for (panel, out) in panels.zip(out.chunks_exact_mut(width * k)) {
        let columns = width.min(n - panel * width);
        if columns < width {
            out.fill(E::zero());
        }
        // Eight columns at a time: their reads stay within cache lines, their writes within half of one.
        for first in (0..columns).step_by(8) {
            let count = 8.min(columns - first);
            let zeros: &[E] = &[];
            let mut sources = [zeros; 8];
            for i in 0..count {
                sources[i] = column(panel * width + first + i).unwrap_or(zeros);
            }
            if count == 8 && sources.iter().all(|s| s.len() >= k) {
                let sources = sources.map(|s| &s[..k]);
                for (kk, row) in out.chunks_exact_mut(width).enumerate() {
                    let to = &mut row[first..first + 8];
                    for i in 0..8 {
                        to[i] = sources[i][kk];
                    }
                }
            } else {
                for i in 0..count {
                    for (kk, row) in out.chunks_exact_mut(width).enumerate() {
                        row[first + i] = sources[i].get(kk).copied().unwrap_or(E::zero());
                    }
                }
            }
        }
    }
}

/// Packs the panels `panels` of a `[k, n]` operand whose *row* `kk` is `row(kk)`, at least `n` elements, or absent for zeros.
pub(crate) fn pack_rows<'s, E: Scalar>(
    isa: Isa,
    k: usize,
    n: usize,
    panels: Range<usize>,
    row: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    let width = 2 * isa.lanes::<E>();
    let first = panels.start;
    for kk in 0..k {
        let source = row(kk);
        for panel in panels.clone() {
            let start = ((panel - first) * k + kk) * width;
            let to = &mut out[start..start + width];
            let columns = width.min(n - panel * width);
            match source {
                Some(source) => {
                    let from = &source[panel * width..panel * width + columns];
                    if columns == width {
                        to.copy_from_slice(from);
                    } else {
                        to[..columns].copy_from_slice(from);
                        to[columns..].fill(E::zero());
                    }
                }
                None => to.fill(E::zero()),
            }
        }
    }
}

/// Cuts `rows` into blocks of nearly equal size, none above `most`. A block takes as many rows as it is wide, save the last.
struct Blocks {
    rows: usize,
    at: usize,
    left: usize,
}

impl Blocks {
    fn new(rows: usize, most: usize) -> Self {
        Blocks { rows, at: 0, left: rows.div_ceil(most) }
    }
}

impl Iterator for Blocks {
    /// First row, rows, and width: the rows rounded up to 1 or an even number, for which there is a tile.
    type Item = (usize, usize, usize);

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.rows {
            return None;
        }
        let share = (self.rows - self.at).div_ceil(self.left);
        let width = if share == 1 { 1 } else { share.next_multiple_of(2) };
        let first = self.at;
        let rows = width.min(self.rows - first);
        self.at += rows;
        self.left = self.left.saturating_sub(1).max(1);
        Some((first, rows, width))
    }
}

/// Elements of scratch that [`multiply`] needs for `m` rows and `k` products.
pub(crate) fn multiply_scratch<E: Scalar>(isa: Isa, m: usize, k: usize) -> usize {
    let rows = isa.rows::<E>();
    let block = (BLOCK_ROWS / rows * rows).min(m);
    // Every block but one is as wide as its rows.
    (block + 1) * k.min(DEPTH)
}

/// `c = start + a b` for the rows `rows` of `a`. Row `i` of `a` is `row(i)`; row `i` of `c` starts at `offset(i)`.
pub(crate) fn multiply<'s, E: Scalar>(
    isa: Isa,
    rows: Range<usize>,
    row: impl Fn(usize) -> &'s [E],
    b: Panels<'_, E>,
    c: &mut [E],
    offset: impl Fn(usize) -> usize,
    start: Start<'_, E>,
    scratch: &mut [E],
) {
    let most = isa.rows::<E>();
    let width = 2 * isa.lanes::<E>();
    let block_rows = BLOCK_ROWS / most * most;
    let panels = b.n.div_ceil(width);
    if rows.len() == 1 && b.k > 0 {
        // A vector times a matrix: nothing to pack, and panels by fours, for as many independent sums as latency wants.
        let (row, c) = (&row(rows.start)[..b.k], &mut c[offset(rows.start)..][..b.n]);
        for k0 in (0..b.k).step_by(DEPTH) {
            let k1 = b.k.min(k0 + DEPTH);
            let start = if k0 == 0 { start } else { Start::Add };
            isa.run(VectorTimesPanels { a: &row[k0..k1], b, k0, c: &mut *c, start });
        }
        return;
    }
    for first in rows.clone().step_by(block_rows) {
        let count = block_rows.min(rows.end - first);
        for k0 in (0..b.k).step_by(DEPTH) {
            let k = DEPTH.min(b.k - k0);
            let start = if k0 == 0 { start } else { Start::Add };
            let mut packed = 0;
            for (at, taken, tile_rows) in Blocks::new(count, most) {
                let block = &mut scratch[packed..packed + tile_rows * k];
                pack_block(taken, tile_rows, |i| &row(first + at + i)[k0..k0 + k], block);
                packed += tile_rows * k;
            }
            for panel in 0..panels {
                let b_panel = &b.data[(panel * b.k + k0) * width..][..k * width];
                let mut packed = 0;
                for (at, taken, tile_rows) in Blocks::new(count, most) {
                    let a = &scratch[packed..packed + tile_rows * k];
                    packed += tile_rows * k;
                    let mut offsets = [0; MAX_ROWS];
                    for i in 0..taken {
                        offsets[i] = offset(first + at + i);
                    }
                    tile(
                        isa,
                        tile_rows,
                        Tile { a, b: b_panel, c: &mut *c, offsets, taken, column: panel * width, n: b.n, start },
                    );
                }
            }
        }
    }
}

/// `[k][width]` from `taken` rows of `k` elements; zeros in the rows beyond.
#[inline]
fn pack_block<'s, E: Scalar>(taken: usize, width: usize, row: impl Fn(usize) -> &'s [E], out: &mut [E]) {
    if taken < width {
        out.fill(E::zero());
    }
    let mut i = 0;
    while i + 2 <= taken {
        let (one, two) = (row(i), row(i + 1));
        for ((to, &a), &b) in out.chunks_exact_mut(width).zip(one).zip(two) {
            let to = &mut to[i..i + 2];
            to[0] = a;
            to[1] = b;
        }
        i += 2;
    }
    if i < taken {
        for (to, &a) in out.chunks_exact_mut(width).zip(row(i)) {
            to[i] = a;
        }
    }
}

/// Elements of scratch that [`multiply_transposed`] needs for an `[m, n]` result over `k` products.
pub(crate) fn multiply_transposed_scratch<E: Scalar>(isa: Isa, m: usize, n: usize, k: usize) -> usize {
    let width = 2 * isa.lanes::<E>();
    let depth = k.min(DEPTH);
    let rows = (4 * isa.rows::<E>()).min(m + 1);
    depth * (rows + n.next_multiple_of(width).min(BLOCK_COLUMNS))
}

/// `c = start + a^T b` where `a` is `[k, m]` and `b` `[k, n]`, given by rows; `b` may lack rows, which are zero. `c` is
/// `[m, n]`; the columns of `a` are those from `first` on.
pub(crate) fn multiply_transposed<'s, E: Scalar>(
    isa: Isa,
    (m, n, k): (usize, usize, usize),
    first: usize,
    a_row: impl Fn(usize) -> &'s [E],
    b_row: impl Fn(usize) -> Option<&'s [E]>,
    c: &mut [E],
    start: Start<'_, E>,
    scratch: &mut [E],
) {
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
            // Four tiles high, so that packing reads whole cache lines.
            for m0 in (0..m).step_by(4 * most) {
                let rows = (4 * most).min(m - m0);
                for kk in 0..depth {
                    let source = &a_row(k0 + kk)[first + m0..first + m0 + rows];
                    let mut packed = 0;
                    for (at, taken, tile_rows) in Blocks::new(rows, most) {
                        let to = &mut a_packed[packed + kk * tile_rows..packed + (kk + 1) * tile_rows];
                        to[..taken].copy_from_slice(&source[at..at + taken]);
                        to[taken..].fill(E::zero());
                        packed += tile_rows * depth;
                    }
                }
                let mut packed = 0;
                for (at, taken, tile_rows) in Blocks::new(rows, most) {
                    let a = &a_packed[packed..packed + tile_rows * depth];
                    packed += tile_rows * depth;
                    let mut offsets = [0; MAX_ROWS];
                    for i in 0..taken {
                        offsets[i] = (m0 + at + i) * n;
                    }
                    for panel in 0..panels {
                        let b = &b_packed[panel * width * depth..][..width * depth];
                        let column = n0 + panel * width;
                        tile(isa, tile_rows, Tile { a, b, c: &mut *c, offsets, taken, column, n, start });
                    }
                }
            }
        }
    }
}

/// One tile of the output: `taken` rows by a panel.
struct Tile<'a, E> {
    /// `[k][rows]`
    a: &'a [E],
    /// `[k][2 * LANES]`
    b: &'a [E],
    c: &'a mut [E],
    /// Where each row of `c` starts.
    offsets: [usize; MAX_ROWS],
    taken: usize,
    /// First column.
    column: usize,
    /// Columns of the whole output.
    n: usize,
    start: Start<'a, E>,
}

#[inline]
fn tile<E: Scalar>(isa: Isa, rows: usize, tile: Tile<'_, E>) {
    match rows {
        1 => isa.run(TileOf::<1, E>(tile)),
        2 => isa.run(TileOf::<2, E>(tile)),
        4 => isa.run(TileOf::<4, E>(tile)),
        6 => isa.run(TileOf::<6, E>(tile)),
        8 => isa.run(TileOf::<8, E>(tile)),
        10 => isa.run(TileOf::<10, E>(tile)),
        12 => isa.run(TileOf::<12, E>(tile)),
        _ => isa.run(TileOf::<14, E>(tile)),
    }
}

struct TileOf<'a, const ROWS: usize, E>(Tile<'a, E>);

impl<const ROWS: usize, E: Scalar> Kernel<E> for TileOf<'_, ROWS, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        if ROWS > S::ROWS {
            return; // never called, and not worth compiling
        }
        let Tile { a, b, c, offsets, taken, column, n, start } = self.0;
        let mut sums = [[s.splat(E::zero()); 2]; ROWS];
        for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(2 * S::LANES)) {
            let (low, high) = (s.load(&b[..S::LANES]), s.load(&b[S::LANES..]));
            for r in 0..ROWS {
                let value = s.splat(a[r]);
                sums[r][0] = s.mul_add(value, low, sums[r][0]);
                sums[r][1] = s.mul_add(value, high, sums[r][1]);
            }
        }
        let columns = (n - column).min(2 * S::LANES);
        for r in 0..ROWS {
            if r < taken {
                let c = &mut c[offsets[r] + column..][..columns];
                finish(s, c, column, start, &sums[r]);
            }
        }
    }
}

/// Writes sums of one row from `column` on.
#[inline(always)]
fn finish<E: Scalar, S: Simd<E>, const N: usize>(
    s: S,
    c: &mut [E],
    column: usize,
    start: Start<'_, E>,
    sums: &[S::V; N],
) {
    let columns = c.len();
    for v in 0..N {
        let at = v * S::LANES;
        if at + S::LANES <= columns {
            let c = &mut c[at..at + S::LANES];
            let total = match start {
                Start::Set => sums[v],
                Start::Add => s.add(s.load(c), sums[v]),
                Start::Bias(bias) => s.add(s.load(&bias[column + at..]), sums[v]),
            };
            s.store(c, total);
        } else if at < columns {
            let c = &mut c[at..];
            let total = match start {
                Start::Set => sums[v],
                Start::Add => s.add(s.load_head(c), sums[v]),
                Start::Bias(bias) => s.add(s.load_head(&bias[column + at..column + columns]), sums[v]),
            };
            s.store_head(c, total);
        }
    }
}

/// One row times all panels.
struct VectorTimesPanels<'a, E> {
    a: &'a [E],
    b: Panels<'a, E>,
    k0: usize,
    c: &'a mut [E],
    start: Start<'a, E>,
}

impl<E: Scalar> Kernel<E> for VectorTimesPanels<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let VectorTimesPanels { a, b, k0, c, start } = self;
        let width = 2 * S::LANES;
        let panel = |p: usize| &b.data[(p * b.k + k0) * width..][..a.len() * width];
        let panels = b.n.div_ceil(width);
        let mut p = 0;
        while p + 4 <= panels {
            let mut sums = [s.splat(E::zero()); 8];
            let four = panel(p)
                .chunks_exact(width)
                .zip(panel(p + 1).chunks_exact(width))
                .zip(panel(p + 2).chunks_exact(width))
                .zip(panel(p + 3).chunks_exact(width));
            for (&a, (((b0, b1), b2), b3)) in a.iter().zip(four) {
                let value = s.splat(a);
                for (i, b) in [b0, b1, b2, b3].into_iter().enumerate() {
                    sums[2 * i] = s.mul_add(value, s.load(&b[..S::LANES]), sums[2 * i]);
                    sums[2 * i + 1] = s.mul_add(value, s.load(&b[S::LANES..]), sums[2 * i + 1]);
                }
            }
            let column = p * width;
            let end = b.n.min(column + 4 * width);
            finish(s, &mut c[column..end], column, start, &sums);
            p += 4;
        }
        while p < panels {
            let mut sums = [s.splat(E::zero()); 2];
            for (&a, b) in a.iter().zip(panel(p).chunks_exact(width)) {
                let value = s.splat(a);
                sums[0] = s.mul_add(value, s.load(&b[..S::LANES]), sums[0]);
                sums[1] = s.mul_add(value, s.load(&b[S::LANES..]), sums[1]);
            }
            let column = p * width;
            let end = b.n.min(column + width);
            finish(s, &mut c[column..end], column, start, &sums);
            p += 1;
        }
    }
}
