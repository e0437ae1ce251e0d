//! Work whose parts meet after every step: each has a thread of its own, at the same time, or all of it runs on the calling thread.
//!
//! A step of a single sequence takes a microsecond or two, and handing out its product anew takes a good part of that. Here threads share the units for a whole time
//! loop: after a step they meet, and each finds the units of the others in a row that all share.
//!
//! Nobody waits for a helper that has not come: the caller gives them [`ARRIVAL`] and then does all work itself. Those that have come are waited for, as with any
//! part that a helper has begun.
#![allow(unsafe_code, reason = "a row that threads write in parts and then read as a whole")]

use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicU8, AtomicUsize};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::team::OwnLine;
use super::threads::{Divide, Workers};

/// How long the caller waits for helpers: one that is awake comes within a microsecond, one that is asleep may not be worth waiting for.
const ARRIVAL: Duration = Duration::from_micros(40);

/// How long a member looks for the others before it lets the system run something else.
const SPIN: Duration = Duration::from_micros(50);

/// Members at most.
const MOST: usize = 16;

/// Work of some units, step by step.
pub(super) trait Lockstep<E>: Sized + Send {
    /// Splits off `left` of `of` nearly equal shares.
    fn split(self, left: usize, of: usize) -> (Self, Self);
    /// Its units.
    fn units(&self) -> Range<usize>;
    /// Does the work. All members exchange their rows equally often.
    fn run(self, seat: Seat<'_, E>);
}

/// Work of a single step: nobody needs what others give, so that parts need not run at the same time.
struct OneStep<W, E>(W, PhantomData<E>);

impl<E: Copy + Send, W: Lockstep<E>> Divide for OneStep<W, E> {
    fn split(self, left: usize, of: usize) -> (Self, Self) {
        let (first, others) = self.0.split(left, of);
        (OneStep(first, PhantomData), OneStep(others, PhantomData))
    }

    fn run(self) {
        self.0.run(Meeting::new(&mut [], 0, 0).seat(0));
    }
}

/// What the members of a job share.
struct Meeting<'a, E> {
    members: AtomicUsize,
    /// Exchanges that each member has reached.
    reached: [OwnLine<AtomicUsize>; MOST],
    /// Where the units of each member begin, and the last one's end.
    bounds: [AtomicUsize; MOST + 1],
    /// Two rows of `blocks` times `units` elements.
    rows: *mut E,
    blocks: usize,
    units: usize,
    storage: PhantomData<&'a mut [E]>,
}

// SAFETY: elements are reached through `Seat::exchange` alone, which says when who may.
unsafe impl<E: Send + Sync> Sync for Meeting<'_, E> {}

/// A member's place. There is one of each number.
pub(super) struct Seat<'m, E> {
    meeting: &'m Meeting<'m, E>,
    member: usize,
    exchanges: usize,
}

impl<'a, E: Copy> Meeting<'a, E> {
    fn new(rows: &'a mut [E], blocks: usize, units: usize) -> Self {
        // As many elements as `exchange` reaches, or a panic.
        let rows = &mut rows[..2 * blocks * units];
        Meeting {
            members: AtomicUsize::new(1),
            reached: [const { OwnLine(AtomicUsize::new(0)) }; MOST],
            bounds: [const { AtomicUsize::new(0) }; MOST + 1],
            rows: rows.as_mut_ptr(),
            blocks,
            units,
            storage: PhantomData,
        }
    }

    fn seat(&self, member: usize) -> Seat<'_, E> {
        Seat { meeting: self, member, exchanges: 0 }
    }
}

impl<E: Copy> Seat<'_, E> {
    /// Gives the own units of each block of `row` to the others and takes theirs.
    pub(super) fn exchange(&mut self, row: &mut [E]) {
        let &mut Seat { meeting, member, ref mut exchanges } = self;
        let Meeting { blocks, units, .. } = *meeting;
        let members = meeting.members.load(Relaxed);
        if members == 1 {
            return;
        }
        let row = &mut row[..blocks * units];
        let bounds = |member: usize| {
            let at = meeting.bounds[member].load(Relaxed).min(units);
            at..meeting.bounds[member + 1].load(Relaxed).clamp(at, units)
        };
        // SAFETY: both rows are inside of the borrowed storage, see `Meeting::new`.
        let shared = unsafe { meeting.rows.add(*exchanges % 2 * blocks * units) };
        *exchanges += 1;
        for block in 0..blocks {
            let own = bounds(member);
            let from = &row[block * units + own.start..block * units + own.end];
            // SAFETY: inside of the row. Members' units are apart, so nobody else writes these. Whoever read them two exchanges ago did so before it came to
            // the one in between, which this member has passed.
            unsafe { shared.add(block * units + own.start).copy_from_nonoverlapping(from.as_ptr(), from.len()) }
        }
        meeting.reached[member].0.store(*exchanges, Release);
        for other in (0..members).filter(|other| *other != member) {
            wait_until(|| meeting.reached[other].0.load(Acquire) >= *exchanges);
            for block in 0..blocks {
                let theirs = bounds(other);
                let to = &mut row[block * units + theirs.start..block * units + theirs.end];
                // SAFETY: inside of the row. Its owner has written this part before it reached this exchange, and writes there again only after the next
                // one, to which this member has not come.
                unsafe { shared.add(block * units + theirs.start).copy_to_nonoverlapping(to.as_mut_ptr(), to.len()) }
            }
        }
    }
}

impl<E> Drop for Seat<'_, E> {
    /// Whoever leaves, in a panic too, is waited for no more.
    fn drop(&mut self) {
        self.meeting.reached[self.member].0.store(usize::MAX, Release);
    }
}

/// Whether members work together, alone, or not yet.
const UNDECIDED: u8 = 0;
const TOGETHER: u8 = 1;
const ALONE: u8 = 2;

/// Ends the wait of those that have come, also in a panic.
struct Decision<'a>(&'a AtomicU8);

impl Drop for Decision<'_> {
    fn drop(&mut self) {
        let _ = self.0.compare_exchange(UNDECIDED, ALONE, Release, Relaxed);
    }
}

impl Workers<'_> {
    /// Does `work` of one step, a part on each thread.
    pub(super) fn divide_step<E: Copy + Send, W: Lockstep<E>>(self, work: W) {
        self.divide(OneStep(work, PhantomData));
    }

    /// Does `work`, a part on each thread, if the threads come; otherwise all of it on one. `rows` has room for two rows of `blocks` times `units` elements,
    /// which the parts exchange.
    pub(super) fn in_lockstep<E, W>(self, work: W, rows: &mut [E], (blocks, units): (usize, usize))
    where
        E: Copy + Send + Sync,
        W: Lockstep<E>,
    {
        let meeting = Meeting::new(rows, blocks, units);
        let count = self.count().min(MOST);
        let (Some(crew), 2..) = (self.crew(), count) else { return work.run(meeting.seat(0)) };
        let whole = Mutex::new(Some(work));
        let parts = [const { Mutex::new(None::<W>) }; MOST];
        let (state, arrived) = (AtomicU8::new(UNDECIDED), AtomicUsize::new(1));
        let taken = |part: &Mutex<Option<W>>| part.lock().unwrap_or_else(PoisonError::into_inner).take();
        crew.run(count, |member| {
            if member > 0 {
                arrived.fetch_add(1, Release);
                wait_until(|| state.load(Acquire) != UNDECIDED);
                if state.load(Acquire) == TOGETHER {
                    taken(&parts[member]).into_iter().for_each(|part| part.run(meeting.seat(member)));
                }
                return;
            }
            let _decision = Decision(&state);
            let Some(mut rest) = taken(&whole) else { return };
            let start = Instant::now();
            while arrived.load(Acquire) < count {
                if start.elapsed() > ARRIVAL {
                    state.store(ALONE, Release);
                    return rest.run(meeting.seat(0));
                }
                std::hint::spin_loop();
            }
            for (member, part) in parts[..count].iter().enumerate() {
                let (own, others) = rest.split(1, count - member);
                meeting.bounds[member + 1].store(own.units().end, Relaxed);
                *part.lock().unwrap_or_else(PoisonError::into_inner) = Some(own);
                rest = others;
            }
            meeting.members.store(count, Relaxed);
            state.store(TOGETHER, Release);
            taken(&parts[0]).into_iter().for_each(|part| part.run(meeting.seat(0)));
        });
    }
}

/// Looks for a condition, and after a while lets others run in between.
fn wait_until(condition: impl Fn() -> bool) {
    let mut start = None;
    loop {
        for _ in 0..64 {
            if condition() {
                return;
            }
            std::hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() > SPIN {
            std::thread::yield_now();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::super::threads::Threads;
    use super::*;

    /// Adds to each unit, a hundred times, what all units were before.
    struct Sums<'a> {
        units: Range<usize>,
        out: &'a mut [u64],
        panics: bool,
    }

    impl Lockstep<u64> for Sums<'_> {
        fn split(self, left: usize, of: usize) -> (Self, Self) {
            let Sums { units, out, panics } = self;
            let first = units.len() * left / of;
            let (a, b) = out.split_at_mut(first);
            let middle = units.start + first;
            (Sums { units: units.start..middle, out: a, panics }, Sums { units: middle..units.end, out: b, panics })
        }

        fn units(&self) -> Range<usize> {
            self.units.clone()
        }

        fn run(self, mut seat: Seat<'_, u64>) {
            let mut row = [1_u64; 14];
            let steps = if cfg!(miri) { 10 } else { 100 };
            for step in 0..steps {
                if self.panics && step == steps / 2 && self.units.end == 7 {
                    std::panic::resume_unwind(Box::new("a member's"));
                }
                let before = row;
                for unit in self.units.clone() {
                    for block in 0..2 {
                        let at = block * 7 + unit;
                        row[at] = before.iter().fold(at as u64, |sum, v| sum.wrapping_mul(31).wrapping_add(*v));
                    }
                }
                seat.exchange(&mut row);
            }
            for (out, unit) in self.out.iter_mut().zip(self.units) {
                *out = row[unit] ^ row[7 + unit];
            }
        }
    }

    fn sums(threads: &Threads, count: usize, panics: bool) -> [u64; 7] {
        let (mut rows, mut out) = ([0; 28], [0; 7]);
        threads.workers(count).in_lockstep(Sums { units: 0..7, out: &mut out, panics }, &mut rows, (2, 7));
        out
    }

    fn team(count: usize) -> Threads {
        let threads = Threads::new(NonZeroUsize::new(count).unwrap());
        threads.start(count).unwrap();
        threads
    }

    /// However many members there are, awake or asleep, and with several callers at a time.
    #[test]
    fn members_see_what_others_gave() {
        let wanted = sums(Threads::one(), 1, false);
        // Under Miri as many as end.
        let (rounds, rounds_of_each) = if cfg!(miri) { (2, 1) } else { (300, 50) };
        for count in [2, 3, 7].into_iter().take(if cfg!(miri) { 1 } else { 3 }) {
            let threads = team(count);
            for round in 0..rounds {
                assert_eq!(sums(&threads, count, false), wanted, "{count} members");
                if round % 50 == 0 {
                    std::thread::sleep(Duration::from_millis(1));
                }
            }
            std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| (0..rounds_of_each).for_each(|_| assert_eq!(sums(&threads, count, false), wanted)));
                }
            });
        }
    }

    /// A member that panics keeps nobody waiting, and the team works on.
    #[test]
    fn a_panic_ends_the_work() {
        let threads = team(2);
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| sums(&threads, 2, true)));
        assert_eq!(caught.unwrap_err().downcast_ref(), Some(&"a member's"));
        assert_eq!(sums(&threads, 2, false), sums(Threads::one(), 1, false));
    }
}
