//! The GPU that tests run on, where there is one.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use fused_rnn::backend::cuda::driver::Driver;

/// GPU 0, or `None` where there is none and none is required (`FUSED_RNN_REQUIRE_GPU=1`); then what is skipped is said once.
pub fn gpu(what: &str) -> Option<Arc<Driver>> {
    match Driver::open(0) {
        Ok(driver) => Some(driver),
        Err(error) => {
            assert!(std::env::var_os("FUSED_RNN_REQUIRE_GPU").is_none_or(|v| v != "1"), "{what} needs a GPU: {error}");
            // Past the test harness, which would keep it to itself. The reason once.
            static REASON: Once = Once::new();
            static SKIPPED: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
            REASON.call_once(|| drop(writeln!(std::io::stderr(), "SKIPPED: all tests on a GPU: {error}")));
            if SKIPPED.lock().unwrap_or_else(|e| e.into_inner()).insert(what.to_owned()) {
                let _ = writeln!(std::io::stderr(), "SKIPPED {what}: no GPU");
            }
            None
        }
    }
}
