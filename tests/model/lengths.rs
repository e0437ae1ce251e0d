//! Inputs of any length: what Keras computes with them (`tests/fixtures/lengths.json`), the bits of models of one length, and what is refused.

use crate::{cpu, weights};
use fused_rnn::data::TimeseriesDataset;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::optim::{Adam, Sgd};
use fused_rnn::{Device, Error, Result};
use ndarray::{Array2, Array3, ArrayD, ArrayViewD, IxDyn, s};
use serde_json::Value;

fn recorded() -> Value {
    serde_json::from_str(include_str!("../fixtures/lengths.json")).unwrap()
}

/// Nested lists of numbers as an array.
fn array(value: &Value) -> ArrayD<f64> {
    fn walk(value: &Value, depth: usize, shape: &mut Vec<usize>, numbers: &mut Vec<f64>) {
        match value {
            Value::Array(items) => {
                if shape.len() == depth {
                    shape.push(items.len());
                }
                items.iter().for_each(|item| walk(item, depth + 1, shape, numbers));
            }
            number => numbers.push(number.as_f64().unwrap()),
        }
    }
    let (mut shape, mut numbers) = (Vec::new(), Vec::new());
    walk(value, 0, &mut shape, &mut numbers);
    ArrayD::from_shape_vec(IxDyn(&shape), numbers).unwrap()
}

fn take_weights(model: &mut Model, recorded: &Value) {
    for (layer, given) in recorded.as_object().unwrap() {
        let given: Vec<_> = given.as_array().unwrap().iter().map(array).collect();
        model.set_keras_weights(layer, &given).unwrap_or_else(|e| panic!("{layer}: {e}"));
    }
}

fn check(what: &str, got: ArrayViewD<'_, f64>, expected: ArrayViewD<'_, f64>) {
    assert_eq!(got.shape(), expected.shape(), "{what}");
    for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!((got - expected).abs() < 1e-9, "{what}: element {index} is {got}, in Keras {expected}");
    }
}

/// A stack on inputs of 3 features and so many steps.
fn stack(device: Device, steps: Option<usize>, layers: &[LayerConfig]) -> Sequential {
    let mut model = Sequential::new(device, &[steps, Some(3)], 1).unwrap();
    for layer in layers {
        model.add(layer.clone()).unwrap();
    }
    model
}

/// The models of the script.
fn kerass(name: &str, device: Device, steps: Option<usize>) -> Model {
    let stack = |layers: Vec<LayerConfig>| stack(device.clone(), steps, &layers).into_model();
    match name {
        "lstm" => stack(vec![Lstm::new(4).into(), Dense::new(2).into()]),
        "masked" => stack(vec![
            Masking::new(0.0).into(),
            Gru::new(4).return_sequences(true).into(),
            TimeDistributed::new(Dense::new(3).activation(ActivationFunction::Tanh)).into(),
            SimpleRnn::new(2).into(),
        ]),
        "bidirectional" => stack(vec![
            Masking::new(0.0).into(),
            Bidirectional::new(Lstm::new(3).return_sequences(true)).into(),
            Dense::new(2).into(),
        ]),
        "convolved" => stack(vec![
            Conv1D::new(4, 3).strides(2).padding(Padding::Same).into(),
            BatchNormalization::new().into(),
            Conv1D::new(4, 2).padding(Padding::Causal).activation(ActivationFunction::Relu).into(),
            MaxPooling1D::new(2).padding(Padding::Same).into(),
            UpSampling1D::new(2).into(),
            Lstm::new(3).into(),
        ]),
        "attention" => {
            let mut graph = Graph::new(device, 1);
            let x = graph.input("x", &[steps, Some(3)]).unwrap();
            let q = graph.add(Dense::new(4), &[&x]).unwrap();
            let y = graph.add(Attention::new(), &[&q, &q]).unwrap();
            let heads = graph.add(MultiHeadAttention::new(2, 2), &[&y, &y]).unwrap();
            let pooled = graph.add(GlobalAveragePooling1D::new(), &[&heads]).unwrap();
            graph.model(&[&pooled]).unwrap()
        }
        other => panic!("{other}"),
    }
}

#[test]
fn outputs_are_kerass_at_every_length() {
    let all = recorded();
    for device in [cpu(), crate::common::reference(fused_rnn::DType::F64)] {
        for (name, case) in all["predictions"].as_object().unwrap() {
            let mut model = kerass(name, device.clone(), None);
            take_weights(&mut model, &case["weights"]);
            // Twice, so that every length comes again after others.
            for output in case["outputs"].as_array().unwrap().iter().chain(case["outputs"].as_array().unwrap()) {
                let (x, y) = (array(&output["x"]), array(&output["y"]));
                check(&format!("{name} {:?}", x.shape()), model.predict(&x).unwrap().view(), y.view());
            }
        }
    }
}

#[test]
fn states_go_on_at_other_lengths_as_in_keras() {
    let all = recorded();
    let case = &all["carried"];
    let layers = [Lstm::new(3).stateful(true).return_sequences(true).into(), Gru::new(2).stateful(true).into()];
    let mut model = stack(cpu(), None, &layers);
    take_weights(&mut model, &case["weights"]);
    for _ in 0..2 {
        for part in case["parts"].as_array().unwrap() {
            let (x, y) = (array(&part["x"]), array(&part["y"]));
            check(&format!("{:?}", x.shape()), model.predict(&x).unwrap().view(), y.view());
        }
        model.reset_states();
    }
    // The same of cells that run a step at a time.
    let layers = [Lstm::new(3).stateful(true).zoneout(0.1).into()];
    let (mut any, mut whole) = (stack(cpu(), None, &layers), stack(cpu(), Some(9), &layers));
    let x = Array3::from_shape_fn((2, 9, 3), |(n, t, c)| ((n * 30 + t * 3 + c) as f64).sin());
    let parts = [any.predict(x.slice(s![.., ..4, ..])).unwrap(), any.predict(x.slice(s![.., 4.., ..])).unwrap()];
    assert_eq!(parts[1], whole.predict(&x).unwrap());
    // Another number of samples is refused at every length.
    let error = any.predict(&Array3::<f64>::zeros((3, 2, 3))).unwrap_err();
    assert!(error.to_string().contains("whole batches of 2 samples"), "{error}");
}

#[test]
fn training_on_several_lengths_is_kerass() {
    let all = recorded();
    let case = &all["trained"];
    let build = || {
        let layers = [
            Masking::new(0.0).into(),
            Lstm::new(4).return_sequences(true).into(),
            Gru::new(3).into(),
            Dense::new(1).into(),
        ];
        let mut model = stack(cpu(), None, &layers);
        take_weights(&mut model, &case["weights"]);
        model.compile(Sgd::new(0.2).unwrap(), Loss::MeanSquaredError).unwrap();
        model
    };
    let (mut model, mut sum) = (build(), 0.0);
    let batches = || case["batches"].as_array().unwrap().iter().map(|batch| (array(&batch["x"]), array(&batch["y"])));
    for (number, (x, y)) in batches().enumerate() {
        let (got, expected) = (model.train_on_batch(&x, &y).unwrap(), case["losses"][number].as_f64().unwrap());
        sum += got;
        assert!((got - expected).abs() < 1e-9, "step {number}: {got}, in Keras {expected}");
    }
    for (layer, expected) in case["after"].as_object().unwrap() {
        let got = model.keras_weights::<f64>(layer).unwrap();
        for (got, expected) in got.iter().zip(expected.as_array().unwrap()) {
            let expected = array(expected);
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() < 1e-9, "{layer}: {got}, in Keras {expected}");
            }
        }
    }
    // The same as one epoch of batches, and as the arrays of each length by themselves.
    let mut whole = build();
    let history = whole.fit_batches(|_| Ok(batches().map(Ok)), FitOptions::default()).unwrap();
    assert!((history.loss[0] - sum / 5.0).abs() < 1e-12);
    let mut apart = build();
    for (x, y) in batches() {
        apart.fit(&x, &y, FitOptions { shuffle: false, ..FitOptions::default() }).unwrap();
    }
    assert_eq!(weights(&whole), weights(&apart));
    assert_eq!(weights(&whole), weights(&model));
}

fn x(samples: usize, steps: usize) -> Array3<f64> {
    Array3::from_shape_fn((samples, steps, 3), |(n, t, c)| {
        if (n + t) % 5 == 4 { 0.0 } else { ((n * 40 + t * 3 + c) as f64 * 0.31).sin() }
    })
}

fn y(samples: usize) -> Array2<f64> {
    Array2::from_shape_fn((samples, 1), |(n, _)| (n as f64 * 0.7).cos())
}

/// Masks, dropout, statistics, attention, convolution, an output a step.
fn stacks() -> Vec<Vec<LayerConfig>> {
    vec![
        vec![
            Masking::new(0.0).into(),
            Dropout::new(0.2).into(),
            Lstm::new(4).return_sequences(true).recurrent_dropout(0.1).into(),
            BatchNormalization::new().into(),
            Gru::new(3).into(),
            Dense::new(1).into(),
        ],
        vec![
            ZeroPadding1D::new(1, 1).into(),
            Conv1D::new(4, 3).strides(2).into(),
            AveragePooling1D::new(2).padding(Padding::Same).into(),
            TransformerEncoder::new(2, 2, 5).into(),
            PositionalEncoding::new().into(),
            GlobalMaxPooling1D::new().into(),
            Dense::new(1).into(),
        ],
        vec![
            Bidirectional::new(Lstm::new(2).return_sequences(true)).into(),
            Lstm::new(3).num_layers(2).into(),
            RepeatVector::new(4).into(),
            SimpleRnn::new(3).return_sequences(true).into(),
            Flatten::new().into(),
            Dense::new(1).into(),
        ],
    ]
}

#[test]
fn each_length_has_the_bits_of_a_model_of_that_length() {
    for layers in stacks() {
        let mut any = stack(cpu(), None, &layers);
        any.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
        let start = weights(&any);
        // More than are kept, and those again.
        for steps in (6..16).chain(6..8) {
            let mut fixed = stack(cpu(), Some(steps), &layers);
            fixed.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
            assert_eq!(weights(&fixed), start, "the same seed draws the same weights");
            let mut fresh = stack(cpu(), None, &layers);
            fresh.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
            let (x, y, others) = (x(6, steps), y(6), self::x(4, steps + 3));
            // A validation of another length.
            let validation = || Some((vec![(&others).into()], vec![AnyArray::from(self::y(4))]));
            let options = || FitOptions { epochs: 2, batch_size: 4, ..FitOptions::default() };
            let history = fresh.fit(&x, &y, FitOptions { validation_data: validation(), ..options() }).unwrap();
            let expected = fixed.fit(&x, &y, options()).unwrap();
            assert_eq!((&history.loss, weights(&fresh)), (&expected.loss, weights(&fixed)), "{layers:?} {steps}");
            assert_eq!(history.val_loss[1], fresh.evaluate(&others, &self::y(4)).unwrap());
            assert_eq!(fresh.predict(&x).unwrap(), fixed.predict(&x).unwrap());
            assert_eq!(
                fresh.loss_gradient(&x, &y).unwrap(),
                fixed.loss_gradient(&x, &y).unwrap(),
                "{layers:?} {steps}"
            );
            assert_eq!(fresh.input_gradients(&x, &y).unwrap(), fixed.input_gradients(&x, &y).unwrap());
            // The one model at all lengths.
            any.set_flat_weights(&weights(&fixed)).unwrap();
            for (name, shape, values) in fixed.weights() {
                let _ = (shape, values);
                let values = fixed.weight::<f64>(&name).unwrap();
                any.set_weight(&name, &values).unwrap();
            }
            assert_eq!(any.predict(&x).unwrap(), fixed.predict(&x).unwrap(), "{layers:?} {steps}");
        }
    }
}

#[test]
fn files_keep_that_a_length_is_open() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = stack(cpu(), None, &stacks()[0]);
    model.compile(Adam::default(), Loss::MeanSquaredError).unwrap();
    model.fit(&x(6, 5), &y(6), FitOptions::default()).unwrap();
    model.save(&path).unwrap();
    let mut loaded = Sequential::load(cpu(), &path).unwrap();
    assert_eq!(loaded.config().unwrap().inputs[0].shape, [None, Some(3)]);
    assert_eq!(loaded.predict(&x(3, 9)).unwrap(), model.predict(&x(3, 9)).unwrap());
    for model in [&mut model, &mut loaded] {
        model.fit(&x(6, 7), &y(6), FitOptions { batch_size: 2, ..FitOptions::default() }).unwrap();
    }
    assert_eq!(weights(&loaded), weights(&model));
    // Freezing keeps it.
    model.set_trainable("lstm", false).unwrap();
    assert_eq!(model.predict(&x(3, 4)).unwrap().shape(), [3, 1]);
    assert_eq!(loaded.predict(&x(3, 4)).unwrap(), model.predict(&x(3, 4)).unwrap());
    // A length of one's own.
    model.set_steps(6).unwrap();
    assert_eq!(model.config().unwrap().inputs[0].shape, [Some(6), Some(3)]);
    assert!(model.input_axes().eq([&[Some(6), Some(3)][..]]));
    assert_eq!(model.predict(&x(3, 6)).unwrap(), loaded.predict(&x(3, 6)).unwrap());
    assert!(matches!(model.predict(&x(3, 7)), Err(Error::Shape { .. })));
    // Only one axis may be open in a file.
    let mut config = loaded.config().unwrap();
    config.inputs[0].shape = vec![None, None];
    let error = Model::from_config(cpu(), &config, 1).err().unwrap();
    assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "shape of input_layer"), "{error}");
}

#[test]
fn open_axes_are_shown() {
    let layers: [LayerConfig; 2] = [Conv1D::new(4, 3).strides(2).into(), Lstm::new(5).return_sequences(true).into()];
    let mut model = stack(cpu(), None, &layers);
    let lines = model.summary();
    assert!(lines.contains("(None, None, 4)") && lines.contains("(None, None, 5)"), "{lines}");
    assert!(model.output_axes().eq([&[None, Some(5)][..]]));
    let before = model.diagram().unwrap();
    assert!(before.contains("None, None, 5"), "{before}");
    model.predict(&x(1, 11)).unwrap();
    assert_eq!((model.input_shape(), model.output_shape()), (&[11, 3][..], &[5, 5][..]));
    assert_eq!((model.summary(), model.diagram().unwrap()), (lines, before), "the last call changes nothing");
    // A layer on top of a model that has been used.
    model.add(GlobalAveragePooling1D::new()).unwrap();
    assert!(model.summary().contains("(None, 5)"), "{}", model.summary());
    assert_eq!(model.predict(&x(2, 8)).unwrap().shape(), [2, 5]);
}

#[test]
fn layers_that_need_a_length_are_refused_by_name() {
    let mut model = Sequential::new(cpu(), &[None, Some(3)], 1).unwrap();
    model.add(Lstm::new(4).return_sequences(true)).unwrap().add(Flatten::new()).unwrap();
    let error = model.add(Dense::new(1000)).err().unwrap();
    let Error::Shape { tensor, expected, got } = &error else { panic!("{error}") };
    assert_eq!(tensor, "dense");
    assert!(expected.contains("GlobalAveragePooling1D"), "{error}");
    assert_eq!(got, "weight [1000, 20160] for 5040 steps, weight [1000, 40320] for 10080");
    // The model is as it was: other layers go on it, and it works.
    assert_eq!(model.predict(&x(2, 5)).unwrap().shape(), [2, 20]);
    assert!(model.add(Dense::new(2)).is_err(), "as long as what was seen last");
    model.add(ActivationLayer::new(ActivationFunction::Tanh)).unwrap();
    assert_eq!(model.predict(&x(2, 6)).unwrap().shape(), [2, 24]);

    let mut model = Sequential::new(cpu(), &[None, Some(3)], 1).unwrap();
    let error = model.add(Reshape::new(&[2, 6])).err().unwrap();
    assert!(error.to_string().contains("any number of steps, None, was tried as 5040"), "{error}");
    model.add(Reshape::new(&[-1, 1, 3])).unwrap();
    assert!(model.output_axes().eq([&[None, Some(1), Some(3)][..]]));

    let mut graph = Graph::new(cpu(), 1);
    let a = graph.input("a", &[None, Some(3)]).unwrap();
    let flat = graph.add(Flatten::new(), &[&a]).unwrap();
    let wide = graph.named_layer("wide", Dense::new(2)).unwrap();
    let y = graph.call(wide, &[&flat]).unwrap();
    let error = graph.model(&[&y]).err().unwrap();
    assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == "wide"), "{error}");

    let error = Sequential::new(cpu(), &[None::<usize>, None], 1).err().unwrap();
    assert!(matches!(error, Error::InvalidOption { .. }), "{error}");
    // The steps may stand last, as in a signal of channels.
    let mut model = Sequential::new(cpu(), &[Some(3), None], 1).unwrap();
    model.add(Permute::new(&[2, 1])).unwrap().add(Lstm::new(4)).unwrap();
    for steps in [5, 8] {
        assert_eq!(model.predict(&Array3::<f32>::zeros((2, 3, steps))).unwrap().shape(), [2, 4]);
    }
    assert!(matches!(Sequential::new(cpu(), &[None, Some(0)], 1), Err(Error::ZeroSize { .. })));
}

#[test]
fn arrays_that_do_not_fit_are_named() {
    let mut model = stack(cpu(), None, &[Conv1D::new(2, 4).into(), GlobalMaxPooling1D::new().into()]);
    let says = |error: Error| error.to_string();
    let error = says(model.predict(&Array3::<f64>::zeros((2, 5, 4))).unwrap_err());
    assert_eq!(
        error,
        "x: expected [samples, None, 3] (samples, then the model's input shape, None for any length), got [2, 5, 4]"
    );
    let error = says(model.predict(&Array2::<f64>::zeros((2, 3))).unwrap_err());
    assert!(error.starts_with("x: expected [samples, None, 3]"), "{error}");
    let error = says(model.predict(&Array3::<f64>::zeros((2, 0, 3))).unwrap_err());
    assert_eq!(error, "x: expected at least one step, got [2, 0, 3]");
    let error = says(model.predict(&Array3::<f64>::zeros((2, 3, 3))).unwrap_err());
    assert!(error.starts_with("conv1d: expected at least kernel_size 4 steps"), "{error}");
    assert!(!error.contains("5040"), "{error}");
    assert!(matches!(model.set_steps(3), Err(Error::Shape { .. })));
    assert!(matches!(model.set_steps(0), Err(Error::ZeroSize { .. })));
    assert!(matches!(model.predict(&Array3::<f64>::zeros((0, 5, 3))), Err(Error::ZeroSize { .. })));
    assert_eq!(model.predict(&x(2, 5)).unwrap().shape(), [2, 2], "the model works after all of them");
    // Steps of one feature may come without its axis, and numbers of words have none.
    let mut model = Sequential::new(cpu(), &[None, Some(1)], 1).unwrap();
    model.add(Gru::new(2)).unwrap();
    let flat = Array2::from_shape_fn((2, 5), |(n, t)| (n + t) as f64);
    assert_eq!(model.predict(&flat).unwrap(), model.predict(&flat.clone().insert_axis(ndarray::Axis(2))).unwrap());
    let mut words = Sequential::new(cpu(), &[None], 1).unwrap();
    words.add(Embedding::new(10, 3).mask_zero(true)).unwrap().add(Lstm::new(2)).unwrap();
    assert_eq!(words.predict(&flat).unwrap().shape(), [2, 2]);
    let padded = ndarray::concatenate![ndarray::Axis(1), flat.mapv(|n| n + 1.0), Array2::zeros((2, 4))];
    assert_eq!(words.predict(&padded).unwrap(), words.predict(&flat.mapv(|n| n + 1.0)).unwrap());
}

/// An encoder and a decoder of lengths of their own.
#[test]
fn inputs_have_lengths_of_their_own() {
    let mut graph = Graph::new(cpu(), 1);
    let source = graph.input("source", &[None, Some(3)]).unwrap();
    let target = graph.input("target", &[None, Some(3)]).unwrap();
    let encoded = graph.add(Gru::new(4).return_sequences(true), &[&source]).unwrap();
    let decoded = graph.add(Gru::new(4).return_sequences(true), &[&target]).unwrap();
    let seen = graph.add(Attention::new(), &[&decoded, &encoded]).unwrap();
    let both = graph.add(Concatenate::new(), &[&decoded, &seen]).unwrap();
    let y = graph.add(Dense::new(2), &[&both]).unwrap();
    let mut model = graph.model(&[&y]).unwrap();
    let mut run = |a: usize, b: usize| {
        let (a, b) = (x(2, a), x(2, b));
        model.predict(vec![a.view().into_dyn(), b.view().into_dyn()]).unwrap()
    };
    let first = run(5, 7);
    assert_eq!((first.shape(), run(7, 5).shape()), (&[2, 7, 2][..], &[2, 5, 2][..]));
    assert_eq!(run(5, 7), first);
    assert!(model.output_axes().eq([&[None, Some(2)][..]]));

    let mut graph = Graph::new(cpu(), 1);
    let a = graph.input("a", &[None, Some(3)]).unwrap();
    let b = graph.input("b", &[None, Some(3)]).unwrap();
    let sum = graph.add(Add::new(), &[&a, &b]).unwrap();
    let mut model = graph.model(&[&sum]).unwrap();
    let mut run = |a: usize, b: usize| {
        let (a, b) = (x(2, a), x(2, b));
        model.predict(vec![a.view().into_dyn(), b.view().into_dyn()])
    };
    assert_eq!(run(4, 4).unwrap().shape(), [2, 4, 3]);
    let error = run(4, 5).unwrap_err();
    assert!(matches!(&error, Error::Shape { tensor, .. } if tensor == "add"), "{error}");
    assert!(run(5, 5).is_ok());
}

/// Windows of growing length, validation batches of others.
#[test]
fn batches_may_have_other_lengths() {
    let series = Array2::from_shape_fn((80, 3), |(t, c)| ((t * (c + 2)) as f64 * 0.1).sin());
    let windows = |steps: usize| {
        let dataset = TimeseriesDataset::new(series.view(), steps);
        let all: Vec<usize> = (0..16).collect();
        let (x, _) = dataset.windows(&all).unwrap();
        (x, series.slice(s![steps..steps + 16, 0]).to_owned())
    };
    let mut model = stack(cpu(), None, &[Lstm::new(6).into(), Dense::new(1).into()]);
    model.compile(Adam::new(0.02).unwrap(), Loss::MeanSquaredError).unwrap();
    let options = FitOptions {
        epochs: 30,
        validation_batches: Some(Batches::new(|_| Ok([9, 11].map(|steps| Ok(windows(steps)))))),
        ..FitOptions::default()
    };
    let history = model.fit_batches(|_| Ok([6, 8, 10, 12, 14].map(|steps| Ok(windows(steps)))), options).unwrap();
    assert!(history.val_loss[29] < history.val_loss[0] / 4.0, "{:?}", history.val_loss);
    let evaluated = model.evaluate_batches([9, 11].map(|steps| Ok(windows(steps)))).unwrap();
    assert_eq!(evaluated[0].1, history.val_loss[29]);
    let error = model
        .fit_batches(
            |_| {
                Ok([(2, 3), (5, 4)]
                    .map(|(steps, features)| Ok((Array3::<f64>::zeros((2, steps, features)), self::y(2)))))
            },
            FitOptions::default(),
        )
        .unwrap_err();
    assert!(error.to_string().starts_with("epoch 1, batch 2: x: expected [samples, None, 3]"), "{error}");
}

/// Adds up all steps it has seen.
struct Total;

struct Adding {
    total: Vec<f64>,
    hands_on: bool,
}

impl Op for Adding {
    fn forward(&mut self, _: &Device, mut pass: Forward<'_>) -> Result<()> {
        let x = pass.inputs.get(0)?.host::<f64>()?;
        self.total.resize(pass.batch, 0.0);
        let y = pass.outputs.get(0)?;
        for ((total, x), y) in self.total.iter_mut().zip(x.chunks(x.len() / pass.batch)).zip(y.host::<f64>()?) {
            *total += x.iter().sum::<f64>();
            *y = *total;
        }
        Ok(())
    }

    fn backward(&mut self, _: &Device, _: Backward<'_>) -> Result<()> {
        Ok(())
    }

    fn is_stateful(&self) -> bool {
        true
    }

    fn carried_batch(&self) -> Option<usize> {
        Some(self.total.len()).filter(|n| *n > 0)
    }

    fn reset_states(&mut self) {
        self.total.clear();
    }

    fn take_states(&mut self) -> Option<States> {
        self.hands_on.then(|| Box::new(std::mem::take(&mut self.total)) as States)
    }

    fn give_states(&mut self, states: States) {
        self.total = *states.downcast().unwrap();
    }
}

impl Layer for Total {
    fn class_name(&self) -> &str {
        "Total"
    }

    fn stem(&self) -> &str {
        "total"
    }

    fn build(&self, builder: &mut Builder, inputs: &[fused_rnn::nn::Value]) -> Result<Vec<fused_rnn::nn::Value>> {
        // Longer ones hand nothing on.
        let hands_on = inputs[0].shape()[0] < 10;
        Ok(vec![builder.op1(Adding { total: Vec::new(), hands_on }, &[&inputs[0]], &[1], 0..0)?])
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

#[test]
fn operations_of_ones_own_hand_their_states_on() {
    let mut model = Sequential::new(cpu(), &[None, Some(1)], 1).unwrap();
    model.add_own(Total).unwrap();
    let ones = |steps: usize| Array3::<f64>::ones((2, steps, 1));
    let totals: Vec<f64> = [3, 5, 3, 1].map(|steps| model.predict(&ones(steps)).unwrap()[[1, 0]]).into();
    assert_eq!(totals, [3.0, 8.0, 11.0, 12.0]);
    assert_eq!(model.predict(&ones(11)).unwrap()[[0, 0]], 23.0);
    let error = model.predict(&ones(4)).unwrap_err();
    assert!(matches!(error, Error::Unsupported { .. }), "{error}");
    model.reset_states();
    assert_eq!(model.predict(&ones(4)).unwrap()[[0, 0]], 4.0);
}

/// Files of other programs have the open axis too, and what would be right for one length alone is refused.
#[cfg(feature = "exchange")]
#[test]
fn exported_files_have_the_open_axis() {
    use fused_rnn::exchange::onnx::ImportOptions;
    use fused_rnn::exchange::{Imported, keras, onnx};
    let folder = tempfile::tempdir().unwrap();
    let [as_onnx, as_keras, own] =
        ["model.onnx", "model.keras", "own.safetensors"].map(|name| folder.path().join(name));
    let layers: [LayerConfig; 5] = [
        Conv1D::new(4, 3).padding(Padding::Same).into(),
        UpSampling1D::new(2).into(),
        Conv1D::new(4, 3).strides(2).padding(Padding::Causal).into(),
        Bidirectional::new(Lstm::new(4).return_sequences(true)).into(),
        Dense::new(2).into(),
    ];
    let mut model = stack(cpu(), None, &layers);
    onnx::write(&model, &as_onnx).unwrap();
    keras::write(&model, &as_keras).unwrap();
    model.save(&own).unwrap();
    for steps in [5, 8] {
        let x = x(2, steps);
        let expected = model.predict(&x).unwrap();
        let options = ImportOptions::default().shapes(&[vec![2, steps, 3]]);
        let mut read = onnx::read(cpu(), &as_onnx, &options).unwrap();
        let got = read.predict(&[x.view().into_dyn()]).unwrap();
        assert_eq!(got[0].shape(), expected.shape());
        let far = |got: &ArrayD<f64>| got.iter().zip(&expected).fold(0.0, |far: f64, (a, b)| far.max((a - b).abs()));
        // ONNX files hold f32.
        assert!(far(&got[0]) < 1e-6, "{}", far(&got[0]));
        let mut read = keras::read_with_steps(cpu(), &as_keras, steps).unwrap();
        assert!(far(&read.predict(&[x.view().into_dyn()]).unwrap()[0]) < 1e-6);
        let mut read = Imported::load(cpu(), &own).unwrap();
        assert_eq!(read.predict(&[x.view().into_dyn()]).unwrap()[0], expected);
    }
    let mut open = keras::read(cpu(), &as_keras).unwrap();
    assert_eq!(open.inputs[0].shape, [None, Some(3)]);
    assert_eq!(
        open.predict(&[x(2, 9).view().into_dyn()]).unwrap()[0].shape(),
        model.predict(&x(2, 9)).unwrap().shape()
    );
    model.add(BatchNormalization::new()).unwrap();
    let error = onnx::write(&model, &as_onnx).unwrap_err();
    assert!(error.to_string().starts_with("batch_normalization with any number of steps in an ONNX file"), "{error}");
    model.set_steps(8).unwrap();
    onnx::write(&model, &as_onnx).unwrap();
    // Margins around an open axis.
    let every = Part::Range { start: None, stop: None, step: 1 };
    let parts = [Part::Filled { value: 0.5, count: 2 }, every, Part::Filled { value: -1.0, count: 1 }];
    let mut model = stack(cpu(), None, &[Slice::of_parts(1, &parts).into(), Lstm::new(4).into()]);
    onnx::write(&model, &as_onnx).unwrap();
    let mut read = onnx::read(cpu(), &as_onnx, &ImportOptions::default()).unwrap();
    assert_eq!(read.inputs[0].shape, [None, Some(3)]);
    for steps in [5, 8] {
        let x = x(2, steps);
        let got = read.predict(&[x.view().into_dyn()]).unwrap();
        let expected = model.predict(&x).unwrap();
        let far = got[0].iter().zip(&expected).fold(0.0, |far: f64, (a, b)| far.max((a - b).abs()));
        assert!(far < 1e-6, "{far}");
    }
    // As much as there is of it depends on the length.
    let model = stack(cpu(), None, &[MaxPooling1D::new(3).padding(Padding::Same).into()]);
    let error = onnx::write(&model, &as_onnx).unwrap_err();
    assert!(error.to_string().contains("max_pooling1d") && error.to_string().contains("set_steps"), "{error}");
}

/// A dense layer that counts how often one of its kind is built.
struct Counted;

static BUILT: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);

impl Layer for Counted {
    fn class_name(&self) -> &str {
        "Counted"
    }

    fn stem(&self) -> &str {
        "counted"
    }

    fn build(&self, builder: &mut Builder, inputs: &[fused_rnn::nn::Value]) -> Result<Vec<fused_rnn::nn::Value>> {
        BUILT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        LayerConfig::from(Dense::new(2)).build(builder, inputs)
    }

    fn config(&self) -> Option<LayerConfig> {
        None
    }
}

/// Each layer of a stack is built for its own length and for another one, not again for every layer above it.
#[test]
fn stacks_of_any_length_grow_in_linear_time() {
    let mut model = Sequential::new(cpu(), &[None, Some(2)], 1).unwrap();
    let built = || BUILT.load(std::sync::atomic::Ordering::Relaxed);
    let count = 300;
    for number in 0..count {
        model.add_own(Counted).unwrap();
        if number == 100 {
            // What is refused, and what changes layers below, cost one look at all of them.
            let before = built();
            // Weights of every step, and a shape of another size.
            assert!(model.add(PRelu::new()).is_err());
            assert!(model.add(Reshape::new(&[7, 11])).is_err());
            model.set_trainable("counted_3", false).unwrap();
            model.add_own(Counted).unwrap();
            assert!(built() - before < 8 * 101, "{}", built() - before);
        }
    }
    assert!(built() < 12 * count, "{} layers were built", built());
    assert_eq!(model.output_axes().next().unwrap(), [None, Some(2)]);
}
