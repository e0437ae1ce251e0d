//! Estimated time of a step, in clocks of the multiprocessors. None of the constants has been measured: those of the persistent kernels'
//! loops and of the matrix products are counted in machine code (`benches/machine_code`), the others come from published measurements of
//! other programs.

use super::super::device::Properties;
use super::super::images::catalog::{Exchange, PersistentKernel};
use super::super::kernel::gemm::step_clocks;
use super::cell::has_second_product;
use crate::cell::CellKind;
use crate::dtype::DType;
use crate::rnn::{RnnDescriptor, RnnShape};

/// Clocks of a step of a tile apart from products, functions of the cell and what is exchanged: addresses, sums, barriers, loads and
/// stores, and that instructions wait for one another. Counted: what `benches/machine_code/loops.tsv` has as `modelled` on sm_90a, less the
/// product and the functions as they are estimated here.
fn loop_clocks(family: Exchange, forward: bool) -> f64 {
    match (family, forward) {
        (Exchange::Block, true) => 850.0,
        (Exchange::Cluster | Exchange::Grid, true) => 800.0,
        (Exchange::Block, false) => 900.0,
        (Exchange::Cluster, false) => 1_000.0,
        (Exchange::Grid, false) => 700.0,
    }
}

/// Clocks of each tile that the loop for several tiles takes beyond the one for a single tile: states are in shared memory, and addresses are
/// computed. Counted as above: 340 to 990 in the grid family, 600 on average; nothing in kernels that have one loop for both.
const SEVERAL_TILES: f64 = 600.0;

/// Nanoseconds from one launch to the next in a stream that is kept busy.
const LAUNCH_NS: f64 = 2_200.0;
/// From the end of a kernel to the first instruction of the next, which waits for it.
const START_NS: f64 = 1_000.0;
/// Clocks of a kernel that no other work hides: its first load from L2, sums across warps, its stores.
const LATENCY_CLOCKS: f64 = 1_500.0;
/// Bytes that L2 gives a multiprocessor in a clock.
const L2_BYTES: f64 = 38.0;

/// Multiply-adds of a multiprocessor in a clock.
fn multiply_adds(math: &str) -> f64 {
    match math {
        "f64" => 64.0,
        "f32" => 128.0,
        "tf32" => 635.0,
        _ => 1_270.0,
    }
}

fn element_bytes(math: &str) -> f64 {
    match math {
        "f64" => DType::F64.size() as f64,
        "f32" | "tf32" => DType::F32.size() as f64,
        _ => DType::F16.size() as f64,
    }
}

fn nanoseconds(properties: &Properties, clocks: f64) -> f64 {
    clocks * 1e6 / f64::from(properties.clock_khz.max(1))
}

/// Clocks of a step of a tile that a block spends by itself, whatever the exchange takes.
fn own_clocks(cell: CellKind, about: &PersistentKernel, hidden: f64) -> f64 {
    let (units, tile) = (f64::from(about.units).min(hidden), f64::from(about.tile));
    let product = cell.gates() as f64 * units * hidden * tile / multiply_adds(about.math);
    let shared = f64::from(about.shared_matrix_bytes) / 128.0;
    // Of the special-function unit, for a unit and a sequence: gates and states forward; backward c's tanh at most.
    let functions = if cell.spec().functions.gate && about.forward { 10.0 } else { 2.0 };
    loop_clocks(about.family, about.forward) + product.max(shared) + units * tile * functions / 16.0
}

/// A step of a persistent kernel, nanoseconds.
pub(super) fn persistent_ns(
    properties: &Properties,
    descriptor: &RnnDescriptor,
    about: &PersistentKernel,
    tiles: u32,
) -> f64 {
    let (gates, hidden) = (descriptor.cell.gates() as f64, descriptor.hidden_size.next_multiple_of(32) as f64);
    let elements = f64::from(about.tile) * hidden * if about.forward { 1.0 } else { gates };
    let exchanged = elements * element_bytes(about.math);
    let (exchange, sync) = match about.family {
        Exchange::Block => (exchanged / 128.0, 60.0),
        Exchange::Cluster => (exchanged / 20.0, 260.0),
        Exchange::Grid => (exchanged / L2_BYTES, 600.0),
    };
    let several = if tiles > 1 { SEVERAL_TILES } else { 0.0 };
    let clocks = f64::from(tiles) * (own_clocks(descriptor.cell, about, hidden) + several + exchange) + sync;
    nanoseconds(properties, clocks)
}

/// A step of the step family, nanoseconds: a product and the elementwise half of the step, once or, with a second product within the step,
/// twice. Each is a launch, and as long as its work where that takes longer.
pub(super) fn step_ns(properties: &Properties, descriptor: &RnnDescriptor, shape: RnnShape, math: &str) -> f64 {
    let halves = if has_second_product(descriptor) { 2 } else { 1 };
    let (gates, hidden, directions) = (descriptor.cell.gates(), descriptor.hidden_size, descriptor.num_directions());
    let columns = (gates * hidden).div_ceil(halves);
    let product = step_clocks(properties, math, [shape.batch, columns], descriptor.head_size(), directions);
    // Gates are read, written and read again by backward's step at most; of sums and states there are as many again.
    let accumulator = if math == "f64" { DType::F64.size() } else { DType::F32.size() };
    let bytes = (5 * gates + 4) * accumulator * hidden * directions;
    let elementwise = bytes as f64 * shape.batch as f64 / (L2_BYTES * multiprocessors(properties));
    let launch = |clocks: f64| LAUNCH_NS.max(START_NS + nanoseconds(properties, LATENCY_CLOCKS + clocks));
    halves as f64 * (launch(product) + launch(elementwise))
}

fn multiprocessors(properties: &Properties) -> f64 {
    f64::from(properties.multiprocessors.max(1))
}

#[cfg(test)]
mod tests {
    use super::super::super::images::catalog;
    use super::{loop_clocks, own_clocks};
    use crate::cell::CellKind;

    /// The clocks of the loops are those that are counted in machine code, as far as one number for a family can be.
    #[test]
    fn loops_take_what_is_counted() {
        let table = include_str!("../../../../benches/machine_code/loops.tsv");
        let mut lines = table.lines().map(|line| line.split('\t').collect::<Vec<_>>());
        let column = lines.next().unwrap().iter().position(|name| *name == "modelled").unwrap();
        let mut compared = 0;
        for line in lines {
            if line[0].ends_with(" one input") {
                continue; // the loop of a special case
            }
            let about = catalog::persistent().into_iter().find(|kernel| kernel.name == line[0]).unwrap();
            if about.math == "f32" {
                continue; // whose loop over the sequences is counted once
            }
            let counted: f64 = line[column].parse().unwrap();
            let cell: CellKind = about.cell.parse().unwrap();
            let own = own_clocks(cell, &about, f64::from(about.capacity));
            assert!(own > 0.4 * counted && own < 2.0 * counted, "{}: {own} clocks, {counted} counted", about.name);
            assert!(loop_clocks(about.family, about.forward) < own);
            compared += 1;
        }
        assert!(compared > 50, "{compared}");
    }
}
