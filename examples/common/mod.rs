//! What the examples share: their options, the device they run on, and the line that tells a result.
#![allow(dead_code, reason = "not every example uses all of it")]

pub mod recall;

use std::path::PathBuf;

use ndarray::{Array2, ArrayD};

/// Where an example computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// A GPU emulated on the processor, for tests: very slow (feature `emulated`).
    Emulated,
}

/// The options that all examples have.
#[derive(Clone, Debug)]
pub struct Options {
    /// Few epochs, or little data: shows that the example runs, not what it can reach.
    pub short: bool,
    /// Where to compute.
    pub device: Device,
    /// Folder for pictures and models.
    pub out: PathBuf,
    /// Seed of everything random.
    pub seed: u64,
    /// What is left: the example's own arguments.
    pub rest: Vec<String>,
}

/// Reads `[--short] [--device cpu|cuda|emulated] [--out DIR] [--seed N]` and the example's own arguments.
pub fn options(example: &str) -> Options {
    let out = PathBuf::from("out").join(example);
    let mut options = Options { short: false, device: Device::Cpu, out, seed: 1, rest: Vec::new() };
    let mut args = std::env::args().skip(1);
    let usage = |problem: String| -> ! {
        eprintln!("error: {problem}\nusage: {example} [--short] [--device cpu|cuda|emulated] [--out DIR] [--seed N] …");
        std::process::exit(2);
    };
    while let Some(arg) = args.next() {
        let mut value = || args.next().unwrap_or_else(|| usage(format!("{arg} needs a value")));
        match arg.as_str() {
            "--short" => options.short = true,
            "--out" => options.out = value().into(),
            "--seed" => options.seed = value().parse().unwrap_or_else(|_| usage("--seed needs a number".to_owned())),
            "--device" => {
                options.device = match value().as_str() {
                    "cpu" => Device::Cpu,
                    "cuda" => Device::Cuda,
                    "emulated" => Device::Emulated,
                    other => usage(format!("no device {other}")),
                }
            }
            _ => options.rest.push(arg),
        }
    }
    options
}

/// A line that programs read: `result: {…}`.
pub fn result(example: &str, model: &str, metric: &str, value: f64, seconds: f64) {
    println!(
        "result: {{\"example\":\"{example}\",\"model\":\"{model}\",\"metric\":\"{metric}\",\"value\":{value:e},\"seconds\":{seconds:.3}}}"
    );
}

/// `$body` with `$backend` a function that gives a backend of the device chosen, as often as it is called. Never on another device: where
/// there is no such device, that is the error. GPUs are for release builds only: every device is the whole example compiled once more, which
/// builds for tests need not wait for.
#[macro_export]
macro_rules! on_device {
    ($device:expr, |$backend:ident| $body:expr) => {
        match $device {
            $crate::common::Device::Cpu => {
                let $backend = || fused_rnn::backend::cpu::CpuBackend::<f32>::new();
                $body
            }
            #[cfg(all(feature = "cuda", not(debug_assertions)))]
            $crate::common::Device::Cuda => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
                let driver = Driver::open(0)?;
                let stream = DriverStream::new(&driver)?;
                let $backend =
                    || CudaBackend::<f32, _>::with_options(driver.clone(), stream.clone(), Default::default());
                $body
            }
            #[cfg(all(feature = "emulated", not(debug_assertions)))]
            $crate::common::Device::Emulated => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
                let device = std::sync::Arc::new(Emulated::new(Schedule::default())?);
                let $backend =
                    || CudaBackend::<f32, _>::with_options(device.clone(), EmulatedStream, Default::default());
                $body
            }
            #[allow(unreachable_patterns, reason = "which devices there are depends on the features")]
            other => Err(fused_rnn::Error::Unsupported {
                what: format!("--device {other:?}").to_lowercase(),
                why: "this build lacks it; build with --release, and with `--features cuda` or `--features emulated`"
                    .to_owned(),
            }),
        }
    };
}

/// A file of `examples/data`, wherever the example is run.
pub fn data(file: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "examples", "data", file].iter().collect()
}

/// A prediction of any shape as rows of its last axis.
pub fn rows(prediction: &ArrayD<f32>) -> Array2<f32> {
    let columns = prediction.shape().last().copied().unwrap_or(1);
    let values: Vec<f32> = prediction.iter().copied().collect();
    Array2::from_shape_fn((values.len() / columns, columns), |(row, column)| values[row * columns + column])
}

/// The path of a picture of the folder for pictures, which is made, and said.
pub fn picture_path(options: &Options, file: &str) -> fused_rnn::Result<PathBuf> {
    std::fs::create_dir_all(&options.out).map_err(|source| fused_rnn::Error::Io {
        action: "create",
        path: options.out.clone(),
        source,
    })?;
    let path = options.out.join(file);
    println!("picture: {}", path.display());
    Ok(path)
}

/// Draws into a file of the folder for pictures; says so where this build cannot draw.
#[macro_export]
macro_rules! picture {
    ($options:expr, $file:expr, |$path:ident| $draw:expr) => {{
        #[cfg(feature = "plot")]
        let drawn = $crate::common::picture_path($options, $file).and_then(|file| {
            let $path: &std::path::Path = &file;
            $draw
        });
        #[cfg(not(feature = "plot"))]
        let drawn = {
            println!("no picture {}: build with `--features plot`", $file);
            fused_rnn::Result::Ok(())
        };
        drawn
    }};
}
