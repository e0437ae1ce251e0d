//! How long sequences may be so that their training fits a memory: [`longest`].

use super::{ForwardMode, RecurrentBackend};
use crate::error::Result;
use crate::rnn::{Memory, RnnDescriptor, RnnShape, WeightLayout};

/// The longest sequences of an operator whose training fits a memory, in steps; 0 where one step does not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Longest {
    /// Under [`Memory::Full`].
    pub full: usize,
    /// With checkpoints.
    pub checkpoints: usize,
    /// The largest distance of checkpoints with which that many steps fit: every half, quarter, eighth … of them.
    pub every: usize,
}

/// The longest sequences of an operator whose training on a backend fits `bytes`: weights, x, y, initial and final states, the gradients
/// of all of these, workspace and reserve. Plans are made, and nothing is allocated or run.
///
/// # Errors
///
/// What [`RecurrentBackend::plan`] returns for one step.
pub fn longest<B: RecurrentBackend>(
    backend: &B,
    descriptor: &RnnDescriptor,
    batch: usize,
    bytes: usize,
) -> Result<Longest> {
    let weights = WeightLayout::new(descriptor)?.len();
    let with = |memory: Memory| RnnDescriptor { memory, ..descriptor.clone() };
    backend.plan(&with(Memory::Full), RnnShape { seq_len: 1, batch }, ForwardMode::Training)?;
    // Sizes that no plan has fit no memory either.
    let fits = |seq_len: usize, memory: Memory| {
        let (descriptor, shape) = (with(memory), RnnShape { seq_len, batch });
        let Ok(plan) = backend.plan(&descriptor, shape, ForwardMode::Training) else { return false };
        let Ok(tensors) = shape.tensors(&descriptor) else { return false };
        let space = backend.temp_space(&plan);
        let pairs = [tensors.x, tensors.y].into_iter().chain([tensors.h, tensors.h, tensors.c, tensors.c]);
        let elements = pairs.fold(weights.saturating_mul(2), |sum, sizes| {
            sum.saturating_add(sizes.iter().product::<usize>().saturating_mul(2))
        });
        let elements = elements.saturating_add(space.workspace).saturating_add(space.reserve);
        elements.saturating_mul(size_of::<B::Elem>()) <= bytes
    };
    let every = |seq_len: usize| {
        let halves = std::iter::successors(Some(seq_len), |every| (*every > 1).then(|| every.div_ceil(2)));
        halves.into_iter().find(|every| fits(seq_len, Memory::Checkpoints { every: *every }))
    };
    let checkpoints = most(|seq_len| every(seq_len).is_some());
    Ok(Longest {
        full: most(|seq_len| fits(seq_len, Memory::Full)),
        checkpoints,
        every: if checkpoints == 0 { 0 } else { every(checkpoints).unwrap_or(checkpoints) },
    })
}

/// The largest number for which a condition holds that holds for all smaller ones.
fn most(holds: impl Fn(usize) -> bool) -> usize {
    let (mut most, mut too_many) = (0, 1);
    while holds(too_many) {
        most = too_many;
        match too_many.checked_mul(2) {
            Some(double) => too_many = double,
            None => return most,
        }
    }
    while too_many - most > 1 {
        let middle = most + (too_many - most) / 2;
        if holds(middle) {
            most = middle;
        } else {
            too_many = middle;
        }
    }
    most
}
