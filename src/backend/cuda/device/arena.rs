//! Places in one piece of memory, one after the other: [`Arena`].

use super::DevicePtr;
use crate::error::{Error, Result};

/// Every place begins at a multiple of this many bytes.
pub(crate) const ALIGNMENT: usize = 256;

/// A tensor's place, in bytes from the beginning of workspace or reserve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Place(Option<usize>);

impl Place {
    /// Its address; null where the operator has no such tensor.
    pub(crate) fn of(self, base: DevicePtr) -> DevicePtr {
        self.0.map_or(DevicePtr::NULL, |offset| base.offset(offset))
    }
}

/// Hands out places one after the other.
#[derive(Debug, Default)]
pub(crate) struct Arena {
    bytes: usize,
}

impl Arena {
    /// A place for the product of `sizes` numbers of `size` bytes.
    pub(crate) fn take(&mut self, name: &str, sizes: &[usize], size: usize) -> Result<Place> {
        let end = sizes
            .iter()
            .try_fold(size, |product, factor| product.checked_mul(*factor))
            .and_then(|bytes| bytes.checked_next_multiple_of(ALIGNMENT))
            .and_then(|bytes| bytes.checked_add(self.bytes))
            .filter(|end| *end <= isize::MAX as usize)
            .ok_or_else(|| Error::SizeOverflow {
                tensor: name.to_owned(),
                expression: sizes.iter().map(usize::to_string).collect::<Vec<_>>().join(" * "),
            })?;
        let place = Place(Some(self.bytes));
        self.bytes = end;
        Ok(place)
    }

    /// Bytes handed out.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}
