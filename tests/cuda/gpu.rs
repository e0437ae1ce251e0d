//! On a GPU: copies, graphs, threads, memory, and passes of the operator that repeat to the bit. Ignored unless asked for:
//! `cargo test --test cuda gpu:: -- --ignored`.

use std::io::Write;

use super::passes;
use crate::common::gpu::gpu;
use fused_rnn::backend::cuda::driver::{self, Driver};

#[test]
#[ignore = "needs a GPU"]
fn copies_and_fills() {
    let driver = gpu();
    passes::copies_and_fills(&driver);
}

#[test]
#[ignore = "needs a GPU"]
fn capture_and_replay() {
    let driver = gpu();
    passes::capture_and_replay(&driver);
}

#[test]
#[ignore = "needs a GPU"]
fn threads() {
    let ordinals: Vec<usize> = (0..Driver::count().unwrap()).collect();
    passes::threads(&ordinals);
}

#[test]
#[ignore = "needs a GPU"]
fn refused_launches() {
    let driver = gpu();
    passes::refused_launches(&driver);
}

#[test]
#[ignore = "needs a GPU"]
fn too_little_memory() {
    let driver = gpu();
    passes::too_little_memory(&driver);
}

#[test]
#[ignore = "needs a GPU"]
fn passes_repeat() {
    let driver = gpu();
    passes::repeats::<f32, _>(&passes::on(&driver), 20);
    passes::repeats::<f64, _>(&passes::on(&driver), 20);
    passes::repeats::<half::f16, _>(&passes::on(&driver), 20);
    passes::repeats::<half::bf16, _>(&passes::on(&driver), 20);
}

#[test]
#[ignore = "needs a GPU"]
fn passes_replay() {
    let driver = gpu();
    passes::replays::<f32>(&driver);
    passes::replays::<f64>(&driver);
    passes::replays::<half::f16>(&driver);
    passes::replays::<half::bf16>(&driver);
}

#[test]
#[ignore = "needs a GPU"]
fn passes_on_threads() {
    let driver = gpu();
    passes::passes_on_threads(&driver, 5);
}

#[cfg(feature = "emulated")]
#[test]
#[ignore = "needs a GPU"]
fn primitives() {
    let driver = gpu();
    passes::primitives(&driver, 20);
}

/// As little as reaches every kernel, since compute-sanitizer takes its time.
#[test]
#[ignore = "needs a GPU"]
fn small_passes() {
    let driver = gpu();
    passes::repeats::<f32, _>(&passes::on(&driver), 1);
    passes::repeats::<f64, _>(&passes::on(&driver), 1);
    passes::repeats::<half::f16, _>(&passes::on(&driver), 1);
    passes::repeats::<half::bf16, _>(&passes::on(&driver), 1);
}

#[cfg(feature = "emulated")]
#[test]
#[ignore = "needs a GPU"]
fn small_primitives() {
    let driver = gpu();
    passes::primitives(&driver, 1);
}

#[test]
#[ignore = "needs a GPU"]
fn description() {
    let description = Driver::describe().unwrap();
    assert_eq!(description.gpus.len(), Driver::count().unwrap());
    assert!(!description.gpus[0].name.is_empty() && description.gpus[0].memory_bytes > 1 << 30);
    assert_eq!(driver::status(), description.to_string());
    let _ = writeln!(std::io::stderr(), "{description}");
}
