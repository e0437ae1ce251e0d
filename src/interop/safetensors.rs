//! The [safetensors](https://github.com/huggingface/safetensors) file format: reading what others wrote, writing ours.
#![cfg_attr(not(test), warn(clippy::arithmetic_side_effects, clippy::cast_possible_truncation))]

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::io::Write;
use std::ops::Range;
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::backend::TensorRef;
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};
use crate::files;
use crate::memory;

/// A tensor as it stands in a file.
#[derive(Clone, Debug)]
struct FileTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    /// Where its bytes are in those of the file.
    place: Range<usize>,
}

/// A safetensors file, read whole.
#[derive(Clone, Debug)]
pub struct TensorFile {
    path: PathBuf,
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, FileTensor>,
    bytes: Vec<u8>,
}

/// The format's own limit.
const MAX_HEADER_BYTES: usize = 100_000_000;

fn format_error(path: &Path, problem: impl Into<String>) -> Error {
    Error::Format { path: path.to_owned(), format: "safetensors", problem: problem.into() }
}

impl TensorFile {
    /// Reads a file.
    ///
    /// # Errors
    ///
    /// [`Error::Io`], or [`Error::Format`] where the header is oversized, not JSON, or does not describe the bytes that follow;
    /// [`Error::Unsupported`] where memory is short.
    pub fn read(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        // What is something else says so by its first bytes: it is not read whole.
        let bytes = files::read_after(path, |beginning, len| {
            let Some((length, rest)) = beginning.split_first_chunk::<8>() else { return Ok(()) };
            let behind = usize::try_from(len).unwrap_or(usize::MAX).saturating_sub(8);
            let length = header_length(*length, behind).map_err(|problem| format_error(path, problem))?;
            match rest.get(..length) {
                Some(header) => parse_header(header, behind.saturating_sub(length), path).map(drop),
                // A long one, which shall at least begin as one.
                None if rest.first() == Some(&b'{') => Ok(()),
                None => Err(format_error(path, "invalid header: it does not begin as JSON does")),
            }
        })?;
        Self::of(bytes, path)
    }

    /// Reads a file's bytes; `path` is for messages.
    ///
    /// # Errors
    ///
    /// [`Error::Format`]; [`Error::Unsupported`] where memory is short.
    pub fn parse(bytes: &[u8], path: &Path) -> Result<Self> {
        Self::of(memory::copied("bytes of the file", bytes)?, path)
    }

    fn of(bytes: Vec<u8>, path: &Path) -> Result<Self> {
        let invalid = |problem: String| format_error(path, problem);
        let (length, rest) =
            bytes.split_first_chunk::<8>().ok_or_else(|| invalid("it is shorter than 8 bytes".to_owned()))?;
        let length = header_length(*length, rest.len()).map_err(invalid)?;
        let (header, data) = rest.split_at_checked(length).unwrap_or_default();
        let header = parse_header(header, data.len(), path)?;
        let metadata = header.metadata().iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect();
        let first = bytes.len().saturating_sub(data.len());
        let mut tensors = BTreeMap::new();
        for (name, info) in header.tensors() {
            let (start, end) = info.data_offsets;
            if data.get(start..end).is_none() {
                return Err(invalid(format!("{name}: its bytes lie outside the file")));
            }
            let place = first.saturating_add(start)..first.saturating_add(end);
            tensors.insert(name, FileTensor { dtype: info.dtype, shape: info.shape.clone(), place });
        }
        Ok(TensorFile { path: path.to_owned(), metadata, tensors, bytes })
    }

    /// Puts one tensor of doubles in the place of others.
    #[cfg(feature = "exchange")]
    pub(crate) fn replace(&mut self, others: &[&str], name: String, shape: Vec<usize>, values: &[f64]) {
        others.iter().for_each(|other| drop(self.tensors.remove(*other)));
        let start = self.bytes.len();
        self.bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        self.tensors.insert(name, FileTensor { dtype: Dtype::F64, shape, place: start..self.bytes.len() });
    }

    /// The file's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// An entry of the file's metadata.
    pub fn metadata(&self, key: &str) -> Option<&str> {
        self.metadata.get(key).map(String::as_str)
    }

    /// Names of all tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// Whether there is a tensor of this name.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// A tensor's shape.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.tensors.get(name).map(|t| t.shape.as_slice())
    }

    /// A tensor's bytes.
    pub(crate) fn bytes(&self, name: &str) -> Option<&[u8]> {
        self.tensors.get(name).and_then(|tensor| self.bytes.get(tensor.place.clone()))
    }

    /// Whether a tensor is stored with less than double precision.
    pub fn is_single_precision(&self, name: &str) -> bool {
        self.tensors.get(name).is_some_and(|t| t.dtype != Dtype::F64)
    }

    /// A tensor, and its bytes.
    fn tensor(&self, name: &str) -> Result<(&FileTensor, &[u8])> {
        let tensor = self.tensors.get(name).ok_or_else(|| {
            let names: Vec<_> = self.names().take(12).collect();
            format_error(&self.path, format!("no tensor {name}; the file has {}", names.join(", ")))
        })?;
        Ok((tensor, self.bytes.get(tensor.place.clone()).unwrap_or_default()))
    }

    /// Shape and values of a floating-point tensor (f64, f32, f16, bf16), converted to `E`.
    ///
    /// # Errors
    ///
    /// [`Error::Format`] where it is absent or of another type; [`Error::Unsupported`] where memory is short.
    pub fn floats<E: Scalar>(&self, name: &str) -> Result<(Vec<usize>, Vec<E>)> {
        let (tensor, bytes) = self.tensor(name)?;
        fn read<E, T: bytemuck::AnyBitPattern>(name: &str, bytes: &[u8], convert: impl Fn(T) -> E) -> Result<Vec<E>> {
            memory::collected(
                name,
                bytes.chunks_exact(size_of::<T>()).map(|b| convert(bytemuck::pod_read_unaligned(b))),
            )
        }
        let values = match tensor.dtype {
            Dtype::F64 => read(name, bytes, |v: f64| E::of(v))?,
            Dtype::F32 => read(name, bytes, |v: f32| E::of(v.into()))?,
            Dtype::F16 => read(name, bytes, |v: half::f16| E::of(v.into()))?,
            Dtype::BF16 => read(name, bytes, |v: half::bf16| E::of(v.into()))?,
            other => {
                return Err(format_error(&self.path, format!("{name}: expected f64, f32, f16 or bf16, got {other:?}")));
            }
        };
        Ok((tensor.shape.clone(), values))
    }

    /// Shape and values of an integer tensor (i64 or i32).
    ///
    /// # Errors
    ///
    /// [`Error::Format`] where it is absent or of another type; [`Error::Unsupported`] where memory is short.
    pub fn integers(&self, name: &str) -> Result<(Vec<usize>, Vec<i64>)> {
        let (tensor, bytes) = self.tensor(name)?;
        let values = match tensor.dtype {
            Dtype::I64 => memory::collected(name, bytes.chunks_exact(8).map(bytemuck::pod_read_unaligned::<i64>))?,
            Dtype::I32 => {
                let wide = |b| i64::from(bytemuck::pod_read_unaligned::<i32>(b));
                memory::collected(name, bytes.chunks_exact(4).map(wide))?
            }
            other => return Err(format_error(&self.path, format!("{name}: expected i64 or i32, got {other:?}"))),
        };
        Ok((tensor.shape.clone(), values))
    }
}

/// Bytes of the header that a file begins with, of which so many are behind its length.
///
/// # Errors
///
/// What is wrong, where there cannot be so many.
fn header_length(length: [u8; 8], behind: usize) -> Result<usize, String> {
    let most = behind.min(MAX_HEADER_BYTES);
    let claimed = u64::from_le_bytes(length);
    if let Some(length) = usize::try_from(claimed).ok().filter(|length| *length <= most) {
        return Ok(length);
    }
    if length.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace()) {
        return Err("it begins as text does".to_owned());
    }
    Err(format!("its header claims {claimed} bytes, but at most {most} are possible"))
}

/// A header, before so many bytes of tensors. Not by way of `SafeTensors::deserialize`: 0.8.0 adds offsets from the file without a check for
/// overflow.
fn parse_header(header: &[u8], data: usize, path: &Path) -> Result<Metadata> {
    let problem = |e: serde_json::Error| format_error(path, format!("invalid header: {e}"));
    // The library keeps the last of several tensors of one name.
    let DistinctNames = serde_json::from_slice(header).map_err(problem)?;
    let header: Metadata = serde_json::from_slice(header).map_err(problem)?;
    if header.data_len() != data {
        let expected = header.data_len();
        let problem = format!("its header describes {expected} bytes of tensors, but {data} follow");
        return Err(format_error(path, problem));
    }
    Ok(header)
}

/// An object of JSON each of whose names stands there once.
struct DistinctNames;

impl<'de> Deserialize<'de> for DistinctNames {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = DistinctNames;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors by their names")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> std::result::Result<DistinctNames, A::Error> {
                let mut seen = HashSet::new();
                while let Some((name, IgnoredAny)) = map.next_entry::<String, IgnoredAny>()? {
                    if let Some(name) = seen.replace(name) {
                        return Err(de::Error::custom(format_args!("two tensors are called {name}")));
                    }
                }
                Ok(DistinctNames)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// A tensor to be written: name, shape and values, in the host's memory.
pub type NamedTensor<'a> = (&'a str, Vec<usize>, TensorRef<'a>);

/// Writes tensors and one metadata entry to `path`, atomically. The same input gives the same bytes.
///
/// # Errors
///
/// [`Error::Io`]; [`Error::Shape`] where a shape and its values disagree; [`Error::Unsupported`] for a device's tensor; [`Error::Format`]
/// for two tensors of one name.
pub fn write(path: impl AsRef<Path>, key: &str, value: &str, tensors: &[NamedTensor<'_>]) -> Result<()> {
    let path = path.as_ref();
    let mut parts = Vec::new();
    for (name, shape, values) in tensors {
        crate::rnn::shape::check_len(name, shape, values.len())?;
        let bytes = values.bytes().ok_or_else(|| {
            Error::unsupported(format!("writing {name}, a device's tensor, to a file"), "download it first")
        })?;
        parts.push((*name, file_dtype(values.dtype()), shape, bytes));
    }
    let mut names = HashSet::new();
    if let Some((name, ..)) = parts.iter().find(|(name, ..)| !names.insert(*name)) {
        return Err(format_error(path, format!("two tensors are called {name}")));
    }
    // The library's own order: wide elements first, so that all are aligned, then by name. Its `serialize` makes a copy of the whole.
    parts.sort_by(|a, b| b.1.cmp(&a.1).then(a.0.cmp(b.0)));
    let mut end = 0usize;
    let infos = parts.iter().map(|(name, dtype, shape, bytes)| {
        let start = end;
        end = start.saturating_add(bytes.len());
        ((*name).to_owned(), TensorInfo { dtype: *dtype, shape: (*shape).clone(), data_offsets: (start, end) })
    });
    // One entry only: the library keeps metadata in a hash map, whose order would differ from run to run.
    let metadata = std::iter::once((key.to_owned(), value.to_owned())).collect();
    let problem = |e: &dyn fmt::Display| format_error(path, e.to_string());
    let header = Metadata::new(Some(metadata), infos.collect()).map_err(|e| problem(&e))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| problem(&e))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    if header.len() > MAX_HEADER_BYTES {
        let most = format!("names and description need {} bytes; the format allows {MAX_HEADER_BYTES}", header.len());
        return Err(format_error(path, most));
    }
    files::write_atomic_by(path, |file| {
        file.write_all(&(header.len() as u64).to_le_bytes())?;
        file.write_all(&header)?;
        parts.iter().try_for_each(|(.., bytes)| file.write_all(bytes))
    })
}

/// What the format calls an element type.
fn file_dtype(dtype: DType) -> Dtype {
    match dtype {
        DType::F32 => Dtype::F32,
        DType::F64 => Dtype::F64,
        DType::F16 => Dtype::F16,
        DType::Bf16 => Dtype::BF16,
        DType::U32 => Dtype::U32,
        DType::U8 => Dtype::U8,
    }
}
