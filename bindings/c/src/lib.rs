//! The C interface of fused-rnn: recurrent operators with their backward passes, on the CPU and, with the feature `cuda`, on NVIDIA
//! GPUs. `include/fused_rnn.h` is made from this file by cbindgen; `docs/c.md` shows its use.
//!
//! Handles are made by functions that end in `new` and freed by those that end in `free`, in any order. No panic crosses the interface:
//! every call returns a [`Status`], and [`frnn_last_error`] says what was wrong. Pointers that are null, lengths that do not fit,
//! tensors that overlap and numbers that an option has not are refused. What cannot be seen here is the caller's: that memory is as long
//! as it is said to be, and that handles are live.
//!
//! | file | what |
//! |---|---|
//! | `descriptor` | the operator's description as a struct |
//! | `engine` | backends and plans without their element types, for Rust as well |
//! | `cpu`, `cuda` | the plans of each backend |
//! | `memory`, `weights` | from addresses to slices; weights in one buffer or tensor by tensor |
//! | `reserve` | what a training forward leaves, and its stage |
//! | `status` | statuses, messages, panics |

mod cpu;
#[cfg(feature = "cuda")]
mod cuda;
pub mod descriptor;
pub mod engine;
pub mod memory;
pub mod reserve;
pub mod status;
pub mod weights;

use std::ffi::{CString, c_char};

use fused_rnn::backend::{ForwardMode, WeightGrad};
use fused_rnn::rnn::{RnnShape, WeightLayout};

pub use descriptor::{ActivationOption, ActivationOptions, Descriptor, Dtype};
pub use engine::{Backend, Plan, Space};
pub use memory::{In, Out};
pub use reserve::{Reserve, Stage};
pub use status::{Failure, Result, Status};
pub use weights::{Gradients, Weights};

use descriptor::{Mode, Rounding};
use status::{guarded, last_error};

/// Sizes of a plan's tensors, in elements, and their shapes. Tensors that the cell has not have 0 elements.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    /// Bytes of this struct, as the caller was compiled with it.
    pub size: usize,
    /// Bytes of an element.
    pub element: usize,
    /// Elements of `x` and `dx`.
    pub x: usize,
    /// Elements of `y` and `dy`.
    pub y: usize,
    /// Elements of `h0`, `hn`, `dh0`, `dhn`.
    pub h: usize,
    /// Elements of `c0`, `cn`, `dc0`, `dcn`.
    pub c: usize,
    /// Elements of `lengths`, `uint32_t`.
    pub lengths: usize,
    /// Elements of `resets`, `uint8_t`: `[seq_len, batch]`.
    pub resets: usize,
    /// Elements of all weights.
    pub weights: usize,
    /// Tensors that the weights are.
    pub weight_tensors: usize,
    /// Elements of the workspace, at least.
    pub workspace: usize,
    /// Elements of the reserve, at least; 0 for inference.
    pub reserve: usize,
    /// `[seq_len, batch, input_size]`, or `[batch, seq_len, input_size]`.
    pub x_shape: [usize; 3],
    /// The same with the output's width times directions.
    pub y_shape: [usize; 3],
    /// `[layers * directions, batch, output width]`.
    pub h_shape: [usize; 3],
    /// `[layers * directions, batch, width of the states beside h]`.
    pub c_shape: [usize; 3],
}

/// One tensor of the weights.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct WeightInfo {
    /// Bytes of this struct, as the caller was compiled with it.
    pub size: usize,
    /// PyTorch's name, `weight_ih_l0`; it lives as long as the plan.
    pub name: *const c_char,
    /// Its first element in the buffer of all weights.
    pub offset: usize,
    /// Its elements.
    pub len: usize,
    /// Axes of its shape.
    pub axes: usize,
    /// Its shape, row-major; 1 beyond its axes.
    pub shape: [usize; 4],
}

/// Buffers of a forward call. Absent ones are null and 0. No two may overlap where one is written.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct ForwardArguments {
    /// Bytes of this struct, as the caller was compiled with it.
    pub size: usize,
    /// Seed of the dropout masks; unused in inference.
    pub dropout_seed: u64,
    /// CUDA: a `CUstream` or `cudaStream_t`, 0 for the default stream. On the CPU unused.
    pub stream: u64,
    /// All weights; absent where the plan has them.
    pub weights: Weights,
    /// Input.
    pub x: In,
    /// Initial output state; absent means zeros.
    pub h0: In,
    /// Initial states beside h; absent means zeros.
    pub c0: In,
    /// `uint32_t[batch]`, each 1 to `seq_len`; absent means `seq_len`.
    pub lengths: In,
    /// `uint8_t[seq_len * batch]`, non-zero where the state is set back to the initial one before the step; absent means nowhere.
    pub resets: In,
    /// Output, every element written.
    pub y: Out,
    /// Final output state; absent if not wanted.
    pub hn: Out,
    /// Final states beside h; absent if not wanted.
    pub cn: Out,
    /// Scratch.
    pub workspace: Out,
}

/// Buffers of the backward calls. What forward was given stands unchanged.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct BackwardArguments {
    /// Bytes of this struct, as the caller was compiled with it.
    pub size: usize,
    /// CUDA: the stream, as in forward.
    pub stream: u64,
    /// All weights; only for gradients of the data.
    pub weights: Weights,
    /// Input of forward.
    pub x: In,
    /// Output of forward.
    pub y: In,
    /// As given to forward.
    pub h0: In,
    /// As given to forward.
    pub c0: In,
    /// As given to forward.
    pub lengths: In,
    /// As given to forward.
    pub resets: In,
    /// Gradient of `y`; absent means zeros. Only for gradients of the data, as are the next five.
    pub dy: In,
    /// Gradient of `hn`; absent means zeros.
    pub dhn: In,
    /// Gradient of `cn`; absent means zeros.
    pub dcn: In,
    /// Gradient of `x`, set; absent if not wanted.
    pub dx: Out,
    /// Gradient of `h0`, set; absent if not wanted.
    pub dh0: Out,
    /// Gradient of `c0`, set; absent if not wanted.
    pub dc0: Out,
    /// Gradients of the weights; only for those.
    pub dweights: Gradients,
    /// Scratch.
    pub workspace: Out,
}

/// A plan, and the names of its weights.
pub struct PlanHandle {
    plan: Plan,
    names: Vec<CString>,
}

impl PlanHandle {
    fn of(plan: Plan) -> Box<Self> {
        let name = |entry: &fused_rnn::rnn::WeightEntry| CString::new(entry.name.as_str()).unwrap_or_default();
        let names = plan.weights().entries().iter().map(name).collect();
        Box::new(PlanHandle { plan, names })
    }
}

/// Something that a pointer shows to.
///
/// # Safety
///
/// The pointer must be null or show to a live value.
unsafe fn seen<'a, T>(name: &str, pointer: *const T) -> Result<&'a T> {
    // SAFETY: the caller's promise.
    unsafe { pointer.as_ref() }.ok_or_else(|| Failure::null(name))
}

/// A place for a result.
///
/// # Safety
///
/// The pointer must be null or show to memory for a value.
unsafe fn give<T>(name: &str, place: *mut T, value: T) -> Result<()> {
    if place.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the caller's promise.
    unsafe { place.write(value) };
    Ok(())
}

/// A struct of the interface, of which a caller's older version may be shorter; what it has not yet is zero.
///
/// # Safety
///
/// The pointer must be null or show to as many bytes as its first field says. Any bits must be a valid `T`.
unsafe fn versioned<T: Copy>(name: &str, pointer: *const T) -> Result<T> {
    if pointer.is_null() {
        return Err(Failure::null(name));
    }
    // SAFETY: the size comes first in every such struct.
    let size = unsafe { pointer.cast::<usize>().read() };
    // The first version of the interface is this one.
    if size < size_of::<T>() {
        let problem = format!(
            "{name}.size: expected the bytes of the struct, {} (sizeof), got {size}; set it, or let a default function set it",
            size_of::<T>()
        );
        return Err(Failure::new(Status::StructSize, problem));
    }
    // SAFETY: as many bytes at least, by the caller's promise.
    Ok(unsafe { pointer.read() })
}

/// Writes a struct whose first field says how many bytes the caller has for it.
///
/// # Safety
///
/// As for [`versioned`], for writing.
unsafe fn give_versioned<T: Copy>(name: &str, place: *mut T, value: T) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { versioned(name, place.cast_const()) }?;
    // SAFETY: the size has been checked.
    unsafe { place.write(value) };
    Ok(())
}

/// Version of the library, such as `0.1.0`. It lives for ever.
#[unsafe(no_mangle)]
pub extern "C" fn frnn_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// What was wrong with this thread's last call that failed, and what to do: a text that lives until its next failure. Empty where none has
/// failed.
#[unsafe(no_mangle)]
pub extern "C" fn frnn_last_error() -> *const c_char {
    last_error()
}

/// Fills a descriptor with one forward layer of `cell` (one of `frnn_cell`) with PyTorch's defaults. `size` is `sizeof(frnn_descriptor)`.
///
/// # Safety
///
/// `descriptor` must be null or show to `size` bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_descriptor_default(
    descriptor: *mut Descriptor,
    size: usize,
    cell: u32,
    input_size: usize,
    hidden_size: usize,
) -> Status {
    guarded(|| {
        if size < size_of::<Descriptor>() {
            let problem = format!("size: expected sizeof(frnn_descriptor) {}, got {size}", size_of::<Descriptor>());
            return Err(Failure::new(Status::StructSize, problem));
        }
        descriptor::Cell::of(cell)?;
        // SAFETY: the caller's promise.
        unsafe { give("descriptor", descriptor, Descriptor::new(cell, input_size, hidden_size)) }
    })
}

/// Checks a descriptor, and says how many elements its weights have and how many tensors they are. Either place may be null.
///
/// # Safety
///
/// `descriptor` must be null or show to as many bytes as its `size` says; the places null or to memory for their values.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_descriptor_weights(
    descriptor: *const Descriptor,
    elements: *mut usize,
    tensors: *mut usize,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let operator = unsafe { versioned("descriptor", descriptor) }?.operator()?;
        let layout = WeightLayout::new(&operator)?;
        for (place, value) in [(elements, layout.len()), (tensors, layout.entries().len())] {
            if !place.is_null() {
                // SAFETY: the caller's promise.
                unsafe { place.write(value) };
            }
        }
        Ok(())
    })
}

/// The CPU, with at most so many threads, 0 for as many as the machine runs at once. One backend may serve a whole process; its
/// threads start with the first problem that is worth them.
///
/// # Safety
///
/// `backend` must be null or show to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_backend_cpu(threads: usize, backend: *mut *mut Backend) -> Status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { give_handle("backend", backend, || Ok(Box::new(Backend::cpu(threads)?))) })
}

/// GPU number `ordinal`, in builds with CUDA. `compute` is one of `frnn_rounding`.
///
/// # Safety
///
/// `backend` must be null or show to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_backend_cuda(ordinal: usize, compute: u32, backend: *mut *mut Backend) -> Status {
    guarded(|| {
        let compute = Rounding::of(compute)?;
        // SAFETY: the caller's promise.
        unsafe { give_handle("backend", backend, || Ok(Box::new(Backend::cuda(ordinal, compute)?))) }
    })
}

/// Frees a backend; plans made with it remain usable. Null is ignored.
///
/// # Safety
///
/// `backend` must be null or a live handle, which is one no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_backend_free(backend: *mut Backend) {
    // SAFETY: the caller's promise.
    unsafe { free(backend) }
}

/// A plan for an operator of `dtype` (one of `frnn_dtype`), a shape and a `mode` (one of `frnn_mode`). It takes 15 to 30 microseconds on the
/// CPU, so keep it. A GPU loads kernels in the order of `stream`. Plans may be used by several threads at a time.
///
/// # Safety
///
/// `backend` must be null or a live handle; `descriptor` null or show to as many bytes as its `size` says; `plan` null or to memory for
/// a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_new(
    backend: *const Backend,
    descriptor: *const Descriptor,
    dtype: u32,
    seq_len: usize,
    batch: usize,
    mode: u32,
    stream: u64,
    plan: *mut *mut PlanHandle,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (backend, descriptor) = unsafe { (seen("backend", backend)?, versioned("descriptor", descriptor)?) };
        let mode = match Mode::of(mode)? {
            Mode::Inference => ForwardMode::Inference,
            Mode::Training => ForwardMode::Training,
        };
        let (dtype, shape) = (Dtype::of(dtype)?, RnnShape { seq_len, batch });
        let operator = descriptor.operator()?;
        let new = || Ok(PlanHandle::of(Plan::new(backend, &operator, dtype, shape, mode, stream)?));
        // SAFETY: the caller's promise.
        unsafe { give_handle("plan", plan, new) }
    })
}

/// A plan for inference with its weights, which are copied and packed once: for calls of few steps, whose `weights` are absent then. A new
/// one is needed after the weights have changed. CPU only.
///
/// # Safety
///
/// `plan` must be null or a live handle; the weights' memory as long as it is said to be; `with_weights` null or show to memory for a
/// pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_with_weights(
    plan: *const PlanHandle,
    weights: *const Weights,
    with_weights: *mut *mut PlanHandle,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (plan, weights) = unsafe { (seen("plan", plan)?, seen("weights", weights)?) };
        // SAFETY: the caller's promise.
        let new = || Ok(PlanHandle::of(unsafe { plan.plan.with_weights(*weights, 0) }?));
        // SAFETY: the caller's promise.
        unsafe { give_handle("with_weights", with_weights, new) }
    })
}

/// Frees a plan. Null is ignored.
///
/// # Safety
///
/// `plan` must be null or a live handle, which is one no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_free(plan: *mut PlanHandle) {
    // SAFETY: the caller's promise.
    unsafe { free(plan) }
}

/// Sizes and shapes of a plan's tensors. Set `sizes->size` before.
///
/// # Safety
///
/// `plan` must be null or a live handle; `sizes` null or show to as many bytes as its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_sizes(plan: *const PlanHandle, sizes: *mut Sizes) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let PlanHandle { plan, .. } = unsafe { seen("plan", plan) }?;
        let (tensors, space, count) = (plan.tensors(), plan.space(), |shape: &[usize]| shape.iter().product());
        let value = Sizes {
            size: size_of::<Sizes>(),
            element: plan.element(),
            x: count(&tensors.x),
            y: count(&tensors.y),
            h: count(&tensors.h),
            c: count(&tensors.c),
            lengths: plan.shape().batch,
            resets: count(&tensors.resets),
            weights: plan.weights().len(),
            weight_tensors: plan.weights().entries().len(),
            workspace: space.workspace,
            reserve: space.reserve,
            x_shape: tensors.x,
            y_shape: tensors.y,
            h_shape: tensors.h,
            c_shape: tensors.c,
        };
        // SAFETY: the caller's promise.
        unsafe { give_versioned("sizes", sizes, value) }
    })
}

/// Name, place and shape of tensor number `index` of the weights. Set `info->size` before.
///
/// # Safety
///
/// `plan` must be null or a live handle; `info` null or show to as many bytes as its `size` says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_weight(plan: *const PlanHandle, index: usize, info: *mut WeightInfo) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let handle = unsafe { seen("plan", plan) }?;
        let entries = handle.plan.weights().entries();
        let Some((entry, name)) = entries.get(index).zip(handle.names.get(index)) else {
            let problem =
                format!("index: expected less than the {} tensors of the weights, got {index}", entries.len());
            return Err(Failure::new(Status::InvalidOption, problem));
        };
        let mut shape = [1; 4];
        shape.iter_mut().zip(&entry.shape).for_each(|(size, of)| *size = *of);
        let value = WeightInfo {
            size: size_of::<WeightInfo>(),
            name: name.as_ptr(),
            offset: entry.range.start,
            len: entry.range.len(),
            axes: entry.shape.len(),
            shape,
        };
        // SAFETY: the caller's promise.
        unsafe { give_versioned("info", info, value) }
    })
}

/// A reserve for the training passes of a plan: `storage` of at least `frnn_sizes.reserve` elements, which must outlive it, or null and 0
/// for memory of its own (CPU). It carries its stage: forward fills it, `frnn_backward_data` uses it up, and `frnn_backward_weights` needs
/// it so. For a second backward over the same forward, run forward into it again.
///
/// # Safety
///
/// `plan` must be null or a live handle; `storage` as long as it is said to be; `reserve` null or show to memory for a pointer.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_reserve_new(plan: *const PlanHandle, storage: Out, reserve: *mut *mut Reserve) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let PlanHandle { plan, .. } = unsafe { seen("plan", plan) }?;
        let new = || {
            let value = match storage.is_absent() {
                true => plan.reserve()?,
                // SAFETY: the caller's promise.
                false => unsafe { Reserve::of(storage) },
            };
            Ok(Box::new(value))
        };
        // SAFETY: the caller's promise.
        unsafe { give_handle("reserve", reserve, new) }
    })
}

/// Frees a reserve, but not memory that the caller gave it. Null is ignored.
///
/// # Safety
///
/// `reserve` must be null or a live handle, which is one no more.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_reserve_free(reserve: *mut Reserve) {
    // SAFETY: the caller's promise.
    unsafe { free(reserve) }
}

/// Inference: `y`, `hn`, `cn` from `x`, without dropout.
///
/// # Safety
///
/// `plan` must be null or a live handle; `arguments` null or show to as many bytes as its `size` says; every tensor must be as long as it is
/// said to be, and nothing else may use what is written, until the call is done: on the CPU when it returns, on a GPU when the stream
/// has come to it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_forward(plan: *const PlanHandle, arguments: *const ForwardArguments) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (handle, call) = unsafe { (seen("plan", plan)?, versioned("arguments", arguments)?.call()) };
        // SAFETY: the caller's promise.
        unsafe { handle.plan.forward(&call) }
    })
}

/// Training forward: the same with dropout, and fills the reserve, whatever was in it.
///
/// # Safety
///
/// As for `frnn_forward`; `reserve` must be null or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_forward_training(
    plan: *const PlanHandle,
    arguments: *const ForwardArguments,
    reserve: *const Reserve,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (handle, call) = unsafe { (seen("plan", plan)?, versioned("arguments", arguments)?.call()) };
        // SAFETY: the caller's promise.
        unsafe { handle.plan.forward_training(&call, seen("reserve", reserve)?) }
    })
}

/// Gradients of `x`, `h0`, `c0` from those of `y`, `hn`, `cn`. Uses the reserve up: a second time over the same forward it is
/// `FRNN_STATUS_RESERVE_STAGE`.
///
/// # Safety
///
/// As for `frnn_forward_training`; inputs and weights are those of the forward call, unchanged.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_backward_data(
    plan: *const PlanHandle,
    arguments: *const BackwardArguments,
    reserve: *const Reserve,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (handle, arguments) = unsafe { (seen("plan", plan)?, versioned("arguments", arguments)?) };
        // SAFETY: the caller's promise.
        unsafe { handle.plan.backward_data(&arguments.call(), seen("reserve", reserve)?) }
    })
}

/// Gradients of the weights, after `frnn_backward_data`.
///
/// # Safety
///
/// As for `frnn_backward_data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_backward_weights(
    plan: *const PlanHandle,
    arguments: *const BackwardArguments,
    reserve: *const Reserve,
) -> Status {
    guarded(|| {
        // SAFETY: the caller's promise.
        let (handle, arguments) = unsafe { (seen("plan", plan)?, versioned("arguments", arguments)?) };
        let grad = match arguments.dweights.accumulate {
            0 => WeightGrad::Set,
            1 => WeightGrad::Add,
            other => {
                let problem = format!("option dweights.accumulate: expected 0 or 1, got {other}");
                return Err(Failure::new(Status::InvalidOption, problem));
            }
        };
        // SAFETY: the caller's promise.
        unsafe { handle.plan.backward_weights(&arguments.call(), seen("reserve", reserve)?, grad) }
    })
}

/// Waits for the calls given to `stream` under this plan, and says whether their kernels have ended as they should. On the CPU there is
/// nothing to wait for.
///
/// # Safety
///
/// `plan` must be null or a live handle.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn frnn_plan_check(plan: *const PlanHandle, stream: u64) -> Status {
    // SAFETY: the caller's promise.
    guarded(|| unsafe { seen("plan", plan) }?.plan.check(stream))
}

/// Makes a handle where there is a place for it, which is null on failure.
unsafe fn give_handle<T>(name: &str, place: *mut *mut T, new: impl FnOnce() -> Result<Box<T>>) -> Result<()> {
    // SAFETY: the caller's promise.
    unsafe { give(name, place, std::ptr::null_mut()) }?;
    // SAFETY: not null, as was checked.
    unsafe { place.write(Box::into_raw(new()?)) };
    Ok(())
}

/// Frees what [`give_handle`] made.
unsafe fn free<T>(handle: *mut T) {
    let freed = || {
        if !handle.is_null() {
            // SAFETY: made by `Box::into_raw`, freed once, by the caller's promise.
            drop(unsafe { Box::from_raw(handle) });
        }
        Ok(())
    };
    guarded(freed);
}

impl ForwardArguments {
    fn call(self) -> engine::Forward {
        let ForwardArguments {
            size: _,
            dropout_seed,
            stream,
            weights,
            x,
            h0,
            c0,
            lengths,
            resets,
            y,
            hn,
            cn,
            workspace,
        } = self;
        engine::Forward { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed, stream }
    }
}

impl BackwardArguments {
    fn call(self) -> engine::Backward {
        engine::Backward {
            weights: self.weights,
            x: self.x,
            y: self.y,
            h0: self.h0,
            c0: self.c0,
            lengths: self.lengths,
            resets: self.resets,
            dy: self.dy,
            dhn: self.dhn,
            dcn: self.dcn,
            dx: self.dx,
            dh0: self.dh0,
            dc0: self.dc0,
            dweights: self.dweights,
            workspace: self.workspace,
            stream: self.stream,
        }
    }
}

const _: () = {
    // A handle may be used by several threads.
    const fn shared<T: Send + Sync>() {}
    shared::<Backend>();
    shared::<PlanHandle>();
    shared::<Reserve>();
};
