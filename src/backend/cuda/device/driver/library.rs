//! The driver's library: opened, and every function that is called looked up ([`FUNCTIONS`]), before the first call.
//!
//! Types and signatures are cudarc's. Its loader is not used: it panics where libcuda, or a function in it, is absent, and takes a toolkit's stub for the driver
//! where both are in the library path. So [`call!`] takes the signature of cudarc's binding and the address that was found here.

use std::ffi::{CStr, c_char, c_int, c_uint};
use std::fmt;
use std::sync::OnceLock;

use cudarc::driver::sys::{self, CUresult};

use crate::error::{Error, Result};

/// Names of the library, the driver's own first: a toolkit has a stub called `libcuda.so`, for linkers.
const NAMES: &[&str] = if cfg!(windows) { &["nvcuda.dll"] } else { &["libcuda.so.1", "libcuda.so"] };

/// Oldest CUDA version of a driver that has every function in [`FUNCTIONS`]: clusters came with 11.8.
const OLDEST: c_int = 11_080;

/// Every function that [`call!`] is used with; another one does not compile.
const FUNCTIONS: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDeviceTotalMem_v2",
    "cuDriverGetVersion",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuInit",
    "cuLaunchKernelEx",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadDataEx",
    "cuModuleUnload",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuOccupancyMaxActiveClusters",
    "cuOccupancyMaxPotentialClusterSize",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
];

/// `call!(cuFunction(arguments))`: calls the driver and turns its result code into a typed error.
///
/// To be used in an `unsafe` block: arguments are as the function wants them.
macro_rules! call {
    ($function:ident($($argument:expr),* $(,)?)) => {{
        use $crate::backend::cuda::driver::library;
        const PLACE: usize = library::place(stringify!($function));
        let binding: unsafe fn($(library::argument!($argument)),*) -> _ = cudarc::driver::sys::$function;
        match library::function(PLACE, binding) {
            Ok(function) => library::check(stringify!($function), function($($argument),*)),
            Err(error) => Err(error),
        }
    }};
}
/// The type of an argument, whatever it is.
macro_rules! argument {
    ($argument:expr) => {
        _
    };
}
pub(super) use {argument, call};

/// Where a function stands in [`FUNCTIONS`].
pub(super) const fn place(name: &str) -> usize {
    const fn are_equal(a: &[u8], b: &[u8]) -> bool {
        let mut at = 0;
        while at < a.len() && at < b.len() && a[at] == b[at] {
            at += 1;
        }
        at == a.len() && at == b.len()
    }
    let mut place = 0;
    while !are_equal(FUNCTIONS[place].as_bytes(), name.as_bytes()) {
        place += 1;
    }
    place
}

/// A function that is not yet given its type.
type Address = unsafe extern "C" fn();

/// The type of cudarc's binding of a function.
pub(super) trait Binding {
    /// That of the function itself. It returns a number: a driver may have codes that cudarc's enum has not.
    type Function;

    /// # Safety
    ///
    /// The function at `address` has this type.
    unsafe fn function(address: Address) -> Self::Function;
}

macro_rules! bindings {
    ($(($($argument:ident)*))*) => {$(
        impl<$($argument),*> Binding for unsafe fn($($argument),*) -> CUresult {
            type Function = unsafe extern "C" fn($($argument),*) -> u32;

            unsafe fn function(address: Address) -> Self::Function {
                // SAFETY: the caller's promise; pointers to functions are of one size.
                unsafe { std::mem::transmute::<Address, Self::Function>(address) }
            }
        }
    )*};
}
bindings!(() (A) (A B) (A B C) (A B C D) (A B C D E));

/// The function of [`FUNCTIONS`] at `place`, of which `binding` is cudarc's.
///
/// # Safety
///
/// Place and binding are of one name, as [`call!`] gives them.
pub(super) unsafe fn function<B: Binding>(place: usize, _binding: B) -> Result<B::Function> {
    // As many as FUNCTIONS, or the library is refused.
    let address = library()?.functions[place];
    // SAFETY: the caller's promise; the type of cudarc's binding is that in cuda.h.
    Ok(unsafe { B::function(address) })
}

/// `cuEventElapsedTime`. cudarc binds another symbol of it for CUDA 13, which drivers before 12.8 lack; this one all have.
pub(super) type EventElapsedTime = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> c_int;
/// `cuFuncGetParamInfo`: offset and size of a kernel's parameter. Drivers have it from 12.4.
pub(super) type FuncGetParamInfo = unsafe extern "C" fn(sys::CUfunction, usize, *mut usize, *mut usize) -> c_int;

/// `cuFuncLoad`: loads a kernel now rather than at its first launch. Drivers have it from 12.4.
pub(super) type FuncLoad = unsafe extern "C" fn(sys::CUfunction) -> c_int;

/// The driver, ready to be called.
pub(super) struct Library {
    /// Version of CUDA that it implements: 1000 · major + 10 · minor.
    pub(super) version: c_int,
    pub(super) elapsed_time: EventElapsedTime,
    pub(super) param_info: Option<FuncGetParamInfo>,
    pub(super) load_function: Option<FuncLoad>,
    /// Those of [`FUNCTIONS`].
    functions: Vec<Address>,
    // Function pointers above point into it.
    _opened: libloading::Library,
}

/// Why the driver cannot be used. Kept for the life of the process, as a driver does not appear in one.
#[derive(Clone, Debug)]
enum Problem {
    Missing(String),
    Old { version: c_int, lacks: Option<&'static str> },
    Refused { call: &'static str, code: u32 },
}

impl From<&Problem> for Error {
    fn from(problem: &Problem) -> Self {
        const WHAT: &str = "the CUDA backend";
        match problem {
            Problem::Missing(why) => Error::unsupported(
                WHAT,
                format!(
                    "NVIDIA's driver is not there ({why}); install it, or run where it is (in a container: with the \
                     NVIDIA runtime), or use the cpu backend"
                ),
            ),
            Problem::Old { version, lacks } => {
                let lacks = lacks.map(|name| format!(" and lacks {name}")).unwrap_or_default();
                Error::unsupported(
                    WHAT,
                    format!(
                        "the driver is too old: it is for CUDA {}{lacks}, but {} or later is needed; update the driver, \
                         or use the cpu backend",
                        Version(*version),
                        Version(OLDEST)
                    ),
                )
            }
            // The driver is there, but there is nothing for it to drive.
            Problem::Refused { code: 100, .. } => Error::unsupported(WHAT, no_gpu()),
            Problem::Refused { call, code } => failure(call, *code),
        }
    }
}

/// Why there is no GPU, as far as this process can know.
pub(super) fn no_gpu() -> String {
    let visible = match std::env::var("CUDA_VISIBLE_DEVICES") {
        Ok(value) => format!("CUDA_VISIBLE_DEVICES is `{value}`: unset it if that hides the GPU"),
        Err(_) => "run `nvidia-smi` to see what it finds".to_owned(),
    };
    format!("the driver finds no GPU; {visible}, or use the cpu backend")
}

/// A version of CUDA as the driver encodes it, written as people do: `12.8`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Version(pub(super) c_int);

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// The driver's library, opened and initialised on the first call.
pub(super) fn library() -> Result<&'static Library> {
    static LIBRARY: OnceLock<Result<Library, Problem>> = OnceLock::new();
    LIBRARY.get_or_init(open).as_ref().map_err(Error::from)
}

fn open() -> Result<Library, Problem> {
    let mut why = String::new();
    let Some(opened) = NAMES.iter().find_map(|name| {
        // SAFETY: NVIDIA's driver library may be loaded by any process; its initialisers need nothing of the caller.
        unsafe { libloading::Library::new(*name) }
            .map_err(|error| {
                if !why.is_empty() {
                    why += "; ";
                }
                why += &std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
            })
            .ok()
    }) else {
        return Err(Problem::Missing(why));
    };
    // The version first, for it says more than a function that is missing; it may be asked before `cuInit`.
    let mut version: c_int = 0;
    // SAFETY: the symbol has this type in cuda.h.
    match unsafe { opened.get::<unsafe extern "C" fn(*mut c_int) -> c_int>(b"cuDriverGetVersion\0") } {
        // SAFETY: the pointer is valid for the call.
        Ok(function) => match unsafe { function(&mut version) } {
            0 => {}
            code => return Err(Problem::Refused { call: "cuDriverGetVersion", code: code as u32 }),
        },
        Err(error) => return Err(Problem::Missing(error.to_string())),
    }
    let (mut functions, mut lacks) = (Vec::with_capacity(FUNCTIONS.len()), None);
    for name in FUNCTIONS {
        // SAFETY: only the address is taken here.
        match unsafe { opened.get::<Address>(name.as_bytes()) } {
            Ok(function) => functions.push(*function),
            Err(_) => lacks = lacks.or(Some(*name)),
        }
    }
    if version < OLDEST || lacks.is_some() {
        return Err(Problem::Old { version, lacks });
    }
    // SAFETY: the symbols have these types in cuda.h.
    let (elapsed_time, param_info, load_function) = unsafe {
        (
            opened.get::<EventElapsedTime>(b"cuEventElapsedTime\0").map(|symbol| *symbol),
            opened.get::<FuncGetParamInfo>(b"cuFuncGetParamInfo\0").map(|symbol| *symbol).ok(),
            opened.get::<FuncLoad>(b"cuFuncLoad\0").map(|symbol| *symbol).ok(),
        )
    };
    let Ok(elapsed_time) = elapsed_time else {
        return Err(Problem::Old { version, lacks: Some("cuEventElapsedTime") });
    };
    // SAFETY: `cuInit` takes flags, and may be called any number of times.
    match unsafe { <unsafe fn(c_uint) -> CUresult>::function(functions[place("cuInit")])(0) } {
        0 => Ok(Library { version, elapsed_time, param_info, load_function, functions, _opened: opened }),
        code => Err(Problem::Refused { call: "cuInit", code }),
    }
}

/// `Ok` for success, else [`Error::Driver`].
pub(super) fn check(call: &'static str, code: u32) -> Result<()> {
    match code {
        0 => Ok(()),
        code => Err(failure(call, code)),
    }
}

/// The error of a result code.
pub(super) fn failure(call: &str, code: u32) -> Error {
    Error::Driver { call: call.to_owned(), code, name: name(code), help: help(code).to_owned() }
}

/// The same error, saying what the call was about.
pub(super) fn within(error: Error, what: &str) -> Error {
    match error {
        Error::Driver { call, code, name, help } => {
            Error::Driver { call: format!("{call} ({what})"), code, name, help }
        }
        other => other,
    }
}

/// What the driver calls a result code, with its own explanation.
fn name(code: u32) -> String {
    // The functions are looked up here, not through cudarc, since a code may be one that its enum does not have.
    type Text = unsafe extern "C" fn(u32, *mut *const c_char) -> c_int;
    let text = |function: &[u8]| {
        let opened = NAMES.iter().find_map(|name| {
            // SAFETY: the library is loaded already, or its loading needs nothing of the caller.
            unsafe { libloading::Library::new(*name) }.ok()
        })?;
        let mut text: *const c_char = std::ptr::null();
        // SAFETY: the symbol has this type in cuda.h (an enum is an int there); the pointer is valid for the call.
        let found = unsafe { opened.get::<Text>(function).ok().map(|function| function(code, &mut text)) };
        if found != Some(0) || text.is_null() {
            return None;
        }
        // SAFETY: the driver gives a NUL-terminated string that lives as long as it, and it is never unloaded.
        Some(unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
    };
    match (text(b"cuGetErrorName\0"), text(b"cuGetErrorString\0")) {
        (Some(name), Some(explanation)) => format!("{name}, {explanation}"),
        (Some(name), None) => name,
        _ => "a code that this driver has no name for".to_owned(),
    }
}

/// What to do about a result code.
fn help(code: u32) -> &'static str {
    match code {
        1 => "an argument is outside what this GPU allows; please report it with the sizes that led here",
        2 => "the GPU has too little free memory; use smaller sizes, or free what other programs hold",
        34 => {
            "a toolkit's stub of libcuda was loaded, since there is no libcuda.so.1, which drivers install; install one, or in a \
             container use the NVIDIA runtime"
        }
        46 => "the GPU is in use by another process that wants it alone, or in a prohibited mode; see `nvidia-smi -q`",
        100 | 101 => "run `nvidia-smi` to see which GPUs there are",
        200 | 209 | 218 | 222 | 223 => {
            "no image of this build runs on this GPU and driver; update the driver, or build on a machine with NVRTC for \
             this GPU (FUSED_RNN_CUDA_ARCHS)"
        }
        400 => "a stream or event of another context was given, or one that was destroyed",
        214 | 700 | 702 | 714..=719 => {
            "a kernel faulted, and the context is lost: every later call in this process fails; start it again, and run it \
             under compute-sanitizer to find the kernel"
        }
        701 => "the launch needs more registers or shared memory than a block may have; please report it",
        720 | 912 => "the blocks of the launch cannot be resident together; other work may hold the GPU; plan again",
        802 => "the system's fabric is still starting; try again in a while",
        803 | 804 => {
            "the driver's library and its kernel module differ in version; restart the machine or the container"
        }
        900..=908 => "the call is not allowed while the stream is captured; make plans and copies outside the capture",
        _ => "see NVIDIA's documentation of the code",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_way_out() {
        let missing = Error::from(&Problem::Missing("libcuda.so: no such file".into())).to_string();
        assert!(missing.contains("libcuda.so") && missing.contains("use the cpu backend"), "{missing}");
        let old = Error::from(&Problem::Old { version: 11_020, lacks: Some("cuLaunchKernelEx") }).to_string();
        assert!(old.contains("CUDA 11.2") && old.contains("11.8") && old.contains("cuLaunchKernelEx"), "{old}");
        let none = Error::from(&Problem::Refused { call: "cuInit", code: 100 }).to_string();
        assert!(none.contains("no GPU"), "{none}");
        let stub = Error::from(&Problem::Refused { call: "cuInit", code: 34 }).to_string();
        assert!(stub.contains("cuInit") && stub.contains("(34)") && stub.contains("stub of libcuda"), "{stub}");
    }
}
