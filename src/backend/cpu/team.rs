//! Helper threads that take parts of a job: for some microseconds they wait at full speed, then between other threads, then they sleep.
//!
//! A time step's product takes a few microseconds, less than a sleeping thread takes to wake. So a helper looks for the next job for
//! [`AWAKE`] before it sleeps, and a caller as long for the end of what helpers have begun: who sleeps and wakes late keeps the other waiting, which then falls asleep
//! too, and so on at every job. The caller always works too and takes whatever part no helper has begun: a helper that the system does not run
//! delays nothing, and what is left to wait for are parts that helpers have begun.
#![allow(unsafe_code, reason = "a job lives on its caller's stack while helpers work on it")]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::ptr;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How long a thread looks for work, or for the end of work, before it sleeps.
const AWAKE: Duration = Duration::from_micros(200);
/// How long of it at full speed. From then on it gives way to any other thread that its processor could run.
const SPIN: Duration = Duration::from_micros(20);
/// How long a caller sleeps at a time while helpers finish.
const NAP: Duration = Duration::from_micros(50);

/// Parts that a job has at most.
pub(super) const MOST_PARTS: usize = 256;

/// Helpers, one fewer than the threads that work on a job. They end when this is dropped.
#[derive(Debug)]
pub(super) struct Team {
    shared: Arc<Shared>,
    helpers: Vec<JoinHandle<()>>,
}

/// Two lines of the cache of its own, since neighbouring lines are fetched together.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(super) struct OwnLine<T>(pub(super) T);

#[derive(Debug, Default)]
struct Shared {
    /// Jobs that have been offered.
    offers: OwnLine<AtomicUsize>,
    /// The job on offer, or null.
    job: AtomicPtr<Job>,
    /// Helpers that may hold the job's address.
    active: OwnLine<AtomicUsize>,
    /// Whether a caller has a job on offer.
    taken: AtomicBool,
    ended: AtomicBool,
    asleep: Box<[AtomicBool]>,
}

/// Parts of a job. A part is claimed once and run by who claimed it.
struct Job {
    parts: usize,
    claimed: [AtomicU64; MOST_PARTS / 64],
    /// Runs a part, given `work`.
    run: unsafe fn(*const (), usize),
    work: *const (),
    /// The first panic of a helper.
    panic: Mutex<Option<Box<dyn Any + Send>>>,
}

impl Job {
    /// Claims a part; false if someone has it.
    fn claim(&self, part: usize) -> bool {
        let bit = 1 << (part % 64);
        self.claimed[part / 64].fetch_or(bit, Relaxed) & bit == 0
    }

    /// Runs the member's own part, then all parts that nobody has begun.
    fn work(&self, member: usize) {
        for part in (member..self.parts).chain(0..member.min(self.parts)) {
            if self.claim(part) {
                // SAFETY: `work` is what `run` is for, see `Team::run`, and this part is claimed once.
                unsafe { (self.run)(self.work, part) }
            }
        }
    }
}

impl Team {
    /// A team of `threads`, the caller among them.
    pub(super) fn start(threads: usize) -> std::io::Result<Self> {
        let asleep = (1..threads).map(|_| AtomicBool::new(false)).collect();
        let shared = Arc::new(Shared { asleep, ..Shared::default() });
        let mut team = Team { shared, helpers: Vec::new() };
        for member in 1..threads {
            let shared = team.shared.clone();
            let thread = std::thread::Builder::new().name(format!("fused-rnn {member}"));
            // Those that have started end with `team` if one does not.
            team.helpers.push(thread.spawn(move || shared.help(member))?);
        }
        Ok(team)
    }

    /// Calls `run` once with each of `0..parts`, at most [`MOST_PARTS`], on the calling thread and the helpers, and returns when all calls have. Each member
    /// begins with the part of its own number, so that jobs of the same division find their data in the member's cache. If another
    /// caller has a job under way, or this one is itself part of a job, all parts run on the calling thread.
    pub(super) fn run<F: Fn(usize) + Sync>(&self, parts: usize, run: F) {
        let shared = &*self.shared;
        if shared.taken.swap(true, Acquire) {
            return (0..parts).for_each(run);
        }
        /// # Safety
        ///
        /// `run` points to an `F`.
        unsafe fn call<F: Fn(usize) + Sync>(run: *const (), part: usize) {
            // SAFETY: the caller's promise.
            unsafe { (*run.cast::<F>())(part) }
        }
        let job = Job {
            parts,
            claimed: [const { AtomicU64::new(0) }; MOST_PARTS / 64],
            run: call::<F>,
            work: ptr::from_ref(&run).cast(),
            panic: Mutex::new(None),
        };
        shared.job.store(ptr::from_ref(&job).cast_mut(), SeqCst);
        shared.offers.0.fetch_add(1, SeqCst);
        for (asleep, helper) in shared.asleep.iter().zip(&self.helpers).take(parts.saturating_sub(1)) {
            if asleep.load(SeqCst) {
                helper.thread().unpark();
            }
        }
        let own = catch_unwind(AssertUnwindSafe(|| job.work(0)));
        // From here on no helper finds the job; those that have found it are counted.
        shared.job.store(ptr::null_mut(), SeqCst);
        wait_until(NAP, || shared.active.0.load(SeqCst) == 0);
        shared.taken.store(false, Release);
        if let Err(panic) = own {
            resume_unwind(panic);
        }
        if let Some(panic) = job.panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
            resume_unwind(panic);
        }
    }
}

impl Drop for Team {
    fn drop(&mut self) {
        self.shared.ended.store(true, SeqCst);
        self.shared.offers.0.fetch_add(1, SeqCst);
        for helper in self.helpers.drain(..) {
            helper.thread().unpark();
            // A helper's panics have been caught.
            let _ = helper.join();
        }
    }
}

impl Shared {
    /// A helper's life.
    fn help(&self, member: usize) {
        let mut seen = 0;
        loop {
            self.wait_for_offer(member, seen);
            seen = self.offers.0.load(SeqCst);
            if self.ended.load(SeqCst) {
                return;
            }
            self.active.0.fetch_add(1, SeqCst);
            let job = self.job.load(SeqCst);
            // SAFETY: the job is on its caller's stack. The caller takes the address back before it looks at `active` and returns only when
            // that is zero; this helper has counted itself before it read the address, in one order of all.
            let job = unsafe { job.as_ref() };
            if let Some(job) = job
                && let Err(panic) = catch_unwind(AssertUnwindSafe(|| job.work(member)))
            {
                job.panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(panic);
            }
            self.active.0.fetch_sub(1, SeqCst);
        }
    }

    /// Returns when another job than the one `seen` last has been offered, or the team ends.
    fn wait_for_offer(&self, member: usize, seen: usize) {
        let is_new = || self.offers.0.load(SeqCst) != seen;
        if look_for(&is_new) {
            return;
        }
        let asleep = &self.asleep[member - 1];
        while !is_new() {
            asleep.store(true, SeqCst);
            // An offer after this line finds the flag; one before it is seen here.
            if !is_new() {
                std::thread::park();
            }
            asleep.store(false, SeqCst);
        }
    }
}

/// Looks for a condition for [`AWAKE`]; whether it came.
fn look_for(condition: &impl Fn() -> bool) -> bool {
    let start = Instant::now();
    loop {
        for _ in 0..32 {
            if condition() {
                return true;
            }
            std::hint::spin_loop();
        }
        let waited = start.elapsed();
        if waited > AWAKE {
            return condition();
        }
        if waited > SPIN {
            std::thread::yield_now();
        }
    }
}

/// Waits for a condition: awake at first, then asleep for `nap` at a time.
fn wait_until(nap: Duration, condition: impl Fn() -> bool) {
    if !look_for(&condition) {
        while !condition() {
            std::thread::sleep(nap);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many rounds, or the few that end under Miri.
    const fn rounds(many: usize) -> usize {
        if cfg!(miri) { many.div_ceil(200) } else { many }
    }

    fn runs_each_once(team: &Team, parts: usize) {
        let runs: Vec<AtomicUsize> = (0..parts).map(|_| AtomicUsize::new(0)).collect();
        team.run(parts, |part| {
            runs[part].fetch_add(1, SeqCst);
        });
        assert!(runs.iter().all(|runs| runs.load(SeqCst) == 1), "{runs:?}");
    }

    /// Of fewer parts than members and of more, helpers awake and asleep.
    #[test]
    fn every_part_runs_once() {
        for threads in [1, 2, 3, 8] {
            let team = Team::start(threads).unwrap();
            for round in 0..rounds(300) {
                for parts in [1, 2, threads, 65, MOST_PARTS] {
                    runs_each_once(&team, parts);
                }
                if round % 100 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
        }
    }

    /// What a part writes is there when the job has ended, and what callers write between jobs is there for the parts.
    #[test]
    fn parts_see_and_leave_memory() {
        let team = Team::start(3).unwrap();
        let mut values = [0_usize; 3];
        for round in 0..rounds(20_000) {
            let cells: Vec<Mutex<&mut usize>> = values.iter_mut().map(Mutex::new).collect();
            team.run(3, |part| {
                let mut value = cells[part].lock().unwrap();
                assert_eq!(**value, round);
                **value += 1;
            });
        }
        assert_eq!(values, [rounds(20_000); 3]);
    }

    /// Callers at the same time, and a job within a part of another.
    #[test]
    fn callers_share_a_team() {
        let team = Team::start(3).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..rounds(500)).for_each(|_| runs_each_once(&team, 3)));
            }
        });
        team.run(3, |_| runs_each_once(&team, 3));
    }

    /// A panic of any part comes to the caller, and the team works on.
    #[test]
    fn panics_come_to_the_caller() {
        let team = Team::start(2).unwrap();
        for panicking in [0, 1] {
            let caught = catch_unwind(AssertUnwindSafe(|| {
                team.run(2, |part| {
                    if part == panicking {
                        // Not `panic!`, whose message would look like a failure.
                        std::panic::resume_unwind(Box::new("a part's"));
                    }
                });
            }));
            assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"a part's"));
            runs_each_once(&team, 2);
        }
    }
}
