//! Mixed precision: a pass whose tensors are floats, computed on copies of them in 16 bits.
//!
//! Rounded are what the tensor cores multiply (weights, inputs, initial states, incoming gradients) and what the kernels hand on
//! from step to step; cell states, gates and all sums are floats, as in a pass on 16-bit tensors. What comes out is widened. Gradients of
//! weights are summed in floats and never rounded. A tensor thus has the bits that the same pass on tensors of 16 bits gives, which
//! `tests/mixed_precision.rs` holds it to.
//!
//! Source: [Micikevicius et al. 2018](https://arxiv.org/abs/1710.03740).

use super::device::{Device, DevicePtr};
use super::engine::{Engine, RawBackwardData, RawBackwardWeights, RawForward};
use super::params::ConvertParams;
use super::space::{Arena, Place};
use crate::backend::WeightGrad;
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
    /// Mixed precision in bf16, 7 bits of mantissa and f32's range: recurrent passes and [`gemm`](crate::backend::DenseBackend::gemm)
    /// compute on copies in bf16; weights, gradients of weights, everything between layers, norms, losses, products of attention and
    /// optimizers stay f32.
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
    pub narrow: D::Kernel,
    widen: D::Kernel,
}

impl<D: Device> Converters<D> {
    /// Those of a type of 16 bits.
    pub fn load(device: &D, dtype: DType) -> Result<Self> {
        let kernel = |name: &str| device.kernel(&format!("{name}_{dtype}"));
        Ok(Converters { narrow: kernel("narrow")?, widen: kernel("widen")? })
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
    fn convert(&self, kernel: &D::Kernel, from: DevicePtr, to: DevicePtr, len: usize) -> Result<()> {
        let len = len as u64;
        self.engine.run(kernel, &super::dense::elementwise(len), &ConvertParams { from, to, len })
    }

    /// The copy of a tensor, in 16 bits; null for one that is absent.
    fn narrow(&self, from: DevicePtr, copied: Copied, base: DevicePtr) -> Result<DevicePtr> {
        if from == DevicePtr::NULL {
            return Ok(from);
        }
        let to = copied.place.of(base);
        self.convert(&self.mixed.converters.narrow, from, to, copied.len)?;
        Ok(to)
    }

    /// Brings what stands in copies to the tensors that are wanted.
    fn widen(&self, base: DevicePtr, tensors: &[(Copied, DevicePtr)]) -> Result<()> {
        for (copied, to) in tensors.iter().filter(|(_, to)| *to != DevicePtr::NULL) {
            self.convert(&self.mixed.converters.widen, copied.place.of(base), *to, copied.len)?;
        }
        Ok(())
    }
}

/// The copy's address of a tensor that is wanted.
fn wanted(tensor: DevicePtr, copied: Copied, base: DevicePtr) -> DevicePtr {
    if tensor == DevicePtr::NULL { tensor } else { copied.place.of(base) }
}

pub(super) fn forward<D: Device>(engine: &Engine<'_, D>, mixed: &Mixed<D>, args: &RawForward) -> Result<()> {
    let call = Call { engine, mixed };
    let (workspace, kept) = (args.workspace, engine.kept_in(args.workspace, args.reserve));
    let own = &mixed.forward;
    engine.forward_elements(&RawForward {
        weights: call.narrow(args.weights, mixed.kept.weights, kept)?,
        x: call.narrow(args.x, mixed.kept.x, kept)?,
        h0: call.narrow(args.h0, own.h0, workspace)?,
        c0: call.narrow(args.c0, mixed.kept.c0, kept)?,
        y: wanted(args.y, own.y, workspace),
        hn: wanted(args.hn, own.hn, workspace),
        cn: wanted(args.cn, own.cn, workspace),
        ..*args
    })?;
    call.widen(workspace, &[(own.y, args.y), (own.hn, args.hn), (own.cn, args.cn)])
}

pub(super) fn backward_data<D: Device>(engine: &Engine<'_, D>, mixed: &Mixed<D>, args: &RawBackwardData) -> Result<()> {
    let call = Call { engine, mixed };
    let (workspace, reserve, own) = (args.workspace, args.reserve, &mixed.backward_data);
    engine.backward_data_elements(&RawBackwardData {
        weights: mixed.kept.weights.place.of(reserve),
        c0: wanted(args.c0, mixed.kept.c0, reserve),
        dy: call.narrow(args.dy, own.y, workspace)?,
        dhn: call.narrow(args.dhn, own.hn, workspace)?,
        dcn: call.narrow(args.dcn, own.cn, workspace)?,
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
    args: &RawBackwardWeights,
    grad: WeightGrad,
) -> Result<()> {
    let args = RawBackwardWeights {
        x: mixed.kept.x.place.of(args.reserve),
        c0: wanted(args.c0, mixed.kept.c0, args.reserve),
        ..*args
    };
    engine.backward_weights_elements(&args, grad)
}
