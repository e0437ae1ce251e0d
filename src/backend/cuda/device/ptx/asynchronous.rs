//! Mbarriers, asynchronous stores that they count, and copies in the background.

use std::rc::Rc;

use super::access::{Target, undefined_value};
use super::clock::Clock;
use super::execute::try_lanes;
use super::fault::{Fault, FaultKind, Result};
use super::instruction::*;
use super::machine::{InFlight, Machine, Spot};
use super::mbarrier::Mbarrier;
use super::memory;
use super::text::Bank;
use super::warp::{Copy, Warp};

impl Machine<'_> {
    /// The mbarrier at an address of a block's window, which must be initialised, to the knowledge of who uses it.
    fn mbarrier(
        &mut self,
        block: usize,
        address: u64,
        lane: u32,
        knows: impl Fn(u32) -> bool,
    ) -> Result<&mut Mbarrier> {
        let misused = |problem: String| Fault::of_lane(FaultKind::Mbarrier, lane, problem);
        let Some(found) = self.blocks[block].mbarriers.get_mut(&address) else {
            return Err(misused(format!("there is no mbarrier at {address:#x}; expected one that mbarrier.init made")));
        };
        if !knows(found.component) {
            return Err(Fault::of_lane(
                FaultKind::Race,
                lane,
                format!(
                    "the mbarrier at {address:#x} is used while nothing orders that after its initialisation; expected a barrier in between, \
                     of the cluster where it is another block's"
                ),
            ));
        }
        Ok(found)
    }

    pub fn mbarrier_init(
        &mut self,
        warp: &mut Warp,
        r: &[u16; OPERANDS],
        offset: i64,
        at: u32,
        lanes: u32,
    ) -> Result<()> {
        let addresses = warp.registers.word_addresses(r[0], offset, lanes)?;
        let counts = *warp.registers.word(r[1]);
        self.effect();
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            let target = self.target(warp, Space::Shared, address, 8, number)?;
            self.check_write(warp, target, 8, 0, Order::Weak, number, at)?;
            let component = self.component();
            let mbarrier = Mbarrier::new(counts[lane], component, self.first_resident)?;
            self.blocks[warp.block].mbarriers.insert(address, mbarrier);
            warp.clock.initialise(number, warp.live, component);
            Ok(())
        })
    }

    pub fn mbarrier_invalidate(&mut self, warp: &mut Warp, r: &[u16; OPERANDS], offset: i64, lanes: u32) -> Result<()> {
        let addresses = warp.registers.word_addresses(r[0], offset, lanes)?;
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            self.mbarrier(warp.block, address, number, |who| warp.clock.ordered(number, who, 1, 1))?;
            self.blocks[warp.block].mbarriers.remove(&address);
            Ok(())
        })
    }

    pub fn mbarrier_arrive(&mut self, warp: &mut Warp, instruction: &Instruction, lanes: u32) -> Result<()> {
        let Operation::MbarrierArrive { expect, arrives, many, remote, release, offset } = instruction.operation else {
            return Ok(());
        };
        let r = &instruction.registers;
        let addresses = warp.registers.word_addresses(r[0], offset, lanes)?;
        let amounts = if expect || many { *warp.registers.word(r[1]) } else { [1; 32] };
        self.effect();
        let released = release.map(|scope| (scope, warp.clock.message(lanes)));
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            let (block, within) = self.block_of(warp, address, number)?;
            if block != warp.block && !remote {
                return Err(Fault::of_lane(
                    FaultKind::Mbarrier,
                    number,
                    format!("the mbarrier at {address:#x} is another block's; expected shared::cluster for it"),
                ));
            }
            let topology = self.topology;
            let author = warp.number;
            let to = self.first_warp_of(block);
            let mbarrier = self.mbarrier(block, within, number, |who| warp.clock.ordered(number, who, 1, 1))?;
            if expect {
                mbarrier.expect(amounts[lane])?;
            }
            if arrives {
                let threads = if expect { 1 } else { amounts[lane] };
                let reaches = released.as_ref().filter(|(scope, _)| topology.includes(*scope, author, to));
                mbarrier.arrive(threads, reaches.map(|(_, released)| released))?;
            }
            Ok(())
        })?;
        if release.is_some() {
            warp.clock.now += 1;
        }
        Ok(())
    }

    fn first_warp_of(&self, block: usize) -> u32 {
        let first = block * self.topology.warps_of_block as usize;
        self.first_resident + first as u32
    }

    /// Whether the phases are complete that lanes ask for: all of them.
    pub fn mbarrier_test(
        &mut self,
        warp: &mut Warp,
        r: &[u16; OPERANDS],
        acquire: Option<Scope>,
        offset: i64,
        lanes: u32,
    ) -> Result<bool> {
        let addresses = warp.registers.word_addresses(r[1], offset, lanes)?;
        let parities = *warp.registers.word(r[2]);
        let mut complete = 0u32;
        let mut learnt: Vec<(u32, u64, Clock)> = Vec::new();
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            let (block, within) = self.block_of(warp, address, number)?;
            if block != warp.block {
                return Err(Fault::of_lane(
                    FaultKind::Mbarrier,
                    number,
                    "a wait for another block's mbarrier; expected one of the own block",
                ));
            }
            let mbarrier = self.mbarrier(block, within, number, |who| warp.clock.ordered(number, who, 1, 1))?;
            if let Some(knows) = mbarrier.test(parities[lane])? {
                complete |= 1 << lane;
                match learnt.iter_mut().find(|(_, of, _)| *of == address) {
                    Some((lanes, ..)) => *lanes |= 1 << lane,
                    None => learnt.push((1 << lane, address, knows.clone())),
                }
            }
            Ok(())
        })?;
        if acquire.is_some() {
            learnt.iter().for_each(|(lanes, _, knows)| warp.clock.acquire(*lanes, warp.live, knows));
        }
        warp.registers.put_bits(r[0], complete, lanes);
        Ok(complete == lanes)
    }

    pub fn store_async(&mut self, warp: &mut Warp, instruction: &Instruction, at: u32, lanes: u32) -> Result<()> {
        let Operation::StoreAsync { bytes, count, offset, barrier_offset } = instruction.operation else {
            return Ok(());
        };
        let r = &instruction.registers;
        let (bytes, count) = (usize::from(bytes), usize::from(count));
        let addresses = warp.registers.word_addresses(r[0], offset, lanes)?;
        let barriers = warp.registers.word_addresses(r[1], barrier_offset, lanes)?;
        let knows = Rc::new(warp.clock.clone());
        warp.clock.now += 1;
        self.effect();
        try_lanes(lanes, |lane| {
            let number = lane as u32;
            let len = bytes * count;
            let target = self.target(warp, Space::ClusterShared, addresses[lane], len as u64, number)?;
            let (block, to) = self.block_of(warp, addresses[lane], number)?;
            let (other, barrier) = self.block_of(warp, barriers[lane], number)?;
            if !matches!(target, Target::Shared { block: of, .. } if of == other) {
                return Err(Fault::of_lane(
                    FaultKind::Asynchronous,
                    number,
                    format!(
                        "it stores to {:#x}, counted by {:#x}; expected both in one block",
                        addresses[lane], barriers[lane]
                    ),
                ));
            }
            let mut values = [0u8; 32];
            for (chunk, register) in values.chunks_exact_mut(bytes).zip(&r[2..2 + count]) {
                let bank = if bytes == 8 { Bank::Double } else { Bank::Word };
                if warp.registers.undefined(bank, *register) >> lane & 1 == 1 {
                    return Err(undefined_value(number, "the value that it stores"));
                }
                let value = if bytes == 8 {
                    warp.registers.double(*register)[lane]
                } else {
                    warp.registers.word(*register)[lane].into()
                };
                memory::store(chunk, value);
            }
            let knows = Rc::clone(&knows);
            let author = (warp.number - self.first_resident) as usize;
            let len = len as u8;
            self.in_flight.push(InFlight {
                block,
                to,
                bytes: values,
                len,
                barrier,
                lane: number,
                warp: author,
                at,
                knows,
            });
            Ok(())
        })
    }

    /// Delivers some of the stores that are on their way.
    pub fn deliver_some(&mut self) -> Result<(), (Box<Fault>, Spot)> {
        while !self.in_flight.is_empty() && (!self.shuffled || self.random.once_in(2)) {
            self.deliver_one()?;
        }
        Ok(())
    }

    /// Delivers one of them; false if there is none.
    pub fn deliver_one(&mut self) -> Result<bool, (Box<Fault>, Spot)> {
        if self.in_flight.is_empty() {
            return Ok(false);
        }
        let index = if self.shuffled { self.random.below(self.in_flight.len()) } else { 0 };
        let store = self.in_flight.swap_remove(index);
        let spot = Some((store.warp, store.at));
        self.deliver(store).map_err(|fault| (fault, spot))?;
        self.effect();
        Ok(true)
    }

    fn deliver(&mut self, store: InFlight) -> Result<()> {
        let InFlight { block, to, bytes, len, barrier, lane, at, knows, .. } = store;
        if self.blocks[block].live == 0 {
            return Err(Fault::of_lane(
                FaultKind::Asynchronous,
                lane,
                format!(
                    "the store to {to:#x} arrives when resident block {block} has ended; expected that to wait for it"
                ),
            ));
        }
        let mbarrier = self.mbarrier(block, barrier, lane, |who| knows.ordered(lane, who, 1, 1))?;
        let (component, time) = (mbarrier.component, mbarrier.current());
        let offset = self.blocks[block].shared.find(to, len.into(), lane)?;
        let target = Target::Shared { block, offset };
        self.check_async_write(&knows, target, len.into(), lane, at, component, time)?;
        self.bytes(target, len.into()).copy_from_slice(&bytes[..usize::from(len)]);
        let released = knows.message(1 << lane);
        self.mbarrier(block, barrier, lane, |_| true)?.complete(len.into(), &released)
    }

    pub fn copy_async(&mut self, warp: &mut Warp, instruction: &Instruction, at: u32, lanes: u32) -> Result<()> {
        let Operation::CopyAsync { bytes, partial, to_offset, from_offset } = instruction.operation else {
            return Ok(());
        };
        let r = &instruction.registers;
        let to = warp.registers.word_addresses(r[0], to_offset, lanes)?;
        let from = warp.registers.double(r[1]).map(|base| base.wrapping_add(from_offset as u64));
        let sizes = if partial { *warp.registers.word(r[2]) } else { [bytes.into(); 32] };
        let component = match warp.copies.component {
            Some(component) => component,
            None => *warp.copies.component.insert(self.component()),
        };
        let time = warp.copies.closed + 1;
        try_lanes(lanes, |lane| {
            let number = lane as u32;
            let len = u64::from(bytes);
            let size = sizes[lane].min(bytes.into());
            let mut values = [0u8; 16];
            if size > 0 {
                if from[lane] % len != 0 {
                    return Err(Fault::of_lane(
                        FaultKind::Misaligned,
                        number,
                        format!("a copy of {len} bytes from {:#x}; expected a multiple of {len}", from[lane]),
                    ));
                }
                // Only what is copied has to be there; in pieces as large as its size and address allow.
                let piece = 1 << (size as u64 | len).trailing_zeros().min(4);
                for part in (0..size as usize).step_by(piece) {
                    let source = self.target(warp, Space::Global, from[lane] + part as u64, piece as u64, number)?;
                    self.check_read(warp, source, piece as u64, u32::MAX, Order::Weak, number, at)?;
                    values[part..part + piece].copy_from_slice(self.bytes(source, piece as u64));
                }
            }
            let target = self.target(warp, Space::Shared, to[lane], len, number)?;
            let Target::Shared { offset, .. } = target else { return Ok(()) };
            self.check_async_write(&warp.clock, target, len, number, at, component, time)?;
            warp.copies.open.push(Copy { to: offset, bytes: values, len: bytes });
            Ok(())
        })?;
        // What the copies read and overwrite is known to their waiting thread alone.
        Ok(())
    }

    /// Copies so far are a group; that of whole warps is what this interpreter follows.
    pub fn copy_commit(&mut self, warp: &mut Warp, lanes: u32) -> Result<()> {
        whole_groups(warp, lanes)?;
        warp.copies.closed += 1;
        let group = std::mem::take(&mut warp.copies.open);
        warp.copies.groups.push_back(group);
        Ok(())
    }

    /// Completes all groups but the last `groups`.
    pub fn copy_wait(&mut self, warp: &mut Warp, groups: u32, lanes: u32) -> Result<()> {
        whole_groups(warp, lanes)?;
        while warp.copies.groups.len() > groups as usize {
            for copy in warp.copies.groups.pop_front().unwrap_or_default() {
                let target = Target::Shared { block: warp.block, offset: copy.to };
                self.bytes(target, copy.len.into()).copy_from_slice(&copy.bytes[..usize::from(copy.len)]);
            }
        }
        if let Some(component) = warp.copies.component {
            let done = warp.clock.knowing(component, warp.copies.closed - warp.copies.groups.len() as u32);
            warp.clock.acquire(lanes, warp.live, &done);
        }
        self.effect();
        Ok(())
    }
}

fn whole_groups(warp: &Warp, lanes: u32) -> Result<()> {
    if lanes == warp.live {
        return Ok(());
    }
    Err(Fault::new(
        FaultKind::Unsupported,
        format!(
            "lanes {lanes:#010x} of {:#010x}: groups of copies are followed for all lanes of a warp together",
            warp.live
        ),
    ))
}
