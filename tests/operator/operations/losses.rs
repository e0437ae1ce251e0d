//! Losses and their gradients.

use super::*;

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

pub fn losses(device: &Device) {
    let mut rng = Rng::new(6);
    for loss in LOSSES {
        for (rows, columns) in [(1, 1), (1, 33), (7, 3), (9, 32), (130, 2), (3, 1031), (2200, 1)] {
            if columns == 1 && loss == (Loss::CategoricalCrossentropy { from_logits: false }) {
                continue; // always certain, and that is clipped
            }
            let len = rows * columns;
            let between = |rng: &mut Rng, low: f64, high: f64| -> Vec<f64> {
                (0..len).map(|_| rounded(device, rng.uniform(low, high))).collect()
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
                    if d < 0.01 || (d - 0.7).abs() < 0.01 { rounded(device, aside) } else { *p }
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
                let mut gradient = Tensor::poisoned(device, len);
                let (mut status, mut space) = (Status::new(device), workspace(device, Workspace::Loss));
                for code in [5, 6] {
                    device
                        .loss(
                            loss,
                            columns,
                            Tensor::new(device, &targets).get(),
                            Tensor::new(device, &predictions).get(),
                            None,
                            with_gradient.then(|| gradient.get_mut()),
                            LossEntry { weight: 2.0, code },
                            status.get_mut(),
                            space.get_mut(),
                        )
                        .unwrap();
                }
                (status.read(), gradient.values())
            };
            let what = format!("{loss:?} {rows} x {columns}");
            let (report, gradient) = run(true);
            // Each term has some ten roundings of numbers below 10, categorical ones for each column; `value` itself is a long sum.
            let width = width as f64;
            let allowed = 16.0 * sum_unit(device) * (1.0 + width) + len as f64 * f64::EPSILON * value;
            assert!((report.loss - value).abs() <= allowed, "{what}: {} {value} {allowed:e}", report.loss);
            assert_eq!(report.total, 4.0 * report.loss, "{what}");
            assert_eq!((report.bad_loss, report.bad_gradient, report.bad_index), (None, None, None), "{what}");
            // The differences' own errors: the step to the fourth times a fifth derivative (24 / 0.1⁵) over 30, and over the step
            // the roundings of a term, which is a sum of `width` numbers below 5.
            let of_differences = 1e-10 + 5.0 * width * width * f64::EPSILON / step;
            let slack = |_| (of_differences + 64.0 * sum_unit(device) * (1.0 + width)) / terms;
            close(device, &gradient, &slopes, slack, &format!("gradient of {what}"));
            assert_eq!((report, gradient), run(true), "{what} again");
            assert_eq!(report, run(false).0, "{what} without gradient");
        }
    }
}

/// Each row's loss counts as its weight says, in the mean over rows; a target that is a class is the row with a one there.
pub fn weighted_and_sparse_losses(device: &Device) {
    let mut rng = Rng::new(16);
    let run = |loss: Loss, columns: usize, t: &[f64], p: &[f64], weights: Option<&[f64]>, with_gradient: bool| {
        let (mut status, mut space) = (Status::new(device), workspace(device, Workspace::Loss));
        let mut gradient = Tensor::poisoned(device, p.len());
        let weights = weights.map(|weights| Tensor::new(device, weights));
        let (targets, predictions) = (Tensor::new(device, t), Tensor::new(device, p));
        let (weights, out) = (weights.as_ref().map(|w| w.get()), with_gradient.then(|| gradient.get_mut()));
        let entry = LossEntry { weight: 1.0, code: 3 };
        let (targets, predictions) = (targets.get(), predictions.get());
        device
            .loss(loss, columns, targets, predictions, weights, out, entry, status.get_mut(), space.get_mut())
            .map(|()| (status.read(), gradient.values()))
    };
    for (rows, columns) in [(1, 1), (1, 5), (7, 3), (130, 2), (9, 33)] {
        let len = rows * columns;
        let between = |rng: &mut Rng, low: f64, high: f64, len: usize| -> Vec<f64> {
            (0..len).map(|_| rounded(device, rng.uniform(low, high))).collect()
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
            let allowed = 48.0 * sum_unit(device) * (1.0 + columns as f64) + len as f64 * f64::EPSILON * value;
            assert!((report.loss - value).abs() <= allowed, "{what}: {} {value}", report.loss);
            // The gradient without weights is judged by itself; here each row's times its weight.
            let (_, plain) = run(loss, columns, &targets, &predictions, None, true).unwrap();
            let expected: Vec<f64> = (0..len).map(|i| plain[i] * weights[i / columns]).collect();
            let slack =
                |i: usize| (unit(device) * 1.001 + 8.0 * sum_unit(device)) * expected[i].abs() + floor(device) * 3.0;
            close(device, &gradient, &expected, slack, &format!("gradient of {what}"));
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
                        assert!(
                            !device.is_host() && report.loss.is_nan() && report.bad_loss == Some(3),
                            "{what} {bad}"
                        );
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

/// A loss that is not finite goes into the status with the code of its first batch, and its gradient is not either.
pub fn losses_of_nan(device: &Device) {
    for loss in LOSSES {
        let (targets, good) = (Tensor::new(device, &[0.5; 6]), Tensor::new(device, &[0.25; 6]));
        let bad = Tensor::new(device, &[0.5, 0.5, 0.5, f64::NAN, 0.5, 0.5]);
        let (mut gradient, mut status) = (Tensor::poisoned(device, 6), Status::new(device));
        let mut space = workspace(device, Workspace::Loss);
        for (predictions, code) in [(&good, 1), (&bad, 2), (&bad, 3), (&good, 4)] {
            let entry = LossEntry { weight: 1.0, code };
            let status = status.get_mut();
            let out = Some(gradient.get_mut());
            device.loss(loss, 2, targets.get(), predictions.get(), None, out, entry, status, space.get_mut()).unwrap();
            assert_eq!(gradient.values()[3].is_nan(), code == 2 || code == 3, "{loss:?} {code}");
        }
        let report = status.read();
        assert_eq!(report.bad_loss, Some(2), "{loss:?}");
        assert!(report.bad_value.is_nan() && report.total.is_nan() && report.loss.is_finite(), "{loss:?} {report:?}");
    }
}
