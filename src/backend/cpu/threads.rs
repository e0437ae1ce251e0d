//! Threads: a team that starts with the first problem large enough to need it, or the caller's pool; and work that divides itself.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use super::pool::{self, ThreadPool};
use super::team::{MOST_PARTS, Team};
use crate::error::{Error, Result};

/// Operations (multiplications and additions) below which a part of the work is not worth a thread: 4 to 10 µs, several times what handing
/// it to a helper takes that is awake.
const WORTH_A_THREAD: f64 = 0.8e6;

/// The threads of a backend.
pub(crate) struct Threads {
    count: NonZeroUsize,
    team: OnceLock<Team>,
    /// The caller's, in place of a team.
    pool: Option<Arc<dyn ThreadPool>>,
}

impl fmt::Debug for Threads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let of = if self.pool.is_some() { " of the caller's pool" } else { "" };
        write!(f, "Threads({}{of})", self.count)
    }
}

impl Threads {
    pub(crate) fn new(count: NonZeroUsize) -> Self {
        Threads { count, team: OnceLock::new(), pool: None }
    }

    /// At most `count` threads of a pool of the caller's.
    pub(super) fn of_pool(count: NonZeroUsize, pool: Arc<dyn ThreadPool>) -> Self {
        Threads { count, team: OnceLock::new(), pool: Some(pool) }
    }

    /// The calling thread alone.
    pub(crate) fn one() -> &'static Self {
        static ONE: Threads = Threads { count: NonZeroUsize::MIN, team: OnceLock::new(), pool: None };
        &ONE
    }

    pub(crate) fn count(&self) -> usize {
        self.count.get()
    }

    /// Threads that `operations` are worth.
    pub(crate) fn worth(&self, operations: f64) -> usize {
        ((operations / WORTH_A_THREAD) as usize).clamp(1, self.count())
    }

    /// Starts the team if there is work for more than one.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where the system starts no more threads.
    pub(crate) fn start(&self, workers: usize) -> Result<()> {
        if workers > 1 && self.pool.is_none() && self.team.get().is_none() {
            let team = Team::start(self.count().min(MOST_PARTS)).map_err(|error| {
                let way_out = format!("{error}; use CpuBackend::with_threads with fewer");
                Error::unsupported(format!("a team of {} threads", self.count), way_out)
            })?;
            // Another caller's, started meanwhile, is as good.
            self.team.get_or_init(|| team);
        }
        Ok(())
    }

    /// At most `count` of the threads, where the team has been [started](Self::start); otherwise the caller.
    pub(crate) fn workers(&self, count: usize) -> Workers<'_> {
        let crew = match &self.pool {
            Some(pool) => Some(Crew::Theirs(&**pool)),
            None => self.team.get().map(Crew::Own),
        };
        Workers { crew, count }
    }
}

/// Who runs the parts of a job.
#[derive(Clone, Copy)]
pub(super) enum Crew<'a> {
    Own(&'a Team),
    Theirs(&'a dyn ThreadPool),
}

impl Crew<'_> {
    /// Calls `run` once with each of `0..parts`, part 0 no later than others, and returns when all calls have.
    pub(super) fn run<F: Fn(usize) + Sync>(self, parts: usize, run: F) {
        match self {
            Crew::Own(team) => team.run(parts, run),
            Crew::Theirs(pool) => pool::run(pool, parts, &run),
        }
    }
}

/// Threads for one piece of work.
#[derive(Clone, Copy)]
pub(crate) struct Workers<'a> {
    crew: Option<Crew<'a>>,
    count: usize,
}

impl<'a> Workers<'a> {
    /// The calling thread.
    pub(crate) const ONE: Workers<'static> = Workers { crew: None, count: 1 };

    pub(super) fn crew(self) -> Option<Crew<'a>> {
        self.crew
    }

    pub(super) fn count(self) -> usize {
        self.count
    }

    /// Does `work`, a part on each thread.
    #[inline(always)] // the work of one thread is large, and needs no copy
    pub(crate) fn divide<W: Divide>(self, work: W) {
        match (self.crew, self.count) {
            (Some(crew), 2..) => self.divide_among(crew, work),
            _ => work.run(),
        }
    }

    #[inline(never)]
    fn divide_among<W: Divide>(self, crew: Crew<'_>, work: W) {
        let count = self.count.min(MOST_PARTS);
        let (mut few, mut many) = ([const { Part::none() }; FEW], Vec::new());
        let parts = match few.get_mut(..count) {
            Some(few) => few,
            None => {
                many.resize_with(count, Part::none);
                &mut many[..]
            }
        };
        let mut rest = work;
        for (at, part) in parts[1..].iter_mut().enumerate() {
            let (first, others) = rest.split(1, count - at);
            *part = Part(Mutex::new(Some(first)));
            rest = others;
        }
        parts[0] = Part(Mutex::new(Some(rest)));
        let parts = &*parts;
        crew.run(count, |at| {
            let part = parts[at].0.lock().unwrap_or_else(PoisonError::into_inner).take();
            part.into_iter().for_each(W::run);
        });
    }
}

/// Parts of work that need no allocation.
const FEW: usize = 16;

/// A part until a thread takes it.
struct Part<W>(Mutex<Option<W>>);

impl<W> Part<W> {
    const fn none() -> Self {
        Part(Mutex::new(None))
    }
}

/// Work that can be split in two. However it is split, the results are the same bits.
pub(crate) trait Divide: Sized + Send {
    /// Splits off `left` of `of` nearly equal shares.
    fn split(self, left: usize, of: usize) -> (Self, Self);
    /// Does the work.
    fn run(self);
}

/// Two pieces of work at once.
pub(crate) struct Both<F>(pub(crate) Option<F>, pub(crate) Option<F>);

impl<F: FnOnce() + Send> Divide for Both<F> {
    fn split(self, _: usize, _: usize) -> (Self, Self) {
        (Both(self.0, None), Both(None, self.1))
    }

    fn run(self) {
        for work in [self.0, self.1].into_iter().flatten() {
            work();
        }
    }
}

/// The first of each pair, and the second.
pub(crate) fn unzip<A, B: Default, const N: usize>(pairs: [(A, B); N]) -> ([A; N], [B; N]) {
    let mut second = std::array::from_fn(|_| B::default());
    let mut at = 0;
    let first = pairs.map(|(a, b)| {
        second[at] = b;
        at += 1;
        a
    });
    (first, second)
}

/// The first `left` of `of` shares of `len`.
pub(crate) fn share(len: usize, left: usize, of: usize) -> usize {
    match len.checked_mul(left) {
        Some(product) => product / of,
        // A division of 128 bits is a call of some ten nanoseconds, and a step of a small layer has many shares.
        None => (len as u128 * left as u128 / of as u128) as usize,
    }
}
