//! Threads: a pool that starts with the first problem large enough to need it, and work that divides itself.

use std::num::NonZeroUsize;
use std::sync::OnceLock;

use rayon_core::{ThreadPool, ThreadPoolBuilder};

use crate::error::{Error, Result};

/// Operations (multiplications and additions) below which a part of the work is not worth a thread: some 40 µs, a few times
/// what handing it over takes.
const WORTH_A_THREAD: f64 = 3e6;

/// The threads of a backend.
#[derive(Debug)]
pub(crate) struct Threads {
    count: NonZeroUsize,
    pool: OnceLock<ThreadPool>,
}

impl Threads {
    pub(crate) fn new(count: NonZeroUsize) -> Self {
        Threads { count, pool: OnceLock::new() }
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Threads that `operations` are worth.
    pub(crate) fn worth(&self, operations: f64) -> usize {
        ((operations / WORTH_A_THREAD) as usize).clamp(1, self.count())
    }

    /// Runs `work`, which may [`divide`] itself among `workers`; on the calling thread if that is one.
    pub(crate) fn run<R: Send>(&self, workers: usize, work: impl FnOnce() -> R + Send) -> Result<R> {
        if workers <= 1 {
            return Ok(work());
        }
        let pool = match self.pool.get() {
            Some(pool) => pool,
            None => {
                let pool = ThreadPoolBuilder::new()
                    .num_threads(self.count())
                    .thread_name(|index| format!("fused-rnn {index}"))
                    .build()
                    .map_err(|error| {
                        Error::unsupported(
                            format!("a pool of {} threads", self.count),
                            format!("{error}; use CpuBackend::with_threads with fewer"),
                        )
                    })?;
                self.pool.get_or_init(|| pool)
            }
        };
        let (mut work, mut result) = (Some(work), None);
        install(pool, &mut || result = work.take().map(|work| work()));
        Ok(result.expect("install has run the work"))
    }
}

/// What the pool runs is compiled once, not for each kind of work.
fn install(pool: &ThreadPool, work: &mut (dyn FnMut() + Send)) {
    pool.install(work);
}

/// The same for what is divided.
fn join(a: &mut (dyn FnMut() + Send), b: &mut (dyn FnMut() + Send)) {
    rayon_core::join(a, b);
}

/// Work that can be split in two. However it is split, the results are the same bits.
pub(crate) trait Divide: Sized + Send {
    /// Splits off `left` of `of` nearly equal shares.
    fn split(self, left: usize, of: usize) -> (Self, Self);
    /// Does the work.
    fn run(self);
}

/// Does `work` on `workers` threads of the pool that the caller runs in.
pub(crate) fn divide<W: Divide>(work: W, workers: usize) {
    if workers <= 1 {
        work.run();
    } else {
        let left = workers / 2;
        let (a, b) = work.split(left, workers);
        let (mut a, mut b) = (Some(a), Some(b));
        let divide_part =
            |part: &mut Option<W>, workers| part.take().into_iter().for_each(|part| divide(part, workers));
        join(&mut || divide_part(&mut a, left), &mut || divide_part(&mut b, workers - left));
    }
}

/// The first `left` of `of` shares of `len`.
pub(crate) fn share(len: usize, left: usize, of: usize) -> usize {
    (len as u128 * left as u128 / of as u128) as usize
}
