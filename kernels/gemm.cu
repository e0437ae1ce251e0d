// gemm.cu - matrix products of the recurrent passes: c = sum over terms of a b, in three orientations.
//
// Math       nt: c[m, n] = sum_k a[m, k] b[n, k]   W x and R h: weights as they stand, [rows, k]
//            nn: c[m, n] = sum_k a[m, k] b[k, n]   W^T da and R^T da
//            tn: c[m, n] = sum_k a[k, m] b[k, n]   da^T x and da^T h: k runs over all steps and sequences
// Reads      Operands of E as Rows: [T, B, features] in either layout, or plain matrices. In tn, rows k at times past a sequence's
//            length count as zero whatever they hold. A bias of c's type, or none.
// Writes     c, elements or accumulators: alpha times the sum and the bias, set or added, rounded once; with splits > 1 each piece its
//            sums, for gemm_sum.cu.
// Launch     grid (ceil(m / BM), ceil(n / BN), min(count * splits, 65535)), one block a tile; shared memory gemm_shared_bytes.
//            Two tiles: `large` 64 x 64, 256 threads; `small` 16 x 32, 128 threads, for the few rows of a step's R h.
// Numerics   16-bit elements: mma.sync with float accumulators where the GPU has it, else fused multiply-adds in float; f32 and f64: fused
//            multiply-adds in their own type, exact products. k is walked in a fixed order: the same bits every time. tf32 rounds
//            operands to 10 bits (to nearest, ties away) and multiplies them with mma.sync.
// Oracle     tests/operator/backends/ through whole passes, tests/operator/operations/ on their own.
#pragma once
#include "gemm.cuh"

// How a block's tile is computed. BM x BN outputs, BK deep, THREADS threads.
template <int BM_, int BN_, int THREADS_> struct Tile {
    static constexpr int BM = BM_, BN = BN_, THREADS = THREADS_;
};
using LargeTile = Tile<64, 64, 256>;
using SmallTile = Tile<16, 32, 128>;

// Element types and what multiplies them.
template <class E_> struct Exact {  // fused multiply-adds
    using E = E_;
    static constexpr int BK = 16;
};
template <class E_> struct Mma16 {  // mma.sync m16n8k16
    using E = E_;
    static constexpr int BK = 32;
};
struct Tf32 {  // mma.sync m16n8k8
    using E = f32;
    static constexpr int BK = 32;
};

// Shared memory holds both tiles with k innermost; a row is padded by 16 bytes so that a warp's fragments come from different banks.
template <class Math> struct SharedTile {
    static constexpr int STRIDE = Math::BK + 16 / int(sizeof(typename Math::E));
};

// Copies a tile of `rows` x BK of an operand to shared memory; what lies outside the matrix is zero.
// K_INNER: the operand's rows are m or n and its columns k; else its rows are k and its columns m or n.
template <class Math, class T, int ROWS, bool K_INNER>
DEVICE void load_tile(typename Math::E* tile, const Rows& from, u32 first, u32 rows, u32 k0, u32 k_end, const u32* lengths) {
    using E = typename Math::E;
    constexpr int BK = Math::BK, STRIDE = SharedTile<Math>::STRIDE;
    const E* const data = static_cast<const E*>(from.data);
    for (u32 i = threadIdx.x; i < ROWS * BK; i += T::THREADS) {
        // Adjacent threads read adjacent elements of memory.
        const u32 r = K_INNER ? i / BK : i % ROWS, k = K_INNER ? i % BK : i / ROWS;
        const u32 outer = K_INNER ? first + r : k0 + k, inner = K_INNER ? k0 + k : first + r;
        bool inside = first + r < rows && k0 + k < k_end;
        if (!K_INNER && inside && lengths != nullptr) inside = outer / from.inner < lengths[outer % from.inner];
        tile[r * STRIDE + k] = inside ? data[row_offset(from, outer) + inner] : zero<E>();
    }
}

// acc += a tile of products, by fused multiply-adds: a thread has RM x RN outputs, m = ty + i * TY, n = tx + j * TX.
template <class E, class T> struct ExactTile {
    using V = typename Accumulator<E>::type;
    static constexpr int TX = T::BN / (T::BN >= 64 ? 4 : 2), TY = T::THREADS / TX, RM = T::BM / TY, RN = T::BN / TX;
    V acc[RM][RN];

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < RM * RN; ++i) acc[i / RN][i % RN] = V(0);
    }
    template <class Math> DEVICE void multiply(const E* a, const E* b) {
        constexpr int STRIDE = SharedTile<Math>::STRIDE;
        const int tx = threadIdx.x % TX, ty = threadIdx.x / TX;
#pragma unroll 4
        for (int k = 0; k < Math::BK; ++k) {
            V x[RM], y[RN];
#pragma unroll
            for (int i = 0; i < RM; ++i) x[i] = load<E>(a, (ty + i * TY) * STRIDE + k);
#pragma unroll
            for (int j = 0; j < RN; ++j) y[j] = load<E>(b, (tx + j * TX) * STRIDE + k);
#pragma unroll
            for (int i = 0; i < RM; ++i)
#pragma unroll
                for (int j = 0; j < RN; ++j) acc[i][j] = fused_multiply_add(x[i], y[j], acc[i][j]);
        }
    }
    // Calls f(m, n, value) for every output of this thread.
    template <class F> DEVICE void each(F f) const {
        const int tx = threadIdx.x % TX, ty = threadIdx.x / TX;
#pragma unroll
        for (int i = 0; i < RM; ++i)
#pragma unroll
            for (int j = 0; j < RN; ++j) f(ty + i * TY, tx + j * TX, acc[i][j]);
    }
};

// acc += a tile of products, by mma.sync: a warp has 16 rows and WN columns of the tile.
template <class Math, class T> struct MmaTile {
    using E = typename Math::E;
    static constexpr int WARPS_M = T::BM / 16, WARPS_N = T::THREADS / 32 / WARPS_M, WN = T::BN / WARPS_N, NT8 = WN / 8;
    float acc[NT8][4];

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < NT8 * 4; ++i) acc[i / 4][i % 4] = 0.0f;
    }
    template <class M> DEVICE void multiply(const E* a, const E* b) {
        constexpr int STRIDE = SharedTile<Math>::STRIDE;
        constexpr int STEP = 32 / int(sizeof(E));         // k of one mma: 16 or, for tf32, 8
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
        // Both shapes of mma take 32-bit words of k: word t and t + 4 of rows g and g + 8.
        const u32* const rows = reinterpret_cast<const u32*>(a + ((warp % WARPS_M) * 16 + g) * STRIDE);
        const u32* const columns = reinterpret_cast<const u32*>(b + ((warp / WARPS_M) * WN + g) * STRIDE);
        constexpr int WORDS = STRIDE * int(sizeof(E)) / 4;
#pragma unroll
        for (int k = 0; k < Math::BK / STEP; ++k) {
            const int w = k * 8 + t;
            const u32 fragment[4] = {rows[w], rows[w + 8 * WORDS], rows[w + 4], rows[w + 8 * WORDS + 4]};
#pragma unroll
            for (int n = 0; n < NT8; ++n) {
                const u32* const column = columns + n * 8 * WORDS;
                mma(Math{}, acc[n], fragment, column[w], column[w + 4]);
            }
        }
    }
    template <class F> DEVICE void each(F f) const {
        const int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
        for (int n = 0; n < NT8; ++n)
#pragma unroll
            for (int i = 0; i < 4; ++i)
                f((warp % WARPS_M) * 16 + g + (i / 2) * 8, (warp / WARPS_M) * WN + n * 8 + 2 * t + i % 2, acc[n][i]);
    }

  private:
    static DEVICE void mma(Mma16<f16>, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_f16(d, a, b0, b1); }
    static DEVICE void mma(Mma16<bf16>, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_bf16(d, a, b0, b1); }
    static DEVICE void mma(Tf32, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
        const u32 rounded[4] = {round_tf32(a[0]), round_tf32(a[1]), round_tf32(a[2]), round_tf32(a[3])};
        mma_tf32(d, rounded, round_tf32(b0), round_tf32(b1));
    }
};

template <class Math, class T> struct TileOf {
    using type = MmaTile<Math, T>;
};
template <class E, class T> struct TileOf<Exact<E>, T> {
    using type = ExactTile<E, T>;
};
#if !HAS_MMA_16BIT
template <class E, class T> struct TileOf<Mma16<E>, T> {
    using type = ExactTile<E, T>;
};
#endif

template <class Math, class T> DEVICE constexpr u32 gemm_shared_bytes() {
    return (T::BM + T::BN) * SharedTile<Math>::STRIDE * sizeof(typename Math::E);
}

template <class Math, class T, Orientation O> DEVICE void gemm(const GemmParams& p) {
    using E = typename Math::E;
    using V = typename Accumulator<E>::type;
    SHARED(E, a_tile);
    E* const b_tile = a_tile + T::BM * SharedTile<Math>::STRIDE;
    const u32 m0 = blockIdx.x * T::BM, n0 = blockIdx.y * T::BN;
    for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
        const GemmPiece<E> piece(p, z);
        const GemmProblem& problem = piece.problem;
        if (m0 >= problem.m || n0 >= problem.n) continue;  // the other problem is larger; so it is for all threads of the block
        typename TileOf<Math, T>::type tile;
        tile.clear();
        for (u32 i = 0; i < problem.terms; ++i) {
            const GemmTerm term = piece.term(i);
            const u32 end = piece.template end<Math::BK>(term);
            for (u32 k = piece.template begin<Math::BK>(term); k < end; k += Math::BK) {
                load_tile<Math, T, T::BM, O != TN>(a_tile, term.a, m0, problem.m, k, end, O == TN ? p.lengths : nullptr);
                load_tile<Math, T, T::BN, O == NT>(b_tile, term.b, n0, problem.n, k, end, O == TN ? p.lengths : nullptr);
                __syncthreads();
                tile.template multiply<Math>(a_tile, b_tile);
                __syncthreads();
            }
        }
        const Rows out = piece.result();
        const V alpha = V(piece.alpha());
        tile.each([&](u32 m, u32 n, V value) {
            m += m0;
            n += n0;
            if (m >= problem.m || n >= problem.n) return;
            const u64 at = row_offset(out, m) + n;
            void* const c = const_cast<void*>(out.data);
            const V product = fused_multiply_add(alpha, value, piece.bias(n));
            if (piece.wide()) {
                store_or_add<V>(c, at, product, piece.accumulates());
            } else {
                store_or_add<E>(c, at, product, piece.accumulates());
            }
        });
    }
}
