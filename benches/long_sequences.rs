//! Training of one very long sequence, with and without checkpoints over time: peak memory and time, each beside the ordinary pass.
//!
//! ```sh
//! cargo bench --no-default-features --features operator --bench long_sequences                  # T = 100,000, H = 512, I = 64
//! cargo bench --no-default-features --features operator --bench long_sequences -- 10000 128 16
//! ```
//!
//! A pass is forward, gradients of x and the initial states, and gradients of all weights, once, of an LSTM in f32 with batch 1. Memory is
//! what the program has allocated at its most, with x, y, their gradients and the weights.

#![allow(unsafe_code, reason = "an allocator has unsafe methods; this one hands on to the system's")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use fused_rnn::Result;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{Inputs, OutputGradients, Pass};
use fused_rnn::backend::{ForwardMode, RecurrentBackend};
use fused_rnn::rnn::dropout::philox4x32;
use fused_rnn::rnn::{Memory, RnnDescriptor, RnnShape, WeightLayout};

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// The system's allocator, which counts the bytes that are in use.
struct Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let now = NOW.fetch_add(layout.size(), Ordering::Relaxed) + layout.size();
        PEAK.fetch_max(now, Ordering::Relaxed);
        // SAFETY: the caller's promise about the layout is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the pointer is the system's, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn values(len: usize, scale: f32) -> Vec<f32> {
    (0..len as u32).map(|i| (philox4x32([i, 0, 0, 0], 1)[0] as f32 / 2_147_483_648.0 - 1.0) * scale).collect()
}

fn mebibytes(bytes: usize) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

fn main() -> Result<()> {
    // Cargo adds `--bench`.
    let sizes: Vec<usize> = std::env::args().skip(1).filter_map(|given| given.parse().ok()).collect();
    let size = |index: usize, usual: usize| sizes.get(index).copied().unwrap_or(usual);
    let (seq_len, hidden_size, input_size) = (size(0, 100_000), size(1, 512), size(2, 64));
    let (mut descriptor, shape) = (RnnDescriptor::lstm(input_size, hidden_size), RnnShape { seq_len, batch: 1 });
    let weights = WeightLayout::new(&descriptor)?.len();
    let inputs = Inputs {
        weights: values(weights, 1.0 / (hidden_size as f32).sqrt()),
        x: values(seq_len * input_size, 1.0),
        ..Inputs::default()
    };
    let gradients = OutputGradients { dy: Some(values(seq_len * hidden_size, 1.0)), ..OutputGradients::default() };
    let backend = CpuBackend::<f32>::new();
    println!("LSTM, T = {seq_len}, B = 1, I = {input_size}, H = {hidden_size}, f32, {} threads", backend.threads());
    println!(
        "| memory | workspace and reserve, MiB | peak, MiB | ratio | seconds | ratio |\n|---|--:|--:|--:|--:|--:|"
    );
    let root = (seq_len as f64).sqrt().round().max(1.0) as usize;
    let mut first: Option<(usize, f64)> = None;
    let kept = [
        Memory::Full,
        Memory::Light { every: root },
        Memory::Checkpoints { every: (root * 10).min(seq_len) },
        Memory::Checkpoints { every: root },
    ];
    for memory in kept {
        descriptor.memory = memory;
        let space = backend.temp_space(&backend.plan(&descriptor, shape, ForwardMode::Training)?);
        PEAK.store(NOW.load(Ordering::Relaxed), Ordering::Relaxed);
        let mut pass = Pass::new(&backend, &descriptor, shape, ForwardMode::Training, &inputs, &gradients)?;
        let start = Instant::now();
        pass.run()?;
        let (peak, seconds) = (PEAK.load(Ordering::Relaxed), start.elapsed().as_secs_f64());
        let (full_peak, full_seconds) = *first.get_or_insert((peak, seconds));
        let name = match memory {
            Memory::Checkpoints { every } => format!("checkpoints every {every} steps"),
            Memory::Light { every } => format!("light, {every} steps at a time"),
            _ => "everything".to_owned(),
        };
        println!(
            "| {name} | {:.1} | {:.1} | {:.3} | {seconds:.2} | {:.2} |",
            mebibytes(4 * (space.workspace + space.reserve)),
            mebibytes(peak),
            peak as f64 / full_peak as f64,
            seconds / full_seconds
        );
    }
    Ok(())
}
