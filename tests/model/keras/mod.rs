//! Every layer, loss and optimizer, and whole models, against what Keras computes in double precision.
//!
//! `tests/fixtures/layers` holds the cases, `tests/fixtures/generate_layers.py` made them. A file of a kind that is not known here, and
//! a case that this crate cannot run without being listed as such, fail.

mod callback;
mod case;
mod compare;
mod initializer;
mod known;
mod layer;
mod loss;
mod model;
mod optimizer;
mod probe;
mod schedule;
mod stateful;
mod translate;

use case::Case;
use fused_rnn::backend::TensorRef;
use fused_rnn::{DType, Device};

/// Values of a tensor in the host's memory.
fn host(values: TensorRef<'_>) -> Vec<f64> {
    values.host().expect("a tensor of f64 on the host").to_vec()
}

/// Runs all cases of a kind on the CPU and by the oracle.
fn run_on_devices(kind: &str, check: fn(&Device, &Case) -> Result<(), String>) {
    for device in [crate::common::cpu(DType::F64), crate::common::reference(DType::F64)] {
        run(kind, |case| check(&device, case).map_err(|problem| format!("{device:?}: {problem}")));
    }
}

fn run(kind: &str, check: impl Fn(&Case) -> Result<(), String>) {
    let mut failures = Vec::new();
    for case in case::of_kind(kind) {
        match (check(&case), known::absent(&case.name)) {
            (Ok(()), None) => (),
            (Ok(()), Some(_)) => failures.push(format!("{}: it is said to need what the crate has not", case.name)),
            (Err(problem), Some(expected)) if problem.contains(expected) => (),
            (Err(problem), _) => failures.push(format!("{}: {problem}", case.name)),
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

/// Kinds of files; each has a test.
const KINDS: [&str; 8] = ["initializer", "layer", "stateful", "model", "loss", "optimizer", "callback", "schedule"];

#[test]
fn every_file_is_of_a_known_kind_and_every_known_name_a_file() {
    let cases = case::all();
    for case in &cases {
        let kind = case.json["kind"].as_str().expect("a kind");
        assert!(KINDS.contains(&kind), "{}: kind {kind}", case.name);
    }
    for name in known::names() {
        assert!(cases.iter().any(|case| case.name == name), "there is no file {name}");
    }
}

#[test]
fn layers() {
    run_on_devices("layer", layer::check);
}

#[test]
fn initializers() {
    run_on_devices("initializer", initializer::check);
}

#[test]
fn stateful_layers() {
    run_on_devices("stateful", stateful::check);
}

#[test]
fn models() {
    run_on_devices("model", model::check);
}

#[test]
fn losses() {
    run_on_devices("loss", loss::check);
}

#[test]
fn optimizers() {
    run_on_devices("optimizer", optimizer::check);
}

#[test]
fn schedules() {
    run("schedule", schedule::check);
}

#[test]
fn callbacks() {
    run_on_devices("callback", callback::check);
}
