//! The time loop of a single sequence, divided among threads by units: each computes the gradients of its units' gates for all steps, takes the others' after each, and
//! multiplies all of them with its units' part of the recurrent weights.

use std::ops::Range;

use super::{Shared, add};
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::cells::{BackwardRow, Part, reads_h};
use crate::backend::cpu::gemm::{self, Panels, Start};
use crate::backend::cpu::geometry::{Geometry, Recurrent, padded, take};
use crate::backend::cpu::lockstep::{Lockstep, Seat};
use crate::backend::cpu::products::share_scratch;
use crate::backend::cpu::sequences::Rows;
use crate::backend::cpu::steps::Units;
use crate::backend::cpu::threads::{Workers, share};

/// Some units, those of some panels of the recurrent weights.
pub(super) struct SingleSequence<'a, E> {
    pub(super) shared: &'a Shared<'a, E>,
    /// `R` as the step multiplies with it, and the columns of the gates that it takes.
    pub(super) weights: Panels<'a, E>,
    pub(super) part: Recurrent,
    pub(super) panels: Range<usize>,
    /// Units of a panel.
    pub(super) width: usize,
    pub(super) gates: Units<'a, E>,
    /// As of the loop over many sequences.
    pub(super) dh: Units<'a, E>,
    pub(super) dc: Option<Units<'a, E>>,
    pub(super) dh0: Units<'a, E>,
    pub(super) dc0: Option<Units<'a, E>>,
    /// As much for each thread as [`scratch`] says.
    pub(super) scratch: &'a mut [E],
}

/// Elements of scratch that a thread needs.
pub(in crate::backend::cpu) fn scratch(g: &Geometry) -> usize {
    [g.gate_width, g.hidden, g.others].into_iter().map(padded).sum()
}

impl<E: CpuElement> Lockstep<E> for SingleSequence<'_, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let SingleSequence { shared, weights, part, panels, width, gates, dh, dc, dh0, dc0, scratch } = self;
        let middle = panels.start + share(panels.len(), left, of);
        let units = units_of(weights.n, width, &(panels.start..middle)).len();
        let (gates, dh, dh0) = (gates.split(units), dh.split(units), dh0.split(units));
        let [dc, dc0] = [dc, dc0].map(|view| view.map(|view| view.split(units)).unzip());
        let scratch = share_scratch(scratch, left, of);
        let some = |panels, gates, dh, dc, dh0, dc0, scratch| SingleSequence {
            shared,
            weights,
            part,
            panels,
            width,
            gates,
            dh,
            dc,
            dh0,
            dc0,
            scratch,
        };
        (
            some(panels.start..middle, gates.0, dh.0, dc.0, dh0.0, dc0.0, scratch.0),
            some(middle..panels.end, gates.1, dh.1, dc.1, dh0.1, dc0.1, scratch.1),
        )
    }

    fn units(&self) -> Range<usize> {
        units_of(self.weights.n, self.width, &self.panels)
    }

    fn run(self, mut seat: Seat<'_, E>) {
        let own = self.units();
        let SingleSequence { shared, weights, part, panels, width, mut gates, mut scratch, .. } = self;
        let (mut dh_view, mut dc_view, mut dh0, mut dc0) = (self.dh, self.dc, self.dh0, self.dc0);
        let Shared { call, sequences, place, reverse, options, inputs, given, cells, .. } = *shared;
        let g = &call.geometry;
        let (hidden, others) = (g.hidden, g.others);
        let cells = Rows::inner(cells, others);
        let mut next = |len: usize| &mut take(&mut scratch, padded(len))[..len];
        let (row, dh, dc) = (next(g.gate_width), next(hidden), next(others));
        let states = others / hidden;
        dh[own.clone()].copy_from_slice(dh_view.block(0, 0));
        for state in 0..states {
            if let Some(view) = &mut dc_view {
                dc[state * hidden..][own.clone()].copy_from_slice(view.block(0, state));
            }
        }
        let data = &weights.data[panels.start * width * weights.k..panels.end * width * weights.k];
        let first = if reverse { g.seq_len - 1 } else { 0 };

        for (t, _) in sequences.steps(!reverse, 0..g.seq_len, 0..1) {
            if let Some(gradient) = &given.gradient {
                add(&mut dh[own.clone()], &gradient.row(sequences, t, 0)[own.clone()]);
            }
            for (block, row) in row.chunks_exact_mut(hidden).enumerate() {
                row[own.clone()].copy_from_slice(gates.block(t, block));
            }
            let before = sequences.previous(reverse, t, 0);
            let initial = |state, width| call.initial(state, width, place, 0).unwrap_or(&[]);
            let [start_h, start_c] = call.before(sequences.is_reset(t, 0));
            let (mut h_prev, mut c, mut c_prev) = (&[][..], &[][..], &[][..]);
            if reads_h(g.cell) {
                h_prev = match before {
                    Some(before) => given.output.row(sequences, before, 0),
                    None => initial(start_h, hidden),
                };
            }
            if others > 0 {
                c = cells.row(sequences, t, 0);
                c_prev = match before {
                    Some(before) => cells.row(sequences, before, 0),
                    None => initial(start_c, others),
                };
            }
            BackwardRow {
                options,
                part: Part::Whole,
                units: own.clone(),
                gates: &mut *row,
                kept: inputs.map_or(&[], |rows| rows.row(sequences, t, 0)),
                h_prev,
                c,
                c_prev,
                dh: &mut *dh,
                dc: &mut *dc,
                candidate: &mut [],
                dq: &[],
            }
            .run(g.cell, call.isa);
            for (block, row) in row.chunks_exact(hidden).enumerate() {
                gates.block(t, block).copy_from_slice(&row[own.clone()]);
            }
            if t != first || given.initial {
                seat.exchange(row);
                let start = if reads_h(g.cell) { Start::Add } else { Start::Set };
                let panels = Panels::new(data, weights.k, own.len()).at_step(t);
                let row = &row[part.column..part.column + part.rows];
                let dh = &mut dh[own.clone()];
                gemm::multiply(call.isa, 0..1, |_| row, panels, dh, |_| 0, start, &mut [], Workers::ONE);
            }
            if sequences.is_reset(t, 0) {
                hand_over(&mut dh0, 0, &mut dh[own.clone()]);
                for state in 0..states {
                    if let Some(dc0) = &mut dc0 {
                        hand_over(dc0, state, &mut dc[state * hidden..][own.clone()]);
                    }
                }
            }
        }
        dh_view.block(0, 0).copy_from_slice(&dh[own.clone()]);
        for state in 0..states {
            if let Some(view) = &mut dc_view {
                view.block(0, state).copy_from_slice(&dc[state * hidden..][own.clone()]);
            }
        }
    }
}

/// Adds a gradient to that of the initial state, and leaves zeros.
fn hand_over<E: CpuElement>(initial: &mut Units<'_, E>, block: usize, gradient: &mut [E]) {
    add(initial.block(0, block), gradient);
    gradient.fill(E::zero());
}

/// The units of some panels.
fn units_of(hidden: usize, width: usize, panels: &Range<usize>) -> Range<usize> {
    (panels.start * width).min(hidden)..(panels.end * width).min(hidden)
}
