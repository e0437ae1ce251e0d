//! `fused-rnn bench`: how long an operator takes.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::pass::{Inputs, OutputGradients, Pass};
use fused_rnn::backend::reference::ReferenceBackend;
use fused_rnn::backend::{ForwardMode, HostBackend};
use fused_rnn::rnn::WeightLayout;
use fused_rnn::rnn::dropout::philox4x32;
use fused_rnn::{DType, Error, Result, Scalar};

use crate::descriptor_args::DescriptorArgs;
use crate::output::print;

/// Time an operator: inference, and training (forward, gradients of x, h0, c0 and of all weights).
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    operator: DescriptorArgs,
    /// Who computes it
    #[arg(long, value_enum, default_value = "cpu")]
    backend: Backend,
    /// Element type: f32 or f64
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// Threads of the cpu backend; all cores unless given
    #[arg(long)]
    threads: Option<usize>,
    /// How long to time each of the two
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    Reference,
    Cpu,
}

pub fn run(args: Args) -> Result<ExitCode> {
    if !(args.seconds > 0.0 && args.seconds <= 3600.0) {
        return Err(Error::InvalidOption {
            option: "seconds".into(),
            expected: "a number in 0..=3600 above 0".into(),
            got: args.seconds.to_string(),
        });
    }
    match (args.backend, args.dtype) {
        (Backend::Reference, DType::F32) => time(&args, &ReferenceBackend::<f32>::new()),
        (Backend::Reference, DType::F64) => time(&args, &ReferenceBackend::<f64>::new()),
        (Backend::Cpu, DType::F32) => time(&args, &cpu::<f32>(&args)?),
        (Backend::Cpu, DType::F64) => time(&args, &cpu::<f64>(&args)?),
        (_, other) => Err(Error::Unsupported {
            what: format!("element type {other}"),
            why: "the host backends compute in f32 and f64".into(),
        }),
    }
}

fn cpu<E: Scalar>(args: &Args) -> Result<CpuBackend<E>> {
    match args.threads {
        Some(threads) => CpuBackend::with_threads(threads),
        None => Ok(CpuBackend::new()),
    }
}

/// Elements of all buffers together: 8 GiB of f32. More is refused before anything is allocated.
const MOST_ELEMENTS: usize = 1 << 31;

/// Uniform values in `-scale..scale`, the same every time.
fn values<E: Scalar>(len: usize, scale: f64) -> Vec<E> {
    (0..len)
        .map(|i| {
            E::of((f64::from(philox4x32([i as u32, (i >> 32) as u32, 0, 0], 1)[0]) / 2_147_483_648.0 - 1.0) * scale)
        })
        .collect()
}

/// The times of as many calls as fit `seconds`, three at least, after one to warm up.
fn sample(seconds: f64, mut call: impl FnMut() -> Result<()>) -> Result<Vec<Duration>> {
    call()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        let before = Instant::now();
        call()?;
        times.push(before.elapsed());
    }
    times.sort_unstable();
    Ok(times)
}

fn time<E: Scalar, B: HostBackend<E>>(args: &Args, backend: &B) -> Result<ExitCode> {
    let (descriptor, shape) = (args.operator.descriptor(), args.operator.shape());
    let tensors = shape.tensors(&descriptor)?;
    let len = |shape: &[usize]| shape.iter().product::<usize>();
    let weights = WeightLayout::new(&descriptor)?.len();
    let space = backend.temp_space(&backend.plan(&descriptor, shape, ForwardMode::Training)?);
    let sizes =
        [weights, len(&tensors.x), len(&tensors.y), len(&tensors.h), len(&tensors.c), space.workspace, space.reserve];
    let elements = sizes.iter().fold(0usize, |sum, size| sum.saturating_add(*size));
    if elements > MOST_ELEMENTS {
        return Err(Error::InvalidOption {
            option: "sizes".into(),
            expected: format!("at most {MOST_ELEMENTS} elements of all buffers together"),
            got: elements.to_string(),
        });
    }
    let inputs = Inputs {
        weights: values(weights, 1.0 / (descriptor.hidden_size as f64).sqrt()),
        x: values(len(&tensors.x), 1.0),
        h0: Some(vec![E::zero(); len(&tensors.h)]),
        c0: descriptor.cell.has_cell_state().then(|| vec![E::zero(); len(&tensors.c)]),
        ..Inputs::default()
    };
    let gradients = OutputGradients { dy: Some(values(len(&tensors.y), 1.0)), ..OutputGradients::default() };
    let timed = |mode| {
        let mut pass = Pass::new(backend, &descriptor, shape, mode, &inputs, &gradients)?;
        sample(args.seconds, || pass.run())
    };
    let forward = timed(ForwardMode::Inference)?;
    let train = timed(ForwardMode::Training)?;

    let us = |time: Duration| time.as_secs_f64() * 1e6;
    let median = |times: &[Duration]| us(times[times.len() / 2]);
    let name = backend.name();
    if args.json {
        let line = serde_json::json!({
            "backend": name,
            "dtype": E::DTYPE.name(),
            "cell": descriptor.cell.spec().name,
            "seq_len": shape.seq_len,
            "batch": shape.batch,
            "forward_us": median(&forward),
            "forward_best_us": us(forward[0]),
            "train_us": median(&train),
            "train_best_us": us(train[0]),
            "workspace": space.workspace,
            "reserve": space.reserve,
        });
        print(&format!("{line}\n"))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut table = format!(
        "{name}, {}, workspace {} and reserve {} elements\n{:<10}{:>14}{:>14}{:>14}{:>8}\n",
        E::DTYPE,
        space.workspace,
        space.reserve,
        "",
        "µs a step",
        "µs a call",
        "best call",
        "calls"
    );
    for (label, times) in [("forward", &forward), ("training", &train)] {
        let call = median(times);
        let (step, best) = (call / shape.seq_len as f64, us(times[0]));
        table += &format!("{label:<10}{step:>14.3}{call:>14.1}{best:>14.1}{:>8}\n", times.len());
    }
    print(&table)?;
    Ok(ExitCode::SUCCESS)
}
