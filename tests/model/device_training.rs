//! Models trained wholly on a device: what they learn against the CPU, and what is copied meanwhile.
#![allow(
    unsafe_code,
    reason = "a device that passes calls on has unsafe methods; what they ask for, their callers see to"
)]

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::common::cpu;
use crate::weights;
use fused_rnn::backend::cuda::CudaBackend;
use fused_rnn::backend::cuda::device::{self, DevicePtr, Launch, Properties};
use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedKernel, EmulatedStream, Schedule};
use fused_rnn::data::windows;
use fused_rnn::loss::{Ctc, LossFunction};
use fused_rnn::model::{
    BackupAndRestore, BatchEnd, Callback, Clip, EarlyStopping, FitOptions, History, Outcome, Sequential,
};
use fused_rnn::nn::{
    ActivationFunction, ActivationLayer, BatchNormalization, Constraint, Conv1D, Conv1DTranspose, Cropping1D, Dense,
    GaussianDropout, GaussianNoise, GlobalAveragePooling1D, Gru, LayerConfig, Loss, Lstm, Masking, Normalization,
    PRelu, Regularizer, SimpleRnn, Softmax, SpatialDropout1D, UnitNormalization, UpSampling1D, ZeroPadding1D,
};
use fused_rnn::optim::{Adam, Nadam, Optimizer, RmsProp, Sgd};
use fused_rnn::{DType, Device, Error, Result, Scalar};
use ndarray::{Array2, Array3};

/// The emulated device, which counts copies.
struct Counting {
    inner: Emulated,
    uploads: AtomicUsize,
    downloads: AtomicUsize,
    synchronizations: AtomicUsize,
    allocations: AtomicUsize,
}

impl Counting {
    fn new(seed: u64, starve: bool) -> Arc<Self> {
        Arc::new(Counting {
            inner: Emulated::new(Schedule { seed, starve }).unwrap(),
            uploads: AtomicUsize::new(0),
            downloads: AtomicUsize::new(0),
            synchronizations: AtomicUsize::new(0),
            allocations: AtomicUsize::new(0),
        })
    }

    /// Uploads, downloads, synchronizations and allocations since the last call.
    fn take(&self) -> [usize; 4] {
        [&self.uploads, &self.downloads, &self.synchronizations, &self.allocations]
            .map(|c| c.swap(0, Ordering::Relaxed))
    }
}

fn count(counter: &AtomicUsize) {
    counter.fetch_add(1, Ordering::Relaxed);
}

impl device::Device for Counting {
    type Stream = EmulatedStream;
    type Kernel = EmulatedKernel;
    const NAME: &'static str = "counting";

    fn properties(&self) -> &Properties {
        self.inner.properties()
    }

    fn kernel(&self, name: &str) -> Result<EmulatedKernel> {
        self.inner.kernel(name)
    }

    fn resident_blocks(&self, kernel: &EmulatedKernel, launch: &Launch) -> Result<u32> {
        self.inner.resident_blocks(kernel, launch)
    }

    unsafe fn launch(
        &self,
        stream: &EmulatedStream,
        kernel: &EmulatedKernel,
        launch: &Launch,
        params: &[u8],
    ) -> Result<()> {
        unsafe { self.inner.launch(stream, kernel, launch, params) }
    }

    unsafe fn fill(&self, stream: &EmulatedStream, to: DevicePtr, value: u8, bytes: usize) -> Result<()> {
        unsafe { self.inner.fill(stream, to, value, bytes) }
    }

    fn allocate(&self, what: &str, bytes: usize) -> Result<DevicePtr> {
        count(&self.allocations);
        self.inner.allocate(what, bytes)
    }

    unsafe fn release(&self, pointer: DevicePtr, bytes: usize) {
        unsafe { self.inner.release(pointer, bytes) }
    }

    unsafe fn upload(&self, stream: &EmulatedStream, to: DevicePtr, from: &[u8]) -> Result<()> {
        count(&self.uploads);
        unsafe { self.inner.upload(stream, to, from) }
    }

    unsafe fn download(&self, stream: &EmulatedStream, from: DevicePtr, to: &mut [u8]) -> Result<()> {
        // A word of status, which says that no kernel gave up, comes along with every look.
        if to.len() > size_of::<u32>() {
            count(&self.downloads);
        }
        unsafe { self.inner.download(stream, from, to) }
    }

    fn synchronize(&self, stream: &EmulatedStream) -> Result<()> {
        count(&self.synchronizations);
        self.inner.synchronize(stream)
    }
}

fn emulated(dtype: DType, seed: u64, starve: bool) -> Device {
    on(Counting::new(seed, starve)).with_dtype(dtype).unwrap()
}

fn on(counting: Arc<Counting>) -> Device {
    Device::of(CudaBackend::<f32, _>::with_options(counting, EmulatedStream, Default::default()))
}

fn stacks() -> [Vec<LayerConfig>; 3] {
    [
        vec![Lstm::new(5).into(), Dense::new(1).into()],
        vec![Gru::new(4).return_sequences(true).into(), SimpleRnn::new(3).into(), Dense::new(1).into()],
        vec![
            Lstm::new(3).return_sequences(true).into(),
            Dense::new(2).into(),
            Gru::new(3).into(),
            Dense::new(1).into(),
        ],
    ]
}

fn build(device: Device, layers: &[LayerConfig]) -> Sequential {
    let mut model = Sequential::new(device, &[6, 1], 7).unwrap();
    for layer in layers {
        model.add(layer.clone()).unwrap();
    }
    model
}

fn data<E: Scalar>(len: usize) -> (Array3<E>, Array2<E>) {
    let sine: Vec<f32> = (0..len).map(|t| (t as f32 * 0.3).sin()).collect();
    let (x, y) = windows(&sine, 6, 1).unwrap();
    (x.mapv(|v| E::of(f64::from(v))), y.mapv(|v| E::of(f64::from(v))))
}

struct Trained {
    history: History,
    weights: Vec<f64>,
    predictions: Vec<f64>,
    evaluation: f64,
}

/// Trains for a few epochs, with a last batch that is smaller and validation.
fn trained(
    device: Device,
    layers: &[LayerConfig],
    optimizer: impl Optimizer + 'static,
    loss: impl Into<LossFunction>,
    clip: Option<Clip>,
) -> Trained {
    let (x, y) = data::<f64>(40);
    let mut model = build(device, layers);
    model.compile(optimizer, loss).unwrap();
    let options = FitOptions {
        epochs: 4,
        batch_size: 9,
        validation_data: Some((vec![(&x).into()], vec![(&y).into()])),
        clip,
        loss_every: 3,
        ..FitOptions::default()
    };
    let history = model.fit(x.view(), y.view(), options).unwrap();
    Trained {
        history,
        weights: weights(&model),
        predictions: model.predict(x.view()).unwrap().into_iter().collect(),
        evaluation: model.evaluate(x.view(), y.view()).unwrap(),
    }
}

fn largest_difference(a: &[f64], b: &[f64]) -> f64 {
    assert_eq!(a.len(), b.len());
    // Not `max`, which would drop a NaN.
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, |m, d| if d <= m { m } else { d })
}

/// In f64 the device learns what the CPU learns. In f32 it strays from that no further than twice as far as the CPU in f32 does, or than
/// a few roundings.
fn learns_what_the_cpu_learns(
    layers: &[LayerConfig],
    optimizer: impl Optimizer + Copy + 'static,
    loss: impl Into<LossFunction> + Clone,
    clip: Option<Clip>,
) {
    let run = |device: Device| trained(device, layers, optimizer, loss.clone(), clip);
    let truth = run(cpu(DType::F64));
    let wide = run(emulated(DType::F64, 0, false));
    let (narrow_cpu, narrow) = (run(cpu(DType::F32)), run(emulated(DType::F32, 0, false)));
    let views: [fn(&Trained) -> Vec<f64>; 5] = [
        |t| t.history.loss.clone(),
        |t| t.history.val_loss.clone(),
        |t| t.weights.clone(),
        |t| t.predictions.clone(),
        |t| vec![t.evaluation],
    ];
    for (i, view) in views.iter().enumerate() {
        let expected = view(&truth);
        let difference = largest_difference(&view(&wide), &expected);
        assert!(difference < 1e-11, "{layers:?} view {i}: {difference:e}");
        let (cpu, ours) =
            (largest_difference(&view(&narrow_cpu), &expected), largest_difference(&view(&narrow), &expected));
        let allowed = (2.0 * cpu).max(64.0 * f64::from(f32::EPSILON));
        assert!(ours <= allowed, "{layers:?} view {i}: {ours:e}, but the CPU {cpu:e}");
    }
    assert_eq!(truth.history.best_epoch, wide.history.best_epoch);
}

#[test]
fn every_layer_and_optimizer() {
    let [lstm, mixed, deep] = stacks();
    learns_what_the_cpu_learns(&lstm, Adam::new(0.01).unwrap(), Loss::MeanSquaredError, None);
    let sgd = Sgd::new(0.05).unwrap().momentum(0.5, true).unwrap();
    learns_what_the_cpu_learns(&mixed, sgd, Loss::HUBER, Some(Clip::Norm(0.3)));
    let rmsprop = RmsProp::new(0.005).unwrap().with(0.9, 0.3, true).unwrap();
    learns_what_the_cpu_learns(&deep, rmsprop, Loss::MeanSquaredError, Some(Clip::Value(0.1)));
}

/// Losses without a kernel are computed on the host, in the middle of a step of the device.
#[test]
fn losses_of_the_host() {
    let [lstm, ..] = stacks();
    let optimizer = Sgd::new(0.05).unwrap();
    learns_what_the_cpu_learns(&lstm, optimizer, Loss::quantiles(&[0.3]).unwrap(), None);
    let squares = LossFunction::of_elements("squares", |t, p| ((p - t) * (p - t), 2.0 * (p - t)));
    learns_what_the_cpu_learns(&lstm, optimizer, squares, Some(Clip::Norm(0.3)));

    // A loss of samples, whose mask says how long each is.
    let x = Array3::<f64>::from_shape_fn(
        (7, 6, 2),
        |(b, t, i)| if t > 3 + b % 3 { 0.0 } else { ((b + 2 * t + i) as f64).sin() },
    );
    let y = Array2::<f64>::from_shape_fn((7, 2), |(b, i)| ((b + i) % 3) as f64);
    let run = |device: Device| {
        let mut model = Sequential::new(device, &[6, 2], 3).unwrap();
        model.add(Masking::new(0.0)).unwrap();
        model.add(Lstm::new(5).return_sequences(true)).unwrap();
        model.add(Dense::new(4)).unwrap();
        model.compile(optimizer, Ctc::new(3, 2).unwrap()).unwrap();
        let history = model.fit(&x, &y, FitOptions { epochs: 3, batch_size: 3, ..FitOptions::default() }).unwrap();
        (history.loss, weights(&model))
    };
    let (truth, ours) = (run(cpu(DType::F64)), run(emulated(DType::F64, 0, false)));
    assert!(largest_difference(&ours.0, &truth.0) < 1e-11);
    assert!(largest_difference(&ours.1, &truth.1) < 1e-11);
}

/// Penalties and constraints, made of the device's losses and functions.
#[test]
fn options_of_weights() {
    let layers = [
        Lstm::new(4)
            .kernel_regularizer(Regularizer::l1_l2(0.02, 0.03))
            .recurrent_regularizer(Regularizer::l2(0.05))
            .recurrent_constraint(Constraint::NonNegative)
            .activity_regularizer(Regularizer::l2(0.1))
            .into(),
        Dense::new(1).bias_regularizer(Regularizer::l1(0.01)).kernel_constraint(Constraint::NonNegative).into(),
    ];
    learns_what_the_cpu_learns(&layers, Adam::new(0.01).unwrap(), Loss::MeanSquaredError, None);
}

/// Layers that are made of several operations, and noise that is drawn on the host.
#[test]
fn layers_of_several_operations() {
    let activation = |function| ActivationLayer::new(function).into();
    let layers = [
        Normalization::new().into(),
        ZeroPadding1D::new(1, 2).into(),
        Conv1D::new(4, 2).into(),
        activation(ActivationFunction::Silu),
        UpSampling1D::new(2).into(),
        SpatialDropout1D::new(0.2).into(),
        Cropping1D::new(1, 1).into(),
        PRelu::new().shared_axes(&[1]).into(),
        Conv1DTranspose::new(3, 3).strides(2).into(),
        activation(ActivationFunction::HardSilu),
        GaussianNoise::new(0.05).into(),
        Softmax::new().into(),
        Gru::new(3).return_sequences(true).into(),
        activation(ActivationFunction::Relu6),
        GaussianDropout::new(0.1).into(),
        GlobalAveragePooling1D::new().into(),
        Dense::new(1).into(),
    ];
    learns_what_the_cpu_learns(&layers, Sgd::new(0.05).unwrap(), Loss::MeanSquaredError, None);
}

/// Frozen layers keep their weights, those below them learn through them what they learn on the CPU, and normalisation goes by what it has seen.
#[test]
fn frozen_layers() {
    let (x, y) = data::<f64>(40);
    let layers = [
        Lstm::new(4).return_sequences(true).into(),
        BatchNormalization::new().into(),
        Gru::new(3).into(),
        Dense::new(1).into(),
    ];
    let run = |device: Device| {
        let mut model = build(device, &layers);
        model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
        let options = || FitOptions { epochs: 2, batch_size: 9, ..FitOptions::default() };
        model.fit(&x, &y, options()).unwrap();
        model.set_trainable("gru", false).unwrap().set_trainable("batch_normalization", false).unwrap();
        model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
        let kept = model.weight::<f64>("gru.weight_hh_l0").unwrap();
        let history = model.fit(&x, &y, options()).unwrap();
        assert_eq!(model.weight::<f64>("gru.weight_hh_l0").unwrap(), kept);
        let lstm = model.weight::<f64>("lstm.weight_hh_l0").unwrap();
        (history.loss, lstm, model.predict(&x).unwrap().into_iter().collect::<Vec<f64>>())
    };
    let (truth, ours) = (run(cpu(DType::F64)), run(emulated(DType::F64, 0, false)));
    assert!(largest_difference(&ours.0, &truth.0) < 1e-11);
    assert!(largest_difference(&ours.1, &truth.1) < 1e-11);
    assert!(largest_difference(&ours.2, &truth.2) < 1e-11);
}

/// What has no kernel is refused before a step is done, and says what to do.
#[test]
fn options_without_a_kernel_are_refused() {
    let (x, y) = data::<f32>(40);
    let mut model = build(emulated(DType::F32, 0, false), &[Lstm::new(2).into()]);
    model.add(Dense::new(1).kernel_constraint(Constraint::max_norm(1.0))).unwrap();
    let before = weights(&model);
    let error = model.fit(&x, &y, FitOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    let error = error.to_string();
    assert!(["MaxNorm", "dense.weight", "NonNegative"].iter().all(|word| error.contains(word)), "{error}");
    assert_eq!(weights(&model), before);
    for layer in [
        LayerConfig::from(ActivationLayer::new(ActivationFunction::Gelu)),
        ActivationLayer::new(ActivationFunction::Mish).into(),
        ActivationLayer::new(ActivationFunction::Exponential).into(),
        UnitNormalization::new().into(),
    ] {
        let mut model =
            build(emulated(DType::F32, 0, false), &[Lstm::new(2).into(), layer.clone(), Dense::new(1).into()]);
        let before = weights(&model);
        let error = model.fit(&x, &y, FitOptions::default()).unwrap_err();
        assert!(
            matches!(&error, Error::Unsupported { why, .. } if why.contains("Device::cpu()")),
            "{layer:?}: {error}"
        );
        assert_eq!(weights(&model), before, "{layer:?}");
    }
    let mut model = build(emulated(DType::F32, 0, false), &[Lstm::new(2).into(), Dense::new(1).into()]);
    model.compile(Nadam::default(), Loss::MeanSquaredError).unwrap();
    let before = weights(&model);
    let error = model.fit(&x, &y, FitOptions::default()).unwrap_err();
    assert!(matches!(&error, Error::Unsupported { why, .. } if why.contains("AdamW")), "{error}");
    assert_eq!(weights(&model), before);
}

#[test]
fn the_same_bits_whatever_the_schedule() {
    let [lstm, ..] = stacks();
    let run = |seed, starve| {
        let t = trained(
            emulated(DType::F32, seed, starve),
            &lstm,
            Adam::default(),
            Loss::MeanSquaredError,
            Some(Clip::Norm(0.1)),
        );
        (t.history, t.weights, t.predictions)
    };
    let first = run(0, false);
    assert_eq!(first, run(0, false));
    assert_eq!(first, run(5, false));
    assert_eq!(first, run(6, true));
}

/// A batch copies nothing and allocates nothing; of the loss there is one look every so many batches.
#[test]
fn a_step_needs_nothing_from_the_host() {
    let (x, y) = data::<f32>(134);
    let [lstm, ..] = stacks();
    let counting = Counting::new(0, false);
    let mut model = build(on(counting.clone()), &lstm);
    let mut fit = |epochs: usize, batch_size: usize, loss_every: usize| {
        let options = FitOptions { epochs, batch_size, loss_every, ..FitOptions::default() };
        counting.take();
        model.fit(x.view(), y.view(), options).unwrap();
        counting.take()
    };
    // Buffers and plans of both sizes.
    fit(1, 64, 1);
    fit(1, 8, 1);
    let (two, sixteen) = (fit(1, 64, 100), fit(1, 8, 100));
    assert_eq!(two, sixteen, "16 batches instead of 2 copy and allocate the same");
    // The first batch, the last one, whether weights are finite after the epoch, and the weights at the end.
    assert_eq!(two[1], 4);
    assert_eq!(fit(1, 8, 4)[1], 2 + 5, "after batches 1, 5, 9, 13 and 16");
    assert_eq!(fit(1, 8, 1)[1], 2 + 16);
    // Another epoch: the order of samples and two empty records go up, two looks and that at the weights come down.
    let (one, three) = (fit(1, 8, 100), fit(3, 8, 100));
    assert_eq!([three[0] - one[0], three[1] - one[1], three[3] - one[3]], [2 * 3, 2 * 3, 0]);
    assert_eq!(one[2], 0);
}

#[test]
fn divergence_is_noticed_and_undone() {
    let [lstm, ..] = stacks();
    let (mut x, y) = data::<f32>(60);
    let options = || FitOptions { epochs: 5, batch_size: 10, shuffle: false, loss_every: 4, ..FitOptions::default() };

    let mut model = build(emulated(DType::F32, 0, false), &lstm);
    let initial = weights(&model);
    x[[27, 4, 0]] = f32::NAN;
    let error = model.fit(x.view(), y.view(), options()).unwrap_err();
    assert!(matches!(error, Error::Diverged { epoch: 1, batch: 3, .. }), "{error}");
    assert!(error.to_string().contains("sample 27"), "{error}");
    assert_eq!(weights(&model), initial, "no epoch was completed");
    let (x, y) = data::<f32>(60);
    assert!(model.evaluate(x.view(), y.view()).unwrap().is_finite(), "the device has them too");
    // The moments of the bad steps are forgotten.
    let history = model.fit(x.view(), y.view(), options()).unwrap();
    assert!(history.loss.iter().all(|l| l.is_finite()));

    // A good epoch, then a rate that overflows.
    let best = weights(&model);
    model.compile(Adam::new(1e38).unwrap(), Loss::MeanSquaredError).unwrap();
    let error = model.fit(x.view(), y.view(), options()).unwrap_err();
    assert!(matches!(error, Error::Diverged { epoch: 1, .. }), "{error}");
    assert_eq!(weights(&model), best);
}

struct StopAt(usize);

impl Callback for StopAt {
    fn on_batch_end(&mut self, state: &BatchEnd) -> ControlFlow<()> {
        assert!(state.loss.is_finite());
        if state.epoch == 3 && state.batch == self.0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

#[test]
fn an_interrupted_model_is_its_best() {
    let [lstm, ..] = stacks();
    let (x, y) = data::<f32>(60);
    let mut model = build(emulated(DType::F32, 0, false), &lstm);
    let mut callback = StopAt(3);
    let options = FitOptions {
        epochs: 50,
        batch_size: 10,
        early_stopping: Some(EarlyStopping { patience: 50, min_delta: 0.0, restore_best_weights: true }),
        validation_data: Some((vec![(&x).into()], vec![(&y).into()])),
        callbacks: vec![&mut callback],
        ..FitOptions::default()
    };
    let history = model.fit(x.view(), y.view(), options).unwrap();
    let best = history.best_epoch.unwrap();
    assert_eq!(model.evaluate(x.view(), y.view()).unwrap(), history.val_loss[best - 1]);
}

/// Stopped in the middle of an epoch, between two looks at the loss.
#[test]
fn a_training_goes_on_from_its_checkpoint() {
    let layers: [LayerConfig; 2] = [Lstm::new(4).stateful(true).into(), Dense::new(1).into()];
    let (x, y) = data::<f32>(46);
    let train = |backup: Option<BackupAndRestore>, stop: usize| {
        let mut model = build(emulated(DType::F32, 0, false), &layers);
        let mut callback = StopAt(stop);
        let options = FitOptions {
            epochs: 4,
            batch_size: 8,
            loss_every: 3,
            backup,
            callbacks: vec![&mut callback],
            ..FitOptions::default()
        };
        let history = model.fit(x.view(), y.view(), options).unwrap();
        (weights(&model), history)
    };
    let folder = tempfile::tempdir().unwrap();
    let backup = || Some(BackupAndRestore::new(folder.path().join("checkpoint.safetensors")));
    assert_eq!(train(backup(), 2).1.outcome, Outcome::Interrupted);
    assert_eq!(train(backup(), usize::MAX), train(None, usize::MAX));
}

#[test]
fn files_and_weights_go_from_device_to_cpu_and_back() {
    let [_, mixed, _] = stacks();
    let (x, y) = data::<f64>(40);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut trained = build(emulated(DType::F64, 0, false), &mixed);
    trained.fit(x.view(), y.view(), FitOptions { epochs: 2, ..FitOptions::default() }).unwrap();
    trained.save(&path).unwrap();
    let mut on_cpu = Sequential::load(cpu(DType::F64), &path).unwrap();
    assert_eq!(weights(&on_cpu), weights(&trained));
    let predictions = trained.predict(x.view()).unwrap();
    let difference = (on_cpu.predict(x.view()).unwrap() - &predictions).mapv(f64::abs);
    assert!(difference.iter().all(|d| *d < 1e-13));
    let mut back = Sequential::load(emulated(DType::F64, 0, false), &path).unwrap();
    assert_eq!(back.predict(x.view()).unwrap(), predictions);

    let doubled: Vec<f64> = weights(&trained).iter().map(|w| 2.0 * w).collect();
    for model in [&mut trained, &mut back] {
        model.set_flat_weights(&doubled).unwrap();
    }
    assert_eq!(weights(&back), doubled);
    assert_eq!(back.predict(x.view()).unwrap(), trained.predict(x.view()).unwrap());
    assert_ne!(back.predict(x.view()).unwrap(), predictions);

    let (loss, gradient) = trained.loss_gradient(x.view(), y.view()).unwrap();
    on_cpu.set_flat_weights(&doubled).unwrap();
    let (expected, slopes) = on_cpu.loss_gradient(x.view(), y.view()).unwrap();
    assert!((loss - expected).abs() < 1e-13);
    assert!(largest_difference(&gradient, &slopes) < 1e-13);
}
