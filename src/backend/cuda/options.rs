//! Options of the CUDA backend.

use std::fmt;
use std::str::FromStr;

use super::images::catalog::Exchange;
use crate::dtype::DType;
use crate::error::{Error, Result};

/// What may be chosen about how a backend computes; nothing of it changes what is computed, but for rounding.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CudaOptions {
    /// f32 only: what operands of products are rounded to, for the tensor cores.
    pub compute: Compute,
    /// Family of kernels of the time loop.
    pub family: FamilyChoice,
    /// What computes large matrix products.
    pub matmul: Matmul,
}

/// What computes matrix products outside of persistent time loops.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Matmul {
    /// The crate's kernels.
    #[default]
    Kernels,
    /// NVIDIA's cuBLASLt, in builds with the feature `cublaslt`. A product's algorithm is chosen once, when it is planned; none adds up
    /// parts of a sum in an order of chance, so the same call gives the same bits every time, which are not those of the crate's kernels.
    /// Where the build has not the feature or the library is missing, making a plan is an
    /// [`Error::Unsupported`](crate::Error::Unsupported) that says so. Some products remain the crate's kernels', as the plan's
    /// [report](super::ProductReport) says: those of at most 32 rows, which read weights once; sums of several products in 16 bits;
    /// gradients of weights for batch-major inputs, and wherever a call has lengths.
    ///
    /// It has not run on a GPU yet.
    CublasLt,
}

impl Matmul {
    /// All of them.
    pub const ALL: [Matmul; 2] = [Matmul::Kernels, Matmul::CublasLt];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Matmul::Kernels => "kernels",
            Matmul::CublasLt => "cublaslt",
        }
    }
}

impl fmt::Display for Matmul {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Matmul {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Matmul::ALL
            .into_iter()
            .find(|matmul| matmul.name() == s)
            .ok_or_else(|| Error::option("matmul", "kernels or cublaslt", s))
    }
}

/// What operands of f32 products are rounded to before they are multiplied. Sums are floats whatever it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compute {
    /// Not at all; of another element type too.
    #[default]
    Exact,
    /// To tf32, 10 bits of mantissa and f32's range: tensors stay as they are, products use the tensor cores.
    Tf32,
    /// Mixed precision in bf16, 7 bits of mantissa and f32's range: recurrent passes and
    /// [single products](crate::backend::ops::MatMul) compute on copies in bf16; weights, gradients of weights, everything between layers,
    /// norms, losses, batches of products (those of attention) and optimizers stay f32.
    Bf16,
    /// The same in f16, 10 bits of mantissa but numbers from 6e-8 to 65504 alone: train with a
    /// [scaled loss](crate::model::LossScale), as models do by themselves.
    F16,
}

impl Compute {
    /// The elements of a pass on tensors of `dtype`, and how they are multiplied.
    pub(crate) fn of(self, dtype: DType) -> (DType, &'static str) {
        match (self, dtype) {
            (Compute::Tf32, DType::F32) => (DType::F32, "tf32"),
            (Compute::Bf16, DType::F32) => (DType::Bf16, "bf16"),
            (Compute::F16, DType::F32) => (DType::F16, "f16"),
            _ => (dtype, dtype.name()),
        }
    }
}

/// Which kernels run the time loop.
///
/// In all but [`Step`](Family::Step) one launch computes all steps of a layer with the recurrent weights resident in
/// registers and shared memory; they differ in how the blocks that share a sequence's state exchange it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Family {
    /// One block has all units; shared memory.
    Block,
    /// A cluster of blocks (compute capability 9.0 and later); distributed shared memory.
    Cluster,
    /// Any blocks of the GPU, all resident together; L2.
    Grid,
    /// A product and an elementwise kernel every step: any size, every option, any GPU.
    Step,
}

impl Family {
    /// All families, from the closest exchange to the farthest.
    pub const ALL: [Family; 4] = [Family::Block, Family::Cluster, Family::Grid, Family::Step];

    /// As on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Family::Block => "block",
            Family::Cluster => "cluster",
            Family::Grid => "grid",
            Family::Step => "step",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Family {
    type Err = Error;

    fn from_str(s: &str) -> Result<Self> {
        Family::ALL
            .into_iter()
            .find(|family| family.name() == s)
            .ok_or_else(|| Error::option("family", "block, cluster, grid or step", s))
    }
}

impl From<Exchange> for Family {
    fn from(exchange: Exchange) -> Self {
        match exchange {
            Exchange::Block => Family::Block,
            Exchange::Cluster => Family::Cluster,
            Exchange::Grid => Family::Grid,
        }
    }
}

/// How a plan chooses the family of a time loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FamilyChoice {
    /// The one that is predicted to be fastest.
    #[default]
    Fastest,
    /// This one where it can take the operator, else the fastest; the plan says which.
    Prefer(Family),
    /// This one, or planning fails and says why.
    Require(Family),
}
