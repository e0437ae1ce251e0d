//! Gated recurrent unit; equations and derivative as in [`crate::cell::gru`].

use super::{Backward, CellFunctions, Forward, StepCell, Unit, one_minus};
use crate::backend::cpu::CpuElement;
use crate::cell::CellKind;
use crate::simd::Simd;

pub(super) struct Gru;

// Positions in `CellSpec::gates`.
const R: usize = 0;
const Z: usize = 1;
const N: usize = 2;

impl StepCell for Gru {
    const KIND: CellKind = CellKind::Gru;
    const READS_H: bool = true;

    #[inline(always)]
    fn first<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Forward<S::V>) {
        unit.gate[R] = f.gate(s, unit.a[R]);
        unit.gate[Z] = f.gate(s, unit.a[Z]);
        if !unit.apart {
            unit.q = s.mul(unit.gate[R], unit.h);
        }
    }

    #[inline(always)]
    fn rest<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Forward<S::V>) {
        if unit.apart {
            unit.a[N] = s.mul_add(unit.gate[R], unit.q, unit.a[N]);
        }
        unit.gate[N] = f.state(s, unit.a[N]);
        let (z, n) = (unit.gate[Z], unit.gate[N]);
        unit.h = s.mul_add(z, unit.h, s.mul(one_minus(s, z), n));
    }

    #[inline(always)]
    fn candidate_gradient<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(
        s: S,
        f: Unit<'_, E, F>,
        unit: &Backward<S::V>,
    ) -> S::V {
        f.through_state(s, unit.a[N], unit.gate[N], s.mul(unit.dh, one_minus(s, unit.gate[Z])))
    }

    #[inline(always)]
    fn backward<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Backward<S::V>) {
        let [r, z, n, _] = unit.gate;
        let da_n = Self::candidate_gradient(s, f, unit);
        let da_z = f.through_gate(s, unit.a[Z], z, s.mul(unit.dh, s.sub(unit.h_prev, n)));
        let mut dh_prev = s.mul(unit.dh, z);
        let dr = if unit.apart {
            unit.dq = s.mul(r, da_n);
            s.mul(unit.q, da_n)
        } else {
            dh_prev = s.mul_add(r, unit.dq, dh_prev);
            s.mul(unit.h_prev, unit.dq)
        };
        unit.dh = dh_prev;
        unit.da[R] = f.through_gate(s, unit.a[R], r, dr);
        unit.da[Z] = da_z;
        unit.da[N] = da_n;
    }
}
