//! `fused-rnn bench`: how long an operator takes.

use std::io::BufRead;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Parser, ValueEnum};
use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::device_pass::{DeviceGradients, DeviceInputs, DevicePass};
use fused_rnn::backend::{ForwardMode, TempSpace, Tensor};
use fused_rnn::rnn::WeightLayout;
use fused_rnn::rnn::dropout::philox4x32;
use fused_rnn::{DType, Device, Error, Result};

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
    /// Element type: f32 or f64; f16 or bf16 too on the cuda backend
    #[arg(long, default_value = "f32")]
    dtype: DType,
    /// Threads of the cpu backend; all cores unless given
    #[arg(long)]
    threads: Option<usize>,
    /// Number of the cuda backend's GPU
    #[arg(long, default_value_t = 0)]
    device: usize,
    /// cuda, f32: multiply on the tensor cores, operands rounded to tf32
    #[arg(long)]
    tf32: bool,
    /// cuda: what computes large matrix products: kernels, the crate's own, or cublaslt, in builds with that feature
    #[arg(long, default_value = "kernels")]
    matmul: String,
    /// cuda: replay a CUDA graph of the call instead of making it
    #[arg(long)]
    graph: bool,
    /// Do not time training
    #[arg(long)]
    inference: bool,
    /// How long to time each of the two
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// One line of JSON instead of a table
    #[arg(long)]
    json: bool,
    /// Then read more lists of these arguments from standard input, one a line, and time each; what cannot be timed is a line
    /// of JSON with `error`
    #[arg(long)]
    lines: bool,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Backend {
    Reference,
    Cpu,
    Cuda,
}

/// What a line of standard input holds.
#[derive(Parser)]
#[command(no_binary_name = true)]
struct Line {
    #[command(flatten)]
    args: Args,
}

pub fn run(args: Args) -> Result<ExitCode> {
    let mut gpu = cuda::Gpu::default();
    args.time(&mut gpu)?;
    if !args.lines {
        return Ok(ExitCode::SUCCESS);
    }
    let mut worst = ExitCode::SUCCESS;
    for line in std::io::stdin().lock().lines() {
        let line = line.map_err(|source| Error::Io { action: "read", path: "standard input".into(), source })?;
        let timed = Line::try_parse_from(line.split_whitespace())
            .map_err(|error| Error::InvalidOption {
                option: line.clone(),
                expected: "the arguments of bench".into(),
                got: error.to_string(),
            })
            .and_then(|line| line.args.time(&mut gpu));
        if let Err(error) = timed {
            print(&format!("{}\n", serde_json::json!({ "arguments": line, "error": error.to_string() })))?;
            worst = ExitCode::from(1);
        }
    }
    Ok(worst)
}

impl Args {
    fn time(&self, gpu: &mut cuda::Gpu) -> Result<()> {
        if !(self.seconds > 0.0 && self.seconds <= 3600.0) {
            return Err(Error::InvalidOption {
                option: "seconds".into(),
                expected: "a number in 0..=3600 above 0".into(),
                got: self.seconds.to_string(),
            });
        }
        let others = [("tf32", self.tf32), ("graph", self.graph), ("matmul", self.matmul != "kernels")];
        if let (true, Some((option, _))) = (self.backend != Backend::Cuda, others.into_iter().find(|(_, given)| *given))
        {
            return Err(Error::InvalidOption {
                option: option.into(),
                expected: "the cuda backend".into(),
                got: "another".into(),
            });
        }
        let report = match (self.backend, self.dtype) {
            (Backend::Cuda, _) => gpu.time(self),
            (Backend::Reference, DType::F32 | DType::F64) => self.on_host(&Device::reference()),
            (Backend::Cpu, DType::F32 | DType::F64) => self.on_host(&self.cpu()?),
            (_, other) => Err(Error::Unsupported {
                what: format!("element type {other}"),
                why: "the host backends compute in f32 and f64".into(),
            }),
        }?;
        print(&if self.json { report.json(self) } else { report.table(self) })
    }

    fn cpu(&self) -> Result<Device> {
        match self.threads {
            Some(threads) => Ok(Device::from(CpuBackend::<f32>::with_threads(threads)?)),
            None => Ok(Device::cpu()),
        }
    }

    /// The modes to be timed.
    fn modes(&self) -> impl Iterator<Item = ForwardMode> {
        [ForwardMode::Inference, ForwardMode::Training].into_iter().take(if self.inference { 1 } else { 2 })
    }

    /// The one of them that needs the most memory.
    fn last_mode(&self) -> ForwardMode {
        if self.inference { ForwardMode::Inference } else { ForwardMode::Training }
    }

    fn on_host(&self, device: &Device) -> Result<Report> {
        let device = device.with_dtype(self.dtype)?;
        let (descriptor, shape) = (self.operator.descriptor(), self.operator.shape());
        let space = device.plan(&descriptor, shape, self.last_mode())?.temp_space();
        self.check_sizes(space)?;
        let mut times = Vec::new();
        for mode in self.modes() {
            let mut pass = self.pass(&device, mode)?;
            times.push(sample(self.seconds, || {
                let before = Instant::now();
                pass.run()?;
                Ok(microseconds(before.elapsed()))
            })?);
        }
        Ok(Report { backend: device.name(), kernels: None, space, times })
    }

    /// Checks that what passes read fits into memory together with `space`.
    fn check_sizes(&self, space: TempSpace) -> Result<()> {
        let descriptor = self.operator.descriptor();
        let tensors = self.operator.shape().tensors(&descriptor)?;
        let weights = WeightLayout::new(&descriptor)?.len();
        let sizes = [
            weights,
            len(&tensors.x),
            len(&tensors.y),
            len(&tensors.h),
            len(&tensors.c),
            space.workspace,
            space.reserve,
        ];
        let elements = sizes.iter().fold(0usize, |sum, size| sum.saturating_add(*size));
        if elements <= MOST_ELEMENTS {
            return Ok(());
        }
        Err(Error::InvalidOption {
            option: "sizes".into(),
            expected: format!("at most {MOST_ELEMENTS} elements of all buffers together"),
            got: elements.to_string(),
        })
    }

    /// A pass with values that are the same every time.
    fn pass(&self, device: &Device, mode: ForwardMode) -> Result<DevicePass> {
        let (descriptor, shape) = (self.operator.descriptor(), self.operator.shape());
        let tensors = shape.tensors(&descriptor)?;
        let weights = WeightLayout::new(&descriptor)?.len();
        let has_c = descriptor.cell.has_cell_state();
        let inputs = DeviceInputs {
            weights: values(device, "weights", weights, 1.0 / (descriptor.hidden_size as f64).sqrt())?,
            x: values(device, "x", len(&tensors.x), 1.0)?,
            h0: Some(device.allocate("h0", len(&tensors.h))?),
            c0: has_c.then(|| device.allocate("c0", len(&tensors.c))).transpose()?,
            lengths: None,
            resets: None,
            dropout_seed: 0,
        };
        let dy = (mode == ForwardMode::Training).then(|| values(device, "dy", len(&tensors.y), 1.0)).transpose()?;
        let gradients = DeviceGradients { dy, ..DeviceGradients::default() };
        DevicePass::new(device, &descriptor, shape, mode, inputs, gradients)
    }
}

fn len(sizes: &[usize]) -> usize {
    sizes.iter().product()
}

/// Elements of all buffers together: 8 GiB of f32. More is refused before anything is allocated.
const MOST_ELEMENTS: usize = 1 << 31;

/// Uniform values in `-scale..scale`, the same every time. They repeat after a prime number of them, since drawing many would
/// take longer than what is timed.
fn values(device: &Device, what: &str, len: usize, scale: f64) -> Result<Tensor> {
    let draw = |i: u32| (f64::from(philox4x32([i, 0, 0, 0], 1)[0]) / 2_147_483_648.0 - 1.0) * scale;
    let drawn: Vec<f64> = (0..65_521.min(len) as u32).map(draw).collect();
    device.rounded(what, len, drawn.iter().copied().cycle().take(len))
}

fn microseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e6
}

/// The times of as many calls as fit `seconds`, three at least, after one to warm up; in order of size.
fn sample(seconds: f64, mut call: impl FnMut() -> Result<f64>) -> Result<Vec<f64>> {
    call()?;
    let mut times = Vec::new();
    let start = Instant::now();
    while times.len() < 3 || start.elapsed().as_secs_f64() < seconds {
        times.push(call()?);
    }
    times.sort_unstable_by(f64::total_cmp);
    Ok(times)
}

/// What was measured, in microseconds a call.
struct Report {
    backend: &'static str,
    /// Which kernels, and why these.
    kernels: Option<(String, String)>,
    space: TempSpace,
    /// In order of size: of inference, then of training if asked for.
    times: Vec<Vec<f64>>,
}

/// The time that a tenth of all reach, half of all, ….
fn quantile(times: &[f64], part: f64) -> f64 {
    times[((times.len() - 1) as f64 * part).round() as usize]
}

impl Report {
    fn json(&self, args: &Args) -> String {
        let (descriptor, shape) = (args.operator.descriptor(), args.operator.shape());
        let mut line = serde_json::json!({
            "backend": self.backend,
            "dtype": args.dtype.name(),
            "tf32": args.tf32,
            "matmul": args.matmul,
            "graph": args.graph,
            "cell": descriptor.cell.spec().name,
            "seq_len": shape.seq_len,
            "batch": shape.batch,
            "input_size": descriptor.input_size,
            "hidden_size": descriptor.hidden_size,
            "layers": descriptor.num_layers,
            "directions": descriptor.num_directions(),
            "workspace": self.space.workspace,
            "reserve": self.space.reserve,
        });
        if let Some((kernels, why)) = &self.kernels {
            line["kernels"] = kernels.clone().into();
            line["why"] = why.clone().into();
        }
        for (name, times) in ["forward", "train"].iter().zip(&self.times) {
            line[format!("{name}_us")] = quantile(times, 0.5).into();
            line[format!("{name}_best_us")] = times[0].into();
            line[format!("{name}_p10_us")] = quantile(times, 0.1).into();
            line[format!("{name}_p90_us")] = quantile(times, 0.9).into();
            line[format!("{name}_samples")] = times.len().into();
        }
        format!("{line}\n")
    }

    fn table(&self, args: &Args) -> String {
        let mut table = format!(
            "{}, {}{}{}, workspace {} and reserve {} elements\n",
            self.backend,
            args.dtype,
            if args.tf32 { " as tf32" } else { "" },
            if args.graph { ", as a CUDA graph" } else { "" },
            self.space.workspace,
            self.space.reserve
        );
        if let Some((kernels, why)) = &self.kernels {
            table += &format!("{kernels} kernels: {why}\n");
        }
        table += &format!(
            "{:<10}{:>14}{:>14}{:>14}{:>14}{:>14}{:>8}\n",
            "", "µs a step", "µs a call", "10 % below", "90 % below", "best call", "samples"
        );
        for (label, times) in ["forward", "training"].iter().zip(&self.times) {
            let call = quantile(times, 0.5);
            let step = call / args.operator.seq_len as f64;
            let (low, high, best) = (quantile(times, 0.1), quantile(times, 0.9), times[0]);
            table +=
                &format!("{label:<10}{step:>14.3}{call:>14.1}{low:>14.1}{high:>14.1}{best:>14.1}{:>8}\n", times.len());
        }
        table
    }
}

/// Times on a GPU, taken by the GPU.
#[cfg(feature = "cuda")]
mod cuda {
    use std::sync::Arc;

    use fused_rnn::backend::TempSpace;
    use fused_rnn::backend::cuda::driver::{Driver, DriverStream, Graph, Timer};
    use fused_rnn::backend::cuda::{Compute, CudaBackend, CudaOptions};

    use super::{Args, Device, Report, Result, sample};

    /// Short calls are timed together: as many as take about this long.
    const SAMPLE_US: f64 = 1000.0;
    /// But not more than this, since streams take only so many launches before they make the caller wait.
    const MOST_CALLS: f64 = 64.0;

    /// The GPU of the last line, with its loaded kernels.
    #[derive(Default)]
    pub struct Gpu(Option<Arc<Driver>>);

    impl Gpu {
        fn open(&mut self, ordinal: usize) -> Result<Arc<Driver>> {
            match &self.0 {
                Some(driver) if driver.ordinal() == ordinal => Ok(Arc::clone(driver)),
                _ => Ok(Arc::clone(self.0.insert(Driver::open(ordinal)?))),
            }
        }

        pub fn time(&mut self, args: &Args) -> Result<Report> {
            let driver = self.open(args.device)?;
            let (stream, timer) = (DriverStream::new(&driver)?, Timer::new(&driver)?);
            let options = CudaOptions {
                compute: if args.tf32 { Compute::Tf32 } else { Compute::Exact },
                matmul: args.matmul.parse()?,
                ..CudaOptions::default()
            };
            let backend = CudaBackend::<f32, _>::with_options(Arc::clone(&driver), stream.clone(), options);
            let device = Device::from(backend).with_dtype(args.dtype)?;
            let plan = device.plan(&args.operator.descriptor(), args.operator.shape(), args.last_mode())?;
            // Workspace and reserve are the device's, which says itself when there is too little.
            args.check_sizes(TempSpace { workspace: 0, reserve: 0 })?;
            let mut times = Vec::new();
            for mode in args.modes() {
                let mut pass = args.pass(&device, mode)?;
                let graph = if args.graph { Some(Graph::capture(&driver, &stream, || pass.run())?) } else { None };
                let mut call = || match &graph {
                    // SAFETY: the pass, which owns all memory of the graph, is alive until the stream is done below.
                    #[allow(unsafe_code)]
                    Some(graph) => unsafe { graph.launch(&stream) },
                    None => pass.run(),
                };
                let mut timed = |calls: usize| -> Result<f64> {
                    timer.start(&stream)?;
                    (0..calls).try_for_each(|_| call())?;
                    timer.stop(&stream)?;
                    Ok(timer.microseconds()? / calls as f64)
                };
                timed(1)?;
                let calls = (SAMPLE_US / timed(1)?.max(1.0)).clamp(1.0, MOST_CALLS).round() as usize;
                times.push(sample(args.seconds, || timed(calls))?);
            }
            let kernels = plan.time_loops().into_iter().next().map(|forward| (forward.family.to_string(), forward.why));
            Ok(Report { backend: device.name(), kernels, space: plan.temp_space(), times })
        }
    }
}

/// This build has no CUDA backend.
#[cfg(not(feature = "cuda"))]
mod cuda {
    use super::{Args, Error, Report, Result};

    #[derive(Default)]
    pub struct Gpu;

    impl Gpu {
        pub fn time(&mut self, _: &Args) -> Result<Report> {
            Err(Error::Unsupported {
                what: "the cuda backend".into(),
                why: "this build lacks the feature `cuda`; build with `--features cuda`".into(),
            })
        }
    }
}
