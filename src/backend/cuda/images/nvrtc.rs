//! NVIDIA's run-time compiler, libnvrtc, found and called at run time: [`Nvrtc`].
//!
//! `build.rs` includes this file to compile the kernels when the crate is built; the library uses it to compile them at first
//! use where the build could not, or where a GPU is newer than the images. It needs `std` and `libloading`, nothing else.
//!
//! # Where the library is looked for
//!
//! 1. `NVRTC_PATH`, a file or a folder. If it is set, nothing else is tried, and it is an error if it does not work.
//! 2. `lib64`, `lib`, `targets/*/lib` and `bin` of `CUDA_PATH`, `CUDA_HOME`, `CONDA_PREFIX`, `/usr/local/cuda` and `/opt/cuda`.
//! 3. The system's library folders.
//! 4. `nvidia/cuda_nvrtc/lib` and `nvidia/cu13/lib` in Python's packages: those of `VIRTUAL_ENV` and `CONDA_PREFIX`, the user's, the
//!    system's. `pip install nvidia-cuda-nvrtc-cu12` is enough. No program is run: what `PATH` calls `python3` may be anything.
//!
//! Result codes stay plain integers: libraries of later versions return codes that an enumeration would not know.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::fmt;
use std::path::{Path, PathBuf};

use libloading::Library;

/// Environment variables that say where libnvrtc is.
pub const VARIABLES: [&str; 5] = ["NVRTC_PATH", "CUDA_PATH", "CUDA_HOME", "CONDA_PREFIX", "VIRTUAL_ENV"];

/// How to get libnvrtc; part of every message that says it is missing.
pub const HELP: &str = "install it with `pip install nvidia-cuda-nvrtc-cu12` or with a CUDA toolkit (12.0 or later), or set \
                        NVRTC_PATH to the library or to its folder";

/// Why libnvrtc cannot be used, or what it said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NvrtcError {
    /// No libnvrtc in any of these folders.
    NotFound(Vec<PathBuf>),
    /// There is one, but it cannot be used.
    Unusable {
        /// What was tried.
        path: PathBuf,
        /// Why it does not work.
        reason: String,
    },
    /// The source does not compile.
    Compile {
        /// The name given to the source.
        name: String,
        /// What it was compiled for.
        arch: String,
        /// NVRTC's log, as it stands.
        log: String,
    },
    /// A call failed for another reason than the source.
    Call {
        /// The function.
        function: &'static str,
        /// Its result.
        code: i32,
        /// What NVRTC calls that result.
        meaning: String,
    },
}

impl fmt::Display for NvrtcError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotFound(folders) => {
                write!(f, "no libnvrtc found in {} folders", folders.len())?;
                let shown: Vec<_> = folders.iter().filter(|folder| folder.is_dir()).map(|p| p.display()).collect();
                if !shown.is_empty() {
                    write!(f, " (of which these exist:")?;
                    shown.iter().try_for_each(|folder| write!(f, " {folder}"))?;
                    write!(f, ")")?;
                }
                write!(f, "; {HELP}")
            }
            Self::Unusable { path, reason } => write!(f, "{}: not a usable libnvrtc: {reason}; {HELP}", path.display()),
            Self::Compile { name, arch, log } => write!(f, "{name} does not compile for {arch}:\n{}", log.trim_end()),
            Self::Call { function, code, meaning } => write!(f, "{function} returned {code} ({meaning})"),
        }
    }
}

impl std::error::Error for NvrtcError {}

/// What a compilation gives.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// Portable assembly.
    pub ptx: Vec<u8>,
    /// Machine code; empty where the architecture was a virtual one (`compute_75`).
    pub cubin: Vec<u8>,
    /// Warnings, and what `--ptxas-options=-v` reports.
    pub log: String,
}

type Program = *mut c_void;
type GetVersion = unsafe extern "C" fn(*mut c_int, *mut c_int) -> c_int;
type GetErrorString = unsafe extern "C" fn(c_int) -> *const c_char;
type GetCount = unsafe extern "C" fn(*mut c_int) -> c_int;
type GetArchs = unsafe extern "C" fn(*mut c_int) -> c_int;
type CreateProgram = unsafe extern "C" fn(
    *mut Program,
    *const c_char,
    *const c_char,
    c_int,
    *const *const c_char,
    *const *const c_char,
) -> c_int;
type CompileProgram = unsafe extern "C" fn(Program, c_int, *const *const c_char) -> c_int;
type DestroyProgram = unsafe extern "C" fn(*mut Program) -> c_int;
type GetSize = unsafe extern "C" fn(Program, *mut usize) -> c_int;
type GetBytes = unsafe extern "C" fn(Program, *mut c_char) -> c_int;

/// `NVRTC_ERROR_COMPILATION`.
const ERROR_COMPILATION: c_int = 6;

/// libnvrtc, loaded. It stays loaded until the process ends: libraries with threads and thread-local state of their own do not
/// unload well.
#[derive(Debug)]
pub struct Nvrtc {
    path: PathBuf,
    version: (u32, u32),
    architectures: Vec<u32>,
    error_string: GetErrorString,
    create: CreateProgram,
    compile: CompileProgram,
    destroy: DestroyProgram,
    ptx: (GetSize, GetBytes),
    cubin: (GetSize, GetBytes),
    log: (GetSize, GetBytes),
}

impl Nvrtc {
    /// The first libnvrtc of the places above that works.
    ///
    /// # Errors
    ///
    /// [`NvrtcError::NotFound`] where there is none; [`NvrtcError::Unusable`] where `NVRTC_PATH` does not work, or where
    /// none of those found does (the first one's reason).
    pub fn find() -> Result<Self, NvrtcError> {
        if let Some(path) = variable("NVRTC_PATH") {
            return Self::open(Path::new(&path));
        }
        let (mut searched, mut unusable) = (Vec::new(), None);
        for source in [toolkit_folders, system_folders, python_folders] {
            for folder in source() {
                if searched.contains(&folder) {
                    continue;
                }
                for file in newest_first(&folder, is_nvrtc) {
                    match Self::load(&file) {
                        Ok(nvrtc) => return Ok(nvrtc),
                        Err(error) => unusable = unusable.or(Some(error)),
                    }
                }
                searched.push(folder);
            }
        }
        Err(unusable.unwrap_or(NvrtcError::NotFound(searched)))
    }

    /// The libnvrtc at `path`: the library itself, or its folder.
    ///
    /// # Errors
    ///
    /// [`NvrtcError::Unusable`], with the reason.
    pub fn open(path: &Path) -> Result<Self, NvrtcError> {
        let unusable = |reason: &str| NvrtcError::Unusable { path: path.to_owned(), reason: reason.to_owned() };
        if path.is_file() {
            Self::load(path)
        } else if path.is_dir() {
            let file = newest_first(path, is_nvrtc).into_iter().next();
            Self::load(&file.ok_or_else(|| unusable("the folder has no libnvrtc"))?)
        } else {
            Err(unusable("there is no such file or folder"))
        }
    }

    fn load(file: &Path) -> Result<Self, NvrtcError> {
        let unusable = |reason: String| NvrtcError::Unusable { path: file.to_owned(), reason };
        // An absolute path: a bare name would be looked up elsewhere.
        let file = std::path::absolute(file).map_err(|error| unusable(error.to_string()))?;
        // NVRTC opens its builtins by name when it first compiles, and not every wheel tells the loader where they are.
        // Whatever is loaded already is found by name; one that fails to load is missed only if NVRTC needs it.
        for builtins in file.parent().map(|folder| newest_first(folder, is_builtins)).unwrap_or_default() {
            // SAFETY: NVIDIA's builtins are data and accessors; their initialisers have no requirements.
            if let Ok(library) = unsafe { Library::new(builtins) } {
                std::mem::forget(library);
            }
        }
        // SAFETY: the initialisers of libnvrtc have no requirements. That the file is libnvrtc is for its name, and whoever
        // set NVRTC_PATH, to say; the symbols below are checked to be there.
        let library = unsafe { Library::new(&file) }.map_err(|error| unusable(error.to_string()))?;
        // SAFETY: the types are those of nvrtc.h, the same in all versions from 11.2 on.
        let nvrtc = unsafe {
            let get_version: GetVersion = symbol(&library, "nvrtcVersion").map_err(unusable)?;
            let (mut major, mut minor) = (0, 0);
            let code = get_version(&mut major, &mut minor);
            if code != 0 {
                return Err(unusable(format!("nvrtcVersion returned {code}")));
            }
            if major < 12 {
                return Err(unusable(format!("it is version {major}.{minor}, and the kernels need 12.0 or later")));
            }
            let count: GetCount = symbol(&library, "nvrtcGetNumSupportedArchs").map_err(unusable)?;
            let list: GetArchs = symbol(&library, "nvrtcGetSupportedArchs").map_err(unusable)?;
            let mut known = 0;
            let code = count(&mut known);
            let mut architectures: Vec<c_int> = vec![0; usize::try_from(known).unwrap_or(0)];
            let code = if code == 0 { list(architectures.as_mut_ptr()) } else { code };
            if code != 0 || architectures.is_empty() {
                return Err(unusable(format!("it does not say which architectures it knows (result {code})")));
            }
            Nvrtc {
                version: (major.unsigned_abs(), minor.unsigned_abs()),
                architectures: architectures.into_iter().map(c_int::unsigned_abs).collect(),
                error_string: symbol(&library, "nvrtcGetErrorString").map_err(unusable)?,
                create: symbol(&library, "nvrtcCreateProgram").map_err(unusable)?,
                compile: symbol(&library, "nvrtcCompileProgram").map_err(unusable)?,
                destroy: symbol(&library, "nvrtcDestroyProgram").map_err(unusable)?,
                ptx: pair(&library, "nvrtcGetPTXSize", "nvrtcGetPTX").map_err(unusable)?,
                cubin: pair(&library, "nvrtcGetCUBINSize", "nvrtcGetCUBIN").map_err(unusable)?,
                log: pair(&library, "nvrtcGetProgramLogSize", "nvrtcGetProgramLog").map_err(unusable)?,
                path: file.clone(),
            }
        };
        std::mem::forget(library);
        Ok(nvrtc)
    }

    /// The file that was loaded.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Major and minor version: `(12, 9)`.
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// The compute capabilities it compiles for, times ten: 80, 90, …
    pub fn architectures(&self) -> &[u32] {
        &self.architectures
    }

    /// Compiles `source`, which messages call `name`, for `arch` (`sm_80`, `compute_75`). Its `#include`s are answered from
    /// `headers` (name, text) only. `options` go to NVRTC as they are. Several threads may compile at a time.
    ///
    /// # Errors
    ///
    /// [`NvrtcError::Compile`] with NVRTC's log, or [`NvrtcError::Call`].
    pub fn compile(
        &self,
        name: &str,
        source: &str,
        headers: &[(&str, &str)],
        arch: &str,
        options: &[&str],
    ) -> Result<Compiled, NvrtcError> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| NvrtcError::Compile {
                name: name.to_owned(),
                arch: arch.to_owned(),
                log: "the source, a header or an option holds a zero byte".to_owned(),
            })
        };
        let (c_name, c_source) = (text(name)?, text(source)?);
        let header_names = headers.iter().map(|(name, _)| text(name)).collect::<Result<Vec<_>, _>>()?;
        let header_texts = headers.iter().map(|(_, body)| text(body)).collect::<Result<Vec<_>, _>>()?;
        let header_names: Vec<_> = header_names.iter().map(|name| name.as_ptr()).collect();
        let header_texts: Vec<_> = header_texts.iter().map(|body| body.as_ptr()).collect();
        let arch_option = format!("--gpu-architecture={arch}");
        let options: Vec<_> =
            std::iter::once(arch_option.as_str()).chain(options.iter().copied()).map(text).collect::<Result<_, _>>()?;
        let options: Vec<_> = options.iter().map(|option| option.as_ptr()).collect();

        let mut program: Program = std::ptr::null_mut();
        // SAFETY: all strings end in a zero byte and live until the end of this function; the counts are those of the lists.
        let code = unsafe {
            (self.create)(
                &mut program,
                c_source.as_ptr(),
                c_name.as_ptr(),
                headers.len() as c_int,
                header_texts.as_ptr(),
                header_names.as_ptr(),
            )
        };
        if code != 0 {
            return Err(self.failure("nvrtcCreateProgram", code));
        }
        // SAFETY: `program` was created above.
        let code = unsafe { (self.compile)(program, options.len() as c_int, options.as_ptr()) };
        let result = self.bytes(program, self.log, "nvrtcGetProgramLog").and_then(|log| {
            let log = String::from_utf8_lossy(log.strip_suffix(&[0]).unwrap_or(&log)).into_owned();
            match code {
                0 => Ok(Compiled {
                    ptx: self.bytes(program, self.ptx, "nvrtcGetPTX")?,
                    cubin: self.bytes(program, self.cubin, "nvrtcGetCUBIN")?,
                    log,
                }),
                ERROR_COMPILATION => Err(NvrtcError::Compile { name: name.to_owned(), arch: arch.to_owned(), log }),
                // Wrong options are explained in the log; failures without a log by the code alone.
                code if log.trim().is_empty() => Err(self.failure("nvrtcCompileProgram", code)),
                code => {
                    let log = format!("{}: {}", self.meaning(code), log);
                    Err(NvrtcError::Compile { name: name.to_owned(), arch: arch.to_owned(), log })
                }
            }
        });
        // SAFETY: `program` was created above and is not used any more. What it returns says nothing that could be acted on.
        unsafe { (self.destroy)(&mut program) };
        result
    }

    fn bytes(
        &self,
        program: Program,
        (size, get): (GetSize, GetBytes),
        function: &'static str,
    ) -> Result<Vec<u8>, NvrtcError> {
        let mut len = 0;
        // SAFETY: `program` is alive in all callers.
        let code = unsafe { size(program, &mut len) };
        if code != 0 {
            return Err(self.failure(function, code));
        }
        let mut bytes = vec![0u8; len];
        if len > 0 {
            // SAFETY: NVRTC writes as many bytes as it said.
            let code = unsafe { get(program, bytes.as_mut_ptr().cast()) };
            if code != 0 {
                return Err(self.failure(function, code));
            }
        }
        Ok(bytes)
    }

    fn meaning(&self, code: c_int) -> String {
        // SAFETY: NVRTC takes any code and returns text that lives as long as the library.
        unsafe {
            let text = (self.error_string)(code);
            if text.is_null() { "unknown".to_owned() } else { CStr::from_ptr(text).to_string_lossy().into_owned() }
        }
    }

    fn failure(&self, function: &'static str, code: c_int) -> NvrtcError {
        NvrtcError::Call { function, code, meaning: self.meaning(code) }
    }
}

/// # Safety
///
/// `T` must be the function pointer type of the symbol.
unsafe fn symbol<T: Copy>(library: &Library, name: &str) -> Result<T, String> {
    // SAFETY: the caller's promise.
    unsafe { library.get::<T>(name) }.map(|symbol| *symbol).map_err(|_| format!("it has no {name}"))
}

/// # Safety
///
/// The symbols must be a size and the getter that goes with it.
unsafe fn pair(library: &Library, size: &str, get: &str) -> Result<(GetSize, GetBytes), String> {
    // SAFETY: the caller's promise.
    unsafe { Ok((symbol(library, size)?, symbol(library, get)?)) }
}

/// A variable that is set, and not to nothing.
fn variable(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn is_nvrtc(name: &str) -> bool {
    if cfg!(windows) {
        name.starts_with("nvrtc64_") && name.ends_with(".dll") && !name.contains("alt")
    } else {
        name.starts_with("libnvrtc.so")
    }
}

fn is_builtins(name: &str) -> bool {
    if cfg!(windows) {
        name.starts_with("nvrtc-builtins64_") && name.ends_with(".dll")
    } else {
        name.starts_with("libnvrtc-builtins.so")
    }
}

/// What stands in `folder` under names that `wanted` likes, the highest version first (`so.12` before `so.9`).
fn newest_first(folder: &Path, wanted: fn(&str) -> bool) -> Vec<PathBuf> {
    let numbers = |path: &PathBuf| -> Vec<u32> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split(|c: char| !c.is_ascii_digit()).filter_map(|digits| digits.parse().ok()).collect()
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|file| file.file_name().to_str().is_some_and(wanted))
        .map(|file| file.path())
        .collect();
    files.sort_by_key(|path| (std::cmp::Reverse(numbers(path)), path.clone()));
    files
}

fn toolkit_folders() -> Vec<PathBuf> {
    let named = ["CUDA_PATH", "CUDA_HOME", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from);
    let usual = ["/usr/local/cuda", "/opt/cuda"].map(PathBuf::from);
    let mut folders = Vec::new();
    for root in named.chain(usual) {
        folders.extend(["lib64", "lib"].map(|folder| root.join(folder)));
        folders.extend(children(&root.join("targets")).into_iter().map(|target| target.join("lib")));
        folders.extend(["bin/x64", "bin"].map(|folder| root.join(folder)).into_iter().filter(|_| cfg!(windows)));
    }
    folders
}

fn system_folders() -> Vec<PathBuf> {
    let arch = std::env::consts::ARCH;
    [format!("/usr/lib/{arch}-linux-gnu"), "/usr/lib64".into(), "/usr/lib".into(), "/usr/local/lib".into()]
        .map(PathBuf::from)
        .into()
}

/// Where wheels are installed: the packages of environments that are named, the user's, the system's.
fn python_folders() -> Vec<PathBuf> {
    let environments = ["VIRTUAL_ENV", "CONDA_PREFIX"].into_iter().filter_map(variable).map(PathBuf::from);
    let user = if cfg!(windows) {
        variable("APPDATA").map(|root| PathBuf::from(root).join("Python"))
    } else {
        variable("HOME").map(|root| PathBuf::from(root).join(".local"))
    };
    let system: &[&str] = if cfg!(windows) { &[] } else { &["/usr/local", "/usr"] };
    let roots = environments.chain(user).chain(system.iter().map(PathBuf::from));
    roots.flat_map(|root| packages(&root)).flat_map(|packages| wheels(&packages)).collect()
}

/// The folders of packages below `root`, the newest Python first.
fn packages(root: &Path) -> Vec<PathBuf> {
    let is_python = |name: &str| name.to_ascii_lowercase().starts_with("python");
    let mut packages = vec![root.join("Lib/site-packages")];
    for versions in [root.join("lib"), root.to_path_buf()] {
        let versions = newest_first(&versions, is_python);
        packages.extend(
            versions.iter().flat_map(|version| ["site-packages", "dist-packages"].map(|name| version.join(name))),
        );
    }
    packages
}

/// Where NVIDIA's wheels put libnvrtc. The one for CUDA 12 first: more drivers take what it makes.
fn wheels(packages: &Path) -> Vec<PathBuf> {
    let folders: &[&str] = if cfg!(windows) {
        &["nvidia/cuda_nvrtc/bin", "nvidia/cu13/bin/x86_64"]
    } else {
        &["nvidia/cuda_nvrtc/lib", "nvidia/cu13/lib"]
    };
    folders.iter().map(|folder| packages.join(folder)).collect()
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let mut children: Vec<_> =
        std::fs::read_dir(folder).into_iter().flatten().flatten().map(|child| child.path()).collect();
    children.sort();
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["libnvrtc.so.9.1", "libnvrtc.so.12", "libnvrtc-builtins.so.12.9", "libnvrtc.alt.so.12", "x.so"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names = |wanted| -> Vec<_> {
            newest_first(folder.path(), wanted).iter().map(|p| p.file_name().unwrap().to_owned()).collect()
        };
        assert_eq!(names(|name: &str| name.starts_with("libnvrtc.so")), ["libnvrtc.so.12", "libnvrtc.so.9.1"]);
        assert_eq!(names(|name: &str| name.starts_with("libnvrtc-builtins.so")), ["libnvrtc-builtins.so.12.9"]);
    }

    /// Folders of an environment, a distribution, and Windows; nothing else, and the newest first.
    #[test]
    fn packages_are_found_without_python() {
        let root = tempfile::tempdir().unwrap();
        for folder in ["lib/python3.9", "lib/python3.12", "lib/perl5", "Python311"] {
            std::fs::create_dir_all(root.path().join(folder)).unwrap();
        }
        let found: Vec<_> = packages(root.path());
        let found: Vec<_> = found.iter().map(|p| p.strip_prefix(root.path()).unwrap().to_str().unwrap()).collect();
        let expected = ["Lib/site-packages", "lib/python3.12/site-packages", "lib/python3.12/dist-packages"];
        assert_eq!(found[..3], expected);
        assert!(found.contains(&"Python311/site-packages") && !found.iter().any(|p| p.contains("perl")), "{found:?}");
    }

    #[test]
    fn what_cannot_be_used_says_why() {
        let folder = tempfile::tempdir().unwrap();
        let message = Nvrtc::open(folder.path()).unwrap_err().to_string();
        assert!(message.contains("the folder has no libnvrtc"), "{message}");
        assert!(message.contains("set NVRTC_PATH"), "{message}");
        let message = Nvrtc::open(&folder.path().join("absent")).unwrap_err().to_string();
        assert!(message.contains("there is no such file or folder"), "{message}");
        let file = folder.path().join("libnvrtc.so.12");
        std::fs::write(&file, "not a library").unwrap();
        let error = Nvrtc::open(folder.path()).unwrap_err();
        assert!(matches!(&error, NvrtcError::Unusable { path, .. } if *path == file), "{error}");
    }
}
