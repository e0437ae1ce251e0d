//! A forward step by groups of units: the products of all gates of some units, then their cell, while the sums are in the nearest cache.
//!
//! The time loop of a single sequence that threads divide by units takes the weights in the same groups.
//!
//! For the cells whose gates take one product with `h_prev`, which is all but those with a second one, with heads or with a projection. A group has as many
//! units as a panel of [`gemm`](super::gemm) has columns, and a panel for each gate. The product with the inputs is part of the step as well, unless it
//! was done before for all steps: then the sums begin with its result. Sums are those of [`gemm`](super::gemm) in the same order, so that nothing
//! but the time depends on the path.

use std::ops::Range;

use super::Call;
use super::gemm::amx::{self, TileProduct};
use super::gemm::{self, DirectProduct, DirectSums, Panels, Start, Written};
use super::geometry::Geometry;
use super::products::Room;
use super::steps::Units;
use super::threads::Workers;
use crate::backend::cpu::CpuElement;
use crate::rnn::LayerWeights;
use crate::simd::Isa;
use crate::simd::amx::Tiles;

/// Rows that a step by groups takes at once, at most: their sums stay in the nearest cache.
pub(super) const ROWS_AT_ONCE: usize = 64;

/// Sizes of the groups of a cell.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupSizes {
    /// Units of a group, and how many groups there are.
    pub(crate) units: usize,
    pub(crate) count: usize,
    /// Gates, and those of the product with the state: the last of a row of gates as kept.
    gates: usize,
    state_gates: usize,
    /// Elements of a row of sums: gates and `q`, of a group.
    pub(crate) sums: usize,
    /// What the products run on, unless on vectors.
    tiles: Option<Tiles>,
}

impl GroupSizes {
    /// `None` for cells whose step is not computed by groups of units.
    pub(crate) fn new<E: CpuElement>(g: &Geometry, isa: Isa) -> Option<Self> {
        if g.heads != 1 || g.projected || g.has_second_product() {
            return None;
        }
        let units = 2 * isa.lanes::<E>();
        Some(GroupSizes {
            units,
            count: g.hidden.div_ceil(units),
            gates: g.gate_rows / g.hidden,
            state_gates: g.recurrent().rows / g.hidden,
            sums: g.gate_width / g.hidden * units,
            tiles: isa.tiles().filter(|_| g.on_tiles),
        })
    }

    /// Elements of a `[k, gates]` operand.
    pub(crate) fn packed(&self, k: usize) -> usize {
        // Saturating: a plan with sizes beyond memory is refused, not computed.
        (self.count * self.gates).saturating_mul(self.panel_len(k))
    }

    /// Elements of a panel with `k` rows.
    fn panel_len(&self, k: usize) -> usize {
        if self.tiles.is_some() { amx::panel_len(k) } else { self.units.saturating_mul(k) }
    }

    /// Elements of scratch of a step: the sums of some rows, and on the matrix unit the terms of their inputs and states.
    pub(crate) fn scratch(&self, g: &Geometry) -> usize {
        let rows = g.batch.min(ROWS_AT_ONCE);
        match self.tiles {
            None => rows * self.sums,
            Some(_) => {
                let terms = [g.widest_input, g.output].map(|k| amx::split_len(rows, k));
                rows * self.sums + terms[0].saturating_add(terms[1])
            }
        }
    }
}

/// The weights of a layer and direction in groups of units.
#[derive(Clone, Copy)]
pub(super) struct UnitGroups<'a, E> {
    pub(super) sizes: GroupSizes,
    /// `[group, gate, I, units]`; absent where the product with the inputs was done before.
    inputs: Option<&'a [E]>,
    /// `[group, gate, H, units]`
    state: &'a [E],
    /// `[group, gate or q, units]`
    bias: &'a [E],
    hidden: usize,
}

impl<'a, E: CpuElement> UnitGroups<'a, E> {
    /// Whether a step takes its inputs, and not their product.
    pub(super) fn take_inputs(&self) -> bool {
        self.inputs.is_some()
    }

    /// The units of a group.
    pub(super) fn units(&self, group: usize) -> Range<usize> {
        let first = group * self.sizes.units;
        first..self.hidden.min(first + self.sizes.units)
    }

    /// Some groups in the order of step `t`: time loops alternate, and find what the previous step read last still in the cache.
    pub(super) fn order(&self, groups: Range<usize>, t: usize) -> impl Iterator<Item = usize> + use<E> {
        let Range { start, end } = groups;
        (start..end).map(move |group| if t % 2 == 1 { end - 1 - (group - start) } else { group })
    }

    /// The sums of a group for some rows, `[rows, gate or q, units]`: the products of `input`, where a step takes its inputs, and of `state`. Otherwise the
    /// sums hold the product with the inputs.
    pub(super) fn multiply(
        &self,
        isa: Isa,
        group: usize,
        input: &[&[E]],
        state: &[&[E]],
        sums: &mut [E],
        written: [Option<Written<'_, E>>; 2],
    ) {
        let GroupSizes { units, gates, state_gates, sums: stride, count, .. } = self.sizes;
        let product = |rows, weights: &'a [E], first, panels| {
            let len = weights.len() / count;
            DirectProduct { rows, weights: &weights[group * len..][..len], first, panels }
        };
        isa.run(DirectSums {
            products: [
                self.inputs.map(|inputs| product(input, inputs, 0, gates)),
                Some(product(state, self.state, stride / units - state_gates, state_gates)),
            ],
            bias: &self.bias[group * stride..][..stride],
            held: if self.take_inputs() { 0 } else { gates },
            sums,
            rows: state.len(),
            written,
        });
    }
}

/// Inputs and states of some rows, in terms for the matrix unit.
#[derive(Clone, Copy)]
pub(super) struct Terms<'a> {
    tiles: Tiles,
    /// Absent where the product with the inputs was done before.
    inputs: Option<(&'a [f32], usize)>,
    states: &'a [f32],
}

impl<'a, E: CpuElement> UnitGroups<'a, E> {
    /// Splits inputs, where a step takes them, and states into terms, if that is what the weights are.
    pub(super) fn split<'o>(&self, input: &[&[E]], state: &[&[E]], out: &'o mut [E]) -> Option<Terms<'o>> {
        let tiles = self.sizes.tiles?;
        let width = input.first().map_or(0, |row| row.len());
        let (inputs, states) =
            out.split_at_mut(if self.take_inputs() { amx::split_len(input.len(), width) } else { 0 });
        Some(Terms {
            tiles,
            inputs: self.take_inputs().then(|| (amx::split_rows(tiles, input, width, inputs), width)),
            states: amx::split_rows(tiles, state, self.hidden, states),
        })
    }

    /// The same as [`multiply`](Self::multiply) on the matrix unit.
    pub(super) fn multiply_terms(
        &self,
        isa: Isa,
        group: usize,
        terms: Terms<'_>,
        sums: &mut [E],
        rows: usize,
        written: [Option<Written<'_, E>>; 2],
    ) {
        let GroupSizes { units, gates, state_gates, sums: stride, count, .. } = self.sizes;
        let product = |rows, weights: &'a [E], k, first, panels| {
            let len = weights.len() / count;
            TileProduct { rows, weights: &weights[group * len..][..len], k, first, panels }
        };
        let inputs = terms.inputs.zip(self.inputs);
        let inputs = inputs.map(|((rows, width), weights)| product(rows, weights, width, 0, gates));
        let states = product(terms.states, self.state, self.hidden, stride / units - state_gates, state_gates);
        let held = if inputs.is_some() { 0 } else { gates };
        let bias = &self.bias[group * stride..][..stride];
        amx::sum_panels((isa, terms.tiles), [inputs, Some(states)], (bias, held), sums, rows, written);
    }
}

impl<E: CpuElement> UnitGroups<'_, E> {
    /// What the sums of some groups start with at step `t` of a single sequence, `[group, gate or q, units]`: the product with the inputs, which `gates` holds
    /// of these groups, and the biases of `q`.
    pub(super) fn begin(&self, groups: Range<usize>, gates: &mut Units<'_, E>, t: usize, sums: &mut [E]) {
        let GroupSizes { units, sums: stride, gates: count, .. } = self.sizes;
        for gate in 0..count {
            let from = gates.block(t, gate).chunks(units);
            for (from, sums) in from.zip(sums.chunks_exact_mut(stride)) {
                sums[gate * units..][..from.len()].copy_from_slice(from);
            }
        }
        for (group, sums) in groups.zip(sums.chunks_exact_mut(stride)) {
            sums[count * units..].copy_from_slice(&self.bias[group * stride..(group + 1) * stride][count * units..]);
        }
    }

    /// `sums += products` of some groups with the state of a single sequence. `scratch` has as many elements as the sums.
    pub(super) fn multiply_row(
        &self,
        isa: Isa,
        groups: Range<usize>,
        state: &[E],
        sums: &mut [E],
        scratch: &mut [E],
        turn: usize,
    ) {
        let GroupSizes { units, sums: stride, state_gates, count, .. } = self.sizes;
        let (len, columns) = (self.state.len() / count, state_gates * units);
        let data = &self.state[groups.start * len..groups.end * len];
        let panels = Panels::new(data, state.len(), groups.len() * columns).at_step(turn);
        let multiply = |c: &mut [E]| {
            gemm::multiply(isa, 0..1, |_| state, panels, c, |_| 0, Start::Add, &mut [], Workers::ONE);
        };
        if columns == stride {
            return multiply(sums);
        }
        // Between the sums of two groups stand those that have no product with the state.
        let some = &mut scratch[..groups.len() * columns];
        for (some, sums) in some.chunks_exact_mut(columns).zip(sums.chunks_exact(stride)) {
            some.copy_from_slice(&sums[stride - columns..]);
        }
        multiply(some);
        for (some, sums) in some.chunks_exact(columns).zip(sums.chunks_exact_mut(stride)) {
            sums[stride - columns..].copy_from_slice(some);
        }
    }

    /// The sums of a group for a single sequence whose step takes its input, `[gate or q, units]`.
    pub(super) fn multiply_row_and_input(&self, isa: Isa, group: usize, input: &[E], state: &[E], sums: &mut [E]) {
        let GroupSizes { units, sums: stride, gates, state_gates, count, .. } = self.sizes;
        let bias = &self.bias[group * stride..][..stride];
        let multiply = |row: &[E], weights: &[E], sums: &mut [E], start| {
            let len = weights.len() / count;
            let panels = Panels::new(&weights[group * len..][..len], row.len(), sums.len());
            gemm::multiply(isa, 0..1, |_| row, panels, sums, |_| 0, start, &mut [], Workers::ONE);
        };
        let (of_gates, of_q) = sums.split_at_mut(gates * units);
        if let Some(weights) = self.inputs {
            multiply(input, weights, of_gates, Start::Bias(bias));
        }
        of_q.copy_from_slice(&bias[gates * units..]);
        multiply(state, self.state, &mut sums[stride - state_gates * units..], Start::Add);
    }
}

impl<E: CpuElement> Call<'_, E> {
    /// Packs `weight_hh` by groups of units; `inputs` are those of [`pack_unit_inputs`](Self::pack_unit_inputs), or absent for steps whose inputs have been
    /// multiplied. `biases` are the rows of [`add_biases`](Self::add_biases), brought to the order of the groups in `bias`.
    pub(super) fn pack_units<'o>(
        &self,
        sizes: GroupSizes,
        weights: &LayerWeights<&[E]>,
        inputs: Option<&'o [E]>,
        out: Room<'o, E>,
        (biases, bias): (&[E], Room<'o, E>),
    ) -> UnitGroups<'o, E> {
        let g = &self.geometry;
        let bias = bias.fill(sizes.count * sizes.sums, |bias| {
            for (group, bias) in bias.chunks_exact_mut(sizes.sums).enumerate() {
                for (bias, of_gate) in bias.chunks_exact_mut(sizes.units).zip(biases.chunks_exact(g.hidden)) {
                    let units = group * sizes.units..g.hidden.min((group + 1) * sizes.units);
                    bias[units.len()..].fill(E::zero());
                    bias[..units.len()].copy_from_slice(&of_gate[units]);
                }
            }
        });
        let first = g.recurrent().row;
        let state = self.pack_gates(sizes, sizes.state_gates, g.hidden, out, |gate, unit| {
            self.used_row(weights.hidden_hidden, first + gate * g.hidden + unit, g.hidden)
        });
        UnitGroups { sizes, inputs, state, bias, hidden: g.hidden }
    }

    /// Packs `weight_ih` by groups of units.
    pub(super) fn pack_unit_inputs<'o>(
        &self,
        sizes: GroupSizes,
        weights: &LayerWeights<&[E]>,
        width: usize,
        out: Room<'o, E>,
    ) -> &'o [E] {
        let g = &self.geometry;
        self.pack_gates(sizes, sizes.gates, width, out, |gate, unit| {
            self.used_row(weights.input_hidden, g.input_row(gate * g.hidden + unit), width)
        })
    }

    /// Packs a `[k, gates]` operand whose columns are those of a gate and a unit.
    fn pack_gates<'s, 'o>(
        &self,
        sizes: GroupSizes,
        gates: usize,
        k: usize,
        out: Room<'o, E>,
        column: impl Fn(usize, usize) -> Option<&'s [E]> + Sync,
    ) -> &'o [E]
    where
        E: 's,
    {
        let hidden = self.geometry.hidden;
        let columns = sizes.count * gates * sizes.units;
        let column = |at: usize| {
            let (panel, unit) = (at / sizes.units, at % sizes.units);
            let unit = panel / gates * sizes.units + unit;
            if unit < hidden { column(panel % gates, unit) } else { None }
        };
        self.pack(sizes.count * gates, sizes.panel_len(k), out, |panels, out: &mut [E]| match sizes.tiles {
            Some(tiles) => amx::pack_columns(tiles, k, columns, panels, column, out),
            None => gemm::pack_columns(self.isa.without_tiles(), k, columns, panels, column, out),
        })
    }
}
