//! Compiles the kernels. Without the feature `cuda` there is nothing to do.
//!
//! With it, every unit of `kernels/catalog.rs` is compiled by libnvrtc for every target, and the images are embedded in the
//! library (`src/backend/cuda/images/mod.rs`). Without libnvrtc the sources alone are embedded, and compiled at first use. With
//! the feature `emulated` the same units are compiled for the host as well.
//!
//! Variables, besides those that say where libnvrtc is (`src/backend/cuda/images/nvrtc.rs`):
//!
//! | variable | effect |
//! |---|---|
//! | `FUSED_RNN_REQUIRE_NVRTC=1` | no libnvrtc is an error |
//! | `FUSED_RNN_CUDA_ARCHS=sm_90a,compute_75` | these targets instead of the usual ones |
//! | `FUSED_RNN_KERNEL_CACHE=FOLDER` | results are kept there, for all profiles and checkouts, instead of in `OUT_DIR` |
//! | `FUSED_RNN_HOST_SANITIZE=1` | the host's version is built with AddressSanitizer and UndefinedBehaviorSanitizer (of g++) |

#[cfg(feature = "cuda")]
#[path = "kernels/catalog.rs"]
#[allow(dead_code)]
mod catalog;
#[cfg(feature = "cuda")]
#[path = "src/backend/cuda/images/compile.rs"]
#[allow(dead_code)]
mod compile;
#[cfg(feature = "cuda")]
#[path = "build/device.rs"]
mod device;
#[cfg(feature = "emulated")]
#[path = "build/host.rs"]
mod host;
#[cfg(feature = "cuda")]
#[path = "src/backend/cuda/images/nvrtc.rs"]
#[allow(dead_code)]
mod nvrtc;
#[cfg(feature = "cuda")]
#[path = "src/cell/spec.rs"]
#[allow(dead_code)]
mod spec;

#[cfg(feature = "cuda")]
use spec::for_each_cell;

use std::process::ExitCode;

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed=build.rs");
    // For tests/cuda/kernel_images.rs, which runs this program on damaged kernels.
    if let (Ok(program), Ok(target)) = (std::env::current_exe(), std::env::var("TARGET")) {
        println!("cargo::rustc-env=FUSED_RNN_BUILD_SCRIPT={}", program.display());
        println!("cargo::rustc-env=FUSED_RNN_TARGET={target}");
    }
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            // Cargo shows one line a directive.
            message.lines().for_each(|line| println!("cargo::error={line}"));
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    #[cfg(feature = "cuda")]
    device::build()?;
    #[cfg(feature = "emulated")]
    host::build()?;
    Ok(())
}
