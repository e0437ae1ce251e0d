//! What the kernels of a cell need to be told, and how its gates' gradients lie.

use super::super::kernel::params::{CellOptions, SavedGates};
use crate::cell::{Activations, CellKind};
use crate::rnn::{GruReset, RnnDescriptor};

impl SavedGates {
    /// What training must keep for an operator's derivatives.
    pub(crate) fn of_training(descriptor: &RnnDescriptor) -> Self {
        let needs_input = |set: Activations| match descriptor.cell {
            CellKind::Rnn => set.state.derivative_needs_input(),
            // The output function's input is the cell state, which is kept anyway.
            CellKind::Lstm | CellKind::Gru => set.gate.derivative_needs_input() || set.state.derivative_needs_input(),
        };
        let any = (0..descriptor.num_directions()).any(|d| needs_input(descriptor.activations_of(d)));
        if any || descriptor.gate_clip.is_some() { SavedGates::PreActivations } else { SavedGates::Activated }
    }
}

impl CellOptions {
    /// Those of one direction.
    pub(crate) fn new(descriptor: &RnnDescriptor, direction: usize) -> Self {
        let set = descriptor.activations_of(direction);
        CellOptions {
            gate: set.gate.into(),
            state: set.state.into(),
            output: set.output.into(),
            gate_clip: descriptor.gate_clip.unwrap_or(f64::INFINITY),
            cell_clip: descriptor.cell_clip.unwrap_or(f64::INFINITY),
            coupled_input_forget: descriptor.coupled_input_forget.into(),
            reset_before: (descriptor.reset == GruReset::Before).into(),
        }
    }
}

/// Slots of `dgates`, times `hidden_size`: the gates, and for the GRU what R_n gets.
pub(crate) fn gradient_slots(cell: CellKind) -> usize {
    match cell {
        CellKind::Rnn | CellKind::Lstm => cell.gates(),
        CellKind::Gru => cell.gates() + 1,
    }
}

/// Whether a step has a second product within it: LSTM with projection, GRU with the reset gate before the product.
pub(crate) fn has_second_product(descriptor: &RnnDescriptor) -> bool {
    descriptor.proj_size.is_some() || (descriptor.cell == CellKind::Gru && descriptor.reset == GruReset::Before)
}

/// Runs of slots of `dgates` that pair with runs of rows of `weight_ih` and `bias_ih`: first slot, first gate, gates.
pub(crate) fn input_slots(cell: CellKind) -> impl Iterator<Item = (usize, usize, usize)> {
    let runs: &[(usize, usize, usize)] = match cell {
        CellKind::Rnn => &[(0, 0, 1)],
        CellKind::Lstm => &[(0, 0, 4)],
        CellKind::Gru => &[(1, 0, 2), (0, 2, 1)],
    };
    runs.iter().copied()
}
