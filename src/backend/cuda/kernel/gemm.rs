//! The kernels of matrix products with their tiles.

use super::super::device::{Device, Launch};
use super::super::images::catalog;
use super::launch::{Kernel, Params};
use crate::error::Result;

/// Rows of a product from which on the large tile is used.
pub(crate) const LARGE_TILE_ROWS: usize = 33;
/// Most pieces that the sum over steps and sequences of a weight gradient falls into.
const MOST_SPLITS: usize = 32;

/// Which way the operands of a product lie, see `kernels/gemm.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    Nt,
    Nn,
    Tn,
}

/// A product's kernel with its tile.
#[derive(Clone, Debug)]
pub(crate) struct GemmKernel<D: Device, P: Params> {
    kernel: Kernel<D, P>,
    rows: u32,
    columns: u32,
    threads: u32,
    shared_bytes: u32,
}

impl<D: Device, P: Params> GemmKernel<D, P> {
    /// The one for a tile of [`catalog::GEMM_TILES`]; `kernel` is `gemm`, or `batched_gemm` for many products of the same size.
    pub(crate) fn load(device: &D, kernel: &str, orientation: &str, math: &str, tile: usize) -> Result<Self> {
        let (name, _, rows, columns, threads) = catalog::GEMM_TILES[tile];
        Ok(GemmKernel {
            kernel: Kernel::load(device, &format!("{kernel}_{orientation}_{math}_{name}"))?,
            rows,
            columns,
            threads,
            shared_bytes: catalog::gemm_shared_bytes(math, rows + columns),
        })
    }

    /// Geometry for products of at most `m` by `n`.
    pub(crate) fn launch(&self, m: usize, n: usize, problems: usize, splits: usize) -> Launch {
        let tiles = |size: usize, tile: u32| size.div_ceil(tile as usize) as u32;
        Launch {
            shared_bytes: self.shared_bytes,
            ..Launch::new([tiles(m, self.rows), tiles(n, self.columns), (problems * splits) as u32], self.threads)
        }
    }

    pub(crate) fn kernel(&self) -> &Kernel<D, P> {
        &self.kernel
    }
}

/// Pieces that the sum over `rows` of a weight gradient of `m` by `n` falls into, so that every multiprocessor has work.
pub(crate) fn weight_splits(
    m: usize,
    n: usize,
    rows: usize,
    problems: usize,
    multiprocessors: usize,
    math: &str,
) -> usize {
    let (_, _, tile_rows, tile_columns, _) = catalog::GEMM_TILES[0];
    let tiles = (m.div_ceil(tile_rows as usize) * n.div_ceil(tile_columns as usize) * problems).max(1);
    let deep = rows.div_ceil(8 * catalog::gemm_depth(math) as usize);
    (2 * multiprocessors).div_ceil(tiles).min(deep).clamp(1, MOST_SPLITS)
}
