//! A kernel in the form that is executed: [`Program`], a list of [`Instruction`]s whose operands are numbers of registers.

use super::arithmetic::Function;

/// How far an access or a fence reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    Block,
    Cluster,
    Gpu,
    System,
}

/// What an access orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// Nothing: the compiler may do with it what it likes.
    Weak,
    /// `.nc`: of memory that the launch does not write.
    Constant,
    /// Nothing, but it is seen as a whole by others in the scope; `.volatile` too.
    Relaxed(Scope),
    /// `.acquire` of a load, `.release` of a store.
    Ordered(Scope),
}

/// Which memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Space {
    Param,
    Global,
    /// The block's own.
    Shared,
    /// Any block's of the cluster.
    ClusterShared,
    /// By the address.
    Generic,
}

/// A load or store. Registers: the address, then or before it the values.
#[derive(Clone, Copy, Debug)]
pub struct Access {
    pub space: Space,
    pub order: Order,
    /// Of one value.
    pub bytes: u8,
    /// Values: 1, 2, 4 or 8.
    pub count: u8,
    /// Values narrower than their register are extended by their sign.
    pub signed: bool,
    /// Registers of the values are double words.
    pub doubles: bool,
    pub offset: i64,
    /// Bytes of a load that matter, a bit for each.
    pub used: u32,
    pub address: AddressRegister,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AddressRegister {
    Word,
    Double,
}

/// What a fence orders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fence {
    /// Everything, both ways.
    Everything,
    Acquire,
    Release,
    /// `.mbarrier_init`: what initialised mbarriers, no more.
    MbarrierInit,
}

/// A register whose value does not depend on what was computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    ThreadIndex(u8),
    BlockThreads(u8),
    BlockIndex(u8),
    GridBlocks(u8),
    LaneIndex,
    WarpIndex,
    LaneMaskLess,
    LaneMaskLessEqual,
    LaneMaskEqual,
    LaneMaskGreater,
    LaneMaskGreaterEqual,
    ClusterRank,
    ClusterBlocks,
    ClusterIndex(u8),
    Clusters(u8),
    Multiprocessor,
    Clock,
}

/// `shfl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

/// `vote`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Vote {
    All,
    Any,
    Uniform,
    Ballot,
}

/// Reductions of `redux` and read-modify-writes of `atom` and `red`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Combine {
    Add,
    And,
    Or,
    Xor,
    MinUnsigned,
    MaxUnsigned,
    MinSigned,
    MaxSigned,
    Exchange,
    CompareAndSwap,
}

/// Elements of a matrix product on tensor cores: m16n8k16 of 16 bits, m16n8k8 of 16 bits or tf32.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Matrix {
    Bf16,
    F16,
    Tf32,
}

/// What an instruction does. Registers that it writes come first, then those that it reads, in the order of the text unless
/// said otherwise.
#[derive(Clone, Copy, Debug)]
pub enum Operation {
    Compute(Function),
    /// Two words of a double word.
    Split,
    /// A double word of two words.
    Join,
    /// Two halves of a word.
    SplitHalves,
    /// A word of two halves.
    JoinHalves,
    Special {
        what: Special,
        double: bool,
    },
    /// To an instruction; where lanes disagree, they come together at `join` again (`NOWHERE`: when they end).
    Branch {
        target: u32,
        join: u32,
    },
    Exit,
    /// Nothing that this interpreter models.
    Nothing,
    /// Lets others go on.
    Pause,
    Load(Access),
    Store(Access),
    Atomic {
        access: Access,
        combine: Combine,
        returns: bool,
    },
    Fence(Fence, Scope),
    Shuffle {
        kind: Shuffle,
        predicate: bool,
    },
    Vote(Vote),
    ActiveMask,
    Reduce(Combine),
    WarpSync,
    Mma {
        elements: Matrix,
        depth: u8,
    },
    LoadMatrix {
        count: u8,
        transposed: bool,
        offset: i64,
    },
    /// Barrier of the block: number, and threads where not all take part.
    Barrier {
        counted: bool,
        wait: bool,
    },
    ClusterArrive {
        release: bool,
    },
    ClusterWait {
        acquire: bool,
    },
    /// The cluster's address of the same place in another block.
    MapCluster {
        double: bool,
    },
    MbarrierInit {
        offset: i64,
    },
    /// Registers: address, and bytes to expect where `expect`, arrivals where `many`.
    MbarrierArrive {
        expect: bool,
        arrives: bool,
        many: bool,
        remote: bool,
        release: Option<Scope>,
        offset: i64,
    },
    MbarrierTest {
        acquire: Option<Scope>,
        offset: i64,
    },
    MbarrierInvalidate {
        offset: i64,
    },
    /// Registers: address, address of the mbarrier, values.
    StoreAsync {
        bytes: u8,
        count: u8,
        offset: i64,
        barrier_offset: i64,
    },
    /// Registers: address in shared memory, in global memory, bytes that are not zeros where `partial`.
    CopyAsync {
        bytes: u8,
        partial: bool,
        to_offset: i64,
        from_offset: i64,
    },
    CopyCommit,
    /// Until at most so many groups are under way.
    CopyWait(u32),
}

/// No instruction.
pub const NOWHERE: u32 = u32::MAX;
/// Most registers of an instruction.
pub const OPERANDS: usize = 16;

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    pub operation: Operation,
    /// Predicate that it is executed under, and whether that must be false.
    pub guard: Option<(u16, bool)>,
    pub registers: [u16; OPERANDS],
    /// `.aligned`: by whole warps.
    pub aligned: bool,
    /// Number of its line.
    pub line: u32,
}

/// A kernel.
#[derive(Debug)]
pub struct Program {
    pub name: String,
    pub instructions: Vec<Instruction>,
    /// The text of each instruction, for messages.
    pub texts: Vec<Box<str>>,
    pub params_bytes: usize,
    /// Registers of each bank, constants included.
    pub registers: [usize; 3],
    /// Registers with a value from the beginning.
    pub bit_constants: Vec<(u16, u32)>,
    pub word_constants: Vec<(u16, u32)>,
    pub double_constants: Vec<(u16, u64)>,
}
