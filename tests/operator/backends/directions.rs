//! Directions and layouts.

use super::parts::rows;
use super::passes::{default_training, is_weight, label};
use crate::common::run::get;
use crate::common::truth::settled;
use crate::common::{Number, Recipe, convert, for_random_problems};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::pass::{self, Inputs, OutputGradients};
use fused_rnn::cell::Activation;
use fused_rnn::rnn::{Bias, Direction, InputKind, Layout, PaddedOutput, RnnDescriptor, RnnShape};

/// With weights of one, no bias and no squashing, the state counts the steps since the start.
fn linear_counter(direction: Direction, padded_output: PaddedOutput) -> RnnDescriptor {
    let mut d = RnnDescriptor::rnn(1, 1);
    (d.direction, d.padded_output, d.bias) = (direction, padded_output, Bias::None);
    d.activations.state = Activation::Linear;
    d
}

/// Closed forms: where each direction starts, what a reset does, which gradients padded outputs pass on.
pub fn counts_steps<E: Number, B: HostBackend<E>>(backend: &B) {
    let (seq_len, lengths) = (5usize, [3u32, 5, 1]);
    let shape = RnnShape { seq_len, batch: 3 };
    // Sequence 1 is reset before its step 2.
    let resets: Vec<u8> = (0..seq_len * 3).map(|i| u8::from(i == 2 * 3 + 1)).collect();
    for hold in [false, true] {
        let padded_output = if hold { PaddedOutput::Hold } else { PaddedOutput::Zero };
        let d = linear_counter(Direction::Bidirectional, padded_output);
        let inputs = Inputs {
            weights: vec![E::one(); 4],
            x: vec![E::one(); seq_len * 3],
            h0: Some(vec![E::of(10.0), E::of(10.0), E::of(10.0), E::of(20.0), E::of(20.0), E::of(20.0)]),
            lengths: Some(lengths.to_vec()),
            resets: Some(resets.clone()),
            ..Inputs::default()
        };
        let dy = Some(vec![E::one(); seq_len * 3 * 2]);
        let gradients = OutputGradients { dy, ..OutputGradients::default() };
        let (outputs, input_gradients) = pass::train(backend, &d, shape, &inputs, &gradients).expect("valid");
        let number = |v: E| v.wide();
        for (b, length) in lengths.into_iter().enumerate() {
            let length = length as usize;
            for t in 0..seq_len {
                let i = t * 3 + b;
                let (forward, reverse) = (number(outputs.y[2 * i]), number(outputs.y[2 * i + 1]));
                let place = format!("{}: step {t} of sequence {b}, hold {hold}", label(backend));
                // Steps walked since the start or the reset, this one included.
                let walked = |t: usize| if b == 1 && t >= 2 { t - 1 } else { t + 1 };
                let walked_back = if b == 1 && t <= 2 { 3 - t } else { length.saturating_sub(t) };
                if t < length {
                    assert_eq!(forward, 10.0 + walked(t) as f64, "{place}, forward");
                    assert_eq!(reverse, 20.0 + walked_back as f64, "{place}, reverse");
                } else {
                    assert_eq!(forward, if hold { 10.0 + walked(length - 1) as f64 } else { 0.0 }, "{place}, forward");
                    assert_eq!(reverse, 0.0, "{place}, reverse");
                }
                // Each output that x reaches has gradient one.
                let later = if b == 1 && t < 2 { 2 - t } else { length.saturating_sub(t) };
                let repeats = if hold && !(b == 1 && t < 2) { seq_len - length } else { 0 };
                let earlier = if b == 1 && t > 2 { t - 2 } else { t + 1 };
                let dx = if t < length { later + repeats + earlier } else { 0 };
                assert_eq!(number(input_gradients.dx[i]), dx as f64, "{place}, dx");
            }
            assert_eq!(number(outputs.hn[b]), 10.0 + if b == 1 { 3.0 } else { length as f64 }, "hn of {b}");
            assert_eq!(number(outputs.hn[3 + b]), 20.0 + if b == 1 { 3.0 } else { length as f64 }, "reverse hn of {b}");
            let held = if hold { seq_len } else { length };
            assert_eq!(number(input_gradients.dh0[b]), held as f64, "dh0 of {b}");
            assert_eq!(number(input_gradients.dh0[3 + b]), length as f64, "reverse dh0 of {b}");
        }
    }
}

/// A bidirectional layer is a forward and a reverse one, and a reverse one is a forward one on the sequence turned around.
pub fn directions_are_what_they_say<E: Number, B: HostBackend<E>>(backend: &B) {
    let one_layer = |r: &mut Recipe| {
        r.descriptor.num_layers = 1;
        r.descriptor.direction = Direction::Bidirectional;
        r.descriptor.padded_output = PaddedOutput::Zero;
        if r.descriptor.input == InputKind::Gates {
            // Each direction has its own.
            (r.descriptor.input, r.descriptor.input_size) = (InputKind::Features, 7);
        }
        r.dy = true;
    };
    for_random_problems::<E>(60, one_layer, |problem| {
        let (problem, truth) = &*settled(&problem.recipe);
        let d = &problem.descriptor;
        let width = d.output_size();
        let tensors = problem.shape.tensors(d).map_err(|e| e.to_string())?;
        let mut dx: Vec<f64> = vec![0.0; problem.inputs.x.len()];
        for direction in 0..2 {
            let mut single = problem.clone();
            single.descriptor.direction = [Direction::Forward, Direction::Reverse][direction];
            single.descriptor.activations = d.activations_of(direction);
            single.descriptor.reverse_activations = None;
            let half =
                |values: &[f64]| values[direction * values.len() / 2..(direction + 1) * values.len() / 2].to_vec();
            let columns = |values: &[f64]| -> Vec<f64> { values.chunks(2 * width).flat_map(half).collect() };
            single.inputs.weights = half(&problem.inputs.weights);
            for state in [
                &mut single.inputs.h0,
                &mut single.inputs.c0,
                &mut single.output_gradients.dhn,
                &mut single.output_gradients.dcn,
            ] {
                *state = state.as_deref().map(half);
            }
            single.output_gradients.dy = problem.output_gradients.dy.as_deref().map(columns);
            let results = default_training::<E, B>(backend, &single)?;
            for (name, got) in &results {
                match name.as_str() {
                    "y" => truth.judge_as("y", &columns(truth.values("y")), got)?,
                    "hn" | "cn" | "dh0" | "dc0" => truth.judge_as(name, &half(truth.values(name)), got)?,
                    "dx" => dx.iter_mut().zip(got).for_each(|(sum, v)| *sum += v.wide()),
                    weight => {
                        let stem = weight.trim_end_matches("_reverse");
                        let whole = if direction == 0 { stem.to_owned() } else { format!("{stem}_reverse") };
                        truth.judge_as(&whole, truth.values(&whole), got)?;
                    }
                }
            }
            if direction == 1 {
                let turn = |t: usize, b: usize| {
                    if t < problem.length(b) { problem.length(b) - 1 - t } else { t }
                };
                let turned = |values: &Vec<f64>, features: usize| {
                    rows(&single, features, |t, b| (values, single.row(turn(t, b), b)))
                };
                let mut forward = single.clone();
                forward.descriptor.direction = Direction::Forward;
                forward.inputs.x = turned(&single.inputs.x, tensors.x[2]);
                forward.output_gradients.dy = single.output_gradients.dy.as_ref().map(|dy| turned(dy, width));
                forward.inputs.resets = single.inputs.resets.as_ref().map(|resets| {
                    let batch = single.shape.batch;
                    (0..resets.len()).map(|i| resets[turn(i / batch, i % batch) * batch + i % batch]).collect()
                });
                let forward = default_training::<E, B>(backend, &forward)?;
                truth.judge_as("y", &turned(&columns(truth.values("y")), width), get(&forward, "y"))?;
                for name in ["hn", "dh0"] {
                    truth.judge_as(name, &half(truth.values(name)), get(&forward, name))?;
                }
                for (name, got) in forward.iter().filter(|(n, _)| is_weight(n)) {
                    let whole = format!("{name}_reverse");
                    truth.judge_as(&whole, truth.values(&whole), got)?;
                }
            }
        }
        truth.judge("dx", &convert::<E>(&dx))
    });
}

pub fn layouts_hold_the_same_values<E: Number, B: HostBackend<E>>(backend: &B) {
    for_random_problems::<E>(
        40,
        |_| {},
        |problem| {
            let (problem, truth) = &*settled(&problem.recipe);
            let tensors = problem.shape.tensors(&problem.descriptor).map_err(|e| e.to_string())?;
            let mut other = problem.clone();
            other.descriptor.layout = match problem.descriptor.layout {
                Layout::SequenceMajor => Layout::BatchMajor,
                Layout::BatchMajor => Layout::SequenceMajor,
            };
            let target = other.clone();
            let moved =
                |values: &Vec<f64>, features: usize| rows(&target, features, |t, b| (values, problem.row(t, b)));
            other.inputs.x = moved(&problem.inputs.x, tensors.x[2]);
            other.output_gradients.dy = problem.output_gradients.dy.as_ref().map(|dy| moved(dy, tensors.y[2]));
            for (name, got) in default_training::<E, B>(backend, &other)? {
                let expected = truth.values(&name).to_vec();
                let expected = match name.as_str() {
                    "y" => moved(&expected, tensors.y[2]),
                    "dx" => moved(&expected, tensors.x[2]),
                    _ => expected,
                };
                truth.judge_as(&name, &expected, &got)?;
            }
            Ok(())
        },
    );
}
