//! The cells' gates on vectors: what happens to a row of pre-activations between two matrix products.
//!
//! Equations and their derivatives are those of [`crate::cell`]. A row of gates holds, in this order, `hidden_size` elements
//! each:
//!
//! | cell | after forward | after backward |
//! |---|---|---|
//! | RNN | `h` | `da` |
//! | LSTM | `i f g o` | `da_i da_f da_g da_o` |
//! | GRU, reset after | `n r z q` | `da_n da_r da_z dq` |
//! | GRU, reset before | `n r z q` | `da_n da_r da_z q` |
//!
//! so that the GRU's operands of `W` (n, r, z) and of `R` (r, z, q) are both in one piece.

use super::activation::{Function, Sigmoid, Tanh, is_standard};
use crate::backend::cpu::CpuElement;
use crate::cell::Activations;
use crate::simd::{Isa, Kernel, Simd, load_part as load, store_part as store};

/// What a cell's loops need to know of the descriptor.
#[derive(Clone, Copy)]
pub(crate) struct Options<'a, E> {
    pub(crate) hidden: usize,
    pub(crate) activations: Activations,
    pub(crate) gate_clip: Option<E>,
    pub(crate) cell_clip: Option<E>,
    /// `[3 * hidden]` or empty.
    pub(crate) peephole: &'a [E],
    pub(crate) coupled: bool,
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

/// One row of the RNN, forward.
pub(crate) struct RnnForward<'a, E> {
    pub(crate) options: Options<'a, E>,
    /// Pre-activations, becoming `h`.
    pub(crate) gates: &'a mut [E],
    /// Pre-activations to keep, or empty.
    pub(crate) kept: &'a mut [E],
    pub(crate) h: &'a mut [E],
}

impl<E: CpuElement> RnnForward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

/// A row with its functions known at compile time, or not.
struct With<R, F>(R, F);

/// Functions looked up in the options.
#[derive(Clone, Copy)]
struct General;

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<RnnForward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let RnnForward { options, gates, kept, h } = self.0;
        let (_, state, _) = self.1.functions(&options);
        let clip = if F::PLAIN { None } else { options.gate_clip };
        for j in (0..options.hidden).step_by(S::LANES) {
            let n = S::LANES.min(options.hidden - j);
            let a = load(s, gates, j, n);
            if !F::PLAIN && !kept.is_empty() {
                store(s, kept, j, n, a);
            }
            let value = state.apply(s, clamp(s, a, clip));
            store(s, gates, j, n, value);
            store(s, h, j, n, value);
        }
    }
}

/// The three functions of a cell.
trait CellFunctions<E: CpuElement>: Copy {
    type Gate: Function<E>;
    type State: Function<E>;
    type Output: Function<E>;
    /// Whether every option that costs something is off.
    const PLAIN: bool;
    fn functions(self, options: &Options<'_, E>) -> (Self::Gate, Self::State, Self::Output);
}

impl<E: CpuElement> CellFunctions<E> for Tanh {
    type Gate = Sigmoid;
    type State = Tanh;
    type Output = Tanh;
    const PLAIN: bool = true;
    #[inline(always)]
    fn functions(self, _: &Options<'_, E>) -> (Sigmoid, Tanh, Tanh) {
        (Sigmoid, Tanh, Tanh)
    }
}

impl<E: CpuElement> CellFunctions<E> for General {
    type Gate = crate::cell::Activation;
    type State = crate::cell::Activation;
    type Output = crate::cell::Activation;
    const PLAIN: bool = false;
    #[inline(always)]
    fn functions(self, options: &Options<'_, E>) -> (Self::Gate, Self::State, Self::Output) {
        (options.activations.gate, options.activations.state, options.activations.output)
    }
}

/// One row of the RNN, backward.
pub(crate) struct RnnBackward<'a, E> {
    pub(crate) options: Options<'a, E>,
    /// `h`, becoming `da`.
    pub(crate) gates: &'a mut [E],
    pub(crate) kept: &'a [E],
    pub(crate) dh: &'a [E],
}

impl<E: CpuElement> RnnBackward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<RnnBackward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let RnnBackward { options, gates, kept, dh } = self.0;
        let (_, state, _) = self.1.functions(&options);
        let clip = if F::PLAIN { None } else { options.gate_clip };
        for j in (0..options.hidden).step_by(S::LANES) {
            let n = S::LANES.min(options.hidden - j);
            let value = load(s, gates, j, n);
            let a = if F::PLAIN || kept.is_empty() { value } else { load(s, kept, j, n) };
            let da = through(s, state, clip, a, value, load(s, dh, j, n));
            store(s, gates, j, n, da);
        }
    }
}

/// One row of the LSTM, forward.
pub(crate) struct LstmForward<'a, E> {
    pub(crate) options: Options<'a, E>,
    /// Pre-activations, becoming gates.
    pub(crate) gates: &'a mut [E],
    /// Pre-activations to keep, `[4 * hidden]`, or empty.
    pub(crate) kept: &'a mut [E],
    /// The cell state, before and after.
    pub(crate) c: &'a mut [E],
    /// The new cell state once more, and a sign that the gates are wanted; empty in inference.
    pub(crate) c_kept: &'a mut [E],
    /// `o * h(c)`
    pub(crate) h: &'a mut [E],
}

impl<E: CpuElement> LstmForward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<LstmForward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let LstmForward { options, gates, kept, c, c_kept, h } = self.0;
        let (gate, state, output) = self.1.functions(&options);
        let hidden = options.hidden;
        let (gate_clip, cell_clip) = if F::PLAIN { (None, None) } else { (options.gate_clip, options.cell_clip) };
        let peephole = if F::PLAIN { &[][..] } else { options.peephole };
        let coupled = !F::PLAIN && options.coupled;
        for j in (0..hidden).step_by(S::LANES) {
            let n = S::LANES.min(hidden - j);
            let c_prev = load(s, c, j, n);
            let mut a_i = load(s, gates, j, n);
            let mut a_f = load(s, gates, hidden + j, n);
            let a_g = load(s, gates, 2 * hidden + j, n);
            let mut a_o = load(s, gates, 3 * hidden + j, n);
            if !peephole.is_empty() {
                a_i = s.mul_add(load(s, peephole, j, n), c_prev, a_i);
                a_f = s.mul_add(load(s, peephole, hidden + j, n), c_prev, a_f);
            }
            let i = gate.apply(s, clamp(s, a_i, gate_clip));
            let f = if coupled { one_minus(s, i) } else { gate.apply(s, clamp(s, a_f, gate_clip)) };
            let g = state.apply(s, clamp(s, a_g, gate_clip));
            let c_new = clamp(s, s.mul_add(f, c_prev, s.mul(i, g)), cell_clip);
            if !peephole.is_empty() {
                a_o = s.mul_add(load(s, peephole, 2 * hidden + j, n), c_new, a_o);
            }
            let o = gate.apply(s, clamp(s, a_o, gate_clip));
            store(s, c, j, n, c_new);
            store(s, h, j, n, s.mul(o, output.apply(s, c_new)));
            if !c_kept.is_empty() {
                store(s, c_kept, j, n, c_new);
                store(s, gates, j, n, i);
                store(s, gates, hidden + j, n, f);
                store(s, gates, 2 * hidden + j, n, g);
                store(s, gates, 3 * hidden + j, n, o);
            }
            if !F::PLAIN && !kept.is_empty() {
                store(s, kept, j, n, a_i);
                store(s, kept, hidden + j, n, a_f);
                store(s, kept, 2 * hidden + j, n, a_g);
                store(s, kept, 3 * hidden + j, n, a_o);
            }
        }
    }
}

/// One row of the LSTM, backward.
pub(crate) struct LstmBackward<'a, E> {
    pub(crate) options: Options<'a, E>,
    /// Gates, becoming their gradients.
    pub(crate) gates: &'a mut [E],
    pub(crate) kept: &'a [E],
    /// Cell state of this step.
    pub(crate) c: &'a [E],
    /// That of the step before, or empty for zeros.
    pub(crate) c_prev: &'a [E],
    /// Gradient of `o * h(c)`.
    pub(crate) dh: &'a [E],
    /// Gradient of the cell state, after and before.
    pub(crate) dc: &'a mut [E],
}

impl<E: CpuElement> LstmBackward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<LstmBackward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let LstmBackward { options, gates, kept, c, c_prev, dh, dc } = self.0;
        let (gate, state, output) = self.1.functions(&options);
        let hidden = options.hidden;
        let (gate_clip, cell_clip) = if F::PLAIN { (None, None) } else { (options.gate_clip, options.cell_clip) };
        let peephole = if F::PLAIN { &[][..] } else { options.peephole };
        let coupled = !F::PLAIN && options.coupled;
        for j in (0..hidden).step_by(S::LANES) {
            let n = S::LANES.min(hidden - j);
            let i = load(s, gates, j, n);
            let f = load(s, gates, hidden + j, n);
            let g = load(s, gates, 2 * hidden + j, n);
            let o = load(s, gates, 3 * hidden + j, n);
            let (a_i, a_f, a_g, a_o) = if F::PLAIN || kept.is_empty() {
                (i, f, g, o)
            } else {
                (
                    load(s, kept, j, n),
                    load(s, kept, hidden + j, n),
                    load(s, kept, 2 * hidden + j, n),
                    load(s, kept, 3 * hidden + j, n),
                )
            };
            let c_new = load(s, c, j, n);
            let c_before = if c_prev.is_empty() { s.splat(E::zero()) } else { load(s, c_prev, j, n) };
            let du = load(s, dh, j, n);
            let out = output.apply(s, c_new);
            let da_o = through(s, gate, gate_clip, a_o, o, s.mul(du, out));
            let slope = output.derivative(s, c_new, out);
            let mut dc_new = s.mul_add(s.mul(du, o), slope, load(s, dc, j, n));
            if !peephole.is_empty() {
                dc_new = s.mul_add(load(s, peephole, 2 * hidden + j, n), da_o, dc_new);
            }
            let sum = s.mul_add(f, c_before, s.mul(i, g));
            let ds = clamp_gradient(s, sum, cell_clip, dc_new);
            let df = s.mul(ds, c_before);
            let mut di = s.mul(ds, g);
            if coupled {
                di = s.sub(di, df);
            }
            let da_i = through(s, gate, gate_clip, a_i, i, di);
            let da_f = if coupled { s.splat(E::zero()) } else { through(s, gate, gate_clip, a_f, f, df) };
            let da_g = through(s, state, gate_clip, a_g, g, s.mul(ds, i));
            let mut dc_before = s.mul(ds, f);
            if !peephole.is_empty() {
                dc_before = s.mul_add(load(s, peephole, j, n), da_i, dc_before);
                dc_before = s.mul_add(load(s, peephole, hidden + j, n), da_f, dc_before);
            }
            store(s, dc, j, n, dc_before);
            store(s, gates, j, n, da_i);
            store(s, gates, hidden + j, n, da_f);
            store(s, gates, 2 * hidden + j, n, da_g);
            store(s, gates, 3 * hidden + j, n, da_o);
        }
    }
}

/// What of a GRU's row is computed at once: everything where the reset comes after the product; where it comes before,
/// the product of the candidate's weights stands between two halves.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum GruPart {
    /// Everything; the reset gate acts on `q = R_n h_prev + b_hn`.
    Whole,
    /// Forward: r, z and `q = r * h_prev`. Backward: `da_n`, `da_z` and what goes to `dh_prev` directly.
    First,
    /// Forward: n and h, after `a_n += R_n q`. Backward: `da_r` and the rest, given `dq = R_n^T da_n`.
    Second,
}

/// One row of the GRU, forward.
pub(crate) struct GruForward<'a, E> {
    pub(crate) options: Options<'a, E>,
    pub(crate) part: GruPart,
    /// Pre-activations and `q`, becoming gates.
    pub(crate) gates: &'a mut [E],
    /// Pre-activations to keep, n r z, or empty.
    pub(crate) kept: &'a mut [E],
    /// The output, before and after.
    pub(crate) h: &'a mut [E],
}

impl<E: CpuElement> GruForward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<GruForward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let GruForward { options, part, gates, kept, h } = self.0;
        let (gate, state, _) = self.1.functions(&options);
        let hidden = options.hidden;
        let clip = if F::PLAIN { None } else { options.gate_clip };
        let keep = !F::PLAIN && !kept.is_empty();
        for j in (0..hidden).step_by(S::LANES) {
            let n = S::LANES.min(hidden - j);
            let h_prev = load(s, h, j, n);
            let mut r = load(s, gates, hidden + j, n);
            let mut z = load(s, gates, 2 * hidden + j, n);
            if part != GruPart::Second {
                if keep {
                    store(s, kept, hidden + j, n, r);
                    store(s, kept, 2 * hidden + j, n, z);
                }
                r = gate.apply(s, clamp(s, r, clip));
                z = gate.apply(s, clamp(s, z, clip));
                store(s, gates, hidden + j, n, r);
                store(s, gates, 2 * hidden + j, n, z);
            }
            if part == GruPart::First {
                store(s, gates, 3 * hidden + j, n, s.mul(r, h_prev));
                continue;
            }
            let mut a_n = load(s, gates, j, n);
            if part == GruPart::Whole {
                a_n = s.mul_add(r, load(s, gates, 3 * hidden + j, n), a_n);
            }
            if keep {
                store(s, kept, j, n, a_n);
            }
            let new = state.apply(s, clamp(s, a_n, clip));
            store(s, gates, j, n, new);
            store(s, h, j, n, s.mul_add(z, h_prev, s.mul(one_minus(s, z), new)));
        }
    }
}

/// One row of the GRU, backward.
pub(crate) struct GruBackward<'a, E> {
    pub(crate) options: Options<'a, E>,
    pub(crate) part: GruPart,
    /// Gates, becoming their gradients.
    pub(crate) gates: &'a mut [E],
    pub(crate) kept: &'a [E],
    /// Output of the step before, or empty for zeros.
    pub(crate) h_prev: &'a [E],
    /// Gradient of the output, becoming that part of `dh_prev` which does not pass through `R`.
    pub(crate) dh: &'a mut [E],
    /// Gradient of `q`, read in the second half.
    pub(crate) dq: &'a [E],
}

impl<E: CpuElement> GruBackward<'_, E> {
    pub(crate) fn run(self, isa: Isa) {
        if self.options.is_plain() { isa.run(With(self, Tanh)) } else { isa.run(With(self, General)) }
    }
}

impl<E: CpuElement, F: CellFunctions<E>> Kernel<E> for With<GruBackward<'_, E>, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, s: S) {
        let GruBackward { options, part, gates, kept, h_prev, dh, dq } = self.0;
        let (gate, state, _) = self.1.functions(&options);
        let hidden = options.hidden;
        let clip = if F::PLAIN { None } else { options.gate_clip };
        let keep = !F::PLAIN && !kept.is_empty();
        for j in (0..hidden).step_by(S::LANES) {
            let n = S::LANES.min(hidden - j);
            let h_before = if h_prev.is_empty() { s.splat(E::zero()) } else { load(s, h_prev, j, n) };
            let gradient = load(s, dh, j, n);
            let r = load(s, gates, hidden + j, n);
            let a_r = if keep { load(s, kept, hidden + j, n) } else { r };
            if part == GruPart::Second {
                let dq = load(s, dq, j, n);
                store(s, gates, hidden + j, n, through(s, gate, clip, a_r, r, s.mul(h_before, dq)));
                store(s, dh, j, n, s.mul_add(r, dq, gradient));
                continue;
            }
            let new = load(s, gates, j, n);
            let z = load(s, gates, 2 * hidden + j, n);
            let (a_n, a_z) = if keep { (load(s, kept, j, n), load(s, kept, 2 * hidden + j, n)) } else { (new, z) };
            let da_n = through(s, state, clip, a_n, new, s.mul(gradient, one_minus(s, z)));
            let da_z = through(s, gate, clip, a_z, z, s.mul(gradient, s.sub(h_before, new)));
            store(s, gates, j, n, da_n);
            store(s, gates, 2 * hidden + j, n, da_z);
            store(s, dh, j, n, s.mul(gradient, z));
            if part == GruPart::Whole {
                let q = load(s, gates, 3 * hidden + j, n);
                store(s, gates, hidden + j, n, through(s, gate, clip, a_r, r, s.mul(q, da_n)));
                store(s, gates, 3 * hidden + j, n, s.mul(r, da_n));
            }
        }
    }
}
