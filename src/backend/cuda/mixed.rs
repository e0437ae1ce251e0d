//! Mixed precision: a pass whose tensors are floats, computed on copies of them in 16 bits.
//!
//! Rounded are what the tensor cores multiply (weights, inputs, initial states, incoming gradients) and what the kernels hand on
//! from step to step; cell states, gates and all sums are floats, as in a pass on 16-bit tensors. What comes out is widened. Gradients of
//! weights are summed in floats and never rounded. A tensor thus has the bits that the same pass on tensors of 16 bits gives, which
//! `tests/mixed_precision.rs` holds it to.
//!
//! Source: [Micikevicius et al. 2018](https://arxiv.org/abs/1710.03740).

use super::call::{Raw, RawTensor};
use super::device::{Device, DevicePtr};
use super::engine::Engine;
use super::launch::Kernel;
use super::params::ConvertParams;
use super::space::{Arena, Place};
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::dtype::DType;
use crate::error::Result;
use crate::rnn::{TensorShapes, WeightLayout};

/// What operands of f32 products are rounded to before they are multiplied. Sums are floats whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compute {
    /// Not at all; of another element type too.
    #[default]
    Exact,
    /// To tf32, 10 bits of mantissa and f32's range: tensors stay as they are, products use the tensor cores.
    Tf32,
    /// Mixed precision in bf16, 7 bits of mantissa and f32's range: recurrent passes and
    /// [single products](crate::backend::ops::MatMul) compute on copies in bf16; weights, gradients of weights, everything between layers,
    /// norms, losses, batches of products (those of attention) and optimizers stay f32.
    Bf16,
    /// The same in f16, 10 bits of mantissa but numbers from 6e-8 to 65504 alone: train with a
    /// [scaled loss](crate::model::LossScale), as models do by themselves.
    F16,
}

impl Compute {
    /// The elements of a pass on tensors of `dtype`, and how they are multiplied.
    pub(super) fn of(self, dtype: DType) -> (DType, &'static str) {
        match (self, dtype) {
            (Compute::Tf32, DType::F32) => (DType::F32, "tf32"),
            (Compute::Bf16, DType::F32) => (DType::Bf16, "bf16"),
            (Compute::F16, DType::F32) => (DType::F16, "f16"),
            _ => (dtype, dtype.name()),
        }
    }
}

/// The kernels between floats and 16 bits.
#[derive(Debug)]
pub(super) struct Converters<D: Device> {
    pub narrow: Kernel<D, ConvertParams>,
    widen: Kernel<D, ConvertParams>,
}

impl<D: Device> Converters<D> {
    /// Those of a type of 16 bits.
    pub fn load(device: &D, dtype: DType) -> Result<Self> {
        Ok(Converters { narrow: Kernel::of(device, "narrow", dtype)?, widen: Kernel::of(device, "widen", dtype)? })
    }
}

/// A tensor's copy: its place, and its elements.
#[derive(Clone, Copy, Debug, Default)]
struct Copied {
    place: Place,
    len: usize,
}

impl Copied {
    fn take(arena: &mut Arena, name: &str, shape: &[usize], size: usize) -> Result<Self> {
        Ok(Copied { place: arena.take(name, shape, size)?, len: shape.iter().product() })
    }

    /// It, in a workspace or reserve.
    fn of(self, base: DevicePtr) -> RawTensor {
        RawTensor::new(self.place.of(base), self.len)
    }
}

/// Copies that backward reads too: in the reserve for training, in the workspace for inference.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    weights: Copied,
    x: Copied,
    c0: Copied,
}

impl Kept {
    /// Takes their places.
    pub fn new(arena: &mut Arena, tensors: &TensorShapes, weights: &WeightLayout, size: usize) -> Result<Self> {
        Ok(Kept {
            weights: Copied::take(arena, "weights in 16 bits", &[weights.len()], size)?,
            x: Copied::take(arena, "x in 16 bits", &tensors.x, size)?,
            c0: Copied::take(arena, "c0 in 16 bits", &tensors.c, size)?,
        })
    }
}

/// Copies of a call's other tensors, in the workspace: `y`, `hn`, `cn` and `h0` in forward; in backward-data the gradients of the first
/// three, and those of `x`, `h0`, `c0`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passing {
    y: Copied,
    hn: Copied,
    cn: Copied,
    x: Copied,
    h0: Copied,
    c0: Copied,
}

impl Passing {
    /// Takes their places, after what the pass itself has there.
    pub fn new(arena: &mut Arena, tensors: &TensorShapes, backward: bool, size: usize) -> Result<Self> {
        let mut take = |name: &str, shape: &[usize; 3]| Copied::take(arena, name, shape, size);
        Ok(Passing {
            y: take("y in 16 bits", &tensors.y)?,
            hn: take("hn in 16 bits", &tensors.h)?,
            cn: take("cn in 16 bits", &tensors.c)?,
            h0: take("h0 in 16 bits", &tensors.h)?,
            x: if backward { take("dx in 16 bits", &tensors.x)? } else { Copied::default() },
            c0: if backward { take("dc0 in 16 bits", &tensors.c)? } else { Copied::default() },
        })
    }
}

/// What a plan for floats that computes in 16 bits has more than one for 16 bits.
#[derive(Debug)]
pub(super) struct Mixed<D: Device> {
    pub converters: Converters<D>,
    pub kept: Kept,
    pub forward: Passing,
    pub backward_data: Passing,
}

/// Where a call computes.
struct Call<'a, 'e, D: Device> {
    engine: &'a Engine<'e, D>,
    mixed: &'a Mixed<D>,
}

impl<D: Device> Call<'_, '_, D> {
    fn convert(&self, kernel: &Kernel<D, ConvertParams>, from: DevicePtr, to: DevicePtr, len: usize) -> Result<()> {
        let len = len as u64;
        self.engine.run(kernel, &super::launch::elementwise(len), &ConvertParams { from, to, len })
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
    engine.forward_elements(&ForwardArgs {
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
    engine.backward_data_elements(&BackwardDataArgs {
        weights: mixed.kept.weights.of(reserve),
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
    engine.backward_weights_elements(&args, grad)
}
