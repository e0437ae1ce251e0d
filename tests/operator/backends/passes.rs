//! Whole passes by a backend, and names of their results.

use crate::common::run::{self, Setup};
use crate::common::truth::Named;
use crate::common::{Number, Problem};
use fused_rnn::backend::HostBackend;

pub fn infer<E: Number, B: HostBackend<E>>(
    backend: &B,
    problem: &Problem,
    setup: &Setup<E>,
) -> Result<Named<E>, String> {
    run::infer(backend, &problem.descriptor, problem.shape, &problem.inputs(), setup).map_err(|e| e.to_string())
}

pub fn train<E: Number, B: HostBackend<E>>(
    backend: &B,
    problem: &Problem,
    setup: &Setup<E>,
) -> Result<Named<E>, String> {
    run::train(backend, &problem.descriptor, problem.shape, &problem.inputs(), &problem.output_gradients(), setup)
        .map_err(|e| e.to_string())
}

pub fn default_training<E: Number, B: HostBackend<E>>(backend: &B, problem: &Problem) -> Result<Named<E>, String> {
    train(backend, problem, &Setup::default())
}

/// All but the weights' gradients.
pub fn without_weights<E: Number>(all: Named<E>) -> Named<E> {
    all.into_iter().filter(|(name, _)| !is_weight(name)).collect()
}

pub fn is_weight(name: &str) -> bool {
    name.starts_with("dweight") || name.starts_with("dbias")
}

/// `f32` and `f64` in one name, for messages.
pub fn label<E: Number, B: HostBackend<E>>(backend: &B) -> String {
    format!("{} {}", backend.name(), E::DTYPE)
}
