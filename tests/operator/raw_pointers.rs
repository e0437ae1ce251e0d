//! The CUDA backend's lower door: raw addresses and streams, on the emulated GPU.
#![allow(unsafe_code)]

use std::sync::Arc;

use fused_rnn::backend::cuda::device::DevicePtr;
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, DeviceBuffer, Raw, RawTensor, Staged};
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, WeightGrad,
};
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{Element, Error};

type Buffer<E> = DeviceBuffer<E, Emulated>;

/// Numbers that repeat after a prime of them.
fn numbers<E: Element>(len: usize, scale: f64) -> Vec<E> {
    (0..len).map(|i| E::of(scale * ((i * 37 % 101) as f64 / 50.0 - 1.0))).collect()
}

struct Fixture<E: Element> {
    device: Arc<Emulated>,
    backend: CudaBackend<E, Emulated>,
    descriptor: RnnDescriptor,
    shape: RnnShape,
    inputs: Inputs<E>,
    dy: Vec<E>,
}

impl<E: Element> Fixture<E> {
    fn new() -> Self {
        let device = Arc::new(Emulated::new(Schedule::default()).unwrap());
        let descriptor = RnnDescriptor::lstm(7, 13);
        let shape = RnnShape { seq_len: 5, batch: 3 };
        let weights = numbers(WeightLayout::new(&descriptor).unwrap().len(), 0.4);
        let inputs = Inputs { weights, x: numbers(5 * 3 * 7, 1.0), ..Inputs::default() };
        let backend = CudaBackend::with_options(device.clone(), EmulatedStream, CudaOptions::default());
        Fixture { device, backend, descriptor, shape, inputs, dy: numbers(5 * 3 * 13, 1.0) }
    }

    /// Values on the device, `shift` elements into an allocation.
    fn up(&self, values: &[E], shift: usize) -> (Buffer<E>, RawTensor) {
        let mut all = vec![E::of(f64::NAN); shift];
        all.extend_from_slice(values);
        let buffer = Buffer::from_slice(&self.device, &EmulatedStream, "tensor", &all).unwrap();
        let pointer = buffer.pointer().offset(shift * size_of::<E>());
        (buffer, RawTensor::new(pointer, values.len()))
    }

    fn down(buffer: &Buffer<E>, shift: usize) -> Vec<E> {
        let mut all = vec![E::of(0.0); buffer.len()];
        buffer.read(&EmulatedStream, &mut all).unwrap();
        all.split_off(shift)
    }
}

/// A forward call without states.
fn forward([weights, x, y, workspace]: [RawTensor; 4]) -> ForwardArgs<'static, Raw> {
    let (h0, c0, hn, cn, lengths, resets) = Default::default();
    ForwardArgs { weights, x, h0, c0, lengths, resets, y, hn, cn, workspace, dropout_seed: 0 }
}

/// Tensors may begin anywhere in an allocation, as slices of an engine's tensors do: the results are those of the safe door.
fn unaligned_tensors_give_the_same<E: Element>() {
    let f = Fixture::<E>::new();
    let gradients = OutputGradients { dy: Some(f.dy.clone()), ..OutputGradients::default() };
    let staged = Staged::new(f.backend.clone());
    let (outputs, expected) = pass::train(&staged, &f.descriptor, f.shape, &f.inputs, &gradients).unwrap();
    let plan = f.backend.plan(&f.descriptor, f.shape, ForwardMode::Training).unwrap();
    let space = f.backend.temp_space(&plan);
    for shift in [0, 1, 3] {
        let nan = |len: usize| vec![E::of(f64::NAN); len];
        let (_w, weights) = f.up(&f.inputs.weights, shift);
        let (_x, x) = f.up(&f.inputs.x, shift);
        let (y_buffer, y) = f.up(&nan(outputs.y.len()), shift);
        let (_dy, dy) = f.up(&f.dy, shift);
        let (dx_buffer, dx) = f.up(&nan(f.inputs.x.len()), shift);
        let (dw_buffer, dweights) = f.up(&nan(f.inputs.weights.len()), shift);
        let (_workspace, workspace) = f.up(&nan(space.workspace), 0);
        let (_reserve, reserve) = f.up(&nan(space.reserve), 0);
        let (h0, c0, lengths, resets) = (None, None, None, None);
        let data = BackwardDataArgs::<Raw> {
            weights,
            x,
            y,
            h0,
            c0,
            lengths,
            resets,
            dy: Some(dy),
            dhn: None,
            dcn: None,
            dx: Some(dx),
            dh0: None,
            dc0: None,
            workspace,
        };
        let grads = BackwardWeightsArgs::<Raw> { x, y, h0, c0, lengths, resets, dweights, workspace };
        // SAFETY: every address is that of a live buffer of the size that the plan says, and none overlap.
        unsafe {
            f.backend.forward_raw(&plan, forward([weights, x, y, workspace]), Some(reserve)).unwrap();
            f.backend.backward_data_raw(&plan, data, reserve, 0).unwrap();
            f.backend.backward_weights_raw(&plan, grads, reserve, 0, WeightGrad::Set).unwrap();
        }
        f.backend.check(&plan).unwrap();
        assert_eq!(Fixture::down(&y_buffer, shift), outputs.y, "{} y, shift {shift}", E::DTYPE);
        assert_eq!(Fixture::down(&dx_buffer, shift), expected.dx, "{} dx, shift {shift}", E::DTYPE);
        assert_eq!(Fixture::down(&dw_buffer, shift), expected.dweights, "{} dweights, shift {shift}", E::DTYPE);
    }
}

#[test]
fn tensors_may_begin_anywhere() {
    unaligned_tensors_give_the_same::<f32>();
    unaligned_tensors_give_the_same::<f64>();
    unaligned_tensors_give_the_same::<half::f16>();
    unaligned_tensors_give_the_same::<half::bf16>();
}

#[test]
fn null_and_crooked_addresses_are_named() {
    let f = Fixture::<f32>::new();
    let plan = f.backend.plan(&f.descriptor, f.shape, ForwardMode::Inference).unwrap();
    let space = f.backend.temp_space(&plan);
    let (_w, weights) = f.up(&f.inputs.weights, 0);
    let (_x, x) = f.up(&f.inputs.x, 0);
    let (_y, y) = f.up(&f.dy, 0);
    let (_workspace, workspace) = f.up(&vec![0.0; space.workspace + 1], 0);
    let whole = forward([weights, x, y, workspace]);
    let call = |args: ForwardArgs<'static, Raw>, reserve: Option<RawTensor>| {
        // SAFETY: every address is null, refused for its alignment, or that of a live buffer of the size that the plan says.
        unsafe { f.backend.forward_raw(&plan, args, reserve) }
    };
    call(whole, None).unwrap();
    let null = |tensor: RawTensor| RawTensor { address: DevicePtr::NULL, ..tensor };
    for (name, args) in [
        ("weights", ForwardArgs { weights: null(weights), ..whole }),
        ("x", ForwardArgs { x: null(x), ..whole }),
        ("y", ForwardArgs { y: null(y), ..whole }),
        ("hn", ForwardArgs { hn: Some(RawTensor::new(DevicePtr::NULL, 3 * 13)), ..whole }),
        ("workspace", ForwardArgs { workspace: null(workspace), ..whole }),
    ] {
        let error = call(args, None).unwrap_err();
        assert!(matches!(&error, Error::Presence { tensor, .. } if tensor == name), "{name}: {error}");
    }
    let crooked = RawTensor::new(workspace.address.offset(4), space.workspace);
    for (name, args) in [
        ("workspace", ForwardArgs { workspace: crooked, ..whole }),
        ("x", ForwardArgs { x: RawTensor { len: x.len - 1, ..x }, ..whole }),
    ] {
        let error = call(args, None).unwrap_err();
        assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == name), "{name}: {error}");
    }
    // A plan for inference has no reserve.
    let error = call(whole, Some(workspace)).unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { .. }), "{error}");
}

/// Plans and backends may be used by several threads at once.
#[test]
fn plans_and_backends_are_shared_between_threads() {
    fn shared<T: Send + Sync>(_: &T) {}
    let f = Fixture::<f32>::new();
    let plan = f.backend.plan(&f.descriptor, f.shape, ForwardMode::Training).unwrap();
    shared(&f.backend);
    shared(&plan);
}
