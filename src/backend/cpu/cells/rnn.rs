//! The simple recurrence; equations and derivative as in [`crate::cell::rnn`].

use super::{Backward, CellFunctions, Forward, StepCell, Unit};
use crate::backend::cpu::CpuElement;
use crate::cell::CellKind;
use crate::simd::Simd;

pub(super) struct Rnn;

impl StepCell for Rnn {
    const KIND: CellKind = CellKind::Rnn;
    const READS_H: bool = false;

    #[inline(always)]
    fn rest<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Forward<S::V>) {
        unit.gate[0] = f.state(s, unit.a[0]);
        unit.h = unit.gate[0];
    }

    #[inline(always)]
    fn backward<E: CpuElement, S: Simd<E>, F: CellFunctions<E>>(s: S, f: Unit<'_, E, F>, unit: &mut Backward<S::V>) {
        unit.da[0] = f.through_state(s, unit.a[0], unit.gate[0], unit.dh);
    }
}
