//! The CUDA backend: no kernels are built yet, and asking for it says so.

#[cfg(feature = "cuda")]
pub mod catalog;
#[cfg(feature = "cuda")]
pub mod compile;
#[cfg(feature = "cuda")]
pub mod images;
#[cfg(feature = "cuda")]
pub mod nvrtc;

use crate::error::{Error, Result};

/// The CUDA backend. It cannot be made in this version.
#[derive(Debug)]
pub struct CudaBackend(std::convert::Infallible);

impl CudaBackend {
    /// Opens GPU number `device`.
    ///
    /// # Errors
    ///
    /// Always [`Error::Unsupported`], with what is missing and the way out.
    pub fn new(device: usize) -> Result<Self> {
        Err(Error::unsupported(format!("the CUDA backend (device {device})"), status()))
    }
}

/// Why the CUDA backend cannot be used in this build.
pub fn status() -> &'static str {
    if cfg!(feature = "cuda") {
        "no kernels built: this version has none; use the cpu backend"
    } else {
        "this build lacks the feature `cuda`; build with `--features cuda`, or use the cpu backend"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_why_and_the_way_out() {
        let message = CudaBackend::new(0).unwrap_err().to_string();
        assert!(message.contains("the CUDA backend (device 0) is not supported"), "{message}");
        assert!(message.contains("use the cpu backend"), "{message}");
    }
}
