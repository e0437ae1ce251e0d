//! Masks on their way through layers: none is lost without a word.

use crate::{cpu, weights};
use fused_rnn::Error;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use ndarray::{Array2, Array3, ArrayD, Axis, IxDyn, s};
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    match value {
        Value::Array(items) => items.iter().flat_map(numbers).collect(),
        number => vec![number.as_f64().unwrap()],
    }
}

/// Words of padded characters give what Keras gives; the padding does not change the vector of a word.
#[test]
fn words_of_padded_characters_as_in_keras() {
    let all: Value = serde_json::from_str(include_str!("../fixtures/training.json")).unwrap();
    let case = &all["words"];
    let mut model = Sequential::new(cpu(), &[4, 5], 1).unwrap();
    model.add(Embedding::new(6, 3).mask_zero(true)).unwrap();
    model.add(TimeDistributed::new(Lstm::new(2))).unwrap();
    model.set_weight("embedding.weight", &numbers(&case["embedding"])).unwrap();
    let shapes = [[3, 8].as_slice(), &[2, 8], &[8]];
    let given = case["lstm"].as_array().unwrap().iter().zip(shapes);
    let lstm: Vec<_> = given.map(|(w, shape)| ArrayD::from_shape_vec(IxDyn(shape), numbers(w)).unwrap()).collect();
    model.set_keras_weights("time_distributed", &lstm).unwrap();
    let x = ArrayD::from_shape_vec(IxDyn(&[3, 4, 5]), numbers(&case["x"])).unwrap();
    let y = model.predict(&x).unwrap();
    for (got, expected) in y.iter().zip(numbers(&case["y"])) {
        assert!((got - expected).abs() < 1e-6, "{got} {expected}");
    }
    // Each word by itself, without its padding.
    for sample in 0..3 {
        for word in 0..4 {
            let letters: Vec<f64> = x.slice(s![sample, word, ..]).iter().copied().filter(|c| *c != 0.0).collect();
            let mut short = Sequential::new(cpu(), &[letters.len()], 1).unwrap();
            short.add(Embedding::new(6, 3)).unwrap().add(Lstm::new(2)).unwrap();
            short.set_flat_weights(&weights(&model)).unwrap();
            let alone = short.predict(&Array2::from_shape_vec((1, letters.len()), letters).unwrap()).unwrap();
            let distance = (&alone.index_axis(Axis(0), 0) - &y.slice(s![sample, word, ..])).mapv(f64::abs).sum();
            assert!(distance < 1e-12, "{distance}");
        }
    }
}

/// Words without characters are absent for the layers above.
#[test]
fn empty_words_are_absent() {
    let mut model = Sequential::new(cpu(), &[3, 2], 1).unwrap();
    model.add(Embedding::new(5, 2).mask_zero(true)).unwrap().add(TimeDistributed::new(Lstm::new(2))).unwrap();
    model.add(Gru::new(2)).unwrap();
    let sentence = |words: [[f64; 2]; 3]| Array3::from_shape_fn((1, 3, 2), |(_, w, c)| words[w][c]);
    let padded = model.predict(&sentence([[1.0, 2.0], [3.0, 0.0], [0.0, 0.0]])).unwrap();
    let mut short = Sequential::new(cpu(), &[2, 2], 1).unwrap();
    short.add(Embedding::new(5, 2).mask_zero(true)).unwrap().add(TimeDistributed::new(Lstm::new(2))).unwrap();
    short.add(Gru::new(2)).unwrap();
    short.set_flat_weights(&weights(&model)).unwrap();
    let alone = short.predict(&Array3::from_shape_fn((1, 2, 2), |(_, w, c)| [[1.0, 2.0], [3.0, 0.0]][w][c])).unwrap();
    assert_eq!(padded, alone);
    // Pooling within the words, a mask made within the steps, and masks of more axes from Masking.
    let mut inner = Sequential::new(cpu(), &[3, 2], 1).unwrap();
    inner.add(TimeDistributed::new(Embedding::new(5, 2).mask_zero(true))).unwrap();
    inner.add(TimeDistributed::new(GlobalAveragePooling1D::new())).unwrap().add(Gru::new(2)).unwrap();
    let padded = inner.predict(&sentence([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]])).unwrap();
    let twice = inner.predict(&sentence([[1.0, 1.0], [3.0, 3.0], [0.0, 0.0]])).unwrap();
    let distance = (&padded - &twice).mapv(f64::abs).sum();
    assert!(distance < 1e-12 && inner.ended_masks().is_empty(), "{distance}");
    let mut masked = Sequential::new(cpu(), &[2, 3, 1], 1).unwrap();
    masked.add(Masking::new(0.0)).unwrap().add(TimeDistributed::new(GlobalAveragePooling1D::new())).unwrap();
    let x = ArrayD::from_shape_vec(IxDyn(&[1, 2, 3, 1]), vec![2.0, 4.0, 0.0, 5.0, 0.0, 0.0]).unwrap();
    assert_eq!(masked.predict(&x).unwrap().iter().copied().collect::<Vec<_>>(), [3.0, 5.0]);
}

/// Gradients through a mask within the steps.
#[test]
fn masks_within_steps_have_derivatives() {
    let mut model = Sequential::new(cpu(), &[3, 2], 5).unwrap();
    model.add(Embedding::new(5, 2).mask_zero(true)).unwrap().add(TimeDistributed::new(Lstm::new(2))).unwrap();
    model.add(Gru::new(2)).unwrap().add(Dense::new(1)).unwrap();
    model.compile(fused_rnn::optim::Sgd::new(0.1).unwrap(), Loss::MeanSquaredError).unwrap();
    let x =
        Array3::from_shape_vec((2, 3, 2), vec![1.0, 2.0, 3.0, 0.0, 0.0, 0.0, 4.0, 0.0, 1.0, 3.0, 2.0, 2.0]).unwrap();
    let y = Array2::from_shape_vec((2, 1), vec![0.3, -0.8]).unwrap();
    let (_, gradient) = model.loss_gradient(&x, &y).unwrap();
    let at = weights(&model);
    for (i, slope) in gradient.iter().enumerate() {
        let mut sides = [0.0; 2];
        for (side, step) in sides.iter_mut().zip([1e-5, -1e-5]) {
            let mut moved = at.clone();
            moved[i] += step;
            model.set_flat_weights(&moved).unwrap();
            *side = model.evaluate(&x, &y).unwrap();
        }
        let difference = (sides[0] - sides[1]) / 2e-5;
        assert!((difference - slope).abs() < 1e-8, "weight {i}: {slope} {difference}");
    }
}

/// Where Keras warns that a mask is lost, the model says so; where it would mean nothing, it is an error with a way out.
#[test]
fn masks_that_end_are_told() {
    let mut model = Sequential::new(cpu(), &[6, 2], 1).unwrap();
    model.add(Masking::new(0.0)).unwrap().add(Dense::new(3)).unwrap();
    assert!(model.ended_masks().is_empty());
    model.add(Conv1D::new(2, 3)).unwrap().add(Lstm::new(2)).unwrap();
    assert_eq!(model.ended_masks(), ["conv1d"]);
    assert!(model.summary().contains(" Masks end at: conv1d"), "{}", model.summary());
    for layer in
        [LayerConfig::from(Lstm::new(2)), GlobalMaxPooling1D::new().into(), Bidirectional::new(Gru::new(2)).into()]
    {
        let mut model = Sequential::new(cpu(), &[6, 2], 1).unwrap();
        model.add(Masking::new(0.0)).unwrap().add(layer).unwrap().add(Dense::new(1)).unwrap();
        assert!(model.ended_masks().is_empty(), "it is used");
    }
    let unfit = |error: Error| {
        assert!(matches!(&error, Error::Shape { tensor, .. } if tensor.contains("mask")), "{error}");
        assert!(error.to_string().contains("Reshape"), "{error}");
    };
    // A mask of words over their repetitions says nothing about their rows.
    let repeated = || {
        let mut model = Sequential::new(cpu(), &[3, 2], 1).unwrap();
        model.add(Masking::new(0.0)).unwrap().add(TimeDistributed::new(RepeatVector::new(4))).unwrap();
        model
    };
    unfit(repeated().add(BatchNormalization::new()).map(|_| ()).unwrap_err());
    let x = Array3::<f64>::ones((2, 3, 2));
    let mut model = repeated();
    assert_eq!(model.predict(&x).unwrap().shape(), [2, 3, 4, 2]);
    let y = ArrayD::<f64>::ones(IxDyn(&[2, 3, 4, 2]));
    unfit(model.evaluate(&x, &y).unwrap_err());
    unfit(model.fit(&x, &y, FitOptions::default()).map(|_| ()).unwrap_err());
    model.add(Reshape::new(&[3, 4, 2])).unwrap().add(BatchNormalization::new()).unwrap();
    assert!(model.fit(&x, &y, FitOptions::default()).is_ok());
    // Masks of different shapes have no union.
    let mut graph = Graph::new(cpu(), 1);
    let x = graph.input("x", &[3, 2]).unwrap();
    let deep = graph.input("deep", &[3, 4, 2]).unwrap();
    let masked = graph.add(Masking::new(0.0), &[&x]).unwrap();
    let masked = graph.add(TimeDistributed::new(RepeatVector::new(4)), &[&masked]).unwrap();
    let other = graph.add(Masking::new(0.0), &[&deep]).unwrap();
    let error = graph.add(Add::new(), &[&masked, &other]).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("Reshape"), "{error}");
}

/// A key that is absent is not looked at, whatever the mask of the value says.
#[test]
fn keys_and_values_have_one_mask() {
    let mut graph = Graph::new(cpu(), 1);
    let inputs = ["query", "value", "key"].map(|name| graph.input(name, &[3, 2]).unwrap());
    let value = graph.add(Masking::new(0.0), &[&inputs[1]]).unwrap();
    let key = graph.add(Masking::new(0.0), &[&inputs[2]]).unwrap();
    let y = graph.add(MultiHeadAttention::new(1, 2), &[&inputs[0], &value, &key]).unwrap();
    let mut model = graph.model(&[&y]).unwrap();
    let query = Array3::from_shape_fn((1, 3, 2), |(_, t, f)| (t + f) as f64 + 0.5);
    // The first step is absent from the value, the second from the key: only the third is looked at.
    let mut value = query.clone();
    value.slice_mut(s![0, 0, ..]).fill(0.0);
    let mut key = query.clone();
    key.slice_mut(s![0, 1, ..]).fill(0.0);
    let call = |value: &Array3<f64>, model: &mut Model| {
        model.predict([query.view().into_dyn(), value.view().into_dyn(), key.view().into_dyn()]).unwrap()
    };
    let before = call(&value, &mut model);
    value.slice_mut(s![0, 1, ..]).fill(7.0);
    assert_eq!(call(&value, &mut model), before);
}
