//! Report of a plan: its kernels, launches and estimates.

use super::super::device::Device;
use super::super::options::Family;
use super::family::{Persistent, TimeLoop};

/// What a plan says of one of its time loops.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeLoopReport {
    /// `forward` or `backward`.
    pub pass: &'static str,
    /// Which kernels.
    pub family: Family,
    /// Why these, and why not the others.
    pub why: String,
    /// Predicted time of a step, nanoseconds; an estimate that has not been measured.
    pub predicted_ns: f64,
    /// What the persistent kernel's launch is; none in the step family.
    pub persistent: Option<PersistentReport>,
}

/// What a plan says of a persistent launch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentReport {
    /// Entry point.
    pub kernel: String,
    /// Blocks of the launch, and threads of each.
    pub blocks: u32,
    /// See `blocks`.
    pub threads: u32,
    /// Blocks of a cluster, 1 for none.
    pub cluster: u32,
    /// Blocks that the device holds at a time.
    pub resident_blocks: u32,
    /// Tiles of eight sequences that a group of blocks works on one after another.
    pub tiles: u32,
    /// Bytes of the recurrent weights that a block keeps in registers and shared memory.
    pub resident_bytes: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

impl TimeLoopReport {
    pub(super) fn new<D: Device, P: Persistent>(pass: &'static str, chosen: &TimeLoop<D, P>) -> Self {
        TimeLoopReport {
            pass,
            family: chosen.family,
            why: chosen.why.clone(),
            predicted_ns: chosen.predicted_ns,
            persistent: chosen.persistent.as_ref().map(|persistent| PersistentReport {
                kernel: persistent.about.name.clone(),
                blocks: persistent.blocks(),
                threads: persistent.launch.block,
                cluster: persistent.launch.cluster,
                resident_blocks: persistent.resident_blocks,
                tiles: persistent.tiles,
                resident_bytes: persistent.resident_bytes(),
                shared_bytes: persistent.launch.shared_bytes,
            }),
        }
    }
}
