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

use super::outer::{FEW, OuterProducts};
use super::threads::{Divide, divide, share};
use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd, load_part, store_part};

/// Products that are summed in a register before the sum is added to the output.
pub(crate) const DEPTH: usize = 512;
/// Rows of a tile on any instruction set, at most.
const MAX_ROWS: usize = 14;
/// About how many rows are packed at once for [`multiply`].
const BLOCK_ROWS: usize = 112;
/// Columns of the right operand that [`multiply_transposed`] packs at once.
const BLOCK_COLUMNS: usize = 256;

/// Tiles that [`multiply_transposed`] packs of the left operand at once.
const TILES_PACKED: usize = 8;

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
    /// Whether panels are visited from the last to the first: walks through time alternate, and find what the previous
    /// step read last still in the cache. Results do not depend on it.
    pub(crate) last_first: bool,
}

impl<'a, E> Panels<'a, E> {
    /// An operand already packed.
    pub(crate) fn new(data: &'a [E], k: usize, n: usize) -> Self {
        Panels { data, k, n, last_first: false }
    }

    /// The same, visited in the order for step `t` of a walk.
    pub(crate) fn at_step(self, t: usize) -> Self {
        Panels { last_first: t % 2 == 1, ..self }
    }

    /// `0..count` in the order of visiting.
    #[inline(always)]
    fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<E> {
        let last_first = self.last_first;
        (0..count).map(move |i| if last_first { count - 1 - i } else { i })
    }
}

/// Elements that a `[k, n]` operand takes in panels.
pub(crate) fn panels_len<E: CpuElement>(isa: Isa, k: usize, n: usize) -> usize {
    let width = 2 * isa.lanes::<E>();
    // Saturating: a plan with sizes beyond memory is refused, not computed.
    n.div_ceil(width).saturating_mul(width).saturating_mul(k)
}

/// Packs the panels `panels` of a `[k, n]` operand whose *column* `j` is `column(j)`, `k` elements, or absent for zeros.
pub(crate) fn pack_columns<'s, E: CpuElement>(
    isa: Isa,
    k: usize,
    n: usize,
    panels: Range<usize>,
    column: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    isa.run(PackColumns { k, n, panels, column, out });
}

/// Rows of a panel that [`PackColumns`] writes at a time, which stay in the cache until all columns are there.
const COLUMN_ROWS: usize = 64;

/// Packs panels from columns.
struct PackColumns<'a, E, F> {
    k: usize,
    n: usize,
    panels: Range<usize>,
    column: F,
    /// `[panel][k][2 * LANES]`
    out: &'a mut [E],
}

impl<'s, E: CpuElement, F: Fn(usize) -> Option<&'s [E]>> Kernel<E> for PackColumns<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let PackColumns { k, n, panels, column, out } = self;
        let width = 2 * S::LANES;
        for (panel, out) in panels.zip(out.chunks_exact_mut(width * k)) {
            let columns = width.min(n - panel * width);
            if columns < width {
                out.fill(E::zero());
            }
            for (block, out) in out.chunks_mut(COLUMN_ROWS * width).enumerate() {
                let rows = block * COLUMN_ROWS..block * COLUMN_ROWS + out.len() / width;
                for i in (0..columns).step_by(4) {
                    let get = |r: usize| if i + r < columns { column(panel * width + i + r) } else { None };
                    if let (Some(a), Some(b), Some(c), Some(d)) = (get(0), get(1), get(2), get(3)) {
                        let rows = || rows.clone();
                        interleave(s, (&a[rows()], &b[rows()], &c[rows()], &d[rows()]), out, width, i);
                        continue;
                    }
                    for r in 0..4.min(columns - i) {
                        let source = get(r).map(|source| &source[rows.clone()]);
                        for (kk, row) in out.chunks_exact_mut(width).enumerate() {
                            row[i + r] = source.map_or(E::zero(), |source| source[kk]);
                        }
                    }
                }
            }
        }
    }
}

/// Columns `column..column + 4` of `[k][width]` from four slices of `k` elements.
#[inline(always)]
fn interleave<E: CpuElement, S: Simd<E>>(
    s: S,
    (a, b, c, d): (&[E], &[E], &[E], &[E]),
    out: &mut [E],
    width: usize,
    column: usize,
) {
    let ((a_fours, a), (b_fours, b)) = (a.as_chunks::<4>(), b.as_chunks::<4>());
    let ((c_fours, c), (d_fours, d)) = (c.as_chunks::<4>(), d.as_chunks::<4>());
    let (squares, rest) = out.split_at_mut(a_fours.len() * 4 * width);
    let fours = a_fours.iter().zip(b_fours).zip(c_fours).zip(d_fours);
    for ((((a, b), c), d), out) in fours.zip(squares.chunks_exact_mut(4 * width)) {
        s.transpose_four([a, b, c, d], &mut out[column..], width);
    }
    for ((((&a, &b), &c), &d), out) in a.iter().zip(b).zip(c).zip(d).zip(rest.chunks_exact_mut(width)) {
        out[column..column + 4].copy_from_slice(&[a, b, c, d]);
    }
}

/// Packs the panels `panels` of a `[k, n]` operand whose *row* `kk` is `row(kk)`, at least `n` elements, or absent for zeros.
pub(crate) fn pack_rows<'s, E: CpuElement>(
    isa: Isa,
    k: usize,
    n: usize,
    panels: Range<usize>,
    row: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    isa.run(PackRows { k, n, panels, row: &row, out });
}

/// Packs panels from rows.
struct PackRows<'a, E, F> {
    k: usize,
    n: usize,
    panels: Range<usize>,
    row: &'a F,
    /// `[panel][k][2 * LANES]`
    out: &'a mut [E],
}

impl<'s, E: CpuElement, F: Fn(usize) -> Option<&'s [E]>> Kernel<E> for PackRows<'_, E, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let PackRows { k, n, panels, row, out } = self;
        let width = 2 * S::LANES;
        for kk in 0..k {
            let source = row(kk);
            for (place, panel) in panels.clone().enumerate() {
                let to = &mut out[(place * k + kk) * width..][..width];
                let columns = width.min(n - panel * width);
                let Some(source) = source else {
                    to.fill(E::zero());
                    continue;
                };
                let from = &source[panel * width..][..columns];
                for half in [0, S::LANES] {
                    let v = load_part(s, from, half.min(columns), S::LANES.min(columns.saturating_sub(half)));
                    s.store(&mut to[half..half + S::LANES], v);
                }
            }
        }
    }
}

/// Blocks that [`Blocks`] holds at most: of [`BLOCK_ROWS`] rows, for the lowest tile.
const MAX_BLOCKS: usize = BLOCK_ROWS.div_ceil(6) + 1;

/// A block of rows, one tile high.
#[derive(Clone, Copy, Default)]
struct Block {
    /// First row.
    at: usize,
    /// Rows that it takes.
    taken: usize,
    /// Rows of its tile: those taken, rounded up to 1 or an even number.
    width: usize,
    /// Rows of all tiles before it.
    before: usize,
}

/// Rows cut into blocks of nearly equal size.
struct Blocks {
    blocks: [Block; MAX_BLOCKS],
    count: usize,
}

impl Blocks {
    /// Cuts `rows`, at most [`BLOCK_ROWS`], into blocks of at most `most`.
    fn new(rows: usize, most: usize) -> Self {
        let mut blocks = [Block::default(); MAX_BLOCKS];
        let (mut count, mut at, mut before) = (0, 0, 0);
        let wanted = rows.div_ceil(most);
        while at < rows {
            let share = (rows - at).div_ceil(wanted - count);
            let width = if share == 1 { 1 } else { share.next_multiple_of(2) };
            let taken = width.min(rows - at);
            blocks[count] = Block { at, taken, width, before };
            (count, at, before) = (count + 1, at + taken, before + width);
        }
        Blocks { blocks, count }
    }

    fn iter(&self) -> impl Iterator<Item = &Block> {
        self.blocks[..self.count].iter()
    }
}

/// Elements of scratch that [`multiply`] needs for `m` rows and `k` products.
pub(crate) fn multiply_scratch<E: CpuElement>(isa: Isa, m: usize, k: usize) -> usize {
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
    row: impl Fn(usize) -> &'s [E],
    b: Panels<'_, E>,
    c: &mut [E],
    offset: impl Fn(usize) -> usize,
    start: Start<'_, E>,
    scratch: &mut [E],
    row_workers: usize,
) {
    let most = isa.rows::<E>();
    let width = 2 * isa.lanes::<E>();
    let block_rows = BLOCK_ROWS / most * most;
    let panels = b.n.div_ceil(width);
    if rows.len() == 1 {
        // A vector times a matrix: nothing to pack.
        let (a, c) = (&row(rows.start)[..b.k], &mut c[offset(rows.start)..][..b.n]);
        divide(RowProduct { isa, a, b, panels: 0..panels, c, start }, row_workers);
        return;
    }
    for first in rows.clone().step_by(block_rows) {
        let count = block_rows.min(rows.end - first);
        let blocks = Blocks::new(count, most);
        let mut offsets = [0; BLOCK_ROWS];
        for i in 0..count {
            offsets[i] = offset(first + i);
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

/// Elements of scratch that [`multiply_transposed`] needs for an `[m, n]` result over `k` products.
pub(crate) fn multiply_transposed_scratch<E: CpuElement>(isa: Isa, m: usize, n: usize, k: usize) -> usize {
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

/// One tile of the output: some rows by a panel.
struct Tile<'a, E> {
    /// `[k][rows]`
    a: &'a [E],
    /// `[k][2 * LANES]`
    b: &'a [E],
    c: &'a mut [E],
    /// Where each row of `c` starts; rows of the tile beyond these are not written.
    offsets: &'a [usize],
    /// First column.
    column: usize,
    /// Columns of the whole output.
    n: usize,
    start: Start<'a, E>,
}

#[inline]
fn tile<E: CpuElement>(isa: Isa, rows: usize, tile: &mut Tile<'_, E>) {
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

struct TileOf<'t, 'a, const ROWS: usize, E>(&'t mut Tile<'a, E>);

impl<const ROWS: usize, E: CpuElement> Kernel<E> for TileOf<'_, '_, ROWS, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        if ROWS > S::ROWS {
            return; // never called, and not worth compiling
        }
        let Tile { a, b, c, offsets, column, n, start } = self.0;
        let (a, b, column, n, start) = (*a, *b, *column, *n, *start);
        // The output comes from far away when a walk adds to gates that were computed long before.
        let columns = (n - column).min(2 * S::LANES);
        for &offset in offsets.iter() {
            let c = &c[offset + column..][..columns];
            s.prefetch(&c[0]);
            s.prefetch(&c[columns - 1]);
        }
        let mut sums = [[s.splat(E::zero()); 2]; ROWS];
        for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(2 * S::LANES)) {
            let (low, high) = (s.load(&b[..S::LANES]), s.load(&b[S::LANES..]));
            for r in 0..ROWS {
                let value = s.splat(a[r]);
                sums[r][0] = s.mul_add(value, low, sums[r][0]);
                sums[r][1] = s.mul_add(value, high, sums[r][1]);
            }
        }
        for r in 0..ROWS {
            if r < offsets.len() {
                let c = &mut c[offsets[r] + column..][..columns];
                finish(s, c, column, start, &sums[r]);
            }
        }
    }
}

/// Writes sums of one row from `column` on.
#[inline(always)]
pub(super) fn finish<E: CpuElement, S: Simd<E>, const N: usize>(
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

/// A part of a row times some panels, by fours: as many independent sums as the latency of an addition wants.
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
    fn run<S: Simd<E>>(self, s: S) {
        let RowTimesPanels { a, b, panels, k0, c, start } = self;
        let width = 2 * S::LANES;
        let panel = |p: usize| &b.data[((panels.start + p) * b.k + k0) * width..][..a.len() * width];
        let first = panels.start * width;
        let columns = c.len();
        // All fours, then what is left one by one.
        let fours = panels.len() / 4;
        for unit in b.order(fours + panels.len() % 4) {
            if unit < fours {
                let p = 4 * unit;
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
                let end = columns.min(column + 4 * width);
                finish(s, &mut c[column..end], first + column, start, &sums);
            } else {
                let p = 3 * fours + unit;
                let mut sums = [s.splat(E::zero()); 2];
                for (&a, b) in a.iter().zip(panel(p).chunks_exact(width)) {
                    let value = s.splat(a);
                    sums[0] = s.mul_add(value, s.load(&b[..S::LANES]), sums[0]);
                    sums[1] = s.mul_add(value, s.load(&b[S::LANES..]), sums[1]);
                }
                let column = p * width;
                let end = columns.min(column + width);
                finish(s, &mut c[column..end], first + column, start, &sums);
            }
        }
    }
}
