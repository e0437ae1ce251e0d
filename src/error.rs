//! The one error type of the crate.
//!
//! Every variant names what was wrong (the tensor, the option, the file), what was expected, what was found, and what to do
//! about it. Functions of this crate return it instead of panicking.
//!
//! Names of tensors, layers, columns and files come from outside: messages show them as [`OneLine`] does.

use std::fmt::{self, Display, Write};
use std::path::PathBuf;

use crate::figures::shortest;

/// Shorthand for results of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A tensor has another shape, or a flat buffer another number of elements, than the operator needs.
    #[error("{}: expected {}, got {}", OneLine(.tensor), OneLine(.expected), OneLine(.got))]
    Shape {
        /// The tensor's name as in the documentation (`x`, `h0`, `weight_ih_l0`, …).
        tensor: String,
        /// The shape that was needed, with the meaning of its axes.
        expected: String,
        /// The shape or length that was given.
        got: String,
    },
    /// A tensor is needed that was not given, or was given where the operator has none.
    #[error("{}: {}", OneLine(.tensor), OneLine(.problem))]
    Presence {
        /// The tensor's name.
        tensor: String,
        /// Why it is needed or not allowed, and what to do.
        problem: String,
    },
    /// A size that must be at least one is zero.
    #[error("{name} is 0, but must be at least 1")]
    ZeroSize {
        /// The size's name (`seq_len`, `batch`, `hidden_size`, …).
        name: &'static str,
    },
    /// The number of bytes of a tensor does not fit the address space.
    #[error("{}: {} elements overflow the address space; use smaller sizes", OneLine(.tensor), OneLine(.expression))]
    SizeOverflow {
        /// The tensor's name.
        tensor: String,
        /// The product that overflowed, such as `seq_len 4 * batch 5 * …`.
        expression: String,
    },
    /// A per-sequence length lies outside `1..=seq_len`.
    #[error("lengths[{index}]: expected 1..={seq_len}, got {got}")]
    SequenceLength {
        /// Position in the batch.
        index: usize,
        /// The length found there.
        got: u64,
        /// The longest allowed.
        seq_len: usize,
    },
    /// An option has a value that it cannot have, alone or beside the others.
    #[error("option {}: expected {}, got {}", OneLine(.option), OneLine(.expected), OneLine(.got))]
    InvalidOption {
        /// The option's name.
        option: String,
        /// What would be valid.
        expected: String,
        /// What was given.
        got: String,
    },
    /// This build or this machine cannot do what was asked. There is never a silent fallback.
    #[error("{} is not supported: {}", OneLine(.what), OneLine(.why))]
    Unsupported {
        /// What was asked for.
        what: String,
        /// Why it cannot be done, and the way out.
        why: String,
    },
    /// The emulated GPU found a mistake in a kernel, or in how it or its memory was used.
    #[error("{what} on the emulated GPU: {problem}")]
    Emulation {
        /// The kernel, or the operation on memory.
        what: String,
        /// What is wrong.
        problem: String,
    },
    /// The PTX interpreter found a mistake in a kernel.
    #[error("kernel {kernel}, line {line} of its PTX, `{instruction}`, {thread}: {fault}: {problem}")]
    PtxFault {
        /// The entry point.
        kernel: String,
        /// Line of the PTX, counted from 1; 0 where it is none's.
        line: u32,
        /// The instruction there.
        instruction: String,
        /// The thread or the warp, and its block.
        thread: String,
        /// Class of the mistake.
        fault: &'static str,
        /// What happened, with addresses, and what was expected.
        problem: String,
    },
    /// NVIDIA's driver refused a call, or reports a fault of earlier work on the GPU.
    #[error("{call} failed with {name} ({code}): {help}")]
    Driver {
        /// The driver's function, and what it was called for.
        call: String,
        /// Its result code.
        code: u32,
        /// What the driver calls that code.
        name: String,
        /// What to do.
        help: String,
    },
    /// The reserve handed to a backward pass was written under another plan.
    #[error(
        "reserve: it was filled by another plan ({filled_by:#x}) than the one given ({plan:#x}); pass the plan that ran forward"
    )]
    ReserveMismatch {
        /// Fingerprint of the plan that filled the reserve.
        filled_by: u64,
        /// Fingerprint of the plan given now.
        plan: u64,
    },
    /// A value that must be finite is NaN or infinite.
    #[error("{}: {} at {}; {}", OneLine(.tensor), shortest(*.got), OneLine(.position), OneLine(.help))]
    NonFinite {
        /// The tensor, column or quantity.
        tensor: String,
        /// The value found.
        got: f64,
        /// Where it was found.
        position: String,
        /// What to do.
        help: String,
    },
    /// A kernel gave up.
    #[error("kernel {kernel}: {problem}")]
    KernelFault {
        /// Its entry point.
        kernel: String,
        /// What happened, and what to do.
        problem: String,
    },
    /// Training stopped because a loss or a gradient was no longer finite. The best model so far is kept.
    #[error(
        "training stopped in epoch {epoch}, batch {batch}: {}; lower the learning rate, clip gradients, or check the data",
        OneLine(.what)
    )]
    Diverged {
        /// Epoch, counted from 1.
        epoch: usize,
        /// Batch within the epoch, counted from 1.
        batch: usize,
        /// What became non-finite, and its value.
        what: String,
    },
    /// Input data (CSV, a data set) cannot be used.
    #[error("{}{place}: {}", OneLine(.source_name), OneLine(.problem), place = .line.map(|l| format!(", line {l}")).unwrap_or_default())]
    Data {
        /// File or data set.
        source_name: String,
        /// Line in the file, counted from 1, where there is one.
        line: Option<u64>,
        /// What is wrong, and what would be right.
        problem: String,
    },
    /// A file has not the format that it should have.
    #[error("{}: not a usable {format} file: {}", OneLine(.path.display()), OneLine(.problem))]
    Format {
        /// The file.
        path: PathBuf,
        /// The format expected.
        format: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// The operating system refused to read or write something.
    #[error("cannot {action} {}: {source}", OneLine(.path.display()))]
    Io {
        /// What was attempted: `read`, `create`, `replace`, …
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The system's own error.
        source: std::io::Error,
    },
    /// What code of the caller's own says, such as an iterator of batches: see [`Error::other`].
    #[error("{}", OneLine(.0))]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Error {
    /// An error of the caller's own, for closures and traits that return this type; it comes back as it is:
    ///
    /// ```
    /// use fused_rnn::Error;
    /// let error = Error::other(std::io::Error::other("the database is gone"));
    /// assert_eq!(error.to_string(), "the database is gone");
    /// assert!(matches!(&error, Error::Other(source) if source.is::<std::io::Error>()));
    /// ```
    pub fn other(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        Error::Other(error.into())
    }

    /// A flat buffer of the wrong length, described by the shape it stands for.
    pub(crate) fn shape(tensor: impl Into<String>, expected: impl Into<String>, got: impl Into<String>) -> Self {
        Error::Shape { tensor: tensor.into(), expected: expected.into(), got: got.into() }
    }

    /// An option that cannot have this value.
    pub(crate) fn option(option: impl Into<String>, expected: impl Into<String>, got: impl ToString) -> Self {
        let got = got.to_string();
        // A number of hundreds of digits.
        let number = if got.len() > 20 { got.parse().ok().filter(|number: &f64| number.is_finite()) } else { None };
        let got = number.map(shortest).filter(|short| short.len() < got.len()).unwrap_or(got);
        Error::InvalidOption { option: option.into(), expected: expected.into(), got }
    }

    /// The error of an option with what says which one it is after its name; others as they are.
    #[cfg(feature = "model")]
    pub(crate) fn of_option(self, which: &str) -> Self {
        match self {
            Error::InvalidOption { option, expected, got } => {
                Error::InvalidOption { option: option + which, expected, got }
            }
            other => other,
        }
    }

    /// Something this build or machine cannot do.
    pub(crate) fn unsupported(what: impl Into<String>, why: impl Into<String>) -> Self {
        Error::Unsupported { what: what.into(), why: why.into() }
    }
}

/// Text with names from outside, fit for one line of a terminal: line breaks, control characters (escape sequences begin with one) and what
/// turns the direction of writing round are shown as Rust writes them, `\n`, `\u{1b}`. Of a long text the first 2000 bytes are shown.
///
/// ```
/// use fused_rnn::error::OneLine;
///
/// assert_eq!(OneLine("conv\u{1b}[31m\n").to_string(), "conv\\u{1b}[31m\\n");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct OneLine<T>(pub T);

impl<T: Display> Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping { to: f, left: LONGEST }, "{}", self.0)
    }
}

/// Bytes of a name or a list that are shown, at most.
const LONGEST: usize = 2000;

/// Writes on what it is given, escaped.
struct Escaping<'a, 'f> {
    to: &'a mut fmt::Formatter<'f>,
    /// Bytes that are still shown; all others are an ellipsis.
    left: usize,
}

impl Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        if text.len() <= self.left {
            self.left -= text.len();
            return self.escape(text);
        }
        let left = std::mem::take(&mut self.left);
        let ellipsis = if left > 0 { "…" } else { "" };
        self.escape(text.get(..text.floor_char_boundary(left)).unwrap_or_default())?;
        self.to.write_str(ellipsis)
    }
}

impl Escaping<'_, '_> {
    fn escape(&mut self, text: &str) -> fmt::Result {
        let mut rest = text;
        while let Some((at, odd)) = rest.char_indices().find(|(_, c)| acts_on_a_terminal(*c)) {
            let (plain, from) = rest.split_at(at);
            self.to.write_str(plain)?;
            write!(self.to, "{}", odd.escape_default())?;
            rest = from.strip_prefix(odd).unwrap_or_default();
        }
        self.to.write_str(rest)
    }
}

/// Control characters, line and paragraph separators, and those that turn the direction of writing round.
fn acts_on_a_terminal(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_from_files_reach_no_terminal_as_they_are() {
        let name = "a\u{1b}]0;title\u{7}\r\n\u{202e}b\u{9b}2J";
        let shown = r"a\u{1b}]0;title\u{7}\r\n\u{202e}b\u{9b}2J";
        let text = || name.to_owned();
        let io = || std::io::Error::other("none");
        for error in [
            Error::shape(name, "", ""),
            Error::shape("", name, ""),
            Error::shape("", "", name),
            Error::Presence { tensor: text(), problem: text() },
            Error::SizeOverflow { tensor: text(), expression: text() },
            Error::option(name, name, name),
            Error::unsupported(name, name),
            Error::NonFinite { tensor: text(), got: 0.0, position: text(), help: text() },
            Error::Diverged { epoch: 1, batch: 1, what: text() },
            Error::Data { source_name: text(), line: Some(1), problem: text() },
            Error::Format { path: name.into(), format: "ONNX", problem: text() },
            Error::Io { action: "read", path: name.into(), source: io() },
            Error::other(name),
        ] {
            let text = error.to_string();
            assert!(text.contains(shown) && !text.contains(acts_on_a_terminal), "{text:?}");
        }
        assert_eq!(OneLine("größe 尺").to_string(), "größe 尺");
        // A letter of two bytes is not cut.
        let long = OneLine(format!("a{}", "ö".repeat(50_000))).to_string();
        assert_eq!(long, format!("a{}…", "ö".repeat(999)));
        assert_eq!(OneLine("x".repeat(2000)).to_string(), "x".repeat(2000));
    }

    #[test]
    fn numbers_have_digits_that_mean_something() {
        let text = |got: f64| Error::option("rate", "a number from 0 to 1", got).to_string();
        assert_eq!(text(-1e300), "option rate: expected a number from 0 to 1, got -1e300");
        assert_eq!(text(1e-300), "option rate: expected a number from 0 to 1, got 1e-300");
        assert_eq!(text(2.5), "option rate: expected a number from 0 to 1, got 2.5");
        let size = Error::option("threads", "1..=65535", usize::MAX).to_string();
        assert_eq!(size, "option threads: expected 1..=65535, got 18446744073709551615");
        let (tensor, position, help) = ("x".to_owned(), "row 0".to_owned(), "scale it".to_owned());
        assert_eq!(
            Error::NonFinite { tensor, got: -1e300, position, help }.to_string(),
            "x: -1e300 at row 0; scale it"
        );
    }
}
