//! Launches: a kernel with the type of its parameter, and the usual geometries.
#![allow(unsafe_code)]

use std::fmt;
use std::marker::PhantomData;

use bytemuck::Pod;

use super::super::device::{Device, Launch};
use super::super::images::catalog::{ELEMENTWISE_THREADS, REDUCTION_THREADS, params as params_of};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Most blocks of an elementwise launch: enough to fill any GPU; threads take several elements beyond that.
const ELEMENTWISE_BLOCKS: u64 = 4096;
/// Most blocks along the second and third axis of a grid.
pub(crate) const GRID: usize = 65_535;

/// The struct that a kernel takes, see `params`.
pub(crate) trait Params: Pod {
    /// Its name in `kernels/`.
    const NAME: &'static str;
}

/// That the entry point `name` takes the struct `params`.
fn check_params(name: &str, params: &str) -> Result<()> {
    match params_of(name) {
        Some(taken) if taken == params => Ok(()),
        Some(taken) => Err(Error::unsupported(format!("kernel {name} with {params}"), format!("it takes {taken}"))),
        None => Err(Error::unsupported(format!("kernel {name}"), "the catalog has no such entry")),
    }
}

/// A kernel that takes a `P`, loaded.
pub(crate) struct Kernel<D: Device, P> {
    kernel: D::Kernel,
    params: PhantomData<fn(P)>,
}

impl<D: Device, P: Params> Kernel<D, P> {
    /// The entry point `name` of the catalog.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device has no such kernel, or it takes another struct.
    pub(crate) fn load(device: &D, name: &str) -> Result<Self> {
        check_params(name, P::NAME)?;
        Ok(Kernel { kernel: device.kernel(name)?, params: PhantomData })
    }

    /// The one on elements of a type.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the device has no such kernel, or it takes another struct.
    pub(crate) fn of(device: &D, name: &str, dtype: DType) -> Result<Self> {
        Self::load(device, &format!("{name}_{dtype}"))
    }

    /// Most blocks of a cluster of such launches.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    pub(crate) fn largest_cluster(&self, device: &D, launch: &Launch) -> Result<u32> {
        device.largest_cluster(&self.kernel, launch)
    }

    /// How many blocks of a launch the device can hold at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    pub(crate) fn resident_blocks(&self, device: &D, launch: &Launch) -> Result<u32> {
        device.resident_blocks(&self.kernel, launch)
    }

    /// Gives a launch to `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call; a fault inside the kernel shows at a later one. [`Error::Emulation`] where the
    /// emulated GPU finds a mistake in the launch or the kernel. [`Error::Unsupported`] on a paper device, where nothing runs.
    pub(crate) fn launch(&self, device: &D, stream: &D::Stream, launch: &Launch, params: &P) -> Result<()> {
        // SAFETY: the kernel takes a `P`, as `load` has checked. Its addresses are those of tensors that the caller has borrowed for
        // the call, or (in the raw calls) answers for, of at least the sizes that stand beside them: every function that fills a `P`
        // has checked the lengths before. Tensors that are dropped while the stream still works are given back only after.
        unsafe { device.launch(stream, &self.kernel, launch, bytemuck::bytes_of(params)) }
    }
}

impl<D: Device, P: Params> fmt::Debug for Kernel<D, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}({})", self.kernel, P::NAME)
    }
}

impl<D: Device, P> Clone for Kernel<D, P> {
    fn clone(&self) -> Self {
        Kernel { kernel: self.kernel.clone(), params: PhantomData }
    }
}

/// An elementwise launch over `len` elements.
pub(crate) fn elementwise(len: u64) -> Launch {
    let blocks = len.div_ceil(ELEMENTWISE_THREADS.into()).clamp(1, ELEMENTWISE_BLOCKS);
    Launch::new([blocks as u32, 1, 1], ELEMENTWISE_THREADS)
}

/// Rows that a piece of a sum over rows has at least.
const PIECE_ROWS: usize = 256;

/// Pieces that a sum over rows, the gradient of a bias, falls into.
pub(crate) fn bias_pieces(rows: usize) -> usize {
    rows.div_ceil(PIECE_ROWS).clamp(1, 64)
}

/// Pieces that the sum over `rows` of the gradient of recurrent weights in heads falls into, so that every multiprocessor has work.
pub(crate) fn head_pieces(elements: usize, rows: usize, multiprocessors: usize) -> usize {
    let threads = 1024 * multiprocessors.max(1);
    threads.div_ceil(elements).min(rows.div_ceil(64)).clamp(1, 64)
}

/// A reduction of `columns` columns, each in `pieces` runs of rows; every thread of a block has `numbers` accumulators in shared memory.
pub(crate) fn column_reduction(columns: usize, pieces: usize, numbers: u32, dtype: DType) -> Launch {
    Launch {
        shared_bytes: numbers * REDUCTION_THREADS * accumulator(dtype) as u32,
        ..Launch::new([columns.div_ceil(32) as u32, pieces as u32, 1], REDUCTION_THREADS)
    }
}

/// A launch of `sum_partials` that gives `len` elements.
pub(crate) fn partial_sums(len: usize) -> Launch {
    Launch::new([len.div_ceil(REDUCTION_THREADS as usize).min(GRID) as u32, 1, 1], REDUCTION_THREADS)
}

/// Bytes of a number in which products and sums of a type are computed.
pub(crate) fn accumulator(dtype: DType) -> usize {
    dtype.size().max(4)
}
