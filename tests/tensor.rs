//! One suite of the tensor operations for every backend and element type. A backend enters by one line at the end.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

mod common;
#[path = "suites/tensor.rs"]
mod operations;

macro_rules! suite {
    ($name:ident, $backend:expr) => {
        mod $name {
            suite!(@ $backend; scaling strided_copies strided_copies_that_do_not_fit rows_of_a_matrix sums_along_an_axis
                maxima_along_an_axis softmaxes batched_products layer_normalization batch_normalization masks_of_a_value
                orders_of_masks rows_outside numbers_as_indices wrong_lengths too_little_workspace);
        }
    };
    (@ $backend:expr; $($test:ident)*) => {
        $(#[test] fn $test() { crate::operations::$test($backend); })*
    };
}

suite!(cpu_f32, fused_rnn::backend::cpu::CpuBackend::<f32>::new());
suite!(cpu_f64, fused_rnn::backend::cpu::CpuBackend::<f64>::new());

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
