// persistent/ahead.cuh - what a time loop has ready, so that no step computes addresses or waits for memory while other blocks wait for it.
//
// `Walk`       a place of this thread's in a tensor, which goes on from step to step
// `Rounds`     in which rounds of the time loop a tile takes part, and which item comes next
// `InputRing`  words of global memory, copied to shared memory two items before they are used
#pragma once
#include "persistent/shape.cuh"
#include "sequence.cuh"

// This thread's place, in elements, in a tensor with time as the first axis, in the order of processing.
struct Walk {
    u64 place;
    i64 stride;  // from one step to the next

    // Elements of a time, and the place of step 0 within its time.
    DEVICE Walk(u64 time_elements, u64 own, u32 reverse, u32 seq_len)
        : place((reverse ? u64(seq_len - 1) * time_elements : 0) + own),
          stride(reverse ? -i64(time_elements) : i64(time_elements)) {}
    template <class T> DEVICE T* in(void* tensor, u64 further) const { return static_cast<T*>(tensor) + (place + further); }
    template <class T> DEVICE const T* in(const void* tensor, u64 further) const {
        return static_cast<const T*>(tensor) + (place + further);
    }
    DEVICE void next() {
        place += stride;
        hide(place);
    }
    DEVICE void skip(u32 steps) { place += i64(steps) * stride; }
};

// Rounds [first, last) of the time loop: those in which a tile has a step within the length of any of its sequences. In the others it takes no part:
// its blocks neither multiply nor exchange nor wait, and its states stay as they are.
struct Span {
    u32 first, last;
    DEVICE bool has(u32 round) const { return first <= round && round < last; }
};

// The items of a group's time loop, a tile in a round each, in their order. Every block of a group finds the same, from the same lengths.
struct Rounds {
    const u32* lengths;  // null: every tile takes part in all rounds
    u32 count, tiles;
    Span* group;      // rounds with any item
    u8* first_tile;   // the span of tile 0; those of the others follow, `stride` bytes apart
    u32 stride;

    DEVICE Span all() const { return lengths == nullptr ? Span{0, count} : *group; }
    DEVICE Span of(u32 tile) const { return lengths == nullptr ? Span{0, count} : place(tile); }
    // The item that follows; `tile` is NO_TILE before the first of a round. In the round after the last item there is none.
    DEVICE void next(u32& round, u32& tile) const {
        do {
            if (++tile == tiles) {
                tile = 0;
                ++round;
            }
        } while (lengths != nullptr && round < group->last && !place(tile).has(round));
    }
    static constexpr u32 NO_TILE = 0xffffffffu;

    // Puts the spans where they are read. All warps take part; a barrier must follow. BACK: rounds go from the last time to the first.
    template <class S> DEVICE void find(u32 first_sequence, u32 batch, bool back) const {
        if (lengths == nullptr) return;
        const u32 end = min(batch, first_sequence + tiles * S::TILE);
        for (u32 tile = warp_id(); tile < tiles; tile += S::WARPS) {
            const u32 from = first_sequence + tile * S::TILE;
            const Span span = longest(from, min(end, from + S::TILE), back);
            if (lane_id() == 0) place(tile) = span;
        }
        if (warp_id() == 0) {
            const Span span = longest(first_sequence, end, back);
            if (lane_id() == 0) *group = span;
        }
    }

  private:
    DEVICE Span& place(u32 tile) const { return *reinterpret_cast<Span*>(first_tile + tile * stride); }
    // Of sequences [from, end), which have no step past the longest.
    DEVICE Span longest(u32 from, u32 end, bool back) const {
        u32 steps = 0;
        for (u32 b = from + lane_id(); b < end; b += 32) steps = max(steps, lengths[b]);
        steps = min(warp_max(steps), count);
        return back ? Span{count - steps, count} : Span{0, steps};
    }
};

// WIDTH words of an item (a step of a tile) for each pair. A thread reads what it copied itself, so there is no barrier; and a copy that is
// under way holds no register and no scoreboard, so that a poll does not wait for it.
template <int WIDTH, class S> struct InputRing {
    static constexpr u32 AHEAD = 2, PAIRS = S::CELLS == 1 ? S::TILE * S::UNITS : S::CELLS * S::THREADS;
    static constexpr int BYTES = AHEAD * WIDTH * PAIRS * 4;
    float* data;

    DEVICE float* place(u32 item, int e, u32 i) const {
        return number(item, i) + e * S::THREADS + threadIdx.x;
    }
    // Begins to copy number i of a pair; `commit` closes each item, whether it has something to copy or not.
    DEVICE void copy(u32 item, int e, u32 i, const float* from) const { cp_async4(place(item, e, i), from); }
    // The same of numbers i and i + 1, which are adjacent in memory and here.
    DEVICE uint2* piece(u32 item, int e, u32 i) const {
        return reinterpret_cast<uint2*>(number(item, i)) + (e * S::THREADS + threadIdx.x);
    }
    DEVICE void copy_piece(u32 item, int e, u32 i, const void* from) const { cp_async8(piece(item, e, i), from); }
    DEVICE void commit() const { cp_async_commit(); }
    // Waits for the oldest item under way.
    DEVICE void wait() const { cp_async_wait<AHEAD - 1>(); }

  private:
    // Number i of all pairs.
    DEVICE float* number(u32 item, u32 i) const { return data + ((item % AHEAD) * WIDTH + i) * PAIRS; }
};
