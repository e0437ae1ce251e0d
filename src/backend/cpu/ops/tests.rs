//! What the operations promise: the bits of the plain loops, which the oracle computes, on every instruction set and any number of
//! threads. The exponential of softmax and large matrix products have tests of their own.

use super::CpuElement;
use super::elements::AllFinite;
use crate::backend::WeightGrad;
use crate::backend::cpu::CpuBackend;
use crate::backend::host_ops::plain::norms::{Moments, NormGradients};
use crate::backend::host_ops::{HostAttention, HostAttentionGradients, HostLoss, HostOperations, HostSoftmaxMask};
use crate::backend::ops::{
    AdagradStep, AdamStep, AttentionShape, LOSS, LossEntry, RmsPropStep, STATUS_LEN, SgdStep, TOTAL, Workspace,
};
use crate::backend::reference::ReferenceBackend;
use crate::cell::Activation;
use crate::dtype::Scalar;
use crate::loss::Loss;
use crate::rnn::Dropout;
use crate::simd::Isa;

fn numbers<E: Scalar>(len: usize, seed: usize) -> Vec<E> {
    (0..len).map(|i| E::of(((i + seed) * 7919 % 1009) as f64 / 504.5 - 0.9)).collect()
}

/// What `run` writes to tensors of `lens`, with values in them before.
fn written<B: HostOperations>(
    backend: &B,
    lens: &[usize],
    run: impl Fn(&B, &mut [Vec<B::Element>]) -> crate::Result<()>,
) -> Vec<Vec<B::Element>> {
    let mut out: Vec<_> = lens.iter().enumerate().map(|(i, len)| numbers(*len, i)).collect();
    run(backend, &mut out).unwrap();
    out
}

/// Checks one call for all backends; a macro, since a closure cannot be generic over the backend.
macro_rules! check {
    ($backends:ident, $name:expr, [$($len:expr),*], |$backend:ident, $out:ident| $call:expr) => {
        let expected = written(&ReferenceBackend::<E>::new(), &[$($len),*], |$backend, $out| $call);
        for cpu in &$backends {
            let got = written(cpu, &[$($len),*], |$backend, $out| $call);
            assert!(got == expected, "{} on {cpu:?}", $name);
        }
    };
}

fn gives_the_bits_of_plain_loops<E: CpuElement>(rows: usize, columns: usize, threads: &[usize]) {
    let backends: Vec<CpuBackend<E>> = Isa::all_fused()
        .into_iter()
        .flat_map(|isa| threads.iter().map(move |threads| CpuBackend::with_isa(isa, *threads).unwrap()))
        .collect();
    let len = rows * columns;
    let (x, dy) = (numbers::<E>(len, 1), numbers::<E>(len, 3));
    let (gamma, beta) = (numbers::<E>(columns, 5), numbers::<E>(columns, 7));
    let weights: Vec<E> = (0..rows).map(|r| E::of((r % 3) as f64)).collect();
    let statistics: Vec<E> = (0..2 * rows).map(|i| E::of(0.25 + (i % 5) as f64 / 4.0)).collect();
    let variance: Vec<E> = (0..columns).map(|i| E::of((i % 7) as f64 / 4.0)).collect();

    for grad in [WeightGrad::Set, WeightGrad::Add] {
        for (alpha, sizes) in
            [(1.0, [1, rows, columns]), (0.3, [1, len, 1]), (1.0, [1, len, 1]), (0.5, [rows, columns, 1])]
        {
            check!(backends, "sum_axis", [sizes[0] * sizes[2]], |b, o| b.sum_axis(sizes, alpha, &x, &mut o[0], grad));
        }
        if rows.is_multiple_of(3) {
            let sizes = [3, rows / 3, columns];
            check!(backends, "sum_axis", [3 * columns], |b, o| b.sum_axis(sizes, 0.7, &x, &mut o[0], grad));
        }
        for (gamma, part) in [(Some(&gamma[..]), true), (None, false)] {
            check!(backends, "layer_norm_gradient", [len, columns, columns], |b, o| {
                let [dx, dgamma, dbeta] = o else { unreachable!() };
                let (dgamma, dbeta) = (Some(&mut dgamma[..]), part.then_some(&mut dbeta[..]));
                let to = NormGradients { dx: Some(dx), dgamma, dbeta, grad };
                b.layer_norm_gradient(columns, &x, gamma, &statistics, &dy, to)
            });
            check!(backends, "batch_norm_gradient", [len, columns, columns], |b, o| {
                let [dx, dgamma, dbeta] = o else { unreachable!() };
                let (dx, dgamma) = (part.then_some(&mut dx[..]), Some(&mut dgamma[..]));
                let to = NormGradients { dx, dgamma, dbeta: Some(dbeta), grad };
                let moments = Moments { epsilon: 1e-3, mean: &beta, variance: &variance };
                b.batch_norm_gradient(&x, part.then_some(&weights), moments, gamma, &dy, to)
            });
        }
    }
    for (gamma, beta) in [(Some(&gamma[..]), Some(&beta[..])), (None, None)] {
        check!(backends, "layer_norm", [len, 2 * rows], |b, o| {
            let [y, statistics] = o else { unreachable!() };
            b.layer_norm(columns, 1e-3, &x, gamma, beta, y, statistics)
        });
        check!(backends, "batch_norm", [len], |b, o| {
            let moments = Moments { epsilon: 1e-3, mean: &weights_as(&variance), variance: &variance };
            b.batch_norm(&x, moments, gamma, beta, &mut o[0])
        });
    }
    for weights in [None, Some(&weights[..])] {
        check!(backends, "column_moments", [columns, columns], |b, o| {
            let [mean, variance] = o else { unreachable!() };
            b.column_moments(columns, &x, weights, mean, variance)
        });
    }
    for beta in [0.0, 0.75] {
        check!(backends, "scale_add", [len], |b, o| b.scale_add(1.25, &x, beta, &mut o[0]));
    }
    check!(backends, "sum", [len], |b, o| b.sum(&x, -0.7, &dy, &mut o[0]));
    check!(backends, "copy", [len], |b, o| b.copy(&x, &mut o[0]));
    check!(backends, "scale", [len], |b, o| b.scale(0.3, &mut o[0]));
    check!(backends, "multiply", [len], |b, o| b.multiply(&x, &dy, &mut o[0]));
    check!(backends, "clip_by_value", [len], |b, o| b.clip_by_value(0.5, &mut o[0]));
    for activation in Activation::ALL {
        check!(backends, activation.name(), [len, len], |b, o| {
            let [values, inputs] = o else { unreachable!() };
            b.add_bias_activate(activation, Some(&gamma), values, Some(inputs))
        });
        check!(backends, activation.name(), [len], |b, o| b.activation_gradient(activation, &dy, &x, &mut o[0]));
    }
    check!(backends, "dropout", [len], |b, o| b.dropout(&Dropout::new(0.4, 5), 2, 1, columns, &x, &mut o[0]));

    let adam = AdamStep { rate: 0.1, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-7, decay: 0.01 };
    check!(backends, "adam", [len, len, len], |b, o| {
        let [parameters, m, v] = o else { unreachable!() };
        v.iter_mut().for_each(|v| *v = v.abs());
        b.adam(adam, parameters, &dy, m, v)
    });
    let sgd = SgdStep { rate: 0.1, momentum: 0.9, nesterov: true };
    check!(backends, "sgd", [len, len], |b, o| {
        let [parameters, velocity] = o else { unreachable!() };
        b.sgd(sgd, parameters, &dy, Some(velocity))
    });
    let rmsprop = RmsPropStep { rate: 0.1, rho: 0.9, momentum: 0.5, epsilon: 2.0 };
    check!(backends, "rmsprop", [len, len, len, len], |b, o| {
        let [parameters, square, mean, velocity] = o else { unreachable!() };
        square.iter_mut().for_each(|v| *v = v.abs());
        b.rmsprop(rmsprop, parameters, &dy, square, Some(mean), Some(velocity))
    });
    check!(backends, "adagrad", [len, len], |b, o| {
        let [parameters, sums] = o else { unreachable!() };
        sums.iter_mut().for_each(|v| *v = v.abs());
        b.adagrad(AdagradStep { rate: 0.1, epsilon: 1e-7 }, parameters, &dy, sums)
    });
    for cpu in &backends {
        assert_eq!(cpu.sum_of_squares(&x), ReferenceBackend::<E>::new().sum_of_squares(&x));
    }
}

fn weights_as<E: Scalar>(values: &[E]) -> Vec<E> {
    values.iter().map(|v| *v + E::of(0.125)).collect()
}

#[test]
fn bits_are_those_of_plain_loops() {
    for (rows, columns) in [(1, 1), (3, 5), (9, 32), (26, 33), (7, 100)] {
        gives_the_bits_of_plain_loops::<f32>(rows, columns, &[1]);
        gives_the_bits_of_plain_loops::<f64>(rows, columns, &[1]);
    }
}

#[test]
fn threads_do_not_change_bits() {
    // Three shares of the cheapest work.
    gives_the_bits_of_plain_loops::<f32>(1203, 400, &[1, 2, 3, 7]);
}

/// The same bits everywhere, and the oracle's values up to rounding.
#[test]
fn softmax_agrees_with_the_oracle() {
    let (rows, columns) = (1024, 250);
    let x = numbers::<f32>(rows * columns, 1);
    let keys: Vec<f32> = (0..rows / 4 * columns).map(|i| f32::from(i % 5 != 0)).collect();
    for mask in [
        HostSoftmaxMask { keys: None, causal: None },
        HostSoftmaxMask { keys: Some((&keys, 4)), causal: None },
        HostSoftmaxMask { keys: Some((&keys, 4)), causal: Some(32) },
    ] {
        let expected = written(&ReferenceBackend::new(), &[x.len()], |b, o| b.softmax(columns, &x, mask, &mut o[0]));
        let dx = |b: &CpuBackend<f32>| {
            written(b, &[x.len()], |b, o| b.softmax_gradient(columns, &expected[0], &x, &mut o[0]))
        };
        let expected_dx = written(&ReferenceBackend::new(), &[x.len()], |b, o| {
            b.softmax_gradient(columns, &expected[0], &x, &mut o[0])
        });
        let mut first = None;
        for isa in Isa::all_fused() {
            for threads in [1, 2, 7] {
                let cpu = CpuBackend::<f32>::with_isa(isa, threads).unwrap();
                let got = (written(&cpu, &[x.len()], |b, o| b.softmax(columns, &x, mask, &mut o[0])), dx(&cpu));
                for (got, expected) in got.0[0].iter().zip(&expected[0]).chain(got.1[0].iter().zip(&expected_dx[0])) {
                    assert!((got - expected).abs() <= 1e-6 + 1e-5 * expected.abs(), "{got}, not {expected}");
                }
                assert!(*first.get_or_insert_with(|| got.clone()) == got, "other bits on {cpu:?}");
            }
        }
    }
}

/// At every place of whole and part vectors, on every instruction set.
#[test]
fn finds_what_is_not_finite() {
    fn finds<E: CpuElement>() {
        for isa in Isa::all_fused() {
            for len in [0, 1, 15, 16, 17, 127, 128, 129, 300] {
                let mut values = vec![E::of(1.5); len];
                assert!(isa.run(AllFinite(&values)), "{isa:?} {len}");
                for at in 0..len {
                    for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                        values[at] = E::of(bad);
                        assert!(!isa.run(AllFinite(&values)), "{isa:?} {len} {at} {bad}");
                    }
                    values[at] = E::of(-1e30);
                }
            }
        }
    }
    finds::<f32>();
    finds::<f64>();
}

/// The same bits everywhere, and the oracle's values up to rounding: with keys masked, one sample's all, queries that see none, and sizes that are
/// no multiples of vectors.
#[test]
fn attention_agrees_with_the_oracle() {
    fn agrees<E: CpuElement>(tolerance: f64) {
        for (causal, masked) in [(false, false), (false, true), (true, false), (true, true)] {
            let (batch, heads, queries, keys, key_dim, value_dim) = (5, 2, 77, 90, 9, 21);
            let shape = AttentionShape { batch, heads, queries, keys, key_dim, value_dim, causal };
            let (query, key) =
                (numbers::<E>(batch * queries * heads * key_dim, 1), numbers(batch * keys * heads * key_dim, 2));
            let (value, dy) = (
                numbers::<E>(batch * keys * heads * value_dim, 3),
                numbers::<E>(batch * queries * heads * value_dim, 4),
            );
            // The first keys are absent, and of the last sample all.
            let mask: Vec<E> = (0..batch * keys)
                .map(|i| E::of(f64::from(i % keys > 2 && i % 7 != 0 && i < (batch - 1) * keys)))
                .collect();
            let mask = masked.then_some(&mask[..]);
            let of = HostAttention { shape, alpha: 0.4, query: &query, key: &key, value: &value, mask };
            let rows = batch * queries * heads * 2;
            macro_rules! run {
                ($backend:expr) => {{
                    let backend = $backend;
                    let space = |call| vec![E::nan(); HostOperations::workspace(backend, call)];
                    let forward = written(backend, &[dy.len(), rows], |b, o| {
                        let [y, statistics] = o else { unreachable!() };
                        b.attention(of, y, statistics, &mut space(Workspace::Attention(shape)))
                    });
                    let mut all = written(backend, &[query.len(), key.len(), value.len()], |b, o| {
                        let [dquery, dkey, dvalue] = o else { unreachable!() };
                        let to =
                            HostAttentionGradients { dquery: Some(dquery), dkey: Some(dkey), dvalue: Some(dvalue) };
                        let mut space = space(Workspace::AttentionGradient(shape));
                        b.attention_gradient(of, &forward[0], &forward[1], &dy, to, &mut space)
                    });
                    all.push(forward[0].clone());
                    all
                }};
            }
            let expected = run!(&ReferenceBackend::<E>::new());
            let mut first = None;
            for isa in Isa::all_fused() {
                for threads in [1, 2, 3, 7] {
                    let cpu = CpuBackend::<E>::with_isa(isa, threads).unwrap();
                    let got = run!(&cpu);
                    for (got, expected) in got.iter().flatten().zip(expected.iter().flatten()) {
                        let (got, expected) = (got.wide(), expected.wide());
                        assert!((got - expected).abs() <= tolerance * (1.0 + expected.abs()), "{got}, not {expected}");
                    }
                    assert!(*first.get_or_insert_with(|| got.clone()) == got, "other bits on {cpu:?}");
                }
            }
        }
    }
    agrees::<f32>(1e-5);
    agrees::<f64>(1e-13);
}

/// The same bits everywhere, and the oracle's values up to rounding: over more columns than are taken at once, with weights and without.
#[test]
fn cross_entropy_agrees_with_the_oracle() {
    fn agrees<E: CpuElement>(tolerance: f64) {
        for (rows, columns) in [(1, 1), (7, 3), (130, 72), (301, 300)] {
            let predictions: Vec<E> = numbers::<E>(rows * columns, 1).into_iter().map(|v| v * E::of(9.0)).collect();
            let classes: Vec<E> = (0..rows).map(|r| E::of((r * 31 % columns) as f64)).collect();
            let targets: Vec<E> = numbers::<E>(rows * columns, 2).into_iter().map(|v| v.abs()).collect();
            let weights: Vec<E> = (0..rows).map(|r| E::of((r % 3) as f64)).collect();
            for (loss, targets) in [
                (Loss::SparseCategoricalCrossentropy { from_logits: true }, &classes),
                (Loss::CategoricalCrossentropy { from_logits: true }, &targets),
            ] {
                for weights in [None, Some(&weights[..])] {
                    macro_rules! run {
                        ($backend:expr) => {{
                            let mut gradient = vec![E::nan(); rows * columns];
                            let mut values = [0.0; 2];
                            for (value, gradient) in values.iter_mut().zip([Some(&mut gradient[..]), None]) {
                                let predictions = &predictions[..];
                                let of = HostLoss { loss, columns, targets, predictions, weights, gradient };
                                let mut status = [0.0; STATUS_LEN];
                                $backend.loss(of, LossEntry { weight: 2.0, code: 1 }, &mut status).unwrap();
                                *value = status[LOSS];
                                assert_eq!(status[TOTAL], 2.0 * *value);
                            }
                            assert_eq!(values[0], values[1], "with and without a gradient");
                            (values[0], gradient)
                        }};
                    }
                    let (value, gradient) = run!(ReferenceBackend::<E>::new());
                    let mut first = None;
                    for isa in Isa::all_fused() {
                        for threads in [1, 2, 3, 7] {
                            let got = run!(CpuBackend::<E>::with_isa(isa, threads).unwrap());
                            assert!((got.0 - value).abs() <= 1e-14 * value.abs(), "{}, not {value}", got.0);
                            for (got, expected) in got.1.iter().zip(&gradient) {
                                let (got, expected) = (got.wide(), expected.wide());
                                let allowed = tolerance * expected.abs() + 1e-15;
                                assert!((got - expected).abs() <= allowed, "{got}, not {expected}");
                            }
                            assert!(*first.get_or_insert_with(|| got.clone()) == got, "other bits on {}", isa.name());
                        }
                    }
                }
            }
        }
    }
    agrees::<f32>(2e-7);
    agrees::<f64>(1e-13);
}

/// The gradient of a classifier that is sure of its classes, and of targets that are nearly met, has no denormal numbers.
#[test]
fn a_loss_has_no_denormal_gradient() {
    let (categorical, squares) = (Loss::SparseCategoricalCrossentropy { from_logits: true }, Loss::MeanSquaredError);
    let slopes = |loss: Loss, columns: usize, targets: &[f32], predictions: &[f32]| {
        let run = |gradient: &mut [f32], on_reference: bool| {
            let (mut status, entry) = ([0.0; STATUS_LEN], LossEntry { weight: 1.0, code: 1 });
            let of = HostLoss { loss, columns, targets, predictions, weights: None, gradient: Some(gradient) };
            match on_reference {
                true => HostOperations::loss(&ReferenceBackend::<f32>::new(), of, entry, &mut status).unwrap(),
                false => HostOperations::loss(&CpuBackend::<f32>::new(), of, entry, &mut status).unwrap(),
            }
        };
        let mut both = [vec![f32::NAN; predictions.len()], vec![f32::NAN; predictions.len()]];
        run(&mut both[0], false);
        run(&mut both[1], true);
        both
    };
    let scores: Vec<f32> = (0..40).map(|i| if i == 3 { 50.0 } else { -(i as f32) * 1.5 }).collect();
    let errors: Vec<f32> = (0..45).map(|power| 10f32.powi(-power)).collect();
    for slopes in [slopes(categorical, 40, &[3.0], &scores), slopes(squares, 1, &[0.0; 45], &errors)].concat() {
        let least = 2f32.powi(-90);
        assert!(slopes.iter().all(|slope| *slope == 0.0 || slope.abs() >= least), "{slopes:?}");
        assert!(slopes.contains(&0.0) && slopes.iter().any(|slope| *slope != 0.0 && slope.abs() < 1e-20), "{slopes:?}");
    }
}
