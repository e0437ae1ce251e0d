//! The recurrent operator as launches: plans, and the passes under them.
//!
//! ```text
//! mixed                                         passes on f32 that compute in 16 bits, on `copies`
//! forward, backward_data, backward_weights      the passes, over what they have in common (`engine`)
//! segments                                      passes over segments, where training keeps checkpoints over time
//! plan                                          what runs for an operator of given sizes: `kernels`; what it says of that: `report`
//! products                                      its matrix products with their sizes
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
mod products;
mod report;
mod segments;
mod space;

pub(super) use engine::Engine;
pub use plan::CudaPlan;
pub use report::{PersistentReport, ProductReport, TimeLoopReport};

use super::call::Raw;
use super::device::Device;
use crate::backend::{BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, WeightGrad};
use crate::error::Result;

/// Forward as the plan says: over segments where training keeps checkpoints, else at once.
pub(super) fn forward<D: Device>(engine: &Engine<'_, D>, args: &ForwardArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.checkpoints {
        Some(own) => segments::forward(engine, own, args),
        None => forward_at_once(engine, args),
    }
}

/// Backward-data as the plan says.
pub(super) fn backward_data<D: Device>(engine: &Engine<'_, D>, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.checkpoints {
        Some(own) => segments::backward_data(engine, own, args),
        None => backward_data_at_once(engine, args),
    }
}

/// Backward-weights as the plan says.
pub(super) fn backward_weights<D: Device>(
    engine: &Engine<'_, D>,
    args: &BackwardWeightsArgs<'_, Raw>,
    grad: WeightGrad,
) -> Result<()> {
    match &engine.plan.checkpoints {
        Some(own) => segments::backward_weights(engine, own, args, grad),
        None => backward_weights_at_once(engine, args, grad),
    }
}

/// Forward of all steps, in the plan's precision.
fn forward_at_once<D: Device>(engine: &Engine<'_, D>, args: &ForwardArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::forward(engine, mixed, args),
        None => engine.forward(args),
    }
}

/// Backward-data of all steps, in the plan's precision.
fn backward_data_at_once<D: Device>(engine: &Engine<'_, D>, args: &BackwardDataArgs<'_, Raw>) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::backward_data(engine, mixed, args),
        None => engine.backward_data(args),
    }
}

/// Backward-weights of all steps, in the plan's precision.
fn backward_weights_at_once<D: Device>(
    engine: &Engine<'_, D>,
    args: &BackwardWeightsArgs<'_, Raw>,
    grad: WeightGrad,
) -> Result<()> {
    match &engine.plan.mixed {
        Some(mixed) => mixed::backward_weights(engine, mixed, args, grad),
        None => engine.backward_weights(args, grad),
    }
}
