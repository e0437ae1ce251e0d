//! The tensor operations as launches.

use super::CudaBackend;
use super::device::Device;
use super::memory::DeviceBuffer;
use crate::backend::WeightGrad;
use crate::backend::dense::Product;
use crate::backend::tensor::{MaskOrder, SoftmaxMask, Strides, TensorBackend};
use crate::dtype::Element;
use crate::error::{Error, Result};

fn missing(call: &str) -> Result<()> {
    Err(Error::unsupported(format!("{call} on a device"), "its kernel is not written yet; use the CPU"))
}

impl<E: Element, D: Device> TensorBackend for CudaBackend<E, D> {
    #[allow(clippy::too_many_arguments)]
    fn scale_add(&self, _: f64, _: &DeviceBuffer<E, D>, _: f64, _: &mut DeviceBuffer<E, D>) -> Result<()> {
        missing("scale_add")
    }

    #[allow(clippy::too_many_arguments)]
    fn scale(&self, _: f64, _: &mut DeviceBuffer<E, D>) -> Result<()> {
        missing("scale")
    }

    #[allow(clippy::too_many_arguments)]
    fn strided_copy(
        &self,
        _: [usize; 4],
        _: &DeviceBuffer<E, D>,
        _: Strides,
        _: &mut DeviceBuffer<E, D>,
        _: Strides,
        _: WeightGrad,
    ) -> Result<()> {
        missing("strided_copy")
    }

    #[allow(clippy::too_many_arguments)]
    fn sum_axis(
        &self,
        _: [usize; 3],
        _: f64,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
        _: WeightGrad,
    ) -> Result<()> {
        missing("sum_axis")
    }

    #[allow(clippy::too_many_arguments)]
    fn max_axis(
        &self,
        _: [usize; 3],
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &mut DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<u32, D>,
    ) -> Result<()> {
        missing("max_axis")
    }

    #[allow(clippy::too_many_arguments)]
    fn max_axis_gradient(
        &self,
        _: [usize; 3],
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<u32, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("max_axis_gradient")
    }

    #[allow(clippy::too_many_arguments)]
    fn scale_rows(
        &self,
        _: &DeviceBuffer<E, D>,
        _: bool,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("scale_rows")
    }

    #[allow(clippy::too_many_arguments)]
    fn select_rows(
        &self,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("select_rows")
    }

    #[allow(clippy::too_many_arguments)]
    fn softmax(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: SoftmaxMask<'_, Self>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("softmax")
    }

    #[allow(clippy::too_many_arguments)]
    fn softmax_gradient(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("softmax_gradient")
    }

    #[allow(clippy::too_many_arguments)]
    fn batched_gemm(
        &self,
        _: usize,
        _: Product,
        _: f64,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
        _: WeightGrad,
    ) -> Result<()> {
        missing("batched_gemm")
    }

    #[allow(clippy::too_many_arguments)]
    fn layer_norm(
        &self,
        _: usize,
        _: f64,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &mut DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("layer_norm")
    }

    #[allow(clippy::too_many_arguments)]
    fn layer_norm_gradient(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: WeightGrad,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("layer_norm_gradient")
    }

    #[allow(clippy::too_many_arguments)]
    fn column_moments(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &mut DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("column_moments")
    }

    #[allow(clippy::too_many_arguments)]
    fn batch_norm(
        &self,
        _: usize,
        _: f64,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("batch_norm")
    }

    #[allow(clippy::too_many_arguments)]
    fn batch_norm_gradient(
        &self,
        _: usize,
        _: f64,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<E, D>,
        _: Option<&DeviceBuffer<E, D>>,
        _: &DeviceBuffer<E, D>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: Option<&mut DeviceBuffer<E, D>>,
        _: WeightGrad,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("batch_norm_gradient")
    }

    #[allow(clippy::too_many_arguments)]
    fn mask_not_equal(&self, _: usize, _: &DeviceBuffer<E, D>, _: f64, _: &mut DeviceBuffer<E, D>) -> Result<()> {
        missing("mask_not_equal")
    }

    #[allow(clippy::too_many_arguments)]
    fn mask_order(&self, _: usize, _: bool, _: &DeviceBuffer<E, D>, _: MaskOrder<'_, Self>) -> Result<()> {
        missing("mask_order")
    }

    #[allow(clippy::too_many_arguments)]
    fn pick_rows(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: &DeviceBuffer<u32, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("pick_rows")
    }

    #[allow(clippy::too_many_arguments)]
    fn hold_gradient(
        &self,
        _: usize,
        _: usize,
        _: &DeviceBuffer<u32, D>,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<E, D>,
    ) -> Result<()> {
        missing("hold_gradient")
    }

    #[allow(clippy::too_many_arguments)]
    fn indices(
        &self,
        _: usize,
        _: &DeviceBuffer<E, D>,
        _: &mut DeviceBuffer<u32, D>,
        _: u32,
        _: &mut DeviceBuffer<f64, D>,
    ) -> Result<()> {
        missing("indices")
    }
}
