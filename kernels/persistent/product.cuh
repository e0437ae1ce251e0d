// persistent/product.cuh - a block's slice of a matrix, which stays on the chip, times a vector for each sequence of a tile.
//
// `ForwardMatrix` and `BackwardMatrix` read the slice once. `MmaProduct` (bf16, f16, tf32 on tensor cores) and `ExactProduct` (f32,
// fused multiply-adds) hold it in registers (and, where they do not suffice, in shared memory) and leave partial sums in shared memory;
// `PartialSums` adds them in a fixed order.
//
// Fragments (mma.sync m16n8k16, for tf32 m16n8k8; g = lane / 4, t = lane % 4). Rows of the matrix are ordered so that a lane's
// accumulators hold every row of a unit for sequences 2t and 2t + 1: tiles of 16 rows, (upper 8 | lower 8), are
//   4 rows a unit, 8 units a group:    (i | f) (g | o)
//   3 rows a unit, 16 units a group:   (r, units 0-7 | z, 0-7) (r, 8-15 | z, 8-15) (n, 0-7 | n, 8-15)
//   1 row a unit, 16 units a group:    (units 0-7 | units 8-15)
// and k is ordered within a chunk of 64 bytes so that a lane's 16 bytes of the vector (at 16 t in row g) are its B fragments of two
// mma, and 16 bytes of a row of the matrix its A fragments: no ldmatrix and no repacking.
#pragma once
#include "persistent/shape.cuh"

// ---- the matrix's elements ---------------------------------------------------------------------------------------------

// The bits of an element, or zero.
template <class E> DEVICE u32 load_bits(const E* p, bool inside) {
    if constexpr (sizeof(E) == 2) return ldg_once2_if(p, inside);
    else return ldg_once4_if(p, inside);
}

// Packs element(i), i = 0 .., into 16 bytes; element gives bits.
template <class E, class F> DEVICE uint4 pack_piece(F element) {
    if constexpr (sizeof(E) == 2)
        return make_uint4(element(0) | element(1) << 16, element(2) | element(3) << 16, element(4) | element(5) << 16,
                          element(6) | element(7) << 16);
    else
        return make_uint4(element(0), element(1), element(2), element(3));
}

// R as it stands, [G*H, H]: row `row` of a unit is its gate, k runs over h. What lies outside is zero. Loads are volatile, so that
// the compiler does not repeat them in the loop.
template <class E> struct ForwardMatrix {
    const E* weight;
    u32 hidden_size;
    DEVICE u32 row_bytes() const { return hidden_size * u32(sizeof(E)); }
    DEVICE bool aligned() const {
        return reinterpret_cast<u64>(weight) % PIECE == 0 && hidden_size * sizeof(E) % PIECE == 0;
    }
    template <bool ALIGNED> DEVICE uint4 piece(u32 row, u32 unit, u32 k) const {
        const u32 H = hidden_size;
        const E* const from = weight + (u64(row) * H + unit) * H + k;
        if constexpr (ALIGNED) return unit < H && k < H ? ldg_once16(from) : make_uint4(0, 0, 0, 0);
        else return pack_piece<E>([&](u32 i) { return load_bits(from + i, unit < H && k + i < H); });
    }
};

// R^T: one row a unit; k runs over unit * G + gate.
template <class E, int G> struct BackwardMatrix {
    const E* weight;
    u32 hidden_size;
    DEVICE u32 row_bytes() const { return hidden_size * G * u32(sizeof(E)); }
    DEVICE bool aligned() const { return false; }
    template <bool ALIGNED> DEVICE uint4 piece(u32, u32 unit, u32 k) const {
        const u32 H = hidden_size;
        return pack_piece<E>([&](u32 i) {
            const u32 from = (k + i) / G, gate = (k + i) % G;
            return load_bits(weight + ((gate * H + from) * H + unit), unit < H && from < H);  // 32-bit: G*H*H is far below 2^32
        });
    }
};

// ---- partial sums --------------------------------------------------------------------------------------------------------

// Products of a tile in shared memory, in PARTS parts of k. Three rows take the place of four, so that a part of a unit is one
// access; the padding spreads a warp's stores over the banks.
template <int ROWS, int UNITS, int PARTS, int TILE> struct PartialSums {
    static constexpr int WIDTH = ROWS == 1 ? 1 : 4;
    static constexpr int ROW = (UNITS + (ROWS == 1 ? 4 : 1)) * WIDTH;  // floats of a sequence
    static constexpr int BYTES = (PARTS * TILE * ROW * 4 + 127) / 128 * 128;
    float* data;

    DEVICE void put(u32 part, u32 sequence, u32 unit, const float (&v)[ROWS]) const {
        float* const to = data + (part * TILE + sequence) * ROW + unit * WIDTH;
        if constexpr (ROWS == 1) *to = v[0];
        else *reinterpret_cast<float4*>(to) = make_float4(v[0], v[1], v[2], ROWS == 4 ? v[ROWS - 1] : 0.0f);
    }
    DEVICE void sum(u32 sequence, u32 unit, float (&v)[ROWS]) const {
        const float* const from = data + sequence * ROW + unit * WIDTH;
#pragma unroll 8
        for (int part = 0; part < PARTS; ++part) {
            const float* const at = from + part * TILE * ROW;
            if constexpr (ROWS == 1) {
                v[0] = part == 0 ? *at : v[0] + *at;
            } else {
                const float4 add = *reinterpret_cast<const float4*>(at);
                v[0] = part == 0 ? add.x : v[0] + add.x;
                v[1] = part == 0 ? add.y : v[1] + add.y;
                v[2] = part == 0 ? add.z : v[2] + add.z;
                if constexpr (ROWS == 4) v[ROWS - 1] = part == 0 ? add.w : v[ROWS - 1] + add.w;
            }
        }
    }
};

// ---- products ------------------------------------------------------------------------------------------------------------

template <class E> DEVICE void mma_chunk_step(MmaMath<E>, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    mma_m16n8k16<E>(d, a[0], a[1], a[2], a[3], b0, b1);
}
DEVICE void mma_chunk_step(Tf32Math, float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) { mma_tf32(d, a, b0, b1); }

// A slice of UNITS units, ROWS rows each, of a matrix with K columns, as A fragments. Warps: K_SPLIT parts of k, and for each
// WARPS / K_SPLIT parts of the units. Chunks of k go to the parts in turn, so that a smaller layer keeps all warps busy.
template <class Math, int ROWS, int K, class S> struct MmaProduct {
    using E = typename Math::E;
    static constexpr bool FOUR = ROWS == 4;
    static constexpr int TILES = FOUR ? 2 : ROWS == 3 ? 3 : 1;  // mma tiles of a group
    static constexpr int LANE_UNITS = FOUR ? 1 : 2;             // units of a lane in a group
    static constexpr int GROUPS = S::UNITS / (8 * LANE_UNITS) / (S::WARPS / S::K_SPLIT);
    static constexpr int CHUNKS = K * int(sizeof(E)) / CHUNK / S::K_SPLIT;
    static constexpr int BLOCKS = GROUPS * CHUNKS;  // (group, chunk) of a warp
    static constexpr int IN_REGISTERS = BLOCKS - S::SHARED_BLOCKS;
    static constexpr int FRAGMENTS = TILES * 2;     // of a block; 4 registers each
    static constexpr int SHARED_BYTES = S::WARPS * S::SHARED_BLOCKS * FRAGMENTS * 32 * 16;
    static constexpr int REGISTER_BYTES = S::WARPS * IN_REGISTERS * FRAGMENTS * 32 * 16;
    static constexpr int PARTS = S::K_SPLIT;
    static constexpr int N = S::TILE / COLUMNS;     // mma that share a fragment of the matrix, 8 sequences each
    // Independent chains of sums, so that an mma need not wait for the one before.
    static constexpr int CHAINS = GROUPS * TILES * N >= 4 ? 1 : GROUPS * TILES * N >= 2 ? 2 : 4;
    static_assert(ROWS == 1 || ROWS == 3 || ROWS == 4, "rows of a unit");
    static_assert(GROUPS * 8 * LANE_UNITS * (S::WARPS / S::K_SPLIT) == S::UNITS, "units do not divide");
    static_assert(CHUNKS * S::K_SPLIT * CHUNK == K * int(sizeof(E)), "k does not divide");
    static_assert(IN_REGISTERS > 0, "registers first");
    static_assert(N * COLUMNS == S::TILE, "sequences do not divide");

    static constexpr u32 IDLE = 0xffffffffu;

    u32 a[IN_REGISTERS][TILES][2][4];
    u32 offset;  // of this lane's first piece in a vector
    u32 used;    // chunks of this warp; IDLE where it has padding only, whose sums nobody reads

    static DEVICE u32 k_part() { return warp_id() % S::K_SPLIT; }
    // Unit, in the block, of a lane's unit j of a group.
    static DEVICE u32 unit_of(int group, int j) {
        return ((warp_id() / S::K_SPLIT) * GROUPS + group) * 8 * LANE_UNITS + j * 8 + lane_id() / 4;
    }

    // `row_bytes` of a row of the vectors to come, whole chunks, which stand `pitch` bytes apart.
    template <class Matrix>
    DEVICE void load(const Matrix& matrix, u32 first_unit, u32 row_bytes, u32 pitch, uint4* shared) {
        const u32 part = k_part(), all = row_bytes / CHUNK, units = matrix.hidden_size - min(matrix.hidden_size, first_unit);
        offset = lane_id() / 4 * pitch + part * CHUNK + lane_id() % 4 * PIECE;
        used = all > part ? (all - part + S::K_SPLIT - 1) / S::K_SPLIT : 0;
        if (unit_of(0, 0) - lane_id() / 4 >= units) used = IDLE;
        if (matrix.aligned()) load_all<true>(matrix, first_unit, shared);
        else load_all<false>(matrix, first_unit, shared);
    }

    // Partial sums of this block's rows with the vector of a tile.
    template <class Vector, class Sums> DEVICE void multiply(const Vector& vector, u32, const uint4* shared, const Sums& sums) {
        constexpr int MOST = Vector::TOGETHER / N, FETCH = CHUNKS < MOST ? CHUNKS : MOST;
        if (used == IDLE) return;
        const u32 lane = lane_id(), part = k_part();
        float acc[N][CHAINS][GROUPS][TILES][4];
#pragma unroll
        for (int i = 0; i < N * CHAINS * GROUPS * TILES * 4; ++i)
            acc[i / (CHAINS * GROUPS * TILES * 4)][i / (GROUPS * TILES * 4) % CHAINS][i / (TILES * 4) % GROUPS][i / 4 % TILES][i % 4] = 0.0f;
#pragma unroll
        for (int first = 0; first < CHUNKS; first += FETCH) {
            uint4 b[N][FETCH];
            vector.template fetch<N, FETCH, S::K_SPLIT * CHUNK>(b, lane / 4, offset + first * S::K_SPLIT * CHUNK,
                                                                used - min(used, u32(first)));
#pragma unroll
            for (int i = 0; i < FETCH; ++i) {
                const int c = first + i;
                if (c >= CHUNKS) continue;
                if (u32(c) >= used) continue;
#pragma unroll
                for (int n = 0; n < N; ++n) b[n][i] = to_operand(Math{}, b[n][i]);
#pragma unroll
                for (int group = 0; group < GROUPS; ++group) {
                    const int block = c * GROUPS + group;
#pragma unroll
                    for (int step = 0; step < 2; ++step)
#pragma unroll
                        for (int tile = 0; tile < TILES; ++tile) {
                            const auto multiply_all = [&](const u32(&fragment)[4]) {
#pragma unroll
                                for (int n = 0; n < N; ++n) {
                                    const uint4 v = b[n][i];
                                    const u32 b0 = step ? v.z : v.x, b1 = step ? v.w : v.y;
                                    mma_chunk_step(Math{}, acc[n][(c * 2 + step) % CHAINS][group][tile], fragment, b0, b1);
                                }
                            };
                            if (block < IN_REGISTERS) {
                                multiply_all(a[block < IN_REGISTERS ? block : 0][tile][step]);
                            } else {
                                const uint4 s = shared[place(block - IN_REGISTERS, tile, step)];
                                const u32 fragment[4] = {s.x, s.y, s.z, s.w};
                                multiply_all(fragment);
                            }
                        }
                }
            }
        }
#pragma unroll
        for (int n = 0; n < N; ++n)
#pragma unroll
            for (int group = 0; group < GROUPS; ++group)
#pragma unroll
                for (int j = 0; j < LANE_UNITS; ++j)
#pragma unroll
                    for (int s = 0; s < 2; ++s) {
                        float v[ROWS];
#pragma unroll
                        for (int row = 0; row < ROWS; ++row) {
                            const int tile = FOUR ? row / 2 : row == 2 ? TILES - 1 : ROWS == 3 ? j : 0;
                            const int half = FOUR ? row % 2 : row == 2 ? j : ROWS == 3 ? row : j;
                            v[row] = acc[n][0][group][tile][half * 2 + s];
#pragma unroll
                            for (int chain = 1; chain < CHAINS; ++chain) v[row] += acc[n][chain][group][tile][half * 2 + s];
                        }
                        sums.put(part, n * COLUMNS + 2 * (lane % 4) + s, unit_of(group, j), v);
                    }
    }

  private:
    static DEVICE uint4 to_operand(Tf32Math, uint4 v) {
        return make_uint4(round_tf32(v.x), round_tf32(v.y), round_tf32(v.z), round_tf32(v.w));
    }
    template <class T> static DEVICE uint4 to_operand(MmaMath<T>, uint4 v) { return v; }

    // Where this warp's chunk `c` begins, in bytes of k.
    static DEVICE u32 chunk_of(int c) { return (c * S::K_SPLIT + k_part()) * CHUNK; }

    static DEVICE u32 place(int block, int tile, int step) {
        return ((warp_id() * S::SHARED_BLOCKS + block) * FRAGMENTS + tile * 2 + step) * 32 + lane_id();
    }

    template <bool ALIGNED, class Matrix>
    DEVICE void load_block(u32 (&fragment)[TILES][2][4], const Matrix& matrix, u32 first_unit, int group, int chunk) const {
        const u32 k = (chunk_of(chunk) + lane_id() % 4 * PIECE) / u32(sizeof(E));
#pragma unroll
        for (int tile = 0; tile < TILES; ++tile)
#pragma unroll
            for (int half = 0; half < 2; ++half) {
                const int row = FOUR ? tile * 2 + half : ROWS == 1 ? 0 : tile == 2 ? 2 : half;
                const int j = FOUR ? 0 : ROWS == 1 ? half : tile == 2 ? half : tile;
                const uint4 v = to_operand(Math{}, matrix.template piece<ALIGNED>(row, first_unit + unit_of(group, j), k));
                fragment[tile][0][half] = v.x;
                fragment[tile][0][2 + half] = v.y;
                fragment[tile][1][half] = v.z;
                fragment[tile][1][2 + half] = v.w;
            }
    }

    template <bool ALIGNED, class Matrix> DEVICE void load_all(const Matrix& matrix, u32 first_unit, uint4* shared) {
#pragma unroll
        for (int block = 0; block < IN_REGISTERS; ++block) {
            // The branch also keeps single loads of many blocks from being under way together, for which registers do not suffice.
            if (ALIGNED || chunk_of(block / GROUPS) < matrix.row_bytes()) {
                load_block<ALIGNED>(a[block], matrix, first_unit, block % GROUPS, block / GROUPS);
            } else {
#pragma unroll
                for (int i = 0; i < FRAGMENTS * 4; ++i) a[block][i / 8][i / 4 % 2][i % 4] = 0;
            }
        }
#pragma unroll 1
        for (int block = IN_REGISTERS; block < BLOCKS; ++block) {
            u32 fragment[TILES][2][4];
            load_block<ALIGNED>(fragment, matrix, first_unit, block % GROUPS, block / GROUPS);
#pragma unroll
            for (int i = 0; i < FRAGMENTS; ++i) {
                const u32(&f)[4] = fragment[i / 2][i % 2];
                shared[place(block - IN_REGISTERS, i / 2, i % 2)] = make_uint4(f[0], f[1], f[2], f[3]);
            }
        }
    }
};

// The same with exact products. A thread holds all rows of its unit, for every K_SPLIT-th piece of k, and takes the sequences one
// after another, so that few sequences cost little. Lanes of a warp that share a unit add their parts at once.
template <int ROWS, int K, class S> struct ExactProduct {
    static constexpr int SPLIT = S::THREADS / S::UNITS;
    static constexpr int LANES = S::UNITS < 32 ? 32 / S::UNITS : 1;  // of a warp that share a unit
    static constexpr int PIECES = K / 4 / SPLIT;
    static constexpr int ROUNDS = (PIECES + 3) / 4, FETCH = (PIECES + ROUNDS - 1) / ROUNDS;  // at most 4 pieces at a time
    static constexpr int CHAINS = ROWS == 1 ? 4 : 1;
    static constexpr int PARTS = SPLIT / LANES;
    static constexpr int SHARED_BYTES = 0;
    static constexpr int REGISTER_BYTES = S::THREADS * ROWS * PIECES * 16;
    static_assert(PIECES * SPLIT * 4 == K && SPLIT % LANES == 0, "k does not divide");
    static_assert(S::SHARED_BLOCKS == 0 && S::K_SPLIT == SPLIT, "the threads of a unit share k");

    float w[ROWS][PIECES][4];
    u32 offset;  // of this thread's first piece in a row
    u32 pitch;   // from one row of a vector to the next
    u32 used;    // pieces of this thread

    template <class Matrix> DEVICE void load(const Matrix& matrix, u32 first_unit, u32 row_bytes, u32 pitch_, uint4*) {
        offset = threadIdx.x / S::UNITS * PIECE;
        pitch = pitch_;
        used = (row_bytes / PIECE + SPLIT - 1) / SPLIT;
        if (matrix.aligned()) load_all<true>(matrix, first_unit);
        else load_all<false>(matrix, first_unit);
    }

    template <class Vector, class Sums>
    DEVICE void multiply(const Vector& vector, u32 sequences, const uint4*, const Sums& sums) {
        const u32 part = threadIdx.x / S::UNITS;
#pragma unroll 1
        for (u32 sequence = 0; sequence < sequences; ++sequence) {
            float acc[ROWS][CHAINS];
#pragma unroll
            for (int i = 0; i < ROWS * CHAINS; ++i) acc[i / CHAINS][i % CHAINS] = 0.0f;
#pragma unroll
            for (int first = 0; first < PIECES; first += FETCH) {
                if (u32(first) >= used) continue;
                uint4 b[1][FETCH];
                vector.template fetch<1, FETCH, SPLIT * PIECE>(b, sequence, sequence * pitch + offset + first * SPLIT * PIECE,
                                                               PIECES - first);
#pragma unroll
                for (int i = 0; i < FETCH; ++i) {
                    if (first + i >= PIECES) continue;
                    const float v[4] = {__uint_as_float(b[0][i].x), __uint_as_float(b[0][i].y), __uint_as_float(b[0][i].z),
                                        __uint_as_float(b[0][i].w)};
#pragma unroll
                    for (int j = 0; j < 4; ++j)
#pragma unroll
                        for (int row = 0; row < ROWS; ++row)
                            acc[row][j % CHAINS] = fused_multiply_add(w[row][first + i][j], v[j], acc[row][j % CHAINS]);
                }
            }
            float sum[ROWS];
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                sum[row] = acc[row][0];
#pragma unroll
                for (int chain = 1; chain < CHAINS; ++chain) sum[row] += acc[row][chain];
#pragma unroll
                for (int d = 16; d >= S::UNITS; d /= 2) sum[row] += __shfl_xor_sync(FULL_WARP, sum[row], d);
            }
            if (LANES == 1 || lane_id() < S::UNITS) sums.put(part / LANES, sequence, S::unit(), sum);
        }
    }

  private:
    template <bool ALIGNED, class Matrix> DEVICE void load_all(const Matrix& matrix, u32 first_unit) {
#pragma unroll
        for (int i = 0; i < PIECES; ++i)
#pragma unroll
            for (int row = 0; row < ROWS; ++row) {
                const u32 k = (i * SPLIT + threadIdx.x / S::UNITS) * 4;
                const uint4 v = matrix.template piece<ALIGNED>(row, first_unit + S::unit(), k);
                w[row][i][0] = __uint_as_float(v.x);
                w[row][i][1] = __uint_as_float(v.y);
                w[row][i][2] = __uint_as_float(v.z);
                w[row][i][3] = __uint_as_float(v.w);
            }
    }
};

template <class Math, int ROWS, int K, class S> struct ProductOf {
    using type = MmaProduct<Math, ROWS, K, S>;
};
template <int ROWS, int K, class S> struct ProductOf<ExactMath, ROWS, K, S> {
    using type = ExactProduct<ROWS, K, S>;
};
