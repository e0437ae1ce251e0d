//! The CUDA backend's lower door: raw addresses and streams, on the emulated GPU.
#![allow(unsafe_code)]

use std::sync::Arc;

use fused_rnn::backend::cuda::device::DevicePtr;
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
use fused_rnn::backend::cuda::{CudaBackend, CudaOptions, DeviceBuffer, Raw, RawTensor, Staged};
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, Reserve, WeightGrad,
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
    ForwardArgs::new(weights, x, y, workspace)
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
        let data = BackwardDataArgs::<Raw>::new(weights, x, y, workspace).dy(dy).dx(dx);
        let grads = BackwardWeightsArgs::<Raw>::new(x, y, dweights, workspace);
        // SAFETY: every address is that of a live buffer of the size that the plan says, and none overlap.
        unsafe {
            let args = forward([weights, x, y, workspace]);
            let filled = f.backend.forward_training_raw(&plan, args, Reserve::new(reserve)).unwrap();
            let mut differentiated = f.backend.backward_data_raw(&plan, data, filled).unwrap();
            f.backend.backward_weights_raw(&plan, grads, &mut differentiated, WeightGrad::Set).unwrap();
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

/// What is wrong with a call.
type Change<'a> = &'a dyn Fn(&mut ForwardArgs<'static, Raw>);

#[test]
fn null_and_crooked_addresses_are_named() {
    let f = Fixture::<f32>::new();
    let plan = f.backend.plan(&f.descriptor, f.shape, ForwardMode::Inference).unwrap();
    let space = f.backend.temp_space(&plan);
    let (_w, weights) = f.up(&f.inputs.weights, 0);
    let (_x, x) = f.up(&f.inputs.x, 0);
    let (_y, y) = f.up(&f.dy, 0);
    let (_workspace, workspace) = f.up(&vec![0.0; space.workspace + 1], 0);
    let call = |change: Change<'_>| {
        let mut args = forward([weights, x, y, workspace]);
        change(&mut args);
        // SAFETY: every address is null, refused for its alignment, or that of a live buffer of the size that the plan says.
        unsafe { f.backend.forward_raw(&plan, args) }
    };
    call(&|_| ()).unwrap();
    let null = |tensor: RawTensor| RawTensor { address: DevicePtr::NULL, ..tensor };
    let (hn, crooked) =
        (RawTensor::new(DevicePtr::NULL, 3 * 13), RawTensor::new(workspace.address.offset(4), space.workspace));
    let cases: [(&str, Change<'_>); 5] = [
        ("weights", &|args| args.weights = null(weights)),
        ("x", &|args| args.x = null(x)),
        ("y", &|args| args.y = null(y)),
        ("hn", &|args| args.hn = Some(hn)),
        ("workspace", &|args| args.workspace = null(workspace)),
    ];
    for (name, change) in cases {
        let error = call(change).unwrap_err();
        assert!(matches!(&error, Error::Presence { tensor, .. } if tensor == name), "{name}: {error}");
    }
    let cases: [(&str, Change<'_>); 2] =
        [("workspace", &|args| args.workspace = crooked), ("x", &|args| args.x = RawTensor { len: x.len - 1, ..x })];
    for (name, change) in cases {
        let error = call(change).unwrap_err();
        assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == name), "{name}: {error}");
    }
    // A plan for inference has no reserve.
    let args = forward([weights, x, y, workspace]);
    // SAFETY: every address is that of a live buffer of the size that the plan says.
    let error = unsafe { f.backend.forward_training_raw(&plan, args, Reserve::new(workspace)) }.unwrap_err();
    assert!(matches!(&error, Error::InvalidOption { .. }), "{error}");
}

/// On raw memory too a reserve is its plan's, and another's is refused before anything runs.
#[test]
fn a_raw_reserve_is_that_of_its_plan() {
    let f = Fixture::<f32>::new();
    let plan = f.backend.plan(&f.descriptor, f.shape, ForwardMode::Training).unwrap();
    let other = f.backend.plan(&f.descriptor, RnnShape { batch: 2, ..f.shape }, ForwardMode::Training).unwrap();
    let space = f.backend.temp_space(&plan);
    let (_w, weights) = f.up(&f.inputs.weights, 0);
    let (_x, x) = f.up(&f.inputs.x, 0);
    let (_y, y) = f.up(&f.dy, 0);
    let (_workspace, workspace) = f.up(&vec![0.0; space.workspace], 0);
    let (_reserve, reserve) = f.up(&vec![0.0; space.reserve], 0);
    // SAFETY: every address is that of a live buffer of the size that the plan says, and none overlap.
    unsafe {
        let args = forward([weights, x, y, workspace]);
        let filled = f.backend.forward_training_raw(&plan, args, Reserve::new(reserve)).unwrap();
        let data = BackwardDataArgs::<Raw>::new(weights, x, y, workspace);
        let error = f.backend.backward_data_raw(&other, data, filled).unwrap_err();
        assert!(matches!(&error, Error::ReserveMismatch { .. }), "{error}");
    }
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
