//! `--resume`: the checkpoints of a training, in the folder of its results.

use std::any::TypeId;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use fused_rnn::model::{BackupAndRestore, SaveFrequency};
use fused_rnn::{Error, Result};

use super::options::{Args, Outputs};
use super::series::MOST_SEEDS;
use crate::output::{note, remark};

/// Options that change nothing about the results; and the number of epochs, to which training goes on, whatever it was before.
const FREE: [&str; 7] = ["resume", "checkpoint-every", "epochs", "quiet", "out", "help", "version"];

/// What options say that are left out, where it can be said.
const LEFT_OUT: [(&str, &str); 4] = [("gaps", "error"), ("calendar", "auto"), ("log", "auto"), ("learn", "auto")];

/// The options as they were given or are without being given, but for those that change nothing about the results: what they mean, not how it was
/// written.
pub fn settings(given: &clap::ArgMatches) -> Vec<(String, String)> {
    let command = <Args as clap::Args>::augment_args(clap::Command::new("train"));
    let options = command.get_arguments().filter_map(|argument| Some((argument, argument.get_long()?)));
    let value = |argument: &clap::Arg, long: &str| {
        let values = given.try_get_raw(argument.get_id().as_str()).ok().flatten().into_iter().flatten();
        let values: Vec<_> = values.map(|value| meaning(argument, value)).collect();
        let left_out = || LEFT_OUT.iter().find(|(option, _)| *option == long).map_or("none", |(_, value)| value);
        if values.is_empty() { left_out().to_owned() } else { values.join(",") }
    };
    options
        .filter(|(_, long)| !FREE.contains(long))
        .map(|(argument, long)| (format!("--{long}"), value(argument, long)))
        .collect()
}

/// A value as every way to write it: numbers by their value, files by their place.
fn meaning(argument: &clap::Arg, value: &OsStr) -> String {
    let text = value.to_string_lossy();
    let is = |kind: TypeId| argument.get_value_parser().type_id() == kind;
    let meaning = if is(TypeId::of::<f64>()) {
        text.parse().ok().map(|number: f64| number.to_string())
    } else if is(TypeId::of::<usize>()) || is(TypeId::of::<u64>()) {
        text.parse().ok().map(|number: u64| number.to_string())
    } else if is(TypeId::of::<PathBuf>()) {
        Path::new(value).canonicalize().ok().map(|path| path.display().to_string())
    } else {
        None
    };
    meaning.unwrap_or_else(|| text.into_owned())
}

/// Where a training keeps its checkpoints: one file for each of its seeds.
pub struct Checkpoints {
    folder: PathBuf,
    like: BackupAndRestore,
    resume: bool,
}

impl Checkpoints {
    /// For a training whose results go there, from `data`: all numbers that they depend on. Several processes have none.
    pub fn prepare(args: &Args, outputs: &Outputs, data: &[u8]) -> Result<Option<Self>> {
        let every = args.checkpoint_every;
        if !(every.is_finite() && every >= 0.0) {
            return Err(Error::InvalidOption {
                option: "--checkpoint-every".to_owned(),
                expected: "seconds, a finite number of 0 or more".to_owned(),
                got: every.to_string(),
            });
        }
        if args.ranks.is_some() {
            if args.resume {
                return Err(Error::Unsupported {
                    what: "--resume with --mpi".to_owned(),
                    why: "several processes write no checkpoints: each would have its own, and all would have to be of the same step; train \
                          in one process"
                        .to_owned(),
                });
            }
            return Ok(None);
        }
        let time =
            if every == 0.0 { Duration::MAX } else { Duration::try_from_secs_f64(every).unwrap_or(Duration::MAX) };
        let options = args.settings.iter();
        let like = options.fold(BackupAndRestore::new(""), |like, (name, value)| like.setting(name, value));
        let like = like
            .setting_of_bytes("data", data)
            .save_freq(SaveFrequency::Time(time))
            // Those of earlier seeds are needed as long as later ones train.
            .delete_checkpoint(false)
            .tolerate(|error| note(&format!("training goes on, but --resume could not: {error}")));
        let folder = outputs.model.parent().unwrap_or(Path::new(".")).to_owned();
        Ok(Some(Checkpoints { folder, like, resume: args.resume }))
    }

    /// Now that training begins: without `--resume`, what an earlier one left to go on with is removed.
    fn begin(&self) -> Result<()> {
        let shown = self.folder.display();
        match (self.resume, self.exist()) {
            (false, true) => {
                remark(&format!("an unfinished training in {shown} is replaced; --resume would have gone on with it"));
                self.remove()
            }
            (true, false) => {
                remark(&format!("no unfinished training in {shown}: it begins"));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Whether there is something to go on from.
    pub fn exist(&self) -> bool {
        self.path(0).exists()
    }

    /// The file of one of the seeds, counted from 0.
    fn path(&self, member: usize) -> PathBuf {
        self.folder.join(match member {
            0 => "checkpoint.safetensors".to_owned(),
            _ => format!("checkpoint-{}.safetensors", member + 1),
        })
    }

    /// What backs up the training of one of the seeds, counted from 0, which begins.
    pub fn of(&self, member: usize) -> Result<BackupAndRestore> {
        if member == 0 {
            self.begin()?;
        }
        Ok(self.like.clone().at(self.path(member)))
    }

    /// Removes all of them, when there is nothing more to go on with.
    pub fn remove(&self) -> Result<()> {
        // The first one last: as long as there are others, it says that there is a training.
        for path in (0..MOST_SEEDS).rev().map(|member| self.path(member)) {
            match std::fs::remove_file(&path) {
                Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
                    return Err(Error::Io { action: "remove", path, source });
                }
                _ => {}
            }
        }
        Ok(())
    }
}
