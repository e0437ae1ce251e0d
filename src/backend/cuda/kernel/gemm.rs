//! Matrix products: which kernel computes one, and in how many pieces.

use bytemuck::Zeroable;

use super::super::device::{Device, DevicePtr, Launch, Properties};
use super::super::images::catalog::{self, GemmTile};
use super::launch::{GRID, Kernel};
use super::params::{GEMM_TERMS, GemmParams, GemmTerm, Rows};
use crate::error::{Error, Result};

#[cfg(all(test, feature = "emulated"))]
mod tests;

/// Most pieces that a sum over k falls into.
const MOST_SPLITS: usize = 32;
/// Tiles of k that a piece has at least.
const PIECE_TILES: usize = 8;
/// Writing a partial sum and reading it again takes about as long as so many terms of a sum do; an estimate, from 8 bytes at 3 TB/s.
const PARTIAL_TERMS: f64 = 256.0;
/// What rows are aligned to where operands are copied 16 bytes at a time.
const ALIGNED: u64 = 16;

/// Which way the operands of a product lie, see `kernels/gemm.cu`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Orientation {
    Nt,
    Nn,
    Tn,
}

impl Orientation {
    /// As in names of kernels.
    fn name(self) -> &'static str {
        match self {
            Orientation::Nt => "nt",
            Orientation::Nn => "nn",
            Orientation::Tn => "tn",
        }
    }
}

/// The kernels of products of one orientation that multiply in the same way.
#[derive(Debug)]
pub(crate) struct Gemm<D: Device> {
    orientation: Orientation,
    /// Bytes of an element.
    element: u64,
    multiprocessors: u64,
    /// Those of [`catalog::gemm_tiles`] that the device has, in that order.
    kernels: Vec<GemmKernel<D>>,
}

/// What the choice of a kernel depends on, for operands that begin at multiples of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProductShape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// Elements from a row of each operand to the next.
    pub(crate) strides: [usize; 2],
    pub(crate) terms: usize,
    /// Products of a launch.
    pub(crate) count: usize,
    pub(crate) splits: usize,
}

/// A kernel with its tile.
#[derive(Debug)]
struct GemmKernel<D: Device> {
    /// Entry point.
    name: String,
    tile: GemmTile,
    kernel: Kernel<D, GemmParams>,
}

impl<D: Device> Gemm<D> {
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device has no kernels for `math`.
    pub(crate) fn load(device: &D, orientation: Orientation, math: &str) -> Result<Self> {
        let properties = device.properties();
        let compute = properties.compute_capability.0 * 10 + properties.compute_capability.1;
        let there = |tile: &GemmTile| tile.min_compute <= compute && !(tile.step && orientation == Orientation::Tn);
        let load = |tile: GemmTile| -> Result<_> {
            let name = tile.entry(orientation.name(), math);
            Ok(GemmKernel { kernel: Kernel::load(device, &name)?, tile, name })
        };
        let kernels: Vec<_> = catalog::gemm_tiles(math).into_iter().filter(there).map(load).collect::<Result<_>>()?;
        if kernels.is_empty() {
            let (major, minor) = properties.compute_capability;
            let what = format!("products of {math} on compute capability {major}.{minor}");
            return Err(Error::unsupported(what, "it needs 8.0 or later; compute exactly, or in f16"));
        }
        Ok(Gemm {
            orientation,
            element: u64::from(catalog::gemm_element_bytes(math)),
            multiprocessors: u64::from(properties.multiprocessors),
            kernels,
        })
    }

    /// Gives a product to `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for more columns than a grid has blocks for, and those of [`Kernel::launch`].
    pub(crate) fn launch(&self, device: &D, stream: &D::Stream, params: &GemmParams) -> Result<()> {
        let GemmKernel { tile, kernel, .. } = self.choose(params)?;
        kernel.launch(device, stream, &launch(tile, params), params)
    }

    /// Entry point of the kernel that computes products of a shape.
    ///
    /// # Errors
    ///
    /// Those of [`launch`](Self::launch) that are about sizes.
    pub(crate) fn kernel_of(&self, shape: &ProductShape) -> Result<&str> {
        let ProductShape { m, n, strides, terms, count, splits } = *shape;
        let [a, b] = strides.map(|stride| Rows::plain(DevicePtr(ALIGNED), stride));
        let (count, splits) = (count as u32, splits as u32);
        let mut params = GemmParams { problems: 1, count, splits, ..Zeroable::zeroed() };
        let term = GemmTerm { a, b, ..Zeroable::zeroed() };
        let problem = &mut params.problem[0];
        (problem.m, problem.n, problem.c) = (m as u32, n as u32, Rows::plain(DevicePtr(ALIGNED), n));
        (problem.term, problem.terms) = ([term; GEMM_TERMS], terms as u32);
        Ok(&self.choose(&params)?.name)
    }

    /// The kernel of a product: the first that takes it.
    fn choose(&self, params: &GemmParams) -> Result<&GemmKernel<D>> {
        let (m, n) = size(params);
        let pieces = u64::from(params.count) * u64::from(params.splits);
        let asked = Asked { m, n, pieces, aligned: self.is_aligned(params), step: is_step(params) };
        let takes = |tile: &GemmTile| asked.takes(tile, self.multiprocessors);
        let none = || {
            let most = GRID * self.kernels.iter().map(|kernel| kernel.tile.columns).max().unwrap_or(0) as usize;
            Error::unsupported(format!("a product with {n} columns"), format!("the CUDA kernels take at most {most}"))
        };
        self.kernels.iter().find(|kernel| takes(&kernel.tile)).ok_or_else(none)
    }

    /// Whether all rows of all operands begin at multiples of 16 bytes, and where k is the outer dimension of both, its rows are in the
    /// same groups.
    fn is_aligned(&self, params: &GemmParams) -> bool {
        let whole = |elements: u64| (elements * self.element).is_multiple_of(ALIGNED);
        let rows = |rows: &Rows| {
            let DevicePtr(address) = rows.data;
            let inner = rows.inner == 1 || whole(rows.inner_stride);
            address.is_multiple_of(ALIGNED) && whole(rows.outer_stride) && inner
        };
        let apart = params.problems > 1 || params.count == 1 || (whole(params.a_apart) && whole(params.b_apart));
        let problems = params.problem.iter().take(params.problems as usize);
        let mut terms = problems.flat_map(|problem| problem.term.iter().take(problem.terms as usize));
        apart
            && terms.all(|term| {
                let groups = self.orientation != Orientation::Tn || term.a.inner == term.b.inner;
                rows(&term.a) && rows(&term.b) && groups
            })
    }
}

/// What decides whether a kernel takes a product.
struct Asked {
    m: u32,
    n: u32,
    pieces: u64,
    aligned: bool,
    step: bool,
}

impl Asked {
    /// Whether a kernel of such a tile takes it.
    fn takes(&self, tile: &GemmTile, multiprocessors: u64) -> bool {
        self.m <= tile.most_rows
            && self.n.div_ceil(tile.columns) as usize <= GRID
            && (!tile.aligned || self.aligned)
            && (!tile.step || self.step)
            && (!tile.fills || blocks(tile, self.m, self.n) * self.pieces >= multiprocessors)
    }
}

/// The tile of the kernel that computes the product of a time step: `m` sequences, `n` columns of results, a sum over `k`, where a device has
/// all kernels that its compute capability allows.
pub(crate) fn step_tile(properties: &Properties, math: &str, m: usize, n: usize, k: usize) -> Option<GemmTile> {
    let compute = properties.compute_capability.0 * 10 + properties.compute_capability.1;
    let aligned = (k as u64 * u64::from(catalog::gemm_element_bytes(math))).is_multiple_of(ALIGNED);
    let asked = Asked { m: m as u32, n: n as u32, pieces: 1, aligned, step: true };
    let multiprocessors = u64::from(properties.multiprocessors);
    let takes = |tile: &GemmTile| tile.min_compute <= compute && asked.takes(tile, multiprocessors);
    catalog::gemm_tiles(math).into_iter().find(takes)
}

/// Whether the sums are of one term, in one piece, and all rows in groups of one.
fn is_step(params: &GemmParams) -> bool {
    let mut problems = params.problem.iter().take(params.problems as usize);
    params.splits == 1
        && problems.all(|problem| {
            let [GemmTerm { a, b, .. }, ..] = &problem.term;
            problem.terms == 1 && [a, b, &problem.c].into_iter().all(|rows| rows.inner == 1)
        })
}

/// Rows and columns of the largest problem.
fn size(params: &GemmParams) -> (u32, u32) {
    let problems = params.problem.iter().take(params.problems as usize);
    problems.fold((0, 0), |(m, n), problem| (m.max(problem.m), n.max(problem.n)))
}

/// Blocks of a product of `m` by `n`.
fn blocks(tile: &GemmTile, m: u32, n: u32) -> u64 {
    u64::from(m.div_ceil(tile.rows)) * u64::from(n.div_ceil(tile.columns))
}

fn launch(tile: &GemmTile, params: &GemmParams) -> Launch {
    let (m, n) = size(params);
    let pieces = (u64::from(params.count) * u64::from(params.splits)).min(GRID as u64) as u32;
    let grid = [m.div_ceil(tile.rows), n.div_ceil(tile.columns), pieces];
    Launch { shared_bytes: tile.shared_bytes, ..Launch::new(grid, tile.threads) }
}

/// Pieces that the sum over `k` of a weight gradient of `m` by `n` falls into, so that every multiprocessor has work. A function of the
/// sizes alone, as the order of sums is.
pub(crate) fn weight_splits(m: usize, n: usize, k: usize, multiprocessors: usize, math: &str) -> usize {
    let most = k.div_ceil(PIECE_TILES * catalog::gemm_depth(math) as usize).clamp(1, MOST_SPLITS);
    let busy = multiprocessors.max(1) as f64;
    let mut splits = 1;
    // From the largest tile on: the first with which every multiprocessor has one.
    for tile in catalog::gemm_tiles(math).iter().filter(|tile| tile.most_rows == u32::MAX) {
        let tiles = m.div_ceil(tile.rows as usize).saturating_mul(n.div_ceil(tile.columns as usize)).max(1);
        // Relative to the time in which all multiprocessors would have been busy throughout.
        let cost = |splits: usize| {
            let blocks = tiles as f64 * splits as f64;
            let rounds = (blocks / busy).ceil() * busy / blocks;
            rounds + if splits > 1 { splits as f64 * PARTIAL_TERMS / k as f64 } else { 0.0 }
        };
        splits = (1..=most).min_by(|a, b| cost(*a).total_cmp(&cost(*b))).unwrap_or(1);
        if tiles.saturating_mul(splits) >= multiprocessors {
            break;
        }
    }
    splits
}
