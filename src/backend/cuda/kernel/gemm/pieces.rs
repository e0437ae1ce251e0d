//! Estimates of how long a product takes in how many pieces. None of it has been measured.

use super::super::super::images::catalog::{self, GemmTile};

/// Most pieces that a sum over k falls into.
const MOST_SPLITS: u64 = 32;
/// Tiles of k that a piece has at least.
const PIECE_TILES: u64 = 8;
/// Clocks of a block apart from its sums: until the first tile of k is there, and from the last one to its results.
const BLOCK: f64 = 1_500.0;
/// Clocks from one launch to the next: 2.2 microseconds.
const LAUNCH: f64 = 4_000.0;
/// Bytes of partial sums that are written and read in a clock: 3 TB/s.
const PARTIAL_BYTES: f64 = 1_700.0;
/// Bytes that L2 gives a multiprocessor in a clock.
const L2_BYTES: f64 = 38.0;

/// What time depends on besides sizes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    multiprocessors: f64,
    /// Bytes of an element and of an accumulator.
    element: f64,
    accumulator: f64,
    /// Of a multiprocessor in a clock.
    multiply_adds: f64,
    /// Depth of a tile.
    depth: u64,
}

impl Clocks {
    pub(super) fn new(math: &str, multiprocessors: u32) -> Self {
        let element = f64::from(catalog::gemm_element_bytes(math));
        Clocks {
            multiprocessors: f64::from(multiprocessors.max(1)),
            element,
            accumulator: element.max(4.0),
            multiply_adds: multiply_adds(math),
            depth: catalog::gemm_depth(math).into(),
        }
    }

    /// Most pieces of a sum of `k` terms.
    pub(super) fn most_splits(&self, k: u64) -> u64 {
        k.div_ceil(PIECE_TILES * self.depth).clamp(1, MOST_SPLITS)
    }

    /// Of `count` products `[m, n]` of sums of `k` terms, in so many pieces, with a kernel.
    pub(super) fn product(&self, tile: &GemmTile, [m, n]: [u32; 2], k: u64, count: u32, splits: u32) -> f64 {
        let pieces = f64::from(splits) * f64::from(count);
        let blocks = f64::from(m.div_ceil(tile.rows)) * f64::from(n.div_ceil(tile.columns)) * pieces;
        let (rows, columns) = (f64::from(tile.rows.min(m.next_multiple_of(8))), f64::from(tile.columns));
        let for_each_k = ((rows + columns) * self.element / L2_BYTES).max(rows * columns / self.multiply_adds);
        let block = BLOCK + k as f64 / f64::from(splits) * for_each_k;
        let sums = if splits > 1 {
            LAUNCH + f64::from(m) * f64::from(n) * pieces * 2.0 * self.accumulator / PARTIAL_BYTES
        } else {
            0.0
        };
        (blocks / self.multiprocessors).ceil() * block + sums
    }
}

/// Multiply-adds of a multiprocessor in a clock; those by fused multiply-adds as the kernels' machine code allows
/// (`benches/machine_code/gemm.md`).
fn multiply_adds(math: &str) -> f64 {
    match math {
        "f64" => 48.0,
        "f32" => 96.0,
        "tf32" => 635.0,
        _ => 1_270.0,
    }
}
