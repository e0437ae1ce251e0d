//! Matrix products and sums along an axis.

use super::*;

/// Outer, count, inner.
pub const AXES: [[usize; 3]; 12] = [
    [1, 1, 1],
    [3, 5, 7],
    [2, 33, 1],
    [5, 31, 1],
    [130, 32, 1],
    [3, 32, 31],
    [2, 100, 32],
    [2, 7, 129],
    [1, 1031, 3],
    [70, 2, 2],
    [0, 3, 2],
    [2, 0, 3],
];

pub fn products(device: &Device) {
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
        // Rows of 16 bytes; several rounds of the stages that kernels copy to.
        (48, 72, 264),
        (40, 24, 328),
        (11, 24, 1160),
    ];
    // Large enough for several tiles and threads; slow on an emulated device.
    let large = [(130, 193, 257), (1, 700, 300), (500, 1, 65), (259, 67, 8)];
    for (m, n, k) in sizes.into_iter().chain(large.into_iter().filter(|_| device.is_host())) {
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            for grad in GRADS {
                let (a, b) = (numbers(device, &mut rng, m * k, 1.0), numbers(device, &mut rng, k * n, 1.0));
                let before = numbers(device, &mut rng, m * n, 1.0);
                let at_a =
                    |i: usize, l: usize| if orientation == Orientation::Tn { a[l * m + i] } else { a[i * k + l] };
                let at_b =
                    |l: usize, j: usize| if orientation == Orientation::Nt { b[j * k + l] } else { b[l * n + j] };
                let term = |c: usize, l: usize| at_a(c / n, l) * at_b(l, c % n);
                let expected: Vec<f64> =
                    (0..m * n).map(|c| add_to(grad, before[c], (0..k).map(|l| term(c, l)).sum())).collect();
                let product = MatMul::single(orientation, m, n, k);
                let run = || {
                    let mut c = Tensor::new(device, &start(grad, &before));
                    let mut space = workspace(device, Workspace::MatMul(product));
                    let (a, b) = (Tensor::new(device, &a), Tensor::new(device, &b));
                    device.matmul(product, 1.0, a.get(), b.get(), c.get_mut(), grad, space.get_mut()).unwrap();
                    c.values()
                };
                let got = run();
                let slack = |c: usize| {
                    let magnitude: f64 = (0..k).map(|l| term(c, l).abs()).sum::<f64>() + before[c].abs();
                    (k + 2) as f64 * sum_unit(device) * magnitude
                };
                close(device, &got, &expected, slack, &format!("{product:?} {grad:?}"));
                assert_eq!(got, run(), "{product:?} again");
            }
        }
    }
}

pub fn products_with_a_bias(device: &Device) {
    let mut rng = Rng::new(9);
    // The last is split into pieces of k on a device, whatever its orientation.
    for (m, n, k) in [(1, 1, 1), (17, 33, 31), (70, 72, 40), (34, 8, 0), (9, 24, 4096)] {
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            let (a, b) = (numbers(device, &mut rng, m * k, 1.0), numbers(device, &mut rng, k * n, 1.0));
            let bias = numbers(device, &mut rng, n, 3.0);
            let at_a = |i: usize, l: usize| if orientation == Orientation::Tn { a[l * m + i] } else { a[i * k + l] };
            let at_b = |l: usize, j: usize| if orientation == Orientation::Nt { b[j * k + l] } else { b[l * n + j] };
            let term = |c: usize, l: usize| at_a(c / n, l) * at_b(l, c % n);
            let expected: Vec<f64> = (0..m * n).map(|c| bias[c % n] + sum((0..k).map(|l| term(c, l)))).collect();
            let product = MatMul::single(orientation, m, n, k);
            let run = || {
                let mut c = Tensor::new(device, &vec![f64::NAN; m * n]);
                let mut space = workspace(device, Workspace::MatMul(product));
                let (a, b, bias) = (Tensor::new(device, &a), Tensor::new(device, &b), Tensor::new(device, &bias));
                device.matmul_bias(product, a.get(), b.get(), bias.get(), c.get_mut(), space.get_mut()).unwrap();
                c.values()
            };
            // The host's backends round the product and then the sum.
            let slack = |c: usize| {
                let magnitude = sum((0..k).map(|l| term(c, l).abs())) + bias[c % n].abs();
                (k + 4) as f64 * sum_unit(device) * magnitude
            };
            close(device, &run(), &expected, slack, &format!("{product:?} with a bias"));
            assert_eq!(run(), run(), "{product:?} with a bias again");
        }
    }
}

pub fn sums_of_columns(device: &Device) {
    let mut rng = Rng::new(2);
    for (rows, columns) in [(1, 1), (1, 33), (7, 31), (8, 32), (9, 65), (255, 3), (257, 33), (1031, 5), (0, 4)] {
        for grad in GRADS {
            let (x, before) = (numbers(device, &mut rng, rows * columns, 2.0), numbers(device, &mut rng, columns, 2.0));
            let column = |j: usize| (0..rows).map(|r| x[r * columns + j]).collect::<Vec<_>>();
            let expected: Vec<f64> = (0..columns).map(|j| add_to(grad, before[j], column(j).iter().sum())).collect();
            let run = || {
                let mut sums = Tensor::new(device, &start(grad, &before));
                let mut space = workspace(device, Workspace::SumAxis([1, rows, columns]));
                let x = Tensor::new(device, &x);
                device.sum_axis([1, rows, columns], 1.0, x.get(), sums.get_mut(), grad, space.get_mut()).unwrap();
                sums.values()
            };
            let slack = |j: usize| {
                (rows + 2) as f64
                    * sum_unit(device)
                    * (column(j).iter().map(|v| v.abs()).sum::<f64>() + before[j].abs())
            };
            close(device, &run(), &expected, slack, &format!("{rows} x {columns} {grad:?}"));
            assert_eq!(run(), run(), "{rows} x {columns} again");
        }
    }
}

pub fn batched_products(device: &Device) {
    let mut rng = Rng::new(7);
    let sizes = [
        (1, 1, 1),
        (2, 3, 5),
        (16, 32, 16),
        (17, 33, 31),
        (31, 65, 33),
        (63, 64, 65),
        (70, 66, 40),
        (3, 4, 0),
        (2, 0, 3),
    ];
    for (m, n, k) in sizes {
        for orientation in [Orientation::Nt, Orientation::Nn, Orientation::Tn] {
            for (count, alpha, grad) in [
                (1, 1.0, WeightGrad::Set),
                (1, 0.7, WeightGrad::Add),
                (3, 0.3, WeightGrad::Set),
                (2, -1.5, WeightGrad::Add),
            ] {
                let a = numbers(device, &mut rng, count * m * k, 1.0);
                let b = numbers(device, &mut rng, count * k * n, 1.0);
                let before = numbers(device, &mut rng, count * m * n, 1.0);
                let at_a = |l: usize, i: usize| if orientation == Orientation::Tn { l * m + i } else { i * k + l };
                let at_b = |l: usize, j: usize| if orientation == Orientation::Nt { j * k + l } else { l * n + j };
                let term = |at: usize, l: usize| {
                    let (product, i, j) = (at / (m * n), at / n % m, at % n);
                    a[product * m * k + at_a(l, i)] * b[product * n * k + at_b(l, j)]
                };
                let total = |at: usize| alpha * sum((0..k).map(|l| term(at, l)));
                let expected: Vec<f64> = (0..before.len()).map(|at| add_to(grad, before[at], total(at))).collect();
                let product = MatMul { count, orientation, m, n, k };
                let run = || {
                    let mut c = Tensor::new(device, &start(grad, &before));
                    let (a, b) = (Tensor::new(device, &a), Tensor::new(device, &b));
                    let mut space = workspace(device, Workspace::MatMul(product));
                    device.matmul(product, alpha, a.get(), b.get(), c.get_mut(), grad, space.get_mut()).unwrap();
                    c.values()
                };
                let slack = |at: usize| {
                    let magnitude = alpha.abs() * sum((0..k).map(|l| term(at, l).abs())) + before[at].abs();
                    (k + 4) as f64 * sum_unit(device) * magnitude
                };
                let what = format!("{product:?} {alpha} {grad:?}");
                close(device, &run(), &expected, slack, &what);
                assert_eq!(run(), run(), "{what} again");
            }
        }
    }
}

pub fn sums_along_an_axis(device: &Device) {
    let mut rng = Rng::new(4);
    for [outer, count, inner] in AXES {
        for (grad, alpha) in [(WeightGrad::Set, 1.0), (WeightGrad::Add, 1.0), (WeightGrad::Set, 0.3)] {
            let x = numbers(device, &mut rng, outer * count * inner, 2.0);
            let before = numbers(device, &mut rng, outer * inner, 2.0);
            let terms = |at: usize| (0..count).map(move |c| (at / inner * count + c) * inner + at % inner);
            let total = |at: usize| alpha * sum(terms(at).map(|i| x[i]));
            let expected: Vec<f64> = (0..outer * inner).map(|at| add_to(grad, before[at], total(at))).collect();
            let run = || {
                let mut y = Tensor::new(device, &start(grad, &before));
                let x = Tensor::new(device, &x);
                let mut space = workspace(device, Workspace::SumAxis([outer, count, inner]));
                device.sum_axis([outer, count, inner], alpha, x.get(), y.get_mut(), grad, space.get_mut()).unwrap();
                y.values()
            };
            let slack = |at: usize| {
                let magnitude = alpha * sum(terms(at).map(|i| x[i].abs())) + before[at].abs();
                (count + 3) as f64 * sum_unit(device) * magnitude
            };
            let what = format!("{outer} {count} {inner} {alpha} {grad:?}");
            close(device, &run(), &expected, slack, &what);
            assert_eq!(run(), run(), "{what} again");
        }
    }
}
