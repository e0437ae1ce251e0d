//! The host backends at the points of `benches/grid.csv`, which `fused-rnn bench --grid builtin` measures beside other implementations:
//! here for regressions, by criterion.
//!
//! `cargo bench --bench recurrent` runs everything; `-- 'lstm 128x32'` what contains the text. Times are of whole calls, of streaming
//! of all steps: divide by the steps for the usual figure. The oracle runs on the small sizes only.

use std::hint::black_box;

use criterion::measurement::WallTime;
use criterion::{BenchmarkGroup, BenchmarkId, Criterion, criterion_group, criterion_main};
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{Inputs, OutputGradients, Pass};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{ForwardArgs, ForwardMode, HostBackend};
use fused_rnn::rnn::{Direction, RnnDescriptor, RnnShape, WeightLayout};

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
    name: String,
    descriptor: RnnDescriptor,
    shape: RnnShape,
    inputs: Inputs<f32>,
    gradients: OutputGradients<f32>,
    streams: bool,
}

impl Point {
    /// Of a line of the grid; a value that is left out is the usual one.
    fn new(columns: &[&str], line: &str) -> fused_rnn::Result<Self> {
        let value = |name: &str, usual: &'static str| {
            let place = columns.iter().position(|column| *column == name).expect("a column of the grid");
            let given = line.split(',').nth(place).expect("as many values as columns");
            if given.is_empty() { usual.to_owned() } else { given.to_owned() }
        };
        let size = |name: &str, usual: &'static str| value(name, usual).parse::<usize>().expect("a number in the grid");
        let (seq_len, batch, layers) = (size("seq-len", ""), size("batch", ""), size("layers", "1"));
        let (direction, lengths, pass) = (value("direction", "forward"), value("lengths", "full"), value("pass", ""));
        let mut descriptor =
            RnnDescriptor::new(value("cell", "").parse()?, size("input-size", ""), size("hidden-size", ""));
        descriptor.num_layers = layers;
        descriptor.direction = if direction == "bidirectional" { Direction::Bidirectional } else { Direction::Forward };
        let mut name =
            format!("{} {seq_len}x{batch} {}->{}", descriptor.cell, descriptor.input_size, descriptor.hidden_size);
        for (given, usual, part) in [
            (layers.to_string(), "1", format!(" {layers} layers")),
            (direction.clone(), "forward", format!(" {direction}")),
            (lengths.clone(), "full", format!(" lengths {lengths}")),
        ] {
            name += if given == usual { "" } else { &part };
        }
        let rows = seq_len * batch;
        let output = descriptor.num_directions() * descriptor.output_size();
        // From 1 to seq_len, evenly.
        let drawn = |i: usize| (1 + i * seq_len.saturating_sub(1) / batch.saturating_sub(1).max(1)) as u32;
        Ok(Point {
            shape: RnnShape { seq_len, batch },
            inputs: Inputs {
                weights: numbers(WeightLayout::new(&descriptor)?.len(), 1.0 / (descriptor.hidden_size as f32).sqrt()),
                x: numbers(rows * descriptor.input_size, 1.0),
                lengths: (lengths != "full").then(|| (0..batch).map(drawn).collect()),
                ..Inputs::default()
            },
            gradients: OutputGradients { dy: Some(numbers(rows * output, 1.0)), ..OutputGradients::default() },
            streams: pass == "stream",
            name,
            descriptor,
        })
    }

    /// Multiplications of a forward pass.
    fn multiplications(&self) -> usize {
        let (d, shape) = (&self.descriptor, self.shape);
        let layer = |layer| d.layer_input_size(layer) + d.output_size();
        let row = (0..d.num_layers).map(layer).sum::<usize>() * d.cell.gates() * d.hidden_size * d.num_directions();
        shape.seq_len * shape.batch * row
    }
}

fn passes<B: HostBackend<f32>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    backend: &B,
    point: &Point,
) -> fused_rnn::Result<()> {
    for (label, mode) in [("forward", ForwardMode::Inference), ("forward+backward", ForwardMode::Training)] {
        let mut pass = Pass::new(backend, &point.descriptor, point.shape, mode, &point.inputs, &point.gradients)?;
        group.bench_function(BenchmarkId::new(label, backend.name()), |bencher| {
            bencher.iter(|| pass.run().expect("buffers of the plan's sizes"));
            black_box(pass.outputs());
        });
    }
    Ok(())
}

/// Step by step: a call for each, which takes the states of the one before.
fn stream<B: HostBackend<f32>>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    backend: &B,
    point: &Point,
) -> fused_rnn::Result<()> {
    let (d, shape) = (&point.descriptor, RnnShape { seq_len: 1, ..point.shape });
    let plan = backend.plan(d, shape, ForwardMode::Inference)?;
    let tensors = shape.tensors(d)?;
    let zeros = |sizes: &[usize]| vec![0.0f32; sizes.iter().product()];
    let (mut y, mut workspace) = (zeros(&tensors.y), vec![0.0f32; backend.temp_space(&plan).workspace]);
    let (mut h, mut c) = ([zeros(&tensors.h), zeros(&tensors.h)], [zeros(&tensors.c), zeros(&tensors.c)]);
    let has_c = d.cell.has_cell_state();
    group.bench_function(BenchmarkId::new("stream", backend.name()), |bencher| {
        bencher.iter(|| {
            for x in point.inputs.x.chunks_exact(tensors.x.iter().product()) {
                let ([h0, hn], [c0, cn]) = (&mut h, &mut c);
                let args = ForwardArgs::<B>::new(&point.inputs.weights, x, &mut y, &mut workspace)
                    .h0(&h0[..])
                    .c0(has_c.then_some(c0.as_slice()))
                    .hn(&mut hn[..])
                    .cn(has_c.then_some(cn.as_mut_slice()));
                backend.forward(&plan, args).expect("buffers of the plan's sizes");
                h.swap(0, 1);
                c.swap(0, 1);
            }
        });
    });
    Ok(())
}

fn point<B: HostBackend<f32>>(criterion: &mut Criterion, backend: &B, point: &Point) -> fused_rnn::Result<()> {
    let mut group = criterion.benchmark_group(&point.name);
    group.sample_size(10);
    let timed = if point.streams { stream(&mut group, backend, point) } else { passes(&mut group, backend, point) };
    group.finish();
    timed
}

fn recurrent(criterion: &mut Criterion) {
    let (cpu, reference) = (CpuBackend::<f32>::new(), ReferenceBackend::<f32>::new());
    let mut lines = include_str!("grid.csv").lines().filter(|line| !line.starts_with('#'));
    let columns: Vec<_> = lines.next().expect("a header").split(',').collect();
    for line in lines {
        let data = Point::new(&columns, line).expect("a valid descriptor");
        point(criterion, &cpu, &data).expect("a valid descriptor");
        if data.multiplications() <= SMALL {
            point(criterion, &reference, &data).expect("a valid descriptor");
        }
    }
}

criterion_group!(benches, recurrent);
criterion_main!(benches);
