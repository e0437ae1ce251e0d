//! One instruction of one warp.

use super::arithmetic::{Doubles, Words};
use super::barriers::Arrival;
use super::fault::{Fault, FaultKind, Result};
use super::instruction::*;
use super::machine::Machine;
use super::registers::FULL;
use super::text::Bank;
use super::warp::Warp;

/// How a warp goes on.
#[derive(Debug)]
pub enum Flow {
    Next,
    /// It lets others go first.
    Pause,
    Arrive(Arrival),
}

/// Calls `visit` with the number of each lane.
#[inline(always)]
pub fn for_lanes(lanes: u32, mut visit: impl FnMut(usize)) {
    let mut rest = lanes;
    while rest != 0 {
        visit(rest.trailing_zeros() as usize);
        rest &= rest - 1;
    }
}

/// The same, until one fails.
#[inline(always)]
pub fn try_lanes(lanes: u32, mut visit: impl FnMut(usize) -> Result<()>) -> Result<()> {
    let mut rest = lanes;
    while rest != 0 {
        visit(rest.trailing_zeros() as usize)?;
        rest &= rest - 1;
    }
    Ok(())
}

impl Machine<'_> {
    /// Executes the instruction that a warp is at.
    pub fn step(&mut self, warp: &mut Warp) -> Result<Flow> {
        let program = self.program;
        let Some(path) = warp.paths.last_mut() else { return Ok(Flow::Next) };
        let (at, here) = (path.at, path.lanes);
        let instruction = &program.instructions[at as usize];
        self.steps += 1;
        let lanes = match instruction.guard {
            None => here,
            Some((predicate, negated)) => {
                let bits = warp.registers.bit(predicate);
                here & if negated { !bits } else { bits }
            }
        };
        let r = &instruction.registers;
        match instruction.operation {
            Operation::Compute(function) => {
                path.at = at + 1;
                if lanes != 0 {
                    warp.registers.compute(function, r, lanes);
                }
                if path.at == path.join {
                    warp.settle();
                }
                return Ok(Flow::Next);
            }
            Operation::Branch { target, join } => {
                let diverges = lanes != 0 && lanes != here;
                let taken_first = diverges && self.shuffled && !self.random.is_exhaustive() && self.random.once_in(2);
                warp.branch(target, join, lanes, taken_first);
                return Ok(Flow::Next);
            }
            Operation::Exit => {
                path.at = at + 1;
                warp.end(lanes);
                return Ok(Flow::Next);
            }
            _ => {}
        }
        // The next instruction, unless this one says otherwise: a warp that waits goes on there.
        path.at = at + 1;
        let flow = if lanes == 0 { Flow::Next } else { self.other(warp, instruction, at, lanes)? };
        warp.settle();
        Ok(flow)
    }

    fn other(&mut self, warp: &mut Warp, instruction: &Instruction, at: u32, lanes: u32) -> Result<Flow> {
        self.visible = match instruction.operation {
            Operation::Load(access) => access.space != Space::Param,
            Operation::Store(_) | Operation::Atomic { .. } | Operation::StoreAsync { .. } => true,
            Operation::MbarrierArrive { .. } | Operation::MbarrierTest { .. } => true,
            _ => false,
        };
        if instruction.aligned {
            whole_warp(warp, lanes)?;
        }
        let r = &instruction.registers;
        let mut flow = Flow::Next;
        match instruction.operation {
            Operation::Compute(_) | Operation::Branch { .. } | Operation::Exit | Operation::Nothing => {}
            Operation::Pause => flow = Flow::Pause,
            Operation::Split => {
                let (whole, undefined) = (*warp.registers.double(r[2]), warp.registers.undefined(Bank::Double, r[2]));
                warp.registers.put_words(r[0], &whole.map(|value| value as u32), lanes);
                warp.registers.put_words(r[1], &whole.map(|value| (value >> 32) as u32), lanes);
                r[..2].iter().for_each(|half| warp.registers.define(Bank::Word, *half, undefined, lanes));
            }
            Operation::Join => {
                let (low, high) = (warp.registers.word(r[1]), warp.registers.word(r[2]));
                let whole = std::array::from_fn(|i| u64::from(high[i]) << 32 | u64::from(low[i]));
                let undefined = warp.registers.undefined(Bank::Word, r[1]) | warp.registers.undefined(Bank::Word, r[2]);
                warp.registers.put_doubles(r[0], &whole, lanes);
                warp.registers.define(Bank::Double, r[0], undefined, lanes);
            }
            Operation::SplitHalves => {
                let (whole, undefined) = (*warp.registers.word(r[2]), warp.registers.undefined(Bank::Word, r[2]));
                warp.registers.put_words(r[0], &whole.map(|value| value & 0xffff), lanes);
                warp.registers.put_words(r[1], &whole.map(|value| value >> 16), lanes);
                r[..2].iter().for_each(|half| warp.registers.define(Bank::Word, *half, undefined, lanes));
            }
            Operation::JoinHalves => {
                let (low, high) = (warp.registers.word(r[1]), warp.registers.word(r[2]));
                let whole = std::array::from_fn(|i| high[i] << 16 | low[i] & 0xffff);
                let undefined = warp.registers.undefined(Bank::Word, r[1]) | warp.registers.undefined(Bank::Word, r[2]);
                warp.registers.put_words(r[0], &whole, lanes);
                warp.registers.define(Bank::Word, r[0], undefined, lanes);
            }
            Operation::Special { what, double } => {
                let values = self.special(warp, what);
                if double {
                    warp.registers.put_doubles(r[0], &values, lanes);
                } else {
                    warp.registers.put_words(r[0], &values.map(|value| value as u32), lanes);
                }
            }
            Operation::Load(access) => {
                self.load(warp, r, &access, at, lanes)?;
                if matches!(access.order, Order::Relaxed(_) | Order::Ordered(_)) {
                    flow = Flow::Pause;
                }
            }
            Operation::Store(access) => self.store(warp, r, &access, at, lanes)?,
            Operation::Atomic { access, combine, returns } => {
                self.atomic(warp, r, &access, combine, returns, at, lanes)?
            }
            Operation::Fence(fence, scope) => self.fence(warp, fence, scope, lanes),
            Operation::Shuffle { kind, predicate } => shuffle(warp, r, kind, predicate, lanes)?,
            Operation::Vote(kind) => vote(warp, r, kind, lanes)?,
            Operation::ActiveMask => warp.registers.put_words(r[0], &[lanes; 32], lanes),
            Operation::Reduce(combine) => reduce(warp, r, combine, lanes)?,
            Operation::WarpSync => {
                together(warp, warp.registers.word(r[0]), lanes)?;
                if lanes == warp.live {
                    warp.clock.synchronise();
                } else {
                    // Some lanes alone: what each of them knows, all of them know.
                    let known = warp.clock.release(lanes);
                    warp.clock.acquire(lanes, warp.live, &known);
                }
            }
            Operation::Mma { elements, depth } => super::tensor_core::multiply(&mut warp.registers, r, elements, depth),
            Operation::LoadMatrix { count, transposed, offset } => {
                self.load_matrix(warp, r, count, transposed, offset, at)?
            }
            Operation::Barrier { counted, wait } => {
                whole_warp(warp, lanes)?;
                let number = uniform(warp.registers.word(r[0]), lanes, "number of a barrier")?;
                let threads = if counted {
                    uniform(warp.registers.word(r[1]), lanes, "number of threads of a barrier")?
                } else {
                    self.launch.block.next_multiple_of(32)
                };
                flow = Flow::Arrive(Arrival::Block { number, threads, wait });
            }
            Operation::ClusterArrive { release } => {
                whole_warp(warp, lanes)?;
                let released = if release { warp.clock.release(lanes) } else { warp.clock.announced().clone() };
                flow = Flow::Arrive(Arrival::Cluster { released });
            }
            Operation::ClusterWait { acquire } => {
                whole_warp(warp, lanes)?;
                flow = Flow::Arrive(Arrival::WaitForCluster { acquire });
            }
            Operation::MapCluster { double } => self.map_cluster(warp, r, double, lanes)?,
            Operation::MbarrierInit { offset } => self.mbarrier_init(warp, r, offset, at, lanes)?,
            Operation::MbarrierInvalidate { offset } => self.mbarrier_invalidate(warp, r, offset, lanes)?,
            Operation::MbarrierArrive { .. } => self.mbarrier_arrive(warp, instruction, lanes)?,
            Operation::MbarrierTest { acquire, offset } => {
                warp.polled = None;
                if !self.mbarrier_test(warp, r, acquire, offset, lanes)? {
                    warp.polled = Some(self.effects);
                    flow = Flow::Pause;
                }
            }
            Operation::StoreAsync { .. } => self.store_async(warp, instruction, at, lanes)?,
            Operation::CopyAsync { .. } => self.copy_async(warp, instruction, at, lanes)?,
            Operation::CopyCommit => self.copy_commit(warp, lanes)?,
            Operation::CopyWait(groups) => self.copy_wait(warp, groups, lanes)?,
        }
        Ok(flow)
    }

    fn special(&self, warp: &Warp, what: Special) -> Doubles {
        let block = &self.blocks[warp.block];
        let cluster = self.launch.cluster.max(1);
        let along = |index: [u32; 3], dimension: u8| u64::from(index[usize::from(dimension)]);
        let all = |value: u64| [value; 32];
        let grid = self.launch.grid;
        match what {
            Special::ThreadIndex(0) => std::array::from_fn(|lane| u64::from(warp.first_thread) + lane as u64),
            Special::ThreadIndex(_) => all(0),
            Special::BlockThreads(0) => all(self.launch.block.into()),
            Special::BlockThreads(_) => all(1),
            Special::BlockIndex(dimension) => all(along(block.index, dimension)),
            Special::GridBlocks(dimension) => all(along(grid, dimension)),
            Special::LaneIndex => std::array::from_fn(|lane| lane as u64),
            Special::WarpIndex => all(u64::from(warp.first_thread / 32)),
            Special::LaneMaskEqual => std::array::from_fn(|lane| 1 << lane),
            Special::LaneMaskLess => std::array::from_fn(|lane| (1 << lane) - 1),
            Special::LaneMaskLessEqual => std::array::from_fn(|lane| (2 << lane) - 1),
            Special::LaneMaskGreater => std::array::from_fn(|lane| 0xffff_ffff & !((2 << lane) - 1)),
            Special::LaneMaskGreaterEqual => std::array::from_fn(|lane| 0xffff_ffff & !((1 << lane) - 1)),
            Special::ClusterRank => all(u64::from(block.index[0] % cluster)),
            Special::ClusterBlocks => all(cluster.into()),
            Special::ClusterIndex(0) => all(u64::from(block.index[0] / cluster)),
            Special::ClusterIndex(dimension) => all(along(block.index, dimension)),
            Special::Clusters(0) => all(u64::from(grid[0] / cluster)),
            Special::Clusters(dimension) => all(along(grid, dimension)),
            Special::Multiprocessor => all(warp.block as u64),
            // An instruction takes a nanosecond.
            Special::Clock => all(self.steps),
        }
    }
}

/// That an instruction for whole warps is executed by one.
fn whole_warp(warp: &Warp, lanes: u32) -> Result<()> {
    if lanes == warp.live && lanes == FULL {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::PartOfWarp,
        format!(
            "lanes {lanes:#010x} execute it together, {:#010x} have not ended; expected all 32 at one place",
            warp.live
        ),
    ))
}

/// That the lanes that a mask names are those that execute the instruction.
fn together(warp: &Warp, masks: &Words, lanes: u32) -> Result<()> {
    let mask = uniform(masks, lanes, "mask of lanes")?;
    if mask & warp.live == lanes {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::PartOfWarp,
        format!(
            "its mask is {mask:#010x}, lanes {lanes:#010x} execute it together and {:#010x} have not ended; expected those of the mask",
            warp.live
        ),
    ))
}

/// The value that a register has in all lanes.
fn uniform(values: &Words, lanes: u32, what: &str) -> Result<u32> {
    let value = values[lanes.trailing_zeros() as usize & 31];
    let mut same = true;
    for_lanes(lanes, |lane| same &= values[lane] == value);
    if same {
        return Ok(value);
    }
    Err(Fault::new(FaultKind::PartOfWarp, format!("the {what} differs between lanes; expected one value")))
}

fn shuffle(warp: &mut Warp, r: &[u16; OPERANDS], kind: Shuffle, predicate: bool, lanes: u32) -> Result<()> {
    let first = if predicate { 2 } else { 1 };
    let registers = &warp.registers;
    let [values, by, clamp, masks] = std::array::from_fn(|i| registers.word(r[first + i]));
    together(warp, masks, lanes)?;
    let source = registers.undefined(Bank::Word, r[first]);
    let (mut results, mut inside, mut undefined) = ([0; 32], 0u32, 0u32);
    for lane in 0..32u32 {
        let (by, clamp) = (by[lane as usize] & 31, clamp[lane as usize]);
        let (segment, clamp) = (clamp >> 8 & 31, clamp & 31);
        let (least, most) = (lane & segment, lane & segment | clamp & !segment);
        let (from, valid) = match kind {
            Shuffle::Up => (lane.wrapping_sub(by), lane as i32 - by as i32 >= most as i32),
            Shuffle::Down => (lane + by, lane + by <= most),
            Shuffle::Butterfly => (lane ^ by, lane ^ by <= most),
            Shuffle::Index => (least | by & !segment, least | by & !segment <= most),
        };
        let from = if valid { from & 31 } else { lane };
        results[lane as usize] = values[from as usize];
        inside |= u32::from(valid) << lane;
        undefined |= (source >> from & 1) << lane;
        if lanes >> lane & 1 == 1 && lanes >> from & 1 == 0 {
            return Err(Fault::of_lane(
                FaultKind::PartOfWarp,
                lane,
                format!("it reads lane {from}, which does not take part; lanes {lanes:#010x} do"),
            ));
        }
    }
    warp.registers.put_words(r[0], &results, lanes);
    warp.registers.define(Bank::Word, r[0], undefined, lanes);
    if predicate {
        warp.registers.put_bits(r[1], inside, lanes);
    }
    Ok(())
}

fn vote(warp: &mut Warp, r: &[u16; OPERANDS], kind: Vote, lanes: u32) -> Result<()> {
    together(warp, warp.registers.word(r[2]), lanes)?;
    let votes = warp.registers.bit(r[1]) & lanes;
    let all = |holds: bool| if holds { FULL } else { 0 };
    match kind {
        Vote::Ballot => warp.registers.put_words(r[0], &[votes; 32], lanes),
        Vote::All => warp.registers.put_bits(r[0], all(votes == lanes), lanes),
        Vote::Any => warp.registers.put_bits(r[0], all(votes != 0), lanes),
        Vote::Uniform => warp.registers.put_bits(r[0], all(votes == lanes || votes == 0), lanes),
    }
    Ok(())
}

fn reduce(warp: &mut Warp, r: &[u16; OPERANDS], combine: Combine, lanes: u32) -> Result<()> {
    together(warp, warp.registers.word(r[2]), lanes)?;
    let values = warp.registers.word(r[1]);
    let mut result: Option<u32> = None;
    for_lanes(lanes, |lane| result = Some(result.map_or(values[lane], |sum| combined(combine, sum, values[lane], 0))));
    warp.registers.put_words(r[0], &[result.unwrap_or(0); 32], lanes);
    Ok(())
}

/// What an atomic operation makes of the value in memory.
pub fn combined(combine: Combine, old: u32, value: u32, other: u32) -> u32 {
    match combine {
        Combine::Add => old.wrapping_add(value),
        Combine::And => old & value,
        Combine::Or => old | value,
        Combine::Xor => old ^ value,
        Combine::MinUnsigned => old.min(value),
        Combine::MaxUnsigned => old.max(value),
        Combine::MinSigned => (old as i32).min(value as i32) as u32,
        Combine::MaxSigned => (old as i32).max(value as i32) as u32,
        Combine::Exchange => value,
        Combine::CompareAndSwap => {
            if old == value {
                other
            } else {
                old
            }
        }
    }
}
