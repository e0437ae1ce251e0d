// persistent/ahead.cuh - what a time loop has ready, so that no step computes addresses or waits for memory while other blocks wait for it.
//
// `Walk`       a place of this thread's in a tensor, which goes on from step to step
// `InputRing`  floats of global memory, copied to shared memory two items before they are used
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
};

// WIDTH floats of an item (a step of a tile) for each pair. A thread reads what it copied itself, so there is no barrier; and a copy that is
// under way holds no register and no scoreboard, so that a poll does not wait for it.
template <int WIDTH, class S> struct InputRing {
    static constexpr u32 AHEAD = 2, PAIRS = S::CELLS == 1 ? TILE * S::UNITS : S::CELLS * S::THREADS;
    static constexpr int BYTES = AHEAD * WIDTH * PAIRS * 4;
    float* data;

    DEVICE float* place(u32 item, int e, u32 i) const {
        return data + ((item % AHEAD) * WIDTH + i) * PAIRS + e * S::THREADS + threadIdx.x;
    }
    // Begins to copy number i of a pair; `commit` closes each item, whether it has something to copy or not.
    DEVICE void copy(u32 item, int e, u32 i, const float* from) const { cp_async4(place(item, e, i), from); }
    DEVICE void commit() const { cp_async_commit(); }
    // Waits for the oldest item under way.
    DEVICE void wait() const { cp_async_wait<AHEAD - 1>(); }
};
