//! Recurrent layers right behind an embedding: few different inputs, whose gradients are summed before the products.

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::model::*;
use fused_rnn::nn::*;
use fused_rnn::{DType, Device};
use ndarray::{Array2, ArrayD, IxDyn};

const STEPS: usize = 8;
const WORDS: usize = 6;

/// The gradient by all weights of a model whose graph `build` makes, of 11 sequences; the fourth is 0 throughout.
fn gradient(device: Device, build: &dyn Fn(&mut Graph, &GraphTensor) -> GraphTensor) -> Vec<f64> {
    let mut graph = Graph::new(device, 3);
    let input = graph.input("words", &[STEPS]).unwrap();
    let output = build(&mut graph, &input);
    let mut model = graph.model(&[&output]).unwrap();
    let x = Array2::from_shape_fn((11, STEPS), |(b, t)| match b {
        3 => 0.0,
        _ => ((b * 31 + t * t * 7 + b * t) % (WORDS + 2)).min(WORDS - 1) as f64 * f64::from(t < 8 - b % 4),
    });
    let shape: Vec<usize> = [11].into_iter().chain(output.shape().iter().copied()).collect();
    let size: usize = shape.iter().product();
    let y: Vec<f64> = (0..size).map(|i| (i * 37 % 101) as f64 / 50.0 - 1.0).collect();
    let y = ArrayD::from_shape_vec(IxDyn(&shape), y).unwrap();
    model.loss_gradient(&x, &y).unwrap().1
}

/// The oracle's gradients, and the same bits on any number of threads: without a mask and with one, both directions, layers of more gates than are
/// summed at once, a table that several layers read, and cells that have no such pass.
#[test]
fn gradients_are_those_of_the_oracle() {
    type Build = Box<dyn Fn(&mut Graph, &GraphTensor) -> GraphTensor>;
    fn stacked(mask_zero: bool, layer: impl Into<LayerConfig>) -> Build {
        let layer: LayerConfig = layer.into();
        Box::new(move |graph, x| {
            let embedding = graph.layer(Embedding::new(WORDS, 5).mask_zero(mask_zero)).unwrap();
            let layer = graph.layer(layer.clone()).unwrap();
            let embedded = graph.call(embedding, &[x]).unwrap();
            graph.call(layer, &[&embedded]).unwrap()
        })
    }
    let mut builds: Vec<(&str, Build)> = Vec::new();
    for mask_zero in [false, true] {
        builds.push(("LSTM", stacked(mask_zero, Lstm::new(7).return_sequences(true))));
        builds.push(("wide LSTM", stacked(mask_zero, Lstm::new(41))));
        builds.push(("RNN", stacked(mask_zero, SimpleRnn::new(3).go_backwards(true))));
        builds.push(("GRU", stacked(mask_zero, Gru::new(5).return_sequences(true))));
        let both = Bidirectional::new(Lstm::new(4).return_sequences(true));
        builds.push(("both directions", stacked(mask_zero, both)));
    }
    builds.push((
        "a shared table",
        Box::new(|graph, x| {
            let embedding = Embedding::new(WORDS, 5).activity_regularizer(Regularizer::l2(0.1));
            let embedding = graph.layer(embedding).unwrap();
            let (left, right) = (Lstm::new(3).return_sequences(true), Lstm::new(3).return_sequences(true));
            let (left, right) = (graph.layer(left).unwrap(), graph.layer(right).unwrap());
            let (dense, sum) = (graph.layer(Dense::new(3)).unwrap(), graph.layer(Add::new()).unwrap());
            let embedded = graph.call(embedding, &[x]).unwrap();
            // A layer that is used twice adds to its gradient.
            let parts = [left, right, left, dense].map(|layer| graph.call(layer, &[&embedded]).unwrap());
            graph.call(sum, &[&parts[0], &parts[1], &parts[2], &parts[3]]).unwrap()
        }),
    ));
    for (name, build) in &builds {
        let expected = gradient(Device::reference().with_dtype(DType::F64).unwrap(), build);
        let mut first: Option<Vec<f64>> = None;
        for threads in [1, 2, 3] {
            let got = gradient(CpuBackend::<f64>::with_threads(threads).unwrap().into(), build);
            assert!(got.iter().any(|g| *g != 0.0), "{name}");
            for (got, expected) in got.iter().zip(&expected) {
                assert!((got - expected).abs() <= 1e-12, "{name}, {threads} threads: {got}, not {expected}");
            }
            assert!(first.get_or_insert_with(|| got.clone()) == &got, "{name}, {threads} threads");
        }
    }
}
