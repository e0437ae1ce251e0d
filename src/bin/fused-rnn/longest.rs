//! `fused-rnn info --memory`: how long sequences may be so that training fits a memory.

use std::fmt::Write as _;
use std::str::FromStr;

use fused_rnn::backend::cpu::CpuBackend;
use fused_rnn::backend::{Longest, longest};
use fused_rnn::{DType, Error, Result};

use crate::info::{self, Args};

/// A number of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemorySize(usize);

const UNITS: [(&str, u32); 4] = [("KiB", 10), ("MiB", 20), ("GiB", 30), ("TiB", 40)];

impl FromStr for MemorySize {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self> {
        let in_units = UNITS.into_iter().find_map(|(unit, shift)| Some((given.strip_suffix(unit)?, shift)));
        let (number, shift) = in_units.unwrap_or((given, 0));
        let bytes = number.trim_end().parse::<usize>().ok().and_then(|number| number.checked_mul(1 << shift));
        bytes.filter(|bytes| *bytes > 0).map(MemorySize).ok_or_else(|| Error::InvalidOption {
            option: "memory".to_owned(),
            expected: format!(
                "a whole number of bytes, KiB, MiB, GiB or TiB from 1 to {} bytes, such as 16GiB",
                usize::MAX
            ),
            got: given.to_owned(),
        })
    }
}

/// As its user would write it.
fn written(bytes: usize) -> String {
    let unit = UNITS.into_iter().rev().find(|(_, shift)| bytes.trailing_zeros() >= *shift);
    unit.map_or(format!("{bytes} bytes"), |(unit, shift)| format!("{} {unit}", bytes >> shift))
}

/// The longest sequences on every backend of this build that computes in the type of the flags.
pub fn report(args: &Args, MemorySize(bytes): MemorySize) -> Result<String> {
    let (descriptor, batch) = (args.operator.descriptor(), args.operator.batch);
    let on_cpu = match args.dtype {
        DType::F32 => Some(longest(&CpuBackend::<f32>::new(), &descriptor, batch, bytes)?),
        DType::F64 => Some(longest(&CpuBackend::<f64>::new(), &descriptor, batch, bytes)?),
        _ => None,
    };
    let mut text = format!(
        "\nlongest sequences that train in {}: {}, batch {batch}, {} to {} units, {}\n{:<12}{:>16}{:>18}\n",
        written(bytes),
        descriptor.cell,
        descriptor.input_size,
        descriptor.hidden_size,
        args.dtype,
        "",
        "everything kept",
        "with checkpoints",
    );
    let rows = on_cpu.map(|found| ("cpu".to_owned(), found)).into_iter().chain(info::longest_on_gpu(args, bytes)?);
    for (backend, Longest { full, checkpoints, every }) in rows {
        let _ = write!(text, "{backend:<12}{full:>16}{checkpoints:>18}");
        let _ = match checkpoints {
            0 => writeln!(text, "   not even one step; a smaller batch or hidden size may fit"),
            _ if every < checkpoints => writeln!(text, "   every {every} steps"),
            _ => writeln!(text),
        };
    }
    text += "Counted are weights, x, y, states, their gradients, workspace and reserve.\n";
    Ok(text)
}
