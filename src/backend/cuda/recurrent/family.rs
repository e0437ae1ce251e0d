//! Choice of the kernel family of the time loop, with its reasons.

use super::super::device::{Device, Launch};
use super::super::images::catalog::{self, Exchange, PersistentKernel};
use super::super::kernel::launch::{Kernel, Params};
use super::super::kernel::params::{
    EndedBackwardParams, EndedForwardParams, PersistentBackwardParams, PersistentForwardParams, SavedGates,
};
use super::super::options::{Family, FamilyChoice};
use super::cell::has_second_product;
use super::cost::{persistent_ns, step_ns};
use crate::cell::Activation;
use crate::error::{Error, Result};
use crate::rnn::{RnnDescriptor, RnnShape};

/// The struct of the kernels that compute all steps in one pass.
pub(crate) trait Persistent: Params {
    /// Whether that is the forward pass.
    const FORWARD: bool;
    /// The struct of the kernel for steps in which whole tiles have ended, and the kernel's name.
    type Ended: Params + std::fmt::Debug;
    /// See `Ended`.
    const ENDED: &str;
}

impl Persistent for PersistentForwardParams {
    const FORWARD: bool = true;
    type Ended = EndedForwardParams;
    const ENDED: &str = "ended_forward";
}

impl Persistent for PersistentBackwardParams {
    const FORWARD: bool = false;
    type Ended = EndedBackwardParams;
    const ENDED: &str = "ended_backward";
}

/// How one pass of a layer, forward or backward, runs its time loop.
#[derive(Debug)]
pub(crate) struct TimeLoop<D: Device, P: Persistent> {
    pub(crate) family: Family,
    /// Why this family, and why not the others.
    pub(crate) why: String,
    /// Predicted time of a step, nanoseconds, both directions.
    pub(crate) predicted_ns: f64,
    /// The kernel of all steps; none in the step family.
    pub(crate) persistent: Option<PersistentLaunch<D, P>>,
}

/// A persistent kernel with its geometry.
#[derive(Debug)]
pub(crate) struct PersistentLaunch<D: Device, P: Persistent> {
    pub(crate) kernel: Kernel<D, P>,
    /// For what `kernel` leaves out where sequences have lengths.
    pub(crate) ended: Kernel<D, P::Ended>,
    pub(crate) about: PersistentKernel,
    pub(crate) launch: Launch,
    /// Tiles of sequences that a group of blocks works on one after another.
    pub(crate) tiles: u32,
    /// Blocks that the device holds at a time.
    pub(crate) resident_blocks: u32,
}

impl<D: Device, P: Persistent> PersistentLaunch<D, P> {
    /// Blocks of the launch.
    pub(crate) fn blocks(&self) -> u32 {
        self.launch.grid.iter().product()
    }

    /// Bytes of the recurrent weights that a block keeps, in registers and shared memory.
    pub(crate) fn resident_bytes(&self) -> u32 {
        self.about.register_bytes + self.about.shared_matrix_bytes
    }
}

impl<D: Device, P: Persistent> TimeLoop<D, P> {
    /// The persistent kernel's entry point; none in the step family.
    pub(crate) fn persistent_name(&self) -> Option<&str> {
        Some(&self.persistent.as_ref()?.about.name)
    }

    /// Chooses for the pass that `P` is of.
    pub(crate) fn choose(
        device: &D,
        choice: FamilyChoice,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        math: &str,
    ) -> Result<Self> {
        let properties = device.properties();
        let step = TimeLoop {
            family: Family::Step,
            why: String::new(),
            predicted_ns: step_ns(properties, descriptor, shape, math),
            persistent: None,
        };
        let mut loops = vec![step];
        let mut refusals = Vec::new();
        for exchange in [Exchange::Block, Exchange::Cluster, Exchange::Grid] {
            match find(device, descriptor, shape, math, exchange)? {
                Ok(persistent) => loops.push(TimeLoop {
                    family: exchange.into(),
                    why: String::new(),
                    predicted_ns: persistent_ns(properties, descriptor, &persistent.about, persistent.tiles),
                    persistent: Some(persistent),
                }),
                Err(why) => refusals.push((Family::from(exchange), why)),
            }
        }
        let position = |family| loops.iter().position(|chosen: &Self| chosen.family == family);
        let refusal = |family| refusals.iter().find(|(f, _)| *f == family).map_or("", |(_, why)| why.as_str());
        let (index, mut why) = match choice {
            FamilyChoice::Require(family) => match position(family) {
                Some(index) => (index, "asked for".to_owned()),
                None => {
                    let why = format!("{}; leave the choice to the plan, or ask for the step family", refusal(family));
                    return Err(Error::unsupported(format!("the {family} family for this operator"), why));
                }
            },
            FamilyChoice::Prefer(family) if position(family).is_some() => {
                (position(family).unwrap_or(0), "preferred".to_owned())
            }
            _ => {
                let fastest = loops
                    .iter()
                    .enumerate()
                    .min_by(|(_, a), (_, b)| a.predicted_ns.total_cmp(&b.predicted_ns))
                    .map_or(0, |(index, _)| index);
                let why =
                    if loops.len() == 1 { "the only family that takes it" } else { "predicted to be the fastest" };
                (fastest, why.to_owned())
            }
        };
        for (other, one) in loops.iter().enumerate() {
            if other != index {
                why += &format!("; {} {:.0} ns a step", one.family, one.predicted_ns);
            }
        }
        for (family, reason) in &refusals {
            why += &format!("; not {family}: {reason}");
        }
        let mut chosen = loops.swap_remove(index);
        chosen.why = why;
        Ok(chosen)
    }
}

/// The persistent kernel of one family that takes an operator, or why there is none.
fn find<D: Device, P: Persistent>(
    device: &D,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    math: &str,
    exchange: Exchange,
) -> Result<Result<PersistentLaunch<D, P>, String>> {
    let properties = device.properties();
    if let Some(option) = option_only_of_steps(descriptor) {
        return Ok(Err(format!("persistent kernels do not take {option}")));
    }
    let cell = descriptor.cell.spec().name;
    let mut of_family: Vec<_> = catalog::persistent()
        .into_iter()
        .filter(|k| k.family == exchange && k.forward == P::FORWARD && k.cell == cell && k.math == math)
        .collect();
    if of_family.is_empty() {
        return Ok(Err(format!("there is no such kernel of the {cell} for {math}")));
    }
    of_family.sort_by_key(|kernel| (kernel.capacity, kernel.tile));
    let compute = properties.compute_capability.0 * 10 + properties.compute_capability.1;
    let mut why = String::new();
    let mut found: Option<PersistentLaunch<D, P>> = None;
    for about in of_family {
        // The smallest that takes it; beside that, where a group would work on several tiles in turn, one of larger tiles.
        if found.as_ref().is_some_and(|one| one.tiles == 1 || about.capacity > one.about.capacity) {
            break;
        }
        let hidden_size = descriptor.hidden_size;
        if hidden_size > about.capacity as usize {
            why = format!("hidden_size {hidden_size} is over {}", about.capacity);
            continue;
        }
        if compute < about.min_compute {
            why = format!("it needs compute capability {}.{}", about.min_compute / 10, about.min_compute % 10);
            continue;
        }
        if let Some(size) = too_large(descriptor, shape) {
            why = size;
            continue;
        }
        let kernel = Kernel::load(device, &about.name)?;
        match geometry(device, descriptor, shape, &about, &kernel)? {
            Ok((launch, tiles, resident_blocks)) => {
                let ended = Kernel::load(device, &format!("{}_{}", P::ENDED, about.element()))?;
                let ns = |about: &PersistentKernel, tiles| persistent_ns(properties, descriptor, about, tiles);
                if found.as_ref().is_none_or(|one| ns(&about, tiles) < ns(&one.about, one.tiles)) {
                    found = Some(PersistentLaunch { kernel, ended, about, launch, tiles, resident_blocks });
                }
            }
            Err(reason) => why = reason,
        }
    }
    Ok(found.ok_or(why))
}

/// A slot of the exchanged vectors must be smaller than 4 GiB.
fn too_large(descriptor: &RnnDescriptor, shape: RnnShape) -> Option<String> {
    let stride = descriptor.hidden_size.next_multiple_of(32);
    let bytes = (shape.batch as u128) * (stride as u128) * 4 * 8;
    (bytes >= 1 << 32).then(|| format!("a step of the batch takes {bytes} bytes"))
}

type Geometry = (Launch, u32, u32);

/// The launch with the fewest tiles a group for which the device holds every block at once; where blocks need not be resident
/// together, with one tile a group if all would not fit in any case.
fn geometry<D: Device, P: Persistent>(
    device: &D,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    about: &PersistentKernel,
    kernel: &Kernel<D, P>,
) -> Result<Result<Geometry, String>> {
    let properties = device.properties();
    let batch_tiles = shape.batch.div_ceil(about.tile as usize) as u32;
    let blocks = about.blocks(descriptor.hidden_size as u32);
    let directions = descriptor.num_directions() as u32;
    if about.family == Exchange::Grid && !properties.cooperative {
        return Ok(Err("the GPU has no cooperative launch".to_owned()));
    }
    let at = |tiles: u32| Launch {
        grid: [blocks, batch_tiles.div_ceil(tiles), directions],
        block: about.threads,
        cluster: if about.family == Exchange::Cluster { blocks } else { 1 },
        cooperative: about.family == Exchange::Grid,
        shared_bytes: about.shared_bytes(tiles).min(u64::from(u32::MAX)) as u32,
    };
    if about.family == Exchange::Cluster {
        match asked(kernel.largest_cluster(device, &at(1)))? {
            Ok(largest) if blocks <= largest => {}
            Ok(largest) => {
                return Ok(Err(format!("a cluster of {blocks} blocks is over the GPU's {largest} of this kernel")));
            }
            Err(why) => return Ok(Err(why)),
        }
    }
    let mut first = None;
    let mut tiles = 1;
    while tiles <= batch_tiles {
        let launch = at(tiles);
        if about.shared_bytes(tiles) > u64::from(properties.shared_bytes_per_block) {
            break;
        }
        let resident = match asked(kernel.resident_blocks(device, &launch))? {
            Ok(resident) => resident,
            Err(why) => return Ok(Err(why)),
        };
        if launch.grid.iter().map(|n| u64::from(*n)).product::<u64>() <= u64::from(resident) {
            return Ok(Ok((launch, tiles, resident)));
        }
        if first.is_none() && resident >= blocks && launch.grid[1] <= 65_535 {
            first = Some((launch, tiles, resident));
        }
        // Groups of equal size: the next count of tiles that makes one group fewer.
        let groups = batch_tiles.div_ceil(tiles);
        if groups == 1 {
            break;
        }
        tiles = batch_tiles.div_ceil(groups - 1).max(tiles + 1);
    }
    match first {
        Some(geometry) if about.family != Exchange::Grid => Ok(Ok(geometry)),
        _ => Ok(Err(format!(
            "the GPU cannot hold {blocks} blocks for each of {directions} direction{} and their share of {batch_tiles} tiles of {} sequences at once",
            if directions == 1 { "" } else { "s" },
            about.tile,
        ))),
    }
}

/// What the driver says of a kernel's occupancy, or why a family is not to be used: drivers refuse the question, rather than answer 0, on
/// small GPUs and parts of GPUs. What else is wrong with the device shows where something runs.
fn asked(answer: Result<u32>) -> Result<Result<u32, String>> {
    match answer {
        Ok(number) => Ok(Ok(number)),
        Err(error @ Error::Driver { .. }) => {
            Ok(Err(format!("the driver does not say how much of it fits the GPU: {error}")))
        }
        Err(error) => Err(error),
    }
}

/// An option that only the step family has, if the operator uses one.
fn option_only_of_steps(descriptor: &RnnDescriptor) -> Option<&'static str> {
    let usual = (0..descriptor.num_directions()).all(|direction| {
        let set = descriptor.activations_of(direction);
        let used = descriptor.cell.spec().functions;
        // Cells without gates have a path for relu.
        let relu = !used.gate && set.state == Activation::Relu;
        (!used.gate || set.gate == Activation::Sigmoid)
            && (!used.state || set.state == Activation::Tanh || relu)
            && (!used.output || set.output == Activation::Tanh)
    });
    if descriptor.heads > 1 {
        return Some("heads");
    }
    if has_second_product(descriptor) {
        return Some(if descriptor.proj_size.is_some() { "a projection" } else { "a second product within a step" });
    }
    if !usual {
        return Some("these activations");
    }
    if descriptor.peepholes {
        return Some("peepholes");
    }
    if descriptor.coupled_input_forget {
        return Some("a coupled forget gate");
    }
    if descriptor.cell_clip.is_some() || SavedGates::needs_inputs(descriptor) {
        return Some("clips");
    }
    None
}
