//! Files of data by their kind, and the errors of a file that a model is not for.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use fused_rnn::data::{MissingValues, TimeSeriesSet, read_ts};
use fused_rnn::{Error, Result};

use crate::output::remark;

/// What a model of rows with classes is for.
pub const ROWS: &str = "rows of a CSV file, not sequences";

/// Whether a file's name says that it holds sequences.
pub fn holds_sequences(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("ts"))
}

/// Says what is waited for, where a path is a named pipe: reading it goes on until a program has written to it and closed it. What a shell makes of
/// `<(…)` has its program.
pub fn say_pipe(path: &Path) {
    #[cfg(unix)]
    {
        use std::os::unix::fs::FileTypeExt;
        if std::fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_fifo()) {
            remark(&format!(
                "{} is a pipe: waiting for the program that writes to it, and for its end",
                path.display()
            ));
        }
    }
}

/// Whether a file is a model, of which the length of a header and a brace come first. What may be no file, such as a pipe, is not looked at.
fn is_model(path: &Path) -> bool {
    let mut start = [0; 9];
    let is_read = path.metadata().is_ok_and(|data| data.is_file())
        && File::open(path).and_then(|mut file| file.read_exact(&mut start)).is_ok();
    let [length @ .., first] = start;
    is_read && first == b'{' && u64::from_le_bytes(length) < 1 << 32
}

/// Refuses a model where data are to be.
pub fn refuse_model(data: &Path) -> Result<()> {
    if !is_model(data) {
        return Ok(());
    }
    Err(Error::Format {
        path: data.to_owned(),
        format: "CSV or .ts",
        problem: "it is a model; data are wanted here. To use a model: fused-rnn predict MODEL DATA".to_owned(),
    })
}

/// Refuses a model and data in the wrong order, and two models.
pub fn check_order(model: &Path, data: &Path) -> Result<()> {
    if is_model(data) && !is_model(model) {
        return Err(Error::InvalidOption {
            option: "order of the files".to_owned(),
            expected: "the model first, then the data".to_owned(),
            got: format!("{}, then the model {}", model.display(), data.display()),
        });
    }
    refuse_model(data)
}

/// Reads a file of sequences in which no value is missing.
pub fn read_sequences(path: &Path) -> Result<TimeSeriesSet> {
    read_ts(path, MissingValues::Error)
}

/// An error of a file's sequences, with the file's name.
pub fn in_file(path: &Path) -> impl Fn(Error) -> Error {
    let source_name = path.display().to_string();
    move |error| match error {
        Error::Data { .. } | Error::Io { .. } => error,
        other => Error::Data { source_name: source_name.clone(), line: None, problem: other.to_string() },
    }
}

/// The error of data of another kind than a model is for.
pub fn wrong_data(model: &Path, data: &Path, is_for: &str) -> Error {
    Error::Unsupported {
        what: format!("{} with the model {}", data.display(), model.display()),
        why: format!("the model is for {is_for}"),
    }
}

/// A file that does not say what its model is for.
pub fn no_task(path: &Path) -> Error {
    Error::Format {
        path: path.to_owned(),
        format: "model",
        problem: "it holds a model, but not what its inputs and outputs mean; use it from a program".to_owned(),
    }
}
