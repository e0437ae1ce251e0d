//! Estimated time of a step, in clocks of the multiprocessors. None of the constants has been measured.

use super::super::device::Properties;
use super::super::images::catalog::{Exchange, PERSISTENT_TILE, PersistentKernel};
use super::cell::has_second_product;
use crate::dtype::DType;
use crate::rnn::{RnnDescriptor, RnnShape};

/// Clocks of everything in a step that nothing below counts.
const OTHER_CLOCKS: f64 = 150.0;
/// Nanoseconds from one launch to the next in a stream that is kept busy.
const LAUNCH_NS: f64 = 2_200.0;

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

/// A step of a persistent kernel, nanoseconds.
pub(super) fn persistent_ns(
    properties: &Properties,
    descriptor: &RnnDescriptor,
    about: &PersistentKernel,
    tiles: u32,
) -> f64 {
    let (gates, hidden) = (descriptor.cell.gates() as f64, descriptor.hidden_size.next_multiple_of(32) as f64);
    let (units, tile) = (f64::from(about.units).min(hidden), f64::from(PERSISTENT_TILE));
    let product = gates * units * hidden * tile / multiply_adds(about.math);
    let shared = f64::from(about.shared_matrix_bytes) / 128.0;
    let functions = units * tile * if descriptor.cell.spec().functions.gate { 10.0 } else { 2.0 } / 16.0;
    let exchanged = tile * hidden * element_bytes(about.math) * if about.forward { 1.0 } else { gates };
    let (exchange, sync) = match about.family {
        Exchange::Block => (exchanged / 128.0, 60.0),
        Exchange::Cluster => (exchanged / 20.0, 260.0),
        Exchange::Grid => (exchanged / 38.0, 600.0),
    };
    let clocks = f64::from(tiles) * (product.max(shared) + functions + exchange) + sync + OTHER_CLOCKS;
    nanoseconds(properties, clocks)
}

/// A step of the step family, nanoseconds: launches, or the product where that takes longer.
pub(super) fn step_ns(properties: &Properties, descriptor: &RnnDescriptor, shape: RnnShape, math: &str) -> f64 {
    let launches = if has_second_product(descriptor) { 4.0 } else { 2.0 };
    let rows = (descriptor.cell.gates() * descriptor.hidden_size * descriptor.num_directions()) as f64;
    let products = rows * descriptor.head_size() as f64 * shape.batch as f64;
    let weights = rows * descriptor.head_size() as f64 * element_bytes(math);
    // L2 gives a multiprocessor about 38 bytes a clock; small products keep few of the multiply-adders busy.
    let units = f64::from(properties.multiprocessors.max(1));
    let clocks = (products / (0.4 * multiply_adds(math) * units)).max(weights / (38.0 * units));
    launches * LAUNCH_NS + nanoseconds(properties, clocks)
}
