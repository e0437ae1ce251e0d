//! A tile of the output: a few rows by two vectors that stay in registers.

use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd};

/// Rows of a tile on any instruction set, at most.
pub(super) const MAX_ROWS: usize = 14;

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

/// Bytes of a panel by which its lines are asked for before they are needed: as long as the third cache takes to answer, and about what memory does.
const AHEAD: usize = 4096;

/// Asks for the lines of a panel that will be needed after this row of it.
#[inline(always)]
pub(super) fn prefetch_panel<E: CpuElement, S: Simd<E>>(s: S, row: &[E]) {
    let ahead = AHEAD / size_of::<E>();
    s.prefetch_ahead(row, ahead);
    // Two vectors are one or two lines.
    if S::LANES * size_of::<E>() >= 64 {
        s.prefetch_ahead(row, ahead + S::LANES);
    }
}

/// One tile of the output: some rows by a panel.
pub(super) struct Tile<'a, E> {
    /// `[k][rows]`
    pub(super) a: &'a [E],
    /// `[k][2 * LANES]`
    pub(super) b: &'a [E],
    pub(super) c: &'a mut [E],
    /// Where each row of `c` starts; rows of the tile beyond these are not written.
    pub(super) offsets: &'a [usize],
    /// First column.
    pub(super) column: usize,
    /// Columns of the whole output.
    pub(super) n: usize,
    pub(super) start: Start<'a, E>,
}

#[inline]
pub(super) fn tile<E: CpuElement>(isa: Isa, rows: usize, tile: &mut Tile<'_, E>) {
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
        // The output comes from far away when a time loop adds to gates that were computed long before.
        let columns = (n - column).min(2 * S::LANES);
        for &offset in offsets.iter() {
            let c = &c[offset + column..][..columns];
            s.prefetch(&c[0]);
            s.prefetch(&c[columns - 1]);
        }
        let mut sums = [[s.splat(E::zero()); 2]; ROWS];
        for (a, b) in a.chunks_exact(ROWS).zip(b.chunks_exact(2 * S::LANES)) {
            prefetch_panel(s, b);
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
