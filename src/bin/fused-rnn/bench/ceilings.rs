//! What the machine can do at most: multiply-adds in registers, and bytes read from memory.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use fused_rnn::DType;
use fused_rnn::simd::multiply_adds;

/// Measured on a number of threads.
#[derive(Clone, Copy, Debug)]
pub struct Ceilings {
    /// 10^9 floating-point operations a second, two a multiply-add.
    pub gflops: f64,
    /// 10^9 bytes a second. Data that stay in caches come faster.
    pub gbytes: f64,
}

/// Bytes that all threads read together: more than caches hold.
const READ_BYTES: usize = 1 << 28;
/// Seconds of one loop of multiply-adds, about.
const LOOP_SECONDS: f64 = 0.02;
/// Loops and readings; the fastest counts.
const TRIES: usize = 5;

/// Ceilings by threads and element type, measured when first asked for.
#[derive(Default)]
pub struct Measured(HashMap<(usize, DType), Ceilings>);

impl Measured {
    pub fn on(&mut self, threads: usize, dtype: DType) -> Ceilings {
        // More threads than the machine runs at once do no more, and may be more than it starts.
        let threads = threads.min(std::thread::available_parallelism().map_or(1, usize::from));
        let measured = || Ceilings { gflops: compute(threads, dtype), gbytes: memory(threads) };
        *self.0.entry((threads, dtype)).or_insert_with(measured)
    }
}

/// The most work a second of several tries, where `work` is run on every thread at once and gives how much it was.
fn most(threads: usize, work: impl Fn(usize) -> f64 + Sync) -> f64 {
    let once = || {
        let barrier = std::sync::Barrier::new(threads);
        let timed = |thread: usize| {
            barrier.wait();
            let start = Instant::now();
            let done = work(thread);
            (done, start.elapsed().as_secs_f64())
        };
        let results: Vec<(f64, f64)> = std::thread::scope(|scope| {
            let spawned: Vec<_> = (0..threads).map(|thread| scope.spawn(move || timed(thread))).collect();
            spawned.into_iter().filter_map(|thread| thread.join().ok()).collect()
        });
        let (done, slowest) = results.iter().fold((0.0, 0.0), |(sum, most), (done, time)| (sum + done, time.max(most)));
        done / f64::max(slowest, 1e-9)
    };
    (0..TRIES).map(|_| once()).fold(0.0, f64::max) * 1e-9
}

fn compute(threads: usize, dtype: DType) -> f64 {
    let run = |repeats: usize| match dtype {
        DType::F64 => multiply_adds::<f64>(repeats),
        _ => multiply_adds::<f32>(repeats),
    };
    // As many repetitions as take about so long on one thread.
    let (mut repeats, mut seconds) = (1 << 12, 0.0);
    while seconds < LOOP_SECONDS * 0.5 && repeats < 1 << 40 {
        repeats *= 2;
        let start = Instant::now();
        black_box(run(black_box(repeats)));
        seconds = start.elapsed().as_secs_f64();
    }
    most(threads, |_| {
        let (operations, sum) = run(black_box(repeats));
        black_box(sum);
        operations
    })
}

/// NaN where there is not enough memory for it.
fn memory(threads: usize) -> f64 {
    let len = READ_BYTES / size_of::<u64>();
    let mut numbers = Vec::new();
    if numbers.try_reserve_exact(len).is_err() {
        return f64::NAN;
    }
    numbers.resize(len, 1u64);
    let part = len.div_ceil(threads);
    let numbers: &[u64] = black_box(&numbers);
    most(threads, |thread| {
        let mine = numbers.chunks(part).nth(thread).unwrap_or(&[]);
        // Eight sums, so that none waits for the one before.
        let mut sums = [0u64; 8];
        for eight in mine.chunks_exact(8) {
            for (sum, number) in sums.iter_mut().zip(eight) {
                *sum = sum.wrapping_add(*number);
            }
        }
        black_box(sums);
        size_of_val(mine) as f64
    })
}
