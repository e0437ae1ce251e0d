//! Matrix products: which kernel computes one, and in how many pieces, which [`pieces`] estimates.

use std::fmt;

use bytemuck::Zeroable;

use super::super::device::{Device, DevicePtr, Launch, Properties};
use super::super::images::catalog::{self, GemmTile, REDUCTION_THREADS};
use super::super::options::Matmul;
use super::launch::{GRID, Kernel};
use super::params::{DIRECTIONS, GEMM_TERMS, GemmParams, GemmTerm, Rows};
use crate::error::{Error, Result};

#[cfg_attr(not(feature = "cublaslt"), path = "gemm/no_library.rs")]
mod library;
mod pieces;
#[cfg(all(test, feature = "emulated"))]
mod tests;

use library::Library;
use pieces::Clocks;

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
pub(crate) struct Gemm<D: Device> {
    orientation: Orientation,
    /// Bytes of an element.
    element: u64,
    multiprocessors: u64,
    clocks: Clocks,
    /// Those of [`catalog::gemm_tiles`] that the device has, in that order.
    kernels: Vec<GemmKernel<D>>,
    /// Adds up the pieces.
    sum: Kernel<D, GemmParams>,
    /// Where a library is asked for.
    library: Option<Library<D::Stream>>,
}

/// What the choice of a kernel and of pieces depends on, for operands that begin at multiples of 16 bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ProductShape {
    pub(crate) m: usize,
    pub(crate) n: usize,
    /// Terms of a sum, of all products that are added up.
    pub(crate) k: usize,
    /// Elements from a row of each operand to the next.
    pub(crate) strides: [usize; 2],
    pub(crate) terms: usize,
    /// Products of a launch.
    pub(crate) count: usize,
    /// Groups that rows of inputs stand in: of a (nt), of the result (nn), of b (tn), as those of a batch-major tensor do; else 1.
    pub(crate) groups: usize,
    /// Whether results are accumulators.
    pub(crate) wide: bool,
}

/// Where a product may leave partial sums, or the library what it needs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(crate) address: DevicePtr,
    /// Accumulators.
    pub(crate) len: usize,
}

impl Room {
    /// None: products are computed in one piece.
    #[cfg(any(test, feature = "model"))]
    pub(crate) const NONE: Room = Room { address: DevicePtr::NULL, len: 0 };
}

/// A kernel with its tile.
#[derive(Debug)]
struct GemmKernel<D: Device> {
    /// Entry point.
    name: String,
    tile: GemmTile,
    kernel: Kernel<D, GemmParams>,
}

impl<D: Device> fmt::Debug for Gemm<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.kernels.iter().map(|kernel| kernel.name.as_str());
        f.debug_struct("Gemm").field("kernels", &names.collect::<Vec<_>>()).field("library", &self.library).finish()
    }
}

impl<D: Device> Gemm<D> {
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device has no kernels for `math`, or not the library that is asked for.
    pub(crate) fn load(device: &D, orientation: Orientation, math: &str, matmul: Matmul) -> Result<Self> {
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
        let element = catalog::gemm_element(math);
        Ok(Gemm {
            orientation,
            element: u64::from(catalog::gemm_element_bytes(math)),
            multiprocessors: u64::from(properties.multiprocessors),
            clocks: Clocks::new(math, properties.multiprocessors),
            kernels,
            sum: Kernel::load(device, &format!("sum_pieces_{element}"))?,
            library: (matmul == Matmul::CublasLt).then(|| Library::load(device, math)).transpose()?,
        })
    }

    /// Gives a product to `stream`, in as many pieces as are fastest and `room` is there for, with what adds them up. `params` are for
    /// one piece.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for more columns than a grid has blocks for, those of [`Kernel::launch`], and the library's.
    pub(crate) fn launch(&self, device: &D, stream: &D::Stream, params: &GemmParams, room: Room) -> Result<()> {
        let mut params = *params;
        if self.orientation != Orientation::Tn {
            // Which rows of k are past a sequence's length depends on how they are grouped; other rows are in groups for their places alone.
            for problem in &mut params.problem[..params.problems as usize] {
                problem.c = problem.c.ungrouped(problem.m);
                problem.term.iter_mut().for_each(|term| term.a = term.a.ungrouped(problem.m));
            }
        }
        if let Some(product) = self.by_library(&params, room.len.saturating_mul(self.accumulator()))? {
            return product.launch(stream, room);
        }
        let (m, n) = size(&params);
        let len = (m as usize).saturating_mul(n as usize).saturating_mul(params.count as usize);
        let splits = self.splits(&params, room.len.checked_div(len).unwrap_or(0));
        (params.splits, params.partial, params.partial_apart) = (splits, room.address, u64::from(m) * u64::from(n));
        let GemmKernel { tile, kernel, .. } = self.choose(&params, splits)?;
        kernel.launch(device, stream, &launch(tile, &params), &params)?;
        if splits > 1 { self.sum.launch(device, stream, &sum_launch(&params), &params) } else { Ok(()) }
    }

    /// Entry point of the kernel that computes products of a shape, and in how many pieces, where there is room for all that help; or the
    /// library's algorithm.
    ///
    /// # Errors
    ///
    /// Those of [`launch`](Self::launch) that are about sizes, and the library's.
    pub(crate) fn kernel_of(&self, shape: &ProductShape) -> Result<(String, usize)> {
        let params = shape.params(self.orientation);
        let splits = self.splits(&params, usize::MAX);
        let kernel = &self.choose(&params, splits)?.name;
        Ok(match self.by_library(&params, usize::MAX)? {
            Some(product) if self.orientation == Orientation::Tn => {
                (format!("{} (with lengths: {kernel})", product.name()), 1)
            }
            Some(product) => (product.name(), 1),
            None => (kernel.clone(), splits as usize),
        })
    }

    /// Accumulators that products of a shape need room for: for their partial sums, 0 for those that are computed in one piece, or for the
    /// library.
    ///
    /// # Errors
    ///
    /// The library's, of which this asks for an algorithm.
    pub(crate) fn room_for(&self, shape: &ProductShape) -> Result<usize> {
        let params = shape.params(self.orientation);
        let partial = match self.splits(&params, usize::MAX) as usize {
            1 => 0,
            splits => [shape.n, shape.count, splits].into_iter().fold(shape.m, usize::saturating_mul),
        };
        let library = self.by_library(&params, usize::MAX)?.map(|product| product.workspace_bytes());
        Ok(match library {
            // Which computes a gradient of weights depends on whether the call has lengths.
            Some(bytes) if self.orientation == Orientation::Tn => partial.max(bytes.div_ceil(self.accumulator())),
            Some(bytes) => bytes.div_ceil(self.accumulator()),
            None => partial,
        })
    }

    /// A product that a library computes. A step's remains its kernel's, which reads weights once.
    fn by_library(&self, params: &GemmParams, room: usize) -> Result<Option<library::Product<D::Stream>>> {
        let Some(library) = &self.library else { return Ok(None) };
        let step = self.first(params, 1, self.is_aligned(params)).is_some_and(|kernel| kernel.tile.step);
        if step { Ok(None) } else { library.product(self.orientation, params, room) }
    }

    /// Bytes of an accumulator.
    fn accumulator(&self) -> usize {
        self.element.max(4) as usize
    }

    /// The kernel of a product in `splits` pieces: the first that takes it.
    fn choose(&self, params: &GemmParams, splits: u32) -> Result<&GemmKernel<D>> {
        let none = || {
            let (_, n) = size(params);
            let most = GRID * self.kernels.iter().map(|kernel| kernel.tile.columns).max().unwrap_or(0) as usize;
            Error::unsupported(format!("a product with {n} columns"), format!("the CUDA kernels take at most {most}"))
        };
        self.first(params, splits, self.is_aligned(params)).ok_or_else(none)
    }

    fn first(&self, params: &GemmParams, splits: u32, aligned: bool) -> Option<&GemmKernel<D>> {
        let (m, n) = size(params);
        let (step, pieces) = (is_step(params), u64::from(params.count) * u64::from(splits));
        let takes = |tile: &GemmTile| {
            m <= tile.most_rows
                && n.div_ceil(tile.columns) as usize <= GRID
                && (!tile.aligned || aligned)
                && (!tile.step || step)
                && (!tile.fills || blocks(tile, m, n).saturating_mul(pieces) >= self.multiprocessors)
        };
        self.kernels.iter().find(|kernel| takes(&kernel.tile))
    }

    /// Pieces that the sums of a product fall into, at most `most`: those that are estimated to be fastest, so that every multiprocessor
    /// has work. As the order of sums depends on it, it is a function of sizes and not of addresses.
    fn splits(&self, params: &GemmParams, most: usize) -> u32 {
        let (m, n) = size(params);
        let k = terms(params);
        let most = self.clocks.most_splits(k).min(most as u64).max(1) as u32;
        let mut best = (1, f64::INFINITY);
        for splits in 1..=most {
            let Some(GemmKernel { tile, .. }) = self.first(params, splits, true) else { continue };
            let clocks = self.clocks.product(tile, [m, n], k, params.count, splits);
            if clocks < best.1 {
                best = (splits, clocks);
            }
        }
        best.0
    }

    /// Whether all rows of all operands begin at multiples of 16 bytes, and where k is the outer dimension of both, its rows are in the
    /// same groups.
    fn is_aligned(&self, params: &GemmParams) -> bool {
        // Wraps at a multiple of it.
        let whole = |elements: u64| elements.wrapping_mul(self.element).is_multiple_of(ALIGNED);
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

impl ProductShape {
    /// As of a problem for each product, of which two are alike.
    fn params(&self, orientation: Orientation) -> GemmParams {
        let ProductShape { m, n, k, strides, terms, count, groups, wide } = *self;
        let plain = |stride| Rows::plain(DevicePtr(ALIGNED), stride);
        let grouped = |stride: usize, rows: usize| {
            // Sizes beyond memory are refused by who has the tensors.
            let apart = rows.div_ceil(groups.max(1)).saturating_mul(stride);
            Rows::sequences(DevicePtr(ALIGNED), stride, apart, groups.max(1)).ungrouped(rows as u32)
        };
        let (a, b, c) = match orientation {
            Orientation::Nt => (grouped(strides[0], m), plain(strides[1]), plain(n)),
            Orientation::Nn => (plain(strides[0]), plain(strides[1]), grouped(n, m)),
            // Rows of both in groups of the same size.
            Orientation::Tn => {
                let b = grouped(strides[1], k);
                let batch = b.inner as usize;
                (Rows::sequences(DevicePtr(ALIGNED), batch.saturating_mul(strides[0]), strides[0], batch), b, plain(n))
            }
        };
        let problems = if count == DIRECTIONS { count } else { 1 };
        let mut params = GemmParams { problems: problems as u32, ..Zeroable::zeroed() };
        (params.count, params.splits, params.wide) = (count as u32, 1, wide.into());
        let problem = &mut params.problem[0];
        (problem.m, problem.n, problem.c, problem.terms) = (m as u32, n as u32, c, terms as u32);
        problem.term = [GemmTerm { a, b, k: k.div_ceil(terms.max(1)) as u32, unused: 0 }; GEMM_TERMS];
        params.problem[1] = params.problem[0];
        params
    }
}

/// Estimated clocks of `count` products of a time step in one launch, in one piece: `m` sequences, `n` columns of results, sums of `k` terms, where
/// a device has all kernels that its compute capability allows.
pub(crate) fn step_clocks(properties: &Properties, math: &str, [m, n]: [usize; 2], k: usize, count: usize) -> f64 {
    let (m, n) = (m as u32, n as u32);
    step_tile(properties, math, m, n, k).map_or(f64::INFINITY, |tile| {
        Clocks::new(math, properties.multiprocessors).product(&tile, [m, n], k as u64, count as u32, 1)
    })
}

/// The tile of the kernel that computes such a product.
fn step_tile(properties: &Properties, math: &str, m: u32, n: u32, k: usize) -> Option<GemmTile> {
    let compute = properties.compute_capability.0 * 10 + properties.compute_capability.1;
    let aligned = (k as u64).wrapping_mul(catalog::gemm_element_bytes(math).into()).is_multiple_of(ALIGNED);
    catalog::gemm_tiles(math).into_iter().find(|tile| {
        tile.min_compute <= compute
            && m <= tile.most_rows
            && (!tile.aligned || aligned)
            && (!tile.fills || blocks(tile, m, n) >= u64::from(properties.multiprocessors))
    })
}

/// Whether the sums are of one term, and all rows in groups of one.
fn is_step(params: &GemmParams) -> bool {
    let mut problems = params.problem.iter().take(params.problems as usize);
    problems.all(|problem| {
        let [GemmTerm { a, b, .. }, ..] = &problem.term;
        problem.terms == 1 && [a, b, &problem.c].into_iter().all(|rows| rows.inner == 1)
    })
}

/// Terms of the longest sum.
fn terms(params: &GemmParams) -> u64 {
    let problems = params.problem.iter().take(params.problems as usize);
    let terms = problems.map(|p| p.term.iter().take(p.terms as usize).map(|term| u64::from(term.k)).sum());
    terms.max().unwrap_or(0)
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

/// Of the kernel that adds up pieces.
fn sum_launch(params: &GemmParams) -> Launch {
    let blocks = params.partial_apart.div_ceil(REDUCTION_THREADS.into()).min(GRID as u64);
    Launch::new([blocks as u32, 1, params.count.min(GRID as u32)], REDUCTION_THREADS)
}
