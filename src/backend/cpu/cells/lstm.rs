//! Long short-term memory; equations and derivative as in [`crate::cell::lstm`].

use super::{Backward, CellFunctions, Forward, StepCell, Unit, one_minus};
use crate::backend::cpu::CpuElement;
use crate::cell::CellKind;
use crate::simd::Simd;

pub(super) struct Lstm;

// Positions in `CellSpec::gates`.
const I: usize = 0;
const F: usize = 1;
const G: usize = 2;
const O: usize = 3;

impl StepCell for Lstm {
    const KIND: CellKind = CellKind::Lstm;
    const READS_H: bool = false;

    #[inline(always)]
    fn rest<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Forward<S::V>) {
        let c_prev = unit.state[0];
        let Forward { a, gate, .. } = unit;
        if let Some([p_i, p_f, _]) = unit.peephole {
            a[I] = s.mul_add(p_i, c_prev, a[I]);
            a[F] = s.mul_add(p_f, c_prev, a[F]);
        }
        gate[I] = f.gate(s, a[I]);
        gate[F] = if f.coupled() { one_minus(s, gate[I]) } else { f.gate(s, a[F]) };
        gate[G] = f.state(s, a[G]);
        let c = f.clip_cell(s, s.mul_add(gate[F], c_prev, s.mul(gate[I], gate[G])));
        if let Some([_, _, p_o]) = unit.peephole {
            a[O] = s.mul_add(p_o, c, a[O]);
        }
        gate[O] = f.gate(s, a[O]);
        unit.state[0] = c;
        unit.h = s.mul(gate[O], f.output(s, c));
    }

    #[inline(always)]
    fn backward<E: CpuElement, S: Simd<E>, Fs: CellFunctions<E>>(s: S, f: Unit<'_, E, Fs>, unit: &mut Backward<S::V>) {
        let [i, f_gate, g, o] = unit.gate;
        let (c, c_prev, du) = (unit.state[0], unit.state_prev[0], unit.dh);
        let out = f.output(s, c);
        let da_o = f.through_gate(s, unit.a[O], o, s.mul(du, out));
        let slope = f.output_slope(s, c, out);
        let mut dc = s.mul_add(s.mul(du, o), slope, unit.dstate[0]);
        if let Some([_, _, p_o]) = unit.peephole {
            dc = s.mul_add(p_o, da_o, dc);
        }
        let sum = s.mul_add(f_gate, c_prev, s.mul(i, g));
        let ds = f.through_cell_clip(s, sum, dc);
        let df = s.mul(ds, c_prev);
        let mut di = s.mul(ds, g);
        if f.coupled() {
            di = s.sub(di, df);
        }
        let da_i = f.through_gate(s, unit.a[I], i, di);
        let da_f = if f.coupled() { s.splat(E::zero()) } else { f.through_gate(s, unit.a[F], f_gate, df) };
        let da_g = f.through_state(s, unit.a[G], g, s.mul(ds, i));
        let mut dc_prev = s.mul(ds, f_gate);
        if let Some([p_i, p_f, _]) = unit.peephole {
            dc_prev = s.mul_add(p_i, da_i, dc_prev);
            dc_prev = s.mul_add(p_f, da_f, dc_prev);
        }
        unit.dstate[0] = dc_prev;
        unit.da = [da_i, da_f, da_g, da_o];
    }
}
