//! Products that NVIDIA's cuBLASLt computes, as it is asked for them: [`LtProduct`], with matrices by columns. Feature `cublaslt`.
//!
//! None of it has run on a GPU. The GPU's device calls the library (`driver/cublaslt.rs`); the emulated one computes what the library's
//! documentation says, so that everything above is tested.
//!
//! Source: [cuBLASLt](https://docs.nvidia.com/cuda/cublas/index.html#cublasltmatmul).
#![allow(unsafe_code)]

use std::fmt::Debug;
use std::sync::Arc;

use super::DevicePtr;
use crate::dtype::DType;
use crate::error::Result;

/// In what products are multiplied and added up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LtCompute {
    /// f32.
    F32,
    /// f32, with operands rounded to tf32.
    Tf32,
    /// f64.
    F64,
}

/// Matrices in memory by columns: element (i, j) of matrix p at `p * apart + j * leading + i`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LtMatrix {
    /// Of its elements.
    pub dtype: DType,
    /// Rows.
    pub rows: u64,
    /// Columns.
    pub columns: u64,
    /// Elements from a column to the next.
    pub leading: u64,
    /// Elements from a matrix of the batch to the next; 0 for the same one.
    pub apart: u64,
}

/// `D = alpha op(A) op(B) + beta D + bias`: `op` a transposition or none, and a bias of D's type for every row of D, or none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LtProduct {
    /// A.
    pub a: LtMatrix,
    /// B.
    pub b: LtMatrix,
    /// D.
    pub d: LtMatrix,
    /// Whether A and B are transposed.
    pub transposed: [bool; 2],
    /// Products, one after the other.
    pub batch: u32,
    /// In what.
    pub compute: LtCompute,
    /// Whether there is a bias.
    pub bias: bool,
    /// What all matrices' addresses are multiples of, bytes.
    pub alignment: u32,
    /// Most workspace that an algorithm may need, bytes.
    pub most_workspace: usize,
}

/// What a launch of a product is on.
#[derive(Clone, Copy, Debug)]
pub struct LtTensors {
    /// A.
    pub a: DevicePtr,
    /// B.
    pub b: DevicePtr,
    /// D.
    pub d: DevicePtr,
    /// Null where the product has none.
    pub bias: DevicePtr,
    /// As many bytes as the planned product needs.
    pub workspace: DevicePtr,
    /// What products are multiplied with.
    pub alpha: f64,
    /// What D is multiplied with before; with 0 it is not read.
    pub beta: f64,
}

/// cuBLASLt on a device whose streams are `S`.
pub trait CublasLt<S>: Debug + Send + Sync {
    /// Chooses the algorithm of a product, which all its launches use. No algorithm splits sums over k and adds up the parts in an order
    /// of chance.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`](crate::Error::Unsupported) where the library has no algorithm for it; [`Error::Driver`](crate::Error::Driver)
    /// where it refuses a call.
    fn plan(&self, product: &LtProduct) -> Result<Arc<dyn PlannedProduct<S>>>;
}

/// A product with its algorithm.
pub trait PlannedProduct<S>: Debug + Send + Sync {
    /// The algorithm, for people.
    fn name(&self) -> &str;

    /// Bytes of workspace that it needs.
    fn workspace_bytes(&self) -> usize;

    /// Gives the product to a stream.
    ///
    /// # Errors
    ///
    /// [`Error::Driver`](crate::Error::Driver) where the library refuses the call; [`Error::Emulation`](crate::Error::Emulation) for
    /// memory that the emulated GPU did not allocate.
    ///
    /// # Safety
    ///
    /// The addresses must be those of tensors as the product describes them, valid until the stream has done the call.
    unsafe fn launch(&self, stream: &S, tensors: &LtTensors) -> Result<()>;
}
