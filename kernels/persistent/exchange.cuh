// persistent/exchange.cuh - who gets a published vector to whom, and how long anyone waits for it.
//
// `LocalExchange`       one block: shared memory, between barriers of the block
// `ClusterExchange`     a cluster: st.async into every block's shared memory, counted by an mbarrier there
// `GridExchange`        blocks all over the GPU: L2, polled for words that are not the sentinel
// `StagedGridExchange`  the same, gathered in shared memory first
//
// Vectors are numbered by n; vector n of a tile is published by all blocks, then waited for by all blocks, before n + 1 is. In
// shared and in global memory a vector is TILE rows (sequences) of K elements, row-major, a row padded to whole chunks of 64 bytes.
// A lane reads it in pieces of 16 bytes.
#pragma once
#include "persistent/ahead.cuh"

constexpr u32 TIMED_OUT = 1;

// ---- waiting -------------------------------------------------------------------------------------------------------------

// How long a wait lasts, and who hears of one that gave up: the host through *status, this block through *failed, which stands in
// its shared memory, so that it costs no register in the loop.
struct Patience {
    u32* status;
    u32 patience;

    template <class Condition> DEVICE void until(Condition condition, volatile u32* failed) const {
        Spin spin(status, patience);
        if (!spin.until(condition, TIMED_OUT)) *failed = 1;
    }
};

// ---- vectors -------------------------------------------------------------------------------------------------------------

// Bytes from one row to the next of a vector in shared memory: the half line more lets 8 lanes read two rows without conflict.
DEVICE constexpr int vector_pitch(int row_bytes) { return (row_bytes + 127) / 128 * 128 + 64; }

// A vector in shared memory.
struct SharedVector {
    static constexpr int TOGETHER = 4;  // pieces that a lane should have on their way together
    const u8* data;
    u32 pitch;  // from one row to the next, bytes
    // out[n][i]: the piece at first + i * STEP, which is of this row, but 8 n rows further, for i < count; the others are not used.
    template <int N, int I, int STEP> DEVICE void fetch(uint4 (&out)[N][I], u32, u32 first, u32 count) const {
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const u8* const from = data + first + n * COLUMNS * pitch;
#pragma unroll
            for (int i = 0; i < I; ++i)
                out[n][i] = u32(i) < count ? *reinterpret_cast<const uint4*>(from + i * STEP) : make_uint4(0, 0, 0, 0);
        }
    }
};

// A vector in global memory that other blocks write meanwhile: polled until no word of it is the sentinel.
struct PolledVector {
    static constexpr int TOGETHER = 8;
    const u8* data;
    u32 pitch;    // from one row to the next, bytes
    u32 rows;     // sequences of the tile; the other rows are zero
    bool polled;  // false: it was complete before the launch
    Patience patience;
    volatile u32* failed;

    template <int N, int I, int STEP> DEVICE void fetch(uint4 (&out)[N][I], u32 row, u32 first, u32 count) const {
        const u8* const from = data + first;
        const auto place = [&](int n, int i) { return from + n * COLUMNS * pitch + i * STEP; };
        if (row >= rows) count = 0;  // and the rows further on are beyond, too
#pragma unroll
        for (int n = 0; n < N; ++n) {
            const u32 own = n == 0 || row + n * COLUMNS < rows ? count : 0;
#pragma unroll
            for (int i = 0; i < I; ++i)
                out[n][i] = u32(i) < own ? ld_relaxed16(place(n, i)) : make_uint4(0, 0, 0, 0);
        }
        if (!polled) return;
        patience.until([&] {
            bool complete = true;
#pragma unroll
            for (int n = 0; n < N; ++n)
#pragma unroll
                for (int i = 0; i < I; ++i)
                    if (has_sentinel(out[n][i])) {
                        out[n][i] = ld_relaxed16(place(n, i));
                        complete = false;
                    }
            return complete;
        }, failed);
    }
};

// ---- exchanges -----------------------------------------------------------------------------------------------------------

// Where a direction's vectors stand in global memory: vector n in slot n, or T-1-n in a reverse direction.
struct GlobalVectors {
    u8* data;
    u32 slot_bytes;
    u32 reverse, seq_len;
};

// What an exchange must know of the group's work.
template <class S> struct Group {
    GlobalVectors global;
    u32 first_sequence, batch, hidden_size;
    u32 row_bytes;  // of a vector, whole chunks
    u32 tiles;
    DEVICE u32 sequences(u32 tile) const { return min(u32(S::TILE), batch - first_sequence - tile * S::TILE); }
};

template <int WORDS> DEVICE void copy_words(u8* to, const u32 (&w)[WORDS]) {
    if constexpr (WORDS == 1) *reinterpret_cast<u32*>(to) = w[0];
    else if constexpr (WORDS == 2) *reinterpret_cast<uint2*>(to) = make_uint2(w[0], w[1]);
    else *reinterpret_cast<uint4*>(to) = make_uint4(w[0], w[1], w[2], w[3]);
}

// One block: vectors stand in shared memory, two a tile in turn, between barriers of the block.
// FIRST: the first vector that is published (1 where vector 0 comes from global memory). ROW: bytes of a row at capacity.
template <int FIRST, int ROW, class S> struct LocalExchange {
    static constexpr bool IN_SHARED = true, THROUGH_GLOBAL = false, CAN_FAIL = false, PACKETS = false;
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = S::TILE * PITCH;
    static constexpr int FIXED_BYTES = 0, TILE_BYTES = 2 * VECTOR, SUM_BUFFERS = 1;
    const Group<S> group;
    u8* memory;
    u32 stride;  // between the memories of tiles

    DEVICE LocalExchange(const Group<S>& group, u8*, u8* per_tile, u32 stride, Patience)
        : group(group), memory(per_tile), stride(stride) {}
    DEVICE static u32 pitch(const Group<S>&) { return PITCH; }
    DEVICE u8* buffer(u32 tile, u32 n) const { return memory + tile * stride + ((n - FIRST) & 1) * VECTOR; }
    DEVICE void begin() { fill_shared_vectors(*this); }
    DEVICE SharedVector wait(u32 tile, u32 n, volatile u32*) { return {buffer(tile, n), PITCH}; }
    DEVICE void next() {}
    DEVICE void skip(u32) {}
    template <int WORDS> DEVICE void put(u32 tile, u32 n, u32 row, u32 byte, const u32 (&w)[WORDS]) {
        copy_words(buffer(tile, n) + row * PITCH + byte, w);
    }
    DEVICE void published(u32, u32) { __syncthreads(); }
    DEVICE void end() {}
};

// A cluster: a block stores what it publishes into every block's shared memory; the bytes are counted by a barrier there. A warp has all
// of the block's units of one row, which it sends in packets of 16 bytes: what takes time is the number of packets.
template <int FIRST, int ROW, class S> struct ClusterExchange {
    static constexpr bool IN_SHARED = true, THROUGH_GLOBAL = false, CAN_FAIL = true, PACKETS = true;
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = S::TILE * PITCH;
    static constexpr int OWN_ROW = ROW / S::CAPACITY * S::UNITS;  // bytes of a row that the block publishes
    static constexpr int FIXED_BYTES = S::TILE * OWN_ROW, TILE_BYTES = 2 * VECTOR + 128, SUM_BUFFERS = 2;
    static constexpr u32 MOST_BLOCKS = 16;
    static_assert(S::UNITS == 32 && S::CELLS == 1, "a warp has a row");
    const Group<S> group;
    u8* gathered;  // the block's part of the rows
    u8* memory;
    u32 stride;
    u32 blocks;
    Patience patience;

    DEVICE ClusterExchange(const Group<S>& group, u8* fixed, u8* per_tile, u32 stride, Patience patience)
        : group(group), gathered(fixed), memory(per_tile), stride(stride), blocks(cluster_size()), patience(patience) {}
    DEVICE static u32 pitch(const Group<S>&) { return PITCH; }
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
    DEVICE SharedVector wait(u32 tile, u32 n, volatile u32* failed) {
        if (int(n) >= FIRST)
            patience.until([&] { return mbarrier_test(barrier(tile, n), ((n - FIRST) >> 1) & 1); }, failed);
        return {buffer(tile, n), PITCH};
    }
    DEVICE void next() {}
    DEVICE void skip(u32) {}
    // Sends the whole warp's values of a row, X 16-bit elements of a lane's unit. Lanes take the packets and the blocks in turn.
    template <class E, int X> DEVICE void put_row(u32 tile, u32 n, u32 row, u32 first_unit, const float (&v)[X]) {
        constexpr u32 EACH = OWN_ROW / PIECE;  // packets for a block
        u8* const own = gathered + row * OWN_ROW;
        if constexpr (X == 4) {
            *reinterpret_cast<uint2*>(own + lane_id() * 8) = make_uint2(pack<E>(v[0], v[1]), pack<E>(v[2], v[X - 1]));
        } else {
#pragma unroll
            for (int i = 0; i < X; ++i) reinterpret_cast<E*>(own)[lane_id() * X + i] = round_to<E>(v[i]);
        }
        __syncwarp();
        const u8* const to = buffer(tile, n) + row * PITCH + first_unit * (X * 2);
        const u64* const counter = barrier(tile, n);
        if constexpr (32 % EACH == 0) {  // a lane has the same packet for all its blocks
            const u32 packet = lane_id() % EACH * PIECE;
            const uint4 w = *reinterpret_cast<const uint4*>(own + packet);
#pragma unroll
            for (u32 i = 0; i < MOST_BLOCKS; i += 32 / EACH) {
                const u32 rank = i + lane_id() / EACH;
                if (rank < blocks) st_async16(map_cluster(to + packet, rank), w, map_cluster(counter, rank));
            }
        } else {
#pragma unroll
            for (u32 i = 0; i < EACH * MOST_BLOCKS; i += 32) {
                const u32 packet = (i + lane_id()) % EACH * PIECE, rank = (i + lane_id()) / EACH;
                if (rank < blocks)
                    st_async16(map_cluster(to + packet, rank), *reinterpret_cast<const uint4*>(own + packet),
                               map_cluster(counter, rank));
            }
        }
    }
    // The bytes that every block of the cluster puts here for this vector.
    DEVICE void published(u32 tile, u32 n) {
        if (threadIdx.x == 0) mbarrier_arrive_expect(barrier(tile, n), group.sequences(tile) * group.row_bytes);
    }
    // No block leaves while others may still store into its shared memory. Every vector that was published has been waited for, except
    // after a wait that gave up.
    DEVICE void end() {
        __syncwarp();  // the barrier is for whole warps, and waits end when they end
        cluster_arrive();
        cluster_wait();
    }
};

// Blocks all over the GPU: vectors go through L2, a slot for each, polled by every warp for what it needs itself.
template <int FIRST, int ROW, class S> struct GridExchange {
    static constexpr bool IN_SHARED = false, THROUGH_GLOBAL = true, CAN_FAIL = true, PACKETS = false;
    static constexpr int FIXED_BYTES = 0, TILE_BYTES = 0, SUM_BUFFERS = 2;
    const Group<S> group;
    Patience patience;
    Walk published_at;  // the group's rows of the vector that this step publishes; it waits for the one before

    DEVICE GridExchange(const Group<S>& group, u8*, u8*, u32, Patience patience)
        : group(group), patience(patience),
          published_at(group.global.slot_bytes, u64(group.first_sequence) * group.row_bytes, group.global.reverse,
                       group.global.seq_len) {
        if (FIRST == 1) published_at.next();
    }
    DEVICE static u32 pitch(const Group<S>& group) { return group.row_bytes; }
    DEVICE void begin() {}
    DEVICE u64 rows_of(u32 tile) const { return u64(tile) * (S::TILE * group.row_bytes); }
    DEVICE PolledVector wait(u32 tile, u32 n, volatile u32* failed) {
        return {published_at.in<u8>(group.global.data, rows_of(tile) - published_at.stride), group.row_bytes, group.sequences(tile),
                int(n) >= FIRST, patience, failed};
    }
    DEVICE void next() { published_at.next(); }
    DEVICE void skip(u32 vectors) { published_at.skip(vectors); }
    template <int WORDS> DEVICE void put(u32 tile, u32 n, u32 row, u32 byte, const u32 (&w)[WORDS]) {
        u8* const to = published_at.in<u8>(group.global.data, rows_of(tile) + (row * group.row_bytes + byte));
        // The vector after the next, which was filled with the sentinel before the launch and has left L2 since if there are many: so
        // that no poll of it waits for DRAM.
        if (n + 2 < group.global.seq_len) prefetch_l2(to + 2 * published_at.stride);
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
    static constexpr int PITCH = vector_pitch(ROW), VECTOR = S::TILE * PITCH;
    static constexpr int FIXED_BYTES = VECTOR, TILE_BYTES = 0, SUM_BUFFERS = 1;
    u8* stage;
    u32 divisor;  // pieces of a row, inverted

    DEVICE StagedGridExchange(const Group<S>& group, u8* fixed, u8* per_tile, u32 stride, Patience patience)
        : Base(group, fixed, per_tile, stride, patience), stage(fixed), divisor(inverse(group.row_bytes / PIECE)) {}
    DEVICE static u32 pitch(const Group<S>&) { return PITCH; }
    // n / pieces for n < 2^16 by a multiplication: an integer division takes some 40 instructions.
    DEVICE static u32 inverse(u32 pieces) { return 0xffffffffu / pieces + 1; }
    DEVICE u32 row_of(u32 piece) const { return u32(u64(piece) * divisor >> 32); }
    DEVICE void begin() {
        for (u32 i = threadIdx.x; i < VECTOR / PIECE; i += S::THREADS)
            reinterpret_cast<uint4*>(stage)[i] = make_uint4(0, 0, 0, 0);
        __syncthreads();
    }
    DEVICE SharedVector wait(u32 tile, u32 n, volatile u32* failed) {
        const PolledVector from = Base::wait(tile, n, failed);
        // Rows follow one another without a gap, in global memory.
        const u32 pieces = this->group.row_bytes / PIECE, all = pieces * from.rows;
        constexpr u32 TOGETHER = 4;  // pieces of a thread that are on their way together
        for (u32 i = threadIdx.x; i < all; i += S::THREADS * TOGETHER) {
            uint4 v[TOGETHER];
            const auto place = [&](u32 at) { return from.data + at * PIECE; };
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
                }, failed);
#pragma unroll
            for (u32 j = 0; j < TOGETHER; ++j) {
                const u32 at = i + j * S::THREADS;
                const u32 row = row_of(at);
                if (at < all) *reinterpret_cast<uint4*>(stage + row * PITCH + (at - row * pieces) * PIECE) = v[j];
            }
        }
        __syncthreads();
        return {stage, PITCH};
    }
};

// Zeroes an exchange's vectors in shared memory, so that padding is zero for good, and gets vector 0 if it is not published.
template <template <int, int, class> class X, int FIRST, int ROW, class S>
DEVICE void fill_shared_vectors(X<FIRST, ROW, S>& exchange) {
    using Exchange = X<FIRST, ROW, S>;
    const Group<S>& group = exchange.group;
    const GlobalVectors& global = group.global;
    const u8* const first = global.data + (global.reverse ? u64(global.seq_len - 1) * global.slot_bytes : 0) +
                            u64(group.first_sequence) * group.row_bytes;  // vector 0
    for (u32 tile = 0; tile < group.tiles; ++tile) {
        const u32 pieces = group.row_bytes / PIECE, rows = group.sequences(tile);
        for (u32 i = threadIdx.x; i < 2 * Exchange::VECTOR / PIECE; i += S::THREADS) {
            const u32 buffer = i / (Exchange::VECTOR / PIECE), at = i % (Exchange::VECTOR / PIECE);
            const u32 row = at / (Exchange::PITCH / PIECE), piece = at % (Exchange::PITCH / PIECE);
            u8* const base = exchange.buffer(tile, buffer);
            uint4 v = make_uint4(0, 0, 0, 0);
            if (FIRST == 1 && buffer == 0 && row < rows && piece < pieces)
                v = *reinterpret_cast<const uint4*>(first + (tile * S::TILE + row) * group.row_bytes + piece * PIECE);
            reinterpret_cast<uint4*>(base)[at] = v;
        }
    }
    __syncthreads();
}

// Publishes X values of (unit, row), which stand at element unit * X of the row. All lanes of a warp take part; `on` lanes have
// something to say. 16-bit elements go out in whole words, which neighbouring units share where X is odd.
template <class E, int X, class Exchange>
DEVICE void publish(Exchange& exchange, u32 tile, u32 n, u32 row, u32 unit, bool on, const float (&v)[X]) {
    if constexpr (Exchange::PACKETS) {
        if (on) exchange.template put_row<E>(tile, n, row, unit - lane_id(), v);  // the same for all lanes
    } else if constexpr (sizeof(E) == 4) {
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
