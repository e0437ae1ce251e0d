//! One program for all targets: the variable `FUZZ_TARGET` names one, and `run.sh` sets it. See `README.md`.

#![no_main]

mod mutate;
mod targets;

use std::sync::OnceLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use targets::Target;
use targets::memory::Measuring;

#[global_allocator]
static ALLOCATOR: Measuring = Measuring;

fn target() -> &'static Target {
    static TARGET: OnceLock<&Target> = OnceLock::new();
    TARGET.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
        targets::named(&name).unwrap_or_else(|| {
            let known: Vec<_> = targets::ALL.iter().map(|target| target.name).collect();
            panic!("FUZZ_TARGET={name:?}: expected one of {}", known.join(", "))
        })
    })
}

fuzz_target!(|data: &[u8]| {
    (target().run)(data);
});

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let most = max_size.min(target().longest);
    if let Some(changed) = mutate::changed(target().form, &data[..size], most, seed) {
        data[..changed.len()].copy_from_slice(&changed);
        return changed.len();
    }
    fuzzer_mutate(data, size, max_size)
});
