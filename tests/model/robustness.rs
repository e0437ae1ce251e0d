//! What is accepted can be read back, what cannot be is refused by name, and building is linear.

use fused_rnn::Device;
use fused_rnn::backend::TensorRef;
use fused_rnn::interop::safetensors::{self, TensorFile};
use fused_rnn::metrics::{ConfusionMatrix, Metric, MetricAccumulator, ZeroDivision};
use fused_rnn::model::diagram::{DiagramNode, diagram};
use fused_rnn::model::{FitOptions, Graph, Model, Sequential};
use fused_rnn::nn::*;
use fused_rnn::optim::{Adam, Sgd};
use ndarray::{Array2, Array3};
use serde_json::Value;

/// The text of an error.
#[track_caller]
fn refused<T>(result: fused_rnn::Result<T>) -> String {
    match result {
        Ok(_) => panic!("accepted"),
        Err(error) => error.to_string(),
    }
}

#[track_caller]
fn assert_says(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "{part:?} is not in {text:?}");
    }
}

/// A trained model with a batch normalization.
fn trained() -> Sequential {
    let mut model = Sequential::new(Device::cpu(), &[3], 1).unwrap();
    model.add(BatchNormalization::new()).unwrap().add(Normalization::new()).unwrap().add(Dense::new(1)).unwrap();
    let (x, y) = (Array2::from_shape_fn((8, 3), |(i, j)| (i * j % 5) as f32), Array2::<f32>::ones((8, 1)));
    model.fit(&x, &y, FitOptions::default()).unwrap();
    model
}

/// Loads the file of that model with `change` made to its description and its tensors.
fn loaded(change: impl Fn(&mut Value, &str, &mut Vec<f32>)) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    trained().save(&path).unwrap();
    let file = TensorFile::read(&path).unwrap();
    let mut description: Value = serde_json::from_str(file.metadata("fused-rnn").unwrap()).unwrap();
    let mut tensors: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for name in file.names() {
        let (shape, mut values) = file.floats::<f32>(name).unwrap();
        change(&mut description, name, &mut values);
        tensors.push((name.to_owned(), shape, values));
    }
    let views: Vec<_> = tensors.iter().map(|(n, s, v)| (n.as_str(), s.clone(), TensorRef::of(v))).collect();
    safetensors::write(&path, "fused-rnn", &description.to_string(), &views).unwrap();
    refused(Model::load(Device::cpu(), &path))
}

#[test]
fn fields_of_files_that_cannot_be_are_refused_by_name() {
    for (tensor, element) in [("batch_normalization.moving_variance", 2), ("normalization.variance", 0)] {
        let text = loaded(|_, name, values| {
            if name == tensor {
                values[element] = -5.0;
            }
        });
        assert_says(&text, &["model.safetensors", tensor, &format!("element {element}"), "not below zero", "got -5"]);
    }
    for (field, count) in [("steps", u64::MAX), ("batches", u64::MAX), ("epochs", u64::from(u32::MAX))] {
        let text = loaded(|description, _, _| description["training"][field] = count.into());
        assert_says(&text, &["model.safetensors", &format!("training.{field}"), "at most", &count.to_string()]);
    }
    // A program cannot set one either.
    let mut model = trained();
    let text = refused(model.set_weight("batch_normalization.moving_variance", &[1.0f32, -1.0, 1.0]).map(drop));
    assert_says(&text, &["batch_normalization.moving_variance, element 1", "not below zero"]);
    assert!(model.weight::<f32>("batch_normalization.moving_variance").unwrap().iter().all(|v| *v >= 0.0));
}

/// Weights are replaced as a whole, or not at all.
#[test]
fn refused_weights_leave_those_from_before() {
    let mut model = trained();
    let all = |model: &Model| -> Vec<(String, Vec<f64>)> {
        let names: Vec<String> = model.weights().map(|(name, ..)| name).collect();
        names.into_iter().map(|name| (name.clone(), model.weight(&name).unwrap())).collect()
    };
    let before = all(&model);
    for (name, values) in &before {
        let mut others = vec![7.0; values.len()];
        *others.last_mut().unwrap() = 1e300;
        assert_says(&refused(model.set_weight(name, &others)), &[name, "1e300", "f32"]);
        assert_eq!(all(&model), before, "{name}");
    }
    let mut flat = vec![7.0; model.count_params()];
    *flat.last_mut().unwrap() = -1e300;
    assert_says(&refused(model.set_flat_weights(&flat)), &["weights", "-1e300"]);
    assert_eq!(all(&model), before);
    let mut arrays = model.keras_weights::<f64>("batch_normalization").unwrap();
    arrays[0].fill(7.0);
    arrays.last_mut().unwrap().fill(-1.0);
    assert_says(&refused(model.set_keras_weights("batch_normalization", &arrays)), &["variance", "not below zero"]);
    assert_eq!(all(&model), before);
}

#[test]
fn what_could_not_be_loaded_is_not_saved() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let mut model = trained();
    let whole = model.flat_weights::<f32>().unwrap();
    let mut weights = whole.clone();
    weights[7] = f32::NAN;
    model.set_flat_weights(&weights).unwrap();
    for text in [refused(model.save(&path)), refused(model.save_weights(&path))] {
        assert_says(&text, &["dense.weight", "NaN at element 1"]);
    }
    assert!(!path.exists());
    let empty = Sequential::new(Device::cpu(), &[3], 1).unwrap();
    assert_says(&refused(empty.save(&path)), &["layers", "the model has none"]);

    // A gradient whose square is beyond f32: its weight moves no more, and training goes on from the file as without.
    let mut model = Sequential::new(Device::cpu(), &[1], 1).unwrap();
    model.add(Dense::new(1)).unwrap().compile(Adam::default(), Loss::MeanAbsoluteError).unwrap();
    let (x, y) = (Array2::from_elem((4, 1), 1e25f32), Array2::<f32>::zeros((4, 1)));
    model.fit(&x, &y, FitOptions::default()).unwrap();
    model.save(&path).unwrap();
    let mut again = Model::load(Device::cpu(), &path).unwrap();
    for model in [&mut model, &mut again] {
        model.fit(&x, &y, FitOptions::default()).unwrap();
    }
    assert_eq!(model.flat_weights::<f32>().unwrap(), again.flat_weights::<f32>().unwrap());
}

#[test]
fn layers_within_layers_are_as_deep_as_a_file_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let nested =
        |depth: usize| (0..depth).fold(LayerConfig::from(Dense::new(1)), |layer, _| TimeDistributed::new(layer).into());
    let model = |depth: usize| {
        let mut model = Sequential::new(Device::cpu(), &vec![1; depth + 1], 1).unwrap();
        model.add(nested(depth)).map(drop).map(|()| model)
    };
    model(32).unwrap().save(&path).unwrap();
    Model::load(Device::cpu(), &path).unwrap();
    assert_says(&refused(model(33)), &["a layer in more than 32 others"]);
}

#[test]
fn weights_that_the_last_step_made_infinite_are_no_success() {
    for epochs in [1, 3] {
        let mut model = Sequential::new(Device::cpu(), &[4, 2], 1).unwrap();
        model.add(Lstm::new(3)).unwrap().add(Dense::new(2)).unwrap();
        model.compile(Sgd::new(1e38).unwrap(), Loss::MeanSquaredError).unwrap();
        let before = model.flat_weights::<f32>().unwrap();
        let (x, y) = (Array3::from_elem((8, 4, 2), 0.3f32), Array2::from_elem((8, 2), 1e4f32));
        let text = refused(model.fit(&x, &y, FitOptions { epochs, batch_size: 8, ..FitOptions::default() }));
        assert_says(&text, &["epoch 1, batch 1", "a weight is NaN or infinite", "learning rate"]);
        assert_eq!(model.flat_weights::<f32>().unwrap(), before);
    }
}

#[test]
fn losses_that_make_no_sense_of_an_output_say_so() {
    let of_one = |loss: Loss, activation: ActivationFunction| {
        let mut model = Sequential::new(Device::cpu(), &[2], 1).unwrap();
        model.add(Dense::new(1).activation(activation)).unwrap();
        model.compile(Adam::default(), loss).map(drop).map(|()| model)
    };
    for loss in [
        Loss::CategoricalCrossentropy { from_logits: false },
        Loss::SparseCategoricalCrossentropy { from_logits: true },
        Loss::SmoothedCategoricalCrossentropy { from_logits: true, label_smoothing: 0.1 },
        Loss::CategoricalFocalCrossentropy { from_logits: false, alpha: 0.25, gamma: 2.0 },
    ] {
        let text = refused(of_one(loss, ActivationFunction::Softmax));
        assert_says(&text, &["output dense", loss.name(), "BinaryCrossentropy"]);
    }
    let mut poisson = of_one(Loss::Poisson, ActivationFunction::Linear).unwrap();
    poisson.set_weight("dense.bias", &[-5.0f32]).unwrap();
    let (x, y) = (Array2::<f32>::zeros((4, 2)), Array2::<f32>::ones((4, 1)));
    let text = refused(poisson.fit(&x, &y, FitOptions::default()));
    assert_says(&text, &["the loss is NaN", "the Poisson loss takes logarithms", "Softplus"]);
    assert_says(&refused(poisson.train_on_batch(&x, &y)), &["the Poisson loss takes logarithms"]);
    // Of data that are no numbers the loss is not to blame.
    let bad = Array2::from_elem((4, 2), f32::NAN);
    let text = refused(poisson.fit(&bad, &y, FitOptions::default()));
    assert!(text.contains("of the data has a NaN") && !text.contains("Poisson"), "{text}");
}

#[test]
fn layers_that_come_one_by_one_have_the_weights_of_all_at_once() {
    let layer = |i: usize| -> LayerConfig {
        match i % 3 {
            0 => Dense::new(3).into(),
            1 => BatchNormalization::new().into(),
            _ => Dense { use_bias: false, ..Dense::new(2) }.into(),
        }
    };
    let count = 100;
    let mut stack = Sequential::new(Device::cpu(), &[4], 9).unwrap();
    let mut graph = Graph::new(Device::cpu(), 9);
    let mut top = graph.input("input_layer", &[4]).unwrap();
    for i in 0..count {
        // One that cannot be leaves nothing behind, be there room for its weights or not.
        assert!(stack.add(Lstm::new(3)).is_err());
        assert!(stack.add(Dense::new(2).kernel_initializer(Initializer::Constant { value: f64::NAN })).is_err());
        stack.add(layer(i)).unwrap();
        top = graph.add(layer(i), &[&top]).unwrap();
    }
    let whole = graph.model(&[&top]).unwrap();
    let weights = |model: &Model| -> Vec<(String, Vec<f32>)> {
        model.weights().map(|(name, _, values)| (name, values.host::<f32>().unwrap().to_vec())).collect()
    };
    assert_eq!(stack.count_params(), whole.count_params());
    assert_eq!(weights(&stack), weights(&whole));
    let x = Array2::from_shape_fn((3, 4), |(i, j)| (i + j) as f32);
    let mut whole = whole;
    assert_eq!(stack.predict(&x).unwrap(), whole.predict(&x).unwrap());
}

#[test]
fn names_reach_no_terminal_as_they_are() {
    let mut graph = Graph::new(Device::cpu(), 1);
    let x = graph.input("x", &[4, 2]).unwrap();
    let masked = graph.add(Masking::new(0.0), &[&x]).unwrap();
    let flat = graph.named_layer("\u{1b}[2J\u{1b}]0;title\u{7}\n", Flatten::new()).unwrap();
    let y = graph.call(flat, &[&masked]).unwrap();
    let text = graph.model(&[&y]).unwrap().summary();
    assert!(!text.contains(|c: char| c.is_control() && c != '\n'), "{text:?}");
    assert_eq!(text.matches(r"\u{1b}[2J\u{1b}]0;title\u{7}\n").count(), 2, "{text}");
}

#[test]
fn pictures_of_thousands_of_layers_are_refused() {
    let node = |i: usize| DiagramNode {
        name: format!("layer_{i}"),
        class_name: "Dense".to_owned(),
        input_shapes: vec![vec![None, Some(3)]],
        output_shapes: vec![vec![None, Some(3)]],
        inputs: if i == 0 { Vec::new() } else { vec![i - 1] },
    };
    let nodes: Vec<_> = (0..1001).map(node).collect();
    assert!(diagram(&nodes[..1000]).unwrap().len() < 2_000_000);
    assert_says(&refused(diagram(&nodes)), &["a diagram of 1001 layers", "at most 1000", "summary"]);
}

#[test]
fn sizes_that_overflow_are_typed_errors_or_mean_nothing() {
    // One window has no next one.
    let mut model = Sequential::new(Device::cpu(), &[4, 2], 1).unwrap();
    model.add(Conv1D::new(2, 3).strides(usize::MAX)).unwrap();
    assert_eq!(model.output_shape(), [1, 2]);
    let x = Array3::<f32>::ones((1, 4, 2));
    let with_one = {
        let mut model = Sequential::new(Device::cpu(), &[4, 2], 1).unwrap();
        model.add(Conv1D::new(2, 3).strides(2)).unwrap();
        model.predict(&x).unwrap()
    };
    assert_eq!(model.predict(&x).unwrap(), with_one);
    let before = 1 << 61;
    let far = Conv1D::new(2, 3).strides(before).padding(Padding::Steps { before, after: before });
    let mut model = Sequential::new(Device::cpu(), &[4, 8], 1).unwrap();
    assert_says(&refused(model.add(far).map(drop)), &["conv1d", "overflow"]);

    assert_says(&refused(fused_rnn::data::train_test_split(1 << 45, 0.5, 1)), &["split of", "memory"]);
    assert_says(&refused(fused_rnn::data::TimeSplit::new(usize::MAX, 0.999, 0.999)), &["leave some"]);
    let mut metric = MetricAccumulator::new(Metric::R2Score).unwrap();
    assert_says(&refused(metric.update::<f32>(&[], &[], 1 << 60, None)), &["a metric of", "memory"]);
    let matrix = ConfusionMatrix::new(&[0, 1], &[1, 1], 2).unwrap();
    let long = "x".repeat(70_000);
    assert!(matrix.report(Some(&[&long, "b"]), 2, ZeroDivision::Zero).unwrap().contains(&long));
}
