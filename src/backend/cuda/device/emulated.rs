//! A GPU that is emulated on the host: the same kernels compiled as C++, run by the engine in `kernels/host`. For tests.
//!
//! Launches run at once, on the calling thread, in an order of threads that a [`Schedule`] chooses; so a race that a GPU would
//! show once in a while shows under some seed every time. What the emulation checks and what it cannot see stands in
//! `kernels/host/engine.cpp`. Memory starts as NaNs and has exactly the size asked for, so that AddressSanitizer, where the
//! kernels are built with it, sees accesses outside.
//!
//! The variable `FUSED_RNN_HOST_KERNELS` names a shared library to take the kernels from, instead of those built into the
//! crate: that is how the planted-bug tool (`tests/operator/planted_bugs`) brings in its damaged kernels.
#![allow(unsafe_code)]

use std::alloc;
use std::collections::BTreeMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::images::catalog;
use super::{Device, DevicePtr, Launch, Limits, Properties};
use crate::error::{Error, Result};

/// Names a shared library with the kernels.
const KERNELS_VARIABLE: &str = "FUSED_RNN_HOST_KERNELS";
/// What addresses are aligned to.
const ALIGNMENT: usize = 256;

/// The order in which the emulated threads run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// 0: blocks, warps and lanes in their natural order. Any other: random orders, others for every launch.
    pub seed: u64,
    /// A random warp or block gets no turn as long as any other can run, so that it lags as far as the kernel lets it.
    pub starve: bool,
}

/// A GPU emulated on the host.
#[derive(Debug)]
pub struct Emulated {
    properties: Properties,
    schedule: Schedule,
    resident_limit: u32,
    kernels: HostKernels,
    launches: AtomicU64,
    memory: Memory,
}

/// What an emulated GPU has allocated: addresses and sizes.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<BTreeMap<u64, usize>>>);

impl Memory {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, usize>> {
        // A panic of another thread cannot leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Checks that `bytes` bytes from `pointer` on lie within one allocation.
    pub(super) fn check_range(&self, what: &str, pointer: DevicePtr, bytes: usize) -> Result<()> {
        let memory = self.lock();
        let within = memory.range(..=pointer.0).next_back().is_some_and(|(start, size)| {
            let offset = pointer.0 - start;
            usize::try_from(offset).ok().and_then(|offset| offset.checked_add(bytes)).is_some_and(|end| end <= *size)
        });
        if bytes == 0 || within {
            return Ok(());
        }
        Err(Error::Emulation {
            what: what.to_owned(),
            problem: format!(
                "{bytes} bytes at {:#x} are not within memory that this device allocated; check sizes and offsets",
                pointer.0
            ),
        })
    }
}

/// A kernel compiled for the host.
#[derive(Clone, Copy, Debug)]
pub struct EmulatedKernel {
    name: &'static str,
    entry: EntryPoint,
    params_bytes: usize,
    threads: u32,
}

/// What stands for a stream. Launches run when they are given, so there is nothing to it; work on different streams is never
/// done at the same time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct EmulatedStream;

impl Emulated {
    /// An emulated GPU like the H100 (compute capability 9.0).
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where `FUSED_RNN_HOST_KERNELS` names a library that cannot be used.
    pub fn new(schedule: Schedule) -> Result<Self> {
        Self::with_compute_capability((9, 0), schedule)
    }

    /// An emulated GPU like the data-centre or desktop GPU of this compute capability. Kernels take the code path that they
    /// were compiled for (9.0), whatever this says; it decides which kernels and launches there are.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] for a compute capability that is not emulated, or where `FUSED_RNN_HOST_KERNELS` names a library
    /// that cannot be used.
    pub fn with_compute_capability(compute_capability: (u32, u32), schedule: Schedule) -> Result<Self> {
        let kernels = match std::env::var_os(KERNELS_VARIABLE) {
            Some(path) if !path.is_empty() => HostKernels::load(Path::new(&path))?,
            _ => HostKernels::built_in(),
        };
        Ok(Emulated {
            properties: properties_of(compute_capability)?,
            schedule,
            resident_limit: 64,
            kernels,
            launches: AtomicU64::new(0),
            memory: Memory::default(),
        })
    }

    /// The same, with at most `blocks` blocks resident together, whatever the number of multiprocessors: 64 unless set here.
    /// Each of their threads costs the host about 8 KiB.
    pub fn with_resident_limit(mut self, blocks: u32) -> Self {
        self.resident_limit = blocks.max(1);
        self
    }

    /// The order in which threads run.
    pub fn schedule(&self) -> Schedule {
        self.schedule
    }

    /// Launches so far.
    pub fn launches(&self) -> u64 {
        self.launches.load(Ordering::Relaxed)
    }

    /// Bytes allocated and not given back.
    pub fn allocated(&self) -> usize {
        self.memory.lock().values().sum()
    }

    fn limits<'a>(&'a self, kernel: &EmulatedKernel) -> Limits<'a> {
        let EmulatedKernel { name, params_bytes, threads, .. } = *kernel;
        Limits { kernel: name, threads, params_bytes, properties: &self.properties, resident: self.resident_limit }
    }
}

fn properties_of(compute_capability: (u32, u32)) -> Result<Properties> {
    let (major, minor) = compute_capability;
    let like = Properties::usual(compute_capability)?;
    Ok(Properties { name: format!("emulated GPU of compute capability {major}.{minor}"), ..like })
}

// ---- the C++ side -------------------------------------------------------------------------------------------------------

type EntryPoint = unsafe extern "C" fn(params: *const c_void);
type LaunchFunction = unsafe extern "C" fn(
    entry: EntryPoint,
    launch: *const HostLaunch,
    params: *const c_void,
    message: *mut c_char,
    message_len: u32,
) -> c_int;

/// `HostKernel` of the generated registry.
#[repr(C)]
struct HostKernel {
    name: *const c_char,
    entry: EntryPoint,
    params_bytes: u32,
}

/// `HostLaunch` of `engine.h`.
#[repr(C)]
struct HostLaunch {
    grid: [u32; 3],
    block: u32,
    cluster: u32,
    cooperative: u32,
    shared_bytes: u32,
    compute: u32,
    seed: u64,
    starve: u32,
}

mod built_in {
    use super::{EntryPoint, HostKernel, HostLaunch, c_char, c_int, c_void};

    unsafe extern "C" {
        #[link_name = "fused_rnn_host_kernels"]
        pub static KERNELS: HostKernel;
        #[link_name = "fused_rnn_host_kernel_count"]
        pub static COUNT: u32;
        #[link_name = "fused_rnn_host_launch"]
        pub fn launch(
            entry: EntryPoint,
            launch: *const HostLaunch,
            params: *const c_void,
            message: *mut c_char,
            message_len: u32,
        ) -> c_int;
    }
}

/// A registry of kernels, and the engine that runs them. Lives as long as the process.
#[derive(Clone, Copy, Debug)]
struct HostKernels {
    first: *const HostKernel,
    count: usize,
    launch: LaunchFunction,
}

// SAFETY: the registry is constant, and the engine keeps its state per thread.
unsafe impl Send for HostKernels {}
// SAFETY: as above.
unsafe impl Sync for HostKernels {}

impl HostKernels {
    fn built_in() -> Self {
        // SAFETY: a constant, linked in by build.rs.
        let count = unsafe { built_in::COUNT } as usize;
        HostKernels { first: &raw const built_in::KERNELS, count, launch: built_in::launch }
    }

    fn load(path: &Path) -> Result<Self> {
        let unusable = |error: libloading::Error| {
            Error::unsupported(
                format!("the host kernels {}", path.display()),
                format!("{error}; {KERNELS_VARIABLE} names a shared library built from kernels/ for the host"),
            )
        };
        // SAFETY: whoever sets the variable vouches for the library, which has to be one of this crate's kernels. It is
        // never unloaded, so that its kernels stay valid.
        unsafe {
            let library = std::mem::ManuallyDrop::new(libloading::Library::new(path).map_err(unusable)?);
            let first = *library.get::<*const HostKernel>(b"fused_rnn_host_kernels\0").map_err(unusable)?;
            let count = *library.get::<*const u32>(b"fused_rnn_host_kernel_count\0").map_err(unusable)?;
            let launch = *library.get::<LaunchFunction>(b"fused_rnn_host_launch\0").map_err(unusable)?;
            Ok(HostKernels { first, count: *count as usize, launch })
        }
    }

    fn find(&self, name: &str) -> Option<(EntryPoint, usize)> {
        (0..self.count).find_map(|i| {
            // SAFETY: `first` is an array of `count` constant entries, whose names are null-terminated.
            let (kernel, known) = unsafe {
                let kernel = &*self.first.add(i);
                (kernel, CStr::from_ptr(kernel.name))
            };
            (known.to_bytes() == name.as_bytes()).then_some((kernel.entry, kernel.params_bytes as usize))
        })
    }
}

// ---- the device ---------------------------------------------------------------------------------------------------------

impl Device for Emulated {
    type Stream = EmulatedStream;
    type Kernel = EmulatedKernel;

    const NAME: &'static str = "emulated";

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn kernel(&self, name: &str) -> Result<EmulatedKernel> {
        let missing = |why: &str| Err(Error::unsupported(format!("the kernel {name} on the emulated GPU"), why));
        // The rows stay for the life of the process: names in kernels borrow from them.
        static CATALOG: std::sync::LazyLock<BTreeMap<String, catalog::Entry>> = std::sync::LazyLock::new(|| {
            catalog::entries().into_iter().map(|entry| (entry.name.clone(), entry)).collect()
        });
        let Some((known, row)) = CATALOG.get_key_value(name) else {
            return missing("kernels/catalog.rs has no such entry point");
        };
        let (major, minor) = self.properties.compute_capability;
        if row.min_compute > major * 10 + minor {
            let (needs_major, needs_minor) = (row.min_compute / 10, row.min_compute % 10);
            return missing(&format!(
                "it needs compute capability {needs_major}.{needs_minor}, this is {major}.{minor}"
            ));
        }
        match self.kernels.find(name) {
            Some((entry, params_bytes)) => {
                Ok(EmulatedKernel { name: known, entry, params_bytes, threads: row.threads })
            }
            None => missing("it was not compiled for the host; build the host's kernels again"),
        }
    }

    fn resident_blocks(&self, kernel: &EmulatedKernel, launch: &Launch) -> Result<u32> {
        Ok(self.limits(kernel).resident_blocks(launch))
    }

    /// Runs the launch to its end; its faults are this call's errors.
    unsafe fn launch(&self, _: &EmulatedStream, kernel: &EmulatedKernel, launch: &Launch, params: &[u8]) -> Result<()> {
        self.limits(kernel).check(launch, params)?;
        // What kernels read must be aligned as in the struct.
        let mut aligned = vec![0u64; params.len().div_ceil(8)];
        bytemuck::cast_slice_mut(&mut aligned)[..params.len()].copy_from_slice(params);
        let number = self.launches.fetch_add(1, Ordering::Relaxed);
        let (major, minor) = self.properties.compute_capability;
        let host = HostLaunch {
            grid: launch.grid,
            block: launch.block,
            cluster: launch.cluster,
            cooperative: launch.cooperative.into(),
            shared_bytes: launch.shared_bytes,
            compute: major * 10 + minor,
            // Seed 0 stays what it is: the natural order.
            seed: match self.schedule.seed {
                0 => 0,
                seed => seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(number).max(1),
            },
            starve: self.schedule.starve.into(),
        };
        let mut message = [0u8; 2048];
        // SAFETY: the kernel is one of this registry, its parameters have the size that it was compiled with and, as the
        // caller promises, valid pointers; the message is null-terminated within its length.
        let failed = unsafe {
            (self.kernels.launch)(
                kernel.entry,
                &host,
                aligned.as_ptr().cast(),
                message.as_mut_ptr().cast(),
                message.len() as u32,
            )
        };
        if failed == 0 {
            return Ok(());
        }
        let text = CStr::from_bytes_until_nul(&message).map_or("no reason given".into(), CStr::to_string_lossy);
        Err(Error::Emulation { what: format!("kernel {}", kernel.name), problem: text.into_owned() })
    }

    #[cfg(feature = "cublaslt")]
    fn cublaslt(&self) -> Result<Arc<dyn super::cublaslt::CublasLt<EmulatedStream>>> {
        Ok(Arc::new(super::emulated_cublaslt::EmulatedLt(self.memory.clone())))
    }

    unsafe fn fill(&self, _: &EmulatedStream, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        self.memory.check_range("fill", to, bytes)?;
        if bytes > 0 {
            // SAFETY: within an allocation, as just checked; the caller promises that nothing else uses it.
            unsafe { (to.0 as *mut u8).write_bytes(value, bytes) };
        }
        Ok(())
    }

    fn allocate(&self, what: &str, bytes: usize) -> Result<DevicePtr> {
        if bytes == 0 {
            return Ok(DevicePtr::NULL);
        }
        let too_large = || Error::unsupported(format!("{bytes} bytes for {what}"), "the host has too little memory");
        let layout = alloc::Layout::from_size_align(bytes, ALIGNMENT).map_err(|_| too_large())?;
        // SAFETY: the layout's size is not zero.
        let pointer = unsafe { alloc::alloc(layout) };
        if pointer.is_null() {
            return Err(too_large());
        }
        // SAFETY: just allocated with this size. The bytes make NaNs of every element type.
        unsafe { pointer.write_bytes(0xff, bytes) };
        self.memory.lock().insert(pointer as u64, bytes);
        Ok(DevicePtr(pointer as u64))
    }

    unsafe fn release(&self, pointer: DevicePtr, bytes: usize) {
        // What is not ours, or of another size, stays: better a leak than a corrupted heap.
        let mut memory = self.memory.lock();
        if memory.get(&pointer.0) == Some(&bytes)
            && let Ok(layout) = alloc::Layout::from_size_align(bytes, ALIGNMENT)
        {
            memory.remove(&pointer.0);
            // SAFETY: it came from `allocate` with this layout, and is in nobody's hands any more.
            unsafe { alloc::dealloc(pointer.0 as *mut u8, layout) };
        }
    }

    unsafe fn upload(&self, _: &EmulatedStream, to: DevicePtr, from: &[u8]) -> Result<()> {
        self.memory.check_range("upload", to, from.len())?;
        // SAFETY: within an allocation, as just checked; a slice cannot overlap memory that only this device hands out.
        unsafe { (to.0 as *mut u8).copy_from(from.as_ptr(), from.len()) };
        Ok(())
    }

    unsafe fn download(&self, _: &EmulatedStream, from: DevicePtr, to: &mut [u8]) -> Result<()> {
        self.memory.check_range("download", from, to.len())?;
        // SAFETY: as in `upload`.
        unsafe { to.as_mut_ptr().copy_from(from.0 as *const u8, to.len()) };
        Ok(())
    }

    fn synchronize(&self, _: &EmulatedStream) -> Result<()> {
        Ok(())
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (pointer, bytes) in std::mem::take(&mut *self.memory.lock()) {
            if let Ok(layout) = alloc::Layout::from_size_align(bytes, ALIGNMENT) {
                // SAFETY: it came from `allocate` with this layout. Whoever still holds it was to give it back before.
                unsafe { alloc::dealloc(pointer as *mut u8, layout) };
            }
        }
    }
}
