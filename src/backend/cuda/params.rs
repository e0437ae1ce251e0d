//! The kernels' parameter structs, field by field as in `kernels/params.cuh`, where the meaning of every field stands.

use bytemuck::{Pod, Zeroable};

use super::device::DevicePtr;
use super::launch::Params;
use crate::cell::{Activation as Function, Activations, CellKind};
use crate::loss::Loss;
use crate::rnn::{GruReset, RnnDescriptor};

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
}

impl SavedGates {
    /// What training must keep for an operator's derivatives.
    pub(crate) fn of_training(descriptor: &RnnDescriptor) -> Self {
        let needs_input = |set: Activations| match descriptor.cell {
            CellKind::Rnn => set.state.derivative_needs_input(),
            // The output function's input is the cell state, which is kept anyway.
            CellKind::Lstm | CellKind::Gru => set.gate.derivative_needs_input() || set.state.derivative_needs_input(),
        };
        let any = (0..descriptor.num_directions()).any(|d| needs_input(descriptor.activations_of(d)));
        if any || descriptor.gate_clip.is_some() { SavedGates::PreActivations } else { SavedGates::Activated }
    }
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

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Activation {
    pub(crate) kind: u32,
    pub(crate) unused: u32,
    pub(crate) alpha: f64,
    pub(crate) beta: f64,
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

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct CellOptions {
    pub(crate) gate: Activation,
    pub(crate) state: Activation,
    pub(crate) output: Activation,
    pub(crate) gate_clip: f64,
    pub(crate) cell_clip: f64,
    pub(crate) coupled_input_forget: u32,
    pub(crate) reset_before: u32,
}

impl CellOptions {
    /// Those of one direction.
    pub(crate) fn new(descriptor: &RnnDescriptor, direction: usize) -> Self {
        let set = descriptor.activations_of(direction);
        CellOptions {
            gate: set.gate.into(),
            state: set.state.into(),
            output: set.output.into(),
            gate_clip: descriptor.gate_clip.unwrap_or(f64::INFINITY),
            cell_clip: descriptor.cell_clip.unwrap_or(f64::INFINITY),
            coupled_input_forget: descriptor.coupled_input_forget.into(),
            reset_before: (descriptor.reset == GruReset::Before).into(),
        }
    }
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ForwardDirection {
    pub(crate) cell: CellOptions,
    pub(crate) weight_hh: DevicePtr,
    pub(crate) bias_ih: DevicePtr,
    pub(crate) bias_hh: DevicePtr,
    pub(crate) peephole: DevicePtr,
    pub(crate) h0: DevicePtr,
    pub(crate) c0: DevicePtr,
    pub(crate) gates: DevicePtr,
    pub(crate) recurrent: DevicePtr,
    pub(crate) projected: DevicePtr,
    pub(crate) h_prev: DevicePtr,
    pub(crate) cell_state: DevicePtr,
    pub(crate) q: DevicePtr,
    pub(crate) reset_h: DevicePtr,
    pub(crate) u: DevicePtr,
    pub(crate) y: DevicePtr,
    pub(crate) hn: DevicePtr,
    pub(crate) cn: DevicePtr,
    pub(crate) reverse: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct ForwardParams {
    pub(crate) direction: [ForwardDirection; DIRECTIONS],
    pub(crate) lengths: DevicePtr,
    pub(crate) resets: DevicePtr,
    pub(crate) y_time_stride: u64,
    pub(crate) y_batch_stride: u64,
    pub(crate) seq_len: u32,
    pub(crate) batch: u32,
    pub(crate) hidden_size: u32,
    pub(crate) output_size: u32,
    pub(crate) directions: u32,
    pub(crate) slots: u32,
    pub(crate) rows: u32,
    pub(crate) h_prev_stride: u32,
    pub(crate) save: u32,
    pub(crate) hold: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct StepForwardParams {
    pub(crate) layer: ForwardParams,
    pub(crate) step: u32,
    pub(crate) phase: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BackwardDirection {
    pub(crate) cell: CellOptions,
    pub(crate) weight_hh: DevicePtr,
    pub(crate) peephole: DevicePtr,
    pub(crate) c0: DevicePtr,
    pub(crate) gates: DevicePtr,
    pub(crate) cell_state: DevicePtr,
    pub(crate) q: DevicePtr,
    pub(crate) h_prev: DevicePtr,
    pub(crate) dgates: DevicePtr,
    pub(crate) dy: DevicePtr,
    pub(crate) dhn: DevicePtr,
    pub(crate) dcn: DevicePtr,
    pub(crate) dh: DevicePtr,
    pub(crate) dc: DevicePtr,
    pub(crate) dh_reset: DevicePtr,
    pub(crate) dc_reset: DevicePtr,
    pub(crate) dh_step: DevicePtr,
    pub(crate) du: DevicePtr,
    pub(crate) dq: DevicePtr,
    pub(crate) dh0: DevicePtr,
    pub(crate) dc0: DevicePtr,
    pub(crate) reverse: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BackwardParams {
    pub(crate) direction: [BackwardDirection; DIRECTIONS],
    pub(crate) lengths: DevicePtr,
    pub(crate) resets: DevicePtr,
    pub(crate) dy_time_stride: u64,
    pub(crate) dy_batch_stride: u64,
    pub(crate) seq_len: u32,
    pub(crate) batch: u32,
    pub(crate) hidden_size: u32,
    pub(crate) output_size: u32,
    pub(crate) directions: u32,
    pub(crate) rows: u32,
    pub(crate) h_prev_stride: u32,
    pub(crate) save: u32,
    pub(crate) hold: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct StepBackwardParams {
    pub(crate) layer: BackwardParams,
    pub(crate) step: u32,
    pub(crate) phase: u32,
}

/// A matrix whose rows stand in groups, see params.cuh.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct Rows {
    pub(crate) data: DevicePtr,
    pub(crate) outer_stride: u64,
    pub(crate) inner_stride: u64,
    pub(crate) inner: u32,
    pub(crate) unused: u32,
}

impl Rows {
    /// A matrix whose rows are `stride` elements apart.
    pub(crate) fn plain(data: DevicePtr, stride: usize) -> Self {
        Rows { data, outer_stride: stride as u64, inner_stride: 0, inner: 1, unused: 0 }
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

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct GemmTerm {
    pub(crate) a: Rows,
    pub(crate) b: Rows,
    pub(crate) k: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct GemmProblem {
    pub(crate) term: [GemmTerm; GEMM_TERMS],
    pub(crate) c: Rows,
    pub(crate) terms: u32,
    pub(crate) m: u32,
    pub(crate) n: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct GemmParams {
    pub(crate) problem: [GemmProblem; DIRECTIONS],
    pub(crate) lengths: DevicePtr,
    pub(crate) splits: u32,
    pub(crate) accumulate: u32,
    pub(crate) wide: u32,
    pub(crate) unused: u32,
    pub(crate) alpha: f64,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct SumPartialsParams {
    pub(crate) partial: DevicePtr,
    pub(crate) out: DevicePtr,
    pub(crate) len: u64,
    pub(crate) stride: u64,
    pub(crate) count: u32,
    pub(crate) accumulate: u32,
    pub(crate) alpha: f64,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct BiasGradientParams {
    pub(crate) rows: Rows,
    pub(crate) partial: DevicePtr,
    pub(crate) row_count: u32,
    pub(crate) columns: u32,
    pub(crate) pieces: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct PeepholeGradientParams {
    pub(crate) dgates: DevicePtr,
    pub(crate) cell_state: DevicePtr,
    pub(crate) c0: DevicePtr,
    pub(crate) resets: DevicePtr,
    pub(crate) partial: DevicePtr,
    pub(crate) seq_len: u32,
    pub(crate) batch: u32,
    pub(crate) hidden_size: u32,
    pub(crate) pieces: u32,
    pub(crate) reverse: u32,
    pub(crate) unused: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct DropoutParams {
    pub(crate) x: Rows,
    pub(crate) out: DevicePtr,
    pub(crate) seed: u64,
    pub(crate) threshold: u64,
    pub(crate) scale: f64,
    pub(crate) rows: u32,
    pub(crate) batch: u32,
    pub(crate) features: u32,
    pub(crate) layer: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct PersistentForwardParams {
    pub(crate) layer: ForwardParams,
    pub(crate) status: DevicePtr,
    pub(crate) tiles: u32,
    pub(crate) polls: u32,
}

#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C)]
pub(crate) struct PersistentBackwardParams {
    pub(crate) layer: BackwardParams,
    pub(crate) exchange: [DevicePtr; DIRECTIONS],
    pub(crate) status: DevicePtr,
    pub(crate) tiles: u32,
    pub(crate) polls: u32,
}

// A model's operations.

/// `LossKind` of params_ops.cuh, with Huber's `delta`.
pub(crate) fn loss_kind(loss: Loss) -> (u32, f64) {
    match loss {
        Loss::MeanSquaredError => (0, 0.0),
        Loss::MeanAbsoluteError => (1, 0.0),
        Loss::Huber { delta } => (2, delta),
        Loss::BinaryCrossentropy { from_logits: true } => (3, 0.0),
        Loss::BinaryCrossentropy { from_logits: false } => (4, 0.0),
        Loss::CategoricalCrossentropy { from_logits: true }
        | Loss::SparseCategoricalCrossentropy { from_logits: true } => (5, 0.0),
        Loss::CategoricalCrossentropy { from_logits: false }
        | Loss::SparseCategoricalCrossentropy { from_logits: false } => (6, 0.0),
    }
}

macro_rules! mirrored {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {$(
        #[derive(Clone, Copy, Debug, Pod, Zeroable)]
        #[repr(C)]
        pub(crate) struct $name {
            $(pub(crate) $field: $type,)*
        }

        params!($name);
    )*};
}

macro_rules! params {
    ($($name:ident),* $(,)?) => {$(
        impl Params for $name {
            const NAME: &'static str = stringify!($name);
        }
    )*};
}

params!(
    ForwardParams,
    StepForwardParams,
    PersistentForwardParams,
    BackwardParams,
    StepBackwardParams,
    PersistentBackwardParams,
    GemmParams,
    SumPartialsParams,
    BiasGradientParams,
    PeepholeGradientParams,
    DropoutParams,
);

mirrored! {
    BiasActivationParams {
        f: Activation,
        values: DevicePtr,
        bias: DevicePtr,
        inputs: DevicePtr,
        len: u64,
        columns: u64,
    }
    ActivationGradientParams {
        f: Activation,
        dy: DevicePtr,
        values: DevicePtr,
        dx: DevicePtr,
        len: u64,
    }
    MultiplyParams { a: DevicePtr, b: DevicePtr, out: DevicePtr, len: u64 }
    FillParams { x: DevicePtr, len: u64, value: f64 }
    AdamParams {
        parameters: DevicePtr,
        gradients: DevicePtr,
        m: DevicePtr,
        v: DevicePtr,
        len: u64,
        rate: f64,
        beta_1: f64,
        beta_2: f64,
        epsilon: f64,
        decay: f64,
    }
    AdagradParams {
        parameters: DevicePtr,
        gradients: DevicePtr,
        sums: DevicePtr,
        len: u64,
        rate: f64,
        epsilon: f64,
    }
    SgdParams {
        parameters: DevicePtr,
        gradients: DevicePtr,
        velocity: DevicePtr,
        len: u64,
        rate: f64,
        momentum: f64,
        nesterov: u32,
        unused: u32,
    }
    RmsPropParams {
        parameters: DevicePtr,
        gradients: DevicePtr,
        mean_square: DevicePtr,
        mean: DevicePtr,
        velocity: DevicePtr,
        len: u64,
        rate: f64,
        rho: f64,
        momentum: f64,
        epsilon: f64,
    }
    LossParams {
        targets: DevicePtr,
        predictions: DevicePtr,
        gradient: DevicePtr,
        weights: DevicePtr,
        partial: DevicePtr,
        rows: u64,
        columns: u64,
        delta: f64,
        scale: f64,
        kind: u32,
        sparse: u32,
    }
    FinishLossParams { partial: DevicePtr, status: DevicePtr, scale: f64, weight: f64, count: u32, code: u32 }
    SumOfSquaresParams { x: DevicePtr, partial: DevicePtr, sum: DevicePtr, len: u64, count: u32, unused: u32 }
    ClipParams { x: DevicePtr, sum_of_squares: DevicePtr, len: u64, most: f64 }
    CheckFiniteParams { x: DevicePtr, status: DevicePtr, len: u64, code: u32, unused: u32 }
    GatherParams {
        table: DevicePtr,
        indices: DevicePtr,
        out: DevicePtr,
        status: DevicePtr,
        count: u64,
        width: u64,
        rows: u64,
        code: u32,
        unused: u32,
    }
    ScatterAddParams {
        dtable: DevicePtr,
        indices: DevicePtr,
        dout: DevicePtr,
        status: DevicePtr,
        count: u64,
        width: u64,
        rows: u64,
        by_row: u32,
        accumulate: u32,
        code: u32,
        unused: u32,
    }
    ScaleAddParams { x: DevicePtr, y: DevicePtr, len: u64, alpha: f64, beta: f64 }
    ConvertParams { from: DevicePtr, to: DevicePtr, len: u64 }
    StridedCopyParams {
        from: DevicePtr,
        to: DevicePtr,
        from_stride: [i64; 4],
        to_stride: [i64; 4],
        shape: [u64; 4],
        accumulate: u32,
        unused: u32,
    }
    SumAxisParams {
        x: DevicePtr,
        y: DevicePtr,
        outer: u64,
        count: u64,
        inner: u64,
        alpha: f64,
        lanes: u32,
        accumulate: u32,
    }
    MaxAxisParams {
        x: DevicePtr,
        mask: DevicePtr,
        y: DevicePtr,
        position: DevicePtr,
        outer: u64,
        count: u64,
        inner: u64,
    }
    MaxAxisGradientParams { dy: DevicePtr, position: DevicePtr, dx: DevicePtr, outer: u64, count: u64, inner: u64 }
    ScaleRowsParams {
        factors: DevicePtr,
        x: DevicePtr,
        y: DevicePtr,
        len: u64,
        columns: u64,
        inverse: u32,
        unused: u32,
    }
    SelectRowsParams { mask: DevicePtr, a: DevicePtr, b: DevicePtr, out: DevicePtr, len: u64, columns: u64 }
    SoftmaxParams {
        x: DevicePtr,
        keys: DevicePtr,
        y: DevicePtr,
        rows: u64,
        columns: u64,
        rows_per_key: u64,
        queries: u64,
    }
    SoftmaxGradientParams { y: DevicePtr, dy: DevicePtr, dx: DevicePtr, rows: u64, columns: u64 }
    BatchedGemmParams {
        a: DevicePtr,
        b: DevicePtr,
        c: DevicePtr,
        count: u64,
        alpha: f64,
        m: u32,
        n: u32,
        k: u32,
        accumulate: u32,
    }
    LayerNormParams {
        x: DevicePtr,
        gamma: DevicePtr,
        beta: DevicePtr,
        y: DevicePtr,
        statistics: DevicePtr,
        rows: u64,
        columns: u64,
        epsilon: f64,
    }
    NormGradientParams {
        x: DevicePtr,
        statistics: DevicePtr,
        mean: DevicePtr,
        variance: DevicePtr,
        weights: DevicePtr,
        gamma: DevicePtr,
        dy: DevicePtr,
        dx: DevicePtr,
        dgamma: DevicePtr,
        dbeta: DevicePtr,
        partial: DevicePtr,
        rows: u64,
        columns: u64,
        epsilon: f64,
        pieces: u32,
        accumulate: u32,
    }
    ColumnMomentsParams {
        x: DevicePtr,
        weights: DevicePtr,
        mean: DevicePtr,
        variance: DevicePtr,
        rows: u64,
        columns: u64,
    }
    BatchNormParams {
        x: DevicePtr,
        mean: DevicePtr,
        variance: DevicePtr,
        gamma: DevicePtr,
        beta: DevicePtr,
        y: DevicePtr,
        len: u64,
        columns: u64,
        epsilon: f64,
    }
    MaskNotEqualParams {
        x: DevicePtr,
        mask: DevicePtr,
        rows: u64,
        columns: u64,
        value: f64,
        lanes: u32,
        unused: u32,
    }
    MaskOrderParams {
        mask: DevicePtr,
        rows: DevicePtr,
        inverse: DevicePtr,
        hold: DevicePtr,
        lengths: DevicePtr,
        any: DevicePtr,
        batch: u64,
        steps: u64,
        reverse: u32,
        unused: u32,
    }
    HoldGradientParams { hold: DevicePtr, dy: DevicePtr, dx: DevicePtr, batch: u64, steps: u64, width: u64 }
    IndicesParams { x: DevicePtr, out: DevicePtr, status: DevicePtr, len: u64, rows: u64, code: u32, unused: u32 }
}
