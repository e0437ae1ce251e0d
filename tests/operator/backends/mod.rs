//! One suite for every backend and element type: each agrees with the oracle in `f64` within derived tolerances (see
//! [`truth`](crate::common::truth)), and keeps the contracts of [`fused_rnn::backend::RecurrentBackend`].
//!
//! A backend enters by one line at the end. Failures are simplified and print the seed that repeats them.
//!
//! | file | what |
//! |---|---|
//! | `mod` | the suites: which backend keeps which properties |
//! | `agreement` | the oracle's results: random problems, large sizes, every activation, saturation, inference |
//! | `buffers` | contents that do not matter, results and inputs that may be absent |
//! | `weights` | gradients of weights: set, added, computed again |
//! | `repeatability` | the same bits every time, and for any number of threads |
//! | `sequences` | time and batch: state carried over, resets, padding, NaN |
//! | `directions` | directions and layouts |
//! | `dropout` | masks of dropout |
//! | `memory` | what training keeps: checkpoints over time |
//! | `parts`, `passes` | what they are made of: parts of problems, whole passes |

mod agreement;
mod buffers;
mod directions;
mod dropout;
mod memory;
mod parts;
mod passes;
mod repeatability;
mod sequences;
mod weights;

pub use agreement::agrees_with_gates_near_one;
use agreement::{
    agrees, agrees_at_large_sizes, agrees_with_every_activation, agrees_with_one_input,
    inference_is_training_without_dropout, infinite_cell_states_make_no_nan, saturates_without_nan,
};
use buffers::{absent_inputs_are_their_defaults, contents_of_buffers_do_not_matter, optional_results_may_be_absent};
use directions::{counts_steps, directions_are_what_they_say, layouts_hold_the_same_values};
use dropout::dropout_masks_are_philox;
use memory::{checkpoints_change_no_result, memory_is_kept_within};
use repeatability::gives_the_same_bits_every_time;
use sequences::{
    a_reset_is_a_new_call, nan_stays_where_it_belongs, padding_does_not_matter, sequences_are_independent,
    state_is_carried_from_call_to_call,
};
use weights::{
    weight_gradients_are_not_zero, weight_gradients_are_set_or_added, weight_gradients_can_be_computed_again,
};

/// Calls a macro that declares a suite with all properties.
macro_rules! all_properties {
    ($suite:ident, $($of:tt)*) => {
        $suite!($($of)*, [
            agrees,
            agrees_at_large_sizes,
            agrees_with_one_input,
            agrees_with_gates_near_one,
            agrees_with_every_activation,
            saturates_without_nan,
            infinite_cell_states_make_no_nan,
            inference_is_training_without_dropout,
            contents_of_buffers_do_not_matter,
            optional_results_may_be_absent,
            absent_inputs_are_their_defaults,
            weight_gradients_are_set_or_added,
            weight_gradients_can_be_computed_again,
            weight_gradients_are_not_zero,
            gives_the_same_bits_every_time,
            state_is_carried_from_call_to_call,
            a_reset_is_a_new_call,
            sequences_are_independent,
            padding_does_not_matter,
            nan_stays_where_it_belongs,
            counts_steps,
            directions_are_what_they_say,
            layouts_hold_the_same_values,
            dropout_masks_are_philox,
            checkpoints_change_no_result,
            memory_is_kept_within,
        ]);
    };
}

/// The same with those of 16 bits. Tests of 16 bits leave out what needs more: kinks, large inputs, and results put together from several
/// passes. They are there, ignored, with the reason.
#[cfg(feature = "cuda")]
macro_rules! properties_of_16_bits {
    ($suite:ident, $($of:tt)*) => {
        $suite!($($of)*, [
            agrees,
            agrees_at_large_sizes,
            agrees_with_one_input,
            agrees_with_gates_near_one,
            inference_is_training_without_dropout,
            contents_of_buffers_do_not_matter,
            optional_results_may_be_absent,
            absent_inputs_are_their_defaults,
            weight_gradients_are_set_or_added,
            weight_gradients_are_not_zero,
            gives_the_same_bits_every_time,
            sequences_are_independent,
            padding_does_not_matter,
            nan_stays_where_it_belongs,
            counts_steps,
            layouts_hold_the_same_values,
            dropout_masks_are_philox,
            checkpoints_change_no_result,
            memory_is_kept_within,
            #[ignore = "16 bits: roundings put numbers on both sides of a kink"]
            agrees_with_every_activation,
            #[ignore = "16 bits: they do not hold the large inputs"]
            saturates_without_nan,
            #[ignore = "16 bits: they do not hold the large inputs"]
            infinite_cell_states_make_no_nan,
            #[ignore = "16 bits: gradients put together from two passes are rounded twice"]
            weight_gradients_can_be_computed_again,
            #[ignore = "16 bits: gradients put together from two passes are rounded twice"]
            state_is_carried_from_call_to_call,
            #[ignore = "16 bits: gradients put together from two passes are rounded twice"]
            a_reset_is_a_new_call,
            #[ignore = "16 bits: gradients put together from two passes are rounded twice"]
            directions_are_what_they_say,
        ]);
    };
}

macro_rules! suite {
    ($module:ident, $element:ty, $backend:expr, [$($(#[$attribute:meta])? $property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                $(#[$attribute])?
                fn $property() {
                    super::$property::<$element, _>(&$backend);
                }
            )*
        }
    };
    ($module:ident, $element:ty, $backend:expr) => {
        all_properties!(suite, $module, $element, $backend);
    };
}

suite!(reference_f32, f32, fused_rnn::backend::reference::ReferenceBackend::<f32>::new());
suite!(reference_f64, f64, fused_rnn::backend::reference::ReferenceBackend::<f64>::new());
suite!(cpu_f32, f32, fused_rnn::backend::cpu::CpuBackend::<f32>::new());
suite!(cpu_f64, f64, fused_rnn::backend::cpu::CpuBackend::<f64>::new());

/// The CUDA kernels, run on the host: in which family, in which order of threads.
#[cfg(feature = "emulated")]
mod emulated {
    use crate::common::Number;
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};

    pub fn with<E: Number>(family: FamilyChoice, schedule: Schedule) -> Staged<E, Emulated> {
        let device = Emulated::new(schedule).expect("valid");
        let options = CudaOptions { family, ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(device.into(), EmulatedStream, options))
    }

    /// As plans choose, in the natural order of threads.
    pub fn usual<E: Number>() -> Staged<E, Emulated> {
        with(FamilyChoice::Fastest, Schedule::default())
    }

    pub fn preferring<E: Number>(family: Family) -> Staged<E, Emulated> {
        with(FamilyChoice::Prefer(family), Schedule::default())
    }

    /// Large products by what stands for cuBLASLt.
    #[cfg(feature = "cublaslt")]
    pub fn with_cublaslt<E: Number>() -> Staged<E, Emulated> {
        use fused_rnn::backend::cuda::Matmul;

        let device = Emulated::new(Schedule::default()).expect("valid");
        let options = CudaOptions { matmul: Matmul::CublasLt, ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(device.into(), EmulatedStream, options))
    }

    /// The grid family on a GPU that holds so few blocks that groups have many sequences, and tiles 16.
    pub fn on_few_blocks<E: Number>(seed: u64) -> Staged<E, Emulated> {
        let device = Emulated::new(Schedule { seed, starve: seed > 0 }).expect("valid").with_resident_limit(8);
        let options = CudaOptions { family: FamilyChoice::Prefer(Family::Grid), ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(device.into(), EmulatedStream, options))
    }

    /// In random orders of threads, one warp or block lagging.
    pub fn shuffled<E: Number>(family: Family, seed: u64) -> Staged<E, Emulated> {
        with(FamilyChoice::Prefer(family), Schedule { seed, starve: true })
    }
}

#[cfg(feature = "emulated")]
suite!(emulated_f32, f32, super::emulated::usual());
#[cfg(all(feature = "emulated", feature = "cublaslt"))]
suite!(emulated_cublaslt_f32, f32, super::emulated::with_cublaslt(), [agrees]);
#[cfg(all(feature = "emulated", feature = "cublaslt"))]
suite!(emulated_cublaslt_bf16, half::bf16, super::emulated::with_cublaslt(), [agrees]);
#[cfg(feature = "emulated")]
suite!(emulated_f64, f64, super::emulated::usual());
#[cfg(feature = "emulated")]
suite!(
    emulated_grid_f32,
    f32,
    super::emulated::preferring(fused_rnn::backend::cuda::Family::Grid),
    [
        agrees,
        agrees_at_large_sizes,
        agrees_with_one_input,
        inference_is_training_without_dropout,
        contents_of_buffers_do_not_matter,
        gives_the_same_bits_every_time,
        padding_does_not_matter,
        nan_stays_where_it_belongs,
    ]
);
#[cfg(feature = "emulated")]
properties_of_16_bits!(suite, emulated_bf16, half::bf16, super::emulated::usual());
#[cfg(feature = "emulated")]
properties_of_16_bits!(suite, emulated_f16, half::f16, super::emulated::usual());
#[cfg(feature = "emulated")]
properties_of_16_bits!(
    suite,
    emulated_cluster_bf16,
    half::bf16,
    super::emulated::preferring(fused_rnn::backend::cuda::Family::Cluster)
);
#[cfg(feature = "emulated")]
properties_of_16_bits!(
    suite,
    emulated_grid_bf16,
    half::bf16,
    super::emulated::preferring(fused_rnn::backend::cuda::Family::Grid)
);
#[cfg(feature = "emulated")]
properties_of_16_bits!(suite, emulated_few_blocks_bf16, half::bf16, super::emulated::on_few_blocks(0));
#[cfg(feature = "emulated")]
suite!(
    shuffled_few_blocks_f16,
    half::f16,
    super::emulated::on_few_blocks(6),
    [agrees, agrees_at_large_sizes, padding_does_not_matter, gives_the_same_bits_every_time]
);
#[cfg(feature = "emulated")]
suite!(shuffled_step_f32, f32, super::emulated::shuffled(fused_rnn::backend::cuda::Family::Step, 1), [agrees]);
#[cfg(feature = "emulated")]
suite!(
    shuffled_block_f32,
    f32,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Block, 2),
    [agrees, agrees_at_large_sizes, agrees_with_one_input]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_grid_f32,
    f32,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Grid, 3),
    [agrees, agrees_at_large_sizes]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_cluster_f16,
    half::f16,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Cluster, 4),
    [agrees, agrees_at_large_sizes]
);
#[cfg(feature = "emulated")]
suite!(
    shuffled_grid_f16,
    half::f16,
    super::emulated::shuffled(fused_rnn::backend::cuda::Family::Grid, 5),
    [agrees, agrees_at_large_sizes]
);

/// Products on tensor cores round the operands of f32 to ten bits of mantissa, as many as f16 has: it is judged as that.
#[cfg(feature = "emulated")]
#[test]
fn emulated_tf32_agrees() {
    use crate::common::for_random_problems;
    use crate::common::truth::settled;
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions, Family, FamilyChoice, Staged};
    use passes::default_training;
    use std::sync::atomic::{AtomicU32, Ordering};
    let (exact, rounded) = (emulated::usual::<f32>(), AtomicU32::new(0));
    for family in [Family::Step, Family::Grid] {
        let device = Emulated::new(Schedule::default()).expect("valid").into();
        let options =
            CudaOptions { compute: Compute::Tf32, family: FamilyChoice::Prefer(family), ..CudaOptions::default() };
        let backend = Staged::new(CudaBackend::<f32, _>::with_options(device, EmulatedStream, options));
        for_random_problems::<half::f16>(
            80,
            |_| {},
            |problem| {
                let (problem, truth) = &*settled(&problem.recipe);
                let results = default_training::<f32, _>(&backend, problem)?;
                let judged = results.iter().map(|(name, values)| {
                    (name.clone(), values.iter().map(|v| half::f16::from_f32(*v)).collect::<Vec<_>>())
                });
                truth.judge_all(&judged.collect())?;
                let differs = default_training::<f32, _>(&exact, problem)? != results;
                rounded.fetch_add(u32::from(differs), Ordering::Relaxed);
                Ok(())
            },
        );
    }
    let rounded = rounded.into_inner();
    assert!(rounded > 100, "only {rounded} of 160 problems show that operands are rounded");
}

/// The kernels' PTX, interpreted: one family of kernels under a random order of warps, with asynchronous stores late and relaxed loads stale. Every
/// property, on fewer and smaller problems than elsewhere: an interpreted instruction takes some thousand times as long as a compiled one.
#[cfg(feature = "ptx")]
mod on_ptx {
    use crate::common::effort::{Effort, with_effort};
    use crate::common::{Number, ptx};
    use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};

    pub fn check<E: Number>(seed: u64, family: Family, property: impl FnOnce(&Staged<E, Ptx>)) {
        let Some(device) = ptx::ptx(seed) else { return };
        let options = CudaOptions { family: FamilyChoice::Prefer(family), ..CudaOptions::default() };
        let backend = Staged::new(CudaBackend::with_options(device, PtxStream, options));
        with_effort(Effort::Small, || property(&backend));
    }
}

#[cfg(feature = "ptx")]
macro_rules! ptx_suite {
    ($module:ident, $element:ty, $family:ident, $seed:literal, [$($(#[$attribute:meta])? $property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                $(#[$attribute])?
                fn $property() {
                    let family = fused_rnn::backend::cuda::Family::$family;
                    super::on_ptx::check($seed, family, super::$property::<$element, _>);
                }
            )*
        }
    };
}
#[cfg(feature = "ptx")]
all_properties!(ptx_suite, ptx_step_f32, f32, Step, 1);
#[cfg(feature = "ptx")]
all_properties!(ptx_suite, ptx_step_f64, f64, Step, 2);
#[cfg(feature = "ptx")]
properties_of_16_bits!(ptx_suite, ptx_step_f16, half::f16, Step, 3);
#[cfg(feature = "ptx")]
all_properties!(ptx_suite, ptx_block_f32, f32, Block, 4);
#[cfg(feature = "ptx")]
properties_of_16_bits!(ptx_suite, ptx_block_bf16, half::bf16, Block, 5);
#[cfg(feature = "ptx")]
properties_of_16_bits!(ptx_suite, ptx_cluster_f16, half::f16, Cluster, 6);
#[cfg(feature = "ptx")]
all_properties!(ptx_suite, ptx_grid_f32, f32, Grid, 7);
#[cfg(feature = "ptx")]
properties_of_16_bits!(ptx_suite, ptx_grid_bf16, half::bf16, Grid, 8);

/// The CUDA backend on a GPU: `cargo test --test operator backends::cuda_ -- --ignored`.
#[cfg(feature = "cuda")]
mod on_gpu {
    use crate::common::Number;
    use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
    use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, Family, FamilyChoice, Staged};

    pub fn backend<E: Number>(family: Option<Family>) -> Staged<E, Driver> {
        let driver = crate::common::gpu::gpu();
        let stream = DriverStream::new(&driver).expect("a stream");
        let family = family.map_or(FamilyChoice::Fastest, FamilyChoice::Prefer);
        let options = CudaOptions { family, ..CudaOptions::default() };
        Staged::new(CudaBackend::with_options(driver, stream, options))
    }
}

#[cfg(feature = "cuda")]
macro_rules! gpu_suite {
    ($module:ident, $element:ty, $family:expr, [$($property:ident),* $(,)?]) => {
        mod $module {
            $(
                #[test]
                #[ignore = "needs a GPU"]
                fn $property() {
                    super::$property::<$element, _>(&super::on_gpu::backend($family));
                }
            )*
        }
    };
    ($module:ident, $element:ty, $family:expr) => {
        gpu_suite!($module, $element, $family, [
            agrees,
            agrees_at_large_sizes,
            agrees_with_one_input,
            agrees_with_gates_near_one,
            inference_is_training_without_dropout,
            contents_of_buffers_do_not_matter,
            weight_gradients_are_set_or_added,
            gives_the_same_bits_every_time,
            sequences_are_independent,
            padding_does_not_matter,
            nan_stays_where_it_belongs,
            counts_steps,
            dropout_masks_are_philox,
        ]);
    };
}
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f32, f32, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f64, f64, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_bf16, half::bf16, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_f16, half::f16, None);
#[cfg(feature = "cuda")]
gpu_suite!(cuda_step_f32, f32, Some(fused_rnn::backend::cuda::Family::Step));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_grid_f32, f32, Some(fused_rnn::backend::cuda::Family::Grid));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_cluster_bf16, half::bf16, Some(fused_rnn::backend::cuda::Family::Cluster));
#[cfg(feature = "cuda")]
gpu_suite!(cuda_grid_bf16, half::bf16, Some(fused_rnn::backend::cuda::Family::Grid));
