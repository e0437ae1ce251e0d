//! Every layer, loss and optimizer, and whole models, against what Keras computes in double precision.
//!
//! `tests/fixtures/layers` holds the cases, `tests/fixtures/generate_layers.py` made them. A file of a kind that is not known here, and
//! a case that this crate cannot run without being listed as such, fail.

mod case;
mod compare;
mod layer;
mod probe;
mod translate;

use fused_rnn::backend::cpu::CpuBackend;
use layer::Extent;

#[test]
fn layers() {
    let mut failures = Vec::new();
    for case in case::of_kind("layer") {
        if let Err(problem) = layer::check(CpuBackend::<f64>::new, &case, Extent::All) {
            failures.push(format!("{}: {problem}", case.name));
        }
    }
    assert!(failures.is_empty(), "{} cases:\n{}", failures.len(), failures.join("\n"));
}
