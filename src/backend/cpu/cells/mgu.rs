//! Minimal gated unit; equations and derivative as in [`crate::cell::mgu`].

use super::{Backward, CellFunctions, Forward, StepCell, Unit, one_minus};
use crate::backend::cpu::CpuElement;
use crate::cell::CellKind;
use crate::simd::Simd;

pub(super) struct Mgu;

// Positions in `CellSpec::gates`.
const F: usize = 0;
const N: usize = 1;

impl StepCell for Mgu {
    const KIND: CellKind = CellKind::Mgu;
    const READS_H: bool = true;

    #[inline(always)]
    fn first<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Forward<S::V>) {
        unit.gate[F] = f.gate(s, unit.a[F]);
        unit.q = s.mul(unit.gate[F], unit.h);
    }

    #[inline(always)]
    fn rest<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Forward<S::V>) {
        unit.gate[N] = f.state(s, unit.a[N]);
        let forget = unit.gate[F];
        unit.h = s.mul_add(forget, unit.gate[N], s.mul(one_minus(s, forget), unit.h));
    }

    #[inline(always)]
    fn candidate_gradient<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(
        s: S,
        f: Unit<'_, E, Fs>,
        unit: &Backward<S::V>,
    ) -> S::V {
        f.through_state(s, unit.a[N], unit.gate[N], s.mul(unit.dh, unit.gate[F]))
    }

    #[inline(always)]
    fn backward<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Backward<S::V>) {
        let (forget, n) = (unit.gate[F], unit.gate[N]);
        let df = s.mul_add(unit.dq, unit.h_prev, s.mul(unit.dh, s.sub(n, unit.h_prev)));
        unit.da[N] = Self::candidate_gradient(s, f, unit);
        unit.da[F] = f.through_gate(s, unit.a[F], forget, df);
        unit.dh = s.mul_add(forget, unit.dq, s.mul(unit.dh, one_minus(s, forget)));
    }
}
