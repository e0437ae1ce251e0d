//! NumPy's [`.npz`](https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html) files: arrays of recorded inputs and outputs,
//! [`read`].
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io::{Cursor, Read};
use std::path::Path;

use ndarray::{ArrayD, IxDyn};

use crate::error::{Error, Result};
use crate::files;
use crate::memory;

/// What arrays may become as often as large as the file, and beside that: a bound of what a hostile one may make of memory.
const MOST_DEFLATED: u64 = 32;
const MOST_BESIDE: u64 = 64 << 20;

fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "npz", problem: problem.into() }
}

/// All arrays of numbers, by their names: floating-point and whole numbers and truth values as `f64`. Arrays of text are left out.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Format`] where it is no such file, or an array has another type.
pub fn read(path: impl AsRef<Path>) -> Result<BTreeMap<String, ArrayD<f64>>> {
    let path = path.as_ref();
    // What is something else says so by its first bytes: it is not read whole.
    let bytes = files::read_after(path, |beginning, _| check_beginning(beginning, path))?;
    parse(&bytes, path)
}

fn check_beginning(beginning: &[u8], path: &Path) -> Result<()> {
    match files::begins_as_zip(beginning) {
        true => Ok(()),
        false => Err(format_error(path, "it does not begin as a zip archive does; save arrays with numpy.savez")),
    }
}

/// The same of a file's bytes; `path` is for messages.
///
/// # Errors
///
/// [`Error::Format`]; [`Error::Unsupported`] where memory is short.
pub fn parse(bytes: &[u8], path: &Path) -> Result<BTreeMap<String, ArrayD<f64>>> {
    check_beginning(bytes, path)?;
    let mut archive = zip::ZipArchive::new(Cursor::new(bytes)).map_err(|e| format_error(path, e.to_string()))?;
    let mut arrays = BTreeMap::new();
    let mut left = (bytes.len() as u64).saturating_mul(MOST_DEFLATED).saturating_add(MOST_BESIDE);
    for index in 0..archive.len() {
        let file = archive.by_index(index).map_err(|e| format_error(path, e.to_string()))?;
        let name = file.name().map_err(|e| format_error(path, e.to_string()))?.into_owned();
        let name = name.strip_suffix(".npy").unwrap_or(&name).to_owned();
        let mut content = Vec::new();
        file.take(left.saturating_add(1))
            .read_to_end(&mut content)
            .map_err(|e| format_error(path, format!("{name}: {e}")))?;
        left = left.checked_sub(content.len() as u64).ok_or_else(|| {
            let most = format!("{MOST_DEFLATED} times the file and {} MiB", MOST_BESIDE >> 20);
            format_error(path, format!("{name}: with it the arrays are larger than {most}; save them with numpy.savez"))
        })?;
        memory::check(&format!("{}: {name}", path.display()), content.len().saturating_mul(8))?;
        if let Some(array) = array(&content).map_err(|problem| format_error(path, format!("{name}: {problem}")))? {
            match arrays.entry(name) {
                Entry::Vacant(place) => drop(place.insert(array)),
                Entry::Occupied(known) => {
                    return Err(format_error(path, format!("two arrays are called {}", known.key())));
                }
            }
        }
    }
    Ok(arrays)
}

/// The array of a `.npy` file; `None` for text.
fn array(bytes: &[u8]) -> Result<Option<ArrayD<f64>>, String> {
    let short = || "it ends before its header does".to_owned();
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it does not begin as an array of NumPy's")?;
    let (version, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
    let (length, rest) = match version[0] {
        1 => {
            let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
            (usize::from(u16::from_le_bytes(*length)), rest)
        }
        2 | 3 => {
            let (length, rest) = rest.split_first_chunk::<4>().ok_or_else(short)?;
            (u32::from_le_bytes(*length) as usize, rest)
        }
        other => return Err(format!("version {other} of the format; 1 to 3 are known")),
    };
    let (header, data) = rest.split_at_checked(length).ok_or_else(short)?;
    let header = std::str::from_utf8(header).map_err(|_| "its header is no text")?;
    let field = |key: &str| {
        let after = header.split_once(&format!("'{key}'")).map(|(_, after)| after.trim_start());
        after
            .and_then(|after| after.strip_prefix(':'))
            .map(str::trim_start)
            .ok_or_else(|| format!("its header has no {key}"))
    };
    let kind = field("descr")?.strip_prefix('\'').and_then(|text| text.split_once('\'')).map(|(kind, _)| kind);
    let kind = kind.ok_or("its elements have no simple type")?;
    let fortran = field("fortran_order")?.starts_with("True");
    let shape = field("shape")?.strip_prefix('(').and_then(|text| text.split_once(')')).map(|(shape, _)| shape);
    let shape: Vec<usize> = shape
        .ok_or("its shape is no tuple")?
        .split(',')
        .map(str::trim)
        .filter(|n| !n.is_empty())
        .map(|n| n.parse().map_err(|_| format!("an axis {n:?}")))
        .collect::<Result<_, String>>()?;
    fn numbers<const N: usize>(data: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        data.chunks_exact(N).filter_map(|bytes| bytes.try_into().ok()).map(number).collect()
    }
    let (order, kind_name) = kind.split_at_checked(1).unwrap_or(("", kind));
    if order == ">" {
        return Err(format!("elements of type {kind:?}, the high byte first; save it in the machine's own order"));
    }
    let values = match kind_name {
        "f4" => numbers(data, |b| f64::from(f32::from_le_bytes(b))),
        "f8" => numbers(data, f64::from_le_bytes),
        "f2" => numbers(data, |b| half::f16::from_le_bytes(b).to_f64()),
        "i8" => numbers(data, |b| i64::from_le_bytes(b) as f64),
        "i4" => numbers(data, |b| f64::from(i32::from_le_bytes(b))),
        "i2" => numbers(data, |b| f64::from(i16::from_le_bytes(b))),
        "i1" => numbers(data, |b| f64::from(i8::from_le_bytes(b))),
        "u8" => numbers(data, |b| u64::from_le_bytes(b) as f64),
        "u4" => numbers(data, |b| f64::from(u32::from_le_bytes(b))),
        "u2" => numbers(data, |b| f64::from(u16::from_le_bytes(b))),
        "u1" | "b1" => numbers(data, |[b]| f64::from(b)),
        text if text.starts_with('U') || text.starts_with('S') => return Ok(None),
        _ => {
            return Err(format!(
                "elements of type {kind:?}; f2, f4, f8, i1, i2, i4, i8, u1, u2, u4, u8 and b1 are read"
            ));
        }
    };
    let reversed: Vec<usize> = shape.iter().rev().copied().collect();
    let stored = if fortran { &reversed } else { &shape };
    let elements = shape.iter().try_fold(1usize, |product, n| product.checked_mul(*n));
    if elements != Some(values.len()) {
        return Err(format!("its shape {shape:?} is not that of {} elements", values.len()));
    }
    let array = ArrayD::from_shape_vec(IxDyn(stored), values).map_err(|e| e.to_string())?;
    Ok(Some(if fortran { array.reversed_axes() } else { array }))
}
