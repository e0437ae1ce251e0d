//! Every layer's gradients against finite differences in `f64`, by its weights and by its inputs; and what its options mean.

use crate::common::reference;
use crate::{cpu, weights};
use fused_rnn::cell::CellKind;
use fused_rnn::gradcheck;
use fused_rnn::model::{Graph, Model, Sequential};
use fused_rnn::nn::{self, *};
use fused_rnn::{DType, Device};
use ndarray::{ArrayD, IxDyn};

fn draw(shape: &[usize], stream: u32) -> ArrayD<f64> {
    let mut random = Random::new(11, stream);
    let values = (0..shape.iter().product()).map(|_| random.normal()).collect();
    ArrayD::from_shape_vec(IxDyn(shape), values).unwrap()
}

/// Weights that start as zeros and ones would hide mistakes.
fn stir(model: &mut Model) {
    let mut random = Random::new(5, 9);
    let stirred: Vec<f64> = weights(model).iter().map(|w| w + 0.2 * random.normal()).collect();
    model.set_flat_weights(&stirred).unwrap();
}

/// A batch of inputs; the second sequence ends early, the third has a hole, the last begins late.
fn masked_input(steps: usize, features: usize) -> ArrayD<f64> {
    let mut x = draw(&[4, steps, features], 1);
    let absent = [(1, steps - 2), (1, steps - 1), (2, 1), (3, 0), (3, 1)];
    for (b, t) in absent {
        for f in 0..features {
            x[[b, t, f]] = 0.0;
        }
    }
    x
}

#[track_caller]
fn check(name: &str, model: &mut Model, x: &[ArrayD<f64>]) {
    stir(model);
    let batch = x[0].shape()[0];
    let shapes: Vec<Vec<usize>> = model.output_shapes().map(|s| [&[batch], s].concat()).collect();
    let y: Vec<_> = shapes.iter().enumerate().map(|(i, shape)| draw(shape, 50 + i as u32)).collect();
    let (x, y): (Vec<_>, Vec<_>) = (x.iter().map(|x| x.view()).collect(), y.iter().map(|y| y.view()).collect());
    // Zeros are absent steps: moved, they would be there.
    let is_there = |input: usize, element: usize| x[input].iter().nth(element).is_some_and(|v| *v != 0.0);
    let report = gradcheck::model(model, &x, &y, is_there).unwrap();
    assert!(report.worst < 1e-7 && report.checked > 0, "{name}: {report:?}");
}

fn stack(input_shape: &[usize], layers: &[LayerConfig]) -> Sequential {
    let mut model = Sequential::new(cpu(), input_shape, 3).unwrap();
    for layer in layers {
        model.add(layer.clone()).unwrap();
    }
    model
}

fn check_stack(layers: &[LayerConfig], x: &ArrayD<f64>) {
    let mut model = stack(&x.shape()[1..], layers);
    check(&format!("{layers:?}"), &mut model, std::slice::from_ref(x));
}

/// All recurrent layers that have the options set by `with`.
fn recurrent(with: impl Fn(&mut RecurrentOptions)) -> Vec<LayerConfig> {
    let mut options = RecurrentOptions::default();
    with(&mut options);
    let has = |cell: &CellKind| {
        (!options.layer_norm || matches!(cell, CellKind::Rnn | CellKind::Lstm | CellKind::Gru))
            && (options.zoneout == 0.0 || cell.spec().positive.is_empty())
    };
    let mut all: Vec<_> =
        CellKind::ALL.into_iter().filter(has).map(|cell| LayerConfig::of_cell(cell, 3, options.clone())).collect();
    if !options.layer_norm && options.heads == 1 {
        all.push(IndRnn { options, ..IndRnn::new(3) }.into());
    }
    all
}

#[test]
fn recurrent_layers_with_every_option() {
    let x = draw(&[3, 5, 2], 1);
    #[allow(clippy::type_complexity)]
    #[allow(clippy::type_complexity)]
    let options: Vec<Box<dyn Fn(&mut RecurrentOptions)>> = vec![
        Box::new(|_| ()),
        Box::new(|o| o.return_sequences = true),
        Box::new(|o| o.go_backwards = true),
        Box::new(|o| (o.go_backwards, o.return_sequences) = (true, true)),
        Box::new(|o| o.stateful = true),
        Box::new(|o| o.dropout = 0.4),
        Box::new(|o| (o.recurrent_dropout, o.return_sequences) = (0.4, true)),
        Box::new(|o| (o.zoneout, o.return_sequences) = (0.4, true)),
        Box::new(|o| (o.zoneout, o.recurrent_dropout, o.dropout) = (0.2, 0.3, 0.4)),
        Box::new(|o| (o.layer_norm, o.return_sequences) = (true, true)),
        Box::new(|o| (o.layer_norm, o.go_backwards, o.zoneout) = (true, true, 0.3)),
        Box::new(|o| (o.zoneout, o.stateful) = (0.2, true)),
        Box::new(|o| (o.heads, o.return_sequences) = (3, true)),
        Box::new(|o| (o.heads, o.recurrent_dropout) = (3, 0.4)),
    ];
    for with in &options {
        for layer in recurrent(with) {
            check_stack(std::slice::from_ref(&layer), &x);
            // With holes and ends, and above another layer.
            check_stack(&[Masking::new(0.0).into(), Dense::new(2).into(), layer], &masked_input(5, 2));
        }
    }
    for layer in [
        LayerConfig::from(Gru::new(3).reset_after(false)),
        Gru::new(3).use_bias(false).into(),
        Lstm::new(3).use_bias(false).into(),
        Lstm::new(3)
            .activation(ActivationFunction::Softsign)
            .recurrent_activation(ActivationFunction::HardSigmoid)
            .into(),
        SimpleRnn::new(3).activation(ActivationFunction::Sigmoid).use_bias(false).into(),
        Lstm::new(6).heads(2).into(),
        Gru::new(6).heads(3).reset_after(false).into(),
        IndRnn::new(3).activation(ActivationFunction::Sigmoid).use_bias(false).into(),
        Slstm::new(4).heads(2).exponential_forget_gate(true).into(),
        Slstm::new(3).use_bias(false).recurrent_activation(ActivationFunction::HardSigmoid).into(),
    ] {
        check_stack(&[layer], &x);
    }
}

/// What a layer has not is refused, with the way out.
#[test]
fn options_that_a_layer_has_not() {
    for (layer, option) in [
        (LayerConfig::from(Slstm::new(3).zoneout(0.1)), "zoneout"),
        (Slstm::new(3).layer_norm(true).into(), "layer_norm"),
        (Lstm::new(4).heads(2).layer_norm(true).into(), "layer_norm"),
        (Lstm::new(4).heads(3).into(), "heads"),
        (Gru::new(4).heads(0).into(), "heads"),
        (IndRnn::new(4).heads(2).into(), "heads"),
        (Bidirectional::new(Dense::new(3)).into(), "layer"),
    ] {
        let mut model = Sequential::new(cpu(), &[5, 2], 3).unwrap();
        let text = model.add(layer.clone()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(option), "{layer:?}: {text}");
    }
}

/// What a convolution cannot be is refused, with the way out.
#[test]
fn convolutions_and_pools_that_cannot_be() {
    for (layer, words) in [
        (LayerConfig::from(Conv1D::new(0, 3)), "filters"),
        (LayerConfig::from(Conv1DTranspose::new(0, 3)), "filters"),
        (LayerConfig::from(Conv1DTranspose::new(2, 3).strides(0)), "strides"),
        (LayerConfig::from(Conv1DTranspose::new(2, 3).padding(Padding::Causal)), "padding"),
        (LayerConfig::from(Conv1DTranspose::new(2, usize::MAX).strides(usize::MAX)), "padding"),
        (LayerConfig::from(Conv1DTranspose::new(2, 2).padding(Padding::Steps { before: 90, after: 0 })), "padding"),
        (LayerConfig::from(UnitNormalization::new().axes(&[4])), "axes"),
        (Conv1D::new(2, 0).into(), "kernel_size"),
        (Conv1D::new(2, 6).into(), "at least kernel_size 6 steps"),
        (Conv1D::new(2, 3).dilation_rate(3).into(), "at least 7 steps"),
        (Conv1D::new(2, 3).dilation_rate(0).into(), "dilation_rate"),
        (Conv1D::new(2, 3).dilation_rate(usize::MAX).padding(Padding::Causal).into(), "padded steps"),
        (Conv1D::new(2, 3).strides(0).into(), "strides"),
        (Conv1D::new(2, 3).groups(0).into(), "groups"),
        (Conv1D::new(2, 3).groups(2).into(), "a divisor of the 3 features"),
        (Conv1D::new(2, 3).groups(3).into(), "a divisor of the 2 filters"),
        (Conv1D::new(2, 3).padding(Padding::Steps { before: usize::MAX, after: 1 }).into(), "padded steps"),
        (MaxPooling1D::new(2).padding(Padding::Causal).into(), "padding"),
        (AveragePooling1D::new(2).padding(Padding::Steps { before: 2, after: 0 }).into(), "fewer steps"),
        (MaxPooling1D::new(0).into(), "pool_size"),
        (UpSampling1D::new(0).into(), "size"),
        (UpSampling1D::new(usize::MAX).into(), "steps 5 * size"),
        (ZeroPadding1D::new(usize::MAX, 1).into(), "padded steps"),
        (Cropping1D::new(4, 1).into(), "fewer than the 5 steps"),
        (Cropping1D::new(usize::MAX, 1).into(), "fewer than the 5 steps"),
        (Softmax::new().axis(0).into(), "1 to 2"),
        (Softmax::new().axis(3).into(), "1 to 2"),
        (Softmax::new().axis(i64::MIN).into(), "1 to 2"),
        (PRelu::new().shared_axes(&[0]).into(), "axes from 1 to 2"),
        (PRelu::new().shared_axes(&[1, 3]).into(), "axes from 1 to 2"),
    ] {
        let mut model = Sequential::new(cpu(), &[5, 3], 3).unwrap();
        let text = model.add(layer.clone()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(words), "{layer:?}: {text}");
    }
}

/// A file says nothing of heads where there is one, as those of versions without them.
#[test]
fn heads_in_files() {
    let json = |layer: LayerConfig| serde_json::to_string(&layer).unwrap();
    assert!(!json(Lstm::new(4).into()).contains("heads"));
    let layer = LayerConfig::from(Lstm::new(4).heads(2));
    assert_eq!(serde_json::from_str::<LayerConfig>(&json(layer.clone())).unwrap(), layer);
}

#[test]
fn states_in_and_out() {
    for (layer, states) in [
        (LayerConfig::from(SimpleRnn::new(3).return_state(true)), 1),
        (Lstm::new(3).return_state(true).return_sequences(true).into(), 2),
        (Gru::new(3).return_state(true).go_backwards(true).into(), 1),
        (Lstm::new(3).return_state(true).zoneout(0.3).into(), 2),
        (Gru::new(3).return_state(true).layer_norm(true).into(), 1),
        (Bidirectional::new(Lstm::new(3).return_state(true)).into(), 4),
        (IndRnn::new(3).return_state(true).into(), 1),
        (Slstm::new(3).return_state(true).return_sequences(true).into(), 2),
        (Slstm::new(3).return_state(true).recurrent_dropout(0.3).into(), 2),
        (Bidirectional::new(Slstm::new(3).return_state(true)).into(), 4),
    ] {
        let is_slstm = format!("{layer:?}").contains("Slstm");
        for masked in [false, true] {
            let mut graph = Graph::new(cpu(), 3);
            let mut inputs = vec![graph.input("x", &[5, 2]).unwrap()];
            let mut x = vec![if masked { masked_input(5, 2) } else { draw(&[4, 5, 2], 1) }];
            if masked {
                // A sequence without any step: its last state is the one it started from.
                x[0].index_axis_mut(ndarray::Axis(0), 0).fill(0.0);
                inputs[0] = graph.add(Masking::new(0.0), &[&inputs[0]]).unwrap();
            }
            for i in 0..states {
                // c, n and m of the sLSTM stand side by side, and n is above zero.
                let width = if is_slstm && i % 2 == 1 { 9 } else { 3 };
                inputs.push(graph.input(&format!("state {i}"), &[width]).unwrap());
                let mut state = draw(&[4, width], 20 + i as u32);
                if width == 9 {
                    state.slice_axis_mut(ndarray::Axis(1), (3..6).into()).mapv_inplace(|n: f64| n.abs() + 0.5);
                }
                x.push(state);
            }
            let outputs = graph.add_all(layer.clone(), &inputs.iter().collect::<Vec<_>>()).unwrap();
            assert_eq!(outputs.len(), 1 + states);
            let mut model = graph.model(&outputs.iter().collect::<Vec<_>>()).unwrap();
            if masked {
                let views: Vec<_> = x.iter().map(|x| x.view()).collect();
                let got = model.predict_all(views).unwrap();
                for (state, initial) in got[1..].iter().zip(&x[1..]) {
                    assert_eq!(state.index_axis(ndarray::Axis(0), 0), initial.index_axis(ndarray::Axis(0), 0));
                }
            }
            check(&format!("{layer:?} masked {masked}"), &mut model, &x);
        }
    }
}

#[test]
fn both_directions() {
    for merge in [MergeMode::Concat, MergeMode::Sum, MergeMode::Mul, MergeMode::Ave] {
        for sequences in [false, true] {
            for layer in recurrent(|o| o.return_sequences = sequences) {
                let layer = Bidirectional::new(layer);
                check_stack(&[layer.clone().merge_mode(merge).into()], &draw(&[3, 5, 2], 1));
                check_stack(&[Masking::new(0.0).into(), layer.merge_mode(merge).into()], &masked_input(5, 2));
            }
        }
    }
}

#[test]
fn layers_of_one_input() {
    use ActivationFunction::*;
    let sequence = draw(&[3, 6, 4], 1);
    let vector = draw(&[5, 4], 1);
    for function in [
        Linear,
        Tanh,
        Sigmoid,
        Softsign,
        Softplus,
        Elu,
        Softmax,
        Relu,
        Selu,
        LeakyRelu,
        Relu6,
        Gelu,
        GeluTanh,
        Silu,
        HardSilu,
        Mish,
        Exponential,
    ] {
        check_stack(&[Dense::new(3).activation(function).into()], &vector);
        check_stack(&[ActivationLayer::new(function).into(), Dense::new(3).into()], &sequence);
    }
    for layer in [
        LayerConfig::from(Dense::new(3).use_bias(false)),
        nn::Softmax::new().into(),
        nn::Softmax::new().axis(1).into(),
        PRelu::new().into(),
        PRelu::new().shared_axes(&[1]).into(),
        ZeroPadding1D::new(2, 0).into(),
        ZeroPadding1D::new(1, 3).into(),
        Cropping1D::new(1, 2).into(),
        UpSampling1D::new(3).into(),
        Dropout::new(0.3).into(),
        SpatialDropout1D::new(0.3).into(),
        GaussianNoise::new(0.3).into(),
        GaussianDropout::new(0.3).into(),
        LayerNormalization::new().into(),
        LayerNormalization { center: false, ..LayerNormalization::new() }.into(),
        LayerNormalization { scale: false, ..LayerNormalization::new() }.into(),
        BatchNormalization::new().into(),
        BatchNormalization { center: false, scale: false, ..BatchNormalization::new() }.into(),
        Flatten::new().into(),
        Reshape::new(&[2, -1]).into(),
        Permute::new(&[2, 1]).into(),
        GlobalAveragePooling1D::new().into(),
        GlobalMaxPooling1D::new().into(),
        AveragePooling1D::new(2).into(),
        AveragePooling1D::new(3).strides(2).into(),
        MaxPooling1D::new(2).into(),
        MaxPooling1D::new(3).strides(1).into(),
        AveragePooling1D::new(4).strides(3).padding(Padding::Same).into(),
        AveragePooling1D::new(3).strides(1).padding(Padding::Steps { before: 2, after: 1 }).into(),
        MaxPooling1D::new(4).strides(3).padding(Padding::Same).into(),
        MaxPooling1D::new(3).strides(2).padding(Padding::Steps { before: 1, after: 2 }).into(),
        Conv1D::new(5, 3).into(),
        Conv1D::new(5, 1).activation(ActivationFunction::Softplus).into(),
        Conv1D::new(3, 4).strides(3).padding(Padding::Same).use_bias(false).into(),
        Conv1D::new(3, 2).dilation_rate(3).padding(Padding::Causal).activation(ActivationFunction::Tanh).into(),
        Conv1D::new(3, 9).padding(Padding::Same).activation(ActivationFunction::Softmax).into(),
        Conv1D::new(2, 2).strides(2).padding(Padding::Steps { before: 3, after: 1 }).into(),
        TimeDistributed::new(Dense::new(2)).into(),
        TimeDistributed::new(BatchNormalization::new()).into(),
        PositionalEncoding::new().into(),
        MultiHeadAttention::new(2, 3).into(),
        MultiHeadAttention::new(2, 3).value_dim(5).causal(true).into(),
        MultiHeadAttention::new(2, 3).value_dim(5).causal(true).dropout(0.2).into(),
        Attention::new().causal(true).into(),
        Attention::new().use_scale(true).into(),
        AdditiveAttention::new().into(),
        AdditiveAttention::new().use_scale(false).causal(true).into(),
        TransformerEncoder::new(2, 3, 5).dropout(0.2).into(),
        TransformerEncoder::new(2, 3, 5).norm_first(true).causal(true).into(),
    ] {
        check_stack(std::slice::from_ref(&layer), &sequence);
        check_stack(&[layer.clone(), Dense::new(2).into()], &sequence);
        // Below it a mask, whether it takes it or not.
        check_stack(&[Masking::new(0.0).into(), Dense::new(3).into(), layer], &masked_input(6, 4));
    }
    // Without a mask: a row of zeros has no direction.
    for layer in [
        LayerConfig::from(UnitNormalization::new()),
        UnitNormalization::new().axes(&[1]).into(),
        UnitNormalization::new().axes(&[1, 2]).into(),
        Normalization::new().into(),
        Normalization::new().by_feature(false).into(),
        Conv1DTranspose::new(3, 4).strides(3).into(),
        Conv1DTranspose::new(3, 2).strides(3).padding(Padding::Same).activation(ActivationFunction::Tanh).into(),
        Conv1DTranspose::new(2, 5).strides(2).padding(Padding::Same).output_padding(1).use_bias(false).into(),
        Conv1DTranspose::new(2, 3).dilation_rate(2).padding(Padding::Steps { before: 3, after: 1 }).into(),
    ] {
        check_stack(std::slice::from_ref(&layer), &sequence);
        check_stack(&[Dense::new(3).into(), layer, Dense::new(2).into()], &sequence);
    }
    let even = draw(&[3, 6, 4], 2);
    let grouped = Conv1D::new(6, 3).groups(2).padding(Padding::Same).activation(ActivationFunction::Sigmoid);
    check_stack(&[grouped.clone().into(), grouped.use_bias(false).strides(2).into()], &even);
    check_stack(&[Conv1D::new(4, 3).groups(4).into()], &even);
    check_stack(&[RepeatVector::new(3).into(), Lstm::new(2).into()], &vector);
    check_stack(
        &[Permute::new(&[3, 1, 2]).into(), Flatten::new().into(), Dense::new(2).into()],
        &draw(&[2, 2, 3, 4], 1),
    );
    check_stack(&[TimeDistributed::new(Gru::new(2)).into()], &draw(&[2, 2, 3, 4], 1));
}

#[test]
fn embeddings() {
    let x = ArrayD::from_shape_fn(IxDyn(&[3, 5]), |i| ((i[0] * 7 + i[1] * 3) % 6) as f64);
    for mask_zero in [false, true] {
        let mut model = stack(&[5], &[Embedding::new(6, 3).mask_zero(mask_zero).into(), Lstm::new(2).into()]);
        stir(&mut model);
        let y = draw(&[3, 2], 7);
        let (_, gradient) = model.loss_gradient(&x, &y).unwrap();
        let gradient = gradient.to_vec();
        let weights = weights(&model);
        for i in 0..weights.len() {
            let mut at = |offset: f64| {
                let mut moved = weights.clone();
                moved[i] += offset;
                model.set_flat_weights(&moved).unwrap();
                model.evaluate(&x, &y).unwrap()
            };
            let slope = (at(1e-5) - at(-1e-5)) / 2e-5;
            assert!((slope - gradient[i]).abs() < 1e-8, "weight {i}: {slope} {}", gradient[i]);
        }
    }
    let mut model = stack(&[5], &[Embedding::new(5, 3).into()]);
    let error = model.predict(&x).unwrap_err().to_string();
    assert!(error.contains("below 5") && error.contains('5'), "{error}");
}

#[test]
fn layers_of_several_inputs() {
    let layers: Vec<(LayerConfig, usize)> = vec![
        (Add::new().into(), 3),
        (Multiply::new().into(), 3),
        (Average::new().into(), 3),
        (Maximum::new().into(), 3),
        (Concatenate::new().into(), 3),
        (Subtract::new().into(), 2),
        (Dot::new(1, 1).into(), 2),
        (Dot::new(2, -1).into(), 2),
        (Attention::new().dropout(0.2).into(), 2),
        (Attention::new().into(), 3),
        (AdditiveAttention::new().into(), 3),
        (MultiHeadAttention::new(2, 2).into(), 2),
        (MultiHeadAttention::new(2, 2).into(), 3),
    ];
    for (layer, inputs) in layers {
        for masked in [false, true] {
            let mut graph = Graph::new(cpu(), 3);
            let mut tensors = Vec::new();
            let mut x = Vec::new();
            for i in 0..inputs {
                let mut input = graph.input(&format!("input {i}"), &[5, 4]).unwrap();
                let values = draw(&[4, 5, 4], 30 + i as u32);
                // Absent where the mask's input is zero, else values of its own: equal ones would be kinks of a maximum.
                let absent = masked && i != 1;
                x.push(if absent { masked_input(5, 4).mapv(|v| f64::from(v != 0.0)) * values } else { values });
                if masked {
                    input = graph.add(Masking::new(0.0), &[&input]).unwrap();
                }
                tensors.push(input);
            }
            let y = graph.add(layer.clone(), &tensors.iter().collect::<Vec<_>>()).unwrap();
            let z = graph.add(Dense::new(2), &[&y]).unwrap();
            let mut model = graph.model(&[&z, &y]).unwrap();
            check(&format!("{layer:?} masked {masked}"), &mut model, &x);
        }
    }
}

/// Products along an axis of each of two inputs, as sums of products say; cosines where both are brought to length 1.
#[test]
fn dot_is_a_sum_of_products() {
    let (a, b) = (draw(&[2, 3, 4], 1), draw(&[2, 4, 5], 2));
    let run = |layer: Dot, a: &ArrayD<f64>, b: &ArrayD<f64>| {
        let mut graph = Graph::new(cpu(), 3);
        let inputs = [("a", a), ("b", b)].map(|(name, x)| graph.input(name, &x.shape()[1..]).unwrap());
        let y = graph.add(layer, &[&inputs[0], &inputs[1]]).unwrap();
        graph.model(&[&y]).unwrap().predict_all(vec![a.view(), b.view()]).unwrap().remove(0)
    };
    let y = run(Dot::new(2, 1), &a, &b);
    assert_eq!(y.shape(), [2, 3, 5]);
    let expected: f64 = (0..4).map(|k| a[[1, 2, k]] * b[[1, k, 3]]).sum();
    assert!((y[[1, 2, 3]] - expected).abs() < 1e-12);
    // Over the steps of attention, and of vectors one number.
    let (a, b) = (draw(&[2, 3, 4], 1), draw(&[2, 3, 1], 2));
    let y = run(Dot::new(-2, 1), &a, &b);
    assert_eq!(y.shape(), [2, 4, 1]);
    let (a, b) = (draw(&[2, 4], 1), draw(&[2, 4], 2) * 2.0);
    let y = run(Dot::new(-1, 1).normalize(true), &a, &b);
    let length = |x: &ArrayD<f64>| (0..4).map(|k| x[[0, k]] * x[[0, k]]).sum::<f64>().sqrt();
    let product: f64 = (0..4).map(|k| a[[0, k]] * b[[0, k]]).sum();
    assert_eq!(y.shape(), [2, 1]);
    assert!((y[[0, 0]] - product / length(&a) / length(&b)).abs() < 1e-12);
    // Axes that are not there, or of other lengths, are named.
    for (layer, word) in [(Dot::new(3, 1), "axes"), (Dot::new(0, 1), "axes"), (Dot::new(1, 1), "along axis 1")] {
        let mut graph = Graph::new(cpu(), 3);
        let (a, b) = (graph.input("a", &[4, 2]).unwrap(), graph.input("b", &[3]).unwrap());
        let text = graph.add(layer, &[&a, &b]).unwrap_err().to_string();
        assert!(text.contains(word), "{text}");
    }
}

/// A layer used twice has the sum of both gradients; a value used twice too.
#[test]
fn shared_layers_and_values() {
    let mut graph = Graph::new(cpu(), 3);
    let (a, b) = (graph.input("a", &[4, 2]).unwrap(), graph.input("b", &[4, 2]).unwrap());
    let shared = graph.layer(Lstm::new(3).return_sequences(true)).unwrap();
    let dense = graph.layer(Dense::new(3)).unwrap();
    let (p, q) = (graph.call(shared, &[&a]).unwrap(), graph.call(shared, &[&b]).unwrap());
    let (p, q) = (graph.call(dense, &[&p]).unwrap(), graph.call(dense, &[&q]).unwrap());
    let product = graph.add(Multiply::new(), &[&p, &q]).unwrap();
    let square = graph.add(Multiply::new(), &[&p, &p]).unwrap();
    let sum = graph.add(Add::new(), &[&product, &square, &q]).unwrap();
    let norm = graph.add(LayerNormalization::new(), &[&sum]).unwrap();
    let mut model = graph.model(&[&norm, &product]).unwrap();
    model.losses(&[(Loss::MeanSquaredError, 1.0), (Loss::MeanSquaredError, 0.3)]).unwrap();
    assert_eq!(model.count_params(), 4 * 3 * (2 + 3 + 1) + 3 * 4 + 6);
    check("shared", &mut model, &[draw(&[3, 4, 2], 1), draw(&[3, 4, 2], 2)]);
    let mut graph = Graph::new(cpu(), 3);
    let (a, b) = (graph.input("a", &[2]).unwrap(), graph.input("b", &[3]).unwrap());
    let dense = graph.layer(Dense::new(3)).unwrap();
    graph.call(dense, &[&a]).unwrap();
    let error = graph.call(dense, &[&b]).unwrap_err().to_string();
    assert!(error.contains("dense") && error.contains("[3, 2]") && error.contains("[3, 3]"), "{error}");
}

/// Sums hand their gradient on to their first value: the same value twice, sums of sums, and values that have a part of their gradient before.
#[test]
fn sums_of_sums() {
    let mut graph = Graph::new(cpu(), 3);
    let a = graph.input("a", &[4, 3]).unwrap();
    let p = graph.add(Dense::new(3), &[&a]).unwrap();
    let twice = graph.add(Add::new(), &[&p, &p]).unwrap();
    let more = graph.add(Add::new(), &[&twice, &p, &a]).unwrap();
    let less = graph.add(Subtract::new(), &[&more, &twice]).unwrap();
    let placed = graph.add(PositionalEncoding::new(), &[&less]).unwrap();
    let mut model = graph.model(&[&placed, &twice]).unwrap();
    model.losses(&[(Loss::MeanSquaredError, 1.0), (Loss::MeanSquaredError, 0.3)]).unwrap();
    check("sums", &mut model, &[draw(&[3, 4, 3], 1)]);
}

/// Attention whose weights are an output too is computed in parts, and gives the same.
#[test]
fn attention_with_and_without_its_weights() {
    let x = masked_input(6, 4);
    for (alone, with_weights) in [
        (
            LayerConfig::from(MultiHeadAttention::new(2, 3).causal(true)),
            LayerConfig::from(MultiHeadAttention::new(2, 3).causal(true).return_attention_scores(true)),
        ),
        (Attention::new().into(), Attention::new().return_attention_scores(true).into()),
    ] {
        let mut outputs = [alone, with_weights].map(|layer| {
            let mut graph = Graph::new(cpu(), 3);
            let input = graph.input("x", &[6, 4]).unwrap();
            let masked = graph.add(Masking::new(0.0), &[&input]).unwrap();
            let layer = graph.layer(layer).unwrap();
            let y = graph.call_all(layer, &[&masked]).unwrap().remove(0);
            graph.model(&[&y]).unwrap().predict(&x).unwrap()
        });
        let [alone, with_weights] = &mut outputs;
        assert!(alone.iter().any(|v| *v != 0.0));
        for (a, b) in alone.iter().zip(with_weights.iter()) {
            assert!((a - b).abs() < 1e-13, "{a} {b}");
        }
    }
}

/// Absent steps change nothing: the output is that of the sequence without them.
#[test]
fn a_mask_leaves_steps_out() {
    let x = masked_input(6, 2);
    for layer in recurrent(|_| ())
        .into_iter()
        .chain(recurrent(|o| o.zoneout = 0.3))
        .chain(recurrent(|o| o.go_backwards = true))
        .chain([GlobalAveragePooling1D::new().into(), GlobalMaxPooling1D::new().into()])
    {
        let mut model = stack(&[6, 2], &[Masking::new(0.0).into(), layer.clone()]);
        let all = model.predict(&x).unwrap();
        for (b, steps) in [(1, vec![0, 1, 2, 3]), (2, vec![0, 2, 3, 4, 5]), (3, vec![2, 3, 4, 5])] {
            let short =
                x.index_axis(ndarray::Axis(0), b).select(ndarray::Axis(0), &steps).insert_axis(ndarray::Axis(0));
            let mut alone = stack(&[steps.len(), 2], std::slice::from_ref(&layer));
            alone.set_flat_weights(&weights(&model)).unwrap();
            let expected = alone.predict(&short).unwrap();
            for (a, e) in all.index_axis(ndarray::Axis(0), b).iter().zip(&expected) {
                assert!((a - e).abs() < 1e-14, "{layer:?} sequence {b}: {a} {e}");
            }
        }
    }
}

/// A stateful layer given a sequence in two parts gives what it gives for the whole.
#[test]
fn stateful_layers_go_on() {
    let x = draw(&[3, 6, 2], 1);
    for with in
        [|o: &mut RecurrentOptions| o.stateful = true, |o: &mut RecurrentOptions| (o.stateful, o.zoneout) = (true, 0.3)]
    {
        for layer in recurrent(with) {
            let mut whole = stack(&[6, 2], std::slice::from_ref(&layer));
            let expected = whole.predict(&x).unwrap();
            let mut parts = stack(&[3, 2], std::slice::from_ref(&layer));
            parts.set_flat_weights(&weights(&whole)).unwrap();
            let half = |from: usize| x.slice_axis(ndarray::Axis(1), ndarray::Slice::from(from..from + 3)).to_owned();
            let first = parts.predict(&half(0)).unwrap();
            let second = parts.predict(&half(3)).unwrap();
            assert!((&second - &expected).iter().all(|d| d.abs() < 1e-14), "{layer:?}");
            parts.reset_states();
            assert_eq!(parts.predict(&half(0)).unwrap(), first);
            let error = parts.predict(&draw(&[2, 3, 2], 1)).unwrap_err().to_string();
            assert!(error.contains("3 samples") && error.contains("2 samples"), "{error}");
        }
    }
}

/// The oracle and the fast backend agree on layers, whole.
#[test]
fn both_backends_give_the_same() {
    let x = masked_input(6, 4);
    let layers: Vec<LayerConfig> = vec![
        Masking::new(0.0).into(),
        Bidirectional::new(Lstm::new(3).return_sequences(true)).into(),
        TransformerEncoder::new(2, 3, 5).into(),
        Gru::new(4).layer_norm(true).return_sequences(true).into(),
        GlobalAveragePooling1D::new().into(),
        Dense::new(2).activation(ActivationFunction::Softmax).into(),
    ];
    let mut fast = stack(&[6, 4], &layers);
    let mut oracle = Sequential::new(reference(DType::F64), &[6, 4], 3).unwrap();
    for layer in &layers {
        oracle.add(layer.clone()).unwrap();
    }
    assert_eq!(weights(&fast), weights(&oracle));
    let (a, b) = (fast.predict(&x).unwrap(), oracle.predict(&x).unwrap());
    assert!((&a - &b).iter().all(|d| d.abs() < 1e-13), "{a} {b}");
}

#[test]
fn a_wrong_derivative_is_found() {
    #[derive(Clone)]
    struct Wrong(f64);
    impl Cell for Wrong {
        fn output_size(&self) -> usize {
            2
        }

        fn parameters(&self, _: usize) -> Vec<(String, Vec<usize>, Init)> {
            vec![("bias".to_owned(), vec![2], Init::Uniform(0.5))]
        }

        fn forward(&mut self, _: &Device, step: CellForward<'_>) -> fused_rnn::Result<()> {
            let (state, x, bias): (&[f64], &[f64], &[f64]) =
                (step.state.host()?, step.x.host()?, step.parameters.host()?);
            for (i, new) in step.new_state.host::<f64>()?.iter_mut().enumerate() {
                *new = 0.5 * state[i] + x[i] * bias[i % 2];
            }
            Ok(())
        }

        fn backward(&mut self, _: &Device, step: CellBackward<'_>) -> fused_rnn::Result<()> {
            let (x, bias): (&[f64], &[f64]) = (step.x.host()?, step.parameters.host()?);
            let (dstate, dx): (&mut [f64], &mut [f64]) = (step.dstate.host()?, step.dx.host()?);
            let dbias: &mut [f64] = step.dparameters.host()?;
            for (i, d) in step.dnew_state.host::<f64>()?.iter().enumerate() {
                dstate[i] = self.0 * d;
                dx[i] = d * bias[i % 2];
                dbias[i % 2] += d * x[i];
            }
            Ok(())
        }
    }
    assert!(gradcheck::cell(&cpu(), Wrong(0.5), 2).unwrap().worst < 1e-9);
    assert!(gradcheck::cell(&cpu(), Wrong(0.51), 2).unwrap().worst > 1e-4);
}

/// Several layers as one, and two biases: the same as layers one above the other, whose weights are those.
#[test]
fn several_layers_in_one() {
    let x = draw(&[3, 5, 2], 1);
    for layer in [
        LayerConfig::from(Lstm::new(3).num_layers(3).double_bias(true).return_sequences(true)),
        Gru::new(3).num_layers(2).go_backwards(true).into(),
        SimpleRnn::new(3).num_layers(2).double_bias(true).dropout(0.3).into(),
        Bidirectional::new(Lstm::new(2).num_layers(2).double_bias(true)).into(),
        Bidirectional::new(Gru::new(2).num_layers(3).return_sequences(true)).merge_mode(MergeMode::Sum).into(),
    ] {
        check_stack(std::slice::from_ref(&layer), &x);
        check_stack(&[Masking::new(0.0).into(), Dense::new(2).into(), layer], &masked_input(5, 2));
    }
    let stack_of = |bidirectional: bool| {
        let lstm = Lstm::new(3).return_sequences(true);
        let wrap = |lstm: Lstm| match bidirectional {
            true => LayerConfig::from(Bidirectional::new(lstm)),
            false => lstm.into(),
        };
        let mut one = stack(&[5, 2], &[wrap(lstm.clone().num_layers(2))]);
        let mut two = stack(&[5, 2], &[wrap(lstm.clone()), wrap(lstm)]);
        stir(&mut one);
        two.set_flat_weights(&weights(&one)).unwrap();
        assert_eq!(one.predict(&x).unwrap(), two.predict(&x).unwrap());
        one
    };
    let one = stack_of(false);
    assert!(one.weights().any(|(name, ..)| name == "lstm.layer_1.weight_ih_l0"));
    stack_of(true);
    // States in and out, layer by layer.
    let mut graph = Graph::new(cpu(), 3);
    let inputs = ["x", "h0", "c0", "h1", "c1"].map(|name| {
        let shape: &[usize] = if name == "x" { &[5, 2] } else { &[3] };
        graph.input(name, shape).unwrap()
    });
    let layer = graph.layer(Lstm::new(3).num_layers(2).return_state(true)).unwrap();
    let outputs = graph.call_all(layer, &inputs.each_ref()).unwrap();
    assert_eq!(outputs.len(), 5);
    let mut model = graph.model(&outputs.iter().collect::<Vec<_>>()).unwrap();
    let states = (0..4).map(|i| draw(&[3, 3], 20 + i));
    let given: Vec<_> = std::iter::once(x.clone()).chain(states).collect();
    check("states of two layers", &mut model, &given);
    // Files of versions without these options say nothing of them.
    let json = serde_json::to_string(&LayerConfig::from(Lstm::new(4))).unwrap();
    assert!(!json.contains("num_layers") && !json.contains("double_bias"), "{json}");
    for (layer, option) in [
        (LayerConfig::from(Lstm::new(3).num_layers(0)), "num_layers"),
        (Lstm::new(3).num_layers(1 << 40).into(), "num_layers"),
        (Lstm::new(3).layer_norm(true).double_bias(true).into(), "double_bias"),
    ] {
        let mut model = Sequential::new(cpu(), &[5, 2], 3).unwrap();
        let text = model.add(layer.clone()).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(text.contains(option), "{layer:?}: {text}");
    }
}
#[test]
fn layers_of_tensors() {
    let x = draw(&[3, 4, 5], 1);
    for function in [
        Function::Gelu { approximate: true },
        Function::Gelu { approximate: false },
        Function::Silu,
        Function::HardSwish,
        Function::Mish,
        Function::Celu { alpha: 0.7 },
        Function::Exp,
        Function::Absolute,
        Function::Erf,
        Function::Sin,
        Function::Cos,
        Function::Power { exponent: 3.0 },
        Function::Clip { low: -0.4, high: 0.6 },
        Function::Elu { alpha: 0.5 },
        Function::Affine { alpha: 2.0, beta: 1.0 },
    ] {
        check_stack(&[Dense::new(3).into(), Elementwise::new(function).into()], &x);
    }
    // Where they are defined.
    for function in [Function::Log, Function::Sqrt, Function::Reciprocal] {
        let above = Elementwise::new(Function::Softplus).into();
        let further = Elementwise::new(Function::Affine { alpha: 1.0, beta: 0.5 }).into();
        check_stack(&[Dense::new(3).into(), above, further, Elementwise::new(function).into()], &x);
    }
    let parts = [
        Part::Filled { value: 0.5, count: 2 },
        Part::Steps { start: 3, step: -2, count: 2 },
        Part::Steps { start: 0, step: 1, count: 4 },
    ];
    check_stack(&[Dense::new(3).into(), Slice::of_parts(1, &parts).into()], &x);
    check_stack(&[Dense::new(3).into(), Slice::new(2, 1, 2).into()], &x);
    for reduction in [Reduction::Sum, Reduction::Mean, Reduction::Maximum, Reduction::Minimum] {
        for axes in [&[1][..], &[2], &[1, 2]] {
            check_stack(&[Dense::new(3).into(), Reduce::new(reduction, axes).into()], &x);
        }
    }
    check_stack(
        &[Reshape::new(&[2, 2, 5]).into(), Dense::new(3).into(), Reduce::new(Reduction::Mean, &[1, 3]).into()],
        &x,
    );
    check_stack(&[Dense::new(3).into(), Reshape::new(&[4, 1, 3]).into(), Broadcast::new(&[2, 4, 3, 3]).into()], &x);
    check_stack(&[Dense::new(4).into(), Reshape::new(&[2, 2, 2, 2]).into(), Permute::new(&[4, 2, 3, 1]).into()], &x);
    check_stack(&[Dense::new(4).into(), Reshape::new(&[2, 2, 2, 2]).into(), Permute::new(&[3, 1, 4, 2]).into()], &x);
    check_stack(&[Dense::new(3).into(), ActivationLayer::new(ActivationFunction::LogSoftmax).into()], &x);
}

#[test]
fn permuted_axes_stand_where_they_should() {
    let x = ArrayD::from_shape_vec(IxDyn(&[2, 2, 3, 4, 5]), (0..240).map(f64::from).collect()).unwrap();
    for dims in [[4, 3, 2, 1], [3, 1, 4, 2], [2, 4, 1, 3], [1, 4, 3, 2]] {
        let mut model = stack(&[2, 3, 4, 5], &[Permute::new(&dims).into()]);
        let expected = x.clone().permuted_axes(IxDyn(&[&[0], &dims[..]].concat()));
        assert_eq!(model.predict(&x).unwrap(), expected, "{dims:?}");
    }
}

#[test]
fn layers_of_several_tensors() {
    for combination in [
        Combination::Sum,
        Combination::Difference,
        Combination::Product,
        Combination::Quotient,
        Combination::Power,
        Combination::Maximum,
        Combination::Minimum,
    ] {
        let mut graph = Graph::new(cpu(), 3);
        let (a, b) = (graph.input("a", &[4, 5]).unwrap(), graph.input("b", &[5]).unwrap());
        let positive = |graph: &mut Graph, x| {
            let x = graph.add(Dense::new(3), &[x]).unwrap();
            graph.add(Elementwise::new(Function::Softplus), &[&x]).unwrap()
        };
        let (a, b) = (positive(&mut graph, &a), positive(&mut graph, &b));
        let y = graph.add(Pairwise::new(combination), &[&a, &b]).unwrap();
        let mut model = graph.model(&[&y]).unwrap();
        check(&format!("{combination:?}"), &mut model, &[draw(&[3, 4, 5], 1), draw(&[3, 5], 2)]);
    }
    let mut graph = Graph::new(cpu(), 3);
    let (a, b) = (graph.input("a", &[4, 5]).unwrap(), graph.input("b", &[5]).unwrap());
    let weight = graph.add(Weight::new(&[4, 1]), &[&a]).unwrap();
    let greater = graph.add(Pairwise::new(Combination::Greater), &[&a, &b]).unwrap();
    let chosen = graph.add(Where::new(), &[&greater, &a, &weight]).unwrap();
    let turned = graph.add(Permute::new(&[2, 1]), &[&a]).unwrap();
    let product = graph.add(MatMul::new(), &[&turned, &chosen]).unwrap();
    let cell = RecurrentOperator {
        backwards: vec![false, true],
        activations: vec![
            ["sigmoid", "tanh", "softsign"].map(str::to_owned),
            ["hard_sigmoid:0.2:0.5", "elu:0.5", "tanh"].map(str::to_owned),
        ],
        clip: Some(0.9),
        peepholes: true,
        ..RecurrentOperator::new(CellKind::Lstm, 3)
    };
    let start = graph.add(Dense::new(3), &[&b]).unwrap();
    let layer = graph.layer(cell).unwrap();
    let states = graph.call_all(layer, &[&a, &start, &start, &start, &start]).unwrap();
    let mut outputs = vec![product];
    outputs.extend(states);
    let mut model = graph.model(&outputs.iter().collect::<Vec<_>>()).unwrap();
    check("tensors", &mut model, &[draw(&[3, 4, 5], 1), draw(&[3, 5], 2)]);
}

#[test]
fn a_broadcast_beyond_counting_is_refused() {
    for shape in [[usize::MAX, 2], [1 << 40, 1 << 40], [2, usize::MAX]] {
        let mut model = Sequential::new(cpu(), &[1, 1], 1).unwrap();
        let error = model.add(Broadcast::new(&shape)).err().map(|error| error.to_string());
        assert!(error.as_ref().is_some_and(|error| error.contains("broadcast")), "{shape:?}: {error:?}");
    }
}
