//! A GPU that interprets PTX on the host: the assembly that the kernels are compiled to, instruction by instruction. For tests, and for
//! users without a GPU.
//!
//! Where the emulated GPU runs the kernels' C++ with host versions of their primitives, this one runs what is shipped: its semantics are
//! those of the [PTX ISA](https://docs.nvidia.com/cuda/parallel-thread-execution/) and know nothing of `kernels/`. A launch runs at once, on
//! the calling thread, under the same plans and parameters as on a GPU.
//!
//! What it checks, each a [`FaultKind`] with kernel, line of the PTX, thread and address: alignment; bounds of every allocation, with
//! unallocated space between them; instructions for whole warps; barriers of blocks and clusters, phases and bytes of mbarriers; blocks that end too
//! early; deadlock; shared memory that nothing has written; and data races of the PTX memory model, by vector clocks that know the
//! scopes of accesses and fences. Under a [`Schedule`] other than the natural one asynchronous stores arrive late and in any order, and relaxed
//! loads may be stale.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the device: memory, kernels, launches |
//! | `text` | statements of an entry point |
//! | `decode`, `statements`, `flow` | a program of them: operands and registers; each instruction; where lanes come together again, and registers that share a place |
//! | `instruction` | the form that is executed |
//! | `arithmetic`, `numbers` | instructions on registers alone, as a table; roundings and conversions |
//! | `machine` | blocks that are resident together, and turns of their warps |
//! | `registers`, `warp`, `execute` | registers; diverged lanes, and what a warp waits for and knows; one instruction |
//! | `memory`, `access`, `versions` | addresses; loads, stores, atomic operations, fences; older values of polled words |
//! | `tensor_core` | matrix products, and their fragments |
//! | `barriers`, `mbarrier`, `asynchronous` | barriers; asynchronous stores and copies |
//! | `clock`, `race` | what happened before what; accesses that nothing orders |
//! | `fault`, `random` | what is wrong, and where; seeds |

mod access;
mod arithmetic;
mod asynchronous;
mod barriers;
mod clock;
mod decode;
mod execute;
mod fault;
mod flow;
mod instruction;
mod machine;
mod mbarrier;
mod memory;
mod numbers;
mod race;
mod random;
mod registers;
mod statements;
mod tensor_core;
#[cfg(test)]
mod tests;
mod text;
mod versions;
mod warp;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

pub use fault::FaultKind;

use self::fault::{Fault, Place};
use self::instruction::Program;
use self::machine::{Machine, Spot};
use self::memory::GlobalMemory;
use self::race::Topology;
use self::random::Random;
use self::registers::Registers;
use self::versions::Versions;
use super::super::images::{self, catalog};
use super::{Device, DevicePtr, Launch, Limits, Properties};
use crate::error::{Error, Result};

/// In which order warps run, and what others see of what they do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// 0: warps in their natural order, every store seen at once. Any other: random orders, now and then with a warp that lags as far as the kernel
    /// lets it; asynchronous stores arrive late and in any order; relaxed loads may be stale. Another order for every launch.
    pub seed: u64,
}

/// A GPU that interprets PTX.
pub struct Ptx {
    properties: Properties,
    schedule: Schedule,
    resident_limit: u32,
    launches: AtomicU64,
    /// Kernels that are run instead of those of the same name that the crate has.
    replaced: BTreeMap<String, Arc<Program>>,
    memory: Mutex<GlobalMemory>,
    /// Instructions of warps so far, by kernel.
    executed: Mutex<BTreeMap<String, u64>>,
}

/// A kernel, decoded.
#[derive(Clone)]
pub struct PtxKernel {
    program: Arc<Program>,
    threads: u32,
}

impl std::fmt::Debug for PtxKernel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PtxKernel({}, {} instructions)", self.program.name, self.program.instructions.len())
    }
}

/// What stands for a stream. Launches run when they are given, so there is nothing to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PtxStream;

impl Ptx {
    /// A GPU like the H100 (compute capability 9.0).
    ///
    /// # Errors
    ///
    /// None for this compute capability.
    pub fn new(schedule: Schedule) -> Result<Self> {
        Self::with_compute_capability((9, 0), schedule)
    }

    /// A GPU like the data-centre or desktop GPU of this compute capability, which runs the PTX that such a one would.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a compute capability of which no usual GPU is known.
    pub fn with_compute_capability(compute_capability: (u32, u32), schedule: Schedule) -> Result<Self> {
        let (major, minor) = compute_capability;
        let like = Properties::usual(compute_capability)?;
        Ok(Ptx {
            properties: Properties { name: format!("PTX interpreter of compute capability {major}.{minor}"), ..like },
            schedule,
            resident_limit: 64,
            launches: AtomicU64::new(0),
            replaced: BTreeMap::new(),
            memory: Mutex::default(),
            executed: Mutex::default(),
        })
    }

    /// The same, with at most `blocks` blocks resident together, whatever the number of multiprocessors: 64 unless set here.
    pub fn with_resident_limit(mut self, blocks: u32) -> Self {
        self.resident_limit = blocks.max(1);
        self
    }

    /// The same, but the kernel `name` runs as it stands in `module`: for tests, which change it.
    ///
    /// # Errors
    ///
    /// [`Error::PtxFault`] for text that this interpreter cannot read.
    pub fn with_kernel(mut self, name: &str, module: &str) -> Result<Self> {
        let program = decode::program(module, name).map_err(|fault| unreadable(name, *fault))?;
        self.replaced.insert(name.to_owned(), Arc::new(program));
        Ok(self)
    }

    /// The order in which warps run.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Bytes allocated and not given back.
    pub fn allocated(&self) -> usize {
        self.memory().allocated()
    }

    /// Instructions that warps have executed, and predicated ones that they went past, in all launches of the kernel `name` on this device; waits count
    /// every poll.
    pub fn executed(&self, name: &str) -> u64 {
        self.executed.lock().unwrap_or_else(PoisonError::into_inner).get(name).copied().unwrap_or(0)
    }

    fn limits<'a>(&'a self, kernel: &'a PtxKernel) -> Limits<'a> {
        let PtxKernel { program, threads } = kernel;
        let (properties, resident) = (&self.properties, self.resident_limit);
        Limits { kernel: &program.name, threads: *threads, params_bytes: program.params_bytes, properties, resident }
    }

    fn memory(&self) -> MutexGuard<'_, GlobalMemory> {
        // A panic of another thread leaves at worst unspecified contents.
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The PTX that a GPU of this compute capability runs the entry point `name` from.
///
/// # Errors
///
/// [`Error::Unsupported`] where the catalog has no such entry point, where the GPU is too old for it, or where the build has no PTX for it and
/// libnvrtc cannot be found now.
pub fn source(name: &str, compute_capability: (u32, u32)) -> Result<&'static str> {
    let bytes = images::ptx_for(name, compute_capability)?.bytes()?;
    let text = std::str::from_utf8(bytes)
        .map_err(|error| Error::unsupported(format!("the PTX of {name}"), error.to_string()))?;
    Ok(text.trim_end_matches('\0'))
}

fn unreadable(kernel: &str, fault: Fault) -> Error {
    fault.at(Place { kernel, line: 0, instruction: "", thread: "when it is loaded".to_owned() })
}

/// The catalog by name, and programs that have been decoded: shared by all devices of the process.
static CATALOG: LazyLock<BTreeMap<String, catalog::Entry>> =
    LazyLock::new(|| catalog::entries().into_iter().map(|entry| (entry.name.clone(), entry)).collect());
type Programs = HashMap<(String, (u32, u32)), Arc<Program>>;
static PROGRAMS: LazyLock<Mutex<Programs>> = LazyLock::new(Mutex::default);

fn program(name: &str, compute_capability: (u32, u32)) -> Result<Arc<Program>> {
    let key = (name.to_owned(), compute_capability);
    if let Some(known) = PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return Ok(Arc::clone(known));
    }
    let decoded = decode::program(source(name, compute_capability)?, name).map_err(|fault| unreadable(name, *fault))?;
    let decoded = Arc::new(decoded);
    PROGRAMS.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Arc::clone(&decoded));
    Ok(decoded)
}

impl Device for Ptx {
    type Stream = PtxStream;
    type Kernel = PtxKernel;

    const NAME: &'static str = "ptx";

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn kernel(&self, name: &str) -> Result<PtxKernel> {
        let row = CATALOG.get(name);
        if let Some(program) = self.replaced.get(name) {
            return Ok(PtxKernel { program: Arc::clone(program), threads: row.map_or(0, |row| row.threads) });
        }
        let Some(row) = row else {
            return Err(Error::unsupported(format!("the kernel {name}"), "kernels/catalog.rs has no such entry point"));
        };
        Ok(PtxKernel { program: program(name, self.properties.compute_capability)?, threads: row.threads })
    }

    fn resident_blocks(&self, kernel: &PtxKernel, launch: &Launch) -> Result<u32> {
        Ok(self.limits(kernel).resident_blocks(launch))
    }

    /// Runs the launch to its end; its faults are this call's errors.
    #[allow(unsafe_code, reason = "the trait's; nothing here needs what the caller promises")]
    unsafe fn launch(&self, _: &PtxStream, kernel: &PtxKernel, launch: &Launch, params: &[u8]) -> Result<()> {
        self.limits(kernel).check(launch, params)?;
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let random = Random::new(self.schedule.seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number));
        let launch = &Launch { cluster: launch.cluster.max(1), ..*launch };
        let program = &kernel.program;
        let (_, steps) = run(program, launch, params, &mut self.memory(), random, self.schedule.seed != 0)?;
        *self.executed.lock().unwrap_or_else(PoisonError::into_inner).entry(program.name.clone()).or_default() += steps;
        Ok(())
    }

    #[allow(unsafe_code, reason = "the trait's; addresses are checked")]
    unsafe fn fill(&self, _: &PtxStream, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        if bytes > 0 {
            let mut memory = self.memory();
            memory.slice_mut(to.0, bytes).ok_or_else(|| outside("fill", to, bytes))?.fill(value);
        }
        Ok(())
    }

    fn allocate(&self, what: &str, bytes: usize) -> Result<DevicePtr> {
        if bytes == 0 {
            return Ok(DevicePtr::NULL);
        }
        let address = self.memory().allocate(bytes);
        let too_large = || Error::unsupported(format!("{bytes} bytes for {what}"), "the host has too little memory");
        address.map(DevicePtr).ok_or_else(too_large)
    }

    #[allow(unsafe_code, reason = "the trait's; what was not allocated is left alone")]
    unsafe fn release(&self, pointer: DevicePtr, bytes: usize) {
        self.memory().release(pointer.0, bytes);
    }

    #[allow(unsafe_code, reason = "the trait's; addresses are checked")]
    unsafe fn upload(&self, _: &PtxStream, to: DevicePtr, from: &[u8]) -> Result<()> {
        if !from.is_empty() {
            let mut memory = self.memory();
            memory.slice_mut(to.0, from.len()).ok_or_else(|| outside("upload", to, from.len()))?.copy_from_slice(from);
        }
        Ok(())
    }

    #[allow(unsafe_code, reason = "the trait's; addresses are checked")]
    unsafe fn download(&self, _: &PtxStream, from: DevicePtr, to: &mut [u8]) -> Result<()> {
        if !to.is_empty() {
            let memory = self.memory();
            to.copy_from_slice(memory.slice(from.0, to.len()).ok_or_else(|| outside("download", from, to.len()))?);
        }
        Ok(())
    }

    fn synchronize(&self, _: &PtxStream) -> Result<()> {
        Ok(())
    }
}

fn outside(what: &str, pointer: DevicePtr, bytes: usize) -> Error {
    Error::Emulation {
        what: what.to_owned(),
        problem: format!(
            "{bytes} bytes at {:#x} are not within memory that this device allocated; check sizes and offsets",
            pointer.0
        ),
    }
}

/// Runs a launch: all blocks together where it is cooperative, else cluster after cluster. Gives back what choices came from, and how many
/// instructions there were.
fn run(
    program: &Program,
    launch: &Launch,
    params: &[u8],
    global: &mut GlobalMemory,
    random: Random,
    shuffled: bool,
) -> Result<(Random, u64)> {
    let [x, y, z] = launch.grid.map(u64::from);
    let index = |block: u64| [(block % x) as u32, (block / x % y) as u32, (block / (x * y)) as u32];
    let blocks = x * y * z;
    let warps_of_block = launch.block.div_ceil(32);
    let mut shadows = Vec::new();
    let mut machine = Machine {
        program,
        launch,
        params,
        global,
        shadows: &mut shadows,
        recent: 0,
        blocks: Vec::new(),
        warps: Vec::new(),
        clusters: Vec::new(),
        in_flight: Vec::new(),
        topology: Topology { warps_of_block, blocks_of_cluster: launch.cluster },
        first_resident: 0,
        components: 0,
        messages: HashMap::new(),
        versions: Versions::default(),
        random,
        shuffled,
        together: launch.cooperative,
        visible: false,
        going_on: None,
        steps: 0,
        last_effect: 0,
        effects: 0,
    };
    let registers = Registers::new(program);
    let together = if launch.cooperative { blocks } else { u64::from(launch.cluster) };
    for first in (0..blocks).step_by(together as usize) {
        let indices: Vec<_> = (first..blocks.min(first + together)).map(index).collect();
        machine.make_resident(&indices, first as u32 * warps_of_block, &registers);
        machine.run().map_err(|(fault, spot)| located(&machine, *fault, spot))?;
    }
    Ok((machine.random, machine.steps))
}

/// A fault with its place.
fn located(machine: &Machine<'_>, fault: Fault, spot: Spot) -> Error {
    let program = machine.program;
    let kernel = program.name.as_str();
    let Some((warp, at)) = spot else {
        return fault.at(Place { kernel, line: 0, instruction: "", thread: "when all threads have ended".to_owned() });
    };
    let block = &machine.blocks[warp / machine.topology.warps_of_block as usize];
    let first = warp as u32 % machine.topology.warps_of_block * 32;
    let [x, y, z] = block.index;
    let thread = match fault.lane {
        Some(lane) => format!("thread {} of block ({x}, {y}, {z})", first + lane),
        None => format!("warp of thread {first} of block ({x}, {y}, {z})"),
    };
    let line = program.instructions[at as usize].line;
    fault.at(Place { kernel, line, instruction: &program.texts[at as usize], thread })
}
