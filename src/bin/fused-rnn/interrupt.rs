//! Ctrl-C, and the other signals that ask a program to end.
//!
//! Until [`listen`] there is nothing to keep, and each ends the program at once. After it, the first asks for a clean stop, the second ends
//! the program at once. A hangup that is ignored where the program starts stays ignored: so `nohup` starts it. The others are heeded all the
//! same: shells ignore Ctrl-C for what scripts start in the background, and `kill -INT` is meant for it.

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use signal_hook::consts;
use signal_hook::flag::{register, register_conditional_shutdown, register_usize};

use crate::output::note;

#[cfg(unix)]
const SIGNALS: &[i32] = &[consts::SIGINT, consts::SIGTERM, consts::SIGHUP];
#[cfg(not(unix))]
const SIGNALS: &[i32] = &[consts::SIGINT, consts::SIGTERM];

/// The signal that came last; 0 for none.
fn received() -> &'static Arc<AtomicUsize> {
    static RECEIVED: OnceLock<Arc<AtomicUsize>> = OnceLock::new();
    RECEIVED.get_or_init(Arc::default)
}

/// From here on signals ask for a clean stop. Where the system does not let them, that is said, and they end the program at once.
pub fn listen() {
    static LISTENS: AtomicBool = AtomicBool::new(false);
    if LISTENS.swap(true, Ordering::Relaxed) {
        return;
    }
    #[cfg(unix)]
    let signals = SIGNALS.iter().filter(|signal| **signal != consts::SIGHUP || !is_hangup_ignored());
    #[cfg(not(unix))]
    let signals = SIGNALS.iter();
    for signal in signals {
        if let Err(error) = heed(*signal) {
            note(&format!("signal {signal} ends the program without keeping the model: {error}"));
        }
    }
}

/// Takes a signal for a wish to stop.
fn heed(signal: i32) -> std::io::Result<()> {
    let again = Arc::new(AtomicBool::new(false));
    // In this order: the first signal finds the flag unset, and sets it.
    register_conditional_shutdown(signal, 128 + signal, Arc::clone(&again))?;
    register(signal, again)?;
    register_usize(signal, Arc::clone(received()), usize::try_from(signal).unwrap_or(0)).map(drop)
}

/// A file that grows beyond the limit of the shell (`ulimit -f`) is an error of its writing, as a full disk is, and does not end the program.
pub fn outlive_file_limits() {
    // Any handler does; without one the error would not be reached.
    #[cfg(unix)]
    let _ = register(consts::SIGXFSZ, Arc::default());
}

/// Whether one has come.
pub fn is_asked() -> bool {
    received().load(Ordering::Relaxed) != 0
}

/// Exit code of a program that a signal ended, as shells have it: 128 and the signal's number, 130 for Ctrl-C.
pub fn exit_code() -> ExitCode {
    let signal = match received().load(Ordering::Relaxed) {
        0 => usize::try_from(consts::SIGINT).unwrap_or(2),
        signal => signal,
    };
    ExitCode::from(u8::try_from(128 + signal).unwrap_or(u8::MAX))
}

/// Whether whoever started the program has told the system to ignore a hangup. Linux says it; elsewhere it counts as told, for programs in the
/// background are meant to go on.
#[cfg(unix)]
fn is_hangup_ignored() -> bool {
    if !cfg!(target_os = "linux") {
        return true;
    }
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).unwrap_or(0);
    mask >> (consts::SIGHUP - 1) & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where the system has no handler for a signal, that is an error to be said, and no panic.
    #[test]
    fn what_cannot_be_heeded_is_said() {
        assert!(heed(1000).is_err());
        assert!(!is_asked());
    }
}
