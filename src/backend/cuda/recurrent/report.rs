//! Report of a plan: its kernels, launches and estimates.

use super::super::device::Device;
use super::super::kernel::gemm::{Orientation, ProductShape, weight_splits};
use super::super::options::Family;
use super::cell::{gradient_slots, input_runs, recurrent_run};
use super::family::{Persistent, TimeLoop};
use super::plan::CudaPlan;
use crate::error::Result;
use crate::rnn::InputKind;

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

/// What a plan says of a matrix product of its first layer. The kernel is that for tensors that begin at multiples of 16 bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductReport {
    /// `W x`, `R h` and `R^T da` of a step, `dx`, `dW`, `dR`.
    pub product: &'static str,
    /// Entry point.
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

/// The products of a plan: those that every operator has, of all gates that are multiplied together.
pub(super) fn products<D: Device>(plan: &CudaPlan<D>) -> Result<Vec<ProductReport>> {
    let (descriptor, shape) = (plan.descriptor(), plan.shape());
    let (rows, batch) = (shape.seq_len * shape.batch, shape.batch);
    let (h, output, input) = (descriptor.hidden_size, descriptor.output_size(), descriptor.input_size);
    let gates = descriptor.cell.gates() * h;
    let of_input = input_runs(descriptor.cell).map(|run| run.gates * h).max().unwrap_or(gates);
    let of_state = recurrent_run(descriptor).gates * h;
    let slots = gradient_slots(descriptor.cell) * h;
    let (directions, runs) = (descriptor.num_directions(), input_runs(descriptor.cell).count());
    let mut all = Vec::new();
    let mut add = |product, orientation, k: usize, shape: ProductShape| -> Result<()> {
        let ProductShape { m, n, splits, .. } = shape;
        let kernel = plan.kernels.gemm(orientation)?.kernel_of(&shape)?.to_owned();
        all.push(ProductReport { product, kernel, m, n, k, splits });
        Ok(())
    };
    let of = |m, n, strides| ProductShape { m, n, strides, terms: 1, count: directions, splits: 1 };
    let features = descriptor.input == InputKind::Features;
    if features {
        add("W x", Orientation::Nt, input, of(rows, gates, [input, input]))?;
    }
    if plan.forward_loop.family == Family::Step && descriptor.heads == 1 {
        add("R h", Orientation::Nt, output, of(batch, of_state, [plan.h_prev.stride, output]))?;
    }
    let Some(backward) = &plan.backward_loop else { return Ok(all) };
    if backward.family == Family::Step && descriptor.heads == 1 {
        add("R^T da", Orientation::Nn, of_state, of(batch, output, [slots, output]))?;
    }
    let sum = |m: usize, n: usize, strides| {
        let splits = weight_splits(m, n, rows, plan.multiprocessors, plan.math);
        ProductShape { count: 1, splits, ..of(m, n, strides) }
    };
    if features {
        let dx = ProductShape { terms: runs * directions, count: 1, ..of(rows, input, [slots, input]) };
        add("dx", Orientation::Nn, gates * directions, dx)?;
        add("dW", Orientation::Tn, rows, sum(of_input, input, [slots, input]))?;
    }
    if descriptor.heads == 1 {
        add("dR", Orientation::Tn, rows, sum(of_state, output, [slots, plan.h_prev.stride]))?;
    }
    Ok(all)
}
