//! One CPU backend a process and element type: layers share its threads.

use std::sync::OnceLock;

use fused_rnn::backend::cpu::{CpuBackend, CpuElement};
use fused_rnn::{Error, Result};

/// As asked for by [`set_threads`].
static ASKED: OnceLock<usize> = OnceLock::new();
static SINGLE: OnceLock<CpuBackend<f32>> = OnceLock::new();
static DOUBLE: OnceLock<CpuBackend<f64>> = OnceLock::new();

/// `f32` and `f64`: what this crate computes in.
pub trait Number: CpuElement {
    /// The backend of this process, made when it is first asked for.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] for a number of threads that no backend has.
    fn backend() -> Result<&'static CpuBackend<Self>>;
}

impl Number for f32 {
    fn backend() -> Result<&'static CpuBackend<f32>> {
        the_one(&SINGLE)
    }
}

impl Number for f64 {
    fn backend() -> Result<&'static CpuBackend<f64>> {
        the_one(&DOUBLE)
    }
}

fn the_one<E: CpuElement>(place: &'static OnceLock<CpuBackend<E>>) -> Result<&'static CpuBackend<E>> {
    match place.get() {
        Some(backend) => Ok(backend),
        None => {
            let backend = CpuBackend::with_threads(threads())?;
            Ok(place.get_or_init(|| backend))
        }
    }
}

/// Says how many threads the layers of this process compute on. Results do not depend on it.
///
/// # Errors
///
/// [`Error::InvalidOption`] for a number outside `1..=65535`, and after the number has been settled: by an earlier call, or by a layer
/// that has computed something.
pub fn set_threads(threads: usize) -> Result<()> {
    let refuse = |expected: &str, got: String| {
        Err(Error::InvalidOption { option: "threads".to_owned(), expected: expected.to_owned(), got })
    };
    if !(1..=usize::from(u16::MAX)).contains(&threads) {
        return refuse("1..=65535", threads.to_string());
    }
    if SINGLE.get().is_some() || DOUBLE.get().is_some() || ASKED.set(threads).is_err() {
        return refuse(
            "to be set once, before a layer computes",
            format!("{threads}, after it was settled as {}", self::threads()),
        );
    }
    Ok(())
}

/// Threads that layers compute on: what [`set_threads`] said; else the environment variable `RAYON_NUM_THREADS`, which candle and burn
/// read too, where it is a number above zero; else as many as the machine runs at once.
pub fn threads() -> usize {
    let most = usize::from(u16::MAX);
    ASKED.get().copied().unwrap_or_else(|| {
        let named = std::env::var("RAYON_NUM_THREADS").ok().and_then(|text| text.trim().parse::<usize>().ok());
        let machine = || std::thread::available_parallelism().map_or(1, usize::from);
        named.filter(|count| *count > 0).unwrap_or_else(machine).min(most)
    })
}
