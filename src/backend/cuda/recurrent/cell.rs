//! A cell's options as parameters of its kernels, and the layout of its gates' gradients: from the cell's row of the table.

use super::super::kernel::params::{CellOptions, SavedGates};
use crate::cell::{Activation, Activations, Candidate, CellKind};
use crate::dtype::DType;
use crate::rnn::{CandidateTerm, ForgetGate, RnnDescriptor};

impl SavedGates {
    /// What training keeps for an operator's derivatives, and how.
    pub(crate) fn of_training(descriptor: &RnnDescriptor, dtype: DType) -> Self {
        if Self::needs_inputs(descriptor) {
            SavedGates::PreActivations
        } else if dtype.size() == 2 && Self::can_be_packed(descriptor) {
            SavedGates::Packed
        } else {
            SavedGates::Activated
        }
    }

    /// Whether derivatives need what goes into the activations.
    pub(crate) fn needs_inputs(descriptor: &RnnDescriptor) -> bool {
        let spec = descriptor.cell.spec();
        // The output function's input is the cell state, which is kept anyway.
        let needs_input = |set: Activations| {
            (spec.functions.gate && set.gate.derivative_needs_input())
                || (spec.functions.state && set.state.derivative_needs_input())
        };
        let any = (0..descriptor.num_directions()).any(|d| needs_input(descriptor.activations_of(d)));
        any || spec.needs_inputs || descriptor.gate_clip.is_some()
    }

    /// Whether `kernels/saved.cuh` has a piece for the cell, and its functions have the values that are kept there.
    fn can_be_packed(descriptor: &RnnDescriptor) -> bool {
        let usual = |d| {
            let set = descriptor.activations_of(d);
            set.gate == Activation::Sigmoid && set.state == Activation::Tanh
        };
        matches!(descriptor.cell, CellKind::Lstm | CellKind::Gru) && (0..descriptor.num_directions()).all(usual)
    }
}

impl CellOptions {
    /// Options of one direction.
    pub(crate) fn new(descriptor: &RnnDescriptor, direction: usize) -> Self {
        let set = descriptor.activations_of(direction);
        CellOptions {
            gate: set.gate.into(),
            state: set.state.into(),
            output: set.output.into(),
            gate_clip: descriptor.gate_clip.unwrap_or(f64::INFINITY),
            cell_clip: descriptor.cell_clip.unwrap_or(f64::INFINITY),
            coupled_input_forget: descriptor.coupled_input_forget.into(),
            exponential_forget: (descriptor.forget_gate == ForgetGate::Exponential).into(),
        }
    }
}

/// Whether the candidate's gradients are the first slot of `dgates`, rather than in the order of the weights' rows.
pub(crate) fn is_split(cell: CellKind) -> bool {
    cell.spec().candidate != Candidate::Plain
}

/// Slots of `dgates`, times `hidden_size`: the gates, and where the candidate's product may be apart what that gets.
pub(crate) fn gradient_slots(cell: CellKind) -> usize {
    cell.gates() + usize::from(cell.spec().candidate == Candidate::Reset)
}

/// Those that are in use.
pub(crate) fn used_slots(descriptor: &RnnDescriptor) -> usize {
    descriptor.cell.gates() + usize::from(descriptor.candidate() == CandidateTerm::Apart)
}

/// Whether a step has a second product within it: the projection's, or that of a candidate after a gate has acted on the state.
pub(crate) fn has_second_product(descriptor: &RnnDescriptor) -> bool {
    descriptor.proj_size.is_some() || descriptor.candidate() == CandidateTerm::Second
}

/// Gates one after the other among the weights' rows, whose gradients are so in `dgates`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Run {
    /// First slot of `dgates`.
    pub(crate) slot: usize,
    /// First gate.
    pub(crate) gate: usize,
    pub(crate) gates: usize,
}

/// The gates as `weight_ih` and `bias_ih` have them.
pub(crate) fn input_runs(cell: CellKind) -> impl Iterator<Item = Run> {
    let gates = cell.gates();
    let all = Run { slot: 0, gate: 0, gates };
    let split = [Run { slot: 1, gate: 0, gates: gates - 1 }, Run { slot: 0, gate: gates - 1, gates: 1 }];
    let (first, second) = if is_split(cell) { (split[0], Some(split[1])) } else { (all, None) };
    std::iter::once(first).chain(second)
}

/// The gates whose recurrent product is with `h_prev`.
pub(crate) fn recurrent_run(descriptor: &RnnDescriptor) -> Run {
    let gates = descriptor.cell.gates();
    match descriptor.candidate() {
        CandidateTerm::Summed => Run { slot: 0, gate: 0, gates },
        CandidateTerm::Apart => Run { slot: 1, gate: 0, gates },
        CandidateTerm::Second => Run { slot: 1, gate: 0, gates: gates - 1 },
    }
}

/// The candidate, where its product is the second one of a step.
pub(crate) fn candidate_run(descriptor: &RnnDescriptor) -> Option<Run> {
    let last = Run { slot: 0, gate: descriptor.cell.gates() - 1, gates: 1 };
    (descriptor.candidate() == CandidateTerm::Second).then_some(last)
}
