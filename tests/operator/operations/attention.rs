//! Attention. The function and its gradients stand here in f64, over all pairs of a query and a key.

use super::*;
use fused_rnn::backend::ops::{AttentionGradients, AttentionInputs, AttentionShape};

/// An attention in f64.
struct Expected {
    y: Vec<f64>,
    dquery: Vec<f64>,
    dkey: Vec<f64>,
    dvalue: Vec<f64>,
}

struct Numbers {
    query: Vec<f64>,
    key: Vec<f64>,
    value: Vec<f64>,
    mask: Option<Vec<f64>>,
    dy: Vec<f64>,
}

fn expected(shape: AttentionShape, alpha: f64, of: &Numbers) -> Expected {
    let AttentionShape { batch, heads, queries, keys, key_dim, value_dim, causal } = shape;
    let mut to = Expected {
        y: vec![0.0; of.dy.len()],
        dquery: vec![0.0; of.query.len()],
        dkey: vec![0.0; of.key.len()],
        dvalue: vec![0.0; of.value.len()],
    };
    for (b, h, i) in (0..batch).flat_map(|b| (0..heads).flat_map(move |h| (0..queries).map(move |i| (b, h, i)))) {
        let at = |row: usize, width: usize, d: usize| (row * heads + h) * width + d;
        let sees = |j: &usize| (!causal || *j <= i) && of.mask.as_ref().is_none_or(|mask| mask[b * keys + *j] != 0.0);
        let seen: Vec<usize> = (0..keys).filter(sees).collect();
        let (q, k) = (b * queries + i, |j: usize| b * keys + j);
        let score =
            |j: usize| alpha * sum((0..key_dim).map(|d| of.query[at(q, key_dim, d)] * of.key[at(k(j), key_dim, d)]));
        let most = seen.iter().map(|j| score(*j)).fold(f64::NEG_INFINITY, f64::max);
        let total = sum(seen.iter().map(|j| (score(*j) - most).exp()));
        let weights: Vec<f64> = seen.iter().map(|j| (score(*j) - most).exp() / total).collect();
        let slopes: Vec<f64> = seen
            .iter()
            .map(|j| sum((0..value_dim).map(|d| of.dy[at(q, value_dim, d)] * of.value[at(k(*j), value_dim, d)])))
            .collect();
        let mean = sum(weights.iter().zip(&slopes).map(|(w, g)| w * g));
        for ((j, w), g) in seen.iter().zip(&weights).zip(&slopes) {
            for d in 0..value_dim {
                to.y[at(q, value_dim, d)] += w * of.value[at(k(*j), value_dim, d)];
                to.dvalue[at(k(*j), value_dim, d)] += w * of.dy[at(q, value_dim, d)];
            }
            let ds = alpha * w * (g - mean);
            for d in 0..key_dim {
                to.dquery[at(q, key_dim, d)] += ds * of.key[at(k(*j), key_dim, d)];
                to.dkey[at(k(*j), key_dim, d)] += ds * of.query[at(q, key_dim, d)];
            }
        }
    }
    to
}

/// Masks of the keys: none, the first sample sees no key, padding at the end, and gaps with the first keys absent, so that a causal query sees none.
fn masks(batch: usize, keys: usize) -> [Option<Vec<f64>>; 3] {
    let of = |sees: &dyn Fn(usize, usize) -> bool| {
        (0..batch * keys).map(|i| f64::from(u8::from(sees(i / keys, i % keys)))).collect::<Vec<_>>()
    };
    [
        None,
        Some(of(&|b, j| b > 0 && j <= keys * b / batch)),
        Some(of(&|b, j| j > b % 3 && j % 4 != 3).iter().map(|m| -2.0 * m).collect()),
    ]
}

pub fn attentions(device: &Device) {
    let mut rng = Rng::new(16);
    let mut sizes =
        vec![[1, 1, 1, 1, 1, 1], [2, 3, 5, 7, 3, 2], [3, 2, 33, 17, 8, 8], [2, 1, 17, 40, 20, 5], [1, 4, 9, 4, 16, 33]];
    if device.is_host() {
        // Worth several threads.
        sizes.push([7, 2, 67, 129, 16, 18]);
    }
    for [batch, heads, queries, keys, key_dim, value_dim] in sizes {
        for causal in [false, true] {
            for mask in masks(batch, keys) {
                let shape = AttentionShape { batch, heads, queries, keys, key_dim, value_dim, causal };
                let what = format!("{shape:?}, mask {:?}", mask.as_ref().map(|mask| &mask[..keys]));
                let mut draw = |len: usize| numbers(device, &mut rng, len, 1.5);
                let of = Numbers {
                    query: draw(batch * queries * heads * key_dim),
                    key: draw(batch * keys * heads * key_dim),
                    value: draw(batch * keys * heads * value_dim),
                    mask,
                    dy: draw(batch * queries * heads * value_dim),
                };
                let alpha = 0.8 / (key_dim as f64).sqrt();
                let expected = expected(shape, alpha, &of);
                let (query, key, value) =
                    (Tensor::new(device, &of.query), Tensor::new(device, &of.key), Tensor::new(device, &of.value));
                let mask = of.mask.as_ref().map(|mask| Tensor::new(device, mask));
                let inputs = || AttentionInputs {
                    query: query.get(),
                    key: key.get(),
                    value: value.get(),
                    mask: mask.as_ref().map(Tensor::get),
                };
                let mut y = Tensor::poisoned(device, of.dy.len());
                let mut statistics = Tensor::poisoned(device, batch * queries * heads * 2);
                let mut space = workspace(device, Workspace::Attention(shape));
                let (to, rows) = (y.get_mut(), statistics.get_mut());
                device.attention(shape, alpha, inputs(), to, rows, space.get_mut()).unwrap();
                // Roundings of the sums; of what is stored in between, of which scores of at most 6 change weights by their error.
                let error = (keys + queries + key_dim + value_dim + 60) as f64 * sum_unit(device) + 12.0 * unit(device);
                close(device, &y.values(), &expected.y, |_| 1.5 * error, &what);

                let dy = Tensor::new(device, &of.dy);
                let gradients = |wanted: [bool; 3]| {
                    let mut to = [&expected.dquery, &expected.dkey, &expected.dvalue]
                        .map(|of| Tensor::poisoned(device, of.len()));
                    let mut space = workspace(device, Workspace::AttentionGradient(shape));
                    let [query, key, value] = &mut to;
                    let to_some = AttentionGradients {
                        query: wanted[0].then(|| query.get_mut()),
                        key: wanted[1].then(|| key.get_mut()),
                        value: wanted[2].then(|| value.get_mut()),
                    };
                    let (y, rows) = (y.get(), statistics.get());
                    let space = space.get_mut();
                    device.attention_gradient(shape, alpha, inputs(), y, rows, dy.get(), to_some, space).unwrap();
                    to.map(|to| to.values())
                };
                let got = gradients([true; 3]);
                let expected = [&expected.dquery, &expected.dkey, &expected.dvalue];
                for ((got, expected), name) in got.iter().zip(expected).zip(["query", "key", "value"]) {
                    // Of a key and a value sums over queries; slopes are at most 2.25 times the width.
                    let slack = |_| error * 6.0 * (value_dim as f64).sqrt() * (queries.max(2) as f64).sqrt();
                    close(device, got, expected, slack, &format!("gradient of {name}, {what}"));
                }
                // Each alone is the same, and the others are not written.
                for alone in 0..3 {
                    let some = gradients([0, 1, 2].map(|i| i == alone));
                    for (i, (some, got)) in some.iter().zip(&got).enumerate() {
                        assert!(if i == alone { some == got } else { some.iter().all(|v| v.is_nan()) }, "{what}");
                    }
                }
            }
        }
    }
}

/// A NaN of a query makes its own row NaN, of its head.
pub fn attentions_of_nan(device: &Device) {
    let shape = AttentionShape { batch: 1, heads: 2, queries: 3, keys: 6, key_dim: 2, value_dim: 1, causal: false };
    let mut query = vec![0.5; 12];
    query[6] = f64::NAN;
    let tensor = |len: usize| Tensor::new(device, &vec![0.25; len]);
    let (query, key, value) = (Tensor::new(device, &query), tensor(24), tensor(12));
    let (mut y, mut statistics) = (Tensor::poisoned(device, 6), Tensor::poisoned(device, 12));
    let inputs = AttentionInputs { query: query.get(), key: key.get(), value: value.get(), mask: None };
    let mut space = workspace(device, Workspace::Attention(shape));
    device.attention(shape, 1.0, inputs, y.get_mut(), statistics.get_mut(), space.get_mut()).unwrap();
    for (i, y) in y.values().into_iter().enumerate() {
        assert!(if i == 3 { y.is_nan() } else { (y - 0.25).abs() < 4.0 * unit(device) }, "{i}: {y}");
    }
}

/// Sizes of zero and tensors of other lengths are refused.
pub fn attentions_that_do_not_fit(device: &Device) {
    let fits = AttentionShape { batch: 2, heads: 2, queries: 3, keys: 2, key_dim: 1, value_dim: 4, causal: true };
    let lens = [12, 8, 32, 48, 24, 4];
    let run = |shape: AttentionShape, lens: [usize; 6]| {
        let [query, key, value, mut y, mut statistics, mask] = lens.map(|len| Tensor::new(device, &vec![1.0; len]));
        let inputs = AttentionInputs { query: query.get(), key: key.get(), value: value.get(), mask: Some(mask.get()) };
        let mut space = Tensor::poisoned(device, 1 << 16);
        device.attention(shape, 1.0, inputs, y.get_mut(), statistics.get_mut(), space.get_mut())
    };
    run(fits, lens).unwrap();
    for wrong in 0..lens.len() {
        let mut lens = lens;
        lens[wrong] += 1;
        let result = run(fits, lens);
        assert!(matches!(result, Err(Error::Shape { .. })), "tensor {wrong}: {result:?}");
    }
    let zero = |shape: AttentionShape| {
        let result = run(shape, lens);
        assert!(matches!(result, Err(Error::ZeroSize { .. })), "{shape:?}: {result:?}");
    };
    zero(AttentionShape { heads: 0, ..fits });
    zero(AttentionShape { queries: 0, ..fits });
    zero(AttentionShape { keys: 0, ..fits });
    zero(AttentionShape { key_dim: 0, ..fits });
    zero(AttentionShape { value_dim: 0, ..fits });
    let none = AttentionShape { batch: 0, ..fits };
    run(none, [0; 6]).unwrap();
    // Sizes that no memory holds have a workspace that is refused, also where there is no sample.
    for size in [usize::MAX, usize::MAX / 2] {
        let shapes = [
            AttentionShape { keys: size, ..none },
            AttentionShape { queries: size, ..none },
            AttentionShape { key_dim: size, ..none },
            AttentionShape { value_dim: size, ..none },
        ];
        for shape in shapes {
            for space in [Workspace::Attention(shape), Workspace::AttentionGradient(shape)] {
                device.workspace(space);
            }
            let result = run(shape, [0; 6]);
            assert!(
                matches!(result, Ok(()) | Err(Error::Shape { .. } | Error::SizeOverflow { .. })),
                "{shape:?}: {result:?}"
            );
        }
    }
}
