//! The interpreter of PTX that tests run kernels on.

use std::io::Write;
use std::sync::Arc;

use fused_rnn::backend::cuda::device::Device;
use fused_rnn::backend::cuda::ptx::{Ptx, Schedule};

/// An interpreter with warps in this order. Nothing where the build had no libnvrtc and there is none now: the test is left out, and says so. With
/// `FUSED_RNN_REQUIRE_NVRTC` set that is a failure.
pub fn ptx(seed: u64) -> Option<Arc<Ptx>> {
    let device = Arc::new(Ptx::new(Schedule { seed }).expect("a known compute capability"));
    let Err(error) = device.kernel("test_order") else { return Some(device) };
    assert!(std::env::var_os("FUSED_RNN_REQUIRE_NVRTC").is_none(), "{error}");
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED {test}: no PTX to interpret ({error})");
    None
}
