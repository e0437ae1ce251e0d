//! What the interpreter finds wrong with a kernel: [`Fault`].

use std::fmt;

use crate::error::Error;

/// Class of a mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// Text that is not PTX as this interpreter reads it, or an instruction that it does not have.
    Unsupported,
    /// An address that is not a multiple of the size of its access.
    Misaligned,
    /// An access outside the memory that was allocated.
    OutOfBounds,
    /// A read of shared memory that nothing has written.
    Uninitialised,
    /// An instruction for whole warps, executed by a part of one.
    PartOfWarp,
    /// A barrier of a block or a cluster that is used as it must not be.
    Barrier,
    /// An mbarrier that is used as it must not be.
    Mbarrier,
    /// An asynchronous store or copy that is used as it must not be.
    Asynchronous,
    /// Nothing can go on.
    Deadlock,
    /// Two accesses to the same bytes, not both reads, that nothing orders.
    Race,
}

impl FaultKind {
    /// As messages call it.
    pub fn name(self) -> &'static str {
        match self {
            FaultKind::Unsupported => "not supported",
            FaultKind::Misaligned => "misaligned access",
            FaultKind::OutOfBounds => "access out of bounds",
            FaultKind::Uninitialised => "read of uninitialised shared memory",
            FaultKind::PartOfWarp => "executed by a part of a warp",
            FaultKind::Barrier => "misused barrier",
            FaultKind::Mbarrier => "misused mbarrier",
            FaultKind::Asynchronous => "misused asynchronous operation",
            FaultKind::Deadlock => "deadlock",
            FaultKind::Race => "data race",
        }
    }
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A mistake, and as much of its place as is known where it is found.
#[derive(Clone, Debug)]
pub struct Fault {
    /// Its class.
    pub kind: FaultKind,
    /// What happened and what was expected, with addresses.
    pub problem: String,
    /// The lane of the warp that did it, where it was one.
    pub lane: Option<u32>,
}

pub type Result<T, E = Box<Fault>> = std::result::Result<T, E>;

impl Fault {
    /// A fault whose lane is not known, or that is a whole warp's.
    pub fn new(kind: FaultKind, problem: impl Into<String>) -> Box<Self> {
        Box::new(Fault { kind, problem: problem.into(), lane: None })
    }

    /// The same, of one lane.
    pub fn of_lane(kind: FaultKind, lane: u32, problem: impl Into<String>) -> Box<Self> {
        Box::new(Fault { kind, problem: problem.into(), lane: Some(lane) })
    }

    /// The error that callers see.
    pub fn at(self, place: Place<'_>) -> Error {
        Error::PtxFault {
            kernel: place.kernel.to_owned(),
            line: place.line,
            instruction: place.instruction.to_owned(),
            thread: place.thread,
            fault: self.kind.name(),
            problem: self.problem,
        }
    }
}

/// Where in a kernel a fault was found.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// The entry point.
    pub kernel: &'a str,
    /// Line of the PTX, counted from 1.
    pub line: u32,
    /// The instruction there.
    pub instruction: &'a str,
    /// The thread, or the warp.
    pub thread: String,
}
