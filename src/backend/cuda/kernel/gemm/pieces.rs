//! Estimates of how long a product takes in how many pieces. None of it has been measured: instructions are counted in machine code
//! (`benches/machine_code/products.tsv`), the rest comes from published measurements of other programs.

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
    math: Math,
    multiprocessors: f64,
    /// Bytes of an element and of an accumulator.
    element: f64,
    accumulator: f64,
    /// Depth of a tile.
    depth: u64,
}

impl Clocks {
    pub(super) fn new(math: &str, multiprocessors: u32) -> Self {
        let element = f64::from(catalog::gemm_element_bytes(math));
        Clocks {
            math: Math::of(math),
            multiprocessors: f64::from(multiprocessors.max(1)),
            element,
            accumulator: element.max(4.0),
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
        let (rows, columns) = (f64::from(tile.rows.min(m.div_ceil(8).saturating_mul(8))), f64::from(tile.columns));
        let multiply_adds =
            self.math.multiply_adds().min(4.0 * self.math.multiplied_by(tile) / self.math.instructions(tile, rows));
        let for_each_k = ((rows + columns) * self.element / L2_BYTES).max(rows * columns / multiply_adds);
        let block = BLOCK + k as f64 / f64::from(splits) * for_each_k;
        let sums = if splits > 1 {
            LAUNCH + f64::from(m) * f64::from(n) * pieces * 2.0 * self.accumulator / PARTIAL_BYTES
        } else {
            0.0
        };
        (blocks / self.multiprocessors).ceil() * block + sums
    }
}

/// A way to multiply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Math {
    F64,
    F32,
    Tf32,
    /// f16 and bf16.
    Half,
}

impl Math {
    fn of(name: &str) -> Self {
        match name {
            "f64" => Math::F64,
            "f32" => Math::F32,
            "tf32" => Math::Tf32,
            _ => Math::Half,
        }
    }

    /// Multiply-adds of a multiprocessor in a clock at most, by mma.sync where there are tensor cores for it.
    fn multiply_adds(self) -> f64 {
        match self {
            Math::F64 => 64.0,
            Math::F32 => 128.0,
            Math::Tf32 => 635.0,
            Math::Half => 1_270.0,
        }
    }

    /// Multiply-adds of a warp's instruction. The exact kernels' and, in tf32, that of a step are not the tensor cores'.
    fn multiplied_by(self, tile: &GemmTile) -> f64 {
        match self {
            Math::Tf32 if !tile.step => 16.0 * 8.0 * 8.0,
            Math::Half => 16.0 * 8.0 * 16.0,
            _ => 32.0,
        }
    }

    /// Instructions of the inner loop for each that multiplies, counted on sm_90a. Of a step `rows` sequences are computed.
    fn instructions(self, tile: &GemmTile, rows: f64) -> f64 {
        let eights = rows / 8.0;
        match (tile.name, self) {
            // In a part of k: copies and weights, and for eight sequences each their loads and products.
            ("few_rows", Math::Half) => (88.0 + 22.0 * eights) / (2.0 * eights),
            ("few_rows", _) => (160.0 + 75.0 * eights) / (64.0 * eights),
            ("pipelined_wide", Math::Half) => 3.2,
            ("pipelined_wide", _) => 6.0,
            ("pipelined_medium", Math::Half) => 6.1,
            ("pipelined_medium", _) => 11.5,
            ("small", Math::Half) => 330.0,
            ("small", Math::Tf32) => 180.0,
            ("large", Math::Half) => 84.0,
            ("large", Math::Tf32) => 50.0,
            // Twice, since loading a tile takes as long as the loop that multiplies it, and neither overlaps with the other.
            ("small", _) => 2.0 * 1.7,
            ("large", _) => 2.0 * 1.3,
            _ => 1.35,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Instructions are those that are counted in machine code, as far as one number for both orientations can be.
    #[test]
    fn products_take_what_is_counted() {
        let table = include_str!("../../../../../benches/machine_code/products.tsv");
        let mut lines = table.lines();
        assert_eq!(lines.next(), Some("kernel\tmultiplications\tinstructions"));
        let mut compared = 0;
        for line in lines {
            let [kernel, multiplications, instructions] = line.split('\t').collect::<Vec<_>>()[..] else {
                panic!("{line}")
            };
            let [_, orientation, math, tile] = kernel.splitn(4, '_').collect::<Vec<_>>()[..] else { panic!("{line}") };
            if orientation == "tn" {
                continue; // of gradients of weights, whose instructions are up to half as many again
            }
            let tile = catalog::gemm_tiles(math).into_iter().find(|one| one.name == tile).unwrap();
            let math = Math::of(math);
            let counted = instructions.parse::<f64>().unwrap() / multiplications.parse::<f64>().unwrap();
            // What loads a tile of the exact kernels stands in another loop.
            let apart = matches!(tile.name, "small" | "large") && matches!(math, Math::F32 | Math::F64);
            let ratio = math.instructions(&tile, f64::from(tile.rows)) / (counted * if apart { 2.0 } else { 1.0 });
            assert!(ratio > 0.8 && ratio < 1.25, "{kernel}: {counted} counted, ratio {ratio}");
            compared += 1;
        }
        assert!(compared >= 40, "{compared}");
    }
}
