//! Products on the matrix unit of recent x86 processors, with `f32` numbers as three bf16 terms: see [`crate::simd::amx`].
//!
//! A panel has 32 columns, as two vectors of AVX-512 have: `[panel][k / 32][2]` operands of 32 by 16 numbers, zero beyond the last row and column. Rows
//! are split into terms right before they are used. The sum of an output runs over `k` in ascending order, with one
//! accumulator for every [`DEPTH`] products, or [`STEP_DEPTH`], whatever the rows beside it and the threads: its bits depend on the sizes `k` and `n` of the product alone.

use std::ops::Range;

use super::direct::Written;
use super::pack::Panels;
use super::tile::{Start, finish};
use super::transposed::{Columns, Right, blocks_of, portions};
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::steps::Steps;
use crate::backend::cpu::threads::{Divide, Workers, share};
use crate::dtype::DType;
pub(crate) use crate::simd::amx::SIDE;
use crate::simd::amx::{DEPTH as OPERAND_DEPTH, OPERAND, Operand, Registers, Tiles};
use crate::simd::{Isa, Kernel, Simd};

/// Products that are summed in a register before the sum is added to the output, and rows that are split at once: they stay in the second cache while all
/// panels pass by, which come from farther away.
pub(crate) const DEPTH: usize = 512;
pub(crate) const ROWS: usize = 256;

/// The same of a step, which has few rows.
const STEP_DEPTH: usize = 1024;
const STEP_ROWS: usize = 128;

/// Columns of a panel.
pub(super) const WIDTH: usize = 2 * SIDE;

/// The same of a product over many rows, the gradient of weights: see [`multiply_transposed`]. Its columns, and its rows, that are split at once.
const TRANSPOSED_DEPTH: usize = 256;
const TRANSPOSED_COLUMNS: usize = 1024;
const TRANSPOSED_ROWS: usize = 128;

/// Rows of a right operand from which on the unit is faster than vectors.
pub(crate) const LEAST: usize = 64;

/// Whether products with `k` rows in the right operand run on the unit.
pub(crate) fn serves<E: CpuElement>(isa: Isa, k: usize) -> bool {
    tiles::<E>(isa, k).is_some()
}

/// The unit, for such products.
pub(crate) fn tiles<E: CpuElement>(isa: Isa, k: usize) -> Option<Tiles> {
    isa.tiles().filter(|_| E::DTYPE == DType::F32 && k >= LEAST)
}

/// Elements of a panel.
pub(crate) fn panel_len(k: usize) -> usize {
    k.div_ceil(OPERAND_DEPTH).saturating_mul(2 * OPERAND)
}

/// Elements of scratch that [`multiply`] needs for `m` rows and `k` products.
pub(super) fn multiply_scratch(m: usize, k: usize) -> usize {
    let scratch = |rows, depth| m.min(rows).div_ceil(SIDE) * k.min(depth).div_ceil(OPERAND_DEPTH) * OPERAND;
    scratch(ROWS, DEPTH).max(scratch(STEP_ROWS, STEP_DEPTH))
}

/// Packs the panels `panels` of a `[k, n]` operand whose *column* `j` is `column(j)`, `k` elements, or absent for zeros.
pub(crate) fn pack_columns<'s, E: CpuElement>(
    tiles: Tiles,
    k: usize,
    n: usize,
    panels: Range<usize>,
    column: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    for (panel, out) in panels.zip(out.chunks_exact_mut(panel_len(k))) {
        for half in 0..2 {
            let first = panel * WIDTH + half * SIDE;
            let columns: [&[f32]; SIDE] = std::array::from_fn(|j| match first + j < n {
                true => column(first + j).map_or(&[][..], floats),
                false => &[],
            });
            for (depth, out) in floats_mut(out).chunks_exact_mut(2 * OPERAND).enumerate() {
                let part = columns.map(|column| part(column, depth * OPERAND_DEPTH, OPERAND_DEPTH));
                tiles.split_along(Operand::Right, &part, &mut out[half * OPERAND..]);
            }
        }
    }
}

/// Packs the panels `panels` of a `[k, n]` operand whose *row* `kk` is `row(kk)`, at least `n` elements, or absent for zeros.
pub(super) fn pack_rows<'s, E: CpuElement>(
    tiles: Tiles,
    k: usize,
    n: usize,
    panels: Range<usize>,
    row: impl Fn(usize) -> Option<&'s [E]>,
    out: &mut [E],
) {
    let len = panel_len(k);
    for depth in 0..k.div_ceil(OPERAND_DEPTH) {
        let first = depth * OPERAND_DEPTH;
        let rows: [&[f32]; OPERAND_DEPTH] = std::array::from_fn(|kk| match first + kk < k {
            true => row(first + kk).map_or(&[][..], |row| &floats(row)[..n]),
            false => &[],
        });
        for (place, panel) in panels.clone().enumerate() {
            let out = &mut floats_mut(out)[place * len + depth * 2 * OPERAND..][..2 * OPERAND];
            for (half, out) in out.chunks_exact_mut(OPERAND).enumerate() {
                let part = rows.map(|row| part(row, panel * WIDTH + half * SIDE, SIDE));
                tiles.split_across(Operand::Right, &part, out);
            }
        }
    }
}

/// `c = start + a b` for the rows `rows` of `a`. Row `i` of `a` is `row(i)`; row `i` of `c` starts at `offset(i)`.
#[allow(clippy::too_many_arguments)] // as in `product`
pub(super) fn multiply<'s, E: CpuElement>(
    (isa, tiles): (Isa, Tiles),
    rows: Range<usize>,
    row: impl Fn(usize) -> &'s [E] + Sync,
    b: Panels<'_, E>,
    c: &mut [E],
    offset: impl Fn(usize) -> usize,
    start: Start<'_, E>,
    scratch: &mut [E],
) {
    let panels = b.n.div_ceil(WIDTH);
    for first in rows.clone().step_by(ROWS) {
        let count = ROWS.min(rows.end - first);
        for part in parts(b, DEPTH, start) {
            let a = split(tiles, count, |i| row(first + i), &part, scratch, Workers::ONE);
            part.multiply(isa, tiles, a, count, 0..panels, Elements { c: &mut *c, offset: |i| offset(first + i) });
        }
    }
}

/// The same for a step of a time loop, whose columns are divided among `workers`: with as many rows as there are sequences, reading the weights takes about
/// as long as the arithmetic. `c` has one step, and the rows and columns of the product.
#[allow(clippy::too_many_arguments)] // as in `product`
pub(crate) fn multiply_step<'s, E: CpuElement>(
    (isa, tiles): (Isa, Tiles),
    rows: usize,
    row: impl Fn(usize) -> &'s [E] + Sync,
    b: Panels<'_, E>,
    mut c: Steps<'_, E>,
    start: Start<'_, E>,
    scratch: &mut [E],
    workers: Workers<'_>,
) {
    for first in (0..rows).step_by(STEP_ROWS) {
        let count = STEP_ROWS.min(rows - first);
        for part in parts(b, STEP_DEPTH, start) {
            let a = split(tiles, count, |i| row(first + i), &part, scratch, workers);
            let panels = 0..b.n.div_ceil(WIDTH);
            workers.divide(PanelsOfStep { unit: (isa, tiles), a, first, count, part, panels, c: c.reborrow() });
        }
    }
}

/// Some panels' columns of a product.
struct PanelsOfStep<'a, E> {
    unit: (Isa, Tiles),
    /// Rows as [`split`] leaves them.
    a: &'a [f32],
    first: usize,
    count: usize,
    part: Part<'a, E>,
    panels: Range<usize>,
    /// The columns of these panels.
    c: Steps<'a, E>,
}

impl<E: CpuElement> Divide for PanelsOfStep<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let PanelsOfStep { unit, a, first, count, part, panels, c } = self;
        let middle = panels.start + share(panels.len(), left, of);
        let columns = |panel: usize| (panel * WIDTH).min(part.b.n);
        let (c_left, c_right) = c.split_features(columns(middle) - columns(panels.start));
        let some = |panels, c| PanelsOfStep { unit, a, first, count, part, panels, c };
        (some(panels.start..middle, c_left), some(middle..panels.end, c_right))
    }

    fn run(self) {
        let PanelsOfStep { unit: (isa, tiles), a, first, count, part, panels, mut c } = self;
        part.multiply(isa, tiles, a, count, panels, OneStep { c: c.reborrow(), first });
    }
}

/// The rows of an output, each from the first column of a product on.
trait Output<E> {
    fn row(&mut self, i: usize) -> &mut [E];
}

/// In a buffer, where row `i` starts at `offset(i)`.
struct Elements<'a, E, F> {
    c: &'a mut [E],
    offset: F,
}

impl<E, F: Fn(usize) -> usize> Output<E> for Elements<'_, E, F> {
    fn row(&mut self, i: usize) -> &mut [E] {
        &mut self.c[(self.offset)(i)..]
    }
}

/// The rows of a step from one of them on.
struct OneStep<'a, E> {
    c: Steps<'a, E>,
    first: usize,
}

impl<E: CpuElement> Output<E> for OneStep<'_, E> {
    fn row(&mut self, i: usize) -> &mut [E] {
        self.c.row(0, self.first + i)
    }
}

/// Some rows of the right operand.
#[derive(Clone, Copy)]
struct Part<'a, E> {
    b: Panels<'a, E>,
    /// The rows.
    first: usize,
    depth: usize,
    start: Start<'a, E>,
}

/// A right operand in parts of `depth` rows.
fn parts<'a, E: CpuElement>(b: Panels<'a, E>, depth: usize, start: Start<'a, E>) -> impl Iterator<Item = Part<'a, E>> {
    (0..b.k).step_by(depth).map(move |first| Part {
        b,
        first,
        depth: depth.min(b.k - first),
        start: if first == 0 { start } else { Start::Add },
    })
}

impl<E: CpuElement> Part<'_, E> {
    /// The products of `count` rows with some panels.
    fn multiply(&self, isa: Isa, tiles: Tiles, a: &[f32], count: usize, panels: Range<usize>, mut out: impl Output<E>) {
        let Part { b, first, depth, start } = *self;
        let operands = depth.div_ceil(OPERAND_DEPTH);
        let (panel_len, first_operand) = (panel_len(b.k), first / OPERAND_DEPTH);
        let mut sums = Sums([[0.0; WIDTH]; WIDTH]);
        tiles.with_registers(count, |registers| {
            for at in b.order(panels.len()) {
                let panel = panels.start + at;
                let columns = at * WIDTH..((at + 1) * WIDTH).min(b.n - panels.start * WIDTH);
                let b_panel = &floats(&b.data[panel * panel_len..])[first_operand * 2 * OPERAND..];
                let b_panel = &b_panel[..operands * 2 * OPERAND];
                for block in (0..count).step_by(WIDTH) {
                    let rows = WIDTH.min(count - block);
                    for i in 0..rows {
                        tiles.prefetch(floats(&out.row(block + i)[columns.clone()]));
                    }
                    let a = &a[block / SIDE * operands * OPERAND..];
                    let sums = multiply_block(registers, a, operands, b_panel, rows, &mut sums);
                    let (out, columns, column) = (&mut out, columns.clone(), panel * WIDTH);
                    isa.run(Finish { sums, out, first: block, columns, column, start });
                }
            }
        });
    }
}

/// The product of up to 32 rows, each `operands` as [`split`] leaves them, and a panel.
fn multiply_block<'s, E: CpuElement>(
    registers: &Registers,
    a: &[f32],
    operands: usize,
    panel: &[f32],
    rows: usize,
    sums: &'s mut Sums,
) -> &'s [[E; WIDTH]] {
    if rows > SIDE {
        let (low, high) = a.split_at(operands * OPERAND);
        registers.multiply([low, high], panel, &mut sums.0);
    } else {
        registers.multiply([a], panel, &mut sums.0);
    }
    bytemuck::cast_slice(&sums.0[..rows])
}

/// One of the products that sums of some units are made of: see [`sum_panels`].
#[derive(Clone, Copy)]
pub(crate) struct TileProduct<'a, E> {
    /// The left operand, as [`split_rows`] leaves it.
    pub(crate) rows: &'a [f32],
    /// The right operand, panels of `k` rows.
    pub(crate) weights: &'a [E],
    pub(crate) k: usize,
    /// First of the panels of sums that it has.
    pub(crate) first: usize,
    /// How many.
    pub(crate) panels: usize,
}

/// Elements that [`split_rows`] writes.
pub(crate) fn split_len(rows: usize, k: usize) -> usize {
    rows.div_ceil(SIDE) * k.div_ceil(OPERAND_DEPTH) * OPERAND
}

/// Splits some rows of `k` elements into terms.
pub(crate) fn split_rows<'o, E: CpuElement>(tiles: Tiles, rows: &[&[E]], k: usize, out: &'o mut [E]) -> &'o [f32] {
    let out = &mut floats_mut(out)[..split_len(rows.len(), k)];
    let row = |i: usize| &floats(rows[i])[..k];
    Split { tiles, count: rows.len(), row, operands: k.div_ceil(OPERAND_DEPTH), block: 0, out: &mut *out }.run();
    out
}

/// `sums = start + products` for `rows` rows, `[rows, panel, 32]`. They start with `bias`, `[panel, 32]`, but for those of the `held` first panels, which start with what is
/// there. Each product is summed by itself, as by [`multiply`] and [`multiply_step`].
pub(crate) fn sum_panels<E: CpuElement>(
    (isa, tiles): (Isa, Tiles),
    products: [Option<TileProduct<'_, E>>; 2],
    (bias, held): (&[E], usize),
    sums: &mut [E],
    rows: usize,
    written: [Option<Written<'_, E>>; 2],
) {
    let stride = bias.len();
    let mut block_sums = Sums([[0.0; WIDTH]; WIDTH]);
    tiles.with_registers(rows, |registers| {
        for panel in 0..stride / WIDTH {
            for block in (0..rows).step_by(WIDTH) {
                let count = WIDTH.min(rows - block);
                for written in written.iter().flatten().filter(|written| panel < written.panels) {
                    for row in block..block + count {
                        let first = row * written.row + panel * written.panel;
                        tiles.prefetch(part(floats(written.tensor), first, WIDTH));
                    }
                }
                let mut start = if panel < held { Start::Add } else { Start::Bias(&bias[panel * WIDTH..][..WIDTH]) };
                for product in products.iter().flatten() {
                    if !(product.first..product.first + product.panels).contains(&panel) {
                        continue;
                    }
                    let (operands, len) = (product.k.div_ceil(OPERAND_DEPTH), panel_len(product.k));
                    let a = &product.rows[block / SIDE * operands * OPERAND..];
                    let b = &floats(product.weights)[(panel - product.first) * len..][..len];
                    let some = multiply_block(registers, a, operands, b, count, &mut block_sums);
                    let mut out = Elements { c: &mut *sums, offset: |i| i * stride + panel * WIDTH };
                    isa.run(Finish { sums: some, out: &mut out, first: block, columns: 0..WIDTH, column: 0, start });
                    start = Start::Add;
                }
            }
        }
    });
}

/// Sums of a tile's rows, each in two cache lines.
#[repr(align(64))]
struct Sums([[f32; WIDTH]; WIDTH]);

/// Adds sums to some rows of the output.
struct Finish<'a, E, O> {
    sums: &'a [[E; WIDTH]],
    out: &'a mut O,
    /// The first of the rows.
    first: usize,
    /// Where they are in a row, and of the bias.
    columns: Range<usize>,
    column: usize,
    start: Start<'a, E>,
}

impl<E: CpuElement, O: Output<E>> Kernel<E> for Finish<'_, E, O> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let Finish { sums, out, first, columns, column, start } = self;
        for (i, sums) in sums.iter().enumerate() {
            let sums = [s.load(&sums[..S::LANES]), s.load(&sums[S::LANES..])];
            finish(s, &mut out.row(first + i)[columns.clone()], column, start, &sums);
        }
    }
}

/// Rows that are split into terms, by blocks of [`SIDE`].
struct Split<'o, F> {
    tiles: Tiles,
    count: usize,
    /// Elements `first..first + depth` of a row.
    row: F,
    operands: usize,
    /// First of the blocks.
    block: usize,
    /// `[block][k / 32]` operands.
    out: &'o mut [f32],
}

impl<'s, F: Fn(usize) -> &'s [f32] + Copy + Send> Divide for Split<'_, F> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let Split { tiles, count, row, operands, block, out } = self;
        let len = operands * OPERAND;
        let blocks = share(out.len() / len, left, of);
        let (out_left, out_right) = out.split_at_mut(blocks * len);
        let some = |block, out| Split { tiles, count, row, operands, block, out };
        (some(block, out_left), some(block + blocks, out_right))
    }

    fn run(self) {
        let Split { tiles, count, row, operands, block: first, out } = self;
        for (block, out) in out.chunks_exact_mut(operands * OPERAND).enumerate() {
            let rows: [&[f32]; SIDE] = std::array::from_fn(|i| {
                let at = (first + block) * SIDE + i;
                if at < count { row(at) } else { &[] }
            });
            for (at, out) in out.chunks_exact_mut(OPERAND).enumerate() {
                let part = rows.map(|row| part(row, at * OPERAND_DEPTH, OPERAND_DEPTH));
                tiles.split_along(Operand::Left, &part, out);
            }
        }
    }
}

/// Splits rows into terms: `[rows / 16][k / 32]` operands.
fn split<'s, 'o, E: CpuElement>(
    tiles: Tiles,
    count: usize,
    row: impl Fn(usize) -> &'s [E] + Sync,
    part_of_b: &Part<'_, E>,
    scratch: &'o mut [E],
    workers: Workers<'_>,
) -> &'o [f32] {
    let Part { first, depth, .. } = *part_of_b;
    let operands = depth.div_ceil(OPERAND_DEPTH);
    let out = &mut floats_mut(scratch)[..count.div_ceil(SIDE) * operands * OPERAND];
    let row = &|i| &floats(row(i))[first..first + depth];
    workers.divide(Split { tiles, count, row, operands, block: 0, out: &mut *out });
    out
}

/// Elements of scratch that [`multiply_transposed`] needs for right operands of so many panels over `k` products.
pub(super) fn multiply_transposed_scratch(panels: usize, k: usize) -> usize {
    let depth = k.min(TRANSPOSED_DEPTH);
    panel_len(depth) * (panels.min(TRANSPOSED_COLUMNS / WIDTH) + TRANSPOSED_ROWS / WIDTH)
}

/// See [`multiply_transposed`](super::multiply_transposed), unscaled.
pub(super) fn multiply_transposed<'s, E: CpuElement, const N: usize>(
    (isa, tiles): (Isa, Tiles),
    k: usize,
    a_row: impl Fn(usize) -> &'s [E],
    rights: [Right<'_, 's, E>; N],
    columns: &mut [Columns<'_, E, N>],
    start: Start<'_, E>,
    scratch: &mut [E],
) {
    let all = rights.iter().map(|right| right.n.div_ceil(WIDTH)).sum();
    columns.iter_mut().for_each(|columns| columns.sums.fill(E::zero()));
    for k0 in (0..k).step_by(TRANSPOSED_DEPTH) {
        let depth = TRANSPOSED_DEPTH.min(k - k0);
        let (operands, len) = (depth.div_ceil(OPERAND_DEPTH), panel_len(depth));
        let start = if k0 == 0 { start } else { Start::Add };
        for block in blocks_of(all, TRANSPOSED_COLUMNS / WIDTH) {
            let (b_packed, a_packed) = scratch.split_at_mut(block.len() * len);
            for (of, at, panels) in portions(&rights, WIDTH, &block) {
                let out = &mut b_packed[at * len..][..panels.len() * len];
                pack_rows(tiles, depth, rights[of].n, panels, |kk| (rights[of].row)(k0 + kk), out);
            }
            let a_packed = &mut floats_mut(a_packed)[..TRANSPOSED_ROWS / SIDE * operands * OPERAND];
            for Columns { first, count, c, sums } in columns.iter_mut() {
                let is_wanted = c.each_ref().map(|c| !c.is_empty());
                let sums = if block.start == 0 { floats_mut(sums) } else { &mut [] };
                if sums.is_empty() && !portions(&rights, WIDTH, &block).any(|(of, ..)| is_wanted[of]) {
                    continue;
                }
                for m0 in (0..*count).step_by(TRANSPOSED_ROWS) {
                    let rows = TRANSPOSED_ROWS.min(*count - m0);
                    let row = |kk: usize| &floats(a_row(k0 + kk))[*first + m0..*first + m0 + rows];
                    let mut block_sums = [[0.0; SIDE]; TRANSPOSED_ROWS / SIDE];
                    for at in 0..operands {
                        let some: [&[f32]; OPERAND_DEPTH] = std::array::from_fn(|kk| {
                            let kk = at * OPERAND_DEPTH + kk;
                            if kk < depth { row(kk) } else { &[] }
                        });
                        for ahead in ((at + 1) * OPERAND_DEPTH..depth).take(OPERAND_DEPTH) {
                            tiles.prefetch(row(ahead));
                        }
                        for block in 0..rows.div_ceil(SIDE) {
                            let part = some.map(|row| part(row, block * SIDE, SIDE));
                            let out = &mut a_packed[(block * operands + at) * OPERAND..][..OPERAND];
                            let sum = tiles.split_across(Operand::Left, &part, out);
                            block_sums[block].iter_mut().zip(sum).for_each(|(total, sum)| *total += sum);
                        }
                    }
                    if let Some(sums) = sums.get_mut(m0..m0 + rows) {
                        sums.iter_mut().zip(block_sums.as_flattened()).for_each(|(total, sum)| *total += sum);
                    }
                    for (of, at, panels) in portions(&rights, WIDTH, &block).filter(|(of, ..)| is_wanted[*of]) {
                        let (n, column) = (rights[of].n, panels.start * WIDTH);
                        let columns = n.min(panels.end * WIDTH) - column;
                        let b = Panels::new(&b_packed[at * len..][..panels.len() * len], depth, columns);
                        let part_of_b = Part { b, first: 0, depth, start };
                        let out = Elements { c: &mut *c[of], offset: |i| (m0 + i) * n + column };
                        part_of_b.multiply(isa, tiles, a_packed, rows, 0..panels.len(), out);
                    }
                }
            }
        }
    }
}

/// `row[at..at + len]`, as far as the row goes.
fn part(row: &[f32], at: usize, len: usize) -> &[f32] {
    let row = row.get(at..).unwrap_or_default();
    &row[..row.len().min(len)]
}

/// Elements that are `f32`, as [`serves`] makes sure.
fn floats<E: CpuElement>(elements: &[E]) -> &[f32] {
    bytemuck::cast_slice(elements)
}

fn floats_mut<E: CpuElement>(elements: &mut [E]) -> &mut [f32] {
    bytemuck::cast_slice_mut(elements)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::gemm;

    /// This machine's, if it has the unit.
    fn isa() -> Option<Isa> {
        let isa = Some(Isa::detect()).filter(|isa| isa.has_tiles());
        if isa.is_none() {
            println!("SKIPPED: this processor has no matrix unit (AMX)");
        }
        isa
    }

    fn number(i: usize) -> f32 {
        ((i * 7919 % 100_003) as f32 / 50_000.0 - 1.0) * 1.000_123
    }

    /// The largest error of sums, in units of 2^-24 of the sum of the products' magnitudes.
    fn worst(
        got: impl Fn(usize, usize) -> f32,
        m: usize,
        n: usize,
        products: &dyn Fn(usize, usize) -> Vec<f64>,
    ) -> f64 {
        let mut worst = 0.0_f64;
        for (i, j) in (0..m).flat_map(|i| (0..n).map(move |j| (i, j))) {
            let products = products(i, j);
            let (sum, size) = products.iter().fold((0.0, 0.0), |(sum, size), p| (sum + p, size + p.abs()));
            worst = worst.max((f64::from(got(i, j)) - sum).abs() / size * 2.0_f64.powi(24));
        }
        worst
    }

    /// Rows times columns: as exact as `f32` lets be expected, whatever the sizes, and the same bits whichever other rows there are.
    #[test]
    fn products_of_rows_are_exact() {
        let Some(isa) = isa() else { return };
        for (m, n, k) in
            [(1, 1, 64), (3, 40, 65), (16, 32, 96), (17, 33, 100), (33, 31, 128), (40, 70, 1100), (150, 5, 70)]
        {
            let a: Vec<f32> = (0..m * k).map(number).collect();
            let b: Vec<f32> = (0..n * k).map(|i| number(i + 17)).collect();
            let (a_row, column) = (|i: usize| &a[i * k..][..k], |j: usize| Some(&b[j * k..][..k]));
            let run = |isa: Isa, rows: Range<usize>, start| {
                let mut packed = vec![f32::NAN; gemm::panels_len::<f32>(isa, k, n)];
                gemm::pack_columns(isa, k, n, 0..n.div_ceil(WIDTH), column, &mut packed);
                let mut scratch = vec![f32::NAN; gemm::multiply_scratch::<f32>(isa, m, k)];
                let mut c = vec![1.0; m * n];
                let panels = Panels::new(&packed, k, n).at_step(m);
                gemm::multiply(isa, rows, a_row, panels, &mut c, |i| i * n, start, &mut scratch, Workers::ONE);
                c
            };
            let all = run(isa, 0..m, Start::Set);
            let products =
                |i: usize, j: usize| (0..k).map(|kk| f64::from(a[i * k + kk]) * f64::from(b[j * k + kk])).collect();
            let vectors = run(isa.without_tiles(), 0..m, Start::Set);
            let [error, of_vectors] = [&all, &vectors].map(|c| worst(|i, j| c[i * n + j], m, n, &products));
            println!("{m} x {n} over {k}: largest error {error:.2} of 2^-24, by vectors {of_vectors:.2}");
            assert!(error < 2.0 * of_vectors, "{m} x {n} over {k}: {error}, by vectors {of_vectors}");
            let last = run(isa, m - 1..m, Start::Set);
            assert_eq!(last[(m - 1) * n..], all[(m - 1) * n..], "{m} x {n} over {k}: a row by itself");
            assert!(last[..(m - 1) * n].iter().all(|c| *c == 1.0), "{m} x {n} over {k}: other rows");
            if k <= DEPTH {
                let added = run(isa, 0..m, Start::Add);
                assert!(added.iter().zip(&all).all(|(added, sum)| *added == 1.0 + sum), "{m} x {n} over {k}");
            }
        }
    }

    /// A transposed left operand, given by rows, some of the right one's absent.
    #[test]
    fn products_of_columns_are_exact() {
        let Some(isa) = isa() else { return };
        for (m, n, k) in [(1, 64, 1), (5, 70, 31), (32, 64, 32), (130, 65, 33), (20, 600, 40), (50, 100, 600)] {
            let (width, first) = (m + 5, 3);
            let a: Vec<f32> = (0..k * width).map(number).collect();
            let b: Vec<f32> = (0..k * n).map(|i| number(i + 17)).collect();
            let b_row = |kk: usize| (kk != 1).then(|| &b[kk * n..][..n]);
            let mut c = vec![f32::NAN; m * n];
            let mut scratch = vec![f32::NAN; gemm::multiply_transposed_scratch::<f32>(isa, m, &[n], k)];
            let a_row = |kk: usize| &a[kk * width..][..width];
            let mut sums = vec![f32::NAN; m];
            let right = [Right { n, row: &b_row }];
            let columns = &mut [gemm::Columns { first, count: m, c: [&mut c], sums: &mut sums }];
            gemm::multiply_transposed(isa, k, 1.0, a_row, right, columns, Start::Set, &mut scratch);
            for (i, sum) in sums.into_iter().enumerate() {
                let column = || (0..k).map(|kk| a_row(kk)[first + i]);
                let (exact, size) = column().fold((0.0, 0.0), |(sum, size), a| (sum + f64::from(a), size + a.abs()));
                assert!(
                    (f64::from(sum) - exact).abs() <= f64::from(size) * 1e-6,
                    "sum {i} over {k}: {sum}, not {exact}"
                );
            }
            let products = |i: usize, j: usize| {
                let b_at = |kk: usize| if kk == 1 { 0.0 } else { f64::from(b[kk * n + j]) };
                (0..k).map(|kk| f64::from(a[kk * width + first + i]) * b_at(kk)).collect()
            };
            let error = worst(|i, j| c[i * n + j], m, n, &products);
            assert!(error < 6.0, "{m} x {n} over {k}: {error}");
        }
    }

    /// The largest numbers keep their value, and what is not a number is not hidden.
    #[test]
    fn extreme_numbers() {
        let Some(isa) = isa() else { return };
        let k = LEAST;
        let product = |value: f32, factor: f32| {
            let (mut a, b) = (vec![0.0; k], vec![factor; k]);
            a[5] = value;
            let mut packed = vec![0.0; gemm::panels_len::<f32>(isa, k, 1)];
            gemm::pack_columns(isa, k, 1, 0..1, |_| Some(&b), &mut packed);
            let mut scratch = vec![0.0; gemm::multiply_scratch::<f32>(isa, 1, k)];
            let (mut c, panels) = ([7.0], Panels::new(&packed, k, 1));
            gemm::multiply(isa, 0..1, |_| &a[..], panels, &mut c, |_| 0, Start::Set, &mut scratch, Workers::ONE);
            c[0]
        };
        assert_eq!(product(f32::MAX, 1.0), f32::MAX);
        assert_eq!(product(-f32::MAX, 0.5), -f32::MAX / 2.0);
        assert_eq!(product(1.234_567_8e-20, 1.0), 1.234_567_8e-20);
        // Of the bits of all NaNs, some become others where half a unit is added.
        let others = [0x7fff_ffff, 0xffff_ffff, 0x7f80_0001, 0xffff_8000].map(f32::from_bits);
        for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().chain(others) {
            assert!(!product(value, 0.75).is_finite() && product(value, 0.75).is_nan(), "{value}");
        }
    }
}
