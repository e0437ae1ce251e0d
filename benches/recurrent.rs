//! Forward and forward+backward of every host backend on a grid from one tiny sequence to a saturated machine.
//!
//! `cargo bench --bench recurrent` runs everything; `-- 'lstm 128x32'` what contains the text. Times are of whole calls:
//! divide by the steps for the usual figure. The oracle runs on the small sizes only.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{Inputs, OutputGradients, Pass};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{ForwardMode, HostBackend};
use fused_rnn::cell::CellKind;
use fused_rnn::rnn::{RnnDescriptor, RnnShape, WeightLayout};

/// Cell, steps, sequences, input and hidden size.
const GRID: [(CellKind, usize, usize, usize, usize); 12] = [
    (CellKind::Lstm, 10, 1, 1, 50),
    (CellKind::Gru, 10, 1, 1, 50),
    (CellKind::Rnn, 10, 1, 1, 50),
    (CellKind::Lstm, 10, 32, 1, 50),
    (CellKind::Lstm, 128, 1, 64, 128),
    (CellKind::Gru, 128, 1, 64, 128),
    (CellKind::Lstm, 128, 32, 64, 128),
    (CellKind::Gru, 128, 32, 64, 128),
    (CellKind::Lstm, 1024, 1, 64, 256),
    (CellKind::Lstm, 256, 64, 256, 512),
    (CellKind::Gru, 256, 64, 256, 512),
    (CellKind::Lstm, 64, 128, 1024, 1024),
];

/// Multiplications of a forward pass up to which the oracle is timed too.
const SMALL: usize = 20_000_000;

/// Numbers in -scale..scale, the same every time.
fn numbers(len: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(next).collect()
}

/// Inputs of one point of the grid.
struct Point {
    descriptor: RnnDescriptor,
    shape: RnnShape,
    inputs: Inputs<f32>,
    gradients: OutputGradients<f32>,
}

impl Point {
    fn new((cell, seq_len, batch, input, hidden): (CellKind, usize, usize, usize, usize)) -> fused_rnn::Result<Self> {
        let descriptor = RnnDescriptor::new(cell, input, hidden);
        let weights = WeightLayout::new(&descriptor)?.len();
        let rows = seq_len * batch;
        Ok(Point {
            shape: RnnShape { seq_len, batch },
            inputs: Inputs {
                weights: numbers(weights, 1.0 / (hidden as f32).sqrt()),
                x: numbers(rows * input, 1.0),
                ..Inputs::default()
            },
            gradients: OutputGradients { dy: Some(numbers(rows * hidden, 1.0)), ..OutputGradients::default() },
            descriptor,
        })
    }
}

fn bench<B: HostBackend<f32>>(criterion: &mut Criterion, backend: &B, point: &Point) -> fused_rnn::Result<()> {
    let (d, shape) = (&point.descriptor, point.shape);
    let name = format!("{} {}x{} {}->{}", d.cell, shape.seq_len, shape.batch, d.input_size, d.hidden_size);
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    for (label, mode) in [("forward", ForwardMode::Inference), ("forward+backward", ForwardMode::Training)] {
        let mut pass = Pass::new(backend, d, shape, mode, &point.inputs, &point.gradients)?;
        group.bench_function(BenchmarkId::new(label, backend.name()), |bencher| {
            bencher.iter(|| pass.run().expect("buffers of the plan's sizes"));
            black_box(pass.outputs());
        });
    }
    group.finish();
    Ok(())
}

fn recurrent(criterion: &mut Criterion) {
    let (cpu, reference) = (CpuBackend::<f32>::new(), ReferenceBackend::<f32>::new());
    for point in GRID {
        let (cell, seq_len, batch, input, hidden) = point;
        let data = Point::new(point).expect("a valid descriptor");
        bench(criterion, &cpu, &data).expect("a valid descriptor");
        if seq_len * batch * cell.gates() * hidden * (input + hidden) <= SMALL {
            bench(criterion, &reference, &data).expect("a valid descriptor");
        }
    }
}

criterion_group!(benches, recurrent);
criterion_main!(benches);
