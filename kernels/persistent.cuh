// persistent.cuh - what the persistent kernels share: a matrix that stays on the chip, and the exchange of a vector between steps.
//
// A group of blocks works through all steps of one direction for `tiles` tiles of 8 sequences. Every block owns UNITS units of
// the layer. A step multiplies the block's slice of a matrix, which stays in registers (and, where they do not suffice, in
// shared memory) for the whole launch, with a vector for each sequence that all blocks of the group need:
//
//   forward    R h:          ROWS = gates of a unit, the vector is h            (K = H)
//   backward   R^T dgates:   ROWS = 1,               the vector is the dgates   (K = G*H, element unit * G + gate)
//
// Product  `MmaProduct` (bf16, f16, tf32 on tensor cores) and `ExactProduct` (f32, fused multiply-adds) hold the slice and leave
//          partial sums in shared memory; `PartialSums` adds them in a fixed order. A thread then has all rows of its own
//          (unit, sequence) pairs, which are spread over all threads of the block whatever the product's layout is.
// Exchange `LocalExchange` (one block), `ClusterExchange` (distributed shared memory), `GridExchange` (L2): who gets a published
//          vector to whom. Everything else is the same text for the three.
//
// Vectors are numbered by n; vector n of a tile is published by all blocks, then waited for by all blocks, before n + 1 is. In
// shared and in global memory a vector is 8 rows (sequences) of K elements, row-major, a row padded to whole chunks of 64 bytes.
// A lane reads it in pieces of 16 bytes.
//
// Fragments (mma.sync m16n8k16, for tf32 m16n8k8; g = lane / 4, t = lane % 4). Rows of the matrix are ordered so that a lane's
// accumulators hold every row of a unit for sequences 2t and 2t + 1: tiles of 16 rows, (upper 8 | lower 8), are
//   4 rows a unit, 8 units a group:    (i | f) (g | o)
//   3 rows a unit, 16 units a group:   (r, units 0-7 | z, 0-7) (r, 8-15 | z, 8-15) (n, 0-7 | n, 8-15)
//   1 row a unit, 16 units a group:    (units 0-7 | units 8-15)
// and k is ordered within a chunk of 64 bytes so that a lane's 16 bytes of the vector (at 16 t in row g) are its B fragments of two
// mma, and 16 bytes of a row of the matrix its A fragments: no ldmatrix and no repacking.
#pragma once
#include "cells/gru.cuh"
#include "cells/lstm.cuh"
#include "cells/rnn.cuh"
#include "sequence.cuh"

constexpr int TILE = 8;     // sequences of a tile
constexpr int CHUNK = 64;   // bytes of k that a warp takes at a time
constexpr int PIECE = 16;   // bytes that a lane takes at a time
constexpr u32 TIMED_OUT = 1;

// How a block divides its work. UNITS of the layer; capacity K of the hidden size; WARPS; K_SPLIT: parts of k that different
// warps (mma) add up; SHARED_BLOCKS: blocks of fragments a warp that are in shared memory.
template <int UNITS_, int CAPACITY_, int WARPS_, int K_SPLIT_, int SHARED_BLOCKS_> struct Shape {
    static constexpr int UNITS = UNITS_, CAPACITY = CAPACITY_, WARPS = WARPS_, K_SPLIT = K_SPLIT_;
    static constexpr int SHARED_BLOCKS = SHARED_BLOCKS_, THREADS = WARPS * 32;
    static constexpr int CELLS = (TILE * UNITS + THREADS - 1) / THREADS;  // (unit, sequence) pairs of a thread
    static_assert(THREADS % UNITS == 0, "a thread has one unit, so that it loads its biases once");
    static_assert(CELLS == 1 || CELLS * THREADS == TILE * UNITS, "all pairs of a full tile exist");

    // The unit, in the block, and the sequence, in the tile, of pair e of this thread.
    static DEVICE u32 unit() { return threadIdx.x % UNITS; }
    static DEVICE u32 row(int e) { return threadIdx.x / UNITS + e * ROW_STEP; }
    static constexpr u32 ROW_STEP = THREADS / UNITS;

    // Calls f(e) for this thread's pairs of the tile's first `sequences` rows. A full tile goes without branches between the
    // pairs, so that the latencies of one hide behind another.
    template <class F> static DEVICE void each_pair(u32 sequences, F f) {
        if (CELLS > 1 && sequences == TILE) {
#pragma unroll
            for (int e = 0; e < CELLS; ++e) f(e);
        } else {
#pragma unroll
            for (int e = 0; e < CELLS; ++e)
                if (row(e) < sequences) f(e);
        }
    }
};

// What multiplies.
template <class E_> struct MmaMath {  // mma.sync with elements of 16 bits
    using E = E_;
    static constexpr bool EXACT = false;
};
struct Tf32Math {
    using E = f32;
    static constexpr bool EXACT = false;
};
struct ExactMath {  // fused multiply-adds in float
    using E = f32;
    static constexpr bool EXACT = true;
};

// ---- functions of a cell with the usual activations ----------------------------------------------------------------------

// Sigmoid gates, tanh or (RNN) relu states, no clip: `GeneralFunctions` for the cells that nearly everybody uses. FAST computes
// from ex2 and rcp, with errors of about 2^-22 of 1 (and, for a small tanh, of itself): far below an ulp of a 16-bit type.
template <bool FAST> struct StandardFunctions {
    bool relu;

    DEVICE float gate(float a) const {
        if constexpr (FAST) return rcp_approx(1.0f + ex2_approx(-1.4426950408889634f * a));
        return sigmoid(a);
    }
    DEVICE float state(float a) const { return relu ? (a <= 0.0f ? 0.0f : a) : output(a); }
    DEVICE float output(float c) const {
        if constexpr (FAST) {
            const float t = 1.0f - 2.0f * rcp_approx(1.0f + ex2_approx(2.8853900817779268f * c)), s = c * c;
            // 1 - (nearly 1) loses digits; there the series takes over.
            const float series = c + c * s * (-0.33333333f + s * 0.13333333f);
            return s < 0.01f ? series : t;
        }
        return tanh_accurate(c);
    }
    DEVICE float clip_cell(float s) const { return s; }
    DEVICE static constexpr bool coupled() { return false; }

    // Of gates that were saved activated.
    DEVICE void saved_gate(float saved, float& value, float& slope) const {
        value = saved;
        slope = saved * (1.0f - saved);
    }
    DEVICE void saved_state(float saved, float& value, float& slope) const {
        value = saved;
        slope = relu ? (saved > 0.0f ? 1.0f : 0.0f) : 1.0f - saved * saved;
    }
    DEVICE float output_slope(float, float value) const { return 1.0f - value * value; }
    DEVICE float clip_cell_slope(float) const { return 1.0f; }
};

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
template <int ROWS, int UNITS, int PARTS> struct PartialSums {
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
    // Independent chains of sums, so that an mma need not wait for the one before.
    static constexpr int CHAINS = GROUPS * TILES >= 4 ? 1 : GROUPS * TILES >= 2 ? 2 : 4;
    static_assert(ROWS == 1 || ROWS == 3 || ROWS == 4, "rows of a unit");
    static_assert(GROUPS * 8 * LANE_UNITS * (S::WARPS / S::K_SPLIT) == S::UNITS, "units do not divide");
    static_assert(CHUNKS * S::K_SPLIT * CHUNK == K * int(sizeof(E)), "k does not divide");
    static_assert(IN_REGISTERS > 0, "registers first");

    u32 a[IN_REGISTERS][TILES][2][4];

    static DEVICE u32 k_part() { return warp_id() % S::K_SPLIT; }
    // Unit, in the block, of a lane's unit j of a group.
    static DEVICE u32 unit_of(int group, int j) {
        return ((warp_id() / S::K_SPLIT) * GROUPS + group) * 8 * LANE_UNITS + j * 8 + lane_id() / 4;
    }

    template <class Matrix> DEVICE void load(const Matrix& matrix, u32 first_unit, uint4* shared) {
        if (matrix.aligned()) load_all<true>(matrix, first_unit, shared);
        else load_all<false>(matrix, first_unit, shared);
    }

    // Partial sums of this block's rows with the vector of a tile. `row_bytes` of a row of the vector, whole chunks.
    template <class Vector, class Sums>
    DEVICE void multiply(const Vector& vector, u32 row_bytes, u32, const uint4* shared, const Sums& sums, u32 units) {
        constexpr int FETCH = CHUNKS < Vector::TOGETHER ? CHUNKS : Vector::TOGETHER;
        if (unit_of(0, 0) - lane_id() / 4 >= units) return;  // a warp with padding only; nobody reads its sums
        const u32 lane = lane_id(), part = k_part(), all = row_bytes / CHUNK;
        const u32 used = all > part ? (all - part + S::K_SPLIT - 1) / S::K_SPLIT : 0;  // chunks of this warp
        float acc[CHAINS][GROUPS][TILES][4];
#pragma unroll
        for (int i = 0; i < CHAINS * GROUPS * TILES * 4; ++i)
            acc[i / (GROUPS * TILES * 4)][i / (TILES * 4) % GROUPS][i / 4 % TILES][i % 4] = 0.0f;
#pragma unroll
        for (int first = 0; first < CHUNKS; first += FETCH) {
            uint4 b[FETCH];
            vector.template fetch<FETCH>(b, lane / 4, ((first * S::K_SPLIT) + part) * CHUNK + lane % 4 * PIECE,
                                         S::K_SPLIT * CHUNK, used - min(used, u32(first)));
#pragma unroll
            for (int i = 0; i < FETCH; ++i) {
                const int c = first + i;
                if (c >= CHUNKS) continue;
                if (u32(c) >= used) continue;
                const uint4 v = to_operand(Math{}, b[i]);
#pragma unroll
                for (int group = 0; group < GROUPS; ++group) {
                    const int block = c * GROUPS + group;
#pragma unroll
                    for (int step = 0; step < 2; ++step)
#pragma unroll
                        for (int tile = 0; tile < TILES; ++tile) {
                            float(&d)[4] = acc[(c * 2 + step) % CHAINS][group][tile];
                            const u32 b0 = step ? v.z : v.x, b1 = step ? v.w : v.y;
                            if (block < IN_REGISTERS) {
                                mma_chunk_step(Math{}, d, a[block < IN_REGISTERS ? block : 0][tile][step], b0, b1);
                            } else {
                                const uint4 s = shared[place(block - IN_REGISTERS, tile, step)];
                                const u32 fragment[4] = {s.x, s.y, s.z, s.w};
                                mma_chunk_step(Math{}, d, fragment, b0, b1);
                            }
                        }
                }
            }
        }
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
                        v[row] = acc[0][group][tile][half * 2 + s];
#pragma unroll
                        for (int chain = 1; chain < CHAINS; ++chain) v[row] += acc[chain][group][tile][half * 2 + s];
                    }
                    sums.put(part, 2 * (lane % 4) + s, unit_of(group, j), v);
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
    static constexpr int FETCH = PIECES < 4 ? PIECES : 4;
    static constexpr int CHAINS = ROWS == 1 ? 4 : 1;
    static constexpr int PARTS = SPLIT / LANES;
    static constexpr int SHARED_BYTES = 0;
    static constexpr int REGISTER_BYTES = S::THREADS * ROWS * PIECES * 16;
    static_assert(PIECES * SPLIT * 4 == K && SPLIT % LANES == 0, "k does not divide");
    static_assert(S::SHARED_BLOCKS == 0 && S::K_SPLIT == SPLIT, "the threads of a unit share k");

    float w[ROWS][PIECES][4];

    template <class Matrix> DEVICE void load(const Matrix& matrix, u32 first_unit, uint4*) {
        if (matrix.aligned()) load_all<true>(matrix, first_unit);
        else load_all<false>(matrix, first_unit);
    }

    template <class Vector, class Sums>
    DEVICE void multiply(const Vector& vector, u32 row_bytes, u32 sequences, const uint4*, const Sums& sums, u32) {
        const u32 part = threadIdx.x / S::UNITS;
        const u32 used = (row_bytes / PIECE + SPLIT - 1) / SPLIT;
#pragma unroll 1
        for (u32 sequence = 0; sequence < sequences; ++sequence) {
            float acc[ROWS][CHAINS];
#pragma unroll
            for (int i = 0; i < ROWS * CHAINS; ++i) acc[i / CHAINS][i % CHAINS] = 0.0f;
#pragma unroll
            for (int first = 0; first < PIECES; first += FETCH) {
                if (u32(first) >= used) continue;
                uint4 b[FETCH];
                vector.template fetch<FETCH>(b, sequence, (first * SPLIT + part) * PIECE, SPLIT * PIECE, PIECES - first);
#pragma unroll
                for (int i = 0; i < FETCH; ++i) {
                    if (first + i >= PIECES) continue;
                    const float v[4] = {__uint_as_float(b[i].x), __uint_as_float(b[i].y), __uint_as_float(b[i].z),
                                        __uint_as_float(b[i].w)};
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

// ---- waiting -------------------------------------------------------------------------------------------------------------

// How long a wait lasts, and who hears of one that gave up: the host through *status, this block through *failed, which stands in
// its shared memory, so that it costs no register in the loop.
struct Patience {
    u32* status;
    u32 polls;
    volatile u32* failed;

    template <class Condition> DEVICE void until(Condition condition) const {
        Spin spin(status, polls);
        if (!spin.until(condition, TIMED_OUT)) *failed = 1;
    }
};

// ---- vectors -------------------------------------------------------------------------------------------------------------

// Bytes from one row to the next of a vector in shared memory: the half line more lets 8 lanes read two rows without conflict.
DEVICE constexpr int vector_pitch(int row_bytes) { return (row_bytes + 127) / 128 * 128 + 64; }

// A vector in shared memory.
template <int PITCH> struct SharedVector {
    static constexpr int TOGETHER = 4;  // pieces that a lane should have on their way together
    const u8* rows;
    // out[i]: the piece at first + i * step of a row, for i < count; the others are not used.
    template <int N> DEVICE void fetch(uint4 (&out)[N], u32 row, u32 first, u32 step, u32 count) const {
        const u8* const from = rows + row * PITCH + first;
#pragma unroll
        for (int i = 0; i < N; ++i)
            out[i] = u32(i) < count ? *reinterpret_cast<const uint4*>(from + i * step) : make_uint4(0, 0, 0, 0);
    }
};

// A vector in global memory that other blocks write meanwhile: polled until no word of it is the sentinel.
struct PolledVector {
    static constexpr int TOGETHER = 8;
    const u8* data;
    u32 row_bytes;
    u32 rows;     // sequences of the tile; the other rows are zero
    bool polled;  // false: it was complete before the launch
    Patience patience;

    template <int N> DEVICE void fetch(uint4 (&out)[N], u32 row, u32 first, u32 step, u32 count) const {
        const u8* const from = data + row * row_bytes + first;
        if (row >= rows) count = 0;
#pragma unroll
        for (int i = 0; i < N; ++i)
            out[i] = u32(i) < count ? ld_relaxed16(from + i * step) : make_uint4(0, 0, 0, 0);
        if (!polled) return;
        patience.until([&] {
            bool complete = true;
#pragma unroll
            for (int i = 0; i < N; ++i)
                if (has_sentinel(out[i])) {
                    out[i] = ld_relaxed16(from + i * step);
                    complete = false;
                }
            return complete;
        });
    }
};

// ---- exchanges -----------------------------------------------------------------------------------------------------------

// Where a direction's vectors stand in global memory: vector n in slot n, or T-1-n in a reverse direction.
struct GlobalVectors {
    u8* data;
    u32 slot_bytes, row_bytes;
    u32 reverse, seq_len;
    DEVICE u8* row(u32 n, u32 sequence) const {
        return data + u64(time_of(reverse, seq_len, n)) * slot_bytes + sequence * row_bytes;
    }
};

// What an exchange must know of the group's work.
struct Group {
    GlobalVectors global;
    u32 first_sequence, batch, hidden_size;
    u32 row_bytes;  // of a vector, whole chunks
    u32 tiles;
    DEVICE u32 sequences(u32 tile) const { return min(u32(TILE), batch - first_sequence - tile * TILE); }
};

template <int WORDS> DEVICE void copy_words(u8* to, const u32 (&w)[WORDS]) {
    if constexpr (WORDS == 1) *reinterpret_cast<u32*>(to) = w[0];
    else if constexpr (WORDS == 2) *reinterpret_cast<uint2*>(to) = make_uint2(w[0], w[1]);
    else *reinterpret_cast<uint4*>(to) = make_uint4(w[0], w[1], w[2], w[3]);
}

// One block: vectors stand in shared memory, two a tile in turn, between barriers of the block.
// FIRST: the first vector that is published (1 where vector 0 comes from global memory). ROW: bytes of a row at capacity.
template <int FIRST, int ROW, class S> struct LocalExchange {
    static constexpr bool IN_SHARED = true, THROUGH_GLOBAL = false, CAN_FAIL = false;
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = TILE * PITCH;
    static constexpr int FIXED_BYTES = 0, TILE_BYTES = 2 * VECTOR, SUM_BUFFERS = 1;
    const Group& group;
    u8* memory;
    u32 stride;  // between the memories of tiles

    DEVICE LocalExchange(const Group& group, u8*, u8* per_tile, u32 stride) : group(group), memory(per_tile), stride(stride) {}
    DEVICE u8* buffer(u32 tile, u32 n) const { return memory + tile * stride + ((n - FIRST) & 1) * VECTOR; }
    DEVICE void begin() { fill_shared_vectors(*this); }
    DEVICE SharedVector<PITCH> wait(u32 tile, u32 n, const Patience&) { return {buffer(tile, n)}; }
    template <int WORDS> DEVICE void put(u32 tile, u32 n, u32 row, u32 byte, const u32 (&w)[WORDS]) {
        copy_words(buffer(tile, n) + row * PITCH + byte, w);
    }
    DEVICE void published(u32, u32) { __syncthreads(); }
    DEVICE void end() {}
};

// A cluster: a block stores what it publishes into every block's shared memory; the bytes are counted by a barrier there.
template <int FIRST, int ROW, class S> struct ClusterExchange {
    static constexpr bool IN_SHARED = true, THROUGH_GLOBAL = false, CAN_FAIL = true;
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = TILE * PITCH;
    static constexpr int FIXED_BYTES = 0, TILE_BYTES = 2 * VECTOR + 128, SUM_BUFFERS = 2;
    const Group& group;
    u8* memory;
    u32 stride;
    u32 blocks;

    DEVICE ClusterExchange(const Group& group, u8*, u8* per_tile, u32 stride)
        : group(group), memory(per_tile), stride(stride), blocks(cluster_size()) {}
    DEVICE u8* buffer(u32 tile, u32 n) const { return memory + tile * stride + ((n - FIRST) & 1) * VECTOR; }
    DEVICE u64* barrier(u32 tile, u32 n) const {
        return reinterpret_cast<u64*>(memory + tile * stride + 2 * VECTOR) + ((n - FIRST) & 1);
    }
    DEVICE void begin() {
        fill_shared_vectors(*this);
        if (threadIdx.x == 0) {
            for (u32 tile = 0; tile < group.tiles; ++tile) {
                mbarrier_init(barrier(tile, 0), 1);
                mbarrier_init(barrier(tile, 1), 1);
            }
            mbarrier_init_fence();
        }
        __syncthreads();
        cluster_arrive();
        cluster_wait();
    }
    DEVICE SharedVector<PITCH> wait(u32 tile, u32 n, const Patience& patience) {
        if (int(n) >= FIRST)
            patience.until([&] { return mbarrier_test(barrier(tile, n), ((n - FIRST) >> 1) & 1); });
        return {buffer(tile, n)};
    }
    template <int WORDS> DEVICE void put(u32 tile, u32 n, u32 row, u32 byte, const u32 (&w)[WORDS]) {
        const u8* const to = buffer(tile, n) + row * PITCH + byte;
        const u64* const counter = barrier(tile, n);
#pragma unroll 4
        for (u32 rank = 0; rank < blocks; ++rank) {
            const ClusterAddress at = map_cluster(to, rank), bar = map_cluster(counter, rank);
            if constexpr (WORDS == 1) st_async4(at, w[0], bar);
            else if constexpr (WORDS == 2) st_async8(at, make_uint2(w[0], w[1]), bar);
            else st_async16(at, make_uint4(w[0], w[1], w[2], w[3]), bar);
        }
    }
    // The bytes that every block of the cluster puts here for this vector.
    DEVICE void published(u32 tile, u32 n) {
        if (threadIdx.x == 0) mbarrier_arrive_expect(barrier(tile, n), group.sequences(tile) * group.row_bytes);
    }
    // No block leaves while others may still store into its shared memory.
    DEVICE void end() {
        cluster_arrive();
        cluster_wait();
    }
};

// Blocks all over the GPU: vectors go through L2, a slot for each, polled by every warp for what it needs itself.
template <int FIRST, int ROW, class S> struct GridExchange {
    static constexpr bool IN_SHARED = false, THROUGH_GLOBAL = true, CAN_FAIL = true;
    static constexpr int FIXED_BYTES = 0, TILE_BYTES = 0, SUM_BUFFERS = 2;
    const Group& group;

    DEVICE GridExchange(const Group& group, u8*, u8*, u32) : group(group) {}
    DEVICE void begin() {}
    DEVICE PolledVector wait(u32 tile, u32 n, const Patience& patience) {
        return {group.global.row(n, group.first_sequence + tile * TILE), group.global.row_bytes, group.sequences(tile),
                int(n) >= FIRST, patience};
    }
    template <int WORDS> DEVICE void put(u32 tile, u32 n, u32 row, u32 byte, const u32 (&w)[WORDS]) {
        u8* const to = group.global.row(n, group.first_sequence + tile * TILE + row) + byte;
        if constexpr (WORDS == 1) st_relaxed(reinterpret_cast<u32*>(to), w[0]);
        else if constexpr (WORDS == 2) st_relaxed8(to, make_uint2(w[0], w[1]));
        else st_relaxed16(to, make_uint4(w[0], w[1], w[2], w[3]));
    }
    DEVICE void published(u32, u32) {}
    DEVICE void end() {}
};

// The same, but the block gathers a vector in its shared memory first: for exact products, whose threads need all of it.
template <int FIRST, int ROW, class S> struct StagedGridExchange : GridExchange<FIRST, ROW, S> {
    using Base = GridExchange<FIRST, ROW, S>;
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = TILE * PITCH;
    static constexpr int FIXED_BYTES = VECTOR, TILE_BYTES = 0, SUM_BUFFERS = 1;
    u8* stage;

    DEVICE StagedGridExchange(const Group& group, u8* fixed, u8* per_tile, u32 stride)
        : Base(group, fixed, per_tile, stride), stage(fixed) {}
    DEVICE void begin() {
        for (u32 i = threadIdx.x; i < VECTOR / PIECE; i += S::THREADS)
            reinterpret_cast<uint4*>(stage)[i] = make_uint4(0, 0, 0, 0);
        __syncthreads();
    }
    DEVICE SharedVector<PITCH> wait(u32 tile, u32 n, const Patience& patience) {
        const PolledVector from = Base::wait(tile, n, patience);
        const u32 pieces = this->group.row_bytes / PIECE, all = pieces * from.rows;
        constexpr u32 TOGETHER = 4;  // pieces of a thread that are on their way together
        for (u32 i = threadIdx.x; i < all; i += S::THREADS * TOGETHER) {
            uint4 v[TOGETHER];
            const auto place = [&](u32 at) { return from.data + at / pieces * from.row_bytes + at % pieces * PIECE; };
#pragma unroll
            for (u32 j = 0; j < TOGETHER; ++j)
                if (i + j * S::THREADS < all) v[j] = ld_relaxed16(place(i + j * S::THREADS));
                else v[j] = make_uint4(0, 0, 0, 0);
            if (from.polled)
                from.patience.until([&] {
                    bool complete = true;
#pragma unroll
                    for (u32 j = 0; j < TOGETHER; ++j)
                        if (has_sentinel(v[j])) {
                            v[j] = ld_relaxed16(place(i + j * S::THREADS));
                            complete = false;
                        }
                    return complete;
                });
#pragma unroll
            for (u32 j = 0; j < TOGETHER; ++j) {
                const u32 at = i + j * S::THREADS;
                if (at < all) *reinterpret_cast<uint4*>(stage + at / pieces * PITCH + at % pieces * PIECE) = v[j];
            }
        }
        __syncthreads();
        return {stage};
    }
};

// Zeroes an exchange's vectors in shared memory, so that padding is zero for good, and gets vector 0 if it is not published.
template <template <int, int, class> class X, int FIRST, int ROW, class S>
DEVICE void fill_shared_vectors(X<FIRST, ROW, S>& exchange) {
    using Exchange = X<FIRST, ROW, S>;
    const Group& group = exchange.group;
    for (u32 tile = 0; tile < group.tiles; ++tile) {
        const u32 pieces = group.row_bytes / PIECE, rows = group.sequences(tile);
        for (u32 i = threadIdx.x; i < 2 * Exchange::VECTOR / PIECE; i += S::THREADS) {
            const u32 buffer = i / (Exchange::VECTOR / PIECE), at = i % (Exchange::VECTOR / PIECE);
            const u32 row = at / (Exchange::PITCH / PIECE), piece = at % (Exchange::PITCH / PIECE);
            u8* const base = exchange.buffer(tile, buffer);
            uint4 v = make_uint4(0, 0, 0, 0);
            if (FIRST == 1 && buffer == 0 && row < rows && piece < pieces)
                v = *reinterpret_cast<const uint4*>(group.global.row(0, group.first_sequence + tile * TILE + row) +
                                                    piece * PIECE);
            reinterpret_cast<uint4*>(base)[at] = v;
        }
    }
    __syncthreads();
}

// Publishes X values of (unit, row), which stand at element unit * X of the row. All lanes of a warp take part; `on` lanes have
// something to say. 16-bit elements go out in whole words, which neighbouring units share where X is odd.
template <class E, int X, class Exchange>
DEVICE void publish(Exchange& exchange, u32 tile, u32 n, u32 row, u32 unit, bool on, const float (&v)[X]) {
    if constexpr (sizeof(E) == 4) {
        u32 w[X];
#pragma unroll
        for (int i = 0; i < X; ++i) w[i] = __float_as_uint(canonical_nan(v[i]));
        if (!on) return;
        if constexpr (X == 3) {
            const u32 single[3][1] = {{w[0]}, {w[1]}, {w[2]}};
#pragma unroll
            for (int i = 0; i < 3; ++i) exchange.put(tile, n, row, (unit * X + i) * 4, single[i]);
        } else {
            exchange.put(tile, n, row, unit * X * 4, w);
        }
    } else if constexpr (X == 4) {
        const u32 w[2] = {pack<E>(v[0], v[1]), pack<E>(v[2], v[X - 1])};
        if (on) exchange.put(tile, n, row, unit * X * 2, w);
    } else {
        const float next = __shfl_xor_sync(FULL_WARP, v[0], 1);
        if (!on) return;
        const bool odd = unit & 1;
        const u32 base = unit * X * 2;
        if constexpr (X == 1) {
            const u32 w[1] = {pack<E>(v[0], next)};
            if (!odd) exchange.put(tile, n, row, base, w);
        } else {
            if (odd) {
                const u32 w[1] = {pack<E>(v[1], v[X - 1])};
                exchange.put(tile, n, row, base + 2, w);
            } else {
                const u32 w0[1] = {pack<E>(v[0], v[1])}, w1[1] = {pack<E>(v[X - 1], next)};
                exchange.put(tile, n, row, base, w0);
                exchange.put(tile, n, row, base + 4, w1);
            }
        }
    }
}

// ---- the block's shared memory -------------------------------------------------------------------------------------------

// flags | partial sums | fragments | the exchange's own | for each tile: the exchange's vectors, STATES floats for each pair.
template <class Product, class Exchange, int ROWS, int STATES, class S> struct Memory {
    using Sums = PartialSums<ROWS, S::UNITS, Product::PARTS>;
    static constexpr int SUMS = 128, FRAGMENTS = SUMS + Exchange::SUM_BUFFERS * Sums::BYTES;
    static constexpr int FIXED = FRAGMENTS + Product::SHARED_BYTES, TILES = FIXED + Exchange::FIXED_BYTES;
    static constexpr int STATE = S::CELLS * S::THREADS * 4;  // bytes of one state of a tile
    static constexpr int TILE_BYTES = Exchange::TILE_BYTES + STATES * STATE;
    u8* memory;

    DEVICE volatile u32* flags() const { return reinterpret_cast<volatile u32*>(memory); }
    DEVICE Sums sums(u32 item) const {
        return {reinterpret_cast<float*>(memory + SUMS + item % Exchange::SUM_BUFFERS * Sums::BYTES)};
    }
    DEVICE uint4* fragments() const { return reinterpret_cast<uint4*>(memory + FRAGMENTS); }
    DEVICE u8* fixed() const { return memory + FIXED; }
    DEVICE u8* tiles() const { return memory + TILES; }
    // State i of pair e of this thread.
    DEVICE float& state(u32 tile, int i, int e) const {
        u8* const base = tiles() + tile * TILE_BYTES + Exchange::TILE_BYTES + i * STATE;
        return reinterpret_cast<float*>(base)[e * S::THREADS + threadIdx.x];
    }
};

// What the catalog says of a kernel's shared memory, checked where the kernel is compiled.
template <class M, int FIXED_BYTES, int TILE_BYTES> DEVICE constexpr bool has_shared_bytes() {
    static_assert(M::TILES == FIXED_BYTES, "fixed shared bytes differ from the catalog");
    static_assert(M::TILE_BYTES == TILE_BYTES, "shared bytes of a tile differ from the catalog");
    return true;
}
