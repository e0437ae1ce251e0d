//! The GPU of tests that need one.

use std::sync::Arc;

use fused_rnn::backend::cuda::driver::Driver;

/// GPU 0. Tests that ask for it are ignored unless they are asked for, so that its absence is a failure.
pub fn gpu() -> Arc<Driver> {
    Driver::open(0).unwrap_or_else(|error| panic!("this test needs a GPU: {error}"))
}
