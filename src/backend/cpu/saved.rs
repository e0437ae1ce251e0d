//! What training keeps from forward to backward: the parts of a reserve.

use super::geometry::{Geometry, SavedLen, take};
use super::sequences::Rows;
use crate::backend::cpu::CpuElement;

/// The parts of a reserve: what each layer and direction saves, then the outputs of every layer below another.
pub(super) struct Kept<'a, E> {
    pub(super) saved: &'a mut [E],
    /// `[layers - 1]` times [`Geometry::between_len`]: the output as it is, then with dropout.
    pub(super) between: &'a mut [E],
}

impl<'a, E: CpuElement> Kept<'a, E> {
    pub(super) fn new(mut storage: &'a mut [E], geometry: &Geometry) -> Self {
        let saved = take(&mut storage, geometry.layers * geometry.directions * geometry.saved().total());
        let between = take(&mut storage, (geometry.layers - 1) * geometry.between_len());
        Kept { saved, between }
    }

    /// What a layer saves in one direction.
    pub(super) fn saved(&mut self, geometry: &Geometry, layer: usize, direction: usize) -> Saved<'_, E> {
        let len = geometry.saved();
        let start = (layer * geometry.directions + direction) * len.total();
        Saved::new(&mut self.saved[start..start + len.total()], &len)
    }
}

/// The output of the layer below `layer`, as `layer` sees it: with dropout, if there is any.
pub(super) fn input_of<'a, E: CpuElement>(geometry: &Geometry, between: &'a [E], layer: usize) -> Rows<'a, E> {
    let end = layer * geometry.between_len();
    Rows::inner(&between[end - geometry.outputs_len()..end], geometry.features())
}

/// The output of `layer` as it is.
pub(super) fn output_of<'a, E: CpuElement>(geometry: &Geometry, between: &'a [E], layer: usize) -> Rows<'a, E> {
    let start = layer * geometry.between_len();
    Rows::inner(&between[start..start + geometry.outputs_len()], geometry.features())
}

/// What training keeps of one layer and direction; parts that the cell has not are empty.
pub(super) struct Saved<'a, E> {
    /// `[T, B, gate_width]`; see [`super::cells`].
    pub(super) gates: &'a mut [E],
    /// The states beside h after each step, `[T, B, (S - 1) * H]`.
    pub(super) cells: &'a mut [E],
    /// Pre-activations, `[T, B, gate_rows]`.
    pub(super) inputs: &'a mut [E],
    /// Output before its projection, `[T, B, H]`.
    pub(super) unprojected: &'a mut [E],
    /// Gradient of the projected output, `[T, B, P]`; written backward.
    pub(super) projected_gradient: &'a mut [E],
}

impl<'a, E: CpuElement> Saved<'a, E> {
    pub(super) fn new(mut storage: &'a mut [E], len: &SavedLen) -> Self {
        Saved {
            gates: take(&mut storage, len.gates),
            cells: take(&mut storage, len.cells),
            inputs: take(&mut storage, len.inputs),
            unprojected: take(&mut storage, len.unprojected),
            projected_gradient: take(&mut storage, len.projected_gradient),
        }
    }
}
