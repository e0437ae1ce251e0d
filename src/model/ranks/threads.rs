//! Ranks that are threads of one process.

use std::sync::mpsc::{Receiver, Sender, channel};

use super::Ranks;
use crate::error::{Error, Result};

/// A rank on a thread, from [`thread_ranks`].
#[derive(Debug)]
pub struct ThreadRanks {
    rank: usize,
    /// To each rank, and from each.
    to: Vec<Sender<Vec<u8>>>,
    from: Vec<Receiver<Vec<u8>>>,
}

/// Ranks of threads, each for a model of its own.
///
/// ```
/// use fused_rnn::Device;
/// use fused_rnn::data::windows;
/// use fused_rnn::model::{FitOptions, Sequential, thread_ranks};
/// use fused_rnn::nn::{Dense, Lstm};
///
/// let sine: Vec<f32> = (0..60).map(|t| (t as f32 * 0.3).sin()).collect();
/// let (x, y) = windows(&sine, 10, 1)?;
/// let (x, y) = (&x, &y);
/// let losses = std::thread::scope(|scope| {
///     let train = |ranks| {
///         let mut model = Sequential::new(Device::cpu(), &[10, 1], 7)?;
///         model.add(Lstm::new(8))?.add(Dense::new(1))?;
///         let options = FitOptions { epochs: 2, batch_size: 5, ranks: Some(&ranks), ..FitOptions::default() };
///         Ok(model.fit(x, y, options)?.loss)
///     };
///     let threads: Vec<_> = thread_ranks(2)?.into_iter().map(|ranks| scope.spawn(move || train(ranks))).collect();
///     threads.into_iter().map(|thread| thread.join().expect("no panic")).collect::<fused_rnn::Result<Vec<_>>>()
/// })?;
/// assert_eq!(losses[0], losses[1]);
/// # Ok::<(), fused_rnn::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::ZeroSize`] for none; [`Error::InvalidOption`] for more than 1024.
pub fn thread_ranks(count: usize) -> Result<Vec<ThreadRanks>> {
    match count {
        0 => return Err(Error::ZeroSize { name: "ranks" }),
        1..=1024 => {}
        _ => return Err(Error::option("ranks", "at most 1024", count)),
    }
    let mut ranks: Vec<_> = (0..count).map(|rank| ThreadRanks { rank, to: Vec::new(), from: Vec::new() }).collect();
    // Those to whom each sends, in the order of the ranks.
    let mut to: Vec<Vec<_>> = (0..count).map(|_| Vec::new()).collect();
    for receiver in &mut ranks {
        for to in &mut to {
            let (sender, from) = channel();
            to.push(sender);
            receiver.from.push(from);
        }
    }
    ranks.iter_mut().zip(to).for_each(|(rank, to)| rank.to = to);
    Ok(ranks)
}

impl Ranks for ThreadRanks {
    fn rank(&self) -> usize {
        self.rank
    }

    fn count(&self) -> usize {
        self.to.len()
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        let gone = |rank: usize| {
            let why = format!("rank {rank} has ended; all ranks fit with the same data and options");
            Error::unsupported("an exchange between ranks", why)
        };
        for (rank, to) in self.to.iter().enumerate() {
            to.send(own.to_vec()).map_err(|_| gone(rank))?;
        }
        for ((rank, from), part) in self.from.iter().enumerate().zip(all.chunks_exact_mut(own.len().max(1))) {
            let given = from.recv().map_err(|_| gone(rank))?;
            if given.len() != part.len() {
                let why = format!("rank {rank} gave {} bytes where {} were expected", given.len(), part.len());
                return Err(Error::unsupported("an exchange between ranks", why));
            }
            part.copy_from_slice(&given);
        }
        Ok(())
    }
}
