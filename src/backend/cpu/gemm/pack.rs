//! Packing of right operands into panels.

use std::ops::Range;

use super::amx;
use crate::backend::cpu::CpuElement;
use crate::simd::{Isa, Kernel, Simd, load_part};

/// A right operand `[k, n]` in panels.
#[derive(Clone, Copy)]
pub(crate) struct Panels<'a, E> {
    pub(crate) data: &'a [E],
    pub(crate) k: usize,
    pub(crate) n: usize,
    /// Whether panels are visited from the last to the first: time loops alternate, and find what the previous
    /// step read last still in the cache. Results do not depend on it.
    pub(crate) last_first: bool,
}

impl<'a, E> Panels<'a, E> {
    /// An operand already packed.
    pub(crate) fn new(data: &'a [E], k: usize, n: usize) -> Self {
        Panels { data, k, n, last_first: false }
    }

    /// The same, visited in the order for step `t` of a time loop.
    pub(crate) fn at_step(self, t: usize) -> Self {
        Panels { last_first: t % 2 == 1, ..self }
    }

    /// `0..count` in the order of visiting.
    #[inline(always)]
    pub(super) fn order(&self, count: usize) -> impl Iterator<Item = usize> + use<E> {
        let last_first = self.last_first;
        (0..count).map(move |i| if last_first { count - 1 - i } else { i })
    }
}

/// Elements that a `[k, n]` operand takes in panels.
pub(crate) fn panels_len<E: CpuElement>(isa: Isa, k: usize, n: usize) -> usize {
    // Saturating: a plan with sizes beyond memory is refused, not computed.
    n.div_ceil(2 * isa.lanes::<E>()).saturating_mul(panel_len::<E>(isa, k))
}

/// Elements of a panel with `k` rows.
pub(crate) fn panel_len<E: CpuElement>(isa: Isa, k: usize) -> usize {
    if amx::serves::<E>(isa, k) { amx::panel_len(k) } else { k.saturating_mul(2 * isa.lanes::<E>()) }
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
    if let Some(tiles) = amx::tiles::<E>(isa, k) {
        return amx::pack_columns(tiles, k, n, panels, column, out);
    }
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
    if let Some(tiles) = amx::tiles::<E>(isa, k) {
        return amx::pack_rows(tiles, k, n, panels, row, out);
    }
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
