//! Files are written whole or not at all.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

use std::fs::File;
use std::io::{Read, Write};
#[cfg(feature = "exchange")]
use std::io::{Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::memory;

/// Bytes that are looked at before a file is read whole.
pub(crate) const BEGINNING: u64 = 1 << 16;

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
/// [`Error::Io`]; [`Error::Unsupported`] where memory is short.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    read_after(path, |_, _| Ok(()))
}

/// The same, where its beginning (of [`BEGINNING`] bytes, or fewer of a shorter one) and its length have been looked at: what is refused there is
/// read no further.
pub(crate) fn read_after(path: &Path, look: impl FnOnce(&[u8], u64) -> Result<()>) -> Result<Vec<u8>> {
    let len = regular_len(path)?;
    read_any_after(path, |beginning| look(beginning, len))
}

/// The length of a file that ends.
fn regular_len(path: &Path) -> Result<u64> {
    let found = std::fs::metadata(path).map_err(io("read", path))?;
    if !found.is_file() && !found.is_dir() {
        let why = "it is a pipe or a device; copy what it gives to a file, and name that";
        return Err(io("read", path)(std::io::Error::other(why)));
    }
    Ok(found.len())
}

/// Reads a part of a file: where it starts and how long it is, `part` says of a file of so many bytes. Nothing else is read.
#[cfg(feature = "exchange")]
pub(crate) fn read_part(path: &Path, part: impl FnOnce(u64) -> Result<(u64, usize)>) -> Result<Vec<u8>> {
    let (start, len) = part(regular_len(path)?)?;
    let mut file = File::open(path).map_err(io("read", path))?;
    file.seek(SeekFrom::Start(start)).map_err(io("read", path))?;
    let mut bytes = memory::filled(&format!("a part of {}", path.display()), len, 0)?;
    file.read_exact(&mut bytes).map_err(io("read", path))?;
    Ok(bytes)
}

/// Reads a whole file, or what a pipe gives until it ends.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Unsupported`] where memory is short, as for a pipe that never ends.
pub fn read_any(path: &Path) -> Result<Vec<u8>> {
    read_any_after(path, |_| Ok(()))
}

/// The same, where its beginning has been looked at.
pub(crate) fn read_any_after(path: &Path, look: impl FnOnce(&[u8]) -> Result<()>) -> Result<Vec<u8>> {
    let failed = |source: std::io::Error| match source.kind() {
        std::io::ErrorKind::OutOfMemory => memory::short_of_file(path),
        _ => io("read", path)(source),
    };
    let mut file = File::open(path).map_err(failed)?;
    let mut bytes = Vec::new();
    // Both make room as memory allows.
    (&mut file).take(BEGINNING).read_to_end(&mut bytes).map_err(failed)?;
    look(&bytes)?;
    file.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// Why what begins with these bytes is no text in UTF-8, ASCII or the like: a byte of zero, which stands in none.
pub(crate) fn zero_in_text(beginning: &[u8]) -> Option<String> {
    let at = beginning.iter().position(|byte| *byte == 0)?;
    Some(format!("not text: byte {at} is zero, as in programs, models and archives"))
}

/// Whether what begins with these bytes may be a zip archive. One that is empty begins with its end.
#[cfg(feature = "exchange")]
pub(crate) fn begins_as_zip(beginning: &[u8]) -> bool {
    beginning.starts_with(b"PK\x03\x04") || beginning.starts_with(b"PK\x05\x06")
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

/// The file that a path stands for: what its links point to, whether that exists or not.
fn followed(path: &Path) -> Result<PathBuf> {
    let mut real = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        match std::fs::read_link(&real) {
            Ok(to) => real = folder_of(&real).join(to),
            Err(_) => return Ok(real),
        }
    }
    Err(io("write", path)(std::io::Error::other("its symbolic links lead to no file")))
}

/// What names of temporary files begin and end with.
const TEMPORARY: (&str, &str) = (".fused-rnn-", ".part");

/// A file beside another, locked as long as it is written.
fn temporary_beside(path: &Path) -> Result<tempfile::NamedTempFile> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(TEMPORARY.0).suffix(TEMPORARY.1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        // Less the umask: what any new file gets.
        builder.permissions(std::fs::Permissions::from_mode(0o666));
    }
    let file = builder.tempfile_in(folder_of(path)).map_err(io("create a file beside", path))?;
    // Where a file system has no locks, the file may at worst be taken for one that was left.
    let _ = file.as_file().try_lock();
    Ok(file)
}

/// Removes temporary files that processes left in a folder when they were killed while they wrote there. What another process is writing
/// stays; what cannot be read or removed does too.
pub fn remove_leftovers(folder: &Path) {
    let is_temporary = |name: &str| name.starts_with(TEMPORARY.0) && name.ends_with(TEMPORARY.1);
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_name().to_str().is_some_and(is_temporary)
            && entry.file_type().is_ok_and(|kind| kind.is_file())
            && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok())
        {
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// A folder that this process alone writes to. Other processes find it taken until this is dropped, or the process ends in any way.
#[derive(Debug)]
pub struct FolderLock {
    _folder: Option<File>,
}

impl FolderLock {
    /// Takes a folder. Where the system has no locks on folders, nothing is taken, and nothing refused.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] where another process has it.
    pub fn take(folder: &Path) -> Result<Self> {
        let Ok(opened) = File::open(folder) else { return Ok(FolderLock { _folder: None }) };
        match opened.try_lock() {
            Ok(()) => Ok(FolderLock { _folder: Some(opened) }),
            Err(std::fs::TryLockError::WouldBlock) => {
                let why = "another training writes there; wait for its end, or choose another folder";
                Err(io("write into", folder)(std::io::Error::other(why)))
            }
            Err(std::fs::TryLockError::Error(_)) => Ok(FolderLock { _folder: None }),
        }
    }
}

/// Writes a file by way of a temporary one beside it, so that a reader sees the old content or the new, never a part. An
/// existing file keeps its permissions, and a symbolic link stays one: the file that it points to is replaced, or made. When this returns,
/// the new content outlasts a loss of power, as far as the system keeps its promises.
///
/// # Errors
///
/// [`Error::Io`].
pub fn write_atomic(path: &Path, bytes: &[u8]) -> Result<()> {
    write_atomic_by(path, |file| file.write_all(bytes))
}

/// The same of what a function writes, large parts at a time.
pub(crate) fn write_atomic_by(path: &Path, write: impl FnOnce(&mut File) -> std::io::Result<()>) -> Result<()> {
    let replaced = target(path)?;
    let real = followed(path)?;
    let mut file = temporary_beside(&real)?;
    write(file.as_file_mut()).and_then(|()| file.as_file().sync_all()).map_err(io("write", path))?;
    if let Some(replaced) = replaced {
        file.as_file().set_permissions(replaced.permissions()).map_err(io("set permissions of", path))?;
    }
    // By the standard library's call, which can be made to fail, as a test does; the temporary file is removed then.
    let temporary = file.into_temp_path();
    std::fs::rename(&temporary, &real).map_err(io("replace", path))?;
    // Nothing is to be removed any more.
    let _ = temporary.keep();
    // The name is in the folder, which is a file of its own. Some file systems cannot do it; the file is there all the same.
    #[cfg(unix)]
    let _ = File::open(folder_of(&real)).and_then(|folder| folder.sync_all());
    Ok(())
}

/// Finds out now whether [`write_atomic`] to `path` could succeed later. Changes nothing.
///
/// # Errors
///
/// [`Error::Io`].
pub fn check_writable(path: &Path) -> Result<()> {
    target(path)?;
    temporary_beside(&followed(path)?).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[cfg(unix)]
    #[test]
    fn links_stay_links() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("real")).unwrap();
        std::os::unix::fs::symlink("real/new", at("dangling")).unwrap();
        std::os::unix::fs::symlink("dangling", at("twice")).unwrap();
        std::os::unix::fs::symlink("round", at("round")).unwrap();
        std::os::unix::fs::symlink("absent/new", at("nowhere")).unwrap();
        check_writable(&at("twice")).unwrap();
        assert!(!at("real/new").exists());
        for text in ["one", "two"] {
            write_atomic(&at("twice"), text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(at("real/new")).unwrap(), text);
            assert!(at("twice").is_symlink() && at("dangling").is_symlink());
        }
        for bad in ["round", "nowhere"] {
            assert!(write_atomic(&at(bad), b"").is_err() && check_writable(&at(bad)).is_err(), "{bad}");
            assert!(at(bad).is_symlink());
        }
        assert_eq!(names(folder.path()), ["dangling", "nowhere", "real", "round", "twice"]);
        assert_eq!(names(&at("real")), ["new"]);
    }

    #[test]
    fn what_was_left_is_removed_and_what_is_written_stays() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let left = at(".fused-rnn-abc.part");
        for file in [&left, &at(".tmpabc"), &at("model.part")] {
            std::fs::write(file, "").unwrap();
        }
        let written = temporary_beside(&at("model")).unwrap();
        remove_leftovers(folder.path());
        assert!(!left.exists() && written.path().exists());
        drop(written);
        assert_eq!(names(folder.path()), [".tmpabc", "model.part"]);
        remove_leftovers(&at("absent"));
    }

    #[cfg(unix)]
    #[test]
    fn a_folder_is_taken_once() {
        let folder = tempfile::tempdir().unwrap();
        let taken = FolderLock::take(folder.path()).unwrap();
        let error = FolderLock::take(folder.path()).unwrap_err().to_string();
        assert!(error.contains("another training") && error.contains("choose another folder"), "{error}");
        drop(taken);
        FolderLock::take(folder.path()).unwrap();
    }
}
