//! The bugs: what is changed in the PTX of which kernel.

/// How a line is changed. Lines are numbered from 0 among those of the kernel that contain the text, after the edits before.
#[derive(Clone, Copy, Debug)]
pub enum Edit {
    /// Leaves it out.
    Drop(&'static str, usize),
    /// Leaves out all that contain the text.
    DropAll(&'static str),
    /// Puts one text for another, in one line.
    Replace(&'static str, usize, &'static str, &'static str),
    /// The same in every line that has it.
    ReplaceAll(&'static str, &'static str, &'static str),
    /// Exchanges two of the registers of a line, counted from 0.
    Swap(&'static str, usize, [usize; 2]),
    /// Puts a text in the place of a register of a line.
    Operand(&'static str, usize, usize, &'static str),
}

/// What the kernel is run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// An LSTM, forward and backward, in a family of kernels.
    Bf16(&'static str),
    F32(&'static str),
    /// The test of a primitive of this name.
    Primitive,
}

/// A mistake.
pub struct PtxBug {
    pub what: &'static str,
    pub kernel: &'static str,
    pub subject: Subject,
    pub edits: &'static [Edit],
}

use Edit::{Drop, DropAll, Operand, Replace, ReplaceAll, Swap};

const CLUSTER: &str = "persistent_forward_lstm_bf16_cluster_512";
const CLUSTER_BACK: &str = "persistent_backward_lstm_bf16_cluster_512";
const GRID: &str = "persistent_forward_lstm_bf16_grid_1024";
const GRID_BACK: &str = "persistent_backward_lstm_bf16_grid_1024";
const BLOCK: &str = "persistent_forward_lstm_bf16_block_64";
const STAGED: &str = "persistent_forward_lstm_f32_grid_512";

const fn cluster(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: CLUSTER, subject: Subject::Bf16("cluster"), edits }
}
const fn cluster_back(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: CLUSTER_BACK, subject: Subject::Bf16("cluster"), edits }
}
const fn grid(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: GRID, subject: Subject::Bf16("grid"), edits }
}
const fn grid_back(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: GRID_BACK, subject: Subject::Bf16("grid"), edits }
}
const fn block(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: BLOCK, subject: Subject::Bf16("block"), edits }
}
const fn staged(what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel: STAGED, subject: Subject::F32("grid"), edits }
}
const fn primitive(kernel: &'static str, what: &'static str, edits: &'static [Edit]) -> PtxBug {
    PtxBug { what, kernel, subject: Subject::Primitive, edits }
}

/// All bugs.
pub const PTX_BUGS: &[PtxBug] = &[
    // ---- the hand-off in a cluster
    cluster(
        "the cluster's barrier after setting up is dropped",
        &[Drop("barrier.cluster.arrive", 0), Drop("barrier.cluster.wait", 0)],
    ),
    cluster(
        "the first arrival at the cluster's barrier is relaxed",
        &[Replace("barrier.cluster.arrive", 0, ".release", ".relaxed")],
    ),
    cluster(
        "the first arrival is relaxed and mbarriers are not announced",
        &[Replace("barrier.cluster.arrive", 0, ".release", ".relaxed"), Drop("fence.mbarrier_init", 0)],
    ),
    cluster("the block's barrier of a step is dropped", &[Drop("bar.sync", 3)]),
    cluster("no bytes are announced", &[Drop("mbarrier.arrive.expect_tx", 0)]),
    cluster("too few bytes are announced", &[Operand("mbarrier.arrive.expect_tx", 0, 1, "16")]),
    cluster("too many bytes are announced", &[Operand("mbarrier.arrive.expect_tx", 0, 1, "65536")]),
    cluster(
        "it arrives without announcing bytes",
        &[Replace("mbarrier.arrive.expect_tx", 0, "mbarrier.arrive.expect_tx", "mbarrier.expect_tx.relaxed.cta")],
    ),
    cluster("mbarriers count two arrivals", &[ReplaceAll("mbarrier.init", "], %r", "], 2; // %r")]),
    cluster("an mbarrier is not initialised", &[DropAll("mbarrier.init")]),
    cluster("no wait for the mbarrier", &[ReplaceAll("mbarrier.try_wait", ", 1, 0, p;", ", 1, 1, p;")]),
    cluster(
        "a wait for the other parity",
        &[Operand("mbarrier.try_wait", 0, 1, "1"), Operand("mbarrier.try_wait", 1, 1, "1")],
    ),
    // Three time loops (for one tile without lengths, with an input of one number and with any, and for everything else), each with two stores, the second for
    // large clusters; two addresses a store. Later lines first.
    cluster("a store to another block is left out", &[Drop("st.async", 2), Drop("st.async", 0)]),
    cluster(
        "a store goes to the first block instead",
        &[
            Operand("mapa.shared", 0, 2, "0"),
            Operand("mapa.shared", 1, 2, "0"),
            Operand("mapa.shared", 4, 2, "0"),
            Operand("mapa.shared", 5, 2, "0"),
        ],
    ),
    cluster(
        "a store is counted by another block's mbarrier",
        &[Operand("mapa.shared", 1, 2, "0"), Operand("mapa.shared", 5, 2, "0")],
    ),
    cluster("words of a packet change places", &[Swap("st.async", 0, [1, 2]), Swap("st.async", 2, [1, 2])]),
    cluster(
        "st.async becomes a plain store",
        &[
            ReplaceAll(
                "st.async",
                "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.b32",
                "st.shared::cluster.v4.u32",
            ),
            ReplaceAll("st.shared::cluster.v4.u32", "}, [", "}; // ["),
        ],
    ),
    cluster_back(
        "backward: the cluster's barrier after setting up is dropped",
        &[Drop("barrier.cluster.arrive", 0), Drop("barrier.cluster.wait", 0)],
    ),
    cluster_back("backward: too few bytes are announced", &[Operand("mbarrier.arrive.expect_tx", 0, 1, "16")]),
    // ---- the hand-off in a grid
    grid(
        "published with a weak store",
        &[ReplaceAll("st.relaxed.gpu.global.u32", "st.relaxed.gpu.global", "st.global")],
    ),
    grid(
        "published for the block alone",
        &[ReplaceAll("st.relaxed.gpu.global.u32", "st.relaxed.gpu", "st.relaxed.cta")],
    ),
    grid("polled with weak loads", &[ReplaceAll("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu.global", "ld.global")]),
    grid("polled for the block alone", &[ReplaceAll("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu", "ld.relaxed.cta")]),
    grid(
        "polled through the read-only path",
        &[ReplaceAll("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu.global", "ld.global.nc")],
    ),
    grid("nothing is published", &[Drop("st.relaxed.gpu.global.u32", 1)]),
    grid("a poll is not repeated", &[Drop("ld.relaxed.gpu.global.v4", 4)]),
    grid("the block's barrier of a step is dropped", &[Drop("bar.sync", 1)]),
    grid("registers of a fragment of R are exchanged", &[Swap("mma.sync", 0, [5, 6])]),
    grid_back(
        "backward: published for the cluster alone",
        &[ReplaceAll("st.relaxed.gpu.global", "st.relaxed.gpu", "st.relaxed.cluster")],
    ),
    grid_back(
        "backward: polled with weak loads",
        &[ReplaceAll("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu.global", "ld.global")],
    ),
    staged(
        "polled with weak loads into shared memory",
        &[ReplaceAll("ld.relaxed.gpu.global.v4", "ld.relaxed.gpu.global", "ld.global")],
    ),
    staged("a barrier of a step is dropped", &[Drop("bar.sync", 2)]),
    // ---- one block
    block(
        "registers of a fragment of R are exchanged",
        &[
            Swap("mma.sync", 0, [4, 5]),
            Swap("mma.sync", 1, [4, 5]),
            Swap("mma.sync", 2, [4, 5]),
            Swap("mma.sync", 3, [4, 5]),
        ],
    ),
    block("registers of a fragment of h are exchanged", &[Swap("mma.sync", 0, [8, 9])]),
    block(
        "accumulators are exchanged",
        &[
            Swap("mma.sync", 4, [0, 2]),
            Swap("mma.sync", 5, [0, 2]),
            Swap("mma.sync", 6, [0, 2]),
            Swap("mma.sync", 7, [0, 2]),
        ],
    ),
    block("operands count as f16", &[ReplaceAll("mma.sync", "bf16.bf16", "f16.f16")]),
    block("the barrier after the product is dropped", &[Drop("bar.sync", 2)]),
    block("a store to shared memory is misaligned", &[Replace("st.shared.v4.u32", 0, "]", "+8]")]),
    block("a vector is not zeroed", &[DropAll("st.shared.v4")]),
    block("an output is stored beyond the tensor", &[ReplaceAll("st.global.u16", "]", "+1048576]")]),
    // ---- primitives
    primitive("test_hand_off", "a release is relaxed", &[ReplaceAll("st.release", "st.release", "st.relaxed")]),
    primitive("test_hand_off", "an acquire is relaxed", &[ReplaceAll("ld.acquire", "ld.acquire", "ld.relaxed")]),
    primitive("test_hand_off", "a release is for the block alone", &[ReplaceAll("st.release", ".gpu", ".cta")]),
    primitive("test_hand_off", "an acquire is for the block alone", &[ReplaceAll("ld.acquire", ".gpu", ".cta")]),
    primitive("test_cp_async", "no wait for the first group", &[Replace("cp.async.wait_group", 0, "1;", "2;")]),
    primitive("test_cp_async", "no wait for the last group", &[Replace("cp.async.wait_group", 1, "0;", "1;")]),
    primitive("test_cp_async", "the barrier after a wait is dropped", &[Drop("bar.sync", 0)]),
    primitive("test_ldmatrix", "matrices are transposed", &[ReplaceAll("ldmatrix.sync", ".x4.", ".x4.trans.")]),
    primitive(
        "test_named_barriers",
        "threads that a barrier is for are too few",
        &[Operand("barrier.sync", 1, 1, "32")],
    ),
    primitive("test_shuffles", "a mask of half a warp", &[Operand("shfl.sync.bfly", 0, 5, "65535")]),
];
