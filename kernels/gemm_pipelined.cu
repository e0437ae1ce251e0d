// gemm_pipelined.cu - matrix products as in gemm.cu by the tensor cores, for operands whose rows are aligned to 16 bytes (sm_80 up).
//
// Math       As gemm.cu, with the same orientations, terms, splits and sums: for the same parameters both give the same bits.
// Reads      Operands of E as Rows; data and both strides multiples of 16 bytes; in tn the rows of both operands in groups of the same size.
//            The number of columns need not be a multiple of anything. E is f16, bf16, or f32, which is rounded to tf32.
// Writes     As gemm.cu.
// Launch     grid (ceil(m / BM), ceil(n / BN), min(count * splits, 65535)), one block a tile; shared memory STAGES * 64 * (BM + BN) bytes.
//            Two tiles: `wide` 128 x 128 of four warps with 64 x 64 each, `medium` 64 x 64 of four warps with 32 x 32 each.
// Memory     A tile is 64 bytes of k deep. Copies of 16 bytes (cp.async) fill STAGES buffers, so that STAGES - 1 tiles are under way while
//            one is multiplied; a barrier a tile. A thread computes the address of a row once: where k is the inner dimension its rows
//            stay the same, where k is the outer one they advance by a constant. Chunks of 16 bytes are permuted within a line
//            (OperandTile::place) so that neither copies nor loads of fragments meet conflicts of banks; static assertions check it.
// Numerics   mma.sync with float accumulators, k in ascending order: the same bits every time, and those of gemm.cu.
// Oracle     gemm.cu and a product in double: tests of src/backend/cuda/kernel/gemm.rs; tests/operator/operations/products.rs.
#pragma once
#include "gemm.cuh"

// BM x BN outputs, a warp has WM x WN of them; STAGES buffers.
template <int BM_, int BN_, int WM_, int WN_, int STAGES_> struct PipelinedTile {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, STAGES = STAGES_;
    static constexpr int WARPS_M = BM / WM, WARPS_N = BN / WN, THREADS = WARPS_M * WARPS_N * 32;
};
using WideTile = PipelinedTile<128, 128, 64, 64, 4>;
using MediumTile = PipelinedTile<64, 64, 32, 32, 4>;

// Depth of a tile.
template <class E> constexpr int DEPTH = 64 / int(sizeof(E));

// One operand's tile in shared memory. LINES lines of memory, each CHUNKS chunks of 16 bytes: where k is the inner dimension
// a line is a row m or n and runs along k; else it is a row k and runs along m or n.
template <class E, class T, bool IS_A, bool K_INNER> struct OperandTile {
    static constexpr int SIZE = IS_A ? T::BM : T::BN, PART = IS_A ? T::WM : T::WN;  // of the block and of a warp
    static constexpr int CHUNK = 16 / int(sizeof(E));
    static constexpr int LINES = K_INNER ? SIZE : DEPTH<E>, CHUNKS = (K_INNER ? DEPTH<E> : SIZE) / CHUNK;
    static constexpr int BYTES = LINES * CHUNKS * 16;
    static constexpr int COPIES = LINES * CHUNKS / T::THREADS, LINES_APART = T::THREADS / CHUNKS;
    static constexpr int STEPS = 2;           // of k, an mma each
    static constexpr int BLOCKS = PART / 16;  // of 16 rows or columns, a fragment each
    // Whether fragments come by ldmatrix. It transposes elements of 16 bits alone; those of f32 are loaded word by word.
    static constexpr bool BY_MATRIX = K_INNER || sizeof(E) == 2;

    // Where a chunk of a line stands. ldmatrix reads one chunk of eight lines at a time: they take eight different sixteenths of
    // 128 bytes. Words are read from two chunks of four lines at a time.
    static DEVICE constexpr u32 place(u32 line, u32 chunk) {
        const u32 turn = CHUNKS == 4 ? line >> 1 & 3 : BY_MATRIX ? line & 7 : (line & 3) * 2;
        return line * (CHUNKS * 16) + (chunk ^ turn) * 16;
    }
    // The line and the chunk whose address a lane gives to ldmatrix for a fragment, relative to the fragment's first ones.
    static DEVICE constexpr u32 lane_line(u32 lane) { return IS_A == K_INNER ? lane % 16 : lane / 16 * 8 + lane % 8; }
    static DEVICE constexpr u32 lane_chunk(u32 lane) { return IS_A == K_INNER ? lane / 16 : lane / 8 % 2; }
    // Where a lane's first word of a fragment stands that is loaded word by word: row k lane % 4, column lane / 4 of `column`.
    static DEVICE constexpr u32 word(u32 lane, u32 column) {
        return place(lane % 4, (column + lane / 4) / CHUNK) + (column + lane / 4) % CHUNK * 4;
    }

    // Whether copies and loads take every bank once at a time: eight lanes with 16 bytes each, or 32 lanes with a word each.
    static DEVICE constexpr bool without_conflicts() {
        for (u32 first = 0; first < u32(T::THREADS); first += 8) {
            u32 copied = 0, read = 0;
            for (u32 i = first; i < first + 8; ++i) {
                copied |= 1u << (place(i / CHUNKS, i % CHUNKS) / 16 % 8);
                read |= 1u << (place(lane_line(i % 32), lane_chunk(i % 32)) / 16 % 8);
            }
            if (copied != 0xff || (BY_MATRIX && read != 0xff)) return false;
        }
        u32 words = 0;
        for (u32 lane = 0; lane < 32; ++lane) words |= 1u << (word(lane, 0) / 4 % 32);
        return BY_MATRIX || words == 0xffffffffu;
    }
};

// Copies the tiles of an operand whose inner dimension is k.
template <class E, class T, bool IS_A> struct InnerCopy {
    using Tile = OperandTile<E, T, IS_A, true>;
    static_assert(Tile::LINES_APART % 8 == 0, "the lines of a thread are permuted alike");
    const E* data;            // of this thread's chunk of row 0
    u32 lines[Tile::COPIES];  // where its lines begin, in chunks of 16 bytes: enough for 64 GB
    u32 inside;               // a bit a line
    u32 to;
    i32 left;    // elements from this thread's chunk to the end of k

    // Rows `first` and following of `count`; k from `begin` to `end`.
    DEVICE InnerCopy(const Rows& rows, u32 first, u32 count, u32 begin, u32 end) : inside(0) {
        const u32 line = threadIdx.x / Tile::CHUNKS, chunk = threadIdx.x % Tile::CHUNKS;
        const u32 k = begin + chunk * Tile::CHUNK;
        left = i32(end) - i32(k);
        to = Tile::place(line, chunk);
        data = static_cast<const E*>(rows.data) + k;
        AdvancingRow row(rows.inner, first + line, Tile::LINES_APART);
        AdvancingOffset offset(rows, row);
#pragma unroll
        for (int i = 0; i < Tile::COPIES; ++i) {
            inside |= u32(first + line + i * Tile::LINES_APART < count) << i;
            lines[i] = u32(offset.at / Tile::CHUNK);
            offset.advance(row.advance());
        }
    }
    DEVICE void copy(u8* tile) {
        const u32 bytes = u32(max(min(left, Tile::CHUNK), 0)) * u32(sizeof(E));
#pragma unroll
        for (int i = 0; i < Tile::COPIES; ++i) {
            const E* const from = data + u64(lines[i]) * Tile::CHUNK;
            cp_async16(tile + to + i * Tile::LINES_APART * Tile::CHUNKS * 16, from, inside >> i & 1 ? bytes : 0);
        }
        data += DEPTH<E>;
        left -= DEPTH<E>;
    }
};

// Copies lines of an operand whose outer dimension is k; where they are, an AdvancingRow says.
template <class E, class T, bool IS_A> struct OuterCopy {
    using Tile = OperandTile<E, T, IS_A, false>;
    const E* from;  // this thread's column in the row that is next; beyond the end of k it is not read
    i64 step, step_entering;
    u32 bytes, to;

    // Columns `first` and following of `count`.
    DEVICE OuterCopy(const Rows& rows, const AdvancingRow& row, u32 first, u32 count) {
        const AdvancingOffset offset(rows, row);
        const u32 chunk = threadIdx.x % Tile::CHUNKS, at = first + chunk * Tile::CHUNK;
        bytes = at < count ? min(count - at, u32(Tile::CHUNK)) * u32(sizeof(E)) : 0;
        from = static_cast<const E*>(rows.data) + offset.at + (bytes ? at : 0);
        step = i64(offset.step);
        step_entering = i64(offset.step_entering);
        to = Tile::place(threadIdx.x / Tile::CHUNKS, chunk);
    }
    // This thread's line i of a tile, which must be the next one.
    DEVICE void copy(u8* tile, int i, bool inside) {
        constexpr int APART = Tile::LINES_APART;
        const u32 line = threadIdx.x / Tile::CHUNKS + i * APART;
        const u32 at = APART % 8 == 0 ? to + i * APART * Tile::CHUNKS * 16 : Tile::place(line, threadIdx.x % Tile::CHUNKS);
        cp_async16(tile + at, from, inside ? bytes : 0);
    }
    DEVICE void advance(bool entered) { from += entered ? step_entering : step; }
};

// Copies the tiles of both operands, one after the other. Beyond the end of k it sets tiles to zero.
template <class E, class T, Orientation O> struct TileCopy;

template <class E, class T> struct TileCopy<E, T, NT> {
    InnerCopy<E, T, true> a;
    InnerCopy<E, T, false> b;

    DEVICE TileCopy(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, const u32*)
        : a(term.a, blockIdx.x * T::BM, problem.m, begin, end), b(term.b, blockIdx.y * T::BN, problem.n, begin, end) {}
    DEVICE void copy(u8* a_tile, u8* b_tile) {
        a.copy(a_tile);
        b.copy(b_tile);
    }
};

template <class E, class T> struct TileCopy<E, T, NN> {
    using BTile = OperandTile<E, T, false, false>;
    InnerCopy<E, T, true> a;
    AdvancingRow row;
    OuterCopy<E, T, false> b;
    u32 k, end;

    DEVICE TileCopy(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, const u32*)
        : a(term.a, blockIdx.x * T::BM, problem.m, begin, end),
          row(term.b.inner, begin + threadIdx.x / BTile::CHUNKS, BTile::LINES_APART),
          b(term.b, row, blockIdx.y * T::BN, problem.n), k(begin + threadIdx.x / BTile::CHUNKS), end(end) {}
    DEVICE void copy(u8* a_tile, u8* b_tile) {
        a.copy(a_tile);
#pragma unroll
        for (int i = 0; i < BTile::COPIES; ++i) {
            b.copy(b_tile, i, k < end);
            b.advance(row.advance());
            k += BTile::LINES_APART;
        }
    }
};

// The rows k of both operands are in groups of the same size: those of times and sequences.
template <class E, class T> struct TileCopy<E, T, TN> {
    using Tile = OperandTile<E, T, true, false>;
    static_assert(T::BM == T::BN, "a thread copies the same rows k of both operands");
    AdvancingRow row;
    OuterCopy<E, T, true> a;
    OuterCopy<E, T, false> b;
    u32 k, end;
    const u32* lengths;

    DEVICE TileCopy(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, const u32* lengths)
        : row(term.a.inner, begin + threadIdx.x / Tile::CHUNKS, Tile::LINES_APART),
          a(term.a, row, blockIdx.x * T::BM, problem.m), b(term.b, row, blockIdx.y * T::BN, problem.n),
          k(begin + threadIdx.x / Tile::CHUNKS), end(end), lengths(lengths) {}
    DEVICE void copy(u8* a_tile, u8* b_tile) {
#pragma unroll
        for (int i = 0; i < Tile::COPIES; ++i) {
            bool inside = k < end;
            if (lengths != nullptr) inside = inside && row.outer < lengths[row.inner];
            a.copy(a_tile, i, inside);
            b.copy(b_tile, i, inside);
            const bool entered = row.advance();
            a.advance(entered);
            b.advance(entered);
            k += Tile::LINES_APART;
        }
    }
};

// The fragments of a warp's part of an operand's tile, one of 16 rows or columns and 32 bytes of k each.
template <class E, class T, bool IS_A, bool K_INNER> struct OperandFragments {
    using Tile = OperandTile<E, T, IS_A, K_INNER>;
    static_assert(Tile::without_conflicts(), "conflicts of banks");
    // K_INNER: of every step; else of every block, and word by word of every eight columns of 32, after which places repeat.
    u32 at[K_INNER ? Tile::STEPS : Tile::BY_MATRIX ? Tile::BLOCKS : 4];

    DEVICE explicit OperandFragments(u32 first) {
        const u32 line = Tile::lane_line(lane_id()), chunk = Tile::lane_chunk(lane_id());
        if constexpr (K_INNER) {
#pragma unroll
            for (int step = 0; step < Tile::STEPS; ++step) at[step] = Tile::place(first + line, 2 * step + chunk);
        } else if constexpr (Tile::BY_MATRIX) {
#pragma unroll
            for (int i = 0; i < Tile::BLOCKS; ++i) at[i] = Tile::place(line, first / Tile::CHUNK + 2 * i + chunk);
        } else {
#pragma unroll
            for (int i = 0; i < 4; ++i) at[i] = Tile::word(lane_id(), first + 8 * i);
        }
    }
    // Block i of a step.
    DEVICE void load(u32 (&fragment)[4], const u8* tile, int step, int i) const {
        if constexpr (K_INNER) {
            ldmatrix_x4(fragment, tile + at[step] + i * (16 * Tile::CHUNKS * 16));
        } else if constexpr (Tile::BY_MATRIX) {
            ldmatrix_x4_transposed(fragment, tile + at[i] + step * (16 * Tile::CHUNKS * 16));
        } else {
            // Rows k t and t + 4 of a step of eight; columns g and g + 8 of a block.
#pragma unroll
            for (int half = 0; half < 2; ++half)
#pragma unroll
                for (int k = 0; k < 2; ++k) {
                    const u8* const word = tile + at[(2 * i + half) % 4] + i / 2 * 128 + (step * 8 + k * 4) * (Tile::CHUNKS * 16);
                    fragment[IS_A ? 2 * k + half : 2 * half + k] = *reinterpret_cast<const u32*>(word);
                }
        }
        if constexpr (is_same<E, f32>::value) {
#pragma unroll
            for (int j = 0; j < 4; ++j) fragment[j] = round_tf32(fragment[j]);
        }
    }
};

// One mma of a fragment of A and half a fragment of B.
template <class E> DEVICE void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16<E>(d, a[0], a[1], a[2], a[3], b0, b1);
}
template <> DEVICE void multiply_add<f32>(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_tf32(d, a, b0, b1); }

template <class E, class T, Orientation O> struct PipelinedProduct {
    static constexpr bool A_INNER = O != TN, B_INNER = O == NT;
    using ATile = OperandTile<E, T, true, A_INNER>;
    using BTile = OperandTile<E, T, false, B_INNER>;
    static constexpr int STAGE_BYTES = ATile::BYTES + BTile::BYTES, SHARED_BYTES = T::STAGES * STAGE_BYTES;
    static constexpr int M = T::WM / 16, N = T::WN / 8;
    // A warp's results pass through shared memory 16 rows at a time; a row's padding keeps the fragments' eight rows apart.
    static constexpr int ROW = T::WN + 8;
    static_assert(T::THREADS / 32 * 16 * ROW * 4 <= SHARED_BYTES, "results fit into the stages");

    float acc[M][N][4];

    DEVICE void clear() {
#pragma unroll
        for (int i = 0; i < M * N * 4; ++i) acc[i / (N * 4)][i / 4 % N][i % 4] = 0.0f;
    }

    // Adds a term's sum over k from begin to end.
    DEVICE void add(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, const u32* lengths, u8* stages) {
        const u32 warp = warp_id();
        TileCopy<E, T, O> copies(problem, term, begin, end, lengths);
        const OperandFragments<E, T, true, A_INNER> a_fragments(warp % T::WARPS_M * T::WM);
        const OperandFragments<E, T, false, B_INNER> b_fragments(warp / T::WARPS_M * T::WN);
        const u32 tiles = (end - begin + DEPTH<E> - 1) / DEPTH<E>;
#pragma unroll
        for (u32 i = 0; i < T::STAGES - 1; ++i) {
            copies.copy(stages + i * STAGE_BYTES, stages + i * STAGE_BYTES + ATile::BYTES);
            cp_async_commit();
        }
        cp_async_wait<T::STAGES - 2>();
        __syncthreads();
        u32 a[M][4], b[2][N / 2][4];
        u32 read = 0, write = (T::STAGES - 1) * STAGE_BYTES;
#pragma unroll
        for (int i = 0; i < M; ++i) a_fragments.load(a[i], stages, 0, i);
#pragma unroll
        for (int j = 0; j < N / 2; ++j) b_fragments.load(b[0][j], stages + ATile::BYTES, 0, j);
        for (u32 tile = 0; tile < tiles; ++tile) {
#pragma unroll
            for (int step = 0; step < ATile::STEPS; ++step) {
                const int next = (step + 1) % ATile::STEPS;
                if (next == 0) {
                    // The next tile is there, and nobody reads this one's stage after the barrier.
                    cp_async_wait<T::STAGES - 2>();
                    __syncthreads();
                    read = read == (T::STAGES - 1) * STAGE_BYTES ? 0 : read + STAGE_BYTES;
                }
#pragma unroll
                for (int j = 0; j < N / 2; ++j) b_fragments.load(b[next][j], stages + read + ATile::BYTES, next, j);
                if (step == 0) {
                    copies.copy(stages + write, stages + write + ATile::BYTES);
                    cp_async_commit();
                    write = write == (T::STAGES - 1) * STAGE_BYTES ? 0 : write + STAGE_BYTES;
                }
#pragma unroll
                for (int i = 0; i < M; ++i) {
#pragma unroll
                    for (int j = 0; j < N; ++j)
                        multiply_add<E>(acc[i][j], a[i], b[step][j / 2][j % 2 * 2], b[step][j / 2][j % 2 * 2 + 1]);
                    // A block of A is needed again only after the products of the others.
                    a_fragments.load(a[i], stages + read, next, i);
                }
            }
        }
        cp_async_wait<0>();
        __syncthreads();
    }

    // The first of the four adjacent columns of c that this thread writes, of all its rows.
    static DEVICE u32 first_column() {
        return blockIdx.y * T::BN + warp_id() / T::WARPS_M * T::WN + lane_id() % (T::WN / 4) * 4;
    }

    // Calls write(row, offset of c's row, column, four adjacent sums) for every row and every four columns of the block's tile.
    template <class Write> DEVICE void each(const Rows& c, u8* stages, Write write) const {
        constexpr int LANES = T::WN / 4, ROWS = 32 / LANES;  // lanes of a row, rows at a time
        const u32 warp = warp_id(), lane = lane_id(), g = lane / 4, t = lane % 4;
        float* const rows = reinterpret_cast<float*>(stages) + warp * (16 * ROW);
        u32 m = blockIdx.x * T::BM + warp % T::WARPS_M * T::WM + lane / LANES;
        const u32 column = lane % LANES * 4, n = first_column();
        AdvancingRow row(c.inner, m, ROWS);
        AdvancingOffset offset(c, row);
#pragma unroll
        for (int i = 0; i < M; ++i) {
            __syncwarp();
#pragma unroll
            for (int j = 0; j < N; ++j)
#pragma unroll
                for (int half = 0; half < 2; ++half)
                    *reinterpret_cast<float2*>(rows + (g + half * 8) * ROW + j * 8 + 2 * t) =
                        make_float2(acc[i][j][2 * half], acc[i][j][2 * half + 1]);
            __syncwarp();
#pragma unroll 1
            for (u32 r = lane / LANES; r < 16; r += ROWS) {
                write(m, offset.at, n, *reinterpret_cast<const float4*>(rows + r * ROW + column));
                m += ROWS;
                offset.advance(row.advance());
            }
        }
    }
};

template <class E, class T, Orientation O> DEVICE void pipelined_gemm(const GemmParams& p) {
    SHARED(u8, stages);
    for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
        const GemmPiece<E> piece(p, z);
        const GemmProblem& problem = piece.problem;
        if (blockIdx.x * T::BM >= problem.m || blockIdx.y * T::BN >= problem.n) continue;  // the other problem is larger
        PipelinedProduct<E, T, O> sums;
        sums.clear();
        for (u32 i = 0; i < problem.terms; ++i) {
            const GemmTerm term = piece.term(i);
            sums.add(problem, term, piece.template begin<PIECE_DEPTH>(term), piece.template end<PIECE_DEPTH>(term), p.lengths, stages);
        }
        const Rows c = piece.result();
        const float alpha = float(piece.alpha());
        const float4 bias = piece.bias4(sums.first_column());
        sums.each(c, stages, [&](u32 m, u64 row, u32 n, float4 v) {
            if (m >= problem.m || n >= problem.n) return;
            v = scaled_with_bias(alpha, v, bias);
            void* const data = const_cast<void*>(c.data);
            if (piece.wide()) {
                store4(static_cast<f32*>(data) + row + n, v, problem.n - n, piece.accumulates());
            } else {
                store4(static_cast<E*>(data) + row + n, v, problem.n - n, piece.accumulates());
            }
        });
        __syncthreads();  // the next product's copies come where results stand
    }
}
