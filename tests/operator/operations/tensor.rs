//! The tensor operations on any backend and element type: each against plain formulas in `f64`, within the rounding errors that its
//! arithmetic may make; moves exactly.

use std::borrow::{Borrow, BorrowMut};

use crate::common::Rng;
use crate::common::tensors::{GRADS, Record, SIZES, Tensor, add_to, close, numbers, sum_unit, unit, workspace};
use fused_rnn::backend::dense::{DenseCall, Orientation, Product, Report};
use fused_rnn::backend::tensor::{MaskOrder, NO_ROW, SoftmaxMask, Strides};
use fused_rnn::backend::{DenseBackend, Storage, WeightGrad};
use fused_rnn::{Element, Error};

/// A list of rows, filled with what no call may leave.
struct Rows<B: DenseBackend>(B::Owned<u32>);

impl<B: DenseBackend> Rows<B> {
    fn new(backend: &B, values: &[u32]) -> Self {
        Rows(backend.take("rows", values.to_vec()).unwrap())
    }

    fn poisoned(backend: &B, len: usize) -> Self {
        Self::new(backend, &vec![0xdead_beef; len])
    }

    fn get_mut(&mut self) -> &mut B::Lengths {
        self.0.borrow_mut()
    }

    fn values(&self, backend: &B) -> Vec<u32> {
        let mut values = vec![0; self.0.borrow().elements()];
        backend.download(self.0.borrow(), &mut values).unwrap();
        values
    }
}

/// What an output is filled with before a call that sets it or adds to it.
fn start(grad: WeightGrad, before: &[f64]) -> Vec<f64> {
    if grad == WeightGrad::Add { before.to_vec() } else { vec![f64::NAN; before.len()] }
}

/// The same values, NaN where NaN.
#[track_caller]
fn same(got: &[f64], expected: &[f64], what: &str) {
    assert_eq!(got.len(), expected.len(), "{what}");
    for (i, (got, expected)) in got.iter().zip(expected).enumerate() {
        assert!(got == expected || got.is_nan() && expected.is_nan(), "{what}, element {i}: {got}, not {expected}");
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().fold(0.0, |most: f64, v| most.max(v.abs()))
}

fn sum(terms: impl Iterator<Item = f64>) -> f64 {
    terms.sum()
}

// Moves.

pub fn scaling<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(1);
    for len in SIZES {
        let (x, y) = (numbers::<B>(&mut rng, len, 2.0), numbers::<B>(&mut rng, len, 2.0));
        let tensor = Tensor::new(&backend, &x);
        for (alpha, beta) in [(-0.75, 0.0), (0.3, 0.0), (1.0, 1.0), (0.3, -1.7)] {
            let mut out = Tensor::new(&backend, &if beta == 0.0 { vec![f64::NAN; len] } else { y.clone() });
            backend.scale_add(alpha, tensor.get(), beta, out.get_mut()).unwrap();
            let read = |i: usize| if beta == 0.0 { 0.0 } else { beta * y[i] };
            let expected: Vec<f64> = (0..len).map(|i| alpha * x[i] + read(i)).collect();
            // Two constants, two products and a sum.
            let slack = |i: usize| 3.0 * sum_unit::<B>() * ((alpha * x[i]).abs() + read(i).abs());
            close::<B>(&out.values(&backend), &expected, slack, &format!("{alpha} x + {beta} y"));
        }
        let mut scaled = Tensor::new(&backend, &x);
        backend.scale(0.3, scaled.get_mut()).unwrap();
        let expected: Vec<f64> = x.iter().map(|v| 0.3 * v).collect();
        close::<B>(&scaled.values(&backend), &expected, |i| 2.0 * sum_unit::<B>() * expected[i].abs(), "scale");
    }
    let mut y = Tensor::new(&backend, &[1.0, 2.0]);
    backend.scale_add(1.0, Tensor::new(&backend, &[f64::NAN, 3.0]).get(), 1.0, y.get_mut()).unwrap();
    same(&y.values(&backend), &[f64::NAN, 5.0], "NaN stays NaN");
}

/// Random layouts: any order of axes, forwards and backwards, with gaps between them; what is read may repeat.
pub fn strided_copies<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(2);
    for case in 0..80 {
        let shape: [usize; 4] = std::array::from_fn(|_| 1 + rng.below(if case % 4 == 0 { 9 } else { 4 }));
        let mut layout = |repeats: bool| {
            let mut order = [0, 1, 2, 3];
            for i in (1..4).rev() {
                order.swap(i, rng.below(i + 1));
            }
            // Most cases are dense along the last axis, for which there is a faster way.
            if rng.chance(0.5) {
                order = [3, 0, 1, 2];
            }
            let (mut strides, mut offset, mut span) = ([0isize; 4], rng.below(3), 1usize);
            for axis in order {
                if repeats && rng.chance(0.3) {
                    continue;
                }
                let gap = if rng.chance(0.3) { rng.below(3) } else { 0 };
                let stride = span + gap;
                span += stride * (shape[axis] - 1);
                let backwards = rng.chance(0.3);
                strides[axis] = if backwards { -(stride as isize) } else { stride as isize };
                offset += if backwards { stride * (shape[axis] - 1) } else { 0 };
            }
            (Strides { offset, strides }, span + 3)
        };
        let ((from, from_len), (to, to_len)) = (layout(true), layout(false));
        let x = numbers::<B>(&mut rng, from_len, 2.0);
        for grad in GRADS {
            let before = numbers::<B>(&mut rng, to_len, 2.0);
            let mut expected = before.clone();
            let mut changed = vec![false; to_len];
            for i in 0..shape.iter().product() {
                let (l, k, j) = (i % shape[3], i / shape[3] % shape[2], i / shape[3] / shape[2] % shape[1]);
                let index = [i / shape[3] / shape[2] / shape[1], j, k, l];
                let at = |layout: Strides| {
                    let steps = index.iter().zip(layout.strides).map(|(i, stride)| *i as isize * stride);
                    (layout.offset as isize + steps.sum::<isize>()) as usize
                };
                expected[at(to)] = add_to(grad, before[at(to)], x[at(from)]);
                changed[at(to)] = true;
            }
            let mut out = Tensor::new(&backend, &before);
            backend.strided_copy(shape, Tensor::new(&backend, &x).get(), from, out.get_mut(), to, grad).unwrap();
            let got = out.values(&backend);
            let what = format!("{shape:?} {from:?} {to:?} {grad:?}");
            close::<B>(&got, &expected, |i| sum_unit::<B>() * expected[i].abs(), &what);
            for i in 0..to_len {
                let exact = grad == WeightGrad::Set || !changed[i];
                assert!(!exact || got[i] == expected[i], "{what}: element {i} is moved, not computed");
            }
        }
    }
    // Nothing to copy.
    let mut out = Tensor::new(&backend, &[7.0]);
    let wild = Strides { offset: 99, strides: [-5, 1000, 3, 0] };
    backend
        .strided_copy([2, 0, 3, 1], Tensor::new(&backend, &[]).get(), wild, out.get_mut(), wild, WeightGrad::Set)
        .unwrap();
    assert_eq!(out.values(&backend), [7.0]);
}

pub fn strided_copies_that_do_not_fit<B: DenseBackend>(backend: B) {
    let x = Tensor::new(&backend, &[1.0; 12]);
    let rows = |offset: usize, strides: [isize; 4]| Strides { offset, strides };
    let fits = rows(0, [0, 4, 1, 0]);
    for (from, to, tensor) in [
        (rows(1, [0, 4, 1, 0]), fits, "from"),
        (rows(3, [0, -4, 1, 0]), fits, "from"),
        (rows(0, [0, isize::MAX, isize::MAX, 0]), fits, "from"),
        (rows(usize::MAX, [0, 4, 1, 0]), fits, "from"),
        (fits, rows(1, [0, 4, 1, 0]), "to"),
        (fits, rows(0, [0, -4, 1, 0]), "to"),
        (fits, rows(0, [0, isize::MIN, 1, 0]), "to"),
        // Two indices for one element.
        (fits, rows(0, [0, 0, 1, 0]), "to"),
        (fits, rows(0, [0, 3, 1, 0]), "to"),
        (fits, rows(2, [0, 1, -1, 0]), "to"),
    ] {
        let mut out = Tensor::new(&backend, &[7.0; 12]);
        let result = backend.strided_copy([1, 3, 4, 1], x.get(), from, out.get_mut(), to, WeightGrad::Set);
        assert!(matches!(&result, Err(Error::Shape { tensor: t, .. }) if t == tensor), "{from:?} {to:?}: {result:?}");
        assert_eq!(out.values(&backend), [7.0; 12], "nothing was written");
    }
    // Axes of one index need no stride.
    let mut out = Tensor::new(&backend, &[7.0; 12]);
    backend.strided_copy([1, 3, 4, 1], x.get(), fits, out.get_mut(), fits, WeightGrad::Set).unwrap();
    assert_eq!(out.values(&backend), [1.0; 12]);
}

pub fn rows_of_a_matrix<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(3);
    for (rows, columns) in [(1, 1), (3, 5), (33, 4), (4, 129), (300, 7), (2, 0)] {
        let len = rows * columns;
        let (a, b) = (numbers::<B>(&mut rng, len, 2.0), numbers::<B>(&mut rng, len, 2.0));
        let mut factors = numbers::<B>(&mut rng, rows, 3.0);
        factors[rows / 2] = 0.0;
        let (ta, tf) = (Tensor::new(&backend, &a), Tensor::new(&backend, &factors));
        for inverse in [false, true] {
            let mut y = Tensor::poisoned(&backend, len);
            backend.scale_rows(tf.get(), inverse, ta.get(), y.get_mut()).unwrap();
            let scaled = |i: usize| match (inverse, factors[i / columns]) {
                (false, factor) => a[i] * factor,
                (true, 0.0) => 0.0,
                (true, factor) => a[i] / factor,
            };
            let expected: Vec<f64> = (0..len).map(scaled).collect();
            let what = format!("{rows} x {columns}, inverse {inverse}");
            close::<B>(&y.values(&backend), &expected, |i| 2.0 * sum_unit::<B>() * expected[i].abs(), &what);
        }
        // What is not selected does not leak.
        let mask: Vec<f64> = (0..rows).map(|_| if rng.chance(0.5) { 0.0 } else { rng.pick(&[1.0, -2.0]) }).collect();
        let hidden = |values: &[f64], hidden: bool| -> Vec<f64> {
            (0..len).map(|i| if (mask[i / columns] == 0.0) == hidden { f64::NAN } else { values[i] }).collect()
        };
        let (ta, tb, tm) = (
            Tensor::new(&backend, &hidden(&a, true)),
            Tensor::new(&backend, &hidden(&b, false)),
            Tensor::new(&backend, &mask),
        );
        for with_b in [false, true] {
            let mut out = Tensor::poisoned(&backend, len);
            backend.select_rows(tm.get(), ta.get(), with_b.then(|| tb.get()), out.get_mut()).unwrap();
            let other = |i: usize| if with_b { b[i] } else { 0.0 };
            let expected: Vec<f64> = (0..len).map(|i| if mask[i / columns] == 0.0 { other(i) } else { a[i] }).collect();
            assert_eq!(out.values(&backend), expected, "{rows} x {columns}, with b {with_b}");
        }
    }
}

// Along an axis.

/// Outer, count, inner.
const AXES: [[usize; 3]; 12] = [
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

pub fn sums_along_an_axis<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(4);
    for [outer, count, inner] in AXES {
        for (grad, alpha) in [(WeightGrad::Set, 1.0), (WeightGrad::Add, 1.0), (WeightGrad::Set, 0.3)] {
            let x = numbers::<B>(&mut rng, outer * count * inner, 2.0);
            let before = numbers::<B>(&mut rng, outer * inner, 2.0);
            let terms = |at: usize| (0..count).map(move |c| (at / inner * count + c) * inner + at % inner);
            let total = |at: usize| alpha * sum(terms(at).map(|i| x[i]));
            let expected: Vec<f64> = (0..outer * inner).map(|at| add_to(grad, before[at], total(at))).collect();
            let run = || {
                let mut y = Tensor::new(&backend, &start(grad, &before));
                let x = Tensor::new(&backend, &x);
                backend.sum_axis([outer, count, inner], alpha, x.get(), y.get_mut(), grad).unwrap();
                y.values(&backend)
            };
            let slack = |at: usize| {
                let magnitude = alpha * sum(terms(at).map(|i| x[i].abs())) + before[at].abs();
                (count + 3) as f64 * sum_unit::<B>() * magnitude
            };
            let what = format!("{outer} {count} {inner} {alpha} {grad:?}");
            close::<B>(&run(), &expected, slack, &what);
            assert_eq!(run(), run(), "{what} again");
        }
    }
}

pub fn maxima_along_an_axis<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(5);
    for [outer, count, inner] in AXES {
        for (with_mask, with_nan) in [(false, false), (true, false), (true, true)] {
            // Few values, so that there are equals.
            let value = |rng: &mut Rng| match with_nan && rng.chance(0.05) {
                true => f64::NAN,
                false => rng.pick(&[-3.0, -2.0, -1.5, -1.0, f64::NEG_INFINITY]),
            };
            let x: Vec<f64> = (0..outer * count * inner).map(|_| value(&mut rng)).collect();
            // The first row has no valid element.
            let valid = |rng: &mut Rng, i: usize| i >= count && rng.chance(0.5);
            let mask: Vec<f64> =
                (0..outer * count).map(|i| if valid(&mut rng, i) { rng.pick(&[1.0, -0.5]) } else { 0.0 }).collect();
            let dy = numbers::<B>(&mut rng, outer * inner, 2.0);
            let (mut y, mut position) = (vec![0.0; outer * inner], vec![NO_ROW; outer * inner]);
            let mut dx = vec![0.0; outer * count * inner];
            for at in 0..outer * inner {
                let index = |c: usize| (at / inner * count + c) * inner + at % inner;
                let mut valid = (0..count).filter(|c| !with_mask || mask[at / inner * count + c] != 0.0);
                let first_nan = valid.clone().find(|c| x[index(*c)].is_nan());
                let most = valid.clone().map(|c| x[index(c)]).fold(f64::NEG_INFINITY, f64::max);
                let best = first_nan.or_else(|| valid.find(|c| x[index(*c)] == most));
                if let Some(c) = best {
                    (y[at], position[at]) = (x[index(c)], c as u32);
                    dx[index(c)] = dy[at];
                }
            }
            let sizes = [outer, count, inner];
            let what = format!("{sizes:?}, mask {with_mask}, NaN {with_nan}");
            let mask = Tensor::new(&backend, &mask);
            let (mut got, mut place) = (Tensor::poisoned(&backend, y.len()), Rows::poisoned(&backend, y.len()));
            let x = Tensor::new(&backend, &x);
            let mask = with_mask.then(|| mask.get());
            backend.max_axis(sizes, x.get(), mask, got.get_mut(), place.get_mut()).unwrap();
            same(&got.values(&backend), &y, &what);
            assert_eq!(place.values(&backend), position, "{what}");
            let mut slope = Tensor::poisoned(&backend, dx.len());
            let dy = Tensor::new(&backend, &dy);
            backend.max_axis_gradient(sizes, dy.get(), place.0.borrow(), slope.get_mut()).unwrap();
            assert_eq!(slope.values(&backend), dx, "gradient of {what}");
        }
    }
}

// Softmax.

pub fn softmaxes<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(6);
    // Groups of rows that share a mask, rows of a group, columns.
    for (groups, by, columns) in [(1, 1, 1), (2, 3, 5), (3, 4, 33), (1, 7, 130), (5, 1, 32), (33, 2, 3)] {
        for (with_keys, causal) in
            [(false, None), (true, None), (false, Some(by)), (true, Some(2 * by)), (true, Some(1))]
        {
            let rows = groups * by;
            // Far from zero, where exp alone would overflow.
            let x: Vec<f64> = numbers::<B>(&mut rng, rows * columns, 3.0);
            let x: Vec<f64> = x.iter().map(|v| B::Elem::of(v + 200.0).wide()).collect();
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
                let mut y = Tensor::poisoned(&backend, x.len());
                let (x, keys) = (Tensor::new(&backend, x), Tensor::new(&backend, &keys));
                let mask = SoftmaxMask::<B> { keys: with_keys.then(|| (keys.get(), by)), causal };
                backend.softmax(columns, x.get(), mask, y.get_mut()).unwrap();
                y
            };
            let y = run(&hidden);
            let got = y.values(&backend);
            // A difference of at most 8 (of elements near 200 in bf16 too), whose rounding the function multiplies by it, the function,
            // a sum and a quotient; twice, for numerator and total.
            let slack = |i: usize| (columns as f64 + 40.0) * sum_unit::<B>() * expected[i];
            close::<B>(&got, &expected, slack, &what);
            assert!((0..x.len()).all(|i| valid(i) || got[i] == 0.0), "{what}: zero where nothing counts");
            assert_eq!(got, run(&hidden).values(&backend), "{what} again");

            let dy = numbers::<B>(&mut rng, x.len(), 2.0);
            let mut dx = Tensor::poisoned(&backend, x.len());
            backend.softmax_gradient(columns, y.get(), Tensor::new(&backend, &dy).get(), dx.get_mut()).unwrap();
            let products = |row: usize| (row * columns..(row + 1) * columns).map(|i| got[i] * dy[i]);
            let slopes: Vec<f64> = (0..x.len()).map(|i| got[i] * (dy[i] - sum(products(i / columns)))).collect();
            let slack = |i: usize| {
                let magnitude = dy[i].abs() + sum(products(i / columns).map(f64::abs));
                (columns as f64 + 4.0) * sum_unit::<B>() * got[i] * magnitude
            };
            close::<B>(&dx.values(&backend), &slopes, slack, &format!("gradient of {what}"));

            // A NaN that counts makes all of its row NaN that counts, and nothing else.
            if let Some(bad) = (0..x.len()).find(|i| valid(*i)) {
                let mut x = hidden.clone();
                x[bad] = f64::NAN;
                let with_nan = run(&x).values(&backend);
                for i in 0..x.len() {
                    let counts = i / columns == bad / columns && valid(i);
                    assert!(if counts { with_nan[i].is_nan() } else { with_nan[i] == got[i] }, "{what}: NaN, {i}");
                }
            }
        }
    }
}

// Products.

pub fn batched_products<B: DenseBackend>(backend: B) {
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
            for (count, alpha, grad) in
                [(1, 1.0, WeightGrad::Set), (3, 0.3, WeightGrad::Set), (2, -1.5, WeightGrad::Add)]
            {
                let a = numbers::<B>(&mut rng, count * m * k, 1.0);
                let b = numbers::<B>(&mut rng, count * k * n, 1.0);
                let before = numbers::<B>(&mut rng, count * m * n, 1.0);
                let at_a = |l: usize, i: usize| if orientation == Orientation::Tn { l * m + i } else { i * k + l };
                let at_b = |l: usize, j: usize| if orientation == Orientation::Nt { j * k + l } else { l * n + j };
                let term = |at: usize, l: usize| {
                    let (product, i, j) = (at / (m * n), at / n % m, at % n);
                    a[product * m * k + at_a(l, i)] * b[product * n * k + at_b(l, j)]
                };
                let total = |at: usize| alpha * sum((0..k).map(|l| term(at, l)));
                let expected: Vec<f64> = (0..before.len()).map(|at| add_to(grad, before[at], total(at))).collect();
                let product = Product { orientation, m, n, k };
                let run = || {
                    let mut c = Tensor::new(&backend, &start(grad, &before));
                    let (a, b) = (Tensor::new(&backend, &a), Tensor::new(&backend, &b));
                    backend.batched_gemm(count, product, alpha, a.get(), b.get(), c.get_mut(), grad).unwrap();
                    c.values(&backend)
                };
                let slack = |at: usize| {
                    let magnitude = alpha.abs() * sum((0..k).map(|l| term(at, l).abs())) + before[at].abs();
                    (k + 4) as f64 * sum_unit::<B>() * magnitude
                };
                let what = format!("{count} {product:?} {alpha} {grad:?}");
                close::<B>(&run(), &expected, slack, &what);
                assert_eq!(run(), run(), "{what} again");
            }
        }
    }
}

// Normalisation. The functions in f64, whose gradients are checked against differences below.

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
    fn judge<B: DenseBackend>(&self, got: &[f64], what: &str) {
        let slack = |c: usize| (self.terms + 6) as f64 * sum_unit::<B>() * self.magnitudes[c];
        close::<B>(got, &self.values, slack, what);
    }
}

/// Rows and columns; of the last ones the rows are summed in pieces.
const MATRICES: [(usize, usize); 9] =
    [(1, 1), (1, 5), (3, 5), (9, 33), (130, 4), (33, 64), (2, 130), (300, 40), (600, 3)];

pub fn layer_normalization<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(9);
    let s = sum_unit::<B>();
    for (rows, columns) in MATRICES {
        for (with_scale, grad) in [(true, WeightGrad::Set), (false, WeightGrad::Set), (true, WeightGrad::Add)] {
            let (epsilon, len) = (0.01, rows * columns);
            let (x, dy) = (numbers::<B>(&mut rng, len, 2.0), numbers::<B>(&mut rng, len, 1.0));
            let (gamma, beta) = (numbers::<B>(&mut rng, columns, 2.0), numbers::<B>(&mut rng, columns, 1.0));
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

            let (tx, tg, tb) = (Tensor::new(&backend, &x), Tensor::new(&backend, &gamma), Tensor::new(&backend, &beta));
            let (mut y, mut statistics) = (Tensor::poisoned(&backend, len), Tensor::poisoned(&backend, 2 * rows));
            let (g, b) = (with_scale.then(|| tg.get()), with_scale.then(|| tb.get()));
            backend.layer_norm(columns, epsilon, tx.get(), g, b, y.get_mut(), statistics.get_mut()).unwrap();
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
            close::<B>(&y.values(&backend), &expected, slack, &what);
            let kept = statistics.values(&backend);
            let expected: Vec<f64> = truth.iter().flat_map(|(mean, inverse)| [*mean, *inverse]).collect();
            let slack = |i: usize| if i.is_multiple_of(2) { errors[i / 2].0 } else { errors[i / 2].1 * expected[i] };
            close::<B>(&kept, &expected, slack, &format!("statistics of {what}"));

            // Backward reads what was kept.
            let slope = |i: usize| dy[i] * scale(i % columns);
            let of_row = |r: usize| (kept[2 * r], kept[2 * r + 1]);
            let slopes: Vec<f64> = (0..len).map(slope).collect();
            let dx: Vec<f64> = (0..rows).flat_map(|r| row_gradient(&row(&x, r), &row(&slopes, r), of_row(r))).collect();
            let magnitude = |i: usize| (x[i].abs() + of_row(i / columns).0.abs()) * of_row(i / columns).1;
            let before = numbers::<B>(&mut rng, columns, 1.0);
            let dgamma = Totals::new(grad, &before, rows, |r, c| {
                let (i, (mean, inverse)) = (r * columns + c, of_row(r));
                (dy[i] * (x[i] - mean) * inverse, dy[i].abs() * magnitude(i))
            });
            let dbeta = Totals::new(grad, &before, rows, |r, c| (dy[r * columns + c], dy[r * columns + c].abs()));
            let run = |with_dx: bool, with_totals: bool| {
                let mut out = Tensor::poisoned(&backend, len);
                let mut of_gamma = Tensor::new(&backend, &start(grad, &before));
                let mut of_beta = Tensor::new(&backend, &start(grad, &before));
                let mut space = workspace(&backend, DenseCall::Normalization { rows, columns });
                backend
                    .layer_norm_gradient(
                        columns,
                        tx.get(),
                        g,
                        statistics.get(),
                        Tensor::new(&backend, &dy).get(),
                        with_dx.then(|| out.get_mut()),
                        with_totals.then(|| of_gamma.get_mut()),
                        with_totals.then(|| of_beta.get_mut()),
                        grad,
                        space.get_mut(),
                    )
                    .unwrap();
                [out, of_gamma, of_beta].map(|tensor| tensor.values(&backend))
            };
            let got = run(true, true);
            let slack = |i: usize| {
                let r = i / columns;
                let all =
                    |f: &dyn Fn(usize) -> f64| largest(&(r * columns..(r + 1) * columns).map(f).collect::<Vec<_>>());
                let (most_slope, most_normal) = (all(&slope), all(&magnitude));
                (columns as f64 + 12.0) * s * of_row(r).1 * most_slope * (2.0 + 2.0 * most_normal * most_normal)
            };
            close::<B>(&got[0], &dx, slack, &format!("dx of {what}"));
            dgamma.judge::<B>(&got[1], &format!("dgamma of {what}"));
            dbeta.judge::<B>(&got[2], &format!("dbeta of {what}"));
            assert_eq!(got, run(true, true), "{what} again");
            same(&run(true, false)[0], &got[0], &format!("dx alone of {what}"));
            assert_eq!(run(false, true)[1..], got[1..], "totals alone of {what}");
        }
    }
}

pub fn batch_normalization<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(10);
    let s = sum_unit::<B>();
    for (rows, columns) in MATRICES {
        for (weighted, with_scale, grad) in
            [(false, true, WeightGrad::Set), (true, true, WeightGrad::Add), (true, false, WeightGrad::Set)]
        {
            let (epsilon, len) = (0.01, rows * columns);
            let (x, dy) = (numbers::<B>(&mut rng, len, 2.0), numbers::<B>(&mut rng, len, 1.0));
            let (gamma, beta) = (numbers::<B>(&mut rng, columns, 2.0), numbers::<B>(&mut rng, columns, 1.0));
            let weight = |rng: &mut Rng| if rng.chance(0.4) { 0.0 } else { rng.pick(&[1.0, 0.5, 2.0]) };
            let mut weights: Vec<f64> = (0..rows).map(|_| if weighted { weight(&mut rng) } else { 1.0 }).collect();
            weights[rows - 1] = 1.0;
            let total = sum(weights.iter().copied());
            let column = |values: &[f64], c: usize| (0..rows).map(|r| values[r * columns + c]).collect::<Vec<_>>();
            let what = format!("{rows} x {columns}, weighted {weighted}, scale {with_scale} {grad:?}");
            let (tx, of_rows) = (Tensor::new(&backend, &x), Tensor::new(&backend, &weights));
            let tw = weighted.then(|| of_rows.get());

            let (mut mean, mut variance) = (Tensor::poisoned(&backend, columns), Tensor::poisoned(&backend, columns));
            backend.column_moments(columns, tx.get(), tw, mean.get_mut(), variance.get_mut()).unwrap();
            let truth: Vec<(f64, f64)> = (0..columns).map(|c| column_moments(&column(&x, c), &weights)).collect();
            let terms = rows as f64 + 4.0;
            let of_mean = |c: usize| 2.0 * terms * s * largest(&column(&x, c));
            let of_variance = |c: usize| {
                let most = column(&x, c).into_iter().zip(&weights).filter(|(_, w)| **w != 0.0);
                let most = most.map(|(x, _)| (x - truth[c].0).abs()).fold(0.0, f64::max) + of_mean(c);
                2.0 * of_mean(c) * most + 2.0 * terms * s * truth[c].1
            };
            let (means, variances): (Vec<f64>, Vec<f64>) = truth.iter().copied().unzip();
            close::<B>(&mean.values(&backend), &means, of_mean, &format!("mean of {what}"));
            close::<B>(&variance.values(&backend), &variances, of_variance, &format!("variance of {what}"));

            // The others read what they are given.
            let (means, variances) = (mean.values(&backend), variance.values(&backend));
            let (tg, tb) = (Tensor::new(&backend, &gamma), Tensor::new(&backend, &beta));
            let (g, b) = (with_scale.then(|| tg.get()), with_scale.then(|| tb.get()));
            let scale = |c: usize| if with_scale { gamma[c] } else { 1.0 };
            let shift = |c: usize| if with_scale { beta[c] } else { 0.0 };
            let inverse = |c: usize| 1.0 / (variances[c] + epsilon).sqrt();
            let magnitude = |i: usize| (x[i].abs() + means[i % columns].abs()) * inverse(i % columns);
            let mut y = Tensor::poisoned(&backend, len);
            backend.batch_norm(columns, epsilon, tx.get(), mean.get(), variance.get(), g, b, y.get_mut()).unwrap();
            let expected: Vec<f64> = (0..len)
                .map(|i| (x[i] - means[i % columns]) * inverse(i % columns) * scale(i % columns) + shift(i % columns))
                .collect();
            let slack = |i: usize| 8.0 * s * (magnitude(i) * scale(i % columns).abs() + shift(i % columns).abs());
            close::<B>(&y.values(&backend), &expected, slack, &what);

            let gradients: Vec<Vec<f64>> = (0..columns)
                .map(|c| {
                    let slopes: Vec<f64> = column(&dy, c).iter().map(|dy| dy * scale(c)).collect();
                    column_gradient(&column(&x, c), &weights, &slopes, (means[c], variances[c]), epsilon)
                })
                .collect();
            let dx: Vec<f64> = (0..len).map(|i| gradients[i % columns][i / columns]).collect();
            let before = numbers::<B>(&mut rng, columns, 1.0);
            let dgamma = Totals::new(grad, &before, rows, |r, c| {
                let i = r * columns + c;
                (dy[i] * (x[i] - means[c]) * inverse(c), dy[i].abs() * magnitude(i) * 2.0)
            });
            let dbeta = Totals::new(grad, &before, rows, |r, c| (dy[r * columns + c], dy[r * columns + c].abs()));
            let run = |with_dx: bool, with_totals: bool| {
                let mut out = Tensor::poisoned(&backend, len);
                let mut of_gamma = Tensor::new(&backend, &start(grad, &before));
                let mut of_beta = Tensor::new(&backend, &start(grad, &before));
                let mut space = workspace(&backend, DenseCall::Normalization { rows, columns });
                backend
                    .batch_norm_gradient(
                        columns,
                        epsilon,
                        tx.get(),
                        tw,
                        mean.get(),
                        variance.get(),
                        g,
                        Tensor::new(&backend, &dy).get(),
                        with_dx.then(|| out.get_mut()),
                        with_totals.then(|| of_gamma.get_mut()),
                        with_totals.then(|| of_beta.get_mut()),
                        grad,
                        space.get_mut(),
                    )
                    .unwrap();
                [out, of_gamma, of_beta].map(|tensor| tensor.values(&backend))
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
            close::<B>(&got[0], &dx, slack, &format!("dx of {what}"));
            dgamma.judge::<B>(&got[1], &format!("dgamma of {what}"));
            dbeta.judge::<B>(&got[2], &format!("dbeta of {what}"));
            assert_eq!(got, run(true, true), "{what} again");
            same(&run(true, false)[0], &got[0], &format!("dx alone of {what}"));
            assert_eq!(run(false, true)[1..], got[1..], "totals alone of {what}");
        }
    }
    // Where no row counts, and where there are none.
    for (rows, weights) in [(3, vec![0.0; 3]), (0, vec![])] {
        let x = Tensor::new(&backend, &vec![1.5; rows * 2]);
        let (mut mean, mut variance) = (Tensor::poisoned(&backend, 2), Tensor::poisoned(&backend, 2));
        let weights = Tensor::new(&backend, &weights);
        backend.column_moments(2, x.get(), Some(weights.get()), mean.get_mut(), variance.get_mut()).unwrap();
        assert_eq!((mean.values(&backend), variance.values(&backend)), (vec![0.0; 2], vec![0.0; 2]));
        let (mut dx, mut dgamma) = (Tensor::poisoned(&backend, rows * 2), Tensor::poisoned(&backend, 2));
        let mut space = workspace(&backend, DenseCall::Normalization { rows, columns: 2 });
        let (m, v) = (mean.get(), variance.get());
        let (w, out, of_gamma) = (Some(weights.get()), Some(dx.get_mut()), Some(dgamma.get_mut()));
        let (grad, space) = (WeightGrad::Set, space.get_mut());
        backend
            .batch_norm_gradient(2, 0.25, x.get(), w, m, v, None, x.get(), out, of_gamma, None, grad, space)
            .unwrap();
        // dy / sqrt(0.25), and the sum of 1.5 * 1.5 / 0.5.
        assert_eq!(dx.values(&backend), vec![3.0; rows * 2]);
        assert_eq!(dgamma.values(&backend), vec![4.5 * rows as f64; 2]);
    }
}

// Masks and lists of rows.

pub fn masks_of_a_value<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(11);
    for (rows, columns) in [(5, 1), (130, 1), (7, 3), (40, 33), (130, 31), (3, 100), (9, 32), (0, 4)] {
        for value in [0.0, -1.0, 0.1] {
            let held = B::Elem::of(value).wide();
            let mut x = vec![held; rows * columns];
            let mut expected = vec![0.0; rows];
            for r in 0..rows {
                if rng.chance(0.5) {
                    x[r * columns + rng.below(columns)] = rng.pick(&[held + 0.5, f64::NAN, f64::INFINITY]);
                    expected[r] = 1.0;
                }
            }
            let mut mask = Tensor::poisoned(&backend, rows);
            backend.mask_not_equal(columns, Tensor::new(&backend, &x).get(), value, mask.get_mut()).unwrap();
            assert_eq!(mask.values(&backend), expected, "{rows} x {columns}, {value}");
        }
    }
}

/// The five lists of a mask, from their definitions.
struct Order {
    rows: Vec<u32>,
    inverse: Vec<u32>,
    hold: Vec<u32>,
    lengths: Vec<u32>,
    any: Vec<f64>,
}

impl Order {
    fn new(steps: usize, reverse: bool, mask: &[f64]) -> Self {
        let mut order = Order { rows: vec![], inverse: vec![], hold: vec![], lengths: vec![], any: vec![] };
        for (b, mask) in mask.chunks(steps).enumerate() {
            let row = |t: usize| (b * steps + t) as u32;
            let valid: Vec<usize> = (0..steps).filter(|t| mask[*t] != 0.0).collect();
            let place = |t: usize| valid.iter().position(|v| *v == t);
            let or_none = |place: Option<usize>| place.map_or(NO_ROW, row);
            order.rows.extend((0..steps).map(|p| valid.get(p).map_or(NO_ROW, |t| row(*t))));
            order.inverse.extend((0..steps).map(|t| or_none(place(t))));
            order.hold.extend((0..steps).map(|t| match reverse {
                false => or_none((0..=t).rev().find_map(place)),
                true => or_none((t..steps).find_map(place)),
            }));
            order.lengths.push(valid.len().max(1) as u32);
            order.any.push(f64::from(!valid.is_empty()));
        }
        order
    }
}

pub fn orders_of_masks<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(12);
    for (batch, steps) in [(1, 1), (2, 5), (4, 31), (3, 32), (5, 33), (3, 70), (9, 3)] {
        for (reverse, density) in [(false, 0.5), (true, 0.5), (false, 0.05), (true, 0.05), (false, 1.0), (true, 0.0)] {
            let mask: Vec<f64> =
                (0..batch * steps).map(|_| if rng.chance(density) { rng.pick(&[1.0, -0.5]) } else { 0.0 }).collect();
            let expected = Order::new(steps, reverse, &mask);
            let what = format!("{batch} x {steps}, reverse {reverse}, density {density}");
            let list = || Rows::<B>::poisoned(&backend, batch * steps);
            let (mut rows, mut inverse, mut hold) = (list(), list(), list());
            let (mut lengths, mut any) = (Rows::<B>::poisoned(&backend, batch), Tensor::poisoned(&backend, batch));
            let order = MaskOrder::<B> {
                rows: rows.get_mut(),
                inverse: inverse.get_mut(),
                hold: hold.get_mut(),
                lengths: lengths.get_mut(),
                any: any.get_mut(),
            };
            backend.mask_order(steps, reverse, Tensor::new(&backend, &mask).get(), order).unwrap();
            assert_eq!(rows.values(&backend), expected.rows, "rows of {what}");
            assert_eq!(inverse.values(&backend), expected.inverse, "inverse of {what}");
            assert_eq!(hold.values(&backend), expected.hold, "hold of {what}");
            assert_eq!(lengths.values(&backend), expected.lengths, "lengths of {what}");
            assert_eq!(any.values(&backend), expected.any, "any of {what}");

            for width in [1, 5, 33] {
                let x = numbers::<B>(&mut rng, batch * steps * width, 2.0);
                let picked = |list: &[u32]| -> Vec<f64> {
                    let row = |row: &u32| match *row {
                        NO_ROW => vec![0.0; width],
                        row => x[row as usize * width..][..width].to_vec(),
                    };
                    list.iter().flat_map(row).collect()
                };
                for list in [&rows, &inverse, &hold] {
                    let mut out = Tensor::poisoned(&backend, x.len());
                    backend.pick_rows(width, Tensor::new(&backend, &x).get(), list.0.borrow(), out.get_mut()).unwrap();
                    assert_eq!(out.values(&backend), picked(&list.values(&backend)), "{what}, width {width}");
                }
                // The gradient of picking what is held, x being that of what was picked.
                let (mut sums, mut magnitudes) = (vec![0.0; x.len()], vec![0.0; x.len()]);
                for (at, held) in expected.hold.iter().enumerate().filter(|(_, held)| **held != NO_ROW) {
                    for f in 0..width {
                        sums[*held as usize * width + f] += x[at * width + f];
                        magnitudes[*held as usize * width + f] += x[at * width + f].abs();
                    }
                }
                let mut dx = Tensor::poisoned(&backend, x.len());
                let dy = Tensor::new(&backend, &x);
                backend.hold_gradient(steps, width, hold.0.borrow(), dy.get(), dx.get_mut()).unwrap();
                let slack = |i: usize| steps as f64 * sum_unit::<B>() * magnitudes[i];
                close::<B>(&dx.values(&backend), &sums, slack, &format!("gradient of {what}, width {width}"));
            }
        }
    }
}

/// On the host an error, on a device a row of NaN.
pub fn rows_outside<B: DenseBackend>(backend: B) {
    let from = Tensor::new(&backend, &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
    let mut out = Tensor::poisoned(&backend, 8);
    let result =
        backend.pick_rows(2, from.get(), Rows::<B>::new(&backend, &[2, NO_ROW, 3, 0]).0.borrow(), out.get_mut());
    if out.get().on_host().is_some() {
        let error = result.unwrap_err();
        assert!(matches!(&error, Error::InvalidOption { option, .. } if option == "rows[2]"), "{error}");
        return;
    }
    result.unwrap();
    same(&out.values(&backend), &[5.0, 6.0, 0.0, 0.0, f64::NAN, f64::NAN, 1.0, 2.0], "rows");
}

pub fn numbers_as_indices<B: DenseBackend>(backend: B) {
    let mut rng = Rng::new(13);
    for len in SIZES {
        let rows = 100;
        let expected: Vec<u32> = (0..len).map(|_| rng.below(rows) as u32).collect();
        let x: Vec<f64> = expected.iter().map(|i| f64::from(*i)).collect();
        let (mut out, mut record) = (Rows::poisoned(&backend, len), Record::new(&backend));
        let tensor = Tensor::new(&backend, &x);
        backend.indices(rows, tensor.get(), out.get_mut(), 7, record.0.borrow_mut()).unwrap();
        assert_eq!(out.values(&backend), expected);
        assert_eq!(record.read(&backend), Report::default());
        for bad in [-1.0, 0.5, 100.0, f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let (at, mut x) = (len / 2, x.clone());
            x[at] = bad;
            let tensor = Tensor::new(&backend, &x);
            let (mut out, mut record) = (Rows::poisoned(&backend, len), Record::new(&backend));
            let result = backend.indices(rows, tensor.get(), out.get_mut(), 7, record.0.borrow_mut());
            if tensor.get().on_host().is_some() {
                let error = result.unwrap_err();
                let named = matches!(&error, Error::InvalidOption { option, .. } if *option == format!("element {at}"));
                assert!(named, "{bad}: {error}");
                continue;
            }
            result.unwrap();
            let mut expected = expected.clone();
            expected[at] = 0;
            assert_eq!(out.values(&backend), expected, "{bad}");
            // The first code stays.
            let code = backend.indices(rows, tensor.get(), out.get_mut(), 8, record.0.borrow_mut());
            code.unwrap();
            assert_eq!(record.read(&backend), Report { bad_index: Some(7), ..Report::default() }, "{bad}");
        }
    }
}

// What does not fit.

pub fn wrong_lengths<B: DenseBackend>(backend: B) {
    let tensor = |len: usize| Tensor::<B>::new(&backend, &vec![1.0; len]);
    let (a, mut out, mut other, mut space) = (tensor(6), tensor(5), tensor(6), tensor(4096));
    let six = || Rows::<B>::new(&backend, &[0; 6]);
    let (lists, mut five) = (six(), Rows::<B>::new(&backend, &[9; 5]));
    let mut record = Record::new(&backend);
    let set = WeightGrad::Set;
    let is_shape = |result: fused_rnn::Result<()>| assert!(matches!(result, Err(Error::Shape { .. })), "{result:?}");
    let is_zero = |result: fused_rnn::Result<()>| assert!(matches!(result, Err(Error::ZeroSize { .. })), "{result:?}");
    let all = || SoftmaxMask::<B> { keys: None, causal: None };
    is_shape(backend.scale_add(1.0, a.get(), 1.0, out.get_mut()));
    is_shape(backend.sum_axis([2, 3, 1], 1.0, a.get(), out.get_mut(), set));
    is_shape(backend.sum_axis([5, 3, 1], 1.0, a.get(), out.get_mut(), set));
    let huge = backend.sum_axis([usize::MAX, 2, 1], 1.0, a.get(), out.get_mut(), set);
    assert!(matches!(huge, Err(Error::SizeOverflow { .. })), "{huge:?}");
    is_shape(backend.max_axis([6, 1, 1], a.get(), None, other.get_mut(), five.get_mut()));
    is_shape(backend.max_axis([6, 1, 1], a.get(), Some(out.get()), other.get_mut(), six().get_mut()));
    is_shape(backend.max_axis_gradient([6, 1, 1], a.get(), five.0.borrow(), other.get_mut()));
    is_shape(backend.max_axis_gradient([6, 1, 1], a.get(), lists.0.borrow(), out.get_mut()));
    is_shape(backend.scale_rows(tensor(4).get(), false, a.get(), other.get_mut()));
    is_shape(backend.scale_rows(tensor(0).get(), false, a.get(), other.get_mut()));
    is_shape(backend.scale_rows(tensor(2).get(), false, a.get(), out.get_mut()));
    is_shape(backend.select_rows(tensor(4).get(), a.get(), None, other.get_mut()));
    is_shape(backend.select_rows(tensor(2).get(), a.get(), Some(out.get()), other.get_mut()));
    is_shape(backend.select_rows(tensor(2).get(), a.get(), None, out.get_mut()));
    is_shape(backend.softmax(4, a.get(), all(), other.get_mut()));
    is_shape(backend.softmax(3, a.get(), all(), out.get_mut()));
    is_zero(backend.softmax(0, a.get(), all(), other.get_mut()));
    is_zero(backend.softmax(3, a.get(), SoftmaxMask { keys: None, causal: Some(0) }, other.get_mut()));
    for (len, by) in [(6, 0), (6, 2), (3, 1), (2, 4)] {
        let keys = tensor(len);
        is_shape(backend.softmax(
            3,
            a.get(),
            SoftmaxMask { keys: Some((keys.get(), by)), causal: None },
            other.get_mut(),
        ));
    }
    is_shape(backend.softmax_gradient(3, a.get(), out.get(), other.get_mut()));
    let product = Product { orientation: Orientation::Nn, m: 1, n: 3, k: 2 };
    is_shape(backend.batched_gemm(3, product, 1.0, a.get(), a.get(), other.get_mut(), set));
    is_shape(backend.batched_gemm(2, product, 1.0, tensor(4).get(), tensor(12).get(), out.get_mut(), set));
    is_shape(backend.layer_norm(3, 0.1, a.get(), Some(out.get()), None, other.get_mut(), tensor(4).get_mut()));
    is_shape(backend.layer_norm(3, 0.1, a.get(), None, None, out.get_mut(), tensor(4).get_mut()));
    is_shape(backend.layer_norm(3, 0.1, a.get(), None, None, other.get_mut(), tensor(5).get_mut()));
    let (s, w) = (tensor(4), space.get_mut());
    is_shape(backend.layer_norm_gradient(3, a.get(), None, s.get(), out.get(), None, None, None, set, w));
    let dgamma = Some(out.get_mut());
    is_shape(backend.layer_norm_gradient(3, a.get(), None, s.get(), a.get(), None, dgamma, None, set, w));
    let (mut mean, three) = (tensor(3), tensor(3));
    is_shape(backend.column_moments(3, a.get(), Some(three.get()), mean.get_mut(), tensor(3).get_mut()));
    is_shape(backend.column_moments(3, a.get(), None, mean.get_mut(), out.get_mut()));
    let (m, v) = (mean.get(), three.get());
    is_shape(backend.batch_norm(3, 0.1, a.get(), m, v, None, Some(s.get()), other.get_mut()));
    let dx = Some(out.get_mut());
    is_shape(backend.batch_norm_gradient(3, 0.1, a.get(), None, m, v, None, a.get(), dx, None, None, set, w));
    is_shape(backend.mask_not_equal(3, a.get(), 0.0, out.get_mut()));
    is_zero(backend.mask_not_equal(0, a.get(), 0.0, out.get_mut()));
    let (mut r, mut i, mut h, mut l, mut any) = (six(), six(), six(), Rows::<B>::new(&backend, &[9; 3]), tensor(2));
    let order = MaskOrder::<B> {
        rows: r.get_mut(),
        inverse: i.get_mut(),
        hold: h.get_mut(),
        lengths: l.get_mut(),
        any: any.get_mut(),
    };
    is_shape(backend.mask_order(3, false, a.get(), order));
    is_shape(backend.pick_rows(2, a.get(), lists.0.borrow(), out.get_mut()));
    is_shape(backend.hold_gradient(3, 1, lists.0.borrow(), a.get(), out.get_mut()));
    is_shape(backend.hold_gradient(4, 1, lists.0.borrow(), a.get(), other.get_mut()));
    is_shape(backend.indices(3, a.get(), five.get_mut(), 1, record.0.borrow_mut()));
    assert_eq!(out.values(&backend), vec![1.0; 5], "nothing was written");
    assert_eq!((other.values(&backend), mean.values(&backend)), (vec![1.0; 6], vec![1.0; 3]), "nothing was written");
    assert_eq!((five.values(&backend), l.values(&backend)), (vec![9; 5], vec![9; 3]), "nothing was written");
}

/// A device needs scratch space for the sums of rows, and says how much.
pub fn too_little_workspace<B: DenseBackend>(backend: B) {
    let call = DenseCall::Normalization { rows: 2, columns: 3 };
    let needed = backend.dense_workspace(call);
    let (x, statistics, mut dbeta) =
        (Tensor::new(&backend, &[1.0; 6]), Tensor::new(&backend, &[1.0; 4]), Tensor::poisoned(&backend, 3));
    let mut space = Tensor::poisoned(&backend, needed.saturating_sub(1));
    let (out, space, set) = (Some(dbeta.get_mut()), space.get_mut(), WeightGrad::Set);
    let result = backend.layer_norm_gradient(3, x.get(), None, statistics.get(), x.get(), None, None, out, set, space);
    assert_eq!(needed == 0, x.get().on_host().is_some());
    assert_eq!(matches!(&result, Err(Error::Shape { tensor, .. }) if tensor == "workspace"), needed > 0, "{result:?}");
    assert!(needed > 0 || unit::<B>() > 0.0 && dbeta.values(&backend) == [2.0; 3]);
}
