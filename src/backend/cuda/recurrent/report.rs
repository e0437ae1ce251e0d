//! Report of a plan: its kernels, launches and estimates.

use super::super::device::Device;
use super::super::kernel::gemm::ProductShape;
use super::super::options::Family;
use super::family::{Persistent, TimeLoop};
use super::plan::CudaPlan;
use super::products::{self, Pass, Product};
use crate::error::Result;

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
    /// Tiles of sequences that a group of blocks works on one after another.
    pub tiles: u32,
    /// Sequences of a tile, which go through a step in one pass.
    pub tile_sequences: u32,
    /// Bytes of the recurrent weights that a block keeps in registers and shared memory.
    pub resident_bytes: u32,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
    /// Whether the kernel computes `W x` of the first layer itself, in calls without lengths and resets: where the input is one number.
    pub input_in_loop: bool,
}

impl TimeLoopReport {
    pub(super) fn new<D: Device, P: Persistent>(
        pass: &'static str,
        chosen: &TimeLoop<D, P>,
        input_in_loop: bool,
    ) -> Self {
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
                tile_sequences: persistent.about.tile,
                resident_bytes: persistent.resident_bytes(),
                shared_bytes: persistent.launch.shared_bytes,
                input_in_loop,
            }),
        }
    }
}

/// What a plan says of a matrix product of its first layer. The kernel is that for tensors that begin at multiples of 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductReport {
    /// `W x`, `dx`, `dW`, `dR`, and of a step's launches `R h`, `R^T da`; of a candidate whose product is apart `R_n q` and so on, of a
    /// projection `P u` and so on.
    pub product: &'static str,
    /// Entry point, or cuBLASLt's algorithm.
    pub kernel: String,
    /// Rows and columns of the result.
    pub m: usize,
    /// See `m`.
    pub n: usize,
    /// Terms of a sum.
    pub k: usize,
    /// Pieces of the sums, which are added up afterwards.
    pub splits: usize,
}

/// The products of a plan's first layer.
pub(super) fn products<D: Device>(plan: &CudaPlan<D>) -> Result<Vec<ProductReport>> {
    let training = plan.backward_loop.is_some();
    let of_plan = products::products(&plan.sizes(), plan.gradient, plan.steps(), 0);
    let reported = of_plan.into_iter().filter(|product| training || product.pass == Pass::Forward);
    let report = |Product { name, orientation, shape, .. }: Product| {
        let (kernel, splits) = plan.kernels.gemm(orientation)?.kernel_of(&shape)?;
        let ProductShape { m, n, k, .. } = shape;
        Ok(ProductReport { product: name, kernel, m, n, k, splits })
    };
    reported.map(report).collect()
}
