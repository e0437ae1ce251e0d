// Every kernel entry point, once: build.rs compiles what stands here, the backend looks it up here.
//
// This file is included by `build.rs` and by `src/backend/cuda/catalog.rs`; it must not use anything but `std`.
// A `.cu` file holds templates only. Its entry points are generated from these rows, as
// `KERNEL(name, params, threads, body)` (the macro stands in `prims.cuh`), for the GPU and for the host alike.

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
    /// `rnn`, `lstm`, `gru`, or empty.
    pub cell: &'static str,
    /// `f32`, `f64`, `f16`, `bf16`, `tf32`, or empty.
    pub dtype: &'static str,
    /// What tells it from its siblings, for people: `forward`, `backward`, `nt`, …
    pub variant: String,
}

/// The cells: name on the command line and type in `cells/`.
pub const CELLS: [(&str, &str); 3] = [("rnn", "Rnn"), ("lstm", "Lstm"), ("gru", "Gru")];
/// Element types: name here and in `prims.cuh`.
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
/// A GEMM's tiles: name, type in `gemm.cu`, rows, columns, threads.
pub const GEMM_TILES: [(&str, &str, u32, u32, u32); 2] =
    [("large", "LargeTile", 64, 64, 256), ("small", "SmallTile", 16, 32, 128)];

/// All entry points.
pub fn entries() -> Vec<Entry> {
    let mut all = Vec::new();
    let mut add = |name: String, source, params, body: String, threads, min_compute, cell, dtype, variant: &str| {
        all.push(Entry { name, source, params, body, threads, min_compute, cell, dtype, variant: variant.to_owned() });
    };
    for dtype in DTYPES {
        for (cell, class) in CELLS {
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
            ("begin_forward", "step_forward.cu", "ForwardParams", ELEMENTWISE_THREADS),
            ("begin_backward", "step_backward.cu", "BackwardParams", ELEMENTWISE_THREADS),
            ("finish_backward", "step_backward.cu", "BackwardParams", ELEMENTWISE_THREADS),
            ("dropout", "dropout.cu", "DropoutParams", ELEMENTWISE_THREADS),
            ("bias_gradient", "reduce.cu", "BiasGradientParams", REDUCTION_THREADS),
            ("peephole_gradient", "reduce.cu", "PeepholeGradientParams", REDUCTION_THREADS),
            ("sum_partials", "reduce.cu", "SumPartialsParams", REDUCTION_THREADS),
        ] {
            let body = format!("{kernel}<{dtype}>(p)");
            add(format!("{kernel}_{dtype}"), source, params, body, threads, 75, "", dtype, "");
        }
    }
    for (math, _, class, _, min_compute) in GEMM_MATH {
        for (orientation, constant) in [("nt", "NT"), ("nn", "NN"), ("tn", "TN")] {
            for (tile, tile_class, _, _, threads) in GEMM_TILES {
                if orientation == "tn" && tile == "small" {
                    continue; // its rows and columns are those of weights
                }
                let body = format!("gemm<{class}, {tile_class}, {constant}>(p)");
                let name = format!("gemm_{orientation}_{math}_{tile}");
                add(name, "gemm.cu", "GemmParams", body, threads, min_compute, "", math, orientation);
            }
        }
    }
    if cfg!(feature = "emulated") {
        for (name, body, threads, min_compute) in PRIMITIVE_TESTS {
            let body = format!("{body}(p)");
            add(name.to_owned(), "primitives_test.cu", "PrimitiveParams", body, threads, min_compute, "", "", "test");
        }
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

/// Depth of a GEMM's tile.
pub fn gemm_depth(math: &str) -> u32 {
    GEMM_MATH.iter().find(|row| row.0 == math).map_or(0, |row| row.3)
}

/// Shared memory of a GEMM's block whose tiles have `lines` rows and columns together: `SharedTile` of `gemm.cu`.
pub fn gemm_shared_bytes(math: &str, lines: u32) -> u32 {
    let element = match math {
        "f64" => 8,
        "f16" | "bf16" => 2,
        _ => 4,
    };
    lines * (gemm_depth(math) * element + 16)
}
