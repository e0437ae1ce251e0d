//! Which kernels walk through time, and why: the choice between the families.

use std::fmt;

use super::catalog::{self, Exchange, PERSISTENT_TILE, PersistentKernel};
use super::device::{Device, Launch, Properties};
use super::params::SavedGates;
use super::plan::has_second_product;
use crate::cell::{Activation, CellKind};
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::rnn::{RnnDescriptor, RnnShape};

/// Which kernels walk through time.
///
/// In all but [`Step`](Family::Step) one launch walks through all steps of a layer with the recurrent weights resident in
/// registers and shared memory; they differ in how the blocks that share a sequence's state exchange it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// A: one block has all units; shared memory.
    Block,
    /// B: a cluster of blocks (compute capability 9.0 and later); distributed shared memory.
    Cluster,
    /// C: any blocks of the GPU, all resident together; L2.
    Grid,
    /// D: a product and an elementwise kernel every step: any size, every option, any GPU.
    Step,
}

impl Family {
    /// All families, in the order of the design's letters.
    pub const ALL: [Family; 4] = [Family::Block, Family::Cluster, Family::Grid, Family::Step];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Family::Block => "block",
            Family::Cluster => "cluster",
            Family::Grid => "grid",
            Family::Step => "step",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl std::str::FromStr for Family {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Family::ALL
            .into_iter()
            .find(|family| family.name() == s)
            .ok_or_else(|| Error::option("family", "block, cluster, grid or step", s))
    }
}

impl From<Exchange> for Family {
    fn from(exchange: Exchange) -> Self {
        match exchange {
            Exchange::Block => Family::Block,
            Exchange::Cluster => Family::Cluster,
            Exchange::Grid => Family::Grid,
        }
    }
}

/// How a plan chooses the family of a walk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyChoice {
    /// The one that is predicted to be fastest.
    #[default]
    Fastest,
    /// This one where it can take the operator, else the fastest; the plan says which.
    Prefer(Family),
    /// This one, or planning fails and says why.
    Require(Family),
}

/// How one pass of a layer, forward or backward, walks through time.
#[derive(Debug)]
pub(crate) struct Walk<D: Device> {
    pub(crate) family: Family,
    /// Why this family, and why not the others.
    pub(crate) why: String,
    /// Predicted time of a step, nanoseconds, both directions.
    pub(crate) predicted_ns: f64,
    /// The kernel of all steps; none in the step family.
    pub(crate) persistent: Option<Persistent<D>>,
}

/// A persistent kernel with its geometry.
#[derive(Debug)]
pub(crate) struct Persistent<D: Device> {
    pub(crate) kernel: D::Kernel,
    pub(crate) about: PersistentKernel,
    pub(crate) launch: Launch,
    /// Tiles of sequences that a group of blocks works on one after another.
    pub(crate) tiles: u32,
    /// Blocks that the device holds at a time.
    pub(crate) resident_blocks: u32,
}

impl<D: Device> Persistent<D> {
    /// Blocks of the launch.
    pub(crate) fn blocks(&self) -> u32 {
        self.launch.grid.iter().product()
    }

    /// Bytes of the recurrent weights that a block keeps, in registers and shared memory.
    pub(crate) fn resident_bytes(&self) -> u32 {
        self.about.register_bytes + self.about.shared_matrix_bytes
    }
}

impl<D: Device> Walk<D> {
    /// Chooses for the forward or the backward pass.
    pub(crate) fn choose(
        device: &D,
        choice: FamilyChoice,
        descriptor: &RnnDescriptor,
        shape: RnnShape,
        math: &str,
        forward: bool,
    ) -> Result<Self> {
        let properties = device.properties();
        let step = Walk {
            family: Family::Step,
            why: String::new(),
            predicted_ns: step_ns(properties, descriptor, shape, math),
            persistent: None,
        };
        let mut walks = vec![step];
        let mut refusals = Vec::new();
        for exchange in [Exchange::Block, Exchange::Cluster, Exchange::Grid] {
            match find(device, descriptor, shape, math, forward, exchange)? {
                Ok(persistent) => walks.push(Walk {
                    family: exchange.into(),
                    why: String::new(),
                    predicted_ns: persistent_ns(properties, descriptor, &persistent.about, persistent.tiles),
                    persistent: Some(persistent),
                }),
                Err(why) => refusals.push((Family::from(exchange), why)),
            }
        }
        let position = |family| walks.iter().position(|walk: &Walk<D>| walk.family == family);
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
                let fastest = walks
                    .iter()
                    .enumerate()
                    .min_by(|(_, a), (_, b)| a.predicted_ns.total_cmp(&b.predicted_ns))
                    .map_or(0, |(index, _)| index);
                let why =
                    if walks.len() == 1 { "the only family that takes it" } else { "predicted to be the fastest" };
                (fastest, why.to_owned())
            }
        };
        for (other, walk) in walks.iter().enumerate() {
            if other != index {
                why += &format!("; {} {:.0} ns a step", walk.family, walk.predicted_ns);
            }
        }
        for (family, reason) in &refusals {
            why += &format!("; not {family}: {reason}");
        }
        let mut walk = walks.swap_remove(index);
        walk.why = why;
        Ok(walk)
    }
}

/// The persistent kernel of one family that takes an operator, or why there is none.
fn find<D: Device>(
    device: &D,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    math: &str,
    forward: bool,
    exchange: Exchange,
) -> Result<Result<Persistent<D>, String>> {
    let properties = device.properties();
    if let Some(option) = option_only_of_steps(descriptor) {
        return Ok(Err(format!("persistent kernels do not take {option}")));
    }
    let cell = descriptor.cell.spec().name;
    let of_family: Vec<_> = catalog::persistent()
        .into_iter()
        .filter(|k| k.family == exchange && k.forward == forward && k.cell == cell && k.math == math)
        .collect();
    if of_family.is_empty() {
        return Ok(Err(format!("there is no such kernel for {math}")));
    }
    let compute = properties.compute_capability.0 * 10 + properties.compute_capability.1;
    let mut why = String::new();
    for about in of_family {
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
        let kernel = device.kernel(&about.name)?;
        match geometry(device, descriptor, shape, &about, &kernel)? {
            Ok((launch, tiles, resident_blocks)) => {
                return Ok(Ok(Persistent { kernel, about, launch, tiles, resident_blocks }));
            }
            Err(reason) => why = reason,
        }
    }
    Ok(Err(why))
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
fn geometry<D: Device>(
    device: &D,
    descriptor: &RnnDescriptor,
    shape: RnnShape,
    about: &PersistentKernel,
    kernel: &D::Kernel,
) -> Result<Result<Geometry, String>> {
    let properties = device.properties();
    let batch_tiles = shape.batch.div_ceil(PERSISTENT_TILE as usize) as u32;
    let blocks = about.blocks(descriptor.hidden_size as u32);
    let directions = descriptor.num_directions() as u32;
    if about.family == Exchange::Cluster && blocks > properties.max_cluster {
        return Ok(Err(format!("a cluster of {blocks} blocks is over the GPU's {}", properties.max_cluster)));
    }
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
    let mut first = None;
    let mut tiles = 1;
    while tiles <= batch_tiles {
        let launch = at(tiles);
        if about.shared_bytes(tiles) > u64::from(properties.shared_bytes_per_block) {
            break;
        }
        let resident = device.resident_blocks(kernel, &launch)?;
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
            "the GPU cannot hold {blocks} blocks for each of {directions} direction{} and their share of {batch_tiles} tiles of {PERSISTENT_TILE} sequences at once",
            if directions == 1 { "" } else { "s" },
        ))),
    }
}

/// An option that only the step family has, if the operator uses one.
fn option_only_of_steps(descriptor: &RnnDescriptor) -> Option<&'static str> {
    let usual = (0..descriptor.num_directions()).all(|direction| {
        let set = descriptor.activations_of(direction);
        match descriptor.cell {
            CellKind::Rnn => matches!(set.state, Activation::Tanh | Activation::Relu),
            CellKind::Lstm => {
                set.gate == Activation::Sigmoid && set.state == Activation::Tanh && set.output == Activation::Tanh
            }
            CellKind::Gru => set.gate == Activation::Sigmoid && set.state == Activation::Tanh,
        }
    });
    if has_second_product(descriptor) {
        return Some(if descriptor.proj_size.is_some() { "a projection" } else { "a reset before the product" });
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
    if descriptor.cell_clip.is_some() || SavedGates::of_training(descriptor) != SavedGates::Activated {
        return Some("clips");
    }
    None
}

// The model of DESIGN's section on kernels: estimates in clocks of the multiprocessors. None of its constants has been measured.

/// Clocks of everything in a step that nothing below counts.
const OTHER_CLOCKS: f64 = 150.0;
/// Nanoseconds from one launch to the next in a stream that is kept busy.
const LAUNCH_NS: f64 = 2_200.0;

/// Multiply-adds of a multiprocessor in a clock.
fn multiply_adds(math: &str) -> f64 {
    match math {
        "f64" => 64.0,
        "f32" => 128.0,
        "tf32" => 635.0,
        _ => 1_270.0,
    }
}

fn element_bytes(math: &str) -> f64 {
    match math {
        "f64" => DType::F64.size() as f64,
        "f32" | "tf32" => DType::F32.size() as f64,
        _ => DType::F16.size() as f64,
    }
}

fn nanoseconds(properties: &Properties, clocks: f64) -> f64 {
    clocks * 1e6 / f64::from(properties.clock_khz.max(1))
}

/// A step of a persistent kernel, nanoseconds.
fn persistent_ns(properties: &Properties, descriptor: &RnnDescriptor, about: &PersistentKernel, tiles: u32) -> f64 {
    let (gates, hidden) = (descriptor.cell.gates() as f64, descriptor.hidden_size.next_multiple_of(32) as f64);
    let (units, tile) = (f64::from(about.units).min(hidden), f64::from(PERSISTENT_TILE));
    let product = gates * units * hidden * tile / multiply_adds(about.math);
    let shared = f64::from(about.shared_matrix_bytes) / 128.0;
    let functions = units * tile * if descriptor.cell == CellKind::Rnn { 2.0 } else { 10.0 } / 16.0;
    let exchanged = tile * hidden * element_bytes(about.math) * if about.forward { 1.0 } else { gates };
    let (exchange, sync) = match about.family {
        Exchange::Block => (exchanged / 128.0, 60.0),
        Exchange::Cluster => (exchanged / 20.0, 260.0),
        Exchange::Grid => (exchanged / 38.0, 600.0),
    };
    let clocks = f64::from(tiles) * (product.max(shared) + functions + exchange) + sync + OTHER_CLOCKS;
    nanoseconds(properties, clocks)
}

/// A step of the step family, nanoseconds: launches, or the product where that takes longer.
fn step_ns(properties: &Properties, descriptor: &RnnDescriptor, shape: RnnShape, math: &str) -> f64 {
    let launches = if has_second_product(descriptor) { 4.0 } else { 2.0 };
    let rows = (descriptor.cell.gates() * descriptor.hidden_size * descriptor.num_directions()) as f64;
    let products = rows * descriptor.output_size() as f64 * shape.batch as f64;
    let weights = rows * descriptor.output_size() as f64 * element_bytes(math);
    // L2 gives a multiprocessor about 38 bytes a clock; small products keep few of the multiply-adders busy.
    let units = f64::from(properties.multiprocessors.max(1));
    let clocks = (products / (0.4 * multiply_adds(math) * units)).max(weights / (38.0 * units));
    launches * LAUNCH_NS + nanoseconds(properties, clocks)
}
