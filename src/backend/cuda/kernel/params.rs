//! The kernels' parameter structs, field by field as in `kernels/params.cuh` and `params_ops.cuh`, where the meaning of every field
//! stands. A test compares offsets.

#[cfg(test)]
use std::mem::offset_of;

use bytemuck::{Pod, Zeroable};

use super::super::device::DevicePtr;
use super::launch::Params;
use crate::cell::Activation as Function;
use crate::loss::Loss;

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

/// A field of a struct: its name, its offset and its bytes.
#[cfg(test)]
type Field = (&'static str, usize, usize);

/// Structs as in C, each with its name there and its fields.
macro_rules! mirrored {
    ($($name:ident { $($field:ident: $type:ty),* $(,)? })*) => {
        $(
            #[derive(Clone, Copy, Debug, Pod, Zeroable)]
            #[repr(C)]
            pub(crate) struct $name {
                $(pub(crate) $field: $type,)*
            }

            impl Params for $name {
                const NAME: &'static str = stringify!($name);
            }
        )*

        /// All of them: name, bytes and fields.
        #[cfg(test)]
        const MIRRORED: &[(&str, usize, &[Field])] = &[$((
            stringify!($name),
            size_of::<$name>(),
            &[$((stringify!($field), offset_of!($name, $field), size_of::<$type>())),*],
        )),*];
    };
}

mirrored! {
    // params.cuh
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
    BackwardDirection {
        cell: CellOptions,
        weight_hh: DevicePtr,
        peephole: DevicePtr,
        c0: DevicePtr,
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
        terms: u32,
        m: u32,
        n: u32,
        unused: u32,
    }
    GemmParams {
        problem: [GemmProblem; DIRECTIONS],
        lengths: DevicePtr,
        splits: u32,
        accumulate: u32,
        wide: u32,
        unused: u32,
        alpha: f64,
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
    PersistentForwardParams {
        layer: ForwardParams,
        fault: DevicePtr,
        tiles: u32,
        polls: u32,
    }
    PersistentBackwardParams {
        layer: BackwardParams,
        exchange: [DevicePtr; DIRECTIONS],
        fault: DevicePtr,
        tiles: u32,
        polls: u32,
    }
    // params_ops.cuh
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

#[cfg(all(test, feature = "emulated"))]
mod tests {
    use std::fmt::Write;
    use std::io::Write as _;
    use std::path::Path;
    use std::process::{Command, Stdio};

    use super::MIRRORED;

    /// The C++ compiler is asked where every field stands.
    #[test]
    fn structs_are_those_of_the_kernels() {
        let mut text = String::from("#include \"params_ops.cuh\"\n#include <cstddef>\n");
        for (name, size, fields) in MIRRORED {
            writeln!(text, "static_assert(sizeof({name}) == {size}, \"the size of {name}\");").unwrap();
            for (field, offset, bytes) in *fields {
                let at = format!("offsetof({name}, {field}) == {offset} && sizeof({name}::{field}) == {bytes}");
                writeln!(text, "static_assert({at}, \"{name}::{field}\");").unwrap();
            }
        }
        let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
        let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
        let mut command = Command::new(compiler);
        command.args(["-std=c++17", "-fsyntax-only", "-x", "c++", "-", "-I"]).arg(kernels);
        let mut child = command.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}
