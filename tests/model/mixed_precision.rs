//! Mixed precision of the CUDA backend: passes and products of f32 that compute in 16 bits, and models that train so.
//!
//! A pass is held to the bits of the same pass on tensors of 16 bits, which `tests/operator/backends/` judges; products to those of operands
//! rounded on the host. On the emulated GPU, and on a GPU when asked for.

use std::sync::Arc;

use crate::common::run::{Setup, infer, same_bits, same_bits_of, train};
use crate::common::tensors::{GRADS, Tensor, add_to, workspace};
use crate::common::truth::Named;
use crate::common::{Number, Problem, Rng, Verdict, for_random_problems};
use fused_rnn::backend::cuda::device;
use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions, FamilyChoice, Staged};
use fused_rnn::backend::ops::{MatMul, Orientation, Workspace};
use fused_rnn::backend::{ForwardMode, RecurrentBackend, WeightGrad};
use fused_rnn::data::windows;
use fused_rnn::model::{FitOptions, History, LossScale, Sequential};
use fused_rnn::nn::{Bidirectional, Dense, Gru, Loss, Lstm, SimpleRnn};
use fused_rnn::optim::Adam;
use fused_rnn::rnn::{Memory, RnnDescriptor, RnnShape, WeightLayout};
use fused_rnn::{DType, Device, Element, Error};

/// A type of 16 bits, and the option that computes in it.
trait Half: Number {
    const COMPUTE: Compute;
}

impl Half for half::f16 {
    const COMPUTE: Compute = Compute::F16;
}

impl Half for half::bf16 {
    const COMPUTE: Compute = Compute::Bf16;
}

/// Backends on one device.
struct Kit<D: device::Device> {
    device: Arc<D>,
    stream: D::Stream,
    family: FamilyChoice,
}

impl<D: device::Device> Kit<D> {
    /// In f32.
    fn on(&self, compute: Compute) -> Device
    where
        D: 'static,
    {
        Device::of(self.backend::<f32>(compute))
    }

    fn backend<E: Element>(&self, compute: Compute) -> CudaBackend<E, D> {
        let options = CudaOptions { compute, family: self.family, ..CudaOptions::default() };
        CudaBackend::with_options(self.device.clone(), self.stream.clone(), options)
    }
}

fn rounded<E: Element>(values: &[f32]) -> Vec<E> {
    values.iter().map(|v| E::of(f64::from(*v))).collect()
}

fn rounded_all<E: Element>(all: &Named<f32>) -> Named<E> {
    all.iter().map(|(name, values)| (name.clone(), rounded(values))).collect()
}

/// Whether a tensor holds numbers of 16 bits alone.
fn is_narrow<E: Number>(values: &[f32]) -> bool {
    values.iter().all(|v| E::of(f64::from(*v)).wide() == f64::from(*v) || v.is_nan())
}

/// The pass on f32 gives what the pass on rounded tensors gives; gradients of weights are as that one's before they were rounded.
fn a_pass_is_that_of_16_bits<E: Half, D: device::Device>(kit: &Kit<D>, problems: u64) {
    let mixed = Staged::new(kit.backend::<f32>(E::COMPUTE));
    let narrow = Staged::new(kit.backend::<E>(Compute::Exact));
    let property = |p: &Problem| -> Verdict {
        let fail = |e: Error| e.to_string();
        let (inputs, gradients) = (p.inputs::<f32>(), p.output_gradients::<f32>());
        let (narrow_inputs, narrow_gradients) = (p.inputs::<E>(), p.output_gradients::<E>());
        let (wide, own) = (Setup::<f32>::default(), Setup::<E>::default());
        let got = infer(&mixed, &p.descriptor, p.shape, &inputs, &wide).map_err(fail)?;
        let expected = infer(&narrow, &p.descriptor, p.shape, &narrow_inputs, &own).map_err(fail)?;
        same_bits("inference", &rounded_all::<E>(&got), &expected)?;
        let got = train(&mixed, &p.descriptor, p.shape, &inputs, &gradients, &wide).map_err(fail)?;
        let expected = train(&narrow, &p.descriptor, p.shape, &narrow_inputs, &narrow_gradients, &own).map_err(fail)?;
        same_bits("training", &rounded_all::<E>(&got), &expected)?;
        for (name, values) in &got {
            let of_weights = !["y", "hn", "cn", "dx", "dh0", "dc0"].contains(&name.as_str());
            if !of_weights && !is_narrow::<E>(values) {
                return Err(format!("{name} was not computed in 16 bits"));
            }
        }
        // Added to what stands there, in f32.
        let len = WeightLayout::new(&p.descriptor).map_err(fail)?.len();
        let before: Vec<f32> = Rng::new(p.recipe.seed).vector(len, 1.0).iter().map(|v| *v as f32).collect();
        let setup = Setup { add_to: Some(before.clone()), ..Setup::default() };
        let added = train(&mixed, &p.descriptor, p.shape, &inputs, &gradients, &setup).map_err(fail)?;
        let before = crate::common::truth::split_weights(&p.descriptor, &before);
        for (name, before) in &before {
            let sum: Vec<f32> = crate::common::run::get(&got, name).iter().zip(before).map(|(g, b)| b + g).collect();
            same_bits_of("added", name, crate::common::run::get(&added, name), &sum)?;
        }
        Ok(())
    };
    // States at checkpoints are kept in the element's type, so rounded in 16 bits only.
    for_random_problems::<f32>(problems, |r| r.descriptor.memory = Memory::Full, property);
}

/// Gradients of weights are sums in f32 that nothing has rounded to 16 bits.
fn gradients_of_weights_are_wide<E: Half, D: device::Device>(kit: &Kit<D>) {
    let descriptor = RnnDescriptor::lstm(9, 33);
    let shape = RnnShape { seq_len: 7, batch: 5 };
    let mut rng = Rng::new(3);
    let mut floats = |len: usize| rng.vector(len, 0.5).iter().map(|v| *v as f32).collect::<Vec<f32>>();
    let weights = floats(WeightLayout::new(&descriptor).unwrap().len());
    let inputs = fused_rnn::backend::pass::Inputs { weights, x: floats(7 * 5 * 9), ..Default::default() };
    let gradients = fused_rnn::backend::pass::OutputGradients { dy: Some(floats(7 * 5 * 33)), ..Default::default() };
    let backend = Staged::new(kit.backend::<f32>(E::COMPUTE));
    let results = train(&backend, &descriptor, shape, &inputs, &gradients, &Setup::default()).unwrap();
    for name in ["dweight_ih_l0", "dweight_hh_l0", "dbias_ih_l0"] {
        assert!(!is_narrow::<E>(crate::common::run::get(&results, name)), "{name} is rounded");
    }
}

/// `matmul` on f32 is the product of operands rounded to 16 bits, summed in f32.
fn products_round_their_operands<E: Half, D: device::Device + 'static>(kit: &Kit<D>) {
    let (mixed, exact) = (kit.on(E::COMPUTE), kit.on(Compute::Exact));
    let mut rng = Rng::new(11);
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (33, 17, 65), (64, 64, 32), (7, 130, 300), (20, 30, 2000)] {
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            let product = MatMul::single(orientation, m, n, k);
            let (a, b) = (rng.vector(m * k, 1.0), rng.vector(n * k, 1.0));
            let round = |values: &[f64]| values.iter().map(|v| E::of(*v).wide()).collect::<Vec<_>>();
            let (narrow_a, narrow_b) = (round(&a), round(&b));
            let at = |i: usize, j: usize, t: usize| match orientation {
                Orientation::Nt => (i * k + t, j * k + t),
                Orientation::Nn => (i * k + t, t * n + j),
                Orientation::Tn => (t * m + i, t * n + j),
            };
            for grad in GRADS {
                let before = rng.vector(m * n, 1.0);
                let run = |device: &Device| {
                    let mut c = Tensor::new(device, &before);
                    let mut space = workspace(device, Workspace::MatMul(product));
                    let (a, b) = (Tensor::new(device, &a), Tensor::new(device, &b));
                    device.matmul(product, 1.0, a.get(), b.get(), c.get_mut(), grad, space.get_mut()).unwrap();
                    c.values()
                };
                let got = run(&mixed);
                let mut differs = false;
                let as_it_is = run(&exact);
                for (index, got) in got.iter().enumerate() {
                    let (i, j) = (index / n, index % n);
                    let terms = |a: &[f64], b: &[f64]| -> (f64, f64) {
                        (0..k)
                            .map(|t| at(i, j, t))
                            .map(|(p, q)| a[p] * b[q])
                            .fold((0.0, 0.0), |(s, l), v| (s + v, l + v.abs()))
                    };
                    let (sum, size) = terms(&narrow_a, &narrow_b);
                    let expected = add_to(grad, before[index], sum);
                    // Each of k sums in f32 rounds by half an ulp of no more than the sum of magnitudes.
                    let allowed = f64::from(f32::EPSILON) / 2.0 * (k + 2) as f64 * (size + before[index].abs());
                    assert!(
                        (got - expected).abs() <= allowed,
                        "{product:?} {grad:?} [{i}, {j}]: {got}, not {expected}"
                    );
                    differs |= *got != as_it_is[index];
                }
                assert!(differs || m * n < 4, "{product:?}: nothing was rounded");
            }
        }
    }
}

/// A product's workspace is asked for, and one that is too small is refused.
fn small_workspace_is_refused<D: device::Device + 'static>(kit: &Kit<D>) {
    let device = &kit.on(Compute::Bf16);
    let product = MatMul::single(Orientation::Nt, 3, 4, 5);
    let needed = device.workspace(Workspace::MatMul(product));
    assert!(needed > 0);
    let (a, b) = (Tensor::new(device, &[1.0; 15]), Tensor::new(device, &[1.0; 20]));
    let (mut c, mut space) = (Tensor::poisoned(device, 12), Tensor::poisoned(device, needed - 1));
    let refused = device.matmul(product, 1.0, a.get(), b.get(), c.get_mut(), WeightGrad::Set, space.get_mut());
    assert!(matches!(&refused, Err(Error::Shape { tensor, .. }) if tensor == "workspace"), "{refused:?}");
    let huge = MatMul::single(Orientation::Nt, usize::MAX / 2, 4, 5);
    assert_eq!(device.workspace(Workspace::MatMul(huge)), usize::MAX);
}

/// Only f32 is multiplied in another type.
fn other_elements_are_refused<D: device::Device>(kit: &Kit<D>) {
    for compute in [Compute::Tf32, Compute::Bf16, Compute::F16] {
        let (descriptor, shape) = (RnnDescriptor::gru(3, 4), RnnShape { seq_len: 2, batch: 1 });
        let plan = kit.backend::<f64>(compute).plan(&descriptor, shape, ForwardMode::Inference).map(drop);
        assert!(matches!(&plan, Err(Error::InvalidOption { option, .. }) if option == "compute"), "{plan:?}");
        let plan = kit.backend::<half::f16>(compute).plan(&descriptor, shape, ForwardMode::Inference).map(drop);
        assert!(matches!(&plan, Err(Error::InvalidOption { option, .. }) if option == "compute"), "{plan:?}");
    }
    assert!(Device::of(kit.backend::<f32>(Compute::F16)).needs_loss_scale());
    assert!(Device::of(kit.backend::<half::f16>(Compute::Exact)).needs_loss_scale());
    for compute in [Compute::Bf16, Compute::Exact] {
        assert!(!Device::of(kit.backend::<f32>(compute)).needs_loss_scale(), "{compute:?}");
    }
}

/// All recurrent layers and both kinds of product.
fn model<D: device::Device + 'static>(kit: &Kit<D>, compute: Compute) -> Sequential {
    let mut model = Sequential::new(kit.on(compute), &[8, 1], 5).unwrap();
    model.add(Lstm::new(12).return_sequences(true)).unwrap();
    model.add(Bidirectional::new(Gru::new(6).return_sequences(true))).unwrap();
    model.add(SimpleRnn::new(10)).unwrap().add(Dense::new(1)).unwrap();
    model.compile(Adam::new(0.01).unwrap(), Loss::MeanSquaredError).unwrap();
    model
}

/// All weights of a model.
fn weights(model: &Sequential) -> Vec<f32> {
    model.flat_weights().unwrap()
}

fn sine() -> (ndarray::Array3<f32>, ndarray::Array2<f32>) {
    let sine: Vec<f32> = (0..72).map(|t| (t as f32 * 0.3).sin()).collect();
    windows(&sine, 8, 1).unwrap()
}

fn fit(model: &mut Sequential, epochs: usize) -> History {
    let (x, y) = sine();
    model.fit(x.view(), y.view(), FitOptions { epochs, batch_size: 16, ..FitOptions::default() }).unwrap()
}

/// Models train in mixed precision as they do in f32: as far, and not on the same bits.
fn models_train<D: device::Device + 'static>(kit: &Kit<D>) {
    let exact = fit(&mut model(kit, Compute::Exact), 12).loss;
    assert!(exact[11] < exact[0] / 4.0, "{exact:?}");
    for (compute, dtype) in [(Compute::Bf16, DType::Bf16), (Compute::F16, DType::F16)] {
        let mut model = model(kit, compute);
        let loss = fit(&mut model, 12).loss;
        assert_ne!(loss, exact);
        // The first epoch starts from the same weights: its outputs, of magnitude 1, differ by a few roundings for each layer and step.
        let near = 8.0 * dtype.epsilon();
        assert!((loss[0] - exact[0]).abs() < near, "{compute:?}: {} and {}", loss[0], exact[0]);
        assert!(loss[11] < exact[0] / 4.0, "{compute:?}: {loss:?}");
        let (x, y) = sine();
        assert!(model.evaluate(x.view(), y.view()).unwrap() < exact[0] / 4.0);
        // Twelve epochs of four batches are not enough to grow, and none of them overflows.
        let expected = (compute == Compute::F16).then_some(32768.0);
        assert_eq!(model.loss_scale().map(|scale| scale.scale()), expected);
        // Master weights are f32.
        assert!(!is_narrow::<half::bf16>(&weights(&model)) && !is_narrow::<half::f16>(&weights(&model)));
    }
}

/// Gradients too large for f16 leave the step out and halve the scale, until they fit; then the scale grows again.
fn a_scale_finds_itself<D: device::Device + 'static>(kit: &Kit<D>) {
    let (x, y) = sine();
    let mut model = model(kit, Compute::F16);
    model.set_loss_scale(Some(LossScale::new(2f64.powi(30), 3).unwrap()));
    let before = weights(&model);
    let mut scales = vec![model.loss_scale().unwrap().scale()];
    let mut changed = None;
    for step in 0..40 {
        model.train_on_batch(x.view(), y.view()).unwrap();
        let scale = model.loss_scale().unwrap().scale();
        let last = *scales.last().unwrap();
        let skipped = scale < last;
        assert!(scale == last || scale == last / 2.0 || scale == 2.0 * last, "{scale} after {last}");
        if changed.is_none() && !skipped {
            changed = Some(step);
            assert_ne!(weights(&model), before, "step {step} counts");
        } else if changed.is_none() {
            assert_eq!(weights(&model), before, "step {step} does not count");
        }
        scales.push(scale);
    }
    let first = changed.expect("some scale fits");
    assert!(first > 3, "2^30 does not fit: {scales:?}");
    assert!(scales.windows(2).any(|pair| pair[1] > pair[0]), "it grows again: {scales:?}");
    // Where no scale helps, training has diverged, and says so.
    let mut model = self::model(kit, Compute::F16);
    model.set_loss_scale(Some(LossScale::new(2.0, 3).unwrap()));
    let mut huge = y.clone();
    huge.fill(1e30);
    let before = weights(&model);
    let options = || FitOptions { epochs: 3, batch_size: 64, shuffle: false, ..FitOptions::default() };
    let refused = model.fit(x.view(), huge.view(), options());
    assert!(matches!(refused, Err(Error::Diverged { .. })), "{refused:?}");
    assert_eq!(weights(&model), before);
}

/// The gradient does not depend on the scale, but for what f16 cannot hold; a scale of f32 changes nothing at all.
fn the_scale_is_divided_out<D: device::Device + 'static>(kit: &Kit<D>) {
    let (x, y) = sine();
    let gradient = |compute: Compute, scale: Option<f64>| {
        let mut model = model(kit, compute);
        model.set_loss_scale(scale.map(|scale| LossScale::new(scale, 100).unwrap()));
        let (loss, gradient) = model.loss_gradient(x.view(), y.view()).unwrap();
        (loss, gradient.to_vec())
    };
    assert_eq!(gradient(Compute::Exact, None), gradient(Compute::Exact, Some(4096.0)));
    assert_eq!(gradient(Compute::Bf16, None), gradient(Compute::Bf16, Some(4096.0)));
    let (_, truth) = gradient(Compute::Exact, None);
    let largest = truth.iter().fold(0.0f32, |m, g| m.max(g.abs()));
    let far = |gradient: &[f32]| truth.iter().zip(gradient).fold(0.0f32, |m, (a, b)| m.max((a - b).abs())) / largest;
    // A loss so small that its gradients lie below f16's numbers.
    let tiny = 2f64.powi(-24);
    let scaled_down = |scale: f64| {
        let mut model = model(kit, Compute::F16);
        model.losses(&[(Loss::MeanSquaredError, tiny)]).unwrap();
        model.set_loss_scale(Some(LossScale::new(scale, 100).unwrap()));
        let gradient = model.loss_gradient(x.view(), y.view()).unwrap().1;
        gradient.iter().map(|g| g * 2f32.powi(24)).collect::<Vec<_>>()
    };
    let (lost, kept) = (far(&scaled_down(1.0)), far(&scaled_down(2f64.powi(34))));
    let near = 32.0 * DType::F16.epsilon() as f32;
    assert!(kept < near, "with a scale the gradient is near: {kept}");
    assert!(lost > 0.1, "without one it is lost: {lost}");
}

/// Training in f16 goes on from a file with the same bits.
fn training_goes_on_from_a_file<D: device::Device + 'static>(kit: &Kit<D>, name: &str) {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("mixed_{name}.safetensors"));
    let mut through = model(kit, Compute::F16);
    through.set_loss_scale(Some(LossScale::new(1024.0, 5).unwrap()));
    fit(&mut through, 2);
    through.save(&path).unwrap();
    fit(&mut through, 2);
    let mut again = Sequential::load(kit.on(Compute::F16), &path).unwrap();
    assert_eq!(again.loss_scale().unwrap().scale(), 2048.0, "eight steps");
    fit(&mut again, 2);
    assert_eq!(weights(&through), weights(&again));
    assert_eq!(through.loss_scale(), again.loss_scale());
    // What is in the file is a model in f32, for any backend.
    let mut cpu = Sequential::load(Device::cpu(), &path).unwrap();
    let (x, y) = sine();
    assert!(cpu.evaluate(x.view(), y.view()).unwrap().is_finite());
}

#[cfg(feature = "emulated")]
mod emulated {
    use super::*;
    use fused_rnn::backend::cuda::Family;
    use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};

    fn kit(family: FamilyChoice) -> Kit<Emulated> {
        Kit { device: Emulated::new(Schedule::default()).expect("valid").into(), stream: EmulatedStream, family }
    }

    fn usual() -> Kit<Emulated> {
        kit(FamilyChoice::Fastest)
    }

    /// Operators have tensors of 16 bits, models have not.
    #[test]
    fn no_model_on_a_device_in_16_bits() {
        for dtype in [DType::F16, DType::Bf16] {
            let device = Device::emulated().unwrap().with_dtype(dtype).unwrap();
            let error = Sequential::new(device, &[3, 1], 0).err().expect("a refusal");
            assert!(matches!(&error, Error::Unsupported { what, .. } if what.contains(dtype.name())), "{error:?}");
        }
        assert!(Device::emulated().unwrap().with_dtype(DType::U32).is_err());
    }

    #[test]
    fn passes() {
        a_pass_is_that_of_16_bits::<half::f16, _>(&usual(), 60);
        a_pass_is_that_of_16_bits::<half::bf16, _>(&usual(), 60);
        for family in [Family::Step, Family::Block, Family::Cluster, Family::Grid] {
            a_pass_is_that_of_16_bits::<half::bf16, _>(&kit(FamilyChoice::Prefer(family)), 25);
        }
    }

    #[test]
    fn gradients() {
        gradients_of_weights_are_wide::<half::f16, _>(&usual());
        gradients_of_weights_are_wide::<half::bf16, _>(&usual());
    }

    #[test]
    fn products() {
        products_round_their_operands::<half::f16, _>(&usual());
        products_round_their_operands::<half::bf16, _>(&usual());
        small_workspace_is_refused(&usual());
    }

    #[test]
    fn options() {
        other_elements_are_refused(&usual());
    }

    #[test]
    fn training() {
        models_train(&usual());
    }

    #[test]
    fn scales() {
        a_scale_finds_itself(&usual());
        the_scale_is_divided_out(&usual());
    }

    #[test]
    fn files() {
        training_goes_on_from_a_file(&usual(), "emulated");
    }
}

/// On a GPU: `cargo test --test model mixed_precision::on_gpu -- --ignored`.
mod on_gpu {
    use super::*;
    use fused_rnn::backend::cuda::driver::{Driver, DriverStream};

    fn kit() -> Kit<Driver> {
        let device = crate::common::gpu::gpu();
        let stream = DriverStream::new(&device).expect("a stream");
        Kit { device, stream, family: FamilyChoice::Fastest }
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn passes() {
        let kit = &kit();
        a_pass_is_that_of_16_bits::<half::f16, _>(kit, 200);
        a_pass_is_that_of_16_bits::<half::bf16, _>(kit, 200);
        gradients_of_weights_are_wide::<half::f16, _>(kit);
        gradients_of_weights_are_wide::<half::bf16, _>(kit);
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn products() {
        let kit = &kit();
        products_round_their_operands::<half::f16, _>(kit);
        products_round_their_operands::<half::bf16, _>(kit);
        small_workspace_is_refused(kit);
        other_elements_are_refused(kit);
    }

    #[test]
    #[ignore = "needs a GPU"]
    fn training() {
        let kit = &kit();
        models_train(kit);
        a_scale_finds_itself(kit);
        the_scale_is_divided_out(kit);
        training_goes_on_from_a_file(kit, "gpu");
    }
}
