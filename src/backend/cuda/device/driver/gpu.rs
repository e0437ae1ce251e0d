//! One GPU: [`Driver`], and how it is a [`Device`].

use std::collections::HashMap;
use std::ffi::{CString, c_int, c_void};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::sys;

use super::super::super::images::{self, Image, ImageKind};
use super::super::{Device, DevicePtr, Launch, Properties};
use super::context::{Context, Handle};
use super::launch::{configuration, describe, no_attributes};
use super::library::{call, failure, library, within};
use super::module::{DriverKernel, Module};
use super::properties::{self, Description, OLDEST_COMPUTE};
use super::stream::DriverStream;
use crate::error::{Error, Result};

/// One GPU.
pub struct Driver {
    ordinal: usize,
    properties: Properties,
    // Before the context, which must be dropped last.
    kernels: Mutex<HashMap<String, DriverKernel>>,
    /// By image, and of assembly by kernel.
    modules: Mutex<HashMap<(usize, String), Arc<Module>>>,
    /// Made at the first call.
    #[cfg(feature = "cublaslt")]
    cublaslt: Mutex<Option<Arc<super::cublaslt::Lt>>>,
    pub(super) context: Arc<Context>,
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
        let device = properties::device(ordinal)?;
        let properties = properties::properties(device)?;
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
        Ok(Arc::new(Driver {
            ordinal,
            properties,
            kernels: Mutex::default(),
            modules: Mutex::default(),
            #[cfg(feature = "cublaslt")]
            cublaslt: Mutex::default(),
            context,
        }))
    }

    /// Number of GPUs that this process may see.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no driver, one that is too old, or no GPU at all.
    pub fn count() -> Result<usize> {
        properties::count()
    }

    /// The driver and all its GPUs, those too that [`open`](Self::open) refuses.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no driver, one that is too old, or no GPU at all; [`Error::Driver`] where the driver refuses a
    /// call.
    pub fn describe() -> Result<Description> {
        properties::describe()
    }

    /// The number that [`open`](Self::open) was given.
    pub fn ordinal(&self) -> usize {
        self.ordinal
    }

    /// Bytes of the device's memory that are free now, and all of it.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    pub fn memory(&self) -> Result<(usize, usize)> {
        let _current = self.context.enter()?;
        let (mut free, mut total) = (0, 0);
        // SAFETY: the context is current; the pointers are valid for the call.
        unsafe { call!(cuMemGetInfo_v2(&mut free, &mut total)) }?;
        Ok((free, total))
    }

    /// The module of `image` with `entry`, loaded once.
    fn module(&self, image: &'static Image, entry: &str) -> Result<Arc<Module>> {
        let mut modules = self.modules.lock().unwrap_or_else(PoisonError::into_inner);
        let alone = if image.kind() == ImageKind::Ptx { entry.to_owned() } else { String::new() };
        let key = (std::ptr::from_ref(image).addr(), alone);
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

impl DriverStream {
    /// A new stream, independent of the default ones. Destroyed with its last clone.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`] where the driver refuses the call.
    pub fn new(driver: &Driver) -> Result<Self> {
        Self::of(&driver.context)
    }
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

    fn largest_cluster(&self, kernel: &DriverKernel, launch: &Launch) -> Result<u32> {
        if self.properties.max_cluster == 1 {
            return Ok(1);
        }
        let _current = self.context.enter()?;
        let mut attributes = no_attributes();
        let configuration =
            configuration(&Launch { cluster: 1, cooperative: false, ..*launch }, std::ptr::null_mut(), &mut attributes);
        let mut size: c_int = 0;
        // SAFETY: the kernel's module is loaded; the configuration and its attributes live through the call.
        unsafe { call!(cuOccupancyMaxPotentialClusterSize(&mut size, kernel.function.0, &configuration)) }
            .map_err(|error| within(error, &describe(&kernel.name, launch)))?;
        Ok(u32::try_from(size).unwrap_or(0).clamp(1, self.properties.max_cluster))
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

    #[cfg(feature = "cublaslt")]
    fn cublaslt(&self) -> Result<Arc<dyn super::super::cublaslt::CublasLt<DriverStream>>> {
        use super::cublaslt::{Lt, Planner};
        let mut made = self.cublaslt.lock().unwrap_or_else(PoisonError::into_inner);
        let lt = match &*made {
            Some(lt) => Arc::clone(lt),
            None => Arc::clone(made.insert(Lt::new(&self.context)?)),
        };
        Ok(Arc::new(Planner(lt)))
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
