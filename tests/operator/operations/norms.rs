//! Softmax, layer and batch normalisation. The functions stand here in f64; their gradients are checked against differences.

use super::*;

pub fn softmaxes(device: &Device) {
    let mut rng = Rng::new(6);
    // Groups of rows that share a mask, rows of a group, columns.
    for (groups, by, columns) in [(1, 1, 1), (2, 3, 5), (3, 4, 33), (1, 7, 130), (5, 1, 32), (33, 2, 3)] {
        for (with_keys, causal) in
            [(false, None), (true, None), (false, Some(by)), (true, Some(2 * by)), (true, Some(1))]
        {
            let rows = groups * by;
            // Far from zero, where exp alone would overflow.
            let x: Vec<f64> = numbers(device, &mut rng, rows * columns, 3.0);
            let x: Vec<f64> = x.iter().map(|v| rounded(device, v + 200.0)).collect();
            let keys: Vec<f64> = (0..groups * columns)
                .map(|i| if i >= columns && rng.chance(0.6) { rng.pick(&[1.0, -3.0]) } else { 0.0 })
                .collect();
            let valid = |i: usize| {
                let (row, c) = (i / columns, i % columns);
                causal.is_none_or(|queries| c <= row % queries) && (!with_keys || keys[row / by * columns + c] != 0.0)
            };
            // What does not count does not leak.
            let hidden: Vec<f64> = (0..x.len()).map(|i| if valid(i) { x[i] } else { f64::NAN }).collect();
            let mut expected = vec![0.0; x.len()];
            for row in 0..rows {
                let all = || (row * columns..(row + 1) * columns).filter(|i| valid(*i));
                let most = all().map(|i| x[i]).fold(f64::NEG_INFINITY, f64::max);
                let total = sum(all().map(|i| (x[i] - most).exp()));
                all().for_each(|i| expected[i] = (x[i] - most).exp() / total);
            }
            let what = format!("{groups} x {by} rows of {columns}, keys {with_keys}, causal {causal:?}");
            let run = |x: &[f64]| {
                let mut y = Tensor::poisoned(device, x.len());
                let (x, keys) = (Tensor::new(device, x), Tensor::new(device, &keys));
                let mask = SoftmaxMask { keys: with_keys.then(|| (keys.get(), by)), causal };
                device.softmax(columns, x.get(), mask, y.get_mut()).unwrap();
                y
            };
            let y = run(&hidden);
            let got = y.values();
            // A difference of at most 8 (of elements near 200 in bf16 too), whose rounding the function multiplies by it, the function,
            // a sum and a quotient; twice, for numerator and total.
            let slack = |i: usize| (columns as f64 + 40.0) * sum_unit(device) * expected[i];
            close(device, &got, &expected, slack, &what);
            assert!((0..x.len()).all(|i| valid(i) || got[i] == 0.0), "{what}: zero where nothing counts");
            assert_eq!(got, run(&hidden).values(), "{what} again");

            let dy = numbers(device, &mut rng, x.len(), 2.0);
            let mut dx = Tensor::poisoned(device, x.len());
            device.softmax_gradient(columns, y.get(), Tensor::new(device, &dy).get(), dx.get_mut()).unwrap();
            let products = |row: usize| (row * columns..(row + 1) * columns).map(|i| got[i] * dy[i]);
            let slopes: Vec<f64> = (0..x.len()).map(|i| got[i] * (dy[i] - sum(products(i / columns)))).collect();
            let slack = |i: usize| {
                let magnitude = dy[i].abs() + sum(products(i / columns).map(f64::abs));
                (columns as f64 + 4.0) * sum_unit(device) * got[i] * magnitude
            };
            close(device, &dx.values(), &slopes, slack, &format!("gradient of {what}"));

            // A NaN that counts makes all of its row NaN that counts, and nothing else.
            if let Some(bad) = (0..x.len()).find(|i| valid(*i)) {
                let mut x = hidden.clone();
                x[bad] = f64::NAN;
                let with_nan = run(&x).values();
                for i in 0..x.len() {
                    let counts = i / columns == bad / columns && valid(i);
                    assert!(if counts { with_nan[i].is_nan() } else { with_nan[i] == got[i] }, "{what}: NaN, {i}");
                }
            }
        }
    }
}

/// Mean and one over the deviation of a row.
fn row_statistics(x: &[f64], epsilon: f64) -> (f64, f64) {
    let n = x.len() as f64;
    let mean = sum(x.iter().copied()) / n;
    let variance = sum(x.iter().map(|v| (v - mean) * (v - mean))) / n;
    (mean, 1.0 / (variance + epsilon).sqrt())
}

/// The gradient of a row's normalisation by x.
fn row_gradient(x: &[f64], slopes: &[f64], (mean, inverse): (f64, f64)) -> Vec<f64> {
    let n = x.len() as f64;
    let normal = |c: usize| (x[c] - mean) * inverse;
    let first = sum(slopes.iter().copied()) / n;
    let second = sum((0..x.len()).map(|c| slopes[c] * normal(c))) / n;
    (0..x.len()).map(|c| (slopes[c] - first - normal(c) * second) * inverse).collect()
}

/// Mean and variance of a column whose rows count by their weights.
fn column_moments(x: &[f64], weights: &[f64]) -> (f64, f64) {
    let total = sum(weights.iter().copied());
    if total == 0.0 {
        return (0.0, 0.0);
    }
    let mean = sum(x.iter().zip(weights).map(|(x, w)| w * x)) / total;
    (mean, sum(x.iter().zip(weights).map(|(x, w)| w * (x - mean) * (x - mean))) / total)
}

/// The gradient of a column's normalisation by x, through mean and variance.
fn column_gradient(x: &[f64], weights: &[f64], slopes: &[f64], (mean, variance): (f64, f64), epsilon: f64) -> Vec<f64> {
    let total = sum(weights.iter().copied());
    let inverse = 1.0 / (variance + epsilon).sqrt();
    let normal = |r: usize| (x[r] - mean) * inverse;
    let (first, second) = (sum(slopes.iter().copied()), sum((0..x.len()).map(|r| slopes[r] * normal(r))));
    let share = |r: usize| if total == 0.0 { 0.0 } else { weights[r] / total };
    (0..x.len()).map(|r| inverse * (slopes[r] - share(r) * (first + normal(r) * second))).collect()
}

/// The two gradients above are derivatives of what is normalised.
#[test]
fn the_formulas_are_derivatives() {
    let mut rng = Rng::new(8);
    let epsilon = 0.01;
    for n in [1, 2, 5, 9] {
        let (x, slopes) = (rng.vector(n, 1.0), rng.vector(n, 1.0));
        let mut weights: Vec<f64> = (0..n).map(|_| rng.uniform(0.0, 2.0)).collect();
        weights[0] = 0.0;
        weights[n - 1] = 1.0;
        let by_row = |x: &[f64]| {
            let (mean, inverse) = row_statistics(x, epsilon);
            sum(x.iter().zip(&slopes).map(|(x, slope)| slope * (x - mean) * inverse))
        };
        let by_column = |x: &[f64]| {
            let (mean, variance) = column_moments(x, &weights);
            sum(x.iter().zip(&slopes).map(|(x, slope)| slope * (x - mean) / (variance + epsilon).sqrt()))
        };
        let rows = row_gradient(&x, &slopes, row_statistics(&x, epsilon));
        let columns = column_gradient(&x, &weights, &slopes, column_moments(&x, &weights), epsilon);
        for i in 0..n {
            let difference = |f: &dyn Fn(&[f64]) -> f64| {
                let at = |d: f64| {
                    let mut moved = x.clone();
                    moved[i] += d;
                    f(&moved)
                };
                let step = 1e-3;
                (8.0 * (at(step) - at(-step)) - at(2.0 * step) + at(-2.0 * step)) / (12.0 * step)
            };
            // The step to the fourth, 1e-12, times a fifth derivative over 30: deviations are above 0.1, so 1e5 / 30 times a factor of
            // at most a hundred.
            assert!((difference(&by_row) - rows[i]).abs() < 1e-6, "{n} {i}: {} {}", difference(&by_row), rows[i]);
            assert!((difference(&by_column) - columns[i]).abs() < 1e-6, "{n} {i} by column");
        }
    }
}

/// Gradients of gamma and beta: sums of dy and of dy n, with their tolerances.
struct Totals {
    values: Vec<f64>,
    magnitudes: Vec<f64>,
    terms: usize,
}

impl Totals {
    fn new(grad: WeightGrad, before: &[f64], rows: usize, term: impl Fn(usize, usize) -> (f64, f64)) -> Self {
        let columns = before.len();
        let column = |c: usize| (0..rows).map(|r| term(r, c)).collect::<Vec<_>>();
        let values = (0..columns).map(|c| add_to(grad, before[c], sum(column(c).iter().map(|t| t.0)))).collect();
        let magnitudes = (0..columns).map(|c| before[c].abs() + sum(column(c).iter().map(|t| t.1))).collect();
        Totals { values, magnitudes, terms: rows }
    }

    #[track_caller]
    fn judge(&self, device: &Device, got: &[f64], what: &str) {
        let slack = |c: usize| (self.terms + 6) as f64 * sum_unit(device) * self.magnitudes[c];
        close(device, got, &self.values, slack, what);
    }
}

/// Rows and columns; of the last ones the rows are summed in pieces.
const MATRICES: [(usize, usize); 9] =
    [(1, 1), (1, 5), (3, 5), (9, 33), (130, 4), (33, 64), (2, 130), (300, 40), (600, 3)];

pub fn layer_normalization(device: &Device) {
    let mut rng = Rng::new(9);
    let s = sum_unit(device);
    for (rows, columns) in MATRICES {
        for (with_scale, grad) in [(true, WeightGrad::Set), (false, WeightGrad::Set), (true, WeightGrad::Add)] {
            let (epsilon, len) = (0.01, rows * columns);
            let (x, dy) = (numbers(device, &mut rng, len, 2.0), numbers(device, &mut rng, len, 1.0));
            let (gamma, beta) = (numbers(device, &mut rng, columns, 2.0), numbers(device, &mut rng, columns, 1.0));
            let row = |values: &[f64], r: usize| values[r * columns..][..columns].to_vec();
            let scale = |c: usize| if with_scale { gamma[c] } else { 1.0 };
            let shift = |c: usize| if with_scale { beta[c] } else { 0.0 };
            let truth: Vec<(f64, f64)> = (0..rows).map(|r| row_statistics(&row(&x, r), epsilon)).collect();
            // Errors of a row's mean and of what is left when it is taken off; of the sum of squares; of one over its root.
            let errors: Vec<(f64, f64)> = (0..rows)
                .map(|r| {
                    let (values, n) = (row(&x, r), columns as f64);
                    let (mean, inverse) = truth[r];
                    let of_mean = (n + 3.0) * s * largest(&values);
                    let deviation = largest(&values.iter().map(|v| v - mean).collect::<Vec<_>>()) + of_mean;
                    let variance = 1.0 / (inverse * inverse);
                    let of_variance = 2.0 * of_mean * deviation + (n + 5.0) * s * variance;
                    (of_mean, of_variance / (2.0 * variance) + 3.0 * s)
                })
                .collect();

            let (tx, tg, tb) = (Tensor::new(device, &x), Tensor::new(device, &gamma), Tensor::new(device, &beta));
            let (mut y, mut statistics) = (Tensor::poisoned(device, len), Tensor::poisoned(device, 2 * rows));
            let (g, b) = (with_scale.then(|| tg.get()), with_scale.then(|| tb.get()));
            device.layer_norm(columns, epsilon, tx.get(), g, b, y.get_mut(), statistics.get_mut()).unwrap();
            let what = format!("{rows} x {columns}, scale {with_scale} {grad:?}");
            let expected: Vec<f64> = (0..len)
                .map(|i| {
                    let ((mean, inverse), c) = (truth[i / columns], i % columns);
                    (x[i] - mean) * inverse * scale(c) + shift(c)
                })
                .collect();
            let slack = |i: usize| {
                let ((mean, inverse), (of_mean, relative)) = (truth[i / columns], errors[i / columns]);
                let normal = (x[i] - mean).abs() * inverse;
                scale(i % columns).abs() * (of_mean * inverse + normal * (relative + 4.0 * s))
                    + 2.0 * s * (expected[i].abs() + shift(i % columns).abs())
            };
            close(device, &y.values(), &expected, slack, &what);
            let kept = statistics.values();
            let expected: Vec<f64> = truth.iter().flat_map(|(mean, inverse)| [*mean, *inverse]).collect();
            let slack = |i: usize| if i.is_multiple_of(2) { errors[i / 2].0 } else { errors[i / 2].1 * expected[i] };
            close(device, &kept, &expected, slack, &format!("statistics of {what}"));

            // Backward reads what was kept.
            let slope = |i: usize| dy[i] * scale(i % columns);
            let of_row = |r: usize| (kept[2 * r], kept[2 * r + 1]);
            let slopes: Vec<f64> = (0..len).map(slope).collect();
            let dx: Vec<f64> = (0..rows).flat_map(|r| row_gradient(&row(&x, r), &row(&slopes, r), of_row(r))).collect();
            let magnitude = |i: usize| (x[i].abs() + of_row(i / columns).0.abs()) * of_row(i / columns).1;
            let before = numbers(device, &mut rng, columns, 1.0);
            let dgamma = Totals::new(grad, &before, rows, |r, c| {
                let (i, (mean, inverse)) = (r * columns + c, of_row(r));
                (dy[i] * (x[i] - mean) * inverse, dy[i].abs() * magnitude(i))
            });
            let dbeta = Totals::new(grad, &before, rows, |r, c| (dy[r * columns + c], dy[r * columns + c].abs()));
            let run = |with_dx: bool, with_totals: bool| {
                let mut out = Tensor::poisoned(device, len);
                let mut of_gamma = Tensor::new(device, &start(grad, &before));
                let mut of_beta = Tensor::new(device, &start(grad, &before));
                let mut space = workspace(device, Workspace::Normalization { rows, columns });
                device
                    .layer_norm_gradient(
                        columns,
                        tx.get(),
                        g,
                        statistics.get(),
                        Tensor::new(device, &dy).get(),
                        with_dx.then(|| out.get_mut()),
                        with_totals.then(|| of_gamma.get_mut()),
                        with_totals.then(|| of_beta.get_mut()),
                        grad,
                        space.get_mut(),
                    )
                    .unwrap();
                [out, of_gamma, of_beta].map(|tensor| tensor.values())
            };
            let got = run(true, true);
            let slack = |i: usize| {
                let r = i / columns;
                let all =
                    |f: &dyn Fn(usize) -> f64| largest(&(r * columns..(r + 1) * columns).map(f).collect::<Vec<_>>());
                let (most_slope, most_normal) = (all(&slope), all(&magnitude));
                (columns as f64 + 12.0) * s * of_row(r).1 * most_slope * (2.0 + 2.0 * most_normal * most_normal)
            };
            close(device, &got[0], &dx, slack, &format!("dx of {what}"));
            dgamma.judge(device, &got[1], &format!("dgamma of {what}"));
            dbeta.judge(device, &got[2], &format!("dbeta of {what}"));
            assert_eq!(got, run(true, true), "{what} again");
            same(&run(true, false)[0], &got[0], &format!("dx alone of {what}"));
            assert_eq!(run(false, true)[1..], got[1..], "totals alone of {what}");
        }
    }
}

pub fn batch_normalization(device: &Device) {
    let mut rng = Rng::new(10);
    let s = sum_unit(device);
    for (rows, columns) in MATRICES {
        for (weighted, with_scale, grad) in
            [(false, true, WeightGrad::Set), (true, true, WeightGrad::Add), (true, false, WeightGrad::Set)]
        {
            let (epsilon, len) = (0.01, rows * columns);
            let (x, dy) = (numbers(device, &mut rng, len, 2.0), numbers(device, &mut rng, len, 1.0));
            let (gamma, beta) = (numbers(device, &mut rng, columns, 2.0), numbers(device, &mut rng, columns, 1.0));
            let weight = |rng: &mut Rng| if rng.chance(0.4) { 0.0 } else { rng.pick(&[1.0, 0.5, 2.0]) };
            let mut weights: Vec<f64> = (0..rows).map(|_| if weighted { weight(&mut rng) } else { 1.0 }).collect();
            weights[rows - 1] = 1.0;
            let total = sum(weights.iter().copied());
            let column = |values: &[f64], c: usize| (0..rows).map(|r| values[r * columns + c]).collect::<Vec<_>>();
            let what = format!("{rows} x {columns}, weighted {weighted}, scale {with_scale} {grad:?}");
            let (tx, of_rows) = (Tensor::new(device, &x), Tensor::new(device, &weights));
            let tw = weighted.then(|| of_rows.get());

            let (mut mean, mut variance) = (Tensor::poisoned(device, columns), Tensor::poisoned(device, columns));
            device.column_moments(columns, tx.get(), tw, mean.get_mut(), variance.get_mut()).unwrap();
            let truth: Vec<(f64, f64)> = (0..columns).map(|c| column_moments(&column(&x, c), &weights)).collect();
            let terms = rows as f64 + 4.0;
            let of_mean = |c: usize| 2.0 * terms * s * largest(&column(&x, c));
            let of_variance = |c: usize| {
                let most = column(&x, c).into_iter().zip(&weights).filter(|(_, w)| **w != 0.0);
                let most = most.map(|(x, _)| (x - truth[c].0).abs()).fold(0.0, f64::max) + of_mean(c);
                2.0 * of_mean(c) * most + 2.0 * terms * s * truth[c].1
            };
            let (means, variances): (Vec<f64>, Vec<f64>) = truth.iter().copied().unzip();
            close(device, &mean.values(), &means, of_mean, &format!("mean of {what}"));
            close(device, &variance.values(), &variances, of_variance, &format!("variance of {what}"));

            // The others read what they are given.
            let (means, variances) = (mean.values(), variance.values());
            let (tg, tb) = (Tensor::new(device, &gamma), Tensor::new(device, &beta));
            let (g, b) = (with_scale.then(|| tg.get()), with_scale.then(|| tb.get()));
            let scale = |c: usize| if with_scale { gamma[c] } else { 1.0 };
            let shift = |c: usize| if with_scale { beta[c] } else { 0.0 };
            let inverse = |c: usize| 1.0 / (variances[c] + epsilon).sqrt();
            let magnitude = |i: usize| (x[i].abs() + means[i % columns].abs()) * inverse(i % columns);
            let mut y = Tensor::poisoned(device, len);
            device.batch_norm(columns, epsilon, tx.get(), mean.get(), variance.get(), g, b, y.get_mut()).unwrap();
            let expected: Vec<f64> = (0..len)
                .map(|i| (x[i] - means[i % columns]) * inverse(i % columns) * scale(i % columns) + shift(i % columns))
                .collect();
            let slack = |i: usize| 8.0 * s * (magnitude(i) * scale(i % columns).abs() + shift(i % columns).abs());
            close(device, &y.values(), &expected, slack, &what);

            let gradients: Vec<Vec<f64>> = (0..columns)
                .map(|c| {
                    let slopes: Vec<f64> = column(&dy, c).iter().map(|dy| dy * scale(c)).collect();
                    column_gradient(&column(&x, c), &weights, &slopes, (means[c], variances[c]), epsilon)
                })
                .collect();
            let dx: Vec<f64> = (0..len).map(|i| gradients[i % columns][i / columns]).collect();
            let before = numbers(device, &mut rng, columns, 1.0);
            let dgamma = Totals::new(grad, &before, rows, |r, c| {
                let i = r * columns + c;
                (dy[i] * (x[i] - means[c]) * inverse(c), dy[i].abs() * magnitude(i) * 2.0)
            });
            let dbeta = Totals::new(grad, &before, rows, |r, c| (dy[r * columns + c], dy[r * columns + c].abs()));
            let run = |with_dx: bool, with_totals: bool| {
                let mut out = Tensor::poisoned(device, len);
                let mut of_gamma = Tensor::new(device, &start(grad, &before));
                let mut of_beta = Tensor::new(device, &start(grad, &before));
                let mut space = workspace(device, Workspace::Normalization { rows, columns });
                device
                    .batch_norm_gradient(
                        columns,
                        epsilon,
                        tx.get(),
                        tw,
                        mean.get(),
                        variance.get(),
                        g,
                        Tensor::new(device, &dy).get(),
                        with_dx.then(|| out.get_mut()),
                        with_totals.then(|| of_gamma.get_mut()),
                        with_totals.then(|| of_beta.get_mut()),
                        grad,
                        space.get_mut(),
                    )
                    .unwrap();
                [out, of_gamma, of_beta].map(|tensor| tensor.values())
            };
            let got = run(true, true);
            let slack = |i: usize| {
                let c = i % columns;
                let slopes = || (0..rows).map(|r| r * columns + c);
                let sums = sum(slopes().map(|j| dy[j].abs()))
                    + magnitude(i) * sum(slopes().map(|j| dy[j].abs() * magnitude(j)));
                let share = weights[i / columns] / total;
                (rows as f64 + 16.0) * s * scale(c).abs() * inverse(c) * (dy[i].abs() + 2.0 * share * sums)
            };
            close(device, &got[0], &dx, slack, &format!("dx of {what}"));
            dgamma.judge(device, &got[1], &format!("dgamma of {what}"));
            dbeta.judge(device, &got[2], &format!("dbeta of {what}"));
            assert_eq!(got, run(true, true), "{what} again");
            same(&run(true, false)[0], &got[0], &format!("dx alone of {what}"));
            assert_eq!(run(false, true)[1..], got[1..], "totals alone of {what}");
        }
    }
    // Where no row counts, and where there are none.
    for (rows, weights) in [(3, vec![0.0; 3]), (0, vec![])] {
        let x = Tensor::new(device, &vec![1.5; rows * 2]);
        let (mut mean, mut variance) = (Tensor::poisoned(device, 2), Tensor::poisoned(device, 2));
        let weights = Tensor::new(device, &weights);
        device.column_moments(2, x.get(), Some(weights.get()), mean.get_mut(), variance.get_mut()).unwrap();
        assert_eq!((mean.values(), variance.values()), (vec![0.0; 2], vec![0.0; 2]));
        let (mut dx, mut dgamma) = (Tensor::poisoned(device, rows * 2), Tensor::poisoned(device, 2));
        let mut space = workspace(device, Workspace::Normalization { rows, columns: 2 });
        let (m, v) = (mean.get(), variance.get());
        let (w, out, of_gamma) = (Some(weights.get()), Some(dx.get_mut()), Some(dgamma.get_mut()));
        let (grad, space) = (WeightGrad::Set, space.get_mut());
        device.batch_norm_gradient(2, 0.25, x.get(), w, m, v, None, x.get(), out, of_gamma, None, grad, space).unwrap();
        // dy / sqrt(0.25), and the sum of 1.5 * 1.5 / 0.5.
        assert_eq!(dx.values(), vec![3.0; rows * 2]);
        assert_eq!(dgamma.values(), vec![4.5 * rows as f64; 2]);
    }
}
