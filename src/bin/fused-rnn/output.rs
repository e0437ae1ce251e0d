//! Writing to standard output and error without the panics of `println!` and `eprintln!`.

use std::io::{ErrorKind, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use fused_rnn::error::OneLine;
use fused_rnn::{Error, Result};

/// Whether this process says nothing.
static SILENT: AtomicBool = AtomicBool::new(false);

/// From here on this process says nothing, but for errors: another says the same.
#[cfg(feature = "mpi")]
pub fn silence() {
    SILENT.store(true, Ordering::Relaxed);
}

/// Most letters that a column of a table is padded to; a format that is told more than 65,535 panics.
pub const WIDEST: usize = 200;

/// Writes `text` to standard output. A reader that has gone, as in `| head`, is no error.
pub fn print(text: &str) -> Result<()> {
    if SILENT.load(Ordering::Relaxed) {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(source) if source.kind() != ErrorKind::BrokenPipe => {
            Err(Error::Io { action: "write", path: "standard output".into(), source })
        }
        _ => Ok(()),
    }
}

/// Writes a line to standard error. Where nobody can read it, there is nobody to tell.
pub fn note(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Writes a line to standard error that all processes of a training would say alike.
pub fn remark(line: &str) {
    if !SILENT.load(Ordering::Relaxed) {
        note(&format!("note: {}", one_line(line)));
    }
}

/// A line with names that come from outside: control characters neither break it nor reach the terminal.
pub fn one_line(text: &str) -> String {
    OneLine(text).to_string()
}

/// Most characters of a name in a table or a sentence.
const LONGEST: usize = 40;

/// A name from a file, fit for one line of a terminal: without line breaks and control characters, and not too long.
pub fn plain(name: &str) -> String {
    let mut characters = name.chars().map(|c| match c {
        c if c.is_whitespace() => ' ',
        c if c.is_control() => char::REPLACEMENT_CHARACTER,
        c => c,
    });
    let start: String = characters.by_ref().take(LONGEST).collect();
    if characters.next().is_none() { start } else { start + "…" }
}

/// So many of something: `1 step`, `2 steps`.
pub fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// The first of some names, and how many there are more.
pub fn listed(names: &[String]) -> String {
    let shown: Vec<_> = names.iter().take(20).map(|name| plain(name)).collect();
    let left = names.len() - shown.len();
    let more = if left > 0 { format!(" and {left} more") } else { String::new() };
    format!("{}{more}", shown.join(", "))
}
