//! The library libnccl: found and called at run time, for one collective, all-gather. All of its unsafe stands here.
//!
//! # Where the library is looked for
//!
//! 1. `NCCL_PATH`, the library or its folder. If it is set, nothing else is tried.
//! 2. The names in [`NAMES`], where the system looks for libraries.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::mem::MaybeUninit;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use cudarc::nccl::sys;
use libloading::Library;

use super::context::{Context, Handle};
use super::gpu::Driver;
use super::optional;
use super::stream::DriverStream;
use crate::backend::tensor::{DeviceId, TensorMut, TensorRef};
use crate::error::{Error, Result};
use crate::rnn::shape::check_len;

/// Names the library or its folder.
const VARIABLE: &str = "NCCL_PATH";
/// Names of the library.
const NAMES: &[&str] = &["libnccl.so.2", "libnccl.so"];
const HELP: &str = "install it with `pip install nvidia-nccl-cu12` or NVIDIA's packages and set NCCL_PATH to the library or its folder, or \
                    train with the ranks alone, whose exchange goes through the host";

type GetUniqueId = unsafe extern "C" fn(*mut sys::ncclUniqueId) -> c_int;
type CommInitRank = unsafe extern "C" fn(*mut sys::ncclComm_t, c_int, sys::ncclUniqueId, c_int) -> c_int;
type CommDestroy = unsafe extern "C" fn(sys::ncclComm_t) -> c_int;
type AllGather = unsafe extern "C" fn(*const c_void, *mut c_void, usize, c_int, sys::ncclComm_t, *mut c_void) -> c_int;

/// The library, loaded. It stays so until the process ends.
struct Functions {
    unique_id: GetUniqueId,
    init_rank: CommInitRank,
    destroy: CommDestroy,
    all_gather: AllGather,
}

/// The library, looked for once.
fn functions() -> Result<&'static Functions> {
    static FOUND: OnceLock<std::result::Result<Functions, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find(optional::named_by(VARIABLE).as_deref()))
        .as_ref()
        .map_err(|why| Error::unsupported("an exchange between GPUs by NCCL", format!("{why}; {HELP}")))
}

/// The library at a place that is given, or where the system has it.
fn find(given: Option<&Path>) -> std::result::Result<Functions, String> {
    optional::find("libnccl", NAMES, given, load)
}

fn load(library: &Library, path: &Path) -> std::result::Result<Functions, String> {
    macro_rules! function {
        ($name:literal) => {
            // SAFETY: the symbol has the type of the field in nccl.h (an enum is an int there), and the library stays loaded.
            *unsafe { library.get(concat!($name, "\0").as_bytes()) }
                .map_err(|_| format!("{} is no usable libnccl: it has no {}", path.display(), $name))?
        };
    }
    Ok(Functions {
        unique_id: function!("ncclGetUniqueId"),
        init_rank: function!("ncclCommInitRank"),
        destroy: function!("ncclCommDestroy"),
        all_gather: function!("ncclAllGather"),
    })
}

fn check(call: &str, code: c_int) -> Result<()> {
    let (name, help) = match code {
        0 => return Ok(()),
        1 => ("ncclUnhandledCudaError", "a call of CUDA's failed, or an earlier kernel faulted"),
        2 => ("ncclSystemError", "the system refused shared memory or a socket; NCCL_DEBUG=INFO says which"),
        3 => ("ncclInternalError", "please report it, with what NCCL_DEBUG=INFO prints"),
        4 | 5 => ("ncclInvalidUsage", "every rank needs a GPU of its own"),
        6 => ("ncclRemoteError", "another rank has ended, or the network failed"),
        _ => ("a code of ncclResult_t", "see NVIDIA's documentation of the code"),
    };
    Err(Error::Driver { call: call.to_owned(), code: code as u32, name: name.to_owned(), help: help.to_owned() })
}

/// What the ranks of a communicator have in common. The first makes it, the others get it from it.
pub(crate) const ID_BYTES: usize = size_of::<sys::ncclUniqueId>();

/// A new one.
///
/// # Errors
///
/// [`Error::Unsupported`] where the library is missing, [`Error::Driver`] where it fails.
pub(crate) fn new_id() -> Result<[u8; ID_BYTES]> {
    let mut id = MaybeUninit::<sys::ncclUniqueId>::uninit();
    // SAFETY: the pointer is valid for the call, which fills it where it succeeds.
    check("ncclGetUniqueId", unsafe { (functions()?.unique_id)(id.as_mut_ptr()) })?;
    // SAFETY: filled; it is an array of bytes.
    Ok(unsafe { id.assume_init() }.internal.map(|byte| byte as u8))
}

/// This rank's end of a communicator, on a stream of its GPU.
pub(crate) struct Nccl {
    functions: &'static Functions,
    communicator: Handle<sys::ncclComm_t>,
    context: Arc<Context>,
    stream: DriverStream,
    device: DeviceId,
    count: usize,
}

impl Nccl {
    /// Waits until all ranks have come.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the library is missing, [`Error::Driver`] where it fails.
    pub fn new(
        driver: &Arc<Driver>,
        stream: &DriverStream,
        id: [u8; ID_BYTES],
        rank: usize,
        count: usize,
    ) -> Result<Self> {
        let functions = functions()?;
        let (Ok(of), Ok(number)) = (c_int::try_from(count), c_int::try_from(rank)) else {
            return Err(Error::option("ranks", format!("at most {}", c_int::MAX), count));
        };
        let context = Arc::clone(&driver.context);
        let id = sys::ncclUniqueId { internal: id.map(|byte| byte as _) };
        let mut communicator = std::ptr::null_mut();
        {
            let _current = context.enter()?;
            // SAFETY: the context is current, the pointer valid for the call.
            check("ncclCommInitRank", unsafe { (functions.init_rank)(&mut communicator, of, id, number) })?;
        }
        let (communicator, device) = (Handle(communicator), DeviceId::of(driver));
        Ok(Nccl { functions, communicator, context, stream: stream.clone(), device, count })
    }

    /// Gives the stream an all-gather: `all` is what each rank has given, in the order of the ranks.
    ///
    /// # Errors
    ///
    /// [`Error::Shape`] where `all` has not the bytes of `own` for each rank; [`Error::Unsupported`] for tensors elsewhere than on this GPU;
    /// [`Error::Driver`] where the library fails.
    pub fn gather(&self, own: TensorRef<'_>, all: TensorMut<'_>) -> Result<()> {
        let (dtype, len) = (own.dtype(), own.len());
        check_len("what ranks give", &[self.count, len], all.len())?;
        let (own, all) = (own.address(self.device, dtype)?, all.view().address(self.device, dtype)?);
        let _current = self.context.enter()?;
        let pointer = |address: u64| std::ptr::with_exposed_provenance_mut::<c_void>(address as usize);
        let byte = sys::ncclDataType_t::ncclUint8 as c_int;
        let (bytes, stream) = (len * dtype.size(), self.stream.raw().cast());
        // SAFETY: both tensors are this GPU's, borrowed apart from each other, and as long as the call needs them; the communicator is of
        // this context. The stream is that of the device's other work, which frees no memory before it is done.
        let code = unsafe {
            (self.functions.all_gather)(pointer(own), pointer(all), bytes, byte, self.communicator.0, stream)
        };
        check("ncclAllGather", code)
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        // SAFETY: made by the library, destroyed once.
        let _ = unsafe { (self.functions.destroy)(self.communicator.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the library is missing, the error names it, what was tried, and what to do.
    #[test]
    fn a_missing_library_is_named() {
        for given in [Path::new("/nowhere/libnccl.so.2"), Path::new(env!("CARGO_MANIFEST_DIR"))] {
            let why = find(Some(given)).err().unwrap();
            assert!(why.contains("no libnccl found") && why.contains(&*given.to_string_lossy()), "{why}");
        }
        assert!(HELP.contains("NCCL_PATH"));
    }

    /// A library that is another one is refused with its path.
    #[test]
    #[cfg(target_os = "linux")]
    fn another_library_is_refused() {
        let why = find(Some(Path::new("libc.so.6"))).err().unwrap();
        assert!(why.contains("libc.so.6 is no usable libnccl") && why.contains("ncclGetUniqueId"), "{why}");
    }

    /// The library itself gives a number for a communicator, which it does without a GPU.
    #[test]
    #[ignore = "needs libnccl, which NCCL_PATH names"]
    fn the_library_gives_an_id() {
        assert_ne!(new_id().unwrap(), new_id().unwrap());
    }
}
