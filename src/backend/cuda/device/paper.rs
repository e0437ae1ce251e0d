//! A GPU on paper: plans are made for it, nothing runs. For saying what would run where there is no GPU.
#![allow(unsafe_code)]

use super::super::images::{self, catalog};
use super::{Device, DevicePtr, Launch, Properties};
use crate::error::{Error, Result};

/// Registers and threads of a multiprocessor of every GPU since compute capability 7.5, but for 7.5's 1024 threads.
const REGISTERS: u32 = 65_536;
const THREADS: u32 = 2_048;
/// What a resident block takes of shared memory besides its own.
const SHARED_OVERHEAD: u32 = 1_024;

/// A GPU that nothing can run on.
#[derive(Clone, Debug)]
pub struct Paper {
    properties: Properties,
}

/// A kernel of the catalog.
#[derive(Clone, Debug)]
pub struct PaperKernel {
    name: String,
    /// Registers of a thread where the kernel was compiled for this GPU; else the most that its block may have.
    registers: u32,
}

impl PaperKernel {
    /// Its entry point.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Paper {
    /// A GPU with these properties.
    pub fn new(properties: Properties) -> Self {
        Paper { properties }
    }

    fn nothing_runs<T>(&self, what: &str) -> Result<T> {
        Err(Error::unsupported(
            format!("{what} on {}", self.properties.name),
            "this device is for plans only; open a GPU, or use the cpu backend",
        ))
    }
}

impl Device for Paper {
    type Stream = ();
    type Kernel = PaperKernel;

    const NAME: &'static str = "paper";

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn kernel(&self, name: &str) -> Result<PaperKernel> {
        let entry = catalog::entries().into_iter().find(|entry| entry.name == name);
        let entry =
            entry.ok_or_else(|| Error::unsupported(format!("kernel {name}"), "the catalog has no such entry"))?;
        let (major, minor) = self.properties.compute_capability;
        let own =
            images::entry(name).find(|(image, _)| image.arch().machine && image.arch().compute == major * 10 + minor);
        let registers = own.map_or(REGISTERS / entry.threads, |(_, entry)| entry.resources.registers);
        Ok(PaperKernel { name: entry.name, registers: registers.min(255) })
    }

    fn resident_blocks(&self, kernel: &PaperKernel, launch: &Launch) -> Result<u32> {
        // A warp's registers are given out in pieces of 256, eight a thread.
        let registers = kernel.registers.next_multiple_of(8) * launch.block.next_multiple_of(32);
        let by_registers = REGISTERS / registers.max(1);
        let by_threads = THREADS / launch.block.max(1);
        let by_shared =
            (self.properties.shared_bytes_per_block + SHARED_OVERHEAD) / (launch.shared_bytes + SHARED_OVERHEAD);
        let blocks = by_registers.min(by_threads).min(by_shared) * self.properties.multiprocessors;
        Ok(blocks - blocks % launch.cluster.max(1))
    }

    unsafe fn launch(&self, (): &(), kernel: &PaperKernel, _: &Launch, _: &[u8]) -> Result<()> {
        self.nothing_runs(&format!("kernel {}", kernel.name))
    }

    unsafe fn fill(&self, (): &(), _: DevicePtr, _: u8, _: usize) -> Result<()> {
        self.nothing_runs("a memset")
    }

    /// An address that nothing may be read from or written to.
    fn allocate(&self, _: &str, _: usize) -> Result<DevicePtr> {
        Ok(DevicePtr(256))
    }

    unsafe fn release(&self, _: DevicePtr, _: usize) {}

    /// Forgets what it is given, since plans put zeros in their status.
    unsafe fn upload(&self, (): &(), _: DevicePtr, _: &[u8]) -> Result<()> {
        Ok(())
    }

    unsafe fn download(&self, (): &(), _: DevicePtr, _: &mut [u8]) -> Result<()> {
        self.nothing_runs("a copy to the host")
    }

    fn synchronize(&self, (): &()) -> Result<()> {
        Ok(())
    }
}
