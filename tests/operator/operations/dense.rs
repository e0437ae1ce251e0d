//! One suite of the dense operations for every backend and element type: each against plain formulas in `f64`, within the rounding
//! errors that its arithmetic may make. A backend enters by one line at the end.

#![cfg_attr(feature = "cuda", allow(unsafe_code, reason = "tests/common launches kernels"))]

use std::borrow::{Borrow, BorrowMut};

use crate::common::Rng;
use crate::common::tensors::{GRADS, Record, SIZES, Tensor, add_to, close, floor, numbers, sum_unit, unit, workspace};
use fused_rnn::backend::dense::{
    AdagradStep, AdamStep, Columns, DenseCall, LossEntry, Orientation, Product, Report, RmsPropStep, SgdStep,
};
use fused_rnn::backend::{DenseBackend, Storage, WeightGrad};
use fused_rnn::cell::Activation;
use fused_rnn::nn::Loss;
use fused_rnn::rnn::Dropout;
use fused_rnn::{Element, Error};

// Products and sums.

fn products<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(1);
    // The last are split into pieces of k on a device.
    let sizes = [
        (1, 1, 1),
        (2, 3, 5),
        (16, 32, 16),
        (17, 33, 31),
        (32, 31, 33),
        (64, 64, 64),
        (63, 65, 67),
        (5, 3, 700),
        (70, 2, 517),
    ];
    for (m, n, k) in sizes {
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            for grad in GRADS {
                let (a, b) = (numbers::<B>(&mut rng, m * k, 1.0), numbers::<B>(&mut rng, k * n, 1.0));
                let before = numbers::<B>(&mut rng, m * n, 1.0);
                let at_a =
                    |i: usize, l: usize| if orientation == Orientation::Tn { a[l * m + i] } else { a[i * k + l] };
                let at_b =
                    |l: usize, j: usize| if orientation == Orientation::Nt { b[j * k + l] } else { b[l * n + j] };
                let term = |c: usize, l: usize| at_a(c / n, l) * at_b(l, c % n);
                let expected: Vec<f64> =
                    (0..m * n).map(|c| add_to(grad, before[c], (0..k).map(|l| term(c, l)).sum())).collect();
                let product = Product { orientation, m, n, k };
                let run = || {
                    let start = if grad == WeightGrad::Add { before.clone() } else { vec![f64::NAN; m * n] };
                    let mut c = Tensor::new(&backend, &start);
                    let mut space = workspace(&backend, DenseCall::Gemm(product));
                    let (a, b) = (Tensor::new(&backend, &a), Tensor::new(&backend, &b));
                    backend.gemm(product, a.get(), b.get(), c.get_mut(), grad, space.get_mut()).unwrap();
                    c.values(&backend)
                };
                let got = run();
                let slack = |c: usize| {
                    let magnitude: f64 = (0..k).map(|l| term(c, l).abs()).sum::<f64>() + before[c].abs();
                    (k + 2) as f64 * sum_unit::<B>() * magnitude
                };
                close::<B>(&got, &expected, slack, &format!("{product:?} {grad:?}"));
                assert_eq!(got, run(), "{product:?} again");
            }
        }
    }
}

fn sums_of_columns<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(2);
    for (rows, columns) in [(1, 1), (1, 33), (7, 31), (8, 32), (9, 65), (255, 3), (257, 33), (1031, 5), (0, 4)] {
        for grad in GRADS {
            let (x, before) = (numbers::<B>(&mut rng, rows * columns, 2.0), numbers::<B>(&mut rng, columns, 2.0));
            let column = |j: usize| (0..rows).map(|r| x[r * columns + j]).collect::<Vec<_>>();
            let expected: Vec<f64> = (0..columns).map(|j| add_to(grad, before[j], column(j).iter().sum())).collect();
            let run = || {
                let start = if grad == WeightGrad::Add { before.clone() } else { vec![f64::NAN; columns] };
                let mut sums = Tensor::new(&backend, &start);
                let mut space = workspace(&backend, DenseCall::ColumnSums { rows, columns });
                let x = Tensor::new(&backend, &x);
                backend.column_sums(x.get(), sums.get_mut(), grad, space.get_mut()).unwrap();
                sums.values(&backend)
            };
            let slack = |j: usize| {
                (rows + 2) as f64 * sum_unit::<B>() * (column(j).iter().map(|v| v.abs()).sum::<f64>() + before[j].abs())
            };
            close::<B>(&run(), &expected, slack, &format!("{rows} x {columns} {grad:?}"));
            assert_eq!(run(), run(), "{rows} x {columns} again");
        }
    }
}

// Elementwise.

fn activations<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(3);
    for activation in Activation::ALL {
        for (rows, columns, with_bias) in [(1, 1, true), (3, 43, true), (129, 1, false), (5, 127, false)] {
            let len = rows * columns;
            let (x, bias) = (numbers::<B>(&mut rng, len, 3.0), numbers::<B>(&mut rng, columns, 1.0));
            let inputs: Vec<f64> = (0..len).map(|i| x[i] + if with_bias { bias[i % columns] } else { 0.0 }).collect();
            let expected: Vec<f64> = inputs.iter().map(|v| activation.apply(*v)).collect();
            let mut values = Tensor::new(&backend, &x);
            let mut kept = Tensor::poisoned(&backend, len);
            let bias = Tensor::new(&backend, &bias);
            let bias = with_bias.then(|| bias.get());
            backend.add_bias_activate(activation, bias, values.get_mut(), Some(kept.get_mut())).unwrap();
            let what = format!("{activation:?} {rows} x {columns}");
            close::<B>(&kept.values(&backend), &inputs, |_| 0.0, &format!("inputs of {what}"));
            // The sum is rounded, then a function of slope at most 2 with a few roundings of its own.
            let slack = |i: usize| 8.0 * sum_unit::<B>() * (2.0 + inputs[i].abs());
            close::<B>(&values.values(&backend), &expected, slack, &what);

            // Backward reads what it is given: the rounded output or input.
            let given = if activation.derivative_needs_input() { &kept } else { &values };
            let v = given.values(&backend);
            let dy = numbers::<B>(&mut rng, len, 1.0);
            let slope = |i: usize| {
                let y = if activation.derivative_needs_input() { activation.apply(v[i]) } else { v[i] };
                activation.derivative(v[i], y)
            };
            let expected: Vec<f64> = (0..len).map(|i| dy[i] * slope(i)).collect();
            let mut dx = Tensor::poisoned(&backend, len);
            backend
                .activation_gradient(activation, Tensor::new(&backend, &dy).get(), given.get(), dx.get_mut())
                .unwrap();
            close::<B>(&dx.values(&backend), &expected, |_| 16.0 * sum_unit::<B>(), &format!("gradient of {what}"));
        }
    }
}

fn masks<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(4);
    for (steps, batch, features) in [(1, 1, 1), (3, 2, 5), (2, 5, 513), (1, 7, 64)] {
        for probability in [0.0, 0.4, 1.0] {
            let x = numbers::<B>(&mut rng, steps * batch * features, 1.0);
            let dropout = Dropout::new(probability, 77);
            let mut expected = x.clone();
            for (r, row) in expected.chunks_mut(features).enumerate() {
                dropout.apply(row, 3, r / batch, r % batch);
            }
            let mut y = Tensor::poisoned(&backend, x.len());
            backend.dropout(&dropout, 3, batch, features, Tensor::new(&backend, &x).get(), y.get_mut()).unwrap();
            let got = y.values(&backend);
            close::<B>(&got, &expected, |i| 2.0 * sum_unit::<B>() * expected[i].abs(), "dropout");
            assert!(got.iter().zip(&expected).all(|(a, b)| (*a == 0.0) == (*b == 0.0)), "the same mask");
        }
    }
}

fn elementwise<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(5);
    for len in SIZES {
        let (a, b) = (numbers::<B>(&mut rng, len, 2.0), numbers::<B>(&mut rng, len, 2.0));
        let (ta, tb) = (Tensor::new(&backend, &a), Tensor::new(&backend, &b));
        let mut out = Tensor::poisoned(&backend, len);
        backend.add(ta.get(), tb.get(), out.get_mut()).unwrap();
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a + b).collect();
        close::<B>(&out.values(&backend), &expected, |i| sum_unit::<B>() * expected[i].abs(), "sum");
        let mut out = Tensor::poisoned(&backend, len);
        backend.multiply(ta.get(), tb.get(), out.get_mut()).unwrap();
        let expected: Vec<f64> = a.iter().zip(&b).map(|(a, b)| a * b).collect();
        close::<B>(&out.values(&backend), &expected, |i| sum_unit::<B>() * expected[i].abs(), "product");
        let mut out = Tensor::poisoned(&backend, len);
        backend.copy(ta.get(), out.get_mut()).unwrap();
        assert_eq!(out.values(&backend), a);
        backend.fill(out.get_mut(), -1.5).unwrap();
        assert_eq!(out.values(&backend), vec![-1.5; len]);
        let mut limited = Tensor::new(&backend, &a);
        backend.clip_by_value(0.5, limited.get_mut()).unwrap();
        assert_eq!(limited.values(&backend), a.iter().map(|v| v.clamp(-0.5, 0.5)).collect::<Vec<_>>());
    }
    // Joined along the last axis and split again, beside columns that stay as they are.
    for (rows, left, right) in [(1, 1, 1), (5, 3, 31), (67, 33, 2)] {
        let width = left + right;
        let (a, b) = (numbers::<B>(&mut rng, rows * left, 1.0), numbers::<B>(&mut rng, rows * right, 1.0));
        let mut joined = Tensor::new(&backend, &vec![7.0; rows * (width + 1)]);
        let whole = |width: usize| Columns { width, first: 0 };
        let part = |first: usize| Columns { width: width + 1, first };
        for (values, size, first) in [(&a, left, 0), (&b, right, left)] {
            let values = Tensor::new(&backend, values);
            backend.copy_columns(size, values.get(), whole(size), joined.get_mut(), part(first)).unwrap();
        }
        let got = joined.values(&backend);
        for r in 0..rows {
            let row = &got[r * (width + 1)..][..width + 1];
            assert_eq!(row, [&a[r * left..][..left], &b[r * right..][..right], &[7.0]].concat());
        }
        let mut back = Tensor::poisoned(&backend, rows * right);
        backend.copy_columns(right, joined.get(), part(left), back.get_mut(), whole(right)).unwrap();
        assert_eq!(back.values(&backend), b);
    }
}

// Losses.

const LOSSES: [Loss; 7] = [
    Loss::MeanSquaredError,
    Loss::MeanAbsoluteError,
    Loss::Huber { delta: 0.7 },
    Loss::BinaryCrossentropy { from_logits: true },
    Loss::BinaryCrossentropy { from_logits: false },
    Loss::CategoricalCrossentropy { from_logits: true },
    Loss::CategoricalCrossentropy { from_logits: false },
];

/// The definitions, as a textbook has them.
fn loss_value(loss: Loss, columns: usize, targets: &[f64], predictions: &[f64]) -> f64 {
    let (n, rows) = (targets.len() as f64, (targets.len() / columns) as f64);
    let pairs = || targets.iter().copied().zip(predictions.iter().copied());
    let cross = |t: f64, p: f64| -(t * p.ln() + (1.0 - t) * (1.0 - p).ln());
    // Every prediction as a part of its row's total.
    let by_row = |part: &dyn Fn(f64) -> f64| -> f64 {
        let of_row = |t: &[f64], p: &[f64]| {
            let total: f64 = p.iter().map(|p| part(*p)).sum();
            t.iter().zip(p).map(|(t, p)| -t * (part(*p) / total).ln()).sum::<f64>()
        };
        targets.chunks(columns).zip(predictions.chunks(columns)).map(|(t, p)| of_row(t, p)).sum()
    };
    match loss {
        Loss::MeanSquaredError => pairs().map(|(t, p)| (p - t) * (p - t)).sum::<f64>() / n,
        Loss::MeanAbsoluteError => pairs().map(|(t, p)| (p - t).abs()).sum::<f64>() / n,
        Loss::Huber { delta } => {
            let one = |d: f64| if d <= delta { d * d / 2.0 } else { delta * (d - delta / 2.0) };
            pairs().map(|(t, p)| one((p - t).abs())).sum::<f64>() / n
        }
        Loss::BinaryCrossentropy { from_logits: true } => {
            pairs().map(|(t, z)| cross(t, 1.0 / (1.0 + (-z).exp()))).sum::<f64>() / n
        }
        Loss::BinaryCrossentropy { from_logits: false } => pairs().map(|(t, p)| cross(t, p)).sum::<f64>() / n,
        Loss::CategoricalCrossentropy { from_logits: true } => by_row(&f64::exp) / rows,
        Loss::CategoricalCrossentropy { from_logits: false } => by_row(&|p| p) / rows,
        _ => unreachable!("every loss is above"),
    }
}

fn is_of_probabilities(loss: Loss) -> bool {
    matches!(
        loss,
        Loss::BinaryCrossentropy { from_logits: false } | Loss::CategoricalCrossentropy { from_logits: false }
    )
}

fn losses<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(6);
    for loss in LOSSES {
        for (rows, columns) in [(1, 1), (1, 33), (7, 3), (9, 32), (130, 2), (3, 1031), (2200, 1)] {
            if columns == 1 && loss == (Loss::CategoricalCrossentropy { from_logits: false }) {
                continue; // always certain, and that is clipped
            }
            let len = rows * columns;
            let between = |rng: &mut Rng, low: f64, high: f64| -> Vec<f64> {
                (0..len).map(|_| B::Elem::of(rng.uniform(low, high)).wide()).collect()
            };
            let targets = between(&mut rng, 0.0, 1.0);
            let predictions =
                if is_of_probabilities(loss) { between(&mut rng, 0.1, 0.9) } else { between(&mut rng, -2.0, 2.0) };
            // No differences across a kink.
            let predictions: Vec<f64> = predictions
                .iter()
                .zip(&targets)
                .map(|(p, t)| {
                    let d = (p - t).abs();
                    let aside = if *t > 0.5 { t - 0.25 } else { t + 0.25 };
                    if d < 0.01 || (d - 0.7).abs() < 0.01 { B::Elem::of(aside).wide() } else { *p }
                })
                .collect();
            let value = loss_value(loss, columns, &targets, &predictions);
            let step = 1e-4;
            // The elements that a term of the mean depends on, and how many terms there are.
            let by_row = matches!(loss, Loss::CategoricalCrossentropy { .. });
            let (width, terms) = if by_row { (columns, rows as f64) } else { (1, len as f64) };
            let slope = |i: usize| {
                let term = i / width * width..(i / width + 1) * width;
                let at = |d: f64| {
                    let mut moved = predictions[term.clone()].to_vec();
                    moved[i % width] += d;
                    loss_value(loss, width, &targets[term.clone()], &moved)
                };
                // Five points: the error is that of the fourth power of the step.
                (8.0 * (at(step) - at(-step)) - at(2.0 * step) + at(-2.0 * step)) / (12.0 * step) / terms
            };
            let slopes: Vec<f64> = (0..len).map(slope).collect();
            let run = |with_gradient: bool| {
                let mut gradient = Tensor::poisoned(&backend, len);
                let (mut record, mut space) = (Record::new(&backend), workspace(&backend, DenseCall::Loss));
                for code in [5, 6] {
                    backend
                        .loss(
                            loss,
                            columns,
                            Tensor::new(&backend, &targets).get(),
                            Tensor::new(&backend, &predictions).get(),
                            None,
                            with_gradient.then(|| gradient.get_mut()),
                            LossEntry { weight: 2.0, code },
                            record.0.borrow_mut(),
                            space.get_mut(),
                        )
                        .unwrap();
                }
                (record.read(&backend), gradient.values(&backend))
            };
            let what = format!("{loss:?} {rows} x {columns}");
            let (report, gradient) = run(true);
            // Each term has some ten roundings of numbers below 10, categorical ones for each column; `value` itself is a long sum.
            let width = width as f64;
            let allowed = 16.0 * sum_unit::<B>() * (1.0 + width) + len as f64 * f64::EPSILON * value;
            assert!((report.loss - value).abs() <= allowed, "{what}: {} {value} {allowed:e}", report.loss);
            assert_eq!(report.total, 4.0 * report.loss, "{what}");
            assert_eq!((report.bad_loss, report.bad_gradient, report.bad_index), (None, None, None), "{what}");
            // The differences' own errors: the step to the fourth times a fifth derivative (24 / 0.1⁵) over 30, and over the step
            // the roundings of a term, which is a sum of `width` numbers below 5.
            let of_differences = 1e-10 + 5.0 * width * width * f64::EPSILON / step;
            let slack = |_| (of_differences + 64.0 * sum_unit::<B>() * (1.0 + width)) / terms;
            close::<B>(&gradient, &slopes, slack, &format!("gradient of {what}"));
            assert_eq!((report, gradient), run(true), "{what} again");
            assert_eq!(report, run(false).0, "{what} without gradient");
        }
    }
}

/// Each row's loss counts as its weight says, in the mean over rows; a target that is a class is the row with a one there.
fn weighted_and_sparse_losses<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(16);
    let run = |loss: Loss, columns: usize, t: &[f64], p: &[f64], weights: Option<&[f64]>, with_gradient: bool| {
        let (mut record, mut space) = (Record::new(&backend), workspace(&backend, DenseCall::Loss));
        let mut gradient = Tensor::poisoned(&backend, p.len());
        let weights = weights.map(|weights| Tensor::new(&backend, weights));
        let (targets, predictions) = (Tensor::new(&backend, t), Tensor::new(&backend, p));
        let (weights, out) = (weights.as_ref().map(|w| w.get()), with_gradient.then(|| gradient.get_mut()));
        let entry = LossEntry { weight: 1.0, code: 3 };
        let record_buffer = record.0.borrow_mut();
        backend
            .loss(loss, columns, targets.get(), predictions.get(), weights, out, entry, record_buffer, space.get_mut())
            .map(|()| (record.read(&backend), gradient.values(&backend)))
    };
    for (rows, columns) in [(1, 1), (1, 5), (7, 3), (130, 2), (9, 33)] {
        let len = rows * columns;
        let between = |rng: &mut Rng, low: f64, high: f64, len: usize| -> Vec<f64> {
            (0..len).map(|_| B::Elem::of(rng.uniform(low, high)).wide()).collect()
        };
        let targets = between(&mut rng, 0.1, 0.9, len);
        let predictions = between(&mut rng, 0.2, 0.8, len);
        let mut weights = between(&mut rng, 0.0, 3.0, rows);
        weights[rows / 2] = if rows > 1 { 0.0 } else { 1.5 };
        for loss in LOSSES {
            let what = format!("{loss:?} {rows} x {columns}");
            let row = |v: &[f64], r: usize| v[r * columns..][..columns].to_vec();
            let losses: Vec<f64> =
                (0..rows).map(|r| loss_value(loss, columns, &row(&targets, r), &row(&predictions, r))).collect();
            if losses.contains(&0.0) {
                continue; // always certain, and that is clipped
            }
            let terms = || losses.iter().zip(&weights).map(|(loss, weight)| loss * weight);
            let value = terms().sum::<f64>() / rows as f64;
            let (report, gradient) = run(loss, columns, &targets, &predictions, Some(&weights), true).unwrap();
            // As for losses without weights, each term times its weight, at most 3.
            let allowed = 48.0 * sum_unit::<B>() * (1.0 + columns as f64) + len as f64 * f64::EPSILON * value;
            assert!((report.loss - value).abs() <= allowed, "{what}: {} {value}", report.loss);
            // The gradient without weights is judged by itself; here each row's times its weight.
            let (_, plain) = run(loss, columns, &targets, &predictions, None, true).unwrap();
            let expected: Vec<f64> = (0..len).map(|i| plain[i] * weights[i / columns]).collect();
            let slack =
                |i: usize| (unit::<B>() * 1.001 + 8.0 * sum_unit::<B>()) * expected[i].abs() + floor::<B>() * 3.0;
            close::<B>(&gradient, &expected, slack, &format!("gradient of {what}"));
            let (alone, _) = run(loss, columns, &targets, &predictions, Some(&weights), false).unwrap();
            assert_eq!(alone.loss, report.loss, "{what} without gradient");
        }
        for from_logits in [false, true] {
            let what = format!("sparse {from_logits} {rows} x {columns}");
            let classes: Vec<usize> = (0..rows).map(|_| rng.below(columns)).collect();
            let numbers: Vec<f64> = classes.iter().map(|class| *class as f64).collect();
            let one = |i: usize| f64::from(classes[i / columns] == i % columns);
            let ones: Vec<f64> = (0..len).map(one).collect();
            let (sparse, dense) =
                (Loss::SparseCategoricalCrossentropy { from_logits }, Loss::CategoricalCrossentropy { from_logits });
            for weights in [None, Some(&weights[..])] {
                let by_class = run(sparse, columns, &numbers, &predictions, weights, true).unwrap();
                let by_row = run(dense, columns, &ones, &predictions, weights, true).unwrap();
                assert_eq!(by_class, by_row, "{what}");
                assert!(by_class.0.loss.is_finite() && (columns == 1 || by_class.0.loss > 0.0), "{what}");
            }
            // What is no class: an error on the host, on a device a loss that is NaN.
            for bad in [-1.0, 0.5, columns as f64, f64::NAN] {
                let mut numbers = numbers.clone();
                numbers[rows - 1] = bad;
                match run(sparse, columns, &numbers, &predictions, None, true) {
                    Ok((report, gradient)) => {
                        let on_device = Tensor::new(&backend, &[0.0]).get().on_host().is_none();
                        assert!(on_device && report.loss.is_nan() && report.bad_loss == Some(3), "{what} {bad}");
                        // A probability of one is clipped, which has no slope.
                        let clipped = columns == 1 && !from_logits;
                        let all_nan = gradient[len - columns..].iter().all(|g| g.is_nan());
                        assert!(all_nan || clipped, "{what} {bad}");
                    }
                    Err(error) => {
                        let expected = format!("target {} of the batch", rows - 1);
                        let named = matches!(&error, Error::InvalidOption { option, .. } if *option == expected);
                        assert!(named, "{what} {bad}: {error}");
                    }
                }
            }
        }
    }
}

/// A loss that is not finite goes into the record with the code of its first batch, and its gradient is not either.
fn losses_of_nan<B: DenseBackend>(backend: B) {
    for loss in LOSSES {
        let (targets, good) = (Tensor::new(&backend, &[0.5; 6]), Tensor::new(&backend, &[0.25; 6]));
        let bad = Tensor::new(&backend, &[0.5, 0.5, 0.5, f64::NAN, 0.5, 0.5]);
        let (mut gradient, mut record) = (Tensor::poisoned(&backend, 6), Record::new(&backend));
        let mut space = workspace(&backend, DenseCall::Loss);
        for (predictions, code) in [(&good, 1), (&bad, 2), (&bad, 3), (&good, 4)] {
            let entry = LossEntry { weight: 1.0, code };
            let record = record.0.borrow_mut();
            let out = Some(gradient.get_mut());
            backend.loss(loss, 2, targets.get(), predictions.get(), None, out, entry, record, space.get_mut()).unwrap();
            assert_eq!(gradient.values(&backend)[3].is_nan(), code == 2 || code == 3, "{loss:?} {code}");
        }
        let report = record.read(&backend);
        assert_eq!(report.bad_loss, Some(2), "{loss:?}");
        assert!(report.bad_value.is_nan() && report.total.is_nan() && report.loss.is_finite(), "{loss:?} {report:?}");
    }
}

// Optimizers and gradients.

fn optimizers<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(7);
    // 16-bit state rounds every step; the formula below rounds where the state is stored.
    let rounded = |v: f64| B::Elem::of(v).wide();
    for len in [1, 33, 129, 1031] {
        let start = numbers::<B>(&mut rng, len, 1.0);
        let gradients: Vec<Vec<f64>> = (0..3).map(|_| numbers::<B>(&mut rng, len, 1.0)).collect();
        // A rounding error that falls on the other side of a tie moves a state by one unit, and weights by a step's share of it.
        let slack = |_| 64.0 * sum_unit::<B>() + if unit::<B>() > 1e-5 { 6.0 * unit::<B>() } else { 0.0 };

        let mut w = Tensor::new(&backend, &start);
        let (mut m, mut v) = (Tensor::new(&backend, &vec![0.0; len]), Tensor::new(&backend, &vec![0.0; len]));
        let mut truth = vec![(0.0, 0.0); len];
        let mut expected = start.clone();
        for (g, decay) in gradients.iter().zip([0.0, 0.125, 0.0]) {
            let step = AdamStep { rate: 0.01, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-7, decay };
            let g_tensor = Tensor::new(&backend, g);
            backend.adam(step, w.get_mut(), g_tensor.get(), m.get_mut(), v.get_mut()).unwrap();
            for i in 0..len {
                let moments = (0.9 * truth[i].0 + 0.1 * g[i], 0.99 * truth[i].1 + 0.01 * g[i] * g[i]);
                let kept = expected[i] - decay * expected[i];
                expected[i] = rounded(kept - 0.01 * moments.0 / (moments.1.sqrt() + 1e-7));
                truth[i] = (rounded(moments.0), rounded(moments.1));
            }
        }
        close::<B>(&w.values(&backend), &expected, slack, "Adam");

        let mut w = Tensor::new(&backend, &start);
        let mut sums = Tensor::new(&backend, &vec![0.125; len]);
        let (mut expected, mut truth) = (start.clone(), vec![0.125; len]);
        for g in &gradients {
            let step = AdagradStep { rate: 0.01, epsilon: 1e-2 };
            backend.adagrad(step, w.get_mut(), Tensor::new(&backend, g).get(), sums.get_mut()).unwrap();
            for i in 0..len {
                let sum = truth[i] + g[i] * g[i];
                expected[i] = rounded(expected[i] - 0.01 * g[i] / (sum + 1e-2).sqrt());
                truth[i] = rounded(sum);
            }
        }
        close::<B>(&w.values(&backend), &expected, slack, "Adagrad");
        close::<B>(&sums.values(&backend), &truth, slack, "sums of Adagrad");

        for (momentum, nesterov) in [(None, false), (Some(0.9), false), (Some(0.9), true)] {
            let mut w = Tensor::new(&backend, &start);
            let mut velocity = Tensor::new(&backend, &vec![0.0; len]);
            let (mut expected, mut speed) = (start.clone(), vec![0.0; len]);
            for g in &gradients {
                let step = SgdStep { rate: 0.1, momentum: momentum.unwrap_or(0.0), nesterov };
                let out = momentum.is_some().then(|| velocity.get_mut());
                backend.sgd(step, w.get_mut(), Tensor::new(&backend, g).get(), out).unwrap();
                for i in 0..len {
                    let fast = step.momentum * speed[i] - 0.1 * g[i];
                    expected[i] = rounded(expected[i] + if nesterov { 0.9 * fast - 0.1 * g[i] } else { fast });
                    speed[i] = rounded(fast);
                }
            }
            close::<B>(&w.values(&backend), &expected, slack, &format!("SGD {momentum:?} {nesterov}"));
        }

        for (centered, momentum) in [(false, None), (true, None), (false, Some(0.5)), (true, Some(0.5))] {
            let mut w = Tensor::new(&backend, &start);
            let zeros = || Tensor::new(&backend, &vec![0.0; len]);
            let (mut square, mut mean, mut velocity) = (zeros(), zeros(), zeros());
            let mut expected = start.clone();
            let mut truth = vec![(0.0, 0.0, 0.0); len];
            for g in &gradients {
                let step = RmsPropStep { rate: 0.01, rho: 0.8, momentum: momentum.unwrap_or(0.0), epsilon: 1e-2 };
                let mean = centered.then(|| mean.get_mut());
                let velocity = momentum.is_some().then(|| velocity.get_mut());
                let g_tensor = Tensor::new(&backend, g);
                backend.rmsprop(step, w.get_mut(), g_tensor.get(), square.get_mut(), mean, velocity).unwrap();
                for i in 0..len {
                    let s = 0.8 * truth[i].0 + 0.2 * g[i] * g[i];
                    let a = if centered { 0.8 * truth[i].1 + 0.2 * g[i] } else { 0.0 };
                    let v = step.momentum * truth[i].2 + 0.01 * g[i] / (s - a * a + 1e-2).sqrt();
                    expected[i] = rounded(expected[i] - v);
                    truth[i] = (rounded(s), rounded(a), rounded(v));
                }
            }
            close::<B>(&w.values(&backend), &expected, slack, &format!("RMSprop {centered} {momentum:?}"));
        }
    }
}

fn norms<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(8);
    for len in SIZES {
        let x = numbers::<B>(&mut rng, len, 1.0);
        let squares: f64 = x.iter().map(|v| v * v).sum();
        let run = |x: &[f64], most: f64| {
            let mut sum = backend.take("sum", vec![f64::NAN]).unwrap();
            let mut space = workspace(&backend, DenseCall::SumOfSquares);
            let mut x = Tensor::new(&backend, x);
            backend.sum_of_squares(x.get(), sum.borrow_mut(), space.get_mut()).unwrap();
            backend.clip_by_norm(most, sum.borrow(), x.get_mut()).unwrap();
            let mut read = [0.0];
            backend.download(sum.borrow(), &mut read).unwrap();
            (read[0], x.values(&backend))
        };
        let norm = squares.sqrt();
        let (sum, kept) = run(&x, norm * 1.01);
        assert!((sum - squares).abs() <= (len + 2) as f64 * f64::EPSILON * squares, "{len}: {sum} {squares}");
        assert_eq!(kept, x, "a norm below the limit changes nothing");
        let (again, clipped) = run(&x, norm / 3.0);
        assert_eq!(sum, again);
        let expected: Vec<f64> = x.iter().map(|v| v / 3.0).collect();
        let slack = |i: usize| (4.0 * sum_unit::<B>() + len as f64 * f64::EPSILON) * expected[i].abs();
        close::<B>(&clipped, &expected, slack, "clipped");
        let mut bad = x.clone();
        bad[len / 2] = f64::NAN;
        assert!(run(&bad, 1.0).1.iter().all(|v| v.is_nan()), "a norm that is NaN");
    }
}

fn what_is_not_finite<B: DenseBackend>(backend: B) {
    for len in SIZES {
        let mut record = Record::new(&backend);
        let good = Tensor::new(&backend, &vec![1.5; len]);
        backend.check_finite(good.get(), 1, record.0.borrow_mut()).unwrap();
        assert_eq!(record.read(&backend), Report::default());
        for at in [0, len / 2, len - 1] {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut values = vec![1.5; len];
                values[at] = bad;
                let values = Tensor::new(&backend, &values);
                let mut record = Record::new(&backend);
                for (tensor, code) in [(&good, 7), (&values, 8), (&values, 9), (&good, 10)] {
                    backend.check_finite(tensor.get(), code, record.0.borrow_mut()).unwrap();
                }
                let report = record.read(&backend);
                assert_eq!((report.bad_gradient, report.bad_loss), (Some(8), None), "{len} {at} {bad}");
                assert!(!report.bad_value.is_finite());
            }
        }
    }
}

// Tables.

fn tables<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(9);
    // Fewer rows than indices, and more.
    for (rows, count, width) in [(1, 1, 1), (3, 40, 5), (5, 300, 130), (50, 7, 3), (400, 140, 2), (2, 1, 257)] {
        let table = numbers::<B>(&mut rng, rows * width, 1.0);
        let indices: Vec<u32> = (0..count).map(|_| rng.below(rows) as u32).collect();
        let placed = backend.place("indices", &indices).unwrap();
        let mut record = Record::new(&backend);
        let mut out = Tensor::poisoned(&backend, count * width);
        backend
            .gather(width, Tensor::new(&backend, &table).get(), &placed, out.get_mut(), 1, record.0.borrow_mut())
            .unwrap();
        let expected: Vec<f64> = indices.iter().flat_map(|i| table[*i as usize * width..][..width].to_vec()).collect();
        assert_eq!(out.values(&backend), expected);

        let dout = numbers::<B>(&mut rng, count * width, 1.0);
        for grad in GRADS {
            let mut sums: Vec<f64> = if grad == WeightGrad::Add { table.clone() } else { vec![0.0; rows * width] };
            let mut magnitude: Vec<f64> = sums.iter().map(|v| v.abs()).collect();
            for (i, index) in indices.iter().enumerate() {
                for k in 0..width {
                    sums[*index as usize * width + k] += dout[i * width + k];
                    magnitude[*index as usize * width + k] += dout[i * width + k].abs();
                }
            }
            let mut run = || {
                let start = if grad == WeightGrad::Add { table.clone() } else { vec![f64::NAN; rows * width] };
                let mut dtable = Tensor::new(&backend, &start);
                let dout = Tensor::new(&backend, &dout);
                let record = record.0.borrow_mut();
                backend.scatter_add(width, &placed, dout.get(), dtable.get_mut(), grad, 1, record).unwrap();
                dtable.values(&backend)
            };
            let got = run();
            let slack = |i: usize| (count + 2) as f64 * sum_unit::<B>() * magnitude[i];
            close::<B>(&got, &sums, slack, &format!("{rows} rows, {count} indices, {grad:?}"));
            assert_eq!(got, run());
        }
        assert_eq!(record.read(&backend), Report::default());
    }
}

/// On the host an error, on a device a row of NaN and a code in the record.
fn indices_outside_the_table<B: DenseBackend>(backend: B) {
    for (rows, indices) in [(3, vec![0u32, 3, 2, 1]), (9, vec![8, u32::MAX])] {
        let mut record = Record::new(&backend);
        let table = Tensor::new(&backend, &vec![1.0; rows * 2]);
        let placed = backend.place("indices", &indices).unwrap();
        let mut out = Tensor::poisoned(&backend, indices.len() * 2);
        let gathered = backend.gather(2, table.get(), &placed, out.get_mut(), 4, record.0.borrow_mut());
        let mut dtable = Tensor::new(&backend, &vec![0.0; rows * 2]);
        let dout = Tensor::new(&backend, &vec![1.0; indices.len() * 2]);
        let scattered =
            backend.scatter_add(2, &placed, dout.get(), dtable.get_mut(), WeightGrad::Add, 5, record.0.borrow_mut());
        if out.get().on_host().is_some() {
            for result in [gathered, scattered] {
                let error = result.unwrap_err();
                assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "indices[1]"), "{error}");
            }
            continue;
        }
        gathered.unwrap();
        scattered.unwrap();
        assert_eq!(record.read(&backend).bad_index, Some(4));
        let got = out.values(&backend);
        for (i, index) in indices.iter().enumerate() {
            let inside = (*index as usize) < rows;
            assert!(got[2 * i..][..2].iter().all(|v| if inside { *v == 1.0 } else { v.is_nan() }), "{got:?}");
        }
        let total: f64 = dtable.values(&backend).iter().sum();
        assert_eq!(total, 2.0 * indices.iter().filter(|i| (**i as usize) < rows).count() as f64);
    }
}

// What does not fit.

fn wrong_lengths<B: DenseBackend>(backend: B) {
    let tensor = |len: usize| Tensor::<B>::new(&backend, &vec![1.0; len]);
    let (a, mut out, mut space) = (tensor(6), tensor(5), tensor(4096));
    let mut record = Record::new(&backend);
    let is_shape = |result: fused_rnn::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    let product = Product { orientation: Orientation::Nt, m: 2, n: 2, k: 3 };
    is_shape(backend.gemm(product, a.get(), a.get(), out.get_mut(), WeightGrad::Set, space.get_mut()));
    is_shape(backend.add(a.get(), a.get(), out.get_mut()));
    is_shape(backend.copy(a.get(), out.get_mut()));
    is_shape(backend.column_sums(a.get(), out.get_mut(), WeightGrad::Set, space.get_mut()));
    is_shape(backend.adagrad(AdagradStep { rate: 0.1, epsilon: 0.0 }, out.get_mut(), a.get(), space.get_mut()));
    is_shape(backend.sgd(SgdStep { rate: 0.1, momentum: 0.0, nesterov: false }, out.get_mut(), a.get(), None));
    let entry = LossEntry { weight: 1.0, code: 1 };
    let mut short = backend.allocate::<f64>("short", 2).unwrap();
    let loss = Loss::MeanSquaredError;
    is_shape(backend.loss(loss, 1, a.get(), a.get(), None, None, entry, short.borrow_mut(), space.get_mut()));
    is_shape(backend.loss(loss, 4, a.get(), a.get(), None, None, entry, record.0.borrow_mut(), space.get_mut()));
    is_shape(backend.check_finite(a.get(), 1, short.borrow_mut()));
    is_shape(backend.view(a.get(), 2..7).map(|_| ()));
    let columns = Columns { width: 3, first: 2 };
    is_shape(backend.copy_columns(2, a.get(), columns, out.get_mut(), columns));
    assert_eq!(out.values(&backend), vec![1.0; 5], "nothing was written");
}

macro_rules! suite {
    ($name:ident, $backend:expr) => {
        mod $name {
            suite!(@ $backend; products sums_of_columns activations masks elementwise losses weighted_and_sparse_losses
                losses_of_nan optimizers norms
                what_is_not_finite tables indices_outside_the_table wrong_lengths);
        }
    };
    (@ $backend:expr; $($test:ident)*) => {
        $(#[test] fn $test() { super::$test($backend); })*
    };
}

suite!(cpu_f32, fused_rnn::backend::cpu::CpuBackend::<f32>::new());
suite!(cpu_f64, fused_rnn::backend::cpu::CpuBackend::<f64>::new());

#[cfg(feature = "emulated")]
suite!(emulated_f32, crate::common::tensors::emulated::<f32>(0, false));
#[cfg(feature = "emulated")]
suite!(emulated_f32_shuffled, crate::common::tensors::emulated::<f32>(11, false));
#[cfg(feature = "emulated")]
suite!(emulated_f64_starved, crate::common::tensors::emulated::<f64>(12, true));
#[cfg(feature = "emulated")]
suite!(emulated_f16, crate::common::tensors::emulated::<half::f16>(13, false));
#[cfg(feature = "emulated")]
suite!(emulated_bf16, crate::common::tensors::emulated::<half::bf16>(14, true));
