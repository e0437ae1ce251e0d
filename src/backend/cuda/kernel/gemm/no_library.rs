//! What stands for the `library` in a build without cuBLASLt.

use std::convert::Infallible;
use std::fmt;
use std::marker::PhantomData;

use super::super::super::device::Device;
use super::super::params::GemmParams;
use super::{Orientation, Room};
use crate::error::{Error, Result};

/// There is none.
pub(super) struct Library<S>(Infallible, PhantomData<fn(S)>);

/// There is none.
pub(super) struct Product<S>(Infallible, PhantomData<fn(S)>);

impl<S> fmt::Debug for Library<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("cuBLASLt")
    }
}

impl<S> Library<S> {
    /// # Errors
    ///
    /// [`Error::Unsupported`].
    pub(super) fn load<D: Device<Stream = S>>(_: &D, _: &str) -> Result<Self> {
        Err(Error::unsupported(
            "products by cuBLASLt",
            "this build has not the feature `cublaslt`; build with it, or choose Matmul::Kernels",
        ))
    }

    pub(super) fn product(&self, _: Orientation, _: &GemmParams, _: usize) -> Result<Option<Product<S>>> {
        match self.0 {}
    }
}

impl<S> Product<S> {
    pub(super) fn name(&self) -> String {
        match self.0 {}
    }

    pub(super) fn workspace_bytes(&self) -> usize {
        match self.0 {}
    }

    pub(super) fn launch(&self, _: &S, _: Room) -> Result<()> {
        match self.0 {}
    }
}
