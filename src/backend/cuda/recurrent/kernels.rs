//! The kernels of a plan.

use super::super::device::Device;
use super::super::kernel::gemm::{Gemm, Orientation};
use super::super::kernel::launch::Kernel;
use super::super::kernel::launch::Params;
use super::super::kernel::params::{
    BackwardParams, BiasGradientParams, DropoutParams, ForwardParams, GatesParams, HeadProductParams,
    HeadWeightsParams, PeepholeGradientParams, StepBackwardParams, StepForwardParams, SumPartialsParams,
};
use super::super::options::Matmul;
use crate::backend::ForwardMode;
use crate::dtype::DType;
use crate::error::{Error, Result};
use crate::rnn::{InputKind, RnnDescriptor};

/// Kernels of a plan, loaded.
#[derive(Debug)]
pub(crate) struct Kernels<D: Device> {
    pub(crate) begin_forward: Kernel<D, ForwardParams>,
    pub(crate) step_forward: Kernel<D, StepForwardParams>,
    pub(crate) dropout: Kernel<D, DropoutParams>,
    gemm_nt: Gemm<D>,
    head_product: Option<Kernel<D, HeadProductParams>>,
    read_gates: Option<Kernel<D, GatesParams>>,
    pub(crate) backward: Option<BackwardKernels<D>>,
}

/// Kernels of training alone.
#[derive(Debug)]
pub(crate) struct BackwardKernels<D: Device> {
    pub(crate) begin: Kernel<D, BackwardParams>,
    pub(crate) step: Kernel<D, StepBackwardParams>,
    pub(crate) finish: Kernel<D, BackwardParams>,
    pub(crate) bias_gradient: Kernel<D, BiasGradientParams>,
    pub(crate) peephole_gradient: Kernel<D, PeepholeGradientParams>,
    pub(crate) sum_partials: Kernel<D, SumPartialsParams>,
    gemm_nn: Gemm<D>,
    gemm_tn: Gemm<D>,
    head_product_transposed: Option<Kernel<D, HeadProductParams>>,
    head_weights: Option<Kernel<D, HeadWeightsParams>>,
    write_gate_gradients: Option<Kernel<D, GatesParams>>,
}

impl<D: Device> Kernels<D> {
    pub(super) fn load(
        device: &D,
        descriptor: &RnnDescriptor,
        (dtype, gradient, math, matmul): (DType, DType, &str, Matmul),
        mode: ForwardMode,
    ) -> Result<Self> {
        let cell = descriptor.cell.spec().name;
        let (heads, of_gates) = (descriptor.heads > 1, descriptor.input == InputKind::Gates);
        let gemm = |orientation: Orientation| Gemm::load(device, orientation, math, matmul);
        let backward = || -> Result<BackwardKernels<D>> {
            Ok(BackwardKernels {
                begin: Kernel::load(device, &format!("begin_backward_{dtype}"))?,
                step: Kernel::load(device, &format!("step_backward_{cell}_{dtype}"))?,
                finish: Kernel::load(device, &format!("finish_backward_{dtype}"))?,
                bias_gradient: Kernel::load(device, &format!("bias_gradient_{dtype}"))?,
                peephole_gradient: Kernel::load(device, &format!("peephole_gradient_{dtype}"))?,
                sum_partials: Kernel::load(device, &format!("sum_partials_{gradient}"))?,
                gemm_nn: gemm(Orientation::Nn)?,
                gemm_tn: gemm(Orientation::Tn)?,
                head_product_transposed: load_if(heads, device, &format!("head_product_transposed_{dtype}"))?,
                head_weights: load_if(heads, device, &format!("head_weights_{dtype}"))?,
                write_gate_gradients: load_if(of_gates, device, &format!("write_gate_gradients_{dtype}"))?,
            })
        };
        Ok(Kernels {
            begin_forward: Kernel::load(device, &format!("begin_forward_{dtype}"))?,
            step_forward: Kernel::load(device, &format!("step_forward_{cell}_{dtype}"))?,
            dropout: Kernel::load(device, &format!("dropout_{dtype}"))?,
            gemm_nt: gemm(Orientation::Nt)?,
            head_product: load_if(heads, device, &format!("head_product_{dtype}"))?,
            read_gates: load_if(of_gates, device, &format!("read_gates_{dtype}"))?,
            backward: (mode == ForwardMode::Training).then(backward).transpose()?,
        })
    }

    /// The kernels of products.
    pub(crate) fn gemm(&self, orientation: Orientation) -> Result<&Gemm<D>> {
        Ok(match orientation {
            Orientation::Nt => &self.gemm_nt,
            Orientation::Nn => &self.backward()?.gemm_nn,
            Orientation::Tn => &self.backward()?.gemm_tn,
        })
    }

    /// That of products in heads, where there are some.
    pub(crate) fn head_product(&self) -> Option<&Kernel<D, HeadProductParams>> {
        self.head_product.as_ref()
    }

    /// That of precomputed gates, where they are the input.
    pub(crate) fn read_gates(&self) -> Option<&Kernel<D, GatesParams>> {
        self.read_gates.as_ref()
    }

    /// Kernels of training; the checks of a call have made sure that the plan is for it.
    pub(crate) fn backward(&self) -> Result<&BackwardKernels<D>> {
        self.backward.as_ref().ok_or_else(|| Error::option("mode", "a plan for training", "one for inference"))
    }
}

impl<D: Device> BackwardKernels<D> {
    /// Kernel of products in heads, where there are heads.
    pub(crate) fn head_product_transposed(&self) -> Option<&Kernel<D, HeadProductParams>> {
        self.head_product_transposed.as_ref()
    }

    /// See [`head_product_transposed`](Self::head_product_transposed).
    pub(crate) fn head_weights(&self) -> Option<&Kernel<D, HeadWeightsParams>> {
        self.head_weights.as_ref()
    }

    /// Kernel of the gradients of precomputed gates, where they are the input.
    pub(crate) fn write_gate_gradients(&self) -> Option<&Kernel<D, GatesParams>> {
        self.write_gate_gradients.as_ref()
    }
}

/// A kernel that not every operator needs.
fn load_if<D: Device, P: Params>(wanted: bool, device: &D, name: &str) -> Result<Option<Kernel<D, P>>> {
    wanted.then(|| Kernel::load(device, name)).transpose()
}
