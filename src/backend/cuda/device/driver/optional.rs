//! Libraries of NVIDIA's that are looked for when they are asked for: at the place that a variable names, or where the system looks.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use libloading::Library;

/// Loads the first library that is there: at `given`, a folder or a path, or else by one of its `names`. `load` gets it for as long as the
/// process lives. Else what was tried, and why it did not work.
pub(super) fn find<T>(
    what: &str,
    names: &[&str],
    given: Option<&Path>,
    load: impl FnOnce(&Library, &Path) -> Result<T, String>,
) -> Result<T, String> {
    let candidates: Vec<PathBuf> = match given {
        Some(folder) if folder.is_dir() => names.iter().map(|name| folder.join(name)).collect(),
        Some(file) => vec![file.to_owned()],
        None => names.iter().map(PathBuf::from).collect(),
    };
    let mut tried = Vec::new();
    for candidate in candidates {
        // SAFETY: these libraries have no requirements for being loaded, and are never unloaded.
        match unsafe { Library::new(&candidate) } {
            Ok(library) => return load(&std::mem::ManuallyDrop::new(library), &candidate),
            Err(error) => {
                let why = std::error::Error::source(&error).map_or_else(|| error.to_string(), ToString::to_string);
                tried.push(format!("{} ({why})", candidate.display()));
            }
        }
    }
    Err(format!("no {what} found: tried {}", tried.join(", ")))
}

/// What a variable names.
pub(super) fn named_by(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|path: &OsString| !path.is_empty()).map(PathBuf::from)
}
