//! Ranks that are the processes of an MPI program.

use mpi::environment::Universe;
use mpi::topology::SimpleCommunicator;
use mpi::traits::{Communicator, CommunicatorCollectives};

use super::Ranks;
use crate::error::{Error, Result};

/// The processes of an MPI program, started as with `mpirun -n 2 PROGRAM`.
///
/// The feature `mpi` builds against the MPI that `mpicc` on `PATH` belongs to, and needs libclang for its bindings.
pub struct MpiRanks {
    world: SimpleCommunicator,
    /// Ends MPI when it is dropped.
    _universe: Universe,
}

impl MpiRanks {
    /// Starts MPI. Once in a process, and before other threads use it.
    ///
    /// # Errors
    ///
    /// [`Error::Unsupported`] where it has been started before.
    pub fn start() -> Result<Self> {
        let universe = mpi::initialize()
            .ok_or_else(|| Error::unsupported("starting MPI twice", "keep the MpiRanks of the first time"))?;
        Ok(MpiRanks { world: universe.world(), _universe: universe })
    }

    /// Ends all processes, where this one cannot go on: the others would wait for it.
    pub fn abort(&self, code: i32) -> ! {
        self.world.abort(code)
    }
}

impl Ranks for MpiRanks {
    fn rank(&self) -> usize {
        usize::try_from(self.world.rank()).unwrap_or(0)
    }

    fn count(&self) -> usize {
        usize::try_from(self.world.size()).unwrap_or(1)
    }

    fn gather(&self, own: &[u8], all: &mut [u8]) -> Result<()> {
        if i32::try_from(all.len()).is_err() || all.len() != own.len() * self.count() {
            return Err(Error::shape(
                "what ranks exchange",
                format!("{} times {} bytes, below 2^31", self.count(), own.len()),
                format!("{} bytes", all.len()),
            ));
        }
        self.world.all_gather_into(own, all);
        Ok(())
    }
}
