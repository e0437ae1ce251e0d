// persistent.cuh - what the persistent kernels share: a matrix that stays on the chip, and the exchange of a vector between steps.
//
// A group of blocks works through all steps of one direction for `tiles` tiles of TILE sequences (8 or 16). Every block owns UNITS units of
// the layer. A step multiplies the block's slice of a matrix, which stays in registers (and, where they do not suffice, in
// shared memory) for the whole launch, with a vector for each sequence that all blocks of the group need:
//
//   forward    R h:          ROWS = gates of a unit, the vector is h            (K = H)
//   backward   R^T dgates:   ROWS = 1,               the vector is the dgates   (K = G*H, element unit * G + gate)
//
// The parts  persistent/shape.cuh: how a block divides its work. persistent/product.cuh: the slice, its product, partial sums.
//            persistent/ahead.cuh: addresses and inputs of the steps to come.
//            persistent/exchange.cuh: who gets a published vector to whom; everything else is the same text for the three families.
//            Here: the cells' functions with the usual activations, and where everything stands in a block's shared memory.
//
// After a product a thread has all rows of its own (unit, sequence) pairs, which are spread over all threads of the block whatever
// the product's layout is.
#pragma once
#include "cells/gru.cuh"
#include "cells/lstm.cuh"
#include "cells/rnn.cuh"
#include "persistent/ahead.cuh"
#include "persistent/exchange.cuh"
#include "persistent/product.cuh"
#include "persistent/shape.cuh"
#include "saved.cuh"
#include "sequence.cuh"

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

// ---- the block's shared memory -------------------------------------------------------------------------------------------

// flags and the group's span | partial sums | fragments | inputs under way | the exchange's own | for each tile: the exchange's vectors, STATES floats
// for each pair, its span.
template <class Product, class Exchange, class Ring, int ROWS, int STATES, class S> struct Memory {
    using Sums = PartialSums<ROWS, S::UNITS, Product::PARTS, S::TILE>;
    static constexpr int SUMS = 128, FRAGMENTS = SUMS + Exchange::SUM_BUFFERS * Sums::BYTES;
    static constexpr int RING = FRAGMENTS + Product::SHARED_BYTES;
    static constexpr int FIXED = RING + Ring::BYTES, TILES = FIXED + Exchange::FIXED_BYTES;
    static constexpr int STATE = S::CELLS * S::THREADS * 4;  // bytes of one state of a tile
    static constexpr int SPAN = Exchange::TILE_BYTES + STATES * STATE, TILE_BYTES = SPAN + 16;
    u8* memory;

    DEVICE volatile u32* flags() const { return reinterpret_cast<volatile u32*>(memory); }
    DEVICE Sums sums(u32 item) const {
        return {reinterpret_cast<float*>(memory + SUMS + item % Exchange::SUM_BUFFERS * Sums::BYTES)};
    }
    DEVICE uint4* fragments() const { return reinterpret_cast<uint4*>(memory + FRAGMENTS); }
    DEVICE Ring ring() const { return {reinterpret_cast<float*>(memory + RING)}; }
    DEVICE u8* fixed() const { return memory + FIXED; }
    DEVICE u8* tiles() const { return memory + TILES; }
    DEVICE Rounds rounds(const u32* lengths, const Group<S>& group) const {
        return {lengths, group.global.seq_len, group.tiles, reinterpret_cast<Span*>(memory + 16), tiles() + SPAN, TILE_BYTES};
    }
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
