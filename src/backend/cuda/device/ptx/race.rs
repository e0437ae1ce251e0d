//! Data races: a shadow of memory that remembers the last accesses to each word, and compares each access with them.
//!
//! Two accesses race where they touch the same bytes, one writes, nothing orders them, and they are not both strong with scopes that
//! include the other's thread (PTX ISA, memory consistency model). Words are followed whole until one is accessed in parts.

use super::clock::WarpClock;
use super::fault::{Fault, FaultKind, Result};
use super::instruction::{Order, Scope};

/// Bytes of memory that a page of the shadow stands for.
const PAGE: u64 = 1024;

/// The last accesses to a word, or to a part of one.
#[derive(Clone, Debug, Default)]
struct Cell {
    write: Entry,
    read: Entry,
    /// Reads by other warps, or at other times, that are not ordered before `read`.
    more: Vec<Entry>,
    /// Read as memory that nothing writes.
    constant: bool,
    /// Written with a value that is defined.
    defined: bool,
}

/// An access that happened.
#[derive(Clone, Copy, Debug, Default)]
struct Entry {
    who: u32,
    /// Zero: there was none.
    clock: u32,
    /// Of a read all that read at that time, of a write the one.
    lanes: u32,
    /// Number of the instruction.
    at: u32,
    strong: Option<Scope>,
}

#[derive(Debug)]
struct Page {
    /// Bytes of a cell: 4, 2 or 1.
    cell: u64,
    cells: Vec<Cell>,
}

impl Page {
    fn split(&mut self) {
        let cells = std::mem::take(&mut self.cells);
        self.cells = cells.into_iter().flat_map(|cell| [cell.clone(), cell]).collect();
        self.cell /= 2;
    }
}

/// The shadow of one piece of memory.
#[derive(Debug, Default)]
pub struct Shadow {
    pages: Vec<Option<Box<Page>>>,
}

/// Who accesses: a lane, and what its warp knows.
#[derive(Clone, Copy, Debug)]
pub struct Agent<'a> {
    pub clock: &'a WarpClock,
    pub lane: u32,
    /// Number of the instruction.
    pub at: u32,
    pub order: Order,
    /// Which warps share a block, and which blocks a cluster.
    pub topology: Topology,
}

/// How warps are grouped.
#[derive(Clone, Copy, Debug)]
pub struct Topology {
    pub warps_of_block: u32,
    pub blocks_of_cluster: u32,
}

impl Topology {
    /// Whether a scope of warp `from` includes warp `to`.
    pub fn includes(self, scope: Scope, from: u32, to: u32) -> bool {
        let (from, to) = (from / self.warps_of_block, to / self.warps_of_block);
        match scope {
            Scope::Block => from == to,
            Scope::Cluster => from / self.blocks_of_cluster == to / self.blocks_of_cluster,
            Scope::Gpu | Scope::System => true,
        }
    }
}

impl Agent<'_> {
    fn strong(&self) -> Option<Scope> {
        match self.order {
            Order::Weak | Order::Constant => None,
            Order::Relaxed(scope) | Order::Ordered(scope) => Some(scope),
        }
    }

    fn entry(&self) -> Entry {
        Entry { who: self.clock.id, clock: self.clock.now, lanes: 1 << self.lane, at: self.at, strong: self.strong() }
    }

    /// Whether an earlier access is no race with one of this agent.
    fn in_order(&self, earlier: &Entry) -> bool {
        if earlier.clock == 0 {
            return true;
        }
        self.covers(earlier)
            || matches!((self.strong(), earlier.strong), (Some(own), Some(other))
                if self.topology.includes(own, self.clock.id, earlier.who)
                    && self.topology.includes(other, earlier.who, self.clock.id))
    }

    fn race(&self, this: &str, what: &str, earlier: &Entry, address: u64) -> Box<Fault> {
        let (warp, block) = (earlier.who % self.topology.warps_of_block, earlier.who / self.topology.warps_of_block);
        let ordered = |author: u32| self.clock.ordered(self.lane, earlier.who, earlier.clock, 1 << author);
        let mut authors = (0..32).filter(|author| earlier.lanes >> author & 1 == 1);
        let author = authors.find(|author| !ordered(*author)).unwrap_or(earlier.lanes.trailing_zeros());
        Fault {
            kind: FaultKind::Race,
            problem: format!(
                "{this} of {address:#x}, which thread {} of resident block {block} {what} at instruction {}; expected something that orders \
                 the two (a barrier, or a release and an acquire of a scope that includes both)",
                warp * 32 + author,
                earlier.at
            ),
            lane: Some(self.lane),
        }
        .into()
    }
}

impl Shadow {
    /// Of so many bytes.
    pub fn new(bytes: u64) -> Self {
        Shadow { pages: (0..bytes.div_ceil(PAGE)).map(|_| None).collect() }
    }

    /// The cells of `len` bytes at `offset`, each with its offset and its bytes.
    fn visit(&mut self, offset: u64, len: u64, mut visit: impl FnMut(&mut Cell, u64, u64) -> Result<()>) -> Result<()> {
        let (mut at, end) = (offset, offset + len);
        while at < end {
            let page = self.pages[(at / PAGE) as usize]
                .get_or_insert_with(|| Box::new(Page { cell: 4, cells: vec![Cell::default(); (PAGE / 4) as usize] }));
            while at % page.cell != 0 || end - at < page.cell {
                page.split();
            }
            let cell = page.cell;
            visit(&mut page.cells[(at % PAGE / cell) as usize], at, cell)?;
            at += cell;
        }
        Ok(())
    }

    /// A read of `len` bytes at `offset`, of which the `used` ones matter; `base` is the address of offset 0. Gives the bytes that have
    /// not been written with a defined value, a bit for each.
    pub fn read(&mut self, agent: Agent<'_>, base: u64, offset: u64, len: u64, used: u32) -> Result<u32> {
        let mut undefined = 0;
        self.visit(offset, len, |cell, at, bytes| {
            if !matters(used, at - offset, bytes) {
                return Ok(());
            }
            if !cell.defined {
                undefined |= ((1 << bytes) - 1) << (at - offset);
            }
            if agent.order == Order::Constant {
                if cell.write.clock != 0 {
                    return Err(agent.race("a read through .nc", "writes in the same launch", &cell.write, base + at));
                }
                cell.constant = true;
                return Ok(());
            }
            if !agent.in_order(&cell.write) {
                return Err(agent.race("a read", "wrote", &cell.write, base + at));
            }
            let entry = agent.entry();
            let merged = |other: &mut Entry| {
                let same = other.who == entry.who && other.clock == entry.clock && other.strong == entry.strong;
                if same {
                    other.lanes |= entry.lanes;
                }
                same
            };
            if merged(&mut cell.read) || cell.more.iter_mut().any(merged) {
                return Ok(());
            }
            // What is ordered before this read need not be remembered: who is ordered after this one is after that one too.
            let replaces = |other: &Entry| other.clock == 0 || other.strong == entry.strong && agent.covers(other);
            if replaces(&cell.read) {
                cell.read = entry;
                return Ok(());
            }
            match cell.more.iter_mut().find(|other| replaces(other)) {
                Some(other) => *other = entry,
                None => cell.more.push(entry),
            }
            Ok(())
        })?;
        Ok(undefined)
    }

    /// A write of `len` bytes at `offset`, some of them undefined; `base` is the address of offset 0.
    pub fn write(&mut self, agent: Agent<'_>, base: u64, offset: u64, len: u64, undefined: u32) -> Result<()> {
        let entry = agent.entry();
        self.overwrite(agent, base, offset, len, undefined, entry)
    }

    /// The write of an asynchronous store that `agent` began, complete when everyone knows phase `phase` of mbarrier `component`.
    pub fn write_async(
        &mut self,
        agent: Agent<'_>,
        base: u64,
        offset: u64,
        len: u64,
        component: u32,
        phase: u32,
    ) -> Result<()> {
        let entry = Entry { who: component, clock: phase, lanes: 1, at: agent.at, strong: None };
        self.overwrite(agent, base, offset, len, 0, entry)
    }

    fn overwrite(
        &mut self,
        agent: Agent<'_>,
        base: u64,
        offset: u64,
        len: u64,
        undefined: u32,
        entry: Entry,
    ) -> Result<()> {
        self.visit(offset, len, |cell, at, bytes| {
            if cell.constant {
                return Err(agent.race("a write", "reads through .nc in the same launch", &cell.read, base + at));
            }
            // Other stores that the same mbarrier counts are to other bytes, or it is a race.
            if !agent.in_order(&cell.write) {
                return Err(agent.race("a write", "wrote", &cell.write, base + at));
            }
            for read in std::iter::once(&cell.read).chain(&cell.more) {
                if !agent.in_order(read) {
                    return Err(agent.race("a write", "read", read, base + at));
                }
            }
            cell.write = entry;
            cell.defined = undefined >> (at - offset) & ((1 << bytes) - 1) == 0;
            cell.read = Entry::default();
            cell.more.clear();
            Ok(())
        })
    }
}

/// Whether any of `bytes` bytes from byte `first` on is used.
fn matters(used: u32, first: u64, bytes: u64) -> bool {
    first > 31 || used >> first & ((1 << bytes) - 1) != 0
}

impl Agent<'_> {
    /// Whether all of an earlier access happened before, whatever its strength.
    fn covers(&self, earlier: &Entry) -> bool {
        self.clock.ordered(self.lane, earlier.who, earlier.clock, earlier.lanes)
    }
}
