//! What models compute besides the recurrent operator, on vectors and threads.

mod matmul;
mod softmax;

use super::{CpuBackend, CpuElement};
use crate::backend::WeightGrad;
use crate::backend::host_ops::plain::training;
use crate::backend::host_ops::{HostOperations, HostSoftmaxMask};
use crate::backend::ops::{AdamStep, MatMul, Workspace};
use crate::error::Result;
use crate::simd::{Kernel, Simd};
use matmul::Products;

impl<E: CpuElement> HostOperations for CpuBackend<E> {
    type Element = E;

    fn workspace(&self, call: Workspace) -> usize {
        match call {
            Workspace::MatMul(product) => Products::new(self.isa, &self.threads, product).workspace::<E>(),
            _ => 0,
        }
    }

    fn matmul(
        &self,
        product: MatMul,
        alpha: f64,
        a: &[E],
        b: &[E],
        c: &mut [E],
        grad: WeightGrad,
        workspace: &mut [E],
    ) -> Result<()> {
        Products::new(self.isa, &self.threads, product).run(&self.threads, alpha, a, b, c, grad, workspace)
    }

    fn softmax(&self, columns: usize, x: &[E], mask: HostSoftmaxMask<'_, E>, y: &mut [E]) -> Result<()> {
        y.copy_from_slice(x);
        let valid = (!mask.is_full()).then_some(|row: usize, c: usize| mask.contains(columns, row, c));
        self.isa.run(softmax::Rows { columns, values: y, valid });
        Ok(())
    }

    fn softmax_gradient(&self, columns: usize, y: &[E], dy: &[E], dx: &mut [E]) -> Result<()> {
        self.isa.run(softmax::GradientRows { columns, y, dy, dx });
        Ok(())
    }

    fn adam(&self, step: AdamStep, parameters: &mut [E], gradients: &[E], m: &mut [E], v: &mut [E]) -> Result<()> {
        self.isa.run(Adam { step, parameters, gradients, m, v });
        Ok(())
    }
}

/// Plain loops, compiled for the widest vectors of the machine. No operation is fused, so the bits are the same on all.
struct Adam<'a, E> {
    step: AdamStep,
    parameters: &'a mut [E],
    gradients: &'a [E],
    m: &'a mut [E],
    v: &'a mut [E],
}

impl<E: CpuElement> Kernel<E> for Adam<'_, E> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd<E>>(self, _: S) {
        training::adam(self.step, self.parameters, self.gradients, self.m, self.v);
    }
}

impl<E: CpuElement> CpuBackend<E> {
    /// The same threads and instruction set for another element type.
    pub(crate) fn cast<F: CpuElement>(&self) -> CpuBackend<F> {
        CpuBackend { isa: self.isa, threads: self.threads.clone(), element: std::marker::PhantomData }
    }
}
