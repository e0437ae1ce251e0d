//! Model files of the version whose layers were generic over backend and element (see `tests/fixtures/README.md`): they load, and
//! models give what they gave, to the bit.

use std::path::{Path, PathBuf};

use crate::common::{cpu, reference};
use crate::weights;
use fused_rnn::backend::TensorRef;
use fused_rnn::model::{FitOptions, Model};
use fused_rnn::{DType, Device, Scalar};
use ndarray::{ArrayD, IxDyn};
use serde_json::Value;

/// Where sums are now taken in another order, so that results are not the same bits: on the CPU, matrix products as large as these are its
/// own instead of ndarray's, and attention is one operation; the oracle's products and softmax are plain loops instead of ndarray's and the CPU's.
const OTHER_SUMS: [(&str, &str); 5] = [
    ("large_dense", "cpu"),
    ("large_dense", "reference"),
    ("embedding_adagrad", "reference"),
    ("transformer_adam", "cpu"),
    ("transformer_adam", "reference"),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/saved")
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap()).collect()
}

fn array<E: Scalar>(case: &Value, name: &str) -> ArrayD<E> {
    let shape: Vec<usize> = serde_json::from_value(case[format!("{name}_shape")].clone()).unwrap();
    let values = numbers(&case[name]).into_iter().map(E::of).collect();
    ArrayD::from_shape_vec(IxDyn(&shape), values).unwrap()
}

/// What the loaded model gives, and after a further epoch, by the names that the recording has; and which weights have no gradient but
/// what rounding leaves of it: softmax takes away what is added to all keys' scores alike, as a bias of the keys is.
fn given<E: Scalar>(device: Device, path: &Path, case: &Value) -> (Vec<(&'static str, Vec<f64>)>, Vec<bool>) {
    let (x, y) = (array::<E>(case, "x"), array::<E>(case, "y"));
    let mut model = Model::load(device, path).unwrap();
    let predicted = model.predict(&x).unwrap().into_iter().map(|v| v.wide()).collect();
    let loss = model.evaluate(&x, &y).unwrap();
    let options = FitOptions { batch_size: 3, epochs: 1, ..FitOptions::default() };
    let history = model.fit(&x, &y, options).unwrap();
    let of_keys =
        |(name, _, values): (String, &[usize], TensorRef<'_>)| vec![name.ends_with(".key.bias"); values.len()];
    let noise = model.weights().flat_map(of_keys).collect();
    let results = vec![
        ("predicted", predicted),
        ("loss", vec![loss]),
        ("trained_loss", history.loss),
        ("trained_weights", weights(&model)),
    ];
    (results, noise)
}

fn recorded(of: &Value, name: &str) -> Vec<f64> {
    if of[name].is_array() { numbers(&of[name]) } else { vec![of[name].as_f64().unwrap()] }
}

fn largest(values: impl Iterator<Item = f64>) -> f64 {
    values.fold(0.0, |most: f64, v| if v.is_nan() || v.abs() > most { v.abs() } else { most })
}

#[test]
fn files_of_the_version_before_give_what_they_gave() {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "safetensors"));
    files.sort();
    assert_eq!(files.len(), 8);
    // The bits of exp and tanh are the system library's.
    let exact = cfg!(all(target_os = "linux", target_env = "gnu", target_arch = "x86_64"));
    for path in files {
        let case: Value = serde_json::from_slice(&std::fs::read(path.with_extension("json")).unwrap()).unwrap();
        let name = path.file_stem().unwrap().to_str().unwrap();
        let dtype: DType = case["dtype"].as_str().unwrap().parse().unwrap();
        for (on, device) in [("cpu", cpu(dtype)), ("reference", reference(dtype))] {
            let (given, noise) = if dtype == DType::F32 {
                given::<f32>(device, &path, &case)
            } else {
                given::<f64>(device, &path, &case)
            };
            let exact_here = exact && !OTHER_SUMS.contains(&(name, on));
            for (what, got) in given {
                let expected = recorded(&case[on], what);
                assert_eq!(got.len(), expected.len(), "{name} on {on}: {what}");
                let counts = |i: usize| exact_here || what != "trained_weights" || !noise[i];
                // CPU and oracle always took their sums in orders of their own, so what they gave differs by as much as an order
                // does. Another one may differ by a few times that, or by a few roundings of the largest number.
                let other = recorded(&case[if on == "cpu" { "reference" } else { "cpu" }], what);
                let difference =
                    |a: &[f64], b: &[f64]| largest((0..a.len()).filter(|i| counts(*i)).map(|i| a[i] - b[i]));
                let allowed = match exact_here {
                    true => 0.0,
                    false => {
                        let roundings = 16.0 * dtype.epsilon() * largest(expected.iter().copied());
                        4.0 * difference(&expected, &other) + roundings
                    }
                };
                let off = difference(&got, &expected);
                assert!(off <= allowed, "{name} on {on}: {what} is off by {off:e}, allowed {allowed:e}");
            }
        }
    }
}
