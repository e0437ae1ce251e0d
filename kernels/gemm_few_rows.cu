// gemm_few_rows.cu - products of a few rows with a matrix that is read once: R h and R^T da of a step (sm_80 up).
//
// Math       nt: c[m, n] = sum_k a[m, k] b[n, k]; nn: c[m, n] = sum_k a[m, k] b[k, n]; m at most 32.
// Reads      a and b of f16, bf16 or f32, all rows in groups of one and aligned to 16 bytes; one term. Columns need not be a multiple of
//            anything.
// Writes     As gemm.cu.
// Launch     grid (1, ceil(n / 16), min(count * splits, 65535)), block 256: a block has 16 columns n of c and all rows; its warps have
//            every eighth part of k, 64 bytes deep. Shared memory FewRows::SHARED_BYTES.
// Memory     Bound by reading b, which is done once: every warp keeps STAGES - 1 of its parts under way, in copies of 16 bytes (cp.async)
//            to a place of its own in shared memory, so that no barrier stands in the loop. a is read once a block.
// Numerics   16 bits: mma.sync with float accumulators; f32, and tf32: fused multiply-adds. The warps' sums are added in the order of the warps: the
//            same bits every time, but not those of the other kernels.
// Oracle     A product in double: tests of src/backend/cuda/kernel/gemm.rs; tests/operator/operations/products.rs.
#pragma once
#include "gemm.cuh"

struct FewRows {
    static constexpr u32 WARPS = 8, STAGES = 4, PART_BYTES = 64;  // of k
    static constexpr u32 COLUMNS = 16, ROWS = 32, TILES = ROWS / 8;
    static constexpr u32 B_BYTES = 1024, STAGE_BYTES = B_BYTES + ROWS * PART_BYTES;  // of b and of both operands in a part
    static constexpr u32 SHARED_BYTES = WARPS * STAGES * STAGE_BYTES;
    static_assert(WARPS * ROWS * COLUMNS * 4 <= SHARED_BYTES, "the warps' sums fit into the stages");

    // Where a chunk of 16 bytes stands: in lines of four, of which eight lanes read two lines or a chunk of eight; in lines of two, of
    // which ldmatrix reads a chunk of eight.
    static DEVICE constexpr u32 of_four(u32 line, u32 chunk) { return line * 64 + (chunk ^ (line >> 1 & 3)) * 16; }
    static DEVICE constexpr u32 of_two(u32 line, u32 chunk) { return line * 32 + (chunk ^ (line >> 2 & 1)) * 16; }

    static DEVICE constexpr bool without_conflicts() {
        for (u32 first = 0; first < 32; first += 8) {
            u32 two_lines = 0, of_eight = 0, pairs = 0;
            for (u32 i = first; i < first + 8; ++i) {
                two_lines |= 1u << (of_four(i / 4, i % 4) / 16 % 8);
                of_eight |= 1u << (of_four(i, first / 8) / 16 % 8);
                pairs |= 1u << (of_two(i, first / 8 % 2) / 16 % 8);
            }
            if (two_lines != 0xff || of_eight != 0xff || pairs != 0xff) return false;
        }
        return true;
    }
};
static_assert(FewRows::without_conflicts(), "conflicts of banks");

// Copies a warp's parts of both operands, one after the other. Beyond the end of k it sets them to zero.
template <class E, Orientation O> struct FewRowsCopy {
    using S = FewRows;
    static_assert(O != TN, "the sum of a weight gradient has many rows");
    static constexpr u32 CHUNK = 16 / sizeof(E), PART = S::PART_BYTES / sizeof(E), APART = S::WARPS * PART;
    // In nn, rows of b have 16 columns.
    static constexpr u32 CHUNKS = O == NT ? 4 : S::COLUMNS / CHUNK, LINES = 32 / CHUNKS;
    const E* b[2];
    const E* a[S::TILES];
    u64 b_step;
    i32 left;       // elements from this thread's chunk of a to the end of k
    i32 rows_left;  // nn: from its first row of b
    u32 columns;    // nn: bytes of its chunk of b that exist
    u32 inside;     // a bit a line: nt: those of b; from 2 on those of a

    // Columns n0 and following; k from `begin` to `end`.
    DEVICE FewRowsCopy(const GemmProblem& problem, const GemmTerm& term, u32 n0, u32 begin, u32 end)
        : b_step(0), rows_left(0), columns(0), inside(0) {
        const u32 lane = lane_id(), k = begin + warp_id() * PART, chunk = k + lane % 4 * CHUNK;
        left = i32(end) - i32(chunk);
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            if constexpr (O == NT) {
                const u32 n = n0 + i * 8 + lane / 4;
                inside |= u32(n < problem.n) << i;
                b[i] = static_cast<const E*>(term.b.data) + n * term.b.outer_stride + chunk;
            } else {
                const u32 row = k + i * LINES + lane / CHUNKS;
                b[i] = static_cast<const E*>(term.b.data) + row * term.b.outer_stride + n0 + lane % CHUNKS * CHUNK;
            }
        }
        if constexpr (O == NT) {
            b_step = APART;
        } else {
            b_step = APART * term.b.outer_stride;
            rows_left = i32(end) - i32(k + lane / CHUNKS);
            columns = bytes(i32(problem.n) - i32(n0 + lane % CHUNKS * CHUNK));
        }
#pragma unroll
        for (u32 tile = 0; tile < S::TILES; ++tile) {
            const u32 m = tile * 8 + lane / 4;
            inside |= u32(m < problem.m) << (2 + tile);
            a[tile] = static_cast<const E*>(term.a.data) + m * term.a.outer_stride + chunk;
        }
    }
    DEVICE void copy(u32 tiles, u8* stage) {
        const u32 lane = lane_id(), there = bytes(left);
#pragma unroll
        for (u32 i = 0; i < 2; ++i) {
            if constexpr (O == NT) {
                cp_async16(stage + S::of_four(i * 8 + lane / 4, lane % 4), b[i], inside >> i & 1 ? there : 0);
            } else {
                const u32 row = i * LINES + lane / CHUNKS, chunk = lane % CHUNKS;
                const u32 at = CHUNKS == 4 ? S::of_four(row, chunk) : S::of_two(line_of(row), chunk);
                cp_async16(stage + at, b[i], rows_left > i32(i * LINES) ? columns : 0);
            }
            b[i] += b_step;
        }
#pragma unroll
        for (u32 tile = 0; tile < S::TILES; ++tile) {
            if (tile >= tiles) break;
            cp_async16(stage + S::B_BYTES + S::of_four(tile * 8 + lane / 4, lane % 4), a[tile], inside >> (2 + tile) & 1 ? there : 0);
            a[tile] += APART;
        }
        left -= APART;
        rows_left -= APART;
    }

  private:
    // The line of a row k of 16-bit elements, see FewRowsSums.
    static DEVICE constexpr u32 line_of(u32 k) { return k / 4 % 2 * 16 + k / 2 % 2 * 8 + k / 8 * 2 + k % 2; }
    // Of the 16 bytes of a chunk, from which on there are so many elements.
    static DEVICE u32 bytes(i32 elements) { return u32(max(min(elements, i32(CHUNK)), 0)) * u32(sizeof(E)); }
};

// A warp's sums of 16-bit elements. mma.sync m16n8k16 with the 16 columns n as its rows and eight rows m as its columns. Of the 32 k of a part,
// lane t of four has 8 t to 8 t + 7 as fragments of two mma: 16 adjacent bytes of a row; 8 t + 4 i + 2 h + e is what mma i takes
// for its k 8 h + 2 t + e. nn has them from rows k by ldmatrix, which transposes; rows stand in shared memory in the order of mma and k.
template <class E, Orientation O> struct FewRowsSums {
    using S = FewRows;
    float acc[S::TILES][4];

    DEVICE void add(const u8* stage, u32 tiles) {
        const u32 lane = lane_id(), g = lane / 4, t = lane % 4;
        u32 b[2][4];
        if constexpr (O == NT) {
            const uint4 low = *reinterpret_cast<const uint4*>(stage + S::of_four(g, t));
            const uint4 high = *reinterpret_cast<const uint4*>(stage + S::of_four(g + 8, t));
            const u32 words[2][4] = {{low.x, high.x, low.y, high.y}, {low.z, high.z, low.w, high.w}};
            for (u32 i = 0; i < 8; ++i) b[i / 4][i % 4] = words[i / 4][i % 4];
        } else {
#pragma unroll
            for (u32 i = 0; i < 2; ++i)
                ldmatrix_x4_transposed(b[i], stage + S::of_two(i * 16 + lane / 16 * 8 + lane % 8, lane / 8 % 2));
        }
#pragma unroll
        for (u32 tile = 0; tile < S::TILES; ++tile) {
            if (tile >= tiles) break;
            const uint4 a = *reinterpret_cast<const uint4*>(stage + S::B_BYTES + S::of_four(tile * 8 + g, t));
            mma_m16n8k16<E>(acc[tile], b[0][0], b[0][1], b[0][2], b[0][3], a.x, a.y);
            mma_m16n8k16<E>(acc[tile], b[1][0], b[1][1], b[1][2], b[1][3], a.z, a.w);
        }
    }
    // Row m and column n of acc[tile][i].
    static DEVICE u32 row(u32 tile, u32 i) { return tile * 8 + lane_id() % 4 * 2 + i % 2; }
    static DEVICE u32 column(u32 i) { return lane_id() / 4 + i / 2 * 8; }
};

// A warp's sums of f32: a lane has four columns n and every eighth row m.
template <Orientation O> struct FewRowsSums<f32, O> {
    using S = FewRows;
    float acc[S::TILES][4];

    DEVICE void add(const u8* stage, u32 tiles) {
        const u32 columns = lane_id() / 8;
#pragma unroll
        for (u32 chunk = 0; chunk < 4; ++chunk) {
            // nt: of column i, four k; nn: of k i, four columns.
            float4 b[4];
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
                b[i] = *reinterpret_cast<const float4*>(
                    stage + (O == NT ? S::of_four(columns * 4 + i, chunk) : S::of_four(chunk * 4 + i, columns)));
#pragma unroll
            for (u32 tile = 0; tile < S::TILES; ++tile) {
                if (tile >= tiles) break;
                const float4 a = *reinterpret_cast<const float4*>(stage + S::B_BYTES + S::of_four(tile * 8 + lane_id() % 8, chunk));
                const float k[4] = {a.x, a.y, a.z, a.w};
#pragma unroll
                for (u32 i = 0; i < 4; ++i) {
                    const float column[4] = {b[i].x, b[i].y, b[i].z, b[i].w};
#pragma unroll
                    for (u32 j = 0; j < 4; ++j) {
                        float& sum = acc[tile][O == NT ? i : j];
                        sum = fused_multiply_add(k[O == NT ? j : i], column[j], sum);
                    }
                }
            }
        }
    }
    static DEVICE u32 row(u32 tile, u32) { return tile * 8 + lane_id() % 8; }
    static DEVICE u32 column(u32 i) { return lane_id() / 8 * 4 + i; }
};

template <class E, Orientation O> struct FewRowsProduct {
    using S = FewRows;
    FewRowsSums<E, O> sums;

    // The sums over k from `begin` to `end`.
    DEVICE void multiply(const GemmProblem& problem, const GemmTerm& term, u32 begin, u32 end, u8* shared) {
        constexpr u32 PART = FewRowsCopy<E, O>::PART;
        const u32 warp = warp_id(), tiles = (problem.m + 7) / 8, parts = (end - begin + PART - 1) / PART;
        u8* const stages = shared + warp * (S::STAGES * S::STAGE_BYTES);
        FewRowsCopy<E, O> copies(problem, term, blockIdx.y * S::COLUMNS, begin, end);
#pragma unroll
        for (u32 i = 0; i < S::TILES * 4; ++i) sums.acc[i / 4][i % 4] = 0.0f;
#pragma unroll
        for (u32 i = 0; i < S::STAGES - 1; ++i) {
            copies.copy(tiles, stages + i * S::STAGE_BYTES);
            cp_async_commit();
        }
        u32 read = 0, write = (S::STAGES - 1) * S::STAGE_BYTES;
        for (u32 part = warp; part < parts; part += S::WARPS) {
            cp_async_wait<S::STAGES - 2>();
            __syncwarp();  // all lanes' copies are there, and all have read the part before
            copies.copy(tiles, stages + write);
            cp_async_commit();
            sums.add(stages + read, tiles);
            read = read == (S::STAGES - 1) * S::STAGE_BYTES ? 0 : read + S::STAGE_BYTES;
            write = write == (S::STAGES - 1) * S::STAGE_BYTES ? 0 : write + S::STAGE_BYTES;
        }
        cp_async_wait<0>();
        __syncthreads();
    }

    // Calls write(m, n, sum) for the results of this thread, the sums of all warps in their order.
    template <class Write> DEVICE void each(u32 rows, u8* shared, Write write) const {
        float* const of_warps = reinterpret_cast<float*>(shared);  // [warps, rows, columns]
#pragma unroll
        for (u32 tile = 0; tile < S::TILES; ++tile)
#pragma unroll
            for (u32 i = 0; i < 4; ++i)
                of_warps[(warp_id() * S::ROWS + sums.row(tile, i)) * S::COLUMNS + sums.column(i)] = sums.acc[tile][i];
        __syncthreads();
        for (u32 i = threadIdx.x; i < rows * S::COLUMNS; i += S::WARPS * 32) {
            float sum = 0.0f;
#pragma unroll
            for (u32 w = 0; w < S::WARPS; ++w) sum += of_warps[w * (S::ROWS * S::COLUMNS) + i];
            write(i / S::COLUMNS, blockIdx.y * S::COLUMNS + i % S::COLUMNS, sum);
        }
    }
};

template <class E, Orientation O> DEVICE void few_rows_gemm(const GemmParams& p) {
    SHARED(u8, shared);
    for (u32 z = blockIdx.z; z < p.count * p.splits; z += gridDim.z) {
        const GemmPiece<E> piece(p, z);
        const GemmProblem& problem = piece.problem;
        if (blockIdx.y * FewRows::COLUMNS >= problem.n) continue;  // the other problem is larger
        FewRowsProduct<E, O> product;
        const GemmTerm term = piece.term(0);
        product.multiply(problem, term, piece.template begin<PIECE_DEPTH>(term), piece.template end<PIECE_DEPTH>(term), shared);
        const Rows c = piece.result();
        const float alpha = float(piece.alpha());
        product.each(problem.m, shared, [&](u32 m, u32 n, float sum) {
            if (n >= problem.n) return;
            void* const to = const_cast<void*>(c.data);
            const u64 at = m * c.outer_stride + n;
            const float result = fused_multiply_add(alpha, sum, piece.bias(n));
            if (piece.wide()) {
                store_or_add<f32>(to, at, result, piece.accumulates());
            } else {
                store_or_add<E>(to, at, result, piece.accumulates());
            }
        });
        __syncthreads();  // the next product's copies come where sums stand
    }
}
