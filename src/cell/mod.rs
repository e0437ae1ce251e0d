//! The cells: one file each with its equations, a step written to be read beside them, and that step's derivative;
//! [`spec`] is the one arity table.
//!
//! A cell file has three functions, each for one step of one sequence in one layer and direction: `forward`, `backward`
//! (gradients of what the step read, from those of what it gave), and `add_weight_gradient`. They are the arithmetic of
//! [the oracle](crate::backend::reference), and of nothing else: other backends write the equations a second time, so that
//! a comparison of the two can find a mistake in either.
//!
//! Notation, here and in the cell files: `x` input (`K` elements), `h` output (`P`), `c` cell state (`H`), `prev` the step
//! before; `W_i` the rows of gate i in `weight_ih`, `R_i` those in `weight_hh`, `b_ii` and `b_hi` those of `bias_ih` and `bias_hh`;
//! `a_i` the gate's pre-activation; `gate`, `state` and `output` the [`Activations`]; `*` between vectors is elementwise. `dv` is
//! the gradient of the loss with respect to `v`.

pub mod activation;
pub mod gru;
pub mod lstm;
pub mod rnn;
pub mod spec;

pub use activation::{Activation, Activations};
pub use spec::{CellKind, CellSpec};

use crate::dtype::Scalar;
use crate::rnn::{LayerWeights, RnnDescriptor};

/// One layer in one direction: what all its steps have in common.
pub(crate) struct Layer<'a, E> {
    pub(crate) descriptor: &'a RnnDescriptor,
    pub(crate) activations: Activations,
    pub(crate) weights: LayerWeights<&'a [E]>,
}

/// The state before a step: the previous step's, or the initial one.
pub(crate) struct State<'a, E> {
    /// `[P]`
    pub(crate) h: &'a [E],
    /// `[H]`, LSTM only.
    pub(crate) c: &'a [E],
}

/// What is kept of one step, for the next step and for backward.
pub(crate) struct Record<'a, E> {
    /// Pre-activations before clamping, `[G * H]`; written by forward.
    pub(crate) a: &'a mut [E],
    /// What [`CellSpec::saved`] lists, `[H]` each; written by forward.
    pub(crate) saved: &'a mut [E],
    /// The output, `[P]`; written by forward.
    pub(crate) h: &'a mut [E],
    /// Gradient of `h`, `[P]`: of the loss through the output at this step and through the next step. Read by backward.
    pub(crate) dh: &'a mut [E],
    /// Gradient of `a`, `[G * H]`; written by backward.
    pub(crate) da: &'a mut [E],
}

/// Gradients of what a step read; every element is set by a cell's `backward`.
pub(crate) struct StepGradient<'a, E> {
    /// `[K]`
    pub(crate) dx: &'a mut [E],
    /// `[P]`, of the previous output.
    pub(crate) dh: &'a mut [E],
    /// `[H]`, of the previous cell state, LSTM only.
    pub(crate) dc: &'a mut [E],
}

fn dot<E: Scalar>(row: &[E], vector: &[E]) -> E {
    let mut sum = E::zero();
    for k in 0..row.len() {
        sum += row[k] * vector[k];
    }
    sum
}

/// Row `row` of a row-major matrix.
fn row<E>(matrix: &[E], row: usize, columns: usize) -> &[E] {
    &matrix[row * columns..(row + 1) * columns]
}

/// `out += matrix^T vector`, for `vector.len()` rows of the matrix from `first_row` on.
fn add_transposed<E: Scalar>(out: &mut [E], matrix: &[E], first_row: usize, vector: &[E]) {
    for j in 0..vector.len() {
        let matrix_row = row(matrix, first_row + j, out.len());
        for k in 0..out.len() {
            out[k] += matrix_row[k] * vector[j];
        }
    }
}

/// `matrix += left right^T`, for `left.len()` rows of the matrix from `first_row` on.
fn add_outer<E: Scalar>(matrix: &mut [E], first_row: usize, left: &[E], right: &[E]) {
    for j in 0..left.len() {
        for k in 0..right.len() {
            matrix[(first_row + j) * right.len() + k] += left[j] * right[k];
        }
    }
}

/// `bias[first_row..] += vector`, where there is such a bias.
fn add_bias<E: Scalar>(bias: &mut [E], first_row: usize, vector: &[E]) {
    if !bias.is_empty() {
        for j in 0..vector.len() {
            bias[first_row + j] += vector[j];
        }
    }
}

/// `a` clamped to `±bound`; NaN stays NaN.
fn clamp<E: Scalar>(a: E, bound: Option<f64>) -> E {
    match bound.map(E::of) {
        Some(bound) if a > bound => bound,
        Some(bound) if a < -bound => -bound,
        _ => a,
    }
}

/// The derivative of [`clamp`]: zero where it changed `a`, one elsewhere and at the bound.
fn clamp_derivative<E: Scalar>(a: E, bound: Option<f64>) -> E {
    match bound.map(E::of) {
        Some(bound) if a.abs() > bound => E::zero(),
        _ => E::one(),
    }
}

impl<E: Scalar> Layer<'_, E> {
    fn hidden_size(&self) -> usize {
        self.descriptor.hidden_size
    }

    /// `W x + b_ih` of one unit of one gate.
    fn input_term(&self, gate: usize, unit: usize, x: &[E]) -> E {
        let r = gate * self.hidden_size() + unit;
        let bias = self.weights.input_bias.get(r).copied().unwrap_or(E::zero());
        dot(row(self.weights.input_hidden, r, x.len()), x) + bias
    }

    /// `R h + b_hh` of one unit of one gate.
    fn state_term(&self, gate: usize, unit: usize, h: &[E]) -> E {
        let r = gate * self.hidden_size() + unit;
        let bias = self.weights.hidden_bias.get(r).copied().unwrap_or(E::zero());
        dot(row(self.weights.hidden_hidden, r, h.len()), h) + bias
    }

    /// `activation(clamp(a))`
    fn activate(&self, activation: Activation, a: E) -> E {
        activation.apply(clamp(a, self.descriptor.gate_clip))
    }

    /// The derivative of [`activate`](Self::activate) at `a`, where its value is `y`.
    fn activate_derivative(&self, activation: Activation, a: E, y: E) -> E {
        let clip = self.descriptor.gate_clip;
        activation.derivative(clamp(a, clip), y) * clamp_derivative(a, clip)
    }

    /// Calls the cell's `forward`.
    pub(crate) fn forward(&self, x: &[E], prev: &State<'_, E>, record: &mut Record<'_, E>) {
        match self.descriptor.cell {
            CellKind::Rnn => rnn::forward(self, x, prev, record),
            CellKind::Lstm => lstm::forward(self, x, prev, record),
            CellKind::Gru => gru::forward(self, x, prev, record),
        }
    }

    /// Calls the cell's `backward`.
    pub(crate) fn backward(
        &self,
        prev: &State<'_, E>,
        record: &mut Record<'_, E>,
        dc: &[E],
        gradient: &mut StepGradient<'_, E>,
    ) {
        gradient.dx.fill(E::zero());
        gradient.dh.fill(E::zero());
        gradient.dc.fill(E::zero());
        match self.descriptor.cell {
            CellKind::Rnn => rnn::backward(self, record, gradient),
            CellKind::Lstm => lstm::backward(self, prev, record, dc, gradient),
            CellKind::Gru => gru::backward(self, prev, record, gradient),
        }
    }

    /// Calls the cell's `add_weight_gradient`. Needs no weights in `self`.
    pub(crate) fn add_weight_gradient(
        &self,
        x: &[E],
        prev: &State<'_, E>,
        record: &Record<'_, E>,
        gradient: &mut LayerWeights<&mut [E]>,
    ) {
        match self.descriptor.cell {
            CellKind::Rnn => rnn::add_weight_gradient(x, prev, record, gradient),
            CellKind::Lstm => lstm::add_weight_gradient(self, x, prev, record, gradient),
            CellKind::Gru => gru::add_weight_gradient(self, x, prev, record, gradient),
        }
    }
}
