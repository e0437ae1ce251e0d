//! Threads of the caller's, in place of a team: [`ThreadPool`].

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

/// A pool of threads that a backend may use beside others, such as an engine's, so that both together start no more threads than there
/// are cores. See [`CpuBackend::with_pool`](super::CpuBackend::with_pool).
///
/// Its threads do not matter for results. What handing out work takes does for speed: some jobs take ten microseconds, for which the
/// backend's own helpers wait awake, and most pools let theirs sleep.
///
/// ```
/// use fused_rnn::backend::cpu::{CpuBackend, ThreadPool};
///
/// /// Threads that last as long as a job.
/// struct Scoped(usize);
///
/// impl ThreadPool for Scoped {
///     fn threads(&self) -> usize {
///         self.0
///     }
///
///     fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
///         std::thread::scope(|scope| {
///             for at in 1..parts {
///                 scope.spawn(move || part(at));
///             }
///             part(0);
///         });
///     }
/// }
///
/// let backend = CpuBackend::<f32>::with_pool(Scoped(2))?;
/// assert_eq!(backend.threads(), 2);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// With rayon `run` is `pool.scope(|scope| (0..parts).for_each(|at| scope.spawn(move |_| part(at))))`.
pub trait ThreadPool: Send + Sync + 'static {
    /// Threads that work at the same time, the calling one among them if it does.
    fn threads(&self) -> usize;

    /// Calls `part` with each of `0..parts`, on any threads, one after the other or at the same time, and returns when all calls have
    /// returned. What it leaves out runs on the calling thread afterwards.
    fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync));
}

/// Runs each part of a job once, whatever the pool does: a call takes the next part, not the one of its number. So parts begin in order,
/// which those that meet rely on: part 0 never waits for others to begin.
pub(super) fn run(pool: &dyn ThreadPool, parts: usize, part: &(dyn Fn(usize) + Sync)) {
    let next = AtomicUsize::new(0);
    let panic: Mutex<Option<Box<dyn Any + Send>>> = Mutex::new(None);
    // Panics are kept from the pool, which need not expect any.
    let take = || {
        let at = next.fetch_add(1, Relaxed);
        if at < parts
            && let Err(caught) = catch_unwind(AssertUnwindSafe(|| part(at)))
        {
            panic.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(caught);
        }
        at + 1 < parts
    };
    pool.run(parts, &|_| {
        take();
    });
    while next.load(Relaxed) < parts && take() {}
    if let Some(panic) = panic.into_inner().unwrap_or_else(PoisonError::into_inner) {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering::SeqCst;

    use super::super::CpuBackend;
    use super::*;
    use crate::backend::pass::{self, Inputs, OutputGradients};
    use crate::rnn::{RnnDescriptor, RnnShape, WeightLayout};

    /// How a pool calls the parts of a job.
    #[derive(Clone, Copy, Debug)]
    enum Way {
        AtOnce,
        Backwards,
        OnlyTheLast,
        None,
        Twice,
    }

    struct Pool(Way);

    impl ThreadPool for Pool {
        fn threads(&self) -> usize {
            3
        }

        fn run(&self, parts: usize, part: &(dyn Fn(usize) + Sync)) {
            match self.0 {
                Way::AtOnce => std::thread::scope(|scope| {
                    (0..parts).for_each(|at| {
                        scope.spawn(move || part(at));
                    });
                }),
                Way::Backwards => (0..parts).rev().for_each(part),
                Way::OnlyTheLast => part(parts - 1),
                Way::None => {}
                Way::Twice => (0..parts).chain(0..parts).for_each(part),
            }
        }
    }

    const WAYS: [Way; 5] = [Way::AtOnce, Way::Backwards, Way::OnlyTheLast, Way::None, Way::Twice];

    #[test]
    fn every_part_runs_once_whatever_the_pool_does() {
        for way in WAYS {
            let runs: [AtomicUsize; 7] = [const { AtomicUsize::new(0) }; 7];
            run(&Pool(way), 7, &|at| {
                runs[at].fetch_add(1, SeqCst);
            });
            assert!(runs.iter().all(|runs| runs.load(SeqCst) == 1), "{way:?}: {runs:?}");
        }
    }

    #[test]
    fn a_panic_comes_to_the_caller() {
        for way in WAYS {
            let job = || {
                run(&Pool(way), 3, &|at| {
                    if at == 1 {
                        resume_unwind(Box::new("a part's"))
                    }
                })
            };
            let caught = catch_unwind(AssertUnwindSafe(job)).unwrap_err();
            assert_eq!(caught.downcast_ref(), Some(&"a part's"), "{way:?}");
        }
    }

    /// Time loops that meet after each step (B = 1), sequences, and products over all steps: the bits of the backend's own threads.
    #[test]
    #[cfg_attr(miri, ignore = "its products take an hour there")]
    fn results_are_those_of_own_threads() {
        for (batch, hidden) in [(1, 256), (32, 64)] {
            let mut descriptor = RnnDescriptor::lstm(16, hidden);
            descriptor.num_layers = 2;
            let shape = RnnShape { seq_len: 40, batch };
            let tensors = shape.tensors(&descriptor).unwrap();
            let numbers =
                |len: usize, scale: f32| (0..len).map(|i| scale * ((i * 37 % 101) as f32 / 50.0 - 1.0)).collect();
            let weights = numbers(WeightLayout::new(&descriptor).unwrap().len(), 0.1);
            let inputs = Inputs { weights, x: numbers(tensors.x.iter().product(), 1.0), ..Inputs::default() };
            let dy = numbers(tensors.y.iter().product(), 1.0);
            let gradients = OutputGradients { dy: Some(dy), ..OutputGradients::default() };
            let results = |backend: &CpuBackend<f32>| {
                let (outputs, gradients) = pass::train(backend, &descriptor, shape, &inputs, &gradients).unwrap();
                (outputs.y, outputs.hn, gradients.dx, gradients.dweights)
            };
            let wanted = results(&CpuBackend::with_threads(3).unwrap());
            for way in WAYS {
                let backend = CpuBackend::with_pool(Pool(way)).unwrap();
                assert!(results(&backend) == wanted, "batch {batch}, {way:?}");
            }
        }
    }

    #[test]
    fn a_pool_without_threads_is_refused() {
        struct Empty;
        impl ThreadPool for Empty {
            fn threads(&self) -> usize {
                0
            }
            fn run(&self, _: usize, _: &(dyn Fn(usize) + Sync)) {}
        }
        let refused = CpuBackend::<f32>::with_pool(Empty).unwrap_err().to_string();
        assert!(refused.contains("threads") && refused.contains('0'), "{refused}");
    }
}
