// saved.cuh - gates that training keeps in 16 bits (SAVE_PACKED): four numbers of a unit in a piece of eight bytes.
//
// Layout     [T, B, H] pieces. LSTM: i, f, g, o. GRU: r, z, n, and with the reset after the product q, R_n h + b_hn; else zero.
// Numerics   f16, in models of bf16 too. A sigmoid gate s is kept as s up to 1/2, and above as s - 1, whose sign (of zero too) says so: what
//            is near 0 and what is near 1 has the relative precision of f16, 2^-11, down to 2^-14, and is decoded to a float without
//            error. As s itself, 1 - s of a gate of 0.9975 would be wrong by up to a tenth, and so would be what follows from it: 1 - z of
//            the GRU, and the slope s (1 - s). State functions, tanh, are kept as they are. q is bounded to what f16 holds.
// Used       LSTM and GRU of f16 and bf16, sigmoid and tanh without a clip; other gates are accumulators.
// Oracle     src/backend/reference/, tests/operator/backends/.
#pragma once
#include "cells/gru.cuh"
#include "cells/lstm.cuh"

// Two numbers of a piece, each a gate or as it is.
template <bool GATE_LOW, bool GATE_HIGH> DEVICE u32 pack_saved(float low, float high) {
    return pack<f16>(GATE_LOW && low > 0.5f ? -(1.0f - low) : low, GATE_HIGH && high > 0.5f ? -(1.0f - high) : high);
}
template <bool GATE_LOW, bool GATE_HIGH> DEVICE void unpack_saved(u32 word, float& low, float& high) {
    low = unpack_low<f16>(word);
    high = unpack_high<f16>(word);
    if (GATE_LOW && (word & 0x8000u) != 0) low += 1.0f;
    if (GATE_HIGH && (word & 0x80000000u) != 0) high += 1.0f;
}

// A number as f16 can keep it: infinity times a slope of zero would be no number.
DEVICE float within_f16(float x) { return x > 65504.0f ? 65504.0f : x < -65504.0f ? -65504.0f : x; }

// What a cell's piece holds; other cells have none.
template <class Cell> struct SavedPiece {
    static constexpr bool PRESENT = false;
};
template <> struct SavedPiece<Lstm> {
    static constexpr bool PRESENT = true;
    static DEVICE uint2 pack(const float* gate, float) {
        return uint2{pack_saved<true, true>(gate[Lstm::I], gate[Lstm::F]), pack_saved<false, true>(gate[Lstm::G], gate[Lstm::O])};
    }
    static DEVICE void unpack(uint2 piece, float* gate, float&) {
        unpack_saved<true, true>(piece.x, gate[Lstm::I], gate[Lstm::F]);
        unpack_saved<false, true>(piece.y, gate[Lstm::G], gate[Lstm::O]);
    }
};
template <> struct SavedPiece<Gru> {
    static constexpr bool PRESENT = true;
    static DEVICE uint2 pack(const float* gate, float q) {
        return uint2{pack_saved<true, true>(gate[Gru::R], gate[Gru::Z]), pack_saved<false, false>(gate[Gru::N], within_f16(q))};
    }
    static DEVICE void unpack(uint2 piece, float* gate, float& q) {
        unpack_saved<true, true>(piece.x, gate[Gru::R], gate[Gru::Z]);
        unpack_saved<false, false>(piece.y, gate[Gru::N], q);
    }
};

// Whether a cell's gates may be kept so; those of the persistent kernels, whose functions are sigmoid and tanh, always are.
template <class Cell, class E> constexpr bool PACKED = is_16bit<E> && SavedPiece<Cell>::PRESENT;
