//! What the time loops of both passes share: the cell's options, initial states, the division of sequences among threads.

use std::ops::Range;

use super::Call;
use super::cells::Options;
use super::geometry::{APART, padded, take};
use super::sequences::Sequences;
use super::steps::Steps;
use super::threads::share;
use crate::backend::cpu::CpuElement;
use crate::rnn::LayerWeights;

impl<E: CpuElement> Call<'_, E> {
    /// The cell's options in one direction.
    pub(super) fn options<'w>(&self, direction: usize, weights: &LayerWeights<&'w [E]>) -> Options<'w, E> {
        let d = &self.plan.descriptor;
        Options {
            hidden: d.hidden_size,
            candidate: self.geometry.candidate,
            activations: d.activations_of(direction),
            gate_clip: d.gate_clip.map(E::of),
            cell_clip: d.cell_clip.map(E::of),
            peephole: weights.peephole,
            coupled: d.coupled_input_forget,
            forget_gate: d.forget_gate,
        }
    }

    /// A row of an initial state, absent for zeros.
    pub(super) fn initial<'s>(
        &self,
        state: Option<&'s [E]>,
        width: usize,
        place: (usize, usize),
        sequence: usize,
    ) -> Option<&'s [E]> {
        state.map(|state| &state[self.state_row(place, sequence) * width..][..width])
    }

    /// h and the states beside it that a step starts from which no other leaves its own: the initial ones, save for the first step of a segment.
    pub(super) fn before(&self, is_reset: bool) -> [Option<&[E]>; 2] {
        self.start.filter(|_| !is_reset).map_or([self.h0, self.c0], |start| start.map(Some))
    }

    /// Row of `h0`, `c0`, `hn`, `cn` and their gradients.
    pub(super) fn state_row(&self, (layer, direction): (usize, usize), sequence: usize) -> usize {
        (layer * self.geometry.directions + direction) * self.geometry.batch + sequence
    }
}

/// `out = row`, or zeros.
pub(super) fn copy_or_zero<E: CpuElement>(out: &mut [E], row: Option<&[E]>) {
    match row {
        Some(row) => out.copy_from_slice(row),
        None => out.fill(E::zero()),
    }
}

/// What a thread's step costs whatever its rows, as a number of rows: it reads the weights.
const ROWS_OF_A_STEP: usize = 4;

/// Positions of the first `left` of `of` shares of the work in some steps. Positions stand by falling length.
pub(super) fn share_steps(
    sequences: &Sequences<'_>,
    positions: Range<usize>,
    steps: &Range<usize>,
    left: usize,
    of: usize,
) -> usize {
    if sequences.are_full() {
        return share(positions.len(), left, of);
    }
    // Of these steps alone, since threads wait for one another at the end of them.
    let length = |position: usize| sequences.length(position).min(steps.end).saturating_sub(steps.start);
    let total: usize = positions.clone().map(length).sum();
    let longest = positions.clone().next().map_or(0, length);
    let (mut sum, mut taken) = (0, 0);
    for position in positions {
        let own = length(position);
        // To the nearest. The first position of a share takes part in all of its steps.
        let before = sum + own / 2 + ROWS_OF_A_STEP * longest;
        let after = total - sum - own / 2 + ROWS_OF_A_STEP * own;
        if before * (of - left) > after * left {
            break;
        }
        sum += own;
        taken += 1;
    }
    taken
}

/// Splits a state by positions; it may be empty.
pub(super) fn split_state<E>(state: &mut [E], positions: usize, rows: usize) -> (&mut [E], &mut [E]) {
    let width = state.len() / rows.max(1);
    state.split_at_mut(positions * width)
}

/// Splits what may be absent.
pub(super) fn split_steps<E: CpuElement>(
    steps: Option<Steps<'_, E>>,
    positions: usize,
) -> (Option<Steps<'_, E>>, Option<Steps<'_, E>>) {
    steps.map(|steps| steps.split(positions)).unzip()
}

/// Room for the states of each thread's sequences while its time loop runs. Where they stand beside those of all sequences, the core of one thread fetches the first
/// lines of the next one's with its own last ones, at every step: with cores that have no cache in common an LSTM of 32 sequences with 50 units took half as long again.
pub(super) struct ThreadStates<'a, E>(&'a mut [E]);

impl ThreadStates<'_, ()> {
    /// Elements for three states of all sequences.
    pub(super) fn room(states: [usize; 3], threads: usize) -> usize {
        let all = states.into_iter().fold(0, usize::saturating_add);
        all.saturating_add(threads.saturating_mul(padded(0) + states.len() * padded(1) + APART))
    }
}

impl<'a, E: CpuElement> ThreadStates<'a, E> {
    /// In a buffer of so many elements, or in an empty one, where one thread runs the loop.
    pub(super) fn new(room: &'a mut [E]) -> Self {
        ThreadStates(room)
    }

    /// That of the first thread, which has states of these lengths, and that of the others.
    pub(super) fn split(self, states: [usize; 3]) -> (Self, Self) {
        let own = states.into_iter().map(padded).sum::<usize>() + APART;
        let (first, others) = self.0.split_at_mut(own.min(self.0.len()));
        (ThreadStates(first), ThreadStates(others))
    }

    /// Puts the states there, if there is room for them.
    pub(super) fn take(&mut self, states: [&mut &'a mut [E]; 3]) -> Option<[&'a mut [E]; 3]> {
        if self.0.is_empty() {
            return None;
        }
        Some(states.map(|state| {
            let own = &mut take(&mut self.0, padded(state.len()))[..state.len()];
            own.copy_from_slice(state);
            std::mem::replace(state, own)
        }))
    }
}
