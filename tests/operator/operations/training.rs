//! What else a training step needs: dropout, optimizers, norms of gradients, and whether they are finite.

use super::*;

pub fn masks(device: &Device) {
    let mut rng = Rng::new(4);
    for (steps, batch, features) in [(1, 1, 1), (3, 2, 5), (2, 5, 513), (1, 7, 64)] {
        for probability in [0.0, 0.4, 1.0] {
            let x = numbers(device, &mut rng, steps * batch * features, 1.0);
            let dropout = Dropout::new(probability, 77);
            let mut expected = x.clone();
            for (r, row) in expected.chunks_mut(features).enumerate() {
                dropout.apply(row, 3, r / batch, r % batch);
            }
            let mut y = Tensor::poisoned(device, x.len());
            device.dropout(&dropout, 3, batch, features, Tensor::new(device, &x).get(), y.get_mut()).unwrap();
            let got = y.values();
            close(device, &got, &expected, |i| 2.0 * sum_unit(device) * expected[i].abs(), "dropout");
            assert!(got.iter().zip(&expected).all(|(a, b)| (*a == 0.0) == (*b == 0.0)), "the same mask");
        }
    }
}

pub fn optimizers(device: &Device) {
    let mut rng = Rng::new(7);
    // 16-bit state rounds every step; the formula below rounds where the state is stored.
    let rounded = |v: f64| rounded(device, v);
    for len in [1, 33, 129, 1031] {
        let start = numbers(device, &mut rng, len, 1.0);
        let gradients: Vec<Vec<f64>> = (0..3).map(|_| numbers(device, &mut rng, len, 1.0)).collect();
        // A rounding error that falls on the other side of a tie moves a state by one unit, and weights by a step's share of it.
        let slack = |_| 64.0 * sum_unit(device) + if unit(device) > 1e-5 { 6.0 * unit(device) } else { 0.0 };

        let mut w = Tensor::new(device, &start);
        let (mut m, mut v) = (Tensor::new(device, &vec![0.0; len]), Tensor::new(device, &vec![0.0; len]));
        let mut truth = vec![(0.0, 0.0); len];
        let mut expected = start.clone();
        for (g, decay) in gradients.iter().zip([0.0, 0.125, 0.0]) {
            let step = AdamStep { rate: 0.01, beta_1: 0.9, beta_2: 0.99, epsilon: 1e-7, decay };
            let g_tensor = Tensor::new(device, g);
            device.adam(step, w.get_mut(), g_tensor.get(), m.get_mut(), v.get_mut()).unwrap();
            for i in 0..len {
                let moments = (0.9 * truth[i].0 + 0.1 * g[i], 0.99 * truth[i].1 + 0.01 * g[i] * g[i]);
                let kept = expected[i] - decay * expected[i];
                expected[i] = rounded(kept - 0.01 * moments.0 / (moments.1.sqrt() + 1e-7));
                truth[i] = (rounded(moments.0), rounded(moments.1));
            }
        }
        close(device, &w.values(), &expected, slack, "Adam");

        let mut w = Tensor::new(device, &start);
        let mut sums = Tensor::new(device, &vec![0.125; len]);
        let (mut expected, mut truth) = (start.clone(), vec![0.125; len]);
        for g in &gradients {
            let step = AdagradStep { rate: 0.01, epsilon: 1e-2 };
            device.adagrad(step, w.get_mut(), Tensor::new(device, g).get(), sums.get_mut()).unwrap();
            for i in 0..len {
                let sum = truth[i] + g[i] * g[i];
                expected[i] = rounded(expected[i] - 0.01 * g[i] / (sum + 1e-2).sqrt());
                truth[i] = rounded(sum);
            }
        }
        close(device, &w.values(), &expected, slack, "Adagrad");
        close(device, &sums.values(), &truth, slack, "sums of Adagrad");

        for (momentum, nesterov) in [(None, false), (Some(0.9), false), (Some(0.9), true)] {
            let mut w = Tensor::new(device, &start);
            let mut velocity = Tensor::new(device, &vec![0.0; len]);
            let (mut expected, mut speed) = (start.clone(), vec![0.0; len]);
            for g in &gradients {
                let step = SgdStep { rate: 0.1, momentum: momentum.unwrap_or(0.0), nesterov };
                let out = momentum.is_some().then(|| velocity.get_mut());
                device.sgd(step, w.get_mut(), Tensor::new(device, g).get(), out).unwrap();
                for i in 0..len {
                    let fast = step.momentum * speed[i] - 0.1 * g[i];
                    expected[i] = rounded(expected[i] + if nesterov { 0.9 * fast - 0.1 * g[i] } else { fast });
                    speed[i] = rounded(fast);
                }
            }
            close(device, &w.values(), &expected, slack, &format!("SGD {momentum:?} {nesterov}"));
        }

        for (centered, momentum) in [(false, None), (true, None), (false, Some(0.5)), (true, Some(0.5))] {
            let mut w = Tensor::new(device, &start);
            let zeros = || Tensor::new(device, &vec![0.0; len]);
            let (mut square, mut mean, mut velocity) = (zeros(), zeros(), zeros());
            let mut expected = start.clone();
            let mut truth = vec![(0.0, 0.0, 0.0); len];
            for g in &gradients {
                let step = RmsPropStep { rate: 0.01, rho: 0.8, momentum: momentum.unwrap_or(0.0), epsilon: 1e-2 };
                let mean = centered.then(|| mean.get_mut());
                let velocity = momentum.is_some().then(|| velocity.get_mut());
                let g_tensor = Tensor::new(device, g);
                device.rmsprop(step, w.get_mut(), g_tensor.get(), square.get_mut(), mean, velocity).unwrap();
                for i in 0..len {
                    let s = 0.8 * truth[i].0 + 0.2 * g[i] * g[i];
                    let a = if centered { 0.8 * truth[i].1 + 0.2 * g[i] } else { 0.0 };
                    let v = step.momentum * truth[i].2 + 0.01 * g[i] / (s - a * a + 1e-2).sqrt();
                    expected[i] = rounded(expected[i] - v);
                    truth[i] = (rounded(s), rounded(a), rounded(v));
                }
            }
            close(device, &w.values(), &expected, slack, &format!("RMSprop {centered} {momentum:?}"));
        }
    }
}

pub fn norms(device: &Device) {
    let mut rng = Rng::new(8);
    for len in SIZES {
        let x = numbers(device, &mut rng, len, 1.0);
        let squares: f64 = x.iter().map(|v| v * v).sum();
        let run = |x: &[f64], most: f64| {
            let mut sum = Tensor::of_type(device, DType::F64, &[f64::NAN]);
            let mut space = workspace(device, Workspace::SumOfSquares);
            let mut x = Tensor::new(device, x);
            device.sum_of_squares(x.get(), sum.get_mut(), space.get_mut()).unwrap();
            device.clip_by_norm(most, sum.get(), x.get_mut()).unwrap();
            (sum.values()[0], x.values())
        };
        let norm = squares.sqrt();
        let (sum, kept) = run(&x, norm * 1.01);
        assert!((sum - squares).abs() <= (len + 2) as f64 * f64::EPSILON * squares, "{len}: {sum} {squares}");
        assert_eq!(kept, x, "a norm below the limit changes nothing");
        let (again, clipped) = run(&x, norm / 3.0);
        assert_eq!(sum, again);
        let expected: Vec<f64> = x.iter().map(|v| v / 3.0).collect();
        let slack = |i: usize| (4.0 * sum_unit(device) + len as f64 * f64::EPSILON) * expected[i].abs();
        close(device, &clipped, &expected, slack, "clipped");
        let mut bad = x.clone();
        bad[len / 2] = f64::NAN;
        assert!(run(&bad, 1.0).1.iter().all(|v| v.is_nan()), "a norm that is NaN");
    }
}

pub fn what_is_not_finite(device: &Device) {
    for len in SIZES {
        let mut status = Status::new(device);
        let good = Tensor::new(device, &vec![1.5; len]);
        device.check_finite(good.get(), 1, status.get_mut()).unwrap();
        assert_eq!(status.read(), Report::default());
        for at in [0, len / 2, len - 1] {
            for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
                let mut values = vec![1.5; len];
                values[at] = bad;
                let values = Tensor::new(device, &values);
                let mut status = Status::new(device);
                for (tensor, code) in [(&good, 7), (&values, 8), (&values, 9), (&good, 10)] {
                    device.check_finite(tensor.get(), code, status.get_mut()).unwrap();
                }
                let report = status.read();
                assert_eq!((report.bad_gradient, report.bad_loss), (Some(8), None), "{len} {at} {bad}");
                assert!(!report.bad_value.is_finite());
            }
        }
    }
}
