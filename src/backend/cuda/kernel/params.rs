//! The parameter structs of the recurrent passes' kernels, field by field as in `kernels/params.cuh` and
//! `params_gemm.cuh`, where the meaning of every field stands.

use super::super::device::DevicePtr;
use super::mirrored::mirrored;
use crate::cell::Activation as Function;

/// Products that one launch adds up, see [`GemmProblem`].
pub(crate) const GEMM_TERMS: usize = 4;
/// Directions of a layer, at most.
pub(crate) const DIRECTIONS: usize = 2;

/// `SavedGates` of params.cuh: what training keeps of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum SavedGates {
    /// Inference.
    Nothing = 0,
    /// Gate values.
    Activated = 1,
    /// What goes into the clip and the activation.
    PreActivations = 2,
    /// Gate values in 16 bits, see `kernels/saved.cuh`.
    Packed = 3,
}

/// `Phase` of params.cuh: which part of a step a launch computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Phase {
    /// No second product in this step.
    Whole = 0,
    /// Up to the second product.
    First = 1,
    /// The rest.
    Second = 2,
}

impl From<Function> for Activation {
    fn from(function: Function) -> Self {
        let kind = match function {
            Function::Tanh => 0,
            Function::Relu => 1,
            Function::Sigmoid => 2,
            Function::HardSigmoid { .. } => 3,
            Function::Softsign => 4,
            Function::Softplus => 5,
            Function::Elu { .. } => 6,
            Function::Selu => 7,
            Function::LeakyRelu { .. } => 8,
            Function::ThresholdedRelu { .. } => 9,
            Function::ScaledTanh { .. } => 10,
            Function::Affine { .. } => 11,
            Function::Linear => 12,
        };
        let (alpha, beta) = function.constants();
        Activation { kind, unused: 0, alpha: alpha.unwrap_or(0.0), beta: beta.unwrap_or(0.0) }
    }
}

impl Rows {
    /// A matrix whose rows are `stride` elements apart.
    pub(crate) fn plain(data: DevicePtr, stride: usize) -> Self {
        Rows { data, outer_stride: stride as u64, inner_stride: 0, inner: 1, unused: 0 }
    }

    /// The same `rows` rows in groups of one, where they are equally far apart.
    pub(crate) fn ungrouped(self, rows: u32) -> Self {
        let dense = u64::from(self.inner).checked_mul(self.inner_stride) == Some(self.outer_stride);
        let (data, stride) = (self.data, self.inner_stride);
        if self.inner > 1 && (dense || rows <= self.inner) {
            Rows { data, outer_stride: stride, inner_stride: 0, inner: 1, unused: 0 }
        } else {
            self
        }
    }

    /// A `[T, B, features]` tensor as rows in time-major order.
    pub(crate) fn sequences(data: DevicePtr, time_stride: usize, batch_stride: usize, batch: usize) -> Self {
        Rows {
            data,
            outer_stride: time_stride as u64,
            inner_stride: batch_stride as u64,
            inner: batch as u32,
            unused: 0,
        }
    }
}

mirrored! {
    Activation {
        kind: u32,
        unused: u32,
        alpha: f64,
        beta: f64,
    }
    CellOptions {
        gate: Activation,
        state: Activation,
        output: Activation,
        gate_clip: f64,
        cell_clip: f64,
        coupled_input_forget: u32,
        exponential_forget: u32,
    }
    ForwardDirection {
        cell: CellOptions,
        weight_hh: DevicePtr,
        bias_ih: DevicePtr,
        bias_hh: DevicePtr,
        peephole: DevicePtr,
        h0: DevicePtr,
        c0: DevicePtr,
        start_h: DevicePtr,
        start_c: DevicePtr,
        wx: DevicePtr,
        gates: DevicePtr,
        recurrent: DevicePtr,
        projected: DevicePtr,
        h_prev: DevicePtr,
        cell_state: DevicePtr,
        q: DevicePtr,
        reset_h: DevicePtr,
        u: DevicePtr,
        y: DevicePtr,
        hn: DevicePtr,
        cn: DevicePtr,
        reverse: u32,
        unused: u32,
    }
    ForwardParams {
        direction: [ForwardDirection; DIRECTIONS],
        lengths: DevicePtr,
        resets: DevicePtr,
        y_time_stride: u64,
        y_batch_stride: u64,
        seq_len: u32,
        batch: u32,
        hidden_size: u32,
        output_size: u32,
        directions: u32,
        slots: u32,
        rows: u32,
        h_prev_stride: u32,
        save: u32,
        hold: u32,
    }
    StepForwardParams {
        layer: ForwardParams,
        step: u32,
        phase: u32,
    }
    EndedForwardParams {
        layer: ForwardParams,
        reverse: u32,
        tile: u32,
    }
    BackwardDirection {
        cell: CellOptions,
        weight_hh: DevicePtr,
        peephole: DevicePtr,
        c0: DevicePtr,
        start_c: DevicePtr,
        gates: DevicePtr,
        cell_state: DevicePtr,
        q: DevicePtr,
        h_prev: DevicePtr,
        dgates: DevicePtr,
        dy: DevicePtr,
        dhn: DevicePtr,
        dcn: DevicePtr,
        dh: DevicePtr,
        dc: DevicePtr,
        dh_reset: DevicePtr,
        dc_reset: DevicePtr,
        dh_step: DevicePtr,
        du: DevicePtr,
        dq: DevicePtr,
        dh0: DevicePtr,
        dc0: DevicePtr,
        reverse: u32,
        unused: u32,
    }
    BackwardParams {
        direction: [BackwardDirection; DIRECTIONS],
        lengths: DevicePtr,
        resets: DevicePtr,
        dy_time_stride: u64,
        dy_batch_stride: u64,
        seq_len: u32,
        batch: u32,
        hidden_size: u32,
        output_size: u32,
        directions: u32,
        rows: u32,
        h_prev_stride: u32,
        save: u32,
        hold: u32,
        other_states: u32,
    }
    StepBackwardParams {
        layer: BackwardParams,
        step: u32,
        phase: u32,
    }
    EndedBackwardParams {
        layer: BackwardParams,
        slots: u32,
        tile: u32,
    }
    Rows {
        data: DevicePtr,
        outer_stride: u64,
        inner_stride: u64,
        inner: u32,
        unused: u32,
    }
    GemmTerm {
        a: Rows,
        b: Rows,
        k: u32,
        unused: u32,
    }
    GemmProblem {
        term: [GemmTerm; GEMM_TERMS],
        c: Rows,
        bias: DevicePtr,
        terms: u32,
        m: u32,
        n: u32,
        unused: u32,
    }
    GemmParams {
        problem: [GemmProblem; DIRECTIONS],
        lengths: DevicePtr,
        partial: DevicePtr,
        partial_apart: u64,
        a_apart: u64,
        b_apart: u64,
        c_apart: u64,
        alpha: f64,
        problems: u32,
        count: u32,
        splits: u32,
        accumulate: u32,
        wide: u32,
        unused: u32,
    }
    SumPartialsParams {
        partial: DevicePtr,
        out: DevicePtr,
        len: u64,
        stride: u64,
        count: u32,
        accumulate: u32,
        alpha: f64,
    }
    HeadProduct { vector: DevicePtr, weights: DevicePtr, out: DevicePtr }
    HeadProductParams {
        direction: [HeadProduct; DIRECTIONS],
        batch: u32,
        hidden_size: u32,
        head_size: u32,
        gates: u32,
        vector_stride: u32,
        out_stride: u32,
        accumulate: u32,
        unused: u32,
    }
    HeadWeightsParams {
        gradients: Rows,
        vector: Rows,
        partial: DevicePtr,
        lengths: DevicePtr,
        rows: u32,
        batch: u32,
        hidden_size: u32,
        head_size: u32,
        gates: u32,
        pieces: u32,
    }
    GatesParams {
        x: Rows,
        gates: [DevicePtr; DIRECTIONS],
        row_count: u32,
        columns: u32,
        hidden_size: u32,
        slots: u32,
        split: u32,
        unused: u32,
    }
    BiasGradientParams {
        rows: Rows,
        partial: DevicePtr,
        row_count: u32,
        columns: u32,
        pieces: u32,
        unused: u32,
    }
    PeepholeGradientParams {
        dgates: DevicePtr,
        cell_state: DevicePtr,
        c0: DevicePtr,
        start_c: DevicePtr,
        resets: DevicePtr,
        partial: DevicePtr,
        seq_len: u32,
        batch: u32,
        hidden_size: u32,
        pieces: u32,
        reverse: u32,
        unused: u32,
    }
    DropoutParams {
        x: Rows,
        out: DevicePtr,
        seed: u64,
        threshold: u64,
        scale: f64,
        rows: u32,
        batch: u32,
        features: u32,
        layer: u32,
    }
    CopyRowsParams {
        from: Rows,
        to: Rows,
        row_count: u32,
        columns: u32,
        accumulate: u32,
        unused: u32,
    }
    SegmentLengthsParams {
        lengths: DevicePtr,
        out: DevicePtr,
        batch: u32,
        first: u32,
        steps: u32,
        unused: u32,
    }
    HeldRowsParams {
        lengths: DevicePtr,
        state: DevicePtr,
        rows: DevicePtr,
        steps: u32,
        batch: u32,
        columns: u32,
        unused: u32,
    }
    RestartParams {
        resets: DevicePtr,
        lengths: DevicePtr,
        from: DevicePtr,
        to: DevicePtr,
        step: u32,
        batch: u32,
        columns: u32,
        wide: u32,
    }
    PersistentForwardParams {
        layer: ForwardParams,
        weight_ih: [DevicePtr; DIRECTIONS],
        x: DevicePtr,
        x_time_stride: u64,
        x_batch_stride: u64,
        fault: DevicePtr,
        tiles: u32,
        patience: u32,
    }
    PersistentBackwardParams {
        layer: BackwardParams,
        exchange: [DevicePtr; DIRECTIONS],
        fault: DevicePtr,
        tiles: u32,
        patience: u32,
    }
    ConvertParams { from: DevicePtr, to: DevicePtr, len: u64 }
}

#[cfg(all(test, feature = "emulated"))]
mod tests {
    #[test]
    fn structs_are_those_of_the_kernels() {
        super::super::mirrored::compare(super::MIRRORED);
    }
}
