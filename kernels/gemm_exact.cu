// gemm_exact.cu - matrix products of f32 by fused multiply-adds, for operands of any alignment (sm_80 up).
//
// Math       As gemm.cu, with the same orientations, terms, splits and sums: for the same parameters both give the same bits.
// Reads      Operands as Rows of any alignment and any number of columns.
// Writes     As gemm.cu.
// Launch     grid (ceil(m / BM), ceil(n / BN), min(count * splits, 65535)), one block a tile; shared memory STAGES * BK * (BM + BN) * 4 bytes.
//            Two tiles: `wide` 128 x 128 of eight warps, `medium` 64 x 64 of two; a warp has 32 x 64 outputs, a thread 8 x 8.
// Memory     A tile is BK = 16 deep and stands in shared memory with k outermost, so that a thread's eight rows and eight columns of a k are
//            four loads of 16 bytes for 64 multiply-adds. Where k is the inner dimension in memory, copies of 4 bytes (cp.async) transpose it
//            on the way; else a copy has 16 bytes where rows are aligned to them. Chunks of 16 bytes are permuted within a line
//            (ExactOperand::place) so that neither copies nor loads meet conflicts of banks; static assertions check it.
// Numerics   One accumulator a result, fused multiply-adds in ascending order of k: exact products, the same bits every time.
// Oracle     gemm.cu and a product in double: tests of src/backend/cuda/kernel/gemm.rs; tests/operator/operations/products.rs.
#pragma once
#include "gemm.cuh"

// BM x BN outputs; STAGES buffers of tiles BK deep.
template <int BM_, int BN_, int STAGES_> struct ExactTiles {
    static constexpr int BM = BM_, BN = BN_, STAGES = STAGES_, BK = 16, WM = 32, WN = 64;
    static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN, THREADS = WARPS_M * WARPS_N * 32;
};
using WideTile = ExactTiles<128, 128, 3>;
using MediumTile = ExactTiles<64, 64, 3>;

// One operand's tile in shared memory: BK lines, one for each k, of SIZE rows m or columns n.
template <int SIZE> struct ExactOperand {
    static constexpr int LINE = SIZE * 4;  // bytes

    // Where four adjacent numbers of a k stand.
    static DEVICE constexpr u32 place(u32 k, u32 chunk) { return k * LINE + (chunk ^ (k & 7)) * 16; }

    // Copies of 4 bytes: a warp has four adjacent rows and eight adjacent k. Loads of 16 bytes: eight lanes have eight adjacent chunks
    // of a k, or four of them twice.
    static DEVICE constexpr bool without_conflicts() {
        for (u32 chunk = 0; chunk < SIZE / 4; ++chunk) {
            u32 copied = 0;
            for (u32 k = 0; k < 8; ++k)
                for (u32 row = 0; row < 4; ++row) copied |= 1u << ((place(k, chunk) / 4 + row) % 32);
            if (copied != 0xffffffffu) return false;
        }
        for (u32 k = 0; k < 8; ++k) {
            u32 loaded = 0;
            for (u32 chunk = 0; chunk < 8; ++chunk) loaded |= 1u << (place(k, chunk) / 16 % 8);
            if (loaded != 0xff) return false;
        }
        return true;
    }
    static_assert(without_conflicts(), "conflicts of banks");
};

// Copies the tiles of an operand whose inner dimension is k: a thread has one k in eight and rows WARPS * 4 apart.
template <class T, int SIZE> struct TransposedCopy {
    static constexpr int APART = T::THREADS / 32 * 4, ROWS = SIZE / APART;
    const f32* from[ROWS];
    u32 inside;  // a bit a row
    u32 to[2];   // of this thread's k and of that eight further on
    i32 left;    // numbers from this thread's k to the end

    DEVICE TransposedCopy(const Rows& rows, u32 first, u32 count, u32 begin, u32 end) : inside(0) {
        const u32 line = warp_id() * 4 + lane_id() / 8, k = lane_id() % 8;
        left = i32(end) - i32(begin + k);
        for (u32 half = 0; half < 2; ++half) to[half] = ExactOperand<SIZE>::place(k + 8 * half, line / 4) + line % 4 * 4;
        AdvancingRow row(rows.inner, first + line, APART);
        AdvancingOffset offset(rows, row);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            const bool valid = first + line + i * APART < count;
            inside |= u32(valid) << i;
            from[i] = static_cast<const f32*>(rows.data) + (valid ? offset.at + begin + k : 0);
            offset.advance(row.advance());
        }
    }
    DEVICE void copy(u8* tile) {
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const bool valid = (inside >> i & 1) && left > 8 * half;
                cp_async4(tile + place(half, i), valid ? from[i] + 8 * half : from[i], valid ? 4 : 0);
            }
            from[i] += T::BK;
        }
        left -= T::BK;
    }

  private:
    DEVICE u32 place(int half, int i) const {
        // Where rows are a multiple of 32 apart the permutation is the same.
        if constexpr (APART % 32 == 0) return to[half] + i * APART * 4;
        const u32 line = warp_id() * 4 + lane_id() / 8 + i * APART, k = lane_id() % 8 + 8 * half;
        return ExactOperand<SIZE>::place(k, line / 4) + line % 4 * 4;
    }
};

// Copies the tiles of an operand whose outer dimension is k: a thread has one chunk of columns and k THREADS / CHUNKS apart.
template <class T, int SIZE> struct StraightCopy {
    static constexpr int CHUNKS = SIZE / 4, APART = T::THREADS / CHUNKS, LINES = T::BK / APART;
    static_assert(APART % 8 == 0 || 8 % APART == 0, "how lines are permuted repeats every eight");
    const f32* column;
    AdvancingRow row;
    AdvancingOffset offset;
    const u32* lengths;
    u32 columns;   // of this thread's four that exist
    bool aligned;  // whether they are 16 aligned bytes in every row
    u32 k, end;

    DEVICE StraightCopy(const Rows& rows, u32 first, u32 count, u32 begin, u32 end, const u32* lengths)
        : row(rows.inner, begin + threadIdx.x / CHUNKS, APART), offset(rows, row), lengths(lengths), end(end) {
        const u32 at = first + threadIdx.x % CHUNKS * 4;
        columns = at < count ? min(count - at, 4u) : 0;
        column = static_cast<const f32*>(rows.data) + (columns ? at : 0);
        aligned = (reinterpret_cast<u64>(rows.data) / 4 | rows.outer_stride | (rows.inner > 1 ? rows.inner_stride : 0)) % 4 == 0;
        k = begin + threadIdx.x / CHUNKS;
    }
    DEVICE void copy(u8* tile) {
#pragma unroll
        for (int i = 0; i < LINES; ++i) {
            bool inside = k < end;
            if (lengths != nullptr) inside = inside && row.outer < lengths[row.inner];
            const f32* const from = inside ? column + offset.at : column;
            const u32 count = inside ? columns : 0;
            u8* const to = tile + ExactOperand<SIZE>::place(threadIdx.x / CHUNKS + i * APART, threadIdx.x % CHUNKS);
            if (aligned) {
                cp_async16(to, from, count * 4);
            } else {
#pragma unroll
                for (u32 j = 0; j < 4; ++j) cp_async4(to + 4 * j, j < count ? from + j : from, j < count ? 4 : 0);
            }
            offset.advance(row.advance());
            k += APART;
        }
    }
};

template <class T, int SIZE, bool K_INNER> struct ExactCopyOf {
    struct type : TransposedCopy<T, SIZE> {
        DEVICE type(const Rows& rows, u32 first, u32 count, u32 begin, u32 end, const u32*)
            : TransposedCopy<T, SIZE>(rows, first, count, begin, end) {}
    };
};
template <class T, int SIZE> struct ExactCopyOf<T, SIZE, false> {
    using type = StraightCopy<T, SIZE>;
};

template <class T, Orientation O> struct ExactProduct {
    static constexpr int A_BYTES = T::BK * T::BM * 4, STAGE_BYTES = A_BYTES + T::BK * T::BN * 4;
    float acc[8][8];  // rows m: 4 * lane / 8 + 0..3 and those 16 further on; columns n: 4 * lane % 8 + 0..3 and those 32 further on

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < 64; ++i) acc[i / 8][i % 8] = 0.0f;
    }
    static DEVICE u32 row() { return warp_id() % T::WARPS_M * T::WM + lane_id() / 8 * 4; }
    static DEVICE u32 column() { return warp_id() / T::WARPS_M * T::WN + lane_id() % 8 * 4; }

    // Adds a term's sum over k from begin to end.
    DEVICE void add(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, const u32* lengths, u8* stages) {
        typename ExactCopyOf<T, T::BM, O != TN>::type a(term.a, blockIdx.x * T::BM, problem.m, begin, end, O == TN ? lengths : nullptr);
        typename ExactCopyOf<T, T::BN, O == NT>::type b(term.b, blockIdx.y * T::BN, problem.n, begin, end, O == TN ? lengths : nullptr);
        const u32 tiles = (end - begin + T::BK - 1) / T::BK;
#pragma unroll
        for (int i = 0; i < T::STAGES - 1; ++i) {
            a.copy(stages + i * STAGE_BYTES);
            b.copy(stages + i * STAGE_BYTES + A_BYTES);
            cp_async_commit();
        }
        u32 read = 0, write = (T::STAGES - 1) * STAGE_BYTES;
        for (u32 tile = 0; tile < tiles; ++tile) {
            // This tile is there, and everyone has left the one before, whose stage is filled now.
            cp_async_wait<T::STAGES - 2>();
            __syncthreads();
            a.copy(stages + write);
            b.copy(stages + write + A_BYTES);
            cp_async_commit();
            multiply(stages + read, stages + read + A_BYTES);
            read = read == (T::STAGES - 1) * STAGE_BYTES ? 0 : read + STAGE_BYTES;
            write = write == (T::STAGES - 1) * STAGE_BYTES ? 0 : write + STAGE_BYTES;
        }
        cp_async_wait<0>();
        __syncthreads();
    }

    // Calls write(m, n, which half of the columns, four adjacent sums) for all outputs of this thread.
    template <class Write> DEVICE void each(Write write) const {
#pragma unroll
        for (int i = 0; i < 8; ++i)
#pragma unroll
            for (int j = 0; j < 2; ++j)
                write(blockIdx.x * T::BM + row() + i / 4 * 16 + i % 4, first_column() + j * 32, j,
                      make_float4(acc[i][4 * j], acc[i][4 * j + 1], acc[i][4 * j + 2], acc[i][4 * j + 3]));
    }

    // Of c.
    static DEVICE u32 first_column() { return blockIdx.y * T::BN + column(); }

  private:
    DEVICE void multiply(const u8* a, const u8* b) {
#pragma unroll
        for (int k = 0; k < T::BK; ++k) {
            float x[8], y[8];
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                unpack(x + 4 * half, a + ExactOperand<T::BM>::place(k, row() / 4 + 4 * half));
                unpack(y + 4 * half, b + ExactOperand<T::BN>::place(k, column() / 4 + 8 * half));
            }
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[i][j] = fused_multiply_add(x[i], y[j], acc[i][j]);
        }
    }
    static DEVICE void unpack(float* to, const u8* from) {
        const float4 v = *reinterpret_cast<const float4*>(from);
        to[0] = v.x;
        to[1] = v.y;
        to[2] = v.z;
        to[3] = v.w;
    }
};

template <class E, class T, Orientation O> DEVICE void exact_gemm(const GemmParams& p) {
    SHARED(u8, stages);
    for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
        const GemmPiece<f32> piece(p, z);
        const GemmProblem& problem = piece.problem;
        if (blockIdx.x * T::BM >= problem.m || blockIdx.y * T::BN >= problem.n) continue;  // the other problem is larger
        ExactProduct<T, O> sums;
        sums.clear();
        for (u32 i = 0; i < problem.terms; ++i) {
            const GemmTerm term = piece.term(i);
            sums.add(problem, term, piece.template begin<T::BK>(term), piece.template end<T::BK>(term), p.lengths, stages);
        }
        const Rows c = piece.result();
        const float alpha = float(piece.alpha());
        const float4 bias[2] = {piece.bias4(sums.first_column()), piece.bias4(sums.first_column() + 32)};
        sums.each([&](u32 m, u32 n, int half, float4 v) {
            if (m >= problem.m || n >= problem.n) return;
            f32* const to = static_cast<f32*>(const_cast<void*>(c.data)) + row_offset(c, m) + n;
            store4(to, scaled_with_bias(alpha, v, bias[half]), problem.n - n, piece.accumulates());
        });
    }
}
