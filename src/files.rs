//! Files are written whole or not at all.

use std::io::Write;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};

fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { action, path, source }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// Reads a whole file. Not a pipe or a device, which may never end; one that stands for a program's output (`/dev/stdin`, `<(…)`) is read by
/// [`read_any`].
///
/// # Errors
///
/// [`Error::Io`].
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let found = std::fs::metadata(path).map_err(io("read", path))?;
    if !found.is_file() && !found.is_dir() {
        let why = "it is a pipe or a device; copy what it gives to a file, and name that";
        return Err(io("read", path)(std::io::Error::other(why)));
    }
    read_any(path)
}

/// Reads a whole file, or what a pipe gives until it ends.
///
/// # Errors
///
/// [`Error::Io`].
pub fn read_any(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).map_err(io("read", path))
}

/// What stands at `path` now, if anything; an error where nothing could ever be written there.
fn target(path: &Path) -> Result<Option<std::fs::Metadata>> {
    let ends_as_folder = path.as_os_str().to_string_lossy().ends_with(std::path::is_separator);
    if path.file_name().is_none() || ends_as_folder || path.is_dir() {
        return Err(io("write", path)(std::io::ErrorKind::IsADirectory.into()));
    }
    match std::fs::metadata(path) {
        // Replacing a device or a pipe by a file would be a surprise, and a disaster for the likes of /dev/null.
        Ok(found) if !found.is_file() => Err(io("write", path)(std::io::Error::other("it is not a regular file"))),
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(io("write", path)(error)),
    }
}

fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less the umask: what any new file gets.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    builder.tempfile_in(folder_of(path)).map_err(io("create a file beside", path))
}

/// Writes a file by way of a temporary one beside it, so that a reader sees the old content or the new, never a part. An
/// existing file keeps its permissions, and a symbolic link stays one: the file that it points to is replaced.
///
/// # Errors
///
/// [`Error::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    let replaced = target(path)?;
    let real = if replaced.is_some() { path.canonicalize().map_err(io("write", path))? } else { path.to_owned() };
    let mut file = temporary_beside(&real)?;
    file.write_all(bytes).and_then(|()| file.as_file().sync_all()).map_err(io("write", path))?;
    if let Some(replaced) = replaced {
        file.as_file().set_permissions(replaced.permissions()).map_err(io("set permissions of", path))?;
    }
    file.persist(&real).map_err(|e| io("replace", path)(e.error))?;
    Ok(())
}

/// Finds out now whether [`write_atomic`] to `path` could succeed later. Changes nothing.
///
/// # Errors
///
/// [`Error::Io`].
pub fn check_writable(path: &Path) -> Result<()> {
    let replaced = target(path)?;
    let real = if replaced.is_some() { path.canonicalize().map_err(io("write", path))? } else { path.to_owned() };
    temporary_beside(&real).map(drop)
}
