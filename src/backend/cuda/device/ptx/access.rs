//! Loads, stores, atomic operations and fences: addresses, checks, and the order between threads.

use std::rc::Rc;

use super::execute::{combined, try_lanes};
use super::fault::{Fault, FaultKind, Result};
use super::instruction::*;
use super::machine::Machine;
use super::memory::{self, SHARED_WINDOW, WINDOW_BITS};
use super::race::{Agent, Shadow};
use super::registers::Registers;
use super::text::Bank;
use super::warp::Warp;

/// Bytes that an address means.
#[derive(Clone, Copy, Debug)]
pub enum Target {
    Global { allocation: usize, offset: u64 },
    Shared { block: usize, offset: u64 },
}

impl Registers {
    /// Addresses of all lanes.
    fn addresses(&self, register: u16, access: &Access, lanes: u32) -> Result<[u64; 32]> {
        match access.address {
            AddressRegister::Word => self.word_addresses(register, access.offset, lanes),
            AddressRegister::Double => {
                defined(self.undefined(Bank::Double, register) & lanes, "its address")?;
                let mut addresses = *self.double(register);
                for address in &mut addresses {
                    *address = address.wrapping_add(access.offset as u64);
                }
                Ok(addresses)
            }
        }
    }

    /// Addresses in shared memory.
    pub fn word_addresses(&self, register: u16, offset: i64, lanes: u32) -> Result<[u64; 32]> {
        defined(self.undefined(Bank::Word, register) & lanes, "its address")?;
        let mut addresses = [0; 32];
        for (address, base) in addresses.iter_mut().zip(self.word(register)) {
            *address = u64::from(base.wrapping_add(offset as u32));
        }
        Ok(addresses)
    }

    /// Bytes of values that are undefined in a lane, a bit for each.
    fn undefined_bytes(&self, registers: &[u16], access: &Access, lane: usize) -> u32 {
        if !self.may_be_undefined() {
            return 0;
        }
        let bank = if access.doubles { Bank::Double } else { Bank::Word };
        let ones = (1 << access.bytes) - 1;
        registers.iter().rev().fold(0, |bytes, register| {
            let undefined = self.undefined(bank, *register) >> lane & 1 == 1;
            bytes << access.bytes | if undefined { ones } else { 0 }
        })
    }
}

/// Puts a lane's `count` values of `bytes` bytes where values of all lanes stand.
#[inline(always)]
fn take(from: &[u8], bytes: usize, count: usize, lane: usize, values: &mut [[u64; 32]; 8]) {
    for (i, value) in values[..count].iter_mut().enumerate() {
        value[lane] = memory::load(&from[i * bytes..(i + 1) * bytes]);
    }
}

/// That no lane's value is undefined.
#[inline(always)]
fn defined(undefined: u32, what: &str) -> Result<()> {
    if undefined == 0 { Ok(()) } else { Err(undefined_value(undefined.trailing_zeros(), what)) }
}

/// A value that must not be undefined is.
pub fn undefined_value(lane: u32, what: &str) -> Box<Fault> {
    Fault::of_lane(
        FaultKind::Uninitialised,
        lane,
        format!("{what} comes from shared memory that nothing has written; expected a write before"),
    )
}

impl Machine<'_> {
    /// The bytes at an address of the space, and checks of it.
    #[inline(always)]
    pub fn target(&mut self, warp: &Warp, space: Space, address: u64, len: u64, lane: u32) -> Result<Target> {
        if address & (len - 1) != 0 {
            return Err(Fault::of_lane(
                FaultKind::Misaligned,
                lane,
                format!("{len} bytes at {address:#x}; expected a multiple of {len}"),
            ));
        }
        let shared = match space {
            Space::Shared | Space::ClusterShared => true,
            Space::Generic => address < SHARED_WINDOW,
            Space::Global | Space::Param => false,
        };
        if shared {
            let (block, within) = self.block_of(warp, address, lane)?;
            if space == Space::Shared && block != warp.block {
                return Err(Fault::of_lane(
                    FaultKind::OutOfBounds,
                    lane,
                    format!("{address:#x} is in another block's shared memory; expected shared::cluster for it"),
                ));
            }
            let offset = self.blocks[block].shared.find(within, len, lane)?;
            return Ok(Target::Shared { block, offset });
        }
        if let Some(recent) = self.global.allocations().get(self.recent) {
            let offset = address.wrapping_sub(recent.start);
            if offset.checked_add(len).is_some_and(|end| end <= recent.bytes.len() as u64) {
                return Ok(Target::Global { allocation: self.recent, offset });
            }
        }
        let Some((allocation, offset)) = self.global.find(address, len) else {
            return Err(self.global.outside(address, len, lane));
        };
        self.recent = allocation;
        Ok(Target::Global { allocation, offset })
    }

    /// The block whose shared memory an address is in, and the address there.
    #[inline(always)]
    pub fn block_of(&self, warp: &Warp, address: u64, lane: u32) -> Result<(usize, u64)> {
        let within = address & ((1 << WINDOW_BITS) - 1);
        let Some(rank) = (address >> WINDOW_BITS).checked_sub(1) else { return Ok((warp.block, within)) };
        let cluster = self.launch.cluster.max(1) as usize;
        let block = warp.block / cluster * cluster + rank as usize;
        if rank >= cluster as u64 {
            return Err(Fault::of_lane(
                FaultKind::OutOfBounds,
                lane,
                format!("{address:#x} is in block {rank} of a cluster of {cluster}"),
            ));
        }
        if self.blocks[block].live == 0 {
            return Err(Fault::of_lane(
                FaultKind::Asynchronous,
                lane,
                format!(
                    "{address:#x} is in the shared memory of block {rank} of the cluster, which has ended; expected it to wait"
                ),
            ));
        }
        Ok((block, within))
    }

    /// The bytes of a target.
    #[inline(always)]
    pub fn bytes(&mut self, target: Target, len: u64) -> &mut [u8] {
        match target {
            Target::Global { allocation, offset } => self.global.at((allocation, offset), len),
            Target::Shared { block, offset } => &mut self.blocks[block].shared.bytes[offset as usize..][..len as usize],
        }
    }

    /// The shadow of a target's memory, the address of its beginning, and the target's offset.
    #[inline(always)]
    fn shadow(&mut self, target: Target) -> (&mut Shadow, u64, u64) {
        match target {
            Target::Global { allocation, offset } => {
                let memory = &self.global.allocations()[allocation];
                if self.shadows.len() <= allocation {
                    self.shadows.resize_with(allocation + 1, || None);
                }
                let shadow = self.shadows[allocation].get_or_insert_with(|| Shadow::new(memory.bytes.len() as u64));
                (shadow, memory.start, offset)
            }
            Target::Shared { block, offset } => {
                (&mut self.blocks[block].shared.shadow, super::decode::SHARED_BASE, offset)
            }
        }
    }

    /// Checks a read for races. Gives the bytes of shared memory that nothing has written, a bit for each.
    #[allow(clippy::too_many_arguments, reason = "an access, and its author")]
    #[inline(always)]
    pub fn check_read(
        &mut self,
        warp: &Warp,
        target: Target,
        len: u64,
        used: u32,
        order: Order,
        lane: u32,
        at: u32,
    ) -> Result<u32> {
        let agent = Agent { clock: &warp.clock, lane, at, order, topology: self.topology };
        let (shadow, base, offset) = self.shadow(target);
        let undefined = shadow.read(agent, base, offset, len, used)?;
        Ok(if matches!(target, Target::Shared { .. }) { undefined } else { 0 })
    }

    /// Checks a write for races; some of its bytes may be undefined.
    #[allow(clippy::too_many_arguments, reason = "an access, and its author")]
    #[inline(always)]
    pub fn check_write(
        &mut self,
        warp: &Warp,
        target: Target,
        len: u64,
        undefined: u32,
        order: Order,
        lane: u32,
        at: u32,
    ) -> Result<()> {
        if undefined != 0 && matches!(target, Target::Global { .. }) {
            return Err(undefined_value(lane, "the value that it stores"));
        }
        let agent = Agent { clock: &warp.clock, lane, at, order, topology: self.topology };
        let (shadow, base, offset) = self.shadow(target);
        shadow.write(agent, base, offset, len, undefined)
    }

    /// Checks a write that is complete at `time` of `component`.
    #[allow(clippy::too_many_arguments, reason = "an access, its author, and when it is complete")]
    pub fn check_async_write(
        &mut self,
        clock: &super::clock::WarpClock,
        target: Target,
        len: u64,
        lane: u32,
        at: u32,
        component: u32,
        time: u32,
    ) -> Result<()> {
        let agent = Agent { clock, lane, at, order: Order::Weak, topology: self.topology };
        let (shadow, base, offset) = self.shadow(target);
        shadow.write_async(agent, base, offset, len, component, time)
    }

    pub fn load(&mut self, warp: &mut Warp, r: &[u16; OPERANDS], access: &Access, at: u32, lanes: u32) -> Result<()> {
        let count = usize::from(access.count);
        let addresses = warp.registers.addresses(r[count], access, lanes)?;
        let (bytes, len) = (usize::from(access.bytes), u64::from(access.bytes) * count as u64);
        let mut values = [[0u64; 32]; 8];
        let mut undefined = [0u32; 8];
        let may_be_old = matches!(access.order, Order::Relaxed(_)) && self.shuffled && self.together;
        let receives = matches!(access.order, Order::Relaxed(_) | Order::Ordered(_));
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            if access.space == Space::Param {
                let start = address as usize;
                let Some(found) = self.params.get(start..).and_then(|rest| rest.get(..len as usize)) else {
                    return Err(Fault::of_lane(
                        FaultKind::OutOfBounds,
                        number,
                        format!("{len} bytes at {start} of parameters that have {}", self.params.len()),
                    ));
                };
                take(found, bytes, count, lane, &mut values);
                return Ok(());
            }
            let target = self.target(warp, access.space, address, len, number)?;
            let missing = self.check_read(warp, target, len, access.used, access.order, number, at)?;
            if missing != 0 {
                for (i, undefined) in undefined[..count].iter_mut().enumerate() {
                    let of_value = missing >> (i * bytes) & ((1 << bytes) - 1) != 0;
                    *undefined |= u32::from(of_value) << lane;
                }
            }
            if may_be_old && matches!(target, Target::Global { .. }) {
                let mut found = [0u8; 64];
                found[..len as usize].copy_from_slice(self.bytes(target, len));
                for (i, word) in found[..len as usize].chunks_exact_mut(4).enumerate() {
                    let newest = memory::load(word) as u32;
                    let place = address + 4 * i as u64;
                    let value = self.versions.load(place, newest, &warp.clock, number, &mut self.random);
                    word.copy_from_slice(&value.to_le_bytes());
                }
                take(&found[..len as usize], bytes, count, lane, &mut values);
            } else {
                take(self.bytes(target, len), bytes, count, lane, &mut values);
            }
            if receives {
                self.receive(warp, address, len, access.order, number);
            }
            Ok(())
        })?;
        for (i, value) in values[..count].iter_mut().enumerate() {
            let register = r[i];
            if access.signed && bytes < 8 {
                let unused = 64 - 8 * bytes as u32;
                value.iter_mut().for_each(|value| *value = ((*value << unused) as i64 >> unused) as u64);
            }
            let bank = if access.doubles { Bank::Double } else { Bank::Word };
            if access.doubles {
                warp.registers.put_doubles(register, value, lanes);
            } else {
                let mut words = [0; 32];
                for (word, value) in words.iter_mut().zip(&*value) {
                    *word = *value as u32;
                }
                warp.registers.put_words(register, &words, lanes);
            }
            if undefined[i] != 0 {
                warp.registers.define(bank, register, undefined[i], lanes);
            }
        }
        Ok(())
    }

    /// A strong load learns, now or at its next fence, what a release left at the address.
    fn receive(&mut self, warp: &mut Warp, address: u64, len: u64, order: Order, lane: u32) {
        if self.messages.is_empty() {
            return;
        }
        let (Order::Relaxed(scope) | Order::Ordered(scope)) = order else { return };
        for place in (address..address + len).step_by(4) {
            let Some((released, author, message)) = self.messages.get(&place) else { continue };
            let reaches = self.topology.includes(*released, *author, warp.number)
                && self.topology.includes(scope, warp.number, *author);
            if !reaches {
                continue;
            }
            if matches!(order, Order::Ordered(_)) {
                warp.clock.acquire(1 << lane, warp.live, message);
            } else {
                warp.clock.observe(lane, scope, message);
            }
        }
    }

    pub fn store(&mut self, warp: &mut Warp, r: &[u16; OPERANDS], access: &Access, at: u32, lanes: u32) -> Result<()> {
        let count = usize::from(access.count);
        let addresses = warp.registers.addresses(r[0], access, lanes)?;
        let (bytes, len) = (usize::from(access.bytes), u64::from(access.bytes) * count as u64);
        let releases = match access.order {
            Order::Ordered(scope) => Some((scope, Rc::new(warp.clock.message(lanes)))),
            _ => None,
        };
        self.effect();
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            let target = self.target(warp, access.space, address, len, number)?;
            let undefined = warp.registers.undefined_bytes(&r[1..=count], access, lane);
            self.check_write(warp, target, len, undefined, access.order, number, at)?;
            self.send(warp, address, len, access.order, number, releases.as_ref());
            let mut values = [0u8; 64];
            for (i, register) in r[1..=count].iter().enumerate() {
                let value = if access.doubles {
                    warp.registers.double(*register)[lane]
                } else {
                    warp.registers.word(*register)[lane].into()
                };
                memory::store(&mut values[i * bytes..(i + 1) * bytes], value);
            }
            let keep = self.shuffled && self.together && len >= 4 && matches!(target, Target::Global { .. });
            if keep && access.order != Order::Weak {
                let mut old = [0u8; 64];
                old[..len as usize].copy_from_slice(self.bytes(target, len));
                for (i, word) in old[..len as usize].chunks_exact(4).enumerate() {
                    self.versions.replace(address + 4 * i as u64, memory::load(word) as u32, &warp.clock, number);
                }
            }
            self.bytes(target, len).copy_from_slice(&values[..len as usize]);
            Ok(())
        })?;
        if releases.is_some() {
            warp.clock.now += 1;
        }
        Ok(())
    }

    /// A store leaves at its address what it releases, or what a fence before it released.
    fn send(
        &mut self,
        warp: &Warp,
        address: u64,
        len: u64,
        order: Order,
        lane: u32,
        releases: Option<&(Scope, Rc<super::clock::Clock>)>,
    ) {
        let message = match order {
            Order::Ordered(_) => releases.cloned(),
            Order::Relaxed(scope) => warp.clock.fenced(lane).map(|(fence, message)| (scope.min(fence), message)),
            Order::Weak | Order::Constant => None,
        };
        if message.is_none() && self.messages.is_empty() {
            return;
        }
        for place in (address / 4 * 4..address + len).step_by(4) {
            match &message {
                Some((scope, message)) => {
                    self.messages.insert(place, (*scope, warp.number, Rc::clone(message)));
                }
                None => {
                    self.messages.remove(&place);
                }
            }
        }
    }

    #[allow(clippy::too_many_arguments, reason = "an instruction's parts and who executes it")]
    pub fn atomic(
        &mut self,
        warp: &mut Warp,
        r: &[u16; OPERANDS],
        access: &Access,
        combine: Combine,
        returns: bool,
        at: u32,
        lanes: u32,
    ) -> Result<()> {
        let addresses = warp.registers.addresses(r[1], access, lanes)?;
        let mut results = [0; 32];
        self.effect();
        try_lanes(lanes, |lane| {
            let (address, number) = (addresses[lane], lane as u32);
            let target = self.target(warp, access.space, address, 4, number)?;
            let scope = match access.order {
                Order::Relaxed(scope) | Order::Ordered(scope) => scope,
                Order::Weak | Order::Constant => Scope::Gpu,
            };
            // As a release and an acquire where it is `.acq_rel`; it goes on with what others released there.
            self.receive(warp, address, 4, access.order, number);
            self.check_write(warp, target, 4, 0, Order::Relaxed(scope), number, at)?;
            let mut message = match access.order {
                Order::Ordered(scope) => Some((scope, warp.number, Rc::new(warp.clock.message(1 << number)))),
                _ => warp.clock.fenced(number).map(|(fence, message)| (scope.min(fence), warp.number, message)),
            };
            if let Some((scope, author, earlier)) = self.messages.remove(&address) {
                message = Some(match message {
                    None => (scope, author, earlier),
                    Some((own, author, mut knows)) => {
                        Rc::make_mut(&mut knows).join(&earlier);
                        (own.max(scope), author, knows)
                    }
                });
            }
            if let Some(message) = message {
                self.messages.insert(address, message);
            }
            let value = warp.registers.word(r[2])[lane];
            let other = warp.registers.word(r[3])[lane];
            let bytes = self.bytes(target, 4);
            let old = memory::load(bytes) as u32;
            memory::store(bytes, combined(combine, old, value, other).into());
            results[lane] = old;
            if self.shuffled && self.together && matches!(target, Target::Global { .. }) {
                self.versions.replace(address, old, &warp.clock, number);
            }
            Ok(())
        })?;
        warp.clock.now += 1;
        if returns {
            warp.registers.put_words(r[0], &results, lanes);
        }
        Ok(())
    }

    pub fn fence(&mut self, warp: &mut Warp, fence: Fence, scope: Scope, lanes: u32) {
        if matches!(fence, Fence::Everything | Fence::Release) {
            warp.clock.fence_release(lanes, scope);
        }
        if matches!(fence, Fence::Everything | Fence::Acquire) {
            warp.clock.fence_acquire(lanes, warp.live, |_| scope >= Scope::Block);
        }
        if fence == Fence::MbarrierInit {
            warp.clock.announce();
        }
    }

    pub fn map_cluster(&mut self, warp: &mut Warp, r: &[u16; OPERANDS], double: bool, lanes: u32) -> Result<()> {
        let ranks = *warp.registers.word(r[2]);
        let own: [u64; 32] =
            if double { *warp.registers.double(r[1]) } else { warp.registers.word(r[1]).map(u64::from) };
        let cluster = self.launch.cluster;
        try_lanes(lanes, |lane| {
            if ranks[lane] < cluster && own[lane] >> WINDOW_BITS == 0 {
                return Ok(());
            }
            Err(Fault::of_lane(
                FaultKind::OutOfBounds,
                lane as u32,
                format!(
                    "{:#x} in block {} of a cluster of {cluster}; expected an address of the own block and a block of the cluster",
                    own[lane], ranks[lane]
                ),
            ))
        })?;
        let mapped = std::array::from_fn(|lane| own[lane] | u64::from(ranks[lane] + 1) << WINDOW_BITS);
        if double {
            warp.registers.put_doubles(r[0], &mapped, lanes);
        } else {
            warp.registers.put_words(r[0], &mapped.map(|address| address as u32), lanes);
        }
        Ok(())
    }
}
