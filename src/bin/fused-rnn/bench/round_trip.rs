//! What a line of the cache takes from one thread to another and back: whether their cores have a cache in common.

use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::time::{Duration, Instant};

/// Trips of a try, and tries; the fastest counts.
const TRIPS: usize = 200;
const TRIES: usize = 5;
/// The longest that it takes where the system does not run both threads.
const PATIENCE: Duration = Duration::from_millis(20);

/// Sent to the other thread to end it.
const END: usize = usize::MAX;

/// Nanoseconds of a trip there and back. `None` where two threads do not run at once, or no other one starts.
pub fn round_trip() -> Option<f64> {
    let line = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        let answer = || {
            loop {
                match line.load(Acquire) {
                    END => return,
                    sent if sent % 2 == 1 => line.store(sent + 1, Release),
                    _ => std::hint::spin_loop(),
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
                        line.store(END, Release);
                        return nanoseconds(best);
                    }
                    std::hint::spin_loop();
                }
            }
            let took = began.elapsed();
            best = Some(best.map_or(took, |best| best.min(took)));
        }
        line.store(END, Release);
        nanoseconds(best)
    })
}

fn nanoseconds(tries: Option<Duration>) -> Option<f64> {
    tries.map(|best| best.as_secs_f64() * 1e9 / TRIPS as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_some_nanoseconds_or_is_given_up() {
        let start = Instant::now();
        if let Some(found) = round_trip() {
            assert!(found > 1.0 && found < 1e8, "{found}");
        }
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}
