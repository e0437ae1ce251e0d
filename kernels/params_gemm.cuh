// params_gemm.cuh - the parameter structs of the kernels of matrix products, mirrored field by field by src/backend/cuda/kernel/params.rs.
#pragma once
#include "params.cuh"

struct GemmTerm {
    Rows a, b;
    u32 k;
    u32 unused;
};

constexpr int GEMM_TERMS = 4;

// c = sum of the terms' products, and a bias; see gemm.cu for which way each operand lies.
struct GemmProblem {
    GemmTerm term[GEMM_TERMS];
    Rows c;            // data is written
    const void* bias;  // [n], of c's type, added to every row of c; null for none
    u32 terms;
    u32 m, n;
    u32 unused;
};

// `count` products: two with a problem each, one for each direction, or any number with the same problem, a fixed distance apart.
// Piece z % splits of product z / splits is a block's z along the grid. With more than one, pieces leave their sums in `partial`, and
// gemm_sum.cu makes c of them.
struct GemmParams {
    GemmProblem problem[2];
    const u32* lengths;      // rows k of a and b at times past a sequence's length count as zero, whatever they hold (tn only)
    void* partial;           // with more than one piece: A [count, splits, m, n], dense
    u64 partial_apart;       // numbers from one piece's sums to the next: m n of the largest problem
    u64 a_apart, b_apart, c_apart;  // elements from one product of the same problem to the next
    double alpha;            // what products are multiplied with; not in partial sums
    u32 problems;            // 1 or 2
    u32 count;
    u32 splits;              // pieces of k
    u32 accumulate;          // c += instead of c =
    u32 wide;                // c holds accumulators (A) instead of elements (E)
    u32 unused;
};
