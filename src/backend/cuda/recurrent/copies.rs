//! Where the copies in 16 bits stand that a pass in mixed precision computes on, see `mixed`.

use super::super::call::RawTensor;
use super::super::device::arena::{Arena, Place};
use super::super::device::{Device, DevicePtr};
use super::super::kernel::convert::Converters;
use crate::error::Result;
use crate::rnn::{TensorShapes, WeightLayout};

/// A tensor's copy: its place, and its elements.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Copied {
    place: Place,
    pub(super) len: usize,
}

impl Copied {
    fn take(arena: &mut Arena, name: &str, shape: &[usize], size: usize) -> Result<Self> {
        Ok(Copied { place: arena.take(name, shape, size)?, len: shape.iter().product() })
    }

    /// It, in a workspace or reserve.
    pub(super) fn of(self, base: DevicePtr) -> RawTensor {
        RawTensor::new(self.place.of(base), self.len)
    }
}

/// Copies that backward reads too: in the reserve for training, in the workspace for inference.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept {
    pub weights: Copied,
    pub x: Copied,
    pub c0: Copied,
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

/// Copies of a call's other tensors, in the workspace: `y`, `hn`, `cn`, `h0` and what a segment starts from in forward; in backward-data the
/// gradients of the first three, and those of `x`, `h0`, `c0`.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Passing {
    pub y: Copied,
    pub hn: Copied,
    pub cn: Copied,
    pub x: Copied,
    pub h0: Copied,
    pub c0: Copied,
    pub start_h: Copied,
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
            start_h: if backward { Copied::default() } else { take("the first state in 16 bits", &tensors.h)? },
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
