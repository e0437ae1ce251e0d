//! `--mpi`: training as one of the processes of an MPI program.

use std::process::ExitCode;

use fused_rnn::Result;

use super::options::Args;

/// Trains on this rank. The first writes and says what a single process would; the others are silent, and leave nothing behind.
#[cfg(feature = "mpi")]
pub fn train(mut args: Args, train: impl FnOnce(Args) -> Result<ExitCode>) -> Result<ExitCode> {
    use std::rc::Rc;

    use fused_rnn::Error;
    use fused_rnn::model::{MpiRanks, Ranks};

    use crate::output;

    let ranks = Rc::new(MpiRanks::start()?);
    let folder;
    if ranks.rank() > 0 {
        output::silence();
        folder =
            tempfile::tempdir().map_err(|source| Error::Io { action: "create", path: std::env::temp_dir(), source })?;
        args.out = Some(folder.path().join("results"));
    }
    args.ranks = Some(ranks.clone());
    let trained = train(args);
    if let Err(error) = &trained {
        // The others may be waiting for this one.
        output::note(&format!("error on rank {}: {error}", ranks.rank()));
        ranks.abort(2);
    }
    trained
}

#[cfg(not(feature = "mpi"))]
pub fn train(_: Args, _: impl FnOnce(Args) -> Result<ExitCode>) -> Result<ExitCode> {
    Err(fused_rnn::Error::Unsupported {
        what: "--mpi".to_owned(),
        why: "this build has not the feature; build with --features mpi, where mpicc is on PATH, and start with mpirun"
            .to_owned(),
    })
}
