// Every kernel entry point, once: build.rs compiles what stands here, the backend looks it up here.
//
// This file is included by `build.rs` and by `src/backend/cuda/images/catalog.rs`; it must not use anything but `std` and the table of
// cells, `src/cell/spec.rs`, which both have as well.
// A `.cu` file holds templates only. Its entry points are generated from these rows, as
// `KERNEL(name, params, threads, body)` (the macro stands in `primitives/target.cuh`), for the GPU and for the host alike.

use super::for_each_cell;

/// One entry point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Symbol.
    pub name: String,
    /// File under `kernels/` with the template.
    pub source: &'static str,
    /// Type of the only parameter, in `params.cuh`.
    pub params: &'static str,
    /// Statement that runs the template on the parameter `p`.
    pub body: String,
    /// Threads of a block.
    pub threads: u32,
    /// Lowest compute capability, times ten, that has it.
    pub min_compute: u32,
    /// The cell's name, or empty.
    pub cell: &'static str,
    /// `f32`, `f64`, `f16`, `bf16`, `tf32`, or empty.
    pub dtype: &'static str,
    /// What tells it from its siblings, for people: `forward`, `backward`, `nt`, …
    pub variant: String,
}

macro_rules! cells {
    ($(($kind:ident $module:ident $($layer:tt)*))*) => {
        /// The cells, from their table: the name, which is that of the file in `cells/`, and the type there.
        pub const CELLS: &[(&str, &str)] = &[$((stringify!($module), stringify!($kind))),*];
    };
}
for_each_cell!(cells);

/// The cells that have persistent kernels.
const PERSISTENT_CELLS: [&str; 3] = ["rnn", "lstm", "gru"];
/// Element types: name here and in `primitives/numbers.cuh`.
pub const DTYPES: [&str; 4] = ["f32", "f64", "f16", "bf16"];
/// Threads of a block of every elementwise kernel.
pub const ELEMENTWISE_THREADS: u32 = 128;
/// Threads of a block of every reduction.
pub const REDUCTION_THREADS: u32 = 256;

/// How a GEMM multiplies: name, element type, type in `gemm.cu`, depth of a tile, lowest compute capability.
pub const GEMM_MATH: [(&str, &str, &str, u32, u32); 5] = [
    ("f32", "f32", "Exact<f32>", 16, 75),
    ("f64", "f64", "Exact<f64>", 16, 75),
    ("f16", "f16", "Mma16<f16>", 32, 75),
    ("bf16", "bf16", "Mma16<bf16>", 32, 75),
    ("tf32", "f32", "Tf32", 32, 80),
];

/// A kernel of matrix products: the tile of results that a block of it computes, and which products it takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GemmTile {
    /// In names of entry points.
    pub name: &'static str,
    /// The kernel's template, its file, and the tile's type there.
    kernel: &'static str,
    source: &'static str,
    class: &'static str,
    /// Rows and columns of results.
    pub rows: u32,
    /// See `rows`.
    pub columns: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block.
    pub shared_bytes: u32,
    /// Lowest compute capability, times ten, that has it.
    pub min_compute: u32,
    /// Takes products of at most so many rows.
    pub most_rows: u32,
    /// Takes products whose blocks are as many as the multiprocessors, at least.
    pub fills: bool,
    /// Takes operands whose rows are aligned to 16 bytes.
    pub aligned: bool,
    /// Takes one term whose rows and those of the result stand in groups of one: the product of a step. Not in `tn`.
    pub step: bool,
}

impl GemmTile {
    /// The entry point of a way to multiply and an orientation.
    pub fn entry(&self, orientation: &str, math: &str) -> String {
        format!("gemm_{orientation}_{math}_{}", self.name)
    }
}

/// The kernels of products that multiply in the way `math`: a product is computed by the first that the GPU has and that takes it, and the last takes
/// all.
/// All but that of a step give the same bits.
pub fn gemm_tiles(math: &str) -> Vec<GemmTile> {
    let Some(&(_, element, _, depth, min_compute)) = GEMM_MATH.iter().find(|row| row.0 == math) else {
        return Vec::new();
    };
    let plain_tile = |name, class, rows, columns, threads| GemmTile {
        kernel: "gemm",
        name,
        class,
        source: "gemm.cu",
        rows,
        columns,
        threads,
        // `SharedTile` of `gemm.cu`.
        shared_bytes: (rows + columns) * (depth * element_bytes(element) + 16),
        min_compute,
        most_rows: u32::MAX,
        fills: false,
        aligned: false,
        step: false,
    };
    let small = GemmTile { most_rows: FEW_ROWS, ..plain_tile("small", "SmallTile", 16, 32, 128) };
    let large = plain_tile("large", "LargeTile", 64, 64, 256);
    // `STAGES` tiles of both operands, each 64 bytes of k deep.
    let shared_bytes = |stages: u32, rows: u32, columns: u32| stages * 64 * (rows + columns);
    let pipelined = |name, class, rows, columns, fills| GemmTile {
        kernel: "pipelined_gemm",
        source: "gemm_pipelined.cu",
        shared_bytes: shared_bytes(4, rows, columns),
        min_compute: 80,
        aligned: true,
        fills,
        ..plain_tile(name, class, rows, columns, 128)
    };
    let exact = |name, class, rows, columns, threads, fills| GemmTile {
        kernel: "exact_gemm",
        source: "gemm_exact.cu",
        shared_bytes: shared_bytes(3, rows, columns),
        min_compute: 80,
        fills,
        ..plain_tile(name, class, rows, columns, threads)
    };
    let few_rows = GemmTile {
        kernel: "few_rows_gemm",
        source: "gemm_few_rows.cu",
        // `FewRows`.
        shared_bytes: 8 * 4 * (64 * FEW_ROWS + 1024),
        min_compute: 80,
        aligned: true,
        most_rows: FEW_ROWS,
        step: true,
        ..plain_tile("few_rows", "", FEW_ROWS, 16, 256)
    };
    match math {
        "f64" => vec![small, large],
        "f32" => vec![
            few_rows,
            small,
            exact("exact_wide", "WideTile", 128, 128, 256, true),
            exact("exact_medium", "MediumTile", 64, 64, 64, false),
            large,
        ],
        // The product of a step is bound by reading the weights, so that it is exact at no cost.
        "tf32" => vec![
            few_rows,
            small,
            pipelined("pipelined_wide", "WideTile", 128, 128, true),
            pipelined("pipelined_medium", "MediumTile", 64, 64, false),
            large,
        ],
        _ => vec![
            few_rows,
            small,
            pipelined("pipelined_wide", "WideTile", 128, 128, true),
            pipelined("pipelined_medium", "MediumTile", 64, 64, false),
            large,
        ],
    }
}

/// Rows of a product up to which the small tile is used.
pub const FEW_ROWS: u32 = 32;

/// Bytes of an element.
fn element_bytes(dtype: &str) -> u32 {
    match dtype {
        "f64" => 8,
        "f16" | "bf16" => 2,
        _ => 4,
    }
}

/// All entry points.
pub fn entries() -> Vec<Entry> {
    let mut all = Vec::new();
    let mut add = |name: String, source, params, body: String, threads, min_compute, cell, dtype, variant: &str| {
        all.push(Entry { name, source, params, body, threads, min_compute, cell, dtype, variant: variant.to_owned() });
    };
    for dtype in DTYPES {
        for &(cell, class) in CELLS {
            for (direction, params) in [("forward", "StepForwardParams"), ("backward", "StepBackwardParams")] {
                let (source, kernel) = match direction {
                    "forward" => ("step_forward.cu", "step_forward"),
                    _ => ("step_backward.cu", "step_backward"),
                };
                let body = format!("{kernel}<{class}, {dtype}>(p)");
                let name = format!("{kernel}_{cell}_{dtype}");
                add(name, source, params, body, ELEMENTWISE_THREADS, 75, cell, dtype, direction);
            }
        }
        for (kernel, source, params, threads) in [
            ("head_product", "heads.cu", "HeadProductParams", ELEMENTWISE_THREADS),
            ("head_product_transposed", "heads.cu", "HeadProductParams", ELEMENTWISE_THREADS),
            ("head_weights", "heads.cu", "HeadWeightsParams", ELEMENTWISE_THREADS),
            ("read_gates", "gates.cu", "GatesParams", ELEMENTWISE_THREADS),
            ("write_gate_gradients", "gates.cu", "GatesParams", ELEMENTWISE_THREADS),
            ("begin_forward", "step_forward.cu", "ForwardParams", ELEMENTWISE_THREADS),
            ("begin_backward", "step_backward.cu", "BackwardParams", ELEMENTWISE_THREADS),
            ("finish_backward", "step_backward.cu", "BackwardParams", ELEMENTWISE_THREADS),
            ("dropout", "dropout.cu", "DropoutParams", ELEMENTWISE_THREADS),
            ("copy_rows", "segments.cu", "CopyRowsParams", ELEMENTWISE_THREADS),
            ("segment_lengths", "segments.cu", "SegmentLengthsParams", ELEMENTWISE_THREADS),
            ("hold_state", "segments.cu", "HeldRowsParams", ELEMENTWISE_THREADS),
            ("add_held", "segments.cu", "HeldRowsParams", ELEMENTWISE_THREADS),
            ("restart_states", "segments.cu", "RestartParams", ELEMENTWISE_THREADS),
            ("restart_gradients", "segments.cu", "RestartParams", ELEMENTWISE_THREADS),
            ("bias_gradient", "reduce.cu", "BiasGradientParams", REDUCTION_THREADS),
            ("peephole_gradient", "reduce.cu", "PeepholeGradientParams", REDUCTION_THREADS),
            ("sum_partials", "reduce.cu", "SumPartialsParams", REDUCTION_THREADS),
            ("bias_activation", "elementwise.cu", "BiasActivationParams", ELEMENTWISE_THREADS),
            ("activation_gradient", "elementwise.cu", "ActivationGradientParams", ELEMENTWISE_THREADS),
            ("multiply", "elementwise.cu", "MultiplyParams", ELEMENTWISE_THREADS),
            ("fill", "elementwise.cu", "FillParams", ELEMENTWISE_THREADS),
            ("scale_add", "elementwise.cu", "ScaleAddParams", ELEMENTWISE_THREADS),
            ("strided_copy", "elementwise.cu", "StridedCopyParams", ELEMENTWISE_THREADS),
            ("scale_rows", "elementwise.cu", "ScaleRowsParams", ELEMENTWISE_THREADS),
            ("select_rows", "elementwise.cu", "SelectRowsParams", ELEMENTWISE_THREADS),
            ("gather", "rows.cu", "GatherParams", ELEMENTWISE_THREADS),
            ("scatter_add", "rows.cu", "ScatterAddParams", ELEMENTWISE_THREADS),
            ("sum_axis", "rows.cu", "SumAxisParams", ELEMENTWISE_THREADS),
            ("max_axis", "rows.cu", "MaxAxisParams", ELEMENTWISE_THREADS),
            ("max_axis_gradient", "rows.cu", "MaxAxisGradientParams", ELEMENTWISE_THREADS),
            ("mask_not_equal", "rows.cu", "MaskNotEqualParams", ELEMENTWISE_THREADS),
            ("mask_order", "rows.cu", "MaskOrderParams", ELEMENTWISE_THREADS),
            ("hold_gradient", "rows.cu", "HoldGradientParams", ELEMENTWISE_THREADS),
            ("indices", "rows.cu", "IndicesParams", ELEMENTWISE_THREADS),
            ("softmax", "norm.cu", "SoftmaxParams", ELEMENTWISE_THREADS),
            ("softmax_gradient", "norm.cu", "SoftmaxGradientParams", ELEMENTWISE_THREADS),
            ("layer_norm", "norm.cu", "LayerNormParams", ELEMENTWISE_THREADS),
            ("layer_norm_gradient", "norm.cu", "NormGradientParams", ELEMENTWISE_THREADS),
            ("column_moments", "norm.cu", "ColumnMomentsParams", REDUCTION_THREADS),
            ("batch_norm", "norm.cu", "BatchNormParams", ELEMENTWISE_THREADS),
            ("norm_sums", "norm.cu", "NormGradientParams", REDUCTION_THREADS),
            ("norm_totals", "norm.cu", "NormGradientParams", ELEMENTWISE_THREADS),
            ("batch_norm_gradient", "norm.cu", "NormGradientParams", ELEMENTWISE_THREADS),
            ("adam", "training.cu", "AdamParams", ELEMENTWISE_THREADS),
            ("sgd", "training.cu", "SgdParams", ELEMENTWISE_THREADS),
            ("rmsprop", "training.cu", "RmsPropParams", ELEMENTWISE_THREADS),
            ("adagrad", "training.cu", "AdagradParams", ELEMENTWISE_THREADS),
            ("elementwise_loss", "training.cu", "LossParams", REDUCTION_THREADS),
            ("categorical_loss", "training.cu", "LossParams", REDUCTION_THREADS),
            ("sum_of_squares", "training.cu", "SumOfSquaresParams", REDUCTION_THREADS),
            ("clip", "training.cu", "ClipParams", ELEMENTWISE_THREADS),
            ("check_finite", "training.cu", "CheckFiniteParams", ELEMENTWISE_THREADS),
        ] {
            let body = format!("{kernel}<{dtype}>(p)");
            add(format!("{kernel}_{dtype}"), source, params, body, threads, 75, "", dtype, "");
        }
    }
    for dtype in ["f16", "bf16"] {
        for kernel in ["narrow", "widen"] {
            let body = format!("{kernel}<{dtype}>(p)");
            add(
                format!("{kernel}_{dtype}"),
                "elementwise.cu",
                "ConvertParams",
                body,
                ELEMENTWISE_THREADS,
                75,
                "",
                dtype,
                "",
            );
        }
    }
    for (kernel, function, params) in [
        ("finish_loss", "loss_to_status", "FinishLossParams"),
        ("finish_sum_of_squares", "sum_partial_squares", "SumOfSquaresParams"),
    ] {
        // On doubles, whatever the elements are; with those of f64, so that there is no unit for two kernels alone.
        add(kernel.to_owned(), "training.cu", params, format!("{function}(p)"), REDUCTION_THREADS, 75, "", "f64", "");
    }
    for dtype in ["f32", "f16", "bf16"] {
        for (kernel, params) in [("ended_forward", "EndedForwardParams"), ("ended_backward", "EndedBackwardParams")] {
            let (name, body) = (format!("{kernel}_{dtype}"), format!("{kernel}<{dtype}>(p)"));
            add(name, "ended.cu", params, body, ELEMENTWISE_THREADS, 75, "", dtype, "");
        }
    }
    for (math, element, class, _, _) in GEMM_MATH {
        for tile in gemm_tiles(math) {
            for (orientation, constant) in [("nt", "NT"), ("nn", "NN"), ("tn", "TN")] {
                if tile.step && orientation == "tn" {
                    continue; // the sum of a weight gradient has many rows
                }
                let how = if tile.kernel == "gemm" { class } else { element };
                let parts: Vec<_> = [how, tile.class, constant].into_iter().filter(|part| !part.is_empty()).collect();
                let body = format!("{}<{}>(p)", tile.kernel, parts.join(", "));
                let name = tile.entry(orientation, math);
                add(name, tile.source, "GemmParams", body, tile.threads, tile.min_compute, "", math, orientation);
            }
        }
    }
    for dtype in DTYPES {
        let (name, body) = (format!("sum_pieces_{dtype}"), format!("sum_pieces<{dtype}>(p)"));
        add(name, "gemm_sum.cu", "GemmParams", body, REDUCTION_THREADS, 75, "", dtype, "");
    }
    if cfg!(any(feature = "emulated", feature = "ptx")) {
        for (name, body, threads, min_compute) in PRIMITIVE_TESTS {
            let body = format!("{body}(p)");
            add(name.to_owned(), "primitives_test.cu", "PrimitiveParams", body, threads, min_compute, "", "", "test");
        }
    }
    for kernel in persistent() {
        all.push(Entry {
            body: kernel.body(),
            source: if kernel.forward { "persistent_forward.cu" } else { "persistent_backward.cu" },
            params: if kernel.forward { "PersistentForwardParams" } else { "PersistentBackwardParams" },
            threads: kernel.threads,
            min_compute: kernel.min_compute,
            cell: kernel.cell,
            dtype: kernel.math,
            variant: format!(
                "{}, {}, H <= {}{}",
                if kernel.forward { "forward" } else { "backward" },
                kernel.family.name(),
                kernel.capacity,
                if kernel.tile == USUAL_TILE { String::new() } else { format!(", {} sequences", kernel.tile) }
            ),
            name: kernel.name,
        });
    }
    all
}

/// Tests of the primitives, in builds for tests: name, template, threads, lowest compute capability.
const PRIMITIVE_TESTS: [(&str, &str, u32, u32); 21] = [
    ("test_convert", "convert_test", 128, 75),
    ("test_accurate_f32", "accurate_test<f32>", 128, 75),
    ("test_accurate_f64", "accurate_test<f64>", 128, 75),
    ("test_approximate", "approximate_test", 128, 75),
    ("test_philox", "philox_test", 128, 75),
    ("test_warp_reductions", "warp_reductions_test", 64, 75),
    ("test_shuffles", "shuffles_test", 64, 75),
    ("test_named_barriers", "named_barriers_test", 128, 75),
    ("test_hand_off", "hand_off_test", 128, 75),
    ("test_spin_gives_up", "spin_gives_up_test", 128, 75),
    ("test_loads_once", "loads_once_test", 128, 75),
    ("test_cp_async", "cp_async_test", 64, 75),
    ("test_ldmatrix", "ldmatrix_test", 32, 75),
    ("test_mma_f16", "mma_test<f16>", 32, 80),
    ("test_mma_bf16", "mma_test<bf16>", 32, 80),
    ("test_mma_tf32", "mma_tf32_test", 32, 80),
    ("test_cluster", "cluster_test", 64, 90),
    ("test_store_async", "store_async_test", 64, 90),
    ("test_reduction", "reduction_test", 128, 75),
    ("test_order", "order_test", 64, 75),
    ("test_misuse", "misuse_test", 64, 75),
];

/// Element type of a GEMM's operands.
pub fn gemm_element(math: &str) -> &'static str {
    GEMM_MATH.iter().find(|row| row.0 == math).map_or("", |row| row.1)
}

/// Bytes of an element of a GEMM's operands.
pub fn gemm_element_bytes(math: &str) -> u32 {
    GEMM_MATH.iter().find(|row| row.0 == math).map_or(0, |row| element_bytes(row.1))
}

/// Depth of a GEMM's tile.
pub fn gemm_depth(math: &str) -> u32 {
    GEMM_MATH.iter().find(|row| row.0 == math).map_or(0, |row| row.3)
}

// ---- persistent kernels ------------------------------------------------------------------------------------------------

/// How the blocks of a persistent kernel exchange the vector that all of them need every step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Exchange {
    /// A: a group is one block.
    Block,
    /// B: a group is a cluster, and the vector goes through distributed shared memory.
    Cluster,
    /// C: a group is any blocks of the GPU, and the vector goes through L2.
    Grid,
}

impl Exchange {
    /// As in names of kernels.
    pub fn name(self) -> &'static str {
        match self {
            Exchange::Block => "block",
            Exchange::Cluster => "cluster",
            Exchange::Grid => "grid",
        }
    }
}

/// A kernel that goes through all steps of a layer (`persistent_forward.cu`, `persistent_backward.cu`) and what a plan must
/// know to choose and to launch it.
///
/// **Takes** layers with `hidden_size <= capacity`, RNN (tanh or relu), LSTM, GRU with the reset after the product, the usual
/// activations (gates sigmoid, states tanh), no projection, peepholes, clips or coupled gates; any batch, length, `lengths`,
/// `resets`, biases, one or both directions. `save` is `SAVE_NOTHING` or `SAVE_ACTIVATED`.
///
/// **Launch**, with `stride` = hidden_size rounded up to 32, `batch_tiles` = ceil(batch / [`tile`](Self::tile)) and any `tiles >= 1`:
///
/// - grid `[blocks, groups, directions]`: blocks = [`blocks`](Self::blocks), groups = ceil(batch_tiles / tiles);
/// - cluster: `blocks` for [`Exchange::Cluster`], else 1 (so a cluster has 1 to 16 blocks);
/// - cooperative for [`Exchange::Grid`]: all blocks of the launch must be resident together, or waits time out;
/// - block: `threads`; dynamic shared memory: `shared_fixed + tiles * shared_per_tile`;
/// - a group works on its tiles one after another, so more tiles cost time where there are multiprocessors left for more groups.
///
/// **Input** (forward): W x of all steps in `wx`, or, with [`one_input`](Self::one_input), `x` and `weight_ih` of launches with one tile, without
/// lengths and resets.
///
/// **Parameters** beyond the layer's: `fault` (a u32 that is 0; not 0 after the launch means that a wait gave up and the
/// results are garbage), `tiles`, `patience` (of one wait, in units of 4096 clocks).
///
/// **h_prev** (forward and backward): `h_prev_stride == stride`, base aligned to 16 bytes. With `Exchange::Grid` a forward launch
/// needs `slots == seq_len` in inference too, and all of h_prev filled with 0xff *before* `begin_forward`; the kernel writes every
/// element of rows < batch, columns up to the stride included (zeros beyond hidden_size); rows >= batch are neither read nor
/// written. With the others inference has one slot, the first step's, and nothing else is read or written.
///
/// **exchange** (backward, `Exchange::Grid` only; else null): for each direction elements `[seq_len, batch, gates * stride]`, aligned
/// to 16 bytes, all filled with 0xff before the launch.
///
/// A slot (batch * stride, or batch * gates * stride elements) must be smaller than 4 GiB, as must a step of gates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PersistentKernel {
    /// Entry point.
    pub name: String,
    /// How blocks exchange.
    pub family: Exchange,
    /// Forward, or backward.
    pub forward: bool,
    /// `rnn`, `lstm`, `gru`.
    pub cell: &'static str,
    /// `f32`, `f16`, `bf16`, or `tf32`, whose elements are f32.
    pub math: &'static str,
    /// Largest hidden_size.
    pub capacity: u32,
    /// Units of a block.
    pub units: u32,
    /// Sequences of a tile, which are multiplied together: 8, or 16 for groups of more, whose products share each fragment of the matrix and
    /// whose exchange is one.
    pub tile: u32,
    /// Threads of a block.
    pub threads: u32,
    /// Dynamic shared memory of a block, bytes: this and for each tile `shared_per_tile`.
    pub shared_fixed: u32,
    /// See `shared_fixed`.
    pub shared_per_tile: u32,
    /// Bytes of the matrix that a block holds in registers, at capacity.
    pub register_bytes: u32,
    /// Bytes of the matrix that a block holds in shared memory (part of `shared_fixed`), at capacity.
    pub shared_matrix_bytes: u32,
    /// Lowest compute capability, times ten.
    pub min_compute: u32,
    /// Whether it computes W x itself where the input is one number, in launches with one tile and without lengths and resets.
    pub one_input: bool,
    warps_in_k: u32,
    shared_blocks: u32,
}

/// Sequences of a tile of most kernels: what an mma multiplies with. Names tell where there are more.
const USUAL_TILE: u32 = 8;

/// What the rows of the matrix and the vector of a step are, by cell: rows (forward) and elements (backward) of a unit.
fn gates_of(cell: &str) -> u32 {
    match cell {
        "rnn" => 1,
        "lstm" => 4,
        _ => 3,
    }
}

impl PersistentKernel {
    /// Blocks of a group.
    pub fn blocks(&self, hidden_size: u32) -> u32 {
        match self.family {
            Exchange::Block => 1,
            _ => hidden_size.next_multiple_of(32).div_ceil(self.units),
        }
    }

    /// Type of its elements, as in names of kernels.
    pub fn element(&self) -> &'static str {
        if self.math == "tf32" { "f32" } else { self.math }
    }

    /// Dynamic shared memory of a block that works on `tiles` tiles, bytes.
    pub fn shared_bytes(&self, tiles: u32) -> u64 {
        u64::from(self.shared_fixed) + u64::from(tiles) * u64::from(self.shared_per_tile)
    }

    /// `shape`: units, capacity, warps, parts of k, blocks of fragments in shared memory. `tile`: sequences.
    fn new(
        family: Exchange,
        forward: bool,
        cell: &'static str,
        math: &'static str,
        shape: [u32; 5],
        tile: u32,
    ) -> Self {
        let [units, capacity, warps, warps_in_k, shared_blocks] = shape;
        let direction = if forward { "forward" } else { "backward" };
        let gates = gates_of(cell);
        let (threads, element_bytes) = (warps * 32, if matches!(math, "f32" | "tf32") { 4 } else { 2 });
        let (rows, k) = if forward { (gates, capacity) } else { (1, gates * capacity) };
        let row_bytes = k * element_bytes;

        // As `MmaProduct` and `ExactProduct` in persistent/product.cuh; persistent.cuh checks the sums below.
        let (parts, register_bytes, shared_matrix_bytes) = if math == "f32" {
            (warps_in_k / (32 / units).max(1), rows * units * row_bytes, 0)
        } else {
            let (tiles, group_units) = match rows {
                4 => (2, 8),
                3 => (3, 16),
                _ => (1, 16),
            };
            let blocks = units / group_units / (warps / warps_in_k) * (row_bytes / 64 / warps_in_k);
            let block_bytes = warps * tiles * 2 * 512;
            (warps_in_k, (blocks - shared_blocks) * block_bytes, shared_blocks * block_bytes)
        };
        let (width, padding) = if rows == 1 { (1, 4) } else { (4, 1) };
        let sums = (parts * tile * (units + padding) * width * 4).next_multiple_of(128);
        let vector = tile * (row_bytes.next_multiple_of(128) + 64);
        let (sum_buffers, exchange_fixed, exchange_per_tile) = match (family, math) {
            (Exchange::Block, _) => (1, 0, 2 * vector),
            (Exchange::Cluster, _) => (2, tile * row_bytes / capacity * units, 2 * vector + 128),
            (Exchange::Grid, "f32") => (1, vector, 0),
            (Exchange::Grid, _) => (2, 0, 0),
        };
        // Inputs of two items under way: W x of the gates; or the gates, and c before and after, or q and h_prev.
        let inputs = match cell {
            _ if forward || cell == "rnn" => gates,
            // Gates, and q, of 16 bits are in two words.
            "lstm" if element_bytes == 2 => 2 + 2,
            "gru" if element_bytes == 2 => 2 + 1,
            _ => gates + 2,
        };
        let ring = 2 * inputs * tile * units * 4;
        let states = if cell == "lstm" { 2 } else { 1 };
        let pairs = (tile * units).div_ceil(threads) * threads;
        PersistentKernel {
            name: format!(
                "persistent_{direction}_{cell}_{math}_{}_{capacity}{}",
                family.name(),
                if tile == USUAL_TILE { String::new() } else { format!("_{tile}") }
            ),
            family,
            forward,
            cell,
            math,
            capacity,
            units,
            tile,
            threads,
            shared_fixed: 128 + sum_buffers * sums + shared_matrix_bytes + ring + exchange_fixed,
            // At the end: in which rounds a tile takes part.
            shared_per_tile: exchange_per_tile + states * pairs * 4 + 16,
            register_bytes,
            shared_matrix_bytes,
            min_compute: if family == Exchange::Cluster { 90 } else { 80 },
            // Where there are registers for that; elsewhere weights or pairs are spilled to memory. tf32 would have to round its operands.
            one_input: forward
                && match math {
                    "tf32" => false,
                    "f32" => true,
                    _ => gates == 1 || (tile == USUAL_TILE && warps <= 8 && pairs <= 2 * threads && shared_blocks <= 4),
                },
            warps_in_k,
            shared_blocks,
        }
    }

    /// The statement that runs the template.
    fn body(&self) -> String {
        let direction = if self.forward { "forward" } else { "backward" };
        let class = CELLS.iter().find(|(name, _)| *name == self.cell).map_or("", |(_, class)| class);
        let math = match self.math {
            "f32" => "ExactMath".to_owned(),
            "tf32" => "Tf32Math".to_owned(),
            element => format!("MmaMath<{element}>"),
        };
        let exchange = match (self.family, self.math) {
            (Exchange::Block, _) => "LocalExchange",
            (Exchange::Cluster, _) => "ClusterExchange",
            (Exchange::Grid, "f32") => "StagedGridExchange",
            (Exchange::Grid, _) => "GridExchange",
        };
        let (units, capacity, warps) = (self.units, self.capacity, self.threads / 32);
        let shape =
            format!("Shape<{units}, {capacity}, {warps}, {}, {}, {}>", self.warps_in_k, self.shared_blocks, self.tile);
        let shared = format!("{}, {}", self.shared_fixed, self.shared_per_tile);
        let one_input = if self.forward { format!(", {}", self.one_input) } else { String::new() };
        format!("persistent_{direction}<{class}, {math}, {exchange}, {shape}, {shared}{one_input}>(p)")
    }
}

/// All persistent kernels.
pub fn persistent() -> Vec<PersistentKernel> {
    use Exchange::{Block, Cluster, Grid};
    // Family, forward, shapes of rnn, lstm and gru: units, capacity, warps, parts of k, blocks of fragments in shared memory.
    const SIXTEEN_BITS: [(Exchange, bool, [[u32; 5]; 3]); 10] = [
        (Block, true, [[64, 64, 8, 2, 0], [64, 64, 8, 1, 0], [64, 64, 8, 2, 0]]),
        (Block, true, [[128, 128, 16, 2, 0], [128, 128, 8, 1, 0], [128, 128, 16, 2, 1]]),
        (Cluster, true, [[32, 512, 8, 4, 0]; 3]),
        (Grid, true, [[16, 1024, 8, 8, 0]; 3]),
        (Grid, true, [[16, 2048, 8, 8, 0], [16, 2048, 8, 8, 9], [16, 2048, 8, 8, 4]]),
        (Block, false, [[64, 64, 8, 2, 0]; 3]),
        (Block, false, [[128, 128, 16, 2, 0], [128, 128, 8, 1, 2], [128, 128, 8, 1, 0]]),
        (Cluster, false, [[32, 512, 16, 8, 0], [32, 512, 16, 8, 2], [32, 512, 16, 8, 1]]),
        (Grid, false, [[16, 1024, 16, 16, 0], [16, 1024, 16, 16, 5], [16, 1024, 16, 16, 3]]),
        (Grid, false, [[16, 2048, 8, 8, 0], [16, 2048, 8, 8, 19], [16, 2048, 8, 8, 9]]),
    ];
    const EXACT: [(Exchange, bool, [[u32; 5]; 3]); 6] = [
        (Block, true, [[96, 96, 12, 4, 0], [96, 80, 12, 4, 0], [96, 96, 12, 4, 0]]),
        (Grid, true, [[16, 512, 8, 16, 0]; 3]),
        (Grid, true, [[8, 1024, 8, 32, 0]; 3]),
        (Block, false, [[96, 96, 12, 4, 0]; 3]),
        (Grid, false, [[16, 512, 8, 16, 0]; 3]),
        (Grid, false, [[8, 1024, 8, 32, 0]; 3]),
    ];
    const TF32: [(Exchange, bool, [[u32; 5]; 3]); 2] =
        [(Grid, true, [[16, 512, 8, 8, 0]; 3]), (Grid, false, [[16, 512, 8, 8, 0]; 3])];
    const NONE: [u32; 5] = [0; 5];
    // With tiles of 16 sequences, where registers suffice: not for backward of the LSTM.
    const WIDE: [(Exchange, bool, [[u32; 5]; 3]); 2] =
        [(Grid, true, [[16, 1024, 8, 8, 0]; 3]), (Grid, false, [[16, 1024, 16, 16, 0], NONE, [16, 1024, 16, 16, 4]])];
    let mut all = Vec::new();
    for (math, table, tile) in [
        ("bf16", &SIXTEEN_BITS[..], USUAL_TILE),
        ("bf16", &WIDE, 16),
        ("f16", &SIXTEEN_BITS, USUAL_TILE),
        ("f16", &WIDE, 16),
        ("f32", &EXACT, USUAL_TILE),
        ("tf32", &TF32, USUAL_TILE),
    ] {
        for &(family, forward, shapes) in table {
            for (cell, shape) in PERSISTENT_CELLS.into_iter().zip(shapes) {
                if shape != NONE {
                    all.push(PersistentKernel::new(family, forward, cell, math, shape, tile));
                }
            }
        }
    }
    all
}
