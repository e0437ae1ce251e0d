//! Memory of the device: allocations far apart, so that an address outside one is outside all; and a block's shared memory.

use super::decode::SHARED_BASE;
use super::fault::{Fault, FaultKind, Result};
use super::race::Shadow;

/// Where the first allocation stands.
const FIRST: u64 = 0x7000_0000_0000;
/// What addresses are aligned to.
const ALIGNMENT: u64 = 256;
/// Bytes between allocations that belong to none, besides as many as the allocation has.
const RED_ZONE: u64 = 1 << 20;
/// Addresses of shared memory are below; a block's own begin at zero, those of the cluster's block `rank` at `(rank + 1) << 24`.
pub const SHARED_WINDOW: u64 = 1 << 32;
/// Bits of an address within a block's window.
pub const WINDOW_BITS: u32 = 24;

/// One allocation.
#[derive(Debug)]
pub struct Allocation {
    pub start: u64,
    pub bytes: Vec<u8>,
}

/// All allocations, in the order of their addresses.
#[derive(Debug, Default)]
pub struct GlobalMemory {
    allocations: Vec<Allocation>,
    next: u64,
}

impl GlobalMemory {
    /// Memory full of NaNs; nothing where the host has too little.
    pub fn allocate(&mut self, bytes: usize) -> Option<u64> {
        let mut contents = Vec::new();
        contents.try_reserve_exact(bytes).ok()?;
        contents.resize(bytes, 0xff);
        let start = self.next.max(FIRST);
        self.next = (start + 2 * bytes as u64 + RED_ZONE).next_multiple_of(ALIGNMENT);
        self.allocations.push(Allocation { start, bytes: contents });
        Some(start)
    }

    /// Forgets the allocation at `start`, if it has `bytes` bytes.
    pub fn release(&mut self, start: u64, bytes: usize) {
        self.allocations.retain(|allocation| allocation.start != start || allocation.bytes.len() != bytes);
    }

    /// Bytes allocated and not given back.
    pub fn allocated(&self) -> usize {
        self.allocations.iter().map(|allocation| allocation.bytes.len()).sum()
    }

    pub fn allocations(&self) -> &[Allocation] {
        &self.allocations
    }

    /// The allocation that holds `len` bytes at `address`, and where in it.
    pub fn find(&self, address: u64, len: u64) -> Option<(usize, u64)> {
        let after = self.allocations.partition_point(|allocation| allocation.start <= address);
        let index = after.checked_sub(1)?;
        let allocation = &self.allocations[index];
        let offset = address - allocation.start;
        let end = offset.checked_add(len)?;
        (end <= allocation.bytes.len() as u64).then_some((index, offset))
    }

    /// Bytes at an address.
    pub fn slice(&self, address: u64, len: usize) -> Option<&[u8]> {
        let (index, offset) = self.find(address, len as u64)?;
        Some(&self.allocations[index].bytes[offset as usize..][..len])
    }

    pub fn slice_mut(&mut self, address: u64, len: usize) -> Option<&mut [u8]> {
        let (index, offset) = self.find(address, len as u64)?;
        Some(&mut self.allocations[index].bytes[offset as usize..][..len])
    }

    /// Bytes of an allocation that [`find`](Self::find) gave.
    #[inline(always)]
    pub fn at(&mut self, (index, offset): (usize, u64), len: u64) -> &mut [u8] {
        &mut self.allocations[index].bytes[offset as usize..][..len as usize]
    }

    /// What is wrong with an address that [`find`](Self::find) does not find.
    pub fn outside(&self, address: u64, len: u64, lane: u32) -> Box<Fault> {
        let after = self.allocations.partition_point(|allocation| allocation.start <= address);
        let near = after.checked_sub(1).map(|index| &self.allocations[index]);
        let problem = match near {
            Some(near) => {
                let size = near.bytes.len() as u64;
                let offset = address - near.start;
                format!(
                    "{len} bytes at {address:#x}; expected an address in an allocation: the nearest below has {size} bytes at {:#x}, \
                     so this is {} bytes past its end",
                    near.start,
                    (offset + len).saturating_sub(size)
                )
            }
            None => format!("{len} bytes at {address:#x}; expected an address in an allocation"),
        };
        Fault::of_lane(FaultKind::OutOfBounds, lane, problem)
    }
}

/// Shared memory of a block.
#[derive(Debug)]
pub struct SharedMemory {
    pub bytes: Vec<u8>,
    pub shadow: Shadow,
}

impl SharedMemory {
    pub fn new(bytes: u32) -> Self {
        SharedMemory { bytes: vec![0xff; bytes as usize], shadow: Shadow::new(bytes.into()) }
    }

    /// Where `len` bytes at an address within the block's window are.
    #[inline(always)]
    pub fn find(&self, address: u64, len: u64, lane: u32) -> Result<u64> {
        let size = self.bytes.len() as u64;
        let offset = address.wrapping_sub(SHARED_BASE);
        if offset.checked_add(len).is_some_and(|end| end <= size) {
            return Ok(offset);
        }
        Err(Fault::of_lane(
            FaultKind::OutOfBounds,
            lane,
            format!(
                "{len} bytes at {address:#x} of shared memory; expected an address from {SHARED_BASE:#x} to {:#x}, since the launch has {size} bytes",
                SHARED_BASE + size
            ),
        ))
    }
}

/// A number of up to 8 bytes.
#[inline(always)]
pub fn load(bytes: &[u8]) -> u64 {
    match bytes.len() {
        2 => u64::from(u16::from_le_bytes([bytes[0], bytes[1]])),
        4 => u64::from(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])),
        8 => u64::from_le_bytes(std::array::from_fn(|i| bytes[i])),
        _ => bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)),
    }
}

#[inline(always)]
pub fn store(bytes: &mut [u8], value: u64) {
    match bytes {
        [a, b] => [*a, *b] = (value as u16).to_le_bytes(),
        [a, b, c, d] => [*a, *b, *c, *d] = (value as u32).to_le_bytes(),
        _ => {
            let len = bytes.len();
            bytes.copy_from_slice(&value.to_le_bytes()[..len]);
        }
    }
}
