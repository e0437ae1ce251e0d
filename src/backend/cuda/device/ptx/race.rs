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

impl Entry {
    /// Whether it is of the same warp, time and strength.
    #[inline(always)]
    fn is_of(&self, other: &Entry) -> bool {
        self.who == other.who && self.clock == other.clock && self.strong == other.strong
    }

    /// Whether a read need not be remembered beside a later one: who is ordered after that one is after this one too.
    #[inline(always)]
    fn is_replaced_by(&self, agent: &Agent<'_>, later: &Entry) -> bool {
        self.clock == 0 || self.strong == later.strong && agent.covers(self)
    }
}

impl Cell {
    /// Adds a read to those that are not ordered.
    fn remember(&mut self, agent: &Agent<'_>, entry: Entry) {
        if let Some(same) = self.more.iter_mut().find(|other| other.is_of(&entry)) {
            same.lanes |= entry.lanes;
        } else if self.read.is_replaced_by(agent, &entry) {
            self.read = entry;
        } else if let Some(other) = self.more.iter_mut().find(|other| other.is_replaced_by(agent, &entry)) {
            *other = entry;
        } else {
            self.more.push(entry);
        }
    }
}

#[derive(Debug)]
struct Page {
    /// Bytes of a cell: 4, 2 or 1.
    cell: u64,
    cells: Vec<Cell>,
}

impl Page {
    #[cold]
    fn new() -> Box<Self> {
        Box::new(Page { cell: 4, cells: vec![Cell::default(); (PAGE / 4) as usize] })
    }

    #[cold]
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
    #[inline(always)]
    fn strong(&self) -> Option<Scope> {
        match self.order {
            Order::Weak | Order::Constant => None,
            Order::Relaxed(scope) | Order::Ordered(scope) => Some(scope),
        }
    }

    #[inline(always)]
    fn entry(&self) -> Entry {
        Entry { who: self.clock.id, clock: self.clock.now, lanes: 1 << self.lane, at: self.at, strong: self.strong() }
    }

    /// Whether an earlier access is no race with one of this agent.
    #[inline(always)]
    fn in_order(&self, earlier: &Entry) -> bool {
        if earlier.clock == 0 {
            return true;
        }
        self.covers(earlier)
            || matches!((self.strong(), earlier.strong), (Some(own), Some(other))
                if self.topology.includes(own, self.clock.id, earlier.who)
                    && self.topology.includes(other, earlier.who, self.clock.id))
    }

    #[cold]
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

    /// Calls `visit` with the cells of `len` bytes at `offset`, each with its offset and its bytes. No access crosses a page: it is aligned.
    #[inline(always)]
    fn visit(&mut self, offset: u64, len: u64, mut visit: impl FnMut(&mut Cell, u64, u64) -> Result<()>) -> Result<()> {
        let page = match &mut self.pages[(offset / PAGE) as usize] {
            Some(page) => &mut **page,
            absent => &mut **absent.insert(Page::new()),
        };
        while (offset | len) & (page.cell - 1) != 0 {
            page.split();
        }
        let (mut at, end, cell) = (offset, offset + len, page.cell);
        while at < end {
            visit(&mut page.cells[((at & (PAGE - 1)) >> cell.trailing_zeros()) as usize], at, cell)?;
            at += cell;
        }
        Ok(())
    }

    /// A read of `len` bytes at `offset`, of which the `used` ones matter; `base` is the address of offset 0. Gives the bytes that have
    /// not been written with a defined value, a bit for each.
    #[inline]
    pub fn read(&mut self, agent: Agent<'_>, base: u64, offset: u64, len: u64, used: u32) -> Result<u32> {
        let (mut undefined, entry) = (0, agent.entry());
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
            if cell.read.is_of(&entry) {
                cell.read.lanes |= entry.lanes;
            } else if cell.more.is_empty() && cell.read.is_replaced_by(&agent, &entry) {
                cell.read = entry;
            } else {
                cell.remember(&agent, entry);
            }
            Ok(())
        })?;
        Ok(undefined)
    }

    /// A write of `len` bytes at `offset`, some of them undefined; `base` is the address of offset 0.
    #[inline]
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

    #[inline]
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
            if !agent.in_order(&cell.read) {
                return Err(agent.race("a write", "read", &cell.read, base + at));
            }
            if !cell.more.is_empty() {
                if let Some(read) = cell.more.iter().find(|read| !agent.in_order(read)) {
                    return Err(agent.race("a write", "read", read, base + at));
                }
                cell.more.clear();
            }
            cell.write = entry;
            cell.defined = undefined >> (at - offset) & ((1 << bytes) - 1) == 0;
            cell.read = Entry::default();
            Ok(())
        })
    }
}

/// Whether any of `bytes` bytes from byte `first` on is used.
#[inline(always)]
fn matters(used: u32, first: u64, bytes: u64) -> bool {
    first > 31 || used >> first & ((1 << bytes) - 1) != 0
}

impl Agent<'_> {
    /// Whether all of an earlier access happened before, whatever its strength.
    #[inline(always)]
    fn covers(&self, earlier: &Entry) -> bool {
        self.clock.ordered(self.lane, earlier.who, earlier.clock, earlier.lanes)
    }
}
