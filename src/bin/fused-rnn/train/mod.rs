//! `fused-rnn train`: from a file of data to a model, its error, and two pictures.
//!
//! | data | model | file |
//! |---|---|---|
//! | columns of a CSV file | continues a series | `series` |
//! | series of a CSV file, one below the other | continues each | `panel` |
//! | rows of a CSV file with a column of classes | says the class of a row | `classified`, then `sequence_model` |
//! | a `.ts` file of sequences | says the class or number of a sequence | `sequences`, then `sequence_model` |
//!
//! All are trained by `run`, with the `options` of the command line, alone or as one of several `ranks`; `checkpoints` are what `--resume` goes
//! on from.

mod checkpoints;
mod classified;
pub mod options;
mod panel;
mod ranks;
mod run;
mod sequence_model;
mod sequences;
pub mod series;

use std::process::ExitCode;

use fused_rnn::Result;

pub use checkpoints::settings;
pub use options::Args;
use options::TaskKind;

use crate::data_file::{holds_sequences, refuse_model, say_pipe};

pub fn run(args: Args) -> Result<ExitCode> {
    if args.mpi { ranks::train(args, train) } else { train(args) }
}

fn train(args: Args) -> Result<ExitCode> {
    say_pipe(&args.data);
    refuse_model(&args.data)?;
    if holds_sequences(&args.data) {
        return sequences::train(args);
    }
    if args.task == Some(TaskKind::Classification) {
        return classified::train(args);
    }
    if args.panel.is_some() {
        return panel::train(args);
    }
    series::train(args)
}
