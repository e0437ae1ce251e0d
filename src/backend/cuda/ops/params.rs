//! The parameter structs of the operations' kernels, field by field as in `kernels/params_ops.cuh`, where the meaning of every field
//! stands.

use super::super::device::DevicePtr;
use super::super::kernel::mirrored::mirrored;
use super::super::kernel::params::Activation;
use crate::loss::Loss;

/// `LossKind` of params_ops.cuh, with Huber's `delta`; none where the kernels have no such loss.
pub(crate) fn loss_kind(loss: Loss) -> Option<(u32, f64)> {
    Some(match loss {
        Loss::MeanSquaredError => (0, 0.0),
        Loss::MeanAbsoluteError => (1, 0.0),
        Loss::Huber { delta } => (2, delta),
        Loss::BinaryCrossentropy { from_logits: true } => (3, 0.0),
        Loss::BinaryCrossentropy { from_logits: false } => (4, 0.0),
        Loss::CategoricalCrossentropy { from_logits: true }
        | Loss::SparseCategoricalCrossentropy { from_logits: true } => (5, 0.0),
        Loss::CategoricalCrossentropy { from_logits: false }
        | Loss::SparseCategoricalCrossentropy { from_logits: false } => (6, 0.0),
        _ => return None,
    })
}

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
    #[test]
    fn structs_are_those_of_the_kernels() {
        super::super::super::kernel::mirrored::compare(super::MIRRORED);
    }
}
