//! The same bits every time, and for any number of threads of the CPU.

use super::passes::{default_training, infer};
use crate::common::run::{Setup, same_bits};
use crate::common::{Number, Recipe, for_random_problems};
use fused_rnn::backend::HostBackend;
use fused_rnn::backend::cpu::{CpuBackend, CpuElement};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape};

pub fn gives_the_same_bits_every_time<E: Number, B: HostBackend<E> + Sync>(backend: &B) {
    for_random_problems::<E>(
        40,
        |_| {},
        |problem| {
            let first = default_training(backend, problem)?;
            let inferred = infer(backend, problem, &Setup::default())?;
            // Something else in between, so that nothing can be left over from last time.
            let between = Recipe::random(problem.recipe.seed + 1).problem();
            default_training(backend, &between)?;
            same_bits("first and second time", &first, &default_training(backend, problem)?)?;
            same_bits("first and second inference", &inferred, &infer(backend, problem, &Setup::default())?)?;
            let (a, b) = std::thread::scope(|scope| {
                let a = scope.spawn(|| default_training(backend, problem));
                let b = scope.spawn(|| default_training(backend, problem));
                (a.join(), b.join())
            });
            for result in [a, b] {
                same_bits("alone and beside another thread", &first, &result.map_err(|_| "panicked")??)?;
            }
            Ok(())
        },
    );
}

/// The CPU backend promises more than repeatability: the same bits for any number of threads.
fn threads_do_not_change_bits<E: CpuElement>() {
    let alone = CpuBackend::<E>::with_threads(1).expect("valid");
    for threads in [2, 3, 7] {
        let together = CpuBackend::<E>::with_threads(threads).expect("valid");
        for_random_problems::<E>(
            25,
            |_| {},
            |problem| {
                same_bits("threads", &default_training(&alone, problem)?, &default_training(&together, problem)?)?;
                let plain = &Setup::default();
                same_bits("threads, inference", &infer(&alone, problem, plain)?, &infer(&together, problem, plain)?)
            },
        );
        // Large enough that threads pay.
        for cell in CellKind::ALL {
            let mut descriptor = RnnDescriptor::new(cell, 130, 190);
            descriptor.direction = Direction::Bidirectional;
            let shape = RnnShape { seq_len: 9, batch: 41 };
            let recipe = Recipe { descriptor, shape, lengths: true, dy: true, gain: 1.0, ..Recipe::random(3) };
            let problem = recipe.problem();
            let (a, b) = (default_training(&alone, &problem), default_training(&together, &problem));
            let same = a.and_then(|a| same_bits("threads", &a, &b?));
            same.unwrap_or_else(|e| panic!("{cell} on {threads} threads: {e}"));
        }
    }
}

#[test]
fn cpu_threads_do_not_change_bits() {
    threads_do_not_change_bits::<f32>();
    threads_do_not_change_bits::<f64>();
    for threads in [0, usize::MAX] {
        let refused = fused_rnn::backend::cpu::CpuBackend::<f32>::with_threads(threads).map(drop);
        assert!(matches!(refused, Err(fused_rnn::Error::InvalidOption { .. })), "{refused:?}");
    }
}
