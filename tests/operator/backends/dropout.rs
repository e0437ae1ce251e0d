//! Masks of dropout.

use super::passes::label;
use crate::common::effort::by_effort;
use crate::common::{Number, Rng, convert};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::cell::Activation;
use fused_rnn::rnn::{
    Bias, Direction, Dropout, Layout, RnnDescriptor, RnnShape, WeightEntry, WeightKind, WeightLayout,
};

/// Layers that pass their input on unchanged show the masks themselves, scale and all, forwards and backwards.
pub fn dropout_masks_are_philox<E: Number, B: HostBackend<E>>(backend: &B) {
    let mut rng = Rng::new(5);
    for probability in [0.1, 0.3, 0.5, 0.9, 1.0, 1e-12] {
        for width in by_effort(&[1, 2, 4, 5, 17, 40][..], &[5][..]).iter().copied() {
            let layers = 3;
            let mut d = RnnDescriptor::rnn(width, width);
            (d.num_layers, d.bias, d.dropout) = (layers, Bias::None, probability);
            d.activations.state = Activation::Linear;
            d.direction = rng.pick(&[Direction::Forward, Direction::Reverse]);
            d.layout = rng.pick(&[Layout::SequenceMajor, Layout::BatchMajor]);
            let shape = RnnShape { seq_len: 1 + rng.below(6), batch: 1 + rng.below(5) };
            let layout = WeightLayout::new(&d).expect("valid");
            let mut weights = vec![E::zero(); layout.len()];
            for layer in 0..layers {
                let reads_x = |e: &&WeightEntry| e.layer == layer && e.kind == WeightKind::InputHidden;
                let start = layout.entries().iter().find(reads_x).expect("every layer has it").range.start;
                (0..width).for_each(|i| weights[start + i * width + i] = E::one());
            }
            let seed = rng.bits();
            let x = convert::<E>(&rng.vector(shape.seq_len * shape.batch * width, 4.0));
            let dy = convert::<E>(&rng.vector(x.len(), 4.0));
            let inputs = Inputs { weights, x: x.clone(), dropout_seed: seed, ..Inputs::default() };
            let gradients = OutputGradients { dy: Some(dy.clone()), ..OutputGradients::default() };
            let (outputs, input_gradients) = pass::train(backend, &d, shape, &inputs, &gradients).expect("valid");
            let masked = |values: &[E]| {
                let mut values: Vec<f64> = values.iter().map(|v| v.wide()).collect();
                let dropout = Dropout::new(probability, seed);
                for layer in 1..layers {
                    for (row, values) in values.chunks_mut(width).enumerate() {
                        let (t, b) = match d.layout {
                            Layout::SequenceMajor => (row / shape.batch, row % shape.batch),
                            Layout::BatchMajor => (row % shape.seq_len, row / shape.seq_len),
                        };
                        dropout.apply(values, layer, t, b);
                    }
                }
                values
            };
            let what = format!("{}: p {probability}, width {width}", label(backend));
            for (name, expected, got) in [("y", masked(&x), &outputs.y), ("dx", masked(&dy), &input_gradients.dx)] {
                for i in 0..got.len() {
                    // A dropped element is zero exactly; a kept one may have its factors multiplied in another order.
                    let near = 4.0 * E::DTYPE.epsilon() * expected[i].abs();
                    assert!(
                        (expected[i] - got[i].wide()).abs() <= near,
                        "{what}, {name}[{i}]: {} and {}",
                        expected[i],
                        got[i]
                    );
                }
            }
            let inferred = pass::infer(backend, &d, shape, &inputs).expect("valid");
            assert_eq!(inferred.y, x, "{what}: inference");
            if (0.1..=0.5).contains(&probability) && x.len() > 60 {
                let reseeded = Inputs { dropout_seed: seed ^ (1 << 40), ..inputs };
                let (other, _) = pass::train(backend, &d, shape, &reseeded, &gradients).expect("valid");
                assert_ne!(other.y, outputs.y, "{what}: another seed");
            }
        }
    }
}
