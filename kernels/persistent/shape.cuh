// persistent/shape.cuh - how a block of a persistent kernel divides its work, and what it multiplies with.
//
// A tile is TILE sequences, 8 or 16: those of 16 share each fragment of the matrix and one exchange. A block owns UNITS units of the
// layer; a thread has one unit throughout and CELLS (unit, sequence) pairs of a tile, whatever the product's layout is. Which shapes there
// are stands in the catalog.
#pragma once
#include "prims.cuh"

constexpr int COLUMNS = 8;  // sequences of an mma
constexpr int CHUNK = 64;   // bytes of k that a warp takes at a time
constexpr int PIECE = 16;   // bytes that a lane takes at a time

// How a block divides its work. UNITS of the layer; capacity K of the hidden size; WARPS; K_SPLIT: parts of k that different
// warps (mma) add up; SHARED_BLOCKS: blocks of fragments a warp that are in shared memory; TILE: sequences.
template <int UNITS_, int CAPACITY_, int WARPS_, int K_SPLIT_, int SHARED_BLOCKS_, int TILE_> struct Shape {
    static constexpr int UNITS = UNITS_, CAPACITY = CAPACITY_, WARPS = WARPS_, K_SPLIT = K_SPLIT_;
    static constexpr int SHARED_BLOCKS = SHARED_BLOCKS_, TILE = TILE_, THREADS = WARPS * 32;
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
