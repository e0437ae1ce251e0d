//! A training step allocates nothing once the first batches have been seen; a long sequence needs little workspace; a stack is built in linear
//! time; where memory is short, there is an error (`failures`).

#![allow(unsafe_code, reason = "an allocator has unsafe methods; this one hands on to the system's")]

mod failures;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::ops::ControlFlow;

use fused_rnn::backend::cpu::{CpuBackend, Stream};
use fused_rnn::backend::{ForwardMode, RecurrentBackend};
use fused_rnn::data::windows;
use fused_rnn::model::{BatchEnd, Callback, Clip, FitOptions, Sequential};
use fused_rnn::nn::{
    ActivationFunction, ActivationLayer, BatchNormalization, Bidirectional, Conv1D, Dense, Dropout, Flatten, Gru,
    LayerConfig, Loss, Lstm, Masking, MaxPooling1D, Padding, PositionalEncoding, SimpleRnn, TimeDistributed,
    TransformerEncoder, UpSampling1D,
};
use fused_rnn::optim::Adam;
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
    /// Bytes of the largest allocation.
    static LARGEST: Cell<usize> = const { Cell::new(0) };
    /// How many large allocations there are until one fails; 0 where none shall.
    static LEFT: Cell<usize> = const { Cell::new(0) };
    /// Larger allocations fail.
    static MOST: Cell<usize> = const { Cell::new(usize::MAX) };
    /// Bytes of all of them.
    static TOTAL: Cell<usize> = const { Cell::new(0) };
}

/// What a large allocation is: bytes.
const LARGE: usize = 64 << 10;

/// Whether this allocation fails.
fn fails(size: usize) -> bool {
    if size > MOST.with(Cell::get) {
        return true;
    }
    size >= LARGE
        && LEFT.with(|left| {
            let before = left.get();
            left.set(before.saturating_sub(1));
            before == 1
        })
}

/// The system's allocator, which counts what this thread asks of it, and fails where it is told to.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came, or fails, which null says.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        LARGEST.with(|largest| largest.set(largest.get().max(layout.size())));
        TOTAL.with(|total| total.set(total.get().wrapping_add(layout.size())));
        if fails(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: the caller's promise about the layout is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer is the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations up to the end of each batch; room for all is there before the first.
struct Watch(Vec<usize>);

impl Callback for Watch {
    fn on_batch_end(&mut self, _: &BatchEnd) -> ControlFlow<()> {
        if self.0.len() < self.0.capacity() {
            self.0.push(COUNT.with(Cell::get));
        }
        ControlFlow::Continue(())
    }
}

/// Layers that are put on one by one do not copy the weights of all below them, each of them.
#[test]
fn a_stack_is_built_in_linear_time() {
    let bytes = |layers: usize| {
        let before = TOTAL.with(Cell::get);
        let mut model = Sequential::new(CpuBackend::<f32>::with_threads(1).unwrap().into(), &[16], 1).unwrap();
        for _ in 0..layers {
            model.add(Dense::new(16)).unwrap();
        }
        assert_eq!(model.count_params(), layers * 17 * 16);
        TOTAL.with(Cell::get) - before
    };
    let (few, many) = (bytes(400), bytes(1600));
    // Sixteen times as much if it were quadratic.
    assert!(many < 6 * few, "{few} bytes for 400 layers, {many} for 1600");
}

#[test]
fn a_step_allocates_nothing() {
    let sine: Vec<f32> = (0..200).map(|t| (t as f32 * 0.1).sin()).collect();
    let (x, y) = windows(&sine, 10, 1).unwrap();
    let stacks: Vec<Vec<LayerConfig>> = vec![
        vec![Lstm::new(50).into(), Dense::new(1).into()],
        vec![Gru::new(50).into(), Dense::new(1).into()],
        vec![SimpleRnn::new(50).into(), Dense::new(1).into()],
        vec![
            Masking::new(0.0).into(),
            Lstm::new(50).return_sequences(true).into(),
            Dropout::new(0.2).into(),
            BatchNormalization::new().into(),
            Lstm::new(20).into(),
            Dense::new(5).activation(ActivationFunction::Relu).into(),
            ActivationLayer::new(ActivationFunction::Tanh).into(),
            Dense::new(1).into(),
        ],
    ];
    for layers in stacks {
        for batch_size in [1, 7] {
            let mut model = Sequential::new(CpuBackend::<f32>::with_threads(1).unwrap().into(), &[10, 1], 1).unwrap();
            for layer in &layers {
                model.add(layer.clone()).unwrap();
            }
            model.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
            let mut watch = Watch(Vec::with_capacity(27));
            let options = FitOptions {
                batch_size,
                clip: Some(Clip::Norm(1.0)),
                callbacks: vec![&mut watch],
                ..FitOptions::default()
            };
            model.fit(&x, &y, options).unwrap();
            let [first, .., last] = watch.0[1..] else { panic!("{} batches", watch.0.len()) };
            assert_eq!(last - first, 0, "{layers:?} batch size {batch_size}: from the second batch to the last seen");
        }
    }
}

/// An input of any length is tried with thousands of steps, of which there is none in memory.
#[test]
fn layers_for_any_length_are_built_without_memory_for_steps() {
    let layers: Vec<LayerConfig> = vec![
        Masking::new(0.0).into(),
        Conv1D::new(8, 3).padding(Padding::Same).into(),
        PositionalEncoding::new().into(),
        TransformerEncoder::new(2, 4, 8).into(),
        MaxPooling1D::new(2).into(),
        UpSampling1D::new(2).into(),
        Bidirectional::new(Lstm::new(4).return_sequences(true).dropout(0.1)).into(),
        Gru::new(4).return_sequences(true).recurrent_dropout(0.1).into(),
        TimeDistributed::new(Dense::new(4)).into(),
        BatchNormalization::new().into(),
        Dropout::new(0.1).into(),
        Flatten::new().into(),
    ];
    let device: fused_rnn::Device = CpuBackend::<f32>::with_threads(1).unwrap().into();
    let mut model = Sequential::new(device, &[None, Some(8)], 1).unwrap();
    LARGEST.with(|largest| largest.set(0));
    for layer in layers {
        model.add(layer).unwrap();
    }
    assert!(model.add(Dense::new(1000)).is_err(), "it would need 20,160,000 weights");
    let largest = LARGEST.with(Cell::get);
    assert!(largest < 8 * 5040, "{largest} bytes at once");
}

/// One sequence of any length and small weights: gates of a few MiB, not of thousands of steps for every thread. Here, since unit tests have
/// chunks of few steps.
#[test]
fn a_long_sequence_needs_few_gates() {
    for threads in [1, 2, 16] {
        let backend = CpuBackend::<f32>::with_threads(threads).unwrap();
        for descriptor in [RnnDescriptor::lstm(64, 128), RnnDescriptor::gru(64, 128)] {
            let shape = RnnShape { seq_len: 100_000, batch: 1 };
            let plan = backend.plan(&descriptor, shape, ForwardMode::Inference).unwrap();
            let bytes = backend.temp_space(&plan).workspace * size_of::<f32>();
            // Beside them packed weights, two numbers a step, and scratch of each thread.
            assert!(bytes < 8 << 20, "{:?} on {threads} threads: {bytes} bytes", descriptor.cell);
        }
    }
}

#[test]
fn a_streaming_step_allocates_nothing() {
    for descriptor in [RnnDescriptor::lstm(64, 128), RnnDescriptor::gru(64, 128).num_layers(2)] {
        let backend = CpuBackend::<f32>::with_threads(1).unwrap();
        let weights = vec![0.01; WeightLayout::new(&descriptor).unwrap().len()];
        let mut stream = Stream::new(&backend, &descriptor, RnnShape { seq_len: 1, batch: 1 }, &weights).unwrap();
        let (x, mut y) = ([0.5; 64], [0.0; 128]);
        let before = COUNT.with(Cell::get);
        for _ in 0..10 {
            stream.step(&x, &mut y).unwrap();
        }
        assert_eq!(COUNT.with(Cell::get), before);
    }
}
