//! sLSTM; equations and derivative as in [`crate::cell::slstm`].

use super::{Backward, CellFunctions, Forward, StepCell, Unit, clamp, clamp_gradient, one_minus};
use crate::backend::cpu::CpuElement;
use crate::backend::cpu::activation::{Function, exp_of_negative, sigmoid};
use crate::cell::{Activation, CellKind};
use crate::rnn::ForgetGate;
use crate::simd::Simd;

pub(super) struct Slstm;

// Positions in `CellSpec::gates`.
const I: usize = 0;
const F: usize = 1;
const Z: usize = 2;
const O: usize = 3;

/// What of both sides of the maximum is needed: `l + m_prev`, and `a_i` clamped.
#[inline(always)]
fn sides<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(
    s: S,
    f: Unit<'_, E, Fs>,
    (a_i, a_f): (S::V, S::V),
    m_prev: S::V,
) -> (S::V, S::V) {
    let a_f = clamp(s, a_f, f.gate_clip());
    let log_f = match f.options.forget_gate {
        ForgetGate::Sigmoid => {
            // ln(sigmoid(a)) = -softplus(-a)
            let zero = s.splat(E::zero());
            s.sub(zero, Function::apply(Activation::Softplus, s, s.sub(zero, a_f)))
        }
        ForgetGate::Exponential => a_f,
    };
    (s.add(log_f, m_prev), clamp(s, a_i, f.gate_clip()))
}

/// `v / n` where n is above zero, else zero.
#[inline(always)]
fn over<E: CpuElement, S: Simd<E>>(s: S, v: S::V, n: S::V) -> S::V {
    s.zero_where_less(n, s.splat(E::min_positive_value()), s.div(v, n))
}

impl StepCell for Slstm {
    const KIND: CellKind = CellKind::Slstm;
    const READS_H: bool = false;

    #[inline(always)]
    fn rest<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Forward<S::V>) {
        let [c_prev, n_prev, m_prev] = unit.state;
        let (kept, new) = sides(s, f, (unit.a[I], unit.a[F]), m_prev);
        let m = s.max(kept, new);
        let i = exp_of_negative(s, s.sub(new, m));
        let forget = exp_of_negative(s, s.sub(kept, m));
        let z = f.state(s, unit.a[Z]);
        let o = f.gate(s, unit.a[O]);
        let c = s.mul_add(forget, c_prev, s.mul(i, z));
        let n = s.mul_add(forget, n_prev, i);
        unit.gate = [i, forget, z, o];
        unit.state = [c, n, m];
        unit.h = s.mul(o, over(s, c, n));
    }

    #[inline(always)]
    fn backward<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Backward<S::V>) {
        let [i, forget, z, o] = unit.gate;
        let ([c, n, _], [c_prev, n_prev, m_prev]) = (unit.state, unit.state_prev);
        let u = over(s, c, n);
        let da_o = f.through_gate(s, unit.a[O], o, s.mul(unit.dh, u));
        let du = over(s, s.mul(unit.dh, o), n);
        let dc = s.add(unit.dstate[0], du);
        let dn = s.neg_mul_add(du, u, unit.dstate[1]);
        let di = s.mul(s.mul_add(dc, z, dn), i);
        let df = s.mul(s.mul_add(dc, c_prev, s.mul(dn, n_prev)), forget);
        let dm = s.sub(s.sub(unit.dstate[2], di), df);
        // The maximum's gradient goes to the larger side, and where both are equal to the one that is kept.
        let (kept, new) = sides(s, f, (unit.a[I], unit.a[F]), m_prev);
        let to_kept = s.zero_where_less(kept, new, dm);
        let dl = s.add(df, to_kept);
        let da_i = s.add(di, s.sub(dm, to_kept));
        let da_f = match f.options.forget_gate {
            ForgetGate::Sigmoid => s.mul(dl, one_minus(s, sigmoid(s, clamp(s, unit.a[F], f.gate_clip())))),
            ForgetGate::Exponential => dl,
        };
        unit.da = [
            clamp_gradient(s, unit.a[I], f.gate_clip(), da_i),
            clamp_gradient(s, unit.a[F], f.gate_clip(), da_f),
            f.through_state(s, unit.a[Z], z, s.mul(dc, i)),
            da_o,
        ];
        unit.dstate = [s.mul(dc, forget), s.mul(dn, forget), dl];
    }
}
