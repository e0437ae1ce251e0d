//! The kernels of a plan.

use super::super::device::Device;
use super::super::kernel::gemm::{GemmKernel, LARGE_TILE_ROWS};
use super::super::kernel::launch::Kernel;
use super::super::kernel::params::{
    BackwardParams, BiasGradientParams, DropoutParams, ForwardParams, GemmParams, PeepholeGradientParams,
    StepBackwardParams, StepForwardParams, SumPartialsParams,
};
use crate::backend::ForwardMode;
use crate::backend::ops::Orientation;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::rnn::RnnDescriptor;

/// Kernels of a plan, loaded.
#[derive(Debug)]
pub(crate) struct Kernels<D: Device> {
    pub(crate) begin_forward: Kernel<D, ForwardParams>,
    pub(crate) step_forward: Kernel<D, StepForwardParams>,
    pub(crate) dropout: Kernel<D, DropoutParams>,
    gemm_nt: [GemmKernel<D, GemmParams>; 2],
    pub(crate) backward: Option<BackwardKernels<D>>,
}

/// Those of training alone.
#[derive(Debug)]
pub(crate) struct BackwardKernels<D: Device> {
    pub(crate) begin: Kernel<D, BackwardParams>,
    pub(crate) step: Kernel<D, StepBackwardParams>,
    pub(crate) finish: Kernel<D, BackwardParams>,
    pub(crate) bias_gradient: Kernel<D, BiasGradientParams>,
    pub(crate) peephole_gradient: Kernel<D, PeepholeGradientParams>,
    pub(crate) sum_partials: Kernel<D, SumPartialsParams>,
    gemm_nn: [GemmKernel<D, GemmParams>; 2],
    gemm_tn: GemmKernel<D, GemmParams>,
}

impl<D: Device> Kernels<D> {
    pub(super) fn load(
        device: &D,
        descriptor: &RnnDescriptor,
        (dtype, gradient, math): (DType, DType, &str),
        mode: ForwardMode,
    ) -> Result<Self> {
        let cell = descriptor.cell.spec().name;
        let gemm = |orientation: &str, tile: usize| GemmKernel::single(device, orientation, math, tile);
        let backward = || -> Result<BackwardKernels<D>> {
            Ok(BackwardKernels {
                begin: Kernel::load(device, &format!("begin_backward_{dtype}"))?,
                step: Kernel::load(device, &format!("step_backward_{cell}_{dtype}"))?,
                finish: Kernel::load(device, &format!("finish_backward_{dtype}"))?,
                bias_gradient: Kernel::load(device, &format!("bias_gradient_{dtype}"))?,
                peephole_gradient: Kernel::load(device, &format!("peephole_gradient_{dtype}"))?,
                sum_partials: Kernel::load(device, &format!("sum_partials_{gradient}"))?,
                gemm_nn: [gemm("nn", 0)?, gemm("nn", 1)?],
                gemm_tn: gemm("tn", 0)?,
            })
        };
        Ok(Kernels {
            begin_forward: Kernel::load(device, &format!("begin_forward_{dtype}"))?,
            step_forward: Kernel::load(device, &format!("step_forward_{cell}_{dtype}"))?,
            dropout: Kernel::load(device, &format!("dropout_{dtype}"))?,
            gemm_nt: [gemm("nt", 0)?, gemm("nt", 1)?],
            backward: (mode == ForwardMode::Training).then(backward).transpose()?,
        })
    }

    /// The kernel of a product with `m` rows.
    pub(crate) fn gemm(&self, orientation: Orientation, m: usize) -> Result<&GemmKernel<D, GemmParams>> {
        let tile = usize::from(m < LARGE_TILE_ROWS);
        Ok(match orientation {
            Orientation::Nt => &self.gemm_nt[tile],
            Orientation::Nn => &self.backward()?.gemm_nn[tile],
            Orientation::Tn => &self.backward()?.gemm_tn,
        })
    }

    /// Those of training; the checks of a call have made sure that the plan is for it.
    pub(crate) fn backward(&self) -> Result<&BackwardKernels<D>> {
        self.backward.as_ref().ok_or_else(|| Error::option("mode", "a plan for training", "one for inference"))
    }
}
