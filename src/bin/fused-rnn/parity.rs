//! `fused-rnn parity`

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::ValueEnum;
use serde::Serialize;

use fused_rnn::parity::{Case, Report, check_tolerance};
use fused_rnn::{DType, Device, Error, Result};

use crate::output::{WIDEST, one_line, print};

/// Runs recurrent operators that PyTorch, Keras, ONNX or ONNX Runtime ran before, and compares every result.
///
/// Prints one line a file: its name, PASS or FAIL, the worst relative error and the tensor that has it. The exit code is 0
/// if all files passed, 1 if any failed or could not be read, 2 if the command itself is wrong.
#[derive(clap::Args)]
#[command(
    after_help = "The exit code is 0 if all files passed, 1 if any failed or could not be read, 2 if the command itself is wrong."
)]
pub struct Args {
    /// Parity cases (safetensors).
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Who computes.
    #[arg(long, value_enum, default_value_t = Backend::Cpu)]
    backend: Backend,
    /// Element type to compute in: f64 or f32; on cuda, emulated and ptx f16 and bf16 as well.
    #[arg(long, default_value = "f64")]
    dtype: DType,
    /// cuda, emulated and ptx: kernels to prefer where they can take the case: block, cluster, grid or step [default: as plans choose].
    #[arg(long, value_name = "FAMILY")]
    family: Option<String>,
    /// cuda: number of the GPU.
    #[arg(long, default_value_t = 0, value_name = "N")]
    device: usize,
    /// emulated, ptx: seed of the order in which threads run, one warp or block lagging; 0 is the natural order.
    #[arg(long, default_value_t = 0, value_name = "N")]
    schedule: u64,
    /// Largest relative error that passes [default: 1e-10; 2e-5 if the case or --dtype is f32; with 16 bits, derived from the
    /// effect of rounding the inputs].
    #[arg(long, value_name = "X", allow_negative_numbers = true)]
    tolerance: Option<f64>,
    /// Print JSON, one object a line, the last one the counts.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Backend {
    /// The oracle: plain loops.
    Reference,
    /// The fast CPU path.
    Cpu,
    /// NVIDIA GPUs.
    Cuda,
    /// The CUDA kernels, run on the host (builds with the feature `emulated`).
    Emulated,
    /// The PTX of the CUDA kernels, interpreted on the host (builds with the feature `ptx`).
    Ptx,
}

/// A line of `--json`.
#[derive(Serialize)]
struct FileLine<'a> {
    name: &'a str,
    file: String,
    result: &'static str,
    /// `null` where it is not finite, or where the case could not be run.
    worst_relative_error: Option<f64>,
    worst_tensor: Option<&'a str>,
    tolerance: Option<f64>,
    error: Option<String>,
}

/// The last line of `--json`.
#[derive(Serialize)]
struct CountLine {
    passed: usize,
    failed: usize,
}

pub fn run(args: Args) -> Result<ExitCode> {
    args.tolerance.map(check_tolerance).transpose()?;
    if args.schedule != 0 && !matches!(args.backend, Backend::Emulated | Backend::Ptx) {
        return Err(Error::InvalidOption {
            option: "schedule".to_owned(),
            expected: "--backend emulated or ptx, whose threads run in an order of choice".to_owned(),
            got: "another backend".to_owned(),
        });
    }
    if args.family.is_some() && matches!(args.backend, Backend::Reference | Backend::Cpu) {
        return Err(Error::InvalidOption {
            option: "family".to_owned(),
            expected: "--backend cuda, emulated or ptx, which have families of kernels".to_owned(),
            got: "a backend on the host".to_owned(),
        });
    }
    let device = open(&args)?;
    let failed = check_files(&args, &device)?;
    Ok(if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The device that the arguments name, in their element type.
fn open(args: &Args) -> Result<Device> {
    let device = match args.backend {
        Backend::Reference | Backend::Cpu if !matches!(args.dtype, DType::F64 | DType::F32) => {
            return Err(Error::Unsupported {
                what: format!("--dtype {} on the host", args.dtype),
                why: "the host computes in f64 and f32; use one of them, or --backend cuda, emulated or ptx".to_owned(),
            });
        }
        Backend::Reference => Device::reference(),
        Backend::Cpu => Device::cpu(),
        #[cfg(feature = "cuda")]
        Backend::Cuda => {
            use fused_rnn::backend::cuda::CudaBackend;
            Device::from(CudaBackend::<f32, _>::open(args.device, options(args)?)?)
        }
        #[cfg(feature = "emulated")]
        Backend::Emulated => {
            use fused_rnn::backend::cuda::CudaBackend;
            use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
            let schedule = Schedule { seed: args.schedule, starve: args.schedule != 0 };
            let device = std::sync::Arc::new(Emulated::new(schedule)?);
            Device::from(CudaBackend::<f32, _>::with_options(device, EmulatedStream, options(args)?))
        }
        #[cfg(feature = "ptx")]
        Backend::Ptx => {
            use fused_rnn::backend::cuda::CudaBackend;
            use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream, Schedule};
            let device = std::sync::Arc::new(Ptx::new(Schedule { seed: args.schedule })?);
            Device::from(CudaBackend::<f32, _>::with_options(device, PtxStream, options(args)?))
        }
        #[cfg(not(all(feature = "cuda", feature = "emulated", feature = "ptx")))]
        _ => {
            let feature = match args.backend {
                Backend::Cuda => "cuda",
                Backend::Emulated => "emulated",
                _ => "ptx",
            };
            return Err(Error::Unsupported {
                what: format!("--backend {feature}"),
                why: format!("this build lacks the feature `{feature}`; build with `--features {feature}`"),
            });
        }
    };
    device.with_dtype(args.dtype)
}

#[cfg(feature = "cuda")]
fn options(args: &Args) -> Result<fused_rnn::backend::cuda::CudaOptions> {
    use fused_rnn::backend::cuda::{CudaOptions, FamilyChoice};
    let family = match &args.family {
        Some(name) => FamilyChoice::Prefer(name.parse()?),
        None => FamilyChoice::Fastest,
    };
    Ok(CudaOptions { family, ..CudaOptions::default() })
}

/// Checks every file, prints as it goes, and returns how many failed.
fn check_files(args: &Args, device: &Device) -> Result<usize> {
    let names: Vec<String> = args.files.iter().map(|file| name_of(file)).collect();
    let width = names.iter().map(|name| name.chars().count()).max().unwrap_or(0).min(WIDEST);
    let mut failed = 0;
    for (file, name) in args.files.iter().zip(&names) {
        let report = Case::read(file).and_then(|case| case.run_on(device, args.tolerance));
        let passed = report.as_ref().is_ok_and(Report::passed);
        failed += usize::from(!passed);
        let result = if passed { "PASS" } else { "FAIL" };
        let worst = report.as_ref().ok().and_then(Report::worst);
        if args.json {
            print_json(&FileLine {
                name,
                file: file.display().to_string(),
                result,
                worst_relative_error: worst.map(|w| w.relative_error).filter(|e| e.is_finite()),
                worst_tensor: worst.map(|w| w.tensor.as_str()),
                tolerance: report.as_ref().ok().and_then(Report::tolerance),
                error: report.as_ref().err().map(Error::to_string),
            })?;
        } else {
            let rest = match (&report, worst) {
                (Err(error), _) => format!("error: {error}"),
                (_, Some(worst)) => format!("{:9.2e}  {}", worst.relative_error, worst.tensor),
                (_, None) => "error: nothing was compared".to_owned(),
            };
            print(&format!("{}\n", one_line(&format!("{name:width$}  {result}  {rest}"))))?;
        }
    }
    let passed = args.files.len() - failed;
    if args.json {
        print_json(&CountLine { passed, failed })?;
    } else {
        print(&format!("{passed} passed, {failed} failed\n"))?;
    }
    Ok(failed)
}

fn print_json(line: &impl Serialize) -> Result<()> {
    let line = serde_json::to_string(line).map_err(|e| Error::Io {
        action: "write",
        path: "standard output".into(),
        source: e.into(),
    })?;
    print(&format!("{line}\n"))
}

fn name_of(file: &Path) -> String {
    file.file_stem().map_or_else(|| file.to_string_lossy(), |stem| stem.to_string_lossy()).into_owned()
}
