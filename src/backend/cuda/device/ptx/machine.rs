//! What runs a launch: blocks that are resident together, and their warps in turn.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use super::super::Launch;
use super::barriers::{BlockBarrier, ClusterBarrier};
use super::clock::{Clock, WarpClock};
use super::execute::Flow;
use super::fault::{Fault, FaultKind, Result};
use super::instruction::{Program, Scope};
use super::mbarrier::Mbarrier;
use super::memory::{GlobalMemory, SharedMemory};
use super::race::{Shadow, Topology};
use super::random::Random;
use super::registers::Registers;
use super::versions::Versions;
use super::warp::{State, Warp};

/// Steps without any effect on memory or barriers after which nothing is going to happen any more.
const PATIENCE: u64 = 1_000_000;
/// Instructions of a turn in natural order.
const TURN: u32 = 2_000;

/// A block that is resident.
#[derive(Debug)]
pub struct Block {
    pub index: [u32; 3],
    pub shared: SharedMemory,
    pub barriers: BTreeMap<u32, BlockBarrier>,
    /// By their addresses in the block's window.
    pub mbarriers: BTreeMap<u64, Mbarrier>,
    /// Warps that have not ended.
    pub live: u32,
}

/// An asynchronous store on its way.
#[derive(Debug)]
pub struct InFlight {
    pub block: usize,
    /// Address in the block's window.
    pub to: u64,
    pub bytes: [u8; 32],
    pub len: u8,
    /// Address of the mbarrier there.
    pub barrier: u64,
    pub lane: u32,
    pub warp: usize,
    pub at: u32,
    /// What its author knew.
    pub knows: Rc<WarpClock>,
}

/// What a store left for who reads it and acquires: its scope, the warp, what that knew.
pub type Message = (Scope, u32, Rc<Clock>);

/// Where a fault was found: a warp, and the number of an instruction.
pub type Spot = Option<(usize, u32)>;

/// Blocks that are resident together, and all that they share.
pub struct Machine<'a> {
    pub program: &'a Program,
    pub launch: &'a Launch,
    pub params: &'a [u8],
    pub global: &'a mut GlobalMemory,
    /// Shadows of allocations by index, for the whole launch.
    pub shadows: &'a mut Vec<Option<Shadow>>,
    /// The allocation of the last access.
    pub recent: usize,
    pub blocks: Vec<Block>,
    /// A warp whose turn it is is not in its place.
    pub warps: Vec<Option<Box<Warp>>>,
    pub clusters: Vec<ClusterBarrier>,
    pub in_flight: Vec<InFlight>,
    pub topology: Topology,
    /// Number of the first resident warp among all of the launch.
    pub first_resident: u32,
    /// Components of clocks that are taken.
    pub components: u32,
    pub messages: HashMap<u64, Message>,
    pub versions: Versions,
    pub random: Random,
    /// Warps run in random order, asynchronous stores arrive late and in any order, relaxed loads may be stale.
    pub shuffled: bool,
    /// Blocks of the launch see what others write meanwhile.
    pub together: bool,
    /// The last instruction was one that others can tell.
    pub visible: bool,
    /// A warp that goes on after a barrier before any other is chosen.
    pub going_on: Option<usize>,
    /// Instructions so far, and what the number was when one had an effect on memory or on a barrier.
    pub steps: u64,
    pub last_effect: u64,
    /// How many there were.
    pub effects: u64,
}

impl Machine<'_> {
    /// Makes blocks resident: those with these indices, whose warps are numbered from `first_warp` on.
    pub fn make_resident(&mut self, indices: &[[u32; 3]], first_warp: u32, registers: &Registers) {
        let warps = self.topology.warps_of_block;
        self.first_resident = first_warp;
        self.components = first_warp + indices.len() as u32 * warps;
        self.blocks.clear();
        self.warps.clear();
        self.in_flight.clear();
        self.messages.clear();
        self.versions.clear();
        for (block, index) in indices.iter().enumerate() {
            for warp in 0..warps {
                let threads = (self.launch.block - warp * 32).min(32);
                let lanes = if threads == 32 { u32::MAX } else { (1 << threads) - 1 };
                let number = first_warp + block as u32 * warps + warp;
                self.warps.push(Some(Box::new(Warp::new(
                    registers.clone(),
                    number,
                    first_warp,
                    block,
                    warp * 32,
                    lanes,
                ))));
            }
            self.blocks.push(Block {
                index: *index,
                shared: SharedMemory::new(self.launch.shared_bytes),
                barriers: BTreeMap::new(),
                mbarriers: BTreeMap::new(),
                live: warps,
            });
        }
        let clusters = indices.len().div_ceil(self.launch.cluster.max(1) as usize);
        self.clusters = (0..clusters).map(|_| ClusterBarrier::default()).collect();
    }

    /// Runs the resident blocks to their end.
    pub fn run(&mut self) -> Result<(), (Box<Fault>, Spot)> {
        // A warp that gets no turn while any other can go on.
        let lags = self.shuffled && !self.random.is_exhaustive() && self.random.once_in(2);
        let starved = lags.then(|| self.random.below(self.warps.len()));
        let mut next = 0;
        loop {
            self.deliver_some()?;
            let count = self.warps.len();
            let Some(chosen) = self.choose(next, starved) else {
                if self.deliver_one()? {
                    continue;
                }
                if self.blocks.iter().all(|block| block.live == 0) {
                    return Ok(());
                }
                return Err(self.deadlock("no warp can go on"));
            };
            next = (chosen + 1) % count;
            let any_length = self.shuffled && !self.random.is_exhaustive();
            let turn = if any_length { 1 + self.random.below(400) as u32 } else { TURN };
            self.turn(chosen, turn)?;
            // The starved one goes on too where the others only wait for it.
            if self.steps - self.last_effect > 2 * u64::from(TURN)
                && let Some(starved) = starved.filter(|warp| self.is_ready(*warp))
            {
                self.turn(starved, turn)?;
            }
            if self.steps - self.last_effect > PATIENCE && self.in_flight.is_empty() {
                return Err(self.deadlock("warps go on, but nothing changes any more"));
            }
        }
    }

    /// Whether a warp can go on. Where all schedules are tried, one that found a phase incomplete does not look again before anything has happened.
    fn is_ready(&self, warp: usize) -> bool {
        let exhaustive = self.random.is_exhaustive();
        let in_vain = |warp: &Warp| exhaustive && warp.polled == Some(self.effects);
        self.warps[warp].as_ref().is_some_and(|warp| warp.state == State::Ready && !in_vain(warp))
    }

    /// Something has changed that others can see.
    pub fn effect(&mut self) {
        self.last_effect = self.steps;
        self.effects += 1;
    }

    /// The warp whose turn it is: in natural order from `next` on, or any; the starved one where there is no other.
    fn choose(&mut self, next: usize, starved: Option<usize>) -> Option<usize> {
        let count = self.warps.len();
        if let Some(warp) = self.going_on.take().filter(|warp| self.random.is_exhaustive() && self.is_ready(*warp)) {
            return Some(warp);
        }
        if self.random.is_exhaustive() {
            let ready: Vec<usize> = (0..count).filter(|warp| self.is_ready(*warp)).collect();
            return if ready.is_empty() { None } else { Some(ready[self.random.below(ready.len())]) };
        }
        let start = if self.shuffled { self.random.below(count) } else { next };
        let chosen =
            (0..count).map(|i| (start + i) % count).find(|warp| Some(*warp) != starved && self.is_ready(*warp));
        chosen.or_else(|| starved.filter(|warp| self.is_ready(*warp)))
    }

    /// Some instructions of a warp; where all schedules are tried, those up to one that others can tell from the next.
    fn turn(&mut self, number: usize, most: u32) -> Result<(), (Box<Fault>, Spot)> {
        let Some(mut warp) = self.warps[number].take() else { return Ok(()) };
        let mut flow = Flow::Next;
        for _ in 0..most {
            let at = warp.paths.last().map_or(0, |path| path.at);
            flow = self.step(&mut warp).map_err(|fault| (fault, Some((number, at))))?;
            let seen = self.random.is_exhaustive() && std::mem::take(&mut self.visible);
            if !matches!(flow, Flow::Next) || warp.state != State::Ready || seen {
                break;
            }
        }
        let (block, ended) = (warp.block, warp.state == State::Ended);
        self.warps[number] = Some(warp);
        if ended {
            self.blocks[block].live -= 1;
            self.effect();
        }
        if let Flow::Arrive(arrival) = flow {
            self.going_on = Some(number);
            self.effect();
            self.arrive(number, arrival).map_err(|fault| (fault, self.last_place(number)))?;
        }
        Ok(())
    }

    /// The instruction before the one that a warp is at.
    fn last_place(&self, number: usize) -> Spot {
        let path = self.warps[number].as_ref()?.paths.last()?;
        Some((number, path.at.saturating_sub(1)))
    }

    fn deadlock(&self, what: &str) -> (Box<Fault>, Spot) {
        let mut waiting = BTreeMap::<String, u32>::new();
        let mut spot = None;
        for (number, warp) in self.warps.iter().enumerate() {
            let Some(warp) = warp else { continue };
            let Some(path) = warp.paths.last().filter(|_| warp.state != State::Ended) else { continue };
            let at = match warp.state {
                State::Ready => path.at,
                _ => path.at.saturating_sub(1),
            } as usize;
            spot = spot.or(Some((number, at as u32)));
            let line = self.program.instructions[at].line;
            *waiting.entry(format!("line {line}, `{}`", self.program.texts[at])).or_default() += 1;
        }
        let places: Vec<_> = waiting.iter().map(|(place, warps)| format!("{warps} warps at {place}")).collect();
        let mut lacking = String::new();
        for (number, block) in self.blocks.iter().enumerate() {
            for (address, mbarrier) in &block.mbarriers {
                if let Some((arrivals, bytes)) = mbarrier.lacks().filter(|_| lacking.len() < 200) {
                    lacking += &format!(
                        "; the mbarrier at {address:#x} of resident block {number} lacks {arrivals} arrivals and {bytes} bytes in phase {}",
                        mbarrier.phase
                    );
                }
            }
        }
        let problem = format!("{what}: {}{lacking}; expected all of them to end", places.join(", "));
        (Fault::new(FaultKind::Deadlock, problem), spot)
    }

    /// A component of clocks that is not taken.
    pub fn component(&mut self) -> u32 {
        self.components += 1;
        self.components - 1
    }
}
