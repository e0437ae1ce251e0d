//! What the backend needs of the machine that runs its kernels: [`Device`].
//!
//! There are four: the GPU behind NVIDIA's [`driver`], the host's emulation of one (`emulated`), an interpreter of the kernels' PTX (`ptx`), and
//! one on [`paper`] that plans are made for. Plans, parameters and launches above this trait are the same code for all.
#![allow(unsafe_code)]

pub(super) mod arena;
#[cfg(feature = "cublaslt")]
pub mod cublaslt;
pub mod driver;
#[cfg(feature = "emulated")]
pub mod emulated;
#[cfg(all(feature = "emulated", feature = "cublaslt"))]
mod emulated_cublaslt;
pub mod memory;
pub mod paper;
#[cfg(feature = "ptx")]
pub mod ptx;

use bytemuck::{Pod, Zeroable};

use crate::error::{Error, Result};

/// An address in a device's memory. The host must not follow it, unless the device is the emulated one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct DevicePtr(pub u64);

impl DevicePtr {
    /// No memory: what a kernel takes for a tensor that is absent.
    pub const NULL: DevicePtr = DevicePtr(0);

    /// The address `bytes` further on; [`NULL`](Self::NULL) stays what it is.
    pub fn offset(self, bytes: usize) -> Self {
        if self == Self::NULL { self } else { DevicePtr(self.0 + bytes as u64) }
    }
}

/// What plans depend on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Properties {
    /// As the driver calls it.
    pub name: String,
    /// Major and minor compute capability: `(9, 0)`.
    pub compute_capability: (u32, u32),
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Dynamic shared memory that one block may opt in to, bytes.
    pub shared_bytes_per_block: u32,
    /// Most blocks of any kernel's cluster, non-portable sizes included; 1 where there are no clusters. What a given kernel's may have
    /// is for [`Device::largest_cluster`] to say.
    pub max_cluster: u32,
    /// Whether all blocks of a launch can be made resident together.
    pub cooperative: bool,
    /// Clock of the multiprocessors, kHz.
    pub clock_khz: u32,
    /// All of the device's memory, bytes.
    pub memory_bytes: u64,
}

impl Properties {
    /// Properties of a usual GPU of a compute capability.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a compute capability that is not among 7.5, 8.0, 8.6, 8.9, 9.0, 10.0 and 12.0.
    pub fn usual(compute_capability: (u32, u32)) -> Result<Self> {
        let (name, multiprocessors, shared_kib, max_cluster, clock_khz, memory_gib) = match compute_capability {
            (7, 5) => ("T4", 40, 64, 1, 1_590_000, 16),
            (8, 0) => ("A100", 108, 163, 1, 1_410_000, 80),
            (8, 6) => ("GeForce RTX 3090", 82, 99, 1, 1_695_000, 24),
            (8, 9) => ("L40", 142, 99, 1, 2_490_000, 48),
            (9, 0) => ("H100", 132, 227, 16, 1_755_000, 80),
            (10, 0) => ("B200", 148, 227, 16, 1_965_000, 180),
            (12, 0) => ("GeForce RTX 5090", 170, 99, 8, 2_407_000, 32),
            (major, minor) => {
                return Err(Error::unsupported(
                    format!("a usual GPU of compute capability {major}.{minor}"),
                    "there are 7.5, 8.0, 8.6, 8.9, 9.0, 10.0 and 12.0",
                ));
            }
        };
        Ok(Properties {
            name: name.to_owned(),
            compute_capability,
            multiprocessors,
            shared_bytes_per_block: shared_kib << 10,
            max_cluster,
            cooperative: true,
            clock_khz,
            memory_bytes: memory_gib << 30,
        })
    }
}

/// Geometry of a launch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Launch {
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block, along x.
    pub block: u32,
    /// Blocks of a cluster, along x; 1 for none.
    pub cluster: u32,
    /// All blocks must be resident together.
    pub cooperative: bool,
    /// Dynamic shared memory of a block, bytes.
    pub shared_bytes: u32,
}

impl Launch {
    /// A plain launch: no cluster, no dynamic shared memory.
    pub fn new(grid: [u32; 3], block: u32) -> Self {
        Launch { grid, block, cluster: 1, cooperative: false, shared_bytes: 0 }
    }
}

/// What a launch must fit on a device that runs kernels on the host.
#[cfg(any(feature = "emulated", feature = "ptx"))]
struct Limits<'a> {
    kernel: &'a str,
    /// Threads of a block; 0 for any.
    threads: u32,
    params_bytes: usize,
    properties: &'a Properties,
    /// Most blocks that are resident together.
    resident: u32,
}

#[cfg(any(feature = "emulated", feature = "ptx"))]
impl Limits<'_> {
    /// Most blocks of a launch that are resident together, each as if it took a multiprocessor for itself, which is what persistent
    /// kernels do.
    fn resident_blocks(&self, launch: &Launch) -> u32 {
        let Properties { shared_bytes_per_block, max_cluster, multiprocessors, .. } = *self.properties;
        if launch.shared_bytes > shared_bytes_per_block || launch.cluster > max_cluster {
            return 0;
        }
        let blocks = multiprocessors.min(self.resident);
        blocks - blocks % launch.cluster.max(1)
    }

    /// Refuses what a GPU would refuse.
    fn check(&self, launch: &Launch, params: &[u8]) -> Result<()> {
        let Limits { kernel, threads, params_bytes, properties, .. } = *self;
        let refused = |problem: String| Err(Error::Emulation { what: format!("kernel {kernel}"), problem });
        let ([x, y, z], cluster, given) = (launch.grid, launch.cluster, params.len());
        if given != params_bytes {
            return refused(format!("its parameters have {params_bytes} bytes, but {given} were given"));
        }
        if launch.block == 0 || launch.block > 1024 || threads != 0 && launch.block != threads {
            return refused(format!("it has {threads} threads a block, but {} were given", launch.block));
        }
        let blocks = launch.grid.iter().map(|n| u64::from(*n)).product::<u64>();
        if blocks == 0 || x > 0x7fff_ffff || y > 65_535 || z > 65_535 {
            return refused(format!("a grid of {x} x {y} x {z} blocks: expected 1 to 2147483647, 65535, 65535"));
        }
        if cluster > properties.max_cluster {
            return refused(format!(
                "a cluster of {cluster} blocks, where there are at most {}",
                properties.max_cluster
            ));
        }
        if !x.is_multiple_of(cluster.max(1)) {
            return refused(format!("a grid of {x} blocks along x is not whole clusters of {cluster}"));
        }
        if launch.shared_bytes > properties.shared_bytes_per_block {
            let ((major, minor), most) = (properties.compute_capability, properties.shared_bytes_per_block);
            let bytes = launch.shared_bytes;
            return refused(format!("{bytes} bytes of shared memory: compute capability {major}.{minor} has {most}"));
        }
        let resident = self.resident_blocks(launch);
        if launch.cooperative && blocks > u64::from(resident) {
            return refused(format!("{blocks} blocks are to be resident together, where {resident} can be"));
        }
        Ok(())
    }
}

/// A machine that runs the kernels of `kernels/`.
pub trait Device: Send + Sync + Sized + 'static {
    /// Work given to one stream is done in order.
    type Stream: Clone + Send + Sync;
    /// A kernel, loaded and ready to be launched.
    type Kernel: Clone + std::fmt::Debug + Send + Sync;

    /// Short name of backends on this device, as on the command line.
    const NAME: &'static str;

    /// What plans depend on.
    fn properties(&self) -> &Properties;

    /// The entry point `name` of the catalog (`kernels/catalog.rs`), loaded, its limit of dynamic shared memory raised to
    /// [`Properties::shared_bytes_per_block`]. Slow the first time; plans call it, passes never.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where no image for this device has it.
    fn kernel(&self, name: &str) -> Result<Self::Kernel>;

    /// Most blocks of a cluster of this kernel, with the threads and the shared memory of `launch`; 1 where there are no clusters.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    fn largest_cluster(&self, kernel: &Self::Kernel, launch: &Launch) -> Result<u32> {
        let _ = (kernel, launch);
        Ok(self.properties().max_cluster)
    }

    /// How many blocks of a launch the device can hold at a time; in whole clusters.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call, as it does on some devices for clusters that do not fit.
    fn resident_blocks(&self, kernel: &Self::Kernel, launch: &Launch) -> Result<u32>;

    /// Gives a launch to `stream` and returns. `params` are the bytes of the kernel's only parameter.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call; a fault inside the kernel shows at a later one. [`Error::Emulation`] where the
    /// emulated GPU finds a mistake in the launch or the kernel. [`Error::Unsupported`] on a paper device, where nothing runs.
    ///
    /// # Safety
    ///
    /// `params` must be the struct that the kernel declares; its pointers must be valid on this device, for the sizes in it,
    /// until the launch is done; nothing else may write there meanwhile.
    unsafe fn launch(&self, stream: &Self::Stream, kernel: &Self::Kernel, launch: &Launch, params: &[u8])
    -> Result<()>;

    /// cuBLASLt on this device.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is none; on a GPU it says where the library was looked for.
    #[cfg(feature = "cublaslt")]
    fn cublaslt(&self) -> Result<std::sync::Arc<dyn cublaslt::CublasLt<Self::Stream>>> {
        Err(Error::unsupported(
            format!("products by cuBLASLt on the device {}", Self::NAME),
            "only a GPU has the library; choose Matmul::Kernels",
        ))
    }

    /// Sets `bytes` bytes to `value`, in the order of `stream`.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call; [`Error::Emulation`] for memory that the emulated GPU did not allocate;
    /// [`Error::Unsupported`] on a paper device, where nothing runs.
    ///
    /// # Safety
    ///
    /// `to` must be valid for `bytes` bytes until that is done.
    unsafe fn fill(&self, stream: &Self::Stream, to: DevicePtr, value: u8, bytes: usize) -> Result<()>;

    /// Memory that belongs to the caller, aligned to 256 bytes, with unspecified contents.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is too little, naming `what`.
    fn allocate(&self, what: &str, bytes: usize) -> Result<DevicePtr>;

    /// Gives memory back once all work given to the device so far is done. `NULL` is ignored.
    ///
    /// # Safety
    ///
    /// `pointer` must come from [`allocate`](Self::allocate) with `bytes`, and not be used any more.
    unsafe fn release(&self, pointer: DevicePtr, bytes: usize);

    /// Copies to the device, in the order of `stream`; `from` may be reused when this returns.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call; [`Error::Emulation`] for memory that the emulated GPU did not allocate.
    ///
    /// # Safety
    ///
    /// `to` must be valid for `from.len()` bytes.
    unsafe fn upload(&self, stream: &Self::Stream, to: DevicePtr, from: &[u8]) -> Result<()>;

    /// Copies from the device, in the order of `stream`, and waits until that is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call, or reports a fault of earlier work; [`Error::Emulation`] for memory that the
    /// emulated GPU did not allocate; [`Error::Unsupported`] on a paper device, where nothing runs.
    ///
    /// # Safety
    ///
    /// `from` must be valid for `to.len()` bytes.
    unsafe fn download(&self, stream: &Self::Stream, from: DevicePtr, to: &mut [u8]) -> Result<()>;

    /// Waits until everything given to `stream` is done.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call, or reports a fault of earlier work.
    fn synchronize(&self, stream: &Self::Stream) -> Result<()>;
}
