//! What cuBLASLt computes, on the emulated GPU: products as NVIDIA's documentation of `cublasLtMatmul` describes them, by columns.
#![allow(unsafe_code)]

use std::sync::Arc;

use half::{bf16, f16};

use super::DevicePtr;
use super::cublaslt::{CublasLt, LtMatrix, LtProduct, LtTensors, PlannedProduct};
use super::emulated::{EmulatedStream, Memory};
use crate::dtype::DType;
use crate::error::{Error, Result};

/// Bytes of workspace that every product asks for and fills, so that a plan without room for it fails its tests.
const WORKSPACE: usize = 1000;

/// The library on an emulated GPU.
#[derive(Debug)]
pub(super) struct EmulatedLt(pub(super) Memory);

#[derive(Debug)]
struct Planned {
    memory: Memory,
    product: LtProduct,
    workspace_bytes: usize,
}

impl CublasLt<EmulatedStream> for EmulatedLt {
    fn plan(&self, product: &LtProduct) -> Result<Arc<dyn PlannedProduct<EmulatedStream>>> {
        let LtProduct { a, b, d, transposed: [a_transposed, b_transposed], .. } = *product;
        let of = |matrix: LtMatrix, transposed: bool| match transposed {
            true => (matrix.columns, matrix.rows),
            false => (matrix.rows, matrix.columns),
        };
        let (a_shape, b_shape) = (of(a, a_transposed), of(b, b_transposed));
        let shapes = a_shape.0 == d.rows && a_shape.1 == b_shape.0 && b_shape.1 == d.columns;
        let leading =
            [a, b, d].iter().all(|matrix| matrix.rows > 0 && matrix.columns > 0 && matrix.leading >= matrix.rows);
        if !shapes || !leading || product.batch == 0 {
            return Err(Error::Emulation {
                what: "cublasLtMatmul".to_owned(),
                problem: format!("CUBLAS_STATUS_INVALID_VALUE: {product:?}"),
            });
        }
        let workspace_bytes = WORKSPACE.min(product.most_workspace);
        Ok(Arc::new(Planned { memory: self.0.clone(), product: *product, workspace_bytes }))
    }
}

impl PlannedProduct<EmulatedStream> for Planned {
    fn name(&self) -> &str {
        "cublaslt as documented"
    }

    fn workspace_bytes(&self) -> usize {
        self.workspace_bytes
    }

    unsafe fn launch(&self, _: &EmulatedStream, tensors: &LtTensors) -> Result<()> {
        let LtProduct { a, b, d, transposed, batch, bias, alignment, .. } = self.product;
        self.memory.check_range("the workspace of cuBLASLt", tensors.workspace, self.workspace_bytes)?;
        for i in 0..self.workspace_bytes {
            // SAFETY: within an allocation, as just checked.
            unsafe { *((tensors.workspace.0 + i as u64) as *mut u8) = 0xff };
        }
        let aligned = [tensors.a, tensors.b, tensors.d].iter().all(|at| at.0.is_multiple_of(alignment.into()));
        if !aligned || bias != (tensors.bias != DevicePtr::NULL) {
            return Err(Error::Emulation {
                what: "cublasLtMatmul".to_owned(),
                problem: format!("{tensors:?} are not what the product was planned for: {:?}", self.product),
            });
        }
        let k = if transposed[0] { a.rows } else { a.columns };
        for p in 0..u64::from(batch) {
            for (j, i) in (0..d.columns).flat_map(|j| (0..d.rows).map(move |i| (j, i))) {
                let mut sum = 0.0;
                for l in 0..k {
                    let x =
                        if transposed[0] { self.read(a, tensors.a, p, l, i) } else { self.read(a, tensors.a, p, i, l) };
                    let y =
                        if transposed[1] { self.read(b, tensors.b, p, j, l) } else { self.read(b, tensors.b, p, l, j) };
                    sum += x? * y?;
                }
                let mut value = tensors.alpha * sum;
                if tensors.beta != 0.0 {
                    value += tensors.beta * self.read(d, tensors.d, p, i, j)?;
                }
                if bias {
                    let row = LtMatrix { leading: d.rows, apart: 0, columns: 1, ..d };
                    value += self.read(row, tensors.bias, 0, i, 0)?;
                }
                self.write(d, tensors.d, p, i, j, value)?;
            }
        }
        Ok(())
    }
}

impl Planned {
    fn address(&self, matrix: LtMatrix, base: DevicePtr, p: u64, i: u64, j: u64) -> Result<u64> {
        let size = matrix.dtype.size();
        let at = base.0 + (p * matrix.apart + j * matrix.leading + i) * size as u64;
        self.memory.check_range("a matrix of cuBLASLt", DevicePtr(at), size)?;
        Ok(at)
    }

    fn read(&self, matrix: LtMatrix, base: DevicePtr, p: u64, i: u64, j: u64) -> Result<f64> {
        let at = self.address(matrix, base, p, i, j)?;
        // SAFETY: within an allocation, as just checked; every bit pattern is a number.
        Ok(unsafe {
            match matrix.dtype {
                DType::F64 => (at as *const f64).read_unaligned(),
                DType::F16 => (at as *const f16).read_unaligned().into(),
                DType::Bf16 => (at as *const bf16).read_unaligned().into(),
                _ => (at as *const f32).read_unaligned().into(),
            }
        })
    }

    fn write(&self, matrix: LtMatrix, base: DevicePtr, p: u64, i: u64, j: u64, value: f64) -> Result<()> {
        let at = self.address(matrix, base, p, i, j)?;
        // SAFETY: as above.
        unsafe {
            match matrix.dtype {
                DType::F64 => (at as *mut f64).write_unaligned(value),
                DType::F16 => (at as *mut f16).write_unaligned(f16::from_f64(value)),
                DType::Bf16 => (at as *mut bf16).write_unaligned(bf16::from_f64(value)),
                _ => (at as *mut f32).write_unaligned(value as f32),
            }
        }
        Ok(())
    }
}
