//! The GPU behind NVIDIA's driver: [`Driver`], a [`Device`] through cudarc.
//!
//! Nothing here panics where there is no driver, no GPU, or a driver too old: `library` looks before it calls. Only the
//! driver's interface is used (libcuda, no toolkit), and of cudarc its bindings, since its safe level records events and
//! synchronises where a caller's stream and graph capture must not see any.
//!
//! # Contexts
//!
//! A [`Driver`] shares the device's primary context with every other library of the process that uses the CUDA runtime.
//! Each call makes it current on the calling thread and puts back what was current before, so that a caller's choice of
//! device (`cudaSetDevice`) survives. Any number of drivers, threads and streams may be used at once.
//!
//! # What a pass may do
//!
//! [`launch`](Device::launch) and [`fill`](Device::fill) give one operation to the stream: no allocation, no wait, no event,
//! no loading of modules, no attribute. So they can be captured in a [`Graph`].
#![allow(unsafe_code)]

mod graph;
mod library;

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;

pub use graph::{Graph, Timer};
use library::{call, failure, library, no_gpu, within};

use super::device::{Device, DevicePtr, Launch, Properties};
use super::images::{self, Image};
use crate::error::{Error, Result};

/// Oldest compute capability that the kernels' PTX runs on.
const OLDEST_COMPUTE: (u32, u32) = (7, 5);

/// One GPU.
pub struct Driver {
    ordinal: usize,
    properties: Properties,
    // Before the context, which must be dropped last.
    kernels: Mutex<HashMap<String, DriverKernel>>,
    modules: Mutex<HashMap<usize, Arc<Module>>>,
    context: Arc<Context>,
}

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Driver").field("ordinal", &self.ordinal).field("properties", &self.properties).finish()
    }
}

impl Driver {
    /// Opens GPU number `ordinal`, counted from 0 among those that the process may see.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no driver, one that is too old, no GPU, or a GPU older than compute capability
    /// 7.5; [`Error::InvalidOption`] for a number that no GPU has; [`Error::Driver`] where the driver refuses.
    pub fn open(ordinal: usize) -> Result<Arc<Self>> {
        let device = device(ordinal)?;
        let properties = properties(device)?;
        let capability = properties.compute_capability;
        if capability < OLDEST_COMPUTE {
            return Err(Error::unsupported(
                format!("{} (compute capability {}.{})", properties.name, capability.0, capability.1),
                format!(
                    "the kernels need {}.{} (Turing) or later; choose another GPU, or use the cpu backend",
                    OLDEST_COMPUTE.0, OLDEST_COMPUTE.1
                ),
            ));
        }
        let context = Arc::new(Context::retain(device)?);
        Ok(Arc::new(Driver { ordinal, properties, kernels: Mutex::default(), modules: Mutex::default(), context }))
    }

    /// Number of GPUs that this process may see.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no driver, one that is too old, or no GPU at all.
    pub fn count() -> Result<usize> {
        library()?;
        let mut count: c_int = 0;
        // SAFETY: the driver is initialised; the pointer is valid for the call.
        unsafe { call!(cuDeviceGetCount(&mut count)) }?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    /// The driver and all its GPUs, those too that [`open`](Self::open) refuses.
    ///
    /// # Errors
    ///
    /// Those of [`count`](Self::count).
    pub fn describe() -> Result<Description> {
        let version = library()?.version;
        let gpus = (0..Self::count()?).map(|ordinal| properties(device(ordinal)?)).collect::<Result<_>>()?;
        Ok(Description { cuda_version: (version as u32 / 1000, version as u32 % 1000 / 10), gpus })
    }

    /// The number that [`open`](Self::open) was given.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Bytes of the device's memory that are free now, and all of it.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let _current = self.context.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; the pointers are valid for the call.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free, total))
    }

    /// The module of `image`, loaded once.
    fn module(&self, image: &'static Image, entry: &str) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let key = std::ptr::from_ref(image).addr();
        if let Some(module) = modules.get(&key) {
            return Ok(Arc::clone(module));
        }
        let module = Arc::new(Module::load(&self.context, image, entry)?);
        modules.insert(key, Arc::clone(&module));
        Ok(module)
    }

    /// A module that has `entry`.
    fn module_with(&self, entry: &str) -> Result<Arc<Module>> {
        /// The driver is older than the NVRTC that made the image's assembly.
        const UNSUPPORTED_PTX_VERSION: u32 = 222;
        let capability = self.properties.compute_capability;
        let refused = match self.module(images::image_for(entry, capability)?, entry) {
            Err(error @ Error::Driver { code: UNSUPPORTED_PTX_VERSION, .. }) => error,
            other => return other,
        };
        match images::compile_for(entry, capability) {
            Ok(image) => self.module(image, entry),
            Err(why) => Err(within(refused, &format!("and {why}"))),
        }
    }
}

/// What [`Driver::describe`] found. Its `Display` is a line for the driver and one for every GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Description {
    /// Newest CUDA version that the driver can run: `(12, 8)`.
    pub cuda_version: (u32, u32),
    /// All GPUs, by number.
    pub gpus: Vec<Properties>,
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "driver for CUDA {}.{}", self.cuda_version.0, self.cuda_version.1)?;
        if self.gpus.is_empty() {
            write!(f, "; {}", no_gpu())?;
        }
        for (ordinal, gpu) in self.gpus.iter().enumerate() {
            let (major, minor) = gpu.compute_capability;
            write!(
                f,
                "\nGPU {ordinal}: {}, compute capability {major}.{minor}, {} SMs at {:.2} GHz, {:.0} GiB, {} KiB shared memory a \
                 block, clusters of up to {}{}",
                gpu.name,
                gpu.multiprocessors,
                f64::from(gpu.clock_khz) * 1e-6,
                gpu.memory_bytes as f64 / f64::from(1 << 30),
                gpu.shared_bytes_per_block / 1024,
                gpu.max_cluster,
                if gpu.compute_capability < OLDEST_COMPUTE { "; too old for the kernels" } else { "" },
            )?;
        }
        Ok(())
    }
}

/// Whether this machine has what [`Driver::open`] needs, and if not, why and the way out.
pub fn status() -> String {
    match Driver::describe() {
        Ok(description) => description.to_string(),
        Err(error) => error.to_string(),
    }
}

/// Handle of GPU number `ordinal`.
fn device(ordinal: usize) -> Result<sys::CUdevice> {
    let count = Driver::count()?;
    if count == 0 {
        return Err(Error::unsupported("the CUDA backend", no_gpu()));
    }
    let number = c_int::try_from(ordinal).ok().filter(|_| ordinal < count).ok_or_else(|| {
        let expected = if count == 1 { "0, the only GPU here".to_owned() } else { format!("0..={}", count - 1) };
        Error::option("device", expected, ordinal)
    })?;
    let mut device = 0;
    // SAFETY: the driver is initialised; the pointer is valid for the call.
    unsafe { call!(cuDeviceGet(&mut device, number)) }?;
    Ok(device)
}

/// What the driver says of a GPU. Needs no context.
fn properties(device: sys::CUdevice) -> Result<Properties> {
    use sys::CUdevice_attribute as Attribute;
    let attribute = |attribute: Attribute| -> Result<u32> {
        let mut value: c_int = 0;
        // SAFETY: the device exists; the pointer is valid for the call.
        unsafe { call!(cuDeviceGetAttribute(&mut value, attribute, device)) }?;
        Ok(u32::try_from(value).unwrap_or(0))
    };
    let mut name = [0; 256];
    // SAFETY: the buffer is as long as said.
    unsafe { call!(cuDeviceGetName(name.as_mut_ptr(), name.len() as c_int, device)) }?;
    let name = name.iter().take_while(|c| **c != 0).map(|c| *c as u8).collect::<Vec<_>>();
    let mut memory = 0;
    // SAFETY: the device exists; the pointer is valid for the call.
    unsafe { call!(cuDeviceTotalMem_v2(&mut memory, device)) }?;
    let capability = (
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        attribute(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    );
    // Eight blocks are portable; 9.0 and 10.x take sixteen where the kernel allows it. Whether a given kernel's clusters fit is
    // for `resident_blocks` to say.
    let max_cluster = match attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLUSTER_LAUNCH)? {
        0 => 1,
        _ if matches!(capability.0, 9 | 10) => 16,
        _ => 8,
    };
    Ok(Properties {
        name: String::from_utf8_lossy(&name).into_owned(),
        compute_capability: capability,
        multiprocessors: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
        shared_bytes_per_block: attribute(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        max_cluster,
        cooperative: attribute(Attribute::CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)? != 0,
        clock_khz: attribute(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE)?,
        memory_bytes: memory as u64,
    })
}

/// A handle of the driver's. The driver may be called with it from any thread.
#[derive(Clone, Copy)]
struct Handle<T>(T);

// SAFETY: handles are names of objects inside the driver, which locks them itself.
unsafe impl<T> Send for Handle<T> {}
// SAFETY: as above.
unsafe impl<T> Sync for Handle<T> {}

/// A device's primary context, kept alive.
struct Context {
    device: sys::CUdevice,
    raw: Handle<sys::CUcontext>,
}

impl Context {
    fn retain(device: sys::CUdevice) -> Result<Self> {
        let mut raw = std::ptr::null_mut();
        // SAFETY: the driver is initialised and the device exists; the pointer is valid for the call.
        unsafe { call!(cuDevicePrimaryCtxRetain(&mut raw, device)) }?;
        Ok(Context { device, raw: Handle(raw) })
    }

    /// Makes the context current on this thread until the guard is dropped.
    fn enter(&self) -> Result<Entered> {
        let mut before = std::ptr::null_mut();
        // SAFETY: the driver is initialised; the pointer is valid for the call.
        unsafe { call!(cuCtxGetCurrent(&mut before)) }?;
        if before == self.raw.0 {
            return Ok(Entered { before: None });
        }
        // SAFETY: the context is retained.
        unsafe { call!(cuCtxSetCurrent(self.raw.0)) }?;
        Ok(Entered { before: Some(before) })
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: retained once by `retain`. The driver waits for nothing here that still uses it: streams, modules and graphs
        // hold this context, so they are gone. Memory that a caller did not release stays theirs to release, before this.
        let _ = unsafe { call!(cuDevicePrimaryCtxRelease_v2(self.device)) };
    }
}

/// A context made current; what was current before comes back on drop.
struct Entered {
    before: Option<sys::CUcontext>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(before) = self.before {
            // SAFETY: it was current on this thread when `enter` was called; null means none.
            let _ = unsafe { call!(cuCtxSetCurrent(before)) };
        }
    }
}

/// A loaded image.
struct Module {
    raw: Handle<sys::CUmodule>,
    context: Arc<Context>,
}

impl Module {
    fn load(context: &Arc<Context>, image: &Image, entry: &str) -> Result<Self> {
        use sys::CUjit_option as JitOption;
        let _current = context.enter()?;
        // What the driver's own compiler says of assembly; empty for machine code.
        let mut log = vec![0u8; 8192];
        let mut options = [JitOption::CU_JIT_ERROR_LOG_BUFFER, JitOption::CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES];
        // The second value is a number in the place of a pointer, as the interface wants it.
        let mut values = [log.as_mut_ptr().cast::<c_void>(), std::ptr::without_provenance_mut(log.len())];
        let (mut raw, bytes, count) = (std::ptr::null_mut(), image.bytes()?.as_ptr().cast(), options.len() as c_uint);
        // SAFETY: the context is current; the image is whole (machine code says its own length, assembly ends in a zero); the
        // log's buffer is as long as said, and all pointers are valid for the call.
        let loaded =
            unsafe { call!(cuModuleLoadDataEx(&mut raw, bytes, count, options.as_mut_ptr(), values.as_mut_ptr())) };
        loaded.map_err(|error| {
            let log = log.iter().take_while(|byte| **byte != 0).copied().collect::<Vec<_>>();
            let log = String::from_utf8_lossy(&log).trim().to_owned();
            let said = if log.is_empty() { String::new() } else { format!("; its compiler says: {log}") };
            within(error, &format!("{entry}, {} for {}{said}", image.unit(), image.arch()))
        })?;
        Ok(Module { raw: Handle(raw), context: Arc::clone(context) })
    }
}

impl Drop for Module {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: loaded by `load`, unloaded once; kernels hold the module, so none is left.
            let _ = unsafe { call!(cuModuleUnload(self.raw.0)) };
        }
    }
}

/// A kernel, ready to be launched. Keeps its module loaded.
#[derive(Clone)]
pub struct DriverKernel {
    function: Handle<sys::CUfunction>,
    name: Arc<str>,
    params_bytes: Option<usize>,
    _module: Arc<Module>,
}

impl DriverKernel {
    /// Bytes of its only parameter, where the driver can tell: from 12.4.
    pub fn params_bytes(&self) -> Option<usize> {
        self.params_bytes
    }
}

impl fmt::Debug for DriverKernel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("DriverKernel").field(&self.name).finish()
    }
}

/// A stream: one of its own, or a caller's.
#[derive(Clone)]
pub struct DriverStream {
    raw: Handle<sys::CUstream>,
    _owned: Option<Arc<OwnedStream>>,
}

struct OwnedStream {
    raw: Handle<sys::CUstream>,
    context: Arc<Context>,
}

impl Drop for OwnedStream {
    fn drop(&mut self) {
        if let Ok(_current) = self.context.enter() {
            // SAFETY: made by `DriverStream::new`, destroyed once. Work still in it is done first.
            let _ = unsafe { call!(cuStreamDestroy_v2(self.raw.0)) };
        }
    }
}

impl fmt::Debug for DriverStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DriverStream({:#x})", self.as_raw())
    }
}

impl DriverStream {
    /// The default stream that waits for, and is waited for by, other blocking streams of the context.
    pub const LEGACY_DEFAULT: u64 = 1;
    /// The default stream of the calling thread.
    pub const PER_THREAD_DEFAULT: u64 = 2;

    /// A new stream, independent of the default ones. Destroyed with its last clone.
    ///
    /// # Errors
    ///
    /// Those of the driver.
    pub fn new(driver: &Driver) -> Result<Self> {
        let _current = driver.context.enter()?;
        let mut raw = std::ptr::null_mut();
        let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as c_uint;
        // SAFETY: the context is current; the pointer is valid for the call.
        unsafe { call!(cuStreamCreate(&mut raw, flags)) }?;
        let raw = Handle(raw);
        Ok(DriverStream { raw, _owned: Some(Arc::new(OwnedStream { raw, context: Arc::clone(&driver.context) })) })
    }

    /// A caller's stream: a `CUstream` or `cudaStream_t`, [`LEGACY_DEFAULT`](Self::LEGACY_DEFAULT),
    /// [`PER_THREAD_DEFAULT`](Self::PER_THREAD_DEFAULT), or 0 for the legacy default. It is not destroyed.
    ///
    /// # Safety
    ///
    /// The stream must belong to the primary context of the device that it will be used with, and live as long as this and
    /// its clones.
    pub unsafe fn from_raw(stream: u64) -> Self {
        DriverStream { raw: Handle(std::ptr::with_exposed_provenance_mut(stream as usize)), _owned: None }
    }

    /// The stream as a number, for other libraries.
    pub fn as_raw(&self) -> u64 {
        self.raw.0.expose_provenance() as u64
    }

    fn raw(&self) -> sys::CUstream {
        self.raw.0
    }
}

/// The driver's form of a launch. The attributes must outlive the configuration, so they are made by the caller.
fn configuration(
    launch: &Launch,
    stream: sys::CUstream,
    attributes: &mut [sys::CUlaunchAttribute; 2],
) -> sys::CUlaunchConfig {
    use sys::CUlaunchAttributeID as Id;
    let mut count = 0;
    if launch.cooperative {
        attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_COOPERATIVE;
        attributes[count].value.cooperative = 1;
        count += 1;
    }
    if launch.cluster > 1 {
        attributes[count].id = Id::CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION;
        attributes[count].value.clusterDim.x = launch.cluster;
        attributes[count].value.clusterDim.y = 1;
        attributes[count].value.clusterDim.z = 1;
        count += 1;
    }
    sys::CUlaunchConfig {
        gridDimX: launch.grid[0],
        gridDimY: launch.grid[1],
        gridDimZ: launch.grid[2],
        blockDimX: launch.block,
        blockDimY: 1,
        blockDimZ: 1,
        sharedMemBytes: launch.shared_bytes,
        hStream: stream,
        attrs: attributes.as_mut_ptr(),
        numAttrs: count as c_uint,
    }
}

/// Attributes that say nothing, to be filled by [`configuration`].
fn no_attributes() -> [sys::CUlaunchAttribute; 2] {
    let none = sys::CUlaunchAttribute {
        id: sys::CUlaunchAttributeID::CU_LAUNCH_ATTRIBUTE_IGNORE,
        pad: [0; 4],
        value: sys::CUlaunchAttributeValue { pad: [0; 64] },
    };
    [none; 2]
}

/// A launch in words, for errors.
fn describe(name: &str, launch: &Launch) -> String {
    let [x, y, z] = launch.grid;
    format!(
        "{name}, grid {x}x{y}x{z}, {} threads, clusters of {}, {} bytes of shared memory{}",
        launch.block,
        launch.cluster,
        launch.shared_bytes,
        if launch.cooperative { ", cooperative" } else { "" }
    )
}

impl Device for Driver {
    type Stream = DriverStream;
    type Kernel = DriverKernel;

    const NAME: &'static str = "cuda";

    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn kernel(&self, name: &str) -> Result<DriverKernel> {
        use sys::CUfunction_attribute as Attribute;
        if let Some(kernel) = self.kernels.lock().unwrap_or_else(PoisonError::into_inner).get(name) {
            return Ok(kernel.clone());
        }
        let module = self.module_with(name)?;
        let symbol = CString::new(name)
            .map_err(|_| Error::unsupported(format!("the kernel {name:?}"), "a name cannot have a zero in it"))?;
        let _current = self.context.enter()?;
        let mut function = std::ptr::null_mut();
        // SAFETY: the module is loaded; the pointers are valid for the call.
        unsafe { call!(cuModuleGetFunction(&mut function, module.raw.0, symbol.as_ptr())) }
            .map_err(|error| within(error, name))?;
        let mut fixed: c_int = 0;
        // SAFETY: the function is of a loaded module; the pointer is valid for the call.
        unsafe { call!(cuFuncGetAttribute(&mut fixed, Attribute::CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, function)) }?;
        let most = c_int::try_from(self.properties.shared_bytes_per_block).unwrap_or(c_int::MAX) - fixed;
        let set = |attribute: Attribute, value: c_int| {
            // SAFETY: the function is of a loaded module.
            unsafe { call!(cuFuncSetAttribute(function, attribute, value)) }
                .map_err(|error| within(error, &format!("{attribute:?} = {value} of the kernel {name}")))
        };
        set(Attribute::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most)?;
        if self.properties.max_cluster > 1 {
            set(Attribute::CU_FUNC_ATTRIBUTE_NON_PORTABLE_CLUSTER_SIZE_ALLOWED, 1)?;
        }
        // Drivers load lazily, by default from 12.2: at the first launch, which may stand in a capture.
        if let Some(load) = library()?.load_function {
            // SAFETY: the function is of a loaded module.
            match unsafe { load(function) } {
                0 => {}
                code => return Err(within(failure("cuFuncLoad", code as u32), name)),
            }
        }
        let params_bytes = library()?.param_info.and_then(|info| {
            let (mut offset, mut size) = (0, 0);
            // SAFETY: the function is of a loaded module; the pointers are valid for the call.
            (unsafe { info(function, 0, &mut offset, &mut size) } == 0).then_some(size)
        });
        let kernel = DriverKernel { function: Handle(function), name: name.into(), params_bytes, _module: module };
        self.kernels.lock().unwrap_or_else(PoisonError::into_inner).insert(name.to_owned(), kernel.clone());
        Ok(kernel)
    }

    fn resident_blocks(&self, kernel: &DriverKernel, launch: &Launch) -> Result<u32> {
        let _current = self.context.enter()?;
        let mut count: c_int = 0;
        if launch.cluster > 1 {
            let mut attributes = no_attributes();
            let configuration = configuration(launch, std::ptr::null_mut(), &mut attributes);
            // SAFETY: the kernel's module is loaded; the configuration and its attributes live through the call.
            unsafe { call!(cuOccupancyMaxActiveClusters(&mut count, kernel.function.0, &configuration)) }
                .map_err(|error| within(error, &describe(&kernel.name, launch)))?;
            return Ok(u32::try_from(count).unwrap_or(0).saturating_mul(launch.cluster));
        }
        let (threads, shared) = (launch.block as c_int, launch.shared_bytes as usize);
        // SAFETY: the kernel's module is loaded; the pointer is valid for the call.
        unsafe { call!(cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut count, kernel.function.0, threads, shared)) }
            .map_err(|error| within(error, &describe(&kernel.name, launch)))?;
        Ok(u32::try_from(count).unwrap_or(0).saturating_mul(self.properties.multiprocessors))
    }

    unsafe fn launch(
        &self,
        stream: &DriverStream,
        kernel: &DriverKernel,
        launch: &Launch,
        params: &[u8],
    ) -> Result<()> {
        // The driver reads as many bytes as the kernel declares, whatever we hold.
        if let Some(expected) = kernel.params_bytes.filter(|bytes| *bytes != params.len()) {
            let expected = format!("{expected} bytes, as the kernel declares");
            return Err(Error::shape(format!("parameters of {}", kernel.name), expected, params.len().to_string()));
        }
        let _current = self.context.enter()?;
        let mut attributes = no_attributes();
        let configuration = configuration(launch, stream.raw(), &mut attributes);
        let mut pointers = [params.as_ptr().cast_mut().cast::<c_void>()];
        // SAFETY: the kernel's module is loaded, the stream alive; the driver copies the parameter before it returns and does
        // not write to it; what the parameter points to is the caller's promise.
        unsafe {
            call!(cuLaunchKernelEx(&configuration, kernel.function.0, pointers.as_mut_ptr(), std::ptr::null_mut()))
        }
        .map_err(|error| within(error, &describe(&kernel.name, launch)))
    }

    unsafe fn fill(&self, stream: &DriverStream, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        if bytes == 0 {
            return Ok(());
        }
        let _current = self.context.enter()?;
        // SAFETY: the stream is alive; the memory is the caller's promise.
        unsafe { call!(cuMemsetD8Async(to.0, value, bytes, stream.raw())) }
    }

    fn allocate(&self, what: &str, bytes: usize) -> Result<DevicePtr> {
        if bytes == 0 {
            return Ok(DevicePtr::NULL);
        }
        let _current = self.context.enter()?;
        let mut pointer = 0;
        // SAFETY: the context is current; the pointer is valid for the call.
        match unsafe { call!(cuMemAlloc_v2(&mut pointer, bytes)) } {
            Ok(()) => Ok(DevicePtr(pointer)),
            Err(Error::Driver { code: 2, .. }) => {
                let why = match self.memory() {
                    Ok((free, total)) => format!(
                        "GPU {} has {free} bytes free of {total}; use smaller sizes, or free what else holds its memory",
                        self.ordinal
                    ),
                    Err(error) => error.to_string(),
                };
                Err(Error::unsupported(format!("{what} of {bytes} bytes"), why))
            }
            Err(error) => Err(error),
        }
    }

    unsafe fn release(&self, pointer: DevicePtr, _bytes: usize) {
        if pointer == DevicePtr::NULL {
            return;
        }
        if let Ok(_current) = self.context.enter() {
            // Errors here are those of earlier work, which its own caller is told; the memory is given back regardless.
            // SAFETY: the context is current. Waiting makes sure that no kernel still uses the memory.
            let _ = unsafe { call!(cuCtxSynchronize()) };
            // SAFETY: from `allocate`, and not used any more.
            let _ = unsafe { call!(cuMemFree_v2(pointer.0)) };
        }
    }

    unsafe fn upload(&self, stream: &DriverStream, to: DevicePtr, from: &[u8]) -> Result<()> {
        if from.is_empty() {
            return Ok(());
        }
        let _current = self.context.enter()?;
        // SAFETY: the stream is alive, `from` readable; `to` is the caller's promise.
        unsafe { call!(cuMemcpyHtoDAsync_v2(to.0, from.as_ptr().cast(), from.len(), stream.raw())) }?;
        // From page-locked memory the copy may still be under way, and the caller may reuse it once this returns.
        // SAFETY: the stream is alive.
        unsafe { call!(cuStreamSynchronize(stream.raw())) }
    }

    unsafe fn download(&self, stream: &DriverStream, from: DevicePtr, to: &mut [u8]) -> Result<()> {
        if to.is_empty() {
            return self.synchronize(stream);
        }
        let _current = self.context.enter()?;
        // SAFETY: the stream is alive, `to` writable until the copy is done, which is waited for; `from` is the caller's promise.
        let copied = unsafe { call!(cuMemcpyDtoHAsync_v2(to.as_mut_ptr().cast(), from.0, to.len(), stream.raw())) };
        // SAFETY: the stream is alive. Also after an error, so that nothing is written once this returns.
        let waited = unsafe { call!(cuStreamSynchronize(stream.raw())) };
        copied.and(waited)
    }

    fn synchronize(&self, stream: &DriverStream) -> Result<()> {
        let _current = self.context.enter()?;
        // SAFETY: the stream is alive.
        unsafe { call!(cuStreamSynchronize(stream.raw())) }
    }
}
