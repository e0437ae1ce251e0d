//! The operations of models on every device: each against plain formulas in `f64`, within the rounding errors that its arithmetic may
//! make; copies exactly. A device enters by one line at the end.

mod attention;
mod elements;
mod errors;
mod losses;
mod norms;
mod products;
mod rows;
mod training;

use crate::common::Rng;
use crate::common::tensors::{
    GRADS, Rows, SIZES, Status, Tensor, add_to, bits_seen, close, floor, largest, numbers, rounded, same, start, sum,
    sum_unit, unit, workspace,
};
use fused_rnn::backend::WeightGrad;
use fused_rnn::backend::cpu::CpuBackend;
#[cfg(feature = "cuda")]
use fused_rnn::backend::cuda::{
    CudaBackend,
    driver::{Driver, DriverStream},
};
use fused_rnn::backend::ops::{
    AdagradStep, AdamStep, IndexStatus, LossEntry, MaskOrder, MatMul, NO_ROW, Orientation, Report, RmsPropStep,
    STATUS_LEN, SgdStep, SoftmaxMask, Strides, Workspace,
};
use fused_rnn::backend::tensor;
use fused_rnn::cell::Activation;
use fused_rnn::loss::Loss;
use fused_rnn::rnn::Dropout;
use fused_rnn::{DType, Device, Error, Result};

/// Calls a macro with what it was given and every test of this folder.
macro_rules! with_all {
    ($macro:ident!($($given:tt)*)) => {
        $macro! {
            [$($given)*]
            attention::attentions attention::attentions_of_nan attention::attentions_that_do_not_fit
            elements::activations elements::elementwise elements::scaling elements::strided_copies
            elements::strided_copies_that_do_not_fit
            errors::too_little_workspace errors::wrong_lengths errors::wrong_tensors
            losses::losses losses::losses_of_nan losses::weighted_and_sparse_losses
            norms::batch_normalization norms::layer_normalization norms::softmaxes
            products::batched_products products::products products::products_with_a_bias products::sums_along_an_axis
            products::sums_of_columns
            rows::absent_rows rows::indices_outside_the_table rows::masks_of_a_value rows::maxima_along_an_axis
            rows::numbers_as_indices rows::orders_of_masks rows::rows_of_a_matrix rows::rows_outside rows::tables
            training::masks training::norms training::optimizers training::what_is_not_finite
        }
    };
}

macro_rules! list {
    ([] $($module:ident::$name:ident)*) => {
        /// Every test of this folder, by name.
        pub const ALL: &[(&str, fn(&Device))] = &[$((stringify!($name), $module::$name)),*];
    };
}
with_all!(list!());

macro_rules! tests {
    ([$suite:ident $device:expr] $($module:ident::$name:ident)*) => {
        mod $suite {
            $(
                #[test]
                fn $name() {
                    super::$module::$name(&$device);
                }
            )*
        }
    };
}

macro_rules! suite {
    ($suite:ident, $device:expr) => {
        with_all!(tests!($suite $device));
    };
}

suite!(cpu_f32, crate::common::cpu(fused_rnn::DType::F32));
suite!(cpu_f64, crate::common::cpu(fused_rnn::DType::F64));
suite!(reference_f32, crate::common::reference(fused_rnn::DType::F32));
suite!(reference_f64, crate::common::reference(fused_rnn::DType::F64));

// The kernels on the emulated GPU, in the natural order of threads, in random ones, and with one warp or block lagging.
#[cfg(feature = "emulated")]
suite!(emulated_f32, crate::common::tensors::emulated::<f32>(0, false));
#[cfg(feature = "emulated")]
suite!(emulated_f32_shuffled, crate::common::tensors::emulated::<f32>(11, false));
#[cfg(feature = "emulated")]
suite!(emulated_f64_starved, crate::common::tensors::emulated::<f64>(12, true));
#[cfg(feature = "emulated")]
suite!(emulated_f16, crate::common::tensors::emulated::<half::f16>(13, false));
#[cfg(feature = "emulated")]
suite!(emulated_bf16, crate::common::tensors::emulated::<half::bf16>(14, true));

/// On a GPU: `cargo test --test operator operations::cuda_ -- --ignored`.
#[cfg(feature = "cuda")]
macro_rules! gpu_tests {
    ([$suite:ident $element:ty] $($module:ident::$name:ident)*) => {
        mod $suite {
            $(
                #[test]
                #[ignore = "needs a GPU"]
                fn $name() {
                    super::$module::$name(&super::on_gpu::<$element>());
                }
            )*
        }
    };
}

#[cfg(feature = "cuda")]
fn on_gpu<E: fused_rnn::Element>() -> Device
where
    Device: From<CudaBackend<E, Driver>>,
{
    let driver = crate::common::gpu::gpu();
    let stream = DriverStream::new(&driver).expect("a stream");
    Device::from(CudaBackend::<E, _>::with_options(driver, stream, Default::default()))
}

#[cfg(feature = "cuda")]
with_all!(gpu_tests!(cuda_f32 f32));
#[cfg(feature = "cuda")]
with_all!(gpu_tests!(cuda_f64 f64));
#[cfg(feature = "cuda")]
with_all!(gpu_tests!(cuda_f16 half::f16));
#[cfg(feature = "cuda")]
with_all!(gpu_tests!(cuda_bf16 half::bf16));

/// The CPU promises the same bits for any number of threads.
#[test]
fn cpu_threads_do_not_change_bits() {
    for dtype in [DType::F32, DType::F64] {
        let on =
            |threads: usize| Device::from(CpuBackend::<f32>::with_threads(threads).unwrap()).with_dtype(dtype).unwrap();
        for (name, test) in ALL {
            let alone = bits_seen(|| test(&on(1)));
            for threads in [2, 3, 7] {
                assert!(alone == bits_seen(|| test(&on(threads))), "{name} in {dtype} on {threads} threads");
            }
        }
    }
}
