//! Options of all layers: regularizers in the loss, constraints, frozen layers, functions of one's own; and what is refused leaves a model as
//! it was.

use crate::{cpu, weights};
use fused_rnn::gradcheck;
use fused_rnn::model::{FitOptions, Graph, Model, Sequential};
use fused_rnn::nn::*;
use fused_rnn::optim::{AdamW, Sgd};
use ndarray::{ArrayD, IxDyn};

fn draw(shape: &[usize], stream: u32) -> ArrayD<f64> {
    let mut random = Random::new(21, stream);
    let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

fn stack(input_shape: &[usize], layers: Vec<LayerConfig>) -> Sequential {
    let mut model = Sequential::new(cpu(), input_shape, 3).unwrap();
    for layer in layers {
        model.add(layer).unwrap();
    }
    model
}

fn epochs<'a>(epochs: usize) -> FitOptions<'a> {
    FitOptions { epochs, batch_size: 4, validation_split: 0.5, ..FitOptions::default() }
}

/// An own penalty of each weight and of outputs stands in the loss of training, of validation and of evaluation, and gradients are those of it.
#[test]
fn penalties_stand_in_every_loss() {
    let (x, y) = (draw(&[8, 5, 2], 1), draw(&[8, 2], 2));
    let layers = |factor: f64| {
        let lstm =
            Lstm::new(3).kernel_regularizer(Regularizer::l1(factor)).recurrent_regularizer(Regularizer::l2(factor));
        let dense = Dense::new(2).activation(ActivationFunction::Gelu).activity_regularizer(Regularizer::l2(factor));
        vec![lstm.into(), dense.into()]
    };
    let (mut plain, mut penalized) = (stack(&[5, 2], layers(0.0)), stack(&[5, 2], layers(0.5)));
    let sum = |model: &Model, name: &str, term: fn(f64) -> f64| {
        model.weight::<f64>(name).unwrap().into_iter().map(term).sum::<f64>()
    };
    let of_weights = sum(&plain, "lstm.weight_ih_l0", f64::abs) + sum(&plain, "lstm.weight_hh_l0", |w| w * w);
    let of_output = |y: &ArrayD<f64>| y.iter().map(|v| v * v).sum::<f64>() / y.shape()[0] as f64;
    let predicted = plain.predict(&x).unwrap();
    let expected = plain.evaluate(&x, &y).unwrap() + 0.5 * (of_weights + of_output(&predicted));
    assert!((penalized.evaluate(&x, &y).unwrap() - expected).abs() < 1e-12);
    let report = gradcheck::model(&mut penalized, &[x.view()], &[y.view()], |_, _| true).unwrap();
    assert!(report.worst < 1e-7, "{report:?}");

    let still = |model: &mut Sequential| {
        model.compile(Sgd::new(1e-300).unwrap(), Loss::MeanSquaredError).unwrap();
        model.fit(&x, &y, epochs(1)).unwrap()
    };
    let (without, with) = (still(&mut plain), still(&mut penalized));
    let half = |first: usize| predicted.slice_axis(ndarray::Axis(0), (first..first + 4).into()).to_owned();
    for (without, with, y) in [(&without.loss, &with.loss, half(0)), (&without.val_loss, &with.val_loss, half(4))] {
        let expected = without[0] + 0.5 * (of_weights + of_output(&y));
        assert!((with[0] - expected).abs() < 1e-10, "{} {expected}", with[0]);
    }
}

#[test]
fn constraints_hold_after_every_step_and_in_files() {
    let (x, y) = (draw(&[8, 5, 2], 1), draw(&[8, 2], 2));
    let lstm = Lstm::new(3).kernel_constraint(Constraint::max_norm(0.3)).recurrent_constraint(Constraint::unit_norm());
    let dense =
        Dense::new(2).kernel_constraint(Constraint::NonNegative).bias_initializer(Initializer::Constant { value: 0.5 });
    let mut model = stack(&[5, 2], vec![lstm.into(), dense.into()]);
    assert_eq!(model.weight::<f64>("dense.bias").unwrap(), [0.5, 0.5]);
    model.fit(&x, &y, epochs(3)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    let mut loaded = Model::load(cpu(), &path).unwrap();
    assert_eq!(loaded.config().unwrap(), model.config().unwrap());
    for model in [&mut *model, &mut loaded] {
        model.fit(&x, &y, epochs(1)).unwrap();
        let norms = |name: &str, width: usize| -> Vec<f64> {
            let weights: Vec<f64> = model.weight(name).unwrap();
            weights.chunks(width).map(|row| row.iter().map(|w| w * w).sum::<f64>().sqrt()).collect()
        };
        assert!(norms("lstm.weight_ih_l0", 2).iter().all(|norm| *norm <= 0.3));
        assert!(norms("lstm.weight_hh_l0", 3).iter().all(|norm| (norm - 1.0).abs() < 1e-6));
        assert!(model.weight::<f64>("dense.weight").unwrap().iter().all(|w| *w >= 0.0));
    }
    assert_eq!(weights(&loaded), weights(&model));
}

/// A frozen layer keeps its weights and its moving averages, layers on both sides learn, and all of it goes through a file.
#[test]
fn frozen_layers() {
    let (x, y) = (draw(&[8, 5, 2], 1), draw(&[8, 2], 2));
    let build = || {
        let first = Lstm::new(3).return_sequences(true);
        stack(&[5, 2], vec![first.into(), BatchNormalization::new().into(), Gru::new(3).into(), Dense::new(2).into()])
    };
    let values = |model: &Model, layer: &str| -> Vec<f64> {
        let of_layer = model.weights().filter(|(name, ..)| name.starts_with(&format!("{layer}.")));
        of_layer.flat_map(|(.., values)| values.host::<f64>().unwrap().to_vec()).collect()
    };
    let mut model = build();
    let all = model.count_params();
    let before: Vec<_> = ["lstm", "batch_normalization", "gru", "dense"].map(|layer| values(&model, layer)).into();
    let own = before[1].len() / 2 + before[2].len();
    model.set_trainable("batch_normalization", false).unwrap().set_trainable("gru", false).unwrap();
    assert_eq!((model.count_params(), model.count_non_trainable()), (all - own, own + before[1].len() / 2));
    assert!(!model.is_trainable("gru").unwrap() && model.is_trainable("lstm").unwrap());
    let summary = model.summary();
    let line = |count: usize| format!("params: {count} (");
    assert!(summary.contains(&line(all - own)) && summary.contains(&line(own + before[1].len() / 2)), "{summary}");
    let report = gradcheck::model(&mut model, &[x.view()], &[y.view()], |_, _| true).unwrap();
    assert!(report.worst < 1e-7, "{report:?}");

    model.compile(AdamW::default(), Loss::MeanSquaredError).unwrap();
    model.fit(&x, &y, epochs(2)).unwrap();
    let after: Vec<_> = ["lstm", "batch_normalization", "gru", "dense"].map(|layer| values(&model, layer)).into();
    for (layer, (before, after)) in before.iter().zip(&after).enumerate() {
        assert_eq!(before == after, layer == 1 || layer == 2, "layer {layer}");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    model.save(&path).unwrap();
    let mut loaded = Model::load(cpu(), &path).unwrap();
    assert_eq!(loaded.count_params(), all - own);
    model.fit(&x, &y, epochs(1)).unwrap();
    loaded.fit(&x, &y, epochs(1)).unwrap();
    assert_eq!(weights(&loaded), weights(&model));

    let kept = values(&model, "lstm");
    model.set_all_trainable(true).unwrap();
    assert_eq!((model.count_params(), values(&model, "lstm")), (all, kept));
    assert!(model.set_trainable("nothing", false).is_err());
    model.set_all_trainable(false).unwrap();
    model.fit(&x, &y, epochs(1)).unwrap();
    assert_eq!(values(&model, "gru"), before[2]);
    model.save(&path).unwrap();
    Model::load(cpu(), &path).unwrap();
}

#[test]
fn functions_of_ones_own() {
    let (x, y) = (draw(&[4, 3], 1), draw(&[4, 2], 2));
    let build = |seed| {
        let mut model = Sequential::new(cpu(), &[3], seed).unwrap();
        model.add(Dense::new(3)).unwrap();
        model.add_own(Lambda::new("square", |x| x.mapv(|x| x * x), |x, dy| 2.0 * &x * &dy)).unwrap();
        model.add(Dense::new(2)).unwrap();
        model
    };
    let mut model = build(3);
    let report = gradcheck::model(&mut model, &[x.view()], &[y.view()], |_, _| true).unwrap();
    assert!(report.worst < 1e-7, "{report:?}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let text = model.save(&path).unwrap_err().to_string();
    assert!(text.contains("layer square") && text.contains("save_weights"), "{text}");
    model.save_weights(&path).unwrap();
    let mut other = build(4);
    assert_ne!(weights(&other), weights(&model));
    other.load_weights(&path).unwrap();
    assert_eq!(weights(&other), weights(&model));
    let mut wider = stack(&[3], vec![Dense::new(4).into(), Dense::new(2).into()]);
    let kept = weights(&wider);
    let text = wider.load_weights(&path).unwrap_err().to_string();
    assert!(text.contains("dense.weight: expected shape [4, 3]"), "{text}");
    assert_eq!(weights(&wider), kept);

    let mut model = Sequential::new(cpu(), &[3], 1).unwrap();
    model.add_own(Lambda::new("sum", |x| x.sum_axis(ndarray::Axis(0)), |x, _| x.to_owned())).err().expect("no samples");
    model.add_own(Lambda::new("wrong", |x| x.to_owned(), |_, _| ArrayD::zeros(IxDyn(&[1])))).unwrap();
    let text = model.input_gradients(&x, &draw(&[4, 3], 5)).unwrap_err().to_string();
    assert!(text.contains("the derivative of wrong"), "{text}");
}

/// Noise has its moments, is another at each step, and is nothing without training.
#[test]
fn noise_of_training() {
    let x = ArrayD::from_elem(IxDyn(&[40, 50, 10]), 2.0);
    for (layer, deviation) in [
        (LayerConfig::from(GaussianNoise::new(0.5)), 0.5),
        (GaussianDropout::new(0.2).into(), 2.0 * 0.5),
        (SpatialDropout1D::new(0.2).into(), 2.0 * 0.5),
    ] {
        let mut model = stack(&[50, 10], vec![layer.clone()]);
        assert_eq!(model.predict(&x).unwrap(), x);
        // The loss to the input itself is the noise's variance.
        let (loss, _) = model.loss_gradient(&x, &x).unwrap();
        let allowed = if matches!(layer, LayerConfig::SpatialDropout1D(_)) { 0.25 } else { 0.03 };
        assert!((loss / (deviation * deviation) - 1.0).abs() < allowed, "{layer:?}: {loss}");
    }
}

/// Whatever is refused leaves the model as it was, to be gone on with, saved and loaded.
#[test]
fn a_refused_layer_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = stack(&[4, 2], vec![Lstm::new(3).return_sequences(true).into()]);
    let (count, config) = (model.count_params(), model.config().unwrap());
    for (layer, words) in [
        (LayerConfig::from(Lstm::new(3).return_state(true)), "use a graph"),
        (Masking::new(f64::INFINITY).into(), "mask_value"),
        (Masking::new(f64::NAN).into(), "mask_value"),
        (Slice::of_parts(1, &[Part::Filled { value: f64::NEG_INFINITY, count: 1 }]).into(), "parts"),
        (Dropout::new(1.0).into(), "rate"),
        (SpatialDropout1D::new(f64::NAN).into(), "rate"),
        (GaussianNoise::new(f64::INFINITY).into(), "stddev"),
        (GaussianDropout::new(1.0).into(), "rate"),
        (Elementwise::new(Function::Clip { low: f64::INFINITY, high: f64::INFINITY }).into(), "function"),
        (MultiHeadAttention::new(1 << 32, 1 << 32).into(), "overflow"),
        (MultiHeadAttention::new(2, 2).value_dim(usize::MAX).into(), "overflow"),
        (Dense::new(2).kernel_regularizer(Regularizer::l2(f64::INFINITY)).into(), "kernel_regularizer"),
        (Dense::new(2).activity_regularizer(Regularizer::l1(-1.0)).into(), "activity_regularizer"),
        (Dense::new(2).bias_initializer(Initializer::ORTHOGONAL).into(), "bias_initializer"),
        (Dense::new(2).kernel_initializer(Initializer::Constant { value: f64::NAN }).into(), "kernel_initializer"),
        (Gru::new(2).recurrent_initializer(Initializer::IDENTITY).into(), "recurrent_initializer"),
        (Gru::new(2).bias_constraint(Constraint::unit_norm()).into(), "bias_constraint"),
        (Dense::new(2).kernel_constraint(Constraint::max_norm(f64::INFINITY)).into(), "kernel_constraint"),
        (Dense::new(2).kernel_constraint(Constraint::MaxNorm { max_value: 1.0, axes: vec![2] }).into(), "axes"),
        (Bidirectional::new(Lstm::new(2).dropout(2.0)).into(), "dropout"),
        (TimeDistributed::new(Lstm::new(2)).into(), "inputs of shape"),
    ] {
        let text = model.add(layer.clone()).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains(words), "{layer:?}: {text}");
        assert_eq!((model.count_params(), model.config().unwrap()), (count, config.clone()), "{layer:?}");
    }
    model.add(Lstm::new(2)).unwrap().add(Dense::new(1)).unwrap();
    assert!(model.config().unwrap().layers.iter().any(|layer| layer.name == "lstm_1"));
    model.fit(&draw(&[8, 4, 2], 1), &draw(&[8, 1], 2), epochs(1)).unwrap();
    model.save(&path).unwrap();
    assert_eq!(weights(&Model::load(cpu(), &path).unwrap()), weights(&model));

    let mut graph = Graph::new(cpu(), 1);
    let x = graph.input("x", &[4, 2]).unwrap();
    assert!(graph.add(Lstm::new(3).return_state(true), &[&x]).is_err());
    assert!(graph.add(Dense::new(0), &[&x]).is_err());
    assert!(graph.add_all(Bidirectional::new(Lstm::new(2).zoneout(7.0)), &[&x]).is_err());
    let shared = graph.layer(Dense::new(2)).unwrap();
    let y = graph.call(shared, &[&x]).unwrap();
    let z = graph.add(Lstm::new(3), &[&y]).unwrap();
    assert!(graph.call(shared, &[&z]).is_err());
    let mut model = graph.model(&[&z]).unwrap();
    assert_eq!(model.config().unwrap().layers.len(), 2);
    model.fit(&draw(&[8, 4, 2], 1), &draw(&[8, 3], 2), epochs(1)).unwrap();
    model.save(&path).unwrap();
    Model::load(cpu(), &path).unwrap();
}

#[test]
fn bounds_that_are_none_go_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let clip = |low, high| LayerConfig::from(Elementwise::new(Function::Clip { low, high }));
    let layers = vec![clip(f64::NEG_INFINITY, 1.0), clip(0.0, f64::INFINITY), Dense::new(1).into()];
    let model = stack(&[3], layers);
    model.save(&path).unwrap();
    assert_eq!(Model::load(cpu(), &path).unwrap().config().unwrap(), model.config().unwrap());
}

/// A dot stands between the names of a layer and of its parts, so that those of two layers may be alike; and names have an end.
#[test]
fn names_that_cannot_be() {
    let mut graph = Graph::new(cpu(), 1);
    let x = graph.input("x", &[4, 3]).unwrap();
    let outer = graph.named_layer("td", TimeDistributed::new(Dense::new(3))).unwrap();
    let dense = graph.named_layer("td.dense", Dense::new(3)).unwrap();
    let y = graph.call(outer, &[&x]).unwrap();
    let text = graph.call(dense, &[&y]).unwrap_err().to_string();
    assert!(text.contains("td.dense.weight"), "{text}");
    let long = "x".repeat(65_536);
    for refused in [graph.named_layer(&long, Dense::new(2)).err(), graph.input(&long, &[2]).err()] {
        let text = refused.map(|e| e.to_string()).unwrap_or_default();
        assert!(text.contains("4096 bytes") && text.len() < 200, "{text}");
    }
    // A shape may be long: tables show it all the same.
    let mut model =
        stack(&[3], vec![Reshape::new(&vec![1; 20_000].into_iter().chain([-1]).collect::<Vec<i64>>()).into()]);
    assert!(model.summary().len() > 65_536);
    model.add(Flatten::new()).unwrap();
}

/// Gradients are checked in the model's own precision, and a wrong one is found in it.
#[test]
fn gradients_in_single_precision() {
    let (x, y) = (draw(&[4, 5, 2], 1), draw(&[4, 2], 2));
    for wrong in [1.0, 1.1] {
        let mut model = Sequential::new(fused_rnn::Device::cpu(), &[5, 2], 3).unwrap();
        model.add(Lstm::new(3).return_sequences(true)).unwrap().add(Gru::new(4)).unwrap();
        model.add_own(Lambda::new("sine", |x| x.mapv(f64::sin), move |x, dy| wrong * x.mapv(f64::cos) * &dy)).unwrap();
        model.add(Dense::new(2)).unwrap();
        let report = gradcheck::model(&mut model, &[x.view()], &[y.view()], |_, _| true).unwrap();
        assert_eq!(report.holds(), wrong == 1.0, "{report:?}");
    }
}

/// The nested cell of Keras's guide to [recurrent layers](https://keras.io/guides/working_with_rnns/): an input and a state of two parts each, a
/// vector and a matrix, which stand side by side here. `h1 += x1 K1`, `h2[u, v] += Σ x2[i, j] K23[i, j, u, v]`.
#[derive(Clone)]
struct Nested {
    units: [usize; 3],
    inputs: [usize; 3],
}

impl Nested {
    /// For each part its elements in and out.
    fn sizes(&self) -> [(usize, usize); 2] {
        let ([u1, u2, u3], [i1, i2, i3]) = (self.units, self.inputs);
        [(i1, u1), (i2 * i3, u2 * u3)]
    }

    /// Calls `each` with the element of weights, of the input of a sample and of the state of a sample that meet.
    fn products(&self, mut each: impl FnMut(usize, usize, usize)) {
        let (mut weight, mut input, mut unit) = (0, 0, 0);
        for (inputs, units) in self.sizes() {
            for i in 0..inputs {
                for u in 0..units {
                    each(weight + i * units + u, input + i, unit + u);
                }
            }
            (weight, input, unit) = (weight + inputs * units, input + inputs, unit + units);
        }
    }
}

impl Cell for Nested {
    fn output_size(&self) -> usize {
        self.sizes().iter().map(|(_, units)| units).sum()
    }

    fn parameters(&self, _: usize) -> Vec<(String, Vec<usize>, Init)> {
        let ([u1, u2, u3], [i1, i2, i3]) = (self.units, self.inputs);
        let first = ("kernel_1".to_owned(), vec![i1, u1], Init::Uniform(0.05));
        vec![first, ("kernel_2_3".to_owned(), vec![i2, i3, u2, u3], Init::Uniform(0.05))]
    }

    fn forward(&mut self, _: &fused_rnn::Device, s: CellForward<'_>) -> fused_rnn::Result<()> {
        let (w, x, state): (&[f64], &[f64], &[f64]) = (s.parameters.host()?, s.x.host()?, s.state.host()?);
        let new: &mut [f64] = s.new_state.host()?;
        new.copy_from_slice(state);
        let (inputs, units) = (x.len() / s.batch, self.output_size());
        for b in 0..s.batch {
            self.products(|k, i, u| new[b * units + u] += w[k] * x[b * inputs + i]);
        }
        Ok(())
    }

    fn backward(&mut self, _: &fused_rnn::Device, s: CellBackward<'_>) -> fused_rnn::Result<()> {
        let (w, x, d): (&[f64], &[f64], &[f64]) = (s.parameters.host()?, s.x.host()?, s.dnew_state.host()?);
        let (dw, dx): (&mut [f64], &mut [f64]) = (s.dparameters.host()?, s.dx.host()?);
        s.dstate.host::<f64>()?.copy_from_slice(d);
        dx.fill(0.0);
        let (inputs, units) = (x.len() / s.batch, self.output_size());
        for b in 0..s.batch {
            self.products(|k, i, u| {
                dx[b * inputs + i] += w[k] * d[b * units + u];
                dw[k] += x[b * inputs + i] * d[b * units + u];
            });
        }
        Ok(())
    }
}

#[test]
fn the_nested_cell_of_kerass_guide() {
    let cell = Nested { units: [2, 3, 2], inputs: [3, 2, 2] };
    let report = gradcheck::cell(&fused_rnn::Device::reference(), cell.clone(), 7).unwrap();
    assert!(report.holds(), "{report:?}");
    // Two inputs and two outputs, put side by side and taken apart.
    let mut graph = Graph::new(cpu(), 1);
    let (x1, x2) = (graph.input("x1", &[4, 3]).unwrap(), graph.input("x2", &[4, 2, 2]).unwrap());
    let flat = graph.add(TimeDistributed::new(Flatten::new()), &[&x2]).unwrap();
    let joined = graph.add(Concatenate::new(), &[&x1, &flat]).unwrap();
    let layer = graph.own_layer(Rnn::new(cell), None).unwrap();
    let last = graph.call(layer, &[&joined]).unwrap();
    let h1 = graph.add(Slice::new(1, 0, 2), &[&last]).unwrap();
    let h2 = graph.add(Slice::new(1, 2, 6), &[&last]).unwrap();
    let h2 = graph.add(Reshape::new(&[3, 2]), &[&h2]).unwrap();
    let mut model = graph.model(&[&h1, &h2]).unwrap();
    let x = [draw(&[5, 4, 3], 1), draw(&[5, 4, 2, 2], 2)];
    let y = model.predict_all(x.iter().map(|x| x.view()).collect::<Vec<_>>()).unwrap();
    // The state is the sum over the steps.
    let (k1, k23) = (model.weight::<f64>("rnn.kernel_1").unwrap(), model.weight::<f64>("rnn.kernel_2_3").unwrap());
    let sums = [0, 1].map(|i: usize| x[i].sum_axis(ndarray::Axis(1)));
    for b in 0..5 {
        let first: f64 = (0..3).map(|i| sums[0][[b, i]] * k1[i * 2 + 1]).sum();
        let second: f64 = (0..4).map(|i| sums[1][[b, i / 2, i % 2]] * k23[i * 6 + 5]).sum();
        assert!((y[0][[b, 1]] - first).abs() < 1e-12 && (y[1][[b, 2, 1]] - second).abs() < 1e-12);
    }
}

/// What no device could hold as a number, whatever it is drawn from.
#[test]
fn initializers_that_overflow_are_refused() {
    let huge = [
        Initializer::Constant { value: 1e39 },
        Initializer::Constant { value: f64::NAN },
        Initializer::RandomNormal { mean: 0.0, stddev: 1e300 },
        Initializer::RandomUniform { minval: -f64::MAX, maxval: f64::MAX },
        Initializer::TruncatedNormal { mean: f64::INFINITY, stddev: 1.0 },
        Initializer::Orthogonal { gain: 1e31 },
    ];
    for initializer in huge {
        let mut model = Sequential::new(cpu(), &[3], 1).unwrap();
        let error = model.add(Dense::new(3).kernel_initializer(initializer)).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("kernel_initializer of dense") && error.contains("1e30"), "{error}");
    }
}
