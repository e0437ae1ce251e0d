//! Where models are trained and run: `--device`.

use fused_rnn::Result;
use fused_rnn::backend::DenseBackend;
use fused_rnn::backend::cpu::CpuBackend;

/// The machine that computes.
#[derive(Clone, Copy, clap::ValueEnum)]
pub enum Device {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// A GPU emulated on the processor, for tests: very slow.
    Emulated,
}

/// What a GPU multiplies. Weights and sums are f32 whatever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Precision {
    /// Numbers as they are.
    F32,
    /// Rounded to tf32.
    Tf32,
    /// Mixed precision in bfloat16.
    Bf16,
    /// Mixed precision in half precision, with a scaled loss.
    F16,
}

/// What is to be done on the machine chosen.
pub trait Work {
    /// What it gives.
    type Output;

    /// Does it.
    fn on<B: DenseBackend<Elem = f32, Plan: 'static> + 'static>(self, backend: B) -> Result<Self::Output>;
}

impl Device {
    /// Opens the device and does the work there. Never on another: where there is no such device, that is the error.
    pub fn run<W: Work>(self, work: W) -> Result<W::Output> {
        self.run_in(Precision::F32, work)
    }

    /// The same, multiplying in another precision, which the processor refuses.
    pub fn run_in<W: Work>(self, precision: Precision, work: W) -> Result<W::Output> {
        #[cfg(feature = "cuda")]
        let options = {
            use fused_rnn::backend::cuda::{Compute, CudaOptions};
            let compute = match precision {
                Precision::F32 => Compute::Exact,
                Precision::Tf32 => Compute::Tf32,
                Precision::Bf16 => Compute::Bf16,
                Precision::F16 => Compute::F16,
            };
            CudaOptions { compute, ..CudaOptions::default() }
        };
        match self {
            Device::Cpu if precision != Precision::F32 => Err(fused_rnn::Error::Unsupported {
                what: format!("--precision {} on the processor", format!("{precision:?}").to_lowercase()),
                why: "it computes in f32; choose --device cuda, or leave the option out".to_owned(),
            }),
            Device::Cpu => work.on(CpuBackend::<f32>::new()),
            #[cfg(feature = "cuda")]
            Device::Cuda => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
                let driver = Driver::open(0)?;
                let stream = DriverStream::new(&driver)?;
                work.on(CudaBackend::<f32, _>::with_options(driver, stream, options))
            }
            #[cfg(feature = "emulated")]
            Device::Emulated => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
                let device = std::sync::Arc::new(Emulated::new(Schedule::default())?);
                work.on(CudaBackend::<f32, _>::with_options(device, EmulatedStream, options))
            }
            #[cfg(not(feature = "cuda"))]
            Device::Cuda => Err(missing("cuda")),
            #[cfg(not(feature = "emulated"))]
            Device::Emulated => Err(missing("emulated")),
        }
    }
}

#[cfg(not(all(feature = "cuda", feature = "emulated")))]
fn missing(feature: &str) -> fused_rnn::Error {
    fused_rnn::Error::Unsupported {
        what: format!("--device {feature}"),
        why: format!("this build lacks the feature `{feature}`; build with `--features {feature}`"),
    }
}
