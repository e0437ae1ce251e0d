//! Training on several processes, each with a part of every batch: [`Ranks`].
//!
//! Every process (a *rank*) has the whole model and all data, and calls [`fit`](crate::model::Model::fit) with the same options and its [`Ranks`].
//! Of a step's samples, `batch_size` for each rank, each takes its share; their gradients are averaged, each weighted by its samples, and
//! all make the same step. So the models stay the same, to the bit, and are that of one process with the batch of all, to rounding.
//!
//! | ranks | by |
//! |---|---|
//! | [`thread_ranks`] | threads of one process |
//! | `MpiRanks` (feature `mpi`) | processes of an MPI program, of one machine or of several |
//! | `NcclRanks` (feature `nccl`) | one of these, whose gradients go from GPU to GPU; not run on a GPU yet |
//!
//! Gradients are added in the order of the ranks, by every rank, whatever the network does: the same bits every time.
//!
//! What is of a batch is of a rank's share of it: the statistics of [`BatchNormalization`](crate::nn::BatchNormalization), whose moving
//! averages are averaged as gradients are, and the sums that masked steps are left out of. Dropout draws other masks on every rank. The loss and the metrics
//! of an epoch are those of all samples; callbacks of a batch see the metrics of their rank. Validation data are evaluated by every rank, and
//! all go by the first one's figures.
//!
//! Before the first step the ranks compare weights, seeds and numbers of samples (not the samples themselves), and before each epoch
//! learning rates. An error or a stop on one of them, by a callback too, ends all. What a rank cannot tell the others is its own end in the middle of a
//! step, where its GPU fails or a callback panics: an MPI program should then call `MpiRanks::abort`, as the `fused-rnn` program does.

#[cfg(feature = "mpi")]
mod mpi;
#[cfg(feature = "nccl")]
mod nccl;
mod threads;

#[cfg(feature = "mpi")]
pub use mpi::MpiRanks;
#[cfg(feature = "nccl")]
pub use nccl::NcclRanks;
pub use threads::{ThreadRanks, thread_ranks};

use crate::backend::{Device, TensorMut, TensorRef};
use crate::dtype::{DType, Scalar};
use crate::error::{Error, Result};

/// The processes that train a model together, and which of them this is.
pub trait Ranks {
    /// This one's number, from 0.
    fn rank(&self) -> usize;

    /// How many there are.
    fn count(&self) -> usize;

    /// Gives `own` to all, and fills `all` with what each has given, in the order of the ranks: `count` times as long as `own`, which is
    /// as long on every rank. All ranks call it equally often; it waits for the last.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] naming a rank that has gone.
    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()>;

    /// Whether there is a way between the ranks' devices that does not go through the host: the same on all ranks.
    fn reaches_devices(&self) -> bool {
        false
    }

    /// [`gather`](Self::gather) of tensors where the device has them, given to its stream. Only where [`reaches_devices`](Self::reaches_devices) says so.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where there is no such way; [`Error::Driver`] where it fails.
    fn gather_on_device(&self, _own: TensorRef<'_>, _all: TensorMut<'_>) -> Result<()> {
        Err(Error::unsupported("a way between the ranks' devices", "exchange through the host"))
    }
}

/// Numbers of all ranks, each rank's as long as this one's.
fn gather_f64(ranks: &dyn Ranks, own: &[f64]) -> Result<Vec<f64>> {
    let mut all = vec![0.0; own.len() * ranks.count()];
    ranks.gather(bytemuck::cast_slice(own), bytemuck::cast_slice_mut(&mut all))?;
    Ok(all)
}

/// The sum of a number of each rank, added in their order.
pub(super) fn sum(ranks: &dyn Ranks, own: f64) -> Result<f64> {
    Ok(gather_f64(ranks, &[own])?.iter().sum())
}

/// Lists of numbers of all ranks, which may be of other lengths.
pub(super) fn gather_lists(ranks: &dyn Ranks, own: &[f64]) -> Result<Vec<Vec<f64>>> {
    let lens = gather_f64(ranks, &[own.len() as f64])?;
    let longest = lens.iter().fold(0.0, |a: f64, b| a.max(*b)) as usize;
    let mut padded = own.to_vec();
    padded.resize(longest.max(1), 0.0);
    let all = gather_f64(ranks, &padded)?;
    Ok(all
        .chunks_exact(padded.len())
        .zip(lens)
        .map(|(list, len)| list.iter().take(len as usize).copied().collect())
        .collect())
}

/// This rank's result, if all ranks have one: an error of any of them is an error of all, so that none waits for one that has gone.
pub(super) fn agree<T>(ranks: &dyn Ranks, own: Result<T>) -> Result<T> {
    let failed = gather_f64(ranks, &[f64::from(own.is_err())])?;
    match (own, failed.iter().position(|failed| *failed != 0.0)) {
        (Ok(_), Some(rank)) => Err(Error::unsupported(
            "going on with training on this rank",
            format!("rank {rank} met an error, which it tells; all have stopped"),
        )),
        (own, _) => own,
    }
}

/// The same where there may be one process alone.
pub(super) fn agree_if<T>(ranks: Option<&dyn Ranks>, own: Result<T>) -> Result<T> {
    match ranks {
        None => own,
        Some(ranks) => agree(ranks, own),
    }
}

/// Gives every rank the first one's numbers.
pub(super) fn take_from_first<'n>(ranks: &dyn Ranks, numbers: impl Iterator<Item = &'n mut f64>) -> Result<()> {
    let numbers: Vec<_> = numbers.collect();
    let own: Vec<f64> = numbers.iter().map(|number| **number).collect();
    if !own.is_empty() {
        let all = gather_f64(ranks, &own)?;
        numbers.into_iter().zip(all).for_each(|(number, first)| *number = first);
    }
    Ok(())
}

/// Checks that all ranks have the same numbers, each with its name.
pub(super) fn check_same(ranks: &dyn Ranks, own: &[(&str, u64)]) -> Result<()> {
    // In halves that an `f64` holds.
    let halves: Vec<f64> = own.iter().flat_map(|(_, n)| [(n >> 32) as f64, (n & 0xffff_ffff) as f64]).collect();
    let all = gather_f64(ranks, &halves)?;
    for (rank, theirs) in all.chunks_exact(halves.len()).enumerate() {
        for ((what, _), (mine, theirs)) in
            own.iter().zip(halves.as_chunks::<2>().0.iter().zip(theirs.as_chunks::<2>().0))
        {
            if mine != theirs {
                let number = |[high, low]: &[f64; 2]| ((*high as u64) << 32) | *low as u64;
                return Err(Error::option(
                    format!("{what} on rank {}", ranks.rank()),
                    format!(
                        "those of rank {rank} ({:#x}); build the same model from the same seed, and give the same data and options",
                        number(theirs)
                    ),
                    format!("{:#x}", number(mine)),
                ));
            }
        }
    }
    Ok(())
}

/// Elements that go from rank to rank at a time.
const CHUNK: usize = 1 << 16;

/// Averages a tensor over the ranks in place, each rank's counting as its `share` says; shares add up to one. A rank whose share is zero
/// may hold anything.
pub(super) fn average(ranks: &dyn Ranks, device: &Device, share: f64, mut tensor: TensorMut<'_>) -> Result<()> {
    match tensor.dtype() {
        DType::F64 => average_of::<f64>(ranks, device, share, tensor.reborrow()),
        _ => average_of::<f32>(ranks, device, share, tensor.reborrow()),
    }
}

fn average_of<E: Scalar + bytemuck::Pod>(
    ranks: &dyn Ranks,
    device: &Device,
    share: f64,
    mut tensor: TensorMut<'_>,
) -> Result<()> {
    let shares = gather_f64(ranks, &[share])?;
    if on_device(ranks, device, &shares, tensor.reborrow())? {
        return Ok(());
    }
    let (mut own, mut all) = (Vec::new(), Vec::new());
    for first in (0..tensor.len()).step_by(CHUNK) {
        let range = first..tensor.len().min(first + CHUNK);
        own.resize(range.len(), E::of(0.0));
        all.resize(range.len() * ranks.count(), E::of(0.0));
        let mut part = tensor.reborrow().part(range.clone())?;
        device.download(part.view(), &mut own)?;
        ranks.gather(bytemuck::cast_slice(&own), bytemuck::cast_slice_mut(&mut all))?;
        for (at, sum) in own.iter_mut().enumerate() {
            let parts = shares.iter().enumerate().filter(|(_, share)| **share != 0.0);
            let of = |rank: usize| all.get(rank * range.len() + at).map_or(f64::NAN, |part| part.wide());
            *sum = E::of(parts.map(|(rank, share)| share * of(rank)).sum());
        }
        device.upload(&own, part.reborrow())?;
    }
    Ok(())
}

/// Averages a tensor where the device has it, if there is a way between the ranks' devices.
fn on_device(ranks: &dyn Ranks, device: &Device, shares: &[f64], mut tensor: TensorMut<'_>) -> Result<bool> {
    let len = tensor.len();
    if len == 0 || !ranks.reaches_devices() {
        return Ok(len == 0);
    }
    let most = crate::rnn::shape::checked_len("gradients of ranks", &[("ranks", shares.len()), ("elements", len)])?;
    let mut all = device.allocate_as("gradients of ranks", tensor.dtype(), most)?;
    ranks.gather_on_device(tensor.view(), all.view_mut())?;
    let mut first = true;
    for (part, share) in shares.iter().enumerate().filter(|(_, share)| **share != 0.0) {
        let part = all.view().part(part * len..(part + 1) * len)?;
        device.scale_add(*share, part, if first { 0.0 } else { 1.0 }, tensor.reborrow())?;
        first = false;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a rank on each of so many threads.
    fn on_ranks<T: Send>(count: usize, run: impl Fn(&dyn Ranks) -> T + Sync) -> Vec<T> {
        std::thread::scope(|scope| {
            let threads: Vec<_> =
                thread_ranks(count).unwrap().into_iter().map(|ranks| scope.spawn(|| run(&{ ranks }))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        })
    }

    #[test]
    fn what_ranks_give_comes_to_all() {
        for all in on_ranks(3, |ranks| gather_lists(ranks, &vec![ranks.rank() as f64; ranks.rank()]).unwrap()) {
            assert_eq!(all, [vec![], vec![1.0], vec![2.0, 2.0]]);
        }
        assert_eq!(on_ranks(3, |ranks| sum(ranks, ranks.rank() as f64 + 1.0).unwrap()), [6.0; 3]);
    }

    #[test]
    fn averages_are_weighted() {
        let averages = on_ranks(2, |ranks| {
            let device = Device::cpu();
            let values: Vec<f32> = (0..CHUNK + 5).map(|i| (i * (ranks.rank() + 1)) as f32).collect();
            let mut tensor = device.tensor("gradients", &values).unwrap();
            average(ranks, &device, [0.25, 0.75][ranks.rank()], tensor.view_mut()).unwrap();
            device.read::<f32>(tensor.view()).unwrap()
        });
        let wanted: Vec<f32> = (0..CHUNK + 5).map(|i| 1.75 * i as f32).collect();
        assert!(averages.iter().all(|average| *average == wanted));
    }

    /// Threads whose tensors stand where a device has them, here the host.
    struct OnDevice<'a>(&'a dyn Ranks);

    impl Ranks for OnDevice<'_> {
        fn rank(&self) -> usize {
            self.0.rank()
        }

        fn count(&self) -> usize {
            self.0.count()
        }

        fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
            self.0.gather(own, all)
        }

        fn reaches_devices(&self) -> bool {
            true
        }

        fn gather_on_device(&self, own: TensorRef<'_>, all: TensorMut<'_>) -> Result<()> {
            self.gather(own.bytes().unwrap(), all.into_bytes().unwrap())
        }
    }

    /// A rank without samples may hold NaN here too.
    #[test]
    fn devices_average_their_own() {
        let averages = on_ranks(3, |ranks| {
            let device = Device::cpu();
            let values = [[4.0f32, 8.0], [f32::NAN; 2], [8.0, 4.0]][ranks.rank()];
            let mut tensor = device.tensor("gradients", &values).unwrap();
            average(&OnDevice(ranks), &device, [0.25, 0.0, 0.75][ranks.rank()], tensor.view_mut()).unwrap();
            device.read::<f32>(tensor.view()).unwrap()
        });
        assert_eq!(averages, [[7.0, 5.0]; 3]);
    }

    /// NaN of a rank without samples does not count.
    #[test]
    fn a_rank_without_samples_gives_nothing() {
        let averages = on_ranks(2, |ranks| {
            let device = Device::cpu();
            let mut tensor = device.tensor("gradients", &[[3.0f64], [f64::NAN]][ranks.rank()]).unwrap();
            average(ranks, &device, [1.0, 0.0][ranks.rank()], tensor.view_mut()).unwrap();
            device.read::<f64>(tensor.view()).unwrap()
        });
        assert_eq!(averages, [[3.0]; 2]);
    }

    #[test]
    fn an_error_of_one_is_an_error_of_all() {
        let said = on_ranks(3, |ranks| {
            let own = if ranks.rank() == 1 { Err(Error::ZeroSize { name: "epochs" }) } else { Ok(()) };
            agree(ranks, own).unwrap_err().to_string()
        });
        assert!(said[0].contains("rank 1") && said[2].contains("rank 1"), "{said:?}");
        assert!(said[1].contains("epochs"), "{said:?}");
    }

    #[test]
    fn differences_are_named() {
        let said = on_ranks(2, |ranks| {
            check_same(ranks, &[("samples", 7), ("weights", u64::MAX - ranks.rank() as u64)]).unwrap_err().to_string()
        });
        assert!(said[0].contains("weights on rank 0") && said[0].contains("rank 1 (0xfffffffffffffffe)"), "{said:?}");
    }

    /// Whoever waits for a rank that has gone is told.
    #[test]
    fn a_rank_that_has_gone_is_no_reason_to_wait() {
        let said = on_ranks(2, |ranks| (ranks.rank() == 0).then(|| sum(ranks, 1.0).unwrap_err().to_string()));
        assert!(said[0].as_ref().is_some_and(|said| said.contains("rank")), "{said:?}");
    }
}
