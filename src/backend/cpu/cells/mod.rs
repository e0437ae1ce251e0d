//! The cells' steps on vectors: what happens to a row of pre-activations between two matrix products.
//!
//! Equations and their derivatives are those of [`crate::cell`]. A file a cell has them on registers, as a [`StepCell`]; the
//! loops over units, loads and stores are here. A row of gates holds `hidden_size` elements each of, in this order:
//!
//! | candidate's product | after forward | after backward |
//! |---|---|---|
//! | as every gate's | gates | `da` of the gates |
//! | apart (GRU, reset after) | candidate, other gates, `q` | `da` of them, `dq` |
//! | second (GRU, reset before; MGU) | candidate, other gates, `q` | `da` of them, `q` |
//!
//! so that the operands of `W` (all but q) and of `R` (all but the candidate, or but q) are each in one piece: see [`column`].

use std::ops::Range;

use super::activation::{Function, Sigmoid, Tanh, is_standard};
use crate::backend::cpu::CpuElement;
use crate::cell::{Activation, Activations, Candidate, CellKind, for_each_cell};
use crate::dtype::least_magnitude;
use crate::rnn::{CandidateTerm, ForgetGate};
use crate::simd::{Isa, Kernel, Simd, load_part as load, store_part as store};

/// The modules of the cells.
macro_rules! modules {
    ($(($kind:ident $module:ident $($layer:tt)*))*) => { $(mod $module;)* };
}
for_each_cell!(modules);

/// Gates, states beside h and peepholes that a cell has, at most.
const MOST_GATES: usize = 4;
const MOST_STATES: usize = 3;
const MOST_PEEPHOLES: usize = 3;

/// What a cell's loops need to know of the descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a, E> {
    pub(crate) hidden: usize,
    pub(crate) candidate: CandidateTerm,
    pub(crate) activations: Activations,
    pub(crate) gate_clip: Option<E>,
    pub(crate) cell_clip: Option<E>,
    /// `[3 * hidden]` or empty.
    pub(crate) peephole: &'a [E],
    pub(crate) coupled: bool,
    pub(crate) forget_gate: ForgetGate,
}

impl<E: CpuElement> Options<'_, E> {
    /// Whether the loops without options, with their functions known at compile time, compute this.
    fn is_plain(&self) -> bool {
        is_standard(self.activations)
            && self.gate_clip.is_none()
            && self.cell_clip.is_none()
            && self.peephole.is_empty()
            && !self.coupled
    }
}

/// The first column of a gate in a row of gates of a cell.
pub(crate) const fn column(cell: CellKind, gate: usize, hidden: usize) -> usize {
    match cell.spec().candidate {
        Candidate::Plain => gate * hidden,
        _ if gate + 1 == cell.gates() => 0,
        _ => (gate + 1) * hidden,
    }
}

/// What a forward step of some units reads and gives.
struct Forward<V> {
    /// Pre-activations of the gates, `W x + R h + b`; a cell adds its peepholes. That of a candidate whose product is apart
    /// lacks `q`; that of one with a second product is complete in [`StepCell::rest`] only.
    a: [V; MOST_GATES],
    /// The gates' values.
    gate: [V; MOST_GATES],
    /// `R h + b_hh` of a candidate whose product is apart; what a second product takes.
    q: V,
    /// Whether the candidate's product is apart.
    apart: bool,
    /// The output of the step before, then of this one.
    h: V,
    /// The states beside h, before and after.
    state: [V; MOST_STATES],
    /// The peepholes' weights.
    peephole: Option<[V; MOST_PEEPHOLES]>,
}

/// What a backward step of some units reads and gives.
struct Backward<V> {
    /// Pre-activations; the gates' values, where those are enough for all derivatives.
    a: [V; MOST_GATES],
    gate: [V; MOST_GATES],
    /// See [`Forward`].
    q: V,
    apart: bool,
    h_prev: V,
    /// The states beside h after the step and before it.
    state: [V; MOST_STATES],
    state_prev: [V; MOST_STATES],
    peephole: Option<[V; MOST_PEEPHOLES]>,
    /// Gradient of the output; then that part of the gradient of `h_prev` which passes through no product.
    dh: V,
    /// Gradients of the states beside h, after and before.
    dstate: [V; MOST_STATES],
    /// Gradients of the pre-activations.
    da: [V; MOST_GATES],
    /// Gradient of `q`: given where there is a second product, computed where the candidate's product is apart.
    dq: V,
}

/// A cell's step on registers. Functions are `#[inline(always)]`, see [`Kernel`].
trait StepCell {
    /// Its row of the table.
    const KIND: CellKind;
    /// Its gates, and its states beside h.
    const GATES: usize = Self::KIND.gates();
    const STATES: usize = Self::KIND.other_states();
    /// Whether the candidate's product is not as every gate's.
    const SPLIT: bool = !matches!(Self::KIND.spec().candidate, Candidate::Plain);
    /// Whether pre-activations are kept with the usual functions as well.
    const NEEDS_INPUTS: bool = Self::KIND.spec().needs_inputs;
    /// Whether a step's arithmetic, apart from products, reads `h_prev`.
    const READS_H: bool;

    /// The gates that act before a second product, and the `q` that it takes. Before [`rest`](Self::rest) in every step.
    #[inline(always)]
    fn first<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(_: S, _: Unit<'_, E, F>, _: &mut Forward<S::V>) {}

    /// The rest of a forward step.
    fn rest<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Forward<S::V>);

    /// Gradient of the candidate's pre-activation, which a second product takes.
    #[inline(always)]
    fn candidate_gradient<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(
        s: S,
        _: Unit<'_, E, F>,
        _: &Backward<S::V>,
    ) -> S::V {
        s.splat(E::zero())
    }

    /// A backward step.
    fn backward<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Backward<S::V>);
}

/// The three functions of a cell, known at compile time or not.
trait CellFunctions<E: CpuElement>: Copy {
    type Gate: Function<E>;
    type State: Function<E>;
    type Output: Function<E>;
    /// Whether every option that costs something is off.
    const PLAIN: bool;
    fn functions(self, options: &Options<'_, E>) -> (Self::Gate, Self::State, Self::Output);
}

/// The usual functions.
#[derive(Clone, Copy)]
struct Standard;

impl<E: CpuElement> CellFunctions<E> for Standard {
    type Gate = Sigmoid;
    type State = Tanh;
    type Output = Tanh;
    const PLAIN: bool = true;
    #[inline(always)]
    fn functions(self, _: &Options<'_, E>) -> (Sigmoid, Tanh, Tanh) {
        (Sigmoid, Tanh, Tanh)
    }
}

/// Functions looked up in the options.
#[derive(Clone, Copy)]
struct General;

impl<E: CpuElement> CellFunctions<E> for General {
    type Gate = Activation;
    type State = Activation;
    type Output = Activation;
    const PLAIN: bool = false;
    #[inline(always)]
    fn functions(self, options: &Options<'_, E>) -> (Self::Gate, Self::State, Self::Output) {
        (options.activations.gate, options.activations.state, options.activations.output)
    }
}

/// A cell's functions and options, as its step uses them.
struct Unit<'a, E, F> {
    functions: F,
    options: &'a Options<'a, E>,
}

impl<E, F: Copy> Clone for Unit<'_, E, F> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E, F: Copy> Copy for Unit<'_, E, F> {}

impl<E: CpuElement, F: CellFunctions<E>> Unit<'_, E, F> {
    #[inline(always)]
    fn gate_clip(self) -> Option<E> {
        if F::PLAIN { None } else { self.options.gate_clip }
    }

    #[inline(always)]
    fn cell_clip(self) -> Option<E> {
        if F::PLAIN { None } else { self.options.cell_clip }
    }

    /// Whether f is coupled to i.
    #[inline(always)]
    fn coupled(self) -> bool {
        !F::PLAIN && self.options.coupled
    }

    /// The value of a gate.
    #[inline(always)]
    fn gate<S: Simd<E>>(self, s: S, a: S::V) -> S::V {
        self.functions.functions(self.options).0.apply(s, clamp(s, a, self.gate_clip()))
    }

    /// The value of a candidate.
    #[inline(always)]
    fn state<S: Simd<E>>(self, s: S, a: S::V) -> S::V {
        self.functions.functions(self.options).1.apply(s, clamp(s, a, self.gate_clip()))
    }

    /// The cell state on its way to the output.
    #[inline(always)]
    fn output<S: Simd<E>>(self, s: S, c: S::V) -> S::V {
        self.functions.functions(self.options).2.apply(s, c)
    }

    #[inline(always)]
    fn output_slope<S: Simd<E>>(self, s: S, c: S::V, value: S::V) -> S::V {
        self.functions.functions(self.options).2.derivative(s, c, value)
    }

    /// Gradient of a gate's pre-activation `a` from that of its value.
    #[inline(always)]
    fn through_gate<S: Simd<E>>(self, s: S, a: S::V, value: S::V, gradient: S::V) -> S::V {
        through(s, self.functions.functions(self.options).0, self.gate_clip(), a, value, gradient)
    }

    /// The same of a candidate's.
    #[inline(always)]
    fn through_state<S: Simd<E>>(self, s: S, a: S::V, value: S::V, gradient: S::V) -> S::V {
        through(s, self.functions.functions(self.options).1, self.gate_clip(), a, value, gradient)
    }

    #[inline(always)]
    fn clip_cell<S: Simd<E>>(self, s: S, c: S::V) -> S::V {
        clamp(s, c, self.cell_clip())
    }

    /// Gradient of what was clipped to the cell state.
    #[inline(always)]
    fn through_cell_clip<S: Simd<E>>(self, s: S, c: S::V, gradient: S::V) -> S::V {
        clamp_gradient(s, c, self.cell_clip(), gradient)
    }
}

/// Zero for magnitudes below `least`, see [`least_magnitude`].
#[inline(always)]
fn cut<E: CpuElement, S: Simd<E>>(s: S, v: S::V, least: S::V) -> S::V {
    let magnitude = s.max(v, s.sub(s.splat(E::zero()), v));
    s.zero_where_less(magnitude, least, v)
}

#[inline(always)]
fn one_minus<E: CpuElement, S: Simd<E>>(s: S, v: S::V) -> S::V {
    s.sub(s.splat(E::one()), v)
}

/// `v` limited to `±clip`.
#[inline(always)]
fn clamp<E: CpuElement, S: Simd<E>>(s: S, v: S::V, clip: Option<E>) -> S::V {
    match clip {
        Some(clip) => s.min(s.splat(clip), s.max(s.splat(-clip), v)),
        None => v,
    }
}

/// `gradient` where `|v| <= clip`, else zero.
#[inline(always)]
fn clamp_gradient<E: CpuElement, S: Simd<E>>(s: S, v: S::V, clip: Option<E>, gradient: S::V) -> S::V {
    match clip {
        Some(clip) => {
            let inside = s.zero_where_less(v, s.splat(-clip), gradient);
            s.zero_where_less(s.splat(clip), v, inside)
        }
        None => gradient,
    }
}

/// Gradient of a pre-activation from that of its gate.
#[inline(always)]
fn through<E: CpuElement, S: Simd<E>, F: Function<E>>(
    s: S,
    f: F,
    clip: Option<E>,
    a: S::V,
    value: S::V,
    gradient: S::V,
) -> S::V {
    let slope = f.derivative(s, clamp(s, a, clip), value);
    clamp_gradient(s, a, clip, s.mul(gradient, slope))
}

/// What of a step is computed at once: everything, or one of the halves between which a second product stands.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Whole,
    /// Forward: the gates but the candidate, and `q`. Backward: the candidate's gradient.
    First,
    /// Forward: the rest, after `a += R q`. Backward: everything, given `dq = R^T da`.
    Second,
}

/// Some rows, forward, one after the other in each tensor.
pub(crate) struct ForwardRows<'a, E> {
    pub(crate) options: Options<'a, E>,
    pub(crate) part: Part,
    /// Whether backward will follow: gates are kept.
    pub(crate) training: bool,
    pub(crate) rows: usize,
    /// The units to compute.
    pub(crate) units: Range<usize>,
    /// Pre-activations and `q` of these units alone, where `gates` lacks them.
    pub(crate) sums: Option<Sums<'a, E>>,
    /// Pre-activations and `q`, becoming gates; may be empty without `training`, where there are `sums`.
    pub(crate) gates: &'a mut [E],
    /// Pre-activations to keep, or empty.
    pub(crate) kept: &'a mut [E],
    /// The output, before and after.
    pub(crate) h: &'a mut [E],
    /// The states beside h, before and after.
    pub(crate) c: &'a mut [E],
    /// Those after once more, to keep, or empty.
    pub(crate) c_kept: &'a mut [E],
}

impl<'a, E: Copy> ForwardRows<'a, E> {
    /// The first rows, and the others. Where there are [sums](Self::sums), each part would need its own.
    pub(crate) fn split(self, first: usize) -> (Self, Self) {
        let ForwardRows { options, part, training, rows, units, sums, gates, kept, h, c, c_kept } = self;
        let split = |tensor: &'a mut [E]| {
            let width = tensor.len() / rows.max(1);
            tensor.split_at_mut(first * width)
        };
        let [gates, kept, h, c, c_kept] = [gates, kept, h, c, c_kept].map(split);
        let some = |rows, gates, kept, h, c, c_kept| ForwardRows {
            options,
            part,
            training,
            rows,
            units: units.clone(),
            sums,
            gates,
            kept,
            h,
            c,
            c_kept,
        };
        (some(first, gates.0, kept.0, h.0, c.0, c_kept.0), some(rows - first, gates.1, kept.1, h.1, c.1, c_kept.1))
    }
}

/// A row of gates of some units for each row.
#[derive(Clone, Copy)]
pub(crate) struct Sums<'a, E> {
    pub(crate) data: &'a [E],
    /// Elements of each gate, at least as many as there are units.
    pub(crate) units: usize,
    /// Elements from one row to the next.
    pub(crate) stride: usize,
}

/// One row, backward.
pub(crate) struct BackwardRow<'a, E> {
    pub(crate) options: Options<'a, E>,
    pub(crate) part: Part,
    /// The units to compute.
    pub(crate) units: Range<usize>,
    /// Gates, becoming their gradients.
    pub(crate) gates: &'a mut [E],
    /// Pre-activations, or empty where they are not kept.
    pub(crate) kept: &'a [E],
    /// Output of the step before, or empty for zeros.
    pub(crate) h_prev: &'a [E],
    /// The states beside h of this step.
    pub(crate) c: &'a [E],
    /// States beside h of the step before, or empty for zeros.
    pub(crate) c_prev: &'a [E],
    /// Gradient of the output; for cells whose arithmetic reads `h_prev`, becoming that part of its gradient which does not
    /// pass through `R`.
    pub(crate) dh: &'a mut [E],
    /// Gradients of the states beside h, after and before.
    pub(crate) dc: &'a mut [E],
    /// Gradient of the candidate's pre-activation, written in the first half.
    pub(crate) candidate: &'a mut [E],
    /// Gradient of `q`, read in the second half.
    pub(crate) dq: &'a [E],
}

/// The functions that call a cell's kernels.
macro_rules! dispatch {
    ($(($kind:ident $module:ident $($layer:tt)*))*) => {
        impl<E: CpuElement> ForwardRows<'_, E> {
            pub(crate) fn run(self, cell: CellKind, isa: Isa) {
                match (cell, self.options.is_plain()) {
                    $(
                        (CellKind::$kind, true) => isa.run(With(self, $module::$kind, Standard)),
                        (CellKind::$kind, false) => isa.run(With(self, $module::$kind, General)),
                    )*
                }
            }
        }

        impl<E: CpuElement> BackwardRow<'_, E> {
            pub(crate) fn run(self, cell: CellKind, isa: Isa) {
                match (cell, self.options.is_plain()) {
                    $(
                        (CellKind::$kind, true) => isa.run(With(self, $module::$kind, Standard)),
                        (CellKind::$kind, false) => isa.run(With(self, $module::$kind, General)),
                    )*
                }
            }
        }

        /// Whether a step's arithmetic, apart from products, reads `h_prev`.
        pub(crate) const fn reads_h(cell: CellKind) -> bool {
            match cell {
                $(CellKind::$kind => <$module::$kind as StepCell>::READS_H,)*
            }
        }
    };
}
for_each_cell!(dispatch);

/// A row of a cell with its functions known at compile time, or not.
struct With<R, C, F>(R, C, F);

/// The vectors at units `j..j + n` of several blocks of `hidden` elements, the block of each given by its first element.
#[inline(always)]
fn load_all<E: CpuElement, S: Simd<E>, const N: usize>(
    s: S,
    from: &[E],
    count: usize,
    at: impl Fn(usize) -> usize,
    n: usize,
) -> [S::V; N] {
    let mut all = [s.splat(E::zero()); N];
    for i in 0..count {
        all[i] = load(s, from, at(i), n);
    }
    all
}

/// A row of a tensor that may be empty.
#[inline(always)]
fn row_of<E>(tensor: &mut [E], row: usize, width: usize) -> &mut [E] {
    if tensor.is_empty() { tensor } else { &mut tensor[row * width..(row + 1) * width] }
}

impl<E: CpuElement, C: StepCell, F: CellFunctions<E>> Kernel<E> for With<ForwardRows<'_, E>, C, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let With(all, _, functions) = self;
        let ForwardRows { options, part, training, rows, units, sums, gates, kept, h, c, c_kept } = all;
        let unit_functions = Unit { functions, options: &options };
        let (hidden, count) = (options.hidden, C::GATES);
        let peephole = if F::PLAIN { &[][..] } else { options.peephole };
        let keep = (C::NEEDS_INPUTS || !F::PLAIN) && !kept.is_empty();
        let apart = C::SPLIT && options.candidate == CandidateTerm::Apart;
        let gate_width = (count + usize::from(options.candidate != CandidateTerm::Summed)) * hidden;
        for row in 0..rows {
            let (gates, kept) = (row_of(gates, row, gate_width), row_of(kept, row, count * hidden));
            let (c, c_kept) = (row_of(c, row, C::STATES * hidden), row_of(c_kept, row, C::STATES * hidden));
            let h = row_of(h, row, hidden);
            for j in units.clone().step_by(S::LANES) {
                let n = S::LANES.min(units.end - j);
                let at = |gate: usize| column(C::KIND, gate, hidden) + j;
                let (zero, least) = (s.splat(E::zero()), s.splat(least_magnitude()));
                let (a, q) = match sums {
                    None => (
                        load_all(s, gates, count, at, n),
                        if apart { load(s, gates, count * hidden + j, n) } else { zero },
                    ),
                    Some(sums) => {
                        let (data, j) = (&sums.data[row * sums.stride..], j - units.start);
                        (
                            load_all(s, data, count, |gate| column(C::KIND, gate, sums.units) + j, n),
                            if apart { load(s, data, count * sums.units + j, n) } else { zero },
                        )
                    }
                };
                let mut unit = Forward {
                    a,
                    gate: [zero; MOST_GATES],
                    q,
                    apart,
                    h: if C::READS_H { load(s, h, j, n) } else { zero },
                    state: load_all(s, c, C::STATES, |i| i * hidden + j, n),
                    peephole: None,
                };
                if !peephole.is_empty() {
                    unit.peephole = Some(load_all(s, peephole, MOST_PEEPHOLES, |i| i * hidden + j, n));
                }
                let mut first_gate = 0;
                if C::SPLIT && part == Part::Second {
                    // The first half has left the values of all gates but the candidate.
                    first_gate = count - 1;
                    unit.gate = unit.a;
                } else {
                    C::first(s, unit_functions, &mut unit);
                }
                if C::SPLIT && part == Part::First {
                    for gate in 0..count - 1 {
                        if keep {
                            store(s, kept, at(gate), n, unit.a[gate]);
                        }
                        store(s, gates, at(gate), n, unit.gate[gate]);
                    }
                    store(s, gates, count * hidden + j, n, unit.q);
                    continue;
                }
                C::rest(s, unit_functions, &mut unit);
                unit.h = cut(s, unit.h, least);
                if C::STATES == 1 {
                    // Where there are several, they matter in relation to each other.
                    unit.state[0] = cut(s, unit.state[0], least);
                }
                store(s, h, j, n, unit.h);
                for i in 0..C::STATES {
                    store(s, c, i * hidden + j, n, unit.state[i]);
                    if !c_kept.is_empty() {
                        store(s, c_kept, i * hidden + j, n, unit.state[i]);
                    }
                }
                if training {
                    for gate in 0..count {
                        if gate >= first_gate {
                            if keep {
                                store(s, kept, at(gate), n, unit.a[gate]);
                            }
                            store(s, gates, at(gate), n, unit.gate[gate]);
                        }
                    }
                    if apart && sums.is_some() {
                        store(s, gates, count * hidden + j, n, unit.q);
                    }
                }
            }
        }
    }
}

impl<E: CpuElement, C: StepCell, F: CellFunctions<E>> Kernel<E> for With<BackwardRow<'_, E>, C, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let With(row, _, functions) = self;
        let BackwardRow { options, part, units, gates, kept, h_prev, c, c_prev, dh, dc, candidate, dq } = row;
        let unit_functions = Unit { functions, options: &options };
        let (hidden, count, others) = (options.hidden, C::GATES, C::STATES);
        let peephole = if F::PLAIN { &[][..] } else { options.peephole };
        let keep = (C::NEEDS_INPUTS || !F::PLAIN) && !kept.is_empty();
        let apart = C::SPLIT && options.candidate == CandidateTerm::Apart;
        let (zero, least) = (s.splat(E::zero()), s.splat(least_magnitude()));
        for j in units.clone().step_by(S::LANES) {
            let n = S::LANES.min(units.end - j);
            let at = |gate: usize| column(C::KIND, gate, hidden) + j;
            let gate = load_all(s, gates, count, at, n);
            let mut unit = Backward {
                a: if keep { load_all(s, kept, count, at, n) } else { gate },
                gate,
                q: if apart { load(s, gates, count * hidden + j, n) } else { zero },
                apart,
                h_prev: if C::READS_H && !h_prev.is_empty() { load(s, h_prev, j, n) } else { zero },
                state: load_all(s, c, others, |i| i * hidden + j, n),
                state_prev: [zero; MOST_STATES],
                peephole: None,
                dh: cut(s, load(s, dh, j, n), least),
                dstate: load_all(s, dc, others, |i| i * hidden + j, n),
                da: [zero; MOST_GATES],
                dq: if C::SPLIT && part == Part::Second { load(s, dq, j, n) } else { zero },
            };
            for i in 0..others {
                unit.dstate[i] = cut(s, unit.dstate[i], least);
            }
            if !c_prev.is_empty() {
                unit.state_prev = load_all(s, c_prev, others, |i| i * hidden + j, n);
            }
            if !peephole.is_empty() {
                unit.peephole = Some(load_all(s, peephole, MOST_PEEPHOLES, |i| i * hidden + j, n));
            }
            if C::SPLIT && part == Part::First {
                store(s, candidate, j, n, C::candidate_gradient(s, unit_functions, &unit));
                continue;
            }
            C::backward(s, unit_functions, &mut unit);
            if C::READS_H {
                store(s, dh, j, n, unit.dh);
            }
            for i in 0..others {
                store(s, dc, i * hidden + j, n, unit.dstate[i]);
            }
            for gate in 0..count {
                store(s, gates, at(gate), n, unit.da[gate]);
            }
            if apart {
                store(s, gates, count * hidden + j, n, unit.dq);
            }
        }
    }
}
