//! Writing to standard output and error without the panics of `println!` and `eprintln!`.

use std::io::{ErrorKind, Write};

use fused_rnn::{Error, Result};

/// Writes `text` to standard output. A reader that has gone, as in `| head`, is no error.
pub fn print(text: &str) -> Result<()> {
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
