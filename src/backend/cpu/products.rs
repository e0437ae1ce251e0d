//! Products over all steps and their operands: rows of weights, packing by threads, shares of scratch.

use std::ops::Range;

use super::Call;
use super::gemm::{self, Panels, Start};
use super::geometry::padded;
use super::sequences::{Rows, Sequences};
use super::steps::Steps;
use super::threads::{Divide, Workers, share};
use super::time_loop::share_steps;
use crate::backend::cpu::CpuElement;
use crate::simd::Isa;

/// Room for a packed operand, or the operand as it was packed before: see [`packed`](super::packed).
pub(super) enum Room<'o, E> {
    Empty(&'o mut [E]),
    Filled(&'o [E]),
}

impl<'o, E> From<&'o mut [E]> for Room<'o, E> {
    fn from(room: &'o mut [E]) -> Self {
        Room::Empty(room)
    }
}

impl<'o, E> Room<'o, E> {
    /// The first `len` elements, which `fill` writes if they are not there.
    pub(super) fn fill(self, len: usize, fill: impl FnOnce(&mut [E])) -> &'o [E] {
        match self {
            Room::Filled(there) => &there[..len],
            Room::Empty(room) => {
                fill(&mut room[..len]);
                &room[..len]
            }
        }
    }
}

impl<E: CpuElement> Call<'_, E> {
    /// Whether the weights' row belongs to the forget gate of a cell that derives it from the input gate.
    pub(super) fn is_unused_row(&self, row: usize) -> bool {
        let hidden = self.geometry.hidden;
        self.plan.descriptor.coupled_input_forget && (hidden..2 * hidden).contains(&row)
    }

    /// A row of `weight_ih` or `weight_hh`, absent where it is unused.
    pub(super) fn used_row<'w>(&self, matrix: &'w [E], row: usize, width: usize) -> Option<&'w [E]> {
        (!self.is_unused_row(row)).then(|| &matrix[row * width..][..width])
    }

    /// Packs a right operand given by its columns.
    pub(super) fn pack_columns<'s, 'o>(
        &self,
        k: usize,
        n: usize,
        out: impl Into<Room<'o, E>>,
        column: impl Fn(usize) -> Option<&'s [E]> + Sync,
    ) -> Panels<'o, E> {
        let (isa, width) = (self.isa, 2 * self.isa.lanes::<E>());
        let pack = |panels, out: &mut [E]| gemm::pack_columns(isa, k, n, panels, &column, out);
        Panels::new(self.pack(n.div_ceil(width), gemm::panel_len::<E>(isa, k), out, pack), k, n)
    }

    /// Packs a right operand given by its rows.
    pub(super) fn pack_rows<'s, 'o>(
        &self,
        k: usize,
        n: usize,
        out: impl Into<Room<'o, E>>,
        row: impl Fn(usize) -> Option<&'s [E]> + Sync,
    ) -> Panels<'o, E> {
        let (isa, width) = (self.isa, 2 * self.isa.lanes::<E>());
        let pack = |panels, out: &mut [E]| gemm::pack_rows(isa, k, n, panels, &row, out);
        Panels::new(self.pack(n.div_ceil(width), gemm::panel_len::<E>(isa, k), out, pack), k, n)
    }

    /// Packs `panels` of `panel_len` elements, divided among threads.
    pub(super) fn pack<'o>(
        &self,
        panels: usize,
        panel_len: usize,
        out: impl Into<Room<'o, E>>,
        pack: impl Fn(Range<usize>, &mut [E]) + Sync,
    ) -> &'o [E]
    where
        E: 'o,
    {
        out.into().fill(panels * panel_len, |out| {
            // Moving an element that comes from far away takes about as long as fifty operations of a product.
            let workers = self.threads.worth(50.0 * out.len() as f64).min(self.sizes.workers);
            self.threads.workers(workers).divide(Pack { panels: 0..panels, panel_len, out, pack: &pack });
        })
    }
}

/// Packing, by panels.
struct Pack<'a, E, F> {
    panels: Range<usize>,
    panel_len: usize,
    out: &'a mut [E],
    pack: &'a F,
}

impl<E: CpuElement, F: Fn(Range<usize>, &mut [E]) + Sync> Divide for Pack<'_, E, F> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let middle = self.panels.start + share(self.panels.len(), left, of);
        let (a, b) = self.out.split_at_mut((middle - self.panels.start) * self.panel_len);
        let part = |panels, out| Pack { panels, panel_len: self.panel_len, out, pack: self.pack };
        (part(self.panels.start..middle, a), part(middle..self.panels.end, b))
    }

    fn run(self) {
        (self.pack)(self.panels, self.out);
    }
}

/// A share of scratch, at a cache line.
pub(super) fn share_scratch<E>(scratch: &mut [E], left: usize, of: usize) -> (&mut [E], &mut [E]) {
    let middle = share(scratch.len(), left, of) / 16 * 16;
    scratch.split_at_mut(middle)
}

/// A product for all valid steps, by rows.
pub(super) struct RowsProduct<'a, E> {
    pub(super) isa: Isa,
    pub(super) sequences: &'a Sequences<'a>,
    /// Which of the valid steps.
    pub(super) rows: Range<usize>,
    pub(super) source: Rows<'a, E>,
    pub(super) panels: Panels<'a, E>,
    /// Internal rows from `base` on, `stride` elements each.
    pub(super) c: &'a mut [E],
    pub(super) base: usize,
    pub(super) stride: usize,
    pub(super) start: Start<'a, E>,
    pub(super) scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for RowsProduct<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let RowsProduct { isa, sequences, rows, source, panels, c, base, stride, start, scratch } = self;
        let middle = rows.start + share(rows.len(), left, of);
        let row = if middle < rows.end { sequences.valid_row(middle) } else { base + c.len() / stride };
        let (c_left, c_right) = c.split_at_mut((row - base) * stride);
        let (scratch_left, scratch_right) = share_scratch(scratch, left, of);
        let part = |rows, c, base, scratch| RowsProduct {
            isa,
            sequences,
            rows,
            source,
            panels,
            c,
            base,
            stride,
            start,
            scratch,
        };
        (part(rows.start..middle, c_left, base, scratch_left), part(middle..rows.end, c_right, row, scratch_right))
    }

    fn run(self) {
        let RowsProduct { isa, sequences, rows, source, panels, c, base, stride, start, scratch } = self;
        gemm::multiply(
            isa,
            rows,
            |index| source.at(sequences, sequences.valid_row(index)),
            panels,
            c,
            |index| (sequences.valid_row(index) - base) * stride,
            start,
            scratch,
            Workers::ONE,
        );
    }
}

/// Rows of the buffer of a [`SequencesProduct`].
pub(super) const BUFFER_ROWS: usize = 224;

/// The same for the sequences at some positions: a thread multiplies what it has written itself, which is in its own cache. Rows of a position lie apart, so they
/// go through a buffer.
pub(super) struct SequencesProduct<'a, E> {
    pub(super) isa: Isa,
    pub(super) sequences: &'a Sequences<'a>,
    pub(super) positions: Range<usize>,
    pub(super) source: Rows<'a, E>,
    pub(super) panels: Panels<'a, E>,
    /// Of these positions, as wide as the product.
    pub(super) c: Steps<'a, E>,
    pub(super) start: Start<'a, E>,
    /// [`BUFFER_ROWS`] rows for each thread, and what [`gemm::multiply`] needs.
    pub(super) scratch: &'a mut [E],
}

impl<E: CpuElement> Divide for SequencesProduct<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SequencesProduct { isa, sequences, positions, source, panels, c, start, scratch } = self;
        let at = share_steps(sequences, positions.clone(), &(0..sequences.shape.seq_len), left, of);
        let middle = positions.start + at;
        let (c_left, c_right) = c.split(at);
        let (scratch_left, scratch_right) = share_scratch(scratch, left, of);
        let part =
            |positions, c, scratch| SequencesProduct { isa, sequences, positions, source, panels, c, start, scratch };
        (part(positions.start..middle, c_left, scratch_left), part(middle..positions.end, c_right, scratch_right))
    }

    fn run(self) {
        let SequencesProduct { isa, sequences, positions, source, panels, mut c, start, scratch } = self;
        let width = panels.n;
        let (buffer, scratch) = scratch.split_at_mut(padded(BUFFER_ROWS * width));
        let steps = sequences.steps(false, 0..sequences.shape.seq_len, positions.clone());
        let mut all = steps.flat_map(|(t, rows)| (0..rows).map(move |row| (t, row)));
        let mut places = [(0, 0); BUFFER_ROWS];
        loop {
            let count = places.iter_mut().zip(&mut all).map(|(place, next)| *place = next).count();
            if count == 0 {
                return;
            }
            let places = &places[..count];
            if let Start::Add = start {
                for (&(t, row), sums) in places.iter().zip(buffer.chunks_exact_mut(width)) {
                    sums.copy_from_slice(c.row(t, row));
                }
            }
            let row = |at: usize| source.row(sequences, places[at].0, positions.start + places[at].1);
            gemm::multiply(isa, 0..count, row, panels, buffer, |at| at * width, start, &mut *scratch, Workers::ONE);
            for (&(t, row), sums) in places.iter().zip(buffer.chunks_exact(width)) {
                c.row(t, row).copy_from_slice(sums);
            }
        }
    }
}
