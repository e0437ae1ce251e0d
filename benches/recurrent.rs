//! Forward and forward+backward of every host backend on a grid from one tiny sequence to a saturated machine.
//!
//! `cargo bench --bench recurrent` runs everything; `-- 'lstm 128x32'` what contains the text. Times are of whole calls:
//! divide by the steps for the usual figure. The oracle runs on the small sizes only.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{
    BackwardDataArgs, BackwardWeightsArgs, ForwardArgs, ForwardMode, HostBackend, Reserve, WeightGrad,
};
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

/// Multiplications of a forward pass up to which the oracle is worth waiting for.
const SMALL: usize = 20_000_000;

/// Numbers in -1..1, the same every time.
fn numbers(len: usize, scale: f32) -> Vec<f32> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * scale
    };
    (0..len).map(next).collect()
}

/// Buffers of one point of the grid.
struct Point {
    descriptor: RnnDescriptor,
    shape: RnnShape,
    weights: Vec<f32>,
    x: Vec<f32>,
    dy: Vec<f32>,
    y: Vec<f32>,
    dx: Vec<f32>,
    dweights: Vec<f32>,
}

impl Point {
    fn new((cell, seq_len, batch, input, hidden): (CellKind, usize, usize, usize, usize)) -> fused_rnn::Result<Self> {
        let descriptor = RnnDescriptor::new(cell, input, hidden);
        let weights = WeightLayout::new(&descriptor)?.len();
        let rows = seq_len * batch;
        Ok(Point {
            shape: RnnShape { seq_len, batch },
            weights: numbers(weights, 1.0 / (hidden as f32).sqrt()),
            x: numbers(rows * input, 1.0),
            dy: numbers(rows * hidden, 1.0),
            y: vec![0.0; rows * hidden],
            dx: vec![0.0; rows * input],
            dweights: vec![0.0; weights],
            descriptor,
        })
    }

    fn forward_args<'a, B: HostBackend<f32>>(&'a mut self, workspace: &'a mut [f32]) -> ForwardArgs<'a, B> {
        ForwardArgs {
            weights: &self.weights,
            x: &self.x,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            y: &mut self.y,
            hn: None,
            cn: None,
            workspace,
            dropout_seed: 0,
        }
    }
}

fn bench<B: HostBackend<f32>>(criterion: &mut Criterion, backend: &B, point: &mut Point) -> fused_rnn::Result<()> {
    let (d, shape) = (&point.descriptor, point.shape);
    let name = format!("{} {}x{} {}->{}", d.cell, shape.seq_len, shape.batch, d.input_size, d.hidden_size);
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);

    let plan = backend.plan(&point.descriptor, shape, ForwardMode::Inference)?;
    let mut workspace = vec![0.0; backend.temp_space(&plan).workspace];
    group.bench_function(BenchmarkId::new("forward", backend.name()), |bencher| {
        bencher.iter(|| {
            backend.forward(&plan, point.forward_args::<B>(&mut workspace)).expect("buffers of the plan's sizes");
            black_box(&point.y);
        });
    });

    let plan = backend.plan(&point.descriptor, shape, ForwardMode::Training)?;
    let space = backend.temp_space(&plan);
    let mut workspace = vec![0.0; space.workspace];
    let mut reserve = vec![0.0; space.reserve];
    let mut step = || -> fused_rnn::Result<()> {
        let args = point.forward_args::<B>(&mut workspace);
        let filled = backend.forward_training(&plan, args, Reserve::new(&mut reserve[..]))?;
        let args = BackwardDataArgs::<B> {
            weights: &point.weights,
            y: &point.y,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            dy: Some(&point.dy),
            dhn: None,
            dcn: None,
            dx: Some(&mut point.dx),
            dh0: None,
            dc0: None,
            workspace: &mut workspace,
        };
        let mut differentiated = backend.backward_data(&plan, args, filled)?;
        let args = BackwardWeightsArgs::<B> {
            x: &point.x,
            y: &point.y,
            h0: None,
            c0: None,
            lengths: None,
            resets: None,
            dweights: &mut point.dweights,
            workspace: &mut workspace,
        };
        backend.backward_weights(&plan, args, &mut differentiated, WeightGrad::Set)
    };
    group.bench_function(BenchmarkId::new("forward+backward", backend.name()), |bencher| {
        bencher.iter(|| step().expect("buffers of the plan's sizes"));
    });
    group.finish();
    Ok(())
}

fn recurrent(criterion: &mut Criterion) {
    let (cpu, reference) = (CpuBackend::<f32>::new(), ReferenceBackend::<f32>::new());
    for point in GRID {
        let (cell, seq_len, batch, input, hidden) = point;
        let mut buffers = Point::new(point).expect("a valid descriptor");
        bench(criterion, &cpu, &mut buffers).expect("a valid descriptor");
        if seq_len * batch * cell.gates() * hidden * (input + hidden) <= SMALL {
            bench(criterion, &reference, &mut buffers).expect("a valid descriptor");
        }
    }
}

criterion_group!(benches, recurrent);
criterion_main!(benches);
