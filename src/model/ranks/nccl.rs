//! Ranks whose gradients go from GPU to GPU, by NVIDIA's NCCL.

use super::{Ranks, agree};
use crate::backend::cuda::CudaBackend;
use crate::backend::cuda::device::driver::Driver;
use crate::backend::cuda::device::driver::nccl::{ID_BYTES, Nccl, new_id};
use crate::backend::{TensorMut, TensorRef};
use crate::dtype::Element;
use crate::error::{Error, Result};

/// Other ranks, such as those of MPI, with a way between their GPUs: small numbers go as they do there, tensors by NCCL's all-gather. The
/// sums are taken by the crate's own kernels in the order of the ranks, so that they are the same bits every time.
///
/// It has not run on a GPU yet.
pub struct NcclRanks<R> {
    ranks: R,
    nccl: Nccl,
}

impl<R: Ranks> NcclRanks<R> {
    /// Joins the GPUs of all ranks, one each; waits until all have come. The backend is that of the model's device.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where libnccl is missing, on any of the ranks; [`Error::Driver`] where it fails; those of
    /// [`gather`](Ranks::gather).
    pub fn new<E: Element>(ranks: R, backend: &CudaBackend<E, Driver>) -> Result<Self> {
        let own = agree(&ranks, new_id())?;
        let mut all = vec![0; own.len() * ranks.count()];
        ranks.gather(&own, &mut all)?;
        let Some(first) = all.first_chunk::<ID_BYTES>() else { return Err(Error::ZeroSize { name: "ranks" }) };
        let nccl = Nccl::new(backend.device(), backend.stream(), *first, ranks.rank(), ranks.count())?;
        Ok(NcclRanks { ranks, nccl })
    }
}

impl<R: Ranks> Ranks for NcclRanks<R> {
    fn rank(&self) -> usize {
        self.ranks.rank()
    }

    fn count(&self) -> usize {
        self.ranks.count()
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        self.ranks.gather(own, all)
    }

    fn reaches_devices(&self) -> bool {
        true
    }

    fn gather_on_device(&self, own: TensorRef<'_>, all: TensorMut<'_>) -> Result<()> {
        self.nccl.gather(own, all)
    }
}
