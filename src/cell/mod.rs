//! The cells: one file each with its equations, a step written to be read beside them, and that step's derivative;
//! [`spec`] is the one table of what else a cell is.
//!
//! A cell file has three functions, each for one step of one sequence in one layer and direction: `forward`, `backward`
//! (gradients of what the step read, from those of what it gave), and `add_weight_gradient`. They are the arithmetic of
//! [the oracle](crate::backend::reference), and of nothing else: other backends write the equations a second time, so that
//! a comparison of the two can find a mistake in either.
//!
//! Notation, here and in the cell files: `x` input (`K` elements), `h` output (`P`), `c` cell state (`H`), `prev` the step
//! before; `W_i` the rows of gate i in `weight_ih`, `R_i` those in `weight_hh`, `b_ii` and `b_hi` those of `bias_ih` and `bias_hh`;
//! `R_i h` is the product with a block-diagonal matrix where there are several heads, and `W_i x` a part of `x` itself where the
//! input is gates ([`RnnDescriptor::heads`], [`RnnDescriptor::input`]);
//! `a_i` the gate's pre-activation; `gate`, `state` and `output` the [`Activations`]; `*` between vectors is elementwise. `dv` is
//! the gradient of the loss with respect to `v`.
#![expect(
    clippy::indexing_slicing,
    reason = "of the slices of a step, which the oracle cuts to the sizes of the descriptor, and of tables by gates and states"
)]

pub mod activation;
pub mod spec;

/// The modules of the cells.
macro_rules! modules {
    ($(($kind:ident $module:ident $($layer:tt)*))*) => { $(pub mod $module;)* };
}
for_each_cell!(modules);

use std::fmt;
use std::ops::Range;
use std::str::FromStr;

pub use activation::{Activation, Activations};
pub(crate) use spec::for_each_cell;
pub use spec::{Candidate, CellKind, CellOption, CellSpec, Foreign, Functions};

use crate::dtype::Scalar;
use crate::error::{Error, Result};
use crate::rnn::{InputKind, LayerWeights, RnnDescriptor};

impl fmt::Display for CellKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec().name)
    }
}

impl FromStr for CellKind {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        CellKind::ALL.into_iter().find(|cell| cell.spec().name == s).ok_or_else(|| {
            let names: Vec<_> = CellKind::ALL.iter().map(|cell| cell.spec().name).collect();
            Error::option("cell", format!("one of {}", names.join(", ")), s)
        })
    }
}

/// One layer in one direction: what all its steps have in common.
pub(crate) struct Layer<'a, E> {
    pub(crate) descriptor: &'a RnnDescriptor,
    /// Direction number, from 0.
    pub(crate) direction: usize,
    pub(crate) activations: Activations,
    pub(crate) weights: LayerWeights<&'a [E]>,
}

/// The state before a step: the previous step's, or the initial one.
pub(crate) struct State<'a, E> {
    /// `[P]`
    pub(crate) h: &'a [E],
    /// `[(S - 1) * H]`: the states beside h.
    pub(crate) c: &'a [E],
}

/// What is kept of one step, for the next step and for backward.
pub(crate) struct SavedStep<'a, E> {
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
    /// `[(S - 1) * H]`, of the previous states beside h.
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

/// `out += addend`, where there is such a vector.
fn add_to<E: Scalar>(out: Option<&mut [E]>, addend: &[E]) {
    for (out, addend) in out.into_iter().flatten().zip(addend) {
        *out += *addend;
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

    /// The rows of a gate.
    fn rows(&self, gate: usize) -> Range<usize> {
        gate * self.hidden_size()..(gate + 1) * self.hidden_size()
    }

    /// The elements of `x` that are a gate's `W x`, where the input is gates.
    fn given(&self, gate: usize) -> Option<Range<usize>> {
        let first = self.direction * self.descriptor.cell.gates() * self.hidden_size();
        let rows = self.rows(gate);
        (self.descriptor.input == InputKind::Gates).then_some(first + rows.start..first + rows.end)
    }

    /// Units of each head: elements of the state that a unit's row of `R` is multiplied with.
    fn head_size(&self) -> usize {
        self.descriptor.head_size()
    }

    /// `W x + b_ih` of one unit of one gate.
    fn input_term(&self, gate: usize, unit: usize, x: &[E]) -> E {
        let r = gate * self.hidden_size() + unit;
        let bias = self.weights.input_bias.get(r).copied().unwrap_or(E::zero());
        match self.given(gate) {
            Some(given) => x[given][unit] + bias,
            None => dot(row(self.weights.input_hidden, r, x.len()), x) + bias,
        }
    }

    /// `R h + b_hh` of one unit of one gate.
    fn state_term(&self, gate: usize, unit: usize, h: &[E]) -> E {
        let r = gate * self.hidden_size() + unit;
        let bias = self.weights.hidden_bias.get(r).copied().unwrap_or(E::zero());
        let size = self.head_size();
        dot(row(self.weights.hidden_hidden, r, size), row(h, self.head_of(unit), size)) + bias
    }

    /// The head whose part of the state a unit sees.
    fn head_of(&self, unit: usize) -> usize {
        unit * self.descriptor.heads / self.hidden_size()
    }

    /// `dx += W^T da` of one gate.
    fn add_input_gradient(&self, gate: usize, da: &[E], dx: &mut [E]) {
        match self.given(gate) {
            Some(given) => add_to(Some(&mut dx[given]), da),
            None => add_transposed(dx, self.weights.input_hidden, self.rows(gate).start, da),
        }
    }

    /// `dh += R^T da` of one gate.
    fn add_state_gradient(&self, gate: usize, da: &[E], dh: &mut [E]) {
        let (size, units) = (self.head_size(), self.hidden_size() / self.descriptor.heads);
        for (head, (da, dh)) in da.chunks(units).zip(dh.chunks_mut(size)).enumerate() {
            add_transposed(dh, self.weights.hidden_hidden, self.rows(gate).start + head * units, da);
        }
    }

    /// `dW += da x^T` and `db_ih += da` of one gate.
    fn add_input_weights(&self, gate: usize, da: &[E], x: &[E], gradient: &mut LayerWeights<&mut [E]>) {
        if self.given(gate).is_none() {
            add_outer(gradient.input_hidden, self.rows(gate).start, da, x);
        }
        add_to(gradient.input_bias.get_mut(self.rows(gate)), da);
    }

    /// `dR += da h^T` and `db_hh += da` of one gate.
    fn add_state_weights(&self, gate: usize, da: &[E], h: &[E], gradient: &mut LayerWeights<&mut [E]>) {
        let (size, units) = (self.head_size(), self.hidden_size() / self.descriptor.heads);
        for (head, (da, h)) in da.chunks(units).zip(h.chunks(size)).enumerate() {
            add_outer(gradient.hidden_hidden, self.rows(gate).start + head * units, da, h);
        }
        add_to(gradient.hidden_bias.get_mut(self.rows(gate)), da);
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
}

/// The functions of [`Layer`] that call those of its cell.
macro_rules! dispatch {
    ($(($kind:ident $module:ident $($layer:tt)*))*) => {
        impl<E: Scalar> Layer<'_, E> {
            /// Calls the cell's `forward`.
            pub(crate) fn forward(&self, x: &[E], prev: &State<'_, E>, saved_step: &mut SavedStep<'_, E>) {
                match self.descriptor.cell {
                    $(CellKind::$kind => $module::forward(self, x, prev, saved_step),)*
                }
            }

            /// Calls the cell's `backward`. `dc` is the gradient of the states beside h that the step gave, as far as the step after it knows.
            pub(crate) fn backward(
                &self,
                prev: &State<'_, E>,
                saved_step: &mut SavedStep<'_, E>,
                dc: &[E],
                gradient: &mut StepGradient<'_, E>,
            ) {
                gradient.dx.fill(E::zero());
                gradient.dh.fill(E::zero());
                gradient.dc.fill(E::zero());
                match self.descriptor.cell {
                    $(CellKind::$kind => $module::backward(self, prev, saved_step, dc, gradient),)*
                }
            }

            /// Calls the cell's `add_weight_gradient`. Needs no weights in `self`.
            pub(crate) fn add_weight_gradient(
                &self,
                x: &[E],
                prev: &State<'_, E>,
                saved_step: &SavedStep<'_, E>,
                gradient: &mut LayerWeights<&mut [E]>,
            ) {
                match self.descriptor.cell {
                    $(CellKind::$kind => $module::add_weight_gradient(self, x, prev, saved_step, gradient),)*
                }
            }
        }
    };
}
for_each_cell!(dispatch);

#[cfg(test)]
mod tests {
    use super::*;

    /// The names of the modules, by which build.rs knows the kernels of a cell.
    #[test]
    fn modules_are_called_like_their_cells() {
        macro_rules! names {
            ($(($kind:ident $module:ident $($layer:tt)*))*) => { [$((CellKind::$kind, stringify!($module))),*] };
        }
        for (cell, module) in for_each_cell!(names) {
            assert_eq!(cell.spec().name, module);
        }
    }

    /// What other places take for granted of every row.
    #[test]
    fn rows_are_consistent() {
        for cell in CellKind::ALL {
            let spec = cell.spec();
            assert_eq!(spec.name.parse::<CellKind>().unwrap(), cell);
            assert_eq!(spec.states[0], "h", "{cell}");
            // What a step reads of the one before is found by its place.
            assert!(spec.saved.ends_with(&spec.states[1..]), "{cell}: {:?} of {:?}", spec.states, spec.saved);
            assert!(spec.positive.iter().all(|state| spec.states[1..].contains(state)), "{cell}");
            assert!(spec.peepholes.iter().all(|gate| spec.gates.contains(gate)), "{cell}");
            assert_eq!(spec.peepholes.is_empty(), !cell.has(CellOption::Peepholes), "{cell}");
            assert_eq!(spec.candidate == Candidate::Reset, cell.has(CellOption::Reset), "{cell}");
            for foreign in [spec.keras, spec.onnx].into_iter().flatten() {
                let sorted = |gates: &[&'static str]| {
                    let mut gates = gates.to_vec();
                    gates.sort_unstable();
                    gates
                };
                assert_eq!(sorted(foreign.gates), sorted(spec.gates), "{cell} as {}", foreign.name);
                assert!(foreign.peepholes.is_empty() || sorted(foreign.peepholes) == sorted(spec.peepholes), "{cell}");
            }
            // The step's kernels and vectors have room for so many.
            assert!(spec.gates.len() <= 4 && spec.states.len() <= 4 && spec.peepholes.len() <= 3, "{cell}");
        }
        let error = "lstn".parse::<CellKind>().unwrap_err().to_string();
        assert!(error.contains("rnn, lstm, gru"), "{error}");
    }
}
