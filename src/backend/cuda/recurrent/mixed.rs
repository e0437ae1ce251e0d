//! Mixed precision: a pass whose tensors are floats, computed on copies of them in 16 bits.
//!
//! Rounded are what the tensor cores multiply (weights, inputs, initial states, incoming gradients) and what the kernels hand on
//! from step to step; cell states, gates and all sums are floats, as in a pass on 16-bit tensors. What comes out is widened. Gradients of
//! weights are summed in floats and never rounded. A tensor thus has the bits that the same pass on tensors of 16 bits gives, which
//! `tests/model/mixed_precision.rs` holds it to.
//!
//! Source: [Micikevicius et al. 2018](https://arxiv.org/abs/1710.03740).

use super::super::call::{Raw, RawTensor};
use super::super::device::{Device, DevicePtr};
use super::super::kernel::launch::{Kernel, elementwise};
use super::super::kernel::params::ConvertParams;
use super::copies::{Copied, Mixed};
use super::engine::Engine;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::error::Result;

/// Where a call computes.
struct Call<'a, 'e, D: Device> {
    engine: &'a Engine<'e, D>,
    mixed: &'a Mixed<D>,
}

impl<D: Device> Call<'_, '_, D> {
    fn convert(&self, kernel: &Kernel<D, ConvertParams>, from: DevicePtr, to: DevicePtr, len: usize) -> Result<()> {
        let len = len as u64;
        self.engine.run(kernel, &elementwise(len), &ConvertParams { from, to, len })
    }

    /// The copy of a tensor, in 16 bits.
    fn narrow(&self, from: RawTensor, copied: Copied, base: DevicePtr) -> Result<RawTensor> {
        let to = copied.of(base);
        self.convert(&self.mixed.converters.narrow, from.address, to.address, copied.len)?;
        Ok(to)
    }

    /// The same of one that may be absent.
    fn narrow_some(&self, from: Option<RawTensor>, copied: Copied, base: DevicePtr) -> Result<Option<RawTensor>> {
        from.map(|from| self.narrow(from, copied, base)).transpose()
    }

    /// Brings what stands in copies to the tensors that are wanted.
    fn widen(&self, base: DevicePtr, tensors: &[(Copied, Option<RawTensor>)]) -> Result<()> {
        for (copied, to) in tensors {
            if let Some(to) = to {
                self.convert(&self.mixed.converters.widen, copied.of(base).address, to.address, copied.len)?;
            }
        }
        Ok(())
    }
}

/// The copy of a tensor that is wanted.
fn wanted(tensor: Option<RawTensor>, copied: Copied, base: DevicePtr) -> Option<RawTensor> {
    tensor.map(|_| copied.of(base))
}

pub(super) fn forward<D: Device>(engine: &Engine<'_, D>, mixed: &Mixed<D>, args: &ForwardArgs<'_, Raw>) -> Result<()> {
    let call = Call { engine, mixed };
    let workspace = args.workspace.address;
    let (kept, own) = (engine.kept_in(workspace), &mixed.forward);
    // The states beside h are accumulators, which stay what they are.
    let mut segment = engine.segment;
    if let Some(segment) = segment.as_mut().filter(|segment| segment.start_h != DevicePtr::NULL) {
        let start_h = RawTensor::new(segment.start_h, own.start_h.len);
        segment.start_h = call.narrow(start_h, own.start_h, workspace)?.address;
    }
    let on_copies = Engine { segment, ..*engine };
    on_copies.forward(&ForwardArgs {
        weights: call.narrow(args.weights, mixed.kept.weights, kept)?,
        x: call.narrow(args.x, mixed.kept.x, kept)?,
        h0: call.narrow_some(args.h0, own.h0, workspace)?,
        c0: call.narrow_some(args.c0, mixed.kept.c0, kept)?,
        y: own.y.of(workspace),
        hn: wanted(args.hn, own.hn, workspace),
        cn: wanted(args.cn, own.cn, workspace),
        ..*args
    })?;
    call.widen(workspace, &[(own.y, Some(args.y)), (own.hn, args.hn), (own.cn, args.cn)])
}

pub(super) fn backward_data<D: Device>(
    engine: &Engine<'_, D>,
    mixed: &Mixed<D>,
    args: &BackwardDataArgs<'_, Raw>,
) -> Result<()> {
    let call = Call { engine, mixed };
    let (workspace, reserve, own) = (args.workspace.address, engine.reserve, &mixed.backward_data);
    engine.backward_data(&BackwardDataArgs {
        weights: mixed.kept.weights.of(reserve),
        x: mixed.kept.x.of(reserve),
        c0: wanted(args.c0, mixed.kept.c0, reserve),
        dy: call.narrow_some(args.dy, own.y, workspace)?,
        dhn: call.narrow_some(args.dhn, own.hn, workspace)?,
        dcn: call.narrow_some(args.dcn, own.cn, workspace)?,
        dx: wanted(args.dx, own.x, workspace),
        dh0: wanted(args.dh0, own.h0, workspace),
        dc0: wanted(args.dc0, own.c0, workspace),
        ..*args
    })?;
    call.widen(workspace, &[(own.x, args.dx), (own.h0, args.dh0), (own.c0, args.dc0)])
}

pub(super) fn backward_weights<D: Device>(
    engine: &Engine<'_, D>,
    mixed: &Mixed<D>,
    args: &BackwardWeightsArgs<'_, Raw>,
    grad: WeightGrad,
) -> Result<()> {
    let args = BackwardWeightsArgs {
        x: mixed.kept.x.of(engine.reserve),
        c0: wanted(args.c0, mixed.kept.c0, engine.reserve),
        ..*args
    };
    engine.backward_weights(&args, grad)
}
