//! Plans of the CUDA backend: tensors by addresses in a GPU's memory, calls on the caller's stream.

use std::sync::Arc;

use fused_rnn::Element;
use fused_rnn::backend::cuda::device::{Device, DevicePtr};
use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions, CudaPlan, Raw, RawTensor};
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, WeightGrad,
};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};

use crate::descriptor::{Dtype, Rounding};
use crate::engine::{Backward, Engine, Forward, Space};
use crate::memory::{In, Out, Spans};
use crate::reserve::State;
use crate::status::{Failure, Result, Status};
use crate::weights::{Given, Weights};

/// A GPU, and how a stream's number becomes a stream of it.
pub(crate) struct Gpu<D: Device> {
    device: Arc<D>,
    options: CudaOptions,
    stream: fn(u64) -> D::Stream,
}

/// GPU number `ordinal`.
pub(crate) fn open(ordinal: usize, compute: Rounding) -> Result<Gpu<Driver>> {
    let compute = match compute {
        Rounding::Exact => Compute::Exact,
        Rounding::Tf32 => Compute::Tf32,
        Rounding::Bf16 => Compute::Bf16,
        Rounding::F16 => Compute::F16,
    };
    let options = CudaOptions { compute, ..CudaOptions::default() };
    // SAFETY: the stream of a call belongs to the device and lives until the call is done, by the promise of every call.
    let stream = |stream| unsafe { DriverStream::from_raw(stream) };
    Ok(Gpu { device: Driver::open(ordinal)?, options, stream })
}

/// The host's emulation of one.
#[cfg(feature = "emulated")]
pub(crate) fn emulated() -> Result<Gpu<fused_rnn::backend::cuda::emulated::Emulated>> {
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
    let device = Arc::new(Emulated::new(Schedule::default())?);
    Ok(Gpu { device, options: CudaOptions::default(), stream: |_| EmulatedStream })
}

impl<D: Device> Gpu<D> {
    #[cfg(feature = "emulated")]
    pub(crate) fn device(&self) -> Arc<D> {
        self.device.clone()
    }

    pub(crate) fn engine(
        &self,
        operator: &RnnDescriptor,
        dtype: Dtype,
        shape: RnnShape,
        mode: ForwardMode,
        stream: u64,
    ) -> Result<Box<dyn Engine>> {
        match dtype {
            Dtype::F32 => self.engine_of::<f32>(operator, shape, mode, stream),
            Dtype::F64 => self.engine_of::<f64>(operator, shape, mode, stream),
            Dtype::F16 => self.engine_of::<half::f16>(operator, shape, mode, stream),
            Dtype::Bf16 => self.engine_of::<half::bf16>(operator, shape, mode, stream),
        }
    }

    fn engine_of<E: Element>(
        &self,
        operator: &RnnDescriptor,
        shape: RnnShape,
        mode: ForwardMode,
        stream: u64,
    ) -> Result<Box<dyn Engine>> {
        let backend =
            CudaBackend::<E, D>::with_options(self.device.clone(), (self.stream)(stream), self.options.clone());
        let plan = backend.plan(operator, shape, mode)?;
        // What decides the reserve's contents; with the device's kernels, which a process does not change.
        let of = format!("{} {} {operator:?} {shape:?} {mode:?} {:?}", D::NAME, E::DTYPE, self.options);
        let fingerprint = of
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        Ok(Box::new(CudaEngine { backend, plan, stream: self.stream, fingerprint }))
    }
}

struct CudaEngine<E: Element, D: Device> {
    backend: CudaBackend<E, D>,
    plan: CudaPlan<D>,
    stream: fn(u64) -> D::Stream,
    fingerprint: u64,
}

fn raw(tensor: In) -> RawTensor {
    RawTensor::new(DevicePtr(tensor.data as u64), tensor.len)
}

fn raw_out(tensor: Out) -> RawTensor {
    RawTensor::new(DevicePtr(tensor.data as u64), tensor.len)
}

fn optional(tensor: In) -> Option<RawTensor> {
    (!tensor.is_absent()).then(|| raw(tensor))
}

fn optional_out(tensor: Out) -> Option<RawTensor> {
    (!tensor.is_absent()).then(|| raw_out(tensor))
}

fn apart(name: &str) -> Failure {
    let problem = format!(
        "{name} tensor by tensor on a GPU is not supported, unless they stand as in one buffer: lay them out in one, at the offsets that frnn_plan_weight gives"
    );
    Failure::new(Status::Unsupported, problem)
}

impl<E: Element, D: Device> CudaEngine<E, D> {
    fn on(&self, stream: u64) -> CudaBackend<E, D> {
        self.backend.on_stream((self.stream)(stream))
    }

    unsafe fn weights(&self, layout: &WeightLayout, weights: Weights, spans: &mut Spans) -> Result<RawTensor> {
        // SAFETY: the caller's promise.
        match unsafe { weights.given(layout, size_of::<E>()) }? {
            Given::Whole(whole) => {
                if !spans.read("weights", whole, size_of::<E>())? {
                    return Err(Failure::null("weights"));
                }
                Ok(raw(whole))
            }
            Given::Apart(_) => Err(apart("weights")),
        }
    }
}

fn needed(name: &str, tensor: In) -> Result<RawTensor> {
    if tensor.is_absent() { Err(Failure::null(name)) } else { Ok(raw(tensor)) }
}

impl<E: Element, D: Device> Engine for CudaEngine<E, D> {
    fn space(&self) -> Space {
        let space = self.backend.temp_space(&self.plan);
        Space { workspace: space.workspace, reserve: space.reserve }
    }

    fn fingerprint(&self) -> u64 {
        self.fingerprint
    }

    unsafe fn forward(&self, layout: &WeightLayout, call: &Forward, reserve: Option<Out>) -> Result<()> {
        let (mut spans, element) = (Spans::new(), size_of::<E>());
        for (name, tensor) in [("x", call.x), ("h0", call.h0), ("c0", call.c0)] {
            spans.read(name, tensor, element)?;
        }
        spans.read("lengths", call.lengths, size_of::<u32>())?;
        spans.read("resets", call.resets, 1)?;
        let (workspace, storage) = (call.workspace, reserve.unwrap_or(Out::NONE));
        let outputs = [("y", call.y), ("hn", call.hn), ("cn", call.cn), ("workspace", workspace), ("reserve", storage)];
        for (name, tensor) in outputs {
            spans.write(name, tensor, element)?;
        }
        // SAFETY: the caller's promise.
        let weights = unsafe { self.weights(layout, call.weights, &mut spans) }?;
        spans.check()?;
        let args = ForwardArgs::<Raw>::new(weights, needed("x", call.x)?, raw_out(call.y), raw_out(workspace))
            .h0(optional(call.h0))
            .c0(optional(call.c0))
            .lengths(optional(call.lengths))
            .resets(optional(call.resets))
            .hn(optional_out(call.hn))
            .cn(optional_out(call.cn))
            .dropout_seed(call.dropout_seed);
        // SAFETY: the caller's promise; overlaps and alignment have been checked.
        Ok(unsafe { self.on(call.stream).forward_raw(&self.plan, args, reserve.map(raw_out)) }?)
    }

    unsafe fn backward_data(&self, layout: &WeightLayout, call: &Backward, state: &State) -> Result<()> {
        let (mut spans, element) = (Spans::new(), size_of::<E>());
        let inputs = [("x", call.x), ("y", call.y), ("h0", call.h0), ("c0", call.c0)];
        for (name, tensor) in inputs.into_iter().chain([("dy", call.dy), ("dhn", call.dhn), ("dcn", call.dcn)]) {
            spans.read(name, tensor, element)?;
        }
        spans.read("lengths", call.lengths, size_of::<u32>())?;
        spans.read("resets", call.resets, 1)?;
        let spaces = [("workspace", call.workspace), ("reserve", state.storage)];
        for (name, tensor) in spaces.into_iter().chain([("dx", call.dx), ("dh0", call.dh0), ("dc0", call.dc0)]) {
            spans.write(name, tensor, element)?;
        }
        // SAFETY: the caller's promise.
        let weights = unsafe { self.weights(layout, call.weights, &mut spans) }?;
        spans.check()?;
        let args =
            BackwardDataArgs::<Raw>::new(weights, needed("x", call.x)?, needed("y", call.y)?, raw_out(call.workspace))
                .h0(optional(call.h0))
                .c0(optional(call.c0))
                .lengths(optional(call.lengths))
                .resets(optional(call.resets))
                .dy(optional(call.dy))
                .dhn(optional(call.dhn))
                .dcn(optional(call.dcn))
                .dx(optional_out(call.dx))
                .dh0(optional_out(call.dh0))
                .dc0(optional_out(call.dc0));
        let backend = self.on(call.stream);
        // SAFETY: the caller's promise, and the reserve's stage; overlaps and alignment have been checked.
        Ok(unsafe { backend.backward_data_raw(&self.plan, args, raw_out(state.storage), state.seed) }?)
    }

    unsafe fn backward_weights(
        &self,
        layout: &WeightLayout,
        call: &Backward,
        state: &State,
        grad: WeightGrad,
    ) -> Result<()> {
        let (mut spans, element) = (Spans::new(), size_of::<E>());
        for (name, tensor) in [("x", call.x), ("y", call.y), ("h0", call.h0), ("c0", call.c0)] {
            spans.read(name, tensor, element)?;
        }
        spans.read("lengths", call.lengths, size_of::<u32>())?;
        spans.read("resets", call.resets, 1)?;
        for (name, tensor) in [("workspace", call.workspace), ("reserve", state.storage)] {
            spans.write(name, tensor, element)?;
        }
        // SAFETY: the caller's promise.
        let Given::Whole(whole) = unsafe { call.dweights.given(layout, element) }? else {
            return Err(apart("dweights"));
        };
        if !spans.write("dweights", whole, element)? {
            return Err(Failure::null("dweights"));
        }
        spans.check()?;
        let args = BackwardWeightsArgs::<Raw>::new(
            needed("x", call.x)?,
            needed("y", call.y)?,
            raw_out(whole),
            raw_out(call.workspace),
        )
        .h0(optional(call.h0))
        .c0(optional(call.c0))
        .lengths(optional(call.lengths))
        .resets(optional(call.resets));
        let backend = self.on(call.stream);
        // SAFETY: the caller's promise, and the reserve's stage; overlaps and alignment have been checked.
        Ok(unsafe { backend.backward_weights_raw(&self.plan, args, raw_out(state.storage), state.seed, grad) }?)
    }

    unsafe fn with_weights(&self, _layout: &WeightLayout, _weights: Weights, _stream: u64) -> Result<Box<dyn Engine>> {
        let problem = "a plan with its weights on a GPU is not supported: give the weights in every call";
        Err(Failure::new(Status::Unsupported, problem))
    }

    fn check(&self, stream: u64) -> Result<()> {
        let backend = self.on(stream);
        Ok(backend.check(&self.plan)?)
    }
}
