//! Where models are trained and run: `--device` and `--precision`.

use fused_rnn::{Device, Error, Result};

/// The machine that computes.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceKind {
    /// The processor.
    Cpu,
    /// The first NVIDIA GPU.
    Cuda,
    /// A GPU emulated on the processor, for tests: very slow.
    Emulated,
    /// The kernels' PTX, interpreted on the processor, for tests: very slow.
    Ptx,
    /// The processor by plain loops, to compare with: slow.
    Reference,
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

impl DeviceKind {
    /// Opens the device. Never another: where there is no such device, that is the error.
    pub fn open(self) -> Result<Device> {
        self.open_in(Precision::F32)
    }

    /// The same, multiplying in another precision, which the processor refuses.
    pub fn open_in(self, precision: Precision) -> Result<Device> {
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
            DeviceKind::Cpu | DeviceKind::Reference if precision != Precision::F32 => Err(Error::Unsupported {
                what: format!("--precision {} on the processor", format!("{precision:?}").to_lowercase()),
                why: "it computes in f32; choose --device cuda, or leave the option out".to_owned(),
            }),
            DeviceKind::Cpu => Ok(Device::cpu()),
            DeviceKind::Reference => Ok(Device::reference()),
            #[cfg(feature = "cuda")]
            DeviceKind::Cuda => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::driver::{Driver, DriverStream};
                let driver = Driver::open(0)?;
                let stream = DriverStream::new(&driver)?;
                Ok(Device::from(CudaBackend::<f32, _>::with_options(driver, stream, options)))
            }
            #[cfg(feature = "emulated")]
            DeviceKind::Emulated => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::emulated::{Emulated, EmulatedStream, Schedule};
                let emulated = std::sync::Arc::new(Emulated::new(Schedule::default())?);
                Ok(Device::from(CudaBackend::<f32, _>::with_options(emulated, EmulatedStream, options)))
            }
            #[cfg(feature = "ptx")]
            DeviceKind::Ptx => {
                use fused_rnn::backend::cuda::CudaBackend;
                use fused_rnn::backend::cuda::ptx::{Ptx, PtxStream, Schedule};
                let ptx = std::sync::Arc::new(Ptx::new(Schedule::default())?);
                Ok(Device::from(CudaBackend::<f32, _>::with_options(ptx, PtxStream, options)))
            }
            #[cfg(not(feature = "cuda"))]
            DeviceKind::Cuda => Err(missing("cuda")),
            #[cfg(not(feature = "emulated"))]
            DeviceKind::Emulated => Err(missing("emulated")),
            #[cfg(not(feature = "ptx"))]
            DeviceKind::Ptx => Err(missing("ptx")),
        }
    }
}

#[cfg(not(all(feature = "cuda", feature = "emulated", feature = "ptx")))]
fn missing(feature: &str) -> Error {
    Error::Unsupported {
        what: format!("--device {feature}"),
        why: format!("this build lacks the feature `{feature}`; build with `--features {feature}`"),
    }
}
