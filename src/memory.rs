//! Memory for what grows with the caller's sizes: a buffer, or the error that says that there is too little.
//!
//! Rust's collections end the process where memory is short. Whatever may be large is made here instead: every buffer whose length is a product of
//! sizes, and copies of whole files and arrays. What is in proportion to the text of a file (cells, names, descriptions) is left to the collections,
//! after [`check`] has tried whether there is room for it.

use crate::error::{Error, Result};

/// The error for `what`, of so many elements.
fn short(what: &str, len: usize) -> Error {
    Error::unsupported(
        format!("{what} of {len} elements"),
        "there is not enough memory; use smaller sizes or fewer data",
    )
}

/// The error for a file that is larger than memory.
#[cfg(feature = "model")]
pub(crate) fn short_of_file(path: &std::path::Path) -> Error {
    let why = "there is not enough memory for all of it; take a part of it, or end the program that writes to it";
    Error::unsupported(format!("reading {}", path.display()), why)
}

/// Room for so many elements, none of them there yet.
///
/// # Errors
///
/// [`Error::Unsupported`] where memory is short; so for the others here.
pub(crate) fn room<T>(what: &str, len: usize) -> Result<Vec<T>> {
    let mut values = Vec::new();
    values.try_reserve_exact(len).map_err(|_| short(what, len))?;
    Ok(values)
}

/// Whether there is room for so many bytes, before work begins that makes many small things of them.
#[cfg(feature = "model")]
pub(crate) fn check(what: &str, bytes: usize) -> Result<()> {
    room::<u8>(what, bytes).map(drop)
}

/// As many copies of a value.
pub(crate) fn filled<T: Clone>(what: &str, len: usize, value: T) -> Result<Vec<T>> {
    let mut values = room(what, len)?;
    values.resize(len, value);
    Ok(values)
}

/// A copy.
#[cfg(feature = "model")]
pub(crate) fn copied<T: Copy>(what: &str, values: &[T]) -> Result<Vec<T>> {
    let mut copy = room(what, values.len())?;
    copy.extend_from_slice(values);
    Ok(copy)
}

/// The values of an iterator that knows how many it has.
#[cfg(feature = "model")]
pub(crate) fn collected<T>(what: &str, values: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut all = room(what, values.len())?;
    all.extend(values);
    Ok(all)
}

#[cfg(feature = "model")]
mod arrays {
    use ndarray::{Array, Dimension, IntoDimension};

    use super::{filled, room};
    use crate::error::{Error, Result};

    /// Elements of a shape, whose bytes must fit the address space.
    fn elements<T>(what: &str, shape: &impl Dimension) -> Result<usize> {
        let product = shape.slice().iter().try_fold(1usize, |product, size| product.checked_mul(*size));
        let fits = |count: &usize| count.checked_mul(size_of::<T>().max(1)).is_some_and(|n| n <= isize::MAX as usize);
        product.filter(fits).ok_or_else(|| {
            let sizes: Vec<String> = shape.slice().iter().map(usize::to_string).collect();
            Error::SizeOverflow { tensor: what.to_owned(), expression: sizes.join(" * ") }
        })
    }

    fn shaped<T, D: Dimension>(what: &str, shape: D, values: Vec<T>) -> Result<Array<T, D>> {
        Array::from_shape_vec(shape, values).map_err(|e| Error::shape(what, "a buffer of its length", e.to_string()))
    }

    /// An array with a value everywhere.
    ///
    /// # Errors
    ///
    /// [`Error::SizeOverflow`] for sizes beyond the address space; [`Error::Unsupported`] where memory is short.
    pub(crate) fn array_of<T: Clone, S: IntoDimension>(what: &str, shape: S, value: T) -> Result<Array<T, S::Dim>> {
        let shape = shape.into_dimension();
        let values = filled(what, elements::<T>(what, &shape)?, value)?;
        shaped(what, shape, values)
    }

    /// An array of what a function says for each place, in the order of the rows.
    ///
    /// # Errors
    ///
    /// As [`array_of`].
    pub(crate) fn array_from<T, S: IntoDimension>(
        what: &str,
        shape: S,
        of: impl FnMut(<S::Dim as Dimension>::Pattern) -> T,
    ) -> Result<Array<T, S::Dim>> {
        let shape = shape.into_dimension();
        let mut values = room(what, elements::<T>(what, &shape)?)?;
        values.extend(ndarray::indices(shape.clone()).into_iter().map(of));
        shaped(what, shape, values)
    }
}

#[cfg(feature = "model")]
pub(crate) use arrays::{array_from, array_of};
