//! The recurrent operator as launches: plans, and the passes under them.
//!
//! ```text
//! mixed                                         passes on f32 that compute in 16 bits, on `copies`
//! forward, backward_data, backward_weights      the passes, over what they have in common (`engine`)
//! plan                                          what runs for an operator of given sizes: `kernels`; what it says of that: `report`
//! family                                        which kernels run the time loop, and why; how long they should take: `cost`
//! space                                         what stands where in workspace and reserve
//! cell                                          a cell's options as parameters of its kernels
//! ```

mod backward_data;
mod backward_weights;
mod cell;
mod copies;
mod cost;
mod engine;
mod family;
mod forward;
mod kernels;
mod mixed;
mod plan;
mod report;
mod space;

pub(super) use engine::Engine;
pub use plan::CudaPlan;
pub use report::{PersistentReport, ProductReport, TimeLoopReport};

use super::call::Raw;
use super::device::Device;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::error::Result;

/// Forward, in the plan's precision.
pub(super) fn forward<D: Device>(engine: &Engine<'_, D>, args: &ForwardArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::forward(engine, mixed, args),
        None => engine.forward(args),
    }
}

/// Backward-data, in the plan's precision.
pub(super) fn backward_data<D: Device>(engine: &Engine<'_, D>, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::backward_data(engine, mixed, args),
        None => engine.backward_data(args),
    }
}

/// Backward-weights, in the plan's precision.
pub(super) fn backward_weights<D: Device>(
    engine: &Engine<'_, D>,
    args: &BackwardWeightsArgs<'_, Raw>,
    grad: WeightGrad,
) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::backward_weights(engine, mixed, args, grad),
        None => engine.backward_weights(args, grad),
    }
}
