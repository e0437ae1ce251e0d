//! What a line of the cache takes from one thread to another and back: whether their cores have a cache in common.

use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::time::{Duration, Instant};

/// Trips of a try, and tries; the fastest counts.
const TRIPS: usize = 200;
const TRIES: usize = 5;
/// The longest that it takes where the system does not run both threads.
const PATIENCE: Duration = Duration::from_millis(20);

/// Nanoseconds of a trip there and back. `None` where two threads do not run at once, or no other one starts.
pub fn round_trip() -> Option<f64> {
    // Apart from the line: an answer on its way would overwrite an end that stood there.
    let (line, has_ended) = (AtomicUsize::new(0), AtomicBool::new(false));
    std::thread::scope(|scope| {
        let answer = || {
            loop {
                let sent = line.load(Acquire);
                if sent % 2 == 1 {
                    line.store(sent + 1, Release);
                } else if has_ended.load(Acquire) {
                    return;
                } else {
                    std::hint::spin_loop();
                }
            }
        };
        std::thread::Builder::new().spawn_scoped(scope, answer).ok()?;
        let start = Instant::now();
        let mut best = None::<Duration>;
        for attempt in 0..TRIES {
            let first = attempt * TRIPS * 2;
            let began = Instant::now();
            for trip in 0..TRIPS {
                let sent = first + trip * 2 + 1;
                line.store(sent, Release);
                let mut looks = 0_u32;
                while line.load(Acquire) == sent {
                    looks += 1;
                    if looks.is_multiple_of(1 << 12) && start.elapsed() > PATIENCE {
                        has_ended.store(true, Release);
                        return nanoseconds(best);
                    }
                    std::hint::spin_loop();
                }
            }
            let took = began.elapsed();
            best = Some(best.map_or(took, |best| best.min(took)));
        }
        has_ended.store(true, Release);
        nanoseconds(best)
    })
}

fn nanoseconds(tries: Option<Duration>) -> Option<f64> {
    tries.map(|best| best.as_secs_f64() * 1e9 / TRIPS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where other threads want all processors, it may be given up at any place, and ends.
    #[test]
    fn ends_on_a_busy_machine() {
        let has_ended = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for _ in 0..2 * std::thread::available_parallelism().map_or(1, usize::from) {
                scope.spawn(|| {
                    while !has_ended.load(Acquire) {
                        std::hint::spin_loop();
                    }
                });
            }
            (0..20).for_each(|_| {
                round_trip();
            });
            has_ended.store(true, Release);
        });
    }

    #[test]
    fn takes_some_nanoseconds_or_is_given_up() {
        let start = Instant::now();
        if let Some(found) = round_trip() {
            assert!(found > 1.0 && found < 1e8, "{found}");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
