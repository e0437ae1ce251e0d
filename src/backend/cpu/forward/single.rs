//! The time loop of a single sequence, divided among threads by units: each computes its units' products and cells for all steps, and after each takes
//! the others' output.

use std::ops::Range;

use super::Shared;
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::cells::{self, ForwardRows, Part, Sums};
use crate::backend::cpu::geometry::{Geometry, padded, take};
use crate::backend::cpu::lockstep::{Lockstep, Seat};
use crate::backend::cpu::products::share_scratch;
use crate::backend::cpu::steps::Units;
use crate::backend::cpu::threads::share;
use crate::backend::cpu::time_loop::copy_or_zero;
use crate::backend::cpu::unit_groups::{GroupSizes, UnitGroups};

/// Some groups of units.
pub(super) struct SingleSequence<'a, 'y, E> {
    pub(super) shared: &'a Shared<'a, E>,
    pub(super) weights: UnitGroups<'a, E>,
    pub(super) groups: Range<usize>,
    pub(super) steps: Range<usize>,
    /// The products with the inputs of these steps, becoming gates if backward will follow; absent where a step takes its input itself.
    pub(super) gates: Option<Units<'a, E>>,
    /// Of all steps.
    pub(super) cells: Option<Units<'a, E>>,
    pub(super) inputs: Option<Units<'a, E>>,
    pub(super) out: Units<'y, E>,
    /// The step that `out` begins with.
    pub(super) out_first: usize,
    /// The states before the first step, whole, and after the last, where `h` and `c` are.
    pub(super) start: (&'a [E], &'a [E]),
    pub(super) h: Units<'a, E>,
    pub(super) c: Option<Units<'a, E>>,
    pub(super) training: bool,
    /// As much for each thread as [`scratch`] says.
    pub(super) scratch: &'a mut [E],
}

/// Elements of scratch that a thread needs, whatever its part.
pub(in crate::backend::cpu) fn scratch(g: &Geometry, sizes: &GroupSizes) -> usize {
    let sums = sizes.count * sizes.sums;
    [sums, sums, g.gate_width, g.gate_rows, g.hidden, g.hidden, g.others].into_iter().map(padded).sum()
}

impl<E: CpuElement> Lockstep<E> for SingleSequence<'_, '_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let middle = self.groups.start + share(self.groups.len(), left, of);
        let SingleSequence { groups, gates, cells, inputs, out, h, c, scratch, .. } = self;
        let SingleSequence { shared, weights, steps, out_first, start, training, .. } = self;
        let units = units_of(&weights, &(groups.start..middle)).len();
        let (out, h) = (out.split(units), h.split(units));
        let [gates, cells, inputs, c] =
            [gates, cells, inputs, c].map(|view| view.map(|view| view.split(units)).unzip());
        let scratch = share_scratch(scratch, left, of);
        let part = |groups, gates, cells, inputs, out, h, c, scratch| SingleSequence {
            shared,
            weights,
            groups,
            steps: steps.clone(),
            gates,
            cells,
            inputs,
            out,
            out_first,
            start,
            h,
            c,
            training,
            scratch,
        };
        (
            part(groups.start..middle, gates.0, cells.0, inputs.0, out.0, h.0, c.0, scratch.0),
            part(middle..groups.end, gates.1, cells.1, inputs.1, out.1, h.1, c.1, scratch.1),
        )
    }

    fn units(&self) -> Range<usize> {
        units_of(&self.weights, &self.groups)
    }

    fn run(self, mut seat: Seat<'_, E>) {
        let own = self.units();
        let SingleSequence { shared, weights, groups, steps, mut gates, mut cells, mut inputs, mut out, .. } = self;
        let SingleSequence { out_first, start, h: mut h_last, c: mut c_last, training, mut scratch, .. } = self;
        let Shared { call, sequences, place, reverse, options, .. } = *shared;
        let (g, isa) = (&call.geometry, call.isa);
        let (hidden, group_len) = (g.hidden, weights.sizes.sums);
        let mut part = |len: usize| &mut take(&mut scratch, padded(len))[..len];
        let (sums, products) = (part(groups.len() * group_len), part(groups.len() * group_len));
        let (row, kept) = (part(g.gate_width), part(g.gate_rows));
        let (h, next, c) = (part(hidden), part(hidden), part(g.others));
        h.copy_from_slice(start.0);
        c.copy_from_slice(start.1);
        let row = if training { row } else { &mut [] };
        let kept = if inputs.is_some() { kept } else { &mut [] };

        for (t, _) in sequences.steps(reverse, steps.clone(), 0..1) {
            if sequences.is_reset(t, 0) {
                copy_or_zero(h, call.initial(call.h0, g.output, place, 0));
                copy_or_zero(c, call.initial(call.c0, g.others, place, 0));
            }
            let at = t - steps.start;
            if cells::reads_h(g.cell) {
                next[own.clone()].copy_from_slice(&h[own.clone()]);
            }
            match &mut gates {
                Some(gates) => {
                    weights.begin(groups.clone(), gates, at, sums);
                    weights.multiply_row(isa, groups.clone(), h, sums, products, call.turn(t));
                }
                None => {
                    let input = shared.input.row(sequences, t, 0);
                    for group in weights.order(groups.clone(), call.turn(t)) {
                        let sums = &mut sums[(group - groups.start) * group_len..][..group_len];
                        weights.multiply_row_and_input(isa, group, input, h, sums);
                    }
                }
            }
            for (group, sums) in groups.clone().zip(sums.chunks_exact(group_len)) {
                ForwardRows {
                    options,
                    part: Part::Whole,
                    training,
                    rows: 1,
                    units: weights.units(group),
                    sums: Some(Sums { data: sums, units: weights.sizes.units, stride: group_len }),
                    gates: &mut *row,
                    kept: &mut *kept,
                    h: &mut *next,
                    c: &mut *c,
                    c_kept: &mut [],
                }
                .run(g.cell, isa);
            }
            out.block(t - out_first, 0).copy_from_slice(&next[own.clone()]);
            if let (true, Some(gates)) = (training, &mut gates) {
                copy_blocks(gates, at, row, hidden, &own);
            }
            if let Some(inputs) = &mut inputs {
                copy_blocks(inputs, t, kept, hidden, &own);
            }
            if let Some(cells) = &mut cells {
                copy_blocks(cells, t, c, hidden, &own);
            }
            seat.exchange(next);
            h.copy_from_slice(next);
        }
        copy_blocks(&mut h_last, 0, h, hidden, &own);
        if let Some(c_last) = &mut c_last {
            copy_blocks(c_last, 0, c, hidden, &own);
        }
    }
}

/// The units of some groups.
fn units_of<E: CpuElement>(weights: &UnitGroups<'_, E>, groups: &Range<usize>) -> Range<usize> {
    match groups.is_empty() {
        true => 0..0,
        false => weights.units(groups.start).start..weights.units(groups.end - 1).end,
    }
}

/// Writes the own units of each block of a row.
fn copy_blocks<E: CpuElement>(to: &mut Units<'_, E>, t: usize, row: &[E], hidden: usize, own: &Range<usize>) {
    for (block, from) in row.chunks_exact(hidden).enumerate() {
        to.block(t, block).copy_from_slice(&from[own.clone()]);
    }
}
