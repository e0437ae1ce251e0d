//! Where weights start: mean, standard deviation and range of what an initializer draws, beside those of what Keras has drawn.

use fused_rnn::Device;
use fused_rnn::model::Sequential;
use fused_rnn::nn::{Conv1D, Dense, Embedding, Gru, LayerConfig, Lstm};

use super::case::Case;
use super::translate;

/// Runs a case; an `Err` says where it differs.
pub fn check(device: &Device, case: &Case) -> Result<(), String> {
    let text = |e: fused_rnn::Error| e.to_string();
    let initializer = translate::initializer(&case.json["initializer"]);
    let class = case.json["class"].as_str().expect("a class");
    let weight = case.json["weight"].as_str().expect("a word");
    let size = |key: &str| case.json["config"][key].as_u64().expect("a size") as usize;
    let layer: LayerConfig = match (class, weight) {
        ("Dense", "kernel") => Dense::new(size("units")).kernel_initializer(initializer).into(),
        ("Dense", "bias") => Dense::new(size("units")).bias_initializer(initializer).into(),
        ("LSTM", "kernel") => Lstm::new(size("units")).kernel_initializer(initializer).into(),
        ("GRU", "recurrent") => Gru::new(size("units")).recurrent_initializer(initializer).into(),
        ("Conv1D", _) => Conv1D::new(size("filters"), size("kernel_size")).kernel_initializer(initializer).into(),
        ("Embedding", _) => {
            Embedding::new(size("input_dim"), size("output_dim")).embeddings_initializer(initializer).into()
        }
        other => return Err(format!("a layer {other:?}")),
    };
    let shape: Vec<usize> = serde_json::from_value(case.json["input_shape"].clone()).expect("a shape");
    let mut model = Sequential::new(device.clone(), &shape, 1).map_err(text)?;
    model.add(layer).map_err(text)?;
    let name = match (class, weight) {
        ("Dense", "bias") => "bias",
        ("Conv1D", _) => "kernel",
        ("LSTM", _) => "weight_ih_l0",
        ("GRU", _) => "weight_hh_l0",
        _ => "weight",
    };
    let full_name = model.weights().map(|(full, ..)| full).find(|full| full.ends_with(name)).ok_or("no such weight")?;
    let drawn: Vec<f64> = model.weight(&full_name).map_err(text)?;
    let count = drawn.len() as f64;
    let mean = drawn.iter().sum::<f64>() / count;
    let deviation = (drawn.iter().map(|w| (w - mean) * (w - mean)).sum::<f64>() / count).sqrt();
    let (least, most) = drawn.iter().fold((f64::MAX, f64::MIN), |(a, b), w| (a.min(*w), b.max(*w)));
    let expected = case.array("figures");
    // Means of n draws are apart by a few deviations over root n, deviations by a few parts in root 2n. Where the draws are bounded, so are the
    // extremes; those of a normal distribution are further apart.
    let near = |what: &str, got: f64, expected: f64, allowed: f64| match (got - expected).abs() <= allowed {
        true => Ok(()),
        false => Err(format!("{what} {got}, Keras has {expected}; allowed {allowed}")),
    };
    let class = case.json["initializer"]["class"].as_str().expect("a class");
    let range = if class == "RandomNormal" || class == "Orthogonal" { 1.5 } else { 0.12 };
    near("mean", mean, expected[[0]], 6.0 * expected[[1]] / count.sqrt() + 1e-7)?;
    near("deviation", deviation, expected[[1]], 6.0 * expected[[1]] / (2.0 * count).sqrt() + 1e-7)?;
    near("least", least, expected[[2]], range * expected[[1]] + 1e-7)?;
    near("largest", most, expected[[3]], range * expected[[1]] + 1e-7)
}
