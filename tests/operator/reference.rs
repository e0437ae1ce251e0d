//! The oracle against what follows from the definition without computing a cell: one problem run in two ways.

use fused_rnn::backend::pass::{self, InputGradients, Inputs, OutputGradients, Outputs};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, RecurrentBackend, Reserve, WeightGrad,
};
use fused_rnn::cell::{Activation, Activations, CellKind};
use fused_rnn::gradcheck::{GradCheck, SequenceLengths};
use fused_rnn::rnn::{
    Bias, Direction, Dropout, ForgetGate, GruReset, Layout, PaddedOutput, RnnDescriptor, RnnShape, WeightKind,
    WeightLayout,
};

const T: usize = 6;
const B: usize = 3;
const I: usize = 4;
const H: usize = 5;

type Reference = ReferenceBackend<f64>;

/// One layer of each cell, plain and with what else it can do.
fn operators() -> Vec<RnnDescriptor> {
    let plain = CellKind::ALL.map(|cell| RnnDescriptor::new(cell, I, H));
    let mut lstm = RnnDescriptor::lstm(I, H);
    (lstm.proj_size, lstm.peepholes, lstm.coupled_input_forget) = (Some(2), true, true);
    (lstm.gate_clip, lstm.cell_clip, lstm.bias) = (Some(0.8), Some(0.4), Bias::Single);
    let mut gru = RnnDescriptor::gru(I, H);
    (gru.reset, gru.gate_clip, gru.bias) = (GruReset::Before, Some(0.8), Bias::None);
    gru.activations = Activations { gate: Activation::KERAS_HARD_SIGMOID, state: Activation::Relu, ..gru.activations };
    plain.into_iter().chain([lstm, gru]).collect()
}

fn problem(descriptor: &RnnDescriptor) -> (Inputs<f64>, OutputGradients<f64>) {
    GradCheck::new(descriptor.clone(), T, B).draw(0).unwrap()
}

fn infer(descriptor: &RnnDescriptor, seq_len: usize, batch: usize, inputs: &Inputs<f64>) -> Outputs<f64> {
    pass::infer(&Reference::new(), descriptor, RnnShape { seq_len, batch }, inputs).unwrap()
}

fn train(
    descriptor: &RnnDescriptor,
    seq_len: usize,
    batch: usize,
    inputs: &Inputs<f64>,
    gradients: &OutputGradients<f64>,
) -> (Outputs<f64>, InputGradients<f64>) {
    pass::train(&Reference::new(), descriptor, RnnShape { seq_len, batch }, inputs, gradients).unwrap()
}

fn assert_close(a: &[f64], b: &[f64], what: &str) {
    assert_eq!(a.len(), b.len(), "{what}");
    for (k, (a, b)) in a.iter().zip(b).enumerate() {
        assert!((a - b).abs() <= 1e-13 * (1.0 + b.abs()), "{what}[{k}]: {a} and {b}");
    }
}

/// Swaps the first two axes of `[outer, inner, features]`.
fn transpose(tensor: &[f64], outer: usize, inner: usize) -> Vec<f64> {
    let features = tensor.len() / outer / inner;
    let mut out = Vec::with_capacity(tensor.len());
    for i in 0..inner {
        for o in 0..outer {
            out.extend_from_slice(&tensor[(o * inner + i) * features..][..features]);
        }
    }
    out
}

/// Sequence `b` alone: its rows of a `[outer, B, features]` tensor, the first `outer_len` of them.
fn sequence(tensor: &[f64], b: usize, outer: usize, outer_len: usize) -> Vec<f64> {
    let features = tensor.len() / outer / B;
    (0..outer_len).flat_map(|o| tensor[(o * B + b) * features..][..features].to_vec()).collect()
}

/// With weights of zero every gate is a sigmoid of zero, a half, and every candidate is zero.
#[test]
fn zero_weights() {
    for cell in [CellKind::Rnn, CellKind::Lstm, CellKind::Gru] {
        let descriptor = RnnDescriptor::new(cell, I, H);
        let (mut inputs, _) = problem(&descriptor);
        inputs.weights.fill(0.0);
        let outputs = infer(&descriptor, T, B, &inputs);
        let halved = |initial: &[f64]| initial.iter().map(|v| v * 0.5f64.powi(T as i32)).collect::<Vec<_>>();
        let expected = match cell {
            CellKind::Rnn => vec![0.0; B * H],
            CellKind::Gru => halved(inputs.h0.as_ref().unwrap()),
            _ => halved(inputs.c0.as_ref().unwrap()).iter().map(|c| 0.5 * c.tanh()).collect(),
        };
        assert_close(&outputs.hn, &expected, "hn");
        assert_close(&outputs.y[(T - 1) * B * H..], &expected, "y");
        if let Some(cn) = &outputs.cn {
            assert_close(cn, &halved(inputs.c0.as_ref().unwrap()), "cn");
        }
    }
}

/// What the recurrence without a stabiliser gives, the sLSTM gives too, from any m.
#[test]
fn slstm_is_the_unstabilised_recurrence() {
    let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
    for exponential in [false, true] {
        let mut descriptor = RnnDescriptor::slstm(1, 1);
        if exponential {
            descriptor.forget_gate = ForgetGate::Exponential;
        }
        let (mut inputs, _) = GradCheck::new(descriptor.clone(), 4, 1).draw(0).unwrap();
        for m0 in [-3.0, 0.0, 2.5] {
            let ([c0, n0], w) = ([0.4, 0.9], inputs.weights.clone());
            inputs.c0 = Some(vec![c0, n0, m0]);
            // What is remembered is scaled by exp(-m).
            let (mut c, mut n, mut h) = (c0 * m0.exp(), n0 * m0.exp(), inputs.h0.as_ref().unwrap()[0]);
            let outputs = infer(&descriptor, 4, 1, &inputs);
            for (t, x) in inputs.x.iter().enumerate() {
                let [i, f, z, o] = [0, 1, 2, 3].map(|k| w[k] * x + w[4 + k] * h + w[8 + k] + w[12 + k]);
                let f = if exponential { f.exp() } else { sigmoid(f) };
                (c, n) = (f * c + i.exp() * z.tanh(), f * n + i.exp());
                h = sigmoid(o) * c / n;
                assert_close(&outputs.y[t..=t], &[h], "y");
            }
            let cn = outputs.cn.unwrap();
            assert_close(&[cn[0] * cn[2].exp(), cn[1] * cn[2].exp()], &[c, n], "cn");
        }
    }
}

/// Nothing let in, nothing there: the output is zero, not a quotient of zeros. And exponents that overflow do no harm.
#[test]
fn slstm_at_its_limits() {
    let mut descriptor = RnnDescriptor::slstm(1, 1);
    descriptor.bias = Bias::None;
    let inputs =
        |x: f64| Inputs { weights: vec![1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0], x: vec![x; 3], ..Inputs::default() };
    let closed = infer(&descriptor, 3, 1, &inputs(-1e4));
    assert_eq!(closed.y, [0.0; 3]);
    for x in [1e4, 1e300] {
        let open = infer(&descriptor, 3, 1, &inputs(x));
        assert!(open.y.iter().chain(open.cn.iter().flatten()).all(|v| v.is_finite()), "{open:?}");
    }
}

/// With `heads`, an operator is one of full weights whose blocks beside the diagonal are zero.
#[test]
fn heads_are_blocks() {
    for cell in CellKind::ALL {
        for heads in [2, 3, 6] {
            let mut blocks = RnnDescriptor::new(cell, I, 6);
            (blocks.heads, blocks.direction) = (heads, Direction::Bidirectional);
            let full = blocks.clone().heads(1);
            let (inputs, gradients) = problem(&blocks);
            let (from, to) = (WeightLayout::new(&blocks).unwrap(), WeightLayout::new(&full).unwrap());
            // Where each weight of the blocks stands in the full ones.
            let mut places = vec![0; from.len()];
            for (block, whole) in from.entries().iter().zip(to.entries()) {
                assert_eq!(block.name, whole.name);
                for k in 0..block.range.len() {
                    let size = 6 / heads;
                    let at = if block.kind != WeightKind::HiddenHidden {
                        k
                    } else {
                        k / size * 6 + k / size % 6 / size * size + k % size
                    };
                    places[block.range.start + k] = whole.range.start + at;
                }
                if block.kind == WeightKind::HiddenHidden {
                    assert_eq!(block.shape, [cell.gates(), heads, 6 / heads, 6 / heads]);
                }
            }
            let mut weights = vec![0.0; to.len()];
            places.iter().zip(&inputs.weights).for_each(|(at, w)| weights[*at] = *w);
            let (outputs, slopes) = train(&blocks, T, B, &inputs, &gradients);
            let whole = Inputs { weights, ..inputs };
            let (full_outputs, full_slopes) = train(&full, T, B, &whole, &gradients);
            assert_close(&outputs.y, &full_outputs.y, "y");
            assert_close(&slopes.dx, &full_slopes.dx, "dx");
            assert_close(&slopes.dh0, &full_slopes.dh0, "dh0");
            let picked: Vec<f64> = places.iter().map(|at| full_slopes.dweights[*at]).collect();
            assert_close(&slopes.dweights, &picked, "dweights");
        }
    }
}

/// Gates computed outside give what the operator gives that computes them, and `dx` is their gradient.
#[test]
fn gates_as_input() {
    for cell in CellKind::ALL {
        for bias in [Bias::None, Bias::Double] {
            let mut features = RnnDescriptor::new(cell, I, H);
            (features.direction, features.bias) = (Direction::Bidirectional, bias);
            let gates = features.clone().of_gates();
            let (inputs, gradients) = problem(&features);
            let layout = WeightLayout::new(&features).unwrap();
            let (rows, width) = (cell.gates() * H, gates.input_size);
            let (mut x, mut weights) = (vec![0.0; T * B * width], Vec::new());
            for entry in layout.entries() {
                let w = &inputs.weights[entry.range.clone()];
                if entry.kind == WeightKind::InputHidden {
                    for step in 0..T * B {
                        for row in 0..rows {
                            let products = (0..I).map(|k| w[row * I + k] * inputs.x[step * I + k]);
                            x[step * width + entry.direction * rows + row] = products.sum();
                        }
                    }
                } else {
                    weights.extend_from_slice(w);
                }
            }
            let (outputs, slopes) = train(&features, T, B, &inputs, &gradients);
            let given = Inputs { weights, x, ..inputs.clone() };
            let (same, own) = train(&gates, T, B, &given, &gradients);
            assert_close(&same.y, &outputs.y, "y");
            assert_close(&own.dh0, &slopes.dh0, "dh0");
            // dx of the features follows from dx of the gates.
            let mut dx = vec![0.0; T * B * I];
            for entry in layout.entries().iter().filter(|entry| entry.kind == WeightKind::InputHidden) {
                for step in 0..T * B {
                    for row in 0..rows {
                        for k in 0..I {
                            dx[step * I + k] += inputs.weights[entry.range.start + row * I + k]
                                * own.dx[step * width + entry.direction * rows + row];
                        }
                    }
                }
            }
            assert_close(&dx, &slopes.dx, "dx");
        }
    }
}

/// One unit, one input, two steps, with the textbook's equations written out.
#[test]
fn one_unit_by_hand() {
    let sigmoid = |a: f64| 1.0 / (1.0 + (-a).exp());
    let (x, h0, c0) = ([0.7, -1.2], 0.3, -0.4);
    let run = |descriptor: RnnDescriptor, weights: Vec<f64>| {
        let c0 = descriptor.cell.has_cell_state().then(|| vec![c0]);
        let inputs = Inputs { weights, x: x.to_vec(), h0: Some(vec![h0]), c0, ..Inputs::default() };
        infer(&descriptor, 2, 1, &inputs).y
    };

    // weight_ih, weight_hh, bias_ih, bias_hh
    let y = run(RnnDescriptor::rnn(1, 1), vec![0.5, -0.8, 0.1, 0.2]);
    let mut h = h0;
    let expected = x.map(|x| {
        h = (0.5 * x + 0.1 - 0.8 * h + 0.2f64).tanh();
        h
    });
    assert_close(&y, &expected, "rnn");

    // Rows i, f, g, o.
    let weights =
        [[0.5, -0.3, 0.9, 0.2], [0.4, 0.6, -0.7, 0.1], [0.01, 0.02, 0.03, 0.04], [0.1, 0.2, -0.3, 0.5]].concat();
    let y = run(RnnDescriptor::lstm(1, 1), weights);
    let (mut h, mut c) = (h0, c0);
    let expected = x.map(|x| {
        let i = sigmoid(0.5 * x + 0.01 + 0.4 * h + 0.1);
        let f = sigmoid(-0.3 * x + 0.02 + 0.6 * h + 0.2);
        let g = (0.9 * x + 0.03 - 0.7 * h - 0.3).tanh();
        let o = sigmoid(0.2 * x + 0.04 + 0.1 * h + 0.5);
        c = f * c + i * g;
        h = o * c.tanh();
        h
    });
    assert_close(&y, &expected, "lstm");

    // Rows r, z, n.
    let weights = [[0.5, -0.3, 0.9], [0.4, 0.6, -0.7], [0.01, 0.02, 0.03], [0.1, 0.2, -0.3]].concat();
    for reset in [GruReset::After, GruReset::Before] {
        let mut descriptor = RnnDescriptor::gru(1, 1);
        descriptor.reset = reset;
        let y = run(descriptor, weights.clone());
        let mut h = h0;
        let expected = x.map(|x| {
            let r = sigmoid(0.5 * x + 0.01 + 0.4 * h + 0.1);
            let z = sigmoid(-0.3 * x + 0.02 + 0.6 * h + 0.2);
            let n = match reset {
                GruReset::After => (0.9 * x + 0.03 + r * (-0.7 * h - 0.3)).tanh(),
                GruReset::Before => (0.9 * x + 0.03 - 0.7 * (r * h) - 0.3).tanh(),
            };
            h = (1.0 - z) * n + z * h;
            h
        });
        assert_close(&y, &expected, "gru");
    }
}

/// A projection onto the first units gives the first elements of what no projection gives, as long as the state fed back
/// is the same: with recurrent weights of zero.
#[test]
fn projection_selects() {
    let plain = RnnDescriptor::lstm(I, H);
    let projected = plain.clone().proj_size(Some(2));
    let (mut inputs, _) = problem(&projected);
    let layout = WeightLayout::new(&projected).unwrap();
    let range = |name: &str| layout.find(name).unwrap().range.clone();
    inputs.weights[range("weight_hh_l0")].fill(0.0);
    inputs.weights[range("weight_hr_l0")].fill(0.0);
    for p in 0..2 {
        inputs.weights[range("weight_hr_l0")][p * H + p] = 1.0;
    }
    let projected = infer(&projected, T, B, &inputs);

    let input_rows = inputs.weights[range("weight_ih_l0")].to_vec();
    let biases = inputs.weights[range("bias_ih_l0").start..range("bias_hh_l0").end].to_vec();
    inputs.weights = [input_rows, vec![0.0; 4 * H * H], biases].concat();
    inputs.h0 = None;
    let plain = infer(&plain, T, B, &inputs);
    for row in 0..T * B {
        assert_close(&projected.y[row * 2..][..2], &plain.y[row * H..][..2], "y");
    }
    assert_close(projected.cn.as_ref().unwrap(), plain.cn.as_ref().unwrap(), "cn");
}

#[test]
fn carried_state_continues_a_sequence() {
    for mut descriptor in operators() {
        descriptor.num_layers = 2;
        let (inputs, _) = problem(&descriptor);
        let whole = infer(&descriptor, T, B, &inputs);
        for split in [1, 2, T - 1] {
            let (first_x, second_x) = inputs.x.split_at(split * B * I);
            let first = infer(&descriptor, split, B, &Inputs { x: first_x.to_vec(), ..inputs.clone() });
            let carried =
                Inputs { x: second_x.to_vec(), h0: Some(first.hn.clone()), c0: first.cn.clone(), ..inputs.clone() };
            let second = infer(&descriptor, T - split, B, &carried);
            assert_eq!([first.y, second.y].concat(), whole.y, "{descriptor:?}");
            assert_eq!((second.hn, second.cn), (whole.hn.clone(), whole.cn.clone()), "{descriptor:?}");
        }
    }
}

#[test]
fn reset_starts_the_sequence_anew() {
    for mut descriptor in operators() {
        let at = 2;
        for direction in [Direction::Forward, Direction::Reverse] {
            descriptor.direction = direction;
            let (mut inputs, gradients) = problem(&descriptor);
            let parts = [(0, at), (at, T)].map(|(start, end)| {
                let y_features = descriptor.output_size();
                let part = Inputs { x: inputs.x[start * B * I..end * B * I].to_vec(), ..inputs.clone() };
                // The state that is not carried over has no gradient.
                let is_last = (direction == Direction::Forward) == (end == T);
                let gradients = OutputGradients {
                    dy: gradients.dy.as_ref().map(|dy| dy[start * B * y_features..end * B * y_features].to_vec()),
                    dhn: gradients.dhn.clone().filter(|_| is_last),
                    dcn: gradients.dcn.clone().filter(|_| is_last),
                };
                train(&descriptor, end - start, B, &part, &gradients)
            });
            // Before step `t` is processed, in the direction of processing.
            let step = if direction == Direction::Forward { at } else { at - 1 };
            let mut resets = vec![0; T * B];
            resets[step * B..(step + 1) * B].fill(255);
            inputs.resets = Some(resets);
            let (outputs, whole) = train(&descriptor, T, B, &inputs, &gradients);

            let [(first_outputs, first), (second_outputs, second)] = parts;
            assert_eq!(outputs.y, [first_outputs.y, second_outputs.y].concat(), "{descriptor:?}");
            let last = if direction == Direction::Forward { second_outputs.hn } else { first_outputs.hn };
            assert_eq!(outputs.hn, last, "{descriptor:?}");
            assert_close(&whole.dx, &[first.dx, second.dx].concat(), "dx");
            let sum = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a + b).collect::<Vec<_>>();
            assert_close(&whole.dh0, &sum(&first.dh0, &second.dh0), "dh0");
            assert_close(&whole.dweights, &sum(&first.dweights, &second.dweights), "dweights");
            if let Some(dc0) = &whole.dc0 {
                assert_close(dc0, &sum(first.dc0.as_ref().unwrap(), second.dc0.as_ref().unwrap()), "dc0");
            }
        }
    }
}

/// Each sequence of a ragged batch gives what it gives alone, whatever stands in the padding.
#[test]
fn lengths_are_sequences_alone() {
    let lengths = [4, T as u32, 1];
    for mut descriptor in operators() {
        descriptor.num_layers = 2;
        for direction in [Direction::Forward, Direction::Reverse, Direction::Bidirectional] {
            descriptor.direction = direction;
            let states = 2 * direction.count();
            let (mut inputs, gradients) = problem(&descriptor);
            inputs.lengths = Some(lengths.to_vec());
            for (b, len) in lengths.iter().enumerate() {
                for t in *len as usize..T {
                    inputs.x[(t * B + b) * I..][..I].fill(f64::NAN);
                }
            }
            let (outputs, ragged) = train(&descriptor, T, B, &inputs, &gradients);
            assert_eq!(outputs, infer(&descriptor, T, B, &inputs));

            let mut dweights = vec![0.0; ragged.dweights.len()];
            for (b, len) in lengths.iter().enumerate() {
                let len = *len as usize;
                let state = |tensor: &Option<Vec<f64>>| tensor.as_ref().map(|t| sequence(t, b, states, states));
                let alone = Inputs {
                    x: sequence(&inputs.x, b, T, len),
                    h0: state(&inputs.h0),
                    c0: state(&inputs.c0),
                    lengths: None,
                    ..inputs.clone()
                };
                let alone_gradients = OutputGradients {
                    dy: gradients.dy.as_ref().map(|dy| sequence(dy, b, T, len)),
                    dhn: state(&gradients.dhn),
                    dcn: state(&gradients.dcn),
                };
                let (expected, expected_gradients) = train(&descriptor, len, 1, &alone, &alone_gradients);
                let padded = |mut valid: Vec<f64>, features: usize| {
                    valid.resize(T * features, 0.0);
                    valid
                };
                let features = direction.count() * descriptor.output_size();
                assert_eq!(sequence(&outputs.y, b, T, T), padded(expected.y, features), "y of {b}: {descriptor:?}");
                assert_eq!(sequence(&outputs.hn, b, states, states), expected.hn, "hn of {b}: {descriptor:?}");
                assert_eq!(state(&outputs.cn), expected.cn, "cn of {b}: {descriptor:?}");
                assert_eq!(sequence(&ragged.dx, b, T, T), padded(expected_gradients.dx, I), "dx of {b}");
                assert_eq!(sequence(&ragged.dh0, b, states, states), expected_gradients.dh0, "dh0 of {b}");
                assert_eq!(state(&ragged.dc0), expected_gradients.dc0, "dc0 of {b}");
                for (sum, part) in dweights.iter_mut().zip(expected_gradients.dweights) {
                    *sum += part;
                }
            }
            assert_close(&ragged.dweights, &dweights, "dweights");
        }
    }
}

/// In the reverse direction a layer is the forward one on the sequence turned around, from its last valid step.
#[test]
fn reverse_is_forward_turned_around() {
    let lengths = [4, T as u32, 1];
    let turned = |tensor: &[f64]| {
        let features = tensor.len() / T / B;
        let mut out = vec![0.0; tensor.len()];
        for (b, len) in lengths.iter().enumerate() {
            for t in 0..*len as usize {
                let from = (*len as usize - 1 - t) * B + b;
                out[(t * B + b) * features..][..features].copy_from_slice(&tensor[from * features..][..features]);
            }
        }
        out
    };
    for mut descriptor in operators() {
        let (mut inputs, gradients) = problem(&descriptor);
        inputs.lengths = Some(lengths.to_vec());
        let turned_inputs = Inputs { x: turned(&inputs.x), ..inputs.clone() };
        let turned_gradients = OutputGradients { dy: gradients.dy.as_deref().map(turned), ..gradients.clone() };
        let (forward, forward_gradients) = train(&descriptor, T, B, &turned_inputs, &turned_gradients);
        descriptor.direction = Direction::Reverse;
        let (reverse, reverse_gradients) = train(&descriptor, T, B, &inputs, &gradients);
        assert_eq!(reverse.y, turned(&forward.y), "{descriptor:?}");
        assert_eq!((reverse.hn, reverse.cn), (forward.hn, forward.cn), "{descriptor:?}");
        assert_eq!(reverse_gradients.dx, turned(&forward_gradients.dx), "{descriptor:?}");
        assert_eq!(reverse_gradients.dh0, forward_gradients.dh0, "{descriptor:?}");
        assert_eq!(reverse_gradients.dc0, forward_gradients.dc0, "{descriptor:?}");
        assert_eq!(reverse_gradients.dweights, forward_gradients.dweights, "{descriptor:?}");
    }
}

#[test]
fn bidirectional_is_two_directions() {
    for mut descriptor in operators() {
        descriptor.direction = Direction::Bidirectional;
        descriptor.reverse_activations =
            Some(Activations { gate: Activation::Softsign, state: Activation::Sigmoid, output: Activation::Linear });
        let (mut inputs, gradients) = problem(&descriptor);
        inputs.lengths = Some(vec![4, T as u32, 1]);
        let (both, both_gradients) = train(&descriptor, T, B, &inputs, &gradients);
        let mut dx = vec![0.0; inputs.x.len()];
        for (d, direction) in [Direction::Forward, Direction::Reverse].into_iter().enumerate() {
            let half = |tensor: &[f64]| tensor[d * tensor.len() / 2..(d + 1) * tensor.len() / 2].to_vec();
            // The direction's features of every row of `y`.
            let columns = |y: &[f64]| {
                let rows = y.chunks_exact(2 * descriptor.output_size());
                rows.flat_map(half).collect::<Vec<_>>()
            };
            let mut single = descriptor.clone();
            single.direction = direction;
            single.activations = descriptor.activations_of(d);
            single.reverse_activations = None;
            let single_inputs = Inputs {
                weights: half(&inputs.weights),
                h0: inputs.h0.as_deref().map(half),
                c0: inputs.c0.as_deref().map(half),
                ..inputs.clone()
            };
            let single_gradients = OutputGradients {
                dy: gradients.dy.as_deref().map(columns),
                dhn: gradients.dhn.as_deref().map(half),
                dcn: gradients.dcn.as_deref().map(half),
            };
            let (outputs, gradients) = train(&single, T, B, &single_inputs, &single_gradients);
            assert_eq!(columns(&both.y), outputs.y, "{single:?}");
            assert_eq!(half(&both.hn), outputs.hn, "{single:?}");
            assert_eq!(both.cn.as_deref().map(half), outputs.cn, "{single:?}");
            assert_eq!(half(&both_gradients.dh0), gradients.dh0, "{single:?}");
            assert_eq!(half(&both_gradients.dweights), gradients.dweights, "{single:?}");
            for (sum, part) in dx.iter_mut().zip(gradients.dx) {
                *sum += part;
            }
        }
        assert_close(&both_gradients.dx, &dx, "dx");
    }
}

#[test]
fn batch_major_is_transposed() {
    for mut descriptor in operators() {
        descriptor.num_layers = 2;
        descriptor.direction = Direction::Bidirectional;
        descriptor.padded_output = PaddedOutput::Hold;
        let mut check = GradCheck::new(descriptor.clone(), T, B);
        check.optional.lengths = SequenceLengths::Given(vec![4, T as u32, 1]);
        check.optional.resets = true;
        let (inputs, gradients) = check.draw(0).unwrap();
        let (outputs, mut input_gradients) = train(&descriptor, T, B, &inputs, &gradients);

        descriptor.layout = Layout::BatchMajor;
        let inputs = Inputs { x: transpose(&inputs.x, T, B), ..inputs };
        let gradients = OutputGradients { dy: gradients.dy.map(|dy| transpose(&dy, T, B)), ..gradients };
        let (transposed, transposed_gradients) = train(&descriptor, T, B, &inputs, &gradients);
        assert_eq!(transposed, Outputs { y: transpose(&outputs.y, T, B), ..outputs });
        input_gradients.dx = transpose(&input_gradients.dx, T, B);
        assert_eq!(transposed_gradients, input_gradients);
    }
}

#[test]
fn padded_outputs() {
    for mut descriptor in operators() {
        descriptor.direction = Direction::Bidirectional;
        let (mut inputs, _) = problem(&descriptor);
        inputs.lengths = Some(vec![4, T as u32, 1]);
        let zero = infer(&descriptor, T, B, &inputs);
        descriptor.padded_output = PaddedOutput::Hold;
        let held = infer(&descriptor, T, B, &inputs);
        assert_eq!((&zero.hn, &zero.cn), (&held.hn, &held.cn));
        let features = descriptor.output_size();
        let part = |y: &[f64], t: usize, b: usize, d: usize| y[((t * B + b) * 2 + d) * features..][..features].to_vec();
        for (b, len) in [4, T, 1].into_iter().enumerate() {
            for t in 0..T {
                for d in 0..2 {
                    let valid = part(&zero.y, t.min(len - 1), b, d);
                    let (in_zero, in_held) = match (t < len, d) {
                        (true, _) => (valid.clone(), valid),
                        (false, 0) => (vec![0.0; features], valid),
                        (false, _) => (vec![0.0; features], vec![0.0; features]),
                    };
                    assert_eq!((part(&zero.y, t, b, d), part(&held.y, t, b, d)), (in_zero, in_held), "{t} {b} {d}");
                }
            }
        }
    }
}

#[test]
fn training_without_dropout_is_inference() {
    for mut descriptor in operators() {
        descriptor.num_layers = 3;
        descriptor.direction = Direction::Bidirectional;
        let (inputs, gradients) = problem(&descriptor);
        let inference = infer(&descriptor, T, B, &inputs);
        assert_eq!(train(&descriptor, T, B, &inputs, &gradients).0, inference);
        descriptor.dropout = 0.5;
        assert_eq!(infer(&descriptor, T, B, &inputs), inference, "inference has no dropout");
        assert_ne!(train(&descriptor, T, B, &inputs, &gradients).0, inference);
    }
}

/// Two layers with dropout are one layer, a mask, and another layer.
#[test]
fn dropout_lies_between_layers() {
    for mut descriptor in operators() {
        descriptor.direction = Direction::Bidirectional;
        descriptor.num_layers = 2;
        descriptor.dropout = 0.4;
        let (inputs, gradients) = problem(&descriptor);
        let (both, _) = train(&descriptor, T, B, &inputs, &gradients);

        let features = descriptor.layer_input_size(1);
        let first = descriptor.clone().num_layers(1);
        let mut second = first.clone();
        second.input_size = features;
        let (first_weights, second_weights) = inputs.weights.split_at(WeightLayout::new(&first).unwrap().len());
        let halves = |tensor: &Option<Vec<f64>>, l: usize| {
            tensor.as_ref().map(|t| t[l * t.len() / 2..(l + 1) * t.len() / 2].to_vec())
        };
        let of_layer = |l: usize, weights: &[f64], x: Vec<f64>| Inputs {
            weights: weights.to_vec(),
            x,
            h0: halves(&inputs.h0, l),
            c0: halves(&inputs.c0, l),
            ..Inputs::default()
        };
        let below = infer(&first, T, B, &of_layer(0, first_weights, inputs.x.clone()));
        let mut between = below.y;
        for t in 0..T {
            for b in 0..B {
                let row = &mut between[(t * B + b) * features..][..features];
                Dropout::new(0.4, inputs.dropout_seed).apply(row, 1, t, b);
            }
        }
        let above = infer(&second, T, B, &of_layer(1, second_weights, between));
        assert_eq!(both.y, above.y);
        assert_eq!(both.hn, [below.hn, above.hn].concat());
    }
}

/// The forget gate's rows of a coupled LSTM are not read, and have gradients of zero.
#[test]
fn coupled_forget_rows_are_unused() {
    let mut descriptor = RnnDescriptor::lstm(I, H);
    (descriptor.coupled_input_forget, descriptor.peepholes, descriptor.num_layers) = (true, true, 2);
    let (mut inputs, gradients) = problem(&descriptor);
    let expected = train(&descriptor, T, B, &inputs, &gradients);
    for entry in WeightLayout::new(&descriptor).unwrap().entries() {
        let rows = if entry.name.starts_with("weight_peephole") { 3 } else { 4 };
        let row_len = entry.range.len() / rows;
        let forget = entry.range.start + row_len..entry.range.start + 2 * row_len;
        inputs.weights[forget.clone()].fill(f64::NAN);
        assert!(expected.1.dweights[forget].iter().all(|g| *g == 0.0), "{}", entry.name);
        assert!(expected.1.dweights[entry.range.clone()].iter().any(|g| *g != 0.0), "{}", entry.name);
    }
    assert_eq!(train(&descriptor, T, B, &inputs, &gradients), expected);
}

/// Tensors that are not given count as zeros, and what is not asked for is not needed.
#[test]
fn absent_is_zero() {
    for mut descriptor in operators() {
        descriptor.num_layers = 2;
        let (inputs, gradients) = problem(&descriptor);
        let zeros = |len: usize| Some(vec![0.0; len]);
        let absent = Inputs { h0: None, c0: None, ..inputs.clone() };
        let has_cell_state = descriptor.cell.has_cell_state();
        let others = descriptor.cell.other_states() * H;
        let zero = Inputs {
            h0: zeros(2 * B * descriptor.output_size()),
            c0: zeros(2 * B * others).filter(|_| has_cell_state),
            lengths: Some(vec![T as u32; B]),
            resets: Some(vec![0; T * B]),
            ..inputs
        };
        assert_eq!(
            train(&descriptor, T, B, &zero, &gradients),
            train(&descriptor, T, B, &absent, &gradients),
            "{descriptor:?}"
        );

        let zero_gradients = OutputGradients {
            dy: zeros(T * B * descriptor.output_size()),
            dhn: zeros(2 * B * descriptor.output_size()),
            dcn: zeros(2 * B * others).filter(|_| has_cell_state),
        };
        let only = |dy, dhn, dcn| OutputGradients { dy, dhn, dcn };
        let OutputGradients { dy, dhn, dcn } = gradients;
        for (present, absent) in [
            (only(dy.clone(), zero_gradients.dhn.clone(), zero_gradients.dcn.clone()), only(dy, None, None)),
            (only(zero_gradients.dy.clone(), dhn.clone(), zero_gradients.dcn.clone()), only(None, dhn, None)),
            (only(zero_gradients.dy.clone(), zero_gradients.dhn.clone(), dcn.clone()), only(None, None, dcn)),
        ] {
            assert_eq!(
                train(&descriptor, T, B, &zero, &present),
                train(&descriptor, T, B, &zero, &absent),
                "{descriptor:?}"
            );
        }
    }
}

/// `Set` writes every element, `Add` adds to it, the reserve can be used for both, and stale storage does no harm.
#[test]
fn set_and_add() {
    for mut descriptor in operators() {
        (descriptor.num_layers, descriptor.dropout) = (2, 0.3);
        let (inputs, gradients) = problem(&descriptor);
        let (outputs, expected) = train(&descriptor, T, B, &inputs, &gradients);

        let backend = Reference::new();
        let plan = backend.plan(&descriptor, RnnShape { seq_len: T, batch: B }, ForwardMode::Training).unwrap();
        let space = backend.temp_space(&plan);
        let mut workspace = vec![7.0; space.workspace];
        let mut storage = vec![-3.0; space.reserve];
        let mut y = vec![9.0; outputs.y.len()];
        let forward = ForwardArgs::<Reference>::new(&inputs.weights, &inputs.x, &mut y, &mut workspace)
            .h0(inputs.h0.as_deref())
            .c0(inputs.c0.as_deref())
            .dropout_seed(inputs.dropout_seed);
        let filled = backend.forward_training(&plan, forward, Reserve::new(storage.as_mut_slice())).unwrap();
        assert_eq!(y, outputs.y);
        // Neither dx, dh0 nor dc0 is asked for.
        let backward = BackwardDataArgs::<Reference>::new(&inputs.weights, &inputs.x, &y, &mut workspace)
            .h0(inputs.h0.as_deref())
            .c0(inputs.c0.as_deref())
            .dy(gradients.dy.as_deref())
            .dhn(gradients.dhn.as_deref())
            .dcn(gradients.dcn.as_deref());
        let mut differentiated = backend.backward_data(&plan, backward, filled).unwrap();
        let mut dweights = vec![f64::NAN; inputs.weights.len()];
        for (grad, times) in [(WeightGrad::Set, 1.0), (WeightGrad::Add, 2.0), (WeightGrad::Add, 3.0)] {
            let args = BackwardWeightsArgs::<Reference>::new(&inputs.x, &y, &mut dweights, &mut workspace)
                .h0(inputs.h0.as_deref())
                .c0(inputs.c0.as_deref());
            backend.backward_weights(&plan, args, &mut differentiated, grad).unwrap();
            let expected: Vec<_> = expected.dweights.iter().map(|g| times * g).collect();
            assert_close(&dweights, &expected, "dweights");
        }
    }
}

/// `f32` gives what `f64` gives, to the precision of `f32`.
#[test]
fn single_precision() {
    for mut descriptor in operators() {
        (descriptor.num_layers, descriptor.direction) = (2, Direction::Bidirectional);
        let (wide, wide_gradients) = problem(&descriptor);
        let narrow = |v: &[f64]| v.iter().map(|v| *v as f32).collect::<Vec<_>>();
        let widen = |v: &[f32]| v.iter().map(|v| f64::from(*v)).collect::<Vec<_>>();
        let narrow_option = |v: &Option<Vec<f64>>| v.as_deref().map(narrow);
        let inputs = Inputs {
            weights: narrow(&wide.weights),
            x: narrow(&wide.x),
            h0: narrow_option(&wide.h0),
            c0: narrow_option(&wide.c0),
            lengths: None,
            resets: None,
            dropout_seed: 0,
        };
        let gradients = OutputGradients {
            dy: narrow_option(&wide_gradients.dy),
            dhn: narrow_option(&wide_gradients.dhn),
            dcn: narrow_option(&wide_gradients.dcn),
        };
        let shape = RnnShape { seq_len: T, batch: B };
        let single = ReferenceBackend::<f32>::default();
        let (outputs, input_gradients) = pass::train(&single, &descriptor, shape, &inputs, &gradients).unwrap();
        let (wide_outputs, wide_input_gradients) = train(&descriptor, T, B, &wide, &wide_gradients);
        for (a, b, what) in [
            (widen(&outputs.y), &wide_outputs.y, "y"),
            (widen(&input_gradients.dx), &wide_input_gradients.dx, "dx"),
            (widen(&input_gradients.dweights), &wide_input_gradients.dweights, "dweights"),
        ] {
            let scale = b.iter().fold(0.0f64, |m, v| m.max(v.abs()));
            let error = a.iter().zip(b).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
            assert!(error > 0.0 && error <= 5e-6 * scale, "{what}: {error} of {scale} in {descriptor:?}");
        }
    }
}
