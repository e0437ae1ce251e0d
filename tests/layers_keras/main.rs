//! Every layer, loss and optimizer, and whole models, against what Keras computes in double precision.
//!
//! `tests/fixtures/layers` holds the cases, `tests/fixtures/generate_layers.py` made them. A file of a kind that is not known here, and
//! a case that this crate cannot run without being listed as such, fail.

mod callback;
mod case;
mod compare;
mod layer;
mod loss;
mod model;
mod optimizer;
mod probe;
mod stateful;
mod translate;

use case::Case;
use fused_rnn::backend::cpu::CpuBackend;
use layer::Extent;

mod different;

fn run(kind: &str, check: impl Fn(&Case) -> Result<(), String>) {
    let (mut failures, mut count, mut differences) = (Vec::new(), 0, 0);
    for case in case::of_kind(kind) {
        count += 1;
        match (check(&case), different::expected(&case.name)) {
            (Ok(()), None) => (),
            (Err(problem), None) => failures.push(format!("{}: {problem}", case.name)),
            (Err(problem), Some(expected)) if problem.contains(expected) => differences += 1,
            (outcome, Some(expected)) => {
                failures
                    .push(format!("{}: {outcome:?}, but tests/layers_keras/different.rs says {expected:?}", case.name));
            }
        }
    }
    println!("{count} cases of kind {kind}, {differences} of them different as listed");
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn layers() {
    run("layer", |case| layer::check(CpuBackend::<f64>::new, case, Extent::All));
}

#[test]
fn stateful_layers() {
    run("stateful", |case| stateful::check(CpuBackend::<f64>::new, case));
}

#[test]
fn models() {
    run("model", |case| model::check(CpuBackend::<f64>::new, case));
}

#[test]
fn losses() {
    run("loss", |case| loss::check(CpuBackend::<f64>::new, case));
}

#[test]
fn optimizers() {
    run("optimizer", optimizer::check);
}

#[test]
fn callbacks() {
    run("callback", callback::check);
}
